/* tmpl_filter.c - the filters of numbers, those that take another filter or a test by its name, and how a filter is found;
 * those of lists are in tmpl_filter_list.c, those of text in tmpl_filter_text.c. */
#include "replica/text/tmpl_filter.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "replica/text/text_int.h"

bool tmpl_arg_int(struct tmpl_run *run, struct tmpl_value arg, int64_t init, int64_t *ret)
{
    *ret = init;
    if (!tmpl_arg_given(arg))
        return true;
    if (arg.kind == TMPL_BOOL)
        arg = tmpl_int(arg.b);
    if (arg.kind != TMPL_INT)
        return tmpl_fail(run, WEIR_INVALID, "an argument should be an integer, not '%s'",
                         tmpl_type_name(arg));
    *ret = arg.i;
    return true;
}

bool tmpl_arg_bool(struct tmpl_value arg, bool init)
{
    return arg.kind == TMPL_UNSET ? init : tmpl_truth(arg);
}

/* ---- numbers ---- */

FILTER(f_abs)
{
    UNUSED_ARGS;
    if (in.kind == TMPL_FLOAT)
        *ret = tmpl_float(fabs(in.f));
    else if (in.kind == TMPL_INT && in.i != INT64_MIN)
        *ret = tmpl_int(in.i < 0 ? -in.i : in.i);
    else if (in.kind == TMPL_BOOL)
        *ret = tmpl_int(in.b);
    else
        return tmpl_fail(run, WEIR_INVALID, "abs: not a number but a '%s'", tmpl_type_name(in));
    return true;
}

/* A number that a string spells, all of it but white space. */
static bool parse_float(struct weir_str s, double *ret)
{
    char text[64], *end;

    s = tmpl_strip(s, NULL, true, true);
    if (s.len == 0 || s.len >= sizeof text || memchr(s.ptr, 0, s.len))
        return false;
    memcpy(text, s.ptr, s.len);
    text[s.len] = '\0';
    if (strpbrk(text, "xX(p"))
        return false; /* what strtod takes and Python does not */
    *ret = strtod(text, &end);
    return *end == '\0';
}

static bool parse_int(struct weir_str s, int base, int64_t *ret)
{
    char text[80], *end;

    s = tmpl_strip(s, NULL, true, true);
    if (s.len == 0 || s.len >= sizeof text || memchr(s.ptr, 0, s.len))
        return false;
    memcpy(text, s.ptr, s.len);
    text[s.len] = '\0';
    *ret = strtoll(text, &end, base);
    return *end == '\0' && *ret != INT64_MAX && *ret != INT64_MIN;
}

FILTER(f_int)
{
    int64_t base, i;
    double f;

    UNUSED_ARGS;
    *ret = tmpl_arg_given(argv[0]) ? argv[0] : tmpl_int(0);
    if (in.kind == TMPL_UNDEF)
        return tmpl_fail(run, WEIR_INVALID, "int: \"%.*s\" is undefined", TEXT_SHORT(in.str));
    if (!tmpl_arg_int(run, argv[1], 10, &base))
        return false;
    if (in.kind == TMPL_STR && base >= 2 && base <= 36 && parse_int(in.str, (int)base, &i))
        *ret = tmpl_int(i);
    else if (in.kind == TMPL_INT || in.kind == TMPL_BOOL)
        *ret = tmpl_int(in.kind == TMPL_INT ? in.i : in.b);
    else if ((in.kind == TMPL_FLOAT ? (f = in.f, true) : in.kind == TMPL_STR && parse_float(in.str, &f)) &&
             fabs(f) < 9e18)
        *ret = tmpl_int((int64_t)f);
    return true;
}

FILTER(f_float)
{
    double f;

    UNUSED_ARGS;
    *ret = tmpl_arg_given(argv[0]) ? argv[0] : tmpl_float(0);
    if (in.kind == TMPL_UNDEF)
        return tmpl_fail(run, WEIR_INVALID, "float: \"%.*s\" is undefined", TEXT_SHORT(in.str));
    if (tmpl_number(in, &f) || (in.kind == TMPL_STR && parse_float(in.str, &f)))
        *ret = tmpl_float(f);
    return true;
}

