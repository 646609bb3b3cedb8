/* json_tree.c - a JSON text as a tree: a schema refers to its own parts, so it can't be read in one pass. */
#include "replica/grammar/schema_int.h"

#include <string.h>

struct gj *gj_new(struct gram_build *b, enum weir_json_type type)
{
    struct gj *v = gram_alloc(b, sizeof *v);

    if (v)
        v->type = type;
    return v;
}

/* Room for one more; doubles into the arena. */
static void *room(struct gram_build *b, void *old, struct gj *v, size_t size)
{
    if (v->n < v->cap)
        return old;
    uint32_t cap = v->cap ? 2 * v->cap : 4;
    void *at = gram_alloc(b, cap * size);
    if (!at)
        return NULL;
    if (v->n > 0)
        memcpy(at, old, v->n * size);
    v->cap = cap;
    return at;
}

bool gj_set(struct gram_build *b, struct gj *object, struct weir_str key, struct gj *value)
{
    struct gj_member *members = room(b, object->members, object, sizeof *members);

    if (!members || !value)
        return false;
    object->members = members;
    members[object->n++] = (struct gj_member){ key, value };
    return true;
}

bool gj_push(struct gram_build *b, struct gj *array, struct gj *value)
{
    struct gj **items = room(b, array->items, array, sizeof *items);

    if (!items || !value)
        return false;
    array->items = items;
    items[array->n++] = value;
    return true;
}

static struct gj *read_value(struct gram_build *b, struct weir_json *j)
{
    struct gj *v = gj_new(b, weir_json_peek(j));
    struct weir_str key;

    if (!v)
        return NULL;
    switch (v->type) {
    case WEIR_JSON_OBJECT:
        weir_json_object(j);
        while (weir_json_key(j, &key))
            if (!gj_set(b, v, key, read_value(b, j)))
                return NULL;
        break;
    case WEIR_JSON_ARRAY:
        weir_json_array(j);
        while (weir_json_next(j))
            if (!gj_push(b, v, read_value(b, j)))
                return NULL;
        break;
    case WEIR_JSON_STRING:
        weir_json_string(j, &v->text);
        break;
    case WEIR_JSON_NUMBER:
        weir_json_raw(j, &v->text);
        break;
    case WEIR_JSON_BOOL:
        weir_json_bool(j, &v->truth);
        break;
    case WEIR_JSON_NULL:
        weir_json_null(j);
        break;
    default:
        weir_json_skip(j); /* the error */
        break;
    }
    return v;
}

struct gj *gj_parse(struct gram_build *b, struct weir_str json)
{
    struct weir_json j;

    weir_json_init(&j, json.ptr, json.len, &b->arena);
    struct gj *v = read_value(b, &j);
    if (b->err != WEIR_OK)
        return NULL;
    weir_err err = weir_json_end(&j, NULL);
    if (err != WEIR_OK)
        return gram_fail(b, err == WEIR_NOMEM ? WEIR_TOOLARGE : err, "the schema is not JSON: %s",
                         j.why.text);
    return v;
}

/* Members are looked at one by one, which a large schema can make quadratic: so it is counted. */
struct gj *gj_find(struct gram_build *b, const struct gj *object, struct weir_str key)
{
    if (object->type != WEIR_JSON_OBJECT || !gram_work(b, WEIR_STR("the schema"), 1 + object->n / 4))
        return NULL;
    for (uint32_t i = object->n; i-- > 0;) /* of a key twice the last counts */
        if (object->members[i].key.len == key.len &&
            memcmp(object->members[i].key.ptr, key.ptr, key.len) == 0)
            return object->members[i].value;
    return NULL;
}

struct gj *gj_get(struct gram_build *b, const struct gj *object, const char *key)
{
    return gj_find(b, object, weir_str(key));
}

static bool same_text(struct weir_str a, struct weir_str b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

bool gj_equal(struct gram_build *b, const struct gj *x, const struct gj *y)
{
    if (!gram_work(b, WEIR_STR("the schema"), 1))
        return false;
    if (x->type != y->type || x->n != y->n || x->truth != y->truth || !same_text(x->text, y->text))
        return false;
    for (uint32_t i = 0; i < x->n; i++) {
        if (x->type == WEIR_JSON_ARRAY && !gj_equal(b, x->items[i], y->items[i]))
            return false;
        const struct gj *other = x->type == WEIR_JSON_OBJECT ? gj_find(b, y, x->members[i].key) : x;
        if (x->type == WEIR_JSON_OBJECT && (!other || !gj_equal(b, x->members[i].value, other)))
            return false;
    }
    return true;
}

static void write_value(struct weir_jw *w, const struct gj *v)
{
    switch (v->type) {
    case WEIR_JSON_OBJECT:
        weir_jw_object(w);
        for (uint32_t i = 0; i < v->n; i++) {
            weir_jw_key_str(w, v->members[i].key);
            write_value(w, v->members[i].value);
        }
        weir_jw_object_end(w);
        break;
    case WEIR_JSON_ARRAY:
        weir_jw_array(w);
        for (uint32_t i = 0; i < v->n; i++)
            write_value(w, v->items[i]);
        weir_jw_array_end(w);
        break;
    case WEIR_JSON_STRING:
        weir_jw_str(w, v->text);
        break;
    case WEIR_JSON_NUMBER:
        weir_jw_raw(w, v->text);
        break;
    case WEIR_JSON_BOOL:
        weir_jw_bool(w, v->truth);
        break;
    default:
        weir_jw_null(w);
        break;
    }
}

/* [J3] */
static size_t put_text(const struct gram_build *b, const struct weir_buf *json, char *room)
{
    const char *from = weir_buf_ptr(json);
    size_t n = 0;

    for (size_t i = 0; i < weir_buf_len(json); i++) {
        if (b->in_tags && from[i] == '/' && i > 0 && from[i - 1] == '<')
            room[n++] = '\\';
        room[n++] = from[i];
    }
    return n;
}

struct weir_str gj_text(struct gram_build *b, const struct gj *value)
{
    struct weir_buf out;
    struct weir_jw w;
    struct weir_str ret = { "", 0 };

    weir_buf_init(&out, 8 * WEIR_GRAMMAR_TEXT_MAX);
    weir_jw_init(&w, &out);
    write_value(&w, value);
    char *text = out.failed ? gram_fail(b, WEIR_NOMEM, "no memory for the grammar")
                            : gram_alloc(b, 2 * weir_buf_len(&out) + 1);
    if (text)
        ret = (struct weir_str){ text, put_text(b, &out, text) };
    weir_buf_release(&out);
    return ret;
}
