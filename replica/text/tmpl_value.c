/* tmpl_value.c - values as Python has them: truth, equality, order, membership, attributes, slices.
 *
 * Numbers are 64-bit integers and doubles; an integer that would need more is an error. Strings count
 * characters, not bytes. Comparing nested values costs steps and stops at TMPL_DEPTH_MAX: values may share
 * parts, so that few steps build what takes for ever to walk. */
#include "replica/text/tmpl_int.h"

#include <math.h>
#include <string.h>

#include "base/hash.h"
#include "base/json.h"
#include "replica/text/text_int.h"

enum { DICT_SMALL = 12 };

struct tmpl_value tmpl_undef(struct weir_str name)
{
    return (struct tmpl_value){ .kind = TMPL_UNDEF, .str = name };
}

struct tmpl_value tmpl_none(void)
{
    return (struct tmpl_value){ .kind = TMPL_NONE };
}

struct tmpl_value tmpl_bool(bool b)
{
    return (struct tmpl_value){ .kind = TMPL_BOOL, .b = b };
}

struct tmpl_value tmpl_int(int64_t i)
{
    return (struct tmpl_value){ .kind = TMPL_INT, .i = i };
}

struct tmpl_value tmpl_float(double f)
{
    return (struct tmpl_value){ .kind = TMPL_FLOAT, .f = f };
}

struct tmpl_value tmpl_str(struct weir_str s)
{
    return (struct tmpl_value){ .kind = TMPL_STR, .str = s };
}

bool tmpl_is(struct tmpl_value v, enum tmpl_kind kind)
{
    return v.kind == kind;
}

const char *tmpl_type_name(struct tmpl_value v)
{
    static const char *const names[] = {
        [TMPL_UNDEF] = "Undefined",  [TMPL_NONE] = "NoneType",
        [TMPL_BOOL] = "bool",        [TMPL_INT] = "int",
        [TMPL_FLOAT] = "float",      [TMPL_STR] = "str",
        [TMPL_LIST] = "list",        [TMPL_TUPLE] = "tuple",
        [TMPL_DICT] = "dict",        [TMPL_MACRO] = "Macro",
        [TMPL_FUNC] = "function",    [TMPL_METHOD] = "method",
        [TMPL_LOOP] = "LoopContext", [TMPL_NAMESPACE] = "Namespace",
        [TMPL_UNSET] = "nothing",    [TMPL_GENERATOR] = "generator",
    };

    return names[v.kind];
}

bool tmpl_number(struct tmpl_value v, double *ret)
{
    if (v.kind == TMPL_FLOAT)
        *ret = v.f;
    else if (v.kind == TMPL_INT)
        *ret = (double)v.i;
    else if (v.kind == TMPL_BOOL)
        *ret = v.b;
    else
        return false;
    return true;
}

bool tmpl_truth(struct tmpl_value v)
{
    switch (v.kind) {
    case TMPL_UNDEF:
    case TMPL_NONE:
    case TMPL_UNSET:
        return false;
    case TMPL_BOOL:
        return v.b;
    case TMPL_INT:
        return v.i != 0;
    case TMPL_FLOAT:
        return v.f != 0;
    case TMPL_STR:
        return v.str.len > 0;
    case TMPL_LIST:
    case TMPL_TUPLE:
        return v.list->n > 0;
    case TMPL_DICT:
        return v.dict->n > 0;
    default:
        return true;
    }
}

/* ---- lists ---- */

bool tmpl_new_list(struct tmpl_run *run, enum tmpl_kind kind, struct tmpl_value *ret)
{
    struct tmpl_list *list = weir_arena_alloc0(&run->arena, sizeof *list);

    if (!list)
        return tmpl_fail_mem(run);
    *ret = (struct tmpl_value){ .kind = kind, .list = list };
    return true;
}

