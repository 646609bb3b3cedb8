/* pack.c - weights into panels, by all workers; see ops.h for the layout, q4.h for what becomes of a number in 4 bits. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "kernels/cpu/cpu_int.h"
#include "kernels/q4.h"

#define Q8_MAX 127
_Static_assert(GROUP == WEIR_Q4_GROUP, "panels have a multiplier for each group");

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

/* ---- one row into its panel ---- */
static void pack_native(struct weir_matrix *m, uint32_t row, const struct weir_weights *part, size_t source)
{
    char *panel = (char *)m->data + row / PANEL * panel_bytes(m);
    size_t lane = row % PANEL;

    for (uint32_t k = 0; k < m->n_in; k++) {
        if (m->dtype == WEIR_BF16)
            memcpy((uint16_t *)panel + ((size_t)(k / 2) * PANEL + lane) * 2 + k % 2,
                   (const char *)part->data + 2 * (source + k), 2);
        else
            ((float *)panel)[(size_t)k * PANEL + lane] = read_f32(part, source + k);
    }
}

static float largest(const float *x, uint32_t n)
{
    float ret = 0;

    for (uint32_t i = 0; i < n; i++)
        ret = fmaxf(ret, fabsf(x[i]));
    return ret;
}

/* x * by, rounded and kept within [-limit, limit]. */
static inline float round_to(float x, float by, float limit)
{
    float q = x * by;

    q = q > limit ? limit : q < -limit ? -limit : q;
    return (q + 12582912.0f) - 12582912.0f; /* to nearest */
}

static void pack_q8(struct weir_matrix *m, uint32_t row, const float *x)
{
    int8_t *panel = (int8_t *)m->data + row / PANEL * panel_bytes(m);
    float scale = largest(x, m->n_in) / Q8_MAX, by = scale > 0 ? 1 / scale : 0;
    int32_t sum = 0;

    for (uint32_t k = 0; k < m->n_in; k++) {
        int32_t q = (int32_t)round_to(x[k], by, Q8_MAX);
        panel[((size_t)(k / 4) * PANEL + row % PANEL) * 4 + k % 4] = (int8_t)q;
        sum += q;
    }
    m->scales[row] = scale;
    m->sums[row] = sum;
}

static void pack_q4(struct weir_matrix *m, uint32_t row, const float *x)
{
    uint8_t *panel = (uint8_t *)m->data + row / PANEL * panel_bytes(m);
    size_t lane = row % PANEL, n_group = m->n_wide / GROUP;
    float scale = weir_q4_scale(x, m->n_in);
    int32_t sum = 0;

    for (size_t g = 0; g < n_group; g++) {
        uint32_t first = (uint32_t)g * GROUP, n = first < m->n_in ? m->n_in - first : 0;
        int8_t q[GROUP] = { 0 };
        int32_t by = weir_q4_group(q, x + first, n < GROUP ? n : GROUP, scale);
        m->multipliers[(row / PANEL * n_group + g) * PANEL + lane] = (uint8_t)by;
        for (uint32_t k = first; k < first + GROUP; k++) {
            uint8_t *byte = panel + ((size_t)(k / 8) * PANEL + lane) * 4 + k % 4;
            *byte = (uint8_t)(*byte | (q[k - first] + 8) << (k % 8 < 4 ? 0 : 4));
            sum += by * q[k - first];
        }
    }
    m->scales[row] = scale;
    m->sums[row] = sum;
}

void matrix_row(const struct weir_matrix *m, uint32_t row, float *out)
{
    const char *panel = (const char *)m->data + row / PANEL * panel_bytes(m);
    size_t lane = row % PANEL;

    for (uint32_t k = 0; k < m->n_in; k++) {
        if (m->quant == WEIR_Q8) {
            out[k] = m->scales[row] * ((const int8_t *)panel)[((size_t)(k / 4) * PANEL + lane) * 4 + k % 4];
        } else if (m->quant == WEIR_Q4) {
            int byte = ((const uint8_t *)panel)[((size_t)(k / 8) * PANEL + lane) * 4 + k % 4];
            int by = m->multipliers[((size_t)(row / PANEL) * (m->n_wide / GROUP) + k / GROUP) * PANEL + lane];
            out[k] = m->scales[row] * (float)(by * ((k % 8 < 4 ? byte & 15 : byte >> 4) - 8));
        } else if (m->dtype == WEIR_BF16) {
            out[k] = weir_half_to_f32(((const uint16_t *)panel)[((size_t)(k / 2) * PANEL + lane) * 2 + k % 2],
                                      WEIR_BF16);
        } else {
            out[k] = ((const float *)panel)[(size_t)k * PANEL + lane];
        }
    }
}

/* ---- whole matrices ---- */
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

