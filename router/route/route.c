/* route.c - one decision: look at every member once, filter, take the key's first few, score them. See
 * route.h.
 *
 * Cost: one pass over the members' atomics and one over their hashes, on the stack, whatever the size of the
 * prompt: some microseconds for hundreds of replicas. Not here: keeping the loads (fabric), what to do with a
 * refusal (call). */
#include "router/route/route.h"

#include <math.h>
#include <string.h>

#include "base/clock.h"

void weir_route_opts_init(struct weir_route_opts *opts)
{
    *opts = (struct weir_route_opts){
        .few = 3,
        .spread = 0.25,
        .bound_floor_ms = 50,
        .hysteresis_ms = 50,
        .hysteresis_share = 0.25,
        .silent_ms = 3000,
        .prefill_tokens_s = 2000,
        .wait_max_ms = { 60000, 30000, 5000, 2000 },
        .retry_after_min_ms = 500,
        .retry_after_max_ms = 30000,
    };
}

const char *weir_route_reason_name(enum weir_route_reason reason)
{
    static const char *const names[WEIR_ROUTE_REASONS] = {
        [WEIR_ROUTE_PLACED] = "placed",         [WEIR_ROUTE_NO_MODEL] = "no_model",
        [WEIR_ROUTE_NO_REPLICA] = "no_replica", [WEIR_ROUTE_SATURATED] = "saturated",
        [WEIR_ROUTE_TRIED] = "tried",
    };
    return (unsigned)reason < WEIR_ROUTE_REASONS ? names[reason] : "unknown";
}

uint32_t weir_route_retry_after(const struct weir_route_opts *opts, double base_ms, uint64_t random)
{
    double share = 0.75 + 0.5 * (double)(random >> 11) * 0x1p-53;
    double base = fmin(fmax(base_ms, opts->retry_after_min_ms), opts->retry_after_max_ms);

    return (uint32_t)fmax(1, base * share);
}

#define GET(field) atomic_load_explicit(&load->field, memory_order_relaxed)

/* ---- one member ---- */
static double prefill_ms(const struct weir_route_opts *opts, const struct weir_load_view *load,
                         double n_tokens)
{
    double rate = GET(prefill_tokens_s);

    return n_tokens * 1e3 / (rate > 0 ? rate : opts->prefill_tokens_s);
}

static bool is_usable(const struct weir_route_opts *opts, const struct weir_load_view *load, uint64_t now_ns)
{
    uint64_t heard_ns = GET(heard_ns);

    /* heard_ns may be a little ahead of the caller's `now`, which is that of its turn. */
    return GET(usable) && (now_ns < heard_ns || now_ns - heard_ns < opts->silent_ms * WEIR_MS);
}

static bool has_room(const struct weir_load_view *load)
{
    uint32_t slots = GET(slots), running = GET(running), queue_max = GET(queue_max);
    uint64_t free_slots = slots > running ? slots - running : 0;

    return queue_max == 0 || GET(waiting) + weir_load_unseen_calls(load) < queue_max + free_slots;
}

static bool is_excluded(const struct weir_route_ask *ask, const struct weir_load_view *load)
{
    for (uint32_t i = 0; i < ask->n_exclude; i++)
        if (ask->exclude[i] == load)
            return true;
    return false;
}

/* ---- all members ---- */
struct survey {
    bool closed[WEIR_RING_MEMBERS_MAX]; /* not usable, tried already, or without room for this class */
    bool skip[WEIR_RING_MEMBERS_MAX];   /* closed, or beyond the load bound */
    double wait_ms[WEIR_RING_MEMBERS_MAX];
    uint32_t n_usable, n_tried, n_open, n_within;
    double sum_wait_ms, min_wait_ms; /* of the usable ones */
};

static void look(struct survey *s, const struct weir_route_opts *opts, const struct weir_ring *ring,
                 const struct weir_route_ask *ask, double wait_max_ms)
{
    s->n_usable = s->n_tried = s->n_open = s->n_within = 0;
    s->sum_wait_ms = 0;
    s->min_wait_ms = INFINITY;
    for (uint32_t i = 0; i < ring->n; i++) {
        const struct weir_load_view *load = ring->members[i].load;
        s->closed[i] = true;
        if (!is_usable(opts, load, ask->now_ns))
            continue;
        uint64_t n_unseen = weir_load_unseen_tokens(load);
        double wait = GET(predicted_wait_ms) + (n_unseen ? prefill_ms(opts, load, (double)n_unseen) : 0);
        s->wait_ms[i] = wait;
        s->n_usable++;
        s->sum_wait_ms += wait;
        if (is_excluded(ask, load)) {
            s->n_tried++;
            continue;
        }
        s->min_wait_ms = fmin(s->min_wait_ms, wait);
        s->closed[i] = !has_room(load) || (!ask->recovery && wait > wait_max_ms);
        s->n_open += !s->closed[i];
    }
    if (s->n_usable == 0)
        return;
    double mean_ms = s->sum_wait_ms / s->n_usable;
    double bound_ms = fmax((1 + opts->spread) * mean_ms, opts->bound_floor_ms);
    for (uint32_t i = 0; i < ring->n; i++) {
        s->skip[i] = s->closed[i] || s->wait_ms[i] > bound_ms;
        s->n_within += !s->skip[i];
    }
}

