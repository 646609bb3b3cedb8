/* walk.h - what tests of grammars share: a vocabulary, and texts made by walking at random through masks. */
#ifndef WEIR_TESTS_GRAMMAR_WALK_H
#define WEIR_TESTS_GRAMMAR_WALK_H

#include "replica/grammar/grammar.h"

struct weir_grammar_vocab *walk_vocab(void); /* bytes, and pieces that cross every border; made once */
uint32_t walk_vocab_size(void);
struct weir_str walk_token(int32_t id);
extern const int32_t walk_end; /* the end token */
void walk_free(void);

/* Compile or fail the test. */
struct weir_grammar *walk_gbnf(const char *text);
struct weir_grammar *walk_schema(const char *json, bool compact);
struct weir_grammar *walk_calls(enum weir_grammar_call_form form,
                                const char *tools); /* a list: of at most 3 */

uint64_t walk_random(uint64_t *seed);
/* Takes permitted tokens at random until the end token; towards `n_want` bytes it prefers the end, and from there on
 * tokens that lead to it. Checks masks on the way now and then. False: not at its end after 64 times as
 * many; after 40 bytes where fewer than 10 are wanted, for grammars that are too ambiguous to go on in. */
bool walk(struct weir_grammar *grammar, uint64_t *seed, size_t n_want, struct weir_buf *out);
/* Fails the test unless each bit of the mask says what accept does. */
void walk_check_mask(struct weir_grammar *grammar, const int32_t *ids, int n_ids);
/* Is the whole text permitted? Byte by byte. */
bool walk_accepts(struct weir_grammar *grammar, struct weir_str text);

#endif
