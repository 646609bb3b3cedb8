/* tmpl_format.c - the two ways of formatting: "%s" % x and "{}".format(x). */
#include "replica/text/tmpl_int.h"

#include <stdio.h>
#include <string.h>

#include "replica/text/text_int.h"

/* One %-conversion: flags, width, precision, letter. */
struct spec {
    bool left, zero, plus;
    int width, precision; /* -1: none */
    char letter;
};

static size_t parse_spec(struct weir_str s, size_t i, struct spec *ret)
{
    *ret = (struct spec){ .width = 0, .precision = -1 };
    for (; i < s.len && strchr("-0+ ", s.ptr[i]) && s.ptr[i]; i++) {
        ret->left |= s.ptr[i] == '-';
        ret->zero |= s.ptr[i] == '0';
        ret->plus |= s.ptr[i] == '+';
    }
    for (; i < s.len && s.ptr[i] >= '0' && s.ptr[i] <= '9' && ret->width < 1000; i++)
        ret->width = 10 * ret->width + (s.ptr[i] - '0');
    if (i < s.len && s.ptr[i] == '.')
        for (ret->precision = 0, i++; i < s.len && s.ptr[i] >= '0' && s.ptr[i] <= '9' && ret->precision < 100;
             i++)
            ret->precision = 10 * ret->precision + (s.ptr[i] - '0');
    ret->letter = i < s.len && (unsigned char)s.ptr[i] < 0x80 ? s.ptr[i++] : '\0';
    return i;
}

static bool put_number(struct tmpl_run *run, const struct spec *spec, struct tmpl_value v, char *text,
                       size_t size)
{
    double f;

    if (!tmpl_number(v, &f))
        return tmpl_fail(run, WEIR_INVALID, "%%%c needs a number, not '%s'", spec->letter, tmpl_type_name(v));
    long long i = v.kind == TMPL_INT ? v.i : f > -9e18 && f < 9e18 ? (long long)f : 0;
    int precision = spec->precision < 0 ? 6 : spec->precision;
    if (spec->letter == 'd' || spec->letter == 'i')
        snprintf(text, size, spec->plus ? "%+lld" : "%lld", i);
    else if (spec->letter == 'x' || spec->letter == 'X')
        snprintf(text, size, spec->letter == 'x' ? "%s%llx" : "%s%llX", i < 0 ? "-" : "",
                 i < 0 ? 0ull - (unsigned long long)i : (unsigned long long)i);
    else if (spec->letter == 'e')
        snprintf(text, size, spec->plus ? "%+.*e" : "%.*e", precision, f);
    else if (spec->letter == 'g')
        snprintf(text, size, spec->plus ? "%+.*g" : "%.*g", precision, f);
    else
        snprintf(text, size, spec->plus ? "%+.*f" : "%.*f", precision, f);
    return true;
}

static void put_padded(struct tmpl_run *run, const struct spec *spec, struct weir_str s, bool number,
                       struct weir_buf *out)
{
    int room = spec->width - (int)tmpl_chars(s);
    bool zero = spec->zero && number && !spec->left;
    size_t sign = zero && s.len > 0 && (s.ptr[0] == '-' || s.ptr[0] == '+');

    weir_buf_add(out, s.ptr, sign);
    for (int i = 0; !spec->left && i < room; i++)
        weir_buf_addc(out, zero ? '0' : ' ');
    tmpl_put(run, out, (struct weir_str){ s.ptr + sign, s.len - sign });
    for (int i = 0; spec->left && i < room; i++)
        weir_buf_addc(out, ' ');
}

static bool put_spec(struct tmpl_run *run, const struct spec *spec, struct tmpl_value v, struct weir_buf *out)
{
    char text[512];
    struct weir_str s;

    if (spec->letter == 's' || spec->letter == 'r') {
        struct tmpl_value list;
        if (spec->letter == 's') {
            if (!tmpl_to_str(run, v, &s))
                return false;
        } else { /* a list's text has its items' repr() in it */
            if (!tmpl_new_list(run, TMPL_LIST, &list) || !tmpl_push(run, list.list, v) ||
                !tmpl_to_str(run, list, &s))
                return false;
            s = (struct weir_str){ s.ptr + 1, s.len - 2 };
        }
        if (spec->precision >= 0)
            s.len = tmpl_char_offset(s, (size_t)spec->precision);
        put_padded(run, spec, s, /* number= */ false, out);
        return tmpl_tick(run, s.len);
    }
    if (!spec->letter || !strchr("dixXfFeg", spec->letter))
        return tmpl_fail(run, WEIR_UNIMPLEMENTED, "the conversion \"%%%c\" is not supported",
                         spec->letter ? spec->letter : '?');
    if (!put_number(run, spec, v, text, sizeof text))
        return false;
    put_padded(run, spec, weir_str(text), /* number= */ true, out);
    return true;
}

static bool percent_all(struct tmpl_run *run, struct weir_str format, struct tmpl_value args,
                        struct weir_buf *out)
{
    size_t n_used = 0, n = args.kind == TMPL_TUPLE ? args.list->n : 1;

