/* vocab.c - a vocabulary's texts as a trie, in preorder.
 *
 * Tokens sorted by their bytes are a trie read from left to right: a walk is one pass over an array that jumps over
 * what does not match, and no node stores its children.
 *   [V1] ids of one subtree lie together, in the order of their bytes.
 *   [V2] A special token that ends reasoning has its spelling behind the byte FF, which UTF-8 never has: so it is
 * permitted where any byte is, before what a grammar describes, and nowhere else. All others have no text. */
#include "replica/grammar/gram_int.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "replica/text/tool_parse.h"

static int by_bytes(const void *a, const void *b, void *ctx)
{
    const struct weir_str *text = ctx;
    struct weir_str x = text[*(const int32_t *)a], y = text[*(const int32_t *)b];
    int order = memcmp(x.ptr, y.ptr, x.len < y.len ? x.len : y.len);

    if (order != 0)
        return order;
    if (x.len != y.len)
        return x.len < y.len ? -1 : 1;
    return *(const int32_t *)a < *(const int32_t *)b ? -1 : 1;
}

static size_t common(struct weir_str a, struct weir_str b)
{
    size_t n = 0;

    while (n < a.len && n < b.len && a.ptr[n] == b.ptr[n])
        n++;
    return n;
}

static bool copy_texts(struct weir_grammar_vocab *v, const struct weir_str *tokens)
{
    size_t n_bytes = 0;

    v->text = weir_arena_alloc0(&v->arena, ((size_t)v->n_tokens + 1) * sizeof *v->text);
    v->ids = weir_arena_alloc(&v->arena, ((size_t)v->n_tokens + 1) * sizeof *v->ids);
    for (uint32_t i = 0; i < v->n_tokens; i++)
        n_bytes += tokens[i].len;
    char *bytes = weir_arena_alloc(&v->arena, n_bytes + 1);
    if (!v->text || !v->ids || !bytes || n_bytes >= UINT32_MAX)
        return false;
    for (uint32_t i = 0; i < v->n_tokens; i++) {
        if (tokens[i].len > 0)
            memcpy(bytes, tokens[i].ptr, tokens[i].len);
        v->text[i] = (struct weir_str){ bytes, tokens[i].len };
        bytes += tokens[i].len;
    }
    return true;
}

/* Nodes, counted when v->nodes is NULL. open: the nodes on the way to the last token. */
static void lay_out(struct weir_grammar_vocab *v, uint32_t n_ids, uint32_t *open)
{
    struct weir_str last = { "", 0 };
    uint32_t n = 1; /* the root */

    for (uint32_t i = 0; i < n_ids; i++) {
        struct weir_str text = v->text[v->ids[i]];
        size_t same = common(last, text);
        for (size_t d = same; v->nodes && d < last.len; d++)
            v->nodes[open[d]].end = n;
        for (size_t d = same; d < text.len; d++, n++) {
            if (!v->nodes)
                continue;
            open[d] = n;
            v->nodes[n].first = i; /* [V1] */
            v->bytes[n] = (uint8_t)text.ptr[d];
        }
        if (text.len > v->depth_max)
            v->depth_max = (uint32_t)text.len;
        last = text;
    }
    for (size_t d = 0; v->nodes && d < last.len; d++)
        v->nodes[open[d]].end = n;
    v->n_nodes = n;
}

static bool build(struct weir_grammar_vocab *v)
{
    uint32_t n_ids = 0;

    for (uint32_t i = 0; i < v->n_tokens; i++)
        if (v->text[i].len > 0)
            v->ids[n_ids++] = (int32_t)i;
    qsort_r(v->ids, n_ids, sizeof *v->ids, by_bytes, v->text);
    lay_out(v, n_ids, NULL);
    uint32_t *open = weir_calloc(v->depth_max + 1, sizeof *open);
    v->nodes = weir_arena_alloc0(&v->arena, ((size_t)v->n_nodes + 1) * sizeof *v->nodes);
    v->bytes = weir_arena_alloc0(&v->arena, (size_t)v->n_nodes + 1);
    if (open && v->nodes && v->bytes) {
        lay_out(v, n_ids, open);
        v->nodes[0] = (struct gram_trie_node){ .end = v->n_nodes, .first = 0 };
        v->nodes[v->n_nodes] = (struct gram_trie_node){ .end = v->n_nodes, .first = n_ids };
    }
    weir_free(open);
    return open && v->nodes && v->bytes;
}

