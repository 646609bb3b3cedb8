/* rows.cu - operations whose rows stand alone: embedding, norms, the gated product. A block of threads takes a row; its sums
 * run over threads in strides, then over a warp, then over warps: an order that the width alone decides. */
#include "kernels/cuda/cuda_int.h"
#include "kernels/cuda/gpu.cuh"
#include "kernels/cuda/quant.cuh"

#define ROW_THREADS 256

/* ---- embedding ---- */
__global__ void embed_kernel(uint16_t *out, struct cuda_weights w, const int32_t *ids)
{
    size_t row = (size_t)ids[blockIdx.x];

    for (uint32_t i = threadIdx.x; i < w.n_in; i += blockDim.x)
        out[(size_t)blockIdx.x * w.n_in + i] = bf16_of(weight_at(&w, row, i));
}

void cuda_embed(struct dev_stream *s, uint16_t *out, const struct cuda_weights *w, const struct cuda_batch *batch)
{
    GPU_LAUNCH(embed_kernel, batch->n_tok, ROW_THREADS, 0, (gpu_stream)s, out, *w, batch->ids);
}

/* ---- norms ---- */
__device__ static float block_sum(float sum)
{
    GPU_SHARED(float, of_warp, ROW_THREADS / 32);

    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0)
        of_warp[threadIdx.x / 32] = sum;
    __syncthreads();
    sum = 0;
    for (int i = 0; i < ROW_THREADS / 32; i++)
        sum += of_warp[i];
    return sum;
}

/* Eight numbers at a time where rows are aligned to 16 bytes. x += delta, rounded as it is kept; its squares are summed. */
__device__ static inline uint32_t add_pair(uint32_t x, uint32_t delta, float *sum)
{
    uint32_t pair = bf16_pair(bf16_low(x) + bf16_low(delta), bf16_high(x) + bf16_high(delta));
    *sum = __fmaf_rn(bf16_low(pair), bf16_low(pair), *sum);
    *sum = __fmaf_rn(bf16_high(pair), bf16_high(pair), *sum);
    return pair;
}

__device__ static inline uint32_t norm_pair(uint32_t x, const float *weight, float factor)
{
    return bf16_pair(bf16_low(x) * factor * weight[0], bf16_high(x) * factor * weight[1]);
}

__device__ static void norm_row_wide(uint16_t *out, uint16_t *x, const uint16_t *delta, const float *weight,
                                     uint32_t n, float eps)
{
    const uint4 zero = { 0, 0, 0, 0 };
    float sum = 0;

    for (uint32_t i = threadIdx.x; i < n / 8; i += ROW_THREADS) {
        uint4 v = ((const uint4 *)x)[i], d = delta ? ((const uint4 *)delta)[i] : zero;
        v.x = add_pair(v.x, d.x, &sum);
        v.y = add_pair(v.y, d.y, &sum);
        v.z = add_pair(v.z, d.z, &sum);
        v.w = add_pair(v.w, d.w, &sum);
        if (delta)
            ((uint4 *)x)[i] = v;
    }
    float factor = 1.0f / sqrtf(block_sum(sum) / (float)n + eps);
    for (uint32_t i = threadIdx.x; i < n / 8; i += ROW_THREADS) { /* each thread reads what it wrote itself */
        uint4 v = ((const uint4 *)x)[i];
        v.x = norm_pair(v.x, weight + 8 * i, factor);
        v.y = norm_pair(v.y, weight + 8 * i + 2, factor);
        v.z = norm_pair(v.z, weight + 8 * i + 4, factor);
        v.w = norm_pair(v.w, weight + 8 * i + 6, factor);
        ((uint4 *)out)[i] = v;
    }
}

__device__ static void norm_row_any(uint16_t *out, uint16_t *x, const uint16_t *delta, const float *weight, uint32_t n,
                                    float eps)
{
    float sum = 0;

    for (uint32_t i = threadIdx.x; i < n; i += ROW_THREADS) {
        uint16_t bits = delta ? bf16_of(bf16_f32(x[i]) + bf16_f32(delta[i])) : x[i];
        if (delta)
            x[i] = bits;
        sum = __fmaf_rn(bf16_f32(bits), bf16_f32(bits), sum);
    }
    float factor = 1.0f / sqrtf(block_sum(sum) / (float)n + eps);
    for (uint32_t i = threadIdx.x; i < n; i += ROW_THREADS)
        out[i] = bf16_of(bf16_f32(x[i]) * factor * weight[i]);
}

