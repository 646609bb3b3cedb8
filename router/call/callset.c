/* callset.c - the driver: carries the machine's actions out, and turns the fabric's news into its events.
 *
 * A call has a slot; a tag names the slot and the slot's generation, which rises with every attempt, so that
 * late news of an attempt that was left finds nobody. [C1] News reaches a call only through the tag of its
 * present attempt. [C2] A call that is closed while its sink is talking (it cancelled itself) stays in memory
 * until the sink returns. [C3] The request is encoded once, whatever the number of attempts.
 *
 * Threads: the loop's. Memory: a call is one block beside its request's arena; attempts hold references
 * (attach.h). Not here: the rules of retrying (machine.c), who is chosen (route.c). */
#include "router/call/callset.h"

#include <stddef.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "http/loop.h"
#include "router/call/gate.h"
#include "router/call/machine.h"
#include "router/call/metrics_int.h"
#include "router/fabric/attach.h"
#include "router/fabric/fleet.h"
#include "router/fabric/port.h"
#include "router/fabric/table.h"
#include "router/route/affinity.h"

enum { TAG_SLOT_BITS = 24, SLOTS_MAX = 1 << TAG_SLOT_BITS, SLOTS_MIN = 64, BYTES_PER_TOKEN = 4 };

struct slot {
    struct weir_call *call; /* NULL: free */
    uint32_t generation;    /* of the attempt that news may speak of */
    uint32_t next_free;
};

struct weir_callset {
    struct weir_loop *loop;
    struct weir_fleet *fleet;
    struct weir_callset_opts opts;
    struct weir_port *port;
    const struct weir_table *table;
    struct call_budget budget;
    uint64_t random; /* state */
    struct slot *slots;
    uint32_t n_slots, first_free; /* n_slots: none is free */
    uint32_t n_live;
    void (*on_idle)(void *ctx);
    void *idle_ctx;
};

struct weir_call {
    struct call_machine m;
    struct weir_callset *set;
    struct weir_request *req;
    struct weir_call_sink sink;
    void *ctx;
    uint32_t i_slot;
    uint32_t saying; /* callbacks of the sink, or weir_call_start, under way [C2] */
    bool closed, slow;
    uint64_t begin_ns, affinity;
    struct weir_timer timer; /* the first token's deadline */
    struct weir_submit *submit;
    struct weir_attach *att; /* of the present attempt; NULL: none */
    struct weir_outgoing *out;
    struct weir_gate_pass pass;
    struct weir_attach *tried[WEIR_ROUTE_EXCLUDE_MAX];
    uint32_t n_tried;
};

static void drive(struct weir_call *call, const struct call_event *ev);

static uint64_t random_next(struct weir_callset *set)
{
    set->random += 0x9e3779b97f4a7c15ull;
    return weir_hash_mix(set->random, 0);
}

/* ---- slots ---- */
static bool slots_grow(struct weir_callset *set)
{
    uint32_t n = set->n_slots ? set->n_slots * 2 : SLOTS_MIN;

    if (n > SLOTS_MAX)
        return false;
    struct slot *slots = weir_realloc(set->slots, n * sizeof *slots);
    if (!slots)
        return false;
    for (uint32_t i = set->n_slots; i < n; i++)
        slots[i] = (struct slot){ .next_free = i + 1 };
    set->slots = slots;
    set->first_free = set->n_slots;
    set->n_slots = n;
    return true;
}

static bool slot_take(struct weir_callset *set, struct weir_call *call)
{
    if (set->first_free == set->n_slots && !slots_grow(set))
        return false;
    call->i_slot = set->first_free;
    set->first_free = set->slots[call->i_slot].next_free;
    set->slots[call->i_slot].call = call;
    return true;
}

static void slot_give(struct weir_callset *set, uint32_t i)
{
    set->slots[i].call = NULL;
    set->slots[i].generation++;
    set->slots[i].next_free = set->first_free;
    set->first_free = i;
}

/* A tag for a new attempt; news of the one before is now stale. [C1] */
static uint64_t tag_new(struct weir_call *call)
{
    struct weir_callset *set = call->set;
    uint64_t generation = ++set->slots[call->i_slot].generation;

    return weir_port_tag_base(set->port) | generation << TAG_SLOT_BITS | call->i_slot;
}

