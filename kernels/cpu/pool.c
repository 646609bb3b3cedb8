/* pool.c - see pool.h.
 *
 *   [K1] A job's parts all run exactly once before pool_run returns.
 * `turn` rises with every job; a worker that sees it rise runs its part and counts itself in `n_done`. Both sides wait as
 * wait.h says: a worker for the next turn, the caller for the last worker. */
#include "kernels/cpu/pool.h"

#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/thread.h"
#include "kernels/cpu/wait.h"

struct worker {
    struct pool *pool;
    uint32_t i;
    struct weir_thread thread;
};

struct pool {
    uint32_t n;
    struct worker *workers; /* n - 1 of them: 1..n-1 */
    void (*fn)(void *arg, uint32_t i, uint32_t n);
    void *arg;
    atomic_uint turn, n_done; /* turn: released by the caller with fn and arg; n_done: released by workers */
    atomic_bool stopping;
    atomic_uint n_asleep, n_waiting; /* see wait.h: workers, the caller */
};

static void *work(void *arg)
{
    struct worker *w = arg;
    unsigned turn = 0;

    for (;;) {
        turn = wait_change(&w->pool->turn, turn, &w->pool->n_asleep);
        if (atomic_load(&w->pool->stopping))
            return NULL;
        w->pool->fn(w->pool->arg, w->i, w->pool->n);
        atomic_fetch_add_explicit(&w->pool->n_done, 1, memory_order_acq_rel);
        wake_all(&w->pool->n_done, &w->pool->n_waiting);
    }
}

static void next_turn(struct pool *pool)
{
    atomic_fetch_add_explicit(&pool->turn, 1, memory_order_release);
    wake_all(&pool->turn, &pool->n_asleep);
}

void pool_run(struct pool *pool, void (*fn)(void *arg, uint32_t i, uint32_t n), void *arg)
{
    if (pool->n == 1) {
        fn(arg, 0, 1);
        return;
    }
    pool->fn = fn;
    pool->arg = arg;
    atomic_store_explicit(&pool->n_done, 0, memory_order_relaxed);
    next_turn(pool);
    fn(arg, 0, pool->n);
    unsigned n_done = 0;
    while (n_done != pool->n - 1) /* [K1] */
        n_done = wait_change(&pool->n_done, n_done, &pool->n_waiting);
}

uint32_t pool_threads(const struct pool *pool)
{
    return pool->n;
}

weir_err pool_open(uint32_t n_threads, struct pool **ret, struct weir_why *why)
{
    struct pool *pool = weir_alloc0(sizeof *pool);
    long n_cores = sysconf(_SC_NPROCESSORS_ONLN);

    if (!pool)
        return weir_fail(why, WEIR_NOMEM, "no memory for the thread pool");
    if (n_threads == 0)
        n_threads = n_cores > 0 ? (uint32_t)n_cores : 1;
    pool->n = 1;
    pool->workers = weir_calloc(n_threads, sizeof *pool->workers);
    if (!pool->workers) {
        pool_close(pool);
        return weir_fail(why, WEIR_NOMEM, "no memory for the thread pool");
    }
    while (pool->n < n_threads) {
        struct worker *w = &pool->workers[pool->n - 1];
        char name[16];
        *w = (struct worker){ .pool = pool, .i = pool->n };
        snprintf(name, sizeof name, "cpu%u", pool->n);
        weir_err err = weir_thread_start(&w->thread, WEIR_ROLE_ANY, name, work, w, why);
        if (err != WEIR_OK) {
            pool_close(pool);
            return err;
        }
        pool->n++;
    }
    *ret = pool;
    return WEIR_OK;
}

void pool_close(struct pool *pool)
{
    if (!pool)
        return;
    atomic_store(&pool->stopping, true);
    next_turn(pool);
    for (uint32_t i = 1; i < pool->n; i++)
        weir_thread_join(&pool->workers[i - 1].thread);
    weir_free(pool->workers);
    weir_free(pool);
}
