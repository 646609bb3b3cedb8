/* tmpl_func.c - the global functions. */
#include "replica/text/tmpl_int.h"

#include <string.h>
#include <time.h>

#include "replica/text/text_int.h"

#define FUNC(fn)                                                                                             \
    static bool fn(struct tmpl_run *run, const struct tmpl_value *argv, const struct tmpl_args *args,        \
                   struct tmpl_value *ret)

FUNC(g_range)
{
    int64_t start = 0, stop, step = 1;

    (void)args;
    if (argv[0].kind == TMPL_UNSET)
        return tmpl_fail(run, WEIR_INVALID, "range: the end is missing");
    if (!tmpl_arg_int(run, argv[argv[1].kind != TMPL_UNSET], 0, &stop) ||
        (argv[1].kind != TMPL_UNSET && !tmpl_arg_int(run, argv[0], 0, &start)) ||
        !tmpl_arg_int(run, argv[2], 1, &step) || !tmpl_new_list(run, TMPL_LIST, ret))
        return false;
    if (step == 0)
        return tmpl_fail(run, WEIR_INVALID, "range: a step of 0");
    int64_t n = 0;
    for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
        if (n++ == TMPL_RANGE_MAX)
            return tmpl_fail(run, WEIR_TOOLARGE, "range: more than %d items", TMPL_RANGE_MAX);
        if (!tmpl_push(run, ret->list, tmpl_int(i)))
            return false;
        if (__builtin_add_overflow(i, step, &i))
            break;
    }
    return true;
}

/* dict(a=1, ...) and namespace(a=1, ...), from a dict too. */
static bool make_dict(struct tmpl_run *run, enum tmpl_kind kind, const struct tmpl_args *args,
                      struct tmpl_value *ret)
{
    if (!tmpl_new_dict(run, kind, ret))
        return false;
    if (args->n_positional > 1 || (args->n_positional == 1 && args->at[0].kind != TMPL_DICT))
        return tmpl_fail(run, WEIR_INVALID, "it takes a dict and keywords");
    for (size_t i = 0; args->n_positional == 1 && i < args->at[0].dict->n; i++)
        if (!tmpl_dict_set(run, ret->dict, args->at[0].dict->at[i].key, args->at[0].dict->at[i].value))
            return false;
    for (int i = args->n_positional; i < args->n; i++)
        if (!tmpl_dict_set(run, ret->dict, tmpl_str(args->keys[i]), args->at[i]))
            return false;
    return true;
}

FUNC(g_dict)
{
    (void)argv;
    return make_dict(run, TMPL_DICT, args, ret);
}

FUNC(g_namespace)
{
    (void)argv;
    return make_dict(run, TMPL_NAMESPACE, args, ret);
}

FUNC(g_cycler)
{
    struct tmpl_cycler *cycler = weir_arena_alloc0(&run->arena, sizeof *cycler);
    struct tmpl_value items;

    (void)argv;
    if (!cycler)
        return tmpl_fail_mem(run);
    if (args->n == 0 || args->n > args->n_positional)
        return tmpl_fail(run, WEIR_INVALID, "cycler: it takes one or more items, without names");
    if (!tmpl_new_list(run, TMPL_TUPLE, &items))
        return false;
    for (int i = 0; i < args->n; i++)
        if (!tmpl_push(run, items.list, args->at[i]))
            return false;
    cycler->items = items.list;
    *ret = (struct tmpl_value){ .kind = TMPL_CYCLER, .cycler = cycler };
    return true;
}

FUNC(g_joiner)
{
    struct tmpl_joiner *joiner = weir_arena_alloc0(&run->arena, sizeof *joiner);

    (void)args;
    if (!joiner)
        return tmpl_fail_mem(run);
    joiner->separator = argv[0].kind == TMPL_UNSET ? tmpl_str(WEIR_STR(", ")) : argv[0];
    *ret = (struct tmpl_value){ .kind = TMPL_JOINER, .joiner = joiner };
    return true;
}

/* The template's own words to the caller: no line in front of them. */
FUNC(g_raise_exception)
{
    struct weir_str text = { "", 0 };

    (void)args, (void)ret;
    if (argv[0].kind != TMPL_UNSET && !tmpl_to_str(run, argv[0], &text))
        return false;
    run->err =
        weir_fail(run->why, WEIR_INVALID, "%.*s", (int)weir_utf8_cut(text.ptr, text.len, 300), text.ptr);
    return false;
}

FUNC(g_strftime_now)
{
    char format[128], text[512];
    time_t now = (time_t)run->now_unix;
    struct tm tm;

    (void)args;
    if (argv[0].kind != TMPL_STR || argv[0].str.len >= sizeof format ||
        memchr(argv[0].str.ptr, 0, argv[0].str.len))
        return tmpl_fail(run, WEIR_INVALID, "strftime_now: the format is missing or too long");
    memcpy(format, argv[0].str.ptr, argv[0].str.len);
    format[argv[0].str.len] = '\0';
    if (!gmtime_r(&now, &tm))
        return tmpl_fail(run, WEIR_INVALID, "strftime_now: the time is out of range");
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral" /* the template's own format */
    size_t n = strftime(text, sizeof text, format, &tm);
#pragma GCC diagnostic pop
    char *kept = weir_arena_strndup(&run->arena, text, n);
    if (!kept)
        return tmpl_fail_mem(run);
    *ret = tmpl_str((struct weir_str){ kept, n });
    return true;
}

static const struct tmpl_func funcs[] = {
    { "cycler", "*", g_cycler },
    { "dict", "*", g_dict },
    { "joiner", "sep", g_joiner },
    { "namespace", "*", g_namespace },
    { "raise_exception", "message", g_raise_exception },
    { "range", "start,stop,step", g_range },
    { "strftime_now", "format", g_strftime_now },
};

const struct tmpl_func *tmpl_find_func(struct weir_str name)
{
    for (size_t i = 0; i < sizeof funcs / sizeof *funcs; i++)
        if (weir_str_eq(name, funcs[i].name))
            return &funcs[i];
    return NULL;
}
