/* gossip.c - ticks the mesh, feeds it what comes, keeps pages.
 *
 *   [P1] A page is written only over the revision that was read or written last: a namesake's is never lost unseen.
 *
 * Threads: ticks on the mesh thread, frames on CQ threads, pages on a thread of their own, because etcd's transactions
 * block. */
#include "router/exchange/gossip.h"

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
#include "router/mesh/mesh.h"

#define PAGES_INTERVAL_NS (1 * WEIR_S)
#define PAGES_A_ROUND 4 /* writes of one interval */
#define KEY_MAX 512

struct page {
    uint64_t version; /* that was written last */
    int64_t revision; /* etcd's; 0: not there */
};

struct weir_gossip {
    struct weir_gossip_opts opts;
    struct weir_mesh *mesh;
    struct weir_exchange *exchange;
    char pages_prefix[200]; /* "/weir-limits/" */
    struct page pages[WEIR_LIMITS_PAGES];
    uint32_t i_page; /* where the next round begins */
    /* mesh thread */
    const struct weir_mesh_peer *peers;
    uint64_t numbers[WEIR_MESH_PEERS_MAX];
    int n_peers_before;
    struct weir_mesh_stats counted;
    /* pages thread */
    struct weir_thread thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool stopping;
    atomic_bool reread; /* somebody left: its keys may be ours now */
    struct weir_counter *registers_sent, *registers_new, *pages_written, *pages_failed;
    struct weir_gauge *keys, *holds, *bytes;
};

/* ---- the mesh ---- */
static weir_err send_to(void *ctx, uint32_t i_peer, struct weir_str bytes)
{
    struct weir_gossip *g = ctx;

    return weir_exchange_send(g->exchange, g->peers[i_peer].id, bytes);
}

static void count(struct weir_gossip *g)
{
    struct weir_mesh_stats mesh;
    struct weir_limits_stats limits;

    weir_mesh_stats(g->mesh, &mesh);
    weir_limits_stats(g->opts.limits, &limits);
    weir_counter_add(g->registers_sent, mesh.registers_sent - g->counted.registers_sent);
    weir_counter_add(g->registers_new, mesh.registers_new - g->counted.registers_new);
    g->counted = mesh;
    weir_gauge_set(g->keys, (int64_t)limits.keys);
    weir_gauge_set(g->holds, (int64_t)limits.holds);
    weir_gauge_set(g->bytes, (int64_t)limits.bytes);
}

static void tick(void *ctx, uint64_t now_ns, const struct weir_mesh_peer *peers, int n_peers)
{
    struct weir_gossip *g = ctx;

    g->peers = peers;
    for (int i = 0; i < n_peers; i++)
        g->numbers[i] = weir_mesh_router(weir_str(peers[i].id), peers[i].incarnation);
    if (n_peers < g->n_peers_before)
        atomic_store(&g->reread, true);
    g->n_peers_before = n_peers;
    weir_limits_sweep(g->opts.limits, now_ns);
    weir_mesh_tick(g->mesh, now_ns, g->numbers, (uint32_t)n_peers, send_to, g);
    count(g);
}

static void receive(void *ctx, const struct weir_mesh_peer *from, struct weir_str bytes, uint64_t now_ns)
{
    struct weir_gossip *g = ctx;
    struct weir_why why = { 0 };

    if (weir_mesh_receive(g->mesh, weir_mesh_router(weir_str(from->id), from->incarnation), bytes, now_ns,
                          &why) != WEIR_OK)
        WEIR_WARN("mesh_bad_state", "peer=%s why=%s", from->id, why.text);
}

static void joined(void *ctx, const struct weir_mesh_peer *peer)
{
    struct weir_gossip *g = ctx;

    weir_mesh_joined(g->mesh, weir_mesh_router(weir_str(peer->id), peer->incarnation));
}

/* ---- pages ---- */
static bool keeps_pages(const struct weir_gossip *g)
{
    return strncmp(g->opts.source.source, "file:", 5) != 0;
}

