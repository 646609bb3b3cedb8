/* tmpl_method_text.c - methods of strings. */
#include "replica/text/tmpl_method.h"

#include <string.h>

#include <utf8proc.h>

static bool want_str(struct tmpl_run *run, struct tmpl_value arg, struct weir_str *ret)
{
    if (arg.kind != TMPL_STR)
        return tmpl_fail(run, WEIR_INVALID, "an argument should be a string, not '%s'", tmpl_type_name(arg));
    *ret = arg.str;
    return true;
}

static bool strip_method(struct tmpl_run *run, struct tmpl_value self, struct tmpl_value chars, bool left,
                         bool right, struct tmpl_value *ret)
{
    struct weir_str set = { 0 };

    if ((tmpl_arg_given(chars) && !want_str(run, chars, &set)) ||
        !tmpl_tick(run, self.str.len * (set.len + 1)))
        return false;
    *ret = tmpl_str(tmpl_strip(self.str, tmpl_arg_given(chars) ? &set : NULL, left, right));
    return true;
}

METHOD_IS(s_strip, strip_method(run, self, argv[0], true, true, ret))
METHOD_IS(s_lstrip, strip_method(run, self, argv[0], true, false, ret))
METHOD_IS(s_rstrip, strip_method(run, self, argv[0], false, true, ret))

static bool affix_is(struct weir_str s, struct weir_str affix, bool at_end)
{
    return affix.len <= s.len &&
           (affix.len == 0 || memcmp(at_end ? s.ptr + s.len - affix.len : s.ptr, affix.ptr, affix.len) == 0);
}

/* One string or a tuple of them. */
static bool affix_method(struct tmpl_run *run, struct tmpl_value self, struct tmpl_value arg, bool at_end,
                         struct tmpl_value *ret)
{
    struct weir_str affix = { 0 };

    *ret = tmpl_bool(false);
    if (arg.kind == TMPL_TUPLE) {
        for (size_t i = 0; i < arg.list->n && !ret->b; i++) {
            if (!want_str(run, arg.list->at[i], &affix) || !tmpl_tick(run, affix.len))
                return false;
            ret->b = affix_is(self.str, affix, at_end);
        }
        return true;
    }
    if (!want_str(run, arg, &affix))
        return false;
    ret->b = affix_is(self.str, affix, at_end);
    return tmpl_tick(run, affix.len);
}

METHOD_IS(s_startswith, affix_method(run, self, argv[0], false, ret))
METHOD_IS(s_endswith, affix_method(run, self, argv[0], true, ret))

METHOD(s_removeprefix)
{
    struct weir_str affix = { 0 };

    UNUSED_ARGS;
    *ret = self;
    if (!want_str(run, argv[0], &affix))
        return false;
    if (affix_is(self.str, affix, false))
        *ret = tmpl_str((struct weir_str){ self.str.ptr + affix.len, self.str.len - affix.len });
    return true;
}

METHOD(s_removesuffix)
{
    struct weir_str affix = { 0 };

    UNUSED_ARGS;
    *ret = self;
    if (!want_str(run, argv[0], &affix))
        return false;
    if (affix_is(self.str, affix, true))
        *ret = tmpl_str((struct weir_str){ self.str.ptr, self.str.len - affix.len });
    return true;
}

static bool push_part(struct tmpl_run *run, struct tmpl_list *list, struct weir_str s, size_t start,
                      size_t end)
{
    return tmpl_push(run, list, tmpl_str((struct weir_str){ s.ptr + start, end - start }));
}

/* split() without a separator: runs of white space. */
static bool split_spaces(struct tmpl_run *run, struct weir_str s, int64_t n_max, struct tmpl_list *list)
{
    s = tmpl_strip(s, NULL, true, false);
    while (s.len > 0) {
        size_t end = 0;
        uint32_t c = 0;
        if (n_max-- == 0)
            return push_part(run, list, s, 0, s.len);
        while (end < s.len) {
            size_t n = tmpl_char_at(s, end, &c);
            if (tmpl_is_space(c))
                break;
            end += n;
        }
        if (!push_part(run, list, s, 0, end))
            return false;
        s = tmpl_strip((struct weir_str){ s.ptr + end, s.len - end }, NULL, true, false);
    }
    return true;
}

static bool split_by(struct tmpl_run *run, struct weir_str s, struct weir_str by, int64_t n_max,
                     struct tmpl_list *list)
{
    size_t start = 0;

