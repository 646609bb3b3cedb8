/* harness.c - see harness.h. */
#include "tests/unit/proto/harness.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"

/* ---- an end that records ---- */
void end_init(struct end *end)
{
    pthread_condattr_t attr;

    memset(end, 0, sizeof *end);
    pthread_mutex_init(&end->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&end->changed, &attr);
    pthread_condattr_destroy(&attr);
    /* A server's callback that comes by the wire is ordered after this; say so to the thread sanitizer. */
    pthread_mutex_lock(&end->lock);
    pthread_mutex_unlock(&end->lock);
}

void end_release(struct end *end)
{
    weir_rpc_stream_unref(end->s);
    pthread_cond_destroy(&end->changed);
    pthread_mutex_destroy(&end->lock);
}

bool end_wait_change(struct end *end)
{
    uint64_t until_ns = weir_now_ns() + 30 * WEIR_S;
    struct timespec until = { (time_t)(until_ns / WEIR_S), (long)(until_ns % WEIR_S) };

    return pthread_cond_timedwait(&end->changed, &end->lock, &until) == 0;
}

static void unlock_changed(struct end *end)
{
    pthread_cond_broadcast(&end->changed);
    pthread_mutex_unlock(&end->lock);
}

static bool end_message(void *ctx, struct weir_rpc_stream *s, struct weir_str bytes)
{
    struct end *end = ctx;

    pthread_mutex_lock(&end->lock);
    end->n_got++;
    end->bytes += bytes.len;
    end->last_len = bytes.len < sizeof end->last ? bytes.len : sizeof end->last - 1;
    memcpy(end->last, bytes.ptr, end->last_len);
    end->last[end->last_len] = '\0';
    bool go_on = !end->hold, resume = end->resume_inside;
    unlock_changed(end);
    if (resume)
        weir_rpc_stream_resume(s);
    return go_on;
}

static void end_sent(void *ctx, struct weir_rpc_stream *s, bool ok)
{
    struct end *end = ctx;

    (void)s;
    pthread_mutex_lock(&end->lock);
    end->n_sent += ok;
    end->n_unsent += !ok;
    unlock_changed(end);
}

static void end_peer_done(void *ctx, struct weir_rpc_stream *s)
{
    struct end *end = ctx;

    (void)s;
    pthread_mutex_lock(&end->lock);
    end->peer_done = true;
    unlock_changed(end);
}

static void end_closed(void *ctx, struct weir_rpc_stream *s, int grpc_status, const char *message)
{
    struct end *end = ctx;

    pthread_mutex_lock(&end->lock);
    struct weir_str trailing = weir_rpc_stream_meta(s, "x-trailing");
    if (trailing.len > 0)
        snprintf(end->seen_meta, sizeof end->seen_meta, "%.*s", WEIR_STR_FMT(trailing));
    end->status = grpc_status;
    snprintf(end->text, sizeof end->text, "%s", message);
    end->n_closed++;
    unlock_changed(end);
}

const struct weir_rpc_stream_ops end_ops = { end_message, end_sent, end_peer_done, end_closed };

/* ---- Echo ---- */
static bool echo_message(void *ctx, struct weir_rpc_stream *s, struct weir_str bytes)
{
    (void)ctx;
    (void)!weir_rpc_stream_send(s, bytes);
    return false;
}

static void echo_sent(void *ctx, struct weir_rpc_stream *s, bool ok)
{
    (void)ctx;
    (void)ok;
    weir_rpc_stream_resume(s);
}

static void finish_ok(void *ctx, struct weir_rpc_stream *s)
{
    (void)ctx;
    weir_rpc_stream_finish(s, 0, "", NULL, 0);
}

static void ignore_closed(void *ctx, struct weir_rpc_stream *s, int grpc_status, const char *message)
{
    (void)ctx;
    (void)s;
    (void)grpc_status;
    (void)message;
}

static const struct weir_rpc_stream_ops echo_ops = { echo_message, echo_sent, finish_ok, ignore_closed };

static weir_err echo_open(void *ctx, struct weir_rpc_stream *s, const struct weir_rpc_stream_ops **ret_ops,
                          void **ret_ctx, struct weir_why *why)
{
    (void)ctx;
    (void)s;
    (void)why;
    *ret_ops = &echo_ops;
    *ret_ctx = NULL;
    return WEIR_OK;
}

/* ---- Count ---- */
_Atomic int n_counted;

struct counting {
    int i, n;
};

static void count_next(struct counting *counting, struct weir_rpc_stream *s)
{
    char text[16];

    if (counting->i == counting->n) {
        weir_rpc_stream_finish(s, 0, "", NULL, 0);
        return;
    }
    int len = snprintf(text, sizeof text, "%d", counting->i++);
    if (weir_rpc_stream_send(s, (struct weir_str){ text, (size_t)len }) == WEIR_OK)
        atomic_fetch_add(&n_counted, 1);
}

static bool count_message(void *ctx, struct weir_rpc_stream *s, struct weir_str bytes)
{
    struct counting *counting = ctx;
    char text[16];

    snprintf(text, sizeof text, "%.*s", WEIR_STR_FMT(bytes));
    counting->n = atoi(text);
    count_next(counting, s);
    return true;
}

static void count_sent(void *ctx, struct weir_rpc_stream *s, bool ok)
{
    if (ok)
        count_next(ctx, s);
}

static void count_closed(void *ctx, struct weir_rpc_stream *s, int grpc_status, const char *message)
{
    ignore_closed(ctx, s, grpc_status, message);
    free(ctx);
}

static const struct weir_rpc_stream_ops count_ops = { count_message, count_sent, NULL, count_closed };

