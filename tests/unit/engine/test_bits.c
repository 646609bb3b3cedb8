/* test_bits.c - [N1], the bit law as a user sees it: tokens and log-probabilities, to the last bit, do not depend on batch
 * mates, on how prompts are cut into steps, on threads, or on what the prefix cache holds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/engine/run.h"

enum { N_MIXED = 32, N_VOCAB = 97 };

static char dir[TINY_DIR_MAX];
static const char *kv; /* of all engines; NULL: the default */

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

/* Request i of the mixture: greedy and sampled, one choice and several, short and long. Some share a prefix. */
static void mixed_request(struct run_request *r, uint32_t i)
{
    run_request_init(r, 100 + i, N_VOCAB, 1 + i * 29 % 130, 1 + i * 7 % 40);
    r->params.n_choices = i % 5 == 4 ? 3 : 1;
    r->params.temperature = i % 3 ? 0.4 * (i % 3) : 0;
    r->params.top_p = i % 4 == 1 ? 0.9 : 1;
    r->params.top_k = i % 4 == 2 ? 5 : 0;
    r->params.min_p = i % 4 == 3 ? 0.05 : 0;
    for (int k = 0; i % 2 && k < 40; k++)
        r->prompt[k] = k;
}

/* Each request by itself, in an engine of its own: nobody beside it, nothing cached. */
static struct run_request *run_alone(void)
{
    struct run_request *requests = calloc(N_MIXED, sizeof *requests);

    for (uint32_t i = 0; i < N_MIXED; i++) {
        struct weir_engine *eng = run_open(dir, &(struct weir_engine_opts){ .n_slots = 3, .kv = kv });
        mixed_request(&requests[i], i);
        run_one(eng, &requests[i]);
        run_idle(eng);
        weir_engine_close(eng);
    }
    return requests;
}

static void compare_all(const struct run_request *a, const struct run_request *b)
{
    for (int i = 0; i < N_MIXED; i++)
        for (uint32_t k = 0; k < a[i].params.n_choices; k++)
            run_same(&a[i].choices[k], &b[i].choices[k]);
}

/* All at once, or one more every other step; the prefixes that they share are found in the cache. */
static void run_mixed(const struct run_request *alone, const struct weir_engine_opts *opts, bool staggered)
{
    struct run_request *requests = calloc(N_MIXED, sizeof *requests);
    struct weir_engine_opts here = *opts;

    here.kv = kv;
    struct weir_engine *eng = run_open(dir, &here);

    for (uint32_t i = 0; i < N_MIXED; i++) {
        mixed_request(&requests[i], i);
        run_submit(eng, &requests[i]);
        if (staggered && i % 2)
            run_step(eng);
    }
    run_all(eng, requests, N_MIXED);
    run_idle(eng);
    compare_all(alone, requests);
    weir_engine_close(eng);
    free(requests);
}

static void test_alone_and_in_company(void **state)
{
    static const uint32_t step_tokens[] = { 16, 64, 256 };
    struct run_request *alone = run_alone();

    (void)state;
    for (uint32_t i = 0; i < 3; i++) {
        run_mixed(
            alone,
            &(struct weir_engine_opts){ .n_slots = 40, .step_tokens = step_tokens[i], .n_threads = i + 1 },
            i == 1);
        run_mixed(alone,
                  &(struct weir_engine_opts){ .n_slots = 5, .step_tokens = step_tokens[i], .n_threads = 2 },
                  i != 1);
    }
    free(alone);
}

/* Each instruction set keeps the law by itself; between them only closeness is promised. */
static void test_every_instruction_set(void **state)
{
#ifdef WEIR_AMX_EMU /* the others have a test of their own */
    static const char *const isas[] = { "amx" };
#else
    static const char *const isas[] = { "generic", "avx2", "avx512", "avx512vnni", "avx512bf16", "amx" };
#endif

    (void)state;
    for (size_t i = 0; i < 2 * sizeof isas / sizeof *isas; i++) {
        setenv("WEIR_CPU", isas[i / 2], 1);
        kv = i % 2 ? "f32" : "bf16";
        struct run_request *alone = run_alone();
        run_mixed(alone, &(struct weir_engine_opts){ .n_slots = 20, .step_tokens = 48, .n_threads = 2 },
                  true);
        free(alone);
    }
    unsetenv("WEIR_CPU");
    kv = NULL;
}

static void test_cache_cold_and_warm(void **state)
{
    struct weir_engine *eng = run_open(dir, &(struct weir_engine_opts){ 0 });
    static const uint32_t lengths[] = { 1, 15, 16, 17, 32, 33, 100, 160 };

    (void)state;
    for (uint32_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        struct run_request cold, warm;
        run_request_init(&cold, 500 + i, N_VOCAB, lengths[i], 40);
        run_request_init(&warm, 500 + i, N_VOCAB, lengths[i], 40);
        run_one(eng, &cold);
        run_one(eng, &warm);
        assert_int_equal(cold.cached_tokens, 0);
        assert_int_equal(warm.cached_tokens,
                         (lengths[i] - 1) / 16 * 16); /* the last token is computed always */
        run_same(&cold.choices[0], &warm.choices[0]);
    }
    run_idle(eng);
    weir_engine_close(eng);
}

