/* plugin.h - between the program and the CUDA back end, which is a library of its own (libweir_cuda.so), loaded when it is asked for.
 *
 * The library has one symbol. It and the program are built from one tree; WEIR_BACKEND_ABI is checked all the same. */
#ifndef WEIR_KERNELS_CUDA_PLUGIN_H
#define WEIR_KERNELS_CUDA_PLUGIN_H

#include "kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

#define WEIR_PLUGIN_SYMBOL "weir_backend_plugin"

/* What the library needs of the program's own objects. */
struct weir_plugin_host {
    uint32_t (*group_size)(const struct weir_group *group); /* 1 for NULL */
    bool (*group_broken)(const struct weir_group *group);
    void (*group_break)(struct weir_group *group);
    float (*half_to_f32)(uint16_t half, enum weir_dtype dtype);
};

/* `abi` is the caller's. WEIR_UNAVAILABLE: no device, no driver; `why` says it. WEIR_BADVERSION. WEIR_INVALID, WEIR_NOMEM. */
typedef weir_err weir_plugin_fn(uint32_t abi, const struct weir_plugin_host *host,
                                const struct weir_backend_opts *opts, struct weir_backend **ret,
                                struct weir_why *why);

/* The symbol; the library alone has it. */
__attribute__((visibility("default"))) weir_plugin_fn weir_backend_plugin;

/* The program's own (plugin.c). */
const struct weir_plugin_host *weir_plugin_host(void);
/* What the library does behind its symbol, once the version is right; in programs that test it over the emulator, too (cuda.c). */
weir_err cuda_open(const struct weir_plugin_host *host, const struct weir_backend_opts *opts,
                   struct weir_backend **ret, struct weir_why *why);

#ifdef __cplusplus
}
#endif
#endif
