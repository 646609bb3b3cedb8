/* attn.cu - keys and values into pages, and attention over them: one kernel for decoding, for prompts in chunks and for both mixed.
 *
 * Pages, d = cuda_d_pad(d_head) numbers a head: keys [page][n_kv_head][16][d], values [page][n_kv_head][d][16]. So laid out,
 * what a lane needs of both for mma.m16n8k16 is 16 or 8 bytes in a row and goes from memory straight to its registers, the eight
 * rows of a warp's load side by side: no shared memory, no transposition. mma sums over pairs of inputs in an order of its
 * own; a and b are permuted alike.
 *
 * A warp takes 16 rows: tokens of one sequence times query heads that share a KV head. It walks over tiles of 64
 * positions. Each tile is a softmax of its own (max m, sum l, sums o) that is merged into what came before, in the order of
 * positions and with a fixed arithmetic (merge() below).
 *   [A1] So whether one warp walks all tiles, or each tile is another warp's and a second kernel merges them, and whichever
 *        rows stand beside it, a row's bits are the same.
 *   [A2] Values past the last position of a warp's rows are not used: memory that was never written may hold NaN.
 * Sources: Dao et al. 2022 (tiles), Milakov and Gimelshein 2018 (merging), Kwon et al. 2023 (pages). */
#include "kernels/cuda/cuda_int.h"
#include "kernels/cuda/gpu.cuh"

#define ATTN_WARPS 4
#define TILE_PAGES (CUDA_ATTN_TILE / WEIR_KV_BLOCK)

uint32_t cuda_d_pad(uint32_t d_head)
{
    static const uint32_t sizes[] = { 32, 64, 96, 128, 192, CUDA_D_MAX };

    for (uint32_t size : sizes)
        if (d_head <= size)
            return size;
    return 0;
}

/* ---- bias, norm of heads, rotation, store ---- */
struct store_args {
    uint16_t *qkv, *k, *v;
    const float *bias, *q_norm, *k_norm, *cos, *sin;
    float eps;
    struct cuda_batch batch;
    struct weir_attn_dims dims;
    uint32_t d_pad;
};

/* Number i of head `head` of token t: what the product gave, and the bias. */
__device__ static inline float store_input(const struct store_args *a, size_t row, uint32_t at)
{
    return bf16_f32(a->qkv[row + at]) + (a->bias ? a->bias[at] : 0.0f);
}

__device__ static void store_value(const struct store_args *a, size_t row, uint32_t head_at, uint16_t *v, uint32_t lane)
{
    for (uint32_t i = lane; i < a->d_pad; i += 32)
        v[i * WEIR_KV_BLOCK] = i < a->dims.d_head ? bf16_of(store_input(a, row, head_at + i)) : 0;
}

__device__ static void store_rotated(const struct store_args *a, size_t row, uint32_t head_at, int32_t pos,
                                     const float *norm, uint16_t *out, uint32_t n_zero, uint32_t lane)
{
    uint32_t d = a->dims.d_head, half = d / 2;
    float factor = 1;

    if (norm) {
        float sum = 0;
        for (uint32_t i = lane; i < d; i += 32) {
            float x = store_input(a, row, head_at + i);
            sum = __fmaf_rn(x, x, sum);
        }
        factor = 1.0f / sqrtf(warp_sum(sum) / (float)d + a->eps);
    }
    for (uint32_t i = lane; i < half; i += 32) { /* a lane writes only over what it has read itself */
        float x = store_input(a, row, head_at + i) * factor, y = store_input(a, row, head_at + i + half) * factor;
        float c = a->cos[(size_t)pos * half + i], s = a->sin[(size_t)pos * half + i];
        if (norm) {
            x *= norm[i];
            y *= norm[i + half];
        }
        out[i] = bf16_of(__fmaf_rn(x, c, -__fmul_rn(y, s)));
        out[i + half] = bf16_of(__fmaf_rn(y, c, __fmul_rn(x, s)));
    }
    for (uint32_t i = d + lane; i < n_zero; i += 32)
        out[i] = 0;
}

