/* prompt.c - a request's input becomes the prompt's tokens: template, truncation, tokenizer. On a text worker.
 *
 *   [P1] What the template sees of the messages is JSON of them all, tools included, in the shape that template
 * makers expect (arguments of calls as objects). [P2] Truncation drops whole turns from the front, never a system
 * message, and never the last turn. [P3] With safe_tokenization no text of the client's becomes a special token.
 *
 * Everything it makes lives in the call's arena. The router has checked the request; what it can't check is
 * checked here: whether the template takes the messages, and whether the prompt fits the context. */
#include <string.h>

#include "base/json.h"
#include "replica/serve/serve_int.h"

/* Tokens are counted so far past the context, for the error's text; then it just says "more than". */
#define COUNT_FACTOR 4

struct prompt {
    struct weir_serve *serve;
    struct call *call;
    struct weir_buf text; /* rendered */
    struct weir_span *spans;
    size_t n_spans;
};

static bool given(const char *text)
{
    return text && text[0];
}

/* ---- what the template sees [P1] ---- */
/* A model's own arguments may be anything: what is no JSON object goes as a string. */
static void write_arguments(struct weir_jw *w, const char *text)
{
    struct weir_arena arena;
    struct weir_json j;
    struct weir_why ignored;
    size_t len = strlen(text);

    weir_arena_init(&arena, 0);
    weir_json_init(&j, text, len, &arena);
    bool is_object = weir_json_peek(&j) == WEIR_JSON_OBJECT && weir_json_skip(&j);
    is_object = weir_json_end(&j, &ignored) == WEIR_OK && is_object;
    weir_arena_release(&arena);
    if (is_object)
        weir_jw_raw(w, (struct weir_str){ text, len });
    else
        weir_jw_cstr(w, text);
}

static void write_calls(struct weir_jw *w, const Weir__V1__Message *message)
{
    weir_jw_key(w, "tool_calls");
    weir_jw_array(w);
    for (size_t i = 0; i < message->n_tool_calls; i++) {
        const Weir__V1__ToolCall *call = message->tool_calls[i];
        weir_jw_object(w);
        weir_jw_key(w, "id");
        weir_jw_cstr(w, call->id);
        weir_jw_key(w, "type");
        weir_jw_cstr(w, "function");
        weir_jw_key(w, "function");
        weir_jw_object(w);
        weir_jw_key(w, "name");
        weir_jw_cstr(w, call->name);
        weir_jw_key(w, "arguments");
        write_arguments(w, given(call->arguments) ? call->arguments : "{}");
        weir_jw_object_end(w);
        weir_jw_object_end(w);
    }
    weir_jw_array_end(w);
}

static void write_text(struct weir_jw *w, const char *key, const char *text)
{
    if (!given(text))
        return;
    weir_jw_key(w, key);
    weir_jw_cstr(w, text);
}

static void write_message(struct weir_jw *w, const Weir__V1__Message *message, bool with_reasoning)
{
    weir_jw_object(w);
    weir_jw_key(w, "role");
    weir_jw_cstr(w, message->role);
    weir_jw_key(w, "content");
    if (message->n_tool_calls > 0 && !given(message->content))
        weir_jw_null(w);
    else
        weir_jw_cstr(w, message->content);
    if (with_reasoning)
        write_text(w, "reasoning_content", message->reasoning_content);
    write_text(w, "name", message->name);
    write_text(w, "tool_call_id", message->tool_call_id);
    if (message->n_tool_calls > 0)
        write_calls(w, message);
    weir_jw_object_end(w);
}

/* reasoning_history: none of it, that of the turn under way (its tool calls are part of it), or all. */
static size_t reasoning_from(const Weir__V1__GenerateRequest *msg)
{
    const Weir__V1__Chat *chat = msg->chat;
    size_t from = 0;

    if (!given(msg->reasoning_history) || strcmp(msg->reasoning_history, "preserved") == 0)
        return 0;
    if (strcmp(msg->reasoning_history, "disabled") == 0)
        return chat->n_messages;
    for (size_t i = 0; i < chat->n_messages; i++)
        if (strcmp(chat->messages[i]->role, "user") == 0)
            from = i;
    return from;
}

