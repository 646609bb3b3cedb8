/* schema_types.c - strings, numbers, arrays and objects of a schema. */
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

static struct gram_expr *matching(struct schema *s, struct weir_str pattern, const char *key,
                                  const struct schema_path *path)
{
    const char *what = NULL;
    weir_err err = WEIR_OK;
    struct gram_expr *x = pattern_expr(s->b, pattern, &what, &err);

    if (what)
        return schema_fail(s, path, err, "\"%s\": %s", key, what);
    return quoted(s->b, x);
}

struct gram_expr *schema_string(struct schema *s, struct gj *node, const struct schema_path *path)
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
        return matching(s, pattern->text, "pattern", path);
    if (format) {
        const char *text = format_pattern(format->text);
        return text ? matching(s, weir_str(text), "format", path)
                    : schema_fail(s, path, WEIR_UNIMPLEMENTED, "\"format\": \"%.*s\" is not supported",
                                  (int)weir_utf8_cut(format->text.ptr, format->text.len, 60),
                                  format->text.ptr);
    }
    if (min == 0 && max == GRAM_INF)
        return json_call(&s->json, JSON_STRING);
    if (min > max)
        return gram_alt(s->b, NULL, 0);
    return quoted(s->b, gram_repeat(s->b, json_any_char(s->b, /* loose= */ true), min, max));
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

/* ---- objects ---- */

/* A trie of the names that are listed, for the names that are not. */
struct name {
    uint32_t c;
    bool ends;
    struct name *child, *next;
};

static struct name *name_child(struct gram_build *b, struct name *at, uint32_t c)
{
    for (struct name *n = at->child; n; n = n->next)
        if (n->c == c)
            return n;
    struct name *n = gram_alloc(b, sizeof *n);
    if (!n)
        return NULL;
    n->c = c;
    n->next = at->child;
    at->child = n;
    return n;
}

/* A name that needs an escape is no danger: other names have none. False: too long. */
static bool add_name(struct gram_build *b, struct name *root, struct weir_str text)
{
    struct name *at = root;
    int n_chars = 0;

    for (size_t i = 0; i < text.len; i++)
        if ((unsigned char)text.ptr[i] < ' ' || text.ptr[i] == '"' || text.ptr[i] == '\\')
            return true;
    for (size_t i = 0; at && i < text.len; n_chars++) {
        size_t n = weir_utf8_step(text.ptr + i, text.len - i);
        uint32_t c = n == 1 ? (unsigned char)text.ptr[i] : (unsigned char)text.ptr[i] & (0x7fu >> n);
        for (size_t k = 1; k < n; k++)
            c = c << 6 | ((uint32_t)text.ptr[i + k] & 0x3f);
        i += n ? n : 1;
        at = name_child(b, at, c);
        if (n_chars >= SCHEMA_NAME_MAX)
            return false;
    }
    if (at)
        at->ends = true;
    return true;
}

/* The rest of a name, its quote with it, so that the whole is none of the listed. */
static struct gram_expr *other_name(struct schema *s, const struct name *at)
{
    struct gram_build *b = s->b;
    struct gram_list parts = { 0 };
    struct gram_ranges taken = { 0 };
    struct gram_class free_chars;

    if (!at->ends)
        gram_list_add(b, &parts, gram_text(b, "\""));
    gram_ranges_add(b, &taken, 0, 0x1f);
    gram_ranges_add(b, &taken, '"', '"');
    gram_ranges_add(b, &taken, '\\', '\\');
    for (const struct name *n = at->child; n && b->err == WEIR_OK; n = n->next) {
        struct gram_range *one = gram_alloc(b, sizeof *one);
        if (!one)
            return NULL;
        *one = (struct gram_range){ n->c, n->c };
        gram_ranges_add(b, &taken, n->c, n->c);
        gram_list_add(b, &parts,
                      gram_cat2(b, gram_class(b, (struct gram_class){ one, 1 }), other_name(s, n)));
    }
    if (b->err != WEIR_OK || !gram_ranges_class(b, &taken, /* negate= */ true, &free_chars))
        return NULL;
    gram_list_add(b, &parts, gram_cat2(b, gram_class(b, free_chars), json_call(&s->json, JSON_REST)));
    return gram_alt(b, parts.at, parts.n);
}

struct object_parts {
    struct schema *s;
    const struct gj *properties, *required;
    struct gj *others; /* additionalProperties; NULL: absent */
    struct gram_list parts;
    bool *optional;
    bool
        many; /* names are rules of their own: else each node would hold the tree of all names that may follow */
};

static struct gram_expr *member(struct object_parts *o, struct gram_expr *name, struct gram_expr *value)
{
    struct gram_build *b = o->s->b;
    struct gram_expr *ws = json_call(&o->s->json, JSON_WS);

    return gram_cat(b, (struct gram_expr *[]){ name, gram_text(b, ":"), ws, value, ws }, 5);
}

static struct gram_expr *name_literal(struct object_parts *o, struct weir_str name)
{
    struct gram_build *b = o->s->b;
    struct gj text = { .type = WEIR_JSON_STRING, .text = name };
    struct gram_expr *x = gram_bytes(b, gj_text(b, &text));

    return o->many ? gram_call(b, gram_rule_add(b, WEIR_STR("a property's name"), x, /* stays= */ true)) : x;
}

