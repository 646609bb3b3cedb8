/* test_graph.c - the model's logits against the same graph in float64, and models that do not fit their config.json. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "base/mem.h"
#include "kernels/ref.h"
#include "replica/model/model.h"
#include "tests/support/tiny_model.h"

enum { N_TOK = 40, N_PAGES = 8 };

/* ---- the graph in float64, written a second time and from the paper ---- */
static double *weights(const struct tiny_shape *s, const char *name, int i_layer, size_t n)
{
    char full[96];
    double *ret = calloc(n, sizeof *ret);

    if (i_layer < 0)
        snprintf(full, sizeof full, "%s.weight", name);
    else
        snprintf(full, sizeof full, "model.layers.%d.%s.weight", i_layer, name);
    for (size_t i = 0; i < n; i++)
        ret[i] = tiny_weight(s, full, i);
    return ret;
}

/* y [n_tok, n_out] = (or +=) x [n_tok, n_in] times the named matrix. */
static void project(double *y, const double *x, const struct tiny_shape *s, const char *name, int i_layer,
                    uint32_t n_in, uint32_t n_out, int add)
{
    double *w = weights(s, name, i_layer, (size_t)n_in * n_out);

    for (size_t t = 0; t < N_TOK; t++)
        weir_ref_linear(y + t * n_out, x + t * n_in, w, n_in, n_out, add);
    free(w);
}

static void normalise(double *y, const double *x, const struct tiny_shape *s, const char *name, int i_layer)
{
    double *w = weights(s, name, i_layer, s->d_model);

    for (size_t t = 0; t < N_TOK; t++)
        weir_ref_rmsnorm(y + t * s->d_model, x + t * s->d_model, w, s->d_model, 1e-5);
    free(w);
}

struct rope {
    double theta, factor, low, high, original; /* factor 0: not stretched */
};

/* Llama 3.1's rule: by wavelength, stretched, left alone, or blended. */
static double frequency(const struct rope *rope, uint32_t i, uint32_t d)
{
    double inv = pow(rope->theta, -2.0 * i / d), turns = rope->original * inv / (2 * M_PI);

    if (rope->factor == 0 || turns > rope->high)
        return inv;
    if (turns < rope->low)
        return inv / rope->factor;
    double smooth = (turns - rope->low) / (rope->high - rope->low);
    return (1 - smooth) * inv / rope->factor + smooth * inv;
}

static void rotate_all(double *x, uint32_t n_heads, uint32_t d, const struct rope *rope)
{
    double cosines[64], sines[64];

    for (uint32_t t = 0; t < N_TOK; t++) {
        for (uint32_t i = 0; i < d / 2; i++) {
            cosines[i] = cos(t * frequency(rope, i, d));
            sines[i] = sin(t * frequency(rope, i, d));
        }
        for (uint32_t h = 0; h < n_heads; h++)
            weir_ref_rope(x + ((size_t)t * n_heads + h) * d, cosines, sines, d);
    }
}

