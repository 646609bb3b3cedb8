/* tmpl_value.c - values as Python has them: truth, equality, order, membership, length.
 *
 * Numbers are 64-bit integers and doubles; an integer that would need more is an error. Strings count
 * characters, not bytes. Comparing nested values costs steps and stops at TMPL_DEPTH_MAX: values may share
 * parts, so that few steps build what takes for ever to walk. */
#include "replica/text/tmpl_int.h"

#include <string.h>

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
        [TMPL_CYCLER] = "Cycler",    [TMPL_JOINER] = "Joiner",
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
    case TMPL_CYCLER:
        return a.cycler == b.cycler;
    case TMPL_JOINER:
        return a.joiner == b.joiner;
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

bool tmpl_compare(struct tmpl_run *run, enum tmpl_op op, struct tmpl_value a, struct tmpl_value b, bool *ret)
{
    int order = 0;

    if (op == TMPL_OP_EQ || op == TMPL_OP_NE) {
        *ret = tmpl_equal(run, a, b) == (op == TMPL_OP_EQ);
        return run->err == WEIR_OK;
    }
    if (op == TMPL_OP_IN || op == TMPL_OP_NOT_IN) {
        bool ok = tmpl_contains(run, a, b, ret);
        *ret = *ret == (op == TMPL_OP_IN);
        return ok;
    }
    if (!tmpl_order(run, a, b, &order))
        return false;
    *ret = op == TMPL_OP_LT   ? order < 0
           : op == TMPL_OP_LE ? order <= 0
           : op == TMPL_OP_GT ? order > 0
                              : order >= 0;
    return true;
}
