/* tmpl_run.c - statements.
 *
 * Scopes are jinja2's: an "if" shares its surroundings; each turn of a loop, a macro call, a block set and
 * the like have their own, which read outwards and write inwards. A macro sees the scope that it was defined
 * in, as it is when it is called. What a body prints goes to run->out; a capture puts a buffer of its own
 * there. */
#include "replica/text/tmpl_int.h"

#include <string.h>

#include "replica/text/text_int.h"

enum { CALL_DEPTH = 8 }; /* a call of a macro or a loop takes more stack than an expression */
enum flow { FLOW_ON, FLOW_BREAK, FLOW_CONTINUE, FLOW_FAILED };

static enum flow exec_body(struct tmpl_run *run, const struct tmpl_node *body, struct tmpl_scope *scope);

static enum flow flow_of(bool ok)
{
    return ok ? FLOW_ON : FLOW_FAILED;
}

/* ---- variables ---- */

bool tmpl_set_var(struct tmpl_run *run, struct tmpl_scope *scope, uint32_t name, struct tmpl_value value)
{
    size_t n_seen = 0;

    for (struct tmpl_var *var = scope->vars; var; var = var->next, n_seen++) {
        if (var->name == name) {
            var->value = value;
            return tmpl_tick(run, n_seen);
        }
    }
    struct tmpl_var *var = weir_arena_alloc(&run->arena, sizeof *var);
    if (!var)
        return tmpl_fail_mem(run);
    *var = (struct tmpl_var){ name, value, scope->vars };
    scope->vars = var;
    return tmpl_tick(run, n_seen);
}

static struct tmpl_scope *new_scope(struct tmpl_run *run, struct tmpl_scope *parent)
{
    struct tmpl_scope *scope = weir_arena_alloc(&run->arena, sizeof *scope);

    if (!scope) {
        tmpl_fail_mem(run);
        return NULL;
    }
    *scope = (struct tmpl_scope){ parent, NULL };
    return scope;
}

static bool assign_attr(struct tmpl_run *run, const struct tmpl_node *target, struct tmpl_scope *scope,
                        struct tmpl_value value)
{
    struct tmpl_value ns;

    if (!tmpl_eval(run, target->a, scope, &ns))
        return false;
    if (ns.kind != TMPL_NAMESPACE)
        return tmpl_fail(run, WEIR_INVALID, "only a namespace's attributes can be set, not those of a '%s'",
                         tmpl_type_name(ns));
    return tmpl_dict_set(run, ns.dict, tmpl_str(target->str), value);
}

static bool assign(struct tmpl_run *run, const struct tmpl_node *target, struct tmpl_scope *scope,
                   struct tmpl_value value)
{
    const struct tmpl_list *items;
    size_t n = 0;

    if (target->kind == TMPL_N_NAME)
        return tmpl_set_var(run, scope, target->name, value);
    if (target->kind == TMPL_N_ATTR)
        return assign_attr(run, target, scope, value);
    if (!tmpl_items(run, value, &items))
        return false;
    for (const struct tmpl_node *part = target->a; part; part = part->next)
        n++;
    if (n != items->n)
        return tmpl_fail(run, WEIR_INVALID, "%zu values for %zu names", items->n, n);
    n = 0;
    for (const struct tmpl_node *part = target->a; part; part = part->next)
        if (!assign(run, part, scope, items->at[n++]))
            return false;
    return true;
}

/* A capture's text; `flow` is how it went. */
static bool end_capture(struct tmpl_run *run, struct weir_buf *outer, struct weir_buf *own, enum flow flow,
                        struct tmpl_value *ret)
{
    run->out = outer;
    if (flow != FLOW_FAILED)
        return tmpl_take(run, own, ret);
    weir_buf_release(own);
    return false;
}

/* Runs `body` with its text going into *ret. */
static bool capture(struct tmpl_run *run, const struct tmpl_node *body, struct tmpl_scope *scope,
                    struct tmpl_value *ret)
{
    struct weir_buf *outer = run->out, own;

    weir_buf_init(&own, TMPL_RUN_BYTES_MAX);
    run->out = &own;
    enum flow flow = exec_body(run, body, scope);
    return end_capture(run, outer, &own, flow, ret);
}

/* ---- loops ---- */

