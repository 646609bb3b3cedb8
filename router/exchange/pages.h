/* pages.h - ramp clocks and levels of the limits, kept in etcd so that a restart resets nobody's meters.
 *
 * Pages of the keys that this router owns are written to <prefix less its slash>-limits/<page>/<router> when they changed,
 * a few a second; outside the prefix that every router watches. They are read at start and when a router leaves, whose
 * keys others own then. A page that nobody has written for WEIR_PAGES_KEEP_MS is of a router that is gone, and worth
 * nothing: levels have drained, clocks would have run back; whoever reads it removes it. With a static file as discovery
 * nothing is kept.
 *
 * Threads: reread from any; the work on a thread of their own, because etcd's transactions block. */
#ifndef WEIR_ROUTER_EXCHANGE_PAGES_H
#define WEIR_ROUTER_EXCHANGE_PAGES_H

#include "discovery/discovery.h"
#include "router/limits/limits.h"

#define WEIR_PAGES_KEEP_MS (2ull * 86400 * 1000) /* a day's meter, and the ramp, twice over */

struct weir_pages;

struct weir_pages_opts {
    struct weir_limits *limits;        /* borrowed */
    const char *router;                /* our id; borrowed, like the strings of source */
    const char *prefix;                /* of discovery's keys: "/weir/" */
    struct weir_discovery_opts source; /* for reads and transactions */
};

WEIR_MUST_CHECK weir_err weir_pages_open(const struct weir_pages_opts *opts, struct weir_pages **ret,
                                         struct weir_why *why);
/* Reads the pages there are, then keeps them. An etcd that does not answer is no error: it is asked again. */
WEIR_MUST_CHECK weir_err weir_pages_start(struct weir_pages *pages, struct weir_why *why);
/* Somebody left: their keys may be ours now. */
void weir_pages_reread(struct weir_pages *pages);
/* Writes what changed since the last page, unless etcd is away. Takes NULL. */
void weir_pages_close(struct weir_pages *pages);

#endif
