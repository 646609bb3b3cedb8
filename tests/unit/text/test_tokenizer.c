/* Ids equal to those of the `tokenizers` package, over tiny tokenizers of many families and texts that are
 * hard on them (tests/golden/make_tokenizers.py wrote both). */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"
#include "base/mem.h"
#include "replica/text/tok_int.h"

#define FOLDER "tests/golden/tokenizers/"

static char *read_file(const char *path, size_t *ret_len)
{
    FILE *file = fopen(path, "rb");

    if (!file)
        fail_msg("%s is missing", path);
    size_t cap = 8 << 20, len;
    char *data = malloc(cap);
    assert_non_null(data);
    len = fread(data, 1, cap, file);
    assert_true(len < cap);
    fclose(file);
    *ret_len = len;
    return data;
}

static struct weir_tokenizer *open_fixture(const char *name)
{
    char path[256];
    size_t len;
    struct weir_why why = { 0 };
    struct weir_tokenizer *tok = NULL;

    snprintf(path, sizeof path, FOLDER "%s.json", name);
    char *json = read_file(path, &len);
    if (tok_open_bytes((struct weir_str){ json, len }, (struct weir_str){ 0 }, &tok, &why) != WEIR_OK)
        fail_msg("%s: %s", name, why.text);
    free(json);
    return tok;
}

enum { TEXTS_MAX = 512, IDS_MAX = 4096 };

struct golden {
    char *data;
    struct weir_arena arena;
    struct weir_str texts[TEXTS_MAX];
    int n_texts;
    struct weir_json j;
};

static size_t read_ids(struct weir_json *j, int64_t *ret)
{
    size_t n = 0;

    assert_true(weir_json_array(j));
    while (weir_json_next(j)) {
        assert_true(n < IDS_MAX);
        assert_true(weir_json_i64(j, &ret[n++]));
    }
    return n;
}

static void check_ids(const struct weir_tokenizer *tok, const char *name, struct weir_str text,
                      bool parse_special, const int64_t *want, size_t n_want)
{
    struct weir_arena arena;
    struct weir_tokens got;
    struct weir_why why = { 0 };
    bool same;

    weir_arena_init(&arena, 0);
    if (weir_tokenize(tok, text, parse_special, /* add_bos= */ false, IDS_MAX, &arena, &got, &why) != WEIR_OK)
        fail_msg("%s: \"%.*s\": %s", name, WEIR_STR_FMT(text), why.text);
    same = got.n == n_want;
    for (size_t i = 0; same && i < n_want; i++)
        same = got.ids[i] == want[i];
    if (!same) {
        print_error("%s, specials %s: \"%.*s\"\n  want", name, parse_special ? "parsed" : "as text",
                    WEIR_STR_FMT(text));
        for (size_t i = 0; i < n_want; i++)
            print_error(" %d", (int)want[i]);
        print_error("\n  got ");
        for (size_t i = 0; i < got.n; i++)
            print_error(" %d", got.ids[i]);
        print_error("\n");
        fail();
    }
    weir_arena_release(&arena);
}

/* "decoded": [[[ids], "text"], ...]: token by token the same text as of the whole, but for the space that some decoders
 * strip from the front of all: a stream goes on behind a prompt, so it stays. */
static void check_decoded(struct golden *g, const struct weir_tokenizer *tok, const char *name)
{
    int64_t ids[IDS_MAX];
    struct weir_str want;

    assert_true(weir_json_array(&g->j));
    while (weir_json_next(&g->j)) {
        struct weir_detok d;
        struct weir_buf out;
        assert_true(weir_json_array(&g->j) && weir_json_next(&g->j));
        size_t n = read_ids(&g->j, ids);
        assert_true(weir_json_next(&g->j) && weir_json_string(&g->j, &want) && !weir_json_next(&g->j));
        weir_detok_init(&d);
        weir_buf_init(&out, 0);
        for (size_t i = 0; i < n; i++) {
            weir_detok_push(&d, weir_token_bytes(tok, (int32_t)ids[i], /* with_special= */ false), &out);
            assert_true(weir_utf8_valid(weir_buf_ptr(&out), weir_buf_len(&out)));
        }
        weir_detok_finish(&d, &out);
        struct weir_str got = { weir_buf_ptr(&out), weir_buf_len(&out) };
        if (got.len == want.len + 1 && got.ptr[0] == ' ')
            got = (struct weir_str){ got.ptr + 1, got.len - 1 };
        if (got.len != want.len || (got.len && memcmp(got.ptr, want.ptr, got.len) != 0))
            fail_msg("%s: %zu ids from %d on: \"%.*s\", not \"%.*s\"", name, n, (int)ids[0],
                     WEIR_STR_FMT(got), WEIR_STR_FMT(want));
        weir_buf_release(&out);
    }
}

