/* bench.h - what the benchmark's parts share: what the device can do at best, measured in the same run, and rows of its tables. */
#ifndef WEIR_TESTS_CUDA_BENCH_H
#define WEIR_TESTS_CUDA_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/cuda/dev.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Of the last marks of dev.h: the first ones are the back end's. */
enum { BENCH_BATCHES = 3, BENCH_MARK = DEV_MARKS - 2 };

/* Llama 3 8B; over the emulator something that it can run. */
struct bench_shape {
    uint32_t d_model, d_ffn, n_layer, n_head, n_kv_head, d_head, n_vocab, n_ctx, n_prompt;
    uint32_t batch[BENCH_BATCHES]; /* of decoding, each sequence with n_ctx positions */
    uint32_t n_steps;              /* of decoding, in a row */
    uint32_t n_runs, n_each;       /* medians of so many, each of so many in a row */
    uint32_t n_square;             /* of the matrices whose product measures the rate */
};

struct bench {
    struct dev *d;
    struct bench_shape shape;
    double bytes_s;        /* read and written by a copy */
    double flops_s, fp8_s; /* of a large product; 0: there is none */
};

/* Seconds of one call: the median of n_runs recorded rows of n_each calls, events of the device around each. */
double bench_median(struct bench *b, void (*fn)(void *arg, uint32_t i), void *arg);
/* `rate`: of the limit of flops. */
void bench_row(const struct bench *b, const char *name, uint32_t n_tok, double seconds, double bytes,
               double flops, double rate);
void *
bench_alloc(struct bench *b,
            size_t bytes); /* of random numbers that are good bf16; ends the program when there is none */
void bench_copy(struct dev_stream *s, void *to, const void *from, size_t bytes); /* a multiple of 16 */
double bench_now(void);                                                          /* seconds */

/* bench_steps.c: whole steps of a model through the back end. False: something failed. */
bool bench_steps(struct bench *b, enum weir_quant quant);

#ifdef __cplusplus
}
#endif
#endif
