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
 * A few tokens go a panel at a time, so that weights come from memory as one stream: short panels in threes were three streams
 * that began anew all the time, at two thirds of the speed. Integers may be summed in any order, so several sums of a span hide the
 * latency of the dots. Q4 is then multiplied as it lies: a nibble is an unsigned byte of 0 to 15, for which 8 * sum q is taken
 * off; a group's sum is multiplied by its multiplier. For more tokens panels of Q4 are widened to Q8 first. */
#include <immintrin.h>
#include <stdbool.h>
#include <string.h>

#include "kernels/cpu/dots.h"
#include "kernels/cpu/integers.h"

#define BLOCK_TOKENS 4
#define BYTES_AHEAD 1536 /* of a panel, to fetch ahead */
#define FEW_Q8 4         /* tokens up to which panels go one by one: measured */
#define FEW_Q4 8
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

/* ---- products ---- */
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

/* ---- a few tokens ---- */
#define CHAINS 4 /* of dots at once */

/* A span's integers of the T tokens that there are: the sums of several chains. */
INLINE void add_span(__m512 sums[BLOCK_TOKENS], __m512i dots[CHAINS][BLOCK_TOKENS], const struct span *span,
                     const int T)
{
    _Pragma("GCC unroll 4") for (int t = 0; t < T; t++)
    {
        __m512i all = dots[0][t];
        for (int c = 1; c < CHAINS / T; c++)
            all = _mm512_add_epi32(all, dots[c][t]);
        sums[t] =
            _mm512_fmadd_ps(_mm512_cvtepi32_ps(all), _mm512_set1_ps(span->scales[t]), sums[t]); /* [D2] */
    }
}

/* A panel of Q8 times the T tokens of a block; T is a constant where this is inlined. */
INLINE void stream_q8(const struct work *w, uint32_t panel, uint32_t token, const int T)
{
    const struct span *span = spans_of(w, token);
    const uint32_t *x = w->b.words + (size_t)token * (w->m->n_wide / 4);
    const int8_t *data = (const int8_t *)w->m->data + panel * panel_bytes(w->m);
    const __m512i flip = _mm512_set1_epi8(-128);
    __m512 sums[BLOCK_TOKENS];

    _Pragma("GCC unroll 4") for (int t = 0; t < T; t++) sums[t] = _mm512_setzero_ps();
    for (const struct span *end = span + w->m->n_wide / SPAN; span < end; span++) {
        __m512i dots[CHAINS][BLOCK_TOKENS];
        _Pragma("GCC unroll 4") for (int t = 0; t < T; t++) for (int c = 0; c < CHAINS / T; c++) dots[c][t] =
            c ? _mm512_setzero_si512() : _mm512_set1_epi32(span->off128[t]);
        for (int k = 0; k < SPAN / 4; k += CHAINS / T)
            for (int c = 0; c < CHAINS / T; c++, data += 4 * PANEL, x += T) {
                __m512i weights = _mm512_xor_si512(_mm512_loadu_si512(data), flip);
                _mm_prefetch((const char *)data + BYTES_AHEAD, _MM_HINT_T0);
                _Pragma("GCC unroll 4") for (int t = 0; t < T; t++)
                {
                    __m512i four = _mm512_set1_epi32((int)x[t]);
                    DOT(dots[c][t], weights, four);
                }
            }
        add_span(sums, dots, span, T);
    }
    _Pragma("GCC unroll 4") for (int t = 0; t < T; t++) put(w, panel, token + (uint32_t)t, sums[t]);
}

/* The integers of a group of Q4, times its multipliers, onto `dots`. */
INLINE void group_q4(const uint8_t *data, const uint8_t *by, const uint32_t *x, const int32_t *off8,
                     __m512i dots[BLOCK_TOKENS], const int T)
{
    const __m512i nibble = _mm512_set1_epi8(15);
    __m512i low[BLOCK_TOKENS], high[BLOCK_TOKENS];

    _Pragma("GCC unroll 4") for (int t = 0; t < T; t++)
    {
        low[t] = _mm512_set1_epi32(off8[t]);
        high[t] = _mm512_setzero_si512();
    }
    _Pragma("GCC unroll 4") for (int v = 0; v < GROUP / 8; v++, data += 4 * PANEL, x += 2 * T)
    {
        __m512i both = _mm512_loadu_si512(data);
        __m512i even = _mm512_and_si512(both, nibble),
                odd = _mm512_and_si512(_mm512_srli_epi16(both, 4), nibble);
        _mm_prefetch((const char *)data + BYTES_AHEAD, _MM_HINT_T0);
        _Pragma("GCC unroll 4") for (int t = 0; t < T; t++)
        {
            __m512i x0 = _mm512_set1_epi32((int)x[t]), x1 = _mm512_set1_epi32((int)x[T + t]);
            DOT(low[t], even, x0);
            DOT(high[t], odd, x1);
        }
    }
    __m512i multipliers = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)by));
    _Pragma("GCC unroll 4") for (int t = 0; t < T; t++) dots[t] =
        _mm512_add_epi32(dots[t], _mm512_mullo_epi32(_mm512_add_epi32(low[t], high[t]), multipliers));
}

