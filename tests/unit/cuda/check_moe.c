/* check_moe.c - routing and the experts' products against float64. */
#include <math.h>
#include <string.h>

#include "tests/unit/cuda/rig.h"

struct args {
    int32_t *expert;
    float *weight;
    uint16_t *logits, *x, *out;
    uint32_t n_tok, n_expert, n_used;
    int renormalize;
    struct cuda_experts e;
};

static void launch_route(struct rig *r, void *arg)
{
    struct args *a = arg;
    cuda_route(r->s, a->expert, a->weight, a->logits, a->n_tok, a->n_expert, a->n_used, a->renormalize);
}

static void launch_experts(struct rig *r, void *arg)
{
    struct args *a = arg;
    cuda_experts_run(r->s, a->out, a->x, &a->e, a->expert, a->weight, a->n_tok);
}

static void want_route(const struct args *a, const double *logits, int32_t *expert, double *weight)
{
    double total = 0, taken = 0;
    bool used[WEIR_EXPERTS_MAX] = { false };

    for (uint32_t i = 0; i < a->n_expert; i++)
        total += exp(logits[i]);
    for (uint32_t j = 0; j < a->n_used; j++) {
        uint32_t best = a->n_expert;
        for (uint32_t i = 0; i < a->n_expert; i++)
            if (!used[i] && (best == a->n_expert || logits[i] > logits[best]))
                best = i;
        used[best] = true;
        expert[j] = (int32_t)best;
        weight[j] = exp(logits[best]);
        taken += weight[j];
    }
    for (uint32_t j = 0; j < a->n_used; j++)
        weight[j] /= a->renormalize ? taken : total;
}

static void check_route(struct rig *r)
{
    static const uint32_t sizes[][2] = { { 2, 1 }, { 8, 2 }, { 33, 5 }, { 60, 4 }, { 128, 8 }, { 256, 8 } };

    for (int i = 0; i < 12; i++) {
        struct args a = {
            .n_tok = 7, .n_expert = sizes[i / 2][0], .n_used = sizes[i / 2][1], .renormalize = i % 2
        };
        uint32_t n = a.n_tok * a.n_used;
        double *logits, *weight = rig_host(r, n * sizeof *weight);
        int32_t *expert = rig_host(r, n * sizeof *expert);
        a.logits = rig_bf16(r, &logits, (size_t)a.n_tok * a.n_expert, 1); /* bf16: equal ones are common */
        a.expert = rig_device(r, n * sizeof *a.expert);
        a.weight = rig_device(r, n * sizeof *a.weight);
        for (uint32_t t = 0; t < a.n_tok; t++)
            want_route(&a, logits + (size_t)t * a.n_expert, expert + t * a.n_used, weight + t * a.n_used);
        rig_same(r, "the experts chosen", rig_run(r, launch_route, &a, a.expert, n * 4, NULL, 0), expert,
                 n * 4);
        rig_near_f32(r, "their weights", rig_run(r, launch_route, &a, a.weight, n * 4, NULL, 0), weight, n,
                     1e-10);
    }
}

/* Weights of all experts, and the table of them. */
static struct cuda_weights *all_weights(struct rig *r, double **values, uint32_t n, uint32_t n_out,
                                        uint32_t n_in, enum cuda_kind kind)
{
    struct cuda_weights *table = rig_host(r, n * sizeof *table);

    for (uint32_t i = 0; i < n; i++)
        table[i] = rig_weights(r, &values[i], n_out, n_in, kind);
    return rig_upload(r, table, n * sizeof *table);
}

static double dot(const double *x, const double *w, uint32_t n)
{
    double sum = 0;

    for (uint32_t i = 0; i < n; i++)
        sum += x[i] * w[i];
    return sum;
}

static void check_experts_of(struct rig *r, enum cuda_kind kind)
{
    enum { N_EXPERT = 5, N_USED = 2, D = 40, FFN = 24 };
    static const uint32_t counts[] = { 1, 6, 30 };
    double *gate_up[N_EXPERT], *down[N_EXPERT];
    struct args a = { .n_expert = N_EXPERT, .n_used = N_USED };

    a.e = (struct cuda_experts){
        .n_expert = N_EXPERT, .n_used = N_USED, .d_model = D, .d_ffn = FFN, .kind = kind
    };
    a.e.gate_up = all_weights(r, gate_up, N_EXPERT, 2 * FFN, D, kind);
    a.e.down = all_weights(r, down, N_EXPERT, D, FFN, kind);
    for (int i = 0; i < 3; i++) {
        uint32_t n = counts[i], n_pair = n * N_USED;
        double *x, *w, *want = rig_host(r, (size_t)n * D * sizeof *want);
        int32_t *expert = rig_host(r, n_pair * sizeof *expert);
        a.n_tok = n;
        a.x = rig_bf16(r, &x, (size_t)n * D, 0.2);
        a.weight = rig_f32(r, &w, n_pair, 0.5, 0.2);
        a.e.begin = rig_device(r, (N_EXPERT + 1) * 4);
        a.e.pairs = rig_device(r, n_pair * 4);
        a.e.gate = rig_device(r, (size_t)n_pair * 2 * FFN * 2);
        a.e.act = rig_device(r, (size_t)n_pair * FFN * 2);
        a.e.y = rig_device(r, (size_t)n_pair * D * 4);
        a.out = rig_device(r, (size_t)n * D * 2);
        for (uint32_t p = 0; p < n_pair; p++) { /* expert 3 is nobody's, expert 0 nearly everybody's */
            uint32_t e = p % 2 ? 1 + rig_between(r, 0, 1) : p % 7 ? 0 : 4;
            const double *row = x + (size_t)(p / N_USED) * D;
            double act[FFN];
            expert[p] = (int32_t)e;
            for (uint32_t k = 0; k < FFN; k++) {
                double gate = rig_of_bf16(rig_to_bf16(dot(row, gate_up[e] + k * D, D)));
                double up = rig_of_bf16(rig_to_bf16(dot(row, gate_up[e] + (k + FFN) * D, D)));
                act[k] = rig_of_bf16(rig_to_bf16(gate / (1 + exp(-gate)) * up));
            }
            for (uint32_t k = 0; k < D; k++)
                want[(size_t)(p / N_USED) * D + k] += w[p] * dot(act, down[e] + k * FFN, FFN);
        }
        a.expert = rig_ints(r, expert, n_pair);
        uint16_t *got = rig_run(r, launch_experts, &a, a.out, (size_t)n * D * 2, NULL, 0);
        rig_near_bf16(r, "experts", got, want, (size_t)n * D, 1e-4);
    }
}

static void check_experts(struct rig *r)
{
    for (int kind = CUDA_BF16; kind <= CUDA_Q4; kind++)
        check_experts_of(r, (enum cuda_kind)kind);
}

const struct rig_check checks_moe[] = { { "route", check_route },
                                        { "experts", check_experts },
                                        { NULL, NULL } };
