/* kernels.h - the operations a model is made of, as a plain-C table that every back end fills.
 *
 * Three phases. pack: weights into the back end's own layout, once. alloc: the buffers of a step, at fixed addresses, once.
 * run: begin, the operations below in order, end; all on one thread; a back end spreads each over its own workers, or
 * records them once and replays them.
 *
 * THE BIT LAW. In every operation the order of summation for an output row depends on the weight's shape and on
 * absolute positions only: never on how many tokens are in the batch, where a prompt was cut, or how many threads there
 * are. So a row's bits are the same alone and in company. Each operation has a float64 twin in kernels/ref.h.
 *
 * Shapes are row-major, the last dimension contiguous. Activations (`act`) are of the back end's own dtype, be->act, and
 * live in memory from alloc (64-byte aligned; of the device, perhaps: only map() makes it readable here). Vectors of
 * weights (norms, biases, rope tables) are f32 from upload(). Buffers may not overlap unless it says so. */
#ifndef WEIR_KERNELS_KERNELS_H
#define WEIR_KERNELS_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#ifdef __cplusplus
extern "C" {
#endif

#define WEIR_BACKEND_ABI 5 /* of this table; a plug-in of another one is refused */
#define WEIR_KV_BLOCK 16   /* tokens in a KV page */
#define WEIR_HEAD_MAX 1024 /* numbers in a head */
#define WEIR_EXPERTS_MAX 256
#define WEIR_TOPS_MAX 5 /* likeliest tokens that are told beside one */

enum weir_dtype { WEIR_F32, WEIR_F16, WEIR_BF16 };
static inline size_t weir_dtype_size(enum weir_dtype dtype)
{
    return dtype == WEIR_F32 ? 4 : 2;
}

/* A bf16 or f16 number as f32; exact. */
float weir_half_to_f32(uint16_t half, enum weir_dtype dtype);

/* How packed weights are kept. NATIVE: bf16 stays bf16; f16 and f32 become what the back end multiplies best without loss it
 * would show. Q8, Q4: integers with a scale for each row or group of inputs (the back end says which). FP8: e4m3 with a
 * scale a row. */
enum weir_quant { WEIR_NATIVE, WEIR_Q8, WEIR_Q4, WEIR_FP8 };

struct weir_matrix; /* packed weights [n_out, n_in] */

/* Source rows of a packed matrix: parts are stacked along n_out (q, k, v; gate, up). */
struct weir_weights {
    const void *data; /* n_out rows of n_in numbers, little-endian, may be unaligned */
    enum weir_dtype dtype;
    uint32_t n_out;
    uint64_t stride; /* numbers from row to row; n_in, or more for a rank's share of the columns */
};

/* The tokens of one step: each is one row of every activation. Host memory; begin() takes it to the device. */
struct weir_batch {
    uint32_t n_tok;
    const int32_t *ids; /* [n_tok] */
    const int32_t *pos; /* [n_tok] absolute position, from 0 */
    const int32_t *seq; /* [n_tok] row of `table`; the tokens of a sequence follow each other */
    const int32_t
        *table; /* [n_seq, n_block_max] page numbers; entries past a sequence's last page are not read */
    uint32_t n_seq, n_block_max;
    /* [n_tok] -1: the id is in ids; else it is the one of result drawn[i] of the latest sample(), which this host need not
     * know yet. NULL: all are in ids, as ever where the back end has no sample(). */
    const int32_t *drawn;
};

/* A layer's keys and values in pages: kv_page_bytes() each, keys and values alike, laid out as the back end likes. */
struct weir_kv_pages {
    void *k, *v;
};

struct weir_attn_dims {
    uint32_t n_head, n_kv_head,
        d_head;      /* n_head is a multiple of n_kv_head; d_head of 2, at most WEIR_HEAD_MAX */
    uint32_t window; /* a token sees so many positions, itself included; 0 = all */
};

/* What happens between the product and attention, in this order: bias, norm of each head, rotation, store. */
struct weir_qkv {
    const float *bias;            /* [(n_head + 2 n_kv_head) * d_head]; NULL = none */
    const float *q_norm, *k_norm; /* [d_head] each, RMSNorm of every head; NULL = none */
    float eps;
    const float *cos,
        *sin; /* [n_ctx, d_head / 2]; halves are rotated (Su et al. 2021, as Llama lays it out) */
};

/* A layer's experts: each is gate and up stacked [2 d_ffn, d_model], and down [d_model, d_ffn]. */
struct weir_experts {
    const struct weir_matrix *const *gate_up, *const *down; /* [n_expert] */
    uint32_t n_expert, n_used, d_model, d_ffn;
};

/* ---- drawing tokens ---- */
struct weir_logit_bias {
    int32_t id;
    float bias; /* added to the token's logit */
};
struct weir_seen {
    int32_t id;
    uint32_t n_out; /* times in the output; 0: in the prompt alone */
};

/* How one token is drawn; what is done in which order is that of replica/engine/adjust.h and sample.h. Lists have each id
 * once. */
struct weir_draw {
    double temperature, top_p, min_p;       /* as in sample.h; temperature 0: greedy */
    double repetition, frequency, presence; /* repetition 1, the others 0: off */
    uint64_t seed;
    uint32_t choice, position;
    int32_t top_k;
    int32_t row; /* of the logits */
    const struct weir_seen *seen;
    const struct weir_logit_bias *bias;
    const int32_t *bans;  /* ids that may not come */
    const uint32_t *mask; /* [(n_vocab + 31) / 32] ids whose bit is 0 may not come; NULL: all may */
    uint32_t n_seen, n_bias, n_bans;
    bool logprob;    /* wanted */
    uint32_t n_tops; /* wanted beside it, WEIR_TOPS_MAX at most */
};
struct weir_top_logprob {
    int32_t id;
    float logprob;
};
struct weir_drawn {
    int32_t id;    /* -1: a logit is NaN, or none is finite */
    float logprob; /* of it, in the logits as they were given; 0: not wanted */
    /* [n_tops] the likeliest in the logits as they were given, best first, ties by the lower id; id -1 past the vocabulary, or
     * where the logits say nothing */
    struct weir_top_logprob tops[WEIR_TOPS_MAX];
};

struct weir_backend {
    const char *name; /* "cpu avx512", "cuda H200", ... */
    enum weir_dtype act;
    uint32_t rank, n_ranks;
    void *ctx;
    void (*close)(struct weir_backend *be);

    void *(*alloc)(struct weir_backend *be, size_t bytes); /* NULL: no memory; contents undefined */
    void (*free)(struct weir_backend *be, void *ptr);      /* takes NULL */
    float *(*upload)(struct weir_backend *be, const float *host,
                     size_t n); /* a vector of weights; NULL: no memory */
    size_t (*kv_page_bytes)(const struct weir_backend *be, const struct weir_attn_dims *dims);

    /* WEIR_NOMEM; WEIR_UNIMPLEMENTED: this back end has no such quant. The source is not needed afterwards. */
    weir_err (*pack)(struct weir_backend *be, const struct weir_weights *parts, int n_parts, uint32_t n_in,
                     enum weir_quant quant, struct weir_matrix **ret);
    void (*unpack)(struct weir_backend *be, struct weir_matrix *m); /* frees; takes NULL */
    uint64_t (*matrix_bytes)(const struct weir_matrix *m);          /* what one product with it reads */

    /* Opens a step. 1: this back end has recorded the operations of such a step and replays them: skip to end(). A step is
     * embed up to the last layer; head, sample, all_gather and map come after end(), which waits for nothing. */
    int (*begin)(struct weir_backend *be, const struct weir_batch *batch);
    /* Closes it. WEIR_IO: the device or another rank failed, or had no memory, in this step or before: the back end is of no
     * more use. */
    weir_err (*end)(struct weir_backend *be, struct weir_why *why);
    /* The buffer where the host can read it, after what was asked before has run; until the next operation. NULL: failed. */
    const void *(*map)(struct weir_backend *be, const void *buf, size_t bytes);

    /* out act [n_tok, n_in] = rows of the table m [vocab, n_in] for the batch's ids, which are in range. */
    void (*embed)(struct weir_backend *be, void *out, const struct weir_matrix *m,
                  const struct weir_batch *batch);
    /* x act [n_tok, n] += delta [n_tok, n] (NULL = nothing); out act [n_tok, n] = x / sqrt(mean(x^2) + eps) * weight [n].
     * Source: Zhang and Sennrich 2019. */
    void (*add_rmsnorm)(struct weir_backend *be, void *out, void *x, const void *delta, const float *weight,
                        uint32_t n_tok, uint32_t n, float eps);
    /* out act [n_tok, n_out] = x act [n_tok, n_in] * m^T. Sums run along n_in in order. */
    void (*linear)(struct weir_backend *be, void *out, const void *x, const struct weir_matrix *m,
                   uint32_t n_tok);
    /* out f32 [n, n_out] = rms-normed rows `rows` [n] of x act [.., n_in] times m^T: the head, for rows that sample. */
    void (*head)(struct weir_backend *be, float *out, const void *x, const int32_t *rows, uint32_t n,
                 const float *norm, float eps, const struct weir_matrix *m);
    /* qkv act [n_tok, (n_head + 2 n_kv_head) * d_head]: q is changed in place, k and v go to the pages (and may be changed). */
    void (*qkv_store)(struct weir_backend *be, void *qkv, const struct weir_qkv *how,
                      const struct weir_kv_pages *kv, const struct weir_batch *batch,
                      const struct weir_attn_dims *dims);
    /* out act [n_tok, n_head * d_head]: token i attends to positions 0..pos[i] of its sequence, or the last `window` of
     * them; q is in qkv. Softmax online, a page at a time from position 0 (Milakov and Gimelshein 2018; paging: Kwon et
     * al. 2023). */
    void (*attention)(struct weir_backend *be, void *out, const void *qkv, const struct weir_kv_pages *kv,
                      const struct weir_batch *batch, const struct weir_attn_dims *dims, float scale);
    /* out act [n_tok, n] = silu(gate_up[:, :n]) * gate_up[:, n:2n]. */
    void (*silu_mul)(struct weir_backend *be, void *out, const void *gate_up, uint32_t n_tok, uint32_t n);
    /* logits act [n_tok, n_expert]: softmax; the n_used most probable, best first, ties by the lower index, into
     * expert [n_tok, n_used] and weight f32 [n_tok, n_used] (of sum 1 when renormalize). */
    void (*route)(struct weir_backend *be, int32_t *expert, float *weight, const void *logits, uint32_t n_tok,
                  uint32_t n_expert, uint32_t n_used, int renormalize);
    /* out act [n_tok, d_model] = sum over j, in order, of weight[t][j] * ffn of expert[t][j] of x. */
    void (*experts)(struct weir_backend *be, void *out, const void *x, const struct weir_experts *experts,
                    const int32_t *expert, const float *weight, uint32_t n_tok);
    /* Copies one page of a layer: for a sequence that forks. Outside of a step. */
    void (*copy_page)(struct weir_backend *be, const struct weir_kv_pages *kv,
                      const struct weir_attn_dims *dims, uint32_t from, uint32_t to);

    /* Collectives: every rank calls them in the same order; with one rank they do nothing or copy. Sums run in the order of
     * ranks. all_reduce: x act [n] = sum over ranks, in place. all_gather: out f32 [n_rows, n_ranks * n] from x f32
     * [n_rows, n] of every rank. */
    void (*all_reduce)(struct weir_backend *be, void *x, size_t n);
    void (*all_gather)(struct weir_backend *be, float *out, const float *x, uint32_t n_rows, uint32_t n);

    /* x act [n_tok, n] += bias [n], in place. NULL: this back end has it not; a model that needs it (a bias behind attention's
     * output) is refused. */
    void (*add_bias)(struct weir_backend *be, void *x, const float *bias, uint32_t n_tok, uint32_t n);

    /* Tokens drawn where the logits are. All three are NULL where the host does it (CPU). Results are kept in two sets, used by
     * turns, so that those of a step can be read while the next one runs.
     *
     * sample_open: once, before the first sample(): up to n_draws_max results a set, of so many ids; the lists of one call's
     * draws take list_bytes at most, each rounded up to 8 bytes. WEIR_NOMEM. */
    weir_err (*sample_open)(struct weir_backend *be, uint32_t n_draws_max, uint32_t n_vocab,
                            size_t list_bytes, struct weir_why *why);
    /* Results [first, first + n) of the set, from logits [.., stride] that are left as they are; ids at n_vocab and above never
     * come. first == 0 begins the set anew; of n == 0 drawn() still waits for what was asked before. The draws and their lists
     * are not needed afterwards. Waits for nothing, unless a set's lists are many. */
    void (*sample)(struct weir_backend *be, uint32_t set, uint32_t first, const float *logits,
                   uint32_t stride, const struct weir_draw *draws, uint32_t n);
    /* The set's results, once they have come; until it is begun anew. NULL: failed, end() says why. */
    const struct weir_drawn *(*drawn)(struct weir_backend *be, uint32_t set);
};

/* Ranks of one process that meet in collectives; outlives their back ends. A rank that fails breaks the group: collectives
 * then return at once and end() says WEIR_IO. */
struct weir_group;
WEIR_MUST_CHECK weir_err weir_group_open(uint32_t n_ranks, struct weir_group **ret, struct weir_why *why);
void weir_group_break(struct weir_group *group); /* any thread */
void weir_group_close(struct weir_group *group); /* takes NULL */

struct weir_backend_opts {
    uint32_t n_threads;       /* CPU: 0 = one a core */
    struct weir_group *group; /* NULL = alone */
    uint32_t rank;
    enum weir_dtype
        kv; /* of keys and values: WEIR_F32 or WEIR_BF16; others are WEIR_INVALID. CUDA: bf16 whatever this says */
    bool
        deterministic; /* CUDA: the bit law for products with more than a few tokens, too, at a price. CPU: always */
    /* CPU: activations keep 16 bits or more. Else, where the machine has AVX-512 BF16 and no AMX, they are rounded to bf16 beside
     * weights of bf16 and in attention over bf16 pages, and to 8 bits with a scale for 64 inputs beside Q8 and Q4. */
    bool exact;
};
/* The instruction set is chosen at run time; WEIR_CPU=generic|avx2|avx512|avx512vnni|avx512bf16|amx in the environment asks for a smaller one.
 * WEIR_INVALID, WEIR_NOMEM, WEIR_IO (threads). */
WEIR_MUST_CHECK weir_err weir_backend_cpu_open(const struct weir_backend_opts *opts,
                                               struct weir_backend **ret, struct weir_why *why);
/* On an NVIDIA GPU: rank r takes device r. It is a library of its own, libweir_cuda.so, looked for beside the program and in
 * ../lib. WEIR_UNAVAILABLE: `why` says whether the library, the driver or the device is missing. WEIR_BADVERSION,
 * WEIR_INVALID, WEIR_NOMEM, WEIR_IO. */
WEIR_MUST_CHECK weir_err weir_backend_cuda_open(const struct weir_backend_opts *opts,
                                                struct weir_backend **ret, struct weir_why *why);
void weir_backend_close(struct weir_backend *be); /* takes NULL */

#ifdef __cplusplus
}
#endif
#endif
