/* test_bound.c - sessions that are bound by something, and what is told of their prompts: constraints, bounds of the
 * cache, log-probabilities of the prompt. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "tests/unit/engine/run.h"

enum { N_VOCAB = 97 };

static char dir[TINY_DIR_MAX];

static int make_model(void **state)
{
    struct tiny_shape shape = tiny_shape();

    (void)state;
    tiny_model_write(dir, &shape);
    return 0;
}

static int remove_model(void **state)
{
    (void)state;
    tiny_model_remove(dir);
    return 0;
}

/* ---- the prompt's log-probabilities ---- */
/* What a token of the prompt is given is, to the bit, what the same token got when it was generated: with the cache
 * warm, and whatever the chunks. */
static void test_prompt_logprobs_are_those_of_generation(void **state)
{
    struct weir_engine *eng = run_open(dir, &(struct weir_engine_opts){ .step_tokens = 16 });
    struct run_request made, told;

    (void)state;
    run_request_init(&made, 3, N_VOCAB, 40, 21);
    run_one(eng, &made);
    run_request_init(&told, 3, N_VOCAB, 40, 2);
    memcpy(told.prompt + 40, made.choices[0].ids, 20 * sizeof *told.prompt);
    told.params.n_prompt = 60;
    told.params.n_prompt_logprobs = 20;
    run_one(eng, &told);
    assert_int_equal(told.cached_tokens,
                     32); /* the whole pages before the token before the first that is told */
    assert_int_equal(told.n_told, 20);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(told.told_ids[i], made.choices[0].ids[i]);
        assert_memory_equal(&told.told[i], &made.choices[0].logprobs[i], sizeof(float));
    }
    assert_int_equal(told.choices[0].ids[0], made.choices[0].ids[20]);
    run_idle(eng);
    weir_engine_close(eng);
}

static void test_the_first_token_has_none(void **state)
{
    struct weir_engine *eng = run_open(dir, &(struct weir_engine_opts){ 0 });
    struct run_request r;

    (void)state;
    for (uint32_t n = 1; n <= 33; n += 16) {
        run_request_init(&r, n, N_VOCAB, n, 1);
        r.params.n_prompt_logprobs = 1000;
        r.params.n_choices = 2;
        run_one(eng, &r);
        assert_int_equal(r.n_told, n);
        assert_true(isnan(r.told[0]));
        for (uint32_t i = 1; i < n; i++)
            assert_true(r.told[i] < 0 && r.told_ids[i] == r.prompt[i]);
    }
    run_idle(eng);
    weir_engine_close(eng);
}

/* ---- the cache ---- */
static uint32_t cached(struct weir_engine *eng, bool has_max, uint32_t max)
{
    struct run_request r;

    run_request_init(&r, 9, N_VOCAB, 100, 1);
    r.params.has_cache_max = has_max;
    r.params.cache_max = max;
    run_one(eng, &r);
    return r.cached_tokens;
}

static void test_bound_of_the_cache(void **state)
{
    struct weir_engine *eng = run_open(dir, &(struct weir_engine_opts){ 0 });

    (void)state;
    assert_int_equal(cached(eng, true, 0), 0);
    assert_int_equal(cached(eng, false, 0), 0); /* the one before left nothing */
    assert_int_equal(cached(eng, false, 0), 96);
    assert_int_equal(cached(eng, true, 40), 32);
    assert_int_equal(cached(eng, true, 0), 0);
    assert_int_equal(cached(eng, true, 5000), 96);
    run_idle(eng);
    weir_engine_close(eng);
}

/* ---- constraints ---- */
struct bound {
    int n_accepted, n_closed, n_max; /* after n_max tokens nothing may come */
    int32_t step;                    /* multiples of it may come */
};

static void mask(void *state, uint32_t *bits, uint32_t n_vocab)
{
    struct bound *b = state;

    memset(bits, 0, (n_vocab + 31) / 32 * sizeof *bits);
    for (uint32_t id = 0; id < n_vocab && b->n_accepted < b->n_max; id += (uint32_t)b->step)
        bits[id / 32] |= 1u << id % 32;
}

static bool accept(void *state, int32_t id)
{
    struct bound *b = state;

    b->n_accepted++;
    return id % b->step == 0;
}

static void close_bound(void *state)
{
    ((struct bound *)state)->n_closed++;
}

static void test_each_choice_keeps_its_constraint(void **state)
{
    static const struct weir_constraint_ops ops = { mask, accept, close_bound };
    struct weir_engine *eng = run_open(dir, &(struct weir_engine_opts){ 0 });
    struct bound bounds[2] = { { .step = 7, .n_max = 100 }, { .step = 5, .n_max = 6 } };
    const struct weir_constraint list[2] = { { &ops, &bounds[0] }, { &ops, &bounds[1] } };
    struct run_request r;

    (void)state;
    run_request_init(&r, 4, N_VOCAB, 20, 12);
    r.params.n_choices = 2;
    r.params.temperature = 1.5;
    r.params.constraints = list;
    run_one(eng, &r);
    assert_int_equal(r.choices[0].n, 12);
    assert_int_equal(r.choices[0].finish, WEIR_FINISH_LENGTH);
    assert_int_equal(r.choices[1].n, 6);
    assert_int_equal(r.choices[1].finish, WEIR_FINISH_STOP); /* nothing may come: it is whole */
    for (int c = 0; c < 2; c++) {
        for (int i = 0; i < r.choices[c].n; i++)
            assert_int_equal(r.choices[c].ids[i] % bounds[c].step, 0);
        assert_int_equal(bounds[c].n_closed, 1);
    }
    r.params.n_prompt = 0; /* refused: the caller closes what is his */
    struct weir_why why;
    assert_int_equal(weir_session_open(eng, &r.params, 1000, &r.session, &why), WEIR_INVALID);
    assert_int_equal(bounds[0].n_closed, 1);
    run_idle(eng);
    weir_engine_close(eng);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prompt_logprobs_are_those_of_generation),
        cmocka_unit_test(test_the_first_token_has_none),
        cmocka_unit_test(test_bound_of_the_cache),
        cmocka_unit_test(test_each_choice_keeps_its_constraint),
    };
    return cmocka_run_group_tests(tests, make_model, remove_model);
}
