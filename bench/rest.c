/* rest.c - the load generator's client: as little work as possible for each answer, so that the server is measured.
 *
 * An answer's end is found by its Content-Length or by the last chunk; events are counted by their "\n\n". Nothing else is
 * parsed. One thread; each connection has one buffer for what it reads. */
#include "bench/rest.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"

#define HEAD_MAX 8192

struct run;

struct conn {
    struct weir_watch watch;
    struct run *run;
    struct conn *idle_next;
    char *request;
    size_t n_request, n_sent;
    uint64_t due_ns, last_event_ns;
    uint32_t seed;
    char head[HEAD_MAX];
    size_t n_head;
    bool busy, in_body, chunked, seen_event;
    int status;
    uint64_t body_left; /* Content-Length */
    char tail[8];       /* the last bytes read: an end or an event may lie over two reads */
    size_t n_tail;
};

struct run {
    const struct rest_opts *opts;
    struct rest_result *ret;
    struct weir_loop *loop;
    struct sockaddr_storage addr;
    socklen_t addr_len;
    struct conn *conns, *idle;
    struct weir_timer tick;
    uint64_t begin_ns, measure_ns, end_ns, n_due; /* open loop: requests handed out so far */
    uint32_t n_open;
    bool stopping;
};

static void fault(struct run *run, const char *what)
{
    if (run->ret->n_errors++ == 0)
        snprintf(run->ret->error, sizeof run->ret->error, "%.150s", what);
}

/* ---- requests ---- */
static size_t write_body(const struct rest_opts *opts, char *body, size_t size)
{
    size_t n =
        (size_t)snprintf(body, size,
                         "{\"model\":\"%s\",\"stream\":%s,\"max_tokens\":%u,\"temperature\":0.7,\"messages\":"
                         "[{\"role\":\"user\",\"content\":\"",
                         opts->model, opts->stream ? "true" : "false", opts->max_tokens);
    for (uint32_t i = 0; i < opts->prompt_bytes; i++)
        body[n++] = "the river runs on and on "[i % 25];
    return n + (size_t)snprintf(body + n, size - n, "\"}]}");
}

static weir_err make_request(struct conn *c)
{
    const struct rest_opts *opts = c->run->opts;
    size_t size = opts->prompt_bytes + 2048;
    char *body = weir_alloc(size);

    c->request = weir_alloc(size + 1024);
    if (!body || !c->request) {
        weir_free(body);
        return WEIR_NOMEM;
    }
    size_t n_body = write_body(opts, body, size);
    c->n_request =
        (size_t)snprintf(c->request, 1024,
                         "POST %s HTTP/1.1\r\nhost: %s\r\nauthorization: Bearer %s\r\ncontent-type: "
                         "application/json\r\nx-session-affinity: key-%u\r\ncontent-length: %zu\r\n\r\n",
                         opts->path, opts->target, opts->api_key,
                         opts->n_affinity_keys ? c->seed % opts->n_affinity_keys : c->seed, n_body);
    memcpy(c->request + c->n_request, body, n_body);
    c->n_request += n_body;
    weir_free(body);
    return WEIR_OK;
}

static void conn_close(struct conn *c)
{
    if (c->watch.fd < 0)
        return;
    weir_loop_unwatch(c->run->loop, &c->watch);
    close(c->watch.fd);
    c->watch.fd = -1;
    c->run->n_open--;
}

static void stop_when_quiet(struct run *run)
{
    for (uint32_t i = 0; i < run->opts->n_connections; i++)
        if (run->conns[i].busy)
            return;
    weir_loop_stop(run->loop);
}

static void conn_run(struct weir_watch *watch, uint32_t events);

