/* schema.c - a JSON schema as rules.
 *
 * A schema is first brought into one piece (schema_merge.c), then its types become alternatives. Every sub-schema is
 * a rule, made once however often it is referred to, so recursion costs nothing.
 *   [J1] What is permitted is valid for the schema; it may be less than all that is valid.
 *   [J2] A keyword that would be left out is refused by name; only annotations are passed over.
 * Narrower than the standard, and why: objects with "properties" are closed unless "additionalProperties" opens them
 * (models invent members); members come in the order listed; oneOf is read as anyOf (what fits two is not kept out,
 * the one place where [J1] is the author's to keep); a schema without "type" is of the types its keywords speak of. */
#include "replica/grammar/schema_int.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- places ---- */

static size_t put_path(const struct schema_path *path, char *room, size_t size)
{
    char step[96];
    size_t n = 0;

    if (!path)
        return 0;
    n = put_path(path->up, room, size);
    if (path->index >= 0)
        snprintf(step, sizeof step, "[%lld]", (long long)path->index);
    else
        snprintf(step, sizeof step, "%s%.*s", n ? "." : "",
                 (int)weir_utf8_cut(path->key.ptr, path->key.len, 80), path->key.ptr);
    size_t len = strlen(step);
    if (len > size - 1 - n)
        len = 0; /* no room: the rest is left out */
    memcpy(room + n, step, len);
    room[n + len] = 0;
    return n + len;
}

struct weir_str schema_path_text(const struct schema_path *path, char *room, size_t size)
{
    room[0] = 0;
    return (struct weir_str){ room, put_path(path, room, size) };
}

void *schema_fail(struct schema *s, const struct schema_path *path, weir_err err, const char *fmt, ...)
{
    char where[160], param[256], text[240];
    const char *general = s->b->param;
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    struct weir_str at = schema_path_text(path, where, sizeof where);
    snprintf(param, sizeof param, "%s%s%s", general, at.len ? "." : "", where);
    s->b->param = param;
    gram_fail(s->b, err, "%s%s%s", where, at.len ? ": " : "", text);
    s->b->param = general;
    return NULL;
}

/* ---- types ---- */

static unsigned type_bit(struct weir_str name)
{
    static const char *const names[] = {
        "null", "boolean", "string", "integer", "number", "array", "object"
    };

    for (unsigned i = 0; i < 7; i++)
        if (weir_str_eq(name, names[i]))
            return 1u << i;
    return 0;
}

/* What keywords say of which type; an absent "type" is read from them. */
static unsigned types_spoken_of(struct schema *s, const struct gj *node)
{
    static const struct {
        const char *key;
        unsigned type;
    } speak[] = {
        { "properties", TYPE_OBJECT },
        { "required", TYPE_OBJECT },
        { "additionalProperties", TYPE_OBJECT },
        { "items", TYPE_ARRAY },
        { "prefixItems", TYPE_ARRAY },
        { "minItems", TYPE_ARRAY },
        { "maxItems", TYPE_ARRAY },
        { "pattern", TYPE_STRING },
        { "format", TYPE_STRING },
        { "minLength", TYPE_STRING },
        { "maxLength", TYPE_STRING },
        { "minimum", TYPE_NUMBER },
        { "maximum", TYPE_NUMBER },
        { "exclusiveMinimum", TYPE_NUMBER },
        { "exclusiveMaximum", TYPE_NUMBER },
    };
    unsigned types = 0;

    for (size_t i = 0; i < sizeof speak / sizeof *speak; i++)
        if (gj_get(s->b, node, speak[i].key))
            types |= speak[i].type;
    return types ? types : TYPE_ANY;
}

bool schema_types(struct schema *s, const struct gj *node, const struct schema_path *path, unsigned *ret)
{
    const struct gj *type = gj_get(s->b, node, "type");

    if (!type) {
        *ret = types_spoken_of(s, node);
        return true;
    }
    *ret = 0;
    uint32_t n = type->type == WEIR_JSON_ARRAY ? type->n : 1;
    for (uint32_t i = 0; i < n; i++) {
        const struct gj *name = type->type == WEIR_JSON_ARRAY ? type->items[i] : type;
        unsigned bit = name->type == WEIR_JSON_STRING ? type_bit(name->text) : 0;
        if (bit == 0)
            return schema_fail(s, path, WEIR_INVALID,
                               "\"type\" is none of null, boolean, string, integer, number, "
                               "array, object, or a list of them");
        *ret |= bit;
    }
    return true;
}

static struct gram_expr *typed(struct schema *s, struct gj *node, const struct schema_path *path)
{
    struct gram_list parts = { 0 };
    unsigned types;