    for (; n_max != 0; n_max--) {
        const char *hit = memmem(s.ptr + start, s.len - start, by.ptr, by.len);
        if (!hit)
            break;
        if (!push_part(run, list, s, start, (size_t)(hit - s.ptr)))
            return false;
        start = (size_t)(hit - s.ptr) + by.len;
    }
    return push_part(run, list, s, start, s.len);
}

METHOD(s_split)
{
    struct weir_str by = { 0 };
    int64_t n_max;

    UNUSED_ARGS;
    if (!tmpl_arg_int(run, argv[1], -1, &n_max) || !tmpl_new_list(run, TMPL_LIST, ret) ||
        !tmpl_tick(run, self.str.len))
        return false;
    if (!tmpl_arg_given(argv[0]))
        return split_spaces(run, self.str, n_max, ret->list);
    if (!want_str(run, argv[0], &by))
        return false;
    if (by.len == 0)
        return tmpl_fail(run, WEIR_INVALID, "split: an empty separator");
    return split_by(run, self.str, by, n_max, ret->list);
}

/* The last place of `by` in s[0, end), or SIZE_MAX. Costs s.len * by.len at worst. */
static size_t find_last(struct weir_str s, size_t end, struct weir_str by)
{
    for (size_t i = end; i-- > 0;)
        if (i + by.len <= end && memcmp(s.ptr + i, by.ptr, by.len) == 0)
            return i;
    return SIZE_MAX;
}

METHOD(s_rsplit)
{
    struct weir_str by = { 0 };
    struct tmpl_value parts;
    int64_t n_max;
    size_t end = self.str.len, at;

    if (!tmpl_arg_int(run, argv[1], -1, &n_max))
        return false;
    if (n_max < 0)
        return s_split(run, self, argv, args, ret);
    if (!tmpl_arg_given(argv[0]))
        return tmpl_fail(run, WEIR_UNIMPLEMENTED, "rsplit: a count needs a separator");
    if (!want_str(run, argv[0], &by) || !tmpl_new_list(run, TMPL_LIST, &parts) ||
        !tmpl_tick(run, self.str.len * (by.len + 1)))
        return false;
    if (by.len == 0)
        return tmpl_fail(run, WEIR_INVALID, "rsplit: an empty separator");
    for (; n_max > 0 && (at = find_last(self.str, end, by)) != SIZE_MAX; n_max--) {
        if (!push_part(run, parts.list, self.str, at + by.len, end))
            return false;
        end = at;
    }
    if (!push_part(run, parts.list, self.str, 0, end) || !tmpl_new_list(run, TMPL_LIST, ret))
        return false;
    for (size_t i = parts.list->n; i-- > 0;)
        if (!tmpl_push(run, ret->list, parts.list->at[i]))
            return false;
    return true;
}

METHOD_IS(s_splitlines, tmpl_splitlines(run, self.str, tmpl_arg_bool(argv[0], false), ret))

/* (head, separator, tail) */
static bool partition(struct tmpl_run *run, struct tmpl_value self, struct tmpl_value arg, bool last,
                      struct tmpl_value *ret)
{
    struct weir_str by = { 0 }, s = self.str;
    size_t at = SIZE_MAX;

    if (!want_str(run, arg, &by) || !tmpl_new_list(run, TMPL_TUPLE, ret) ||
        !tmpl_tick(run, s.len * (by.len + 1)))
        return false;
    if (by.len == 0)
        return tmpl_fail(run, WEIR_INVALID, "partition: an empty separator");
    if (last) {
        at = find_last(s, s.len, by);
    } else {
        const char *hit = memmem(s.ptr, s.len, by.ptr, by.len);
        at = hit ? (size_t)(hit - s.ptr) : SIZE_MAX;
    }
    if (at == SIZE_MAX) {
        size_t cut = last ? 0 : s.len; /* all of it in front, or behind */
        return push_part(run, ret->list, s, 0, cut) && push_part(run, ret->list, s, 0, 0) &&
               push_part(run, ret->list, s, cut, s.len);
    }
    return push_part(run, ret->list, s, 0, at) && push_part(run, ret->list, s, at, at + by.len) &&
           push_part(run, ret->list, s, at + by.len, s.len);
}

METHOD_IS(s_partition, partition(run, self, argv[0], false, ret))
METHOD_IS(s_rpartition, partition(run, self, argv[0], true, ret))

