/* config.h - config.json and generation_config.json of a Hugging Face folder: shapes, family, defaults.
 *
 * What a family leaves out is filled in as the reference implementation of that family does, so that what is here is
 * complete: the graph reads nothing else. */
#ifndef WEIR_REPLICA_MODEL_CONFIG_H
#define WEIR_REPLICA_MODEL_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

#define MODEL_EOS_MAX 16
#define MODEL_LAYERS_MAX 1024
#define MODEL_EXPERTS_MAX 256

/* How positions turn into angles: see rope.h. */
struct model_rope {
    enum model_rope_kind { MODEL_ROPE_DEFAULT, MODEL_ROPE_LINEAR, MODEL_ROPE_LLAMA3, MODEL_ROPE_YARN } kind;
    double theta, factor;
    double low_freq_factor, high_freq_factor; /* llama3 */
    double beta_fast, beta_slow;              /* yarn, with the next two */
    double attention_factor;                  /* times cosines and sines; 1 but for yarn */
    bool truncate;
    uint32_t original_context; /* llama3, yarn */
};

/* Names of a family's tensors, and what its layers have; family.c. */
struct model_family {
    const char *architecture;    /* as config.json calls it */
    bool qkv_bias;               /* always; others by `attention_bias` */
    bool qk_norm;                /* RMSNorm of each head of q and k */
    bool sparse;                 /* has experts; these are theirs: */
    const char *router, *expert; /* "mlp.gate", "mlp.experts": behind the layer's name */
    const char *expert_gate, *expert_up, *expert_down;
};

enum { MODEL_LAYER_SLIDES = 1, MODEL_LAYER_SPARSE = 2 };

struct model_config {
    char architecture[64];
    const struct model_family *family;
    uint32_t n_layer, n_head, n_kv_head, d_head, d_model, d_ffn, n_vocab, n_context;
    float rms_eps;
    struct model_rope rope;
    bool tied;                        /* the head is the embedding */
    bool qkv_bias, out_bias;          /* of attention's products */
    uint32_t window;                  /* of layers that slide: positions seen, oneself included */
    uint8_t layers[MODEL_LAYERS_MAX]; /* MODEL_LAYER_* of each */
    uint32_t n_expert, n_used,
        d_expert;     /* of sparse layers: experts, how many a token takes, numbers between gate and down */
    bool renormalize; /* the weights of those taken have the sum 1 */
    int32_t eos_ids[MODEL_EOS_MAX];
    int n_eos_ids;
    /* generation_config.json; NaN or -1 where it says nothing */
    double temperature, top_p, min_p;
    int top_k;
};

/* WEIR_IO: no config.json. WEIR_CORRUPT: malformed, or a shape that can't be. WEIR_UNIMPLEMENTED: a family or a feature
 * we don't have; `why` names it. */
WEIR_MUST_CHECK weir_err model_config_load(const char *dir, struct model_config *ret, struct weir_why *why);

/* The same from texts; an empty `generation`: there is none. */
WEIR_MUST_CHECK weir_err model_config_parse(struct weir_str config, struct weir_str generation,
                                            struct model_config *ret, struct weir_why *why);

/* The whole of a file, NUL-terminated, at most `max` bytes; weir_free it. WEIR_IO, WEIR_CORRUPT (larger), WEIR_NOMEM. */
WEIR_MUST_CHECK weir_err model_read_file(const char *dir, const char *name, size_t max, char **ret,
                                         size_t *ret_len, struct weir_why *why);

#endif
