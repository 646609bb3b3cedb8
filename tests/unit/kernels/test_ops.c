/* test_ops.c - each operation of the CPU back end against its float64 twin, and the bit law: a row's bits are the same
 * whatever the batch, the cut and the number of threads. With every instruction set that this machine has.
 *
 * Memory that an operation must not read is NaN; memory that it must not write is watched. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "base/mem.h"
#include "kernels/kernels.h"
#include "kernels/ref.h"

#define POISON 40             /* floats behind every buffer */
#define TOLERANCE 1e-12       /* normalised squared error; f32 sums of some hundred numbers stay far below */
#define TOLERANCE_SPLIT 1e-10 /* of activations with 16 bits */
#define TOLERANCE_BF16 5e-6   /* of activations rounded to bf16: 2^-9 of each at most */
#define TOLERANCE_BYTES 3e-5  /* of activations with 8 bits for the largest of 64 */
#define CLOSE_ENOUGH(got, wanted, n) assert_true(weir_ref_nmse(got, wanted, n) < TOLERANCE)

static uint64_t random_state;

static uint64_t random_bits(void)
{
    random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
    return random_state >> 33;
}

static uint32_t random_below(uint32_t n)
{
    return (uint32_t)(random_bits() % n);
}

static float random_float(void)
{
    return (float)random_bits() * 0x1p-30f - 1.0f;
}

/* ---- buffers with poison behind them ---- */
static float *floats(struct weir_backend *be, size_t n, bool filled)
{
    float *ret = be->alloc(be, (n + POISON) * sizeof *ret);

    assert_non_null(ret);
    assert_int_equal((uintptr_t)ret % 64, 0);
    for (size_t i = 0; i < n + POISON; i++)
        ret[i] = filled && i < n ? random_float() : NAN;
    return ret;
}

static void check_poison(const float *buffer, size_t n)
{
    for (size_t i = n; i < n + POISON; i++)
        assert_true(isnan(buffer[i]));
}

static double *doubles(const float *from, size_t n)
{
    double *ret = weir_calloc(n + 1, sizeof *ret);

    for (size_t i = 0; from && i < n; i++)
        ret[i] = from[i];
    return ret;
}

/* ---- the instruction sets ---- */
static struct weir_backend *open_cpu(const char *isa, uint32_t n_threads)
{
    struct weir_backend *be = NULL;
    struct weir_why why;
    char name[64];

    assert_int_equal(setenv("WEIR_CPU", isa, 1), 0);
    assert_int_equal(weir_backend_cpu_open(&(struct weir_backend_opts){ .n_threads = n_threads }, &be, &why),
                     WEIR_OK);
    snprintf(name, sizeof name, "cpu %s", isa);
    if (strcmp(be->name, name) == 0)
        return be;
    print_message("%s: this machine has only %s\n", isa, be->name);
    weir_backend_close(be);
    return NULL;
}

static void on_each_isa(void (*fn)(struct weir_backend *one, struct weir_backend *two,
                                   struct weir_backend *three))
{
#ifdef WEIR_AMX_EMU /* the others have a test of their own */
    static const char *const isas[] = { "amx" };
#else
    static const char *const isas[] = { "generic", "avx2", "avx512", "avx512vnni", "avx512bf16", "amx" };
#endif

    for (size_t i = 0; i < sizeof isas / sizeof *isas; i++) {
        struct weir_backend *one = open_cpu(isas[i], 1), *two = open_cpu(isas[i], 2),
                            *three = open_cpu(isas[i], 3);
        random_state = 7;
        if (one)
            fn(one, two, three);
        weir_backend_close(one);
        weir_backend_close(two);
        weir_backend_close(three);
    }
}

/* Of n numbers: this instruction set rounds activations, beside bf16 weights or beside integers. Few numbers say less of the mean. */
static double tolerance(const struct weir_backend *be, double exact, double rounded, uint64_t n)
{
    if (strcmp(be->name, "cpu avx512bf16") != 0)
        return exact;
    return n < 64 ? 10 * rounded : rounded;
}

/* ---- weights of a dtype ---- */
static uint16_t to_bf16(float x)
{
    uint32_t bits;

    memcpy(&bits, &x, sizeof bits);
    return (uint16_t)(bits >> 16);
}

/* Random weights at an odd address, with NaN bytes on both sides; `values` gets what they mean. */
static void *make_weights(enum weir_dtype dtype, size_t n, double *values, const char **ret_data)
{
    size_t size = weir_dtype_size(dtype);
    char *memory = weir_alloc(n * size + 128), *data = memory + 63;

    memset(memory, 0xff, n * size + 128);
    for (size_t i = 0; i < n; i++) {
        float x = random_float();
        /* 0x2c00 to 0x3bff: f16 numbers from 1/16 to 1 */
        uint16_t half = dtype == WEIR_BF16
                            ? to_bf16(x)
                            : (uint16_t)((random_bits() & 1 ? 0x8000 : 0) | (0x2c00 + random_below(0x1000)));
        if (dtype == WEIR_F32)
            memcpy(data + 4 * i, &x, 4);
        else
            memcpy(data + 2 * i, &half, 2);
        values[i] = dtype == WEIR_F32 ? x : weir_half_to_f32(half, dtype);
    }
    *ret_data = data;
    return memory;
}

struct matrix_case {
    uint32_t n_in, n_out[3];
    int n_parts;
    enum weir_dtype dtypes[3];
};

