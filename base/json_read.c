/* json_read.c - the pull parser.
 *
 * A value is read where the caller expects it, straight from the text. Strings are scanned 16 bytes at a
 * time; one without escapes is a slice of the text, one with escapes is unescaped into the arena after it was
 * checked whole, so that skipping and unescaping accept the same strings. Doubles of up to 19 digits and
 * small exponents are exact in one multiplication or division (Clinger 1990); the rest goes to strtod under
 * the C locale.
 *   [J1] Whatever is taken, skipped or passed on raw was checked against RFC 8259 and is valid UTF-8.
 *   [J2] The first error sticks; nothing is read after it.
 *   [J3] No byte at or past `end` is read.
 *   [J4] Containers nest at most WEIR_JSON_DEPTH_MAX deep; no recursion anywhere.
 *   [J5] A number becomes the nearest double, or the very integer, or an error.
 * Not here: a key that comes twice; the caller knows whether that matters. */
#include "base/json.h"

#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/number_int.h"
#include "base/scan_int.h"

void weir_json_init(struct weir_json *j, const char *text, size_t len, struct weir_arena *arena)
{
    j->start = j->pos = text;
    j->end = len ? text + len : text; /* NULL when empty, perhaps */
    j->arena = arena;
    j->depth = 0;
    j->closed_object = false;
    j->err = WEIR_OK;
    j->why.text[0] = j->why.param[0] = '\0';
}

bool weir_json_ok(const struct weir_json *j)
{
    return j->err == WEIR_OK;
}

/* ---- Errors: where we are, as a path ---- */

/* "messages[2].content" from the first `depth` levels of the stack, cut at a character when too long. */
static void write_path(const struct weir_json *j, int depth, const char *last_key, char *ret, size_t size)
{
    size_t n = 0;

    ret[0] = '\0';
    for (int i = 0; i <= depth; i++) {
        char part[128];
        struct weir_str key = i < depth ? j->stack[i].key : weir_str(last_key);
        if (i < depth && j->stack[i].is_array) {
            if (j->stack[i].is_first)
                break; /* before the first element */
            snprintf(part, sizeof part, "[%zu]", j->stack[i].index);
        } else {
            if (!key.ptr)
                break; /* between two members */
            size_t len = weir_utf8_cut(key.ptr, key.len, 100);
            snprintf(part, sizeof part, "%s%.*s", n ? "." : "", (int)len, key.ptr);
        }
        size_t len = strlen(part), fits = weir_utf8_cut(part, len, size - 1 - n);
        memcpy(ret + n, part, fits);
        n += fits;
        ret[n] = '\0';
        if (fits < len)
            break;
    }
}

/* A malformed text or a wrong type at `at`. Always false. */
static bool fail_at(struct weir_json *j, const char *at, const char *what)
{
    char path[sizeof j->why.param];

    if (j->err != WEIR_OK)
        return false; /* [J2] */
    write_path(j, j->depth, NULL, path, sizeof path);
    j->err = weir_fail_param(&j->why, path, WEIR_INVALID, "%s%s%s (at byte %zu)", path, path[0] ? ": " : "",
                             what, (size_t)(at - j->start));
    return false;
}

WEIR_PRINTF(4, 0)
static bool fail_complaint(struct weir_json *j, const char *path, weir_err err, const char *fmt, va_list args)
{
    char text[sizeof j->why.text];

    vsnprintf(text, sizeof text, fmt, args);
    text[weir_utf8_cut(text, strlen(text), sizeof text - 4)] = '\0';
    j->err = weir_fail_param(&j->why, path, err, "%s", text);
    return false;
}

bool weir_json_fail(struct weir_json *j, weir_err err, const char *fmt, ...)
{
    char path[sizeof j->why.param];
    va_list args;

    if (j->err != WEIR_OK)
        return false;
    write_path(j, j->depth, NULL, path, sizeof path);
    va_start(args, fmt);
    fail_complaint(j, path, err, fmt, args);
    va_end(args);
    return false;
}