__global__ void store_kernel(struct store_args a)
{
    uint32_t t = blockIdx.x, lane = threadIdx.x % 32, head = blockIdx.y * ATTN_WARPS + threadIdx.x / 32;
    uint32_t n_q = a.dims.n_head, n_kv = a.dims.n_kv_head, d = a.dims.d_head;
    int32_t pos = a.batch.pos[t];

    if (head >= n_q + 2 * n_kv || pos < 0)
        return;
    size_t row = (size_t)t * (n_q + 2 * n_kv) * d;
    const int32_t *table = a.batch.table + (size_t)a.batch.seq[t] * a.batch.n_block_max;
    if (head < n_q) {
        store_rotated(&a, row, head * d, pos, a.q_norm, a.qkv + row + (size_t)head * d, 0, lane);
        return;
    }
    uint32_t h = (head - n_q) % n_kv, slot = (uint32_t)pos % WEIR_KV_BLOCK;
    size_t page = ((size_t)table[pos / WEIR_KV_BLOCK] * n_kv + h) * WEIR_KV_BLOCK * a.d_pad;
    if (head < n_q + n_kv)
        store_rotated(&a, row, head * d, pos, a.k_norm, a.k + page + (size_t)slot * a.d_pad, a.d_pad, lane);
    else
        store_value(&a, row, head * d, a.v + page + slot, lane);
}

void cuda_qkv_store(struct dev_stream *s, uint16_t *qkv, const struct weir_qkv *how, uint16_t *k, uint16_t *v,
                    const struct cuda_batch *batch, const struct weir_attn_dims *dims)
{
    struct store_args a = { qkv,       k,        v,        how->bias, how->q_norm, how->k_norm,
                            how->cos,  how->sin, how->eps, *batch,    *dims,       cuda_d_pad(dims->d_head) };
    dim3 grid(batch->n_tok, gpu_ceil_div(dims->n_head + 2 * dims->n_kv_head, ATTN_WARPS));
    GPU_LAUNCH(store_kernel, grid, ATTN_WARPS * 32, 0, (gpu_stream)s, a);
}

/* ---- attention ---- */
struct attend_args {
    uint16_t *out;
    const uint16_t *qkv, *k, *v;
    struct cuda_batch batch;
    struct weir_attn_dims dims;
    float scale_log2;    /* scores are in powers of 2 */
    uint32_t group;      /* query heads of a KV head */
    uint32_t group_wide; /* of them, beside each other in a warp: at most 16 */
    uint32_t n_group;    /* warps that take to hold them all */
    uint32_t tok_wide;   /* tokens in a warp */
    uint32_t n_sub;      /* warps that a run takes */
    uint32_t n_item;     /* sub x run x group part x KV head */
    uint32_t n_split;    /* warps an item; more than 1: partials go to `work` */
    uint32_t n_tile_max, n_row; /* of `work`: [n_item][n_tile_max][n_row]{ m, l, o[d_pad] } */
    float *work;
};

/* Which rows an item is: everything that depends on its number alone. */
struct item {
    uint32_t kv_head, group_part, first, n_tok; /* tokens */
};

__device__ static inline struct item item_of(const struct attend_args *a, uint32_t i)
{
    struct item it;
    uint32_t sub = i % a->n_sub, run = i / a->n_sub % a->batch.n_run, part = i / a->n_sub / a->batch.n_run;
    uint32_t begin = sub * a->tok_wide, n = (uint32_t)a->batch.runs[run].n;

    it.kv_head = part / a->n_group;
    it.group_part = part % a->n_group;
    it.first = (uint32_t)a->batch.runs[run].first + begin;
    it.n_tok = begin >= n ? 0 : n - begin < a->tok_wide ? n - begin : a->tok_wide;
    return it;
}

/* Row i of an item: its token, its query head, its positions (pos < 0: there is no such row). */
struct attend_row {
    uint32_t token, head;
    int32_t pos, low;
};

