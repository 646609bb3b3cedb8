/* tmpl_eval.c - expressions to values.
 *
 * Each node costs a step; work on long strings costs more (tmpl_tick), so that the bound on steps is a bound
 * on time. Depth is counted here and in macro calls: the C stack is bounded by TMPL_DEPTH_MAX. */
#include "replica/text/tmpl_int.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "replica/text/text_int.h"

/* ---- failing, and what bounds a run ---- */

bool tmpl_fail(struct tmpl_run *run, weir_err err, const char *fmt, ...)
{
    char text[240];
    va_list args;

    if (run->err != WEIR_OK)
        return false;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    text[weir_utf8_cut(text, strlen(text), sizeof text - 4)] = '\0';
    run->err = weir_fail(run->why, err, "template line %u: %s", run->line, text);
    return false;
}

bool tmpl_fail_mem(struct tmpl_run *run)
{
    return tmpl_fail(run, WEIR_TOOLARGE, "the template's values take more than %zu bytes", run->arena.limit);
}

bool tmpl_tick(struct tmpl_run *run, size_t n_bytes)
{
    run->steps_left -= 1 + (int64_t)(n_bytes / 64);
    if (run->steps_left < 0)
        tmpl_fail(run, WEIR_TOOLARGE, "the template takes too many steps");
    return run->err == WEIR_OK;
}

/* ---- names ---- */

static bool eval_name(struct tmpl_run *run, uint32_t name, const struct tmpl_scope *scope,
                      struct tmpl_value *ret)
{
    size_t n_seen = 0;

    for (; scope; scope = scope->parent, n_seen++) {
        for (const struct tmpl_var *var = scope->vars; var; var = var->next, n_seen++) {
            if (var->name == name) {
                *ret = var->value;
                return tmpl_tick(run, n_seen);
            }
        }
    }
    const struct tmpl_func *func = tmpl_find_func(run->tmpl->names[name]);
    *ret = func ? (struct tmpl_value){ .kind = TMPL_FUNC, .func = func } : tmpl_undef(run->tmpl->names[name]);
    return tmpl_tick(run, n_seen);
}

/* ---- comparisons ---- */

/* a < b < c: each neighbour pair must hold; evaluation stops at the first that does not. */
static bool eval_compare(struct tmpl_run *run, const struct tmpl_node *node, struct tmpl_scope *scope,
                         struct tmpl_value *ret)
{
    struct tmpl_value left, right;
    bool holds = true;

    if (!tmpl_eval(run, node->a, scope, &left))
        return false;
    for (const struct tmpl_node *op = node->b; op && holds; op = op->next) {
        if (!tmpl_eval(run, op->a, scope, &right) || !tmpl_compare(run, op->op, left, right, &holds))
            return false;
        left = right;
    }
    *ret = tmpl_bool(holds);
    return true;
}

/* ---- literals ---- */

static bool eval_list(struct tmpl_run *run, const struct tmpl_node *node, struct tmpl_scope *scope,
                      struct tmpl_value *ret)
{
    struct tmpl_value list, item;

    if (!tmpl_new_list(run, node->kind == TMPL_N_TUPLE ? TMPL_TUPLE : TMPL_LIST, &list))
        return false;
    for (const struct tmpl_node *part = node->a; part; part = part->next)
        if (!tmpl_eval(run, part, scope, &item) || !tmpl_push(run, list.list, item))
            return false;
    *ret = list;
    return true;
}

static bool eval_dict(struct tmpl_run *run, const struct tmpl_node *node, struct tmpl_scope *scope,
                      struct tmpl_value *ret)
{
    struct tmpl_value dict, key, value;

    if (!tmpl_new_dict(run, TMPL_DICT, &dict))
        return false;
    for (const struct tmpl_node *part = node->a; part; part = part->next->next)
        if (!tmpl_eval(run, part, scope, &key) || !tmpl_eval(run, part->next, scope, &value) ||
            !tmpl_dict_set(run, dict.dict, key, value))
            return false;
    *ret = dict;
    return true;
}

/* The first part is not copied if there is room behind it: templates put texts together with ~, too. */
static bool eval_concat(struct tmpl_run *run, const struct tmpl_node *node, struct tmpl_scope *scope,
                        struct tmpl_value *ret)
{
    struct tmpl_value first, part;
    struct weir_str begin;
    struct weir_buf rest;

