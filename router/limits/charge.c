/* charge.c - what becomes of what was admitted: it starts, is charged as it streams, and is settled or expires, once. */
#include <math.h>

#include "router/limits/limits_int.h"

#define MEAN_WEIGHT 0.1 /* of the newest call in a key's running estimates */

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
        key->tokens_per_byte += ((double)prompt / hold->n_prompt_bytes - key->tokens_per_byte) * MEAN_WEIGHT;
    if (prompt > 0)
        key->hit_share += ((double)cached / prompt - key->hit_share) * MEAN_WEIGHT;
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
        key->mean_output += (mean - key->mean_output) * (key->mean_output > 0 ? MEAN_WEIGHT : 1);
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

/* [L3] Nobody knows what became of it: it counts as used. */
void holds_expire(struct weir_limits *lim, struct shard *shard, const struct weir_limit_table *t,
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