/* Room for one more of `n` things of `size` bytes; the old ones stay behind in the arena. */
static bool grow(struct tmpl_run *run, void **at, size_t n, size_t *cap, size_t size)
{
    if (n < *cap)
        return true;
    size_t more = *cap ? 2 * *cap : 4;
    void *bigger = weir_arena_alloc(&run->arena, more * size);
    if (!bigger)
        return tmpl_fail_mem(run);
    if (n)
        memcpy(bigger, *at, n * size);
    *at = bigger;
    *cap = more;
    return true;
}

bool tmpl_push(struct tmpl_run *run, struct tmpl_list *list, struct tmpl_value v)
{
    void *at = list->at;

    if (!tmpl_tick(run, 0) || !grow(run, &at, list->n, &list->cap, sizeof *list->at))
        return false;
    list->at = at;
    list->at[list->n++] = v;
    return true;
}

/* ---- dicts ---- */

/* Equal keys hash equally: True, 1 and 1.0 are one key in Python. */
static uint64_t hash_key(struct tmpl_value key)
{
    double f;

    if (key.kind == TMPL_STR)
        return weir_hash64(key.str.ptr, key.str.len, 1);
    if (tmpl_number(key, &f))
        return weir_hash64(&f, sizeof f, 2);
    return (uint64_t)key.kind; /* tuples and the like: rare, and still right */
}

static uint32_t *index_slot(struct tmpl_run *run, const struct tmpl_dict *dict, struct tmpl_value key)
{
    uint32_t i = (uint32_t)hash_key(key) & dict->index_mask;

    while (dict->index[i] != 0 && !tmpl_equal(run, dict->at[dict->index[i] - 1].key, key))
        i = (i + 1) & dict->index_mask;
    return &dict->index[i];
}

static bool build_index(struct tmpl_run *run, struct tmpl_dict *dict)
{
    uint32_t size = 64;

    while (size < 4 * dict->n)
        size *= 2;
    uint32_t *index = weir_arena_alloc0(&run->arena, size * sizeof *index);
    if (!index)
        return tmpl_fail_mem(run);
    dict->index = index;
    dict->index_mask = size - 1;
    for (size_t i = 0; i < dict->n; i++)
        *index_slot(run, dict, dict->at[i].key) = (uint32_t)i + 1;
    return true;
}

bool tmpl_new_dict(struct tmpl_run *run, enum tmpl_kind kind, struct tmpl_value *ret)
{
    struct tmpl_dict *dict = weir_arena_alloc0(&run->arena, sizeof *dict);

    if (!dict)
        return tmpl_fail_mem(run);
    *ret = (struct tmpl_value){ .kind = kind, .dict = dict };
    return true;
}

static struct tmpl_pair *find_pair(struct tmpl_run *run, const struct tmpl_dict *dict, struct tmpl_value key)
{
    if (dict->index) {
        uint32_t i = *index_slot(run, dict, key);
        return i ? &dict->at[i - 1] : NULL;
    }
    for (size_t i = 0; i < dict->n; i++)
        if (tmpl_equal(run, dict->at[i].key, key))
            return &dict->at[i];
    return NULL;
}

const struct tmpl_value *tmpl_dict_get(struct tmpl_run *run, const struct tmpl_dict *dict,
                                       struct tmpl_value key)
{
    const struct tmpl_pair *pair = find_pair(run, dict, key);

    return pair ? &pair->value : NULL;
}

bool tmpl_dict_set(struct tmpl_run *run, struct tmpl_dict *dict, struct tmpl_value key,
                   struct tmpl_value value)
{
    struct tmpl_pair *pair = find_pair(run, dict, key);
    void *at = dict->at;

