/* attend_amx.c - attention over pages of bf16 by AMX tiles: up to 16 queries (tokens and heads that share a KV head) at once.
 *
 * Queries are split like the activations of products (see ops_amx.c): what is lost is what keys and values lost in their pages.
 * Softmax goes by blocks of 64 positions: scores of 4 pages by tiles, weights by vectors, then weights times values by tiles
 * on top of the sums so far: attend_blocks.h.
 *
 * Tiles: 0, 1 sums; 2, 3 queries and their rests; 4 keys [16 pairs of numbers][16 positions][2]; 5, 6 weights and their rests
 * [queries][16 positions]; 7 values [8 pairs of positions][16 numbers][2]. */
#include <string.h>

#define LANES 16
#include "kernels/cpu/amx.h"
#include "kernels/cpu/attend_blocks.h"
#include "kernels/cpu/vectors_body.h"

#define D_MAX ATTEND_AMX_D_MAX

/* Up to AMX_ROWS queries. */
struct group {
    const struct attend_job *job;
    uint32_t n;
    uint32_t from[AMX_ROWS], to[AMX_ROWS]; /* the positions that each sees */
    float max[AMX_ROWS];
    __m512 total[AMX_ROWS]; /* by lanes: added up at the end */
    float sums[AMX_ROWS][D_MAX]
        __attribute__((aligned(64))); /* of weights times values; [n][d_head], packed */
    uint16_t q[D_MAX / AMX_DEPTH][2][AMX_ROWS][AMX_DEPTH] __attribute__((aligned(64)));
    float scores[BLOCK_PAGES][AMX_ROWS][WEIR_KV_BLOCK] __attribute__((aligned(64)));
    uint16_t weights[2][BLOCK_PAGES][AMX_ROWS][WEIR_KV_BLOCK] __attribute__((aligned(64)));
};

static void configure(uint32_t n)
{
    struct amx_config config = { .palette = 1 };

    for (int i = 0; i < 8; i++) {
        config.row_bytes[i] = i == 5 || i == 6 ? 32 : 64;
        config.rows[i] = (uint8_t)(i == 4 ? 16 : i == 7 ? WEIR_KV_BLOCK / 2 : n);
    }
    amx_configure(&config);
}

static void begin_group(struct group *g, const struct attend_job *job, uint32_t first, uint32_t n)
{
    uint32_t d = job->dims->d_head;
    float scaled[AMX_DEPTH];
    size_t at_out;

    g->job = job;
    g->n = n;
    memset(g->sums, 0, (size_t)n * d * sizeof(float));
    for (uint32_t a = 0; a < n; a++) {
        const float *q = block_query(job, first + a, &at_out);
        block_sight(job, first + a, &g->from[a], &g->to[a]);
        g->max[a] = LEAST;
        g->total[a] = _mm512_setzero_ps();
        for (uint32_t i = 0; i < d; i += AMX_DEPTH) {
            for (uint32_t k = 0; k < AMX_DEPTH; k++)
                scaled[k] = q[i + k] * job->scale;
            amx_split(scaled, AMX_DEPTH, g->q[i / AMX_DEPTH][0][a], g->q[i / AMX_DEPTH][1][a]);
        }
    }
}

/* Pages [page, page + 2) of the block's: scores of all queries. */
static void score_pages(struct group *g, uint32_t block, uint32_t page, uint32_t n_pages)
{
    const char *k0 = block_page(g->job, g->job->k, block * BLOCK_PAGES + page);
    const char *k1 = n_pages > 1 ? block_page(g->job, g->job->k, block * BLOCK_PAGES + page + 1) : k0;

    AMX_STORED();
    _tile_zero(0);
    _tile_zero(1);
    for (uint32_t i = 0; i < g->job->dims->d_head / AMX_DEPTH; i++) {
        _tile_loadd(2, g->q[i][0], 64);
        _tile_loadd(3, g->q[i][1], 64);
        _tile_loadd(4, k0 + i * AMX_TILE_BYTES, 64);
        _tile_dpbf16ps(0, 2, 4);
        _tile_dpbf16ps(0, 3, 4);
        if (n_pages < 2)
            continue;
        _tile_loadd(4, k1 + i * AMX_TILE_BYTES, 64);
        _tile_dpbf16ps(1, 2, 4);
        _tile_dpbf16ps(1, 3, 4);
    }
    _tile_stored(0, g->scores[page], 64);
    if (n_pages > 1)
        _tile_stored(1, g->scores[page + 1], 64);
}

static void put_weights(struct group *g, uint32_t page, uint32_t a, __m512 weights)
{
    __m256i rounded = (__m256i)_mm512_cvtneps_pbh(weights);
    __m512 back = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(rounded), 16));

    _mm256_store_si256((__m256i *)g->weights[0][page][a], rounded);
    _mm256_store_si256((__m256i *)g->weights[1][page][a],
                       (__m256i)_mm512_cvtneps_pbh(_mm512_sub_ps(weights, back)));
}

