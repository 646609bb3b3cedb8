/* rig.h - a router's core and its replicas in one process: real gRPC over loopback, stub replicas, one loop
 * that the test itself turns. Waiting is for a condition, with a bound that only a failure reaches. */
#ifndef WEIR_TESTS_ROUTER_CORE_RIG_H
#define WEIR_TESTS_ROUTER_CORE_RIG_H

#include <stdbool.h>

#include "base/buf.h"
#include "http/loop.h"
#include "proto/rpc.h"
#include "router/call/callset.h"
#include "router/fabric/fleet.h"
#include "tests/support/stub_replica.h"

enum { RIG_STUBS_MAX = 4 };
#define RIG_MODEL "test/model"

struct rig {
    struct weir_rpc *rpc;
    struct weir_stub *stubs[RIG_STUBS_MAX];
    struct weir_replica_record records[RIG_STUBS_MAX];
    char address[RIG_STUBS_MAX][64], id[RIG_STUBS_MAX][32];
    int n_stubs;
    struct weir_fleet_opts fleet_opts;
    struct weir_fleet *fleet;
    struct weir_loop *loop;
    struct weir_callset_opts call_opts;
    struct weir_callset *set;
};

/* Options may be changed between init and start. */
void rig_init(struct rig *rig, int n_stubs);
void rig_start(struct rig *rig); /* fleet, view of all stubs, loop, callset; returns when all are usable */
void rig_stop(struct rig *rig);
struct weir_stub_opts rig_stub_opts(struct rig *rig, int i);
void rig_set_view(struct rig *rig);                                /* the records as they are */
void rig_plan(struct rig *rig, const struct weir_stub_plan *plan); /* for all stubs */

/* Turns the loop until `done(ctx)`; fails the test after half a minute. */
void rig_until(struct rig *rig, bool (*done)(struct rig *rig, void *ctx), void *ctx);
void rig_until_usable(struct rig *rig, uint32_t n);
void rig_turn_ms(struct rig *rig, uint32_t ms);
struct weir_stub_counts rig_counts(struct rig *rig, int i);
/* Keys that the ring gives to this stub first: a session for a request. */
const char *rig_session_for(struct rig *rig, int i, char buf[32]);

/* A client: what its sink heard. */
struct client {
    struct rig *rig;
    struct weir_call *call;
    int n_started, n_delta, n_done, n_failed;
    int slow_after;   /* refuses deltas after so many; 0: never */
    int cancel_after; /* cancels itself from within its delta */
    size_t text_bytes;
    uint32_t n_ids, n_finished;
    struct weir_call_started started;
    char replica[32];
    struct weir_call_done done;
    weir_err err;
    struct weir_why why;
    uint32_t retry_after_ms;
    bool over;
};
struct weir_request *rig_request(struct rig *rig, const char *content);
void client_start(struct client *client, struct rig *rig,
                  struct weir_request *req);   /* zeroes all but its options */
void client_wait(struct client *client);       /* until it is over */
void client_wait_delta(struct client *client); /* until the first delta */

#endif
