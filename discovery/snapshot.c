/* snapshot.c - the fleet at one moment: a sorted array of shared records, immutable once it is handed out.
 *
 * A sorted array, not a tree: readers search it without a lock or a pointer chase, and the next one is a
 * merge. 100,000 entries cost 4 MB and about 2 ms a snapshot; bursts are coalesced before they get here.
 *
 *   [S1] Keys rise strictly: sorted, none twice.
 *   [S2] A snapshot never changes after it was shown, and its bytes live as long as it does.
 *   [S3] Versions rise over all snapshots of the process, in the order in which they are shown.
 *
 * Threads: building is one thread's business; counts are atomic (release on the drop, acquire before the
 * free). */
#include "discovery/snapshot.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

struct record { /* key bytes, then value bytes; found again from entry.key.ptr */
    atomic_uint n_refs;
    char bytes[];
};

struct snapshot {
    struct weir_disc_snapshot pub; /* first: the public pointer is ours */
    atomic_uint n_refs;
    struct weir_disc_entry entries[];
};

static _Atomic uint64_t version_last;

static struct record *record_of(const struct weir_disc_entry *entry)
{
    return (struct record *)(uintptr_t)(entry->key.ptr - offsetof(struct record, bytes));
}

static void record_unref(struct record *rec)
{
    if (atomic_fetch_sub_explicit(&rec->n_refs, 1, memory_order_acq_rel) == 1)
        weir_free(rec);
}

void snapshot_stamp(const struct weir_disc_snapshot *snap)
{
    struct snapshot *s = (struct snapshot *)(uintptr_t)snap;
    s->pub.version = atomic_fetch_add_explicit(&version_last, 1, memory_order_relaxed) + 1; /* [S3] */
}

/* ---- a snapshot in the making: private, so plain writes do ---- */

static weir_err draft_open(size_t n_max, int64_t revision, struct snapshot **ret, struct weir_why *why)
{
    struct snapshot *s = weir_alloc(sizeof *s + n_max * sizeof s->entries[0]);
    if (!s)
        return weir_fail(why, WEIR_NOMEM, "snapshot: no memory for %zu entries", n_max);
    s->pub = (struct weir_disc_snapshot){ .revision = revision, .entries = s->entries };
    atomic_init(&s->n_refs, 1);
    *ret = s;
    return WEIR_OK;
}

static void draft_share(struct snapshot *s, const struct weir_disc_entry *entry)
{
    atomic_fetch_add_explicit(&record_of(entry)->n_refs, 1, memory_order_relaxed);
    s->entries[s->pub.n_entries++] = *entry;
}

static weir_err draft_copy(struct snapshot *s, const struct snapshot_change *put, struct weir_why *why)
{
    struct record *rec = weir_alloc(sizeof *rec + put->key.len + put->value.len + 1);
    if (!rec)
        return weir_fail(why, WEIR_NOMEM, "snapshot: no memory for an entry of %zu bytes", put->value.len);
    atomic_init(&rec->n_refs, 1);
    if (put->key.len)
        memcpy(rec->bytes, put->key.ptr, put->key.len);
    if (put->value.len)
        memcpy(rec->bytes + put->key.len, put->value.ptr, put->value.len);
    rec->bytes[put->key.len + put->value.len] = '\0';
    s->entries[s->pub.n_entries++] = (struct weir_disc_entry){
        .key = { rec->bytes, put->key.len },
        .value = { rec->bytes + put->key.len, put->value.len },
        .revision = put->revision,
    };
    return WEIR_OK;
}

static weir_err draft_finish(struct snapshot *s, weir_err rc, const struct weir_disc_snapshot **ret,
                             struct weir_why *why)
{
    if (rc == WEIR_OK && s->pub.n_entries > SNAPSHOT_ENTRIES_MAX)
        rc = weir_fail(why, WEIR_FULL, "snapshot: %d entries; at most %d are taken", s->pub.n_entries,
                       SNAPSHOT_ENTRIES_MAX);
    if (rc != WEIR_OK) {
        weir_disc_snapshot_unref(&s->pub);
        return rc;
    }
    for (int i = 1; i < s->pub.n_entries; i++)
        WEIR_DCHECK(weir_str_cmp(s->entries[i - 1].key, s->entries[i].key) < 0); /* [S1] */
    snapshot_stamp(&s->pub);
    *ret = &s->pub;
    return WEIR_OK;
}

