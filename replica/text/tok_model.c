/* tok_model.c - loading the vocabulary and its merges.
 *
 * A byte-level model's spellings are turned from GPT-2's alphabet into the bytes they stand for, so that
 * texts never have to be turned into the alphabet. Ids and spellings are one to one, ids leave few holes: a
 * file that breaks this is refused before memory is taken by its largest id. */
#include "replica/text/tok_int.h"

#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"

struct entry {
    struct weir_str raw;
    uint32_t id;
};
struct entries {
    struct entry *at;
    size_t n, cap;
    uint32_t id_max;
};

static weir_err no_memory(struct tok_load *ld)
{
    return weir_fail(ld->why, WEIR_NOMEM, "no memory for the vocabulary");
}

/* The sub-document's first error, with its place; the file is at fault. */
static weir_err finish(struct tok_load *ld, struct weir_json *j, const char *where)
{
    struct weir_why why = { 0 };
    weir_err err = weir_json_end(j, &why);

    if (err == WEIR_OK)
        return WEIR_OK;
    return weir_fail(ld->why, err == WEIR_INVALID ? WEIR_CORRUPT : err, "%s: %s", where, why.text);
}

static bool entries_add(struct entries *e, struct weir_str raw, uint32_t id)
{
    if (e->n == e->cap) {
        size_t cap = e->cap ? 2 * e->cap : 1024;
        struct entry *at = weir_realloc(e->at, cap * sizeof *at);
        if (!at)
            return false;
        e->at = at;
        e->cap = cap;
    }
    e->at[e->n++] = (struct entry){ raw, id };
    if (id > e->id_max)
        e->id_max = id;
    return true;
}

static weir_err read_vocab(struct tok_load *ld, struct weir_str vocab, struct entries *ret)
{
    struct weir_json j;
    struct weir_str key;
    int64_t id;

    weir_json_init(&j, vocab.ptr, vocab.len, &ld->scratch);
    if (weir_json_object(&j)) {
        while (weir_json_key(&j, &key) && weir_json_i64(&j, &id)) {
            if (id < 0 || id >= TOK_VOCAB_MAX)
                weir_json_fail(&j, WEIR_CORRUPT, "the id is outside [0, %d)", TOK_VOCAB_MAX);
            else if (key.len > TOK_TOKEN_BYTES_MAX)
                weir_json_fail(&j, WEIR_CORRUPT, "the token has more than %d bytes", TOK_TOKEN_BYTES_MAX);
            else if (ret->n == TOK_VOCAB_MAX)
                weir_json_fail(&j, WEIR_TOOLARGE, "more than %d tokens", TOK_VOCAB_MAX);
            else if (!entries_add(ret, key, (uint32_t)id))
                weir_json_fail(&j, WEIR_NOMEM, "no memory for the vocabulary");
        }
    }
    return finish(ld, &j, "model.vocab");
}

/* The bytes by which the token is looked up; *ret.ptr NULL when no text can spell it. */
static weir_err make_key(struct tok_load *ld, struct weir_str raw, struct weir_str *ret)
{
    if (!ld->tok->byte_level)
        return tok_keep(ld, raw, ret);
    char *bytes = weir_arena_alloc(&ld->tok->arena, raw.len + 1);
    size_t len = 0;
    if (!bytes)
        return no_memory(ld);
    bool spelled = tok_unmap_bytes(raw, bytes, &len);
    *ret = (struct weir_str){ spelled ? bytes : NULL, spelled ? len : 0 };
    return WEIR_OK;
}

static weir_err add_token(struct tok_load *ld, const struct entry *entry)
{
    struct weir_tokenizer *tok = ld->tok;
    struct weir_str *key = &tok->keys[entry->id];

    if (ld->raw[entry->id].ptr)
        return weir_fail(ld->why, WEIR_CORRUPT, "model.vocab: id %u comes twice", entry->id);
    ld->raw[entry->id] = entry->raw;
    weir_err err = make_key(ld, entry->raw, key);
    if (err != WEIR_OK || key->len == 0)
        return err;
    if (!tok_map_add(&tok->map, tok->keys, entry->id))
        return weir_fail(ld->why, WEIR_CORRUPT, "model.vocab: the token of id %u comes twice", entry->id);
    if (key->len > tok->n_key_max)
        tok->n_key_max = (uint32_t)key->len;
    return WEIR_OK;
}

