/* fuzz_grammar.c - any GBNF text compiles or is refused with a reason, and in what compiles masks say what accept does.
 *
 * Input: the grammar. A walk through it takes tokens that the grammar's own bytes choose; on the way every token's bit
 * is compared with what accepting it says. */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "replica/grammar/grammar.h"

enum { PIECES = 24, N_TOKENS = 256 + PIECES + 1, STEPS = 24, TEXT_MAX = 4096, CHECKS = 4 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct weir_grammar_vocab *make_vocab(void)
{
    static const char *const pieces[PIECES] = {
        "ab", "abc", "aa", "\"a", "a\"", "\": ",     ", ",       "{\"",    "\"}",  "}}", "]]",   "[[",
        "12", "0.",  "-1", "\\u", "\\n", "\xc3\xa9", "\xe6\xb0", "\xb4\"", "\n  ", "xy", "true", "  "
    };
    static char bytes[256];
    static struct weir_str tokens[N_TOKENS];
    static const int32_t end = N_TOKENS - 1;
    struct weir_grammar_vocab *vocab = NULL;

    for (int i = 0; i < 256; i++) {
        bytes[i] = (char)i;
        tokens[i] = (struct weir_str){ &bytes[i], 1 };
    }
    for (int i = 0; i < PIECES; i++)
        tokens[256 + i] = weir_str(pieces[i]);
    if (weir_grammar_vocab_open_list(tokens, N_TOKENS, &end, 1, &vocab, NULL) != WEIR_OK)
        abort();
    return vocab;
}

static struct weir_grammar_state *replay(struct weir_grammar *g, const int32_t *ids, int n)
{
    struct weir_grammar_state *st = NULL;

    if (weir_grammar_state_open(g, &st, NULL) != WEIR_OK)
        return NULL; /* too ambiguous from the start */
    for (int i = 0; i < n; i++)
        if (!weir_grammar_state_accept(st, ids[i]))
            abort(); /* it was accepted before */
    return st;
}

static void check(struct weir_grammar *g, const int32_t *ids, int n, const uint32_t *bits)
{
    for (int32_t id = 0; id < N_TOKENS; id++) {
        struct weir_grammar_state *st = replay(g, ids, n);
        bool accepts = st && weir_grammar_state_accept(st, id), bit = bits[id / 32] >> (id % 32) & 1;
        weir_grammar_state_close(st);
        if (accepts != bit)
            abort();
    }
}

static void walk(struct weir_grammar *g, const uint8_t *data, size_t size)
{
    struct weir_grammar_state *st = replay(g, NULL, 0);
    uint32_t bits[N_TOKENS / 32 + 1];
    int32_t ids[STEPS];

    for (int n = 0; st && n < STEPS; n++) {
        uint32_t seed = data[(size_t)n * 7 % size] * 2654435761u + (uint32_t)n * 40503u;
        int32_t id = -1;
        weir_grammar_state_mask(st, bits, N_TOKENS);
        bool any = false;
        for (size_t w = 0; w < sizeof bits / sizeof *bits; w++)
            any = any || bits[w];
        if (!any)
            break; /* at a bound */
        if (n < CHECKS)
            check(g, ids, n, bits);
        for (uint32_t k = 0; id < 0; k++)
            if (bits[(seed + k) % N_TOKENS / 32] >> ((seed + k) % N_TOKENS % 32) & 1)
                id = (int32_t)((seed + k) % N_TOKENS);
        if (!weir_grammar_state_accept(st, id) || id == N_TOKENS - 1)
            break;
        ids[n] = id;
    }
    weir_grammar_state_close(st);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct weir_grammar_vocab *vocab;
    struct weir_grammar *g = NULL;
    struct weir_why why = { .text = "" };

    if (!vocab)
        vocab = make_vocab();
    if (size == 0 || size > TEXT_MAX)
        return 0;
    weir_err err =
        weir_grammar_compile_gbnf(vocab, (struct weir_str){ (const char *)data, size }, NULL, &g, &why);
    if (err != WEIR_OK) {
        if (g || !why.text[0] || !weir_utf8_valid(why.text, strlen(why.text)) || err == WEIR_INTERNAL)
            abort();
        return 0;
    }
    walk(g, data, size);
    weir_grammar_unref(g);
    return 0;
}
