/* load.c - a rank's share of the weights, from the mapped files into the back end's layout.
 *
 * Streams: a layer's pages are asked for while the one before is packed, and let go once they are packed, so that each page
 * is read once and peak memory is the packed weights, a tensor's working copy, and what the kernel keeps as page cache.
 *
 *   [W1] Sizes are checked against the file before anything is allocated for them.
 *   [W2] A tensor of a layer that nothing here reads is refused: without it the layer would compute something else. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "replica/model/model_int.h"
#include "replica/model/rope.h"

#define NAME_MAX_LEN 160

struct loader {
    struct model *m;
    const struct safetensors *weights;
    enum weir_quant quant;
    bool *used; /* of each tensor */
    struct weir_why *why;
    weir_err err; /* the first one sticks: what follows does nothing */
};

/* Where a matrix's rows and columns come from. */
struct source {
    const char *name; /* behind "model.layers.<i>." when i_layer is not -1 */
    uint32_t rows, cols;
    struct shard_range row_part, col_part;
};

static struct shard_range all(uint32_t n)
{
    return (struct shard_range){ 0, n };
}

/* ---- tensors ---- */
static void full_name(char ret[NAME_MAX_LEN], int i_layer, const char *name, const char *suffix)
{
    if (i_layer < 0)
        snprintf(ret, NAME_MAX_LEN, "%s.%s", name, suffix);
    else
        snprintf(ret, NAME_MAX_LEN, "model.layers.%d.%s.%s", i_layer, name, suffix);
}

static const struct tensor *find(struct loader *ld, const char *name, uint32_t rows, uint32_t cols)
{
    const struct tensor *t = ld->err == WEIR_OK ? safetensors_find(ld->weights, name) : NULL;
    uint32_t n_dims = cols ? 2 : 1;

    if (ld->err != WEIR_OK)
        return NULL;
    if (!t) {
        ld->err = weir_fail_param(ld->why, name, WEIR_CORRUPT, "the weights have no tensor `%s`", name);
        return NULL;
    }
    if (t->n_dims != n_dims || t->dims[0] != rows || (cols && t->dims[1] != cols)) {
        ld->err =
            weir_fail_param(ld->why, name, WEIR_CORRUPT, "`%s`: the shape is not the %u x %u of config.json",
                            name, rows, cols ? cols : 1);
        return NULL;
    }
    bool *used = &ld->used[safetensors_index(ld->weights, t)];
    ld->m->n_params += *used ? 0 : (uint64_t)rows * (cols ? cols : 1);
    *used = true;
    return t;
}

static void *take(struct loader *ld, size_t bytes)
{
    void *ptr = ld->err == WEIR_OK ? ld->m->be->alloc(ld->m->be, bytes) : NULL;

    if (ld->err == WEIR_OK && !ptr)
        ld->err = weir_fail(ld->why, WEIR_NOMEM, "no memory: %zu bytes for the model", bytes);
    return ptr;
}

/* The parts stacked and packed; all have the same columns. `zeros`: so many rows of zeros below them. */
static struct weir_matrix *load_matrix(struct loader *ld, int i_layer, const struct source *sources,
                                       int n_sources, enum weir_quant quant, uint32_t zeros)
{
    struct weir_weights parts[4];
    struct weir_matrix *ret = NULL;
    char name[NAME_MAX_LEN] = "";

    for (int i = 0; i < n_sources; i++) {
        const struct source *s = &sources[i];
        full_name(name, i_layer, s->name, "weight");
        const struct tensor *t = find(ld, name, s->rows, s->cols);
        if (!t)
            return NULL;
        uint64_t first = (uint64_t)s->row_part.from * s->cols + s->col_part.from;
        parts[i] = (struct weir_weights){ (const char *)t->data + first * weir_dtype_size(t->dtype), t->dtype,
                                          s->row_part.n, s->cols };
    }
    uint32_t n_in = sources[0].col_part.n;
    char *below = zeros ? weir_calloc((size_t)zeros * n_in, sizeof(uint16_t)) : NULL;
    if (zeros && !below) {
        ld->err = weir_fail(ld->why, WEIR_NOMEM, "no memory to pack `%s`", name);
        return NULL;
    }
    if (zeros) /* all dtypes have the same zero; bf16 makes no other part wider */
        parts[n_sources++] = (struct weir_weights){ below, WEIR_BF16, zeros, n_in };
    ld->err = ld->m->be->pack(ld->m->be, parts, n_sources, n_in, quant, &ret);
    weir_free(below);
    if (ld->err == WEIR_UNIMPLEMENTED)
        weir_fail_param(ld->why, "weights", ld->err, "`%s`: the back end %s can't quantize it so", name,
                        ld->m->be->name);
    else if (ld->err != WEIR_OK)
        weir_fail(ld->why, ld->err, "no memory to pack `%s`", name);
    else
        ld->m->weight_bytes += ld->m->be->matrix_bytes(ret);
    return ret;
}