    if (!tmpl_eval(run, node->a, scope, &first) || !tmpl_to_str(run, first, &begin))
        return false;
    weir_buf_init(&rest, TMPL_RUN_BYTES_MAX);
    for (const struct tmpl_node *n = node->a->next; n; n = n->next) {
        if (!tmpl_eval(run, n, scope, &part) || !tmpl_print(run, part, &rest)) {
            weir_buf_release(&rest);
            return false;
        }
    }
    return tmpl_take(run, &rest, &part) && tmpl_add_strings(run, begin, part.str, ret);
}

/* ---- calls ---- */

static bool add_arg(struct tmpl_run *run, struct tmpl_args *args, struct weir_str key,
                    struct tmpl_value value)
{
    if (args->n == TMPL_ARGS_MAX)
        return tmpl_fail(run, WEIR_TOOLARGE, "more than %d arguments", TMPL_ARGS_MAX);
    args->keys[args->n] = key;
    args->at[args->n++] = value;
    if (!key.ptr)
        args->n_positional = args->n;
    return true;
}

static bool spread_list(struct tmpl_run *run, struct tmpl_args *args, struct tmpl_value v)
{
    const struct tmpl_list *items;

    if (!tmpl_items(run, v, &items))
        return false;
    for (size_t i = 0; i < items->n; i++)
        if (!add_arg(run, args, (struct weir_str){ 0 }, items->at[i]))
            return false;
    return true;
}

static bool spread_dict(struct tmpl_run *run, struct tmpl_args *args, struct tmpl_value v)
{
    if (v.kind != TMPL_DICT)
        return tmpl_fail(run, WEIR_INVALID, "'%s' behind ** is no dict", tmpl_type_name(v));
    for (size_t i = 0; i < v.dict->n; i++) {
        if (v.dict->at[i].key.kind != TMPL_STR)
            return tmpl_fail(run, WEIR_INVALID, "a keyword must be a string");
        if (!add_arg(run, args, v.dict->at[i].key.str, v.dict->at[i].value))
            return false;
    }
    return true;
}

bool tmpl_eval_args(struct tmpl_run *run, const struct tmpl_node *arg, struct tmpl_scope *scope,
                    struct tmpl_args *ret)
{
    struct tmpl_value value;

    ret->n = ret->n_positional = 0;
    for (; arg; arg = arg->next) {
        bool ok = tmpl_eval(run, arg->a, scope, &value);
        if (ok && arg->op == TMPL_ARG_LIST)
            ok = spread_list(run, ret, value);
        else if (ok && arg->op == TMPL_ARG_DICT)
            ok = spread_dict(run, ret, value);
        else if (ok)
            ok = add_arg(run, ret, arg->op == TMPL_ARG_KEYWORD ? arg->str : (struct weir_str){ 0 }, value);
        if (!ok)
            return false;
    }
    if (ret->n_positional != 0)
        for (int i = 0; i < ret->n_positional; i++)
            if (ret->keys[i].ptr)
                return tmpl_fail(run, WEIR_INVALID, "a positional argument behind a keyword argument");
    return true;
}

bool tmpl_bind(struct tmpl_run *run, const char *what, const char *params, const struct tmpl_args *args,
               struct tmpl_value argv[TMPL_PARAMS_MAX])
{
    int i = 0, n_used = 0;

    for (int k = 0; k < TMPL_PARAMS_MAX; k++)
        argv[k] = (struct tmpl_value){ .kind = TMPL_UNSET };
    if (params[0] == '*')
        return true;
    for (const char *name = params; *name; i++) {
        struct weir_str param = { name, strcspn(name, ",") };
        if (i < args->n_positional) {
            argv[i] = args->at[i];
            n_used++;
        }
        for (int k = args->n_positional; k < args->n; k++) {
            if (args->keys[k].len == param.len && memcmp(args->keys[k].ptr, param.ptr, param.len) == 0) {
                argv[i] = args->at[k];
                n_used++;
            }
        }
        name += param.len + (name[param.len] == ',');
    }
    return n_used == args->n || tmpl_fail(run, WEIR_INVALID, "%s: it takes (%s)", what, params);
}

bool tmpl_call(struct tmpl_run *run, struct tmpl_value fn, const struct tmpl_args *args,
               struct tmpl_value *ret)
{
    struct tmpl_value argv[TMPL_PARAMS_MAX];

