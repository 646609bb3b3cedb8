/* ref.h - each operation of kernels.h in float64, the plainest way: what a back end's tests compare with.
 *
 * Weights are plain [n_out, n_in] here, keys and values [n_pos, n_kv_head, d_head] without pages. Slow, and for tests
 * alone: its library is linked into no program. */
#ifndef WEIR_KERNELS_REF_H
#define WEIR_KERNELS_REF_H

#include <stdint.h>

#include "kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* out [n_out] = w * x, or with add: out += that. */
void weir_ref_linear(double *out, const double *x, const double *w, uint32_t n_in, uint32_t n_out, int add);
/* out may be x. */
void weir_ref_rmsnorm(double *out, const double *x, const double *weight, uint32_t n, double eps);
/* One head, in place. */
void weir_ref_rope(double *head, const double *cos, const double *sin, uint32_t d_head);
/* A token at position n_pos - 1, which sees the dims' window of them: out, q [n_head, d_head]. */
void weir_ref_attention(double *out, const double *q, const double *k, const double *v, uint32_t n_pos,
                        const struct weir_attn_dims *dims, double scale);
/* out [n]; gate_up [2n]. */
void weir_ref_silu_mul(double *out, const double *gate_up, uint32_t n);
/* The n_used most probable of n_expert, best first, and their shares. */
void weir_ref_route(uint32_t *expert, double *weight, const double *logits, uint32_t n_expert,
                    uint32_t n_used, int renormalize);
/* One token through one expert: out [d_model]; gate_up [2 d_ffn, d_model], down [d_model, d_ffn]. */
void weir_ref_expert(double *out, const double *x, const double *gate_up, const double *down,
                     uint32_t d_model, uint32_t d_ffn);
/* Squared error over squared size; infinite when a number is not finite. */
double weir_ref_nmse(const float *got, const double *wanted, uint64_t n);

#ifdef __cplusplus
}
#endif
#endif