/* "special": [[ids], ...]: every text; null: this one is not told. "plain": {"7": [ids], ...}: those that differ when specials stay text.
 */
static void check_lists(struct golden *g, const struct weir_tokenizer *tok, const char *name)
{
    static int64_t want[TEXTS_MAX][IDS_MAX];
    static size_t n_want[TEXTS_MAX];
    struct weir_str key;
    int64_t begin[8], vocab;
    size_t n;

    while (weir_json_key(&g->j, &key)) {
        if (weir_str_eq(key, "vocab")) {
            assert_true(weir_json_i64(&g->j, &vocab));
            assert_int_equal(weir_tokenizer_vocab(tok), vocab);
        } else if (weir_str_eq(key, "begin")) {
            n = read_ids(&g->j, begin);
            assert_int_equal(tok->n_begin, n);
            for (size_t i = 0; i < n; i++)
                assert_int_equal(tok->begin[i], begin[i]);
        } else if (weir_str_eq(key, "special")) {
            assert_true(weir_json_array(&g->j));
            for (int i = 0; weir_json_next(&g->j); i++) {
                n_want[i] = SIZE_MAX;
                if (weir_json_peek(&g->j) == WEIR_JSON_NULL) {
                    assert_true(weir_json_null(&g->j));
                    continue;
                }
                n_want[i] = read_ids(&g->j, want[i]);
                check_ids(tok, name, g->texts[i], true, want[i], n_want[i]);
            }
        } else if (weir_str_eq(key, "decoded")) {
            check_decoded(g, tok, name);
        } else { /* plain, behind special */
            assert_true(weir_json_object(&g->j));
            while (weir_json_key(&g->j, &key)) {
                int i = atoi(key.ptr);
                n_want[i] = read_ids(&g->j, want[i]);
            }
            for (int i = 0; i < g->n_texts; i++)
                if (n_want[i] != SIZE_MAX)
                    check_ids(tok, name, g->texts[i], false, want[i], n_want[i]);
        }
    }
}

static void test_equal_to_the_package(void **state)
{
    static struct golden g;
    struct weir_str key, name;
    size_t len;
    int n_tokenizers = 0;

    (void)state;
    g.data = read_file(FOLDER "expected.json", &len);
    weir_arena_init(&g.arena, 0);
    weir_json_init(&g.j, g.data, len, &g.arena);
    assert_true(weir_json_object(&g.j));
    while (weir_json_key(&g.j, &key)) {
        if (weir_str_eq(key, "texts")) {
            assert_true(weir_json_array(&g.j));
            while (weir_json_next(&g.j)) {
                assert_true(g.n_texts < TEXTS_MAX);
                assert_true(weir_json_string(&g.j, &g.texts[g.n_texts++]));
            }
        } else if (weir_str_eq(key, "tokenizers")) {
            assert_true(weir_json_object(&g.j));
            while (weir_json_key(&g.j, &name)) {
                char text[64];
                snprintf(text, sizeof text, "%.*s", WEIR_STR_FMT(name));
                struct weir_tokenizer *tok = open_fixture(text);
                assert_true(weir_json_object(&g.j));
                check_lists(&g, tok, text);
                weir_tokenizer_close(tok);
                n_tokenizers++;
            }
        } else {
            assert_true(weir_json_skip(&g.j));
        }
    }
    assert_int_equal(weir_json_end(&g.j, NULL), WEIR_OK);
    assert_true(n_tokenizers >= 23 && g.n_texts >= 150);
    weir_arena_release(&g.arena);
    free(g.data);
}

/* ---- what a user would notice besides ---- */

