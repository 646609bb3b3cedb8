/* etcd.c - the fleet from etcd 3.4 and later, through its JSON gateway: a view that follows, and a lease that
 * holds.
 *
 * The view: range at revision R, then a watch from R + 1, so that nothing falls between. A watch that breaks
 * is resumed after the last revision applied; a watch that can't be resumed (compacted), or an etcd that is
 * not the one we knew (another cluster, or a revision before ours: restored from a backup), means a resync: a
 * new range. The beat: a keep-alive of our lease (or, without one, an empty range) every quarter of the TTL
 * with a timeout of 1.5 s. It is the liveness signal of the watch too: a frozen etcd keeps a watch
 * "connected" for ever, because its kernel answers for it, and an idle healthy watch is silent as well. [D1]
 * No event is lost or applied twice: an event counts only once its whole revision is here. [D2] A source that
 * is lost never shrinks the view. [D3] A resync shows what is new before it hides what is gone. [D4] What
 * another history lacks is held back: the owners get two TTLs to register again, and a kind of key
 *        (replicas/, keys/, ...) of which the new history has nothing at all is kept until it has something.
 * An etcd that lost its disk must not take down a fleet that works. Within one history (same cluster,
 * revision not before ours) an empty answer is the truth and is applied. [D5] Revisions that readers see
 * never go back, though etcd's may: an offset is added after such a break. [D6] After a loss we try again
 * after at most BACKOFF_MAX, with jitter, at the next endpoint. Threads: everything here on the discovery
 * thread but wake(). Registrations come through regs.c. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/thread.h"
#include "discovery/discovery_int.h"
#include "discovery/etcd_http.h"
#include "discovery/etcd_request.h"
#include "discovery/etcd_stream.h"
#include "discovery/snapshot.h"

#define BACKOFF_MIN (50 * WEIR_MS)
#define BACKOFF_MAX (2 * WEIR_S)
#define BEAT_TIMEOUT_MS 1500
#define CALL_TIMEOUT_MS 5000
#define REVOKE_TIMEOUT_MS 1000
#define WATCH_OPEN_TIMEOUT (3 * WEIR_S)
#define PUT_RETRY (2 * WEIR_S)        /* after etcd refused a put as such */
#define AUTH_RETRY (2 * WEIR_S)       /* after etcd refused our user */
#define PAGE_KEYS 2000                /* of one range request */
#define PAGE_BYTES_MAX (64u << 20)    /* of its reply */
#define SMALL_BYTES_MAX (64u << 10)   /* of other replies */
#define PENDING_BYTES_MAX (64u << 20) /* events waiting for the rest of their revision */
#define RANGE_BYTES_MAX (1024u << 20) /* a whole range while it is read */
#define TTL_DEFAULT_S 10

enum view { VIEW_WAIT, VIEW_RANGE, VIEW_OPENING, VIEW_WATCHING };

struct changes { /* growable; the strings live in the arena beside it */
    struct snapshot_change *items;
    int n, cap;
    struct weir_arena arena;
};

struct disc_provider {
    struct weir_discovery *d;
    struct regs *regs;
    struct etcd_http *http;
    const struct source *src;
    int i_url;
    char *prefix, *user, *password;
    uint32_t ttl_s;
    uint64_t now_ns;
    struct weir_buf body; /* the request being built */
    bool fresh;           /* open connections may be dead: make new ones */
    uint32_t n_failures;
    char why_logged[160];

    struct etcd_call *auth_call;
    uint64_t auth_due_ns;
    char *token; /* needed before anything but a lease, if there is a user */

    enum view view;
    struct etcd_call *view_call;
    uint64_t view_due_ns; /* WAIT: try again; OPENING: give up */
    uint64_t cluster_id;
    int64_t revision;                       /* etcd's; every event up to it is in `truth` */
    int64_t offset;                         /* [D5] */
    const char *resync_reason;              /* NULL: the watch can be resumed */
    const struct weir_disc_snapshot *truth; /* what etcd has */
    const struct weir_disc_snapshot *shown; /* what readers see: truth, and what is held back */
    bool is_holding;                        /* [D4] */
    uint64_t hold_until_ns;

    struct changes range;
    int64_t range_revision;
    uint64_t range_cluster_id;
    bool range_is_other_history;
    struct weir_buf range_next; /* first key of the next page */

