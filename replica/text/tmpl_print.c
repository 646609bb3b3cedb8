/* tmpl_print.c - values as text: Python's str() and repr(). */
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
