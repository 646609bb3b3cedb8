/* linear.cuh - the streaming product's arguments, for gemm.cu and moe.cu. */
#pragma once

#include "kernels/cuda/cuda_int.h"
#include "kernels/cuda/gpu.cuh"

/* Plain: rows of x by w. With experts: group g is pairs[begin[g] .. begin[g + 1]) by experts[g]; pair p reads row p / row_div of
 * x and writes row p of out. */
struct linear_args {
    struct cuda_weights w;
    const struct cuda_weights *experts;
    const int32_t *begin, *pairs;
    uint32_t row_div;
    const uint16_t *x;
    void *out;
    int out_f32;
    uint32_t n_tok;
};

__device__ static inline uint32_t linear_row_in(const struct linear_args *a, uint32_t i)
{
    return a->experts ? (uint32_t)a->pairs[i] / a->row_div : i;
}

__device__ static inline uint32_t linear_row_out(const struct linear_args *a, uint32_t i)
{
    return a->experts ? (uint32_t)a->pairs[i] : i;
}

/* n_tok: how many a group has at most is enough for the choice of a kernel; n_group 0 = plain. */
void linear_launch(struct dev_stream *s, const struct linear_args *a, enum cuda_kind kind, uint32_t n_out, uint32_t n_group,
                   uint32_t n_tok);
