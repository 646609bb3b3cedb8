/* ops_amx.c - products on AMX tiles; attention is attend_amx.c's where it fits, all else cpu_ops_avx512's.
 *
 * A tile multiplies bf16 by bf16 and adds in f32. An activation is split into two bf16 numbers, its rounding and what that
 * leaves, so that 16 of its 24 bits count, and each weight tile is used twice: the error is 256 times smaller than that of
 * plain bf16 activations, at half of the tiles' speed, which is still some ten times that of vectors.
 *
 *   [X1] Every output is one chain along n_in in steps of 32 inputs: the rounded parts, then the rests. Rows of a tile know
 *        nothing of each other, and one token goes the same way as many, so the bits do not depend on the batch.
 *
 *   [X2] A few tokens go by vectors, which wait less for weights. What a tile instruction does is defined to the bit: from zero,
 *        two chains of fused multiply-adds over its 16 pairs of inputs, one of the even and one of the odd; their sum is
 *        added to the tile; denormal numbers are zeros. The vectors do the same.
 *
 * Q8 and Q4 are multiplied in integers (see integers.h), many tokens by tiles of 64 inputs, a few by vectors: sums of integers
 * are exact, so that the bits are the same.
 *
 * Tiles of bf16: 4 sums (2 blocks of 16 tokens by 2 panels), 2 of activations, 2 of weights. Of integers: 4 sums (the high and
 * low bytes of 16 tokens by 2 panels), 2 of activations, 2 of weights. Missing rows are zeros. Of
 * long inputs a chunk is done for all panels before the next: the sums wait in `out`, and what tokens have of the chunk stays
 * in the second cache.
 * Source: Intel Architecture Instruction Set Extensions, TDPBF16PS, TDPBUSD. */
#include <immintrin.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernels/cpu/amx.h"
#include "kernels/cpu/integers.h"

#define ARCH_REQ_XCOMP_PERM 0x1023
#define XFEATURE_XTILEDATA 18
#define ROWS AMX_ROWS
#define DEPTH AMX_DEPTH
#define TILE_BYTES AMX_TILE_BYTES
#define CHUNK_TILES 32    /* of inputs: so many of a block of tokens stay in the second cache */
#define NEAR 4            /* tiles of weights to prefetch for a few tokens */
#define FAR 2048          /* bytes of weights to prefetch for vectors */
#define BF16_TILES_FROM 4 /* tokens from which tiles of bf16 are faster than vectors */
#define TILES_FROM 6      /* tokens from which tiles of integers are faster than vectors */

int cpu_amx_allowed(void)
{
#ifdef WEIR_AMX_EMU
    return 1;
#else
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
#endif
}

/* Up to 16 tokens: as many rows as there are tokens, which is as much faster. */
static void configure(uint32_t n_tok)
{
    struct amx_config config = { .palette = 1 };

    for (int i = 0; i < 8; i++) {
        config.row_bytes[i] = 64;
        config.rows[i] = (uint8_t)(i < 6 && n_tok < ROWS ? n_tok : ROWS);
    }
    amx_configure(&config);
}

static uint32_t n_deep(const struct weir_matrix *m)
{
    return m->n_pair / (DEPTH / 2);
}

static size_t prepared_bytes(const struct weir_matrix *m)
{
    if (m->quant != WEIR_NATIVE)
        return vnni_prepared_bytes(m);
    return m->dtype == WEIR_BF16 ? (size_t)PREPARE_TOKENS / ROWS * n_deep(m) * 2 * TILE_BYTES : 0;
}

/* Tokens as tiles [tokens / 16][n_deep][rounded, rest][16 tokens][32]; the last 16 are filled up with zeros. A tile is written
 * whole, so that the cache sees one stream of lines. */
