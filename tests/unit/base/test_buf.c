/* test_buf.c - the byte buffer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"

/* Random appends and consumes give the same bytes as a plain queue of them would. */
static void test_bytes_come_out_as_they_went_in(void **state)
{
    struct weir_buf buf;
    unsigned char in = 0, out = 0;
    char chunk[3000];

    (void)state;
    weir_buf_init(&buf, 0);
    srand(1);
    for (int round = 0; round < 5000; round++) {
        size_t n = (size_t)rand() % (round % 7 == 0 ? sizeof chunk : 40);
        for (size_t i = 0; i < n; i++)
            chunk[i] = (char)in++;
        weir_buf_add(&buf, chunk, n);
        n = (size_t)rand() % (weir_buf_len(&buf) + 1);
        for (size_t i = 0; i < n; i++)
            assert_int_equal((unsigned char)weir_buf_ptr(&buf)[i], out++);
        weir_buf_consume(&buf, n);
    }
    assert_false(buf.failed);
    assert_true(buf.cap < 65536); /* a queue that is drained does not grow without end */
    weir_buf_release(&buf);
}

/* [B1] Exactly the limit fits; one more fails, and the content stays. */
static void test_limit(void **state)
{
    struct weir_buf buf;

    (void)state;
    weir_buf_init(&buf, 10);
    weir_buf_adds(&buf, "0123456789");
    assert_false(buf.failed);
    assert_string_equal(weir_buf_cstr(&buf), "0123456789"); /* the NUL does not count */
    weir_buf_consume(&buf, 4);
    weir_buf_adds(&buf, "abcd");
    assert_string_equal(weir_buf_cstr(&buf), "456789abcd");
    weir_buf_addc(&buf, 'x');
    assert_true(buf.failed);
    assert_int_equal(weir_buf_len(&buf), 10);
    assert_null(weir_buf_cstr(&buf));
    weir_buf_release(&buf);
}

/* [B2] */
static void test_failure_sticks_until_cleared(void **state)
{
    struct weir_buf buf;

    (void)state;
    weir_buf_init(&buf, 5);
    weir_buf_adds(&buf, "toolong");
    weir_buf_adds(&buf, "ok");
    weir_buf_addu(&buf, 1);
    weir_buf_addf(&buf, "%d", 1);
    assert_null(weir_buf_reserve(&buf, 1));
    assert_int_equal(weir_buf_len(&buf), 0);
    weir_buf_clear(&buf);
    weir_buf_adds(&buf, "ok");
    assert_string_equal(weir_buf_cstr(&buf), "ok");
    weir_buf_release(&buf);
}

static void test_no_memory_marks_it_failed(void **state)
{
    struct weir_buf buf;

    (void)state;
    weir_buf_init(&buf, 0);
    weir_buf_adds(&buf, "here");
    weir_test_alloc_budget(0);
    for (int i = 0; i < 1000; i++)
        weir_buf_adds(&buf, "more");
    weir_test_alloc_budget(-1);
    assert_true(buf.failed);
    assert_memory_equal(weir_buf_ptr(&buf), "heremore", 8);
    weir_buf_release(&buf);
    weir_buf_release(NULL);
    weir_buf_init(&buf, 0);
    assert_null(weir_buf_reserve(&buf, SIZE_MAX));
    weir_buf_release(&buf);
}

static void test_numbers_and_formats(void **state)
{
    struct weir_buf buf;

    (void)state;
    weir_buf_init(&buf, 0);
    assert_null(weir_buf_ptr(&buf));
    assert_string_equal(weir_buf_cstr(&buf), "");
    weir_buf_addu(&buf, 0);
    weir_buf_addc(&buf, ' ');
    weir_buf_addu(&buf, UINT64_MAX);
    weir_buf_addf(&buf, " %s=%d", "x", -5);
    assert_string_equal(weir_buf_cstr(&buf), "0 18446744073709551615 x=-5");
    weir_buf_clear(&buf);
    weir_buf_addf(&buf, "%01000d|", 7); /* longer than any inner buffer */
    assert_int_equal(weir_buf_len(&buf), 1001);
    assert_string_equal(weir_buf_cstr(&buf) + 998, "07|");
    weir_buf_release(&buf);
    /* A long format that fits its limit exactly. */
    weir_buf_init(&buf, 1001);
    weir_buf_addf(&buf, "%01000d|", 7);
    assert_false(buf.failed);
    weir_buf_release(&buf);
}

static void test_reserve_and_commit(void **state)
{
    struct weir_buf buf;

    (void)state;
    weir_buf_init(&buf, 0);
    char *at = weir_buf_reserve(&buf, 100);
    memcpy(at, "abc", 3);
    weir_buf_commit(&buf, 3);
    assert_int_equal(weir_buf_len(&buf), 3);
    assert_string_equal(weir_buf_cstr(&buf), "abc");
    weir_buf_release(&buf);
}

static void test_str_comparisons(void **state)
{
    (void)state;
    assert_int_equal(weir_str_cmp(weir_str("abc"), weir_str("abc")), 0);
    assert_true(weir_str_cmp(weir_str("abc"), weir_str("abd")) < 0);
    assert_true(weir_str_cmp(weir_str("abc"), weir_str("ab")) > 0);
    assert_true(weir_str_cmp((struct weir_str){ NULL, 0 }, weir_str("a")) < 0);
    assert_true(weir_str_cmp(weir_str("\xff"), weir_str("a")) > 0); /* as bytes, not as chars */
    assert_true(weir_str_eq(weir_str("abc"), "abc"));
    assert_false(weir_str_eq(weir_str("abc"), "abcd"));
    assert_false(weir_str_eq(weir_str("abd"), "abc"));
    assert_true(weir_str_eq(weir_str(NULL), ""));
    assert_true(weir_str_eq_nocase(WEIR_STR("Content-LENGTH"), "content-length"));
    assert_false(weir_str_eq_nocase(WEIR_STR("a["), "a{")); /* ASCII letters only, not the bit */
    assert_false(weir_str_eq_nocase(WEIR_STR("@"), "`"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_come_out_as_they_went_in),
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_failure_sticks_until_cleared),
        cmocka_unit_test(test_no_memory_marks_it_failed),
        cmocka_unit_test(test_numbers_and_formats),
        cmocka_unit_test(test_reserve_and_commit),
        cmocka_unit_test(test_str_comparisons),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
