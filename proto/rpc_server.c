/* rpc_server.c - a server: calls posted on every queue, a table of methods, the order of its end.
 *
 * Generic calls only: with registered methods a call to an unknown one would never be answered. Calls that
 * find no place wait in the core without bound, so a place is free again before its call is looked at; what
 * is too much is for the handlers to refuse. [V1] CALLS_POSTED calls are posted on each queue until the
 * server shuts down; the places never depend on memory. [V2] The core's server is destroyed after its
 * shutdown was told, each posted call came back and each stream ended. Threads: on_open on a queue's thread;
 * drain and close block and are for other threads. Not here: accepting (rpc_accept.c), health (rpc_health.c),
 * reflection (rpc_reflection.c). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <grpc/grpc_security.h>
#include <grpc/support/alloc.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "proto/rpc_server_int.h"

#define CALLS_POSTED 32
#define MESSAGE_BYTES_MAX (4u << 20)
#define CONNECTIONS_MAX 1024u
#define STREAMS_MAX 1000u
#define KEEPALIVE_MS 10000 /* a frozen peer is noticed after 15 s */
#define KEEPALIVE_TIMEOUT_MS 5000
#define PING_INTERVAL_MIN_MS 500 /* a client may probe more often than we do, but not that often */
#define IDENTITY_ONLY 1 /* a set of one compression algorithm: a small message can't unpack to a big one */

/* ---- a new call ---- */
static void ignore_closed(void *ctx, struct weir_rpc_stream *s, int grpc_status, const char *message)
{
    (void)ctx;
    (void)s;
    (void)grpc_status;
    (void)message;
}

static const struct weir_rpc_stream_ops refused_ops = { .on_closed = ignore_closed };

static const struct weir_rpc_handler *find_handler(const struct weir_rpc_server *server,
                                                   struct weir_str method)
{
    for (int i = 0; i < server->n_handlers; i++)
        if (weir_str_eq(method, server->handlers[i].method))
            return &server->handlers[i];
    return NULL;
}

static void open_stream(struct weir_rpc_stream *s)
{
    struct weir_str method = weir_rpc_stream_method(s);
    const struct weir_rpc_handler *handler = find_handler(s->server, method);
    struct weir_why why = { .text = "" };
    weir_err rc;

    if (handler)
        rc = handler->on_open(handler->server_ctx, s, &s->ops, &s->ctx, &why);
    else
        rc = weir_fail(&why, WEIR_UNIMPLEMENTED, "unknown method %.*s", WEIR_STR_FMT(method));
    if (rc == WEIR_OK) {
        WEIR_BUG_ON(!s->ops || !s->ops->on_closed);
        rpc_stream_receive_first(s);
        return;
    }
    const struct weir_err_info *info = weir_err_info(rc);
    s->ops = &refused_ops;
    weir_rpc_stream_finish(s, info->grpc, why.text[0] ? why.text : info->text, /* trailing= */ NULL,
                           /* n_trailing= */ 0);
}

static uint64_t deadline_of(gpr_timespec deadline)
{
    if (gpr_time_cmp(deadline, gpr_inf_future(deadline.clock_type)) == 0)
        return UINT64_MAX;
    gpr_timespec left = gpr_time_sub(deadline, gpr_now(deadline.clock_type));
    int64_t left_ns = left.tv_sec * (int64_t)WEIR_S + left.tv_nsec;
    uint64_t now_ns = weir_now_ns();
    return left_ns < 0 && (uint64_t)-left_ns > now_ns ? 0 : now_ns + (uint64_t)left_ns;
}

/* A socket that we accepted is called "fd:7" by the core; one that it accepted, "ipv4:1.2.3.4:5" or
 * "ipv6:%5B::1%5D:5". */
