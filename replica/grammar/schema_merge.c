/* schema_merge.c - schemas that must hold together become one.
 *
 * What allOf, a $ref beside other members, or anyOf beside other members say is joined member by member, so that
 * what follows sees a schema of one piece. Where two members can't be joined (two patterns) that is refused by name. */
#include "replica/grammar/schema_int.h"

#include <stdlib.h>
#include <string.h>

static bool is_one_of(struct weir_str key, const char *const *names)
{
    for (; *names; names++)
        if (weir_str_eq(key, *names))
            return true;
    return false;
}

static bool is_annotation(struct weir_str key)
{
    static const char *const names[] = {
        "title",   "description", "default",     "examples",      "example",         "$schema",
        "$id",     "id",          "$comment",    "deprecated",    "readOnly",        "writeOnly",
        "$anchor", "$defs",       "definitions", "discriminator", "contentEncoding", "contentMediaType",
        NULL
    };

    return is_one_of(key, names) || (key.len > 2 && memcmp(key.ptr, "x-", 2) == 0);
}

static bool is_known(struct weir_str key)
{
    static const char *const names[] = { "type",
                                         "properties",
                                         "required",
                                         "additionalProperties",
                                         "items",
                                         "prefixItems",
                                         "minItems",
                                         "maxItems",
                                         "enum",
                                         "const",
                                         "anyOf",
                                         "oneOf",
                                         "allOf",
                                         "$ref",
                                         "pattern",
                                         "format",
                                         "minLength",
                                         "maxLength",
                                         "minimum",
                                         "maximum",
                                         "exclusiveMinimum",
                                         "exclusiveMaximum",
                                         NULL };

    return is_one_of(key, names);
}

/* Of the keywords we do not know, those that say nothing here. */
static bool says_nothing(struct weir_str key, const struct gj *value)
{
    bool is_false = value->type == WEIR_JSON_BOOL && !value->truth;

    return (weir_str_eq(key, "uniqueItems") && is_false) || (weir_str_eq(key, "nullable") && is_false) ||
           (weir_str_eq(key, "strict") && value->type == WEIR_JSON_BOOL);
}

bool schema_check_keywords(struct schema *s, const struct gj *node, const struct schema_path *path)
{
    for (uint32_t i = 0; i < node->n; i++) {
        struct weir_str key = node->members[i].key;
        if (!is_known(key) && !is_annotation(key) && !says_nothing(key, node->members[i].value)) {
            size_t n = weir_utf8_cut(key.ptr, key.len, 60);
            return schema_fail(s, path, WEIR_UNIMPLEMENTED, "\"%.*s\" is not supported", (int)n, key.ptr);
        }
    }
    return true;
}

bool schema_constrains(const struct gj *node)
{
    if (node->type != WEIR_JSON_OBJECT)
        return node->type == WEIR_JSON_BOOL && !node->truth;
    for (uint32_t i = 0; i < node->n; i++)
        if (is_known(node->members[i].key))
            return true;
    return false;
}

struct gj *schema_without(struct schema *s, const struct gj *node, const char *key)
{
    struct gj *copy = gj_new(s->b, WEIR_JSON_OBJECT);

    for (uint32_t i = 0; copy && i < node->n; i++)
        if (!weir_str_eq(node->members[i].key, key) &&
            !gj_set(s->b, copy, node->members[i].key, node->members[i].value))
            return NULL;
    return copy;
}

/* ---- references ---- */

/* One step of a JSON pointer, with ~0 ~1 and %XX undone. */
static struct weir_str pointer_step(struct gram_build *b, struct weir_str raw)
{
    char *text = gram_alloc(b, raw.len + 1);
    size_t n = 0;

    for (size_t i = 0; text && i < raw.len; i++) {
        int high = i + 2 < raw.len ? gram_hex_digit(raw.ptr[i + 1]) : -1;
        int low = i + 2 < raw.len ? gram_hex_digit(raw.ptr[i + 2]) : -1;
        if (raw.ptr[i] == '~' && i + 1 < raw.len && (raw.ptr[i + 1] == '0' || raw.ptr[i + 1] == '1')) {
            text[n++] = raw.ptr[++i] == '0' ? '~' : '/';
        } else if (raw.ptr[i] == '%' && high >= 0 && low >= 0) {
            text[n++] = (char)(16 * high + low);
            i += 2;
        } else {
            text[n++] = raw.ptr[i];
        }
    }
    return (struct weir_str){ text, n };
}

