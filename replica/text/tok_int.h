/* tok_int.h - the tokenizer's parts. Private to replica/text.
 *
 * A loaded tokenizer is a table: normalizer steps, pre-tokenizer steps, a vocabulary with its merges, added
 * tokens. One call of weir_tokenize is a tok_run: it owns the scratch memory and the ids found so far. Text
 * flows through added tokens (as written) -> normalizer -> added tokens (normalized) -> pre-tokenizer -> BPE
 * -> ids slice by slice; no step builds a list of its pieces. */
#ifndef WEIR_REPLICA_TEXT_TOK_INT_H
#define WEIR_REPLICA_TEXT_TOK_INT_H

#include "replica/text/tokenizer.h"

enum {
    TOK_VOCAB_MAX = 2 << 20,
    TOK_MERGES_MAX = 4 << 20,
    TOK_TOKEN_BYTES_MAX = 4096, /* of one token's spelling */
    TOK_STEPS_MAX = 16,         /* of a normalizer, pre-tokenizer or decoder */
    TOK_NEST_MAX = 8,           /* Sequence in Sequence */
    TOK_ADDED_MAX = 256 << 10,
    TOK_ADDED_BYTES_MAX = 8 << 20, /* of all added tokens' spellings */
    TOK_GROWTH_MAX = 64,           /* how many times longer a text may get before it is cut */
    TOK_BEGIN_MAX = 8,             /* ids in front of a text */
};
#define TOK_FILE_BYTES_MAX ((size_t)256 << 20)
#define TOK_TEXT_BYTES_MAX ((size_t)1 << 30)

/* ---- tables (tok_table.c) ---- */

/* From a spelling to its id. Open addressing; the spellings are kept elsewhere, by id. */
struct tok_map {
    struct tok_map_slot {
        uint32_t tag, id_1; /* high half of the hash; id + 1, 0 = free */
    } * slots;
    uint32_t mask;
};
WEIR_MUST_CHECK weir_err tok_map_init(struct tok_map *map, size_t n_max, struct weir_arena *arena);
int32_t tok_map_find(const struct tok_map *map, const struct weir_str *keys,
                     struct weir_str key); /* -1: none */
/* False when the key is there already. */
bool tok_map_add(struct tok_map *map, const struct weir_str *keys, uint32_t id);

/* From two ids to what they merge into. */
struct tok_merge {
    uint32_t left, right, rank, id;
};
#define TOK_NO_RANK UINT32_MAX
struct tok_merges {
    struct tok_merge *slots; /* rank TOK_NO_RANK = free */
    uint32_t mask;
};
WEIR_MUST_CHECK weir_err tok_merges_init(struct tok_merges *m, size_t n_max, struct weir_arena *arena);
const struct tok_merge *tok_merges_find(const struct tok_merges *m, uint32_t left,
                                        uint32_t right); /* or NULL */
void tok_merges_put(struct tok_merges *m,
                    const struct tok_merge *merge); /* a pair that comes again: the later rank */

/* Which two neighbouring symbols some merge may join across. False positives are allowed: they cost time
 * only. */
struct tok_cross {
    uint64_t *bits;
    uint32_t mask; /* of the bit number */
};
WEIR_MUST_CHECK weir_err tok_cross_init(struct tok_cross *c, size_t n_merges, bool bytes,
                                        struct weir_arena *arena);
static inline uint32_t tok_cross_bit(const struct tok_cross *c, uint32_t a, uint32_t b)
{
    if (c->mask == 0xffff)
        return (a << 8 | b) & c->mask; /* bytes: exact */
    uint64_t x = ((uint64_t)a << 32 | b) * 0x9e3779b97f4a7c15ull;
    return (uint32_t)(x >> 32) & c->mask;
}
static inline bool tok_cross_has(const struct tok_cross *c, uint32_t a, uint32_t b)
{
    uint32_t bit = tok_cross_bit(c, a, b);
    return c->bits[bit / 64] >> (bit % 64) & 1;
}
static inline void tok_cross_add(struct tok_cross *c, uint32_t a, uint32_t b)
{
    uint32_t bit = tok_cross_bit(c, a, b);
    c->bits[bit / 64] |= 1ull << (bit % 64);
}

/* ---- characters (tok_chars.c) ---- */

