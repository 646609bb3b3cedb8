/* tmpl_operand.c - the parser's part for what operators stand between: literals, names and brackets, what comes behind them
 * (attributes, subscripts, calls), filters and tests. */
#include "replica/text/tmpl_int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "replica/text/text_int.h"

/* ---- literals and brackets ---- */

static struct tmpl_node *constant(struct tmpl_parser *p, struct tmpl_value value)
{
    struct tmpl_node *node = tmpl_node(p, TMPL_N_CONST);

    if (node)
        node->value = value;
    tmpl_next(p);
    return node;
}

static struct tmpl_node *parse_number(struct tmpl_parser *p, const struct tmpl_token *token)
{
    char text[64];
    size_t n = 0;
    int base = 10;
    char *end;

    for (size_t i = 0; i < token->str.len; i++) {
        if (token->str.ptr[i] == '_')
            continue;
        if (n == sizeof text - 1)
            return tmpl_syntax(p, WEIR_UNIMPLEMENTED, "a number of more than %zu digits", sizeof text - 1);
        text[n++] = token->str.ptr[i];
    }
    text[n] = '\0';
    if (token->kind == TMPL_T_FLOAT)
        return constant(p, tmpl_float(strtod(text, NULL)));
    if (n > 2 && text[0] == '0' && text[1] > '9')
        base = (text[1] | 32) == 'x' ? 16 : (text[1] | 32) == 'o' ? 8 : 2;
    errno = 0;
    long long i = strtoll(base == 10 ? text : text + 2, &end, base);
    if (errno || *end)
        return tmpl_syntax(p, WEIR_UNIMPLEMENTED, "the number %s is too large", text);
    return constant(p, tmpl_int(i));
}

/* Strings side by side are one. */
static struct tmpl_node *parse_string(struct tmpl_parser *p)
{
    struct weir_str all = tmpl_peek(p)->str;
    struct tmpl_node *node = constant(p, tmpl_str(all));

    while (node && tmpl_peek(p)->kind == TMPL_T_STRING) {
        struct weir_str more = tmpl_peek(p)->str;
        char *text = weir_arena_alloc(&p->tmpl->arena, all.len + more.len + 1);
        if (!text)
            return tmpl_syntax(p, WEIR_NOMEM, "no memory for the template");
        if (all.len)
            memcpy(text, all.ptr, all.len);
        if (more.len)
            memcpy(text + all.len, more.ptr, more.len);
        all = (struct weir_str){ text, all.len + more.len };
        node->value = tmpl_str(all);
        tmpl_next(p);
    }
    return node;
}

/* Elements up to the closing bracket, which is taken too. */
static bool parse_elements(struct tmpl_parser *p, const char *close, bool pairs, struct tmpl_node **ret)
{
    struct tmpl_node **tail = ret;

    while (p->err == WEIR_OK && !tmpl_skip_op(p, close)) {
        if (*ret && !tmpl_want_op(p, ","))
            return false;
        if (tmpl_skip_op(p, close))
            return true;
        for (int i = 0; i <= (pairs ? 1 : 0); i++) {
            if (i == 1 && !tmpl_want_op(p, ":"))
                return false;
            *tail = tmpl_parse_expr(p);
            if (!*tail)
                return false;
            tail = &(*tail)->next;
        }
    }
    return p->err == WEIR_OK;
}

static struct tmpl_node *parse_list(struct tmpl_parser *p)
{
    bool is_dict = tmpl_at_op(p, "{");
    struct tmpl_node *node = tmpl_node(p, is_dict ? TMPL_N_DICT : TMPL_N_LIST);

    tmpl_next(p);
    return node && parse_elements(p, is_dict ? "}" : "]", is_dict, &node->a) ? node : NULL;
}

static struct tmpl_node *parse_parens(struct tmpl_parser *p)
{
    struct tmpl_node *node;

    tmpl_next(p);
    if (tmpl_at_op(p, ")"))
        node = tmpl_node(p, TMPL_N_TUPLE);
    else
        node = tmpl_parse_tuple(p, /* with_cond= */ true);
    return node && tmpl_want_op(p, ")") ? node : NULL;
}

static struct tmpl_node *parse_name(struct tmpl_parser *p)
{
    static const struct {
        const char *name;
        int value; /* 0, 1; 2 = none */
    } words[] = {
        { "true", 1 }, { "True", 1 }, { "false", 0 }, { "False", 0 }, { "none", 2 }, { "None", 2 }
    };
    static const char *const missing[] = { "lipsum" };
    struct weir_str name = tmpl_peek(p)->str;

    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (weir_str_eq(name, words[i].name))
            return constant(p, words[i].value == 2 ? tmpl_none() : tmpl_bool(words[i].value == 1));
    for (size_t i = 0; i < sizeof missing / sizeof *missing; i++)
        if (weir_str_eq(name, missing[i]))
            return tmpl_syntax(p, WEIR_UNIMPLEMENTED, "the function \"%s\" is not supported", missing[i]);
    struct tmpl_node *node = tmpl_node(p, TMPL_N_NAME);
    if (node)
        node->name = tmpl_intern(p, name);
    if (p->macro) { /* what a macro's body names decides which extra arguments it takes */
        p->macro->takes_varargs |= weir_str_eq(name, "varargs");
        p->macro->takes_kwargs |= weir_str_eq(name, "kwargs");
        p->macro->takes_caller |= weir_str_eq(name, "caller");
    }
    tmpl_next(p);
    return p->err == WEIR_OK ? node : NULL;
}

