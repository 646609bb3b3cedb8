/* answer.c - the REST sink of a call.
 *
 *   [W1] Nothing is written before the first token, so that a failure until then is an HTTP status; after it,
 * an event. [W2] The chunk with the last finish_reason carries usage, so it waits for the call's end, which
 * comes in the same frame. [W3] Text of one choice comes in order; choices of n > 1 interleave.
 *
 * Cost of a streamed delta: one JSON escape of the text into a buffer that the loop keeps, one copy into the
 * connection's output; the parts of a chunk that never change are built once, at the start.
 * Threads: the connection's loop. Memory: the answer, and for whole bodies the text, bounded by max_tokens.
 */
#include "router/gateway/answer.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/mem.h"

struct choice {
    struct weir_buf text;
    struct weir_buf logprobs; /* elements of the array, comma-separated */
    struct weir_buf
        legacy[3]; /* token_logprobs, top_logprobs, text_offset: the older shape is arrays side by side */
    size_t n_logprobs, offset; /* bytes of tokens so far, for text_offset */
    Weir__V1__FinishReason finish;
    bool opened; /* streaming: the role has been said */
};

struct answer {
    struct weir_http_req *http;
    struct weir_call *call;
    struct weir_answer_opts opts;
    struct weir_answer_env *env;
    bool begun, perf;
    uint32_t n_choices, n_live;
    uint32_t last_choice; /* whose finish waits for the usage */
    struct choice *choices;
    struct weir_buf head; /* {"id":...,"choices":[{"index": - the part of every chunk that never changes */
    struct weir_call_started started;
    char replica[128];
    char request_id[WEIR_REQUEST_ID_MAX + 1];
    char id[48];
    char *model;
    uint64_t arrived_ns, created_s;
};

static void answer_close(struct answer *a)
{
    if (!a)
        return;
    for (uint32_t i = 0; a->choices && i < a->n_choices; i++) {
        weir_buf_release(&a->choices[i].text);
        weir_buf_release(&a->choices[i].logprobs);
        for (int k = 0; k < 3; k++)
            weir_buf_release(&a->choices[i].legacy[k]);
    }
    weir_free(a->choices);
    weir_buf_release(&a->head);
    weir_free(a->model);
    weir_free(a);
}

/* ---- errors ---- */
void weir_answer_error_body(struct weir_buf *out, weir_err err, const struct weir_why *why,
                            const char *request_id)
{
    const struct weir_err_info *info = weir_err_info(err);
    struct weir_jw w;

    weir_jw_init(&w, out);
    weir_jw_object(&w);
    weir_jw_key(&w, "error");
    weir_jw_object(&w);
    weir_jw_key(&w, "message");
    weir_jw_cstr(&w, why && why->text[0] ? why->text : info->text);
    weir_jw_key(&w, "type");
    weir_jw_cstr(&w, info->type);
    weir_jw_key(&w, "param");
    if (why && why->param[0])
        weir_jw_cstr(&w, why->param);
    else
        weir_jw_null(&w);
    weir_jw_key(&w, "code");
    weir_jw_cstr(&w, info->code);
    weir_jw_object_end(&w);
    if (request_id && request_id[0]) {
        weir_jw_key(&w, "request_id");
        weir_jw_cstr(&w, request_id);
    }
    weir_jw_object_end(&w);
}

void weir_answer_error(struct weir_http_req *http, weir_err err, const struct weir_why *why,
                       const char *request_id, uint32_t retry_after_ms)
{
    struct weir_http_fields fields;
    struct weir_buf body;

    weir_buf_init(&body, 0);
    weir_answer_error_body(&body, err, why, request_id);
    weir_http_fields_init(&fields);
    weir_http_fields_adds(&fields, "content-type", "application/json");
    if (request_id && request_id[0])
        weir_http_fields_adds(&fields, "x-request-id", request_id);
    if (retry_after_ms) {
        weir_http_fields_addu(&fields, "retry-after", (retry_after_ms + 999) / 1000);
        weir_http_fields_addu(&fields, "retry-after-ms", retry_after_ms);
    }
    if (err == WEIR_UNAUTHENTICATED)
        weir_http_fields_adds(&fields, "www-authenticate", "Bearer");
    weir_http_respond(http, weir_err_info(err)->http, &fields, weir_buf_ptr(&body), weir_buf_len(&body));
    weir_buf_release(&body);
}

