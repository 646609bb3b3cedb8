/* fleet.h - every replica of the view, attached: discovery's records in, a routing table out.
 *
 * One thread (role FLEET) opens, watches and closes attachments (attach.h): it connects again after 100 ms to
 * 2 s while a replica is in the view, ejects one that speaks another version, and cuts one that has been
 * silent for too long. Loops read an immutable, counted table (table.h), which changes only when the view
 * does; whether a member is usable right now is an atomic in its load view. [F1] A replica whose stream
 * breaks leaves the rotation at once, and every call on it hears so on its own loop. [F2] A replica that is
 * gone from the view while its stream lives stays in the table until the stream ends or it says drain: etcd
 * may be wrong about life, a stream is not. [F3] A record whose address or incarnation changed is another
 * replica: the old attachment takes no new calls and ends with its last one.
 *
 * Order of closing: stop the loops; weir_callset_close each; weir_fleet_close; weir_rpc_close;
 * weir_loop_close. Any thread may call what is below unless it says otherwise. */
#ifndef WEIR_ROUTER_FABRIC_FLEET_H
#define WEIR_ROUTER_FABRIC_FLEET_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "discovery/discovery.h"
#include "proto/rpc.h"

#define WEIR_FLEET_REPLICAS_MAX 4096
#define WEIR_FLEET_ID_MAX 256 /* bytes of a replica's id, a model's id, an address */

struct weir_fleet;

struct weir_fleet_opts {
    struct weir_rpc *rpc;
    const char *router;      /* our id, for the hello; copied */
    uint64_t incarnation;    /* of this process */
    const char *prefix;      /* of discovery's keys; NULL = "/weir/"; copied */
    struct weir_rpc_tls tls; /* the strings are borrowed until closed */
    /* 0 = the default in brackets. */
    uint32_t hello_timeout_ms;  /* [5,000] */
    uint32_t backoff_min_ms;    /* [100] */
    uint32_t backoff_max_ms;    /* [2,000] */
    uint32_t silent_cut_ms;     /* [10,000] no frame at all: the attachment is cut */
    uint32_t outbox_bytes_max;  /* [16 MiB] unsent, per attachment */
    uint32_t inbox_bytes_max;   /* [32 MiB] received and not yet walked by the loops, per attachment */
    uint32_t message_bytes_max; /* [4 MiB] one frame */
};
WEIR_MUST_CHECK weir_err weir_fleet_open(const struct weir_fleet_opts *opts, struct weir_fleet **ret,
                                         struct weir_why *why);
/* Cancels every stream, waits for their ends, joins the thread. Not from a CQ thread. Takes NULL. */
void weir_fleet_close(struct weir_fleet *fleet);

/* For weir_discovery_opts.on_snapshot with ctx = the fleet. Records that don't parse are skipped, counted and
 * logged. */
void weir_fleet_on_snapshot(void *fleet, const struct weir_disc_snapshot *snap);
/* The view given as records (tests, the bench); copied. WEIR_FULL: more than the bound (the first ones are
 * taken). WEIR_NOMEM: the view stays as it was. */
WEIR_MUST_CHECK weir_err weir_fleet_set_view(struct weir_fleet *fleet,
                                             const struct weir_replica_record *records, size_t n);

/* The models of the view, sorted, for /v1/models. */
struct weir_fleet_model {
    struct weir_str id;  /* NUL-terminated too; valid during the call */
    uint32_t n_replicas; /* in the view */
    uint32_t n_usable;   /* of these, attached and taking calls */
    uint64_t created_s;  /* the earliest start */
};
void weir_fleet_models(struct weir_fleet *fleet,
                       void (*each)(void *ctx, const struct weir_fleet_model *model), void *ctx);
/* false: no such model in the view. */
bool weir_fleet_model(struct weir_fleet *fleet, struct weir_str id, struct weir_fleet_model *ret);
/* Replicas that take calls now, over all models: for readiness. */
uint32_t weir_fleet_n_usable(struct weir_fleet *fleet);

/* For the admin page: {"replicas":[{"id","model","grpc","admin","state":"usable|draining|connecting|ejected",
 * "running","waiting","slots","queued_tokens","decode_tokens_s","prefill_tokens_s","predicted_wait_ms",
 * "kv_blocks_used","kv_blocks","in_flight"}]}. A silent one shows as ejected. */
void weir_fleet_describe(struct weir_fleet *fleet, struct weir_buf *json);

/* The next number of a call: rises by one, shared by all loops. With the incarnation it names a call. */
uint64_t weir_fleet_next_sequence(struct weir_fleet *fleet);
uint64_t weir_fleet_incarnation(const struct weir_fleet *fleet);

#endif
