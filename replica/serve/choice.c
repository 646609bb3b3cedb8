/* choice.c - one choice's tokens become text, reasoning, calls and log-probabilities, and these a Delta.
 *
 *   token -> bytes -> whole characters -> cut at stop strings -> (a parser: content, reasoning, calls) -> Delta
 *
 *   [T1] A choice's text is exactly the concatenation of its deltas' text, whole characters, cut before a stop
 * string. [T2] Every token the engine tells is in exactly one delta's ids, up to the one that ended the choice.
 *   [T3] What the client gets back of its prompt goes before everything else of the choice.
 *
 * Opened on a text worker, so that the step thread does not pay for it; from then on the step thread's. */
#include <math.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "replica/serve/serve_int.h"

/* ---- opening: text worker ---- */
static void on_output(void *ctx, const struct weir_output_event *event);

static const struct weir_constraint_ops grammar_ops = { weir_grammar_state_mask, weir_grammar_state_accept,
                                                        weir_grammar_state_close };
static const struct weir_constraint_ops cap_ops = { cap_mask, cap_accept, cap_close };

static weir_err open_constraint(struct weir_serve *serve, struct call *call, struct choice *ch)
{
    struct weir_grammar_state *grammar = NULL;
    struct cap_state *cap = NULL;
    weir_err err = WEIR_OK;

    if (call->grammar)
        err = weir_grammar_state_open(call->grammar, &grammar, &call->why);
    if (err == WEIR_OK && call->cap_end.n > 0) {
        err = cap_open(serve, call, grammar, &cap);
        if (err != WEIR_OK)
            weir_grammar_state_close(grammar);
    }
    if (err != WEIR_OK)
        return err;
    if (cap)
        ch->constraint = (struct weir_constraint){ &cap_ops, cap };
    else if (grammar)
        ch->constraint = (struct weir_constraint){ &grammar_ops, grammar };
    return WEIR_OK;
}

static weir_err open_one(struct weir_serve *serve, struct call *call, struct choice *ch)
{
    weir_err err = WEIR_OK;

    ch->call = call;
    weir_detok_init(&ch->detok);
    weir_buf_init(&ch->text, 0);
    weir_buf_init(&ch->reasoning, 0);
    weir_buf_init(&ch->raw, 0);
    weir_buf_init(&ch->called, 0);
    if (call->parses)
        err = weir_output_parser_open(&call->format, on_output, ch, &ch->parser);
    if (err == WEIR_OK && call->parses && call->prefill.len > 0)
        err = weir_output_parser_push(ch->parser, call->prefill); /* the answer begins with it */
    weir_buf_add(&ch->text, call->echo.ptr, call->echo.len);      /* [T3]: goes out with the first token */
    return err == WEIR_OK ? open_constraint(serve, call, ch) : err;
}

weir_err choices_open(struct weir_serve *serve, struct call *call)
{
    weir_err err = WEIR_OK;

    call->choices = weir_calloc(call->n_choices, sizeof *call->choices);
    if (!call->choices)
        return weir_fail(&call->why, WEIR_NOMEM, "no memory for the choices");
    for (uint32_t i = 0; i < call->n_choices && err == WEIR_OK; i++)
        err = open_one(serve, call, &call->choices[i]);
    return err;
}

void choices_close(struct call *call)
{
    for (uint32_t i = 0; call->choices && i < call->n_choices; i++) {
        struct choice *ch = &call->choices[i];
        weir_stop_release(&ch->stop);
        weir_buf_release(&ch->text);
        weir_buf_release(&ch->reasoning);
        weir_buf_release(&ch->raw);
        weir_buf_release(&ch->called);
        weir_output_parser_close(ch->parser);
        if (ch->constraint.ops)
            ch->constraint.ops->close(ch->constraint.state);
        weir_free(ch->ids);
        weir_free(ch->logprobs);
        weir_free(ch->pieces);
    }
    weir_free(call->choices);
    call->choices = NULL;
}

/* ---- lists that grow ---- */
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

/* ---- log-probabilities ---- */
static ProtobufCBinaryData token_bytes(struct weir_serve *serve, int32_t id)
{
    struct weir_str bytes = weir_token_bytes(serve->opts.tokenizer, id, /* with_special= */ true);

    return (ProtobufCBinaryData){ bytes.len, (uint8_t *)(uintptr_t)bytes.ptr };
}

