/* answer_write.c - the parts of an OpenAI body: choices, log-probabilities, calls, usage, performance.
 *
 * A float is written as the shortest text that reads back equal; a log-probability that is not a number (the
 * prompt's first token has none) as null. Sources: OpenAI's API reference, its older completions shape too. */
#include <math.h>
#include <string.h>

#include "base/clock.h"
#include "router/gateway/answer_int.h"

static const char *finish_name(const struct answer *a, Weir__V1__FinishReason finish)
{
    switch (finish) {
    case WEIR__V1__FINISH_REASON__FINISH_STOP:
        return "stop";
    case WEIR__V1__FINISH_REASON__FINISH_LENGTH:
        return "length";
    case WEIR__V1__FINISH_REASON__FINISH_TOOL_CALLS:
        return a->opts.legacy_functions ? "function_call" : "tool_calls";
    default:
        return "error";
    }
}

void answer_write_finish(struct weir_jw *w, const struct answer *a, Weir__V1__FinishReason finish)
{
    weir_jw_key(w, "finish_reason");
    if (finish == WEIR__V1__FINISH_REASON__FINISH_NONE)
        weir_jw_null(w);
    else
        weir_jw_cstr(w, finish_name(a, finish));
}

void answer_write_usage(struct weir_jw *w, const struct weir_call_done *done)
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

double answer_seconds(uint64_t ns)
{
    return (double)(ns / 1000) / 1e6; /* whole microseconds: nothing below means anything */
}