bool weir_json_fail_key(struct weir_json *j, const char *key, weir_err err, const char *fmt, ...)
{
    char path[sizeof j->why.param];
    va_list args;
    int depth = j->depth;

    if (j->err != WEIR_OK)
        return false;
    /* Within an object its own key gives way to `key`; just behind an object, that one is the current one. */
    if (!j->closed_object && depth > 0 && !j->stack[depth - 1].is_array)
        depth--;
    write_path(j, depth, key, path, sizeof path);
    va_start(args, fmt);
    fail_complaint(j, path, err, fmt, args);
    va_end(args);
    return false;
}

/* ---- Tokens ---- */

static inline void skip_space(struct weir_json *j)
{
    while (j->pos < j->end && (unsigned char)*j->pos <= ' ' &&
           (*j->pos == ' ' || *j->pos == '\n' || *j->pos == '\t' || *j->pos == '\r'))
        j->pos++;
}

static enum weir_json_type type_of(char c)
{
    switch (c) {
    case '{':
        return WEIR_JSON_OBJECT;
    case '[':
        return WEIR_JSON_ARRAY;
    case '"':
        return WEIR_JSON_STRING;
    case 't':
    case 'f':
        return WEIR_JSON_BOOL;
    case 'n':
        return WEIR_JSON_NULL;
    case '-':
        return WEIR_JSON_NUMBER;
    default:
        return c >= '0' && c <= '9' ? WEIR_JSON_NUMBER : WEIR_JSON_NONE;
    }
}

enum weir_json_type weir_json_peek(struct weir_json *j)
{
    if (j->err != WEIR_OK)
        return WEIR_JSON_NONE;
    skip_space(j);
    return j->pos < j->end ? type_of(*j->pos) : WEIR_JSON_NONE;
}

/* Positions at the next value if it is of this type; an error that names both types otherwise. */
static bool expect(struct weir_json *j, enum weir_json_type type)
{
    static const char *const names[] = { "nothing",  "null",     "a boolean", "a number",
                                         "a string", "an array", "an object" };
    enum weir_json_type found = weir_json_peek(j);
    char what[80];

    j->closed_object = false;
    if (j->err != WEIR_OK)
        return false;
    if (found == type)
        return true;
    if (j->pos == j->end)
        return fail_at(j, j->pos, "the text ends where a value should be");
    if (found == WEIR_JSON_NONE)
        return fail_at(j, j->pos, "not a JSON value");
    snprintf(what, sizeof what, "expected %s, found %s", names[type], names[found]);
    return fail_at(j, j->pos, what);
}

static bool take_word(struct weir_json *j, const char *word, size_t len)
{
    if ((size_t)(j->end - j->pos) < len || memcmp(j->pos, word, len) != 0)
        return fail_at(j, j->pos, "not a JSON value");
    j->pos += len;
    return true;
}

bool weir_json_bool(struct weir_json *j, bool *ret)
{
    if (!expect(j, WEIR_JSON_BOOL))
        return false;
    bool value = *j->pos == 't';
    if (!(value ? take_word(j, "true", 4) : take_word(j, "false", 5)))
        return false;
    *ret = value;
    return true;
}

bool weir_json_null(struct weir_json *j)
{
    return expect(j, WEIR_JSON_NULL) && take_word(j, "null", 4);
}

/* ---- Strings ---- */

/* Four hex digits at p, or -1. */
static int32_t hex4(const char *p)
{
    int32_t code = 0;

    for (int i = 0; i < 4; i++) {
        char c = p[i];
        int32_t digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
        if (digit < 0)
            return -1;
        code = code << 4 | digit;
    }
    return code;
}

static bool is_high(int32_t code)
{
    return (code & 0xfc00) == 0xd800;
}

static bool is_low(int32_t code)
{
    return (code & 0xfc00) == 0xdc00;
}

/* Length of the escape whose backslash is at p: 2, 6, or 12 for a surrogate pair; 0 when it is not valid. */
static size_t escape_len(const char *p, const char *end)
{
    if (end - p < 2)
        return 0;
    switch (p[1]) {
    case '"':
    case '\\':
    case '/':
    case 'b':
    case 'f':
    case 'n':
    case 'r':
    case 't':
        return 2;
    case 'u':
        break;
    default:
        return 0;
    }
    int32_t code = end - p < 6 ? -1 : hex4(p + 2);
    if (code < 0 || is_low(code))
        return 0;
    if (!is_high(code))
        return 6;
    return end - p >= 12 && p[6] == '\\' && p[7] == 'u' && is_low(hex4(p + 8)) ? 12 : 0;
}

