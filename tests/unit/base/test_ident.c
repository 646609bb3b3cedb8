/* test_ident.c - what a process calls itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/clock.h"
#include "base/ident.h"

static void test_incarnation_is_the_time_with_noise(void **state)
{
    uint64_t now_ns = weir_wall_ns(), differing = 0;

    (void)state;
    uint64_t first = weir_incarnation();
    assert_true(first > now_ns - WEIR_S && first < now_ns + 60 * WEIR_S);
    for (int i = 0; i < 64; i++)
        differing |= weir_incarnation() ^ first;
    assert_int_equal(differing & 0xffff, 0xffff); /* each low bit is noise */
}

static void test_id_is_given_or_made_of_the_role(void **state)
{
    char a[32], b[32];

    (void)state;
    weir_ident_id("r1", "router", a, sizeof a);
    assert_string_equal(a, "r1");
    weir_ident_id("", "router", a, sizeof a);
    weir_ident_id("", "router", b, sizeof b);
    assert_memory_equal(a, "router-", 7);
    assert_int_equal(strspn(a + 7, "0123456789abcdef"), 8);
    assert_int_equal(strlen(a), 15);
    assert_string_not_equal(a, b);
}

static void test_address_takes_the_port_that_was_bound(void **state)
{
    char address[64];

    (void)state;
    weir_ident_address("public:1", "0.0.0.0:0", 4711, address, sizeof address);
    assert_string_equal(address, "public:1");
    weir_ident_address("", "10.0.0.1:0", 4711, address, sizeof address);
    assert_string_equal(address, "10.0.0.1:4711");
    weir_ident_address("", "[::1]:80", 4711, address, sizeof address);
    assert_string_equal(address, "[::1]:4711");
    weir_ident_address("", ":0", 4711, address, sizeof address);
    assert_string_equal(address, "127.0.0.1:4711");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_incarnation_is_the_time_with_noise),
        cmocka_unit_test(test_id_is_given_or_made_of_the_role),
        cmocka_unit_test(test_address_takes_the_port_that_was_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
