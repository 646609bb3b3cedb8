/* fuzz_json.c - our JSON against jansson.
 *
 * From the same text the pull parser builds a jansson tree and jansson parses one. Both refuse, or the trees
 * are equal; then the tree is written by our writer and read back by jansson, and is equal again. Skipping
 * accepts what reading does.
 *
 * Differences allowed: our depth limit is lower; jansson has no integers beyond int64 and no NUL in a key, so
 * that the builder refuses both as well; jansson overlooks a bare NUL after a number. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "violated: %s\n", what);
        abort();
    }
}

static json_t *build(struct weir_json *j);

static json_t *build_object(struct weir_json *j)
{
    json_t *object = json_object();
    struct weir_str key;

    weir_json_object(j);
    while (weir_json_key(j, &key)) {
        if (memchr(key.ptr, '\0', key.len)) {
            weir_json_fail(j, WEIR_INVALID, "a NUL in a key");
            break;
        }
        json_t *value = build(j);
        if (value)
            json_object_setn_new(object, key.ptr, key.len, value);
    }
    return object;
}

static json_t *build_array(struct weir_json *j)
{
    json_t *array = json_array();

    weir_json_array(j);
    while (weir_json_next(j)) {
        json_t *value = build(j);
        if (value)
            json_array_append_new(array, value);
    }
    return array;
}

static json_t *build_number(struct weir_json *j)
{
    struct weir_json again = *j;
    struct weir_str raw;
    int64_t n = 0;
    double x = 0;

    if (!weir_json_raw(&again, &raw)) {
        weir_json_skip(j);
        return NULL;
    }
    bool is_integer = true;
    for (size_t i = 0; i < raw.len; i++)
        is_integer = is_integer && raw.ptr[i] != '.' && raw.ptr[i] != 'e' && raw.ptr[i] != 'E';
    if (is_integer)
        return weir_json_i64(j, &n) ? json_integer(n) : NULL;
    /* A number that is an integer whatever its form is the same integer as a double. */
    again = *j;
    bool whole = weir_json_i64(&again, &n);
    if (!weir_json_f64(j, &x))
        return NULL;
    require(!whole || (double)n == x, "an integer with a point or exponent has its value");
    return json_real(x);
}

static json_t *build(struct weir_json *j)
{
    struct weir_str s = { NULL, 0 };
    bool flag = false;

    switch (weir_json_peek(j)) {
    case WEIR_JSON_OBJECT:
        return build_object(j);
    case WEIR_JSON_ARRAY:
        return build_array(j);
    case WEIR_JSON_NUMBER:
        return build_number(j);
    case WEIR_JSON_STRING:
        return weir_json_string(j, &s) ? json_stringn(s.ptr, s.len) : NULL;
    case WEIR_JSON_BOOL:
        return weir_json_bool(j, &flag) ? json_boolean(flag) : NULL;
    case WEIR_JSON_NULL:
        return weir_json_null(j) ? json_null() : NULL;
    default:
        weir_json_skip(j); /* the error */
        return NULL;
    }
}

static void write_tree(struct weir_jw *w, json_t *tree)
{
    const char *key;
    json_t *value;
    size_t i;

    switch (json_typeof(tree)) {
    case JSON_OBJECT:
        weir_jw_object(w);
        json_object_foreach(tree, key, value)
        {
            /* weir_jw_key takes plain keys only: an array of pairs holds any. */
            weir_jw_key(w, "pair");
            weir_jw_cstr(w, key);
            weir_jw_key(w, "value");
            write_tree(w, value);
        }
        weir_jw_object_end(w);
        break;
    case JSON_ARRAY:
        weir_jw_array(w);
        json_array_foreach(tree, i, value) write_tree(w, value);
        weir_jw_array_end(w);
        break;
    case JSON_STRING:
        weir_jw_str(w, (struct weir_str){ json_string_value(tree), json_string_length(tree) });
        break;
    case JSON_INTEGER:
        weir_jw_i64(w, json_integer_value(tree));
        break;
    case JSON_REAL:
        weir_jw_f64(w, json_real_value(tree));
        break;
    case JSON_NULL:
        weir_jw_null(w);
        break;
    default:
        weir_jw_bool(w, json_is_true(tree));
        break;
    }
}

/* Equal but for the object form above and for reals that are written as integers. */
static bool same(json_t *tree, json_t *back)
{
    const char *key;
    json_t *value;
    size_t i;

    if (json_is_number(tree))
        return json_is_number(back) && json_number_value(tree) == json_number_value(back) &&
               (!json_is_integer(tree) || json_equal(tree, back));
    if (json_is_array(tree)) {
        if (!json_is_array(back) || json_array_size(tree) != json_array_size(back))
            return false;
        json_array_foreach(tree, i, value) if (!same(value, json_array_get(back, i))) return false;
        return true;
    }
    if (!json_is_object(tree))
        return json_equal(tree, back);
    /* Of repeated members jansson keeps the last one. */
    json_t *last = NULL;
    const char *last_key = NULL;
    json_object_foreach(tree, key, value)
    {
        last = value;
        last_key = key;
    }
    if (!last)
        return json_is_object(back) && json_object_size(back) == 0;
    json_t *back_key = json_object_get(back, "pair");
    return json_is_string(back_key) && strcmp(json_string_value(back_key), last_key) == 0 &&
           same(last, json_object_get(back, "value"));
}

static void check_writing(json_t *tree)
{
    struct weir_buf out;
    struct weir_jw w;
    json_error_t error;

    weir_buf_init(&out, 0);
    weir_jw_init(&w, &out);
    write_tree(&w, tree);
    json_t *back =
        json_loadb(weir_buf_ptr(&out), weir_buf_len(&out), JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    require(back != NULL, "what we write is JSON");
    require(same(tree, back), "what we write reads back equal");
    json_decref(back);
    weir_buf_release(&out);
}

static bool skips(const char *text, size_t len)
{
    struct weir_json j;
    struct weir_str raw = { NULL, 0 };

    weir_json_init(&j, text, len, NULL);
    weir_json_raw(&j, &raw);
    return weir_json_end(&j, NULL) == WEIR_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    struct weir_arena arena;
    struct weir_json j;
    struct weir_why why = { .text = "" };
    json_error_t error;

    weir_arena_init(&arena, 0);
    weir_json_init(&j, text, size, &arena);
    json_t *ours = build(&j);
    weir_err rc = weir_json_end(&j, &why);
    bool too_deep = strstr(why.text, "nested too deeply") != NULL;
    json_t *theirs = json_loadb(text, size, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);

    require(rc == WEIR_OK || rc == WEIR_INVALID, "a text is right or wrong");
    if (size > 0 && memchr(text, '\0', size))
        require(rc == WEIR_INVALID, "a bare NUL is never JSON");
    else
        require(too_deep || (rc == WEIR_OK) == (theirs != NULL), "both accept or both refuse");
    require(rc != WEIR_OK || skips(text, size), "skipping accepts what reading does");
    require(rc == WEIR_OK || !skips(text, size) || strstr(why.text, "out of range") ||
                strstr(why.text, "a NUL"),
            "skipping refuses what reading does, but for a number's range");
    require(weir_utf8_valid(why.text, strlen(why.text)) && weir_utf8_valid(why.param, strlen(why.param)),
            "errors are valid UTF-8");
    if (rc == WEIR_OK) {
        require(ours && json_equal(ours, theirs), "both read the same values");
        check_writing(ours);
    }
    json_decref(ours);
    json_decref(theirs);
    weir_arena_release(&arena);
    return 0;
}