static void prepare(const float *x, const struct weir_matrix *m, uint32_t n_tok, uint32_t begin, uint32_t end,
                    void *to)
{
    if (m->quant != WEIR_NATIVE) {
        vnni_prepare(x, m, n_tok, begin, end, to);
        return;
    }
    size_t n = n_deep(m);
    uint16_t *at = (uint16_t *)to + begin / ROWS * n * 2 * ROWS * DEPTH;

    for (uint32_t token = begin; token < end; token += ROWS)
        for (uint32_t i = 0; i < n; i++, at += 2 * ROWS * DEPTH) {
            uint32_t n_rows = token >= n_tok ? 0 : n_tok - token < ROWS ? n_tok - token : ROWS;
            const float *from = x + (size_t)token * m->n_in + (size_t)i * DEPTH;
            for (uint32_t t = 0; t < n_rows; t++)
                amx_split(from + (size_t)t * m->n_in, m->n_in - i * DEPTH, at + t * DEPTH,
                          at + (ROWS + t) * DEPTH);
            memset(at + n_rows * DEPTH, 0, (ROWS - n_rows) * DEPTH * sizeof *at);
            memset(at + (ROWS + n_rows) * DEPTH, 0, (ROWS - n_rows) * DEPTH * sizeof *at);
        }
}

/* Where the sums of 2 blocks of tokens by 2 panels lie. */
struct sums {
    float *at[2][2];
    size_t stride; /* bytes from token to token */
};

/* A chunk of inputs added to the sums of up to 2 blocks of tokens by 2 panels. Tile numbers are part of the instructions:
 * hence one function for both widths, whose second halves are skipped when there is nothing in them. `ahead`: weights that
 * come next; n_ahead lines a step. */
static inline __attribute__((always_inline)) void tiles(const struct sums *sums, const char *x0,
                                                        const char *x1, const char *w0, const char *w1,
                                                        size_t n, int two_blocks, int first,
                                                        const char *ahead, int n_ahead)
{
    AMX_STORED();
    if (first) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    } else {
        _tile_loadd(0, sums->at[0][0], sums->stride);
        _tile_loadd(1, sums->at[0][1], sums->stride);
        _tile_loadd(2, sums->at[1][0], sums->stride);
        _tile_loadd(3, sums->at[1][1], sums->stride);
    }
    for (size_t i = 0; i < n;
         i++, w0 += TILE_BYTES, w1 += TILE_BYTES, x0 += 2 * TILE_BYTES, x1 += 2 * TILE_BYTES) {
        for (int line = 0; line < n_ahead; line++, ahead += 64)
            _mm_prefetch(ahead, _MM_HINT_T1);
        for (int line = 0; !two_blocks && line < TILE_BYTES;
             line += 64) { /* few tokens: memory is what takes time */
            _mm_prefetch(w0 + NEAR * TILE_BYTES + line, _MM_HINT_T0);
            _mm_prefetch(w1 + NEAR * TILE_BYTES + line, _MM_HINT_T0);
        }
        _tile_loadd(6, w0, 64);
        _tile_loadd(4, x0, 64);
        _tile_loadd(7, w1, 64);
        _tile_loadd(5, x0 + TILE_BYTES, 64);
        _tile_dpbf16ps(0, 4, 6); /* [X1] */
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(0, 5, 6);
        _tile_dpbf16ps(1, 5, 7);
        if (!two_blocks)
            continue;
        _tile_loadd(4, x1, 64);
        _tile_loadd(5, x1 + TILE_BYTES, 64);
        _tile_dpbf16ps(2, 4, 6);
        _tile_dpbf16ps(3, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, sums->at[0][0], sums->stride);
    _tile_stored(1, sums->at[0][1], sums->stride);
    _tile_stored(2, sums->at[1][0], sums->stride);
    _tile_stored(3, sums->at[1][1], sums->stride);
}

/* ---- a few tokens of bf16 ---- */
static __m512 even(__m512i pairs)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
}

static __m512 odd(__m512i pairs)
{
    return _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32((int)0xffff0000u)));
}

