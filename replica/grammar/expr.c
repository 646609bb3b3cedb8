/* expr.c - expressions: what rules are made of before they become automata.
 *
 * They live in the build's arena, whose limit bounds them. The first failure sticks; afterwards every call returns
 * NULL, so that builders test once. */
#include "replica/grammar/gram_int.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

void *gram_fail(struct gram_build *b, weir_err err, const char *fmt, ...)
{
    char text[sizeof(((struct weir_why *)0)->text)];
    va_list args;

    if (b->err != WEIR_OK)
        return NULL;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    b->err = err;
    weir_fail_param(b->why, b->param, err, "%s", text);
    return NULL;
}

/* What many alternatives that begin alike cost, or copies of nothing, is not seen from their size: so it is counted. */
bool gram_work(struct gram_build *b, struct weir_str where, uint64_t n)
{
    b->work += n;
    if (b->work > GRAM_COMPILE_WORK_MAX)
        gram_fail(b, WEIR_TOOLARGE, "%.*s: the grammar takes too long to compile", WEIR_STR_FMT(where));
    return b->err == WEIR_OK;
}

void *gram_alloc(struct gram_build *b, size_t size)
{
    void *room = b->err == WEIR_OK ? weir_arena_alloc0(&b->arena, size) : NULL;

    return room ? room
                : gram_fail(b, WEIR_TOOLARGE, "the grammar is too large: it takes more than %d MiB",
                            GRAM_TREE_BYTES_MAX >> 20);
}

static struct gram_expr *new_expr(struct gram_build *b, enum gram_kind kind)
{
    struct gram_expr *x = gram_alloc(b, sizeof *x);

    if (x)
        x->kind = kind;
    return x;
}

struct gram_expr *gram_bytes(struct gram_build *b, struct weir_str bytes)
{
    struct gram_expr *x = new_expr(b, GRAM_BYTES);

    if (x)
        x->bytes = bytes;
    return x;
}

struct gram_expr *gram_text(struct gram_build *b, const char *literal)
{
    return gram_bytes(b, weir_str(literal));
}

struct gram_expr *gram_class(struct gram_build *b, struct gram_class set)
{
    struct gram_expr *x = new_expr(b, GRAM_CLASS);

    if (x)
        x->set = set;
    return x;
}

static struct gram_expr *with_parts(struct gram_build *b, enum gram_kind kind, struct gram_expr *const *parts,
                                    uint32_t n)
{
    struct gram_expr *x = new_expr(b, kind);
    struct gram_expr **copy = gram_alloc(b, (n + 1) * sizeof *copy);

    if (!x || !copy)
        return NULL;
    if (n > 0)
        memcpy(copy, parts, n * sizeof *copy);
    x->parts = copy;
    x->n_parts = n;
    return x;
}

struct gram_expr *gram_cat(struct gram_build *b, struct gram_expr *const *parts, uint32_t n)
{
    return n == 1 ? parts[0] : with_parts(b, GRAM_CAT, parts, n);
}

struct gram_expr *gram_cat2(struct gram_build *b, struct gram_expr *x, struct gram_expr *y)
{
    return gram_cat(b, (struct gram_expr *[]){ x, y }, 2);
}

struct gram_expr *gram_cat3(struct gram_build *b, struct gram_expr *x, struct gram_expr *y,
                            struct gram_expr *z)
{
    return gram_cat(b, (struct gram_expr *[]){ x, y, z }, 3);
}

struct gram_expr *gram_alt(struct gram_build *b, struct gram_expr *const *parts, uint32_t n)
{
    return n == 1 ? parts[0] : with_parts(b, GRAM_ALT, parts, n);
}

struct gram_expr *gram_alt2(struct gram_build *b, struct gram_expr *x, struct gram_expr *y)
{
    return gram_alt(b, (struct gram_expr *[]){ x, y }, 2);
}

struct gram_expr *gram_repeat(struct gram_build *b, struct gram_expr *of, uint32_t min, uint32_t max)
{
    struct gram_expr *x = new_expr(b, GRAM_REPEAT);

    if (!x)
        return NULL;
    x->of = of;
    x->min = min;
    x->max = max;
    return x;
}

struct gram_expr *gram_without(struct gram_build *b, struct weir_str bytes, uint32_t min, uint32_t max)
{
    struct gram_expr *x = new_expr(b, GRAM_WITHOUT);

    if (!x)
        return NULL;
    x->bytes = bytes;
    x->min = min;
    x->max = max;
    return x;
}

struct gram_expr *gram_chain(struct gram_build *b, struct gram_expr *const *parts, bool *optional, uint32_t n,
                             struct gram_expr *between, bool last_repeats)
{
    struct gram_expr *x = with_parts(b, GRAM_CHAIN, parts, n);

    if (!x)
        return NULL;
    x->optional = optional;
    x->last_repeats = last_repeats;
    x->of = between;
    return x;
}

