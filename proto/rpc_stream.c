/* rpc_stream.c - one call, either end, as a stream of messages.
 *
 * The core wants one operation of each kind at a time and says when each is done; this file turns that into
 * callbacks. [S1] At most one message, half close or status is in the core (`out`); the last of them queues
 * behind the others. [S2] At most one receive is posted; none while on_message runs, so its bytes stay. [S3]
 * on_closed is the last callback: the end is here and no batch is left in the core (n_pending). [S4] The
 * core's call goes with on_closed, however long somebody keeps a reference: a stream kept too long holds
 *        memory, never a connection or a server's end.
 * A batch is decided under the lock, which counts it, and started outside: whoever set `out` or `recv` alone
 * starts it. The core takes the call's own locks inside, and its thread may need ours to go on.
 *
 * Threads: callbacks on the queue's thread; the rest from anywhere. Memory: counted; the core's part is freed
 * on the queue's thread. Not here: who makes calls (rpc_client.c, rpc_server.c). */
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "proto/rpc_int.h"

#define STATUS_TEXT_MAX 1024 /* a longer one is cut */

static void on_opened(struct rpc_tag *tag, bool ok);
static void on_received(struct rpc_tag *tag, bool ok);
static void on_out_done(struct rpc_tag *tag, bool ok);
static void on_ended(struct rpc_tag *tag, bool ok);

/* ---- memory ---- */
struct weir_rpc_stream *rpc_stream_new(struct weir_rpc *rpc)
{
    struct weir_rpc_stream *s = weir_alloc0(sizeof *s);

    if (!s)
        return NULL;
    atomic_init(&s->refs, 1);
    s->rpc = rpc;
    s->deadline_ns = UINT64_MAX;
    s->open_tag = (struct rpc_tag){ on_opened, s };
    s->recv_tag = (struct rpc_tag){ on_received, s };
    s->send_tag = (struct rpc_tag){ on_out_done, s };
    s->end_tag = (struct rpc_tag){ on_ended, s };
    grpc_call_details_init(&s->details);
    grpc_metadata_array_init(&s->meta);
    grpc_metadata_array_init(&s->headers);
    s->status_text = grpc_empty_slice();
    pthread_mutex_init(&s->lock, /* attr= */ NULL);
    atomic_fetch_add_explicit(&rpc->n_streams, 1, memory_order_relaxed);
    return s;
}

struct weir_rpc_stream *weir_rpc_stream_ref(struct weir_rpc_stream *s)
{
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    return s;
}

void weir_rpc_stream_unref(struct weir_rpc_stream *s)
{
    if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) > 1)
        return;
    pthread_mutex_destroy(&s->lock);
    weir_free(s);
}

static void release_core(struct weir_rpc_stream *s, grpc_call *call)
{
    if (s->received)
        grpc_byte_buffer_destroy(s->received);
    grpc_metadata_array_destroy(&s->meta);
    grpc_metadata_array_destroy(&s->headers);
    grpc_call_details_destroy(&s->details);
    grpc_slice_unref(s->status_text);
    rpc_meta_free(s->meta_out, s->n_meta_out);
    if (call)
        grpc_call_unref(call);
    atomic_fetch_sub_explicit(&s->rpc->n_streams, 1, memory_order_relaxed);
    if (s->channel)
        rpc_channel_unref(s->channel);
    if (s->server)
        rpc_server_left(s->server);
}

void rpc_stream_drop(struct weir_rpc_stream *s)
{
    release_core(s, s->call);
    weir_rpc_stream_unref(s);
}

/* ---- metadata ---- */
void rpc_meta_free(grpc_metadata *meta, size_t n_meta)
{
    for (size_t i = 0; i < n_meta; i++) {
        grpc_slice_unref(meta[i].key);
        grpc_slice_unref(meta[i].value);
    }
    weir_free(meta);
}

static bool is_legal(const grpc_metadata *pair)
{
    return grpc_header_key_is_legal(pair->key) &&
           (grpc_is_binary_header(pair->key) || grpc_header_nonbin_value_is_legal(pair->value));
}

weir_err rpc_meta_build(const struct weir_rpc_meta *meta, int n_meta, grpc_metadata **ret,
                        struct weir_why *why)
{
    grpc_metadata *pairs = weir_calloc((size_t)n_meta + 1, sizeof *pairs);