/* At the opening quote: checks the string [J1], moves behind it; the raw inside and whether it has escapes.
 */
static bool scan_string(struct weir_json *j, struct weir_str *ret_raw, bool *ret_escaped)
{
    const char *start = j->pos + 1, *p = start, *end = j->end;
    bool escaped = false;

    for (;;) {
        p += scan_plain(p, end);
        if (p == end)
            return fail_at(j, p, "the text ends within a string");
        if (*p == '"')
            break;
        if (*p == '\\') {
            size_t n = escape_len(p, end);
            if (n == 0)
                return fail_at(j, p, "bad escape in a string");
            escaped = true;
            p += n;
        } else if ((unsigned char)*p >= 0x80) {
            p += scan_wide(p, end);
            if (p < end && (unsigned char)*p >= 0x80)
                return fail_at(j, p, "a string is not valid UTF-8");
        } else {
            return fail_at(j, p, "control character in a string");
        }
    }
    *ret_raw = (struct weir_str){ start, (size_t)(p - start) };
    *ret_escaped = escaped;
    j->pos = p + 1;
    return true;
}

/* Writes what the escape at p (checked before) stands for; returns the bytes written. */
static size_t unescape_one(const char *p, char *out)
{
    switch (p[1]) {
    case 'b':
        *out = '\b';
        return 1;
    case 'f':
        *out = '\f';
        return 1;
    case 'n':
        *out = '\n';
        return 1;
    case 'r':
        *out = '\r';
        return 1;
    case 't':
        *out = '\t';
        return 1;
    case 'u':
        break;
    default:
        *out = p[1];
        return 1;
    }
    uint32_t code = (uint32_t)hex4(p + 2);
    if (is_high((int32_t)code))
        code = 0x10000 + ((code & 0x3ff) << 10) + ((uint32_t)hex4(p + 8) & 0x3ff);
    return weir_utf8_put(code, out);
}

/* An escape is never shorter than what it stands for, so the raw length is room enough. */
static bool unescape(struct weir_json *j, struct weir_str raw, struct weir_str *ret)
{
    const char *p = raw.ptr, *end = raw.ptr + raw.len;
    char *text = j->arena ? weir_arena_alloc(j->arena, raw.len) : NULL, *out = text;

    if (!j->arena)
        return fail_at(j, raw.ptr, "a string must not contain escapes here");
    if (!text) {
        j->err = weir_fail(&j->why, WEIR_NOMEM, "no room for a string of %zu bytes", raw.len);
        return false;
    }
    while (p < end) {
        const char *slash = memchr(p, '\\', (size_t)(end - p));
        size_t n = (size_t)((slash ? slash : end) - p);
        memcpy(out, p, n);
        out += n;
        p += n;
        if (!slash)
            break;
        out += unescape_one(p, out);
        p += escape_len(p, end);
    }
    *ret = (struct weir_str){ text, (size_t)(out - text) };
    return true;
}

bool weir_json_string(struct weir_json *j, struct weir_str *ret)
{
    struct weir_str raw;
    bool escaped;

    if (!expect(j, WEIR_JSON_STRING) || !scan_string(j, &raw, &escaped))
        return false;
    if (escaped)
        return unescape(j, raw, ret);
    *ret = raw;
    return true;
}

/* ---- Numbers ---- */

struct number { /* mantissa * 10^exp10 when !is_long */
    const char *start;
    uint64_t mantissa;
    int64_t exp10;
    bool negative;
    bool is_long; /* more digits than 19: mantissa and exp10 do not hold it */
};

static bool is_digit(const char *p, const char *end)
{
    return p < end && *p >= '0' && *p <= '9';
}

/* The digits at p added to the mantissa; counts those after the first that is not zero in *n_digits. */
static const char *scan_digits(const char *p, const char *end, struct number *num, size_t *n_digits)
{
    for (; is_digit(p, end); p++) {
        if (*n_digits < 19)
            num->mantissa = num->mantissa * 10 + (uint64_t)(*p - '0');
        if (num->mantissa != 0)
            ++*n_digits;
    }
    return p;
}

