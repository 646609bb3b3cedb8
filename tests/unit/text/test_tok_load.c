/* Damaged, inconsistent and unknown tokenizer files are refused with the member's name; what the config says
 * counts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "base/mem.h"
#include "replica/text/tok_int.h"

static weir_err open_text(const char *json, const char *config, struct weir_tokenizer **ret,
                          struct weir_why *why)
{
    return tok_open_bytes(weir_str(json), weir_str(config), ret, why);
}

#define VOCAB "\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"\\u2581\":3}"
#define MODEL "\"model\":{\"type\":\"BPE\"," VOCAB ",\"merges\":[\"a b\"]}"

static void test_refused(void **state)
{
    static const struct {
        const char *json;
        weir_err err;
        const char *words;
    } cases[] = {
        { "", WEIR_CORRUPT, "" },
        { "[]", WEIR_CORRUPT, "" },
        { "{\"model\":", WEIR_CORRUPT, "byte" },
        { "{}", WEIR_CORRUPT, "model" },
        { "{\"model\":{\"type\":\"Unigram\",\"vocab\":[],\"merges\":[]}}", WEIR_UNIMPLEMENTED, "Unigram" },
        { "{\"model\":{\"type\":\"BPE\",\"merges\":[]}}", WEIR_CORRUPT, "vocab" },
        { "{\"model\":{\"type\":\"BPE\",\"vocab\":{}}}", WEIR_CORRUPT, "merges" },
        { "{\"model\":{\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}", WEIR_CORRUPT, "id 0 comes twice" },
        { "{\"model\":{\"vocab\":{\"a\":0,\"a\":1},\"merges\":[]}}", WEIR_CORRUPT, "comes twice" },
        { "{\"model\":{\"vocab\":{\"a\":-1},\"merges\":[]}}", WEIR_CORRUPT, "model.vocab" },
        { "{\"model\":{\"vocab\":{\"a\":2097152},\"merges\":[]}}", WEIR_CORRUPT, "outside" },
        { "{\"model\":{\"vocab\":{\"a\":2000000},\"merges\":[]}}", WEIR_CORRUPT, "holes" },
        { "{\"model\":{\"vocab\":{\"a\":\"x\"},\"merges\":[]}}", WEIR_CORRUPT, "model.vocab" },
        { "{\"model\":{" VOCAB ",\"merges\":[\"ab\"]}}", WEIR_CORRUPT, "model.merges" },
        { "{\"model\":{" VOCAB ",\"merges\":[\"a b c\"]}}", WEIR_CORRUPT, "one space" },
        { "{\"model\":{" VOCAB ",\"merges\":[\"a x\"]}}", WEIR_CORRUPT, "a part is not in" },
        { "{\"model\":{" VOCAB ",\"merges\":[\"b a\"]}}", WEIR_CORRUPT, "the result is not in" },
        { "{\"model\":{" VOCAB ",\"merges\":[[\"a\"]]}}", WEIR_CORRUPT, "two parts" },
        { "{\"model\":{" VOCAB ",\"merges\":[[\"a\",\"b\",\"c\"]]}}", WEIR_CORRUPT, "two parts" },
        { "{\"model\":{" VOCAB ",\"merges\":[],\"unk_token\":\"zz\"}}", WEIR_CORRUPT, "unk_token" },
        { "{\"model\":{" VOCAB ",\"merges\":[],\"dropout\":0.1}}", WEIR_UNIMPLEMENTED, "dropout" },
        { "{\"model\":{" VOCAB ",\"merges\":[],\"end_of_word_suffix\":\"</w>\"}}", WEIR_UNIMPLEMENTED,
          "end_of_word" },
        { "{\"normalizer\":{\"type\":\"Precompiled\"}," MODEL "}", WEIR_UNIMPLEMENTED, "Precompiled" },
        { "{\"normalizer\":{}," MODEL "}", WEIR_CORRUPT, "type" },
        { "{\"normalizer\":{\"type\":\"Replace\",\"content\":\"\"}," MODEL "}", WEIR_CORRUPT, "pattern" },
        { "{\"pre_tokenizer\":{\"type\":\"UnicodeScripts\"}," MODEL "}", WEIR_UNIMPLEMENTED,
          "UnicodeScripts" },
        { "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"},\"behavior\":\"Isolated\"}"
          "," MODEL "}",
          WEIR_CORRUPT, "pattern" },
        { "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\h\"},\"behavior\":"
          "\"Isolated\"}," MODEL "}",
          WEIR_UNIMPLEMENTED, "\\h" },
        { "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a{1,3}+\"},\"behavior\":"
          "\"Isolated\"}," MODEL "}",
          WEIR_UNIMPLEMENTED, "{1,3}+" },
        { "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[a&&b]\"},\"behavior\":"
          "\"Isolated\"}," MODEL "}",
          WEIR_UNIMPLEMENTED, "&&b" },
        { "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(*UTF)a\"},\"behavior\":"
          "\"Isolated\"}," MODEL "}",
          WEIR_UNIMPLEMENTED, "(*UTF)" },
        { "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},\"behavior\":\"Sideways\"}"
          "," MODEL "}",
          WEIR_UNIMPLEMENTED, "Sideways" },
        { "{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"ByteLevel\"},{\"type\":"
          "\"Digits\"}]}," MODEL "}",
          WEIR_UNIMPLEMENTED, "ByteLevel" },
        { "{\"decoder\":{\"type\":\"WordPiece\"}," MODEL "}", WEIR_UNIMPLEMENTED, "WordPiece" },
        { "{\"post_processor\":{\"type\":\"BertProcessing\"}," MODEL "}", WEIR_UNIMPLEMENTED,
          "BertProcessing" },
        { "{\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"x\"}}"
          "],"
          "\"special_tokens\":{}}," MODEL "}",
          WEIR_CORRUPT, "\"x\" has no ids" },
        { "{\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"x\"}}"
          "],"
          "\"special_tokens\":{\"x\":{\"ids\":[99]}}}," MODEL "}",
          WEIR_CORRUPT, "past the vocabulary" },
        { "{\"added_tokens\":[{\"content\":\"x\"}]," MODEL "}", WEIR_CORRUPT, "no id" },
        { "{\"added_tokens\":[{\"id\":7,\"content\":\"x\"},{\"id\":7,\"content\":\"y\"}]," MODEL "}",
          WEIR_CORRUPT, "id 7 comes twice" },
        { "{\"added_tokens\":[{\"id\":0,\"content\":\"x\"}]," MODEL "}", WEIR_CORRUPT, "id 0 is" },
        { "{\"added_tokens\":[{\"id\":9,\"content\":\"a\"}]," MODEL "}", WEIR_CORRUPT, "id 9 has id 0" },
        { "{\"added_tokens\":[{\"id\":9,\"content\":\"x\",\"lstrip\":1}]," MODEL "}", WEIR_CORRUPT,
          "lstrip" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct weir_tokenizer *tok = NULL;
        struct weir_why why = { 0 };
        weir_err err = open_text(cases[i].json, "", &tok, &why);
        if (err != cases[i].err || !strstr(why.text, cases[i].words) || !strstr(why.text, "tokenizer.json"))
            fail_msg("%s: %s, \"%s\"", cases[i].json, weir_err_info(err)->name, why.text);
        assert_null(tok);
    }
}

/* Sequence in Sequence in ... */
static void test_nested(void **state)
{
    char json[2048] = "{\"normalizer\":", *end = json + strlen(json);
    struct weir_tokenizer *tok = NULL;
    struct weir_why why = { 0 };

    (void)state;
    for (int i = 0; i < 20; i++)
        end = stpcpy(end, "{\"type\":\"Sequence\",\"normalizers\":[");
    for (int i = 0; i < 20; i++)
        end = stpcpy(end, "]}");
    strcpy(end, "," MODEL "}");
    assert_int_equal(open_text(json, "", &tok, &why), WEIR_CORRUPT);
    assert_non_null(strstr(why.text, "nested"));
}

