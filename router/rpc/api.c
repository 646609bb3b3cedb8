/* api.c - the gRPC sink of a call, and the way from a CQ thread to a loop and back.
 *
 *   CQ thread: the message becomes a weir_request, checked      -> task `start`  -> loop: weir_call_start
 *   loop:      what the call says becomes events in the outbox  -> one send in flight, the next from on_sent
 * (CQ) CQ thread: the client left, or all is sent (on_closed)      -> task `closed` -> loop: cancel, free
 *
 *   [G1] `start` comes before `closed`: one CQ thread posts both, and a loop runs them in order.
 *   [G2] A client that does not read fills its own outbox; past the bound its call is cancelled.
 * Memory: one object per RPC with two references, the stream's and the loop's. */
#include "router/rpc/api.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "router/call/call.h"
#include "router/call/catalog.h"

struct weir_rpc_api {
    struct weir_rpc_api_opts opts;
    struct weir_rpc_handler handlers[WEIR_RPC_API_METHODS];
    atomic_uint next_loop;
};

struct rpc {
    struct weir_task start, closed;
    struct weir_rpc_api *api;
    struct weir_rpc_stream *stream;
    size_t i_loop;
    bool asked; /* CQ: the one message has come */

    /* guarded by lock */
    pthread_mutex_t lock;
    struct weir_buf outbox; /* messages, each after its length */
    bool sending, ending, ended;
    int status;
    char message[320];
    char code[40], param[96], request_id[WEIR_REQUEST_ID_MAX + 1];
    uint32_t retry_after_ms;

    /* loop */
    struct weir_request *req; /* until the call takes it */
    struct weir_call *call;
    uint64_t arrived_ns, created_s, first_token_ns;
    char id[48];
    char *model;
    bool perf, ids; /* asked for: perf_metrics, return_token_ids */
};

/* ---- sending: any thread ---- */
static void finish_locked(struct rpc *r)
{
    struct weir_rpc_meta meta[4];
    char retry[16];
    int n = 0;

    if (r->ended)
        return;
    r->ended = true;
    meta[n++] = (struct weir_rpc_meta){ WEIR_STR("x-request-id"), weir_str(r->request_id) };
    if (r->code[0])
        meta[n++] = (struct weir_rpc_meta){ WEIR_STR("weir-error-code"), weir_str(r->code) };
    if (r->param[0])
        meta[n++] = (struct weir_rpc_meta){ WEIR_STR("weir-error-param"), weir_str(r->param) };
    if (r->retry_after_ms) {
        snprintf(retry, sizeof retry, "%u", r->retry_after_ms);
        meta[n++] = (struct weir_rpc_meta){ WEIR_STR("retry-after-ms"), weir_str(retry) };
    }
    weir_rpc_stream_finish(r->stream, r->status, r->message, meta + (r->request_id[0] == 0),
                           n - (r->request_id[0] == 0));
}

/* Sends the oldest message when none is in flight; then, if the call is over, the status. */
static void pump_locked(struct rpc *r)
{
    uint32_t len;

    if (r->sending || r->ended)
        return;
    if (weir_buf_len(&r->outbox) == 0) {
        if (r->ending)
            finish_locked(r);
        return;
    }
    memcpy(&len, weir_buf_ptr(&r->outbox), sizeof len);
    struct weir_str message = { weir_buf_ptr(&r->outbox) + sizeof len, len };
    r->sending = weir_rpc_stream_send(r->stream, message) == WEIR_OK;
    weir_buf_consume(&r->outbox, sizeof len + len);
}

static bool send_message(struct rpc *r, const ProtobufCMessage *message)
{
    uint32_t len = (uint32_t)protobuf_c_message_get_packed_size(message);

    pthread_mutex_lock(&r->lock);
    weir_buf_add(&r->outbox, &len, sizeof len);
    char *room = weir_buf_reserve(&r->outbox, len ? len : 1);
    if (room) {
        protobuf_c_message_pack(message, (uint8_t *)room);
        weir_buf_commit(&r->outbox, len);
    }
    bool fits = !r->outbox.failed; /* [G2] */
    if (fits)
        pump_locked(r);
    pthread_mutex_unlock(&r->lock);
    return fits;
}

