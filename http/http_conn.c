/* http_conn.c - one connection's life: read, parse, hand over, send, again.
 *
 *     HANDSHAKE -> IDLE -> HEAD -> BODY -> HANDLE -> FLUSH -> IDLE ...
 *                           \-------\------------->/    \-> LINGER -> closed     (refused: straight to FLUSH)
 *
 * The socket is watched edge-triggered for IN, OUT and RDHUP, once, for life: no epoll_ctl in a request's
 * way, and while the handler works we do not read on, yet hear at once that the client closed (RDHUP) or
 * reset (HUP, ERR), even behind unread bytes, unless these fill the kernel's receive buffer: then the end has
 * not reached us. A half-close counts as gone, unless the answer is already complete; then it is delivered.
 *
 * Deadlines are lazy: the timer stays in the heap and is moved only when the new deadline is sooner; when it
 * fires too early it is set again. A request that comes and leaves in one turn does not touch the heap.
 *   [C1] The handler holds a request in phase HANDLE alone, and loses it exactly once.
 *   [C2] One request at a time: the next is parsed when the answer before it has left.
 *   [C3] Every phase has a deadline, but for HANDLE with nothing waiting to be sent: the handler's own time.
 *   [C4] A function here that may close the connection returns false if it did; nobody touches it afterwards.
 * Threads: the loop's.
 * Memory: bounded by the head's bounds, body_max (all together bodies_max), output_max (or the handler's own
 * whole answer) and HTTP_SCRATCH.
 * Not here: what an answer looks like (http_reply.c), sockets (http_listen.c), TLS (http_tls.c). */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "http/http_int.h"

/* EINTR is not among them: a call that can't block is not interrupted. */
static ssize_t plain_outcome(ssize_t n)
{
    if (n >= 0)
        return n;
    return errno == EAGAIN ? HTTP_IO_AGAIN : HTTP_IO_BROKEN;
}

static ssize_t plain_read(struct http_conn *conn, void *buf, size_t len)
{
    return plain_outcome(recv(conn->watch.fd, buf, len, 0));
}

static ssize_t plain_write(struct http_conn *conn, const void *buf, size_t len)
{
    return plain_outcome(send(conn->watch.fd, buf, len, MSG_NOSIGNAL));
}

static const struct http_io plain_io = { .read = plain_read, .write = plain_write };

static void enter(struct http_conn *conn, enum http_phase phase)
{
    conn->phase = phase;
    conn->since_ns = weir_loop_now(conn->shard->loop);
}

static bool reading(const struct http_conn *conn)
{
    return conn->phase == HTTP_IDLE || conn->phase == HTTP_HEAD || conn->phase == HTTP_BODY;
}

static bool waiting(const struct http_conn *conn)
{
    return conn->x && weir_buf_len(&conn->x->out) != 0;
}

/* Deadlines */

static uint64_t deadline_ns(const struct http_conn *conn)
{
    const struct weir_http_opts *opts = &conn->shard->server->opts;
    switch (conn->phase) {
    case HTTP_HANDSHAKE:
        return conn->since_ns + opts->tls_ms * WEIR_MS;
    case HTTP_IDLE:
        return conn->since_ns + opts->idle_ms * WEIR_MS;
    case HTTP_HEAD:
        return conn->since_ns + opts->head_ms * WEIR_MS;
    case HTTP_BODY:
        return conn->since_ns + opts->body_ms * WEIR_MS +
               weir_buf_len(&conn->x->body) * WEIR_S / opts->body_rate;
    case HTTP_LINGER:
        return conn->since_ns + opts->linger_ms * WEIR_MS;
    default:
        return waiting(conn) ? conn->since_ns + opts->stall_ms * WEIR_MS : UINT64_MAX; /* [C3] */
    }
}

static void arm(struct http_conn *conn)
{
    uint64_t at_ns = deadline_ns(conn);
    if (at_ns < conn->timer.at_ns) {
        weir_err rc = weir_loop_timer_set(conn->shard->loop, &conn->timer, at_ns);
        WEIR_BUG_ON(rc != WEIR_OK); /* it is set from accept to close, and a move never fails */
    }
}

