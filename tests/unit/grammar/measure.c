/* measure.c - what masks cost: us a mask and an accepted token, over made-up vocabularies of 4k and 128k tokens.
 *
 * usage: grammar_measure    (not a test: it says numbers, it judges none)
 * Each grammar reads a document token by token (the longest token first), once with nothing known and then again
 * with the masks of its nodes kept. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "replica/grammar/grammar.h"

enum { STEPS_MAX = 4096 };

/* Of this thread: what else the machine does is not counted. */
static uint64_t cpu_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t next(uint64_t *seed)
{
    uint64_t x = *seed += 0x9e3779b97f4a7c15ull;

    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

/* Bytes, numbers, words of syllables with and without a space before them, words with punctuation of JSON. */
static void make_token(uint32_t i, uint64_t *seed, char *text, size_t size)
{
    static const char *const syllables[] = { "an",  "be", "co", "di", "er",  "fo",  "gra", "hi",  "in", "ka",
                                             "lo",  "me", "na", "or", "pre", "qui", "re",  "sta", "ti", "un",
                                             "ver", "wi", "xe", "yo", "ze",  "ing", "ed",  "tion" };
    static const char *const marks[] = { "\"", "\",", "\":",  "\": \"", "\"}", "{\"", ".",
                                         ",",  "\n",  "\n\n", "_",      "(",   "->",  "/" };
    static const char *const wide[] = { "\xe6\xb0\xb4", "\xe7\x81\xab", "\xc3\xa9", "\xd0\xb6",
                                        "\xf0\x9f\x8c\x8a" };
    size_t n = 0;

    if (i < 1256) {
        snprintf(text, size, "%u", i - 256);
        return;
    }
    uint64_t r = next(seed);
    n += (size_t)snprintf(text, size, "%s", r % 100 < 40 ? " " : r % 100 < 45 ? marks[r / 100 % 14] : "");
    for (uint64_t k = 1 + r / 1000 % 4; k > 0; k--)
        n += (size_t)snprintf(text + n, size - n, "%s",
                              r / 7 % 16 == 0 ? wide[next(seed) % 5] : syllables[next(seed) % 28]);
    if (r / 11 % 20 == 0)
        snprintf(text + n, size - n, "%s", marks[next(seed) % 14]);
}

static char *room;
static struct weir_str *tokens;

static struct weir_grammar_vocab *make_vocab(uint32_t n, double *ret_ms)
{
    struct weir_grammar_vocab *vocab = NULL;
    uint64_t seed = 1;
    const int32_t end = (int32_t)n - 1;

    room = calloc(n, 64);
    tokens = calloc(n, sizeof *tokens);
    for (uint32_t i = 0; room && tokens && i + 1 < n; i++) {
        char *text = room + 64 * (size_t)i;
        if (i < 256)
            *text = (char)i;
        else
            make_token(i, &seed, text, 64);
        tokens[i] = (struct weir_str){ text, i < 256 ? 1 : strlen(text) };
    }
    uint64_t begin = cpu_ns();
    if (!room || !tokens || weir_grammar_vocab_open_list(tokens, n, &end, 1, &vocab, NULL) != WEIR_OK)
        exit(1);
    *ret_ms = (double)(cpu_ns() - begin) / 1e6;
    return vocab;
}

static int32_t longest(uint32_t n, const char *text, size_t len)
{
    int32_t best = (unsigned char)*text;

    for (uint32_t i = 256; i + 1 < n; i++)
        if (tokens[i].len <= len && tokens[i].len > tokens[best].len &&
            memcmp(tokens[i].ptr, text, tokens[i].len) == 0)
            best = (int32_t)i;
    return best;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

/* One reading; sorted us of each mask, and the sum of the accepts. */
static void read_once(struct weir_grammar *g, const int32_t *ids, int n, uint32_t n_vocab, double *us,
                      double *ret_accept)
{
    struct weir_grammar_state *st = NULL;
    uint32_t *bits = calloc(n_vocab / 32 + 1, sizeof *bits);

    if (!bits || weir_grammar_state_open(g, &st, NULL) != WEIR_OK)
        exit(1);
    *ret_accept = 0;
    for (int i = 0; i < n; i++) {
        uint64_t t0 = cpu_ns();
        weir_grammar_state_mask(st, bits, n_vocab);
        uint64_t t1 = cpu_ns();
        if (!(bits[ids[i] / 32] >> (ids[i] % 32) & 1) || !weir_grammar_state_accept(st, ids[i])) {
            printf("token %d is not permitted\n", i);
            exit(1);
        }
        us[i] = (double)(t1 - t0) / 1e3;
        *ret_accept += (double)(cpu_ns() - t1) / 1e3;
    }
    weir_grammar_state_close(st);
    free(bits);
    qsort(us, (size_t)n, sizeof *us, by_size);
}

static double mean(const double *us, int n)
{
    double sum = 0;

    for (int i = 0; i < n; i++)
        sum += us[i];
    return sum / n;
}

static void measure(const struct weir_grammar_vocab *vocab, uint32_t n_vocab, const char *name,
                    const char *gbnf, const char *schema, const char *text)
{
    static int32_t ids[STEPS_MAX];
    static double us[STEPS_MAX];
    struct weir_grammar *g = NULL;
    struct weir_why why = { .text = "" };
    double accept, first_max;
    int n = 0;

    for (size_t i = 0, len = strlen(text); i < len && n < STEPS_MAX; n++) {
        ids[n] = longest(n_vocab, text + i, len - i);
        i += tokens[ids[n]].len;
    }
    uint64_t begin = cpu_ns();
    weir_err err = gbnf ? weir_grammar_compile_gbnf(vocab, weir_str(gbnf), NULL, &g, &why)
                        : weir_grammar_compile_schema(vocab, weir_str(schema), NULL, &g, &why);
    double compile_ms = (double)(cpu_ns() - begin) / 1e6;
    if (err != WEIR_OK) {
        printf("%s: %s\n", name, why.text);
        exit(1);
    }
    read_once(g, ids, n, n_vocab, us, &accept);
    double first_mean = mean(us, n);
    first_max = us[n - 1];
    read_once(g, ids, n, n_vocab, us, &accept);
    printf("| %s | %u | %d | %.1f | %.1f | %.0f | %.1f | %.1f | %.0f | %.2f |\n", name, n_vocab, n,
           compile_ms, first_mean, first_max, mean(us, n), us[n / 2], us[n - 1], accept / n);
    weir_grammar_unref(g);
}

static const char schema[] = "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},\"age\":{"
                             "\"type\":\"integer\"},\"tags\":{\"type\":\"array\","
                             "\"items\":{\"type\":\"string\"}},\"kind\":{\"enum\":[\"person\",\"firm\"]},"
                             "\"note\":{\"type\":\"string\"}},\"required\":[\"name\","
                             "\"age\",\"tags\",\"kind\",\"note\"]}";
static const char bounded[] = "{\"type\":\"string\",\"maxLength\":400}";
static const char json[] =
    "root ::= value\nvalue ::= object | array | string | number | \"true\" | \"false\" | \"null\"\n"
    "object ::= \"{\" ws (string \":\" ws value (\",\" ws string \":\" ws value)*)? \"}\" ws\n"
    "array ::= \"[\" ws (value (\",\" ws value)*)? \"]\" ws\n"
    "string ::= \"\\\"\" ([^\"\\\\\\x00-\\x1f] | \"\\\\\" ([\"\\\\/bfnrt] | \"u\" [0-9a-fA-F]{4}))* \"\\\"\" "
    "ws\n"
    "number ::= \"-\"? [0-9]+ (\".\" [0-9]+)? ws\nws ::= | \" \" | \"\\n\" [ \\t]{0,20}\n";
static const char document[] = "{\"name\": \"Graber and her veranda under the weir\", \"age\": 1234, "
                               "\"tags\": [\"water\", \"stone, and fire\", \"x\"], "
                               "\"kind\": \"person\", \"note\": \"predicting a long reunion, in forgotten "
                               "stations of the line; then more, and "
                               "inverting the quiet wishes of everyone in town. \\\"So be it\\\", she said, "
                               "\xc3\xa9ternal \xe6\xb0\xb4.\"}";
static const char string[] =
    "\"predicting a long reunion, in forgotten stations of the line; then more, and inverting the quiet "
    "wishes of everyone in town, in forgotten stations of the line; then more\"";
static const char prose[] = "root ::= [A-Z] [^\\n]* \"\\n\"";
static const char line[] =
    "The predicting of a long reunion, in forgotten stations of the line; then more, and inverting.\n";

int main(void)
{
    static const uint32_t sizes[] = { 4096, 131072 };

    printf(
        "| grammar | tokens | steps | compile ms | first us | first max | us | median | max | accept us |\n");
    for (int i = 0; i < 2; i++) {
        double ms;
        struct weir_grammar_vocab *vocab = make_vocab(sizes[i], &ms);
        measure(vocab, sizes[i], "schema", NULL, schema, document);
        measure(vocab, sizes[i], "JSON as GBNF", json, NULL, document);
        measure(vocab, sizes[i], "string of at most 400", NULL, bounded, string);
        measure(vocab, sizes[i], "a line of prose", prose, NULL, line);
        printf("index of %u tokens: %.0f ms\n", sizes[i], ms);
        weir_grammar_vocab_close(vocab);
        free(room);
        free(tokens);
    }
    return 0;
}
