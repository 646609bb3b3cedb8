/* tiny_model.h - random small models in a temporary folder: config.json and model.safetensors.
 *
 * A weight is a function of (seed, tensor's name, index) alone, so that a test can compute with the same numbers. */
#ifndef WEIR_TESTS_SUPPORT_TINY_MODEL_H
#define WEIR_TESTS_SUPPORT_TINY_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TINY_DIR_MAX 64

struct tiny_shape {
    uint32_t n_layer, n_head, n_kv_head, d_head, d_model, d_ffn, n_vocab, n_context;
    bool tied;
    const char *dtype; /* "F32", "F16" or "BF16" */
    const char *more;  /* members for config.json, each followed by a comma; NULL = none */
    uint64_t seed;
};

/* 2 layers, 4 heads over 2, 16 wide each, 64 wide, 96 hidden, 97 tokens, 256 positions, not tied, bf16. */
struct tiny_shape tiny_shape(void);
/* Writes the folder; its name into `dir`. Aborts when the disk says no. */
void tiny_model_write(char dir[TINY_DIR_MAX], const struct tiny_shape *shape);
/* One file of the folder, replaced. */
void tiny_file_write(const char *dir, const char *name, const void *data, size_t len);
void tiny_model_remove(const char *dir);
/* What element i of the tensor is, as stored. */
double tiny_weight(const struct tiny_shape *shape, const char *tensor, size_t i);

#endif