__device__ static inline struct attend_row row_of(const struct attend_args *a, const struct item *it, uint32_t i)
{
    struct attend_row row;
    uint32_t tok = i / a->group_wide, h = it->group_part * a->group_wide + i % a->group_wide;

    row.token = it->first + tok;
    row.head = it->kv_head * a->group + h;
    row.pos = tok < it->n_tok && h < a->group ? a->batch.pos[row.token] : -1;
    row.low = a->dims.window && row.pos >= (int32_t)a->dims.window ? row.pos - (int32_t)a->dims.window + 1 : 0;
    return row;
}

__device__ static inline int warp_max_int(int x)
{
    for (int lanes = 16; lanes; lanes >>= 1) {
        int y = __shfl_xor_sync(GPU_ALL, x, lanes);
        x = x > y ? x : y;
    }
    return x;
}

/* The softmax so far and one more tile: factors for what was summed before and for the tile's. Exact when one is empty. */
__device__ static inline void merge(float *m, float *l, float tile_m, float tile_l, float *keep, float *take)
{
    float top = fmaxf(*m, tile_m);

    *keep = *m == -GPU_INF ? 0.0f : gpu_exp2(*m - top);
    *take = tile_m == -GPU_INF ? 0.0f : gpu_exp2(tile_m - top);
    *l = __fmaf_rn(*l, *keep, __fmul_rn(tile_l, *take));
    *m = top;
}

__device__ static inline float merge_sum(float sum, float tile, float keep, float take)
{
    return __fmaf_rn(sum, keep, __fmul_rn(tile, take));
}

/* Eight numbers of a query from number i on, zeros past d. */
__device__ static inline uint4 load_query(const uint16_t *q, uint32_t i, uint32_t d)
{
    uint4 v = { 0, 0, 0, 0 };

    if (d % 8 == 0)
        return i < d ? *(const uint4 *)(q + i) : v;
    uint32_t pairs[4];
    for (int j = 0; j < 4; j++) { /* d is even */
        uint32_t at = i + 2 * (uint32_t)j;
        pairs[j] = at < d ? (uint32_t)q[at] | (uint32_t)q[at + 1] << 16 : 0;
    }
    v.x = pairs[0], v.y = pairs[1], v.z = pairs[2], v.w = pairs[3];
    return v;
}

template <int D> __device__ static void load_queries(uint32_t (*q)[4], const struct attend_args *a, const struct attend_row *rows)
{
    uint32_t n_head = a->dims.n_head, d = a->dims.d_head, part = threadIdx.x % 4;

#pragma unroll
    for (int i = 0; i < 2; i++) {
        size_t row = (size_t)rows[i].token * (n_head + 2 * a->dims.n_kv_head) * d + (size_t)rows[i].head * d;
#pragma unroll
        for (int c = 0; c < D / 32; c++) {
            uint4 v = { 0, 0, 0, 0 };
            if (rows[i].pos >= 0)
                v = load_query(a->qkv + row, (uint32_t)c * 32 + 8 * part, d);
            q[2 * c][i] = v.x;
            q[2 * c][i + 2] = v.y;
            q[2 * c + 1][i] = v.z;
            q[2 * c + 1][i + 2] = v.w;
        }
    }
}

/* Scores of a page: s[0..3] of its positions 4q, 4q + 1, s[4..7] of 4q + 2, 4q + 3 (q = lane % 4), each for rows r, r, r + 8, r + 8. */
template <int D> __device__ static void score_page(float *s, const uint32_t (*q)[4], const uint16_t *keys)
{
    uint32_t lane = threadIdx.x % 32, r = lane / 4, part = lane % 4;

#pragma unroll
    for (int half = 0; half < 2; half++) {
        const uint16_t *key = keys + (4 * (r / 2) + 2 * (uint32_t)half + r % 2) * D + 8 * part;
#pragma unroll
        for (int i = 0; i < 4; i++)
            s[4 * half + i] = 0;
#pragma unroll
        for (int c = 0; c < D / 32; c++) {
            uint4 k = *(const uint4 *)(key + 32 * c);
            mma_bf16(s + 4 * half, q[2 * c], k.x, k.y);
            mma_bf16(s + 4 * half, q[2 * c + 1], k.z, k.w);
        }
    }
}

