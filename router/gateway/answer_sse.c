/* answer_sse.c - an answer as server-sent events.
 *
 *   [E1] The chunk with the last finish_reason carries usage, so it waits for the end of the last call.
 *   [E2] Text of one choice comes in order; choices interleave.
 *
 * Cost of a delta: one JSON escape of the text into a buffer that the loop keeps, one copy into the connection's
 * output; the parts of a chunk that never change are built once, at the start. */
#include "router/gateway/answer_int.h"

static struct weir_buf *scratch(struct answer *a)
{
    weir_buf_clear(&a->env->scratch);
    return &a->env->scratch;
}

static struct weir_str str_of(ProtobufCBinaryData data)
{
    return (struct weir_str){ (const char *)data.data, data.len };
}

/* {"index":0,"id":"...","type":"function","function":{"name":"f","arguments":""}}, later {"index":0,"function":
 * {"arguments":"..."}}. The older shape has one call, and neither index nor id. */
static void write_call(struct weir_jw *w, const struct answer *a, const Weir__Fabric__V1__ToolCallDelta *call)
{
    if (!a->opts.legacy_functions) {
        weir_jw_object(w);
        weir_jw_key(w, "index");
        weir_jw_u64(w, call->index);
        if (call->name.len > 0) {
            weir_jw_key(w, "id");
            weir_jw_cstr(w, call->id);
            weir_jw_key(w, "type");
            weir_jw_cstr(w, "function");
        }
        weir_jw_key(w, "function");
    }
    weir_jw_object(w);
    if (call->name.len > 0) {
        weir_jw_key(w, "name");
        weir_jw_str(w, str_of(call->name));
    }
    weir_jw_key(w, "arguments");
    weir_jw_str(w, str_of(call->arguments));
    weir_jw_object_end(w);
    if (!a->opts.legacy_functions)
        weir_jw_object_end(w);
}

static void write_calls(struct weir_jw *w, const struct answer *a, const Weir__Fabric__V1__Delta *delta)
{
    if (a->opts.legacy_functions) {
        if (delta->tool_calls[0]->index > 0)
            return;
        weir_jw_key(w, "function_call");
        write_call(w, a, delta->tool_calls[0]);
        return;
    }
    weir_jw_key(w, "tool_calls");
    weir_jw_array(w);
    for (size_t i = 0; i < delta->n_tool_calls; i++)
        write_call(w, a, delta->tool_calls[i]);
    weir_jw_array_end(w);
}

/* The delta of a chat. `delta` NULL: an empty one, under the last finish_reason. */
static void add_chat_delta(struct answer *a, struct weir_buf *out, const struct choice *ch,
                           const Weir__Fabric__V1__Delta *delta)
{
    struct weir_jw w;

    if (ch->opened && delta && delta->reasoning.len == 0 && delta->n_tool_calls == 0 && delta->text.len > 0) {
        weir_buf_adds(out, ",\"delta\":{\"content\":"); /* nearly every chunk */
        weir_jw_init(&w, out);
        weir_jw_str(&w, str_of(delta->text));
        weir_buf_adds(out, "},");
        return;
    }
    weir_buf_adds(out, ",\"delta\":");
    weir_jw_init(&w, out);
    weir_jw_object(&w);
    if (!ch->opened) {
        weir_jw_key(&w, "role");
        weir_jw_cstr(&w, "assistant");
    }
    if (delta && delta->reasoning.len > 0) {
        weir_jw_key(&w, "reasoning_content");
        weir_jw_str(&w, str_of(delta->reasoning));
    }
    if (!ch->opened || (delta && delta->text.len > 0)) {
        weir_jw_key(&w, "content");
        weir_jw_str(&w, delta ? str_of(delta->text) : (struct weir_str){ "", 0 });
    }
    if (delta && delta->n_tool_calls > 0)
        write_calls(&w, a, delta);
    weir_jw_object_end(&w);
    weir_buf_addc(out, ',');
}

static void add_ids(struct weir_buf *out, const char *key, const uint32_t *ids, size_t n)
{
    weir_buf_addf(out, "\"%s\":[", key);
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            weir_buf_addc(out, ',');
        weir_buf_addu(out, ids[i]);
    }
    weir_buf_adds(out, "],");
}

static void add_extras(struct answer *a, struct weir_buf *out, uint32_t i,
                       const Weir__Fabric__V1__Delta *delta)
{
    struct weir_jw w;

    if (a->ids && delta) {
        add_ids(out, "token_ids", delta->ids, delta->n_ids);
        if (delta->prompt && !a->opts.chat)
            add_ids(out, "prompt_token_ids", delta->prompt->ids, delta->prompt->n_ids);
    }
    if (!a->raw || a->choices[i].finish == WEIR__V1__FINISH_REASON__FINISH_NONE)
        return;
    if (delta && a->n_live == 0)
        return; /* goes with the finish, which waits [E1] */
    weir_jw_init(&w, out);
    answer_write_raw(&w, a, i);
    weir_buf_addc(out, ',');
}

