/* product.c - table rows and products, spread over the pool by panels. */
#include "kernels/cpu/cpu_int.h"

struct product_job {
    struct cpu *cpu;
    float *out;
    const float *x;
    const struct weir_matrix *m;
    const int32_t *ids; /* of tokens, or of rows */
    const float *norm;
    float eps;
    uint32_t n_tok;
};

static void embed_part(void *arg, uint32_t i, uint32_t n)
{
    const struct product_job *j = arg;
    uint32_t begin, end;

    pool_share(j->n_tok, i, n, &begin, &end);
    for (uint32_t t = begin; t < end; t++)
        matrix_row(j->m, (uint32_t)j->ids[t], j->out + (size_t)t * j->m->n_in);
}

void cpu_embed(struct weir_backend *be, void *out, const struct weir_matrix *m,
               const struct weir_batch *batch)
{
    struct product_job job = { .out = out, .m = m, .ids = batch->ids, .n_tok = batch->n_tok };

    cpu_run(cpu_of(be), embed_part, &job, (uint64_t)batch->n_tok * m->n_in);
}

static void linear_part(void *arg, uint32_t i, uint32_t n)
{
    const struct product_job *j = arg;
    uint32_t begin, end;

    pool_share(j->m->n_panel, i, n, &begin, &end);
    char *own = j->cpu->own.data; /* a share of it for each worker */
    j->cpu->ops->linear(j->out, j->x, j->m, j->n_tok, begin, end, j->cpu->prepared.data,
                        own ? own + i * j->cpu->own_bytes : NULL);
}

static void prepare_part(void *arg, uint32_t i, uint32_t n)
{
    const struct product_job *j = arg;
    uint32_t begin, end;

    pool_share((j->n_tok + PREPARE_UNIT - 1) / PREPARE_UNIT, i, n, &begin, &end);
    j->cpu->ops->prepare(j->x, j->m, j->n_tok, begin * PREPARE_UNIT, end * PREPARE_UNIT,
                         j->cpu->prepared.data);
}

void cpu_linear(struct weir_backend *be, void *out, const void *x, const struct weir_matrix *m,
                uint32_t n_tok)
{
    struct cpu *cpu = cpu_of(be);
    bool prepares = cpu->ops->prepare && cpu->ops->prepared_bytes(m) > 0;
    uint32_t block = prepares ? prepare_tokens(m) : n_tok;

    for (uint32_t t = 0; t < n_tok; t += block) {
        struct product_job job = { .cpu = cpu,
                                   .out = (float *)out + (size_t)t * m->n_out,
                                   .x = (const float *)x + (size_t)t * m->n_in,
                                   .m = m,
                                   .n_tok = n_tok - t < block ? n_tok - t : block };
        if (prepares)
            cpu_run(cpu, prepare_part, &job, (uint64_t)job.n_tok * m->n_in);
        cpu_run(cpu, linear_part, &job, (uint64_t)job.n_tok * m->n_in * m->n_out);
    }
}

static void head_norm_part(void *arg, uint32_t i, uint32_t n)
{
    const struct product_job *j = arg;
    uint32_t begin, end, n_in = j->m->n_in;

    pool_share(j->n_tok, i, n, &begin, &end);
    for (uint32_t t = begin; t < end; t++)
        j->cpu->ops->rmsnorm(j->out + (size_t)t * n_in, j->x + (size_t)j->ids[t] * n_in, j->norm, n_in,
                             j->eps);
}

void cpu_head(struct weir_backend *be, float *out, const void *x, const int32_t *rows, uint32_t n,
              const float *norm, float eps, const struct weir_matrix *m)
{
    struct cpu *cpu = cpu_of(be);
    float *normed = cpu->rows.data; /* cpu_pack made room */

    for (uint32_t i = 0; i < n; i += HEAD_ROWS) {
        struct product_job job = { .cpu = cpu,
                                   .out = normed,
                                   .x = x,
                                   .m = m,
                                   .ids = rows + i,
                                   .norm = norm,
                                   .eps = eps,
                                   .n_tok = n - i < HEAD_ROWS ? n - i : HEAD_ROWS };
        cpu_run(cpu, head_norm_part, &job, (uint64_t)job.n_tok * m->n_in);
        cpu_linear(be, out + (size_t)i * m->n_out, normed, m, job.n_tok);
    }
}
