/* test_json_read.c - the pull parser: what it takes, what it refuses and what it says then. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"

/* Texts are copied to blocks of their exact size, so that ASan sees a read past the end. [J3] */
struct text {
    char *ptr;
    size_t len;
    struct weir_arena arena;
    struct weir_json j;
};

static void text_open(struct text *t, const char *text, size_t len)
{
    t->ptr = malloc(len ? len : 1);
    assert_non_null(t->ptr);
    memcpy(t->ptr, text, len);
    t->len = len;
    weir_arena_init(&t->arena, 0);
    weir_json_init(&t->j, t->ptr, len, &t->arena);
}

static void text_close(struct text *t)
{
    weir_arena_release(&t->arena);
    free(t->ptr);
}

/* Skips the whole text; every accepted text is also accepted by raw, and walks to the same end. */
static weir_err check_text(const char *text, size_t len, struct weir_why *why)
{
    struct text t;
    struct weir_str raw;

    text_open(&t, text, len);
    weir_json_raw(&t.j, &raw);
    weir_err by_raw = weir_json_end(&t.j, NULL);
    weir_json_init(&t.j, t.ptr, t.len, NULL);
    weir_json_skip(&t.j);
    weir_err rc = weir_json_end(&t.j, why);
    assert_int_equal(rc, by_raw);
    text_close(&t);
    return rc;
}

/* [J1] */
static void test_grammar(void **state)
{
    static const char *const good[] = {
        "null",
        " \t\r\n true \n",
        "false",
        "0",
        "-0",
        "1e5",
        "1E+5",
        "1.5e-7",
        "-12.25",
        "\"\"",
        "\"a\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\ud83d\\ude00\"",
        "\"\x7f\xc3\xa9\"",
        "[]",
        "{}",
        "[ ]",
        "{ }",
        "[1,2 , 3]",
        "[[],{},[{}]]",
        "{\"a\":1,\"b\":[{\"c\":null}]}",
        "{\"a\":1,\"a\":2}",
        "{\"\":0}",
        "\"\\u0000\"",
        "1e999999999999",
    };
    static const char *const bad[] = {
        "",
        " ",
        "nul",
        "nulll",
        "True",
        "NaN",
        "Infinity",
        "-Infinity",
        "+1",
        "01",
        "-01",
        "00",
        "1.",
        ".5",
        "-",
        "1e",
        "1e+",
        "1.e5",
        "0x10",
        "1 2",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "[1 2]",
        "[1}",
        "{\"a\":1]",
        "{",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":1",
        "{\"a\":1,",
        "{\"a\":1,}",
        "{,}",
        "{a:1}",
        "{'a':1}",
        "{1:1}",
        "{\"a\" 1}",
        "{\"a\":1 \"b\":2}",
        "]",
        "}",
        ",",
        "\"",
        "\"abc",
        "\"\\",
        "\"\\\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u123",
        "\"\\u12g4\"",
        "\"\\ud800\"",
        "\"\\udc00\"",
        "\"\\ud800\\u0041\"",
        "\"\\ud800\\ud800\"",
        "\"\\ud800x\"",
        "\"\\ud800\\",
        "\"tab\there\"",
        "\"nl\n\"",
        "\"\x1f\"",
        "\"\xff\"",
        "\"\xc0\x80\"",
        "\"\xed\xa0\x80\"",
        "\"\xe2\x82\"",
        "\"\xe2\x82",
        "\xef\xbb\xbf{}",
        "// x\n1",
        "/* x */1",
        "{\"\xff\":1}",
        "{\"\\q\":1}",
        "\x0c"
        "1",
    };
    struct weir_why why;

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        if (check_text(good[i], strlen(good[i]), &why) != WEIR_OK)
            fail_msg("refused: %s: %s", good[i], why.text);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (check_text(bad[i], strlen(bad[i]), &why) != WEIR_INVALID)
            fail_msg("accepted: %s", bad[i]);
    /* A NUL is a control character within a string and nothing at all outside. */
    assert_int_equal(check_text("\"a\0b\"", 5, NULL), WEIR_INVALID);
    assert_int_equal(check_text("1\0", 2, NULL), WEIR_INVALID);
}

