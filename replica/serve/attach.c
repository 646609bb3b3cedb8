/* attach.c - a router's attachment: frames in, calls begun and cancelled, an outbox of frames to go.
 *
 * The stream's callbacks come from one CQ thread, one at a time, so what only they touch needs no lock. The
 * table and the outbox are shared with the step thread and guarded by att->lock.
 *
 * [A1] A Begin is refused at once, before its chunks, when the queue is full: the router has other
 * candidates. [A2] Bytes of unfinished requests are bounded per attachment; so is the outbox: past it the
 * attachment is cut, and the router, which then knows that all its calls here are lost, starts afresh. [A3]
 * When the stream is gone every call of it is cancelled; none outlives it by more than a step. */
#include "replica/serve/serve_int.h"

#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#define PROTOCOL_VERSION 1

void attach_ref(struct attach *att)
{
    atomic_fetch_add_explicit(&att->refs, 1, memory_order_relaxed);
}

void attach_unref(struct attach *att)
{
    if (!att || atomic_fetch_sub_explicit(&att->refs, 1, memory_order_acq_rel) != 1)
        return;
    weir_rpc_stream_unref(att->stream);
    weir_buf_release(&att->outbox);
    pthread_mutex_destroy(&att->lock);
    weir_free(att);
}

/* ---- the table ---- */
static struct call **bucket(struct attach *att, uint64_t tag)
{
    return &att->calls[(tag ^ (tag >> 32)) % ATTACH_BUCKETS];
}

static struct call *table_find(struct attach *att, uint64_t tag)
{
    struct call *call = *bucket(att, tag);
    while (call && call->tag != tag)
        call = call->hash_next;
    return call;
}

static void table_remove(struct attach *att, struct call *call)
{
    struct call **at = bucket(att, call->tag);
    while (*at && *at != call)
        at = &(*at)->hash_next;
    if (!*at)
        return;
    *at = call->hash_next;
    att->n_calls--;
}

/* ---- the outbox ---- */
void frame_add(struct weir_buf *out, unsigned field, const ProtobufCMessage *msg)
{
    size_t len = protobuf_c_message_get_packed_size(msg);
    uint8_t head[12];
    size_t n = 0;

    head[n++] = (uint8_t)(field << 3 | 2); /* length-delimited; our field numbers are below 16 */
    for (uint64_t rest = len;; rest >>= 7) {
        head[n++] = (uint8_t)((rest & 127) | (rest > 127 ? 128 : 0));
        if (rest <= 127)
            break;
    }
    weir_buf_add(out, head, n);
    char *room = weir_buf_reserve(out, len ? len : 1);
    if (!room)
        return; /* the buffer says so: `failed` */
    protobuf_c_message_pack(msg, (uint8_t *)room);
    weir_buf_commit(out, len);
}

void attach_append(struct attach *att, struct weir_str pieces)
{
    bool cut = false;

    pthread_mutex_lock(&att->lock);
    if (!att->closed) {
        weir_buf_add(&att->outbox, pieces.ptr, pieces.len);
        cut = att->outbox.failed; /* [A2] the bound is the buffer's limit */
        att->closed = cut;
    }
    pthread_mutex_unlock(&att->lock);
    if (cut) {
        WEIR_WARN("attachment_cut", "router=%s reason=outbox over %u bytes", att->router,
                  att->serve->opts.outbox_bytes_max);
        weir_rpc_stream_cancel(att->stream);
    }
}

static void append_terminal(struct attach *att, const Weir__Fabric__V1__Terminal *terminal)
{
    struct weir_buf piece;

    weir_buf_init(&piece, 0);
    frame_add(&piece, 5, &terminal->base);
    if (!piece.failed)
        attach_append(att, (struct weir_str){ weir_buf_ptr(&piece), weir_buf_len(&piece) });
    weir_buf_release(&piece);
    send_wake(att->serve);
}

