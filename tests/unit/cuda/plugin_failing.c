/* plugin_failing.c - libweir_cuda.so over the emulator, for a whole weir-replica; its device fails when told to.
 *
 * WEIR_EMULATED_FAILS=<n> in the environment: results of drawn tokens are not there from the n-th time on. */
#include <stdlib.h>

#include "kernels/cuda/cuda_be.h"

static const struct weir_drawn *(*real_drawn)(struct weir_backend *be, uint32_t set);
static long n_left = -1; /* before it fails; negative: never */

static const struct weir_drawn *drawn(struct weir_backend *be, uint32_t set)
{
    if (n_left == 0)
        cuda_fail(cuda_of(be), WEIR_IO, "told to fail");
    n_left -= n_left > 0;
    return real_drawn(be, set);
}

weir_err weir_backend_plugin(uint32_t abi, const struct weir_plugin_host *host,
                             const struct weir_backend_opts *opts, struct weir_backend **ret,
                             struct weir_why *why)
{
    const char *fails = getenv("WEIR_EMULATED_FAILS");
    weir_err err = abi == WEIR_BACKEND_ABI ? cuda_open(host, opts, ret, why) : WEIR_BADVERSION;

    if (err != WEIR_OK)
        return err;
    n_left = fails ? strtol(fails, NULL, 10) : -1;
    real_drawn = (*ret)->drawn;
    (*ret)->drawn = drawn;
    return WEIR_OK;
}