METHOD(s_replace)
{
    struct weir_str old, with;
    int64_t n_max;

    UNUSED_ARGS;
    return want_str(run, argv[0], &old) && want_str(run, argv[1], &with) &&
           tmpl_arg_int(run, argv[2], -1, &n_max) && tmpl_replace(run, self.str, old, with, n_max, ret);
}

METHOD_IS(s_upper, tmpl_case(run, self.str, TMPL_UPPER, ret))
METHOD_IS(s_lower, tmpl_case(run, self.str, TMPL_LOWER, ret))
METHOD_IS(s_title, tmpl_case(run, self.str, TMPL_TITLE, ret))
METHOD_IS(s_capitalize, tmpl_case(run, self.str, TMPL_CAPITALIZE, ret))
METHOD_IS(s_swapcase, tmpl_case(run, self.str, TMPL_SWAP, ret))

METHOD(s_join)
{
    const struct tmpl_list *items;

    UNUSED_ARGS;
    if (!tmpl_items(run, argv[0], &items))
        return false;
    for (size_t i = 0; i < items->n; i++)
        if (items->at[i].kind != TMPL_STR)
            return tmpl_fail(run, WEIR_INVALID, "join: item %zu is no string but '%s'", i,
                             tmpl_type_name(items->at[i]));
    return tmpl_join(run, self.str, argv[0], ret);
}

static bool find_method(struct tmpl_run *run, struct tmpl_value self, struct tmpl_value arg, bool last,
                        bool must, struct tmpl_value *ret)
{
    struct weir_str what = { 0 }, s = self.str;
    size_t at;

    if (!want_str(run, arg, &what) || !tmpl_tick(run, last ? s.len * (what.len + 1) : s.len))
        return false;
    if (last) {
        at = what.len ? find_last(s, s.len, what) : s.len;
    } else {
        const char *hit = what.len ? memmem(s.ptr, s.len, what.ptr, what.len) : s.ptr;
        at = hit ? (size_t)(hit - s.ptr) : SIZE_MAX;
    }
    if (at == SIZE_MAX && must)
        return tmpl_fail(run, WEIR_INVALID, "index: the substring is not there");
    *ret = tmpl_int(at == SIZE_MAX ? -1 : (int64_t)tmpl_chars((struct weir_str){ s.ptr, at }));
    return true;
}

METHOD_IS(s_find, find_method(run, self, argv[0], false, false, ret))
METHOD_IS(s_rfind, find_method(run, self, argv[0], true, false, ret))
METHOD_IS(s_index, find_method(run, self, argv[0], false, true, ret))

METHOD(s_count)
{
    struct weir_str what = { 0 }, s = self.str;
    int64_t n = 0;

    UNUSED_ARGS;
    if (!want_str(run, argv[0], &what) || !tmpl_tick(run, s.len))
        return false;
    if (what.len == 0) {
        *ret = tmpl_int((int64_t)tmpl_chars(s) + 1);
        return true;
    }
    for (const char *hit; (hit = memmem(s.ptr, s.len, what.ptr, what.len)); n++) {
        size_t skip = (size_t)(hit - s.ptr) + what.len;
        s = (struct weir_str){ s.ptr + skip, s.len - skip };
    }
    *ret = tmpl_int(n);
    return true;
}

METHOD(s_format)
{
    (void)argv;
    return tmpl_str_format(run, self.str, args, ret);
}

static bool pad(struct tmpl_run *run, struct tmpl_value self, const struct tmpl_value *argv, bool left,
                bool right, struct tmpl_value *ret)
{
    struct weir_str fill = { " ", 1 };
    int64_t width;

    if (!tmpl_arg_int(run, argv[0], 0, &width) || (tmpl_arg_given(argv[1]) && !want_str(run, argv[1], &fill)))
        return false;
    if (tmpl_chars(fill) != 1)
        return tmpl_fail(run, WEIR_INVALID, "the fill is not one character");
    return tmpl_pad(run, self.str, width, fill, left, right, ret);
}

METHOD_IS(s_ljust, pad(run, self, argv, false, true, ret))
METHOD_IS(s_rjust, pad(run, self, argv, true, false, ret))
METHOD_IS(s_center, pad(run, self, argv, true, true, ret))

METHOD(s_zfill)
{
    struct tmpl_value zero[2] = { argv[0], tmpl_str(WEIR_STR("0")) };

    (void)args;
    if (self.str.len > 0 && (self.str.ptr[0] == '-' || self.str.ptr[0] == '+'))
        return tmpl_fail(run, WEIR_UNIMPLEMENTED, "zfill: of a signed number");
    return pad(run, self, zero, true, false, ret);
}

