/* check_sample.c - sampling on the device against its definition, by sorting in float64. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "tests/unit/cuda/rig.h"

struct args {
    struct cuda_sample_in in;
    int32_t *ids;
    float *logprob;
};

struct item {
    double logit;
    int32_t id;
};

static void launch(struct rig *r, void *arg)
{
    struct args *a = arg;
    cuda_sample_run(r->s, a->ids, a->logprob, &a->in);
}

static int by_logit(const void *a, const void *b)
{
    const struct item *x = a, *y = b;

    if (x->logit != y->logit)
        return x->logit > y->logit ? -1 : 1;
    return x->id - y->id;
}

static double weight(const struct item *items, uint32_t i, const struct cuda_sample *how)
{
    return exp((items[i].logit - items[0].logit) / how->temperature);
}

static double uniform(const struct cuda_sample *how)
{
    uint64_t bits =
        weir_hash_mix(weir_hash_mix(weir_hash_mix(0x77656972, how->seed), how->choice), how->position);
    return (double)(bits >> 11) * 0x1p-53;
}

/* The token, and how near the draw came to another one: then either will do. */
static int32_t want_token(struct rig *r, const float *logits, uint32_t n, const struct cuda_sample *how,
                          double *margin)
{
    struct item *items = rig_host(r, n * sizeof *items), *by_id = rig_host(r, n * sizeof *items);
    uint32_t kept = n;
    double total = 0, mass = 0;

    *margin = 1;
    for (uint32_t i = 0; i < n; i++)
        items[i] = (struct item){ (double)logits[i], (int32_t)i };
    qsort(items, n, sizeof *items, by_logit);
    if (how->temperature <= 0 || how->top_k == 1)
        return items[0].id;
    if (how->top_k > 0 && (uint32_t)how->top_k < n)
        kept = (uint32_t)how->top_k;
    for (uint32_t i = 0; i < kept; i++)
        total += weight(items, i, how);
    if (how->top_p < 1)
        for (uint32_t i = 0; i < kept; i++) {
            mass += weight(items, i, how);
            if (mass >= how->top_p * total) {
                *margin =
                    fmin(*margin, fmin(mass - how->top_p * total, weight(items, i, how)) / total + 1e-7);
                kept = i + 1;
            }
        }
    while (how->min_p > 0 && kept > 1 && weight(items, kept - 1, how) < how->min_p)
        kept--;
    bool sorted = (how->top_k > 0 && (uint32_t)how->top_k < n) || how->top_p < 1;
    struct item best = items[0];
    for (uint32_t i = 0; !sorted && i < n; i++)
        by_id[i] = (struct item){ -INFINITY, (int32_t)i };
    for (uint32_t i = 0; !sorted && i < kept; i++)
        by_id[items[i].id] = items[i];
    const struct item *order = sorted ? items : by_id;
    uint32_t n_order = sorted ? kept : n;
    total = 0;
    for (uint32_t i = 0; i < n_order; i++)
        total += exp((order[i].logit - best.logit) / how->temperature);
    double left = uniform(how) * total;
    for (uint32_t i = 0; i < n_order; i++) {
        double w = exp((order[i].logit - best.logit) / how->temperature);
        if (left < w) {
            *margin = fmin(*margin, fmin(left, w - left) / total);
            return order[i].id;
        }
        left -= w;
    }
    *margin = 0;
    return best.id;
}

static double log_softmax(const float *logits, uint32_t n, int32_t id)
{
    double max = -INFINITY, sum = 0;

    for (uint32_t i = 0; i < n; i++)
        max = fmax(max, (double)logits[i]);
    for (uint32_t i = 0; i < n; i++)
        sum += exp((double)logits[i] - max);
    return (double)logits[id] - max - log(sum);
}

static struct cuda_sample random_rules(struct rig *r, uint32_t i)
{
    static const double temperatures[] = { 1, 0.7, 0, 2.5, 1e-300, 0.01 },
                        top_ps[] = { 1, 0.9, 0.5, 1e-9, 0.999 };
    static const int32_t top_ks[] = { 0, -1, 1, 2, 40, 100000 };
    struct cuda_sample how = { .temperature = temperatures[rig_between(r, 0, 5)],
                               .top_p = top_ps[rig_between(r, 0, 4)],
                               .min_p = i % 3 ? 0 : 0.05,
                               .top_k = top_ks[rig_between(r, 0, 5)],
                               .seed = rig_random(r),
                               .choice = i % 4,
                               .position = i,
                               .repetition = 1,
                               .i_mask = -1 };
    return how;
}