static void finish(struct rpc *r, weir_err err, const struct weir_why *why, uint32_t retry_after_ms)
{
    const struct weir_err_info *info = weir_err_info(err);

    pthread_mutex_lock(&r->lock);
    r->status = info->grpc;
    if (err != WEIR_OK) {
        snprintf(r->message, sizeof r->message, "%s", why && why->text[0] ? why->text : info->text);
        snprintf(r->code, sizeof r->code, "%s", info->code);
        snprintf(r->param, sizeof r->param, "%s", why ? why->param : "");
        r->retry_after_ms = retry_after_ms;
    }
    r->ending = true;
    pump_locked(r);
    pthread_mutex_unlock(&r->lock);
}

/* ---- the sink: loop ---- */
static bool send_event(struct rpc *r, Weir__V1__GenerateEvent *event)
{
    return send_message(r, &event->base);
}

static void on_started(void *ctx, const struct weir_call_started *started)
{
    struct rpc *r = ctx;
    Weir__V1__GenerateEvent event = WEIR__V1__GENERATE_EVENT__INIT;
    Weir__V1__Started message = WEIR__V1__STARTED__INIT;
    char replica[256];

    snprintf(replica, sizeof replica, "%.*s", WEIR_STR_FMT(started->replica));
    r->first_token_ns = started->first_token_ns;
    message.id = r->id;
    message.model = r->model;
    message.replica = replica;
    message.created = r->created_s;
    message.prompt_tokens = started->prompt_tokens;
    message.cached_tokens = started->cached_tokens;
    event.event_case = WEIR__V1__GENERATE_EVENT__EVENT_STARTED;
    event.started = &message;
    (void)!send_event(r, &event); /* the outbox is empty yet; a failure shows at the first delta */
}

/* protobuf-c strings end at a NUL, so one in the text is told as U+FFFD. NULL: no memory. */
static char *copy_text(struct weir_arena *arena, ProtobufCBinaryData text)
{
    size_t n_nul = 0, n = 0;

    for (size_t i = 0; i < text.len; i++)
        n_nul += text.data[i] == 0;
    char *copy = weir_arena_alloc(arena, text.len + 2 * n_nul + 1);
    for (size_t i = 0; copy && i < text.len; i++) {
        if (text.data[i]) {
            copy[n++] = (char)text.data[i];
        } else {
            memcpy(copy + n, "\xef\xbf\xbd", 3);
            n += 3;
        }
    }
    if (copy)
        copy[n] = '\0';
    return copy;
}

static bool copy_calls(struct weir_arena *arena, const Weir__Fabric__V1__Delta *from, Weir__V1__Delta *to)
{
    if (from->n_tool_calls == 0)
        return true;
    to->tool_calls = weir_arena_alloc(arena, from->n_tool_calls * sizeof *to->tool_calls);
    for (size_t i = 0; to->tool_calls && i < from->n_tool_calls; i++) {
        Weir__V1__ToolCallDelta *call = weir_arena_alloc(arena, sizeof *call);
        if (!call)
            return false;
        weir__v1__tool_call_delta__init(call);
        call->index = from->tool_calls[i]->index;
        call->id = from->tool_calls[i]->id;
        call->name = copy_text(arena, from->tool_calls[i]->name);
        call->arguments = copy_text(arena, from->tool_calls[i]->arguments);
        if (!call->name || !call->arguments)
            return false;
        to->tool_calls[to->n_tool_calls++] = call;
    }
    return to->tool_calls != NULL;
}

static bool send_delta_with(struct rpc *r, const Weir__Fabric__V1__Delta *delta, struct weir_arena *arena)
{
    Weir__V1__GenerateEvent event = WEIR__V1__GENERATE_EVENT__INIT;
    Weir__V1__Delta message = WEIR__V1__DELTA__INIT;
    Weir__V1__PromptInfo prompt = WEIR__V1__PROMPT_INFO__INIT;

    message.choice = delta->choice;
    message.text = copy_text(arena, delta->text);
    message.reasoning = copy_text(arena, delta->reasoning);
    message.raw = copy_text(arena, delta->raw);
    message.n_logprobs = delta->n_logprobs;
    message.logprobs = delta->logprobs;
    if (r->ids) {
        message.n_token_ids = delta->n_ids;
        message.token_ids = delta->ids;
    }
    if (delta->prompt) {
        prompt.n_ids = delta->prompt->n_ids;
        prompt.ids = delta->prompt->ids;
        prompt.text = copy_text(arena, delta->prompt->text);
        message.prompt = &prompt;
    }
    if (!message.text || !message.reasoning || !message.raw || !prompt.text ||
        !copy_calls(arena, delta, &message))
        return false;
    event.event_case = WEIR__V1__GENERATE_EVENT__EVENT_DELTA;
    event.delta = &message;
    return send_event(r, &event);
}

