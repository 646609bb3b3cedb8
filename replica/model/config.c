/* config.c - see config.h. Members that we don't read are skipped: model makers add new ones every month. Members that would
 * change the arithmetic and that we don't implement are refused, never ignored. */
#include "replica/model/config.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "kernels/kernels.h"

#define CONFIG_BYTES_MAX (1u << 20)
#define ROPE_TABLE_MAX (1ull << 28) /* positions x head: 1 GiB of cosines and sines, made at opening */
#define SHAPE_MAX (1u << 22)        /* of one dimension: anything larger is a damaged file */

/* The families by table: what config.json calls them. A row more is a family more, once the graph can do it. */
static const char *const families[] = { "LlamaForCausalLM" };

weir_err model_read_file(const char *dir, const char *name, size_t max, char **ret, size_t *ret_len,
                         struct weir_why *why)
{
    char path[1280];
    weir_err err = WEIR_OK;

    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *file = fopen(path, "rb");
    if (!file)
        return weir_fail(why, WEIR_IO, "%s: %s", path, strerror(errno));
    char *text = weir_alloc(max + 1);
    if (!text) {
        fclose(file);
        return weir_fail(why, WEIR_NOMEM, "%s: no memory to read it", path);
    }
    size_t len = fread(text, 1, max + 1, file);
    if (ferror(file))
        err = weir_fail(why, WEIR_IO, "%s: %s", path, strerror(errno));
    else if (len > max)
        err = weir_fail(why, WEIR_CORRUPT, "%s: larger than %zu bytes", path, max);
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

static void read_rope_scaling(struct weir_json *j, struct model_config *c)
{
    struct weir_str key, type = { "", 0 };

    if (is_null(j))
        return;
    weir_json_object(j);
    while (weir_json_key(j, &key)) {
        if (weir_str_eq(key, "rope_type") || weir_str_eq(key, "type"))
            weir_json_string(j, &type);
        else if (weir_str_eq(key, "factor"))
            weir_json_f64(j, &c->rope.factor);
        else if (weir_str_eq(key, "low_freq_factor"))
            weir_json_f64(j, &c->rope.low_freq_factor);
        else if (weir_str_eq(key, "high_freq_factor"))
            weir_json_f64(j, &c->rope.high_freq_factor);
        else if (weir_str_eq(key, "original_max_position_embeddings"))
            read_u32(j, &c->rope.original_context);
        else if (weir_str_eq(key, "rope_theta"))
            weir_json_f64(j, &c->rope_theta);
        else
            weir_json_skip(j);
    }
    c->rope.llama3 = weir_str_eq(type, "llama3");
    if (weir_json_ok(j) && type.len && !c->rope.llama3 && !weir_str_eq(type, "default"))
        weir_json_fail_key(j, "rope_type", WEIR_UNIMPLEMENTED, "the rope type `%.*s` is not supported",
                           WEIR_STR_FMT(type));
}

static void refuse_if_true(struct weir_json *j, const char *what)
{
    bool on = false;

    if (!is_null(j) && weir_json_bool(j, &on) && on)
        weir_json_fail(j, WEIR_UNIMPLEMENTED, "%s is not supported", what);
}

static void read_activation(struct weir_json *j)
{
    struct weir_str name;

    if (weir_json_string(j, &name) && !weir_str_eq(name, "silu"))
        weir_json_fail(j, WEIR_UNIMPLEMENTED, "the activation `%.*s` is not supported", WEIR_STR_FMT(name));
}

static void read_member(struct weir_json *j, struct weir_str key, struct model_config *c)
{
    static const struct {
        const char *name;
        size_t offset;
    } sizes[] = {
        { "num_hidden_layers", offsetof(struct model_config, n_layer) },
        { "num_attention_heads", offsetof(struct model_config, n_head) },
        { "num_key_value_heads", offsetof(struct model_config, n_kv_head) },
        { "head_dim", offsetof(struct model_config, d_head) },
        { "hidden_size", offsetof(struct model_config, d_model) },
        { "intermediate_size", offsetof(struct model_config, d_ffn) },
        { "vocab_size", offsetof(struct model_config, n_vocab) },
        { "max_position_embeddings", offsetof(struct model_config, n_context) },
    };
    double eps = 0;

    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (weir_str_eq(key, sizes[i].name)) {
            read_u32(j, (uint32_t *)(void *)((char *)c + sizes[i].offset));
            return;
        }
    if (weir_str_eq(key, "architectures"))
        read_architectures(j, c);
    else if (weir_str_eq(key, "rms_norm_eps"))
        c->rms_eps = weir_json_f64(j, &eps) ? (float)eps : 0;
    else if (weir_str_eq(key, "rope_theta"))
        weir_json_f64(j, &c->rope_theta);
    else if (weir_str_eq(key, "rope_scaling") || weir_str_eq(key, "rope_parameters"))
        read_rope_scaling(j, c);
    else if (weir_str_eq(key, "tie_word_embeddings"))
        weir_json_bool(j, &c->tied);
    else if (weir_str_eq(key, "eos_token_id"))
        read_eos(j, c);
    else if (weir_str_eq(key, "hidden_act"))
        read_activation(j);
    else if (weir_str_eq(key, "attention_bias") || weir_str_eq(key, "mlp_bias"))
        refuse_if_true(j, "a bias");
    else
        weir_json_skip(j);
}

static weir_err check_shapes(struct model_config *c, struct weir_why *why)
{
    bool known = false;

    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        known = known || strcmp(c->architecture, families[i]) == 0;
    if (!known)
        return weir_fail_param(why, "architectures", WEIR_UNIMPLEMENTED,
                               "config.json: the architecture `%s` is not supported", c->architecture);
    if (!c->n_layer || !c->n_head || !c->d_model || !c->d_ffn || !c->n_vocab || !c->n_context)
        return weir_fail(why, WEIR_CORRUPT, "config.json: a size is missing");
    if (!c->n_kv_head)
        c->n_kv_head = c->n_head;
    if (!c->d_head)
        c->d_head = c->d_model / c->n_head;
    if (c->n_head % c->n_kv_head != 0 || c->d_head % 2 != 0 || c->d_head == 0 || c->d_head > WEIR_HEAD_MAX ||
        c->n_head > 4096)
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

/* Numbers that the arithmetic divides by. */
static weir_err check_numbers(const struct model_config *c, struct weir_why *why)
{
    if (!(c->rms_eps > 0))
        return weir_fail_param(why, "rms_norm_eps", WEIR_CORRUPT,
                               "config.json: rms_norm_eps must be above 0");
    if (!(c->rope_theta > 0))
        return weir_fail_param(why, "rope_theta", WEIR_CORRUPT, "config.json: rope_theta must be above 0");
    if (c->rope.llama3 &&
        !(c->rope.factor > 0 && c->rope.low_freq_factor > 0 &&
          c->rope.high_freq_factor > c->rope.low_freq_factor && c->rope.original_context > 0))
        return weir_fail_param(why, "rope_scaling", WEIR_CORRUPT,
                               "config.json: rope_scaling: a llama3 factor is missing or out of order");
    return WEIR_OK;
}

typedef void read_fn(struct weir_json *j, struct weir_str key, struct model_config *c);

static weir_err parse(const char *name, const char *text, size_t len, read_fn *read, struct model_config *c,
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
            read(&j, key, c);
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

static void read_generation(struct weir_json *j, struct weir_str key, struct model_config *c)
{
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

weir_err model_config_load(const char *dir, struct model_config *ret, struct weir_why *why)
{
    struct model_config c = {
        .rms_eps = 1e-6f, .rope_theta = 10000, .temperature = NAN, .top_p = NAN, .min_p = NAN, .top_k = -1
    };
    char *text = NULL;
    size_t len = 0;
    weir_err err = model_read_file(dir, "config.json", CONFIG_BYTES_MAX, &text, &len, why);

    if (err != WEIR_OK)
        return err;
    err = parse("config.json", text, len, read_member, &c, why);
    weir_free(text);
    if (err == WEIR_OK &&
        model_read_file(dir, "generation_config.json", CONFIG_BYTES_MAX, &text, &len, NULL) == WEIR_OK) {
        err = parse("generation_config.json", text, len, read_generation, &c, why);
        weir_free(text);
    }
    if (err == WEIR_OK)
        err = check_shapes(&c, why);
    if (err == WEIR_OK)
        err = check_numbers(&c, why);
    if (err == WEIR_OK)
        *ret = c;
    return err;
}
