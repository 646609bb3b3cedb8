/* experts.c - a router's choice, and the experts it names.
 *
 * Tokens go through in blocks. In a block every (token, choice) is a slot; slots are sorted by expert, so that an expert's
 * weights are read once for all its tokens, and each slot keeps its own result.
 *
 *   [E1] A token's results are added in the order of its choices, whatever the order in which they were computed. */
#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu_int.h"

#define SCRATCH_BYTES (32u << 20) /* of a block's activations; one token may need more */

void cpu_route(struct weir_backend *be, int32_t *expert, float *weight, const void *logits, uint32_t n_tok,
               uint32_t n_expert, uint32_t n_used, int renormalize)
{
    (void)be;
    for (uint32_t t = 0; t < n_tok; t++) {
        const float *row = (const float *)logits + (size_t)t * n_expert;
        float *w = weight + (size_t)t * n_used, total = 0, used = 0;
        int32_t *e = expert + (size_t)t * n_used;
        bool taken[WEIR_EXPERTS_MAX] = { false };
        for (uint32_t j = 0; j < n_used; j++) {
            int32_t best = -1;
            for (uint32_t i = 0; i < n_expert; i++)
                if (!taken[i] && (best < 0 || row[i] > row[best]))
                    best = (int32_t)i;
            taken[best] = true;
            e[j] = best;
        }
        for (uint32_t i = 0; i < n_expert; i++)
            total += expf(row[i] - row[e[0]]);
        for (uint32_t j = 0; j < n_used; j++)
            used += w[j] = expf(row[e[j]] - row[e[0]]);
        for (uint32_t j = 0; j < n_used; j++)
            w[j] /= renormalize ? used : total;
    }
}

struct experts_job {
    const struct weir_experts *e;
    const float *x;
    float *out;
    const float *weight;
    const int32_t *expert;
    uint32_t n_tok, n_slots;
    uint32_t first[WEIR_EXPERTS_MAX + 1]; /* where an expert's slots begin */
    uint32_t *token_of,
        *slot_of; /* [n_slots]: of a sorted slot its token; of (token, choice) its sorted slot */
    float *rows, *gate_up, *act, *down; /* [n_slots, ..] */
};

static size_t slot_bytes(const struct weir_experts *e)
{
    return 2 * sizeof(uint32_t) + (2 * (size_t)e->d_model + 3 * (size_t)e->d_ffn) * sizeof(float);
}

static void lay_out(struct experts_job *j, void *memory, uint32_t n_slots)
{
    j->rows = memory;
    j->down = j->rows + (size_t)n_slots * j->e->d_model;
    j->gate_up = j->down + (size_t)n_slots * j->e->d_model;
    j->act = j->gate_up + (size_t)n_slots * 2 * j->e->d_ffn;
    j->token_of = (uint32_t *)(j->act + (size_t)n_slots * j->e->d_ffn);
    j->slot_of = j->token_of + n_slots;
}

static void sort_slots(struct experts_job *j)
{
    uint32_t next[WEIR_EXPERTS_MAX];

    memset(j->first, 0, sizeof j->first);
    for (uint32_t i = 0; i < j->n_slots; i++)
        j->first[j->expert[i] + 1]++;
    for (uint32_t i = 0; i < j->e->n_expert; i++) {
        j->first[i + 1] += j->first[i];
        next[i] = j->first[i];
    }
    for (uint32_t i = 0; i < j->n_slots; i++) {
        j->slot_of[i] = next[j->expert[i]]++;
        j->token_of[j->slot_of[i]] = i / j->e->n_used;
    }
}

static void gather_part(void *arg, uint32_t i, uint32_t n)
{
    const struct experts_job *j = arg;
    uint32_t begin, end, width = j->e->d_model;

    pool_share(j->n_slots, i, n, &begin, &end);
    for (uint32_t s = begin; s < end; s++)
        memcpy(j->rows + (size_t)s * width, j->x + (size_t)j->token_of[s] * width, width * sizeof(float));
}

static void add_up_part(void *arg, uint32_t i, uint32_t n)
{
    const struct experts_job *j = arg;
    uint32_t begin, end, width = j->e->d_model, n_used = j->e->n_used;

    pool_share(j->n_tok, i, n, &begin, &end);
    for (uint32_t t = begin; t < end; t++) {
        float *out = j->out + (size_t)t * width;
        memset(out, 0, width * sizeof *out);
        for (uint32_t k = 0; k < n_used; k++) { /* [E1] */
            const float *down = j->down + (size_t)j->slot_of[t * n_used + k] * width;
            float weight = j->weight[t * n_used + k];
            for (uint32_t c = 0; c < width; c++)
                out[c] += weight * down[c];
        }
    }
}

static void run_block(struct weir_backend *be, struct experts_job *j)
{
    const struct weir_experts *e = j->e;
    struct cpu *cpu = cpu_of(be);

    sort_slots(j);
    cpu_run(cpu, gather_part, j, (uint64_t)j->n_slots * e->d_model);
    for (uint32_t i = 0; i < e->n_expert; i++)
        if (j->first[i + 1] > j->first[i])
            cpu_linear(be, j->gate_up + (size_t)j->first[i] * 2 * e->d_ffn,
                       j->rows + (size_t)j->first[i] * e->d_model, e->gate_up[i],
                       j->first[i + 1] - j->first[i]);
    cpu_silu_mul(be, j->act, j->gate_up, j->n_slots, e->d_ffn);
    for (uint32_t i = 0; i < e->n_expert; i++)
        if (j->first[i + 1] > j->first[i])
            cpu_linear(be, j->down + (size_t)j->first[i] * e->d_model,
                       j->act + (size_t)j->first[i] * e->d_ffn, e->down[i], j->first[i + 1] - j->first[i]);
    cpu_run(cpu, add_up_part, j, (uint64_t)j->n_slots * e->d_model);
}

void cpu_experts(struct weir_backend *be, void *out, const void *x, const struct weir_experts *experts,
                 const int32_t *expert, const float *weight, uint32_t n_tok)
{
    struct cpu *cpu = cpu_of(be);
    size_t one = slot_bytes(experts);
    uint32_t n_block = (uint32_t)(SCRATCH_BYTES / one / experts->n_used);

    n_block = n_block == 0 ? 1 : n_block > n_tok ? n_tok : n_block;
    struct experts_job job = { .e = experts };
    void *memory = scratch_grow(&cpu->experts, (size_t)n_block * experts->n_used * one);
    if (!memory) {
        cpu->failed = true;
        return;
    }
    lay_out(&job, memory, n_block * experts->n_used);
    for (uint32_t t = 0; t < n_tok; t += n_block) {
        job.n_tok = n_tok - t < n_block ? n_tok - t : n_block;
        job.n_slots = job.n_tok * experts->n_used;
        job.x = (const float *)x + (size_t)t * experts->d_model;
        job.out = (float *)out + (size_t)t * experts->d_model;
        job.expert = expert + (size_t)t * experts->n_used;
        job.weight = weight + (size_t)t * experts->n_used;
        run_block(be, &job);
    }
}
