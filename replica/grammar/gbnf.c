/* gbnf.c - grammars as llama.cpp writes them.
 *
 *   root  ::= item (", " item)*        # a comment
 *   item  ::= [a-z]+ | "\"" [^"\\] "\"" | . {2,3}
 *
 * A rule ends where a line begins with a name and "::="; within brackets, and behind "|" and "::=", lines go on.
 * Classes and literals are characters, not bytes. Tokens by name or number (<...>) are not supported.
 * Source: llama.cpp's grammars/README.md. */
#include "replica/grammar/gram_int.h"

#include <string.h>

#include "base/hash.h"
#include "base/utf8.h"

enum { RULE_SLOTS = 2 * WEIR_GRAMMAR_RULES_MAX };

struct gbnf {
    struct gram_build *b;
    uint32_t *rule_1; /* RULE_SLOTS places by the hash of the name: its rule + 1, 0 = free */
    struct weir_str text;
    size_t at;
    int depth;
};

static void *fail(struct gbnf *g, weir_err err, const char *what)
{
    size_t line = 1, column = 1;

    for (size_t i = 0; i < g->at && i < g->text.len; i++) {
        column = g->text.ptr[i] == '\n' ? 1 : column + ((g->text.ptr[i] & 0xc0) != 0x80);
        line += g->text.ptr[i] == '\n';
    }
    return gram_fail(g->b, err, "line %zu, column %zu: %s", line, column, what);
}

static int peek(const struct gbnf *g)
{
    return g->at < g->text.len ? (unsigned char)g->text.ptr[g->at] : -1;
}

