/* group.c - ranks of one process that meet in shared memory.
 *
 * A collective: every rank shows its buffer, all meet, each does its part, all meet again. In all_reduce a rank sums its share
 * of the numbers for everybody and writes it into every rank's buffer.
 *
 *   [G1] Numbers are added in the order of ranks, whoever adds them: every rank gets the same bits.
 *   [G2] After a break nobody waits: the ranks may be anywhere, their numbers mean nothing, and end() says so.
 * `turn` counts meetings; the last to come raises it. Shown buffers are released and acquired by the meeting. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "kernels/cpu/cpu_int.h"
#include "kernels/cpu/wait.h"

struct weir_group {
    uint32_t n;
    atomic_uint turn, n_here, n_asleep; /* written by all ranks */
    atomic_bool broken;                 /* set by any thread */
    void **shown;                       /* [n] */
};

weir_err weir_group_open(uint32_t n_ranks, struct weir_group **ret, struct weir_why *why)
{
    struct weir_group *group;

    if (n_ranks == 0)
        return weir_fail_param(why, "n_ranks", WEIR_INVALID, "n_ranks: a group has 1 or more");
    group = weir_alloc0(sizeof *group);
    if (group)
        group->shown = weir_calloc(n_ranks, sizeof *group->shown);
    if (!group || !group->shown) {
        weir_group_close(group);
        return weir_fail(why, WEIR_NOMEM, "no memory for a group of %u ranks", n_ranks);
    }
    group->n = n_ranks;
    *ret = group;
    return WEIR_OK;
}

void weir_group_break(struct weir_group *group)
{
    atomic_store(&group->broken, true);
    atomic_fetch_add(&group->turn, 1); /* whoever waits goes on, and sees it */
    wake_all(&group->turn, &group->n_asleep);
}

void weir_group_close(struct weir_group *group)
{
    if (!group)
        return;
    weir_free(group->shown);
    weir_free(group);
}

uint32_t group_size(const struct weir_group *group)
{
    return group ? group->n : 1;
}

bool group_broken(const struct weir_group *group)
{
    return group && atomic_load(&group->broken);
}

/* False: the group is broken. */
static bool meet(struct weir_group *group)
{
    unsigned turn = atomic_load(&group->turn);

    if (atomic_load(&group->broken)) /* [G2] */
        return false;
    if (atomic_fetch_add(&group->n_here, 1) + 1 == group->n) {
        atomic_store(&group->n_here, 0);
        atomic_fetch_add(&group->turn, 1);
        wake_all(&group->turn, &group->n_asleep);
    } else {
        wait_change(&group->turn, turn, &group->n_asleep);
    }
    return !atomic_load(&group->broken);
}

void cpu_all_reduce(struct weir_backend *be, void *x, size_t n)
{
    struct weir_group *group = cpu_of(be)->group;

    if (be->n_ranks == 1)
        return;
    group->shown[be->rank] = x;
    if (!meet(group))
        return;
    size_t begin = n * be->rank / be->n_ranks, end = n * (be->rank + 1) / be->n_ranks;
    for (size_t i = begin; i < end; i++) {
        float sum = ((const float *)group->shown[0])[i];
        for (uint32_t r = 1; r < be->n_ranks; r++) /* [G1] */
            sum += ((const float *)group->shown[r])[i];
        for (uint32_t r = 0; r < be->n_ranks; r++)
            ((float *)group->shown[r])[i] = sum;
    }
    meet(group);
}

void cpu_all_gather(struct weir_backend *be, float *out, const float *x, uint32_t n_rows, uint32_t n)
{
    struct weir_group *group = cpu_of(be)->group;
    size_t row = n * sizeof *x;

    if (be->n_ranks == 1) {
        memcpy(out, x, n_rows * row);
        return;
    }
    group->shown[be->rank] = (void *)(uintptr_t)x; /* only read */
    if (!meet(group))
        return;
    for (uint32_t i = 0; i < n_rows; i++)
        for (uint32_t r = 0; r < be->n_ranks; r++)
            memcpy(out + ((size_t)i * be->n_ranks + r) * n, (const float *)group->shown[r] + (size_t)i * n,
                   row);
    meet(group);
}
