/* integers.h - products of quantized weights in integers: what ops_vnni.c and ops_amx.c share.
 *
 * A token's activations become 16-bit numbers q with one scale: x = scale * q, |q| <= 32512. Each is kept as two bytes,
 * q + 32768 = 256 * high + low, so that u8 * s8 products serve: with w the row's integers,
 *   sum q * w = 256 * (sum high * w - 128 * sum w) + sum low * w.
 *
 *   [I1] All sums are of integers and exact, so any order and any instruction gives the same bits; the one rounding is in
 *        the end, in finish(), the same for all.
 * 16 bits of an activation are as many as the tiles of bf16 use: what is lost is what the weights lost when they were packed. */
#ifndef WEIR_KERNELS_CPU_INTEGERS_H
#define WEIR_KERNELS_CPU_INTEGERS_H

#include <immintrin.h>

#include "kernels/cpu/ops.h"

#define Q_MAX 32512
#define FEW_TOKENS                                                                                           \
    4 /* up to so many are multiplied by Q4 as it lies; for more a panel is widened to Q8 first */

/* Rows of bytes are as far apart as an odd number of lines: 16 of them would share a set of the first cache else. */
static inline size_t row_bytes(const struct weir_matrix *m)
{
    return (size_t)m->n_wide + (m->n_wide / 64 % 2 ? 0 : 64);
}

struct prepared {
    const float *scales;       /* [PREPARE_TOKENS] */
    const uint8_t *high, *low; /* [PREPARE_TOKENS, row_bytes] */
};

static inline struct prepared prepared_of(const void *memory, const struct weir_matrix *m)
{
    const uint8_t *high = (const uint8_t *)memory + PREPARE_TOKENS * sizeof(float);

    return (struct prepared){ memory, high, high + PREPARE_TOKENS * row_bytes(m) };
}

/* What the rows of a panel have in common. */
struct finish {
    __m512i offset; /* 128 * sum w */
    __m512 scales;
    __mmask16 mask; /* rows that there are */
};

static inline struct finish finish_of(const struct weir_matrix *m, uint32_t panel)
{
    uint32_t left = m->n_out - panel * PANEL;

    return (struct finish){
        .offset = _mm512_slli_epi32(_mm512_loadu_si512(m->sums + (size_t)panel * PANEL), 7),
        .scales = _mm512_loadu_ps(m->scales + (size_t)panel * PANEL),
        .mask = (__mmask16)(left >= PANEL ? 0xffff : (1u << left) - 1),
    };
}

/* A panel's row of one token. */
static inline void finish(float *out, __m512i high, __m512i low, const struct finish *how, float scale)
{
    __m512 a = _mm512_cvtepi32_ps(_mm512_sub_epi32(high, how->offset));
    __m512 all = _mm512_fmadd_ps(a, _mm512_set1_ps(256.0f), _mm512_cvtepi32_ps(low));

    _mm512_mask_storeu_ps(out, how->mask,
                          _mm512_mul_ps(all, _mm512_mul_ps(how->scales, _mm512_set1_ps(scale))));
}

/* A panel of Q4 as one of Q8. */
void vnni_widen(int8_t *to, const struct weir_matrix *m, uint32_t panel);

#endif