    for (size_t i = 0; i < format.len;) {
        const char *mark = memchr(format.ptr + i, '%', format.len - i);
        size_t end = mark ? (size_t)(mark - format.ptr) : format.len;
        struct spec spec;
        tmpl_put(run, out, (struct weir_str){ format.ptr + i, end - i });
        if (!mark)
            break;
        if (end + 1 < format.len && format.ptr[end + 1] == '(')
            return tmpl_fail(run, WEIR_UNIMPLEMENTED, "%%(name)s is not supported");
        i = parse_spec(format, end + 1, &spec);
        if (spec.letter == '%') {
            weir_buf_addc(out, '%');
            continue;
        }
        if (n_used == n)
            return tmpl_fail(run, WEIR_INVALID, "not enough arguments for the format");
        if (!put_spec(run, &spec, args.kind == TMPL_TUPLE ? args.list->at[n_used] : args, out))
            return false;
        n_used++;
    }
    /* What can be subscripted may be left over: it might have been for names. */
    bool spare = args.kind == TMPL_DICT || args.kind == TMPL_LIST || args.kind == TMPL_UNDEF;
    if (n_used < n && !spare)
        return tmpl_fail(run, WEIR_INVALID, "too many arguments for the format");
    return true;
}

bool tmpl_percent(struct tmpl_run *run, struct weir_str format, struct tmpl_value args,
                  struct tmpl_value *ret)
{
    struct weir_buf out;

    if (!tmpl_tick(run, format.len))
        return false;
    weir_buf_init(&out, TMPL_RUN_BYTES_MAX);
    if (!percent_all(run, format, args, &out)) {
        weir_buf_release(&out);
        return false;
    }
    return tmpl_take(run, &out, ret) && run->err == WEIR_OK;
}

/* The argument that the field {name}, {0} or {} means. */
static bool field_value(struct tmpl_run *run, struct weir_str name, const struct tmpl_args *args, int *n_auto,
                        struct tmpl_value *ret)
{
    int i = 0;

    for (int k = args->n_positional; k < args->n; k++) {
        if (args->keys[k].len == name.len && memcmp(args->keys[k].ptr, name.ptr, name.len) == 0) {
            *ret = args->at[k];
            return true;
        }
    }
    for (size_t k = 0; k < name.len; k++) {
        if (name.ptr[k] < '0' || name.ptr[k] > '9' || i > TMPL_ARGS_MAX)
            return tmpl_fail(run, WEIR_INVALID, "format: there is no \"%.*s\"", TEXT_SHORT(name));
        i = 10 * i + (name.ptr[k] - '0');
    }
    if (name.len == 0)
        i = (*n_auto)++;
    if (i >= args->n_positional)
        return tmpl_fail(run, WEIR_INVALID, "format: there is no argument %d", i);
    *ret = args->at[i];
    return true;
}

static bool put_field(struct tmpl_run *run, struct weir_str field, const struct tmpl_args *args, int *n_auto,
                      struct weir_buf *out)
{
    const char *colon = memchr(field.ptr, ':', field.len);
    struct weir_str name = { field.ptr, colon ? (size_t)(colon - field.ptr) : field.len };
    struct spec spec = { .precision = -1, .letter = 's' };
    struct tmpl_value value;

    if (!field_value(run, name, args, n_auto, &value))
        return false;
    if (colon && name.len + 1 < field.len) {
        struct weir_str text = { colon + 1, field.len - name.len - 1 };
        size_t end = parse_spec(text, 0, &spec);
        if (end != text.len || !strchr("dfxXeg", spec.letter) || spec.left)
            return tmpl_fail(run, WEIR_UNIMPLEMENTED, "format: the field \"{%.*s}\" is not supported",
                             TEXT_SHORT(field));
    }
    return put_spec(run, &spec, value, out);
}

static bool format_all(struct tmpl_run *run, struct weir_str format, const struct tmpl_args *args,
                       struct weir_buf *out)
{
    int n_auto = 0;

    for (size_t i = 0; i < format.len;) {
        char c = format.ptr[i];
        if ((c == '{' || c == '}') && i + 1 < format.len && format.ptr[i + 1] == c) {
            weir_buf_addc(out, c);
            i += 2;
        } else if (c == '{') {
            const char *close = memchr(format.ptr + i, '}', format.len - i);
            if (!close)
                return tmpl_fail(run, WEIR_INVALID, "format: a field has no end");
            struct weir_str field = { format.ptr + i + 1, (size_t)(close - format.ptr) - i - 1 };
            if (!put_field(run, field, args, &n_auto, out))
                return false;
            i += field.len + 2;
        } else if (c == '}') {
            return tmpl_fail(run, WEIR_INVALID, "format: a single '}'");
        } else {
            weir_buf_addc(out, c);
            i++;
        }
    }
    return true;
}

bool tmpl_str_format(struct tmpl_run *run, struct weir_str format, const struct tmpl_args *args,
                     struct tmpl_value *ret)
{
    struct weir_buf out;

    if (!tmpl_tick(run, format.len))
        return false;
    weir_buf_init(&out, TMPL_RUN_BYTES_MAX);
    if (!format_all(run, format, args, &out) || !tmpl_mark(run, &out, 0, format)) {
        weir_buf_release(&out);
        return false;
    }
    return tmpl_take(run, &out, ret) && run->err == WEIR_OK;
}
