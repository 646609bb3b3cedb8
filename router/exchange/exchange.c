/* exchange.c - streams to and from the other routers.
 *
 *   [X1] At most one frame is in flight to a peer; nothing queues behind it.
 *   [X2] A frame is believed to come from the router whose hello opened its stream, and from nobody else.
 *   [X3] A peer that left discovery's view is sent nothing more; its own stream to us lives as long as it does.
 *
 * Threads: on_snapshot on the discovery thread; connecting and ticking on the mesh thread; stream callbacks on CQ
 * threads; send and describe anywhere. `lock` guards links, incoming and counters. It is held while a call is opened
 * (on_closed takes it, so it finds the stream stored), never while an op runs.
 *
 * Memory: links are counted: one reference of the list, one of each stream. */
#include "router/exchange/exchange.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/thread.h"
#include "weir/mesh/v1/mesh.pb-c.h"

#define METHOD "/weir.mesh.v1.Mesh/Exchange"
#define VERSION 1
#define BACKOFF_MIN_MS 100
#define BACKOFF_MAX_MS 2000
#define KEEPALIVE_MS 2000
#define HELLO_TIMEOUT_NS (3 * WEIR_S)
#define INCOMING_MAX (2 * WEIR_MESH_PEERS_MAX) /* streams from others: an old and a new one of each */
#define ADDRESS_MAX 280

struct link { /* our stream to one router */
    uint32_t refs;
    struct weir_exchange *ex;
    struct link *next;
    struct weir_mesh_peer peer;
    char address[ADDRESS_MAX];
    bool wanted; /* in the view */
    bool cut;    /* on purpose */
    struct weir_rpc_channel *channel;
    struct weir_rpc_stream *stream; /* NULL: none */
    bool ready;                     /* it said welcome, and is who we wanted */
    bool sending;                   /* [X1] */
    uint64_t retry_ns, hello_by_ns;
    uint32_t backoff_ms;
    /* for describe; of frames from it, whichever stream they came on */
    uint64_t frames_sent, frames_received, bytes_sent, bytes_received, heard_ns;
};

struct incoming { /* a router's stream to us */
    struct weir_exchange *ex;
    struct weir_mesh_peer peer; /* after its hello */
    bool greeted, refused;
};

struct weir_exchange {
    struct weir_exchange_opts opts;
    char *prefix; /* "/weir/routers/" */
    struct weir_rpc_handler handler;
    struct weir_rpc_server *server;
    struct weir_thread thread;
    pthread_mutex_t lock;
    pthread_cond_t changed; /* a stream ended, or it is time to stop */
    struct link *links;     /* sorted by id */
    uint32_t n_links, n_streams, n_incoming;
    bool stopping, cut_all;
    uint64_t random;
    struct weir_counter *frames_sent, *frames_received, *bytes_sent, *bytes_received, *frames_held,
        *bad_frames;
    struct weir_gauge *peers, *connected;
    struct weir_gauge *lag_ms;
};

/* ---- links ---- */
static void link_unref_locked(struct link *link)
{
    if (--link->refs == 0)
        weir_free(link);
}

static struct link *find_locked(struct weir_exchange *ex, const char *id)
{
    for (struct link *link = ex->links; link; link = link->next)
        if (strcmp(link->peer.id, id) == 0)
            return link;
    return NULL;
}

/* Those cut off hear nothing: the stream goes, and none is opened while it lasts. */
static bool is_cut_locked(struct weir_exchange *ex, const char *id)
{
    struct link *link = find_locked(ex, id);

    return ex->cut_all || (link && link->cut);
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
    struct link *link = find_locked(ex, peer);
    if (link && is_cut_locked(ex, peer))
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

static void connect_locked(struct link *link, uint64_t now_ns)
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
    weir_err err = weir_rpc_channel_call(link->channel, METHOD, NULL, 0, /* deadline_ns= */ 0, &link_ops,
                                         link, &link->stream, &why);
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
    hello.version = VERSION;
    frame.hello = &hello;
    if (send_frame_locked(link, &frame) != WEIR_OK)
        weir_rpc_stream_cancel(link->stream);
}

