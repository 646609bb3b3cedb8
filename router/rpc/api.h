/* api.h - weir.v1.Inference over gRPC: the same calls as the REST gateway, begun on a CQ thread and lived on
 * a loop. */
#ifndef WEIR_ROUTER_RPC_API_H
#define WEIR_ROUTER_RPC_API_H

#include "http/loop.h"
#include "proto/rpc.h"
#include "router/call/callset.h"
#include "router/fabric/fleet.h"
#include "router/tenancy/keys.h"

struct weir_rpc_api;

struct weir_rpc_api_opts {
    struct weir_keys *keys;
    struct weir_fleet *fleet;
    struct weir_loop *const *loops; /* borrowed, like the sets: calls are dealt round */
    struct weir_callset *const *sets;
    size_t n_loops;
    uint32_t outbox_bytes_max; /* events that a client has not taken; past it its call is cancelled */
};

#define WEIR_RPC_API_METHODS 2
WEIR_MUST_CHECK weir_err weir_rpc_api_open(const struct weir_rpc_api_opts *opts, struct weir_rpc_api **ret,
                                           struct weir_why *why);
/* For weir_rpc_server_opts.handlers; valid until closed. */
const struct weir_rpc_handler *weir_rpc_api_handlers(const struct weir_rpc_api *api);
/* After the server is closed and the loops have stopped. Takes NULL. */
void weir_rpc_api_close(struct weir_rpc_api *api);

#endif
