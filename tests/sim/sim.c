/* sim.c - the world: the heap of events, routers that tick, frames that travel, routers that start again. */
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "tests/sim/sim_int.h"

#define SAMPLE_NS (50 * SIM_MS)
#define QUIET_NS (8 * SIM_S) /* after the last call has ended */
#define START_NS (1000 * SIM_S)

void sim_opts_init(struct sim_opts *o)
{
    *o = (struct sim_opts){ .seed = 1,
                            .n_routers = 8,
                            .n_accounts = 10,
                            .minutes = 5,
                            .rate = 1000,
                            .load = 1.2,
                            .traffic = SIM_poisson,
                            .interval_ms = 200,
                            .delay_ms = 2,
                            .jitter_ms = 2,
                            .partition_n = 2 };
}

uint64_t sim_random(struct sim *s)
{
    s->random = weir_hash_mix(s->random, 0x9e3779b97f4a7c15ull);
    return s->random;
}

double sim_uniform(struct sim *s)
{
    return (double)(sim_random(s) >> 11) * 0x1p-53;
}

void sim_fail(struct sim *s, const char *fmt, ...)
{
    va_list args;

    if (s->report->failure[0])
        return;
    int n = snprintf(s->report->failure, sizeof s->report->failure,
                     "at %.3f s: ", (double)(s->now_ns - START_NS) / 1e9);
    va_start(args, fmt);
    vsnprintf(s->report->failure + n, sizeof s->report->failure - (size_t)n, fmt, args);
    va_end(args);
}

