/* test_random.c - random grammars against a slow plain matcher, and many threads in one grammar.
 *
 * The matcher knows nothing of automata: it asks of an expression and a place in the text at which places the
 * expression may end. Texts are at most 30 bytes, so a set of places is one word. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/utf8.h"
#include "tests/unit/grammar/walk.h"

enum { NODES_MAX = 256, RULES = 4, TEXT_MAX = 30 };

struct node {
    enum { LITERAL, CLASS, CAT, ALT, REPEAT, RULE } kind;
    char text[16]; /* LITERAL; CLASS: as GBNF writes it */
    bool negate;
    int a, b;     /* nodes; RULE: a */
    int min, max; /* max -1: no end */
};
struct grammar {
    struct node nodes[NODES_MAX];
    int n, rules[RULES];
};

static uint32_t pick(uint64_t *seed, uint32_t n)
{
    return (uint32_t)(walk_random(seed) >> 33) % n;
}

/* Characters of the alphabet: a, b, c and one of two bytes. */
static const char *const alphabet[] = { "a", "b", "c", "\xc3\xa9" };

static int make(struct grammar *g, uint64_t *seed, int depth)
{
    int i = g->n++;
    struct node *x = &g->nodes[i];
    uint32_t kind = depth <= 0 || g->n > NODES_MAX - 8 ? pick(seed, 2) : pick(seed, 8);

    if (kind == 0) {
        x->kind = LITERAL;
        for (uint32_t n = pick(seed, 3); n > 0; n--)
            strcat(x->text, alphabet[pick(seed, 4)]);
    } else if (kind == 1) {
        x->kind = CLASS;
        x->negate = pick(seed, 4) == 0;
        for (int k = 0; k < 4; k++)
            if (pick(seed, 2))
                strcat(x->text, alphabet[k]);
    } else if (kind <= 5) {
        x->kind = kind <= 3 ? CAT : ALT;
        x->a = make(g, seed, depth - 1);
        int b = make(g, seed, depth - 1);
        g->nodes[i].b = b;
    } else if (kind == 6) {
        x->kind = REPEAT;
        x->min = (int)pick(seed, 3);
        x->max = pick(seed, 2) ? -1 : x->min + (int)pick(seed, 3);
        x->a = make(g, seed, depth - 1);
    } else {
        x->kind = RULE;
        x->a = (int)pick(seed, RULES);
    }
    return i;
}

static void print(const struct grammar *g, int i, struct weir_buf *out)
{
    const struct node *x = &g->nodes[i];

    weir_buf_adds(out, "(");
    if (x->kind == LITERAL)
        weir_buf_addf(out, "\"%s\"", x->text);
    else if (x->kind == CLASS)
        weir_buf_addf(out, "[%s%s]", x->negate ? "^" : "", x->text);
    else if (x->kind == RULE)
        weir_buf_addf(out, "r%d", x->a);
    else
        print(g, x->a, out);
    if (x->kind == ALT)
        weir_buf_adds(out, "|");
    if (x->kind == CAT || x->kind == ALT)
        print(g, x->b, out);
    if (x->kind == REPEAT && x->max >= 0)
        weir_buf_addf(out, "{%d,%d}", x->min, x->max);
    else if (x->kind == REPEAT)
        weir_buf_addf(out, "{%d,}", x->min);
    weir_buf_adds(out, ")");
}

/* ---- the slow matcher ---- */

static uint32_t ends_of(const struct grammar *g, int i, struct weir_str text, uint32_t begins);

/* Where one character at `at` ends; 0: none of the class. */
static uint32_t class_end(const struct node *x, struct weir_str text, size_t at)
{
    char one[5] = { 0 };
    size_t n = at < text.len ? weir_utf8_step(text.ptr + at, text.len - at) : 0;

    if (n == 0)
        return 0;
    memcpy(one, text.ptr + at, n);
    return (strstr(x->text, one) != NULL) != x->negate ? 1u << (at + n) : 0;
}

