/* model.c - the Llama graph: embed, layers of attention and MLP, norm, head.
 *
 *   x -> norm -> qkv -> rope, write KV -> attention -> out, added to x -> norm -> gate, up -> silu * -> down, added to x
 *
 * All buffers are allocated at opening, for the largest step. Only rows that sample go through the head.
 * Source: Touvron et al. 2023 (arXiv 2302.13971); names of tensors as Hugging Face writes them. */
#include "replica/model/model.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "replica/model/rope.h"
#include "replica/model/safetensors.h"

struct layer {
    float *attn_norm, *mlp_norm; /* [d_model] */
    struct weir_matrix *qkv, *out, *gate_up, *down;
    struct weir_kv_pages kv;
};

struct model {
    struct model_config config;
    struct model_limits limits;
    struct weir_backend *be;
    struct weir_attn_dims dims;
    struct weir_matrix *embed, *head; /* head == embed when tied */
    float *final_norm, *cos, *sin;
    struct layer *layers;
    float *x, *delta, *normed, *qkv, *attended, *gate_up, *act; /* activations of a step */
    float *logits;
    uint64_t n_params, weight_bytes;
    uint8_t hash[32];
};

/* ---- loading ---- */
struct loader {
    struct model *m;
    struct safetensors *st;
    struct weir_why *why;
    weir_err err; /* the first one sticks: what follows does nothing */
};

static const struct tensor *find(struct loader *ld, const char *name, uint64_t rows, uint64_t cols)
{
    const struct tensor *t = ld->err == WEIR_OK ? safetensors_find(ld->st, name) : NULL;
    uint32_t n_dims = cols ? 2 : 1;

    if (ld->err != WEIR_OK)
        return NULL;
    if (!t) {
        ld->err = weir_fail_param(ld->why, name, WEIR_CORRUPT, "the weights have no tensor `%s`", name);
        return NULL;
    }
    if (t->n_dims != n_dims || t->dims[0] != rows || (cols && t->dims[1] != cols)) {
        ld->err = weir_fail_param(ld->why, name, WEIR_CORRUPT,
                                  "`%s`: the shape is not the %llu x %llu of config.json", name,
                                  (unsigned long long)rows, (unsigned long long)(cols ? cols : 1));
        return NULL;
    }
    ld->m->n_params += rows * (cols ? cols : 1);
    return t;
}

static void *take(struct loader *ld, size_t bytes)
{
    void *ptr = ld->err == WEIR_OK ? ld->m->be->alloc(ld->m->be, bytes) : NULL;

    if (ld->err == WEIR_OK && !ptr)
        ld->err = weir_fail(ld->why, WEIR_NOMEM, "no memory: %zu bytes for the model", bytes);
    return ptr;
}

/* A stack of tensors [n_out[i], n_in], packed as one; names are printf formats of the layer. */
static struct weir_matrix *load_matrix(struct loader *ld, uint32_t n_in, int n_parts,
                                       const char *const *names, const uint32_t *n_out, int i_layer)
{
    struct weir_weights parts[3];
    struct weir_matrix *ret = NULL;
    char name[128];

    for (int i = 0; i < n_parts; i++) {
        snprintf(name, sizeof name, "model.layers.%d.%s.weight", i_layer, names[i]);
        const struct tensor *t = find(ld, i_layer < 0 ? names[i] : name, n_out[i], n_in);
        if (!t)
            return NULL;
        parts[i] = (struct weir_weights){ t->data, t->dtype, n_out[i], n_in };
        ld->m->weight_bytes += (uint64_t)n_out[i] * n_in * weir_dtype_size(t->dtype);
    }
    ld->err = ld->m->be->pack(ld->m->be, parts, n_parts, n_in, WEIR_NATIVE, &ret);
    if (ld->err != WEIR_OK)
        weir_fail(ld->why, ld->err, "no memory to pack `%s`", name);
    return ret;
}

static float *load_vector(struct loader *ld, const char *name, uint32_t n)
{
    const struct tensor *t = find(ld, name, n, 0);
    float *ret = take(ld, n * sizeof *ret);
    uint16_t half;

    if (!t || !ret)
        return ret;
    for (uint32_t i = 0; i < n; i++) {
        if (t->dtype == WEIR_F32) {
            memcpy(&ret[i], (const char *)t->data + 4 * (size_t)i, 4);
            continue;
        }
        memcpy(&half, (const char *)t->data + 2 * (size_t)i, 2);
        ret[i] = weir_half_to_f32(half, t->dtype);
    }
    return ret;
}