static void tokenize(const struct weir_tokenizer *tok, const char *text, bool special,
                     struct weir_arena *arena, struct weir_tokens *ret)
{
    struct weir_why why = { 0 };

    assert_int_equal(weir_tokenize(tok, weir_str(text), special, false, SIZE_MAX, arena, ret, &why), WEIR_OK);
}

/* Bytes of the tokens, one behind the other, are the text. */
static void test_bytes_spell_the_text(void **state)
{
    static const char *const names[] = { "gpt2", "llama3", "o200k", "deepseek", "starcoder", "phi", "gemma" };
    static const char text[] =
        "It's 12345 \xe6\xb0\xb4\xf0\x9f\x8c\x8a  \n\n\tdef f(x): return x\r\n \xcc\x81 \x01 end";

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct weir_tokenizer *tok = open_fixture(names[i]);
        struct weir_arena arena;
        struct weir_tokens ids;
        struct weir_buf out;
        weir_arena_init(&arena, 0);
        weir_buf_init(&out, 0);
        tokenize(tok, text, true, &arena, &ids);
        for (size_t k = 0; k < ids.n; k++) {
            struct weir_str bytes = weir_token_bytes(tok, ids.ids[k], false);
            weir_buf_add(&out, bytes.ptr, bytes.len);
        }
        assert_string_equal(weir_buf_cstr(&out), text);
        weir_buf_release(&out);
        weir_arena_release(&arena);
        weir_tokenizer_close(tok);
    }
}

static void test_specials(void **state)
{
    struct weir_tokenizer *tok = open_fixture("llama3");
    struct weir_arena arena;
    struct weir_tokens ids;
    int32_t eot = weir_token_id(tok, WEIR_STR("<|eot_id|>"));
    struct weir_why why = { 0 };

    (void)state;
    weir_arena_init(&arena, 0);
    assert_int_equal(eot, 4);
    assert_true(weir_token_is_special(tok, eot));
    assert_false(weir_token_is_special(tok, 40));
    assert_false(weir_token_is_special(tok, -1));
    assert_false(weir_token_is_special(tok, 1 << 30));
    assert_int_equal(weir_token_bytes(tok, eot, false).len, 0);
    assert_true(weir_str_eq(weir_token_bytes(tok, eot, true), "<|eot_id|>"));
    assert_int_equal(weir_token_bytes(tok, 1 << 30, true).len, 0);
    assert_int_equal(weir_token_id(tok, WEIR_STR("nothing")), -1);
    tokenize(tok, "<|eot_id|>", true, &arena, &ids);
    assert_int_equal(ids.n, 1);
    assert_int_equal(ids.ids[0], eot);
    tokenize(tok, "<|eot_id|>", false, &arena, &ids);
    assert_true(ids.n > 1);
    for (size_t i = 0; i < ids.n; i++)
        assert_false(weir_token_is_special(tok, ids.ids[i]));
    assert_int_equal(weir_tokenize(tok, WEIR_STR("a"), true, true, 10, &arena, &ids, &why), WEIR_OK);
    assert_int_equal(ids.n, 2);
    assert_int_equal(ids.ids[0], 0); /* <|begin_of_text|> */
    weir_arena_release(&arena);
    weir_tokenizer_close(tok);
}

static const char *const all_names[] = {
    "deepseek",     "gemma", "gpt2", "gpt2_prefix", "llama2", "llama3",     "mistral",
    "metaspace",    "o200k", "phi",  "qwen2",       "splits", "starcoder",  "llama2_added",
    "normal_fused", "qwen3", "phi3", "phi4",        "tekken", "llama3_hub", "deepseek_coder"
};

static size_t count_added(const struct weir_tokenizer *tok, const struct weir_tokens *ids, uint32_t of)
{
    size_t n = 0;

    for (size_t i = 0; i < ids->n; i++)
        n += tok->added_1[ids->ids[i]] == of + 1;
    return n;
}

/* [T3] Somebody's own words that spell a special token stay text; the same spelling outside of them does not; words
 * that spell none get the ids they always get. */
