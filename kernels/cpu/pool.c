/* pool.c - see pool.h.
 *
 *   [K1] A job's parts all run exactly once before pool_run returns.
 * `turn` rises with every job; a worker that sees it rise runs its part and counts itself in `n_done`. A worker that has
 * spun in vain says so in `n_asleep` under the lock before it sleeps, so that the caller knows whom to wake. */
#include "kernels/cpu/pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/thread.h"

#define SPIN_ROUNDS 2000 /* some 20 us of pauses */

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
    pthread_mutex_t lock;
    pthread_cond_t more;
    uint32_t n_asleep;
};

static void pause_cpu(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static unsigned wait_for_turn(struct pool *pool, unsigned last)
{
    unsigned turn;

    for (int i = 0; i < SPIN_ROUNDS; i++) {
        turn = atomic_load_explicit(&pool->turn, memory_order_acquire);
        if (turn != last)
            return turn;
        pause_cpu();
    }
    pthread_mutex_lock(&pool->lock);
    pool->n_asleep++;
    while ((turn = atomic_load_explicit(&pool->turn, memory_order_acquire)) == last)
        pthread_cond_wait(&pool->more, &pool->lock);
    pool->n_asleep--;
    pthread_mutex_unlock(&pool->lock);
    return turn;
}

static void *work(void *arg)
{
    struct worker *w = arg;
    unsigned turn = 0;

    for (;;) {
        turn = wait_for_turn(w->pool, turn);
        if (atomic_load(&w->pool->stopping))
            return NULL;
        w->pool->fn(w->pool->arg, w->i, w->pool->n);
        atomic_fetch_add_explicit(&w->pool->n_done, 1, memory_order_release);
    }
}

static void next_turn(struct pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    atomic_fetch_add_explicit(&pool->turn, 1, memory_order_release);
    if (pool->n_asleep)
        pthread_cond_broadcast(&pool->more);
    pthread_mutex_unlock(&pool->lock);
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
    /* [K1] Spins, then gives the core away: another process may be on the one that the last worker needs. */
    for (int i = 0; atomic_load_explicit(&pool->n_done, memory_order_acquire) != pool->n - 1; i++) {
        if (i < SPIN_ROUNDS)
            pause_cpu();
        else
            sched_yield();
    }
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
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->more, NULL);
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
    pthread_cond_destroy(&pool->more);
    pthread_mutex_destroy(&pool->lock);
    weir_free(pool);
}
