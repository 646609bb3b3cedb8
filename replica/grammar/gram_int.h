/* gram_int.h - the parts of a compiled grammar. Private to replica/grammar.
 *
 * text -> expressions by rule (gbnf.c, schema*.c, pattern.c, calls.c, tags.c) -> one automaton over bytes for each rule (nfa.c, dfa.c)
 * -> checked and made small (link.c) -> walked beside the vocabulary's trie (state.c, mask.c). */
#ifndef WEIR_REPLICA_GRAMMAR_GRAM_INT_H
#define WEIR_REPLICA_GRAMMAR_GRAM_INT_H

#include <stdatomic.h>

#include "base/arena.h"
#include "replica/grammar/grammar.h"

enum {
    GRAM_NEST_MAX = 64,             /* brackets in a grammar, levels of a schema */
    GRAM_NFA_MAX = 512 << 10,       /* states and edges of one rule before it is made deterministic */
    GRAM_SETS_MAX = 4 << 20,        /* states in all subsets of one rule */
    GRAM_INLINE_MAX = 64,           /* weight of a rule that is put in place of its calls */
    GRAM_VISITS_MAX = 2048,         /* steps to settle one byte */
    GRAM_WARM_MAX = 6,              /* wide nodes whose masks are made when compiling */
    GRAM_AFTER_MAX = 256,           /* bytes of weir_grammar_opts.after */
    GRAM_TREE_BYTES_MAX = 16 << 20, /* expressions of one grammar */
};
#define GRAM_COMPILE_WORK_MAX 40000000u /* expressions written out, edges and members looked at: some 0.3 s */
#define GRAM_ALIKE_WORK_MAX 200000000u  /* the same for finding nodes that are alike; past it none are */
#define GRAM_STEP_WORK_MAX 32000000u    /* heads moved for one mask or one token: some 0.4 s */
#define GRAM_MASK_BYTES_MAX ((size_t)16 << 20) /* masks that one grammar keeps */
#define GRAM_INF UINT32_MAX                    /* of a repetition: without end */

/* ---- the vocabulary (vocab.c) ---- */

/* A trie in preorder: a node's children lie between it and `end`. Node 0 is the root. */
struct gram_trie_node {
    uint32_t end;   /* behind the last node below this one */
    uint32_t first; /* in ids: the tokens that end here are ids[first .. next node's first) */
};
struct weir_grammar_vocab {
    struct weir_arena arena; /* everything below */
    uint32_t n_tokens, n_nodes, n_words;
    struct gram_trie_node *nodes; /* n_nodes, and one behind them */
    uint8_t *bytes;               /* by node: on the way into it */
    int32_t *ids;                 /* by text */
    struct weir_str *text;        /* by id */
    uint32_t depth_max;
    int32_t *end_ids;
    int n_end_ids;
};

/* ---- expressions (expr.c) ---- */

struct gram_range {
    uint32_t lo, hi; /* code points, both in */
};
struct gram_class {
    struct gram_range *at; /* sorted, apart from each other */
    uint32_t n;
};
enum gram_kind {
    GRAM_BYTES,  /* bytes; empty: the empty text */
    GRAM_CLASS,  /* one character */
    GRAM_CAT,    /* parts in turn */
    GRAM_ALT,    /* one of the parts; no parts: nothing at all */
    GRAM_REPEAT, /* of{min,max} */
    GRAM_RULE,
    GRAM_CHAIN,   /* parts with `of` between them; each may be left out that `optional` says */
    GRAM_UNTIL,   /* any text that ends with the first occurrence of bytes */
    GRAM_WITHOUT, /* a text of {min,max} characters in which the bytes, which are ASCII, never come */
};
struct gram_expr {
    enum gram_kind kind;
    struct weir_str bytes;
    struct gram_class set;
    struct gram_expr **parts; /* CAT, ALT, CHAIN */
    bool *optional;           /* CHAIN: by part */
    bool last_repeats;        /* CHAIN: the last part any number of times; then it may be left out too */
    uint32_t n_parts;
    struct gram_expr *of;
    uint32_t min, max; /* REPEAT, WITHOUT; max GRAM_INF: no end */
    uint32_t rule;
};
struct gram_rule {
    struct weir_str name; /* for errors: "rule expr", "properties.x" */
    struct gram_expr *body;
    bool stays;      /* a call even where it is small */
    uint32_t weight; /* 0: not known yet */
    uint32_t start;  /* node */
};
/* A grammar that is being compiled. */
struct gram_build {
    const struct weir_grammar_vocab *vocab;
    struct weir_arena arena;
    struct gram_rule *rules; /* grows */
    uint32_t n_rules, rules_cap;
    uint64_t work;     /* done so far */
    bool in_tags;      /* strings must not end the tags around them */
    const char *param; /* what an error is about, in general */
    weir_err err;      /* the first; sticks */
    struct weir_why *why;
};

