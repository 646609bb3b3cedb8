/* moe.cu - routing tokens to experts, and the experts' products grouped by expert without the host knowing the counts. */
#include "kernels/cuda/cuda_int.h"
#include "kernels/cuda/gpu.cuh"
#include "kernels/cuda/linear.cuh"

#define ROUTE_WARPS 4
#define ROUTE_LANE (WEIR_EXPERTS_MAX / 32)
#define MOE_THREADS 256

/* ---- routing: a warp a token; lane i holds experts i, i + 32, ... ---- */
struct best {
    float p;
    int32_t expert;
};

__device__ static inline struct best best_of_warp(struct best b)
{
    for (int lanes = 16; lanes; lanes >>= 1) {
        float p = __shfl_xor_sync(GPU_ALL, b.p, lanes);
        int32_t expert = __shfl_xor_sync(GPU_ALL, b.expert, lanes);
        if (p > b.p || (p == b.p && expert < b.expert)) {
            b.p = p;
            b.expert = expert;
        }
    }
    return b;
}

__global__ void route_kernel(int32_t *expert, float *weight, const uint16_t *logits, uint32_t n_tok, uint32_t n_expert,
                             uint32_t n_used, int renormalize)
{
    uint32_t t = blockIdx.x * ROUTE_WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
    float p[ROUTE_LANE], top = -GPU_INF, total = 0, taken = 0;

    if (t >= n_tok)
        return;
#pragma unroll
    for (int i = 0; i < ROUTE_LANE; i++) {
        uint32_t e = lane + 32 * (uint32_t)i;
        p[i] = e < n_expert ? bf16_f32(logits[(size_t)t * n_expert + e]) : -GPU_INF;
        top = fmaxf(top, p[i]);
    }
    top = warp_max(top);
#pragma unroll
    for (int i = 0; i < ROUTE_LANE; i++) {
        p[i] = p[i] == -GPU_INF ? 0.0f : gpu_exp2((p[i] - top) * 1.44269504f);
        total += p[i];
    }
    total = warp_sum(total);
    for (uint32_t j = 0; j < n_used; j++) {
        struct best b = { -1.0f, WEIR_EXPERTS_MAX };
#pragma unroll
        for (int i = 0; i < ROUTE_LANE; i++)
            if (lane + 32 * (uint32_t)i < n_expert && p[i] > b.p) {
                b.p = p[i];
                b.expert = (int32_t)lane + 32 * i;
            }
        b = best_of_warp(b);
        taken += b.p;
#pragma unroll
        for (int i = 0; i < ROUTE_LANE; i++)
            if (b.expert == (int32_t)lane + 32 * i)
                p[i] = -2.0f;
        if (lane == 0) {
            expert[(size_t)t * n_used + j] = b.expert;
            weight[(size_t)t * n_used + j] = b.p;
        }
    }
    __syncwarp();
    if (lane == 0)
        for (uint32_t j = 0; j < n_used; j++)
            weight[(size_t)t * n_used + j] /= renormalize ? taken : total;
}

void cuda_route(struct dev_stream *s, int32_t *expert, float *weight, const uint16_t *logits, uint32_t n_tok,
                uint32_t n_expert, uint32_t n_used, int renormalize)
{
    GPU_LAUNCH(route_kernel, gpu_ceil_div(n_tok, ROUTE_WARPS), ROUTE_WARPS * 32, 0, (gpu_stream)s, expert, weight, logits,
               n_tok, n_expert, n_used, renormalize);
}

/* ---- pairs of a token and one of its experts, sorted by expert: thread e counts and lists those of expert e ---- */
__global__ void __launch_bounds__(MOE_THREADS)
    group_kernel(int32_t *begin, int32_t *pairs, const int32_t *expert, uint32_t n_pair, uint32_t n_expert)
{
    GPU_SHARED(int32_t, first, WEIR_EXPERTS_MAX + 1);
    int32_t e = (int32_t)threadIdx.x, n = 0;

    for (uint32_t i = 0; i < n_pair; i++)
        n += expert[i] == e;
    first[e + 1] = n;
    __syncthreads();
    if (e == 0) {
        first[0] = 0;
        for (uint32_t i = 0; i < n_expert; i++)
            first[i + 1] += first[i];
    }
    __syncthreads();
    if ((uint32_t)e >= n_expert)
        return;
    int32_t at = first[e];
    for (uint32_t i = 0; i < n_pair; i++)
        if (expert[i] == e)
            pairs[at++] = (int32_t)i;
    begin[e] = first[e];
    if ((uint32_t)e + 1 == n_expert)
        begin[n_expert] = first[n_expert];
}

/* out [t] = sum over j, in order, of weight[t][j] * y of pair (t, j). */
__global__ void combine_kernel(uint16_t *out, const float *y, const float *weight, uint32_t n_used, uint32_t n)
{
    size_t t = blockIdx.x;

    for (uint32_t i = threadIdx.x; i < n; i += blockDim.x) {
        float sum = 0;
        for (uint32_t j = 0; j < n_used; j++)
            sum = __fmaf_rn(weight[t * n_used + j], y[(t * n_used + j) * n + i], sum);
        out[t * n + i] = bf16_of(sum);
    }
}

void cuda_experts_run(struct dev_stream *s, uint16_t *out, const uint16_t *x, const struct cuda_experts *e,
                      const int32_t *expert, const float *weight, uint32_t n_tok)
{
    uint32_t n_pair = n_tok * e->n_used;
    struct linear_args a = {};

    GPU_LAUNCH(group_kernel, 1, MOE_THREADS, 0, (gpu_stream)s, e->begin, e->pairs, expert, n_pair, e->n_expert);
    a.experts = e->gate_up;
    a.begin = e->begin;
    a.pairs = e->pairs;
    a.row_div = e->n_used;
    a.x = x;
    a.out = e->gate;
    linear_launch(s, &a, e->kind, 2 * e->d_ffn, e->n_expert, n_tok);
    cuda_silu_mul(s, e->act, e->gate, n_pair, e->d_ffn);
    a.experts = e->down;
    a.row_div = 1;
    a.x = e->act;
    a.out = e->y;
    a.out_f32 = 1;
    linear_launch(s, &a, e->kind, e->d_model, e->n_expert, n_tok);
    GPU_LAUNCH(combine_kernel, n_tok, MOE_THREADS, 0, (gpu_stream)s, out, e->y, weight, e->n_used, e->d_model);
}