static const struct matrix_case matrices[] = {
    { 1, { 1 }, 1, { WEIR_F32 } },
    { 7, { 5 }, 1, { WEIR_BF16 } },
    { 33, { 100 }, 1, { WEIR_F16 } },
    { 64, { 48 }, 1, { WEIR_BF16 } },
    { 129, { 17 }, 1, { WEIR_F32 } },
    { 96, { 64, 32, 32 }, 3, { WEIR_BF16, WEIR_BF16, WEIR_BF16 } },
    { 40, { 3, 50, 21 }, 3, { WEIR_BF16, WEIR_F32, WEIR_F16 } },
    { 256, { 33 }, 1, { WEIR_BF16 } },
    { 515, { 160 }, 1, { WEIR_BF16 } },
    { 515, { 170 }, 1, { WEIR_F32 } },
};
#define N_MATRICES (sizeof matrices / sizeof *matrices)

static struct weir_matrix *make_quantized(struct weir_backend *be, const struct matrix_case *c,
                                          enum weir_quant quant, double **ret_values, uint32_t *ret_n_out)
{
    struct weir_weights parts[3];
    void *memory[3];
    struct weir_matrix *m = NULL;
    uint32_t n_out = 0;

    for (int i = 0; i < c->n_parts; i++)
        n_out += c->n_out[i];
    *ret_values = weir_calloc((size_t)n_out * c->n_in, sizeof **ret_values);
    n_out = 0;
    for (int i = 0; i < c->n_parts; i++) {
        const char *data = NULL;
        memory[i] = make_weights(c->dtypes[i], (size_t)c->n_out[i] * c->n_in,
                                 *ret_values + (size_t)n_out * c->n_in, &data);
        parts[i] = (struct weir_weights){ data, c->dtypes[i], c->n_out[i], c->n_in };
        n_out += c->n_out[i];
    }
    assert_int_equal(be->pack(be, parts, c->n_parts, c->n_in, quant, &m), WEIR_OK);
    for (int i = 0; i < c->n_parts; i++)
        weir_free(memory[i]); /* not needed afterwards */
    *ret_n_out = n_out;
    return m;
}

static struct weir_matrix *make_matrix(struct weir_backend *be, const struct matrix_case *c,
                                       double **ret_values, uint32_t *ret_n_out)
{
    return make_quantized(be, c, WEIR_NATIVE, ret_values, ret_n_out);
}

/* ---- linear ---- */
static void linear_close(struct weir_backend *one, struct weir_backend *two, struct weir_backend *three)
{
    static const uint32_t n_toks[] = { 1, 2, 3, 5, 8, 9, 17, 33 };
    struct weir_backend *const all[] = { one, two, three };

    for (size_t i = 0; i < N_MATRICES * 8; i++) {
        const struct matrix_case *c = &matrices[i / 8];
        uint32_t n_tok = n_toks[i % 8], n_out = 0;
        struct weir_backend *be = all[i % 3];
        double *w = NULL;
        struct weir_matrix *m = make_matrix(be, c, &w, &n_out);
        float *x = floats(be, (size_t)n_tok * c->n_in, true);
        float *out = floats(be, (size_t)n_tok * n_out, false);
        double *xd = doubles(x, (size_t)n_tok * c->n_in), *wanted = doubles(NULL, (size_t)n_tok * n_out);
        for (uint32_t t = 0; t < n_tok; t++)
            weir_ref_linear(wanted + (size_t)t * n_out, xd + (size_t)t * c->n_in, w, c->n_in, n_out,
                            /* add= */ 0);
        be->linear(be, out, x, m, n_tok);
        assert_true(weir_ref_nmse(out, wanted, (uint64_t)n_tok * n_out) <
                    (strcmp(be->name, "cpu amx") == 0
                         ? TOLERANCE_SPLIT
                         : tolerance(be, TOLERANCE, TOLERANCE_BF16, (uint64_t)n_tok * n_out)));
        check_poison(out, (size_t)n_tok * n_out);
        be->free(be, x);
        be->free(be, out);
        be->unpack(be, m);
        weir_free(xd);
        weir_free(wanted);
        weir_free(w);
    }
}

/* [B1] [X1] [I1] [D1] [D2] Any number of tokens, cut anywhere, on any number of threads: the same bits. */
static void linear_bits(struct weir_backend *one, struct weir_backend *two, struct weir_backend *three)
{
    enum { N_TOK = 150 };
    static const uint32_t steps[] = { 1, 2, 3, 4, 5, 7, 11, 12, 13, 16, 17, 24, 31, 40, 96, 128, 149 };
    struct weir_backend *const all[] = { one, two, three };

    for (size_t i = 0; i < N_MATRICES * 9; i++) {
        const struct matrix_case *c = &matrices[i / 9];
        enum weir_quant quant = (enum weir_quant)(i / 3 % 3);
        struct weir_backend *be = all[i % 3];
        uint32_t n_out = 0;
        double *w = NULL, *again = NULL;
        random_state = i / 9; /* each back end packs the same matrix for itself */
        struct weir_matrix *mine = make_quantized(be, c, quant, &w, &n_out);
        random_state = i / 9;
        struct weir_matrix *m = make_quantized(one, c, quant, &again, &n_out);
        float *x = floats(one, (size_t)N_TOK * c->n_in, true),
              *whole = floats(one, (size_t)N_TOK * n_out, false);
        float *cut = floats(one, (size_t)N_TOK * n_out, false);
        for (uint32_t k = 0; k < c->n_in; k++) { /* two tokens whose rests or products are denormal numbers */
            x[c->n_in + k] *= 0x1p-120f;
            x[3 * (size_t)c->n_in + k] *= 0x1p-126f;
        }
        one->linear(one, whole, x, m, N_TOK);
        for (size_t k = 0; k < sizeof steps / sizeof *steps; k += quant ? 4 : 1) {
            for (uint32_t t = 0; t < N_TOK; t += steps[k])
                be->linear(be, cut + (size_t)t * n_out, x + (size_t)t * c->n_in, mine,
                           N_TOK - t < steps[k] ? N_TOK - t : steps[k]);
            assert_memory_equal(cut, whole, (size_t)N_TOK * n_out * sizeof *cut);
        }
        one->free(one, x);
        one->free(one, whole);
        one->free(one, cut);
        one->unpack(one, m);
        be->unpack(be, mine);
        weir_free(w);
        weir_free(again);
    }
}

