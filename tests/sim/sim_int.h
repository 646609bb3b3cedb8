/* sim_int.h - what the simulator's files share. */
#ifndef WEIR_TESTS_SIM_SIM_INT_H
#define WEIR_TESTS_SIM_SIM_INT_H

#include "router/limits/limits_int.h"
#include "tests/sim/sim.h"

enum event_kind { EV_TICK, EV_FRAME, EV_REJOIN, EV_ARRIVAL, EV_CALL, EV_RESTART, EV_SAMPLE };

struct event {
    uint64_t at_ns, order; /* order: of those at the same moment, as they were made */
    enum event_kind kind;
    uint32_t a, b;
    void *data;
};

struct frame_copy {
    uint64_t from; /* its incarnation */
    struct weir_str bytes;
};

struct router {
    struct weir_limits *limits;
    struct weir_mesh *mesh;
    uint64_t id, incarnation, skew_ns;
    bool broken[64];             /* its stream to another one, for worlds of up to 64 routers */
    struct weir_mesh_stats past; /* of its former lives */
    uint64_t settled[WEIR_ADAPTIVE], lost[WEIR_ADAPTIVE]; /* truth: tokens used through this incarnation */
};

struct account {
    char name[24];
    struct weir_limits_account numbers;
    uint32_t home; /* router, of sessions and hoppers */
    uint64_t used[WEIR_ADAPTIVE], central_used[WEIR_ADAPTIVE];
    uint64_t n_asked, n_admitted, n_central;
};

struct sim_call {
    uint8_t id[16];
    uint32_t account, router, prompt, cached, output, expected, max_tokens, done;
    uint64_t incarnation;
    bool admitted, central, started;
};

struct sim {
    struct sim_opts opts;
    struct sim_report *report;
    uint64_t now_ns, end_ns, order, random, n_calls;
    struct event *heap;
    uint32_t n_events, cap_events;
    struct router *routers, central;
    struct account *accounts;
    uint64_t last_change_ns, changed_ns; /* last_change: 0 when all routers knew of it */
    uint32_t n_live;                     /* calls */
    bool was_apart;
};

/* sim.c */
uint64_t sim_random(struct sim *s);
double sim_uniform(struct sim *s); /* [0, 1) */
void sim_push(struct sim *s, uint64_t at_ns, enum event_kind kind, uint32_t a, uint32_t b, void *data);
void sim_fail(struct sim *s, const char *fmt, ...) WEIR_PRINTF(2, 3);
bool sim_is_cut(const struct sim *s, uint32_t a, uint32_t b);
uint64_t sim_router_now(const struct sim *s, const struct router *r);

/* traffic.c */
void traffic_start(struct sim *s);
void traffic_arrive(struct sim *s, uint32_t account);
void traffic_settle_on(struct sim *s, struct sim_call *call);

/* check.c */
void check_refusal(struct sim *s, struct weir_limits *lim, const struct account *a,
                   const double before[LEVELS]);
void check_held(struct weir_limits *lim, const struct account *a, double ret[LEVELS]);
void check_router(struct sim *s, uint32_t i);
/* True: every router knows of every other what that one knows of itself. */
bool check_converged(struct sim *s);
void check_end(struct sim *s);

#endif