    if (!tmpl_tick(run, 0))
        return false;
    if (key.kind == TMPL_LIST || key.kind == TMPL_DICT)
        return tmpl_fail(run, WEIR_INVALID, "a %s can't be a key", tmpl_type_name(key));
    if (pair) {
        pair->value = value;
        return true;
    }
    if (!grow(run, &at, dict->n, &dict->cap, sizeof *dict->at))
        return false;
    dict->at = at;
    dict->at[dict->n++] = (struct tmpl_pair){ key, value };
    if (dict->index && 2 * dict->n <= dict->index_mask) {
        *index_slot(run, dict, key) = (uint32_t)dict->n;
        return true;
    }
    return dict->n <= DICT_SMALL || build_index(run, dict);
}

bool tmpl_pairs(struct tmpl_run *run, const struct tmpl_dict *dict, struct tmpl_value *ret)
{
    struct tmpl_value pair;

    if (!tmpl_new_list(run, TMPL_LIST, ret))
        return false;
    for (size_t i = 0; i < dict->n; i++)
        if (!tmpl_new_list(run, TMPL_TUPLE, &pair) || !tmpl_push(run, pair.list, dict->at[i].key) ||
            !tmpl_push(run, pair.list, dict->at[i].value) || !tmpl_push(run, ret->list, pair))
            return false;
    return true;
}

/* ---- equality and order ---- */

static bool equal_at(struct tmpl_run *run, struct tmpl_value a, struct tmpl_value b, int depth);

static bool equal_lists(struct tmpl_run *run, const struct tmpl_list *a, const struct tmpl_list *b, int depth)
{
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n; i++)
        if (!equal_at(run, a->at[i], b->at[i], depth + 1))
            return false;
    return true;
}

static bool equal_dicts(struct tmpl_run *run, const struct tmpl_dict *a, const struct tmpl_dict *b, int depth)
{
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n; i++) {
        const struct tmpl_value *other = tmpl_dict_get(run, b, a->at[i].key);
        if (!other || !equal_at(run, a->at[i].value, *other, depth + 1))
            return false;
    }
    return true;
}

static bool equal_at(struct tmpl_run *run, struct tmpl_value a, struct tmpl_value b, int depth)
{
    double x, y;

    if (depth > TMPL_DEPTH_MAX || !tmpl_tick(run, a.kind == TMPL_STR ? a.str.len : 0))
        return false;
    if (a.kind == TMPL_INT && b.kind == TMPL_INT)
        return a.i == b.i;
    if (tmpl_number(a, &x) && tmpl_number(b, &y))
        return x == y;
    if (a.kind != b.kind)
        return false;
    switch (a.kind) {
    case TMPL_STR:
        return a.str.len == b.str.len && (a.str.len == 0 || memcmp(a.str.ptr, b.str.ptr, a.str.len) == 0);
    case TMPL_LIST:
    case TMPL_TUPLE:
        return a.list == b.list || equal_lists(run, a.list, b.list, depth);
    case TMPL_DICT:
        return a.dict == b.dict || equal_dicts(run, a.dict, b.dict, depth);
    case TMPL_GENERATOR:
        return a.list == b.list;
    case TMPL_NAMESPACE:
        return a.dict == b.dict;
    case TMPL_MACRO:
        return a.macro == b.macro;
    case TMPL_FUNC:
        return a.func == b.func;
    case TMPL_METHOD:
        return a.bound == b.bound;
    case TMPL_LOOP:
        return a.loop == b.loop;
    default:
        return true; /* None is None; undefined equals undefined */
    }
}

bool tmpl_equal(struct tmpl_run *run, struct tmpl_value a, struct tmpl_value b)
{
    return equal_at(run, a, b, 0);
}

/* UTF-8 sorts by bytes as by characters. */
static int order_strings(struct weir_str a, struct weir_str b)
{
    size_t n = a.len < b.len ? a.len : b.len;
    int order = n ? memcmp(a.ptr, b.ptr, n) : 0;

    if (order == 0)
        order = (a.len > b.len) - (a.len < b.len);
    return (order > 0) - (order < 0);
}