static size_t lines(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

/* What products with the matrix need beside it: see struct cpu. */
static weir_err make_scratch(struct cpu *cpu, const struct weir_matrix *m)
{
    size_t prepared = cpu->ops->prepare ? cpu->ops->prepared_bytes(m) : 0;
    size_t own = cpu->ops->own_bytes ? cpu->ops->own_bytes(m) : 0;

    if ((prepared && !scratch_grow(&cpu->prepared, prepared)) ||
        !scratch_grow(&cpu->rows, (size_t)HEAD_ROWS * m->n_in * sizeof(float)))
        return WEIR_NOMEM;
    if (own <= cpu->own_bytes)
        return WEIR_OK;
    if (!scratch_grow(&cpu->own, own * pool_threads(cpu->pool)))
        return WEIR_NOMEM;
    cpu->own_bytes = own;
    return WEIR_OK;
}

/* The panels, then multipliers, scales and sums. */
static weir_err make_room(struct cpu *cpu, struct weir_matrix *m)
{
    size_t n_rows = (size_t)m->n_panel * PANEL, panels = lines(m->n_panel * panel_bytes(m));
    size_t multipliers = m->quant == WEIR_Q4 ? lines(n_rows * (m->n_wide / GROUP)) : 0;

    m->bytes =
        panels + multipliers + (m->quant == WEIR_NATIVE ? 0 : n_rows * (sizeof(float) + sizeof(int32_t)));
    m->data = cpu_alloc_weights(&cpu->be, m->bytes);
    if (!m->data || make_scratch(cpu, m) != WEIR_OK)
        return WEIR_NOMEM;
    if (m->quant != WEIR_NATIVE) {
        m->multipliers = (uint8_t *)m->data + panels;
        m->scales = (float *)(void *)(m->multipliers + multipliers);
        m->sums = (int32_t *)(void *)(m->scales + n_rows);
    }
    return WEIR_OK;
}

struct pack_job {
    struct weir_matrix *m;
    const struct weir_weights *parts;
    float *rows; /* [threads, n_in] */
};

static void pack_row(const struct pack_job *j, uint32_t row, float *x)
{
    struct weir_matrix *m = j->m;
    const struct weir_weights *part = j->parts;
    uint32_t source = row;

    for (; source >= part->n_out; part++)
        source -= part->n_out;
    size_t first = (size_t)source * part->stride;
    if (m->quant == WEIR_NATIVE) {
        pack_native(m, row, part, first);
        return;
    }
    for (uint32_t k = 0; k < m->n_in; k++)
        x[k] = read_f32(part, first + k);
    if (m->quant == WEIR_Q8)
        pack_q8(m, row, x);
    else
        pack_q4(m, row, x);
}

static void pack_part(void *arg, uint32_t i, uint32_t n)
{
    const struct pack_job *j = arg;
    struct weir_matrix *m = j->m;
    uint32_t begin, end;

    pool_share(m->n_panel, i, n, &begin, &end);
    memset((char *)m->data + begin * panel_bytes(m), 0, (end - begin) * panel_bytes(m));
    for (uint32_t row = begin * PANEL; row < end * PANEL && row < m->n_out; row++)
        pack_row(j, row, j->rows + (size_t)i * m->n_in);
    for (uint32_t row = m->n_out; end == m->n_panel && row % PANEL && m->quant != WEIR_NATIVE; row++) {
        m->scales[row] = 0;
        m->sums[row] = 0;
        for (size_t g = 0; m->multipliers && m->quant == WEIR_Q4 && g < m->n_wide / GROUP; g++)
            m->multipliers[(row / PANEL * (m->n_wide / GROUP) + g) * PANEL + row % PANEL] = 0;
    }
}

weir_err cpu_pack(struct weir_backend *be, const struct weir_weights *parts, int n_parts, uint32_t n_in,
                  enum weir_quant quant, struct weir_matrix **ret)
{
    struct cpu *cpu = cpu_of(be);
    struct weir_matrix *m;
    bool all_bf16 = true;

    if (quant == WEIR_FP8 || (quant != WEIR_NATIVE && n_in > QUANT_IN_MAX))
        return WEIR_UNIMPLEMENTED;
    m = weir_alloc0(sizeof *m);
    if (!m)
        return WEIR_NOMEM;
    for (int i = 0; i < n_parts; i++) {
        m->n_out += parts[i].n_out;
        all_bf16 = all_bf16 && parts[i].dtype == WEIR_BF16;
    }
    m->n_in = n_in;
    m->quant = quant;
    m->n_panel = (m->n_out + PANEL - 1) / PANEL;
    m->dtype = all_bf16 ? WEIR_BF16 : WEIR_F32;
    m->n_pair = ((n_in + 1) / 2 + PAIRS_UNIT - 1) / PAIRS_UNIT * PAIRS_UNIT;
    m->n_wide = (n_in + QUANT_UNIT - 1) / QUANT_UNIT * QUANT_UNIT;
    struct pack_job job = { m, parts, weir_calloc((size_t)pool_threads(cpu->pool) * n_in, sizeof(float)) };
    weir_err err = job.rows ? make_room(cpu, m) : WEIR_NOMEM;
    if (err == WEIR_OK)
        cpu_run(cpu, pack_part, &job, (uint64_t)m->n_out * n_in);
    weir_free(job.rows);
    if (err != WEIR_OK) {
        cpu_unpack(be, m);
        return err;
    }
    *ret = m;
    return WEIR_OK;
}
