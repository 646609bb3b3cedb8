/* safetensors.h - the tensors of a folder by name: model.safetensors, or shards by model.safetensors.index.json; mapped.
 *
 * Everything a file says is checked against the file's size before it is used: header length, offsets in order and within the
 * data, shapes whose product is the bytes claimed. Constant after opening; any thread. */
#ifndef WEIR_REPLICA_MODEL_SAFETENSORS_H
#define WEIR_REPLICA_MODEL_SAFETENSORS_H

#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "kernels/kernels.h"

#define TENSOR_DIMS_MAX 4

struct tensor {
    struct weir_str name;
    const void *data; /* in the mapping; may be unaligned */
    enum weir_dtype dtype;
    uint32_t n_dims;
    uint64_t dims[TENSOR_DIMS_MAX];
};

struct safetensors;

/* WEIR_IO; WEIR_CORRUPT: the file, the tensor and the offset are named. WEIR_UNIMPLEMENTED: a dtype we don't read. */
WEIR_MUST_CHECK weir_err safetensors_open(const char *dir, struct safetensors **ret, struct weir_why *why);
void safetensors_close(struct safetensors *st); /* unmaps; takes NULL */
const struct tensor *safetensors_find(const struct safetensors *st,
                                      const char *name); /* NULL: no such tensor */
size_t safetensors_count(const struct safetensors *st);
const struct tensor *safetensors_at(const struct safetensors *st, size_t i);    /* in the order of names */
size_t safetensors_index(const struct safetensors *st, const struct tensor *t); /* of one that was found */
/* Tells the kernel that all tensors with this prefix will be read soon, or are not needed for now. */
void safetensors_will_read(const struct safetensors *st, const char *prefix);
void safetensors_have_read(const struct safetensors *st, const char *prefix);
uint64_t safetensors_bytes(const struct safetensors *st); /* of all tensors */
/* SHA-256 over the headers and sizes: cheap, and different for any two sets of weights that are laid out differently or
 * were saved with different names. */
const uint8_t *safetensors_hash(const struct safetensors *st);

/* One file's header (the JSON after the length): appends to `list`. For the loader and its fuzzer. `data` is where offset 0 is
 * and n_data how many bytes there are. */
struct tensor_list {
    struct tensor *items;
    size_t n, cap;
};
WEIR_MUST_CHECK weir_err safetensors_parse_header(const char *json, size_t len, const char *data,
                                                  uint64_t n_data, struct weir_arena *arena,
                                                  struct tensor_list *list, struct weir_why *why);

#endif
