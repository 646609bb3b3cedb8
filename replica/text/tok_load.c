/* tok_load.c - a tokenizer from its files.
 *
 * Order matters: the pre-tokenizer says whether spellings are bytes, the added tokens how large ids get, and
 * both are needed to build the vocabulary; added tokens are indexed last, behind the normalizer. */
#include "replica/text/tok_int.h"

#include <string.h>

#include "base/hash.h"
#include "base/json.h"
#include "base/mem.h"
#include "replica/text/text_int.h"

enum { CONFIG_BYTES_MAX = 16 << 20 };

/* ---- post-processor: what stands in front of a text ---- */

/* The ids of one special token of the template, by its name. */
static weir_err add_begin(struct tok_load *ld, struct weir_str specials, struct weir_str name)
{
    struct weir_tokenizer *tok = ld->tok;
    struct weir_json j;
    struct weir_str special = { 0 }, ids = { 0 };
    int64_t id;
    char key[256];
    weir_err err;

    if (name.len >= sizeof key || memchr(name.ptr, 0, name.len))
        return weir_fail(ld->why, WEIR_CORRUPT, "post_processor: the name of a special token is too long");
    memcpy(key, name.ptr, name.len);
    key[name.len] = 0;
    err = tok_get_raw(ld, specials, key, &special);
    if (err == WEIR_OK && special.ptr)
        err = tok_get_raw(ld, special, "ids", &ids);
    if (err == WEIR_OK && !ids.ptr)
        err = weir_fail(ld->why, WEIR_CORRUPT, "post_processor: the special token \"%s\" has no ids", key);
    if (err != WEIR_OK)
        return err;
    weir_json_init(&j, ids.ptr, ids.len, &ld->scratch);
    if (weir_json_array(&j)) {
        while (weir_json_next(&j) && weir_json_i64(&j, &id)) {
            if (id < 0 || id >= tok->n_vocab || tok->n_begin == TOK_BEGIN_MAX)
                return weir_fail(ld->why, WEIR_CORRUPT,
                                 "post_processor: more than %d ids, or an id past the vocabulary",
                                 TOK_BEGIN_MAX);
            tok->begin[tok->n_begin++] = (int32_t)id;
        }
    }
    return weir_json_ok(&j) ? WEIR_OK
                            : weir_fail(ld->why, WEIR_CORRUPT, "post_processor: ids: %s", j.why.text);
}

/* One piece of the template's `single`; the specials before the first Sequence count. */
static weir_err load_piece(struct tok_load *ld, struct weir_str obj, int depth)
{
    static const char *const keys[] = { "Sequence", "SpecialToken" };
    struct weir_str raws[2] = { 0 }, name = { 0 };
    weir_err err = tok_get_raws(ld, obj, keys, 2, raws);

    (void)depth;
    ld->in_text = ld->in_text || raws[0].ptr;
    if (err != WEIR_OK || ld->in_text || !raws[1].ptr)
        return err;
    err = tok_get_str(ld, raws[1], "id", &name);
    if (err == WEIR_OK && !name.ptr)
        err = weir_fail(ld->why, WEIR_CORRUPT, "post_processor: a SpecialToken has no id");
    return err == WEIR_OK ? add_begin(ld, ld->specials, name) : err;
}

weir_err tok_load_post(struct tok_load *ld, struct weir_str obj, int depth)
{
    struct weir_str kind = { 0 };
    weir_err err = tok_get_str(ld, obj, "type", &kind);

    if (err != WEIR_OK || weir_str_eq(kind, "ByteLevel")) /* trims offsets, which nobody asks for */
        return err;
    if (weir_str_eq(kind, "Sequence"))
        return tok_each_of(ld, obj, "processors", depth, tok_load_post);
    if (!weir_str_eq(kind, "TemplateProcessing"))
        return tok_unknown(ld, "post_processor", kind);
    ld->in_text = false;
    ld->specials = WEIR_STR("{}");
    err = tok_get_raw(ld, obj, "special_tokens", &ld->specials);
    return err == WEIR_OK ? tok_each_of(ld, obj, "single", depth, load_piece) : err;
}

/* ---- tokenizer_config.json ---- */

/* "bos_token": "<s>" or {"content": "<s>", ...} */
static weir_err config_token(struct tok_load *ld, struct weir_str config, const char *key,
                             struct weir_str *ret)
{
    struct weir_str raw = { 0 }, text = { 0 };
    weir_err err = tok_get_raw(ld, config, key, &raw);

    if (err != WEIR_OK || !raw.ptr)
        return err;
    err = raw.ptr[0] == '{' ? tok_get_str(ld, raw, "content", &text) : tok_get_str(ld, config, key, &text);
    if (err != WEIR_OK || !text.ptr)
        return err;
    return tok_keep(ld, text, ret);
}

/* The config's add_bos_token overrules the post-processor, as it does in the package that wrote both files.
 */
static weir_err config_begin(struct tok_load *ld, struct weir_str config)
{
    struct weir_tokenizer *tok = ld->tok;
    struct weir_str raw = { 0 };
    bool add = false;
    weir_err err = tok_get_raw(ld, config, "add_bos_token", &raw);

    if (err == WEIR_OK)
        err = tok_get_bool(ld, config, "add_bos_token", &add);
    if (err != WEIR_OK || !raw.ptr)
        return err;
    int32_t bos = tok->bos.len ? weir_token_id(tok, tok->bos) : -1;
    if (!add) {
        tok->n_begin = 0;
    } else if (tok->n_begin == 0 && bos >= 0) {
        tok->begin[0] = bos;
        tok->n_begin = 1;
    }
    return WEIR_OK;
}