static bool send_delta(struct rpc *r, const Weir__Fabric__V1__Delta *delta)
{
    struct weir_arena arena;

    weir_arena_init(&arena, 0);
    bool sent = send_delta_with(r, delta, &arena);
    weir_arena_release(&arena);
    return sent;
}

/* Half a character, or text that may become a stop string or a call: nothing to say yet. */
static bool is_silent(const struct rpc *r, const Weir__Fabric__V1__Delta *delta)
{
    return delta->text.len == 0 && delta->reasoning.len == 0 && delta->raw.len == 0 &&
           delta->n_logprobs == 0 && delta->n_tool_calls == 0 && !delta->prompt &&
           !(r->ids && delta->n_ids > 0);
}

static bool send_finished(struct rpc *r, const Weir__Fabric__V1__Delta *delta)
{
    Weir__V1__GenerateEvent event = WEIR__V1__GENERATE_EVENT__INIT;
    Weir__V1__Finished message = WEIR__V1__FINISHED__INIT;

    message.choice = delta->choice;
    message.reason = delta->finish;
    event.event_case = WEIR__V1__GENERATE_EVENT__EVENT_FINISHED;
    event.finished = &message;
    return send_event(r, &event);
}

static bool on_delta(void *ctx, const Weir__Fabric__V1__Delta *delta)
{
    struct rpc *r = ctx;
    bool sent = is_silent(r, delta) || send_delta(r, delta);

    if (sent && delta->finish != WEIR__V1__FINISH_REASON__FINISH_NONE)
        sent = send_finished(r, delta);
    if (!sent) {
        r->call = NULL; /* it is cancelled, and says nothing more */
        weir_rpc_stream_cancel(r->stream);
    }
    return sent;
}

static void on_done(void *ctx, const struct weir_call_done *done)
{
    struct rpc *r = ctx;
    Weir__V1__GenerateEvent event = WEIR__V1__GENERATE_EVENT__INIT;
    Weir__V1__Done message = WEIR__V1__DONE__INIT;
    Weir__V1__Usage usage = WEIR__V1__USAGE__INIT;
    Weir__V1__Perf perf = WEIR__V1__PERF__INIT;
    uint64_t now_ns = weir_now_ns();

    usage.prompt_tokens = done->prompt_tokens;
    usage.cached_tokens = done->cached_tokens;
    usage.completion_tokens = done->completion_tokens;
    message.usage = &usage;
    if (r->perf) {
        perf.queue_s = (double)done->queue_ns / 1e9;
        perf.prefill_s = (double)done->prefill_ns / 1e9;
        perf.generation_s = (double)done->generation_ns / 1e9;
        perf.time_to_first_token_s = (double)(r->first_token_ns - r->arrived_ns) / 1e9;
        perf.processing_s = (double)(now_ns - r->arrived_ns) / 1e9;
        message.perf = &perf;
    }
    event.event_case = WEIR__V1__GENERATE_EVENT__EVENT_DONE;
    event.done = &message;
    r->call = NULL;
    finish(r, send_event(r, &event) ? WEIR_OK : WEIR_NOMEM, NULL, 0);
}

static void on_failed(void *ctx, weir_err err, const struct weir_why *why, uint32_t retry_after_ms)
{
    struct rpc *r = ctx;

    r->call = NULL;
    finish(r, err, why, retry_after_ms);
}

static const struct weir_call_sink sink = { on_started, on_delta, on_done, on_failed };

/* ---- on the loop ---- */
static void run_start(struct weir_task *task)
{
    struct rpc *r = (struct rpc *)((char *)task - offsetof(struct rpc, start));
    struct weir_callset *set = r->api->opts.sets[r->i_loop];
    struct weir_request *req = r->req;
    char hex[33];

    r->req = NULL;
    weir_callset_mint(set, req);
    weir_request_set_id(req, weir_rpc_stream_meta(r->stream, "x-request-id"));
    weir_hex(req->call_id, sizeof req->call_id, hex);
    bool chat = req->msg->input_case == WEIR__V1__GENERATE_REQUEST__INPUT_CHAT;
    snprintf(r->id, sizeof r->id, "%s-%s", chat ? "chatcmpl" : "cmpl", hex);
    pthread_mutex_lock(&r->lock);
    memcpy(r->request_id, req->request_id, sizeof r->request_id);
    pthread_mutex_unlock(&r->lock);
    r->arrived_ns = req->arrived_ns;
    r->created_s = req->created_s;
    r->perf = req->msg->perf_metrics;
    r->ids = req->msg->return_token_ids;
    r->model = weir_strdup(req->msg->model);
    if (!r->model) {
        weir_request_close(req);
        finish(r, WEIR_NOMEM, NULL, 0);
        return;
    }
    struct weir_call *call = NULL;
    weir_call_start(set, req, &sink, r, &call);
    r->call = call;
}

