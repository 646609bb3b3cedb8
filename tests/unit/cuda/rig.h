/* rig.h - what the checks of the CUDA kernels share: inputs of a size on the device and in float64 here, runs in several orders of
 * threads, comparison. The checks need neither cmocka nor a model, so that the same sources run over the emulator in every
 * test run and on a GPU by `./dev gpu-check`. */
#ifndef WEIR_TESTS_CUDA_RIG_H
#define WEIR_TESTS_CUDA_RIG_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/cuda/dev.h"

struct rig {
    struct dev *d;
    struct dev_stream *s;
    uint64_t random;
    const char *check; /* its name */
    uint32_t n_bad, n_compared;
    void *blocks[8192]; /* freed after each check */
    uint32_t n_blocks;
};

uint64_t rig_random(struct rig *r);
uint32_t rig_between(struct rig *r, uint32_t low, uint32_t high); /* both included */
double rig_normal(struct rig *r);

/* n bf16 numbers of about `size` on the device; `values`, unless NULL, is what they are exactly. */
uint16_t *rig_bf16(struct rig *r, double **values, size_t n, double size);
float *rig_f32(struct rig *r, double **values, size_t n, double around, double size);
int32_t *rig_ints(struct rig *r, const int32_t *values, size_t n);
/* Random weights of a kind, zeros behind each row; `values` [n_out, n_in] is what they are. */
struct cuda_weights rig_weights(struct rig *r, double **values, uint32_t n_out, uint32_t n_in,
                                enum cuda_kind kind);
double rig_of_fp8(uint8_t byte);
void *rig_upload(struct rig *r, const void *from, size_t bytes);
void *rig_host(struct rig *r, size_t bytes);   /* zeroed, of the host */
void *rig_device(struct rig *r, size_t bytes); /* NaNs, with a fence behind that rig_run looks after */

/* Runs `launch` in several orders of threads, `out` poisoned and `inout`, unless NULL, restored before each and at the end. All runs must
 * give the same bytes, and none may write past `bytes`. Returns what was written, of the host. */
void *rig_run(struct rig *r, void (*launch)(struct rig *r, void *arg), void *arg, void *out, size_t bytes,
              void *inout, size_t inout_bytes);
void rig_near_bf16(struct rig *r, const char *what, const uint16_t *got, const double *want, size_t n,
                   double nmse_max);
void rig_near_f32(struct rig *r, const char *what, const float *got, const double *want, size_t n,
                  double nmse_max);
void rig_same(struct rig *r, const char *what, const void *a, const void *b, size_t bytes);
void rig_true(struct rig *r, const char *what, bool ok);
double rig_of_bf16(uint16_t bits);
uint16_t rig_to_bf16(double value);

struct rig_check {
    const char *name;
    void (*fn)(struct rig *r);
};
extern const struct rig_check checks_rows[], checks_attn[], checks_gemm[], checks_moe[], checks_sample[],
    checks_reduce[], checks_fp8[];

#endif
