/* parallel.c - the ranks: their threads, and how they follow rank 0.
 *
 * A call of rank 0 is an order with its arguments; it is published by raising `turn`, every rank does it on its own share,
 * and rank 0 goes on when all have. The arguments are the caller's memory, which it lends until then.
 *
 *   [P1] No call returns before every rank has done its order: nothing of the caller's is touched afterwards.
 *   [P2] A rank that fails in a step breaks the group, so that no other waits for it in a collective.
 * Threads: orders are given by one thread; each rank's back end and model are touched by the rank's thread alone.
 * Waiting: spins for a while, as a step's calls follow each other closely, then sleeps. */
#include "replica/parallel/parallel.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/thread.h"

#define SPIN_ROUNDS 1000

enum order { OPEN, LOAD, FORWARD, LOGITS, HEAD, DRAW, COPY_PAGE, CLOSE, LEAVE };

struct rank {
    struct parallel *p;
    uint32_t i;
    struct weir_thread thread;
    struct shard shard;
    struct weir_backend *backend;
    struct model *model;
    weir_err err; /* of the last order; released by n_done */
    struct weir_why why;
};

struct parallel {
    struct parallel_opts opts;
    struct model_config config;
    struct weir_group *group; /* NULL with one rank */
    struct rank *ranks;       /* [n_ranks] */
    uint32_t n_started;       /* ranks that have a thread, and rank 0 */
    char name[96];
    uint8_t hash[32];

    /* The order: written by rank 0, released by `turn`. */
    enum order order;
    const struct safetensors *weights;
    struct model_limits limits;
    const struct weir_batch *batch;
    const int32_t *rows;
    uint32_t n_rows, from, to;
    const struct weir_draw *draws;
    uint32_t n_draws, set, first;
    const float *logits; /* rank 0's answer */

    atomic_uint turn, n_done;
    atomic_bool
        broken; /* set by any thread before the group breaks; read by rank 0 when all ranks are done */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint32_t n_asleep;
};

/* ---- what a rank does ---- */
static weir_err open_rank(struct rank *r)
{
    const struct parallel_opts *o = &r->p->opts;
    struct weir_backend_opts backend = o->backend;
    long n_cores = sysconf(_SC_NPROCESSORS_ONLN);
    uint32_t n_threads = backend.n_threads ? backend.n_threads : n_cores > 0 ? (uint32_t)n_cores : 1;

    backend.n_threads = n_threads / o->n_ranks ? n_threads / o->n_ranks : 1;
    backend.group = r->p->group;
    backend.rank = r->i;
    weir_err err = o->open(&backend, &r->backend, &r->why);
    if (err == WEIR_OK && model_page_bytes(&r->p->config, r->backend, &r->shard) == 0)
        err = weir_fail_param(&r->why, "head_dim", WEIR_UNIMPLEMENTED,
                              "head_dim: the back end %s has no attention for heads of %u numbers",
                              r->backend->name, r->p->config.d_head);
    return err;
}

static weir_err obey(struct rank *r)
{
    struct parallel *p = r->p;

    switch (p->order) {
    case OPEN:
        return open_rank(r);
    case LOAD:
        return model_open(p->weights, &p->config, r->backend, p->opts.quant, &p->limits, &r->model, &r->why);
    case FORWARD:
        return model_forward(r->model, p->batch, &r->why);
    case LOGITS:
        return model_logits(r->model, p->rows, p->n_rows, r->i == 0 ? &p->logits : NULL, &r->why);
    case HEAD:
        model_head(r->model, p->rows, p->n_rows);
        return WEIR_OK;
    case DRAW:
        model_draw(r->model, p->set, p->first, p->draws, p->n_draws);
        return WEIR_OK;
    case COPY_PAGE:
        model_copy_page(r->model, p->from, p->to);
        return WEIR_OK;
    case CLOSE:
        model_close(r->model);
        weir_backend_close(r->backend);
        r->model = NULL;
        r->backend = NULL;
        return WEIR_OK;
    case LEAVE:
        break;
    }
    return WEIR_OK;
}

static void do_order(struct rank *r)
{
    r->why = (struct weir_why){ 0 };
    r->err = obey(r);
    if (r->err != WEIR_OK && (r->p->order == FORWARD || r->p->order == LOGITS))
        parallel_break(r->p); /* [P2] */
}

