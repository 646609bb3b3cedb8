/* mesh.h - what a router tells the others of what it has counted, and what it makes of what they tell. Sans I/O.
 *
 *     every interval:       weir_mesh_tick(mesh, now, peers, n, send, ctx)     at most one frame a peer
 *     a frame came:         weir_mesh_receive(mesh, from, bytes, now, &why)
 *     a stream was opened:  weir_mesh_joined(mesh, peer)                       it gets everything next
 *
 * A frame carries registers of limits/ that changed: a key's counters at one router. In a small mesh each router tells every
 * other its own; in a large one it tells a few drawn by lot, its own and what it has heard, which reaches all in a few rounds.
 * Frames may be lost, late, doubled or out of order: state is told, not news, and the newest wins.
 *
 *   [G1] Nothing is told of keys that did not change.     [G2] bytes_s is never passed: what has no room waits, in order.
 *   [G3] A frame is believed whole or not at all: a malformed one changes nothing.
 *   [G4] Rounds: the number rises by one a tick, and to the highest that was heard; no clock of a peer's is compared with ours.
 *
 * Threads: tick on one; receive and joined on any. */
#ifndef WEIR_ROUTER_MESH_MESH_H
#define WEIR_ROUTER_MESH_MESH_H

#include "base/buf.h"
#include "base/err.h"
#include "router/limits/limits.h"

#define WEIR_MESH_FRAME_BYTES_MAX (1u << 20)

struct weir_mesh;

struct weir_mesh_opts {
    struct weir_limits *limits; /* borrowed */
    uint32_t interval_ms;       /* of ticks; 0 = 200 */
    uint64_t bytes_s;           /* of all frames together; 0 = 8 MiB */
    uint32_t direct_max;        /* peers that are all told; more: epidemic. 0 = 32 */
    uint32_t fanout;            /* epidemic: how many are told a round; 0 = 8 */
};
WEIR_MUST_CHECK weir_err weir_mesh_open(const struct weir_mesh_opts *opts, struct weir_mesh **ret,
                                        struct weir_why *why);
void weir_mesh_close(struct weir_mesh *mesh); /* takes NULL */

/* A router's number in the mesh, of its name and its start. */
uint64_t weir_mesh_router(struct weir_str id, uint64_t incarnation);

/* `peers`: the routers there are, but this one. send says whether the frame is on its way; else it is told again later. */
void weir_mesh_tick(struct weir_mesh *mesh, uint64_t now_ns, const uint64_t *peers, uint32_t n,
                    weir_err (*send)(void *ctx, uint32_t i_peer, struct weir_str bytes), void *ctx);
/* WEIR_CORRUPT. */
WEIR_MUST_CHECK weir_err weir_mesh_receive(struct weir_mesh *mesh, uint64_t from, struct weir_str bytes,
                                           uint64_t now_ns, struct weir_why *why);
void weir_mesh_joined(struct weir_mesh *mesh, uint64_t peer);

struct weir_mesh_stats {
    uint64_t frames_sent, bytes_sent, registers_sent, frames_received, registers_received, registers_new,
        frames_held, frames_bad, rounds;
};
void weir_mesh_stats(struct weir_mesh *mesh, struct weir_mesh_stats *ret);

#endif
