/* amx.h - what the files that use AMX tiles share. */
#ifndef WEIR_KERNELS_CPU_AMX_H
#define WEIR_KERNELS_CPU_AMX_H

#include <immintrin.h>

#include "kernels/cpu/ops.h"
#ifdef WEIR_AMX_EMU
#include "kernels/cpu/amx_emu.h"
#endif

#define AMX_ROWS 16  /* tokens, or queries, of a tile */
#define AMX_DEPTH 32 /* inputs of a tile of bf16 */
#define AMX_TILE_BYTES 1024
#define ATTEND_AMX_D_MAX 256

struct amx_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

/* GCC 12's intrinsics do not tell the compiler that tile loads read memory, nor that a configuration is longer than 8 bytes:
 * what was stored has to be in memory before, and it takes this to say so. */
#define AMX_STORED() __asm__ volatile("" ::: "memory")

static inline void amx_configure(const struct amx_config *config)
{
#ifdef WEIR_AMX_EMU
    emu_configure(config->row_bytes, config->rows);
#else
    __asm__ volatile("ldtilecfg %0" ::"m"(*config));
#endif
}

/* n numbers, up to 32, as bf16, and what the rounding left as bf16; zeros behind. */
static inline void amx_split(const float *x, uint32_t n, uint16_t *rounded, uint16_t *rest)
{
    __mmask16 first = (__mmask16)(n >= 16 ? 0xffff : (1u << n) - 1);
    __mmask16 second = (__mmask16)(n >= 32 ? 0xffff : n > 16 ? (1u << (n - 16)) - 1 : 0);
    __m512 a = _mm512_maskz_loadu_ps(first, x), b = _mm512_maskz_loadu_ps(second, x + 16);
    __m512i both = (__m512i)_mm512_cvtne2ps_pbh(b, a);
    __m512 a_back =
        _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(both)), 16));
    __m512 b_back =
        _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(both, 1)), 16));

    _mm512_storeu_si512(rounded, both);
    _mm512_storeu_si512(rest,
                        (__m512i)_mm512_cvtne2ps_pbh(_mm512_sub_ps(b, b_back), _mm512_sub_ps(a, a_back)));
}

/* Attention over pages of bf16, for heads of a multiple of 32 and at most ATTEND_AMX_D_MAX numbers. */
static inline int attend_amx_fits(const struct attend_job *job)
{
    return job->kv == WEIR_BF16 && job->dims->d_head % 32 == 0 && job->dims->d_head <= ATTEND_AMX_D_MAX;
}
void attend_amx(const struct attend_job *job);

#endif
