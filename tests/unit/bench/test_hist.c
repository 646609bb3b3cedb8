/* The histogram: quantiles right to its width, nothing lost at either end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "bench/hist.h"

static void assert_near(uint64_t found, uint64_t wanted)
{
    assert_true(found > wanted * 98 / 100 - 1 && found < wanted * 102 / 100 + 1);
}

static void test_empty_has_no_quantiles(void **state)
{
    static struct hist h;

    (void)state;
    assert_int_equal(hist_quantile_ns(&h, 0.5), 0);
}

static void test_quantiles_of_known_times(void **state)
{
    static struct hist h;

    (void)state;
    for (uint64_t us = 1; us <= 1000; us++)
        hist_add(&h, us * 1000);
    assert_int_equal(h.n, 1000);
    assert_int_equal(h.max_ns, 1000000);
    assert_near(hist_quantile_ns(&h, 0.5), 500000);
    assert_near(hist_quantile_ns(&h, 0.9), 900000);
    assert_near(hist_quantile_ns(&h, 0.99), 990000);
}

/* A rare slow one shows only in the quantiles that hold it. */
static void test_tail(void **state)
{
    static struct hist h;

    (void)state;
    for (int i = 0; i < 998; i++)
        hist_add(&h, 100000);
    hist_add(&h, 50000000);
    hist_add(&h, 50000000);
    assert_near(hist_quantile_ns(&h, 0.5), 100000);
    assert_near(hist_quantile_ns(&h, 0.99), 100000);
    assert_near(hist_quantile_ns(&h, 0.999), 50000000);
}

static void test_ends_of_the_range(void **state)
{
    static struct hist h;

    (void)state;
    hist_add(&h, 0);
    hist_add(&h, UINT64_MAX);
    assert_int_equal(h.n, 2);
    assert_true(hist_quantile_ns(&h, 0) <= 110);
    assert_true(hist_quantile_ns(&h, 0.999) >= 60000000000);
    assert_true(h.max_ns == UINT64_MAX);
}

/* The last quantile is never above the largest time. */
static void test_no_quantile_passes_the_maximum(void **state)
{
    static struct hist h;

    (void)state;
    for (int i = 0; i < 3; i++)
        hist_add(&h, 777);
    assert_true(hist_quantile_ns(&h, 0.5) <= 777 && hist_quantile_ns(&h, 0.999) <= 777);
}

static void test_written_in_milliseconds(void **state)
{
    static struct hist h;
    struct weir_buf out;
    struct weir_jw w;

    (void)state;
    hist_add(&h, 2500000);
    weir_buf_init(&out, 0);
    weir_jw_init(&w, &out);
    hist_write(&h, &w);
    assert_non_null(strstr(weir_buf_cstr(&out), "\"n\":1,\"p50\":2.5"));
    assert_non_null(strstr(weir_buf_cstr(&out), "\"max\":2.5}"));
    weir_buf_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty_has_no_quantiles),
        cmocka_unit_test(test_quantiles_of_known_times),
        cmocka_unit_test(test_tail),
        cmocka_unit_test(test_ends_of_the_range),
        cmocka_unit_test(test_no_quantile_passes_the_maximum),
        cmocka_unit_test(test_written_in_milliseconds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
