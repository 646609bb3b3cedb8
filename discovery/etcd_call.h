/* etcd_call.h - one request to etcd and its answer, blocking: for tools and tests. Private to discovery/. */
#ifndef WEIR_DISCOVERY_ETCD_CALL_H
#define WEIR_DISCOVERY_ETCD_CALL_H

#include "discovery/discovery.h"
#include "discovery/source.h"

/* The etcd halves of weir_discovery_txn and weir_discovery_read. */
WEIR_MUST_CHECK weir_err etcd_call_txn(const struct weir_discovery_opts *opts, const struct source *src,
                                       const struct weir_disc_cond *conds, int n_conds,
                                       const struct weir_disc_op *ops, int n_ops, struct weir_why *why);
WEIR_MUST_CHECK weir_err etcd_call_read(const struct weir_discovery_opts *opts, const struct source *src,
                                        const char *prefix, const struct weir_disc_snapshot **ret,
                                        struct weir_why *why);
WEIR_MUST_CHECK weir_err etcd_call_get(const struct weir_discovery_opts *opts, const struct source *src,
                                       struct weir_str key, struct weir_buf *value, int64_t *ret_mod_revision,
                                       struct weir_why *why);

#endif