/* Exponents saturate here: far past every double, and past what the zeros of any text can make up for. */
static const int64_t exp_max = 1000000000000000;

static bool scan_exponent(struct weir_json *j, const char **p, struct number *num)
{
    int64_t exp10 = 0;

    ++*p;
    bool negative = *p < j->end && **p == '-';
    if (*p < j->end && (**p == '-' || **p == '+'))
        ++*p;
    if (!is_digit(*p, j->end))
        return fail_at(j, *p, "a number ends without its exponent");
    for (; is_digit(*p, j->end); ++*p)
        if (exp10 < exp_max)
            exp10 = exp10 * 10 + (**p - '0');
    num->exp10 += negative ? -exp10 : exp10;
    return true;
}

/* Checks the number's form [J1], moves behind it. */
static bool scan_number(struct weir_json *j, struct number *num)
{
    const char *p = j->pos, *end = j->end;
    size_t n_digits = 0;

    *num = (struct number){ .start = p };
    if (*p == '-') {
        num->negative = true;
        p++;
    }
    if (!is_digit(p, end))
        return fail_at(j, p, "a number without a digit");
    if (*p == '0' && is_digit(p + 1, end))
        return fail_at(j, p, "a number with a leading zero");
    p = scan_digits(p, end, num, &n_digits);
    if (p < end && *p == '.') {
        const char *dot = p++;
        if (!is_digit(p, end))
            return fail_at(j, p, "a number ends with its point");
        p = scan_digits(p, end, num, &n_digits);
        num->exp10 -= p - dot - 1;
    }
    if (p < end && (*p == 'e' || *p == 'E') && !scan_exponent(j, &p, num))
        return false;
    num->is_long = n_digits > 19;
    j->pos = p;
    return true;
}

enum { DIGITS_MAX = 800 }; /* 767 digits settle every double (with a 1 for a rest that is not zero) */

/* The significant digits of a number: an integer of *ret_n digits times 10^*ret_exp10. */
static void collect_digits(const struct number *num, const char *end, char digits[DIGITS_MAX + 1],
                           size_t *ret_n, int64_t *ret_exp10)
{
    size_t n = 0, n_dropped = 0;
    bool rest = false;

    for (const char *p = num->start; p < end && *p != 'e' && *p != 'E'; p++) {
        if (*p < '0' || *p > '9' || (*p == '0' && n == 0))
            continue;
        if (n < DIGITS_MAX) {
            digits[n++] = *p;
        } else {
            n_dropped++;
            rest = rest || *p != '0';
        }
    }
    *ret_exp10 = num->exp10 + (int64_t)n_dropped;
    if (rest) {
        digits[n++] = '1';
        --*ret_exp10;
    }
    while (n > 0 && digits[n - 1] == '0') {
        n--;
        ++*ret_exp10;
    }
    *ret_n = n;
}

static double slow_f64(const struct number *num, const char *end)
{
    char text[DIGITS_MAX + 32];
    size_t n;
    int64_t exp10;

    collect_digits(num, end, text, &n, &exp10);
    if (n == 0)
        return 0;
    snprintf(text + n, sizeof text - n, "e%lld", (long long)exp10);
    return number_read(text, NULL);
}

bool weir_json_f64(struct weir_json *j, double *ret)
{
    static const double tens[] = { 1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                   1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22 };
    struct number num;
    double value;

    if (!expect(j, WEIR_JSON_NUMBER) || !scan_number(j, &num))
        return false;
    /* Both are exact doubles, so that the one rounding is the right one. [J5] */
    if (!num.is_long && num.mantissa <= 1ull << 53 && num.exp10 >= -22 && num.exp10 <= 22)
        value =
            num.exp10 < 0 ? (double)num.mantissa / tens[-num.exp10] : (double)num.mantissa * tens[num.exp10];
    else
        value = slow_f64(&num, j->pos);
    if (isinf(value))
        return fail_at(j, num.start, "the number is out of range");
    *ret = num.negative ? -value : value;
    return true;
}

/* mantissa * 10^exp10 as an integer; false with *ret_over set when it is too large, clear when it is a
 * fraction. */
