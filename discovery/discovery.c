/* discovery.c - the door: the thread, the newest snapshot, and the hand-over to a provider.
 *
 * Readers take a reference under a lock that is held for a few instructions; they never wait for I/O.
 *   [V1] A reader's snapshot lives until the reader drops it, whatever is published meanwhile.
 *   [V2] on_snapshot sees every snapshot that is published, in order, on the discovery thread.
 * Threads: the loop and all provider code on one thread (role disc). close joins it. */
#include "discovery/discovery.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/thread.h"
#include "discovery/discovery_int.h"
#include "discovery/etcd_call.h"
#include "discovery/snapshot.h"

#define LEASE_TTL_MIN_S 2 /* etcd's own least TTL, rounded up */
#define LEASE_TTL_MAX_S 3600
#define KEY_MAX 1024      /* of a registration */
#define BEAT_EVERY WEIR_S /* for the watchdog */

struct weir_discovery {
    const struct disc_provider_ops *ops;
    struct disc_provider *provider;
    struct source src;
    char prefix[DISC_PREFIX_MAX + 1];
    struct regs regs;
    struct weir_thread thread;
    atomic_bool is_stopping; /* release by close, acquire by the loop */
    atomic_bool is_connected, has_warned;
    pthread_mutex_t lock; /* a leaf; guards `newest` only */
    const struct weir_disc_snapshot *newest;
    void (*on_snapshot)(void *ctx, const struct weir_disc_snapshot *snap);
    void *ctx;
    struct weir_counter *n_snapshots;
    struct weir_gauge *connected, *last_change, *entries;
};

/* ---- for providers ---- */

void disc_publish(struct weir_discovery *d, const struct weir_disc_snapshot *snap)
{
    snapshot_stamp(snap);
    pthread_mutex_lock(&d->lock);
    const struct weir_disc_snapshot *old = d->newest;
    d->newest = weir_disc_snapshot_ref(snap);
    pthread_mutex_unlock(&d->lock);
    weir_disc_snapshot_unref(old); /* outside the lock: it may free 100,000 entries */
    weir_counter_add(d->n_snapshots, 1);
    weir_gauge_set(d->entries, snap->n_entries);
    weir_gauge_set(d->last_change, (int64_t)(weir_wall_ns() / WEIR_S));
    if (d->on_snapshot)
        d->on_snapshot(d->ctx, snap); /* [V2] */
}

void disc_set_connected(struct weir_discovery *d, bool connected)
{
    atomic_store_explicit(&d->is_connected, connected, memory_order_relaxed);
    weir_gauge_set(d->connected, connected);
}

struct regs *disc_regs(struct weir_discovery *d)
{
    return &d->regs;
}

/* ---- lifecycle ---- */

static void *run(void *arg)
{
    struct weir_discovery *d = arg;
    while (!atomic_load_explicit(&d->is_stopping, memory_order_acquire)) {
        uint64_t now_ns = weir_now_ns();
        weir_thread_beat(now_ns);
        uint64_t next_ns = d->ops->tick(d->provider, now_ns);
        uint64_t wait_ns = next_ns > now_ns ? next_ns - now_ns : 0;
        d->ops->wait(d->provider, wait_ns < BEAT_EVERY ? wait_ns : BEAT_EVERY);
    }
    d->ops->leave(d->provider);
    return NULL;
}

static weir_err check_opts(const struct weir_discovery_opts *opts, struct weir_why *why)
{
    size_t n = opts->prefix ? strlen(opts->prefix) : 0;
    uint32_t ttl = opts->lease_ttl_s;
    if (n == 0 || n > DISC_PREFIX_MAX || opts->prefix[n - 1] != '/')
        return weir_fail_param(why, "prefix", WEIR_INVALID,
                               "discovery prefix: must end with '/' and have 1 to %d characters",
                               DISC_PREFIX_MAX);
    if (ttl != 0 && (ttl < LEASE_TTL_MIN_S || ttl > LEASE_TTL_MAX_S))
        return weir_fail_param(why, "lease_ttl_s", WEIR_INVALID, "discovery lease: %u s; must be %d to %d",
                               ttl, LEASE_TTL_MIN_S, LEASE_TTL_MAX_S);
    return WEIR_OK;
}

weir_err weir_discovery_open(const struct weir_discovery_opts *opts, struct weir_discovery **ret,
                             struct weir_why *why)
{
    weir_err rc = check_opts(opts, why);
    if (rc != WEIR_OK)
        return rc;
    struct weir_discovery *d = weir_alloc0(sizeof *d);
    if (!d)
        return weir_fail(why, WEIR_NOMEM, "discovery: no memory");
    pthread_mutex_init(&d->lock, NULL);
    regs_init(&d->regs);
    memcpy(d->prefix, opts->prefix, strlen(opts->prefix) + 1);
    d->on_snapshot = opts->on_snapshot;
    d->ctx = opts->ctx;
    d->n_snapshots = weir_counter("weir_discovery_snapshots_total", "", "snapshots of the fleet published");
    d->connected =
        weir_gauge("weir_discovery_connected", "", "1 while the source of the fleet's view answers");
    d->entries = weir_gauge("weir_discovery_entries", "", "entries of the newest snapshot");
    d->last_change = weir_gauge("weir_discovery_last_change_timestamp_seconds", "",
                                "when the newest snapshot was published");
    disc_set_connected(d, false);
    rc = source_init(&d->src, opts->source, why);
    if (rc != WEIR_OK)
        goto fail;
    d->ops = d->src.file ? &disc_file_ops : &disc_etcd_ops;
    rc = d->ops->open(d, opts, &d->src, &d->provider, why);
    if (rc != WEIR_OK)
        goto fail;
    rc = weir_thread_start(&d->thread, WEIR_ROLE_DISC, "disc", run, d, why);
    if (rc != WEIR_OK)
        goto fail;
    *ret = d;
    return WEIR_OK;
fail:
    weir_discovery_close(d);
    return rc;
}

