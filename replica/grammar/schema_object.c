/* schema_object.c - objects of a schema: as JSON, and the arguments of a call in tags (tags.c), whose parameters are an
 * object's members written in another way. */
#include "replica/grammar/schema_int.h"

#include <string.h>

/* ---- names that are not listed ---- */

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
        if ((unsigned char)text.ptr[i] < ' ' || text.ptr[i] == '"' || text.ptr[i] == '\\' ||
            (b->in_tags && text.ptr[i] == '<'))
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
    if (b->in_tags)
        gram_ranges_add(b, &taken, '<', '<');
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

/* ---- members ---- */

struct object_parts {
    struct schema *s;
    bool in_tags; /* members are parameters of a call */
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

static bool add_member(struct object_parts *o, struct weir_str name, struct gram_expr *value, bool optional,
                       const struct schema_path *path)
{
    struct gram_expr *x = NULL;

    o->optional[o->parts.n] = optional;
    if (value && o->in_tags)
        x = tags_parameter(o->s, name, value, o->many, path);
    else if (value)
        x = member(o, name_literal(o, name), value);
    return gram_list_add(o->s->b, &o->parts, x);
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
        struct gram_expr *x = o->in_tags ? tags_value(o->s, value, &at) : schema_call(o->s, value, &at);
        if (!add_member(o, key, x, !is_required(o, key), &at))
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
        if (known)
            continue;
        struct gram_expr *x = others_value(o, path);
        if (!add_member(o, name, o->in_tags ? tags_closed(o->s->b, x) : x, /* optional= */ false, path))
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

/* ---- the whole ---- */

static bool is_closed(const struct object_parts *o)
{
    return o->others ? o->others->type == WEIR_JSON_BOOL && !o->others->truth : o->properties != NULL;
}

struct gram_expr *schema_object(struct schema *s, struct gj *node, const struct schema_path *path)
{
    struct object_parts o = { .s = s };
    struct gram_build *b = s->b;

    if (!read_object(&o, node, path))
        return NULL;
    bool closed = is_closed(&o);
    if (!o.properties && !o.required && !closed && (!o.others || o.others->type == WEIR_JSON_BOOL))
        return json_call(&s->json, JSON_OBJECT);
    if (!add_properties(&o, path) || !add_required(&o, path) || (!closed && !add_others(&o, path)))
        return NULL;
    struct gram_expr *ws = json_call(&s->json, JSON_WS), *chain = gram_cat2(b, gram_text(b, ","), ws);
    chain = gram_chain(b, o.parts.at, o.optional, o.parts.n, chain, /* last_repeats= */ !closed);
    return gram_cat(b, (struct gram_expr *[]){ gram_text(b, "{"), ws, chain, gram_text(b, "}") }, 4);
}

/* Where parameters are described there are no others, whatever "additionalProperties" says: in tags a model has no way
 * to tell that it means more than what it knows of. */
struct gram_expr *schema_parameters(struct schema *s, struct gj *node, const struct schema_path *path)
{
    struct object_parts o = { .s = s, .in_tags = true };

    if (!read_object(&o, node, path) || !add_properties(&o, path) || !add_required(&o, path))
        return NULL;
    if (o.parts.n == 0 && !is_closed(&o))
        return tags_any_parameters(s, tags_closed(s->b, others_value(&o, path)));
    return gram_chain(s->b, o.parts.at, o.optional, o.parts.n, gram_text(s->b, ""),
                      /* last_repeats= */ false);
}