struct gram_expr *gram_call(struct gram_build *b, uint32_t rule)
{
    struct gram_expr *x = new_expr(b, GRAM_RULE);

    if (x)
        x->rule = rule;
    return x;
}

uint32_t gram_rule_add(struct gram_build *b, struct weir_str name, struct gram_expr *body, bool stays)
{
    if (b->err != WEIR_OK)
        return UINT32_MAX;
    if (b->n_rules == WEIR_GRAMMAR_RULES_MAX) {
        gram_fail(b, WEIR_TOOLARGE, "the grammar is too large: more than %u rules", WEIR_GRAMMAR_RULES_MAX);
        return UINT32_MAX;
    }
    if (b->n_rules == b->rules_cap) {
        uint32_t cap = b->rules_cap ? 2 * b->rules_cap : 64;
        struct gram_rule *rules = weir_realloc(b->rules, cap * sizeof *rules);
        if (!rules) {
            gram_fail(b, WEIR_NOMEM, "no memory for the grammar");
            return UINT32_MAX;
        }
        b->rules = rules;
        b->rules_cap = cap;
    }
    b->rules[b->n_rules] = (struct gram_rule){ .name = name, .body = body, .stays = stays };
    return b->n_rules++;
}

/* ---- lists ---- */

/* Doubles into the arena; the old block stays there, at most as large again. */
static void *grow(struct gram_build *b, void *old, uint32_t n, uint32_t *cap, size_t size)
{
    if (n < *cap)
        return old;
    uint32_t room = *cap ? 2 * *cap : 8;
    void *at = gram_alloc(b, room * size);
    if (!at)
        return NULL;
    if (n > 0)
        memcpy(at, old, n * size);
    *cap = room;
    return at;
}

bool gram_list_add(struct gram_build *b, struct gram_list *list, struct gram_expr *x)
{
    struct gram_expr **at = grow(b, list->at, list->n, &list->cap, sizeof *at);

    if (!at || !x)
        return false;
    list->at = at;
    list->at[list->n++] = x;
    return true;
}

bool gram_ranges_add(struct gram_build *b, struct gram_ranges *set, uint32_t lo, uint32_t hi)
{
    struct gram_range *at = grow(b, set->at, set->n, &set->cap, sizeof *at);

    if (!at)
        return false;
    set->at = at;
    set->at[set->n++] = (struct gram_range){ lo, hi };
    return true;
}

static int by_lo(const void *a, const void *b)
{
    const struct gram_range *x = a, *y = b;

    return x->lo < y->lo ? -1 : x->lo > y->lo;
}

bool gram_ranges_class(struct gram_build *b, struct gram_ranges *set, bool negate, struct gram_class *ret)
{
    struct gram_ranges out = { 0 };
    uint32_t from = 0; /* what is not yet said of lies from here on */

    /* Surrogates are characters that no text has: as if they were listed in a negated class, left out below. */
    if (negate && !gram_ranges_add(b, set, 0xd800, 0xdfff))
        return false;
    if (set->n > 0)
        qsort(set->at, set->n, sizeof *set->at, by_lo);
    for (uint32_t i = 0; i < set->n; i++) {
        uint32_t lo = set->at[i].lo < from ? from : set->at[i].lo;
        if (lo > set->at[i].hi)
            continue;
        if (negate) {
            if (lo > from && !gram_ranges_add(b, &out, from, lo - 1))
                return false;
        } else if (lo > 0xdfff || set->at[i].hi < 0xd800) {
            if (!gram_ranges_add(b, &out, lo, set->at[i].hi))
                return false;
        } else {
            if (lo < 0xd800 && !gram_ranges_add(b, &out, lo, 0xd7ff))
                return false;
            if (set->at[i].hi > 0xdfff && !gram_ranges_add(b, &out, 0xe000, set->at[i].hi))
                return false;
        }
        from = set->at[i].hi + 1;
    }
    if (negate && from <= 0x10ffff && !gram_ranges_add(b, &out, from, 0x10ffff))
        return false;
    *ret = (struct gram_class){ out.at, out.n };
    return true;
}

bool gram_class_common(struct gram_build *b, const struct gram_class *set, const struct gram_range *other,
                       uint32_t n_other, struct gram_class *ret)
{
    struct gram_ranges out = { 0 };

    for (uint32_t i = 0; i < set->n; i++)
        for (uint32_t k = 0; k < n_other; k++) {
            uint32_t lo = set->at[i].lo > other[k].lo ? set->at[i].lo : other[k].lo;
            uint32_t hi = set->at[i].hi < other[k].hi ? set->at[i].hi : other[k].hi;
            if (lo <= hi && !gram_ranges_add(b, &out, lo, hi))
                return false;
        }
    return gram_ranges_class(b, &out, /* negate= */ false, ret);
}

bool gram_class_has(const struct gram_class *set, uint32_t c)
{
    for (uint32_t i = 0; i < set->n; i++)
        if (c >= set->at[i].lo && c <= set->at[i].hi)
            return true;
    return false;
}
