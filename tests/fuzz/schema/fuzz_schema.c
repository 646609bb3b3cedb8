/* fuzz_schema.c - any schema compiles or is refused with a reason that names its place, and whole texts that come of
 * what compiles are JSON.
 *
 * Input: the schema. Byte by byte, a walk takes what the mask permits, led by the schema's own bytes and, after a
 * while, towards the end; jansson reads what came out. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "replica/grammar/grammar.h"

enum { N_TOKENS = 257, STEPS = 400, TEXT_MAX = 4096 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct weir_grammar_vocab *make_vocab(void)
{
    static char bytes[256];
    static struct weir_str tokens[N_TOKENS];
    static const int32_t end = 256;
    struct weir_grammar_vocab *vocab = NULL;

    for (int i = 0; i < 256; i++) {
        bytes[i] = (char)i;
        tokens[i] = (struct weir_str){ &bytes[i], 1 };
    }
    if (weir_grammar_vocab_open_list(tokens, N_TOKENS, &end, 1, &vocab, NULL) != WEIR_OK)
        abort();
    return vocab;
}

static bool has(const uint32_t *bits, int32_t id)
{
    return bits[id / 32] >> (id % 32) & 1;
}

static int32_t choose(const uint32_t *bits, uint32_t seed, bool home)
{
    static const int32_t closers[] = { 256, '"', '}', ']' };

    for (int i = 0; home && i < 4; i++)
        if (has(bits, closers[i]))
            return closers[i];
    for (uint32_t k = 0; k < N_TOKENS; k++)
        if (has(bits, (int32_t)((seed + k) % N_TOKENS)))
            return (int32_t)((seed + k) % N_TOKENS);
    return -1;
}

static void walk(struct weir_grammar *g, const uint8_t *data, size_t size)
{
    struct weir_grammar_state *st = NULL;
    uint32_t bits[N_TOKENS / 32 + 1];
    char text[STEPS];
    int32_t id = -1;
    size_t n = 0;

    if (weir_grammar_state_open(g, &st, NULL) != WEIR_OK)
        return;
    for (; n < STEPS; n++) {
        weir_grammar_state_mask(st, bits, N_TOKENS);
        id = choose(bits, data[n * 7 % size] * 2654435761u + (uint32_t)n * 40503u, n > STEPS / 4);
        if (id < 0 || !weir_grammar_state_accept(st, id) || id == 256)
            break;
        text[n] = (char)id;
    }
    weir_grammar_state_close(st);
    if (id != 256)
        return; /* not at its end */
    json_t *value = json_loadb(text, n, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    if (!value)
        abort();
    json_decref(value);
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
    const struct weir_grammar_opts opts = { .compact = data[size - 1] == ' ' };
    weir_err err =
        weir_grammar_compile_schema(vocab, (struct weir_str){ (const char *)data, size }, &opts, &g, &why);
    if (err != WEIR_OK) {
        if (g || !why.text[0] || !why.param[0] || !weir_utf8_valid(why.text, strlen(why.text)) ||
            !weir_utf8_valid(why.param, strlen(why.param)) || err == WEIR_INTERNAL)
            abort();
        return 0;
    }
    walk(g, data, size);
    weir_grammar_unref(g);
    return 0;
}