static void widen(const struct tensor *t, uint64_t from, uint32_t n, float *to)
{
    uint16_t half;

    for (uint32_t i = 0; i < n; i++) {
        if (t->dtype == WEIR_F32) {
            memcpy(&to[i], (const char *)t->data + 4 * (from + i), 4);
            continue;
        }
        memcpy(&half, (const char *)t->data + 2 * (from + i), 2);
        to[i] = weir_half_to_f32(half, t->dtype);
    }
}

/* Parts of vectors, one after another, uploaded as one. */
static float *load_vectors(struct loader *ld, int i_layer, const char *suffix, const struct source *sources,
                           int n_sources)
{
    char name[NAME_MAX_LEN];
    float *host = NULL, *ret = NULL;
    uint32_t n = 0;

    for (int i = 0; i < n_sources; i++) {
        const struct source *s = &sources[i];
        full_name(name, i_layer, s->name, suffix);
        const struct tensor *t = find(ld, name, s->rows, 0);
        float *grown = t ? weir_realloc(host, (n + s->row_part.n) * sizeof *host) : NULL;
        if (!grown) {
            if (ld->err == WEIR_OK)
                ld->err = weir_fail(ld->why, WEIR_NOMEM, "no memory to read `%s`", name);
            weir_free(host);
            return NULL;
        }
        host = grown;
        widen(t, s->row_part.from, s->row_part.n, host + n);
        n += s->row_part.n;
    }
    ret = ld->m->be->upload(ld->m->be, host, n);
    weir_free(host);
    if (!ret)
        ld->err = weir_fail(ld->why, WEIR_NOMEM, "no memory for `%s`", name);
    return ret;
}

static float *load_vector(struct loader *ld, int i_layer, const char *name, uint32_t n)
{
    struct source s = { name, n, 0, all(n), all(0) };

    return load_vectors(ld, i_layer, "weight", &s, 1);
}

/* ---- layers ---- */
static struct shard_range heads_of(struct shard_range heads, uint32_t d_head)
{
    return (struct shard_range){ heads.from * d_head, heads.n * d_head };
}

static void load_attention(struct loader *ld, struct layer *layer, int i)
{
    const struct model_config *c = &ld->m->config;
    const struct shard *s = &ld->m->shard;
    uint32_t q = c->n_head * c->d_head, kv = c->n_kv_head * c->d_head;
    struct shard_range q_part = heads_of(s->heads, c->d_head), kv_part = heads_of(s->kv_heads, c->d_head);
    const struct source qkv[] = { { "self_attn.q_proj", q, c->d_model, q_part, all(c->d_model) },
                                  { "self_attn.k_proj", kv, c->d_model, kv_part, all(c->d_model) },
                                  { "self_attn.v_proj", kv, c->d_model, kv_part, all(c->d_model) } };
    const struct source out = { "self_attn.o_proj", c->d_model, q, all(c->d_model), q_part };
    const struct source out_bias = { "self_attn.o_proj", c->d_model, 0, all(c->d_model), all(0) };

    layer->attn_norm = load_vector(ld, i, "input_layernorm", c->d_model);
    layer->qkv = load_matrix(ld, i, qkv, 3, ld->quant, 0);
    if (c->qkv_bias)
        layer->qkv_bias = load_vectors(ld, i, "bias", qkv, 3);
    if (c->family->qk_norm) {
        layer->q_norm = load_vector(ld, i, "self_attn.q_norm", c->d_head);
        layer->k_norm = load_vector(ld, i, "self_attn.k_norm", c->d_head);
    }
    layer->out = load_matrix(ld, i, &out, 1, ld->quant, 0);
    if (c->out_bias) {
        layer->out_bias = load_vectors(ld, i, "bias", &out_bias, 1);
        if (s->rank != 0) {
            ld->m->be->free(ld->m->be, layer->out_bias);
            layer->out_bias = NULL;
        }
    }
    layer->dims = (struct weir_attn_dims){ .n_head = s->heads.n,
                                           .n_kv_head = s->kv_heads.n,
                                           .d_head = c->d_head,
                                           .window = c->layers[i] & MODEL_LAYER_SLIDES ? c->window : 0 };
    size_t page_bytes = ld->m->be->kv_page_bytes(ld->m->be, &layer->dims);
    layer->kv.k = take(ld, (size_t)ld->m->limits.n_blocks * page_bytes);
    layer->kv.v = take(ld, (size_t)ld->m->limits.n_blocks * page_bytes);
}