/* One token by P panels; P is a constant where this is inlined. [X2] */
static inline __attribute__((always_inline)) void
vectors(float *out, const char *x, const struct weir_matrix *m, uint32_t panel, const int P)
{
    size_t n = n_deep(m), stride = n * TILE_BYTES;
    const char *w = (const char *)m->data + panel * stride;
    __m512 sums[4] = { _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps() };

    for (size_t i = 0; i < n; i++, x += 2 * TILE_BYTES, w += TILE_BYTES) {
        __m512 rounded[4][2], rest[4][2];
        _Pragma("GCC unroll 4") for (int p = 0; p < P; p++) rounded[p][0] = rounded[p][1] = rest[p][0] =
            rest[p][1] = _mm512_setzero_ps();
        for (size_t k = 0; k < DEPTH / 2; k++) {
            int32_t pair[2];
            memcpy(&pair[0], x + 4 * k, 4);
            memcpy(&pair[1], x + TILE_BYTES + 4 * k, 4);
            __m512i a = _mm512_set1_epi32(pair[0]), b = _mm512_set1_epi32(pair[1]);
            __m512 a0 = even(a), a1 = odd(a), b0 = even(b), b1 = odd(b);
            _Pragma("GCC unroll 4") for (int p = 0; p < P; p++)
            {
                const char *at = w + (size_t)p * stride + 64 * k;
                __m512i weights = _mm512_loadu_si512(at);
                _mm_prefetch(at + FAR, _MM_HINT_T0);
                __m512 w0 = even(weights), w1 = odd(weights);
                rounded[p][0] = _mm512_fmadd_ps(a0, w0, rounded[p][0]);
                rounded[p][1] = _mm512_fmadd_ps(a1, w1, rounded[p][1]);
                rest[p][0] = _mm512_fmadd_ps(b0, w0, rest[p][0]);
                rest[p][1] = _mm512_fmadd_ps(b1, w1, rest[p][1]);
            }
        }
        _Pragma("GCC unroll 4") for (int p = 0; p < P; p++)
        {
            sums[p] = _mm512_add_ps(sums[p], _mm512_add_ps(rounded[p][0], rounded[p][1]));
            sums[p] = _mm512_add_ps(sums[p], _mm512_add_ps(rest[p][0], rest[p][1]));
        }
    }
    _Pragma("GCC unroll 4") for (int p = 0; p < P; p++)
    {
        uint32_t left = m->n_out - (panel + (uint32_t)p) * PANEL;
        __mmask16 mask = (__mmask16)(left >= PANEL ? 0xffff : (1u << left) - 1);
        _mm512_mask_storeu_ps(out + (size_t)(panel + (uint32_t)p) * PANEL, mask, sums[p]);
    }
}

static __attribute__((noinline)) void few_panels(float *out, const struct weir_matrix *m, uint32_t n_tok,
                                                 uint32_t begin, uint32_t end, const void *prepared)
{
    uint32_t panel = begin;

    for (; panel + 4 <= end; panel += 4)
        for (uint32_t t = 0; t < n_tok; t++)
            vectors(out + (size_t)t * m->n_out, (const char *)prepared + (size_t)t * DEPTH * 2, m, panel, 4);
    for (; panel < end; panel++)
        for (uint32_t t = 0; t < n_tok; t++)
            vectors(out + (size_t)t * m->n_out, (const char *)prepared + (size_t)t * DEPTH * 2, m, panel, 1);
}

static void linear_few(float *out, const struct weir_matrix *m, uint32_t n_tok, uint32_t begin, uint32_t end,
                       const void *prepared)
{
    unsigned mode = _mm_getcsr();

    _mm_setcsr((mode & ~0x6000u) | 0x8040); /* to nearest; denormal numbers are zeros, as in tiles */
    few_panels(out, m, n_tok, begin, end, prepared);
    _mm_setcsr(mode);
}

/* ---- many tokens of bf16 ---- */
/* A job's share: the inputs of one chunk. */
struct bf16_work {
    float *out;
    const struct weir_matrix *m;
    const char *prepared;
    uint32_t n_tok, panel_end;
    size_t chunk, n; /* tiles of inputs: the first, how many */
};

/* At the matrix's edges tiles do not fit into `out`: their sums go through memory of their own. */
static void copy_edge(const struct bf16_work *w, float edge[2][2][ROWS][PANEL], uint32_t token,
                      uint32_t panel, int back)
{
    for (uint32_t i = 0; i < 2 * ROWS && token + i < w->n_tok; i++)
        for (uint32_t p = 0; p < 2 && panel + p < w->panel_end; p++) {
            uint32_t left = w->m->n_out - (panel + p) * PANEL;
            __mmask16 mask = (__mmask16)(left >= PANEL ? 0xffff : (1u << left) - 1);
            float *at = w->out + (size_t)(token + i) * w->m->n_out + (size_t)(panel + p) * PANEL;
            float *sums = edge[i / ROWS][p][i % ROWS];
            if (back)
                _mm512_mask_storeu_ps(at, mask, _mm512_loadu_ps(sums));
            else
                _mm512_storeu_ps(sums, _mm512_maskz_loadu_ps(mask, at));
        }
}

