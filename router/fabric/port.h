/* port.h - one loop's door to the fabric: news and losses come to it as tasks posted to the loop.
 *
 * A tag's upper 8 bits are the number of the port that chose it; the rest is the port owner's. Numbers are
 * never used twice in a fleet's life, so that late news of a closed port reaches nobody. */
#ifndef WEIR_ROUTER_FABRIC_PORT_H
#define WEIR_ROUTER_FABRIC_PORT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "base/err.h"

#define WEIR_PORTS_MAX 64
#define WEIR_TAG_PORT_SHIFT 56

struct weir_attach;
struct weir_fleet;
struct weir_loop;
struct weir_port;

enum weir_news_kind { WEIR_NEWS_ACCEPTED, WEIR_NEWS_STARTED, WEIR_NEWS_DELTA, WEIR_NEWS_TERMINAL };

/* One entry of a frame; `msg` is the decoded Accepted, Started, Delta or Terminal, borrowed during the
 * callback. */
struct weir_news {
    uint64_t tag;
    const void *msg;
    enum weir_news_kind kind;
};

/* On the loop's thread. */
struct weir_port_ops {
    /* What one frame says to this loop's calls, in the order of its meaning. */
    void (*news)(void *ctx, struct weir_attach *att, const struct weir_news *news, uint32_t n);
    /* The stream of this epoch broke: nothing more comes for what was submitted on it. */
    void (*lost)(void *ctx, struct weir_attach *att, uint64_t epoch);
};

/* WEIR_FULL: WEIR_PORTS_MAX. */
WEIR_MUST_CHECK weir_err weir_port_open(struct weir_fleet *fleet, struct weir_loop *loop,
                                        const struct weir_port_ops *ops, void *ctx, struct weir_port **ret,
                                        struct weir_why *why);
/* On the loop's thread, or when it does not run: nothing is delivered any more. Takes NULL. */
void weir_port_close(struct weir_fleet *fleet, struct weir_port *port);
uint64_t weir_port_tag_base(const struct weir_port *port); /* the upper 8 bits, in place */

#endif
