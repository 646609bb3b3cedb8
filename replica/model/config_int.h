/* config_int.h - what config.json says, word by word, before the family's rules are applied to it. */
#ifndef WEIR_REPLICA_MODEL_CONFIG_INT_H
#define WEIR_REPLICA_MODEL_CONFIG_INT_H

#include "replica/model/config.h"

#define SAID_NOTHING (-1) /* the member is missing; 0 = it is null */

struct config_said {
    int64_t n_kv_head, d_head, window, n_window_from;  /* SAID_NOTHING, 0 or the number */
    double rms_eps, rope_theta, rope_theta_inner;      /* NaN = nothing */
    uint32_t original_context, original_context_inner; /* 0 = nothing */
    char rope_type[32];
    double rope_factor, mscale, mscale_all_dim, attention_factor; /* NaN = nothing */
    bool use_window, attention_bias;
    uint32_t sparse_step;
    int32_t n_layer_kinds;               /* SAID_NOTHING, or so many of layer_types */
    bool layer_slides[MODEL_LAYERS_MAX]; /* layer_types */
    bool layer_dense[MODEL_LAYERS_MAX];  /* mlp_only_layers */
};

/* Finds the family and completes `c` from what was said; `c` has the sizes, eos_ids and the rope's own members.
 * WEIR_CORRUPT, WEIR_UNIMPLEMENTED. */
WEIR_MUST_CHECK weir_err family_apply(const struct config_said *said, struct model_config *c,
                                      struct weir_why *why);

#endif