static weir_err make_vocab(struct tok_load *ld, const struct entries *e)
{
    struct weir_tokenizer *tok = ld->tok;
    uint32_t id_max = e->id_max;

    for (uint32_t i = 0; i < tok->n_added; i++)
        if (tok->added[i].id > id_max)
            id_max = tok->added[i].id;
    tok->n_vocab = id_max + 1;
    if (tok->n_vocab > 2 * (e->n + tok->n_added) + 4096)
        return weir_fail(ld->why, WEIR_CORRUPT, "model.vocab: the ids up to %u have too many holes", id_max);
    tok->keys = weir_arena_alloc0(&tok->arena, tok->n_vocab * sizeof *tok->keys);
    tok->whole = weir_arena_alloc0(&tok->arena, tok->n_vocab * sizeof *tok->whole);
    ld->raw = weir_arena_alloc0(&ld->scratch, tok->n_vocab * sizeof *ld->raw);
    if (!tok->keys || !tok->whole || !ld->raw || tok_map_init(&tok->map, e->n, &tok->arena) != WEIR_OK)
        return no_memory(ld);
    weir_err err = WEIR_OK;
    for (size_t i = 0; err == WEIR_OK && i < e->n; i++)
        err = add_token(ld, &e->at[i]);
    return err;
}

/* Ids of the single bytes, of the ASCII characters, of the byte tokens. */
static void index_symbols(struct weir_tokenizer *tok)
{
    tok->all_bytes = true;
    for (int i = 0; i < 256; i++) {
        char byte = (char)i, name[8];
        struct weir_str key = { &byte, 1 };
        if (i < 128)
            tok->ascii_ids[i] = tok_map_find(&tok->map, tok->keys, key);
        if (!tok->byte_level) {
            snprintf(name, sizeof name, "<0x%02X>", (unsigned)i);
            key = weir_str(name);
        }
        tok->byte_ids[i] = tok_map_find(&tok->map, tok->keys, key);
        tok->all_bytes = tok->all_bytes && tok->byte_ids[i] >= 0;
    }
}

/* ---- merges ---- */

/* Reads "a b" or ["a", "b"]. */
static bool read_pair(struct weir_json *j, struct weir_str *ret_left, struct weir_str *ret_right)
{
    struct weir_str pair;

    if (weir_json_peek(j) == WEIR_JSON_ARRAY) {
        if (!weir_json_array(j) || !weir_json_next(j) || !weir_json_string(j, ret_left) ||
            !weir_json_next(j) || !weir_json_string(j, ret_right))
            return weir_json_ok(j) && weir_json_fail(j, WEIR_CORRUPT, "a merge has two parts");
        return !weir_json_next(j) ? weir_json_ok(j)
                                  : weir_json_fail(j, WEIR_CORRUPT, "a merge has two parts");
    }
    if (!weir_json_string(j, &pair))
        return false;
    const char *space = memchr(pair.ptr, ' ', pair.len);
    if (!space || memchr(space + 1, ' ', (size_t)(pair.ptr + pair.len - space - 1)))
        return weir_json_fail(j, WEIR_CORRUPT, "a merge is two parts and one space");
    *ret_left = (struct weir_str){ pair.ptr, (size_t)(space - pair.ptr) };
    *ret_right = (struct weir_str){ space + 1, pair.len - ret_left->len - 1 };
    return true;
}

