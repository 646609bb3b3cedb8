/* attend_blocks.h - what attention over pages of bf16 has in common, by tiles (attend_amx.c) and by dots (attend_dots.c): softmax by
 * blocks of 64 positions, for a group of queries (tokens and heads that share a KV head).
 *
 *   [A2] Blocks begin at absolute positions. A query knows nothing of the others in its group: what it does not see has a weight
 *        of exactly 0, and adds 0 or is left out, which is the same; values are never NaN for that reason ([A1] in attend.c).
 *        A query with nothing to see in a block keeps its maximum and multiplies its sums by 1. */
#ifndef WEIR_KERNELS_CPU_ATTEND_BLOCKS_H
#define WEIR_KERNELS_CPU_ATTEND_BLOCKS_H

#include <immintrin.h>

#include "kernels/cpu/ops.h"

#define BLOCK_PAGES 4
#define BLOCK (BLOCK_PAGES * WEIR_KV_BLOCK)
#define LEAST -1e30f /* below every score, and still a number */

/* The KV head's part of page number `page` of the sequence. */
static inline const char *block_page(const struct attend_job *job, const void *pages, uint32_t page)
{
    size_t head = (size_t)WEIR_KV_BLOCK * job->dims->d_head * sizeof(uint16_t);

    return (const char *)pages + ((size_t)job->table[page] * job->dims->n_kv_head + job->i_kv_head) * head;
}

/* Query `at` of the job's, by (token, head), and where its result goes in job->out. */
static inline const float *block_query(const struct attend_job *job, uint32_t at, size_t *ret_out)
{
    uint32_t n_heads = job->dims->n_head / job->dims->n_kv_head, d = job->dims->d_head;
    uint32_t t = at / n_heads, h = at % n_heads;

    *ret_out = t * job->ld_out + (size_t)h * d;
    return job->q + t * job->ld_q + (size_t)h * d;
}

/* The positions [from, to) that query `at` sees. */
static inline void block_sight(const struct attend_job *job, uint32_t at, uint32_t *ret_from,
                               uint32_t *ret_to)
{
    uint32_t to = (uint32_t)job->pos + at / (job->dims->n_head / job->dims->n_kv_head) + 1;
    uint32_t window = job->dims->window;

    *ret_from = window && window < to ? to - window : 0;
    *ret_to = to;
}

/* Of a page that begins at `position`: those in [from, to). */
static inline __mmask16 block_seen(uint32_t from, uint32_t to, uint32_t position)
{
    from = from > position ? from - position : 0;
    to = to > position ? to - position : 0;
    uint32_t below_to = to >= WEIR_KV_BLOCK ? 0xffff : (1u << to) - 1;

    return (__mmask16)(from >= WEIR_KV_BLOCK ? 0 : below_to & ~((1u << from) - 1));
}

#endif
