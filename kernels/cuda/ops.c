/* ops.c - the operations of kernels.h as launches: which kernel, how many rows, which workspace. */
#include <string.h>

#include "base/mem.h"
#include "kernels/cuda/cuda_be.h"

static void op_embed(struct weir_backend *be, void *out, const struct weir_matrix *m,
                     const struct weir_batch *batch)
{
    struct cuda_be *c = cuda_of(be);

    step_rows(c, out, (size_t)m->w.n_in * 2, batch->n_tok);
    cuda_embed(dev_stream(c->d), out, &m->w, &c->batch);
}

static void op_add_rmsnorm(struct weir_backend *be, void *out, void *x, const void *delta,
                           const float *weight, uint32_t n_tok, uint32_t n, float eps)
{
    struct cuda_be *c = cuda_of(be);

    cuda_add_rmsnorm(dev_stream(c->d), out, x, delta, weight, step_rows(c, out, (size_t)n * 2, n_tok), n,
                     eps);
}

/* FP8 on tensor cores: activations as e4m3, too. False: this product is not for them. */
static bool product_fp8(struct cuda_be *c, void *out, int out_f32, const void *x, const struct weir_matrix *m,
                        uint32_t n_tok)
{
    size_t bytes = ((size_t)n_tok * m->w.stride + 255) & ~(size_t)255;

    if (!dev_fp8_fits(c->d, &m->w, out_f32, n_tok) || !scratch_fit(c, &c->fp8, bytes + n_tok * sizeof(float)))
        return false;
    float *scale = (float *)(void *)((char *)c->fp8.ptr + bytes);
    cuda_quantize_rows(dev_stream(c->d), c->fp8.ptr, scale, x, n_tok, m->w.n_in, m->w.stride);
    return dev_dense_fp8(c->d, out, out_f32, c->fp8.ptr, scale, &m->w, n_tok);
}

/* Few tokens: the streaming kernel, which reads weights as fast as memory gives them; more: the dense one, unless a token's bits
 * must be the same in any company. */
static void product(struct cuda_be *c, void *out, int out_f32, const void *x, const struct weir_matrix *m,
                    uint32_t n_tok)
{
    bool few = n_tok <= CUDA_SMALL_TOKENS || c->deterministic;
    bool done = !few && m->w.kind == CUDA_BF16  ? dev_dense(c->d, out, out_f32, x, &m->w, n_tok)
                : !few && m->w.kind == CUDA_FP8 ? product_fp8(c, out, out_f32, x, m, n_tok)
                                                : false;

    if (!done)
        cuda_stream_linear(dev_stream(c->d), out, out_f32, x, &m->w, n_tok);
}

static void op_linear(struct weir_backend *be, void *out, const void *x, const struct weir_matrix *m,
                      uint32_t n_tok)
{
    struct cuda_be *c = cuda_of(be);

    product(c, out, /* out_f32= */ 0, x, m, step_rows(c, out, (size_t)m->w.n_out * 2, n_tok));
}

/* By way of memory that nobody changes before the device has it: the caller's list is the next step's soon. */
static bool upload_rows(struct cuda_be *c, const int32_t *rows, uint32_t n)
{
    uint32_t i = (uint32_t)(c->i_head++ % HEADS);
    size_t bytes = n * sizeof *rows;

    if (!scratch_fit(c, &c->rows, bytes) || !scratch_fit_host(c, &c->heads[i], bytes))
        return false;
    dev_await(c->d, MARK_HEAD(i));
    memcpy(c->heads[i].ptr, rows, bytes);
    dev_upload(c->d, c->rows.ptr, c->heads[i].ptr, bytes);
    dev_mark(c->d, MARK_HEAD(i));
    return true;
}

/* Outside of a step: its rows come from the host. */
static void op_head(struct weir_backend *be, float *out, const void *x, const int32_t *rows, uint32_t n,
                    const float *norm, float eps, const struct weir_matrix *m)
{
    struct cuda_be *c = cuda_of(be);

    if (!scratch_fit(c, &c->normed, (size_t)n * m->w.n_in * 2) || !upload_rows(c, rows, n))
        return;
    cuda_gather_rmsnorm(dev_stream(c->d), c->normed.ptr, x, c->rows.ptr, n, norm, m->w.n_in, eps);
    product(c, out, /* out_f32= */ 1, c->normed.ptr, m, n);
}

static void op_qkv_store(struct weir_backend *be, void *qkv, const struct weir_qkv *how,
                         const struct weir_kv_pages *kv, const struct weir_batch *batch,
                         const struct weir_attn_dims *dims)
{
    struct cuda_be *c = cuda_of(be);

    step_rows(c, qkv, (size_t)(dims->n_head + 2 * dims->n_kv_head) * dims->d_head * 2, batch->n_tok);
    cuda_qkv_store(dev_stream(c->d), qkv, how, kv->k, kv->v, &c->batch, dims);
}

static void op_attention(struct weir_backend *be, void *out, const void *qkv, const struct weir_kv_pages *kv,
                         const struct weir_batch *batch, const struct weir_attn_dims *dims, float scale)
{
    struct cuda_be *c = cuda_of(be);
    struct cuda_attn a = { .out = out,
                           .qkv = qkv,
                           .k = kv->k,
                           .v = kv->v,
                           .batch = c->batch,
                           .dims = *dims,
                           .scale = scale,
                           .work = c->work,
                           .work_bytes = WORK_BYTES,
                           .n_warp_wanted = dev_about(c->d)->n_multiprocessor * CUDA_ATTN_WARPS };

    step_rows(c, out, (size_t)dims->n_head * dims->d_head * 2, batch->n_tok);
    cuda_attention(dev_stream(c->d), &a);
}

