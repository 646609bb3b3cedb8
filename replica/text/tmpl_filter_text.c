/* tmpl_filter_text.c - the filters that make text of text, but for wordwrap (tmpl_wrap.c). Of jinja2's, pprint, random,
 * striptags and urlize are not here: a template with one is refused by its name. */
#include "replica/text/tmpl_filter.h"

#include <stdio.h>
#include <string.h>

#include "replica/text/text_int.h"

static bool case_filter(struct tmpl_run *run, struct tmpl_value in, enum tmpl_case how,
                        struct tmpl_value *ret)
{
    struct weir_str s;

    return tmpl_to_str(run, in, &s) && tmpl_case(run, s, how, ret);
}

FILTER_IS(f_upper, case_filter(run, in, TMPL_UPPER, ret))
FILTER_IS(f_lower, case_filter(run, in, TMPL_LOWER, ret))
FILTER_IS(f_title, case_filter(run, in, TMPL_TITLE_FILTER, ret))
FILTER_IS(f_capitalize, case_filter(run, in, TMPL_CAPITALIZE, ret))

FILTER(f_trim)
{
    struct weir_str s, chars = { 0 };

    UNUSED_ARGS;
    if (!tmpl_to_str(run, in, &s) || (tmpl_arg_given(argv[0]) && !tmpl_to_str(run, argv[0], &chars)))
        return false;
    if (!tmpl_tick(run, s.len * (chars.len + 1)))
        return false;
    *ret = tmpl_str(tmpl_strip(s, tmpl_arg_given(argv[0]) ? &chars : NULL, true, true));
    return true;
}

FILTER(f_string)
{
    struct weir_str s;

    UNUSED_ARGS;
    if (!tmpl_to_str(run, in, &s))
        return false;
    *ret = tmpl_str(s);
    return true;
}

static bool put_escaped(struct tmpl_run *run, struct tmpl_value v, struct weir_buf *out)
{
    static const char from[] = "&<>'\"";
    static const char *const to[] = { "&amp;", "&lt;", "&gt;", "&#39;", "&#34;" };
    size_t begin = weir_buf_len(out);
    struct weir_str s;

    if (!tmpl_to_str(run, v, &s) || !tmpl_tick(run, s.len))
        return false;
    for (size_t i = 0; i < s.len; i++) {
        const char *hit = s.ptr[i] ? strchr(from, s.ptr[i]) : NULL;
        if (hit)
            weir_buf_adds(out, to[hit - from]);
        else
            weir_buf_addc(out, s.ptr[i]);
    }
    return tmpl_mark(run, out, begin, s);
}

/* What was put together, unless that failed. */
static bool take_if(struct tmpl_run *run, bool ok, struct weir_buf *out, struct tmpl_value *ret)
{
    if (ok)
        return tmpl_take(run, out, ret) && run->err == WEIR_OK;
    weir_buf_release(out);
    return false;
}

FILTER(f_escape)
{
    struct weir_buf out;

    UNUSED_ARGS;
    weir_buf_init(&out, TMPL_RUN_BYTES_MAX);
    return take_if(run, put_escaped(run, in, &out), &out, ret);
}

/* key="value" for each that has a value, with a space in front of it. */
static bool put_attributes(struct tmpl_run *run, const struct tmpl_dict *dict, bool space_first,
                           struct weir_buf *out)
{
    for (size_t i = 0; i < dict->n; i++) {
        struct tmpl_value key = dict->at[i].key, value = dict->at[i].value;
        if (value.kind == TMPL_NONE || value.kind == TMPL_UNDEF)
            continue;
        if (key.kind != TMPL_STR)
            return tmpl_fail(run, WEIR_INVALID, "xmlattr: a name that is not a string but a '%s'",
                             tmpl_type_name(key));
        for (size_t k = 0; k < key.str.len; k++)
            if (key.str.ptr[k] && strchr(" \t\n\r\f\v/>=", key.str.ptr[k]))
                return tmpl_fail(run, WEIR_INVALID, "xmlattr: a character that no name may have: \"%.*s\"",
                                 TEXT_SHORT(key.str));
        if (space_first || weir_buf_len(out) > 0)
            weir_buf_addc(out, ' ');
        if (!put_escaped(run, key, out))
            return false;
        weir_buf_adds(out, "=\"");
        if (!put_escaped(run, value, out))
            return false;
        weir_buf_addc(out, '"');
    }
    return tmpl_tick(run, dict->n);
}

FILTER(f_xmlattr)
{
    struct weir_buf out;

    UNUSED_ARGS;
    if (in.kind != TMPL_DICT)
        return tmpl_fail(run, WEIR_INVALID, "xmlattr: not a dict but a '%s'", tmpl_type_name(in));
    weir_buf_init(&out, TMPL_RUN_BYTES_MAX);
    return take_if(run, put_attributes(run, in.dict, tmpl_arg_bool(argv[0], true), &out), &out, ret);
}

