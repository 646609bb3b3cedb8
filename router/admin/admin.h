/* admin.h - the router's admin listener: metrics, the live fleet, configuration, and a page for people with a
 * chat box.
 *
 *   /                the page            /metrics        Prometheus text
 *   /debug/fleet     {"routers", "replicas", "self"}     /debug/config   every value and who set it
 *   /v1/accounts /v1/fleet  the admin API (api.h), by the admin token
 *   /healthz /readyz                     /v1/...         the gateway's own handler, for the chat box (needs a
 * key)
 *
 * Private: bind it to loopback or to a network of your own. */
#ifndef WEIR_ROUTER_ADMIN_ADMIN_H
#define WEIR_ROUTER_ADMIN_ADMIN_H

#include "base/conf.h"
#include "discovery/discovery.h"
#include "http/http_server.h"
#include "router/fabric/fleet.h"
#include "router/gateway/gateway.h"

struct weir_admin;
struct weir_admin_api;

struct weir_admin_opts {
    const char *router; /* our id */
    const char *prefix; /* of discovery's keys */
    struct weir_fleet *fleet;
    struct weir_gateway *gateway;
    struct weir_discovery *discovery;
    const struct weir_conf *conf;
    struct weir_admin_api *api; /* /v1/accounts and /v1/fleet; borrowed */
};

WEIR_MUST_CHECK weir_err weir_admin_open(const struct weir_admin_opts *opts, struct weir_admin **ret,
                                         struct weir_why *why);
void weir_admin_close(struct weir_admin *admin);
/* The hooks of its listener, which must run on one of the gateway's loops. */
struct weir_http_hooks weir_admin_hooks(struct weir_admin *admin);

#endif
