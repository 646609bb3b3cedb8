/* limits.c - the decision, and what becomes of what was admitted: reserve, charge, settle, expire. */
#include "router/limits/limits.h"

#include <math.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "router/limits/limits_int.h"

#define KEYS_MAX_DEFAULT 1000000
#define NS 1e-9
#define EPSILON 1e-6 /* a bucket with less in it is empty */
#define ESTIMATE_WEIGHT 0.1
#define OUTPUT_FIRST 256 /* tokens expected of a key that nothing is known of */
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

/* ---- the decision ---- */
static void estimate(const struct limit_key *key, const struct weir_limits_ask *ask, double ret[LEVELS])
{
    double output = ask->expect_output     ? ask->expect_output
                    : key->mean_output > 0 ? key->mean_output
                                           : OUTPUT_FIRST;

    if (ask->max_tokens > 0 && ask->max_tokens < output)
        output = ask->max_tokens;
    ret[WEIR_METER_PROMPT] = ceil(ask->prompt_bytes * key->tokens_per_byte) + 1;
    ret[WEIR_METER_UNCACHED] = ceil(ret[WEIR_METER_PROMPT] * (1 - key->hit_share));
    if (ask->expect_uncached && ask->expect_uncached < ret[WEIR_METER_PROMPT])
        ret[WEIR_METER_UNCACHED] = ask->expect_uncached;
    ret[WEIR_METER_GENERATED] = ceil(output * ask->n);
    ret[DAY] = ret[WEIR_METER_PROMPT] + ret[WEIR_METER_GENERATED];
}

static enum weir_meter meter_of(const struct limit_key *key, int i)
{
    return key->is_account ? WEIR_METER_REQUESTS : i == DAY ? WEIR_METER_DAY : (enum weir_meter)i;
}

static void note_demand(struct limit_key *key, const double estimates[LEVELS], uint64_t now_ns)
{
    double all = 0;

    for (int i = 0; i < key->n_meters; i++) {
        all += estimates[i];
        key->mean[i] += (estimates[i] - key->mean[i]) * (key->mean[i] > 0 ? ESTIMATE_WEIGHT : 1);
    }
    key->demand = key_demand(key, now_ns) + all / DEMAND_TAU_S;
    if (now_ns > key->demand_ns)
        key->demand_ns = now_ns;
}

/* Until the level has room for it, given no other traffic. */
static uint64_t wait_for_room(const struct limit_key *key, const struct weir_limit_table *t, int i,
                              double estimate_i)
{
    double limit = key_limit(key, t, i), in = key->level[i] + key_holds(key, i),
           burst = limit * key->burst_s[i];
    double over = estimate_i <= burst ? in + estimate_i - burst : in;
    uint64_t wait_ns = over > 0 && limit > 0 ? (uint64_t)(over / limit * 1e9) : 0;

    /* Less: there is room, but it is another router's this round. */
    return wait_ns < WEIR_MS_NS ? ROUND_WAIT_NS : wait_ns;
}

/* Of the levels that have no room for it, the one that is full longest; -1: all have. */
static int find_full(struct weir_limits *lim, struct limit_key *key, const struct weir_limit_table *t,
                     const double estimates[LEVELS], uint64_t now_ns)
{
    bool was_quiet =
        atomic_load_explicit(&lim->n_live, memory_order_relaxed) > 1 && key_is_quiet(key, t, now_ns);

    note_demand(key, estimates, now_ns);
    key_cut_slice(lim, key, t, was_quiet, now_ns);
    int full = -1;
    uint64_t longest = 0;
    for (int i = 0; i < key->n_levels; i++) {
        double in = key->level[i] + key_holds(key, i), burst = key_limit(key, t, i) * key->burst_s[i];
        if (in + estimates[i] <= burst && estimates[i] <= key->slice[i])
            continue;
        /* Oversized: more than a bucket, or than one router's part of it, holds. */
        if (in <= EPSILON && estimates[i] > 0 && key_may_take_last(lim, key, now_ns))
            continue;
        uint64_t wait_ns = wait_for_room(key, t, i, estimates[i]);
        if (wait_ns > longest) {
            longest = wait_ns;
            full = i;
        }
    }
    return full;
}