/* 2 panels by all tokens. While it works the next two come from memory. */
static void two_panels(const struct bf16_work *w, uint32_t panel)
{
    size_t n_all = n_deep(w->m), stride = n_all * TILE_BYTES;
    const char *w0 = (const char *)w->m->data + panel * stride + w->chunk * TILE_BYTES;
    const char *w1 = panel + 1 < w->panel_end ? w0 + stride : w0;
    uint32_t n_blocks = (w->n_tok + 2 * ROWS - 1) / (2 * ROWS), ld = w->m->n_out;
    int n_ahead = n_blocks == 1 ? 0 : (int)(2 * TILE_BYTES / 64 / n_blocks);
    bool inside = (panel + 2) * PANEL <= w->m->n_out && panel + 1 < w->panel_end;
    float edge[2][2][ROWS][PANEL] __attribute__((aligned(64)));

    for (uint32_t b = 0; b < n_blocks; b++) {
        uint32_t token = 2 * ROWS * b;
        const char *x0 = w->prepared + (token / ROWS * n_all + w->chunk) * 2 * TILE_BYTES;
        const char *ahead = w0 + 2 * stride + b * w->n * (size_t)n_ahead * 64;
        float *out = w->out + (size_t)token * ld + (size_t)panel * PANEL;
        bool direct = inside && token + 2 * ROWS <= w->n_tok, two = token + ROWS < w->n_tok;
        struct sums sums = { { { out, out + PANEL },
                               { out + (size_t)ROWS * ld, out + (size_t)ROWS * ld + PANEL } },
                             ld * sizeof *out };
        if (!direct) {
            sums =
                (struct sums){ { { edge[0][0][0], edge[0][1][0] }, { edge[1][0][0], edge[1][1][0] } }, 64 };
            if (w->chunk > 0)
                copy_edge(w, edge, token, panel, 0);
        }
        if (two)
            tiles(&sums, x0, x0 + n_all * 2 * TILE_BYTES, w0, w1, w->n, 1, w->chunk == 0, ahead, n_ahead);
        else
            tiles(&sums, x0, x0, w0, w1, w->n, 0, w->chunk == 0, ahead, n_ahead);
        if (!direct)
            copy_edge(w, edge, token, panel, 1);
    }
}

static void linear_bf16(float *out, const struct weir_matrix *m, uint32_t n_tok, uint32_t begin, uint32_t end,
                        const void *prepared)
{
    struct bf16_work w = { .out = out, .m = m, .prepared = prepared, .n_tok = n_tok, .panel_end = end };
    size_t n_all = n_deep(m);

    configure(n_tok);
    for (w.chunk = 0; w.chunk < n_all; w.chunk += CHUNK_TILES) {
        w.n = n_all - w.chunk < CHUNK_TILES ? n_all - w.chunk : CHUNK_TILES;
        for (uint32_t panel = begin; panel < end; panel += 2)
            two_panels(&w, panel);
    }
    _tile_release();
}

/* ---- many tokens of integers ---- */
struct integer_work {
    float *out;
    const struct weir_matrix *m;
    struct prepared p;
    uint32_t n_tok;
};

/* Up to 16 tokens from `token` on by 2 panels of s8: [high, low][panel]. While it works what comes next is fetched. */
static void tiles_q8(const struct integer_work *w, uint32_t token, const int8_t *w0, const int8_t *w1,
                     const int8_t *ahead, int n_ahead, int32_t sums[2][2][ROWS][PANEL])
{
    size_t ld = row_bytes(w->m);
    const uint8_t *high = w->p.high + token * ld, *low = w->p.low + token * ld;

    AMX_STORED();
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (uint32_t k = 0; k < w->m->n_wide; k += 64, w0 += TILE_BYTES, w1 += TILE_BYTES) {
        for (int line = 0; line < n_ahead; line++, ahead += 64)
            _mm_prefetch((const char *)ahead, _MM_HINT_T1);
        _tile_loadd(6, w0, 64);
        _tile_loadd(4, high + k, ld);
        _tile_loadd(7, w1, 64);
        _tile_loadd(5, low + k, ld);
        _tile_dpbusd(0, 4, 6);
        _tile_dpbusd(1, 4, 7);
        _tile_dpbusd(2, 5, 6);
        _tile_dpbusd(3, 5, 7);
    }
    _tile_stored(0, sums[0][0], 64);
    _tile_stored(1, sums[0][1], 64);
    _tile_stored(2, sums[1][0], 64);
    _tile_stored(3, sums[1][1], 64);
}

