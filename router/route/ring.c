/* ring.c - rendezvous hashing: each member's weight for a key is a hash of both, the heaviest comes first.
 * [R1] [R2] [R3] follow from that: no member's weight depends on another. Why not points on a circle: ring.h.
 */
#include "router/route/ring.h"

#include "base/err.h"
#include "base/hash.h"

#define RING_SEED 0x7765697272696e67ull /* the same on every router, for ever */

struct place {
    uint64_t weight, hash;
    uint32_t i_member;
};

uint64_t weir_ring_hash(struct weir_str id)
{
    return weir_hash64(id.ptr, id.len, RING_SEED);
}

/* Ties of weight go by the id's hash, never by place: [R1]. */
static bool before(const struct place *a, const struct place *b)
{
    return a->weight != b->weight ? a->weight > b->weight : a->hash > b->hash;
}

uint32_t weir_ring_pick(const struct weir_ring *ring, uint64_t key, const bool *skip, uint32_t k,
                        uint32_t *ret)
{
    struct place best[WEIR_RING_MEMBERS_MAX];
    uint32_t n = 0;

    WEIR_BUG_ON(ring->n > WEIR_RING_MEMBERS_MAX);
    if (k == 0)
        return 0;
    for (uint32_t i = 0; i < ring->n; i++) {
        if (skip && skip[i])
            continue; /* [R3] */
        uint64_t hash = ring->members[i].hash;
        struct place p = { .weight = weir_hash_mix(hash, key), .hash = hash, .i_member = i };
        if (n == k && !before(&p, &best[n - 1]))
            continue;
        uint32_t at = n < k ? n++ : n - 1;
        for (; at > 0 && before(&p, &best[at - 1]); at--)
            best[at] = best[at - 1];
        best[at] = p;
    }
    for (uint32_t i = 0; i < n; i++)
        ret[i] = best[i].i_member;
    return n;
}