static void load_dense(struct loader *ld, struct layer *layer, int i)
{
    const struct model_config *c = &ld->m->config;
    struct shard_range part = ld->m->shard.ffn;
    const struct source gate_up[] = { { "mlp.gate_proj", c->d_ffn, c->d_model, part, all(c->d_model) },
                                      { "mlp.up_proj", c->d_ffn, c->d_model, part, all(c->d_model) } };
    const struct source down = { "mlp.down_proj", c->d_model, c->d_ffn, all(c->d_model), part };

    layer->gate_up = load_matrix(ld, i, gate_up, 2, ld->quant, 0);
    layer->down = load_matrix(ld, i, &down, 1, ld->quant, 0);
}

/* The router is small and decides much: it stays as it is. */
static void load_experts(struct loader *ld, struct layer *layer, int i)
{
    const struct model_config *c = &ld->m->config;
    const struct model_family *f = c->family;
    struct shard_range part = ld->m->shard.expert;
    const struct source router = { f->router, c->n_expert, c->d_model, all(c->n_expert), all(c->d_model) };
    char names[3][96];

    layer->router = load_matrix(ld, i, &router, 1, WEIR_NATIVE, 0);
    layer->expert_gate_up = weir_calloc(c->n_expert, sizeof *layer->expert_gate_up);
    layer->expert_down = weir_calloc(c->n_expert, sizeof *layer->expert_down);
    if (ld->err == WEIR_OK && (!layer->expert_gate_up || !layer->expert_down))
        ld->err = weir_fail(ld->why, WEIR_NOMEM, "no memory for the experts");
    for (uint32_t k = 0; k < c->n_expert && ld->err == WEIR_OK; k++) {
        snprintf(names[0], sizeof names[0], "%s.%u.%s", f->expert, k, f->expert_gate);
        snprintf(names[1], sizeof names[1], "%s.%u.%s", f->expert, k, f->expert_up);
        snprintf(names[2], sizeof names[2], "%s.%u.%s", f->expert, k, f->expert_down);
        const struct source gate_up[] = { { names[0], c->d_expert, c->d_model, part, all(c->d_model) },
                                          { names[1], c->d_expert, c->d_model, part, all(c->d_model) } };
        const struct source down = { names[2], c->d_model, c->d_expert, all(c->d_model), part };
        layer->expert_gate_up[k] = load_matrix(ld, i, gate_up, 2, ld->quant, 0);
        layer->expert_down[k] = load_matrix(ld, i, &down, 1, ld->quant, 0);
    }
}

static void load_layer(struct loader *ld, int i)
{
    struct layer *layer = &ld->m->layers[i];
    char prefix[NAME_MAX_LEN];

    snprintf(prefix, sizeof prefix, "model.layers.%d.", i + 1);
    safetensors_will_read(ld->weights, prefix);
    load_attention(ld, layer, i);
    layer->mlp_norm = load_vector(ld, i, "post_attention_layernorm", ld->m->config.d_model);
    if (ld->m->config.layers[i] & MODEL_LAYER_SPARSE)
        load_experts(ld, layer, i);
    else
        load_dense(ld, layer, i);
    snprintf(prefix, sizeof prefix, "model.layers.%d.", i);
    safetensors_have_read(ld->weights,
                          prefix); /* a rank that still reads them finds them in the page cache */
}

/* ---- the rest ---- */
static void load_ends(struct loader *ld)
{
    struct model *m = ld->m;
    const struct model_config *c = &m->config;
    const struct shard *s = &m->shard;
    const struct source embed = { "model.embed_tokens", c->n_vocab, c->d_model, all(c->n_vocab),
                                  all(c->d_model) };
    const struct source head = { c->tied ? "model.embed_tokens" : "lm_head", c->n_vocab, c->d_model, s->vocab,
                                 all(c->d_model) };
    bool shared = c->tied && s->n_ranks == 1;

    /* A table of its own is only looked up: a row a token costs nothing, so it keeps its precision. */
    m->embed = load_matrix(ld, -1, &embed, 1, shared ? ld->quant : WEIR_NATIVE, 0);
    m->head = shared ? m->embed
                     : load_matrix(ld, -1, &head, s->vocab.n ? 1 : 0, ld->quant, s->vocab_rows - s->vocab.n);
    m->final_norm = load_vector(ld, -1, "model.norm", c->d_model);
    safetensors_have_read(ld->weights, "");
}

