/* send.c - the sender: one gRPC send in flight per attachment, everything that came up meanwhile in the next
 * one.
 *
 * The step thread only raises a flag. Load travels with frames that go anyway, and alone on a change of 5 %,
 * at most every 50 ms, at least every second. */
#include "base/clock.h"
#include "replica/serve/serve_int.h"

#include <math.h>
#include <time.h>

#define LOAD_MIN_NS (50 * WEIR_MS)
#define LOAD_MAX_NS (1000 * WEIR_MS)
#define LOAD_CHANGE 0.05

static bool differs(double a, double b)
{
    return fabs(a - b) > LOAD_CHANGE * fmax(fabs(a), fabs(b));
}

static bool load_changed(const Weir__Fabric__V1__Load *a, const Weir__Fabric__V1__Load *b)
{
    return differs(a->running, b->running) || differs(a->waiting, b->waiting) ||
           differs((double)a->queued_tokens, (double)b->queued_tokens) ||
           differs(a->predicted_wait_ms, b->predicted_wait_ms) ||
           differs(a->decode_tokens_s, b->decode_tokens_s);
}

static bool load_due(const struct attach *att, const Weir__Fabric__V1__Load *load, uint64_t now_ns)
{
    uint64_t since_ns = now_ns - att->load_sent_ns;

    if (weir_buf_len(&att->outbox) > 0)
        return true;
    return since_ns >= LOAD_MAX_NS || (since_ns >= LOAD_MIN_NS && load_changed(load, &att->load_sent));
}

void attach_flush(struct attach *att)
{
    struct weir_serve *serve = att->serve;
    uint64_t now_ns = weir_now_ns();
    Weir__Fabric__V1__Load load;

    pthread_mutex_lock(&serve->send_lock);
    load = serve->load;
    pthread_mutex_unlock(&serve->send_lock);
    pthread_mutex_lock(&att->lock);
    bool due = load_due(att, &load, now_ns);
    if (att->said_hello && !att->closed && !att->sending && due) {
        frame_add(&att->outbox, 6, &load.base);
        att->load_sent = load;
        att->load_sent_ns = now_ns;
        struct weir_str frame = { weir_buf_ptr(&att->outbox), weir_buf_len(&att->outbox) };
        att->sending = weir_rpc_stream_send(att->stream, frame) == WEIR_OK;
        if (att->sending) { /* otherwise the stream is going away: on_closed comes */
            weir_counter_add(serve->metrics.frames, 1);
            weir_counter_add(serve->metrics.frame_bytes, frame.len);
            weir_buf_clear(&att->outbox);
        }
    }
    pthread_mutex_unlock(&att->lock);
}

void send_wake(struct weir_serve *serve)
{
    pthread_mutex_lock(&serve->send_lock);
    serve->send_wanted = true;
    pthread_cond_signal(&serve->send_cond);
    pthread_mutex_unlock(&serve->send_lock);
}

static void wait_for_news(struct weir_serve *serve)
{
    struct timespec until;

    pthread_mutex_lock(&serve->send_lock);
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += 1;
    while (!serve->send_wanted && !atomic_load(&serve->stopping))
        if (pthread_cond_timedwait(&serve->send_cond, &serve->send_lock, &until) != 0)
            break;
    serve->send_wanted = false;
    pthread_mutex_unlock(&serve->send_lock);
}

/* The list's references, copied so that no lock is held while sending. */
static size_t collect(struct weir_serve *serve, struct attach **ret, size_t n_max)
{
    size_t n = 0;

    pthread_mutex_lock(&serve->attach_lock);
    for (struct attach *att = serve->attaches; att && n < n_max; att = att->next) {
        attach_ref(att);
        ret[n++] = att;
    }
    pthread_mutex_unlock(&serve->attach_lock);
    return n;
}

void *send_main(void *arg)
{
    struct weir_serve *serve = arg;
    struct attach *attaches[ATTACH_MAX];

    while (!atomic_load(&serve->stopping)) {
        wait_for_news(serve);
        size_t n = collect(serve, attaches, ATTACH_MAX);
        for (size_t i = 0; i < n; i++) {
            attach_flush(attaches[i]);
            attach_unref(attaches[i]);
        }
    }
    return NULL;
}
