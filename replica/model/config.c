/* config.c - see config.h. Members that we don't read are skipped: model makers add new ones every month. Members that would
 * change the arithmetic and that we don't implement are refused, never ignored. */
#include "replica/model/config.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/json.h"
#include "base/mem.h"
#include "kernels/kernels.h"
#include "replica/model/config_int.h"

#define CONFIG_BYTES_MAX (1u << 20)
#define ROPE_TABLE_MAX (1ull << 28) /* positions x head: 1 GiB of cosines and sines, made at opening */
#define SHAPE_MAX (1u << 22)        /* of one dimension: anything larger is a damaged file */
#define HEADS_MAX 4096

weir_err model_read_file(const char *dir, const char *name, size_t max, char **ret, size_t *ret_len,
                         struct weir_why *why)
{
    char path[1280];
    weir_err err = WEIR_OK;
    struct stat info;

    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *file = fopen(path, "rb");
    if (!file || fstat(fileno(file), &info) != 0) {
        err = weir_fail(why, WEIR_IO, "%s: %s", path, strerror(errno));
        if (file)
            fclose(file);
        return err;
    }
    size_t size = info.st_size < 0 || (uint64_t)info.st_size > max ? max : (size_t)info.st_size;
    char *text = weir_alloc(size + 1);
    if (!text) {
        fclose(file);
        return weir_fail(why, WEIR_NOMEM, "%s: no memory to read it", path);
    }
    size_t len =
        fread(text, 1, size + 1, file); /* one more than there should be: a file that grows is noticed */
    if (ferror(file))
        err = weir_fail(why, WEIR_IO, "%s: %s", path, strerror(errno));
    else if (len > size)
        err = weir_fail(why, WEIR_CORRUPT, "%s: larger than %zu bytes", path, size);
    fclose(file);
    if (err != WEIR_OK) {
        weir_free(text);
        return err;
    }
    text[len] = '\0';
    *ret = text;
    *ret_len = len;
    return WEIR_OK;
}

/* ---- config.json ---- */
static bool is_null(struct weir_json *j)
{
    return weir_json_peek(j) == WEIR_JSON_NULL && weir_json_null(j);
}

static void read_u32(struct weir_json *j, uint32_t *ret)
{
    int64_t n = 0;

    if (is_null(j) || !weir_json_i64(j, &n))
        return;
    if (n < 1 || n > SHAPE_MAX)
        weir_json_fail(j, WEIR_CORRUPT, "%lld is not a size", (long long)n);
    else
        *ret = (uint32_t)n;
}

static void read_eos_id(struct weir_json *j, struct model_config *c)
{
    int64_t id = 0;

    if (!weir_json_i64(j, &id))
        return;
    if (c->n_eos_ids == MODEL_EOS_MAX)
        weir_json_fail(j, WEIR_CORRUPT, "more than %d end tokens", MODEL_EOS_MAX);
    else if (id < 0 || id > SHAPE_MAX) /* check_shapes() compares with the vocabulary, once that is known */
        weir_json_fail(j, WEIR_CORRUPT, "the end token %lld is not in the vocabulary", (long long)id);
    else
        c->eos_ids[c->n_eos_ids++] = (int32_t)id;
}

static void read_eos(struct weir_json *j, struct model_config *c)
{
    c->n_eos_ids = 0;
    if (is_null(j))
        return;
    if (weir_json_peek(j) != WEIR_JSON_ARRAY) {
        read_eos_id(j, c);
        return;
    }
    weir_json_array(j);
    while (weir_json_next(j))
        read_eos_id(j, c);
}

static void read_architectures(struct weir_json *j, struct model_config *c)
{
    struct weir_str name;

    if (is_null(j))
        return;
    weir_json_array(j);
    while (weir_json_next(j))
        if (weir_json_string(j, &name) && !c->architecture[0])
            snprintf(c->architecture, sizeof c->architecture, "%.*s", WEIR_STR_FMT(name));
}

/* A number that may be null (0) or missing (what it was before). */
static void read_optional(struct weir_json *j, int64_t *ret)
{
    int64_t n = 0;

    if (!is_null(j) && weir_json_i64(j, &n) && (n < 0 || n > SHAPE_MAX))
        weir_json_fail(j, WEIR_CORRUPT, "%lld is not a size", (long long)n);
    else if (weir_json_ok(j))
        *ret = n;
}

static void read_f64(struct weir_json *j, double *ret)
{
    if (!is_null(j))
        weir_json_f64(j, ret);
}

static void read_bool(struct weir_json *j, bool *ret)
{
    if (!is_null(j))
        weir_json_bool(j, ret);
}