static void make_rope(struct loader *ld)
{
    struct model *m = ld->m;
    size_t n = (size_t)m->config.n_context * (m->config.d_head / 2);
    float *cosines = weir_alloc(n * sizeof *cosines), *sines = weir_alloc(n * sizeof *sines);

    if (cosines && sines) {
        rope_fill(&m->config, cosines, sines);
        m->cos = m->be->upload(m->be, cosines, n);
        m->sin = m->be->upload(m->be, sines, n);
    }
    weir_free(cosines);
    weir_free(sines);
    if (ld->err == WEIR_OK && (!m->cos || !m->sin))
        ld->err = weir_fail(ld->why, WEIR_NOMEM, "no memory for the rotary tables");
}

static uint32_t larger(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static void make_buffers(struct loader *ld)
{
    struct model *m = ld->m;
    const struct model_config *c = &m->config;
    const struct shard *s = &m->shard;
    size_t n = m->limits.n_tok_max, act = weir_dtype_size(m->be->act), rows = m->limits.n_logits_max;
    size_t n_wide = (size_t)s->n_ranks * s->vocab_rows;
    uint32_t d_ffn = larger(s->ffn.n, s->expert.n);

    m->x = take(ld, n * c->d_model * act);
    m->delta = take(ld, n * c->d_model * act);
    m->normed = take(ld, n * c->d_model * act);
    m->qkv = take(ld, n * (s->heads.n + 2 * s->kv_heads.n) * c->d_head * act);
    m->attended = take(ld, n * s->heads.n * c->d_head * act);
    m->gate_up = take(ld, n * 2 * d_ffn * act);
    m->act = take(ld, n * d_ffn * act);
    m->share = take(ld, rows * s->vocab_rows * sizeof(float));
    m->logits = s->n_ranks == 1 ? m->share : take(ld, rows * n_wide * sizeof(float));
    if (c->n_expert) {
        m->routes = take(ld, n * c->n_expert * act);
        m->expert = take(ld, n * c->n_used * sizeof *m->expert);
        m->expert_weight = take(ld, n * c->n_used * sizeof *m->expert_weight);
    }
    if (n_wide > c->n_vocab && ld->err == WEIR_OK) {
        m->narrow = weir_alloc(rows * c->n_vocab * sizeof *m->narrow);
        if (!m->narrow)
            ld->err = weir_fail(ld->why, WEIR_NOMEM, "no memory for the logits");
    }
}

/* [W2] Old files carry rotary tables, which follow from config.json. */
static void check_unused(struct loader *ld)
{
    static const char layers[] = "model.layers.", rotary[] = "rotary_emb.inv_freq";

    for (size_t i = 0; i < safetensors_count(ld->weights) && ld->err == WEIR_OK; i++) {
        struct weir_str name = safetensors_at(ld->weights, i)->name;
        if (ld->used[i] || name.len < sizeof layers || memcmp(name.ptr, layers, sizeof layers - 1) != 0 ||
            (uint32_t)atoi(name.ptr + sizeof layers - 1) >= ld->m->config.n_layer)
            continue;
        if (name.len > sizeof rotary &&
            memcmp(name.ptr + name.len - (sizeof rotary - 1), rotary, sizeof rotary - 1) == 0)
            continue;
        ld->err = weir_fail(ld->why, WEIR_UNIMPLEMENTED,
                            "the weights have `%.*s`, which %s does not use as config.json describes it",
                            WEIR_STR_FMT(name), ld->m->config.architecture);
    }
}

weir_err model_load(struct model *m, const struct safetensors *weights, enum weir_quant quant,
                    struct weir_why *why)
{
    struct loader ld = { .m = m, .weights = weights, .quant = quant, .why = why };

    m->layers = weir_calloc(m->config.n_layer, sizeof *m->layers);
    ld.used = weir_calloc(safetensors_count(weights) + 1, sizeof *ld.used);
    if (!m->layers || !ld.used)
        ld.err = weir_fail(why, WEIR_NOMEM, "no memory for the layers");
    load_ends(&ld);
    for (uint32_t i = 0; i < m->config.n_layer && ld.err == WEIR_OK; i++)
        load_layer(&ld, (int)i);
    if (ld.err == WEIR_OK)
        check_unused(&ld);
    if (ld.err == WEIR_OK)
        make_rope(&ld);
    make_buffers(&ld);
    weir_free(ld.used);
    return ld.err;
}
