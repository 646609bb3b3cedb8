/* gemm.cu - products that stream weights: few tokens against bf16, any number against 8 and 4 bits, and the experts of
 * a sparse layer.
 *
 * The weights' rows are the 16 rows of mma.m16n8k16, tokens its 8 columns, so that one token wastes nothing that counts: the
 * time is that of reading the weights. A block takes 16 rows; its 8 warps share the inputs among them in chunks, and
 * what they summed is added in the order of warps. A lane reads 16 bytes of a row at once; inputs of weights and
 * activations are permuted alike (attn.cu says how).
 *   [G1] A token's sums do not depend on how many others there are: chunks, warps and their order follow from n_in alone.
 *   [G2] Weights of 8 and 4 bits are exact as bf16, a multiplier of 4 bits included; their scale is applied to the sum. */
#include "kernels/cuda/cuda_int.h"
#include "kernels/cuda/gpu.cuh"
#include "kernels/cuda/linear.cuh"
#include "kernels/cuda/quant.cuh"

#define GEMM_ROWS 16
#define GEMM_WARPS 8

/* Eight activations from k on, zeros past n. */
__device__ static inline uint4 load_x(const uint16_t *x, uint32_t k, uint32_t n)
{
    uint4 v = { 0, 0, 0, 0 };

    if (!x || k >= n)
        return v;
    if (n % 8 == 0)
        return *(const uint4 *)(x + k);
    uint32_t pairs[4];
    for (int j = 0; j < 4; j++) {
        uint32_t at = k + 2 * (uint32_t)j;
        pairs[j] = (at < n ? x[at] : 0) | (uint32_t)(at + 1 < n ? x[at + 1] : 0) << 16;
    }
    v.x = pairs[0], v.y = pairs[1], v.z = pairs[2], v.w = pairs[3];
    return v;
}

template <int KIND> __device__ static inline uint32_t byte_pair(uint32_t word, int i)
{
    return bf16_pair(byte_value((enum cuda_kind)KIND, word >> 16 * i & 255), byte_value((enum cuda_kind)KIND, word >> (16 * i + 8) & 255));
}

template <int NT> __device__ static inline void multiply_bf16(float (*c)[4], const struct cuda_weights *w, const size_t *rows,
                                                              const uint16_t *const *x, uint32_t chunk)
{
    uint32_t k = chunk * 32 + threadIdx.x % 4 * 8;
    uint4 top = *(const uint4 *)((const uint16_t *)w->data + rows[0] + k);
    uint4 low = *(const uint4 *)((const uint16_t *)w->data + rows[1] + k);
    uint32_t a0[4] = { top.x, low.x, top.y, low.y }, a1[4] = { top.z, low.z, top.w, low.w };

#pragma unroll
    for (int j = 0; j < NT; j++) {
        uint4 b = load_x(x[j], k, w->n_in);
        mma_bf16(c[j], a0, b.x, b.y);
        mma_bf16(c[j], a1, b.z, b.w);
    }
}

template <int KIND, int NT> __device__ static inline void multiply_bytes(float (*c)[4], const struct cuda_weights *w,
                                                                         const size_t *rows, const uint16_t *const *x,
                                                                         uint32_t chunk)
{
    uint32_t k = chunk * 64 + threadIdx.x % 4 * 16;
    uint4 t = *(const uint4 *)((const uint8_t *)w->data + rows[0] + k);
    uint4 l = *(const uint4 *)((const uint8_t *)w->data + rows[1] + k);
    uint32_t top[4] = { t.x, t.y, t.z, t.w }, low[4] = { l.x, l.y, l.z, l.w }, a[4][4];

#pragma unroll
    for (int s = 0; s < 4; s++) {
        a[s][0] = byte_pair<KIND>(top[s], 0);
        a[s][1] = byte_pair<KIND>(low[s], 0);
        a[s][2] = byte_pair<KIND>(top[s], 1);
        a[s][3] = byte_pair<KIND>(low[s], 1);
    }
#pragma unroll
    for (int j = 0; j < NT; j++) {
        uint4 b = load_x(x[j], k, w->n_in), b8 = load_x(x[j], k + 8, w->n_in);
        mma_bf16(c[j], a[0], b.x, b.y);
        mma_bf16(c[j], a[1], b.z, b.w);
        mma_bf16(c[j], a[2], b8.x, b8.y);
        mma_bf16(c[j], a[3], b8.z, b8.w);
    }
}

