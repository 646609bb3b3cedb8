/* dots_bytes.c - products of Q8 and Q4 with activations of 8 bits, by VPDPBUSD.
 *
 * A token's activations are signed bytes with a scale for each SPAN inputs: x = scale * q, |q| <= 127. Weights go in as unsigned
 * bytes, w + 128, for which 128 * sum q is taken off: a number of the token alone, from which each sum starts. Within a span sums
 * are of integers; span by span they are scaled and added in f32, and in the end scaled by the row's own scale.
 *
 *   [D2] A span's integer is exact, whatever the tile and whether Q4 is widened first or multiplied as it lies; the spans' sum is
 *        one chain of multiply-adds in order. So the bits do not depend on the batch.
 *
 * The dot products are written as assembly: GCC 12 spills the sums of the intrinsic to memory.
 * Q4 as it lies: a nibble is an unsigned byte of 0 to 15, for which 8 * sum q is taken off; a group's sum is multiplied by its
 * multiplier. For more than FEW_TOKENS panels are widened to Q8 first. */
#include <immintrin.h>
#include <string.h>

#include "kernels/cpu/dots.h"
#include "kernels/cpu/integers.h"

#define BLOCK_TOKENS 4
#define BYTES_AHEAD 1536 /* of a panel, to fetch ahead */
#define INLINE static inline __attribute__((always_inline))
#define DOT(sum, w, x) __asm__ volatile("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(w), "v"(x))

_Static_assert(SPAN == 2 * GROUP, "a span is two groups of Q4");

/* What a span of a block begins with: one of each a token. */
struct span {
    float scales[BLOCK_TOKENS];
    int32_t off128[BLOCK_TOKENS];  /* -128 * sum q */
    int32_t off8[2][BLOCK_TOKENS]; /* -8 * sum q of each half */
};

/* [tokens] blocks of [n_wide / SPAN] spans, then blocks of [n_wide / 4][width] words of 4 inputs. A span has room for a whole block
 * at each token, so that a block is found by its first token. */
struct bytes {
    struct span *spans;
    uint32_t *words;
};

static struct bytes bytes_of(const void *memory, const struct weir_matrix *m)
{
    struct span *spans = (struct span *)(uintptr_t)memory;

    return (struct bytes){ spans, (uint32_t *)(spans + (size_t)PREPARE_TOKENS * (m->n_wide / SPAN)) };
}

size_t dots_bytes_prepared_bytes(const struct weir_matrix *m)
{
    return (size_t)PREPARE_TOKENS * (m->n_wide / SPAN * sizeof(struct span) + m->n_wide);
}

/* Room for a tile's panels of Q8. */
size_t dots_bytes_own_bytes(const struct weir_matrix *m)
{
    return m->quant == WEIR_Q4 ? (size_t)TILE_PANELS * m->n_wide * PANEL : 0;
}

/* ---- activations ---- */
INLINE __m512 load_some(const float *x, uint32_t i, uint32_t n)
{
    uint32_t left = i < n ? n - i : 0;

    return _mm512_maskz_loadu_ps((__mmask16)(left >= 16 ? 0xffff : (1u << left) - 1), x + i);
}

/* Inputs [i, i + SPAN) of a token as bytes; zeros past n. */
static void round_span(const float *x, uint32_t i, uint32_t n, struct span *span, uint32_t t,
                       uint32_t words[SPAN / 4])
{
    __m512 numbers[SPAN / 16], most = _mm512_setzero_ps();
    __m512i sums[2] = { _mm512_setzero_si512(), _mm512_setzero_si512() };

    for (uint32_t v = 0; v < SPAN / 16; v++) {
        numbers[v] = load_some(x, i + 16 * v, n);
        most = _mm512_max_ps(most, _mm512_abs_ps(numbers[v]));
    }
    float max = _mm512_reduce_max_ps(most), by = max > 0 ? 127.0f / max : 0;
    for (uint32_t v = 0; v < SPAN / 16; v++) {
        __m512i q = _mm512_cvtps_epi32(_mm512_mul_ps(numbers[v], _mm512_set1_ps(by)));
        sums[v / 2] = _mm512_add_epi32(sums[v / 2], q);
        _mm_storeu_si128((__m128i *)(words + 4 * v), _mm512_cvtepi32_epi8(q));
    }
    int32_t first = _mm512_reduce_add_epi32(sums[0]), second = _mm512_reduce_add_epi32(sums[1]);
    span->scales[t] = max / 127.0f;
    span->off128[t] = -128 * (first + second);
    span->off8[0][t] = -8 * first;
    span->off8[1][t] = -8 * second;
}