static void write_tools(struct weir_jw *w, const Weir__V1__GenerateRequest *msg)
{
    weir_jw_key(w, "tools");
    weir_jw_array(w);
    for (size_t i = 0; i < msg->n_tools; i++) {
        const Weir__V1__Tool *tool = msg->tools[i];
        weir_jw_object(w);
        weir_jw_key(w, "type");
        weir_jw_cstr(w, "function");
        weir_jw_key(w, "function");
        weir_jw_object(w);
        weir_jw_key(w, "name");
        weir_jw_cstr(w, tool->name);
        weir_jw_key(w, "description");
        weir_jw_cstr(w, tool->description ? tool->description : "");
        weir_jw_key(w, "parameters");
        weir_jw_raw(w, given(tool->parameters) ? weir_str(tool->parameters)
                                               : WEIR_STR("{\"type\":\"object\",\"properties\":{}}"));
        weir_jw_object_end(w);
        weir_jw_object_end(w);
    }
    weir_jw_array_end(w);
}

static void write_variables(struct weir_buf *out, const Weir__V1__GenerateRequest *msg, size_t first)
{
    const Weir__V1__Chat *chat = msg->chat;
    size_t from = reasoning_from(msg);
    struct weir_jw w;

    weir_jw_init(&w, out);
    weir_jw_object(&w);
    weir_jw_key(&w, "messages");
    weir_jw_array(&w);
    for (size_t i = 0; i < chat->n_messages; i++)
        if (i >= first || strcmp(chat->messages[i]->role, "system") == 0)
            write_message(&w, chat->messages[i], i >= from);
    weir_jw_array_end(&w);
    if (msg->n_tools > 0 && msg->tool_choice != WEIR__V1__TOOL_CHOICE_KIND__TOOL_CHOICE_NONE)
        write_tools(&w, msg);
    if (given(msg->reasoning_effort) || msg->has_reasoning_tokens_case) {
        bool on = msg->has_reasoning_tokens_case || strcmp(msg->reasoning_effort, "none") != 0;
        weir_jw_key(&w, "enable_thinking"); /* the names that template makers use */
        weir_jw_bool(&w, on);
        weir_jw_key(&w, "thinking");
        weir_jw_bool(&w, on);
        if (on)
            write_text(&w, "reasoning_effort", msg->reasoning_effort);
    }
    weir_jw_object_end(&w);
}

static weir_err no_memory(struct call *call)
{
    return weir_fail(&call->why, WEIR_NOMEM, "no memory for the prompt");
}

/* Messages before `first` are left out, but for the system's. */
static weir_err render(struct prompt *p, size_t first)
{
    const struct weir_serve_opts *opts = &p->serve->opts;
    struct call *call = p->call;
    struct weir_buf variables;
    weir_err err;

    weir_buf_clear(&p->text);
    weir_buf_init(&variables, 4 * (size_t)opts->request_bytes_max);
    write_variables(&variables, call->msg, first);
    struct weir_template_args args = {
        .add_generation_prompt = true,
        .bos = weir_tokenizer_bos(opts->tokenizer),
        .eos = weir_tokenizer_eos(opts->tokenizer),
        .now_unix = call->now_unix,
        .variables = { weir_buf_ptr(&variables), weir_buf_len(&variables) },
    };
    if (variables.failed)
        err = no_memory(call);
    else if (call->msg->safe_tokenization)
        err = weir_template_render_spans(opts->chat_template, &args, &p->text, &call->arena, &p->spans,
                                         &p->n_spans, &call->why);
    else
        err = weir_template_render(opts->chat_template, &args, &p->text, &call->why);
    weir_buf_release(&variables);
    if (err == WEIR_INVALID && !call->why.param[0])
        memcpy(call->why.param, "messages", sizeof "messages");
    return err;
}

