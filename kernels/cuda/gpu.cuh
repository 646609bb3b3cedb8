/* gpu.cuh - what the kernels are written in: CUDA C++ by nvcc, or the same sources by the host compiler over emu/emu.cuh (WEIR_EMU).
 *
 * bf16 numbers are their bits in uint16_t. Whatever is an instruction of the GPU has its emulated twin here, side by side. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef WEIR_EMU
#include "kernels/cuda/emu/emu.cuh"
typedef struct dev_stream *gpu_stream;
#else
#include <cuda_runtime.h>
typedef cudaStream_t gpu_stream;
#define GPU_LAUNCH(kernel, grid, block, shared, stream, ...)                                                 \
    kernel<<<grid, block, shared, stream>>>(__VA_ARGS__)
#define GPU_SHARED(type, name, n) __shared__ type name[n]
#define GPU_SHARED_DYNAMIC(type, name) extern __shared__ type name[]
/* So much dynamic shared memory. An error shows at the launch. */
#define gpu_allow_shared(kernel, bytes)                                                                      \
    ((void)cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)(bytes)))
#endif

#define GPU_SHARED_FREE (48u << 10) /* bytes of shared memory that a kernel may have without being allowed to */
#define GPU_ALL 0xffffffffu /* the lanes of a warp */
#define GPU_INF __uint_as_float(0x7f800000u)

__host__ __device__ static inline uint32_t gpu_ceil_div(uint32_t a, uint32_t b)
{
    return (a + b - 1) / b;
}

/* ---- bf16 ---- */
__device__ static inline float bf16_f32(uint16_t bits)
{
    return __uint_as_float((uint32_t)bits << 16);
}
__device__ static inline float bf16_low(uint32_t pair)
{
    return __uint_as_float(pair << 16);
}
__device__ static inline float bf16_high(uint32_t pair)
{
    return __uint_as_float(pair & 0xffff0000u);
}
/* To the nearest, ties to even; a NaN stays one. */
__device__ static inline uint16_t bf16_of(float f)
{
#if defined(__CUDA_ARCH__)
    uint16_t bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(f));
    return bits;
#else
    uint32_t bits = __float_as_uint(f);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return 0x7fff;
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
#endif
}
__device__ static inline uint32_t bf16_pair(float low, float high)
{
#if defined(__CUDA_ARCH__)
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
#else
    return (uint32_t)bf16_of(low) | (uint32_t)bf16_of(high) << 16;
#endif
}

/* a * b + c of both numbers of a pair, rounded once. */
__device__ static inline uint32_t bf16_fma_pair(uint32_t a, uint32_t b, uint32_t c)
{
#if defined(__CUDA_ARCH__)
    uint32_t pair;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(pair) : "r"(a), "r"(b), "r"(c));
    return pair;
#else
    return bf16_pair(__fmaf_rn(bf16_low(a), bf16_low(b), bf16_low(c)), __fmaf_rn(bf16_high(a), bf16_high(b), bf16_high(c)));
#endif
}

/* 2^x; 0 for -inf. */
__device__ static inline float gpu_exp2(float x)
{
#if defined(__CUDA_ARCH__)
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    return exp2f(x);
#endif
}

/* a / b, to 2 units in the last place; 0 for b above 2^126. */
__device__ static inline float gpu_divide(float a, float b)
{
#if defined(__CUDA_ARCH__)
    return __fdividef(a, b);
#else
    return a / b;
#endif
}

/* ---- copies from memory into shared memory that run beside what follows ---- */
/* 16 or 4 bytes, aligned so. */
__device__ static inline void gpu_copy_async(uint4 *to, const uint4 *from)
{
#if defined(WEIR_EMU)
    emu_copy_async(to, from, sizeof *to);
#elif defined(__CUDA_ARCH__)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"((uint32_t)__cvta_generic_to_shared(to)), "l"(from) : "memory");
#else
    (void)to, (void)from;
#endif
}
__device__ static inline void gpu_copy_async_word(uint32_t *to, const uint32_t *from)
{
#if defined(WEIR_EMU)
    emu_copy_async(to, from, sizeof *to);
#elif defined(__CUDA_ARCH__)
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"((uint32_t)__cvta_generic_to_shared(to)), "l"(from) : "memory");
#else
    (void)to, (void)from;
#endif
}
/* What the thread has asked for since the last one is a group. */
__device__ static inline void gpu_copy_commit()
{
#if defined(WEIR_EMU)
    emu_copy_commit();
#elif defined(__CUDA_ARCH__)
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
/* Until all of the thread's groups but the N newest have come; others see them behind a barrier. */
template <int N> __device__ static inline void gpu_copy_wait()
{
#if defined(WEIR_EMU)
    emu_copy_wait(N);
#elif defined(__CUDA_ARCH__)
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}

/* ---- warps ---- */
__device__ static inline float warp_sum(float x)
{
    for (int lanes = 16; lanes; lanes >>= 1)
        x += __shfl_xor_sync(GPU_ALL, x, lanes);
    return x;
}
__device__ static inline float warp_max(float x)
{
    for (int lanes = 16; lanes; lanes >>= 1)
        x = fmaxf(x, __shfl_xor_sync(GPU_ALL, x, lanes));
    return x;
}

/* c [16][8] += a [16][16] * b [16][8], in bf16 with f32 sums, over a warp. With r = lane / 4 and q = lane % 4:
 * c: rows r, r, r + 8, r + 8 at columns 2q, 2q + 1 by turns. a, pairs along k: (r, 2q), (r + 8, 2q), (r, 2q + 8), (r + 8, 2q + 8).
 * b, pairs along k: (2q, column r), (2q + 8, column r). */
#ifdef WEIR_EMU
struct emu_mma {
    uint32_t a[4], b[2];
};
inline void emu_mma_all(const void *const *in, void *const *out)
{
    float a[16][16], b[16][8];

    for (int lane = 0; lane < 32; lane++) {
        const emu_mma *m = (const emu_mma *)in[lane];
        int r = lane / 4, k = lane % 4 * 2;
        for (int i = 0; i < 4; i++) {
            a[r + i % 2 * 8][k + i / 2 * 8] = bf16_low(m->a[i]);
            a[r + i % 2 * 8][k + i / 2 * 8 + 1] = bf16_high(m->a[i]);
        }
        for (int i = 0; i < 2; i++) {
            b[k + i * 8][r] = bf16_low(m->b[i]);
            b[k + i * 8 + 1][r] = bf16_high(m->b[i]);
        }
    }
    for (int lane = 0; lane < 32; lane++)
        for (int i = 0; i < 4; i++)
            for (int k = 0; k < 16; k++)
                ((float *)out[lane])[i] += a[lane / 4 + i / 2 * 8][k] * b[k][lane % 4 * 2 + i % 2];
}
#endif
__device__ static inline void mma_bf16(float *c, const uint32_t *a, uint32_t b0, uint32_t b1)
{
#if defined(WEIR_EMU)
    emu_mma in = { { a[0], a[1], a[2], a[3] }, { b0, b1 } };
    emu_warp(GPU_ALL, emu_mma_all, &in, c);
#elif defined(__CUDA_ARCH__)
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
    (void)c, (void)a, (void)b0, (void)b1;
#endif
}