/* Every proper prefix of an object is an error, and never reads past its end. */
static void test_every_prefix_is_refused(void **state)
{
    static const char text[] =
        "{\"model\":\"m\\u00e9\\ud83d\\ude00\xe2\x82\xac\",\"n\":[-1.5e+3,true,false,null,{\"k\":"
        "\"0123456789abcdef0123456789\"}]}";

    (void)state;
    for (size_t len = 0; len < sizeof text - 1; len++)
        assert_int_equal(check_text(text, len, NULL), WEIR_INVALID);
    assert_int_equal(check_text(text, sizeof text - 1, NULL), WEIR_OK);
}

/* A special byte is found at every distance from the start and the end of the 16-byte steps. */
static void test_special_bytes_at_every_offset(void **state)
{
    char text[100];

    (void)state;
    for (size_t len = 2; len < 70; len++) {
        memset(text, 'x', sizeof text);
        text[0] = '"';
        text[len - 1] = '"';
        assert_int_equal(check_text(text, len, NULL), WEIR_OK);
        for (size_t at = 1; at < len - 1; at++) {
            static const char bad[] = { '\0', '\x1f', '"', '\\', '\n', '\x80', '\xff' };
            for (size_t k = 0; k < sizeof bad; k++) {
                text[at] = bad[k];
                assert_int_equal(check_text(text, len, NULL), WEIR_INVALID);
            }
            text[at] = '\x7f';
            assert_int_equal(check_text(text, len, NULL), WEIR_OK);
            text[at] = 'x';
        }
    }
}

static void test_strings_are_unescaped(void **state)
{
    static const struct {
        const char *text, *want;
        size_t len;
    } rows[] = {
        { "\"plain\"", "plain", 5 },
        { "\"a\\nb\\tc\"", "a\nb\tc", 5 },
        { "\"\\b\\f\\r\\/\\\\\\\"\"", "\b\f\r/\\\"", 6 },
        { "\"\\u0041\\u00e9\\u20AC\"", "A\xc3\xa9\xe2\x82\xac", 6 },
        { "\"\\uD83D\\uDE00!\"", "\xf0\x9f\x98\x80!", 5 },
        { "\"\\udbff\\udfff\"", "\xf4\x8f\xbf\xbf", 4 },
        { "\"a\\u0000b\"", "a\0b", 3 },
        { "\"\\\\u0041\"", "\\u0041", 6 },
        { "\"\"", "", 0 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct text t;
        struct weir_str s;
        text_open(&t, rows[i].text, strlen(rows[i].text));
        assert_true(weir_json_string(&t.j, &s));
        assert_int_equal(s.len, rows[i].len);
        assert_memory_equal(s.ptr, rows[i].want, s.len);
        assert_int_equal(weir_json_end(&t.j, NULL), WEIR_OK);
        text_close(&t);
    }
}

static void test_string_without_escapes_is_borrowed(void **state)
{
    struct text t;
    struct weir_str s;

    (void)state;
    text_open(&t, "\"abc\"", 5);
    assert_true(weir_json_string(&t.j, &s));
    assert_ptr_equal(s.ptr, t.ptr + 1);
    assert_int_equal(t.arena.used, 0);
    text_close(&t);
}

static bool read_f64(const char *text, double *ret)
{
    struct text t;

    text_open(&t, text, strlen(text));
    bool ok = weir_json_f64(&t.j, ret) && weir_json_end(&t.j, NULL) == WEIR_OK;
    text_close(&t);
    return ok;
}

/* [J5] */
static void test_doubles_are_the_nearest(void **state)
{
    static const char *const texts[] = {
        "0",
        "-0",
        "1",
        "0.1",
        "1e22",
        "1e23",
        "1.5e-5",
        "9007199254740993",
        "9007199254740992.5",
        "123456789012345678901234567890",
        "0.000000000000000000000000000000012345678901234567890123",
        "1.7976931348623157e308",
        "4.9e-324",
        "2.4703282292062327e-324",
        "2.4703282292062328e-324",
        "1e-400",
        "2.2250738585072011e-308",
        "2.2250738585072014e-308",
        "0.1e1",
        "100000000000000000000e-20",
        "0e999999",
        "8.98846567431158e307",
        "1.0000000000000001110223024625156540423631668090820312499999",
        "1.0000000000000001110223024625156540423631668090820312500000",
        "1.0000000000000001110223024625156540423631668090820312500001",
    };
    double x;

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        double want = strtod(texts[i], NULL);
        assert_true(read_f64(texts[i], &x));
        if (memcmp(&x, &want, sizeof x) != 0)
            fail_msg("%s gives %.17g", texts[i], x);
    }
    assert_false(read_f64("1e309", &x));
    assert_false(read_f64("-1e99999999999999999999", &x));
    assert_true(read_f64("1e-99999999999999999999", &x));
    assert_true(x == 0);
}

