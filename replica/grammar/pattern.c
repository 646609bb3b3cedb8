/* pattern.c - regular expressions of JSON Schema's "pattern", and those that stand for "format".
 *
 * ECMA 262 as far as it is regular: characters, ., classes, \d \w \s and their opposites, groups, alternatives,
 * repetitions (lazy ones permit the same), ^ at the start and $ at the end of an alternative of the whole. A pattern
 * is searched for, as the standard has it: without ^ any text may come before a match, without $ any behind it.
 * Look-around, back references, \b and \p are refused by name. The content's characters are written as JSON strings
 * have them, or raw between tags. */
#include "replica/grammar/schema_int.h"

#include <string.h>

#include "base/utf8.h"

struct pattern {
    struct gram_build *b;
    bool raw;
    struct weir_str text;
    size_t at;
    int depth;
    const char *what; /* is wrong */
    weir_err err;
};

static void *fail(struct pattern *p, weir_err err, const char *what)
{
    if (!p->what) {
        p->what = what;
        p->err = err;
    }
    return NULL;
}

static int peek_at(const struct pattern *p, size_t ahead)
{
    return p->at + ahead < p->text.len ? (unsigned char)p->text.ptr[p->at + ahead] : -1;
}

static int peek(const struct pattern *p)
{
    return peek_at(p, 0);
}

/* ---- characters and classes ---- */

static const struct gram_range digits[] = { { '0', '9' } };
static const struct gram_range word[] = { { '0', '9' }, { 'A', 'Z' }, { '_', '_' }, { 'a', 'z' } };
static const struct gram_range space[] = { { '\t', '\r' }, { ' ', ' ' } };
/* Whatever some engine calls white space: what \S leaves out. */
static const struct gram_range any_space[] = { { '\t', '\r' },     { 0x1c, 0x1f },     { ' ', ' ' },
                                               { 0x85, 0x85 },     { 0xa0, 0xa0 },     { 0x1680, 0x1680 },
                                               { 0x2000, 0x200a }, { 0x2028, 0x2029 }, { 0x202f, 0x202f },
                                               { 0x205f, 0x205f }, { 0x3000, 0x3000 }, { 0xfeff, 0xfeff } };
static const struct gram_range line_ends[] = { { '\n', '\n' }, { '\r', '\r' }, { 0x2028, 0x2029 } };

static bool add_all(struct pattern *p, struct gram_ranges *set, const struct gram_range *at, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (!gram_ranges_add(p->b, set, at[i].lo, at[i].hi))
            return false;
    return true;
}

static bool add_not(struct pattern *p, struct gram_ranges *set, const struct gram_range *at, uint32_t n)
{
    struct gram_ranges positive = { 0 };
    struct gram_class rest;

    return add_all(p, &positive, at, n) && gram_ranges_class(p->b, &positive, /* negate= */ true, &rest) &&
           add_all(p, set, rest.at, rest.n);
}

/* \d and the like; *ret_is says whether it was one. */
static bool class_escape(struct pattern *p, int c, struct gram_ranges *set, bool *ret_is)
{
    *ret_is = true;
    switch (c) {
    case 'd':
        return add_all(p, set, digits, 1);
    case 'D':
        return add_not(p, set, digits, 1);
    case 'w':
        return add_all(p, set, word, 4);
    case 'W':
        return add_not(p, set, word, 4);
    case 's':
        return add_all(p, set, space, 2);
    case 'S':
        return add_not(p, set, any_space, sizeof any_space / sizeof *any_space);
    default:
        *ret_is = false;
        return true;
    }
}

static bool read_hex(struct pattern *p, int n, uint32_t *ret)
{
    *ret = 0;
    for (; n > 0; n--, p->at++) {
        int digit = gram_hex_digit(peek(p));
        if (digit < 0)
            return fail(p, WEIR_INVALID, "a hexadecimal digit is missing");
        *ret = 16 * *ret + (uint32_t)digit;
    }
    if (*ret >= 0xd800 && *ret <= 0xdfff)
        return fail(p, WEIR_UNIMPLEMENTED, "halves of surrogate pairs are not supported");
    return true;
}

