/* test_mem.c - the heap door and its test budget. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>

#include "base/mem.h"

static void *alloc_in_thread(void *arg)
{
    (void)arg;
    return weir_alloc(8);
}

/* [M1] n succeed, then none, on this thread only. */
static void test_budget_fails_the_next_allocation_of_this_thread(void **state)
{
    pthread_t thread;
    void *other;

    (void)state;
    weir_test_alloc_budget(2);
    char *a = weir_alloc(10), *b = weir_strdup("two");
    assert_non_null(a);
    assert_non_null(b);
    assert_null(weir_alloc(1));
    assert_null(weir_alloc0(1));
    assert_null(weir_calloc(1, 1));
    assert_null(weir_alloc_aligned(64, 1));
    assert_null(weir_strndup("abc", 2));
    assert_null(weir_realloc(a, 20));
    assert_int_equal(pthread_create(&thread, NULL, alloc_in_thread, NULL), 0);
    assert_int_equal(pthread_join(thread, &other), 0);
    assert_non_null(other);
    weir_test_alloc_budget(-1);
    a = weir_realloc(a, 20); /* the old block stayed */
    assert_non_null(a);
    weir_free(a);
    weir_free(b);
    weir_free(other);
    weir_free(NULL);
}

static void test_zero_sizes_and_overflows(void **state)
{
    (void)state;
    void *p = weir_alloc(0);
    assert_non_null(p); /* NULL would mean no memory */
    weir_free(p);
    p = weir_calloc(0, 8);
    assert_non_null(p);
    weir_free(p);
    assert_null(weir_calloc(SIZE_MAX / 2, 3));
    assert_null(weir_strndup("x", SIZE_MAX));
}

static void test_zeroed_aligned_and_copied(void **state)
{
    static const char zeros[64];

    (void)state;
    char *p = weir_calloc(8, 8);
    assert_memory_equal(p, zeros, 64);
    weir_free(p);
    for (size_t alignment = 1; alignment <= 4096; alignment *= 2) {
        p = weir_alloc_aligned(alignment, 3);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % alignment, 0);
        weir_free(p);
    }
    p = weir_strndup("abcdef", 3);
    assert_string_equal(p, "abc");
    weir_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_budget_fails_the_next_allocation_of_this_thread),
        cmocka_unit_test(test_zero_sizes_and_overflows),
        cmocka_unit_test(test_zeroed_aligned_and_copied),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