static void test_spans(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof all_names / sizeof *all_names; i++) {
        struct weir_tokenizer *tok = open_fixture(all_names[i]);
        for (uint32_t k = 0; k < tok->n_added; k++) {
            if (!tok->added[k].special)
                continue;
            struct weir_str c = tok->added[k].content;
            struct weir_arena arena;
            struct weir_tokens ids, plain;
            struct weir_buf text;
            weir_arena_init(&arena, 0);
            weir_buf_init(&text, 0);
            weir_buf_addf(&text, "x %.*s y", WEIR_STR_FMT(c));
            size_t given = weir_buf_len(&text);
            weir_buf_addf(&text, " %.*s z", WEIR_STR_FMT(c));
            struct weir_str all = { weir_buf_ptr(&text), weir_buf_len(&text) };
            struct weir_span span = { 2, given }, half = { 0, 3 }, calm = { 0, 2 };
            assert_int_equal(weir_tokenize(tok, all, true, true, 999, &arena, &plain, NULL), WEIR_OK);
            size_t n_plain = count_added(tok, &plain, k);
            assert_int_equal(weir_tokenizer_encode_spans(tok, all, &span, 1, true, 999, &arena, &ids, NULL),
                             WEIR_OK);
            if (n_plain >= 2 && count_added(tok, &ids, k) != n_plain - 1)
                fail_msg("%s: \"%.*s\": %zu times", all_names[i], WEIR_STR_FMT(c), count_added(tok, &ids, k));
            assert_int_equal(weir_tokenizer_encode_spans(tok, all, &half, 1, true, 999, &arena, &ids, NULL),
                             WEIR_OK);
            assert_true(n_plain < 2 || count_added(tok, &ids, k) == n_plain - 1);
            assert_int_equal(weir_tokenizer_encode_spans(tok, all, &calm, 1, true, 999, &arena, &ids, NULL),
                             WEIR_OK);
            assert_int_equal(ids.n, plain.n);
            assert_memory_equal(ids.ids, plain.ids, ids.n * sizeof *ids.ids);
            weir_buf_release(&text);
            weir_arena_release(&arena);
        }
        weir_tokenizer_close(tok);
    }
}

static void test_bad_spans(void **state)
{
    static const struct weir_span bad[][2] = { { { 0, 2 }, { 1, 3 } },
                                               { { 2, 1 }, { 3, 3 } },
                                               { { 0, 1 }, { 2, 99 } } };
    struct weir_tokenizer *tok = open_fixture("gpt2");
    struct weir_arena arena;
    struct weir_tokens ids;

    (void)state;
    weir_arena_init(&arena, 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(
            weir_tokenizer_encode_spans(tok, WEIR_STR("abcd"), bad[i], 2, false, 9, &arena, &ids, NULL),
            WEIR_INVALID);
    weir_arena_release(&arena);
    weir_tokenizer_close(tok);
}

/* [T1] */
static void test_bounds(void **state)
{
    struct weir_tokenizer *tok = open_fixture("gpt2");
    struct weir_arena arena;
    struct weir_tokens ids = { 0 };
    struct weir_why why = { 0 };

    (void)state;
    weir_arena_init(&arena, 0);
    assert_int_equal(weir_tokenize(tok, WEIR_STR("1 2 3"), true, false, 3, &arena, &ids, &why),
                     WEIR_TOOLARGE);
    assert_int_equal(weir_tokenize(tok, WEIR_STR("123"), true, false, 3, &arena, &ids, &why), WEIR_OK);
    assert_true(ids.n > 0 && ids.n <= 3);
    assert_int_equal(weir_tokenize(tok, WEIR_STR("a\xff"), true, false, 9, &arena, &ids, &why), WEIR_INVALID);
    assert_int_equal(weir_tokenize(tok, WEIR_STR("\xed\xa0\x80"), true, false, 9, &arena, &ids, &why),
                     WEIR_INVALID);
    assert_non_null(strstr(why.text, "UTF-8"));
    weir_arena_release(&arena);
    weir_tokenizer_close(tok);
}

/* [P3] [U1] Much of anything; with a quadratic step somewhere this would take minutes and time out. WEIR_TEST_LONG=1: a
 * megabyte of each. */
static void test_a_megabyte_of_anything(void **state)
{
    static const char *const names[] = { "gpt2",    "llama3", "qwen2",        "deepseek",       "llama2",
                                         "mistral", "gemma",  "normal_fused", "normal_unfused", "phi" };
    static const char *const units[] = { "a",
                                         " ",
                                         "\n",
                                         " \n",
                                         "ab",
                                         "\xf0\x9f\x8c\x8a",
                                         "\xe6\xb0\xb4",
                                         "0",
                                         "\xcc\x81\xcc\xa3",
                                         "\xe2\x96\x81",
                                         "<|endoftext",
                                         "'s",
                                         "<" };
    const size_t size = getenv("WEIR_TEST_LONG") ? 1 << 20 : 1 << 18;
    char *text = malloc(size + 16);
    struct weir_arena arena;
    struct weir_tokens ids;

    (void)state;
    assert_non_null(text);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct weir_tokenizer *tok = open_fixture(names[i]);
        for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
            size_t len = 0, n = strlen(units[u]);
            while (len + n <= size) {
                memcpy(text + len, units[u], n);
                len += n;
            }
            weir_arena_init(&arena, 0);
            struct weir_why why = { 0 };
            weir_err err =
                weir_tokenize(tok, (struct weir_str){ text, len }, true, false, SIZE_MAX, &arena, &ids, &why);
            if (err != WEIR_OK)
                fail_msg("%s of %s: %s", names[i], units[u], why.text);
            weir_arena_release(&arena);
        }
        weir_tokenizer_close(tok);
    }
    free(text);
}

