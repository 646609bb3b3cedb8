/* pack.c - weights into rows on the device, each padded with zeros. Rows go through a piece of host memory, so a model is never
 * twice in memory; scales and the multipliers of 4 bits follow when all rows are done.
 *
 * f16 and f32 become bf16. Q8: the largest number of a row becomes 127. FP8: e4m3, the largest becomes 448. Q4: q4.h. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "kernels/cuda/cuda_be.h"
#include "kernels/q4.h"

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
    if (part->dtype == WEIR_BF16) {
        uint32_t bits = (uint32_t)half << 16;
        memcpy(&value, &bits, 4);
        return value;
    }
    return c->host->half_to_f32(half, part->dtype);
}

static uint16_t to_bf16(float value)
{
    uint32_t bits;

    memcpy(&bits, &value, 4);
    return isnan(value) ? 0x7fff : (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

/* To the nearest e4m3, ties to even; |value| is at most FP8_MAX. In integers: a model has thousands of millions of weights. */
static uint8_t to_fp8(float value)
{
    float size = fabsf(value), ulps = size + 16384.0f; /* whose last bit is 2^-9, a subnormal's */
    uint32_t bits, small, sign = value < 0 ? 0x80 : 0;

    memcpy(&bits, &size, 4);
    memcpy(&small, &ulps, 4);
    bits += 0x7ffff + (bits >> 20 & 1); /* to 3 bits of mantissa */
    return (uint8_t)(sign | (size < 0x1p-6f ? small & 15 : (bits >> 20) - (120u << 3)));
}

static size_t row_bytes(const struct cuda_weights *w)
{
    return w->kind == CUDA_BF16 ? (size_t)w->stride * 2 : w->kind == CUDA_Q4 ? w->stride / 2 : w->stride;
}

static size_t row_multipliers(const struct cuda_weights *w)
{
    return w->kind == CUDA_Q4 ? w->stride / WEIR_Q4_GROUP : 0;
}

static float pack_bytes(uint8_t *out, const float *x, const struct cuda_weights *w)
{
    float top = 0, most = w->kind == CUDA_Q8 ? 127 : FP8_MAX;

    for (uint32_t i = 0; i < w->n_in; i++)
        top = fmaxf(top, fabsf(x[i]));
    float scale = top > 0 ? top / most : 1;
    for (uint32_t i = 0; i < w->n_in; i++) {
        float value = x[i] / scale;
        value = value > most ? most : value < -most ? -most : value;
        out[i] = w->kind == CUDA_Q8 ? (uint8_t)(int8_t)((value + 12582912.0f) - 12582912.0f) : to_fp8(value);
    }
    return scale;
}

/* Nibbles in the order that gemm.cu takes them apart in; see struct cuda_weights. */
static float pack_nibbles(uint32_t *out, uint8_t *multipliers, const float *x, const struct cuda_weights *w)
{
    float scale = weir_q4_scale(x, w->n_in);

    for (uint32_t first = 0; first < w->stride; first += WEIR_Q4_GROUP) {
        uint32_t n = first < w->n_in ? w->n_in - first : 0;
        int8_t q[WEIR_Q4_GROUP] = { 0 };
        multipliers[first / WEIR_Q4_GROUP] =
            (uint8_t)weir_q4_group(q, x + first, n < WEIR_Q4_GROUP ? n : WEIR_Q4_GROUP, scale);
        for (uint32_t i = 0; i < WEIR_Q4_GROUP; i++) {
            uint32_t j = i % 8, shift = 4 * (j / 2) + 16 * (j % 2);
            uint32_t *word = &out[(first + i) / 8];
            *word = (j ? *word : 0) | (uint32_t)(q[i] + 8) << shift;
        }
    }
    return scale;
}

/* What all rows go through. */
struct packing {
    struct cuda_be *c;
    struct weir_matrix *m;
    uint32_t n_piece, filled, row; /* rows: a piece's, of it filled, done */
    char *piece;
    float *x, *scale; /* a row in f32; all rows' scales */
    uint8_t *multipliers;
};

static void pack_row(struct packing *p, const struct weir_weights *part, size_t row)
{
    const struct cuda_weights *w = &p->m->w;
    char *out = p->piece + p->filled * row_bytes(w);

    if (w->kind == CUDA_BF16 && part->dtype == WEIR_BF16) {
        memcpy(out, (const char *)part->data + row * part->stride * 2, (size_t)w->n_in * 2);
        return;
    }
    for (uint32_t i = 0; i < w->n_in; i++)
        p->x[i] = source_f32(p->c, part, row * part->stride + i);
    if (w->kind == CUDA_Q4)
        p->scale[p->row] =
            pack_nibbles((uint32_t *)(void *)out, p->multipliers + p->row * row_multipliers(w), p->x, w);
    else if (w->kind != CUDA_BF16)
        p->scale[p->row] = pack_bytes((uint8_t *)out, p->x, w);
    else
        for (uint32_t i = 0; i < w->n_in; i++)
            ((uint16_t *)(void *)out)[i] = to_bf16(p->x[i]);
}

