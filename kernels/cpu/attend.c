/* attend.c - rows of q, k, v into pages, and attention over them.
 *
 * A page holds, for each KV head, keys and values in two arrays. f32: keys transposed [d_head][WEIR_KV_BLOCK], values
 * [WEIR_KV_BLOCK][d_head]. bf16, rounded to nearest: the same in pairs, as AMX tiles want them and so that one load brings both:
 * keys [d_head / 2][WEIR_KV_BLOCK][2], values [WEIR_KV_BLOCK / 2][d_head][2].
 *
 *   [A1] Values of bf16 past the last position stored in a page are zeros: tiles multiply them, by weights of zero. So
 *        whoever stores a page's first position clears what is behind the batch's own. */
#include <string.h>

#include "kernels/cpu/cpu_int.h"

#define ATTEND_TOKENS 16 /* of a sequence at once: they share what is loaded of its keys and values */

struct attention_job {
    const struct cpu *cpu;
    float *qkv, *out;
    const struct weir_qkv *how;
    const struct weir_kv_pages *kv;
    const struct weir_batch *batch;
    const struct weir_attn_dims *dims;
    float scale;
};

size_t cpu_kv_page_bytes(const struct weir_backend *be, const struct weir_attn_dims *dims)
{
    return (size_t)dims->n_kv_head * WEIR_KV_BLOCK * dims->d_head * weir_dtype_size(cpu_of(be)->kv);
}

static uint16_t to_bf16(float x)
{
    uint32_t bits;

    memcpy(&bits, &x, sizeof bits);
    bits += 0x7fff + (bits >> 16 & 1); /* to nearest, ties to even */
    return (uint16_t)(bits >> 16);
}

/* A head's key and value at position `slot` of its part of a page. */
static void put_f32(float *keys, float *values, uint32_t slot, const float *k, const float *v, uint32_t d)
{
    for (uint32_t i = 0; i < d; i++)
        keys[(size_t)i * WEIR_KV_BLOCK + slot] = k[i];
    memcpy(values + (size_t)slot * d, v, d * sizeof *v);
}

static void put_bf16(uint16_t *keys, uint16_t *values, uint32_t slot, const float *k, const float *v,
                     uint32_t d)
{
    for (uint32_t i = 0; i < d; i++)
        keys[((size_t)(i / 2) * WEIR_KV_BLOCK + slot) * 2 + i % 2] = to_bf16(k[i]);
    for (uint32_t i = 0; i < d; i++)
        values[((size_t)(slot / 2) * d + i) * 2 + slot % 2] = to_bf16(v[i]);
}

/* [A1] */
static void clear_values(uint16_t *values, uint32_t from, uint32_t d)
{
    for (uint32_t slot = from; slot < WEIR_KV_BLOCK; slot++)
        for (uint32_t i = 0; i < d; i++)
            values[((size_t)(slot / 2) * d + i) * 2 + slot % 2] = 0;
}

static void rotate(float *x, const float *cos, const float *sin, uint32_t half)
{
    for (uint32_t i = 0; i < half; i++) {
        float a = x[i], b = x[i + half];
        x[i] = a * cos[i] - b * sin[i];
        x[i + half] = b * cos[i] + a * sin[i];
    }
}

/* How many tokens from t on follow each other in one sequence; at most `max`. */
static uint32_t run_length(const struct weir_batch *batch, uint32_t t, uint32_t max)
{
    uint32_t n = 1;

    while (n < max && t + n < batch->n_tok && batch->seq[t + n] == batch->seq[t] &&
           batch->pos[t + n] == batch->pos[t] + (int32_t)n)
        n++;
    return n;
}

static void store_in_page(const struct attention_job *j, uint32_t t, const float *k, const float *v)
{
    const struct weir_attn_dims *dims = j->dims;
    uint32_t d = dims->d_head, slot = (uint32_t)j->batch->pos[t] % WEIR_KV_BLOCK;
    const int32_t *table = j->batch->table + (size_t)j->batch->seq[t] * j->batch->n_block_max;
    size_t page = (size_t)table[j->batch->pos[t] / WEIR_KV_BLOCK] * dims->n_kv_head;
    uint32_t n_own = slot == 0 ? run_length(j->batch, t, WEIR_KV_BLOCK) : WEIR_KV_BLOCK;

    for (uint32_t h = 0; h < dims->n_kv_head; h++, k += d, v += d) {
        size_t at = (page + h) * WEIR_KV_BLOCK * d;
        if (j->cpu->kv == WEIR_F32) {
            put_f32((float *)j->kv->k + at, (float *)j->kv->v + at, slot, k, v, d);
            continue;
        }
        put_bf16((uint16_t *)j->kv->k + at, (uint16_t *)j->kv->v + at, slot, k, v, d);
        clear_values((uint16_t *)j->kv->v + at, n_own, d);
    }
}