/* The two spellings' bytes, one behind the other; false when the byte alphabet lacks a character of them. */
static bool spell_pair(const struct weir_tokenizer *tok, struct weir_str left, struct weir_str right,
                       char *ret, size_t *ret_left_len, size_t *ret_len)
{
    size_t n_right = right.len;

    *ret_left_len = left.len;
    if (tok->byte_level) {
        if (!tok_unmap_bytes(left, ret, ret_left_len) ||
            !tok_unmap_bytes(right, ret + *ret_left_len, &n_right))
            return false;
    } else {
        memcpy(ret, left.ptr, left.len);
        memcpy(ret + left.len, right.ptr, right.len);
    }
    *ret_len = *ret_left_len + n_right;
    return true;
}

/* Remembers which symbols meet where this merge joins. */
static void note_cross(struct weir_tokenizer *tok, struct weir_str left, struct weir_str right)
{
    uint32_t a = (uint8_t)left.ptr[left.len - 1], b = (uint8_t)right.ptr[0];

    if (!tok->byte_level) {
        size_t start = left.len - 1;
        while (start > 0 && (left.ptr[start] & 0xc0) == 0x80)
            start--;
        tok_char(left.ptr + start, &a);
        tok_char(right.ptr, &b);
    }
    tok_cross_add(&tok->cross, a, b);
}

static bool add_merge(struct tok_load *ld, struct weir_json *j, uint32_t rank)
{
    struct weir_tokenizer *tok = ld->tok;
    struct weir_str left, right;
    char text[2 * TOK_TOKEN_BYTES_MAX];
    size_t n_left, n;

    if (!read_pair(j, &left, &right))
        return false;
    if (left.len > TOK_TOKEN_BYTES_MAX || right.len > TOK_TOKEN_BYTES_MAX)
        return weir_json_fail(j, WEIR_CORRUPT, "a part has more than %d bytes", TOK_TOKEN_BYTES_MAX);
    if (!spell_pair(tok, left, right, text, &n_left, &n))
        return true; /* no text can ever come to it */
    left = (struct weir_str){ text, n_left };
    right = (struct weir_str){ text + n_left, n - n_left };
    int32_t left_id = tok_map_find(&tok->map, tok->keys, left);
    int32_t right_id = tok_map_find(&tok->map, tok->keys, right);
    int32_t id = tok_map_find(&tok->map, tok->keys, (struct weir_str){ text, n });
    if (left_id < 0 || right_id < 0 || id < 0)
        return weir_json_fail(j, WEIR_CORRUPT, "%s is not in model.vocab",
                              left_id < 0 || right_id < 0 ? "a part" : "the result");
    struct tok_merge merge = { (uint32_t)left_id, (uint32_t)right_id, rank, (uint32_t)id };
    tok_merges_put(&tok->merges, &merge);
    note_cross(tok, left, right);
    return true;
}

static weir_err count_merges(struct tok_load *ld, struct weir_str merges, size_t *ret)
{
    struct weir_json j;

    *ret = 0;
    weir_json_init(&j, merges.ptr, merges.len, &ld->scratch);
    if (weir_json_array(&j))
        while (weir_json_next(&j) && weir_json_skip(&j))
            if (++*ret > TOK_MERGES_MAX)
                weir_json_fail(&j, WEIR_TOOLARGE, "more than %d merges", TOK_MERGES_MAX);
    return finish(ld, &j, "model.merges");
}

static weir_err read_merges(struct tok_load *ld, struct weir_str merges)
{
    struct weir_tokenizer *tok = ld->tok;
    struct weir_json j;
    size_t n = 0;
    weir_err err = count_merges(ld, merges, &n);

    if (err != WEIR_OK)
        return err;
    if (tok_merges_init(&tok->merges, n, &tok->arena) != WEIR_OK ||
        tok_cross_init(&tok->cross, n, tok->byte_level, &tok->arena) != WEIR_OK)
        return no_memory(ld);
    weir_json_init(&j, merges.ptr, merges.len, &ld->scratch);
    uint32_t rank = 0;
    if (weir_json_array(&j))
        while (weir_json_next(&j) && add_merge(ld, &j, rank))
            rank++;
    return finish(ld, &j, "model.merges");
}