/* As stream_q8, of Q4. */
INLINE void stream_q4(const struct work *w, uint32_t panel, uint32_t token, const int T)
{
    const struct weir_matrix *m = w->m;
    const struct span *span = spans_of(w, token);
    const uint32_t *x = w->b.words + (size_t)token * (w->m->n_wide / 4);
    const uint8_t *data = (const uint8_t *)m->data + panel * panel_bytes(m);
    const uint8_t *by = m->multipliers + (size_t)panel * (m->n_wide / GROUP) * PANEL;
    __m512 sums[BLOCK_TOKENS];

    _Pragma("GCC unroll 4") for (int t = 0; t < T; t++) sums[t] = _mm512_setzero_ps();
    for (const struct span *end = span + m->n_wide / SPAN; span < end; span++) {
        __m512i dots[CHAINS][BLOCK_TOKENS] = { 0 };
        for (int half = 0; half < 2; half++, data += GROUP / 2 * PANEL, by += PANEL, x += GROUP / 4 * T)
            group_q4(data, by, x, span->off8[half], dots[0], T);
        add_span(sums, dots, span, T);
    }
    _Pragma("GCC unroll 4") for (int t = 0; t < T; t++) put(w, panel, token + (uint32_t)t, sums[t]);
}

#define STREAMS(T)                                                                                           \
    static __attribute__((noinline)) void stream_##T(const struct work *w, uint32_t panel, uint32_t token)   \
    {                                                                                                        \
        if (w->m->quant == WEIR_Q8)                                                                          \
            stream_q8(w, panel, token, T);                                                                   \
        else                                                                                                 \
            stream_q4(w, panel, token, T);                                                                   \
    }
STREAMS(4)
STREAMS(2)
STREAMS(1)

static void linear_few(const struct work *w, uint32_t n_tok, uint32_t begin, uint32_t end)
{
    for (uint32_t panel = begin; panel < end; panel++)
        for (uint32_t t = 0, width; t < n_tok; t += width) {
            width = block_tokens(n_tok - t, BLOCK_TOKENS);
            (width == 4 ? stream_4 : width == 2 ? stream_2 : stream_1)(w, panel, t);
        }
}

/* ---- many tokens ---- */
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
    }
#define Q8_FIRST_4(P) tile_q8(w, from, panel, token, P, 4, 1)
#define Q8_FIRST_2(P) tile_q8(w, from, panel, token, P, 2, 1)
#define Q8_FIRST_1(P) tile_q8(w, from, panel, token, P, 1, 1)
#define Q8_4(P) tile_q8(w, from, panel, token, P, 4, 0)
#define Q8_2(P) tile_q8(w, from, panel, token, P, 2, 0)
#define Q8_1(P) tile_q8(w, from, panel, token, P, 1, 0)
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

static void linear_many(const struct work *w, uint32_t n_tok, uint32_t begin, uint32_t end, int8_t *own)
{
    const struct weir_matrix *m = w->m;
    bool widen = m->quant == WEIR_Q4;
    struct source from = { .stride = widen ? (size_t)m->n_wide * PANEL : panel_bytes(m),
                           .later_step = widen ? 2 * PANEL : 4 * PANEL };

    for (uint32_t panel = begin, n_panel; panel < end; panel += n_panel) {
        n_panel = tile_panels(end - panel);
        from.data = widen ? own : (const int8_t *)m->data + panel * from.stride;
        for (uint32_t p = 0; widen && p < n_panel; p++)
            vnni_widen(own + p * from.stride, m, panel + p);
        tiles_q8(w, &from, panel, n_panel, end, n_tok);
    }
}

void dots_bytes_linear(float *out, const struct weir_matrix *m, uint32_t n_tok, uint32_t begin, uint32_t end,
                       const void *prepared, void *own)
{
    struct work w = { out, m, bytes_of(prepared, m) };

    if (n_tok <= (m->quant == WEIR_Q8 ? FEW_Q8 : FEW_Q4))
        linear_few(&w, n_tok, begin, end);
    else
        linear_many(&w, n_tok, begin, end, own);
}
