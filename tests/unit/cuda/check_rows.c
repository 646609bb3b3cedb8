/* check_rows.c - embedding, norms, gated products against float64. */
#include <math.h>
#include <string.h>

#include "tests/unit/cuda/rig.h"

static const uint32_t widths[] = { 2, 7, 64, 250, 256, 1000, 2304 };
#define N_WIDTHS (sizeof widths / sizeof *widths)

struct args {
    uint16_t *out, *x, *delta;
    const float *weight;
    const int32_t *rows;
    struct cuda_weights w;
    struct cuda_batch batch;
    uint32_t n_tok, n;
};

/* ---- embedding ---- */
static void launch_embed(struct rig *r, void *arg)
{
    struct args *a = arg;
    cuda_embed(r->s, a->out, &a->w, &a->batch);
}

static void check_embed(struct rig *r)
{
    for (size_t i = 0; i < N_WIDTHS; i++) {
        const int32_t ids[] = { 4, 0, 10, 4, 7 };
        uint32_t n = widths[i], stride = (n + CUDA_K_UNIT - 1) / CUDA_K_UNIT * CUDA_K_UNIT;
        double *table, *want = rig_host(r, 5 * n * sizeof *want);
        struct args a = { .n = n };
        a.w = (struct cuda_weights){ .n_out = 11, .n_in = n, .stride = stride, .kind = CUDA_BF16 };
        a.w.data = rig_bf16(r, &table, 11 * (size_t)stride, 1);
        a.out = rig_device(r, 5 * n * sizeof *a.out);
        a.batch = (struct cuda_batch){ .ids = rig_ints(r, ids, 5), .n_tok = 5 };
        for (uint32_t t = 0; t < 5; t++)
            memcpy(want + t * n, table + (size_t)ids[t] * stride, n * sizeof *want);
        uint16_t *got = rig_run(r, launch_embed, &a, a.out, 5 * n * sizeof *got, NULL, 0);
        rig_near_bf16(r, "embedding", got, want, 5 * n, 0);
    }
}

/* ---- norms ---- */
static void launch_norm(struct rig *r, void *arg)
{
    struct args *a = arg;
    cuda_add_rmsnorm(r->s, a->out, a->x, a->delta, a->weight, a->n_tok, a->n, 1e-5f);
}

static void launch_gather(struct rig *r, void *arg)
{
    struct args *a = arg;
    cuda_gather_rmsnorm(r->s, a->out, a->x, a->rows, a->n_tok, a->weight, a->n, 1e-5f);
}

static void norm_of(double *out, const double *x, const double *weight, uint32_t n)
{
    double sum = 0;

    for (uint32_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    for (uint32_t i = 0; i < n; i++)
        out[i] = x[i] / sqrt(sum / n + 1e-5) * weight[i];
}

static void check_add_rmsnorm(struct rig *r)
{
    for (size_t i = 0; i < N_WIDTHS; i++) {
        uint32_t n = widths[i], n_tok = 3;
        size_t bytes = (size_t)n_tok * n * 2;
        double *x, *delta, *weight, *want = rig_host(r, 4 * bytes), *sums = rig_host(r, 4 * bytes);
        struct args a = { .n = n, .n_tok = n_tok };
        a.x = rig_bf16(r, &x, (size_t)n_tok * n, 2);
        a.delta = rig_bf16(r, &delta, (size_t)n_tok * n, 1);
        a.weight = rig_f32(r, &weight, n, 1, 0.3);
        a.out = rig_device(r, bytes);
        for (size_t k = 0; k < (size_t)n_tok * n; k++)
            sums[k] = rig_of_bf16(
                rig_to_bf16(x[k] + delta[k])); /* x is kept rounded; the norm is of what is kept */
        for (uint32_t t = 0; t < n_tok; t++)
            norm_of(want + (size_t)t * n, sums + (size_t)t * n, weight, n);
        uint16_t *got = rig_run(r, launch_norm, &a, a.out, bytes, a.x, bytes);
        rig_near_bf16(r, "norm of the sum", got, want, (size_t)n_tok * n, 1e-5);
        got = rig_run(r, launch_norm, &a, a.x, bytes, a.x, bytes);
        rig_near_bf16(r, "the sum", got, sums, (size_t)n_tok * n, 1e-9);
        a.delta = NULL;
        a.x = rig_bf16(r, &x, (size_t)n_tok * n, 2);
        for (uint32_t t = 0; t < n_tok; t++)
            norm_of(want + (size_t)t * n, x + (size_t)t * n, weight, n);
        got = rig_run(r, launch_norm, &a, a.out, bytes, a.x, bytes);
        rig_near_bf16(r, "norm alone", got, want, (size_t)n_tok * n, 1e-5);
        const int32_t rows[] = { 2, 0 };
        for (uint32_t t = 0; t < 2; t++)
            norm_of(want + (size_t)t * n, x + (size_t)rows[t] * n, weight, n);
        a.rows = rig_ints(r, rows, 2);
        a.n_tok = 2;
        got = rig_run(r, launch_gather, &a, a.out, (size_t)2 * n * 2, NULL, 0);
        rig_near_bf16(r, "norm of chosen rows", got, want, (size_t)2 * n, 1e-5);
    }
}

/* ---- gated products ---- */
static void launch_silu(struct rig *r, void *arg)
{
    struct args *a = arg;
    cuda_silu_mul(r->s, a->out, a->x, a->n_tok, a->n);
}

static void check_silu(struct rig *r)
{
    for (size_t i = 0; i < N_WIDTHS; i++) {
        uint32_t n = widths[i];
        double *x, *want = rig_host(r, 3 * n * sizeof *want);
        struct args a = { .n = n, .n_tok = 3 };
        a.x = rig_bf16(r, &x, (size_t)3 * 2 * n, 4);
        a.out = rig_device(r, 3 * n * sizeof *a.out);
        for (uint32_t k = 0; k < 3 * n; k++) {
            const double *gate = x + (size_t)(k / n) * 2 * n + k % n;
            want[k] = gate[0] / (1 + exp(-gate[0])) * gate[n];
        }
        uint16_t *got = rig_run(r, launch_silu, &a, a.out, 3 * n * sizeof *got, NULL, 0);
        rig_near_bf16(r, "gated product", got, want, 3 * n, 1e-5);
    }
}

const struct rig_check checks_rows[] = {
    { "embed", check_embed }, { "add_rmsnorm", check_add_rmsnorm }, { "silu_mul", check_silu }, { NULL, NULL }
};
