/* ops_vnni.c - products of quantized weights by AVX-512 VNNI (see integers.h); all else is cpu_ops_avx512's.
 *
 * The dot products are written as assembly: GCC 12 spills the sums of the intrinsic to memory. */
#include <stdbool.h>
#include <string.h>

#include "kernels/cpu/integers.h"

#define AHEAD 1536 /* bytes to fetch ahead of a panel */

#define DOT(sum, x, w) __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(x), "v"(w))

#define INLINE static inline __attribute__((always_inline))

size_t vnni_prepared_bytes(const struct weir_matrix *m)
{
    return m->quant == WEIR_NATIVE ? 0 : PREPARE_TOKENS * (sizeof(float) + 2 * row_bytes(m));
}

/* Room for two panels of Q8. */
size_t vnni_own_bytes(const struct weir_matrix *m)
{
    return m->quant == WEIR_Q4 ? 2 * (size_t)m->n_wide * PANEL : 0;
}

static __m512 load_some(const float *x, uint32_t i, uint32_t n)
{
    return _mm512_maskz_loadu_ps((__mmask16)(n - i >= 16 ? 0xffff : (1u << (n - i)) - 1), x + i);
}

static float prepare_token(const float *x, uint32_t n, uint8_t *high, uint8_t *low)
{
    __m512 most = _mm512_setzero_ps();

    for (uint32_t i = 0; i < n; i += 16)
        most = _mm512_max_ps(most, _mm512_abs_ps(load_some(x, i, n)));
    float max = _mm512_reduce_max_ps(most);
    float by = max > 0 ? Q_MAX / max : 0;
    for (uint32_t i = 0; i < n; i += 16) {
        __m512i q = _mm512_cvtps_epi32(_mm512_mul_ps(load_some(x, i, n), _mm512_set1_ps(by)));
        q = _mm512_add_epi32(q, _mm512_set1_epi32(32768));
        _mm_storeu_si128((__m128i *)(high + i), _mm512_cvtepi32_epi8(_mm512_srli_epi32(q, 8)));
        _mm_storeu_si128((__m128i *)(low + i), _mm512_cvtepi32_epi8(q));
    }
    return max / Q_MAX;
}

void vnni_prepare(const float *x, const struct weir_matrix *m, uint32_t n_tok, uint32_t begin, uint32_t end,
                  void *to)
{
    struct prepared p = prepared_of(to, m);
    size_t ld = row_bytes(m);

    for (uint32_t t = begin; t < end; t++) {
        uint8_t *high = (uint8_t *)(uintptr_t)p.high + t * ld, *low = (uint8_t *)(uintptr_t)p.low + t * ld;
        if (t < n_tok)
            ((float *)to)[t] = prepare_token(x + (size_t)t * m->n_in, m->n_in, high, low);
        else {
            memset(high, 0, m->n_wide);
            memset(low, 0, m->n_wide);
        }
    }
}

INLINE __m512i four(const uint8_t *p)
{
    int32_t word;

    memcpy(&word, p, sizeof word);
    return _mm512_set1_epi32(word);
}

struct work {
    float *out;
    struct prepared p;
    const struct weir_matrix *m;
    size_t ld;
};

/* T tokens by P panels of s8, `stride` bytes apart; P and T are constants where this is inlined. */
INLINE void tile_q8(const struct work *w, const int8_t *data, size_t stride, uint32_t panel, uint32_t token,
                    const int P, const int T)
{
    __m512i high[4][8], low[4][8];
    const uint8_t *xh = w->p.high + token * w->ld, *xl = w->p.low + token * w->ld;

    _Pragma("GCC unroll 4") for (int p = 0; p < P; p++) _Pragma("GCC unroll 8") for (int t = 0; t < T; t++)
        high[p][t] = low[p][t] = _mm512_setzero_si512();
    for (uint32_t k = 0; k < w->m->n_wide; k += 4, data += 4 * PANEL) {
        __m512i weights[4];
        _Pragma("GCC unroll 4") for (int p = 0; p < P; p++)
        {
            weights[p] = _mm512_loadu_si512(data + (size_t)p * stride);
            if (T <= FEW_TOKENS)
                _mm_prefetch((const char *)data + (size_t)p * stride + AHEAD, _MM_HINT_T0);
        }
        _Pragma("GCC unroll 8") for (int t = 0; t < T; t++)
        {
            __m512i h = four(xh + (size_t)t * w->ld + k), l = four(xl + (size_t)t * w->ld + k);
            _Pragma("GCC unroll 4") for (int p = 0; p < P; p++)
            {
                DOT(high[p][t], h, weights[p]);
                DOT(low[p][t], l, weights[p]);
            }
        }
    }
    _Pragma("GCC unroll 4") for (int p = 0; p < P; p++)
    {
        struct finish how = finish_of(w->m, panel + (uint32_t)p);
        _Pragma("GCC unroll 8") for (int t = 0; t < T; t++)
            finish(w->out + (size_t)(token + (uint32_t)t) * w->m->n_out + (panel + (uint32_t)p) * PANEL,
                   high[p][t], low[p][t], &how, w->p.scales[token + (uint32_t)t]);
    }
}

