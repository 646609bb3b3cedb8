/* check_fp8.c - activations as e4m3 and the products of them, against float64. */
#include <math.h>
#include <string.h>

#include "tests/unit/cuda/rig.h"

struct args {
    uint8_t *bytes;
    float *scale, *columns;
    uint16_t *x;
    void *out;
    int out_f32;
    uint32_t n_tok, n_in, stride;
    struct cuda_weights w;
};

static void launch_quantize(struct rig *r, void *arg)
{
    struct args *a = arg;
    cuda_quantize_rows(r->s, a->bytes, a->scale, a->x, a->n_tok, a->n_in, a->stride);
}

static void launch_scale(struct rig *r, void *arg)
{
    struct args *a = arg;
    cuda_scale_both(r->s, a->out, a->out_f32, a->scale, a->columns, a->n_tok, a->n_in);
}

static void launch_product(struct rig *r, void *arg)
{
    struct args *a = arg;
    rig_true(r, "the product is there",
             dev_dense_fp8(r->d, a->out, a->out_f32, a->bytes, a->scale, &a->w, a->n_tok));
}

/* Every byte is the e4m3 nearest to x / scale, but for what f32 may round the quotient by. */
static bool nearest(const uint8_t *bytes, const double *x, double scale, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        double want = scale > 0 ? x[i] / scale : 0, size = fabs(want);
        int exponent = 0;
        frexp(size < 0x1p-6 ? 0x1p-6 : size, &exponent);
        double step = ldexp(1, exponent - 4); /* between neighbours */
        if ((bytes[i] & 0x7f) == 0x7f || fabs(rig_of_fp8(bytes[i]) - want) > step / 2 + size * 1e-6)
            return false;
    }
    return true;
}

static void check_quantize(struct rig *r)
{
    static const uint32_t n_ins[] = { 1, 30, 64, 520, 4096 };

    for (int i = 0; i < 5; i++) {
        struct args a = { .n_tok = 5, .n_in = n_ins[i], .stride = (n_ins[i] + 63) / 64 * 64 };
        uint32_t n = a.n_in;
        double *x;
        a.x = rig_bf16(r, &x, (size_t)a.n_tok * n, i % 2 ? 1e-3 : 20);
        memset(x + 2 * n, 0, n * sizeof *x); /* a row of zeros; and one of very different sizes */
        for (uint32_t k = 0; k < n; k++)
            x[3 * n + k] *= k % 3 ? 1 : 1e-4;
        uint16_t *bits = rig_host(r, (size_t)a.n_tok * n * 2);
        for (uint32_t k = 0; k < a.n_tok * n; k++) {
            bits[k] = rig_to_bf16(x[k]);
            x[k] = rig_of_bf16(bits[k]);
        }
        a.x = rig_upload(r, bits, (size_t)a.n_tok * n * 2);
        a.bytes = rig_device(r, (size_t)a.n_tok * a.stride);
        a.scale = rig_device(r, a.n_tok * 4);
        float *scale = rig_run(r, launch_quantize, &a, a.scale, a.n_tok * 4, NULL, 0);
        uint8_t *bytes = rig_run(r, launch_quantize, &a, a.bytes, (size_t)a.n_tok * a.stride, NULL, 0);
        for (uint32_t t = 0; t < a.n_tok; t++) {
            double top = 0;
            bool zeros = true;
            for (uint32_t k = 0; k < n; k++)
                top = fmax(top, fabs(x[t * n + k]));
            for (uint32_t k = n; k < a.stride; k++)
                zeros = zeros && bytes[t * a.stride + k] == 0;
            rig_true(r, "the scale", fabs((double)scale[t] * 448 - top) <= top * 1e-6);
            rig_true(r, "zeros behind a row", zeros);
            rig_true(r, "the nearest", nearest(bytes + t * a.stride, x + t * n, (double)scale[t], n));
        }
        /* [F1] */
        struct args alone = a;
        alone.n_tok = 1;
        alone.x = a.x + (size_t)4 * n;
        if (n % 8 == 0)
            rig_same(r, "a row alone", bytes + (size_t)4 * a.stride,
                     rig_run(r, launch_quantize, &alone, a.bytes, a.stride, NULL, 0), a.stride);
    }
}