/* ---- what kind of characters ---- */

enum char_class { DIGITS, LETTERS, ALNUM, SPACES, LOWER, UPPER };

static bool in_class(uint32_t c, enum char_class class, bool *ret_counts)
{
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);
    bool letter = category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;

    *ret_counts = true;
    switch (class) {
    case DIGITS:
        return category == UTF8PROC_CATEGORY_ND;
    case LETTERS:
        return letter;
    case ALNUM:
        return letter || (category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO);
    case SPACES:
        return tmpl_is_space(c);
    default: /* characters without case don't count */
        *ret_counts = category == UTF8PROC_CATEGORY_LU || category == UTF8PROC_CATEGORY_LL;
        return !*ret_counts || category == (class == UPPER ? UTF8PROC_CATEGORY_LU : UTF8PROC_CATEGORY_LL);
    }
}

static bool is_class(struct tmpl_run *run, struct weir_str s, enum char_class class, struct tmpl_value *ret)
{
    bool all = true, any = false;

    for (size_t i = 0; i < s.len && all;) {
        uint32_t c;
        bool counts;
        i += tmpl_char_at(s, i, &c);
        all = in_class(c, class, &counts);
        any |= counts;
    }
    *ret = tmpl_bool(all && any);
    return tmpl_tick(run, s.len);
}

METHOD_IS(s_isdigit, is_class(run, self.str, DIGITS, ret))
METHOD_IS(s_isalpha, is_class(run, self.str, LETTERS, ret))
METHOD_IS(s_isalnum, is_class(run, self.str, ALNUM, ret))
METHOD_IS(s_isspace, is_class(run, self.str, SPACES, ret))
METHOD_IS(s_islower, is_class(run, self.str, LOWER, ret))
METHOD_IS(s_isupper, is_class(run, self.str, UPPER, ret))

const struct tmpl_method tmpl_text_methods[] = {
    { TMPL_STR, "capitalize", "", s_capitalize },
    { TMPL_STR, "center", "width,fillchar", s_center },
    { TMPL_STR, "count", "sub", s_count },
    { TMPL_STR, "endswith", "suffix", s_endswith },
    { TMPL_STR, "find", "sub", s_find },
    { TMPL_STR, "format", "*", s_format },
    { TMPL_STR, "index", "sub", s_index },
    { TMPL_STR, "isalnum", "", s_isalnum },
    { TMPL_STR, "isalpha", "", s_isalpha },
    { TMPL_STR, "isdecimal", "", s_isdigit },
    { TMPL_STR, "isdigit", "", s_isdigit },
    { TMPL_STR, "islower", "", s_islower },
    { TMPL_STR, "isnumeric", "", s_isdigit },
    { TMPL_STR, "isspace", "", s_isspace },
    { TMPL_STR, "isupper", "", s_isupper },
    { TMPL_STR, "join", "iterable", s_join },
    { TMPL_STR, "ljust", "width,fillchar", s_ljust },
    { TMPL_STR, "lower", "", s_lower },
    { TMPL_STR, "casefold", "", s_lower },
    { TMPL_STR, "lstrip", "chars", s_lstrip },
    { TMPL_STR, "partition", "sep", s_partition },
    { TMPL_STR, "removeprefix", "prefix", s_removeprefix },
    { TMPL_STR, "removesuffix", "suffix", s_removesuffix },
    { TMPL_STR, "replace", "old,new,count", s_replace },
    { TMPL_STR, "rfind", "sub", s_rfind },
    { TMPL_STR, "rjust", "width,fillchar", s_rjust },
    { TMPL_STR, "rpartition", "sep", s_rpartition },
    { TMPL_STR, "rsplit", "sep,maxsplit", s_rsplit },
    { TMPL_STR, "rstrip", "chars", s_rstrip },
    { TMPL_STR, "split", "sep,maxsplit", s_split },
    { TMPL_STR, "splitlines", "keepends", s_splitlines },
    { TMPL_STR, "startswith", "prefix", s_startswith },
    { TMPL_STR, "strip", "chars", s_strip },
    { TMPL_STR, "swapcase", "", s_swapcase },
    { TMPL_STR, "title", "", s_title },
    { TMPL_STR, "upper", "", s_upper },
    { TMPL_STR, "zfill", "width", s_zfill },
    { TMPL_STR, NULL, NULL, NULL },
};