/* Every mixture of rules, on flat and on peaked logits, with many ties. */
static void check_rules(struct rig *r)
{
    enum { ROWS = 60 };
    static const uint32_t sizes[] = { 1, 5, 512, 1300 };

    for (int s = 0; s < 4; s++) {
        uint32_t n = sizes[s];
        struct cuda_sample how[ROWS];
        float *logits = rig_host(r, (size_t)ROWS * n * sizeof *logits);
        for (uint32_t i = 0; i < ROWS; i++) {
            double size = i % 2 ? 6 : 0.5;
            how[i] = random_rules(r, i);
            for (uint32_t k = 0; k < n; k++)
                logits[i * n + k] = (float)(floor(rig_normal(r) * size * 8) / 8);
        }
        struct args a = { .ids = rig_device(r, ROWS * 4), .logprob = rig_device(r, ROWS * 4) };
        float *on_device = rig_upload(r, logits, (size_t)ROWS * n * 4);
        a.in = (struct cuda_sample_in){
            .logits = on_device, .rows = rig_upload(r, how, sizeof how), .n = ROWS, .n_vocab = n
        };
        int32_t *got = rig_run(r, launch, &a, a.ids, ROWS * 4, on_device, (size_t)ROWS * n * 4);
        float *logprob = rig_run(r, launch, &a, a.logprob, ROWS * 4, on_device, (size_t)ROWS * n * 4);
        double want_logprob[ROWS];
        for (uint32_t i = 0; i < ROWS; i++) {
            double margin;
            int32_t want = want_token(r, logits + i * n, n, &how[i], &margin);
            rig_true(r, "the token drawn", got[i] == want || margin < 1e-9);
            want_logprob[i] = log_softmax(logits + i * n, n, got[i] < 0 ? 0 : got[i]);
        }
        rig_near_f32(r, "its log-probability", logprob, want_logprob, ROWS, 1e-9);
    }
}

/* Penalties, bias and mask, by what they must bring about. */
static void check_adjusted(struct rig *r)
{
    enum { N = 70, ROWS = 4 };
    const int32_t seen[] = { 3, 9 }, counts[] = { 2, 1 }, bias_ids[] = { 64 };
    const float bias[] = { 5 };
    float logits[ROWS * N] = { 0 };
    uint32_t masks[3] = { 1u << 17, 0, 1u << 2 };
    struct cuda_sample how[ROWS];

    for (uint32_t i = 0; i < ROWS; i++) {
        how[i] = (struct cuda_sample){ .top_p = 1, .repetition = 1, .i_mask = -1 };
        logits[i * N + 3] = 4;
        logits[i * N + 9] = 3.5f;
        logits[i * N + 17] = 2.5f;
    }
    how[0].n_seen = 2; /* 4 - 2 * 0.3 - 0.5 = 2.9; 3.5 - 0.3 - 0.5 = 2.7 */
    how[0].frequency = 0.3f;
    how[0].presence = 0.5f;
    how[1].n_seen = 2; /* 2; 1.75 */
    how[1].repetition = 2;
    how[2].n_bias = 1;
    how[3].i_mask = 0;
    struct args a = { .ids = rig_device(r, ROWS * 4) };
    float *on_device = rig_upload(r, logits, sizeof logits);
    a.in = (struct cuda_sample_in){ .logits = on_device,
                                    .rows = rig_upload(r, how, sizeof how),
                                    .seen_ids = rig_ints(r, seen, 2),
                                    .seen_counts = rig_ints(r, counts, 2),
                                    .bias_ids = rig_ints(r, bias_ids, 1),
                                    .bias = rig_upload(r, bias, sizeof bias),
                                    .masks = rig_upload(r, masks, sizeof masks),
                                    .n = ROWS,
                                    .n_vocab = N };
    int32_t *got = rig_run(r, launch, &a, a.ids, ROWS * 4, on_device, sizeof logits);
    const int32_t want[] = { 3, 17, 64, 17 };
    rig_same(r, "penalties, bias, mask", got, want, sizeof want);
    float *after = rig_run(r, launch, &a, on_device, sizeof logits, on_device, sizeof logits);
    double want_after[] = { 2.9, 2.7, 2.0, 1.75 };
    float values[] = { after[3], after[9], after[N + 3], after[N + 9] };
    rig_near_f32(r, "penalised logits", values, want_after, 4, 1e-12);
}

static void check_no_answer(struct rig *r)
{
    enum { N = 600 };
    float logits[3 * N];
    struct cuda_sample how[3];

    for (int i = 0; i < 3 * N; i++)
        logits[i] = i < N ? 1.0f : -INFINITY;
    logits[577] = NAN;
    logits[2 * N + 300] = INFINITY;
    for (int i = 0; i < 3; i++)
        how[i] = (struct cuda_sample){ .temperature = 1, .top_p = 0.9, .repetition = 1, .i_mask = -1 };
    struct args a = { .ids = rig_device(r, 12) };
    float *on_device = rig_upload(r, logits, sizeof logits);
    a.in = (struct cuda_sample_in){
        .logits = on_device, .rows = rig_upload(r, how, sizeof how), .n = 3, .n_vocab = N
    };
    int32_t *got = rig_run(r, launch, &a, a.ids, 12, on_device, sizeof logits);
    rig_true(r, "NaN, nothing finite, infinity: no token", got[0] == -1 && got[1] == -1 && got[2] == -1);
}

const struct rig_check checks_sample[] = { { "sample: rules", check_rules },
                                           { "sample: penalties, bias, mask", check_adjusted },
                                           { "sample: no answer", check_no_answer },
                                           { NULL, NULL } };