/* ---- from changes ---- */

static int change_ptr_cmp(const void *va, const void *vb)
{
    const struct snapshot_change *a = *(const struct snapshot_change *const *)va;
    const struct snapshot_change *b = *(const struct snapshot_change *const *)vb;
    int order = weir_str_cmp(a->key, b->key);
    return order ? order : (a > b) - (a < b); /* one array, so addresses are the order of time */
}

/* Pointers to the changes in key order, only the last of each key. */
static weir_err sort_changes(const struct snapshot_change *changes, int n,
                             const struct snapshot_change ***ret, int *ret_n, struct weir_why *why)
{
    const struct snapshot_change **sorted = weir_calloc((size_t)n + 1, sizeof *sorted);
    if (!sorted)
        return weir_fail(why, WEIR_NOMEM, "snapshot: no memory for %d changes", n);
    for (int i = 0; i < n; i++)
        sorted[i] = &changes[i];
    qsort(sorted, (size_t)n, sizeof *sorted, change_ptr_cmp);
    int kept = 0;
    for (int i = 0; i < n; i++)
        if (i + 1 == n || weir_str_cmp(sorted[i]->key, sorted[i + 1]->key) != 0)
            sorted[kept++] = sorted[i];
    *ret = sorted;
    *ret_n = kept;
    return WEIR_OK;
}

weir_err snapshot_apply(const struct weir_disc_snapshot *base, const struct snapshot_change *changes,
                        int n_changes, int64_t revision, const struct weir_disc_snapshot **ret,
                        struct weir_why *why)
{
    const struct snapshot_change **sorted;
    struct snapshot *s;
    int n_base = base ? base->n_entries : 0, n_sorted, i = 0, k = 0;
    weir_err rc = sort_changes(changes, n_changes, &sorted, &n_sorted, why);
    if (rc != WEIR_OK)
        return rc;
    rc = draft_open((size_t)n_base + (size_t)n_sorted, revision, &s, why);
    if (rc != WEIR_OK) {
        weir_free(sorted);
        return rc;
    }
    while (rc == WEIR_OK && (i < n_base || k < n_sorted)) {
        int order = i == n_base ? 1 : k == n_sorted ? -1 : weir_str_cmp(base->entries[i].key, sorted[k]->key);
        if (order < 0) {
            draft_share(s, &base->entries[i++]);
            continue;
        }
        i += order == 0;
        if (!sorted[k]->is_delete)
            rc = draft_copy(s, sorted[k], why);
        k++;
    }
    weir_free(sorted);
    return draft_finish(s, rc, ret, why);
}

weir_err snapshot_build(const struct weir_disc_snapshot *old, const struct snapshot_change *puts, int n_puts,
                        int64_t revision, const struct weir_disc_snapshot **ret, struct weir_why *why)
{
    const struct snapshot_change **sorted;
    struct snapshot *s;
    int n_sorted;
    weir_err rc = sort_changes(puts, n_puts, &sorted, &n_sorted, why);
    if (rc != WEIR_OK)
        return rc;
    rc = draft_open((size_t)n_sorted, revision, &s, why);
    if (rc != WEIR_OK) {
        weir_free(sorted);
        return rc;
    }
    for (int k = 0; k < n_sorted && rc == WEIR_OK; k++) {
        const struct weir_disc_entry *had = weir_disc_find(old, sorted[k]->key);
        if (had && weir_str_cmp(had->value, sorted[k]->value) == 0)
            draft_share(s, had);
        else
            rc = draft_copy(s, sorted[k], why);
    }
    weir_free(sorted);
    return draft_finish(s, rc, ret, why);
}

/* ---- from snapshots ---- */

