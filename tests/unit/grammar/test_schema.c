/* test_schema.c - JSON schemas: every text that a random walk makes is JSON and valid; what is valid and within the
 * narrower form is permitted; what is not supported is refused by name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "tests/unit/grammar/validate.h"
#include "tests/unit/grammar/walk.h"

#define NODE                                                                                                 \
    "{\"type\":\"object\",\"properties\":{\"value\":{\"type\":\"integer\"},\"next\":{\"anyOf\":["            \
    "{\"$ref\":\"#/$defs/node\"},{\"type\":\"null\"}]}},\"required\":[\"value\",\"next\"],"                  \
    "\"additionalProperties\":false}"

/* yes, no: compact JSON. */
static const struct {
    const char *schema, *yes[5], *no[5];
} samples[] = {
    { "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},\"age\":{\"type\":\"integer\"}},"
      "\"required\":[\"name\",\"age\"]}",
      { "{\"name\":\"x\",\"age\":3}", "{\"name\":\"\\u00e9\\n\",\"age\":-1}" },
      { "{\"name\":\"x\"}", "{\"age\":3,\"name\":\"x\"}", "{\"name\":\"x\",\"age\":3,\"z\":1}", "{}",
        "[]" } },
    { "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"null\"},\"b\":{\"type\":\"null\"},\"c\":{"
      "\"type\":"
      "\"null\"}},\"required\":[\"b\"]}",
      { "{\"b\":null}", "{\"a\":null,\"b\":null}", "{\"b\":null,\"c\":null}",
        "{\"a\":null,\"b\":null,\"c\":null}" },
      { "{}", "{\"a\":null}", "{,\"b\":null}", "{\"b\":null,}", "{\"a\":null\"b\":null}" } },
    { "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"null\"}}}",
      { "{}", "{\"a\":null}" },
      { "{\"b\":null}" } },
    { "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},\"na\":{\"type\":\"null\"}},"
      "\"required\":["
      "\"name\"],\"additionalProperties\":{\"type\":\"integer\"}}",
      { "{\"name\":\"\",\"n\":1}", "{\"name\":\"\",\"names\":1,\"\":2}",
        "{\"name\":\"\",\"na\":null,\"nam\":0}" },
      { "{\"name\":\"\",\"na\":1}", "{\"name\":\"\",\"name\":1}", "{\"n\":1}",
        "{\"name\":\"\",\"x\":null}" } },
    { "{\"type\":\"object\",\"required\":[\"b\",\"a\"],\"additionalProperties\":{\"type\":\"null\"}}",
      { "{\"b\":null,\"a\":null}", "{\"b\":null,\"a\":null,\"c\":null}" },
      { "{\"b\":null}", "{\"b\":1,\"a\":null}" } },
    { "{\"type\":\"object\"}", { "{}", "{\"a\":[1,{\"b\":null}]}" }, { "[]", "{\"a\"}" } },
    { "{}", { "1", "\"x\"", "[{}]", "true" }, { "", "1 2" } },
    { "true", { "null" }, { "" } },
    { "{\"type\":\"array\",\"items\":{\"type\":\"integer\"},\"minItems\":2,\"maxItems\":3}",
      { "[1,2]", "[1,2,3]" },
      { "[]", "[1]", "[1,2,3,4]", "[1,\"a\"]" } },
    { "{\"type\":\"array\",\"items\":{\"type\":\"boolean\"}}",
      { "[]", "[true]", "[true,false]" },
      { "[1]", "[,]" } },
    { "{\"type\":\"array\",\"items\":{},\"minItems\":1}", { "[1]", "[1,[]]" }, { "[]" } },
    { "{\"type\":\"array\",\"prefixItems\":[{\"type\":\"integer\"},{\"type\":\"string\"}],\"minItems\":1}",
      { "[1]", "[1,\"a\"]" },
      { "[]", "[\"a\"]", "[1,\"a\",2]" } },
    { "{\"type\":\"array\",\"prefixItems\":[{\"type\":\"integer\"}],\"items\":{\"type\":\"null\"},"
      "\"minItems\":2,"
      "\"maxItems\":3}",
      { "[1,null]", "[1,null,null]" },
      { "[1]", "[1,null,null,null]", "[null,null]" } },
    { "{\"enum\":[\"red\",1,null,{\"a\":[1,2]},\"q\\\"\"]}",
      { "\"red\"", "1", "null", "{\"a\":[1,2]}", "\"q\\\"\"" },
      { "\"re\"", "2", "{\"a\":[1]}" } },
    { "{\"const\":\"x\"}", { "\"x\"" }, { "\"y\"" } },
    { "{\"type\":[\"string\",\"null\"],\"enum\":[\"a\",null,3]}", { "\"a\"", "null" }, { "3" } },
    { "{\"anyOf\":[{\"type\":\"string\",\"maxLength\":3},{\"type\":\"integer\",\"minimum\":5,\"maximum\":120}"
      "]}",
      { "\"abc\"", "5", "99", "120", "\"\xe6\xb0\xb4\xe6\xb0\xb4\xe6\xb0\xb4\"" },
      { "\"abcd\"", "4", "121", "05", "-5" } },
    { "{\"oneOf\":[{\"type\":\"string\"},{\"type\":\"integer\"}]}", { "\"\"", "7" }, { "null" } },
    { "{\"allOf\":[{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\",\"minimum\":3}},"
      "\"required\":["
      "\"a\"]},{\"properties\":{\"b\":{\"type\":\"string\"},\"a\":{\"maximum\":10}},\"required\":[\"b\"]}]}",
      { "{\"a\":3,\"b\":\"\"}", "{\"a\":10,\"b\":\"x\"}" },
      { "{\"a\":2,\"b\":\"\"}", "{\"a\":11,\"b\":\"\"}", "{\"a\":3}", "{\"b\":\"\"}" } },
    { "{\"allOf\":[{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"null\"}},\"additionalProperties\":"
      "false},"
      "{\"properties\":{\"b\":{\"type\":\"null\"}}}]}",
      { "{}", "{\"a\":null}" },
      { "{\"b\":null}" } },
    { "{\"allOf\":[{\"type\":[\"integer\",\"string\"]},{\"type\":\"number\"}]}",
      { "4" },
      { "4.5", "\"a\"" } },
    { "{\"type\":\"object\",\"properties\":{\"k\":{\"type\":\"string\"}},\"anyOf\":[{\"properties\":{\"a\":{"
      "\"type\":"
      "\"integer\"}},\"required\":[\"a\"]},{\"required\":[\"k\"]}]}",
      { "{\"a\":1}", "{\"k\":\"\",\"a\":1}", "{\"k\":\"\"}" },
      { "{}" } },
    { "{\"$defs\":{\"node\":" NODE "},\"$ref\":\"#/$defs/node\"}",
      { "{\"value\":1,\"next\":null}", "{\"value\":1,\"next\":{\"value\":2,\"next\":null}}" },
      { "{\"value\":1}", "{\"value\":1,\"next\":{}}" } },
    { "{\"$defs\":{\"a\":{\"type\":\"integer\"}},\"$ref\":\"#/$defs/a\",\"minimum\":3}", { "3" }, { "2" } },
    { "{\"type\":\"object\",\"properties\":{\"kids\":{\"type\":\"array\",\"items\":{\"$ref\":\"#\"}}},"
      "\"required\":["
      "\"kids\"]}",
      { "{\"kids\":[]}", "{\"kids\":[{\"kids\":[]},{\"kids\":[]}]}" },
      { "{\"kids\":[1]}" } },
    { "{\"type\":\"string\",\"minLength\":2,\"maxLength\":3}",
      { "\"ab\"", "\"\\u00e9\\n\"", "\"\xf0\x9f\x8c\x8a\xc3\xa9x\"" },
      { "\"a\"", "\"abcd\"", "\"\\ud800a\"" } },
    { "{\"type\":\"string\",\"pattern\":\"^[a-z]{2,4}-\\\\d+$\"}",
      { "\"ab-1\"", "\"abcd-123\"" },
      { "\"a-1\"", "\"ab-1x\"" } },
    { "{\"type\":\"string\",\"pattern\":\"ab|^x$\"}",
      { "\"ab\"", "\"..abab\"", "\"x\"" },
      { "\"a\"", "\"xx\"" } },
    { "{\"type\":\"string\",\"pattern\":\"^(?:a|b)*?[^\\\\W\\\\d_]\\\\s\\\\S$\"}",
      { "\"abz x\"", "\"Q\\ty\"" },
      { "\"1 x\"", "\"z  \"" } },
    { "{\"type\":\"string\",\"pattern\":\"^\\\"\\\\\\\\\\\\u00e9/$\"}",
      { "\"\\\"\\\\\xc3\xa9/\"" },
      { "\"\"" } },
    { "{\"type\":\"integer\",\"minimum\":-15,\"exclusiveMaximum\":207}",
      { "-15", "0", "206", "-9", "99" },
      { "-16", "207", "1000", "1.0" } },
    { "{\"type\":\"integer\",\"exclusiveMinimum\":-3.5,\"maximum\":-1}", { "-3", "-1" }, { "-4", "0" } },
    { "{\"type\":\"number\",\"minimum\":0,\"maximum\":1}",
      { "0", "0.5", "1", "1.0", "0.0" },
      { "1.5", "2", "-0.5", "1.01" } },
    { "{\"type\":\"number\",\"exclusiveMinimum\":0}", { "0.01", "1", "25.5" }, { "0", "0.0", "-1" } },
    { "{\"type\":\"number\",\"exclusiveMinimum\":-2,\"exclusiveMaximum\":3}",
      { "-1.5", "0", "2.9", "-0.1" },
      { "-2", "3", "3.0", "-2.0", "-2.5" } },
    { "{\"type\":\"number\"}", { "-1.5e10", "0", "12E-3" }, { "01", "1.", ".5", "+1", "1e100" } },
    { "{\"type\":\"string\",\"format\":\"date\"}",
      { "\"2024-02-29\"", "\"2023-12-31\"" },
      { "\"2023-02-29\"", "\"2023-04-31\"" } },
    { "{\"type\":\"string\",\"format\":\"date-time\"}",
      { "\"2024-02-29T23:59:59Z\"", "\"2024-01-01T00:00:00.5+02:00\"" },
      { "\"2024-02-29\"" } },
    { "{\"type\":\"string\",\"format\":\"uuid\"}",
      { "\"123e4567-e89b-12d3-a456-426614174000\"" },
      { "\"123e4567e89b12d3a456426614174000\"" } },
    { "{\"type\":\"string\",\"format\":\"ipv4\"}",
      { "\"255.0.10.1\"" },
      { "\"256.0.0.1\"", "\"1.2.3\"", "\"01.2.3.4\"" } },
    { "{\"type\":\"string\",\"format\":\"email\"}", { "\"a.b@x-y.org\"" }, { "\"a@b\"", "\"@x.org\"" } },
    { "{\"title\":\"t\",\"type\":\"boolean\",\"description\":\"d\"}", { "true", "false" }, { "null" } },
};
enum { N_SAMPLES = sizeof samples / sizeof *samples };