__global__ void __launch_bounds__(ROW_THREADS)
    rmsnorm_kernel(uint16_t *out, uint16_t *x, const uint16_t *delta, const int32_t *rows, const float *weight, uint32_t n,
                   float eps)
{
    size_t to = (size_t)blockIdx.x * n, from = rows ? (size_t)rows[blockIdx.x] * n : to;
    const uint16_t *d = delta ? delta + from : nullptr;

    if (n % 8 == 0)
        norm_row_wide(out + to, x + from, d, weight, n, eps);
    else
        norm_row_any(out + to, x + from, d, weight, n, eps);
}

void cuda_add_rmsnorm(struct dev_stream *s, uint16_t *out, uint16_t *x, const uint16_t *delta, const float *weight,
                      uint32_t n_tok, uint32_t n, float eps)
{
    const int32_t *rows = nullptr;
    GPU_LAUNCH(rmsnorm_kernel, n_tok, ROW_THREADS, 0, (gpu_stream)s, out, x, delta, rows, weight, n, eps);
}

void cuda_gather_rmsnorm(struct dev_stream *s, uint16_t *out, const uint16_t *x, const int32_t *rows, uint32_t n_rows,
                         const float *weight, uint32_t n, float eps)
{
    uint16_t *same = (uint16_t *)x; /* without a delta nothing is written to it */
    const uint16_t *delta = nullptr;
    GPU_LAUNCH(rmsnorm_kernel, n_rows, ROW_THREADS, 0, (gpu_stream)s, out, same, delta, rows, weight, n, eps);
}

/* ---- gated product ---- */
__device__ static inline float silu(float x)
{
    return gpu_divide(x, 1.0f + gpu_exp2(-x * 1.44269504f));
}

__device__ static inline uint32_t silu_pair(uint32_t gate, uint32_t up)
{
    return bf16_pair(silu(bf16_low(gate)) * bf16_low(up), silu(bf16_high(gate)) * bf16_high(up));
}

__global__ void __launch_bounds__(ROW_THREADS) silu_kernel(uint16_t *out, const uint16_t *gate_up, uint32_t n)
{
    const uint16_t *gate = gate_up + (size_t)blockIdx.x * 2 * n, *up = gate + n;
    uint32_t first = blockIdx.y * ROW_THREADS + threadIdx.x, step = gridDim.y * ROW_THREADS;

    out += (size_t)blockIdx.x * n;
    if (n % 8 == 0) {
        for (uint32_t i = first; i < n / 8; i += step) {
            uint4 g = ((const uint4 *)gate)[i], u = ((const uint4 *)up)[i];
            uint4 y = { silu_pair(g.x, u.x), silu_pair(g.y, u.y), silu_pair(g.z, u.z), silu_pair(g.w, u.w) };
            ((uint4 *)out)[i] = y;
        }
        return;
    }
    for (uint32_t i = first; i < n; i += step)
        out[i] = bf16_of(silu(bf16_f32(gate[i])) * bf16_f32(up[i]));
}

void cuda_silu_mul(struct dev_stream *s, uint16_t *out, const uint16_t *gate_up, uint32_t n_tok, uint32_t n)
{
    dim3 grid(n_tok, gpu_ceil_div(n, 8 * ROW_THREADS));
    GPU_LAUNCH(silu_kernel, grid, ROW_THREADS, 0, (gpu_stream)s, out, gate_up, n);
}

/* ---- bias ---- */
__global__ void bias_kernel(uint16_t *x, const float *bias, uint32_t n)
{
    x += (size_t)blockIdx.x * n;
    for (uint32_t i = threadIdx.x; i < n; i += blockDim.x)
        x[i] = bf16_of(bf16_f32(x[i]) + bias[i]);
}

void cuda_add_bias(struct dev_stream *s, uint16_t *x, const float *bias, uint32_t n_tok, uint32_t n)
{
    GPU_LAUNCH(bias_kernel, n_tok, ROW_THREADS, 0, (gpu_stream)s, x, bias, n);
}
