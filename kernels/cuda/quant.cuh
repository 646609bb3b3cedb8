/* quant.cuh - packed weights as numbers: bf16; int8, e4m3 and 4 bits times their multiplier, which are exact in bf16 before the
 * scale of their row. */
#pragma once

#include "kernels/cuda/cuda_int.h"
#include "kernels/cuda/gpu.cuh"

/* e4m3 to f32: exponent bias 7, no infinities. Its bits, moved into those of f16 with bias 15, are a 2^8th of it. */
__device__ static inline float fp8_f32(uint32_t byte)
{
    uint32_t exponent = byte >> 3 & 15, mantissa = byte & 7;
    float value;

    if (exponent == 0) /* subnormal: mantissa * 2^-9 */
        value = (float)mantissa * 0.001953125f;
    else
        value = __uint_as_float((exponent + 120) << 23 | mantissa << 20);
    if ((byte & 0x7f) == 0x7f)
        value = __uint_as_float(0x7fc00000u);
    return byte & 0x80 ? -value : value;
}

__device__ static inline float byte_value(enum cuda_kind kind, uint32_t byte)
{
    return kind == CUDA_Q8 ? (float)(int8_t)byte : fp8_f32(byte);
}

__device__ static inline float weight_at(const struct cuda_weights *w, size_t row, uint32_t i)
{
    size_t at = row * w->stride + i;

    if (w->kind == CUDA_BF16)
        return bf16_f32(((const uint16_t *)w->data)[at]);
    if (w->kind == CUDA_Q4) {
        uint32_t word = ((const uint32_t *)w->data)[at / 8], j = at % 8;
        int nibble = (int)(word >> (4 * (j / 2) + 16 * (j % 2)) & 15) - 8;
        return (float)(nibble * (int)w->multipliers[at / 32]) * w->scale[row];
    }
    return byte_value(w->kind, ((const uint8_t *)w->data)[at]) * w->scale[row];
}
