/* digits.c - ranges of numbers as texts.
 *
 * From the digits of both bounds: while they agree the digit is fixed; where they part, the lower bound's branch may
 * only grow, the upper bound's only shrink, and everything between is free. */
#include "replica/grammar/schema_int.h"

#include <stdio.h>
#include <string.h>

static struct gram_expr *digit(struct gram_build *b, int lo, int hi)
{
    char pair[3] = { (char)('0' + lo), (char)('0' + hi), 0 };

    return json_set(b, pair);
}

static struct gram_expr *any_digits(struct gram_build *b, size_t n)
{
    return gram_repeat(b, digit(b, 0, 9), (uint32_t)n, (uint32_t)n);
}

/* As many digits as `bound`, and not below it (up) or not above it. */
static struct gram_expr *one_side(struct gram_build *b, const char *bound, bool up)
{
    size_t n = strlen(bound);

    if (n == 0)
        return gram_text(b, "");
    int d = bound[0] - '0';
    struct gram_expr *same = gram_cat2(b, digit(b, d, d), one_side(b, bound + 1, up));
    if (d == (up ? 9 : 0))
        return same;
    struct gram_expr *other = digit(b, up ? d + 1 : 0, up ? 9 : d - 1);
    return gram_alt2(b, same, gram_cat2(b, other, any_digits(b, n - 1)));
}

/* Between two of the same length. */
static struct gram_expr *both_sides(struct gram_build *b, const char *lo, const char *hi)
{
    size_t n = strlen(lo);

    if (n == 0)
        return gram_text(b, "");
    int from = lo[0] - '0', to = hi[0] - '0';
    if (from == to)
        return gram_cat2(b, digit(b, from, to), both_sides(b, lo + 1, hi + 1));
    struct gram_list parts = { 0 };
    gram_list_add(b, &parts, gram_cat2(b, digit(b, from, from), one_side(b, lo + 1, /* up= */ true)));
    gram_list_add(b, &parts, gram_cat2(b, digit(b, to, to), one_side(b, hi + 1, /* up= */ false)));
    if (to - from > 1)
        gram_list_add(b, &parts, gram_cat2(b, digit(b, from + 1, to - 1), any_digits(b, n - 1)));
    return gram_alt(b, parts.at, parts.n);
}

/* 0 <= lo <= hi, without leading zeros. */
static struct gram_expr *natural(struct gram_build *b, int64_t lo, int64_t hi)
{
    struct gram_list parts = { 0 };
    int64_t top = 9; /* the largest with as many digits */

    for (int n = 1; n <= DIGITS_MAX; n++) {
        int64_t from = n == 1 ? 0 : top / 10 + 1, last = top;
        char low[24], high[24];
        top = n < DIGITS_MAX ? 10 * top + 9 : top;
        if (hi < from || lo > last)
            continue;
        snprintf(low, sizeof low, "%lld", (long long)(lo > from ? lo : from));
        snprintf(high, sizeof high, "%lld", (long long)(hi < last ? hi : last));
        if (!gram_list_add(b, &parts, both_sides(b, low, high)))
            return NULL;
    }
    return gram_alt(b, parts.at, parts.n);
}

struct gram_expr *digits_integer(struct gram_build *b, int64_t lo, int64_t hi)
{
    struct gram_list parts = { 0 };

    if (hi >= 0 && lo <= hi)
        gram_list_add(b, &parts, natural(b, lo > 0 ? lo : 0, hi));
    if (lo < 0 && lo <= hi)
        gram_list_add(b, &parts, gram_cat2(b, gram_text(b, "-"), natural(b, hi < 0 ? -hi : 1, -lo)));
    return gram_alt(b, parts.at, parts.n);
}

/* ---- with a fraction ---- */

static struct gram_expr *fraction(struct gram_build *b, bool zero)
{
    return gram_cat2(b, gram_text(b, "."), gram_repeat(b, digit(b, 0, zero ? 0 : 9), 1, DIGITS_MAX));
}

/* A fraction that is not zero. */
static struct gram_expr *some_fraction(struct gram_build *b)
{
    struct gram_expr *zeros = gram_repeat(b, digit(b, 0, 0), 0, DIGITS_MAX - 1);

    return gram_cat(b,
                    (struct gram_expr *[]){ gram_text(b, "."), zeros, digit(b, 1, 9),
                                            gram_repeat(b, digit(b, 0, 9), 0, DIGITS_MAX - 1) },
                    4);
}

/* Numbers from lo to hi, 0 <= lo <= hi, each end in or out. */
static struct gram_expr *magnitude(struct gram_build *b, int64_t lo, bool lo_open, int64_t hi, bool hi_open)
{
    struct gram_list parts = { 0 };

    if (lo == hi) {
        if (!lo_open && !hi_open)
            gram_list_add(
                b, &parts,
                gram_cat2(b, natural(b, lo, lo), gram_repeat(b, fraction(b, /* zero= */ true), 0, 1)));
        return gram_alt(b, parts.at, parts.n);
    }
    gram_list_add(b, &parts,
                  gram_cat2(b, natural(b, lo, lo),
                            lo_open ? some_fraction(b) : gram_repeat(b, fraction(b, false), 0, 1)));
    if (hi - lo > 1)
        gram_list_add(b, &parts,
                      gram_cat2(b, natural(b, lo + 1, hi - 1), gram_repeat(b, fraction(b, false), 0, 1)));
    if (!hi_open)
        gram_list_add(b, &parts, gram_cat2(b, natural(b, hi, hi), gram_repeat(b, fraction(b, true), 0, 1)));
    return gram_alt(b, parts.at, parts.n);
}

struct gram_expr *digits_number(struct gram_build *b, const struct number_range *r)
{
    int64_t lo = r->has_lo ? r->lo : -DIGITS_TOP, hi = r->has_hi ? r->hi : DIGITS_TOP;
    bool lo_open = r->has_lo && r->lo_open, hi_open = r->has_hi && r->hi_open;
    struct gram_list parts = { 0 };

    if (lo > hi)
        return gram_alt(b, NULL, 0);
    if (hi > 0 || (hi == 0 && lo == 0))
        gram_list_add(b, &parts, magnitude(b, lo > 0 ? lo : 0, lo >= 0 && lo_open, hi, hi_open));
    else if (hi == 0 && !hi_open)
        gram_list_add(b, &parts, gram_text(b, "0"));
    if (lo < 0) /* mirrored; zero itself is above */
        gram_list_add(b, &parts,
                      gram_cat2(b, gram_text(b, "-"),
                                magnitude(b, hi < 0 ? -hi : 0, hi < 0 ? hi_open : true, -lo, lo_open)));
    return gram_alt(b, parts.at, parts.n);
}
