/* exchange.h - the mesh on the wire: streams between routers, found through discovery, and the mesh's clock.
 *
 * One stream to every other router, on which this one sends, opened and opened again with a pause; what the others send
 * comes on theirs. A thread of its own ticks at a fixed interval; what a tick has to say goes out as at most one frame a
 * peer, and a peer that has not taken the one before gets none: what is said is state, not news, so the next tick says
 * what is then missing.
 *
 *     open -> on_snapshot (discovery thread) -> ops.tick (mesh thread) -> send -> ops.receive (the peer's CQ thread)
 *
 * What the frames mean is router/mesh's. */
#ifndef WEIR_ROUTER_EXCHANGE_EXCHANGE_H
#define WEIR_ROUTER_EXCHANGE_EXCHANGE_H

#include "discovery/discovery.h"
#include "proto/rpc.h"

#define WEIR_MESH_ID_MAX 128
#define WEIR_MESH_PEERS_MAX 1024
#define WEIR_MESH_FRAME_MAX (1u << 20)

struct weir_exchange;

/* A router of the mesh as discovery names it; this one is not among them. */
struct weir_mesh_peer {
    char id[WEIR_MESH_ID_MAX + 1];
    uint64_t incarnation;
};

struct weir_exchange_ops {
    /* The mesh thread: now, the peers that are in discovery's view (sorted by id), to be told things by send. */
    void (*tick)(void *ctx, uint64_t now_ns, const struct weir_mesh_peer *peers, int n_peers);
    /* Any CQ thread, one frame of a peer at a time. */
    void (*receive)(void *ctx, const struct weir_mesh_peer *from, struct weir_str bytes, uint64_t now_ns);
    /* Any CQ thread: our stream to the peer has just been opened: it may know nothing of us. */
    void (*joined)(void *ctx, const struct weir_mesh_peer *peer);
};

struct weir_exchange_opts {
    struct weir_rpc *rpc;
    const char *router; /* our id */
    uint64_t incarnation;
    const char *prefix; /* of discovery's keys */
    const char *listen; /* "host:port" */
    struct weir_rpc_tls tls;
    uint32_t interval_ms; /* of ticks */
    struct weir_exchange_ops ops;
    void *ctx;
};

/* Listens; the thread starts with weir_exchange_start, when what the ops need is there. WEIR_IO: the port is taken. */
WEIR_MUST_CHECK weir_err weir_exchange_open(const struct weir_exchange_opts *opts, struct weir_exchange **ret,
                                            struct weir_why *why);
WEIR_MUST_CHECK weir_err weir_exchange_start(struct weir_exchange *ex, struct weir_why *why);
/* After discovery is closed: no op runs once this returns. Takes NULL. */
void weir_exchange_close(struct weir_exchange *ex);
int weir_exchange_port(const struct weir_exchange *ex);
void weir_exchange_on_snapshot(struct weir_exchange *ex, const struct weir_disc_snapshot *snap);

/* One frame to a peer. Any thread. WEIR_UNAVAILABLE: there is no stream to it. WEIR_FULL: it has not taken the frame
 * before. WEIR_TOOLARGE: over WEIR_MESH_FRAME_MAX. */
WEIR_MUST_CHECK weir_err weir_exchange_send(struct weir_exchange *ex, const char *peer,
                                            struct weir_str bytes);

/* A fault on purpose: frames to and from these routers vanish ("*": all), until it is called with n 0. For tests of
 * partitions. */
void weir_exchange_cut(struct weir_exchange *ex, const struct weir_str *ids, int n);
/* [{"id","incarnation","connected","cut","silence_ms","frames_sent","frames_received","bytes_sent","bytes_received"}] */
void weir_exchange_describe(struct weir_exchange *ex, struct weir_buf *out);

#endif
