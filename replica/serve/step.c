/* step.c - the step thread: takes what has arrived, runs one batch, turns tokens into text, tells the
 * routers.
 *
 * It never tokenizes, waits for a peer or enters gRPC; what it makes goes to the outboxes, and the sender
 * takes it from there. All news of a step about one choice is one Delta.
 *
 * [T1] A choice's text is exactly the concatenation of its deltas' text, whole characters, cut before a stop
 * string. [T2] Every token the engine tells is in exactly one delta's ids, up to the one that ended the
 * choice. */
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

static bool choices_init(struct call *call)
{
    call->choices = weir_calloc(call->n_choices, sizeof *call->choices);
    if (!call->choices)
        return false;
    for (uint32_t i = 0; i < call->n_choices; i++) {
        weir_detok_init(&call->choices[i].detok);
        weir_buf_init(&call->choices[i].text, 0);
    }
    return true;
}

static double given_or(bool given, double value, double model_default, double otherwise)
{
    return given ? value : isnan(model_default) ? otherwise : model_default;
}

static weir_err open_session(struct weir_serve *serve, struct call *call, uint64_t now_ns)
{
    const Weir__V1__GenerateRequest *msg = call->msg;
    const struct weir_engine_info *info = serve->info;
    uint32_t room = info->n_context - (uint32_t)call->prompt.n;
    const uint32_t default_max = 2048;

    if (!choices_init(call))
        return weir_fail(&call->why, WEIR_NOMEM, "no memory for the choices");
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
static void mark(struct weir_serve *serve, struct call *call)
{
    if (call->dirty)
        return;
    call->dirty = true;
    call->dirty_next = serve->dirty;
    serve->dirty = call;
}

/* Grows an array that a choice keeps for the step's news. */
static bool grow(void *array, size_t *cap, size_t n, size_t size)
{
    void *grown;
    size_t wanted = *cap ? 2 * *cap : 8;

    if (n < *cap)
        return true;
    memcpy(&grown, array, sizeof grown);
    grown = weir_realloc(grown, wanted * size);
    if (!grown)
        return false;
    memcpy(array, &grown, sizeof grown);
    *cap = wanted;
    return true;
}

static Weir__V1__TokenLogprob *encode_logprob(struct weir_serve *serve, const struct weir_engine_event *ev,
                                              int n_top)
{
    struct weir_arena *arena = &serve->step_arena;
    Weir__V1__TokenLogprob *lp = weir_arena_alloc(arena, sizeof *lp);
    Weir__V1__TopLogprob **tops = weir_arena_alloc(arena, ((size_t)n_top + 1) * sizeof(void *));
    struct weir_str bytes = weir_token_bytes(serve->opts.tokenizer, ev->id, /* with_special= */ true);

    if (!lp || !tops)
        return NULL;
    weir__v1__token_logprob__init(lp);
    lp->id = (uint32_t)ev->id;
    lp->token = (ProtobufCBinaryData){ bytes.len, (uint8_t *)(uintptr_t)bytes.ptr };
    lp->logprob = ev->logprob;
    lp->top = tops;
    for (int i = 0; i < n_top; i++) {
        Weir__V1__TopLogprob *top = weir_arena_alloc(arena, sizeof *top);
        if (!top)
            return NULL;
        bytes = weir_token_bytes(serve->opts.tokenizer, ev->top[i].id, true);
        weir__v1__top_logprob__init(top);
        top->id = (uint32_t)ev->top[i].id;
        top->token = (ProtobufCBinaryData){ bytes.len, (uint8_t *)(uintptr_t)bytes.ptr };
        top->logprob = ev->top[i].logprob;
        tops[lp->n_top++] = top;
    }
    return lp;
}

static void choice_finish(struct weir_serve *serve, struct call *call, struct choice *ch,
                          Weir__V1__FinishReason reason)
{
    struct weir_buf tail;

    if (ch->finished)
        return;
    if (reason !=
        WEIR__V1__FINISH_REASON__FINISH_NONE) { /* half a character and a half stop string come out now */
        weir_buf_init(&tail, 0);
        weir_detok_finish(&ch->detok, &tail);
        if (!weir_stop_push(call->stops, &ch->stop,
                            (struct weir_str){ weir_buf_ptr(&tail), weir_buf_len(&tail) }, &ch->text))
            weir_stop_finish(&ch->stop, &ch->text);
        weir_buf_release(&tail);
    }
    ch->finished = true;
    ch->finish = reason;
    ch->dirty = true;
    call->n_live--;
    mark(serve, call);
}

static void on_token(struct weir_serve *serve, struct call *call, const struct weir_engine_event *ev)
{
    struct choice *ch = &call->choices[ev->choice];
    struct weir_str bytes;

    if (ch->finished)
        return;
    ch->n_out++;
    ch->dirty = true;
    serve->rate.generated++;
    mark(serve, call);
    if (!grow(&ch->ids, &ch->cap_ids, ch->n_ids, sizeof *ch->ids)) {
        weir_session_stop_choice(call->session, ev->choice);
        choice_finish(serve, call, ch, WEIR__V1__FINISH_REASON__FINISH_ERROR);
        return;
    }
    ch->ids[ch->n_ids++] = (uint32_t)ev->id; /* [T2] */
    if (call->msg->logprobs && grow(&ch->logprobs, &ch->cap_logprobs, ch->n_logprobs, sizeof(void *))) {
        Weir__V1__TokenLogprob *lp = encode_logprob(serve, ev, (int)call->msg->top_logprobs);
        if (lp)
            ch->logprobs[ch->n_logprobs++] = lp;
    }
    bytes = weir_token_bytes(serve->opts.tokenizer, ev->id, /* with_special= */ false);
    weir_buf_clear(&serve->scratch);
    weir_detok_push(&ch->detok, bytes, &serve->scratch);
    struct weir_str text = { weir_buf_ptr(&serve->scratch), weir_buf_len(&serve->scratch) };
    if (text.len && weir_stop_push(call->stops, &ch->stop, text, &ch->text)) { /* [T1] */
        weir_session_stop_choice(call->session, ev->choice);
        ch->finished = true;
        ch->finish = WEIR__V1__FINISH_REASON__FINISH_STOP;
        call->n_live--;
    }
}

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
    case WEIR_EV_TOKEN:
        if (!call->first_token_ns)
            call->first_token_ns = now_ns;
        on_token(serve, call, ev);
        break;
    case WEIR_EV_FINISHED:
        choice_finish(serve, call, &call->choices[ev->choice], reasons[ev->finish]);
        break;
    }
}