    if (!pairs)
        return weir_fail(why, WEIR_NOMEM, "rpc: no memory for metadata");
    for (int i = 0; i < n_meta; i++) {
        pairs[i].key = grpc_slice_from_copied_buffer(meta[i].key.ptr, meta[i].key.len);
        pairs[i].value = grpc_slice_from_copied_buffer(meta[i].value.ptr, meta[i].value.len);
        if (is_legal(&pairs[i]))
            continue;
        rpc_meta_free(pairs, (size_t)i + 1);
        return weir_fail(why, WEIR_INVALID,
                         "rpc: metadata '%.*s': not a lower-case key with a printable value",
                         WEIR_STR_FMT(meta[i].key));
    }
    *ret = pairs;
    return WEIR_OK;
}

/* ---- the end ---- */
static void tell_closed(struct weir_rpc_stream *s)
{
    char text[STATUS_TEXT_MAX] = "";
    int status = s->cancelled ? GRPC_STATUS_CANCELLED : GRPC_STATUS_OK;

    if (!s->server) {
        size_t len = GRPC_SLICE_LENGTH(s->status_text);

        len = len < sizeof text ? len : sizeof text - 1;
        memcpy(text, GRPC_SLICE_START_PTR(s->status_text), len);
        text[len] = '\0';
        status = (int)s->status;
    }
    s->ops->on_closed(s->ctx, s, status, text);
}

/* One batch has left the core. With the lock, which it gives up; the stream may be gone when it returns. [S3]
 */
static void batch_done_unlock(struct weir_rpc_stream *s)
{
    grpc_call *call = NULL;
    bool last = --s->n_pending == 0 && s->ended;

    if (last) {
        call = s->call;
        s->call = NULL;
        s->closed = true;
    }
    pthread_mutex_unlock(&s->lock);
    if (!last)
        return;
    tell_closed(s);
    release_core(s, call); /* [S4] */
    weir_rpc_stream_unref(s);
}

static void on_ended(struct rpc_tag *tag, bool ok)
{
    struct weir_rpc_stream *s = tag->owner;

    (void)ok; /* this one never fails */
    pthread_mutex_lock(&s->lock);
    s->ended = true;
    batch_done_unlock(s);
}

static void on_opened(struct rpc_tag *tag, bool ok)
{
    struct weir_rpc_stream *s = tag->owner;

    (void)ok; /* the status says why not */
    pthread_mutex_lock(&s->lock);
    batch_done_unlock(s);
}

void weir_rpc_stream_cancel(struct weir_rpc_stream *s)
{
    pthread_mutex_lock(&s->lock);
    grpc_call *call = s->call;
    if (call)
        grpc_call_ref(call);
    pthread_mutex_unlock(&s->lock);
    if (!call)
        return;
    grpc_call_cancel(call, /* reserved= */ NULL);
    grpc_call_unref(call);
}

/* ---- receiving ---- */
/* Whoever set `recv` to POSTED, and counted it. [S2] */
static void start_receive(struct weir_rpc_stream *s)
{
    grpc_op op = { .op = GRPC_OP_RECV_MESSAGE };

    op.data.recv_message.recv_message = &s->received;
    core_start(s->call, &op, 1, &s->recv_tag);
}

static bool deliver(struct weir_rpc_stream *s, grpc_byte_buffer *buffer)
{
    grpc_byte_buffer_reader reader;

    if (!s->ops->on_message)
        return true;
    if (!grpc_byte_buffer_reader_init(&reader, buffer)) {
        weir_rpc_stream_cancel(s); /* a message that can't be read must not be skipped in silence */
        return true;
    }
    grpc_slice slice = grpc_byte_buffer_reader_readall(&reader); /* no copy when it is one slice */
    grpc_byte_buffer_reader_destroy(&reader);
    struct weir_str bytes = { (const char *)GRPC_SLICE_START_PTR(slice), GRPC_SLICE_LENGTH(slice) };
    bool go_on = s->ops->on_message(s->ctx, s, bytes);
    grpc_slice_unref(slice);
    return go_on;
}

/* No message: a half close, or the call is over and its end on the way; the core says the same of both,
 * unless the end has overtaken this. */
static void receive_over(struct weir_rpc_stream *s, bool ok)
{
    pthread_mutex_lock(&s->lock);
    s->recv = RPC_RECV_ENDED;
    bool tell = s->server && ok && !s->ended && !s->no_more && s->ops->on_peer_done;
    pthread_mutex_unlock(&s->lock);
    if (tell)
        s->ops->on_peer_done(s->ctx, s);
    pthread_mutex_lock(&s->lock);
    batch_done_unlock(s);
}

