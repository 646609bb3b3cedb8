/* link.c - all rules' automata become one: what leads nowhere is cut off, what never ends is refused.
 *
 *   [K1] From every node that is left its rule's end can be reached, so a walk that has a head has a way to the end.
 *   [K2] No rule begins with itself, so settling a head enters finitely many calls. */
#include "replica/grammar/gram_int.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

struct link_run {
    struct gram_build *b;
    struct gram_auto a;
    uint32_t *done; /* by rule: its automaton is there, + 1 in the list `order` */
    uint32_t *order;
    uint32_t n_order;
};

static bool no_memory(struct gram_build *b)
{
    gram_fail(b, WEIR_NOMEM, "no memory for the grammar");
    return false;
}

/* ---- every rule that is reached ---- */

static bool make_rules(struct link_run *l, uint32_t root)
{
    struct gram_nfa nfa;

    l->done[root] = 1;
    l->order[l->n_order++] = root;
    for (uint32_t i = 0; i < l->n_order; i++) {
        uint32_t first = l->a.n_calls;
        bool ok = gram_nfa_make(l->b, l->order[i], &nfa) && gram_dfa_append(l->b, l->order[i], &nfa, &l->a);
        gram_nfa_release(&nfa);
        if (!ok)
            return false;
        for (uint32_t c = first; c < l->a.n_calls; c++) {
            uint32_t rule = l->a.calls[c].rule;
            if (!l->done[rule]) {
                l->done[rule] = 1;
                l->order[l->n_order++] = rule;
            }
        }
    }
    return true;
}

/* Puts the guard node in; calls name nodes from here on. */
static bool seal(struct link_run *l)
{
    struct gram_auto *a = &l->a;
    struct gram_node *nodes = weir_realloc(a->nodes, ((size_t)a->n_nodes + 1) * sizeof *nodes);

    if (!nodes)
        return no_memory(l->b);
    a->nodes = nodes;
    nodes[a->n_nodes] = (struct gram_node){ a->n_edges, a->n_calls, 0 };
    for (uint32_t i = 0; i < a->n_calls; i++)
        a->calls[i].rule = l->b->rules[a->calls[i].rule].start;
    return true;
}

/* ---- what reaches its rule's end [K1] ---- */

static bool lives(const struct gram_auto *a, const bool *live, uint32_t v)
{
    if (a->nodes[v].flags & GRAM_FINAL)
        return true;
    for (uint32_t e = a->nodes[v].edge; e < a->nodes[v + 1].edge; e++)
        if (live[a->edges[e].to])
            return true;
    for (uint32_t c = a->nodes[v].call; c < a->nodes[v + 1].call; c++)
        if (live[a->calls[c].to] && live[a->calls[c].rule])
            return true;
    return false;
}

struct back {
    uint32_t *first, *from; /* by node: who leads here, from[first[v] .. first[v + 1]) */
};

static bool make_back(const struct gram_auto *a, struct back *ret)
{
    size_t n = (size_t)a->n_edges + 2 * (size_t)a->n_calls;

    ret->first = weir_calloc((size_t)a->n_nodes + 2, sizeof *ret->first);
    ret->from = weir_calloc(n + 1, sizeof *ret->from);
    if (!ret->first || !ret->from)
        return false;
    uint32_t *count = ret->first + 1;
    for (uint32_t e = 0; e < a->n_edges; e++)
        count[a->edges[e].to]++;
    for (uint32_t c = 0; c < a->n_calls; c++) {
        count[a->calls[c].to]++;
        count[a->calls[c].rule]++;
    }
    for (uint32_t v = 0; v < a->n_nodes; v++)
        count[v] += ret->first[v];
    /* Fill from the back: first[v + 1] falls to first[v]'s place, and is shifted below. */
    for (uint32_t v = 0; v < a->n_nodes; v++) {
        for (uint32_t e = a->nodes[v].edge; e < a->nodes[v + 1].edge; e++)
            ret->from[--count[a->edges[e].to]] = v;
        for (uint32_t c = a->nodes[v].call; c < a->nodes[v + 1].call; c++) {
            ret->from[--count[a->calls[c].to]] = v;
            ret->from[--count[a->calls[c].rule]] = v;
        }
    }
    memmove(ret->first, count, a->n_nodes * sizeof *count);
    ret->first[a->n_nodes] = (uint32_t)n;
    return true;
}

