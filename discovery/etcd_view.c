/* etcd_view.c - following etcd: a range at revision R in pages, then a watch from R + 1.
 *
 * Nothing here touches libcurl from within on_data: a stream that must end says so by its return value, and
 * the reason waits in the struct for on_watch_done. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "discovery/etcd_int.h"
#include "discovery/etcd_request.h"

#define WATCH_OPEN_TIMEOUT (3 * WEIR_S)
/* Of one range request. etcd counts all keys of the prefix for every page, so few pages are quick; one whose values are
 * too large is asked for again with half as many. */
#define PAGE_KEYS_MAX 16384
#define PAGE_BYTES_MAX (64u << 20) /* of its reply */

static void count_resync(const char *reason)
{
    char labels[64];
    snprintf(labels, sizeof labels, "reason=\"%s\"", reason);
    weir_counter_add(
        weir_counter("weir_discovery_resyncs_total", labels, "whole reads of the fleet's view, by cause"), 1);
}

/* ---- changes ---- */

static void changes_init(struct etcd_changes *c, size_t limit)
{
    *c = (struct etcd_changes){ 0 };
    weir_arena_init(&c->arena, limit);
}

static void changes_clear(struct etcd_changes *c)
{
    c->n = 0;
    weir_arena_clear(&c->arena);
}

static void changes_release(struct etcd_changes *c)
{
    weir_free(c->items);
    weir_arena_release(&c->arena);
    c->items = NULL;
    c->n = c->cap = 0;
}

static bool changes_add(struct etcd_changes *c, const struct etcd_kv *kv, int64_t offset)
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

void etcd_view_stop(etcd *e)
{
    etcd_call_close(e->view_call);
    e->view_call = NULL;
    etcd_lines_clear(&e->lines);
    changes_clear(&e->pending); /* [D1] an unfinished revision comes again */
    changes_clear(&e->range);
    weir_disc_snapshot_unref(e->range_view);
    e->range_view = NULL;
    e->pending_is_partial = false;
}

/* ---- the view: range, then watch ---- */

static void open_watch(etcd *e);
static void on_page_done(void *ctx, const struct etcd_result *result);

static void send_page(etcd *e)
{
    struct weir_str prefix = weir_str(e->prefix);
    struct weir_str first = { weir_buf_ptr(&e->range_next), weir_buf_len(&e->range_next) };
    /* Every page at the first one's revision: together they are one moment. */
    etcd_request_range(&e->body, first.len ? first : prefix, prefix, e->range_revision, e->page_keys);
    e->view = VIEW_RANGE;
    e->view_call = etcd_send(e, "/v3/kv/range", CALL_TIMEOUT_MS, PAGE_BYTES_MAX, NULL, on_page_done);
    if (!e->view_call)
        etcd_fail_view(e, "no memory for a request", NULL);
}

