/* machine.h - one call's life as a table of states: events in, actions out. Sans I/O.
 *
 *            +--- retry: rejected, lost or failed before the first delta ---+
 *            v                                                              |
 *   NEW --placed--> SUBMITTED --accepted--> ACCEPTED --first delta--> RUNNING --done--> DONE
 *    any of these: --> FAILED (refused, invalid, out of tries, too late, broken off) or CANCELLED (by the
 * owner)
 *
 *   [M1] Exactly one of done, failed, or the owner's cancel ends a call; after it every event is ignored.
 *   [M2] started is said at most once, and before any delta; done only after started.
 *   [M3] After the first delta nothing is tried again: what the client has seen stays true.
 *   [M4] At most HOPS_MAX retries; at most LOSSES_MAX replicas are lost with the call on them: poison must
 * not walk the fleet. [M5] A replica that breaks the protocol is left, told so, and treated as failed. [M6]
 * An attempt that ends on our side while the replica may still work on it is cancelled upstream. */
#ifndef WEIR_ROUTER_CALL_MACHINE_H
#define WEIR_ROUTER_CALL_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "router/call/call.h"

#define CALL_HOPS_MAX 2
#define CALL_LOSSES_MAX 2

enum call_state {
    CALL_NEW,       /* to be placed */
    CALL_SUBMITTED, /* on its way to a replica */
    CALL_ACCEPTED,  /* queued there, or started */
    CALL_RUNNING,   /* the client has seen a delta */
    CALL_DONE,
    CALL_FAILED,
    CALL_CANCELLED,
    CALL_STATES
};

enum call_event_kind {
    CALL_EV_PLACED,   /* submitted to a replica */
    CALL_EV_REFUSED,  /* no replica takes it: err, why, retry_after_ms */
    CALL_EV_ACCEPTED, /* the replica's news, in the order they came */
    CALL_EV_STARTED,
    CALL_EV_DELTA,
    CALL_EV_TERMINAL,
    CALL_EV_LOST,   /* the attachment broke */
    CALL_EV_LATE,   /* the first token's deadline */
    CALL_EV_SLOW,   /* the sink took no more */
    CALL_EV_CANCEL, /* the owner */
    CALL_EVENTS
};

struct call_event {
    enum call_event_kind kind;
    union {
        const Weir__Fabric__V1__Accepted *accepted;
        const Weir__Fabric__V1__Started *started;
        const Weir__Fabric__V1__Delta *delta;
        const Weir__Fabric__V1__Terminal *terminal;
        struct {
            weir_err err;
            const struct weir_why *why;
            uint32_t retry_after_ms;
        } refused;
    };
};

/* What the driver has to do, in this order. */
enum call_action {
    CALL_DO_LEAVE = 1 << 0,  /* let go of the attempt: it has ended at the replica */
    CALL_DO_CANCEL = 1 << 1, /* let go of it and cancel it at the replica */
    CALL_DO_PLACE = 1 << 2,  /* choose a replica that was not tried; submit; say PLACED or REFUSED */
    CALL_SAY_STARTED = 1 << 3,
    CALL_SAY_DELTA = 1 << 4, /* the event's; a sink that refuses it is the event SLOW */
    CALL_SAY_DONE = 1 << 5,
    CALL_SAY_FAILED = 1 << 6,     /* machine->err, why, retry_after_ms */
    CALL_DO_CLOSE = 1 << 7,       /* the call is over */
    CALL_NOTE_VIOLATION = 1 << 8, /* count and log: the replica broke the protocol */
};

enum call_retry { CALL_RETRY_NONE, CALL_RETRY_LOST, CALL_RETRY_REJECTED, CALL_RETRY_FAILED, CALL_RETRIES };

/* Rejects may be tried again as long as there are tokens: `share` of one for each call. Losses are outside
 * it. */
struct call_budget {
    double tokens, share;
};
#define CALL_BUDGET_BURST 10.0
void call_budget_init(struct call_budget *budget, double share);
void call_budget_earn(struct call_budget *budget); /* a call started */
bool call_budget_spend(struct call_budget *budget);

struct call_machine {
    enum call_state state;
    uint32_t n_choices;
    uint32_t attempt; /* of the next placement, from 0 */
    uint32_t n_hops, n_losses;
    bool recovery;         /* the next placement is owed, not asked for */
    bool started_news;     /* this attempt has left the replica's queue */
    enum call_retry retry; /* why the last DO_PLACE was asked for */

    /* What the sink is told. */
    uint32_t prompt_tokens, cached_tokens;
    uint64_t queue_ns;
    struct weir_call_done done;
    weir_err err;
    struct weir_why why;
    uint32_t retry_after_ms; /* 0: the driver's own advice when err is OVERLOADED */

    /* What resuming in mid-stream needs to know, and usage. */
    uint64_t n_ids;                 /* emitted, over all choices */
    uint32_t ids[WEIR_CHOICES_MAX]; /* of each choice */
    uint64_t finished[2];           /* a bit for each finished choice */
    uint32_t n_finished;
};

void call_machine_init(struct call_machine *m, uint32_t n_choices);
/* Returns actions (enum call_action). */
unsigned call_machine_step(struct call_machine *m, const struct call_event *ev, struct call_budget *budget);
bool call_machine_is_over(const struct call_machine *m);
const char *call_state_name(enum call_state state);

#endif
