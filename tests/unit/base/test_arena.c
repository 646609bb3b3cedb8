/* test_arena.c - the request arena. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/mem.h"
#include "base/sanitize_int.h"

#if WITH_ASAN
#include <sanitizer/asan_interface.h>
#endif

/* [A1] Blocks of all sizes are aligned and keep their content while others are written. */
static void test_blocks_are_aligned_and_apart(void **state)
{
    enum { N = 2000 };
    struct weir_arena arena;
    unsigned char *blocks[N];
    size_t sizes[N];

    (void)state;
    weir_arena_init(&arena, 0);
    for (size_t i = 0; i < N; i++) {
        sizes[i] = i % 97 == 0 ? 70000 : i * 7919 % 500;
        blocks[i] = weir_arena_alloc(&arena, sizes[i]);
        assert_non_null(blocks[i]);
        assert_int_equal((uintptr_t)blocks[i] % 16, 0);
        memset(blocks[i], (int)(i & 0xff), sizes[i]);
    }
    for (size_t i = 0; i < N; i++)
        for (size_t k = 0; k < sizes[i]; k++)
            assert_int_equal(blocks[i][k], i & 0xff);
    weir_arena_release(&arena);
    assert_int_equal(arena.used, 0);
}

/* [A2] The limit holds for small blocks, large ones and their sum; what was there stays usable. */
static void test_limit_bounds_the_total(void **state)
{
    struct weir_arena arena;
    size_t n = 0;

    (void)state;
    weir_arena_init(&arena, 10000);
    assert_null(weir_arena_alloc(&arena, 10000)); /* with its header it is more */
    char *first = weir_arena_strndup(&arena, "kept", 4);
    while (weir_arena_alloc(&arena, 100))
        n++;
    assert_true(n > 60 && n < 100); /* most of the limit can be used */
    assert_true(arena.used <= 10000);
    assert_string_equal(first, "kept");
    weir_arena_release(&arena);
    assert_non_null(weir_arena_alloc(&arena, 100)); /* ready for use again, under the same limit */
    assert_null(weir_arena_alloc(&arena, 9990));
    weir_arena_release(&arena);
}

static void test_huge_sizes_fail_without_wrapping(void **state)
{
    struct weir_arena arena;

    (void)state;
    weir_arena_init(&arena, 0);
    assert_null(weir_arena_alloc(&arena, SIZE_MAX));
    assert_null(weir_arena_alloc(&arena, SIZE_MAX - 15));
    assert_null(weir_arena_strndup(&arena, "x", SIZE_MAX));
    weir_arena_release(&arena);
    weir_arena_release(NULL);
}

static void test_clear_keeps_one_small_chunk(void **state)
{
    struct weir_arena arena;

    (void)state;
    weir_arena_init(&arena, 0);
    for (int i = 0; i < 100; i++)
        weir_arena_alloc(&arena, 5000);
    weir_arena_clear(&arena);
    assert_true(arena.used > 0 && arena.used <= 65536);
    size_t used = arena.used;
    weir_arena_alloc(&arena, 100);
    assert_int_equal(arena.used, used); /* from the chunk that was kept */
    weir_arena_release(&arena);
    /* A large first block is not kept: a connection would hold it for ever. */
    weir_arena_alloc(&arena, 1000000);
    weir_arena_clear(&arena);
    assert_int_equal(arena.used, 0);
    weir_arena_release(&arena);
}

static void test_large_block_leaves_the_newest_chunk_in_use(void **state)
{
    struct weir_arena arena;

    (void)state;
    weir_arena_init(&arena, 0);
    char *a = weir_arena_alloc(&arena, 16);
    weir_arena_alloc(&arena, 200000);
    size_t used = arena.used;
    char *b = weir_arena_alloc(&arena, 16);
    assert_int_equal(arena.used, used);
    assert_true(b > a && b - a < 2048);
    weir_arena_release(&arena);
}

static void test_text_helpers(void **state)
{
    struct weir_arena arena;
    static const char zeros[300];

    (void)state;
    weir_arena_init(&arena, 0);
    assert_string_equal(weir_arena_printf(&arena, "%s-%d", "replica", 7), "replica-7");
    assert_int_equal(strlen(weir_arena_printf(&arena, "%5000s", "x")), 5000);
    assert_string_equal(weir_arena_strndup(&arena, "abcdef", 3), "abc");
    assert_string_equal(weir_arena_strndup(&arena, NULL, 0), "");
    memset(weir_arena_alloc(&arena, 300), 'x', 300);
    weir_arena_clear(&arena);
    assert_memory_equal(weir_arena_alloc0(&arena, 300), zeros, 300);
    weir_arena_release(&arena);
}

static void test_no_memory_is_null(void **state)
{
    struct weir_arena arena;

    (void)state;
    weir_arena_init(&arena, 0);
    weir_test_alloc_budget(0);
    assert_null(weir_arena_alloc(&arena, 1));
    assert_null(weir_arena_alloc0(&arena, 1));
    assert_null(weir_arena_printf(&arena, "x"));
    weir_test_alloc_budget(-1);
    assert_int_equal(arena.used, 0);
    weir_arena_release(&arena);
}

/* [A3] */
static void test_unused_parts_are_poisoned(void **state)
{
    (void)state;
#if WITH_ASAN
    struct weir_arena arena;
    weir_arena_init(&arena, 0);
    char *a = weir_arena_alloc(&arena, 32), *b = weir_arena_alloc(&arena, 5);
    assert_false(__asan_address_is_poisoned(a + 31));
    assert_true(__asan_address_is_poisoned(a + 32)); /* the gap */
    assert_false(__asan_address_is_poisoned(b + 4));
    assert_true(__asan_address_is_poisoned(b + 5));
    weir_arena_clear(&arena);
    assert_true(__asan_address_is_poisoned(a));
    weir_arena_release(&arena);
#else
    skip();
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks_are_aligned_and_apart),
        cmocka_unit_test(test_limit_bounds_the_total),
        cmocka_unit_test(test_huge_sizes_fail_without_wrapping),
        cmocka_unit_test(test_clear_keeps_one_small_chunk),
        cmocka_unit_test(test_large_block_leaves_the_newest_chunk_in_use),
        cmocka_unit_test(test_text_helpers),
        cmocka_unit_test(test_no_memory_is_null),
        cmocka_unit_test(test_unused_parts_are_poisoned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