static void test_random_decimals_read_as_strtod_does(void **state)
{
    char text[64];
    double x;

    (void)state;
    srand(3);
    for (int i = 0; i < 50000; i++) {
        int n = 1 + rand() % 22, at = 0;
        text[at++] = (char)('1' + rand() % 9);
        if (n > 1)
            text[at++] = '.';
        while (--n > 0)
            text[at++] = (char)('0' + rand() % 10);
        snprintf(text + at, sizeof text - (size_t)at, "e%d",
                 rand() % (i & 1 ? 40 : 600) - (i & 1 ? 20 : 320));
        double want = strtod(text, NULL);
        assert_int_equal(read_f64(text, &x), isfinite(want));
        if (isfinite(want) && memcmp(&x, &want, sizeof x) != 0)
            fail_msg("%s gives %.17g", text, x);
    }
}

/* The digits of a number are unbounded; its value is still right, beyond what a copy on the stack can hold.
 */
static void test_numbers_of_many_digits(void **state)
{
    enum { N = 5000 };
    char *text = malloc(N + 32);
    double x;
    struct text t;
    int64_t n;

    (void)state;
    assert_non_null(text);
    /* Half-way between 1 and the next double, and 4000 zeros on, a bit more: rounds up. */
    strcpy(text, "1.00000000000000011102230246251565404236316680908203125");
    size_t len = strlen(text);
    memset(text + len, '0', 4000);
    strcpy(text + len + 4000, "1");
    assert_true(read_f64(text, &x));
    assert_true(x == nextafter(1, 2));
    text[len + 4000] = '0'; /* exactly half-way: to even */
    assert_true(read_f64(text, &x));
    assert_true(x == 1);
    /* 0.000...01e4001 = 1 */
    strcpy(text, "0.");
    memset(text + 2, '0', 4000);
    strcpy(text + 4002, "1e4001");
    assert_true(read_f64(text, &x));
    assert_true(x == 1);
    text_open(&t, text, strlen(text));
    assert_true(weir_json_i64(&t.j, &n));
    assert_int_equal(n, 1);
    text_close(&t);
    /* 7.000...0 is an integer. */
    strcpy(text, "7.");
    memset(text + 2, '0', 4000);
    text[4002] = '\0';
    text_open(&t, text, strlen(text));
    assert_true(weir_json_i64(&t.j, &n));
    assert_int_equal(n, 7);
    text_close(&t);
    free(text);
}