static void on_received(struct rpc_tag *tag, bool ok)
{
    struct weir_rpc_stream *s = tag->owner;
    grpc_byte_buffer *buffer = s->received;

    s->received = NULL;
    if (!buffer || !ok) {
        if (buffer)
            grpc_byte_buffer_destroy(buffer);
        receive_over(s, ok);
        return;
    }
    pthread_mutex_lock(&s->lock);
    s->recv = RPC_RECV_CALLBACK;
    s->resume = false;
    pthread_mutex_unlock(&s->lock);
    bool go_on = deliver(s, buffer);
    grpc_byte_buffer_destroy(buffer);

    pthread_mutex_lock(&s->lock);
    if (!go_on && !s->resume) {
        s->recv = RPC_RECV_PAUSED;
        batch_done_unlock(s);
        return;
    }
    s->recv = RPC_RECV_POSTED; /* counted as the one that is done */
    pthread_mutex_unlock(&s->lock);
    start_receive(s);
}

void weir_rpc_stream_resume(struct weir_rpc_stream *s)
{
    pthread_mutex_lock(&s->lock);
    bool go = s->recv == RPC_RECV_PAUSED && !s->closed;
    if (go) {
        s->recv = RPC_RECV_POSTED;
        s->n_pending++;
    }
    s->resume = s->recv == RPC_RECV_CALLBACK; /* on_message is about to say false */
    pthread_mutex_unlock(&s->lock);
    if (go)
        start_receive(s);
}

/* ---- sending ---- */
static void start_message(struct weir_rpc_stream *s, struct weir_str bytes, bool with_headers)
{
    grpc_slice slice = grpc_slice_malloc(bytes.len);
    grpc_op ops[2] = { 0 };

    if (bytes.len > 0)
        memcpy(GRPC_SLICE_START_PTR(slice), bytes.ptr, bytes.len);
    grpc_byte_buffer *buffer = grpc_raw_byte_buffer_create(&slice, 1);
    grpc_slice_unref(slice);
    ops[0].op = GRPC_OP_SEND_MESSAGE;
    ops[0].data.send_message.send_message = buffer;
    ops[1].op = GRPC_OP_SEND_INITIAL_METADATA;
    core_start(s->call, ops, with_headers ? 2 : 1, &s->send_tag);
    grpc_byte_buffer_destroy(buffer); /* our handle; the slices went with the operation */
}

/* The half close or the status: whoever set `out` to it, and counted it. [S1] */
static void start_last(struct weir_rpc_stream *s, bool with_headers)
{
    grpc_op ops[2] = { 0 };

    ops[0].op = s->server ? GRPC_OP_SEND_STATUS_FROM_SERVER : GRPC_OP_SEND_CLOSE_FROM_CLIENT;
    if (s->server) {
        ops[0].data.send_status_from_server.status = s->status;
        ops[0].data.send_status_from_server.status_details = &s->status_text;
        ops[0].data.send_status_from_server.trailing_metadata = s->meta_out;
        ops[0].data.send_status_from_server.trailing_metadata_count = s->n_meta_out;
    }
    ops[1].op = GRPC_OP_SEND_INITIAL_METADATA;
    core_start(s->call, ops, with_headers ? 2 : 1, &s->send_tag);
}

/* With the lock: claim the way out for `what`. True: the headers go with it. */
static bool claim_out(struct weir_rpc_stream *s, enum rpc_out what)
{
    bool with_headers = s->server && !s->headers_sent;

    s->out = what;
    s->headers_sent = true;
    s->n_pending++;
    return with_headers;
}

weir_err weir_rpc_stream_send(struct weir_rpc_stream *s, struct weir_str bytes)
{
    weir_err rc = WEIR_OK;
    bool with_headers = false;

    pthread_mutex_lock(&s->lock);
    if (s->closed || s->ended || s->no_more)
        rc = WEIR_UNAVAILABLE;
    else if (s->out != RPC_OUT_NONE)
        rc = WEIR_FULL;
    else
        with_headers = claim_out(s, RPC_OUT_MESSAGE);
    pthread_mutex_unlock(&s->lock);
    if (rc == WEIR_OK)
        start_message(s, bytes, with_headers);
    return rc;
}

/* With the lock, which it gives up: no more after what is in the core. */
static void last_unlock(struct weir_rpc_stream *s)
{
    bool go = s->out == RPC_OUT_NONE, with_headers = false;

    s->no_more = true;
    s->last_waits = !go;
    if (go)
        with_headers = claim_out(s, s->server ? RPC_OUT_STATUS : RPC_OUT_HALF_CLOSE);
    pthread_mutex_unlock(&s->lock);
    if (go)
        start_last(s, with_headers);
}

