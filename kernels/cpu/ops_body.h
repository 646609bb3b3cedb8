/* ops_body.h - the inner loops over vectors of LANES floats; the file that includes this one sets LANES, TILE_P, TILE_T,
 * TILE_Q, the names, and is compiled for one instruction set.
 *
 *   [B1] Every output of `linear` is one chain of multiply-adds along n_in, in order, whatever the tile it falls into.
 *   [B2] `attend` walks pages from position 0; a page's part of the sum is the same however many follow, and a query's sums
 *        are the same whichever queries share its tile.
 *
 * linear: a weight vector is loaded and widened once and used for all tokens of a tile, whose activations are broadcast; sums
 * never cross lanes. A group of panels stays in the cache while the tokens go by. Few tokens take tiles of more panels, so that
 * enough chains are in flight.
 * attend: keys lie transposed in their pages, so that the scores of a page's 16 positions are one chain of vectors along the
 * head, without sums across lanes; up to TILE_Q queries (tokens and heads that share a KV head) use each key and value that is
 * loaded. A page that a query sees in part is computed for that query alone: the others' positions are no zeros to it. */
#include <math.h>
#include <stdbool.h>
#include <string.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include "kernels/cpu/ops.h"
#include "kernels/cpu/vectors_body.h"

#define NV (PANEL / LANES)                         /* vectors in a panel, and in a page of positions */
#define KEEP_MAX (TILE_Q > LANES ? TILE_Q : LANES) /* whole vectors */
#define TOKENS_BLOCK 96 /* tokens whose activations stay in the second cache while panels go by */
#define PREFETCH_ROWS 24

static const union {
    int32_t number[WEIR_KV_BLOCK];
    vi part[NV];
} numbers = { { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 } };

/* Lanes are added in a fixed tree. */
INLINE float sum(vf v)
{
    float lanes[LANES];

    store(lanes, v);
    for (int width = LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++)
            lanes[i] += lanes[i + width];
    return lanes[0];
}

/* The largest of a panel; in which order they are compared does not matter. */
INLINE float largest(const vf v[NV])
{
#ifdef __AVX512F__
    return _mm512_reduce_max_ps((__m512)v[0]);
#else
    float lanes[LANES], max = -INFINITY;

    for (int c = 0; c < NV; c++) {
        store(lanes, v[c]);
        for (int i = 0; i < LANES; i++)
            max = lanes[i] > max ? lanes[i] : max;
    }
    return max;
#endif
}

/* ---- linear ---- */
struct product {
    float *out;
    const float *x;
    const struct weir_matrix *m;
};

INLINE void finish(float *out, const vf acc[NV], uint32_t n)
{
    float row[PANEL];

    if (n >= PANEL) {
        for (int v = 0; v < NV; v++)
            store(out + v * LANES, acc[v]);
        return;
    }
    for (int v = 0; v < NV; v++)
        store(row + v * LANES, acc[v]);
    memcpy(out, row, n * sizeof *row);
}

