/* tmpl_filter_list.c - the filters of lists and dicts.
 *
 * Where jinja2 gives a generator, so does this, because templates can tell: it is true even when it is empty, and empty
 * when it was looped over once. What it yields is made at once, though, so what fails does so where it is written. */
#include "replica/text/tmpl_filter.h"

#include <string.h>

bool tmpl_attribute_of(struct tmpl_run *run, struct tmpl_value item, struct tmpl_value path,
                       struct tmpl_value *ret)
{
    *ret = item;
    return !tmpl_arg_given(path) || tmpl_get_path(run, item, path, ret);
}

FILTER(f_length)
{
    size_t n;

    UNUSED_ARGS;
    if (!tmpl_length(run, in, &n))
        return false;
    *ret = tmpl_int((int64_t)n);
    return true;
}

FILTER(f_first)
{
    const struct tmpl_list *items;

    UNUSED_ARGS;
    if (in.kind == TMPL_GENERATOR)
        items = in.list;
    else if (!tmpl_items(run, in, &items))
        return false;
    *ret = items->n > 0 ? items->at[0] : tmpl_undef(WEIR_STR("the first of nothing"));
    if (in.kind == TMPL_GENERATOR && items->n > 0) { /* the others are still to come */
        in.list->at++;
        in.list->n--;
    }
    return true;
}

FILTER(f_last)
{
    const struct tmpl_list *items;

    UNUSED_ARGS;
    if (in.kind == TMPL_GENERATOR)
        return tmpl_fail(run, WEIR_INVALID, "last: a generator has none");
    if (!tmpl_items(run, in, &items))
        return false;
    *ret = items->n > 0 ? items->at[items->n - 1] : tmpl_undef(WEIR_STR("the last of nothing"));
    return true;
}

static bool copy_list(struct tmpl_run *run, struct tmpl_value of, struct tmpl_value *ret)
{
    const struct tmpl_list *items;

    if (!tmpl_items(run, of, &items) || !tmpl_new_list(run, TMPL_LIST, ret))
        return false;
    for (size_t i = 0; i < items->n; i++)
        if (!tmpl_push(run, ret->list, items->at[i]))
            return false;
    return true;
}

FILTER_IS(f_list, copy_list(run, in, ret))

FILTER(f_reverse)
{
    struct tmpl_value list;

    UNUSED_ARGS;
    if (!copy_list(run, in, &list))
        return false;
    for (size_t i = 0; i < list.list->n / 2; i++) {
        struct tmpl_value swap = list.list->at[i];
        list.list->at[i] = list.list->at[list.list->n - 1 - i];
        list.list->at[list.list->n - 1 - i] = swap;
    }
    *ret = generator(list);
    if (in.kind == TMPL_GENERATOR)
        *ret = list;
    return in.kind != TMPL_STR || tmpl_join(run, (struct weir_str){ "", 0 }, list, ret);
}

FILTER(f_join)
{
    const struct tmpl_list *items;
    struct weir_str with = { "", 0 };
    struct tmpl_value list, value;

    UNUSED_ARGS;
    if ((tmpl_arg_given(argv[0]) && !tmpl_to_str(run, argv[0], &with)) || !tmpl_items(run, in, &items) ||
        !tmpl_new_list(run, TMPL_LIST, &list))
        return false;
    for (size_t i = 0; i < items->n; i++)
        if (!tmpl_attribute_of(run, items->at[i], argv[1], &value) || !tmpl_push(run, list.list, value))
            return false;
    return tmpl_join(run, with, list, ret);
}

FILTER(f_sum)
{
    const struct tmpl_list *items;
    struct tmpl_value total = tmpl_arg_given(argv[1]) ? argv[1] : tmpl_int(0), value;

    UNUSED_ARGS;
    if (!tmpl_items(run, in, &items))
        return false;
    for (size_t i = 0; i < items->n; i++)
        if (!tmpl_attribute_of(run, items->at[i], argv[0], &value) ||
            !tmpl_arith(run, TMPL_OP_ADD, total, value, &total))
            return false;
    *ret = total;
    return true;
}

/* ---- sorting ---- */

struct keyed {
    struct tmpl_value key, item;
};

/* What items are compared by: strings without their case, unless it matters. */
static bool sort_key(struct tmpl_run *run, struct tmpl_value item, struct tmpl_value path,
                     bool case_sensitive, struct tmpl_value *ret)
{
    if (!tmpl_attribute_of(run, item, path, ret))
        return false;
    if (ret->kind == TMPL_STR && !case_sensitive)
        return tmpl_case(run, ret->str, TMPL_LOWER, ret);
    return true;
}

