/* etcd.c - the fleet from etcd 3.4 and later: endpoints, token, lease, registrations, and the loop's side.
 *
 * The view: range at revision R, then a watch from R + 1, so that nothing falls between. A watch that breaks
 * is resumed after the last revision applied. One that can't be resumed (compacted), or an etcd that is not
 * the one we knew (another cluster, or a revision before ours: restored from a backup), means a resync: a
 * new range. The range and the watch are in etcd_view.c, what is shown of them in etcd_show.c.
 *
 * The beat: a keep-alive of our lease (or, without one, an empty range) every quarter of the TTL, with a
 * timeout of 1.5 s. It is the liveness signal of the watch too: a frozen etcd keeps a watch "connected" for
 * ever, because its kernel answers for it, and an idle healthy watch is silent as well.
 *
 *   [D1] No event is lost or applied twice: one counts only once its whole revision is here.
 *   [D2] A source that is lost never shrinks the view.
 *   [D3] A resync shows what is new before it hides what is gone.
 *   [D4] What another history lacks is held back: its owners get two TTLs to register again, and a kind of
 *        key (replicas/, keys/, ...) of which that history has nothing is kept until it has something.
 *   [D5] Revisions that readers see never go back, though etcd's may: an offset is added after a break.
 *   [D6] After a loss we try again within BACKOFF_MAX, with jitter, at the next endpoint.
 *
 * On [D4]: an etcd that lost its disk must not take down a fleet that works. Within one history (the same
 * cluster, a revision not before ours) an empty answer is the truth and is applied.
 *
 * Threads: everything on the discovery thread but wake(). Registrations come through regs.c. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/thread.h"
#include "discovery/etcd_int.h"
#include "discovery/etcd_request.h"

#define BACKOFF_MIN (50 * WEIR_MS)
#define BACKOFF_MAX (2 * WEIR_S)
#define BEAT_TIMEOUT_MS 1500
#define REVOKE_TIMEOUT_MS 1000
#define PUT_RETRY (2 * WEIR_S)  /* after etcd refused a put as such */
#define AUTH_RETRY (2 * WEIR_S) /* after etcd refused our user */
#define TTL_DEFAULT_S 10

/* ---- losing etcd, and coming back ---- */

static void log_lost(etcd *e, const char *why)
{
    bool is_news = e->view == VIEW_WATCHING || strncmp(why, e->why_logged, sizeof e->why_logged - 1) != 0;
    weir_log(is_news ? WEIR_LOG_WARN : WEIR_LOG_DEBUG, "etcd_lost", "endpoint=%s why=%s",
             e->src->urls[e->i_url], why);
    snprintf(e->why_logged, sizeof e->why_logged, "%s", why);
}

static void back_off(etcd *e)
{
    uint64_t delay = e->n_failures > 6 ? BACKOFF_MAX : BACKOFF_MIN << e->n_failures, jitter;
    if (delay > BACKOFF_MAX)
        delay = BACKOFF_MAX;
    weir_random(&jitter, sizeof jitter);
    e->n_failures += e->n_failures < 32;
    e->view = VIEW_WAIT;
    e->view_due_ns = e->now_ns + delay / 2 + jitter % (delay / 2); /* [D6] */
}

/* The view can't go on, but etcd answers. `resync_reason` NULL: what we have stands. */
void etcd_fail_view(etcd *e, const char *why, const char *resync_reason)
{
    log_lost(e, why);
    etcd_view_stop(e); /* [D2] what is shown stays */
    if (resync_reason)
        e->resync_reason = resync_reason;
    disc_set_connected(e->d, false);
    back_off(e);
}

/* Nobody answers at this endpoint: nothing in flight is worth waiting for. */
void etcd_lose_endpoint(etcd *e, const char *why)
{
    etcd_fail_view(e, why, /* resync_reason= */ NULL);
    etcd_call_close(e->auth_call);
    etcd_call_close(e->beat_call);
    etcd_call_close(e->put_call);
    e->auth_call = e->beat_call = e->put_call = NULL;
    e->auth_due_ns = e->beat_due_ns = e->put_due_ns = e->view_due_ns;
    e->i_url = (e->i_url + 1) % e->src->n_urls;
    e->fresh = true;
}

static bool has_token(const etcd *e)
{
    return !e->user || e->token;
}

void etcd_drop_token(etcd *e)
{
    weir_free(e->token);
    e->token = NULL;
}

/* gRPC 16 is a bad token; 3 with this text is no token. */
bool etcd_is_auth_error(const struct etcd_msg *msg)
{
    return msg->error_code == 16 ||
           (msg->error_code == 3 && memmem(msg->error.ptr, msg->error.len, "user name", 9));
}

/* ---- sending ---- */

