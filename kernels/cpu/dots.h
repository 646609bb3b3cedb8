/* dots.h - products and attention by AVX-512 dot products of narrow numbers: VDPBF16PS of bf16 pairs, VPDPBUSD of bytes.
 *
 * Activations are rounded to what the weights are multiplied with at full speed: to bf16 beside weights of bf16, to 8 bits with a
 * scale for each SPAN inputs of a token beside Q8 and Q4. Whoever wants more of them takes cpu_ops_vnni (struct
 * weir_backend_opts: exact).
 *
 * Tokens are taken in blocks, 4 (bytes) or 8 (bf16) together as long as there are so many, then 4, 2, 1. A block's activations lie
 * input by input, so that a tile reads one stream of them; a block begins at its first token times what a token takes. */
#ifndef WEIR_KERNELS_CPU_DOTS_H
#define WEIR_KERNELS_CPU_DOTS_H

#include "kernels/cpu/ops.h"

#define TILE_PANELS 3   /* panels that share an activation */
#define SPAN QUANT_UNIT /* inputs of a token that share a scale */

/* Of n tokens that are left, those of the next block. */
static inline uint32_t block_tokens(uint32_t n, uint32_t max)
{
    uint32_t width = max;

    while (width > n)
        width /= 2;
    return width;
}

/* Of n panels that are left, those of the next tile: a single one is the slowest. */
static inline uint32_t tile_panels(uint32_t n)
{
    return n == TILE_PANELS + 1 ? 2 : n < TILE_PANELS ? n : TILE_PANELS;
}

/* The panel that block number i of a tile's tokens fetches for the next tile: one each, from the second block on; else one that
 * lies there already. */
static inline uint32_t later_panel(uint32_t panel, uint32_t n_panel, uint32_t i, uint32_t end)
{
    uint32_t later = panel + n_panel + i - 1;

    return i >= 1 && i <= TILE_PANELS && later < end ? later : panel;
}

/* dots_bf16.c */
size_t dots_bf16_prepared_bytes(const struct weir_matrix *m);
void dots_bf16_prepare(const float *x, const struct weir_matrix *m, uint32_t n_tok, uint32_t begin,
                       uint32_t end, void *to);
void dots_bf16_linear(float *out, const struct weir_matrix *m, uint32_t n_tok, uint32_t begin, uint32_t end,
                      const void *prepared);

/* dots_bytes.c */
size_t dots_bytes_prepared_bytes(const struct weir_matrix *m);
size_t dots_bytes_own_bytes(const struct weir_matrix *m);
void dots_bytes_prepare(const float *x, const struct weir_matrix *m, uint32_t n_tok, uint32_t begin,
                        uint32_t end, void *to);
void dots_bytes_linear(float *out, const struct weir_matrix *m, uint32_t n_tok, uint32_t begin, uint32_t end,
                       const void *prepared, void *own);

/* attend_dots.c: keys and values of bf16; d_head a multiple of 16, at most ATTEND_DOTS_D_MAX. */
#define ATTEND_DOTS_D_MAX 256
void attend_dots(const struct attend_job *job);

#endif