/* The table's rows tell what the weights became: near what they were, and the products are those of them. */
static void quantized_close(struct weir_backend *one, struct weir_backend *two, struct weir_backend *three)
{
    static const uint32_t n_toks[] = { 1, 2, 3, 4, 5, 9, 17, 33 };
    static const double lost[] = { 0, 5e-5, 1e-2 };
    struct weir_backend *const all[] = { one, two, three };

    for (size_t i = 0; i < N_MATRICES * 8 * 2; i++) {
        const struct matrix_case *c = &matrices[i / 16];
        enum weir_quant quant = i % 2 ? WEIR_Q4 : WEIR_Q8;
        uint32_t n_tok = n_toks[i / 2 % 8], n_out = 0;
        struct weir_backend *be = all[i % 3];
        double *w = NULL;
        struct weir_matrix *m = make_quantized(be, c, quant, &w, &n_out);
        float *rows = floats(be, (size_t)n_out * c->n_in, false),
              *x = floats(be, (size_t)n_tok * c->n_in, true);
        float *out = floats(be, (size_t)n_tok * n_out, false);
        int32_t *ids = weir_calloc(n_out, sizeof *ids);
        for (uint32_t k = 0; k < n_out; k++)
            ids[k] = (int32_t)k;
        be->embed(be, rows, m, &(struct weir_batch){ .n_tok = n_out, .ids = ids });
        assert_true(weir_ref_nmse(rows, w, (uint64_t)n_out * c->n_in) < lost[quant]);
        double *became = doubles(rows, (size_t)n_out * c->n_in), *xd = doubles(x, (size_t)n_tok * c->n_in);
        double *wanted = doubles(NULL, (size_t)n_tok * n_out);
        for (uint32_t t = 0; t < n_tok; t++)
            weir_ref_linear(wanted + (size_t)t * n_out, xd + (size_t)t * c->n_in, became, c->n_in, n_out,
                            /* add= */ 0);
        be->linear(be, out, x, m, n_tok);
        assert_true(weir_ref_nmse(out, wanted, (uint64_t)n_tok * n_out) <
                    tolerance(be, 2e-9, TOLERANCE_BYTES,
                              (uint64_t)n_tok * n_out)); /* 2e-9: 16 bits of a row's largest */
        check_poison(out, (size_t)n_tok * n_out);
        assert_true(n_out < 160 ||
                    be->matrix_bytes(m) * 10 < (uint64_t)n_out * c->n_in * (quant == WEIR_Q8 ? 14 : 8));
        be->free(be, rows);
        be->free(be, x);
        be->free(be, out);
        be->unpack(be, m);
        weir_free(ids);
        weir_free(became);
        weir_free(xd);
        weir_free(wanted);
        weir_free(w);
    }
}

static void fp8_is_refused(struct weir_backend *one, struct weir_backend *two, struct weir_backend *three)
{
    struct weir_weights part = { "0123456789abcdef", WEIR_F32, 2, 2 };
    struct weir_matrix *m = NULL;

    (void)two;
    (void)three;
    assert_int_equal(one->pack(one, &part, 1, 2, WEIR_FP8, &m), WEIR_UNIMPLEMENTED);
    assert_null(m);
}

/* Rows named, normed, and multiplied: more of them than are normed at once. */
static void head_close(struct weir_backend *one, struct weir_backend *two, struct weir_backend *three)
{
    enum { N_TOK = 90, N_ROWS = 70 };
    const struct matrix_case *c = &matrices[5];
    uint32_t n_out = 0, n_in = c->n_in;
    double *w = NULL;
    struct weir_matrix *m = make_matrix(two, c, &w, &n_out);
    float *x = floats(two, N_TOK * n_in, true), *norm = floats(two, n_in, true);
    float *out = floats(two, N_ROWS * n_out, false);
    double *wanted = doubles(NULL, N_ROWS * n_out), *nd = doubles(norm, n_in);
    int32_t rows[N_ROWS];

    (void)one;
    (void)three;
    for (uint32_t i = 0; i < N_ROWS; i++) {
        rows[i] = (int32_t)random_below(N_TOK);
        double *row = doubles(x + (size_t)rows[i] * n_in, n_in);
        weir_ref_rmsnorm(row, row, nd, n_in, 1e-5);
        weir_ref_linear(wanted + (size_t)i * n_out, row, w, n_in, n_out, /* add= */ 0);
        weir_free(row);
    }
    two->head(two, out, x, rows, N_ROWS, norm, 1e-5f, m);
    assert_true(weir_ref_nmse(out, wanted, N_ROWS * n_out) <
                tolerance(two, TOLERANCE_SPLIT, TOLERANCE_BF16, N_ROWS * n_out));
    check_poison(out, N_ROWS * n_out);
    two->free(two, x);
    two->free(two, norm);
    two->free(two, out);
    two->unpack(two, m);
    weir_free(wanted);
    weir_free(nd);
    weir_free(w);
}

/* ---- embed, norm, silu, f16 ---- */
static void embed_exact(struct weir_backend *one, struct weir_backend *two, struct weir_backend *three)
{
    struct weir_backend *const all[] = { one, two, three };

    for (size_t i = 0; i < N_MATRICES; i++) {
        struct weir_backend *be = all[i % 3];
        uint32_t n_out = 0, n_in = matrices[i].n_in;
        double *w = NULL;
        struct weir_matrix *m = make_matrix(be, &matrices[i], &w, &n_out);
        float *out = floats(be, (size_t)9 * n_in, false);
        int32_t ids[9];
        for (int t = 0; t < 9; t++)
            ids[t] = t == 0 ? (int32_t)n_out - 1 : (int32_t)random_below(n_out);
        be->embed(be, out, m, &(struct weir_batch){ .n_tok = 9, .ids = ids });
        for (size_t t = 0; t < 9; t++)
            for (size_t k = 0; k < n_in; k++)
                assert_true(out[t * n_in + k] == (float)w[(size_t)ids[t] * n_in + k]);
        check_poison(out, (size_t)9 * n_in);
        be->free(be, out);
        be->unpack(be, m);
        weir_free(w);
    }
}