static void fill_refusal(struct limit_key *key, const struct weir_limit_table *t, int i, double estimate_i,
                         uint64_t now_ns, struct weir_limits_verdict *ret)
{
    double limit = key_limit(key, t, i);

    ret->meter = meter_of(key, i);
    ret->limit = i == DAY ? limit * SECONDS_A_DAY : limit * 60;
    ret->used = key->level[i] + key_holds(key, i);
    ret->burst = limit * key->burst_s[i];
    ret->estimate = estimate_i;
    ret->wait_ns = wait_for_room(key, t, i, estimate_i);
    ret->admitted = false;
    key->refusal = *ret;
    key->refusal_ns = now_ns;
}

static void fill_headers(struct limit_key *key, const struct weir_limit_table *t,
                         struct weir_limits_verdict *ret)
{
    for (int i = 0; i < key->n_levels; i++) {
        enum weir_meter m = meter_of(key, i);
        double limit = key_limit(key, t, i), minute = i == DAY ? SECONDS_A_DAY : 60;
        double left = limit * minute - (key->level[i] + key_holds(key, i)) * (minute / key->burst_s[i]);
        ret->limits[m] = limit * minute;
        ret->remaining[m] = left > 0 ? left : 0;
    }
}

static void take(struct limit_key *key, const double estimates[LEVELS])
{
    for (int i = 0; i < key->n_levels; i++) {
        key->held[i] += estimates[i];
        key->slice[i] -= estimates[i];
    }
}

static struct limit_key *ready_key(struct weir_limits *lim, struct shard *shard,
                                   const struct weir_limits_ask *ask, uint64_t id, bool is_account,
                                   const struct weir_limit_table *t, uint64_t now_ns)
{
    struct limit_key *key = key_find(shard, id);

    if (!key)
        key = key_make(lim, shard, id, is_account, now_ns);
    if (!key)
        return NULL;
    key_advance(key, t, now_ns);
    if (!is_account && key->deployment == 0)
        key->deployment = weir_hash64(ask->deployment.ptr, ask->deployment.len, 0);
    key_set_numbers(key, t, ask->numbers);
    return key;
}

/* All of it at once, since it lies in some twenty lines that are most often in no cache. */
static void prefetch(const struct limit_key *key)
{
    for (size_t at = 0; key && at < sizeof *key; at += 64)
        __builtin_prefetch((const char *)key + at, 1);
}

static weir_err decide(struct weir_limits *lim, struct shard *shard, const struct weir_limits_ask *ask,
                       const uint64_t ids[2], uint64_t now_ns, struct weir_limits_verdict *ret)
{
    const struct weir_limit_table *t = &lim->table;
    prefetch(key_find(shard, ids[0]));
    prefetch(key_find(shard, ids[1]));
    struct limit_key *key = ready_key(lim, shard, ask, ids[0], false, t, now_ns);
    struct limit_key *account = ready_key(lim, shard, ask, ids[1], true, t, now_ns);
    double tokens[LEVELS], requests[LEVELS] = { ask->n };

    ret->admitted = true;
    if (!key || !account) { /* [L5] */
        shard->stats.unmetered++;
        return WEIR_OK;
    }
    if (hold_find(shard, ask->call_id)) {
        shard->stats.duplicate++;
        return WEIR_OK;
    }
    estimate(key, ask, tokens);
    int full = find_full(lim, key, t, tokens, now_ns),
        full_account = find_full(lim, account, t, requests, now_ns);
    if (full >= 0)
        fill_refusal(key, t, full, tokens[full], now_ns, ret);
    if (full_account >= 0 &&
        wait_for_room(account, t, full_account, requests[0]) > ret->wait_ns) { /* shown of both */
        fill_refusal(account, t, full_account, requests[0], now_ns, ret);
        key->refusal = *ret;
        key->refusal_ns = now_ns;
    }
    ret->over_limit = full >= 0 || full_account >= 0;
    ret->admitted = !ret->over_limit || ask->numbers->legacy;
    fill_headers(key, t, ret);
    fill_headers(account, t, ret);
    key_touch(lim, shard, key); /* demand is news, too */
    key_touch(lim, shard, account);
    if (!ret->admitted) { /* [L1] */
        shard->stats.refused++;
        ret->over_limit = false;
        return WEIR_OK;
    }
    struct hold *hold = hold_add(shard, ask->call_id, now_ns + t->hold_ttl_s * 1000000000ull);
    if (!hold)
        return WEIR_NOMEM;
    ret->wait_ns = 0;
    hold->key = key;
    hold->account = account;
    key->n_holds++;
    account->n_holds++;
    hold->n = ask->n;
    hold->n_prompt_bytes = ask->prompt_bytes;
    memcpy(hold->held, tokens, sizeof hold->held);
    hold->requests = requests[0];
    take(key, tokens);
    take(account, requests);
    shard->stats.admitted++;
    shard->stats.over_limit += ret->over_limit;
    return WEIR_OK;
}