struct etcd_call *etcd_send(etcd *e, const char *path, uint32_t timeout_ms, size_t body_max,
                            bool (*on_data)(void *, const char *, size_t),
                            void (*on_done)(void *, const struct etcd_result *))
{
    char url[400];
    if (e->body.failed)
        return NULL;
    snprintf(url, sizeof url, "%s%s", e->src->urls[e->i_url], path);
    return etcd_call_open(e->http, &(struct etcd_call_spec){
                                       .url = url,
                                       .authorization = e->token,
                                       .body = { weir_buf_ptr(&e->body), weir_buf_len(&e->body) },
                                       .timeout_ms = timeout_ms,
                                       .body_max = body_max,
                                       .fresh = e->fresh,
                                       .on_data = on_data,
                                       .on_done = on_done,
                                       .ctx = e,
                                   });
}

/* The reply of a call as a message. False: there is none, and `text` (of 200 bytes) says why. */
bool etcd_read_reply(const struct etcd_result *result, struct weir_arena *arena, struct etcd_msg *msg,
                     char *text)
{
    struct weir_why why = { 0 };
    if (result->err != WEIR_OK) {
        snprintf(text, 200, "%.190s", result->detail);
        return false;
    }
    if (etcd_msg_parse(result->body, arena, msg, &why) != WEIR_OK) {
        snprintf(text, 200, "status %d, %.170s", result->status, why.text);
        return false;
    }
    if (!msg->is_error && result->status != 200) {
        snprintf(text, 200, "status %d", result->status);
        return false;
    }
    if (msg->is_error)
        snprintf(text, 200, "etcd error %d: %.*s", (int)msg->error_code,
                 (int)(msg->error.len < 150 ? msg->error.len : 150), msg->error.ptr);
    return true;
}

/* ---- the token: renewed by itself, the watch goes on meanwhile ---- */

static void on_auth_done(void *ctx, const struct etcd_result *result)
{
    etcd *e = ctx;
    struct weir_arena arena;
    struct etcd_msg msg = { 0 };
    char text[200];
    e->auth_call = NULL;
    e->auth_due_ns = e->now_ns + AUTH_RETRY;
    weir_arena_init(&arena, SMALL_BYTES_MAX);
    bool ok = etcd_read_reply(result, &arena, &msg, text);
    if (ok && !msg.is_error && msg.token.len)
        e->token = weir_strndup(msg.token.ptr, msg.token.len);
    else if (result->err != WEIR_OK)
        etcd_lose_endpoint(e, text);
    else
        log_lost(e, ok && !msg.is_error ? "etcd gave no token" : text);
    weir_arena_release(&arena);
}

static void send_auth(etcd *e)
{
    etcd_request_auth(&e->body, e->user, e->password);
    e->auth_call =
        etcd_send(e, "/v3/auth/authenticate", CALL_TIMEOUT_MS, SMALL_BYTES_MAX, NULL, on_auth_done);
    e->auth_due_ns = e->now_ns + AUTH_RETRY;
}

/* ---- the lease and the beat ---- */

static void lose_lease(etcd *e)
{
    WEIR_WARN("etcd_lease_lost", "lease=%lld", (long long)e->lease_id);
    e->lease_id = 0;
    regs_lost(e->regs);
    e->beat_due_ns = e->now_ns;
}

static void take_beat(etcd *e, const struct etcd_msg *msg)
{
    e->fresh = false; /* a connection made after the loss has answered */
    if (e->view == VIEW_WATCHING)
        e->n_failures = 0;
    if (e->beat == BEAT_GRANT && msg->lease_id != 0) {
        e->lease_id = msg->lease_id;
        WEIR_INFO("etcd_lease", "lease=%lld ttl_s=%lld", (long long)e->lease_id, (long long)msg->ttl_s);
    } else if (e->beat == BEAT_KEEP && msg->ttl_s <= 0) {
        lose_lease(e); /* an expired lease is HTTP 200 without a TTL */
    }
    if (msg->has_header && e->view == VIEW_WATCHING && msg->cluster_id != e->cluster_id)
        etcd_fail_view(e, "another cluster answers", "new_cluster");
}

static void on_beat_done(void *ctx, const struct etcd_result *result)
{
    etcd *e = ctx;
    struct weir_arena arena;
    struct etcd_msg msg = { 0 };
    char text[200], why[240];
    e->beat_call = NULL;
    e->beat_due_ns = e->now_ns + e->ttl_s * WEIR_S / 4;
    weir_arena_init(&arena, SMALL_BYTES_MAX);
    bool ok = etcd_read_reply(result, &arena, &msg, text);
    snprintf(why, sizeof why, "beat: %s", ok && !msg.is_error ? "" : text);
    if (!ok) {
        etcd_lose_endpoint(e, why);
    } else if (msg.is_error && etcd_is_auth_error(&msg)) {
        etcd_drop_token(e);
        e->beat_due_ns = e->now_ns;
    } else if (msg.is_error && msg.error_code == 5) {
        lose_lease(e);
    } else if (msg.is_error) {
        etcd_lose_endpoint(e, why); /* no leader, no quorum: this member can't keep us alive */
    } else {
        take_beat(e, &msg);
    }
    weir_arena_release(&arena);
}

