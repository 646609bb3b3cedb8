/* load.c - what this replica says of itself: counts, rates and the wait it predicts for one more request.
 *
 * wait = prompt tokens still to compute / prefill rate + (sessions ahead beyond the slots) x mean service /
 * slots. Rates are exponential means over steps that did such work, so that idle time does not count as
 * slowness. */
#include "base/clock.h"
#include "replica/serve/serve_int.h"

#define MEAN_WEIGHT 0.1
#define PREFILL_TOKENS_MIN 64 /* a step with fewer measures the step's fixed cost, not the rate */
#define RATE_WINDOW_NS WEIR_S

static double mean(double old, double sample)
{
    return old == 0 ? sample : old + MEAN_WEIGHT * (sample - old);
}

/* Tokens and time are averaged apart, so that one step that the machine held up does not count as ten. */
void load_note_prefill(struct weir_serve *serve, uint32_t n_prefill, uint64_t step_ns)
{
    if (n_prefill < PREFILL_TOKENS_MIN)
        return;
    serve->rate.prefill_tokens = mean(serve->rate.prefill_tokens, n_prefill);
    serve->rate.prefill_s = mean(serve->rate.prefill_s, (double)step_ns / 1e9);
    if (serve->rate.prefill_s > 0)
        serve->rate.prefill_tokens_s = serve->rate.prefill_tokens / serve->rate.prefill_s;
}

void load_note_finished(struct weir_serve *serve, uint64_t service_ns)
{
    serve->rate.service_ms = mean(serve->rate.service_ms, (double)service_ns / 1e6);
}

static void roll_window(struct weir_serve *serve, uint64_t now_ns)
{
    uint64_t elapsed_ns = now_ns - serve->rate.window_ns;

    if (elapsed_ns < RATE_WINDOW_NS)
        return;
    serve->rate.decode_tokens_s =
        (double)(serve->rate.generated - serve->rate.window_tokens) * 1e9 / (double)elapsed_ns;
    serve->rate.window_ns = now_ns;
    serve->rate.window_tokens = serve->rate.generated;
}

static double predicted_wait_ms(const struct weir_serve *serve, const struct weir_engine_load *load,
                                unsigned n_pending)
{
    double wait_ms = 0;

    if (serve->rate.prefill_tokens_s > 0)
        wait_ms += (double)load->queued_tokens / serve->rate.prefill_tokens_s * 1e3;
    if (load->n_running + n_pending > load->n_slots)
        wait_ms += (load->n_running + n_pending - load->n_slots) * serve->rate.service_ms / load->n_slots;
    return wait_ms;
}

void load_publish(struct weir_serve *serve)
{
    struct weir_engine_load engine;
    Weir__Fabric__V1__Load load = WEIR__FABRIC__V1__LOAD__INIT;
    unsigned n_pending = atomic_load(&serve->n_pending);

    roll_window(serve, weir_now_ns());
    weir_engine_load(serve->opts.engine, &engine);
    load.running = engine.n_running;
    load.waiting = n_pending;
    load.slots = engine.n_slots;
    load.queued_tokens = engine.queued_tokens;
    load.prefill_tokens_s = serve->rate.prefill_tokens_s;
    load.decode_tokens_s = serve->rate.decode_tokens_s;
    load.kv_blocks_used = engine.kv_blocks_used;
    load.kv_blocks = engine.kv_blocks;
    load.predicted_wait_ms = predicted_wait_ms(serve, &engine, n_pending);
    load.generated_total = serve->rate.generated;
    pthread_mutex_lock(&serve->send_lock);
    serve->load = load;
    pthread_mutex_unlock(&serve->send_lock);
    weir_gauge_set(serve->metrics.running, engine.n_running);
    weir_gauge_set(serve->metrics.waiting, n_pending);
    weir_gauge_set(serve->metrics.kv_used, (int64_t)engine.kv_blocks_used);
    weir_gauge_set(serve->metrics.kv_total, (int64_t)engine.kv_blocks);
}
