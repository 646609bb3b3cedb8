/* cuda_int.h - what the parts of the CUDA back end share: the kernels' launchers (*.cu), the device (dev.h) and the table (cuda.c).
 *
 * All pointers are the device's, except where it says host. A launcher starts its kernel on the stream and returns; a launch
 * that failed shows at dev_check(). Every one follows the bit law: a row's sums run in an order that depends on its own width
 * and positions alone, so the grid (how many rows, splits, blocks) may be chosen freely. */
#ifndef WEIR_KERNELS_CUDA_CUDA_INT_H
#define WEIR_KERNELS_CUDA_CUDA_INT_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

#define CUDA_RUN 64          /* tokens of one sequence that attend together, at most */
#define CUDA_ATTN_TILE 64    /* positions of one partial softmax: 4 pages */
#define CUDA_ATTN_WARPS 8    /* that attention wants of a multiprocessor, to keep it busy */
#define CUDA_D_MAX 256       /* numbers in a head */
#define CUDA_K_UNIT 64       /* a packed row ends on a multiple of so many inputs */
#define CUDA_Q4_UNIT 128     /* one of 4 bits */
#define CUDA_SMALL_TOKENS 16 /* up to so many rows the streaming product is used for bf16 */
#define CUDA_RANKS_MAX 16

struct dev_stream;

/* Tokens [first, first + n) are of one sequence; n = 0: nothing. */
struct cuda_run {
    int32_t first, n;
};

/* A step's batch on the device, at fixed addresses. Past the step's own tokens (a replayed step may be padded) ids and seq
 * are 0, pos is -1: such a row writes no keys and attends to nothing. */
struct cuda_batch {
    const int32_t *ids, *pos, *seq; /* [n_tok] */
    const int32_t *table;           /* [n_seq, n_block_max] */
    const struct cuda_run *runs;    /* [n_run] */
    uint32_t n_tok, n_run, n_block_max;
    uint32_t run_max;   /* the longest run */
    uint32_t n_pos_max; /* no token is at this position or after; rounded up, so that few graphs serve all */
};

/* Numbers a head takes in a page: d_head with zeros behind. 0: too many. */
uint32_t cuda_d_pad(uint32_t d_head);

/* Weights, [n_out][stride]: stride is n_in rounded up to CUDA_K_UNIT (Q4: to CUDA_Q4_UNIT), zeros behind. Q4: 32 inputs are 16 bytes,
 * of each 8 input j in bits 4 (j / 2) + 16 (j % 2) of a word, plus 8; they share a multiplier (q4.h). */
enum cuda_kind { CUDA_BF16, CUDA_Q8, CUDA_FP8, CUDA_Q4 };
struct cuda_weights {
    const void *data;
    const float *scale;         /* [n_out]; NULL for bf16 */
    const uint8_t *multipliers; /* Q4: [n_out][stride / 32] */
    uint32_t n_out, n_in, stride;
    enum cuda_kind kind;
};

/* ---- rows.cu ---- */
void cuda_embed(struct dev_stream *s, uint16_t *out, const struct cuda_weights *w,
                const struct cuda_batch *batch);
void cuda_add_rmsnorm(struct dev_stream *s, uint16_t *out, uint16_t *x, const uint16_t *delta,
                      const float *weight, uint32_t n_tok, uint32_t n, float eps);
/* out [n, width] = norm of rows rows[i] of x. */
void cuda_gather_rmsnorm(struct dev_stream *s, uint16_t *out, const uint16_t *x, const int32_t *rows,
                         uint32_t n_rows, const float *weight, uint32_t n, float eps);
void cuda_silu_mul(struct dev_stream *s, uint16_t *out, const uint16_t *gate_up, uint32_t n_tok, uint32_t n);

void cuda_add_bias(struct dev_stream *s, uint16_t *x, const float *bias, uint32_t n_tok, uint32_t n);

/* ---- attn.cu ---- */
void cuda_qkv_store(struct dev_stream *s, uint16_t *qkv, const struct weir_qkv *how, uint16_t *k, uint16_t *v,
                    const struct cuda_batch *batch, const struct weir_attn_dims *dims);
struct cuda_attn {
    uint16_t *out;
    const uint16_t *qkv, *k, *v;
    struct cuda_batch batch;
    struct weir_attn_dims dims;
    float scale;
    float *work; /* for partial softmaxes */
    size_t work_bytes;
    uint32_t
        n_warp_wanted; /* how many keep the device busy: long sequences are split until there are so many */
};
void cuda_attention(struct dev_stream *s, const struct cuda_attn *a);

