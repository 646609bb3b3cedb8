/* gemm.cu - products that stream weights: few tokens against bf16, any number against 8 and 4 bits, and the experts of
 * a sparse layer.
 *
 * The weights' rows are the 16 rows of mma.m16n8k16, tokens its 8 columns, so that one token wastes nothing that counts: the
 * time is that of reading the weights. A block takes 16 rows; its 8 warps share the inputs among them in chunks, and
 * what they summed is added in the order of warps. A lane takes 16 bytes of a row at once. They pass through shared memory, where
 * only the lane itself reads them: copies are asynchronous, so that several chunks are under way whatever the compiler does with
 * loads. Inputs of weights and activations are permuted alike (attn.cu says how).
 *   [G1] A token's sums do not depend on how many others there are: chunks, warps and their order follow from n_in alone.
 *   [G2] Weights of 8 and 4 bits are exact as bf16, a multiplier of 4 bits included; their scale is applied to the sum. */
#include "kernels/cuda/cuda_int.h"
#include "kernels/cuda/gpu.cuh"
#include "kernels/cuda/linear.cuh"
#include "kernels/cuda/quant.cuh"

#define GEMM_ROWS 16
#define GEMM_WARPS 8
#define CHUNKS_AHEAD 3 /* of a warp, under way behind the one that is multiplied */
#define RING_SLOTS (CHUNKS_AHEAD + 1)

/* ---- activations ---- */
/* How eight of them from k on are read: WHOLE at once; at the row's END with zeros past n; of RAGGED rows, whose n is no multiple
 * of 8, one by one, as they are not aligned. */
enum x_rows { X_WHOLE, X_END, X_RAGGED };

template <enum x_rows X> __device__ static inline uint4 load_x(const uint16_t *x, uint32_t k, uint32_t n)
{
    if (X == X_WHOLE || (X == X_END && k < n))
        return *(const uint4 *)(x + k);
    uint32_t pairs[4] = { 0, 0, 0, 0 };
    for (int j = 0; X == X_RAGGED && j < 4; j++) {
        uint32_t at = k + 2 * (uint32_t)j;
        pairs[j] = (at < n ? x[at] : 0) | (uint32_t)(at + 1 < n ? x[at + 1] : 0) << 16;
    }
    return uint4{ pairs[0], pairs[1], pairs[2], pairs[3] };
}

/* The rows of a lane's columns; a column without a token has another's, and its sums are not used. */
template <int NT> struct tokens {
    const uint16_t *x[NT];
    uint32_t n_in;
};

/* c += a chunk's fragments a [STEPS] times the activations from k on, 16 inputs a step. */
template <int NT, enum x_rows X, int STEPS>
__device__ static inline void multiply(float (*c)[4], const uint32_t (*a)[4], const struct tokens<NT> *t, uint32_t k)
{
#pragma unroll
    for (int j = 0; j < NT; j++)
#pragma unroll
        for (int s = 0; s < STEPS; s += 2) {
            uint4 b = load_x<X>(t->x[j], k + 4 * (uint32_t)s, t->n_in);
            mma_bf16(c[j], a[s], b.x, b.y);
            mma_bf16(c[j], a[s + 1], b.z, b.w);
        }
}

/* ---- chunks ---- */
template <int KIND> __device__ static inline constexpr uint32_t chunk_inputs()
{
    return KIND == CUDA_BF16 ? 32 : KIND == CUDA_Q4 ? 128 : 64;
}

/* The lane's first input of a chunk. */
template <int KIND> __device__ static inline uint32_t chunk_begin(uint32_t i)
{
    return i * chunk_inputs<KIND>() + threadIdx.x % 4 * (chunk_inputs<KIND>() / 4);
}

/* What a lane has of a chunk: of two rows 16 bytes, and of Q4 the four multipliers of the row's part. */
template <int KIND> struct chunk {
    uint4 top, low;
    uint32_t by_top, by_low;
};

/* A warp's chunks in shared memory: each lane its own places. */
struct ring {
    uint4 weights[RING_SLOTS][2][32];
    uint32_t by[RING_SLOTS][2][32];
};

