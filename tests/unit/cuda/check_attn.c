/* check_attn.c - pages and attention against float64: bias, norms of heads, rotation, windows, grouped heads, chunks, splits; and
 * the bit law: however a prompt is cut, whatever stands beside a token and however positions are split. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/cuda/rig.h"

#define N_PAGES_SPARE 3

struct shape {
    struct weir_attn_dims dims;
    bool bias, norms;
};

/* Sequences of given lengths whose last tokens are computed now; keys and values of what came before are in pages already. */
struct world {
    struct rig *r;
    struct shape shape;
    uint32_t d, d_pad, width, n_ctx, n_pages, n_block_max;
    double *cos, *sin, *bias, *q_norm, *k_norm;
    struct weir_qkv how;
    double *raw[8]; /* per sequence [len][width]: what the product gives */
    uint32_t len[8], n_seq;
    int32_t *table; /* host */
    uint16_t *k, *v, *qkv, *out;
    float *work;
    struct cuda_attn attn;
    struct cuda_batch batch;
};

static uint32_t between(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static void world_open(struct world *w, struct rig *r, const struct shape *shape, const uint32_t *len,
                       uint32_t n_seq)
{
    uint32_t d = shape->dims.d_head, n_ctx = 1;

    *w = (struct world){ .r = r, .shape = *shape, .d = d, .n_seq = n_seq };
    w->d_pad = cuda_d_pad(d);
    w->width = (shape->dims.n_head + 2 * shape->dims.n_kv_head) * d;
    for (uint32_t i = 0; i < n_seq; i++)
        n_ctx = len[i] > n_ctx ? len[i] : n_ctx;
    w->n_ctx = n_ctx;
    w->n_block_max = (n_ctx + WEIR_KV_BLOCK - 1) / WEIR_KV_BLOCK + 1;
    w->n_pages = n_seq * w->n_block_max + N_PAGES_SPARE;
    float *cs = rig_host(r, (size_t)n_ctx * d / 2 * sizeof *cs),
          *sn = rig_host(r, (size_t)n_ctx * d / 2 * sizeof *sn);
    w->cos = rig_host(r, (size_t)n_ctx * d / 2 * sizeof(double));
    w->sin = rig_host(r, (size_t)n_ctx * d / 2 * sizeof(double));
    for (uint32_t i = 0; i < n_ctx * d / 2; i++) {
        double angle = (double)(i / (d / 2)) * pow(100.0, -2.0 * (i % (d / 2)) / d);
        w->cos[i] = (double)(cs[i] = (float)cos(angle));
        w->sin[i] = (double)(sn[i] = (float)sin(angle));
    }
    w->how = (struct weir_qkv){ .eps = 1e-5f,
                                .cos = rig_upload(r, cs, (size_t)n_ctx * d / 2 * 4),
                                .sin = rig_upload(r, sn, (size_t)n_ctx * d / 2 * 4) };
    if (shape->bias)
        w->how.bias = rig_f32(r, &w->bias, w->width, 0, 0.5);
    if (shape->norms) {
        w->how.q_norm = rig_f32(r, &w->q_norm, d, 1, 0.2);
        w->how.k_norm = rig_f32(r, &w->k_norm, d, 1, 0.2);
    }
    for (uint32_t i = 0; i < n_seq; i++) {
        w->len[i] = len[i];
        w->raw[i] = rig_host(r, (size_t)len[i] * w->width * sizeof(double));
        for (size_t k = 0; k < (size_t)len[i] * w->width; k++)
            w->raw[i][k] = rig_of_bf16(rig_to_bf16(rig_normal(r)));
    }
    w->table = rig_host(r, (size_t)n_seq * w->n_block_max * sizeof *w->table);
    int32_t *pages = rig_host(r, w->n_pages * sizeof *pages);
    for (uint32_t i = 0; i < w->n_pages; i++) { /* shuffled; entries past a sequence's end are out of range */
        uint32_t at = rig_between(r, 0, i);
        pages[i] = pages[at];
        pages[at] = (int32_t)i;
    }
    for (uint32_t i = 0; i < n_seq * w->n_block_max; i++)
        w->table[i] =
            i % w->n_block_max <= (len[i / w->n_block_max] - 1) / WEIR_KV_BLOCK ? pages[i] : INT32_MAX / 2;
    size_t page_bytes = (size_t)shape->dims.n_kv_head * WEIR_KV_BLOCK * w->d_pad * 2;
    w->k = rig_device(r, w->n_pages * page_bytes);
    w->v = rig_device(r, w->n_pages * page_bytes);
    w->work = rig_device(r, 4 << 20);
}

/* Tokens [from[i], to[i]) of each sequence in one step. */
static void world_batch(struct world *w, const uint32_t *from, const uint32_t *to)
{
    struct rig *r = w->r;
    uint32_t n = 0, n_run = 0, run_max = 0;

    for (uint32_t i = 0; i < w->n_seq; i++)
        n += to[i] - from[i];
    int32_t *pos = rig_host(r, n * sizeof *pos), *seq = rig_host(r, n * sizeof *seq);
    struct cuda_run *runs = rig_host(r, n * sizeof *runs);
    uint16_t *qkv = rig_host(r, (size_t)n * w->width * 2);
    uint32_t t = 0;
    for (uint32_t i = 0; i < w->n_seq; i++)
        for (uint32_t p = from[i]; p < to[i]; p += CUDA_RUN) {
            uint32_t len = between(CUDA_RUN, to[i] - p);
            runs[n_run++] = (struct cuda_run){ (int32_t)t, (int32_t)len };
            run_max = len > run_max ? len : run_max;
            for (uint32_t j = 0; j < len; j++, t++) {
                pos[t] = (int32_t)(p + j);
                seq[t] = (int32_t)i;
                for (uint32_t k = 0; k < w->width; k++)
                    qkv[(size_t)t * w->width + k] = rig_to_bf16(w->raw[i][(size_t)(p + j) * w->width + k]);
            }
        }
    w->batch = (struct cuda_batch){ .ids = NULL,
                                    .pos = rig_ints(r, pos, n),
                                    .seq = rig_ints(r, seq, n),
                                    .table = rig_ints(r, w->table, (size_t)w->n_seq * w->n_block_max),
                                    .runs = rig_upload(r, runs, n_run * sizeof *runs),
                                    .n_tok = n,
                                    .n_run = n_run,
                                    .n_block_max = w->n_block_max,
                                    .run_max = run_max,
                                    .n_pos_max = w->n_ctx };
    w->qkv = rig_upload(r, qkv, (size_t)n * w->width * 2);
    w->out = rig_device(r, (size_t)n * w->shape.dims.n_head * w->d * 2);
    w->attn = (struct cuda_attn){ .out = w->out,
                                  .qkv = w->qkv,
                                  .k = w->k,
                                  .v = w->v,
                                  .batch = w->batch,
                                  .dims = w->shape.dims,
                                  .scale = 1 / sqrtf((float)w->d),
                                  .work = w->work,
                                  .work_bytes = 4 << 20 };
}

static void launch_store(struct rig *r, void *arg)
{
    struct world *w = arg;
    cuda_qkv_store(r->s, w->qkv, &w->how, w->k, w->v, &w->batch, &w->shape.dims);
}

static void launch_attention(struct rig *r, void *arg)
{
    struct world *w = arg;
    cuda_attention(r->s, &w->attn);
}

/* ---- float64 ---- */
static void prepared_head(const struct world *w, double *out, const double *raw, uint32_t at,
                          const double *norm, uint32_t pos, bool rotate)
{
    uint32_t d = w->d, half = d / 2;
    double sum = 0, x[CUDA_D_MAX];

    for (uint32_t i = 0; i < d; i++) {
        x[i] = raw[at + i] + (w->bias ? w->bias[at + i] : 0);
        sum += x[i] * x[i];
    }
    for (uint32_t i = 0; norm && i < d; i++)
        x[i] = x[i] / sqrt(sum / d + 1e-5) * norm[i];
    for (uint32_t i = 0; i < half; i++) {
        double c = rotate ? w->cos[pos * half + i] : 1, s = rotate ? w->sin[pos * half + i] : 0;
        out[i] = x[i] * c - x[i + half] * s;
        out[i + half] = x[i + half] * c + x[i] * s;
    }
}

/* Keys and values as they are kept: rounded. */
static void want_token(const struct world *w, double *out, uint32_t seq, uint32_t pos)
{
    const struct weir_attn_dims *dims = &w->shape.dims;
    uint32_t d = w->d, group = dims->n_head / dims->n_kv_head;
    double q[CUDA_D_MAX], k[CUDA_D_MAX], v[CUDA_D_MAX];

    for (uint32_t h = 0; h < dims->n_head; h++) {
        const double *raw = w->raw[seq];
        uint32_t low = dims->window && pos >= dims->window ? pos - dims->window + 1 : 0, kv = h / group;
        double total = 0, *sums = out + h * d;
        prepared_head(w, q, raw + (size_t)pos * w->width, h * d, w->q_norm, pos, true);
        for (uint32_t i = 0; i < d; i++) {
            q[i] = rig_of_bf16(rig_to_bf16(q[i]));
            sums[i] = 0;
        }
        for (uint32_t p = low; p <= pos; p++) {
            double score = 0;
            prepared_head(w, k, raw + (size_t)p * w->width, (dims->n_head + kv) * d, w->k_norm, p, true);
            prepared_head(w, v, raw + (size_t)p * w->width, (dims->n_head + dims->n_kv_head + kv) * d, NULL,
                          p, false);
            for (uint32_t i = 0; i < d; i++)
                score += q[i] * rig_of_bf16(rig_to_bf16(k[i]));
            double weight = exp(score / sqrt((double)d) - 20); /* scores are small here */
            total += weight;
            for (uint32_t i = 0; i < d; i++)
                sums[i] += weight * rig_of_bf16(rig_to_bf16(v[i]));
        }
        for (uint32_t i = 0; i < d; i++)
            sums[i] /= total;
    }
}

/* ---- checks ---- */
static const struct shape shapes[] = {
    { { 4, 2, 16, 0 }, false, false },  { { 4, 4, 64, 0 }, true, false },
    { { 6, 2, 24, 0 }, false, true },   { { 8, 1, 32, 20 }, true, true },
    { { 5, 1, 10, 0 }, false, false },  { { 7, 1, 128, 65 }, true, false },
    { { 20, 1, 8, 0 }, false, false },  { { 2, 1, 96, 0 }, false, true },
    { { 2, 2, 192, 0 }, false, false }, { { 2, 1, 256, 33 }, false, false },
    { { 16, 1, 66, 1 }, false, false }
};
#define N_SHAPES (sizeof shapes / sizeof *shapes)

static void compare(struct world *w, const uint32_t *from, const uint32_t *to, const uint16_t *got)
{
    size_t n_out = (size_t)w->shape.dims.n_head * w->d, t = 0;
    double *want = rig_host(w->r, w->batch.n_tok * n_out * sizeof *want);

    for (uint32_t i = 0; i < w->n_seq; i++)
        for (uint32_t p = from[i]; p < to[i]; p++, t++)
            want_token(w, want + t * n_out, i, p);
    rig_near_bf16(w->r, "attention", got, want, w->batch.n_tok * n_out, 3e-5);
}

static uint16_t *step(struct world *w, const uint32_t *from, const uint32_t *to, uint32_t n_warp_wanted)
{
    size_t qkv_bytes;

    world_batch(w, from, to);
    qkv_bytes = (size_t)w->batch.n_tok * w->width * 2;
    rig_run(w->r, launch_store, w, w->qkv, qkv_bytes, w->qkv, qkv_bytes);
    launch_store(w->r, w); /* once more: what the run changed, it restored */
    w->attn.n_warp_wanted = n_warp_wanted;
    return rig_run(w->r, launch_attention, w, w->out,
                   (size_t)w->batch.n_tok * w->shape.dims.n_head * w->d * 2, NULL, 0);
}

/* Whole prompts of several lengths in one step, then a token of each, split and not. */
static void check_shapes(struct rig *r)
{
    for (size_t i = 0; i < N_SHAPES; i++) {
        const uint32_t len[] = { 1 + rig_between(r, 1, 140), 2, 1 + rig_between(r, 1, 20) },
                       zero[] = { 0, 0, 0 };
        const uint32_t before[] = { len[0] - 1, len[1] - 1, len[2] - 1 };
        struct world w;
        world_open(&w, r, &shapes[i], len, 3);
        compare(&w, zero, before, step(&w, zero, before, 0));
        uint16_t *whole = step(&w, before, len, 0), *split = step(&w, before, len, 1000);
        compare(&w, before, len, whole);
        rig_same(r, "split over positions", whole, split, 3 * (size_t)shapes[i].dims.n_head * w.d * 2);
    }
}

/* One prompt whole, in two chunks at every kind of edge, and token by token: the same bits for the last tokens. */
static void check_chunks(struct rig *r)
{
    static const uint32_t cuts[] = { 1, 15, 16, 17, 63, 64, 65, 70 };

    for (size_t i = 0; i < 4; i++) {
        const uint32_t len[] = { 71 }, zero[] = { 0 };
        size_t row = (size_t)shapes[i].dims.n_head * shapes[i].dims.d_head;
        struct world w;
        world_open(&w, r, &shapes[i], len, 1);
        uint16_t *whole = step(&w, zero, len, 0);
        for (size_t c = 0; c < sizeof cuts / sizeof *cuts; c++) {
            const uint32_t cut[] = { cuts[c] };
            step(&w, zero, cut, 0);
            uint16_t *rest = step(&w, cut, len, c % 2 ? 1000 : 0);
            rig_same(r, "a prompt in two chunks", whole + cuts[c] * row, rest, (71 - cuts[c]) * row * 2);
        }
    }
}

static void check_long(struct rig *r)
{
    const struct shape shape = { { 4, 1, 64, 0 }, false, false };
    const uint32_t len[] = { 1500, 300 }, zero[] = { 0, 0 }, last[] = { 1496, 299 };
    struct world w;

    world_open(&w, r, &shape, len, 2);
    world_batch(&w, zero, len);
    launch_store(r, &w);
    uint16_t *whole = step(&w, last, len, 0), *split = step(&w, last, len, 64);
    compare(&w, last, len, whole);
    rig_same(r, "split over positions", whole, split, 5 * 4 * 64 * 2);
}

/* A padded step: rows without a position change nothing and harm nothing. */
static void check_padding(struct rig *r)
{
    const uint32_t len[] = { 20, 9 }, before[] = { 19, 8 }, zero[] = { 0, 0 };
    struct world w;
    int32_t pos[4] = { 19, 8, -1, -1 }, seq[4] = { 0, 1, 0, 0 };
    struct cuda_run runs[4] = { { 0, 1 }, { 1, 1 }, { 0, 0 }, { 0, 0 } };

    world_open(&w, r, &shapes[0], len, 2);
    step(&w, zero, before, 0);
    uint16_t *exact = step(&w, before, len, 0);
    uint16_t *padded_qkv = rig_device(r, (size_t)4 * w.width * 2);
    dev_copy(r->d, padded_qkv, w.qkv, (size_t)2 * w.width * 2);
    w.batch.pos = rig_ints(r, pos, 4);
    w.batch.seq = rig_ints(r, seq, 4);
    w.batch.runs = rig_upload(r, runs, sizeof runs);
    w.batch.n_tok = w.batch.n_run = 4;
    w.attn.batch = w.batch;
    w.attn.qkv = w.qkv = padded_qkv;
    uint16_t *got = rig_run(r, launch_attention, &w, w.out, 2 * 4 * 16 * 2, NULL, 0);
    rig_same(r, "rows of a padded step", exact, got, 2 * 4 * 16 * 2);
    rig_run(r, launch_store, &w, w.k, (size_t)w.n_pages * 2 * WEIR_KV_BLOCK * w.d_pad * 2, w.k,
            (size_t)w.n_pages * 2 * WEIR_KV_BLOCK * w.d_pad * 2);
}

const struct rig_check checks_attn[] = { { "attention: shapes", check_shapes },
                                         { "attention: chunks", check_chunks },
                                         { "attention: long", check_long },
                                         { "attention: padding", check_padding },
                                         { NULL, NULL } };