static void test_integers(void **state)
{
    static const struct {
        const char *text;
        bool ok;
        int64_t n;
    } rows[] = {
        { "0", true, 0 },
        { "-0", true, 0 },
        { "42", true, 42 },
        { "1.0", true, 1 },
        { "1e2", true, 100 },
        { "1200e-2", true, 12 },
        { "-1.5e1", true, -15 },
        { "9223372036854775807", true, INT64_MAX },
        { "-9223372036854775808", true, INT64_MIN },
        { "9223372036854775808", false, 0 },
        { "-9223372036854775809", false, 0 },
        { "922337203685477580.7e1", true, INT64_MAX },
        { "9.223372036854775807e18", true, INT64_MAX },
        { "1e19", false, 0 },
        { "1e999999999999999999999", false, 0 },
        { "0e999999999999999999999", true, 0 },
        { "1.5", false, 0 },
        { "1e-1", false, 0 },
        { "1e-999999999999999999999", false, 0 },
        { "99999999999999999999999999", false, 0 },
        { "1.00000000000000000000000000000001", false, 0 },
        { "100000000000000000000000000000000e-30", true, 100 },
        { "\"1\"", false, 0 },
        { "true", false, 0 },
    };
    struct text t;
    uint64_t u;
    int64_t n;

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        text_open(&t, rows[i].text, strlen(rows[i].text));
        bool ok = weir_json_i64(&t.j, &n);
        if (ok != rows[i].ok || (ok && n != rows[i].n))
            fail_msg("%s", rows[i].text);
        assert_int_equal(weir_json_end(&t.j, NULL), ok ? WEIR_OK : WEIR_INVALID);
        text_close(&t);
    }
    text_open(&t, "[18446744073709551615,18446744073709551616]", 43);
    assert_true(weir_json_array(&t.j) && weir_json_next(&t.j) && weir_json_u64(&t.j, &u));
    assert_true(u == UINT64_MAX);
    assert_true(weir_json_next(&t.j));
    assert_false(weir_json_u64(&t.j, &u));
    text_close(&t);
    text_open(&t, "-1", 2);
    assert_false(weir_json_u64(&t.j, &u));
    assert_non_null(strstr(t.j.why.text, "negative"));
    text_close(&t);
}

static void test_walk_of_a_chat_request(void **state)
{
    static const char text[] = "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"a\\nb\"},"
                               "{\"role\":\"assistant\",\"content\":null}],\"extra\":[1,{\"x\":[]}],"
                               "\"temperature\":0.5,\"stream\":true,\"n\":2}";
    struct text t;
    struct weir_str key, s, raw = { 0 };
    int n_messages = 0, n_null = 0;
    double temperature = 0;
    bool stream = false;
    int64_t n = 0;

    (void)state;
    text_open(&t, text, sizeof text - 1);
    assert_true(weir_json_object(&t.j));
    while (weir_json_key(&t.j, &key)) {
        if (weir_str_eq(key, "messages")) {
            weir_json_array(&t.j);
            while (weir_json_next(&t.j)) {
                n_messages++;
                weir_json_object(&t.j);
                while (weir_json_key(&t.j, &key)) {
                    if (weir_json_peek(&t.j) == WEIR_JSON_NULL)
                        n_null += weir_json_null(&t.j);
                    else
                        weir_json_string(&t.j, &s);
                }
            }
        } else if (weir_str_eq(key, "temperature")) {
            weir_json_f64(&t.j, &temperature);
        } else if (weir_str_eq(key, "stream")) {
            weir_json_bool(&t.j, &stream);
        } else if (weir_str_eq(key, "n")) {
            weir_json_i64(&t.j, &n);
        } else if (weir_str_eq(key, "extra")) {
            weir_json_raw(&t.j, &raw);
        } else {
            weir_json_skip(&t.j);
        }
    }
    assert_int_equal(weir_json_end(&t.j, NULL), WEIR_OK);
    assert_int_equal(n_messages, 2);
    assert_int_equal(n_null, 1);
    assert_true(temperature == 0.5 && stream && n == 2);
    assert_true(weir_str_eq(raw, "[1,{\"x\":[]}]"));
    text_close(&t);
}

/* Walks messages[*].content as strings, as the gateway does. */
static void walk_contents(struct weir_json *j)
{
    struct weir_str key, s;

    weir_json_object(j);
    while (weir_json_key(j, &key)) {
        if (!weir_str_eq(key, "messages")) {
            weir_json_skip(j);
            continue;
        }
        weir_json_array(j);
        while (weir_json_next(j)) {
            bool has_role = false;
            weir_json_object(j);
            while (weir_json_key(j, &key)) {
                has_role = has_role || weir_str_eq(key, "role");
                weir_json_string(j, &s);
                if (weir_str_eq(s, "robot"))
                    weir_json_fail(j, WEIR_INVALID, "role '%.*s' is unknown", WEIR_STR_FMT(s));
                if (weir_str_eq(s, "alone"))
                    weir_json_fail_key(j, "name", WEIR_INVALID, "needs a name");
            }
            if (!has_role)
                weir_json_fail_key(j, "role", WEIR_INVALID, "missing");
        }
    }
}