/* Reads the character at `text`, which is valid UTF-8; returns its length. */
size_t tok_char(const char *text, uint32_t *ret);
bool tok_is_space(uint32_t c);   /* White_Space */
bool tok_is_word(uint32_t c);    /* \w of Unicode regular expressions */
bool tok_is_numeric(uint32_t c); /* Nd, Nl, No */
bool tok_is_punct(uint32_t c);   /* ASCII punctuation and P* */
/* GPT-2's reversible byte alphabet: the byte that the character stands for, or -1. */
int tok_byte_of_char(uint32_t c);
/* The bytes that `text` spells in that alphabet; false when a character is not in it. `ret` has text.len
 * bytes. */
bool tok_unmap_bytes(struct weir_str text, char *ret, size_t *ret_len);

/* ---- regular expressions (tok_regex.c): the one door to PCRE2 ---- */

/* \w of Unicode (Alphabetic, marks, digits, connectors), as the inside of a class. */
#define TOK_WORD_CLASS                                                                                       \
    "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}\\x{"     \
    "1f170}-\\x{1f189}"
struct tok_regex;
/* `pattern` is in Oniguruma's syntax, as tokenizer.json has it. */
WEIR_MUST_CHECK weir_err tok_regex_open(struct weir_str pattern, struct tok_regex **ret,
                                        struct weir_why *why);
void tok_regex_close(struct tok_regex *re);
/* Finds the first match in text[from, len), which is valid UTF-8. 1: found; 0: none; -1: too hard or no
 * memory. */
int tok_regex_find(const struct tok_regex *re, void **match_data, const char *text, size_t len, size_t from,
                   size_t *ret_start, size_t *ret_end);
void tok_match_data_free(void *match_data);

/* Walks over all matches as Oniguruma's iterator does: no empty match right behind another match. */
struct tok_matcher {
    const struct tok_regex *re; /* NULL: `literal` */
    struct weir_str literal;
    size_t at, last_end;
    bool any;
};
int tok_match_next(struct tok_matcher *m, void **match_data, struct weir_str text, size_t *ret_start,
                   size_t *ret_end);

/* ---- steps ---- */

enum tok_norm_kind {
    TOK_NORM_NFC,
    TOK_NORM_NFD,
    TOK_NORM_NFKC,
    TOK_NORM_NFKD,
    TOK_NORM_LOWERCASE,
    TOK_NORM_STRIP,
    TOK_NORM_PREPEND,
    TOK_NORM_REPLACE,
};
struct tok_norm_step {
    enum tok_norm_kind kind;
    bool left, right;        /* STRIP */
    struct tok_regex *re;    /* REPLACE; NULL: `pattern` */
    struct weir_str pattern; /* REPLACE */
    struct weir_str content; /* REPLACE, PREPEND */
};

enum tok_pre_kind {
    TOK_PRE_SPLIT,     /* by regex or literal */
    TOK_PRE_CLASS,     /* by a class of characters */
    TOK_PRE_METASPACE, /* spaces become `literal`; perhaps one in front */
    TOK_PRE_ADD_SPACE, /* ByteLevel's add_prefix_space */
};
enum tok_behavior { TOK_REMOVED, TOK_ISOLATED, TOK_MERGED_PREVIOUS, TOK_MERGED_NEXT, TOK_CONTIGUOUS };
enum tok_prepend { TOK_PREPEND_NEVER, TOK_PREPEND_FIRST, TOK_PREPEND_ALWAYS };
struct tok_pre_step {
    enum tok_pre_kind kind;
    enum tok_behavior behavior;
    bool invert;
    enum tok_prepend prepend;   /* METASPACE */
    struct tok_regex *re;       /* SPLIT; NULL: `literal` */
    struct weir_str literal;    /* SPLIT, METASPACE */
    bool (*in_class)(uint32_t); /* CLASS */
};

enum tok_decode_kind {
    TOK_DECODE_BYTE_LEVEL,
    TOK_DECODE_BYTE_FALLBACK,
    TOK_DECODE_REPLACE,
    TOK_DECODE_STRIP,
};
struct tok_decode_step {
    enum tok_decode_kind kind;
    struct weir_str pattern, content; /* REPLACE; STRIP: pattern is one character */
    size_t n_start, n_stop;           /* STRIP */
};

struct tok_added {
    struct weir_str content;
    uint32_t id;
    bool special, lstrip, rstrip, single_word, normalized;
};

/* A trie over added tokens' spellings. */
struct tok_trie {
    struct tok_trie_edge {
        uint32_t node, child; /* child 0 = free */
        uint8_t byte;
    } * edges; /* open addressing over (node, byte) */
    uint32_t mask;
    uint32_t root[256]; /* child of the root, 0 = none */
    uint32_t *added_1;  /* by node: index of the added token that ends here, + 1 */
    uint32_t n_nodes;   /* node 0 is the root; at most n_nodes_max */
    uint32_t n_nodes_max;
    bool any;
};

