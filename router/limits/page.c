/* page.c - a shard's keys that this router owns, as JSON for etcd:
 * {"wall_ms":…,"keys":[[id, is_account, limits…, clocks…, levels…], …]}. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "router/limits/limits_int.h"

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