static void prepare_block(const float *x, const struct weir_matrix *m, uint32_t width, struct span *spans,
                          uint32_t *to)
{
    uint32_t words[SPAN / 4];

    for (uint32_t t = 0; t < width; t++, x += m->n_in)
        for (uint32_t i = 0; i < m->n_wide; i += SPAN) {
            round_span(x, i, m->n_in, &spans[i / SPAN], t, words);
            for (uint32_t k = 0; k < SPAN / 4; k++)
                to[(i / 4 + k) * width + t] = words[k];
        }
}

void dots_bytes_prepare(const float *x, const struct weir_matrix *m, uint32_t n_tok, uint32_t begin,
                        uint32_t end, void *to)
{
    struct bytes b = bytes_of(to, m);

    end = end < n_tok ? end : n_tok;
    for (uint32_t t = begin, width; t < end; t += width) {
        width = block_tokens(end - t, BLOCK_TOKENS);
        prepare_block(x + (size_t)t * m->n_in, m, width, b.spans + (size_t)t * (m->n_wide / SPAN),
                      b.words + (size_t)t * (m->n_wide / 4));
    }
}

/* ---- tiles ---- */
struct work {
    float *out;
    const struct weir_matrix *m;
    struct bytes b;
};

INLINE const struct span *spans_of(const struct work *w, uint32_t token)
{
    return w->b.spans + (size_t)token * (w->m->n_wide / SPAN);
}

INLINE void put(const struct work *w, uint32_t panel, uint32_t token, __m512 sum)
{
    uint32_t left = w->m->n_out - panel * PANEL;
    __mmask16 mask = (__mmask16)(left >= PANEL ? 0xffff : (1u << left) - 1);
    __m512 scales = _mm512_loadu_ps(w->m->scales + (size_t)panel * PANEL);

    _mm512_mask_storeu_ps(w->out + (size_t)token * w->m->n_out + panel * PANEL, mask,
                          _mm512_mul_ps(sum, scales));
}

/* From a span's weights to those to fetch while it is multiplied: of the same panel, or behind its end of the same panel of the next
 * tile. */
INLINE size_t ahead(ptrdiff_t n_spans_left, size_t span_bytes, size_t stride, const int P)
{
    return BYTES_AHEAD + ((size_t)n_spans_left * span_bytes > BYTES_AHEAD ? 0 : (size_t)(P - 1) * stride);
}

/* Where a tile of s8 finds its weights, and what it fetches beside them. */
struct source {
    const int8_t *data;
    size_t stride; /* bytes from panel to panel */
    const char
        *later; /* a panel of the next tile's, as it is packed, and how many bytes of it for 4 inputs */
    size_t later_step;
};

/* P panels of s8 times the T tokens of a block; P, T and first are constants where this is inlined. */
INLINE void tile_q8(const struct work *w, const struct source *from, uint32_t panel, uint32_t token,
                    const int P, const int T, const int first)
{
    const struct span *span = spans_of(w, token);
    const uint32_t *x = w->b.words + (size_t)token * (w->m->n_wide / 4);
    const int8_t *data = from->data;
    const char *later = from->later;
    const size_t stride = from->stride, later_step = from->later_step;
    const __m512i flip = _mm512_set1_epi8(-128);
    __m512 sums[TILE_PANELS][BLOCK_TOKENS];

    _Pragma("GCC unroll 3") for (int p = 0; p < P; p++) _Pragma("GCC unroll 4") for (int t = 0; t < T; t++)
        sums[p][t] = _mm512_setzero_ps();
    for (const struct span *end = span + w->m->n_wide / SPAN; span < end; span++) {
        __m512i dots[TILE_PANELS][BLOCK_TOKENS];
        _Pragma("GCC unroll 3") for (int p = 0; p < P; p++)
            _Pragma("GCC unroll 4") for (int t = 0; t < T; t++) dots[p][t] =
                _mm512_set1_epi32(span->off128[t]);
        const char *next = (const char *)data + ahead(end - span, SPAN * PANEL, stride, P);
        for (int k = 0; k < SPAN / 4;
             k++, data += 4 * PANEL, x += T, next += 4 * PANEL, later += later_step) {
            __m512i weights[TILE_PANELS];
            if (!first)
                _mm_prefetch(later, _MM_HINT_T1);
            _Pragma("GCC unroll 3") for (int p = 0; p < P; p++)
            {
                weights[p] = _mm512_xor_si512(_mm512_loadu_si512(data + (size_t)p * stride), flip);
                if (first)
                    _mm_prefetch(next + (size_t)p * stride, _MM_HINT_T0);
            }
            _Pragma("GCC unroll 4") for (int t = 0; t < T; t++)
            {
                __m512i four = _mm512_set1_epi32((int)x[t]);
                _Pragma("GCC unroll 3") for (int p = 0; p < P; p++) DOT(dots[p][t], weights[p], four);
            }
        }
        _Pragma("GCC unroll 3") for (int p = 0; p < P; p++)
            _Pragma("GCC unroll 4") for (int t = 0; t < T; t++) sums[p][t] = _mm512_fmadd_ps(
                _mm512_cvtepi32_ps(dots[p][t]), _mm512_set1_ps(span->scales[t]), sums[p][t]); /* [D2] */
    }
    _Pragma("GCC unroll 3") for (int p = 0; p < P; p++) _Pragma("GCC unroll 4") for (int t = 0; t < T; t++)
        put(w, panel + (uint32_t)p, token + (uint32_t)t, sums[p][t]);
}