static void name_peer(grpc_call *call, char *out, size_t n)
{
    char *uri = grpc_call_get_peer(call);
    const char *colon = strchr(uri, ':'), *from = colon ? colon + 1 : uri;

    if (strncmp(uri, "fd:", 3) == 0) {
        rpc_address_of_peer(atoi(from), out, n);
    } else {
        size_t i = 0;
        for (; *from && i + 1 < n; from++) {
            bool open = strncmp(from, "%5B", 3) == 0, close = strncmp(from, "%5D", 3) == 0;
            out[i++] = open ? '[' : close ? ']' : *from;
            from += open || close ? 2 : 0;
        }
        out[i] = '\0';
    }
    gpr_free(uri);
}

static void post(struct rpc_posted *place)
{
    grpc_call_details_init(&place->details);
    grpc_metadata_array_init(&place->meta);
    core_request_call(place->server->core, &place->call, &place->details, &place->meta, place->cq,
                      &place->tag);
}

/* What has come in, as a stream; NULL when there is no memory, in which case the call has been answered. */
static struct weir_rpc_stream *take_call(struct rpc_posted *place)
{
    struct weir_rpc_stream *s = rpc_stream_new(place->server->rpc);

    if (!s) {
        grpc_call_cancel_with_status(place->call, GRPC_STATUS_RESOURCE_EXHAUSTED, "no memory for a call",
                                     NULL);
        grpc_metadata_array_destroy(&place->meta);
        grpc_call_details_destroy(&place->details);
        grpc_call_unref(place->call);
        return NULL;
    }
    s->server = place->server;
    s->call = place->call;
    s->details = place->details;
    s->meta = place->meta;
    s->deadline_ns = deadline_of(place->details.deadline);
    name_peer(s->call, s->peer, sizeof s->peer);
    return s;
}

static void on_call(struct rpc_tag *tag, bool ok)
{
    struct rpc_posted *place = tag->owner;
    struct weir_rpc_server *server = place->server;
    struct weir_rpc_stream *s = ok ? take_call(place) : NULL;

    pthread_mutex_lock(&server->lock);
    if (s)
        server->n_streams++;
    if (!ok) { /* shutting down */
        grpc_metadata_array_destroy(&place->meta);
        grpc_call_details_destroy(&place->details);
        server->n_posted--;
        pthread_cond_broadcast(&server->changed);
    }
    pthread_mutex_unlock(&server->lock);
    if (ok)
        post(place); /* [V1] */
    if (!s)
        return;
    rpc_stream_start_server(s);
    open_stream(s);
}

void rpc_server_left(struct weir_rpc_server *server)
{
    pthread_mutex_lock(&server->lock);
    server->n_streams--;
    pthread_cond_broadcast(&server->changed);
    pthread_mutex_unlock(&server->lock);
}

/* ---- opening ---- */
static grpc_arg arg_int(const char *key, uint32_t value)
{
    grpc_arg arg = { .type = GRPC_ARG_INTEGER, .key = (char *)(uintptr_t)key };

    arg.value.integer = value > INT32_MAX ? INT32_MAX : (int)value;
    return arg;
}

static grpc_server *create_core(const struct weir_rpc_server_opts *opts)
{
    grpc_arg args[] = {
        arg_int(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH,
                opts->message_bytes_max ? opts->message_bytes_max : MESSAGE_BYTES_MAX),
        arg_int(GRPC_ARG_MAX_CONCURRENT_STREAMS, opts->streams_max ? opts->streams_max : STREAMS_MAX),
        arg_int(GRPC_ARG_KEEPALIVE_TIME_MS, KEEPALIVE_MS),
        arg_int(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, KEEPALIVE_TIMEOUT_MS),
        arg_int(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1),
        arg_int(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0),
        arg_int(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, PING_INTERVAL_MIN_MS),
        arg_int(GRPC_ARG_ALLOW_REUSEPORT, 0), /* else two servers would share a port in silence */
        arg_int(GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET, IDENTITY_ONLY),
    };
    grpc_channel_args all = { .num_args = sizeof args / sizeof args[0], .args = args };

    return grpc_server_create(&all, /* reserved= */ NULL);
}

