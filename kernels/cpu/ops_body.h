/* ops_body.h - the inner loops over vectors of 16 floats, which the compiler lowers to the instruction set of the file that
 * includes this one (with OPS_NAME and OPS_LABEL set).
 *
 *   [B1] Every output of `linear` is one chain of multiply-adds along n_in, in order, whatever the tile it falls into.
 *   [B2] `attend` walks pages from position 0; a page's part of the sum is the same however many follow.
 *
 * Why a panel of 16 rows: a weight vector is loaded and widened once and used for all tokens of a tile, whose
 * activations are broadcast; sums never cross lanes. Tiles of 4 panels x 1-2 tokens keep enough chains in flight when a
 * single sequence decodes, 1-2 panels x 8 tokens when prompts are computed. */
#include <math.h>
#include <string.h>

#include "kernels/cpu/ops.h"

typedef float vf __attribute__((vector_size(64), aligned(4)));
typedef int32_t vi __attribute__((vector_size(64), aligned(4)));
typedef uint32_t vu __attribute__((vector_size(64), aligned(4)));
typedef uint16_t vh __attribute__((vector_size(32), aligned(2)));

static inline vf load(const float *p)
{
    vf v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline void store(float *p, vf v)
{
    memcpy(p, &v, sizeof v);
}

static inline vf splat(float x)
{
    return x - (vf){ 0 };
}

static inline vf load_bf16(const uint16_t *p)
{
    vh half;
    memcpy(&half, p, sizeof half);
    return (vf)(__builtin_convertvector(half, vu) << 16);
}

/* Lanes are added in a fixed tree. */
static inline float sum(vf v)
{
    for (int width = 8; width > 0; width /= 2)
        for (int i = 0; i < width; i++)
            v[i] += v[i + width];
    return v[0];
}

/* e^x to about 2 ulp for x <= 0 (what softmax and silu need) and up to 88; below -87 it is 0. Cody-Waite reduction and a
 * polynomial of degree 6 on [-ln2/2, ln2/2]. */
static inline vf exp_v(vf x)
{
    vi low = x < splat(-87.0f);
    x = (vf)((low & (vi)splat(-87.0f)) | (~low & (vi)x));
    vf high = splat(88.0f);
    vi over = x > high;
    x = (vf)((over & (vi)high) | (~over & (vi)x));
    vf n = x * splat(1.44269504f);
    n = (n + splat(12582912.0f)) - splat(12582912.0f); /* round to nearest */
    vf r = x - n * splat(0.693359375f);
    r = r - n * splat(-2.12194440e-4f);
    vf p = splat(1.0f / 720);
    p = p * r + splat(1.0f / 120);
    p = p * r + splat(1.0f / 24);
    p = p * r + splat(1.0f / 6);
    p = p * r + splat(0.5f);
    p = p * r + splat(1.0f);
    p = p * r + splat(1.0f);
    vf scaled = (vf)((vi)p + (__builtin_convertvector(n, vi) << 23));
    return (vf)(~low & (vi)scaled);
}

/* ---- linear ---- */
#define LINEAR_TILE(NAME, LOAD, TYPE, P, T)                                                                  \
    static inline void NAME(float *out, uint32_t ld_out, const float *x, const TYPE *w, uint32_t n_in,       \
                            uint32_t n_rows, int add)                                                        \
    {                                                                                                        \
        vf acc[P][T];                                                                                        \
        for (int p = 0; p < P; p++)                                                                          \
            for (int t = 0; t < T; t++)                                                                      \
                acc[p][t] = (vf){ 0 };                                                                       \
        for (uint32_t k = 0; k < n_in; k++) {                                                                \
            vf wv[P];                                                                                        \
            _Pragma("GCC unroll 4") for (int p = 0; p < P; p++) wv[p] =                                      \
                LOAD(w + ((size_t)p * n_in + k) * PANEL);                                                    \
            _Pragma("GCC unroll 8") for (int t = 0; t < T; t++)                                              \
            {                                                                                                \
                vf xv = splat(x[(size_t)t * n_in + k]);                                                      \
                _Pragma("GCC unroll 4") for (int p = 0; p < P; p++) acc[p][t] += wv[p] * xv; /* [B1] */      \
            }                                                                                                \
        }                                                                                                    \
        for (int p = 0; p < P; p++)                                                                          \
            for (int t = 0; t < T; t++)                                                                      \
                finish(out + (size_t)t * ld_out + p * PANEL, acc[p][t],                                      \
                       n_rows - (uint32_t)p * PANEL < PANEL ? n_rows - (uint32_t)p * PANEL : PANEL, add);    \
    }

static inline void finish(float *out, vf acc, uint32_t n, int add)
{
    float row[PANEL];

    if (n == PANEL) {
        store(out, add ? load(out) + acc : acc);
        return;
    }
    store(row, acc);
    for (uint32_t i = 0; i < n; i++)
        out[i] = add ? out[i] + row[i] : row[i];
}

LINEAR_TILE(bf16_4x1, load_bf16, uint16_t, 4, 1)
LINEAR_TILE(bf16_4x2, load_bf16, uint16_t, 4, 2)
LINEAR_TILE(bf16_2x8, load_bf16, uint16_t, 2, 8)
LINEAR_TILE(bf16_1x1, load_bf16, uint16_t, 1, 1)
LINEAR_TILE(bf16_1x4, load_bf16, uint16_t, 1, 4)
LINEAR_TILE(bf16_2x4, load_bf16, uint16_t, 2, 4)
LINEAR_TILE(f32_4x1, load, float, 4, 1)
LINEAR_TILE(f32_4x2, load, float, 4, 2)
LINEAR_TILE(f32_2x8, load, float, 2, 8)
LINEAR_TILE(f32_1x1, load, float, 1, 1)
LINEAR_TILE(f32_1x4, load, float, 1, 4)
LINEAR_TILE(f32_2x4, load, float, 2, 4)

/* All tokens against a few panels: the panels stay in the cache while the tokens go by. */
#define LINEAR(NAME, TYPE, TILE)                                                                             \
    static void NAME(float *out, const float *x, const struct weir_matrix *m, uint32_t n_tok, int add,       \
                     uint32_t begin, uint32_t end)                                                           \
    {                                                                                                        \
        const TYPE *data = m->data;                                                                          \
        uint32_t n_in = m->n_in, ld = m->n_out;                                                              \
        for (uint32_t p = begin; p < end;) {                                                                 \
            uint32_t left = end - p, t = 0, step = left >= 4 && n_tok < 8 ? 4 : left >= 2 ? 2 : 1;           \
            uint32_t rows = m->n_out - p * PANEL;                                                            \
            const TYPE *w = data + (size_t)p * n_in * PANEL;                                                 \
            float *o = out + (size_t)p * PANEL;                                                              \
            if (step == 2)                                                                                   \
                for (; t + 8 <= n_tok; t += 8)                                                               \
                    TILE##_2x8(o + (size_t)t * ld, ld, x + (size_t)t * n_in, w, n_in, rows, add);            \
            if (step == 2)                                                                                   \
                for (; t + 4 <= n_tok; t += 4)                                                               \
                    TILE##_2x4(o + (size_t)t * ld, ld, x + (size_t)t * n_in, w, n_in, rows, add);            \
            if (step == 4)                                                                                   \
                for (; t + 2 <= n_tok; t += 2)                                                               \
                    TILE##_4x2(o + (size_t)t * ld, ld, x + (size_t)t * n_in, w, n_in, rows, add);            \
            if (step == 4)                                                                                   \
                for (; t < n_tok; t++)                                                                       \
                    TILE##_4x1(o + (size_t)t * ld, ld, x + (size_t)t * n_in, w, n_in, rows, add);            \
            for (uint32_t q = 0; q < step && t < n_tok; q++) {                                               \
                uint32_t u = t;                                                                              \
                for (; u + 4 <= n_tok; u += 4)                                                               \
                    TILE##_1x4(o + (size_t)u * ld + q * PANEL, ld, x + (size_t)u * n_in,                     \
                               w + (size_t)q * n_in * PANEL, n_in, rows - q * PANEL, add);                   \
                for (; u < n_tok; u++)                                                                       \
                    TILE##_1x1(o + (size_t)u * ld + q * PANEL, ld, x + (size_t)u * n_in,                     \
                               w + (size_t)q * n_in * PANEL, n_in, rows - q * PANEL, add);                   \
            }                                                                                                \
            p += step;                                                                                       \
        }                                                                                                    \
    }
