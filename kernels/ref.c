/* ref.c - see ref.h. */
#include "kernels/ref.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

void weir_ref_linear(double *out, const double *x, const double *w, uint32_t n_in, uint32_t n_out, int add)
{
    for (uint32_t i = 0; i < n_out; i++) {
        double sum = 0;
        for (uint32_t k = 0; k < n_in; k++)
            sum += x[k] * w[(size_t)i * n_in + k];
        out[i] = add ? out[i] + sum : sum;
    }
}

void weir_ref_rmsnorm(double *out, const double *x, const double *weight, uint32_t n, double eps)
{
    double sum = 0;

    for (uint32_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    for (uint32_t i = 0; i < n; i++)
        out[i] = x[i] / sqrt(sum / n + eps) * weight[i];
}

void weir_ref_rope(double *head, const double *cos, const double *sin, uint32_t d_head)
{
    uint32_t half = d_head / 2;

    for (uint32_t i = 0; i < half; i++) {
        double a = head[i], b = head[i + half];
        head[i] = a * cos[i] - b * sin[i];
        head[i + half] = b * cos[i] + a * sin[i];
    }
}

static double score(const double *q, const double *k, uint32_t d, double scale)
{
    double sum = 0;

    for (uint32_t i = 0; i < d; i++)
        sum += q[i] * k[i];
    return sum * scale;
}

void weir_ref_attention(double *out, const double *q, const double *k, const double *v, uint32_t n_pos,
                        const struct weir_attn_dims *dims, double scale)
{
    uint32_t d = dims->d_head, n_group = dims->n_head / dims->n_kv_head;
    uint32_t from = dims->window && dims->window < n_pos ? n_pos - dims->window : 0;
    size_t row = (size_t)dims->n_kv_head * d;

    for (uint32_t h = 0; h < dims->n_head; h++) {
        const double *query = q + (size_t)h * d, *keys = k + (size_t)(h / n_group) * d;
        const double *values = v + (size_t)(h / n_group) * d;
        double max = -INFINITY, total = 0;
        for (uint32_t j = from; j < n_pos; j++)
            max = fmax(max, score(query, keys + j * row, d, scale));
        for (uint32_t i = 0; i < d; i++)
            out[(size_t)h * d + i] = 0;
        for (uint32_t j = from; j < n_pos; j++) {
            double weight = exp(score(query, keys + j * row, d, scale) - max);
            total += weight;
            for (uint32_t i = 0; i < d; i++)
                out[(size_t)h * d + i] += weight * values[j * row + i];
        }
        for (uint32_t i = 0; i < d; i++)
            out[(size_t)h * d + i] /= total;
    }
}

void weir_ref_silu_mul(double *out, const double *gate_up, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        out[i] = gate_up[i] / (1 + exp(-gate_up[i])) * gate_up[n + i];
}

void weir_ref_route(uint32_t *expert, double *weight, const double *logits, uint32_t n_expert,
                    uint32_t n_used, int renormalize)
{
    bool taken[WEIR_EXPERTS_MAX] = { false };
    double total = 0, used = 0;

    for (uint32_t i = 0; i < n_expert; i++)
        total += exp(logits[i]);
    for (uint32_t j = 0; j < n_used; j++) {
        uint32_t best = n_expert;
        for (uint32_t i = 0; i < n_expert; i++)
            if (!taken[i] && (best == n_expert || logits[i] > logits[best]))
                best = i;
        taken[best] = true;
        expert[j] = best;
        weight[j] = exp(logits[best]) / total;
        used += weight[j];
    }
    for (uint32_t j = 0; renormalize && j < n_used; j++)
        weight[j] /= used;
}

void weir_ref_expert(double *out, const double *x, const double *gate_up, const double *down,
                     uint32_t d_model, uint32_t d_ffn)
{
    double *hidden = calloc(3 * (size_t)d_ffn, sizeof *hidden);

    if (!hidden)
        abort();
    weir_ref_linear(hidden, x, gate_up, d_model, 2 * d_ffn, /* add= */ 0);
    weir_ref_silu_mul(hidden + 2 * (size_t)d_ffn, hidden, d_ffn);
    weir_ref_linear(out, hidden + 2 * (size_t)d_ffn, down, d_ffn, d_model, /* add= */ 0);
    free(hidden);
}

double weir_ref_nmse(const float *got, const double *wanted, uint64_t n)
{
    double error = 0, size = 0;

    for (uint64_t i = 0; i < n; i++) {
        if (!isfinite(got[i]))
            return INFINITY;
        error += ((double)got[i] - wanted[i]) * ((double)got[i] - wanted[i]);
        size += wanted[i] * wanted[i];
    }
    return size > 0 ? error / size : error;
}