    if (!schema_types(s, node, path, &types))
        return NULL;
    if (types & TYPE_OBJECT)
        gram_list_add(s->b, &parts, schema_object(s, node, path));
    if (types & TYPE_ARRAY)
        gram_list_add(s->b, &parts, schema_array(s, node, path));
    if (types & TYPE_STRING)
        gram_list_add(s->b, &parts, schema_string(s, node, /* raw= */ false, path));
    if (types & (TYPE_NUMBER | TYPE_INTEGER))
        gram_list_add(s->b, &parts, schema_number(s, node, !(types & TYPE_NUMBER), path));
    if (types & TYPE_BOOLEAN)
        gram_list_add(s->b, &parts, json_call(&s->json, JSON_BOOLEAN));
    if (types & TYPE_NULL)
        gram_list_add(s->b, &parts, json_call(&s->json, JSON_NULL));
    return s->b->err == WEIR_OK ? gram_alt(s->b, parts.at, parts.n) : NULL;
}

/* ---- values by name ---- */

static bool is_whole(struct weir_str number)
{
    struct weir_json j;
    int64_t n;

    weir_json_init(&j, number.ptr, number.len, NULL);
    return weir_json_i64(&j, &n);
}

static bool value_fits(const struct gj *value, unsigned types)
{
    switch (value->type) {
    case WEIR_JSON_NULL:
        return types & TYPE_NULL;
    case WEIR_JSON_BOOL:
        return types & TYPE_BOOLEAN;
    case WEIR_JSON_STRING:
        return types & TYPE_STRING;
    case WEIR_JSON_NUMBER:
        return types & TYPE_NUMBER || (types & TYPE_INTEGER && is_whole(value->text));
    case WEIR_JSON_ARRAY:
        return types & TYPE_ARRAY;
    default:
        return types & TYPE_OBJECT;
    }
}

bool schema_lone_enum(struct schema *s, const struct gj *node, const struct schema_path *path)
{
    static const char *const others[] = { "pattern",          "format",           "minLength",
                                          "maxLength",        "minimum",          "maximum",
                                          "exclusiveMinimum", "exclusiveMaximum", "items",
                                          "prefixItems",      "minItems",         "maxItems",
                                          "required",         "properties",       "additionalProperties" };

    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (gj_get(s->b, node, others[i]))
            return schema_fail(s, path, WEIR_UNIMPLEMENTED,
                               "\"enum\" or \"const\" beside \"%s\" is not supported", others[i]);
    return true;
}

static struct gram_expr *enumerated(struct schema *s, const struct gj *node, const struct schema_path *path)
{
    const struct gj *list = gj_get(s->b, node, "enum"), *value = gj_get(s->b, node, "const");
    struct gram_list parts = { 0 };
    unsigned types = TYPE_ANY;

    if (!schema_lone_enum(s, node, path) ||
        (gj_get(s->b, node, "type") && !schema_types(s, node, path, &types)))
        return NULL;
    if (list && list->type != WEIR_JSON_ARRAY)
        return schema_fail(s, path, WEIR_INVALID, "\"enum\" is not a list");
    for (uint32_t i = 0; i < (list ? list->n : 1); i++) {
        const struct gj *one = list ? list->items[i] : value;
        if (!value_fits(one, types) || (list && value && !gj_equal(s->b, one, value)))
            continue;
        if (!gram_list_add(s->b, &parts, gram_bytes(s->b, gj_text(s->b, one))))
            return NULL;
    }
    if (parts.n == 0)
        return schema_fail(s, path, WEIR_INVALID, "no value of \"enum\" or \"const\" fits the rest");
    return gram_alt(s->b, parts.at, parts.n);
}

/* ---- combinations ---- */

static struct gj *all_joined(struct schema *s, struct gj *node, const struct schema_path *path)
{
    struct gj *list = gj_get(s->b, node, "allOf"), *whole = schema_without(s, node, "allOf");

    if (list->type != WEIR_JSON_ARRAY)
        return schema_fail(s, path, WEIR_INVALID, "\"allOf\" is not a list");
    for (uint32_t i = 0; whole && i < list->n; i++) {
        const struct schema_path up = { path, WEIR_STR("allOf"), -1 }, at = { &up, { 0 }, i };
        whole = schema_merge(s, whole, list->items[i], &at);
    }
    return whole;
}

static struct gram_expr *any_joined(struct schema *s, struct gj *node, const char *key,
                                    const struct schema_path *path)
{
    struct gj *list = gj_get(s->b, node, key), *rest = schema_without(s, node, key);
    struct gram_list parts = { 0 };

    if (list->type != WEIR_JSON_ARRAY || list->n == 0)
        return schema_fail(s, path, WEIR_INVALID, "\"%s\" is not a list of schemas", key);
    for (uint32_t i = 0; rest && i < list->n; i++) {
        const struct schema_path up = { path, weir_str(key), -1 }, at = { &up, { 0 }, i };
        struct gj *one = list->items[i];
        if (schema_constrains(rest))
            one = schema_merge(s, rest, one, &at);
        if (!one || !gram_list_add(s->b, &parts, schema_call(s, one, &at)))
            return NULL;
    }
    return s->b->err == WEIR_OK ? gram_alt(s->b, parts.at, parts.n) : NULL;
}

