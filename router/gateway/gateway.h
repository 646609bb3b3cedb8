/* gateway.h - the REST API: paths, keys, and OpenAI requests into calls.
 *
 * One gateway for all loops; a request is answered on its connection's loop. The admin listener lends its
 * chat box the same handler. */
#ifndef WEIR_ROUTER_GATEWAY_GATEWAY_H
#define WEIR_ROUTER_GATEWAY_GATEWAY_H

#include "http/http_server.h"
#include "router/call/callset.h"
#include "router/fabric/fleet.h"
#include "router/gateway/limit_headers.h"
#include "router/tenancy/keys.h"

struct weir_gateway;

struct weir_gateway_opts {
    struct weir_keys *keys;
    struct weir_fleet *fleet;
    struct weir_callset *const *sets; /* by loop index; borrowed */
    size_t n_sets;
    const char *perf_prefix; /* "fireworks-" */
    enum weir_limit_unit limit_unit;
};

WEIR_MUST_CHECK weir_err weir_gateway_open(const struct weir_gateway_opts *opts, struct weir_gateway **ret,
                                           struct weir_why *why);
/* After the loops have stopped. Takes NULL. */
void weir_gateway_close(struct weir_gateway *gateway);
/* The hooks of its listener; ctx is the gateway. */
struct weir_http_hooks weir_gateway_hooks(struct weir_gateway *gateway);
/* Ready: keys are known and a replica takes calls. Draining: no longer ready, still serving. Any thread. */
bool weir_gateway_ready(struct weir_gateway *gateway);
void weir_gateway_drain(struct weir_gateway *gateway);

#endif
