/* tmpl_json.c - JSON to values, and values to JSON as json.dumps writes it when transformers calls it. */
#include "replica/text/tmpl_int.h"

#include <math.h>
#include <string.h>

#include "base/json.h"

/* ---- from JSON ---- */

static bool read_value(struct tmpl_run *run, struct weir_json *j, struct tmpl_value *ret);

static bool read_dict(struct tmpl_run *run, struct weir_json *j, struct tmpl_value *ret)
{
    struct weir_str key;
    struct tmpl_value value;

    if (!tmpl_new_dict(run, TMPL_DICT, ret) || !weir_json_object(j))
        return false;
    while (weir_json_key(j, &key))
        if (!tmpl_give(run, key) || !read_value(run, j, &value) ||
            !tmpl_dict_set(run, ret->dict, tmpl_str(key), value))
            return false;
    return weir_json_ok(j);
}

static bool read_list(struct tmpl_run *run, struct weir_json *j, struct tmpl_value *ret)
{
    struct tmpl_value value;

    if (!tmpl_new_list(run, TMPL_LIST, ret) || !weir_json_array(j))
        return false;
    while (weir_json_next(j))
        if (!read_value(run, j, &value) || !tmpl_push(run, ret->list, value))
            return false;
    return weir_json_ok(j);
}

static bool read_number(struct weir_json *j, struct tmpl_value *ret)
{
    struct weir_str raw;
    struct weir_json again;
    int64_t i;
    double f;

    if (!weir_json_raw(j, &raw))
        return false;
    weir_json_init(&again, raw.ptr, raw.len, NULL);
    if (!memchr(raw.ptr, '.', raw.len) && !memchr(raw.ptr, 'e', raw.len) && !memchr(raw.ptr, 'E', raw.len) &&
        weir_json_i64(&again, &i)) {
        *ret = tmpl_int(i);
        return true;
    }
    weir_json_init(&again, raw.ptr, raw.len, NULL);
    if (!weir_json_f64(&again, &f))
        return weir_json_fail(j, WEIR_INVALID, "the number is too large");
    *ret = tmpl_float(f);
    return true;
}

static bool read_value(struct tmpl_run *run, struct weir_json *j, struct tmpl_value *ret)
{
    struct weir_str s;
    bool b;

    switch (weir_json_peek(j)) {
    case WEIR_JSON_OBJECT:
        return read_dict(run, j, ret);
    case WEIR_JSON_ARRAY:
        return read_list(run, j, ret);
    case WEIR_JSON_STRING:
        if (!weir_json_string(j, &s))
            return false;
        *ret = tmpl_str(s);
        return tmpl_give(run, s);
    case WEIR_JSON_NUMBER:
        return read_number(j, ret);
    case WEIR_JSON_BOOL:
        if (!weir_json_bool(j, &b))
            return false;
        *ret = tmpl_bool(b);
        return true;
    default:
        *ret = tmpl_none();
        return weir_json_null(j);
    }
}

bool tmpl_from_json(struct tmpl_run *run, struct weir_str json, struct tmpl_value *ret)
{
    struct weir_json j;
    struct weir_why why;

    weir_json_init(&j, json.ptr, json.len, &run->arena);
    read_value(run, &j, ret);
    weir_err err = run->err == WEIR_OK ? weir_json_end(&j, &why) : run->err;
    if (run->err == WEIR_OK && err != WEIR_OK)
        tmpl_fail(run, err, "%s", why.text);
    return run->err == WEIR_OK;
}

/* ---- to JSON ---- */

struct json_style {
    struct tmpl_run *run;
    struct weir_buf *out;
    struct weir_str indent;    /* of one level; ptr NULL: all on one line */
    struct weir_str item, key; /* separators */
    bool sort, ascii;
};

static void json_char(const struct json_style *st, uint32_t c, struct weir_str bytes)
{
    static const char from[] = "\"\\\n\r\t\b\f", to[] = "\"\\nrtbf";
    const char *simple = c && c < 0x80 ? strchr(from, (int)c) : NULL;

    if (simple) {
        weir_buf_addc(st->out, '\\');
        weir_buf_addc(st->out, to[simple - from]);
    } else if (c >= 0x10000 && st->ascii) {
        c -= 0x10000;
        weir_buf_addf(st->out, "\\u%04x\\u%04x", 0xd800 + (c >> 10), 0xdc00 + (c & 0x3ff));
    } else if (c < ' ' || (c >= 0x7f && st->ascii && c != 0x7f)) {
        weir_buf_addf(st->out, "\\u%04x", c);
    } else {
        weir_buf_add(st->out, bytes.ptr, bytes.len);
    }
}

static bool json_string(const struct json_style *st, struct weir_str s)
{
    weir_buf_addc(st->out, '"');
    size_t begin = weir_buf_len(st->out);
    for (size_t i = 0; i < s.len;) {
        uint32_t c;
        size_t n = tmpl_char_at(s, i, &c);
        json_char(st, c, (struct weir_str){ s.ptr + i, n });
        i += n;
    }
    tmpl_mark(st->run, st->out, begin, s);
    weir_buf_addc(st->out, '"');
    return tmpl_tick(st->run, s.len) && st->run->err == WEIR_OK;
}

static void json_break(const struct json_style *st, int level)
{
    if (!st->indent.ptr)
        return;
    weir_buf_addc(st->out, '\n');
    for (int i = 0; i < level && !st->out->failed; i++)
        weir_buf_add(st->out, st->indent.ptr, st->indent.len);
}

static bool json_value(const struct json_style *st, struct tmpl_value v, int level);

