/* cpu.c - the CPU back end: chooses the instruction set, packs weights, spreads each operation over the pool.
 *
 * Work is split by panels (linear), tokens (norms), or runs of tokens x KV heads (attention); a part's result never depends on
 * the split, which is how the bit law survives any number of threads. Memory is plain, 64-byte aligned. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "base/mem.h"
#include "kernels/cpu/ops.h"
#include "kernels/cpu/pool.h"

#define SMALL_JOB 16384
#define ATTEND_TOKENS 16 /* of a sequence at once: they share what is loaded of its keys and values */

struct cpu {
    struct weir_backend be;
    const struct cpu_ops *ops;
    struct pool *pool;
    void *split; /* what ops->split makes of a block of tokens */
    size_t split_bytes;
};

static struct cpu *cpu_of(struct weir_backend *be)
{
    return be->ctx;
}

/* ---- memory and packing ---- */
static void *cpu_alloc(struct weir_backend *be, size_t bytes)
{
    (void)be;
    return weir_alloc_aligned(64, (bytes + 63) & ~(size_t)63);
}

static void cpu_free(struct weir_backend *be, void *ptr)
{
    (void)be;
    weir_free(ptr);
}

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
        size_t i = (size_t)source * m->n_in + k, to = element(m, row, k);
        if (m->dtype == WEIR_BF16)
            memcpy((uint16_t *)m->data + to, (const char *)part->data + 2 * i, 2);
        else
            ((float *)m->data)[to] = read_f32(part, i);
    }
}

/* The buffer of split activations is as large as the widest matrix wants. */
static weir_err grow_split(struct cpu *cpu, const struct weir_matrix *m)
{
    size_t bytes = cpu->ops->split ? cpu->ops->split_bytes(m) : 0;

    if (bytes <= cpu->split_bytes)
        return WEIR_OK;
    void *grown = cpu_alloc(&cpu->be, bytes);
    if (!grown)
        return WEIR_NOMEM;
    weir_free(cpu->split);
    cpu->split = grown;
    cpu->split_bytes = bytes;
    return WEIR_OK;
}

static void cpu_unpack(struct weir_backend *be, struct weir_matrix *m)
{
    if (!m)
        return;
    cpu_free(be, m->data);
    weir_free(m);
}

static weir_err cpu_pack(struct weir_backend *be, const struct weir_weights *parts, int n_parts,
                         uint32_t n_in, struct weir_matrix **ret)
{
    struct weir_matrix *m = weir_alloc0(sizeof *m);
    bool all_bf16 = true;

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
    size_t bytes = (size_t)m->n_panel * PANEL * 4 * (all_bf16 ? m->n_pair : n_in);
    m->data = cpu_alloc(be, bytes);
    if (!m->data || grow_split(cpu_of(be), m) != WEIR_OK) {
        cpu_unpack(be, m);
        return WEIR_NOMEM;
    }
    memset(m->data, 0, bytes);
    for (uint32_t i = 0, row = 0; i < (uint32_t)n_parts; i++)
        for (uint32_t k = 0; k < parts[i].n_out; k++)
            pack_row(m, row++, &parts[i], k);
    *ret = m;
    return WEIR_OK;
}

/* ---- operations: a job's arguments, and the part of it that worker i of n does ---- */
struct job {
    const struct cpu_ops *ops;
    float *out;
    const float *x, *y, *z;
    const struct weir_matrix *m;
    const struct weir_batch *batch;
    const struct weir_kv_pages *kv;
    const struct weir_attn_dims *dims;
    const int32_t *ids;
    void *split;
    uint32_t n_tok, n;
    float scalar;
    int add;
};

/* Small jobs are done at once: to call the others costs more than it brings. `work` is in numbers touched. */
static void run(struct cpu *cpu, void (*fn)(void *arg, uint32_t i, uint32_t n), struct job *job,
                uint64_t work)
{
    if (work < SMALL_JOB)
        fn(job, 0, 1);
    else
        pool_run(cpu->pool, fn, job);
}

