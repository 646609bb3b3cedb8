/* answer.c - the REST sink of calls: their life as one answer, a body at the end or a stream.
 *
 *   [W1] Nothing is written before the first token, so that a failure until then is an HTTP status; after it, an
 * event. [W2] Several prompts are several calls and one answer: its choices are those of the first prompt, then of
 * the second; usage is their sum; one that fails fails all, and the others are cancelled.
 *
 * Threads: the connection's loop. Memory: the answer, and for whole bodies the text, bounded by max_tokens.
 */
#include "router/gateway/answer.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/mem.h"
#include "router/call/callset.h"
#include "router/gateway/answer_int.h"

static void choice_release(struct choice *ch)
{
    weir_buf_release(&ch->text);
    weir_buf_release(&ch->reasoning);
    weir_buf_release(&ch->raw);
    weir_buf_release(&ch->logprobs);
    weir_buf_release(&ch->ids);
    for (int k = 0; k < 4; k++)
        weir_buf_release(&ch->legacy[k]);
    for (size_t i = 0; i < ch->n_calls; i++) {
        weir_free(ch->calls[i].id);
        weir_buf_release(&ch->calls[i].name);
        weir_buf_release(&ch->calls[i].arguments);
    }
    weir_free(ch->calls);
}

static void answer_close(struct answer *a)
{
    if (!a)
        return;
    for (uint32_t i = 0; a->choices && i < a->n_choices; i++)
        choice_release(&a->choices[i]);
    for (uint32_t i = 0; a->parts && i < a->n_parts; i++) {
        weir_buf_release(&a->parts[i].prompt_ids);
        weir_buf_release(&a->parts[i].prompt_text);
    }
    weir_free(a->choices);
    weir_free(a->parts);
    weir_buf_release(&a->head);
    weir_free(a->model);
    weir_free(a->grammar);
    weir_free(a);
}

/* http is answered: no call of ours goes on, and nothing is said any more. */
static void answer_over(struct answer *a)
{
    a->over = true;
    for (uint32_t i = 0; i < a->n_parts; i++) {
        struct weir_call *call = a->parts[i].call;
        a->parts[i].call = NULL;
        if (call)
            weir_call_cancel(call);
    }
    if (!a->starting)
        answer_close(a);
}

void answer_add_headers(const struct answer *a, struct weir_http_fields *fields)
{
    char name[64];

    weir_http_fields_adds(fields, "x-request-id", a->request_id);
    weir_http_fields_adds(fields, "x-weir-replica", a->replica);
    weir_limit_headers_add(fields, &a->limits, a->env->limit_unit);
    snprintf(name, sizeof name, "%sprompt-tokens", a->env->perf_prefix);
    weir_http_fields_addu(fields, name, a->started.prompt_tokens);
    snprintf(name, sizeof name, "%scached-prompt-tokens", a->env->perf_prefix);
    weir_http_fields_addu(fields, name, a->started.cached_tokens);
    snprintf(name, sizeof name, "%sserver-time-to-first-token", a->env->perf_prefix);
    weir_http_fields_addf(fields, name, "%.6f", answer_seconds(a->started.first_token_ns - a->arrived_ns));
}

/* ---- one body ---- */
static void respond_whole(struct answer *a)
{
    struct weir_http_fields fields;
    struct weir_buf body;
    struct weir_jw w;
    char name[64];

    a->started.prompt_tokens = a->done.prompt_tokens; /* of all prompts */
    a->started.cached_tokens = a->done.cached_tokens;
    weir_buf_init(&body, 0);
    weir_jw_init(&w, &body);
    weir_jw_object(&w);
    answer_write_head(&w, a, a->opts.chat ? "chat.completion" : "text_completion");
    weir_jw_key(&w, "choices");
    weir_jw_array(&w);
    for (uint32_t i = 0; i < a->n_choices; i++)
        answer_write_choice(&w, a, i);
    weir_jw_array_end(&w);
    if (a->ids && a->opts.chat) {
        weir_jw_key(&w, "prompt_token_ids");
        weir_jw_array(&w);
        weir_buf_add(&body, weir_buf_ptr(&a->parts[0].prompt_ids), weir_buf_len(&a->parts[0].prompt_ids));
        weir_jw_array_end(&w);
    }
    answer_write_usage(&w, &a->done);
    if (a->perf)
        answer_write_perf(&w, a);
    weir_jw_object_end(&w);
    weir_http_fields_init(&fields);
    weir_http_fields_adds(&fields, "content-type", "application/json");
    answer_add_headers(a, &fields);
    snprintf(name, sizeof name, "%sserver-processing-time", a->env->perf_prefix);
    weir_http_fields_addf(&fields, name, "%.6f", answer_seconds(weir_now_ns() - a->arrived_ns));
    if (body.failed)
        weir_answer_error(a->http, WEIR_NOMEM, NULL, a->request_id, 0);
    else
        weir_http_respond(a->http, 200, &fields, weir_buf_ptr(&body), weir_buf_len(&body));
    weir_buf_release(&body);
}

