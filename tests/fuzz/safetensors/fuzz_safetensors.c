/* fuzz_safetensors.c - a header that anybody wrote: what is accepted lies within the data, all of it readable.
 *
 * The first two bytes say how much data there is; the rest is the header's JSON. Refusals come with a reason. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "replica/model/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "violated: %s\n", what);
        abort();
    }
}

static void check(const struct tensor *t, const char *block, size_t n_block)
{
    uint64_t bytes = weir_dtype_size(t->dtype);
    const char *at = t->data;
    unsigned sum = 0;

    require(t->n_dims <= TENSOR_DIMS_MAX, "few dimensions");
    for (uint32_t i = 0; i < t->n_dims; i++) {
        require(t->dims[i] == 0 || bytes <= UINT64_MAX / t->dims[i], "no overflow");
        bytes *= t->dims[i];
    }
    require(at >= block && at <= block + n_block && bytes <= (uint64_t)(block + n_block - at),
            "within the data");
    for (uint64_t i = 0; i < bytes; i++)
        sum += (unsigned char)at[i]; /* under AddressSanitizer a byte outside would show */
    require(sum <= 255 * n_block, "the bytes are there");
    require(t->name.len == 0 || t->name.ptr != NULL, "a name");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct weir_arena arena;
    struct tensor_list list = { 0 };
    struct weir_why why = { 0 };

    if (size < 2)
        return 0;
    size_t n_block = (size_t)data[0] | (size_t)data[1] << 8;
    char *block = calloc(n_block ? n_block : 1, 1);
    char *json = malloc(size - 1); /* an exact copy: reading past it shows */
    memcpy(json, data + 2, size - 2);
    weir_arena_init(&arena, 0);
    weir_err err = safetensors_parse_header(json, size - 2, block, n_block, &arena, &list, &why);
    require(err == WEIR_OK || err == WEIR_CORRUPT || err == WEIR_UNIMPLEMENTED || err == WEIR_NOMEM,
            "a fitting error");
    require(err == WEIR_OK || why.text[0] != '\0', "a reason");
    for (size_t i = 0; err == WEIR_OK && i < list.n; i++)
        check(&list.items[i], block, n_block);
    weir_free(list.items);
    weir_arena_release(&arena);
    free(block);
    free(json);
    return 0;
}
