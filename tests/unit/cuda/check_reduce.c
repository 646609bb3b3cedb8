/* check_reduce.c - sums over ranks: by one kernel that reads them all, and by the one-shot kernel among ranks that are threads. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "tests/unit/cuda/rig.h"

#define N_RANKS 3
#define N_ROUNDS 5

struct sum_job {
    uint16_t *out;
    const uint16_t *srcs[N_RANKS];
    size_t n;
};

static void launch_sum(struct rig *r, void *arg)
{
    struct sum_job *job = arg;
    cuda_sum_ranks(r->s, job->out, job->srcs, N_RANKS, job->n);
}

static void check_sum(struct rig *r)
{
    static const size_t sizes[] = { 1, 255, 5000 };

    for (int i = 0; i < 3; i++) {
        struct sum_job job = { .n = sizes[i], .out = rig_device(r, sizes[i] * 2) };
        double *want = rig_host(r, sizes[i] * sizeof *want), *x;
        for (int k = 0; k < N_RANKS; k++) {
            job.srcs[k] = rig_bf16(r, &x, sizes[i], 1);
            for (size_t j = 0; j < sizes[i]; j++)
                want[j] += x[j];
        }
        rig_near_bf16(r, "sum over ranks", rig_run(r, launch_sum, &job, job.out, sizes[i] * 2, NULL, 0), want,
                      sizes[i], 1.6e-5); /* one number alone: 2^-8 by its rounding */
    }
}

struct columns {
    float *out, *parts[N_RANKS];
};

static void launch_columns(struct rig *r, void *arg)
{
    struct columns *c = arg;
    for (uint32_t k = 0; k < N_RANKS; k++)
        cuda_place_columns(r->s, c->out, c->parts[k], k, N_RANKS, /* n_rows= */ 3, /* n= */ 300);
}

static void check_columns(struct rig *r)
{
    struct columns c = { .out = rig_device(r, 3 * 900 * 4) };
    double *part, *want = rig_host(r, 3 * 900 * sizeof *want);

    for (size_t k = 0; k < N_RANKS; k++) {
        c.parts[k] = rig_f32(r, &part, 900, 0, 1);
        for (size_t i = 0; i < 900; i++)
            want[i / 300 * 900 + k * 300 + i % 300] = part[i];
    }
    rig_near_f32(r, "columns of all ranks", rig_run(r, launch_columns, &c, c.out, 3 * 900 * 4, NULL, 0), want,
                 2700, 0);
}

/* ---- one shot ---- */
struct rank {
    struct dev *d;
    struct cuda_peers peers;
    uint16_t *x[N_ROUNDS], *got[N_ROUNDS];
    uint32_t n, n_rounds;
};

static void *rank_main(void *arg)
{
    struct rank *rank = arg;

    dev_set_order(2, rank->peers.rank + 7);
    for (uint32_t i = 0; i < rank->n_rounds; i++) {
        cuda_one_shot_reduce(dev_stream(rank->d), rank->x[i], rank->n, &rank->peers);
        dev_download(rank->d, rank->got[i], rank->x[i], rank->n * 2);
    }
    dev_sync(rank->d);
    return NULL;
}

/* Ranks on as many devices as there are; with one only, kernels that wait for each other might never run side by side. */
static bool open_ranks(struct rig *r, struct rank *ranks, uint32_t n, uint64_t patience_ns)
{
    struct weir_why why = { 0 };

    if (dev_count() < N_RANKS)
        return false;
    for (uint32_t i = 0; i < N_RANKS; i++) {
        ranks[i] = (struct rank){ .n = n, .n_rounds = N_ROUNDS };
        if (dev_open(i, &ranks[i].d, &why) != WEIR_OK)
            return false;
        for (uint32_t k = 0; k < i; k++)
            if (!dev_peer(ranks[i].d, ranks[k].d) || !dev_peer(ranks[k].d, ranks[i].d))
                return false;
    }
    for (uint32_t i = 0; i < N_RANKS; i++) {
        struct cuda_peers *p = &ranks[i].peers;
        p->rank = i;
        p->n_ranks = N_RANKS;
        p->n_slot = n;
        p->patience_ns = patience_ns;
        p->epochs = dev_alloc(ranks[i].d, CUDA_REDUCE_BLOCKS * 4);
        p->broken = dev_alloc(ranks[i].d, 4);
        uint16_t *slot = dev_alloc(ranks[i].d, (size_t)n * 4);
        uint32_t *flags = dev_alloc(ranks[i].d, CUDA_REDUCE_BLOCKS * N_RANKS * 4);
        dev_zero(ranks[i].d, p->epochs, CUDA_REDUCE_BLOCKS * 4);
        dev_zero(ranks[i].d, p->broken, 4);
        dev_zero(ranks[i].d, flags, CUDA_REDUCE_BLOCKS * N_RANKS * 4);
        dev_sync(ranks[i].d);
        for (uint32_t k = 0; k < N_RANKS; k++) {
            ranks[k].peers.slots[i] = slot;
            ranks[k].peers.flags[i] = flags;
        }
    }
    (void)r;
    return true;
}

