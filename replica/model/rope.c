/* rope.c - see rope.h. */
#include "replica/model/rope.h"

#include <math.h>

#define TWO_PI 6.283185307179586

/* Long wavelengths are stretched, short ones kept, those between blended. */
static float by_wavelength(const struct model_rope *rope, float inv)
{
    double wavelength = TWO_PI / inv;
    double low = rope->original_context / rope->low_freq_factor;
    double high = rope->original_context / rope->high_freq_factor;

    if (wavelength < high)
        return inv;
    if (wavelength > low)
        return (float)(inv / rope->factor);
    double smooth = (rope->original_context / wavelength - rope->low_freq_factor) /
                    (rope->high_freq_factor - rope->low_freq_factor);
    return (float)((1 - smooth) * inv / rope->factor + smooth * inv);
}

/* The pair, a real number, that turns so many times within the original context. */
static double pair_of_turns(const struct model_rope *rope, uint32_t d_head, double turns)
{
    return d_head * log(rope->original_context / (turns * TWO_PI)) / (2 * log(rope->theta));
}

/* Pairs that turn often are kept, those that turn seldom stretched, with a ramp between. */
static float by_turns(const struct model_rope *rope, uint32_t d_head, uint32_t i, float inv)
{
    double low = pair_of_turns(rope, d_head, rope->beta_fast);
    double high = pair_of_turns(rope, d_head, rope->beta_slow);

    if (rope->truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, d_head - 1);
    if (low == high)
        high += 0.001;
    double stretched = fmin(fmax((i - low) / (high - low), 0), 1);
    return (float)(inv / rope->factor * stretched + inv * (1 - stretched));
}

float rope_frequency(const struct model_config *c, uint32_t i)
{
    /* The exponent is rounded, too: for widths that are no power of 2 that moves angles by more than all sums here. */
    float exponent = (float)(2 * i) / (float)c->d_head;
    float inv = 1.0f / (float)pow(c->rope.theta, exponent);

    switch (c->rope.kind) {
    case MODEL_ROPE_LINEAR:
        return (float)(inv / c->rope.factor);
    case MODEL_ROPE_LLAMA3:
        return by_wavelength(&c->rope, inv);
    case MODEL_ROPE_YARN:
        return by_turns(&c->rope, c->d_head, i, inv);
    case MODEL_ROPE_DEFAULT:
        break;
    }
    return inv;
}

void rope_fill(const struct model_config *c, float *ret_cos, float *ret_sin)
{
    uint32_t half = c->d_head / 2;

    for (uint32_t i = 0; i < half; i++) {
        float inv = rope_frequency(c, i);
        for (uint32_t pos = 0; pos < c->n_context; pos++) {
            float angle = (float)pos * inv;
            ret_cos[(size_t)pos * half + i] = (float)(cos(angle) * c->rope.attention_factor);
            ret_sin[(size_t)pos * half + i] = (float)(sin(angle) * c->rope.attention_factor);
        }
    }
}

static double mscale_of(double factor, double mscale)
{
    return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1;
}

double rope_yarn_attention(double factor, double mscale, double all)
{
    if (mscale > 0 && all > 0)
        return mscale_of(factor, mscale) / mscale_of(factor, all);
    return mscale_of(factor, 1);
}