static void rmsnorm_close(struct weir_backend *one, struct weir_backend *two, struct weir_backend *three)
{
    static const uint32_t widths[] = { 1, 3, 16, 31, 64, 100, 515 };
    struct weir_backend *const all[] = { one, two, three };

    for (size_t i = 0; i < 2 * sizeof widths / sizeof *widths; i++) {
        uint32_t n = widths[i / 2], n_tok = 7;
        size_t size = (size_t)n_tok * n;
        struct weir_backend *be = all[i % 3];
        float *x = floats(be, size, true), *weight = floats(be, n, true), *delta = floats(be, size, true);
        float *out = floats(be, size, false), *alone = floats(be, n, false), *sum = floats(be, n, false);
        if (i % 2 == 0)
            memset(x, 0, n * sizeof *x); /* a row of zeros: eps keeps it finite */
        double *wanted = doubles(x, size), *wd = doubles(weight, n);
        memcpy(sum, x + (size_t)5 * n, n * sizeof *sum);
        for (size_t k = 0; i % 2 && k < size; k++)
            wanted[k] = x[k] + delta[k];
        for (uint32_t t = 0; t < n_tok; t++)
            weir_ref_rmsnorm(wanted + (size_t)t * n, wanted + (size_t)t * n, wd, n, 1e-5);
        be->add_rmsnorm(be, out, x, i % 2 ? delta : NULL, weight, n_tok, n, 1e-5f);
        CLOSE_ENOUGH(out, wanted, size);
        check_poison(out, size);
        check_poison(x, size);
        one->add_rmsnorm(one, alone, sum, i % 2 ? delta + (size_t)5 * n : NULL, weight, 1, n, 1e-5f);
        assert_memory_equal(alone, out + (size_t)5 * n, n * sizeof *out);
        assert_memory_equal(sum, x + (size_t)5 * n, n * sizeof *sum);
        float *const all_buffers[] = { x, weight, delta, out, alone, sum };
        for (size_t k = 0; k < 6; k++)
            be->free(be, all_buffers[k]);
        weir_free(wanted);
        weir_free(wd);
    }
}

static void silu_close(struct weir_backend *one, struct weir_backend *two, struct weir_backend *three)
{
    static const uint32_t widths[] = { 1, 15, 16, 17, 100, 515 };
    struct weir_backend *const all[] = { one, two, three };

    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        uint32_t n = widths[i], n_tok = 5;
        struct weir_backend *be = all[i % 3];
        float *x = floats(be, (size_t)n_tok * 2 * n, true), *out = floats(be, (size_t)n_tok * n, false);
        for (size_t k = 0; k < (size_t)n_tok * 2 * n; k++)
            x[k] *= k % 3 == 0 ? 120.0f : 5.0f; /* far into both tails of the exponential */
        x[0] = 0;
        double *xd = doubles(x, (size_t)n_tok * 2 * n), *wanted = doubles(NULL, (size_t)n_tok * n);
        for (uint32_t t = 0; t < n_tok; t++)
            weir_ref_silu_mul(wanted + (size_t)t * n, xd + (size_t)t * 2 * n, n);
        be->silu_mul(be, out, x, n_tok, n);
        CLOSE_ENOUGH(out, wanted, (uint64_t)n_tok * n);
        check_poison(out, (size_t)n_tok * n);
        /* Each number on its own scale, the small ones too. */
        for (size_t k = 0; k < (size_t)n_tok * n; k++)
            assert_true(fabs(out[k] - wanted[k]) <= 1e-6 * fabs(wanted[k]) + 1e-30);
        be->free(be, x);
        be->free(be, out);
        weir_free(xd);
        weir_free(wanted);
    }
}

static void test_half_numbers_are_exact(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits < 0x10000; bits++) {
        uint32_t exponent = bits >> 10 & 31, mantissa = bits & 1023;
        double sign = bits & 0x8000 ? -1 : 1;
        float got = weir_half_to_f32((uint16_t)bits, WEIR_F16);
        if (exponent == 31)
            assert_true(mantissa ? isnan(got) : isinf(got) && (got > 0) == (sign > 0));
        else
            assert_true(got == sign * (exponent ? ldexp(1 + mantissa / 1024.0, (int)exponent - 15)
                                                : ldexp(mantissa / 1024.0, -14)));
    }
    assert_true(weir_half_to_f32(0x3f80, WEIR_BF16) == 1.0f);
    assert_true(weir_half_to_f32(0xc049, WEIR_BF16) == -3.140625f);
}

/* ---- keys, values, attention: two sequences whose pages lie scattered among pages of NaN ---- */
enum { N_SEQ = 3, N_BLOCK_MAX = 6, N_PAGES = 24, N_CONTEXT = N_BLOCK_MAX * WEIR_KV_BLOCK };

struct attn_case {
    struct weir_attn_dims dims;
    struct weir_backend *be;
    struct weir_kv_pages kv;
    float *cos, *sin;
    struct weir_qkv how;
    float *bias, *norms; /* NULL: none */
    int32_t table[N_SEQ * N_BLOCK_MAX];
    double *k[N_SEQ], *v[N_SEQ]; /* plain, rotated: what the pages must hold */
};

static size_t page_floats(const struct attn_case *c)
{
    return (size_t)c->dims.n_kv_head * WEIR_KV_BLOCK * c->dims.d_head;
}

static uint32_t qkv_width(const struct attn_case *c)
{
    return (c->dims.n_head + 2 * c->dims.n_kv_head) * c->dims.d_head;
}