static void layer(double *x, const struct tiny_shape *s, int i, const struct rope *rope)
{
    uint32_t q_width = s->n_head * s->d_head, kv_width = s->n_kv_head * s->d_head;
    struct weir_attn_dims dims = { s->n_head, s->n_kv_head, s->d_head, /* window= */ 0 };
    double *normed = calloc((size_t)N_TOK * s->d_model, 8), *q = calloc((size_t)N_TOK * q_width, 8);
    double *k = calloc((size_t)N_TOK * kv_width, 8), *v = calloc((size_t)N_TOK * kv_width, 8);
    double *attended = calloc((size_t)N_TOK * q_width, 8), *gate = calloc((size_t)N_TOK * s->d_ffn, 8);
    double *up = calloc((size_t)N_TOK * s->d_ffn, 8), *both = calloc((size_t)2 * s->d_ffn, 8);

    normalise(normed, x, s, "input_layernorm", i);
    project(q, normed, s, "self_attn.q_proj", i, s->d_model, q_width, 0);
    project(k, normed, s, "self_attn.k_proj", i, s->d_model, kv_width, 0);
    project(v, normed, s, "self_attn.v_proj", i, s->d_model, kv_width, 0);
    rotate_all(q, s->n_head, s->d_head, rope);
    rotate_all(k, s->n_kv_head, s->d_head, rope);
    for (uint32_t t = 0; t < N_TOK; t++)
        weir_ref_attention(attended + (size_t)t * q_width, q + (size_t)t * q_width, k, v, t + 1, &dims,
                           1 / sqrt(s->d_head));
    project(x, attended, s, "self_attn.o_proj", i, q_width, s->d_model, 1);
    normalise(normed, x, s, "post_attention_layernorm", i);
    project(gate, normed, s, "mlp.gate_proj", i, s->d_model, s->d_ffn, 0);
    project(up, normed, s, "mlp.up_proj", i, s->d_model, s->d_ffn, 0);
    for (size_t t = 0; t < N_TOK; t++) {
        memcpy(both, gate + t * s->d_ffn, s->d_ffn * sizeof *both);
        memcpy(both + s->d_ffn, up + t * s->d_ffn, s->d_ffn * sizeof *both);
        weir_ref_silu_mul(gate + t * s->d_ffn, both, s->d_ffn);
    }
    project(x, gate, s, "mlp.down_proj", i, s->d_ffn, s->d_model, 1);
    double *const all[] = { normed, q, k, v, attended, gate, up, both };
    for (size_t n = 0; n < sizeof all / sizeof *all; n++)
        free(all[n]);
}

static double *reference_logits(const struct tiny_shape *s, const int32_t *ids, const struct rope *rope)
{
    double *x = calloc((size_t)N_TOK * s->d_model, 8), *logits = calloc((size_t)N_TOK * s->n_vocab, 8);
    double *embed = weights(s, "model.embed_tokens", -1, (size_t)s->n_vocab * s->d_model);

    for (size_t t = 0; t < N_TOK; t++)
        memcpy(x + t * s->d_model, embed + (size_t)ids[t] * s->d_model, s->d_model * sizeof *x);
    for (uint32_t i = 0; i < s->n_layer; i++)
        layer(x, s, (int)i, rope);
    normalise(x, x, s, "model.norm", -1);
    project(logits, x, s, s->tied ? "model.embed_tokens" : "lm_head", -1, s->d_model, s->n_vocab, 0);
    free(embed);
    free(x);
    return logits;
}

/* ---- the model ---- */
static weir_err open_model(const char *dir, struct weir_backend *be, struct model **ret, struct weir_why *why)
{
    struct model_config config;
    struct model_limits limits = { .n_tok_max = N_TOK, .n_logits_max = N_TOK, .n_blocks = N_PAGES };
    struct safetensors *weights = NULL;
    weir_err err = model_config_load(dir, &config, why);

    if (err == WEIR_OK)
        err = safetensors_open(dir, &weights, why);
    if (err == WEIR_OK)
        err = model_open(weights, &config, be, WEIR_NATIVE, &limits, ret, why);
    safetensors_close(weights);
    return err;
}

static const float *logits_of(struct model *m, const int32_t *rows, uint32_t n)
{
    const float *ret = NULL;
    struct weir_why why;

    if (model_logits(m, rows, n, &ret, &why) != WEIR_OK)
        fail_msg("%s", why.text);
    return ret;
}

static struct weir_backend *open_backend(uint32_t n_threads)
{
    struct weir_backend *be = NULL;
    struct weir_why why;

    assert_int_equal(weir_backend_cpu_open(
                         &(struct weir_backend_opts){ .n_threads = n_threads, .exact = true }, &be, &why),
                     WEIR_OK);
    return be;
}

