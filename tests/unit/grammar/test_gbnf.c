/* test_gbnf.c - grammars by hand: what they permit, how they are refused, and masks against the letter. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "tests/unit/grammar/walk.h"

static const char json_grammar[] =
    "root   ::= object\n"
    "value  ::= object | array | string | number | (\"true\" | \"false\" | \"null\") ws\n"
    "object ::= \"{\" ws ( string \":\" ws value (\",\" ws string \":\" ws value)* )? \"}\" ws\n"
    "array  ::= \"[\" ws ( value (\",\" ws value)* )? \"]\" ws\n"
    "string ::= \"\\\"\" ( [^\"\\\\\\x7F\\x00-\\x1F] |\n"
    "  \"\\\\\" ([\"\\\\/bfnrt] | \"u\" [0-9a-fA-F]{4}) )* \"\\\"\" ws\n"
    "number ::= (\"-\"? ([0-9] | [1-9] [0-9]{0,15})) (\".\" [0-9]+)? ([eE] [-+]? [0-9] "
    "[1-9]{0,15})? ws\n"
    "# white space\n"
    "ws ::= | \" \" | \"\\n\" [ \\t]{0,20}\n";

struct sample {
    const char *grammar, *yes[6], *no[6];
};
static const struct sample samples[] = {
    { "root ::= \"a\" \"b\"", { "ab" }, { "a", "b", "abc", "" } },
    { "root ::= \"a\" | \"b\" \"c\"", { "a", "bc" }, { "ab", "ac", "" } },
    { "root ::= (\"a\" | \"b\")* \"c\"", { "c", "abbac" }, { "ab", "cc" } },
    { "root ::= \"a\"+ \"b\"?", { "a", "aaab" }, { "b", "abb", "" } },
    { "root ::= [a-c]{2,3}", { "ab", "cab" }, { "a", "abca", "abd" } },
    { "root ::= \"x\"{2}", { "xx" }, { "x", "xxx" } },
    { "root ::= \"x\"{2,}", { "xx", "xxxxx" }, { "x" } },
    { "root ::= \"x\"{0}\"y\"", { "y" }, { "xy" } },
    { "root ::= [^a-y]", { "z", "A", "\xc3\xa9", "\xf0\x9f\x8c\x8a", "\n" }, { "a", "zz", "\xc3", "\xa9" } },
    { "root ::= .", { "a", "\xe6\xb0\xb4" }, { "", "ab", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xc0\x80" } },
    { "root ::= [\xc3\xa9-\xc3\xab\xe6\xb0\xb4]",
      { "\xc3\xa9", "\xc3\xaa", "\xe6\xb0\xb4" },
      { "\xc3\xac", "e" } },
    { "root ::= \"\\x41\\u00e9\\U0001F30A\\t\\\"\"", { "A\xc3\xa9\xf0\x9f\x8c\x8a\t\"" }, { "A" } },
    { "root ::= [\\]\\-a]", { "]", "-", "a" }, { "\\" } },
    { "root ::= [a-]", { "a", "-" }, { "b" } },
    { "root ::= \"\"", { "" }, { "a" } },
    { "root ::= x\nx ::= \"(\" x \")\" | \"\"", { "", "()", "((()))" }, { "(", "(()", "())" } },
    { "root ::= \"a\" root \"b\" | \"a\" root \"c\" | \"-\"",
      { "-", "a-c", "aa-bc", "aaa-bbb" },
      { "a-", "aa-b" } },
    { "root ::= a b\na ::= \"x\" | \"\"\nb ::= \"x\"?", { "", "x", "xx" }, { "xxx" } },
    { "root ::= (a*)* \"!\"\na ::= \"x\" | \"\"", { "!", "xx!" }, { "x" } },
    { "# nothing\nroot ::= one |\n  two # or two\none ::= \"1\"\n\n\ntwo ::= \"2\"", { "1", "2" }, { "12" } },
    { "root ::= ( # brackets span lines\n \"a\"\n | \"b\"\n )\r\n", { "a", "b" }, { "ab" } },
    { "root ::= \"a\"\n | \"b\"\n", { "a", "b" }, { "ab" } },
    { "root ::= w w\nw ::= [a-z]+ \" \"?", { "ab", "ab cd " }, { "a", "ab  cd" } },
};

static void test_samples(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof samples / sizeof *samples; i++) {
        struct weir_grammar *g = walk_gbnf(samples[i].grammar);
        for (int k = 0; k < 6 && samples[i].yes[k]; k++)
            if (!walk_accepts(g, weir_str(samples[i].yes[k])))
                fail_msg("%s does not permit \"%s\"", samples[i].grammar, samples[i].yes[k]);
        for (int k = 0; k < 6 && samples[i].no[k]; k++)
            if (walk_accepts(g, weir_str(samples[i].no[k])))
                fail_msg("%s permits \"%s\"", samples[i].grammar, samples[i].no[k]);
        weir_grammar_unref(g);
    }
}

/* Each refusal names what is wrong and where. */
static void test_refusals(void **state)
{
    static const struct {
        const char *grammar;
        weir_err err;
        const char *says;
    } bad[] = {
        { "", WEIR_INVALID, "no rule \"root\"" },
        { "a ::= \"x\"", WEIR_INVALID, "no rule \"root\"" },
        { "root ::= thing", WEIR_INVALID, "no rule \"thing\"" },
        { "root ::= \"x", WEIR_INVALID, "line 1" },
        { "root ::= \"a\"\nb ::= [z-a]", WEIR_INVALID, "line 2, column" },
        { "root ::= (\"a\"", WEIR_INVALID, "\")\" is missing" },
        { "root ::= \"a\")", WEIR_INVALID, "line 1" },
        { "root ::= [a", WEIR_INVALID, "too early" },
        { "root ::= \"a\"{3,2}", WEIR_INVALID, "smaller" },
        { "root ::= \"a\"{99999}", WEIR_TOOLARGE, "repetitions" },
        { "root ::= \"a\"\nroot ::= \"b\"", WEIR_INVALID, "there already" },
        { "root ::= \"\\q\"", WEIR_INVALID, "escape" },
        { "root ::= \"\\ud800\"", WEIR_INVALID, "no character" },
        { "root ::= <think>", WEIR_UNIMPLEMENTED, "not supported" },
        { "root = \"a\"", WEIR_INVALID, "::=" },
        { "root ::= root \"a\" | \"b\"", WEIR_UNIMPLEMENTED, "root begins with itself" },
        { "root ::= a\na ::= b \"x\" | \"y\"\nb ::= c* a\nc ::= \"z\"", WEIR_UNIMPLEMENTED,
          "begins with itself" },
        { "root ::= \"a\" root", WEIR_INVALID, "no text at all" },
        { "root ::= ((((\"a\"{999}){999}){999}){999})", WEIR_TOOLARGE, "root: too large" },
        { "root ::= ((((){4096}){4096}){4096})", WEIR_TOOLARGE, "too long to compile" },
        { "root ::= [ab]* \"a\" [ab]{20}", WEIR_TOOLARGE, "states" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct weir_grammar *g = NULL;
        struct weir_why why = { .text = "" };
        weir_err err = weir_grammar_compile_gbnf(walk_vocab(), weir_str(bad[i].grammar), NULL, &g, &why);
        if (err != bad[i].err || g || !strstr(why.text, bad[i].says))
            fail_msg("%s: %s \"%s\"", bad[i].grammar, weir_err_info(err)->name, why.text);
        assert_string_equal(why.param, "response_format.grammar");
    }
}

static void test_deep_nesting_is_refused(void **state)
{
    char text[2048] = "root ::= ";
    struct weir_grammar *g = NULL;

    (void)state;
    memset(text + 9, '(', 1500);
    assert_int_equal(weir_grammar_compile_gbnf(walk_vocab(), weir_str(text), NULL, &g, NULL), WEIR_TOOLARGE);
}

/* 2^40 ways to begin: refused when it is compiled, not when somebody wants to use it. */
static void test_ambiguity_at_the_start(void **state)
{
    struct weir_buf text;
    struct weir_grammar *g = NULL;
    struct weir_why why = { .text = "" };

    (void)state;
    weir_buf_init(&text, 0);
    weir_buf_adds(&text, "root ::= r0\n");
    for (int i = 0; i < 40; i++)
        weir_buf_addf(&text, "r%d ::= r%d r%d\n", i, i + 1, i + 1);
    weir_buf_adds(&text, "r40 ::= \"a\" | \"\"\n");
    assert_int_equal(weir_grammar_compile_gbnf(walk_vocab(), weir_str(weir_buf_cstr(&text)), NULL, &g, &why),
                     WEIR_TOOLARGE);
    assert_null(g);
    assert_non_null(strstr(why.text, "too many ways to begin"));
    weir_buf_release(&text);
}

/* Every bit of every mask says what accept does, in every state of many walks; and what comes out is permitted. */
static void test_masks_say_what_accept_does(void **state)
{
    static const int32_t walks[][6] = { { -1 },
                                        { '{', -1 },
                                        { '{', '"', -1 },
                                        { '{', '"', 'a', -1 },
                                        { '{', '"', 0xc3, -1 },
                                        { '{', '"', '\\', -1 },
                                        { '{', '"', '"', ':', '1', -1 },
                                        { '{', '"', '"', ':', '[', -1 } };
    struct weir_grammar *g = walk_gbnf(json_grammar);

    (void)state;
    for (size_t i = 0; i < sizeof walks / sizeof *walks; i++) {
        int n = 0;
        while (walks[i][n] >= 0)
            n++;
        walk_check_mask(g, walks[i], n);
    }
    weir_grammar_unref(g);
}

static void test_walks_end(void **state)
{
    struct weir_grammar *g = walk_gbnf(json_grammar);
    struct weir_buf out;
    uint64_t seed = 1;

    (void)state;
    weir_buf_init(&out, 0);
    for (int i = 0; i < 60; i++) {
        assert_true(walk(g, &seed, 100, &out));
        assert_true(weir_utf8_valid(weir_buf_ptr(&out), weir_buf_len(&out)));
        assert_true(walk_accepts(g, (struct weir_str){ weir_buf_ptr(&out), weir_buf_len(&out) }));
    }
    weir_buf_release(&out);
    weir_grammar_unref(g);
}

/* Tokens of half a character are permitted where the other half may follow, and only there. */
static void test_half_characters(void **state)
{
    struct weir_grammar *g = walk_gbnf("root ::= \"\xc3\xa9\" [\xe6\xb0\xb4]");
    struct weir_grammar_state *st = NULL;
    uint32_t bits[16];

    (void)state;
    assert_int_equal(weir_grammar_state_open(g, &st, NULL), WEIR_OK);
    weir_grammar_state_mask(st, bits, 256);
    for (uint32_t i = 0; i < 256; i++)
        assert_int_equal(bits[i / 32] >> (i % 32) & 1, i == 0xc3);
    assert_true(weir_grammar_state_accept(st, 0xc3));
    assert_false(weir_grammar_state_whole(st));
    assert_true(weir_grammar_state_accept(st, 0xa9));
    assert_false(weir_grammar_state_accept(st, 0xc3)); /* spent */
    weir_grammar_state_mask(st, bits, 256);
    for (int i = 0; i < 8; i++)
        assert_int_equal(bits[i], 0);
    weir_grammar_state_close(st);
    weir_grammar_unref(g);
}

/* The end token comes exactly where the text is whole; nothing comes behind it; no other token without text does. */
static void test_end_token(void **state)
{
    struct weir_grammar *g = walk_gbnf("root ::= \"ab\"?");
    struct weir_grammar_state *st = NULL;
    uint32_t bits[32];

    (void)state;
    assert_int_equal(weir_grammar_state_open(g, &st, NULL), WEIR_OK);
    weir_grammar_state_mask(st, bits, walk_vocab_size());
    assert_true(bits[walk_end / 32] >> (walk_end % 32) & 1);
    assert_false(bits[(walk_end + 1) / 32] >> ((walk_end + 1) % 32) & 1);
    assert_true(weir_grammar_state_accept(st, 'a'));
    weir_grammar_state_mask(st, bits, walk_vocab_size());
    assert_false(bits[walk_end / 32] >> (walk_end % 32) & 1);
    assert_true(weir_grammar_state_accept(st, 'b'));
    assert_true(weir_grammar_state_accept(st, walk_end));
    weir_grammar_state_mask(st, bits, walk_vocab_size());
    for (uint32_t i = 0; i < walk_vocab_size() / 32; i++)
        assert_int_equal(bits[i], 0);
    assert_false(weir_grammar_state_accept(st, walk_end));
    weir_grammar_state_close(st);
    assert_int_equal(weir_grammar_state_open(g, &st, NULL), WEIR_OK);
    assert_false(weir_grammar_state_accept(st, walk_end + 1));
    weir_grammar_state_close(st);
    assert_int_equal(weir_grammar_state_open(g, &st, NULL), WEIR_OK);
    assert_false(weir_grammar_state_accept(st, -1));
    weir_grammar_state_close(st);
    weir_grammar_unref(g);
}

/* An engine's vocabulary may be larger or smaller than the tokenizer's: bits behind either are zero. */
static void test_other_sizes(void **state)
{
    struct weir_grammar *g = walk_gbnf("root ::= .*");
    struct weir_grammar_state *st = NULL;
    uint32_t bits[64];

    (void)state;
    assert_int_equal(weir_grammar_state_open(g, &st, NULL), WEIR_OK);
    memset(bits, 0xff, sizeof bits);
    weir_grammar_state_mask(st, bits, 100);
    for (uint32_t i = 0; i < 128; i++)
        assert_int_equal(bits[i / 32] >> (i % 32) & 1, i < 100);
    assert_int_equal(bits[4], UINT32_MAX); /* not written */
    weir_grammar_state_mask(st, bits, 2000);
    for (uint32_t i = walk_vocab_size(); i < 2000; i++)
        assert_false(bits[i / 32] >> (i % 32) & 1);
    assert_true(bits[0] & 1u << 'A' % 32 || bits['A' / 32] & 1u << 'A' % 32);
    weir_grammar_state_close(st);
    weir_grammar_unref(g);
}

/* Reasoning first: anything goes until the marker has come whole, then the grammar alone. */
static void test_text_before(void **state)
{
    const struct weir_grammar_opts opts = { .after = WEIR_STR("</a></a>") };
    struct weir_grammar *g = NULL;

    (void)state;
    assert_int_equal(weir_grammar_compile_gbnf(walk_vocab(), WEIR_STR("root ::= \"yes\""), &opts, &g, NULL),
                     WEIR_OK);
    assert_true(walk_accepts(g, WEIR_STR("well, </a></b>\n</a</a></a>yes")));
    assert_true(walk_accepts(g, WEIR_STR("</a></a>yes")));
    assert_false(walk_accepts(g, WEIR_STR("yes")));
    assert_false(walk_accepts(g, WEIR_STR("</a>yes")));
    assert_false(walk_accepts(g, WEIR_STR("</a></a>yes</a></a>yes")));
    assert_false(walk_accepts(g, WEIR_STR("</a></a>no")));
    weir_grammar_unref(g);
}

/* [G3] Ways to read that double with each character are an end, not a crash or a stall. */
static void test_ambiguity_is_bounded(void **state)
{
    struct weir_grammar *g = walk_gbnf("root ::= one | two | \"-\"\none ::= \"x\" root \"b\"\n"
                                       "two ::= \"x\" root \"c\"");
    struct weir_grammar_state *st = NULL;
    int n = 0;

    (void)state;
    assert_int_equal(weir_grammar_state_open(g, &st, NULL), WEIR_OK);
    while (n < 64 && weir_grammar_state_accept(st, 'x'))
        n++;
    assert_in_range(n, 4, 63);
    assert_false(weir_grammar_state_accept(st, '-'));
    weir_grammar_state_close(st);
    weir_grammar_unref(g);
}

/* [G2] A mask asked for twice, or not at all, changes nothing; thousands of nested levels are swept up again. */
static void test_long_texts(void **state)
{
    struct weir_grammar *g = walk_gbnf("root ::= v*\nv ::= \"[\" v* \"]\" | [a-z]");
    struct weir_grammar_state *st = NULL;
    uint32_t first[32], second[32];

    (void)state;
    assert_int_equal(weir_grammar_state_open(g, &st, NULL), WEIR_OK);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 3000; i++) {
            assert_true(weir_grammar_state_accept(st, '['));
            assert_true(weir_grammar_state_accept(st, 'a'));
        }
        weir_grammar_state_mask(st, first, walk_vocab_size());
        weir_grammar_state_mask(st, second, walk_vocab_size());
        assert_memory_equal(first, second, (walk_vocab_size() + 31) / 32 * 4);
        assert_false(weir_grammar_state_whole(st));
        for (int i = 0; i < 3000; i++)
            assert_true(weir_grammar_state_accept(st, ']'));
        assert_true(weir_grammar_state_whole(st));
    }
    assert_false(weir_grammar_state_accept(st, ']'));
    weir_grammar_state_close(st);
    weir_grammar_unref(g);
}

