/* fake_nccl.c - NCCL's entry points over memory of the host, with the faults that test_nccl.c asks for. Ranks are threads, and an
 * operation is done when its call returns. With OLD it lacks what came with 2.14. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/cuda/fake_nccl.h"

#define RANKS_MAX 4
#define IN_PROGRESS 7

struct id {
    char bytes[128];
};

struct room { /* where the ranks of one id meet */
    struct id id;
    int n;
    pthread_barrier_t all;
    const void *shown[RANKS_MAX];
    struct room *next;
};

struct comm {
    struct room *room;
    int rank, n_looks;
};

_Atomic int fake_nccl_mode, fake_nccl_open, fake_nccl_sums;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct room *rooms; /* under lock; kept until the end */
static int n_ids;

int ncclGetUniqueId(struct id *id);
int ncclCommInitRank(struct comm **ret, int n, struct id id, int rank);
int ncclCommInitRankConfig(struct comm **ret, int n, struct id id, int rank, const void *config);
int ncclCommGetAsyncError(struct comm *c, int *state);
int ncclCommDestroy(struct comm *c);
int ncclCommAbort(struct comm *c);
int ncclAllReduce(const uint16_t *from, uint16_t *to, size_t n, int type, int op, struct comm *c,
                  void *stream);
int ncclAllGather(const float *from, float *to, size_t n, int type, struct comm *c, void *stream);
const char *ncclGetErrorString(int error);

int ncclGetUniqueId(struct id *id)
{
    pthread_mutex_lock(&lock);
    snprintf(id->bytes, sizeof id->bytes, "room %d", n_ids++);
    pthread_mutex_unlock(&lock);
    return 0;
}

static struct room *enter(const struct id *id, int n)
{
    struct room *r;

    pthread_mutex_lock(&lock);
    for (r = rooms; r && memcmp(&r->id, id, sizeof *id) != 0; r = r->next)
        ;
    if (!r) {
        r = calloc(1, sizeof *r);
        r->id = *id;
        r->n = n;
        pthread_barrier_init(&r->all, NULL, (unsigned)n);
        r->next = rooms;
        rooms = r;
    }
    pthread_mutex_unlock(&lock);
    return r;
}

static struct comm *comm_open(int n, const struct id *id, int rank)
{
    struct comm *c = calloc(1, sizeof *c);

    c->room = enter(id, n);
    c->rank = rank;
    fake_nccl_open++;
    return c;
}

int ncclCommInitRank(struct comm **ret, int n, struct id id, int rank)
{
    while (fake_nccl_mode == FAKE_OPEN_HANGS)
        usleep(1000);
    *ret = comm_open(n, &id, rank);
    return 0;
}

int ncclCommDestroy(struct comm *c)
{
    free(c);
    fake_nccl_open--;
    return 0;
}

int ncclCommAbort(struct comm *c)
{
    return ncclCommDestroy(c);
}

#ifndef OLD
/* 2.14's, and what is not said. */
struct config {
    size_t size;
    unsigned magic, version;
    int blocking;
};

int ncclCommInitRankConfig(struct comm **ret, int n, struct id id, int rank, const void *config)
{
    const struct config *how = config;

    if (how->magic != 0xcafebeef || how->version < 21400 || how->blocking != 0)
        return 4;
    *ret = comm_open(n, &id, rank);
    return IN_PROGRESS;
}

int ncclCommGetAsyncError(struct comm *c, int *state)
{
    int mode = fake_nccl_mode;

    *state = mode == FAKE_OPEN_HANGS || (mode == FAKE_SUM_HANGS && fake_nccl_sums) ? IN_PROGRESS
             : mode == FAKE_SUM_FAILS && fake_nccl_sums                            ? 6
             : c->n_looks++ % 3 != 2                                               ? IN_PROGRESS
                                                                                   : 0;
    return 0;
}
#define BEGUN IN_PROGRESS
#else
#define BEGUN 0
#endif

static float of_bf16(uint16_t bits)
{
    uint32_t wide = (uint32_t)bits << 16;
    float f;

    memcpy(&f, &wide, 4);
    return f;
}

int ncclAllReduce(const uint16_t *from, uint16_t *to, size_t n, int type, int op, struct comm *c,
                  void *stream)
{
    struct room *r = c->room;
    uint16_t *sum = malloc(n * sizeof *sum);

    (void)stream;
    fake_nccl_sums++;
    if (type != 9 || op != 0 || from != to) {
        free(sum);
        return 4;
    }
    if (fake_nccl_mode == FAKE_OK) {
        r->shown[c->rank] = from;
        pthread_barrier_wait(&r->all);
        for (size_t i = 0; i < n; i++) {
            float f = 0;
            for (int k = 0; k < r->n; k++)
                f += of_bf16(((const uint16_t *)r->shown[k])[i]);
            uint32_t bits;
            memcpy(&bits, &f, 4);
            sum[i] = (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
        }
        pthread_barrier_wait(&r->all);
        memcpy(to, sum, n * sizeof *sum);
    }
    free(sum);
    return BEGUN;
}

int ncclAllGather(const float *from, float *to, size_t n, int type, struct comm *c, void *stream)
{
    struct room *r = c->room;

    (void)stream;
    if (type != 7)
        return 4;
    r->shown[c->rank] = from;
    pthread_barrier_wait(&r->all);
    for (int k = 0; k < r->n; k++)
        memcpy(to + (size_t)k * n, r->shown[k], n * sizeof *to);
    pthread_barrier_wait(&r->all);
    return BEGUN;
}

const char *ncclGetErrorString(int error)
{
    return error == 6 ? "remote process exited or there was a network error" : "invalid argument";
}
