/* request.h - one request, whichever way it came in: what REST and gRPC both parse into and router/call works on.
 *
 * Everything hangs on the request's arena. The message is the protobuf struct that travels to the replica, so that
 * nothing is translated twice. */
#ifndef WEIR_ROUTER_REQUEST_H
#define WEIR_ROUTER_REQUEST_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "weir/v1/inference.pb-c.h"

#define WEIR_REQUEST_ARENA_MAX (64u << 20)
#define WEIR_REQUEST_ID_MAX 128
#define WEIR_CHOICES_MAX 128

struct weir_limit_note;

struct weir_request {
    struct weir_arena arena;        /* owns all below, but for what is the parent's */
    struct weir_request *parent;    /* of a fork; held by a count */
    uint32_t n_forks;               /* that hold this one, itself included; one thread at a time */
    Weir__V1__GenerateRequest *msg; /* checked by weir_request_check() */
    uint8_t call_id[16];            /* minted: incarnation and sequence, time-ordered */
    struct weir_str account;        /* of the API key */
    struct weir_str session;        /* x-multi-turn-session-id, else x-session-affinity; may be empty */
    struct weir_str isolation;      /* x-prompt-cache-isolation-key; may be empty */
    char request_id[WEIR_REQUEST_ID_MAX + 1]; /* x-request-id, cleaned, or minted; a label, never a key */
    uint64_t arrived_ns;                      /* monotonic */
    uint64_t created_s;                       /* wall clock */
    uint32_t priority;                        /* 0 priority, 1 standard, 2 over limit, 3 batch */
    struct weir_limit_note *note; /* the owner's; where call/ writes what the limits said; NULL: nowhere */
};

/* On the heap, with an empty message (weir__v1__generate_request__init). NULL: no memory. */
struct weir_request *weir_request_open(void);
void weir_request_close(struct weir_request *req); /* takes NULL */

/* The same request with another input: borrows all else from `req`, which lives on until its last fork is closed.
 * Set the input on its message before it is used. The call id is minted anew. NULL: no memory. */
struct weir_request *weir_request_fork(struct weir_request *req);

/* The one set of bounds for both APIs. WEIR_INVALID: `why` names the field as REST spells it
 * ("messages[2].role", "top_p"). */
WEIR_MUST_CHECK weir_err weir_request_check(struct weir_request *req, struct weir_why *why);

/* Copies a client's x-request-id with everything but [A-Za-z0-9._:-] dropped, cut to the bound; mints one from the
 * call id when nothing is left. */
void weir_request_set_id(struct weir_request *req, struct weir_str from_client);

#endif
