/* plugin_main.c - the one symbol of libweir_cuda.so. */
#include "kernels/cuda/cuda_be.h"

weir_err weir_backend_plugin(uint32_t abi, const struct weir_plugin_host *host,
                             const struct weir_backend_opts *opts, struct weir_backend **ret,
                             struct weir_why *why)
{
    if (abi != WEIR_BACKEND_ABI)
        return weir_fail(why, WEIR_BADVERSION,
                         "cuda: the library has version %d of the back end's table, the program %u",
                         WEIR_BACKEND_ABI, abi);
    return cuda_open(host, opts, ret, why);
}