/* Two weights of 4 bits, those from bits 0 and 16 on: m (128 + q + 8) - 136 m. The bits of q + 8 behind those of 128 are the bf16 of
 * their sum, and all three numbers are exact. `by` is m twice, `less` -136 m twice. */
__device__ static inline uint32_t nibble_pair(uint32_t word, uint32_t by, uint32_t less)
{
    return bf16_fma_pair((word & 0x000f000fu) | 0x43004300u, by, less);
}

/* A lane's 32 inputs are one group, so that it needs one multiplier for each of its two rows. */
template <int NT> __device__ static inline void multiply_nibbles(float (*c)[4], const struct cuda_weights *w, const size_t *rows,
                                                                 const uint16_t *const *x, uint32_t chunk)
{
    uint32_t k = chunk * 128 + threadIdx.x % 4 * 32;
    uint4 t = *(const uint4 *)((const uint8_t *)w->data + (rows[0] + k) / 2);
    uint4 l = *(const uint4 *)((const uint8_t *)w->data + (rows[1] + k) / 2);
    float mt = (float)w->multipliers[(rows[0] + k) / 32], ml = (float)w->multipliers[(rows[1] + k) / 32];
    uint32_t top[4] = { t.x, t.y, t.z, t.w }, low[4] = { l.x, l.y, l.z, l.w };
    uint32_t by_t = bf16_pair(mt, mt), by_l = bf16_pair(ml, ml);
    uint32_t less_t = bf16_pair(-136 * mt, -136 * mt), less_l = bf16_pair(-136 * ml, -136 * ml);

#pragma unroll
    for (int s = 0; s < 4; s++) {
        uint32_t a[2][4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            a[i / 2][i % 2 * 2] = nibble_pair(top[s] >> 4 * i, by_t, less_t);
            a[i / 2][i % 2 * 2 + 1] = nibble_pair(low[s] >> 4 * i, by_l, less_l);
        }
#pragma unroll
        for (int j = 0; j < NT; j++) {
            uint4 b = load_x(x[j], k + 8 * (uint32_t)s, w->n_in);
            mma_bf16(c[j], a[0], b.x, b.y);
            mma_bf16(c[j], a[1], b.z, b.w);
        }
    }
}

/* Rows [row0, row0 + 16) for tokens [t, end), at most 8 NT of them. */
template <int KIND, int NT>
__device__ static void multiply_block(const struct linear_args *a, const struct cuda_weights *w, uint32_t row0, uint32_t t, uint32_t end)
{
    GPU_SHARED(float, part, GEMM_WARPS * GEMM_ROWS * 8 * NT);
    const uint32_t unit = KIND == CUDA_BF16 ? 32 : KIND == CUDA_Q4 ? 128 : 64;
    uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, r = lane / 4, q = lane % 4, last = w->n_out - 1;
    size_t rows[2] = { (size_t)(row0 + r < last ? row0 + r : last) * w->stride,
                       (size_t)(row0 + r + 8 < last ? row0 + r + 8 : last) * w->stride };
    const uint16_t *x[NT];
    float c[NT][4] = {};

    for (int j = 0; j < NT; j++) {
        uint32_t i = t + 8 * (uint32_t)j + r;
        x[j] = i < end ? a->x + (size_t)linear_row_in(a, i) * w->n_in : nullptr;
    }
#pragma unroll 4
    for (uint32_t chunk = warp; chunk * unit < w->n_in; chunk += GEMM_WARPS) {
        if (KIND == CUDA_BF16)
            multiply_bf16<NT>(c, w, rows, x, chunk);
        else if (KIND == CUDA_Q4)
            multiply_nibbles<NT>(c, w, rows, x, chunk);
        else
            multiply_bytes<KIND, NT>(c, w, rows, x, chunk);
    }
    for (int j = 0; j < NT; j++)
        for (int i = 0; i < 4; i++)
            part[(warp * 8 * NT + 8 * (uint32_t)j + 2 * q + i % 2) * GEMM_ROWS + r + i / 2 * 8] = c[j][i];
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < 8 * NT * GEMM_ROWS; i += GEMM_WARPS * 32) {
        uint32_t row = row0 + i % GEMM_ROWS, tok = t + i / GEMM_ROWS;
        float sum = 0;
        for (uint32_t j = 0; j < GEMM_WARPS; j++)
            sum += part[j * 8 * NT * GEMM_ROWS + i];
        if (row >= w->n_out || tok >= end)
            continue;
        size_t at = (size_t)linear_row_out(a, tok) * w->n_out + row;
        sum = KIND == CUDA_BF16 ? sum : sum * w->scale[row];
        if (a->out_f32)
            ((float *)a->out)[at] = sum;
        else
            ((uint16_t *)a->out)[at] = bf16_of(sum);
    }
    __syncthreads();
}