static size_t count(struct weir_tokenizer *tok, const char *text, bool add_bos, int32_t *ret_first)
{
    struct weir_arena arena;
    struct weir_tokens ids;

    weir_arena_init(&arena, 0);
    assert_int_equal(weir_tokenize(tok, weir_str(text), true, add_bos, 99, &arena, &ids, NULL), WEIR_OK);
    *ret_first = ids.n ? ids.ids[0] : -1;
    weir_arena_release(&arena);
    return ids.n;
}

static void test_config(void **state)
{
    static const char json[] =
        "{\"added_tokens\":[{\"id\":8,\"content\":\"<s>\",\"special\":true}]," MODEL "}";
    static const char with_bos[] =
        "{\"added_tokens\":[{\"id\":8,\"content\":\"<s>\",\"special\":true}],\"post_processor\":{\"type\":"
        "\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\",\"type_id\":0}},{\"Sequence\":{"
        "\"id\":"
        "\"A\"}}],\"special_tokens\":{\"<s>\":{\"id\":\"<s>\",\"ids\":[8],\"tokens\":[\"<s>\"]}}}," MODEL "}";
    static const struct {
        const char *json, *config, *bos, *eos;
        size_t n; /* tokens of "ab" with add_bos */
    } cases[] = {
        { json, "", "", "", 1 },
        { json, "{\"bos_token\":\"<s>\",\"eos_token\":{\"content\":\"</s>\",\"lstrip\":false}}", "<s>",
          "</s>", 1 },
        { json, "{\"bos_token\":\"<s>\",\"eos_token\":null,\"add_bos_token\":true}", "<s>", "", 2 },
        { with_bos, "{\"bos_token\":\"<s>\"}", "<s>", "", 2 },
        { with_bos, "{\"bos_token\":\"<s>\",\"add_bos_token\":true}", "<s>", "", 2 },
        { with_bos, "{\"bos_token\":\"<s>\",\"add_bos_token\":false}", "<s>", "", 1 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct weir_tokenizer *tok = NULL;
        struct weir_why why = { 0 };
        int32_t first;
        if (open_text(cases[i].json, cases[i].config, &tok, &why) != WEIR_OK)
            fail_msg("%zu: %s", i, why.text);
        assert_true(weir_str_eq(weir_tokenizer_bos(tok), cases[i].bos));
        assert_true(weir_str_eq(weir_tokenizer_eos(tok), cases[i].eos));
        assert_int_equal(weir_tokenizer_vocab(tok), 9);
        assert_int_equal(count(tok, "ab", true, &first), cases[i].n);
        assert_int_equal(first, cases[i].n == 2 ? 8 : 2);
        assert_int_equal(count(tok, "ab", false, &first), 1);
        weir_tokenizer_close(tok);
    }
}

static void test_bad_config(void **state)
{
    struct weir_tokenizer *tok = NULL;
    struct weir_why why = { 0 };

    (void)state;
    assert_int_equal(open_text("{" MODEL "}", "{\"bos_token\":5}", &tok, &why), WEIR_CORRUPT);
    assert_non_null(strstr(why.text, "tokenizer_config.json"));
    assert_non_null(strstr(why.text, "bos_token"));
    why.text[0] = '\0';
    assert_int_equal(open_text("{" MODEL "}", "{", &tok, &why), WEIR_CORRUPT);
    assert_non_null(strstr(why.text, "tokenizer_config.json"));
}

static void test_folder(void **state)
{
    struct weir_tokenizer *tok = NULL;
    struct weir_why why = { 0 };
    uint8_t hash[32];
    char *data = malloc(1 << 20);
    FILE *file = fopen("models/demo/tokenizer.json", "rb");

    (void)state;
    assert_int_equal(weir_tokenizer_open("/nowhere", &tok, &why), WEIR_IO);
    assert_non_null(strstr(why.text, "/nowhere/tokenizer.json"));
    assert_non_null(data);
    assert_non_null(file);
    size_t len = fread(data, 1, 1 << 20, file);
    fclose(file);
    assert_int_equal(weir_tokenizer_open("models/demo", &tok, &why), WEIR_OK);
    weir_sha256(data, len, hash);
    assert_memory_equal(hash, weir_tokenizer_hash(tok), 32);
    assert_true(weir_tokenizer_eos(tok).len > 0);
    assert_true(weir_token_is_special(tok, weir_token_id(tok, weir_tokenizer_eos(tok))));
    weir_tokenizer_close(tok);
    free(data);
}

/* Only n allocations succeed: an error each time, and nothing leaks (ASan sees). */
static void test_no_memory(void **state)
{
    static const char json[] = "{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{"
                               "\"type\":\"Replace\",\"pattern\":"
                               "{\"Regex\":\" "
                               "+\"},\"content\":\"\\u2581\"}]},\"pre_tokenizer\":{\"type\":\"Split\","
                               "\"pattern\":{\"Regex\":\"a|b\"},"
                               "\"behavior\":\"MergedWithNext\"},\"added_tokens\":[{\"id\":8,\"content\":\"<"
                               "s>\",\"normalized\":true}],"
                               "\"decoder\":{\"type\":\"Metaspace\"}," MODEL "}";
    weir_err err = WEIR_NOMEM;
    int n = 0;

    (void)state;
    for (; err != WEIR_OK && n < 2000; n++) {
        struct weir_tokenizer *tok = NULL;
        struct weir_why why = { 0 };
        weir_test_alloc_budget(n);
        err = open_text(json, "{\"bos_token\":\"<s>\"}", &tok, &why);
        weir_test_alloc_budget(-1);
        assert_true(err == WEIR_OK ? tok != NULL : tok == NULL);
        weir_tokenizer_close(tok);
    }
    assert_int_equal(err, WEIR_OK);
    assert_true(n > 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),    cmocka_unit_test(test_nested), cmocka_unit_test(test_config),
        cmocka_unit_test(test_bad_config), cmocka_unit_test(test_folder), cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
