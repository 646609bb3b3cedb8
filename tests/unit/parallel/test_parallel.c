/* test_parallel.c - ranks that fail: in opening, in a step, for want of memory; and that a row's bits are the same alone and
 * in company on two ranks. What they compute is tested in tests/unit/model/test_families.c. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "replica/parallel/parallel.h"
#include "tests/support/tiny_model.h"

enum { N_TOK = 24, N_PAGES = 8 };

static char dir[TINY_DIR_MAX];
static struct model_config config;
static const struct model_limits limits = { .n_tok_max = N_TOK, .n_logits_max = 4, .n_blocks = N_PAGES };

static int write_model(void **state)
{
    struct tiny_shape shape = tiny_shape();
    struct weir_why why;

    (void)state;
    tiny_model_write(dir, &shape);
    return model_config_load(dir, &config, &why) == WEIR_OK ? 0 : -1;
}

static int remove_model(void **state)
{
    (void)state;
    tiny_model_remove(dir);
    return 0;
}

static weir_err open_ranks(uint32_t n_ranks, struct parallel **ret, struct weir_why *why)
{
    const struct parallel_opts opts = { .open = weir_backend_cpu_open,
                                        .backend = { .n_threads = 1 },
                                        .n_ranks = n_ranks };
    struct parallel *p = NULL;
    weir_err err = parallel_open(&opts, &config, &p, why);

    if (err == WEIR_OK)
        err = parallel_load(p, dir, &limits, why);
    if (err == WEIR_OK)
        *ret = p;
    else
        parallel_close(p);
    return err;
}

/* A batch of one token at `pos` of the second sequence, perhaps behind n others of the first; its logits. */
static weir_err step(struct parallel *p, int32_t pos, uint32_t n_others, float *logits, struct weir_why *why)
{
    static const int32_t table[2][2] = { { 6, 1 }, { 3, 4 } };
    int32_t ids[N_TOK], positions[N_TOK], seq[N_TOK], row = (int32_t)n_others;
    struct weir_batch batch = { n_others + 1, ids, positions, seq, table[0], 2, 2, NULL };
    const float *got = NULL;

    for (int32_t i = 0; i < row; i++) {
        ids[i] = (i * 31 + pos) % 97;
        positions[i] = i;
        seq[i] = 0;
    }
    ids[row] = (pos * 7 + 5) % 97;
    positions[row] = pos;
    seq[row] = 1;
    weir_err err = parallel_forward(p, &batch, why);
    if (err == WEIR_OK)
        err = parallel_logits(p, &row, 1, &got, why);
    if (err == WEIR_OK && logits)
        memcpy(logits, got, 97 * sizeof *logits);
    return err;
}

static void test_bits_in_company(void **state)
{
    struct parallel *alone = NULL, *crowd = NULL;
    float a[97], b[97];
    struct weir_why why;

    (void)state;
    assert_int_equal(open_ranks(2, &alone, &why), WEIR_OK);
    assert_int_equal(open_ranks(2, &crowd, &why), WEIR_OK);
    for (int32_t pos = 0; pos < 20; pos++) {
        assert_int_equal(step(alone, pos, 0, a, &why), WEIR_OK);
        assert_int_equal(step(crowd, pos, (uint32_t)pos % 19, b, &why), WEIR_OK);
        assert_memory_equal(a, b, sizeof a);
    }
    parallel_copy_page(alone, 3, 4); /* the same keys for other positions: other numbers */
    assert_int_equal(step(alone, 19, 0, b, &why), WEIR_OK);
    assert_memory_not_equal(a, b, sizeof a);
    parallel_close(alone);
    parallel_close(crowd);
}

static void test_what_it_says_of_itself(void **state)
{
    struct parallel *one = NULL, *two = NULL;
    struct weir_why why;

    (void)state;
    assert_int_equal(open_ranks(1, &one, &why), WEIR_OK);
    assert_int_equal(open_ranks(2, &two, &why), WEIR_OK);
    assert_null(strstr(parallel_name(one), " x "));
    assert_non_null(strstr(parallel_name(two), " x 2"));
    assert_int_equal(parallel_n_params(two), parallel_n_params(one));
    assert_int_equal(parallel_page_bytes(two), parallel_page_bytes(one)); /* 2 key heads, one on each */
    assert_memory_equal(parallel_weights_hash(two), parallel_weights_hash(one), 32);
    assert_true(parallel_weight_bytes(two) >= parallel_weight_bytes(one));
    parallel_close(one);
    parallel_close(two);
    parallel_close(NULL);
}

