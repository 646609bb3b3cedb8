/* admit.c - the decision: is there room for a request, and if not, on which meter and for how long. */
#include <math.h>
#include <string.h>

#include "base/hash.h"
#include "router/limits/limits_int.h"

#define EPSILON 1e-6     /* a bucket with less in it is empty */
#define MEAN_WEIGHT 0.1  /* of the newest request in a key's running means */
#define OUTPUT_FIRST 256 /* tokens expected of a key that nothing is known of */

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
        key->mean[i] += (estimates[i] - key->mean[i]) * (key->mean[i] > 0 ? MEAN_WEIGHT : 1);
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
    if (!key->has_numbers && !key->told_clock)
        key_forget_rates(key); /* they were held against limits that nobody had told */
    if (key_set_numbers(key, t, ask->numbers))
        key->limit_is_new = true;
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
