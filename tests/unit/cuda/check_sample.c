/* check_sample.c - sampling on the device against its definition, by sorting in float64. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "tests/unit/cuda/rig.h"

struct args {
    struct cuda_sample_in in;
    struct weir_drawn *out;
};

struct item {
    double logit;
    int32_t id;
};

static void launch(struct rig *r, void *arg)
{
    struct args *a = arg;
    cuda_sample_run(r->s, a->out, &a->in);
}

static int by_logit(const void *a, const void *b)
{
    const struct item *x = a, *y = b;

    if (x->logit != y->logit)
        return x->logit > y->logit ? -1 : 1;
    return x->id - y->id;
}

static double weight(const struct item *items, uint32_t i, const struct weir_draw *how)
{
    return exp((items[i].logit - items[0].logit) / how->temperature);
}

static double uniform(const struct weir_draw *how)
{
    uint64_t bits =
        weir_hash_mix(weir_hash_mix(weir_hash_mix(0x77656972, how->seed), how->choice), how->position);
    return (double)(bits >> 11) * 0x1p-53;
}

/* The token, and how near the draw came to another one: then either will do. */
static int32_t want_token(struct rig *r, const float *logits, uint32_t n, const struct weir_draw *how,
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

static struct weir_draw random_rules(struct rig *r, uint32_t i)
{
    static const double temperatures[] = { 1, 0.7, 0, 2.5, 1e-300, 0.01 },
                        top_ps[] = { 1, 0.9, 0.5, 1e-9, 0.999 };
    static const int32_t top_ks[] = { 0, -1, 1, 2, 40, 100000 };
    struct weir_draw how = { .temperature = temperatures[rig_between(r, 0, 5)],
                             .top_p = top_ps[rig_between(r, 0, 4)],
                             .min_p = i % 3 ? 0 : 0.05,
                             .top_k = top_ks[rig_between(r, 0, 5)],
                             .seed = rig_random(r),
                             .choice = i % 4,
                             .position = i,
                             .repetition = 1,
                             .row = (int32_t)i,
                             .logprob = true };
    return how;
}

/* Every mixture of rules, on flat and on peaked logits, with many ties. */
static void check_rules(struct rig *r)
{
    enum { ROWS = 60 };
    static const uint32_t sizes[] = { 1, 5, 512, 1300 };

    for (int s = 0; s < 4; s++) {
        uint32_t n = sizes[s];
        struct weir_draw how[ROWS];
        float *logits = rig_host(r, (size_t)ROWS * n * sizeof *logits);
        for (uint32_t i = 0; i < ROWS; i++) {
            double size = i % 2 ? 6 : 0.5;
            how[i] = random_rules(r, i);
            for (uint32_t k = 0; k < n; k++)
                logits[i * n + k] = (float)(floor(rig_normal(r) * size * 8) / 8);
        }
        struct args a = { .out = rig_device(r, ROWS * sizeof *a.out) };
        a.in = (struct cuda_sample_in){ .logits = rig_upload(r, logits, (size_t)ROWS * n * 4),
                                        .draws = rig_upload(r, how, sizeof how),
                                        .stride = n,
                                        .n = ROWS,
                                        .n_vocab = n };
        struct weir_drawn *got = rig_run(r, launch, &a, a.out, ROWS * sizeof *got, NULL, 0);
        double want_logprob[ROWS];
        float logprob[ROWS];
        for (uint32_t i = 0; i < ROWS; i++) {
            double margin;
            int32_t want = want_token(r, logits + i * n, n, &how[i], &margin);
            rig_true(r, "the token drawn", got[i].id == want || margin < 1e-9);
            want_logprob[i] = log_softmax(logits + i * n, n, got[i].id < 0 ? 0 : got[i].id);
            logprob[i] = got[i].logprob;
        }
        rig_near_f32(r, "its log-probability", logprob, want_logprob, ROWS, 1e-9);
    }
}

/* Bias, penalties, bans and mask, by what they must bring about; padding behind the vocabulary never comes; the log-probability is
 * of the logits as they were. */
static void check_adjusted(struct rig *r)
{
    enum { N = 70, STRIDE = 72, ROWS = 7 };
    const struct weir_seen seen[] = { { 3, 2 }, { 9, 1 } }, prompt[] = { { 3, 0 }, { 9, 0 } };
    const struct weir_logit_bias bias[] = { { 64, 5 } }, small[] = { { 9, 2.5f } };
    const int32_t bans[] = { 3, 9 };
    const uint32_t masks[3] = { 1u << 17, 0, 1u << 2 };
    float logits[STRIDE] = { [3] = 4, [9] = 3.5f, [17] = 2.5f, [N] = 100, [N + 1] = INFINITY };
    struct weir_draw how[ROWS];

    for (uint32_t i = 0; i < ROWS; i++)
        how[i] = (struct weir_draw){ .top_p = 1, .repetition = 1, .logprob = true };
    how[0].n_seen = 2; /* 4 - 2 * 0.3 - 0.5 = 2.9; 3.5 - 0.3 - 0.5 = 2.7 */
    how[0].frequency = 0.3;
    how[0].presence = 0.5;
    how[1].n_seen = 2; /* 2; 1.75 */
    how[1].repetition = 2;
    how[2].n_bias = 1;
    how[2].bias = rig_upload(r, bias, sizeof bias);
    how[3].mask = rig_upload(r, masks, sizeof masks);
    how[4].n_bans = 2;
    how[4].bans = rig_upload(r, bans, sizeof bans);
    how[5].n_seen =
        2; /* 2; (3.5 + 2.5) / 2 = 3: the bias comes first, what the prompt alone has is not counted */
    how[5].repetition = 2;
    how[5].frequency = 100;
    how[5].presence = 100;
    how[5].n_bias = 1;
    how[5].bias = rig_upload(r, small, sizeof small);
    how[0].seen = how[1].seen = rig_upload(r, seen, sizeof seen);
    how[5].seen = rig_upload(r, prompt, sizeof prompt);
    struct args a = { .out = rig_device(r, ROWS * sizeof *a.out) };
    a.in = (struct cuda_sample_in){ .logits = rig_upload(r, logits, sizeof logits),
                                    .draws = rig_upload(r, how, sizeof how),
                                    .work = rig_device(r, ROWS * N * 4),
                                    .stride = STRIDE,
                                    .n = ROWS,
                                    .n_vocab = N };
    struct weir_drawn *got = rig_run(r, launch, &a, a.out, ROWS * sizeof *got, NULL, 0);
    const int32_t want[] = { 3, 17, 64, 17, 17, 9, 3 };
    for (uint32_t i = 0; i < ROWS; i++) {
        double of_given = log_softmax(logits, N, want[i]);
        rig_true(r, "bias, penalties, bans, mask", got[i].id == want[i]);
        rig_near_f32(r, "the log-probability before them", &got[i].logprob, &of_given, 1, 1e-9);
    }
    float after[N], *work = rig_run(r, launch, &a, a.in.work, ROWS * N * 4, NULL, 0);
    const double want_after[] = { 2.9, 2.7, 2.0, 1.75 };
    memcpy(after, work, 2 * sizeof *work);
    after[0] = work[3];
    after[1] = work[9];
    after[2] = work[N + 3];
    after[3] = work[N + 9];
    rig_near_f32(r, "penalised logits", after, want_after, 4, 1e-12);
}

/* What is told of the likeliest, against sorting. */
static void check_tops_of(struct rig *r, const float *logits, uint32_t n, const struct weir_draw *how,
                          const struct weir_drawn *got)
{
    struct item *items = rig_host(r, n * sizeof *items);

    for (uint32_t i = 0; i < n; i++)
        items[i] = (struct item){ (double)logits[i], (int32_t)i };
    qsort(items, n, sizeof *items, by_logit);
    for (uint32_t k = 0; k < how->n_tops; k++) {
        const struct weir_top_logprob *top = &got->tops[k];
        double want = k < n ? log_softmax(logits, n, items[k].id) : -INFINITY;
        rig_true(r, "a likely token", top->id == (k < n ? items[k].id : -1));
        rig_true(r, "its log-probability",
                 isinf(want) ? top->logprob == want : fabs(top->logprob - want) <= 1e-6 * (1 + fabs(want)));
    }
}

/* Ties, zeros of both signs, in some rows half of the numbers -infinity; likely ones behind the vocabulary. */
static float odd_logit(struct rig *r, uint32_t row, uint32_t k, uint32_t n)
{
    if (k >= n)
        return k == n ? 0.5f : INFINITY;
    if (row % 3 == 1 && k % 2)
        return -INFINITY;
    return k % 7 ? (float)floor(rig_normal(r) * 3) : k % 2 ? -0.0f : 0.0f;
}

/* Fewer ids than are asked for, too; one row has a mask. The same bytes when a row is alone. */
static void check_tops(struct rig *r)
{
    enum { ROWS = 18, PADDING = 3, N_MAX = 1300 };
    static const uint32_t sizes[] = { 1, 3, 5, 513, N_MAX };

    for (int s = 0; s < 5; s++) {
        uint32_t n = sizes[s], stride = n + PADDING, masks[(N_MAX + 31) / 32];
        float *logits = rig_host(r, (size_t)ROWS * stride * sizeof *logits);
        struct weir_draw how[ROWS];
        memset(masks, 0x5a, sizeof masks);
        masks[0] |= 1;
        for (uint32_t i = 0; i < ROWS; i++) {
            how[i] = random_rules(r, i);
            how[i].n_tops = i % (WEIR_TOPS_MAX + 1);
            how[i].mask = i == ROWS - 1 ? rig_upload(r, masks, sizeof masks) : NULL;
            for (uint32_t k = 0; k < stride; k++)
                logits[i * stride + k] = odd_logit(r, i, k, n);
        }
        struct args a = { .out = rig_device(r, ROWS * sizeof *a.out) };
        a.in = (struct cuda_sample_in){ .logits = rig_upload(r, logits, (size_t)ROWS * stride * 4),
                                        .draws = rig_upload(r, how, sizeof how),
                                        .work = rig_device(r, (size_t)ROWS * n * 4),
                                        .stride = stride,
                                        .n = ROWS,
                                        .n_vocab = n };
        const struct weir_drawn *got = rig_run(r, launch, &a, a.out, ROWS * sizeof *got, NULL, 0);
        for (uint32_t i = 0; i < ROWS; i++)
            check_tops_of(r, logits + (size_t)i * stride, n, &how[i], &got[i]);
        const struct weir_draw *all = a.in.draws;
        a.in.n = 1;
        for (uint32_t i = 0; i < ROWS; i++) {
            a.in.draws = all + i;
            rig_same(r, "alone", rig_run(r, launch, &a, a.out, sizeof *got, NULL, 0), &got[i], sizeof *got);
        }
    }
}

/* The next step's ids: some known, some from the results, none for a token that is none. */
static void launch_take(struct rig *r, void *arg)
{
    int32_t **at = arg;
    cuda_take_drawn(r->s, at[0], at[1], (struct weir_drawn *)at[2], 200);
}

static void check_take(struct rig *r)
{
    enum { N = 200 };
    int32_t ids[N], from[N];
    struct weir_drawn drawn[N];

    for (int32_t i = 0; i < N; i++) {
        ids[i] = 1000 + i;
        from[i] = i % 3 ? N - 1 - i : -1;
        drawn[i].id = i % 5 ? 7 * i : -1;
    }
    int32_t *at[] = { rig_device(r, sizeof ids), rig_upload(r, from, sizeof from),
                      rig_upload(r, drawn, sizeof drawn) };
    dev_upload(r->d, at[0], ids, sizeof ids);
    int32_t *got = rig_run(r, launch_take, at, at[0], sizeof ids, at[0], sizeof ids);
    for (int32_t i = 0; i < N; i++) {
        int32_t want = from[i] < 0 ? ids[i] : drawn[from[i]].id < 0 ? 0 : drawn[from[i]].id;
        rig_true(r, "the id taken", got[i] == want);
    }
}

static void check_no_answer(struct rig *r)
{
    enum { N = 600 };
    float logits[3 * N];
    struct weir_draw how[3];

    for (int i = 0; i < 3 * N; i++)
        logits[i] = i < N ? 1.0f : -INFINITY;
    logits[577] = NAN;
    logits[2 * N + 300] = INFINITY;
    for (int i = 0; i < 3; i++)
        how[i] = (struct weir_draw){
            .temperature = 1, .top_p = 0.9, .repetition = 1, .row = i, .logprob = true, .n_tops = 2
        };
    struct args a = { .out = rig_device(r, 3 * sizeof *a.out) };
    a.in = (struct cuda_sample_in){ .logits = rig_upload(r, logits, sizeof logits),
                                    .draws = rig_upload(r, how, sizeof how),
                                    .stride = N,
                                    .n = 3,
                                    .n_vocab = N };
    struct weir_drawn *got = rig_run(r, launch, &a, a.out, 3 * sizeof *got, NULL, 0);
    for (int i = 0; i < 3; i++) {
        rig_true(r, "NaN, nothing finite, infinity: no token", got[i].id == -1 && isnan(got[i].logprob));
        for (int k = 0; k < 2; k++)
            rig_true(r, "and none likely", got[i].tops[k].id == -1 && got[i].tops[k].logprob == -INFINITY);
    }
}

const struct rig_check checks_sample[] = {
    { "sample: rules", check_rules },         { "sample: bias, penalties, bans, mask", check_adjusted },
    { "sample: the likeliest", check_tops },  { "sample: ids of the next step", check_take },
    { "sample: no answer", check_no_answer }, { NULL, NULL }
};