static Weir__V1__TokenLogprob *make_logprob(struct weir_serve *serve, struct weir_arena *arena,
                                            const struct weir_engine_event *ev, uint32_t n_top)
{
    const struct weir_top_logprob *top = ev->top;
    Weir__V1__TokenLogprob *lp = weir_arena_alloc(arena, sizeof *lp);
    Weir__V1__TopLogprob **tops = weir_arena_alloc(arena, ((size_t)n_top + 1) * sizeof(void *));

    if (!lp || !tops)
        return NULL;
    weir__v1__token_logprob__init(lp);
    lp->id = (uint32_t)ev->id;
    lp->token = token_bytes(serve, ev->id);
    lp->logprob = ev->logprob;
    lp->top = tops;
    for (uint32_t i = 0; top && i < n_top && top[i].id >= 0; i++) {
        Weir__V1__TopLogprob *one = weir_arena_alloc(arena, sizeof *one);
        if (!one)
            return NULL;
        weir__v1__top_logprob__init(one);
        one->id = (uint32_t)top[i].id;
        one->token = token_bytes(serve, top[i].id);
        one->logprob = top[i].logprob;
        tops[lp->n_top++] = one;
    }
    return lp;
}

static void add_logprob(struct choice *ch, Weir__V1__TokenLogprob *lp)
{
    if (lp && grow(&ch->logprobs, &ch->cap_logprobs, ch->n_logprobs, sizeof(void *)))
        ch->logprobs[ch->n_logprobs++] = lp;
}

/* [T3] The prompt's may come steps before the first token: they wait in the call's arena. */
void choice_prompt(struct weir_serve *serve, struct call *call, const struct weir_engine_event *ev)
{
    Weir__V1__TokenLogprob *lp = make_logprob(serve, &call->arena, ev, call->msg->top_logprobs);

    for (uint32_t i = 0; i < call->n_choices; i++)
        add_logprob(&call->choices[i], lp);
}

/* ---- text ---- */
/* A call's pieces of one step: one for each call, names and arguments in one buffer. */
static struct call_piece *piece_of(struct choice *ch, uint32_t i_call)
{
    struct call_piece *last = ch->n_pieces ? &ch->pieces[ch->n_pieces - 1] : NULL;

    if (last && last->i_call == i_call)
        return last;
    if (!grow(&ch->pieces, &ch->cap_pieces, ch->n_pieces, sizeof *ch->pieces)) {
        ch->failed = true;
        return NULL;
    }
    last = &ch->pieces[ch->n_pieces++];
    *last = (struct call_piece){ .i_call = i_call, .begin = weir_buf_len(&ch->called) };
    return last;
}

static bool may_call_many(const struct call *call)
{
    return !call->msg->has_parallel_tool_calls_case || call->msg->parallel_tool_calls;
}

static void on_output(void *ctx, const struct weir_output_event *event)
{
    struct choice *ch = ctx;
    struct call_piece *piece;

    switch (event->kind) {
    case WEIR_OUTPUT_CONTENT:
        weir_buf_add(&ch->text, event->text.ptr, event->text.len);
        return;
    case WEIR_OUTPUT_REASONING:
        weir_buf_add(&ch->reasoning, event->text.ptr, event->text.len);
        return;
    case WEIR_OUTPUT_CALL:
    case WEIR_OUTPUT_ARGUMENTS:
        piece = ch->has_enough ? NULL : piece_of(ch, event->call);
        if (!piece)
            return;
        weir_buf_add(&ch->called, event->text.ptr, event->text.len);
        *(event->kind == WEIR_OUTPUT_CALL ? &piece->n_name : &piece->n_arguments) += event->text.len;
        ch->n_calls = event->call + 1;
        return;
    case WEIR_OUTPUT_CALL_END:
        ch->has_enough = ch->has_enough || !may_call_many(ch->call);
        return;
    }
}

static void take_text(struct choice *ch, struct weir_str text)
{
    if (ch->call->msg->raw_output)
        weir_buf_add(&ch->raw, text.ptr, text.len);
    if (!ch->parser)
        weir_buf_add(&ch->text, text.ptr, text.len);
    else if (weir_output_parser_push(ch->parser, text) != WEIR_OK)
        ch->failed = true;
}

/* True when a stop string was met. */
static bool push_text(struct weir_serve *serve, struct choice *ch, const struct weir_stop *stops,
                      struct weir_str text)
{
    if (!ch->parser && !ch->call->msg->raw_output) /* no detour */
        return weir_stop_push(stops, &ch->stop, text, &ch->text);
    weir_buf_clear(&serve->piece);
    bool met = weir_stop_push(stops, &ch->stop, text, &serve->piece);
    take_text(ch, (struct weir_str){ weir_buf_ptr(&serve->piece), weir_buf_len(&serve->piece) });
    return met;
}