/* Behind a backslash: one character. */
static bool escaped_char(struct pattern *p, bool in_class, uint32_t *ret)
{
    static const char from[] = "nrtfv0", to[] = "\n\r\t\f\v\0";
    int c = peek(p);
    const char *simple = c > 0 ? strchr(from, c) : NULL;

    p->at++;
    if (c == 'x' || c == 'u')
        return read_hex(p, c == 'x' ? 2 : 4, ret);
    if (c == 'b' && in_class) {
        *ret = '\b';
        return true;
    }
    if (c == '0' && peek(p) >= '0' && peek(p) <= '9')
        return fail(p, WEIR_UNIMPLEMENTED, "octal escapes are not supported");
    if (simple) {
        *ret = (unsigned char)to[simple - from];
        return true;
    }
    if (c == 'b' || c == 'B')
        return fail(p, WEIR_UNIMPLEMENTED, "\\b (a word's border) is not supported");
    if (c >= '1' && c <= '9')
        return fail(p, WEIR_UNIMPLEMENTED, "back references are not supported");
    if (c == 'p' || c == 'P')
        return fail(p, WEIR_UNIMPLEMENTED, "\\p (a Unicode property) is not supported");
    if (c == -1 || c >= 0x80 || (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z'))
        return fail(p, WEIR_UNIMPLEMENTED, "an unknown escape");
    *ret = (uint32_t)c;
    return true;
}

static bool plain_char(struct pattern *p, uint32_t *ret)
{
    size_t n = weir_utf8_step(p->text.ptr + p->at, p->text.len - p->at);
    unsigned char c = (unsigned char)p->text.ptr[p->at];

    if (n == 0)
        return fail(p, WEIR_INVALID, "not UTF-8");
    *ret = n == 1 ? c : c & (0x7fu >> n);
    for (size_t i = 1; i < n; i++)
        *ret = *ret << 6 | ((uint32_t)p->text.ptr[p->at + i] & 0x3f);
    p->at += n;
    return true;
}

/* One element of a class: a character, or a class escape (*ret_set). */
static bool class_atom(struct pattern *p, struct gram_ranges *set, uint32_t *ret, bool *ret_set)
{
    *ret_set = false;
    if (peek(p) == -1)
        return fail(p, WEIR_INVALID, "a \"]\" is missing");
    if (peek(p) != '\\')
        return plain_char(p, ret);
    p->at++;
    if (!class_escape(p, peek(p), set, ret_set))
        return false;
    p->at += *ret_set;
    return *ret_set || escaped_char(p, /* in_class= */ true, ret);
}

static struct gram_expr *one_of(struct pattern *p, struct gram_ranges *set, bool negate)
{
    struct gram_class ret;

    if (!gram_ranges_class(p->b, set, negate, &ret))
        return NULL;
    return p->raw ? tags_char(p->b, &ret) : json_char(p->b, &ret);
}

static struct gram_expr *read_class(struct pattern *p)
{
    struct gram_ranges set = { 0 };
    bool negate;

    p->at++;
    negate = peek(p) == '^';
    p->at += negate;
    while (peek(p) != ']') {
        uint32_t lo, hi;
        bool is_set, is_set_too = false;
        if (!class_atom(p, &set, &lo, &is_set))
            return NULL;
        hi = lo;
        if (!is_set && peek(p) == '-' && peek_at(p, 1) != ']') {
            p->at++;
            if (!class_atom(p, &set, &hi, &is_set_too))
                return NULL;
            if (is_set_too || hi < lo)
                return fail(p, WEIR_INVALID, "a range of characters that is none");
        }
        if (!is_set && !gram_ranges_add(p->b, &set, lo, hi))
            return NULL;
    }
    p->at++;
    return one_of(p, &set, negate);
}

/* ---- expressions ---- */

static struct gram_expr *read_alt(struct pattern *p, bool outer);

static struct gram_expr *read_group(struct pattern *p)
{
    if (++p->depth > GRAM_NEST_MAX)
        return fail(p, WEIR_TOOLARGE, "nested too deeply");
    p->at++;
    if (peek(p) == '?') {
        int c = peek_at(p, 1), d = peek_at(p, 2);
        if (c == '=' || c == '!' || (c == '<' && (d == '=' || d == '!')))
            return fail(p, WEIR_UNIMPLEMENTED, "looking ahead or behind is not supported");
        if (c != ':' && c != '<')
            return fail(p, WEIR_UNIMPLEMENTED, "an unknown kind of group");
        p->at += 2;
        while (c == '<' && peek(p) != -1 && p->text.ptr[p->at++] != '>')
            ;
    }
    struct gram_expr *x = read_alt(p, /* outer= */ false);
    if (x && peek(p) != ')')
        return fail(p, WEIR_INVALID, "a \")\" is missing");
    p->at++;
    p->depth--;
    return x;
}

static struct gram_expr *read_escape(struct pattern *p)
{
    struct gram_ranges set = { 0 };
    uint32_t c;
    bool is_set;

    p->at++;
    if (!class_escape(p, peek(p), &set, &is_set))
        return NULL;
    p->at += is_set;
    if (!is_set && (!escaped_char(p, /* in_class= */ false, &c) || !gram_ranges_add(p->b, &set, c, c)))
        return NULL;
    return one_of(p, &set, /* negate= */ false);
}

static struct gram_expr *read_atom(struct pattern *p)
{
    struct gram_ranges set = { 0 };
    uint32_t c;

    switch (peek(p)) {
    case '[':
        return read_class(p);
    case '(':
        return read_group(p);
    case '\\':
        return read_escape(p);
    case '.':
        p->at++;
        return add_all(p, &set, line_ends, 3) ? one_of(p, &set, /* negate= */ true) : NULL;
    case '*':
    case '+':
    case '?':
        return fail(p, WEIR_INVALID, "there is nothing to repeat");
    case '^':
    case '$':
        return fail(p, WEIR_UNIMPLEMENTED,
                    "^ and $ are supported at the start and end of the pattern's alternatives only");
    default:
        return plain_char(p, &c) && gram_ranges_add(p->b, &set, c, c) ? one_of(p, &set, false) : NULL;
    }
}

static bool read_count(struct pattern *p, uint32_t *ret)
{
    uint32_t n = 0;
    bool any = false;

    for (; peek(p) >= '0' && peek(p) <= '9'; p->at++) {
        any = true;
        n = 10 * n + (uint32_t)(peek(p) - '0');
        if (n > WEIR_GRAMMAR_REPEAT_MAX)
            return fail(p, WEIR_TOOLARGE, "too many repetitions");
    }
    *ret = n;
    return any;
}

/* {m} {m,} {m,n}; false and nothing read when it is none: then the brace is itself. */
static bool read_counts(struct pattern *p, uint32_t *ret_min, uint32_t *ret_max)
{
    size_t start = p->at++;

    if (read_count(p, ret_min)) {
        *ret_max = *ret_min;
        if (peek(p) == ',') {
            p->at++;
            if (!read_count(p, ret_max))
                *ret_max = GRAM_INF;
        }
        if (peek(p) == '}' && !p->what) {
            p->at++;
            return *ret_min <= *ret_max || fail(p, WEIR_INVALID, "{m,n} with m larger than n");
        }
    }
    p->at = start;
    return false;
}

static struct gram_expr *read_repeated(struct pattern *p)
{
    struct gram_expr *x = read_atom(p);

    for (;;) {
        int c = peek(p);
        uint32_t min = c == '+', max = c == '?' ? 1 : GRAM_INF;
        if (!x || p->what || (c != '*' && c != '+' && c != '?' && c != '{'))
            return p->what ? NULL : x;
        if (c == '{') {
            if (!read_counts(p, &min, &max))
                return p->what ? NULL : fail(p, WEIR_INVALID, "a \"{\" that is no repetition; write \\{");
        } else {
            p->at++;
        }
        if (peek(p) == '?') /* lazy */
            p->at++;
        else if (peek(p) == '+' || peek(p) == '*')
            return fail(p, WEIR_INVALID, "a repetition of a repetition");
        x = gram_repeat(p->b, x, min, max);
    }
}

/* Outer: an alternative of the whole pattern, which may hold anchors and is searched for. */
static struct gram_expr *read_sequence(struct pattern *p, bool outer)
{
    struct gram_expr *any = NULL;
    struct gram_list parts = { 0 };
    struct gram_ranges none = { 0 };
    bool anchored = false;

    if (outer)
        any = gram_repeat(p->b, one_of(p, &none, /* negate= */ true), 0, GRAM_INF);
    if (outer && peek(p) == '^')
        p->at++;
    else if (outer)
        gram_list_add(p->b, &parts, any);
    for (;;) {
        int c = peek(p), behind = peek_at(p, 1);
        if (outer && c == '$' && (behind == -1 || behind == '|')) {
            anchored = true;
            p->at++;
            break;
        }
        if (c == -1 || c == '|' || c == ')')
            break;
        if (!gram_list_add(p->b, &parts, read_repeated(p)))
            return NULL;
    }
    if (outer && !anchored)
        gram_list_add(p->b, &parts, any);
    return parts.n == 0 ? gram_text(p->b, "") : gram_cat(p->b, parts.at, parts.n);
}

static struct gram_expr *read_alt(struct pattern *p, bool outer)
{
    struct gram_list parts = { 0 };

    for (;;) {
        if (!gram_list_add(p->b, &parts, read_sequence(p, outer)))
            return NULL;
        if (peek(p) != '|')
            break;
        p->at++;
    }
    return gram_alt(p->b, parts.at, parts.n);
}

struct gram_expr *pattern_expr(struct gram_build *b, struct weir_str pattern, bool raw, const char **ret_what,
                               weir_err *reterr)
{
    struct pattern p = { .b = b, .raw = raw, .text = pattern };
    struct gram_expr *x = NULL;

    if (pattern.len > SCHEMA_PATTERN_MAX)
        fail(&p, WEIR_TOOLARGE, "it is too long");
    else
        x = read_alt(&p, /* outer= */ true);
    if (x && !p.what && p.at < pattern.len)
        fail(&p, WEIR_INVALID, "a \")\" too many");
    *ret_what = p.what;
    *reterr = p.err;
    return p.what ? NULL : x;
}

/* ---- formats ---- */

#define DAY "(0[1-9]|[12][0-9])"
#define DATE                                                                                                 \
    "([0-9]{4}-((0[13578]|1[02])-(" DAY "|3[01])|(0[469]|11)-(" DAY "|30)|02-(0[1-9]|1[0-9]|2[0-8]))|"       \
    "([0-9]{2}(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00)-02-29)"
#define CLOCK "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
#define LABEL "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
#define BYTE "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
#define GROUP "[0-9a-fA-F]{1,4}"

const char *format_pattern(struct weir_str format)
{
    static const struct {
        const char *name, *pattern;
    } formats[] = {
        { "date", "^" DATE "$" },
        { "time", "^" CLOCK "$" },
        { "date-time", "^" DATE "T" CLOCK "$" },
        { "duration",
          "^P([0-9]{1,9}W|([0-9]{1,9}Y)?([0-9]{1,9}M)?[0-9]{1,9}D(T[0-9]{1,9}[HMS])?|T([0-9]{1,9}H)?"
          "([0-9]{1,9}M)?[0-9]{1,9}S|T([0-9]{1,9}H)?[0-9]{1,9}M|T[0-9]{1,9}H|[0-9]{1,9}[YM])$" },
        { "uuid", "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$" },
        { "email", "^[A-Za-z0-9_+-]{1,20}(\\.[A-Za-z0-9_+-]{1,20}){0,2}@(" LABEL "\\.){1,3}[A-Za-z]{2,20}$" },
        { "hostname", "^" LABEL "(\\." LABEL "){0,3}$" },
        { "ipv4", "^(" BYTE "\\.){3}" BYTE "$" },
        { "ipv6", "^((" GROUP ":){7}" GROUP "|(" GROUP ":){1,7}:|::(" GROUP ":){0,6}" GROUP "|(" GROUP
                  ":){1,6}:" GROUP "|(" GROUP ":){1,5}(:" GROUP "){2}|(" GROUP ":){1,4}(:" GROUP
                  "){3}|(" GROUP ":){1,3}(:" GROUP "){4}|(" GROUP ":){1,2}(:" GROUP "){5}|::)$" },
        { "uri", "^[a-zA-Z][a-zA-Z0-9+.-]{0,20}://" LABEL "(\\." LABEL "){0,4}(:[1-9][0-9]{0,3})?"
                 "(/([A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-F]{2})*)*(\\?([A-Za-z0-9._~!$&'()*+,;=:@/"
                 "?-]|%[0-9A-F]{2})*)?"
                 "(#([A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-F]{2})*)?$" },
    };

    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (weir_str_eq(format, formats[i].name))
            return formats[i].pattern;
    return NULL;
}
