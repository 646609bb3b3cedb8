/* dots_bf16.c - products of bf16 weights with activations rounded to bf16, by VDPBF16PS.
 *
 *   [D1] Every output is one chain of dots along n_in, a pair of inputs at a time, in order, whatever the tile it falls into: the
 *        bits do not depend on the batch.
 *
 * 3 panels by 8 tokens are 24 sums: 11 loads feed 24 dots, and enough chains hide their latency. The first block of tokens fetches
 * weights just ahead; they lie in the second cache for those that follow, of which the first three fetch a panel each of the
 * next tile there, so that memory works while dots are computed. */
#include <immintrin.h>
#include <string.h>

#include "kernels/cpu/dots.h"

#define BLOCK_TOKENS 8
#define AHEAD 24 /* pairs of inputs to fetch ahead */
#define FEW_TOKENS                                                                                           \
    4 /* up to so many wait for memory only, and one panel after the other is one stream from there */

#define INLINE static inline __attribute__((always_inline))

size_t dots_bf16_prepared_bytes(const struct weir_matrix *m)
{
    return (size_t)PREPARE_TOKENS * m->n_pair * sizeof(uint32_t);
}

/* Inputs [i, i + 16) of a row as 8 pairs; zeros past n. */
INLINE __m256i pairs(const float *x, uint32_t i, uint32_t n)
{
    uint32_t left = i < n ? n - i : 0;
    __mmask16 mask = (__mmask16)(left >= 16 ? 0xffff : (1u << left) - 1);

    return (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, x + i));
}

/* A block of `width` tokens: [n_pair][width] pairs. */
static void prepare_block(const float *x, const struct weir_matrix *m, uint32_t width, uint32_t *to)
{
    uint32_t words[8];

    for (uint32_t t = 0; t < width; t++, x += m->n_in)
        for (uint32_t i = 0; i < m->n_pair; i += 8) {
            _mm256_storeu_si256((__m256i *)words, pairs(x, 2 * i, m->n_in));
            for (uint32_t k = 0; k < 8; k++)
                to[(i + k) * width + t] = words[k];
        }
}

void dots_bf16_prepare(const float *x, const struct weir_matrix *m, uint32_t n_tok, uint32_t begin,
                       uint32_t end, void *to)
{
    end = end < n_tok ? end : n_tok;
    for (uint32_t t = begin, width; t < end; t += width) {
        width = block_tokens(end - t, BLOCK_TOKENS);
        prepare_block(x + (size_t)t * m->n_in, m, width, (uint32_t *)to + (size_t)t * m->n_pair);
    }
}

/* P panels times the T tokens of a block; P, T and first are constants where this is inlined. `later`: a panel to fetch. */
INLINE void tile(float *out, const struct weir_matrix *m, uint32_t panel, const uint32_t *x,
                 const uint32_t *later, const int P, const int T, const int first)
{
    size_t stride = (size_t)m->n_pair * PANEL;
    const uint32_t *w = (const uint32_t *)m->data + panel * stride;
    __m512 sums[TILE_PANELS][BLOCK_TOKENS];

    _Pragma("GCC unroll 3") for (int p = 0; p < P; p++) _Pragma("GCC unroll 8") for (int t = 0; t < T; t++)
        sums[p][t] = _mm512_setzero_ps();
    for (uint32_t k = 0; k < m->n_pair; k++, w += PANEL, x += T, later += PANEL) {
        __m512bh weights[TILE_PANELS];
        if (!first)
            _mm_prefetch((const char *)later, _MM_HINT_T1);
        /* Behind the panel's end the same panel of the next tile comes. */
        const uint32_t *next = w + AHEAD * PANEL + (k + AHEAD < m->n_pair ? 0 : (size_t)(P - 1) * stride);
        _Pragma("GCC unroll 3") for (int p = 0; p < P; p++)
        {
            weights[p] = (__m512bh)_mm512_loadu_si512(w + (size_t)p * stride);
            if (first)
                _mm_prefetch((const char *)(next + (size_t)p * stride), _MM_HINT_T0);
        }
        _Pragma("GCC unroll 8") for (int t = 0; t < T; t++)
        {
            __m512bh pair = (__m512bh)_mm512_set1_epi32((int)x[t]);
            _Pragma("GCC unroll 3") for (int p = 0; p < P; p++) sums[p][t] =
                _mm512_dpbf16_ps(sums[p][t], weights[p], pair); /* [D1] */
        }
    }
    _Pragma("GCC unroll 3") for (int p = 0; p < P; p++)
    {
        uint32_t left = m->n_out - (panel + (uint32_t)p) * PANEL;
        __mmask16 mask = (__mmask16)(left >= PANEL ? 0xffff : (1u << left) - 1);
        _Pragma("GCC unroll 8") for (int t = 0; t < T; t++) _mm512_mask_storeu_ps(
            out + (size_t)t * m->n_out + (panel + (uint32_t)p) * PANEL, mask, sums[p][t]);
    }
}

#define TILES(T, FIRST)                                                                                      \
    static __attribute__((noinline)) void tiles_##T##_##FIRST(float *out, const struct weir_matrix *m,       \
                                                              uint32_t panel, uint32_t n_panel,              \
                                                              const uint32_t *x, const uint32_t *later)      \
    {                                                                                                        \
        if (n_panel == 3)                                                                                    \
            tile(out, m, panel, x, later, 3, T, FIRST);                                                      \
        else if (n_panel == 2)                                                                               \
            tile(out, m, panel, x, later, 2, T, FIRST);                                                      \
        else                                                                                                 \
            tile(out, m, panel, x, later, 1, T, FIRST);                                                      \
    }
TILES(8, 1)
TILES(8, 0)
TILES(4, 1)
TILES(4, 0)
TILES(2, 1)
TILES(2, 0)
TILES(1, 1)
TILES(1, 0)

typedef void tiles_fn(float *out, const struct weir_matrix *m, uint32_t panel, uint32_t n_panel,
                      const uint32_t *x, const uint32_t *later);

static tiles_fn *tiles_of(uint32_t width, int first)
{
    switch (width) {
    case 8:
        return first ? tiles_8_1 : tiles_8_0;
    case 4:
        return first ? tiles_4_1 : tiles_4_0;
    case 2:
        return first ? tiles_2_1 : tiles_2_0;
    default:
        return first ? tiles_1_1 : tiles_1_0;
    }
}

void dots_bf16_linear(float *out, const struct weir_matrix *m, uint32_t n_tok, uint32_t begin, uint32_t end,
                      const void *prepared)
{
    for (uint32_t panel = begin, n_panel; panel < end; panel += n_panel) {
        n_panel = n_tok <= FEW_TOKENS ? 1 : tile_panels(end - panel);
        for (uint32_t t = 0, i = 0, width; t < n_tok; t += width, i++) {
            width = block_tokens(n_tok - t, BLOCK_TOKENS);
            uint32_t later = later_panel(panel, n_panel, i, end);
            tiles_of(width, t == 0)(out + (size_t)t * m->n_out, m, panel, n_panel,
                                    (const uint32_t *)prepared + (size_t)t * m->n_pair,
                                    (const uint32_t *)m->data + (size_t)later * m->n_pair * PANEL);
        }
    }
}