static void refuse_unless_one(struct weir_json *j, struct weir_str key)
{
    double x = 1;

    read_f64(j, &x);
    if (weir_json_ok(j) && x != 1)
        weir_json_fail(j, WEIR_UNIMPLEMENTED, "a %.*s of %g is not supported", WEIR_STR_FMT(key), x);
}

static void refuse_unless_null(struct weir_json *j, struct weir_str key)
{
    if (!is_null(j))
        weir_json_fail(j, WEIR_UNIMPLEMENTED, "%.*s is not supported", WEIR_STR_FMT(key));
}

static void refuse_if_true(struct weir_json *j, struct weir_str key)
{
    bool on = false;

    read_bool(j, &on);
    if (weir_json_ok(j) && on)
        weir_json_fail(j, WEIR_UNIMPLEMENTED, "%.*s is not supported", WEIR_STR_FMT(key));
}

/* Members whose type alone says how they are read; the row tells where the value goes. */
enum member_type { SIZE, OPTIONAL, F64, BOOL };
struct member {
    const char *name;
    enum member_type type;
    size_t offset;
};

static bool read_by_table(struct weir_json *j, struct weir_str key, const struct member *table, size_t n,
                          void *to)
{
    for (size_t i = 0; i < n; i++) {
        if (!weir_str_eq(key, table[i].name))
            continue;
        void *at = (char *)to + table[i].offset;
        switch (table[i].type) {
        case SIZE:
            read_u32(j, at);
            break;
        case OPTIONAL:
            read_optional(j, at);
            break;
        case F64:
            read_f64(j, at);
            break;
        case BOOL:
            read_bool(j, at);
            break;
        }
        return true;
    }
    return false;
}

struct reading {
    struct model_config *c;
    struct config_said said;
};

/* rope_scaling of older files, rope_parameters of newer ones. */
static void read_rope(struct weir_json *j, struct reading *r)
{
    static const struct member ours[] = {
        { "low_freq_factor", F64, offsetof(struct model_rope, low_freq_factor) },
        { "high_freq_factor", F64, offsetof(struct model_rope, high_freq_factor) },
        { "beta_fast", F64, offsetof(struct model_rope, beta_fast) },
        { "beta_slow", F64, offsetof(struct model_rope, beta_slow) },
        { "truncate", BOOL, offsetof(struct model_rope, truncate) },
    };
    static const struct member said[] = {
        { "factor", F64, offsetof(struct config_said, rope_factor) },
        { "rope_theta", F64, offsetof(struct config_said, rope_theta_inner) },
        { "mscale", F64, offsetof(struct config_said, mscale) },
        { "mscale_all_dim", F64, offsetof(struct config_said, mscale_all_dim) },
        { "attention_factor", F64, offsetof(struct config_said, attention_factor) },
        { "original_max_position_embeddings", SIZE, offsetof(struct config_said, original_context_inner) },
    };
    struct weir_str key, type;

    if (is_null(j))
        return;
    weir_json_object(j);
    while (weir_json_key(j, &key)) {
        if (weir_str_eq(key, "rope_type") || weir_str_eq(key, "type")) {
            if (weir_json_string(j, &type))
                snprintf(r->said.rope_type, sizeof r->said.rope_type, "%.*s", WEIR_STR_FMT(type));
        } else if (weir_str_eq(key, "partial_rotary_factor"))
            refuse_unless_one(j, key);
        else if (weir_str_eq(key, "full_attention") || weir_str_eq(key, "sliding_attention"))
            weir_json_fail(j, WEIR_UNIMPLEMENTED, "a rotation for each kind of layer is not supported");
        else if (!read_by_table(j, key, ours, sizeof ours / sizeof *ours, &r->c->rope) &&
                 !read_by_table(j, key, said, sizeof said / sizeof *said, &r->said))
            weir_json_skip(j);
    }
}

static void read_activation(struct weir_json *j)
{
    struct weir_str name;

    if (weir_json_string(j, &name) && !weir_str_eq(name, "silu"))
        weir_json_fail(j, WEIR_UNIMPLEMENTED, "the activation `%.*s` is not supported", WEIR_STR_FMT(name));
}

static void read_layer_types(struct weir_json *j, struct config_said *said)
{
    struct weir_str kind;

    if (is_null(j))
        return;
    said->n_layer_kinds = 0;
    weir_json_array(j);
    while (weir_json_next(j)) {
        if (!weir_json_string(j, &kind))
            return;
        bool slides = weir_str_eq(kind, "sliding_attention");
        if (!slides && !weir_str_eq(kind, "full_attention"))
            weir_json_fail(j, WEIR_UNIMPLEMENTED, "layers of `%.*s` are not supported", WEIR_STR_FMT(kind));
        else if (said->n_layer_kinds == MODEL_LAYERS_MAX)
            weir_json_fail(j, WEIR_CORRUPT, "more than %d layers", MODEL_LAYERS_MAX);
        else
            said->layer_slides[said->n_layer_kinds++] = slides;
    }
}

