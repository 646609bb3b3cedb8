/* test_pool.c - every part of every job runs once, whoever sleeps. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "kernels/cpu/pool.h"

#define THREADS_MAX 5

struct tally {
    uint32_t times[THREADS_MAX]; /* each written by one thread alone */
    uint32_t n_seen[THREADS_MAX];
};

static void count(void *arg, uint32_t i, uint32_t n)
{
    struct tally *tally = arg;

    tally->times[i]++;
    tally->n_seen[i] = n;
}

/* [K1] The counts are whole as soon as pool_run returns, in a hurry and after workers went to sleep. */
static void test_parts_run_once(void **state)
{
    (void)state;
    for (uint32_t n = 1; n <= THREADS_MAX; n++) {
        struct pool *pool = NULL;
        struct tally tally = { 0 };
        struct weir_why why;
        assert_int_equal(pool_open(n, &pool, &why), WEIR_OK);
        assert_int_equal(pool_threads(pool), n);
        for (uint32_t job = 1; job <= 2000; job++) {
            if (job % 400 == 0)
                usleep(3000); /* long past the spinning */
            pool_run(pool, count, &tally);
            for (uint32_t i = 0; i < n; i++) {
                assert_int_equal(tally.times[i], job);
                assert_int_equal(tally.n_seen[i], n);
            }
        }
        pool_close(pool);
    }
}

static void test_shares_cover_all(void **state)
{
    (void)state;
    for (uint32_t n = 1; n <= 9; n++)
        for (uint32_t total = 0; total < 40; total++) {
            uint32_t next = 0, begin = 0, end = 0;
            for (uint32_t i = 0; i < n; i++) {
                pool_share(total, i, n, &begin, &end);
                assert_int_equal(begin, next);
                assert_true(end >= begin && end - begin <= total / n + 1);
                next = end;
            }
            assert_int_equal(next, total);
        }
}

static void test_no_memory(void **state)
{
    struct pool *pool = NULL;
    struct weir_why why;
    weir_err err = WEIR_NOMEM;

    (void)state;
    for (long n = 0; err != WEIR_OK; n++) {
        weir_test_alloc_budget(n);
        err = pool_open(3, &pool, &why);
        weir_test_alloc_budget(-1);
        assert_true(err == WEIR_OK ? pool != NULL : pool == NULL);
    }
    pool_close(pool);
    pool_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts_run_once),
        cmocka_unit_test(test_shares_cover_all),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
