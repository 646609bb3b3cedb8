/* show.c - what people ask of a key, totals, and pages for etcd.
 *
 * A page is a shard's keys that this router owns: {"wall_ms":…,"keys":[[id, is_account, limits…, clocks…, levels…], …]}. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
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

/* ---- pages ---- */
uint64_t weir_limits_page_version(struct weir_limits *lim, uint32_t page)
{
    struct shard *shard = &lim->shards[page % SHARDS];

    pthread_mutex_lock(&shard->lock);
    uint64_t version = shard->page_version;
    pthread_mutex_unlock(&shard->lock);
    return version;
}

static void write_key(struct weir_limits *lim, struct limit_key *key, uint64_t now_ns, struct weir_buf *out,
                      bool *first)
{
    key_advance(key, &lim->table, now_ns);
    if (!key_is_owned(lim, key, NULL))
        return;
    weir_buf_addf(out, "%s[\"%014" PRIx64 "\",%d", *first ? "" : ",", key->id, key->is_account);
    for (int i = 0; i < LEVELS; i++)
        weir_buf_addf(out, ",%.6g", key_limit(key, &lim->table, i));
    for (int i = 0; i < WEIR_ADAPTIVE; i++)
        weir_buf_addf(out, ",%.0f", key->clock_s[i]);
    for (int i = 0; i < LEVELS; i++)
        weir_buf_addf(out, ",%.0f", key->level[i] + (i < key->n_levels ? key->held[i] : 0));
    weir_buf_addc(out, ']');
    *first = false;
}

weir_err weir_limits_page_write(struct weir_limits *lim, uint32_t page, uint64_t now_ns, uint64_t wall_ms,
                                struct weir_buf *out)
{
    struct shard *shard = &lim->shards[page % SHARDS];
    bool first = true;

    weir_buf_addf(out, "{\"wall_ms\":%" PRIu64 ",\"keys\":[", wall_ms);
    pthread_rwlock_rdlock(&lim->table_lock);
    pthread_mutex_lock(&shard->lock);
    for (uint32_t b = 0; b < shard->n_buckets; b++)
        for (struct limit_key *key = shard->keys[b]; key; key = key->next)
            write_key(lim, key, now_ns, out, &first);
    pthread_mutex_unlock(&shard->lock);
    pthread_rwlock_unlock(&lim->table_lock);
    weir_buf_adds(out, "]}");
    return out->failed ? WEIR_NOMEM : WEIR_OK;
}

struct page_key {
    uint64_t id, is_account;
    double limit[LEVELS], clock[WEIR_ADAPTIVE], level[LEVELS];
};

static void read_numbers(struct weir_json *j, double *to, int n)
{
    for (int i = 0; i < n && weir_json_next(j); i++)
        if (weir_json_f64(j, &to[i]) && to[i] < 0)
            weir_json_fail(j, WEIR_INVALID, "below 0");
}

static bool read_key(struct weir_json *j, struct page_key *ret)
{
    struct weir_str id = { "", 0 };
    char hex[17], *end = hex;

    if (!weir_json_array(j) || !weir_json_next(j) || !weir_json_string(j, &id))
        return false;
    if (id.len == 14) {
        memcpy(hex, id.ptr, id.len);
        hex[id.len] = 0;
        ret->id = strtoull(hex, &end, 16);
    }
    if (end != hex + 14)
        weir_json_fail(j, WEIR_INVALID, "not a key of 14 hexadecimal digits");
    if (weir_json_next(j))
        weir_json_u64(j, &ret->is_account);
    read_numbers(j, ret->limit, LEVELS);
    read_numbers(j, ret->clock, WEIR_ADAPTIVE);
    read_numbers(j, ret->level, LEVELS);
    if (weir_json_next(j))
        weir_json_fail(j, WEIR_INVALID, "more than %d values", 2 + 2 * LEVELS + WEIR_ADAPTIVE);
    return weir_json_ok(j);
}

static void take_key(struct weir_limits *lim, const struct page_key *p, double away_s, uint64_t now_ns)
{
    struct shard *shard = shard_of_id(lim, p->id);

    pthread_mutex_lock(&shard->lock);
    if (!key_find(shard, p->id)) { /* else it is known better */
        struct limit_key *key = key_make(lim, shard, p->id, p->is_account != 0, now_ns);
        for (int i = 0; key && i < LEVELS; i++) {
            double level = p->level[i] - p->limit[i] * away_s;
            key->told_limit[i] = p->limit[i];
            key->level[i] = i < key->n_levels && level > 0 ? level : 0;
            key->empty_ns[i] = key->level[i] > 0 ? UINT64_MAX : 0;
        }
        for (int i = 0; key && i < WEIR_ADAPTIVE; i++)
            key->clock_s[i] = p->clock[i];
    }
    pthread_mutex_unlock(&shard->lock);
}

weir_err weir_limits_page_read(struct weir_limits *lim, struct weir_str json, uint64_t now_ns,
                               uint64_t wall_ms, uint64_t *ret_written_ms, struct weir_why *why)
{
    struct weir_str name;
    struct weir_json j;
    uint64_t then_ms = wall_ms;

    weir_json_init(&j, json.ptr, json.len, NULL);
    weir_json_object(&j);
    while (weir_json_key(&j, &name)) {
        if (weir_str_eq(name, "wall_ms")) {
            weir_json_u64(&j, &then_ms);
        } else if (weir_str_eq(name, "keys") && weir_json_array(&j)) {
            double away_s = wall_ms > then_ms ? (double)(wall_ms - then_ms) / 1000 : 0;
            while (weir_json_next(&j)) {
                struct page_key p = { .id = 0 };
                if (read_key(&j, &p))
                    take_key(lim, &p, away_s, now_ns);
            }
        } else {
            weir_json_skip(&j);
        }
    }
    if (weir_json_end(&j, why) != WEIR_OK)
        return WEIR_CORRUPT;
    if (ret_written_ms)
        *ret_written_ms = then_ms;
    return WEIR_OK;
}
