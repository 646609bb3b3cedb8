/* Stop strings are found at the same place whatever the borders, and no more is held than must be. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "replica/text/tokenizer.h"

enum { STOPS_MAX = 6 };

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525 + 1013904223;
    return *state >> 8;
}

static bool ends_with(const char *text, size_t len, struct weir_str s)
{
    return s.len > 0 && s.len <= len && memcmp(text + len - s.len, s.ptr, s.len) == 0;
}

/* [S2] by trying everything: where the text stops (the length that may be shown), or len when it does not. */
static bool stop_plainly(const struct weir_str *stops, int n, const char *text, size_t len, size_t *ret)
{
    for (size_t end = 1; end <= len; end++) {
        size_t longest = 0;
        for (int i = 0; i < n; i++)
            if (ends_with(text, end, stops[i]) && stops[i].len > longest)
                longest = stops[i].len;
        if (longest > 0) {
            *ret = end - longest;
            return true;
        }
    }
    *ret = len;
    return false;
}

/* [S1] by trying everything: the longest suffix that begins a stop string. */
static size_t held_plainly(const struct weir_str *stops, int n, const char *text, size_t len)
{
    for (size_t held = len; held > 0; held--)
        for (int i = 0; i < n; i++)
            if (held < stops[i].len && memcmp(text + len - held, stops[i].ptr, held) == 0)
                return held;
    return 0;
}

static void feed(const struct weir_stop *set, const struct weir_str *stops, int n, const char *text,
                 size_t len, uint32_t *seed)
{
    struct weir_stop_state st = { 0 };
    struct weir_buf out;
    size_t want, fed = 0;
    bool stops_here = stop_plainly(stops, n, text, len, &want), met = false;

    weir_buf_init(&out, 0);
    while (fed < len && !met) {
        size_t step = next_random(seed) % 4;
        if (step > len - fed)
            step = len - fed;
        met = weir_stop_push(set, &st, (struct weir_str){ text + fed, step }, &out);
        fed += step;
        if (!met)
            assert_int_equal(fed - weir_buf_len(&out), held_plainly(stops, n, text, fed));
    }
    assert_int_equal(met, stops_here);
    if (!met)
        weir_stop_finish(&st, &out);
    assert_int_equal(weir_buf_len(&out), want);
    if (want)
        assert_memory_equal(weir_buf_ptr(&out), text, want);
    weir_buf_release(&out);
    weir_stop_release(&st);
}

static void test_any_borders_same_place(void **state)
{
    uint32_t seed = 7;

    (void)state;
    for (int round = 0; round < 20000; round++) {
        char bytes[STOPS_MAX][8], text[40];
        struct weir_str stops[STOPS_MAX];
        struct weir_stop *set = NULL;
        struct weir_arena arena;
        int n = 1 + (int)(next_random(&seed) % STOPS_MAX);
        uint32_t n_letters = 1 + next_random(&seed) % 3;
        for (int i = 0; i < n; i++) {
            size_t len = 1 + next_random(&seed) % 6;
            for (size_t k = 0; k < len; k++)
                bytes[i][k] = (char)('a' + next_random(&seed) % n_letters);
            stops[i] = (struct weir_str){ bytes[i], len };
        }
        size_t len = next_random(&seed) % sizeof text;
        for (size_t k = 0; k < len; k++)
            text[k] = (char)('a' + next_random(&seed) % (n_letters + 1));
        weir_arena_init(&arena, 0);
        assert_int_equal(weir_stop_compile(stops, n, &arena, &set), WEIR_OK);
        feed(set, stops, n, text, len, &seed);
        weir_arena_release(&arena);
    }
}

static void test_examples(void **state)
{
    const struct weir_str stops[] = { WEIR_STR("\n\nUser:"), WEIR_STR("\xe6\xb0\xb4"), WEIR_STR("") };
    struct weir_stop *set = NULL;
    struct weir_stop_state st = { 0 };
    struct weir_arena arena;
    struct weir_buf out;

    (void)state;
    weir_arena_init(&arena, 0);
    weir_buf_init(&out, 0);
    assert_int_equal(weir_stop_compile(stops, 3, &arena, &set), WEIR_OK);
    assert_false(weir_stop_push(set, &st, WEIR_STR("Hello\n"), &out));
    assert_string_equal(weir_buf_cstr(&out), "Hello");
    assert_false(weir_stop_push(set, &st, WEIR_STR("\nUse it"), &out));
    assert_string_equal(weir_buf_cstr(&out), "Hello\n\nUse it");
    assert_false(weir_stop_push(set, &st, WEIR_STR("\n\n\nUs"), &out));
    assert_true(weir_stop_push(set, &st, WEIR_STR("er: more"), &out));
    assert_string_equal(weir_buf_cstr(&out), "Hello\n\nUse it\n");
    weir_stop_finish(&st, &out); /* nothing of the stop string comes out behind */
    assert_string_equal(weir_buf_cstr(&out), "Hello\n\nUse it\n");
    weir_stop_release(&st);
    weir_buf_release(&out);
    weir_arena_release(&arena);
}

static void test_none(void **state)
{
    const struct weir_str empty[] = { WEIR_STR("") };
    struct weir_stop *set = (struct weir_stop *)1;
    struct weir_stop_state st = { 0 };
    struct weir_arena arena;
    struct weir_buf out;

    (void)state;
    weir_arena_init(&arena, 0);
    weir_buf_init(&out, 0);
    assert_int_equal(weir_stop_compile(empty, 1, &arena, &set), WEIR_OK);
    assert_null(set);
    assert_int_equal(weir_stop_compile(NULL, 0, &arena, &set), WEIR_OK);
    assert_false(weir_stop_push(set, &st, WEIR_STR("all of it"), &out));
    assert_string_equal(weir_buf_cstr(&out), "all of it");
    weir_stop_finish(&st, &out);
    weir_stop_release(&st);
    weir_buf_release(&out);
    weir_arena_release(&arena);
}

/* Text that could not be held is not lost in silence. */
static void test_no_memory(void **state)
{
    const struct weir_str stops[] = { WEIR_STR("stop") };
    struct weir_stop *set = NULL;
    struct weir_stop_state st = { 0 };
    struct weir_arena arena;
    struct weir_buf out;

    (void)state;
    weir_arena_init(&arena, 0);
    weir_buf_init(&out, 0);
    assert_int_equal(weir_stop_compile(stops, 1, &arena, &set), WEIR_OK);
    weir_test_alloc_budget(0);
    assert_false(weir_stop_push(set, &st, WEIR_STR("st"), &out));
    weir_test_alloc_budget(-1);
    assert_true(out.failed);
    weir_stop_release(&st);
    weir_buf_release(&out);
    weir_arena_release(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_borders_same_place),
        cmocka_unit_test(test_examples),
        cmocka_unit_test(test_none),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
