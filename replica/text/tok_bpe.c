/* tok_bpe.c - byte-pair encoding of one piece.
 *
 * A piece becomes symbols, one a byte (byte-level) or one a character, which are then merged, the lowest rank
 * first and the leftmost of equals. Three things keep that fast without changing the result: [P1] A piece is
 * cut wherever no merge of the vocabulary joins its two neighbours: the parts are independent. [P2] A part
 * that spells a token which its own merges lead to is that token; this is found out once a token. [P3] Parts
 * of more than SHORT_MAX symbols go through a heap: O(n log n) for any text. Unknown characters fall back to
 * byte tokens, then to the unknown token, then to nothing. Memory: the run's scratch, grown to the longest
 * part. Source: Sennrich et al. 2016; the order of ties and of fallbacks follows the `tokenizers` package. */
#include "replica/text/tok_int.h"

#include <stdatomic.h>
#include <string.h>

#include "base/mem.h"

enum { SHORT_MAX = 48 };

/* ---- merging ---- */

static uint32_t pair_rank(const struct weir_tokenizer *tok, uint32_t left, uint32_t right)
{
    const struct tok_merge *m = tok_merges_find(&tok->merges, left, right);

    return m ? m->rank : TOK_NO_RANK;
}

/* Few symbols: look for the lowest rank each time. Returns how many are left, at the front of `syms`. */
static size_t merge_short(const struct weir_tokenizer *tok, struct tok_sym *syms, size_t n)
{
    for (size_t i = 0; i + 1 < n; i++)
        syms[i].rank = pair_rank(tok, syms[i].id, syms[i + 1].id);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (syms[i].rank < syms[best].rank)
                best = i;
        if (syms[best].rank == TOK_NO_RANK)
            break;
        syms[best].id = tok_merges_find(&tok->merges, syms[best].id, syms[best + 1].id)->id;
        memmove(&syms[best + 1], &syms[best + 2], (n - best - 2) * sizeof *syms);
        n--;
        if (best + 1 < n)
            syms[best].rank = pair_rank(tok, syms[best].id, syms[best + 1].id);
        if (best > 0)
            syms[best - 1].rank = pair_rank(tok, syms[best - 1].id, syms[best].id);
    }
    return n;
}

/* A heap of rank << 32 | index, smallest on top, four children a node. */
struct heap {
    uint64_t *at;
    size_t n;
};

static void heap_down(struct heap *h, size_t i)
{
    uint64_t x = h->at[i];

    for (;;) {
        size_t child = 4 * i + 1, least = child;
        if (child >= h->n)
            break;
        for (size_t c = child + 1; c < child + 4 && c < h->n; c++)
            if (h->at[c] < h->at[least])
                least = c;
        if (h->at[least] >= x)
            break;
        h->at[i] = h->at[least];
        i = least;
    }
    h->at[i] = x;
}

static void heap_push(struct heap *h, uint64_t x)
{
    size_t i = h->n++;

    while (i > 0 && h->at[(i - 1) / 4] > x) {
        h->at[i] = h->at[(i - 1) / 4];
        i = (i - 1) / 4;
    }
    h->at[i] = x;
}

static uint64_t heap_pop(struct heap *h)
{
    uint64_t top = h->at[0];

    h->at[0] = h->at[--h->n];
    if (h->n > 0)
        heap_down(h, 0);
    return top;
}

/* Sets the rank of the pair at `i` and queues it. */
static void queue_pair(const struct weir_tokenizer *tok, struct tok_sym *syms, struct heap *h, int32_t i)
{
    int32_t next = syms[i].next;

    syms[i].rank = next < 0 ? TOK_NO_RANK : pair_rank(tok, syms[i].id, syms[next].id);
    if (syms[i].rank != TOK_NO_RANK)
        heap_push(h, (uint64_t)syms[i].rank << 32 | (uint32_t)i);
}

/* Many symbols. `heap` has room for 3 n: each merge takes one entry out and puts two in, and there are fewer
 * than n. */