/* T tokens by P panels of Q4. */
INLINE void tile_q4(const struct work *w, uint32_t panel, uint32_t token, const int P, const int T)
{
    size_t stride = panel_bytes(w->m), n_group = w->m->n_wide / GROUP;
    const uint8_t *data = (const uint8_t *)w->m->data + panel * stride;
    const uint8_t *multipliers = w->m->multipliers + panel * n_group * PANEL;
    const uint8_t *xh = w->p.high + token * w->ld, *xl = w->p.low + token * w->ld;
    const __m512i nibble = _mm512_set1_epi8(15), eight = _mm512_set1_epi8(8);
    __m512i high[2][4], low[2][4];

    _Pragma("GCC unroll 2") for (int p = 0; p < P; p++) _Pragma("GCC unroll 4") for (int t = 0; t < T; t++)
        high[p][t] = low[p][t] = _mm512_setzero_si512();
    for (size_t g = 0; g < n_group; g++, data += GROUP / 2 * PANEL, xh += GROUP, xl += GROUP) {
        __m512i gh[2][4], gl[2][4];
        _Pragma("GCC unroll 2") for (int p = 0; p < P; p++)
            _Pragma("GCC unroll 4") for (int t = 0; t < T; t++) gh[p][t] = gl[p][t] = _mm512_setzero_si512();
        _Pragma("GCC unroll 4") for (int v = 0; v < GROUP / 8; v++)
        {
            __m512i even[2], odd[2];
            _Pragma("GCC unroll 2") for (int p = 0; p < P; p++)
            {
                const uint8_t *at = data + (size_t)p * stride + v * 4 * PANEL;
                __m512i both = _mm512_loadu_si512(at);
                _mm_prefetch((const char *)at + AHEAD, _MM_HINT_T0);
                even[p] = _mm512_sub_epi8(_mm512_and_si512(both, nibble), eight);
                odd[p] = _mm512_sub_epi8(_mm512_and_si512(_mm512_srli_epi16(both, 4), nibble), eight);
            }
            _Pragma("GCC unroll 4") for (int t = 0; t < T; t++)
            {
                const uint8_t *h = xh + (size_t)t * w->ld + 8 * v, *l = xl + (size_t)t * w->ld + 8 * v;
                __m512i h0 = four(h), h1 = four(h + 4), l0 = four(l), l1 = four(l + 4);
                _Pragma("GCC unroll 2") for (int p = 0; p < P; p++)
                {
                    DOT(gh[p][t], h0, even[p]);
                    DOT(gl[p][t], l0, even[p]);
                    DOT(gh[p][t], h1, odd[p]);
                    DOT(gl[p][t], l1, odd[p]);
                }
            }
        }
        _Pragma("GCC unroll 2") for (int p = 0; p < P; p++)
        {
            __m512i by = _mm512_cvtepu8_epi32(
                _mm_loadu_si128((const __m128i *)(multipliers + ((size_t)p * n_group + g) * PANEL)));
            _Pragma("GCC unroll 4") for (int t = 0; t < T; t++)
            {
                high[p][t] = _mm512_add_epi32(high[p][t], _mm512_mullo_epi32(gh[p][t], by));
                low[p][t] = _mm512_add_epi32(low[p][t], _mm512_mullo_epi32(gl[p][t], by));
            }
        }
    }
    _Pragma("GCC unroll 2") for (int p = 0; p < P; p++)
    {
        struct finish how = finish_of(w->m, panel + (uint32_t)p);
        _Pragma("GCC unroll 4") for (int t = 0; t < T; t++)
            finish(w->out + (size_t)(token + (uint32_t)t) * w->m->n_out + (panel + (uint32_t)p) * PANEL,
                   high[p][t], low[p][t], &how, w->p.scales[token + (uint32_t)t]);
    }
}