static void close_ranks(struct rank *ranks)
{
    for (uint32_t i = 0; i < N_RANKS; i++) {
        if (!ranks[i].d)
            continue;
        dev_free(ranks[i].d, ranks[i].peers.slots[i]);
        dev_free(ranks[i].d, ranks[i].peers.flags[i]);
        dev_free(ranks[i].d, ranks[i].peers.epochs);
        dev_free(ranks[i].d, ranks[i].peers.broken);
        for (uint32_t k = 0; k < N_ROUNDS; k++)
            dev_free(ranks[i].d, ranks[i].x[k]);
        dev_close(ranks[i].d);
    }
}

static void check_one_shot(struct rig *r)
{
    enum { N = 777 };
    struct rank ranks[N_RANKS] = { 0 };
    pthread_t threads[N_RANKS];
    double *want = rig_host(r, (size_t)N_ROUNDS * N * sizeof *want);

    if (!open_ranks(r, ranks, N, 20000000000ull)) {
        close_ranks(ranks);
        printf("     one-shot sum: skipped, it needs %d devices that reach each other\n", N_RANKS);
        return;
    }
    for (uint32_t i = 0; i < N_RANKS; i++)
        for (uint32_t k = 0; k < N_ROUNDS; k++) {
            uint16_t *x = rig_host(r, N * 2);
            for (uint32_t j = 0; j < N; j++) {
                x[j] = rig_to_bf16(rig_normal(r));
                want[k * N + j] += rig_of_bf16(x[j]);
            }
            ranks[i].x[k] = dev_alloc(ranks[i].d, N * 2);
            ranks[i].got[k] = rig_host(r, N * 2);
            dev_upload(ranks[i].d, ranks[i].x[k], x, N * 2);
            dev_sync(ranks[i].d);
        }
    for (uint32_t i = 0; i < N_RANKS; i++)
        rig_true(r, "a thread", pthread_create(&threads[i], NULL, rank_main, &ranks[i]) == 0);
    for (uint32_t i = 0; i < N_RANKS; i++)
        pthread_join(threads[i], NULL);
    for (uint32_t i = 0; i < N_RANKS; i++)
        for (uint32_t k = 0; k < N_ROUNDS; k++) {
            rig_near_bf16(r, "one-shot sum", ranks[i].got[k], want + (size_t)k * N, N, 1e-5);
            rig_same(r, "the same bits at every rank", ranks[0].got[k], ranks[i].got[k], N * 2);
        }
    close_ranks(ranks);
}

/* [X2] A rank whose peers never come gives up and says so. */
static void check_patience(struct rig *r)
{
    struct rank ranks[N_RANKS] = { 0 };
    uint32_t broken = 0;

    if (open_ranks(r, ranks, 10, 1000000)) {
        ranks[1].n_rounds = 1;
        ranks[1].x[0] = dev_alloc(ranks[1].d, 20);
        ranks[1].got[0] = rig_host(r, 20);
        rank_main(&ranks[1]);
        dev_download(ranks[1].d, &broken, ranks[1].peers.broken, 4);
        dev_sync(ranks[1].d);
        rig_true(r, "a wait is given up", broken == 1);
    }
    close_ranks(ranks);
}

const struct rig_check checks_reduce[] = { { "sum over ranks", check_sum },
                                           { "columns", check_columns },
                                           { "one-shot sum", check_one_shot },
                                           { "one-shot patience", check_patience },
                                           { NULL, NULL } };