static void spread(const struct gram_auto *a, const struct back *back, bool *live, uint32_t *todo)
{
    uint32_t n_todo = 0;

    for (uint32_t v = 0; v < a->n_nodes; v++)
        if (a->nodes[v].flags & GRAM_FINAL) {
            live[v] = true;
            todo[n_todo++] = v;
        }
    while (n_todo > 0) {
        uint32_t v = todo[--n_todo];
        for (uint32_t i = back->first[v]; i < back->first[v + 1]; i++) {
            uint32_t u = back->from[i];
            if (!live[u] && lives(a, live, u)) {
                live[u] = true;
                todo[n_todo++] = u;
            }
        }
    }
}

static void drop_dead(struct gram_auto *a, const bool *live)
{
    uint32_t n_edges = 0, n_calls = 0;

    for (uint32_t v = 0; v < a->n_nodes; v++) {
        uint32_t edge = a->nodes[v].edge, call = a->nodes[v].call;
        a->nodes[v].edge = n_edges;
        a->nodes[v].call = n_calls;
        for (; edge < a->nodes[v + 1].edge; edge++)
            if (live[a->edges[edge].to])
                a->edges[n_edges++] = a->edges[edge];
        for (; call < a->nodes[v + 1].call; call++)
            if (live[a->calls[call].to] && live[a->calls[call].rule])
                a->calls[n_calls++] = a->calls[call];
    }
    a->nodes[a->n_nodes].edge = a->n_edges = n_edges;
    a->nodes[a->n_nodes].call = a->n_calls = n_calls;
}

static bool trim(struct link_run *l)
{
    struct gram_auto *a = &l->a;
    struct back back = { 0 };
    bool *live = weir_calloc((size_t)a->n_nodes + 1, sizeof *live);
    uint32_t *todo = weir_calloc((size_t)a->n_nodes + 1, sizeof *todo);
    bool ok = make_back(a, &back) && live && todo;

    if (ok) {
        spread(a, &back, live, todo);
        if (!live[l->b->rules[l->order[0]].start]) {
            gram_fail(l->b, WEIR_INVALID, "%.*s: no text at all is permitted",
                      WEIR_STR_FMT(l->b->rules[l->order[0]].name));
        }
        drop_dead(a, live);
    } else {
        no_memory(l->b);
    }
    weir_free(live);
    weir_free(todo);
    weir_free(back.first);
    weir_free(back.from);
    return l->b->err == WEIR_OK;
}

static void set_flags(struct gram_auto *a)
{
    for (uint32_t v = 0; v < a->n_nodes; v++) {
        struct gram_node *node = &a->nodes[v];
        uint32_t n_bytes = 0;
        bool calls = node->call < node[1].call;
        for (uint32_t e = node->edge; e < node[1].edge; e++)
            n_bytes += (uint32_t)(a->edges[e].hi - a->edges[e].lo) + 1;
        if (!(node->flags & GRAM_FINAL) && !calls)
            node->flags |= GRAM_PLAIN;
        if ((node->flags & GRAM_FINAL) && !calls && n_bytes == 0)
            node->flags |= GRAM_TAIL;
        if (n_bytes >= 64)
            node->flags |= GRAM_WIDE;
    }
}

/* ---- rules that begin with themselves [K2] ---- */

struct left_run {
    struct link_run *l;
    bool *empty;    /* by node: the rule's end can be reached from here without reading */
    uint8_t *mark;  /* by node: 1 = on the path, 2 = done */
    uint32_t *path; /* nodes, and how far each is looked at: two numbers each */
    uint32_t n_path;
};

