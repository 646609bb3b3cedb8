/* tmpl_arith.c - what + - * / // % ** do to numbers, strings and lists.
 *
 * Integers have 64 bits, and more is an error.
 *   [Y1] Behind a long text there is room, so that one that is put together piece by piece (ns.text = ns.text + x) is not
 *        copied for each piece. Whoever holds the shorter text never sees what came behind it. */
#include "replica/text/tmpl_int.h"

#include <math.h>
#include <string.h>

#include "replica/text/text_int.h"

enum { GROW_BYTES_MIN = 1024 };

static bool fail_operands(struct tmpl_run *run, const char *op, struct tmpl_value a, struct tmpl_value b)
{
    if (a.kind == TMPL_UNDEF || b.kind == TMPL_UNDEF) {
        struct weir_str name = a.kind == TMPL_UNDEF ? a.str : b.str;
        return tmpl_fail(run, WEIR_INVALID, "\"%.*s\" is undefined", TEXT_SHORT(name));
    }
    return tmpl_fail(run, WEIR_INVALID, "'%s' %s '%s' is not defined", tmpl_type_name(a), op,
                     tmpl_type_name(b));
}

/* Room for `len` bytes, with as much behind it as can be had: the text may go on. */
static char *room_to_grow(struct tmpl_run *run, size_t len, size_t *ret_spare)
{
    *ret_spare = len < GROW_BYTES_MIN ? 0 : len;
    char *text = weir_arena_alloc(&run->arena, len + *ret_spare);

    if (!text && *ret_spare > 0) {
        *ret_spare = 0;
        text = weir_arena_alloc(&run->arena, len);
    }
    return text;
}

static struct tmpl_growing *growing_from(struct tmpl_run *run, struct weir_str a, size_t n_more)
{
    for (size_t i = 0; i < TMPL_GROWING_MAX; i++)
        if (a.len > 0 && run->growing[i].end == a.ptr + a.len && run->growing[i].n_spare >= n_more)
            return &run->growing[i];
    return NULL;
}

/* Copies, and what was given stays so. */
static bool copy_given(struct tmpl_run *run, char *to, struct weir_str s)
{
    struct weir_buf none;

    memcpy(to, s.ptr, s.len);
    weir_buf_init(&none, 0); /* stands for the text at `to` */
    return tmpl_note(run, &none, s) && tmpl_give_taken(run, &none, to);
}

/* [Y1] */
bool tmpl_add_strings(struct tmpl_run *run, struct weir_str a, struct weir_str b, struct tmpl_value *ret)
{
    struct tmpl_growing *growing = growing_from(run, a, b.len);
    struct weir_str empty = { "", 0 };
    char *text = (char *)a.ptr;
    size_t n_spare = 0;

    if (a.len == 0 || b.len == 0) {
        *ret = tmpl_str(a.len ? a : b.len ? b : empty);
        return tmpl_tick(run, 0);
    }
    if (!tmpl_tick(run, (growing ? 0 : a.len) + b.len))
        return false;
    if (!growing) {
        text = room_to_grow(run, a.len + b.len, &n_spare);
        if (!text)
            return tmpl_fail_mem(run);
        growing = &run->growing[run->i_growing++ % TMPL_GROWING_MAX];
        *growing = (struct tmpl_growing){ text + a.len, n_spare + b.len };
        if (!copy_given(run, text, a))
            return false;
    }
    if (!copy_given(run, text + a.len, b))
        return false;
    growing->end += b.len;
    growing->n_spare -= b.len;
    *ret = tmpl_str((struct weir_str){ text, a.len + b.len });
    return true;
}

static bool repeat(struct tmpl_run *run, struct tmpl_value v, int64_t times, struct tmpl_value *ret)
{
    struct weir_buf out;

    if (v.kind != TMPL_STR) {
        if (!tmpl_new_list(run, v.kind, ret))
            return false;
        for (int64_t i = 0; i < times && v.list->n > 0; i++)
            for (size_t k = 0; k < v.list->n; k++)
                if (!tmpl_push(run, ret->list, v.list->at[k]))
                    return false;
        return true;
    }
    weir_buf_init(&out, TMPL_RUN_BYTES_MAX);
    for (int64_t i = 0; i < times && v.str.len > 0 && !out.failed && tmpl_tick(run, v.str.len); i++)
        tmpl_put(run, &out, v.str);
    return tmpl_take(run, &out, ret) && run->err == WEIR_OK;
}

static bool add_lists(struct tmpl_run *run, struct tmpl_value a, struct tmpl_value b, struct tmpl_value *ret)
{
    if (!tmpl_new_list(run, a.kind, ret))
        return false;
    for (size_t i = 0; i < a.list->n; i++)
        if (!tmpl_push(run, ret->list, a.list->at[i]))
            return false;
    for (size_t i = 0; i < b.list->n; i++)
        if (!tmpl_push(run, ret->list, b.list->at[i]))
            return false;
    return true;
}

/* Rounds towards minus infinity, as Python does. */
static int64_t floor_div(int64_t a, int64_t b)
{
    int64_t q = a / b;

    return q - ((a % b != 0) && ((a < 0) != (b < 0)));
}

