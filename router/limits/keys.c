/* keys.c - a shard's table of keys, and its lists by last change. All under the shard's lock. */
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "router/limits/limits_int.h"

#define ID_MASK ((1ull << 56) - 1)

/* ---- lists by last change ---- */
void change_remove(struct change_list *list, struct change *c)
{
    if (c->version == 0)
        return;
    *(c->newer ? &c->newer->older : &list->newest) = c->older;
    *(c->older ? &c->older->newer : &list->oldest) = c->newer;
    c->newer = c->older = NULL;
    c->version = 0;
}

void key_touch(struct weir_limits *lim, struct shard *shard, struct limit_key *key)
{
    change_touch(lim, &shard->own, &key->change);
    key->is_tail = false;
    if (key->limit_is_new)
        key->limit_change = key->change.version;
    key->limit_is_new = false;
}

void change_touch(struct weir_limits *lim, struct change_list *list, struct change *c)
{
    if (c->version > atomic_load_explicit(&lim->told, memory_order_relaxed))
        return; /* no pass has been here since */
    change_remove(list, c);
    c->version = atomic_fetch_add_explicit(&lim->version, 1, memory_order_relaxed) + 1;
    c->older = list->newest;
    *(list->newest ? &list->newest->newer : &list->oldest) = c;
    list->newest = c;
}

/* ---- keys ---- */
/* 56 bits: the shard's, by account, and 48 of both names. */
uint64_t limit_key_id_of(uint64_t account, struct weir_str deployment)
{
    return (account >> 56 << 48) | (weir_hash64(deployment.ptr, deployment.len, account) & (ID_MASK >> 8));
}

uint64_t limit_key_id(struct weir_str account, struct weir_str deployment)
{
    return limit_key_id_of(weir_hash64(account.ptr, account.len, 1), deployment);
}

struct shard *shard_of_id(struct weir_limits *lim, uint64_t id)
{
    return &lim->shards[(id >> 48) % SHARDS];
}

struct limit_key *key_find(struct shard *shard, uint64_t id)
{
    struct limit_key *key = shard->n_buckets ? shard->keys[id & (shard->n_buckets - 1)] : NULL;

    while (key && key->id != id)
        key = key->next;
    return key;
}

static bool grow_keys(struct shard *shard)
{
    uint32_t n = shard->n_buckets ? shard->n_buckets * 2 : BUCKETS_FIRST;
    struct limit_key **grown;

    if (shard->n_keys < shard->n_buckets)
        return true;
    grown = weir_calloc(n, sizeof *grown);
    if (!grown)
        return shard->n_buckets > 0;
    for (uint32_t b = 0; b < shard->n_buckets; b++)
        while (shard->keys[b]) {
            struct limit_key *key = shard->keys[b];
            shard->keys[b] = key->next;
            key->next = grown[key->id & (n - 1)];
            grown[key->id & (n - 1)] = key;
        }
    weir_free(shard->keys);
    shard->keys = grown;
    shard->n_buckets = n;
    return true;
}

struct limit_key *key_make(struct weir_limits *lim, struct shard *shard, uint64_t id, bool is_account,
                           uint64_t now_ns)
{
    if (atomic_load_explicit(&lim->n_keys, memory_order_relaxed) >= lim->opts.keys_max || !grow_keys(shard))
        return NULL;
    struct limit_key *key = weir_alloc0(sizeof *key);
    if (!key)
        return NULL;
    key->id = id;
    key->is_account = is_account;
    key->n_meters = is_account ? 1 : WEIR_ADAPTIVE;
    key->n_levels = is_account ? 1 : LEVELS;
    key->t_ns = key->demand_ns = key->busy_ns = now_ns;
    key->window_slot = now_ns / WINDOW_SLOT_NS;
    key->generation = atomic_fetch_add(&lim->generations, 1) + 1;
    key->tokens_per_byte = 0.25;
    struct limit_key **bucket = &shard->keys[id & (shard->n_buckets - 1)];
    key->next = *bucket;
    *bucket = key;
    shard->n_keys++;
    atomic_fetch_add(&lim->n_keys, 1);
    return key;
}

void key_free(struct weir_limits *lim, struct limit_key *key)
{
    while (key->regs) {
        struct reg *reg = key->regs;
        key->regs = reg->next;
        reg_free(lim, reg);
    }
    weir_free(key);
}

void key_forget(struct weir_limits *lim, struct shard *shard, struct limit_key *key)
{
    struct limit_key **at = &shard->keys[key->id & (shard->n_buckets - 1)];

    while (*at != key)
        at = &(*at)->next;
    *at = key->next;
    change_remove(&shard->own, &key->change);
    for (struct reg *reg = key->regs; reg; reg = reg->next)
        change_remove(&shard->others, &reg->change);
    key_free(lim, key);
    shard->n_keys--;
    atomic_fetch_sub(&lim->n_keys, 1);
}