/* Nibbles are multiplied two at once: 15 * 15 fits in a byte, so nothing is carried from one into the next. */
void vnni_widen(int8_t *to, const struct weir_matrix *m, uint32_t panel)
{
    const uint8_t *data = (const uint8_t *)m->data + panel * panel_bytes(m);
    const uint8_t *multipliers = m->multipliers + (size_t)panel * (m->n_wide / GROUP) * PANEL;
    const __m512i nibble = _mm512_set1_epi8(15);

    for (uint32_t k = 0; k < m->n_wide; k += GROUP, multipliers += PANEL) {
        __m512i by = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)multipliers));
        by = _mm512_or_si512(by, _mm512_slli_epi32(by, 16)); /* for both 16-bit halves of a row's 4 inputs */
        __m512i less = _mm512_slli_epi16(_mm512_or_si512(by, _mm512_slli_epi16(by, 8)), 3); /* 8 m a byte */
        for (uint32_t i = 0; i < GROUP; i += 8, data += 4 * PANEL, to += 8 * PANEL) {
            __m512i both = _mm512_loadu_si512(data);
            __m512i first = _mm512_mullo_epi16(_mm512_and_si512(both, nibble), by);
            __m512i second = _mm512_mullo_epi16(_mm512_and_si512(_mm512_srli_epi16(both, 4), nibble), by);
            _mm512_storeu_si512(to, _mm512_sub_epi8(first, less));
            _mm512_storeu_si512(to + 4 * PANEL, _mm512_sub_epi8(second, less));
        }
    }
}

/* Panels [panel, panel + n) of s8. n <= 4. */
static void panels_q8(const struct work *w, const int8_t *data, size_t stride, uint32_t panel, uint32_t n,
                      uint32_t n_tok)
{
    uint32_t t = 0;

    for (; t + 8 <= n_tok; t += 8)
        for (uint32_t p = 0; p < n; p++)
            tile_q8(w, data + p * stride, stride, panel + p, t, 1, 8);
    for (; t + 4 <= n_tok; t += 4)
        for (uint32_t p = 0; p < n; p++)
            tile_q8(w, data + p * stride, stride, panel + p, t, 1, 4);
    for (; t < n_tok; t++) {
        if (n == 4)
            tile_q8(w, data, stride, panel, t, 4, 1);
        for (uint32_t p = 0; n < 4 && p < n; p++)
            tile_q8(w, data + p * stride, stride, panel + p, t, 1, 1);
    }
}

static void panels_q4(const struct work *w, uint32_t panel, uint32_t n, uint32_t n_tok)
{
    uint32_t t = 0;

    for (; t + 2 <= n_tok; t += 2)
        for (uint32_t p = 0; p < n; p++)
            tile_q4(w, panel + p, t, 1, 2);
    if (t < n_tok && n == 2)
        tile_q4(w, panel, t, 2, 1);
    else if (t < n_tok)
        tile_q4(w, panel, t, 1, 1);
}

void vnni_linear(float *out, const float *x, const struct weir_matrix *m, uint32_t n_tok, uint32_t begin,
                 uint32_t end, const void *prepared, void *own)
{
    struct work w = { out, prepared_of(prepared, m), m, row_bytes(m) };
    bool widen = m->quant == WEIR_Q4 && n_tok > FEW_TOKENS;
    uint32_t step = m->quant == WEIR_Q8 ? 4 : 2;
    size_t stride = widen ? (size_t)m->n_wide * PANEL : panel_bytes(m);

    (void)x;
    for (uint32_t panel = begin; panel < end; panel += step) {
        uint32_t n = end - panel < step ? end - panel : step;
        for (uint32_t p = 0; widen && p < n; p++)
            vnni_widen((int8_t *)own + p * stride, m, panel + p);
        if (m->quant == WEIR_Q4 && !widen)
            panels_q4(&w, panel, n, n_tok);
        else
            panels_q8(&w, widen ? own : (const int8_t *)m->data + panel * stride, stride, panel, n, n_tok);
    }
}

static void linear(float *out, const float *x, const struct weir_matrix *m, uint32_t n_tok, uint32_t begin,
                   uint32_t end, const void *prepared, void *own)
{
    if (m->quant == WEIR_NATIVE)
        cpu_ops_avx512.linear(out, x, m, n_tok, begin, end, prepared, own);
    else
        vnni_linear(out, x, m, n_tok, begin, end, prepared, own);
}

static void rmsnorm(float *out, const float *x, const float *weight, uint32_t n, float eps)
{
    cpu_ops_avx512.rmsnorm(out, x, weight, n, eps);
}

static void attend(const struct attend_job *job)
{
    cpu_ops_avx512.attend(job);
}

static void silu_mul(float *out, const float *gate, const float *up, uint32_t n)
{
    cpu_ops_avx512.silu_mul(out, gate, up, n);
}

const struct cpu_ops cpu_ops_vnni = { .name = "cpu avx512vnni",
                                      .linear = linear,
                                      .prepared_bytes = vnni_prepared_bytes,
                                      .prepare = vnni_prepare,
                                      .own_bytes = vnni_own_bytes,
                                      .rmsnorm = rmsnorm,
                                      .attend = attend,
                                      .silu_mul = silu_mul };