static void on_out_done(struct rpc_tag *tag, bool ok)
{
    struct weir_rpc_stream *s = tag->owner;

    pthread_mutex_lock(&s->lock);
    bool message = s->out == RPC_OUT_MESSAGE;
    s->out = RPC_OUT_NONE;
    if (s->last_waits)
        last_unlock(s); /* before on_sent: nothing may slip in between */
    else
        pthread_mutex_unlock(&s->lock);
    if (message && s->ops->on_sent)
        s->ops->on_sent(s->ctx, s, ok);
    pthread_mutex_lock(&s->lock);
    batch_done_unlock(s);
}

void weir_rpc_stream_send_done(struct weir_rpc_stream *s)
{
    WEIR_BUG_ON(s->server != NULL);
    pthread_mutex_lock(&s->lock);
    if (!s->closed && !s->no_more)
        last_unlock(s);
    else
        pthread_mutex_unlock(&s->lock);
}

void weir_rpc_stream_finish(struct weir_rpc_stream *s, int grpc_status, const char *message,
                            const struct weir_rpc_meta *trailing, int n_trailing)
{
    grpc_metadata *meta = NULL;
    struct weir_why why;

    WEIR_BUG_ON(s->server == NULL);
    if (n_trailing > 0 && rpc_meta_build(trailing, n_trailing, &meta, &why) != WEIR_OK)
        WEIR_WARN("rpc_trailing_dropped", "reason=%s", why.text); /* the status itself must go out */
    pthread_mutex_lock(&s->lock);
    if (s->closed || s->no_more) {
        pthread_mutex_unlock(&s->lock);
        rpc_meta_free(meta, meta ? (size_t)n_trailing : 0);
        return;
    }
    s->status = (grpc_status_code)grpc_status;
    s->status_text = grpc_slice_from_copied_string(message ? message : "");
    s->meta_out = meta;
    s->n_meta_out = meta ? (size_t)n_trailing : 0;
    last_unlock(s);
}

/* ---- starting ---- */
void rpc_stream_start_client(struct weir_rpc_stream *s)
{
    grpc_op end = { .op = GRPC_OP_RECV_STATUS_ON_CLIENT };
    grpc_op open[2] = { { .op = GRPC_OP_SEND_INITIAL_METADATA }, { .op = GRPC_OP_RECV_INITIAL_METADATA } };

    weir_rpc_stream_ref(s); /* [C1] the callbacks may be over before this returns */
    s->n_pending = 3;
    s->recv = RPC_RECV_POSTED;
    end.data.recv_status_on_client.status = &s->status;
    end.data.recv_status_on_client.status_details = &s->status_text;
    end.data.recv_status_on_client.trailing_metadata = &s->meta;
    core_start(s->call, &end, 1, &s->end_tag);
    open[0].data.send_initial_metadata.count = s->n_meta_out;
    open[0].data.send_initial_metadata.metadata = s->meta_out;
    open[1].data.recv_initial_metadata.recv_initial_metadata = &s->headers;
    core_start(s->call, open, 2, &s->open_tag);
    start_receive(s);
    weir_rpc_stream_unref(s);
}

void rpc_stream_start_server(struct weir_rpc_stream *s)
{
    grpc_op op = { .op = GRPC_OP_RECV_CLOSE_ON_SERVER };

    s->n_pending = 1;
    op.data.recv_close_on_server.cancelled = &s->cancelled;
    core_start(s->call, &op, 1, &s->end_tag);
}

void rpc_stream_receive_first(struct weir_rpc_stream *s)
{
    pthread_mutex_lock(&s->lock);
    s->recv = RPC_RECV_POSTED;
    s->n_pending++;
    pthread_mutex_unlock(&s->lock);
    start_receive(s);
}

/* ---- what the other end said ---- */
static struct weir_str slice_str(const grpc_slice *slice)
{
    return (struct weir_str){ (const char *)GRPC_SLICE_START_PTR(*slice), GRPC_SLICE_LENGTH(*slice) };
}

struct weir_str weir_rpc_stream_method(const struct weir_rpc_stream *s)
{
    return slice_str(&s->details.method);
}

struct weir_str weir_rpc_stream_meta(const struct weir_rpc_stream *s, const char *key)
{
    for (size_t i = 0; i < s->meta.count; i++)
        if (weir_str_eq(slice_str(&s->meta.metadata[i].key), key))
            return slice_str(&s->meta.metadata[i].value);
    return (struct weir_str){ "", 0 };
}

struct weir_str weir_rpc_stream_peer(const struct weir_rpc_stream *s)
{
    return weir_str(s->peer);
}

uint64_t weir_rpc_stream_deadline_ns(const struct weir_rpc_stream *s)
{
    return s->deadline_ns;
}