/* P panels from `panel` times T tokens from `token`; P, T and bf16 are constants where this is inlined. */
INLINE void tile(const struct product *pr, uint32_t panel, uint32_t token, const int P, const int T,
                 const int bf16)
{
    uint32_t n_in = pr->m->n_in, ld = pr->m->n_out;
    size_t stride = bf16 ? (size_t)pr->m->n_pair * PANEL : (size_t)n_in * PANEL; /* 32-bit words in a panel */
    const uint32_t *w = (const uint32_t *)pr->m->data + panel * stride;
    const float *x = pr->x + (size_t)token * n_in;
    vf acc[4][TILE_T][NV];
    uint32_t k = 0;

    _Pragma("GCC unroll 4") for (int p = 0; p < P; p++) _Pragma("GCC unroll 16") for (int t = 0; t < T; t++)
        _Pragma("GCC unroll 4") for (int v = 0; v < NV; v++) acc[p][t][v] = (vf){ 0 };
    for (; bf16 && k + 2 <= n_in; k += 2, w += PANEL) {
        vf low[4][NV], high[4][NV];
        _Pragma("GCC unroll 4") for (int p = 0; p < P; p++)
        {
            if (T <= 4)
                __builtin_prefetch(w + (size_t)p * stride + PREFETCH_ROWS * PANEL);
            _Pragma("GCC unroll 4") for (int v = 0; v < NV; v++)
            {
                vu pair = *(const vu *)(w + (size_t)p * stride + v * LANES);
                low[p][v] = (vf)(pair << 16);
                high[p][v] = (vf)(pair & 0xffff0000u);
            }
        }
        _Pragma("GCC unroll 16") for (int t = 0; t < T; t++)
        {
            vf x0 = splat(x[(size_t)t * n_in + k]), x1 = splat(x[(size_t)t * n_in + k + 1]);
            _Pragma("GCC unroll 4") for (int p = 0; p < P; p++)
                _Pragma("GCC unroll 4") for (int v = 0; v < NV; v++)
            {
                acc[p][t][v] += low[p][v] * x0; /* [B1] */
                acc[p][t][v] += high[p][v] * x1;
            }
        }
    }
    for (; k < n_in; k++, w += PANEL) { /* f32, or the odd input of bf16 */
        _Pragma("GCC unroll 16") for (int t = 0; t < T; t++)
        {
            vf xv = splat(x[(size_t)t * n_in + k]);
            _Pragma("GCC unroll 4") for (int p = 0; p < P; p++)
                _Pragma("GCC unroll 4") for (int v = 0; v < NV; v++)
            {
                vu word = *(const vu *)(w + (size_t)p * stride + v * LANES);
                acc[p][t][v] += (vf)(bf16 ? word << 16 : word) * xv;
            }
        }
    }
    _Pragma("GCC unroll 4") for (int p = 0; p < P; p++) _Pragma("GCC unroll 16") for (int t = 0; t < T; t++)
        finish(pr->out + (size_t)(token + (uint32_t)t) * ld + (panel + (uint32_t)p) * PANEL, acc[p][t],
               ld - (panel + (uint32_t)p) * PANEL);
}

/* One input of T tokens into a panel's sums. */
INLINE void add_input(vf acc[][NV], const vf w[NV], const struct product *pr, uint32_t token, uint32_t k,
                      const int T)
{
    uint32_t n_in = pr->m->n_in;

    if (k >= n_in) /* weights of zero: x ends here */
        return;
    _Pragma("GCC unroll 16") for (int t = 0; t < T; t++)
    {
        vf x = splat(pr->x[(size_t)(token + (uint32_t)t) * n_in + k]);
        _Pragma("GCC unroll 4") for (int v = 0; v < NV; v++) acc[t][v] += w[v] * x; /* [B1] */
    }
}

INLINE vf widen_integers(vi x)
{
    return __builtin_convertvector(x, vf);
}

/* A panel of Q8 or Q4 times T tokens, in f32; T and q4 are constants where this is inlined. */
INLINE void tile_quant(const struct product *pr, uint32_t panel, uint32_t token, const int T, const int q4)
{
    const struct weir_matrix *m = pr->m;
    const uint32_t *w = (const uint32_t *)((const char *)m->data + panel * panel_bytes(m));
    const float *scales = m->scales + (size_t)panel * PANEL;
    vf acc[TILE_T][NV], row[NV];

    _Pragma("GCC unroll 16") for (int t = 0; t < T; t++) _Pragma("GCC unroll 4") for (int v = 0; v < NV; v++)
        acc[t][v] = (vf){ 0 };
    for (uint32_t k = 0; k < m->n_wide; k += q4 ? 8 : 4, w += PANEL) {
        float by[PANEL];
        for (int i = 0; q4 && i < PANEL; i++)
            by[i] = m->multipliers[((size_t)panel * (m->n_wide / GROUP) + k / GROUP) * PANEL + (size_t)i];
        for (int byte = 0; byte < 4; byte++)
            for (int half = 0; half < (q4 ? 2 : 1); half++) {
                _Pragma("GCC unroll 4") for (int v = 0; v < NV; v++)
                {
                    vu word = *(const vu *)(w + v * LANES);
                    if (q4)
                        row[v] = widen_integers((vi)(word >> (8 * byte + 4 * half) & 15) - 8) *
                                 load(by + v * LANES);
                    else
                        row[v] = widen_integers((vi)(word << (24 - 8 * byte)) >> 24);
                }
                add_input(acc, row, pr, token, k + (uint32_t)(4 * half + byte), T);
            }
    }
    _Pragma("GCC unroll 16") for (int t = 0; t < T; t++)
    {
        _Pragma("GCC unroll 4") for (int v = 0; v < NV; v++) acc[t][v] *= load(scales + v * LANES);
        finish(pr->out + (size_t)(token + (uint32_t)t) * m->n_out + panel * PANEL, acc[t],
               m->n_out - panel * PANEL);
    }
}