static void test_broken_ranks_fail_every_step(void **state)
{
    struct parallel *p = NULL;
    struct weir_why why = { 0 };

    (void)state;
    assert_int_equal(open_ranks(4, &p, &why), WEIR_OK);
    assert_int_equal(step(p, 0, 3, NULL, &why), WEIR_OK);
    parallel_break(p);
    for (int i = 0; i < 3; i++) {
        why.text[0] = '\0';
        assert_int_equal(step(p, 1, 3, NULL, &why), WEIR_IO);
        assert_true(why.text[0] != '\0');
    }
    parallel_close(p);
}

static void *break_soon(void *arg)
{
    parallel_break(arg);
    return NULL;
}

/* [P2] Wherever the ranks are when it happens, nobody waits for ever. */
static void test_break_within_a_step(void **state)
{
    (void)state;
    for (int round = 0; round < 20; round++) {
        struct parallel *p = NULL;
        struct weir_why why = { 0 };
        pthread_t thread;
        weir_err err = WEIR_OK;
        assert_int_equal(open_ranks(2, &p, &why), WEIR_OK);
        assert_int_equal(pthread_create(&thread, NULL, break_soon, p), 0);
        while (err == WEIR_OK)
            err = step(p, 0, 10, NULL, &why);
        assert_int_equal(err, WEIR_IO);
        pthread_join(thread, NULL);
        parallel_close(p);
    }
}

static weir_err open_all_but_one(const struct weir_backend_opts *opts, struct weir_backend **ret,
                                 struct weir_why *why)
{
    if (opts->rank == 2)
        return weir_fail(why, WEIR_IO, "this one is dead");
    return weir_backend_cpu_open(opts, ret, why);
}

static void test_a_rank_that_does_not_open(void **state)
{
    const struct parallel_opts opts = { .open = open_all_but_one, .n_ranks = 4 };
    struct parallel *p = NULL;
    struct weir_why why = { 0 };

    (void)state;
    assert_int_equal(parallel_open(&opts, &config, &p, &why), WEIR_IO);
    assert_null(p);
    assert_string_equal(why.text, "rank 2: this one is dead");
}

static int begin_dead(struct weir_backend *be, const struct weir_batch *batch)
{
    (void)be;
    (void)batch;
    return 1; /* skips the step, and with it all meetings */
}

static weir_err end_dead(struct weir_backend *be, struct weir_why *why)
{
    (void)be;
    return weir_fail(why, WEIR_IO, "the device fell off");
}

static weir_err open_one_that_dies(const struct weir_backend_opts *opts, struct weir_backend **ret,
                                   struct weir_why *why)
{
    weir_err err = weir_backend_cpu_open(opts, ret, why);

    if (err == WEIR_OK && opts->rank == 1) {
        (*ret)->begin = begin_dead;
        (*ret)->end = end_dead;
    }
    return err;
}

/* [P2] The others wait for it in a collective, and must not for ever. */
static void test_a_rank_that_dies_in_a_step(void **state)
{
    const struct parallel_opts opts = { .open = open_one_that_dies,
                                        .backend = { .n_threads = 1 },
                                        .n_ranks = 4 };
    struct parallel *p = NULL;
    struct weir_why why = { 0 };

    (void)state;
    assert_int_equal(parallel_open(&opts, &config, &p, &why), WEIR_OK);
    assert_int_equal(parallel_load(p, dir, &limits, &why), WEIR_OK);
    assert_int_equal(step(p, 0, 3, NULL, &why), WEIR_IO);
    assert_int_equal(step(p, 0, 3, NULL, &why), WEIR_IO);
    parallel_close(p);
}

static void test_no_memory(void **state)
{
    (void)state;
    for (uint32_t n_ranks = 1; n_ranks <= 2; n_ranks++) {
        struct parallel *p = NULL;
        struct weir_why why;
        weir_err err = WEIR_NOMEM;
        for (long n = 0; err != WEIR_OK; n++) {
            weir_test_alloc_budget(n);
            err = open_ranks(n_ranks, &p, &why);
            weir_test_alloc_budget(-1);
            assert_true(err == WEIR_OK ? p != NULL : p == NULL);
        }
        assert_int_equal(step(p, 0, 3, NULL, &why), WEIR_OK);
        parallel_close(p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bits_in_company),
        cmocka_unit_test(test_what_it_says_of_itself),
        cmocka_unit_test(test_broken_ranks_fail_every_step),
        cmocka_unit_test(test_break_within_a_step),
        cmocka_unit_test(test_a_rank_that_does_not_open),
        cmocka_unit_test(test_a_rank_that_dies_in_a_step),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, write_model, remove_model);
}