static weir_err copy_handlers(struct weir_rpc_server *server, const struct weir_rpc_server_opts *opts)
{
    int n = opts->n_handlers;

    server->handlers =
        weir_calloc((size_t)n + RPC_HEALTH_HANDLERS + RPC_REFLECTION_HANDLERS, sizeof server->handlers[0]);
    if (!server->handlers)
        return WEIR_NOMEM;
    for (int i = 0; i < n; i++)
        server->handlers[i] = opts->handlers[i];
    rpc_health_handlers(&server->health, &server->handlers[n]);
    n += RPC_HEALTH_HANDLERS;
    if (opts->reflection) {
        rpc_reflection_handlers(&server->reflection, &server->handlers[n]);
        n += RPC_REFLECTION_HANDLERS;
    }
    server->n_handlers = n;
    rpc_health_init(&server->health, server->handlers, n);
    server->reflection = (struct rpc_reflection){ server->handlers, n };
    return WEIR_OK;
}

/* The core does not say why it can't listen; our own listener, opened and closed, does. */
static weir_err listen_tls(struct weir_rpc_server *server, const struct weir_rpc_server_opts *opts,
                           struct weir_why *why)
{
    grpc_server_credentials *creds = NULL;
    struct rpc_accept *trial = NULL;

    weir_err rc = rpc_tls_server(&opts->tls, &creds, why);
    if (rc == WEIR_OK)
        rc = rpc_accept_open(opts->listen, /* connections_max= */ 1, &trial, why);
    rpc_accept_close(trial);
    if (rc == WEIR_OK) {
        server->port = grpc_server_add_http2_port(server->core, opts->listen, creds);
        if (server->port <= 0)
            rc = weir_fail_param(why, "listen", WEIR_IO, "can't listen on %s", opts->listen);
    }
    if (creds)
        grpc_server_credentials_release(creds);
    return rc;
}

static weir_err listen_plain(struct weir_rpc_server *server, const struct weir_rpc_server_opts *opts,
                             struct weir_why *why)
{
    uint32_t connections_max = opts->connections_max ? opts->connections_max : CONNECTIONS_MAX;
    weir_err rc = rpc_accept_open(opts->listen, connections_max, &server->acc, why);

    if (rc == WEIR_OK)
        server->port = rpc_accept_port(server->acc);
    return rc;
}

static void start(struct weir_rpc_server *server)
{
    struct weir_rpc *rpc = server->rpc;

    grpc_server_start(server->core);
    server->started = true;
    server->n_posted = rpc->n_queues * CALLS_POSTED;
    for (int i = 0; i < rpc->n_queues * CALLS_POSTED; i++) {
        struct rpc_posted *place = &server->posted[i];

        place->server = server;
        place->cq = rpc->queues[i % rpc->n_queues].cq;
        place->tag = (struct rpc_tag){ on_call, place };
        post(place);
    }
}

static void init_sync(struct weir_rpc_server *server)
{
    pthread_condattr_t attr;

    pthread_mutex_init(&server->lock, /* attr= */ NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&server->changed, &attr);
    pthread_condattr_destroy(&attr);
}

static weir_err open_parts(struct weir_rpc_server *server, const struct weir_rpc_server_opts *opts,
                           struct weir_why *why)
{
    bool tls = rpc_tls_on(&opts->tls);

    if (copy_handlers(server, opts) != WEIR_OK)
        return weir_fail(why, WEIR_NOMEM, "rpc: no memory for a server");
    server->core = create_core(opts);
    for (int i = 0; i < server->rpc->n_queues; i++)
        grpc_server_register_completion_queue(server->core, server->rpc->queues[i].cq, /* reserved= */ NULL);
    weir_err rc = tls ? listen_tls(server, opts, why) : listen_plain(server, opts, why);
    if (rc != WEIR_OK)
        return rc;
    start(server);
    return tls ? rpc_probe_open(opts->listen, server->port, &server->probe, why)
               : rpc_accept_start(server->acc, server->core, why);
}