static void run_closed(struct weir_task *task)
{
    struct rpc *r = (struct rpc *)((char *)task - offsetof(struct rpc, closed));

    if (r->call)
        weir_call_cancel(r->call);
    weir_request_close(r->req);
    weir_rpc_stream_unref(r->stream);
    weir_buf_release(&r->outbox);
    pthread_mutex_destroy(&r->lock);
    weir_free(r->model);
    weir_free(r);
}

/* ---- on the CQ thread ---- */
static weir_err authenticate(struct rpc *r, struct weir_arena *arena, struct weir_str *ret_account,
                             struct weir_why *why)
{
    return weir_keys_check(r->api->opts.keys, weir_rpc_stream_meta(r->stream, "authorization"), arena,
                           ret_account, why);
}

static weir_err copy_meta(struct rpc *r, struct weir_request *req, const char *key, struct weir_str *ret,
                          struct weir_why *why)
{
    struct weir_str value = weir_rpc_stream_meta(r->stream, key);
    char *copy = weir_arena_strndup(&req->arena, value.len ? value.ptr : "", value.len);

    if (!copy)
        return weir_fail(why, WEIR_NOMEM, "no memory for the request");
    *ret = (struct weir_str){ copy, value.len };
    return WEIR_OK;
}

static weir_err fill(struct rpc *r, struct weir_request *req, struct weir_str bytes, struct weir_why *why)
{
    ProtobufCAllocator allocator;
    weir_err err = authenticate(r, &req->arena, &req->account, why);

    if (err == WEIR_OK)
        err = copy_meta(r, req, "x-multi-turn-session-id", &req->session, why);
    if (err == WEIR_OK && req->session.len == 0)
        err = copy_meta(r, req, "x-session-affinity", &req->session, why);
    if (err == WEIR_OK)
        err = copy_meta(r, req, "x-prompt-cache-isolation-key", &req->isolation, why);
    if (err != WEIR_OK)
        return err;
    weir_pb_allocator(&allocator, &req->arena);
    Weir__V1__GenerateRequest *msg =
        weir__v1__generate_request__unpack(&allocator, bytes.len, (const uint8_t *)bytes.ptr);
    if (!msg)
        return weir_fail(why, WEIR_INVALID, "the message is not a weir.v1.GenerateRequest");
    /* protobuf-c cuts a string at a NUL, so that what is checked and served would not be what was sent: what it
     * understood is then shorter than what came. */
    if (memchr(bytes.ptr, 0, bytes.len) && weir__v1__generate_request__get_packed_size(msg) < bytes.len)
        return weir_fail(why, WEIR_INVALID, "a string holds a NUL");
    req->msg = msg;
    req->arrived_ns = weir_now_ns();
    req->created_s = weir_wall_ns() / WEIR_S;
    return weir_request_check(req, why);
}

static bool on_generate(void *ctx, struct weir_rpc_stream *s, struct weir_str bytes)
{
    struct rpc *r = ctx;
    struct weir_why why = { 0 };

    (void)s;
    if (r->asked) /* one request a call; more is a client's mistake that harms nobody */
        return true;
    r->asked = true;
    struct weir_request *req = weir_request_open();
    if (!req) {
        finish(r, WEIR_NOMEM, NULL, 0);
        return true;
    }
    weir_err err = fill(r, req, bytes, &why);
    if (err != WEIR_OK) {
        weir_request_close(req);
        finish(r, err, &why, err == WEIR_UNAVAILABLE ? 1000 : 0);
        return true;
    }
    r->req = req;
    weir_loop_post(r->api->opts.loops[r->i_loop], &r->start);
    return true;
}

struct model_list {
    struct weir_arena arena;
    Weir__V1__ListModelsResponse message;
    Weir__V1__Model *models[1024];
};

static void add_model(void *ctx, const struct weir_fleet_model *from)
{
    struct model_list *list = ctx;
    size_t n = list->message.n_models;

    if (n == sizeof list->models / sizeof *list->models)
        return;
    Weir__V1__Model *model = weir_arena_alloc(&list->arena, sizeof *model);
    char *id = weir_arena_strndup(&list->arena, from->id.ptr, from->id.len);
    if (!model || !id)
        return;
    weir__v1__model__init(model);
    model->id = id;
    model->created = from->created_s;
    model->replicas = from->n_usable;
    list->models[n] = model;
    list->message.n_models = n + 1;
}

