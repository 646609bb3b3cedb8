/* snapshot.h - how the next immutable snapshot is made from the one before. Private to discovery/.
 *
 * Each entry's bytes are one reference-counted record that snapshots share, so the next snapshot of n entries
 * costs an array of n and n counts, not n copies. Any thread may hold, read and drop snapshots; making one
 * touches nothing shared but the counts. */
#ifndef WEIR_DISCOVERY_SNAPSHOT_H
#define WEIR_DISCOVERY_SNAPSHOT_H

#include "discovery/discovery.h"

/* Most entries of a snapshot: far beyond a fleet (a key and a replica each are one), it stops a runaway
 * writer. */
#define SNAPSHOT_ENTRIES_MAX (1 << 20)

struct snapshot_change {
    struct weir_str key, value; /* borrowed for the call */
    int64_t revision;
    bool is_delete;
};

/* `base` with the changes applied in their order: of two changes of one key the later wins. base NULL: empty.
 * WEIR_NOMEM; WEIR_FULL: more than SNAPSHOT_ENTRIES_MAX entries. */
WEIR_MUST_CHECK weir_err snapshot_apply(const struct weir_disc_snapshot *base,
                                        const struct snapshot_change *changes, int n_changes,
                                        int64_t revision, const struct weir_disc_snapshot **ret,
                                        struct weir_why *why);
/* The puts alone as a snapshot. An entry that `old` (may be NULL) has with the same value stays the entry of
 * `old`, revision included: it did not change. */
WEIR_MUST_CHECK weir_err snapshot_build(const struct weir_disc_snapshot *old,
                                        const struct snapshot_change *puts, int n_puts, int64_t revision,
                                        const struct weir_disc_snapshot **ret, struct weir_why *why);
/* Everything of both; where both have a key, `over` wins. The revision is that of `over`. */
WEIR_MUST_CHECK weir_err snapshot_union(const struct weir_disc_snapshot *under,
                                        const struct weir_disc_snapshot *over,
                                        const struct weir_disc_snapshot **ret, struct weir_why *why);
/* `snap` without the entries for which drop() says so. */
WEIR_MUST_CHECK weir_err snapshot_filter(const struct weir_disc_snapshot *snap,
                                         bool (*drop)(void *ctx, const struct weir_disc_entry *entry),
                                         void *ctx, const struct weir_disc_snapshot **ret,
                                         struct weir_why *why);
/* The same entries, byte for byte shared? (what snapshot_build keeps is shared) */
bool snapshot_same(const struct weir_disc_snapshot *a, const struct weir_disc_snapshot *b);
/* A version after all that were given so far; before it is shown to anybody: snapshots are made in another
 * order than they are shown. */
void snapshot_stamp(const struct weir_disc_snapshot *snap);

#endif