    struct etcd_lines lines;
    struct changes pending;
    int64_t pending_revision;
    bool pending_is_partial; /* a fragment: the rest of its revision is to come */

    struct etcd_call *beat_call;
    enum { BEAT_PING, BEAT_GRANT, BEAT_KEEP } beat;
    uint64_t beat_due_ns;
    int64_t lease_id; /* 0: none */

    struct etcd_call *put_call;
    struct regs_work put_work;
    int64_t put_lease; /* the lease it was sent under */
    struct weir_buf put_key, put_value;
    uint64_t put_due_ns;
};
typedef struct disc_provider etcd;

static void count_resync(const char *reason)
{
    char labels[64];
    snprintf(labels, sizeof labels, "reason=\"%s\"", reason);
    weir_counter_add(
        weir_counter("weir_discovery_resyncs_total", labels, "whole reads of the fleet's view, by cause"), 1);
}

/* ---- changes ---- */

static void changes_init(struct changes *c, size_t limit)
{
    *c = (struct changes){ 0 };
    weir_arena_init(&c->arena, limit);
}

static void changes_clear(struct changes *c)
{
    c->n = 0;
    weir_arena_clear(&c->arena);
}

static void changes_release(struct changes *c)
{
    weir_free(c->items);
    weir_arena_release(&c->arena);
    c->items = NULL;
    c->n = c->cap = 0;
}

static bool changes_add(struct changes *c, const struct etcd_kv *kv, int64_t offset)
{
    if (c->n == c->cap) {
        int cap = c->cap ? c->cap * 2 : 64;
        struct snapshot_change *grown =
            cap > 2 * SNAPSHOT_ENTRIES_MAX ? NULL : weir_realloc(c->items, (size_t)cap * sizeof *grown);
        if (!grown)
            return false;
        c->items = grown;
        c->cap = cap;
    }
    c->items[c->n++] = (struct snapshot_change){
        .key = kv->key, .value = kv->value, .revision = kv->mod_revision + offset, .is_delete = kv->is_delete
    };
    return true;
}

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

static void stop_view(etcd *e)
{
    etcd_call_close(e->view_call);
    e->view_call = NULL;
    etcd_lines_clear(&e->lines);
    changes_clear(&e->pending); /* [D1] an unfinished revision comes again */
    changes_clear(&e->range);
    e->pending_is_partial = false;
}

/* The view can't go on, but etcd answers. `resync_reason` NULL: what we have stands. */
static void fail_view(etcd *e, const char *why, const char *resync_reason)
{
    log_lost(e, why);
    stop_view(e);
    if (resync_reason)
        e->resync_reason = resync_reason;
    disc_set_connected(e->d, false);
    back_off(e);
}