/* ---- calls ---- */
void call_unref(struct call *call)
{
    if (atomic_fetch_sub_explicit(&call->refs, 1, memory_order_acq_rel) != 1)
        return;
    choices_close(call);
    weir_grammar_unref(call->grammar);
    weir_free(call->data);
    weir_arena_release(&call->arena);
    attach_unref(call->att);
    weir_free(call);
}

void call_end(struct call *call, Weir__Fabric__V1__Terminal *terminal)
{
    struct attach *att = call->att;
    struct weir_serve *serve = att->serve;

    terminal->tag = call->tag;
    weir_counter_add(serve->metrics.calls[terminal->reason & 7], 1);
    pthread_mutex_lock(&att->lock);
    table_remove(att, call);
    if (call->receiving)
        att->receiving_bytes -= call->n_total;
    pthread_mutex_unlock(&att->lock);
    append_terminal(att, terminal);
    if (call->pending)
        atomic_fetch_sub(&serve->n_pending, 1);
    call->pending = false;
    atomic_fetch_sub(&serve->n_calls, 1);
    call_unref(call);
}

void call_end_err(struct call *call, weir_err err, const struct weir_why *why)
{
    const struct weir_err_info *info = weir_err_info(err);
    Weir__Fabric__V1__Terminal terminal = WEIR__FABRIC__V1__TERMINAL__INIT;
    static const struct weir_why none;

    why = why ? why : &none;
    if (err == WEIR_CANCELLED)
        terminal.reason = WEIR__FABRIC__V1__TERMINAL_REASON__TERMINAL_CANCELLED;
    else if (err == WEIR_FULL || err == WEIR_OVERLOADED || err == WEIR_UNAVAILABLE)
        terminal.reason = WEIR__FABRIC__V1__TERMINAL_REASON__TERMINAL_REJECTED;
    else if (info->http >= 400 && info->http < 500)
        terminal.reason = WEIR__FABRIC__V1__TERMINAL_REASON__TERMINAL_INVALID;
    else
        terminal.reason = WEIR__FABRIC__V1__TERMINAL_REASON__TERMINAL_FAILED;
    terminal.message = (char *)(uintptr_t)(why->text[0] ? why->text : info->text);
    terminal.param = (char *)(uintptr_t)why->param;
    terminal.code = (char *)(uintptr_t)info->name;
    call_end(call, &terminal);
}

static void refuse_begin(struct attach *att, uint64_t tag, weir_err err, const char *message)
{
    Weir__Fabric__V1__Terminal terminal = WEIR__FABRIC__V1__TERMINAL__INIT;

    terminal.tag = tag;
    terminal.reason = err == WEIR_TOOLARGE ? WEIR__FABRIC__V1__TERMINAL_REASON__TERMINAL_INVALID
                                           : WEIR__FABRIC__V1__TERMINAL_REASON__TERMINAL_REJECTED;
    terminal.message = (char *)(uintptr_t)message;
    terminal.code = (char *)(uintptr_t)weir_err_info(err)->name;
    weir_counter_add(att->serve->metrics.calls[terminal.reason & 7], 1);
    append_terminal(att, &terminal);
}

/* The request is whole: hand it to a text worker. */
static void call_received(struct call *call)
{
    struct attach *att = call->att;

    pthread_mutex_lock(&att->lock);
    att->receiving_bytes -= call->n_total;
    pthread_mutex_unlock(&att->lock);
    call->receiving = false;
    /* Cannot be full: n_pending bounds it. It is closed only when the replica stops, when nobody waits any
     * more. */
    if (text_push(att->serve, call) != WEIR_OK)
        call_end_err(call, WEIR_UNAVAILABLE, NULL);
}

static void call_add_data(struct call *call, ProtobufCBinaryData data)
{
    if (data.len > call->n_total - call->n_data) {
        struct weir_why why = { 0 };
        weir_err err = weir_fail(&why, WEIR_INVALID, "the request is longer than it announced");
        call_end_err(call, err, &why);
        return;
    }
    if (data.len)
        memcpy(call->data + call->n_data, data.data, data.len);
    call->n_data += (uint32_t)data.len;
    if (call->n_data == call->n_total)
        call_received(call);
}