/* ---- gemm.cu ---- */
/* out [n_tok, n_out] = x [n_tok, n_in] * w^T, by streaming the weights once for each 64 tokens. out is bf16, or f32. */
void cuda_stream_linear(struct dev_stream *s, void *out, int out_f32, const uint16_t *x,
                        const struct cuda_weights *w, uint32_t n_tok);

/* ---- fp8.cu ---- */
/* out [n_tok, stride] e4m3 = x [n_tok, n_in] / scale[t], zeros behind; scale [n_tok] makes the largest of a row 448. */
void cuda_quantize_rows(struct dev_stream *s, uint8_t *out, float *scale, const uint16_t *x, uint32_t n_tok,
                        uint32_t n_in, uint32_t stride);
/* out [n_tok, n_out] (bf16, or f32) *= rows[t] * columns[i]. */
void cuda_scale_both(struct dev_stream *s, void *out, int out_f32, const float *rows, const float *columns,
                     uint32_t n_tok, uint32_t n_out);

/* ---- moe.cu ---- */
void cuda_route(struct dev_stream *s, int32_t *expert, float *weight, const uint16_t *logits, uint32_t n_tok,
                uint32_t n_expert, uint32_t n_used, int renormalize);
struct cuda_experts {
    const struct cuda_weights *gate_up, *down; /* [n_expert] */
    uint32_t n_expert, n_used, d_model, d_ffn;
    enum cuda_kind kind;
    /* Workspace for n_tok * n_used pairs of a token and its expert: */
    int32_t *begin;       /* [n_expert + 1] */
    int32_t *pairs;       /* pair numbers, by expert, in order of tokens */
    uint16_t *gate, *act; /* [pairs, 2 d_ffn], [pairs, d_ffn] */
    float *y;             /* [pairs, d_model] */
};
void cuda_experts_run(struct dev_stream *s, uint16_t *out, const uint16_t *x, const struct cuda_experts *e,
                      const int32_t *expert, const float *weight, uint32_t n_tok);

/* ---- sample.cu ---- */
struct cuda_sample_in {
    const float *logits; /* [.., stride] */
    uint32_t stride, n_vocab, n;
    const struct weir_draw *draws; /* [n], and what they point to, of the device */
    float *work;                   /* [n, n_vocab] */
};
void cuda_sample_run(struct dev_stream *s, struct weir_drawn *out, const struct cuda_sample_in *in);
/* ids[i] = drawn[from[i]].id where from[i] is not -1; 0 for a token that is none. */
void cuda_take_drawn(struct dev_stream *s, int32_t *ids, const int32_t *from, const struct weir_drawn *drawn,
                     uint32_t n);

/* ---- reduce.cu ---- */
struct cuda_peers {
    uint16_t *slots[CUDA_RANKS_MAX]; /* of each rank, two halves of `n_slot` numbers; mapped here */
    uint32_t *flags[CUDA_RANKS_MAX]; /* of each rank: [CUDA_REDUCE_BLOCKS][n_ranks] */
    uint32_t *epochs;                /* own, [CUDA_REDUCE_BLOCKS] */
    uint32_t *broken;                /* own: not 0 when a wait was given up */
    uint32_t *told;                  /* own, of the host: the same; NULL: nobody is told */
    uint32_t rank, n_ranks, n_slot;
    uint64_t patience_ns;
};
#define CUDA_REDUCE_BLOCKS 36
/* x [n] = sum over ranks in their order, n <= n_slot; every rank launches it. A peer that does not come within patience_ns
 * sets *broken and *told and ends it. */
void cuda_one_shot_reduce(struct dev_stream *s, uint16_t *x, uint32_t n, const struct cuda_peers *peers);
/* out [n] = sum of srcs[r] [n], r in order. */
void cuda_sum_ranks(struct dev_stream *s, uint16_t *out, const uint16_t *const *srcs_host, uint32_t n_ranks,
                    size_t n);
/* out [n_rows, n_ranks * n]: columns [rank * n, ..) from part [n_rows, n]. */
void cuda_place_columns(struct dev_stream *s, float *out, const float *part, uint32_t rank, uint32_t n_ranks,
                        uint32_t n_rows, uint32_t n);

#ifdef __cplusplus
}
#endif
#endif
