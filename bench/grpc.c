/* grpc.c - load on weir.v1.Inference/Generate: calls at once on one connection, as one gRPC client makes them.
 *
 *   [G1] `n_busy` calls run, `idle` has all others; the run is over when it has stopped and n_busy is 0.
 * Threads: calls begin on this thread when they are due (open loop) or on the completion queue's, when another ended; all
 * callbacks come from that one. `lock` guards the whole run; it is held while a call is opened, so that on_closed can't come before
 * the stream is known. Each call has a deadline, so that every run ends. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"
#include "bench/load.h"
#include "proto/rpc.h"
#include "weir/v1/inference.pb-c.h"

#define METHOD "/weir.v1.Inference/Generate"
#define TAG_DELTA 0x12 /* GenerateEvent.delta: field 2, a message */

struct run;

struct call {
    struct run *run;
    struct call *idle_next;
    char session[32];
    uint64_t due_ns, last_event_ns; /* last_event_ns 0: none yet */
};

struct run {
    const struct load_opts *opts;
    struct load_result *ret;
    struct weir_rpc *rpc;
    struct weir_rpc_channel *channel;
    pthread_mutex_t lock;
    pthread_cond_t changed; /* idle grew, or n_busy fell to 0 */
    struct call *calls, *idle;
    uint8_t *request;
    size_t n_request;
    char bearer[300];
    uint64_t begin_ns, measure_ns, end_ns;
    uint32_t n_busy;
};

static weir_err make_request(struct run *run)
{
    const struct load_opts *opts = run->opts;
    Weir__V1__GenerateRequest req = WEIR__V1__GENERATE_REQUEST__INIT;
    Weir__V1__Message message = WEIR__V1__MESSAGE__INIT, *messages = &message;
    Weir__V1__Chat chat = WEIR__V1__CHAT__INIT;
    char *prompt = weir_alloc0((size_t)opts->prompt_bytes + 1);

    if (!prompt)
        return WEIR_NOMEM;
    load_prompt(prompt, opts->prompt_bytes);
    message.role = "user";
    message.content = prompt;
    chat.n_messages = 1;
    chat.messages = &messages;
    req.model = (char *)(uintptr_t)opts->model;
    req.input_case = WEIR__V1__GENERATE_REQUEST__INPUT_CHAT;
    req.chat = &chat;
    req.has_max_tokens_case = WEIR__V1__GENERATE_REQUEST__HAS_MAX_TOKENS_MAX_TOKENS;
    req.max_tokens = opts->max_tokens;
    req.has_temperature_case = WEIR__V1__GENERATE_REQUEST__HAS_TEMPERATURE_TEMPERATURE;
    req.temperature = 0.7;
    run->n_request = weir__v1__generate_request__get_packed_size(&req);
    run->request = weir_alloc(run->n_request);
    if (run->request)
        weir__v1__generate_request__pack(&req, run->request);
    weir_free(prompt);
    return run->request ? WEIR_OK : WEIR_NOMEM;
}

/* ---- calls: with the lock held ---- */
static void rest(struct call *c)
{
    struct run *run = c->run;

    c->idle_next = run->idle;
    run->idle = c;
    run->n_busy--; /* [G1] */
    pthread_cond_signal(&run->changed);
}

static const struct weir_rpc_stream_ops ops;

static void call_begin(struct call *c, uint64_t due_ns)
{
    struct run *run = c->run;
    const struct weir_rpc_meta meta[] = { { WEIR_STR("authorization"), weir_str(run->bearer) },
                                          { WEIR_STR("x-session-affinity"), weir_str(c->session) } };
    struct weir_rpc_stream *stream = NULL;
    struct weir_why why = { 0 };

    c->due_ns = due_ns;
    c->last_event_ns = 0;
    run->n_busy++;
    if (weir_rpc_channel_call(run->channel, METHOD, meta, 2, run->end_ns + LOAD_GRACE_S * WEIR_S, &ops, c,
                              &stream, &why) != WEIR_OK) {
        load_fault(run->ret, why.text);
        rest(c);
        return;
    }
    /* A refusal shows in on_closed. */
    (void)!weir_rpc_stream_send(stream, (struct weir_str){ (const char *)run->request, run->n_request });
    weir_rpc_stream_send_done(stream);
}

static bool on_message(void *ctx, struct weir_rpc_stream *stream, struct weir_str bytes)
{
    struct call *c = ctx;
    struct run *run = c->run;
    uint64_t now_ns = weir_now_ns();

    (void)stream;
    pthread_mutex_lock(&run->lock);
    run->ret->n_bytes += bytes.len;
    if (bytes.len > 0 && bytes.ptr[0] == TAG_DELTA) {
        if (now_ns >= run->measure_ns && now_ns <= run->end_ns) {
            run->ret->n_events++;
            if (c->last_event_ns)
                hist_add(&run->ret->gap, now_ns - c->last_event_ns);
            else if (c->due_ns >= run->measure_ns)
                hist_add(&run->ret->first_event, now_ns - c->due_ns);
        }
        c->last_event_ns = now_ns;
    }
    pthread_mutex_unlock(&run->lock);
    return true;
}