struct weir_tokenizer {
    struct weir_arena arena; /* everything below */
    uint8_t hash[32];

    /* the model */
    bool byte_level; /* spellings are raw bytes; else characters */
    bool byte_fallback, fuse_unk, ignore_merges;
    int32_t unk;            /* -1: none; unknown symbols vanish */
    uint32_t n_vocab;       /* ids are below this */
    uint32_t n_key_max;     /* bytes of the longest key */
    struct weir_str *keys;  /* by id: what a piece must spell to become it; ptr NULL = never */
    struct weir_str *bytes; /* by id: what it decodes to */
    struct tok_map map;     /* over keys */
    int32_t byte_ids[256];  /* byte_level: of the byte; else of "<0xXX>"; -1 = none */
    int32_t ascii_ids[128]; /* of the character */
    bool all_bytes;         /* every "<0xXX>" is there */
    struct tok_merges merges;
    struct tok_cross cross;
    /* By id: does merging its spelling give just this token? Threads fill it in as they find out; whoever
     * computes it finds the same, so relaxed is enough. 0 = not known, 1 = yes, 2 = no. */
    _Atomic uint8_t *whole;

    struct tok_norm_step norm[TOK_STEPS_MAX];
    struct tok_pre_step pre[TOK_STEPS_MAX];
    struct tok_decode_step decode[TOK_STEPS_MAX];
    uint32_t n_norm, n_pre, n_decode;

    struct tok_added *added;
    uint32_t n_added;
    uint32_t *added_1; /* by id: index in `added` + 1 */
    struct tok_trie raw_trie, norm_trie;
    struct tok_trie norm_as_written; /* the normalized ones by their spelling; empty without a normalizer */

    int32_t begin[TOK_BEGIN_MAX]; /* ids in front of a text */
    uint32_t n_begin;
    struct weir_str bos, eos;
};

struct tok_sym {
    int32_t prev, next; /* indexes; -1 = none */
    uint32_t id;
    uint32_t rank; /* of merging with the next; TOK_NO_RANK = never */
};

/* One call of weir_tokenize. */
struct tok_run {
    const struct weir_tokenizer *tok;
    bool parse_special;
    struct weir_str text;          /* the whole, where spans are given */
    const struct weir_span *spans; /* parts of it that hold no special token */
    size_t n_spans;
    weir_err err; /* set once; stops everything */
    const char *err_text;

    int32_t *ids;
    size_t n_ids, ids_cap, n_max;

    void *match_data;
    struct weir_buf step_buf[TOK_STEPS_MAX]; /* text that pre-tokenizer step i rewrote */
    struct weir_buf norm_buf[2];
    struct tok_sym *syms; /* of the chunk being merged */
    size_t syms_cap;
    uint64_t *heap;
    size_t heap_cap;
};
#define TOK_ODD UINT32_MAX /* a byte token or the unknown token: no cut beside it */

/* text_len: of the text to come; bounds what normalizing may make of it. */
void tok_run_init(struct tok_run *run, const struct weir_tokenizer *tok, size_t text_len);
void tok_run_release(struct tok_run *run);
/* Each returns false once the run has failed. */
bool tok_fail(struct tok_run *run, weir_err err, const char *text);
bool tok_emit(struct tok_run *run, uint32_t id);
bool tok_bpe(struct tok_run *run, struct weir_str piece);
/* Feeds the slice to pre-tokenizer step i and on; is_first: it begins the whole text. */
bool tok_pre(struct tok_run *run, uint32_t i_step, struct weir_str slice, bool is_first);
/* Normalizes into one of the run's buffers, or points at `text` when nothing changes. */
bool tok_normalize(struct tok_run *run, struct weir_str text, struct weir_str *ret);

/* ---- added tokens (tok_added.c) ---- */
WEIR_MUST_CHECK weir_err tok_trie_init(struct tok_trie *trie, size_t n_bytes, struct weir_arena *arena);
void tok_trie_add(struct tok_trie *trie, struct weir_str key, uint32_t i_added);
/* Does the slice of the run's text overlap a span? Of any other text: no. */
bool tok_in_span(const struct tok_run *run, struct weir_str slice);
/* Does a normalized special token, as written or only once the slice is normalized, lie in a span? */
bool tok_added_hides(struct tok_run *run, struct weir_str slice, struct weir_str normalized);
/* Cuts `text` at the trie's tokens: emits their ids and calls `rest` for what is between. */
bool tok_added_scan(struct tok_run *run, const struct tok_trie *trie, struct weir_str text, bool is_first,
                    bool (*rest)(struct tok_run *run, struct weir_str slice, bool is_first));

