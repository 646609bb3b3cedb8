/* test_group.c - collectives of ranks: sums and gathered rows, the same bits on every rank; and a group that breaks. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "kernels/kernels.h"

enum { RANKS_MAX = 4, N = 103, ROUNDS = 200 };

struct rank {
    struct weir_group *group;
    uint32_t i, n;
    float sums[N], gathered[RANKS_MAX * 6];
    weir_err err;
    pthread_t thread;
};

/* What rank r has at i in a round: fractions whose sum depends on the order. */
static float number(uint32_t r, uint32_t i, uint32_t round)
{
    return (float)(i * 7 + r * 13 + round) / 3.0f * (r % 2 ? 1e-4f : 1.0f);
}

static void *run_rank(void *arg)
{
    struct rank *r = arg;
    struct weir_backend_opts opts = { .n_threads = 1, .group = r->group, .rank = r->i };
    struct weir_backend *be = NULL;
    struct weir_why why;
    float share[6];

    r->err = weir_backend_cpu_open(&opts, &be, &why);
    if (r->err != WEIR_OK)
        return NULL;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        for (uint32_t i = 0; i < N; i++)
            r->sums[i] = number(r->i, i, round);
        be->all_reduce(be, r->sums, N);
        for (uint32_t i = 0; i < 6; i++)
            share[i] = number(r->i, i, round);
        be->all_gather(be, r->gathered, share, 2, 3);
    }
    r->err = be->end(be, &why);
    weir_backend_close(be);
    return NULL;
}

static void run_all(struct rank *ranks, uint32_t n, struct weir_group *group)
{
    for (uint32_t i = 0; i < n; i++) {
        ranks[i] = (struct rank){ .group = group, .i = i, .n = n };
        assert_int_equal(pthread_create(&ranks[i].thread, NULL, run_rank, &ranks[i]), 0);
    }
    for (uint32_t i = 0; i < n; i++)
        pthread_join(ranks[i].thread, NULL);
}

/* [G1] */
static void test_ranks_meet(void **state)
{
    static struct rank ranks[RANKS_MAX];
    struct weir_why why;

    (void)state;
    for (uint32_t n = 1; n <= RANKS_MAX; n++) {
        struct weir_group *group = NULL;
        assert_int_equal(weir_group_open(n, &group, &why), WEIR_OK);
        run_all(ranks, n, group);
        for (uint32_t i = 0; i < N; i++) {
            float wanted = number(0, i, ROUNDS - 1);
            for (uint32_t r = 1; r < n; r++)
                wanted += number(r, i, ROUNDS - 1);
            for (uint32_t r = 0; r < n; r++)
                assert_true(ranks[r].sums[i] == wanted);
        }
        for (uint32_t r = 0; r < n; r++) {
            assert_int_equal(ranks[r].err, WEIR_OK);
            for (uint32_t i = 0; i < 6 * n; i++) /* [2 rows, n * 3] */
                assert_true(ranks[r].gathered[i] ==
                            number(i % (3 * n) / 3, i / (3 * n) * 3 + i % 3, ROUNDS - 1));
        }
        weir_group_close(group);
    }
}

/* [G2] A rank never comes: the others wait until the group breaks, then say so. */
static void test_break_frees_those_who_wait(void **state)
{
    static struct rank ranks[2];
    struct weir_group *group = NULL;
    struct weir_why why;

    (void)state;
    assert_int_equal(weir_group_open(3, &group, &why), WEIR_OK);
    for (uint32_t i = 0; i < 2; i++) {
        ranks[i] = (struct rank){ .group = group, .i = i, .n = 3 };
        assert_int_equal(pthread_create(&ranks[i].thread, NULL, run_rank, &ranks[i]), 0);
    }
    weir_group_break(group);
    for (uint32_t i = 0; i < 2; i++) {
        pthread_join(ranks[i].thread, NULL);
        assert_int_equal(ranks[i].err, WEIR_IO);
    }
    weir_group_close(group);
    weir_group_close(NULL);
}

static void test_bad_options(void **state)
{
    struct weir_group *group = NULL;
    struct weir_backend *be = NULL;
    struct weir_why why;

    (void)state;
    assert_int_equal(weir_group_open(0, &group, &why), WEIR_INVALID);
    assert_int_equal(weir_backend_cpu_open(&(struct weir_backend_opts){ .rank = 1 }, &be, &why),
                     WEIR_INVALID);
    assert_string_equal(why.param, "rank");
    assert_int_equal(weir_backend_cpu_open(&(struct weir_backend_opts){ .kv = WEIR_F16 }, &be, &why),
                     WEIR_INVALID);
    assert_string_equal(why.param, "kv");
    assert_null(be);
}

static void test_no_memory(void **state)
{
    struct weir_group *group = NULL;
    struct weir_why why;
    weir_err err = WEIR_NOMEM;

    (void)state;
    for (long n = 0; err != WEIR_OK; n++) {
        weir_test_alloc_budget(n);
        err = weir_group_open(3, &group, &why);
        weir_test_alloc_budget(-1);
        assert_true(err == WEIR_OK ? group != NULL : err == WEIR_NOMEM && group == NULL);
    }
    weir_group_close(group);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranks_meet),
        cmocka_unit_test(test_break_frees_those_who_wait),
        cmocka_unit_test(test_bad_options),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