static weir_err load_config(struct tok_load *ld, struct weir_str config)
{
    weir_err err = WEIR_OK;

    if (config.len == 0)
        return WEIR_OK;
    err = config_token(ld, config, "bos_token", &ld->tok->bos);
    if (err == WEIR_OK)
        err = config_token(ld, config, "eos_token", &ld->tok->eos);
    if (err == WEIR_OK)
        err = config_begin(ld, config);
    if (err != WEIR_OK && ld->why) {
        struct weir_why why = *ld->why;
        return weir_fail(ld->why, err, "tokenizer_config.json: %s", why.text);
    }
    return err;
}

/* ---- the whole ---- */

enum { ROOT_ADDED, ROOT_NORM, ROOT_PRE, ROOT_POST, ROOT_DECODER, ROOT_MODEL, N_ROOT };
static const char *const root_keys[N_ROOT] = { "added_tokens",   "normalizer", "pre_tokenizer",
                                               "post_processor", "decoder",    "model" };

static weir_err load_parts(struct tok_load *ld, struct weir_str json)
{
    struct weir_str root[N_ROOT] = { 0 };
    weir_err err = tok_get_raws(ld, json, root_keys, N_ROOT, root);

    if (err == WEIR_OK && !root[ROOT_MODEL].ptr)
        err = weir_fail(ld->why, WEIR_CORRUPT, "\"model\" is missing");
    if (err == WEIR_OK && root[ROOT_NORM].ptr)
        err = tok_load_norm(ld, root[ROOT_NORM], 0);
    if (err == WEIR_OK && root[ROOT_PRE].ptr)
        err = tok_load_pre(ld, root[ROOT_PRE], 0);
    if (err == WEIR_OK)
        err = tok_load_added(ld, root[ROOT_ADDED]);
    if (err == WEIR_OK)
        err = tok_load_model(ld, root[ROOT_MODEL]);
    if (err == WEIR_OK)
        err = tok_index_added(ld);
    if (err == WEIR_OK && root[ROOT_POST].ptr)
        err = tok_load_post(ld, root[ROOT_POST], 0);
    if (err == WEIR_OK && root[ROOT_DECODER].ptr)
        err = tok_load_decoder(ld, root[ROOT_DECODER], 0);
    return err == WEIR_OK ? tok_load_bytes(ld) : err;
}

weir_err tok_open_bytes(struct weir_str json, struct weir_str config, struct weir_tokenizer **ret,
                        struct weir_why *why)
{
    struct weir_why own = { 0 };
    struct tok_load ld = { .tok = weir_alloc0(sizeof *ld.tok), .why = &own };
    weir_err err;

    if (!ld.tok)
        return weir_fail(why, WEIR_NOMEM, "no memory for the tokenizer");
    weir_arena_init(&ld.tok->arena, /* limit_bytes= */ 0); /* bounded by the file's size and TOK_*_MAX */
    weir_arena_init(&ld.scratch, /* limit_bytes= */ 0);
    weir_sha256(json.ptr, json.len, ld.tok->hash);
    err = load_parts(&ld, json);
    if (err == WEIR_OK)
        err = load_config(&ld, config);
    else
        err = weir_fail(why, err, "tokenizer.json: %s", own.text);
    weir_arena_release(&ld.scratch);
    if (err != WEIR_OK) {
        if (why && !why->text[0])
            *why = own;
        weir_tokenizer_close(ld.tok);
        return err;
    }
    *ret = ld.tok;
    return WEIR_OK;
}

weir_err weir_tokenizer_open(const char *dir, struct weir_tokenizer **ret, struct weir_why *why)
{
    struct weir_buf json, config;
    weir_err err;

    weir_buf_init(&json, TOK_FILE_BYTES_MAX);
    weir_buf_init(&config, CONFIG_BYTES_MAX);
    err = text_file_read(dir, "tokenizer.json", &json, why);
    if (err == WEIR_NOTFOUND)
        err = WEIR_IO; /* `why` has said which file */
    if (err == WEIR_OK) {
        err = text_file_read(dir, "tokenizer_config.json", &config, why);
        if (err == WEIR_NOTFOUND)
            err = WEIR_OK; /* it has no special tokens to name, then */
    }
    if (err == WEIR_OK)
        err = tok_open_bytes((struct weir_str){ weir_buf_ptr(&json), weir_buf_len(&json) },
                             (struct weir_str){ weir_buf_ptr(&config), weir_buf_len(&config) }, ret, why);
    weir_buf_release(&json);
    weir_buf_release(&config);
    return err;
}

void weir_tokenizer_close(struct weir_tokenizer *tok)
{
    if (!tok)
        return;
    for (uint32_t i = 0; i < tok->n_norm; i++)
        tok_regex_close(tok->norm[i].re);
    for (uint32_t i = 0; i < tok->n_pre; i++)
        tok_regex_close(tok->pre[i].re);
    weir_arena_release(&tok->arena);
    weir_free(tok);
}