static struct weir_call *tag_find(const struct weir_callset *set, uint64_t tag)
{
    uint32_t i = (uint32_t)(tag & (SLOTS_MAX - 1));
    uint32_t generation = (uint32_t)(tag >> TAG_SLOT_BITS);

    if (i >= set->n_slots || set->slots[i].generation != generation)
        return NULL;
    struct weir_call *call = set->slots[i].call;
    return call && call->att ? call : NULL;
}

/* ---- what goes to the replica ---- */
static void cache_salt(const struct weir_request *req, uint8_t ret[32])
{
    uint8_t parts[2][32];

    weir_sha256(req->account.ptr ? req->account.ptr : "", req->account.len, parts[0]);
    weir_sha256(req->isolation.ptr ? req->isolation.ptr : "", req->isolation.len, parts[1]);
    weir_sha256(parts, sizeof parts, ret);
}

static struct weir_submit *submit_open(struct weir_callset *set, const struct weir_request *req) /* [C3] */
{
    size_t len = weir__v1__generate_request__get_packed_size(req->msg);
    struct weir_submit *submit = weir_alloc(sizeof *submit + len + req->account.len + 1);

    if (!submit || len > UINT32_MAX) {
        weir_free(submit);
        return NULL;
    }
    uint8_t *data = (uint8_t *)(submit + 1);
    char *account = (char *)data + len;
    *submit = (struct weir_submit){
        .refs = 1,
        .seed = req->msg->has_seed_case ? req->msg->seed : random_next(set),
        .now_unix = req->created_s,
        .priority = req->priority,
        .prompt_tokens = (uint32_t)(len / BYTES_PER_TOKEN) + 1,
        .account = account,
        .data = data,
        .len = (uint32_t)len,
    };
    memcpy(submit->call_id, req->call_id, sizeof submit->call_id);
    cache_salt(req, submit->cache_salt);
    if (req->account.len > 0)
        memcpy(account, req->account.ptr, req->account.len);
    account[req->account.len] = '\0';
    weir__v1__generate_request__pack(req->msg, data);
    return submit;
}

/* ---- the end of a call ---- */
static void let_go(struct weir_call *call, bool cancel)
{
    if (!call->att)
        return;
    if (cancel)
        weir_attach_cancel(call->att, call->out);
    else
        weir_attach_forget(call->att, call->out);
    weir_attach_unref(call->att);
    call->att = NULL;
    call->out = NULL;
}

static void call_free(struct weir_call *call)
{
    weir_request_close(call->req);
    weir_free(call);
}

static enum call_outcome outcome_of(const struct weir_call *call)
{
    if (call->m.state == CALL_DONE)
        return OUTCOME_DONE;
    if (call->m.state == CALL_CANCELLED)
        return call->slow ? OUTCOME_SLOW : OUTCOME_CANCELLED;
    if (call->m.err == WEIR_OVERLOADED)
        return OUTCOME_SHED;
    int http = weir_err_info(call->m.err)->http;
    return http >= 400 && http < 500 ? OUTCOME_INVALID : OUTCOME_FAILED;
}

/* The loop's `now` is that of its turn: a request may seem to arrive after it. */
static double since_begin_s(const struct weir_call *call)
{
    uint64_t now_ns = weir_loop_now(call->set->loop);

    return now_ns > call->begin_ns ? (double)(now_ns - call->begin_ns) * 1e-9 : 0;
}

static void count_end(const struct weir_call *call)
{
    const struct call_metrics *metrics = call_metrics();
    const struct call_machine *m = &call->m;

    weir_counter_add(metrics->outcome[outcome_of(call)], 1);
    weir_histogram_observe(metrics->duration,
                           (double)(weir_loop_now(call->set->loop) - call->begin_ns) * 1e-9);
    weir_counter_add(metrics->tokens_prompt,
                     m->state == CALL_DONE ? m->done.prompt_tokens : m->prompt_tokens);
    weir_counter_add(metrics->tokens_cached,
                     m->state == CALL_DONE ? m->done.cached_tokens : m->cached_tokens);
    weir_counter_add(metrics->tokens_completion,
                     m->state == CALL_DONE ? m->done.completion_tokens : m->n_ids);
    weir_gauge_add(metrics->active, -1);
}