weir_err snapshot_union(const struct weir_disc_snapshot *under, const struct weir_disc_snapshot *over,
                        const struct weir_disc_snapshot **ret, struct weir_why *why)
{
    struct snapshot *s;
    int i = 0, k = 0;
    weir_err rc = draft_open((size_t)under->n_entries + (size_t)over->n_entries, over->revision, &s, why);
    if (rc != WEIR_OK)
        return rc;
    while (i < under->n_entries || k < over->n_entries) {
        int order = i == under->n_entries  ? 1
                    : k == over->n_entries ? -1
                                           : weir_str_cmp(under->entries[i].key, over->entries[k].key);
        if (order < 0) {
            draft_share(s, &under->entries[i++]);
        } else {
            i += order == 0;
            draft_share(s, &over->entries[k++]);
        }
    }
    return draft_finish(s, WEIR_OK, ret, why);
}

weir_err snapshot_filter(const struct weir_disc_snapshot *snap,
                         bool (*drop)(void *ctx, const struct weir_disc_entry *entry), void *ctx,
                         const struct weir_disc_snapshot **ret, struct weir_why *why)
{
    struct snapshot *s;
    weir_err rc = draft_open((size_t)snap->n_entries, snap->revision, &s, why);
    if (rc != WEIR_OK)
        return rc;
    for (int i = 0; i < snap->n_entries; i++)
        if (!drop(ctx, &snap->entries[i]))
            draft_share(s, &snap->entries[i]);
    return draft_finish(s, WEIR_OK, ret, why);
}

bool snapshot_same(const struct weir_disc_snapshot *a, const struct weir_disc_snapshot *b)
{
    if (a->n_entries != b->n_entries)
        return false;
    for (int i = 0; i < a->n_entries; i++)
        if (a->entries[i].key.ptr != b->entries[i].key.ptr)
            return false;
    return true;
}

/* ---- holding and searching: the public part ---- */

const struct weir_disc_snapshot *weir_disc_snapshot_ref(const struct weir_disc_snapshot *snap)
{
    if (snap)
        atomic_fetch_add_explicit(&((struct snapshot *)(uintptr_t)snap)->n_refs, 1, memory_order_relaxed);
    return snap;
}

void weir_disc_snapshot_unref(const struct weir_disc_snapshot *snap)
{
    struct snapshot *s = (struct snapshot *)(uintptr_t)snap;

    /* acq_rel: what other threads read through their references happened before the free. */
    if (!s || atomic_fetch_sub_explicit(&s->n_refs, 1, memory_order_acq_rel) != 1)
        return;
    for (int i = 0; i < s->pub.n_entries; i++)
        record_unref(record_of(&s->entries[i]));
    weir_free(s);
}

/* The first entry whose key is not below `key`. */
static int lower_bound(const struct weir_disc_snapshot *snap, struct weir_str key)
{
    int low = 0, high = snap->n_entries;
    while (low < high) {
        int mid = low + (high - low) / 2;
        if (weir_str_cmp(snap->entries[mid].key, key) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

const struct weir_disc_entry *weir_disc_find(const struct weir_disc_snapshot *snap, struct weir_str key)
{
    if (!snap)
        return NULL;
    int i = lower_bound(snap, key);
    bool hit = i < snap->n_entries && weir_str_cmp(snap->entries[i].key, key) == 0;
    return hit ? &snap->entries[i] : NULL;
}

static bool has_prefix(struct weir_str key, struct weir_str prefix)
{
    return key.len >= prefix.len && (prefix.len == 0 || memcmp(key.ptr, prefix.ptr, prefix.len) == 0);
}

int weir_disc_prefix(const struct weir_disc_snapshot *snap, const char *prefix,
                     const struct weir_disc_entry **ret)
{
    struct weir_str want = weir_str(prefix);
    if (!snap)
        return 0;
    int first = lower_bound(snap, want);
    /* Keys with the prefix lie together, so the end is found by halving as well. */
    int low = first, high = snap->n_entries;
    while (low < high) {
        int mid = low + (high - low) / 2;
        if (has_prefix(snap->entries[mid].key, want))
            low = mid + 1;
        else
            high = mid;
    }
    *ret = snap->entries + first;
    return low - first;
}