static size_t merge_long(const struct weir_tokenizer *tok, struct tok_sym *syms, size_t n, uint64_t *heap)
{
    struct heap h = { heap, 0 };

    for (size_t i = 0; i < n; i++) {
        syms[i].prev = (int32_t)i - 1;
        syms[i].next = i + 1 < n ? (int32_t)i + 1 : -1;
    }
    for (size_t i = 0; i + 1 < n; i++)
        queue_pair(tok, syms, &h, (int32_t)i);
    while (h.n > 0) {
        uint64_t top = heap_pop(&h);
        int32_t i = (int32_t)(uint32_t)top;
        if (syms[i].rank != (uint32_t)(top >> 32))
            continue; /* a pair that is no more */
        int32_t gone = syms[i].next, next = syms[gone].next;
        syms[i].id = tok_merges_find(&tok->merges, syms[i].id, syms[gone].id)->id;
        syms[i].next = next;
        syms[gone].rank = TOK_NO_RANK;
        if (next >= 0)
            syms[next].prev = i;
        queue_pair(tok, syms, &h, i);
        if (syms[i].prev >= 0)
            queue_pair(tok, syms, &h, syms[i].prev);
    }
    size_t n_left = 0;
    for (int32_t i = 0; i >= 0; i = syms[i].next)
        syms[n_left++].id = syms[i].id;
    return n_left;
}

static bool reserve_heap(struct tok_run *run, size_t n)
{
    if (3 * n <= run->heap_cap)
        return true;
    weir_free(run->heap);
    run->heap_cap = 0;
    run->heap = weir_alloc(3 * n * sizeof *run->heap);
    if (!run->heap)
        return tok_fail(run, WEIR_NOMEM, "no memory for the tokens");
    run->heap_cap = 3 * n;
    return true;
}

/* Symbols [0, n) of `syms` are one part; text is what it spells, empty when an odd symbol is in it. */
static bool encode_part(struct tok_run *run, struct tok_sym *syms, size_t n, struct weir_str text)
{
    const struct weir_tokenizer *tok = run->tok;
    int32_t whole = -1;

    if (n == 1)
        return tok_emit(run, syms[0].id);
    if (text.len > 0 && text.len <= tok->n_key_max) { /* [P2] */
        whole = tok_map_find(&tok->map, tok->keys, text);
        if (whole >= 0 && atomic_load_explicit(&tok->whole[whole], memory_order_relaxed) == 1)
            return tok_emit(run, (uint32_t)whole);
    }
    if (n > SHORT_MAX && !reserve_heap(run, n))
        return false;
    n = n > SHORT_MAX ? merge_long(tok, syms, n, run->heap) : merge_short(tok, syms, n);
    if (whole >= 0)
        atomic_store_explicit(&tok->whole[whole], n == 1 && syms[0].id == (uint32_t)whole ? 1 : 2,
                              memory_order_relaxed);
    for (size_t i = 0; i < n; i++)
        if (!tok_emit(run, syms[i].id))
            return false;
    return true;
}

/* ---- symbols ---- */

/* The part being gathered: its symbols, and where its text begins. */
struct part {
    size_t n, text_start;
    uint32_t last_code;
    bool odd;
};

static bool part_flush(struct tok_run *run, struct part *part, struct weir_str piece, size_t text_end)
{
    struct weir_str text = { piece.ptr + part->text_start, part->odd ? 0 : text_end - part->text_start };
    bool ok = part->n == 0 || encode_part(run, run->syms, part->n, text);

    part->n = 0;
    part->text_start = text_end;
    part->odd = false;
    return ok;
}

static bool reserve_syms(struct tok_run *run, size_t n)
{
    size_t cap = run->syms_cap ? run->syms_cap : 256;

    while (cap < n)
        cap *= 2;
    struct tok_sym *syms = weir_realloc(run->syms, cap * sizeof *syms);
    if (!syms)
        return tok_fail(run, WEIR_NOMEM, "no memory for the tokens");
    run->syms = syms;
    run->syms_cap = cap;
    return true;
}

