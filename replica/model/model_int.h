/* model_int.h - what loading fills and running reads. */
#ifndef WEIR_REPLICA_MODEL_MODEL_INT_H
#define WEIR_REPLICA_MODEL_MODEL_INT_H

#include "replica/model/model.h"

struct layer {
    float *attn_norm, *mlp_norm; /* [d_model] */
    float *qkv_bias, *out_bias;  /* NULL = none; out_bias on rank 0 alone: the sum over ranks has it once */
    float *q_norm, *k_norm;      /* [d_head]; NULL = none */
    struct weir_matrix *qkv, *out;
    struct weir_matrix *gate_up, *down;                          /* dense layers */
    struct weir_matrix *router, **expert_gate_up, **expert_down; /* sparse ones: [n_expert] */
    struct weir_attn_dims dims;
    struct weir_kv_pages kv;
};

struct model {
    struct model_config config;
    struct model_limits limits;
    struct shard shard;
    struct weir_backend *be;
    struct weir_matrix *embed, *head; /* head == embed when tied and whole */
    float *final_norm, *cos, *sin;
    struct layer *layers;
    /* activations of a step, of the back end's dtype */
    void *x, *delta, *normed, *qkv, *attended, *gate_up, *act, *routes;
    int32_t *expert; /* [n_tok_max, n_used] */
    float *expert_weight;
    float *share;  /* [n_logits_max, vocab_rows] this rank's logits */
    float *logits; /* [n_logits_max, n_ranks * vocab_rows]; == share when alone */
    float *narrow; /* here, [n_logits_max, n_vocab]; NULL: logits are no wider */
    uint64_t n_params, weight_bytes;
};

/* Fills a zeroed model that has config, limits, shard and be. */
WEIR_MUST_CHECK weir_err model_load(struct model *m, const struct safetensors *weights, enum weir_quant quant,
                                    struct weir_why *why);

#endif
