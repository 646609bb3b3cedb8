/* conf.h - the settings that every program with discovery has: rows for its table, and what they mean. */
#ifndef WEIR_DISCOVERY_CONF_H
#define WEIR_DISCOVERY_CONF_H

#include "base/conf.h"
#include "discovery/discovery.h"

#define WEIR_DISCOVERY_CONF(X)                                                                               \
    X(STR, discovery, "etcd://127.0.0.1:2379", 1, 1023, "URL", "etcd://h:p,h:p, etcds://... or file:PATH")   \
    X(STR, discovery_prefix, "/weir/", 2, 128, "", "keys of this fleet start with it")                       \
    X(STR, discovery_ca, "", 0, 1023, "PEM file", "who signs etcd's certificate")                            \
    X(STR, discovery_cert, "", 0, 1023, "PEM file", "our certificate for etcd")                              \
    X(STR, discovery_key, "", 0, 1023, "PEM file", "its key")                                                \
    X(STR, discovery_user, "", 0, 255, "", "etcd user")                                                      \
    X(STR, discovery_password, "", 0, 255, "", "its password; better given in the environment")              \
    X(U32, lease_ttl_s, "10", 1, 600, "s", "our registration outlives us by at most this")

/* Initialiser of a struct weir_discovery_opts from a program's settings `c`; empty text means absent. */
#define WEIR_DISCOVERY_OPTS(c, snapshot_hook, hook_ctx)                                                      \
    {                                                                                                        \
        .source = (c)->discovery, .prefix = (c)->discovery_prefix,                                           \
        .ca_file = weir_conf_given((c)->discovery_ca), .cert_file = weir_conf_given((c)->discovery_cert),    \
        .key_file = weir_conf_given((c)->discovery_key), .user = weir_conf_given((c)->discovery_user),       \
        .password = weir_conf_given((c)->discovery_password), .lease_ttl_s = (c)->lease_ttl_s,               \
        .on_snapshot = (snapshot_hook), .ctx = (hook_ctx),                                                   \
    }

#endif
