/* walk.c - see walk.h. */
#include "tests/unit/grammar/walk.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* Pieces as tokenizers have them: words, JSON's punctuation run together, halves of characters. */
static const char *const pieces[] = {
    "\"",      "\",",          "\":",      "\": \"",   "\", \"",
    "{\"",     "\"}",          "}}",       "]}",       "}]",
    "[]",      "{}",           "[[",       "\"],",     "true",
    "false",   "null",         "true,",    " true",    " null",
    "tru",     "als",          ", ",       ": ",       "\n  ",
    "\n    ",  "  ",           "    ",     "\\\"",     "\\n",
    "\\u00",   "\\u",          "12",       "00",       "-1",
    "3.14",    "e1",           "E+",       ".5",       "0,",
    "1]",      "name",         "na",       "me\":",    "age",
    "\"age\"", "id",           "ab",       "abc",      "aa",
    "aaa",     "xyz",          "the",      " the",     "hello",
    " world",  "\xc3",         "\xa9",     "\xc3\xa9", "\xe6\xb0",
    "\xb4",    "\xe6\xb0\xb4", "\xf0\x9f", "\x8c\x8a", "\xf0\x9f\x8c\x8a",
    "\"\xc3",  "\xa9\"",       "a\"}",     "-",        "202",
    "4-0",     "T1",           "@",        ".com",     "://",
    "red",     "green",        "blue",     "\"red\"",  "kind",
    "cat",     "dog",          "next",     "value",    "\":[",
    "\":{\"",  "\",\"",        "x\",\"",
};
static const char *const tags[] = { "\n</parameter>\n", "</parameter>", "</par", "ameter>", "</function>",
                                    "<parameter=",      ">\n",          "</",    "\n<" };
enum { N_WORDS = sizeof pieces / sizeof *pieces, N_TAGS = sizeof tags / sizeof *tags };
enum { N_PIECES = N_WORDS + N_TAGS, N_TOKENS = 256 + N_PIECES + 2 };
const int32_t walk_end = 256 + N_PIECES; /* and one behind it that has no text */

static struct weir_str texts[N_TOKENS];
static char bytes[256];
static struct weir_grammar_vocab *vocab;

struct weir_grammar_vocab *walk_vocab(void)
{
    if (vocab)
        return vocab;
    for (int i = 0; i < 256; i++) {
        bytes[i] = (char)i;
        texts[i] = (struct weir_str){ &bytes[i], 1 };
    }
    for (int i = 0; i < N_PIECES; i++)
        texts[256 + i] = weir_str(i < N_WORDS ? pieces[i] : tags[i - N_WORDS]);
    assert_int_equal(weir_grammar_vocab_open_list(texts, N_TOKENS, &walk_end, 1, &vocab, NULL), WEIR_OK);
    return vocab;
}

uint32_t walk_vocab_size(void)
{
    return N_TOKENS;
}

struct weir_str walk_token(int32_t id)
{
    return texts[id];
}

void walk_free(void)
{
    weir_grammar_vocab_close(vocab);
    vocab = NULL;
}

struct weir_grammar *walk_gbnf(const char *text)
{
    struct weir_grammar *g = NULL;
    struct weir_why why = { .text = "" };
    weir_err err = weir_grammar_compile_gbnf(walk_vocab(), weir_str(text), NULL, &g, &why);

    if (err != WEIR_OK)
        fail_msg("%s: %s", text, why.text);
    return g;
}

struct weir_grammar *walk_schema(const char *json, bool compact)
{
    struct weir_grammar *g = NULL;
    struct weir_why why = { .text = "" };
    const struct weir_grammar_opts opts = { .compact = compact };
    weir_err err = weir_grammar_compile_schema(walk_vocab(), weir_str(json), &opts, &g, &why);

    if (err != WEIR_OK)
        fail_msg("%s: %s", json, why.text);
    return g;
}

struct weir_grammar *walk_calls(enum weir_grammar_call_form form, const char *tools)
{
    struct weir_grammar *g = NULL;
    struct weir_why why = { .text = "" };
    const struct weir_grammar_calls calls = { .form = form, .n_max = 3, .tools = weir_str(tools) };
    weir_err err = weir_grammar_compile_calls(walk_vocab(), &calls, NULL, &g, &why);

    if (err != WEIR_OK)
        fail_msg("%s: %s", tools, why.text);
    return g;
}

