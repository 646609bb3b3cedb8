/* tmpl_parse.c - the parser's part for statements.
 *
 * Recursive descent into a tree in the template's arena; nesting is bounded. What jinja2 has and we don't
 * (include, extends, import, block) is refused by name. */
#include "replica/text/tmpl_int.h"

#include <string.h>

#include "replica/text/text_int.h"

static struct tmpl_node *parse_statement(struct tmpl_parser *p);

static bool end_block(struct tmpl_parser *p)
{
    if (tmpl_peek(p)->kind == TMPL_T_BLOCK_END) {
        tmpl_next(p);
        return true;
    }
    tmpl_syntax(p, WEIR_CORRUPT, "the block should end here");
    return false;
}

/* Are we at {% <one of the words> ? The words: separated by spaces. */
static bool at_end_word(const struct tmpl_parser *p, const char *words)
{
    if (tmpl_peek(p)->kind != TMPL_T_BLOCK_BEGIN || p->tokens[p->at + 1].kind != TMPL_T_NAME)
        return false;
    struct weir_str name = p->tokens[p->at + 1].str;
    for (const char *word = words; *word;) {
        size_t len = strcspn(word, " ");
        if (len == name.len && memcmp(word, name.ptr, len) == 0)
            return true;
        word += len + strspn(word + len, " ");
    }
    return false;
}

static struct tmpl_node *parse_one(struct tmpl_parser *p)
{
    const struct tmpl_token *token = tmpl_peek(p);
    struct tmpl_node *node;

    if (token->kind == TMPL_T_BLOCK_BEGIN) {
        tmpl_next(p);
        return parse_statement(p);
    }
    if (token->kind == TMPL_T_TEXT) {
        node = tmpl_node(p, TMPL_N_TEXT);
        if (node)
            node->str = token->str;
        tmpl_next(p);
        return node;
    }
    tmpl_next(p); /* a print tag: the lexer makes nothing else here */
    node = tmpl_node(p, TMPL_N_PRINT);
    if (!node || !(node->a = tmpl_parse_tuple(p, /* with_cond= */ true)))
        return NULL;
    if (tmpl_peek(p)->kind != TMPL_T_PRINT_END)
        return tmpl_syntax(p, WEIR_CORRUPT, "the print tag should end here");
    tmpl_next(p);
    return node;
}

/* Statements up to a block that begins with one of the words (NULL: to the end of the source); the cursor
 * then is on that word. */
static bool parse_body(struct tmpl_parser *p, const char *words, struct tmpl_node **ret)
{
    struct tmpl_node **tail = ret;

    if (!tmpl_enter(p))
        return false;
    while (!(words && at_end_word(p, words))) {
        if (tmpl_peek(p)->kind == TMPL_T_EOF) {
            if (words)
                tmpl_syntax(p, WEIR_CORRUPT, "\"%s\" is missing", words);
            p->depth--;
            return words == NULL;
        }
        *tail = parse_one(p);
        if (!*tail)
            return false;
        tail = &(*tail)->next;
    }
    tmpl_next(p); /* the block's beginning */
    p->depth--;
    return true;
}

/* The body of a block that is closed by `word` alone. */
static bool parse_closed(struct tmpl_parser *p, const char *word, struct tmpl_node **ret)
{
    if (!end_block(p) || !parse_body(p, word, ret))
        return false;
    tmpl_next(p);
    return end_block(p);
}

static struct tmpl_node *parse_if(struct tmpl_parser *p)
{
    struct tmpl_node *node = tmpl_node(p, TMPL_N_IF), *last = node;

    while (last) {
        last->a = tmpl_parse_tuple(p, /* with_cond= */ true);
        if (!last->a || !end_block(p) || !parse_body(p, "elif else endif", &last->b))
            return NULL;
        if (tmpl_skip_name(p, "endif"))
            return end_block(p) ? node : NULL;
        if (tmpl_skip_name(p, "else")) {
            last->op = 1; /* c is a body, not the next "elif" */
            if (!end_block(p) || !parse_body(p, "endif", &last->c))
                return NULL;
            tmpl_next(p);
            return end_block(p) ? node : NULL;
        }
        tmpl_next(p); /* elif */
        last->c = tmpl_node(p, TMPL_N_IF);
        last = last->c;
    }
    return NULL;
}