static void compare(const struct tiny_shape *shape, const struct rope *rope)
{
    static const int32_t table[] = { 5, 2, 7 };
    char dir[TINY_DIR_MAX];
    struct weir_backend *be = open_backend(2);
    struct model *m = NULL;
    struct weir_why why = { 0 };
    int32_t ids[N_TOK], pos[N_TOK], seq[N_TOK] = { 0 };
    struct weir_batch batch = { N_TOK, ids, pos, seq, table, /* n_seq= */ 1, 3, NULL };

    tiny_model_write(dir, shape);
    if (open_model(dir, be, &m, &why) != WEIR_OK)
        fail_msg("%s", why.text);
    for (int32_t t = 0; t < N_TOK; t++) {
        ids[t] = (t * 37 + 11) % (int32_t)shape->n_vocab;
        pos[t] = t;
    }
    double *wanted = reference_logits(shape, ids, rope);
    assert_int_equal(model_forward(m, &batch, &why), WEIR_OK);
    assert_true(weir_ref_nmse(logits_of(m, pos, N_TOK), wanted, (uint64_t)N_TOK * shape->n_vocab) < 1e-9);
    /* One row, and rows out of order. */
    int32_t rows[] = { 39, 0, 20 };
    const float *logits = logits_of(m, rows, 3);
    for (size_t i = 0; i < 3; i++)
        assert_true(weir_ref_nmse(logits + i * shape->n_vocab, wanted + (size_t)rows[i] * shape->n_vocab,
                                  shape->n_vocab) < 1e-9);
    free(wanted);
    model_close(m);
    weir_backend_close(be);
    tiny_model_remove(dir);
}

static void test_logits_of_many_shapes(void **state)
{
    const struct rope plain = { .theta = 10000 };
    struct tiny_shape s = tiny_shape();

    (void)state;
    compare(&s, &plain);
    s.tied = true;
    s.dtype = "F16";
    compare(&s, &plain);
    s = (struct tiny_shape){ .n_layer = 3,
                             .n_head = 6,
                             .n_kv_head = 1,
                             .d_head = 10,
                             .d_model = 50,
                             .d_ffn = 33,
                             .n_vocab = 61,
                             .n_context = 100,
                             .dtype = "F32",
                             .seed = 9 };
    compare(&s, &plain);
    s.n_kv_head = 6;
    s.dtype = "BF16";
    compare(&s, &plain);
}

static void test_llama3_rope(void **state)
{
    const struct rope stretched = { .theta = 50, .factor = 4, .low = 1, .high = 4, .original = 32 };
    struct tiny_shape s = tiny_shape();
    int kinds[3] = { 0 };

    (void)state;
    s.d_head = 32;
    s.more =
        "\"rope_theta\":50,\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":4,\"low_freq_factor\":1,"
        "\"high_freq_factor\":4,\"original_max_position_embeddings\":32},";
    for (uint32_t i = 0; i < 16; i++) {
        double turns = stretched.original * pow(50, -2.0 * i / 32) / (2 * M_PI);
        kinds[turns > 4 ? 0 : turns < 1 ? 1 : 2]++;
    }
    assert_true(kinds[0] > 0 && kinds[1] > 0 && kinds[2] > 0); /* the case has all three */
    compare(&s, &stretched);
}

static void test_what_it_says_of_itself(void **state)
{
    char dir[TINY_DIR_MAX];
    struct tiny_shape s = tiny_shape();
    struct weir_backend *be = open_backend(1);
    struct model *m = NULL;
    struct weir_why why;
    uint64_t n_layer = 64 * 64 + 2 * 32 * 64 + 64 * 64 + 3 * 96 * 64 + 2 * 64,
             n = 2 * n_layer + 2 * 97 * 64 + 64;

    (void)state;
    tiny_model_write(dir, &s);
    assert_int_equal(open_model(dir, be, &m, &why), WEIR_OK);
    assert_int_equal(model_n_params(m), n);
    uint64_t matrices = 2 * (n - 5 * 64);
    assert_true(model_weight_bytes(m) >= matrices &&
                model_weight_bytes(m) < matrices + matrices / 20); /* padding */
    model_close(m);
    model_close(NULL);
    weir_backend_close(be);
    tiny_model_remove(dir);
}

