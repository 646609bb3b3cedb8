/* tok_added.c - added tokens: found in the text before anything else cuts it.
 *
 * A trie walked from every place where a token may begin; the leftmost match wins, then the longest. Tokens
 * are short and a place that fails costs at most the common prefix, so this is linear in practice and bounded
 * by TOK_TOKEN_BYTES_MAX a byte at worst. A token that is skipped (a special one while specials are text, or
 * half a word) takes its text with it: nothing shorter is looked for inside. Source: the behaviour of the
 * `tokenizers` package. */
#include "replica/text/tok_int.h"

#include <string.h>

#include "replica/text/text_int.h"

weir_err tok_trie_init(struct tok_trie *trie, size_t n_bytes, struct weir_arena *arena)
{
    uint32_t size = 16;

    while (size < 2 * (n_bytes + 1))
        size *= 2;
    trie->edges = weir_arena_alloc0(arena, size * sizeof *trie->edges);
    trie->added_1 = weir_arena_alloc0(arena, (n_bytes + 1) * sizeof *trie->added_1);
    trie->mask = size - 1;
    trie->n_nodes = 1;
    trie->n_nodes_max = (uint32_t)n_bytes + 1;
    return trie->edges && trie->added_1 ? WEIR_OK : WEIR_NOMEM;
}

static struct tok_trie_edge *find_edge(const struct tok_trie *trie, uint32_t node, uint8_t byte)
{
    uint64_t x = ((uint64_t)node << 8 | byte) * 0x9e3779b97f4a7c15ull;

    for (uint32_t i = (uint32_t)(x >> 32) & trie->mask;; i = (i + 1) & trie->mask) {
        struct tok_trie_edge *edge = &trie->edges[i];
        if (edge->child == 0 || (edge->node == node && edge->byte == byte))
            return edge;
    }
}

void tok_trie_add(struct tok_trie *trie, struct weir_str key, uint32_t i_added)
{
    uint32_t node = 0;

    if (key.len == 0)
        return;
    for (size_t i = 0; i < key.len; i++) {
        struct tok_trie_edge *edge = find_edge(trie, node, (uint8_t)key.ptr[i]);
        if (edge->child == 0) {
            WEIR_BUG_ON(trie->n_nodes == trie->n_nodes_max); /* the caller counted the bytes */
            *edge = (struct tok_trie_edge){ node, trie->n_nodes++, (uint8_t)key.ptr[i] };
            if (node == 0)
                trie->root[edge->byte] = edge->child;
        }
        node = edge->child;
    }
    if (trie->added_1[node] == 0) /* of equal spellings the first stays */
        trie->added_1[node] = i_added + 1;
    trie->any = true;
}

/* The longest token that begins at `at`: its index + 1 and end, or 0. */
static uint32_t longest_at(const struct tok_trie *trie, struct weir_str text, size_t at, size_t *ret_end)
{
    uint32_t found = 0;
    uint32_t node = trie->root[(uint8_t)text.ptr[at]];

    for (size_t i = at + 1; node != 0; i++) {
        if (trie->added_1[node] != 0) {
            found = trie->added_1[node];
            *ret_end = i;
        }
        if (i == text.len)
            break;
        node = find_edge(trie, node, (uint8_t)text.ptr[i])->child;
    }
    return found;
}

static bool word_before(struct weir_str text, size_t at)
{
    uint32_t c;
    size_t start = at;

    if (at == 0)
        return false;
    do
        start--;
    while (start > 0 && (text.ptr[start] & 0xc0) == 0x80);
    tok_char(text.ptr + start, &c);
    return tok_is_word(c);
}

static bool word_behind(struct weir_str text, size_t at)
{
    uint32_t c;

    if (at == text.len)
        return false;
    tok_char(text.ptr + at, &c);
    return tok_is_word(c);
}

static size_t spaces_before(struct weir_str text, size_t at, size_t least)
{
    while (at > least) {
        size_t start = at - 1;
        uint32_t c;
        while (start > least && (text.ptr[start] & 0xc0) == 0x80)
            start--;
        tok_char(text.ptr + start, &c);
        if (!tok_is_space(c))
            break;
        at = start;
    }
    return at;
}

static size_t spaces_behind(struct weir_str text, size_t at)
{
    while (at < text.len) {
        uint32_t c;
        size_t n = tok_char(text.ptr + at, &c);
        if (!tok_is_space(c))
            break;
        at += n;
    }
    return at;
}

bool tok_in_span(const struct tok_run *run, struct weir_str slice)
{
    size_t lo = 0, hi = run->n_spans;

    if (hi == 0 || slice.ptr < run->text.ptr || slice.ptr >= run->text.ptr + run->text.len)
        return false;
    size_t begin = (size_t)(slice.ptr - run->text.ptr);
    while (lo < hi) { /* the first span that ends behind the slice's begin */
        size_t middle = lo + (hi - lo) / 2;
        if (run->spans[middle].end > begin)
            hi = middle;
        else
            lo = middle + 1;
    }
    return lo < run->n_spans && run->spans[lo].begin < begin + slice.len;
}

