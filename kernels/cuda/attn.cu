/* attn.cu - keys and values into pages, and attention over them: one kernel for decoding, for prompts in chunks and for both mixed.
 *
 * Pages, d = cuda_d_pad(d_head) numbers a head: keys [page][n_kv_head][16][d], values [page][n_kv_head][d][16]. So laid out,
 * what a lane needs of both for mma.m16n8k16 is 16 or 8 bytes in a row: no transposition. mma sums over pairs of inputs in an order of
 * its own; a and b are permuted alike.
 *
 * A warp takes 16 rows: tokens of one sequence times query heads that share a KV head. It walks over tiles of 64
 * positions. Each tile is a softmax of its own (max m, sum l, sums o) that is merged into what came before, in the order of
 * positions and with a fixed arithmetic (merge() below).
 *   [A1] So whether one warp walks all tiles, or each tile is another warp's and a second kernel merges them, and whichever
 *        rows stand beside it, a row's bits are the same.
 *   [A2] Values past the last position of a block's rows count as zeros: memory that was never written may hold NaN.
 *
 * Tiles pass through shared memory, copied asynchronously: while scores are computed the values of a tile are on their way, and
 * while values are summed the next tile's keys. One warp is a block where few rows share a sequence (decoding), for which what
 * counts is that enough bytes are under way; four walk together where many do (prompts), and share each tile.
 * Sources: Dao et al. 2022 (tiles), Milakov and Gimelshein 2018 (merging), Kwon et al. 2023 (pages). */
#include "kernels/cuda/cuda_int.h"
#include "kernels/cuda/gpu.cuh"

#define ATTN_WARPS 4 /* of a block, at most */
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
    uint32_t n_sub;      /* warps that a run takes, whole blocks */
    uint32_t n_item;     /* sub x run x group part x KV head */
    uint32_t n_split;    /* warps an item, by tiles; more than 1: partials go to `work` */
    uint32_t n_tile_max, n_row; /* of `work`: [n_item][n_tile_max][n_row]{ m, l, o[d_pad] } */
    float *work;
};

/* Which rows an item is: everything that depends on its number alone. The last runs come first: of a prompt they see most, and what
 * begins last should end soon. */
struct item {
    uint32_t kv_head, group_part, first, n_tok; /* tokens */
};