/* Nobody answers at this endpoint: nothing in flight is worth waiting for. */
static void lose_endpoint(etcd *e, const char *why)
{
    fail_view(e, why, /* resync_reason= */ NULL);
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

static void drop_token(etcd *e)
{
    weir_free(e->token);
    e->token = NULL;
}

/* gRPC 16 is a bad token; 3 with this text is no token. */
static bool is_auth_error(const struct etcd_msg *msg)
{
    return msg->error_code == 16 ||
           (msg->error_code == 3 && memmem(msg->error.ptr, msg->error.len, "user name", 9));
}

/* ---- sending ---- */

static struct etcd_call *send_call(etcd *e, const char *path, uint32_t timeout_ms, size_t body_max,
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
static bool read_reply(const struct etcd_result *result, struct weir_arena *arena, struct etcd_msg *msg,
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

/* ---- showing: [D3] and [D4] ---- */

static void replace(const struct weir_disc_snapshot **slot, const struct weir_disc_snapshot *snap)
{
    weir_disc_snapshot_unref(*slot);
    *slot = snap;
}

static void show(etcd *e, const struct weir_disc_snapshot *snap)
{
    replace(&e->shown, weir_disc_snapshot_ref(snap));
    disc_publish(e->d, snap);
}

/* Has etcd's new history anything of this key's kind ("<prefix>replicas/")? */
static bool kind_lives(const etcd *e, struct weir_str key)
{
    char kind[DISC_PREFIX_MAX + 64];
    size_t n_prefix = strlen(e->prefix);
    const struct weir_disc_entry *first;
    const char *slash = key.len > n_prefix ? memchr(key.ptr + n_prefix, '/', key.len - n_prefix) : NULL;
    size_t n = slash ? (size_t)(slash - key.ptr) + 1 : key.len;
    if (n >= sizeof kind)
        return true; /* not a kind that we know of: nothing to protect */
    memcpy(kind, key.ptr, n);
    kind[n] = '\0';
    return weir_disc_prefix(e->truth, kind, &first) > 0;
}

static bool is_ghost_to_drop(void *ctx, const struct weir_disc_entry *entry)
{
    const etcd *e = ctx;
    return !weir_disc_find(e->truth, entry->key) && kind_lives(e, entry->key);
}

static void drop_ghosts(etcd *e)
{
    const struct weir_disc_snapshot *left;
    struct weir_why why;
    if (!e->is_holding || e->now_ns < e->hold_until_ns)
        return;
    if (snapshot_filter(e->shown, is_ghost_to_drop, e, &left, &why) != WEIR_OK)
        return; /* no memory now: at the next change */
    int n_dropped = e->shown->n_entries - left->n_entries;
    if (n_dropped > 0) {
        WEIR_WARN("etcd_held_dropped", "n=%d", n_dropped);
        show(e, left);
    }
    e->is_holding = left->n_entries != e->truth->n_entries;
    weir_disc_snapshot_unref(left);
}

static void hold(etcd *e, int n_held)
{
    if (!e->is_holding) {
        e->hold_until_ns = e->now_ns + 2 * e->ttl_s * WEIR_S;
        WEIR_WARN("etcd_other_history", "kept=%d for_s=%u why=etcd lacks entries that we know", n_held,
                  2 * e->ttl_s);
    }
    e->is_holding = true;
}

/* The whole range is here. */
static weir_err show_range(etcd *e, struct weir_why *why)
{
    const struct weir_disc_snapshot *fresh, *both = NULL;
    weir_err rc =
        snapshot_build(e->shown, e->range.items, e->range.n, e->range_revision + e->offset, &fresh, why);
    if (rc == WEIR_OK && e->shown)
        rc = snapshot_union(e->shown, fresh, &both, why);
    if (rc != WEIR_OK)
        return rc;
    replace(&e->truth, fresh);
    if (!both) {
        show(e, fresh);
        return WEIR_OK;
    }
    if (!snapshot_same(both, e->shown))
        show(e, both); /* [D3] */
    int n_gone = both->n_entries - fresh->n_entries;
    weir_disc_snapshot_unref(both);
    if (n_gone > 0 && (e->range_is_other_history || e->is_holding))
        hold(e, n_gone);
    else if (n_gone > 0)
        show(e, fresh);
    else
        e->is_holding = false;
    drop_ghosts(e);
    return WEIR_OK;
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
    bool ok = read_reply(result, &arena, &msg, text);
    if (ok && !msg.is_error && msg.token.len)
        e->token = weir_strndup(msg.token.ptr, msg.token.len);
    else if (result->err != WEIR_OK)
        lose_endpoint(e, text);
    else
        log_lost(e, ok && !msg.is_error ? "etcd gave no token" : text);
    weir_arena_release(&arena);
}

static void send_auth(etcd *e)
{
    etcd_request_auth(&e->body, e->user, e->password);
    e->auth_call =
        send_call(e, "/v3/auth/authenticate", CALL_TIMEOUT_MS, SMALL_BYTES_MAX, NULL, on_auth_done);
    e->auth_due_ns = e->now_ns + AUTH_RETRY;
}

/* ---- the view: range, then watch ---- */

static void open_watch(etcd *e);
static void on_page_done(void *ctx, const struct etcd_result *result);

static void send_page(etcd *e)
{
    struct weir_str prefix = weir_str(e->prefix);
    struct weir_str first = { weir_buf_ptr(&e->range_next), weir_buf_len(&e->range_next) };
    /* Every page at the first one's revision: together they are one moment. */
    etcd_request_range(&e->body, first.len ? first : prefix, prefix, e->range_revision, PAGE_KEYS);
    e->view = VIEW_RANGE;
    e->view_call = send_call(e, "/v3/kv/range", CALL_TIMEOUT_MS, PAGE_BYTES_MAX, NULL, on_page_done);
    if (!e->view_call)
        fail_view(e, "no memory for a request", NULL);
}

static void start_range(etcd *e)
{
    changes_clear(&e->range);
    weir_buf_clear(&e->range_next);
    e->range_revision = 0;
    send_page(e);
}

/* [D4] decided by the first page's header. */
static void judge_history(etcd *e, const struct etcd_msg *msg)
{
    e->range_revision = msg->revision;
    e->range_cluster_id = msg->cluster_id;
    bool is_other = e->shown && (msg->cluster_id != e->cluster_id || msg->revision < e->revision);
    e->range_is_other_history = is_other;
    if (!is_other)
        return;
    WEIR_WARN("etcd_replaced", "cluster=%016llx before=%016llx revision=%lld before=%lld",
              (unsigned long long)msg->cluster_id, (unsigned long long)e->cluster_id,
              (long long)msg->revision, (long long)e->revision);
    e->offset = e->shown->revision; /* [D5] */
}

static void finish_range(etcd *e)
{
    struct weir_why why = { 0 };
    weir_err rc = show_range(e, &why);
    if (rc != WEIR_OK) {
        fail_view(e, why.text, NULL);
        return;
    }
    if (e->range_is_other_history)
        regs_lost(e->regs); /* put them all again; a lease of the old history shows itself at the next beat */
    e->cluster_id = e->range_cluster_id;
    e->revision = e->range_revision;
    e->resync_reason = NULL;
    changes_release(&e->range); /* it may have been large */
    changes_init(&e->range, RANGE_BYTES_MAX);
    disc_set_connected(e->d, true);
    open_watch(e);
}

static void take_page(etcd *e, const struct etcd_msg *msg)
{
    if (e->range_revision == 0)
        judge_history(e, msg);
    for (int i = 0; i < msg->n_kvs; i++)
        if (!changes_add(&e->range, &msg->kvs[i], e->offset)) {
            fail_view(e, "no memory, or too many entries", NULL);
            return;
        }
    if (!msg->more || msg->n_kvs == 0) {
        finish_range(e);
        return;
    }
    struct weir_str last = msg->kvs[msg->n_kvs - 1].key;
    weir_buf_clear(&e->range_next);
    weir_buf_add(&e->range_next, last.ptr, last.len);
    weir_buf_addc(&e->range_next, '\0'); /* the least key after it */
    send_page(e);
}

static void on_page_done(void *ctx, const struct etcd_result *result)
{
    etcd *e = ctx;
    struct etcd_msg msg = { 0 };
    char text[200];
    e->view_call = NULL;
    bool ok = read_reply(result, &e->range.arena, &msg, text);
    if (result->err == WEIR_TOOLARGE) {
        fail_view(e, "a page of the range passes its bound", NULL);
    } else if (result->err != WEIR_OK) {
        lose_endpoint(e, text);
    } else if (!ok) {
        fail_view(e, text, NULL);
    } else if (msg.is_error) {
        if (is_auth_error(&msg))
            drop_token(e);
        fail_view(e, text, NULL);
    } else if (!msg.has_header || msg.revision <= 0) {
        fail_view(e, "a range without a revision", NULL);
    } else {
        take_page(e, &msg);
    }
}

/* ---- the watch ---- */

/* Not from within on_data: libcurl must not be called there. The reason waits for on_watch_done. */
static bool refuse_stream(etcd *e, const char *why, const char *resync_reason)
{
    if (resync_reason)
        e->resync_reason = resync_reason;
    snprintf(e->why_logged, sizeof e->why_logged, "watch: %.150s", why);
    weir_log(WEIR_LOG_WARN, "etcd_watch_refused", "why=%s", why);
    return false;
}

static bool take_canceled(etcd *e, const struct etcd_msg *msg)
{
    char why[200];
    snprintf(why, sizeof why, "canceled: %.*s",
             (int)(msg->cancel_reason.len < 150 ? msg->cancel_reason.len : 150),
             msg->cancel_reason.ptr ? msg->cancel_reason.ptr : "");
    if (msg->compact_revision > 0)
        return refuse_stream(e, "our revision is compacted", "compacted");
    /* A bad token is told in the stream, under HTTP 200. */
    if (e->user && memmem(why, strlen(why), "token", 5))
        drop_token(e);
    return refuse_stream(e, why, "canceled");
}

static bool take_events(etcd *e, const struct etcd_msg *msg)
{
    for (int i = 0; i < msg->n_kvs; i++) {
        if (msg->kvs[i].mod_revision <= e->revision)
            continue; /* [D1] */
        if (!changes_add(&e->pending, &msg->kvs[i], e->offset))
            return refuse_stream(e, "no memory for events", "overflow");
        if (msg->kvs[i].mod_revision > e->pending_revision)
            e->pending_revision = msg->kvs[i].mod_revision;
    }
    e->pending_is_partial = msg->fragment;
    return true;
}

static bool take_watch_msg(etcd *e, const struct etcd_msg *msg)
{
    if (msg->is_error) {
        char why[200];
        snprintf(why, sizeof why, "etcd error %d: %.*s", (int)msg->error_code,
                 (int)(msg->error.len < 150 ? msg->error.len : 150), msg->error.ptr ? msg->error.ptr : "");
        if (is_auth_error(msg))
            drop_token(e);
        return refuse_stream(e, why, NULL);
    }
    if (msg->canceled) /* before created: a refused watch is both */
        return take_canceled(e, msg);
    if (msg->has_header && msg->cluster_id != e->cluster_id)
        return refuse_stream(e, "another cluster answers", "new_cluster");
    if (msg->created) {
        /* A start in the future is accepted in silence and gives nothing for as long as it takes. */
        if (msg->revision < e->revision)
            return refuse_stream(e, "etcd's revision is before ours", "rolled_back");
        e->view = VIEW_WATCHING;
        e->why_logged[0] = '\0';
        WEIR_INFO("etcd_watching", "endpoint=%s revision=%lld", e->src->urls[e->i_url],
                  (long long)e->revision);
        disc_set_connected(e->d, true);
        return true;
    }
    if (msg->n_kvs == 0 && !e->pending_is_partial && msg->revision > e->pending_revision) {
        e->pending_revision = msg->revision; /* progress: nothing of ours up to here */
        return true;
    }
    return take_events(e, msg);
}

static bool on_watch_data(void *ctx, const char *data, size_t len)
{
    etcd *e = ctx;
    struct weir_why why = { 0 };
    struct weir_str line;
    if (etcd_lines_feed(&e->lines, data, len, &why) != WEIR_OK)
        return refuse_stream(e, why.text, "overflow");
    while (etcd_lines_next(&e->lines, &line)) {
        struct etcd_msg msg = { 0 };
        weir_err rc = etcd_msg_parse(line, &e->pending.arena, &msg, &why);
        if (rc == WEIR_NOMEM)
            return refuse_stream(e, why.text, "overflow");
        if (rc != WEIR_OK)
            return refuse_stream(e, why.text, "garbled");
        if (!take_watch_msg(e, &msg))
            return false;
    }
    return true;
}

static void on_watch_done(void *ctx, const struct etcd_result *result)
{
    etcd *e = ctx;
    char text[200];
    e->view_call = NULL;
    if (result->err == WEIR_CANCELLED) { /* refused above, and logged there */
        snprintf(text, sizeof text, "%s", e->why_logged);
        fail_view(e, text, NULL);
        return;
    }
    if (result->err == WEIR_OK)
        snprintf(text, sizeof text, "the watch ended with status %d", result->status);
    else
        snprintf(text, sizeof text, "%.190s", result->detail);
    lose_endpoint(e, text);
}

static void open_watch(etcd *e)
{
    etcd_lines_clear(&e->lines);
    changes_clear(&e->pending);
    e->pending_revision = e->revision;
    e->pending_is_partial = false;
    etcd_request_watch(&e->body, weir_str(e->prefix), e->revision + 1);
    e->view = VIEW_OPENING;
    e->view_due_ns = e->now_ns + WATCH_OPEN_TIMEOUT;
    e->view_call = send_call(e, "/v3/watch", /* timeout_ms= */ 0, 0, on_watch_data, on_watch_done);
    if (!e->view_call)
        fail_view(e, "no memory for a request", NULL);
}

/* All that perform brought becomes one snapshot. */
static void apply_pending(etcd *e)
{
    const struct weir_disc_snapshot *truth, *shown = NULL;
    struct weir_why why = { 0 };
    if (e->view != VIEW_WATCHING || e->pending_is_partial) /* [D1] */
        return;
    if (e->pending.n == 0) {
        e->revision = e->pending_revision;
        return;
    }
    int64_t revision = e->pending_revision + e->offset;
    weir_err rc = snapshot_apply(e->truth, e->pending.items, e->pending.n, revision, &truth, &why);
    if (rc == WEIR_OK && e->is_holding) {
        rc = snapshot_apply(e->shown, e->pending.items, e->pending.n, revision, &shown, &why);
        if (rc != WEIR_OK)
            weir_disc_snapshot_unref(truth);
    }
    if (rc != WEIR_OK) {
        fail_view(e, why.text, NULL); /* the events come again */
        return;
    }
    e->revision = e->pending_revision;
    changes_clear(&e->pending);
    replace(&e->truth, truth);
    show(e, shown ? shown : truth);
    weir_disc_snapshot_unref(shown);
    drop_ghosts(e);
    int n_lost = regs_check(e->regs, e->truth, e->revision);
    if (n_lost)
        WEIR_WARN("registration_deleted", "n=%d why=somebody deleted keys of ours; they are put again",
                  n_lost);
}

static void start_view(etcd *e)
{
    if (e->resync_reason) {
        count_resync(e->resync_reason);
        start_range(e);
    } else {
        open_watch(e);
    }
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
        fail_view(e, "another cluster answers", "new_cluster");
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
    bool ok = read_reply(result, &arena, &msg, text);
    snprintf(why, sizeof why, "beat: %s", ok && !msg.is_error ? "" : text);
    if (!ok) {
        lose_endpoint(e, why);
    } else if (msg.is_error && is_auth_error(&msg)) {
        drop_token(e);
        e->beat_due_ns = e->now_ns;
    } else if (msg.is_error && msg.error_code == 5) {
        lose_lease(e);
    } else if (msg.is_error) {
        lose_endpoint(e, why); /* no leader, no quorum: this member can't keep us alive */
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
    e->beat_call = send_call(e, path, BEAT_TIMEOUT_MS, SMALL_BYTES_MAX, NULL, on_beat_done);
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
    bool ok = read_reply(result, &arena, &msg, text);
    if (result->err != WEIR_OK) {
        lose_endpoint(e, text);
    } else if (e->put_lease != e->lease_id) {
        /* The lease was lost meanwhile: whatever became of this put, it counts for nothing. */
    } else if (ok && msg.is_error && msg.error_code == 5) {
        lose_lease(e);
    } else if (ok && msg.is_error && is_auth_error(&msg)) {
        drop_token(e); /* it runs out when it is not used for some minutes; the put follows the new one */
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
    e->put_call = send_call(e, e->put_work.is_delete ? "/v3/kv/txn" : "/v3/kv/put", CALL_TIMEOUT_MS,
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
        start_view(e);
    else if (e->view == VIEW_OPENING && e->now_ns >= e->view_due_ns)
        lose_endpoint(e, "the watch was not confirmed in time");
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
    apply_pending(e);
    tick_view(e);
    tick_lease(e);
    drop_ghosts(e);
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
    stop_view(e);
    etcd_call_close(e->auth_call);
    etcd_call_close(e->beat_call);
    etcd_call_close(e->put_call);
    e->auth_call = e->beat_call = e->put_call = NULL;
    if (!e->lease_id || e->fresh)
        return; /* nothing there, or nobody there: the lease runs out by itself */
    etcd_request_lease(&e->body, e->lease_id);
    e->beat_call = send_call(e, "/v3/lease/revoke", REVOKE_TIMEOUT_MS, SMALL_BYTES_MAX, NULL, on_revoked);
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
    weir_disc_snapshot_unref(e->truth);
    weir_disc_snapshot_unref(e->shown);
    changes_release(&e->range);
    changes_release(&e->pending);
    etcd_lines_release(&e->lines);
    weir_buf_release(&e->body);
    weir_buf_release(&e->range_next);
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
    e->resync_reason = "start";
    changes_init(&e->range, RANGE_BYTES_MAX);
    changes_init(&e->pending, PENDING_BYTES_MAX);
    etcd_lines_init(&e->lines, ETCD_LINE_MAX);
    weir_buf_init(&e->body, /* limit_bytes= */ 0);
    weir_buf_init(&e->range_next, /* limit_bytes= */ 0);
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
