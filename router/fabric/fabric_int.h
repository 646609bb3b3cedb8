/* fabric_int.h - what the fabric's files share: the ports, a frame on its way to loops, the attachment's
 * hooks. */
#ifndef WEIR_ROUTER_FABRIC_FABRIC_INT_H
#define WEIR_ROUTER_FABRIC_FABRIC_INT_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/log.h"
#include "http/loop.h"
#include "router/fabric/attach.h"
#include "router/fabric/fleet.h"
#include "router/fabric/port.h"
#include "router/fabric/table.h"
#include "weir/fabric/v1/fabric.pb-c.h"

/* ---- ports (port.c) ---- */
struct weir_port {
    _Atomic uint32_t refs; /* the owner, and each task on its way */
    uint32_t index;
    struct weir_loop *loop;
    struct weir_port_ops ops;
    void *ctx; /* NULL once closed; the loop's thread only */
};
struct ports {
    pthread_mutex_t lock;
    struct weir_port *port[WEIR_PORTS_MAX]; /* NULL: closed */
    uint32_t n;                             /* only rises */
};
void ports_init(struct ports *ports);
void ports_release(struct ports *ports);
struct weir_port *ports_get(struct ports *ports,
                            uint32_t index); /* with a reference; NULL: none, or closed */
void port_unref(struct weir_port *port);     /* takes NULL */
struct ports *fleet_ports(struct weir_fleet *fleet);

/* ---- frames (frame.c) ---- */
struct frame;
/* Decodes; NULL: malformed, or too large when decoded, or no memory. */
struct frame *fabric_frame_open(struct weir_str bytes);
const Weir__Fabric__V1__ReplicaFrame *frame_msg(const struct frame *frame);
size_t frame_cost_bytes(const struct frame *frame);
/* Sorts the entries by port and posts one task to each loop that has any; takes the frame, whatever happens.
 * The count is of entries whose port is unknown. WEIR_NOMEM: nothing was posted. */
WEIR_MUST_CHECK weir_err frame_dispatch(struct frame *frame, struct ports *ports, struct weir_attach *att,
                                        uint32_t *ret_n_unknown);
void frame_close(struct frame *frame); /* of one that is not dispatched; takes NULL */

/* ---- losses (frame.c) ---- */
struct loss; /* one notice for each port, allocated ahead so that it can't fail when it is needed */
struct loss *loss_open(void);
void loss_close(struct loss *loss); /* unused; takes NULL */
void loss_dispatch(struct loss *loss, struct ports *ports, struct weir_attach *att,
                   uint64_t epoch); /* takes it */

/* ---- attachments, as the fleet sees them (attach.c) ---- */
struct attach_opts {
    struct weir_rpc *rpc;
    const char *router;
    uint64_t incarnation;
    struct weir_rpc_tls tls;
    uint32_t hello_timeout_ms, backoff_min_ms, backoff_max_ms, silent_cut_ms;
    uint32_t outbox_bytes_max, inbox_bytes_max, message_bytes_max;
};
/* `opts`, `ports` and the fleet outlive every stream. */
struct weir_attach *attach_open(const struct attach_opts *opts, struct weir_fleet *fleet,
                                const struct weir_replica_record *rec);
bool attach_is_for(const struct weir_attach *att, const struct weir_replica_record *rec); /* [F3] */
int attach_compare(const struct weir_attach *a, const struct weir_attach *b); /* by model, then id */
void attach_set_wanted(struct weir_attach *att, bool wanted);                 /* in the view? */
void attach_retire(struct weir_attach *att);                                  /* replaced: no new calls */
bool attach_in_table(const struct weir_attach *att);
/* Fleet thread: connects, gives up, cuts, as is due. Returns when to come again; *ret_gone: nothing is left
 * of it. */
uint64_t attach_tick(struct weir_attach *att, uint64_t now_ns, bool *ret_gone);
/* Cancels the stream, if any. */
void attach_cut(struct weir_attach *att, enum weir_log_level level, const char *reason);
void attach_frame_taken(struct weir_attach *att, size_t bytes); /* on its way to the loops */
void attach_frame_released(struct weir_attach *att, size_t bytes);
/* A stream is opened (+1), has ended (-1), or an attachment's state changed (0): wakes the fleet thread.
 * After the last -1 the fleet may go. */
void fleet_stirred(struct weir_fleet *fleet, int n_streams);

/* For the admin page; not heard since then: ejected. */
const char *attach_state_name(struct weir_attach *att, uint64_t silent_since_ns);
const struct weir_replica_record *attach_record(const struct weir_attach *att);

#endif
