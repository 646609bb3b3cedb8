/* tmpl_item.c - parts of a value: attributes, items, paths, slices. */
#include "replica/text/tmpl_int.h"

#include <string.h>

#include "replica/text/text_int.h"

static bool loop_attr(const struct tmpl_loop *loop, struct weir_str name, struct tmpl_value *ret)
{
    int64_t i = (int64_t)loop->i, n = (int64_t)loop->items->n;

    if (weir_str_eq(name, "index"))
        *ret = tmpl_int(i + 1);
    else if (weir_str_eq(name, "index0"))
        *ret = tmpl_int(i);
    else if (weir_str_eq(name, "first"))
        *ret = tmpl_bool(i == 0);
    else if (weir_str_eq(name, "last"))
        *ret = tmpl_bool(i == n - 1);
    else if (weir_str_eq(name, "length"))
        *ret = tmpl_int(n);
    else if (weir_str_eq(name, "revindex"))
        *ret = tmpl_int(n - i);
    else if (weir_str_eq(name, "revindex0"))
        *ret = tmpl_int(n - i - 1);
    else if (weir_str_eq(name, "previtem"))
        *ret = i > 0 ? loop->items->at[i - 1] : tmpl_undef(WEIR_STR("there is no previous item"));
    else if (weir_str_eq(name, "nextitem"))
        *ret = i + 1 < n ? loop->items->at[i + 1] : tmpl_undef(WEIR_STR("there is no next item"));
    else if (weir_str_eq(name, "depth"))
        *ret = tmpl_int(loop->depth + 1);
    else if (weir_str_eq(name, "depth0"))
        *ret = tmpl_int(loop->depth);
    else
        return false;
    return true;
}

static bool cycler_attr(const struct tmpl_cycler *cycler, struct weir_str name, struct tmpl_value *ret)
{
    if (weir_str_eq(name, "current"))
        *ret = cycler->items->at[cycler->i];
    else if (weir_str_eq(name, "items"))
        *ret = (struct tmpl_value){ .kind = TMPL_TUPLE, .list = cycler->items };
    else if (weir_str_eq(name, "pos"))
        *ret = tmpl_int((int64_t)cycler->i);
    else
        return false;
    return true;
}

static bool joiner_attr(const struct tmpl_joiner *joiner, struct weir_str name, struct tmpl_value *ret)
{
    if (weir_str_eq(name, "sep"))
        *ret = joiner->separator;
    else if (weir_str_eq(name, "used"))
        *ret = tmpl_bool(joiner->used);
    else
        return false;
    return true;
}

static bool bind_method(struct tmpl_run *run, struct tmpl_value of, const struct tmpl_method *method,
                        struct tmpl_value *ret)
{
    struct tmpl_bound *bound = weir_arena_alloc(&run->arena, sizeof *bound);

    if (!bound)
        return tmpl_fail_mem(run);
    *bound = (struct tmpl_bound){ method, of };
    *ret = (struct tmpl_value){ .kind = TMPL_METHOD, .bound = bound };
    return true;
}

static bool fail_undefined(struct tmpl_run *run, struct tmpl_value of, struct weir_str name)
{
    return tmpl_fail(run, WEIR_INVALID, "\"%.*s\" is undefined: it has no \"%.*s\"", TEXT_SHORT(of.str),
                     TEXT_SHORT(name));
}

bool tmpl_get_attr(struct tmpl_run *run, struct tmpl_value of, struct weir_str name, struct tmpl_value *ret)
{
    const struct tmpl_method *method = tmpl_find_method(of.kind, name);

    if (of.kind == TMPL_UNDEF)
        return fail_undefined(run, of, name);
    if (method)
        return bind_method(run, of, method, ret);
    if ((of.kind == TMPL_LOOP && loop_attr(of.loop, name, ret)) ||
        (of.kind == TMPL_CYCLER && cycler_attr(of.cycler, name, ret)) ||
        (of.kind == TMPL_JOINER && joiner_attr(of.joiner, name, ret)))
        return true;
    if (of.kind == TMPL_MACRO && weir_str_eq(name, "name")) {
        *ret = tmpl_str(of.macro->node->str);
        return true;
    }
    if (of.kind == TMPL_DICT || of.kind == TMPL_NAMESPACE) {
        const struct tmpl_value *value = tmpl_dict_get(run, of.dict, tmpl_str(name));
        *ret = value ? *value : tmpl_undef(name);
        return true;
    }
    *ret = tmpl_undef(name);
    return true;
}

/* The i-th of n, counted from the end when negative. */
static bool in_range(int64_t i, size_t n, size_t *ret)
{
    if (i < 0)
        i += (int64_t)n;
    *ret = (size_t)i;
    return i >= 0 && (size_t)i < n;
}