/* ---- to the routers ---- */
static void encode_choice(struct weir_serve *serve, struct call *call, uint32_t i)
{
    struct choice *ch = &call->choices[i];
    Weir__Fabric__V1__Delta delta = WEIR__FABRIC__V1__DELTA__INIT;

    delta.tag = call->tag;
    delta.choice = i;
    delta.text =
        (ProtobufCBinaryData){ weir_buf_len(&ch->text), (uint8_t *)(uintptr_t)weir_buf_ptr(&ch->text) };
    delta.n_ids = ch->n_ids;
    delta.ids = ch->ids;
    delta.n_logprobs = ch->n_logprobs;
    delta.logprobs = ch->logprobs;
    delta.finish = ch->finished ? ch->finish : WEIR__V1__FINISH_REASON__FINISH_NONE;
    weir_buf_clear(&serve->scratch);
    frame_add(&serve->scratch, 4, &delta.base);
    attach_append(call->att,
                  (struct weir_str){ weir_buf_ptr(&serve->scratch), weir_buf_len(&serve->scratch) });
    weir_buf_clear(&ch->text);
    ch->n_ids = ch->n_logprobs = 0;
    ch->dirty = false;
}

static void tell(struct weir_serve *serve, uint64_t now_ns)
{
    struct call *call = serve->dirty;

    serve->dirty = NULL;
    while (call) {
        struct call *next = call->dirty_next;
        call->dirty = false;
        for (uint32_t i = 0; i < call->n_choices; i++)
            if (call->choices[i].dirty)
                encode_choice(serve, call, i);
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
