/* ranks.c - collectives of ranks that are threads of this process.
 *
 * Three ways, chosen when the back end is opened, alike in all ranks:
 *   NCCL, when each rank has a device of its own; its operations may stand in a recorded step. Before it, for sums of up to
 *     SLOT_NUMBERS, a kernel of ours (reduce.cu) where all devices reach each other's memory.
 *   In the process, when ranks share a device, or where there is no NCCL: each waits for its stream, all meet, each reads
 *     what the others have, all meet again. Devices must reach each other's memory for that.
 * WEIR_NCCL in the environment: 1 asks for NCCL, on a single rank, too; 0 for the process; not set, it is as above.
 *   [K1] Every wait ends: when the group is broken, when a rank has failed, or after PATIENCE_S; NCCL's after a bound of its own
 *        (nccl.h). The one-shot kernel's, too; it tells the host by a word of host memory, which end() reads when a step has been
 *        asked for and map() when it has been done: so no number of such a step is handed out, and the step or the next one fails.
 *        What NCCL says of an operation that is under way is asked at the same places, and while a rank waits for its device.
 *   [K2] In the process and in the one-shot kernel sums run in the order of ranks. NCCL has its own order, the same every time for
 *        one number of ranks and one size.
 * Threads: each rank calls from its own; `meeting` is shared under its lock. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "kernels/cuda/cuda_be.h"
#include "kernels/cuda/nccl.h"

#define PATIENCE_S 30
#define WHY_MAX sizeof(((struct weir_why *)0)->text)
#define LOOK_MS 20                         /* between looks at whether the group is broken */
#define SLOT_NUMBERS ((uint32_t)256 << 10) /* 512 KiB of bf16: beyond it NCCL wins */

/* Where ranks of one group find each other. */
struct meeting {
    const void *key;            /* the group, or a rank that is alone */
    uint32_t n, n_open, n_here; /* under lock, as the rest */
    uint64_t turn;
    bool broken, here[CUDA_RANKS_MAX];
    void *shown
        [2]
        [CUDA_RANKS_MAX]; /* by turns: who is one meeting ahead does not write over what others still read */
    pthread_mutex_t lock;
    pthread_cond_t moved;
    struct meeting *next;
};

struct ranks {
    struct meeting *meeting;
    struct weir_group *group; /* NULL: alone */
    struct nccl *nccl;        /* NULL: in the process */
    bool one_shot;
    struct cuda_peers peers;
    struct scratch spare;
    void *seen[CUDA_RANKS_MAX]; /* what all showed at the last meeting */
};

static pthread_mutex_t all_lock = PTHREAD_MUTEX_INITIALIZER;
static struct meeting *all_meetings; /* under all_lock */
static _Atomic uint64_t emulated_patience_ns;

/* ---- meeting ---- */
static struct meeting *meeting_join(const void *key, uint32_t n)
{
    struct meeting *m;

    pthread_mutex_lock(&all_lock);
    for (m = all_meetings; m && m->key != key; m = m->next)
        ;
    if (!m && (m = weir_alloc0(sizeof *m))) {
        m->key = key;
        m->n = n;
        pthread_mutex_init(&m->lock, NULL);
        pthread_cond_init(&m->moved, NULL);
        m->next = all_meetings;
        all_meetings = m;
    }
    if (m)
        m->n_open++;
    pthread_mutex_unlock(&all_lock);
    return m;
}

static void meeting_leave(struct meeting *m)
{
    struct meeting **at = &all_meetings;

    pthread_mutex_lock(&m->lock);
    m->broken = true; /* who is gone is not waited for */
    pthread_cond_broadcast(&m->moved);
    pthread_mutex_unlock(&m->lock);
    pthread_mutex_lock(&all_lock);
    if (--m->n_open == 0) {
        while (*at != m)
            at = &(*at)->next;
        *at = m->next;
        pthread_cond_destroy(&m->moved);
        pthread_mutex_destroy(&m->lock);
        weir_free(m);
    }
    pthread_mutex_unlock(&all_lock);
}

static struct timespec in_ms(long ms)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    t.tv_nsec += ms * 1000000;
    t.tv_sec += t.tv_nsec / 1000000000;
    t.tv_nsec %= 1000000000;
    return t;
}

/* A fault of this rank's own collectives: nobody waits for it any longer. */
static void rank_failed(struct cuda_be *c, const char *what)
{
    struct meeting *m = c->ranks->meeting;

    cuda_fail(c, WEIR_IO, what);
    pthread_mutex_lock(&m->lock);
    m->broken = true;
    pthread_cond_broadcast(&m->moved);
    pthread_mutex_unlock(&m->lock);
    if (c->ranks->group)
        c->host->group_break(c->ranks->group);
}