bool tmpl_order(struct tmpl_run *run, struct tmpl_value a, struct tmpl_value b, int *ret)
{
    double x, y;
    bool same = a.kind == b.kind;

    if (!tmpl_tick(run, same && a.kind == TMPL_STR ? (a.str.len < b.str.len ? a.str.len : b.str.len) : 0))
        return false;
    if (a.kind == TMPL_INT && b.kind == TMPL_INT) {
        *ret = (a.i > b.i) - (a.i < b.i);
        return true;
    }
    if (tmpl_number(a, &x) && tmpl_number(b, &y)) {
        *ret = (x > y) - (x < y);
        return true;
    }
    if (same && a.kind == TMPL_STR) {
        *ret = order_strings(a.str, b.str);
        return true;
    }
    if (!same || (a.kind != TMPL_LIST && a.kind != TMPL_TUPLE))
        return tmpl_fail(run, WEIR_INVALID, "'%s' and '%s' can't be ordered", tmpl_type_name(a),
                         tmpl_type_name(b));
    if (run->depth >= TMPL_DEPTH_MAX)
        return tmpl_fail(run, WEIR_TOOLARGE, "nested too deep");
    for (size_t i = 0; i < a.list->n && i < b.list->n; i++) {
        if (tmpl_equal(run, a.list->at[i], b.list->at[i]))
            continue;
        run->depth++;
        bool ok = tmpl_order(run, a.list->at[i], b.list->at[i], ret);
        run->depth--;
        return ok;
    }
    *ret = (a.list->n > b.list->n) - (a.list->n < b.list->n);
    return true;
}

/* Looking takes the items, up to the one that is found. */
static bool generator_contains(struct tmpl_run *run, struct tmpl_value item, struct tmpl_list *in, bool *ret)
{
    while (in->n > 0 && !*ret) {
        *ret = tmpl_equal(run, item, *in->at++);
        in->n--;
    }
    return run->err == WEIR_OK;
}

bool tmpl_contains(struct tmpl_run *run, struct tmpl_value item, struct tmpl_value in, bool *ret)
{
    *ret = false;
    switch (in.kind) {
    case TMPL_UNDEF:
        return true;
    case TMPL_STR:
        if (item.kind != TMPL_STR)
            return tmpl_fail(run, WEIR_INVALID, "'in <string>' needs a string, not '%s'",
                             tmpl_type_name(item));
        *ret = item.str.len == 0 || memmem(in.str.ptr, in.str.len, item.str.ptr, item.str.len);
        return tmpl_tick(run, in.str.len);
    case TMPL_LIST:
    case TMPL_TUPLE:
        for (size_t i = 0; i < in.list->n && !*ret; i++)
            *ret = tmpl_equal(run, item, in.list->at[i]);
        return tmpl_tick(run, in.list->n * sizeof item);
    case TMPL_GENERATOR:
        return generator_contains(run, item, in.list, ret);
    case TMPL_DICT:
        if (item.kind == TMPL_LIST || item.kind == TMPL_DICT)
            return tmpl_fail(run, WEIR_INVALID, "a '%s' can't be a key", tmpl_type_name(item));
        *ret = tmpl_dict_get(run, in.dict, item) != NULL;
        return tmpl_tick(run, 0);
    default:
        return tmpl_fail(run, WEIR_INVALID, "a '%s' contains nothing", tmpl_type_name(in));
    }
}

bool tmpl_length(struct tmpl_run *run, struct tmpl_value v, size_t *ret)
{
    switch (v.kind) {
    case TMPL_UNDEF:
        *ret = 0;
        return true;
    case TMPL_STR:
        *ret = tmpl_chars(v.str);
        return tmpl_tick(run, v.str.len);
    case TMPL_LIST:
    case TMPL_TUPLE:
        *ret = v.list->n;
        return true;
    case TMPL_DICT:
        *ret = v.dict->n;
        return true;
    default:
        return tmpl_fail(run, WEIR_INVALID, "a '%s' has no length", tmpl_type_name(v));
    }
}

