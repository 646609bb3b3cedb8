/* fp8.cu - activations as e4m3 with a scale a row, for the products of FP8 weights that cuBLASLt does on tensor cores; and the scales
 * applied behind, where it does not apply them itself.
 *
 *   [F1] A row's bytes and scale depend on that row alone. */
#include "kernels/cuda/cuda_int.h"
#include "kernels/cuda/gpu.cuh"

#define FP8_THREADS 256
#define FP8_MAX 448.0f

/* To the nearest e4m3, ties to even; beyond 448 it is 448. Low byte: a. */
[[maybe_unused]] __device__ static inline uint32_t fp8_of(float f)
{
    float size = fabsf(f);
    uint32_t sign = __float_as_uint(f) >> 24 & 0x80, bits;

    if (!(size == size))
        return 0x7f;
    if (size >= FP8_MAX)
        return sign | 0x7e;
    if (size < 0.015625f) { /* subnormal, multiples of 2^-9: the sum's last bit is one */
        bits = __float_as_uint(__fadd_rn(size, 16384.0f));
        return sign | (bits & 15);
    }
    bits = __float_as_uint(size);
    bits += 0x7ffffu + (bits >> 20 & 1); /* to 3 bits of mantissa */
    return sign | ((bits >> 20) - (120u << 3));
}

__device__ static inline uint32_t fp8_pair(float a, float b)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
    uint16_t pair;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(b), "f"(a));
    return pair;
#else
    return fp8_of(a) | fp8_of(b) << 8;
#endif
}

/* Eight of a row from k on, zeros past n. */
__device__ static inline void load_8(float *v, const uint16_t *x, uint32_t k, uint32_t n)
{
    if (n % 8 == 0 && k < n) {
        uint4 w = *(const uint4 *)(x + k);
        uint32_t pairs[4] = { w.x, w.y, w.z, w.w };
#pragma unroll
        for (int i = 0; i < 4; i++) {
            v[2 * i] = bf16_low(pairs[i]);
            v[2 * i + 1] = bf16_high(pairs[i]);
        }
        return;
    }
    for (uint32_t i = 0; i < 8; i++)
        v[i] = k + i < n ? bf16_f32(x[k + i]) : 0.0f;
}

__global__ void __launch_bounds__(FP8_THREADS)
    quantize_kernel(uint8_t *out, float *scale, const uint16_t *x, uint32_t n_in, uint32_t stride)
{
    GPU_SHARED(float, tops, FP8_THREADS / 32);
    const uint16_t *row = x + (size_t)blockIdx.x * n_in;
    float top = 0, v[8];

    for (uint32_t k = threadIdx.x * 8; k < n_in; k += FP8_THREADS * 8) {
        load_8(v, row, k, n_in);
#pragma unroll
        for (int i = 0; i < 8; i++)
            top = fmaxf(top, fabsf(v[i]));
    }
    top = warp_max(top);
    if (threadIdx.x % 32 == 0)
        tops[threadIdx.x / 32] = top;
    __syncthreads();
    for (int i = 0; i < FP8_THREADS / 32; i++)
        top = fmaxf(top, tops[i]);
    float by = top > 0 ? FP8_MAX / top : 0.0f;
    if (threadIdx.x == 0)
        scale[blockIdx.x] = top / FP8_MAX;
    for (uint32_t k = threadIdx.x * 8; k < stride; k += FP8_THREADS * 8) {
        load_8(v, row, k, n_in);
        uint2 bytes;
        bytes.x = fp8_pair(v[0] * by, v[1] * by) | fp8_pair(v[2] * by, v[3] * by) << 16;
        bytes.y = fp8_pair(v[4] * by, v[5] * by) | fp8_pair(v[6] * by, v[7] * by) << 16;
        *(uint2 *)(out + (size_t)blockIdx.x * stride + k) = bytes;
    }
}

void cuda_quantize_rows(struct dev_stream *s, uint8_t *out, float *scale, const uint16_t *x, uint32_t n_tok, uint32_t n_in,
                        uint32_t stride)
{
    GPU_LAUNCH(quantize_kernel, n_tok, FP8_THREADS, 0, (gpu_stream)s, out, scale, x, n_in, stride);
}

__global__ void __launch_bounds__(FP8_THREADS)
    scale_both_kernel(void *out, int out_f32, const float *rows, const float *columns, uint32_t n_out)
{
    uint32_t i = blockIdx.x * FP8_THREADS + threadIdx.x;
    size_t at = (size_t)blockIdx.y * n_out + i;

    if (i >= n_out)
        return;
    float by = rows[blockIdx.y] * columns[i];
    if (out_f32)
        ((float *)out)[at] *= by;
    else
        ((uint16_t *)out)[at] = bf16_of(bf16_f32(((uint16_t *)out)[at]) * by);
}

void cuda_scale_both(struct dev_stream *s, void *out, int out_f32, const float *rows, const float *columns, uint32_t n_tok,
                     uint32_t n_out)
{
    size_t row_bytes = (size_t)n_out * (out_f32 ? 4 : 2);

    for (uint32_t t = 0; t < n_tok; t += 32768) { /* a grid is no higher than 65535 */
        uint32_t n = n_tok - t < 32768 ? n_tok - t : 32768;
        GPU_LAUNCH(scale_both_kernel, dim3(gpu_ceil_div(n_out, FP8_THREADS), n), FP8_THREADS, 0, (gpu_stream)s,
                   (char *)out + t * row_bytes, out_f32, rows + t, columns, n_out);
    }
}