static void attn_init(struct attn_case *c, struct weir_backend *be, uint32_t n_head, uint32_t n_kv,
                      uint32_t d, uint32_t window)
{
    *c = (struct attn_case){ .dims = { n_head, n_kv, d, window }, .be = be };
    c->kv.k = floats(be, N_PAGES * page_floats(c), false);
    c->kv.v = floats(be, N_PAGES * page_floats(c), false);
    c->cos = floats(be, (size_t)N_CONTEXT * d / 2, true);
    c->sin = floats(be, (size_t)N_CONTEXT * d / 2, true);
    c->how = (struct weir_qkv){ .cos = c->cos, .sin = c->sin, .eps = 1e-5f };
    if (n_head % 3 == 0) {
        c->bias = floats(be, qkv_width(c), true);
        c->how.bias = c->bias;
    }
    if (d % 5 == 0) {
        c->norms = floats(be, 2 * (size_t)d, true);
        c->how.q_norm = c->norms;
        c->how.k_norm = c->norms + d;
    }
    for (int i = 0; i < N_SEQ * N_BLOCK_MAX; i++)
        c->table[i] = (i * 7 + 5) % N_PAGES; /* distinct: 7 and 24 have no common factor */
    for (int i = 0; i < N_SEQ; i++) {
        c->k[i] = weir_calloc((size_t)N_CONTEXT * n_kv * d, sizeof(double));
        c->v[i] = weir_calloc((size_t)N_CONTEXT * n_kv * d, sizeof(double));
    }
}

static void attn_release(struct attn_case *c)
{
    c->be->free(c->be, c->kv.k);
    c->be->free(c->be, c->kv.v);
    c->be->free(c->be, c->cos);
    c->be->free(c->be, c->sin);
    c->be->free(c->be, c->bias);
    c->be->free(c->be, c->norms);
    for (int i = 0; i < N_SEQ; i++) {
        weir_free(c->k[i]);
        weir_free(c->v[i]);
    }
}

/* Stores the tokens through rope_store and remembers in float64 what must come of it; checks q. */
static void store_tokens(struct attn_case *c, struct weir_backend *be, const struct weir_batch *batch,
                         float *qkv)
{
    uint32_t d = c->dims.d_head, n_q = c->dims.n_head, n_kv = c->dims.n_kv_head, width = qkv_width(c);
    double *wanted = doubles(qkv, (size_t)batch->n_tok * width);

    be->qkv_store(be, qkv, &c->how, &c->kv, batch, &c->dims);
    for (uint32_t t = 0; t < batch->n_tok; t++) {
        size_t pos = (size_t)batch->pos[t];
        double *cos = doubles(c->cos + pos * (d / 2), d / 2), *sin = doubles(c->sin + pos * (d / 2), d / 2);
        double *row = wanted + (size_t)t * width;
        double *norms = doubles(c->norms, 2 * (size_t)d);
        for (uint32_t i = 0; c->bias && i < width; i++)
            row[i] += c->bias[i];
        for (uint32_t h = 0; h < n_q + n_kv; h++) {
            if (c->norms)
                weir_ref_rmsnorm(row + (size_t)h * d, row + (size_t)h * d, norms + (h < n_q ? 0 : d), d,
                                 1e-5);
            weir_ref_rope(row + (size_t)h * d, cos, sin, d);
        }
        weir_free(norms);
        CLOSE_ENOUGH(qkv + (size_t)t * width, row, (uint64_t)n_q * d);
        memcpy(c->k[batch->seq[t]] + pos * n_kv * d, row + (size_t)n_q * d,
               (size_t)n_kv * d * sizeof(double));
        memcpy(c->v[batch->seq[t]] + pos * n_kv * d, row + (size_t)(n_q + n_kv) * d,
               (size_t)n_kv * d * sizeof(double));
        weir_free(cos);
        weir_free(sin);
    }
    weir_free(wanted);
}

static void check_attention(const struct attn_case *c, const struct weir_batch *batch, const float *qkv,
                            const float *out)
{
    uint32_t d = c->dims.d_head, n_q = c->dims.n_head;
    double *wanted = doubles(NULL, (size_t)n_q * d);

    for (uint32_t t = 0; t < batch->n_tok; t++) {
        int32_t s = batch->seq[t];
        double *q = doubles(qkv + (size_t)t * qkv_width(c), (size_t)n_q * d);
        weir_ref_attention(wanted, q, c->k[s], c->v[s], (uint32_t)batch->pos[t] + 1, &c->dims, 0.3);
        CLOSE_ENOUGH(out + (size_t)t * n_q * d, wanted, (uint64_t)n_q * d);
        weir_free(q);
    }
    weir_free(wanted);
}

