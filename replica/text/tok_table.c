/* tok_table.c - the vocabulary's tables: spelling to id, pair to merge, and which neighbours may ever join.
 *
 * Built once at load, at most half full, then only read. The hash is not seeded: what goes in comes from the
 * model's file, what users send is only looked up. */
#include "replica/text/tok_int.h"

#include <string.h>

#include "base/hash.h"

static uint32_t table_size(size_t n_max)
{
    uint32_t size = 16;

    while (size < 2 * n_max)
        size *= 2;
    return size;
}

weir_err tok_map_init(struct tok_map *map, size_t n_max, struct weir_arena *arena)
{
    uint32_t size = table_size(n_max);

    map->slots = weir_arena_alloc0(arena, size * sizeof *map->slots);
    map->mask = size - 1;
    return map->slots ? WEIR_OK : WEIR_NOMEM;
}

/* The key's slot, or the free one where it would go. */
static struct tok_map_slot *map_slot(const struct tok_map *map, const struct weir_str *keys,
                                     struct weir_str key, uint32_t *ret_tag)
{
    uint64_t hash = weir_hash64(key.ptr, key.len, 0);
    uint32_t tag = (uint32_t)(hash >> 32);

    *ret_tag = tag;
    for (uint32_t i = (uint32_t)hash & map->mask;; i = (i + 1) & map->mask) {
        struct tok_map_slot *slot = &map->slots[i];
        if (slot->id_1 == 0)
            return slot;
        const struct weir_str *have = &keys[slot->id_1 - 1];
        if (slot->tag == tag && have->len == key.len && memcmp(have->ptr, key.ptr, key.len) == 0)
            return slot;
    }
}

int32_t tok_map_find(const struct tok_map *map, const struct weir_str *keys, struct weir_str key)
{
    uint32_t tag;

    if (key.len == 0)
        return -1; /* an empty spelling is nobody's */
    return (int32_t)map_slot(map, keys, key, &tag)->id_1 - 1;
}

bool tok_map_add(struct tok_map *map, const struct weir_str *keys, uint32_t id)
{
    uint32_t tag;
    struct tok_map_slot *slot = map_slot(map, keys, keys[id], &tag);

    if (slot->id_1 != 0)
        return false;
    slot->tag = tag;
    slot->id_1 = id + 1;
    return true;
}

weir_err tok_merges_init(struct tok_merges *m, size_t n_max, struct weir_arena *arena)
{
    uint32_t size = table_size(n_max);

    m->slots = weir_arena_alloc(arena, size * sizeof *m->slots);
    if (!m->slots)
        return WEIR_NOMEM;
    memset(m->slots, 0xff, size * sizeof *m->slots); /* TOK_NO_RANK everywhere */
    m->mask = size - 1;
    return WEIR_OK;
}

static struct tok_merge *merge_slot(const struct tok_merges *m, uint32_t left, uint32_t right)
{
    uint64_t x = ((uint64_t)left << 32 | right) * 0x9e3779b97f4a7c15ull;

    for (uint32_t i = (uint32_t)(x >> 32) & m->mask;; i = (i + 1) & m->mask) {
        struct tok_merge *slot = &m->slots[i];
        if ((slot->left == left && slot->right == right) || slot->rank == TOK_NO_RANK)
            return slot;
    }
}

const struct tok_merge *tok_merges_find(const struct tok_merges *m, uint32_t left, uint32_t right)
{
    const struct tok_merge *slot = merge_slot(m, left, right);

    return slot->rank == TOK_NO_RANK ? NULL : slot;
}

void tok_merges_put(struct tok_merges *m, const struct tok_merge *merge)
{
    *merge_slot(m, merge->left, merge->right) = *merge;
}

weir_err tok_cross_init(struct tok_cross *c, size_t n_merges, bool bytes, struct weir_arena *arena)
{
    uint32_t n_bits = bytes ? 1u << 16 : 1u << 17;

    while (!bytes && n_bits < 16 * n_merges)
        n_bits *= 2;
    c->bits = weir_arena_alloc0(arena, n_bits / 8);
    c->mask = n_bits - 1;
    return c->bits ? WEIR_OK : WEIR_NOMEM;
}
