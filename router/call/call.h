/* call.h - the heart: one request's life, from routing to the last token, as a table of states, sans I/O.
 *
 * REST and gRPC both start a call here and hear from it through a sink; nothing below knows which came in. A call lives
 * on one loop (one router thread) from start to end.
 *
 * Promises to the sink: started at most once and before any delta; then deltas; then exactly one of done or failed,
 * which is the last thing said, unless the owner cancelled first: then nothing more is said. failed before started
 * may become an HTTP status; after it only an error event. A replica that breaks off before the first delta costs the
 * client nothing: the next candidate is tried (two hops at most). */
#ifndef WEIR_ROUTER_CALL_CALL_H
#define WEIR_ROUTER_CALL_CALL_H

#include "base/err.h"
#include "router/request.h"
#include "weir/fabric/v1/fabric.pb-c.h"

struct weir_call;
struct weir_callset; /* the calls of one loop */

struct weir_call_started {
    struct weir_str replica; /* id */
    uint32_t prompt_tokens, cached_tokens;
    uint64_t queue_ns;
    uint64_t
        first_token_ns; /* monotonic, now: said with the first delta (time to first token = this - arrived) */
};

struct weir_call_done {
    uint32_t prompt_tokens, cached_tokens, completion_tokens;
    uint64_t queue_ns, prefill_ns, generation_ns;
};

struct weir_call_sink {
    void (*started)(void *ctx, const struct weir_call_started *started);
    /* One frame's news of one choice: text, ids, log-probabilities, finish. Borrowed for the call. Returns false when
     * the client is too slow (its own bound is passed): the call is cancelled and nothing more is said. */
    bool (*delta)(void *ctx, const Weir__Fabric__V1__Delta *delta);
    void (*done)(void *ctx, const struct weir_call_done *done);
    /* retry_after_ms 0 = no advice. `why->param` names the field when the request was at fault. */
    void (*failed)(void *ctx, weir_err err, const struct weir_why *why, uint32_t retry_after_ms);
};

/* Takes the request (closes it when the call ends, whatever happens). The sink may be called before this returns
 * (a refusal); *ret is then NULL. */
void weir_call_start(struct weir_callset *set, struct weir_request *req, const struct weir_call_sink *sink,
                     void *ctx, struct weir_call **ret);
/* The client went away: cancels upstream, says nothing more; the call is gone when this returns. */
void weir_call_cancel(struct weir_call *call);
const struct weir_request *weir_call_request(const struct weir_call *call);

#endif