static bool json_list(const struct json_style *st, const struct tmpl_list *list, int level)
{
    weir_buf_addc(st->out, '[');
    for (size_t i = 0; i < list->n; i++) {
        if (i > 0)
            weir_buf_add(st->out, st->item.ptr, st->item.len);
        json_break(st, level + 1);
        if (!json_value(st, list->at[i], level + 1))
            return false;
    }
    if (list->n > 0)
        json_break(st, level);
    weir_buf_addc(st->out, ']');
    return true;
}

/* A key that is no string is written as one. */
static bool json_key(const struct json_style *st, struct tmpl_value key)
{
    if (key.kind == TMPL_STR)
        return json_string(st, key.str);
    if (key.kind != TMPL_NONE && key.kind != TMPL_BOOL && key.kind != TMPL_INT && key.kind != TMPL_FLOAT)
        return tmpl_fail(st->run, WEIR_INVALID, "tojson: a key can't be a '%s'", tmpl_type_name(key));
    weir_buf_addc(st->out, '"');
    bool ok = json_value(st, key, 0);
    weir_buf_addc(st->out, '"');
    return ok;
}

static bool sorted_pairs(struct tmpl_run *run, const struct tmpl_dict *dict, const struct tmpl_pair **ret)
{
    struct tmpl_pair *pairs = weir_arena_alloc(&run->arena, (dict->n + 1) * sizeof *pairs);

    if (!pairs)
        return tmpl_fail_mem(run);
    for (size_t i = 0; i < dict->n; i++) { /* insertion: few keys, and each step is counted */
        size_t k = i;
        for (; k > 0; k--) {
            int order;
            if (!tmpl_order(run, pairs[k - 1].key, dict->at[i].key, &order))
                return false;
            if (order <= 0)
                break;
            pairs[k] = pairs[k - 1];
        }
        pairs[k] = dict->at[i];
    }
    *ret = pairs;
    return true;
}

static bool json_dict(const struct json_style *st, const struct tmpl_dict *dict, int level)
{
    const struct tmpl_pair *pairs = dict->at;

    if (st->sort && !sorted_pairs(st->run, dict, &pairs))
        return false;
    weir_buf_addc(st->out, '{');
    for (size_t i = 0; i < dict->n; i++) {
        if (i > 0)
            weir_buf_add(st->out, st->item.ptr, st->item.len);
        json_break(st, level + 1);
        if (!json_key(st, pairs[i].key))
            return false;
        weir_buf_add(st->out, st->key.ptr, st->key.len);
        if (!json_value(st, pairs[i].value, level + 1))
            return false;
    }
    if (dict->n > 0)
        json_break(st, level);
    weir_buf_addc(st->out, '}');
    return true;
}

static bool json_value(const struct json_style *st, struct tmpl_value v, int level)
{
    char text[32];

    if (!tmpl_tick(st->run, 0) || st->out->failed)
        return false;
    switch (v.kind) {
    case TMPL_NONE:
        weir_buf_adds(st->out, "null");
        return true;
    case TMPL_BOOL:
        weir_buf_adds(st->out, v.b ? "true" : "false");
        return true;
    case TMPL_INT:
        return tmpl_print(st->run, v, st->out);
    case TMPL_FLOAT:
        tmpl_float_text(v.f, text);
        weir_buf_adds(st->out, isnan(v.f) ? "NaN" : isinf(v.f) ? (v.f > 0 ? "Infinity" : "-Infinity") : text);
        return true;
    case TMPL_STR:
        return json_string(st, v.str);
    case TMPL_LIST:
    case TMPL_TUPLE:
    case TMPL_DICT:
        if (level >= TMPL_DEPTH_MAX)
            return tmpl_fail(st->run, WEIR_TOOLARGE, "tojson: nested too deep");
        return v.kind == TMPL_DICT ? json_dict(st, v.dict, level) : json_list(st, v.list, level);
    default:
        return tmpl_fail(st->run, WEIR_INVALID, "tojson: a '%s' is not JSON", tmpl_type_name(v));
    }
}

static bool json_separators(struct json_style *st, struct tmpl_value v)
{
    st->item = st->indent.ptr ? WEIR_STR(",") : WEIR_STR(", ");
    st->key = WEIR_STR(": ");
    if (!tmpl_arg_given(v))
        return true;
    if ((v.kind != TMPL_TUPLE && v.kind != TMPL_LIST) || v.list->n != 2 || v.list->at[0].kind != TMPL_STR ||
        v.list->at[1].kind != TMPL_STR)
        return tmpl_fail(st->run, WEIR_INVALID, "tojson: separators are two strings");
    st->item = v.list->at[0].str;
    st->key = v.list->at[1].str;
    return true;
}

bool tmpl_json(struct tmpl_run *run, struct tmpl_value v, const struct tmpl_value opts[4],
               struct tmpl_value *ret)
{
    static const char spaces[] = "                                ";
    struct weir_buf out;
    struct json_style st = {
        .run = run, .out = &out, .sort = tmpl_truth(opts[3]), .ascii = tmpl_truth(opts[0])
    };

    if (opts[1].kind == TMPL_STR) {
        st.indent = opts[1].str;
    } else if (opts[1].kind == TMPL_INT || opts[1].kind == TMPL_BOOL) {
        int64_t n = opts[1].kind == TMPL_INT ? opts[1].i : opts[1].b;
        if (n >= (int64_t)sizeof spaces)
            return tmpl_fail(run, WEIR_TOOLARGE, "tojson: an indent of more than %zu", sizeof spaces - 1);
        st.indent = (struct weir_str){ spaces, n > 0 ? (size_t)n : 0 };
    }
    if (!json_separators(&st, opts[2]))
        return false;
    weir_buf_init(&out, TMPL_RUN_BYTES_MAX);
    if (!json_value(&st, v, 0) && run->err != WEIR_OK) {
        weir_buf_release(&out);
        return false;
    }
    return tmpl_take(run, &out, ret);
}
