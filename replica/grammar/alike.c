/* alike.c - nodes that no token can tell apart share one mask.
 *
 * A string of at most 400 characters has a node for each character left, and within most of them a token may do just
 * what it may do in the next: the end is farther away than the longest token reaches. Two nodes are alike when the
 * same bytes lead to alike nodes, for as many rounds as the longest token has bytes. Hashes stand for the classes;
 * a node with calls is like itself alone, which is cautious and costs only time.
 *   [A1] Nodes that share a mask permit the same tokens and end their rule at the same places of the trie. */
#include "replica/grammar/gram_int.h"

#include <string.h>

#include "base/mem.h"

static uint64_t mix(uint64_t h, uint64_t x)
{
    h = (h ^ x) * 0x9e3779b97f4a7c15ull;
    return h ^ h >> 29;
}

static uint64_t first_hash(const struct gram_auto *a, uint32_t v)
{
    bool calls = a->nodes[v].call < a->nodes[v + 1].call;

    return mix(a->nodes[v].flags & GRAM_FINAL, calls ? (uint64_t)v + 1 : 0);
}

/* One byte more. */
static void next_round(const struct gram_auto *a, const uint64_t *from, uint64_t *to)
{
    for (uint32_t v = 0; v < a->n_nodes; v++) {
        uint64_t h = first_hash(a, v);
        for (uint32_t e = a->nodes[v].edge; e < a->nodes[v + 1].edge; e++)
            h = mix(mix(h, (uint64_t)a->edges[e].lo << 8 | a->edges[e].hi), from[a->edges[e].to]);
        to[v] = h;
    }
}

/* By node: the first of those with its hash. */
static void choose_first(const struct gram_auto *a, const uint64_t *hash, uint32_t *table, uint32_t mask,
                         uint32_t *ret)
{
    for (uint32_t v = 0; v < a->n_nodes; v++) {
        uint32_t slot = (uint32_t)(hash[v] >> 20) & mask;
        while (table[slot] != 0 && hash[table[slot] - 1] != hash[v])
            slot = (slot + 1) & mask;
        if (table[slot] == 0)
            table[slot] = v + 1;
        ret[v] = table[slot] - 1;
    }
}

static uint32_t count_wide(const struct gram_auto *a)
{
    uint32_t n = 0;

    for (uint32_t v = 0; v < a->n_nodes; v++)
        n += (a->nodes[v].flags & GRAM_WIDE) != 0;
    return n;
}

bool gram_alike(const struct gram_auto *a, uint32_t n_bytes, uint32_t *ret)
{
    uint32_t size = 16;

    for (uint32_t v = 0; v < a->n_nodes; v++)
        ret[v] = v;
    if (count_wide(a) < 4 || ((uint64_t)a->n_edges + a->n_nodes) * n_bytes > GRAM_ALIKE_WORK_MAX)
        return true; /* the others cost little each */
    while (size < 2 * a->n_nodes)
        size *= 2;
    uint64_t *hash = weir_calloc(a->n_nodes, sizeof *hash), *other = weir_calloc(a->n_nodes, sizeof *other);
    uint32_t *table = weir_calloc(size, sizeof *table);
    if (hash && other && table) {
        for (uint32_t v = 0; v < a->n_nodes; v++)
            hash[v] = first_hash(a, v);
        for (uint32_t i = 0; i < n_bytes; i++) {
            uint64_t *last = hash;
            next_round(a, last, other);
            hash = other;
            other = last;
        }
        choose_first(a, hash, table, size - 1, ret);
    }
    bool ok = hash && other && table;
    weir_free(hash);
    weir_free(other);
    weir_free(table);
    return ok;
}