weir_err weir_limits_reserve(struct weir_limits *lim, const struct weir_limits_ask *ask, uint64_t now_ns,
                             struct weir_limits_verdict *ret)
{
    uint64_t account = weir_hash64(ask->account.ptr, ask->account.len, 1);
    const uint64_t ids[2] = { limit_key_id_of(account, ask->deployment),
                              limit_key_id_of(account, (struct weir_str){ "", 0 }) };
    struct shard *shard = shard_of_id(lim, ids[0]);

    *ret = (struct weir_limits_verdict){ .admitted = false };
    pthread_rwlock_rdlock(&lim->table_lock); /* before a shard's */
    pthread_mutex_lock(&shard->lock);
    weir_err err = decide(lim, shard, ask, ids, now_ns, ret);
    pthread_mutex_unlock(&shard->lock);
    pthread_rwlock_unlock(&lim->table_lock);
    return err;
}

/* ---- charging ---- */
static void use_own(struct limit_key *key, const struct weir_limit_table *t, int i, uint64_t n)
{
    if (n == 0)
        return;
    key_use(key, t, i, (double)n, 0);
    key_note_use(key, i, (double)n);
    key->used[i] += n; /* [L2] */
}

static void release(struct limit_key *key, double *held, int i, double n)
{
    if (n > *held)
        n = *held;
    *held -= n;
    key->held[i] = key->held[i] > n ? key->held[i] - n : 0;
}

static void start_hold(struct hold *hold, const struct weir_limit_table *t, uint32_t prompt, uint32_t cached)
{
    struct limit_key *key = hold->key;

    cached = cached < prompt ? cached : prompt;
    hold->started = true;
    hold->prompt = prompt;
    hold->cached = cached;
    release(key, &hold->held[WEIR_METER_PROMPT], WEIR_METER_PROMPT, INFINITY);
    release(key, &hold->held[WEIR_METER_UNCACHED], WEIR_METER_UNCACHED, INFINITY);
    release(key, &hold->held[DAY], DAY, hold->held[DAY] - hold->held[WEIR_METER_GENERATED]);
    use_own(key, t, WEIR_METER_PROMPT, prompt);
    use_own(key, t, WEIR_METER_UNCACHED, prompt - cached);
    release(hold->account, &hold->requests, 0, INFINITY);
    use_own(hold->account, t, 0, hold->n);
    if (hold->n_prompt_bytes > 0)
        key->tokens_per_byte +=
            ((double)prompt / hold->n_prompt_bytes - key->tokens_per_byte) * ESTIMATE_WEIGHT;
    if (prompt > 0)
        key->hit_share += ((double)cached / prompt - key->hit_share) * ESTIMATE_WEIGHT;
}

static void charge_hold(struct hold *hold, const struct weir_limit_table *t, uint32_t n)
{
    release(hold->key, &hold->held[WEIR_METER_GENERATED], WEIR_METER_GENERATED, n);
    release(hold->key, &hold->held[DAY], DAY, n);
    use_own(hold->key, t, WEIR_METER_GENERATED, n);
    hold->charged += n;
}

static void end_hold(struct weir_limits *lim, struct shard *shard, struct hold *hold)
{
    struct limit_key *key = hold->key;

    for (int i = 0; i < LEVELS; i++)
        release(key, &hold->held[i], i, INFINITY);
    release(hold->account, &hold->requests, 0, INFINITY);
    shard->stats.admitted_tokens[WEIR_METER_PROMPT] += hold->prompt;
    shard->stats.admitted_tokens[WEIR_METER_UNCACHED] += hold->prompt - hold->cached;
    shard->stats.admitted_tokens[WEIR_METER_GENERATED] += hold->charged;
    key_touch(lim, shard, key);
    key_touch(lim, shard, hold->account);
    shard->page_version++; /* a level is on the page, too */
    hold_free(shard, hold);
}

