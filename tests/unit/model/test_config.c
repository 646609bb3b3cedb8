/* test_config.c - what config.json and generation_config.json mean, and which are refused, and why. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "replica/model/config.h"
#include "tests/support/tiny_model.h"

#define SIZES                                                                                                \
    "\"num_hidden_layers\":2,\"num_attention_heads\":4,\"num_key_value_heads\":2,\"hidden_size\":64,"        \
    "\"intermediate_size\":96,\"vocab_size\":97,\"max_position_embeddings\":256"
#define LLAMA "\"architectures\":[\"LlamaForCausalLM\"],"

static char dir[TINY_DIR_MAX];

static int open_dir(void **state)
{
    struct tiny_shape shape = tiny_shape();

    (void)state;
    tiny_model_write(dir, &shape);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    tiny_model_remove(dir);
    return 0;
}

static weir_err load(const char *config, const char *generation, struct model_config *ret,
                     struct weir_why *why)
{
    *why = (struct weir_why){ 0 };
    tiny_file_write(dir, "config.json", config, strlen(config));
    if (generation)
        tiny_file_write(dir, "generation_config.json", generation, strlen(generation));
    return model_config_load(dir, ret, why);
}

static void test_everything_that_is_read(void **state)
{
    struct model_config c;
    struct weir_why why;

    (void)state;
    assert_int_equal(load("{" LLAMA SIZES ",\"head_dim\":24,\"rms_norm_eps\":1e-6,\"rope_theta\":500000.0,"
                          "\"tie_word_embeddings\":true,\"eos_token_id\":[3,5],\"unknown\":{\"a\":[1,{}]},"
                          "\"attention_bias\":false,\"rope_scaling\":null,\"hidden_act\":\"silu\"}",
                          "{\"temperature\":0.6,\"top_p\":0.9,\"top_k\":40,\"min_p\":0.05,\"eos_token_id\":7,"
                          "\"do_sample\":true}",
                          &c, &why),
                     WEIR_OK);
    assert_string_equal(c.architecture, "LlamaForCausalLM");
    assert_int_equal(c.n_layer, 2);
    assert_int_equal(c.n_head, 4);
    assert_int_equal(c.n_kv_head, 2);
    assert_int_equal(c.d_head, 24);
    assert_int_equal(c.d_model, 64);
    assert_int_equal(c.d_ffn, 96);
    assert_int_equal(c.n_vocab, 97);
    assert_int_equal(c.n_context, 256);
    assert_true(c.rms_eps == 1e-6f && c.rope.theta == 500000.0 && c.tied &&
                c.rope.kind == MODEL_ROPE_DEFAULT);
    assert_int_equal(c.n_eos_ids, 1); /* generation_config.json's count */
    assert_int_equal(c.eos_ids[0], 7);
    assert_true(c.temperature == 0.6 && c.top_p == 0.9 && c.min_p == 0.05 && c.top_k == 40);
}

static void test_defaults(void **state)
{
    struct model_config c;
    struct weir_why why;

    (void)state;
    assert_int_equal(load("{" LLAMA "\"num_hidden_layers\":2,\"num_attention_heads\":4,\"hidden_size\":64,"
                          "\"intermediate_size\":96,\"vocab_size\":97,\"max_position_embeddings\":256,"
                          "\"num_key_value_heads\":null,\"eos_token_id\":[3,5]}",
                          "{}", &c, &why),
                     WEIR_OK);
    assert_int_equal(c.n_kv_head, 4); /* as many as there are heads */
    assert_int_equal(c.d_head, 16);   /* hidden_size over heads */
    assert_int_equal(c.n_eos_ids, 2);
    assert_int_equal(c.eos_ids[1], 5);
    assert_true(!c.tied && c.rope.theta == 10000.0);
    assert_true(isnan(c.temperature) && isnan(c.top_p) && isnan(c.min_p) && c.top_k == -1);
}

#define FAMILY(name) "{\"architectures\":[\"" name "\"]," SIZES

static struct model_config load_good(const char *config)
{
    struct model_config c;
    struct weir_why why;

    if (load(config, "{}", &c, &why) != WEIR_OK)
        fail_msg("`%s`: %s", config, why.text);
    return c;
}

