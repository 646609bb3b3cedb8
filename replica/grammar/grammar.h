/* grammar.h - structured output: which tokens may come next, so that the whole answer is in a language.
 *
 *     weir_grammar_vocab_open(tok, eos_ids, n_eos, &vocab, &why);         // once for a tokenizer
 *     weir_grammar_compile_schema(vocab, json, NULL, &grammar, &why);     // once for a request; any thread
 *     weir_grammar_state_open(grammar, &state, &why);                     // once for a choice
 *     for each token:  weir_grammar_state_mask(state, bits, n_vocab); ... sample id ...;
 *                      weir_grammar_state_accept(state, id);
 *     weir_grammar_state_close(state); weir_grammar_unref(grammar); weir_grammar_vocab_close(vocab);
 *
 * A grammar describes text; tokens are its bytes as weir_token_bytes gives them, so a token may hold half a
 * character or the end of one thing and the start of the next. Special tokens are never text: the only ones
 * permitted are the end tokens, and those exactly when the text so far is whole; and one that ends reasoning, while
 * that is waited for (weir_grammar_opts.after).
 *
 * A vocabulary and a compiled grammar are read by any number of threads. A state belongs to one thread at a
 * time. A grammar keeps its vocabulary by pointer: close the vocabulary last. */
#ifndef WEIR_REPLICA_GRAMMAR_GRAMMAR_H
#define WEIR_REPLICA_GRAMMAR_GRAMMAR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "replica/text/tokenizer.h"

/* Bounds; past them compiling fails with WEIR_TOOLARGE and names the place. */
#define WEIR_GRAMMAR_TEXT_MAX (256u << 10)  /* bytes of a grammar or schema */
#define WEIR_GRAMMAR_RULES_MAX 8192u        /* rules, named and made */
#define WEIR_GRAMMAR_NODES_MAX (96u << 10)  /* states of all rules' automata */
#define WEIR_GRAMMAR_EDGES_MAX (512u << 10) /* transitions of all rules' automata */
#define WEIR_GRAMMAR_REPEAT_MAX 4096u       /* the largest m or n of x{m,n}, minLength, maxItems, ... */
/* Bounds of one choice, beside some 0.4 s of work for a mask; past them accept says no and masks are empty: only an
 * ambiguous grammar gets there. */
#define WEIR_GRAMMAR_HEADS_MAX 1024u          /* ways to read the text so far */
#define WEIR_GRAMMAR_ENTRIES_MAX (256u << 10) /* levels of nesting, shared among those ways */

struct weir_grammar_vocab;
struct weir_grammar;
struct weir_grammar_state;

/* Sorts the tokens' bytes into a trie. end_ids: tokens that end an answer (the model's eos ids). The tokenizer
 * is not kept. */
WEIR_MUST_CHECK weir_err weir_grammar_vocab_open(const struct weir_tokenizer *tok, const int32_t *end_ids,
                                                 int n_end_ids, struct weir_grammar_vocab **ret,
                                                 struct weir_why *why);
/* The same from the tokens' bytes by id; empty = never text. */
WEIR_MUST_CHECK weir_err weir_grammar_vocab_open_list(const struct weir_str *tokens, uint32_t n_tokens,
                                                      const int32_t *end_ids, int n_end_ids,
                                                      struct weir_grammar_vocab **ret, struct weir_why *why);
void weir_grammar_vocab_close(struct weir_grammar_vocab *vocab);

struct weir_grammar_opts {
    /* No white space between the tokens of JSON; otherwise a space, or a line's end and up to 40 spaces or
     * tabs, may stand where JSON allows it. Schemas and json_object only. */
    bool compact;
    /* Any text up to and with the first occurrence of this comes before what the grammar describes
     * ("</think>" where an answer begins with reasoning). Empty: nothing does. At most 256 bytes. */
    struct weir_str after;
};

