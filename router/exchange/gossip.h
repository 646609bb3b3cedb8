/* gossip.h - the limits' link to the world: router/mesh told over exchange.h at every tick, and pages in etcd (pages.h). */
#ifndef WEIR_ROUTER_EXCHANGE_GOSSIP_H
#define WEIR_ROUTER_EXCHANGE_GOSSIP_H

#include "router/exchange/exchange.h"
#include "router/limits/limits.h"

struct weir_gossip;

struct weir_gossip_opts {
    struct weir_rpc *rpc;
    struct weir_limits *limits; /* borrowed */
    const char *router;
    uint64_t incarnation;
    const char *prefix, *listen;
    struct weir_rpc_tls tls;
    uint32_t interval_ms;
    struct weir_discovery_opts source; /* of the pages; its strings are borrowed */
};

WEIR_MUST_CHECK weir_err weir_gossip_open(const struct weir_gossip_opts *opts, struct weir_gossip **ret,
                                          struct weir_why *why);
/* Reads the pages there are, then starts to tick. */
WEIR_MUST_CHECK weir_err weir_gossip_start(struct weir_gossip *gossip, struct weir_why *why);
/* After discovery is closed; writes what changed since the last page. Takes NULL. */
void weir_gossip_close(struct weir_gossip *gossip);
void weir_gossip_on_snapshot(struct weir_gossip *gossip, const struct weir_disc_snapshot *snap);
int weir_gossip_port(const struct weir_gossip *gossip);
struct weir_exchange *weir_gossip_exchange(struct weir_gossip *gossip);

#endif
