/* rest.h - a crowd of HTTP/1.1 connections on one loop: requests in, times and counts out.
 *
 * Closed loop: each connection asks again as soon as it was answered. Open loop: requests are due at fixed times, and a
 * request's latency counts from when it was due, so that a slow server cannot hide behind a waiting client. */
#ifndef WEIR_BENCH_REST_H
#define WEIR_BENCH_REST_H

#include "base/err.h"
#include "bench/hist.h"
#include "http/loop.h"

struct rest_opts {
    const char *target; /* host:port */
    const char *path, *api_key, *model;
    uint32_t n_connections;
    double rate; /* requests a second over all connections; 0 = closed loop */
    double seconds, warmup_s;
    bool stream;
    uint32_t max_tokens, prompt_bytes, n_affinity_keys;
};

struct rest_result {
    struct hist latency, first_event, gap; /* first_event and gap: streams only */
    uint64_t n_requests, n_events, n_errors, n_bytes;
    double seconds;
    char error[160]; /* the first one */
};

/* Runs to the end on this thread. WEIR_INVALID: the target; WEIR_IO: it can't be reached at all. */
WEIR_MUST_CHECK weir_err rest_run(const struct rest_opts *opts, struct rest_result *ret,
                                  struct weir_why *why);

#endif
