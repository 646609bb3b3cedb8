/* text.c - a text worker: an encoded request becomes tokens, away from the step thread.
 *
 * Everything it makes lives in the call's arena. The router has checked the request; what it can't check is
 * checked here: whether the template takes the messages, and whether the prompt fits the context. */
#include "base/clock.h"
#include "proto/rpc.h"
#include "replica/serve/serve_int.h"

#include <string.h>

#include <protobuf-c/protobuf-c.h>

static weir_err render_chat(struct weir_serve *serve, struct call *call, struct weir_buf *out)
{
    const Weir__V1__Chat *chat = call->msg->chat;
    struct weir_chat_message *messages;

    if (!serve->opts.chat_template)
        return weir_fail_param(&call->why, "messages", WEIR_INVALID,
                               "the model has no chat template: use completions with a prompt");
    messages = weir_arena_alloc(&call->arena, (chat->n_messages + 1) * sizeof *messages);
    if (!messages)
        return weir_fail(&call->why, WEIR_NOMEM, "no memory for the messages");
    for (size_t i = 0; i < chat->n_messages; i++)
        messages[i] = (struct weir_chat_message){ weir_str(chat->messages[i]->role),
                                                  weir_str(chat->messages[i]->content) };
    struct weir_template_args args = {
        .messages = messages,
        .n_messages = (int)chat->n_messages,
        .add_generation_prompt = true,
        .bos = weir_tokenizer_bos(serve->opts.tokenizer),
        .eos = weir_tokenizer_eos(serve->opts.tokenizer),
        .now_unix = call->now_unix,
    };
    weir_err err = weir_template_render(serve->opts.chat_template, &args, out, &call->why);
    if (err == WEIR_INVALID && !call->why.param[0])
        memcpy(call->why.param, "messages", sizeof "messages");
    return err;
}

static weir_err tokenize(struct weir_serve *serve, struct call *call)
{
    const Weir__V1__GenerateRequest *msg = call->msg;
    bool is_chat = msg->input_case == WEIR__V1__GENERATE_REQUEST__INPUT_CHAT;
    uint32_t n_max = serve->info->n_context - 1; /* room for one token of output */
    struct weir_buf rendered;
    struct weir_str text;
    weir_err err = WEIR_OK;

    weir_buf_init(&rendered, 4 * (size_t)serve->opts.request_bytes_max);
    if (is_chat)
        err = render_chat(serve, call, &rendered);
    text = is_chat ? (struct weir_str){ weir_buf_ptr(&rendered), weir_buf_len(&rendered) }
                   : weir_str(msg->prompt);
    if (err == WEIR_OK)
        err = weir_tokenize(serve->opts.tokenizer, text, /* parse_special= */ true, /* add_bos= */ !is_chat,
                            n_max, &call->arena, &call->prompt, &call->why);
    weir_buf_release(&rendered);
    if (err == WEIR_TOOLARGE)
        return weir_fail_param(
            &call->why, is_chat ? "messages" : "prompt", WEIR_CONTEXT,
            "the prompt has more than %u tokens; the model's context is %u, output included", n_max,
            serve->info->n_context);
    if (err == WEIR_OK && call->prompt.n == 0)
        return weir_fail_param(&call->why, is_chat ? "messages" : "prompt", WEIR_INVALID,
                               "the prompt has no tokens");
    return err;
}

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
    weir_err err = tokenize(serve, call);
    return err == WEIR_OK ? compile_stops(call) : err;
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