static void refuse(const struct tiny_shape *written, const struct tiny_shape *claimed, weir_err wanted,
                   const char *reason)
{
    char dir[TINY_DIR_MAX], other[TINY_DIR_MAX], path[2][2 * TINY_DIR_MAX];
    struct weir_backend *be = open_backend(1);
    struct model *m = NULL;
    struct weir_why why = { 0 };

    tiny_model_write(dir, written);
    tiny_model_write(other, claimed);
    snprintf(path[0], sizeof path[0], "%s/config.json", other);
    snprintf(path[1], sizeof path[1], "%s/config.json", dir);
    assert_int_equal(rename(path[0], path[1]), 0);
    assert_int_equal(open_model(dir, be, &m, &why), wanted);
    assert_null(m);
    if (!strstr(why.text, reason))
        fail_msg("`%s` does not say `%s`", why.text, reason);
    weir_backend_close(be);
    tiny_model_remove(dir);
    tiny_model_remove(other);
}

static void test_weights_that_do_not_fit(void **state)
{
    struct tiny_shape good = tiny_shape(), s = good;

    (void)state;
    s.n_layer = 3;
    refuse(&good, &s, WEIR_CORRUPT, "`model.layers.2.input_layernorm.weight`");
    s = good;
    s.tied = true;
    refuse(&s, &good, WEIR_CORRUPT, "no tensor `lm_head.weight`");
    s = good;
    s.n_vocab = 98;
    refuse(&good, &s, WEIR_CORRUPT, "`model.embed_tokens.weight`: the shape is not the 98 x 64");
    s = good;
    s.n_kv_head = 4;
    refuse(&good, &s, WEIR_CORRUPT, "`model.layers.0.self_attn.k_proj.weight`: the shape is not the 64 x 64");
    s = good;
    s.d_ffn = 95;
    refuse(&good, &s, WEIR_CORRUPT, "`model.layers.0.mlp.gate_proj.weight`");
    s = good;
    s.d_model = 32;
    refuse(&good, &s, WEIR_CORRUPT, "`model.embed_tokens.weight`");
    s = good;
    s.more = "\"attention_bias\":true,";
    refuse(&good, &s, WEIR_CORRUPT, "no tensor `model.layers.0.self_attn.q_proj.bias`");
}

static void test_no_memory(void **state)
{
    char dir[TINY_DIR_MAX];
    struct tiny_shape s = tiny_shape();
    struct weir_backend *be = open_backend(1);
    struct model *m = NULL;
    struct safetensors *weights = NULL;
    struct model_config config;
    struct model_limits limits = { .n_tok_max = 16, .n_logits_max = 2, .n_blocks = 2 };
    struct weir_why why;
    weir_err err = WEIR_NOMEM;

    (void)state;
    s.n_layer = 1;
    tiny_model_write(dir, &s);
    assert_int_equal(model_config_load(dir, &config, &why), WEIR_OK);
    assert_int_equal(safetensors_open(dir, &weights, &why), WEIR_OK);
    for (long n = 0; err != WEIR_OK; n++) {
        weir_test_alloc_budget(n);
        err = model_open(weights, &config, be, WEIR_NATIVE, &limits, &m, &why);
        weir_test_alloc_budget(-1);
        assert_true(err == WEIR_OK ? m != NULL : m == NULL);
    }
    safetensors_close(weights);
    model_close(m);
    weir_backend_close(be);
    tiny_model_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logits_of_many_shapes),
        cmocka_unit_test(test_llama3_rope),
        cmocka_unit_test(test_what_it_says_of_itself),
        cmocka_unit_test(test_weights_that_do_not_fit),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
