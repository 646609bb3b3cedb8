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

/* The engine's own list, from the message's; in the call's arena. NULL: no memory. */
static struct weir_logit_bias *copy_bias(struct call *call)
{
    const Weir__V1__GenerateRequest *msg = call->msg;
    struct weir_logit_bias *bias = weir_arena_alloc(&call->arena, (msg->n_logit_bias + 1) * sizeof *bias);

    for (size_t i = 0; bias && i < msg->n_logit_bias; i++)
        bias[i] =
            (struct weir_logit_bias){ (int32_t)msg->logit_bias[i]->id, (float)msg->logit_bias[i]->bias };
    return bias;
}

static struct weir_constraint *copy_constraints(struct call *call)
{
    struct weir_constraint *list = weir_arena_alloc(&call->arena, call->n_choices * sizeof *list);

    for (uint32_t i = 0; list && i < call->n_choices; i++)
        list[i] = call->choices[i].constraint;
    return list;
}

static void set_sampling(const struct weir_engine_info *info, const struct call *call,
                         struct weir_session_params *p)
{
    const Weir__V1__GenerateRequest *msg = call->msg;

    p->temperature = given_or(msg->has_temperature_case, msg->temperature, info->temperature, 1.0);
    p->top_p = given_or(msg->has_top_p_case, msg->top_p, info->top_p, 1.0);
    p->min_p = given_or(msg->has_min_p_case, msg->min_p, info->min_p, 0.0);
    p->top_k = msg->has_top_k_case ? (int)msg->top_k : info->top_k > 0 ? info->top_k : 0;
    p->typical_p = msg->has_typical_p_case ? msg->typical_p : 0;
    p->repetition_penalty = msg->has_repetition_penalty_case ? msg->repetition_penalty : 0;
    p->frequency_penalty = msg->has_frequency_penalty_case ? msg->frequency_penalty : 0;
    p->presence_penalty = msg->has_presence_penalty_case ? msg->presence_penalty : 0;
    p->mirostat_target = msg->has_mirostat_target_case ? msg->mirostat_target : 0;
    p->mirostat_lr = msg->has_mirostat_lr_case ? msg->mirostat_lr : 0.1;
    p->seed = call->seed;
    p->logprobs = msg->logprobs;
    p->n_top_logprobs = msg->logprobs ? (int)msg->top_logprobs : 0;
    p->n_prompt_logprobs = msg->logprobs ? call->n_echo : 0;
    p->min_tokens = msg->min_tokens;
    p->ignore_eos = msg->ignore_eos;
    p->n_logit_bias = (uint32_t)msg->n_logit_bias;
}

static weir_err open_session(struct weir_serve *serve, struct call *call, uint64_t now_ns)
{
    const Weir__V1__GenerateRequest *msg = call->msg;
    const struct weir_engine_info *info = serve->info;
    uint32_t room = info->n_context - (uint32_t)call->prompt.n;
    const uint32_t default_max = 2048;
    bool is_bound = call->choices[0].constraint.ops != NULL;
    struct weir_session_params params = {
        .prompt = call->prompt.ids,
        .n_prompt = (uint32_t)call->prompt.n,
        .n_choices = call->n_choices,
        .max_tokens = msg->has_max_tokens_case ? msg->max_tokens : default_max,
        .priority = call->priority,
        .account = call->account,
        .cache_salt = call->salt,
        .has_cache_max = msg->has_prompt_cache_max_len_case,
        .cache_max = msg->prompt_cache_max_len,
        .logit_bias = copy_bias(call),
        .constraints = is_bound ? copy_constraints(call) : NULL,
        .user = call,
    };

    if (!params.logit_bias || (is_bound && !params.constraints))
        return weir_fail(&call->why, WEIR_NOMEM, "no memory for the session");
    set_sampling(info, call, &params);
    if (params.max_tokens > room)
        params.max_tokens = room; /* the prompt is shorter than the context: prompt.c saw to it */
    weir_err err = weir_session_open(serve->opts.engine, &params, now_ns, &call->session, &call->why);
    for (uint32_t i = 0; err == WEIR_OK && i < call->n_choices; i++)
        call->choices[i].constraint.ops = NULL; /* the session's now */
    return err;
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
    case WEIR_EV_PROMPT:
        choice_prompt(serve, call, ev);
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
