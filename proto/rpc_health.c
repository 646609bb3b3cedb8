/* rpc_health.c - grpc.health.v1: is the server, or one of its services, ready for calls?
 *
 * One answer for all services: a server is ready or it is not. Check is one message each way; Watch stays and
 * tells of each change. [H1] A watch that is slow to take one answer gets the latest next, not each in
 * between: one send is in flight. [H2] A service without a handler is NOT_FOUND to Check and SERVICE_UNKNOWN
 * to Watch, as the standard has it. Threads: the queues' threads, and whoever sets the answer. Watches are
 * bounded by the server's streams. */
#include <string.h>

#include "base/mem.h"
#include "grpc/health/v1/health.pb-c.h"
#include "proto/rpc_server_int.h"

#define SERVICE_BYTES_MAX 256

#define SERVING GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING
#define NOT_SERVING GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING
#define SERVICE_UNKNOWN GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN
typedef Grpc__Health__V1__HealthCheckResponse__ServingStatus status_t;

struct rpc_watch {
    struct rpc_health *health;
    struct weir_rpc_stream *stream;
    struct rpc_watch *next;
    bool asked;   /* its one request is here */
    bool known;   /* its service is one of ours */
    bool sending; /* one answer is in flight */
    bool told;    /* `last` has been said */
    bool ended;   /* by the server's end */
    status_t last;
};

/* ---- requests and answers ---- */
static bool is_known(const struct rpc_health *health, const char *service)
{
    if (service[0] == '\0')
        return true; /* the server as a whole */
    for (int i = 0; i < health->n_handlers; i++)
        if (weir_str_eq(rpc_service_of(&health->handlers[i]), service))
            return true;
    return false;
}

/* False: not a request. */
static bool read_request(const struct rpc_health *health, struct weir_str bytes, bool *ret_known)
{
    if (bytes.len > SERVICE_BYTES_MAX)
        return false;
    Grpc__Health__V1__HealthCheckRequest *request = grpc__health__v1__health_check_request__unpack(
        /* allocator= */ NULL, bytes.len, (const uint8_t *)bytes.ptr);
    if (!request)
        return false;
    *ret_known = is_known(health, request->service);
    grpc__health__v1__health_check_request__free_unpacked(request, /* allocator= */ NULL);
    return true;
}

static weir_err send_status(struct weir_rpc_stream *s, status_t status)
{
    Grpc__Health__V1__HealthCheckResponse answer = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    uint8_t bytes[16];

    answer.status = status;
    size_t len = grpc__health__v1__health_check_response__pack(&answer, bytes);
    return weir_rpc_stream_send(s, (struct weir_str){ (const char *)bytes, len });
}

static void finish(struct weir_rpc_stream *s, weir_err err, const char *message)
{
    weir_rpc_stream_finish(s, weir_err_info(err)->grpc, message, /* trailing= */ NULL, /* n_trailing= */ 0);
}

static void no_request(void *ctx, struct weir_rpc_stream *s)
{
    (void)ctx;
    finish(s, WEIR_INVALID, "no request"); /* does nothing once there was one */
}

/* ---- Check ---- */
static bool on_check(void *ctx, struct weir_rpc_stream *s, struct weir_str bytes)
{
    struct rpc_health *health = ctx;
    bool known = false;

    if (!read_request(health, bytes, &known)) {
        finish(s, WEIR_INVALID, "not a HealthCheckRequest");
        return true;
    }
    if (!known) { /* [H2] */
        finish(s, WEIR_NOTFOUND, "unknown service");
        return true;
    }
    pthread_mutex_lock(&health->lock);
    status_t status = health->serving ? SERVING : NOT_SERVING;
    pthread_mutex_unlock(&health->lock);
    if (send_status(s, status) == WEIR_OK) /* else the call is over, or answered already */
        finish(s, WEIR_OK, "");
    return true;
}

static void check_closed(void *ctx, struct weir_rpc_stream *s, int grpc_status, const char *message)
{
    (void)ctx;
    (void)s;
    (void)grpc_status;
    (void)message;
}

static const struct weir_rpc_stream_ops check_ops = {
    .on_message = on_check,
    .on_peer_done = no_request,
    .on_closed = check_closed,
};

static weir_err check_open(void *ctx, struct weir_rpc_stream *s, const struct weir_rpc_stream_ops **ret_ops,
                           void **ret_ctx, struct weir_why *why)
{
    (void)s;
    (void)why;
    *ret_ops = &check_ops;
    *ret_ctx = ctx;
    return WEIR_OK;
}

/* ---- Watch ---- */
/* With the lock: has it something to hear, and a free way? Claims the way. [H1] */
static bool claim_answer(struct rpc_watch *watch, status_t *ret)
{
    status_t now = !watch->known ? SERVICE_UNKNOWN : watch->health->serving ? SERVING : NOT_SERVING;

    if (!watch->asked || watch->sending || (watch->told && watch->last == now))
        return false;
    watch->sending = watch->told = true;
    *ret = watch->last = now;
    return true;
}

/* Tells whoever has something to hear, one at a time and outside the lock. `only`: that one, or NULL for all.
 */