/* A special token's text is for the parser alone. */
static struct weir_str text_bytes(struct weir_serve *serve, const struct call *call, int32_t id)
{
    struct weir_str bytes = weir_token_bytes(serve->opts.tokenizer, id, /* with_special= */ false);

    if (bytes.len > 0 || !call->parses)
        return bytes;
    struct weir_str special = weir_token_bytes(serve->opts.tokenizer, id, /* with_special= */ true);
    return special.len > 0 && weir_output_wants_special(&call->format, special) ? special : bytes;
}

/* ---- the end ---- */
static void finish_text(struct weir_serve *serve, struct choice *ch)
{
    struct weir_buf tail;

    weir_buf_init(&tail, 0);
    weir_detok_finish(&ch->detok, &tail); /* half a character and half a stop string come out now */
    bool met =
        push_text(serve, ch, ch->call->stops, (struct weir_str){ weir_buf_ptr(&tail), weir_buf_len(&tail) });
    weir_buf_clear(&tail);
    if (!met)
        weir_stop_finish(&ch->stop, &tail);
    take_text(ch, (struct weir_str){ weir_buf_ptr(&tail), weir_buf_len(&tail) });
    weir_buf_release(&tail);
}

static void end_choice(struct weir_serve *serve, struct choice *ch, Weir__V1__FinishReason reason)
{
    if (ch->parser && weir_output_parser_finish(ch->parser) != WEIR_OK)
        ch->failed = true;
    if (ch->failed)
        reason = WEIR__V1__FINISH_REASON__FINISH_ERROR;
    else if (ch->n_calls > 0 && reason == WEIR__V1__FINISH_REASON__FINISH_STOP)
        reason = WEIR__V1__FINISH_REASON__FINISH_TOOL_CALLS;
    ch->finished = true;
    ch->finish = reason;
    ch->dirty = true;
    ch->call->n_live--;
    step_mark(serve, ch->call);
}

void choice_finish(struct weir_serve *serve, struct choice *ch, Weir__V1__FinishReason reason)
{
    if (ch->finished)
        return;
    finish_text(serve, ch);
    end_choice(serve, ch, reason);
}

/* ---- what a step brought ---- */
void choice_token(struct weir_serve *serve, struct choice *ch, const struct weir_engine_event *ev)
{
    struct call *call = ch->call;

    if (ch->finished)
        return;
    ch->n_out++;
    ch->dirty = true;
    serve->rate.generated++;
    step_mark(serve, call);
    if (!grow(&ch->ids, &ch->cap_ids, ch->n_ids, sizeof *ch->ids)) {
        ch->failed = true;
    } else {
        ch->ids[ch->n_ids++] = (uint32_t)ev->id; /* [T2] */
        if (call->msg->logprobs)
            add_logprob(ch, make_logprob(serve, &serve->step_arena, ev, call->msg->top_logprobs));
        weir_buf_clear(&serve->scratch);
        weir_detok_push(&ch->detok, text_bytes(serve, call, ev->id), &serve->scratch);
    }
    struct weir_str text = { weir_buf_ptr(&serve->scratch), weir_buf_len(&serve->scratch) };
    /* No stop string ends an answer that is to be longer. */
    const struct weir_stop *stops = ch->n_out <= call->msg->min_tokens ? NULL : call->stops;
    bool met = !ch->failed && text.len > 0 && push_text(serve, ch, stops, text); /* [T1] */
    if (!met && !ch->failed && !ch->has_enough)
        return;
    weir_session_stop_choice(call->session, (uint32_t)(ch - call->choices));
    end_choice(serve, ch, WEIR__V1__FINISH_REASON__FINISH_STOP);
}

/* ---- the Delta ---- */
/* The same call, whichever replica makes it: from the call's id. Nine letters and digits where a template takes
 * nothing else. */
static void make_call_id(const struct choice *ch, uint32_t i_call, char ret[CALL_ID_SIZE])
{
    static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    const struct call *call = ch->call;
    bool is_short = call->format.tools == WEIR_TOOLS_MISTRAL;
    uint64_t place = (uint64_t)(ch - call->choices) << 32 | i_call;
    int n = is_short ? 9 : 24, at = 0;

    if (!is_short) {
        memcpy(ret, "call_", 5);
        at = 5;
    }
    for (uint64_t hash = 0, i = 0; i < (uint64_t)n; i++) {
        if (i % 8 == 0)
            hash = weir_hash64(call->call_id, sizeof call->call_id, weir_hash_mix(place, i));
        ret[at++] = digits[hash % 62];
        hash /= 62;
    }
    ret[at] = '\0';
}

