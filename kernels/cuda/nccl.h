/* nccl.h - the door to NCCL: loaded when several ranks have a device each, never linked. */
#ifndef WEIR_KERNELS_CUDA_NCCL_H
#define WEIR_KERNELS_CUDA_NCCL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#ifdef __cplusplus
extern "C" {
#endif

struct dev_stream;
struct nccl; /* a rank's communicator */
struct nccl_id {
    char bytes[128];
};

bool nccl_load(void); /* false: it is not on this machine; any thread, more than once */
bool nccl_make_id(struct nccl_id *ret);
/* Of the thread whose device is current; all ranks at the same time. NULL: `why` says NCCL's words. */
struct nccl *nccl_open(const struct nccl_id *id, uint32_t rank, uint32_t n_ranks, struct weir_why *why);
void nccl_close(struct nccl *n, bool abort); /* takes NULL; abort: what is under way is given up */
bool nccl_all_reduce(struct nccl *n, void *x_bf16, size_t count, struct dev_stream *s); /* a sum, in place */
bool nccl_all_gather(struct nccl *n, float *out, const float *x, size_t count, struct dev_stream *s);

#ifdef __cplusplus
}
#endif
#endif