static weir_err count_open(void *ctx, struct weir_rpc_stream *s, const struct weir_rpc_stream_ops **ret_ops,
                           void **ret_ctx, struct weir_why *why)
{
    (void)ctx;
    (void)s;
    (void)why;
    *ret_ops = &count_ops;
    *ret_ctx = calloc(1, sizeof(struct counting));
    return WEIR_OK;
}

/* ---- Refuse ---- */
static weir_err refuse_open(void *ctx, struct weir_rpc_stream *s, const struct weir_rpc_stream_ops **ret_ops,
                            void **ret_ctx, struct weir_why *why)
{
    (void)ctx;
    (void)s;
    (void)ret_ops;
    (void)ret_ctx;
    return weir_fail(why, WEIR_LIMITED, "acme is over its limit");
}

/* ---- Hold ---- */
static struct end *hold_end; /* of the world that is open */

static weir_err hold_open(void *ctx, struct weir_rpc_stream *s, const struct weir_rpc_stream_ops **ret_ops,
                          void **ret_ctx, struct weir_why *why)
{
    struct end *end = hold_end;

    (void)ctx;
    (void)why;
    pthread_mutex_lock(&end->lock);
    end->s = weir_rpc_stream_ref(s);
    snprintf(end->seen_meta, sizeof end->seen_meta, "%.*s", WEIR_STR_FMT(weir_rpc_stream_meta(s, "x-test")));
    snprintf(end->peer, sizeof end->peer, "%.*s", WEIR_STR_FMT(weir_rpc_stream_peer(s)));
    end->deadline_ns = weir_rpc_stream_deadline_ns(s);
    unlock_changed(end);
    *ret_ops = &end_ops;
    *ret_ctx = end;
    return WEIR_OK;
}

/* ---- Trailing ---- */
static bool trailing_message(void *ctx, struct weir_rpc_stream *s, struct weir_str bytes)
{
    const struct weir_rpc_meta gone = { WEIR_STR("x-trailing"), WEIR_STR("gone") };

    (void)ctx;
    (void)bytes;
    weir_rpc_stream_finish(s, 9, "held", &gone, 1);
    return true;
}

static const struct weir_rpc_stream_ops trailing_ops = { trailing_message, NULL, NULL, ignore_closed };

static weir_err trailing_open(void *ctx, struct weir_rpc_stream *s,
                              const struct weir_rpc_stream_ops **ret_ops, void **ret_ctx,
                              struct weir_why *why)
{
    (void)ctx;
    (void)s;
    (void)why;
    *ret_ops = &trailing_ops;
    *ret_ctx = NULL;
    return WEIR_OK;
}

/* ---- the world ---- */
const struct weir_rpc_handler world_handlers[] = {
    { "/t.T/Echo", echo_open, NULL },         { "/t.T/Count", count_open, NULL },
    { "/t.T/Refuse", refuse_open, NULL },     { "/t.T/Hold", hold_open, NULL },
    { "/t.T/Trailing", trailing_open, NULL },
};

void world_open(struct world *w, struct weir_rpc_server_opts sopts, struct weir_rpc_channel_opts copts)
{
    struct weir_why why = { .text = "" };

    memset(w, 0, sizeof *w);
    end_init(&w->server_end);
    hold_end = &w->server_end;
    sopts.listen = sopts.listen ? sopts.listen : "127.0.0.1:0";
    sopts.handlers = world_handlers;
    sopts.n_handlers = WORLD_HANDLERS;
    if (weir_rpc_open(2, &w->rpc, &why) != WEIR_OK ||
        weir_rpc_server_open(w->rpc, &sopts, &w->server, &why) != WEIR_OK)
        fail_msg("%s", why.text);
    snprintf(w->address, sizeof w->address, "127.0.0.1:%d", weir_rpc_server_port(w->server));
    copts.address = w->address;
    if (weir_rpc_channel_open(w->rpc, &copts, &w->channel, &why) != WEIR_OK)
        fail_msg("%s", why.text);
}

void world_close(struct world *w)
{
    weir_rpc_channel_close(w->channel);
    weir_rpc_server_close(w->server);
    weir_rpc_close(w->rpc);
    end_release(&w->server_end);
    hold_end = NULL;
}

void channel_call(struct weir_rpc_channel *channel, struct end *end, const char *method, uint64_t deadline_ns)
{
    const struct weir_rpc_meta meta = { WEIR_STR("x-test"), WEIR_STR("a value") };
    struct weir_rpc_stream *s = NULL;
    struct weir_why why = { .text = "" };

    end_init(end);
    pthread_mutex_lock(&end->lock); /* on_closed takes it: the stream can't go before it is referenced */
    if (weir_rpc_channel_call(channel, method, &meta, 1, deadline_ns, &end_ops, end, &s, &why) == WEIR_OK)
        end->s = weir_rpc_stream_ref(s);
    pthread_mutex_unlock(&end->lock);
    if (!end->s)
        fail_msg("%s", why.text);
}

void world_call(struct world *w, struct end *end, const char *method, uint64_t deadline_ns)
{
    channel_call(w->channel, end, method, deadline_ns);
}

void end_send_bytes(struct end *end, const void *bytes, size_t n)
{
    pthread_mutex_lock(&end->lock);
    int n_before = end->n_sent;
    pthread_mutex_unlock(&end->lock);
    assert_int_equal(weir_rpc_stream_send(end->s, (struct weir_str){ bytes, n }), WEIR_OK);
    END_WAIT(end, end->n_sent > n_before);
}

void end_send(struct end *end, const char *text)
{
    end_send_bytes(end, text, strlen(text));
}