static void test_errors_name_the_field_and_the_place(void **state)
{
    static const struct {
        const char *text, *param, *sentence;
    } rows[] = {
        { "{\"messages\":[{\"role\":\"u\"},{\"role\":\"u\",\"content\":7}]}", "messages[1].content",
          "messages[1].content: expected a string, found a number (at byte 48)" },
        { "{\"messages\":[{\"role\":\"robot\"}]}", "messages[0].role", "role 'robot' is unknown" },
        { "{\"messages\":[{\"role\":\"u\"},{\"content\":\"x\"}]}", "messages[1].role", "missing" },
        { "{\"messages\":[{\"role\":\"u\"},{}]}", "messages[1].role", "missing" },
        { "{\"messages\":[{\"role\":\"alone\"}]}", "messages[0].name", "needs a name" },
        { "{\"messages\":{}}", "messages", "messages: expected an array, found an object (at byte 12)" },
        { "{\"messages\":[1]}", "messages[0]",
          "messages[0]: expected an object, found a number (at byte 13)" },
        { "{\"tools\":[1,{\"a\":tru}]}", "tools[1].a", "tools[1].a: not a JSON value (at byte 17)" },
        { "{\"x\":1,}", "", "a comma with nothing behind it (at byte 7)" },
        { "{\"x\":1 \"y\":2}", "", "expected ',' or '}' (at byte 7)" },
        { "[1]", "", "expected an object, found an array (at byte 0)" },
        { "", "", "the text ends where a value should be (at byte 0)" },
        { "{} x", "", "data after the value (at byte 3)" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct weir_why why;
        struct text t;
        text_open(&t, rows[i].text, strlen(rows[i].text));
        walk_contents(&t.j);
        assert_int_equal(weir_json_end(&t.j, &why), WEIR_INVALID);
        assert_string_equal(why.param, rows[i].param);
        assert_string_equal(why.text, rows[i].sentence);
        text_close(&t);
    }
}

/* Right after an object its missing member is named within it, also when objects nest. */
static void test_missing_member_of_a_nested_object(void **state)
{
    struct text t;
    struct weir_str key;
    struct weir_why why;

    (void)state;
    text_open(&t, "{\"response_format\":{\"a\":{\"b\":1}}}", 33);
    weir_json_object(&t.j);
    weir_json_key(&t.j, &key);
    weir_json_object(&t.j);
    while (weir_json_key(&t.j, &key))
        weir_json_skip(&t.j);
    weir_json_fail_key(&t.j, "type", WEIR_INVALID, "missing");
    assert_int_equal(weir_json_end(&t.j, &why), WEIR_INVALID);
    assert_string_equal(why.param, "response_format.type");
    text_close(&t);
    /* At the end of everything: the top object's. */
    text_open(&t, "{\"a\":{}}", 8);
    weir_json_object(&t.j);
    while (weir_json_key(&t.j, &key))
        weir_json_skip(&t.j);
    weir_json_fail_key(&t.j, "model", WEIR_INVALID, "missing");
    assert_int_equal(weir_json_end(&t.j, &why), WEIR_INVALID);
    assert_string_equal(why.param, "model");
    text_close(&t);
}

/* [J2] */
static void test_first_error_sticks(void **state)
{
    struct text t;
    struct weir_str s = { NULL, 0 };
    struct weir_why why;
    int64_t n = 5;

    (void)state;
    text_open(&t, "[\"a\",1]", 7);
    assert_true(weir_json_array(&t.j) && weir_json_next(&t.j));
    assert_false(weir_json_i64(&t.j, &n));
    assert_int_equal(n, 5); /* nothing is written on failure */
    assert_false(weir_json_string(&t.j, &s));
    assert_false(weir_json_next(&t.j));
    assert_false(weir_json_key(&t.j, &s));
    assert_false(weir_json_skip(&t.j));
    assert_false(weir_json_raw(&t.j, &s));
    assert_int_equal(weir_json_peek(&t.j), WEIR_JSON_NONE);
    weir_json_fail(&t.j, WEIR_FULL, "later");
    weir_json_fail_key(&t.j, "k", WEIR_FULL, "later");
    assert_null(s.ptr);
    assert_false(weir_json_ok(&t.j));
    assert_int_equal(weir_json_end(&t.j, &why), WEIR_INVALID);
    assert_string_equal(why.param, "[0]");
    text_close(&t);
}

/* [J4] */
static void test_depth_is_bounded(void **state)
{
    char text[2 * WEIR_JSON_DEPTH_MAX + 4];
    struct weir_why why;

    (void)state;
    for (size_t depth = WEIR_JSON_DEPTH_MAX; depth <= WEIR_JSON_DEPTH_MAX + 1; depth++) {
        memset(text, '[', depth);
        memset(text + depth, ']', depth);
        assert_int_equal(check_text(text, 2 * depth, &why),
                         depth <= WEIR_JSON_DEPTH_MAX ? WEIR_OK : WEIR_INVALID);
    }
    assert_non_null(strstr(why.text, "deep"));
}

static void test_unescaping_needs_an_arena_with_room(void **state)
{
    struct text t;
    struct weir_str s;

    (void)state;
    text_open(&t, "\"a\\nb\"", 6);
    weir_json_init(&t.j, t.ptr, t.len, NULL);
    assert_false(weir_json_string(&t.j, &s));
    assert_int_equal(weir_json_end(&t.j, NULL), WEIR_INVALID);
    weir_json_init(&t.j, t.ptr, t.len, &t.arena);
    weir_test_alloc_budget(0);
    assert_false(weir_json_string(&t.j, &s));
    weir_test_alloc_budget(-1);
    assert_int_equal(weir_json_end(&t.j, NULL), WEIR_NOMEM);
    text_close(&t);
}

static void test_ending_early_is_an_error(void **state)
{
    struct text t;

    (void)state;
    text_open(&t, "[1]", 3);
    assert_int_equal(weir_json_end(&t.j, NULL), WEIR_INVALID); /* nothing read */
    weir_json_init(&t.j, t.ptr, t.len, NULL);
    weir_json_array(&t.j);
    assert_int_equal(weir_json_end(&t.j, NULL), WEIR_INVALID); /* left open */
    text_close(&t);
}

/* A path that is longer than `param` is cut at a character, not overrun. */
static void test_long_paths_are_cut(void **state)
{
    struct weir_why why;
    char text[3000];
    size_t n = 0;

    (void)state;
    for (int i = 0; i < 40; i++)
        n += (size_t)sprintf(text + n, "{\"\xe2\x82\xac%s\":", i % 2 ? "key" : "longer_key");
    n += (size_t)sprintf(text + n, "?");
    assert_int_equal(check_text(text, n, &why), WEIR_INVALID);
    assert_true(strlen(why.param) > 80);
    assert_true(weir_utf8_valid(why.param, strlen(why.param)));
    assert_true(strncmp(why.param, "\xe2\x82\xaclonger_key.\xe2\x82\xackey.", 20) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_grammar),
        cmocka_unit_test(test_every_prefix_is_refused),
        cmocka_unit_test(test_special_bytes_at_every_offset),
        cmocka_unit_test(test_strings_are_unescaped),
        cmocka_unit_test(test_string_without_escapes_is_borrowed),
        cmocka_unit_test(test_doubles_are_the_nearest),
        cmocka_unit_test(test_random_decimals_read_as_strtod_does),
        cmocka_unit_test(test_numbers_of_many_digits),
        cmocka_unit_test(test_integers),
        cmocka_unit_test(test_walk_of_a_chat_request),
        cmocka_unit_test(test_errors_name_the_field_and_the_place),
        cmocka_unit_test(test_missing_member_of_a_nested_object),
        cmocka_unit_test(test_first_error_sticks),
        cmocka_unit_test(test_depth_is_bounded),
        cmocka_unit_test(test_unescaping_needs_an_arena_with_room),
        cmocka_unit_test(test_ending_early_is_an_error),
        cmocka_unit_test(test_long_paths_are_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