/* Whether another rank has failed. */
static bool others_failed(struct cuda_be *c)
{
    struct meeting *m = c->ranks->meeting;

    if (c->host->group_broken(c->ranks->group))
        return true;
    if (!m)
        return false;
    pthread_mutex_lock(&m->lock);
    bool ret = m->broken;
    pthread_mutex_unlock(&m->lock);
    return ret;
}

static void say_missing(struct cuda_be *c, const bool *here)
{
    char text[64];

    for (uint32_t r = 0; r < c->be.n_ranks; r++)
        if (!here[r]) {
            snprintf(text, sizeof text, "rank %u did not come within %d s", r, PATIENCE_S);
            cuda_fail(c, WEIR_IO, text);
            return;
        }
}

/* Shows `mine` to all. False: somebody will not come [K1]. */
static bool meet(struct cuda_be *c, void *mine)
{
    struct meeting *m = c->ranks->meeting;
    bool here[CUDA_RANKS_MAX], late = false;
    long waited_ms = 0;

    pthread_mutex_lock(&m->lock);
    uint64_t turn = m->turn;
    m->shown[turn % 2][c->be.rank] = mine;
    m->here[c->be.rank] = true;
    m->broken = m->broken || c->failed;
    if (!m->broken && ++m->n_here == m->n) {
        m->n_here = 0;
        memset(m->here, 0, sizeof m->here);
        m->turn++;
        pthread_cond_broadcast(&m->moved);
    }
    while (!m->broken && m->turn == turn) {
        struct timespec until = in_ms(LOOK_MS);
        if (pthread_cond_timedwait(&m->moved, &m->lock, &until) == ETIMEDOUT)
            waited_ms += LOOK_MS;
        late = waited_ms > PATIENCE_S * 1000;
        if (late || c->host->group_broken(c->ranks->group))
            m->broken = true;
    }
    memcpy(here, m->here, sizeof here);
    bool ok = m->turn != turn;
    memcpy(c->ranks->seen, m->shown[turn % 2], sizeof c->ranks->seen);
    if (m->broken)
        pthread_cond_broadcast(&m->moved);
    pthread_mutex_unlock(&m->lock);
    if (!ok && late)
        say_missing(c, here);
    if (!ok)
        cuda_fail(c, WEIR_IO, "another rank failed");
    return ok;
}

/* What was asked of the device is done, and all ranks are here. */
static bool settle(struct cuda_be *c, void *mine)
{
    struct weir_why told = { 0 };

    dev_sync(c->d);
    if (dev_check(c->d, &told) != WEIR_OK)
        cuda_fail(c, WEIR_IO, told.text);
    return meet(c, mine) && !c->failed;
}

/* ---- operations ---- */
static void reduce_in_process(struct cuda_be *c, void *x, size_t n)
{
    const uint16_t *srcs[CUDA_RANKS_MAX];
    uint32_t n_ranks = c->be.n_ranks;

    if (!scratch_fit(c, &c->ranks->spare, n * 2) || !settle(c, x))
        return;
    for (uint32_t r = 0; r < n_ranks; r++)
        srcs[r] = c->ranks->seen[r];
    cuda_sum_ranks(dev_stream(c->d), c->ranks->spare.ptr, srcs, n_ranks, n); /* [K2] */
    if (settle(c, x))                                                        /* all have read */
        dev_copy(c->d, x, c->ranks->spare.ptr, n * 2);
}

/* Names the rank: in one process they all say it. */
static void nccl_gone(struct cuda_be *c, const char *what)
{
    char text[WHY_MAX];

    snprintf(text, sizeof text, "rank %u of %u: %.*s", c->be.rank, c->be.n_ranks, (int)WHY_MAX - 64, what);
    rank_failed(c, text);
}

void cuda_all_reduce(struct weir_backend *be, void *x, size_t n)
{
    struct cuda_be *c = cuda_of(be);
    struct weir_why told = { 0 };

    if (!c->ranks || c->failed)
        return;
    if (c->n_tok && c->batch.n_tok != c->n_tok && n % c->n_tok == 0)
        n = n / c->n_tok * c->batch.n_tok; /* a padded step's rows, too */
    if (c->ranks->one_shot && n <= SLOT_NUMBERS)
        cuda_one_shot_reduce(dev_stream(c->d), x, (uint32_t)n, &c->ranks->peers);
    else if (!c->ranks->nccl)
        reduce_in_process(c, x, n);
    else if (nccl_all_reduce(c->ranks->nccl, x, n, dev_stream(c->d), &told) != WEIR_OK)
        nccl_gone(c, told.text);
}