static void tell(struct rpc_health *health, struct rpc_watch *only)
{
    for (;;) {
        struct weir_rpc_stream *s = NULL;
        status_t status = NOT_SERVING;

        pthread_mutex_lock(&health->lock);
        for (struct rpc_watch *watch = health->watches; watch && !s; watch = watch->next)
            if ((!only || watch == only) && claim_answer(watch, &status))
                s = weir_rpc_stream_ref(watch->stream);
        pthread_mutex_unlock(&health->lock);
        if (!s)
            return;
        (void)send_status(s, status); /* a failure: it is on its way out */
        weir_rpc_stream_unref(s);
    }
}

static bool on_watch(void *ctx, struct weir_rpc_stream *s, struct weir_str bytes)
{
    struct rpc_watch *watch = ctx;
    bool known = false;

    if (!read_request(watch->health, bytes, &known)) {
        finish(s, WEIR_INVALID, "not a HealthCheckRequest");
        return true;
    }
    pthread_mutex_lock(&watch->health->lock);
    if (!watch->asked)
        watch->known = known;
    watch->asked = true;
    pthread_mutex_unlock(&watch->health->lock);
    tell(watch->health, watch);
    return true;
}

static void watch_sent(void *ctx, struct weir_rpc_stream *s, bool ok)
{
    struct rpc_watch *watch = ctx;

    (void)s;
    if (!ok)
        return;
    pthread_mutex_lock(&watch->health->lock);
    watch->sending = false;
    pthread_mutex_unlock(&watch->health->lock);
    tell(watch->health, watch);
}

static void watch_peer_done(void *ctx, struct weir_rpc_stream *s)
{
    const struct rpc_watch *watch = ctx;

    if (!watch->asked) /* written by this thread only; a half close after the request is how a watch stays */
        no_request(ctx, s);
}

static void watch_closed(void *ctx, struct weir_rpc_stream *s, int grpc_status, const char *message)
{
    struct rpc_watch *watch = ctx;
    struct rpc_health *health = watch->health;

    (void)s;
    (void)grpc_status;
    (void)message;
    pthread_mutex_lock(&health->lock);
    struct rpc_watch **at = &health->watches;
    while (*at != watch)
        at = &(*at)->next;
    *at = watch->next;
    pthread_mutex_unlock(&health->lock);
    weir_free(watch);
}

static const struct weir_rpc_stream_ops watch_ops = {
    .on_message = on_watch,
    .on_sent = watch_sent,
    .on_peer_done = watch_peer_done,
    .on_closed = watch_closed,
};

static weir_err watch_open(void *ctx, struct weir_rpc_stream *s, const struct weir_rpc_stream_ops **ret_ops,
                           void **ret_ctx, struct weir_why *why)
{
    struct rpc_health *health = ctx;
    struct rpc_watch *watch = weir_alloc0(sizeof *watch);

    if (!watch)
        return weir_fail(why, WEIR_NOMEM, "no memory for a watch");
    watch->health = health;
    watch->stream = s; /* borrowed: watch_closed takes it off the list before the stream goes */
    pthread_mutex_lock(&health->lock);
    bool over = health->over;
    if (!over) {
        watch->next = health->watches;
        health->watches = watch;
    }
    pthread_mutex_unlock(&health->lock);
    if (over) {
        weir_free(watch);
        return weir_fail(why, WEIR_UNAVAILABLE, "shutting down");
    }
    *ret_ops = &watch_ops;
    *ret_ctx = watch;
    return WEIR_OK;
}

/* ---- for the server ---- */
void rpc_health_handlers(struct rpc_health *health, struct weir_rpc_handler ret[RPC_HEALTH_HANDLERS])
{
    ret[0] = (struct weir_rpc_handler){ "/grpc.health.v1.Health/Check", check_open, health };
    ret[1] = (struct weir_rpc_handler){ "/grpc.health.v1.Health/Watch", watch_open, health };
}

void rpc_health_init(struct rpc_health *health, const struct weir_rpc_handler *handlers, int n_handlers)
{
    *health = (struct rpc_health){ .handlers = handlers, .n_handlers = n_handlers };
    pthread_mutex_init(&health->lock, /* attr= */ NULL);
}

void rpc_health_release(struct rpc_health *health)
{
    WEIR_CHECK(!health->watches);
    pthread_mutex_destroy(&health->lock);
}

void rpc_health_set(struct rpc_health *health, bool serving)
{
    pthread_mutex_lock(&health->lock);
    health->serving = serving;
    pthread_mutex_unlock(&health->lock);
    tell(health, /* only= */ NULL);
}

void rpc_health_end_watches(struct rpc_health *health)
{
    for (;;) {
        struct weir_rpc_stream *s = NULL;

        pthread_mutex_lock(&health->lock);
        health->over = true;
        for (struct rpc_watch *watch = health->watches; watch && !s; watch = watch->next) {
            if (!watch->ended)
                s = weir_rpc_stream_ref(watch->stream);
            watch->ended = true;
        }
        pthread_mutex_unlock(&health->lock);
        if (!s)
            return;
        finish(s, WEIR_UNAVAILABLE, "shutting down");
        weir_rpc_stream_unref(s);
    }
}
