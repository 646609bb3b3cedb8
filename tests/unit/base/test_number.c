/* test_number.c - doubles as text: they read back equal and are as short as can be. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/number_int.h"

static void test_known_texts(void **state)
{
    static const struct {
        double x;
        const char *text;
    } rows[] = { { 0, "0" },
                 { -0.0, "-0" },
                 { 1, "1" },
                 { -1.5, "-1.5" },
                 { 0.1, "0.1" },
                 { 0.3, "0.3" },
                 { 100, "100" },
                 { 999999.875, "999999.875" },
                 { 1e6, "1000000" },
                 { 123456789012345678.0, "1.2345678901234568e+17" },
                 { 1e21, "1e+21" },
                 { 0.0001, "0.0001" },
                 { 1e-5, "1e-05" },
                 { 0.1 + 0.2, "0.30000000000000004" },
                 { -0.12345679104328156, "-0.12345679104328156" },
                 { 5e-324, "5e-324" },
                 { 1.7976931348623157e308, "1.7976931348623157e+308" } };
    char text[NUMBER_TEXT_MAX];

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_int_equal(number_write(rows[i].x, text), strlen(rows[i].text));
        assert_string_equal(text, rows[i].text);
    }
}

/* [N1] For random bit patterns, random decimals and floats: equal on reading, and no fewer digits would do.
 */
static void test_shortest_round_trip(void **state)
{
    char text[NUMBER_TEXT_MAX], shorter[NUMBER_TEXT_MAX];

    (void)state;
    srand(7);
    for (int i = 0; i < 60000; i++) {
        double x;
        uint64_t bits;
        switch (i % 3) {
        case 0:
            weir_random(&bits, sizeof bits);
            memcpy(&x, &bits, sizeof x);
            break;
        case 1:
            x = (double)(rand() % 20000000 - 10000000) / pow(10, rand() % 12);
            break;
        default:
            x = (double)((float)-rand() / (float)RAND_MAX * 20); /* as log-probabilities are */
            break;
        }
        if (!isfinite(x))
            continue;
        size_t len = number_write(x, text);
        assert_int_equal(len, strlen(text));
        double back = strtod(text, NULL);
        assert_memory_equal(&back, &x, sizeof x);
        size_t n_digits = 0, n_zeros = 0;
        for (const char *p = text; *p && *p != 'e'; p++) {
            if (*p == '0' && n_digits == 0)
                continue;
            if (*p >= '0' && *p <= '9') {
                n_digits++;
                n_zeros = *p == '0' ? n_zeros + 1 : 0;
            }
        }
        n_digits -= n_zeros; /* 1200 has two that count */
        if (n_digits > 1) {
            snprintf(shorter, sizeof shorter, "%.*e", (int)n_digits - 2, x);
            assert_true(strtod(shorter, NULL) != x);
        }
    }
}

static void test_locale_changes_nothing(void **state)
{
    char text[NUMBER_TEXT_MAX];

    (void)state;
    /* Where the machine has a locale with a decimal comma. */
    if (!setlocale(LC_ALL, "de_DE.UTF-8") && !setlocale(LC_ALL, "fr_FR.UTF-8"))
        skip();
    number_write(0.1 + 0.2, text);
    assert_string_equal(text, "0.30000000000000004");
    assert_true(number_read("2.5", NULL) == 2.5);
    setlocale(LC_ALL, "C");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_texts),
        cmocka_unit_test(test_shortest_round_trip),
        cmocka_unit_test(test_locale_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
