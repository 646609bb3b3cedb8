/* exchange.c - who is in the mesh, and its clock.
 *
 *   [X1] At most one frame is in flight to a peer; nothing queues behind it.
 *   [X2] A frame is believed to come from the router whose hello opened its stream, and from nobody else.
 *   [X3] A peer that left discovery's view is sent nothing more; its own stream to us lives as long as it does.
 *
 * Threads: on_snapshot on the discovery thread; connecting and ticking on the mesh thread; stream callbacks on CQ
 * threads; send and describe anywhere. */
#include "router/exchange/exchange.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/arena.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/mem.h"
#include "router/exchange/exchange_int.h"

struct link *link_find_locked(struct weir_exchange *ex, const char *id)
{
    for (struct link *link = ex->links; link; link = link->next)
        if (strcmp(link->peer.id, id) == 0)
            return link;
    return NULL;
}

bool link_is_cut_locked(struct weir_exchange *ex, const char *id)
{
    struct link *link = link_find_locked(ex, id);

    return ex->cut_all || (link && link->cut);
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
            link_connect_locked(link, now_ns);
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
    ex->handler = (struct weir_rpc_handler){ EXCHANGE_METHOD, incoming_open, ex };
    struct weir_rpc_server_opts server = { .listen = opts->listen,
                                           .tls = opts->tls,
                                           .handlers = &ex->handler,
                                           .n_handlers = 1,
                                           .message_bytes_max = WEIR_MESH_FRAME_MAX + 1024,
                                           .connections_max = EXCHANGE_INCOMING_MAX };
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