static void load_layer(struct loader *ld, int i)
{
    const struct model_config *c = &ld->m->config;
    struct layer *layer = &ld->m->layers[i];
    uint32_t kv = c->n_kv_head * c->d_head, q = c->n_head * c->d_head;
    size_t kv_bytes = ld->m->limits.n_blocks * ld->m->be->kv_page_bytes(ld->m->be, &ld->m->dims);
    char name[128];

    snprintf(name, sizeof name, "model.layers.%d.input_layernorm.weight", i);
    layer->attn_norm = load_vector(ld, name, c->d_model);
    snprintf(name, sizeof name, "model.layers.%d.post_attention_layernorm.weight", i);
    layer->mlp_norm = load_vector(ld, name, c->d_model);
    layer->qkv =
        load_matrix(ld, c->d_model, 3,
                    (const char *const[]){ "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj" },
                    (const uint32_t[]){ q, kv, kv }, i);
    layer->out = load_matrix(ld, q, 1, (const char *const[]){ "self_attn.o_proj" }, &c->d_model, i);
    layer->gate_up = load_matrix(ld, c->d_model, 2, (const char *const[]){ "mlp.gate_proj", "mlp.up_proj" },
                                 (const uint32_t[]){ c->d_ffn, c->d_ffn }, i);
    layer->down = load_matrix(ld, c->d_ffn, 1, (const char *const[]){ "mlp.down_proj" }, &c->d_model, i);
    layer->kv.k = take(ld, kv_bytes);
    layer->kv.v = take(ld, kv_bytes);
}

static void make_rope(struct loader *ld)
{
    struct model *m = ld->m;
    uint32_t half = m->config.d_head / 2;

    m->cos = take(ld, (size_t)m->config.n_context * half * sizeof(float));
    m->sin = take(ld, (size_t)m->config.n_context * half * sizeof(float));
    if (ld->err != WEIR_OK)
        return;
    rope_fill(&m->config, m->cos, m->sin);
}

static void make_buffers(struct loader *ld)
{
    struct model *m = ld->m;
    const struct model_config *c = &m->config;
    size_t n = m->limits.n_tok_max, f = sizeof(float);

    m->x = take(ld, n * c->d_model * f);
    m->delta = take(ld, n * c->d_model * f);
    m->normed = take(ld, n * c->d_model * f);
    m->qkv = take(ld, n * (c->n_head + 2 * c->n_kv_head) * c->d_head * f);
    m->attended = take(ld, n * c->n_head * c->d_head * f);
    m->gate_up = take(ld, n * 2 * c->d_ffn * f);
    m->act = take(ld, n * c->d_ffn * f);
    m->logits = take(ld, (size_t)m->limits.n_logits_max * c->n_vocab * f);
}

static void load_all(struct loader *ld)
{
    struct model *m = ld->m;
    const struct model_config *c = &m->config;

    m->embed =
        load_matrix(ld, c->d_model, 1, (const char *const[]){ "model.embed_tokens.weight" }, &c->n_vocab, -1);
    m->head =
        c->tied ? m->embed
                : load_matrix(ld, c->d_model, 1, (const char *const[]){ "lm_head.weight" }, &c->n_vocab, -1);
    m->final_norm = load_vector(ld, "model.norm.weight", c->d_model);
    for (uint32_t i = 0; i < c->n_layer && ld->err == WEIR_OK; i++)
        load_layer(ld, (int)i);
    make_rope(ld);
    make_buffers(ld);
    memcpy(m->hash, safetensors_hash(ld->st), sizeof m->hash);
}

/* What a config may ask for and this graph has no operation for. */
static weir_err check_graph(const struct model_config *c, struct weir_why *why)
{
    const char *what = c->qkv_bias || c->out_bias ? "attention_bias"
                       : c->family->qk_norm       ? "q_norm"
                       : c->window                ? "sliding_window"
                       : c->family->sparse        ? "num_experts"
                                                  : NULL;

    return what ? weir_fail_param(why, what, WEIR_UNIMPLEMENTED, "config.json: %s is not supported", what)
                : WEIR_OK;
}

weir_err model_open(const char *dir, const struct model_config *config, struct weir_backend *be,
                    const struct model_limits *limits, struct model **ret, struct weir_why *why)
{
    struct model *m = weir_alloc0(sizeof *m);
    struct loader ld = { .m = m, .why = why };

    if (!m)
        return weir_fail(why, WEIR_NOMEM, "no memory for the model");
    m->config = *config;
    m->limits = *limits;
    m->be = be;
    m->dims = (struct weir_attn_dims){ config->n_head, config->n_kv_head, config->d_head, 0 };
    ld.err = check_graph(config, why);
    if (ld.err == WEIR_OK)
        ld.err = safetensors_open(dir, &ld.st, why);
    if (ld.err == WEIR_OK) {
        m->layers = weir_calloc(config->n_layer, sizeof *m->layers);
        ld.err = m->layers ? WEIR_OK : weir_fail(why, WEIR_NOMEM, "no memory for the layers");
    }
    if (ld.err == WEIR_OK)
        load_all(&ld);
    safetensors_close(ld.st);
    if (ld.err != WEIR_OK) {
        model_close(m);
        return ld.err;
    }
    *ret = m;
    return WEIR_OK;
}

