/* nccl.h - the door to NCCL: loaded when several ranks have a device each, or when it is asked for; never linked.
 *
 * No call waits for ever. Communicators are opened without blocking and looked at until they are ready; where NCCL is too old for
 * that (before 2.14), a thread of its own opens them, and who waits for it goes on without it. A wait ends after
 * NCCL_PATIENCE_MS, or when `stop` says so; what had been begun is then given up on a thread that nobody waits for longer
 * than NCCL_ABORT_MS. */
#ifndef WEIR_KERNELS_CUDA_NCCL_H
#define WEIR_KERNELS_CUDA_NCCL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#ifdef __cplusplus
extern "C" {
#endif

#define NCCL_PATIENCE_MS 60000
#define NCCL_ABORT_MS 10000

struct dev_stream;
struct nccl; /* a rank's communicator */
struct nccl_id {
    char bytes[128];
};
/* Asked while a call waits: true ends the wait, as an error. */
struct nccl_stop {
    bool (*fn)(void *arg);
    void *arg;
};

bool nccl_load(void); /* false: it is not on this machine; any thread, more than once */
bool nccl_make_id(struct nccl_id *ret);
/* Rank `rank` of n_ranks, on the device `device`; all ranks at the same time. WEIR_NOMEM. WEIR_IO: NCCL's own words, or that it did
 * not open in time, or that the wait was stopped. `stop` is asked by later calls, too. */
WEIR_MUST_CHECK weir_err nccl_open(const struct nccl_id *id, uint32_t rank, uint32_t n_ranks, uint32_t device,
                                   const struct nccl_stop *stop, struct nccl **ret, struct weir_why *why);
/* Takes NULL. abort: what is under way is given up. */
void nccl_close(struct nccl *n, bool abort);
/* Sum, in place. It is in the stream when this returns. WEIR_IO, as nccl_open. */
WEIR_MUST_CHECK weir_err nccl_all_reduce(struct nccl *n, void *x_bf16, size_t count, struct dev_stream *s,
                                         struct weir_why *why);
WEIR_MUST_CHECK weir_err nccl_all_gather(struct nccl *n, float *out, const float *x, size_t count,
                                         struct dev_stream *s, struct weir_why *why);
/* What went wrong since with what is in the stream; NULL: nothing. */
const char *nccl_failed(struct nccl *n);

/* For tests: the library at `path` instead of NCCL, for ranks over the emulator, too, and another patience. NULL: NCCL again. Before
 * ranks are opened. */
bool nccl_emulate(const char *path, uint32_t patience_ms);
bool nccl_is_emulated(void);

#ifdef __cplusplus
}
#endif
#endif
