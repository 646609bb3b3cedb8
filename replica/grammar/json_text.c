/* json_text.c - plain JSON as rules, made when first asked for.
 *
 * What is permitted is narrower than JSON where JSON lets a model run on for ever or a reader go wrong: white space
 * is a space, or a line's end and an indent; numbers have at most 18 digits before and behind the point and two in
 * the exponent; escapes of halves of surrogate pairs are not used (the character itself is).
 *   [J3] Between tags no string holds "</", which could end the tag for whoever reads it: the slash is escaped then, and
 * where strings have a length or a pattern, and in names that are not listed, there is no "<" at all. */
#include "replica/grammar/schema_int.h"

#include <string.h>

enum { INDENT_MAX = 40 };

struct gram_expr *json_set(struct gram_build *b, const char *ranges)
{
    struct gram_ranges set = { 0 };
    struct gram_class ret;

    for (; *ranges; ranges += 2)
        if (!gram_ranges_add(b, &set, (unsigned char)ranges[0], (unsigned char)ranges[1]))
            return NULL;
    return gram_ranges_class(b, &set, /* negate= */ false, &ret) ? gram_class(b, ret) : NULL;
}

/* ---- characters of strings ---- */

/* The characters of `set` that are written as they are. [J3] */
static bool raw_part(struct gram_build *b, const struct gram_class *set, struct gram_class *ret)
{
    static const struct gram_range plain[] = { { 0x20, 0x21 }, { 0x23, 0x5b }, { 0x5d, 0x10ffff } };
    static const struct gram_range tagged[] = {
        { 0x20, 0x21 }, { 0x23, '<' - 1 }, { '<' + 1, 0x5b }, { 0x5d, 0x10ffff }
    };

    return b->in_tags ? gram_class_common(b, set, tagged, 4, ret) : gram_class_common(b, set, plain, 3, ret);
}

static struct gram_expr *escape(struct gram_build *b, uint32_t c)
{
    static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt", hex[] = "0123456789abcdef";
    const char *simple = c ? strchr(from, (int)c) : NULL;
    char *text = gram_alloc(b, 8);
    size_t n = 0;

    if (!text)
        return NULL;
    text[n++] = '\\';
    if (simple) {
        text[n++] = to[simple - from];
    } else {
        memcpy(text + n, "u00", 3);
        text[n + 3] = hex[c >> 4];
        text[n + 4] = hex[c & 15];
        n += 5;
    }
    return gram_bytes(b, (struct weir_str){ text, n });
}

struct gram_expr *json_char(struct gram_build *b, const struct gram_class *set)
{
    struct gram_list parts = { 0 };
    struct gram_class raw;

    if (!raw_part(b, set, &raw) || !gram_list_add(b, &parts, gram_class(b, raw)))
        return NULL;
    for (uint32_t c = 0; c <= '\\'; c++)
        if ((c < ' ' || c == '"' || c == '\\') && gram_class_has(set, c) &&
            !gram_list_add(b, &parts, escape(b, c)))
            return NULL;
    return gram_alt(b, parts.at, parts.n);
}

static struct gram_expr *hex_digits(struct gram_build *b, uint32_t n)
{
    return gram_repeat(b, json_set(b, "09afAF"), n, n);
}

/* Any character but those outside of `set`, which may be escaped though. */
static struct gram_expr *loose_char(struct gram_build *b, const struct gram_class *set)
{
    struct gram_class raw;

    if (!raw_part(b, set, &raw))
        return NULL;
    /* \uXXXX but for D800 to DFFF */
    struct gram_expr *high = gram_cat2(b, json_set(b, "09acefACEF"), hex_digits(b, 3));
    struct gram_expr *d = gram_cat3(b, json_set(b, "ddDD"), json_set(b, "07"), hex_digits(b, 2));
    struct gram_expr *code = gram_cat2(b, gram_text(b, "u"), gram_alt2(b, high, d));
    struct gram_expr *simple = json_set(b, "\"\"\\\\//bbffnnrrtt");
    return gram_alt2(b, gram_class(b, raw), gram_cat2(b, gram_text(b, "\\"), gram_alt2(b, simple, code)));
}

struct gram_expr *json_any_char(struct gram_build *b)
{
    return loose_char(b, &(struct gram_class){ &(struct gram_range){ ' ', 0x10ffff }, 1 });
}

/* What is between a string's quotes. [J3] */
static struct gram_expr *make_content(struct gram_build *b)
{
    struct gram_range no_slash[] = { { ' ', '/' - 1 }, { '/' + 1, 0x10ffff } };
    struct gram_expr *any = json_any_char(b), *less = gram_text(b, "<");

    if (!b->in_tags)
        return gram_repeat(b, any, 0, GRAM_INF);
    struct gram_expr *behind = loose_char(b, &(struct gram_class){ no_slash, 2 });
    behind = gram_cat2(b, gram_repeat(b, less, 1, GRAM_INF), behind);
    return gram_cat2(b, gram_repeat(b, gram_alt2(b, any, behind), 0, GRAM_INF),
                     gram_repeat(b, less, 0, GRAM_INF));
}

/* ---- rules ---- */

static struct gram_expr *make_ws(struct json_rules *j)
{
    struct gram_build *b = j->b;

