/* test_nccl.c - ranks that sum by NCCL, over the emulator and a fake library of NCCL's entry points: sums, and that nothing waits for
 * ever - not an opening, not a sum, not with a library too old to be asked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "kernels/cuda/cuda_be.h"
#include "kernels/cuda/nccl.h"
#include "tests/unit/cuda/fake_nccl.h"

enum { PATIENCE_MS = 100, N = 48 };

static _Atomic int *mode, *n_open, *n_sums;

/* The fake library with a fault. */
static void use(const char *path, int fault)
{
    void *library;

    assert_true(nccl_emulate(path, PATIENCE_MS));
    library = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
    assert_non_null(library);
    mode = dlsym(library, "fake_nccl_mode");
    n_open = dlsym(library, "fake_nccl_open");
    n_sums = dlsym(library, "fake_nccl_sums");
    *mode = fault;
    *n_sums = 0;
}

static int leave(void **state)
{
    (void)state;
    unsetenv("WEIR_NCCL");
    nccl_emulate(NULL, 0);
    return 0;
}

struct rank {
    struct weir_group *group;
    uint32_t i;
    struct weir_backend *be;
    struct weir_why why;
    weir_err err;
    uint16_t *x;
};

static void *open_rank(void *arg)
{
    struct rank *r = arg;
    const struct weir_backend_opts opts = { .n_threads = 1, .group = r->group, .rank = r->i };

    r->err = cuda_open(weir_plugin_host(), &opts, &r->be, &r->why);
    return NULL;
}

/* A step of one token with a sum; what end() says. */
static void *step(void *arg)
{
    struct rank *r = arg;
    struct weir_backend *be = r->be;
    const int32_t zero = 0, table[2] = { 0, 1 };
    const struct weir_batch batch = { 1, &zero, &zero, &zero, table, 1, 2, NULL };

    if (!r->x)
        r->x = be->alloc(be, N * sizeof *r->x);
    for (int i = 0; i < N; i++)
        r->x[i] = (uint16_t)(0x3f80 + (r->i << 7)); /* 1, 2, ... */
    assert_int_equal(be->begin(be, &batch), 0);
    be->all_reduce(be, r->x, N);
    r->err = be->end(be, &r->why);
    return NULL;
}

static void both(struct rank *ranks, void *(*fn)(void *arg))
{
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, fn, &ranks[1]), 0);
    fn(&ranks[0]);
    pthread_join(thread, NULL);
}

static void open_two(struct rank *ranks)
{
    struct weir_why why;

    memset(ranks, 0, 2 * sizeof *ranks);
    assert_int_equal(weir_group_open(2, &ranks[0].group, &why), WEIR_OK);
    ranks[1].group = ranks[0].group;
    ranks[1].i = 1;
    both(ranks, open_rank);
}

static void *close_rank(void *arg)
{
    struct rank *r = arg;

    if (r->be && r->x)
        r->be->free(r->be, r->x);
    weir_backend_close(r->be);
    return NULL;
}

static void close_two(struct rank *ranks)
{
    both(ranks, close_rank);
    weir_group_close(ranks[0].group);
}

static void *gather(void *arg)
{
    struct rank *r = arg;
    float *part = r->be->alloc(r->be, 6 * 4), *out = r->be->alloc(r->be, 12 * 4);

    for (int i = 0; i < 6; i++)
        part[i] = (float)(10 * r->i) + (float)i;
    r->be->all_gather(r->be, out, part, /* n_rows= */ 2, /* n= */ 3);
    const float *got = r->be->map(r->be, out, 12 * 4);
    static const float want[] = { 0, 1, 2, 10, 11, 12, 3, 4, 5, 13, 14, 15 };
    r->err = got && memcmp(got, want, sizeof want) == 0 ? WEIR_OK : WEIR_INTERNAL;
    r->be->free(r->be, part);
    r->be->free(r->be, out);
    return NULL;
}

/* [N1] [N2] With either library two ranks sum and gather, and give their communicators back. */
static void test_sums(void **state)
{
    static const char *const paths[] = { FAKE_NCCL, FAKE_NCCL_OLD };

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct rank ranks[2];
        use(paths[i], FAKE_OK);
        open_two(ranks);
        for (int r = 0; r < 2; r++)
            assert_int_equal(ranks[r].err, WEIR_OK);
        assert_int_equal(*n_open, 2);
        both(ranks, step);
        for (int r = 0; r < 2; r++) {
            assert_int_equal(ranks[r].err, WEIR_OK);
            for (int k = 0; k < N; k++)
                assert_int_equal(ranks[r].x[k], 0x4040); /* 3 */
        }
        both(ranks, gather);
        assert_int_equal(ranks[0].err, WEIR_OK);
        assert_int_equal(ranks[1].err, WEIR_OK);
        close_two(ranks);
        assert_int_equal(*n_open, 0);
    }
}

/* [K1] Communicators that are never ready: opening fails within the bound, and they are given up. */
static void test_opening_that_hangs(void **state)
{
    struct rank ranks[2];

    (void)state;
    use(FAKE_NCCL, FAKE_OPEN_HANGS);
    open_two(ranks);
    for (int r = 0; r < 2; r++) {
        assert_int_equal(ranks[r].err, WEIR_IO);
        assert_null(ranks[r].be);
        assert_non_null(
            strstr(ranks[r].why.text, r ? "rank 1 of 2: NCCL: opening" : "rank 0 of 2: NCCL: opening"));
    }
    assert_int_equal(*n_open, 0);
    close_two(ranks);
}

