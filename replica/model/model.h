/* model.h - packed weights and the graph of a model, written once over kernels.h.
 *
 * One rank's share of it: with several ranks (replica/parallel) each opens one of these on its own back end, and all are
 * called alike and in the same order; the collectives of the graph meet. Opened and used by the rank's own thread. */
#ifndef WEIR_REPLICA_MODEL_MODEL_H
#define WEIR_REPLICA_MODEL_MODEL_H

#include "kernels/kernels.h"
#include "replica/model/config.h"
#include "replica/model/safetensors.h"
#include "replica/parallel/shard.h"

struct model;

struct model_limits {
    uint32_t n_tok_max;    /* rows of one forward */
    uint32_t n_logits_max; /* rows of one model_logits */
    uint32_t n_blocks;     /* KV pages of each layer */
    uint32_t n_draws_max;  /* results of a set of model_draw; 0: the host draws */
    size_t list_bytes;     /* of the lists of one model_draw */
};

/* Packs the share of be's rank. The weights are not needed afterwards; the back end outlives the model. WEIR_CORRUPT: a
 * tensor is missing or has another shape than config.json says. WEIR_UNIMPLEMENTED: a tensor of a layer that this graph
 * would not use, or the back end lacks the quantization or an operation. WEIR_INVALID (shard_of), WEIR_NOMEM. */
WEIR_MUST_CHECK weir_err model_open(const struct safetensors *weights, const struct model_config *config,
                                    struct weir_backend *be, enum weir_quant quant,
                                    const struct model_limits *limits, struct model **ret,
                                    struct weir_why *why);
void model_close(struct model *m); /* takes NULL */

/* Computes the batch: writes its keys and values, keeps the last hidden states for model_logits. WEIR_IO: the device or
 * another rank failed; the model is of no more use. */
WEIR_MUST_CHECK weir_err model_forward(struct model *m, const struct weir_batch *batch, struct weir_why *why);
/* Logits [n, n_vocab] of the given rows of the last forward; valid until the next call. n <= n_logits_max. NULL as `ret`: only
 * this rank's share is computed, for another rank that asks. WEIR_IO as above. */
WEIR_MUST_CHECK weir_err model_logits(struct model *m, const int32_t *rows, uint32_t n, const float **ret,
                                      struct weir_why *why);
/* As model_logits, but they stay where they are, for model_row and model_draw until the next call of this or of model_logits. */
void model_head(struct model *m, const int32_t *rows, uint32_t n);
/* Row i of these [n_vocab], until the next call of anything. NULL: as WEIR_IO above. */
const float *model_row(struct model *m, uint32_t i);
/* As sample() and drawn() of kernels.h, from these. */
void model_draw(struct model *m, uint32_t set, uint32_t first, const struct weir_draw *draws, uint32_t n);
const struct weir_drawn *model_drawn(struct model *m, uint32_t set);
/* Copies a KV page in every layer. */
void model_copy_page(struct model *m, uint32_t from, uint32_t to);

uint64_t model_n_params(const struct model *m);     /* of the whole model */
uint64_t model_weight_bytes(const struct model *m); /* of this rank, as packed */
/* Bytes of a KV page over all layers on the back end's rank. */
uint64_t model_page_bytes(const struct model_config *config, const struct weir_backend *be,
                          const struct shard *shard);

#endif