static bool scale_integer(uint64_t mantissa, int64_t exp10, uint64_t *ret, bool *ret_over)
{
    *ret_over = false;
    for (; mantissa != 0 && exp10 < 0; exp10++) {
        if (mantissa % 10 != 0)
            return false;
        mantissa /= 10;
    }
    for (; mantissa != 0 && exp10 > 0; exp10--) {
        if (__builtin_mul_overflow(mantissa, (uint64_t)10, &mantissa)) {
            *ret_over = true;
            return false;
        }
    }
    *ret = mantissa;
    return true;
}

static bool long_integer(const struct number *num, const char *end, uint64_t *ret, bool *ret_over)
{
    char digits[DIGITS_MAX + 1];
    size_t n;
    int64_t exp10;
    uint64_t mantissa = 0;

    collect_digits(num, end, digits, &n, &exp10);
    *ret_over = exp10 >= 0;
    if (exp10 < 0)
        return false; /* the last digit is not zero, so this is a fraction */
    for (size_t i = 0; i < n; i++)
        if (__builtin_mul_overflow(mantissa, (uint64_t)10, &mantissa) ||
            __builtin_add_overflow(mantissa, (uint64_t)(digits[i] - '0'), &mantissa))
            return false;
    return scale_integer(mantissa, exp10, ret, ret_over);
}

/* The next value as an integer: its sign and its size. */
static bool take_integer(struct weir_json *j, bool *ret_negative, uint64_t *ret, const char **ret_at)
{
    struct number num;
    bool over, ok;

    if (!expect(j, WEIR_JSON_NUMBER) || !scan_number(j, &num))
        return false;
    if (num.is_long)
        ok = long_integer(&num, j->pos, ret, &over);
    else
        ok = scale_integer(num.mantissa, num.exp10, ret, &over);
    if (!ok)
        return fail_at(j, num.start,
                       over ? "the number is out of range" : "expected an integer, found a fraction");
    *ret_negative = num.negative;
    *ret_at = num.start;
    return true;
}

bool weir_json_i64(struct weir_json *j, int64_t *ret)
{
    const char *at;
    uint64_t size;
    bool negative;

    if (!take_integer(j, &negative, &size, &at))
        return false;
    if (size > (uint64_t)INT64_MAX + negative)
        return fail_at(j, at, "the number is out of range");
    *ret = negative ? (int64_t)(0 - size) : (int64_t)size;
    return true;
}

bool weir_json_u64(struct weir_json *j, uint64_t *ret)
{
    const char *at;
    uint64_t size;
    bool negative;

    if (!take_integer(j, &negative, &size, &at))
        return false;
    if (negative && size != 0)
        return fail_at(j, at, "the number must not be negative");
    *ret = size;
    return true;
}

/* ---- Containers ---- */

static bool enter(struct weir_json *j, enum weir_json_type type)
{
    if (!expect(j, type))
        return false;
    if (j->depth == WEIR_JSON_DEPTH_MAX)
        return fail_at(j, j->pos, "nested too deeply"); /* [J4] */
    j->pos++;
    j->stack[j->depth].is_array = type == WEIR_JSON_ARRAY;
    j->stack[j->depth].is_first = true;
    j->stack[j->depth].key = (struct weir_str){ NULL, 0 };
    j->stack[j->depth].index = 0;
    j->depth++;
    return true;
}

bool weir_json_object(struct weir_json *j)
{
    return enter(j, WEIR_JSON_OBJECT);
}

bool weir_json_array(struct weir_json *j)
{
    return enter(j, WEIR_JSON_ARRAY);
}

/* Before a member or an element: takes the comma, or the closing bracket (false, one level up). */
static bool take_separator(struct weir_json *j, char close)
{
    bool first = j->stack[j->depth - 1].is_first;

    skip_space(j);
    if (j->pos == j->end)
        return fail_at(j, j->pos,
                       close == ']' ? "the text ends within an array" : "the text ends within an object");
    if (*j->pos == close) {
        j->pos++;
        j->depth--;
        j->closed_object = close == '}';
        return false;
    }
    if (first)
        return true;
    if (*j->pos != ',')
        return fail_at(j, j->pos, close == ']' ? "expected ',' or ']'" : "expected ',' or '}'");
    j->pos++;
    skip_space(j);
    if (j->pos < j->end && *j->pos == close)
        return fail_at(j, j->pos, "a comma with nothing behind it");
    return true;
}

