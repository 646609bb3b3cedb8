/* traffic.c - who asks for what: each account has its own arrivals, and limits that its load passes or does not. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "tests/sim/sim_int.h"

#define MEAN_PROMPT 400
#define MEAN_OUTPUT 60
#define HIT_SHARE 0.5
#define CHUNK_NS (500 * SIM_MS)
#define TOKENS_A_CHUNK 25
#define BURST_S 10

static uint64_t interval_ns(struct sim *s)
{
    return (uint64_t)(1e9 * s->opts.n_accounts / s->opts.rate);
}

static double exponential(struct sim *s)
{
    return -log(1 - sim_uniform(s));
}

static uint64_t next_gap(struct sim *s)
{
    double mean = (double)interval_ns(s);

    switch (s->opts.traffic) {
    case SIM_steady:
        return (uint64_t)mean;
    case SIM_bursts: { /* one second of ten at 5 times the rate, the others at 5/9 of it */
        bool hot = s->now_ns / SIM_S % BURST_S == 0;
        return (uint64_t)(mean * exponential(s) * (hot ? 0.2 : 9.0 / 5));
    }
    case SIM_storm:
    case SIM_shortlong:
        return (uint64_t)(mean * exponential(s) * 0.1);
    default:
        return (uint64_t)(mean * exponential(s));
    }
}

void traffic_start(struct sim *s)
{
    double rate = s->opts.rate / s->opts.n_accounts;
    double prompt = s->opts.traffic == SIM_huge ? 16000 : MEAN_PROMPT;

    for (uint32_t i = 0; i < s->opts.n_accounts; i++) {
        struct account *a = &s->accounts[i];
        double minute = 60 * rate / s->opts.load;
        snprintf(a->name, sizeof a->name, "account-%u", i);
        a->home = (uint32_t)(sim_random(s) % s->opts.n_routers);
        a->numbers = (struct weir_limits_account){
            .pays = true,
            .size = 2,
            .requests = 4 * 60 * rate + 60,
            .start = { prompt * minute, prompt * (1 - HIT_SHARE) * minute, MEAN_OUTPUT * minute },
            .day_tokens = 1e15,
        };
        for (int m = 0; m < WEIR_ADAPTIVE; m++)
            a->numbers.upper[m] = a->numbers.start[m] * (s->opts.ramp ? 24 : 1);
        sim_push(s, s->now_ns + (uint64_t)(sim_uniform(s) * (double)interval_ns(s)), EV_ARRIVAL, i, 0, NULL);
    }
}

static uint32_t choose_router(struct sim *s, struct account *a)
{
    if (s->opts.traffic == SIM_hopper)
        return (uint32_t)((a->home + s->now_ns / SIM_S) % s->opts.n_routers);
    if (s->opts.sessions)
        return a->home;
    return (uint32_t)(sim_random(s) % s->opts.n_routers);
}

static void draw_call(struct sim *s, struct sim_call *call)
{
    double prompt = MEAN_PROMPT, output = MEAN_OUTPUT;
    bool late = s->now_ns / SIM_S % 60 >= 50;

    if (s->opts.traffic == SIM_huge)
        prompt = sim_uniform(s) < 0.1 ? 120000 : 4444;
    if (s->opts.traffic == SIM_shortlong)
        output = late ? 8 * MEAN_OUTPUT : MEAN_OUTPUT / 4;
    call->prompt = (uint32_t)(prompt * (0.5 + sim_uniform(s))) + 1;
    call->cached = (uint32_t)(call->prompt * 2 * HIT_SHARE * sim_uniform(s));
    call->output = (uint32_t)(output * 2 * sim_uniform(s)) + 1;
    call->expected =
        (uint32_t)(s->opts.traffic == SIM_shortlong ? MEAN_OUTPUT / 4 : output); /* the long ones surprise */
    call->max_tokens = sim_uniform(s) < 0.5 ? 0 : call->output + 100;
}

/* In quiet parts of the minute storms and long calls wait for their moment. */
static bool is_quiet_now(const struct sim *s)
{
    uint64_t second = s->now_ns / SIM_S % 60;

    if (s->opts.traffic == SIM_storm)
        return second != 30;
    if (s->opts.traffic == SIM_shortlong)
        return second >= 30 && second < 50;
    return false;
}