    switch (fn.kind) {
    case TMPL_MACRO:
        return tmpl_call_macro(run, fn.macro, args, ret);
    case TMPL_FUNC:
        return tmpl_bind(run, fn.func->name, fn.func->params, args, argv) &&
               fn.func->fn(run, argv, args, ret);
    case TMPL_METHOD:
        if (!fn.bound->method->params)
            return tmpl_fail(run, WEIR_INVALID, "%s(): a template can't change its arguments",
                             fn.bound->method->name);
        return tmpl_bind(run, fn.bound->method->name, fn.bound->method->params, args, argv) &&
               fn.bound->method->fn(run, fn.bound->self, argv, args, ret);
    case TMPL_LOOP:
        return tmpl_call_loop(run, fn.loop, args, ret);
    case TMPL_JOINER:
        *ret = fn.joiner->used ? fn.joiner->separator : tmpl_str(WEIR_STR(""));
        fn.joiner->used = true;
        return args->n == 0 || tmpl_fail(run, WEIR_INVALID, "a joiner takes no arguments");
    case TMPL_UNDEF:
        return tmpl_fail(run, WEIR_INVALID, "\"%.*s\" is undefined", TEXT_SHORT(fn.str));
    default:
        return tmpl_fail(run, WEIR_INVALID, "a '%s' can't be called", tmpl_type_name(fn));
    }
}

static bool eval_call(struct tmpl_run *run, const struct tmpl_node *node, struct tmpl_scope *scope,
                      struct tmpl_value *ret)
{
    struct tmpl_value fn;
    struct tmpl_args args;

    return tmpl_eval(run, node->a, scope, &fn) && tmpl_eval_args(run, node->b, scope, &args) &&
           tmpl_call(run, fn, &args, ret);
}

bool tmpl_run_filter(struct tmpl_run *run, const struct tmpl_filter *filter, struct tmpl_value in,
                     const struct tmpl_args *args, struct tmpl_value *ret)
{
    struct tmpl_value argv[TMPL_PARAMS_MAX];

    return tmpl_bind(run, filter->name, filter->params, args, argv) && filter->fn(run, in, argv, args, ret);
}

bool tmpl_run_test(struct tmpl_run *run, const struct tmpl_test *test, struct tmpl_value in,
                   const struct tmpl_args *args, bool *ret)
{
    if (args->n != test->n_params)
        return tmpl_fail(run, WEIR_INVALID, "the test \"%s\" takes %d arguments", test->name, test->n_params);
    return tmpl_tick(run, 0) && test->fn(run, in, args->at, ret);
}

static bool eval_filter(struct tmpl_run *run, const struct tmpl_node *node, struct tmpl_scope *scope,
                        struct tmpl_value *ret)
{
    struct tmpl_value in;
    struct tmpl_args args;

    return tmpl_eval(run, node->a, scope, &in) && tmpl_eval_args(run, node->b, scope, &args) &&
           tmpl_run_filter(run, node->filter, in, &args, ret);
}

/* The chain hangs off its last filter; the first one has no input node. */
bool tmpl_apply_filters(struct tmpl_run *run, const struct tmpl_node *filter, struct tmpl_scope *scope,
                        struct tmpl_value *io)
{
    struct tmpl_args args;

    if (filter->kind != TMPL_N_FILTER)
        return tmpl_fail(run, WEIR_INVALID, "a filter is missing");
    if (filter->a && !tmpl_apply_filters(run, filter->a, scope, io))
        return false;
    struct tmpl_value in = *io;
    return tmpl_eval_args(run, filter->b, scope, &args) &&
           tmpl_run_filter(run, filter->filter, in, &args, io);
}

static bool eval_test(struct tmpl_run *run, const struct tmpl_node *node, struct tmpl_scope *scope,
                      struct tmpl_value *ret)
{
    struct tmpl_value in;
    struct tmpl_args args;
    bool holds;

    if (!tmpl_eval(run, node->a, scope, &in) || !tmpl_eval_args(run, node->b, scope, &args) ||
        !tmpl_run_test(run, node->test, in, &args, &holds))
        return false;
    *ret = tmpl_bool(holds);
    return true;
}

/* ---- the rest ---- */

static bool eval_item(struct tmpl_run *run, const struct tmpl_node *node, struct tmpl_scope *scope,
                      struct tmpl_value *ret)
{
    struct tmpl_value of, key, bounds[3];
    const struct tmpl_node *parts[3] = { node->b->a, node->b->b, node->b->c };