static bool is_required(const struct object_parts *o, struct weir_str name)
{
    if (o->required && !gram_work(o->s->b, WEIR_STR("the schema"), 1 + o->required->n / 4))
        return false;
    for (uint32_t i = 0; o->required && i < o->required->n; i++) {
        struct weir_str one = o->required->items[i]->text;
        if (one.len == name.len && memcmp(one.ptr, name.ptr, name.len) == 0)
            return true;
    }
    return false;
}

static bool add_member(struct object_parts *o, struct weir_str name, struct gram_expr *value, bool optional)
{
    o->optional[o->parts.n] = optional;
    return gram_list_add(o->s->b, &o->parts, value ? member(o, name_literal(o, name), value) : NULL);
}

static bool add_properties(struct object_parts *o, const struct schema_path *path)
{
    const struct schema_path up = { path, WEIR_STR("properties"), -1 };

    for (uint32_t i = 0; o->properties && i < o->properties->n; i++) {
        struct weir_str key = o->properties->members[i].key;
        struct gj *value = o->properties->members[i].value;
        const struct schema_path at = { &up, key, -1 };
        if (gj_find(o->s->b, o->properties, key) != value)
            continue; /* a key that comes again: the last counts */
        if (!add_member(o, key, schema_call(o->s, value, &at), !is_required(o, key)))
            return false;
    }
    return true;
}

static struct gram_expr *others_value(struct object_parts *o, const struct schema_path *path)
{
    const struct schema_path at = { path, WEIR_STR("additionalProperties"), -1 };

    return o->others ? schema_call(o->s, o->others, &at) : json_call(&o->s->json, JSON_VALUE);
}

/* Those that are required without being described: of whatever other members may be. */
static bool add_required(struct object_parts *o, const struct schema_path *path)
{
    for (uint32_t i = 0; o->required && i < o->required->n; i++) {
        struct weir_str name = o->required->items[i]->text;
        bool known = o->properties && gj_find(o->s->b, o->properties, name);
        for (uint32_t k = 0; k < i && !known && o->s->b->err == WEIR_OK; k++)
            known = gj_equal(o->s->b, o->required->items[k], o->required->items[i]);
        if (!known && !add_member(o, name, others_value(o, path), /* optional= */ false))
            return false;
    }
    return true;
}

static bool add_others(struct object_parts *o, const struct schema_path *path)
{
    struct gram_build *b = o->s->b;
    struct name *root = gram_alloc(b, sizeof *root);
    bool ok = root;

    for (uint32_t i = 0; ok && o->properties && i < o->properties->n; i++)
        ok = add_name(b, root, o->properties->members[i].key);
    for (uint32_t i = 0; ok && o->required && i < o->required->n; i++)
        ok = add_name(b, root, o->required->items[i]->text);
    if (!ok)
        return schema_fail(o->s, path, WEIR_TOOLARGE,
                           "a property's name of more than %d characters beside \"additionalProperties\"",
                           SCHEMA_NAME_MAX);
    struct gram_expr *name = gram_cat2(b, gram_text(b, "\""), other_name(o->s, root));
    uint32_t rule = gram_rule_add(b, WEIR_STR("another name"), name, /* stays= */ true);
    o->optional[o->parts.n] = true;
    return b->err == WEIR_OK &&
           gram_list_add(b, &o->parts, member(o, gram_call(b, rule), others_value(o, path)));
}

static bool read_object(struct object_parts *o, const struct gj *node, const struct schema_path *path)
{
    o->properties = gj_get(o->s->b, node, "properties");
    o->required = gj_get(o->s->b, node, "required");
    o->others = gj_get(o->s->b, node, "additionalProperties");
    if (o->properties && o->properties->type != WEIR_JSON_OBJECT)
        return schema_fail(o->s, path, WEIR_INVALID, "\"properties\" is not an object");
    if (o->required && o->required->type != WEIR_JSON_ARRAY)
        return schema_fail(o->s, path, WEIR_INVALID, "\"required\" is not a list of names");
    for (uint32_t i = 0; o->required && i < o->required->n; i++)
        if (o->required->items[i]->type != WEIR_JSON_STRING)
            return schema_fail(o->s, path, WEIR_INVALID, "\"required\" is not a list of names");
    uint32_t n = (o->properties ? o->properties->n : 0) + (o->required ? o->required->n : 0);
    o->many = n > 12;
    o->optional = gram_alloc(o->s->b, n + 1);
    return o->optional;
}

struct gram_expr *schema_object(struct schema *s, struct gj *node, const struct schema_path *path)
{
    struct object_parts o = { .s = s };
    struct gram_build *b = s->b;

    if (!read_object(&o, node, path))
        return NULL;
    bool closed = o.others ? o.others->type == WEIR_JSON_BOOL && !o.others->truth : o.properties != NULL;
    if (!o.properties && !o.required && !closed && (!o.others || o.others->type == WEIR_JSON_BOOL))
        return json_call(&s->json, JSON_OBJECT);
    if (!add_properties(&o, path) || !add_required(&o, path) || (!closed && !add_others(&o, path)))
        return NULL;
    struct gram_expr *ws = json_call(&s->json, JSON_WS), *chain = gram_cat2(b, gram_text(b, ","), ws);
    chain = gram_chain(b, o.parts.at, o.optional, o.parts.n, chain, /* last_repeats= */ !closed);
    return gram_cat(b, (struct gram_expr *[]){ gram_text(b, "{"), ws, chain, gram_text(b, "}") }, 4);
}
