/* test_session.c - a request's life: queued, started, told its tokens, ended; closed from anywhere; refused with a reason. */
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
#include "replica/engine/engine_int.h"
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

static weir_err try_open(struct weir_engine *eng, struct run_request *r, struct weir_why *why)
{
    *why = (struct weir_why){ 0 };
    r->params.user = r;
    return weir_session_open(eng, &r->params, 1000, &r->session, why);
}

/* ---- how choices end ---- */
static void test_length(void **state)
{
    struct weir_engine *eng = run_open(dir, &(struct weir_engine_opts){ 0 });
    struct run_request r;

    (void)state;
    run_request_init(&r, 1, N_VOCAB, 20, 7);
    run_one(eng, &r);
    assert_int_equal(r.choices[0].n, 7);
    assert_int_equal(r.choices[0].finish, WEIR_FINISH_LENGTH);
    run_request_init(&r, 1, N_VOCAB, 250, 100); /* the context holds 256 */
    run_one(eng, &r);
    assert_int_equal(r.choices[0].n, 6);
    assert_int_equal(r.choices[0].finish, WEIR_FINISH_LENGTH);
    run_request_init(&r, 1, N_VOCAB, 255, 1);
    run_one(eng, &r);
    assert_int_equal(r.choices[0].n, 1);
    run_idle(eng);
    weir_engine_close(eng);
}

static void test_end_token(void **state)
{
    struct tiny_shape shape = tiny_shape();
    struct weir_engine *eng = run_open(dir, &(struct weir_engine_opts){ 0 });
    struct run_request before, after, ignoring;
    char with_eos[TINY_DIR_MAX], more[64];
    int first = 0;

    (void)state;
    run_request_init(&before, 5, N_VOCAB, 20, 30);
    before.params.temperature = 1;
    run_one(eng, &before);
    weir_engine_close(eng);
    while (before.choices[0].ids[first] != before.choices[0].ids[9])
        first++;
    snprintf(more, sizeof more, "\"eos_token_id\":[1,%d],", before.choices[0].ids[9]);
    shape.more = more;
    tiny_model_write(with_eos, &shape);
    eng = run_open(with_eos, &(struct weir_engine_opts){ 0 });
    assert_int_equal(weir_engine_info(eng)->n_eos_ids, 2);
    run_request_init(&after, 5, N_VOCAB, 20, 30);
    after.params.temperature = 1;
    ignoring = after;
    ignoring.params.prompt = ignoring.prompt;
    ignoring.params.ignore_eos = true;
    run_one(eng, &after);
    assert_int_equal(after.choices[0].n, first + 1); /* the end token is told */
    assert_int_equal(after.choices[0].finish, WEIR_FINISH_STOP);
    assert_memory_equal(after.choices[0].ids, before.choices[0].ids, (size_t)(first + 1) * sizeof(int32_t));
    run_one(eng, &ignoring);
    run_same(&ignoring.choices[0], &before.choices[0]);
    run_idle(eng);
    weir_engine_close(eng);
    tiny_model_remove(with_eos);
}

static void test_stopped_choice(void **state)
{
    struct weir_engine *eng = run_open(dir, &(struct weir_engine_opts){ 0 });
    struct run_request r;

    (void)state;
    run_request_init(&r, 2, N_VOCAB, 20, 12);
    r.params.n_choices = 3;
    run_submit(eng, &r);
    while (r.choices[2].n < 5)
        run_step(eng);
    weir_session_stop_choice(r.session, 1);
    weir_session_stop_choice(r.session, 1);
    weir_session_stop_choice(r.session, 3); /* none such */
    while (weir_engine_has_work(eng))
        run_step(eng);
    assert_int_equal(r.choices[0].n, 12);
    assert_int_equal(r.choices[1].n, 5);
    assert_int_equal(r.choices[1].n_finished, 0);
    assert_int_equal(r.choices[2].n_finished, 1);
    weir_session_close(r.session);
    run_idle(eng);
    weir_engine_close(eng);
}