#define QUANTS(NAME, Q4)                                                                                     \
    static void NAME(const struct product *pr, uint32_t panel, uint32_t token, uint32_t end)                 \
    {                                                                                                        \
        for (; token + TILE_T <= end; token += TILE_T)                                                       \
            tile_quant(pr, panel, token, TILE_T, Q4);                                                        \
        for (; token < end; token++)                                                                         \
            tile_quant(pr, panel, token, 1, Q4);                                                             \
    }
QUANTS(panel_q8, 0)
QUANTS(panel_q4, 1)

/* Tokens [token, end) against panels [panel, panel + n_panel), n_panel <= 4. */
#define PANELS(NAME, BF16)                                                                                   \
    static void NAME(const struct product *pr, uint32_t panel, uint32_t n_panel, uint32_t token,             \
                     uint32_t end)                                                                           \
    {                                                                                                        \
        uint32_t p = 0, t;                                                                                   \
        for (; n_panel - p >= TILE_P; p += TILE_P)                                                           \
            for (t = token; t + TILE_T <= end; t += TILE_T)                                                  \
                tile(pr, panel + p, t, TILE_P, TILE_T, BF16);                                                \
        for (; p < n_panel; p++)                                                                             \
            for (t = token; t + TILE_T <= end; t += TILE_T)                                                  \
                tile(pr, panel + p, t, 1, TILE_T, BF16);                                                     \
        token += (end - token) / TILE_T * TILE_T;                                                            \
        for (; TILE_T > 4 && token + 4 <= end; token += 4) {                                                 \
            for (p = 0; n_panel - p >= TILE_P; p += TILE_P)                                                  \
                tile(pr, panel + p, token, TILE_P, 4, BF16);                                                 \
            for (; p < n_panel; p++)                                                                         \
                tile(pr, panel + p, token, 1, 4, BF16);                                                      \
        }                                                                                                    \
        for (; token < end; token++) {                                                                       \
            if (n_panel == 4)                                                                                \
                tile(pr, panel, token, 4, 1, BF16);                                                          \
            for (p = 0; n_panel < 4 && p < n_panel; p++)                                                     \
                tile(pr, panel + p, token, 1, 1, BF16);                                                      \
        }                                                                                                    \
    }
PANELS(panels_bf16, 1)
PANELS(panels_f32, 0)

static void linear(float *out, const float *x, const struct weir_matrix *m, uint32_t n_tok, uint32_t begin,
                   uint32_t end, const void *prepared, void *own)
{
    struct product pr = { out, x, m };

    (void)prepared;
    (void)own;
    for (uint32_t panel = begin; m->quant != WEIR_NATIVE && panel < end; panel++) {
        if (m->quant == WEIR_Q8)
            panel_q8(&pr, panel, 0, n_tok);
        else
            panel_q4(&pr, panel, 0, n_tok);
    }
    if (m->quant != WEIR_NATIVE)
        return;
    for (uint32_t token = 0; token < n_tok; token += TOKENS_BLOCK)
        for (uint32_t panel = begin; panel < end; panel += 4) {
            uint32_t last = n_tok - token < TOKENS_BLOCK ? n_tok : token + TOKENS_BLOCK;
            uint32_t n_panel = end - panel < 4 ? end - panel : 4;
            if (m->dtype == WEIR_BF16)
                panels_bf16(&pr, panel, n_panel, token, last);
            else
                panels_f32(&pr, panel, n_panel, token, last);
        }
}

