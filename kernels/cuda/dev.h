/* dev.h - a device of one rank: memory, one stream, recorded steps, dense products, peers. dev_cuda.cu over CUDA and cuBLASLt,
 * emu/dev_emu.c where kernels are emulated.
 *
 * All calls on a device come from one thread. Errors of the device stick: dev_check() tells. A wait for the device ends after
 * DEV_PATIENCE_S, as an error. */
#ifndef WEIR_KERNELS_CUDA_DEV_H
#define WEIR_KERNELS_CUDA_DEV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "kernels/cuda/cuda_int.h"

#ifdef __cplusplus
extern "C" {
#endif

#define DEV_PATIENCE_S 60

struct dev;
struct dev_graph;

struct dev_info {
    char name[64];
    uint32_t n_multiprocessor, major, minor;
    uint64_t memory_bytes;
};

int dev_count(void); /* 0: none, or no driver */
/* WEIR_UNAVAILABLE: no such device, or one older than 8.0. WEIR_NOMEM. */
WEIR_MUST_CHECK weir_err dev_open(uint32_t index, struct dev **ret, struct weir_why *why);
void dev_close(struct dev *d); /* takes NULL */
const struct dev_info *dev_about(const struct dev *d);
uint32_t dev_index(const struct dev *d);
void dev_use(uint32_t index); /* makes it the calling thread's */
struct dev_stream *dev_stream(struct dev *d);

void *dev_alloc(struct dev *d, size_t bytes); /* 256-byte aligned; NULL: no memory */
/* Waits for the device; takes NULL. After a wait that was given up what the device may still use is left to it. */
void dev_free(struct dev *d, void *ptr);
void *dev_host_alloc(struct dev *d, size_t bytes); /* of the host, where copies need no detour */
void dev_host_free(struct dev *d, void *ptr);

/* In the stream's order. `from` of an upload, `to` of a download are read and written when the stream comes to it. */
void dev_upload(struct dev *d, void *to, const void *from, size_t bytes);
void dev_download(struct dev *d, void *to, const void *from, size_t bytes);
void dev_copy(struct dev *d, void *to, const void *from, size_t bytes);
void dev_zero(struct dev *d, void *to, size_t bytes);
void dev_sync(struct dev *d);
/* Marks 0 .. DEV_MARKS - 1: a place in the stream, and to wait until it is passed (at once when it was never set). */
#define DEV_MARKS 8
void dev_mark(struct dev *d, uint32_t mark);
void dev_await(struct dev *d, uint32_t mark);
/* The first error since opening: WEIR_DEVICE. */
weir_err dev_check(struct dev *d, struct weir_why *why);
/* Seconds between two marks that were passed. */
double dev_seconds(struct dev *d, uint32_t from, uint32_t to);

/* What is asked of the stream in between is recorded, not run. NULL: it could not be recorded. */
void dev_record(struct dev *d);
struct dev_graph *dev_record_end(struct dev *d);
void dev_replay(struct dev *d, struct dev_graph *graph);
void dev_graph_free(struct dev_graph *graph); /* takes NULL */

/* out [n_tok, n_out] (bf16, or f32) = x [n_tok, n_in] * w^T for bf16 weights. false: this shape has no such product; the caller
 * takes another. Which way it sums may depend on n_tok. */
bool dev_dense(struct dev *d, void *out, int out_f32, const uint16_t *x, const struct cuda_weights *w,
               uint32_t n_tok);

/* out [n_tok, n_out] (bf16, or f32) = x * w^T for FP8 weights and x of cuda_quantize_rows(), whose stride is the weights'; with both
 * scales. dev_fp8_fits() says whether there is such a product, before x is made: it wants compute capability 8.9. */
bool dev_fp8_fits(struct dev *d, const struct cuda_weights *w, int out_f32, uint32_t n_tok);
bool dev_dense_fp8(struct dev *d, void *out, int out_f32, const uint8_t *x, const float *x_scale,
                   const struct cuda_weights *w, uint32_t n_tok);

/* Whether this device can read memory of that one directly; makes it so. */
bool dev_peer(struct dev *d, const struct dev *of);

/* Asked while dev_sync() waits: true gives the wait up, which is an error that stays. NULL: nobody is asked. */
void dev_watch(struct dev *d, bool (*fn)(void *arg), void *arg);

/* Emulated only: the order in which the threads of a block run (emu.cuh), for this host thread. On a device nothing. */
void dev_set_order(int order, uint64_t seed);
/* Likewise: devices opened from now on run nothing before somebody waits for it. Not for several ranks, which wait for each other. */
void dev_set_lazy(bool lazy);
bool dev_is_emulated(void);

#ifdef __cplusplus
}
#endif
#endif