void model_close(struct model *m)
{
    if (!m)
        return;
    struct weir_backend *be = m->be;
    for (uint32_t i = 0; m->layers && i < m->config.n_layer; i++) {
        struct layer *layer = &m->layers[i];
        be->free(be, layer->attn_norm);
        be->free(be, layer->mlp_norm);
        be->unpack(be, layer->qkv);
        be->unpack(be, layer->out);
        be->unpack(be, layer->gate_up);
        be->unpack(be, layer->down);
        be->free(be, layer->kv.k);
        be->free(be, layer->kv.v);
    }
    if (m->head != m->embed)
        be->unpack(be, m->head);
    be->unpack(be, m->embed);
    float *const buffers[] = { m->final_norm, m->cos,      m->sin,     m->x,   m->delta, m->normed,
                               m->qkv,        m->attended, m->gate_up, m->act, m->logits };
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++)
        be->free(be, buffers[i]);
    weir_free(m->layers);
    weir_free(m);
}

/* ---- running ---- */
static void run_layer(struct model *m, const struct layer *layer, const float *delta,
                      const struct weir_batch *batch)
{
    struct weir_backend *be = m->be;
    const struct model_config *c = &m->config;
    const struct weir_qkv how = { .cos = m->cos, .sin = m->sin };
    uint32_t n = batch->n_tok;

    be->add_rmsnorm(be, m->normed, m->x, delta, layer->attn_norm, n, c->d_model, c->rms_eps);
    be->linear(be, m->qkv, m->normed, layer->qkv, n);
    be->qkv_store(be, m->qkv, &how, &layer->kv, batch, &m->dims);
    be->attention(be, m->attended, m->qkv, &layer->kv, batch, &m->dims, 1.0f / sqrtf((float)c->d_head));
    be->linear(be, m->delta, m->attended, layer->out, n);
    be->add_rmsnorm(be, m->normed, m->x, m->delta, layer->mlp_norm, n, c->d_model, c->rms_eps);
    be->linear(be, m->gate_up, m->normed, layer->gate_up, n);
    be->silu_mul(be, m->act, m->gate_up, n, c->d_ffn);
    be->linear(be, m->delta, m->act, layer->down, n);
}

void model_forward(struct model *m, const struct weir_batch *batch)
{
    struct weir_backend *be = m->be;
    const struct model_config *c = &m->config;

    WEIR_BUG_ON(batch->n_tok == 0 || batch->n_tok > m->limits.n_tok_max);
    if (!be->begin(be, batch)) {
        be->embed(be, m->x, m->embed, batch);
        for (uint32_t i = 0; i < c->n_layer; i++)
            run_layer(m, &m->layers[i], i ? m->delta : NULL, batch);
        be->add_rmsnorm(be, m->normed, m->x, m->delta, m->final_norm, batch->n_tok, c->d_model, c->rms_eps);
    }
    WEIR_BUG_ON(be->end(be, NULL) != WEIR_OK);
}

const float *model_logits(struct model *m, const int32_t *rows, uint32_t n)
{
    WEIR_BUG_ON(n > m->limits.n_logits_max);
    m->be->head(m->be, m->logits, m->x, rows, n, m->final_norm, m->config.rms_eps, m->head);
    return m->be->map(m->be, m->logits, (size_t)n * m->config.n_vocab * sizeof *m->logits);
}

void model_copy_page(struct model *m, uint32_t from, uint32_t to)
{
    for (uint32_t i = 0; i < m->config.n_layer; i++)
        m->be->copy_page(m->be, &m->layers[i].kv, &m->dims, from, to);
}

uint64_t model_n_params(const struct model *m)
{
    return m->n_params;
}

uint64_t model_weight_bytes(const struct model *m)
{
    return m->weight_bytes;
}

const uint8_t *model_weights_hash(const struct model *m)
{
    return m->hash;
}

uint64_t model_kv_token_bytes(const struct model_config *config)
{
    return 2ull * config->n_layer * config->n_kv_head * config->d_head * sizeof(float);
}
