/* etcd_show.c - what readers get to see: [D3] additions before removals, [D4] what another history lacks.
 *
 * `truth` is what etcd has, `shown` what was published. They differ only while entries of another history are
 * held. */
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "discovery/etcd_int.h"

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

void etcd_show_drop_held(etcd *e)
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
    if (!e->is_holding || e->range_is_other_history) { /* each loss gives the owners their time */
        e->hold_until_ns = e->now_ns + 2 * e->ttl_s * WEIR_S;
        WEIR_WARN("etcd_other_history", "kept=%d for_s=%u why=etcd lacks entries that we know", n_held,
                  2 * e->ttl_s);
    }
    e->is_holding = true;
}

weir_err etcd_show_range(etcd *e, struct weir_why *why)
{
    const struct weir_disc_snapshot *fresh = e->range_view, *both = NULL;
    weir_err rc = WEIR_OK;
    e->range_view = NULL;
    snapshot_stamp(fresh); /* it was made before others that have been shown since */
    if (e->shown)
        rc = snapshot_union(e->shown, fresh, &both, why);
    if (rc != WEIR_OK) {
        weir_disc_snapshot_unref(fresh);
        return rc;
    }
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
    etcd_show_drop_held(e);
    return WEIR_OK;
}

weir_err etcd_show_events(etcd *e, const struct snapshot_change *changes, int n, int64_t revision,
                          struct weir_why *why)
{
    const struct weir_disc_snapshot *truth, *shown = NULL;
    weir_err rc = snapshot_apply(e->truth, changes, n, revision, &truth, why);
    if (rc != WEIR_OK)
        return rc;
    if (e->is_holding)
        rc = snapshot_apply(e->shown, changes, n, revision, &shown, why);
    if (rc != WEIR_OK) {
        weir_disc_snapshot_unref(truth);
        return rc;
    }
    replace(&e->truth, truth);
    show(e, shown ? shown : truth);
    weir_disc_snapshot_unref(shown);
    etcd_show_drop_held(e);
    return WEIR_OK;
}