/* Each returns a grammar with one reference. opts may be NULL. `why` is for the client.
 * WEIR_INVALID: malformed; why->text has line and column (GBNF) or the path of the member (schemas), why->param
 * is "response_format.grammar", "response_format.json_schema.schema.properties.x" or "tools.f.properties.x".
 * WEIR_UNIMPLEMENTED: well-formed
 * but not supported, named; never ignored. WEIR_TOOLARGE: past a bound above. WEIR_NOMEM. */

/* GBNF: rules `name ::= ...`, "root" is the start; literals, classes, ., | ( ) * + ? {m} {m,} {m,n}, # comments.
 * A rule that may begin with itself is refused. */
WEIR_MUST_CHECK weir_err weir_grammar_compile_gbnf(const struct weir_grammar_vocab *vocab,
                                                   struct weir_str text, const struct weir_grammar_opts *opts,
                                                   struct weir_grammar **ret, struct weir_why *why);
/* JSON Schema; docs/structured-output.md says what is supported. Objects' members come in the order of
 * "properties". */
WEIR_MUST_CHECK weir_err weir_grammar_compile_schema(const struct weir_grammar_vocab *vocab,
                                                     struct weir_str json,
                                                     const struct weir_grammar_opts *opts,
                                                     struct weir_grammar **ret, struct weir_why *why);
/* Any JSON object. */
WEIR_MUST_CHECK weir_err weir_grammar_compile_json_object(const struct weir_grammar_vocab *vocab,
                                                          const struct weir_grammar_opts *opts,
                                                          struct weir_grammar **ret, struct weir_why *why);

/* How a model writes the calls of its tools. */
enum weir_grammar_call_form {
    WEIR_CALL_ARGUMENTS,  /* {"name": "f", "arguments": {...}} */
    WEIR_CALL_PARAMETERS, /* {"name": "f", "parameters": {...}} */
    WEIR_CALL_LIST,       /* [{"name": "f", "arguments": {...}}, ...] */
    WEIR_CALL_BARE,       /* {...}: the arguments alone, of the only tool */
    WEIR_CALL_TAGS,       /* <function=f>\n<parameter=key>\nvalue\n</parameter>\n</function> */
};
struct weir_grammar_calls {
    enum weir_grammar_call_form form;
    uint32_t n_max;        /* LIST: calls at most, at least 1 */
    struct weir_str tools; /* JSON: [{"name": "f", "parameters": <the schema of its arguments>}, ...] */
};
/* One call of one of the tools, or a list of them. */
WEIR_MUST_CHECK weir_err weir_grammar_compile_calls(const struct weir_grammar_vocab *vocab,
                                                    const struct weir_grammar_calls *calls,
                                                    const struct weir_grammar_opts *opts,
                                                    struct weir_grammar **ret, struct weir_why *why);

struct weir_grammar *weir_grammar_ref(struct weir_grammar *grammar); /* any thread */
void weir_grammar_unref(struct weir_grammar *grammar);               /* takes NULL; any thread */

/* At the start of the text. Keeps a reference to the grammar. */
WEIR_MUST_CHECK weir_err weir_grammar_state_open(struct weir_grammar *grammar,
                                                 struct weir_grammar_state **ret, struct weir_why *why);
/* These three take a struct weir_grammar_state; void, so that they fit a table of an engine's constraints.
 *
 * mask: writes (n_vocab + 31) / 32 words: bit id % 32 of word id / 32 is set when the token may come next. All
 * zero when nothing may: the text is whole and the vocabulary has no end token, the vocabulary lacks a byte that
 * is needed, or memory ran out; end the choice then.
 * accept: false when the token may not come next (the state is then spent: only close it), or at a bound.
 * An end token is accepted where the mask had it; nothing may come behind it. */
void weir_grammar_state_mask(void *state, uint32_t *bits, uint32_t n_vocab);
bool weir_grammar_state_accept(void *state, int32_t id);
void weir_grammar_state_close(void *state); /* takes NULL */
/* The text so far is whole: it may end here. */
bool weir_grammar_state_whole(const struct weir_grammar_state *state);

#endif