/* ---- norm, silu ---- */
static void rmsnorm(float *out, const float *x, const float *weight, uint32_t n, float eps)
{
    vf squares[4] = { { 0 }, { 0 }, { 0 }, { 0 } };
    float tail = 0;
    uint32_t i = 0;

    for (; i + 4 * LANES <= n; i += 4 * LANES)
        for (int k = 0; k < 4; k++)
            squares[k] += load(x + i + k * LANES) * load(x + i + k * LANES);
    for (; i < n; i++)
        tail += x[i] * x[i];
    vf all = (squares[0] + squares[1]) + (squares[2] + squares[3]);
    float scale = 1.0f / sqrtf((sum(all) + tail) / (float)n + eps);
    for (i = 0; i < n; i++)
        out[i] = x[i] * scale * weight[i];
}

static void silu_mul(float *out, const float *gate, const float *up, uint32_t n)
{
    float g[LANES] = { 0 }, u[LANES] = { 0 };
    uint32_t i = 0;

    for (; i + LANES <= n; i += LANES) {
        vf x = load(gate + i);
        store(out + i, x / (splat(1.0f) + exp_v(-x)) * load(up + i));
    }
    if (i == n)
        return;
    memcpy(g, gate + i, (n - i) * sizeof *g);
    memcpy(u, up + i, (n - i) * sizeof *u);
    vf x = load(g);
    store(g, x / (splat(1.0f) + exp_v(-x)) * load(u));
    memcpy(out + i, g, (n - i) * sizeof *g);
}

/* ---- attention ---- */
struct query {                     /* state of an online softmax: out is the weighted sum of values so far */
    float *out, max, total[LANES]; /* the lanes of the total are added up at the end */
    uint32_t from, to;             /* the positions it sees */
};

/* Compilers may fuse a product into the sum that follows, or not, as each copy of an inlined loop pleases; the bits must not
 * hang on that. So nothing here adds two products, and the scale is in q before it gets here. */

/* LANES keys of number i of a head, from position `at` on; in bf16 numbers i and i + 1 lie side by side. */
INLINE vf load_keys(const void *page, uint32_t i, uint32_t at, const int bf16)
{
    if (!bf16)
        return load((const float *)page + (size_t)i * WEIR_KV_BLOCK + at);
    vu pair = *(const vu *)((const uint32_t *)page + (size_t)(i / 2) * WEIR_KV_BLOCK + at);
    return (vf)(i % 2 ? pair & 0xffff0000u : pair << 16);
}

/* Numbers [i, i + LANES) of the value at position j of a page; in bf16 positions j and j + 1 lie side by side. */
INLINE vf load_value(const void *page, uint32_t j, uint32_t i, uint32_t d, const int bf16)
{
    if (!bf16)
        return load((const float *)page + (size_t)j * d + i);
    vu pair = *(const vu *)((const uint32_t *)page + (size_t)(j / 2) * d + i);
    return (vf)(j % 2 ? pair & 0xffff0000u : pair << 16);
}

INLINE float one_value(const void *page, uint32_t j, uint32_t i, uint32_t d, const int bf16)
{
    float ret;

    if (!bf16)
        return ((const float *)page)[(size_t)j * d + i];
    uint32_t pair = ((const uint32_t *)page)[(size_t)(j / 2) * d + i];
    pair = j % 2 ? pair & 0xffff0000u : pair << 16;
    memcpy(&ret, &pair, sizeof ret);
    return ret;
}

/* Where a head's part of a page is. */
INLINE const char *part_of_page(const struct attend_job *job, const void *pages, uint32_t b, const int bf16)
{
    size_t head = (size_t)WEIR_KV_BLOCK * job->dims->d_head * (bf16 ? 2 : 4);

    return (const char *)pages + ((size_t)job->table[b] * job->dims->n_kv_head + job->i_kv_head) * head;
}