/* ---- the rest of the model ---- */

/* One pass over the model's text, which is most of the file. */
enum { KIND, VOCAB, MERGES, DROPOUT, UNK, PREFIX, SUFFIX, BYTE_FALLBACK, FUSE_UNK, IGNORE_MERGES, N_MEMBERS };
static const char *const members[N_MEMBERS] = {
    "type",
    "vocab",
    "merges",
    "dropout",
    "unk_token",
    "continuing_subword_prefix",
    "end_of_word_suffix",
    "byte_fallback",
    "fuse_unk",
    "ignore_merges",
};

static weir_err check_unsupported(struct tok_load *ld, const struct weir_str raws[N_MEMBERS])
{
    struct weir_str kind = { 0 };
    weir_err err = tok_as_str(ld, raws[KIND], "type", &kind);

    if (err == WEIR_OK && kind.ptr && !weir_str_eq(kind, "BPE"))
        err = tok_unknown(ld, "model", kind);
    for (int i = PREFIX; err == WEIR_OK && i <= SUFFIX; i++) {
        struct weir_str affix = { 0 };
        err = tok_as_str(ld, raws[i], members[i], &affix);
        if (err == WEIR_OK && affix.len > 0)
            err = weir_fail(ld->why, WEIR_UNIMPLEMENTED, "model.%s is not supported", members[i]);
    }
    if (err == WEIR_OK && raws[DROPOUT].ptr && !weir_str_eq(raws[DROPOUT], "0.0") &&
        !weir_str_eq(raws[DROPOUT], "0"))
        err = weir_fail(ld->why, WEIR_UNIMPLEMENTED, "model.dropout is not supported");
    for (int i = VOCAB; err == WEIR_OK && i <= MERGES; i++)
        if (!raws[i].ptr)
            err = weir_fail(ld->why, WEIR_CORRUPT, "model.%s is missing", members[i]);
    return err;
}

static weir_err read_unk(struct tok_load *ld, struct weir_str raw)
{
    struct weir_tokenizer *tok = ld->tok;
    struct weir_str unk = { 0 }, key = { 0 };
    weir_err err = tok_as_str(ld, raw, "unk_token", &unk);

    tok->unk = -1;
    if (err != WEIR_OK || !unk.ptr)
        return err;
    err = make_key(ld, unk, &key);
    if (err != WEIR_OK)
        return err;
    tok->unk = tok_map_find(&tok->map, tok->keys, key);
    if (tok->unk < 0)
        return weir_fail(ld->why, WEIR_CORRUPT, "model.unk_token is not in model.vocab");
    return WEIR_OK;
}

weir_err tok_load_model(struct tok_load *ld, struct weir_str obj)
{
    struct weir_str raws[N_MEMBERS] = { 0 };
    struct weir_tokenizer *tok = ld->tok;
    struct entries entries = { 0 };
    weir_err err = tok_get_raws(ld, obj, members, N_MEMBERS, raws);

    if (err == WEIR_OK)
        err = check_unsupported(ld, raws);
    if (err == WEIR_OK)
        err = tok_as_bool(ld, raws[BYTE_FALLBACK], "byte_fallback", &tok->byte_fallback);
    if (err == WEIR_OK)
        err = tok_as_bool(ld, raws[FUSE_UNK], "fuse_unk", &tok->fuse_unk);
    if (err == WEIR_OK)
        err = tok_as_bool(ld, raws[IGNORE_MERGES], "ignore_merges", &tok->ignore_merges);
    if (err == WEIR_OK)
        err = read_vocab(ld, raws[VOCAB], &entries);
    if (err == WEIR_OK)
        err = make_vocab(ld, &entries);
    weir_free(entries.at);
    if (err != WEIR_OK)
        return err;
    index_symbols(tok);
    err = read_unk(ld, raws[UNK]);
    return err == WEIR_OK ? read_merges(ld, raws[MERGES]) : err;
}
