/* ops.h - the inner loops, once for each instruction set: ops_body.h is compiled three times, and ops_amx.c adds its own
 * product to the widest. */
#ifndef WEIR_KERNELS_CPU_OPS_H
#define WEIR_KERNELS_CPU_OPS_H

#include "kernels/kernels.h"

#define PANEL 16 /* rows of a matrix side by side */
#define PREPARE_TOKENS 128
#define PREPARE_UNIT 16
#define PAIRS_UNIT 16 /* a panel of bf16 ends on a multiple of so many pairs of inputs */

/* f32: panels [n_panel][n_in][PANEL]. bf16: [n_panel][n_pair][PANEL][2], two inputs of a row side by side, so that one load
 * brings both and each is widened by one operation; it is the layout of AMX tiles, too. What is past n_out and n_in is 0. */
struct weir_matrix {
    uint32_t n_out, n_in, n_panel, n_pair;
    enum weir_dtype dtype; /* WEIR_BF16 or WEIR_F32 */
    size_t bytes;
    void *data;
};

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
    /* Panels [begin, end) of out = x * m^T. `prepared` is what prepare() made of x, where there is one. */
    void (*linear)(float *out, const float *x, const struct weir_matrix *m, uint32_t n_tok, uint32_t begin,
                   uint32_t end, const void *prepared);
    /* NULL: `linear` reads x itself. Else tokens [begin, end) of x, at most PREPARE_TOKENS, as it wants them; past n_tok they
     * are zeros, and all up to a multiple of PREPARE_UNIT are wanted. prepared_bytes 0: not for this matrix. */
    size_t (*prepared_bytes)(const struct weir_matrix *m);
    void (*prepare)(const float *x, const struct weir_matrix *m, uint32_t n_tok, uint32_t begin, uint32_t end,
                    void *to);
    void (*rmsnorm)(float *out, const float *x, const float *weight, uint32_t n,
                    float eps); /* one row; out may be x */
    void (*attend)(const struct attend_job *job);
    void (*silu_mul)(float *out, const float *gate, const float *up, uint32_t n);
};

extern const struct cpu_ops cpu_ops_generic, cpu_ops_avx2, cpu_ops_avx512, cpu_ops_amx;
/* Asks the kernel for the tiles; false: this machine or this kernel has none. Before the workers start. */
int cpu_amx_allowed(void);

#endif
