/* replica_conf.h - every setting of weir-replica, one row each. */
#ifndef WEIR_REPLICA_CONF_H
#define WEIR_REPLICA_CONF_H

#include "discovery/conf.h"

#define WEIR_REPLICA_CONF(X)                                                                                 \
    X(STR, id, "", 0, 64, "", "name of this replica in the fleet; empty = made up")                          \
    X(STR, model_dir, "", 0, 1023, "folder", "Hugging Face model folder; needed")                            \
    X(STR, model_name, "", 0, 200, "", "what clients call the model; empty = the folder's name")             \
    X(U32, tensor_parallel, "1", 1, 64, "ranks", "how many ways the model is split")                         \
    X(STR, backend, "auto", 0, 8, "auto|cpu|cuda", "what computes; auto: a GPU where there is one")          \
    X(STR, weights, "native", 0, 8, "native|q8|q4|fp8", "how weights are kept")                              \
    X(STR, kv_type, "bf16", 0, 8, "bf16|f32",                                                                \
      "of keys and values; bf16: twice the tokens in the same memory")                                       \
    X(STR, activations, "fast", 0, 8, "fast|exact",                                                          \
      "on a CPU; fast: rounded to what it multiplies best with the weights")                                 \
    X(BOOL, deterministic, "false", 0, 0, "",                                                                \
      "on one GPU: no token differs with its company, at a price for prompts; on a CPU none ever does")      \
    X(U32, threads, "0", 0, 1024, "threads", "of the CPU back end; 0 = one a core")                          \
    X(U32, slots, "64", 1, 4096, "", "sequences at once")                                                    \
    X(U32, queue_max, "256", 1, 65536, "", "requests waiting; more are rejected at once")                    \
    X(U32, queue_ms_max, "30000", 0, 3600000, "ms",                                                          \
      "of computing the prompts that wait; 0 = no bound in time")                                            \
    X(U32, starve_ms, "10000", 1, 3600000, "ms", "who waits longer goes before every class")                 \
    X(U32, cache_share_pct, "50", 1, 100, "%", "of KV: who has more gives up his own cached pages first")    \
    X(U64, kv_bytes, "0", 0, 0, "bytes", "KV pool; 0 = room for every slot's whole context, at most 1 GiB")  \
    X(U32, step_tokens, "256", 16, 65536, "tokens", "budget of one engine step")                             \
    X(U32, step_ms_max, "100", 0, 60000, "ms",                                                               \
      "of a step in which somebody decodes: prompts wait for the next; 0 = no bound")                        \
    X(U32, text_workers, "1", 1, 64, "threads", "templates and tokenizing")                                  \
    X(STR, tool_format, "auto", 0, 16, "",                                                                   \
      "how the model writes calls: none|llama3|hermes|mistral|deepseek")                                     \
    X(STR, grpc_listen, "127.0.0.1:8380", 1, 255, "host:port", "where routers attach; private network")      \
    X(STR, admin_listen, "127.0.0.1:8480", 1, 255, "host:port", "metrics and debug; private")                \
    X(STR, advertise_grpc, "", 0, 255, "host:port", "gRPC address told to routers; empty = as bound")        \
    X(STR, advertise_admin, "", 0, 255, "host:port", "admin address told to others; empty = as bound")       \
    WEIR_DISCOVERY_CONF(X)                                                                                   \
    X(U32, request_bytes_max, "16777216", 1024, 268435456, "bytes", "one encoded request")                   \
    X(U32, receiving_bytes_max, "67108864", 1024, 1073741824, "bytes", "arriving requests, per router")      \
    X(U32, outbox_bytes_max, "3145728", 65536, 3670016, "bytes", "output a router has not taken, then cut")  \
    X(U32, cq_threads, "1", 1, 16, "threads", "gRPC completion queues")                                      \
    X(U32, drain_timeout_ms, "30000", 0, 3600000, "ms", "for running requests on SIGTERM")                   \
    X(STR, tls_ca, "", 0, 1023, "PEM file", "routers must show a certificate signed by it")                  \
    X(STR, tls_cert, "", 0, 1023, "PEM file", "our certificate for routers; empty = plaintext")              \
    X(STR, tls_key, "", 0, 1023, "PEM file", "its key")                                                      \
    X(STR, log_level, "info", 0, 8, "debug|info|warn|error", "what is logged")                               \
    X(STR, log_format, "auto", 0, 8, "auto|json|human", "auto = human on a terminal")

struct weir_replica_conf {
    WEIR_CONF_FIELDS(WEIR_REPLICA_CONF)
};

#endif
