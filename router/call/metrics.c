/* metrics.c - see metrics_int.h. */
#include "router/call/metrics_int.h"

#include <pthread.h>

static struct call_metrics metrics;

static void setup_counts(struct call_metrics *m)
{
    const char *calls = "calls that have ended, by how";
    const char *retries = "attempts after the first, by what became of the one before";
    const char *lost = "calls whose replica's stream broke, by whether the client had seen a token";
    const char *shed = "calls refused for want of room, by reason";
    const char *tokens = "tokens of calls, as the replicas counted them";

    m->outcome[OUTCOME_DONE] = weir_counter("weir_calls_total", "outcome=\"done\"", calls);
    m->outcome[OUTCOME_INVALID] = weir_counter("weir_calls_total", "outcome=\"invalid\"", calls);
    m->outcome[OUTCOME_SHED] = weir_counter("weir_calls_total", "outcome=\"shed\"", calls);
    m->outcome[OUTCOME_FAILED] = weir_counter("weir_calls_total", "outcome=\"failed\"", calls);
    m->outcome[OUTCOME_SLOW] = weir_counter("weir_calls_total", "outcome=\"slow\"", calls);
    m->outcome[OUTCOME_CANCELLED] = weir_counter("weir_calls_total", "outcome=\"cancelled\"", calls);
    m->retry[CALL_RETRY_LOST] = weir_counter("weir_call_retries_total", "reason=\"lost\"", retries);
    m->retry[CALL_RETRY_REJECTED] = weir_counter("weir_call_retries_total", "reason=\"rejected\"", retries);
    m->retry[CALL_RETRY_FAILED] = weir_counter("weir_call_retries_total", "reason=\"failed\"", retries);
    m->lost_before = weir_counter("weir_calls_lost_total", "phase=\"before_first_token\"", lost);
    m->lost_mid_stream = weir_counter("weir_calls_lost_total", "phase=\"mid_stream\"", lost);
    m->shed[SHED_NO_REPLICA] = weir_counter("weir_shed_total", "reason=\"no_replica\"", shed);
    m->shed[SHED_SATURATED] = weir_counter("weir_shed_total", "reason=\"saturated\"", shed);
    m->shed[SHED_TRIED] = weir_counter("weir_shed_total", "reason=\"tried\"", shed);
    m->shed[SHED_REJECTED] = weir_counter("weir_shed_total", "reason=\"rejected\"", shed);
    m->shed[SHED_CALLS_MAX] = weir_counter("weir_shed_total", "reason=\"calls_max\"", shed);
    m->shed[SHED_OUTBOX] = weir_counter("weir_shed_total", "reason=\"outbox_full\"", shed);
    m->tokens_prompt = weir_counter("weir_tokens_total", "kind=\"prompt\"", tokens);
    m->tokens_cached = weir_counter("weir_tokens_total", "kind=\"cached\"", tokens);
    m->tokens_completion = weir_counter("weir_tokens_total", "kind=\"completion\"", tokens);
}

static void setup(void)
{
    setup_counts(&metrics);
    metrics.stale_news = weir_counter("weir_calls_stale_news_total", "",
                                      "entries of frames for attempts that were over; normal after a cancel");
    metrics.violations = weir_counter("weir_calls_protocol_errors_total", "",
                                      "attempts left because the replica broke the protocol");
    metrics.ttft = weir_histogram("weir_ttft_seconds", "", "from a request's arrival to its first token",
                                  weir_latency_bounds_s, weir_n_latency_bounds);
    metrics.duration =
        weir_histogram("weir_call_seconds", "", "from a request's arrival to the end of its call",
                       weir_latency_bounds_s, weir_n_latency_bounds);
    metrics.active = weir_gauge("weir_active_calls", "", "calls that are alive");
}

const struct call_metrics *call_metrics(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, setup);
    return &metrics;
}
