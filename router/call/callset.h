/* callset.h - the calls of one loop, driven: call.h's machine between its sink and the fabric.
 *
 *     for each router thread: weir_callset_open(loop, fleet, &opts, &set, &why)        (before the loop runs)
 *     on its thread:          req = weir_request_open(); fill; weir_callset_mint(set, req);
 * weir_request_set_id(...); weir_request_check(); weir_call_start(set, req, &sink, ctx, &call); to drain:
 * stop taking requests; weir_callset_on_idle(set, fn, ctx) at the end:             see fleet.h for the order
 *
 * All functions are for the loop's thread, or for any before the loop runs and after it has stopped. Nothing
 * here blocks. The sink may start and cancel calls from within its callbacks, also the very call it hears
 * from. */
#ifndef WEIR_ROUTER_CALL_CALLSET_H
#define WEIR_ROUTER_CALL_CALLSET_H

#include <stdint.h>

#include "base/err.h"
#include "router/call/call.h"
#include "router/route/route.h"

struct weir_loop;
struct weir_fleet;
struct weir_gate;

struct weir_callset_opts {
    struct weir_route_opts route;    /* weir_route_opts_init() */
    uint32_t calls_max;              /* live calls of this loop; beyond it WEIR_OVERLOADED */
    uint32_t first_token_timeout_ms; /* from the start of the call to its first delta; 0 = none */
    double retry_share;              /* rejects that may be tried again, per call */
    const struct weir_gate *gate;    /* borrowed; NULL: whoever asks may, for any model */
};
void weir_callset_opts_init(struct weir_callset_opts *opts); /* 65,536; 300,000; 0.1 */

/* `opts` NULL = the defaults. WEIR_FULL: the fleet has its most loops (WEIR_PORTS_MAX). WEIR_NOMEM. */
WEIR_MUST_CHECK weir_err weir_callset_open(struct weir_loop *loop, struct weir_fleet *fleet,
                                           const struct weir_callset_opts *opts, struct weir_callset **ret,
                                           struct weir_why *why);
/* Cancels what is left upstream and says nothing more to the sinks. Takes NULL. */
void weir_callset_close(struct weir_callset *set);

/* Writes req->call_id: the process's incarnation, then a number that rises with every call; big-endian, so
 * that ids sort by time. weir_call_start does it for a request whose id is all zero. */
void weir_callset_mint(struct weir_callset *set, struct weir_request *req);

uint32_t weir_callset_live(const struct weir_callset *set);
/* Calls fn once, on the loop, when no call is left: at once (before this returns) when there is none now. */
void weir_callset_on_idle(struct weir_callset *set, void (*fn)(void *ctx), void *ctx);

#endif
