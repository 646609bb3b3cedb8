/* load.h - what one router knows of one replica's load: atomics only, written by the fabric, read by every
 * loop.
 *
 * The replica's last word (a Load frame) plus what this router sent and that word can't know yet. The second
 * part is the difference of two counters that only rise: `sent` grows at submit, `acked` when the replica has
 * said Accepted (or the call ended before), and `counted` becomes `acked` with each Load frame. So sent -
 * counted is what the last Load frame has not seen, however the threads interleave.
 *
 * All relaxed: each number stands alone, and a decision on a value that is some microseconds old is as good.
 */
#ifndef WEIR_ROUTER_ROUTE_LOAD_H
#define WEIR_ROUTER_ROUTE_LOAD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct weir_load_view {
    _Atomic bool usable;          /* attached, has said hello, not draining, not ejected */
    _Atomic uint64_t heard_ns;    /* monotonic; the last frame of any kind */
    _Atomic uint32_t queue_max;   /* of the hello; 0 = unknown */
    _Atomic uint32_t n_in_flight; /* calls of this router there */

    /* The last Load frame, made finite and non-negative. */
    _Atomic uint32_t running, waiting, slots;
    _Atomic uint64_t queued_tokens;
    _Atomic uint64_t kv_blocks_used, kv_blocks;
    _Atomic uint64_t generated_total;
    _Atomic double prefill_tokens_s, decode_tokens_s, predicted_wait_ms;

    _Atomic uint64_t sent_tokens, acked_tokens, counted_tokens;
    _Atomic uint64_t sent_calls, acked_calls, counted_calls;
};

/* What a Load frame says; see fabric.proto. */
struct weir_load {
    uint32_t running, waiting, slots;
    uint64_t queued_tokens, kv_blocks_used, kv_blocks, generated_total;
    double prefill_tokens_s, decode_tokens_s, predicted_wait_ms;
};

void weir_load_set(struct weir_load_view *view, const struct weir_load *load);
/* A submit of about n prompt tokens left; and: the replica has taken it in, or it ended before. Once each per
 * submit. */
void weir_load_sent(struct weir_load_view *view, uint32_t n_tokens);
void weir_load_acked(struct weir_load_view *view, uint32_t n_tokens);

/* Tokens and calls sent that the last Load frame has not seen. */
uint64_t weir_load_unseen_tokens(const struct weir_load_view *view);
uint64_t weir_load_unseen_calls(const struct weir_load_view *view);

#endif
