/* tags.c - calls as Qwen's coders write them: each argument between tags, text as it is, anything else as JSON.
 *
 *     <function=name>
 *     <parameter=key>
 *     value
 *     </parameter>
 *     </function>
 *
 *   [J4] What is text and what is JSON, whoever reads the call decides in the same way (replica/text/tool_xml.c): a value
 * is text where its schema permits strings and says so, and then it is always a string.
 *   [J5] No value holds the tag that ends it. */
#include "replica/grammar/schema_int.h"

#include <string.h>

#include "replica/text/tool_parse.h"

#define CLOSE "</parameter>"

enum {
    OPEN_NAME_MAX = 64, /* characters of a name that nothing describes */
    EXACT_MAX = 64,     /* characters of texts that may hold any other tag */
};

/* ---- texts ---- */

/* [J5] How far a tag has come is a state for each count, so long texts are kept from beginning any. */
struct gram_expr *tags_text(struct gram_build *b, uint32_t min, uint32_t max)
{
    bool is_long = (max == GRAM_INF ? min : max) > EXACT_MAX;

    return gram_without(b, is_long ? WEIR_STR("</") : WEIR_STR(CLOSE), min, max);
}

/* Of a pattern: it can't be said of one character whether it is a tag's, so none begins one. [J5] */
struct gram_expr *tags_char(struct gram_build *b, const struct gram_class *set)
{
    static const struct gram_range plain[] = {
        { '\t', '\n' }, { '\r', '\r' }, { ' ', '<' - 1 }, { '<' + 1, 0x10ffff }
    };
    struct gram_class raw;

    return gram_class_common(b, set, plain, 4, &raw) ? gram_class(b, raw) : NULL;
}

static bool is_string(const struct gj *v)
{
    return v->type == WEIR_JSON_STRING;
}

static bool says_text(struct schema *s, struct gj *node, int *n_left, const struct schema_path *path)
{
    static const char *const lists[] = { "anyOf", "oneOf", "allOf" };

    if (--*n_left < 0 || node->type != WEIR_JSON_OBJECT)
        return false;
    const struct gj *ref = gj_get(s->b, node, "$ref"), *type = gj_get(s->b, node, "type");
    const struct gj *values = gj_get(s->b, node, "enum"), *value = gj_get(s->b, node, "const");
    if (ref) {
        struct gj *target = schema_resolve(s, ref, path); /* then it is a string */
        bool escaped = target && (memchr(ref->text.ptr, '~', ref->text.len) ||
                                  memchr(ref->text.ptr, '%', ref->text.len));
        return target && !escaped && says_text(s, target, n_left, path);
    }
    for (uint32_t i = 0; type && type->type == WEIR_JSON_ARRAY && i < type->n; i++)
        if (weir_str_eq(type->items[i]->text, "string"))
            return true;
    if (type)
        return is_string(type) && weir_str_eq(type->text, "string");
    if (values)
        return values->type == WEIR_JSON_ARRAY && values->n > 0 && is_string(values->items[0]);
    if (value)
        return is_string(value);
    for (int k = 0; k < 3; k++) {
        const struct gj *list = gj_get(s->b, node, lists[k]);
        for (uint32_t i = 0; list && list->type == WEIR_JSON_ARRAY && i < list->n; i++)
            if (says_text(s, list->items[i], n_left, path))
                return true;
    }
    return false;
}

static bool is_text(struct schema *s, struct gj *node, const struct schema_path *path) /* [J4] */
{
    int n_left = WEIR_OUTPUT_TYPE_LOOKS_MAX;

    return says_text(s, node, &n_left, path);
}

static struct gram_expr *listed_texts(struct schema *s, const struct gj *node, const struct schema_path *path)
{
    const struct gj *list = gj_get(s->b, node, "enum"), *value = gj_get(s->b, node, "const");
    struct gram_list parts = { 0 };

    if (list && list->type != WEIR_JSON_ARRAY)
        return schema_fail(s, path, WEIR_INVALID, "\"enum\" is not a list");
    for (uint32_t i = 0; i < (list ? list->n : 1); i++) {
        const struct gj *one = list ? list->items[i] : value;
        bool fits = is_string(one) && !(list && value && !gj_equal(s->b, one, value));
        if (fits && one->text.len > 0)
            fits = !memmem(one->text.ptr, one->text.len, CLOSE, strlen(CLOSE)); /* [J5] */
        if (fits && !gram_list_add(s->b, &parts, gram_bytes(s->b, one->text)))
            return NULL;
    }
    if (parts.n == 0)
        return schema_fail(s, path, WEIR_INVALID, "no value of \"enum\" or \"const\" can be said in a tag");
    return gram_alt(s->b, parts.at, parts.n);
}

static struct gram_expr *text_expr(struct schema *s, struct gj *node, const struct schema_path *path);

/* Those of the alternatives that are texts. */
static struct gram_expr *any_text(struct schema *s, struct gj *node, const char *key,
                                  const struct schema_path *path)
{
    const struct gj *list = gj_get(s->b, node, key);
    struct gj *rest = schema_without(s, node, key);
    struct gram_list parts = { 0 };

    if (list->type != WEIR_JSON_ARRAY)
        return schema_fail(s, path, WEIR_INVALID, "\"%s\" is not a list of schemas", key);
    for (uint32_t i = 0; rest && i < list->n; i++) {
        const struct schema_path up = { path, weir_str(key), -1 }, at = { &up, { 0 }, i };
        struct gj *one = list->items[i];
        if (!is_text(s, one, &at))
            continue;
        if (schema_constrains(rest))
            one = schema_merge(s, rest, one, &at);
        if (!one || !gram_list_add(s->b, &parts, text_expr(s, one, &at)))
            return NULL;
    }
    return s->b->err == WEIR_OK ? gram_alt(s->b, parts.at, parts.n) : NULL;
}

