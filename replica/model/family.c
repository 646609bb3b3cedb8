/* family.c - the families by table, and what each makes of what its config.json says or leaves out.
 *
 * A row more is a family more, once the graph can do it. Defaults are those of the reference implementation (Hugging Face
 * transformers): a member that a file leaves out means there what it means here.
 *
 *   [F1] A member that changes the arithmetic is done or refused by name, never ignored.
 * Sources: Llama: Touvron et al. 2023 (arXiv 2302.13971); Mistral and its window: Jiang et al. 2023 (arXiv 2310.06825);
 * Mixtral: Jiang et al. 2024 (arXiv 2401.04088); Qwen2: arXiv 2407.10671; Qwen3: arXiv 2505.09388. */
#include <math.h>
#include <string.h>

#include "replica/model/config_int.h"
#include "replica/model/rope.h"

#define FACTOR_MAX 1e6 /* of rotary factors: any further and the angles are no numbers */
#define FACTOR_MIN 1e-3
#define THETA_MAX 1e15
#define WINDOW_LAYERS_DEFAULT 28 /* Qwen: those from here on slide */

enum window_rule {
    NO_WINDOW,    /* all layers see everything */
    WINDOW,       /* all slide where sliding_window is a number */
    ASKED_WINDOW, /* the same, if use_sliding_window */
    UPPER_WINDOW, /* and only from max_window_layers on */
};

static const struct row {
    struct model_family family;
    bool bias_by_config; /* attention_bias counts */
    bool all_sparse;     /* every layer has experts, as wide as intermediate_size, their weights of sum 1 */
    enum window_rule rule;
    uint32_t n_kv_head, d_head,
        window; /* when config.json leaves them out; 0: as many as heads, by width, none */
    double rms_eps, theta;
} rows[] = {
    { .family = { .architecture = "LlamaForCausalLM" },
      .bias_by_config = true,
      .rms_eps = 1e-6,
      .theta = 10000 },
    { .family = { .architecture = "MistralForCausalLM" },
      .rule = WINDOW,
      .n_kv_head = 8,
      .window = 4096,
      .rms_eps = 1e-6,
      .theta = 10000 },
    { .family = { .architecture = "MinistralForCausalLM" },
      .rule = WINDOW,
      .n_kv_head = 8,
      .window = 4096,
      .rms_eps = 1e-6,
      .theta = 10000 },
    { .family = { .architecture = "Qwen2ForCausalLM", .qkv_bias = true },
      .rule = UPPER_WINDOW,
      .n_kv_head = 32,
      .window = 4096,
      .rms_eps = 1e-6,
      .theta = 10000 },
    { .family = { .architecture = "Qwen3ForCausalLM", .qk_norm = true },
      .bias_by_config = true,
      .rule = UPPER_WINDOW,
      .n_kv_head = 32,
      .d_head = 128,
      .window = 4096,
      .rms_eps = 1e-6,
      .theta = 10000 },
    { .family = { .architecture = "MixtralForCausalLM",
                  .sparse = true,
                  .router = "block_sparse_moe.gate",
                  .expert = "block_sparse_moe.experts",
                  .expert_gate = "w1",
                  .expert_up = "w3",
                  .expert_down = "w2" },
      .all_sparse = true,
      .rule = WINDOW,
      .n_kv_head = 8,
      .rms_eps = 1e-5,
      .theta = 1e6 },
    { .family = { .architecture = "Qwen3MoeForCausalLM",
                  .qk_norm = true,
                  .sparse = true,
                  .router = "mlp.gate",
                  .expert = "mlp.experts",
                  .expert_gate = "gate_proj",
                  .expert_up = "up_proj",
                  .expert_down = "down_proj" },
      .bias_by_config = true,
      .rule = ASKED_WINDOW,
      .n_kv_head = 4,
      .window = 4096,
      .rms_eps = 1e-6,
      .theta = 10000 },
};

static const struct row *find(const char *architecture)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (strcmp(architecture, rows[i].family.architecture) == 0)
            return &rows[i];
    return NULL;
}