__device__ static inline struct item item_of(const struct attend_args *a, uint32_t i)
{
    struct item it;
    uint32_t sub = i % a->n_sub, part = i / a->n_sub / a->batch.n_run;
    uint32_t run = a->batch.n_run - 1 - i / a->n_sub % a->batch.n_run;
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

/* Eight numbers of a query from number i on, zeros past d, which is even. */
__device__ static inline uint4 load_ragged(const uint16_t *q, uint32_t i, uint32_t d)
{
    uint32_t pairs[4];

    for (int j = 0; j < 4; j++) {
        uint32_t at = i + 2 * (uint32_t)j;
        pairs[j] = at < d ? (uint32_t)q[at] | (uint32_t)q[at + 1] << 16 : 0;
    }
    return uint4{ pairs[0], pairs[1], pairs[2], pairs[3] };
}

template <int D> __device__ static void load_queries(uint32_t (*q)[4], const struct attend_args *a, const struct attend_row *rows)
{
    uint32_t n_head = a->dims.n_head, d = a->dims.d_head, part = threadIdx.x % 4;
    bool ragged = d % 8 != 0; /* such rows are not aligned */

#pragma unroll
    for (int i = 0; i < 2; i++) {
        const uint16_t *row = a->qkv + ((size_t)rows[i].token * (n_head + 2 * a->dims.n_kv_head) + rows[i].head) * d;
        bool there = rows[i].pos >= 0;
#pragma unroll
        for (int c = 0; c < D / 32; c++) {
            uint32_t at = (uint32_t)c * 32 + 8 * part;
            uint4 v = { 0, 0, 0, 0 };
            if (there && at < d && !ragged)
                v = *(const uint4 *)(row + at);
            q[2 * c][i] = v.x;
            q[2 * c][i + 2] = v.y;
            q[2 * c + 1][i] = v.z;
            q[2 * c + 1][i + 2] = v.w;
        }
#pragma unroll
        for (int c = 0; c < D / 32; c++) {
            if (!ragged || !there)
                break;
            uint4 v = load_ragged(row, (uint32_t)c * 32 + 8 * part, d);
            q[2 * c][i] = v.x;
            q[2 * c][i + 2] = v.y;
            q[2 * c + 1][i] = v.z;
            q[2 * c + 1][i + 2] = v.w;
        }
    }
}

/* ---- tiles ---- */
/* Units of 16 bytes: of a page of one KV head, and of a tile; keys and values alike. */
#define PAGE_UNITS(D) (2 * (D))
#define TILE_UNITS(D) (TILE_PAGES * PAGE_UNITS(D))
/* Of a warp's queries, when they are kept in shared memory: registers would not hold those of wide heads beside the sums. */
#define QUERY_UNITS(D) ((D) > 128 ? (D) / 16 * 32 : 0)

/* Where a block walks: from tile `tile` on, each n_split-th, up to `last`. */
struct walk {
    const int32_t *table;
    uint32_t kv_head;
    int32_t pos_max, tile, last;
};

/* The pages of a tile; -1: past the last position. */
struct tile_pages {
    int32_t at[TILE_PAGES];
};

__device__ static inline struct tile_pages pages_of(const struct walk *w, int32_t tile)
{
    struct tile_pages pages;

#pragma unroll
    for (int j = 0; j < TILE_PAGES; j++) {
        int32_t page = tile * TILE_PAGES + j;
        pages.at[j] = page * WEIR_KV_BLOCK <= w->pos_max ? w->table[page] : -1;
    }
    return pages;
}

/* Rows of 8 D bytes begin in the same bank when D is a multiple of 64: every second row then has its halves exchanged, 64 bytes at a
 * time, so that the eight lanes that read at once meet in no bank. */
template <int D> __device__ static inline uint32_t key_unit(uint32_t row, uint32_t unit)
{
    return row * (D / 8) + (D % 64 == 0 ? unit ^ (row % 2 * 4) : unit);
}

/* A tile of keys or values on its way into shared memory: one group of copies of each thread. Past the last position: zeros. */
template <int D, int WARPS, bool KEYS>
__device__ static inline void fetch_tile(uint4 *to, const uint16_t *from, const struct attend_args *a, uint32_t kv_head,
                                         const struct tile_pages *pages)
{
    const uint32_t n = WARPS * 32;

#pragma unroll
    for (int j = 0; j < TILE_PAGES; j++, to += PAGE_UNITS(D)) {
        const uint4 *units = (const uint4 *)(from + ((size_t)pages->at[j] * a->dims.n_kv_head + kv_head) * WEIR_KV_BLOCK * D);
        bool there = pages->at[j] >= 0; /* the same for the whole block */
#pragma unroll
        for (uint32_t i = 0; i < PAGE_UNITS(D); i += n) {
            uint32_t u = i + threadIdx.x;
            if (PAGE_UNITS(D) % n != 0 && u >= PAGE_UNITS(D))
                break;
            uint4 *at = to + (KEYS ? key_unit<D>(u / (D / 8), u % (D / 8)) : u);
            if (there)
                gpu_copy_async(at, units + u);
            else
                *at = uint4{ 0, 0, 0, 0 };
        }
    }
    gpu_copy_commit();
}

/* [A2] What lies behind the last position in its page. */
template <int D, int WARPS> __device__ static void clear_tail(uint4 *values, int32_t pos_max)
{
    uint32_t at = (uint32_t)pos_max % CUDA_ATTN_TILE, page = at / WEIR_KV_BLOCK;
    uint16_t *numbers = (uint16_t *)(values + page * PAGE_UNITS(D));

    for (uint32_t d = threadIdx.x; d < D; d += WARPS * 32)
        for (uint32_t i = at % WEIR_KV_BLOCK + 1; i < WEIR_KV_BLOCK; i++)
            numbers[d * WEIR_KV_BLOCK + i] = 0;
}

template <int WARPS> __device__ static inline void sync_block()
{
    if (WARPS == 1)
        __syncwarp();
    else
        __syncthreads();
}

/* What a warp knows of its rows, and has summed of them. */
template <int D> struct attending {
    struct attend_row rows[2];
    int32_t low, pos_max; /* of all its rows; -1: it has none */
    uint32_t q[QUERY_UNITS(D) ? 1 : D / 16][4];
    uint4 *kept; /* instead of q: [D / 16][lanes] */
    float sums[D / 8][4], m[2], l[2];
};

/* Inputs 16 i .. of the queries, as mma wants them. */
template <int D> __device__ static inline void take_query(const struct attending<D> *w, int i, uint32_t *ret)
{
    uint4 q;

    if (QUERY_UNITS(D))
        q = w->kept[i * 32 + (int)(threadIdx.x % 32)];
    else
        q = uint4{ w->q[i][0], w->q[i][1], w->q[i][2], w->q[i][3] };
    ret[0] = q.x, ret[1] = q.y, ret[2] = q.z, ret[3] = q.w;
}

/* Scores of a tile. Of a page, s[0..3] of its positions 4q, 4q + 1, s[4..7] of 4q + 2, 4q + 3 (q = lane % 4), each for rows r, r, r + 8,
 * r + 8. Eight chains of mma side by side hide each other's latency. */
template <int D> __device__ static inline void tile_scores(float (*s)[8], const struct attending<D> *w, const uint4 *keys)
{
    uint32_t lane = threadIdx.x % 32, r = lane / 4, part = lane % 4;

#pragma unroll
    for (int c = 0; c < D / 32; c++) {
        uint32_t q[2][4];
        take_query<D>(w, 2 * c, q[0]);
        take_query<D>(w, 2 * c + 1, q[1]);
#pragma unroll
        for (int j = 0; j < TILE_PAGES; j++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                uint32_t row = 4 * (r / 2) + 2 * (uint32_t)half + r % 2;
                uint4 k = keys[j * PAGE_UNITS(D) + key_unit<D>(row, 4 * (uint32_t)c + part)];
                mma_bf16(s[j] + 4 * half, q[0], k.x, k.y);
                mma_bf16(s[j] + 4 * half, q[1], k.z, k.w);
            }
    }
}

/* A tile of 64 positions from `first` on: s becomes probabilities below the tile's own maximum; m and l of both rows. */
__device__ static inline void tile_softmax(float (*s)[8], float *m, float *l, float scale_log2, const struct attend_row *rows,
                                           int32_t first)
{
    int32_t part = (int32_t)(threadIdx.x % 4);

    m[0] = m[1] = -GPU_INF;
#pragma unroll
    for (int p = 0; p < TILE_PAGES; p++)
#pragma unroll
        for (int i = 0; i < 8; i++) {
            int32_t pos = first + p * WEIR_KV_BLOCK + 4 * part + i / 4 * 2 + i % 2;
            const struct attend_row *row = &rows[i / 2 % 2];
            bool seen = pos <= row->pos && pos >= row->low;
            s[p][i] = seen ? s[p][i] * scale_log2 : -GPU_INF;
            m[i / 2 % 2] = fmaxf(m[i / 2 % 2], s[p][i]);
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

/* o [4]: the sums of probabilities times values for numbers 8 i .. of the head. */
template <int D> __device__ static inline void tile_values(float *o, const uint32_t (*p)[4], const uint4 *values, int i)
{
    uint32_t lane = threadIdx.x % 32, r = lane / 4, part = lane % 4;

    o[0] = o[1] = o[2] = o[3] = 0;
#pragma unroll
    for (int j = 0; j < TILE_PAGES; j++) {
        uint2 v = ((const uint2 *)(values + j * PAGE_UNITS(D)))[((uint32_t)i * 8 + r) * 4 + part];
        mma_bf16(o, p[j], v.x, v.y);
    }
}

/* A partial of `work`. */
__device__ static inline float *partial_at(const struct attend_args *a, uint32_t item, uint32_t tile, uint32_t row, uint32_t d)
{
    return a->work + (((size_t)item * a->n_tile_max + tile) * a->n_row + row) * (d + 2);
}

template <int D> __device__ static inline void begin_rows(struct attending<D> *w, const struct attend_args *a, const struct item *it)
{
    uint32_t r = threadIdx.x % 32 / 4;

    w->rows[0] = row_of(a, it, r);
    w->rows[1] = row_of(a, it, r + 8);
    w->pos_max = warp_max_int(w->rows[0].pos > w->rows[1].pos ? w->rows[0].pos : w->rows[1].pos);
    int32_t low0 = w->rows[0].pos < 0 ? w->pos_max : w->rows[0].low, low1 = w->rows[1].pos < 0 ? w->pos_max : w->rows[1].low;
    w->low = -warp_max_int(-(low0 < low1 ? low0 : low1));
    uint32_t q[D / 16][4];
    load_queries<D>(q, a, w->rows);
#pragma unroll
    for (int i = 0; i < D / 16; i++)
        if (QUERY_UNITS(D))
            w->kept[i * 32 + (int)(threadIdx.x % 32)] = uint4{ q[i][0], q[i][1], q[i][2], q[i][3] };
        else
            w->q[i][0] = q[i][0], w->q[i][1] = q[i][1], w->q[i][2] = q[i][2], w->q[i][3] = q[i][3];
#pragma unroll
    for (int i = 0; i < D / 8; i++)
        w->sums[i][0] = w->sums[i][1] = w->sums[i][2] = w->sums[i][3] = 0;
    w->m[0] = w->m[1] = -GPU_INF;
    w->l[0] = w->l[1] = 0;
}

/* Where the block's warps walk: its rows' positions follow each other. False: nowhere. */
template <int WARPS> __device__ static inline bool begin_walk(struct walk *w, const struct attend_args *a, uint32_t i_block)
{
    struct item begin = item_of(a, i_block / a->n_split * WARPS), end = begin;

    for (uint32_t i = 1; i < WARPS; i++) {
        struct item next = item_of(a, i_block / a->n_split * WARPS + i);
        end = next.n_tok ? next : end;
    }
    if (begin.n_tok == 0)
        return false;
    int32_t first = a->batch.pos[begin.first], window = (int32_t)a->dims.window;
    w->table = a->batch.table + (size_t)a->batch.seq[begin.first] * a->batch.n_block_max;
    w->kv_head = begin.kv_head;
    w->pos_max = a->batch.pos[end.first + end.n_tok - 1];
    w->tile = (window && first >= window ? first - window + 1 : 0) / CUDA_ATTN_TILE + (int32_t)(i_block % a->n_split);
    w->last = w->pos_max / CUDA_ATTN_TILE;
    return w->pos_max >= 0 && w->tile <= w->last;
}

/* A tile's values onto the sums, and where there are several warps an item, to their partials. */
template <int D>
__device__ static inline void add_tile(struct attending<D> *w, const struct attend_args *a, uint32_t i_item, int32_t tile,
                                       const uint32_t (*p)[4], const float *tile_m, const float *tile_l, const uint4 *values)
{
    uint32_t lane = threadIdx.x % 32, r = lane / 4, part = lane % 4;
    float *to[2] = { nullptr, nullptr }, keep[2], take[2];

    for (int i = 0; i < 2; i++) {
        merge(&w->m[i], &w->l[i], tile_m[i], tile_l[i], &keep[i], &take[i]);
        if (a->n_split > 1 && w->rows[i].pos >= 0) {
            to[i] = partial_at(a, i_item, (uint32_t)tile, r + 8 * (uint32_t)i, D);
            if (part == 0) {
                to[i][0] = tile_m[i];
                to[i][1] = tile_l[i];
            }
        }
    }
#pragma unroll
    for (int i = 0; i < D / 8; i++) {
        float o[4];
        tile_values<D>(o, p, values, i);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            w->sums[i][j] = merge_sum(w->sums[i][j], o[j], keep[j / 2], take[j / 2]);
            if (to[j / 2])
                to[j / 2][2 + i * 8 + (int)part * 2 + j % 2] = o[j];
        }
    }
}

template <int D> __device__ static inline void end_rows(const struct attending<D> *w, const struct attend_args *a)
{
    uint32_t part = threadIdx.x % 4;

    for (int i = 0; i < 2; i++) {
        if (w->rows[i].pos < 0)
            continue;
        uint16_t *out = a->out + ((size_t)w->rows[i].token * a->dims.n_head + w->rows[i].head) * a->dims.d_head;
        float by = 1.0f / w->l[i];
#pragma unroll
        for (int j = 0; j < D / 8; j++) {
            uint32_t at = (uint32_t)j * 8 + part * 2;
            if (at < a->dims.d_head)
                *(uint32_t *)(out + at) = bf16_pair(w->sums[j][2 * i] * by, w->sums[j][2 * i + 1] * by);
        }
    }
}

/* Of each tile keys come first, then values: at any time at most two groups of copies are under way, and all but the newest have
 * come when one is waited for. */
template <int D, int WARPS> __global__ void __launch_bounds__(WARPS * 32, WARPS == 1 || D > 128 ? 1 : D > 64 ? 2 : 3) attend_kernel(struct attend_args a)
{
    GPU_SHARED_DYNAMIC(uint4, keys);
    uint4 *values = keys + TILE_UNITS(D);
    uint32_t i_item = blockIdx.x / a.n_split * WARPS + threadIdx.x / 32;
    struct item it = item_of(&a, i_item);
    struct walk walk;
    struct attending<D> w;

    w.kept = values + TILE_UNITS(D) + threadIdx.x / 32 * QUERY_UNITS(D);
    if (!begin_walk<WARPS>(&walk, &a, blockIdx.x))
        return; /* the whole block */
    struct tile_pages pages = pages_of(&walk, walk.tile);
    fetch_tile<D, WARPS, true>(keys, a.k, &a, walk.kv_head, &pages);
    fetch_tile<D, WARPS, false>(values, a.v, &a, walk.kv_head, &pages);
    begin_rows<D>(&w, &a, &it);
    for (int32_t tile = walk.tile; tile <= walk.last; tile += (int32_t)a.n_split) {
        int32_t next = tile + (int32_t)a.n_split, first = tile * CUDA_ATTN_TILE;
        bool mine = first <= w.pos_max && first + CUDA_ATTN_TILE > w.low; /* the same for the whole warp */
        float s[TILE_PAGES][8] = {}, tile_m[2], tile_l[2];
        uint32_t p[TILE_PAGES][4];

        pages = pages_of(&walk, next);
        gpu_copy_wait<1>();
        sync_block<WARPS>();
        if (mine)
            tile_scores<D>(s, &w, keys);
        sync_block<WARPS>();
        if (next <= walk.last)
            fetch_tile<D, WARPS, true>(keys, a.k, &a, walk.kv_head, &pages);
        else
            gpu_copy_commit();
        if (mine)
            tile_softmax(s, tile_m, tile_l, a.scale_log2, w.rows, first);
#pragma unroll
        for (int j = 0; j < TILE_PAGES; j++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                p[j][i] = bf16_pair(s[j][2 * i], s[j][2 * i + 1]);
        gpu_copy_wait<1>();
        sync_block<WARPS>();
        if (tile == walk.last) {
            clear_tail<D, WARPS>(values, walk.pos_max);
            sync_block<WARPS>();
        }
        if (mine)
            add_tile<D>(&w, &a, i_item, tile, p, tile_m, tile_l, values);
        sync_block<WARPS>();
        if (next <= walk.last)
            fetch_tile<D, WARPS, false>(values, a.v, &a, walk.kv_head, &pages);
        else
            gpu_copy_commit();
    }
    if (a.n_split == 1)
        end_rows<D>(&w, &a);
}

/* [A1] A row's partials in order: the same steps as attend_kernel's own. Several are read together, as memory is far away. */
#define MERGED 8
template <int D> __global__ void __launch_bounds__(ATTN_WARPS * 32, 4) merge_kernel(struct attend_args a)
{
    uint32_t i_row = blockIdx.x * ATTN_WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;

    if (i_row >= a.n_item * a.n_row)
        return;
    struct item it = item_of(&a, i_row / a.n_row);
    struct attend_row row = row_of(&a, &it, i_row % a.n_row);
    if (row.pos < 0)
        return;
    float sums[D / 32] = {}, m = -GPU_INF, l = 0;
    int32_t last = row.pos / CUDA_ATTN_TILE;
    for (int32_t tile = row.low / CUDA_ATTN_TILE; tile <= last; tile += MERGED) {
        float tile_m[MERGED], tile_l[MERGED], o[MERGED][D / 32], keep, take;
#pragma unroll
        for (int t = 0; t < MERGED; t++) {
            int32_t at = tile + t < last ? tile + t : last;
            const float *from = partial_at(&a, i_row / a.n_row, (uint32_t)at, i_row % a.n_row, D);
            tile_m[t] = tile + t <= last ? from[0] : -GPU_INF; /* which changes nothing */
            tile_l[t] = from[1];
#pragma unroll
            for (int i = 0; i < D / 32; i++)
                o[t][i] = from[2 + i * 32 + (int)lane];
        }
#pragma unroll
        for (int t = 0; t < MERGED; t++) {
            merge(&m, &l, tile_m[t], tile_l[t], &keep, &take);
#pragma unroll
            for (int i = 0; i < D / 32; i++)
                sums[i] = merge_sum(sums[i], o[t][i], keep, take);
        }
    }
    uint16_t *out = a.out + ((size_t)row.token * a.dims.n_head + row.head) * a.dims.d_head;
    float by = 1.0f / l;
#pragma unroll
    for (int i = 0; i < D / 32; i++)
        if ((uint32_t)i * 32 + lane < a.dims.d_head)
            out[i * 32 + (int)lane] = bf16_of(sums[i] * by);
}

template <int D, int WARPS> static void attend_tiles(gpu_stream s, const struct attend_args &a)
{
    size_t bytes = (2 * TILE_UNITS(D) + WARPS * QUERY_UNITS(D)) * sizeof(uint4);

    if (bytes > GPU_SHARED_FREE)
        gpu_allow_shared((attend_kernel<D, WARPS>), bytes);
    GPU_LAUNCH((attend_kernel<D, WARPS>), a.n_item / WARPS * a.n_split, WARPS * 32, bytes, s, a);
}

template <int D> static void attend(gpu_stream s, const struct attend_args &a, uint32_t n_warp)
{
    if (n_warp == 1)
        attend_tiles<D, 1>(s, a);
    else
        attend_tiles<D, ATTN_WARPS>(s, a);
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
    uint32_t n_warp = in->batch.run_max > a.tok_wide ? ATTN_WARPS : 1;
    a.n_sub = gpu_ceil_div(in->batch.run_max, a.tok_wide * n_warp) * n_warp;
    a.n_item = a.n_sub * in->batch.n_run * a.n_group * in->dims.n_kv_head;
    choose_split(&a, in);
    switch (cuda_d_pad(in->dims.d_head)) {
    case 32:
        return attend<32>(s, a, n_warp);
    case 64:
        return attend<64>(s, a, n_warp);
    case 96:
        return attend<96>(s, a, n_warp);
    case 128:
        return attend<128>(s, a, n_warp);
    case 192:
        return attend<192>(s, a, n_warp);
    default:
        return attend<CUDA_D_MAX>(s, a, n_warp);
    }
}