/* A grammar that is let go of while a choice still walks in it. */
static void test_state_keeps_its_grammar(void **state)
{
    struct weir_grammar *g = walk_gbnf("root ::= \"ab\"");
    struct weir_grammar_state *st = NULL;

    (void)state;
    assert_int_equal(weir_grammar_state_open(g, &st, NULL), WEIR_OK);
    weir_grammar_unref(g);
    assert_true(weir_grammar_state_accept(st, 'a'));
    assert_true(weir_grammar_state_accept(st, 'b'));
    assert_true(weir_grammar_state_whole(st));
    weir_grammar_state_close(st);
    weir_grammar_state_close(NULL);
    weir_grammar_unref(NULL);
    weir_grammar_vocab_close(NULL);
}

/* A real tokenizer: what may come is what begins as the grammar does; special tokens may not, whatever they spell, but
 * for those that end an answer. */
static void test_tokenizer(void **state)
{
    struct weir_tokenizer *tok = NULL;
    struct weir_grammar_vocab *vocab = NULL;
    struct weir_grammar *g = NULL;
    struct weir_grammar_state *st = NULL;
    static uint32_t bits[1 << 16];
    int n_open = 0;

    (void)state;
    assert_int_equal(weir_tokenizer_open("models/demo", &tok, NULL), WEIR_OK);
    int32_t n = (int32_t)weir_tokenizer_vocab(tok), end = -1;
    for (int32_t id = 0; id < n && end < 0; id++)
        end = weir_token_is_special(tok, id) ? id : -1;
    assert_int_equal(weir_grammar_vocab_open(tok, &end, 1, &vocab, NULL), WEIR_OK);
    assert_int_equal(weir_grammar_compile_gbnf(vocab, WEIR_STR("root ::= (\"{\" .*)?"), NULL, &g, NULL),
                     WEIR_OK);
    assert_int_equal(weir_grammar_state_open(g, &st, NULL), WEIR_OK);
    weir_grammar_state_mask(st, bits, (uint32_t)n);
    for (int32_t id = 0; id < n; id++) {
        struct weir_str bytes = weir_token_bytes(tok, id, /* with_special= */ false);
        bool may = bytes.len > 0 && bytes.ptr[0] == '{';
        n_open += may;
        assert_int_equal(bits[id / 32] >> (id % 32) & 1, id == end || may);
    }
    assert_true(n_open > 0 && end >= 0);
    weir_grammar_state_close(st);
    weir_grammar_unref(g);
    weir_grammar_vocab_close(vocab);
    weir_tokenizer_close(tok);
}