/* ---- orders ---- */
static void pause_cpu(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

/* Until *what is no longer `than`. */
static void wait_change(struct parallel *p, atomic_uint *what, unsigned than)
{
    for (int i = 0; i < SPIN_ROUNDS; i++) {
        if (atomic_load_explicit(what, memory_order_acquire) != than)
            return;
        pause_cpu();
    }
    pthread_mutex_lock(&p->lock);
    p->n_asleep++;
    while (atomic_load_explicit(what, memory_order_acquire) == than)
        pthread_cond_wait(&p->changed, &p->lock);
    p->n_asleep--;
    pthread_mutex_unlock(&p->lock);
}

static void change(struct parallel *p, atomic_uint *what)
{
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add_explicit(what, 1, memory_order_release);
    if (p->n_asleep)
        pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->lock);
}

static void *follow(void *arg)
{
    struct rank *r = arg;
    struct parallel *p = r->p;

    for (unsigned turn = 0;;) {
        wait_change(p, &p->turn, turn++);
        do_order(r);
        bool leaves = p->order == LEAVE;
        change(p, &p->n_done);
        if (leaves)
            return NULL;
    }
}

/* Every rank does it; the error of the first that failed, by rank. [P1] */
static weir_err give(struct parallel *p, enum order order, struct weir_why *why)
{
    p->order = order;
    if (p->n_started > 1) {
        atomic_store_explicit(&p->n_done, 0, memory_order_relaxed);
        change(p, &p->turn);
    }
    do_order(&p->ranks[0]);
    for (unsigned n; (n = atomic_load_explicit(&p->n_done, memory_order_acquire)) + 1 < p->n_started;)
        wait_change(p, &p->n_done, n);
    for (uint32_t i = 0; i < p->n_started; i++) {
        const struct rank *r = &p->ranks[i];
        if (r->err == WEIR_OK)
            continue;
        if (p->n_started == 1)
            return weir_fail_param(why, r->why.param, r->err, "%s", r->why.text);
        return weir_fail_param(why, r->why.param, r->err, "rank %u: %s", i, r->why.text);
    }
    return WEIR_OK;
}

/* ---- opening ---- */
static weir_err start_ranks(struct parallel *p, struct weir_why *why)
{
    for (uint32_t i = 0; i < p->opts.n_ranks; i++) {
        struct rank *r = &p->ranks[i];
        char name[16];
        r->p = p;
        r->i = i;
        weir_err err = shard_of(&p->config, i, p->opts.n_ranks, &r->shard, why);
        snprintf(name, sizeof name, "rank%u", i);
        if (err == WEIR_OK && i > 0)
            err = weir_thread_start(&r->thread, WEIR_ROLE_ANY, name, follow, r, why);
        if (err != WEIR_OK)
            return err;
        p->n_started++;
    }
    return WEIR_OK;
}

weir_err parallel_open(const struct parallel_opts *opts, const struct model_config *config,
                       struct parallel **ret, struct weir_why *why)
{
    struct parallel *p = weir_alloc0(sizeof *p);
    weir_err err = WEIR_OK;

    if (!p)
        return weir_fail(why, WEIR_NOMEM, "no memory for the ranks");
    p->opts = *opts;
    p->config = *config;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->changed, NULL);
    p->ranks = weir_calloc(opts->n_ranks, sizeof *p->ranks);
    if (!p->ranks)
        err = weir_fail(why, WEIR_NOMEM, "no memory for the ranks");
    if (err == WEIR_OK && opts->n_ranks > 1)
        err = weir_group_open(opts->n_ranks, &p->group, why);
    if (err == WEIR_OK)
        err = start_ranks(p, why);
    if (err == WEIR_OK)
        err = give(p, OPEN, why);
    if (err != WEIR_OK) {
        parallel_close(p);
        return err;
    }
    snprintf(p->name, sizeof p->name, opts->n_ranks > 1 ? "%s x %u" : "%s", p->ranks[0].backend->name,
             opts->n_ranks);
    *ret = p;
    return WEIR_OK;
}

void parallel_close(struct parallel *p)
{
    if (!p)
        return;
    if (p->n_started > 0) {
        (void)!give(p, CLOSE, NULL); /* can't fail */
        (void)!give(p, LEAVE, NULL);
    }
    for (uint32_t i = 1; i < p->n_started; i++)
        weir_thread_join(&p->ranks[i].thread);
    weir_group_close(p->group);
    pthread_cond_destroy(&p->changed);
    pthread_mutex_destroy(&p->lock);
    weir_free(p->ranks);
    weir_free(p);
}