/* Sequences grow by uneven chunks, mixed in one batch as a step mixes them; then every token again, alone. */
static void attention_case(struct weir_backend *const all[3], uint32_t n_head, uint32_t n_kv, uint32_t d,
                           uint32_t window)
{
    static const int chunks[][N_SEQ] = { { 1, 0, 17 },  { 33, 5, 1 },  { 1, 1, 1 },
                                         { 14, 3, 16 }, { 20, 0, 40 }, { 0, 23, 0 } };
    struct attn_case c;
    int32_t at[N_SEQ] = { 0 }, pos[96], seq[96];

    attn_init(&c, all[0], n_head, n_kv, d, window);
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
        struct weir_batch batch = {
            .pos = pos, .seq = seq, .table = c.table, .n_seq = N_SEQ, .n_block_max = N_BLOCK_MAX
        };
        for (int32_t s = N_SEQ - 1; s >= 0; s--)
            for (int n = 0; n < chunks[i][s]; n++) {
                pos[batch.n_tok] = at[s]++;
                seq[batch.n_tok++] = s;
            }
        size_t n_out = (size_t)batch.n_tok * n_head * d;
        float *qkv = floats(c.be, (size_t)batch.n_tok * qkv_width(&c), true),
              *out = floats(c.be, n_out, false);
        float *again = floats(c.be, n_out, false);
        store_tokens(&c, all[i % 3], &batch, qkv);
        all[0]->attention(all[0], out, qkv, &c.kv, &batch, &c.dims, 0.3f);
        check_attention(&c, &batch, qkv, out);
        check_poison(out, n_out);
        for (int b = 1; b < 3; b++) { /* threads */
            all[b]->attention(all[b], again, qkv, &c.kv, &batch, &c.dims, 0.3f);
            assert_memory_equal(again, out, n_out * sizeof *out);
        }
        for (uint32_t step = 1; step < 12; step += 3) /* [B2] cut anywhere */
            for (uint32_t t = 0; t < batch.n_tok; t += step) {
                struct weir_batch part = { .n_tok = batch.n_tok - t < step ? batch.n_tok - t : step,
                                           .pos = pos + t,
                                           .seq = seq + t,
                                           .table = c.table,
                                           .n_seq = N_SEQ,
                                           .n_block_max = N_BLOCK_MAX };
                all[0]->attention(all[0], again, qkv + (size_t)t * qkv_width(&c), &c.kv, &part, &c.dims,
                                  0.3f);
                assert_memory_equal(again, out + (size_t)t * n_head * d,
                                    (size_t)part.n_tok * n_head * d * sizeof *out);
            }
        c.be->free(c.be, qkv);
        c.be->free(c.be, out);
        c.be->free(c.be, again);
    }
    attn_release(&c);
}

static void attention_close(struct weir_backend *one, struct weir_backend *two, struct weir_backend *three)
{
    struct weir_backend *const all[] = { one, two, three };

    attention_case(all, 1, 1, 2, 0);
    attention_case(all, 4, 2, 16, 0);
    attention_case(all, 3, 3, 20, 0);
    attention_case(all, 8, 4, 32, 0);
    attention_case(all, 14, 2, 64, 0);
    attention_case(all, 6, 1, 80, 0);
    attention_case(all, 2, 2, 128, 0);
    for (uint32_t window = 1; window < 60; window = window * 2 + 3)
        attention_case(all, 6, 2, 20, window);
    attention_case(all, 8, 4, 32, 16);
}

/* Scores far apart: the largest alone counts, and nothing overflows. */
static void attention_extremes(struct weir_backend *one, struct weir_backend *two, struct weir_backend *three)
{
    struct attn_case c;
    int32_t pos[40], seq[40];
    struct weir_batch batch = {
        .n_tok = 40, .pos = pos, .seq = seq, .table = c.table, .n_seq = N_SEQ, .n_block_max = N_BLOCK_MAX
    };

    (void)three;
    attn_init(&c, one, 2, 1, 16, 0);
    for (int i = 0; i < 40; i++) {
        pos[i] = i;
        seq[i] = 1;
    }
    float *qkv = floats(one, (size_t)40 * qkv_width(&c), true), *out = floats(one, 40 * 32, false);
    for (size_t i = 0; i < (size_t)40 * qkv_width(&c); i++)
        qkv[i] *= i % qkv_width(&c) < 48 ? 100.0f : 1.0f; /* scores of some tens of thousands */
    store_tokens(&c, two, &batch, qkv);
    two->attention(two, out, qkv, &c.kv, &batch, &c.dims, 0.3f);
    for (int t = 0; t < 40; t++)
        for (int i = 0; i < 32; i++)
            assert_true(isfinite(out[t * 32 + i]) && fabsf(out[t * 32 + i]) <= 1.001f);
    one->free(one, qkv);
    one->free(one, out);
    attn_release(&c);
}

static void copy_page_copies(struct weir_backend *one, struct weir_backend *two, struct weir_backend *three)
{
    struct attn_case c;

    (void)three;
    attn_init(&c, one, 4, 2, 20, 0);
    size_t n = page_floats(&c);
    float *k = c.kv.k, *v = c.kv.v;
    for (size_t i = 0; i < n; i++) {
        k[3 * n + i] = random_float();
        v[3 * n + i] = random_float();
    }
    two->copy_page(two, &c.kv, &c.dims, 3, 11);
    assert_memory_equal(k + 11 * n, k + 3 * n, n * sizeof(float));
    assert_memory_equal(v + 11 * n, v + 3 * n, n * sizeof(float));
    for (size_t i = 0; i < N_PAGES * n; i++)
        if (i / n != 3 && i / n != 11)
            assert_true(isnan(k[i]) && isnan(v[i]));
    attn_release(&c);
}

/* ---- keys and values in bf16: half the memory, and near what f32 gives ---- */
/* What bf16 holds, and no rotation: then pages of bf16 lose nothing. */
static void make_plain(float *qkv, size_t n, float *cos, float *sin, size_t n_turns)
{
    for (size_t i = 0; i < n; i++)
        qkv[i] = weir_half_to_f32(to_bf16(qkv[i]), WEIR_BF16);
    for (size_t i = 0; i < n_turns; i++) {
        cos[i] = 1;
        sin[i] = 0;
    }
}