static void page_key(const struct weir_gossip *g, uint32_t page, char ret[KEY_MAX])
{
    snprintf(ret, KEY_MAX, "%s%02u/%s", g->pages_prefix, page, g->opts.router);
}

/* Takes in every router's pages, and the revisions of our own. */
static void read_pages(struct weir_gossip *g)
{
    const struct weir_disc_snapshot *snap;
    struct weir_why why = { 0 };

    if (!keeps_pages(g))
        return;
    if (weir_discovery_read(&g->opts.source, g->pages_prefix, &snap, &why) != WEIR_OK) {
        WEIR_WARN("limit_pages_not_read", "why=%s", why.text);
        atomic_store(&g->reread, true);
        return;
    }
    for (int i = 0; i < snap->n_entries; i++) {
        const struct weir_disc_entry *entry = &snap->entries[i];
        char key[KEY_MAX];
        if (weir_limits_page_read(g->opts.limits, entry->value, weir_now_ns(), weir_wall_ns() / WEIR_MS,
                                  &why) != WEIR_OK)
            WEIR_WARN("bad_limit_page", "key=%.*s why=%s", WEIR_STR_FMT(entry->key), why.text);
        unsigned long page = strtoul(entry->key.ptr + strlen(g->pages_prefix), NULL, 10);
        if (page >= WEIR_LIMITS_PAGES)
            continue;
        page_key(g, (uint32_t)page, key);
        if (weir_str_eq(entry->key, key))
            g->pages[page].revision = entry->revision;
    }
    weir_disc_snapshot_unref(snap);
}

static bool write_page(struct weir_gossip *g, uint32_t i)
{
    struct page *page = &g->pages[i];
    uint64_t version = weir_limits_page_version(g->opts.limits, i);
    struct weir_why why = { 0 };
    struct weir_buf value;
    char key[KEY_MAX];

    if (version == page->version)
        return false;
    page_key(g, i, key);
    weir_buf_init(&value, 0);
    struct weir_disc_cond cond = { weir_str(key), page->revision };
    weir_err err = weir_limits_page_write(g->opts.limits, i, weir_now_ns(), weir_wall_ns() / WEIR_MS, &value);
    struct weir_disc_op put = { WEIR_DISC_PUT,
                                weir_str(key),
                                { weir_buf_ptr(&value), weir_buf_len(&value) } };
    if (err == WEIR_OK)
        err = weir_discovery_txn(&g->opts.source, &cond, 1, &put, 1, &why); /* [P1] */
    weir_buf_clear(&value);
    if (err == WEIR_OK)
        page->version = version;
    else
        weir_counter_add(g->pages_failed, 1);
    /* What the next condition has to say. */
    if ((err == WEIR_OK || err == WEIR_CONFLICT) &&
        weir_discovery_get(&g->opts.source, weir_str(key), &value, &page->revision, &why) == WEIR_NOTFOUND)
        page->revision = 0;
    weir_counter_add(g->pages_written, err == WEIR_OK);
    weir_buf_release(&value);
    return true;
}

static void write_pages(struct weir_gossip *g, uint32_t n_max)
{
    uint32_t n_written = 0;

    for (uint32_t k = 0; k < WEIR_LIMITS_PAGES && n_written < n_max; k++) {
        n_written += write_page(g, g->i_page);
        g->i_page = (g->i_page + 1) % WEIR_LIMITS_PAGES;
    }
}

static void *keep_pages(void *arg)
{
    struct weir_gossip *g = arg;

    pthread_mutex_lock(&g->lock);
    while (!g->stopping) {
        uint64_t due_ns = weir_now_ns() + PAGES_INTERVAL_NS;
        struct timespec until = { .tv_sec = (time_t)(due_ns / WEIR_S), .tv_nsec = (long)(due_ns % WEIR_S) };
        pthread_cond_timedwait(&g->wake, &g->lock, &until);
        pthread_mutex_unlock(&g->lock);
        weir_thread_beat(weir_now_ns());
        if (atomic_exchange(&g->reread, false))
            read_pages(g);
        write_pages(g, PAGES_A_ROUND);
        pthread_mutex_lock(&g->lock);
    }
    pthread_mutex_unlock(&g->lock);
    write_pages(g, WEIR_LIMITS_PAGES);
    return NULL;
}