static void embed_part(void *arg, uint32_t i, uint32_t n)
{
    const struct job *j = arg;
    uint32_t begin, end, n_in = j->m->n_in;

    pool_share(j->n_tok, i, n, &begin, &end);
    for (uint32_t t = begin; t < end; t++) {
        for (uint32_t k = 0; k < n_in; k++) {
            size_t from = element(j->m, (uint32_t)j->ids[t], k);
            j->out[(size_t)t * n_in + k] =
                j->m->dtype == WEIR_BF16 ? weir_half_to_f32(((const uint16_t *)j->m->data)[from], WEIR_BF16)
                                         : ((const float *)j->m->data)[from];
        }
    }
}

static void cpu_embed(struct weir_backend *be, float *out, const struct weir_matrix *m, const int32_t *ids,
                      uint32_t n_tok)
{
    struct job job = { .out = out, .m = m, .ids = ids, .n_tok = n_tok };
    run(cpu_of(be), embed_part, &job, (uint64_t)n_tok * m->n_in);
}

static void rmsnorm_part(void *arg, uint32_t i, uint32_t n)
{
    const struct job *j = arg;
    uint32_t begin, end;

    pool_share(j->n_tok, i, n, &begin, &end);
    for (uint32_t t = begin; t < end; t++)
        j->ops->rmsnorm(j->out + (size_t)t * j->n, j->x + (size_t)t * j->n, j->y, j->n, j->scalar);
}

static void cpu_rmsnorm(struct weir_backend *be, float *out, const float *x, const float *weight,
                        uint32_t n_tok, uint32_t n, float eps)
{
    struct job job = {
        .ops = cpu_of(be)->ops, .out = out, .x = x, .y = weight, .n_tok = n_tok, .n = n, .scalar = eps
    };
    run(cpu_of(be), rmsnorm_part, &job, (uint64_t)n_tok * n);
}

static void linear_part(void *arg, uint32_t i, uint32_t n)
{
    const struct job *j = arg;
    uint32_t begin, end;

    pool_share(j->m->n_panel, i, n, &begin, &end);
    j->ops->linear(j->out, j->x, j->m, j->n_tok, j->add, begin, end, j->split);
}

static void split_part(void *arg, uint32_t i, uint32_t n)
{
    const struct job *j = arg;
    uint32_t begin, end;

    pool_share((j->n_tok + SPLIT_UNIT - 1) / SPLIT_UNIT * SPLIT_UNIT, i, n, &begin, &end);
    j->ops->split(j->x, j->m, j->n_tok, begin, end, j->split);
}

static void cpu_linear(struct weir_backend *be, float *out, const float *x, const struct weir_matrix *m,
                       uint32_t n_tok, int add)
{
    struct cpu *cpu = cpu_of(be);
    bool splits = cpu->ops->split && cpu->ops->split_bytes(m) > 0;
    uint32_t block = splits ? SPLIT_TOKENS : n_tok;

    for (uint32_t t = 0; t < n_tok; t += block) {
        struct job job = { .ops = cpu->ops,
                           .out = out + (size_t)t * m->n_out,
                           .x = x + (size_t)t * m->n_in,
                           .m = m,
                           .n_tok = n_tok - t < block ? n_tok - t : block,
                           .add = add,
                           .split = cpu->split };
        if (splits)
            run(cpu, split_part, &job, (uint64_t)job.n_tok * m->n_in);
        run(cpu, linear_part, &job, (uint64_t)job.n_tok * m->n_in * m->n_out);
    }
}

/* out [d_head], its numbers `stride` apart. */
static void rotate(float *out, size_t stride, const float *x, const float *cos, const float *sin,
                   uint32_t half)
{
    for (uint32_t i = 0; i < half; i++) {
        float a = x[i], b = x[i + half];
        out[i * stride] = a * cos[i] - b * sin[i];
        out[(i + half) * stride] = b * cos[i] + a * sin[i];
    }
}