/* A model whose numbers are broken: its requests end with an error, the engine lives. */
static void test_broken_numbers(void **state)
{
    struct tiny_shape shape = tiny_shape();
    char broken[TINY_DIR_MAX], path[2 * TINY_DIR_MAX];
    uint32_t bits = 0xffffffff;
    struct run_request r;

    (void)state;
    shape.dtype = "F32";
    tiny_model_write(broken, &shape);
    snprintf(path, sizeof path, "%s/model.safetensors", broken);
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, -4, SEEK_END), 0); /* a weight of the last token's row of the head: NaN */
    assert_int_equal(fwrite(&bits, sizeof bits, 1, file), 1);
    fclose(file);
    struct weir_engine *eng = run_open(broken, &(struct weir_engine_opts){ 0 });
    for (int temperature = 0; temperature < 2; temperature++) {
        run_request_init(&r, 2, N_VOCAB, 20, 12);
        r.params.n_choices = 2;
        r.params.temperature = temperature;
        run_one(eng, &r);
        for (int i = 0; i < 2; i++) {
            assert_int_equal(r.choices[i].n, 0);
            assert_int_equal(r.choices[i].finish, WEIR_FINISH_ERROR);
        }
    }
    run_idle(eng);
    weir_engine_close(eng);
    tiny_model_remove(broken);
}

/* ---- [E2] closed from anywhere ---- */
static void test_close_in_every_state(void **state)
{
    (void)state;
    for (int n_steps = 0; n_steps < 24; n_steps++) /* waiting, computing the prompt, decoding, ended */
        for (uint32_t n_choices = 1; n_choices <= 3; n_choices += 2) {
            struct weir_engine *eng = run_open(dir, &(struct weir_engine_opts){ .step_tokens = 16 });
            struct run_request r, other;
            run_request_init(&r, 1, N_VOCAB, 100, 8);
            run_request_init(&other, 2, N_VOCAB, 100, 8); /* shares nothing, and keeps its place */
            r.params.n_choices = n_choices;
            run_submit(eng, &other);
            run_submit(eng, &r);
            for (int i = 0; i < n_steps; i++)
                run_step(eng);
            weir_session_close(r.session);
            r.session = NULL;
            run_all(eng, &other, 1);
            assert_int_equal(other.choices[0].n, 8);
            run_idle(eng);
            weir_engine_close(eng);
        }
    weir_session_close(NULL);
    weir_engine_close(NULL);
}

/* ---- order ---- */
static void test_first_come_first_served_within_a_class(void **state)
{
    static const uint32_t classes[8] = { 2, 1, 2, 0, 1, 0, 2, 1 };
    static const int order[8] = { 3, 5, 1, 4, 7, 0, 2, 6 };
    struct weir_engine *eng = run_open(dir, &(struct weir_engine_opts){ .n_slots = 1 });
    struct run_request r[8];

    (void)state;
    for (uint32_t i = 0; i < 8; i++) {
        run_request_init(&r[i], i, N_VOCAB, 10, 3);
        r[i].params.priority = classes[i];
        run_submit(eng, &r[i]);
    }
    run_all(eng, r, 8);
    for (int i = 1; i < 8; i++)
        assert_int_equal(r[order[i]].started_as, r[order[i - 1]].started_as + 1);
    run_idle(eng);
    weir_engine_close(eng);
}

/* [H2] A request that needs three slots is not overtaken for ever by those that need one. */
static void test_nobody_overtakes(void **state)
{
    struct weir_engine *eng = run_open(dir, &(struct weir_engine_opts){ .n_slots = 3 });
    struct run_request r[4];

    (void)state;
    for (uint32_t i = 0; i < 4; i++)
        run_request_init(&r[i], i, N_VOCAB, 10, 4 + i);
    r[1].params.n_choices = 3;
    for (int i = 0; i < 4; i++)
        run_submit(eng, &r[i]);
    run_step(eng);
    assert_int_equal(r[0].n_started, 1);
    assert_int_equal(r[2].n_started, 0);
    run_all(eng, r, 4);
    assert_true(r[0].started_as < r[1].started_as && r[1].started_as < r[2].started_as);
    run_idle(eng);
    weir_engine_close(eng);
}