/* A stable merge sort; `at` and `room` have n each. */
static bool merge_sort(struct tmpl_run *run, struct keyed *at, struct keyed *room, size_t n, bool reverse)
{
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t start = 0; start < n; start += 2 * width) {
            size_t mid = start + width < n ? start + width : n,
                   end = start + 2 * width < n ? start + 2 * width : n;
            size_t a = start, b = mid, out = start;
            while (a < mid && b < end) {
                int order;
                if (!tmpl_order(run, at[a].key, at[b].key, &order))
                    return false;
                room[out++] = (reverse ? order >= 0 : order <= 0) ? at[a++] : at[b++];
            }
            while (a < mid)
                room[out++] = at[a++];
            while (b < end)
                room[out++] = at[b++];
        }
        memcpy(at, room, n * sizeof *at);
    }
    return true;
}

static bool sort_list(struct tmpl_run *run, const struct tmpl_list *items, struct tmpl_value path,
                      bool case_sensitive, bool reverse, struct tmpl_value *ret)
{
    struct keyed *at = weir_arena_alloc(&run->arena, (2 * items->n + 1) * sizeof *at);

    if (!at)
        return tmpl_fail_mem(run);
    for (size_t i = 0; i < items->n; i++) {
        at[i].item = items->at[i];
        if (!sort_key(run, items->at[i], path, case_sensitive, &at[i].key))
            return false;
    }
    if (!merge_sort(run, at, at + items->n, items->n, reverse) || !tmpl_new_list(run, TMPL_LIST, ret))
        return false;
    for (size_t i = 0; i < items->n; i++)
        if (!tmpl_push(run, ret->list, at[i].item))
            return false;
    return true;
}

FILTER(f_sort)
{
    const struct tmpl_list *items;

    UNUSED_ARGS;
    return tmpl_items(run, in, &items) &&
           sort_list(run, items, argv[2], tmpl_arg_bool(argv[1], false), tmpl_arg_bool(argv[0], false), ret);
}

FILTER(f_dictsort)
{
    struct tmpl_value pairs;
    bool by_value = argv[1].kind == TMPL_STR && weir_str_eq(argv[1].str, "value");

    UNUSED_ARGS;
    if (in.kind != TMPL_DICT)
        return tmpl_fail(run, WEIR_INVALID, "dictsort: not a dict but a '%s'", tmpl_type_name(in));
    return tmpl_pairs(run, in.dict, &pairs) &&
           sort_list(run, pairs.list, tmpl_int(by_value), tmpl_arg_bool(argv[0], false),
                     tmpl_arg_bool(argv[2], false), ret);
}

FILTER(f_items)
{
    UNUSED_ARGS;
    if (in.kind == TMPL_UNDEF)
        return tmpl_new_list(run, TMPL_GENERATOR, ret);
    if (in.kind != TMPL_DICT)
        return tmpl_fail(run, WEIR_INVALID, "items: not a dict but a '%s'", tmpl_type_name(in));
    bool ok = tmpl_pairs(run, in.dict, ret);
    *ret = generator(*ret);
    return ok;
}

static bool extreme(struct tmpl_run *run, struct tmpl_value in, const struct tmpl_value *argv, int sign,
                    struct tmpl_value *ret)
{
    const struct tmpl_list *items;
    struct tmpl_value best, key;
    int order;

    if (!tmpl_items(run, in, &items))
        return false;
    *ret = tmpl_undef(WEIR_STR("the extreme of nothing"));
    for (size_t i = 0; i < items->n; i++) {
        if (!sort_key(run, items->at[i], argv[1], tmpl_arg_bool(argv[0], false), &key) ||
            (i > 0 && !tmpl_order(run, key, best, &order)))
            return false;
        if (i > 0 && order * sign <= 0)
            continue;
        best = key;
        *ret = items->at[i];
    }
    return true;
}

FILTER_IS(f_min, extreme(run, in, argv, -1, ret))
FILTER_IS(f_max, extreme(run, in, argv, 1, ret))

FILTER(f_unique)
{
    const struct tmpl_list *items;
    struct tmpl_value seen, key, list;

    UNUSED_ARGS;
    if (!tmpl_items(run, in, &items) || !tmpl_new_dict(run, TMPL_DICT, &seen) ||
        !tmpl_new_list(run, TMPL_LIST, &list))
        return false;
    for (size_t i = 0; i < items->n; i++) {
        if (!sort_key(run, items->at[i], argv[1], tmpl_arg_bool(argv[0], false), &key))
            return false;
        if (tmpl_dict_get(run, seen.dict, key))
            continue;
        if (!tmpl_dict_set(run, seen.dict, key, tmpl_none()) || !tmpl_push(run, list.list, items->at[i]))
            return false;
    }
    *ret = generator(list);
    return true;
}

