/* schema_types.c - strings, numbers and arrays of a schema. */
#include "replica/grammar/schema_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A count like minLength; *ret stays when it is absent. */
static bool get_count(struct schema *s, const struct gj *node, const char *key,
                      const struct schema_path *path, uint32_t *ret)
{
    const struct gj *v = gj_get(s->b, node, key);
    struct weir_json j;
    uint64_t n;

    if (!v)
        return true;
    weir_json_init(&j, v->text.ptr, v->text.len, NULL);
    if (v->type != WEIR_JSON_NUMBER || !weir_json_u64(&j, &n))
        return schema_fail(s, path, WEIR_INVALID, "\"%s\" is not a count", key);
    if (n > WEIR_GRAMMAR_REPEAT_MAX)
        return schema_fail(s, path, WEIR_TOOLARGE, "\"%s\" is more than %u", key, WEIR_GRAMMAR_REPEAT_MAX);
    *ret = (uint32_t)n;
    return true;
}

/* ---- strings ---- */

static struct gram_expr *quoted(struct gram_build *b, struct gram_expr *x)
{
    struct gram_expr *quote = gram_text(b, "\"");

    return gram_cat3(b, quote, x, quote);
}

static struct gram_expr *matching(struct schema *s, struct weir_str pattern, const char *key, bool raw,
                                  const struct schema_path *path)
{
    const char *what = NULL;
    weir_err err = WEIR_OK;
    struct gram_expr *x = pattern_expr(s->b, pattern, raw, &what, &err);

    if (what)
        return schema_fail(s, path, err, "\"%s\": %s", key, what);
    return raw ? x : quoted(s->b, x);
}

struct gram_expr *schema_string(struct schema *s, struct gj *node, bool raw, const struct schema_path *path)
{
    const struct gj *pattern = gj_get(s->b, node, "pattern"), *format = gj_get(s->b, node, "format");
    uint32_t min = 0, max = GRAM_INF;

    if (!get_count(s, node, "minLength", path, &min) || !get_count(s, node, "maxLength", path, &max))
        return NULL;
    if ((pattern && pattern->type != WEIR_JSON_STRING) || (format && format->type != WEIR_JSON_STRING))
        return schema_fail(s, path, WEIR_INVALID, "\"pattern\" and \"format\" are strings");
    if (pattern && format)
        return schema_fail(s, path, WEIR_UNIMPLEMENTED, "\"pattern\" beside \"format\" is not supported");
    if ((pattern || format) && (min > 0 || max != GRAM_INF))
        return schema_fail(s, path, WEIR_UNIMPLEMENTED,
                           "\"%s\" beside \"minLength\" or \"maxLength\" is not supported",
                           pattern ? "pattern" : "format");
    if (pattern)
        return matching(s, pattern->text, "pattern", raw, path);
    if (format) {
        const char *text = format_pattern(format->text);
        return text ? matching(s, weir_str(text), "format", raw, path)
                    : schema_fail(s, path, WEIR_UNIMPLEMENTED, "\"format\": \"%.*s\" is not supported",
                                  (int)weir_utf8_cut(format->text.ptr, format->text.len, 60),
                                  format->text.ptr);
    }
    if (min > max)
        return gram_alt(s->b, NULL, 0);
    if (raw)
        return tags_text(s->b, min, max);
    if (min == 0 && max == GRAM_INF)
        return json_call(&s->json, JSON_STRING);
    return quoted(s->b, gram_repeat(s->b, json_any_char(s->b), min, max));
}

/* ---- numbers ---- */

struct bound {
    double value;
    bool is, whole;
};

static bool get_bound(struct schema *s, const struct gj *node, const char *key,
                      const struct schema_path *path, struct bound *ret)
{
    const struct gj *v = gj_get(s->b, node, key);
    struct weir_json j;

    if (!v)
        return true;
    weir_json_init(&j, v->text.ptr, v->text.len, NULL);
    if (v->type != WEIR_JSON_NUMBER || !weir_json_f64(&j, &ret->value))
        return schema_fail(s, path, WEIR_INVALID, "\"%s\" is not a number", key);
    ret->is = true;
    ret->whole = floor(ret->value) == ret->value;
    if (fabs(ret->value) > 1e15) {
        if ((ret->value > 0) == (strstr(key, "inimum") != NULL))
            return schema_fail(s, path, WEIR_UNIMPLEMENTED, "\"%s\" beyond 1e15 is not supported", key);
        ret->is = false; /* what is written has fewer digits anyway, or is cut at 18 */
    }
    return true;
}

/* The tighter of the two lower, or upper, bounds. */
static bool get_range(struct schema *s, const struct gj *node, bool integer, const struct schema_path *path,
                      struct number_range *ret)
{
    struct bound b[4] = { 0 };