/* [H1] While long prompts are computed, who decodes gets a token in every step, and the prompts advance. */
static void test_prompts_do_not_stall_decoding(void **state)
{
    struct weir_engine *eng = run_open(dir, &(struct weir_engine_opts){ .n_slots = 8, .step_tokens = 16 });
    struct run_request fast[4], slow;

    (void)state;
    for (uint32_t i = 0; i < 4; i++) {
        run_request_init(&fast[i], i, N_VOCAB, 1, 60);
        fast[i].params.temperature = 1;
        run_submit(eng, &fast[i]);
    }
    run_step(eng);
    run_request_init(&slow, 9, N_VOCAB, 200, 5);
    run_submit(eng, &slow);
    while (slow.choices[0].n == 0) {
        int before = fast[0].choices[0].n;
        struct weir_engine_step step = run_step(eng);
        assert_int_equal(step.n_decode, 4);
        assert_true(step.n_prefill >= 1 && step.n_prefill <= 16);
        for (int i = 0; i < 4; i++)
            assert_int_equal(fast[i].choices[0].n, before + 1);
        assert_true(before < 20);
    }
    for (int i = 0; i < 4; i++)
        weir_session_close(fast[i].session);
    weir_session_close(slow.session);
    run_idle(eng);
    weir_engine_close(eng);
}

static void test_load(void **state)
{
    struct weir_engine *eng = run_open(dir, &(struct weir_engine_opts){ .n_slots = 2, .step_tokens = 16 });
    struct weir_engine_load load;
    struct run_request r[3];

    (void)state;
    for (uint32_t i = 0; i < 3; i++) {
        run_request_init(&r[i], i, N_VOCAB, 40, 5);
        run_submit(eng, &r[i]);
    }
    weir_engine_load(eng, &load);
    assert_int_equal(load.n_waiting, 3);
    assert_int_equal(load.queued_tokens, 120);
    assert_int_equal(load.n_slots, 2);
    assert_int_equal(load.kv_blocks, 2 * 16); /* 2 slots of 256 tokens */
    run_step(eng);
    weir_engine_load(eng, &load);
    assert_int_equal(load.n_running, 2);
    assert_int_equal(load.n_waiting, 1);
    assert_int_equal(load.queued_tokens, 120 - 16);
    assert_int_equal(load.kv_blocks_used, 1);
    run_all(eng, r, 3);
    run_idle(eng);
    weir_engine_close(eng);
}

/* ---- refused ---- */
static void test_bad_parameters(void **state)
{
    struct weir_engine *eng = run_open(dir, &(struct weir_engine_opts){ 0 });
    struct weir_why why;

    (void)state;
    for (int i = 0; i < 17; i++) {
        struct run_request r;
        run_request_init(&r, 1, N_VOCAB, 10, 3);
        struct weir_session_params *p = &r.params;
        switch (i) {
        case 0:
            p->n_prompt = 0;
            break;
        case 1:
            p->n_prompt = 256;
            break;
        case 2:
            p->n_choices = 0;
            break;
        case 3:
            p->n_choices = 5;
            break; /* of 4 slots */
        case 4:
            p->max_tokens = 0;
            break;
        case 5:
            r.prompt[9] = N_VOCAB;
            break;
        case 6:
            r.prompt[0] = -1;
            break;
        case 7:
            p->n_top_logprobs = 6;
            break;
        case 8:
            p->n_top_logprobs = -1;
            break;
        case 9:
            p->temperature = -0.1;
            break;
        case 10:
            p->temperature = NAN;
            break;
        case 11:
            p->top_p = 1.1;
            break;
        case 12:
            p->top_p = NAN;
            break;
        case 13:
            p->min_p = -1;
            break;
        case 14:
            p->min_p = NAN;
            break;
        case 15:
            p->top_k = -1;
            break;
        default:
            p->n_choices = UINT32_MAX;
            break;
        }
        assert_int_equal(try_open(eng, &r, &why), WEIR_INVALID);
        assert_null(r.session);
        assert_true(why.text[0] != '\0');
    }
    run_idle(eng);
    weir_engine_close(eng);
}

