/* sim.h - a mesh of routers in one process and virtual time: the real limiter and gossip over a network that can be told to
 * misbehave, beside one central limiter that is asked the same.
 *
 *   sim.c       the world: routers, network, calls, the order of events
 *   traffic.c   who asks for what, when, and of which router
 *   check.c     what must hold, after every event and at the end
 *   main.c      the command line and the report
 *
 * All randomness comes from one seed; a run is a function of its options. */
#ifndef WEIR_TESTS_SIM_SIM_H
#define WEIR_TESTS_SIM_SIM_H

#include <stdbool.h>
#include <stdint.h>

#include "router/limits/limits.h"
#include "router/mesh/mesh.h"

#define SIM_MS 1000000ull
#define SIM_S (1000 * SIM_MS)
#define SIM_ACCOUNTS_MAX 100000

/* X(name, what it does) */
#define SIM_TRAFFICS(X)                                                                                      \
    X(steady, "at equal intervals, each request of any router")                                              \
    X(poisson, "at random")                                                                                  \
    X(bursts, "a second at 5 times the rate, then less")                                                     \
    X(hopper, "each account of one router at a time, another one each second")                               \
    X(storm, "nothing, then a minute's limit at once on all routers")                                        \
    X(shortlong, "short calls for a while, then long ones all at once")                                      \
    X(huge, "prompts of up to 128k tokens")
enum sim_traffic {
#define SIM_TRAFFIC_ENUM(name, text) SIM_##name,
    SIM_TRAFFICS(SIM_TRAFFIC_ENUM)
#undef SIM_TRAFFIC_ENUM
        SIM_TRAFFIC_COUNT
};

struct sim_opts {
    uint64_t seed;
    uint32_t n_routers, n_accounts;
    double minutes, rate; /* requests a second of all accounts together */
    double load;          /* what is asked for, as a multiple of the limit */
    enum sim_traffic traffic;
    uint32_t interval_ms, delay_ms, jitter_ms, skew_ms;
    double loss;                        /* of frames; the stream breaks and is opened again */
    double partition_at_s, partition_s; /* 0 s long: none */
    uint32_t partition_n;               /* routers cut off from the rest */
    double restart_every_s;             /* some router; 0 = never */
    bool ramp;                          /* limits may grow to 24 times */
    bool sessions;                      /* an account asks one router, always */
    uint64_t bytes_s;
};
void sim_opts_init(struct sim_opts *opts);

struct sim_report {
    uint64_t requests, admitted, central_admitted;
    double
        over_admission; /* tokens admitted beyond the central limiter's, of what the limit allowed: the worst meter */
    double under_admission; /* the same the other way */
    double false_refusals;  /* requests that should have passed and did not, net, of those that should pass */
    double bytes_s, bytes_a_register; /* of one router; of what was sent, headers included */
    uint64_t registers_sent, frames_sent;
    double converge_ms; /* after the last change until all routers knew all; the worst seen */
    uint64_t memory_peak;
    double ramp[13];   /* with `ramp`: limit / start each 10 minutes, the first account, generated */
    char failure[256]; /* an invariant that does not hold; empty: all do */
};
void sim_run(const struct sim_opts *opts, struct sim_report *ret);

#endif
