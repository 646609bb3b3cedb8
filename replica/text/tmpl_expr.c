/* tmpl_expr.c - the parser's part for expressions: operators by jinja2's precedence, lowest first:
 *     if-else, or, and, not, comparisons (chained), + -, ~, * / // %, **, unary - +; then operands (tmpl_operand.c). */
#include "replica/text/tmpl_int.h"

static struct tmpl_node *parse_unary(struct tmpl_parser *p, bool with_filter)
{
    struct tmpl_node *node;

    if (!tmpl_enter(p))
        return NULL;
    if (tmpl_at_op(p, "-") || tmpl_at_op(p, "+")) {
        node = tmpl_node(p, tmpl_at_op(p, "-") ? TMPL_N_NEG : TMPL_N_POS);
        tmpl_next(p);
        if (node && !(node->a = parse_unary(p, /* with_filter= */ false)))
            node = NULL;
    } else {
        node = tmpl_parse_postfix(p, tmpl_parse_primary(p));
    }
    if (node && with_filter)
        node = tmpl_parse_filters(p, node, /* bare= */ false);
    p->depth--;
    return node;
}

struct op_row {
    const char *text;
    enum tmpl_op op;
};

static struct tmpl_node *parse_binary(struct tmpl_parser *p, const struct op_row *rows, int n_rows,
                                      struct tmpl_node *(*operand)(struct tmpl_parser *p))
{
    struct tmpl_node *left = operand(p);

    while (left) {
        int i = 0;
        while (i < n_rows && !tmpl_at_op(p, rows[i].text))
            i++;
        if (i == n_rows)
            return left;
        tmpl_next(p);
        left = tmpl_node_two(p, TMPL_N_BINARY, left, operand(p));
        if (left)
            left->op = (uint8_t)rows[i].op;
    }
    return NULL;
}

static struct tmpl_node *parse_operand(struct tmpl_parser *p)
{
    return parse_unary(p, /* with_filter= */ true);
}

static struct tmpl_node *parse_pow(struct tmpl_parser *p)
{
    static const struct op_row rows[] = { { "**", TMPL_OP_POW } };

    return parse_binary(p, rows, 1, parse_operand);
}

static struct tmpl_node *parse_product(struct tmpl_parser *p)
{
    static const struct op_row rows[] = {
        { "*", TMPL_OP_MUL }, { "/", TMPL_OP_DIV }, { "//", TMPL_OP_FLOORDIV }, { "%", TMPL_OP_MOD }
    };

    return parse_binary(p, rows, 4, parse_pow);
}

static struct tmpl_node *parse_concat(struct tmpl_parser *p)
{
    struct tmpl_node *first = parse_product(p);

    if (!first || !tmpl_at_op(p, "~"))
        return first;
    struct tmpl_node *node = tmpl_node(p, TMPL_N_CONCAT), *last = first;
    if (!node)
        return NULL;
    node->a = first;
    while (tmpl_skip_op(p, "~")) {
        last->next = parse_product(p);
        last = last->next;
        if (!last)
            return NULL;
    }
    return node;
}

static struct tmpl_node *parse_sum(struct tmpl_parser *p)
{
    static const struct op_row rows[] = { { "+", TMPL_OP_ADD }, { "-", TMPL_OP_SUB } };

    return parse_binary(p, rows, 2, parse_concat);
}

static bool at_comparison(const struct tmpl_parser *p, enum tmpl_op *ret, int *ret_tokens)
{
    static const struct op_row rows[] = { { "==", TMPL_OP_EQ }, { "!=", TMPL_OP_NE }, { "<", TMPL_OP_LT },
                                          { "<=", TMPL_OP_LE }, { ">", TMPL_OP_GT },  { ">=", TMPL_OP_GE } };

    *ret_tokens = 1;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (tmpl_at_op(p, rows[i].text)) {
            *ret = rows[i].op;
            return true;
        }
    }
    *ret = TMPL_OP_IN;
    if (tmpl_at_name(p, "in"))
        return true;
    *ret = TMPL_OP_NOT_IN;
    *ret_tokens = 2;
    return tmpl_at_name(p, "not") && p->tokens[p->at + 1].kind == TMPL_T_NAME &&
           weir_str_eq(p->tokens[p->at + 1].str, "in");
}

static struct tmpl_node *parse_compare(struct tmpl_parser *p)
{
    struct tmpl_node *first = parse_sum(p), *node = NULL, **tail = NULL;
    enum tmpl_op op;
    int n_tokens;

    while (first && at_comparison(p, &op, &n_tokens)) {
        if (!node) {
            node = tmpl_node(p, TMPL_N_COMPARE);
            if (!node)
                return NULL;
            node->a = first;
            tail = &node->b;
        }
        while (n_tokens-- > 0)
            tmpl_next(p);
        *tail = tmpl_node(p, TMPL_N_COMPARE_OP);
        if (!*tail || !((*tail)->a = parse_sum(p)))
            return NULL;
        (*tail)->op = (uint8_t)op;
        tail = &(*tail)->next;
    }
    return node ? node : first;
}

static struct tmpl_node *parse_not(struct tmpl_parser *p)
{
    struct tmpl_node *node = NULL;

    if (!tmpl_at_name(p, "not"))
        return parse_compare(p);
    if (!tmpl_enter(p))
        return NULL;
    tmpl_next(p);
    struct tmpl_node *of = parse_not(p);
    if (of && (node = tmpl_node(p, TMPL_N_NOT)))
        node->a = of;
    p->depth--;
    return node;
}

static struct tmpl_node *parse_and(struct tmpl_parser *p)
{
    struct tmpl_node *left = parse_not(p);

    while (left && tmpl_skip_name(p, "and"))
        left = tmpl_node_two(p, TMPL_N_AND, left, parse_not(p));
    return left;
}

struct tmpl_node *tmpl_parse_or(struct tmpl_parser *p)
{
    struct tmpl_node *left = parse_and(p);

    while (left && tmpl_skip_name(p, "or"))
        left = tmpl_node_two(p, TMPL_N_OR, left, parse_and(p));
    return left;
}

struct tmpl_node *tmpl_parse_expr(struct tmpl_parser *p)
{
    struct tmpl_node *node;

    if (!tmpl_enter(p))
        return NULL;
    node = tmpl_parse_or(p);
    while (node && tmpl_skip_name(p, "if")) {
        node = tmpl_node_two(p, TMPL_N_COND, node, tmpl_parse_or(p));
        if (node && tmpl_skip_name(p, "else") && !(node->c = tmpl_parse_expr(p)))
            node = NULL;
    }
    p->depth--;
    return node;
}

struct tmpl_node *tmpl_parse_tuple(struct tmpl_parser *p, bool with_cond)
{
    struct tmpl_node *first = with_cond ? tmpl_parse_expr(p) : tmpl_parse_or(p), *last = first;

    if (!first || !tmpl_at_op(p, ","))
        return first;
    struct tmpl_node *node = tmpl_node(p, TMPL_N_TUPLE);
    if (!node)
        return NULL;
    node->a = first;
    while (tmpl_skip_op(p, ",")) {
        enum tmpl_token_kind kind = tmpl_peek(p)->kind;
        if (kind == TMPL_T_PRINT_END || kind == TMPL_T_BLOCK_END || tmpl_at_op(p, ")"))
            break;
        last->next = with_cond ? tmpl_parse_expr(p) : tmpl_parse_or(p);
        last = last->next;
        if (!last)
            return NULL;
    }
    return node;
}