void cuda_all_gather(struct weir_backend *be, float *out, const float *x, uint32_t n_rows, uint32_t n)
{
    struct cuda_be *c = cuda_of(be);
    size_t part = (size_t)n_rows * n;

    struct weir_why told = { 0 };

    if (!c->ranks) {
        dev_copy(c->d, out, x, part * sizeof *x);
        return;
    }
    if (c->failed)
        return;
    if (c->ranks->nccl) {
        if (!scratch_fit(c, &c->ranks->spare, part * be->n_ranks * sizeof *x))
            return;
        if (nccl_all_gather(c->ranks->nccl, c->ranks->spare.ptr, x, part, dev_stream(c->d), &told) != WEIR_OK)
            nccl_gone(c, told.text);
    } else if (!settle(c, (void *)(uintptr_t)x)) { /* only read */
        return;
    }
    for (uint32_t r = 0; r < be->n_ranks; r++) {
        const float *from = c->ranks->nccl ? (float *)c->ranks->spare.ptr + r * part : c->ranks->seen[r];
        cuda_place_columns(dev_stream(c->d), out, from, r, be->n_ranks, n_rows, n);
    }
    if (!c->ranks->nccl)
        settle(c, NULL); /* all have read */
}

void ranks_check(struct cuda_be *c)
{
    const char *said = c->ranks && c->ranks->nccl && !c->failed ? nccl_failed(c->ranks->nccl) : NULL;
    char text[WHY_MAX];

    if (said) {
        snprintf(text, sizeof text, "NCCL: %s", said);
        nccl_gone(c, text);
    }
    if (c->failed || !c->ranks || !c->ranks->peers.told || !*(volatile uint32_t *)c->ranks->peers.told)
        return;
    rank_failed(c, "another rank did not come to a sum");
}

void ranks_emulate_one_shot(uint64_t patience_ns)
{
    atomic_store(&emulated_patience_ns, patience_ns);
}

bool ranks_record(const struct cuda_be *c)
{
    return !c->ranks || (c->ranks->nccl && !dev_is_emulated());
}

/* ---- opening ---- */
/* Slots and flags of all ranks, each mapped by all; false: not all devices reach each other, or no memory. */
static bool open_peers(struct cuda_be *c)
{
    struct cuda_peers *p = &c->ranks->peers;
    uint32_t n = c->be.n_ranks;
    size_t flag_bytes = (size_t)CUDA_REDUCE_BLOCKS * n * 4;
    struct own {
        struct dev *d;
        uint16_t *slot;
        uint32_t *flags;
    } own = { c->d, dev_alloc(c->d, (size_t)SLOT_NUMBERS * 4), dev_alloc(c->d, flag_bytes) };

    p->epochs = dev_alloc(c->d, CUDA_REDUCE_BLOCKS * 4);
    p->broken = dev_alloc(c->d, 4);
    p->told = dev_host_alloc(c->d, 4);
    p->rank = c->be.rank;
    p->n_ranks = n;
    p->n_slot = SLOT_NUMBERS;
    p->patience_ns = dev_is_emulated() ? atomic_load(&emulated_patience_ns) : PATIENCE_S * 1000000000ull;
    p->slots[p->rank] = own.slot;
    p->flags[p->rank] = own.flags;
    bool ok = own.slot && own.flags && p->epochs && p->broken && p->told;
    if (ok) {
        *p->told = 0;
        dev_zero(c->d, own.flags, flag_bytes);
        dev_zero(c->d, p->epochs, CUDA_REDUCE_BLOCKS * 4);
        dev_zero(c->d, p->broken, 4);
    }
    if (!settle(c, ok ? &own : NULL))
        return false;
    for (uint32_t r = 0; r < n; r++) {
        const struct own *other = c->ranks->seen[r];
        ok = ok && other && (r == p->rank || dev_peer(c->d, other->d));
        if (other && r != p->rank) {
            p->slots[r] = other->slot;
            p->flags[r] = other->flags;
        }
    }
    bool all = settle(c, ok ? p : NULL);
    for (uint32_t r = 0; r < n; r++)
        all = all && c->ranks->seen[r];
    return settle(c, NULL) && all;
}

/* Whether every device reads what the others have. */
static bool reach_all(struct cuda_be *c)
{
    bool ok = settle(c, c->d);

    for (uint32_t r = 0; ok && r < c->be.n_ranks; r++)
        ok = dev_peer(c->d, c->ranks->seen[r]);
    return settle(c, NULL) && ok;
}

static bool stop_nccl(void *arg)
{
    return others_failed(arg);
}

/* All ranks have the same id, or none has. */
static bool share_id(struct cuda_be *c, struct nccl_id *id, bool *all)
{
    bool here = nccl_load();

    if (here && c->be.rank == 0)
        here = nccl_make_id(id);
    if (!meet(c, here ? id : NULL))
        return false;
    *all = true;
    for (uint32_t r = 0; r < c->be.n_ranks; r++)
        *all = *all && c->ranks->seen[r];
    if (*all)
        memcpy(id, c->ranks->seen[0], sizeof *id);
    return meet(c, NULL);
}

