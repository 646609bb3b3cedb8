/* validate.c - see validate.h. */
#include "tests/unit/grammar/validate.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/utf8.h"

static bool is_type(const char *name, json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        return strcmp(name, "object") == 0;
    case JSON_ARRAY:
        return strcmp(name, "array") == 0;
    case JSON_STRING:
        return strcmp(name, "string") == 0;
    case JSON_INTEGER:
        return strcmp(name, "integer") == 0 || strcmp(name, "number") == 0;
    case JSON_REAL:
        return strcmp(name, "number") == 0 ||
               (strcmp(name, "integer") == 0 && floor(json_real_value(v)) == json_real_value(v));
    case JSON_NULL:
        return strcmp(name, "null") == 0;
    default:
        return strcmp(name, "boolean") == 0;
    }
}

static bool any_type(json_t *type, json_t *v)
{
    size_t i;
    json_t *one;

    if (json_is_string(type))
        return is_type(json_string_value(type), v);
    json_array_foreach(type, i, one) if (is_type(json_string_value(one), v)) return true;
    return false;
}

static bool has_match(json_t *pattern, json_t *v)
{
    int error;
    PCRE2_SIZE offset;
    pcre2_code *re = pcre2_compile((PCRE2_SPTR)json_string_value(pattern), json_string_length(pattern),
                                   PCRE2_UTF | PCRE2_DOLLAR_ENDONLY | PCRE2_ALT_BSUX, &error, &offset, NULL);

    assert_non_null(re);
    pcre2_match_data *data = pcre2_match_data_create_from_pattern(re, NULL);
    int rc = pcre2_match(re, (PCRE2_SPTR)json_string_value(v), json_string_length(v), 0, 0, data, NULL);
    pcre2_match_data_free(data);
    pcre2_code_free(re);
    return rc > 0;
}

static json_int_t n_chars(json_t *v)
{
    const char *s = json_string_value(v);
    size_t len = json_string_length(v);
    json_int_t n = 0;

    for (size_t i = 0; i < len; n++)
        i += weir_utf8_step(s + i, len - i);
    return n;
}

static json_t *point(json_t *root, const char *ref)
{
    char step[128];

    assert_int_equal(*ref, '#');
    for (ref++; *ref == '/'; ref += strlen(step) + 1) {
        snprintf(step, sizeof step, "%.*s", (int)strcspn(ref + 1, "/"), ref + 1);
        root = json_object_get(root, step);
    }
    assert_non_null(root);
    return root;
}

static int n_valid(json_t *root, json_t *list, json_t *v)
{
    size_t i;
    json_t *one;
    int n = 0;

    json_array_foreach(list, i, one) n += validate(root, one, v);
    return n;
}

static bool is_listed(json_t *list, json_t *v)
{
    size_t i;
    json_t *one;

    json_array_foreach(list, i, one) if (json_equal(one, v)) return true;
    return false;
}

static bool object_fits(json_t *root, json_t *schema, json_t *v)
{
    json_t *props = json_object_get(schema, "properties"),
           *rest = json_object_get(schema, "additionalProperties");
    json_t *required = json_object_get(schema, "required"), *one;
    const char *key;
    size_t i;

    json_array_foreach(required, i, one) if (!json_object_get(v, json_string_value(one))) return false;
    json_object_foreach(v, key, one)
    {
        json_t *sub = json_object_get(props, key);
        if (sub ? !validate(root, sub, one) : rest && !validate(root, rest, one))
            return false;
    }
    return true;
}

static bool array_fits(json_t *root, json_t *schema, json_t *v)
{
    json_t *prefix = json_object_get(schema, "prefixItems"), *items = json_object_get(schema, "items"), *one;
    size_t i;

    json_array_foreach(v, i, one)
    {
        json_t *sub = i < json_array_size(prefix) ? json_array_get(prefix, i) : items;
        if (sub && !validate(root, sub, one))
            return false;
    }
    return true;
}

static bool keyword_fits(json_t *root, json_t *schema, const char *key, json_t *arg, json_t *v)
{
    double x = json_is_number(v) ? json_number_value(v) : 0;
    double bound = json_number_value(arg);

    if (strcmp(key, "type") == 0)
        return any_type(arg, v);
    if (strcmp(key, "enum") == 0)
        return is_listed(arg, v);
    if (strcmp(key, "const") == 0)
        return json_equal(arg, v);
    if (strcmp(key, "anyOf") == 0)
        return n_valid(root, arg, v) > 0;
    if (strcmp(key, "oneOf") == 0)
        return n_valid(root, arg, v) == 1;
    if (strcmp(key, "allOf") == 0)
        return n_valid(root, arg, v) == (int)json_array_size(arg);
    if (strcmp(key, "$ref") == 0)
        return validate(root, point(root, json_string_value(arg)), v);
    if (strcmp(key, "minimum") == 0)
        return !json_is_number(v) || x >= bound;
    if (strcmp(key, "maximum") == 0)
        return !json_is_number(v) || x <= bound;
    if (strcmp(key, "exclusiveMinimum") == 0)
        return !json_is_number(v) || x > bound;
    if (strcmp(key, "exclusiveMaximum") == 0)
        return !json_is_number(v) || x < bound;
    if (strcmp(key, "minLength") == 0)
        return !json_is_string(v) || n_chars(v) >= json_integer_value(arg);
    if (strcmp(key, "maxLength") == 0)
        return !json_is_string(v) || n_chars(v) <= json_integer_value(arg);
    if (strcmp(key, "pattern") == 0)
        return !json_is_string(v) || has_match(arg, v);
    if (strcmp(key, "minItems") == 0)
        return !json_is_array(v) || (json_int_t)json_array_size(v) >= json_integer_value(arg);
    if (strcmp(key, "maxItems") == 0)
        return !json_is_array(v) || (json_int_t)json_array_size(v) <= json_integer_value(arg);
    if (strcmp(key, "properties") == 0 || strcmp(key, "required") == 0 ||
        strcmp(key, "additionalProperties") == 0)
        return !json_is_object(v) || object_fits(root, schema, v);
    if (strcmp(key, "items") == 0 || strcmp(key, "prefixItems") == 0)
        return !json_is_array(v) || array_fits(root, schema, v);
    if (strcmp(key, "$defs") != 0 && strcmp(key, "title") != 0 && strcmp(key, "description") != 0 &&
        strcmp(key, "format") != 0)
        fail_msg("the validator does not know \"%s\"", key);
    return true;
}

bool validate(json_t *root, json_t *schema, json_t *value)
{
    const char *key;
    json_t *arg;

    if (json_is_boolean(schema))
        return json_is_true(schema);
    json_object_foreach(schema, key, arg) if (!keyword_fits(root, schema, key, arg, value)) return false;
    return true;
}