/* The items that pass the loop's "if". */
static bool filter_items(struct tmpl_run *run, const struct tmpl_node *node, struct tmpl_scope *scope,
                         const struct tmpl_list *items, const struct tmpl_list **ret)
{
    struct tmpl_value kept, test;

    if (!tmpl_new_list(run, TMPL_LIST, &kept))
        return false;
    for (size_t i = 0; i < items->n; i++) {
        struct tmpl_scope *inner = new_scope(run, scope);
        if (!inner || !assign(run, node->target, inner, items->at[i]) ||
            !tmpl_eval(run, node->b, inner, &test))
            return false;
        if (tmpl_truth(test) && !tmpl_push(run, kept.list, items->at[i]))
            return false;
    }
    *ret = kept.list;
    return true;
}

static enum flow run_loop(struct tmpl_run *run, const struct tmpl_node *node, struct tmpl_scope *scope,
                          struct tmpl_value over, int64_t depth)
{
    const struct tmpl_list *items;
    struct tmpl_loop *loop = weir_arena_alloc0(&run->arena, sizeof *loop);

    if (!loop)
        return flow_of(tmpl_fail_mem(run));
    if (!tmpl_items(run, over, &items) || (node->b && !filter_items(run, node, scope, items, &items)))
        return FLOW_FAILED;
    *loop = (struct tmpl_loop){
        .node = node, .scope = scope, .items = items, .depth = depth, .changed = { .kind = TMPL_UNSET }
    };
    for (loop->i = 0; loop->i < items->n; loop->i++) {
        struct tmpl_scope *inner = new_scope(run, scope);
        struct tmpl_value self = { .kind = TMPL_LOOP, .loop = loop };
        if (!inner || !tmpl_set_var(run, inner, run->tmpl->loop, self) ||
            !assign(run, node->target, inner, items->at[loop->i]))
            return FLOW_FAILED;
        enum flow flow = exec_body(run, node->c, inner);
        if (flow == FLOW_FAILED)
            return FLOW_FAILED;
        if (flow == FLOW_BREAK)
            break;
    }
    if (loop->i == items->n && items->n > 0)
        loop->i--; /* whoever kept the loop sees its last turn */
    if (items->n > 0 || !node->d)
        return FLOW_ON;
    struct tmpl_scope *inner = new_scope(run, scope);
    return inner ? exec_body(run, node->d, inner) : FLOW_FAILED;
}

static enum flow exec_for(struct tmpl_run *run, const struct tmpl_node *node, struct tmpl_scope *scope)
{
    struct tmpl_value over;

    return tmpl_eval(run, node->a, scope, &over) ? run_loop(run, node, scope, over, /* depth= */ 0)
                                                 : FLOW_FAILED;
}

static bool enter_call(struct tmpl_run *run, const char *what)
{
    if (run->depth + CALL_DEPTH >= TMPL_DEPTH_MAX)
        return tmpl_fail(run, WEIR_TOOLARGE, "%s call each other too deep", what);
    run->depth += CALL_DEPTH;
    return true;
}

bool tmpl_call_loop(struct tmpl_run *run, const struct tmpl_loop *loop, const struct tmpl_args *args,
                    struct tmpl_value *ret)
{
    struct tmpl_value argv[TMPL_PARAMS_MAX];
    struct weir_buf *outer = run->out, own;
    uint32_t line = run->line;

    if (!tmpl_bind(run, "loop", "iterable", args, argv))
        return false;
    if (!loop->node->op)
        return tmpl_fail(run, WEIR_INVALID, "loop(): the loop is not marked \"recursive\"");
    if (argv[0].kind == TMPL_UNSET)
        return tmpl_fail(run, WEIR_INVALID, "loop(): the items are missing");
    if (!enter_call(run, "loops"))
        return false;
    weir_buf_init(&own, TMPL_RUN_BYTES_MAX);
    run->out = &own;
    enum flow flow = run_loop(run, loop->node, loop->scope, argv[0], loop->depth + 1);
    run->depth -= CALL_DEPTH;
    run->line = flow == FLOW_FAILED ? run->line : line;
    return end_capture(run, outer, &own, flow, ret);
}

/* ---- macros ---- */