FILTER(f_round)
{
    int64_t digits;
    double f;
    char text[400];

    UNUSED_ARGS;
    if (!tmpl_number(in, &f) || !tmpl_arg_int(run, argv[0], 0, &digits) || digits < 0 || digits > 15)
        return tmpl_fail(run, WEIR_INVALID, "round: needs a number and 0 to 15 digits");
    if (argv[1].kind == TMPL_STR && !weir_str_eq(argv[1].str, "common")) {
        double scale = pow(10, (double)digits);
        f = (weir_str_eq(argv[1].str, "ceil") ? ceil(f * scale) : floor(f * scale)) / scale;
        *ret = tmpl_float(f);
        return true;
    }
    if (in.kind != TMPL_FLOAT) {
        *ret = tmpl_int(in.kind == TMPL_INT ? in.i : in.b);
        return true;
    }
    snprintf(text, sizeof text, "%.*f", (int)digits, f); /* rounds half to even, on the exact value */
    *ret = tmpl_float(strtod(text, NULL));
    return true;
}

FILTER(f_filesizeformat)
{
    static const double units[2][8] = { { 1e6, 1e9, 1e12, 1e15, 1e18, 1e21, 1e24, 1e27 },
                                        { 0x1p20, 0x1p30, 0x1p40, 0x1p50, 0x1p60, 0x1p70, 0x1p80, 0x1p90 } };
    static const char *const names[2][8] = { { "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB" },
                                             { "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB" } };
    int binary = tmpl_arg_bool(argv[0], false), i = 0;
    double f, base = binary ? 1024 : 1000;
    char text[400];

    UNUSED_ARGS;
    if (!tmpl_number(in, &f) && !(in.kind == TMPL_STR && parse_float(in.str, &f)))
        return tmpl_fail(run, WEIR_INVALID, "filesizeformat: not a number but a '%s'", tmpl_type_name(in));
    if (isinf(f) && f < 0)
        return tmpl_fail(run, WEIR_INVALID, "filesizeformat: less than any number");
    while (i < 7 && !(f < units[binary][i]))
        i++;
    if (!binary && f == 1e24) /* the double is a little less than the number */
        i = 6;
    if (f < base) /* adding 0 leaves no -0 */
        snprintf(text, sizeof text, "%.0f Byte%s", trunc(f) + 0.0, f == 1 ? "" : "s");
    else
        snprintf(text, sizeof text, "%.1f %s", base * f / units[binary][i], names[binary][i]);
    char *kept = weir_arena_strndup(&run->arena, text, strlen(text));
    if (!kept)
        return tmpl_fail_mem(run);
    *ret = tmpl_str(weir_str(kept));
    return true;
}

/* ---- filters and tests by name ---- */

/* The arguments behind the first `skip`. */
static void rest_of(const struct tmpl_args *args, int skip, struct tmpl_args *ret)
{
    ret->n = ret->n_positional = 0;
    for (int i = skip; i < args->n; i++) {
        ret->at[ret->n] = args->at[i];
        ret->keys[ret->n] = args->keys[i];
        ret->n++;
        ret->n_positional += i < args->n_positional;
    }
}

static bool map_attribute(struct tmpl_run *run, const struct tmpl_list *items, const struct tmpl_args *args,
                          struct tmpl_value *ret)
{
    struct tmpl_value argv[TMPL_PARAMS_MAX], value;

    if (!tmpl_bind(run, "map", "attribute,default", args, argv))
        return false;
    for (size_t i = 0; i < items->n; i++) {
        if (!tmpl_get_path(run, items->at[i], argv[0], &value))
            return false;
        if (value.kind == TMPL_UNDEF && argv[1].kind != TMPL_UNSET)
            value = argv[1];
        if (!tmpl_push(run, ret->list, value))
            return false;
    }
    return true;
}

FILTER(f_map)
{
    const struct tmpl_list *items;
    struct tmpl_args rest;
    struct tmpl_value list, value;

    (void)argv;
    if (!tmpl_truth(in)) /* jinja2 gives nothing for 0 or none, too */
        in = tmpl_undef(WEIR_STR("nothing"));
    if (!tmpl_items(run, in, &items) || !tmpl_new_list(run, TMPL_LIST, &list))
        return false;
    *ret = generator(list);
    if (args->n_positional == 0)
        return map_attribute(run, items, args, ret);
    const struct tmpl_filter *filter =
        args->at[0].kind == TMPL_STR ? tmpl_find_filter(args->at[0].str) : NULL;
    if (!filter)
        return tmpl_fail(run, WEIR_UNIMPLEMENTED, "map: no such filter");
    if (run->depth >= TMPL_DEPTH_MAX)
        return tmpl_fail(run, WEIR_TOOLARGE, "nested too deep");
    rest_of(args, 1, &rest);
    run->depth++;
    bool ok = true;
    for (size_t i = 0; ok && i < items->n; i++)
        ok = tmpl_run_filter(run, filter, items->at[i], &rest, &value) && tmpl_push(run, list.list, value);
    run->depth--;
    return ok;
}