/* *ret_alone: what is referred to is all that there is. */
static struct gj *ref_joined(struct schema *s, struct gj *node, const struct schema_path *path,
                             bool *ret_alone)
{
    struct gj *rest = schema_without(s, node, "$ref"),
              *target = schema_resolve(s, gj_get(s->b, node, "$ref"), path);

    if (!rest || !target)
        return NULL;
    *ret_alone = !schema_constrains(rest);
    return *ret_alone ? target : schema_merge(s, rest, target, path);
}

static struct gram_expr *referred(struct schema *s, struct gj *node, const struct schema_path *path)
{
    const struct schema_path at = { path, WEIR_STR("$ref"), -1 };
    bool alone;
    struct gj *target = ref_joined(s, node, path, &alone);

    if (!target)
        return NULL;
    return alone ? schema_call(s, target, &at) : schema_expr(s, target, path);
}

struct gj *schema_flat(struct schema *s, struct gj *node, const struct schema_path *path)
{
    bool alone;

    for (int i = 0; node && node->type == WEIR_JSON_OBJECT; i++) {
        if (i > GRAM_NEST_MAX)
            return schema_fail(s, path, WEIR_TOOLARGE, "nested too deeply");
        if (!schema_check_keywords(s, node, path)) /* [J2] */
            return NULL;
        if (gj_get(s->b, node, "$ref"))
            node = ref_joined(s, node, path, &alone);
        else if (gj_get(s->b, node, "allOf"))
            node = all_joined(s, node, path);
        else
            break;
    }
    return s->b->err == WEIR_OK ? node : NULL;
}

static struct gram_expr *one_schema(struct schema *s, struct gj *node, const struct schema_path *path)
{
    if (node->type == WEIR_JSON_BOOL)
        return node->truth ? json_call(&s->json, JSON_VALUE) : gram_alt(s->b, NULL, 0);
    if (node->type != WEIR_JSON_OBJECT)
        return schema_fail(s, path, WEIR_INVALID, "a schema is an object or a boolean");
    if (!schema_check_keywords(s, node, path)) /* [J2] */
        return NULL;
    if (!schema_constrains(node))
        return json_call(&s->json, JSON_VALUE);
    if (gj_get(s->b, node, "$ref"))
        return referred(s, node, path);
    if (gj_get(s->b, node, "allOf")) {
        struct gj *whole = all_joined(s, node, path);
        return whole ? schema_expr(s, whole, path) : NULL;
    }
    if (gj_get(s->b, node, "anyOf"))
        return any_joined(s, node, "anyOf", path);
    if (gj_get(s->b, node, "oneOf"))
        return any_joined(s, node, "oneOf", path);
    if (gj_get(s->b, node, "enum") || gj_get(s->b, node, "const"))
        return enumerated(s, node, path);
    return typed(s, node, path);
}

struct gram_expr *schema_expr(struct schema *s, struct gj *node, const struct schema_path *path)
{
    if (s->depth >= GRAM_NEST_MAX)
        return schema_fail(s, path, WEIR_TOOLARGE, "nested too deeply");
    s->depth++;
    struct gram_expr *x = one_schema(s, node, path);
    s->depth--;
    return x;
}

struct gram_expr *schema_call(struct schema *s, struct gj *node, const struct schema_path *path)
{
    if (node->rule_1 == 0) {
        char where[160];
        struct weir_str at = schema_path_text(path, where, sizeof where);
        char *name = at.len ? weir_arena_strndup(&s->b->arena, at.ptr, at.len) : NULL;
        uint32_t rule =
            gram_rule_add(s->b, name ? (struct weir_str){ name, at.len } : WEIR_STR("the schema"), NULL,
                          /* stays= */ false);
        if (rule == UINT32_MAX)
            return NULL;
        node->rule_1 = rule + 1; /* first: it may refer to itself */
        struct gram_expr *body = schema_expr(s, node, path);
        if (!body)
            return NULL;
        s->b->rules[rule].body = body;
    }
    return gram_call(s->b, node->rule_1 - 1);
}

bool gram_schema(struct gram_build *b, struct weir_str json, bool compact, uint32_t *ret_root)
{
    struct schema s = { .b = b, .json = { .b = b, .compact = compact } };

    s.root = gj_parse(b, json);
    if (!s.root || !schema_call(&s, s.root, NULL))
        return false;
    *ret_root = s.root->rule_1 - 1;
    return true;
}