/* The same tokens through pages of f32 (`wide`) and of bf16, whole, in pieces and one by one. */
static void check_bf16(struct weir_backend *wide, const struct weir_attn_dims *dims, uint32_t n_threads,
                       bool plain)
{
    enum { N_TOK = 90, N_PAGE = N_TOK / WEIR_KV_BLOCK + 1 };
    static const uint32_t steps[] = { 1, 7, 16, 33 };
    const uint32_t d = dims->d_head, n_q = dims->n_head * d, width = n_q + 2 * dims->n_kv_head * d;
    struct weir_backend *half = NULL;
    struct weir_backend_opts opts = { .n_threads = n_threads, .kv = WEIR_BF16 };
    struct weir_why why;
    float *cos = floats(wide, N_TOK * d, true), *sin = floats(wide, N_TOK * d, true);
    float *qkv = floats(wide, (size_t)N_TOK * width, true), *kept = floats(wide, (size_t)N_TOK * width, true);
    float *out = floats(wide, (size_t)N_TOK * n_q, false), *cut = floats(wide, (size_t)N_TOK * n_q, false);
    int32_t pos[N_TOK], seq[N_TOK] = { 0 }, table[N_PAGE] = { 3, 1, 5, 2, 4, 0 };
    struct weir_batch batch = {
        .n_tok = N_TOK, .pos = pos, .seq = seq, .table = table, .n_seq = 1, .n_block_max = N_PAGE
    };
    const struct weir_qkv how = { .cos = cos, .sin = sin };

    assert_int_equal(weir_backend_cpu_open(&opts, &half, &why), WEIR_OK);
    size_t page = half->kv_page_bytes(half, dims);
    assert_int_equal(2 * page, wide->kv_page_bytes(wide, dims));
    struct weir_kv_pages pages = { wide->alloc(wide, 2 * N_PAGE * page),
                                   wide->alloc(wide, 2 * N_PAGE * page) };
    struct weir_kv_pages narrow = { half->alloc(half, N_PAGE * page), half->alloc(half, N_PAGE * page) };
    for (int i = 0; i < N_TOK; i++)
        pos[i] = i;
    if (plain)
        make_plain(qkv, (size_t)N_TOK * width, cos, sin, (size_t)N_TOK * d);
    memcpy(kept, qkv, (size_t)N_TOK * width * sizeof *qkv);
    wide->qkv_store(wide, qkv, &how, &pages, &batch, dims);
    wide->attention(wide, out, qkv, &pages, &batch, dims, 0.2f);
    double *wanted = doubles(out, (size_t)N_TOK * n_q);

    memcpy(qkv, kept, (size_t)N_TOK * width * sizeof *qkv);
    memset(narrow.k, 0xff, N_PAGE * page); /* NaN */
    memset(narrow.v, 0xff, N_PAGE * page);
    half->qkv_store(half, qkv, &how, &narrow, &batch, dims);
    half->attention(half, out, qkv, &narrow, &batch, dims, 0.2f);
    double bound = plain ? tolerance(half, TOLERANCE_SPLIT, 2e-5, (uint64_t)N_TOK * n_q) : 2e-5;
    assert_true(weir_ref_nmse(out, wanted, (size_t)N_TOK * n_q) < bound);
    for (size_t k = 0; k < sizeof steps / sizeof *steps;
         k++) { /* [B2] [A2] [D3] as they would come one after the other */
        memcpy(qkv, kept, (size_t)N_TOK * width * sizeof *qkv);
        memset(narrow.k, 0xff, N_PAGE * page);
        memset(narrow.v, 0xff, N_PAGE * page);
        for (uint32_t t = 0; t < N_TOK; t += steps[k]) {
            struct weir_batch part = batch;
            part.n_tok = N_TOK - t < steps[k] ? N_TOK - t : steps[k];
            part.pos = pos + t;
            half->qkv_store(half, qkv + (size_t)t * width, &how, &narrow, &part, dims);
            half->attention(half, cut + (size_t)t * n_q, qkv + (size_t)t * width, &narrow, &part, dims, 0.2f);
        }
        assert_memory_equal(cut, out, (size_t)N_TOK * n_q * sizeof *out);
    }
    half->copy_page(half, &narrow, dims, 3, 1);
    assert_memory_equal((char *)narrow.k + page, (char *)narrow.k + 3 * page, page);
    half->free(half, narrow.k);
    half->free(half, narrow.v);
    weir_backend_close(half);
    void *const all[] = { cos, sin, qkv, kept, out, cut, pages.k, pages.v };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        wide->free(wide, all[i]);
    weir_free(wanted);
}

static void attention_bf16(struct weir_backend *one, struct weir_backend *two, struct weir_backend *three)
{
    static const struct weir_attn_dims dims[] = {
        { 4, 2, 32, 0 },   { 14, 2, 64, 0 }, { 3, 1, 64, 40 }, { 2, 2, 128, 17 },
        { 20, 1, 32, 70 }, { 4, 4, 20, 33 }, { 1, 1, 6, 0 },
    };

    (void)one;
    (void)three;
    for (size_t i = 0; i < 2 * sizeof dims / sizeof *dims; i++)
        check_bf16(two, &dims[i / 2], (uint32_t)i % 3 + 1, i % 2);
}

/* ---- experts ---- */
static void route_close(struct weir_backend *one, struct weir_backend *two, struct weir_backend *three)
{
    enum { N_TOK = 20, N_EXPERT = 40, N_USED = 6 };
    float *logits = floats(one, N_TOK * N_EXPERT, true), weight[N_TOK * N_USED];
    int32_t expert[N_TOK * N_USED];

    (void)two;
    (void)three;
    for (int t = 0; t < N_TOK; t++)
        logits[t * N_EXPERT + 30] = logits[t * N_EXPERT + 7] =
            2; /* a tie at the top: the lower index is first */
    for (int renormalize = 0; renormalize < 2; renormalize++) {
        one->route(one, expert, weight, logits, N_TOK, N_EXPERT, N_USED, renormalize);
        for (size_t t = 0; t < N_TOK; t++) {
            double *row = doubles(logits + t * N_EXPERT, N_EXPERT), wanted[N_USED];
            uint32_t best[N_USED];
            weir_ref_route(best, wanted, row, N_EXPERT, N_USED, renormalize);
            assert_int_equal(expert[t * N_USED], 7);
            assert_int_equal(expert[t * N_USED + 1], 30);
            for (size_t k = 0; k < N_USED; k++)
                assert_int_equal(expert[t * N_USED + k], best[k]);
            CLOSE_ENOUGH(weight + t * N_USED, wanted, N_USED);
            weir_free(row);
        }
    }
    one->free(one, logits);
}

