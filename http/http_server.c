/* http_server.c - the server: its shards (one a loop), accepting, the pool of exchanges, draining, counting.
 *
 * Nothing is shared between shards in a request's way but relaxed counters. A process without descriptors
 * neither spins nor leaves clients hanging: a descriptor kept in reserve is given up to take the first
 * waiting connection and close it, then accepting rests for HTTP_ACCEPT_PAUSE_MS.
 *   [S1] on_drained is called once, after the last connection of the last shard.
 *   [S2] A drain message that the loop has not run yet outlives the server, and then does nothing.
 * Threads: a shard is its loop's; open and close while no loop runs; drain from anywhere. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "http/http_int.h"

void http_refused(struct weir_http_server *server, enum weir_http_refusal refusal)
{
    weir_counter_add(server->refused[refusal], 1);
}

/* Exchanges */

static void keep_small(struct weir_buf *buf)
{
    if (buf->cap > HTTP_KEEP_MAX) {
        size_t limit = buf->limit;
        weir_buf_release(buf);
        weir_buf_init(buf, limit);
    }
    weir_buf_clear(buf);
}

static void exchange_free(struct http_exchange *x)
{
    weir_http_parser_release(&x->parser);
    weir_buf_release(&x->body);
    weir_buf_release(&x->out);
    weir_free(x);
}

struct http_exchange *http_exchange_take(struct http_shard *shard)
{
    struct http_exchange *x = shard->pool;
    if (x) {
        shard->pool = x->next;
        shard->n_pool--;
    } else {
        x = weir_alloc(sizeof *x);
        if (!x)
            return NULL;
        weir_buf_init(&x->body, /* limit_bytes= */ 0); /* the parser bounds it */
        weir_buf_init(&x->out, /* limit_bytes= */ 0);  /* stream_write bounds it */
        weir_http_parser_init(&x->parser, shard->server->opts.body_max);
    }
    memset(x, 0, offsetof(struct http_exchange, body));
    x->shard = shard;
    x->req.loop = shard->loop;
    x->req.server = shard->server;
    return x;
}

void http_exchange_give(struct http_shard *shard, struct http_exchange *x)
{
    if (x->body_bytes != 0)
        atomic_fetch_sub_explicit(&shard->server->body_bytes, x->body_bytes, memory_order_relaxed);
    if (shard->n_pool == HTTP_POOL_MAX) {
        exchange_free(x);
        return;
    }
    keep_small(&x->body);
    keep_small(&x->out);
    weir_http_parser_clear(&x->parser);
    x->next = shard->pool;
    shard->pool = x;
    shard->n_pool++;
}

/* Counting and draining */

static void check_drained(struct http_shard *shard)
{
    struct weir_http_server *server = shard->server;
    if (!shard->draining || shard->conns || shard->drained)
        return;
    shard->drained = true;
    weir_loop_timer_clear(shard->loop, &shard->drain_timer);
    if (atomic_fetch_sub(&server->n_undrained, 1) == 1 && server->hooks.on_drained) /* [S1] */
        server->hooks.on_drained(server->hooks.ctx);
}

void http_shard_conn_came(struct http_shard *shard)
{
    atomic_fetch_add_explicit(&shard->server->n_conns, 1, memory_order_relaxed);
    weir_gauge_add(shard->server->connections, 1);
}

void http_shard_conn_gone(struct http_shard *shard)
{
    atomic_fetch_sub_explicit(&shard->server->n_conns, 1, memory_order_relaxed);
    weir_gauge_add(shard->server->connections, -1);
    check_drained(shard);
}

static void stop_listening(struct http_shard *shard)
{
    weir_loop_timer_clear(shard->loop, &shard->pause);
    if (shard->listening)
        weir_loop_unwatch(shard->loop, &shard->listener);
    shard->listening = false;
    if (shard->listener.fd >= 0)
        close(shard->listener.fd);
    shard->listener.fd = -1;
}

static void accept_ready(struct weir_watch *watch, uint32_t events);

static void drain_timed_out(struct weir_timer *timer)
{
    struct http_shard *shard =
        (struct http_shard *)((char *)timer - offsetof(struct http_shard, drain_timer));
    while (shard->conns)
        http_conn_close(shard->conns, /* reset= */ true);
}

static void drain_run(struct weir_task *task)
{
    struct http_drain_msg *msg =
        (struct http_drain_msg *)((char *)task - offsetof(struct http_drain_msg, task));
    struct http_shard *shard = msg->shard;
    uint32_t timeout_ms = msg->timeout_ms;
    weir_free(msg);
    if (!shard)
        return; /* [S2] */
    shard->drain_msg = NULL;
    if (shard->listening)
        accept_ready(&shard->listener,
                     EPOLLIN); /* those that the kernel has already taken get an answer, not a reset */
    stop_listening(shard);
    shard->draining = true;
    uint64_t at_ns = weir_loop_now(shard->loop) + timeout_ms * WEIR_MS;
    if (weir_loop_timer_set(shard->loop, &shard->drain_timer, at_ns) != WEIR_OK) {
        drain_timed_out(&shard->drain_timer); /* no memory for a timer: now rather than never */
    }
    for (struct http_conn *conn = shard->conns, *next; conn; conn = next) {
        next = conn->next;
        http_conn_drain(conn);
    }
    check_drained(shard);
}