weir_err weir_rpc_server_open(struct weir_rpc *rpc, const struct weir_rpc_server_opts *opts,
                              struct weir_rpc_server **ret, struct weir_why *why)
{
    size_t n_places = (size_t)rpc->n_queues * CALLS_POSTED;
    struct weir_rpc_server *server = weir_alloc0(sizeof *server + n_places * sizeof server->posted[0]);

    if (!server)
        return weir_fail(why, WEIR_NOMEM, "rpc: no memory for a server");
    server->rpc = rpc;
    init_sync(server);
    weir_err rc = open_parts(server, opts, why);
    if (rc != WEIR_OK) {
        weir_rpc_server_close(server);
        return rc;
    }
    *ret = server;
    return WEIR_OK;
}

int weir_rpc_server_port(const struct weir_rpc_server *server)
{
    return server->port;
}

void weir_rpc_server_set_serving(struct weir_rpc_server *server, bool serving)
{
    rpc_health_set(&server->health, serving);
}

/* ---- the end ---- */
static void on_shutdown(struct rpc_tag *tag, bool ok)
{
    struct weir_rpc_server *server = tag->owner;

    (void)ok;
    pthread_mutex_lock(&server->lock);
    server->down = true;
    pthread_cond_broadcast(&server->changed);
    pthread_mutex_unlock(&server->lock);
}

static bool is_over(const struct weir_rpc_server *server)
{
    return server->down && server->n_posted == 0 && server->n_streams == 0; /* [V2] */
}

/* Until it is over, or timeout_ms have passed; negative: no timeout. */
static bool wait_until_over(struct weir_rpc_server *server, int64_t timeout_ms)
{
    uint64_t until_ns = weir_now_ns() + (uint64_t)timeout_ms * WEIR_MS;
    struct timespec until = { (time_t)(until_ns / WEIR_S), (long)(until_ns % WEIR_S) };
    int error = 0;

    pthread_mutex_lock(&server->lock);
    while (!is_over(server) && error == 0)
        error = timeout_ms < 0 ? pthread_cond_wait(&server->changed, &server->lock)
                               : pthread_cond_timedwait(&server->changed, &server->lock, &until);
    bool over = is_over(server);
    pthread_mutex_unlock(&server->lock);
    return over;
}

void weir_rpc_server_drain(struct weir_rpc_server *server, uint32_t timeout_ms)
{
    WEIR_BUG_ON(weir_role() == WEIR_ROLE_CQ); /* the one that would have to run what we wait for */
    pthread_mutex_lock(&server->lock);
    bool first = !server->draining;
    server->draining = true;
    pthread_mutex_unlock(&server->lock);
    if (first) {
        rpc_accept_close(server->acc);
        server->acc = NULL;
        rpc_probe_close(server->probe);
        server->probe = NULL;
        rpc_health_set(&server->health, /* serving= */ false);
        rpc_health_end_watches(&server->health); /* they would go on for ever */
        server->shutdown_tag = (struct rpc_tag){ on_shutdown, server };
        core_shutdown_and_notify(server->core, server->rpc->queues[0].cq, &server->shutdown_tag);
    }
    if (wait_until_over(server, timeout_ms))
        return;
    grpc_server_cancel_all_calls(server->core);
    (void)wait_until_over(server, -1);
}

void weir_rpc_server_close(struct weir_rpc_server *server)
{
    if (!server)
        return;
    if (server->started)
        weir_rpc_server_drain(server, /* timeout_ms= */ 0);
    rpc_accept_close(server->acc);
    rpc_probe_close(server->probe);
    if (server->core)
        grpc_server_destroy(server->core);
    rpc_health_release(&server->health);
    weir_free(server->handlers);
    pthread_cond_destroy(&server->changed);
    pthread_mutex_destroy(&server->lock);
    weir_free(server);
}
