/* metrics_int.h - the calls' metrics. */
#ifndef WEIR_ROUTER_CALL_METRICS_INT_H
#define WEIR_ROUTER_CALL_METRICS_INT_H

#include "base/metrics.h"
#include "router/call/machine.h"
#include "router/route/route.h"

enum call_outcome {
    OUTCOME_DONE,
    OUTCOME_INVALID,   /* the request was at fault */
    OUTCOME_SHED,      /* no room; try again */
    OUTCOME_FAILED,    /* ours or the replica's fault */
    OUTCOME_SLOW,      /* the client did not read */
    OUTCOME_CANCELLED, /* the client went away */
    OUTCOMES
};
enum call_shed {
    SHED_NO_REPLICA, /* the route's reasons, by name */
    SHED_SATURATED,
    SHED_TRIED,
    SHED_REJECTED, /* replicas said no, and no more tries are allowed */
    SHED_CALLS_MAX,
    SHED_OUTBOX, /* every candidate's outbox was full */
    SHEDS
};
struct call_metrics {
    struct weir_counter *outcome[OUTCOMES];
    struct weir_counter *retry[CALL_RETRIES];
    struct weir_counter *lost_before, *lost_mid_stream;
    struct weir_counter *shed[SHEDS];
    struct weir_counter *tokens_prompt, *tokens_cached, *tokens_completion;
    struct weir_counter *stale_news, *violations;
    struct weir_histogram *ttft, *duration;
    struct weir_gauge *active;
};
const struct call_metrics *call_metrics(void); /* registers them the first time */

#endif