void weir_http_server_drain(struct weir_http_server *server, uint32_t timeout_ms)
{
    if (atomic_exchange(&server->drain_requested, true))
        return;
    for (size_t i = 0; i < server->n_shards; i++) {
        struct http_drain_msg *msg = server->shards[i]->drain_msg;
        msg->timeout_ms = timeout_ms;
        weir_loop_post(server->shards[i]->loop, &msg->task);
    }
}

/* Accepting */

static void pause_over(struct weir_timer *timer)
{
    struct http_shard *shard = (struct http_shard *)((char *)timer - offsetof(struct http_shard, pause));
    if (shard->reserve_fd < 0)
        shard->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    shard->listening = weir_loop_watch(shard->loop, &shard->listener, EPOLLIN, /* why= */ NULL) == WEIR_OK;
    if (!shard->listening) {
        weir_err rc = weir_loop_timer_set(shard->loop, timer,
                                          weir_loop_now(shard->loop) + HTTP_ACCEPT_PAUSE_MS * WEIR_MS);
        WEIR_BUG_ON(rc != WEIR_OK); /* its old place in the heap is still there */
    }
}

static void out_of_descriptors(struct http_shard *shard)
{
    http_refused(shard->server, WEIR_HTTP_REFUSE_DESCRIPTORS);
    if (shard->reserve_fd >= 0) {
        close(shard->reserve_fd);
        int fd = accept4(shard->listener.fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0)
            close(fd);
        shard->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    }
    uint64_t at_ns = weir_loop_now(shard->loop) + HTTP_ACCEPT_PAUSE_MS * WEIR_MS;
    if (weir_loop_timer_set(shard->loop, &shard->pause, at_ns) == WEIR_OK) {
        weir_loop_unwatch(shard->loop, &shard->listener);
        shard->listening = false;
    }
}

/* One connection too many: an answer if it fits the socket at once, and the end. */
static void refuse_connection(struct http_shard *shard, int fd)
{
    http_refused(shard->server, WEIR_HTTP_REFUSE_CONNECTIONS);
    struct http_exchange *x = shard->server->tls ? NULL : http_exchange_take(shard);
    if (x) {
        http_reply_refusal(x, WEIR_HTTP_REFUSE_CONNECTIONS);
        if (!x->out.failed)
            (void)send(fd, weir_buf_ptr(&x->out), weir_buf_len(&x->out), MSG_NOSIGNAL);
        http_exchange_give(shard, x);
        (void)shutdown(fd, SHUT_WR);
    }
    close(fd);
}

static void accept_ready(struct weir_watch *watch, uint32_t events)
{
    struct http_shard *shard = (struct http_shard *)((char *)watch - offsetof(struct http_shard, listener));
    struct weir_http_server *server = shard->server;
    (void)events;
    for (int i = 0; i < HTTP_ACCEPTS_MAX; i++) {
        struct sockaddr_storage addr;
        socklen_t len = sizeof addr;
        int fd = accept4(watch->fd, (struct sockaddr *)&addr, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && errno == EAGAIN)
            return;
        if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)) {
            out_of_descriptors(shard);
            return;
        }
        if (fd < 0)
            continue; /* accept(2) also reports what happened to that one connection: on to the next */
        if (atomic_load_explicit(&server->n_conns, memory_order_relaxed) >= server->opts.connections_max)
            refuse_connection(shard, fd);
        else
            http_conn_accept(shard, fd, &addr);
    }
}

/* Opening and closing */

static void set_defaults(struct weir_http_opts *opts)
{
#define DEFAULT(field, value) opts->field = opts->field ? opts->field : (value)
    DEFAULT(name, "http");
    DEFAULT(body_max, WEIR_HTTP_BODY_MAX_DEFAULT);
    DEFAULT(bodies_max, 1ull << 30);
    DEFAULT(output_max, 1 << 20);
    DEFAULT(connections_max, 20000);
    DEFAULT(head_ms, 10000);
    DEFAULT(body_ms, 30000);
    DEFAULT(body_rate, 16384);
    DEFAULT(idle_ms, 75000);
    DEFAULT(stall_ms, 30000);
    DEFAULT(tls_ms, 10000);
    DEFAULT(linger_ms, 2000);
#undef DEFAULT
}

