/* number.c - doubles as text, whatever the locale.
 *
 * Most numbers we write have few decimals and take no printf. The others try 15, 16 and 17 digits: 15 always
 * survive the way from decimal to double and back, so %.15g finds every shorter form too; 17 always tell two
 * doubles apart. [N1] What is written reads back equal, and has the fewest digits. Any thread. */
#include "base/number_int.h"

#include <float.h>
#include <locale.h>
#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"

static locale_t c_locale;

static void make_c_locale(void)
{
    c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    WEIR_BUG_ON(!c_locale);
}

static locale_t get_c_locale(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, make_c_locale);
    return c_locale;
}

double number_read(const char *text, char **ret_end)
{
    return strtod_l(text, ret_end, get_c_locale());
}

/* As a decimal with at most nine places, when that reads back equal; 0 when it does not. */
static size_t write_decimal(double x, char *ret)
{
    static const double tens[] = { 1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9 };
    double size = fabs(x);
    char text[NUMBER_TEXT_MAX], *at = text + sizeof text;

    /* The products below stay under 2^53; tiny numbers are shorter with an exponent. */
    if (size >= 1e6 || (size < 1e-4 && size != 0))
        return 0;
    for (int places = 0; places <= 9; places++) {
        /* Both are exact, so the quotient, rounded once, is what a reader gets. [N1] */
        double scaled = rint(size * tens[places]);
        if (scaled / tens[places] != size)
            continue;
        uint64_t digits = (uint64_t)scaled;
        for (int i = 0; i < places; i++, digits /= 10)
            *--at = (char)('0' + digits % 10);
        if (places > 0)
            *--at = '.';
        do {
            *--at = (char)('0' + digits % 10);
            digits /= 10;
        } while (digits);
        if (signbit(x))
            *--at = '-';
        size_t len = (size_t)(text + sizeof text - at);
        memcpy(ret, at, len);
        ret[len] = '\0';
        return len;
    }
    return 0;
}

size_t number_write(double x, char ret[NUMBER_TEXT_MAX])
{
    size_t len = write_decimal(x, ret);

    if (len > 0)
        return len;
    locale_t old = uselocale(get_c_locale());
    for (int digits = fabs(x) < DBL_MIN ? 1 : 15; digits <= 17; digits++) { /* subnormals hold fewer */
        len = (size_t)snprintf(ret, NUMBER_TEXT_MAX, "%.*g", digits, x);
        if (strtod(ret, NULL) == x)
            break;
    }
    uselocale(old);
    return len;
}
