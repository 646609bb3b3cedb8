/* hist.h - a histogram of times: log-spaced buckets 2 % apart, so that any quantile is right to 2 % in 8 KB. */
#ifndef WEIR_BENCH_HIST_H
#define WEIR_BENCH_HIST_H

#include <stdint.h>

#include "base/buf.h"
#include "base/json.h"

#define HIST_BUCKETS 1024

struct hist {
    uint64_t n, max_ns;
    uint64_t counts[HIST_BUCKETS];
};

void hist_add(struct hist *h, uint64_t ns);
uint64_t hist_quantile_ns(const struct hist *h, double q); /* 0 when empty */
/* {"n":..,"p50":..,"p90":..,"p99":..,"p999":..,"max":..}, in milliseconds. */
void hist_write(const struct hist *h, struct weir_jw *w);

#endif