/* A tile of 64 positions from `first` on: s becomes probabilities below the tile's own maximum; m and l of both rows. */
template <int D>
__device__ static void tile_scores(float (*s)[8], float *m, float *l, const uint32_t (*q)[4], const struct attend_args *a,
                                   const struct attend_row *rows, const int32_t *table, uint32_t kv_head, int32_t first,
                                   int32_t pos_max)
{
    int32_t part = (int32_t)(threadIdx.x % 4);

    m[0] = m[1] = -GPU_INF;
#pragma unroll
    for (int p = 0; p < TILE_PAGES; p++) {
        int32_t page_first = first + p * WEIR_KV_BLOCK;
        if (page_first <= pos_max) { /* the same for the whole warp */
            size_t page = (size_t)table[page_first / WEIR_KV_BLOCK] * a->dims.n_kv_head + kv_head;
            score_page<D>(s[p], q, a->k + page * WEIR_KV_BLOCK * D);
        }
#pragma unroll
        for (int i = 0; i < 8; i++) {
            int32_t pos = page_first + 4 * part + i / 4 * 2 + i % 2;
            const struct attend_row *row = &rows[i / 2 % 2];
            bool seen = pos <= row->pos && pos >= row->low;
            s[p][i] = seen ? s[p][i] * a->scale_log2 : -GPU_INF;
            m[i / 2 % 2] = fmaxf(m[i / 2 % 2], s[p][i]);
        }
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        m[i] = fmaxf(m[i], __shfl_xor_sync(GPU_ALL, m[i], 1));
        m[i] = fmaxf(m[i], __shfl_xor_sync(GPU_ALL, m[i], 2));
        l[i] = 0;
    }
#pragma unroll
    for (int p = 0; p < TILE_PAGES; p++)
#pragma unroll
        for (int i = 0; i < 8; i++) {
            float top = m[i / 2 % 2];
            s[p][i] = top == -GPU_INF ? 0.0f : gpu_exp2(s[p][i] - top);
            l[i / 2 % 2] += s[p][i];
        }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        l[i] += __shfl_xor_sync(GPU_ALL, l[i], 1);
        l[i] += __shfl_xor_sync(GPU_ALL, l[i], 2);
    }
}

/* The values of 4 positions from `pos` on of one number of the head; [A2]: zeros past the last one. */
__device__ static inline uint2 load_values(const uint16_t *at, int32_t pos, int32_t pos_max)
{
    uint2 v = *(const uint2 *)at;

    if (pos + 3 > pos_max) {
        v.x = pos > pos_max ? 0 : pos + 1 > pos_max ? v.x & 0xffff : v.x;
        v.y = pos + 2 > pos_max ? 0 : v.y & 0xffff;
    }
    return v;
}

/* o [4]: the sums of probabilities times values for numbers 8 i .. of the head. */
template <int D>
__device__ static inline void tile_values(float *o, const uint32_t (*p)[4], const uint16_t *const *pages, int i, int32_t first,
                                          int32_t pos_max)
{
    uint32_t lane = threadIdx.x % 32, r = lane / 4, part = lane % 4;

    o[0] = o[1] = o[2] = o[3] = 0;
#pragma unroll
    for (int j = 0; j < TILE_PAGES; j++) {
        int32_t page_first = first + j * WEIR_KV_BLOCK;
        if (page_first > pos_max)
            continue;
        uint2 v = load_values(pages[j] + ((uint32_t)i * 8 + r) * WEIR_KV_BLOCK + 4 * part, page_first + 4 * (int32_t)part,
                              pos_max);
        mma_bf16(o, p[j], v.x, v.y);
    }
}

/* A partial of `work`. */
__device__ static inline float *partial_at(const struct attend_args *a, uint32_t item, uint32_t tile, uint32_t row, uint32_t d)
{
    return a->work + (((size_t)item * a->n_tile_max + tile) * a->n_row + row) * (d + 2);
}

