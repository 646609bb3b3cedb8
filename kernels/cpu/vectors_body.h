/* vectors_body.h - vectors of LANES floats, and e^x over them. The file that includes this one sets LANES and is compiled for an
 * instruction set that has them. */
#ifndef WEIR_KERNELS_CPU_VECTORS_BODY_H
#define WEIR_KERNELS_CPU_VECTORS_BODY_H

#include <stdint.h>

typedef float vf __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t vi __attribute__((vector_size(4 * LANES), aligned(4)));
typedef uint32_t vu __attribute__((vector_size(4 * LANES), aligned(4)));

#define INLINE static inline __attribute__((always_inline))

INLINE vf load(const float *p)
{
    return *(const vf *)p;
}

INLINE void store(float *p, vf v)
{
    *(vf *)p = v;
}

INLINE vf splat(float x)
{
    return x - (vf){ 0 };
}

INLINE vf choose(vi mask, vf yes, vf no)
{
    return (vf)((mask & (vi)yes) | (~mask & (vi)no));
}

/* e^x to about 2 ulp for x <= 0 (what softmax and silu need) and up to 88; below -87 it is 0. Cody-Waite reduction and a
 * polynomial of degree 6 on [-ln2/2, ln2/2]. */
INLINE vf exp_v(vf x)
{
    vi low = x < splat(-87.0f);
    x = choose(low, splat(-87.0f), x);
    vf high = splat(88.0f);
    x = choose(x > high, high, x);
    vf n = x * splat(1.44269504f);
    n = (n + splat(12582912.0f)) - splat(12582912.0f); /* round to nearest */
    vf r = x - n * splat(0.693359375f);
    r = r - n * splat(-2.12194440e-4f);
    vf p = splat(1.0f / 720);
    p = p * r + splat(1.0f / 120);
    p = p * r + splat(1.0f / 24);
    p = p * r + splat(1.0f / 6);
    p = p * r + splat(0.5f);
    p = p * r + splat(1.0f);
    p = p * r + splat(1.0f);
    vf scaled = (vf)((vi)p + (__builtin_convertvector(n, vi) << 23));
    return (vf)(~low & (vi)scaled);
}

#endif