/* ---- shapes ---- */
static weir_err apply_sizes(const struct row *row, const struct config_said *said, struct model_config *c,
                            struct weir_why *why)
{
    if (!c->n_layer || !c->n_head || !c->d_model || !c->d_ffn || !c->n_vocab || !c->n_context)
        return weir_fail(why, WEIR_CORRUPT, "config.json: a size is missing");
    if (c->n_layer > MODEL_LAYERS_MAX)
        return weir_fail_param(why, "num_hidden_layers", WEIR_CORRUPT,
                               "config.json: %u layers are more than %d", c->n_layer, MODEL_LAYERS_MAX);
    c->n_kv_head = said->n_kv_head > 0 ? (uint32_t)said->n_kv_head : c->n_head;
    if (said->n_kv_head == SAID_NOTHING && row->n_kv_head)
        c->n_kv_head = row->n_kv_head;
    c->d_head = said->d_head > 0 ? (uint32_t)said->d_head : c->d_model / c->n_head;
    if (said->d_head == SAID_NOTHING && row->d_head)
        c->d_head = row->d_head;
    c->rms_eps = (float)(isnan(said->rms_eps) ? row->rms_eps : said->rms_eps);
    if (!(c->rms_eps > 0 && isfinite(c->rms_eps)))
        return weir_fail_param(why, "rms_norm_eps", WEIR_CORRUPT,
                               "config.json: rms_norm_eps must be above 0");
    return WEIR_OK;
}

/* ---- windows ---- */
static weir_err apply_windows(const struct row *row, const struct config_said *said, struct model_config *c,
                              struct weir_why *why)
{
    int64_t window = said->window == SAID_NOTHING ? row->window : said->window, from = 0;

    if (row->rule == NO_WINDOW || (row->rule != WINDOW && !said->use_window))
        window = 0;
    if (row->rule == UPPER_WINDOW)
        from = said->n_window_from == SAID_NOTHING ? WINDOW_LAYERS_DEFAULT : said->n_window_from;
    if (said->n_layer_kinds != SAID_NOTHING && (uint32_t)said->n_layer_kinds != c->n_layer)
        return weir_fail_param(why, "layer_types", WEIR_CORRUPT,
                               "config.json: layer_types names %d layers of %u", said->n_layer_kinds,
                               c->n_layer);
    c->window = (uint32_t)window;
    for (uint32_t i = 0; i < c->n_layer; i++) {
        bool slides = said->n_layer_kinds == SAID_NOTHING ? window && i >= from : said->layer_slides[i];
        if (slides && !window)
            return weir_fail_param(why, "layer_types", WEIR_CORRUPT,
                                   "config.json: layer %u slides, but there is no sliding_window for it", i);
        c->layers[i] |= slides ? MODEL_LAYER_SLIDES : 0;
    }
    return WEIR_OK;
}

/* ---- experts ---- */
static weir_err apply_experts(const struct row *row, const struct config_said *said, struct model_config *c,
                              struct weir_why *why)
{
    if (!row->family.sparse) {
        c->n_expert = c->n_used = c->d_expert = 0;
        return WEIR_OK;
    }
    if (row->all_sparse) {
        c->d_expert = c->d_ffn;
        c->renormalize = true;
    }
    if (!c->n_expert || !c->n_used || !c->d_expert)
        return weir_fail(why, WEIR_CORRUPT, "config.json: the number or the width of the experts is missing");
    if (c->n_expert > MODEL_EXPERTS_MAX || c->n_used > c->n_expert)
        return weir_fail_param(why, "num_experts_per_tok", WEIR_CORRUPT,
                               "config.json: %u of %u experts for a token; at most %d there can be",
                               c->n_used, c->n_expert, MODEL_EXPERTS_MAX);
    for (uint32_t i = 0; i < c->n_layer; i++)
        if (row->all_sparse || (!said->layer_dense[i] && (i + 1) % said->sparse_step == 0))
            c->layers[i] |= MODEL_LAYER_SPARSE;
    return WEIR_OK;
}

/* ---- rotation ---- */
static weir_err refuse_rope(struct weir_why *why, const char *what)
{
    return weir_fail_param(why, "rope_scaling", WEIR_CORRUPT, "config.json: rope_scaling: %s", what);
}

static bool is_factor(double x)
{
    return x >= FACTOR_MIN && x <= FACTOR_MAX; /* false for NaN */
}