/* ---- gathering ---- */
static void add_ids(struct weir_buf *to, const uint32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        answer_add_comma(to);
        weir_buf_addu(to, ids[i]);
    }
}

/* A buffer that lacks memory marks the text's, which fails the whole answer. */
static void gather_call(struct choice *ch, const Weir__Fabric__V1__ToolCallDelta *delta)
{
    if (delta->index == ch->n_calls) {
        struct called *grown = weir_realloc(ch->calls, (ch->n_calls + 1) * sizeof *grown);
        if (!grown) {
            ch->text.failed = true;
            return;
        }
        ch->calls = grown;
        memset(&grown[ch->n_calls], 0, sizeof *grown);
        grown[ch->n_calls].id = weir_strdup(delta->id);
        weir_buf_init(&grown[ch->n_calls].name, 0);
        weir_buf_init(&grown[ch->n_calls].arguments, 0);
        ch->n_calls++;
    }
    if (delta->index >= ch->n_calls)
        return; /* a replica's mistake */
    struct called *called = &ch->calls[delta->index];
    weir_buf_add(&called->name, delta->name.data, delta->name.len);
    weir_buf_add(&called->arguments, delta->arguments.data, delta->arguments.len);
    ch->text.failed = ch->text.failed || !called->id || called->name.failed || called->arguments.failed;
}

static void gather(struct answer *a, struct part *part, struct choice *ch,
                   const Weir__Fabric__V1__Delta *delta)
{
    if (a->raw || (a->ids && !a->opts.stream)) {
        weir_buf_add(&ch->raw, delta->raw.data, delta->raw.len);
        add_ids(&ch->ids, delta->ids, delta->n_ids);
        if (delta->prompt) {
            add_ids(&part->prompt_ids, delta->prompt->ids, delta->prompt->n_ids);
            weir_buf_add(&part->prompt_text, delta->prompt->text.data, delta->prompt->text.len);
        }
    }
    if (a->opts.stream)
        return;
    weir_buf_add(&ch->text, delta->text.data, delta->text.len);
    weir_buf_add(&ch->reasoning, delta->reasoning.data, delta->reasoning.len);
    for (size_t i = 0; i < delta->n_tool_calls; i++)
        gather_call(ch, delta->tool_calls[i]);
    ch->text.failed = ch->text.failed || ch->reasoning.failed || ch->raw.failed || ch->ids.failed;
}

/* ---- the sink ---- */
static void on_started(void *ctx, const struct weir_call_started *started)
{
    struct part *part = ctx;
    struct answer *a = part->answer;

    if (!a->has_started) {
        a->has_started = true;
        a->started = *started;
        snprintf(a->replica, sizeof a->replica, "%.*s", WEIR_STR_FMT(started->replica));
    }
    if (a->opts.stream && !a->begun)
        answer_begin_stream(a); /* [W1]: started comes with the first delta */
}

static bool on_delta(void *ctx, const Weir__Fabric__V1__Delta *delta)
{
    struct part *part = ctx;
    struct answer *a = part->answer;
    uint32_t i = part->base + delta->choice;

    if (delta->choice >= a->n_per_part || a->choices[i].finish != WEIR__V1__FINISH_REASON__FINISH_NONE)
        return true; /* a replica's mistake; the machine counts tokens, we keep our shape */
    struct choice *ch = &a->choices[i];
    answer_add_logprobs(a, ch, delta);
    gather(a, part, ch, delta);
    if (delta->finish != WEIR__V1__FINISH_REASON__FINISH_NONE) {
        ch->finish = delta->finish;
        a->n_live--;
        a->last_choice = i;
    }
    if (!a->opts.stream || answer_stream_delta(a, i, delta))
        return true;
    part->call = NULL; /* it is cancelled and says nothing more */
    answer_over(a);
    return false;
}