/* ---- events ---- */
static bool is_before(const struct event *a, const struct event *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

static void swap(struct event *a, struct event *b)
{
    struct event t = *a;
    *a = *b;
    *b = t;
}

void sim_push(struct sim *s, uint64_t at_ns, enum event_kind kind, uint32_t a, uint32_t b, void *data)
{
    if (s->n_events == s->cap_events) {
        s->cap_events = s->cap_events ? 2 * s->cap_events : 1024;
        s->heap = weir_realloc(s->heap, s->cap_events * sizeof *s->heap);
        WEIR_CHECK(s->heap);
    }
    uint32_t i = s->n_events++;
    s->heap[i] = (struct event){ at_ns, s->order++, kind, a, b, data };
    for (; i > 0 && is_before(&s->heap[i], &s->heap[(i - 1) / 2]); i = (i - 1) / 2)
        swap(&s->heap[i], &s->heap[(i - 1) / 2]);
}

static struct event pop(struct sim *s)
{
    struct event first = s->heap[0];
    uint32_t i = 0;

    s->heap[0] = s->heap[--s->n_events];
    for (;;) {
        uint32_t least = i;
        for (uint32_t c = 2 * i + 1; c <= 2 * i + 2; c++)
            if (c < s->n_events && is_before(&s->heap[c], &s->heap[least]))
                least = c;
        if (least == i)
            return first;
        swap(&s->heap[i], &s->heap[least]);
        i = least;
    }
}

/* ---- routers ---- */
uint64_t sim_router_now(const struct sim *s, const struct router *r)
{
    return s->now_ns + r->skew_ns;
}

static void open_router(struct sim *s, struct router *r, uint32_t i)
{
    struct weir_limits_opts opts = { .keys_max = 4 * s->opts.n_accounts + 1000 };
    char name[24];

    snprintf(name, sizeof name, "router-%u", i);
    r->id = weir_mesh_router(weir_str(name), ++r->incarnation);
    r->skew_ns = s->opts.skew_ms ? sim_random(s) % (s->opts.skew_ms * SIM_MS) : 0;
    opts.self = r->id;
    weir_limit_table_init(&opts.table);
    WEIR_CHECK(weir_limits_open(&opts, sim_router_now(s, r), &r->limits, NULL) == WEIR_OK);
    struct weir_mesh_opts mesh = { .limits = r->limits,
                                   .interval_ms = s->opts.interval_ms,
                                   .bytes_s = s->opts.bytes_s };
    WEIR_CHECK(weir_mesh_open(&mesh, &r->mesh, NULL) == WEIR_OK);
}

static void add_stats(struct weir_mesh_stats *to, const struct router *r)
{
    struct weir_mesh_stats now;

    weir_mesh_stats(r->mesh, &now);
    to->frames_sent += now.frames_sent;
    to->bytes_sent += now.bytes_sent;
    to->registers_sent += now.registers_sent;
    to->frames_bad += now.frames_bad;
}

static void close_router(struct router *r)
{
    add_stats(&r->past, r);
    weir_mesh_close(r->mesh);
    weir_limits_close(r->limits);
}

static void restart(struct sim *s)
{
    uint32_t i = (uint32_t)(sim_random(s) % s->opts.n_routers);
    struct router *r = &s->routers[i];

    check_router(s, i);
    memset(r->settled, 0, sizeof r->settled);
    close_router(r);
    open_router(s, r, i);
    for (uint32_t k = 0; k < s->opts.n_routers; k++) /* streams to it are opened again */
        if (k != i)
            weir_mesh_joined(s->routers[k].mesh, r->id);
    sim_push(s, s->now_ns + (uint64_t)(s->opts.restart_every_s * 1e9), EV_RESTART, 0, 0, NULL);
}

/* ---- the network ---- */
bool sim_is_cut(const struct sim *s, uint32_t a, uint32_t b)
{
    double at_s = (double)(s->now_ns - START_NS) / 1e9;
    bool apart = s->opts.partition_s > 0 && at_s >= s->opts.partition_at_s &&
                 at_s < s->opts.partition_at_s + s->opts.partition_s;

    return apart && (a < s->opts.partition_n) != (b < s->opts.partition_n);
}

struct sending {
    struct sim *s;
    uint32_t from;
};

static uint32_t place_of(uint32_t from, uint32_t i_peer)
{
    return i_peer < from ? i_peer : i_peer + 1;
}

static weir_err send_frame(void *arg, uint32_t i_peer, struct weir_str bytes)
{
    struct sending *sending = arg;
    struct sim *s = sending->s;
    uint32_t from = sending->from, to = place_of(from, i_peer);
    struct router *r = &s->routers[from];

    if (sim_is_cut(s, from, to) || (s->opts.n_routers <= 64 && r->broken[to]))
        return WEIR_UNAVAILABLE;
    if (s->opts.loss > 0 && s->opts.n_routers <= 64 && sim_uniform(s) < s->opts.loss) {
        r->broken[to] = true;
        sim_push(s, s->now_ns + (100 + sim_random(s) % 400) * SIM_MS, EV_REJOIN, from, to, NULL);
        return WEIR_OK; /* as far as the sender knows */
    }
    struct frame_copy *copy = weir_alloc(sizeof *copy + bytes.len);
    WEIR_CHECK(copy);
    memcpy(copy + 1, bytes.ptr, bytes.len);
    *copy = (struct frame_copy){ r->id, { (const char *)(copy + 1), bytes.len } };
    uint64_t delay =
        s->opts.delay_ms * SIM_MS + (s->opts.jitter_ms ? sim_random(s) % (s->opts.jitter_ms * SIM_MS) : 0);
    sim_push(s, s->now_ns + delay, EV_FRAME, from, to, copy);
    return WEIR_OK;
}

static void tick(struct sim *s, uint32_t i)
{
    uint64_t peers[ORIGINS_MAX];
    struct router *r = &s->routers[i];
    struct sending sending = { s, i };
    uint32_t n = 0;

    for (uint32_t k = 0; k < s->opts.n_routers; k++)
        if (k != i)
            peers[n++] = s->routers[k].id;
    weir_limits_sweep(r->limits, sim_router_now(s, r));
    weir_mesh_tick(r->mesh, sim_router_now(s, r), peers, n, send_frame, &sending);
    if (i == 0)
        weir_limits_sweep(s->central.limits, s->now_ns);
    sim_push(s, s->now_ns + s->opts.interval_ms * SIM_MS, EV_TICK, i, 0, NULL);
}

static void deliver(struct sim *s, uint32_t to, struct frame_copy *copy)
{
    struct router *r = &s->routers[to];
    struct weir_why why;

    if (weir_mesh_receive(r->mesh, copy->from, copy->bytes, sim_router_now(s, r), &why) != WEIR_OK)
        sim_fail(s, "a frame was refused: %s", why.text);
    weir_free(copy);
}

/* Healed: both sides open their streams again. */
static void heal(struct sim *s)
{
    bool apart = sim_is_cut(s, 0, s->opts.n_routers - 1);

    if (s->was_apart && !apart)
        for (uint32_t a = 0; a < s->opts.n_routers; a++)
            for (uint32_t b = 0; b < s->opts.n_routers; b++)
                if (a != b && (a < s->opts.partition_n) != (b < s->opts.partition_n))
                    sim_push(s, s->now_ns + (sim_random(s) % 500) * SIM_MS, EV_REJOIN, a, b, NULL);
    s->was_apart = apart;
}

/* ---- the run ---- */
static void sample(struct sim *s)
{
    heal(s);
    for (uint32_t i = 0; i < s->opts.n_routers && i < 16; i++)
        check_router(s, (uint32_t)(sim_random(s) % s->opts.n_routers));
    if (s->opts.ramp) {
        struct weir_limits_view view;
        uint64_t at = (s->now_ns - START_NS) / (600 * SIM_S);
        weir_limits_show(s->routers[0].limits, weir_str(s->accounts[0].name), weir_str("m"),
                         sim_router_now(s, &s->routers[0]), &view, NULL, 0);
        if (at < 13 && view.found && s->report->ramp[at] == 0)
            s->report->ramp[at] =
                view.meters[WEIR_METER_GENERATED].limit / view.meters[WEIR_METER_GENERATED].lower;
    }
    if (s->n_live == 0 && s->last_change_ns && check_converged(s)) {
        s->report->converge_ms = fmax(s->report->converge_ms, (double)(s->now_ns - s->last_change_ns) / 1e6);
        s->last_change_ns = 0;
    }
    sim_push(s, s->now_ns + SAMPLE_NS, EV_SAMPLE, 0, 0, NULL);
}

static void handle(struct sim *s, const struct event *ev)
{
    switch (ev->kind) {
    case EV_TICK:
        tick(s, ev->a);
        break;
    case EV_FRAME:
        deliver(s, ev->b, ev->data);
        break;
    case EV_REJOIN:
        if (s->opts.n_routers <= 64)
            s->routers[ev->a].broken[ev->b] = false;
        weir_mesh_joined(s->routers[ev->a].mesh, s->routers[ev->b].id);
        break;
    case EV_ARRIVAL:
        if (s->now_ns < s->end_ns)
            traffic_arrive(s, ev->a);
        break;
    case EV_CALL:
        s->changed_ns = s->now_ns;
        if (((const struct sim_call *)ev->data)->admitted)
            s->last_change_ns = s->now_ns;
        traffic_settle_on(s, ev->data);
        break;
    case EV_RESTART:
        if (s->now_ns < s->end_ns)
            restart(s);
        break;
    case EV_SAMPLE:
        sample(s);
        break;
    }
}

static void open_world(struct sim *s)
{
    s->routers = weir_calloc(s->opts.n_routers, sizeof *s->routers);
    s->accounts = weir_calloc(s->opts.n_accounts, sizeof *s->accounts);
    WEIR_CHECK(s->routers && s->accounts);
    for (uint32_t i = 0; i < s->opts.n_routers; i++) {
        open_router(s, &s->routers[i], i);
        sim_push(s, s->now_ns + sim_random(s) % (s->opts.interval_ms * SIM_MS), EV_TICK, i, 0, NULL);
    }
    struct sim_opts opts = s->opts;
    s->opts.skew_ms = 0;
    open_router(s, &s->central, UINT32_MAX);
    s->opts = opts;
    sim_push(s, s->now_ns + SAMPLE_NS, EV_SAMPLE, 0, 0, NULL);
    if (s->opts.restart_every_s > 0)
        sim_push(s, s->now_ns + (uint64_t)(s->opts.restart_every_s * 1e9), EV_RESTART, 0, 0, NULL);
    traffic_start(s);
}

static void close_world(struct sim *s)
{
    struct weir_mesh_stats all = { 0 };
    double seconds = (double)(s->now_ns - START_NS) / 1e9;

    for (uint32_t i = 0; i < s->opts.n_routers; i++) {
        close_router(&s->routers[i]);
        all.frames_sent += s->routers[i].past.frames_sent;
        all.bytes_sent += s->routers[i].past.bytes_sent;
        all.registers_sent += s->routers[i].past.registers_sent;
    }
    s->report->frames_sent = all.frames_sent;
    s->report->registers_sent = all.registers_sent;
    s->report->bytes_s = (double)all.bytes_sent / seconds / s->opts.n_routers;
    s->report->bytes_a_register =
        all.registers_sent ? (double)all.bytes_sent / (double)all.registers_sent : 0;
    close_router(&s->central);
    while (s->n_events > 0) {
        struct event ev = pop(s);
        weir_free(ev.data);
    }
    weir_free(s->heap);
    weir_free(s->routers);
    weir_free(s->accounts);
}

void sim_run(const struct sim_opts *opts, struct sim_report *ret)
{
    struct sim s = {
        .opts = *opts, .report = ret, .now_ns = START_NS, .random = opts->seed * 0x9e3779b97f4a7c15ull + 1
    };

    *ret = (struct sim_report){ .converge_ms = -1 };
    s.end_ns = START_NS + (uint64_t)(opts->minutes * 60e9);
    open_world(&s);
    while ((s.n_live > 0 || s.now_ns < s.end_ns || s.now_ns < s.changed_ns + QUIET_NS) && !ret->failure[0]) {
        struct event ev = pop(&s);
        s.now_ns = ev.at_ns;
        handle(&s, &ev);
    }
    check_end(&s);
    close_world(&s);
}
