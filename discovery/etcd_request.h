/* etcd_request.h - the request bodies that we send to etcd's JSON gateway. No I/O. Private to discovery/.
 *
 * Keys and values are base64; 64-bit numbers are strings (lease ids pass 2^53). Each call replaces what `out`
 * holds; test out->failed once. */
#ifndef WEIR_DISCOVERY_ETCD_REQUEST_H
#define WEIR_DISCOVERY_ETCD_REQUEST_H

#include <stdint.h>

#include "discovery/discovery.h"

/* Keys from `first` (inclusive) to the end of the prefix, at most `limit`, as of `revision` (0: now). */
void etcd_request_range(struct weir_buf *out, struct weir_str first, struct weir_str prefix, int64_t revision,
                        int limit);
void etcd_request_get(struct weir_buf *out, struct weir_str key); /* this key alone */
/* No keys, only the header: a linearizable "are you there?". */
void etcd_request_ping(struct weir_buf *out, struct weir_str prefix);
void etcd_request_watch(struct weir_buf *out, struct weir_str prefix, int64_t start_revision);
void etcd_request_put(struct weir_buf *out, struct weir_str key, struct weir_str value, int64_t lease_id);
/* Delete the key if it is still under our lease: another process may have taken the name over. */
void etcd_request_delete_leased(struct weir_buf *out, struct weir_str key, int64_t lease_id);
void etcd_request_txn(struct weir_buf *out, const struct weir_disc_cond *conds, int n_conds,
                      const struct weir_disc_op *ops, int n_ops);
void etcd_request_grant(struct weir_buf *out, uint32_t ttl_s);
void etcd_request_lease(struct weir_buf *out, int64_t lease_id); /* keep-alive and revoke */
void etcd_request_auth(struct weir_buf *out, const char *user, const char *password);

#endif
