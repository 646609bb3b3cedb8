/* amx_emu.h - AMX tiles by plain code, under the names of the intrinsics: the files that use tiles are tested with it on machines that
 * have none (WEIR_AMX_EMU; kernels/CMakeLists.txt). It is in no program that serves.
 *
 *   [E1] A configuration is held to: shapes that do not fit together, which a machine would not take, end the program.
 *   [E2] Products are those of the machine to the bit ([X2] in ops_amx.c); rows and columns past a tile's shape are zeros.
 * Each file that includes it has tiles of its own, one set a thread.
 * Source: Intel Architecture Instruction Set Extensions. */
#ifndef WEIR_KERNELS_CPU_AMX_EMU_H
#define WEIR_KERNELS_CPU_AMX_EMU_H

#include <immintrin.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define EMU_TILES 8
#define EMU_ROWS 16
#define EMU_ROW_BYTES 64

static __thread struct {
    uint16_t row_bytes[EMU_TILES]; /* 0: not configured */
    uint8_t rows[EMU_TILES];
    uint8_t data[EMU_TILES][EMU_ROWS][EMU_ROW_BYTES] __attribute__((aligned(64)));
} emu;

static inline void emu_configure(const uint16_t *row_bytes, const uint8_t *rows)
{
    memset(&emu, 0, sizeof emu);
    for (int t = 0; t < EMU_TILES; t++) {
        if (row_bytes[t] > EMU_ROW_BYTES || rows[t] > EMU_ROWS)
            abort();
        emu.row_bytes[t] = row_bytes[t];
        emu.rows[t] = rows[t];
    }
}

static inline void emu_release(void)
{
    memset(&emu, 0, sizeof emu);
}

static inline void emu_zero(int t)
{
    if (!emu.row_bytes[t])
        abort();
    memset(emu.data[t], 0, sizeof emu.data[t]);
}

static inline void emu_load(int t, const void *from, size_t stride)
{
    emu_zero(t);
    for (size_t r = 0; r < emu.rows[t]; r++)
        memcpy(emu.data[t][r], (const char *)from + r * stride, emu.row_bytes[t]);
}

static inline void emu_store(int t, void *to, size_t stride)
{
    if (!emu.row_bytes[t])
        abort();
    for (size_t r = 0; r < emu.rows[t]; r++)
        memcpy((char *)to + r * stride, emu.data[t][r], emu.row_bytes[t]);
}

/* [E1] */
static inline void emu_check(int sum, int a, int b)
{
    if (!emu.row_bytes[sum] || emu.rows[a] != emu.rows[sum] || emu.row_bytes[b] != emu.row_bytes[sum] ||
        emu.row_bytes[a] != 4 * emu.rows[b] || sum == a || sum == b || a == b)
        abort();
}

static inline void emu_bf16(int sum, int a, int b)
{
    const __m512i high = _mm512_set1_epi32((int)0xffff0000u);
    unsigned mode = _mm_getcsr();

    emu_check(sum, a, b);
    _mm_setcsr((mode & ~0x6000u) | 0x8040); /* to nearest; denormal numbers are zeros */
    for (int r = 0; r < emu.rows[sum]; r++) {
        __m512 even = _mm512_setzero_ps(), odd = _mm512_setzero_ps();
        for (int k = 0; k < emu.rows[b]; k++) {
            int32_t pair;
            memcpy(&pair, emu.data[a][r] + 4 * k, sizeof pair);
            __m512i x = _mm512_set1_epi32(pair), w = _mm512_load_si512(emu.data[b][k]);
            even = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(x, 16)),
                                   _mm512_castsi512_ps(_mm512_slli_epi32(w, 16)), even);
            odd = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_and_si512(x, high)),
                                  _mm512_castsi512_ps(_mm512_and_si512(w, high)), odd);
        }
        __m512 before = _mm512_load_ps(emu.data[sum][r]);
        _mm512_store_ps(emu.data[sum][r], _mm512_add_ps(before, _mm512_add_ps(even, odd)));
    }
    _mm_setcsr(mode);
}

/* a u8, b s8. */
static inline void emu_bytes(int sum, int a, int b)
{
    emu_check(sum, a, b);
    for (int r = 0; r < emu.rows[sum]; r++) {
        int32_t *sums = (int32_t *)(void *)emu.data[sum][r];
        for (int k = 0; k < emu.rows[b]; k++)
            for (int c = 0; c < emu.row_bytes[sum] / 4; c++)
                for (int i = 0; i < 4; i++)
                    sums[c] += emu.data[a][r][4 * k + i] * (int8_t)emu.data[b][k][4 * c + i];
    }
}

#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#undef _tile_dpbusd
#define _tile_release emu_release
#define _tile_zero emu_zero
#define _tile_loadd emu_load
#define _tile_stored emu_store
#define _tile_dpbf16ps emu_bf16
#define _tile_dpbusd emu_bytes

#endif
