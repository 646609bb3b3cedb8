/* grammar.c - compiling: a source becomes rules, the rules one automaton, and the costly masks are made.
 *
 * The masks that cost most are those of nodes where almost any byte may follow (within strings): the first few of
 * them are made here, on the compiling thread, so that the thread that samples finds them. The others cost little,
 * or come when they are needed. */
#include "replica/grammar/gram_int.h"

#include "base/mem.h"

/* False: the grammar can't even begin. */
static bool warm(struct weir_grammar *g)
{
    struct weir_grammar_state *st = NULL;
    int n = 0;

    weir_err err = weir_grammar_state_open(g, &st, NULL);
    if (err != WEIR_OK)
        return err != WEIR_TOOLARGE; /* without memory: then they come when they are needed */
    for (uint32_t v = 0; v < g->a.n_nodes && n < GRAM_WARM_MAX && !st->spent; v++) {
        bool owned = false;
        if (!(g->a.nodes[v].flags & GRAM_WIDE) || g->alike[v] != v)
            continue;
        st->work = 0;
        const struct gram_mask *mask = gram_mask_of(st, v, &owned);
        if (owned)
            weir_free((struct gram_mask *)mask);
        n++;
    }
    weir_grammar_state_close(st);
    return true;
}

/* "Anything, then `after`, then the root." */
static uint32_t add_after(struct gram_build *b, struct weir_str after, uint32_t root)
{
    struct gram_expr *until = gram_bytes(b, after);

    if (after.len == 0)
        return root;
    if (after.len > GRAM_AFTER_MAX)
        gram_fail(b, WEIR_TOOLARGE, "the text to wait for has more than %d bytes", GRAM_AFTER_MAX);
    if (until)
        until->kind = GRAM_UNTIL;
    return gram_rule_add(b, WEIR_STR("the text before"), gram_cat2(b, until, gram_call(b, root)), true);
}

static struct weir_grammar *finish(struct gram_build *b, uint32_t root)
{
    struct weir_grammar *g = b->err == WEIR_OK ? weir_alloc0(sizeof *g) : NULL;

    if (!g)
        return gram_fail(b, WEIR_NOMEM, "no memory for the grammar");
    atomic_init(&g->refs, 1);
    g->vocab = b->vocab;
    if (!gram_link(b, root, &g->a, &g->start)) {
        weir_free(g);
        return NULL;
    }
    g->masks = weir_calloc((size_t)g->a.n_nodes + 1, sizeof *g->masks);
    g->alike = weir_calloc((size_t)g->a.n_nodes + 1, sizeof *g->alike);
    if (!g->masks || !g->alike || !gram_alike(&g->a, b->vocab->depth_max, g->alike)) {
        weir_grammar_unref(g);
        return gram_fail(b, WEIR_NOMEM, "no memory for the grammar");
    }
    if (!warm(g)) {
        weir_grammar_unref(g);
        return gram_fail(b, WEIR_TOOLARGE, "the grammar is too ambiguous: there are too many ways to begin");
    }
    return g;
}

enum source { FROM_GBNF, FROM_SCHEMA, FROM_JSON, FROM_CALLS };

/* calls: FROM_CALLS; text is their tools then. */
static weir_err compile(const struct weir_grammar_vocab *vocab, enum source source, struct weir_str text,
                        const struct weir_grammar_calls *calls, const struct weir_grammar_opts *opts,
                        const char *param, struct weir_grammar **ret, struct weir_why *why)
{
    struct gram_build b = { .vocab = vocab, .param = param, .why = why };
    bool compact = opts && opts->compact;
    uint32_t root = UINT32_MAX;

    weir_arena_init(&b.arena, GRAM_TREE_BYTES_MAX);
    if (text.len > WEIR_GRAMMAR_TEXT_MAX)
        gram_fail(&b, WEIR_TOOLARGE, "it has more than %u bytes", WEIR_GRAMMAR_TEXT_MAX);
    else if (source == FROM_GBNF)
        gram_gbnf(&b, text, &root);
    else if (source == FROM_SCHEMA)
        gram_schema(&b, text, compact, &root);
    else if (source == FROM_CALLS)
        gram_calls(&b, calls, compact, &root);
    else
        gram_json_object(&b, compact, &root);
    if (b.err == WEIR_OK && opts)
        root = add_after(&b, opts->after, root);
    struct weir_grammar *g = finish(&b, root);
    weir_arena_release(&b.arena);
    weir_free(b.rules);
    if (b.err == WEIR_OK)
        *ret = g;
    return b.err;
}

weir_err weir_grammar_compile_gbnf(const struct weir_grammar_vocab *vocab, struct weir_str text,
                                   const struct weir_grammar_opts *opts, struct weir_grammar **ret,
                                   struct weir_why *why)
{
    return compile(vocab, FROM_GBNF, text, NULL, opts, "response_format.grammar", ret, why);
}

weir_err weir_grammar_compile_schema(const struct weir_grammar_vocab *vocab, struct weir_str json,
                                     const struct weir_grammar_opts *opts, struct weir_grammar **ret,
                                     struct weir_why *why)
{
    return compile(vocab, FROM_SCHEMA, json, NULL, opts, "response_format.json_schema.schema", ret, why);
}

weir_err weir_grammar_compile_json_object(const struct weir_grammar_vocab *vocab,
                                          const struct weir_grammar_opts *opts, struct weir_grammar **ret,
                                          struct weir_why *why)
{
    return compile(vocab, FROM_JSON, WEIR_STR(""), NULL, opts, "response_format", ret, why);
}

weir_err weir_grammar_compile_calls(const struct weir_grammar_vocab *vocab,
                                    const struct weir_grammar_calls *calls,
                                    const struct weir_grammar_opts *opts, struct weir_grammar **ret,
                                    struct weir_why *why)
{
    return compile(vocab, FROM_CALLS, calls->tools, calls, opts, "tools", ret, why);
}

struct weir_grammar *weir_grammar_ref(struct weir_grammar *grammar)
{
    atomic_fetch_add_explicit(&grammar->refs, 1, memory_order_relaxed);
    return grammar;
}

void weir_grammar_unref(struct weir_grammar *grammar)
{
    /* Release and acquire: whoever frees has seen what the others did. */
    if (!grammar || atomic_fetch_sub_explicit(&grammar->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (uint32_t i = 0; grammar->masks && i < grammar->a.n_nodes; i++)
        weir_free(atomic_load_explicit(&grammar->masks[i], memory_order_relaxed));
    weir_free(grammar->masks);
    weir_free(grammar->alike);
    gram_auto_release(&grammar->a);
    weir_free(grammar);
}