static struct gj *step_into(struct schema *s, struct gj *node, struct weir_str step)
{
    if (node->type == WEIR_JSON_OBJECT)
        return gj_find(s->b, node, step);
    if (node->type != WEIR_JSON_ARRAY || step.len == 0 || step.len > 6)
        return NULL;
    uint32_t i = 0;
    for (size_t k = 0; k < step.len; k++) {
        if (step.ptr[k] < '0' || step.ptr[k] > '9')
            return NULL;
        i = 10 * i + (uint32_t)(step.ptr[k] - '0');
    }
    return i < node->n ? node->items[i] : NULL;
}

struct gj *schema_resolve(struct schema *s, const struct gj *ref, const struct schema_path *path)
{
    struct gj *node = s->root;
    struct weir_str text = ref->text;
    size_t at = 1;

    if (ref->type != WEIR_JSON_STRING || text.len == 0 || text.ptr[0] != '#' ||
        (text.len > 1 && text.ptr[1] != '/'))
        return schema_fail(s, path, WEIR_UNIMPLEMENTED, "\"$ref\" must point into this schema: \"#/...\"");
    while (node && at < text.len) {
        size_t end = ++at;
        while (end < text.len && text.ptr[end] != '/')
            end++;
        struct weir_str step = pointer_step(s->b, (struct weir_str){ text.ptr + at, end - at });
        node = step.ptr ? step_into(s, node, step) : NULL;
        at = end;
    }
    if (!node)
        schema_fail(s, path, WEIR_INVALID, "\"$ref\": there is nothing at \"%.*s\"",
                    (int)weir_utf8_cut(text.ptr, text.len, 80), text.ptr);
    return node;
}

/* ---- joining ---- */

static struct gj *all_of(struct schema *s, struct gj *x, struct gj *y)
{
    struct gj *both = gj_new(s->b, WEIR_JSON_OBJECT), *list = gj_new(s->b, WEIR_JSON_ARRAY);

    return both && list && gj_push(s->b, list, x) && gj_push(s->b, list, y) &&
                   gj_set(s->b, both, WEIR_STR("allOf"), list)
               ? both
               : NULL;
}

static bool is_bool(const struct gj *v, bool truth)
{
    return v->type == WEIR_JSON_BOOL && v->truth == truth;
}

static struct gj *join_schemas(struct schema *s, struct gj *x, struct gj *y)
{
    if (is_bool(x, false) || is_bool(y, true))
        return x;
    if (is_bool(y, false) || is_bool(x, true))
        return y;
    return all_of(s, x, y);
}

/* What `of` says about a property that it does not list; NULL: nothing. */
static struct gj *said_of_others(struct schema *s, const struct gj *of)
{
    struct gj *rest = gj_get(s->b, of, "additionalProperties");

    return rest && !is_bool(rest, true) ? rest : NULL;
}

static bool join_properties_of(struct schema *s, const struct gj *x, const struct gj *y, bool both_too,
                               struct gj *ret)
{
    const struct gj *props = gj_get(s->b, x, "properties"), *others = gj_get(s->b, y, "properties");

    for (uint32_t i = 0; props && props->type == WEIR_JSON_OBJECT && i < props->n; i++) {
        struct gj *value = props->members[i].value;
        struct gj *other = others ? gj_find(s->b, others, props->members[i].key) : NULL;
        if (other && !both_too)
            continue;
        if (!other)
            other = said_of_others(s, y);
        if (other)
            value = join_schemas(s, value, other);
        if (!value || !gj_set(s->b, ret, props->members[i].key, value))
            return false;
    }
    return true;
}

static struct gj *join_properties(struct schema *s, const struct gj *x, const struct gj *y)
{
    struct gj *ret = gj_new(s->b, WEIR_JSON_OBJECT);

    return ret && join_properties_of(s, x, y, /* both_too= */ true, ret) &&
                   join_properties_of(s, y, x, /* both_too= */ false, ret)
               ? ret
               : NULL;
}

static struct gj *join_lists(struct schema *s, const struct gj *x, const struct gj *y)
{
    struct gj *ret = gj_new(s->b, WEIR_JSON_ARRAY);

