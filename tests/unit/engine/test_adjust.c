/* test_adjust.c - what a request asks for, done to logits: each change alone, in order, and none when none is asked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "replica/engine/adjust.h"

enum { N = 40 };

static struct adjust adjust;
static const int32_t ends[1] = { 3 };
static float logits[N];

static int setup(void **state)
{
    (void)state;
    for (int i = 0; i < N; i++)
        logits[i] = i % 2 ? 1.0f : -1.0f;
    return adjust_init(&adjust, N, NULL) == WEIR_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    adjust_release(&adjust);
    return 0;
}

static const float *run(const struct weir_session_params *p, const int32_t *tokens, uint32_t n,
                        uint32_t n_out, const struct weir_constraint *c)
{
    const struct adjust_context ctx = { p, tokens, n, n_out, ends, 1, c };
    return adjust_logits(&adjust, logits, &ctx);
}

static void test_nothing_asked_is_no_copy(void **state)
{
    struct weir_session_params p = { .repetition_penalty = 1 };

    (void)state;
    assert_ptr_equal(run(&p, ends, 1, 0, NULL), logits);
}

static void test_bias(void **state)
{
    const struct weir_logit_bias bias[2] = { { 5, 2.5f }, { 6, -100 } };
    struct weir_session_params p = { .logit_bias = bias, .n_logit_bias = 2 };
    const float *out = run(&p, ends, 1, 0, NULL);

    (void)state;
    assert_true(out[5] == 3.5f && out[6] == -101.0f && out[7] == 1.0f);
    assert_true(logits[5] == 1.0f); /* the model's own stay */
}

/* Twice in the prompt or once in the output: a token is divided (or multiplied) once. */
static void test_repetition_counts_prompt_and_output_once(void **state)
{
    const int32_t tokens[4] = { 5, 5, 6, 9 };
    struct weir_session_params p = { .repetition_penalty = 2 };
    const float *out = run(&p, tokens, 4, 1, NULL);

    (void)state;
    assert_true(out[5] == 0.5f && out[6] == -2.0f && out[9] == 0.5f && out[7] == 1.0f);
}

static void test_frequency_and_presence_count_output_alone(void **state)
{
    const int32_t tokens[5] = { 5, 7, 7, 7, 9 };
    struct weir_session_params p = { .frequency_penalty = 0.5, .presence_penalty = 0.25 };
    const float *out = run(&p, tokens, 5, 3, NULL);

    (void)state;
    assert_true(out[5] == 1.0f);          /* in the prompt */
    assert_true(out[7] == 1 - 1 - 0.25f); /* twice in the output */
    assert_true(out[9] == 1 - 0.5f - 0.25f);
    out = run(&p, tokens, 5, 3, NULL); /* again: nothing is left over from the turn before */
    assert_true(out[7] == 1 - 1 - 0.25f);
}

static void test_no_end_before_the_minimum(void **state)
{
    struct weir_session_params p = { .min_tokens = 2 };

    (void)state;
    assert_true(run(&p, ends, 1, 1, NULL)[3] == -INFINITY);
    assert_ptr_equal(run(&p, ends, 1, 2, NULL), logits);
}

static void mask_odd(void *state, uint32_t *bits, uint32_t n_vocab)
{
    (void)state;
    memset(bits, 0xaa, (n_vocab + 31) / 32 * sizeof *bits);
}

static void test_a_ban_outlives_any_bias(void **state) /* [J2] */
{
    const struct weir_constraint_ops ops = { .mask = mask_odd };
    const struct weir_constraint c = { &ops, NULL };
    const struct weir_logit_bias bias[1] = { { 4, 100 } };
    struct weir_session_params p = { .logit_bias = bias, .n_logit_bias = 1, .min_tokens = 9 };
    const float *out = run(&p, ends, 1, 0, &c);

    (void)state;
    for (int i = 0; i < N; i++)
        assert_true(i % 2 ? out[i] == 1.0f : out[i] == -INFINITY);
    assert_true(out[3] == 1.0f); /* what is bound may end when it is whole, whatever the minimum */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_nothing_asked_is_no_copy, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bias, setup, teardown),
        cmocka_unit_test_setup_teardown(test_repetition_counts_prompt_and_output_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_frequency_and_presence_count_output_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_end_before_the_minimum, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_ban_outlives_any_bias, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