/* ---- parts of a body ---- */
static const char *finish_name(Weir__V1__FinishReason finish)
{
    switch (finish) {
    case WEIR__V1__FINISH_REASON__FINISH_STOP:
        return "stop";
    case WEIR__V1__FINISH_REASON__FINISH_LENGTH:
        return "length";
    default:
        return "error";
    }
}

static void write_finish(struct weir_jw *w, Weir__V1__FinishReason finish)
{
    weir_jw_key(w, "finish_reason");
    if (finish == WEIR__V1__FINISH_REASON__FINISH_NONE)
        weir_jw_null(w);
    else
        weir_jw_cstr(w, finish_name(finish));
}

static void write_usage(struct weir_jw *w, const struct weir_call_done *done)
{
    weir_jw_key(w, "usage");
    weir_jw_object(w);
    weir_jw_key(w, "prompt_tokens");
    weir_jw_u64(w, done->prompt_tokens);
    weir_jw_key(w, "total_tokens");
    weir_jw_u64(w, (uint64_t)done->prompt_tokens + done->completion_tokens);
    weir_jw_key(w, "completion_tokens");
    weir_jw_u64(w, done->completion_tokens);
    weir_jw_key(w, "prompt_tokens_details");
    weir_jw_object(w);
    weir_jw_key(w, "cached_tokens");
    weir_jw_u64(w, done->cached_tokens);
    weir_jw_object_end(w);
    weir_jw_object_end(w);
}

static double seconds(uint64_t ns)
{
    return (double)(ns / 1000) / 1e6; /* whole microseconds: nothing below means anything */
}

static void write_perf(struct weir_jw *w, const struct answer *a, const struct weir_call_done *done)
{
    weir_jw_key(w, "perf_metrics");
    weir_jw_object(w);
    weir_jw_key(w, "prompt-tokens");
    weir_jw_u64(w, done->prompt_tokens);
    weir_jw_key(w, "cached-prompt-tokens");
    weir_jw_u64(w, done->cached_tokens);
    weir_jw_key(w, "server-time-to-first-token");
    weir_jw_f64(w, seconds(a->started.first_token_ns - a->arrived_ns));
    weir_jw_key(w, "server-processing-time");
    weir_jw_f64(w, seconds(weir_now_ns() - a->arrived_ns));
    weir_jw_key(w, "prefill-queue-duration");
    weir_jw_f64(w, seconds(done->queue_ns));
    weir_jw_key(w, "prefill-duration");
    weir_jw_f64(w, seconds(done->prefill_ns));
    weir_jw_key(w, "generation-duration");
    weir_jw_f64(w, seconds(done->generation_ns));
    weir_jw_object_end(w);
}

static void write_bytes(struct weir_jw *w, ProtobufCBinaryData token)
{
    weir_jw_key(w, "bytes");
    weir_jw_array(w);
    for (size_t i = 0; i < token.len; i++)
        weir_jw_u64(w, token.data[i]);
    weir_jw_array_end(w);
}

static struct weir_str token_str(ProtobufCBinaryData token)
{
    return (struct weir_str){ (const char *)token.data, token.len };
}

