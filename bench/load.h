/* load.h - what load to make and what came of it; made by rest.c and grpc.c.
 *
 * Closed loop: each connection asks again as soon as it was answered. Open loop: requests are due at fixed times, and a
 * request's latency counts from when it was due, so that a slow server cannot hide behind a waiting client. */
#ifndef WEIR_BENCH_LOAD_H
#define WEIR_BENCH_LOAD_H

#include <stdbool.h>
#include <sys/socket.h>

#include "base/err.h"
#include "bench/hist.h"

struct load_opts {
    const char *target; /* host:port */
    const char *path;   /* REST only */
    const char *api_key, *model;
    uint32_t n_connections; /* over gRPC: calls at once, on one connection */
    double rate;            /* requests a second over all connections; 0 = closed loop */
    double seconds, warmup_s;
    bool stream; /* REST only: over gRPC answers are always streams */
    uint32_t max_tokens, prompt_bytes, n_affinity_keys;
};

/* Requests that were due and answered, and events that came, between the warm-up and the end. */
struct load_result {
    struct hist latency, first_event;
    struct hist gap; /* between two reads of a stream that brought events */
    uint64_t n_requests, n_events, n_bytes, n_errors;
    double seconds;
    char error[160]; /* the first one */
};

#define LOAD_GRACE_S 5 /* after the end, for answers under way; one that takes longer is an error */

/* Both run to the end on this thread. WEIR_INVALID: the target; WEIR_IO: it can't be reached at all. */
WEIR_MUST_CHECK weir_err rest_run(const struct load_opts *opts, struct load_result *ret,
                                  struct weir_why *why);
WEIR_MUST_CHECK weir_err grpc_run(const struct load_opts *opts, struct load_result *ret,
                                  struct weir_why *why);

/* A blocking connection that sends at once; -1 when there is none, and errno says why. */
int load_connect(const struct sockaddr_storage *addr, socklen_t len);
/* "host:port". WEIR_INVALID: it is not, or does not resolve. */
WEIR_MUST_CHECK weir_err load_resolve(const char *target, struct sockaddr_storage *ret, socklen_t *ret_len,
                                      struct weir_why *why);

void load_fault(struct load_result *result, const char *what); /* counts an error, keeps the first */
/* n bytes of a prompt, the same for all; not terminated. */
void load_prompt(char *ret, uint32_t n);

#endif