/* A name, or with `ns` a namespace's attribute. */
static struct tmpl_node *parse_target_name(struct tmpl_parser *p, bool ns)
{
    const struct tmpl_token *token = tmpl_peek(p);
    struct tmpl_node *node;

    if (tmpl_skip_op(p, "(")) {
        node = tmpl_parse_tuple(p, false);
        return node && tmpl_want_op(p, ")") ? node : NULL;
    }
    if (token->kind != TMPL_T_NAME)
        return tmpl_syntax(p, WEIR_CORRUPT, "a name to assign to is missing");
    node = tmpl_node(p, TMPL_N_NAME);
    if (!node)
        return NULL;
    node->name = tmpl_intern(p, token->str);
    tmpl_next(p);
    if (!ns || !tmpl_skip_op(p, "."))
        return node;
    struct tmpl_node *attr = tmpl_node(p, TMPL_N_ATTR);
    if (!attr)
        return NULL;
    if (tmpl_peek(p)->kind != TMPL_T_NAME)
        return tmpl_syntax(p, WEIR_CORRUPT, "a name is missing behind the dot");
    attr->a = node;
    attr->str = tmpl_peek(p)->str;
    tmpl_next(p);
    return attr;
}

static bool check_target(struct tmpl_parser *p, const struct tmpl_node *target)
{
    if (target->kind == TMPL_N_NAME || (target->kind == TMPL_N_ATTR && target->a->kind == TMPL_N_NAME))
        return true;
    if (target->kind != TMPL_N_TUPLE) {
        tmpl_syntax(p, WEIR_CORRUPT, "can't assign to this");
        return false;
    }
    for (const struct tmpl_node *part = target->a; part; part = part->next)
        if (!check_target(p, part))
            return false;
    return true;
}

/* a, (b, c) */
static struct tmpl_node *parse_target(struct tmpl_parser *p, bool ns)
{
    struct tmpl_node *first = parse_target_name(p, ns), *last = first;

    if (!first || !check_target(p, first) || !tmpl_at_op(p, ","))
        return p->err == WEIR_OK ? first : NULL;
    struct tmpl_node *tuple = tmpl_node(p, TMPL_N_TUPLE);
    if (!tuple)
        return NULL;
    tuple->a = first;
    while (tmpl_skip_op(p, ",")) {
        if (tmpl_at_name(p, "in") || tmpl_at_op(p, "="))
            break;
        last->next = parse_target_name(p, ns);
        last = last->next;
        if (!last || !check_target(p, last))
            return NULL;
    }
    return tuple;
}

static struct tmpl_node *parse_for(struct tmpl_parser *p)
{
    struct tmpl_node *node = tmpl_node(p, TMPL_N_FOR);

    if (!node || !(node->target = parse_target(p, /* ns= */ false)))
        return NULL;
    if (!tmpl_skip_name(p, "in"))
        return tmpl_syntax(p, WEIR_CORRUPT, "\"in\" is missing");
    node->a = tmpl_parse_tuple(p, /* with_cond= */ false);
    if (!node->a || (tmpl_skip_name(p, "if") && !(node->b = tmpl_parse_expr(p))))
        return NULL;
    node->op = tmpl_skip_name(p, "recursive");
    p->n_loops++;
    bool ok = end_block(p) && parse_body(p, "else endfor", &node->c);
    p->n_loops--;
    if (!ok)
        return NULL;
    if (tmpl_skip_name(p, "else") && (!end_block(p) || !parse_body(p, "endfor", &node->d)))
        return NULL;
    tmpl_next(p);
    return end_block(p) ? node : NULL;
}

static struct tmpl_node *parse_set(struct tmpl_parser *p)
{
    struct tmpl_node *node = tmpl_node(p, TMPL_N_SET);

