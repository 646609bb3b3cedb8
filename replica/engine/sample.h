/* sample.h - from logits to a token: a pure function of the logits, the parameters and (seed, choice,
 * position).
 *
 * Order: temperature, top-k, top-p, min-p; each keeps the more probable tokens, ties by the lower id.
 * Temperature 0 is greedy. The uniform number comes from a hash of (seed, choice, position), so a token never
 * depends on batch mates. */
#ifndef WEIR_REPLICA_ENGINE_SAMPLE_H
#define WEIR_REPLICA_ENGINE_SAMPLE_H

#include <stdint.h>

#include "replica/engine/engine.h"

struct sample_params {
    double temperature, top_p, min_p;
    int top_k;
    uint64_t seed;
};

struct sample_item {
    float logit;
    int32_t id;
};

/* A token id, or -1 when a logit is NaN or none is finite. `scratch` has room for n items. */
int32_t sample_token(const float *logits, uint32_t n, const struct sample_params *params, uint32_t choice,
                     uint32_t position, struct sample_item *scratch);
/* log softmax of `id` before temperature, and the n_top best, best first. */
float sample_logprob(const float *logits, uint32_t n, int32_t id, struct weir_top_logprob *top, int n_top);
/* In [0, 1). */
double sample_uniform(uint64_t seed, uint32_t choice, uint32_t position);

#endif