template <int KIND, int NT> __global__ void __launch_bounds__(GEMM_WARPS * 32) linear_kernel(struct linear_args a)
{
    uint32_t row0 = blockIdx.x * GEMM_ROWS;

    if (a.experts) {
        struct cuda_weights w = a.experts[blockIdx.y];
        uint32_t end = (uint32_t)a.begin[blockIdx.y + 1];
        for (uint32_t t = (uint32_t)a.begin[blockIdx.y]; t < end; t += 8 * NT)
            multiply_block<KIND, NT>(&a, &w, row0, t, end);
    } else {
        multiply_block<KIND, NT>(&a, &a.w, row0, blockIdx.y * 8 * NT, a.n_tok);
    }
}

template <int KIND> static void launch(gpu_stream s, const struct linear_args &a, uint32_t n_out, uint32_t n_group, uint32_t n_tok)
{
    uint32_t blocks = gpu_ceil_div(n_out, GEMM_ROWS), threads = GEMM_WARPS * 32;
    uint32_t wide = n_tok <= 8 ? 8 : n_tok <= 16 ? 16 : n_tok <= 32 ? 32 : 64;
    dim3 grid(blocks, n_group ? n_group : gpu_ceil_div(n_tok, wide));

    if (wide == 8)
        GPU_LAUNCH((linear_kernel<KIND, 1>), grid, threads, 0, s, a);
    else if (wide == 16)
        GPU_LAUNCH((linear_kernel<KIND, 2>), grid, threads, 0, s, a);
    else if (wide == 32)
        GPU_LAUNCH((linear_kernel<KIND, 4>), grid, threads, 0, s, a);
    else
        GPU_LAUNCH((linear_kernel<KIND, 8>), grid, threads, 0, s, a);
}

void linear_launch(struct dev_stream *stream, const struct linear_args *a, enum cuda_kind kind, uint32_t n_out, uint32_t n_group,
                   uint32_t n_tok)
{
    gpu_stream s = (gpu_stream)stream;

    if (kind == CUDA_BF16)
        launch<CUDA_BF16>(s, *a, n_out, n_group, n_tok);
    else if (kind == CUDA_Q8)
        launch<CUDA_Q8>(s, *a, n_out, n_group, n_tok);
    else if (kind == CUDA_Q4)
        launch<CUDA_Q4>(s, *a, n_out, n_group, n_tok);
    else
        launch<CUDA_FP8>(s, *a, n_out, n_group, n_tok);
}

void cuda_stream_linear(struct dev_stream *s, void *out, int out_f32, const uint16_t *x, const struct cuda_weights *w,
                        uint32_t n_tok)
{
    struct linear_args a = {};

    a.w = *w;
    a.x = x;
    a.out = out;
    a.out_f32 = out_f32;
    a.n_tok = n_tok;
    linear_launch(s, &a, w->kind, w->n_out, /* n_group= */ 0, n_tok);
}