    if (!node || !(node->target = parse_target(p, /* ns= */ true)))
        return NULL;
    if (tmpl_skip_op(p, "=")) {
        node->a = tmpl_parse_tuple(p, /* with_cond= */ true);
        return node->a && end_block(p) ? node : NULL;
    }
    node->kind = TMPL_N_SET_BLOCK;
    if (tmpl_skip_op(p, "|") && !(node->a = tmpl_parse_filters(p, NULL, /* bare= */ true)))
        return NULL;
    return parse_closed(p, "endset", &node->b) ? node : NULL;
}

/* (a, b=1) behind a macro's name or {% call */
static bool parse_params(struct tmpl_parser *p, struct tmpl_node **ret)
{
    struct tmpl_node **tail = ret;
    int n = 0;

    if (!tmpl_want_op(p, "("))
        return false;
    while (p->err == WEIR_OK && !tmpl_skip_op(p, ")")) {
        if (*ret && !tmpl_want_op(p, ","))
            return false;
        if (tmpl_skip_op(p, ")"))
            return true;
        struct tmpl_node *param = tmpl_node(p, TMPL_N_PARAM);
        if (!param)
            return false;
        if (tmpl_peek(p)->kind != TMPL_T_NAME)
            return tmpl_syntax(p, WEIR_CORRUPT, "a parameter's name is missing") != NULL;
        if (++n > TMPL_ARGS_MAX)
            return tmpl_syntax(p, WEIR_TOOLARGE, "more than %d parameters", TMPL_ARGS_MAX) != NULL;
        param->str = tmpl_peek(p)->str;
        param->name = tmpl_intern(p, param->str);
        tmpl_next(p);
        if (tmpl_skip_op(p, "=") && !(param->a = tmpl_parse_expr(p)))
            return false;
        *tail = param;
        tail = &param->next;
    }
    return p->err == WEIR_OK;
}

static bool parse_macro_body(struct tmpl_parser *p, struct tmpl_node *macro, const char *end_word)
{
    struct tmpl_node *outer = p->macro;
    int n_loops = p->n_loops;

    p->macro = macro;
    p->n_loops = 0; /* break can't leave a macro */
    bool ok = parse_closed(p, end_word, &macro->b);
    p->macro = outer;
    p->n_loops = n_loops;
    return ok;
}

static struct tmpl_node *parse_macro(struct tmpl_parser *p)
{
    struct tmpl_node *node = tmpl_node(p, TMPL_N_MACRO);

    if (!node)
        return NULL;
    if (tmpl_peek(p)->kind != TMPL_T_NAME)
        return tmpl_syntax(p, WEIR_CORRUPT, "a macro's name is missing");
    node->str = tmpl_peek(p)->str;
    node->name = tmpl_intern(p, node->str);
    tmpl_next(p);
    return parse_params(p, &node->a) && parse_macro_body(p, node, "endmacro") ? node : NULL;
}

static struct tmpl_node *parse_call_block(struct tmpl_parser *p)
{
    struct tmpl_node *node = tmpl_node(p, TMPL_N_CALL_BLOCK);
    struct tmpl_node *caller = tmpl_node(p, TMPL_N_MACRO);

    if (!node || !caller)
        return NULL;
    caller->str = WEIR_STR("caller");
    if (tmpl_at_op(p, "(") && !parse_params(p, &caller->a))
        return NULL;
    node->b = caller;
    node->a = tmpl_parse_expr(p);
    if (!node->a)
        return NULL;
    if (node->a->kind != TMPL_N_CALL)
        return tmpl_syntax(p, WEIR_CORRUPT, "a call is missing");
    return parse_macro_body(p, caller, "endcall") ? node : NULL;
}

static struct tmpl_node *parse_filter_block(struct tmpl_parser *p)
{
    struct tmpl_node *node = tmpl_node(p, TMPL_N_FILTER_BLOCK);

    if (!node || !(node->a = tmpl_parse_filters(p, NULL, /* bare= */ true)))
        return NULL;
    return parse_closed(p, "endfilter", &node->b) ? node : NULL;
}