static bool on_list_models(void *ctx, struct weir_rpc_stream *s, struct weir_str bytes)
{
    struct rpc *r = ctx;
    struct model_list *list;
    struct weir_str account;
    struct weir_why why = { 0 };

    (void)s;
    (void)bytes;
    if (r->asked)
        return true;
    r->asked = true;
    list = weir_alloc0(sizeof *list);
    if (!list) {
        finish(r, WEIR_NOMEM, NULL, 0);
        return true;
    }
    weir_arena_init(&list->arena, 0);
    weir_err err = authenticate(r, &list->arena, &account, &why);
    if (err == WEIR_OK) {
        weir__v1__list_models_response__init(&list->message);
        list->message.models = list->models;
        weir_catalog_list(r->api->opts.keys, r->api->opts.fleet, account, add_model, list);
        err = send_message(r, &list->message.base) ? WEIR_OK : WEIR_NOMEM;
    }
    finish(r, err, &why, 0);
    weir_arena_release(&list->arena);
    weir_free(list);
    return true;
}

static void on_sent(void *ctx, struct weir_rpc_stream *s, bool ok)
{
    struct rpc *r = ctx;

    (void)s;
    pthread_mutex_lock(&r->lock);
    r->sending = false;
    if (ok)
        pump_locked(r);
    pthread_mutex_unlock(&r->lock);
}

static void on_peer_done(void *ctx, struct weir_rpc_stream *s)
{
    struct rpc *r = ctx;
    struct weir_why why = { 0 };

    (void)s;
    if (!r->asked)
        finish(r, weir_fail(&why, WEIR_INVALID, "the call carried no request"), &why, 0);
}

static void on_closed(void *ctx, struct weir_rpc_stream *s, int grpc_status, const char *message)
{
    struct rpc *r = ctx;

    (void)s;
    (void)grpc_status;
    (void)message;
    weir_loop_post(r->api->opts.loops[r->i_loop], &r->closed); /* [G1] */
}

static weir_err open_rpc(struct weir_rpc_api *api, struct weir_rpc_stream *s, void **ret_ctx,
                         struct weir_why *why)
{
    struct rpc *r = weir_alloc0(sizeof *r);

    if (!r)
        return weir_fail(why, WEIR_NOMEM, "no memory for the call");
    r->api = api;
    r->stream = weir_rpc_stream_ref(s);
    r->i_loop = atomic_fetch_add_explicit(&api->next_loop, 1, memory_order_relaxed) % api->opts.n_loops;
    r->start.run = run_start;
    r->closed.run = run_closed;
    pthread_mutex_init(&r->lock, NULL);
    weir_buf_init(&r->outbox, api->opts.outbox_bytes_max);
    *ret_ctx = r;
    return WEIR_OK;
}

static weir_err open_generate(void *ctx, struct weir_rpc_stream *s,
                              const struct weir_rpc_stream_ops **ret_ops, void **ret_ctx,
                              struct weir_why *why)
{
    static const struct weir_rpc_stream_ops ops = { on_generate, on_sent, on_peer_done, on_closed };

    *ret_ops = &ops;
    return open_rpc(ctx, s, ret_ctx, why);
}

static weir_err open_list_models(void *ctx, struct weir_rpc_stream *s,
                                 const struct weir_rpc_stream_ops **ret_ops, void **ret_ctx,
                                 struct weir_why *why)
{
    static const struct weir_rpc_stream_ops ops = { on_list_models, on_sent, on_peer_done, on_closed };

    *ret_ops = &ops;
    return open_rpc(ctx, s, ret_ctx, why);
}

weir_err weir_rpc_api_open(const struct weir_rpc_api_opts *opts, struct weir_rpc_api **ret,
                           struct weir_why *why)
{
    struct weir_rpc_api *api = weir_alloc0(sizeof *api);

    if (!api)
        return weir_fail(why, WEIR_NOMEM, "no memory for the gRPC API");
    api->opts = *opts;
    api->handlers[0] = (struct weir_rpc_handler){ "/weir.v1.Inference/Generate", open_generate, api };
    api->handlers[1] = (struct weir_rpc_handler){ "/weir.v1.Inference/ListModels", open_list_models, api };
    *ret = api;
    return WEIR_OK;
}

const struct weir_rpc_handler *weir_rpc_api_handlers(const struct weir_rpc_api *api)
{
    return api->handlers;
}

void weir_rpc_api_close(struct weir_rpc_api *api)
{
    weir_free(api);
}