/* ---- lifecycle ---- */
weir_err weir_gossip_open(const struct weir_gossip_opts *opts, struct weir_gossip **ret, struct weir_why *why)
{
    struct weir_gossip *g = weir_alloc0(sizeof *g);
    size_t len = strlen(opts->prefix);
    pthread_condattr_t attr;

    if (!g)
        return weir_fail(why, WEIR_NOMEM, "mesh: no memory");
    g->opts = *opts;
    snprintf(g->pages_prefix, sizeof g->pages_prefix, "%.*s-limits/", (int)(len - (len > 0)), opts->prefix);
    pthread_mutex_init(&g->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&g->wake, &attr);
    pthread_condattr_destroy(&attr);
    g->registers_sent =
        weir_counter("weir_mesh_registers_sent_total", "", "changed keys told to other routers");
    g->registers_new =
        weir_counter("weir_mesh_registers_new_total", "", "changed keys heard from other routers");
    g->pages_written =
        weir_counter("weir_limit_pages_written_total", "", "snapshots of limits written to etcd");
    g->pages_failed =
        weir_counter("weir_limit_pages_failed_total", "", "snapshots of limits that could not be written");
    g->keys = weir_gauge("weir_limit_keys", "", "accounts and deployments with meters here");
    g->holds = weir_gauge("weir_limit_holds", "", "reservations of live calls");
    g->bytes = weir_gauge("weir_limit_bytes", "", "memory of meters and reservations");
    struct weir_mesh_opts mesh = { .limits = opts->limits, .interval_ms = opts->interval_ms };
    struct weir_exchange_opts exchange = { .rpc = opts->rpc,
                                           .router = opts->router,
                                           .incarnation = opts->incarnation,
                                           .prefix = opts->prefix,
                                           .listen = opts->listen,
                                           .tls = opts->tls,
                                           .interval_ms = opts->interval_ms,
                                           .ops = { tick, receive, joined },
                                           .ctx = g };
    weir_err err = weir_mesh_open(&mesh, &g->mesh, why);
    if (err == WEIR_OK)
        err = weir_exchange_open(&exchange, &g->exchange, why);
    if (err != WEIR_OK) {
        weir_gossip_close(g);
        return err;
    }
    *ret = g;
    return WEIR_OK;
}

weir_err weir_gossip_start(struct weir_gossip *g, struct weir_why *why)
{
    weir_err err = weir_exchange_start(g->exchange, why);

    if (err == WEIR_OK && keeps_pages(g)) {
        read_pages(g);
        err = weir_thread_start(&g->thread, WEIR_ROLE_MESH, "pages", keep_pages, g, why);
    }
    return err;
}

void weir_gossip_close(struct weir_gossip *g)
{
    if (!g)
        return;
    pthread_mutex_lock(&g->lock);
    g->stopping = true;
    pthread_cond_broadcast(&g->wake);
    pthread_mutex_unlock(&g->lock);
    weir_thread_join(&g->thread);
    weir_exchange_close(g->exchange);
    weir_mesh_close(g->mesh);
    pthread_cond_destroy(&g->wake);
    pthread_mutex_destroy(&g->lock);
    weir_free(g);
}

void weir_gossip_on_snapshot(struct weir_gossip *g, const struct weir_disc_snapshot *snap)
{
    weir_exchange_on_snapshot(g->exchange, snap);
}

int weir_gossip_port(const struct weir_gossip *g)
{
    return weir_exchange_port(g->exchange);
}

struct weir_exchange *weir_gossip_exchange(struct weir_gossip *g)
{
    return g->exchange;
}