static struct tmpl_node *parse_with(struct tmpl_parser *p)
{
    struct tmpl_node *node = tmpl_node(p, TMPL_N_WITH), **tail;

    if (!node)
        return NULL;
    tail = &node->a;
    while (p->err == WEIR_OK && tmpl_peek(p)->kind != TMPL_T_BLOCK_END) {
        if (node->a && !tmpl_want_op(p, ","))
            return NULL;
        struct tmpl_node *set = tmpl_node(p, TMPL_N_SET);
        if (!set || !(set->target = parse_target_name(p, false)) || !check_target(p, set->target) ||
            !tmpl_want_op(p, "=") || !(set->a = tmpl_parse_expr(p)))
            return NULL;
        *tail = set;
        tail = &set->next;
    }
    return parse_closed(p, "endwith", &node->b) ? node : NULL;
}

/* transformers marks the assistant's words with these; the text is the body. */
static struct tmpl_node *parse_generation(struct tmpl_parser *p)
{
    struct tmpl_node *node = tmpl_node(p, TMPL_N_SCOPE);
    int n_loops = p->n_loops;

    if (!node)
        return NULL;
    p->n_loops = 0;
    bool ok = parse_closed(p, "endgeneration", &node->b);
    p->n_loops = n_loops;
    return ok ? node : NULL;
}

static struct tmpl_node *parse_jump(struct tmpl_parser *p, enum tmpl_node_kind kind)
{
    struct tmpl_node *node = tmpl_node(p, kind);

    if (p->n_loops == 0)
        return tmpl_syntax(p, WEIR_CORRUPT, "\"break\" and \"continue\" belong in a loop");
    return node && end_block(p) ? node : NULL;
}

static struct tmpl_node *parse_statement(struct tmpl_parser *p)
{
    struct weir_str word = tmpl_peek(p)->str;

    if (tmpl_skip_name(p, "if"))
        return parse_if(p);
    if (tmpl_skip_name(p, "for"))
        return parse_for(p);
    if (tmpl_skip_name(p, "set"))
        return parse_set(p);
    if (tmpl_skip_name(p, "macro"))
        return parse_macro(p);
    if (tmpl_skip_name(p, "call"))
        return parse_call_block(p);
    if (tmpl_skip_name(p, "filter"))
        return parse_filter_block(p);
    if (tmpl_skip_name(p, "with"))
        return parse_with(p);
    if (tmpl_skip_name(p, "generation"))
        return parse_generation(p);
    if (tmpl_skip_name(p, "break"))
        return parse_jump(p, TMPL_N_BREAK);
    if (tmpl_skip_name(p, "continue"))
        return parse_jump(p, TMPL_N_CONTINUE);
    if (tmpl_peek(p)->kind != TMPL_T_NAME)
        return tmpl_syntax(p, WEIR_CORRUPT, "a block's name is missing");
    bool stray = word.len > 3 && memcmp(word.ptr, "end", 3) == 0;
    stray = stray || weir_str_eq(word, "else") || weir_str_eq(word, "elif");
    return tmpl_syntax(p, stray ? WEIR_CORRUPT : WEIR_UNIMPLEMENTED,
                       stray ? "the block \"%.*s\" has no beginning" : "the block \"%.*s\" is not supported",
                       TEXT_SHORT(word));
}

weir_err tmpl_parse(struct weir_template *tmpl, const struct tmpl_token *tokens, struct weir_why *why)
{
    struct tmpl_parser p = { .tmpl = tmpl, .tokens = tokens, .why = why };

    tmpl->loop = tmpl_intern(&p, WEIR_STR("loop"));
    tmpl->varargs = tmpl_intern(&p, WEIR_STR("varargs"));
    tmpl->kwargs = tmpl_intern(&p, WEIR_STR("kwargs"));
    tmpl->caller = tmpl_intern(&p, WEIR_STR("caller"));
    if (!parse_body(&p, /* words= */ NULL, &tmpl->body) && p.err == WEIR_OK)
        return weir_fail(why, WEIR_CORRUPT, "the template does not end");
    return p.err;
}
