/* exchange_out.c - our streams to the other routers: connected, greeted, sent on, lost and opened again. */
#include <string.h>

#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "router/exchange/exchange_int.h"
#include "weir/mesh/v1/mesh.pb-c.h"

#define KEEPALIVE_MS 2000
#define HELLO_TIMEOUT_NS (3 * WEIR_S)

void link_unref_locked(struct link *link)
{
    if (--link->refs == 0)
        weir_free(link);
}

static weir_err send_frame_locked(struct link *link, const Weir__Mesh__V1__Frame *frame)
{
    struct weir_buf out;
    size_t len = weir__mesh__v1__frame__get_packed_size(frame);

    weir_buf_init(&out, 0);
    char *room = weir_buf_reserve(&out, len ? len : 1);
    if (!room)
        return WEIR_NOMEM;
    weir__mesh__v1__frame__pack(frame, (uint8_t *)room);
    weir_err err = weir_rpc_stream_send(link->stream, (struct weir_str){ room, len });
    weir_buf_release(&out);
    if (err != WEIR_OK)
        return err;
    link->sending = true;
    link->frames_sent++;
    link->bytes_sent += len;
    weir_counter_add(link->ex->frames_sent, 1);
    weir_counter_add(link->ex->bytes_sent, len);
    return WEIR_OK;
}

weir_err weir_exchange_send(struct weir_exchange *ex, const char *peer, struct weir_str bytes)
{
    Weir__Mesh__V1__Frame frame = WEIR__MESH__V1__FRAME__INIT;
    weir_err err = WEIR_UNAVAILABLE;

    if (bytes.len > WEIR_MESH_FRAME_MAX)
        return WEIR_TOOLARGE;
    frame.state.data = (uint8_t *)(uintptr_t)bytes.ptr;
    frame.state.len = bytes.len;
    pthread_mutex_lock(&ex->lock);
    struct link *link = link_find_locked(ex, peer);
    if (link && link_is_cut_locked(ex, peer))
        err = WEIR_UNAVAILABLE;
    else if (link && link->ready && link->stream)
        err = link->sending ? WEIR_FULL : send_frame_locked(link, &frame);
    if (err == WEIR_FULL)
        weir_counter_add(ex->frames_held, 1);
    pthread_mutex_unlock(&ex->lock);
    return err;
}

static bool on_welcome(void *ctx, struct weir_rpc_stream *s, struct weir_str bytes)
{
    struct link *link = ctx;
    struct weir_exchange *ex = link->ex;
    Weir__Mesh__V1__Welcome *welcome =
        weir__mesh__v1__welcome__unpack(NULL, bytes.len, (const uint8_t *)bytes.ptr);
    bool is_it = welcome && strcmp(welcome->router, link->peer.id) == 0;
    struct weir_mesh_peer peer = link->peer;

    if (welcome)
        peer.incarnation = welcome->incarnation;
    weir__mesh__v1__welcome__free_unpacked(welcome, NULL);
    pthread_mutex_lock(&ex->lock);
    bool is_new = is_it && !link->ready && link->stream == s;
    if (is_new) {
        link->ready = true;
        link->backoff_ms = BACKOFF_MIN_MS;
        weir_gauge_add(ex->connected, 1);
    }
    pthread_mutex_unlock(&ex->lock);
    if (is_new && ex->opts.ops.joined)
        ex->opts.ops.joined(ex->opts.ctx, &peer);
    else if (!is_it)
        weir_rpc_stream_cancel(s); /* somebody else lives there now */
    return true;
}

static void on_sent(void *ctx, struct weir_rpc_stream *s, bool ok)
{
    struct link *link = ctx;

    (void)ok;
    pthread_mutex_lock(&link->ex->lock);
    if (link->stream == s)
        link->sending = false;
    pthread_mutex_unlock(&link->ex->lock);
}

static void on_link_closed(void *ctx, struct weir_rpc_stream *s, int grpc_status, const char *message)
{
    struct link *link = ctx;
    struct weir_exchange *ex = link->ex;

    pthread_mutex_lock(&ex->lock);
    if (link->ready) {
        weir_gauge_add(ex->connected, -1);
        WEIR_INFO("mesh_link_lost", "peer=%s status=%d why=%s", link->peer.id, grpc_status, message);
    }
    WEIR_CHECK(link->stream == s);
    weir_rpc_stream_unref(link->stream);
    weir_rpc_channel_close(link->channel);
    link->stream = NULL;
    link->channel = NULL;
    link->ready = link->sending = false;
    ex->random = weir_hash_mix(ex->random, 1);
    link->retry_ns =
        weir_now_ns() + (link->backoff_ms / 2 + ex->random % (link->backoff_ms / 2 + 1)) * WEIR_MS;
    link->backoff_ms = link->backoff_ms * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : link->backoff_ms * 2;
    ex->n_streams--;
    pthread_cond_broadcast(&ex->changed);
    link_unref_locked(link);
    pthread_mutex_unlock(&ex->lock);
}

static const struct weir_rpc_stream_ops link_ops = { on_welcome, on_sent, NULL, on_link_closed };

void link_connect_locked(struct link *link, uint64_t now_ns)
{
    struct weir_exchange *ex = link->ex;
    struct weir_rpc_channel_opts channel = { .address = link->address,
                                             .tls = ex->opts.tls,
                                             .message_bytes_max = WEIR_MESH_FRAME_MAX,
                                             .keepalive_ms = KEEPALIVE_MS };
    Weir__Mesh__V1__Frame frame = WEIR__MESH__V1__FRAME__INIT;
    Weir__Mesh__V1__Hello hello = WEIR__MESH__V1__HELLO__INIT;
    struct weir_why why = { 0 };

    link->retry_ns = now_ns + BACKOFF_MAX_MS * WEIR_MS; /* unless on_closed says sooner */
    if (weir_rpc_channel_open(ex->opts.rpc, &channel, &link->channel, &why) != WEIR_OK) {
        WEIR_WARN("mesh_connect_failed", "peer=%s why=%s", link->peer.id, why.text);
        return;
    }
    link->refs++;
    ex->n_streams++;
    weir_err err = weir_rpc_channel_call(link->channel, EXCHANGE_METHOD, NULL, 0, /* deadline_ns= */ 0,
                                         &link_ops, link, &link->stream, &why);
    if (err != WEIR_OK) {
        WEIR_WARN("mesh_connect_failed", "peer=%s why=%s", link->peer.id, why.text);
        weir_rpc_channel_close(link->channel);
        link->channel = NULL;
        link->stream = NULL;
        ex->n_streams--;
        link_unref_locked(link);
        return;
    }
    weir_rpc_stream_ref(link->stream);
    link->hello_by_ns = now_ns + HELLO_TIMEOUT_NS;
    hello.router = (char *)(uintptr_t)ex->opts.router;
    hello.incarnation = ex->opts.incarnation;
    hello.version = EXCHANGE_VERSION;
    frame.hello = &hello;
    if (send_frame_locked(link, &frame) != WEIR_OK)
        weir_rpc_stream_cancel(link->stream);
}