static void test_samples(void **state)
{
    (void)state;
    for (int i = 0; i < N_SAMPLES; i++) {
        struct weir_grammar *g = walk_schema(samples[i].schema, /* compact= */ true);
        for (int k = 0; k < 5 && samples[i].yes[k]; k++)
            if (!walk_accepts(g, weir_str(samples[i].yes[k])))
                fail_msg("%s does not permit %s", samples[i].schema, samples[i].yes[k]);
        for (int k = 0; k < 5 && samples[i].no[k]; k++)
            if (walk_accepts(g, weir_str(samples[i].no[k])))
                fail_msg("%s permits %s", samples[i].schema, samples[i].no[k]);
        weir_grammar_unref(g);
    }
}

/* [J1] WEIR_TEST_LONG=1: many more. */
static void test_walks_are_valid(void **state)
{
    int n_walks = getenv("WEIR_TEST_LONG") ? 400 : 6, n_ended = 0;
    struct weir_buf out;
    uint64_t seed = 42;

    (void)state;
    weir_buf_init(&out, 0);
    for (int i = 0; i < N_SAMPLES; i++) {
        json_t *schema = json_loads(samples[i].schema, JSON_DECODE_ANY, NULL);
        assert_non_null(schema);
        for (int k = 0; k < n_walks; k++) {
            struct weir_grammar *g = walk_schema(samples[i].schema, k % 2);
            json_error_t error;
            bool ended = walk(g, &seed, 50, &out);
            json_t *value =
                json_loadb(weir_buf_ptr(&out), weir_buf_len(&out), JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
            weir_grammar_unref(g);
            n_ended += ended;
            if (ended && (!value || !validate(schema, schema, value)))
                fail_msg("%s: %.*s (%s)", samples[i].schema, (int)weir_buf_len(&out), weir_buf_ptr(&out),
                         error.text);
            json_decref(value);
        }
        json_decref(schema);
    }
    assert_true(n_ended > n_walks * N_SAMPLES * 9 / 10);
    weir_buf_release(&out);
}

static void test_json_object(void **state)
{
    struct weir_grammar *g = NULL;
    struct weir_buf out;
    uint64_t seed = 3;

    (void)state;
    assert_int_equal(weir_grammar_compile_json_object(walk_vocab(), NULL, &g, NULL), WEIR_OK);
    weir_buf_init(&out, 0);
    for (int i = 0; i < 40; i++) {
        bool ended = walk(g, &seed, 200, &out);
        json_t *value = json_loadb(weir_buf_ptr(&out), weir_buf_len(&out), JSON_ALLOW_NUL, NULL);
        assert_true(!ended || json_is_object(value));
        json_decref(value);
    }
    assert_true(walk_accepts(g, WEIR_STR("{\n  \"a\": [\n    1, 2 ],\n  \"b\": {}\n}")));
    assert_false(walk_accepts(g, WEIR_STR("[]")));
    assert_false(walk_accepts(g, WEIR_STR("{  }")));
    weir_buf_release(&out);
    weir_grammar_unref(g);
}

/* [J2] Each is refused, and the words name the place and the member. */
static void test_refusals(void **state)
{
    static const struct {
        const char *schema;
        weir_err err;
        const char *param, *says;
    } bad[] = {
        { "{", WEIR_INVALID, "", "not JSON" },
        { "3", WEIR_INVALID, "", "an object or a boolean" },
        { "{\"type\":\"thing\"}", WEIR_INVALID, "", "\"type\"" },
        { "{\"properties\":{\"x\":{\"multipleOf\":3}}}", WEIR_UNIMPLEMENTED, ".properties.x",
          "\"multipleOf\"" },
        { "{\"items\":{\"uniqueItems\":true}}", WEIR_UNIMPLEMENTED, ".items", "\"uniqueItems\"" },
        { "{\"not\":{}}", WEIR_UNIMPLEMENTED, "", "\"not\"" },
        { "{\"if\":{}}", WEIR_UNIMPLEMENTED, "", "\"if\"" },
        { "{\"patternProperties\":{}}", WEIR_UNIMPLEMENTED, "", "\"patternProperties\"" },
        { "{\"minProperties\":1}", WEIR_UNIMPLEMENTED, "", "\"minProperties\"" },
        { "{\"contains\":{}}", WEIR_UNIMPLEMENTED, "", "\"contains\"" },
        { "{\"format\":\"iri\"}", WEIR_UNIMPLEMENTED, "", "\"iri\"" },
        { "{\"pattern\":\"(?=a)\"}", WEIR_UNIMPLEMENTED, "", "looking ahead" },
        { "{\"pattern\":\"(a)\\\\1\"}", WEIR_UNIMPLEMENTED, "", "back references" },
        { "{\"pattern\":\"\\\\bx\"}", WEIR_UNIMPLEMENTED, "", "border" },
        { "{\"pattern\":\"a^\"}", WEIR_UNIMPLEMENTED, "", "^ and $" },
        { "{\"pattern\":\"\\\\p{L}\"}", WEIR_UNIMPLEMENTED, "", "\\p" },
        { "{\"pattern\":\"(a\"}", WEIR_INVALID, "", "\")\" is missing" },
        { "{\"pattern\":\"a)\"}", WEIR_INVALID, "", "too many" },
        { "{\"pattern\":\"[a\"}", WEIR_INVALID, "", "\"]\"" },
        { "{\"pattern\":\"*\"}", WEIR_INVALID, "", "nothing to repeat" },
        { "{\"pattern\":\"a\",\"minLength\":2}", WEIR_UNIMPLEMENTED, "", "\"pattern\" beside" },
        { "{\"type\":\"number\",\"minimum\":0.5}", WEIR_UNIMPLEMENTED, "", "fraction" },
        { "{\"enum\":[]}", WEIR_INVALID, "", "\"enum\"" },
        { "{\"enum\":[1],\"type\":\"string\"}", WEIR_INVALID, "", "\"enum\"" },
        { "{\"enum\":[\"a\"],\"minLength\":2}", WEIR_UNIMPLEMENTED, "", "\"minLength\"" },
        { "{\"$ref\":\"http://x/y\"}", WEIR_UNIMPLEMENTED, "", "\"$ref\"" },
        { "{\"$ref\":\"#/$defs/a\"}", WEIR_INVALID, "", "#/$defs/a" },
        { "{\"$ref\":\"#\"}", WEIR_INVALID, "", "no text at all" },
        { "{\"items\":[{}]}", WEIR_UNIMPLEMENTED, "", "prefixItems" },
        { "{\"minItems\":-1}", WEIR_INVALID, "", "\"minItems\"" },
        { "{\"maxLength\":100000}", WEIR_TOOLARGE, "", "\"maxLength\"" },
        { "{\"allOf\":[{\"pattern\":\"a\"},{\"pattern\":\"b\"}]}", WEIR_UNIMPLEMENTED, ".allOf[1]",
          "\"pattern\" twice" },
        { "{\"allOf\":[{\"$ref\":\"#\"}]}", WEIR_TOOLARGE, "", "nested too deeply" },
        { "{\"type\":\"integer\",\"minimum\":5,\"maximum\":4}", WEIR_INVALID, "", "no text at all" },
        { "{\"required\":\"a\"}", WEIR_INVALID, "", "\"required\"" },
        { "{\"properties\":{\"a\":{\"$ref\":\"#\"}},\"required\":[\"a\"]}", WEIR_INVALID, "",
          "no text at all" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct weir_grammar *g = NULL;
        struct weir_why why = { .text = "" };
        weir_err err = weir_grammar_compile_schema(walk_vocab(), weir_str(bad[i].schema), NULL, &g, &why);
        static const char general[] = "response_format.json_schema.schema";
        if (err != bad[i].err || g || !strstr(why.text, bad[i].says))
            fail_msg("%s: %s \"%s\"", bad[i].schema, weir_err_info(err)->name, why.text);
        if (strncmp(why.param, general, sizeof general - 1) != 0 ||
            strcmp(why.param + sizeof general - 1, bad[i].param) != 0)
            fail_msg("%s: about \"%s\"", bad[i].schema, why.param);
    }
}

/* Sizes that people use compile; sizes beyond a bound are refused, not tried. */
static void test_large_schemas(void **state)
{
    struct weir_buf json;
    struct weir_grammar *g;

    (void)state;
    weir_buf_init(&json, 0);
    weir_buf_adds(&json, "{\"type\":\"object\",\"properties\":{");
    for (int i = 0; i < 200; i++)
        weir_buf_addf(&json, "%s\"property_number_%d\":{\"type\":\"string\"}", i ? "," : "", i);
    weir_buf_adds(&json, "}}");
    g = walk_schema(weir_buf_cstr(&json), /* compact= */ false);
    assert_true(walk_accepts(g, WEIR_STR("{\"property_number_7\": \"x\", \"property_number_199\": \"\"}")));
    assert_false(walk_accepts(g, WEIR_STR("{\"property_number_7\": \"x\", \"property_number_7\": \"\"}")));
    weir_grammar_unref(g);
    weir_buf_clear(&json);
    weir_buf_adds(&json, "{\"enum\":[");
    for (int i = 0; i < 3000; i++)
        weir_buf_addf(&json, "%s\"value %d\"", i ? "," : "", i * 7);
    weir_buf_adds(&json, "]}");
    g = walk_schema(weir_buf_cstr(&json), false);
    assert_true(walk_accepts(g, WEIR_STR("\"value 20993\"")));
    assert_false(walk_accepts(g, WEIR_STR("\"value 20994\"")));
    weir_grammar_unref(g);
    g = walk_schema("{\"type\":\"string\",\"maxLength\":2000}", false);
    assert_true(walk_accepts(g, WEIR_STR("\"abc\"")));
    weir_grammar_unref(g);
    weir_buf_release(&json);
}

static void add_values(struct weir_buf *json, int n, int step)
{
    weir_buf_adds(json, "{\"enum\":[");
    for (int i = 0; i < n; i++)
        weir_buf_addf(json, "%s%d", i ? "," : "", i * step);
    weir_buf_adds(json, "]}");
}

/* Lists that meet again and again: people's sizes compile, others are refused before they take minutes. */
static void test_many_values_meet(void **state)
{
    struct weir_buf json;
    struct weir_grammar *g = NULL;
    struct weir_why why = { .text = "" };

    (void)state;
    weir_buf_init(&json, 0);
    weir_buf_adds(&json, "{\"allOf\":[");
    add_values(&json, 1000, 2);
    weir_buf_addc(&json, ',');
    add_values(&json, 1000, 3);
    weir_buf_adds(&json, "]}");
    g = walk_schema(weir_buf_cstr(&json), false);
    assert_true(walk_accepts(g, WEIR_STR("1500")));
    assert_false(walk_accepts(g, WEIR_STR("1502")));
    weir_grammar_unref(g);
    g = NULL;
    weir_buf_clear(&json);
    weir_buf_adds(&json, "{\"$defs\":{\"a\":");
    add_values(&json, 10000, 2);
    weir_buf_adds(&json, ",\"b\":");
    add_values(&json, 10000, 3);
    weir_buf_adds(&json, "},\"anyOf\":[");
    for (int i = 0; i < 1000; i++)
        weir_buf_addf(&json, "%s{\"allOf\":[{\"$ref\":\"#/$defs/a\"},{\"$ref\":\"#/$defs/b\"}]}",
                      i ? "," : "");
    weir_buf_adds(&json, "]}");
    assert_int_equal(
        weir_grammar_compile_schema(walk_vocab(), weir_str(weir_buf_cstr(&json)), NULL, &g, &why),
        WEIR_TOOLARGE);
    assert_non_null(strstr(why.text, "too long to compile"));
    weir_buf_release(&json);
}

/* [A1] Near the end of a bounded string, and near its least length, tokens that reach too far are kept out. */
static void test_bounded_strings(void **state)
{
    struct weir_grammar *g = walk_schema("{\"type\":\"string\",\"minLength\":20,\"maxLength\":60}", true);
    int32_t ids[64];

    (void)state;
    ids[0] = '"';
    for (int n = 1; n <= 61; n++) {
        walk_check_mask(g, ids, n);
        ids[n] = 'a';
    }
    weir_grammar_unref(g);
}

static void test_no_memory(void **state)
{
    struct weir_grammar_vocab *vocab = walk_vocab();
    bool done = false;

    (void)state;
    for (long n = 0; !done; n++) {
        struct weir_grammar *g = NULL;
        weir_test_alloc_budget(n);
        weir_err err = weir_grammar_compile_schema(vocab, weir_str(samples[3].schema), NULL, &g, NULL);
        weir_test_alloc_budget(-1);
        assert_true(err == WEIR_OK ? g != NULL : (err == WEIR_NOMEM || err == WEIR_TOOLARGE) && !g);
        weir_grammar_unref(g);
        done = err == WEIR_OK;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_samples),         cmocka_unit_test(test_walks_are_valid),
        cmocka_unit_test(test_json_object),     cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_large_schemas),   cmocka_unit_test(test_many_values_meet),
        cmocka_unit_test(test_bounded_strings), cmocka_unit_test(test_no_memory),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);

    walk_free();
    return rc;
}