    if (!get_bound(s, node, "minimum", path, &b[0]) || !get_bound(s, node, "exclusiveMinimum", path, &b[1]) ||
        !get_bound(s, node, "maximum", path, &b[2]) || !get_bound(s, node, "exclusiveMaximum", path, &b[3]))
        return false;
    for (int i = 0; i < 4; i++) {
        bool upper = i >= 2, open = i % 2 == 1;
        if (!b[i].is)
            continue;
        if (!integer && !b[i].whole)
            return schema_fail(s, path, WEIR_UNIMPLEMENTED,
                               "a bound with a fraction is supported for integers only");
        int64_t n = (int64_t)(upper ? floor(b[i].value) : ceil(b[i].value));
        if (integer && open && b[i].whole) {
            n += upper ? -1 : 1;
        }
        open = open && !integer;
        if (upper && (!ret->has_hi || n < ret->hi || (n == ret->hi && open))) {
            ret->hi = n;
            ret->hi_open = open;
            ret->has_hi = true;
        }
        if (!upper && (!ret->has_lo || n > ret->lo || (n == ret->lo && open))) {
            ret->lo = n;
            ret->lo_open = open;
            ret->has_lo = true;
        }
    }
    return true;
}

struct gram_expr *schema_number(struct schema *s, struct gj *node, bool integer,
                                const struct schema_path *path)
{
    struct number_range r = { 0 };

    if (!get_range(s, node, integer, path, &r))
        return NULL;
    if (!r.has_lo && !r.has_hi)
        return json_call(&s->json, integer ? JSON_INTEGER : JSON_NUMBER);
    if (integer)
        return digits_integer(s->b, r.has_lo ? r.lo : -DIGITS_TOP, r.has_hi ? r.hi : DIGITS_TOP);
    return digits_number(s->b, &r);
}

/* ---- arrays ---- */

struct array_parts {
    struct schema *s;
    struct gram_expr *prefix[SCHEMA_PREFIX_MAX]; /* each with white space behind it */
    uint32_t n_prefix;
    struct gram_expr *rest; /* NULL: nothing more */
    struct gram_expr *comma;
    uint32_t min, max;
};

/* Elements from the i-th on, where `i` of them are there. */
static struct gram_expr *elements(struct array_parts *a, uint32_t i)
{
    struct gram_build *b = a->s->b;
    struct gram_expr *empty = gram_text(b, "");

    if (i >= a->max)
        return empty;
    if (i < a->n_prefix) {
        struct gram_expr *one = i > 0 ? gram_cat2(b, a->comma, a->prefix[i]) : a->prefix[i];
        struct gram_expr *all = gram_cat2(b, one, elements(a, i + 1));
        return i < a->min ? all : gram_repeat(b, all, 0, 1);
    }
    if (!a->rest)
        return i < a->min ? gram_alt(b, NULL, 0) : empty;
    uint32_t min = a->min > i ? a->min - i : 0, max = a->max == GRAM_INF ? GRAM_INF : a->max - i;
    struct gram_expr *more = gram_cat2(b, a->comma, a->rest);
    if (i > 0)
        return gram_repeat(b, more, min, max);
    struct gram_expr *all = gram_cat2(
        b, a->rest, gram_repeat(b, more, min > 0 ? min - 1 : 0, max == GRAM_INF ? GRAM_INF : max - 1));
    return min > 0 ? all : gram_repeat(b, all, 0, 1);
}

static bool get_prefix(struct array_parts *a, const struct gj *node, const struct schema_path *path)
{
    struct schema *s = a->s;
    const struct gj *prefix = gj_get(s->b, node, "prefixItems");
    const struct schema_path up = { path, WEIR_STR("prefixItems"), -1 };

    if (!prefix)
        return true;
    if (prefix->type != WEIR_JSON_ARRAY || prefix->n > SCHEMA_PREFIX_MAX)
        return schema_fail(s, path, WEIR_INVALID, "\"prefixItems\" is not a list of at most %d schemas",
                           SCHEMA_PREFIX_MAX);
    for (uint32_t i = 0; i < prefix->n; i++) {
        const struct schema_path at = { &up, { 0 }, i };
        struct gram_expr *x = schema_call(s, prefix->items[i], &at);
        a->prefix[a->n_prefix++] = gram_cat2(s->b, x, json_call(&s->json, JSON_WS));
    }
    return s->b->err == WEIR_OK;
}

struct gram_expr *schema_array(struct schema *s, struct gj *node, const struct schema_path *path)
{
    struct array_parts a = { .s = s, .max = GRAM_INF };
    struct gj *items = gj_get(s->b, node, "items");
    const struct schema_path at = { path, WEIR_STR("items"), -1 };
    struct gram_expr *ws = json_call(&s->json, JSON_WS), *rest = NULL;

    if (!get_count(s, node, "minItems", path, &a.min) || !get_count(s, node, "maxItems", path, &a.max) ||
        !get_prefix(&a, node, path))
        return NULL;
    if (items && items->type == WEIR_JSON_ARRAY)
        return schema_fail(s, path, WEIR_UNIMPLEMENTED,
                           "\"items\" as a list is not supported; use \"prefixItems\"");
    bool closed = items && items->type == WEIR_JSON_BOOL && !items->truth;
    if (items && !closed)
        rest = schema_call(s, items, &at);
    else if (!items && a.n_prefix == 0)
        rest = json_call(&s->json, JSON_VALUE); /* behind prefixItems an array is closed, as an object is */
    if (s->b->err != WEIR_OK)
        return NULL;
    if (rest)
        a.rest = gram_cat2(s->b, rest, ws);
    a.comma = gram_cat2(s->b, gram_text(s->b, ","), ws);
    if (a.min > a.max)
        return gram_alt(s->b, NULL, 0);
    return gram_cat(
        s->b, (struct gram_expr *[]){ gram_text(s->b, "["), ws, elements(&a, 0), gram_text(s->b, "]") }, 4);
}