static bool set_extra(struct tmpl_run *run, const struct tmpl_node *node, const struct tmpl_args *args,
                      int n_params, const bool *used, struct tmpl_scope *scope)
{
    struct tmpl_value varargs, kwargs, caller = tmpl_undef(WEIR_STR("caller"));

    if (!tmpl_new_list(run, TMPL_TUPLE, &varargs) || !tmpl_new_dict(run, TMPL_DICT, &kwargs))
        return false;
    for (int i = 0; i < args->n; i++) {
        if (used[i])
            continue;
        if (i < args->n_positional) {
            if (!node->takes_varargs)
                return tmpl_fail(run, WEIR_INVALID, "the macro \"%.*s\" takes %d arguments",
                                 TEXT_SHORT(node->str), n_params);
            if (!tmpl_push(run, varargs.list, args->at[i]))
                return false;
        } else if (weir_str_eq(args->keys[i], "caller") && node->takes_caller) {
            caller = args->at[i];
        } else if (!node->takes_kwargs) {
            return tmpl_fail(run, WEIR_INVALID, "the macro \"%.*s\" takes no \"%.*s\"", TEXT_SHORT(node->str),
                             TEXT_SHORT(args->keys[i]));
        } else if (!tmpl_dict_set(run, kwargs.dict, tmpl_str(args->keys[i]), args->at[i])) {
            return false;
        }
    }
    return (!node->takes_varargs || tmpl_set_var(run, scope, run->tmpl->varargs, varargs)) &&
           (!node->takes_kwargs || tmpl_set_var(run, scope, run->tmpl->kwargs, kwargs)) &&
           (!node->takes_caller || tmpl_set_var(run, scope, run->tmpl->caller, caller));
}

static bool same(struct weir_str a, struct weir_str b)
{
    return a.len == b.len && memcmp(a.ptr, b.ptr, a.len) == 0;
}

static bool bind_params(struct tmpl_run *run, const struct tmpl_node *node, const struct tmpl_args *args,
                        struct tmpl_scope *scope)
{
    bool used[TMPL_ARGS_MAX] = { false };
    int i = 0;

    for (const struct tmpl_node *param = node->a; param; param = param->next, i++) {
        struct tmpl_value value = tmpl_undef(param->str);
        int at = i < args->n_positional ? i : -1;
        for (int k = args->n_positional; at < 0 && k < args->n; k++)
            if (same(args->keys[k], param->str))
                at = k;
        if (at >= 0) {
            used[at] = true;
            value = args->at[at];
        } else if (param->a && !tmpl_eval(run, param->a, scope, &value)) {
            return false;
        }
        if (!tmpl_set_var(run, scope, param->name, value))
            return false;
    }
    return set_extra(run, node, args, i, used, scope);
}

bool tmpl_call_macro(struct tmpl_run *run, const struct tmpl_macro *macro, const struct tmpl_args *args,
                     struct tmpl_value *ret)
{
    struct tmpl_scope *scope = new_scope(run, macro->scope);
    uint32_t line = run->line;

    if (!scope)
        return false;
    if (!enter_call(run, "macros"))
        return false;
    bool ok = bind_params(run, macro->node, args, scope) && capture(run, macro->node->b, scope, ret);
    run->depth -= CALL_DEPTH;
    if (ok)
        run->line = line;
    return ok;
}

static bool make_macro(struct tmpl_run *run, const struct tmpl_node *node, struct tmpl_scope *scope,
                       struct tmpl_value *ret)
{
    struct tmpl_macro *macro = weir_arena_alloc(&run->arena, sizeof *macro);

    if (!macro)
        return tmpl_fail_mem(run);
    *macro = (struct tmpl_macro){ node, scope };
    *ret = (struct tmpl_value){ .kind = TMPL_MACRO, .macro = macro };
    return true;
}

/* {% call m(x) %}body{% endcall %}: m gets the body as `caller`. */
static bool exec_call_block(struct tmpl_run *run, const struct tmpl_node *node, struct tmpl_scope *scope)
{
    struct tmpl_value fn, caller, text;
    struct tmpl_args args;

    if (!make_macro(run, node->b, scope, &caller) || !tmpl_eval(run, node->a->a, scope, &fn) ||
        !tmpl_eval_args(run, node->a->b, scope, &args))
        return false;
    if (args.n == TMPL_ARGS_MAX)
        return tmpl_fail(run, WEIR_TOOLARGE, "more than %d arguments", TMPL_ARGS_MAX);
    args.keys[args.n] = WEIR_STR("caller");
    args.at[args.n++] = caller;
    return tmpl_call(run, fn, &args, &text) && tmpl_print(run, text, run->out);
}

/* ---- statements ---- */

