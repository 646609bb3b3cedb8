/* metrics.h - Prometheus metrics: registered once at start, updated with relaxed atomics, written as text.
 *
 * Counters, gauges and histograms with at most four labels, whose values are known at registration (a series
 * is a handle); no label ever carries an account, a key or anything else without a bound. Registration: any
 * thread, before or while serving; the same name and labels give the same handle. Updates: any thread, a
 * relaxed add. */
#ifndef WEIR_BASE_METRICS_H
#define WEIR_BASE_METRICS_H

#include <stdint.h>

#include "base/buf.h"

#ifdef __cplusplus
extern "C" {
#endif

struct weir_counter;
struct weir_gauge;
struct weir_histogram;

/* `labels`: "" or Prometheus text without braces: `reason="saturated",replica="r1"` (values already escaped).
 * `help` of the first registration of a name is used. Never NULL: no memory, or a name that is registered as
 * another type, is fatal (a fault of ours, at start). */
struct weir_counter *weir_counter(const char *name, const char *labels, const char *help);
struct weir_gauge *weir_gauge(const char *name, const char *labels, const char *help);
/* Buckets: n upper bounds, rising; +Inf is added. The bounds of the first registration of a name are used. */
struct weir_histogram *weir_histogram(const char *name, const char *labels, const char *help,
                                      const double *bounds, int n_bounds);
extern const double weir_latency_bounds_s[]; /* 0.5 ms to 60 s */
extern const int weir_n_latency_bounds;

void weir_counter_add(struct weir_counter *c, uint64_t n);
uint64_t weir_counter_get(const struct weir_counter *c);
void weir_gauge_set(struct weir_gauge *g, int64_t v);
void weir_gauge_add(struct weir_gauge *g, int64_t v);
int64_t weir_gauge_get(const struct weir_gauge *g);
/* No longer written out, until set again (a replica that left). */
void weir_gauge_remove(struct weir_gauge *g);
void weir_histogram_observe(struct weir_histogram *h, double v);

/* Text exposition format 0.0.4, families sorted by name; adds process_* (cpu seconds, resident bytes, open
 * fds, threads) and weir_build_info, weir_checks_failed_total. */
void weir_metrics_write(struct weir_buf *out);

#ifdef __cplusplus
}
#endif
#endif