static void read_dense_layers(struct weir_json *j, struct config_said *said)
{
    uint64_t i = 0;

    if (is_null(j))
        return;
    weir_json_array(j);
    while (weir_json_next(j))
        if (weir_json_u64(j, &i)) {
            if (i >= MODEL_LAYERS_MAX)
                weir_json_fail(j, WEIR_CORRUPT, "there is no layer %llu", (unsigned long long)i);
            else
                said->layer_dense[i] = true;
        }
}

static void read_member(struct weir_json *j, struct weir_str key, void *into)
{
    static const struct member ours[] = {
        { "num_hidden_layers", SIZE, offsetof(struct model_config, n_layer) },
        { "num_attention_heads", SIZE, offsetof(struct model_config, n_head) },
        { "hidden_size", SIZE, offsetof(struct model_config, d_model) },
        { "intermediate_size", SIZE, offsetof(struct model_config, d_ffn) },
        { "vocab_size", SIZE, offsetof(struct model_config, n_vocab) },
        { "max_position_embeddings", SIZE, offsetof(struct model_config, n_context) },
        { "num_local_experts", SIZE, offsetof(struct model_config, n_expert) },
        { "num_experts", SIZE, offsetof(struct model_config, n_expert) },
        { "num_experts_per_tok", SIZE, offsetof(struct model_config, n_used) },
        { "moe_intermediate_size", SIZE, offsetof(struct model_config, d_expert) },
        { "norm_topk_prob", BOOL, offsetof(struct model_config, renormalize) },
        { "tie_word_embeddings", BOOL, offsetof(struct model_config, tied) },
    };
    static const struct member said[] = {
        { "num_key_value_heads", OPTIONAL, offsetof(struct config_said, n_kv_head) },
        { "head_dim", OPTIONAL, offsetof(struct config_said, d_head) },
        { "sliding_window", OPTIONAL, offsetof(struct config_said, window) },
        { "max_window_layers", OPTIONAL, offsetof(struct config_said, n_window_from) },
        { "use_sliding_window", BOOL, offsetof(struct config_said, use_window) },
        { "attention_bias", BOOL, offsetof(struct config_said, attention_bias) },
        { "decoder_sparse_step", SIZE, offsetof(struct config_said, sparse_step) },
        { "rms_norm_eps", F64, offsetof(struct config_said, rms_eps) },
        { "rope_theta", F64, offsetof(struct config_said, rope_theta) },
        { "original_max_position_embeddings", SIZE, offsetof(struct config_said, original_context) },
    };
    static const struct {
        const char *name;
        void (*refuse)(struct weir_json *j, struct weir_str key);
    } refused[] = {
        { "mlp_bias", refuse_if_true },
        { "partial_rotary_factor", refuse_unless_one },
        { "quantization_config", refuse_unless_null },
        { "clip_qkv", refuse_unless_null },
        { "attn_logit_softcapping", refuse_unless_null },
        { "final_logit_softcapping", refuse_unless_null },
    };
    struct reading *r = into;

    if (read_by_table(j, key, ours, sizeof ours / sizeof *ours, r->c) ||
        read_by_table(j, key, said, sizeof said / sizeof *said, &r->said))
        return;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (weir_str_eq(key, refused[i].name)) {
            refused[i].refuse(j, key);
            return;
        }
    if (weir_str_eq(key, "architectures"))
        read_architectures(j, r->c);
    else if (weir_str_eq(key, "rope_scaling") || weir_str_eq(key, "rope_parameters"))
        read_rope(j, r);
    else if (weir_str_eq(key, "eos_token_id"))
        read_eos(j, r->c);
    else if (weir_str_eq(key, "hidden_act"))
        read_activation(j);
    else if (weir_str_eq(key, "layer_types"))
        read_layer_types(j, &r->said);
    else if (weir_str_eq(key, "mlp_only_layers"))
        read_dense_layers(j, &r->said);
    else
        weir_json_skip(j);
}

static weir_err check_shapes(const struct model_config *c, struct weir_why *why)
{
    if (c->n_head % c->n_kv_head != 0 || c->d_head % 2 != 0 || c->d_head == 0 || c->d_head > WEIR_HEAD_MAX ||
        c->n_head > HEADS_MAX)
        return weir_fail(why, WEIR_CORRUPT, "config.json: %u heads over %u key heads of %u don't fit",
                         c->n_head, c->n_kv_head, c->d_head);
    if ((uint64_t)c->n_context * c->d_head > ROPE_TABLE_MAX)
        return weir_fail_param(why, "max_position_embeddings", WEIR_CORRUPT,
                               "config.json: a context of %u is more than this build has tables for",
                               c->n_context);
    for (int i = 0; i < c->n_eos_ids; i++)
        if (c->eos_ids[i] < 0 || (uint32_t)c->eos_ids[i] >= c->n_vocab)
            return weir_fail_param(why, "eos_token_id", WEIR_CORRUPT,
                                   "the end token %d is not in the vocabulary", c->eos_ids[i]);
    return WEIR_OK;
}