static uint32_t repeat_ends(const struct grammar *g, const struct node *x, struct weir_str text,
                            uint32_t begins)
{
    uint32_t all = 0, now = begins;

    for (int n = 0; now != 0 && (x->max < 0 || n <= x->max); n++) {
        if (n >= x->min) {
            if ((all | now) == all && n > x->min)
                break;
            all |= now;
        }
        if (n > x->min + TEXT_MAX)
            break;
        now = ends_of(g, x->a, text, now);
    }
    return all;
}

/* A rule that is asked again what it is being asked begins with itself: one that compiles has no text then. */
static uint32_t rule_ends(const struct grammar *g, int rule, struct weir_str text, uint32_t begins)
{
    static struct {
        int rule;
        uint32_t begins;
    } asked[1024];
    static int n_asked;

    for (int k = 0; k < n_asked; k++)
        if (asked[k].rule == rule && asked[k].begins == begins)
            return 0;
    assert_true(n_asked < 1024);
    asked[n_asked].rule = rule;
    asked[n_asked++].begins = begins;
    uint32_t ends = ends_of(g, g->rules[rule], text, begins);
    n_asked--;
    return ends;
}

static uint32_t ends_of(const struct grammar *g, int i, struct weir_str text, uint32_t begins)
{
    const struct node *x = &g->nodes[i];
    uint32_t ends = 0;
    size_t n = strlen(x->text);

    if (begins == 0)
        return 0;
    switch (x->kind) {
    case CAT:
        return ends_of(g, x->b, text, ends_of(g, x->a, text, begins));
    case ALT:
        return ends_of(g, x->a, text, begins) | ends_of(g, x->b, text, begins);
    case REPEAT:
        return repeat_ends(g, x, text, begins);
    case RULE:
        return rule_ends(g, x->a, text, begins);
    default:
        for (size_t at = 0; at <= text.len; at++) {
            if (!(begins >> at & 1))
                continue;
            if (x->kind == CLASS)
                ends |= class_end(x, text, at);
            else if (at + n <= text.len && memcmp(text.ptr + at, x->text, n) == 0)
                ends |= 1u << (at + n);
        }
        return ends;
    }
}

static bool matches(const struct grammar *g, struct weir_str text)
{
    return ends_of(g, g->rules[0], text, 1) >> text.len & 1;
}

/* ---- texts of the grammar, made without it ---- */

/* False: too deep, or a class of nothing. */
static bool derive(const struct grammar *g, int i, uint64_t *seed, int depth, struct weir_buf *out)
{
    const struct node *x = &g->nodes[i];
    bool ok = depth > 0 && weir_buf_len(out) <= TEXT_MAX;

    if (!ok)
        return false;
    switch (x->kind) {
    case LITERAL:
        weir_buf_adds(out, x->text);
        return true;
    case CLASS:
        for (int tries = 0; tries < 12; tries++) {
            const char *c = alphabet[pick(seed, 4)];
            if ((strstr(x->text, c) != NULL) == x->negate)
                continue;
            weir_buf_adds(out, c);
            return true;
        }
        return false;
    case CAT:
        return derive(g, x->a, seed, depth - 1, out) && derive(g, x->b, seed, depth - 1, out);
    case ALT:
        return derive(g, pick(seed, 2) ? x->a : x->b, seed, depth - 1, out);
    case REPEAT:
        for (uint32_t n = (uint32_t)x->min + pick(seed, x->max < 0 ? 3 : (uint32_t)(x->max - x->min) + 1);
             ok && n > 0; n--)
            ok = derive(g, x->a, seed, depth - 1, out);
        return ok;
    default:
        return derive(g, g->rules[x->a], seed, depth - 1, out);
    }
}

/* ---- the test ---- */

static void check_text(const struct grammar *g, struct weir_grammar *compiled, const char *source,
                       struct weir_str text)
{
    /* Longer ones pass the bound of what is ambiguous: one of these grammars in some thousand doubles with each byte. */
    if (text.len <= 12 && matches(g, text) != walk_accepts(compiled, text))
        fail_msg("%s\n  \"%.*s\": the plain matcher says %d", source, WEIR_STR_FMT(text), matches(g, text));
}