static void refuse(struct http_conn *conn, enum weir_http_refusal refusal)
{
    http_refused(conn->shard->server, refusal);
    conn->x->unread = true;
    http_reply_refusal(conn->x, refusal);
    http_conn_answered(conn);
}

static void timed_out(struct http_conn *conn)
{
    struct weir_http_server *server = conn->shard->server;
    switch (conn->phase) {
    case HTTP_HEAD:
        if (weir_http_parser_idle(&conn->x->parser)) { /* but an empty line */
            http_conn_close(conn, /* reset= */ false);
            return;
        }
        refuse(conn, WEIR_HTTP_REFUSE_HEAD_TIMEOUT);
        return;
    case HTTP_BODY:
        refuse(conn, WEIR_HTTP_REFUSE_BODY_TIMEOUT);
        return;
    case HTTP_HANDSHAKE:
        http_refused(server, WEIR_HTTP_REFUSE_TLS);
        http_conn_close(conn, /* reset= */ true);
        return;
    case HTTP_HANDLE:
    case HTTP_FLUSH:
        http_refused(server, WEIR_HTTP_REFUSE_STALL);
        http_conn_close(conn, /* reset= */ true);
        return;
    default:
        http_conn_close(conn, /* reset= */ false);
        return;
    }
}

static void timer_run(struct weir_timer *timer)
{
    struct http_conn *conn = (struct http_conn *)((char *)timer - offsetof(struct http_conn, timer));
    const struct weir_http_opts *opts = &conn->shard->server->opts;
    uint64_t now_ns = weir_loop_now(conn->shard->loop), at_ns = deadline_ns(conn);
    bool due = at_ns <= now_ns;
    uint64_t next_ns = at_ns == UINT64_MAX || due ? now_ns + opts->idle_ms * WEIR_MS : at_ns;
    weir_err rc = weir_loop_timer_set(conn->shard->loop, timer, next_ns);
    WEIR_BUG_ON(rc != WEIR_OK); /* its old place in the heap is still there */
    if (due)
        timed_out(conn);
}

/* The end */