static void start_range(etcd *e)
{
    changes_clear(&e->range);
    weir_disc_snapshot_unref(e->range_view);
    e->range_view = NULL;
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
    weir_err rc = etcd_show_range(e, &why);
    if (rc != WEIR_OK) {
        etcd_fail_view(e, why.text, NULL);
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

/* To what the pages before brought: as records at once, so that a large view is in memory once and not as text too. */
static weir_err add_page(etcd *e)
{
    const struct weir_disc_snapshot *page, *both = NULL;
    weir_err rc =
        snapshot_build(e->shown, e->range.items, e->range.n, e->range_revision + e->offset, &page, NULL);
    if (rc != WEIR_OK || !e->range_view) {
        e->range_view = rc == WEIR_OK ? page : NULL;
        return rc;
    }
    rc = snapshot_union(e->range_view, page, &both, NULL);
    weir_disc_snapshot_unref(page);
    if (rc == WEIR_OK) {
        weir_disc_snapshot_unref(e->range_view);
        e->range_view = both;
    }
    return rc;
}

static void take_page(etcd *e, const struct etcd_msg *msg)
{
    if (e->range_revision == 0)
        judge_history(e, msg);
    weir_err rc = WEIR_OK;
    for (int i = 0; i < msg->n_kvs && rc == WEIR_OK; i++)
        rc = changes_add(&e->range, &msg->kvs[i], e->offset) ? WEIR_OK : WEIR_NOMEM;
    if (rc == WEIR_OK)
        rc = add_page(e);
    if (rc != WEIR_OK) {
        etcd_fail_view(e, "no memory, or too many entries", NULL);
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
    changes_clear(&e->range);
    send_page(e);
}

static void on_page_done(void *ctx, const struct etcd_result *result)
{
    etcd *e = ctx;
    struct etcd_msg msg = { 0 };
    char text[200];
    e->view_call = NULL;
    bool ok = etcd_read_reply(result, &e->range.arena, &msg, text);
    if (result->err == WEIR_TOOLARGE && e->page_keys > 1) {
        e->page_keys /= 2;
        send_page(e);
    } else if (result->err == WEIR_TOOLARGE) {
        etcd_fail_view(e, "a page of the range passes its bound", NULL);
    } else if (result->err != WEIR_OK) {
        etcd_lose_endpoint(e, text);
    } else if (!ok) {
        etcd_fail_view(e, text, NULL);
    } else if (msg.is_error) {
        if (etcd_is_auth_error(&msg))
            etcd_drop_token(e);
        etcd_fail_view(e, text, NULL);
    } else if (!msg.has_header || msg.revision <= 0) {
        etcd_fail_view(e, "a range without a revision", NULL);
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
        etcd_drop_token(e);
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
        if (etcd_is_auth_error(msg))
            etcd_drop_token(e);
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
        etcd_fail_view(e, text, NULL);
        return;
    }
    if (result->err == WEIR_OK)
        snprintf(text, sizeof text, "the watch ended with status %d", result->status);
    else
        snprintf(text, sizeof text, "%.190s", result->detail);
    etcd_lose_endpoint(e, text);
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
    e->view_call = etcd_send(e, "/v3/watch", /* timeout_ms= */ 0, 0, on_watch_data, on_watch_done);
    if (!e->view_call)
        etcd_fail_view(e, "no memory for a request", NULL);
}

/* All that perform brought becomes one snapshot. */
void etcd_view_apply(etcd *e)
{
    struct weir_why why = { 0 };
    if (e->view != VIEW_WATCHING || e->pending_is_partial) /* [D1] */
        return;
    if (e->pending.n > 0) {
        weir_err rc =
            etcd_show_events(e, e->pending.items, e->pending.n, e->pending_revision + e->offset, &why);
        if (rc != WEIR_OK) {
            etcd_fail_view(e, why.text, NULL); /* the events come again */
            return;
        }
    }
    e->revision = e->pending_revision;
    if (e->pending.n == 0)
        return;
    changes_clear(&e->pending);
    int n_lost = regs_check(e->regs, e->truth, e->revision);
    if (n_lost)
        WEIR_WARN("registration_deleted", "n=%d why=somebody deleted keys of ours; they are put again",
                  n_lost);
}

void etcd_view_start(etcd *e)
{
    if (e->resync_reason) {
        count_resync(e->resync_reason);
        start_range(e);
    } else {
        open_watch(e);
    }
}

/* ---- lifecycle ---- */

void etcd_view_init(etcd *e)
{
    changes_init(&e->range, RANGE_BYTES_MAX);
    changes_init(&e->pending, PENDING_BYTES_MAX);
    etcd_lines_init(&e->lines, ETCD_LINE_MAX);
    weir_buf_init(&e->range_next, /* limit_bytes= */ 0);
    e->resync_reason = "start";
    e->page_keys = PAGE_KEYS_MAX;
}

void etcd_view_release(etcd *e)
{
    weir_disc_snapshot_unref(e->range_view);
    weir_disc_snapshot_unref(e->truth);
    weir_disc_snapshot_unref(e->shown);
    changes_release(&e->range);
    changes_release(&e->pending);
    etcd_lines_release(&e->lines);
    weir_buf_release(&e->range_next);
}