static bool ask(struct sim *s, struct weir_limits *lim, const struct account *a, const struct sim_call *call,
                uint64_t now_ns)
{
    struct weir_limits_ask ask = { .account = weir_str(a->name),
                                   .deployment = weir_str("m"),
                                   .numbers = &a->numbers,
                                   .call_id = call->id,
                                   .prompt_bytes = 4 * call->prompt,
                                   .max_tokens = call->max_tokens,
                                   .expect_uncached = call->prompt / 2 + 1,
                                   .expect_output = call->expected,
                                   .n = 1 };
    struct weir_limits_verdict verdict;
    double before[LEVELS];

    check_held(lim, a, before);
    WEIR_CHECK(weir_limits_reserve(lim, &ask, now_ns, &verdict) == WEIR_OK);
    if (!verdict.admitted) {
        check_refusal(s, lim, a, before);
        if (verdict.wait_ns == 0)
            sim_fail(s, "a refusal without a wait");
    }
    return verdict.admitted;
}

void traffic_arrive(struct sim *s, uint32_t i)
{
    struct account *a = &s->accounts[i];
    struct sim_call *call;

    sim_push(s, s->now_ns + next_gap(s) + 1, EV_ARRIVAL, i, 0, NULL);
    if (is_quiet_now(s))
        return;
    call = weir_alloc0(sizeof *call);
    WEIR_CHECK(call);
    uint64_t n = ++s->n_calls;
    memcpy(call->id, &n, sizeof n);
    call->account = i;
    call->router = choose_router(s, a);
    struct router *r = &s->routers[call->router];
    call->incarnation = r->id;
    draw_call(s, call);
    call->admitted = ask(s, r->limits, a, call, sim_router_now(s, r));
    call->central = ask(s, s->central.limits, a, call, s->now_ns);
    a->n_asked++;
    a->n_admitted += call->admitted;
    a->n_central += call->central;
    if (!call->admitted && !call->central) {
        weir_free(call);
        return;
    }
    s->n_live++;
    sim_push(s, s->now_ns + (50 + sim_random(s) % 500) * SIM_MS, EV_CALL, 0, 0, call);
}

/* One step of a call's life at one limiter; true: it has ended. */
static bool step(struct weir_limits *lim, const struct account *a, const struct sim_call *call,
                 uint64_t used[WEIR_ADAPTIVE], uint64_t now_ns)
{
    struct weir_str name = weir_str(a->name);
    uint32_t left = call->output - call->done, n = left < TOKENS_A_CHUNK ? left : TOKENS_A_CHUNK;

    if (!call->started) {
        weir_limits_started(lim, name, call->id, call->prompt, call->cached, now_ns);
        used[WEIR_METER_PROMPT] += call->prompt;
        used[WEIR_METER_UNCACHED] += call->prompt - call->cached;
        return false;
    }
    used[WEIR_METER_GENERATED] += n;
    if (n < left) {
        weir_limits_charge(lim, name, call->id, n, now_ns);
        return false;
    }
    weir_limits_settle(lim, name, call->id, call->prompt, call->cached, call->output, now_ns);
    weir_limits_settle(lim, name, call->id, call->prompt, call->cached, call->output,
                       now_ns); /* whatever says so twice */
    return true;
}

void traffic_settle_on(struct sim *s, struct sim_call *call)
{
    struct account *a = &s->accounts[call->account];
    struct router *r = &s->routers[call->router];
    bool over = false;

    if (call->admitted && r->id != call->incarnation) /* its router died: the call is lost */
        call->admitted = false;
    if (call->admitted) {
        uint64_t before[WEIR_ADAPTIVE];
        memcpy(before, a->used, sizeof before);
        over = step(r->limits, a, call, a->used, sim_router_now(s, r));
        for (int m = 0; m < WEIR_ADAPTIVE; m++)
            r->settled[m] += a->used[m] - before[m];
    }
    if (call->central)
        over = step(s->central.limits, a, call, a->central_used, s->now_ns);
    if (over || (!call->admitted && !call->central)) {
        s->n_live--;
        weir_free(call);
        return;
    }
    if (!call->started)
        call->started = true;
    else
        call->done += TOKENS_A_CHUNK;
    sim_push(s, s->now_ns + CHUNK_NS, EV_CALL, 0, 0, call);
}