static void write_logprob(struct weir_jw *w, const Weir__V1__TokenLogprob *lp)
{
    weir_jw_object(w);
    weir_jw_key(w, "token");
    weir_jw_str(w, token_str(lp->token));
    weir_jw_key(w, "logprob");
    weir_jw_f64(w, lp->logprob);
    write_bytes(w, lp->token);
    weir_jw_key(w, "token_id");
    weir_jw_u64(w, lp->id);
    weir_jw_key(w, "top_logprobs");
    weir_jw_array(w);
    for (size_t i = 0; i < lp->n_top; i++) {
        weir_jw_object(w);
        weir_jw_key(w, "token");
        weir_jw_str(w, token_str(lp->top[i]->token));
        weir_jw_key(w, "logprob");
        weir_jw_f64(w, lp->top[i]->logprob);
        write_bytes(w, lp->top[i]->token);
        weir_jw_key(w, "token_id");
        weir_jw_u64(w, lp->top[i]->id);
        weir_jw_object_end(w);
    }
    weir_jw_array_end(w);
    weir_jw_object_end(w);
}

static void add_comma(struct weir_buf *buf)
{
    if (weir_buf_len(buf) > 0)
        weir_buf_addc(buf, ',');
}

/* The older shape: {"tokens":[],"token_logprobs":[],"top_logprobs":[{"tok":lp}],"text_offset":[]}. */
static void add_legacy(struct choice *ch, const Weir__V1__TokenLogprob *lp)
{
    struct weir_jw w;

    add_comma(&ch->logprobs);
    weir_jw_init(&w, &ch->logprobs);
    weir_jw_str(&w, token_str(lp->token));
    for (int k = 0; k < 3; k++)
        add_comma(&ch->legacy[k]);
    weir_jw_init(&w, &ch->legacy[0]);
    weir_jw_f64(&w, lp->logprob);
    weir_jw_init(&w, &ch->legacy[1]);
    weir_jw_object(&w);
    for (size_t i = 0; i < lp->n_top; i++) {
        weir_jw_key_str(&w, token_str(lp->top[i]->token));
        weir_jw_f64(&w, lp->top[i]->logprob);
    }
    weir_jw_object_end(&w);
    weir_jw_init(&w, &ch->legacy[2]);
    weir_jw_u64(&w, ch->offset);
    ch->offset += lp->token.len;
}

static void add_logprobs(struct answer *a, struct choice *ch, const Weir__Fabric__V1__Delta *delta)
{
    struct weir_jw w;

    for (size_t i = 0; i < delta->n_logprobs; i++) {
        if (a->opts.legacy_logprobs) {
            add_legacy(ch, delta->logprobs[i]);
            continue;
        }
        add_comma(&ch->logprobs);
        weir_jw_init(&w, &ch->logprobs);
        write_logprob(&w, delta->logprobs[i]);
    }
    ch->n_logprobs += delta->n_logprobs;
}

/* The logprobs member of a choice: what has gathered since the last call. */
static void take_logprobs(struct answer *a, struct weir_buf *out, struct choice *ch)
{
    static const char *const names[3] = { "],\"token_logprobs\":[", "],\"top_logprobs\":[",
                                          "],\"text_offset\":[" };

    weir_buf_adds(out, "\"logprobs\":");
    if (ch->n_logprobs == 0) {
        weir_buf_adds(out, "null");
        return;
    }
    weir_buf_adds(out, a->opts.legacy_logprobs ? "{\"tokens\":[" : "{\"content\":[");
    weir_buf_add(out, weir_buf_ptr(&ch->logprobs), weir_buf_len(&ch->logprobs));
    for (int k = 0; a->opts.legacy_logprobs && k < 3; k++) {
        weir_buf_adds(out, names[k]);
        weir_buf_add(out, weir_buf_ptr(&ch->legacy[k]), weir_buf_len(&ch->legacy[k]));
        weir_buf_clear(&ch->legacy[k]);
    }
    weir_buf_adds(out, "]}");
    weir_buf_clear(&ch->logprobs);
    ch->n_logprobs = 0;
}

static void write_head(struct weir_jw *w, const struct answer *a, const char *object)
{
    weir_jw_key(w, "id");
    weir_jw_cstr(w, a->id);
    weir_jw_key(w, "object");
    weir_jw_cstr(w, object);
    weir_jw_key(w, "created");
    weir_jw_u64(w, a->created_s);
    weir_jw_key(w, "model");
    weir_jw_cstr(w, a->model);
}

