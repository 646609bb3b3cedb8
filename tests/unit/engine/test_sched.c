/* test_sched.c - who goes first, who waits, who is suspended; and that none of it shows in what is said. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "replica/engine/engine_int.h"
#include "tests/unit/engine/run.h"

enum { N_VOCAB = 31, PAGE_BYTES = 16 * 2 * 4 * 2 };

static char dir[TINY_DIR_MAX];

static int make_model(void **state)
{
    struct tiny_shape shape = { .n_layer = 1,
                                .n_head = 2,
                                .n_kv_head = 1,
                                .d_head = 4,
                                .d_model = 16,
                                .d_ffn = 16,
                                .n_vocab = N_VOCAB,
                                .n_context = 256,
                                .tied = true,
                                .dtype = "F32",
                                .more = "",
                                .seed = 2 };
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

static void make_mixed(struct run_request *r, uint32_t i)
{
    run_request_init(r, i % 3, N_VOCAB, 20 + 7 * (i % 5), 60 + i);
    r->params.temperature = i % 2;
    r->params.n_choices = i % 4 == 1 ? 3 : 1;
    r->params.priority = (i + 2) % 3;
    r->params.has_cache_max = i % 5 == 2 || i == 9;
    r->params.cache_max = 0;
    r->params.n_prompt_logprobs = i % 6 == 3 ? 12 : 0;
    r->params.repetition_penalty = i % 4 == 3 ? 1.2 : 0;
    r->params.mirostat_target = i % 2 ? 6 : 0;
    r->params.mirostat_lr = 0.1;
}

enum { N_MIXED = 12 };

/* Returns how often a step left somebody suspended. */
static uint32_t run_mixed(const struct run_request *alone, uint32_t n_pages)
{
    struct run_request *mixed = calloc(N_MIXED, sizeof *mixed);
    struct weir_engine_load load;
    uint32_t n_suspended = 0, n_steps = 0;
    struct weir_engine *eng =
        run_open(dir, &(struct weir_engine_opts){
                          .n_slots = 16, .step_tokens = 32, .kv_bytes = (uint64_t)n_pages * PAGE_BYTES });

    eng->n_output_mean = 1; /* as if all so far had said little */
    for (uint32_t i = 0; i < N_MIXED; i++) {
        make_mixed(&mixed[i], i);
        run_submit(eng, &mixed[i]);
    }
    while (weir_engine_has_work(eng)) {
        assert_true(n_steps++ < 5000);
        run_step(eng);
        weir_engine_load(eng, &load);
        n_suspended += load.n_suspended;
    }
    for (uint32_t i = 0; i < N_MIXED; i++) {
        assert_int_equal(mixed[i].n_told, alone[i].n_told);
        assert_memory_equal(mixed[i].told, alone[i].told, (size_t)alone[i].n_told * sizeof *alone[i].told);
        for (uint32_t k = 0; k < mixed[i].params.n_choices; k++)
            run_same(&mixed[i].choices[k], &alone[i].choices[k]);
        weir_session_close(mixed[i].session);
    }
    run_idle(eng);
    weir_engine_close(eng);
    free(mixed);
    return n_suspended;
}

/* [U1] Many that together need several times the pool: all finish, and say what they say alone. The smallest pool is
 * just what the largest of them can need. */
static void test_suspended_says_the_same(void **state)
{
    struct run_request *alone = calloc(N_MIXED, sizeof *alone);
    uint32_t n_suspended = 0;

    (void)state;
    struct weir_engine *eng = run_open(dir, &(struct weir_engine_opts){ .n_slots = 16 });
    for (uint32_t i = 0; i < N_MIXED; i++) {
        make_mixed(&alone[i], i);
        run_one(eng, &alone[i]);
    }
    weir_engine_close(eng);
    for (uint32_t n_pages = 18; n_pages < 40; n_pages++)
        n_suspended += run_mixed(alone, n_pages);
    assert_true(n_suspended > 500);
    free(alone);
}

/* Choices that share a prompt share it again after a suspension, even outside the cache: the pool is just what they
 * can need together. */