static void test_queue_bound(void **state)
{
    struct weir_engine *eng = run_open(dir, &(struct weir_engine_opts){ .n_slots = 1, .n_queue_max = 3 });
    struct run_request r[5];
    struct weir_why why;

    (void)state;
    for (uint32_t i = 0; i < 5; i++)
        run_request_init(&r[i], i, N_VOCAB, 10, 3);
    for (int i = 0; i < 3; i++)
        assert_int_equal(try_open(eng, &r[i], &why), WEIR_OK);
    assert_int_equal(try_open(eng, &r[3], &why), WEIR_FULL);
    assert_non_null(strstr(why.text, "queue"));
    run_step(eng); /* one starts */
    assert_int_equal(try_open(eng, &r[3], &why), WEIR_OK);
    assert_int_equal(try_open(eng, &r[4], &why), WEIR_FULL);
    weir_session_close(r[2].session); /* one goes */
    r[2].session = NULL;
    assert_int_equal(try_open(eng, &r[4], &why), WEIR_OK);
    run_all(eng, r, 5);
    run_idle(eng);
    weir_engine_close(eng);
}

/* [E1] What could never fit is refused; what fits the pool alone waits for it and ends. */
static void test_pool_bound(void **state)
{
    const uint64_t page = 2 * 2 * 2 * 16 * 2 * 16; /* k and v, layers, KV heads, width, bf16, tokens */
    struct weir_engine *eng = run_open(dir, &(struct weir_engine_opts){ .n_slots = 4, .kv_bytes = 6 * page });
    struct run_request r, fits[3];
    struct weir_why why;

    (void)state;
    assert_int_equal(eng->kv.n_pages, 6);
    run_request_init(&r, 1, N_VOCAB, 60, 37); /* 97 tokens: 7 pages */
    assert_int_equal(try_open(eng, &r, &why), WEIR_INVALID);
    assert_string_equal(why.param, "max_tokens");
    assert_non_null(strstr(why.text, "7 KV pages"));
    run_request_init(&r, 1, N_VOCAB, 40, 24); /* 4 pages, and 2 more for each further choice */
    r.params.n_choices = 3;
    assert_int_equal(try_open(eng, &r, &why), WEIR_INVALID);
    for (uint32_t i = 0; i < 3; i++) {
        run_request_init(&fits[i], i, N_VOCAB, i == 1 ? 40 : 60, i == 1 ? 24 : 36);
        fits[i].params.n_choices = i == 1 ? 2 : 1;
        run_submit(eng, &fits[i]);
    }
    run_all(eng, fits, 3);
    for (int i = 0; i < 3; i++)
        assert_int_equal(fits[i].choices[0].n, i == 1 ? 24 : 36);
    run_idle(eng);
    weir_engine_close(eng);
}

static void test_engine_options(void **state)
{
    struct weir_engine_opts good = {
        .model_dir = dir, .backend = "auto", .n_threads = 1, .n_slots = 1, .n_queue_max = 1
    };
    struct weir_engine *eng = NULL;
    struct weir_why why = { 0 };

    (void)state;
    struct weir_engine_opts opts = good;
    opts.backend = "tpu";
    assert_int_equal(weir_engine_open(&opts, &eng, &why), WEIR_INVALID);
    assert_string_equal(why.param, "backend");
    opts = good;
    opts.n_slots = 0;
    assert_int_equal(weir_engine_open(&opts, &eng, &why), WEIR_INVALID);
    opts = good;
    opts.kv_bytes = 100;
    assert_int_equal(weir_engine_open(&opts, &eng, &why), WEIR_INVALID);
    assert_string_equal(why.param, "kv_bytes");
    opts = good;
    opts.tensor_parallel = 3; /* of 4 heads */
    assert_int_equal(weir_engine_open(&opts, &eng, &why), WEIR_INVALID);
    assert_string_equal(why.param, "tensor_parallel");
    opts = good;
    opts.weights = "q5";
    assert_int_equal(weir_engine_open(&opts, &eng, &why), WEIR_INVALID);
    assert_string_equal(why.param, "weights");
    opts = good;
    opts.kv = "f16";
    assert_int_equal(weir_engine_open(&opts, &eng, &why), WEIR_INVALID);
    assert_string_equal(why.param, "kv_type");
    opts = good;
    opts.activations = "rough";
    assert_int_equal(weir_engine_open(&opts, &eng, &why), WEIR_INVALID);
    assert_string_equal(why.param, "activations");
    opts = good;
    opts.model_dir = "/nowhere";
    assert_int_equal(weir_engine_open(&opts, &eng, &why), WEIR_IO);
    opts = good;
    opts.step_tokens = 3; /* less than a page: a page */
    assert_int_equal(weir_engine_open(&opts, &eng, &why), WEIR_OK);
    assert_int_equal(eng->opts.step_tokens, WEIR_KV_BLOCK);
    const struct weir_engine_info *info = weir_engine_info(eng);
    assert_string_equal(info->architecture, "LlamaForCausalLM");
    assert_true(strncmp(info->backend, "cpu ", 4) == 0);
    assert_int_equal(info->n_vocab, N_VOCAB);
    assert_int_equal(info->n_context, 256);
    weir_engine_close(eng);
}