static void add_perf_headers(const struct answer *a, struct weir_http_fields *fields)
{
    char name[64];

    weir_http_fields_adds(fields, "x-request-id", a->request_id);
    weir_http_fields_adds(fields, "x-weir-replica", a->replica);
    snprintf(name, sizeof name, "%sprompt-tokens", a->env->perf_prefix);
    weir_http_fields_addu(fields, name, a->started.prompt_tokens);
    snprintf(name, sizeof name, "%scached-prompt-tokens", a->env->perf_prefix);
    weir_http_fields_addu(fields, name, a->started.cached_tokens);
    snprintf(name, sizeof name, "%sserver-time-to-first-token", a->env->perf_prefix);
    weir_http_fields_addf(fields, name, "%.6f", seconds(a->started.first_token_ns - a->arrived_ns));
}

/* ---- one body ---- */
static void write_choice(struct weir_jw *w, struct answer *a, uint32_t i)
{
    struct choice *ch = &a->choices[i];
    struct weir_str text = { weir_buf_ptr(&ch->text), weir_buf_len(&ch->text) };

    weir_jw_object(w);
    weir_jw_key(w, "index");
    weir_jw_u64(w, i);
    if (a->opts.chat) {
        weir_jw_key(w, "message");
        weir_jw_object(w);
        weir_jw_key(w, "role");
        weir_jw_cstr(w, "assistant");
        weir_jw_key(w, "content");
        weir_jw_str(w, text);
        weir_jw_object_end(w);
    } else {
        weir_jw_key(w, "text");
        weir_jw_str(w, text);
    }
    weir_buf_addc(w->out, ',');
    take_logprobs(a, w->out, ch);
    write_finish(w, ch->finish);
    weir_jw_object_end(w);
}

static void respond_whole(struct answer *a, const struct weir_call_done *done)
{
    struct weir_http_fields fields;
    struct weir_buf body;
    struct weir_jw w;
    char name[64];

    weir_buf_init(&body, 0);
    weir_jw_init(&w, &body);
    weir_jw_object(&w);
    write_head(&w, a, a->opts.chat ? "chat.completion" : "text_completion");
    weir_jw_key(&w, "choices");
    weir_jw_array(&w);
    for (uint32_t i = 0; i < a->n_choices; i++)
        write_choice(&w, a, i);
    weir_jw_array_end(&w);
    write_usage(&w, done);
    if (a->perf)
        write_perf(&w, a, done);
    weir_jw_object_end(&w);
    weir_http_fields_init(&fields);
    weir_http_fields_adds(&fields, "content-type", "application/json");
    add_perf_headers(a, &fields);
    snprintf(name, sizeof name, "%sserver-processing-time", a->env->perf_prefix);
    weir_http_fields_addf(&fields, name, "%.6f", seconds(weir_now_ns() - a->arrived_ns));
    if (body.failed)
        weir_answer_error(a->http, WEIR_NOMEM, NULL, a->request_id, 0);
    else
        weir_http_respond(a->http, 200, &fields, weir_buf_ptr(&body), weir_buf_len(&body));
    weir_buf_release(&body);
}

/* ---- server-sent events ---- */
static struct weir_buf *scratch(struct answer *a)
{
    weir_buf_clear(&a->env->scratch);
    return &a->env->scratch;
}