/* ---- the limits ---- */
static void charge(struct weir_call *call)
{
    const struct call_machine *m = &call->m;

    if (call->pass.metered)
        weir_gate_progress(call->set->opts.gate, &call->pass, call->req, m->prompt_tokens, m->cached_tokens,
                           m->n_ids, weir_loop_now(call->set->loop));
}

/* A call that no client saw a token of, and that was not cancelled, used nothing. */
static void settle(struct weir_call *call)
{
    const struct call_machine *m = &call->m;
    uint64_t now_ns = weir_loop_now(call->set->loop);

    if (!call->pass.metered)
        return;
    if (m->state == CALL_DONE)
        weir_gate_leave(call->set->opts.gate, &call->pass, call->req, m->done.prompt_tokens,
                        m->done.cached_tokens, m->done.completion_tokens, now_ns);
    else if (m->state == CALL_FAILED && m->n_ids == 0)
        weir_gate_leave(call->set->opts.gate, &call->pass, call->req, 0, 0, 0, now_ns);
    else
        weir_gate_leave(call->set->opts.gate, &call->pass, call->req, m->prompt_tokens, m->cached_tokens,
                        (uint32_t)m->n_ids, now_ns);
}

/* From the table at once; from memory when no callback is under way. [C2] */
static void call_close(struct weir_call *call)
{
    struct weir_callset *set = call->set;

    count_end(call);
    settle(call);
    weir_loop_timer_clear(set->loop, &call->timer);
    weir_submit_unref(call->submit);
    for (uint32_t i = 0; i < call->n_tried; i++)
        weir_attach_unref(call->tried[i]);
    slot_give(set, call->i_slot);
    call->closed = true;
    if (call->saying == 0)
        call_free(call);
    if (--set->n_live > 0 || !set->on_idle)
        return;
    void (*on_idle)(void *ctx) = set->on_idle;
    set->on_idle = NULL;
    on_idle(set->idle_ctx);
}

/* After a callback: is the call still there? */
static bool said(struct weir_call *call)
{
    call->saying--;
    if (!call->closed)
        return true;
    if (call->saying == 0)
        call_free(call);
    return false;
}

/* ---- placing ---- */
static void shed(enum call_shed reason)
{
    weir_counter_add(call_metrics()->shed[reason], 1);
}

/* By replicas that have no room: that is the deployment's news, too. */
static void shed_full(struct weir_call *call, enum call_shed reason)
{
    const struct weir_gate *gate = call->set->opts.gate;

    shed(reason);
    if (gate)
        weir_gate_shed(gate, call->req, weir_loop_now(call->set->loop));
}

static void refuse(struct weir_call *call, weir_err err, const struct weir_why *why, uint32_t retry_after_ms)
{
    struct call_event ev = { .kind = CALL_EV_REFUSED,
                             .refused = { .err = err, .why = why, .retry_after_ms = retry_after_ms } };
    drive(call, &ev);
}

static void refuse_route(struct weir_call *call, weir_err err, const struct weir_why *why,
                         const struct weir_route_choice *choice)
{
    if (choice->reason == WEIR_ROUTE_NO_REPLICA)
        shed(SHED_NO_REPLICA);
    else if (choice->reason == WEIR_ROUTE_SATURATED)
        shed_full(call, SHED_SATURATED);
    else if (choice->reason == WEIR_ROUTE_TRIED)
        shed_full(call, SHED_TRIED);
    refuse(call, err, why, choice->retry_after_ms);
}

/* What is tried is not chosen again. false: no room to remember it. */
static bool remember(struct weir_call *call, struct weir_attach *att)
{
    if (call->n_tried == WEIR_ROUTE_EXCLUDE_MAX)
        return false;
    call->tried[call->n_tried++] = weir_attach_ref(att);
    return true;
}

static weir_err choose(struct weir_call *call, struct weir_route_choice *ret, struct weir_attach **ret_att,
                       struct weir_why *why)
{
    struct weir_callset *set = call->set;
    struct weir_route_ask ask = {
        .key = call->affinity,
        .priority = call->req->priority,
        .prompt_tokens = call->submit->prompt_tokens,
        .recovery = call->m.recovery,
        .n_exclude = call->n_tried,
        .now_ns = weir_loop_now(set->loop),
        .random = random_next(set),
    };
    static const struct weir_ring nobody = { .n = 0 };

