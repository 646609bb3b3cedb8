/* attach.h - one attachment: the stream between this router and one replica, and what waits to go over it.
 *
 *   [T1] A submit is answered by exactly one of: a Terminal, the loss of its epoch, or nothing after the call
 * was cancelled or forgotten here. [T2] One send is in flight; what comes meanwhile leaves in one frame after
 * it. [T3] A stream that breaks takes no more submits from that moment; the losses reach every loop after
 * whatever it still brought. Loops call the functions below; they never block (a lock is held while a frame
 * is packed, some 20 us at the most). */
#ifndef WEIR_ROUTER_FABRIC_ATTACH_H
#define WEIR_ROUTER_FABRIC_ATTACH_H

#include "base/buf.h"
#include "base/err.h"
#include "router/fabric/outbox.h"
#include "router/route/load.h"

#define WEIR_FABRIC_VERSION 1

struct weir_attach;

struct weir_attach *weir_attach_ref(struct weir_attach *att);
void weir_attach_unref(struct weir_attach *att);               /* takes NULL */
struct weir_str weir_attach_id(const struct weir_attach *att); /* the replica's; lives as long as att */
struct weir_load_view *weir_attach_load(struct weir_attach *att);

/* Queues an attempt and starts sending. The tag carries the port's number (port.h) and is never used again
 * here. On success *ret is the caller's until it calls one of weir_attach_cancel and weir_attach_forget.
 * WEIR_FULL: the outbox is at its bound. WEIR_UNAVAILABLE: not attached, or draining. WEIR_TOOLARGE: the
 * replica takes no such request. WEIR_NOMEM. */
WEIR_MUST_CHECK weir_err weir_attach_submit(struct weir_attach *att, struct weir_submit *submit, uint64_t tag,
                                            uint32_t attempt, struct weir_outgoing **ret);
/* The replica has said Accepted: its loads count the attempt from now on. */
void weir_attach_accepted(struct weir_attach *att, struct weir_outgoing *out);
/* Not wanted any more: tells the replica in the next frame. Lets go of `out`. */
void weir_attach_cancel(struct weir_attach *att, struct weir_outgoing *out);
/* It has ended there (terminal, loss). Lets go of `out`. */
void weir_attach_forget(struct weir_attach *att, struct weir_outgoing *out);

#endif