static size_t count_special(const struct tok_trie *trie, struct tok_run *run, struct weir_str text,
                            bool *ret_in_span)
{
    size_t n = 0, end;

    for (size_t at = 0; at < text.len; at++) {
        uint32_t found = longest_at(trie, text, at, &end);
        if (found == 0 || !run->tok->added[found - 1].special)
            continue;
        n++;
        *ret_in_span = *ret_in_span || tok_in_span(run, (struct weir_str){ text.ptr + at, end - at });
    }
    return n;
}

bool tok_added_hides(struct tok_run *run, struct weir_str slice, struct weir_str normalized)
{
    const struct weir_tokenizer *tok = run->tok;
    bool in_span = false;

    if (!tok->norm_trie.any || !tok_in_span(run, slice))
        return false;
    size_t n_written = count_special(&tok->norm_as_written, run, slice, &in_span);
    return in_span || count_special(&tok->norm_trie, run, normalized, &in_span) > n_written;
}

bool tok_added_scan(struct tok_run *run, const struct tok_trie *trie, struct weir_str text, bool is_first,
                    bool (*rest)(struct tok_run *run, struct weir_str slice, bool is_first))
{
    size_t done = 0; /* text before this was handed on */

    for (size_t at = 0; trie->any && at < text.len;) {
        size_t end = 0;
        uint32_t found = longest_at(trie, text, at, &end);
        if (found == 0) {
            at++;
            continue;
        }
        const struct tok_added *added = &run->tok->added[found - 1];
        size_t start = at;
        if (added->special && tok_in_span(run, (struct weir_str){ text.ptr + start, end - start })) {
            at++; /* another may begin within, behind the span */
            continue;
        }
        at = end;
        if ((added->special && !run->parse_special) ||
            (added->single_word && (word_before(text, start) || word_behind(text, end))))
            continue;
        if (added->lstrip)
            start = spaces_before(text, start, done);
        if (added->rstrip)
            end = spaces_behind(text, end);
        if (start > done &&
            !rest(run, (struct weir_str){ text.ptr + done, start - done }, is_first && done == 0))
            return false;
        if (!tok_emit(run, added->id))
            return false;
        done = end;
    }
    return done == text.len ||
           rest(run, (struct weir_str){ text.ptr + done, text.len - done }, is_first && done == 0);
}

/* ---- loading ---- */

static weir_err read_added(struct tok_load *ld, struct weir_str obj, struct tok_added *ret)
{
    size_t id = SIZE_MAX;
    weir_err err = tok_get_str(ld, obj, "content", &ret->content);
    static const char *const names[] = { "special", "lstrip", "rstrip", "single_word", "normalized" };
    bool *const flags[] = { &ret->special, &ret->lstrip, &ret->rstrip, &ret->single_word, &ret->normalized };

    if (err == WEIR_OK)
        err = tok_get_size(ld, obj, "id", &id);
    for (size_t i = 0; err == WEIR_OK && i < sizeof names / sizeof *names; i++)
        err = tok_get_bool(ld, obj, names[i], flags[i]);
    if (err != WEIR_OK)
        return err;
    if (id >= TOK_VOCAB_MAX)
        return weir_fail(ld->why, WEIR_CORRUPT, "added_tokens: no id, or one of %d or more", TOK_VOCAB_MAX);
    if (ret->content.len > TOK_TOKEN_BYTES_MAX)
        return weir_fail(ld->why, WEIR_CORRUPT, "added_tokens: token %zu has more than %d bytes", id,
                         TOK_TOKEN_BYTES_MAX);
    ret->id = (uint32_t)id;
    return tok_keep(ld, ret->content, &ret->content);
}

static weir_err add_added(struct tok_load *ld, struct weir_str obj, int depth)
{
    struct weir_tokenizer *tok = ld->tok;
    struct tok_added *added = &tok->added[tok->n_added];
    weir_err err = read_added(ld, obj, added);

    (void)depth;
    if (err == WEIR_OK)
        tok->n_added++;
    return err;
}

static weir_err count_added(struct tok_load *ld, struct weir_str obj, int depth)
{
    (void)obj;
    (void)depth;
    if (++ld->tok->n_added > TOK_ADDED_MAX)
        return weir_fail(ld->why, WEIR_TOOLARGE, "added_tokens: more than %d", TOK_ADDED_MAX);
    return WEIR_OK;
}

weir_err tok_load_added(struct tok_load *ld, struct weir_str list)
{
    struct weir_tokenizer *tok = ld->tok;
    weir_err err = tok_each(ld, list, 0, count_added);

    if (err != WEIR_OK)
        return err;
    tok->added = weir_arena_alloc0(&tok->arena, ((size_t)tok->n_added + 1) * sizeof *tok->added);
    if (!tok->added)
        return weir_fail(ld->why, WEIR_NOMEM, "no memory for the added tokens");
    tok->n_added = 0;
    return tok_each(ld, list, 0, add_added);
}