template <int KIND>
__device__ static inline void fetch_chunk(struct ring *ring, const struct cuda_weights *w, const size_t *rows, uint32_t i)
{
    uint32_t lane = threadIdx.x % 32, slot = i / GEMM_WARPS % RING_SLOTS;

#pragma unroll
    for (int row = 0; row < 2; row++) {
        size_t at = rows[row] + chunk_begin<KIND>(i);
        size_t byte = KIND == CUDA_BF16 ? 2 * at : KIND == CUDA_Q4 ? at / 2 : at;
        gpu_copy_async(&ring->weights[slot][row][lane], (const uint4 *)((const uint8_t *)w->data + byte));
        if (KIND == CUDA_Q4)
            gpu_copy_async_word(&ring->by[slot][row][lane],
                                (const uint32_t *)(w->multipliers + (rows[row] + i * chunk_inputs<KIND>()) / 32));
    }
}

template <int KIND> __device__ static inline struct chunk<KIND> take_chunk(const struct ring *ring, uint32_t i)
{
    uint32_t lane = threadIdx.x % 32, slot = i / GEMM_WARPS % RING_SLOTS, by = threadIdx.x % 4 * 8;
    struct chunk<KIND> taken = { ring->weights[slot][0][lane], ring->weights[slot][1][lane], 0, 0 };

    if (KIND == CUDA_Q4) {
        taken.by_top = ring->by[slot][0][lane] >> by & 255;
        taken.by_low = ring->by[slot][1][lane] >> by & 255;
    }
    return taken;
}

/* multiply_chunk: c += a chunk of its kind times the activations from k on. */
template <int NT, enum x_rows X>
__device__ static inline void multiply_chunk(float (*c)[4], const struct chunk<CUDA_BF16> *h, const struct tokens<NT> *t, uint32_t k)
{
    uint32_t a[2][4] = { { h->top.x, h->low.x, h->top.y, h->low.y }, { h->top.z, h->low.z, h->top.w, h->low.w } };

    multiply<NT, X, 2>(c, a, t, k);
}

template <int KIND> __device__ static inline uint32_t byte_pair(uint32_t word, int i)
{
    return bf16_pair(byte_value((enum cuda_kind)KIND, word >> 16 * i & 255), byte_value((enum cuda_kind)KIND, word >> (16 * i + 8) & 255));
}

template <int NT, enum x_rows X, int KIND>
__device__ static inline void multiply_chunk(float (*c)[4], const struct chunk<KIND> *h, const struct tokens<NT> *t, uint32_t k)
{
    uint32_t top[4] = { h->top.x, h->top.y, h->top.z, h->top.w }, low[4] = { h->low.x, h->low.y, h->low.z, h->low.w }, a[4][4];

#pragma unroll
    for (int s = 0; s < 4; s++) {
        a[s][0] = byte_pair<KIND>(top[s], 0);
        a[s][1] = byte_pair<KIND>(low[s], 0);
        a[s][2] = byte_pair<KIND>(top[s], 1);
        a[s][3] = byte_pair<KIND>(low[s], 1);
    }
    multiply<NT, X, 4>(c, a, t, k);
}

/* Two weights of 4 bits, those from bits 0 and 16 on: m (128 + q + 8) - 136 m. The bits of q + 8 behind those of 128 are the bf16 of
 * their sum, and all three numbers are exact. `by` is m twice, `less` -136 m twice. */
__device__ static inline uint32_t nibble_pair(uint32_t word, uint32_t by, uint32_t less)
{
    return bf16_fma_pair((word & 0x000f000fu) | 0x43004300u, by, less);
}

/* A lane's 32 inputs are one group, so that it needs one multiplier for each of its two rows. */
template <int NT, enum x_rows X>
__device__ static inline void multiply_chunk(float (*c)[4], const struct chunk<CUDA_Q4> *h, const struct tokens<NT> *t, uint32_t k)
{
    float mt = (float)h->by_top, ml = (float)h->by_low;
    uint32_t top[4] = { h->top.x, h->top.y, h->top.z, h->top.w }, low[4] = { h->low.x, h->low.y, h->low.z, h->low.w };
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
        multiply<NT, X, 2>(c, a, t, k + 8 * (uint32_t)s);
    }
}

