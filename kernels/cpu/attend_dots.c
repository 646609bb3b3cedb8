/* attend_dots.c - attention over pages of bf16 by VDPBF16PS: up to 8 queries (tokens and heads that share a KV head) at once.
 *
 * Queries and weights are rounded to bf16, as keys and values are in their pages. Softmax goes by blocks of 64 positions, in
 * powers of 2 (the scale that queries are multiplied with has log2(e) in it): scores of up to 4 pages, weights, then weights
 * times values on top of the sums so far: attend_blocks.h.
 *
 *   [D3] Sums are chains in order: scores along the head, values along the positions. */
#include <immintrin.h>
#include <string.h>

#include "kernels/cpu/attend_blocks.h"
#include "kernels/cpu/dots.h"

#define LANES 16
#define QUERIES 8
#define D_MAX ATTEND_DOTS_D_MAX
#define LOG2_E 1.44269504f

#define INLINE static inline __attribute__((always_inline))

struct group {
    const struct attend_job *job;
    uint32_t from[QUERIES], to[QUERIES]; /* the positions that each sees */
    float max[QUERIES];
    __m512 total[QUERIES];          /* by lanes: added up at the end */
    float sums[QUERIES][D_MAX];     /* of weights times values */
    uint32_t q[QUERIES][D_MAX / 2]; /* pairs of bf16 */
    float scores[QUERIES][BLOCK];
    uint32_t weights[QUERIES][BLOCK / 2]; /* pairs of bf16 */
};

static const uint32_t *page_of(const struct attend_job *job, const void *pages, uint32_t page)
{
    return (const uint32_t *)(const void *)block_page(job, pages, page);
}

static void begin_group(struct group *g, const struct attend_job *job, uint32_t first, uint32_t n)
{
    uint32_t d = job->dims->d_head;
    __m512 scale = _mm512_set1_ps(job->scale * LOG2_E);
    size_t at_out;

    g->job = job;
    for (uint32_t a = 0; a < n; a++) {
        const float *q = block_query(job, first + a, &at_out);
        block_sight(job, first + a, &g->from[a], &g->to[a]);
        g->max[a] = LEAST;
        g->total[a] = _mm512_setzero_ps();
        memset(g->sums[a], 0, d * sizeof(float));
        for (uint32_t i = 0; i < d; i += LANES)
            _mm256_storeu_si256((__m256i *)(g->q[a] + i / 2),
                                (__m256i)_mm512_cvtneps_pbh(_mm512_mul_ps(_mm512_loadu_ps(q + i), scale)));
    }
}

/* P pages from `page` of the block on: scores of N queries; constants where this is inlined. */
INLINE void score_pages(struct group *g, uint32_t block, uint32_t page, const int P, const int N)
{
    uint32_t n_pairs = g->job->dims->d_head / 2;
    const uint32_t *keys[BLOCK_PAGES], *values[BLOCK_PAGES];
    __m512 sums[QUERIES][BLOCK_PAGES];

    _Pragma("GCC unroll 4") for (int p = 0; p < P; p++)
    {
        keys[p] = page_of(g->job, g->job->k, block * BLOCK_PAGES + page + (uint32_t)p);
        values[p] = page_of(g->job, g->job->v, block * BLOCK_PAGES + page + (uint32_t)p);
        _Pragma("GCC unroll 8") for (int a = 0; a < N; a++) sums[a][p] = _mm512_setzero_ps();
    }
    for (uint32_t i = 0; i < n_pairs; i++) {
        __m512bh key[BLOCK_PAGES];
        _Pragma("GCC unroll 4") for (int p = 0; p < P; p++)
        {
            key[p] = (__m512bh)_mm512_loadu_si512(keys[p] + i * WEIR_KV_BLOCK);
            _mm_prefetch((const char *)(values[p] + i * WEIR_KV_BLOCK),
                         _MM_HINT_T0); /* as many lines as keys */
        }
        _Pragma("GCC unroll 8") for (int a = 0; a < N; a++)
        {
            __m512bh q = (__m512bh)_mm512_set1_epi32((int)g->q[a][i]);
            _Pragma("GCC unroll 4") for (int p = 0; p < P; p++) sums[a][p] =
                _mm512_dpbf16_ps(sums[a][p], key[p], q); /* [D3] */
        }
    }
    _Pragma("GCC unroll 8") for (int a = 0; a < N; a++) _Pragma("GCC unroll 4") for (int p = 0; p < P; p++)
        _mm512_storeu_ps(g->scores[a] + (page + (uint32_t)p) * WEIR_KV_BLOCK, sums[a][p]);
}

