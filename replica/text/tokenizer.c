/* tokenizer.c - a text becomes ids; and what is asked of a loaded tokenizer.
 *
 * The text is checked to be UTF-8 here, once; everything behind relies on it, and every step keeps it so.
 *   [T1] At most n_max ids are ever made: the text is left where it has too many.
 *   [T2] A tokenizer is only read while it is used, but for `whole` (tok_int.h).
 *   [T3] No special token is found that has a byte within a span of somebody's own words. */
#include "replica/text/tok_int.h"

#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"

/* ---- a run ---- */

void tok_run_init(struct tok_run *run, const struct weir_tokenizer *tok, size_t text_len)
{
    size_t limit = TOK_GROWTH_MAX * (text_len + 1024);

    memset(run, 0, sizeof *run);
    run->tok = tok;
    run->n_max = SIZE_MAX;
    for (int i = 0; i < 2; i++)
        weir_buf_init(&run->norm_buf[i], limit);
    for (int i = 0; i < TOK_STEPS_MAX; i++)
        weir_buf_init(&run->step_buf[i], limit);
}

void tok_run_release(struct tok_run *run)
{
    weir_free(run->ids);
    weir_free(run->syms);
    weir_free(run->heap);
    tok_match_data_free(run->match_data);
    for (int i = 0; i < 2; i++)
        weir_buf_release(&run->norm_buf[i]);
    for (int i = 0; i < TOK_STEPS_MAX; i++)
        weir_buf_release(&run->step_buf[i]);
}

bool tok_fail(struct tok_run *run, weir_err err, const char *text)
{
    if (run->err == WEIR_OK) {
        run->err = err;
        run->err_text = text;
    }
    return false;
}

bool tok_emit(struct tok_run *run, uint32_t id)
{
    if (run->n_ids == run->n_max) /* [T1] */
        return tok_fail(run, WEIR_TOOLARGE, "the text has too many tokens");
    if (run->n_ids == run->ids_cap) {
        size_t cap = run->ids_cap ? 2 * run->ids_cap : 256;
        int32_t *ids = weir_realloc(run->ids, cap * sizeof *ids);
        if (!ids)
            return tok_fail(run, WEIR_NOMEM, "no memory for the tokens");
        run->ids = ids;
        run->ids_cap = cap;
    }
    run->ids[run->n_ids++] = (int32_t)id;
    return true;
}

static bool encode_rest(struct tok_run *run, struct weir_str slice, bool is_first)
{
    return tok_pre(run, 0, slice, is_first);
}

static bool normalize_only(struct tok_run *run, struct weir_str slice, bool is_first)
{
    struct weir_str text;

    return tok_normalize(run, slice, &text) && encode_rest(run, text, is_first);
}

/* Between the added tokens as written: normalize, then look for those that are normalized too. A span does not
 * survive normalizing, so a slice where somebody's own words spell such a token is cut at the others first [T3]. */
static bool normalize_rest(struct tok_run *run, struct weir_str slice, bool is_first)
{
    const struct weir_tokenizer *tok = run->tok;
    struct weir_str text;

    if (tok->n_norm == 0)
        return tok_added_scan(run, &tok->norm_trie, slice, is_first, encode_rest);
    if (!tok_normalize(run, slice, &text))
        return false;
    if (tok_added_hides(run, slice, text))
        return tok_added_scan(run, &tok->norm_as_written, slice, is_first, normalize_only);
    return tok_added_scan(run, &tok->norm_trie, text, is_first, encode_rest);
}

static weir_err run_text(struct tok_run *run, struct weir_str text, bool add_bos, struct weir_arena *arena,
                         struct weir_tokens *ret)
{
    bool ok = true;

    for (uint32_t i = 0; ok && add_bos && i < run->tok->n_begin; i++)
        ok = tok_emit(run, (uint32_t)run->tok->begin[i]);
    if (!ok || !tok_added_scan(run, &run->tok->raw_trie, text, /* is_first= */ true, normalize_rest))
        return run->err;
    int32_t *ids = weir_arena_alloc(arena, (run->n_ids + 1) * sizeof *ids);
    if (!ids) {
        tok_fail(run, WEIR_NOMEM, "no memory for the tokens");
        return run->err;
    }
    if (run->n_ids > 0)
        memcpy(ids, run->ids, run->n_ids * sizeof *ids);
    *ret = (struct weir_tokens){ ids, run->n_ids };
    return WEIR_OK;
}