/* ---- tokens ---- */
static weir_err tokenize_text(struct prompt *p, struct weir_str text, bool add_bos)
{
    struct call *call = p->call;
    size_t n_max = (size_t)p->serve->info->n_context * COUNT_FACTOR;

    if (p->n_spans > 0) /* [P3] */
        return weir_tokenizer_encode_spans(p->serve->opts.tokenizer, text, p->spans, p->n_spans, add_bos,
                                           n_max, &call->arena, &call->prompt, &call->why);
    return weir_tokenize(p->serve->opts.tokenizer, text, /* parse_special= */ true, add_bos, n_max,
                         &call->arena, &call->prompt, &call->why);
}

static weir_err render_and_tokenize(struct prompt *p, size_t first)
{
    weir_err err = render(p, first);
    struct weir_str text = { weir_buf_ptr(&p->text), weir_buf_len(&p->text) };

    return err == WEIR_OK ? tokenize_text(p, text, /* add_bos= */ false) : err;
}

/* WEIR_TOOLARGE counts as too long, not as a failure. */
static weir_err fits(struct prompt *p, size_t first, size_t n_max, bool *ret)
{
    weir_err err = render_and_tokenize(p, first);

    if (err != WEIR_OK && err != WEIR_TOOLARGE)
        return err;
    *ret = err == WEIR_OK && p->call->prompt.n <= n_max;
    return WEIR_OK;
}

/* The turns' starts: where what is kept may begin. [P2] */
static size_t find_turns(const Weir__V1__Chat *chat, size_t *turns)
{
    size_t n = 0;

    for (size_t i = 0; i < chat->n_messages; i++)
        if (strcmp(chat->messages[i]->role, "user") == 0)
            turns[n++] = i;
    return n;
}

/* The fewest turns are dropped; by halving, so that a long conversation is not rendered once for each. */
static weir_err truncate_chat(struct prompt *p)
{
    struct call *call = p->call;
    const Weir__V1__Chat *chat = call->msg->chat;
    size_t *turns = weir_arena_alloc(&call->arena, (chat->n_messages + 1) * sizeof *turns);
    size_t n_max = call->msg->prompt_truncate_len;
    bool enough = false;

    if (!turns)
        return no_memory(call);
    weir_err err = fits(p, 0, n_max, &enough);
    size_t n = find_turns(chat, turns);
    size_t low = 1, high = n > 1 ? n - 1 : 0; /* turn 0 would drop nothing */
    if (err != WEIR_OK || enough || high == 0)
        return err == WEIR_OK ? render_and_tokenize(p, 0) : err;
    while (low < high && err == WEIR_OK) {
        size_t mid = low + (high - low) / 2;
        err = fits(p, turns[mid], n_max, &enough);
        if (enough)
            high = mid;
        else
            low = mid + 1;
    }
    return err == WEIR_OK ? render_and_tokenize(p, turns[high]) : err;
}

static weir_err make_chat(struct prompt *p)
{
    const Weir__V1__GenerateRequest *msg = p->call->msg;

    if (!p->serve->opts.chat_template)
        return weir_fail_param(&p->call->why, "messages", WEIR_INVALID,
                               "the model has no chat template: use completions with a prompt");
    if (msg->has_prompt_truncate_len_case && !msg->safe_tokenization)
        return truncate_chat(p);
    return render_and_tokenize(p, 0);
}

static weir_err copy_ids(struct prompt *p)
{
    const Weir__V1__TokenIds *ids = p->call->msg->prompt_ids;
    struct call *call = p->call;

    call->prompt.ids = weir_arena_alloc(&call->arena, (ids->n_ids + 1) * sizeof *call->prompt.ids);
    if (!call->prompt.ids)
        return no_memory(call);
    for (size_t i = 0; i < ids->n_ids; i++) {
        if (ids->ids[i] >= p->serve->info->n_vocab)
            return weir_fail_param(&call->why, "prompt", WEIR_INVALID,
                                   "prompt: %u is not a token of this model, whose vocabulary has %u",
                                   ids->ids[i], p->serve->info->n_vocab);
        call->prompt.ids[i] = (int32_t)ids->ids[i];
    }
    call->prompt.n = ids->n_ids;
    return WEIR_OK;
}

/* A plain prompt keeps its end. */
static void truncate_plain(struct call *call)
{
    size_t n_max = call->msg->prompt_truncate_len;

    if (!call->msg->has_prompt_truncate_len_case || call->prompt.n <= n_max)
        return;
    call->prompt.ids += call->prompt.n - n_max;
    call->prompt.n = n_max;
    call->is_cut = true;
}

