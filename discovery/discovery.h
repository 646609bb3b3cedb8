/* discovery.h - the fleet as a snapshot: who serves what, which keys are good; from etcd or from a file.
 *
 * Both providers give the same thing: an immutable, reference-counted snapshot of all keys under a prefix,
 * replaced whole at each change, plus (etcd only) leased registrations and transactions. One thread (role
 * disc) does all I/O. A provider that loses its source keeps the last good snapshot for as long as it takes;
 * when the source returns the view is reconciled (additions appear before removals), never rebuilt from
 * empty. */
#ifndef WEIR_DISCOVERY_DISCOVERY_H
#define WEIR_DISCOVERY_DISCOVERY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

struct weir_discovery;

/* One key. `value` is the raw bytes (JSON by convention). Sorted by key within a snapshot. */
struct weir_disc_entry {
    struct weir_str key, value;
    /* Of the last change; rises with every change of this key, also when etcd was replaced by one whose
     * numbers are lower: an offset is added then. So compare revisions of one snapshot with another's, but
     * take the conditions of a txn from weir_discovery_read, which gives etcd's own. Static file: which
     * reading of the file. */
    int64_t revision;
};
struct weir_disc_snapshot {
    uint64_t version; /* rises with every snapshot of this process */
    int64_t revision; /* etcd's; 0 for a file */
    const struct weir_disc_entry *entries;
    int n_entries;
};
/* The newest snapshot with a reference for the caller; NULL before the first. Any thread, no lock held long
 */
const struct weir_disc_snapshot *weir_discovery_snapshot(struct weir_discovery *d);
const struct weir_disc_snapshot *weir_disc_snapshot_ref(const struct weir_disc_snapshot *snap);
void weir_disc_snapshot_unref(const struct weir_disc_snapshot *snap);
/* Binary search; NULL when absent. And the range of keys that start with a prefix: returns how many, first in
 * *ret. */
const struct weir_disc_entry *weir_disc_find(const struct weir_disc_snapshot *snap, struct weir_str key);
int weir_disc_prefix(const struct weir_disc_snapshot *snap, const char *prefix,
                     const struct weir_disc_entry **ret);

struct weir_discovery_opts {
    const char *source; /* "etcd://host:port,host:port" , "etcds://..." (TLS) or "file:PATH" */
    const char *prefix; /* "/weir/" */
    const char *ca_file, *cert_file, *key_file; /* TLS; may be NULL */
    const char *user, *password;                /* etcd auth; may be NULL */
    uint32_t lease_ttl_s;                       /* 0 = 10 */
    /* On the discovery thread after each new snapshot; keep it short. May be NULL. */
    void (*on_snapshot)(void *ctx, const struct weir_disc_snapshot *snap);
    void *ctx;
};
/* Starts the thread; returns at once. The first snapshot comes when the source answers. WEIR_INVALID: bad
 * source. */
WEIR_MUST_CHECK weir_err weir_discovery_open(const struct weir_discovery_opts *opts,
                                             struct weir_discovery **ret, struct weir_why *why);
void weir_discovery_close(struct weir_discovery *d); /* revokes the lease, so that we leave at once */

/* Keep `key` = `value` alive under a lease of ours, put again whenever the lease was lost; calling it again
 * changes the value. Any thread. A static file takes no registrations: they are ignored with one log line.
 * WEIR_INVALID: the key is not below the prefix. WEIR_TOOLARGE: over 64 KiB. WEIR_FULL: over 64 keys. */
WEIR_MUST_CHECK weir_err weir_discovery_register(struct weir_discovery *d, const char *key,
                                                 struct weir_str value);
void weir_discovery_unregister(struct weir_discovery *d, const char *key); /* deletes the key soon */
bool weir_discovery_connected(struct weir_discovery *d);                   /* is the source answering? */

/* ---- blocking calls, for threads that may wait; they use a connection of their own ---- */
struct weir_disc_op {
    enum { WEIR_DISC_PUT, WEIR_DISC_DELETE } kind;
    struct weir_str key, value;
};
struct weir_disc_cond {
    struct weir_str key;
    int64_t mod_revision; /* 0: the key must not exist */
};
/* All conditions hold -> all operations, atomically. WEIR_CONFLICT: a condition failed. WEIR_UNAVAILABLE: no
 * etcd. */
WEIR_MUST_CHECK weir_err weir_discovery_txn(const struct weir_discovery_opts *opts,
                                            const struct weir_disc_cond *conds, int n_conds,
                                            const struct weir_disc_op *ops, int n_ops, struct weir_why *why);
/* One consistent read of a prefix as a snapshot (unref it). */
WEIR_MUST_CHECK weir_err weir_discovery_read(const struct weir_discovery_opts *opts, const char *prefix,
                                             const struct weir_disc_snapshot **ret, struct weir_why *why);

/* One key's value, appended to `value`, and what a condition on it has to say. WEIR_NOTFOUND: it does not exist. */
WEIR_MUST_CHECK weir_err weir_discovery_get(const struct weir_discovery_opts *opts, struct weir_str key,
                                            struct weir_buf *value, int64_t *ret_mod_revision,
                                            struct weir_why *why);

/* ---- the records under the prefix, as JSON values ----
 * <prefix>replicas/<model>/<id>
 * {"id","model","grpc":"host:port","admin":"host:port","incarnation":"hex","started":s} <prefix>routers/<id>
 * {"id","rest","grpc","admin","mesh","incarnation","started"} <prefix>keys/<sha256 hex>
 * {"account":"demo","name":"..."} <prefix>models/<model>         {"id":...} */
struct weir_replica_record {
    struct weir_str id, model, grpc, admin;
    uint64_t incarnation;
    uint64_t started_s;
};
struct weir_router_record {
    struct weir_str id, rest, grpc, admin, mesh;
    uint64_t incarnation;
    uint64_t started_s;
};
struct weir_arena;
/* Strings point into the value or the arena. WEIR_INVALID names the field; it is counted here
 * (weir_discovery_bad_records_total) and the caller skips the record. */
WEIR_MUST_CHECK weir_err weir_replica_record_parse(struct weir_str json, struct weir_arena *arena,
                                                   struct weir_replica_record *ret, struct weir_why *why);
WEIR_MUST_CHECK weir_err weir_router_record_parse(struct weir_str json, struct weir_arena *arena,
                                                  struct weir_router_record *ret, struct weir_why *why);
void weir_replica_record_write(struct weir_buf *out, const struct weir_replica_record *rec);
void weir_router_record_write(struct weir_buf *out, const struct weir_router_record *rec);

#endif
