/* ops.h - the inner loops, once for each instruction set: ops_body.h is compiled three times; ops_vnni.c, ops_dots.c and
 * ops_amx.c add their own products to the widest. */
#ifndef WEIR_KERNELS_CPU_OPS_H
#define WEIR_KERNELS_CPU_OPS_H

#include "kernels/kernels.h"

#define PANEL 16 /* rows of a matrix side by side */
#define PREPARE_TOKENS 256
#define PREPARE_UNIT 16
#define PAIRS_UNIT 16 /* a panel of bf16 ends on a multiple of so many pairs of inputs */
#define QUANT_UNIT 64 /* a panel of integers ends on a multiple of so many inputs */
#define GROUP 32      /* inputs of a row that share a multiplier in Q4 */
#define QUANT_WIDE                                                                                           \
    3072 /* inputs of a quantized matrix from which on half of PREPARE_TOKENS fill the second cache */
#define QUANT_IN_MAX 65536 /* inputs of a quantized matrix: sums of u8 * s8 must fit in 32 bits */

/* Panels of PANEL rows; what is past n_out and n_in is 0.
 * f32: [n_in][PANEL]. bf16: [n_pair][PANEL][2], two inputs of a row side by side, so that one load brings both and each is
 * widened by one operation; it is the layout of AMX tiles, too.
 * Q8: [n_wide / 4][PANEL][4] s8, a scale for each row. Q4: [n_wide / 8][PANEL][4] bytes, input k + j in the low nibble of byte
 * j and k + 4 + j in the high one, both plus 8; [n_wide / GROUP][PANEL] multipliers m of 1 to 15, and a scale for each row. A
 * weight of Q4 is scale * m * (nibble - 8), so that it is a weight of Q8, too: the integer m * (nibble - 8) fits in 8 bits. */
struct weir_matrix {
    uint32_t n_out, n_in, n_panel, n_pair, n_wide; /* n_pair of bf16; n_wide of Q8 and Q4: n_in rounded up */
    enum weir_dtype dtype;                         /* of NATIVE: WEIR_BF16 or WEIR_F32 */
    enum weir_quant quant;
    size_t bytes;
    void *data;
    uint8_t *multipliers; /* of Q4; within data */
    float *scales;        /* [n_panel * PANEL] of Q8 and Q4; within data */
    int32_t *sums;        /* the same: of a row's integers */
};

static inline size_t panel_bytes(const struct weir_matrix *m)
{
    size_t per_row = m->quant == WEIR_Q8     ? m->n_wide
                     : m->quant == WEIR_Q4   ? m->n_wide / 2
                     : m->dtype == WEIR_BF16 ? 4 * (size_t)m->n_pair
                                             : 4 * (size_t)m->n_in;
    return per_row * PANEL;
}

/* Tokens that are prepared at once: enough to make a weight's way from memory worth it, and no more than the caches keep. */
static inline uint32_t prepare_tokens(const struct weir_matrix *m)
{
    return m->quant != WEIR_NATIVE && m->n_wide > QUANT_WIDE ? PREPARE_TOKENS / 2 : PREPARE_TOKENS;
}

/* Tokens that follow each other in one sequence, and one KV head: all the query heads that share it. */
struct attend_job {
    float *out;     /* of the first token's first head; [n_tok, ld_out] */
    const float *q; /* the same; [n_tok, ld_q] */
    size_t ld_out, ld_q;
    const void *k, *v; /* pages */
    enum weir_dtype kv;
    const int32_t *table;
    uint32_t n_tok, i_kv_head;
    int32_t pos; /* of the first token */
    const struct weir_attn_dims *dims;
    float scale;
};

struct cpu_ops {
    const char *name;
    /* Panels [begin, end) of out = x * m^T. `prepared` is what prepare() made of x, where there is one; `own` has own_bytes()
     * for this worker alone. */
    void (*linear)(float *out, const float *x, const struct weir_matrix *m, uint32_t n_tok, uint32_t begin,
                   uint32_t end, const void *prepared, void *own);
    /* NULL: `linear` reads x itself. Else tokens [begin, end) of x, whole PREPARE_UNITs and at most PREPARE_TOKENS, as it wants them; past n_tok they
     * are zeros. prepared_bytes 0: not for this matrix. */
    size_t (*prepared_bytes)(const struct weir_matrix *m);
    void (*prepare)(const float *x, const struct weir_matrix *m, uint32_t n_tok, uint32_t begin, uint32_t end,
                    void *to);
    size_t (*own_bytes)(const struct weir_matrix *m); /* a multiple of 64; NULL: none */
    void (*rmsnorm)(float *out, const float *x, const float *weight, uint32_t n,
                    float eps); /* one row; out may be x */
    void (*attend)(const struct attend_job *job);
    void (*silu_mul)(float *out, const float *gate, const float *up, uint32_t n);
};

extern const struct cpu_ops cpu_ops_generic, cpu_ops_avx2, cpu_ops_avx512, cpu_ops_vnni, cpu_ops_dots,
    cpu_ops_amx;
/* Asks the kernel for the tiles; false: this machine or this kernel has none. Before the workers start. */
int cpu_amx_allowed(void);

/* Products of Q8 and Q4 in integers, shared by ops_vnni.c and ops_amx.c; see integers.h. */
size_t vnni_prepared_bytes(const struct weir_matrix *m);
void vnni_prepare(const float *x, const struct weir_matrix *m, uint32_t n_tok, uint32_t begin, uint32_t end,
                  void *to);
size_t vnni_own_bytes(const struct weir_matrix *m);
void vnni_linear(float *out, const float *x, const struct weir_matrix *m, uint32_t n_tok, uint32_t begin,
                 uint32_t end, const void *prepared, void *own);

#endif