static void test_choices_share_again(void **state)
{
    struct run_request r[2], alone;
    bool was_suspended = false;

    (void)state;
    struct weir_engine *eng = run_open(dir, &(struct weir_engine_opts){ .kv_bytes = 22 * PAGE_BYTES });
    eng->n_output_mean = 1;
    run_request_init(&r[0], 1, N_VOCAB, 16, 200);
    run_request_init(&r[1], 2, N_VOCAB, 160, 60);
    r[1].params.n_choices = 3;
    r[1].params.temperature = 1;
    r[1].params.has_cache_max = true;
    alone = r[1];
    run_submit(eng, &r[0]);
    run_submit(eng, &r[1]);
    assert_int_equal(r[1].session->n_worst, 22);
    while (weir_engine_has_work(eng)) {
        run_step(eng);
        was_suspended = was_suspended || eng->suspended.n > 0;
    }
    assert_true(was_suspended);
    run_all(eng, r, 2);
    alone.params.prompt = alone.prompt;
    run_one(eng, &alone);
    for (uint32_t i = 0; i < 3; i++)
        run_same(&r[1].choices[i], &alone.choices[i]);
    run_idle(eng);
    weir_engine_close(eng);
}

/* Suspended amid its prompt: what was told of it is not told again. */
static void test_prompt_is_told_once(void **state)
{
    enum { N = 5 };
    struct run_request r[N + 1];
    bool was_suspended = false;

    (void)state;
    struct weir_engine *eng = run_open(
        dir, &(struct weir_engine_opts){ .n_slots = N + 1, .step_tokens = 16, .kv_bytes = 26 * PAGE_BYTES });
    eng->n_output_mean = 1;
    for (uint32_t i = 0; i < N; i++) {
        run_request_init(&r[i], i, N_VOCAB, 16, 100);
        run_submit(eng, &r[i]);
    }
    for (int i = 0; i < 32; i++)
        run_step(eng);
    run_request_init(&r[N], 9, N_VOCAB, 160, 1);
    r[N].params.n_prompt_logprobs = 160;
    run_submit(eng, &r[N]);
    while (weir_engine_has_work(eng)) {
        run_step(eng);
        was_suspended = was_suspended || (eng->suspended.n > 0 && r[N].n_told > 0 && r[N].choices[0].n == 0);
    }
    assert_true(was_suspended);
    assert_int_equal(r[N].n_told, 160);
    assert_memory_equal(r[N].told_ids, r[N].prompt, 160 * sizeof r[N].prompt[0]);
    run_all(eng, r, N + 1);
    run_idle(eng);
    weir_engine_close(eng);
}

/* [U2] What runs keeps its pages while others wait to start, of whatever class. */
static void test_nothing_is_suspended_for_new_work(void **state)
{
    struct run_request r[4];
    struct weir_engine_load load;

    (void)state;
    struct weir_engine *eng =
        run_open(dir, &(struct weir_engine_opts){ .n_slots = 4, .kv_bytes = 10 * PAGE_BYTES });
    for (uint32_t i = 0; i < 4; i++) {
        run_request_init(&r[i], i, N_VOCAB, 60, 20); /* 5 pages each */
        r[i].params.priority = 3 - i;
        run_submit(eng, &r[i]);
        run_step(eng);
        weir_engine_load(eng, &load);
        assert_int_equal(load.n_suspended, 0);
        assert_int_equal(load.n_waiting, i < 2 ? 0 : i - 1);
    }
    assert_int_equal(r[0].n_started + r[1].n_started, 2);
    run_all(eng, r, 4);
    run_idle(eng);
    weir_engine_close(eng);
}

/* [F2] One account's hundred do not keep another's two waiting; [F1] classes go before. */
static void test_accounts_take_turns(void **state)
{
    enum { N = 24 };
    struct run_request *r = calloc(N, sizeof *r);

    (void)state;
    struct weir_engine *eng = run_open(dir, &(struct weir_engine_opts){ .n_slots = 1 });
    for (uint32_t i = 0; i < N; i++) {
        run_request_init(&r[i], i, N_VOCAB, 250, 1);
        r[i].params.account = weir_str(i < 20 ? "many" : "few");
        r[i].params.cache_salt = r[i].params.account;
        r[i].params.priority = i == 23 ? 0 : 1;
        run_submit(eng, &r[i]);
    }
    int before = 0;
    while (!run_done(&r[22])) {
        run_step(eng);
        for (uint32_t i = 0; i < N; i++)
            if (r[i].session && run_done(&r[i])) {
                before += i < 20;
                weir_session_close(r[i].session);
                r[i].session = NULL;
                if (i != 23)
                    assert_true(run_done(&r[23])); /* the first class was first */
                if (i == 22)
                    break;
            }
        if (!r[22].session)
            break;
    }
    assert_in_range(before, 1, 7); /* three of the few: about as many of the many, and a turn of two more */
    run_all(eng, r, N);
    run_idle(eng);
    weir_engine_close(eng);
    free(r);
}