LINEAR(linear_bf16, uint16_t, bf16)
LINEAR(linear_f32, float, f32)

static void linear(float *out, const float *x, const struct weir_matrix *m, uint32_t n_tok, int add,
                   uint32_t begin, uint32_t end)
{
    if (m->dtype == WEIR_BF16)
        linear_bf16(out, x, m, n_tok, add, begin, end);
    else
        linear_f32(out, x, m, n_tok, add, begin, end);
}

/* ---- the rest ---- */
static void rmsnorm(float *out, const float *x, const float *weight, uint32_t n, float eps)
{
    vf squares = { 0 };
    float tail = 0;
    uint32_t i = 0;

    for (; i + PANEL <= n; i += PANEL)
        squares += load(x + i) * load(x + i);
    for (; i < n; i++)
        tail += x[i] * x[i];
    float scale = 1.0f / sqrtf((sum(squares) + tail) / (float)n + eps);
    for (i = 0; i < n; i++)
        out[i] = x[i] * scale * weight[i];
}

static inline float dot(const float *a, const float *b, uint32_t n)
{
    vf acc = { 0 };
    float tail = 0;
    uint32_t i = 0;

    for (; i + PANEL <= n; i += PANEL)
        acc += load(a + i) * load(b + i);
    for (; i < n; i++)
        tail += a[i] * b[i];
    return sum(acc) + tail;
}