/* {"id",...,"choices":[{"index": i, and for a chat the delta, for a completion the text. */
static void add_chunk(struct answer *a, struct weir_buf *out, uint32_t i, struct weir_str text,
                      Weir__V1__FinishReason finish, const struct weir_call_done *done)
{
    struct choice *ch = &a->choices[i];
    struct weir_jw w;

    weir_buf_add(out, weir_buf_ptr(&a->head), weir_buf_len(&a->head));
    weir_buf_addu(out, i);
    weir_jw_init(&w, out);
    if (a->opts.chat) {
        weir_buf_adds(out, ch->opened ? ",\"delta\":{" : ",\"delta\":{\"role\":\"assistant\",");
        if (text.len > 0 || !ch->opened) {
            weir_buf_adds(out, "\"content\":");
            weir_jw_str(&w, text);
        }
        weir_buf_adds(out, "},");
    } else {
        weir_buf_adds(out, ",\"text\":");
        weir_jw_str(&w, text);
        weir_buf_addc(out, ',');
    }
    ch->opened = true;
    take_logprobs(a, out, ch);
    weir_buf_addc(out, ',');
    weir_jw_init(&w, out);
    write_finish(&w, finish);
    weir_buf_adds(out, "}],");
    weir_jw_init(&w, out);
    if (done && !a->opts.include_usage) {
        write_usage(&w, done);
    } else {
        weir_jw_key(&w, "usage");
        weir_jw_null(&w);
    }
    if (done && a->perf) {
        weir_buf_addc(out, ',');
        weir_jw_init(&w, out);
        write_perf(&w, a, done);
    }
    weir_buf_adds(out, "}\n\n");
}

static void add_usage_chunk(struct answer *a, struct weir_buf *out, const struct weir_call_done *done)
{
    struct weir_jw w;

    weir_buf_adds(out, "data: ");
    weir_jw_init(&w, out);
    weir_jw_object(&w);
    write_head(&w, a, a->opts.chat ? "chat.completion.chunk" : "text_completion");
    weir_jw_key(&w, "choices");
    weir_jw_array(&w);
    weir_jw_array_end(&w);
    write_usage(&w, done);
    weir_jw_object_end(&w);
    weir_buf_adds(out, "\n\n");
}

static bool send_events(struct answer *a, struct weir_buf *out)
{
    return !out->failed && weir_http_stream_write(a->http, weir_buf_ptr(out), weir_buf_len(out)) == WEIR_OK;
}

static void begin_stream(struct answer *a)
{
    struct weir_http_fields fields;
    struct weir_jw w;

    weir_http_fields_init(&fields);
    weir_http_fields_adds(&fields, "content-type", "text/event-stream; charset=utf-8");
    weir_http_fields_adds(&fields, "cache-control", "no-cache");
    weir_http_fields_adds(&fields, "x-accel-buffering", "no");
    add_perf_headers(a, &fields);
    weir_http_stream_begin(a->http, 200, &fields);
    a->begun = true;
    weir_buf_adds(&a->head, "data: ");
    weir_jw_init(&w, &a->head);
    weir_jw_object(&w);
    write_head(&w, a, a->opts.chat ? "chat.completion.chunk" : "text_completion");
    weir_buf_adds(&a->head, ",\"choices\":[{\"index\":");
}

static bool stream_delta(struct answer *a, const Weir__Fabric__V1__Delta *delta)
{
    struct choice *ch = &a->choices[delta->choice];
    struct weir_str text = { (const char *)delta->text.data, delta->text.len };
    bool last = a->n_live == 0; /* its finish waits for the usage [W2] */
    Weir__V1__FinishReason finish = last ? WEIR__V1__FINISH_REASON__FINISH_NONE : delta->finish;
    struct weir_buf *out = scratch(a);

    if (text.len == 0 && delta->n_logprobs == 0 && finish == WEIR__V1__FINISH_REASON__FINISH_NONE &&
        ch->opened)
        return true; /* half a character, or text that may become a stop string */
    add_chunk(a, out, delta->choice, text, finish, NULL);
    if (send_events(a, out))
        return true;
    weir_http_abort(a->http); /* too slow a reader, or no memory: what it has so far can't be completed */
    return false;
}

/* ---- the sink ---- */
static void on_started(void *ctx, const struct weir_call_started *started)
{
    struct answer *a = ctx;

    a->started = *started;
    snprintf(a->replica, sizeof a->replica, "%.*s", WEIR_STR_FMT(started->replica));
    if (a->opts.stream)
        begin_stream(a); /* [W1]: started comes with the first delta */
}

