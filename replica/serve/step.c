/* step.c - the step thread: takes what has arrived, runs one batch, turns tokens into text, tells the
 * routers.
 *
 * It never tokenizes, waits for a peer or enters gRPC; what it makes goes to the outboxes, and the sender
 * takes it from there. All news of a step about one choice is one Delta (choice.c). */
#include <math.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "replica/serve/serve_int.h"

/* ---- sessions ---- */
static void end_pending(struct weir_serve *serve, struct call *call)
{
    if (call->pending)
        atomic_fetch_sub(&serve->n_pending, 1);
    call->pending = false;
}

static double given_or(bool given, double value, double model_default, double otherwise)
{
    return given ? value : isnan(model_default) ? otherwise : model_default;
}

/* What the engine does not do yet is refused by name, never dropped. */
static weir_err check_supported(const Weir__V1__GenerateRequest *msg, const struct call *call,
                                struct weir_why *why)
{
    const struct {
        const char *name;
        bool given;
    } fields[] = {
        { "typical_p", msg->has_typical_p_case },
        { "repetition_penalty", msg->has_repetition_penalty_case },
        { "frequency_penalty", msg->has_frequency_penalty_case },
        { "presence_penalty", msg->has_presence_penalty_case },
        { "mirostat_target", msg->has_mirostat_target_case },
        { "logit_bias", msg->n_logit_bias > 0 },
        { "min_tokens", msg->min_tokens > 0 },
        { "prompt_cache_max_len", msg->has_prompt_cache_max_len_case },
        { "response_format", call->grammar != NULL },
        { "echo", call->n_echo > 0 && msg->logprobs },
    };

    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (fields[i].given)
            return weir_fail_param(why, fields[i].name, WEIR_INVALID, "%s: not supported by this replica",
                                   fields[i].name);
    return WEIR_OK;
}

static weir_err open_session(struct weir_serve *serve, struct call *call, uint64_t now_ns)
{
    const Weir__V1__GenerateRequest *msg = call->msg;
    const struct weir_engine_info *info = serve->info;
    uint32_t room = info->n_context - (uint32_t)call->prompt.n;
    const uint32_t default_max = 2048;
    weir_err err = check_supported(msg, call, &call->why);

    if (err != WEIR_OK)
        return err;
    struct weir_session_params params = {
        .prompt = call->prompt.ids,
        .n_prompt = (uint32_t)call->prompt.n,
        .n_choices = call->n_choices,
        .max_tokens = msg->has_max_tokens_case ? msg->max_tokens : default_max,
        .seed = call->seed,
        .temperature = given_or(msg->has_temperature_case, msg->temperature, info->temperature, 1.0),
        .top_p = given_or(msg->has_top_p_case, msg->top_p, info->top_p, 1.0),
        .min_p = given_or(msg->has_min_p_case, msg->min_p, info->min_p, 0.0),
        .top_k = msg->has_top_k_case ? (int)msg->top_k
                 : info->top_k > 0   ? info->top_k
                                     : 0,
        .logprobs = msg->logprobs,
        .n_top_logprobs = msg->logprobs ? (int)msg->top_logprobs : 0,
        .ignore_eos = msg->ignore_eos,
        .priority = call->priority,
        .cache_salt = call->salt,
        .user = call,
    };
    if (params.max_tokens > room)
        params.max_tokens = room; /* the prompt is shorter than the context: text.c saw to it */
    return weir_session_open(serve->opts.engine, &params, now_ns, &call->session, &call->why);
}

static void arrive(struct weir_serve *serve, struct call *call, uint64_t now_ns)
{
    Weir__Fabric__V1__Accepted accepted = WEIR__FABRIC__V1__ACCEPTED__INIT;
    weir_err err = atomic_load(&call->cancelled) ? WEIR_CANCELLED : call->err;

    if (err == WEIR_OK)
        err = open_session(serve, call, now_ns);
    if (err != WEIR_OK) {
        call_end_err(call, err, &call->why);
        return;
    }
    call->n_live = call->n_choices;
    accepted.tag = call->tag;
    accepted.prompt_tokens = (uint32_t)call->prompt.n;
    weir_buf_clear(&serve->scratch);
    frame_add(&serve->scratch, 2, &accepted.base);
    attach_append(call->att,
                  (struct weir_str){ weir_buf_ptr(&serve->scratch), weir_buf_len(&serve->scratch) });
    weir_counter_add(serve->metrics.prompt_tokens, call->prompt.n);
}

static uint32_t completion_tokens(const struct call *call)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < call->n_choices; i++)
        n += call->choices[i].n_out;
    return n;
}

static void end_running(struct weir_serve *serve, struct call *call, Weir__Fabric__V1__TerminalReason reason,
                        uint64_t now_ns)
{
    Weir__Fabric__V1__Terminal terminal = WEIR__FABRIC__V1__TERMINAL__INIT;

    weir_session_close(call->session);
    call->session = NULL;
    terminal.reason = reason;
    terminal.prompt_tokens = (uint32_t)call->prompt.n;
    terminal.cached_tokens = call->cached_tokens;
    terminal.completion_tokens = completion_tokens(call);
    terminal.queue_ns = call->queue_ns;
    if (call->first_token_ns) {
        terminal.prefill_ns = call->first_token_ns - call->started_ns;
        terminal.generation_ns = now_ns - call->first_token_ns;
    }
    if (call->started_ns)
        load_note_finished(serve, now_ns - call->started_ns);
    weir_counter_add(serve->metrics.completion_tokens, terminal.completion_tokens);
    end_pending(serve, call);
    call_end(call, &terminal);
}

