/* cpu_int.h - what the files of the CPU back end share.
 *
 * Work is split by panels (products), tokens (norms), or runs of tokens x KV heads (attention); a part's result never depends
 * on the split, which is how the bit law survives any number of threads. Activations are f32; memory is plain, 64-byte aligned. */
#ifndef WEIR_KERNELS_CPU_CPU_INT_H
#define WEIR_KERNELS_CPU_CPU_INT_H

#include <stdbool.h>

#include "kernels/cpu/ops.h"
#include "kernels/cpu/pool.h"

#define SMALL_JOB 16384
#define HEAD_ROWS 64 /* rows that head norms at once */

/* Memory that grows to what was asked of it. */
struct scratch {
    void *data;
    size_t bytes;
};

struct cpu {
    struct weir_backend be;
    const struct cpu_ops *ops;
    struct pool *pool;
    struct weir_group *group; /* NULL: alone */
    enum weir_dtype kv;
    struct scratch prepared; /* what ops->prepare makes of a block of tokens */
    struct scratch rows;     /* HEAD_ROWS of the widest matrix: head's */
    struct scratch own;      /* own_bytes for each worker: what ops->linear wants */
    size_t own_bytes;
    struct scratch experts;
    bool failed; /* an operation had no memory: end() and map() tell */
};

static inline struct cpu *cpu_of(const struct weir_backend *be)
{
    return be->ctx;
}

/* For be->free; NULL: no memory. */
void *cpu_alloc_weights(struct weir_backend *be, size_t bytes);
/* NULL: no memory; what it had is kept. */
void *scratch_grow(struct scratch *s, size_t bytes);

/* Small jobs are done at once: to call the others costs more than it brings. `work` is in numbers touched. */
static inline void cpu_run(struct cpu *cpu, void (*fn)(void *arg, uint32_t i, uint32_t n), void *job,
                           uint64_t work)
{
    if (work < SMALL_JOB)
        fn(job, 0, 1);
    else
        pool_run(cpu->pool, fn, job);
}

/* pack.c */
weir_err cpu_pack(struct weir_backend *be, const struct weir_weights *parts, int n_parts, uint32_t n_in,
                  enum weir_quant quant, struct weir_matrix **ret);
void cpu_unpack(struct weir_backend *be, struct weir_matrix *m);
uint64_t cpu_matrix_bytes(const struct weir_matrix *m);
void matrix_row(const struct weir_matrix *m, uint32_t row, float *out); /* [n_in], as f32 */

/* product.c */
void cpu_embed(struct weir_backend *be, void *out, const struct weir_matrix *m,
               const struct weir_batch *batch);
void cpu_linear(struct weir_backend *be, void *out, const void *x, const struct weir_matrix *m,
                uint32_t n_tok);
void cpu_head(struct weir_backend *be, float *out, const void *x, const int32_t *rows, uint32_t n,
              const float *norm, float eps, const struct weir_matrix *m);

/* rows.c */
void cpu_add_rmsnorm(struct weir_backend *be, void *out, void *x, const void *delta, const float *weight,
                     uint32_t n_tok, uint32_t n, float eps);
void cpu_silu_mul(struct weir_backend *be, void *out, const void *gate_up, uint32_t n_tok, uint32_t n);
void cpu_add_bias(struct weir_backend *be, void *x, const float *bias, uint32_t n_tok, uint32_t n);

/* experts.c */
void cpu_route(struct weir_backend *be, int32_t *expert, float *weight, const void *logits, uint32_t n_tok,
               uint32_t n_expert, uint32_t n_used, int renormalize);
void cpu_experts(struct weir_backend *be, void *out, const void *x, const struct weir_experts *experts,
                 const int32_t *expert, const float *weight, uint32_t n_tok);

/* attend.c */
size_t cpu_kv_page_bytes(const struct weir_backend *be, const struct weir_attn_dims *dims);
void cpu_qkv_store(struct weir_backend *be, void *qkv, const struct weir_qkv *how,
                   const struct weir_kv_pages *kv, const struct weir_batch *batch,
                   const struct weir_attn_dims *dims);
void cpu_attention(struct weir_backend *be, void *out, const void *qkv, const struct weir_kv_pages *kv,
                   const struct weir_batch *batch, const struct weir_attn_dims *dims, float scale);
void cpu_copy_page(struct weir_backend *be, const struct weir_kv_pages *kv, const struct weir_attn_dims *dims,
                   uint32_t from, uint32_t to);

/* group.c */
uint32_t group_size(const struct weir_group *group); /* 1 for NULL */
bool group_broken(const struct weir_group *group);   /* false for NULL */
void cpu_all_reduce(struct weir_backend *be, void *x, size_t n);
void cpu_all_gather(struct weir_backend *be, float *out, const float *x, uint32_t n_rows, uint32_t n);

#endif
