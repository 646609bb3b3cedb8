/* router_conf.h - every setting of weir-router, one row each. */
#ifndef WEIR_ROUTER_CONF_H
#define WEIR_ROUTER_CONF_H

#include "discovery/conf.h"

#define WEIR_ROUTER_CONF(X)                                                                                  \
    X(STR, id, "", 0, 64, "", "name of this router in the fleet; empty = made up")                           \
    X(STR, rest_listen, "127.0.0.1:8080", 1, 255, "host:port", "REST listener, the public one")              \
    X(STR, grpc_listen, "127.0.0.1:8180", 1, 255, "host:port", "gRPC listener for clients; private network") \
    X(STR, admin_listen, "127.0.0.1:8280", 1, 255, "host:port", "metrics, live page, debug; private")        \
    X(STR, admin_token, "", 0, 255, "",                                                                      \
      "who shows it may use the admin API; better given in the environment")                                 \
    X(STR, admin_tls_cert, "", 0, 1023, "PEM file", "certificate of the admin listener; empty = plaintext")  \
    X(STR, admin_tls_key, "", 0, 1023, "PEM file", "its key")                                                \
    X(STR, admin_tls_ca, "", 0, 1023, "PEM file",                                                            \
      "admin clients must show a certificate it signed; needs a cert")                                       \
    X(STR, mesh_listen, "127.0.0.1:0", 1, 255, "host:port", "for the other routers; private")                \
    X(STR, advertise_mesh, "", 0, 255, "host:port", "mesh address told to others; empty = as bound")         \
    X(U32, mesh_interval_ms, "200", 10, 10000, "ms", "between two rounds of telling the other routers")      \
    X(STR, mesh_tls_ca, "", 0, 1023, "PEM file", "who signs the routers' certificates; needs the next two")  \
    X(STR, mesh_tls_cert, "", 0, 1023, "PEM file", "our certificate for routers")                            \
    X(STR, mesh_tls_key, "", 0, 1023, "PEM file", "its key")                                                 \
    X(BOOL, limits, "true", 0, 0, "", "enforce accounts' limits")                                            \
    X(STR, limit_policy, "refuse", 6, 12, "refuse|deprioritize", "over a limit, where no record says")       \
    X(STR, limit_header_unit, "second", 6, 6, "second|minute", "unit of the x-ratelimit headers")            \
    X(BOOL, accounts_required, "false", 0, 0, "", "refuse API keys whose account has no record")             \
    X(STR, advertise_rest, "", 0, 255, "host:port", "REST address told to others; empty = as bound")         \
    X(STR, advertise_grpc, "", 0, 255, "host:port", "gRPC address told to others; empty = as bound")         \
    X(STR, advertise_admin, "", 0, 255, "host:port", "admin address told to others; empty = as bound")       \
    WEIR_DISCOVERY_CONF(X)                                                                                   \
    X(U32, io_threads, "0", 0, 64, "threads", "epoll loops; 0 = one a core, at most 8")                      \
    X(U32, cq_threads, "2", 1, 16, "threads", "gRPC completion queues")                                      \
    X(U32, connections_max, "20000", 1, 1000000, "", "REST connections at once")                             \
    X(U32, body_bytes_max, "16777216", 1024, 1073741824, "bytes", "a request's body")                        \
    X(U32, output_bytes_max, "1048576", 4096, 1073741824, "bytes", "a stream's unread output, then cancel")  \
    X(U32, head_timeout_ms, "10000", 10, 600000, "ms", "for a request's head to arrive")                     \
    X(U32, body_timeout_ms, "30000", 10, 600000, "ms", "for its body, beyond 16 KiB a second")               \
    X(U32, idle_timeout_ms, "75000", 10, 3600000, "ms", "for a connection between requests")                 \
    X(U32, stall_timeout_ms, "30000", 10, 600000, "ms", "for a client that does not read")                   \
    X(U32, calls_max, "65536", 1, 1000000, "", "calls at once, in each loop")                                \
    X(U32, first_token_timeout_ms, "300000", 0, 3600000, "ms", "from a call's start to its first token")     \
    X(U32, drain_timeout_ms, "30000", 0, 3600000, "ms", "for open calls on SIGTERM")                         \
    X(STR, rest_tls_cert, "", 0, 1023, "PEM file", "certificate of the REST listener; empty = plaintext")    \
    X(STR, rest_tls_key, "", 0, 1023, "PEM file", "its key")                                                 \
    X(STR, grpc_tls_cert, "", 0, 1023, "PEM file", "certificate of the gRPC listener; empty = plaintext")    \
    X(STR, grpc_tls_key, "", 0, 1023, "PEM file", "its key")                                                 \
    X(STR, grpc_tls_ca, "", 0, 1023, "PEM file", "clients must show a certificate signed by it")             \
    X(STR, fabric_tls_ca, "", 0, 1023, "PEM file",                                                           \
      "who signs the replicas' certificates; empty = plaintext")                                             \
    X(STR, fabric_tls_cert, "", 0, 1023, "PEM file", "our certificate for replicas")                         \
    X(STR, fabric_tls_key, "", 0, 1023, "PEM file", "its key")                                               \
    X(STR, perf_header_prefix, "fireworks-", 0, 32, "",                                                      \
      "before prompt-tokens and other performance headers")                                                  \
    X(STR, log_level, "info", 0, 8, "debug|info|warn|error", "what is logged")                               \
    X(STR, log_format, "auto", 0, 8, "auto|json|human", "auto = human on a terminal")

struct weir_router_conf {
    WEIR_CONF_FIELDS(WEIR_ROUTER_CONF)
};

#endif