static bool on_delta(void *ctx, const Weir__Fabric__V1__Delta *delta)
{
    struct answer *a = ctx;

    if (delta->choice >= a->n_choices ||
        a->choices[delta->choice].finish != WEIR__V1__FINISH_REASON__FINISH_NONE)
        return true; /* a replica's mistake; the machine counts tokens, we keep our shape */
    struct choice *ch = &a->choices[delta->choice];
    add_logprobs(a, ch, delta);
    if (delta->finish != WEIR__V1__FINISH_REASON__FINISH_NONE) {
        ch->finish = delta->finish;
        a->n_live--;
        a->last_choice = delta->choice;
    }
    if (!a->opts.stream) {
        weir_buf_add(&ch->text, delta->text.data, delta->text.len); /* [W3] */
        return true;
    }
    if (stream_delta(a, delta))
        return true;
    answer_close(a); /* the call is cancelled and says nothing more */
    return false;
}

static void on_done(void *ctx, const struct weir_call_done *done)
{
    struct answer *a = ctx;

    if (!a->opts.stream) {
        respond_whole(a, done);
    } else {
        struct weir_buf *out = scratch(a);
        add_chunk(a, out, a->last_choice, (struct weir_str){ "", 0 }, a->choices[a->last_choice].finish,
                  done);
        if (a->opts.include_usage)
            add_usage_chunk(a, out, done);
        weir_buf_adds(out, "data: [DONE]\n\n");
        if (send_events(a, out))
            weir_http_stream_end(a->http);
        else
            weir_http_abort(a->http);
    }
    answer_close(a);
}

static void on_failed(void *ctx, weir_err err, const struct weir_why *why, uint32_t retry_after_ms)
{
    struct answer *a = ctx;

    if (!a->begun) {
        weir_answer_error(a->http, err, why, a->request_id, retry_after_ms);
    } else {
        struct weir_buf *out = scratch(a);
        weir_buf_adds(out, "data: ");
        weir_answer_error_body(out, err, why, a->request_id);
        weir_buf_adds(out, "\n\n");
        if (send_events(a, out))
            weir_http_stream_end(a->http);
        else
            weir_http_abort(a->http);
    }
    answer_close(a);
}

static const struct weir_call_sink sink = { on_started, on_delta, on_done, on_failed };

static void on_gone(struct weir_http_req *http)
{
    struct answer *a = http->user;

    weir_call_cancel(a->call);
    answer_close(a);
}

static struct answer *answer_new(struct weir_request *req, const struct weir_answer_opts *opts)
{
    struct answer *a = weir_alloc0(sizeof *a);

    if (!a)
        return NULL;
    a->opts = *opts;
    a->perf = req->msg->perf_metrics;
    a->n_choices = a->n_live = req->msg->n ? req->msg->n : 1;
    a->arrived_ns = req->arrived_ns;
    a->created_s = req->created_s;
    a->choices = weir_calloc(a->n_choices, sizeof *a->choices);
    a->model = weir_strdup(req->msg->model);
    memcpy(a->request_id, req->request_id, sizeof a->request_id);
    char hex[33];
    weir_hex(req->call_id, sizeof req->call_id, hex);
    snprintf(a->id, sizeof a->id, "%s-%s", opts->chat ? "chatcmpl" : "cmpl", hex);
    if (a->choices && a->model)
        return a;
    answer_close(a);
    return NULL;
}

void weir_answer_start(struct weir_answer_env *env, struct weir_request *req,
                       const struct weir_answer_opts *opts, struct weir_http_req *http)
{
    struct answer *a = answer_new(req, opts);
    struct weir_call *call = NULL;

    if (!a) {
        weir_answer_error(http, WEIR_NOMEM, NULL, req->request_id, 0);
        weir_request_close(req);
        return;
    }
    a->http = http;
    a->env = env;
    http->user = a;
    http->on_gone = on_gone;
    weir_call_start(env->set, req, &sink, a, &call);
    if (call) /* else it was refused: the sink has answered, and `a` is gone */
        a->call = call;
}