static void experts_close(struct weir_backend *one, struct weir_backend *two, struct weir_backend *three)
{
    enum { N_TOK = 23, N_EXPERT = 5, N_USED = 3, D = 40, FFN = 24 };
    const struct matrix_case up = { D, { FFN, FFN }, 2, { WEIR_BF16, WEIR_BF16 } },
                             back = { FFN, { D }, 1, { WEIR_BF16 } };
    const struct weir_matrix *gate_up[N_EXPERT], *down[N_EXPERT];
    double *wg[N_EXPERT], *wd[N_EXPERT], wanted[N_TOK * D] = { 0 }, part[D];
    const struct weir_experts e = { gate_up, down, N_EXPERT, N_USED, D, FFN };
    float *x = floats(two, N_TOK * D, true), *out = floats(two, N_TOK * D, false),
          *alone = floats(two, D, false);
    int32_t expert[N_TOK * N_USED];
    float weight[N_TOK * N_USED];
    uint32_t n_out = 0;

    (void)three;
    for (uint32_t i = 0; i < N_EXPERT; i++) {
        gate_up[i] = make_matrix(two, &up, &wg[i], &n_out);
        down[i] = make_matrix(two, &back, &wd[i], &n_out);
    }
    double *xd = doubles(x, N_TOK * D);
    for (uint32_t i = 0; i < N_TOK * N_USED; i++) {
        expert[i] = (int32_t)((i / N_USED + i % N_USED * 2) % (N_EXPERT - 1)); /* nobody asks the last one */
        weight[i] = random_float();
        weir_ref_expert(part, xd + i / N_USED * D, wg[expert[i]], wd[expert[i]], D, FFN);
        for (uint32_t k = 0; k < D; k++)
            wanted[i / N_USED * D + k] += weight[i] * part[k];
    }
    two->experts(two, out, x, &e, expert, weight, N_TOK);
    assert_true(weir_ref_nmse(out, wanted, N_TOK * D) <
                tolerance(two, TOLERANCE_SPLIT, 5 * TOLERANCE_BF16, N_TOK * D));
    check_poison(out, N_TOK * D);
    for (uint32_t t = 0; t < N_TOK; t++) { /* [E1] */
        two->experts(two, alone, x + t * D, &e, expert + t * N_USED, weight + t * N_USED, 1);
        assert_memory_equal(alone, out + t * D, D * sizeof *out);
    }
    for (uint32_t i = 0; i < N_EXPERT; i++) {
        two->unpack(two, (struct weir_matrix *)(uintptr_t)gate_up[i]);
        two->unpack(two, (struct weir_matrix *)(uintptr_t)down[i]);
        weir_free(wg[i]);
        weir_free(wd[i]);
    }
    (void)one;
    two->free(two, x);
    two->free(two, out);
    two->free(two, alone);
    weir_free(xd);
}

static void bias_adds(struct weir_backend *one, struct weir_backend *two, struct weir_backend *three)
{
    float *x = floats(three, 7 * 33, true), *bias = floats(three, 33, true),
          *was = floats(three, 7 * 33, true);

    (void)one;
    (void)two;
    memcpy(was, x, 7 * 33 * sizeof *x);
    three->add_bias(three, x, bias, 7, 33);
    for (int i = 0; i < 7 * 33; i++)
        assert_true(x[i] == was[i] + bias[i % 33]);
    check_poison(x, 7 * 33);
    three->free(three, x);
    three->free(three, bias);
    three->free(three, was);
}

static void pack_without_memory(struct weir_backend *one, struct weir_backend *two,
                                struct weir_backend *three)
{
    struct weir_weights part = { "0123456789abcdef", WEIR_F32, 2, 2 };
    struct weir_matrix *m = NULL;
    weir_err err = WEIR_NOMEM;

    (void)two;
    (void)three;
    for (long n = 0; err != WEIR_OK; n++) {
        weir_test_alloc_budget(n);
        err = one->pack(one, &part, 1, 2, WEIR_NATIVE, &m);
        weir_test_alloc_budget(-1);
        assert_true(err == WEIR_OK ? m != NULL : err == WEIR_NOMEM && m == NULL);
    }
    one->unpack(one, m);
    one->unpack(one, NULL);
}

#define TEST(name)                                                                                           \
    static void test_##name(void **state)                                                                    \
    {                                                                                                        \
        (void)state;                                                                                         \
        on_each_isa(name);                                                                                   \
    }
TEST(linear_close)
TEST(linear_bits)
TEST(embed_exact)
TEST(rmsnorm_close)
TEST(silu_close)
TEST(attention_close)
TEST(attention_extremes)
TEST(copy_page_copies)
TEST(pack_without_memory)
TEST(quantized_close)
TEST(fp8_is_refused)
TEST(head_close)
TEST(attention_bf16)
TEST(route_close)
TEST(experts_close)
TEST(bias_adds)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linear_close),     cmocka_unit_test(test_linear_bits),
        cmocka_unit_test(test_embed_exact),      cmocka_unit_test(test_rmsnorm_close),
        cmocka_unit_test(test_silu_close),       cmocka_unit_test(test_half_numbers_are_exact),
        cmocka_unit_test(test_attention_close),  cmocka_unit_test(test_attention_extremes),
        cmocka_unit_test(test_copy_page_copies), cmocka_unit_test(test_pack_without_memory),
        cmocka_unit_test(test_quantized_close),  cmocka_unit_test(test_fp8_is_refused),
        cmocka_unit_test(test_head_close),       cmocka_unit_test(test_attention_bf16),
        cmocka_unit_test(test_route_close),      cmocka_unit_test(test_experts_close),
        cmocka_unit_test(test_bias_adds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