static bool conn_open(struct conn *c)
{
    int one = 1, fd = socket(c->run->addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || connect(fd, (struct sockaddr *)&c->run->addr, c->run->addr_len) != 0) {
        if (fd >= 0)
            close(fd);
        return false;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    c->watch = (struct weir_watch){ fd, conn_run };
    if (weir_loop_watch(c->run->loop, &c->watch, EPOLLIN | EPOLLOUT | EPOLLET, NULL) != WEIR_OK) {
        close(fd);
        return false;
    }
    c->run->n_open++;
    return true;
}

static void conn_send(struct conn *c)
{
    while (c->busy && c->n_sent < c->n_request) {
        ssize_t n = send(c->watch.fd, c->request + c->n_sent, c->n_request - c->n_sent, MSG_NOSIGNAL);
        if (n < 0)
            return; /* EAGAIN: the edge comes; anything else shows as a hang-up */
        c->n_sent += (size_t)n;
    }
}

static void conn_begin(struct conn *c, uint64_t due_ns)
{
    c->busy = true;
    c->in_body = c->chunked = c->seen_event = false;
    c->n_head = c->n_sent = c->n_tail = 0;
    c->due_ns = due_ns;
    conn_send(c);
}

/* ---- answers ---- */
static void next(struct conn *c, uint64_t now_ns)
{
    struct run *run = c->run;

    c->busy = false;
    if (run->stopping) {
        stop_when_quiet(run);
    } else if (run->opts->rate == 0) {
        conn_begin(c, now_ns);
    } else {
        c->idle_next = run->idle;
        run->idle = c;
    }
}

static void answered(struct conn *c)
{
    struct run *run = c->run;
    uint64_t now_ns = weir_now_ns();

    if (c->status != 200)
        fault(run, c->head);
    if (c->due_ns >= run->measure_ns && now_ns <= run->end_ns) {
        run->ret->n_requests++;
        hist_add(&run->ret->latency, now_ns - c->due_ns);
    }
    next(c, now_ns);
}

static void count_events(struct conn *c, const char *data, size_t len)
{
    struct run *run = c->run;
    uint64_t now_ns = 0, n = 0;

    for (const char *p = data; (p = memchr(p, '\n', len - (size_t)(p - data))); p++)
        n += (size_t)(p - data) + 1 < len && p[1] == '\n';
    if (n == 0)
        return;
    now_ns = weir_now_ns();
    if (now_ns >= run->measure_ns && now_ns <= run->end_ns) {
        run->ret->n_events += n;
        if (c->seen_event)
            hist_add(&run->ret->gap, now_ns - c->last_event_ns);
        else if (c->due_ns >= run->measure_ns)
            hist_add(&run->ret->first_event, now_ns - c->due_ns);
    }
    c->seen_event = true;
    c->last_event_ns = now_ns;
}

/* Chunked: the body ends with "0\r\n\r\n", which an event's text can't hold, since JSON escapes its line ends. */
static bool body_ended(struct conn *c, const char *data, size_t len)
{
    if (!c->chunked) {
        c->body_left -= len < c->body_left ? len : c->body_left;
        return c->body_left == 0;
    }
    size_t keep = len < 5 ? 5 - len : 0;
    if (keep > c->n_tail)
        keep = c->n_tail;
    memmove(c->tail, c->tail + c->n_tail - keep, keep);
    size_t take = len < 5 ? len : 5;
    memcpy(c->tail + keep, data + len - take, take);
    c->n_tail = keep + take;
    return c->n_tail == 5 && memcmp(c->tail, "0\r\n\r\n", 5) == 0;
}

static void take_body(struct conn *c, const char *data, size_t len)
{
    if (c->run->opts->stream && len)
        count_events(c, data, len);
    if (body_ended(c, data, len))
        answered(c);
}

static void take(struct conn *c, const char *data, size_t len)
{
    size_t room = HEAD_MAX - 1 - c->n_head, n = len < room ? len : room;

    c->run->ret->n_bytes += len;
    if (c->in_body) {
        take_body(c, data, len);
        return;
    }
    memcpy(c->head + c->n_head, data, n);
    c->n_head += n;
    c->head[c->n_head] = '\0';
    char *end = strstr(c->head, "\r\n\r\n");
    if (!end)
        return;
    size_t head_len = (size_t)(end - c->head) + 4, before = c->n_head - n;
    const char *length = strcasestr(c->head, "content-length:");
    *end = '\0';
    c->status = atoi(c->head + 9);
    c->chunked = strcasestr(c->head, "transfer-encoding:") != NULL;
    c->body_left = length && length < end ? strtoull(length + 15, NULL, 10) : 0;
    c->in_body = true;
    take_body(c, data + (head_len - before), len - (head_len - before));
}

static void conn_run(struct weir_watch *watch, uint32_t events)
{
    struct conn *c = (struct conn *)((char *)watch - offsetof(struct conn, watch));
    static char buf[1 << 16];

    if (events & EPOLLOUT)
        conn_send(c);
    for (;;) {
        ssize_t n = recv(c->watch.fd, buf, sizeof buf, 0);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) {
            conn_close(c);
            if (c->busy)
                fault(c->run, "the connection closed in the middle of an answer");
            if (!c->run->stopping && !conn_open(c))
                fault(c->run, "can't connect again");
            if (c->busy && c->watch.fd >= 0)
                next(c, weir_now_ns());
            c->busy = c->busy && c->watch.fd >= 0;
            return;
        }
        if (c->busy)
            take(c, buf, (size_t)n);
    }
}