/* Panels `panel` and, when n is 2, the next, whose integers lie at w0 and w1. */
static void two_panels_q8(const struct integer_work *w, uint32_t panel, uint32_t n, const int8_t *w0,
                          const int8_t *w1, const int8_t *ahead)
{
    int32_t sums[2][2][ROWS][PANEL] __attribute__((aligned(64)));
    uint32_t n_blocks = (w->n_tok + ROWS - 1) / ROWS;
    int n_ahead = (int)((2 * TILE_BYTES / 64 + n_blocks - 1) / n_blocks);
    size_t share = (size_t)w->m->n_wide / 64 * (size_t)n_ahead * 64;

    for (uint32_t b = 0; b < n_blocks; b++) {
        uint32_t token = b * ROWS, n_rows = w->n_tok - token < ROWS ? w->n_tok - token : ROWS;
        tiles_q8(w, token, w0, w1, ahead + b * share, n_ahead, sums);
        for (uint32_t i = 0; i < n; i++) {
            struct finish how = finish_of(w->m, panel + i);
            for (uint32_t t = 0; t < n_rows; t++)
                finish(w->out + (size_t)(token + t) * w->m->n_out + (panel + i) * PANEL,
                       _mm512_load_si512(sums[0][i][t]), _mm512_load_si512(sums[1][i][t]), &how,
                       w->p.scales[token + t]);
        }
    }
}

static void linear_integers(float *out, const struct weir_matrix *m, uint32_t n_tok, uint32_t begin,
                            uint32_t end, const void *prepared, void *own)
{
    struct integer_work w = { out, m, prepared_of(prepared, m), n_tok };
    size_t stride = (size_t)m->n_wide * PANEL;

    configure(ROWS); /* rows past n_tok are prepared, too */
    for (uint32_t panel = begin; panel < end; panel += 2) {
        uint32_t n = end - panel < 2 ? 1 : 2;
        const int8_t *from = m->quant == WEIR_Q4 ? own : (const int8_t *)m->data + panel * stride;
        const int8_t *ahead =
            m->quant == WEIR_Q4 ? (const int8_t *)m->data + (panel + 2) * panel_bytes(m) : from + 2 * stride;
        for (uint32_t i = 0; m->quant == WEIR_Q4 && i < n; i++)
            vnni_widen((int8_t *)own + i * stride, m, panel + i);
        two_panels_q8(&w, panel, n, from, from + (n - 1) * stride, ahead);
    }
    _tile_release();
}

static void linear(float *out, const float *x, const struct weir_matrix *m, uint32_t n_tok, uint32_t begin,
                   uint32_t end, const void *prepared, void *own)
{
    if (m->quant != WEIR_NATIVE && n_tok < TILES_FROM)
        vnni_linear(out, x, m, n_tok, begin, end, prepared, own);
    else if (m->quant != WEIR_NATIVE)
        linear_integers(out, m, n_tok, begin, end, prepared, own);
    else if (m->dtype == WEIR_BF16 && n_tok < BF16_TILES_FROM)
        linear_few(out, m, n_tok, begin, end, prepared);
    else if (m->dtype == WEIR_BF16)
        linear_bf16(out, m, n_tok, begin, end, prepared);
    else
        cpu_ops_avx512.linear(out, x, m, n_tok, begin, end, prepared, own);
}

static void rmsnorm(float *out, const float *x, const float *weight, uint32_t n, float eps)
{
    cpu_ops_avx512.rmsnorm(out, x, weight, n, eps);
}

static void attend(const struct attend_job *job)
{
    if (attend_amx_fits(job))
        attend_amx(job);
    else
        cpu_ops_avx512.attend(job);
}

static void silu_mul(float *out, const float *gate, const float *up, uint32_t n)
{
    cpu_ops_avx512.silu_mul(out, gate, up, n);
}

const struct cpu_ops cpu_ops_amx = { .name = "cpu amx",
                                     .linear = linear,
                                     .prepared_bytes = prepared_bytes,
                                     .prepare = prepare,
                                     .own_bytes = vnni_own_bytes,
                                     .rmsnorm = rmsnorm,
                                     .attend = attend,
                                     .silu_mul = silu_mul };
