/* tmpl_print.c - values as text: Python's str() and repr(), and json.dumps as transformers calls it. */
#include "replica/text/tmpl_int.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

/* ---- floats ---- */

void tmpl_float_text(double f, char ret[32])
{
    char digits[32];
    int precision = 1, exp;

    if (isnan(f) || isinf(f)) {
        snprintf(ret, 32, "%s", isnan(f) ? "nan" : f > 0 ? "inf" : "-inf");
        return;
    }
    do /* the fewest digits that read back equal */
        snprintf(digits, sizeof digits, "%.*e", precision - 1, f);
    while (strtod(digits, NULL) != f && ++precision < 18);
    exp = atoi(strchr(digits, 'e') + 1);
    if (exp < -4 || exp >= 16) {
        int mantissa = (int)strcspn(digits, "e");
        snprintf(ret, 32, "%.*se%c%02d", mantissa < 24 ? mantissa : 24, digits, exp < 0 ? '-' : '+',
                 abs(exp) % 1000);
    } else {
        snprintf(ret, 32, "%.*f", precision - 1 - exp > 1 ? precision - 1 - exp : 1, f);
    }
}

/* ---- str() and repr() ---- */

static bool is_printable(uint32_t c)
{
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);

    if (c < 0x80)
        return c >= ' ' && c < 0x7f;
    return category != UTF8PROC_CATEGORY_CN &&
           (category < UTF8PROC_CATEGORY_ZS || category > UTF8PROC_CATEGORY_CO);
}