static void rope_part(void *arg, uint32_t i, uint32_t n)
{
    const struct job *j = arg;
    const struct weir_attn_dims *dims = j->dims;
    uint32_t begin, end, d = dims->d_head, half = d / 2, width = (dims->n_head + 2 * dims->n_kv_head) * d;

    pool_share(j->batch->n_tok, i, n, &begin, &end);
    for (uint32_t t = begin; t < end; t++) {
        size_t pos = (size_t)j->batch->pos[t];
        const float *cos = j->y + pos * half, *sin = j->z + pos * half;
        float *row = j->out + (size_t)t * width, *k = row + (size_t)dims->n_head * d,
              *v = k + (size_t)dims->n_kv_head * d;
        const int32_t *table = j->batch->table + (size_t)j->batch->seq[t] * j->batch->n_block_max;
        size_t page = (size_t)table[pos / WEIR_KV_BLOCK] * dims->n_kv_head * WEIR_KV_BLOCK * d;
        for (uint32_t h = 0; h < dims->n_head; h++)
            rotate(row + (size_t)h * d, 1, row + (size_t)h * d, cos, sin, half);
        for (uint32_t h = 0; h < dims->n_kv_head; h++) {
            size_t at = page + (size_t)h * WEIR_KV_BLOCK * d, slot = pos % WEIR_KV_BLOCK;
            rotate(j->kv->k + at + slot, WEIR_KV_BLOCK, k + (size_t)h * d, cos, sin, half);
            memcpy(j->kv->v + at + slot * d, v + (size_t)h * d, d * sizeof *v);
        }
    }
}

static void cpu_rope_store(struct weir_backend *be, float *qkv, const float *cos, const float *sin,
                           const struct weir_kv_pages *kv, const struct weir_batch *batch,
                           const struct weir_attn_dims *dims)
{
    struct job job = { .out = qkv, .y = cos, .z = sin, .kv = kv, .batch = batch, .dims = dims };
    run(cpu_of(be), rope_part, &job,
        (uint64_t)batch->n_tok * (dims->n_head + 2 * dims->n_kv_head) * dims->d_head);
}

/* How many tokens from t on follow each other in one sequence; at most ATTEND_TOKENS. */
static uint32_t run_length(const struct weir_batch *batch, uint32_t t)
{
    uint32_t n = 1;

    while (n < ATTEND_TOKENS && t + n < batch->n_tok && batch->seq[t + n] == batch->seq[t] &&
           batch->pos[t + n] == batch->pos[t] + (int32_t)n)
        n++;
    return n;
}

static void attention_part(void *arg, uint32_t i, uint32_t n)
{
    const struct job *j = arg;
    const struct weir_attn_dims *dims = j->dims;
    uint32_t n_kv = dims->n_kv_head, d = dims->d_head, item = 0, length;
    size_t group = (size_t)dims->n_head / n_kv * d, ld_out = (size_t)dims->n_head * d,
           ld_q = ld_out + (size_t)2 * n_kv * d;

    /* Dealt out one by one, not in ranges: the tokens at the end of a prompt attend to more. */
    for (uint32_t t = 0; t < j->batch->n_tok; t += length) {
        length = run_length(j->batch, t);
        for (uint32_t h = 0; h < n_kv; h++, item++) {
            if (item % n != i)
                continue;
            struct attend_job job = { .out = j->out + t * ld_out + h * group,
                                      .q = j->x + t * ld_q + h * group,
                                      .ld_out = ld_out,
                                      .ld_q = ld_q,
                                      .k = j->kv->k,
                                      .v = j->kv->v,
                                      .table =
                                          j->batch->table + (size_t)j->batch->seq[t] * j->batch->n_block_max,
                                      .n_tok = length,
                                      .i_kv_head = h,
                                      .pos = j->batch->pos[t],
                                      .dims = dims,
                                      .scale = j->scalar };
            j->ops->attend(&job);
        }
    }
}

static void cpu_attention(struct weir_backend *be, float *out, const float *qkv,
                          const struct weir_kv_pages *kv, const struct weir_batch *batch,
                          const struct weir_attn_dims *dims, float scale)
{
    uint64_t n_pos = 0;

    struct job job = {
        .ops = cpu_of(be)->ops, .out = out, .x = qkv, .kv = kv, .batch = batch, .dims = dims, .scalar = scale
    };
    for (uint32_t t = 0; t < batch->n_tok; t++)
        n_pos += (uint64_t)batch->pos[t] + 1;
    run(cpu_of(be), attention_part, &job, n_pos * dims->n_head * dims->d_head);
}