static bool encode_calls(struct weir_serve *serve, struct choice *ch, Weir__Fabric__V1__Delta *delta)
{
    struct weir_arena *arena = &serve->step_arena;
    const uint8_t *bytes = (const uint8_t *)weir_buf_ptr(&ch->called);

    if (ch->n_pieces == 0)
        return true;
    delta->tool_calls = weir_arena_alloc(arena, ch->n_pieces * sizeof *delta->tool_calls);
    for (size_t i = 0; delta->tool_calls && i < ch->n_pieces; i++) {
        const struct call_piece *piece = &ch->pieces[i];
        Weir__Fabric__V1__ToolCallDelta *call = weir_arena_alloc(arena, sizeof *call);
        char *id = weir_arena_alloc(arena, CALL_ID_SIZE);
        if (!call || !id)
            return false;
        weir__fabric__v1__tool_call_delta__init(call);
        call->index = piece->i_call;
        if (piece->n_name > 0) {
            make_call_id(ch, piece->i_call, id);
            call->id = id;
        }
        uint8_t *at = (uint8_t *)(uintptr_t)bytes + piece->begin;
        call->name = (ProtobufCBinaryData){ piece->n_name, at };
        call->arguments = (ProtobufCBinaryData){ piece->n_arguments, at + piece->n_name };
        delta->tool_calls[delta->n_tool_calls++] = call;
    }
    return delta->tool_calls != NULL;
}

static ProtobufCBinaryData bytes_of(const struct weir_buf *buf)
{
    return (ProtobufCBinaryData){ weir_buf_len(buf), (uint8_t *)(uintptr_t)weir_buf_ptr(buf) };
}

/* Once a call: what was asked for of the prompt as the model saw it. */
static void encode_prompt(struct call *call, Weir__Fabric__V1__PromptInfo *prompt,
                          Weir__Fabric__V1__Delta *delta)
{
    if (call->told_prompt || (!call->msg->return_token_ids && !call->msg->raw_output))
        return;
    call->told_prompt = true;
    prompt->n_ids = call->prompt.n;
    prompt->ids = (uint32_t *)call->prompt.ids;
    if (call->msg->raw_output)
        prompt->text =
            (ProtobufCBinaryData){ call->prompt_text.len, (uint8_t *)(uintptr_t)call->prompt_text.ptr };
    delta->prompt = prompt;
}

void choice_encode(struct weir_serve *serve, struct choice *ch)
{
    Weir__Fabric__V1__Delta delta = WEIR__FABRIC__V1__DELTA__INIT;
    Weir__Fabric__V1__PromptInfo prompt = WEIR__FABRIC__V1__PROMPT_INFO__INIT;
    struct call *call = ch->call;

    delta.tag = call->tag;
    delta.choice = (uint32_t)(ch - call->choices);
    delta.text = bytes_of(&ch->text);
    delta.reasoning = bytes_of(&ch->reasoning);
    delta.raw = bytes_of(&ch->raw);
    delta.n_ids = ch->n_ids;
    delta.ids = ch->ids;
    delta.n_logprobs = ch->n_logprobs;
    delta.logprobs = ch->logprobs;
    delta.finish = ch->finished ? ch->finish : WEIR__V1__FINISH_REASON__FINISH_NONE;
    if (delta.choice == 0)
        encode_prompt(call, &prompt, &delta);
    bool whole = encode_calls(serve, ch, &delta) && !ch->text.failed && !ch->reasoning.failed &&
                 !ch->raw.failed && !ch->called.failed;
    if (!whole && ch->finished)
        delta.finish = WEIR__V1__FINISH_REASON__FINISH_ERROR;
    ch->failed = ch->failed || !whole;
    weir_buf_clear(&serve->scratch);
    frame_add(&serve->scratch, 4, &delta.base);
    attach_append(call->att,
                  (struct weir_str){ weir_buf_ptr(&serve->scratch), weir_buf_len(&serve->scratch) });
    weir_buf_clear(&ch->text);
    weir_buf_clear(&ch->reasoning);
    weir_buf_clear(&ch->raw);
    weir_buf_clear(&ch->called);
    ch->n_ids = ch->n_logprobs = ch->n_pieces = 0;
    ch->dirty = false;
}
