/* q4.c - see q4.h. */
#include "kernels/q4.h"

#include <math.h>

#define MULTIPLIER_MAX 15

static float largest(const float *x, uint32_t n)
{
    float ret = 0;

    for (uint32_t i = 0; i < n; i++)
        ret = fmaxf(ret, fabsf(x[i]));
    return ret;
}

/* x * by, to the nearest, within [-WEIR_Q4_MAX, WEIR_Q4_MAX]. */
static inline float round_to(float x, float by)
{
    float q = x * by;

    q = q > WEIR_Q4_MAX ? WEIR_Q4_MAX : q < -WEIR_Q4_MAX ? -WEIR_Q4_MAX : q;
    return (q + 12582912.0f) - 12582912.0f;
}

static float error_with(const float *x, uint32_t n, float step)
{
    float sum = 0;

    for (uint32_t i = 0; i < n; i++) {
        float left = x[i] - step * round_to(x[i], 1 / step);
        sum += left * left;
    }
    return sum;
}

/* Of those near the smallest that cuts nothing. */
static int32_t best_multiplier(const float *x, uint32_t n, float scale)
{
    int32_t last = scale > 0 ? (int32_t)ceilf(largest(x, n) / (scale * WEIR_Q4_MAX)) : 1;
    float least = INFINITY;
    int32_t ret = 1;

    last = last < 1 ? 1 : last > MULTIPLIER_MAX ? MULTIPLIER_MAX : last;
    for (int32_t m = last > 3 ? last - 3 : 1; m <= last && scale > 0; m++) {
        float error = error_with(x, n, scale * (float)m);
        if (error < least) {
            least = error;
            ret = m;
        }
    }
    return ret;
}

float weir_q4_scale(const float *x, uint32_t n)
{
    return largest(x, n) / (WEIR_Q4_MAX * MULTIPLIER_MAX);
}

int32_t weir_q4_group(int8_t *q, const float *x, uint32_t n, float scale)
{
    int32_t by = best_multiplier(x, n, scale);

    for (uint32_t i = 0; i < n; i++)
        q[i] = scale > 0 ? (int8_t)round_to(x[i], 1 / (scale * (float)by)) : 0;
    return by;
}
