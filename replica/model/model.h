/* model.h - packed weights and the graph of a model, written once over kernels.h.
 *
 * Owned by the step thread after opening. */
#ifndef WEIR_REPLICA_MODEL_MODEL_H
#define WEIR_REPLICA_MODEL_MODEL_H

#include "kernels/kernels.h"
#include "replica/model/config.h"

struct model;

struct model_limits {
    uint32_t n_tok_max;    /* rows of one forward */
    uint32_t n_logits_max; /* rows of one model_logits */
    uint32_t n_blocks;     /* KV pages of each layer */
};

/* Loads and packs <dir>. The back end outlives the model. WEIR_IO, WEIR_CORRUPT, WEIR_UNIMPLEMENTED, WEIR_NOMEM. */
WEIR_MUST_CHECK weir_err model_open(const char *dir, const struct model_config *config,
                                    struct weir_backend *be, const struct model_limits *limits,
                                    struct model **ret, struct weir_why *why);
void model_close(struct model *m); /* takes NULL */

/* Computes the batch: writes its keys and values, keeps the last hidden states for model_logits. */
void model_forward(struct model *m, const struct weir_batch *batch);
/* Logits [n, n_vocab] of the given rows of the last forward; valid until the next call. n <= n_logits_max. */
const float *model_logits(struct model *m, const int32_t *rows, uint32_t n);
/* Copies a KV page in every layer. */
void model_copy_page(struct model *m, uint32_t from, uint32_t to);

uint64_t model_n_params(const struct model *m);
uint64_t model_weight_bytes(const struct model *m);
const uint8_t *model_weights_hash(const struct model *m);
/* Bytes of KV that one token takes over all layers. */
uint64_t model_kv_token_bytes(const struct model_config *config);

#endif