/* "s" for each layer that slides, "f" for each that sees everything; "S", "F" when it has experts. */
static const char *layers_of(const struct model_config *c)
{
    static char text[16];

    for (uint32_t i = 0; i < c->n_layer; i++) {
        char kind = c->layers[i] & MODEL_LAYER_SLIDES ? 's' : 'f';
        text[i] = c->layers[i] & MODEL_LAYER_SPARSE ? (char)(kind - 'a' + 'A') : kind;
        text[i + 1] = '\0';
    }
    return text;
}

static void test_windows(void **state)
{
    static const struct {
        const char *config, *layers;
        uint32_t window;
    } cases[] = {
        { FAMILY("LlamaForCausalLM") ",\"sliding_window\":32}", "ff", 0 }, /* a Llama has none */
        { FAMILY("MistralForCausalLM") "}", "ss", 4096 },
        { FAMILY("MistralForCausalLM") ",\"sliding_window\":32}", "ss", 32 },
        { FAMILY("MistralForCausalLM") ",\"sliding_window\":null}", "ff", 0 },
        { FAMILY("MistralForCausalLM") ",\"sliding_window\":32,\"layer_types\":[\"full_attention\","
                                       "\"sliding_attention\"]}",
          "fs", 32 },
        { FAMILY("Qwen2ForCausalLM") ",\"sliding_window\":32}", "ff", 0 },
        { FAMILY("Qwen2ForCausalLM") ",\"sliding_window\":32,\"use_sliding_window\":true}", "ff", 32 },
        { FAMILY("Qwen2ForCausalLM") ",\"sliding_window\":32,\"use_sliding_window\":true,"
                                     "\"max_window_layers\":1}",
          "fs", 32 },
        { FAMILY("Qwen3ForCausalLM") ",\"use_sliding_window\":true,\"max_window_layers\":0}", "ss", 4096 },
        { FAMILY("MixtralForCausalLM") ",\"num_local_experts\":4,\"num_experts_per_tok\":2}", "FF", 0 },
        { FAMILY("MixtralForCausalLM") ",\"num_local_experts\":4,\"num_experts_per_tok\":2,"
                                       "\"sliding_window\":8}",
          "SS", 8 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct model_config c = load_good(cases[i].config);
        assert_string_equal(layers_of(&c), cases[i].layers);
        assert_int_equal(c.window, cases[i].window);
    }
}

static void test_what_families_add(void **state)
{
    struct model_config c;

    (void)state;
    c = load_good(FAMILY("LlamaForCausalLM") ",\"attention_bias\":true}");
    assert_true(c.qkv_bias && c.out_bias && !c.family->qk_norm);
    c = load_good(FAMILY("Qwen2ForCausalLM") "}");
    assert_true(c.qkv_bias && !c.out_bias && c.rms_eps == 1e-6f);
    c = load_good(FAMILY("Qwen3ForCausalLM") "}");
    assert_true(!c.qkv_bias && c.family->qk_norm);
    assert_int_equal(c.d_head, 128); /* not hidden_size over heads */
    c = load_good(FAMILY("MixtralForCausalLM") ",\"num_local_experts\":8,\"num_experts_per_tok\":2}");
    assert_true(c.renormalize && c.rope.theta == 1e6 && c.rms_eps == 1e-5f);
    assert_int_equal(c.d_expert, 96);
    assert_int_equal(c.n_expert, 8);
    c = load_good("{\"architectures\":[\"Qwen3MoeForCausalLM\"],\"num_hidden_layers\":6,"
                  "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"hidden_size\":64,"
                  "\"intermediate_size\":96,\"vocab_size\":97,\"max_position_embeddings\":256,"
                  "\"num_experts\":8,\"num_experts_per_tok\":3,\"moe_intermediate_size\":40,"
                  "\"decoder_sparse_step\":2,\"mlp_only_layers\":[3]}");
    assert_string_equal(layers_of(&c), "fFfffF");
    assert_true(c.family->qk_norm && !c.renormalize);
    assert_int_equal(c.d_expert, 40);
}

static void test_ropes(void **state)
{
    struct model_config c;

    (void)state;
    c = load_good("{" LLAMA SIZES ",\"rope_theta\":7,\"rope_scaling\":{\"type\":\"linear\",\"factor\":4}}");
    assert_true(c.rope.kind == MODEL_ROPE_LINEAR && c.rope.factor == 4 && c.rope.theta == 7);
    c = load_good("{" LLAMA SIZES ",\"rope_theta\":7,\"rope_parameters\":{\"rope_type\":\"default\","
                  "\"rope_theta\":9}}");
    assert_true(c.rope.kind == MODEL_ROPE_DEFAULT && c.rope.theta == 9); /* the newer place wins */
    c = load_good("{" LLAMA SIZES ",\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4,"
                  "\"original_max_position_embeddings\":64}}");
    assert_true(c.rope.kind == MODEL_ROPE_YARN && c.rope.beta_fast == 32 && c.rope.beta_slow == 1);
    assert_true(fabs(c.rope.attention_factor - (0.1 * log(4) + 1)) < 1e-12);
    assert_int_equal(c.rope.original_context, 64);
    c = load_good("{" LLAMA SIZES ",\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4,"
                  "\"attention_factor\":1.5,\"truncate\":false}}");
    assert_true(c.rope.attention_factor == 1.5 && !c.rope.truncate);
    assert_int_equal(c.rope.original_context, 256); /* max_position_embeddings */
}

/* [F1] */
static void test_refused_with_the_reason(void **state)
{
    static const struct {
        const char *config;
        weir_err err;
        const char *reason;
    } cases[] = {
        { "", WEIR_CORRUPT, "config.json" },
        { "{" LLAMA SIZES, WEIR_CORRUPT, "config.json" },
        { "[1]", WEIR_CORRUPT, "config.json" },
        { "{" SIZES "}", WEIR_UNIMPLEMENTED, "architecture" },
        { "{\"architectures\":[\"GPT2LMHeadModel\"]," SIZES "}", WEIR_UNIMPLEMENTED, "GPT2LMHeadModel" },
        { "{" LLAMA "\"num_hidden_layers\":2}", WEIR_CORRUPT, "missing" },
        { "{" LLAMA SIZES ",\"num_hidden_layers\":0}", WEIR_CORRUPT, "0 is not a size" },
        { "{" LLAMA SIZES ",\"num_hidden_layers\":4000000}", WEIR_CORRUPT, "4000000 layers are more" },
        { "{" LLAMA SIZES ",\"vocab_size\":-5}", WEIR_CORRUPT, "-5 is not a size" },
        { "{" LLAMA SIZES ",\"hidden_size\":99999999999}", WEIR_CORRUPT, "99999999999 is not a size" },
        { "{" LLAMA SIZES ",\"hidden_size\":\"64\"}", WEIR_CORRUPT, "hidden_size" },
        { "{" LLAMA SIZES ",\"num_key_value_heads\":3}", WEIR_CORRUPT, "3 key heads" },
        { "{" LLAMA SIZES ",\"head_dim\":15}", WEIR_CORRUPT, "heads of 15" },
        { "{" LLAMA SIZES ",\"head_dim\":4096}", WEIR_CORRUPT, "heads of 4096" },
        { "{" LLAMA SIZES ",\"rms_norm_eps\":0}", WEIR_CORRUPT, "rms_norm_eps" },
        { "{" LLAMA SIZES ",\"rope_theta\":-1}", WEIR_CORRUPT, "rope_theta" },
        { "{" LLAMA SIZES ",\"hidden_act\":\"gelu\"}", WEIR_UNIMPLEMENTED, "gelu" },
        { "{" LLAMA SIZES ",\"mlp_bias\":true}", WEIR_UNIMPLEMENTED, "bias" },
        { "{" LLAMA SIZES ",\"quantization_config\":{\"bits\":4}}", WEIR_UNIMPLEMENTED,
          "quantization_config" },
        { "{" LLAMA SIZES ",\"partial_rotary_factor\":0.5}", WEIR_UNIMPLEMENTED, "partial_rotary_factor" },
        { "{" LLAMA SIZES ",\"layer_types\":[\"full_attention\"]}", WEIR_CORRUPT, "1 layers of 2" },
        { "{" LLAMA SIZES ",\"layer_types\":[\"full_attention\",\"chunked_attention\"]}", WEIR_UNIMPLEMENTED,
          "chunked_attention" },
        { "{" LLAMA SIZES ",\"layer_types\":[\"full_attention\",\"sliding_attention\"]}", WEIR_CORRUPT,
          "layer 1 slides" },
        { FAMILY("MixtralForCausalLM") "}", WEIR_CORRUPT, "experts is missing" },
        { FAMILY("MixtralForCausalLM") ",\"num_local_experts\":4,\"num_experts_per_tok\":5}", WEIR_CORRUPT,
          "5 of 4 experts" },
        { FAMILY("MixtralForCausalLM") ",\"num_local_experts\":257,\"num_experts_per_tok\":2}", WEIR_CORRUPT,
          "2 of 257 experts" },
        { "{" LLAMA SIZES ",\"rope_scaling\":{\"full_attention\":{\"rope_type\":\"default\"}}}",
          WEIR_UNIMPLEMENTED, "each kind of layer" },
        { "{" LLAMA SIZES ",\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":-1}}", WEIR_CORRUPT, "yarn" },
        { "{" LLAMA SIZES ",\"rope_scaling\":{\"rope_type\":\"longrope\",\"factor\":4}}", WEIR_UNIMPLEMENTED,
          "longrope" },
        { "{" LLAMA SIZES ",\"eos_token_id\":97}", WEIR_CORRUPT, "end token 97" },
        { "{" LLAMA SIZES ",\"eos_token_id\":4294967297}", WEIR_CORRUPT, "end token 4294967297" },
        { "{" LLAMA SIZES ",\"eos_token_id\":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]}", WEIR_CORRUPT,
          "end tokens" },
        { "{" LLAMA SIZES ",\"rope_scaling\":{\"rope_type\":\"dynamic\",\"factor\":4}}", WEIR_UNIMPLEMENTED,
          "dynamic" },
        { "{" LLAMA SIZES ",\"rope_scaling\":{\"type\":\"linear\"}}", WEIR_CORRUPT, "the factor" },
        { "{" LLAMA SIZES ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8}}", WEIR_CORRUPT,
          "rope_scaling" },
        { "{" LLAMA SIZES ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,"
          "\"high_freq_factor\":4,\"original_max_position_embeddings\":64}}",
          WEIR_CORRUPT, "rope_scaling" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct model_config c = { .n_layer = 77 };
        struct weir_why why;
        assert_int_equal(load(cases[i].config, "{}", &c, &why), cases[i].err);
        if (!strstr(why.text, cases[i].reason))
            fail_msg("`%s`: `%s` does not say `%s`", cases[i].config, why.text, cases[i].reason);
        assert_int_equal(c.n_layer, 77); /* written on success only */
    }
}

static void test_generation_config_is_checked(void **state)
{
    static const char *const bad[] = { "{\"temperature\":-1}", "{\"top_p\":1.5}", "{\"min_p\":-0.1}", "{",
                                       "{\"eos_token_id\":1000}" };
    struct model_config c;
    struct weir_why why;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(load("{" LLAMA SIZES "}", bad[i], &c, &why), WEIR_CORRUPT);
        assert_true(why.text[0] != '\0');
    }
    assert_int_equal(load("{" LLAMA SIZES "}", "{\"temperature\":null,\"top_k\":0}", &c, &why), WEIR_OK);
    assert_true(isnan(c.temperature) && c.top_k == 0);
}

static void test_no_folder(void **state)
{
    struct model_config c;
    struct weir_why why = { 0 };

    (void)state;
    assert_int_equal(model_config_load("/nowhere/at/all", &c, &why), WEIR_IO);
    assert_non_null(strstr(why.text, "/nowhere/at/all/config.json"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_everything_that_is_read, open_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_defaults, open_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_windows, open_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_what_families_add, open_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_ropes, open_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_refused_with_the_reason, open_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_generation_config_is_checked, open_dir, remove_dir),
        cmocka_unit_test(test_no_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