static struct gram_expr *flat_text(struct schema *s, struct gj *node, const struct schema_path *path)
{
    unsigned types;

    node = schema_flat(s, node, path);
    if (!node)
        return NULL;
    if (node->type != WEIR_JSON_OBJECT)
        return schema_fail(s, path, WEIR_INVALID, "a schema is an object or a boolean");
    if (gj_get(s->b, node, "anyOf"))
        return any_text(s, node, "anyOf", path);
    if (gj_get(s->b, node, "oneOf"))
        return any_text(s, node, "oneOf", path);
    if (gj_get(s->b, node, "enum") || gj_get(s->b, node, "const"))
        return schema_lone_enum(s, node, path) ? listed_texts(s, node, path) : NULL;
    if (!schema_types(s, node, path, &types))
        return NULL;
    return types & TYPE_STRING ? schema_string(s, node, /* raw= */ true, path) : gram_alt(s->b, NULL, 0);
}

static struct gram_expr *text_expr(struct schema *s, struct gj *node, const struct schema_path *path)
{
    if (s->depth >= GRAM_NEST_MAX)
        return schema_fail(s, path, WEIR_TOOLARGE, "nested too deeply");
    s->depth++;
    struct gram_expr *x = flat_text(s, node, path);
    s->depth--;
    return x;
}

/* ---- parameters ---- */

struct gram_expr *tags_closed(struct gram_build *b, struct gram_expr *value)
{
    return gram_cat2(b, value, gram_text(b, "\n" CLOSE "\n"));
}

/* Any text and the tag that ends it: one rule for all, because what such a text allows is costly to find; and with the
 * tag, so that it is known within the rule where the text ends. */
static struct gram_expr *plain_text(struct schema *s)
{
    if (s->text_rule_1 == 0) {
        struct gram_expr *x = tags_closed(s->b, tags_text(s->b, 0, GRAM_INF));
        uint32_t rule = gram_rule_add(s->b, WEIR_STR("a text"), x, /* stays= */ true);
        if (rule == UINT32_MAX)
            return NULL;
        s->text_rule_1 = rule + 1;
    }
    return gram_call(s->b, s->text_rule_1 - 1);
}

struct gram_expr *tags_value(struct schema *s, struct gj *node, const struct schema_path *path)
{
    if (!is_text(s, node, path))
        return tags_closed(s->b, schema_call(s, node, path));
    struct gram_expr *x = text_expr(s, node, path);
    bool plain = x && x->kind == GRAM_WITHOUT && x->min == 0 && x->max == GRAM_INF;
    return plain ? plain_text(s) : tags_closed(s->b, x);
}

struct gram_expr *tags_parameter(struct schema *s, struct weir_str name, struct gram_expr *value, bool many,
                                 const struct schema_path *path)
{
    struct gram_build *b = s->b;

    if (name.len == 0 || name.len > WEIR_OUTPUT_NAME_MAX || memchr(name.ptr, '>', name.len))
        return schema_fail(s, path, WEIR_UNIMPLEMENTED, "a parameter's name that can't stand in a tag");
    struct gram_expr *open =
        gram_cat3(b, gram_text(b, "<parameter="), gram_bytes(b, name), gram_text(b, ">\n"));
    if (many)
        open = gram_call(b, gram_rule_add(b, WEIR_STR("a parameter's tag"), open, /* stays= */ true));
    return gram_cat2(b, open, value);
}

struct gram_expr *tags_any_parameters(struct schema *s, struct gram_expr *value)
{
    struct gram_build *b = s->b;
    struct gram_expr *name = gram_repeat(b, json_set(b, "azAZ09__--"), 1, OPEN_NAME_MAX);
    struct gram_expr *open = gram_cat3(b, gram_text(b, "<parameter="), name, gram_text(b, ">\n"));

    return gram_repeat(b, gram_cat2(b, open, value), 0, GRAM_INF);
}

static struct gram_expr *parameters_expr(struct schema *s, struct gj *node, const struct schema_path *path)
{
    static const char *const others[] = { "anyOf", "oneOf", "enum", "const" };
    unsigned types;

    node = schema_flat(s, node, path);
    if (!node)
        return NULL;
    if (!schema_constrains(node))
        return tags_any_parameters(s, tags_closed(s->b, json_call(&s->json, JSON_VALUE)));
    for (int i = 0; node->type == WEIR_JSON_OBJECT && i < 4; i++)
        if (gj_get(s->b, node, others[i]))
            return schema_fail(s, path, WEIR_UNIMPLEMENTED, "\"%s\" of all arguments is not supported",
                               others[i]);
    if (node->type == WEIR_JSON_OBJECT && !schema_types(s, node, path, &types))
        return NULL;
    if (node->type != WEIR_JSON_OBJECT || !(types & TYPE_OBJECT))
        return schema_fail(s, path, WEIR_INVALID, "the arguments are no object");
    return schema_parameters(s, node, path);
}

struct gram_expr *tags_call(struct schema *s, struct weir_str name, struct gj *parameters,
                            const struct schema_path *path)
{
    struct gram_build *b = s->b;
    struct gram_expr *inner = parameters_expr(s, parameters, path);
    struct gram_expr *parts[] = { gram_text(b, "<function="), gram_bytes(b, name), gram_text(b, ">\n"), inner,
                                  gram_text(b, "</function>") };

    return inner ? gram_cat(b, parts, 5) : NULL;
}