/* The integers of a group of Q4: T tokens by P panels, onto `dots`. */
INLINE void group_q4(const uint8_t *data, const char *next, size_t stride, const uint8_t *by,
                     size_t by_stride, const uint32_t *x, const int32_t *off8,
                     __m512i dots[TILE_PANELS][BLOCK_TOKENS], const int P, const int T)
{
    const __m512i nibble = _mm512_set1_epi8(15);
    __m512i sums[TILE_PANELS][BLOCK_TOKENS];

    _Pragma("GCC unroll 3") for (int p = 0; p < P; p++) _Pragma("GCC unroll 4") for (int t = 0; t < T; t++)
        sums[p][t] = _mm512_set1_epi32(off8[t]);
    _Pragma("GCC unroll 4") for (int v = 0; v < GROUP / 8;
                                 v++, data += 4 * PANEL, next += 4 * PANEL, x += 2 * T)
    {
        _Pragma("GCC unroll 3") for (int p = 0; p < P; p++)
        {
            __m512i both = _mm512_loadu_si512(data + (size_t)p * stride);
            __m512i low = _mm512_and_si512(both, nibble),
                    high = _mm512_and_si512(_mm512_srli_epi16(both, 4), nibble);
            _mm_prefetch(next + (size_t)p * stride, _MM_HINT_T0);
            _Pragma("GCC unroll 4") for (int t = 0; t < T; t++)
            {
                __m512i x0 = _mm512_set1_epi32((int)x[t]), x1 = _mm512_set1_epi32((int)x[T + t]);
                DOT(sums[p][t], low, x0);
                DOT(sums[p][t], high, x1);
            }
        }
    }
    _Pragma("GCC unroll 3") for (int p = 0; p < P; p++)
    {
        __m512i multiplier =
            _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(by + (size_t)p * by_stride)));
        _mm_prefetch((const char *)by + (size_t)(P + p) * by_stride, _MM_HINT_T0); /* of the next tile */
        _Pragma("GCC unroll 4") for (int t = 0; t < T; t++) dots[p][t] =
            _mm512_add_epi32(dots[p][t], _mm512_mullo_epi32(sums[p][t], multiplier));
    }
}

INLINE void tile_q4(const struct work *w, uint32_t panel, uint32_t token, const int P, const int T)
{
    const struct weir_matrix *m = w->m;
    size_t stride = panel_bytes(m), by_stride = (size_t)(m->n_wide / GROUP) * PANEL;
    const uint8_t *data = (const uint8_t *)m->data + panel * stride;
    const uint8_t *by = m->multipliers + panel * by_stride;
    const struct span *span = spans_of(w, token);
    const uint32_t *x = w->b.words + (size_t)token * (m->n_wide / 4);
    __m512 sums[TILE_PANELS][BLOCK_TOKENS];

    _Pragma("GCC unroll 3") for (int p = 0; p < P; p++) _Pragma("GCC unroll 4") for (int t = 0; t < T; t++)
        sums[p][t] = _mm512_setzero_ps();
    for (const struct span *end = span + m->n_wide / SPAN; span < end; span++) {
        __m512i dots[TILE_PANELS][BLOCK_TOKENS];
        _Pragma("GCC unroll 3") for (int p = 0; p < P; p++)
            _Pragma("GCC unroll 4") for (int t = 0; t < T; t++) dots[p][t] = _mm512_setzero_si512();
        const char *next = (const char *)data + ahead(end - span, SPAN / 2 * PANEL, stride, P);
        for (int half = 0; half < 2; half++, next += GROUP / 2 * PANEL) {
            group_q4(data, next, stride, by, by_stride, x, span->off8[half], dots, P, T);
            data += GROUP / 2 * PANEL;
            by += PANEL;
            x += GROUP / 4 * T;
        }
        _Pragma("GCC unroll 3") for (int p = 0; p < P; p++)
            _Pragma("GCC unroll 4") for (int t = 0; t < T; t++) sums[p][t] = _mm512_fmadd_ps(
                _mm512_cvtepi32_ps(dots[p][t]), _mm512_set1_ps(span->scales[t]), sums[p][t]); /* [D2] */
    }
    _Pragma("GCC unroll 3") for (int p = 0; p < P; p++) _Pragma("GCC unroll 4") for (int t = 0; t < T; t++)
        put(w, panel + (uint32_t)p, token + (uint32_t)t, sums[p][t]);
}

