/* text.c - a text worker: an encoded request becomes tokens, a grammar and choices that wait for tokens, away from
 * the step thread. The parts are in prompt.c, format.c and choice.c; here is their order, and what they share. */
#include "base/clock.h"
#include "proto/rpc.h"
#include "replica/serve/serve_int.h"

#include <string.h>

#include <protobuf-c/protobuf-c.h>

static weir_err compile_stops(struct call *call)
{
    const Weir__V1__GenerateRequest *msg = call->msg;
    struct weir_str *stops;

    if (msg->n_stop == 0)
        return WEIR_OK;
    stops = weir_arena_alloc(&call->arena, msg->n_stop * sizeof *stops);
    if (!stops)
        return weir_fail(&call->why, WEIR_NOMEM, "no memory for the stop strings");
    for (size_t i = 0; i < msg->n_stop; i++)
        stops[i] = weir_str(msg->stop[i]);
    return weir_stop_compile(stops, (int)msg->n_stop, &call->arena, &call->stops);
}

/* echo gives the whole prompt back, echo_last its last tokens. A text prompt comes back as it was sent; of tokens
 * the text is put together. */
static weir_err prepare_echo(struct weir_serve *serve, struct call *call)
{
    const Weir__V1__GenerateRequest *msg = call->msg;
    struct weir_buf text;

    if (!msg->echo && !msg->has_echo_last_case)
        return WEIR_OK;
    call->n_echo = (uint32_t)call->prompt.n;
    if (msg->has_echo_last_case && msg->echo_last < call->n_echo)
        call->n_echo = msg->echo_last;
    if (call->n_echo == call->prompt.n && call->prompt_text.ptr && !call->is_cut) {
        call->echo = call->prompt_text;
        return WEIR_OK;
    }
    weir_buf_init(&text, 0);
    for (size_t i = call->prompt.n - call->n_echo; i < call->prompt.n; i++) {
        struct weir_str bytes = weir_token_bytes(serve->opts.tokenizer, call->prompt.ids[i], true);
        weir_buf_add(&text, bytes.ptr, bytes.len);
    }
    call->echo.len = weir_buf_len(&text);
    call->echo.ptr = weir_arena_strndup(&call->arena, call->echo.len ? weir_buf_ptr(&text) : "",
                                        text.failed ? 0 : call->echo.len);
    bool failed = text.failed || !call->echo.ptr;
    weir_buf_release(&text);
    return failed ? weir_fail(&call->why, WEIR_NOMEM, "no memory for the echo") : WEIR_OK;
}

/* What goes out beside the answer must not fill the routers' outbox. */
static weir_err check_extras(const struct weir_serve *serve, struct call *call)
{
    const Weir__V1__GenerateRequest *msg = call->msg;
    const size_t bytes_max = serve->opts.outbox_bytes_max / 4;
    size_t per_logprob = 24 + 24 * (size_t)msg->top_logprobs;
    size_t n = (call->echo.len + (msg->logprobs ? call->n_echo * per_logprob : 0)) * call->n_choices;

    if (msg->return_token_ids || msg->raw_output)
        n += 5 * call->prompt.n;
    if (msg->raw_output)
        n += call->prompt_text.len;
    if (n <= bytes_max)
        return WEIR_OK;
    const char *param = call->n_echo > 0 ? "echo" : msg->raw_output ? "raw_output" : "return_token_ids";
    return weir_fail_param(&call->why, param, WEIR_INVALID,
                           "%s: what would come back of the prompt takes %zu bytes, %zu are the most", param,
                           n, bytes_max);
}

static weir_err prepare(struct weir_serve *serve, struct call *call)
{
    ProtobufCAllocator allocator;

    weir_pb_allocator(&allocator, &call->arena);
    call->msg = weir__v1__generate_request__unpack(&allocator, call->n_data, call->data);
    if (!call->msg)
        return weir_fail(&call->why, WEIR_INVALID, "the request does not decode");
    call->n_choices = call->msg->n ? call->msg->n : 1;
    if (call->msg->input_case == WEIR__V1__GENERATE_REQUEST__INPUT__NOT_SET)
        return weir_fail(&call->why, WEIR_INVALID, "neither messages nor a prompt");
    if (call->n_choices > serve->n_slots)
        return weir_fail_param(&call->why, "n", WEIR_INVALID, "n is larger than the replica's %u slots",
                               serve->n_slots);
    weir_err err = prompt_make(serve, call);
    if (err == WEIR_OK)
        err = compile_stops(call);
    if (err == WEIR_OK)
        err = prepare_echo(serve, call);
    if (err == WEIR_OK)
        err = check_extras(serve, call);
    if (err == WEIR_OK)
        err = cap_prepare(serve, call);
    return err == WEIR_OK ? choices_open(serve, call) : err;
}

static void work(struct weir_serve *serve, struct call *call)
{
    uint64_t begin_ns = weir_now_ns();

    if (!atomic_load(&call->cancelled))
        call->err = prepare(serve, call);
    weir_histogram_observe(serve->metrics.text_s, (double)(weir_now_ns() - begin_ns) / 1e9);
    /* Never full: n_pending bounds it. Closed only when the replica stops. */
    if (weir_queue_push(&serve->step_queue, &call->arrival.node) != WEIR_OK)
        call_end_err(call, WEIR_UNAVAILABLE, NULL);
}

void *text_main(void *arg)
{
    struct text_worker *worker = arg;

    while (!weir_queue_closed(&worker->queue) || weir_queue_len(&worker->queue) > 0) {
        struct weir_qnode *node = weir_queue_wait(&worker->queue, UINT64_MAX);
        while (node) {
            struct weir_qnode *next = node->next;
            work(worker->serve, (struct call *)((char *)node - offsetof(struct call, node)));
            node = next;
        }
    }
    return NULL;
}

weir_err text_push(struct weir_serve *serve, struct call *call)
{
    uint32_t i = atomic_fetch_add(&serve->next_text_worker, 1) % serve->n_text_workers;
    return weir_queue_push(&serve->text_workers[i].queue, &call->node);
}