bool tmpl_items(struct tmpl_run *run, struct tmpl_value v, const struct tmpl_list **ret)
{
    static const struct tmpl_list none;
    struct tmpl_value list = { 0 };

    if (v.kind == TMPL_UNDEF) {
        *ret = &none;
        return true;
    }
    if (v.kind == TMPL_LIST || v.kind == TMPL_TUPLE) {
        *ret = v.list;
        return true;
    }
    if (v.kind == TMPL_GENERATOR) {
        if (!tmpl_new_list(run, TMPL_LIST, &list))
            return false;
        *list.list = *v.list;
        *v.list = none;
        *ret = list.list;
        return true;
    }
    if (v.kind != TMPL_STR && v.kind != TMPL_DICT)
        return tmpl_fail(run, WEIR_INVALID, "a '%s' is not iterable", tmpl_type_name(v));
    if (!tmpl_new_list(run, TMPL_LIST, &list))
        return false;
    if (v.kind == TMPL_DICT) {
        for (size_t i = 0; i < v.dict->n; i++)
            if (!tmpl_push(run, list.list, v.dict->at[i].key))
                return false;
    } else {
        for (size_t i = 0; i < v.str.len;) {
            uint32_t c;
            size_t n = tmpl_char_at(v.str, i, &c);
            if (!tmpl_push(run, list.list, tmpl_str((struct weir_str){ v.str.ptr + i, n })))
                return false;
            i += n;
        }
    }
    *ret = list.list;
    return true;
}

/* ---- attributes and items ---- */

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
        *ret = tmpl_int(1);
    else if (weir_str_eq(name, "depth0"))
        *ret = tmpl_int(0);
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
    if (of.kind == TMPL_LOOP && loop_attr(of.loop, name, ret))
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
    if (v.kind == TMPL_NONE || v.kind == TMPL_UNSET) {
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

/* ---- from JSON ---- */

static bool json_value(struct tmpl_run *run, struct weir_json *j, struct tmpl_value *ret);

static bool json_dict(struct tmpl_run *run, struct weir_json *j, struct tmpl_value *ret)
{
    struct weir_str key;
    struct tmpl_value value;

    if (!tmpl_new_dict(run, TMPL_DICT, ret) || !weir_json_object(j))
        return false;
    while (weir_json_key(j, &key))
        if (!tmpl_give(run, key) || !json_value(run, j, &value) ||
            !tmpl_dict_set(run, ret->dict, tmpl_str(key), value))
            return false;
    return weir_json_ok(j);
}

static bool json_list(struct tmpl_run *run, struct weir_json *j, struct tmpl_value *ret)
{
    struct tmpl_value value;

    if (!tmpl_new_list(run, TMPL_LIST, ret) || !weir_json_array(j))
        return false;
    while (weir_json_next(j))
        if (!json_value(run, j, &value) || !tmpl_push(run, ret->list, value))
            return false;
    return weir_json_ok(j);
}

static bool json_number(struct weir_json *j, struct tmpl_value *ret)
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

static bool json_value(struct tmpl_run *run, struct weir_json *j, struct tmpl_value *ret)
{
    struct weir_str s;
    bool b;

    switch (weir_json_peek(j)) {
    case WEIR_JSON_OBJECT:
        return json_dict(run, j, ret);
    case WEIR_JSON_ARRAY:
        return json_list(run, j, ret);
    case WEIR_JSON_STRING:
        if (!weir_json_string(j, &s))
            return false;
        *ret = tmpl_str(s);
        return tmpl_give(run, s);
    case WEIR_JSON_NUMBER:
        return json_number(j, ret);
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
    json_value(run, &j, ret);
    weir_err err = run->err == WEIR_OK ? weir_json_end(&j, &why) : run->err;
    if (run->err == WEIR_OK && err != WEIR_OK)
        tmpl_fail(run, err, "%s", why.text);
    return run->err == WEIR_OK;
}
