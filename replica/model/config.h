/* config.h - config.json and generation_config.json of a Hugging Face folder: shapes, families, defaults. */
#ifndef WEIR_REPLICA_MODEL_CONFIG_H
#define WEIR_REPLICA_MODEL_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define MODEL_EOS_MAX 16

struct model_config {
    char architecture[64];
    uint32_t n_layer, n_head, n_kv_head, d_head, d_model, d_ffn, n_vocab, n_context;
    float rms_eps;
    double rope_theta;
    struct {
        bool llama3; /* the frequencies of long wavelengths are stretched; Llama 3.1 */
        double factor, low_freq_factor, high_freq_factor;
        uint32_t original_context;
    } rope;
    bool tied; /* the head is the embedding */
    int32_t eos_ids[MODEL_EOS_MAX];
    int n_eos_ids;
    /* generation_config.json; NaN or -1 where it says nothing */
    double temperature, top_p, min_p;
    int top_k;
};

/* WEIR_IO: no config.json. WEIR_CORRUPT: malformed, or a shape that can't be. WEIR_UNIMPLEMENTED: a family or a feature
 * we don't have; `why` names it. */
WEIR_MUST_CHECK weir_err model_config_load(const char *dir, struct model_config *ret, struct weir_why *why);

/* The whole of a file, NUL-terminated, at most `max` bytes; weir_free it. WEIR_IO. */
WEIR_MUST_CHECK weir_err model_read_file(const char *dir, const char *name, size_t max, char **ret,
                                         size_t *ret_len, struct weir_why *why);

#endif