static weir_err tokenize(const struct weir_tokenizer *tok, struct weir_str text,
                         const struct weir_span *spans, size_t n_spans, bool parse_special, bool add_bos,
                         size_t n_max, struct weir_arena *arena, struct weir_tokens *ret,
                         struct weir_why *why)
{
    struct tok_run run;

    if (text.len > TOK_TEXT_BYTES_MAX)
        return weir_fail(why, WEIR_TOOLARGE, "the text has more than %zu bytes", TOK_TEXT_BYTES_MAX);
    if (!weir_utf8_valid(text.ptr, text.len))
        return weir_fail(why, WEIR_INVALID, "the text is not UTF-8");
    tok_run_init(&run, tok, text.len);
    run.parse_special = parse_special;
    run.text = text;
    run.spans = spans;
    run.n_spans = n_spans;
    run.n_max = n_max;
    weir_err err = run_text(&run, text, add_bos, arena, ret);
    if (err != WEIR_OK)
        weir_fail(why, err, "%s", run.err_text);
    tok_run_release(&run);
    return err;
}

weir_err weir_tokenize(const struct weir_tokenizer *tok, struct weir_str text, bool parse_special,
                       bool add_bos, size_t n_max, struct weir_arena *arena, struct weir_tokens *ret,
                       struct weir_why *why)
{
    return tokenize(tok, text, NULL, 0, parse_special, add_bos, n_max, arena, ret, why);
}

static bool in_order(const struct weir_span *spans, size_t n, size_t len)
{
    size_t at = 0;

    for (size_t i = 0; i < n; at = spans[i++].end)
        if (spans[i].begin < at || spans[i].end < spans[i].begin || spans[i].end > len)
            return false;
    return true;
}

weir_err weir_tokenizer_encode_spans(const struct weir_tokenizer *tok, struct weir_str text,
                                     const struct weir_span *spans, size_t n_spans, bool add_bos,
                                     size_t n_max, struct weir_arena *arena, struct weir_tokens *ret,
                                     struct weir_why *why)
{
    if (!in_order(spans, n_spans, text.len))
        return weir_fail(why, WEIR_INVALID, "the spans are not in order, or pass the text's end");
    return tokenize(tok, text, spans, n_spans, /* parse_special= */ true, add_bos, n_max, arena, ret, why);
}

/* ---- questions ---- */

size_t weir_tokenizer_vocab(const struct weir_tokenizer *tok)
{
    return tok->n_vocab;
}

bool weir_token_is_special(const struct weir_tokenizer *tok, int32_t id)
{
    if (id < 0 || (uint32_t)id >= tok->n_vocab || tok->added_1[id] == 0)
        return false;
    return tok->added[tok->added_1[id] - 1].special;
}

struct weir_str weir_token_bytes(const struct weir_tokenizer *tok, int32_t id, bool with_special)
{
    if (id < 0 || (uint32_t)id >= tok->n_vocab || (!with_special && weir_token_is_special(tok, id)))
        return (struct weir_str){ "", 0 };
    return tok->bytes[id].ptr ? tok->bytes[id] : (struct weir_str){ "", 0 };
}

int32_t weir_token_id(const struct weir_tokenizer *tok, struct weir_str token)
{
    for (uint32_t i = 0; i < tok->n_added; i++) {
        const struct weir_str *content = &tok->added[i].content;
        if (content->len == token.len && memcmp(content->ptr, token.ptr, token.len) == 0)
            return (int32_t)tok->added[i].id;
    }
    return -1;
}

struct weir_str weir_tokenizer_bos(const struct weir_tokenizer *tok)
{
    return tok->bos;
}

struct weir_str weir_tokenizer_eos(const struct weir_tokenizer *tok)
{
    return tok->eos;
}

const uint8_t *weir_tokenizer_hash(const struct weir_tokenizer *tok)
{
    return tok->hash;
}