void step_drop(struct weir_serve *serve, struct call *call)
{
    end_running(serve, call, WEIR__FABRIC__V1__TERMINAL_REASON__TERMINAL_CANCELLED, weir_now_ns());
}

/* ---- what a step brought ---- */
void step_mark(struct weir_serve *serve, struct call *call)
{
    if (call->dirty)
        return;
    call->dirty = true;
    call->dirty_next = serve->dirty;
    serve->dirty = call;
}

/* Grows an array that a choice keeps for the step's news. */
static void on_started(struct weir_serve *serve, struct call *call, const struct weir_engine_event *ev,
                       uint64_t now_ns)
{
    Weir__Fabric__V1__Started started = WEIR__FABRIC__V1__STARTED__INIT;

    end_pending(serve, call);
    call->started_ns = now_ns;
    call->cached_tokens = ev->cached_tokens;
    call->queue_ns = now_ns - call->arrived_ns;
    for (uint32_t i = 0; i < call->n_choices && call->echo.len > 0; i++)
        choice_echo(serve, &call->choices[i]);
    started.tag = call->tag;
    started.cached_tokens = ev->cached_tokens;
    started.queue_ns = call->queue_ns;
    weir_buf_clear(&serve->scratch);
    frame_add(&serve->scratch, 3, &started.base);
    attach_append(call->att,
                  (struct weir_str){ weir_buf_ptr(&serve->scratch), weir_buf_len(&serve->scratch) });
    weir_counter_add(serve->metrics.cached_tokens, ev->cached_tokens);
    weir_histogram_observe(serve->metrics.queue_s, (double)call->queue_ns / 1e9);
}

static void on_event(struct weir_serve *serve, const struct weir_engine_event *ev, uint64_t now_ns)
{
    static const Weir__V1__FinishReason reasons[] = {
        [WEIR_FINISH_NONE] = WEIR__V1__FINISH_REASON__FINISH_ERROR,
        [WEIR_FINISH_STOP] = WEIR__V1__FINISH_REASON__FINISH_STOP,
        [WEIR_FINISH_LENGTH] = WEIR__V1__FINISH_REASON__FINISH_LENGTH,
        [WEIR_FINISH_ERROR] = WEIR__V1__FINISH_REASON__FINISH_ERROR,
    };
    struct call *call = weir_session_user(ev->session);

    switch (ev->kind) {
    case WEIR_EV_STARTED:
        on_started(serve, call, ev, now_ns);
        break;
    case WEIR_EV_TOKEN:
        if (!call->first_token_ns)
            call->first_token_ns = now_ns;
        choice_token(serve, &call->choices[ev->choice], ev);
        break;
    case WEIR_EV_FINISHED:
        choice_finish(serve, &call->choices[ev->choice], reasons[ev->finish]);
        break;
    }
}

/* ---- to the routers ---- */
static void tell(struct weir_serve *serve, uint64_t now_ns)
{
    struct call *call = serve->dirty;

    serve->dirty = NULL;
    while (call) {
        struct call *next = call->dirty_next;
        call->dirty = false;
        for (uint32_t i = 0; i < call->n_choices; i++)
            if (call->choices[i].dirty)
                choice_encode(serve, &call->choices[i]);
        if (call->n_live == 0)
            end_running(serve, call, WEIR__FABRIC__V1__TERMINAL_REASON__TERMINAL_DONE, now_ns);
        call = next;
    }
    weir_arena_clear(&serve->step_arena);
}

static void take_messages(struct weir_serve *serve, struct weir_qnode *node)
{
    uint64_t now_ns = weir_now_ns();

    while (node) {
        struct step_msg *msg = (struct step_msg *)((char *)node - offsetof(struct step_msg, node));
        struct call *call = msg->call;
        node = node->next;
        if (msg->kind == STEP_NEW) {
            arrive(serve, call, now_ns);
            continue;
        }
        if (call->session) /* else it has ended, or has not arrived and will see the flag when it does */
            end_running(serve, call, WEIR__FABRIC__V1__TERMINAL_REASON__TERMINAL_CANCELLED, now_ns);
        call_unref(call);
    }
}

static void step(struct weir_serve *serve)
{
    struct weir_engine_step result;
    struct weir_why why = { 0 };
    uint64_t begin_ns = weir_now_ns();
    weir_err err = weir_engine_step(serve->opts.engine, begin_ns, &result, &why);
    uint64_t now_ns = weir_now_ns();

    if (err != WEIR_OK) { /* the model or its memory is broken: another replica must take over */
        WEIR_ERROR("engine_failed", "err=%s why=%s", weir_err_info(err)->name, why.text);
        weir_signals_raise_term();
        atomic_store(&serve->failed, true);
        return;
    }
    for (int i = 0; i < result.n_events; i++)
        on_event(serve, &result.events[i], now_ns);
    tell(serve, now_ns);
    load_note_prefill(serve, result.n_prefill, now_ns - begin_ns);
    weir_counter_add(serve->metrics.steps, 1);
    weir_histogram_observe(serve->metrics.step_s, (double)(now_ns - begin_ns) / 1e9);
}

void *step_main(void *arg)
{
    struct weir_serve *serve = arg;
    const uint64_t idle_ns = 100 * WEIR_MS; /* so that rates fall to zero in the load when nothing happens */

    while (!atomic_load(&serve->stopping)) {
        bool busy = weir_engine_has_work(serve->opts.engine) && !atomic_load(&serve->failed);
        take_messages(serve, busy ? weir_queue_take(&serve->step_queue)
                                  : weir_queue_wait(&serve->step_queue, idle_ns));
        if (weir_engine_has_work(serve->opts.engine) && !atomic_load(&serve->failed))
            step(serve);
        load_publish(serve);
        send_wake(serve);
    }
    return NULL;
}