/* ---- the run ---- */
static void hand_out(struct run *run, uint64_t now_ns)
{
    double per_ns = run->opts->rate / 1e9;

    while (run->idle && (double)run->n_due < (double)(now_ns - run->begin_ns) * per_ns) {
        struct conn *c = run->idle;
        run->idle = c->idle_next;
        conn_begin(c, run->begin_ns + (uint64_t)((double)run->n_due++ / per_ns));
    }
}

static void tick(struct weir_timer *timer)
{
    struct run *run = (struct run *)((char *)timer - offsetof(struct run, tick));
    uint64_t now_ns = weir_now_ns();

    if (now_ns >= run->end_ns && !run->stopping) {
        run->stopping = true;
        stop_when_quiet(run);
    }
    if (now_ns >= run->end_ns + 5 * WEIR_S)
        weir_loop_stop(run->loop); /* somebody never answered */
    if (!run->stopping && run->opts->rate > 0)
        hand_out(run, now_ns);
    (void)!weir_loop_timer_set(run->loop, &run->tick, now_ns + WEIR_MS);
}

static weir_err resolve(struct run *run, struct weir_why *why)
{
    char host[256];
    const char *colon = strrchr(run->opts->target, ':');
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *found = NULL;

    if (!colon || (size_t)(colon - run->opts->target) >= sizeof host)
        return weir_fail_param(why, "target", WEIR_INVALID, "target: `%s` is not host:port",
                               run->opts->target);
    memcpy(host, run->opts->target, (size_t)(colon - run->opts->target));
    host[colon - run->opts->target] = '\0';
    if (getaddrinfo(host, colon + 1, &hints, &found) != 0)
        return weir_fail_param(why, "target", WEIR_INVALID, "target: `%s` does not resolve",
                               run->opts->target);
    memcpy(&run->addr, found->ai_addr, found->ai_addrlen);
    run->addr_len = found->ai_addrlen;
    freeaddrinfo(found);
    return WEIR_OK;
}

static weir_err open_conns(struct run *run, struct weir_why *why)
{
    run->conns = weir_calloc(run->opts->n_connections, sizeof *run->conns);
    if (!run->conns)
        return weir_fail(why, WEIR_NOMEM, "no memory for %u connections", run->opts->n_connections);
    for (uint32_t i = 0; i < run->opts->n_connections; i++) {
        struct conn *c = &run->conns[i];
        c->run = run;
        c->watch.fd = -1;
        c->seed = i;
        if (make_request(c) != WEIR_OK)
            return weir_fail(why, WEIR_NOMEM, "no memory for the requests");
        if (!conn_open(c))
            return weir_fail(why, WEIR_IO, "can't connect to %s: %s", run->opts->target, strerror(errno));
        c->idle_next = run->idle;
        run->idle = c;
    }
    return WEIR_OK;
}

static void begin(struct run *run)
{
    run->begin_ns = weir_now_ns();
    run->measure_ns = run->begin_ns + (uint64_t)(run->opts->warmup_s * 1e9);
    run->end_ns = run->measure_ns + (uint64_t)(run->opts->seconds * 1e9);
    if (run->opts->rate == 0)
        for (uint32_t i = 0; i < run->opts->n_connections; i++)
            conn_begin(&run->conns[i], run->begin_ns);
    run->tick.run = tick;
    (void)!weir_loop_timer_set(run->loop, &run->tick, run->begin_ns + WEIR_MS);
}

weir_err rest_run(const struct rest_opts *opts, struct rest_result *ret, struct weir_why *why)
{
    struct run run = { .opts = opts, .ret = ret };

    memset(ret, 0, sizeof *ret);
    weir_err err = resolve(&run, why);
    if (err == WEIR_OK)
        err = weir_loop_open(0, &run.loop, why);
    if (err == WEIR_OK)
        err = open_conns(&run, why);
    if (err == WEIR_OK) {
        begin(&run);
        weir_loop_run(run.loop);
        ret->seconds = opts->seconds;
    }
    for (uint32_t i = 0; run.conns && i < opts->n_connections; i++) {
        if (run.conns[i].run)
            conn_close(&run.conns[i]);
        weir_free(run.conns[i].request);
    }
    weir_free(run.conns);
    if (run.loop) {
        weir_loop_timer_clear(run.loop, &run.tick);
        weir_loop_close(run.loop);
    }
    return err;
}
