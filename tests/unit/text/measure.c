/* measure.c - what a megabyte of one thing costs to tokenize, with the tiny tokenizers of tests/golden.
 *
 * usage: tokenizer_measure    (from the repository's root; not a test: it says numbers, it judges none)
 * CPU time of this thread; each row: the slowest of the texts. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/utf8.h"
#include "replica/text/tok_int.h"

#define FOLDER "tests/golden/tokenizers/"

enum { SIZE = 1 << 20, N_UNITS = 16 };
static const char *const units[N_UNITS] = { "a",
                                            " ",
                                            "\n",
                                            " \n",
                                            "ab",
                                            "\xf0\x9f\x8c\x8a",
                                            "\xe6\xb0\xb4",
                                            "0",
                                            "1 2",
                                            "\xcc\x81\xcc\xa3",
                                            "\xe2\x96\x81",
                                            "<|endoftext",
                                            "'s",
                                            "\r\n\t",
                                            "-=_.",
                                            "random characters" };

static uint64_t cpu_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static size_t fill(char *text, int unit)
{
    size_t len = 0, n = strlen(units[unit]);
    uint64_t x = 1;

    while (unit == N_UNITS - 1 && len + 4 <= SIZE) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        uint32_t c = (uint32_t)(x >> 33) % (x >> 60 & 1 ? 0x80 : 0x10000);
        len += weir_utf8_put(c >= 0xd800 && c <= 0xdfff ? 'x' : c, text + len);
    }
    while (unit < N_UNITS - 1 && len + n <= SIZE) {
        memcpy(text + len, units[unit], n);
        len += n;
    }
    return len;
}

static void measure(const char *name, char *text)
{
    static char json[1 << 20];
    char path[512];
    double worst_ms = 0, sum_ms = 0;
    int worst = 0;
    struct weir_tokenizer *tok = NULL;

    snprintf(path, sizeof path, FOLDER "%s", name);
    FILE *file = fopen(path, "rb");
    size_t n = file ? fread(json, 1, sizeof json, file) : 0;
    if (file)
        fclose(file);
    if (tok_open_bytes((struct weir_str){ json, n }, (struct weir_str){ 0 }, &tok, NULL) != WEIR_OK)
        return;
    for (int u = 0; u < N_UNITS; u++) {
        struct weir_arena arena;
        struct weir_tokens ids;
        size_t len = fill(text, u);
        weir_arena_init(&arena, 0);
        uint64_t begin = cpu_ns();
        if (weir_tokenize(tok, (struct weir_str){ text, len }, true, false, SIZE_MAX, &arena, &ids, NULL) !=
            WEIR_OK)
            printf("%s refused %s\n", name, units[u]);
        double ms = (double)(cpu_ns() - begin) / 1e6;
        worst = ms > worst_ms ? u : worst;
        worst_ms = ms > worst_ms ? ms : worst_ms;
        sum_ms += ms;
        weir_arena_release(&arena);
    }
    char *dot = strchr(path + sizeof FOLDER - 1, '.');
    *dot = 0;
    printf("| %s | %.0f | %.0f (%s) |\n", path + sizeof FOLDER - 1, sum_ms / N_UNITS, worst_ms,
           strcmp(units[worst], "\n") == 0 ? "\\n" : units[worst]);
    weir_tokenizer_close(tok);
}

int main(void)
{
    struct dirent **list;
    char *text = malloc(SIZE + 16);
    int n = scandir(FOLDER, &list, NULL, alphasort);

    printf("| tokenizer | mean ms | worst ms |\n|---|---|---|\n");
    for (int i = 0; text && i < n; i++) {
        if (list[i]->d_name[0] != '.' && strcmp(list[i]->d_name, "expected.json") != 0)
            measure(list[i]->d_name, text);
        free(list[i]);
    }
    if (n >= 0)
        free(list);
    free(text);
    return n > 0 ? 0 : 1;
}