static void upload(struct packing *p, void *to, const void *from, size_t bytes)
{
    if (bytes == 0)
        return;
    dev_upload(p->c->d, to, from, bytes);
    dev_sync(p->c->d);
}

static void pack_all(struct packing *p, const struct weir_weights *parts, int n_parts)
{
    struct cuda_weights *w = &p->m->w;

    for (int i = 0; i < n_parts; i++)
        for (uint32_t k = 0; k < parts[i].n_out; k++) {
            pack_row(p, &parts[i], k);
            p->row++;
            if (++p->filled < p->n_piece && p->row < w->n_out)
                continue;
            upload(p, (char *)p->m->data + (p->row - p->filled) * row_bytes(w), p->piece,
                   p->filled * row_bytes(w));
            p->filled = 0;
        }
    upload(p, p->m->scale, p->scale, p->m->scale ? w->n_out * sizeof *p->scale : 0);
    upload(p, (void *)(uintptr_t)w->multipliers, p->multipliers, w->n_out * row_multipliers(w));
}

static weir_err pack_rows(struct cuda_be *c, const struct weir_weights *parts, int n_parts,
                          struct weir_matrix *m)
{
    size_t bytes = row_bytes(&m->w);
    struct packing p = { .c = c,
                         .m = m,
                         .n_piece = (uint32_t)(PIECE_BYTES / bytes ? PIECE_BYTES / bytes : 1) };

    p.piece = weir_calloc(p.n_piece, bytes);
    p.x = weir_calloc(m->w.n_in, sizeof *p.x);
    p.scale = weir_calloc(m->w.n_out, sizeof *p.scale);
    p.multipliers = weir_calloc(m->w.n_out, row_multipliers(&m->w) + 1);
    weir_err err = p.piece && p.x && p.scale && p.multipliers ? WEIR_OK : WEIR_NOMEM;
    if (err == WEIR_OK)
        pack_all(&p, parts, n_parts);
    weir_free(p.piece);
    weir_free(p.x);
    weir_free(p.scale);
    weir_free(p.multipliers);
    return err;
}

static enum cuda_kind kind_of(enum weir_quant quant)
{
    switch (quant) {
    case WEIR_Q8:
        return CUDA_Q8;
    case WEIR_Q4:
        return CUDA_Q4;
    case WEIR_FP8:
        return CUDA_FP8;
    case WEIR_NATIVE:
        break;
    }
    return CUDA_BF16;
}

weir_err cuda_pack(struct weir_backend *be, const struct weir_weights *parts, int n_parts, uint32_t n_in,
                   enum weir_quant quant, struct weir_matrix **ret)
{
    struct cuda_be *c = cuda_of(be);
    struct weir_matrix *m;
    weir_err err;

    m = weir_alloc0(sizeof *m);
    if (!m)
        return WEIR_NOMEM;
    m->w.kind = kind_of(quant);
    m->w.n_in = n_in;
    uint32_t unit = m->w.kind == CUDA_Q4 ? CUDA_Q4_UNIT : CUDA_K_UNIT;
    m->w.stride = (n_in + unit - 1) / unit * unit;
    for (int i = 0; i < n_parts; i++)
        m->w.n_out += parts[i].n_out;
    m->data = dev_alloc(c->d, m->w.n_out * row_bytes(&m->w));
    if (m->w.kind != CUDA_BF16)
        m->scale = dev_alloc(c->d, m->w.n_out * sizeof(float));
    if (m->w.kind == CUDA_Q4)
        m->w.multipliers = dev_alloc(c->d, m->w.n_out * row_multipliers(&m->w));
    m->w.data = m->data;
    m->w.scale = m->scale;
    bool room = m->data && (m->scale || m->w.kind == CUDA_BF16) && (m->w.multipliers || m->w.kind != CUDA_Q4);
    err = room ? pack_rows(c, parts, n_parts, m) : WEIR_NOMEM;
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
    dev_free(cuda_of(be)->d, (void *)(uintptr_t)m->w.multipliers); /* its own */
    weir_free(m);
}

uint64_t cuda_matrix_bytes(const struct weir_matrix *m)
{
    return (uint64_t)m->w.n_out * (row_bytes(&m->w) + row_multipliers(&m->w));
}