static bool pick(struct tmpl_run *run, struct tmpl_value in, const struct tmpl_args *args, bool by_attribute,
                 bool keep, struct tmpl_value *ret)
{
    const struct tmpl_list *items;
    const struct tmpl_test *test = NULL;
    struct tmpl_args rest;
    struct tmpl_value list, value;
    int i_test = by_attribute;

    if (by_attribute && args->n == 0)
        return tmpl_fail(run, WEIR_INVALID, "selectattr: the attribute is missing");
    if (args->n > i_test) {
        test = args->at[i_test].kind == TMPL_STR ? tmpl_find_test(args->at[i_test].str) : NULL;
        if (!test)
            return tmpl_fail(run, WEIR_UNIMPLEMENTED, "select: no such test");
    }
    rest_of(args, i_test + 1, &rest);
    if (!tmpl_truth(in))
        in = tmpl_undef(WEIR_STR("nothing"));
    if (!tmpl_items(run, in, &items) || !tmpl_new_list(run, TMPL_LIST, &list))
        return false;
    for (size_t i = 0; i < items->n; i++) {
        bool holds;
        if (!tmpl_attribute_of(run, items->at[i], by_attribute ? args->at[0] : tmpl_none(), &value))
            return false;
        holds = tmpl_truth(value);
        if (test && !tmpl_run_test(run, test, value, &rest, &holds))
            return false;
        if (holds == keep && !tmpl_push(run, list.list, items->at[i]))
            return false;
    }
    *ret = generator(list);
    return true;
}

FILTER(f_select)
{
    (void)argv;
    return pick(run, in, args, /* by_attribute= */ false, /* keep= */ true, ret);
}

FILTER(f_reject)
{
    (void)argv;
    return pick(run, in, args, /* by_attribute= */ false, /* keep= */ false, ret);
}

FILTER(f_selectattr)
{
    (void)argv;
    return pick(run, in, args, /* by_attribute= */ true, /* keep= */ true, ret);
}

FILTER(f_rejectattr)
{
    (void)argv;
    return pick(run, in, args, /* by_attribute= */ true, /* keep= */ false, ret);
}

/* ---- others ---- */

FILTER(f_default)
{
    UNUSED_ARGS;
    bool use = in.kind == TMPL_UNDEF || (tmpl_arg_bool(argv[1], false) && !tmpl_truth(in));
    *ret = !use ? in : argv[0].kind == TMPL_UNSET ? tmpl_str((struct weir_str){ "", 0 }) : argv[0];
    return true;
}

FILTER(f_attr)
{
    UNUSED_ARGS;
    if (argv[0].kind != TMPL_STR)
        return tmpl_fail(run, WEIR_INVALID, "attr: the name is missing");
    if (in.kind == TMPL_DICT) { /* attributes only: a key is none */
        const struct tmpl_method *method = tmpl_find_method(TMPL_DICT, argv[0].str);
        *ret = tmpl_undef(argv[0].str);
        return !method || tmpl_get_attr(run, in, argv[0].str, ret);
    }
    return tmpl_get_attr(run, in, argv[0].str, ret);
}

static const struct tmpl_filter other_filters[] = {
    { "abs", "", f_abs },
    { "attr", "name", f_attr },
    { "d", "default_value,boolean", f_default },
    { "default", "default_value,boolean", f_default },
    { "filesizeformat", "binary", f_filesizeformat },
    { "float", "default", f_float },
    { "int", "default,base", f_int },
    { "map", "*", f_map },
    { "reject", "*", f_reject },
    { "rejectattr", "*", f_rejectattr },
    { "round", "precision,method", f_round },
    { "select", "*", f_select },
    { "selectattr", "*", f_selectattr },
    { NULL, NULL, NULL },
};

const struct tmpl_filter *tmpl_find_filter(struct weir_str name)
{
    static const struct tmpl_filter *const tables[] = { tmpl_list_filters, tmpl_text_filters, other_filters };

    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        for (const struct tmpl_filter *f = tables[i]; f->name; f++)
            if (weir_str_eq(name, f->name))
                return f;
    return NULL;
}