void http_conn_close(struct http_conn *conn, bool reset)
{
    struct http_shard *shard = conn->shard;
    struct http_exchange *x = conn->x;
    if (x && x->held) { /* [C1] */
        x->held = false;
        weir_counter_add(shard->server->gone, 1);
        if (x->req.on_gone)
            x->req.on_gone(&x->req);
    }
    weir_loop_unwatch(shard->loop, &conn->watch);
    weir_loop_timer_clear(shard->loop, &conn->timer);
    weir_loop_later_cancel(&conn->later);
    if (reset) {
        conn->broken = true; /* no TLS goodbye either */
        struct linger none = { .l_onoff = 1, .l_linger = 0 };
        (void)setsockopt(conn->watch.fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    }
    http_tls_end(conn);
    close(conn->watch.fd);
    *conn->pprev = conn->next;
    if (conn->next)
        conn->next->pprev = conn->pprev;
    if (x)
        http_exchange_give(shard, x);
    weir_buf_release(&conn->in);
    weir_free(conn);
    http_shard_conn_gone(shard);
}

/* What a refused client still sends is read and thrown away for a while: closing over unread bytes would make
 * the kernel reset the connection, and the client might never see why it was refused. [C4] */
static bool discard(struct http_conn *conn)
{
    for (int n_reads = 0; conn->readable && n_reads < HTTP_READS_MAX; n_reads++) {
        ssize_t n = plain_read(conn, conn->shard->scratch, HTTP_SCRATCH);
        if (n == HTTP_IO_AGAIN) {
            conn->readable = false;
            return true;
        }
        conn->n_lingered += n > 0 ? (uint32_t)n : 0;
        if (n <= 0 || conn->n_lingered > HTTP_LINGER_MAX) {
            http_conn_close(conn, /* reset= */ false);
            return false;
        }
    }
    if (conn->readable)
        http_conn_write_later(conn); /* others have their turn first */
    return true;
}

static bool linger(struct http_conn *conn)
{
    http_tls_end(conn);
    (void)shutdown(conn->watch.fd, SHUT_WR);
    enter(conn, HTTP_LINGER);
    return discard(conn);
}

/* Reading */

static bool start_request(struct http_conn *conn)
{
    struct http_exchange *x = http_exchange_take(conn->shard);
    if (!x) {
        http_refused(conn->shard->server, WEIR_HTTP_REFUSE_NOMEM);
        return false;
    }
    x->conn = conn;
    conn->x = x;
    x->req.peer = conn->peer;
    x->req.start_ns = weir_loop_now(conn->shard->loop);
    enter(conn, HTTP_HEAD);
    return true;
}

/* The head is complete; `more` says that bytes have come behind it. */
static void got_head(struct http_conn *conn, bool more)
{
    struct http_exchange *x = conn->x;
    const struct weir_http_parser *p = &x->parser;
    const struct weir_http_hooks *hooks = &conn->shard->server->hooks;
    x->req.method = p->method;
    x->req.path = p->path;
    x->req.query = p->query;
    x->req.headers = p->headers;
    x->req.n_headers = p->n_headers;
    x->unread = p->chunked || p->body_left != 0;
    x->keep = p->keep_alive;
    x->bodiless = weir_str_eq(p->method, "HEAD");
    if (hooks->on_head) {
        conn->phase = HTTP_HANDLE;
        x->held = true;
        hooks->on_head(hooks->ctx, &x->req);
        if (!x->held)
            return; /* refused */
        WEIR_BUG_ON(x->begun);
        x->held = false;
    }
    enter(conn, HTTP_BODY);
    if (p->expect_continue && x->unread && !more) {
        http_reply_continue(x);
        http_conn_write_later(conn);
    }
}

static void got_body(struct http_conn *conn)
{
    struct http_exchange *x = conn->x;
    struct weir_http_server *server = conn->shard->server;
    uint64_t len = x->parser.chunk.len;
    uint64_t before = atomic_fetch_add_explicit(&server->body_bytes, len, memory_order_relaxed);
    x->body_bytes += len; /* given back with the exchange, also when it is refused here */
    if (before + len > server->opts.bodies_max) {
        refuse(conn, WEIR_HTTP_REFUSE_BODIES);
        return;
    }
    weir_buf_add(&x->body, x->parser.chunk.ptr, len);
    if (x->body.failed)
        refuse(conn, WEIR_HTTP_REFUSE_NOMEM);
}

static void got_request(struct http_conn *conn)
{
    struct http_exchange *x = conn->x;
    const struct weir_http_hooks *hooks = &conn->shard->server->hooks;
    x->unread = false;
    x->req.body = (struct weir_str){ weir_buf_ptr(&x->body), weir_buf_len(&x->body) };
    enter(conn, HTTP_HANDLE);
    x->held = true;
    hooks->on_request(hooks->ctx, &x->req);
    /* After an answer the exchange is still here, until it has been sent; so this looks at no freed memory.
     */
    WEIR_CHECK(!x->held || x->req.on_gone);
}

/* Parse what has come until one request is complete; returns what was used of it. [C2] */
static size_t feed(struct http_conn *conn, const char *data, size_t len)
{
    size_t used = 0;
    if (conn->phase == HTTP_IDLE && !start_request(conn)) {
        http_conn_abort(conn);
        return 0;
    }
    while (reading(conn)) {
        enum weir_http_event event;
        struct http_exchange *x = conn->x;
        used += weir_http_parse(&x->parser, data + used, len - used, &event);
        switch (event) {
        case WEIR_HTTP_MORE:
            return used;
        case WEIR_HTTP_HEAD:
            got_head(conn, used < len);
            break;
        case WEIR_HTTP_BODY:
            got_body(conn);
            break;
        case WEIR_HTTP_END:
            got_request(conn);
            break;
        case WEIR_HTTP_ERROR:
            refuse(conn, x->parser.refusal);
            break;
        }
    }
    return used;
}

/* [C4] */
static bool read_in(struct http_conn *conn)
{
    struct http_shard *shard = conn->shard;
    for (int n_reads = 0; reading(conn);) {
        if (weir_buf_len(&conn->in) != 0) {
            weir_buf_consume(&conn->in, feed(conn, weir_buf_ptr(&conn->in), weir_buf_len(&conn->in)));
            if (weir_buf_len(&conn->in) == 0)
                weir_buf_release(&conn->in); /* an idle connection owns no buffer */
            continue;
        }
        if (!conn->readable)
            break;
        if (n_reads++ == HTTP_READS_MAX) {
            http_conn_write_later(conn); /* others have their turn first */
            break;
        }
        ssize_t n = conn->io->read(conn, shard->scratch, HTTP_SCRATCH);
        if (n == HTTP_IO_AGAIN) {
            conn->readable = false;
            break;
        }
        if (n <= 0) {
            http_conn_close(conn, /* reset= */ false);
            return false;
        }
        weir_counter_add(shard->server->received, (uint64_t)n);
        /* Less than was asked for: the socket is empty, and an edge tells when it no longer is. */
        if (!conn->ssl && n < HTTP_SCRATCH && !conn->eof)
            conn->readable = false;
        size_t used = feed(conn, shard->scratch, (size_t)n);
        if (used < (size_t)n) /* an add of nothing would still allocate */
            weir_buf_add(&conn->in, shard->scratch + used, (size_t)n - used);
        if (conn->in.failed)
            http_conn_abort(conn);
    }
    return true;
}

/* Sending */

void http_conn_write_later(struct http_conn *conn)
{
    weir_loop_later(conn->shard->loop, &conn->later);
}

void http_conn_answered(struct http_conn *conn)
{
    conn->phase = HTTP_FLUSH; /* since_ns stays: a stalled stream does not gain time by ending */
    http_conn_write_later(conn);
}

void http_conn_abort(struct http_conn *conn)
{
    conn->phase = HTTP_ABORT;
    http_conn_write_later(conn);
}

/* The answer has left. [C4] */
static bool finish(struct http_conn *conn)
{
    struct http_exchange *x = conn->x;
    bool keep = x->keep && !conn->shard->draining;
    bool unread = x->unread || conn->readable || weir_buf_len(&conn->in) != 0;
    conn->x = NULL;
    http_exchange_give(conn->shard, x);
    if (keep) {
        enter(conn, HTTP_IDLE);
        return true;
    }
    if (unread)
        return linger(conn);
    http_conn_close(conn, /* reset= */ false);
    return false;
}

/* [C4] */
static bool write_out(struct http_conn *conn)
{
    struct http_exchange *x = conn->x;
    uint64_t sent = 0;
    if (!x)
        return true;
    if (x->out.failed) { /* no memory for the answer: it can't be told in part */
        http_conn_close(conn, /* reset= */ true);
        return false;
    }
    while (conn->writable && weir_buf_len(&x->out) != 0) {
        size_t len = weir_buf_len(&x->out);
        ssize_t n = conn->io->write(conn, weir_buf_ptr(&x->out), len);
        if (n == HTTP_IO_AGAIN) {
            conn->writable = false;
            break;
        }
        if (n <= 0) {
            http_conn_close(conn, /* reset= */ false);
            return false;
        }
        weir_buf_consume(&x->out, (size_t)n);
        sent += (uint64_t)n;
        if (!conn->ssl && (size_t)n < len)
            conn->writable = false; /* an edge tells when there is room again */
    }
    bool left = weir_buf_len(&x->out) != 0;
    if (sent != 0)
        weir_counter_add(conn->shard->server->sent, sent);
    if ((conn->phase == HTTP_HANDLE || conn->phase == HTTP_FLUSH) && (sent != 0 || !conn->stalled))
        conn->since_ns = weir_loop_now(conn->shard->loop); /* progress: the client has stall_ms again */
    conn->stalled = left;
    return left || conn->phase != HTTP_FLUSH || finish(conn);
}

/* After any step. A client that closed its side while the handler works is gone. */
static void settle(struct http_conn *conn)
{
    if (conn->phase == HTTP_HANDLE && conn->eof) {
        http_conn_close(conn, /* reset= */ false);
        return;
    }
    arm(conn);
}

static bool handshake(struct http_conn *conn)
{
    ssize_t n = http_tls_handshake(conn);
    if (n == HTTP_IO_AGAIN) {
        arm(conn);
        return false;
    }
    if (n <= 0) {
        http_refused(conn->shard->server, WEIR_HTTP_REFUSE_TLS);
        http_conn_close(conn, /* reset= */ false);
        return false;
    }
    conn->tls_up = true; /* and still readable: the request may have come behind the handshake */
    enter(conn, HTTP_IDLE);
    return true;
}

void http_conn_drain(struct http_conn *conn)
{
    if (conn->phase == HTTP_IDLE) {
        conn->readable = true; /* a request that has reached us is still answered */
        if (!read_in(conn))
            return;
    }
    if (conn->phase == HTTP_IDLE || conn->phase == HTTP_HANDSHAKE)
        http_conn_close(conn, /* reset= */ false);
    else
        settle(conn);
}

static void ready(struct weir_watch *watch, uint32_t events)
{
    struct http_conn *conn = (struct http_conn *)((char *)watch - offsetof(struct http_conn, watch));
    if (events & EPOLLOUT)
        conn->writable = true;
    if (events & (EPOLLIN | EPOLLRDHUP))
        conn->readable = true;
    if (events & EPOLLRDHUP)
        conn->eof = true;
    if (events & (EPOLLHUP | EPOLLERR)) {
        conn->broken = true;
        http_conn_close(conn, /* reset= */ false);
        return;
    }
    if (conn->phase == HTTP_HANDSHAKE && !handshake(conn))
        return;
    if (conn->phase == HTTP_LINGER ? !discard(conn) : !read_in(conn))
        return;
    if (conn->writable && waiting(conn))
        http_conn_write_later(conn);
    settle(conn);
}

static void later_run(struct weir_later *later)
{
    struct http_conn *conn = (struct http_conn *)((char *)later - offsetof(struct http_conn, later));
    if (conn->phase == HTTP_ABORT) {
        http_conn_close(conn, /* reset= */ true);
        return;
    }
    if (!write_out(conn))
        return;
    if (conn->phase == HTTP_LINGER ? !discard(conn) : !read_in(conn))
        return;
    settle(conn);
}

void http_conn_accept(struct http_shard *shard, int fd, const struct sockaddr_storage *addr)
{
    const struct weir_http_server *server = shard->server;
    struct http_conn *conn = weir_alloc0(sizeof *conn);
    if (!conn)
        goto fail;
    conn->shard = shard;
    conn->watch.fd = fd;
    conn->watch.run = ready;
    conn->timer.run = timer_run;
    conn->later.run = later_run;
    conn->io = server->tls ? &http_tls_io : &plain_io;
    conn->writable = true;
    weir_buf_init(&conn->in, /* limit_bytes= */ 0); /* one read at most: HTTP_SCRATCH */
    http_peer_format(addr, conn->peer);
    if (server->tls) {
        conn->ssl = http_tls_accept(server->tls, fd);
        if (!conn->ssl)
            goto fail;
    }
    enter(conn, server->tls ? HTTP_HANDSHAKE : HTTP_IDLE);
    if (weir_loop_timer_set(shard->loop, &conn->timer, deadline_ns(conn)) != WEIR_OK)
        goto fail;
    if (weir_loop_watch(shard->loop, &conn->watch, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                        /* why= */ NULL) != WEIR_OK)
        goto fail;
    conn->next = shard->conns;
    conn->pprev = &shard->conns;
    if (conn->next)
        conn->next->pprev = &conn->next;
    shard->conns = conn;
    http_shard_conn_came(shard);
    return;
fail:
    http_refused(shard->server, WEIR_HTTP_REFUSE_NOMEM);
    if (conn) {
        weir_loop_timer_clear(shard->loop, &conn->timer);
        http_tls_end(conn);
    }
    weir_free(conn);
    close(fd);
}