bool tmpl_get_item(struct tmpl_run *run, struct tmpl_value of, struct tmpl_value key, struct tmpl_value *ret)
{
    size_t i;

    if (of.kind == TMPL_UNDEF)
        return fail_undefined(run, of, key.kind == TMPL_STR ? key.str : WEIR_STR("items"));
    *ret = tmpl_undef(key.kind == TMPL_STR ? key.str : WEIR_STR("an item past the end"));
    if (of.kind == TMPL_DICT) {
        const struct tmpl_value *value = tmpl_dict_get(run, of.dict, key);
        if (value)
            *ret = *value;
        if (value || key.kind != TMPL_STR)
            return true;
    }
    if (key.kind == TMPL_INT && (of.kind == TMPL_LIST || of.kind == TMPL_TUPLE)) {
        if (in_range(key.i, of.list->n, &i))
            *ret = of.list->at[i];
        return true;
    }
    if (key.kind == TMPL_INT && of.kind == TMPL_STR) {
        if (!tmpl_tick(run, of.str.len))
            return false;
        if (in_range(key.i, tmpl_chars(of.str), &i)) {
            size_t start = tmpl_char_offset(of.str, i);
            *ret = tmpl_str((struct weir_str){ of.str.ptr + start, tmpl_char_offset(of.str, i + 1) - start });
        }
        return true;
    }
    return key.kind != TMPL_STR || tmpl_get_attr(run, of, key.str, ret);
}

/* "a.b.0", as filters take it. */
bool tmpl_get_path(struct tmpl_run *run, struct tmpl_value of, struct tmpl_value path, struct tmpl_value *ret)
{
    if (path.kind != TMPL_STR)
        return tmpl_get_item(run, of, path, ret);
    for (size_t start = 0;;) {
        const char *dot = memchr(path.str.ptr + start, '.', path.str.len - start);
        size_t end = dot ? (size_t)(dot - path.str.ptr) : path.str.len;
        struct weir_str part = { path.str.ptr + start, end - start };
        struct tmpl_value key = tmpl_str(part);
        if (part.len > 0 && part.len < 10 && strspn(part.ptr, "0123456789") >= part.len) {
            key = tmpl_int(0);
            for (size_t i = 0; i < part.len; i++)
                key.i = 10 * key.i + (part.ptr[i] - '0');
        }
        if (!tmpl_tick(run, 0) || !tmpl_get_item(run, of, key, &of))
            return false;
        if (!dot)
            break;
        start = end + 1;
    }
    *ret = of;
    return true;
}

/* ---- slices ---- */

static bool bound_of(struct tmpl_run *run, struct tmpl_value v, int64_t init, int64_t n, int64_t low,
                     int64_t high, int64_t *ret)
{
    if (!tmpl_arg_given(v)) {
        *ret = init;
        return true;
    }
    if (v.kind == TMPL_BOOL)
        v = tmpl_int(v.b);
    if (v.kind != TMPL_INT)
        return tmpl_fail(run, WEIR_INVALID, "a slice's bounds are integers, not '%s'", tmpl_type_name(v));
    int64_t i = v.i < 0 ? v.i + n : v.i;
    *ret = i < low ? low : i > high ? high : i;
    return true;
}

bool tmpl_slice(struct tmpl_run *run, struct tmpl_value of, const struct tmpl_value bounds[3],
                struct tmpl_value *ret)
{
    const struct tmpl_list *items;
    struct tmpl_value list = { 0 };
    size_t n;
    int64_t start, stop, step = 1;

    if (of.kind != TMPL_STR && of.kind != TMPL_LIST && of.kind != TMPL_TUPLE) {
        if (of.kind == TMPL_UNDEF)
            return fail_undefined(run, of, WEIR_STR("slices"));
        return tmpl_fail(run, WEIR_INVALID, "a '%s' can't be sliced", tmpl_type_name(of));
    }
    if (!tmpl_length(run, of, &n) || !bound_of(run, bounds[2], 1, 0, -INT64_MAX, INT64_MAX, &step))
        return false;
    if (step == 0)
        return tmpl_fail(run, WEIR_INVALID, "a slice's step is 0");
    int64_t len = (int64_t)n, low = step > 0 ? 0 : -1, high = step > 0 ? len : len - 1;
    if (!bound_of(run, bounds[0], step > 0 ? 0 : len - 1, len, low, high, &start) ||
        !bound_of(run, bounds[1], step > 0 ? len : -1, len, low, high, &stop))
        return false;
    if (of.kind == TMPL_STR && step == 1) {
        size_t from = tmpl_char_offset(of.str, (size_t)start);
        size_t to = stop > start ? tmpl_char_offset(of.str, (size_t)stop) : from;
        *ret = tmpl_str((struct weir_str){ of.str.ptr + from, to - from });
        return true;
    }
    if (!tmpl_items(run, of, &items) || !tmpl_new_list(run, of.kind == TMPL_STR ? TMPL_LIST : of.kind, &list))
        return false;
    int64_t count = step > 0 ? (stop > start ? (stop - start - 1) / step + 1 : 0)
                             : (start > stop ? (start - stop - 1) / -step + 1 : 0);
    for (int64_t k = 0; k < count; k++)
        if (!tmpl_push(run, list.list, items->at[start + k * step]))
            return false;
    *ret = list;
    return of.kind != TMPL_STR || tmpl_join(run, (struct weir_str){ "", 0 }, list, ret);
}