static void store_token(const struct attention_job *j, uint32_t t)
{
    const struct weir_attn_dims *dims = j->dims;
    const struct weir_qkv *how = j->how;
    uint32_t d = dims->d_head, n_turned = dims->n_head + dims->n_kv_head,
             width = (n_turned + dims->n_kv_head) * d;
    size_t pos = (size_t)j->batch->pos[t];
    float *row = j->qkv + (size_t)t * width;

    for (uint32_t i = 0; how->bias && i < width; i++)
        row[i] += how->bias[i];
    for (uint32_t h = 0; h < n_turned; h++) {
        const float *norm = h < dims->n_head ? how->q_norm : how->k_norm;
        if (norm)
            j->cpu->ops->rmsnorm(row + (size_t)h * d, row + (size_t)h * d, norm, d, how->eps);
        rotate(row + (size_t)h * d, how->cos + pos * (d / 2), how->sin + pos * (d / 2), d / 2);
    }
    store_in_page(j, t, row + (size_t)dims->n_head * d, row + (size_t)n_turned * d);
}

static void store_part(void *arg, uint32_t i, uint32_t n)
{
    const struct attention_job *j = arg;
    uint32_t begin, end;

    pool_share(j->batch->n_tok, i, n, &begin, &end);
    for (uint32_t t = begin; t < end; t++)
        store_token(j, t);
}

void cpu_qkv_store(struct weir_backend *be, void *qkv, const struct weir_qkv *how,
                   const struct weir_kv_pages *kv, const struct weir_batch *batch,
                   const struct weir_attn_dims *dims)
{
    struct attention_job job = {
        .cpu = cpu_of(be), .qkv = qkv, .how = how, .kv = kv, .batch = batch, .dims = dims
    };

    cpu_run(cpu_of(be), store_part, &job,
            (uint64_t)batch->n_tok * (dims->n_head + 2 * dims->n_kv_head) * dims->d_head);
}

static void attention_part(void *arg, uint32_t i, uint32_t n)
{
    const struct attention_job *j = arg;
    const struct weir_attn_dims *dims = j->dims;
    const struct weir_batch *batch = j->batch;
    uint32_t n_kv = dims->n_kv_head, d = dims->d_head, item = 0, length;
    size_t group = (size_t)dims->n_head / n_kv * d, ld_out = (size_t)dims->n_head * d;
    size_t ld_q = ld_out + (size_t)2 * n_kv * d;

    /* Dealt out one by one, not in ranges: the tokens at the end of a prompt attend to more. */
    for (uint32_t t = 0; t < batch->n_tok; t += length) {
        length = run_length(batch, t, ATTEND_TOKENS);
        for (uint32_t h = 0; h < n_kv; h++, item++) {
            if (item % n != i)
                continue;
            struct attend_job job = { .out = j->out + t * ld_out + h * group,
                                      .q = j->qkv + t * ld_q + h * group,
                                      .ld_out = ld_out,
                                      .ld_q = ld_q,
                                      .k = j->kv->k,
                                      .v = j->kv->v,
                                      .kv = j->cpu->kv,
                                      .table = batch->table + (size_t)batch->seq[t] * batch->n_block_max,
                                      .n_tok = length,
                                      .i_kv_head = h,
                                      .pos = batch->pos[t],
                                      .dims = dims,
                                      .scale = j->scale };
            j->cpu->ops->attend(&job);
        }
    }
}

void cpu_attention(struct weir_backend *be, void *out, const void *qkv, const struct weir_kv_pages *kv,
                   const struct weir_batch *batch, const struct weir_attn_dims *dims, float scale)
{
    struct attention_job job = { .cpu = cpu_of(be),
                                 .out = out,
                                 .qkv = (float *)(uintptr_t)qkv, /* only read */
                                 .kv = kv,
                                 .batch = batch,
                                 .dims = dims,
                                 .scale = scale };
    uint64_t n_pos = 0;

    for (uint32_t t = 0; t < batch->n_tok; t++)
        n_pos += (uint64_t)batch->pos[t] + 1;
    cpu_run(cpu_of(be), attention_part, &job, n_pos * dims->n_head * dims->d_head);
}

void cpu_copy_page(struct weir_backend *be, const struct weir_kv_pages *kv, const struct weir_attn_dims *dims,
                   uint32_t from, uint32_t to)
{
    size_t page = cpu_kv_page_bytes(be, dims);

    memcpy((char *)kv->k + to * page, (const char *)kv->k + from * page, page);
    memcpy((char *)kv->v + to * page, (const char *)kv->v + from * page, page);
}