struct tmpl_node *tmpl_parse_primary(struct tmpl_parser *p)
{
    const struct tmpl_token *token = tmpl_peek(p);
    struct tmpl_node *node = NULL;

    if (!tmpl_enter(p))
        return NULL;
    if (token->kind == TMPL_T_NAME)
        node = parse_name(p);
    else if (token->kind == TMPL_T_STRING)
        node = parse_string(p);
    else if (token->kind == TMPL_T_INT || token->kind == TMPL_T_FLOAT)
        node = parse_number(p, token);
    else if (tmpl_at_op(p, "("))
        node = parse_parens(p);
    else if (tmpl_at_op(p, "[") || tmpl_at_op(p, "{"))
        node = parse_list(p);
    else
        tmpl_syntax(p, WEIR_CORRUPT, "an expression is missing");
    p->depth--;
    return node;
}

/* ---- postfix ---- */

static struct tmpl_node *parse_arg(struct tmpl_parser *p)
{
    struct tmpl_node *arg = tmpl_node(p, TMPL_N_ARG);

    if (!arg)
        return NULL;
    if (tmpl_skip_op(p, "**")) {
        arg->op = TMPL_ARG_DICT;
    } else if (tmpl_skip_op(p, "*")) {
        arg->op = TMPL_ARG_LIST;
    } else if (tmpl_peek(p)->kind == TMPL_T_NAME && p->tokens[p->at + 1].kind == TMPL_T_OP &&
               weir_str_eq(p->tokens[p->at + 1].str, "=")) {
        arg->op = TMPL_ARG_KEYWORD;
        arg->str = tmpl_peek(p)->str;
        tmpl_next(p);
        tmpl_next(p);
    }
    arg->a = tmpl_parse_expr(p);
    return arg->a ? arg : NULL;
}

bool tmpl_parse_args(struct tmpl_parser *p, struct tmpl_node **ret)
{
    struct tmpl_node **tail = ret;
    int n = 0, order = TMPL_ARG_POSITIONAL;

    while (p->err == WEIR_OK && !tmpl_skip_op(p, ")")) {
        if (*ret && !tmpl_want_op(p, ","))
            return false;
        if (tmpl_skip_op(p, ")"))
            return true;
        *tail = parse_arg(p);
        if (!*tail)
            return false;
        if ((*tail)->op == TMPL_ARG_POSITIONAL && order != TMPL_ARG_POSITIONAL)
            return tmpl_syntax(p, WEIR_CORRUPT, "a positional argument behind a keyword argument") != NULL;
        if (++n > TMPL_ARGS_MAX)
            return tmpl_syntax(p, WEIR_TOOLARGE, "more than %d arguments", TMPL_ARGS_MAX) != NULL;
        order = (*tail)->op;
        tail = &(*tail)->next;
    }
    return p->err == WEIR_OK;
}

/* [i], [a:b:c] or [i, j] */
static struct tmpl_node *parse_index(struct tmpl_parser *p)
{
    struct tmpl_node *bounds[3] = { NULL, NULL, NULL };
    int i = 0;

    while (p->err == WEIR_OK && !tmpl_at_op(p, "]")) {
        if (tmpl_at_op(p, ":")) {
            if (++i > 2)
                return tmpl_syntax(p, WEIR_CORRUPT, "a slice has three parts at most");
            tmpl_next(p);
        } else if (bounds[i]) {
            return tmpl_syntax(p, tmpl_at_op(p, ",") ? WEIR_UNIMPLEMENTED : WEIR_CORRUPT,
                               "a subscript of several parts is not supported");
        } else {
            bounds[i] = tmpl_parse_expr(p);
            if (!bounds[i])
                return NULL;
        }
    }
    tmpl_next(p);
    if (i == 0)
        return bounds[0] ? bounds[0] : tmpl_syntax(p, WEIR_CORRUPT, "a subscript is empty");
    struct tmpl_node *slice = tmpl_node(p, TMPL_N_SLICE);
    if (slice) {
        slice->a = bounds[0];
        slice->b = bounds[1];
        slice->c = bounds[2];
    }
    return slice;
}

