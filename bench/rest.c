/* rest.c - the load generator's client: as little work as possible for each answer, so that the server is measured.
 *
 * A crowd of HTTP/1.1 connections on one loop, kept open. Requests of an open loop leave when they are due, told by a timer
 * of the kernel: the loop's own are good to a millisecond, which is more than what is measured. */
#include "bench/load.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "bench/answer.h"
#include "http/loop.h"

struct run;

struct conn {
    struct weir_watch watch;
    struct run *run;
    struct conn *idle_next;
    char *request;
    size_t n_request, n_sent;
    uint64_t due_ns, last_event_ns; /* last_event_ns 0: none yet */
    uint32_t seed;
    bool busy;
    struct answer answer;
};

struct run {
    const struct load_opts *opts;
    struct load_result *ret;
    struct weir_loop *loop;
    struct sockaddr_storage addr;
    socklen_t addr_len;
    struct conn *conns, *idle;
    struct weir_timer end_timer;                  /* the end, then the end of the grace */
    struct weir_watch due_watch;                  /* a timerfd: the next request is due */
    uint64_t begin_ns, measure_ns, end_ns, n_due; /* open loop: requests handed out so far */
    uint32_t n_busy;
    bool stopping;
};

/* ---- requests ---- */
static size_t write_body(const struct load_opts *opts, char *body, size_t size)
{
    size_t n =
        (size_t)snprintf(body, size,
                         "{\"model\":\"%s\",\"stream\":%s,\"max_tokens\":%u,\"temperature\":0.7,\"messages\":"
                         "[{\"role\":\"user\",\"content\":\"",
                         opts->model, opts->stream ? "true" : "false", opts->max_tokens);
    load_prompt(body + n, opts->prompt_bytes);
    n += opts->prompt_bytes;
    return n + (size_t)snprintf(body + n, size - n, "\"}]}");
}

static weir_err make_request(struct conn *c)
{
    const struct load_opts *opts = c->run->opts;
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
}

static void conn_run(struct weir_watch *watch, uint32_t events);

static bool conn_open(struct conn *c)
{
    int fd = load_connect(&c->run->addr, c->run->addr_len);

    if (fd < 0)
        return false;
    fcntl(fd, F_SETFL, O_NONBLOCK);
    c->watch = (struct weir_watch){ fd, conn_run };
    if (weir_loop_watch(c->run->loop, &c->watch, EPOLLIN | EPOLLOUT | EPOLLET, NULL) != WEIR_OK) {
        close(fd);
        return false;
    }
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
    c->run->n_busy++;
    answer_begin(&c->answer);
    c->n_sent = 0;
    c->last_event_ns = 0;
    c->due_ns = due_ns;
    conn_send(c);
}

/* Open loop: what is due goes out, as far as connections are free; the rest waits for one, or for its time. */
static void hand_out(struct run *run, uint64_t now_ns)
{
    double gap_ns = 1e9 / run->opts->rate;
    uint64_t due_ns;

    for (;;) {
        due_ns = run->begin_ns + (uint64_t)((double)run->n_due * gap_ns);
        if (!run->idle || due_ns > now_ns)
            break;
        struct conn *c = run->idle;
        run->idle = c->idle_next;
        run->n_due++;
        conn_begin(c, due_ns);
    }
    if (!run->idle)
        return; /* the next answer comes here again */
    struct itimerspec at = { .it_value = { (time_t)(due_ns / WEIR_S), (long)(due_ns % WEIR_S) } };
    timerfd_settime(run->due_watch.fd, TFD_TIMER_ABSTIME, &at, NULL);
}

static void on_due(struct weir_watch *watch, uint32_t events)
{
    struct run *run = (struct run *)((char *)watch - offsetof(struct run, due_watch));

    (void)events;
    if (!run->stopping)
        hand_out(run, weir_now_ns());
}

/* ---- answers ---- */
static void next(struct conn *c, uint64_t now_ns)
{
    struct run *run = c->run;

    c->busy = false;
    run->n_busy--;
    if (run->stopping) {
        if (run->n_busy == 0)
            weir_loop_stop(run->loop);
    } else if (run->opts->rate == 0) {
        conn_begin(c, now_ns);
    } else {
        c->idle_next = run->idle;
        run->idle = c;
        hand_out(run, now_ns);
    }
}

static bool is_measured(const struct run *run, const struct conn *c, uint64_t now_ns)
{
    return c->due_ns >= run->measure_ns && now_ns <= run->end_ns;
}

static void answered(struct conn *c, uint64_t now_ns)
{
    struct run *run = c->run;

    if (c->answer.status != 200)
        load_fault(run->ret, c->answer.head);
    if (is_measured(run, c, now_ns)) {
        run->ret->n_requests++;
        hist_add(&run->ret->latency, now_ns - c->due_ns);
    }
    next(c, now_ns);
}