    for (uint32_t i = 0; i < call->n_tried; i++)
        ask.exclude[i] = weir_attach_load(call->tried[i]);
    weir_fleet_refresh(set->fleet, &set->table);
    const struct weir_table_model *model = weir_table_find(set->table, weir_str(call->req->msg->model));
    weir_err rc = weir_route_choose(&set->opts.route, model ? &model->ring : &nobody, &ask, ret, why);
    if (rc == WEIR_OK)
        *ret_att = model->attaches[ret->i_member];
    return rc;
}

static void place(struct weir_call *call)
{
    static const struct call_event placed = { .kind = CALL_EV_PLACED };
    struct weir_route_choice choice;
    struct weir_attach *att = NULL;
    struct weir_why why = { .text = "" };

    for (;;) {
        weir_err rc = choose(call, &choice, &att, &why);
        if (rc != WEIR_OK) {
            refuse_route(call, rc, &why, &choice);
            return;
        }
        rc = weir_attach_submit(att, call->submit, tag_new(call), call->m.attempt, &call->out);
        bool remembered = remember(call, att);
        if (rc == WEIR_OK) {
            call->att = weir_attach_ref(att);
            drive(call, &placed);
            return;
        }
        if (rc != WEIR_FULL && rc != WEIR_UNAVAILABLE) {
            weir_fail(&why, rc, "%s", weir_err_info(rc)->text);
            refuse(call, rc, &why, /* retry_after_ms= */ 0);
            return;
        }
        if (!remembered) {
            shed_full(call, SHED_OUTBOX);
            weir_fail(&why, WEIR_OVERLOADED, "no replica of the model takes more at the moment; try again");
            refuse(call, WEIR_OVERLOADED, &why,
                   weir_route_retry_after(&call->set->opts.route, 1000, random_next(call->set)));
            return;
        }
    }
}

/* ---- saying ---- */
static void say_started(struct weir_call *call)
{
    uint64_t now_ns = weir_loop_now(call->set->loop);
    struct weir_call_started started = {
        .replica = weir_attach_id(call->att),
        .prompt_tokens = call->m.prompt_tokens,
        .cached_tokens = call->m.cached_tokens,
        .queue_ns = call->m.queue_ns,
        .first_token_ns = now_ns,
    };
    weir_loop_timer_clear(call->set->loop, &call->timer);
    weir_histogram_observe(call_metrics()->ttft, since_begin_s(call));
    call->sink.started(call->ctx, &started);
}

static void say_failed(struct weir_call *call)
{
    struct call_machine *m = &call->m;

    if (m->err == WEIR_OVERLOADED && m->retry_after_ms == 0) { /* the machine's own */
        shed_full(call, SHED_REJECTED);
        m->retry_after_ms = weir_route_retry_after(&call->set->opts.route, 1000, random_next(call->set));
    }
    call->sink.failed(call->ctx, m->err, &m->why, m->retry_after_ms);
}

static void note_violation(const struct weir_call *call, const struct call_event *ev, enum call_state before)
{
    weir_counter_add(call_metrics()->violations, 1);
    WEIR_WARN("replica_protocol", "replica=%.*s state=%s event=%d",
              call->att ? (int)weir_attach_id(call->att).len : 0,
              call->att ? weir_attach_id(call->att).ptr : "", call_state_name(before), ev->kind);
}

static void drive(struct weir_call *call, const struct call_event *ev)
{
    enum call_state before = call->m.state;
    unsigned todo = call_machine_step(&call->m, ev, &call->set->budget);

    charge(call);
    if (todo & CALL_NOTE_VIOLATION)
        note_violation(call, ev, before);
    if (todo & (CALL_DO_LEAVE | CALL_DO_CANCEL))
        let_go(call, todo & CALL_DO_CANCEL);
    if (todo & CALL_DO_PLACE) {
        weir_counter_add(call_metrics()->retry[call->m.retry], 1);
        place(call);
        return;
    }
    call->saying++;
    if (todo & CALL_SAY_STARTED)
        say_started(call);
    if ((todo & CALL_SAY_DELTA) && !call->closed && !call->sink.delta(call->ctx, ev->delta) &&
        !call->closed) {
        call->slow = true;
        drive(call, &(struct call_event){ .kind = CALL_EV_SLOW });
    }
    if (todo & CALL_SAY_DONE)
        call->sink.done(call->ctx, &call->m.done);
    if (todo & CALL_SAY_FAILED)
        say_failed(call);
    if (said(call) && (todo & CALL_DO_CLOSE))
        call_close(call);
}