/* Adds a symbol whose text begins at `at`; cuts in front of it where nothing can join [P1]. */
static bool part_add(struct tok_run *run, struct part *part, struct weir_str piece, size_t at, uint32_t id,
                     uint32_t code)
{
    if (part->n > 0 && code != TOK_ODD && part->last_code != TOK_ODD &&
        !tok_cross_has(&run->tok->cross, part->last_code, code) && !part_flush(run, part, piece, at))
        return false;
    if (part->n == run->syms_cap && !reserve_syms(run, part->n + 1))
        return false;
    run->syms[part->n++].id = id;
    part->last_code = code;
    part->odd |= code == TOK_ODD;
    return true;
}

static bool bpe_bytes(struct tok_run *run, struct weir_str piece)
{
    const struct weir_tokenizer *tok = run->tok;
    struct part part = { 0 };

    for (size_t i = 0; i < piece.len; i++) {
        uint8_t byte = (uint8_t)piece.ptr[i];
        int32_t id = tok->byte_ids[byte];
        uint32_t code = byte;
        if (id < 0) { /* a vocabulary without this byte */
            part.odd = true;
            code = TOK_ODD;
            id = tok->unk;
        }
        if (id >= 0 && !part_add(run, &part, piece, i, (uint32_t)id, code))
            return false;
    }
    return part_flush(run, &part, piece, piece.len);
}

static int32_t char_id(const struct weir_tokenizer *tok, struct weir_str character, uint32_t c)
{
    return c < 0x80 ? tok->ascii_ids[c] : tok_map_find(&tok->map, tok->keys, character);
}

/* Byte tokens for a character that the vocabulary lacks; false when one of them is missing too. */
static bool has_bytes(const struct weir_tokenizer *tok, struct weir_str character)
{
    if (!tok->byte_fallback)
        return false;
    if (tok->all_bytes)
        return true;
    for (size_t i = 0; i < character.len; i++)
        if (tok->byte_ids[(uint8_t)character.ptr[i]] < 0)
            return false;
    return true;
}

static bool bpe_chars(struct tok_run *run, struct weir_str piece)
{
    const struct weir_tokenizer *tok = run->tok;
    struct part part = { 0 };
    bool unk = false; /* an unknown symbol waits: more may be fused into it */
    bool ok = true;

    for (size_t i = 0; ok && i < piece.len;) {
        uint32_t c;
        struct weir_str character = { piece.ptr + i, tok_char(piece.ptr + i, &c) };
        int32_t id = char_id(tok, character, c);
        if (id >= 0) {
            if (unk)
                ok = part_add(run, &part, piece, i, (uint32_t)tok->unk, TOK_ODD);
            unk = false;
            ok = ok && part_add(run, &part, piece, i, (uint32_t)id, c);
        } else if (has_bytes(tok, character)) {
            for (size_t k = 0; ok && k < character.len; k++)
                ok = part_add(run, &part, piece, i, (uint32_t)tok->byte_ids[(uint8_t)character.ptr[k]],
                              TOK_ODD);
        } else {
            if (unk && !tok->fuse_unk)
                ok = part_add(run, &part, piece, i, (uint32_t)tok->unk, TOK_ODD);
            unk = tok->unk >= 0;
            part.odd = true; /* the text has a hole */
        }
        i += character.len;
    }
    if (ok && unk)
        ok = part_add(run, &part, piece, piece.len, (uint32_t)tok->unk, TOK_ODD);
    return ok && part_flush(run, &part, piece, piece.len);
}

bool tok_bpe(struct tok_run *run, struct weir_str piece)
{
    const struct weir_tokenizer *tok = run->tok;

    if (piece.len == 0)
        return true;
    if (tok->ignore_merges && piece.len <= tok->n_key_max) {
        int32_t id = tok_map_find(&tok->map, tok->keys, piece);
        if (id >= 0 && (run->n_spans == 0 || !weir_token_is_special(tok, id))) /* [T3] */
            return tok_emit(run, (uint32_t)id);
    }
    return tok->byte_level ? bpe_bytes(run, piece) : bpe_chars(run, piece);
}