static weir_err make_plain(struct prompt *p)
{
    const Weir__V1__GenerateRequest *msg = p->call->msg;
    weir_err err = msg->input_case == WEIR__V1__GENERATE_REQUEST__INPUT_PROMPT_IDS
                       ? copy_ids(p)
                       : tokenize_text(p, weir_str(msg->prompt), /* add_bos= */ true);

    if (err == WEIR_OK)
        truncate_plain(p->call);
    return err;
}

/* ---- does it fit? ---- */
static weir_err check_length(struct prompt *p, const char *param)
{
    const struct call *call = p->call;
    const Weir__V1__GenerateRequest *msg = call->msg;
    struct weir_why *why = &p->call->why;
    uint32_t n_context = p->serve->info->n_context;

    if (call->prompt.n == 0)
        return weir_fail_param(why, param, WEIR_INVALID, "the prompt has no tokens");
    if (call->prompt.n >= n_context)
        return weir_fail_param(why, param, WEIR_CONTEXT,
                               "the prompt has %zu tokens; the model's context is %u, output included",
                               call->prompt.n, n_context);
    if (msg->context_exceeded == WEIR__V1__CONTEXT_EXCEEDED__CONTEXT_ERROR && msg->has_max_tokens_case &&
        msg->max_tokens > n_context - call->prompt.n)
        return weir_fail_param(why, "max_tokens", WEIR_CONTEXT,
                               "the prompt has %zu tokens and max_tokens is %u; the model's context is %u",
                               call->prompt.n, msg->max_tokens, n_context);
    return WEIR_OK;
}

/* The rendered text lives on only where somebody asked for it. */
static weir_err keep_text(struct prompt *p)
{
    struct call *call = p->call;
    const Weir__V1__GenerateRequest *msg = call->msg;
    size_t len = weir_buf_len(&p->text);

    if (msg->input_case == WEIR__V1__GENERATE_REQUEST__INPUT_PROMPT)
        call->prompt_text = weir_str(msg->prompt);
    if (msg->input_case != WEIR__V1__GENERATE_REQUEST__INPUT_CHAT || (!msg->raw_output && !msg->echo))
        return WEIR_OK;
    char *copy = weir_arena_strndup(&call->arena, weir_buf_ptr(&p->text), len);
    call->prompt_text = (struct weir_str){ copy, len };
    return copy ? WEIR_OK : no_memory(call);
}

weir_err prompt_make(struct weir_serve *serve, struct call *call)
{
    struct prompt p = { .serve = serve, .call = call };
    bool is_chat = call->msg->input_case == WEIR__V1__GENERATE_REQUEST__INPUT_CHAT;
    const char *param = is_chat ? "messages" : "prompt";
    weir_err err;

    weir_buf_init(&p.text, 4 * (size_t)serve->opts.request_bytes_max);
    err = is_chat ? make_chat(&p) : make_plain(&p);
    if (err == WEIR_TOOLARGE)
        err =
            weir_fail_param(&call->why, param, WEIR_CONTEXT,
                            "the prompt has more than %u tokens; the model's context is %u, output included",
                            serve->info->n_context * COUNT_FACTOR, serve->info->n_context);
    if (err == WEIR_OK && is_chat)
        err = format_choose(serve, call, (struct weir_str){ weir_buf_ptr(&p.text), weir_buf_len(&p.text) });
    if (err == WEIR_OK && !is_chat)
        err = format_choose_plain(serve, call);
    if (err == WEIR_OK && call->prefill.len > 0) {
        /* The answer's forced beginning is part of the prompt. */
        weir_buf_add(&p.text, call->prefill.ptr, call->prefill.len);
        err = tokenize_text(&p, (struct weir_str){ weir_buf_ptr(&p.text), weir_buf_len(&p.text) }, false);
    }
    if (err == WEIR_OK)
        err = check_length(&p, param);
    if (err == WEIR_OK)
        err = keep_text(&p);
    weir_buf_release(&p.text);
    return err;
}