/* From the ends backwards: a node is empty when it is final, or calls an empty rule and comes back to an empty node. */
static void find_empty(const struct gram_auto *a, bool *empty)
{
    bool changed = true;

    while (changed) {
        changed = false;
        for (uint32_t v = a->n_nodes; v-- > 0;) {
            bool is = (a->nodes[v].flags & GRAM_FINAL) != 0;
            for (uint32_t c = a->nodes[v].call; !is && c < a->nodes[v + 1].call; c++)
                is = empty[a->calls[c].rule] && empty[a->calls[c].to];
            changed = changed || (is && !empty[v]);
            empty[v] = empty[v] || is;
        }
    }
}

static void name_left(struct link_run *l, uint32_t node)
{
    for (uint32_t i = 0; i < l->n_order; i++)
        if (l->b->rules[l->order[i]].start == node)
            gram_fail(l->b, WEIR_UNIMPLEMENTED, "%.*s begins with itself (left recursion)",
                      WEIR_STR_FMT(l->b->rules[l->order[i]].name));
    gram_fail(l->b, WEIR_UNIMPLEMENTED, "a rule begins with itself (left recursion)");
}

/* Follows, without reading, into calls and behind calls of empty rules, from a rule's start. Entering a start that is
 * on the path is the fault; coming behind a call to a node on the path is only a loop within one rule: harmless. A
 * rule is come into by its start alone, so its start is on the path when any of its nodes is. */
static bool look_left(struct left_run *r, uint32_t start)
{
    const struct gram_auto *a = &r->l->a;

    if (r->mark[start] == 2)
        return true;
    r->n_path = 0;
    r->path[2 * r->n_path] = start;
    r->path[2 * r->n_path++ + 1] = 0;
    r->mark[start] = 1;
    while (r->n_path > 0) {
        uint32_t v = r->path[2 * (r->n_path - 1)], i = r->path[2 * (r->n_path - 1) + 1]++;
        uint32_t c = a->nodes[v].call + i / 2;
        if (c >= a->nodes[v + 1].call) {
            r->mark[v] = 2;
            r->n_path--;
            continue;
        }
        bool enters = i % 2 == 0;
        uint32_t to = enters ? a->calls[c].rule : a->calls[c].to;
        if (!enters && !r->empty[a->calls[c].rule])
            continue;
        if (r->mark[to] == 1 && enters) {
            name_left(r->l, to);
            return false;
        }
        if (r->mark[to] == 0) {
            r->mark[to] = 1;
            r->path[2 * r->n_path] = to;
            r->path[2 * r->n_path++ + 1] = 0;
        }
    }
    return true;
}

static bool check_left(struct link_run *l)
{
    struct left_run r = { .l = l };
    bool ok = true;

    r.empty = weir_calloc((size_t)l->a.n_nodes + 1, sizeof *r.empty);
    r.mark = weir_calloc((size_t)l->a.n_nodes + 1, sizeof *r.mark);
    r.path = weir_calloc(2 * ((size_t)l->a.n_nodes + 1), sizeof *r.path);
    if (r.empty && r.mark && r.path) {
        find_empty(&l->a, r.empty);
        for (uint32_t i = 0; ok && i < l->n_order; i++)
            ok = look_left(&r, l->b->rules[l->order[i]].start);
    } else {
        ok = no_memory(l->b);
    }
    weir_free(r.empty);
    weir_free(r.mark);
    weir_free(r.path);
    return ok;
}

bool gram_link(struct gram_build *b, uint32_t root, struct gram_auto *ret, uint32_t *ret_start)
{
    struct link_run l = { .b = b };

    if (b->err != WEIR_OK)
        return false;
    l.done = weir_calloc(b->n_rules, sizeof *l.done);
    l.order = weir_calloc(b->n_rules, sizeof *l.order);
    bool ok =
        l.done && l.order ? make_rules(&l, root) && seal(&l) && trim(&l) && check_left(&l) : no_memory(b);
    if (ok) {
        set_flags(&l.a);
        *ret = l.a;
        *ret_start = b->rules[root].start;
    } else {
        gram_auto_release(&l.a);
    }
    weir_free(l.done);
    weir_free(l.order);
    return ok;
}