FILTER(f_replace)
{
    struct weir_str s, old, with;
    int64_t n_max;

    UNUSED_ARGS;
    if (!tmpl_arg_given(argv[0]) || !tmpl_arg_given(argv[1]))
        return tmpl_fail(run, WEIR_INVALID, "replace: it takes (old,new,count)");
    return tmpl_to_str(run, in, &s) && tmpl_to_str(run, argv[0], &old) && tmpl_to_str(run, argv[1], &with) &&
           tmpl_arg_int(run, argv[2], -1, &n_max) && tmpl_replace(run, s, old, with, n_max, ret);
}

/* jinja2's: lines behind the first are moved in; blank ones only when asked. */
FILTER(f_indent)
{
    struct weir_str s, indent = { 0 };
    struct tmpl_value lines;
    struct weir_buf pad, out;
    int64_t width = 4;

    UNUSED_ARGS;
    if (argv[0].kind == TMPL_STR)
        indent = argv[0].str;
    else if (!tmpl_arg_int(run, argv[0], 4, &width))
        return false;
    if (width > 1024)
        return tmpl_fail(run, WEIR_TOOLARGE, "indent: a width of more than 1024");
    if (in.kind != TMPL_STR)
        return tmpl_fail(run, WEIR_INVALID, "indent: not a string but a '%s'", tmpl_type_name(in));
    s = in.str;
    weir_buf_init(&pad, 0);
    for (int64_t i = 0; !indent.ptr && i < width; i++)
        weir_buf_addc(&pad, ' ');
    struct tmpl_value own = tmpl_str(indent);
    bool ok = indent.ptr || tmpl_take(run, &pad, &own);
    weir_buf_release(&pad);
    /* A newline is added so that one at the end makes a last, empty line. */
    weir_buf_init(&out, TMPL_RUN_BYTES_MAX);
    tmpl_put(run, &out, s);
    weir_buf_addc(&out, '\n');
    struct tmpl_value text;
    ok = ok && tmpl_take(run, &out, &text) && tmpl_splitlines(run, text.str, /* keep_ends= */ false, &lines);
    weir_buf_release(&out);
    if (!ok)
        return false;
    bool first = tmpl_arg_bool(argv[1], false), blank = tmpl_arg_bool(argv[2], false);
    for (size_t i = 0; i < lines.list->n; i++) {
        struct weir_str line = lines.list->at[i].str;
        if (i > 0)
            weir_buf_addc(&out, '\n');
        if (i == 0 ? first : blank || line.len > 0)
            tmpl_put(run, &out, own.str);
        tmpl_put(run, &out, line);
    }
    return tmpl_take(run, &out, ret) && run->err == WEIR_OK;
}

FILTER(f_center)
{
    struct weir_str s;
    int64_t width;

    UNUSED_ARGS;
    return tmpl_to_str(run, in, &s) && tmpl_arg_int(run, argv[0], 80, &width) &&
           tmpl_pad(run, s, width, WEIR_STR(" "), /* left= */ true, /* right= */ true, ret);
}

FILTER(f_wordcount)
{
    struct weir_str s;
    int64_t n = 0;
    bool inside = false;

    UNUSED_ARGS;
    if (!tmpl_to_str(run, in, &s) || !tmpl_tick(run, s.len))
        return false;
    for (size_t i = 0; i < s.len;) {
        uint32_t c;
        i += tmpl_char_at(s, i, &c);
        bool word = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
                    (c >= 0x80 && !tmpl_is_space(c));
        n += word && !inside;
        inside = word;
    }
    *ret = tmpl_int(n);
    return true;
}

FILTER(f_format)
{
    struct weir_str s;
    struct tmpl_value values;

    (void)argv;
    if (!tmpl_to_str(run, in, &s) || !tmpl_new_list(run, TMPL_TUPLE, &values))
        return false;
    for (int i = 0; i < args->n; i++)
        if (!tmpl_push(run, values.list, args->at[i]))
            return false;
    return tmpl_percent(run, s, values, ret);
}

FILTER_IS(f_tojson, tmpl_json(run, in, argv, ret))