static void check_grammar(const struct grammar *g, struct weir_grammar *compiled, const char *source,
                          uint64_t *seed)
{
    struct weir_buf text;

    weir_buf_init(&text, 0);
    for (int k = 0; k < 40; k++) {
        weir_buf_clear(&text);
        for (uint32_t n = pick(seed, 9); n > 0; n--)
            weir_buf_adds(&text, alphabet[pick(seed, 4)]);
        check_text(g, compiled, source, weir_str(weir_buf_cstr(&text)));
    }
    for (int k = 0; k < 40; k++) {
        weir_buf_clear(&text);
        if (derive(g, g->rules[0], seed, 24, &text))
            check_text(g, compiled, source, weir_str(weir_buf_cstr(&text)));
    }
    for (int k = 0; k < 3; k++)
        if (walk(compiled, seed, 8, &text)) {
            struct weir_str got = weir_str(weir_buf_cstr(&text));
            if (got.len == weir_buf_len(&text)) /* the matcher's classes end at a NUL */
                check_text(g, compiled, source, got);
        }
    weir_buf_release(&text);
}

/* WEIR_TEST_LONG=1: many more. */
static void test_random_grammars(void **state)
{
    static struct grammar g;
    int n_wanted = getenv("WEIR_TEST_LONG") ? 20000 : 300, n_compiled = 0;
    uint64_t seed = 11;
    struct weir_buf source;

    (void)state;
    weir_buf_init(&source, 0);
    for (int i = 0; i < n_wanted; i++) {
        struct weir_grammar *compiled = NULL;
        memset(&g, 0, sizeof g);
        weir_buf_clear(&source);
        for (int r = 0; r < RULES; r++) {
            g.rules[r] = make(&g, &seed, 3);
            weir_buf_addf(&source, r ? "r%d ::= " : "root ::= r0\nr%d ::= ", r);
            print(&g, g.rules[r], &source);
            weir_buf_adds(&source, "\n");
        }
        const char *text = weir_buf_cstr(&source);
        weir_err err = weir_grammar_compile_gbnf(walk_vocab(), weir_str(text), NULL, &compiled, NULL);
        if (err != WEIR_OK) /* left recursion, or nothing at all */
            continue;
        n_compiled++;
        check_grammar(&g, compiled, text, &seed);
        weir_grammar_unref(compiled);
    }
    assert_true(n_compiled > n_wanted / 4);
    weir_buf_release(&source);
}

/* ---- threads ---- */

struct worker {
    pthread_t thread;
    struct weir_grammar *grammar;
    uint32_t sum;
};

static void *read_text(void *arg)
{
    static const char text[] = "{\"name\": \"water \xe6\xb0\xb4\", \"tags\": [\"a\", \"b\\n\"]}";
    struct worker *w = arg;
    uint32_t bits[16];

    for (int round = 0; round < 20; round++) {
        struct weir_grammar_state *st = NULL;
        if (weir_grammar_state_open(w->grammar, &st, NULL) != WEIR_OK)
            return NULL;
        for (size_t i = 0; i + 1 < sizeof text; i++) {
            weir_grammar_state_mask(st, bits, 480);
            for (int k = 0; k < 15; k++)
                w->sum = w->sum * 31 + bits[k];
            if (!weir_grammar_state_accept(st, (unsigned char)text[i]))
                w->sum = 0;
        }
        weir_grammar_state_close(st);
    }
    weir_grammar_unref(w->grammar);
    return NULL;
}

/* Masks are made by whichever thread needs them first; all see the same (and the thread sanitizer nothing). */
static void test_threads(void **state)
{
    struct weir_grammar *g = walk_schema(
        "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},\"tags\":{\"type\":\"array\","
        "\"items\":{\"type\":\"string\"}}},\"required\":[\"name\",\"tags\"]}",
        false);
    struct worker workers[4] = { 0 };

    (void)state;
    for (int i = 0; i < 4; i++) {
        workers[i].grammar = weir_grammar_ref(g);
        assert_int_equal(pthread_create(&workers[i].thread, NULL, read_text, &workers[i]), 0);
    }
    weir_grammar_unref(g);
    for (int i = 0; i < 4; i++)
        pthread_join(workers[i].thread, NULL);
    for (int i = 0; i < 4; i++)
        assert_true(workers[i].sum == workers[0].sum && workers[i].sum != 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_random_grammars),
                                        cmocka_unit_test(test_threads) };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);

    walk_free();
    return rc;
}