/* {"id",...,"choices":[{"index": i, and for a chat the delta, for a completion the text. `is_last`: with usage. */
static void add_chunk(struct answer *a, struct weir_buf *out, uint32_t i,
                      const Weir__Fabric__V1__Delta *delta, Weir__V1__FinishReason finish, bool is_last)
{
    struct choice *ch = &a->choices[i];
    struct weir_jw w;

    weir_buf_add(out, weir_buf_ptr(&a->head), weir_buf_len(&a->head));
    weir_buf_addu(out, i);
    if (a->opts.chat) {
        add_chat_delta(a, out, ch, delta);
    } else {
        weir_buf_adds(out, ",\"text\":");
        weir_jw_init(&w, out);
        weir_jw_str(&w, delta ? str_of(delta->text) : (struct weir_str){ "", 0 });
        weir_buf_addc(out, ',');
    }
    ch->opened = true;
    if (a->ids || a->raw)
        add_extras(a, out, i, delta);
    answer_take_logprobs(a, out, ch);
    weir_buf_addc(out, ',');
    weir_jw_init(&w, out);
    answer_write_finish(&w, a, finish);
    weir_buf_adds(out, "}],");
    if (a->ids && a->opts.chat && delta && delta->prompt)
        add_ids(out, "prompt_token_ids", delta->prompt->ids, delta->prompt->n_ids);
    weir_jw_init(&w, out);
    if (is_last && !a->opts.include_usage) {
        answer_write_usage(&w, &a->done);
    } else {
        weir_jw_key(&w, "usage");
        weir_jw_null(&w);
    }
    if (is_last && a->perf) {
        weir_buf_addc(out, ',');
        weir_jw_init(&w, out);
        answer_write_perf(&w, a);
    }
    weir_buf_adds(out, "}\n\n");
}

static void add_usage_chunk(struct answer *a, struct weir_buf *out)
{
    struct weir_jw w;

    weir_buf_adds(out, "data: ");
    weir_jw_init(&w, out);
    weir_jw_object(&w);
    answer_write_head(&w, a, a->opts.chat ? "chat.completion.chunk" : "text_completion");
    weir_jw_key(&w, "choices");
    weir_jw_array(&w);
    weir_jw_array_end(&w);
    answer_write_usage(&w, &a->done);
    weir_jw_object_end(&w);
    weir_buf_adds(out, "\n\n");
}

static bool send_events(struct answer *a, struct weir_buf *out)
{
    return !out->failed && weir_http_stream_write(a->http, weir_buf_ptr(out), weir_buf_len(out)) == WEIR_OK;
}

void answer_begin_stream(struct answer *a)
{
    struct weir_http_fields fields;
    struct weir_jw w;

    weir_http_fields_init(&fields);
    weir_http_fields_adds(&fields, "content-type", "text/event-stream; charset=utf-8");
    weir_http_fields_adds(&fields, "cache-control", "no-cache");
    weir_http_fields_adds(&fields, "x-accel-buffering", "no");
    answer_add_headers(a, &fields);
    weir_http_stream_begin(a->http, 200, &fields);
    a->begun = true;
    weir_buf_adds(&a->head, "data: ");
    weir_jw_init(&w, &a->head);
    weir_jw_object(&w);
    answer_write_head(&w, a, a->opts.chat ? "chat.completion.chunk" : "text_completion");
    weir_buf_adds(&a->head, ",\"choices\":[{\"index\":");
}

static bool is_silent(const Weir__Fabric__V1__Delta *delta)
{
    return delta->text.len == 0 && delta->reasoning.len == 0 && delta->n_tool_calls == 0 &&
           delta->n_logprobs == 0;
}

bool answer_stream_delta(struct answer *a, uint32_t i, const Weir__Fabric__V1__Delta *delta)
{
    struct choice *ch = &a->choices[i];
    bool last = a->n_live == 0; /* [E1] */
    Weir__V1__FinishReason finish = last ? WEIR__V1__FINISH_REASON__FINISH_NONE : delta->finish;
    struct weir_buf *out = scratch(a);

    if (is_silent(delta) && finish == WEIR__V1__FINISH_REASON__FINISH_NONE && ch->opened && !a->ids)
        return true; /* half a character, or text that may become a stop string or a call */
    add_chunk(a, out, i, delta, finish, /* is_last= */ false);
    if (send_events(a, out))
        return true;
    weir_http_abort(a->http); /* too slow a reader, or no memory: what it has so far can't be completed */
    return false;
}

static void end(struct answer *a, struct weir_buf *out)
{
    if (send_events(a, out))
        weir_http_stream_end(a->http);
    else
        weir_http_abort(a->http);
}

void answer_end_stream(struct answer *a)
{
    struct weir_buf *out = scratch(a);

    add_chunk(a, out, a->last_choice, NULL, a->choices[a->last_choice].finish, /* is_last= */ true);
    if (a->opts.include_usage)
        add_usage_chunk(a, out);
    weir_buf_adds(out, "data: [DONE]\n\n");
    end(a, out);
}

void answer_fail_stream(struct answer *a, weir_err err, const struct weir_why *why)
{
    struct weir_buf *out = scratch(a);

    weir_buf_adds(out, "data: ");
    weir_answer_error_body(out, err, why, a->request_id);
    weir_buf_adds(out, "\n\n");
    end(a, out);
}