/* A warp's chunks, in order. */
template <int KIND, int NT>
__device__ static inline void sum_chunks(float (*c)[4], struct ring *ring, const struct cuda_weights *w, const size_t *rows,
                                         const struct tokens<NT> *t)
{
    const uint32_t unit = chunk_inputs<KIND>(), step = GEMM_WARPS, ahead = CHUNKS_AHEAD * step;
    uint32_t n = gpu_ceil_div(w->n_in, unit), n_whole = w->n_in % 8 ? 0 : w->n_in / unit, warp = threadIdx.x / 32;

    for (uint32_t i = warp; i < warp + ahead; i += step) {
        if (i < n)
            fetch_chunk<KIND>(ring, w, rows, i);
        gpu_copy_commit();
    }
    for (uint32_t i = warp; i < n; i += step) {
        if (i + ahead < n) /* over the chunk before, which was multiplied */
            fetch_chunk<KIND>(ring, w, rows, i + ahead);
        gpu_copy_commit();
        gpu_copy_wait<CHUNKS_AHEAD>();
        struct chunk<KIND> taken = take_chunk<KIND>(ring, i);
        if (i < n_whole)
            multiply_chunk<NT, X_WHOLE>(c, &taken, t, chunk_begin<KIND>(i));
        else if (w->n_in % 8 == 0)
            multiply_chunk<NT, X_END>(c, &taken, t, chunk_begin<KIND>(i));
        else
            multiply_chunk<NT, X_RAGGED>(c, &taken, t, chunk_begin<KIND>(i));
    }
}

/* Rows [row0, row0 + 16) for tokens [t, end), at most 8 NT of them. */
template <int KIND, int NT>
__device__ static void multiply_block(const struct linear_args *a, const struct cuda_weights *w, uint32_t row0, uint32_t t, uint32_t end)
{
    GPU_SHARED_DYNAMIC(uint4, shared); /* first a ring a warp, then what each has summed */
    float *part = (float *)shared;
    uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, r = lane / 4, q = lane % 4, last = w->n_out - 1;
    size_t rows[2] = { (size_t)(row0 + r < last ? row0 + r : last) * w->stride,
                       (size_t)(row0 + r + 8 < last ? row0 + r + 8 : last) * w->stride };
    struct tokens<NT> tok = {};
    float c[NT][4] = {};

    tok.n_in = w->n_in;
    for (int j = 0; j < NT; j++) {
        uint32_t i = t + 8 * (uint32_t)j + r;
        tok.x[j] = a->x + (size_t)linear_row_in(a, i < end ? i : t) * w->n_in;
    }
    sum_chunks<KIND, NT>(c, (struct ring *)shared + warp, w, rows, &tok);
    __syncthreads();
    for (int j = 0; j < NT; j++)
        for (int i = 0; i < 4; i++)
            part[(warp * 8 * NT + 8 * (uint32_t)j + 2 * q + i % 2) * GEMM_ROWS + r + i / 2 * 8] = c[j][i];
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < 8 * NT * GEMM_ROWS; i += GEMM_WARPS * 32) {
        uint32_t row = row0 + i % GEMM_ROWS, to = t + i / GEMM_ROWS;
        float sum = 0;
        for (uint32_t j = 0; j < GEMM_WARPS; j++)
            sum += part[j * 8 * NT * GEMM_ROWS + i];
        if (row >= w->n_out || to >= end)
            continue;
        size_t at = (size_t)linear_row_out(a, to) * w->n_out + row;
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

template <int KIND, int NT> static void launch_wide(gpu_stream s, const struct linear_args &a, dim3 grid)
{
    size_t rings = GEMM_WARPS * sizeof(struct ring), sums = GEMM_WARPS * GEMM_ROWS * 8 * NT * sizeof(float);

    GPU_LAUNCH((linear_kernel<KIND, NT>), grid, GEMM_WARPS * 32, rings > sums ? rings : sums, s, a);
}

template <int KIND> static void launch(gpu_stream s, const struct linear_args &a, uint32_t n_out, uint32_t n_group, uint32_t n_tok)
{
    uint32_t wide = n_tok <= 8 ? 8 : n_tok <= 16 ? 16 : n_tok <= 32 ? 32 : 64;
    dim3 grid(gpu_ceil_div(n_out, GEMM_ROWS), n_group ? n_group : gpu_ceil_div(n_tok, wide));

    if (wide == 8)
        launch_wide<KIND, 1>(s, a, grid);
    else if (wide == 16)
        launch_wide<KIND, 2>(s, a, grid);
    else if (wide == 32)
        launch_wide<KIND, 4>(s, a, grid);
    else
        launch_wide<KIND, 8>(s, a, grid);
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