static void op_silu_mul(struct weir_backend *be, void *out, const void *gate_up, uint32_t n_tok, uint32_t n)
{
    struct cuda_be *c = cuda_of(be);

    cuda_silu_mul(dev_stream(c->d), out, gate_up, step_rows(c, out, (size_t)n * 2, n_tok), n);
}

static void op_add_bias(struct weir_backend *be, void *x, const float *bias, uint32_t n_tok, uint32_t n)
{
    struct cuda_be *c = cuda_of(be);

    cuda_add_bias(dev_stream(c->d), x, bias, step_rows(c, x, (size_t)n * 2, n_tok), n);
}

/* ---- experts ---- */
static void op_route(struct weir_backend *be, int32_t *expert, float *weight, const void *logits,
                     uint32_t n_tok, uint32_t n_expert, uint32_t n_used, int renormalize)
{
    struct cuda_be *c = cuda_of(be);
    uint32_t rows = step_rows(c, expert, n_used * sizeof *expert, n_tok);

    step_rows(c, weight, n_used * sizeof *weight, n_tok);
    cuda_route(dev_stream(c->d), expert, weight, logits, rows, n_expert, n_used, renormalize);
}

static struct cuda_weights *upload_table(struct cuda_be *c, const struct weir_matrix *const *list, uint32_t n)
{
    struct cuda_weights *host = weir_calloc(n, sizeof *host), *table = dev_alloc(c->d, n * sizeof *host);

    for (uint32_t i = 0; host && table && i < n; i++)
        host[i] = list[i]->w;
    if (host && table) {
        dev_upload(c->d, table, host, n * sizeof *host);
        dev_sync(c->d);
    } else {
        cuda_fail(c, WEIR_NOMEM, "no memory for a layer's experts");
    }
    weir_free(host);
    return table;
}

/* A layer's weights as the device finds them; made when the layer is first run. */
static const struct expert_table *table_of(struct cuda_be *c, const struct weir_experts *e)
{
    for (uint32_t i = 0; i < c->n_tables; i++)
        if (c->tables[i].key == e->gate_up)
            return &c->tables[i];
    if (!c->tables)
        c->tables = weir_calloc(EXPERT_LAYERS_MAX, sizeof *c->tables);
    if (!c->tables || c->n_tables == EXPERT_LAYERS_MAX) {
        cuda_fail(c, WEIR_NOMEM, "no room for another layer's experts");
        return NULL;
    }
    struct expert_table *t = &c->tables[c->n_tables++];
    *t = (struct expert_table){ .key = e->gate_up, .kind = e->gate_up[0]->w.kind };
    t->gate_up = upload_table(c, e->gate_up, e->n_expert);
    t->down = upload_table(c, e->down, e->n_expert);
    return t;
}

static size_t rounded(size_t bytes)
{
    return (bytes + 255) & ~(size_t)255;
}

static void op_experts(struct weir_backend *be, void *out, const void *x, const struct weir_experts *experts,
                       const int32_t *expert, const float *weight, uint32_t n_tok)
{
    struct cuda_be *c = cuda_of(be);
    const struct expert_table *t = table_of(c, experts);
    uint32_t rows = step_rows(c, out, (size_t)experts->d_model * 2, n_tok);
    size_t n_pair = (size_t)rows * experts->n_used, begin = rounded((experts->n_expert + 1) * 4),
           pairs = rounded(n_pair * 4);
    size_t gate = rounded(n_pair * 2 * experts->d_ffn * 2), act = rounded(n_pair * experts->d_ffn * 2);
    size_t y = rounded(n_pair * experts->d_model * 4);

    if (!t || c->failed || !scratch_fit(c, &c->moe, begin + pairs + gate + act + y))
        return;
    char *at = c->moe.ptr;
    struct cuda_experts e = { .gate_up = t->gate_up,
                              .down = t->down,
                              .n_expert = experts->n_expert,
                              .n_used = experts->n_used,
                              .d_model = experts->d_model,
                              .d_ffn = experts->d_ffn,
                              .kind = t->kind,
                              .begin = (int32_t *)at,
                              .pairs = (int32_t *)(at + begin),
                              .gate = (uint16_t *)(at + begin + pairs),
                              .act = (uint16_t *)(at + begin + pairs + gate),
                              .y = (float *)(at + begin + pairs + gate + act) };
    cuda_experts_run(dev_stream(c->d), out, x, &e, expert, weight, rows);
}

/* ---- pages ---- */
static size_t op_kv_page_bytes(const struct weir_backend *be, const struct weir_attn_dims *dims)
{
    (void)be;
    return (size_t)dims->n_kv_head * WEIR_KV_BLOCK * cuda_d_pad(dims->d_head) * 2;
}

static void op_copy_page(struct weir_backend *be, const struct weir_kv_pages *kv,
                         const struct weir_attn_dims *dims, uint32_t from, uint32_t to)
{
    struct cuda_be *c = cuda_of(be);
    size_t bytes = op_kv_page_bytes(be, dims);

    dev_copy(c->d, (char *)kv->k + to * bytes, (char *)kv->k + from * bytes, bytes);
    dev_copy(c->d, (char *)kv->v + to * bytes, (char *)kv->v + from * bytes, bytes);
}

void cuda_fill_ops(struct weir_backend *be)
{
    be->kv_page_bytes = op_kv_page_bytes;
    be->embed = op_embed;
    be->add_rmsnorm = op_add_rmsnorm;
    be->linear = op_linear;
    be->head = op_head;
    be->qkv_store = op_qkv_store;
    be->attention = op_attention;
    be->silu_mul = op_silu_mul;
    be->route = op_route;
    be->experts = op_experts;
    be->copy_page = op_copy_page;
    be->add_bias = op_add_bias;
}