static bool int_pow(int64_t base, int64_t exp, int64_t *ret)
{
    *ret = 1;
    for (; exp > 0; exp >>= 1) {
        if ((exp & 1) && __builtin_mul_overflow(*ret, base, ret))
            return false;
        if (exp > 1 && __builtin_mul_overflow(base, base, &base))
            return false;
    }
    return true;
}

static bool int_arith(struct tmpl_run *run, enum tmpl_op op, int64_t a, int64_t b, struct tmpl_value *ret)
{
    bool over = false;
    int64_t i = 0;

    if ((op == TMPL_OP_FLOORDIV || op == TMPL_OP_MOD || op == TMPL_OP_DIV) && b == 0)
        return tmpl_fail(run, WEIR_INVALID, "division by zero");
    if (op == TMPL_OP_ADD)
        over = __builtin_add_overflow(a, b, &i);
    else if (op == TMPL_OP_SUB)
        over = __builtin_sub_overflow(a, b, &i);
    else if (op == TMPL_OP_MUL)
        over = __builtin_mul_overflow(a, b, &i);
    else if (op == TMPL_OP_POW)
        over = !int_pow(a, b, &i);
    else if (b == -1) /* INT64_MIN / -1 does not fit */
        over = op == TMPL_OP_FLOORDIV && __builtin_sub_overflow(0, a, &i);
    else if (op == TMPL_OP_FLOORDIV)
        i = floor_div(a, b);
    else
        i = a - b * floor_div(a, b);
    if (over)
        return tmpl_fail(run, WEIR_INVALID, "an integer of more than 64 bits");
    *ret = tmpl_int(i);
    return true;
}

static bool float_arith(struct tmpl_run *run, enum tmpl_op op, double a, double b, struct tmpl_value *ret)
{
    double f = 0;

    if (((op == TMPL_OP_DIV || op == TMPL_OP_FLOORDIV || op == TMPL_OP_MOD) && b == 0) ||
        (op == TMPL_OP_POW && a == 0 && b < 0))
        return tmpl_fail(run, WEIR_INVALID, "division by zero");
    if (op == TMPL_OP_ADD)
        f = a + b;
    else if (op == TMPL_OP_SUB)
        f = a - b;
    else if (op == TMPL_OP_MUL)
        f = a * b;
    else if (op == TMPL_OP_DIV)
        f = a / b;
    else if (op == TMPL_OP_FLOORDIV)
        f = floor(a / b);
    else if (op == TMPL_OP_POW)
        f = pow(a, b);
    else {
        f = fmod(a, b);
        if (f != 0 && (f < 0) != (b < 0))
            f += b;
    }
    *ret = tmpl_float(f);
    return true;
}

static bool is_list(struct tmpl_value v)
{
    return v.kind == TMPL_LIST || v.kind == TMPL_TUPLE;
}

static bool is_int(struct tmpl_value v)
{
    return v.kind == TMPL_INT || v.kind == TMPL_BOOL;
}

bool tmpl_arith(struct tmpl_run *run, enum tmpl_op op, struct tmpl_value a, struct tmpl_value b,
                struct tmpl_value *ret)
{
    static const char *const names[] = { "+", "-", "*", "/", "//", "%", "**" };
    double x, y;

    if (tmpl_number(a, &x) && tmpl_number(b, &y)) {
        bool whole = is_int(a) && is_int(b) && op != TMPL_OP_DIV && !(op == TMPL_OP_POW && y < 0);
        return whole ? int_arith(run, op, a.kind == TMPL_INT ? a.i : a.b, b.kind == TMPL_INT ? b.i : b.b, ret)
                     : float_arith(run, op, x, y, ret);
    }
    if (op == TMPL_OP_ADD && a.kind == TMPL_STR && b.kind == TMPL_STR)
        return tmpl_add_strings(run, a.str, b.str, ret);
    if (op == TMPL_OP_ADD && is_list(a) && a.kind == b.kind)
        return add_lists(run, a, b, ret);
    if (op == TMPL_OP_MUL && (a.kind == TMPL_STR || is_list(a)) && is_int(b))
        return repeat(run, a, b.kind == TMPL_INT ? b.i : b.b, ret);
    if (op == TMPL_OP_MUL && (b.kind == TMPL_STR || is_list(b)) && is_int(a))
        return repeat(run, b, a.kind == TMPL_INT ? a.i : a.b, ret);
    if (op == TMPL_OP_MOD && a.kind == TMPL_STR)
        return tmpl_percent(run, a.str, b, ret);
    return fail_operands(run, names[op], a, b);
}

bool tmpl_negate(struct tmpl_run *run, bool negate, struct tmpl_value v, struct tmpl_value *ret)
{
    if (v.kind == TMPL_FLOAT) {
        *ret = tmpl_float(negate ? -v.f : v.f);
        return true;
    }
    if (!is_int(v))
        return fail_operands(run, negate ? "-" : "+", tmpl_none(), v);
    return int_arith(run, negate ? TMPL_OP_SUB : TMPL_OP_ADD, 0, v.kind == TMPL_INT ? v.i : v.b, ret);
}