static void send_beat(etcd *e)
{
    const char *path = "/v3/kv/range";
    if (e->lease_id) {
        e->beat = BEAT_KEEP;
        etcd_request_lease(&e->body, e->lease_id);
        path = "/v3/lease/keepalive";
    } else if (regs_wants_lease(e->regs)) {
        e->beat = BEAT_GRANT;
        etcd_request_grant(&e->body, e->ttl_s);
        path = "/v3/lease/grant";
    } else {
        e->beat = BEAT_PING;
        etcd_request_ping(&e->body, weir_str(e->prefix));
    }
    e->beat_call = etcd_send(e, path, BEAT_TIMEOUT_MS, SMALL_BYTES_MAX, NULL, on_beat_done);
    e->beat_due_ns = e->now_ns + e->ttl_s * WEIR_S / 4;
}

/* ---- registrations ---- */

static void on_put_done(void *ctx, const struct etcd_result *result)
{
    etcd *e = ctx;
    struct weir_arena arena;
    struct etcd_msg msg = { 0 };
    char text[200];
    struct weir_str key = { weir_buf_ptr(&e->put_key), weir_buf_len(&e->put_key) };
    e->put_call = NULL;
    weir_arena_init(&arena, SMALL_BYTES_MAX);
    bool ok = etcd_read_reply(result, &arena, &msg, text);
    if (result->err != WEIR_OK) {
        etcd_lose_endpoint(e, text);
    } else if (e->put_lease != e->lease_id) {
        /* The lease was lost meanwhile: whatever became of this put, it counts for nothing. */
    } else if (ok && msg.is_error && msg.error_code == 5) {
        lose_lease(e);
    } else if (ok && msg.is_error && etcd_is_auth_error(&msg)) {
        etcd_drop_token(
            e); /* it runs out when it is not used for some minutes; the put follows the new one */
    } else if (!ok || msg.is_error) {
        WEIR_WARN("registration_refused", "key=%.*s why=%s", WEIR_STR_FMT(key), text);
        e->put_due_ns = e->now_ns + PUT_RETRY;
    } else {
        regs_done(e->regs, key, e->put_work.gen, msg.revision);
    }
    weir_arena_release(&arena);
}

static void send_put(etcd *e)
{
    if (!regs_next(e->regs, &e->put_key, &e->put_value, &e->put_work)) {
        e->put_due_ns = e->now_ns + PUT_RETRY;
        return;
    }
    struct weir_str key = { weir_buf_ptr(&e->put_key), weir_buf_len(&e->put_key) };
    struct weir_str value = { weir_buf_ptr(&e->put_value), weir_buf_len(&e->put_value) };
    e->put_lease = e->lease_id;
    if (e->put_work.is_delete)
        etcd_request_delete_leased(&e->body, key, e->lease_id);
    else
        etcd_request_put(&e->body, key, value, e->lease_id);
    e->put_call = etcd_send(e, e->put_work.is_delete ? "/v3/kv/txn" : "/v3/kv/put", CALL_TIMEOUT_MS,
                            SMALL_BYTES_MAX, NULL, on_put_done);
    if (!e->put_call)
        e->put_due_ns = e->now_ns + PUT_RETRY;
}

/* ---- the loop's side ---- */

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static void tick_view(etcd *e)
{
    if (!has_token(e) && !e->auth_call && e->now_ns >= e->auth_due_ns)
        send_auth(e);
    if (e->view == VIEW_WAIT && has_token(e) && e->now_ns >= e->view_due_ns)
        etcd_view_start(e);
    else if (e->view == VIEW_OPENING && e->now_ns >= e->view_due_ns)
        etcd_lose_endpoint(e, "the watch was not confirmed in time");
}

static bool can_beat(const etcd *e)
{
    return has_token(e) || e->lease_id; /* a keep-alive needs no token */
}

static void tick_lease(etcd *e)
{
    /* A first key should not wait for the next beat; the loss of etcd moves beats to the retry. */
    bool wants_now = e->lease_id == 0 && e->view == VIEW_WATCHING && e->beat_due_ns > e->now_ns &&
                     e->put_due_ns <= e->now_ns && regs_wants_lease(e->regs);
    if (!e->beat_call && can_beat(e) && (wants_now || e->now_ns >= e->beat_due_ns))
        send_beat(e);
    if (e->lease_id == 0 && !regs_wants_lease(e->regs))
        regs_lost(e->regs); /* keys removed before they were ever put */
    if (e->lease_id && !e->put_call && has_token(e) && e->now_ns >= e->put_due_ns && regs_is_behind(e->regs))
        send_put(e);
}

