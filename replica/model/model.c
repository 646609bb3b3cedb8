/* model.c - the graph: embed, layers of attention and MLP, norm, head.
 *
 *   x -> norm -> qkv -> bias, norm of heads, rope, write KV -> attention -> out, added to x
 *     -> norm -> gate, up -> silu * -> down, or a router and the experts it names, added to x
 *
 * What is added to x travels in `delta` to the next norm, which adds it on the way; with several ranks it is a partial sum
 * until the all_reduce. All buffers are allocated at opening, for the largest step. Only rows that sample go through the
 * head, after the step has ended.
 *
 *   [G1] Every rank calls the same operations in the same order, whatever its share.
 * Sources: see family.c; names of tensors as Hugging Face writes them. */
#include "replica/model/model.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "replica/model/model_int.h"

/* ---- opening ---- */
static weir_err check_operations(const struct model_config *c, const struct weir_backend *be,
                                 struct weir_why *why)
{
    if (c->out_bias && !be->add_bias)
        return weir_fail_param(why, "attention_bias", WEIR_UNIMPLEMENTED,
                               "config.json: the back end %s can't do attention_bias", be->name);
    return WEIR_OK;
}

weir_err model_open(const struct safetensors *weights, const struct model_config *config,
                    struct weir_backend *be, enum weir_quant quant, const struct model_limits *limits,
                    struct model **ret, struct weir_why *why)
{
    struct model *m = weir_alloc0(sizeof *m);

    if (!m)
        return weir_fail(why, WEIR_NOMEM, "no memory for the model");
    m->config = *config;
    m->limits = *limits;
    m->be = be;
    weir_err err = shard_of(config, be->rank, be->n_ranks, &m->shard, why);
    if (err == WEIR_OK)
        err = check_operations(config, be, why);
    if (err == WEIR_OK)
        err = model_load(m, weights, quant, why);
    if (err == WEIR_OK && limits->n_draws_max > 0)
        err = be->sample_open(be, limits->n_draws_max, config->n_vocab, limits->list_bytes, why);
    if (err != WEIR_OK) {
        model_close(m);
        return err;
    }
    *ret = m;
    return WEIR_OK;
}

static void unpack_all(struct weir_backend *be, struct weir_matrix **list, uint32_t n)
{
    for (uint32_t i = 0; list && i < n; i++)
        be->unpack(be, list[i]);
    weir_free(list);
}

static void close_layer(struct model *m, struct layer *layer)
{
    struct weir_backend *be = m->be;
    struct weir_matrix *const matrices[] = { layer->qkv, layer->out, layer->gate_up, layer->down,
                                             layer->router };
    void *const buffers[] = { layer->attn_norm, layer->mlp_norm, layer->qkv_bias, layer->out_bias,
                              layer->q_norm,    layer->k_norm,   layer->kv.k,     layer->kv.v };

    for (size_t i = 0; i < sizeof matrices / sizeof *matrices; i++)
        be->unpack(be, matrices[i]);
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++)
        be->free(be, buffers[i]);
    unpack_all(be, layer->expert_gate_up, m->config.n_expert);
    unpack_all(be, layer->expert_down, m->config.n_expert);
}

void model_close(struct model *m)
{
    if (!m)
        return;
    struct weir_backend *be = m->be;
    for (uint32_t i = 0; m->layers && i < m->config.n_layer; i++)
        close_layer(m, &m->layers[i]);
    if (m->head != m->embed)
        be->unpack(be, m->head);
    be->unpack(be, m->embed);
    if (m->logits != m->share)
        be->free(be, m->logits);
    void *const buffers[] = { m->final_norm, m->cos,    m->sin,           m->x,       m->delta,
                              m->normed,     m->qkv,    m->attended,      m->gate_up, m->act,
                              m->routes,     m->expert, m->expert_weight, m->share };
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++)
        be->free(be, buffers[i]);
    weir_free(m->narrow);
    weir_free(m->layers);
    weir_free(m);
}

/* ---- running ---- */
static void run_attention(struct model *m, const struct layer *layer, const struct weir_batch *batch)
{
    struct weir_backend *be = m->be;
    const struct model_config *c = &m->config;
    const struct weir_qkv how = { .bias = layer->qkv_bias,
                                  .q_norm = layer->q_norm,
                                  .k_norm = layer->k_norm,
                                  .eps = c->rms_eps,
                                  .cos = m->cos,
                                  .sin = m->sin };

    be->linear(be, m->qkv, m->normed, layer->qkv, batch->n_tok);
    be->qkv_store(be, m->qkv, &how, &layer->kv, batch, &layer->dims);
    be->attention(be, m->attended, m->qkv, &layer->kv, batch, &layer->dims, 1.0f / sqrtf((float)c->d_head));
    be->linear(be, m->delta, m->attended, layer->out, batch->n_tok);
    if (layer->out_bias)
        be->add_bias(be, m->delta, layer->out_bias, batch->n_tok, c->d_model);
}

