/* rig.c - see rig.h; and main(): every check, or those whose names contain the argument. */
#include "tests/unit/cuda/rig.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FENCE 256
#define N_ORDERS 4

uint64_t rig_random(struct rig *r)
{
    r->random ^= r->random << 13;
    r->random ^= r->random >> 7;
    r->random ^= r->random << 17;
    return r->random * 0x2545f4914f6cdd1dull;
}

uint32_t rig_between(struct rig *r, uint32_t low, uint32_t high)
{
    return low + (uint32_t)((rig_random(r) >> 33) % (high - low + 1));
}

double rig_normal(struct rig *r)
{
    double sum = 0;

    for (int i = 0; i < 4; i++)
        sum += (double)(rig_random(r) >> 40) * 0x1p-24 - 0.5;
    return sum * 1.7320508;
}

double rig_of_bf16(uint16_t bits)
{
    uint32_t wide = (uint32_t)bits << 16;
    float f;

    memcpy(&f, &wide, 4);
    return (double)f;
}

uint16_t rig_to_bf16(double value)
{
    float f = (float)value;
    uint32_t bits;

    memcpy(&bits, &f, 4);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

/* ---- memory; every block is remembered with where it lives ---- */
static void *keep(struct rig *r, void *ptr, bool on_device)
{
    if (!ptr || r->n_blocks == sizeof r->blocks / sizeof *r->blocks) {
        fprintf(stderr, "%s: no memory, or too many blocks\n", r->check);
        exit(1);
    }
    r->blocks[r->n_blocks++] = (void *)((uintptr_t)ptr | (on_device ? 1 : 0));
    return ptr;
}

static void free_blocks(struct rig *r)
{
    for (uint32_t i = 0; i < r->n_blocks; i++) {
        uintptr_t at = (uintptr_t)r->blocks[i];
        if (at & 1)
            dev_free(r->d, (void *)(at - 1));
        else
            free((void *)at);
    }
    r->n_blocks = 0;
}

void *rig_host(struct rig *r, size_t bytes)
{
    return keep(r, calloc(1, bytes + 1), /* on_device= */ false);
}

void *rig_device(struct rig *r, size_t bytes)
{
    void *ptr = keep(r, dev_alloc(r->d, bytes + FENCE), /* on_device= */ true);
    char *poison = malloc(bytes + FENCE);

    memset(poison, 0xff, bytes + FENCE);
    dev_upload(r->d, ptr, poison, bytes + FENCE);
    dev_sync(r->d);
    free(poison);
    return ptr;
}

void *rig_upload(struct rig *r, const void *from, size_t bytes)
{
    void *ptr = rig_device(r, bytes);

    dev_upload(r->d, ptr, from, bytes);
    dev_sync(r->d);
    return ptr;
}

int32_t *rig_ints(struct rig *r, const int32_t *values, size_t n)
{
    return rig_upload(r, values, n * sizeof *values);
}

uint16_t *rig_bf16(struct rig *r, double **values, size_t n, double size)
{
    uint16_t *bits = rig_host(r, n * sizeof *bits);
    double *exact = rig_host(r, n * sizeof *exact);

    for (size_t i = 0; i < n; i++) {
        bits[i] = rig_to_bf16(rig_normal(r) * size);
        exact[i] = rig_of_bf16(bits[i]);
    }
    if (values)
        *values = exact;
    return rig_upload(r, bits, n * sizeof *bits);
}

float *rig_f32(struct rig *r, double **values, size_t n, double around, double size)
{
    float *numbers = rig_host(r, n * sizeof *numbers);
    double *exact = rig_host(r, n * sizeof *exact);

    for (size_t i = 0; i < n; i++) {
        numbers[i] = (float)(around + rig_normal(r) * size);
        exact[i] = (double)numbers[i];
    }
    if (values)
        *values = exact;
    return rig_upload(r, numbers, n * sizeof *numbers);
}

double rig_of_fp8(uint8_t byte)
{
    int exponent = byte >> 3 & 15, mantissa = byte & 7;
    double value = exponent ? ldexp(8 + mantissa, exponent - 10) : ldexp(mantissa, -9);

    return byte & 0x80 ? -value : value;
}

/* A random weight into row i at k; what it is but for the scale of its row. */
static double put_weight(struct rig *r, const struct cuda_weights *w, void *row, const uint8_t *multipliers,
                         uint32_t k)
{
    uint8_t byte = (uint8_t)(rig_random(r) >> 20);

    switch (w->kind) {
    case CUDA_BF16:
        ((uint16_t *)row)[k] = rig_to_bf16(rig_normal(r));
        return rig_of_bf16(((uint16_t *)row)[k]);
    case CUDA_Q8:
        ((uint8_t *)row)[k] = byte;
        return (int8_t)byte;
    case CUDA_FP8:
        ((uint8_t *)row)[k] = (byte & 0x7f) == 0x7f ? 0 : byte;
        return rig_of_fp8(((uint8_t *)row)[k]);
    case CUDA_Q4:
        break;
    }
    uint32_t j = k % 8, shift = 4 * (j / 2) + 16 * (j % 2);
    uint32_t *word = &((uint32_t *)row)[k / 8];
    *word = (*word & ~(15u << shift)) | (byte & 15u) << shift;
    return ((byte & 15) - 8) * multipliers[k / 32];
}

struct cuda_weights rig_weights(struct rig *r, double **values, uint32_t n_out, uint32_t n_in,
                                enum cuda_kind kind)
{
    uint32_t unit = kind == CUDA_Q4 ? CUDA_Q4_UNIT : CUDA_K_UNIT, stride = (n_in + unit - 1) / unit * unit;
    struct cuda_weights w = { .n_out = n_out, .n_in = n_in, .stride = stride, .kind = kind };
    size_t row_bytes = kind == CUDA_BF16 ? (size_t)stride * 2 : kind == CUDA_Q4 ? stride / 2 : stride;
    char *rows = rig_host(r, n_out * row_bytes);
    uint8_t *multipliers = rig_host(r, (size_t)n_out * stride / 32);
    double *scale = NULL;

    *values = rig_host(r, (size_t)n_out * n_in * sizeof(double));
    if (kind != CUDA_BF16)
        w.scale = rig_f32(r, &scale, n_out, 0.02, 0.005);
    for (uint32_t i = 0; i < n_out; i++) {
        uint8_t *by = multipliers + (size_t)i * stride / 32;
        char *row = rows + i * row_bytes;
        memset(row, kind == CUDA_Q4 ? 0x88 : 0, row_bytes);
        for (uint32_t g = 0; g < stride / 32; g++)
            by[g] = (uint8_t)rig_between(r, 1, 15);
        for (uint32_t k = 0; k < n_in; k++)
            (*values)[(size_t)i * n_in + k] = put_weight(r, &w, row, by, k) * (scale ? scale[i] : 1);
    }
    w.data = rig_upload(r, rows, n_out * row_bytes);
    if (kind == CUDA_Q4)
        w.multipliers = rig_upload(r, multipliers, (size_t)n_out * stride / 32);
    return w;
}

/* ---- comparing ---- */
static void bad(struct rig *r, const char *what, const char *how, double number)
{
    fprintf(stderr, "FAIL %s: %s: %s (%g)\n", r->check, what, how, number);
    r->n_bad++;
}

void rig_true(struct rig *r, const char *what, bool ok)
{
    r->n_compared++;
    if (!ok)
        bad(r, what, "does not hold", 0);
}

void rig_same(struct rig *r, const char *what, const void *a, const void *b, size_t bytes)
{
    r->n_compared++;
    for (size_t i = 0; i < bytes; i++)
        if (((const char *)a)[i] != ((const char *)b)[i]) {
            bad(r, what, "other bits from byte", (double)i);
            return;
        }
}

static void near(struct rig *r, const char *what, const double *got, const double *want, size_t n,
                 double nmse_max)
{
    double error = 0, size = 0;

    r->n_compared++;
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(got[i])) {
            bad(r, what, "not finite at", (double)i);
            return;
        }
        error += (got[i] - want[i]) * (got[i] - want[i]);
        size += want[i] * want[i];
    }
    if (error > nmse_max * (size > 0 ? size : 1))
        bad(r, what, "normalised squared error", error / size);
}

