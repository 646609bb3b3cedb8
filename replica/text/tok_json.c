/* tok_json.c - reading a component of tokenizer.json by the names of its members.
 *
 * A component's members come in any order, its kind perhaps last; so it is kept as text, checked once, and
 * asked for one member at a time. Components are small; the two large members (vocab, merges) are walked by
 * tok_model.c. */
#include "replica/text/tok_int.h"

#include <string.h>

#include "base/json.h"
#include "replica/text/text_int.h"

static weir_err no_memory(struct tok_load *ld)
{
    return weir_fail(ld->why, WEIR_NOMEM, "no memory for tokenizer.json");
}

/* The file is at fault, not the request. */
static weir_err finish(struct tok_load *ld, struct weir_json *j)
{
    weir_err err = weir_json_end(j, ld->why);

    return err == WEIR_INVALID ? WEIR_CORRUPT : err;
}

weir_err tok_get_raws(struct tok_load *ld, struct weir_str obj, const char *const *keys, int n,
                      struct weir_str *ret)
{
    struct weir_json j;
    struct weir_str key, raw;

    weir_json_init(&j, obj.ptr, obj.len, &ld->scratch);
    if (weir_json_object(&j)) {
        while (weir_json_key(&j, &key)) {
            if (!weir_json_raw(&j, &raw))
                break;
            for (int i = 0; i < n; i++)
                if (weir_str_eq(key, keys[i]))
                    ret[i] = raw.ptr[0] == 'n' ? (struct weir_str){ 0 } : raw;
        }
    }
    return finish(ld, &j);
}

weir_err tok_get_raw(struct tok_load *ld, struct weir_str obj, const char *key, struct weir_str *ret)
{
    return tok_get_raws(ld, obj, &key, 1, ret);
}

weir_err tok_as_str(struct tok_load *ld, struct weir_str raw, const char *key, struct weir_str *ret)
{
    struct weir_json j;
    struct weir_str value;

    if (!raw.ptr)
        return WEIR_OK;
    weir_json_init(&j, raw.ptr, raw.len, &ld->scratch);
    if (!weir_json_string(&j, &value))
        return weir_fail(ld->why, WEIR_CORRUPT, "\"%s\" is not a string", key);
    *ret = value;
    return WEIR_OK;
}

weir_err tok_get_str(struct tok_load *ld, struct weir_str obj, const char *key, struct weir_str *ret)
{
    struct weir_str raw = { 0 };
    weir_err err = tok_get_raw(ld, obj, key, &raw);

    return err == WEIR_OK ? tok_as_str(ld, raw, key, ret) : err;
}

weir_err tok_as_bool(struct tok_load *ld, struct weir_str raw, const char *key, bool *ret)
{
    struct weir_json j;
    bool value;

    if (!raw.ptr)
        return WEIR_OK;
    weir_json_init(&j, raw.ptr, raw.len, &ld->scratch);
    if (!weir_json_bool(&j, &value))
        return weir_fail(ld->why, WEIR_CORRUPT, "\"%s\" is not a boolean", key);
    *ret = value;
    return WEIR_OK;
}

weir_err tok_get_bool(struct tok_load *ld, struct weir_str obj, const char *key, bool *ret)
{
    struct weir_str raw = { 0 };
    weir_err err = tok_get_raw(ld, obj, key, &raw);

    return err == WEIR_OK ? tok_as_bool(ld, raw, key, ret) : err;
}

weir_err tok_as_size(struct tok_load *ld, struct weir_str raw, const char *key, size_t *ret)
{
    struct weir_json j;
    uint64_t value;

    if (!raw.ptr)
        return WEIR_OK;
    weir_json_init(&j, raw.ptr, raw.len, &ld->scratch);
    if (!weir_json_u64(&j, &value))
        return weir_fail(ld->why, WEIR_CORRUPT, "\"%s\" is not a count", key);
    *ret = value;
    return WEIR_OK;
}

weir_err tok_get_size(struct tok_load *ld, struct weir_str obj, const char *key, size_t *ret)
{
    struct weir_str raw = { 0 };
    weir_err err = tok_get_raw(ld, obj, key, &raw);

    return err == WEIR_OK ? tok_as_size(ld, raw, key, ret) : err;
}

weir_err tok_get_pattern(struct tok_load *ld, struct weir_str obj, struct tok_regex **ret_re,
                         struct weir_str *ret_literal)
{
    struct weir_str pattern = { 0 }, literal = { 0 }, regex = { 0 };
    weir_err err = tok_get_raw(ld, obj, "pattern", &pattern);

    if (err == WEIR_OK && !pattern.ptr)
        err = weir_fail(ld->why, WEIR_CORRUPT, "\"pattern\" is missing");
    if (err == WEIR_OK)
        err = tok_get_str(ld, pattern, "String", &literal);
    if (err == WEIR_OK)
        err = tok_get_str(ld, pattern, "Regex", &regex);
    if (err != WEIR_OK)
        return err;
    if (regex.ptr)
        return tok_regex_open(regex, ret_re, ld->why);
    if (!literal.ptr)
        return weir_fail(ld->why, WEIR_UNIMPLEMENTED, "\"pattern\" is neither a String nor a Regex");
    return tok_keep(ld, literal, ret_literal);
}

weir_err tok_keep(struct tok_load *ld, struct weir_str text, struct weir_str *ret)
{
    char *copy = weir_arena_strndup(&ld->tok->arena, text.ptr ? text.ptr : "", text.len);

    if (!copy)
        return no_memory(ld);
    *ret = (struct weir_str){ copy, text.len };
    return WEIR_OK;
}

weir_err tok_each(struct tok_load *ld, struct weir_str list, int depth, tok_load_fn *fn)
{
    struct weir_json j;
    struct weir_str raw;
    weir_err err = WEIR_OK;

    if (!list.ptr)
        return WEIR_OK;
    if (depth >= TOK_NEST_MAX)
        return weir_fail(ld->why, WEIR_CORRUPT, "a Sequence is nested more than %d deep", TOK_NEST_MAX);
    weir_json_init(&j, list.ptr, list.len, &ld->scratch);
    if (weir_json_array(&j)) {
        while (weir_json_next(&j) && weir_json_raw(&j, &raw)) {
            err = fn(ld, raw, depth + 1);
            if (err != WEIR_OK)
                return err;
        }
    }
    return finish(ld, &j);
}

weir_err tok_each_of(struct tok_load *ld, struct weir_str obj, const char *key, int depth, tok_load_fn *fn)
{
    struct weir_str list = { 0 };
    weir_err err = tok_get_raw(ld, obj, key, &list);

    return err == WEIR_OK ? tok_each(ld, list, depth, fn) : err;
}

weir_err tok_unknown(struct tok_load *ld, const char *what, struct weir_str kind)
{
    if (!kind.ptr)
        return weir_fail(ld->why, WEIR_CORRUPT, "%s has no \"type\"", what);
    return weir_fail(ld->why, WEIR_UNIMPLEMENTED, "%s \"%.*s\" is not supported", what, TEXT_SHORT(kind));
}