static weir_err open_nccl(struct cuda_be *c, bool *ret_open, struct weir_why *why)
{
    const struct nccl_stop stop = { stop_nccl, c };
    struct nccl_id id = { { 0 } };
    struct weir_why told = { 0 };

    if (!share_id(c, &id, ret_open))
        return weir_fail(why, WEIR_IO, "%s", c->why.text);
    if (!*ret_open)
        return WEIR_OK;
    weir_err err = nccl_open(&id, c->be.rank, c->be.n_ranks, dev_index(c->d), &stop, &c->ranks->nccl, &told);
    if (err != WEIR_OK) {
        nccl_gone(c, told.text);
        return weir_fail(why, err, "%s", c->why.text);
    }
    c->ranks->one_shot = c->be.n_ranks > 1 && !nccl_is_emulated() && open_peers(c);
    return c->failed ? weir_fail(why, WEIR_IO, "%s", c->why.text) : WEIR_OK;
}

/* Asked while the host waits for the device. */
static bool watch(void *arg)
{
    struct cuda_be *c = arg;

    ranks_check(c);
    return c->failed || others_failed(c);
}

/* WEIR_NCCL. */
static weir_err nccl_wish(bool *ret_asked, bool *ret_refused, struct weir_why *why)
{
    const char *wish = getenv("WEIR_NCCL");

    *ret_asked = wish && strcmp(wish, "1") == 0;
    *ret_refused = wish && strcmp(wish, "0") == 0;
    if (wish && *wish && !*ret_asked && !*ret_refused)
        return weir_fail_param(why, "WEIR_NCCL", WEIR_INVALID, "WEIR_NCCL: 0 or 1, and not %.16s", wish);
    return WEIR_OK;
}

static weir_err open_ways(struct cuda_be *c, bool asked, bool refused, struct weir_why *why)
{
    bool own_device = dev_count() >= (int)c->be.n_ranks && (!dev_is_emulated() || nccl_is_emulated());
    bool open = false;
    weir_err err = own_device && !refused ? open_nccl(c, &open, why) : WEIR_OK;

    if (err != WEIR_OK || open)
        return err;
    if (asked)
        return weir_fail(why, WEIR_UNAVAILABLE, "cuda: NCCL is asked for, and %s",
                         own_device ? "libnccl.so.2 is not here" : "there are fewer devices than ranks");
    if (dev_is_emulated())
        c->ranks->one_shot = atomic_load(&emulated_patience_ns) && open_peers(c);
    else if (!reach_all(c) && !c->failed)
        return weir_fail(why, WEIR_UNAVAILABLE,
                         "cuda: devices do not reach each other's memory, and there is no NCCL");
    return c->failed ? weir_fail(why, WEIR_IO, "%s", c->why.text) : WEIR_OK;
}

weir_err ranks_open(struct cuda_be *c, struct weir_group *group, struct weir_why *why)
{
    uint32_t n = c->host->group_size(group);
    bool asked, refused;
    weir_err err = nccl_wish(&asked, &refused, why);

    c->be.n_ranks = n;
    if (err != WEIR_OK || (n == 1 && !asked))
        return err;
    if (n > CUDA_RANKS_MAX)
        return weir_fail_param(why, "n_ranks", WEIR_INVALID, "cuda: at most %d ranks", CUDA_RANKS_MAX);
    c->ranks = weir_alloc0(sizeof *c->ranks);
    if (c->ranks) {
        c->ranks->group = group;
        c->ranks->meeting = meeting_join(group ? (const void *)group : c, n);
    }
    if (!c->ranks || !c->ranks->meeting)
        return weir_fail(why, WEIR_NOMEM, "no memory for ranks");
    dev_watch(c->d, watch, c);
    return open_ways(c, asked, refused, why);
}

void ranks_close(struct cuda_be *c)
{
    if (!c->ranks)
        return;
    dev_watch(c->d, NULL, NULL);
    nccl_close(c->ranks->nccl, /* abort= */ c->failed || others_failed(c));
    dev_free(c->d, c->ranks->spare.ptr);
    dev_free(c->d, c->ranks->peers.slots[c->be.rank]);
    dev_free(c->d, c->ranks->peers.flags[c->be.rank]);
    dev_free(c->d, c->ranks->peers.epochs);
    dev_free(c->d, c->ranks->peers.broken);
    dev_host_free(c->d, c->ranks->peers.told);
    if (c->ranks->meeting)
        meeting_leave(c->ranks->meeting);
    weir_free(c->ranks);
    c->ranks = NULL;
}
