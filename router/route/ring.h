/* ring.h - which replicas should serve a key, in order: the same answer on every router that sees the same
 * members.
 *
 * Rendezvous hashing (Thaler and Ravishankar 1998) rather than points on a circle: with the few hundred
 * members of a model it is as fast (one multiply a member), needs no points, is even in expectation for any
 * number of members, and when a member goes its keys spread over all the others instead of falling on one
 * neighbour. [R1] The order of a key's candidates depends on the key and the set of member ids only. [R2] A
 * member that comes or goes never changes the order of the others: it takes, or gives back, its own keys,
 *        about 1 / n of them.
 *   [R3] Skipped members (draining, silent, full) stay in the ring: skipping one gives the order of the rest.
 *
 * Pure; any thread. */
#ifndef WEIR_ROUTER_ROUTE_RING_H
#define WEIR_ROUTER_ROUTE_RING_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

#define WEIR_RING_MEMBERS_MAX 1024 /* replicas of one model */

struct weir_load_view;

struct weir_ring_member {
    uint64_t hash;               /* weir_ring_hash() of its id */
    struct weir_load_view *load; /* for route.c; the ring itself never looks */
};
struct weir_ring {
    const struct weir_ring_member
        *members; /* any order, the same everywhere only for ties: keep it sorted by id */
    uint32_t n;
};

uint64_t weir_ring_hash(struct weir_str id);

/* The first `k` members in the key's order, leaving out those with skip[i] set; skip may be NULL. Writes
 * their places in members[] and returns how many there are. One mix a member, and a short insertion for those
 * that get in: made for a small k, right for any. */
uint32_t weir_ring_pick(const struct weir_ring *ring, uint64_t key, const bool *skip, uint32_t k,
                        uint32_t *ret);

#endif