static bool exec_set_block(struct tmpl_run *run, const struct tmpl_node *node, struct tmpl_scope *scope)
{
    struct tmpl_scope *inner = new_scope(run, scope);
    struct tmpl_value text;

    return inner && capture(run, node->b, inner, &text) &&
           (!node->a || tmpl_apply_filters(run, node->a, scope, &text)) &&
           assign(run, node->target, scope, text);
}

static bool exec_filter_block(struct tmpl_run *run, const struct tmpl_node *node, struct tmpl_scope *scope)
{
    struct tmpl_scope *inner = new_scope(run, scope);
    struct tmpl_value text;

    return inner && capture(run, node->b, inner, &text) && tmpl_apply_filters(run, node->a, scope, &text) &&
           tmpl_print(run, text, run->out);
}

static enum flow exec_with(struct tmpl_run *run, const struct tmpl_node *node, struct tmpl_scope *scope)
{
    struct tmpl_scope *inner = new_scope(run, scope);
    struct tmpl_value value;

    if (!inner)
        return FLOW_FAILED;
    for (const struct tmpl_node *set = node->a; set; set = set->next)
        if (!tmpl_eval(run, set->a, scope, &value) || !assign(run, set->target, inner, value))
            return FLOW_FAILED;
    return exec_body(run, node->b, inner);
}

static enum flow exec_if(struct tmpl_run *run, const struct tmpl_node *node, struct tmpl_scope *scope)
{
    struct tmpl_value test;

    for (; node && node->kind == TMPL_N_IF; node = node->c) {
        run->line = node->line;
        if (!tmpl_eval(run, node->a, scope, &test))
            return FLOW_FAILED;
        if (tmpl_truth(test))
            return exec_body(run, node->b, scope);
        if (node->op) /* a plain "else" */
            return exec_body(run, node->c, scope);
    }
    return FLOW_ON;
}

static enum flow exec_one(struct tmpl_run *run, const struct tmpl_node *node, struct tmpl_scope *scope)
{
    struct tmpl_value value;

    run->line = node->line;
    switch (node->kind) {
    case TMPL_N_TEXT:
        weir_buf_add(run->out, node->str.ptr, node->str.len);
        if (run->out->failed)
            return flow_of(tmpl_fail(run, WEIR_TOOLARGE, "the text grows past its bound"));
        return flow_of(tmpl_tick(run, node->str.len));
    case TMPL_N_PRINT:
        return flow_of(tmpl_eval(run, node->a, scope, &value) && tmpl_print(run, value, run->out));
    case TMPL_N_IF:
        return exec_if(run, node, scope);
    case TMPL_N_FOR:
        return exec_for(run, node, scope);
    case TMPL_N_SET:
        return flow_of(tmpl_eval(run, node->a, scope, &value) && assign(run, node->target, scope, value));
    case TMPL_N_SET_BLOCK:
        return flow_of(exec_set_block(run, node, scope));
    case TMPL_N_MACRO:
        return flow_of(make_macro(run, node, scope, &value) && tmpl_set_var(run, scope, node->name, value));
    case TMPL_N_CALL_BLOCK:
        return flow_of(exec_call_block(run, node, scope));
    case TMPL_N_FILTER_BLOCK:
        return flow_of(exec_filter_block(run, node, scope));
    case TMPL_N_WITH:
        return exec_with(run, node, scope);
    case TMPL_N_SCOPE: {
        struct tmpl_scope *inner = new_scope(run, scope);
        return inner ? exec_body(run, node->b, inner) : FLOW_FAILED;
    }
    case TMPL_N_BREAK:
        return FLOW_BREAK;
    case TMPL_N_CONTINUE:
        return FLOW_CONTINUE;
    default:
        return flow_of(tmpl_fail(run, WEIR_INTERNAL, "an expression stands where a statement should"));
    }
}

static enum flow exec_body(struct tmpl_run *run, const struct tmpl_node *body, struct tmpl_scope *scope)
{
    enum flow flow = FLOW_ON;

    if (run->depth >= TMPL_DEPTH_MAX)
        return flow_of(tmpl_fail(run, WEIR_TOOLARGE, "nested too deep"));
    run->depth++;
    for (; body && flow == FLOW_ON; body = body->next)
        flow = tmpl_tick(run, 0) ? exec_one(run, body, scope) : FLOW_FAILED;
    run->depth--;
    return flow;
}

bool tmpl_exec(struct tmpl_run *run, const struct tmpl_node *body, struct tmpl_scope *scope)
{
    return exec_body(run, body, scope) != FLOW_FAILED;
}