/* What a back end is opened with. */
static struct weir_backend_opts told;

static weir_err open_told(const struct weir_backend_opts *opts, struct weir_backend **ret,
                          struct weir_why *why)
{
    told = *opts;
    return weir_backend_cpu_open(opts, ret, why);
}

/* Settings reach the back end, as they are and by default; a CPU takes the one that only a GPU heeds. */
static void test_settings_of_the_back_end(void **state)
{
    (void)state;
    weir_engine_close(run_open(dir, &(struct weir_engine_opts){ .open_backend = open_told }));
    assert_true(told.kv == WEIR_BF16 && !told.exact && !told.deterministic);
    weir_engine_close(run_open(
        dir, &(struct weir_engine_opts){
                 .open_backend = open_told, .kv = "f32", .activations = "exact", .deterministic = true }));
    assert_true(told.kv == WEIR_F32 && told.exact && told.deterministic);
}

/* ---- no memory ---- */
static void test_no_memory(void **state)
{
    struct weir_engine_opts opts = { .model_dir = dir, .n_threads = 1, .n_slots = 2, .n_queue_max = 4 };
    struct weir_engine *eng = NULL;
    struct weir_why why;
    struct run_request r;
    weir_err err = WEIR_NOMEM;

    (void)state;
    for (long n = 0; err != WEIR_OK; n++) {
        weir_test_alloc_budget(n);
        err = weir_engine_open(&opts, &eng, &why);
        weir_test_alloc_budget(-1);
        assert_true(err == WEIR_OK ? eng != NULL : eng == NULL);
    }
    run_request_init(&r, 1, N_VOCAB, 20, 5);
    r.params.n_choices = 2;
    r.params.cache_salt = weir_str("salt");
    err = WEIR_NOMEM;
    for (long n = 0; err != WEIR_OK; n++) {
        weir_test_alloc_budget(n);
        err = try_open(eng, &r, &why);
        weir_test_alloc_budget(-1);
        assert_true(err == WEIR_OK ? r.session != NULL : err == WEIR_NOMEM && r.session == NULL);
        if (err != WEIR_OK)
            run_idle(eng);
    }
    weir_test_alloc_budget(0); /* steps need none */
    run_step(eng);
    run_step(eng);
    weir_test_alloc_budget(-1);
    run_all(eng, &r, 1);
    run_idle(eng);
    weir_engine_close(eng);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_length),
        cmocka_unit_test(test_end_token),
        cmocka_unit_test(test_stopped_choice),
        cmocka_unit_test(test_broken_numbers),
        cmocka_unit_test(test_close_in_every_state),
        cmocka_unit_test(test_first_come_first_served_within_a_class),
        cmocka_unit_test(test_nobody_overtakes),
        cmocka_unit_test(test_prompts_do_not_stall_decoding),
        cmocka_unit_test(test_load),
        cmocka_unit_test(test_bad_parameters),
        cmocka_unit_test(test_queue_bound),
        cmocka_unit_test(test_pool_bound),
        cmocka_unit_test(test_engine_options),
        cmocka_unit_test(test_settings_of_the_back_end),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, make_model, remove_model);
}