/* ---- loading ---- */

/* A half-loaded tokenizer and where its JSON's strings live meanwhile. */
struct tok_load {
    struct weir_tokenizer *tok;
    struct weir_arena scratch;
    struct weir_str specials; /* the post-processor's special_tokens */
    bool in_text;             /* its template's text has begun */
    bool fused;               /* decoder steps from here on see the whole text */
    struct weir_str *raw;     /* by id: the spelling in the file; in scratch */
    struct weir_why *why;
};
/* Members of an object whose text is known to be well-formed. Absent and null leave *ret alone; of a key that
 * comes twice the last counts. */
WEIR_MUST_CHECK weir_err tok_get_raws(struct tok_load *ld, struct weir_str obj, const char *const *keys,
                                      int n, struct weir_str *ret);
WEIR_MUST_CHECK weir_err tok_get_raw(struct tok_load *ld, struct weir_str obj, const char *key,
                                     struct weir_str *ret);
WEIR_MUST_CHECK weir_err tok_get_str(struct tok_load *ld, struct weir_str obj, const char *key,
                                     struct weir_str *ret);
WEIR_MUST_CHECK weir_err tok_get_bool(struct tok_load *ld, struct weir_str obj, const char *key, bool *ret);
WEIR_MUST_CHECK weir_err tok_get_size(struct tok_load *ld, struct weir_str obj, const char *key, size_t *ret);
/* The same from the member's own text; ptr NULL = absent. */
WEIR_MUST_CHECK weir_err tok_as_str(struct tok_load *ld, struct weir_str raw, const char *key,
                                    struct weir_str *ret);
WEIR_MUST_CHECK weir_err tok_as_bool(struct tok_load *ld, struct weir_str raw, const char *key, bool *ret);
WEIR_MUST_CHECK weir_err tok_as_size(struct tok_load *ld, struct weir_str raw, const char *key, size_t *ret);
/* {"String": ...} or {"Regex": ...} */
WEIR_MUST_CHECK weir_err tok_get_pattern(struct tok_load *ld, struct weir_str obj, struct tok_regex **ret_re,
                                         struct weir_str *ret_literal);
WEIR_MUST_CHECK weir_err tok_keep(struct tok_load *ld, struct weir_str text,
                                  struct weir_str *ret); /* for good */
typedef weir_err tok_load_fn(struct tok_load *ld, struct weir_str obj, int depth);
/* Calls `fn` for each element of an array (raw JSON; ptr NULL = none), with depth + 1. */
WEIR_MUST_CHECK weir_err tok_each(struct tok_load *ld, struct weir_str list, int depth, tok_load_fn *fn);
/* The same for the member `key` of an object. */
WEIR_MUST_CHECK weir_err tok_each_of(struct tok_load *ld, struct weir_str obj, const char *key, int depth,
                                     tok_load_fn *fn);
WEIR_MUST_CHECK weir_err tok_unknown(struct tok_load *ld, const char *what, struct weir_str kind);

/* One component each; `obj` is its raw JSON. */
WEIR_MUST_CHECK weir_err tok_load_norm(struct tok_load *ld, struct weir_str obj, int depth);
WEIR_MUST_CHECK weir_err tok_load_pre(struct tok_load *ld, struct weir_str obj, int depth);
WEIR_MUST_CHECK weir_err tok_load_decoder(struct tok_load *ld, struct weir_str obj, int depth);
WEIR_MUST_CHECK weir_err tok_load_post(struct tok_load *ld, struct weir_str obj, int depth);
WEIR_MUST_CHECK weir_err tok_load_model(struct tok_load *ld, struct weir_str obj);
WEIR_MUST_CHECK weir_err tok_load_added(struct tok_load *ld, struct weir_str list);
/* Behind both: checks the added tokens against the vocabulary and makes them findable. */
WEIR_MUST_CHECK weir_err tok_index_added(struct tok_load *ld);
/* Behind the model, the added tokens and the decoder: what each id decodes to. */
WEIR_MUST_CHECK weir_err tok_load_bytes(struct tok_load *ld);
/* Both files as bytes; `config` may be empty. What weir_tokenizer_open does behind reading them. */
WEIR_MUST_CHECK weir_err tok_open_bytes(struct weir_str json, struct weir_str config,
                                        struct weir_tokenizer **ret, struct weir_why *why);

#endif
