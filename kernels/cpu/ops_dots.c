/* ops_dots.c - cpu_ops for machines with AVX-512 BF16 and VNNI: products and attention by dots (dots.h), all else
 * cpu_ops_avx512's. */
#include "kernels/cpu/dots.h"

static size_t prepared_bytes(const struct weir_matrix *m)
{
    if (m->quant != WEIR_NATIVE)
        return dots_bytes_prepared_bytes(m);
    return m->dtype == WEIR_BF16 ? dots_bf16_prepared_bytes(m) : 0;
}

static size_t own_bytes(const struct weir_matrix *m)
{
    return m->quant == WEIR_NATIVE ? 0 : dots_bytes_own_bytes(m);
}

static void prepare(const float *x, const struct weir_matrix *m, uint32_t n_tok, uint32_t begin, uint32_t end,
                    void *to)
{
    if (m->quant != WEIR_NATIVE)
        dots_bytes_prepare(x, m, n_tok, begin, end, to);
    else
        dots_bf16_prepare(x, m, n_tok, begin, end, to);
}

static void linear(float *out, const float *x, const struct weir_matrix *m, uint32_t n_tok, uint32_t begin,
                   uint32_t end, const void *prepared, void *own)
{
    if (m->quant != WEIR_NATIVE)
        dots_bytes_linear(out, m, n_tok, begin, end, prepared, own);
    else if (m->dtype == WEIR_BF16)
        dots_bf16_linear(out, m, n_tok, begin, end, prepared);
    else
        cpu_ops_avx512.linear(out, x, m, n_tok, begin, end, prepared, own);
}

static void rmsnorm(float *out, const float *x, const float *weight, uint32_t n, float eps)
{
    cpu_ops_avx512.rmsnorm(out, x, weight, n, eps);
}

static void attend(const struct attend_job *job)
{
    uint32_t d = job->dims->d_head;

    if (job->kv == WEIR_BF16 && d % 16 == 0 && d <= ATTEND_DOTS_D_MAX)
        attend_dots(job);
    else
        cpu_ops_avx512.attend(job);
}

static void silu_mul(float *out, const float *gate, const float *up, uint32_t n)
{
    cpu_ops_avx512.silu_mul(out, gate, up, n);
}

const struct cpu_ops cpu_ops_dots = { .name = "cpu avx512bf16",
                                      .linear = linear,
                                      .prepared_bytes = prepared_bytes,
                                      .prepare = prepare,
                                      .own_bytes = own_bytes,
                                      .rmsnorm = rmsnorm,
                                      .attend = attend,
                                      .silu_mul = silu_mul };