void rig_near_bf16(struct rig *r, const char *what, const uint16_t *got, const double *want, size_t n,
                   double nmse_max)
{
    double *values = rig_host(r, n * sizeof *values);

    for (size_t i = 0; i < n; i++)
        values[i] = rig_of_bf16(got[i]);
    near(r, what, values, want, n, nmse_max);
}

void rig_near_f32(struct rig *r, const char *what, const float *got, const double *want, size_t n,
                  double nmse_max)
{
    double *values = rig_host(r, n * sizeof *values);

    for (size_t i = 0; i < n; i++)
        values[i] = (double)got[i];
    near(r, what, values, want, n, nmse_max);
}

/* ---- running ---- */
void *rig_run(struct rig *r, void (*launch)(struct rig *r, void *arg), void *arg, void *out, size_t bytes,
              void *inout, size_t inout_bytes)
{
    static const int orders[N_ORDERS] = { 0, 1, 2, 2 }; /* EMU_FORWARD, EMU_BACKWARD, EMU_SHUFFLED twice */
    char *first = rig_host(r, bytes + FENCE), *other = rig_host(r, bytes + FENCE),
         *poison = malloc(bytes + FENCE);
    char *saved = rig_host(r, inout_bytes);
    struct weir_why why = { 0 };

    if (inout)
        dev_download(r->d, saved, inout, inout_bytes);
    dev_sync(r->d);
    memset(poison, 0xff, bytes + FENCE);
    for (int i = 0; i < N_ORDERS; i++) {
        char *to = i ? other : first;
        if (out != inout)
            dev_upload(r->d, out, poison, bytes + FENCE);
        if (inout)
            dev_upload(r->d, inout, saved, inout_bytes);
        dev_set_order(orders[i], rig_random(r));
        launch(r, arg);
        dev_download(r->d, to, out, bytes + FENCE);
        dev_sync(r->d);
        if (dev_check(r->d, &why) != WEIR_OK) {
            bad(r, "the device", why.text, i);
            exit(1);
        }
        rig_same(r, "the fence behind the output", to + bytes, poison, FENCE);
        if (i)
            rig_same(r, "another order of threads", first, to, bytes);
    }
    if (inout)
        dev_upload(r->d, inout, saved, inout_bytes);
    dev_sync(r->d);
    dev_set_order(0, 0);
    free(poison);
    return first;
}

