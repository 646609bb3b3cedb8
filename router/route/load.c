/* load.c - the load view's few updates: see load.h.
 *   [V1] A peer's numbers are finite, not negative and at most NUMBER_MAX when they get in.
 *   [V2] What was sent and not yet counted never shows as negative, however the threads interleave. */
#include "router/route/load.h"

#include <math.h>

#define NUMBER_MAX 1e9

static double clean(double x)
{
    return isfinite(x) && x > 0 ? fmin(x, NUMBER_MAX) : 0; /* [V1] */
}

#define SET(field, value) atomic_store_explicit(&view->field, (value), memory_order_relaxed)
#define GET(field) atomic_load_explicit(&view->field, memory_order_relaxed)

void weir_load_set(struct weir_load_view *view, const struct weir_load *load)
{
    SET(running, load->running);
    SET(waiting, load->waiting);
    SET(slots, load->slots);
    SET(queued_tokens, load->queued_tokens);
    SET(kv_blocks_used, load->kv_blocks_used);
    SET(kv_blocks, load->kv_blocks);
    SET(generated_total, load->generated_total);
    SET(prefill_tokens_s, clean(load->prefill_tokens_s));
    SET(decode_tokens_s, clean(load->decode_tokens_s));
    SET(predicted_wait_ms, clean(load->predicted_wait_ms));
    SET(counted_tokens, GET(acked_tokens));
    SET(counted_calls, GET(acked_calls));
}

void weir_load_sent(struct weir_load_view *view, uint32_t n_tokens)
{
    atomic_fetch_add_explicit(&view->sent_tokens, n_tokens, memory_order_relaxed);
    atomic_fetch_add_explicit(&view->sent_calls, 1, memory_order_relaxed);
}

void weir_load_acked(struct weir_load_view *view, uint32_t n_tokens)
{
    atomic_fetch_add_explicit(&view->acked_tokens, n_tokens, memory_order_relaxed);
    atomic_fetch_add_explicit(&view->acked_calls, 1, memory_order_relaxed);
}

static uint64_t rest(uint64_t sent, uint64_t counted)
{
    return sent > counted ? sent - counted : 0; /* [V2] */
}

uint64_t weir_load_unseen_tokens(const struct weir_load_view *view)
{
    return rest(GET(sent_tokens), GET(counted_tokens));
}

uint64_t weir_load_unseen_calls(const struct weir_load_view *view)
{
    return rest(GET(sent_calls), GET(counted_calls));
}