    for (uint32_t i = 0; ret && i < x->n; i++)
        if (!gj_push(s->b, ret, x->items[i]))
            return NULL;
    for (uint32_t i = 0; ret && i < y->n; i++)
        if (!gj_push(s->b, ret, y->items[i]))
            return NULL;
    return ret;
}

/* The values that are in both. */
static struct gj *common_values(struct schema *s, const struct gj *x, const struct gj *y)
{
    struct gj *ret = gj_new(s->b, WEIR_JSON_ARRAY);

    for (uint32_t i = 0; ret && i < x->n; i++)
        for (uint32_t k = 0; k < y->n && s->b->err == WEIR_OK; k++)
            if (gj_equal(s->b, x->items[i], y->items[k])) {
                if (!gj_push(s->b, ret, x->items[i]))
                    return NULL;
                break;
            }
    return ret;
}

static struct gj *join_types(struct schema *s, const struct gj *x, const struct gj *y,
                             const struct schema_path *path)
{
    static const char *const names[] = {
        "null", "boolean", "string", "integer", "number", "array", "object"
    };
    struct gj *ret = gj_new(s->b, WEIR_JSON_ARRAY);
    unsigned a, b;

    if (!ret || !schema_types(s, x, path, &a) || !schema_types(s, y, path, &b))
        return NULL;
    /* A number may be an integer. */
    unsigned both = (a | (a & TYPE_NUMBER ? TYPE_INTEGER : 0)) & (b | (b & TYPE_NUMBER ? TYPE_INTEGER : 0));
    if (both & TYPE_NUMBER)
        both &= ~(unsigned)TYPE_INTEGER;
    for (int i = 0; i < 7; i++) {
        struct gj *name = both & 1u << i ? gj_new(s->b, WEIR_JSON_STRING) : NULL;
        if (name)
            name->text = weir_str(names[i]);
        if (both & 1u << i && !gj_push(s->b, ret, name))
            return NULL;
    }
    return ret;
}

static struct gj *tighter(struct gram_build *b, struct gj *x, struct gj *y, bool larger)
{
    char *tx = weir_arena_strndup(&b->arena, x->text.ptr, x->text.len);
    char *ty = weir_arena_strndup(&b->arena, y->text.ptr, y->text.len);

    if (!tx || !ty)
        return gram_alloc(b, SIZE_MAX / 2); /* the same complaint */
    return (strtod(tx, NULL) > strtod(ty, NULL)) == larger ? x : y;
}

/* One keyword that both have. */
static struct gj *join_members(struct schema *s, struct weir_str key, struct gj *x, struct gj *y,
                               const struct schema_path *path)
{
    static const char *const lower[] = { "minimum", "exclusiveMinimum", "minLength", "minItems", NULL };
    static const char *const upper[] = { "maximum", "exclusiveMaximum", "maxLength", "maxItems", NULL };
    bool lists = x->type == WEIR_JSON_ARRAY && y->type == WEIR_JSON_ARRAY;

    if (gj_equal(s->b, x, y) || is_annotation(key))
        return x;
    if ((is_one_of(key, lower) || is_one_of(key, upper)) && x->type == WEIR_JSON_NUMBER &&
        y->type == WEIR_JSON_NUMBER)
        return tighter(s->b, x, y, is_one_of(key, lower));
    if ((weir_str_eq(key, "required") || weir_str_eq(key, "allOf")) && lists)
        return join_lists(s, x, y);
    if (weir_str_eq(key, "enum") && lists)
        return common_values(s, x, y);
    if (weir_str_eq(key, "additionalProperties") || weir_str_eq(key, "items"))
        return join_schemas(s, x, y);
    return schema_fail(s, path, WEIR_UNIMPLEMENTED, "\"%.*s\" twice, by allOf or $ref, is not supported",
                       (int)weir_utf8_cut(key.ptr, key.len, 60), key.ptr);
}

/* const as enum, so that two of them meet. */
static struct gj *plain_form(struct schema *s, struct gj *node)
{
    struct gj *value = gj_get(s->b, node, "const"), *list;