void weir_discovery_close(struct weir_discovery *d)
{
    if (!d)
        return;
    atomic_store_explicit(&d->is_stopping, true, memory_order_release);
    if (d->thread.running) {
        d->ops->wake(d->provider);
        weir_thread_join(&d->thread);
    }
    if (d->ops)
        d->ops->close(d->provider);
    disc_set_connected(d, false);
    weir_disc_snapshot_unref(d->newest);
    regs_release(&d->regs);
    source_release(&d->src);
    pthread_mutex_destroy(&d->lock);
    weir_free(d);
}

/* ---- any thread ---- */

const struct weir_disc_snapshot *weir_discovery_snapshot(struct weir_discovery *d)
{
    pthread_mutex_lock(&d->lock);
    const struct weir_disc_snapshot *snap = weir_disc_snapshot_ref(d->newest); /* [V1] */
    pthread_mutex_unlock(&d->lock);
    return snap;
}

bool weir_discovery_connected(struct weir_discovery *d)
{
    return atomic_load_explicit(&d->is_connected, memory_order_relaxed);
}

static bool ignores_registrations(struct weir_discovery *d, const char *key)
{
    if (d->ops->takes_registrations)
        return false;
    if (!atomic_exchange(&d->has_warned, true))
        WEIR_INFO("registration_ignored", "key=%s why=a static file takes no registrations", key);
    return true;
}

weir_err weir_discovery_register(struct weir_discovery *d, const char *key, struct weir_str value)
{
    /* A key outside the prefix would never show in the view, and look as if somebody kept deleting it. */
    size_t n = strlen(d->prefix), len = strlen(key);
    if (len <= n || len > KEY_MAX || memcmp(key, d->prefix, n) != 0)
        return WEIR_INVALID;
    if (ignores_registrations(d, key))
        return WEIR_OK;
    weir_err rc = regs_set(&d->regs, key, value);
    if (rc == WEIR_OK)
        d->ops->wake(d->provider);
    return rc;
}

void weir_discovery_unregister(struct weir_discovery *d, const char *key)
{
    if (ignores_registrations(d, key))
        return;
    regs_remove(&d->regs, key);
    d->ops->wake(d->provider);
}

/* ---- blocking calls ---- */

weir_err weir_discovery_txn(const struct weir_discovery_opts *opts, const struct weir_disc_cond *conds,
                            int n_conds, const struct weir_disc_op *ops, int n_ops, struct weir_why *why)
{
    struct source src;
    weir_err rc = source_init(&src, opts->source, why);
    if (rc == WEIR_OK && src.file)
        rc = weir_fail(why, WEIR_UNIMPLEMENTED, "%s is a static file: edit it instead", src.file);
    if (rc == WEIR_OK)
        rc = etcd_call_txn(opts, &src, conds, n_conds, ops, n_ops, why);
    source_release(&src);
    return rc;
}

static bool is_outside(void *ctx, const struct weir_disc_entry *entry)
{
    size_t n = strlen(ctx);
    return entry->key.len < n || memcmp(entry->key.ptr, ctx, n) != 0;
}

static weir_err read_file(const struct weir_discovery_opts *opts, const char *path, const char *prefix,
                          const struct weir_disc_snapshot **ret, struct weir_why *why)
{
    const struct weir_disc_snapshot *all;
    char wanted[DISC_PREFIX_MAX + 1];
    if (strlen(prefix) > DISC_PREFIX_MAX)
        return weir_fail_param(why, "prefix", WEIR_INVALID, "prefix: more than %d characters",
                               DISC_PREFIX_MAX);
    memcpy(wanted, prefix, strlen(prefix) + 1);
    weir_err rc = disc_file_read(path, opts->prefix, /* revision= */ 1, /* old= */ NULL, &all, why);
    if (rc != WEIR_OK)
        return rc;
    rc = snapshot_filter(all, is_outside, wanted, ret, why);
    weir_disc_snapshot_unref(all);
    return rc;
}

weir_err weir_discovery_read(const struct weir_discovery_opts *opts, const char *prefix,
                             const struct weir_disc_snapshot **ret, struct weir_why *why)
{
    struct source src;
    weir_err rc = source_init(&src, opts->source, why);
    if (rc == WEIR_OK)
        rc = src.file ? read_file(opts, src.file, prefix, ret, why)
                      : etcd_call_read(opts, &src, prefix, ret, why);
    source_release(&src);
    return rc;
}

weir_err weir_discovery_get(const struct weir_discovery_opts *opts, struct weir_str key,
                            struct weir_buf *value, int64_t *ret_mod_revision, struct weir_why *why)
{
    struct source src;
    weir_err rc = source_init(&src, opts->source, why);
    if (rc == WEIR_OK && src.file)
        rc = weir_fail(why, WEIR_UNIMPLEMENTED, "%s is a static file: edit it instead", src.file);
    if (rc == WEIR_OK)
        rc = etcd_call_get(opts, &src, key, value, ret_mod_revision, why);
    source_release(&src);
    return rc;
}