static struct call *call_new(struct attach *att, const Weir__Fabric__V1__Begin *begin)
{
    struct call *call = weir_alloc0(sizeof *call);
    uint8_t *data = weir_alloc(begin->total_bytes ? begin->total_bytes : 1);

    if (!call || !data) {
        weir_free(call);
        weir_free(data);
        return NULL;
    }
    weir_arena_init(&call->arena, 8 * (size_t)att->serve->opts.request_bytes_max);
    call->data = data;
    call->n_total = begin->total_bytes;
    call->salt.len = begin->cache_salt.len;
    call->salt.ptr =
        weir_arena_strndup(&call->arena, (const char *)begin->cache_salt.data, begin->cache_salt.len);
    call->account.ptr = weir_arena_strndup(&call->arena, begin->account, strlen(begin->account));
    call->account.len = strlen(begin->account);
    if (!call->salt.ptr || !call->account.ptr) {
        weir_arena_release(&call->arena);
        weir_free(data);
        weir_free(call);
        return NULL;
    }
    atomic_init(&call->refs, 1);
    atomic_init(&call->cancelled, false);
    call->arrival = (struct step_msg){ .kind = STEP_NEW, .call = call };
    call->cancel = (struct step_msg){ .kind = STEP_CANCEL, .call = call };
    call->att = att;
    call->tag = begin->tag;
    if (begin->call_id.len == sizeof call->call_id)
        memcpy(call->call_id, begin->call_id.data, sizeof call->call_id);
    call->seed = begin->seed;
    call->now_unix = begin->now_unix;
    call->priority = begin->priority;
    call->arrived_ns = weir_now_ns();
    return call;
}

static void on_begin(struct attach *att, const Weir__Fabric__V1__Begin *begin)
{
    struct weir_serve *serve = att->serve;
    struct call *call;
    bool known, crowded;

    pthread_mutex_lock(&att->lock);
    known = table_find(att, begin->tag) != NULL;
    crowded = begin->total_bytes > serve->opts.receiving_bytes_max - att->receiving_bytes;
    pthread_mutex_unlock(&att->lock);
    if (known) { /* a tag is never used twice: a fault of the router, not a new call */
        weir_counter_add(serve->metrics.bad_frames, 1);
        return;
    }
    if (begin->total_bytes > serve->opts.request_bytes_max) {
        refuse_begin(att, begin->tag, WEIR_TOOLARGE, "the request is larger than a replica takes");
        return;
    }
    if (crowded || atomic_load(&serve->draining) ||
        atomic_load(&serve->n_pending) >= serve->opts.n_queue_max) {
        refuse_begin(att, begin->tag, WEIR_FULL, "the replica's queue is full"); /* [A1] */
        return;
    }
    call = call_new(att, begin);
    if (!call) {
        refuse_begin(att, begin->tag, WEIR_FULL, "the replica has no memory for the request");
        return;
    }
    attach_ref(att);
    call->receiving = call->pending = true;
    atomic_fetch_add(&serve->n_pending, 1);
    atomic_fetch_add(&serve->n_calls, 1);
    pthread_mutex_lock(&att->lock);
    call->hash_next = *bucket(att, call->tag);
    *bucket(att, call->tag) = call;
    att->n_calls++;
    att->receiving_bytes += call->n_total;
    pthread_mutex_unlock(&att->lock);
    call_add_data(call, begin->data);
}

static void on_chunk(struct attach *att, const Weir__Fabric__V1__Chunk *chunk)
{
    pthread_mutex_lock(&att->lock);
    struct call *call = table_find(att, chunk->tag);
    pthread_mutex_unlock(&att->lock);
    /* Unknown: refused or ended while its chunks were under way. */
    if (call && call->receiving)
        call_add_data(call, chunk->data);
}

