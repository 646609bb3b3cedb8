/* sample.h - from logits to a token: a pure function of the logits, the parameters and (seed, choice,
 * position).
 *
 * Order: temperature, top-k, top-p, typical-p, min-p; each keeps the more probable tokens (typical-p: those whose
 * surprise is nearest to the mean), ties by the lower id. Mirostat (2.0; Basu et al. 2021) takes the place of all
 * of these: it keeps tokens up to a bound of surprise that follows what was chosen. Temperature 0 is greedy. The uniform number comes from a hash of (seed, choice, position), so a token never
 * depends on batch mates. */
#ifndef WEIR_REPLICA_ENGINE_SAMPLE_H
#define WEIR_REPLICA_ENGINE_SAMPLE_H

#include <stdint.h>

#include "replica/engine/engine.h"

struct sample_params {
    double temperature, top_p, min_p;
    int top_k;
    uint64_t seed;
    double typical_p;                    /* 0 or 1: off */
    double mirostat_target, mirostat_lr; /* a perplexity; 0: off */
};

struct sample_item {
    float logit;
    int32_t id;
};

/* A token id, or -1 when a logit is NaN or none is finite. `scratch` has room for n items. */
int32_t sample_token(const float *logits, uint32_t n, const struct sample_params *params, uint32_t choice,
                     uint32_t position, struct sample_item *scratch);
/* One step of mirostat: *surprise_max is its state, in bits; 0 before the first. The rest as above. */
int32_t sample_mirostat(const float *logits, uint32_t n, const struct sample_params *params, uint32_t choice,
                        uint32_t position, struct sample_item *scratch, double *surprise_max);
/* log softmax of `id` before temperature, and the n_top best, best first, ties by the lower id; -1 past the vocabulary. NaN, and none,
 * when a logit is NaN or none is finite. */
float sample_logprob(const float *logits, uint32_t n, int32_t id, struct weir_top_logprob *top, int n_top);
/* In [0, 1). */
double sample_uniform(uint64_t seed, uint32_t choice, uint32_t position);

#endif