/* Scores of pages [first, end) become weights of query a; what it summed so far is scaled to its new maximum. */
static void weigh(struct group *g, uint32_t block, uint32_t a, uint32_t first, uint32_t end)
{
    __m512 scores[BLOCK_PAGES], most = _mm512_set1_ps(LEAST), total = _mm512_setzero_ps();
    uint32_t d = g->job->dims->d_head;
    float *sums = &g->sums[0][0] + (size_t)a * d;

    for (uint32_t page = first; page < end; page++) {
        scores[page] = _mm512_mask_loadu_ps(
            _mm512_set1_ps(LEAST), block_seen(g->from[a], g->to[a], block * BLOCK + page * WEIR_KV_BLOCK),
            g->scores[page][a]);
        most = _mm512_max_ps(most, scores[page]);
    }
    float max = _mm512_reduce_max_ps(most);
    if (max > g->max[a]) {
        float keep[LANES];
        store(keep, exp_v(splat(g->max[a] - max)));
        g->max[a] = max;
        g->total[a] = _mm512_mul_ps(g->total[a], _mm512_set1_ps(keep[0]));
        for (uint32_t i = 0; i < d; i += LANES)
            _mm512_storeu_ps(sums + i, _mm512_mul_ps(_mm512_loadu_ps(sums + i), _mm512_set1_ps(keep[0])));
    }
    for (uint32_t page = first; page < end; page++) {
        __m512 weights = (__m512)exp_v((vf)_mm512_sub_ps(scores[page], _mm512_set1_ps(g->max[a])));
        weights = _mm512_maskz_mov_ps(block_seen(g->from[a], g->to[a], block * BLOCK + page * WEIR_KV_BLOCK),
                                      weights);
        total = _mm512_add_ps(total, weights);
        put_weights(g, page, a, weights);
    }
    g->total[a] = _mm512_add_ps(g->total[a], total);
}

/* Weights of pages [first, end) times values, on top of the sums. */
static void add_values(struct group *g, uint32_t block, uint32_t first, uint32_t end)
{
    uint32_t d = g->job->dims->d_head;
    size_t ld_sums = d * sizeof(float), ld_v = (size_t)d * 4;

    AMX_STORED();
    for (uint32_t i = 0; i < d; i += 2 * LANES) {
        float *sums = &g->sums[0][0] + i;
        _tile_loadd(0, sums, ld_sums);
        _tile_loadd(1, sums + LANES, ld_sums);
        for (uint32_t page = first; page < end; page++) {
            const char *v = block_page(g->job, g->job->v, block * BLOCK_PAGES + page) + (size_t)i * 4;
            _tile_loadd(5, g->weights[0][page], 32);
            _tile_loadd(6, g->weights[1][page], 32);
            _tile_loadd(7, v, ld_v);
            _tile_dpbf16ps(0, 5, 7);
            _tile_dpbf16ps(0, 6, 7);
            _tile_loadd(7, v + 64, ld_v);
            _tile_dpbf16ps(1, 5, 7);
            _tile_dpbf16ps(1, 6, 7);
        }
        _tile_stored(0, sums, ld_sums);
        _tile_stored(1, sums + LANES, ld_sums);
    }
}

/* Block `block`, of which somebody sees positions [from, to). */
static void attend_block(struct group *g, uint32_t block, uint32_t from, uint32_t to)
{
    uint32_t begin = block * BLOCK, first = from > begin ? (from - begin) / WEIR_KV_BLOCK : 0;
    uint32_t end = to < begin + BLOCK ? (to - begin + WEIR_KV_BLOCK - 1) / WEIR_KV_BLOCK : BLOCK_PAGES;

    for (uint32_t page = first; page < end; page += 2)
        score_pages(g, block, page, end - page < 2 ? 1 : 2);
    for (uint32_t a = 0; a < g->n; a++)
        weigh(g, block, a, first, end);
    add_values(g, block, first, end);
}

static void end_group(const struct group *g, uint32_t first)
{
    uint32_t d = g->job->dims->d_head;

    for (uint32_t a = 0; a < g->n; a++) {
        size_t at;
        block_query(g->job, first + a, &at);
        __m512 by = _mm512_set1_ps(1.0f / _mm512_reduce_add_ps(g->total[a]));
        for (uint32_t i = 0; i < d; i += LANES)
            _mm512_storeu_ps(g->job->out + at + i,
                             _mm512_mul_ps(_mm512_loadu_ps(&g->sums[0][0] + (size_t)a * d + i), by));
    }
}

void attend_amx(const struct attend_job *job)
{
    uint32_t n = job->n_tok * (job->dims->n_head / job->dims->n_kv_head);
    struct group g;

    for (uint32_t first = 0; first < n; first += AMX_ROWS) {
        uint32_t some = n - first < AMX_ROWS ? n - first : AMX_ROWS;
        begin_group(&g, job, first, some);
        configure(some);
        /* The first query begins first, the last one ends last. */
        for (uint32_t block = g.from[0] / BLOCK; block * BLOCK < g.to[some - 1]; block++)
            attend_block(&g, block, g.from[0], g.to[some - 1]);
        end_group(&g, first);
    }
    _tile_release();
}
