/* show.c - what people ask of a key, and totals. */
#include <string.h>

#include "router/limits/limits_int.h"

static void show_meters(struct limit_key *key, const struct weir_limit_table *t, struct weir_limits_view *ret)
{
    ret->n_meters = key->n_levels;
    for (int i = 0; i < key->n_levels; i++) {
        double limit = key_limit(key, t, i), minute = i == DAY ? SECONDS_A_DAY : 60;
        ret->meters[i].meter = key->is_account ? WEIR_METER_REQUESTS
                               : i == DAY      ? WEIR_METER_DAY
                                               : (enum weir_meter)i;
        ret->meters[i].limit = limit * minute;
        ret->meters[i].lower = key->start[i] * minute;
        ret->meters[i].upper = key->upper[i] * minute;
        ret->meters[i].burst = limit * key->burst_s[i];
        ret->meters[i].level = key->level[i];
        ret->meters[i].held = key_holds(key, i);
        ret->meters[i].used_last_minute = i < key->n_meters ? key_used_last_minute(key, i) : 0;
        ret->meters[i].clock_s = i < WEIR_ADAPTIVE ? key->clock_s[i] : 0;
    }
}

/* What happened last may have a clock that is a little ahead of the asker's. */
static uint64_t since(uint64_t then_ns, uint64_t now_ns)
{
    return now_ns > then_ns ? now_ns - then_ns : 0;
}

static void show_parts(struct weir_limits *lim, const struct limit_key *key, uint64_t now_ns,
                       struct weir_limits_view *ret, struct weir_limits_part *parts, int parts_max)
{
    if (parts_max > 0) {
        parts[0] = (struct weir_limits_part){ .router = lim->opts.self, .demand = key_demand(key, now_ns) };
        for (int i = 0; i < key->n_meters; i++) {
            parts[0].used[i] = key->used[i];
            parts[0].held[i] = (uint64_t)key->held[i];
        }
        ret->n_parts = 1;
    }
    for (const struct reg *reg = key->regs; reg && ret->n_parts < parts_max; reg = reg->next) {
        struct weir_limits_part *p = &parts[ret->n_parts++];
        const struct origin *o = &lim->origins[reg->origin];
        *p = (struct weir_limits_part){
            .router = o->id, .demand = reg->demand, .silent_ns = since(o->heard_ns, now_ns), .gone = !o->live
        };
        memcpy(p->used, reg->used, sizeof p->used);
        memcpy(p->held, reg->held, sizeof p->held);
    }
}

void weir_limits_show(struct weir_limits *lim, struct weir_str account, struct weir_str deployment,
                      uint64_t now_ns, struct weir_limits_view *ret, struct weir_limits_part *parts,
                      int parts_max)
{
    uint64_t id = limit_key_id(account, deployment);
    struct shard *shard = shard_of_id(lim, id);

    *ret = (struct weir_limits_view){ .last_refusal.admitted = true };
    pthread_rwlock_rdlock(&lim->table_lock);
    pthread_mutex_lock(&shard->lock);
    struct limit_key *key = key_find(shard, id);
    if (key) {
        ret->found = true;
        key_advance(key, &lim->table, now_ns);
        ret->owner = key_is_owned(lim, key, &ret->owner_id);
        show_meters(key, &lim->table, ret);
        show_parts(lim, key, now_ns, ret, parts, parts_max);
        if (key->refusal_ns) {
            ret->last_refusal = key->refusal;
            ret->last_refusal_ago_ns = since(key->refusal_ns, now_ns);
        }
    }
    pthread_mutex_unlock(&shard->lock);
    pthread_rwlock_unlock(&lim->table_lock);
}

/* Without a walk over the keys: this is asked for at every tick. */
static uint64_t bytes_of(const struct shard *shard)
{
    return shard->n_buckets * sizeof(void *) + shard->n_hold_buckets * sizeof(void *) +
           shard->n_keys * sizeof(struct limit_key) + shard->n_holds * sizeof(struct hold);
}

static uint64_t bytes_of_registers(struct weir_limits *lim)
{
    uint64_t n = 0;

    pthread_mutex_lock(&lim->origins_lock);
    for (uint32_t i = 0; i < lim->n_origins; i++)
        n += atomic_load_explicit(&lim->origins[i].n_regs, memory_order_relaxed);
    pthread_mutex_unlock(&lim->origins_lock);
    return n * sizeof(struct reg);
}

void weir_limits_stats(struct weir_limits *lim, struct weir_limits_stats *ret)
{
    *ret = (struct weir_limits_stats){ .bytes = sizeof *lim + bytes_of_registers(lim) };
    for (int i = 0; i < SHARDS; i++) {
        struct shard *shard = &lim->shards[i];
        pthread_mutex_lock(&shard->lock);
        ret->keys += shard->n_keys;
        ret->holds += shard->n_holds;
        ret->bytes += bytes_of(shard);
        ret->admitted += shard->stats.admitted;
        ret->refused += shard->stats.refused;
        ret->over_limit += shard->stats.over_limit;
        ret->unmetered += shard->stats.unmetered;
        ret->expired += shard->stats.expired;
        ret->duplicate += shard->stats.duplicate;
        for (int m = 0; m < WEIR_ADAPTIVE; m++)
            ret->admitted_tokens[m] += shard->stats.admitted_tokens[m];
        pthread_mutex_unlock(&shard->lock);
    }
}