static bool is_name(int c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

/* White space and comments. */
static void skip(struct gbnf *g, bool lines)
{
    for (;; g->at++) {
        int c = peek(g);
        while (c == '#' && peek(g) != -1 && peek(g) != '\n')
            g->at++;
        c = peek(g);
        if (c != ' ' && c != '\t' && (!lines || (c != '\n' && c != '\r')))
            return;
    }
}

static struct weir_str read_name(struct gbnf *g)
{
    size_t start = g->at;

    while (is_name(peek(g)))
        g->at++;
    return (struct weir_str){ g->text.ptr + start, g->at - start };
}

static bool is_named(const struct gbnf *g, uint32_t rule, struct weir_str name)
{
    struct weir_str other = g->b->rules[rule].name;

    return other.len == name.len && memcmp(other.ptr, name.ptr, name.len) == 0;
}

/* The number of the rule of this name, which may come later. */
static uint32_t rule_of(struct gbnf *g, struct weir_str name)
{
    uint32_t i = (uint32_t)weir_hash64(name.ptr, name.len, /* seed= */ 0) % RULE_SLOTS;

    while (g->rule_1[i] != 0 && !is_named(g, g->rule_1[i] - 1, name))
        i = (i + 1) % RULE_SLOTS;
    if (g->rule_1[i] != 0)
        return g->rule_1[i] - 1;
    uint32_t rule = gram_rule_add(g->b, name, NULL, /* stays= */ false);
    if (rule != UINT32_MAX)
        g->rule_1[i] = rule + 1;
    return rule;
}

/* ---- characters ---- */

static bool read_hex(struct gbnf *g, int n_digits, uint32_t *ret)
{
    uint32_t c = 0;

    for (; n_digits > 0; n_digits--, g->at++) {
        int digit = gram_hex_digit(peek(g));
        if (digit < 0)
            return fail(g, WEIR_INVALID, "a hexadecimal digit is missing");
        c = 16 * c + (uint32_t)digit;
    }
    if (c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
        return fail(g, WEIR_INVALID, "that is no character");
    *ret = c;
    return true;
}

/* One character of a literal or class, perhaps escaped. */
static bool read_char(struct gbnf *g, uint32_t *ret)
{
    static const char from[] = "nrt\\\"[]-^'/.", to[] = "\n\r\t\\\"[]-^'/.";
    int c = peek(g);

    if (c != '\\') {
        size_t n = c == -1 ? 0 : weir_utf8_step(g->text.ptr + g->at, g->text.len - g->at);
        if (n == 0)
            return fail(g, WEIR_INVALID, c == -1 ? "the text ends too early" : "not UTF-8");
        *ret = n == 1 ? (uint32_t)c : (uint32_t)c & (0x7fu >> n);
        for (size_t i = 1; i < n; i++)
            *ret = *ret << 6 | ((uint32_t)g->text.ptr[g->at + i] & 0x3f);
        g->at += n;
        return true;
    }
    g->at++;
    c = peek(g);
    const char *simple = c > 0 ? strchr(from, c) : NULL;
    if (simple) {
        g->at++;
        *ret = (unsigned char)to[simple - from];
        return true;
    }
    if (c != 'x' && c != 'u' && c != 'U')
        return fail(g, WEIR_INVALID, "an unknown escape");
    g->at++;
    return read_hex(g, c == 'x' ? 2 : c == 'u' ? 4 : 8, ret);
}

static struct gram_expr *read_literal(struct gbnf *g)
{
    size_t n = 0, end = g->at + 1;

    while (end < g->text.len && g->text.ptr[end] != '"' && g->text.ptr[end] != '\n')
        end += g->text.ptr[end] == '\\' ? 2 : 1;
    char *bytes = gram_alloc(g->b, end - g->at + 2);
    g->at++;
    while (bytes && peek(g) != '"') {
        uint32_t c;
        if (peek(g) == '\n')
            return fail(g, WEIR_INVALID, "a string has no end");
        if (!read_char(g, &c))
            return NULL;
        n += weir_utf8_put(c, bytes + n); /* never longer than it was written */
    }
    g->at++;
    return bytes ? gram_bytes(g->b, (struct weir_str){ bytes, n }) : NULL;
}

static struct gram_expr *read_class(struct gbnf *g)
{
    struct gram_ranges set = { 0 };
    struct gram_class ret;
    bool negate;

    g->at++;
    negate = peek(g) == '^';
    g->at += negate;
    while (peek(g) != ']') {
        uint32_t lo, hi;
        if (!read_char(g, &lo))
            return NULL;
        hi = lo;
        if (peek(g) == '-' && g->at + 1 < g->text.len && g->text.ptr[g->at + 1] != ']') {
            g->at++;
            if (!read_char(g, &hi))
                return NULL;
        }
        if (hi < lo)
            return fail(g, WEIR_INVALID, "a range runs backwards");
        if (!gram_ranges_add(g->b, &set, lo, hi))
            return NULL;
    }
    g->at++;
    return gram_ranges_class(g->b, &set, negate, &ret) ? gram_class(g->b, ret) : NULL;
}

static struct gram_expr *any_char(struct gram_build *b)
{
    struct gram_ranges none = { 0 };
    struct gram_class ret;

    return gram_ranges_class(b, &none, /* negate= */ true, &ret) ? gram_class(b, ret) : NULL;
}

/* ---- expressions ---- */

static struct gram_expr *read_alt(struct gbnf *g, bool lines);

static bool read_count(struct gbnf *g, uint32_t *ret)
{
    uint32_t n = 0;

    if (peek(g) < '0' || peek(g) > '9')
        return fail(g, WEIR_INVALID, "a number is missing");
    for (; peek(g) >= '0' && peek(g) <= '9'; g->at++) {
        n = 10 * n + (uint32_t)(peek(g) - '0');
        if (n > WEIR_GRAMMAR_REPEAT_MAX)
            return fail(g, WEIR_TOOLARGE, "too many repetitions");
    }
    *ret = n;
    skip(g, /* lines= */ true);
    return true;
}

/* Behind the opening brace. */
static bool read_counts(struct gbnf *g, uint32_t *ret_min, uint32_t *ret_max)
{
    skip(g, true);
    if (!read_count(g, ret_min))
        return false;
    *ret_max = *ret_min;
    if (peek(g) == ',') {
        g->at++;
        skip(g, true);
        *ret_max = GRAM_INF;
        if (peek(g) != '}' && !read_count(g, ret_max))
            return false;
    }
    if (peek(g) != '}')
        return fail(g, WEIR_INVALID, "a \"}\" is missing");
    if (*ret_max < *ret_min)
        return fail(g, WEIR_INVALID, "the second number is smaller than the first");
    g->at++;
    return true;
}

static struct gram_expr *read_group(struct gbnf *g)
{
    if (++g->depth > GRAM_NEST_MAX)
        return fail(g, WEIR_TOOLARGE, "nested too deeply");
    g->at++;
    struct gram_expr *x = read_alt(g, /* lines= */ true);
    if (x && peek(g) != ')')
        return fail(g, WEIR_INVALID, "a \")\" is missing");
    g->at++;
    g->depth--;
    return x;
}

static struct gram_expr *read_atom(struct gbnf *g)
{
    int c = peek(g);

    if (c == '"')
        return read_literal(g);
    if (c == '[')
        return read_class(g);
    if (c == '(')
        return read_group(g);
    if (c == '.') {
        g->at++;
        return any_char(g->b);
    }
    if (is_name(c))
        return gram_call(g->b, rule_of(g, read_name(g)));
    if (c == '<' || c == '!')
        return fail(g, WEIR_UNIMPLEMENTED, "tokens by name or number are not supported");
    return fail(g, WEIR_INVALID, "a string, class, name or group is missing");
}

static struct gram_expr *read_repeated(struct gbnf *g, bool lines)
{
    struct gram_expr *x = read_atom(g);

    for (;;) {
        uint32_t min = 0, max = GRAM_INF;
        size_t start = g->at;
        skip(g, lines);
        int c = peek(g);
        if (!x || (c != '*' && c != '+' && c != '?' && c != '{')) {
            g->at = start;
            return x;
        }
        g->at++;
        min = c == '+';
        max = c == '?' ? 1 : GRAM_INF;
        if (c == '{' && !read_counts(g, &min, &max))
            return NULL;
        /* A repetition of a repetition is a tree in depth: bounded as brackets are. */
        if (++g->depth > GRAM_NEST_MAX)
            return fail(g, WEIR_TOOLARGE, "nested too deeply");
        x = gram_repeat(g->b, x, min, max);
    }
}

/* Is there a rule's head here? */
static bool at_rule(const struct gbnf *g)
{
    struct gbnf ahead = *g;

    if (read_name(&ahead).len == 0)
        return false;
    skip(&ahead, /* lines= */ false);
    return ahead.text.len - ahead.at >= 3 && memcmp(ahead.text.ptr + ahead.at, "::=", 3) == 0;
}

static struct gram_expr *read_sequence(struct gbnf *g, bool lines)
{
    struct gram_list parts = { 0 };

    for (;;) {
        int depth = g->depth;
        skip(g, lines);
        int c = peek(g);
        if (c == -1 || c == '|' || c == ')' || c == '\n' || c == '\r')
            break;
        if (at_rule(g)) /* a bracket is open, or two rules are on one line */
            return fail(g, WEIR_INVALID, "a rule begins within another");
        struct gram_expr *x = read_repeated(g, lines);
        if (!gram_list_add(g->b, &parts, x))
            return NULL;
        g->depth = depth;
    }
    return parts.n == 0 ? gram_text(g->b, "") : gram_cat(g->b, parts.at, parts.n);
}

/* A bar may begin the next line too. */
static bool skip_to_bar(struct gbnf *g)
{
    struct gbnf ahead = *g;

    skip(&ahead, /* lines= */ true);
    if (peek(&ahead) != '|')
        return false;
    g->at = ahead.at + 1;
    skip(g, /* lines= */ true);
    return true;
}

static struct gram_expr *read_alt(struct gbnf *g, bool lines)
{
    struct gram_list parts = { 0 };

    skip(g, /* lines= */ true);
    do
        if (!gram_list_add(g->b, &parts, read_sequence(g, lines)))
            return NULL;
    while (skip_to_bar(g));
    skip(g, lines);
    return gram_alt(g->b, parts.at, parts.n);
}

static bool read_rule(struct gbnf *g)
{
    size_t start = g->at;
    struct weir_str name = read_name(g);

    skip(g, /* lines= */ false);
    if (name.len == 0 || g->text.len - g->at < 3 || memcmp(g->text.ptr + g->at, "::=", 3) != 0)
        return fail(g, WEIR_INVALID, "a rule is missing: name ::= ...");
    g->at += 3;
    uint32_t rule = rule_of(g, name);
    if (rule != UINT32_MAX && g->b->rules[rule].body) {
        g->at = start;
        return fail(g, WEIR_INVALID, "this rule is there already");
    }
    struct gram_expr *body = read_alt(g, /* lines= */ false);
    if (!body)
        return false;
    g->b->rules[rule].body = body;
    int c = peek(g);
    return c == -1 || c == '\n' || c == '\r' || fail(g, WEIR_INVALID, "a \"(\" is missing");
}

static bool check_rules(struct gbnf *g, uint32_t *ret_root)
{
    bool found = false;

    for (uint32_t i = 0; i < g->b->n_rules; i++) {
        if (!g->b->rules[i].body)
            return gram_fail(g->b, WEIR_INVALID, "there is no rule \"%.*s\"",
                             (int)weir_utf8_cut(g->b->rules[i].name.ptr, g->b->rules[i].name.len, 80),
                             g->b->rules[i].name.ptr);
        if (weir_str_eq(g->b->rules[i].name, "root")) {
            *ret_root = i;
            found = true;
        }
    }
    return found || gram_fail(g->b, WEIR_INVALID, "there is no rule \"root\"");
}

bool gram_gbnf(struct gram_build *b, struct weir_str text, uint32_t *ret_root)
{
    struct gbnf g = { .b = b, .text = text, .rule_1 = gram_alloc(b, RULE_SLOTS * sizeof *g.rule_1) };

    if (!g.rule_1)
        return false;
    skip(&g, /* lines= */ true);
    while (b->err == WEIR_OK && g.at < text.len) {
        g.depth = 0;
        if (!read_rule(&g))
            return false;
        skip(&g, /* lines= */ true);
    }
    return b->err == WEIR_OK && check_rules(&g, ret_root);
}
