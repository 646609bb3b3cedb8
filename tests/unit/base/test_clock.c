/* test_clock.c - clocks move forward, randomness is random. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"

static void test_clocks_are_in_nanoseconds(void **state)
{
    (void)state;
    uint64_t a = weir_now_ns(), b = weir_now_ns();
    assert_true(b >= a);
    /* Within a minute of the C library's idea of now. */
    int64_t off_s = (int64_t)(weir_wall_ns() / WEIR_S) - (int64_t)time(NULL);
    assert_true(off_s > -60 && off_s < 60);
    uint64_t cpu = weir_thread_cpu_ns();
    for (volatile int i = 0; i < 1000000; i++)
        ;
    assert_true(weir_thread_cpu_ns() > cpu);
}

static void test_random_fills_the_whole_buffer(void **state)
{
    unsigned char a[1000], seen[1000] = { 0 };

    (void)state;
    /* A byte that stays 0 through 8 fillings has a chance of 2^-64. */
    for (int round = 0; round < 8; round++) {
        memset(a, 0, sizeof a);
        weir_random(a, sizeof a);
        for (size_t i = 0; i < sizeof a; i++)
            seen[i] |= a[i];
    }
    for (size_t i = 0; i < sizeof a; i++)
        assert_int_not_equal(seen[i], 0);
    weir_random(a, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clocks_are_in_nanoseconds),
        cmocka_unit_test(test_random_fills_the_whole_buffer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