void answer_write_perf(struct weir_jw *w, const struct answer *a)
{
    weir_jw_key(w, "perf_metrics");
    weir_jw_object(w);
    weir_jw_key(w, "prompt-tokens");
    weir_jw_u64(w, a->done.prompt_tokens);
    weir_jw_key(w, "cached-prompt-tokens");
    weir_jw_u64(w, a->done.cached_tokens);
    weir_jw_key(w, "server-time-to-first-token");
    weir_jw_f64(w, answer_seconds(a->started.first_token_ns - a->arrived_ns));
    weir_jw_key(w, "server-processing-time");
    weir_jw_f64(w, answer_seconds(weir_now_ns() - a->arrived_ns));
    weir_jw_key(w, "prefill-queue-duration");
    weir_jw_f64(w, answer_seconds(a->done.queue_ns));
    weir_jw_key(w, "prefill-duration");
    weir_jw_f64(w, answer_seconds(a->done.prefill_ns));
    weir_jw_key(w, "generation-duration");
    weir_jw_f64(w, answer_seconds(a->done.generation_ns));
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

static void write_logprob(struct weir_jw *w, const Weir__V1__TokenLogprob *lp, size_t offset)
{
    weir_jw_object(w);
    weir_jw_key(w, "token");
    weir_jw_str(w, token_str(lp->token));
    weir_jw_key(w, "logprob");
    weir_jw_f64(w, lp->logprob);
    write_bytes(w, lp->token);
    weir_jw_key(w, "token_id");
    weir_jw_u64(w, lp->id);
    weir_jw_key(w, "text_offset");
    weir_jw_u64(w, offset);
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

void answer_add_comma(struct weir_buf *buf)
{
    if (weir_buf_len(buf) > 0)
        weir_buf_addc(buf, ',');
}

/* {"tok": logprob, ...}; null for a token that was not predicted. */
static void write_tops(struct weir_jw *w, const Weir__V1__TokenLogprob *lp)
{
    if (isnan(lp->logprob)) {
        weir_jw_null(w);
        return;
    }
    weir_jw_object(w);
    for (size_t i = 0; i < lp->n_top; i++) {
        weir_jw_key_str(w, token_str(lp->top[i]->token));
        weir_jw_f64(w, lp->top[i]->logprob);
    }
    weir_jw_object_end(w);
}

/* The older shape: {"tokens":[],"token_logprobs":[],"top_logprobs":[{"tok":lp}],"text_offset":[],"token_ids":[]}. */
static void add_legacy(struct choice *ch, const Weir__V1__TokenLogprob *lp)
{
    struct weir_jw w;

    answer_add_comma(&ch->logprobs);
    weir_jw_init(&w, &ch->logprobs);
    weir_jw_str(&w, token_str(lp->token));
    for (int k = 0; k < 4; k++)
        answer_add_comma(&ch->legacy[k]);
    weir_jw_init(&w, &ch->legacy[0]);
    weir_jw_f64(&w, lp->logprob);
    weir_jw_init(&w, &ch->legacy[1]);
    write_tops(&w, lp);
    weir_buf_addu(&ch->legacy[2], ch->offset);
    weir_buf_addu(&ch->legacy[3], lp->id);
}

void answer_add_logprobs(struct answer *a, struct choice *ch, const Weir__Fabric__V1__Delta *delta)
{
    struct weir_jw w;

    for (size_t i = 0; i < delta->n_logprobs; i++) {
        if (a->opts.legacy_logprobs) {
            add_legacy(ch, delta->logprobs[i]);
        } else {
            answer_add_comma(&ch->logprobs);
            weir_jw_init(&w, &ch->logprobs);
            write_logprob(&w, delta->logprobs[i], ch->offset);
        }
        ch->offset += delta->logprobs[i]->token.len;
    }
    ch->n_logprobs += delta->n_logprobs;
}

void answer_take_logprobs(struct answer *a, struct weir_buf *out, struct choice *ch)
{
    static const char *const names[4] = { "],\"token_logprobs\":[", "],\"top_logprobs\":[",
                                          "],\"text_offset\":[", "],\"token_ids\":[" };

    weir_buf_adds(out, "\"logprobs\":");
    if (ch->n_logprobs == 0) {
        weir_buf_adds(out, "null");
        return;
    }
    weir_buf_adds(out, a->opts.legacy_logprobs ? "{\"tokens\":[" : "{\"content\":[");
    weir_buf_add(out, weir_buf_ptr(&ch->logprobs), weir_buf_len(&ch->logprobs));
    for (int k = 0; a->opts.legacy_logprobs && k < 4; k++) {
        weir_buf_adds(out, names[k]);
        weir_buf_add(out, weir_buf_ptr(&ch->legacy[k]), weir_buf_len(&ch->legacy[k]));
        weir_buf_clear(&ch->legacy[k]);
    }
    weir_buf_adds(out, "]}");
    weir_buf_clear(&ch->logprobs);
    ch->n_logprobs = 0;
}

void answer_write_head(struct weir_jw *w, const struct answer *a, const char *object)
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

/* ---- a choice ---- */
static struct weir_str str_of(const struct weir_buf *buf)
{
    return (struct weir_str){ weir_buf_ptr(buf), weir_buf_len(buf) };
}

static void write_function(struct weir_jw *w, const struct called *called)
{
    weir_jw_object(w);
    weir_jw_key(w, "name");
    weir_jw_str(w, str_of(&called->name));
    weir_jw_key(w, "arguments");
    weir_jw_str(w, str_of(&called->arguments));
    weir_jw_object_end(w);
}

static void write_calls(struct weir_jw *w, const struct answer *a, const struct choice *ch)
{
    if (a->opts.legacy_functions) {
        weir_jw_key(w, "function_call");
        write_function(w, &ch->calls[0]);
        return;
    }
    weir_jw_key(w, "tool_calls");
    weir_jw_array(w);
    for (size_t i = 0; i < ch->n_calls; i++) {
        weir_jw_object(w);
        weir_jw_key(w, "id");
        weir_jw_cstr(w, ch->calls[i].id ? ch->calls[i].id : "");
        weir_jw_key(w, "type");
        weir_jw_cstr(w, "function");
        weir_jw_key(w, "function");
        write_function(w, &ch->calls[i]);
        weir_jw_object_end(w);
    }
    weir_jw_array_end(w);
}

static void write_message(struct weir_jw *w, const struct answer *a, const struct choice *ch)
{
    weir_jw_key(w, "message");
    weir_jw_object(w);
    weir_jw_key(w, "role");
    weir_jw_cstr(w, "assistant");
    weir_jw_key(w, "content");
    if (ch->n_calls > 0 && weir_buf_len(&ch->text) == 0)
        weir_jw_null(w);
    else
        weir_jw_str(w, str_of(&ch->text));
    if (weir_buf_len(&ch->reasoning) > 0) {
        weir_jw_key(w, "reasoning_content");
        weir_jw_str(w, str_of(&ch->reasoning));
    }
    if (ch->n_calls > 0)
        write_calls(w, a, ch);
    weir_jw_object_end(w);
}

/* Numbers that were gathered with commas between them. */
static void write_ids(struct weir_jw *w, const char *key, const struct weir_buf *ids)
{
    weir_jw_key(w, key);
    weir_jw_array(w);
    weir_buf_add(w->out, weir_buf_ptr(ids), weir_buf_len(ids));
    weir_jw_array_end(w);
}

void answer_write_raw(struct weir_jw *w, struct answer *a, uint32_t i)
{
    const struct part *part = &a->parts[i / a->n_per_part];
    const struct choice *ch = &a->choices[i];

    weir_jw_key(w, "raw_output");
    weir_jw_object(w);
    weir_jw_key(w, "prompt_fragments");
    weir_jw_array(w);
    weir_jw_str(w, str_of(&part->prompt_text));
    weir_jw_array_end(w);
    write_ids(w, "prompt_token_ids", &part->prompt_ids);
    weir_jw_key(w, "completion");
    weir_jw_str(w, str_of(&ch->raw));
    write_ids(w, "completion_token_ids", &ch->ids);
    weir_jw_key(w, "completion_logprobs");
    weir_jw_null(w);
    weir_jw_key(w, "images");
    weir_jw_null(w);
    weir_jw_key(w, "videos");
    weir_jw_null(w);
    weir_jw_key(w, "grammar");
    if (a->grammar)
        weir_jw_cstr(w, a->grammar);
    else
        weir_jw_null(w);
    weir_jw_object_end(w);
}

void answer_write_choice(struct weir_jw *w, struct answer *a, uint32_t i)
{
    struct choice *ch = &a->choices[i];

    weir_jw_object(w);
    weir_jw_key(w, "index");
    weir_jw_u64(w, i);
    if (a->opts.chat) {
        write_message(w, a, ch);
    } else {
        weir_jw_key(w, "text");
        weir_jw_str(w, str_of(&ch->text));
    }
    weir_buf_addc(w->out, ',');
    answer_take_logprobs(a, w->out, ch);
    if (a->raw)
        answer_write_raw(w, a, i);
    if (a->ids) {
        write_ids(w, "token_ids", &ch->ids);
        if (!a->opts.chat)
            write_ids(w, "prompt_token_ids", &a->parts[i / a->n_per_part].prompt_ids);
    }
    answer_write_finish(w, a, ch->finish);
    weir_jw_object_end(w);
}