static weir_err refuse(const struct weir_route_opts *opts, const struct weir_route_ask *ask,
                       enum weir_route_reason reason, double wait_ms, double base_ms,
                       struct weir_route_choice *ret, struct weir_why *why)
{
    static const char *const texts[WEIR_ROUTE_REASONS] = {
        [WEIR_ROUTE_NO_REPLICA] = "no replica of the model is attached at the moment",
        [WEIR_ROUTE_SATURATED] = "every replica of the model is busy; try again",
        [WEIR_ROUTE_TRIED] = "no other replica of the model can take this request; try again",
    };
    *ret = (struct weir_route_choice){
        .reason = reason,
        .wait_ms = wait_ms,
        .retry_after_ms = weir_route_retry_after(opts, base_ms, ask->random), /* [S3] */
    };
    return weir_fail(why, WEIR_OVERLOADED, "%s", texts[reason]);
}

/* The first of the candidates whose score is within the hysteresis of the best. */
static uint32_t first_good(const struct weir_route_opts *opts, const struct weir_ring *ring,
                           const struct weir_route_ask *ask, const struct survey *s, const uint32_t *order,
                           uint32_t n)
{
    double score[WEIR_ROUTE_FEW_MAX], best = INFINITY;

    for (uint32_t i = 0; i < n; i++) {
        const struct weir_load_view *load = ring->members[order[i]].load;
        score[i] = s->wait_ms[order[i]] + (i > 0 ? prefill_ms(opts, load, ask->prompt_tokens) : 0);
        best = fmin(best, score[i]);
    }
    double good = best + fmax(opts->hysteresis_ms, opts->hysteresis_share * best);
    for (uint32_t i = 0; i < n; i++)
        if (score[i] <= good)
            return order[i];
    return order[0];
}

weir_err weir_route_choose(const struct weir_route_opts *opts, const struct weir_ring *ring,
                           const struct weir_route_ask *ask, struct weir_route_choice *ret,
                           struct weir_why *why)
{
    if (ring->n == 0) {
        *ret = (struct weir_route_choice){ .reason = WEIR_ROUTE_NO_MODEL };
        return weir_fail_param(why, "model", WEIR_NOMODEL, "the model is not served here");
    }
    struct survey s;
    uint32_t priority = ask->priority < WEIR_PRIORITIES ? ask->priority : WEIR_PRIORITIES - 1;
    double wait_max_ms = opts->wait_max_ms[priority];
    look(&s, opts, ring, ask, wait_max_ms);
    if (s.n_usable == 0)
        return refuse(opts, ask, WEIR_ROUTE_NO_REPLICA, 0, 1000, ret, why);
    if (s.n_usable == s.n_tried)
        return refuse(opts, ask, WEIR_ROUTE_TRIED, 0, 1000, ret, why);
    if (s.n_open == 0)
        return refuse(opts, ask, WEIR_ROUTE_SATURATED, s.min_wait_ms, s.min_wait_ms - wait_max_ms, ret, why);

    uint32_t few = opts->few < 1 ? 1 : opts->few > WEIR_ROUTE_FEW_MAX ? WEIR_ROUTE_FEW_MAX : opts->few;
    uint32_t order[WEIR_ROUTE_FEW_MAX];
    /* [S1] Nobody within the bound has room: then anybody with room. [S2] */
    uint32_t n = weir_ring_pick(ring, ask->key, s.n_within > 0 ? s.skip : s.closed, few, order);
    WEIR_BUG_ON(n == 0);
    uint32_t chosen = first_good(opts, ring, ask, &s, order, n);
    *ret = (struct weir_route_choice){ .reason = WEIR_ROUTE_PLACED,
                                       .i_member = chosen,
                                       .wait_ms = s.wait_ms[chosen] };
    return WEIR_OK;
}