/* Its value, or -1; c may be -1, the end of a text. */
static inline int gram_hex_digit(int c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* Each returns NULL once the build has failed, and takes NULL parts then. */
void *gram_fail(struct gram_build *b, weir_err err, const char *fmt, ...) WEIR_PRINTF(3, 4); /* NULL */
bool gram_work(struct gram_build *b, struct weir_str where,
               uint64_t n);                          /* false: the build has failed, or does now */
void *gram_alloc(struct gram_build *b, size_t size); /* zeroed */
struct gram_expr *gram_bytes(struct gram_build *b, struct weir_str bytes); /* borrowed */
struct gram_expr *gram_text(struct gram_build *b, const char *literal);
struct gram_expr *gram_class(struct gram_build *b, struct gram_class set);
struct gram_expr *gram_cat(struct gram_build *b, struct gram_expr *const *parts, uint32_t n);
struct gram_expr *gram_cat2(struct gram_build *b, struct gram_expr *x, struct gram_expr *y);
struct gram_expr *gram_cat3(struct gram_build *b, struct gram_expr *x, struct gram_expr *y,
                            struct gram_expr *z);
struct gram_expr *gram_alt(struct gram_build *b, struct gram_expr *const *parts, uint32_t n);
struct gram_expr *gram_alt2(struct gram_build *b, struct gram_expr *x, struct gram_expr *y);
struct gram_expr *gram_repeat(struct gram_build *b, struct gram_expr *of, uint32_t min, uint32_t max);
/* bytes: fewer than GRAM_AFTER_MAX; borrowed. */
struct gram_expr *gram_without(struct gram_build *b, struct weir_str bytes, uint32_t min, uint32_t max);
/* optional: by part; kept. */
struct gram_expr *gram_chain(struct gram_build *b, struct gram_expr *const *parts, bool *optional, uint32_t n,
                             struct gram_expr *between, bool last_repeats);
struct gram_expr *gram_call(struct gram_build *b, uint32_t rule);
/* A new rule; its body may come later. UINT32_MAX once the build has failed. */
uint32_t gram_rule_add(struct gram_build *b, struct weir_str name, struct gram_expr *body, bool stays);

/* A growing list of parts or ranges, in the build's arena. */
struct gram_list {
    struct gram_expr **at;
    uint32_t n, cap;
};
bool gram_list_add(struct gram_build *b, struct gram_list *list, struct gram_expr *x);
struct gram_ranges {
    struct gram_range *at;
    uint32_t n, cap;
};
bool gram_ranges_add(struct gram_build *b, struct gram_ranges *set, uint32_t lo, uint32_t hi);
/* Sorted and joined; `negate`: all other code points. Surrogates are never in. */
bool gram_ranges_class(struct gram_build *b, struct gram_ranges *set, bool negate, struct gram_class *ret);
/* The characters that are in both. */
bool gram_class_common(struct gram_build *b, const struct gram_class *set, const struct gram_range *other,
                       uint32_t n_other, struct gram_class *ret);
bool gram_class_has(const struct gram_class *set, uint32_t c);

/* ---- automata ---- */

struct gram_edge {
    uint8_t lo, hi;
    uint32_t to;
};
struct gram_call_edge {
    uint32_t rule; /* in a grammar: the called rule's first node */
    uint32_t to;
};
enum gram_node_flags {
    GRAM_FINAL = 1, /* its rule may end here */
    GRAM_PLAIN = 2, /* bytes only: no calls, not final */
    GRAM_TAIL = 4,  /* final and nothing else: a call that comes back here need not come back */
    GRAM_WIDE = 8,  /* most bytes may follow */
};
struct gram_node {
    uint32_t edge, call; /* the first of each; the next node has the end */
    uint8_t flags;
};
/* The deterministic automata of all rules; nodes of one rule lie together. */
struct gram_auto {
    struct gram_node *nodes; /* n_nodes, and one behind them */
    struct gram_edge *edges;
    struct gram_call_edge *calls;
    uint32_t n_nodes, n_edges, n_calls;
    uint32_t nodes_cap, edges_cap, calls_cap;
};
void gram_auto_release(struct gram_auto *a);

struct gram_nfa_edge {
    enum { GRAM_EPSILON, GRAM_BYTE, GRAM_CALL } kind;
    uint8_t lo, hi;
    uint32_t rule, to;
    uint32_t next; /* of the same state; 0 = none */
};
struct gram_nfa {
    uint32_t *first; /* by state: its edges; 0 = none */
    uint32_t n_states, states_cap;
    struct gram_nfa_edge *edges; /* from 1 */
    uint32_t n_edges, edges_cap;
    uint32_t end; /* the accepting state; the first is 0 */
};
/* One rule's expression, with small rules in place of their calls. */
bool gram_nfa_make(struct gram_build *b, uint32_t rule, struct gram_nfa *ret);
void gram_nfa_release(struct gram_nfa *nfa);
/* Makes it deterministic and appends it; sets the rule's start. */
bool gram_dfa_append(struct gram_build *b, uint32_t rule, const struct gram_nfa *nfa, struct gram_auto *a);
/* All rules reached from rule `root`, checked: the language is not empty, no rule begins with itself. */
bool gram_link(struct gram_build *b, uint32_t root, struct gram_auto *ret, uint32_t *ret_start);

/* By node: the first of those that no text of n_bytes tells apart within their rule. False: no memory. */
bool gram_alike(const struct gram_auto *a, uint32_t n_bytes, uint32_t *ret);

/* ---- masks and states ---- */

/* What is known of a node alone: tokens that may come whatever called its rule, and places in the trie where the
 * rule ends within a token, so that the rest depends on the caller. */
struct gram_mask {
    uint32_t n_ids; /* as a list; or UINT32_MAX: as bits */
    uint32_t n_escapes;
    uint32_t at[]; /* ids or words, then trie nodes */
};
struct weir_grammar {
    atomic_uint refs;
    const struct weir_grammar_vocab *vocab;
    struct gram_auto a;
    uint32_t start;
    uint32_t *alike; /* by node: the one whose mask it has */
    /* By node; made when first needed, by whichever thread is first; never changed afterwards. Release and acquire
     * hand over the mask's content. */
    _Atomic(struct gram_mask *) *masks;
    atomic_size_t mask_bytes;
};

/* A way to read the text so far: a node, and where to go on when its rule ends. */
struct gram_head {
    uint32_t node, parent; /* parent: an entry, or one of the two below */
};
#define GRAM_NO_PARENT UINT32_MAX      /* the text ends */
#define GRAM_UNKNOWN (UINT32_MAX - 1u) /* whoever called: an escape */
struct gram_entry {
    uint32_t node, parent; /* where to go on, and behind that */
    uint32_t next;         /* in its bucket; UINT32_MAX = none */
};
struct gram_heads {
    struct gram_head *at;
    uint32_t n, cap;
};
struct gram_seen {
    struct gram_head head;
    uint32_t turn;
};
struct weir_grammar_state {
    struct weir_grammar *grammar;
    struct gram_heads heads; /* walk: sets of heads one behind the other; the first is the text so far */
    uint32_t n_now;          /* heads of the text so far */
    bool whole, ended, spent;

    struct gram_entry *entries;
    uint32_t n_entries, entries_cap, n_kept; /* kept: when they were last swept */
    uint32_t *buckets;
    uint32_t n_buckets; /* a power of two */

    struct gram_seen *seen; /* of this settling; open addressing */
    uint32_t turn, n_seen;
    uint32_t work; /* of this mask or token */
    struct gram_head *todo;
    uint32_t n_todo;

    struct gram_level {
        uint32_t end;   /* trie node behind the subtree */
        uint32_t first; /* in heads */
        uint32_t n;
        uint32_t n_entries; /* those made since belong to what is below */
    } * levels;
    uint32_t *bits; /* n_words; all zero between calls */

    /* The last mask and the heads it was for: within a string the same ones come again and again. */
    struct gram_last {
        uint32_t *bits; /* n_vocab of them; NULL: none yet */
        struct gram_head *heads;
        uint32_t n_vocab, n_heads;
        bool whole, good;
    } last;
};
enum { GRAM_SEEN = 2 * GRAM_VISITS_MAX };

/* What one byte led to, beside heads. */
struct gram_outcome {
    bool whole, escaped;
};
/* Appends to st->heads where heads [first, first + n) lead by `byte`. False: a bound or no memory (st->spent). */
bool gram_advance(struct weir_grammar_state *st, uint32_t first, uint32_t n, uint8_t byte,
                  struct gram_outcome *ret);
/* Appends what `head` is without reading: its calls entered, its end left. */
bool gram_settle(struct weir_grammar_state *st, struct gram_head head, struct gram_outcome *ret);
bool gram_heads_add(struct weir_grammar_state *st, struct gram_head head);
/* Forgets entries made since there were n. */
void gram_entries_cut(struct weir_grammar_state *st, uint32_t n);

/* Where a walk through the trie leaves what it found. */
struct gram_found {
    uint32_t *bits;   /* n_words */
    uint32_t n_vocab; /* ids from here on are left out */
    uint32_t *escapes;
    uint32_t n_escapes, escapes_cap;
};
/* Below trie node v, from heads [first, first + n). */
bool gram_walk(struct weir_grammar_state *st, uint32_t v, uint32_t first, uint32_t n,
               struct gram_found *found);
/* The mask of a node alone; *ret_owned: not kept by the grammar, the caller frees it. NULL: st->spent. */
const struct gram_mask *gram_mask_of(struct weir_grammar_state *st, uint32_t node, bool *ret_owned);

/* ---- sources ---- */

bool gram_gbnf(struct gram_build *b, struct weir_str text, uint32_t *ret_root);
bool gram_schema(struct gram_build *b, struct weir_str json, bool compact, uint32_t *ret_root);
bool gram_json_object(struct gram_build *b, bool compact, uint32_t *ret_root);
bool gram_calls(struct gram_build *b, const struct weir_grammar_calls *calls, bool compact,
                uint32_t *ret_root);

#endif