bool weir_json_next(struct weir_json *j)
{
    if (j->err != WEIR_OK)
        return false;
    WEIR_BUG_ON(j->depth == 0 || !j->stack[j->depth - 1].is_array);
    j->closed_object = false;
    if (!take_separator(j, ']'))
        return false;
    if (!j->stack[j->depth - 1].is_first)
        j->stack[j->depth - 1].index++;
    j->stack[j->depth - 1].is_first = false;
    return true;
}

/* The next key, raw; ret_escaped says whether it has to be unescaped. */
static bool next_key(struct weir_json *j, struct weir_str *ret_raw, bool *ret_escaped)
{
    if (j->err != WEIR_OK)
        return false;
    WEIR_BUG_ON(j->depth == 0 || j->stack[j->depth - 1].is_array);
    j->closed_object = false;
    j->stack[j->depth - 1].key =
        (struct weir_str){ NULL, 0 }; /* what is wrong from here is not that member's */
    if (!take_separator(j, '}'))
        return false;
    j->stack[j->depth - 1].is_first = false;
    if (j->pos == j->end || *j->pos != '"')
        return fail_at(j, j->pos, "expected a key in quotes");
    if (!scan_string(j, ret_raw, ret_escaped))
        return false;
    skip_space(j);
    if (j->pos == j->end || *j->pos != ':')
        return fail_at(j, j->pos, "expected ':' after a key");
    j->pos++;
    j->stack[j->depth - 1].key = *ret_raw;
    return true;
}

bool weir_json_key(struct weir_json *j, struct weir_str *ret_key)
{
    struct weir_str raw;
    bool escaped;

    if (!next_key(j, &raw, &escaped))
        return false;
    if (escaped)
        return unescape(j, raw, ret_key);
    *ret_key = raw;
    return true;
}

/* ---- Whole values ---- */

/* A scalar, or the opening of a container. */
static bool skip_one(struct weir_json *j)
{
    struct weir_str raw;
    struct number num;
    bool flag;

    switch (weir_json_peek(j)) {
    case WEIR_JSON_OBJECT:
        return weir_json_object(j);
    case WEIR_JSON_ARRAY:
        return weir_json_array(j);
    case WEIR_JSON_STRING:
        return scan_string(j, &raw, &flag);
    case WEIR_JSON_NUMBER:
        return scan_number(j, &num);
    case WEIR_JSON_BOOL:
        return weir_json_bool(j, &flag);
    default:
        return weir_json_null(j); /* null, or the error */
    }
}

bool weir_json_skip(struct weir_json *j)
{
    int depth = j->depth;
    struct weir_str raw;
    bool escaped;

    if (!skip_one(j))
        return false;
    while (j->depth > depth) {
        bool more = j->stack[j->depth - 1].is_array ? weir_json_next(j) : next_key(j, &raw, &escaped);
        if (more)
            skip_one(j);
        if (j->err != WEIR_OK)
            return false;
    }
    j->closed_object = false;
    return true;
}

bool weir_json_raw(struct weir_json *j, struct weir_str *ret)
{
    if (j->err != WEIR_OK)
        return false;
    skip_space(j);
    const char *start = j->pos;
    if (!weir_json_skip(j))
        return false;
    *ret = (struct weir_str){ start, (size_t)(j->pos - start) };
    return true;
}

static bool is_blank(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\n' || *p == '\t' || *p == '\r'))
        p++;
    return p == end;
}

weir_err weir_json_end(struct weir_json *j, struct weir_why *why)
{
    if (j->err == WEIR_OK) {
        skip_space(j);
        if (j->depth > 0)
            fail_at(j, j->pos, "not read to its end");
        else if (is_blank(j->start, j->pos))
            fail_at(j, j->pos, "no value");
        else if (j->pos < j->end)
            fail_at(j, j->pos, "data after the value");
    }
    if (j->err != WEIR_OK && why)
        *why = j->why;
    return j->err;
}
