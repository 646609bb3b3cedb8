/* kernels.h - the operations a model is made of, as a plain-C table that every back end fills.
 *
 * Three phases. pack: weights into the back end's own layout, once. alloc: the buffers of a step, at fixed addresses, once.
 * run: the operations below, in order, on one thread; a back end spreads each over its own workers.
 *
 * THE BIT LAW. In every operation the order of summation for an output row depends on the weight's shape and on
 * absolute positions only: never on how many tokens are in the batch, where a prompt was cut, or how many threads there
 * are. So a row's bits are the same alone and in company. Each operation has a float64 twin in kernels/ref.h.
 *
 * Shapes are row-major, the last dimension contiguous; activations are f32 and live in memory from alloc (64-byte
 * aligned). Buffers may not overlap unless it says so. All run on the step thread. */
#ifndef WEIR_KERNELS_KERNELS_H
#define WEIR_KERNELS_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#ifdef __cplusplus
extern "C" {
#endif

#define WEIR_KV_BLOCK 16   /* tokens in a KV page */
#define WEIR_HEAD_MAX 1024 /* numbers in a head */

enum weir_dtype { WEIR_F32, WEIR_F16, WEIR_BF16 };
static inline size_t weir_dtype_size(enum weir_dtype dtype)
{
    return dtype == WEIR_F32 ? 4 : 2;
}

/* A bf16 or f16 number as f32; exact. */
float weir_half_to_f32(uint16_t half, enum weir_dtype dtype);

struct weir_matrix; /* packed weights [n_out, n_in] */

/* Source rows of a packed matrix: parts are stacked along n_out (q, k, v; gate, up). */
struct weir_weights {
    const void *data; /* [n_out, n_in], little-endian, may be unaligned */
    enum weir_dtype dtype;
    uint32_t n_out;
};

/* The tokens of one step: each is one row of every activation. */
struct weir_batch {
    uint32_t n_tok;
    const int32_t *ids; /* [n_tok] */
    const int32_t *pos; /* [n_tok] absolute position, from 0 */
    const int32_t *seq; /* [n_tok] row of `table` */
    const int32_t
        *table; /* [n_seq, n_block_max] page numbers; entries past a sequence's last page are not read */
    uint32_t n_block_max;
};

/* Where a layer's keys and values are, f32: values in pages [n_block, n_kv_head, WEIR_KV_BLOCK, d_head], keys in as many
 * numbers a page, laid out as the back end likes. */
struct weir_kv_pages {
    float *k, *v;
};

struct weir_attn_dims {
    uint32_t n_head, n_kv_head,
        d_head; /* n_head is a multiple of n_kv_head; d_head of 2, at most WEIR_HEAD_MAX */
};

struct weir_backend {
    const char *name; /* "cpu avx512", ... */
    void *ctx;
    void (*close)(struct weir_backend *be);

    void *(*alloc)(struct weir_backend *be, size_t bytes); /* NULL: no memory; contents undefined */
    void (*free)(struct weir_backend *be, void *ptr);

    /* WEIR_NOMEM. The source is not needed afterwards. bf16 stays bf16; f16 and f32 become f32. */
    weir_err (*pack)(struct weir_backend *be, const struct weir_weights *parts, int n_parts, uint32_t n_in,
                     struct weir_matrix **ret);
    void (*unpack)(struct weir_backend *be, struct weir_matrix *m); /* frees; takes NULL */

    /* out [n_tok, n_in] = rows of the table m [vocab, n_in]; ids are in range. */
    void (*embed)(struct weir_backend *be, float *out, const struct weir_matrix *m, const int32_t *ids,
                  uint32_t n_tok);
    /* out [n_tok, n] = x / sqrt(mean(x^2) + eps) * weight [n]; out may be x. Source: Zhang and Sennrich 2019. */
    void (*rmsnorm)(struct weir_backend *be, float *out, const float *x, const float *weight, uint32_t n_tok,
                    uint32_t n, float eps);
    /* out [n_tok, n_out] = x [n_tok, n_in] * m^T, or with add: out += that. Sums run along n_in in order. */
    void (*linear)(struct weir_backend *be, float *out, const float *x, const struct weir_matrix *m,
                   uint32_t n_tok, int add);
    /* qkv [n_tok, (n_head + 2 n_kv_head) * d_head]: rotates q in place; rotates k and writes k and v into the pages.
     * cos, sin [n_ctx, d_head / 2]; halves are rotated (Su et al. 2021, as Llama lays it out). */
    void (*rope_store)(struct weir_backend *be, float *qkv, const float *cos, const float *sin,
                       const struct weir_kv_pages *kv, const struct weir_batch *batch,
                       const struct weir_attn_dims *dims);
    /* out [n_tok, n_head * d_head]: token i attends to positions 0..pos[i] of its sequence; q is in qkv. Softmax online,
     * a page at a time from position 0 (Milakov and Gimelshein 2018; paging: Kwon et al. 2023). */
    void (*attention)(struct weir_backend *be, float *out, const float *qkv, const struct weir_kv_pages *kv,
                      const struct weir_batch *batch, const struct weir_attn_dims *dims, float scale);
    /* out [n_tok, n] = silu(gate_up[:, :n]) * gate_up[:, n:2n]. */
    void (*silu_mul)(struct weir_backend *be, float *out, const float *gate_up, uint32_t n_tok, uint32_t n);
    /* Copies one page of every layer given: for a sequence that forks. */
    void (*copy_page)(struct weir_backend *be, const struct weir_kv_pages *kv,
                      const struct weir_attn_dims *dims, uint32_t from, uint32_t to);
};

/* n_threads 0 = one a core. The instruction set is chosen at run time; WEIR_CPU=generic|avx2|avx512|amx in the
 * environment asks for a smaller one. WEIR_NOMEM, WEIR_IO (threads). */
WEIR_MUST_CHECK weir_err weir_backend_cpu_open(uint32_t n_threads, struct weir_backend **ret,
                                               struct weir_why *why);
void weir_backend_close(struct weir_backend *be); /* takes NULL */

#ifdef __cplusplus
}
#endif
#endif