/* The file's two lists must agree: one spelling, one id. */
static weir_err check_added(struct tok_load *ld, const struct tok_added *added)
{
    struct weir_tokenizer *tok = ld->tok;
    const struct weir_str *raw = &ld->raw[added->id];
    size_t len = 0;

    if (tok->added_1[added->id] != 0)
        return weir_fail(ld->why, WEIR_CORRUPT, "added_tokens: id %u comes twice", added->id);
    if (raw->ptr && (raw->len != added->content.len || memcmp(raw->ptr, added->content.ptr, raw->len) != 0))
        return weir_fail(ld->why, WEIR_CORRUPT, "added_tokens: id %u is \"%.*s\", in model.vocab \"%.*s\"",
                         added->id, TEXT_SHORT(added->content), TEXT_SHORT(*raw));
    char *bytes = weir_arena_alloc(&ld->scratch, added->content.len + 1);
    if (!bytes)
        return weir_fail(ld->why, WEIR_NOMEM, "no memory for the added tokens");
    struct weir_str key = added->content;
    if (tok->byte_level) {
        if (!tok_unmap_bytes(added->content, bytes, &len))
            return WEIR_OK;
        key = (struct weir_str){ bytes, len };
    }
    int32_t id = tok_map_find(&tok->map, tok->keys, key);
    if (id >= 0 && (uint32_t)id != added->id)
        return weir_fail(ld->why, WEIR_CORRUPT, "added_tokens: id %u has id %d in model.vocab", added->id,
                         id);
    return WEIR_OK;
}

/* as_written: the normalized ones' own spelling. */
static weir_err index_into(struct tok_load *ld, struct tok_trie *trie, bool normalized, bool as_written)
{
    struct weir_tokenizer *tok = ld->tok;
    struct weir_str *keys = weir_arena_alloc0(&ld->scratch, ((size_t)tok->n_added + 1) * sizeof *keys);
    struct tok_run run;
    size_t n_bytes = 0;
    weir_err err = keys ? WEIR_OK : WEIR_NOMEM;

    tok_run_init(&run, tok, TOK_TOKEN_BYTES_MAX);
    for (uint32_t i = 0; err == WEIR_OK && i < tok->n_added; i++) {
        struct weir_str key = tok->added[i].content;
        if (tok->added[i].normalized != normalized)
            continue;
        if (normalized && !as_written && !tok_normalize(&run, key, &key))
            err = run.err;
        char *kept = err == WEIR_OK ? weir_arena_strndup(&ld->scratch, key.ptr, key.len) : NULL;
        if (err == WEIR_OK && !kept)
            err = WEIR_NOMEM;
        keys[i] = (struct weir_str){ kept, key.len };
        n_bytes += key.len;
        if (err == WEIR_OK && n_bytes > TOK_ADDED_BYTES_MAX)
            err = WEIR_TOOLARGE;
    }
    tok_run_release(&run);
    if (err == WEIR_OK)
        err = tok_trie_init(trie, n_bytes, &tok->arena);
    if (err != WEIR_OK)
        return weir_fail(ld->why, err, "added_tokens: %s",
                         err == WEIR_NOMEM ? "no memory for them" : "together they are too long");
    /* Special ones first: of equal spellings the first stays. */
    for (int special = 1; special >= 0; special--)
        for (uint32_t i = 0; i < tok->n_added; i++)
            if (keys[i].len > 0 && tok->added[i].special == (special == 1))
                tok_trie_add(trie, keys[i], i);
    return WEIR_OK;
}

weir_err tok_index_added(struct tok_load *ld)
{
    struct weir_tokenizer *tok = ld->tok;
    weir_err err = WEIR_OK;

    tok->added_1 = weir_arena_alloc0(&tok->arena, ((size_t)tok->n_vocab + 1) * sizeof *tok->added_1);
    if (!tok->added_1)
        return weir_fail(ld->why, WEIR_NOMEM, "no memory for the added tokens");
    for (uint32_t i = 0; err == WEIR_OK && i < tok->n_added; i++) {
        err = check_added(ld, &tok->added[i]);
        tok->added_1[tok->added[i].id] = i + 1;
    }
    if (err == WEIR_OK)
        err = index_into(ld, &tok->raw_trie, /* normalized= */ false, /* as_written= */ false);
    if (err == WEIR_OK)
        err = index_into(ld, &tok->norm_trie, /* normalized= */ true, /* as_written= */ false);
    if (err == WEIR_OK && tok->n_norm > 0)
        err = index_into(ld, &tok->norm_as_written, /* normalized= */ true, /* as_written= */ true);
    return err;
}