/* ---- the others' streams ---- */
static weir_err read_hello(struct incoming *in, const Weir__Mesh__V1__Frame *frame, struct weir_why *why)
{
    const Weir__Mesh__V1__Hello *hello = frame->hello;

    if (!hello || hello->version != VERSION)
        return weir_fail(why, WEIR_INVALID, "mesh: the first frame must be a hello of version %d", VERSION);
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
    bool is_cut = is_cut_locked(ex, in->peer.id);
    struct link *link = is_cut ? NULL : find_locked(ex, in->peer.id);
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

static weir_err on_open(void *ctx, struct weir_rpc_stream *s, const struct weir_rpc_stream_ops **ret_ops,
                        void **ret_ctx, struct weir_why *why)
{
    static const struct weir_rpc_stream_ops ops = { on_frame, NULL, on_peer_done, on_incoming_closed };
    struct weir_exchange *ex = ctx;

    (void)s;
    pthread_mutex_lock(&ex->lock);
    bool has_room = ex->n_incoming < INCOMING_MAX;
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

/* ---- the view ---- */
static bool parse_peer(struct weir_exchange *ex, const struct weir_disc_entry *entry,
                       struct weir_mesh_peer *peer, char address[ADDRESS_MAX])
{
    struct weir_router_record rec;
    struct weir_arena arena;

    weir_arena_init(&arena, 1 << 16);
    bool ok = weir_router_record_parse(entry->value, &arena, &rec, NULL) == WEIR_OK && rec.mesh.len > 0 &&
              rec.mesh.len < ADDRESS_MAX && rec.id.len <= WEIR_MESH_ID_MAX &&
              !weir_str_eq(rec.id, ex->opts.router);
    if (ok) {
        snprintf(peer->id, sizeof peer->id, "%.*s", WEIR_STR_FMT(rec.id));
        peer->incarnation = rec.incarnation;
        snprintf(address, ADDRESS_MAX, "%.*s", WEIR_STR_FMT(rec.mesh));
    }
    weir_arena_release(&arena);
    return ok;
}

static void want_locked(struct weir_exchange *ex, const struct weir_mesh_peer *peer, const char *address)
{
    struct link **at = &ex->links;

    while (*at && strcmp((*at)->peer.id, peer->id) < 0)
        at = &(*at)->next;
    struct link *link = *at;
    if (!link || strcmp(link->peer.id, peer->id) != 0) {
        link = ex->n_links < WEIR_MESH_PEERS_MAX ? weir_alloc0(sizeof *link) : NULL;
        if (!link)
            return; /* the next snapshot tries again */
        *link =
            (struct link){ .refs = 1, .ex = ex, .peer = *peer, .next = *at, .backoff_ms = BACKOFF_MIN_MS };
        link->heard_ns = weir_now_ns();
        *at = link;
        ex->n_links++;
    }
    bool is_other = strcmp(link->address, address) != 0 || link->peer.incarnation != peer->incarnation;
    if (is_other) {
        snprintf(link->address, sizeof link->address, "%s", address);
        link->peer.incarnation = peer->incarnation;
        link->backoff_ms = BACKOFF_MIN_MS;
        link->retry_ns = 0;
        if (link->stream)
            weir_rpc_stream_cancel(link->stream);
    }
    link->wanted = true;
}

/* [X3] */
static void drop_unwanted_locked(struct weir_exchange *ex)
{
    for (struct link **at = &ex->links; *at;) {
        struct link *link = *at;
        if (link->wanted) {
            at = &link->next;
            continue;
        }
        if (link->stream)
            weir_rpc_stream_cancel(link->stream);
        *at = link->next;
        ex->n_links--;
        link_unref_locked(link);
    }
}

void weir_exchange_on_snapshot(struct weir_exchange *ex, const struct weir_disc_snapshot *snap)
{
    const struct weir_disc_entry *entries = NULL;
    int n = weir_disc_prefix(snap, ex->prefix, &entries);

    pthread_mutex_lock(&ex->lock);
    for (struct link *link = ex->links; link; link = link->next)
        link->wanted = false;
    for (int i = 0; i < n; i++) {
        struct weir_mesh_peer peer = { .incarnation = 0 };
        char address[ADDRESS_MAX];
        if (parse_peer(ex, &entries[i], &peer, address))
            want_locked(ex, &peer, address);
    }
    drop_unwanted_locked(ex);
    weir_gauge_set(ex->peers, ex->n_links);
    pthread_mutex_unlock(&ex->lock);
}

/* ---- the mesh thread ---- */
static int look_after_links_locked(struct weir_exchange *ex, uint64_t now_ns, struct weir_mesh_peer *peers)
{
    uint64_t lag_ns = 0;
    int n = 0;

    for (struct link *link = ex->links; link; link = link->next) {
        peers[n++] = link->peer;
        bool is_cut = ex->cut_all || link->cut;
        if (!link->stream && !is_cut && now_ns >= link->retry_ns)
            connect_locked(link, now_ns);
        else if (link->stream && !link->ready && now_ns > link->hello_by_ns)
            weir_rpc_stream_cancel(link->stream);
        if (now_ns > link->heard_ns && now_ns - link->heard_ns > lag_ns)
            lag_ns = now_ns - link->heard_ns;
    }
    weir_gauge_set(ex->lag_ms, (int64_t)(lag_ns / WEIR_MS));
    return n;
}

static void *run(void *arg)
{
    struct weir_exchange *ex = arg;
    struct weir_mesh_peer *peers = weir_calloc(WEIR_MESH_PEERS_MAX, sizeof *peers);
    uint64_t interval_ns = ex->opts.interval_ms * WEIR_MS, due_ns = weir_now_ns();

    WEIR_BUG_ON(!peers); /* at start */
    pthread_mutex_lock(&ex->lock);
    while (!ex->stopping) {
        uint64_t now_ns = weir_now_ns();
        if (now_ns < due_ns) {
            struct timespec until = { .tv_sec = (time_t)(due_ns / WEIR_S),
                                      .tv_nsec = (long)(due_ns % WEIR_S) };
            pthread_cond_timedwait(&ex->changed, &ex->lock, &until);
            continue;
        }
        int n = look_after_links_locked(ex, now_ns, peers);
        pthread_mutex_unlock(&ex->lock);
        weir_thread_beat(now_ns);
        ex->opts.ops.tick(ex->opts.ctx, now_ns, peers, n);
        due_ns += interval_ns;
        if (due_ns + interval_ns < now_ns) /* we were stopped for a while: no burst of ticks */
            due_ns = now_ns + interval_ns;
        pthread_mutex_lock(&ex->lock);
    }
    pthread_mutex_unlock(&ex->lock);
    weir_free(peers);
    return NULL;
}

/* ---- faults and sights ---- */
void weir_exchange_cut(struct weir_exchange *ex, const struct weir_str *ids, int n)
{
    pthread_mutex_lock(&ex->lock);
    ex->cut_all = n == 1 && weir_str_eq(ids[0], "*");
    for (struct link *link = ex->links; link; link = link->next) {
        link->cut = false;
        for (int i = 0; i < n; i++)
            link->cut = link->cut || weir_str_eq(ids[i], link->peer.id);
        if ((link->cut || ex->cut_all) && link->stream)
            weir_rpc_stream_cancel(link->stream);
        else if (!link->cut && !ex->cut_all)
            link->retry_ns = 0;
    }
    pthread_mutex_unlock(&ex->lock);
}

void weir_exchange_describe(struct weir_exchange *ex, struct weir_buf *out)
{
    struct weir_jw w;
    char hex[17];

    weir_jw_init(&w, out);
    weir_jw_array(&w);
    pthread_mutex_lock(&ex->lock);
    for (struct link *link = ex->links; link; link = link->next) {
        const struct {
            const char *name;
            uint64_t n;
        } numbers[] = { { "silence_ms", (weir_now_ns() - link->heard_ns) / WEIR_MS },
                        { "frames_sent", link->frames_sent },
                        { "frames_received", link->frames_received },
                        { "bytes_sent", link->bytes_sent },
                        { "bytes_received", link->bytes_received } };
        snprintf(hex, sizeof hex, "%016llx", (unsigned long long)link->peer.incarnation);
        weir_jw_object(&w);
        weir_jw_key(&w, "id");
        weir_jw_cstr(&w, link->peer.id);
        weir_jw_key(&w, "incarnation");
        weir_jw_cstr(&w, hex);
        weir_jw_key(&w, "connected");
        weir_jw_bool(&w, link->ready);
        weir_jw_key(&w, "cut");
        weir_jw_bool(&w, link->cut || ex->cut_all);
        for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
            weir_jw_key(&w, numbers[i].name);
            weir_jw_u64(&w, numbers[i].n);
        }
        weir_jw_object_end(&w);
    }
    pthread_mutex_unlock(&ex->lock);
    weir_jw_array_end(&w);
}

int weir_exchange_port(const struct weir_exchange *ex)
{
    return weir_rpc_server_port(ex->server);
}

/* ---- lifecycle ---- */
static void register_metrics(struct weir_exchange *ex)
{
    ex->frames_sent = weir_counter("weir_mesh_frames_sent_total", "", "frames sent to other routers");
    ex->frames_received =
        weir_counter("weir_mesh_frames_received_total", "", "frames received from other routers");
    ex->bytes_sent = weir_counter("weir_mesh_bytes_sent_total", "", "bytes sent to other routers");
    ex->bytes_received =
        weir_counter("weir_mesh_bytes_received_total", "", "bytes received from other routers");
    ex->frames_held =
        weir_counter("weir_mesh_frames_held_total", "", "frames not sent: the one before was not taken yet");
    ex->bad_frames = weir_counter("weir_mesh_bad_frames_total", "", "frames of other routers not understood");
    ex->peers = weir_gauge("weir_mesh_peers", "", "other routers in discovery's view");
    ex->connected = weir_gauge("weir_mesh_connected", "", "other routers that we can send to");
    ex->lag_ms = weir_gauge("weir_mesh_silence_ms", "", "since the longest silent router was heard");
}

weir_err weir_exchange_open(const struct weir_exchange_opts *opts, struct weir_exchange **ret,
                            struct weir_why *why)
{
    struct weir_exchange *ex = weir_alloc0(sizeof *ex);
    size_t len = strlen(opts->prefix) + sizeof "routers/";
    pthread_condattr_t attr;

    if (!ex || !(ex->prefix = weir_alloc(len))) {
        weir_free(ex);
        return weir_fail(why, WEIR_NOMEM, "mesh: no memory");
    }
    snprintf(ex->prefix, len, "%srouters/", opts->prefix);
    ex->opts = *opts;
    weir_random(&ex->random, sizeof ex->random);
    register_metrics(ex);
    pthread_mutex_init(&ex->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&ex->changed, &attr);
    pthread_condattr_destroy(&attr);
    ex->handler = (struct weir_rpc_handler){ METHOD, on_open, ex };
    struct weir_rpc_server_opts server = { .listen = opts->listen,
                                           .tls = opts->tls,
                                           .handlers = &ex->handler,
                                           .n_handlers = 1,
                                           .message_bytes_max = WEIR_MESH_FRAME_MAX + 1024,
                                           .connections_max = INCOMING_MAX };
    weir_err err = weir_rpc_server_open(opts->rpc, &server, &ex->server, why);
    if (err != WEIR_OK) {
        weir_exchange_close(ex);
        return err;
    }
    weir_rpc_server_set_serving(ex->server, true);
    *ret = ex;
    return WEIR_OK;
}

weir_err weir_exchange_start(struct weir_exchange *ex, struct weir_why *why)
{
    return weir_thread_start(&ex->thread, WEIR_ROLE_MESH, "mesh", run, ex, why);
}

void weir_exchange_close(struct weir_exchange *ex)
{
    if (!ex)
        return;
    pthread_mutex_lock(&ex->lock);
    ex->stopping = true;
    pthread_cond_broadcast(&ex->changed);
    pthread_mutex_unlock(&ex->lock);
    weir_thread_join(&ex->thread);
    weir_rpc_server_close(ex->server);
    pthread_mutex_lock(&ex->lock);
    for (struct link *link = ex->links; link; link = link->next)
        link->wanted = false;
    drop_unwanted_locked(ex);
    while (ex->n_streams > 0)
        pthread_cond_wait(&ex->changed, &ex->lock);
    pthread_mutex_unlock(&ex->lock);
    pthread_cond_destroy(&ex->changed);
    pthread_mutex_destroy(&ex->lock);
    weir_free(ex->prefix);
    weir_free(ex);
}