    if (!tmpl_eval(run, node->a, scope, &of))
        return false;
    if (node->b->kind != TMPL_N_SLICE)
        return tmpl_eval(run, node->b, scope, &key) && tmpl_get_item(run, of, key, ret);
    for (int i = 0; i < 3; i++) {
        bounds[i] = tmpl_none();
        if (parts[i] && !tmpl_eval(run, parts[i], scope, &bounds[i]))
            return false;
    }
    return tmpl_slice(run, of, bounds, ret);
}

static bool eval_logic(struct tmpl_run *run, const struct tmpl_node *node, struct tmpl_scope *scope,
                       struct tmpl_value *ret)
{
    if (!tmpl_eval(run, node->a, scope, ret))
        return false;
    if (node->kind == TMPL_N_NOT) {
        *ret = tmpl_bool(!tmpl_truth(*ret));
        return true;
    }
    bool decided = tmpl_truth(*ret) == (node->kind == TMPL_N_OR);
    return decided || tmpl_eval(run, node->b, scope, ret);
}

static bool eval_cond(struct tmpl_run *run, const struct tmpl_node *node, struct tmpl_scope *scope,
                      struct tmpl_value *ret)
{
    struct tmpl_value test;

    if (!tmpl_eval(run, node->b, scope, &test))
        return false;
    if (tmpl_truth(test))
        return tmpl_eval(run, node->a, scope, ret);
    *ret = tmpl_undef(WEIR_STR("an \"if\" without its \"else\""));
    return !node->c || tmpl_eval(run, node->c, scope, ret);
}

static bool eval_two(struct tmpl_run *run, const struct tmpl_node *node, struct tmpl_scope *scope,
                     struct tmpl_value *ret)
{
    struct tmpl_value a, b;

    return tmpl_eval(run, node->a, scope, &a) && tmpl_eval(run, node->b, scope, &b) &&
           tmpl_arith(run, node->op, a, b, ret);
}

static bool eval_any(struct tmpl_run *run, const struct tmpl_node *node, struct tmpl_scope *scope,
                     struct tmpl_value *ret)
{
    struct tmpl_value of;

    switch (node->kind) {
    case TMPL_N_CONST:
        *ret = node->value;
        return true;
    case TMPL_N_NAME:
        return eval_name(run, node->name, scope, ret);
    case TMPL_N_LIST:
    case TMPL_N_TUPLE:
        return eval_list(run, node, scope, ret);
    case TMPL_N_DICT:
        return eval_dict(run, node, scope, ret);
    case TMPL_N_ATTR:
        return tmpl_eval(run, node->a, scope, &of) && tmpl_get_attr(run, of, node->str, ret);
    case TMPL_N_ITEM:
        return eval_item(run, node, scope, ret);
    case TMPL_N_CALL:
        return eval_call(run, node, scope, ret);
    case TMPL_N_FILTER:
        return eval_filter(run, node, scope, ret);
    case TMPL_N_TEST:
        return eval_test(run, node, scope, ret);
    case TMPL_N_BINARY:
        return eval_two(run, node, scope, ret);
    case TMPL_N_COMPARE:
        return eval_compare(run, node, scope, ret);
    case TMPL_N_AND:
    case TMPL_N_OR:
    case TMPL_N_NOT:
        return eval_logic(run, node, scope, ret);
    case TMPL_N_NEG:
    case TMPL_N_POS:
        return tmpl_eval(run, node->a, scope, &of) && tmpl_negate(run, node->kind == TMPL_N_NEG, of, ret);
    case TMPL_N_COND:
        return eval_cond(run, node, scope, ret);
    case TMPL_N_CONCAT:
        return eval_concat(run, node, scope, ret);
    default:
        return tmpl_fail(run, WEIR_INVALID, "a slice stands alone");
    }
}

bool tmpl_eval(struct tmpl_run *run, const struct tmpl_node *node, struct tmpl_scope *scope,
               struct tmpl_value *ret)
{
    if (!tmpl_tick(run, 0))
        return false;
    if (run->depth >= TMPL_DEPTH_MAX)
        return tmpl_fail(run, WEIR_TOOLARGE, "nested too deep");
    run->depth++;
    bool ok = eval_any(run, node, scope, ret);
    run->depth--;
    return ok;
}