/* jinja2's: a text that is longer than `length` and `leeway` is cut, at a space unless words may be killed. */
FILTER(f_truncate)
{
    struct weir_str end = WEIR_STR("...");
    struct weir_buf out;
    int64_t length, leeway;
    size_t n, n_end;

    UNUSED_ARGS;
    if (!tmpl_length(run, in, &n) || !tmpl_arg_int(run, argv[0], 255, &length) ||
        !tmpl_arg_int(run, argv[3], 5, &leeway) ||
        (tmpl_arg_given(argv[2]) && !tmpl_to_str(run, argv[2], &end)))
        return false;
    n_end = tmpl_chars(end);
    if (leeway < 0 || length < (int64_t)n_end)
        return tmpl_fail(run, WEIR_INVALID,
                         "truncate: a length of less than its end's, or a negative leeway");
    *ret = in;
    if (leeway > INT64_MAX - length || (int64_t)n <= length + leeway)
        return true;
    if (in.kind != TMPL_STR)
        return tmpl_fail(run, WEIR_INVALID, "truncate: not a string but a '%s'", tmpl_type_name(in));
    if (!tmpl_tick(run, in.str.len + end.len))
        return false;
    struct weir_str kept = { in.str.ptr, tmpl_char_offset(in.str, (size_t)length - n_end) };
    const char *space = tmpl_arg_bool(argv[1], false) ? NULL : memrchr(kept.ptr, ' ', kept.len);
    if (space)
        kept.len = (size_t)(space - kept.ptr);
    weir_buf_init(&out, TMPL_RUN_BYTES_MAX);
    tmpl_put(run, &out, kept);
    tmpl_put(run, &out, end);
    return tmpl_take(run, &out, ret) && run->err == WEIR_OK;
}

/* As urllib's quote(); a part of a query has %2F for a slash and + for a space. */
static bool put_quoted(struct tmpl_run *run, struct tmpl_value v, bool in_query, struct weir_buf *out)
{
    struct weir_str s;
    size_t begin = weir_buf_len(out);

    if (!tmpl_to_str(run, v, &s) || !tmpl_tick(run, s.len))
        return false;
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        bool plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
                     (c && strchr(in_query ? "_.-~" : "_.-~/", c));
        if (plain || (in_query && c == ' '))
            weir_buf_addc(out, plain ? (char)c : '+');
        else
            weir_buf_addf(out, "%%%02X", c);
    }
    return tmpl_mark(run, out, begin, s);
}

static bool put_query(struct tmpl_run *run, const struct tmpl_list *pairs, struct weir_buf *out)
{
    for (size_t i = 0; i < pairs->n; i++) {
        const struct tmpl_list *pair;
        if (!tmpl_items(run, pairs->at[i], &pair))
            return false;
        if (pair->n != 2)
            return tmpl_fail(run, WEIR_INVALID, "urlencode: an item of %zu values, not 2", pair->n);
        if (i > 0)
            weir_buf_addc(out, '&');
        if (!put_quoted(run, pair->at[0], /* in_query= */ true, out))
            return false;
        weir_buf_addc(out, '=');
        if (!put_quoted(run, pair->at[1], /* in_query= */ true, out))
            return false;
    }
    return true;
}

FILTER(f_urlencode)
{
    static const struct tmpl_args none = { .n = 0 };
    const struct tmpl_list *pairs;
    struct weir_buf out;
    bool is_many =
        in.kind == TMPL_DICT || in.kind == TMPL_LIST || in.kind == TMPL_TUPLE || in.kind == TMPL_UNDEF;

    UNUSED_ARGS;
    if (in.kind == TMPL_DICT && !tmpl_run_filter(run, tmpl_find_filter(WEIR_STR("items")), in, &none, &in))
        return false;
    if (is_many && !tmpl_items(run, in, &pairs))
        return false;
    weir_buf_init(&out, TMPL_RUN_BYTES_MAX);
    bool ok = is_many ? put_query(run, pairs, &out) : put_quoted(run, in, /* in_query= */ false, &out);
    return take_if(run, ok, &out, ret);
}

const struct tmpl_filter tmpl_text_filters[] = {
    { "capitalize", "", f_capitalize },
    { "center", "width", f_center },
    { "e", "", f_escape },
    { "escape", "", f_escape },
    { "forceescape", "", f_escape },
    { "format", "*", f_format },
    { "indent", "width,first,blank", f_indent },
    { "lower", "", f_lower },
    { "replace", "old,new,count", f_replace },
    { "safe", "", f_string },
    { "string", "", f_string },
    { "title", "", f_title },
    { "tojson", "ensure_ascii,indent,separators,sort_keys", f_tojson },
    { "trim", "chars", f_trim },
    { "truncate", "length,killwords,end,leeway", f_truncate },
    { "upper", "", f_upper },
    { "urlencode", "", f_urlencode },
    { "wordcount", "", f_wordcount },
    { "wordwrap", "width,break_long_words,wrapstring,break_on_hyphens", tmpl_wordwrap },
    { "xmlattr", "autospace", f_xmlattr },
    { NULL, NULL, NULL },
};
