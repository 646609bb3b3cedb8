/* sample.c - see sample.h.
 *
 *   [M1] A token outside the kept set is never returned.    [M2] The same arguments give the same token.
 * Cost: one or two passes over the vocabulary. top-p needs the likeliest tokens in order: only those within a
 * few nats of the best are sorted, and more only when they do not hold enough mass. */
#include "replica/engine/sample.h"

#include <math.h>
#include <stdlib.h>

#include "base/hash.h"

#define REACH_MIN 0.01 /* below the best logit: bounds the passes at the smallest of temperatures */

double sample_uniform(uint64_t seed, uint32_t choice, uint32_t position)
{
    uint64_t bits = weir_hash_mix(weir_hash_mix(weir_hash_mix(0x77656972, seed), choice), position);
    return (double)(bits >> 11) * 0x1p-53;
}

/* The best logit, lowest id among equals; -1 when there is no answer. */
static int32_t argmax(const float *logits, uint32_t n)
{
    int32_t best = -1;

    for (uint32_t i = 0; i < n; i++) {
        if (isnan(logits[i]))
            return -1;
        if (best < 0 || logits[i] > logits[best])
            best = (int32_t)i;
    }
    return best >= 0 && isfinite(logits[best]) ? best : -1;
}

static int by_logit(const void *a, const void *b)
{
    const struct sample_item *x = a, *y = b;

    if (x->logit != y->logit)
        return x->logit > y->logit ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

/* All items at or above the threshold, in id order; returns how many. */
static uint32_t gather(const float *logits, uint32_t n, float threshold, struct sample_item *items)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < n; i++)
        if (logits[i] >= threshold)
            items[kept++] = (struct sample_item){ logits[i], (int32_t)i };
    return kept;
}

static double weight(float logit, float best, double temperature)
{
    return exp(((double)logit - best) / temperature);
}

/* The top k, sorted: gathered from a threshold that falls until it lets k through. */
static uint32_t keep_top_k(const float *logits, uint32_t n, float best, double temperature, uint32_t k,
                           struct sample_item *items)
{
    for (double reach = fmax(8 * temperature, REACH_MIN);; reach *= 4) {
        float threshold = reach < 1e6 ? best - (float)reach : -INFINITY;
        uint32_t kept = gather(logits, n, threshold, items);
        if (kept < k && threshold > -INFINITY)
            continue;
        qsort(items, kept, sizeof *items, by_logit);
        return kept < k ? kept : k;
    }
}

/* The fewest likeliest whose mass reaches top_p of `total`, sorted. `items` holds `kept` sorted ones, or none
 * yet (0). */
static uint32_t keep_top_p(const float *logits, uint32_t n, float best, double temperature, double top_p,
                           double total, uint32_t kept, struct sample_item *items)
{
    bool given = kept > 0;

    for (double reach = fmax(4 * temperature, REACH_MIN);; reach *= 2) {
        float threshold = reach < 1e6 ? best - (float)reach : -INFINITY;
        double mass = 0;
        if (!given) {
            kept = gather(logits, n, threshold, items);
            qsort(items, kept, sizeof *items, by_logit);
        }
        for (uint32_t i = 0; i < kept; i++) {
            mass += weight(items[i].logit, best, temperature);
            if (mass >= top_p * total)
                return i + 1;
        }
        if (given || threshold == -INFINITY)
            return kept; /* rounding: all of them */
    }
}

static double mass_of(const float *logits, uint32_t n, float best, double temperature)
{
    double total = 0;

    for (uint32_t i = 0; i < n; i++)
        total += weight(logits[i], best, temperature);
    return total;
}

/* Sums in the items' order. */
static double mass_of_items(const struct sample_item *items, uint32_t n, float best, double temperature)
{
    double total = 0;

    for (uint32_t i = 0; i < n; i++)
        total += weight(items[i].logit, best, temperature);
    return total;
}