static void cancel(struct attach *att, struct call *call)
{
    if (call->receiving) { /* still ours alone */
        call_end_err(call, WEIR_CANCELLED, NULL);
        return;
    }
    if (atomic_exchange(&call->cancelled, true))
        return;
    atomic_fetch_add_explicit(&call->refs, 1, memory_order_relaxed);
    if (weir_queue_push(&att->serve->step_queue, &call->cancel.node) != WEIR_OK)
        call_unref(call);
}

/* The table lock keeps the call from ending between the look-up and the reference. */
static void on_cancel(struct attach *att, uint64_t tag)
{
    struct call *call;

    pthread_mutex_lock(&att->lock);
    call = table_find(att, tag);
    if (call)
        atomic_fetch_add_explicit(&call->refs, 1, memory_order_relaxed);
    pthread_mutex_unlock(&att->lock);
    if (!call)
        return;
    cancel(att, call);
    call_unref(call);
}

/* [A3] */
static void cancel_all(struct attach *att)
{
    for (;;) {
        struct call *call = NULL;

        pthread_mutex_lock(&att->lock);
        for (size_t i = 0; i < ATTACH_BUCKETS && !call; i++) {
            call = att->calls[i];
            while (call && atomic_load(&call->cancelled))
                call = call->hash_next;
        }
        if (call)
            atomic_fetch_add_explicit(&call->refs, 1, memory_order_relaxed);
        pthread_mutex_unlock(&att->lock);
        if (!call)
            return;
        cancel(att, call);
        call_unref(call);
    }
}

/* ---- the stream ---- */
static void say_hello(struct attach *att)
{
    const struct weir_serve_opts *opts = &att->serve->opts;
    const struct weir_engine_info *info = att->serve->info;
    Weir__Fabric__V1__ReplicaHello hello = WEIR__FABRIC__V1__REPLICA_HELLO__INIT;
    struct weir_buf piece;

    hello.replica = (char *)(uintptr_t)opts->replica;
    hello.model = (char *)(uintptr_t)opts->model;
    hello.weights_hash = (ProtobufCBinaryData){ 32, (uint8_t *)(uintptr_t)info->weights_hash };
    hello.tokenizer_hash =
        (ProtobufCBinaryData){ 32, (uint8_t *)(uintptr_t)weir_tokenizer_hash(opts->tokenizer) };
    hello.template_hash = (ProtobufCBinaryData){ 32, (uint8_t *)(uintptr_t)opts->template_hash };
    hello.version = PROTOCOL_VERSION;
    hello.context_tokens = info->n_context;
    hello.slots = att->serve->n_slots;
    hello.queue_max = opts->n_queue_max;
    hello.request_bytes_max = opts->request_bytes_max;
    weir_buf_init(&piece, 0);
    frame_add(&piece, 1, &hello.base);
    if (atomic_load(&att->serve->draining))
        weir_buf_add(&piece, "\x38\x01", 2); /* drain = true */
    attach_append(att, (struct weir_str){ weir_buf_ptr(&piece), weir_buf_len(&piece) });
    weir_buf_release(&piece);
    send_wake(att->serve);
}

static bool on_hello(struct attach *att, const Weir__Fabric__V1__RouterHello *hello)
{
    if (att->said_hello || hello->version != PROTOCOL_VERSION) {
        WEIR_WARN("attachment_refused", "router=%s version=%u", hello->router, hello->version);
        return false;
    }
    strncpy(att->router, hello->router, sizeof att->router - 1);
    pthread_mutex_lock(&att->lock);
    att->said_hello = true; /* the sender looks at it */
    pthread_mutex_unlock(&att->lock);
    WEIR_INFO("router_attached", "router=%s peer=%.*s", att->router,
              WEIR_STR_FMT(weir_rpc_stream_peer(att->stream)));
    say_hello(att);
    return true;
}

