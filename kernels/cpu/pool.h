/* pool.h - a few threads that run one job at a time, each its share of it.
 *
 * Workers spin shortly after a job, since the next comes within microseconds during a step, then sleep: an idle replica
 * uses no CPU. The caller works too, as worker 0. One caller at a time. */
#ifndef WEIR_KERNELS_CPU_POOL_H
#define WEIR_KERNELS_CPU_POOL_H

#include <stdint.h>

#include "base/err.h"

struct pool;

WEIR_MUST_CHECK weir_err pool_open(uint32_t n_threads, struct pool **ret, struct weir_why *why);
void pool_close(struct pool *pool); /* takes NULL */
uint32_t pool_threads(const struct pool *pool);
/* Calls fn(arg, i, n) for i in 0..n-1, n = pool_threads(), in parallel; returns when all have. */
void pool_run(struct pool *pool, void (*fn)(void *arg, uint32_t i, uint32_t n), void *arg);

/* Part i of n of `total` items: [*begin, *end). */
static inline void pool_share(uint32_t total, uint32_t i, uint32_t n, uint32_t *begin, uint32_t *end)
{
    *begin = (uint32_t)((uint64_t)total * i / n);
    *end = (uint32_t)((uint64_t)total * (i + 1) / n);
}

#endif
