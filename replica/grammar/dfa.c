/* dfa.c - a rule's automaton made deterministic: at most one way on for each byte and for each called rule.
 *
 * The subset construction. A set holds only the states that do something (read, call, accept), sorted, so that equal
 * sets meet in one node whatever led there. Which of two rules is being read stays open until the text tells: that is
 * what a state's several heads are for. */
#include "replica/grammar/gram_int.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

struct subset {
    size_t at; /* in pool */
    uint32_t n;
    uint32_t hash;
};
struct dfa_run {
    struct gram_build *b;
    const struct gram_nfa *nfa;
    uint32_t i_rule;

    uint32_t *pool; /* of all sets */
    size_t n_pool, pool_cap;
    struct subset *sets; /* by node, from the rule's first on */
    uint32_t n_sets, sets_cap;
    uint32_t *table; /* set + 1; open addressing */
    uint32_t table_size;

    uint32_t *stamp; /* by state of the nfa */
    uint32_t turn;
    uint32_t *todo; /* for following epsilons */
    uint32_t *found;
    uint32_t n_found;
};

static bool no_memory(struct dfa_run *r)
{
    gram_fail(r->b, WEIR_NOMEM, "no memory for the grammar");
    return false;
}

static bool too_large(struct dfa_run *r)
{
    gram_fail(r->b, WEIR_TOOLARGE,
              "%.*s: the grammar is too large: more than %u states, or %u ways between them",
              WEIR_STR_FMT(r->b->rules[r->i_rule].name), WEIR_GRAMMAR_NODES_MAX, WEIR_GRAMMAR_EDGES_MAX);
    return false;
}

/* ---- sets ---- */

static void set_begin(struct dfa_run *r)
{
    r->turn++;
    r->n_found = 0;
}

/* Returns how many edges it looked at. */
static uint64_t set_add(struct dfa_run *r, uint32_t state)
{
    uint32_t n_todo = 0;
    uint64_t n_edges = 0;

    if (r->stamp[state] == r->turn)
        return 0;
    r->stamp[state] = r->turn;
    r->todo[n_todo++] = state;
    while (n_todo > 0) {
        uint32_t s = r->todo[--n_todo];
        bool acts = s == r->nfa->end;
        for (uint32_t e = r->nfa->first[s]; e != 0; e = r->nfa->edges[e].next, n_edges++) {
            const struct gram_nfa_edge *edge = &r->nfa->edges[e];
            if (edge->kind != GRAM_EPSILON) {
                acts = true;
            } else if (r->stamp[edge->to] != r->turn) {
                r->stamp[edge->to] = r->turn;
                r->todo[n_todo++] = edge->to;
            }
        }
        if (acts)
            r->found[r->n_found++] = s;
    }
    return n_edges;
}