static int by_deviation(const void *a, const void *b, void *mean)
{
    const struct sample_item *x = a, *y = b;
    double dx = fabs((double)x->logit - *(double *)mean), dy = fabs((double)y->logit - *(double *)mean);

    if (dx != dy)
        return dx < dy ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

/* The mean surprise is log(total) - mean of (logit - best) / temperature: as near to it as to the mean logit. */
static uint32_t keep_typical(float best, double temperature, double typical_p, uint32_t kept,
                             struct sample_item *items)
{
    double total = mass_of_items(items, kept, best, temperature), mean = 0, mass = 0;

    for (uint32_t i = 0; i < kept; i++)
        if (isfinite(items[i].logit))
            mean += weight(items[i].logit, best, temperature) * items[i].logit;
    mean /= total;
    qsort_r(items, kept, sizeof *items, by_deviation, &mean);
    for (uint32_t i = 0; i < kept; i++) {
        mass += weight(items[i].logit, best, temperature);
        if (mass >= typical_p * total)
            return i + 1;
    }
    return kept;
}

/* [M1] */
static int32_t draw(const struct sample_item *items, uint32_t kept, float best, double temperature,
                    double uniform, int32_t otherwise)
{
    double left = uniform * mass_of_items(items, kept, best, temperature);
    int32_t last = otherwise;

    for (uint32_t i = 0; i < kept; i++) {
        double mass = weight(items[i].logit, best, temperature);
        left -= mass;
        last = mass > 0 ? items[i].id : last;
        if (left < 0)
            return last;
    }
    return last; /* rounding at the end of the sum */
}

int32_t sample_token(const float *logits, uint32_t n, const struct sample_params *p, uint32_t choice,
                     uint32_t position, struct sample_item *items)
{
    int32_t i_best = argmax(logits, n);
    uint32_t kept = 0;

    if (i_best < 0 || p->temperature <= 0 || p->top_k == 1)
        return i_best;
    float best = logits[i_best];
    if (p->top_k > 0 && (uint32_t)p->top_k < n)
        kept = keep_top_k(logits, n, best, p->temperature, (uint32_t)p->top_k, items);
    if (p->top_p < 1) {
        double total = kept ? mass_of_items(items, kept, best, p->temperature)
                            : mass_of(logits, n, best, p->temperature);
        kept = keep_top_p(logits, n, best, p->temperature, p->top_p, total, kept, items);
    }
    if (kept == 0)
        kept = gather(logits, n, -INFINITY, items);
    if (p->typical_p > 0 && p->typical_p < 1)
        kept = keep_typical(best, p->temperature, p->typical_p, kept, items);
    if (p->min_p > 0) { /* relative to the best */
        uint32_t m = 0;
        for (uint32_t i = 0; i < kept; i++)
            if (weight(items[i].logit, best, p->temperature) >= p->min_p)
                items[m++] = items[i];
        /* typical-p may have left out all that are likely: then what it kept stays */
        kept = m ? m : kept;
    }
    return draw(items, kept, best, p->temperature, sample_uniform(p->seed, choice, position), i_best);
}

int32_t sample_mirostat(const float *logits, uint32_t n, const struct sample_params *p, uint32_t choice,
                        uint32_t position, struct sample_item *items, double *surprise_max)
{
    int32_t i_best = argmax(logits, n);
    double target = log2(p->mirostat_target);

    if (i_best < 0 || p->temperature <= 0)
        return i_best;
    if (*surprise_max == 0)
        *surprise_max = 2 * target;
    float best = logits[i_best];
    double total = mass_of(logits, n, best, p->temperature);
    /* -log2(weight / total) <= bound: the best one always stays */
    double reach = (*surprise_max - log2(total)) * log(2.0) * p->temperature;
    uint32_t kept = gather(logits, n, reach > 0 ? best - (float)reach : best, items);
    int32_t id = draw(items, kept, best, p->temperature, sample_uniform(p->seed, choice, position), i_best);
    double surprise = log2(total) - log2(weight(logits[id], best, p->temperature));
    *surprise_max -= p->mirostat_lr * (surprise - target);
    return id;
}

/* Their logits; how many there are. */
static int find_tops(const float *logits, uint32_t n, struct weir_top_logprob *top, int n_top)
{
    int n_found = 0;

    for (uint32_t i = 0; i < n && n_top > 0; i++) {
        if (n_found == n_top && logits[i] <= top[n_top - 1].logprob)
            continue;
        int at = n_found < n_top ? n_found++ : n_top - 1;
        for (; at > 0 && top[at - 1].logprob < logits[i]; at--)
            top[at] = top[at - 1];
        top[at] = (struct weir_top_logprob){ (int32_t)i, logits[i] };
    }
    return n_found;
}

float sample_logprob(const float *logits, uint32_t n, int32_t id, struct weir_top_logprob *top, int n_top)
{
    int32_t i_best = argmax(logits, n);
    int n_found = i_best < 0 ? 0 : find_tops(logits, n, top, n_top);
    double lse = i_best < 0 ? NAN : log(mass_of(logits, n, logits[i_best], 1.0)) + logits[i_best];

    for (int i = 0; i < n_found; i++)
        top[i].logprob = (float)(top[i].logprob - lse);
    for (int i = n_found; i < n_top; i++)
        top[i] = (struct weir_top_logprob){ -1, -INFINITY };
    return (float)(logits[id] - lse);
}
