/* number.c - doubles as text, whatever the locale.
 *
 * Numbers from 1e-4 to 1e6 are done in integers. The others go through printf with 15, 16 and 17 digits: 15
 * always survive the way from decimal to double and back, so that %.15g finds every shorter form too; 17
 * always tell two doubles apart.
 *   [N1] What is written reads back equal, and has the fewest digits.
 * Any thread. */
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

static const uint64_t tens[] = { 1ull,
                                 10ull,
                                 100ull,
                                 1000ull,
                                 10000ull,
                                 100000ull,
                                 1000000ull,
                                 10000000ull,
                                 100000000ull,
                                 1000000000ull,
                                 10000000000ull,
                                 100000000000ull,
                                 1000000000000ull,
                                 10000000000000ull,
                                 100000000000000ull,
                                 1000000000000000ull,
                                 10000000000000000ull,
                                 100000000000000000ull,
                                 1000000000000000000ull,
                                 10000000000000000000ull };

/* digits / 10^places, without zeros at its end. */
static size_t put_decimal(bool negative, uint64_t digits, int places, char *ret)
{
    char text[NUMBER_TEXT_MAX], *at = text + sizeof text;

    for (; places > 0 && digits % 10 == 0; places--)
        digits /= 10;
    for (int i = 0; i < places; i++, digits /= 10)
        *--at = (char)('0' + digits % 10);
    if (places > 0)
        *--at = '.';
    do {
        *--at = (char)('0' + digits % 10);
        digits /= 10;
    } while (digits);
    if (negative)
        *--at = '-';
    size_t len = (size_t)(text + sizeof text - at);
    memcpy(ret, at, len);
    ret[len] = '\0';
    return len;
}

/* With at most nine places, when that reads back equal; 0 when it does not. `size` is below 1e6. */
static size_t write_few_places(double size, bool negative, char *ret)
{
    for (int places = 0; places <= 9; places++) {
        /* Both are exact, so the quotient, rounded once, is what a reader gets. [N1] */
        double scaled = rint(size * (double)tens[places]);
        if (scaled / (double)tens[places] == size)
            return put_decimal(negative, (uint64_t)scaled, places, ret);
    }
    return 0;
}

/* With 15 to 17 digits, in integers: size = mantissa / 2^shift, and the decimal digits / 10^places reads back
 * equal when it is less than half a step of the mantissa away. 1e-4 <= size < 1e6, so 53 bits times 10^20 and
 * 57 bits times 2^66 stay within 128. */
static size_t write_many_digits(double size, bool negative, char *ret)
{
    static const double powers[] = { 1e-3, 1e-2, 1e-1, 1e0, 1e1, 1e2, 1e3, 1e4, 1e5 };
    int exp2, whole = -4; /* 10^whole <= size */
    unsigned __int128 one = 1;

    uint64_t mantissa = (uint64_t)ldexp(frexp(size, &exp2), 53);
    int shift = 53 - exp2;
    if (mantissa == 1ull << 52)
        return 0; /* the steps below a power of two are smaller */
    while (whole < 5 && size >= powers[whole + 4])
        whole++;
    for (int n_digits = 15; n_digits <= 17; n_digits++) {
        int places = n_digits - 1 - whole;
        unsigned __int128 unit = places < 20 ? tens[places] : (unsigned __int128)tens[19] * tens[places - 19];
        unsigned __int128 exact = unit * mantissa;
        unsigned __int128 digits = (exact + (one << (shift - 1))) >> shift;
        unsigned __int128 back = digits << shift;
        unsigned __int128 off = back > exact ? back - exact : exact - back;
        if (2 * off < unit)
            return put_decimal(negative, (uint64_t)digits, places, ret);
    }
    return 0;
}

/* The range that log-probabilities, parameters and times are in; 0 when it is not in there. */
static size_t write_decimal(double x, char *ret)
{
    double size = fabs(x);
    bool negative = signbit(x);

    if (size >= 1e6 || (size < 1e-4 && size != 0))
        return 0;
    size_t len = write_few_places(size, negative, ret);
    return len ? len : write_many_digits(size, negative, ret);
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
