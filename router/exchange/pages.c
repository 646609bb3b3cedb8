/* pages.c - see pages.h.
 *
 *   [P1] A page is written only over the revision that was read or written last: a namesake's is never lost unseen.
 *   [P2] While etcd is away nothing is tried twice in one round: neither a round nor the end takes longer than one call. */
#include "router/exchange/pages.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/thread.h"

#define INTERVAL_NS (1 * WEIR_S)
#define WRITES_A_ROUND 4
#define REMOVED_MAX 64 /* at one reading: one transaction */
#define KEY_MAX 512

struct page {
    uint64_t version; /* that was written last */
    int64_t revision; /* etcd's; 0: not there */
};

struct weir_pages {
    struct weir_pages_opts opts;
    char prefix[200]; /* "/weir-limits/" */
    /* the thread's, once it runs */
    struct page pages[WEIR_LIMITS_PAGES];
    uint32_t i_next;   /* where the next round begins */
    bool is_etcd_away; /* and it was said */
    struct weir_thread thread;
    bool is_started;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool stopping; /* under the lock */
    atomic_bool reread;
    struct weir_counter *written, *failed, *removed;
};

static bool is_kept(const struct weir_pages *p)
{
    return strncmp(p->opts.source.source, "file:", 5) != 0;
}

/* Says once that etcd does not do what it is asked, and once that it does again. */
static void note(struct weir_pages *p, weir_err err, const struct weir_why *why)
{
    bool is_away = err != WEIR_OK && err != WEIR_CONFLICT;

    if (is_away && !p->is_etcd_away)
        WEIR_WARN("limit_pages_not_kept", "why=%s", why->text[0] ? why->text : weir_err_info(err)->text);
    else if (!is_away && p->is_etcd_away)
        WEIR_INFO("limit_pages_kept_again", "router=%s", p->opts.router);
    p->is_etcd_away = is_away;
}

static void page_key(const struct weir_pages *p, uint32_t i, char ret[KEY_MAX])
{
    snprintf(ret, KEY_MAX, "%s%02u/%s", p->prefix, i, p->opts.router);
}

/* ---- reading ---- */
struct stale { /* pages of routers that are gone */
    struct weir_disc_cond conds[REMOVED_MAX];
    struct weir_disc_op ops[REMOVED_MAX];
    int n;
};

/* True: the page is our own. */
static bool note_own(struct weir_pages *p, const struct weir_disc_entry *entry)
{
    unsigned long i = strtoul(entry->key.ptr + strlen(p->prefix), NULL, 10);
    char key[KEY_MAX];

    if (i >= WEIR_LIMITS_PAGES)
        return false;
    page_key(p, (uint32_t)i, key);
    if (!weir_str_eq(entry->key, key))
        return false;
    p->pages[i].revision = entry->revision;
    return true;
}

static void read_page(struct weir_pages *p, const struct weir_disc_entry *entry, struct stale *stale)
{
    struct weir_why why = { 0 };
    uint64_t now_ms = weir_wall_ns() / WEIR_MS, written_ms = now_ms;

    if (weir_limits_page_read(p->opts.limits, entry->value, weir_now_ns(), now_ms, &written_ms, &why) !=
        WEIR_OK)
        WEIR_WARN("bad_limit_page", "key=%.*s why=%s", WEIR_STR_FMT(entry->key), why.text);
    if (note_own(p, entry) || now_ms < written_ms + WEIR_PAGES_KEEP_MS || stale->n == REMOVED_MAX)
        return;
    stale->conds[stale->n] = (struct weir_disc_cond){ entry->key, entry->revision };
    stale->ops[stale->n] = (struct weir_disc_op){ WEIR_DISC_DELETE, entry->key, { NULL, 0 } };
    stale->n++;
}

/* Takes in every router's pages, and the revisions of our own. */
static void read_all(struct weir_pages *p)
{
    const struct weir_disc_snapshot *snap;
    struct stale stale = { .n = 0 };
    struct weir_why why = { 0 };
    weir_err err = weir_discovery_read(&p->opts.source, p->prefix, &snap, &why);

    note(p, err, &why);
    if (err != WEIR_OK) {
        atomic_store(&p->reread, true);
        return;
    }
    for (int i = 0; i < snap->n_entries; i++)
        read_page(p, &snap->entries[i], &stale);
    /* Another router may be doing the same: then the rest goes the next time. */
    if (stale.n > 0 &&
        weir_discovery_txn(&p->opts.source, stale.conds, stale.n, stale.ops, stale.n, &why) == WEIR_OK)
        weir_counter_add(p->removed, (uint64_t)stale.n);
    weir_disc_snapshot_unref(snap);
}

