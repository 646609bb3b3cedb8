/* limits.c - the limits as a whole: opened, their table, which deployments shed, housekeeping. */
#include "router/limits/limits.h"

#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "router/limits/limits_int.h"

#define KEYS_MAX_DEFAULT 1000000
#define NS 1e-9
#define EPSILON 1e-6 /* a hold of less is none */
#define SWEEP_SHARDS 8

/* ---- opening ---- */
weir_err weir_limits_open(const struct weir_limits_opts *opts, uint64_t now_ns, struct weir_limits **ret,
                          struct weir_why *why)
{
    struct weir_limits *lim;
    weir_err err = weir_limit_table_check(&opts->table, why);

    if (err != WEIR_OK)
        return err;
    lim = weir_alloc0(sizeof *lim);
    if (!lim)
        return weir_fail(why, WEIR_NOMEM, "no memory for the limits");
    lim->opts = *opts;
    lim->table = opts->table;
    lim->opts.keys_max = opts->keys_max ? opts->keys_max : KEYS_MAX_DEFAULT;
    lim->born_ns = now_ns;
    atomic_store(&lim->n_live, 1);
    pthread_rwlock_init(&lim->table_lock, NULL);
    pthread_mutex_init(&lim->origins_lock, NULL);
    pthread_mutex_init(&lim->shedding_lock, NULL);
    for (int i = 0; i < SHARDS; i++)
        pthread_mutex_init(&lim->shards[i].lock, NULL);
    *ret = lim;
    return WEIR_OK;
}

void weir_limits_close(struct weir_limits *lim)
{
    if (!lim)
        return;
    for (int i = 0; i < SHARDS; i++) {
        struct shard *shard = &lim->shards[i];
        while (shard->next_expiry)
            hold_free(shard, shard->next_expiry);
        for (uint32_t b = 0; b < shard->n_buckets; b++)
            while (shard->keys[b]) {
                struct limit_key *key = shard->keys[b];
                shard->keys[b] = key->next;
                key_free(lim, key);
            }
        weir_free(shard->keys);
        weir_free(shard->holds);
        pthread_mutex_destroy(&shard->lock);
    }
    pthread_mutex_destroy(&lim->shedding_lock);
    pthread_mutex_destroy(&lim->origins_lock);
    pthread_rwlock_destroy(&lim->table_lock);
    weir_free(lim);
}

void weir_limits_set_table(struct weir_limits *lim, const struct weir_limit_table *table)
{
    pthread_rwlock_wrlock(&lim->table_lock);
    lim->table = *table;
    pthread_rwlock_unlock(&lim->table_lock);
}

static struct weir_limit_table table_now(struct weir_limits *lim)
{
    pthread_rwlock_rdlock(&lim->table_lock);
    struct weir_limit_table t = lim->table;
    pthread_rwlock_unlock(&lim->table_lock);
    return t;
}

void weir_limits_set_shedding(struct weir_limits *lim, struct weir_str deployment, bool shedding)
{
    uint64_t hash = weir_hash64(deployment.ptr, deployment.len, 0);
    uint32_t n, i;

    pthread_mutex_lock(&lim->shedding_lock);
    n = atomic_load(&lim->n_shedding);
    for (i = 0; i < n && atomic_load(&lim->shedding[i]) != hash; i++)
        ;
    if (shedding && i == n && n < SHEDDING_MAX) {
        atomic_store(&lim->shedding[n], hash);
        atomic_store(&lim->n_shedding, n + 1);
    } else if (!shedding && i < n) {
        atomic_store(&lim->shedding[i], atomic_load(&lim->shedding[n - 1]));
        atomic_store(&lim->n_shedding, n - 1);
    }
    pthread_mutex_unlock(&lim->shedding_lock);
}

bool is_shedding(struct weir_limits *lim, uint64_t deployment)
{
    uint32_t n = atomic_load(&lim->n_shedding);
    bool found = false;

    for (uint32_t i = 0; i < n; i++)
        found = found || atomic_load(&lim->shedding[i]) == deployment;
    return found;
}

/* ---- housekeeping ---- */
static bool is_at_rest(const struct limit_key *key, const struct weir_limit_table *t, uint64_t now_ns)
{
    uint64_t rest_ns = t->key_rest_s * 1000000000ull;

    if (key->n_holds > 0 || now_ns < key->demand_ns + rest_ns)
        return false;
    for (int i = 0; i < key->n_levels; i++)
        if (key->level[i] > 1 || key->held[i] > EPSILON || (i < WEIR_ADAPTIVE && key->clock_s[i] > 0))
            return false;
    /* Others forget theirs first: what they still tell must find its predecessor here. */
    for (const struct reg *reg = key->regs; reg; reg = reg->next)
        if (now_ns < reg->moved_ns + 2 * rest_ns)
            return false;
    return true;
}

static void sweep_key(struct weir_limits *lim, struct shard *shard, struct limit_key *key,
                      const struct weir_limit_table *t, uint64_t now_ns)
{
    double dt = (double)(now_ns - (key->clock_ns ? key->clock_ns : now_ns)) * NS;

    key_advance(key, t, now_ns);
    key_drop_gone(lim, shard, key, t->key_rest_s * 1000000000ull, now_ns);
    key_sum_registers(lim, key);
    key->clock_ns = now_ns;
    if (key_is_owned(lim, key, NULL)) {
        double before[WEIR_ADAPTIVE];
        memcpy(before, key->clock_s, sizeof before);
        key_run_clock(key, t, dt, is_shedding(lim, key->deployment));
        bool is_news = false;
        for (int i = 0; i < key->n_meters; i++)
            is_news = is_news || (uint64_t)key->clock_s[i] != (uint64_t)before[i];
        if (is_news) {
            shard->page_version++;
            key_touch(lim, shard, key);
            key->clock_change = key->change.version;
        }
    }
    if (is_at_rest(key, t, now_ns))
        key_forget(lim, shard, key);
}

void weir_limits_sweep(struct weir_limits *lim, uint64_t now_ns)
{
    struct weir_limit_table t = table_now(lim);

    for (int k = 0; k < SWEEP_SHARDS; k++) {
        struct shard *shard = &lim->shards[lim->sweep_at++ % SHARDS];
        pthread_mutex_lock(&shard->lock);
        holds_expire(lim, shard, &t, now_ns);
        for (uint32_t b = 0; b < shard->n_buckets; b++)
            for (struct limit_key *key = shard->keys[b], *next; key; key = next) {
                next = key->next;
                sweep_key(lim, shard, key, &t, now_ns);
            }
        pthread_mutex_unlock(&shard->lock);
    }
}
