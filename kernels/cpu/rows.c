/* rows.c - what is done to each row of activations alone. */
#include "kernels/cpu/cpu_int.h"

struct rows_job {
    const struct cpu_ops *ops;
    float *out, *x;
    const float *other, *weight;
    uint32_t n_tok, n;
    float eps;
};

static void add(float *x, const float *y, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        x[i] += y[i];
}

static void rmsnorm_part(void *arg, uint32_t i, uint32_t n)
{
    const struct rows_job *j = arg;
    uint32_t begin, end;

    pool_share(j->n_tok, i, n, &begin, &end);
    for (uint32_t t = begin; t < end; t++) {
        float *x = j->x + (size_t)t * j->n;
        if (j->other)
            add(x, j->other + (size_t)t * j->n, j->n);
        j->ops->rmsnorm(j->out + (size_t)t * j->n, x, j->weight, j->n, j->eps);
    }
}

void cpu_add_rmsnorm(struct weir_backend *be, void *out, void *x, const void *delta, const float *weight,
                     uint32_t n_tok, uint32_t n, float eps)
{
    struct rows_job job = { .ops = cpu_of(be)->ops,
                            .out = out,
                            .x = x,
                            .other = delta,
                            .weight = weight,
                            .n_tok = n_tok,
                            .n = n,
                            .eps = eps };

    cpu_run(cpu_of(be), rmsnorm_part, &job, (uint64_t)n_tok * n);
}

static void silu_part(void *arg, uint32_t i, uint32_t n)
{
    const struct rows_job *j = arg;
    uint32_t begin, end;

    pool_share(j->n_tok, i, n, &begin, &end);
    for (uint32_t t = begin; t < end; t++) {
        const float *gate = j->other + (size_t)t * 2 * j->n;
        j->ops->silu_mul(j->out + (size_t)t * j->n, gate, gate + j->n, j->n);
    }
}

void cpu_silu_mul(struct weir_backend *be, void *out, const void *gate_up, uint32_t n_tok, uint32_t n)
{
    struct rows_job job = { .ops = cpu_of(be)->ops, .out = out, .other = gate_up, .n_tok = n_tok, .n = n };

    cpu_run(cpu_of(be), silu_part, &job, 4ull * n_tok * n);
}

static void bias_part(void *arg, uint32_t i, uint32_t n)
{
    const struct rows_job *j = arg;
    uint32_t begin, end;

    pool_share(j->n_tok, i, n, &begin, &end);
    for (uint32_t t = begin; t < end; t++)
        add(j->x + (size_t)t * j->n, j->weight, j->n);
}

void cpu_add_bias(struct weir_backend *be, void *x, const float *bias, uint32_t n_tok, uint32_t n)
{
    struct rows_job job = { .x = x, .weight = bias, .n_tok = n_tok, .n = n };

    cpu_run(cpu_of(be), bias_part, &job, (uint64_t)n_tok * n);
}