static bool copy_ends(struct weir_grammar_vocab *v, const int32_t *end_ids, int n)
{
    v->end_ids = weir_arena_alloc(&v->arena, ((size_t)n + 1) * sizeof *v->end_ids);
    for (int i = 0; v->end_ids && i < n; i++)
        if (end_ids[i] >= 0)
            v->end_ids[v->n_end_ids++] = end_ids[i];
    return v->end_ids != NULL;
}

weir_err weir_grammar_vocab_open_list(const struct weir_str *tokens, uint32_t n_tokens,
                                      const int32_t *end_ids, int n_end_ids, struct weir_grammar_vocab **ret,
                                      struct weir_why *why)
{
    struct weir_grammar_vocab *v = weir_alloc0(sizeof *v);

    if (!v)
        return weir_fail(why, WEIR_NOMEM, "no memory for the vocabulary's index");
    weir_arena_init(&v->arena, /* limit_bytes= */ 0); /* the tokenizer's own bounds hold */
    v->n_tokens = n_tokens;
    v->n_words = (n_tokens + 31) / 32;
    if (!copy_texts(v, tokens) || !build(v) || !copy_ends(v, end_ids, n_end_ids)) {
        weir_grammar_vocab_close(v);
        return weir_fail(why, WEIR_NOMEM, "no memory for the vocabulary's index");
    }
    *ret = v;
    return WEIR_OK;
}

/* [V2] False: no memory. */
static bool special_text(const struct weir_tokenizer *tok, int32_t id, struct weir_arena *arena,
                         struct weir_str *ret)
{
    struct weir_str spelling = weir_token_bytes(tok, id, /* with_special= */ true);

    if (!weir_token_is_special(tok, id) || !weir_think_is_end(spelling))
        return true;
    char *text = weir_arena_printf(arena, "\xff%.*s", WEIR_STR_FMT(spelling));
    *ret = (struct weir_str){ text, spelling.len + 1 };
    return text;
}

weir_err weir_grammar_vocab_open(const struct weir_tokenizer *tok, const int32_t *end_ids, int n_end_ids,
                                 struct weir_grammar_vocab **ret, struct weir_why *why)
{
    uint32_t n = (uint32_t)weir_tokenizer_vocab(tok);
    struct weir_str *tokens = weir_calloc((size_t)n + 1, sizeof *tokens);
    struct weir_arena arena;

    if (!tokens)
        return weir_fail(why, WEIR_NOMEM, "no memory for the vocabulary's index");
    weir_arena_init(&arena, /* limit_bytes= */ 0); /* a few spellings */
    bool ok = true;
    for (uint32_t i = 0; i < n && ok; i++) {
        tokens[i] = weir_token_bytes(tok, (int32_t)i, /* with_special= */ false);
        ok = special_text(tok, (int32_t)i, &arena, &tokens[i]);
    }
    for (int i = 0; i < n_end_ids; i++) /* an end token is no text, special or not */
        if (end_ids[i] >= 0 && (uint32_t)end_ids[i] < n)
            tokens[end_ids[i]].len = 0;
    weir_err err = ok ? weir_grammar_vocab_open_list(tokens, n, end_ids, n_end_ids, ret, why)
                      : weir_fail(why, WEIR_NOMEM, "no memory for the vocabulary's index");
    weir_free(tokens);
    weir_arena_release(&arena);
    return err;
}

void weir_grammar_vocab_close(struct weir_grammar_vocab *vocab)
{
    if (!vocab)
        return;
    weir_arena_release(&vocab->arena);
    weir_free(vocab);
}
