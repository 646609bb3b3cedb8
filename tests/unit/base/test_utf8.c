/* test_utf8.c - every code point, and what is not one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/utf8.h"

static void test_every_scalar_value_is_one_step(void **state)
{
    char text[4];

    (void)state;
    for (uint32_t code = 0; code <= 0x10ffff; code++) {
        size_t n = weir_utf8_put(code, text);
        bool surrogate = code >= 0xd800 && code <= 0xdfff;
        if (weir_utf8_step(text, n) != (surrogate ? 0 : n))
            fail_msg("code point %x", code);
        for (size_t cut = 1; cut < n; cut++)
            if (weir_utf8_step(text, cut) != 0)
                fail_msg("code point %x cut at %zu", code, cut);
    }
}

/* All two- and three-byte texts: exactly those that are made of code points are valid. */
static void test_count_of_valid_texts(void **state)
{
    unsigned n_two = 0, n_three = 0;

    (void)state;
    for (unsigned x = 0; x < 1 << 24; x++) {
        char text[3] = { (char)(x >> 16), (char)(x >> 8), (char)x };
        if (x < 1 << 16)
            n_two += weir_utf8_valid(text + 1, 2);
        n_three += weir_utf8_valid(text, 3);
    }
    assert_int_equal(n_two, 128 * 128 + 1920);
    assert_int_equal(n_three, 128 * 128 * 128 + 2 * 128 * 1920 + (65536 - 2048 - 2048));
}

static void test_invalid_at_every_place_of_a_long_text(void **state)
{
    static const char *const bad[] = { "\xff",    "\x80", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80",
                                       "\xe2\x82" };
    char text[80];

    (void)state;
    for (size_t at = 0; at < 70; at++) {
        memset(text, 'a', sizeof text);
        assert_true(weir_utf8_valid(text, sizeof text));
        for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
            memset(text, 'a', sizeof text);
            memcpy(text + at, bad[i], strlen(bad[i]));
            assert_false(weir_utf8_valid(text, sizeof text));
        }
        memset(text, 'a', sizeof text);
        memcpy(text + at, "\xe2\x82\xac", 3);
        assert_true(weir_utf8_valid(text, sizeof text));
        assert_false(weir_utf8_valid(text, at + 2));
    }
}

static void test_cut_never_splits(void **state)
{
    static const char text[] = "a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80z";

    (void)state;
    static const size_t want[] = { 0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 11 };
    for (size_t max = 0; max <= 11; max++)
        assert_int_equal(weir_utf8_cut(text, 11, max), want[max]);
    assert_int_equal(weir_utf8_cut(text, 11, 500), 11);
    assert_int_equal(weir_utf8_cut("\x80\x80\x80\x80\x80\x80\x80\x80", 8, 6), 6); /* not UTF-8 at all */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_scalar_value_is_one_step),
        cmocka_unit_test(test_count_of_valid_texts),
        cmocka_unit_test(test_invalid_at_every_place_of_a_long_text),
        cmocka_unit_test(test_cut_never_splits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