static weir_err apply_llama3(struct model_rope *rope, struct weir_why *why)
{
    if (!is_factor(rope->factor) || !is_factor(rope->low_freq_factor) || !is_factor(rope->high_freq_factor) ||
        rope->high_freq_factor <= rope->low_freq_factor)
        return refuse_rope(why, "a llama3 factor is missing or out of order");
    return WEIR_OK;
}

static weir_err apply_yarn(const struct config_said *said, const struct model_config *c,
                           struct model_rope *rope, struct weir_why *why)
{
    if (isnan(rope->factor))
        rope->factor = (double)c->n_context / rope->original_context;
    rope->beta_fast = rope->beta_fast != 0 && !isnan(rope->beta_fast) ? rope->beta_fast : 32;
    rope->beta_slow = rope->beta_slow != 0 && !isnan(rope->beta_slow) ? rope->beta_slow : 1;
    rope->attention_factor = isnan(said->attention_factor)
                                 ? rope_yarn_attention(rope->factor, said->mscale, said->mscale_all_dim)
                                 : said->attention_factor;
    if (!is_factor(rope->factor) || !is_factor(rope->beta_slow) || !is_factor(rope->beta_fast) ||
        !is_factor(rope->attention_factor) || rope->beta_fast <= rope->beta_slow || rope->theta <= 1)
        return refuse_rope(why, "a yarn factor is missing or out of order");
    return WEIR_OK;
}

static weir_err apply_rope(const struct row *row, const struct config_said *said, struct model_config *c,
                           struct weir_why *why)
{
    static const struct {
        const char *name;
        enum model_rope_kind kind;
    } kinds[] = { { "", MODEL_ROPE_DEFAULT },
                  { "default", MODEL_ROPE_DEFAULT },
                  { "linear", MODEL_ROPE_LINEAR },
                  { "llama3", MODEL_ROPE_LLAMA3 },
                  { "yarn", MODEL_ROPE_YARN } };
    struct model_rope *rope = &c->rope;
    size_t i = 0, n = sizeof kinds / sizeof *kinds;

    while (i < n && strcmp(said->rope_type, kinds[i].name) != 0)
        i++;
    /* "dynamic" too: its frequencies depend on how long the text has become, so cached keys would be wrong. */
    if (i == n)
        return weir_fail_param(why, "rope_type", WEIR_UNIMPLEMENTED,
                               "config.json: the rope type `%s` is not supported", said->rope_type);
    rope->kind = kinds[i].kind;
    rope->theta = !isnan(said->rope_theta_inner) ? said->rope_theta_inner
                  : !isnan(said->rope_theta)     ? said->rope_theta
                                                 : row->theta;
    rope->factor = said->rope_factor;
    rope->attention_factor = 1;
    rope->original_context = said->original_context         ? said->original_context
                             : said->original_context_inner ? said->original_context_inner
                                                            : c->n_context;
    if (!(rope->theta > 0 && rope->theta <= THETA_MAX))
        return weir_fail_param(why, "rope_theta", WEIR_CORRUPT,
                               "config.json: rope_theta must be above 0 and at most %g", THETA_MAX);
    if (rope->kind == MODEL_ROPE_LINEAR && !is_factor(rope->factor))
        return refuse_rope(why, "the factor is missing or out of range");
    if (rope->kind == MODEL_ROPE_LLAMA3)
        return apply_llama3(rope, why);
    return rope->kind == MODEL_ROPE_YARN ? apply_yarn(said, c, rope, why) : WEIR_OK;
}

weir_err family_apply(const struct config_said *said, struct model_config *c, struct weir_why *why)
{
    const struct row *row = find(c->architecture);

    if (!row)
        return weir_fail_param(why, "architectures", WEIR_UNIMPLEMENTED,
                               "config.json: the architecture `%s` is not supported", c->architecture);
    c->family = &row->family;
    c->qkv_bias = row->family.qkv_bias || (row->bias_by_config && said->attention_bias);
    c->out_bias = row->bias_by_config && said->attention_bias;
    weir_err err = apply_sizes(row, said, c, why);
    if (err == WEIR_OK)
        err = apply_windows(row, said, c, why);
    if (err == WEIR_OK)
        err = apply_experts(row, said, c, why);
    return err == WEIR_OK ? apply_rope(row, said, c, why) : err;
}