/* [F3] */
static void test_who_waits_too_long_goes_first(void **state)
{
    struct fair fair = { 0 };
    struct fair_item old = { .class = 5, .cost = 9, .since_ns = 100 },
                     new = { .class = 0, .cost = 9, .since_ns = 200 };
    struct weir_why why;

    (void)state;
    assert_int_equal(fair_push(&fair, &old, weir_str("a"), &why), WEIR_OK);
    assert_int_equal(fair_push(&fair, &new, weir_str("b"), &why), WEIR_OK);
    assert_int_equal(fair.n_tokens, 18);
    assert_ptr_equal(fair_peek(&fair, 1099, 1000), &new);
    assert_ptr_equal(fair_peek(&fair, 1100, 1000), &old);
    fair_take(&fair, &old, 9);
    assert_ptr_equal(fair_peek(&fair, 5000, 1000), &new);
    fair_remove(&fair, &new);
    assert_null(fair_peek(&fair, 5000, 1000));
    assert_int_equal(fair.n + fair.n_tokens, 0);
}

/* [A4] The same prompt at once: one computes it, the others find all they may. Other salts share nothing. */
static void test_same_prompts_are_computed_once(void **state)
{
    struct run_request r[4];
    struct weir_engine_step step;
    uint32_t n_prefill = 0;

    (void)state;
    struct weir_engine *eng = run_open(dir, &(struct weir_engine_opts){ .n_slots = 4, .step_tokens = 48 });
    for (uint32_t i = 0; i < 4; i++) {
        run_request_init(&r[i], 5, N_VOCAB, 200, 8);
        r[i].params.cache_salt = weir_str(i == 3 ? "other" : "");
        run_submit(eng, &r[i]);
    }
    while (weir_engine_has_work(eng)) {
        step = run_step(eng);
        n_prefill += step.n_prefill;
    }
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(r[i].cached_tokens, i == 1 || i == 2 ? 192 : 0);
        run_same(&r[i].choices[0], &r[0].choices[0]);
        weir_session_close(r[i].session);
    }
    assert_int_equal(n_prefill, 200 + 8 + 8 + 200);
    run_idle(eng);
    weir_engine_close(eng);
}

/* [A4] Who computes for others goes: the next of them does it. */
static void test_leader_goes(void **state)
{
    struct run_request r[3];

    (void)state;
    struct weir_engine *eng = run_open(dir, &(struct weir_engine_opts){ .n_slots = 4, .step_tokens = 16 });
    for (uint32_t i = 0; i < 3; i++) {
        run_request_init(&r[i], 5, N_VOCAB, 200, 8);
        run_submit(eng, &r[i]);
    }
    run_step(eng);
    run_step(eng);
    assert_int_equal(r[0].n_started + r[1].n_started + r[2].n_started, 1);
    weir_session_close(r[0].session);
    r[0].session = NULL;
    while (weir_engine_has_work(eng))
        run_step(eng);
    assert_int_equal(r[1].cached_tokens, 32);
    assert_int_equal(r[2].cached_tokens, 192);
    run_same(&r[1].choices[0], &r[2].choices[0]);
    weir_session_close(r[1].session);
    weir_session_close(r[2].session);
    run_idle(eng);
    weir_engine_close(eng);
}

/* [V4] An account that floods the cache leaves another's prefix where it is. */
static void test_cache_is_shared_out(void **state)
{
    struct run_request r;

    (void)state;
    struct weir_engine *eng =
        run_open(dir, &(struct weir_engine_opts){ .n_slots = 2, .kv_bytes = 40 * PAGE_BYTES });
    for (uint32_t i = 0; i < 12; i++) {
        run_request_init(&r, i == 11 ? 0 : i, N_VOCAB, 129, 1);
        r.params.account = r.params.cache_salt = weir_str(i == 0 || i == 11 ? "quiet" : "flood");
        run_one(eng, &r);
    }
    assert_int_equal(r.cached_tokens, 128);
    run_idle(eng);
    weir_engine_close(eng);
}