static int by_number(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

static bool grow_table(struct dfa_run *r)
{
    uint32_t size = r->table_size ? 2 * r->table_size : 64;
    uint32_t *table = weir_calloc(size, sizeof *table);

    if (!table)
        return no_memory(r);
    for (uint32_t i = 0; i < r->n_sets; i++) {
        uint32_t slot = r->sets[i].hash & (size - 1);
        while (table[slot] != 0)
            slot = (slot + 1) & (size - 1);
        table[slot] = i + 1;
    }
    weir_free(r->table);
    r->table = table;
    r->table_size = size;
    return true;
}

static bool keep_set(struct dfa_run *r, uint32_t hash)
{
    if (r->n_pool + r->n_found > GRAM_SETS_MAX)
        return too_large(r);
    if (r->n_pool + r->n_found > r->pool_cap) {
        size_t cap = 2 * (r->n_pool + r->n_found) + 256;
        uint32_t *pool = weir_realloc(r->pool, cap * sizeof *pool);
        if (!pool)
            return no_memory(r);
        r->pool = pool;
        r->pool_cap = cap;
    }
    if (r->n_sets == r->sets_cap) {
        uint32_t cap = r->sets_cap ? 2 * r->sets_cap : 64;
        struct subset *sets = weir_realloc(r->sets, cap * sizeof *sets);
        if (!sets)
            return no_memory(r);
        r->sets = sets;
        r->sets_cap = cap;
    }
    if (r->n_found > 0)
        memcpy(r->pool + r->n_pool, r->found, r->n_found * sizeof *r->pool);
    r->sets[r->n_sets++] = (struct subset){ r->n_pool, r->n_found, hash };
    r->n_pool += r->n_found;
    return true;
}

/* The number of the set found since set_begin. */
static bool set_end(struct dfa_run *r, uint32_t *ret)
{
    uint32_t hash = 2166136261u;

    qsort(r->found, r->n_found, sizeof *r->found, by_number);
    for (uint32_t i = 0; i < r->n_found; i++)
        hash = (hash ^ r->found[i]) * 0x9e3779b1u ^ hash >> 15;
    if (2 * (r->n_sets + 1) > r->table_size && !grow_table(r))
        return false;
    uint32_t slot = hash & (r->table_size - 1);
    for (; r->table[slot] != 0; slot = (slot + 1) & (r->table_size - 1)) {
        const struct subset *set = &r->sets[r->table[slot] - 1];
        if (set->hash == hash && set->n == r->n_found &&
            memcmp(r->pool + set->at, r->found, set->n * sizeof *r->found) == 0) {
            *ret = r->table[slot] - 1;
            return true;
        }
    }
    *ret = r->n_sets;
    if (!keep_set(r, hash))
        return false;
    r->table[slot] = r->n_sets;
    return true;
}

/* ---- edges ---- */

static void *grown(struct dfa_run *r, void *old, uint32_t n, uint32_t *cap, uint32_t max, size_t size)
{
    if (n < *cap)
        return old;
    if (n >= max) {
        too_large(r);
        return NULL;
    }
    void *at = weir_realloc(old, (*cap ? 2 * (size_t)*cap : 64) * size);
    if (!at) {
        no_memory(r);
        return NULL;
    }
    *cap = *cap ? 2 * *cap : 64;
    return at;
}

static bool put_edge(struct dfa_run *r, struct gram_auto *a, uint32_t i_first, struct gram_edge edge)
{
    if (a->n_edges > i_first && a->edges[a->n_edges - 1].to == edge.to &&
        a->edges[a->n_edges - 1].hi + 1 == edge.lo) {
        a->edges[a->n_edges - 1].hi = edge.hi;
        return true;
    }
    struct gram_edge *edges =
        grown(r, a->edges, a->n_edges, &a->edges_cap, WEIR_GRAMMAR_EDGES_MAX, sizeof *edges);
    if (!edges)
        return false;
    a->edges = edges;
    edges[a->n_edges++] = edge;
    return true;
}

/* Where the bytes of [lo, hi] lead, none of which is the border of an edge. */
static bool step_bytes(struct dfa_run *r, uint32_t i_set, uint32_t lo, uint32_t hi, uint32_t base,
                       struct gram_auto *a, uint32_t i_first)
{
    uint64_t n_edges = 0;
    uint32_t to;

    set_begin(r);
    for (uint32_t i = 0; i < r->sets[i_set].n; i++) {
        uint32_t s = r->pool[r->sets[i_set].at + i];
        for (uint32_t e = r->nfa->first[s]; e != 0; e = r->nfa->edges[e].next, n_edges++)
            if (r->nfa->edges[e].kind == GRAM_BYTE && r->nfa->edges[e].lo <= lo && r->nfa->edges[e].hi >= hi)
                n_edges += set_add(r, r->nfa->edges[e].to);
    }
    if (!gram_work(r->b, r->b->rules[r->i_rule].name, n_edges))
        return false;
    if (r->n_found == 0)
        return true;
    return set_end(r, &to) &&
           put_edge(r, a, i_first, (struct gram_edge){ (uint8_t)lo, (uint8_t)hi, base + to });
}

static bool all_bytes(struct dfa_run *r, uint32_t i_set, uint32_t base, struct gram_auto *a)
{
    bool cut[257] = { false };
    uint32_t i_first = a->n_edges;

    for (uint32_t i = 0; i < r->sets[i_set].n; i++) {
        uint32_t s = r->pool[r->sets[i_set].at + i];
        for (uint32_t e = r->nfa->first[s]; e != 0; e = r->nfa->edges[e].next) {
            if (r->nfa->edges[e].kind != GRAM_BYTE)
                continue;
            cut[r->nfa->edges[e].lo] = true;
            cut[r->nfa->edges[e].hi + 1] = true;
        }
    }
    for (uint32_t lo = 0; lo < 256;) {
        uint32_t hi = lo + 1;
        while (hi < 256 && !cut[hi])
            hi++;
        if (!step_bytes(r, i_set, lo, hi - 1, base, a, i_first))
            return false;
        lo = hi;
    }
    return true;
}

/* Calls of one rule come back to one node. */
static bool all_calls(struct dfa_run *r, uint32_t i_set, uint32_t base, struct gram_auto *a)
{
    for (uint32_t done = 0;;) { /* rules below `done` were seen to */
        uint32_t rule = UINT32_MAX, to;
        uint64_t n_edges = 0;
        for (uint32_t i = 0; i < r->sets[i_set].n; i++)
            for (uint32_t e = r->nfa->first[r->pool[r->sets[i_set].at + i]]; e != 0;
                 e = r->nfa->edges[e].next, n_edges += 2)
                if (r->nfa->edges[e].kind == GRAM_CALL && r->nfa->edges[e].rule >= done &&
                    r->nfa->edges[e].rule < rule)
                    rule = r->nfa->edges[e].rule;
        if (rule == UINT32_MAX)
            return true;
        if (!gram_work(r->b, r->b->rules[r->i_rule].name, n_edges))
            return false;
        set_begin(r);
        for (uint32_t i = 0; i < r->sets[i_set].n; i++)
            for (uint32_t e = r->nfa->first[r->pool[r->sets[i_set].at + i]]; e != 0;
                 e = r->nfa->edges[e].next)
                if (r->nfa->edges[e].kind == GRAM_CALL && r->nfa->edges[e].rule == rule)
                    set_add(r, r->nfa->edges[e].to);
        struct gram_call_edge *calls =
            grown(r, a->calls, a->n_calls, &a->calls_cap, WEIR_GRAMMAR_EDGES_MAX, sizeof *calls);
        if (!calls)
            return false;
        a->calls = calls;
        if (!set_end(r, &to))
            return false;
        calls[a->n_calls++] = (struct gram_call_edge){ rule, base + to };
        done = rule + 1;
    }
}

static bool is_final(const struct dfa_run *r, uint32_t i_set)
{
    for (uint32_t i = 0; i < r->sets[i_set].n; i++)
        if (r->pool[r->sets[i_set].at + i] == r->nfa->end)
            return true;
    return false;
}

static bool all_nodes(struct dfa_run *r, struct gram_auto *a)
{
    uint32_t base = a->n_nodes, start;

    set_begin(r);
    set_add(r, 0);
    if (!set_end(r, &start))
        return false;
    r->b->rules[r->i_rule].start = base + start;
    for (uint32_t i = 0; i < r->n_sets; i++) { /* sets are found on the way */
        struct gram_node *nodes =
            grown(r, a->nodes, a->n_nodes, &a->nodes_cap, WEIR_GRAMMAR_NODES_MAX, sizeof *nodes);
        if (!nodes)
            return false;
        a->nodes = nodes;
        nodes[a->n_nodes++] = (struct gram_node){ a->n_edges, a->n_calls, is_final(r, i) ? GRAM_FINAL : 0 };
        if (!all_bytes(r, i, base, a) || !all_calls(r, i, base, a))
            return false;
    }
    return true;
}

bool gram_dfa_append(struct gram_build *b, uint32_t rule, const struct gram_nfa *nfa, struct gram_auto *a)
{
    struct dfa_run r = { .b = b, .nfa = nfa, .i_rule = rule };

    r.stamp = weir_calloc(nfa->n_states, sizeof *r.stamp);
    r.todo = weir_calloc(nfa->n_states, sizeof *r.todo);
    r.found = weir_calloc(nfa->n_states, sizeof *r.found);
    bool ok = r.stamp && r.todo && r.found ? all_nodes(&r, a) : no_memory(&r);
    weir_free(r.stamp);
    weir_free(r.todo);
    weir_free(r.found);
    weir_free(r.pool);
    weir_free(r.sets);
    weir_free(r.table);
    return ok;
}

void gram_auto_release(struct gram_auto *a)
{
    weir_free(a->nodes);
    weir_free(a->edges);
    weir_free(a->calls);
    memset(a, 0, sizeof *a);
}
