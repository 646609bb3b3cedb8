/* plugin.c - finds and loads libweir_cuda.so: next to the program, or in ../lib of there. It stays loaded. */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "kernels/cpu/cpu_int.h"
#include "kernels/cuda/plugin.h"

static const struct weir_plugin_host host = { group_size, group_broken, weir_group_break, weir_half_to_f32 };

const struct weir_plugin_host *weir_plugin_host(void)
{
    return &host;
}

/* The folder of the program, without a slash at its end. */
static bool program_dir(char *ret, size_t size)
{
    ssize_t n = readlink("/proc/self/exe", ret, size - 1);

    if (n <= 0)
        return false;
    ret[n] = 0;
    char *slash = strrchr(ret, '/');
    if (!slash)
        return false;
    *slash = 0;
    return true;
}

static void *load(struct weir_why *why)
{
    static const char *const places[] = { "", "../lib/" };
    char dir[3072], path[4096];
    const char *said = NULL;

    if (!program_dir(dir, sizeof dir))
        dir[0] = 0;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        snprintf(path, sizeof path, "%s/%slibweir_cuda.so", dir, places[i]);
        if (access(path, F_OK) != 0)
            continue;
        void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (library)
            return library;
        said = dlerror();
    }
    if (said)
        weir_fail(why, WEIR_UNAVAILABLE, "cuda: the library does not load: %s", said);
    else
        weir_fail(why, WEIR_UNAVAILABLE,
                  "cuda: there is no libweir_cuda.so beside the program: it was built without CUDA");
    return NULL;
}

weir_err weir_backend_cuda_open(const struct weir_backend_opts *opts, struct weir_backend **ret,
                                struct weir_why *why)
{
    void *library = load(why);
    weir_plugin_fn *open;

    if (!library)
        return WEIR_UNAVAILABLE;
    *(void **)&open = dlsym(library, WEIR_PLUGIN_SYMBOL);
    if (!open)
        return weir_fail(why, WEIR_BADVERSION, "cuda: libweir_cuda.so is not a back end of Weir's");
    return open(WEIR_BACKEND_ABI, &host, opts, ret, why);
}