static void silu_part(void *arg, uint32_t i, uint32_t n)
{
    const struct job *j = arg;
    uint32_t begin, end;

    pool_share(j->n_tok, i, n, &begin, &end);
    for (uint32_t t = begin; t < end; t++) {
        const float *gate = j->x + (size_t)t * 2 * j->n;
        j->ops->silu_mul(j->out + (size_t)t * j->n, gate, gate + j->n, j->n);
    }
}

static void cpu_silu_mul(struct weir_backend *be, float *out, const float *gate_up, uint32_t n_tok,
                         uint32_t n)
{
    struct job job = { .ops = cpu_of(be)->ops, .out = out, .x = gate_up, .n_tok = n_tok, .n = n };
    run(cpu_of(be), silu_part, &job, 4ull * n_tok * n);
}

static void cpu_copy_page(struct weir_backend *be, const struct weir_kv_pages *kv,
                          const struct weir_attn_dims *dims, uint32_t from, uint32_t to)
{
    size_t page = (size_t)dims->n_kv_head * WEIR_KV_BLOCK * dims->d_head;

    (void)be;
    memcpy(kv->k + to * page, kv->k + from * page, page * sizeof *kv->k);
    memcpy(kv->v + to * page, kv->v + from * page, page * sizeof *kv->v);
}

/* ---- opening ---- */
#if defined(__x86_64__)
/* What ops_amx.c uses: bf16 tiles, and the vector conversions to bf16. */
static bool has_amx(void)
{
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0, eax1 = 0, other = 0;

    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) ||
        !__get_cpuid_count(7, 1, &eax1, &other, &other, &other))
        return false;
    return (edx & 1u << 22) && (edx & 1u << 24) && (eax1 & 1u << 5); /* AMX-BF16, AMX-TILE, AVX512-BF16 */
}
#endif

static const struct cpu_ops *choose_ops(void)
{
    const char *wanted = getenv("WEIR_CPU");
    bool any = !wanted || !wanted[0];

#if defined(__x86_64__)
    __builtin_cpu_init();
    bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512vl");
    bool amx = avx512 && has_amx();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (amx && (any || strcmp(wanted, "amx") == 0) && cpu_amx_allowed())
        return &cpu_ops_amx;
    if (avx512 && (any || strcmp(wanted, "avx512") == 0))
        return &cpu_ops_avx512;
    if (avx2 && (any || strcmp(wanted, "generic") != 0))
        return &cpu_ops_avx2;
#else
    (void)any;
#endif
    return &cpu_ops_generic;
}

static void cpu_close(struct weir_backend *be)
{
    struct cpu *cpu = be->ctx;

    pool_close(cpu->pool);
    weir_free(cpu->split);
    weir_free(cpu);
}

void weir_backend_close(struct weir_backend *be)
{
    if (be)
        be->close(be);
}

weir_err weir_backend_cpu_open(uint32_t n_threads, struct weir_backend **ret, struct weir_why *why)
{
    struct cpu *cpu = weir_alloc0(sizeof *cpu);

    if (!cpu)
        return weir_fail(why, WEIR_NOMEM, "no memory for the CPU back end");
    cpu->ops = choose_ops();
    weir_err err = pool_open(n_threads, &cpu->pool, why);
    if (err != WEIR_OK) {
        weir_free(cpu);
        return err;
    }
    cpu->be = (struct weir_backend){
        .name = cpu->ops->name,
        .ctx = cpu,
        .close = cpu_close,
        .alloc = cpu_alloc,
        .free = cpu_free,
        .pack = cpu_pack,
        .unpack = cpu_unpack,
        .embed = cpu_embed,
        .rmsnorm = cpu_rmsnorm,
        .linear = cpu_linear,
        .rope_store = cpu_rope_store,
        .attention = cpu_attention,
        .silu_mul = cpu_silu_mul,
        .copy_page = cpu_copy_page,
    };
    *ret = &cpu->be;
    return WEIR_OK;
}