/* One page into the running softmax of one head: state is (max, sum of weights, out = weighted values). */
static inline void attend_page(float *out, float *max, float *total, const float *q, const float *k,
                               const float *v, uint32_t n_pos, uint32_t d, float scale)
{
    float scores[WEIR_KV_BLOCK], page_max = *max;

    for (uint32_t j = 0; j < WEIR_KV_BLOCK; j++)
        scores[j] = j < n_pos ? dot(q, k + (size_t)j * d, d) * scale : -INFINITY;
    for (uint32_t j = 0; j < n_pos; j++)
        page_max = scores[j] > page_max ? scores[j] : page_max;
    vf weights = exp_v(load(scores) - splat(page_max));
    float keep = exp_v(splat(*max - page_max))[0];
    *total = *total * keep + sum(weights);
    *max = page_max;
    for (uint32_t i = 0; i < d; i++)
        out[i] *= keep;
    for (uint32_t j = 0; j < n_pos; j++) {
        float weight = weights[j];
        for (uint32_t i = 0; i < d; i++)
            out[i] += weight * v[(size_t)j * d + i];
    }
}

static void attend(float *out, const float *q, const float *k, const float *v, const int32_t *table,
                   int32_t pos, uint32_t i_kv_head, const struct weir_attn_dims *dims, float scale)
{
    uint32_t d = dims->d_head, n_group = dims->n_head / dims->n_kv_head, n_pos = (uint32_t)pos + 1;
    size_t page = (size_t)dims->n_kv_head * WEIR_KV_BLOCK * d, head = (size_t)i_kv_head * WEIR_KV_BLOCK * d;

    for (uint32_t g = 0; g < n_group; g++) {
        float max = -INFINITY, total = 0;
        const float *query = q + (size_t)g * d;
        float *o = out + (size_t)g * d;
        memset(o, 0, d * sizeof *o);
        for (uint32_t b = 0; b * WEIR_KV_BLOCK < n_pos; b++) { /* [B2] */
            uint32_t n =
                n_pos - b * WEIR_KV_BLOCK < WEIR_KV_BLOCK ? n_pos - b * WEIR_KV_BLOCK : WEIR_KV_BLOCK;
            size_t at = (size_t)table[b] * page + head;
            attend_page(o, &max, &total, query, k + at, v + at, n, d, scale);
        }
        for (uint32_t i = 0; i < d; i++)
            o[i] /= total;
    }
}

static void silu_mul(float *out, const float *gate, const float *up, uint32_t n)
{
    float g[PANEL], u[PANEL];

    for (uint32_t i = 0; i < n; i += PANEL) {
        uint32_t m = n - i < PANEL ? n - i : PANEL;
        memset(g, 0, sizeof g);
        memset(u, 0, sizeof u);
        memcpy(g, gate + i, m * sizeof *g);
        memcpy(u, up + i, m * sizeof *u);
        vf x = load(g);
        store(g, x / (splat(1.0f) + exp_v(-x)) * load(u));
        memcpy(out + i, g, m * sizeof *g);
    }
}

const struct cpu_ops OPS_NAME = { OPS_LABEL, linear, rmsnorm, attend, silu_mul };
