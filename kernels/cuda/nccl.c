/* nccl.c - see nccl.h. The few functions needed are declared here as NCCL 2 has them, so that building needs no header of it. */
#include "kernels/cuda/nccl.h"

#include <dlfcn.h>
#include <pthread.h>

#include "base/mem.h"

#define TYPE_F32 7 /* ncclDataType_t of NCCL 2 */
#define TYPE_BF16 9
#define OP_SUM 0

struct nccl {
    void *comm;
};

static struct {
    void *library;
    int (*get_id)(struct nccl_id *id);
    int (*init)(void **comm, int n_ranks, struct nccl_id id, int rank);
    int (*destroy)(void *comm);
    int (*abort)(void *comm);
    int (*all_reduce)(const void *from, void *to, size_t n, int type, int op, void *comm, void *stream);
    int (*all_gather)(const void *from, void *to, size_t n, int type, void *comm, void *stream);
    const char *(*words)(int error);
} api; /* written once */

static bool find(const char *name, void *fn)
{
    return (*(void **)fn = dlsym(api.library, name)) != NULL;
}

static void load(void)
{
    api.library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
    if (!api.library)
        return;
    if (!find("ncclGetUniqueId", &api.get_id) || !find("ncclCommInitRank", &api.init) ||
        !find("ncclCommDestroy", &api.destroy) || !find("ncclCommAbort", &api.abort) ||
        !find("ncclAllReduce", &api.all_reduce) || !find("ncclAllGather", &api.all_gather) ||
        !find("ncclGetErrorString", &api.words)) {
        dlclose(api.library);
        api.library = NULL;
    }
}

bool nccl_load(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, load);
    return api.library != NULL;
}

bool nccl_make_id(struct nccl_id *ret)
{
    return api.get_id(ret) == 0;
}

struct nccl *nccl_open(const struct nccl_id *id, uint32_t rank, uint32_t n_ranks, struct weir_why *why)
{
    struct nccl *n = weir_alloc0(sizeof *n);
    int error = n ? api.init(&n->comm, (int)n_ranks, *id, (int)rank) : 0;

    if (n && error == 0)
        return n;
    if (n)
        weir_fail(why, WEIR_IO, "NCCL: %s", api.words(error));
    else
        weir_fail(why, WEIR_NOMEM, "no memory for NCCL");
    weir_free(n);
    return NULL;
}

void nccl_close(struct nccl *n, bool abort)
{
    if (!n)
        return;
    if (abort)
        api.abort(n->comm);
    else
        api.destroy(n->comm);
    weir_free(n);
}

bool nccl_all_reduce(struct nccl *n, void *x_bf16, size_t count, struct dev_stream *s)
{
    return api.all_reduce(x_bf16, x_bf16, count, TYPE_BF16, OP_SUM, n->comm, s) == 0;
}

bool nccl_all_gather(struct nccl *n, float *out, const float *x, size_t count, struct dev_stream *s)
{
    return api.all_gather(x, out, count, TYPE_F32, n->comm, s) == 0;
}