static void print_quoted(struct tmpl_run *run, struct weir_str s, struct weir_buf *out)
{
    size_t begin = weir_buf_len(out);
    bool has_single = memchr(s.ptr, '\'', s.len), has_double = memchr(s.ptr, '"', s.len);
    char quote = has_single && !has_double ? '"' : '\'';

    weir_buf_addc(out, quote);
    for (size_t i = 0; i < s.len;) {
        uint32_t c;
        size_t n = tmpl_char_at(s, i, &c);
        if (c == (unsigned char)quote || c == '\\') {
            weir_buf_addc(out, '\\');
            weir_buf_addc(out, (char)c);
        } else if (c == '\n' || c == '\r' || c == '\t') {
            weir_buf_adds(out, c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t");
        } else if (is_printable(c)) {
            weir_buf_add(out, s.ptr + i, n);
        } else {
            weir_buf_addf(out, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", c);
        }
        i += n;
    }
    tmpl_mark(run, out, begin + 1, s);
    weir_buf_addc(out, quote);
}

static bool print_repr(struct tmpl_run *run, struct tmpl_value v, struct weir_buf *out);

static bool print_list(struct tmpl_run *run, struct tmpl_value v, struct weir_buf *out)
{
    bool tuple = v.kind == TMPL_TUPLE;

    weir_buf_addc(out, tuple ? '(' : '[');
    for (size_t i = 0; i < v.list->n; i++) {
        if (i > 0)
            weir_buf_adds(out, ", ");
        if (!print_repr(run, v.list->at[i], out))
            return false;
    }
    if (tuple && v.list->n == 1)
        weir_buf_addc(out, ',');
    weir_buf_addc(out, tuple ? ')' : ']');
    return true;
}

static bool print_dict(struct tmpl_run *run, struct tmpl_value v, struct weir_buf *out)
{
    weir_buf_adds(out, v.kind == TMPL_NAMESPACE ? "<Namespace {" : "{");
    for (size_t i = 0; i < v.dict->n; i++) {
        if (i > 0)
            weir_buf_adds(out, ", ");
        if (!print_repr(run, v.dict->at[i].key, out))
            return false;
        weir_buf_adds(out, ": ");
        if (!print_repr(run, v.dict->at[i].value, out))
            return false;
    }
    weir_buf_adds(out, v.kind == TMPL_NAMESPACE ? "}>" : "}");
    return true;
}

static bool print_value(struct tmpl_run *run, struct tmpl_value v, bool repr, struct weir_buf *out)
{
    char text[32];
    bool ok;

    switch (v.kind) {
    case TMPL_UNDEF:
    case TMPL_UNSET:
        if (repr)
            weir_buf_adds(out, "Undefined");
        return true;
    case TMPL_NONE:
        weir_buf_adds(out, "None");
        return true;
    case TMPL_BOOL:
        weir_buf_adds(out, v.b ? "True" : "False");
        return true;
    case TMPL_INT:
        snprintf(text, sizeof text, "%lld", (long long)v.i);
        weir_buf_adds(out, text);
        return true;
    case TMPL_FLOAT:
        tmpl_float_text(v.f, text);
        weir_buf_adds(out, text);
        return true;
    case TMPL_STR:
        if (repr)
            print_quoted(run, v.str, out);
        else
            tmpl_put(run, out, v.str);
        return tmpl_tick(run, v.str.len);
    case TMPL_LIST:
    case TMPL_TUPLE:
    case TMPL_DICT:
    case TMPL_NAMESPACE:
        if (run->depth >= TMPL_DEPTH_MAX)
            return tmpl_fail(run, WEIR_TOOLARGE, "nested too deep");
        run->depth++;
        ok = tmpl_tick(run, 0) && (v.kind == TMPL_LIST || v.kind == TMPL_TUPLE ? print_list(run, v, out)
                                                                               : print_dict(run, v, out));
        run->depth--;
        return ok;
    default:
        return tmpl_fail(run, WEIR_INVALID, "a '%s' has no text", tmpl_type_name(v));
    }
}

static bool print_repr(struct tmpl_run *run, struct tmpl_value v, struct weir_buf *out)
{
    return print_value(run, v, /* repr= */ true, out) && !out->failed;
}

/* The bound was reached, or memory ran out. */
static bool check_out(struct tmpl_run *run, const struct weir_buf *out)
{
    return !out->failed || tmpl_fail(run, WEIR_TOOLARGE, "the text grows past its bound");
}

bool tmpl_print(struct tmpl_run *run, struct tmpl_value v, struct weir_buf *out)
{
    return (print_value(run, v, /* repr= */ false, out) || out->failed) && check_out(run, out);
}

bool tmpl_take(struct tmpl_run *run, struct weir_buf *buf, struct tmpl_value *ret)
{
    size_t len = weir_buf_len(buf);
    bool ok = check_out(run, buf);
    char *text = ok && len ? weir_arena_strndup(&run->arena, weir_buf_ptr(buf), len) : NULL;

    bool given = tmpl_give_taken(run, buf, text);
    weir_buf_release(buf);
    if (!ok)
        return false;
    if (len && !text)
        return tmpl_fail_mem(run);
    if (!given)
        return false;
    *ret = tmpl_str((struct weir_str){ len ? text : "", len });
    return true;
}

bool tmpl_to_str(struct tmpl_run *run, struct tmpl_value v, struct weir_str *ret)
{
    struct weir_buf out;
    struct tmpl_value text;

    if (v.kind == TMPL_STR) {
        *ret = v.str;
        return true;
    }
    weir_buf_init(&out, TMPL_RUN_BYTES_MAX);
    if (!tmpl_print(run, v, &out)) {
        weir_buf_release(&out);
        return false;
    }
    if (!tmpl_take(run, &out, &text))
        return false;
    *ret = text.str;
    return true;
}

/* ---- JSON ---- */

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
    if (v.kind == TMPL_UNSET || v.kind == TMPL_NONE)
        return true;
    if ((v.kind != TMPL_TUPLE && v.kind != TMPL_LIST) || v.list->n != 2 || v.list->at[0].kind != TMPL_STR ||
        v.list->at[1].kind != TMPL_STR)
        return tmpl_fail(st->run, WEIR_INVALID, "tojson: separators are two strings");
    st->item = v.list->at[0].str;
    st->key = v.list->at[1].str;
    return true;
}

/* opts: ensure_ascii, indent, separators, sort_keys. */
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
