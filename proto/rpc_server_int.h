/* rpc_server_int.h - a server's parts: the posted calls, and the services that the door itself answers. */
#ifndef WEIR_PROTO_RPC_SERVER_INT_H
#define WEIR_PROTO_RPC_SERVER_INT_H

#include "proto/rpc_int.h"
#include "proto/rpc_reflection.h"

/* ---- grpc.health.v1: rpc_health.c ---- */
struct rpc_watch;
struct rpc_health {
    const struct weir_rpc_handler
        *handlers; /* of the whole server: their services are those that are known */
    int n_handlers;
    pthread_mutex_t lock; /* guards what follows; nothing is sent under it */
    bool serving;
    bool over;                 /* watches are ended and refused */
    struct rpc_watch *watches; /* open ones */
};
#define RPC_HEALTH_HANDLERS 2
void rpc_health_init(struct rpc_health *health, const struct weir_rpc_handler *handlers, int n_handlers);
void rpc_health_release(struct rpc_health *health);
void rpc_health_handlers(struct rpc_health *health, struct weir_rpc_handler ret[RPC_HEALTH_HANDLERS]);
void rpc_health_set(struct rpc_health *health, bool serving);
void rpc_health_end_watches(struct rpc_health *health);

/* ---- a TLS port's own look at itself: rpc_probe.c ---- */
struct rpc_probe;
WEIR_MUST_CHECK weir_err rpc_probe_open(const char *listen, int port, struct rpc_probe **ret,
                                        struct weir_why *why);
void rpc_probe_close(struct rpc_probe *probe); /* joins; takes NULL */

/* ---- the server: rpc_server.c ---- */
struct rpc_posted { /* a call's place: taken by the next call that comes in */
    struct rpc_tag tag;
    struct weir_rpc_server *server;
    grpc_completion_queue *cq;
    grpc_call *call;
    grpc_call_details details;
    grpc_metadata_array meta;
};

struct weir_rpc_server {
    struct weir_rpc *rpc;
    grpc_server *core;
    struct rpc_accept *acc;  /* plaintext */
    struct rpc_probe *probe; /* TLS */
    int port;
    struct weir_rpc_handler *handlers; /* the caller's, then our own */
    int n_handlers;
    struct rpc_health health;
    struct rpc_reflection reflection;
    struct rpc_tag shutdown_tag;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    long n_posted, n_streams;
    bool started;
    bool draining;
    bool down; /* the core has told of its shutdown */
    struct rpc_posted posted[];
};

#endif