static void run_checks(struct rig *r, const struct rig_check *checks, const char *filter)
{
    for (; checks->name; checks++) {
        if (filter && !strstr(checks->name, filter))
            continue;
        r->check = checks->name;
        uint32_t n_bad = r->n_bad;
        checks->fn(r);
        free_blocks(r);
        printf("%-4s %s\n", r->n_bad == n_bad ? "ok" : "FAIL", checks->name);
        fflush(stdout);
    }
}

int main(int argc, char **argv)
{
    const char *filter = argc > 1 ? argv[1] : NULL, *seed = getenv("WEIR_SEED");
    struct rig r = { .random = seed ? strtoull(seed, NULL, 0) * 2 + 1 : 20261121 };
    struct weir_why why = { 0 };
    static const struct rig_check *const all[] = { checks_rows,   checks_attn,   checks_gemm, checks_moe,
                                                   checks_sample, checks_reduce, checks_fp8 };

    if (dev_open(/* index= */ 0, &r.d, &why) != WEIR_OK) {
        printf("skipped: %s\n", why.text);
        return 77;
    }
    r.s = dev_stream(r.d);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        run_checks(&r, all[i], filter);
    printf("%u comparisons on %s, %u failed\n", r.n_compared, dev_about(r.d)->name, r.n_bad);
    dev_close(r.d);
    return r.n_bad || r.n_compared == 0;
}