/* [(key, [items]), ...] in the order of the keys. */
FILTER(f_groupby)
{
    const struct tmpl_list *items;
    struct tmpl_value sorted, list, group, members, key, last = { .kind = TMPL_UNSET };

    UNUSED_ARGS;
    if (!tmpl_items(run, in, &items) ||
        !sort_list(run, items, argv[0], tmpl_arg_bool(argv[2], false), false, &sorted) ||
        !tmpl_new_list(run, TMPL_LIST, &list))
        return false;
    for (size_t i = 0; i < sorted.list->n; i++) {
        if (!sort_key(run, sorted.list->at[i], argv[0], tmpl_arg_bool(argv[2], false), &key))
            return false;
        if (i == 0 || !tmpl_equal(run, key, last)) {
            struct tmpl_value shown;
            if (!tmpl_attribute_of(run, sorted.list->at[i], argv[0], &shown) ||
                !tmpl_new_list(run, TMPL_TUPLE, &group) || !tmpl_new_list(run, TMPL_LIST, &members) ||
                !tmpl_push(run, group.list, shown) || !tmpl_push(run, group.list, members) ||
                !tmpl_push(run, list.list, group))
                return false;
        }
        last = key;
        if (!tmpl_push(run, members.list, sorted.list->at[i]))
            return false;
    }
    *ret = list;
    return true;
}

FILTER(f_batch)
{
    const struct tmpl_list *items;
    struct tmpl_value list, row = { 0 };
    int64_t n;

    UNUSED_ARGS;
    if (!tmpl_items(run, in, &items) || !tmpl_arg_int(run, argv[0], 0, &n) ||
        !tmpl_new_list(run, TMPL_LIST, &list))
        return false;
    if (n < 1)
        return tmpl_fail(run, WEIR_INVALID, "batch: a count of less than 1");
    for (size_t i = 0; i < items->n; i++) {
        if (i % (size_t)n == 0 && (!tmpl_new_list(run, TMPL_LIST, &row) || !tmpl_push(run, list.list, row)))
            return false;
        if (!tmpl_push(run, row.list, items->at[i]))
            return false;
    }
    while (tmpl_arg_given(argv[1]) && items->n > 0 && row.list->n < (size_t)n)
        if (!tmpl_push(run, row.list, argv[1]))
            return false;
    *ret = generator(list);
    return true;
}

/* As many lists as asked for, the first ones longer by one where it does not come out even; the others are filled up. */
FILTER(f_slice)
{
    const struct tmpl_list *items;
    struct tmpl_value list, part;
    int64_t n;
    size_t at = 0;

    UNUSED_ARGS;
    if (!tmpl_items(run, in, &items) || !tmpl_arg_int(run, argv[0], 0, &n) ||
        !tmpl_new_list(run, TMPL_LIST, &list))
        return false;
    if (n == 0)
        return tmpl_fail(run, WEIR_INVALID, "slice: a count of 0");
    for (int64_t i = 0; i < n; i++) {
        bool longer = (uint64_t)i < items->n % (uint64_t)n;
        if (!tmpl_new_list(run, TMPL_LIST, &part) || !tmpl_push(run, list.list, part) || !tmpl_tick(run, 0))
            return false;
        for (size_t end = at + items->n / (uint64_t)n + longer; at < end; at++)
            if (!tmpl_push(run, part.list, items->at[at]))
                return false;
        if (!longer && tmpl_arg_given(argv[1]) && !tmpl_push(run, part.list, argv[1]))
            return false;
    }
    *ret = generator(list);
    return true;
}

const struct tmpl_filter tmpl_list_filters[] = {
    { "batch", "linecount,fill_with", f_batch },
    { "count", "", f_length },
    { "dictsort", "case_sensitive,by,reverse", f_dictsort },
    { "first", "", f_first },
    { "groupby", "attribute,default,case_sensitive", f_groupby },
    { "items", "", f_items },
    { "join", "d,attribute", f_join },
    { "last", "", f_last },
    { "length", "", f_length },
    { "list", "", f_list },
    { "max", "case_sensitive,attribute", f_max },
    { "min", "case_sensitive,attribute", f_min },
    { "reverse", "", f_reverse },
    { "slice", "slices,fill_with", f_slice },
    { "sort", "reverse,case_sensitive,attribute", f_sort },
    { "sum", "attribute,start", f_sum },
    { "unique", "case_sensitive,attribute", f_unique },
    { NULL, NULL, NULL },
};
