/* test_engine.c - an engine whose model is split over ranks: the bits of an answer do not depend on batch mates there either
 * ([N1] of the engine), and greedy tokens are those of one rank. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/engine/run.h"

enum { N_MIXED = 8, N_VOCAB = 97 };

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

/* Greedy and sampled, one choice and three: what forks copies pages on every rank. */
static void mixed_request(struct run_request *r, uint32_t i)
{
    run_request_init(r, 300 + i, N_VOCAB, 1 + i * 29 % 70, 1 + i * 7 % 24);
    r->params.n_choices = i % 3 == 2 ? 3 : 1;
    r->params.temperature = i % 2 ? 0.8 : 0;
}

static struct run_request *run_mixed(uint32_t n_ranks, bool alone)
{
    struct run_request *requests = calloc(N_MIXED, sizeof *requests);
    struct weir_engine *eng =
        run_open(dir, &(struct weir_engine_opts){ .n_threads = n_ranks, .tensor_parallel = n_ranks });

    for (uint32_t i = 0; i < N_MIXED; i++) {
        mixed_request(&requests[i], i);
        if (alone)
            run_one(eng, &requests[i]);
    }
    if (!alone) {
        for (uint32_t i = 0; i < N_MIXED; i++)
            run_submit(eng, &requests[i]);
        run_all(eng, requests, N_MIXED);
    }
    run_idle(eng);
    weir_engine_close(eng);
    return requests;
}

static void test_alone_and_in_company(void **state)
{
    (void)state;
    for (uint32_t n_ranks = 2; n_ranks <= 4; n_ranks *= 2) {
        struct run_request *alone = run_mixed(n_ranks, true), *together = run_mixed(n_ranks, false);
        for (int i = 0; i < N_MIXED; i++)
            for (uint32_t k = 0; k < alone[i].params.n_choices; k++)
                run_same(&alone[i].choices[k], &together[i].choices[k]);
        free(alone);
        free(together);
    }
}

static void test_greedy_tokens_of_one_rank(void **state)
{
    struct run_request *one = run_mixed(1, false), *two = run_mixed(2, false);

    (void)state;
    for (int i = 0; i < N_MIXED; i += 2) { /* the greedy ones */
        assert_int_equal(one[i].choices[0].n, two[i].choices[0].n);
        assert_memory_equal(one[i].choices[0].ids, two[i].choices[0].ids,
                            (size_t)one[i].choices[0].n * sizeof *one[i].choices[0].ids);
    }
    free(one);
    free(two);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alone_and_in_company),
        cmocka_unit_test(test_greedy_tokens_of_one_rank),
    };
    return cmocka_run_group_tests(tests, make_model, remove_model);
}