static struct tmpl_node *parse_dot(struct tmpl_parser *p, struct tmpl_node *of)
{
    const struct tmpl_token *token = tmpl_peek(p);
    struct tmpl_node *node = tmpl_node(p, token->kind == TMPL_T_INT ? TMPL_N_ITEM : TMPL_N_ATTR);

    if (!node)
        return NULL;
    node->a = of;
    if (token->kind == TMPL_T_INT) {
        node->b = parse_number(p, token);
        return node->b ? node : NULL;
    }
    if (token->kind != TMPL_T_NAME)
        return tmpl_syntax(p, WEIR_CORRUPT, "a name is missing behind the dot");
    node->str = token->str;
    tmpl_next(p);
    return node;
}

static struct tmpl_node *parse_call(struct tmpl_parser *p, struct tmpl_node *of)
{
    struct tmpl_node *node = tmpl_node(p, TMPL_N_CALL);

    if (!node)
        return NULL;
    node->a = of;
    return tmpl_parse_args(p, &node->b) ? node : NULL;
}

struct tmpl_node *tmpl_parse_postfix(struct tmpl_parser *p, struct tmpl_node *of)
{
    while (of && p->err == WEIR_OK) {
        if (tmpl_skip_op(p, "."))
            of = parse_dot(p, of);
        else if (tmpl_skip_op(p, "["))
            of = tmpl_node_two(p, TMPL_N_ITEM, of, parse_index(p));
        else if (tmpl_skip_op(p, "("))
            of = parse_call(p, of);
        else
            return of;
    }
    return NULL;
}

/* ---- filters and tests ---- */

static struct tmpl_node *parse_filter(struct tmpl_parser *p, struct tmpl_node *of)
{
    const struct tmpl_token *token = tmpl_peek(p);
    struct tmpl_node *node = tmpl_node(p, TMPL_N_FILTER);

    if (!node)
        return NULL;
    if (token->kind != TMPL_T_NAME)
        return tmpl_syntax(p, WEIR_CORRUPT, "a filter's name is missing");
    node->a = of;
    node->filter = tmpl_find_filter(token->str);
    if (!node->filter)
        return tmpl_syntax(p, WEIR_UNIMPLEMENTED, "the filter \"%.*s\" is not supported",
                           TEXT_SHORT(token->str));
    tmpl_next(p);
    if (tmpl_skip_op(p, "(") && !tmpl_parse_args(p, &node->b))
        return NULL;
    return node;
}

/* A test's argument without brackets: "is divisibleby 3". */
static bool bare_arg_follows(const struct tmpl_parser *p)
{
    static const char *const words[] = { "else", "or", "and", "if", "in", "not", "is" };
    const struct tmpl_token *token = tmpl_peek(p);

    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (tmpl_at_name(p, words[i]))
            return false;
    return token->kind == TMPL_T_NAME || token->kind == TMPL_T_STRING || token->kind == TMPL_T_INT ||
           token->kind == TMPL_T_FLOAT || tmpl_at_op(p, "[") || tmpl_at_op(p, "{");
}

static struct tmpl_node *parse_test(struct tmpl_parser *p, struct tmpl_node *of)
{
    bool negated = tmpl_skip_name(p, "not");
    const struct tmpl_token *token = tmpl_peek(p);
    struct tmpl_node *node = tmpl_node(p, TMPL_N_TEST);

    if (!node)
        return NULL;
    if (token->kind != TMPL_T_NAME)
        return tmpl_syntax(p, WEIR_CORRUPT, "a test's name is missing");
    node->a = of;
    node->test = tmpl_find_test(token->str);
    if (!node->test)
        return tmpl_syntax(p, WEIR_UNIMPLEMENTED, "the test \"%.*s\" is not supported",
                           TEXT_SHORT(token->str));
    tmpl_next(p);
    if (tmpl_skip_op(p, "(")) {
        if (!tmpl_parse_args(p, &node->b))
            return NULL;
    } else if (bare_arg_follows(p)) {
        node->b = tmpl_node(p, TMPL_N_ARG);
        if (!node->b)
            return NULL;
        node->b->a = tmpl_parse_postfix(p, tmpl_parse_primary(p));
        if (!node->b->a)
            return NULL;
    }
    if (!negated)
        return node;
    struct tmpl_node *not_node = tmpl_node(p, TMPL_N_NOT);
    if (not_node)
        not_node->a = node;
    return not_node;
}

struct tmpl_node *tmpl_parse_filters(struct tmpl_parser *p, struct tmpl_node *of, bool bare)
{
    if (bare)
        of = parse_filter(p, of);
    while (of && p->err == WEIR_OK) {
        if (tmpl_skip_op(p, "|"))
            of = parse_filter(p, of);
        else if (!bare && tmpl_skip_name(p, "is"))
            of = parse_test(p, of);
        else if (tmpl_skip_op(p, "(")) /* the result of a filter is called */
            of = parse_call(p, of);
        else
            return of;
    }
    return NULL;
}