static bool on_message(void *ctx, struct weir_rpc_stream *s, struct weir_str bytes)
{
    struct attach *att = ctx;
    Weir__Fabric__V1__RouterFrame *frame =
        weir__fabric__v1__router_frame__unpack(NULL, bytes.len, (const uint8_t *)bytes.ptr);
    bool good = frame && (att->said_hello || frame->hello);

    if (good && frame->hello)
        good = on_hello(att, frame->hello);
    if (!good) {
        weir_counter_add(att->serve->metrics.bad_frames, 1);
        weir_rpc_stream_cancel(s);
    } else {
        for (size_t i = 0; i < frame->n_cancels; i++)
            on_cancel(att, frame->cancels[i]);
        for (size_t i = 0; i < frame->n_begins; i++)
            on_begin(att, frame->begins[i]);
        for (size_t i = 0; i < frame->n_chunks; i++)
            on_chunk(att, frame->chunks[i]);
    }
    if (frame)
        weir__fabric__v1__router_frame__free_unpacked(frame, NULL);
    return true;
}

static void on_sent(void *ctx, struct weir_rpc_stream *s, bool ok)
{
    struct attach *att = ctx;

    (void)s;
    pthread_mutex_lock(&att->lock);
    att->sending = false;
    pthread_mutex_unlock(&att->lock);
    if (ok)
        attach_flush(att);
}

static void on_peer_done(void *ctx, struct weir_rpc_stream *s)
{
    (void)ctx;
    weir_rpc_stream_finish(s, 0, "", NULL, 0);
}

static void on_closed(void *ctx, struct weir_rpc_stream *s, int grpc_status, const char *message)
{
    struct attach *att = ctx;
    struct weir_serve *serve = att->serve;

    (void)s;
    WEIR_INFO("router_detached", "router=%s status=%d calls=%u why=%s", att->router, grpc_status,
              att->n_calls, message ? message : "");
    pthread_mutex_lock(&att->lock);
    att->closed = true;
    pthread_mutex_unlock(&att->lock);
    pthread_mutex_lock(&serve->attach_lock);
    for (struct attach **at = &serve->attaches; *at; at = &(*at)->next) {
        if (*at != att)
            continue;
        *at = att->next;
        serve->n_attaches--;
        attach_unref(att);
        break;
    }
    pthread_mutex_unlock(&serve->attach_lock);
    cancel_all(att);
    weir_gauge_add(serve->metrics.attachments, -1);
    attach_unref(att);
}

const struct weir_rpc_stream_ops attach_ops = {
    .on_message = on_message,
    .on_sent = on_sent,
    .on_peer_done = on_peer_done,
    .on_closed = on_closed,
};

weir_err attach_open(void *ctx, struct weir_rpc_stream *s, const struct weir_rpc_stream_ops **ret_ops,
                     void **ret_ctx, struct weir_why *why)
{
    struct weir_serve *serve = ctx;
    struct attach *att;
    bool room;

    pthread_mutex_lock(&serve->attach_lock);
    room = serve->n_attaches < ATTACH_MAX;
    serve->n_attaches += room;
    pthread_mutex_unlock(&serve->attach_lock);
    if (!room)
        return weir_fail(why, WEIR_FULL, "the replica has %d routers attached already", ATTACH_MAX);
    att = weir_alloc0(sizeof *att);
    if (!att) {
        pthread_mutex_lock(&serve->attach_lock);
        serve->n_attaches--;
        pthread_mutex_unlock(&serve->attach_lock);
        return weir_fail(why, WEIR_NOMEM, "no memory for an attachment");
    }
    att->serve = serve;
    att->stream = weir_rpc_stream_ref(s);
    atomic_init(&att->refs, 2); /* the callbacks' and the list's */
    pthread_mutex_init(&att->lock, NULL);
    weir_buf_init(&att->outbox, serve->opts.outbox_bytes_max);
    pthread_mutex_lock(&serve->attach_lock);
    att->next = serve->attaches;
    serve->attaches = att;
    pthread_mutex_unlock(&serve->attach_lock);
    weir_gauge_add(serve->metrics.attachments, 1);
    *ret_ops = &attach_ops;
    *ret_ctx = att;
    return WEIR_OK;
}
