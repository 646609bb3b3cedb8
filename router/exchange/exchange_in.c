/* exchange_in.c - the others' streams to us: a hello says whose it is, frames follow. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "router/exchange/exchange_int.h"
#include "weir/mesh/v1/mesh.pb-c.h"

struct incoming { /* a router's stream to us */
    struct weir_exchange *ex;
    struct weir_mesh_peer peer; /* after its hello */
    bool greeted, refused;
};

static weir_err read_hello(struct incoming *in, const Weir__Mesh__V1__Frame *frame, struct weir_why *why)
{
    const Weir__Mesh__V1__Hello *hello = frame->hello;

    if (!hello || hello->version != EXCHANGE_VERSION)
        return weir_fail(why, WEIR_INVALID, "mesh: the first frame must be a hello of version %d",
                         EXCHANGE_VERSION);
    if (!hello->router[0] || strlen(hello->router) > WEIR_MESH_ID_MAX ||
        strcmp(hello->router, in->ex->opts.router) == 0)
        return weir_fail(why, WEIR_INVALID, "mesh: hello.router: 1 to %d bytes, and not our own id",
                         WEIR_MESH_ID_MAX);
    snprintf(in->peer.id, sizeof in->peer.id, "%s", hello->router);
    in->peer.incarnation = hello->incarnation;
    in->greeted = true;
    return WEIR_OK;
}

static void welcome_it(struct incoming *in, struct weir_rpc_stream *s)
{
    Weir__Mesh__V1__Welcome welcome = WEIR__MESH__V1__WELCOME__INIT;
    uint8_t bytes[WEIR_MESH_ID_MAX + 64];

    welcome.router = (char *)(uintptr_t)in->ex->opts.router;
    welcome.incarnation = in->ex->opts.incarnation;
    size_t len = weir__mesh__v1__welcome__get_packed_size(&welcome);
    WEIR_BUG_ON(len > sizeof bytes);
    weir__mesh__v1__welcome__pack(&welcome, bytes);
    (void)!weir_rpc_stream_send(s, (struct weir_str){ (const char *)bytes, len }); /* else on_closed comes */
}

static void take_state(struct incoming *in, struct weir_str bytes)
{
    struct weir_exchange *ex = in->ex;
    uint64_t now_ns = weir_now_ns();

    pthread_mutex_lock(&ex->lock);
    bool is_cut = link_is_cut_locked(ex, in->peer.id);
    struct link *link = is_cut ? NULL : link_find_locked(ex, in->peer.id);
    if (link) {
        link->frames_received++;
        link->bytes_received += bytes.len;
        link->heard_ns = now_ns;
    }
    pthread_mutex_unlock(&ex->lock);
    if (is_cut)
        return;
    weir_counter_add(ex->frames_received, 1);
    weir_counter_add(ex->bytes_received, bytes.len);
    ex->opts.ops.receive(ex->opts.ctx, &in->peer, bytes, now_ns); /* [X2] */
}

static bool on_frame(void *ctx, struct weir_rpc_stream *s, struct weir_str bytes)
{
    struct incoming *in = ctx;
    struct weir_why why = { 0 };
    Weir__Mesh__V1__Frame *frame = weir__mesh__v1__frame__unpack(NULL, bytes.len, (const uint8_t *)bytes.ptr);
    weir_err err = WEIR_OK;

    if (!frame || in->refused) {
        err = weir_fail(&why, WEIR_INVALID, "mesh: not a weir.mesh.v1.Frame");
    } else if (!in->greeted) {
        err = read_hello(in, frame, &why);
        if (err == WEIR_OK)
            welcome_it(in, s);
    } else {
        take_state(in, (struct weir_str){ (const char *)frame->state.data, frame->state.len });
    }
    weir__mesh__v1__frame__free_unpacked(frame, NULL);
    if (err != WEIR_OK && !in->refused) {
        in->refused = true;
        weir_counter_add(in->ex->bad_frames, 1);
        WEIR_WARN("mesh_bad_frame", "peer=%.*s why=%s", WEIR_STR_FMT(weir_rpc_stream_peer(s)), why.text);
        weir_rpc_stream_finish(s, weir_err_info(err)->grpc, why.text, NULL, 0);
    }
    return true;
}

static void on_peer_done(void *ctx, struct weir_rpc_stream *s)
{
    struct incoming *in = ctx;

    if (!in->refused)
        weir_rpc_stream_finish(s, 0, "", NULL, 0);
    in->refused = true;
}

static void on_incoming_closed(void *ctx, struct weir_rpc_stream *s, int grpc_status, const char *message)
{
    struct incoming *in = ctx;

    (void)s;
    (void)grpc_status;
    (void)message;
    pthread_mutex_lock(&in->ex->lock);
    in->ex->n_incoming--;
    pthread_mutex_unlock(&in->ex->lock);
    weir_free(in);
}

weir_err incoming_open(void *ctx, struct weir_rpc_stream *s, const struct weir_rpc_stream_ops **ret_ops,
                       void **ret_ctx, struct weir_why *why)
{
    static const struct weir_rpc_stream_ops ops = { on_frame, NULL, on_peer_done, on_incoming_closed };
    struct weir_exchange *ex = ctx;

    (void)s;
    pthread_mutex_lock(&ex->lock);
    bool has_room = ex->n_incoming < EXCHANGE_INCOMING_MAX;
    struct incoming *in = has_room ? weir_alloc0(sizeof *in) : NULL;
    if (in) {
        in->ex = ex;
        ex->n_incoming++;
    }
    pthread_mutex_unlock(&ex->lock);
    if (!in)
        return weir_fail(why, has_room ? WEIR_NOMEM : WEIR_FULL, "mesh: no room for another router's stream");
    *ret_ops = &ops;
    *ret_ctx = in;
    return WEIR_OK;
}