    if (!value || gj_get(s->b, node, "enum"))
        return node;
    list = gj_new(s->b, WEIR_JSON_ARRAY);
    node = schema_without(s, node, "const");
    return list && node && gj_push(s->b, list, value) && gj_set(s->b, node, WEIR_STR("enum"), list) ? node
                                                                                                    : NULL;
}

/* anyOf of both: one of them moves to oneOf, which means the same here. */
static struct gj *make_room(struct schema *s, struct gj *x, const struct gj *y)
{
    struct gj *any = gj_get(s->b, x, "anyOf");

    if (!any || !gj_get(s->b, y, "anyOf") || gj_get(s->b, x, "oneOf") || gj_get(s->b, y, "oneOf"))
        return x;
    x = schema_without(s, x, "anyOf");
    return x && gj_set(s->b, x, WEIR_STR("oneOf"), any) ? x : NULL;
}

static struct gj *join_objects(struct schema *s, struct gj *x, struct gj *y, const struct schema_path *path)
{
    struct gj *ret = gj_new(s->b, WEIR_JSON_OBJECT);
    bool properties = gj_get(s->b, x, "properties") || gj_get(s->b, y, "properties");
    struct gj *px = gj_get(s->b, x, "prefixItems"), *py = gj_get(s->b, y, "prefixItems");

    if ((px && gj_get(s->b, y, "items") && !py) || (py && gj_get(s->b, x, "items") && !px))
        return schema_fail(
            s, path, WEIR_UNIMPLEMENTED,
            "\"items\" beside \"prefixItems\" of another part, by allOf or $ref, is not supported");
    for (uint32_t i = 0; ret && i < x->n; i++) {
        struct weir_str key = x->members[i].key;
        struct gj *value = x->members[i].value, *other = gj_find(s->b, y, key);
        if (weir_str_eq(key, "properties"))
            continue;
        if (other && weir_str_eq(key, "type"))
            value = join_types(s, x, y, path);
        else if (other)
            value = join_members(s, key, value, other, path);
        if (!gj_set(s->b, ret, key, value))
            return NULL;
    }
    for (uint32_t i = 0; ret && i < y->n; i++)
        if (!gj_find(s->b, x, y->members[i].key) && !weir_str_eq(y->members[i].key, "properties") &&
            !gj_set(s->b, ret, y->members[i].key, y->members[i].value))
            return NULL;
    if (ret && properties && !gj_set(s->b, ret, WEIR_STR("properties"), join_properties(s, x, y)))
        return NULL;
    return ret;
}

/* A $ref gives way to what it points to. */
static struct gj *without_ref(struct schema *s, struct gj *node, const struct schema_path *path)
{
    struct gj *ref = gj_get(s->b, node, "$ref");

    if (!ref)
        return node;
    struct gj *target = schema_resolve(s, ref, path);
    return target ? schema_merge(s, schema_without(s, node, "$ref"), target, path) : NULL;
}

struct gj *schema_merge(struct schema *s, struct gj *x, struct gj *y, const struct schema_path *path)
{
    if (!x || !y)
        return NULL;
    if (++s->n_merges > SCHEMA_MERGES_MAX || ++s->merge_depth > SCHEMA_MERGE_NEST_MAX)
        return schema_fail(s, path, WEIR_TOOLARGE,
                           "too many combinations of allOf, anyOf and $ref, or one that contains itself");
    if (x->type == WEIR_JSON_BOOL || y->type == WEIR_JSON_BOOL) {
        s->merge_depth--;
        return is_bool(x, false) || is_bool(y, true) ? x : y;
    }
    if (x->type != WEIR_JSON_OBJECT || y->type != WEIR_JSON_OBJECT)
        return schema_fail(s, path, WEIR_INVALID, "a schema is an object or a boolean");
    if (!schema_check_keywords(s, x, path) || !schema_check_keywords(s, y, path))
        return NULL;
    x = without_ref(s, x, path);
    y = x ? without_ref(s, y, path) : NULL;
    s->merge_depth--;
    if (!y)
        return NULL;
    if (x->type == WEIR_JSON_BOOL || y->type == WEIR_JSON_BOOL)
        return is_bool(x, false) || is_bool(y, true) ? x : y;
    x = plain_form(s, x);
    y = x ? plain_form(s, y) : NULL;
    x = y ? make_room(s, x, y) : NULL;
    return x ? join_objects(s, x, y, path) : NULL;
}
