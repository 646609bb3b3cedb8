/* check_gemm.c - streamed products against float64, for every kind of weights; a token's bits alone and in company. */
#include <math.h>
#include <string.h>

#include "tests/unit/cuda/rig.h"

struct args {
    struct cuda_weights w;
    uint16_t *x;
    void *out;
    int out_f32;
    uint32_t n_tok;
};

static void launch(struct rig *r, void *arg)
{
    struct args *a = arg;
    cuda_stream_linear(r->s, a->out, a->out_f32, a->x, &a->w, a->n_tok);
}

static void check_product(struct rig *r, enum cuda_kind kind, uint32_t n_in, uint32_t n_out, uint32_t n_tok,
                          int out_f32)
{
    size_t n = (size_t)n_tok * n_out, bytes = n * (out_f32 ? 4 : 2);
    double *w, *x, *want = rig_host(r, n * sizeof *want);
    struct args a = { .out_f32 = out_f32, .n_tok = n_tok };

    a.w = rig_weights(r, &w, n_out, n_in, kind);
    a.x = rig_bf16(r, &x, (size_t)n_tok * n_in, 1);
    a.out = rig_device(r, bytes);
    for (size_t k = 0; k < n; k++)
        for (uint32_t j = 0; j < n_in; j++)
            want[k] += x[k / n_out * n_in + j] * w[k % n_out * n_in + j];
    void *got = rig_run(r, launch, &a, a.out, bytes, NULL, 0);
    if (out_f32)
        rig_near_f32(r, "product in f32", got, want, n, 1e-9);
    else
        rig_near_bf16(r, "product", got, want, n, 1e-5);
}

static void check_linear(struct rig *r)
{
    static const uint32_t n_ins[] = { 1, 30, 64, 129, 520 }, n_outs[] = { 1, 16, 41 },
                          n_toks[] = { 1, 9, 25, 70 };

    for (int kind = CUDA_BF16; kind <= CUDA_Q4; kind++)
        for (int i = 0; i < 12; i++)
            check_product(r, (enum cuda_kind)kind, n_ins[i % 5], n_outs[i % 3], n_toks[i % 4], i % 2);
}

/* So long that each warp's places for chunks are used several times. */
static void check_long_rows(struct rig *r)
{
    for (int kind = CUDA_BF16; kind <= CUDA_Q4; kind++) {
        check_product(r, (enum cuda_kind)kind, 6216, 17, 3, 1);
        check_product(r, (enum cuda_kind)kind, 6218, 17, 12, 1); /* not aligned */
    }
}

/* [G1] */
static void check_company(struct rig *r)
{
    static const uint32_t with[] = { 1, 2, 8, 17, 40, 70 };

    for (int kind = CUDA_BF16; kind <= CUDA_Q4; kind++) {
        double *w;
        struct args a = { .out_f32 = 1 };
        a.w = rig_weights(r, &w, 20, 300, (enum cuda_kind)kind);
        a.x = rig_bf16(r, NULL, 70 * 300, 1);
        a.out = rig_device(r, 70 * 20 * 4);
        a.n_tok = 70;
        float *all = rig_run(r, launch, &a, a.out, 70 * 20 * 4, NULL, 0);
        for (size_t i = 0; i < sizeof with / sizeof *with; i++) {
            a.n_tok = with[i];
            rig_same(r, "a token in other company", all,
                     rig_run(r, launch, &a, a.out, (size_t)with[i] * 20 * 4, NULL, 0),
                     (size_t)with[i] * 20 * 4);
        }
    }
}

const struct rig_check checks_gemm[] = { { "linear: kinds and shapes", check_linear },
                                         { "linear: long rows", check_long_rows },
                                         { "linear: a token in company", check_company },
                                         { NULL, NULL } };