static void on_closed(void *ctx, struct weir_rpc_stream *stream, int grpc_status, const char *message)
{
    struct call *c = ctx;
    struct run *run = c->run;
    uint64_t now_ns = weir_now_ns();
    char text[160];

    (void)stream;
    pthread_mutex_lock(&run->lock);
    if (grpc_status != 0) {
        snprintf(text, sizeof text, "status %d: %.120s", grpc_status, message ? message : "");
        load_fault(run->ret, text);
    }
    if (c->due_ns >= run->measure_ns && now_ns <= run->end_ns) {
        run->ret->n_requests++;
        hist_add(&run->ret->latency, now_ns - c->due_ns);
    }
    rest(c);
    if (run->opts->rate == 0 && now_ns < run->end_ns) {
        run->idle = c->idle_next;
        call_begin(c, now_ns);
    }
    pthread_mutex_unlock(&run->lock);
}

static const struct weir_rpc_stream_ops ops = { .on_message = on_message, .on_closed = on_closed };

/* ---- the run ---- */
static void sleep_until(uint64_t at_ns)
{
    struct timespec at = { (time_t)(at_ns / WEIR_S), (long)(at_ns % WEIR_S) };

    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR)
        ;
}

/* NULL: none became free before the end. */
static struct call *take_idle(struct run *run)
{
    struct timespec end = { (time_t)(run->end_ns / WEIR_S), (long)(run->end_ns % WEIR_S) };

    while (!run->idle)
        if (pthread_cond_timedwait(&run->changed, &run->lock, &end) == ETIMEDOUT)
            return NULL;
    struct call *c = run->idle;
    run->idle = c->idle_next;
    return c;
}

static void hand_out(struct run *run)
{
    for (uint64_t n = 0;; n++) {
        uint64_t due_ns = run->begin_ns + (uint64_t)((double)n * 1e9 / run->opts->rate);
        if (due_ns >= run->end_ns)
            return;
        sleep_until(due_ns);
        pthread_mutex_lock(&run->lock);
        struct call *c = take_idle(run);
        if (c)
            call_begin(c, due_ns);
        pthread_mutex_unlock(&run->lock);
        if (!c)
            return;
    }
}

static void load(struct run *run)
{
    pthread_mutex_lock(&run->lock);
    run->begin_ns = weir_now_ns();
    run->measure_ns = run->begin_ns + (uint64_t)(run->opts->warmup_s * 1e9);
    run->end_ns = run->measure_ns + (uint64_t)(run->opts->seconds * 1e9);
    if (run->opts->rate == 0) {
        run->idle = NULL;
        for (uint32_t i = 0; i < run->opts->n_connections; i++)
            call_begin(&run->calls[i], run->begin_ns);
    }
    pthread_mutex_unlock(&run->lock);
    if (run->opts->rate > 0)
        hand_out(run);
    sleep_until(run->end_ns);
    pthread_mutex_lock(&run->lock);
    while (run->n_busy > 0) /* each has its deadline */
        pthread_cond_wait(&run->changed, &run->lock);
    pthread_mutex_unlock(&run->lock);
}

static weir_err open_calls(struct run *run, struct weir_why *why)
{
    const struct load_opts *opts = run->opts;

    run->calls = weir_calloc(opts->n_connections, sizeof *run->calls);
    if (!run->calls || make_request(run) != WEIR_OK)
        return weir_fail(why, WEIR_NOMEM, "no memory for %u calls", opts->n_connections);
    for (uint32_t i = 0; i < opts->n_connections; i++) {
        struct call *c = &run->calls[i];
        c->run = run;
        snprintf(c->session, sizeof c->session, "key-%u",
                 opts->n_affinity_keys ? i % opts->n_affinity_keys : i);
        c->idle_next = run->idle;
        run->idle = c;
    }
    return WEIR_OK;
}

weir_err grpc_run(const struct load_opts *opts, struct load_result *ret, struct weir_why *why)
{
    struct run run = { .opts = opts, .ret = ret, .lock = PTHREAD_MUTEX_INITIALIZER };
    struct weir_rpc_channel_opts channel = { .address = opts->target };
    pthread_condattr_t attr;

    memset(ret, 0, sizeof *ret);
    ret->seconds = opts->seconds;
    snprintf(run.bearer, sizeof run.bearer, "Bearer %s", opts->api_key);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&run.changed, &attr);
    pthread_condattr_destroy(&attr);
    weir_err err = open_calls(&run, why);
    if (err == WEIR_OK)
        err = weir_rpc_open(1, &run.rpc, why);
    if (err == WEIR_OK)
        err = weir_rpc_channel_open(run.rpc, &channel, &run.channel, why);
    if (err == WEIR_OK)
        load(&run);
    weir_rpc_channel_close(run.channel);
    weir_rpc_close(run.rpc);
    pthread_cond_destroy(&run.changed);
    weir_free(run.request);
    weir_free(run.calls);
    return err;
}