static void add_events(struct conn *c, uint64_t n, uint64_t now_ns)
{
    struct run *run = c->run;

    if (now_ns >= run->measure_ns && now_ns <= run->end_ns) {
        run->ret->n_events += n;
        if (c->last_event_ns)
            hist_add(&run->ret->gap, now_ns - c->last_event_ns);
    }
    if (!c->last_event_ns && is_measured(run, c, now_ns))
        hist_add(&run->ret->first_event, now_ns - c->due_ns);
    c->last_event_ns = now_ns;
}

/* The connection is of no use any more: another in its place, and its request is lost. */
static void replace(struct conn *c, const char *why)
{
    if (c->busy)
        load_fault(c->run->ret, why);
    conn_close(c);
    if (!c->run->stopping && !conn_open(c))
        load_fault(c->run->ret, "can't connect again");
    if (!c->busy)
        return;
    if (c->watch.fd >= 0 || c->run->stopping) {
        next(c, weir_now_ns());
    } else { /* out of the game */
        c->busy = false;
        c->run->n_busy--;
    }
}

static void take(struct conn *c, const char *data, size_t len)
{
    uint64_t now_ns = weir_now_ns(), n_before = c->answer.n_events;
    enum answer_state state = answer_take(&c->answer, data, len);

    c->run->ret->n_bytes += len;
    if (c->answer.n_events > n_before && c->run->opts->stream)
        add_events(c, c->answer.n_events - n_before, now_ns);
    if (state == ANSWER_DONE)
        answered(c, now_ns);
    else if (state == ANSWER_BAD)
        replace(c, "an answer that is not understood");
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
            replace(c, "the connection closed in the middle of an answer");
            return;
        }
        if (c->busy)
            take(c, buf, (size_t)n);
        if (c->watch.fd < 0 || (size_t)n < sizeof buf)
            return; /* a short read has drained it: what comes later is another edge */
    }
}

/* ---- the run ---- */
static void on_end(struct weir_timer *timer)
{
    struct run *run = (struct run *)((char *)timer - offsetof(struct run, end_timer));

    if (run->stopping) {
        for (uint32_t i = 0; i < run->n_busy; i++)
            load_fault(run->ret, "no end of an answer");
        weir_loop_stop(run->loop);
        return;
    }
    run->stopping = true;
    if (run->n_busy == 0 ||
        weir_loop_timer_set(run->loop, timer, run->end_ns + LOAD_GRACE_S * WEIR_S) != WEIR_OK)
        weir_loop_stop(run->loop);
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

static weir_err open_due(struct run *run, struct weir_why *why)
{
    run->due_watch =
        (struct weir_watch){ timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC), on_due };
    if (run->due_watch.fd < 0)
        return weir_fail(why, WEIR_IO, "no timer: %s", strerror(errno));
    return weir_loop_watch(run->loop, &run->due_watch, EPOLLIN | EPOLLET, why);
}

static weir_err begin(struct run *run)
{
    run->begin_ns = weir_now_ns();
    run->measure_ns = run->begin_ns + (uint64_t)(run->opts->warmup_s * 1e9);
    run->end_ns = run->measure_ns + (uint64_t)(run->opts->seconds * 1e9);
    run->end_timer.run = on_end;
    weir_err err = weir_loop_timer_set(run->loop, &run->end_timer, run->end_ns);
    if (run->opts->rate > 0)
        hand_out(run, run->begin_ns);
    else
        for (uint32_t i = 0; i < run->opts->n_connections; i++)
            conn_begin(&run->conns[i], run->begin_ns);
    return err;
}

static void release(struct run *run)
{
    for (uint32_t i = 0; run->conns && i < run->opts->n_connections; i++) {
        if (run->conns[i].run)
            conn_close(&run->conns[i]);
        weir_free(run->conns[i].request);
    }
    weir_free(run->conns);
    if (run->due_watch.fd >= 0)
        close(run->due_watch.fd);
    if (!run->loop)
        return;
    weir_loop_timer_clear(run->loop, &run->end_timer);
    weir_loop_close(run->loop);
}

weir_err rest_run(const struct load_opts *opts, struct load_result *ret, struct weir_why *why)
{
    struct run run = { .opts = opts, .ret = ret, .due_watch.fd = -1 };

    memset(ret, 0, sizeof *ret);
    ret->seconds = opts->seconds;
    weir_err err = load_resolve(opts->target, &run.addr, &run.addr_len, why);
    if (err == WEIR_OK)
        err = weir_loop_open(0, &run.loop, why);
    if (err == WEIR_OK)
        err = open_due(&run, why);
    if (err == WEIR_OK)
        err = open_conns(&run, why);
    if (err == WEIR_OK)
        err = begin(&run);
    if (err == WEIR_OK)
        weir_loop_run(run.loop);
    release(&run);
    return err;
}
