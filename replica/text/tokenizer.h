/* tokenizer.h - tokenizer.json: text to token ids and back.
 *
 * Loaded once, then read by any number of threads; each brings its own scratch. */
#ifndef WEIR_REPLICA_TEXT_TOKENIZER_H
#define WEIR_REPLICA_TEXT_TOKENIZER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"

struct weir_tokenizer;

/* Reads <dir>/tokenizer.json and tokenizer_config.json (special tokens). WEIR_IO: no such file. WEIR_CORRUPT:
 * malformed or inconsistent; `why` names the member. WEIR_UNIMPLEMENTED: a kind of normalizer, pre-tokenizer,
 * ... we don't know. */
WEIR_MUST_CHECK weir_err weir_tokenizer_open(const char *dir, struct weir_tokenizer **ret,
                                             struct weir_why *why);
void weir_tokenizer_close(struct weir_tokenizer *tok);

struct weir_tokens {
    int32_t *ids;
    size_t n;
};
/* Ids go into the arena. parse_special: text that spells an added special token becomes that token (what
 * templates need); otherwise it stays text. add_bos: the post-processor's begin token in front, where the
 * model has one. WEIR_INVALID: not UTF-8. WEIR_TOOLARGE: more than max tokens (stops early). Any thread. */
WEIR_MUST_CHECK weir_err weir_tokenize(const struct weir_tokenizer *tok, struct weir_str text,
                                       bool parse_special, bool add_bos, size_t n_max,
                                       struct weir_arena *arena, struct weir_tokens *ret,
                                       struct weir_why *why);

/* The same for a text of which parts are somebody's own words (weir_template_render_spans tells which): a special
 * token that has a byte within a span stays text; all others are found, as parse_special does. Added tokens that are
 * not special (runs of spaces, tags) are text anyway and are always found. The spans are in order and do not overlap;
 * WEIR_INVALID when they are not, or pass the text's end. */
struct weir_span {
    size_t begin, end; /* bytes */
};
WEIR_MUST_CHECK weir_err weir_tokenizer_encode_spans(const struct weir_tokenizer *tok, struct weir_str text,
                                                     const struct weir_span *spans, size_t n_spans,
                                                     bool add_bos, size_t n_max, struct weir_arena *arena,
                                                     struct weir_tokens *ret, struct weir_why *why);

size_t weir_tokenizer_vocab(const struct weir_tokenizer *tok); /* ids are below this */
/* The token's own bytes, perhaps half a character; empty for a special token or an unknown id unless
 * with_special. */
struct weir_str weir_token_bytes(const struct weir_tokenizer *tok, int32_t id, bool with_special);
bool weir_token_is_special(const struct weir_tokenizer *tok, int32_t id);
int32_t weir_token_id(const struct weir_tokenizer *tok,
                      struct weir_str token); /* an added token's id, else -1 */
/* bos / eos as tokenizer_config.json names them; empty when none. */
struct weir_str weir_tokenizer_bos(const struct weir_tokenizer *tok);
struct weir_str weir_tokenizer_eos(const struct weir_tokenizer *tok);
/* SHA-256 of tokenizer.json. */
const uint8_t *weir_tokenizer_hash(const struct weir_tokenizer *tok);

/* ---- incremental detokenization: never half a character ---- */
struct weir_detok {
    char held[8]; /* the start of a character whose rest has not come */
    uint8_t n_held;
};
void weir_detok_init(struct weir_detok *d);
/* Appends the whole characters that this token completes. A byte that can't belong to UTF-8 becomes U+FFFD.
 */
void weir_detok_push(struct weir_detok *d, struct weir_str token_bytes, struct weir_buf *out);
void weir_detok_finish(struct weir_detok *d, struct weir_buf *out); /* what is held becomes U+FFFD */

/* ---- stop strings across token borders ---- */
struct weir_stop; /* the compiled set; in the arena */
WEIR_MUST_CHECK weir_err weir_stop_compile(const struct weir_str *stops, int n, struct weir_arena *arena,
                                           struct weir_stop **ret);
struct weir_stop_state {
    struct weir_buf held; /* text that may be the start of a stop string */
    uint32_t at;          /* the automaton's node that this text leads to */
};
/* Feeds text; appends to `out` what can no longer be part of a stop string. True when a stop string was met:
 * `out` then ends just before it. The set may be NULL (no stop strings). */
bool weir_stop_push(const struct weir_stop *set, struct weir_stop_state *st, struct weir_str text,
                    struct weir_buf *out);
void weir_stop_finish(struct weir_stop_state *st, struct weir_buf *out); /* releases what was held */
void weir_stop_release(struct weir_stop_state *st);

#endif
