/* tmpl_cursor.c - what all parts of the parser use: where it is among the tokens, its nodes, names and complaints. */
#include "replica/text/tmpl_int.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "replica/text/text_int.h"

enum { NAMES_MAX = 4096 };

const struct tmpl_token *tmpl_peek(const struct tmpl_parser *p)
{
    return &p->tokens[p->at];
}

void tmpl_next(struct tmpl_parser *p)
{
    if (p->tokens[p->at].kind != TMPL_T_EOF)
        p->at++;
}

bool tmpl_at_op(const struct tmpl_parser *p, const char *op)
{
    const struct tmpl_token *token = tmpl_peek(p);

    return token->kind == TMPL_T_OP && weir_str_eq(token->str, op);
}

bool tmpl_at_name(const struct tmpl_parser *p, const char *name)
{
    const struct tmpl_token *token = tmpl_peek(p);

    return token->kind == TMPL_T_NAME && weir_str_eq(token->str, name);
}

bool tmpl_skip_op(struct tmpl_parser *p, const char *op)
{
    if (!tmpl_at_op(p, op))
        return false;
    tmpl_next(p);
    return true;
}

bool tmpl_skip_name(struct tmpl_parser *p, const char *name)
{
    if (!tmpl_at_name(p, name))
        return false;
    tmpl_next(p);
    return true;
}

bool tmpl_want_op(struct tmpl_parser *p, const char *op)
{
    if (tmpl_skip_op(p, op))
        return true;
    tmpl_syntax(p, WEIR_CORRUPT, "\"%s\" is missing", op);
    return false;
}

void *tmpl_syntax(struct tmpl_parser *p, weir_err err, const char *fmt, ...)
{
    char text[200];
    va_list args;

    if (p->err != WEIR_OK)
        return NULL;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    text[weir_utf8_cut(text, strlen(text), sizeof text - 4)] = '\0';
    const struct tmpl_token *token = tmpl_peek(p);
    if (token->kind == TMPL_T_EOF || token->str.len == 0)
        p->err = weir_fail(p->why, err, "template line %u: %s", token->line, text);
    else
        p->err = weir_fail(p->why, err, "template line %u, at \"%.*s\": %s", token->line,
                           TEXT_SHORT(token->str), text);
    return NULL;
}

struct tmpl_node *tmpl_node(struct tmpl_parser *p, enum tmpl_node_kind kind)
{
    if (p->err != WEIR_OK)
        return NULL;
    struct tmpl_node *node = weir_arena_alloc0(&p->tmpl->arena, sizeof *node);
    if (!node)
        return tmpl_syntax(p, WEIR_NOMEM, "no memory for the template");
    node->kind = kind;
    node->line = tmpl_peek(p)->line;
    return node;
}

struct tmpl_node *tmpl_node_two(struct tmpl_parser *p, enum tmpl_node_kind kind, struct tmpl_node *a,
                                struct tmpl_node *b)
{
    struct tmpl_node *node = a && b ? tmpl_node(p, kind) : NULL;

    if (!node)
        return NULL;
    node->line = a->line;
    node->a = a;
    node->b = b;
    return node;
}

uint32_t tmpl_intern(struct tmpl_parser *p, struct weir_str name)
{
    struct weir_template *tmpl = p->tmpl;

    for (uint32_t i = 0; i < tmpl->n_names; i++)
        if (tmpl->names[i].len == name.len && memcmp(tmpl->names[i].ptr, name.ptr, name.len) == 0)
            return i;
    if (tmpl->n_names == tmpl->names_cap) {
        uint32_t cap = tmpl->names_cap ? 2 * tmpl->names_cap : 64;
        struct weir_str *names = weir_arena_alloc(&tmpl->arena, cap * sizeof *names);
        if (!names || cap > NAMES_MAX) {
            tmpl_syntax(p, names ? WEIR_TOOLARGE : WEIR_NOMEM, "no room for the template's names");
            return 0;
        }
        if (tmpl->n_names)
            memcpy(names, tmpl->names, tmpl->n_names * sizeof *names);
        tmpl->names = names;
        tmpl->names_cap = cap;
    }
    tmpl->names[tmpl->n_names] = name;
    return tmpl->n_names++;
}

bool tmpl_enter(struct tmpl_parser *p)
{
    if (p->depth >= TMPL_NEST_MAX * 4) { /* one bracket passes through four levels */
        tmpl_syntax(p, WEIR_TOOLARGE, "nested too deep");
        return false;
    }
    p->depth++;
    return true;
}