static void register_metrics(struct weir_http_server *server)
{
    const char *name = server->opts.name;
    char labels[160];
    snprintf(labels, sizeof labels, "listener=\"%s\"", name);
    server->connections = weir_gauge("weir_http_connections", labels, "open client connections");
    server->gone =
        weir_counter("weir_http_gone_total", labels, "clients that left before their answer was complete");
    server->received = weir_counter("weir_http_received_bytes_total", labels, "bytes read from clients");
    server->sent = weir_counter("weir_http_sent_bytes_total", labels, "bytes written to clients");
    for (int i = 2; i < HTTP_CODE_CLASSES; i++) {
        snprintf(labels, sizeof labels, "listener=\"%s\",code=\"%dxx\"", name, i);
        server->requests[i] =
            weir_counter("weir_http_requests_total", labels, "answers begun, by status class");
    }
    for (int i = 1; i < WEIR_HTTP_REFUSAL_COUNT; i++) {
        snprintf(labels, sizeof labels, "listener=\"%s\",reason=\"%s\"", name,
                 weir_http_refusal_info((enum weir_http_refusal)i)->label);
        server->refused[i] =
            weir_counter("weir_http_refused_total", labels, "requests and connections refused");
    }
}

/* Takes the listening socket, also on failure. */
static weir_err shard_open(struct weir_http_server *server, struct weir_loop *loop, int fd,
                           struct weir_why *why)
{
    struct http_shard *shard = weir_alloc0(sizeof *shard);
    if (!shard) {
        close(fd);
        return weir_fail(why, WEIR_NOMEM, "http: no memory");
    }
    server->shards[server->n_shards++] = shard; /* from here on weir_http_server_close cleans up */
    shard->server = server;
    shard->loop = loop;
    shard->listener.fd = fd;
    shard->listener.run = accept_ready;
    shard->pause.run = pause_over;
    shard->drain_timer.run = drain_timed_out;
    shard->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (shard->reserve_fd < 0)
        return weir_fail(why, WEIR_IO, "http: /dev/null: %s", strerror(errno));
    shard->drain_msg = weir_alloc0(sizeof *shard->drain_msg);
    if (!shard->drain_msg)
        return weir_fail(why, WEIR_NOMEM, "http: no memory");
    shard->drain_msg->task.run = drain_run;
    shard->drain_msg->shard = shard;
    weir_err rc = weir_loop_watch(loop, &shard->listener, EPOLLIN, why);
    shard->listening = rc == WEIR_OK;
    return rc;
}

weir_err weir_http_server_open(const struct weir_http_opts *opts, const struct weir_http_hooks *hooks,
                               struct weir_loop *const *loops, size_t n_loops, struct weir_http_server **ret,
                               struct weir_why *why)
{
    if (!hooks->on_request || n_loops == 0)
        return weir_fail(why, WEIR_INVALID, "http: a server needs an on_request hook and a loop");
    weir_err rc = WEIR_NOMEM;
    size_t i_taken = 0;
    int *fds = weir_calloc(n_loops, sizeof *fds);
    struct weir_http_server *server = weir_alloc0(sizeof *server);
    if (server)
        server->shards = weir_calloc(n_loops, sizeof(struct http_shard *));
    if (!fds || !server || !server->shards) {
        rc = weir_fail(why, WEIR_NOMEM, "http: no memory");
        goto fail;
    }
    server->opts = *opts;
    server->hooks = *hooks;
    set_defaults(&server->opts);
    rc = http_tls_open(opts, &server->tls, why);
    if (rc != WEIR_OK)
        goto fail;
    register_metrics(server);
    rc = http_listen_open(opts->listen, n_loops, fds, &server->port, why);
    if (rc != WEIR_OK)
        goto fail;
    atomic_init(&server->n_undrained, n_loops);
    while (i_taken < n_loops && rc == WEIR_OK) {
        rc = shard_open(server, loops[i_taken], fds[i_taken], why);
        i_taken++;
    }
    if (rc != WEIR_OK) {
        while (i_taken < n_loops)
            close(fds[i_taken++]);
        goto fail;
    }
    weir_free(fds);
    *ret = server;
    return WEIR_OK;
fail:
    weir_free(fds);
    weir_http_server_close(server);
    return rc;
}

static void shard_close(struct http_shard *shard)
{
    shard->drained = true; /* on_drained is not for this end */
    stop_listening(shard);
    while (shard->conns)
        http_conn_close(shard->conns, /* reset= */ true);
    weir_loop_timer_clear(shard->loop, &shard->drain_timer);
    if (shard->reserve_fd >= 0)
        close(shard->reserve_fd);
    if (shard->drain_msg && atomic_load(&shard->server->drain_requested))
        shard->drain_msg->shard = NULL; /* [S2]: the loop frees it */
    else
        weir_free(shard->drain_msg);
    for (struct http_exchange *x = shard->pool, *next; x; x = next) {
        next = x->next;
        exchange_free(x);
    }
    weir_free(shard);
}

void weir_http_server_close(struct weir_http_server *server)
{
    if (!server)
        return;
    for (size_t i = 0; i < server->n_shards; i++)
        shard_close(server->shards[i]);
    http_tls_close(server->tls);
    weir_free(server->shards);
    weir_free(server);
}

int weir_http_server_port(const struct weir_http_server *server)
{
    return server->port;
}

uint32_t weir_http_server_connections(const struct weir_http_server *server)
{
    return atomic_load_explicit(&server->n_conns, memory_order_relaxed);
}