static uint64_t etcd_tick(etcd *e, uint64_t now_ns)
{
    uint64_t next;
    WEIR_ON(DISC);
    e->now_ns = now_ns;
    etcd_http_perform(e->http);
    etcd_view_apply(e);
    tick_view(e);
    tick_lease(e);
    etcd_show_drop_held(e);
    next = e->beat_call || !can_beat(e) ? UINT64_MAX : e->beat_due_ns;
    if (!has_token(e) && !e->auth_call)
        next = earlier(next, e->auth_due_ns);
    if ((e->view == VIEW_WAIT && has_token(e)) || e->view == VIEW_OPENING)
        next = earlier(next, e->view_due_ns);
    if (e->is_holding && e->hold_until_ns > now_ns)
        next = earlier(next, e->hold_until_ns);
    if (e->lease_id && !e->put_call && has_token(e) && regs_is_behind(e->regs))
        next = earlier(next, e->put_due_ns);
    return next;
}

static void etcd_wait(etcd *e, uint64_t timeout_ns)
{
    etcd_http_wait(e->http, timeout_ns);
}

static void etcd_wake(etcd *e)
{
    etcd_http_wake(e->http);
}

static void on_revoked(void *ctx, const struct etcd_result *result)
{
    (void)result; /* if it failed the lease runs out by itself */
    ((etcd *)ctx)->beat_call = NULL;
}

/* Revoke the lease, so that our keys go at once and not after the TTL. */
static void etcd_leave(etcd *e)
{
    etcd_view_stop(e);
    etcd_call_close(e->auth_call);
    etcd_call_close(e->beat_call);
    etcd_call_close(e->put_call);
    e->auth_call = e->beat_call = e->put_call = NULL;
    if (!e->lease_id || e->fresh)
        return; /* nothing there, or nobody there: the lease runs out by itself */
    etcd_request_lease(&e->body, e->lease_id);
    e->beat_call = etcd_send(e, "/v3/lease/revoke", REVOKE_TIMEOUT_MS, SMALL_BYTES_MAX, NULL, on_revoked);
    while (e->beat_call) { /* its timeout ends this */
        etcd_http_perform(e->http);
        if (e->beat_call)
            etcd_http_wait(e->http, REVOKE_TIMEOUT_MS * WEIR_MS);
    }
}

static void etcd_close(etcd *e)
{
    if (!e)
        return;
    etcd_http_close(e->http);
    etcd_view_release(e);
    weir_buf_release(&e->body);
    weir_buf_release(&e->put_key);
    weir_buf_release(&e->put_value);
    weir_free(e->prefix);
    weir_free(e->user);
    weir_free(e->password);
    weir_free(e->token);
    weir_free(e);
}

static weir_err etcd_open(struct weir_discovery *d, const struct weir_discovery_opts *opts,
                          const struct source *src, etcd **ret, struct weir_why *why)
{
    etcd *e = weir_alloc0(sizeof *e);
    if (!e)
        return weir_fail(why, WEIR_NOMEM, "etcd: no memory");
    e->d = d;
    e->regs = disc_regs(d);
    e->src = src;
    e->ttl_s = opts->lease_ttl_s ? opts->lease_ttl_s : TTL_DEFAULT_S;
    etcd_view_init(e);
    weir_buf_init(&e->body, /* limit_bytes= */ 0);
    weir_buf_init(&e->put_key, /* limit_bytes= */ 0);
    weir_buf_init(&e->put_value, /* limit_bytes= */ 0);
    e->prefix = weir_strdup(opts->prefix);
    e->user = opts->user && *opts->user ? weir_strdup(opts->user) : NULL;
    e->password = opts->password ? weir_strdup(opts->password) : NULL;
    bool ok = e->prefix && (!opts->user || !*opts->user || e->user) && (!opts->password || e->password);
    weir_err rc = ok ? WEIR_OK : weir_fail(why, WEIR_NOMEM, "etcd: no memory");
    struct etcd_http_opts tls = { opts->ca_file, opts->cert_file, opts->key_file };
    if (rc == WEIR_OK)
        rc = etcd_http_open(&tls, &e->http, why);
    if (rc != WEIR_OK) {
        etcd_close(e);
        return rc;
    }
    *ret = e;
    return WEIR_OK;
}

const struct disc_provider_ops disc_etcd_ops = {
    .open = etcd_open,
    .tick = etcd_tick,
    .wait = etcd_wait,
    .wake = etcd_wake,
    .leave = etcd_leave,
    .close = etcd_close,
    .takes_registrations = true,
};