/* 2^x for x <= 0, to 2e-7 of it: a polynomial on [-1/2, 1/2] of least error with the constant 1. */
INLINE __m512 exp2_v(__m512 x)
{
    __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_sub_ps(x, n), p = _mm512_set1_ps(1.3264400e-3f);

    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(9.6714100e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.5507340e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.4022244e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(6.9314698e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, n);
}

/* Scores of pages [first, end) become weights of query a; what it summed so far is scaled to its new maximum. */
static void weigh(struct group *g, uint32_t block, uint32_t a, uint32_t first, uint32_t end)
{
    __m512 scores[BLOCK_PAGES], most = _mm512_set1_ps(LEAST), total = _mm512_setzero_ps();
    __mmask16 masks[BLOCK_PAGES];

    for (uint32_t page = first; page < end; page++) {
        masks[page] = block_seen(g->from[a], g->to[a], block * BLOCK + page * WEIR_KV_BLOCK);
        scores[page] =
            _mm512_mask_loadu_ps(_mm512_set1_ps(LEAST), masks[page], g->scores[a] + page * WEIR_KV_BLOCK);
        most = _mm512_max_ps(most, scores[page]);
    }
    float max = _mm512_reduce_max_ps(most);
    if (max > g->max[a]) {
        __m512 keep = exp2_v(_mm512_set1_ps(g->max[a] - max));
        g->max[a] = max;
        g->total[a] = _mm512_mul_ps(g->total[a], keep);
        for (uint32_t i = 0; i < g->job->dims->d_head; i += LANES)
            _mm512_storeu_ps(g->sums[a] + i, _mm512_mul_ps(_mm512_loadu_ps(g->sums[a] + i), keep));
    }
    for (uint32_t page = first; page < end; page++) {
        __m512 weights = exp2_v(_mm512_sub_ps(scores[page], _mm512_set1_ps(g->max[a])));
        weights = _mm512_maskz_mov_ps(masks[page], weights);
        total = _mm512_add_ps(total, weights);
        _mm256_storeu_si256((__m256i *)(g->weights[a] + page * WEIR_KV_BLOCK / 2),
                            (__m256i)_mm512_cvtneps_pbh(weights));
    }
    g->total[a] = _mm512_add_ps(g->total[a], total);
}

/* Weights of pages [first, end) times V vectors of values from number i on, on top of the sums; N and V are constants where this is
 * inlined. */
INLINE void add_values(struct group *g, uint32_t block, uint32_t first, uint32_t end, uint32_t i, const int N,
                       const int V)
{
    uint32_t d = g->job->dims->d_head;
    __m512 sums[QUERIES][4];

    _Pragma("GCC unroll 8") for (int a = 0; a < N; a++) _Pragma("GCC unroll 4") for (int v = 0; v < V; v++)
        sums[a][v] = _mm512_loadu_ps(g->sums[a] + i + v * LANES);
    for (uint32_t page = first; page < end; page++) {
        const uint32_t *values = page_of(g->job, g->job->v, block * BLOCK_PAGES + page) + i;
        for (uint32_t j = 0; j < WEIR_KV_BLOCK / 2; j++, values += d) {
            __m512bh value[4];
            _Pragma("GCC unroll 4") for (int v = 0; v < V; v++) value[v] =
                (__m512bh)_mm512_loadu_si512(values + v * LANES);
            _Pragma("GCC unroll 8") for (int a = 0; a < N; a++)
            {
                __m512bh w = (__m512bh)_mm512_set1_epi32((int)g->weights[a][page * WEIR_KV_BLOCK / 2 + j]);
                _Pragma("GCC unroll 4") for (int v = 0; v < V; v++) sums[a][v] =
                    _mm512_dpbf16_ps(sums[a][v], value[v], w); /* [D3] */
            }
        }
    }
    _Pragma("GCC unroll 8") for (int a = 0; a < N; a++) _Pragma("GCC unroll 4") for (int v = 0; v < V; v++)
        _mm512_storeu_ps(g->sums[a] + i + v * LANES, sums[a][v]);
}

/* Block `block`, of which somebody sees positions [from, to). */
INLINE void attend_block(struct group *g, uint32_t block, uint32_t from, uint32_t to, const int N)
{
    uint32_t begin = block * BLOCK, first = from > begin ? (from - begin) / WEIR_KV_BLOCK : 0;
    uint32_t end = to < begin + BLOCK ? (to - begin + WEIR_KV_BLOCK - 1) / WEIR_KV_BLOCK : BLOCK_PAGES;
    uint32_t page = first, i = 0, d = g->job->dims->d_head;

    for (; N <= 4 && page + 4 <= end; page += 4)
        score_pages(g, block, page, 4, N);
    for (; page + 2 <= end; page += 2)
        score_pages(g, block, page, 2, N);
    for (; page < end; page++)
        score_pages(g, block, page, 1, N);
    for (uint32_t a = 0; a < (uint32_t)N; a++)
        weigh(g, block, a, first, end);
    for (; N <= 4 && i + 4 * LANES <= d; i += 4 * LANES)
        add_values(g, block, first, end, i, N, 4);
    for (; i + 2 * LANES <= d; i += 2 * LANES)
        add_values(g, block, first, end, i, N, 2);
    for (; i < d; i += LANES)
        add_values(g, block, first, end, i, N, 1);
}

static void end_group(const struct group *g, uint32_t first, uint32_t n)
{
    uint32_t d = g->job->dims->d_head;

    for (uint32_t a = 0; a < n; a++) {
        size_t at;
        block_query(g->job, first + a, &at);
        __m512 by = _mm512_set1_ps(1.0f / _mm512_reduce_add_ps(g->total[a]));
        for (uint32_t i = 0; i < d; i += LANES)
            _mm512_storeu_ps(g->job->out + at + i, _mm512_mul_ps(_mm512_loadu_ps(g->sums[a] + i), by));
    }
}

/* The first query begins first, the last one ends last. */
#define QUERIES_OF(N)                                                                                        \
    static __attribute__((noinline)) void attend_##N(struct group *g, const struct attend_job *job,          \
                                                     uint32_t first)                                         \
    {                                                                                                        \
        begin_group(g, job, first, N);                                                                       \
        for (uint32_t block = g->from[0] / BLOCK; block * BLOCK < g->to[N - 1]; block++)                     \
            attend_block(g, block, g->from[0], g->to[N - 1], N);                                             \
        end_group(g, first, N);                                                                              \
    }
QUERIES_OF(8)
QUERIES_OF(4)
QUERIES_OF(2)
QUERIES_OF(1)

void attend_dots(const struct attend_job *job)
{
    uint32_t n = job->n_tok * (job->dims->n_head / job->dims->n_kv_head);
    struct group g;

    for (uint32_t first = 0, some; first < n; first += some) {
        some = block_tokens(n - first, QUERIES);
        (some == 8 ? attend_8 : some == 4 ? attend_4 : some == 2 ? attend_2 : attend_1)(&g, job, first);
    }
}