/* Page b into N queries, which see its positions [from, to); N and bf16 are constants where this is inlined. */
INLINE void attend_page(const struct attend_job *job, struct query *queries, const float *q, const int N,
                        const int bf16, uint32_t b, uint32_t b_next, uint32_t from, uint32_t to)
{
    const char *k = part_of_page(job, job->k, b, bf16), *v = part_of_page(job, job->v, b, bf16);
    const char *next = part_of_page(job, job->k, b_next, bf16);
    const size_t line = WEIR_KV_BLOCK * (bf16 ? 2 : 4); /* bytes of 16 numbers */
    uint32_t d = job->dims->d_head;
    vf scores[TILE_Q][NV];
    float weights[TILE_Q][WEIR_KV_BLOCK], keep[KEEP_MAX] = { 0 };

    _Pragma("GCC unroll 16") for (int a = 0; a < N; a++) _Pragma("GCC unroll 4") for (int c = 0; c < NV; c++)
        scores[a][c] = (vf){ 0 };
    for (uint32_t i = 0; i < d; i++) {
        __builtin_prefetch(v + i * line); /* as many lines as keys */
        _Pragma("GCC unroll 4") for (int c = 0; c < NV; c++)
        {
            vf key = load_keys(k, i, (uint32_t)c * LANES, bf16);
            _Pragma("GCC unroll 16") for (int a = 0; a < N; a++) scores[a][c] +=
                key * splat(q[(size_t)i * TILE_Q + (uint32_t)a]);
        }
    }
    _Pragma("GCC unroll 16") for (int a = 0; a < N; a++)
    {
        for (int c = 0; to - from < WEIR_KV_BLOCK && c < NV; c++) {
            vi seen = (numbers.part[c] >= (int32_t)from) & (numbers.part[c] < (int32_t)to);
            scores[a][c] = choose(seen, scores[a][c], splat(-INFINITY));
        }
        float max = largest(scores[a]);
        max = queries[a].max > max ? queries[a].max : max;
        keep[a] = queries[a].max - max;
        queries[a].max = max;
    }
    for (int a = 0; a < N; a += LANES)
        store(keep + a, exp_v(load(keep + a)));
    _Pragma("GCC unroll 16") for (int a = 0; a < N; a++)
    {
        vf total = { 0 };
        _Pragma("GCC unroll 4") for (int c = 0; c < NV; c++)
        {
            vf weight = exp_v(scores[a][c] - splat(queries[a].max));
            store(weights[a] + c * LANES, weight);
            total += weight;
        }
        store(queries[a].total, load(queries[a].total) * splat(keep[a]) + total);
    }
    uint32_t i = 0;
    for (; i + LANES <= d; i += LANES) {
        vf out[TILE_Q];
        _Pragma("GCC unroll 16") for (int a = 0; a < N; a++) out[a] = (vf){ 0 };
        for (uint32_t j = from; j < to; j++) {
            vf value = load_value(v, j, i, d, bf16);
            __builtin_prefetch(next + (size_t)(i / LANES * WEIR_KV_BLOCK + j) * line);
            _Pragma("GCC unroll 16") for (int a = 0; a < N; a++) out[a] += value * splat(weights[a][j]);
        }
        _Pragma("GCC unroll 16") for (int a = 0; a < N; a++)
            store(queries[a].out + i, load(queries[a].out + i) * splat(keep[a]) + out[a]);
    }
    for (; i < d; i++)
        for (int a = 0; a < N; a++) {
            float out = 0;
            for (uint32_t j = from; j < to; j++)
                out += one_value(v, j, i, d, bf16) * weights[a][j];
            queries[a].out[i] = queries[a].out[i] * keep[a] + out;
        }
}

/* Pages [begin, end) that all N queries see whole. */
#define ATTEND_PAGES(N)                                                                                      \
    static __attribute__((noinline)) void attend_pages_##N(                                                  \
        const struct attend_job *job, struct query *queries, const float *q, uint32_t begin, uint32_t end)   \
    {                                                                                                        \
        for (uint32_t b = begin; b < end; b++) { /* [B2] */                                                  \
            if (job->kv == WEIR_BF16)                                                                        \
                attend_page(job, queries, q, N, 1, b, b + 1 < end ? b + 1 : b, 0, WEIR_KV_BLOCK);            \
            else                                                                                             \
                attend_page(job, queries, q, N, 0, b, b + 1 < end ? b + 1 : b, 0, WEIR_KV_BLOCK);            \
        }                                                                                                    \
    }
#if TILE_Q >= 16
ATTEND_PAGES(16)
#endif
#if TILE_Q >= 8
ATTEND_PAGES(8)
#endif
#if TILE_Q >= 4
ATTEND_PAGES(4)
#endif
ATTEND_PAGES(2)
ATTEND_PAGES(1)