template <int D> __global__ void __launch_bounds__(ATTN_WARPS * 32) attend_kernel(struct attend_args a)
{
    uint32_t warp = blockIdx.x * ATTN_WARPS + threadIdx.x / 32, lane = threadIdx.x % 32, r = lane / 4, part = lane % 4;
    uint32_t i_item = warp / a.n_split;

    if (i_item >= a.n_item)
        return;
    struct item it = item_of(&a, i_item);
    if (it.n_tok == 0)
        return;
    struct attend_row rows[2] = { row_of(&a, &it, r), row_of(&a, &it, r + 8) };
    int32_t pos_max = warp_max_int(rows[0].pos > rows[1].pos ? rows[0].pos : rows[1].pos);
    if (pos_max < 0)
        return;
    int32_t low0 = rows[0].pos < 0 ? pos_max : rows[0].low, low1 = rows[1].pos < 0 ? pos_max : rows[1].low;
    int32_t low = -warp_max_int(-(low0 < low1 ? low0 : low1));
    const int32_t *table = a.batch.table + (size_t)a.batch.seq[it.first] * a.batch.n_block_max;

    uint32_t q[D / 16][4];
    float sums[D / 8][4], m[2] = { -GPU_INF, -GPU_INF }, l[2] = { 0, 0 };
    load_queries<D>(q, &a, rows);
#pragma unroll
    for (int i = 0; i < D / 8; i++)
        sums[i][0] = sums[i][1] = sums[i][2] = sums[i][3] = 0;

    int32_t last = pos_max / CUDA_ATTN_TILE;
    for (int32_t tile = low / CUDA_ATTN_TILE + (int32_t)(warp % a.n_split); tile <= last; tile += (int32_t)a.n_split) {
        float s[TILE_PAGES][8] = {}, tile_m[2], tile_l[2], keep[2], take[2];
        uint32_t p[TILE_PAGES][4];
        const uint16_t *pages[TILE_PAGES] = {};
        int32_t first = tile * CUDA_ATTN_TILE;

        tile_scores<D>(s, tile_m, tile_l, q, &a, rows, table, it.kv_head, first, pos_max);
#pragma unroll
        for (int j = 0; j < TILE_PAGES; j++) {
            int32_t page_first = first + j * WEIR_KV_BLOCK;
            if (page_first <= pos_max)
                pages[j] = a.v + ((size_t)table[page_first / WEIR_KV_BLOCK] * a.dims.n_kv_head + it.kv_head) * WEIR_KV_BLOCK * D;
            p[j][0] = bf16_pair(s[j][0], s[j][1]);
            p[j][1] = bf16_pair(s[j][2], s[j][3]);
            p[j][2] = bf16_pair(s[j][4], s[j][5]);
            p[j][3] = bf16_pair(s[j][6], s[j][7]);
        }
        float *to[2] = { nullptr, nullptr };
        for (int i = 0; i < 2; i++) {
            merge(&m[i], &l[i], tile_m[i], tile_l[i], &keep[i], &take[i]);
            if (a.n_split > 1 && rows[i].pos >= 0) {
                to[i] = partial_at(&a, i_item, (uint32_t)tile, r + 8 * (uint32_t)i, D);
                if (part == 0) {
                    to[i][0] = tile_m[i];
                    to[i][1] = tile_l[i];
                }
            }
        }
#pragma unroll
        for (int i = 0; i < D / 8; i++) {
            float o[4];
            tile_values<D>(o, p, pages, i, first, pos_max);
#pragma unroll
            for (int j = 0; j < 4; j++) {
                sums[i][j] = merge_sum(sums[i][j], o[j], keep[j / 2], take[j / 2]);
                if (to[j / 2])
                    to[j / 2][2 + i * 8 + (int)part * 2 + j % 2] = o[j];
            }
        }
    }
    if (a.n_split > 1)
        return;
    for (int i = 0; i < 2; i++) {
        if (rows[i].pos < 0)
            continue;
        uint16_t *out = a.out + ((size_t)rows[i].token * a.dims.n_head + rows[i].head) * a.dims.d_head;
#pragma unroll
        for (int j = 0; j < D / 8; j++) {
            uint32_t at = (uint32_t)j * 8 + part * 2;
            if (at < a.dims.d_head)
                *(uint32_t *)(out + at) = bf16_pair(sums[j][2 * i] / l[i], sums[j][2 * i + 1] / l[i]);
        }
    }
}