/* ---- the fabric's news ---- */
static void on_news(void *ctx, struct weir_attach *att, const struct weir_news *news, uint32_t n)
{
    static const enum call_event_kind kinds[] = { [WEIR_NEWS_ACCEPTED] = CALL_EV_ACCEPTED,
                                                  [WEIR_NEWS_STARTED] = CALL_EV_STARTED,
                                                  [WEIR_NEWS_DELTA] = CALL_EV_DELTA,
                                                  [WEIR_NEWS_TERMINAL] = CALL_EV_TERMINAL };
    struct weir_callset *set = ctx;
    uint32_t n_stale = 0;

    for (uint32_t i = 0; i < n; i++) {
        struct weir_call *call = tag_find(set, news[i].tag);
        if (!call || call->att != att) { /* the second: a replica that guesses another's tags */
            n_stale++;
            continue;
        }
        if (news[i].kind == WEIR_NEWS_ACCEPTED)
            weir_attach_accepted(att, call->out);
        struct call_event ev = { .kind = kinds[news[i].kind] };
        ev.delta = news[i].msg; /* the union's pointers are one */
        drive(call, &ev);
    }
    if (n_stale > 0)
        weir_counter_add(call_metrics()->stale_news, n_stale);
}

static void on_lost(void *ctx, struct weir_attach *att, uint64_t epoch)
{
    struct weir_callset *set = ctx;

    for (uint32_t i = 0; i < set->n_slots; i++) {
        struct weir_call *call = set->slots[i].call;
        if (!call || call->att != att || call->out->epoch != epoch)
            continue;
        const struct call_metrics *metrics = call_metrics();
        weir_counter_add(call->m.state == CALL_RUNNING ? metrics->lost_mid_stream : metrics->lost_before, 1);
        drive(call, &(struct call_event){ .kind = CALL_EV_LOST });
    }
}

static void on_late(struct weir_timer *timer)
{
    struct weir_call *call = (struct weir_call *)(void *)((char *)timer - offsetof(struct weir_call, timer));

    drive(call, &(struct call_event){ .kind = CALL_EV_LATE });
}

/* ---- starting and cancelling ---- */
void weir_callset_mint(struct weir_callset *set, struct weir_request *req)
{
    uint64_t half[2] = { weir_fleet_incarnation(set->fleet), weir_fleet_next_sequence(set->fleet) };

    for (int i = 0; i < 16; i++)
        req->call_id[i] = (uint8_t)(half[i / 8] >> (56 - 8 * (i % 8)));
}

/* Before there is a call. */
static void turn_away(struct weir_request *req, const struct weir_call_sink *sink, void *ctx, weir_err err,
                      const struct weir_why *why, uint32_t retry_after_ms)
{
    int http = weir_err_info(err)->http;
    enum call_outcome outcome = err == WEIR_OVERLOADED      ? OUTCOME_SHED
                                : http >= 400 && http < 500 ? OUTCOME_INVALID
                                                            : OUTCOME_FAILED;

    weir_counter_add(call_metrics()->outcome[outcome], 1);
    sink->failed(ctx, err, why, retry_after_ms);
    weir_request_close(req);
}

static struct weir_call *call_open(struct weir_callset *set, struct weir_request *req,
                                   const struct weir_call_sink *sink, void *ctx)
{
    struct weir_call *call = weir_alloc0(sizeof *call);

    if (!call)
        return NULL;
    *call = (struct weir_call){ .set = set, .sink = *sink, .ctx = ctx, .timer.run = on_late };
    call_machine_init(&call->m, req->msg->n ? req->msg->n : 1);
    call->begin_ns = req->arrived_ns ? req->arrived_ns : weir_loop_now(set->loop);
    call->affinity = weir_affinity_key(req);
    call->submit = submit_open(set, req);
    if (!call->submit || !slot_take(set, call))
        goto fail;
    if (set->opts.first_token_timeout_ms > 0 &&
        weir_loop_timer_set(set->loop, &call->timer,
                            weir_loop_now(set->loop) + set->opts.first_token_timeout_ms * WEIR_MS) !=
            WEIR_OK) {
        slot_give(set, call->i_slot);
        goto fail;
    }
    call->req = req;
    set->n_live++;
    weir_gauge_add(call_metrics()->active, 1);
    return call;
fail:
    weir_submit_unref(call->submit);
    weir_free(call);
    return NULL;
}