static void check_scale(struct rig *r)
{
    for (int f32 = 0; f32 < 2; f32++) {
        struct args a = { .n_tok = 3, .n_in = 300, .out_f32 = f32 };
        double *x, *rows, *columns;
        a.out = f32 ? (void *)rig_f32(r, &x, 900, 0, 1e4) : (void *)rig_bf16(r, &x, 900, 1e4);
        a.scale = rig_f32(r, &rows, 3, 1e-3, 1e-4);
        a.columns = rig_f32(r, &columns, 300, 1e-3, 1e-4);
        for (int i = 0; i < 900; i++)
            x[i] *= rows[i / 300] * columns[i % 300];
        size_t bytes = 900 * (f32 ? 4 : 2);
        void *got = rig_run(r, launch_scale, &a, a.out, bytes, a.out, bytes);
        if (f32)
            rig_near_f32(r, "scaled", got, x, 900, 1e-12);
        else
            rig_near_bf16(r, "scaled", got, x, 900, 1e-5);
    }
}

/* On a device: cuBLASLt's. Skipped where it has none. */
static void check_product(struct rig *r)
{
    static const uint32_t n_toks[] = { 17, 64, 130 };

    for (int i = 0; i < 6; i++) {
        uint32_t n_out = 48, stride = 192, n_in = 180, n_tok = n_toks[i % 3];
        struct args a = { .n_tok = n_tok, .n_in = n_in, .stride = stride, .out_f32 = i % 2 };
        double *wanted = rig_host(r, (size_t)n_tok * n_out * sizeof *wanted), *scale, *x_scale;
        uint8_t *w = rig_host(r, (size_t)n_out * stride), *x = rig_host(r, (size_t)n_tok * stride);
        a.w = (struct cuda_weights){ .n_out = n_out, .n_in = n_in, .stride = stride, .kind = CUDA_FP8 };
        if (!dev_fp8_fits(r->d, &a.w, a.out_f32, n_tok))
            continue;
        for (uint32_t k = 0; k < n_out * stride; k++)
            w[k] = k % stride < n_in ? (uint8_t)(rig_random(r) % 0x7f | (rig_random(r) & 0x80)) : 0;
        for (uint32_t k = 0; k < n_tok * stride; k++)
            x[k] = k % stride < n_in ? (uint8_t)(rig_random(r) % 0x7f | (rig_random(r) & 0x80)) : 0;
        a.w.data = rig_upload(r, w, (size_t)n_out * stride);
        a.w.scale = rig_f32(r, &scale, n_out, 0.01, 0.002);
        a.scale = rig_f32(r, &x_scale, n_tok, 0.01, 0.002);
        a.bytes = rig_upload(r, x, (size_t)n_tok * stride);
        for (uint32_t t = 0; t < n_tok; t++)
            for (uint32_t o = 0; o < n_out; o++) {
                double sum = 0;
                for (uint32_t k = 0; k < stride; k++)
                    sum += rig_of_fp8(x[t * stride + k]) * rig_of_fp8(w[o * stride + k]);
                wanted[t * n_out + o] = sum * x_scale[t] * scale[o];
            }
        size_t bytes = (size_t)n_tok * n_out * (a.out_f32 ? 4 : 2);
        a.out = rig_device(r, bytes);
        void *got = rig_run(r, launch_product, &a, a.out, bytes, NULL, 0);
        if (a.out_f32)
            rig_near_f32(r, "FP8 product in f32", got, wanted, (size_t)n_tok * n_out, 1e-6);
        else
            rig_near_bf16(r, "FP8 product", got, wanted, (size_t)n_tok * n_out, 2e-5);
    }
}

const struct rig_check checks_fp8[] = { { "fp8: rows as e4m3", check_quantize },
                                        { "fp8: scales applied behind", check_scale },
                                        { "fp8: products", check_product },
                                        { NULL, NULL } };