/* [A1] A row's partials in order: the same steps as attend_kernel's own. */
template <int D> __global__ void __launch_bounds__(ATTN_WARPS * 32) merge_kernel(struct attend_args a)
{
    uint32_t i_row = blockIdx.x * ATTN_WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;

    if (i_row >= a.n_item * a.n_row)
        return;
    struct item it = item_of(&a, i_row / a.n_row);
    struct attend_row row = row_of(&a, &it, i_row % a.n_row);
    if (row.pos < 0)
        return;
    float sums[D / 32] = {}, m = -GPU_INF, l = 0;
    for (int32_t tile = row.low / CUDA_ATTN_TILE; tile <= row.pos / CUDA_ATTN_TILE; tile++) {
        const float *from = partial_at(&a, i_row / a.n_row, (uint32_t)tile, i_row % a.n_row, D);
        float keep, take;
        merge(&m, &l, from[0], from[1], &keep, &take);
#pragma unroll
        for (int i = 0; i < D / 32; i++)
            sums[i] = merge_sum(sums[i], from[2 + i * 32 + (int)lane], keep, take);
    }
    uint16_t *out = a.out + ((size_t)row.token * a.dims.n_head + row.head) * a.dims.d_head;
#pragma unroll
    for (int i = 0; i < D / 32; i++)
        if ((uint32_t)i * 32 + lane < a.dims.d_head)
            out[i * 32 + (int)lane] = bf16_of(sums[i] / l);
}

template <int D> static void attend(gpu_stream s, const struct attend_args &a)
{
    GPU_LAUNCH(attend_kernel<D>, gpu_ceil_div(a.n_item * a.n_split, ATTN_WARPS), ATTN_WARPS * 32, 0, s, a);
    if (a.n_split > 1)
        GPU_LAUNCH(merge_kernel<D>, gpu_ceil_div(a.n_item * a.n_row, ATTN_WARPS), ATTN_WARPS * 32, 0, s, a);
}

/* Splits items until there are warps enough, if their partials find room. */
static void choose_split(struct attend_args *a, const struct cuda_attn *in)
{
    uint32_t tokens = a->tok_wide < in->batch.run_max ? a->tok_wide : in->batch.run_max;

    a->n_tile_max = gpu_ceil_div(in->batch.n_pos_max, CUDA_ATTN_TILE);
    a->n_row = tokens * a->group_wide;
    a->n_split = a->n_item < in->n_warp_wanted ? gpu_ceil_div(in->n_warp_wanted, a->n_item) : 1;
    if (a->n_split > a->n_tile_max)
        a->n_split = a->n_tile_max;
    size_t bytes = (size_t)a->n_item * a->n_tile_max * a->n_row * (cuda_d_pad(in->dims.d_head) + 2) * sizeof(float);
    if (bytes > in->work_bytes)
        a->n_split = 1;
}

void cuda_attention(struct dev_stream *stream, const struct cuda_attn *in)
{
    gpu_stream s = (gpu_stream)stream;
    struct attend_args a = {};

    a.out = in->out;
    a.qkv = in->qkv;
    a.k = in->k;
    a.v = in->v;
    a.batch = in->batch;
    a.dims = in->dims;
    a.scale_log2 = in->scale * 1.44269504f;
    a.work = in->work;
    a.group = in->dims.n_head / in->dims.n_kv_head;
    a.group_wide = a.group < 16 ? a.group : 16;
    a.n_group = gpu_ceil_div(a.group, 16);
    a.tok_wide = 16 / a.group_wide;
    a.n_sub = gpu_ceil_div(in->batch.run_max, a.tok_wide);
    a.n_item = a.n_sub * in->batch.n_run * a.n_group * in->dims.n_kv_head;
    choose_split(&a, in);
    switch (cuda_d_pad(in->dims.d_head)) {
    case 32:
        return attend<32>(s, a);
    case 64:
        return attend<64>(s, a);
    case 96:
        return attend<96>(s, a);
    case 128:
        return attend<128>(s, a);
    case 192:
        return attend<192>(s, a);
    default:
        return attend<CUDA_D_MAX>(s, a);
    }
}