uint64_t parallel_page_bytes(const struct parallel *p)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < p->opts.n_ranks; i++)
        bytes += model_page_bytes(&p->config, p->ranks[i].backend, &p->ranks[i].shard);
    return bytes;
}

weir_err parallel_load(struct parallel *p, const char *dir, const struct model_limits *limits,
                       struct weir_why *why)
{
    struct safetensors *weights = NULL;
    weir_err err = safetensors_open(dir, &weights, why);

    if (err != WEIR_OK)
        return err;
    memcpy(p->hash, safetensors_hash(weights), sizeof p->hash);
    p->weights = weights;
    p->limits = *limits;
    err = give(p, LOAD, why);
    p->weights = NULL;
    safetensors_close(weights);
    return err;
}

/* ---- steps ---- */
weir_err parallel_forward(struct parallel *p, const struct weir_batch *batch, struct weir_why *why)
{
    p->batch = batch;
    return give(p, FORWARD, why);
}

/* Else what was gathered is not whole. */
static weir_err still_meet(struct parallel *p, struct weir_why *why)
{
    return atomic_load(&p->broken) ? weir_fail(why, WEIR_IO, "the ranks no longer meet") : WEIR_OK;
}

weir_err parallel_logits(struct parallel *p, const int32_t *rows, uint32_t n, const float **ret,
                         struct weir_why *why)
{
    p->rows = rows;
    p->n_rows = n;
    weir_err err = give(p, LOGITS, why);
    if (err == WEIR_OK)
        err = still_meet(p, why);
    if (err == WEIR_OK)
        *ret = p->logits;
    return err;
}

weir_err parallel_head(struct parallel *p, const int32_t *rows, uint32_t n, struct weir_why *why)
{
    p->rows = rows;
    p->n_rows = n;
    return give(p, HEAD, why);
}

/* Rank 0's back end gave nothing: it knows why. */
static weir_err say_failed(struct parallel *p, struct weir_why *why)
{
    struct weir_backend *be = p->ranks[0].backend;
    weir_err err = be->end(be, why);

    return err != WEIR_OK ? err : weir_fail(why, WEIR_IO, "the back end %s failed", be->name);
}

weir_err parallel_row(struct parallel *p, uint32_t i, const float **ret, struct weir_why *why)
{
    const float *row = model_row(p->ranks[0].model, i); /* in this thread */

    if (!row)
        return say_failed(p, why);
    *ret = row;
    return still_meet(p, why);
}

weir_err parallel_draw(struct parallel *p, uint32_t set, uint32_t first, const struct weir_draw *draws,
                       uint32_t n, struct weir_why *why)
{
    p->set = set;
    p->first = first;
    p->draws = draws;
    p->n_draws = n;
    return give(p, DRAW, why);
}

weir_err parallel_drawn(struct parallel *p, uint32_t set, const struct weir_drawn **ret, struct weir_why *why)
{
    const struct weir_drawn *drawn = model_drawn(p->ranks[0].model, set);

    if (!drawn)
        return say_failed(p, why);
    *ret = drawn;
    return still_meet(p, why);
}

void parallel_copy_page(struct parallel *p, uint32_t from, uint32_t to)
{
    p->from = from;
    p->to = to;
    (void)!give(p, COPY_PAGE, NULL); /* can't fail */
}

void parallel_break(struct parallel *p)
{
    if (!p->group)
        return;
    atomic_store(&p->broken, true);
    weir_group_break(p->group);
}

bool parallel_can_draw(const struct parallel *p)
{
    return p->ranks[0].backend->sample != NULL;
}

const char *parallel_name(const struct parallel *p)
{
    return p->name;
}

uint64_t parallel_n_params(const struct parallel *p)
{
    return model_n_params(p->ranks[0].model);
}

uint64_t parallel_weight_bytes(const struct parallel *p)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < p->opts.n_ranks; i++)
        bytes += model_weight_bytes(p->ranks[i].model);
    return bytes;
}

const uint8_t *parallel_weights_hash(const struct parallel *p)
{
    return p->hash;
}