/* ---- panels ---- */
#define BY_PANELS(CALL)                                                                                      \
    switch (n_panel) {                                                                                       \
    case 3:                                                                                                  \
        CALL(3);                                                                                             \
        break;                                                                                               \
    case 2:                                                                                                  \
        CALL(2);                                                                                             \
        break;                                                                                               \
    default:                                                                                                 \
        CALL(1);                                                                                             \
    }

#define TILES(T)                                                                                             \
    static __attribute__((noinline)) void q8_##T(const struct work *w, const struct source *from,            \
                                                 uint32_t panel, uint32_t n_panel, uint32_t token)           \
    {                                                                                                        \
        if (token == 0) {                                                                                    \
            BY_PANELS(Q8_FIRST_##T)                                                                          \
        } else {                                                                                             \
            BY_PANELS(Q8_##T)                                                                                \
        }                                                                                                    \
    }                                                                                                        \
    static __attribute__((noinline)) void q4_##T(const struct work *w, uint32_t panel, uint32_t n_panel,     \
                                                 uint32_t token)                                             \
    {                                                                                                        \
        BY_PANELS(Q4_##T)                                                                                    \
    }
#define Q8_FIRST_4(P) tile_q8(w, from, panel, token, P, 4, 1)
#define Q8_FIRST_2(P) tile_q8(w, from, panel, token, P, 2, 1)
#define Q8_FIRST_1(P) tile_q8(w, from, panel, token, P, 1, 1)
#define Q8_4(P) tile_q8(w, from, panel, token, P, 4, 0)
#define Q8_2(P) tile_q8(w, from, panel, token, P, 2, 0)
#define Q8_1(P) tile_q8(w, from, panel, token, P, 1, 0)
#define Q4_4(P) tile_q4(w, panel, token, P, 4)
#define Q4_2(P) tile_q4(w, panel, token, P, 2)
#define Q4_1(P) tile_q4(w, panel, token, P, 1)
TILES(4)
TILES(2)
TILES(1)

static void tiles_q8(const struct work *w, struct source *from, uint32_t panel, uint32_t n_panel,
                     uint32_t end, uint32_t n_tok)
{
    for (uint32_t t = 0, i = 0, width; t < n_tok; t += width, i++) {
        width = block_tokens(n_tok - t, BLOCK_TOKENS);
        from->later = (const char *)w->m->data + later_panel(panel, n_panel, i, end) * panel_bytes(w->m);
        (width == 4 ? q8_4 : width == 2 ? q8_2 : q8_1)(w, from, panel, n_panel, t);
    }
}

static void tiles_q4(const struct work *w, uint32_t panel, uint32_t n_panel, uint32_t n_tok)
{
    for (uint32_t t = 0, width; t < n_tok; t += width) {
        width = block_tokens(n_tok - t, BLOCK_TOKENS);
        (width == 4 ? q4_4 : width == 2 ? q4_2 : q4_1)(w, panel, n_panel, t);
    }
}

void dots_bytes_linear(float *out, const struct weir_matrix *m, uint32_t n_tok, uint32_t begin, uint32_t end,
                       const void *prepared, void *own)
{
    struct work w = { out, m, bytes_of(prepared, m) };
    bool widen = m->quant == WEIR_Q4 && n_tok > FEW_TOKENS;
    size_t stride = widen ? (size_t)m->n_wide * PANEL : panel_bytes(m);
    struct source from = { .stride = stride, .later_step = m->quant == WEIR_Q4 ? 2 * PANEL : 4 * PANEL };

    for (uint32_t panel = begin, n_panel; panel < end; panel += n_panel) {
        n_panel = tile_panels(end - panel);
        for (uint32_t p = 0; widen && p < n_panel; p++)
            vnni_widen((int8_t *)own + p * stride, m, panel + p);
        from.data = widen ? own : (const int8_t *)m->data + panel * stride;
        if (m->quant == WEIR_Q4 && !widen)
            tiles_q4(&w, panel, n_panel, n_tok);
        else
            tiles_q8(&w, &from, panel, n_panel, end, n_tok);
    }
}