typedef void read_fn(struct weir_json *j, struct weir_str key, void *into);

static weir_err parse(const char *name, const char *text, size_t len, read_fn *read, void *into,
                      struct weir_why *why)
{
    struct weir_arena arena;
    struct weir_json j;
    struct weir_str key;
    struct weir_why inner = { 0 };

    weir_arena_init(&arena, 4 * CONFIG_BYTES_MAX);
    weir_json_init(&j, text, len, &arena);
    if (weir_json_object(&j))
        while (weir_json_key(&j, &key))
            read(&j, key, into);
    weir_err err = weir_json_end(&j, &inner);
    if (err != WEIR_OK)
        err = weir_fail_param(why, inner.param, err == WEIR_INVALID ? WEIR_CORRUPT : err, "%s: %s", name,
                              inner.text);
    weir_arena_release(&arena);
    return err;
}

/* ---- generation_config.json: everything in it is optional, the file too ---- */
static void read_fraction(struct weir_json *j, double *ret, double max)
{
    if (weir_json_f64(j, ret) && !(*ret >= 0 && *ret <= max))
        weir_json_fail(j, WEIR_CORRUPT, "must be from 0 to %g", max);
}

static void read_generation(struct weir_json *j, struct weir_str key, void *into)
{
    struct model_config *c = into;
    int64_t top_k = 0;

    if (weir_json_peek(j) == WEIR_JSON_NULL)
        weir_json_null(j);
    else if (weir_str_eq(key, "eos_token_id"))
        read_eos(j, c);
    else if (weir_str_eq(key, "temperature"))
        read_fraction(j, &c->temperature, 100);
    else if (weir_str_eq(key, "top_p"))
        read_fraction(j, &c->top_p, 1);
    else if (weir_str_eq(key, "min_p"))
        read_fraction(j, &c->min_p, 1);
    else if (weir_str_eq(key, "top_k"))
        c->top_k = weir_json_i64(j, &top_k) && top_k > 0 && top_k <= INT32_MAX ? (int)top_k : 0;
    else
        weir_json_skip(j);
}

weir_err model_config_parse(struct weir_str config, struct weir_str generation, struct model_config *ret,
                            struct weir_why *why)
{
    struct model_config c = { .rope = { .beta_fast = NAN,
                                        .beta_slow = NAN,
                                        .low_freq_factor = NAN,
                                        .high_freq_factor = NAN,
                                        .truncate = true },
                              .temperature = NAN,
                              .top_p = NAN,
                              .min_p = NAN,
                              .top_k = -1 };
    struct reading r = { .c = &c,
                         .said = { .n_kv_head = SAID_NOTHING,
                                   .d_head = SAID_NOTHING,
                                   .window = SAID_NOTHING,
                                   .n_window_from = SAID_NOTHING,
                                   .n_layer_kinds = SAID_NOTHING,
                                   .sparse_step = 1,
                                   .rms_eps = NAN,
                                   .rope_theta = NAN,
                                   .rope_theta_inner = NAN,
                                   .rope_factor = NAN,
                                   .mscale = NAN,
                                   .mscale_all_dim = NAN,
                                   .attention_factor = NAN } };
    weir_err err = parse("config.json", config.ptr, config.len, read_member, &r, why);

    if (err == WEIR_OK && generation.len)
        err = parse("generation_config.json", generation.ptr, generation.len, read_generation, &c, why);
    if (err == WEIR_OK)
        err = family_apply(&r.said, &c, why);
    if (err == WEIR_OK)
        err = check_shapes(&c, why);
    if (err == WEIR_OK)
        *ret = c;
    return err;
}

weir_err model_config_load(const char *dir, struct model_config *ret, struct weir_why *why)
{
    char *config = NULL, *generation = NULL;
    size_t n_config = 0, n_generation = 0;
    weir_err err = model_read_file(dir, "config.json", CONFIG_BYTES_MAX, &config, &n_config, why);

    if (err != WEIR_OK)
        return err;
    err = model_read_file(dir, "generation_config.json", CONFIG_BYTES_MAX, &generation, &n_generation, why);
    if (err == WEIR_OK || err == WEIR_IO) /* there need not be one */
        err = model_config_parse((struct weir_str){ config, n_config },
                                 (struct weir_str){ generation, n_generation }, ret, why);
    weir_free(config);
    weir_free(generation);
    return err;
}
