/* fuzz_tokenizer_json.c - any tokenizer.json loads or is refused with a reason, and what loads tokenizes.
 *
 * Input: the file, then perhaps a NUL and a text of the user's. Ids are below the vocabulary, no more than
 * asked for, and equal in a second run, when the whole-token memory has filled. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "replica/text/tok_int.h"

enum { IDS_MAX = 4096, TEXT_BYTES_MAX = 4096 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_run(const struct weir_tokenizer *tok, struct weir_str text, bool special,
                      struct weir_arena *arena)
{
    struct weir_tokens first = { 0 }, second = { 0 };
    struct weir_why why = { 0 };
    weir_err err = weir_tokenize(tok, text, special, true, IDS_MAX, arena, &first, &why);

    if (err != weir_tokenize(tok, text, special, true, IDS_MAX, arena, &second, &why))
        abort();
    if (err == WEIR_OK ? first.n > IDS_MAX || first.n != second.n : !why.text[0])
        abort();
    for (size_t i = 0; i < first.n; i++) {
        if (first.ids[i] != second.ids[i] || first.ids[i] < 0 ||
            (size_t)first.ids[i] >= weir_tokenizer_vocab(tok))
            abort();
        (void)weir_token_bytes(tok, first.ids[i], special);
    }
}

/* Without spans the same ids; with them as sound. */
static void check_spans(const struct weir_tokenizer *tok, struct weir_str text, struct weir_arena *arena)
{
    const struct weir_span spans[] = { { text.len / 4, text.len / 3 }, { text.len / 2, text.len } };
    struct weir_tokens plain = { 0 }, same = { 0 }, some = { 0 };
    struct weir_why why = { 0 };
    weir_err err = weir_tokenize(tok, text, true, true, IDS_MAX, arena, &plain, &why);

    if (err != weir_tokenizer_encode_spans(tok, text, NULL, 0, true, IDS_MAX, arena, &same, &why))
        abort();
    if (plain.n != same.n || (plain.n > 0 && memcmp(plain.ids, same.ids, plain.n * sizeof *plain.ids) != 0))
        abort();
    err = weir_tokenizer_encode_spans(tok, text, spans, 2, true, IDS_MAX, arena, &some, &why);
    if (err == WEIR_OK ? some.n > IDS_MAX : !why.text[0])
        abort();
    for (size_t i = 0; i < some.n; i++)
        if (some.ids[i] < 0 || (size_t)some.ids[i] >= weir_tokenizer_vocab(tok))
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char own[] = "Hello  w\xc3\xb6rld's <s>a</s> 1234\n\n \xe6\xb0\xb4\xf0\x9f\x8c\x8a"
                              "e\xcc\x81\xcc\xa3 abab";
    const uint8_t *end = memchr(data, 0, size);
    struct weir_str json = { (const char *)data, end ? (size_t)(end - data) : size };
    struct weir_str text = { own, sizeof own - 1 };
    struct weir_tokenizer *tok = NULL;
    struct weir_why why = { 0 };
    weir_err err =
        tok_open_bytes(json, WEIR_STR("{\"bos_token\":\"<s>\",\"add_bos_token\":true}"), &tok, &why);

    if (err != WEIR_OK) {
        if (tok || !why.text[0])
            abort();
        return 0;
    }
    struct weir_arena arena;
    weir_arena_init(&arena, 0);
    check_run(tok, text, true, &arena);
    check_run(tok, text, false, &arena);
    check_spans(tok, text, &arena);
    if (end) {
        size_t len = size - json.len - 1;
        check_run(tok,
                  (struct weir_str){ (const char *)end + 1, len < TEXT_BYTES_MAX ? len : TEXT_BYTES_MAX },
                  true, &arena);
    }
    weir_arena_release(&arena);
    weir_tokenizer_close(tok);
    return 0;
}