/* The next turn of a conversation finds the answer of the turn before, too. */
static void test_outputs_are_cached(void **state)
{
    struct weir_engine *eng = run_open(dir, &(struct weir_engine_opts){ 0 });
    struct weir_engine *fresh = run_open(dir, &(struct weir_engine_opts){ 0 });
    struct run_request first, next, again;

    (void)state;
    run_request_init(&first, 3, N_VOCAB, 50, 40);
    run_one(eng, &first);
    run_request_init(&next, 4, N_VOCAB, 110, 20);
    memcpy(next.prompt, first.prompt, 50 * sizeof *next.prompt);
    memcpy(next.prompt + 50, first.choices[0].ids, 40 * sizeof *next.prompt);
    again = next;
    again.params.prompt = again.prompt;
    run_one(eng, &next);
    run_one(fresh, &again);
    assert_int_equal(next.cached_tokens, 80); /* 50 + 40 tokens, the last of which was never computed: 89 */
    assert_int_equal(again.cached_tokens, 0);
    run_same(&next.choices[0], &again.choices[0]);
    weir_engine_close(eng);
    weir_engine_close(fresh);
}

/* [V2] */
static void test_salts_share_nothing(void **state)
{
    static const char *const salts[] = { "", "a", "b", "ab" };
    struct weir_engine *eng = run_open(dir, &(struct weir_engine_opts){ 0 });

    (void)state;
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < 4; i++) {
            struct run_request r;
            run_request_init(&r, 77, N_VOCAB, 70, 4);
            r.params.cache_salt = weir_str(salts[i]);
            run_one(eng, &r);
            assert_int_equal(r.cached_tokens, round == 0 ? 0 : 64);
        }
    weir_engine_close(eng);
}

/* Choices share the prompt, computed once; each is a function of (seed, choice), however many there are. */
static void test_choices(void **state)
{
    struct run_request one, three, five;
    struct weir_engine *eng = run_open(dir, &(struct weir_engine_opts){ .n_slots = 5 });
    uint32_t n_prefill = 0;
    bool differ = false;

    (void)state;
    run_request_init(&three, 9, N_VOCAB, 45, 30);
    three.params.temperature = 1;
    one = five = three;
    one.params.prompt = one.prompt;
    five.params.prompt = five.prompt;
    one.params.n_choices = 1;
    three.params.n_choices = 3;
    five.params.n_choices = 5;
    run_one(eng, &three);
    run_one(eng, &one); /* from the cache, but for the last page */
    run_submit(eng, &five);
    weir_session_close(five.session);
    weir_engine_close(eng);
    eng = run_open(dir, &(struct weir_engine_opts){ .n_slots = 5 });
    run_submit(eng, &five);
    while (!run_done(&five))
        n_prefill += run_step(eng).n_prefill;
    assert_int_equal(n_prefill, 45);
    weir_session_close(five.session);
    run_idle(eng);
    run_same(&one.choices[0], &three.choices[0]);
    for (int i = 0; i < 3; i++) {
        run_same(&three.choices[i], &five.choices[i]);
        differ = differ || memcmp(three.choices[0].ids, three.choices[i].ids, 30 * sizeof(int32_t)) != 0;
    }
    assert_true(differ);
    weir_engine_close(eng);
}

static void test_seeds(void **state)
{
    struct weir_engine *eng = run_open(dir, &(struct weir_engine_opts){ 0 });
    struct run_request a, b, c;

    (void)state;
    run_request_init(&a, 9, N_VOCAB, 45, 30);
    a.params.temperature = 1.5;
    b = c = a;
    b.params.prompt = b.prompt;
    c.params.prompt = c.prompt;
    c.params.seed = 10;
    run_one(eng, &a);
    run_one(eng, &b);
    run_one(eng, &c);
    run_same(&a.choices[0], &b.choices[0]);
    assert_memory_not_equal(a.choices[0].ids, c.choices[0].ids, 30 * sizeof(int32_t));
    weir_engine_close(eng);
}

/* A request that carries the first k tokens of an answer goes on as the answer did, drawn tokens too. */
static void test_resumption(void **state)
{
    struct weir_engine *eng = run_open(dir, &(struct weir_engine_opts){ 0 });
    struct run_request whole, rest;

    (void)state;
    run_request_init(&whole, 21, N_VOCAB, 30, 30);
    whole.params.temperature = 0.9;
    run_one(eng, &whole);
    for (uint32_t k = 1; k < 30; k += 4) {
        run_request_init(&rest, 21, N_VOCAB, 30, 30);
        memcpy(rest.prompt + 30, whole.choices[0].ids, k * sizeof *rest.prompt);
        rest.params.n_prompt = 30 + k;
        rest.params.max_tokens = 30 - k;
        rest.params.temperature = 0.9;
        run_one(eng, &rest);
        assert_int_equal(rest.choices[0].n, 30 - k);
        assert_memory_equal(rest.choices[0].ids, whole.choices[0].ids + k, (30 - k) * sizeof(int32_t));
        assert_memory_equal(rest.choices[0].logprobs, whole.choices[0].logprobs + k,
                            (30 - k) * sizeof(float));
    }
    weir_engine_close(eng);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alone_and_in_company),
        cmocka_unit_test(test_every_instruction_set),
        cmocka_unit_test(test_cache_cold_and_warm),
        cmocka_unit_test(test_outputs_are_cached),
        cmocka_unit_test(test_salts_share_nothing),
        cmocka_unit_test(test_choices),
        cmocka_unit_test(test_seeds),
        cmocka_unit_test(test_resumption),
    };
    return cmocka_run_group_tests(tests, make_model, remove_model);
}