    if (j->compact)
        return gram_text(b, "");
    struct gram_expr *indent = gram_repeat(b, json_set(b, "  \t\t"), 0, INDENT_MAX);
    return gram_alt(b,
                    (struct gram_expr *[]){ gram_text(b, ""), gram_text(b, " "),
                                            gram_cat2(b, gram_text(b, "\n"), indent) },
                    3);
}

static struct gram_expr *make_number(struct gram_build *b, bool integer)
{
    struct gram_expr *digits = gram_repeat(b, json_set(b, "09"), 0, DIGITS_MAX - 1);
    struct gram_expr *whole = gram_alt2(b, gram_text(b, "0"), gram_cat2(b, json_set(b, "19"), digits));
    struct gram_expr *sign = gram_repeat(b, gram_text(b, "-"), 0, 1);

    if (integer)
        return gram_cat2(b, sign, whole);
    struct gram_expr *fraction =
        gram_cat2(b, gram_text(b, "."), gram_repeat(b, json_set(b, "09"), 1, DIGITS_MAX));
    struct gram_expr *exponent = gram_cat3(b, json_set(b, "eeEE"), gram_repeat(b, json_set(b, "++--"), 0, 1),
                                           gram_repeat(b, json_set(b, "09"), 1, 2));
    return gram_cat(
        b,
        (struct gram_expr *[]){ sign, whole, gram_repeat(b, fraction, 0, 1), gram_repeat(b, exponent, 0, 1) },
        4);
}

/* open ws (part ws ("," ws part ws)*)? close */
static struct gram_expr *make_list(struct json_rules *j, const char *open, struct gram_expr *part,
                                   const char *close)
{
    struct gram_build *b = j->b;
    struct gram_expr *item = gram_cat2(b, part, json_call(j, JSON_WS));
    struct gram_expr *more = gram_cat3(b, gram_text(b, ","), json_call(j, JSON_WS), item);
    struct gram_expr *all = gram_cat2(b, item, gram_repeat(b, more, 0, GRAM_INF));

    return gram_cat(b,
                    (struct gram_expr *[]){ gram_text(b, open), json_call(j, JSON_WS),
                                            gram_repeat(b, all, 0, 1), gram_text(b, close) },
                    4);
}

static struct gram_expr *make_member(struct json_rules *j)
{
    struct gram_build *b = j->b;

    return gram_cat(b,
                    (struct gram_expr *[]){ json_call(j, JSON_STRING), gram_text(b, ":"),
                                            json_call(j, JSON_WS), json_call(j, JSON_VALUE) },
                    4);
}

static struct gram_expr *make_value(struct json_rules *j)
{
    static const enum json_rule kinds[] = { JSON_OBJECT, JSON_ARRAY,   JSON_STRING,
                                            JSON_NUMBER, JSON_BOOLEAN, JSON_NULL };
    struct gram_expr *parts[6];

    for (int i = 0; i < 6; i++)
        parts[i] = json_call(j, kinds[i]);
    return gram_alt(j->b, parts, 6);
}

static struct gram_expr *make(struct json_rules *j, enum json_rule which)
{
    struct gram_build *b = j->b;
    struct gram_expr *quote = gram_text(b, "\"");
    struct gram_class raw;

    switch (which) {
    case JSON_WS:
        return make_ws(j);
    case JSON_STRING:
        return gram_cat3(b, quote, make_content(b), quote);
    case JSON_NUMBER:
        return make_number(b, /* integer= */ false);
    case JSON_INTEGER:
        return make_number(b, /* integer= */ true);
    case JSON_BOOLEAN:
        return gram_alt2(b, gram_text(b, "true"), gram_text(b, "false"));
    case JSON_NULL:
        return gram_text(b, "null");
    case JSON_ARRAY:
        return make_list(j, "[", json_call(j, JSON_VALUE), "]");
    case JSON_OBJECT:
        return make_list(j, "{", make_member(j), "}");
    case JSON_VALUE:
        return make_value(j);
    default: /* JSON_REST */
        if (!raw_part(b, &(struct gram_class){ &(struct gram_range){ ' ', 0x10ffff }, 1 }, &raw))
            return NULL;
        return gram_cat2(b, gram_repeat(b, gram_class(b, raw), 0, GRAM_INF), quote);
    }
}

struct gram_expr *json_call(struct json_rules *j, enum json_rule which)
{
    static const char *const names[JSON_RULES] = { "white space", "a string", "a number", "an integer",
                                                   "a boolean",   "null",     "an array", "an object",
                                                   "a value",     "a name" };

    if (which == JSON_WS && j->compact)
        return gram_text(j->b, "");
    if (j->rule_1[which] == 0) {
        bool stays = which == JSON_WS || which == JSON_STRING || which == JSON_NUMBER || which == JSON_VALUE;
        uint32_t rule = gram_rule_add(j->b, weir_str(names[which]), NULL, stays);
        if (rule == UINT32_MAX)
            return NULL;
        j->rule_1[which] = rule + 1; /* first: it may call itself */
        struct gram_expr *body = make(j, which);
        if (!body)
            return NULL;
        j->b->rules[rule].body = body;
    }
    return gram_call(j->b, j->rule_1[which] - 1);
}

bool gram_json_object(struct gram_build *b, bool compact, uint32_t *ret_root)
{
    struct json_rules j = { .b = b, .compact = compact };

    if (!json_call(&j, JSON_OBJECT))
        return false;
    *ret_root = j.rule_1[JSON_OBJECT] - 1;
    return true;
}