void weir_call_start(struct weir_callset *set, struct weir_request *req, const struct weir_call_sink *sink,
                     void *ctx, struct weir_call **ret)
{
    static const uint8_t none[16];
    struct weir_why why = { .text = "" };
    struct weir_gate_pass pass = { .metered = false };
    uint64_t now_ns = weir_loop_now(set->loop);
    uint32_t retry_ms = 0;

    *ret = NULL;
    if (set->n_live >= set->opts.calls_max) {
        shed(SHED_CALLS_MAX);
        weir_fail(&why, WEIR_OVERLOADED, "this router has as many calls as it takes; try again");
        turn_away(req, sink, ctx, WEIR_OVERLOADED, &why,
                  weir_route_retry_after(&set->opts.route, 1000, random_next(set)));
        return;
    }
    if (memcmp(req->call_id, none, sizeof none) == 0)
        weir_callset_mint(set, req);
    weir_err err =
        set->opts.gate ? weir_gate_enter(set->opts.gate, req, now_ns, &pass, &retry_ms, &why) : WEIR_OK;
    if (err != WEIR_OK) {
        turn_away(req, sink, ctx, err, &why, retry_ms);
        return;
    }
    struct weir_call *call = call_open(set, req, sink, ctx);
    if (call) {
        call->pass = pass;
    } else {
        if (set->opts.gate)
            weir_gate_leave(set->opts.gate, &pass, req, 0, 0, 0, now_ns);
        weir_fail(&why, WEIR_NOMEM, "%s", weir_err_info(WEIR_NOMEM)->text);
        turn_away(req, sink, ctx, WEIR_NOMEM, &why, /* retry_after_ms= */ 0);
        return;
    }
    call_budget_earn(&set->budget);
    call->saying++;
    place(call);
    if (said(call))
        *ret = call;
}

void weir_call_cancel(struct weir_call *call)
{
    if (!call_machine_is_over(&call->m))
        drive(call, &(struct call_event){ .kind = CALL_EV_CANCEL });
}

const struct weir_request *weir_call_request(const struct weir_call *call)
{
    return call->req;
}

/* ---- the set ---- */
void weir_callset_opts_init(struct weir_callset_opts *opts)
{
    *opts = (struct weir_callset_opts){
        .calls_max = 65536,
        .first_token_timeout_ms = 300000,
        .retry_share = 0.1,
    };
    weir_route_opts_init(&opts->route);
}

weir_err weir_callset_open(struct weir_loop *loop, struct weir_fleet *fleet,
                           const struct weir_callset_opts *opts, struct weir_callset **ret,
                           struct weir_why *why)
{
    static const struct weir_port_ops ops = { .news = on_news, .lost = on_lost };
    struct weir_callset *set = weir_alloc0(sizeof *set);

    if (!set)
        return weir_fail(why, WEIR_NOMEM, "calls: no memory");
    set->loop = loop;
    set->fleet = fleet;
    weir_callset_opts_init(&set->opts);
    if (opts)
        set->opts = *opts;
    call_budget_init(&set->budget, set->opts.retry_share);
    weir_random(&set->random, sizeof set->random);
    call_metrics();
    weir_err rc = weir_port_open(fleet, loop, &ops, set, &set->port, why);
    if (rc != WEIR_OK) {
        weir_free(set);
        return rc;
    }
    *ret = set;
    return WEIR_OK;
}

void weir_callset_close(struct weir_callset *set)
{
    if (!set)
        return;
    set->on_idle = NULL;
    for (uint32_t i = 0; i < set->n_slots; i++)
        if (set->slots[i].call)
            weir_call_cancel(set->slots[i].call);
    weir_port_close(set->fleet, set->port);
    weir_table_unref(set->table);
    weir_free(set->slots);
    weir_free(set);
}

uint32_t weir_callset_live(const struct weir_callset *set)
{
    return set->n_live;
}

void weir_callset_on_idle(struct weir_callset *set, void (*fn)(void *ctx), void *ctx)
{
    if (set->n_live == 0) {
        fn(ctx);
        return;
    }
    set->on_idle = fn;
    set->idle_ctx = ctx;
}
