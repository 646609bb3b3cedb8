/* pack.c - weights into rows on the device, each padded with zeros to CUDA_K_UNIT inputs. Rows go through a piece of host memory, so a
 * model is never twice in memory.
 *
 * f16 and f32 become bf16. Q8: the largest number of a row becomes 127. FP8: e4m3, the largest becomes 448. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "kernels/cuda/cuda_be.h"

#define PIECE_BYTES ((size_t)4 << 20)
#define FP8_MAX 448.0f

static float source_f32(const struct cuda_be *c, const struct weir_weights *part, size_t i)
{
    uint16_t half;
    float value;

    if (part->dtype == WEIR_F32) {
        memcpy(&value, (const char *)part->data + 4 * i, 4);
        return value;
    }
    memcpy(&half, (const char *)part->data + 2 * i, 2);
    return c->host->half_to_f32(half, part->dtype);
}

static uint16_t to_bf16(float value)
{
    uint32_t bits;

    memcpy(&bits, &value, 4);
    return isnan(value) ? 0x7fff : (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

/* To the nearest e4m3, ties to even; |value| is at most FP8_MAX. */
static uint8_t to_fp8(float value)
{
    float size = fabsf(value);
    int exponent;

    if (size < 0x1p-6f) /* subnormal: whole multiples of 2^-9; 8 of them are the least normal number */
        return (uint8_t)((value < 0 ? 0x80 : 0) | (int)nearbyintf(size * 512));
    frexpf(size, &exponent);                                    /* size = [0.5, 1) * 2^exponent */
    int mantissa = (int)nearbyintf(ldexpf(size, 4 - exponent)); /* [8, 16] */
    if (mantissa == 16) {
        mantissa = 8;
        exponent++;
    }
    return (uint8_t)((value < 0 ? 0x80 : 0) | (exponent - 1 + 7) << 3 | (mantissa - 8));
}

static float pack_row(const struct cuda_be *c, void *out, const struct weir_weights *part, size_t row,
                      const struct cuda_weights *w)
{
    size_t from = row * part->stride;
    float top = 0, most = w->kind == CUDA_Q8 ? 127 : FP8_MAX;

    if (w->kind == CUDA_BF16) {
        for (uint32_t i = 0; i < w->n_in; i++)
            ((uint16_t *)out)[i] = to_bf16(source_f32(c, part, from + i));
        return 1;
    }
    for (uint32_t i = 0; i < w->n_in; i++)
        top = fmaxf(top, fabsf(source_f32(c, part, from + i)));
    float scale = top > 0 ? top / most : 1;
    for (uint32_t i = 0; i < w->n_in; i++) {
        float value = fminf(fmaxf(source_f32(c, part, from + i) / scale, -most), most);
        ((uint8_t *)out)[i] = w->kind == CUDA_Q8 ? (uint8_t)(int8_t)nearbyintf(value) : to_fp8(value);
    }
    return scale;
}

/* All rows, a piece at a time. */
static weir_err pack_rows(struct cuda_be *c, const struct weir_weights *parts, int n_parts,
                          struct weir_matrix *m)
{
    size_t row_bytes = (size_t)m->w.stride * (m->w.kind == CUDA_BF16 ? 2 : 1);
    uint32_t n_piece = (uint32_t)(PIECE_BYTES / row_bytes ? PIECE_BYTES / row_bytes : 1), row = 0, filled = 0;
    char *piece = weir_calloc(n_piece, row_bytes);
    float *scale = weir_calloc(m->w.n_out, sizeof *scale);
    weir_err err = piece && scale ? WEIR_OK : WEIR_NOMEM;

    for (int i = 0; err == WEIR_OK && i < n_parts; i++)
        for (uint32_t k = 0; k < parts[i].n_out; k++) {
            scale[row] = pack_row(c, piece + filled * row_bytes, &parts[i], k, &m->w);
            row++;
            if (++filled < n_piece && row < m->w.n_out)
                continue;
            dev_upload(c->d, (char *)m->data + (row - filled) * row_bytes, piece, filled * row_bytes);
            dev_sync(c->d);
            filled = 0;
        }
    if (err == WEIR_OK && m->scale) {
        dev_upload(c->d, m->scale, scale, m->w.n_out * sizeof *scale);
        dev_sync(c->d);
    }
    weir_free(piece);
    weir_free(scale);
    return err;
}

weir_err cuda_pack(struct weir_backend *be, const struct weir_weights *parts, int n_parts, uint32_t n_in,
                   enum weir_quant quant, struct weir_matrix **ret)
{
    struct cuda_be *c = cuda_of(be);
    struct weir_matrix *m;
    weir_err err;

    if (quant == WEIR_Q4)
        return WEIR_UNIMPLEMENTED;
    m = weir_alloc0(sizeof *m);
    if (!m)
        return WEIR_NOMEM;
    m->w.kind = quant == WEIR_Q8 ? CUDA_Q8 : quant == WEIR_FP8 ? CUDA_FP8 : CUDA_BF16;
    m->w.n_in = n_in;
    m->w.stride = (n_in + CUDA_K_UNIT - 1) / CUDA_K_UNIT * CUDA_K_UNIT;
    for (int i = 0; i < n_parts; i++)
        m->w.n_out += parts[i].n_out;
    m->data = dev_alloc(c->d, cuda_matrix_bytes(m));
    if (m->w.kind != CUDA_BF16)
        m->scale = dev_alloc(c->d, m->w.n_out * sizeof(float));
    m->w.data = m->data;
    m->w.scale = m->scale;
    err = m->data && (m->scale || m->w.kind == CUDA_BF16) ? pack_rows(c, parts, n_parts, m) : WEIR_NOMEM;
    if (err != WEIR_OK) {
        cuda_unpack(be, m);
        return err;
    }
    *ret = m;
    return WEIR_OK;
}

void cuda_unpack(struct weir_backend *be, struct weir_matrix *m)
{
    if (!m)
        return;
    dev_free(cuda_of(be)->d, m->data);
    dev_free(cuda_of(be)->d, m->scale);
    weir_free(m);
}

uint64_t cuda_matrix_bytes(const struct weir_matrix *m)
{
    return (uint64_t)m->w.n_out * m->w.stride * (m->w.kind == CUDA_BF16 ? 2 : 1);
}