static void run_mlp(struct model *m, const struct layer *layer, uint32_t n_tok)
{
    struct weir_backend *be = m->be;
    const struct model_config *c = &m->config;

    if (!layer->router) {
        be->linear(be, m->gate_up, m->normed, layer->gate_up, n_tok);
        be->silu_mul(be, m->act, m->gate_up, n_tok, m->shard.ffn.n);
        be->linear(be, m->delta, m->act, layer->down, n_tok);
        return;
    }
    const struct weir_experts experts = { .gate_up = (const struct weir_matrix *const *)layer->expert_gate_up,
                                          .down = (const struct weir_matrix *const *)layer->expert_down,
                                          .n_expert = c->n_expert,
                                          .n_used = c->n_used,
                                          .d_model = c->d_model,
                                          .d_ffn = m->shard.expert.n };
    be->linear(be, m->routes, m->normed, layer->router, n_tok);
    be->route(be, m->expert, m->expert_weight, m->routes, n_tok, c->n_expert, c->n_used, c->renormalize);
    be->experts(be, m->delta, m->normed, &experts, m->expert, m->expert_weight, n_tok);
}

static void run_layers(struct model *m, const struct weir_batch *batch)
{
    struct weir_backend *be = m->be;
    const struct model_config *c = &m->config;
    uint32_t n = batch->n_tok;
    size_t n_numbers = (size_t)n * c->d_model;

    be->embed(be, m->x, m->embed, batch);
    for (uint32_t i = 0; i < c->n_layer; i++) {
        const struct layer *layer = &m->layers[i];
        be->add_rmsnorm(be, m->normed, m->x, i ? m->delta : NULL, layer->attn_norm, n, c->d_model,
                        c->rms_eps);
        run_attention(m, layer, batch);
        be->all_reduce(be, m->delta, n_numbers);
        be->add_rmsnorm(be, m->normed, m->x, m->delta, layer->mlp_norm, n, c->d_model, c->rms_eps);
        run_mlp(m, layer, n);
        be->all_reduce(be, m->delta, n_numbers);
    }
    /* For the sum in x; the head norms the few rows that it wants itself. */
    be->add_rmsnorm(be, m->normed, m->x, m->delta, m->final_norm, n, c->d_model, c->rms_eps);
}

weir_err model_forward(struct model *m, const struct weir_batch *batch, struct weir_why *why)
{
    WEIR_BUG_ON(batch->n_tok == 0 || batch->n_tok > m->limits.n_tok_max);
    if (!m->be->begin(m->be, batch))
        run_layers(m, batch);
    return m->be->end(m->be, why);
}

static size_t n_wide(const struct model *m)
{
    return (size_t)m->shard.n_ranks * m->shard.vocab_rows;
}

/* The vocabulary is as wide on every rank, so the last may end in rows that mean nothing. */
static const float *without_padding(struct model *m, const float *wide, uint32_t n)
{
    size_t n_vocab = m->config.n_vocab;

    if (!m->narrow)
        return wide;
    for (uint32_t i = 0; i < n; i++)
        memcpy(m->narrow + i * n_vocab, wide + i * n_wide(m), n_vocab * sizeof(float));
    return m->narrow;
}

void model_head(struct model *m, const int32_t *rows, uint32_t n)
{
    struct weir_backend *be = m->be;

    WEIR_BUG_ON(n > m->limits.n_logits_max);
    be->head(be, m->share, m->x, rows, n, m->final_norm, m->config.rms_eps, m->head);
    if (m->shard.n_ranks > 1)
        be->all_gather(be, m->logits, m->share, n, m->shard.vocab_rows);
}

const float *model_row(struct model *m, uint32_t i)
{
    return m->be->map(m->be, m->logits + i * n_wide(m), m->config.n_vocab * sizeof *m->logits);
}

weir_err model_logits(struct model *m, const int32_t *rows, uint32_t n, const float **ret,
                      struct weir_why *why)
{
    model_head(m, rows, n);
    const float *wide = m->be->map(m->be, m->logits, n * n_wide(m) * sizeof *wide);
    if (!wide)
        return weir_fail(why, WEIR_IO, "the back end %s failed", m->be->name);
    if (ret)
        *ret = without_padding(m, wide, n);
    return WEIR_OK;
}

void model_draw(struct model *m, uint32_t set, uint32_t first, const struct weir_draw *draws, uint32_t n)
{
    m->be->sample(m->be, set, first, m->logits, (uint32_t)n_wide(m), draws, n);
}

const struct weir_drawn *model_drawn(struct model *m, uint32_t set)
{
    return m->be->drawn(m->be, set);
}

void model_copy_page(struct model *m, uint32_t from, uint32_t to)
{
    for (uint32_t i = 0; i < m->config.n_layer; i++)
        m->be->copy_page(m->be, &m->layers[i].kv, &m->layers[i].dims, from, to);
}

uint64_t model_n_params(const struct model *m)
{
    return m->n_params;
}

uint64_t model_weight_bytes(const struct model *m)
{
    return m->weight_bytes;
}

uint64_t model_page_bytes(const struct model_config *c, const struct weir_backend *be, const struct shard *s)
{
    const struct weir_attn_dims dims = { .n_head = s->heads.n,
                                         .n_kv_head = s->kv_heads.n,
                                         .d_head = c->d_head };

    return 2ull * c->n_layer * be->kv_page_bytes(be, &dims);
}
