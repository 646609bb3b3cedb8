/* ops.h - the inner loops, once for each instruction set: ops_body.h is compiled three times. */
#ifndef WEIR_KERNELS_CPU_OPS_H
#define WEIR_KERNELS_CPU_OPS_H

#include "kernels/kernels.h"

#define PANEL 16 /* rows of a matrix side by side: one vector */

/* Panels [n_panel][n_in][PANEL] of bf16 bits or f32; rows past n_out are zero. */
struct weir_matrix {
    uint32_t n_out, n_in, n_panel;
    enum weir_dtype dtype; /* WEIR_BF16 or WEIR_F32 */
    void *data;
};

struct cpu_ops {
    const char *name;
    /* Panels [begin, end) of out = x * m^T. */
    void (*linear)(float *out, const float *x, const struct weir_matrix *m, uint32_t n_tok, int add,
                   uint32_t begin, uint32_t end);
    void (*rmsnorm)(float *out, const float *x, const float *weight, uint32_t n, float eps); /* one row */
    /* One token, one KV head: all the query heads that share it. */
    void (*attend)(float *out, const float *q, const float *k, const float *v, const int32_t *table,
                   int32_t pos, uint32_t i_kv_head, const struct weir_attn_dims *dims, float scale);
    void (*silu_mul)(float *out, const float *gate, const float *up, uint32_t n);
};

extern const struct cpu_ops cpu_ops_generic, cpu_ops_avx2, cpu_ops_avx512;

#endif
