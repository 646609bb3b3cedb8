/* pack.c - weights into panels; see ops.h for the layout. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "kernels/cpu/cpu_int.h"

float weir_half_to_f32(uint16_t half, enum weir_dtype dtype)
{
    int exponent = half >> 10 & 31, mantissa = half & 1023;
    uint32_t bits = (uint32_t)half << 16;
    float value;

    if (dtype == WEIR_BF16) {
        memcpy(&value, &bits, sizeof value);
        return value;
    }
    value = exponent == 0    ? ldexpf((float)mantissa, -24)
            : exponent == 31 ? (mantissa ? NAN : INFINITY)
                             : ldexpf((float)(mantissa + 1024), exponent - 25);
    return half & 0x8000 ? -value : value;
}

static float read_f32(const struct weir_weights *w, size_t i)
{
    uint16_t half;
    float value;

    if (w->dtype == WEIR_F32) {
        memcpy(&value, (const char *)w->data + 4 * i, 4);
        return value;
    }
    memcpy(&half, (const char *)w->data + 2 * i, 2);
    return weir_half_to_f32(half, w->dtype);
}

/* Where input k of a row is, in elements. */
static size_t element(const struct weir_matrix *m, uint32_t row, uint32_t k)
{
    if (m->dtype == WEIR_BF16)
        return (((size_t)(row / PANEL) * m->n_pair + k / 2) * PANEL + row % PANEL) * 2 + k % 2;
    return ((size_t)(row / PANEL) * m->n_in + k) * PANEL + row % PANEL;
}

static void pack_row(struct weir_matrix *m, uint32_t row, const struct weir_weights *part, uint32_t source)
{
    for (uint32_t k = 0; k < m->n_in; k++) {
        size_t i = (size_t)source * part->stride + k, to = element(m, row, k);
        if (m->dtype == WEIR_BF16)
            memcpy((uint16_t *)m->data + to, (const char *)part->data + 2 * i, 2);
        else
            ((float *)m->data)[to] = read_f32(part, i);
    }
}

void matrix_row(const struct weir_matrix *m, uint32_t row, float *out)
{
    for (uint32_t k = 0; k < m->n_in; k++) {
        size_t from = element(m, row, k);
        out[k] = m->dtype == WEIR_BF16 ? weir_half_to_f32(((const uint16_t *)m->data)[from], WEIR_BF16)
                                       : ((const float *)m->data)[from];
    }
}

void cpu_unpack(struct weir_backend *be, struct weir_matrix *m)
{
    if (!m)
        return;
    be->free(be, m->data);
    weir_free(m);
}

uint64_t cpu_matrix_bytes(const struct weir_matrix *m)
{
    return m->bytes;
}

/* Room for the packed numbers, zeroed, for what `prepare` makes of a block of tokens, and for the rows of head. */
static weir_err make_room(struct cpu *cpu, struct weir_matrix *m)
{
    size_t prepared = cpu->ops->prepare ? cpu->ops->prepared_bytes(m) : 0;

    m->data = cpu->be.alloc(&cpu->be, m->bytes);
    if (!m->data || (prepared && !scratch_grow(&cpu->prepared, prepared)) ||
        !scratch_grow(&cpu->rows, (size_t)HEAD_ROWS * m->n_in * sizeof(float)))
        return WEIR_NOMEM;
    memset(m->data, 0, m->bytes);
    return WEIR_OK;
}

weir_err cpu_pack(struct weir_backend *be, const struct weir_weights *parts, int n_parts, uint32_t n_in,
                  enum weir_quant quant, struct weir_matrix **ret)
{
    struct weir_matrix *m;
    bool all_bf16 = true;

    if (quant != WEIR_NATIVE)
        return WEIR_UNIMPLEMENTED;
    m = weir_alloc0(sizeof *m);
    if (!m)
        return WEIR_NOMEM;
    for (int i = 0; i < n_parts; i++) {
        m->n_out += parts[i].n_out;
        all_bf16 = all_bf16 && parts[i].dtype == WEIR_BF16;
    }
    m->n_in = n_in;
    m->n_panel = (m->n_out + PANEL - 1) / PANEL;
    m->dtype = all_bf16 ? WEIR_BF16 : WEIR_F32;
    m->n_pair = ((n_in + 1) / 2 + PAIRS_UNIT - 1) / PAIRS_UNIT * PAIRS_UNIT;
    m->bytes = (size_t)m->n_panel * PANEL * 4 * (all_bf16 ? m->n_pair : n_in);
    if (make_room(cpu_of(be), m) != WEIR_OK) {
        cpu_unpack(be, m);
        return WEIR_NOMEM;
    }
    for (uint32_t i = 0, row = 0; i < (uint32_t)n_parts; i++)
        for (uint32_t k = 0; k < parts[i].n_out; k++)
            pack_row(m, row++, &parts[i], k);
    *ret = m;
    return WEIR_OK;
}