static void attend_pages(const struct attend_job *job, struct query *queries, const float *q, uint32_t n,
                         uint32_t begin, uint32_t end)
{
    switch (n) {
#if TILE_Q >= 16
    case 16:
        attend_pages_16(job, queries, q, begin, end);
        break;
#endif
#if TILE_Q >= 8
    case 8:
        attend_pages_8(job, queries, q, begin, end);
        break;
#endif
#if TILE_Q >= 4
    case 4:
        attend_pages_4(job, queries, q, begin, end);
        break;
#endif
    case 2:
        attend_pages_2(job, queries, q, begin, end);
        break;
    default:
        attend_pages_1(job, queries, q, begin, end);
    }
}

static __attribute__((noinline)) void attend_part_of_page(const struct attend_job *job, struct query *query,
                                                          const float *q, uint32_t b, uint32_t from,
                                                          uint32_t to)
{
    if (job->kv == WEIR_BF16)
        attend_page(job, query, q, 1, 1, b, b, from, to);
    else
        attend_page(job, query, q, 1, 0, b, b, from, to);
}

/* Positions [from, to) of one query. */
static void attend_alone(const struct attend_job *job, struct query *query, const float *q, uint32_t from,
                         uint32_t to)
{
    while (from < to) {
        uint32_t b = from / WEIR_KV_BLOCK, first = b * WEIR_KV_BLOCK;
        uint32_t n_whole = from == first ? (to - from) / WEIR_KV_BLOCK : 0;
        uint32_t end = n_whole                      ? first + n_whole * WEIR_KV_BLOCK
                       : first + WEIR_KV_BLOCK < to ? first + WEIR_KV_BLOCK
                                                    : to;
        if (n_whole)
            attend_pages_1(job, query, q, b, b + n_whole);
        else
            attend_part_of_page(job, query, q, b, from - first, end - first);
        from = end;
    }
}

/* N queries, by (token, head): the pages that all see whole are taken together; what comes before and after them each takes
 * alone. */
static void attend_queries(const struct attend_job *job, uint32_t first, uint32_t n)
{
    uint32_t d = job->dims->d_head, n_group = job->dims->n_head / job->dims->n_kv_head, a = 0;
    struct query queries[TILE_Q];
    float q[WEIR_HEAD_MAX * TILE_Q];

    do { /* n is 1 or more */
        uint32_t t = (first + a) / n_group, g = (first + a) % n_group;
        const float *source = job->q + t * job->ld_q + (size_t)g * d;
        uint32_t to = (uint32_t)job->pos + t + 1, window = job->dims->window;
        queries[a] = (struct query){ .out = job->out + t * job->ld_out + (size_t)g * d,
                                     .max = -INFINITY,
                                     .from = window && window < to ? to - window : 0,
                                     .to = to };
        for (uint32_t i = 0; i < d; i++)
            q[(size_t)i * TILE_Q + a] = source[i] * job->scale;
        memset(queries[a].out, 0, d * sizeof(float));
    } while (++a < n);
    /* The first query sees the least at the end, the last one at the beginning. */
    uint32_t begin = (queries[n - 1].from + WEIR_KV_BLOCK - 1) / WEIR_KV_BLOCK,
             end = queries[0].to / WEIR_KV_BLOCK;
    bool together = begin < end;
    for (a = 0; together && a < n; a++)
        attend_alone(job, &queries[a], q + a, queries[a].from, begin * WEIR_KV_BLOCK);
    if (together)
        attend_pages(job, queries, q, n, begin, end);
    for (a = 0; a < n; a++) {
        attend_alone(job, &queries[a], q + a, together ? end * WEIR_KV_BLOCK : queries[a].from,
                     queries[a].to);
        float total = sum(load(queries[a].total));
        for (uint32_t i = 0; i < d; i++)
            queries[a].out[i] /= total;
    }
}

static void attend(const struct attend_job *job)
{
    uint32_t n = job->n_tok * (job->dims->n_head / job->dims->n_kv_head), done = 0;

    while (done < n) {
        uint32_t some = TILE_Q;
        while (some > n - done)
            some /= 2;
        attend_queries(job, done, some);
        done += some;
    }
}

const struct cpu_ops OPS_NAME = {
    .name = OPS_LABEL, .linear = linear, .rmsnorm = rmsnorm, .attend = attend, .silu_mul = silu_mul
};