struct worker {
    pthread_t thread;
    const struct weir_tokenizer *tok;
    uint64_t sum;
};

static void *tokenize_often(void *arg)
{
    static const char text[] =
        "The weir's water 1234 holds back and lets the water through, hello hello world.";
    struct worker *w = arg;

    for (int round = 0; round < 200; round++) {
        struct weir_arena arena;
        struct weir_tokens ids = { 0 };
        weir_arena_init(&arena, 0);
        if (weir_tokenize(w->tok, weir_str(text), true, true, SIZE_MAX, &arena, &ids, NULL) == WEIR_OK)
            for (size_t i = 0; i < ids.n; i++)
                w->sum = w->sum * 31 + (uint64_t)ids.ids[i];
        weir_arena_release(&arena);
    }
    return NULL;
}

/* [T2] One tokenizer, many threads: the same ids, and the thread sanitizer has nothing to say. */
static void test_threads(void **state)
{
    struct weir_tokenizer *tok = open_fixture("gpt2");
    struct worker workers[4] = { 0 };

    (void)state;
    for (int i = 0; i < 4; i++) {
        workers[i].tok = tok;
        assert_int_equal(pthread_create(&workers[i].thread, NULL, tokenize_often, &workers[i]), 0);
    }
    for (int i = 0; i < 4; i++)
        pthread_join(workers[i].thread, NULL);
    for (int i = 1; i < 4; i++)
        assert_int_equal(workers[i].sum, workers[0].sum);
    assert_true(workers[0].sum != 0);
    weir_tokenizer_close(tok);
}

/* Only n allocations succeed: an error each time, and nothing leaks (ASan sees). */
static void test_no_memory(void **state)
{
    static const char *const names[] = { "llama3", "qwen2", "gemma", "normal_fused" };

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct weir_tokenizer *tok = open_fixture(names[i]);
        weir_err err = WEIR_NOMEM;
        for (int n = 0; err != WEIR_OK && n < 1000; n++) {
            struct weir_arena arena;
            struct weir_tokens ids;
            struct weir_why why = { 0 };
            weir_arena_init(&arena, 0);
            weir_test_alloc_budget(n);
            err = weir_tokenize(tok, WEIR_STR("Hello \xcc\x81\xcc\xa3 world, it's <s> 1234 times"), true,
                                true, 1000, &arena, &ids, &why);
            weir_test_alloc_budget(-1);
            /* A match without memory says that the text is too much. */
            assert_true(err == WEIR_OK || err == WEIR_NOMEM || err == WEIR_TOOLARGE);
            weir_arena_release(&arena);
        }
        assert_int_equal(err, WEIR_OK);
        weir_tokenizer_close(tok);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equal_to_the_package),
        cmocka_unit_test(test_bytes_spell_the_text),
        cmocka_unit_test(test_specials),
        cmocka_unit_test(test_spans),
        cmocka_unit_test(test_bad_spans),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_a_megabyte_of_anything),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