/* A bound in time: at 1,000 tokens a second, half a second of prompts. */
static void test_queue_is_bounded_by_time(void **state)
{
    struct run_request r[5];
    struct weir_engine_step step;
    struct weir_session *ses;
    struct weir_why why;

    (void)state;
    struct weir_engine *eng =
        run_open(dir, &(struct weir_engine_opts){ .n_slots = 1, .step_tokens = 100, .queue_ms_max = 500 });
    for (uint32_t i = 0; i < 5; i++)
        run_request_init(&r[i], i, N_VOCAB, 200, 8);
    assert_int_equal(weir_session_open(eng, &r[0].params, 1, &r[0].session, &why), WEIR_OK);
    for (uint64_t i = 0; i < 2; i++)
        assert_int_equal(weir_engine_step(eng, 1 + i * 100 * WEIR_MS, &step, &why), WEIR_OK);
    assert_int_equal(weir_session_open(eng, &r[1].params, 1, &r[1].session, &why), WEIR_OK);
    assert_int_equal(weir_session_open(eng, &r[2].params, 1, &r[2].session, &why), WEIR_OK);
    assert_int_equal(weir_session_open(eng, &r[3].params, 1, &ses, &why), WEIR_FULL);
    weir_session_close(r[2].session);
    assert_int_equal(weir_session_open(eng, &r[3].params, 1, &r[3].session, &why), WEIR_OK);
    weir_session_close(r[0].session);
    weir_session_close(r[1].session);
    weir_session_close(r[3].session);
    run_idle(eng);
    weir_engine_close(eng);
}

/* [H1] A machine that takes 10 ms a step and 1 ms a token. While somebody decodes, steps settle at the bound, however the bound
 * was missed at first, and prompts always go on; when nobody does, prompts get the whole budget. */
static void test_steps_are_bounded_by_time(void **state)
{
    enum { STEP_MS = 60, N_PROMPTS = 6 };
    struct run_request decoder, prompts[N_PROMPTS];
    struct weir_engine_step step;
    struct weir_why why;
    uint64_t now_ns = WEIR_MS;
    uint32_t n_open = 0, n_bounded = 0;

    (void)state;
    struct weir_engine *eng =
        run_open(dir, &(struct weir_engine_opts){ .n_slots = 8, .step_tokens = 150, .step_ms_max = STEP_MS });
    run_request_init(&decoder, 1, N_VOCAB, 200, 30);
    assert_int_equal(weir_session_open(eng, &decoder.params, now_ns, &decoder.session, &why), WEIR_OK);
    while (weir_engine_has_work(eng)) {
        assert_int_equal(weir_engine_step(eng, now_ns, &step, &why), WEIR_OK);
        uint64_t step_ms = 10 + step.n_prefill + step.n_decode;
        now_ns += step_ms * WEIR_MS;
        if (step.n_decode == 0)
            assert_true(step.n_prefill == 150 || step.n_prefill == 50); /* all of the first prompt */
        for (; step.n_decode == 1 && n_open < N_PROMPTS; n_open++) {
            run_request_init(&prompts[n_open], 2 + n_open, N_VOCAB, 200, 1);
            assert_int_equal(
                weir_session_open(eng, &prompts[n_open].params, now_ns, &prompts[n_open].session, &why),
                WEIR_OK);
        }
        n_bounded += step.n_decode > 0 && step.n_prefill > 0;
        if (n_bounded > 10 && step.n_decode == 1 && step.n_prefill > 0)
            assert_in_range(step_ms, WEIR_KV_BLOCK, STEP_MS + STEP_MS / 5);
    }
    assert_true(n_bounded > 15);
    weir_session_close(decoder.session);
    for (uint32_t i = 0; i < n_open; i++)
        weir_session_close(prompts[i].session);
    run_idle(eng);
    weir_engine_close(eng);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_suspended_says_the_same),
        cmocka_unit_test(test_choices_share_again),
        cmocka_unit_test(test_prompt_is_told_once),
        cmocka_unit_test(test_nothing_is_suspended_for_new_work),
        cmocka_unit_test(test_accounts_take_turns),
        cmocka_unit_test(test_who_waits_too_long_goes_first),
        cmocka_unit_test(test_same_prompts_are_computed_once),
        cmocka_unit_test(test_leader_goes),
        cmocka_unit_test(test_cache_is_shared_out),
        cmocka_unit_test(test_queue_is_bounded_by_time),
        cmocka_unit_test(test_steps_are_bounded_by_time),
    };
    return cmocka_run_group_tests(tests, make_model, remove_model);
}