/* [N1] The same with a library whose opening blocks; a call that returns after all is cleaned up behind. */
static void test_old_opening_that_hangs(void **state)
{
    struct rank ranks[2];

    (void)state;
    use(FAKE_NCCL_OLD, FAKE_OPEN_HANGS);
    open_two(ranks);
    for (int r = 0; r < 2; r++) {
        assert_int_equal(ranks[r].err, WEIR_IO);
        assert_null(ranks[r].be);
        assert_non_null(strstr(ranks[r].why.text, "NCCL: opening"));
    }
    close_two(ranks);
    *mode = FAKE_OK;
    usleep(50000); /* the two calls return, and what they opened goes: seen by the leak checker */
    for (int i = 0; i < 200 && *n_open; i++)
        usleep(10000);
    assert_int_equal(*n_open, 0);
}

/* [K1] An error that NCCL tells of later ends the step, breaks the group, and stays. */
static void test_sum_that_fails(void **state)
{
    struct rank ranks[2];

    (void)state;
    use(FAKE_NCCL, FAKE_SUM_FAILS);
    open_two(ranks);
    assert_int_equal(ranks[0].err, WEIR_OK);
    step(&ranks[0]);
    assert_int_equal(ranks[0].err, WEIR_IO);
    assert_non_null(strstr(ranks[0].why.text, "rank 0 of 2: NCCL"));
    assert_non_null(strstr(ranks[0].why.text, "remote process exited"));
    assert_true(weir_plugin_host()->group_broken(ranks[0].group));
    assert_null(ranks[0].be->map(ranks[0].be, ranks[0].x, N * 2));
    close_two(ranks);
    assert_int_equal(*n_open, 0);
}

/* [K1] A sum that never starts, because a rank is gone, is given up. */
static void test_sum_that_hangs(void **state)
{
    struct rank ranks[2];

    (void)state;
    use(FAKE_NCCL, FAKE_SUM_HANGS);
    open_two(ranks);
    step(&ranks[0]);
    assert_int_equal(ranks[0].err, WEIR_IO);
    assert_non_null(strstr(ranks[0].why.text, "all-reduce: not done within"));
    assert_true(weir_plugin_host()->group_broken(ranks[0].group));
    close_two(ranks);
    assert_int_equal(*n_open, 0);
}

static void *break_soon(void *arg)
{
    usleep(30000);
    weir_group_break(arg);
    return NULL;
}

/* [K1] A rank that never opens: who waits for it goes on when the group breaks. */
static void test_rank_that_never_opens(void **state)
{
    struct rank r = { .i = 1 };
    struct weir_why why;
    pthread_t thread;

    (void)state;
    use(FAKE_NCCL, FAKE_OK);
    assert_int_equal(weir_group_open(2, &r.group, &why), WEIR_OK);
    assert_int_equal(pthread_create(&thread, NULL, break_soon, r.group), 0);
    open_rank(&r);
    pthread_join(thread, NULL);
    assert_int_equal(r.err, WEIR_IO);
    assert_null(r.be);
    weir_group_close(r.group);
}

/* One rank: NCCL only when it is asked for, and then every sum is NCCL's. */
static void test_one_rank(void **state)
{
    struct rank r = { 0 };

    (void)state;
    use(FAKE_NCCL, FAKE_OK);
    open_rank(&r);
    assert_int_equal(r.err, WEIR_OK);
    step(&r);
    assert_int_equal(*n_sums, 0);
    close_rank(&r);

    setenv("WEIR_NCCL", "1", 1);
    r = (struct rank){ 0 };
    open_rank(&r);
    assert_int_equal(r.err, WEIR_OK);
    assert_int_equal(*n_open, 1);
    step(&r);
    assert_int_equal(r.err, WEIR_OK);
    assert_int_equal(*n_sums, 1);
    assert_int_equal(r.x[5], 0x3f80);
    close_rank(&r);
    assert_int_equal(*n_open, 0);
}

/* WEIR_NCCL=0: ranks meet in the process. What is neither 0 nor 1 is refused by name. */
static void test_refused(void **state)
{
    struct rank ranks[2], r = { 0 };

    (void)state;
    use(FAKE_NCCL, FAKE_OK);
    setenv("WEIR_NCCL", "0", 1);
    open_two(ranks);
    both(ranks, step);
    assert_int_equal(*n_sums, 0);
    assert_int_equal(ranks[1].x[0], 0x4040);
    close_two(ranks);
    setenv("WEIR_NCCL", "yes", 1);
    open_rank(&r);
    assert_int_equal(r.err, WEIR_INVALID);
    assert_string_equal(r.why.param, "WEIR_NCCL");
}

/* Asked for, and not there. */
static void test_asked_for_and_missing(void **state)
{
    struct rank r = { 0 };

    (void)state;
    assert_false(nccl_emulate("/nowhere/libnccl.so.2", PATIENCE_MS));
    setenv("WEIR_NCCL", "1", 1);
    open_rank(&r);
    assert_int_equal(r.err, WEIR_UNAVAILABLE);
    assert_non_null(strstr(r.why.text, "libnccl.so.2 is not here"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_sums, leave),
        cmocka_unit_test_teardown(test_opening_that_hangs, leave),
        cmocka_unit_test_teardown(test_old_opening_that_hangs, leave),
        cmocka_unit_test_teardown(test_sum_that_fails, leave),
        cmocka_unit_test_teardown(test_sum_that_hangs, leave),
        cmocka_unit_test_teardown(test_rank_that_never_opens, leave),
        cmocka_unit_test_teardown(test_one_rank, leave),
        cmocka_unit_test_teardown(test_refused, leave),
        cmocka_unit_test_teardown(test_asked_for_and_missing, leave),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