enum what { STARTED, CHARGE, SETTLE };
struct usage {
    uint32_t prompt, cached, generated;
};

static void settle(struct weir_limits *lim, struct shard *shard, struct hold *hold,
                   const struct weir_limit_table *t, const struct usage *u)
{
    struct limit_key *key = hold->key;

    if (!hold->started && (u->prompt > 0 || u->generated > 0))
        start_hold(hold, t, u->prompt, u->cached);
    if (u->generated > hold->charged)
        charge_hold(hold, t, u->generated - hold->charged);
    if (hold->started && hold->n > 0) {
        double mean = (double)hold->charged / hold->n;
        key->mean_output += (mean - key->mean_output) * (key->mean_output > 0 ? ESTIMATE_WEIGHT : 1);
    }
    end_hold(lim, shard, hold);
}

static void on_hold(struct weir_limits *lim, struct weir_str account, const uint8_t call_id[16],
                    enum what what, const struct usage *u, uint64_t now_ns)
{
    struct shard *shard = shard_of_id(lim, limit_key_id(account, account));

    pthread_rwlock_rdlock(&lim->table_lock);
    pthread_mutex_lock(&shard->lock);
    struct hold *hold = hold_find(shard, call_id);
    if (hold) {
        key_advance(hold->key, &lim->table, now_ns);
        key_advance(hold->account, &lim->table, now_ns);
        if (what == STARTED && !hold->started)
            start_hold(hold, &lim->table, u->prompt, u->cached);
        else if (what == CHARGE)
            charge_hold(hold, &lim->table, u->generated);
        key_touch(lim, shard, hold->key);
        if (what == SETTLE)
            settle(lim, shard, hold, &lim->table, u);
    }
    pthread_mutex_unlock(&shard->lock);
    pthread_rwlock_unlock(&lim->table_lock);
}

void weir_limits_started(struct weir_limits *lim, struct weir_str account, const uint8_t call_id[16],
                         uint32_t prompt_tokens, uint32_t cached_tokens, uint64_t now_ns)
{
    struct usage u = { prompt_tokens, cached_tokens, 0 };
    on_hold(lim, account, call_id, STARTED, &u, now_ns);
}

void weir_limits_charge(struct weir_limits *lim, struct weir_str account, const uint8_t call_id[16],
                        uint32_t n_tokens, uint64_t now_ns)
{
    struct usage u = { 0, 0, n_tokens };
    on_hold(lim, account, call_id, CHARGE, &u, now_ns);
}

void weir_limits_settle(struct weir_limits *lim, struct weir_str account, const uint8_t call_id[16],
                        uint32_t prompt_tokens, uint32_t cached_tokens, uint32_t generated_tokens,
                        uint64_t now_ns)
{
    struct usage u = { prompt_tokens, cached_tokens, generated_tokens };
    on_hold(lim, account, call_id, SETTLE, &u, now_ns);
}

/* ---- housekeeping ---- */
/* [L3] Nobody knows what became of it: it counts as used. */
static void expire_holds(struct weir_limits *lim, struct shard *shard, const struct weir_limit_table *t,
                         uint64_t now_ns)
{
    struct hold *hold;

    while ((hold = shard->next_expiry) != NULL && hold->expires_ns <= now_ns) {
        struct usage u = { (uint32_t)hold->held[WEIR_METER_PROMPT], 0,
                           hold->charged + (uint32_t)hold->held[WEIR_METER_GENERATED] };
        if (!hold->started)
            u.cached = u.prompt - (uint32_t)fmin(hold->held[WEIR_METER_UNCACHED], u.prompt);
        key_advance(hold->key, t, now_ns);
        key_advance(hold->account, t, now_ns);
        shard->stats.expired++;
        settle(lim, shard, hold, t, &u);
    }
}

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
        expire_holds(lim, shard, &t, now_ns);
        for (uint32_t b = 0; b < shard->n_buckets; b++)
            for (struct limit_key *key = shard->keys[b], *next; key; key = next) {
                next = key->next;
                sweep_key(lim, shard, key, &t, now_ns);
            }
        pthread_mutex_unlock(&shard->lock);
    }
}