static uint64_t longer(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static void add_done(struct weir_call_done *sum, const struct weir_call_done *done)
{
    sum->prompt_tokens += done->prompt_tokens;
    sum->cached_tokens += done->cached_tokens;
    sum->completion_tokens += done->completion_tokens;
    sum->queue_ns = longer(sum->queue_ns, done->queue_ns);
    sum->prefill_ns = longer(sum->prefill_ns, done->prefill_ns);
    sum->generation_ns = longer(sum->generation_ns, done->generation_ns);
}

static void on_done(void *ctx, const struct weir_call_done *done)
{
    struct part *part = ctx;
    struct answer *a = part->answer;
    bool failed = false;

    part->call = NULL;
    add_done(&a->done, done);
    if (--a->n_parts_live > 0)
        return;
    for (uint32_t i = 0; i < a->n_choices; i++)
        failed = failed || a->choices[i].text.failed;
    if (a->opts.stream)
        answer_end_stream(a);
    else if (failed)
        weir_answer_error(a->http, WEIR_NOMEM, NULL, a->request_id, 0);
    else
        respond_whole(a);
    answer_over(a);
}

static void answer_fail(struct answer *a, weir_err err, const struct weir_why *why, uint32_t retry_after_ms)
{
    if (a->over)
        return;
    if (a->begun)
        answer_fail_stream(a, err, why);
    else
        answer_error(a->http, err, why, a->request_id, retry_after_ms, a);
    answer_over(a); /* [W2] */
}

static void on_failed(void *ctx, weir_err err, const struct weir_why *why, uint32_t retry_after_ms)
{
    struct part *part = ctx;

    part->call = NULL;
    answer_fail(part->answer, err, why, retry_after_ms);
}

static const struct weir_call_sink sink = { on_started, on_delta, on_done, on_failed };

static void on_gone(struct weir_http_req *http)
{
    answer_over(http->user);
}

static bool copy_grammar(struct answer *a, const Weir__V1__ResponseFormat *format)
{
    if (!a->raw || !format || format->kind != WEIR__V1__RESPONSE_FORMAT_KIND__RESPONSE_GRAMMAR)
        return true;
    a->grammar = weir_strdup(format->text);
    return a->grammar != NULL;
}

static struct answer *answer_new(struct weir_request *req, const struct weir_answer_opts *opts)
{
    struct answer *a = weir_alloc0(sizeof *a);
    char hex[33];

    if (!a)
        return NULL;
    a->opts = *opts;
    a->perf = req->msg->perf_metrics;
    a->raw = req->msg->raw_output;
    a->ids = req->msg->return_token_ids;
    a->n_parts = a->n_parts_live = opts->n_prompts > 1 ? opts->n_prompts : 1;
    a->n_per_part = req->msg->n ? req->msg->n : 1;
    a->n_choices = a->n_live = a->n_parts * a->n_per_part;
    a->arrived_ns = req->arrived_ns;
    a->created_s = req->created_s;
    a->choices = weir_calloc(a->n_choices, sizeof *a->choices);
    a->parts = weir_calloc(a->n_parts, sizeof *a->parts);
    a->model = weir_strdup(req->msg->model);
    memcpy(a->request_id, req->request_id, sizeof a->request_id);
    weir_hex(req->call_id, sizeof req->call_id, hex);
    snprintf(a->id, sizeof a->id, "%s-%s", opts->chat ? "chatcmpl" : "cmpl", hex);
    if (!a->choices || !a->parts || !a->model || !copy_grammar(a, req->msg->response_format)) {
        answer_close(a);
        return NULL;
    }
    for (uint32_t i = 0; i < a->n_parts; i++) {
        a->parts[i].answer = a;
        a->parts[i].base = i * a->n_per_part;
    }
    return a;
}

/* ---- starting ---- */
static void start_part(struct answer *a, uint32_t i, struct weir_request *req)
{
    struct weir_call *call = NULL;

    req->note = &a->limits;
    weir_call_start(a->env->set, req, &sink, &a->parts[i], &call);
    if (!a->over)
        a->parts[i].call = call;
    else if (call) /* another part failed while this one started */
        weir_call_cancel(call);
}

/* [W2] */
static void start_fork(struct answer *a, uint32_t i, struct weir_request *req)
{
    const struct weir_prompt *prompt = &a->opts.prompts[i];
    struct weir_request *fork = weir_request_fork(req);
    struct weir_why why = { 0 };
    char param[32];

    if (!fork) {
        answer_fail(a, WEIR_NOMEM, NULL, 0);
        return;
    }
    fork->msg->input_case =
        prompt->ids ? WEIR__V1__GENERATE_REQUEST__INPUT_PROMPT_IDS : WEIR__V1__GENERATE_REQUEST__INPUT_PROMPT;
    if (prompt->ids)
        fork->msg->prompt_ids = prompt->ids;
    else
        fork->msg->prompt = prompt->text;
    weir_callset_mint(a->env->set, fork);
    weir_err err = weir_request_check(fork, &why);
    if (err != WEIR_OK) {
        snprintf(param, sizeof param, "prompt[%u]", i);
        memcpy(why.param, param, sizeof param);
        weir_request_close(fork);
        answer_fail(a, err, &why, 0);
        return;
    }
    start_part(a, i, fork);
}

void weir_answer_start(struct weir_answer_env *env, struct weir_request *req,
                       const struct weir_answer_opts *opts, struct weir_http_req *http)
{
    struct answer *a = answer_new(req, opts);

    if (!a) {
        weir_answer_error(http, WEIR_NOMEM, NULL, req->request_id, 0);
        weir_request_close(req);
        return;
    }
    a->http = http;
    a->env = env;
    http->user = a;
    http->on_gone = on_gone;
    a->starting = true;
    if (a->n_parts == 1) {
        start_part(a, 0, req);
    } else {
        for (uint32_t i = 0; i < a->n_parts && !a->over; i++)
            start_fork(a, i, req);
        weir_request_close(req);
    }
    a->starting = false;
    if (a->over) /* refused: http has its answer */
        answer_close(a);
}