/* ---- writing ---- */
static weir_err write_page(struct weir_pages *p, uint32_t i)
{
    struct page *page = &p->pages[i];
    uint64_t version = weir_limits_page_version(p->opts.limits, i);
    struct weir_why why = { 0 };
    struct weir_buf value;
    char key[KEY_MAX];

    page_key(p, i, key);
    weir_buf_init(&value, 0);
    struct weir_disc_cond cond = { weir_str(key), page->revision };
    weir_err err = weir_limits_page_write(p->opts.limits, i, weir_now_ns(), weir_wall_ns() / WEIR_MS, &value);
    struct weir_disc_op put = { WEIR_DISC_PUT,
                                weir_str(key),
                                { weir_buf_ptr(&value), weir_buf_len(&value) } };
    if (err == WEIR_OK)
        err = weir_discovery_txn(&p->opts.source, &cond, 1, &put, 1, &why); /* [P1] */
    note(p, err, &why);
    weir_buf_clear(&value);
    if (err == WEIR_OK)
        page->version = version;
    /* What the next condition has to say. */
    if ((err == WEIR_OK || err == WEIR_CONFLICT) &&
        weir_discovery_get(&p->opts.source, weir_str(key), &value, &page->revision, &why) == WEIR_NOTFOUND)
        page->revision = 0;
    weir_counter_add(err == WEIR_OK ? p->written : p->failed, 1);
    weir_buf_release(&value);
    return err;
}

static void write_changed(struct weir_pages *p, uint32_t n_max)
{
    uint32_t n_tried = 0;
    weir_err err = WEIR_OK;

    for (uint32_t k = 0; k < WEIR_LIMITS_PAGES && n_tried < n_max && err != WEIR_UNAVAILABLE;
         k++) { /* [P2] */
        uint32_t i = p->i_next;
        p->i_next = (i + 1) % WEIR_LIMITS_PAGES;
        if (weir_limits_page_version(p->opts.limits, i) == p->pages[i].version)
            continue;
        err = write_page(p, i);
        n_tried++;
    }
}

static void *run(void *arg)
{
    struct weir_pages *p = arg;

    pthread_mutex_lock(&p->lock);
    while (!p->stopping) {
        uint64_t due_ns = weir_now_ns() + INTERVAL_NS;
        struct timespec until = { .tv_sec = (time_t)(due_ns / WEIR_S), .tv_nsec = (long)(due_ns % WEIR_S) };
        pthread_cond_timedwait(&p->wake, &p->lock, &until);
        pthread_mutex_unlock(&p->lock);
        weir_thread_beat(weir_now_ns());
        if (atomic_exchange(&p->reread, false))
            read_all(p);
        if (!atomic_load(&p->reread)) /* [P2] */
            write_changed(p, WRITES_A_ROUND);
        pthread_mutex_lock(&p->lock);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

/* ---- lifecycle ---- */
weir_err weir_pages_open(const struct weir_pages_opts *opts, struct weir_pages **ret, struct weir_why *why)
{
    struct weir_pages *p = weir_alloc0(sizeof *p);
    size_t len = strlen(opts->prefix);
    pthread_condattr_t attr;

    if (!p)
        return weir_fail(why, WEIR_NOMEM, "no memory for the limits' pages");
    p->opts = *opts;
    snprintf(p->prefix, sizeof p->prefix, "%.*s-limits/", (int)(len - (len > 0)), opts->prefix);
    pthread_mutex_init(&p->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&p->wake, &attr);
    pthread_condattr_destroy(&attr);
    p->written = weir_counter("weir_limit_pages_written_total", "", "snapshots of limits written to etcd");
    p->failed =
        weir_counter("weir_limit_pages_failed_total", "", "snapshots of limits that could not be written");
    p->removed = weir_counter("weir_limit_pages_removed_total", "",
                              "snapshots of limits of routers that are gone, removed from etcd");
    *ret = p;
    return WEIR_OK;
}

weir_err weir_pages_start(struct weir_pages *p, struct weir_why *why)
{
    if (!is_kept(p))
        return WEIR_OK;
    read_all(p);
    weir_err err = weir_thread_start(&p->thread, WEIR_ROLE_MESH, "pages", run, p, why);
    p->is_started = err == WEIR_OK;
    return err;
}

void weir_pages_reread(struct weir_pages *p)
{
    atomic_store(&p->reread, true);
}

void weir_pages_close(struct weir_pages *p)
{
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->stopping = true;
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    weir_thread_join(&p->thread);
    if (p->is_started)
        write_changed(p, WEIR_LIMITS_PAGES);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    weir_free(p);
}