/* Whatever allocation fails: an error, nothing leaks (ASan), and no state that says yes. */
static void test_no_memory(void **state)
{
    struct weir_grammar_vocab *vocab = walk_vocab();
    bool done = false;

    (void)state;
    for (long n = 0; !done; n++) {
        struct weir_grammar *g = NULL;
        struct weir_grammar_state *st = NULL;
        uint32_t bits[32];
        weir_test_alloc_budget(n);
        weir_err err = weir_grammar_compile_gbnf(vocab, weir_str(json_grammar), NULL, &g, NULL);
        if (err == WEIR_OK)
            err = weir_grammar_state_open(g, &st, NULL);
        if (err == WEIR_OK)
            weir_grammar_state_mask(st, bits, walk_vocab_size());
        weir_test_alloc_budget(-1);
        assert_true(err == WEIR_OK || err == WEIR_NOMEM || err == WEIR_TOOLARGE);
        done = err == WEIR_OK && bits['{' / 32] >> ('{' % 32) & 1;
        weir_grammar_state_close(st);
        weir_grammar_unref(g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_samples),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_deep_nesting_is_refused),
        cmocka_unit_test(test_ambiguity_at_the_start),
        cmocka_unit_test(test_masks_say_what_accept_does),
        cmocka_unit_test(test_walks_end),
        cmocka_unit_test(test_half_characters),
        cmocka_unit_test(test_end_token),
        cmocka_unit_test(test_other_sizes),
        cmocka_unit_test(test_text_before),
        cmocka_unit_test(test_ambiguity_is_bounded),
        cmocka_unit_test(test_long_texts),
        cmocka_unit_test(test_state_keeps_its_grammar),
        cmocka_unit_test(test_tokenizer),
        cmocka_unit_test(test_no_memory),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);

    walk_free();
    return rc;
}