uint64_t walk_random(uint64_t *seed)
{
    uint64_t x = *seed += 0x9e3779b97f4a7c15ull;

    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

static bool has(const uint32_t *bits, int32_t id)
{
    return bits[id / 32] >> (id % 32) & 1;
}

static struct weir_grammar_state *replay(struct weir_grammar *grammar, const int32_t *ids, int n_ids)
{
    struct weir_grammar_state *st = NULL;

    assert_int_equal(weir_grammar_state_open(grammar, &st, NULL), WEIR_OK);
    for (int i = 0; i < n_ids; i++)
        assert_true(weir_grammar_state_accept(st, ids[i]));
    return st;
}

void walk_check_mask(struct weir_grammar *grammar, const int32_t *ids, int n_ids)
{
    uint32_t bits[N_TOKENS / 32 + 1];
    struct weir_grammar_state *st = replay(grammar, ids, n_ids);

    weir_grammar_state_mask(st, bits, N_TOKENS);
    assert_int_equal(has(bits, walk_end), weir_grammar_state_whole(st));
    weir_grammar_state_close(st);
    for (int32_t id = 0; id < N_TOKENS; id++) {
        st = replay(grammar, ids, n_ids);
        bool accepts = weir_grammar_state_accept(st, id);
        weir_grammar_state_close(st);
        if (accepts != has(bits, id))
            fail_msg("token %d \"%.*s\" behind %d tokens: the mask says %d", id, WEIR_STR_FMT(texts[id]),
                     n_ids, has(bits, id));
    }
}

static int32_t choose(const uint32_t *bits, uint64_t *seed, bool home, bool in_tags)
{
    /* What closes things; tags first, since between them anything else may go on for ever. */
    static const char *const closers[] = { "\n</parameter>\n", "</function>", "\"", "]", "}" };
    int32_t found[N_TOKENS];
    uint32_t n = 0;

    if (home && has(bits, walk_end))
        return walk_end;
    for (size_t i = in_tags ? 0 : 2; home && i < sizeof closers / sizeof *closers; i++)
        for (int32_t id = 0; id < N_TOKENS; id++)
            if (has(bits, id) && weir_str_eq(texts[id], closers[i]))
                return id;
    for (int32_t id = 0; id < N_TOKENS; id++)
        if (has(bits, id))
            found[n++] = id;
    if (n == 0)
        return -1;
    /* Mostly longer tokens, if any: those with borders within. */
    int32_t id = found[walk_random(seed) % n];
    if (id < 256 && walk_random(seed) % 2)
        id = found[walk_random(seed) % n];
    return id;
}

enum { IDS_MAX = 1 << 16 };

bool walk(struct weir_grammar *grammar, uint64_t *seed, size_t n_want, struct weir_buf *out)
{
    static int32_t ids[IDS_MAX];
    uint32_t bits[N_TOKENS / 32 + 1];
    struct weir_grammar_state *st = replay(grammar, NULL, 0);
    bool ambiguous = n_want < 10;
    size_t n_most = ambiguous ? 40 : 64 * n_want + 4096;
    int n_ids = 0;
    int32_t id = -1;

    weir_buf_clear(out);
    while (n_ids < IDS_MAX && weir_buf_len(out) < n_most) {
        weir_grammar_state_mask(st, bits, N_TOKENS);
        bool in_tags = weir_buf_len(out) > 0 && weir_buf_ptr(out)[0] == '<';
        id = choose(bits, seed, weir_buf_len(out) >= n_want, in_tags);
        if (id < 0)
            fail_msg("nothing may come behind %.*s", (int)weir_buf_len(out), weir_buf_ptr(out));
        if (!weir_grammar_state_accept(st, id)) {
            assert_true(ambiguous); /* at its bound */
            id = -1;
            break;
        }
        if (id == walk_end)
            break;
        ids[n_ids++] = id;
        weir_buf_add(out, texts[id].ptr, texts[id].len);
        if (n_ids < (ambiguous ? 3 : 400) && walk_random(seed) % (ambiguous ? 4 : 64) == 0)
            walk_check_mask(grammar, ids, n_ids);
    }
    weir_grammar_state_close(st);
    return id == walk_end;
}

bool walk_accepts(struct weir_grammar *grammar, struct weir_str text)
{
    struct weir_grammar_state *st = replay(grammar, NULL, 0);
    bool ok = true;

    for (size_t i = 0; ok && i < text.len; i++)
        ok = weir_grammar_state_accept(st, (unsigned char)text.ptr[i]);
    ok = ok && weir_grammar_state_whole(st);
    weir_grammar_state_close(st);
    return ok;
}
