/* outbox.h - what one attachment still has to send: submits and cancels in, whole RouterFrames out. Sans I/O.
 *
 *   [O1] In a frame cancels come first; then the waiting submits take turns, one piece of at most
 * WEIR_PIECE_MAX each, so that a large prompt never holds up a small one. [O2] A frame carries at most
 * WEIR_FRAME_BYTES_MAX of requests (one piece more at the most). [O3] The unsent bytes never pass the bound;
 * a submit that would is refused whole. [O4] A submit that is cancelled before its Begin left leaves no trace
 * on the wire. The owner's lock guards all of it. */
#ifndef WEIR_ROUTER_FABRIC_OUTBOX_H
#define WEIR_ROUTER_FABRIC_OUTBOX_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

#define WEIR_PIECE_MAX (64u << 10)        /* of a Begin's or Chunk's data */
#define WEIR_FRAME_BYTES_MAX (256u << 10) /* of request data in a frame */
#define WEIR_FRAME_PIECES_MAX 64
#define WEIR_FRAME_CANCELS_MAX 1024

/* One call's request as it goes to replicas: immutable, counted, the same for every attempt. */
struct weir_submit {
    _Atomic uint32_t refs;
    uint8_t call_id[16];
    uint8_t cache_salt[32];
    uint64_t seed, now_unix;
    uint32_t priority;
    uint32_t prompt_tokens; /* an estimate, for the load view */
    const char *account;    /* NUL-terminated, in the same block */
    const uint8_t *data;    /* the encoded weir.v1.GenerateRequest, in the same block */
    uint32_t len;
};
struct weir_submit *weir_submit_ref(struct weir_submit *submit);
void weir_submit_unref(struct weir_submit *submit); /* takes NULL */

/* One attempt: a submit on its way to one replica. Counted: the call and the outbox hold it. */
struct weir_outgoing {
    _Atomic uint32_t refs;
    struct weir_submit *submit;
    uint64_t tag;
    uint64_t epoch; /* of the attachment's stream; attach.c */
    uint32_t attempt;
    bool acked; /* said to the load view; the call's thread only */
    /* Under the attachment's lock. */
    uint32_t sent_bytes;
    bool began, queued;
    struct weir_outgoing *next, *prev;
};
struct weir_outgoing *weir_outgoing_open(struct weir_submit *submit, uint64_t tag, uint32_t attempt);
void weir_outgoing_unref(struct weir_outgoing *out); /* takes NULL */

struct outbox {
    struct weir_outgoing *head, *tail;
    uint64_t *cancels;
    size_t n_cancels, cancels_cap;
    size_t bytes, bytes_max; /* unsent */
};

void outbox_init(struct outbox *box, size_t bytes_max);
void outbox_release(struct outbox *box);
void outbox_clear(struct outbox *box); /* the stream is gone */
bool outbox_is_empty(const struct outbox *box);
/* WEIR_FULL: [O3]. */
WEIR_MUST_CHECK weir_err outbox_add(struct outbox *box, struct weir_outgoing *out);
/* Sends no more of it. */
void outbox_drop(struct outbox *box, struct weir_outgoing *out);
/* The same, and tells the replica, unless it has never heard of it. WEIR_NOMEM: the cancel could not be kept.
 */
WEIR_MUST_CHECK weir_err outbox_cancel(struct outbox *box, struct weir_outgoing *out);
/* Appends one RouterFrame; the box must not be empty. WEIR_NOMEM: the buffer failed; the box is then good
 * only for outbox_clear. */
WEIR_MUST_CHECK weir_err outbox_next(struct outbox *box, struct weir_buf *frame);

#endif
