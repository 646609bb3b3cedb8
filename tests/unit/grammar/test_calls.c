/* test_calls.c - calls of tools: every text that a random walk makes is read back as a call whose arguments are valid for
 * the tool's schema, in every form; what is within the form is permitted, and what is not is refused by name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "replica/text/tool_parse.h"
#include "tests/unit/grammar/validate.h"
#include "tests/unit/grammar/walk.h"

#define P(name, value) "<parameter=" name ">\n" value "\n</parameter>\n"
#define F(name, parameters) "<function=" name ">\n" parameters "</function>"
#define TOOL(name, schema) "{\"name\":\"" name "\",\"parameters\":" schema "}"

static const struct {
    enum weir_grammar_call_form form;
    const char *tools, *yes[6], *no[8];
} samples[] = {
    { WEIR_CALL_TAGS,
      "[" TOOL("write",
               "{\"type\":\"object\",\"properties\":{\"path\":{\"type\":\"string\"},\"text\":{\"type\":"
               "\"string\"},\"mode\":{\"type\":\"integer\"},\"force\":{\"type\":\"boolean\"}},"
               "\"required\":[\"path\",\"mode\"]}") "," TOOL("stop",
                                                             "{\"type\":\"object\",\"properties\":{}}") "]",
      { F("write", P("path", "a \"b\" \\ <c>") P("mode", "7")), F("stop", ""),
        F("write", P("path", "") P("text", "two\n\n lines\n") P("mode", "-1") P("force", "true")),
        F("write", P("path", "</parameter \xc3\xbc\n</param") P("mode", "0")) },
      { F("write", P("mode", "7")), F("write", P("mode", "7") P("path", "a")), F("other", ""),
        F("write", P("path", "a") P("mode", "x")), F("write", P("path", "a</parameter>") P("mode", "1")),
        F("write", P("path", "a") P("mode", "1") P("more", "1")), F("stop", P("x", "1")),
        "{\"name\": \"stop\", \"arguments\": {}}" } },
    { WEIR_CALL_TAGS,
      "[" TOOL(
          "f",
          "{\"properties\":{\"kind\":{\"enum\":[\"a\\nb\",\"</parameter>\",\"\\u00e9\"]},\"list\":{\"type\":"
          "\"array\",\"items\":{\"type\":\"string\"}},\"any\":{},\"o\":{\"type\":\"object\",\"properties\":{"
          "\"</parameter>\":{\"const\":\"</"
          "parameter>\"}},\"additionalProperties\":{\"type\":\"string\",\"maxLength\":20}}}}") "]",
      { F("f", ""), F("f", P("kind", "a\nb")), F("f", P("kind", "\xc3\xa9") P("list", "[\"a\", \"<b\"]")),
        F("f", P("any", "{\"x\": [null, \"<\\/parameter>\"]}")),
        F("f", P("o", "{\"<\\/parameter>\": \"<\\/parameter>\", \"x\": \"y\"}")) },
      { F("f", P("kind", "c")), F("f", P("kind", "\"a\\nb\"")), F("f", P("list", "[\"</parameter>\"]")),
        F("f", P("list", "a")), F("f", P("kind", "</parameter>")), F("f", P("any", "no")),
        F("f", P("o", "{\"<\": \"y\"}")), F("f", P("o", "{\"x\": \"<\"}")) } },
    /* What a string may be is said in many ways. */
    { WEIR_CALL_TAGS,
      "[" TOOL(
          "f",
          "{\"$defs\":{\"color\":{\"type\":\"string\",\"enum\":[\"red\",\"blue\"]},\"tree\":{\"type\":"
          "\"object\","
          "\"properties\":{\"next\":{\"$ref\":\"#/$defs/tree\"}}}},\"properties\":{\"a\":{\"$ref\":"
          "\"#/$defs/color\"},\"b\":{\"anyOf\":[{\"type\":\"string\",\"maxLength\":3},{\"type\":\"null\"}]},"
          "\"c\":{\"allOf\":[{\"$ref\":\"#/$defs/color\"}],\"description\":\"x\"},\"d\":{\"$ref\":"
          "\"#/$defs/"
          "tree\"},\"e\":{\"const\":\"one\"},\"f\":{\"type\":[\"string\",\"null\"],\"minLength\":2}}}") "]",
      { F("f", P("a", "red") P("c", "blue")), F("f", P("b", "1\n<")), F("f", P("d", "{\"next\": {}}")),
        F("f", P("e", "one")), F("f", P("f", "null")), F("f", P("b", "")) },
      { F("f", P("a", "green")), F("f", P("a", "\"red\"")), F("f", P("b", "four")),
        F("f", P("c", "\"blue\"")), F("f", P("d", "{\"other\": {}}")), F("f", P("e", "two")),
        F("f", P("f", "x")) } },
    { WEIR_CALL_TAGS,
      "[" TOOL(
          "f",
          "{\"properties\":{\"day\":{\"type\":\"string\",\"format\":\"date\"},\"id\":{\"type\":\"string\","
          "\"pattern\":\"^[a-z\\\\n]{2,3}$\"},\"n\":{\"type\":\"number\",\"minimum\":0}}}") "]",
      { F("f", P("day", "2024-02-29")), F("f", P("id", "a\n")), F("f", P("id", "abc") P("n", "1.5")) },
      { F("f", P("day", "2023-02-29")), F("f", P("id", "a")), F("f", P("id", "a\\n")),
        F("f", P("n", "-1")) } },
    { WEIR_CALL_TAGS,
      "[" TOOL("open", "{\"type\":\"object\"}") "," TOOL("any", "{}") "," TOOL(
          "root", "{\"$ref\":\"#/$defs/x\",\"$defs\":{\"x\":"
                  "{\"type\":\"object\",\"required\":[\"q\"]}}}") "]",
      { F("open", ""), F("open", P("a", "1") P("b_2", "\"text\"")), F("any", P("a", "{}")),
        F("root", P("q", "[]")) },
      { F("open", P("a b", "1")), F("open", P("a", "text")), F("root", "") } },
    /* As JSON: "#/..." is the tool's own schema. */
    { WEIR_CALL_ARGUMENTS,
      "[" TOOL("f", "{\"$defs\":{\"n\":{\"type\":\"integer\"}},\"properties\":{\"n\":{\"$ref\":\"#/$defs/"
                    "n\"}}}") "," TOOL("g", "{\"$defs\":{\"n\":{\"type\":\"null\"}},\"properties\":{\"n\":{"
                                            "\"$ref\":\"#/$defs/n\"}}}") "]",
      { "{\"name\": \"f\", \"arguments\": {\"n\": 1}}", "{\"name\":\"g\",\"arguments\":{\"n\":null}}",
        "{\n  \"name\": \"f\",\n  \"arguments\": {}\n}" },
      { "{\"name\": \"f\", \"arguments\": {\"n\": null}}", "{\"name\": \"h\", \"arguments\": {}}",
        "{\"arguments\": {}, \"name\": \"f\"}", "{\"name\": \"f\"}",
        "{\"name\": \"f\", \"parameters\": {}}" } },
    { WEIR_CALL_PARAMETERS,
      "[" TOOL("f", "{\"properties\":{\"s\":{\"type\":\"string\"}}}") "]",
      { "{\"name\": \"f\", \"parameters\": {\"s\": \"</parameter>\"}}" },
      { "{\"name\": \"f\", \"arguments\": {}}" } },
    { WEIR_CALL_LIST,
      "[" TOOL("f", "{\"properties\":{\"n\":{\"type\":\"integer\"}}}") "]",
      { "[{\"name\": \"f\", \"arguments\": {}}]",
        "[{\"name\":\"f\",\"arguments\":{\"n\":1}}, {\"name\":\"f\",\"arguments\":{}}, "
        "{\"name\":\"f\",\"arguments\":{}}]" },
      { "[]", "{\"name\": \"f\", \"arguments\": {}}",
        "[{\"name\":\"f\",\"arguments\":{}},{\"name\":\"f\",\"arguments\":{}},{\"name\":\"f\",\"arguments\":{"
        "}},"
        "{\"name\":\"f\",\"arguments\":{}}]" } },
    { WEIR_CALL_BARE,
      "[" TOOL("f", "{\"properties\":{\"n\":{\"type\":\"integer\"}},\"required\":[\"n\"]}") "]",
      { "{\"n\": 1}" },
      { "{}", "{\"name\": \"f\", \"arguments\": {\"n\": 1}}" } },
};
enum { N_SAMPLES = sizeof samples / sizeof *samples };

static void test_samples(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_SAMPLES; i++) {
        struct weir_grammar *g = walk_calls(samples[i].form, samples[i].tools);
        for (int k = 0; k < 6 && samples[i].yes[k]; k++)
            if (!walk_accepts(g, weir_str(samples[i].yes[k])))
                fail_msg("%s: refuses %s", samples[i].tools, samples[i].yes[k]);
        for (int k = 0; k < 8 && samples[i].no[k]; k++)
            if (walk_accepts(g, weir_str(samples[i].no[k])))
                fail_msg("%s: permits %s", samples[i].tools, samples[i].no[k]);
        weir_grammar_unref(g);
    }
}

/* ---- read back ---- */

struct read {
    json_t *tools, *now; /* now: the tool of the call under way */
    struct weir_buf arguments;
    int n_calls;
    const char *text; /* for complaints */
};

static json_t *tool_of(json_t *tools, struct weir_str name)
{
    size_t i;
    json_t *tool;

    json_array_foreach(
        tools, i, tool) if (weir_str_eq(name, json_string_value(json_object_get(tool, "name")))) return tool;
    return NULL;
}

static void on_event(void *ctx, const struct weir_output_event *e)
{
    struct read *r = ctx;

    if (e->kind == WEIR_OUTPUT_CALL) {
        r->now = tool_of(r->tools, e->text);
        assert_non_null(r->now);
        weir_buf_clear(&r->arguments);
    } else if (e->kind == WEIR_OUTPUT_ARGUMENTS) {
        weir_buf_add(&r->arguments, e->text.ptr, e->text.len);
    } else if (e->kind == WEIR_OUTPUT_CALL_END) {
        json_t *schema = json_object_get(r->now, "parameters");
        json_t *value =
            json_loadb(weir_buf_ptr(&r->arguments), weir_buf_len(&r->arguments), JSON_ALLOW_NUL, NULL);
        if (!value || !json_is_object(value) || !validate(schema, schema, value))
            fail_msg("%s: read as %s", r->text, weir_buf_cstr(&r->arguments));
        json_decref(value);
        r->n_calls++;
    } else {
        fail_msg("%s: there is text beside the call: %.*s", r->text, WEIR_STR_FMT(e->text));
    }
}

/* The text as a whole answer of a model that writes calls in this form. */
static void read_back(enum weir_grammar_call_form form, const char *json, struct weir_str text)
{
    static const enum weir_tool_format formats[] = { [WEIR_CALL_ARGUMENTS] = WEIR_TOOLS_HERMES,
                                                     [WEIR_CALL_PARAMETERS] = WEIR_TOOLS_LLAMA3,
                                                     [WEIR_CALL_LIST] = WEIR_TOOLS_MISTRAL,
                                                     [WEIR_CALL_TAGS] = WEIR_TOOLS_HERMES };
    static const char *const markers[] = { [WEIR_CALL_ARGUMENTS] = "<tool_call>\n",
                                           [WEIR_CALL_PARAMETERS] = "",
                                           [WEIR_CALL_LIST] = "[TOOL_CALLS]",
                                           [WEIR_CALL_TAGS] = "<tool_call>\n" };
    struct read r = { .tools = json_loads(json, 0, NULL), .text = text.ptr };
    struct weir_output_tool described[4];
    struct weir_output_format format = { .tools = formats[form], .described = described };
    struct weir_output_parser *p = NULL;
    size_t i;
    json_t *tool;

    json_array_foreach(r.tools, i, tool)
    {
        described[i].name = weir_str(json_string_value(json_object_get(tool, "name")));
        described[i].parameters = weir_str(json_dumps(json_object_get(tool, "parameters"), 0));
    }
    format.n_described = json_array_size(r.tools);
    weir_buf_init(&r.arguments, 0);
    assert_int_equal(weir_output_parser_open(&format, on_event, &r, &p), WEIR_OK);
    assert_int_equal(weir_output_parser_push(p, weir_str(markers[form])), WEIR_OK);
    assert_int_equal(weir_output_parser_push(p, text), WEIR_OK);
    assert_int_equal(weir_output_parser_finish(p), WEIR_OK);
    weir_output_parser_close(p);
    assert_true(r.n_calls >= 1 && r.n_calls <= (form == WEIR_CALL_LIST ? 3 : 1));
    for (i = 0; i < format.n_described; i++)
        free((char *)(uintptr_t)described[i].parameters.ptr);
    weir_buf_release(&r.arguments);
    json_decref(r.tools);
}

/* [J3] [J4] [J5] */
static void test_walks_are_read_back(void **state)
{
    struct weir_buf text;
    uint64_t seed = 11;

    (void)state;
    weir_buf_init(&text, 0);
    for (size_t i = 0; i < N_SAMPLES; i++) {
        struct weir_grammar *g = walk_calls(samples[i].form, samples[i].tools);
        for (int k = 0; k < 6 && samples[i].yes[k] && samples[i].form != WEIR_CALL_BARE; k++)
            read_back(samples[i].form, samples[i].tools, weir_str(samples[i].yes[k]));
        for (int n = 0; n < 60; n++) {
            if (!walk(g, &seed, 20 + 6 * (size_t)n, &text))
                fail_msg("%s: no end of %s", samples[i].tools, weir_buf_cstr(&text));
            if (samples[i].form == WEIR_CALL_BARE) /* the name is in the prompt */
                continue;
            const char *all = weir_buf_cstr(&text);
            read_back(samples[i].form, samples[i].tools, (struct weir_str){ all, weir_buf_len(&text) });
        }
        weir_grammar_unref(g);
    }
    weir_buf_release(&text);
}

/* Near a text's least and largest length, and around the tag that ends it, the mask says what accept does. */
static void test_masks_between_tags(void **state)
{
    static const char tools[] =
        "[" TOOL("f", "{\"properties\":{\"s\":{\"type\":\"string\",\"minLength\":12,\"maxLength\":30}},"
                      "\"required\":[\"s\"]}") "]";
    static const char text[] = F("f", P("s", "a</parameter</parameter</p"));
    struct weir_grammar *g = walk_calls(WEIR_CALL_TAGS, tools);
    int32_t ids[sizeof text];

    (void)state;
    for (size_t i = 0; i + 1 < sizeof text; i++) {
        walk_check_mask(g, ids, (int)i);
        ids[i] = (unsigned char)text[i];
    }
    weir_grammar_unref(g);
}

static void test_refusals(void **state)
{
    static const struct {
        const char *schema;
        weir_err err;
        const char *param, *says;
    } bad[] = {
        { "{\"properties\":{\"a>b\":{}}}", WEIR_UNIMPLEMENTED, "tools.f.properties.a>b", "in a tag" },
        { "{\"properties\":{\"\":{}}}", WEIR_UNIMPLEMENTED, "tools.f.properties.", "in a tag" },
        { "{\"anyOf\":[{\"type\":\"object\"}]}", WEIR_UNIMPLEMENTED, "tools.f", "\"anyOf\"" },
        { "{\"type\":\"string\"}", WEIR_INVALID, "tools.f", "no object" },
        { "false", WEIR_INVALID, "tools.f", "no object" },
        { "{\"properties\":{\"a\":{\"type\":\"string\",\"not\":{}}}}", WEIR_UNIMPLEMENTED,
          "tools.f.properties.a", "\"not\"" },
        { "{\"properties\":{\"a\":{\"enum\":[\"</parameter>\"]}}}", WEIR_INVALID, "tools.f.properties.a",
          "in a tag" },
        { "{\"properties\":{\"a\":{\"$ref\":\"#/$defs/x\"}}}", WEIR_INVALID, "tools.f.properties.a",
          "#/$defs/x" },
        { "{\"properties\":{\"a\":{\"type\":\"string\",\"pattern\":\"(\"}}}", WEIR_INVALID,
          "tools.f.properties.a", "\"pattern\"" },
        { "{\"properties\":{\"a\":{\"type\":\"string\",\"enum\":{\"b\":1}}}}", WEIR_INVALID,
          "tools.f.properties.a", "not a list" },
        { "{\"properties\":{\"a\":{\"$ref\":1}}}", WEIR_UNIMPLEMENTED, "tools.f.properties.a", "\"$ref\"" },
        { "{\"$ref\":\"#\"}", WEIR_TOOLARGE, "tools.f", "nested too deeply" },
        { "{\"properties\":{\"a\":{\"anyOf\":[{\"type\":\"string\"},{\"$ref\":\"#/properties/a\"}]}}}",
          WEIR_TOOLARGE, "tools.f.properties.a", "nested too deeply" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct weir_grammar *g = NULL;
        struct weir_why why = { .text = "" };
        char tools[512];
        snprintf(tools, sizeof tools, "[{\"name\":\"f\",\"parameters\":%s}]", bad[i].schema);
        const struct weir_grammar_calls calls = { .form = WEIR_CALL_TAGS, .tools = weir_str(tools) };
        weir_err err = weir_grammar_compile_calls(walk_vocab(), &calls, NULL, &g, &why);
        if (err != bad[i].err || g || !strstr(why.text, bad[i].says) ||
            strncmp(why.param, bad[i].param, strlen(bad[i].param)) != 0)
            fail_msg("%s: %s about \"%s\": \"%s\"", bad[i].schema, weir_err_info(err)->name, why.param,
                     why.text);
    }
}

/* Sizes that people use compile; a text's bounds that are too large are refused. */
static void test_large_tools(void **state)
{
    struct weir_buf json;

    (void)state;
    weir_buf_init(&json, 0);
    weir_buf_addc(&json, '[');
    for (int i = 0; i < 60; i++) {
        weir_buf_addf(&json, "%s{\"name\":\"tool_%d\",\"parameters\":{\"properties\":{", i ? "," : "", i);
        for (int k = 0; k < 20; k++)
            weir_buf_addf(&json, "%s\"p%d\":{\"type\":\"%s\"}", k ? "," : "", k,
                          k % 2 ? "string" : "integer");
        weir_buf_adds(&json, "}}}");
    }
    weir_buf_addc(&json, ']');
    struct weir_grammar *g = walk_calls(WEIR_CALL_TAGS, weir_buf_cstr(&json));
    assert_true(walk_accepts(g, WEIR_STR(F("tool_59", P("p1", "text") P("p2", "3") P("p19", "")))));
    assert_false(walk_accepts(g, WEIR_STR(F("tool_59", P("p2", "3") P("p1", "text")))));
    weir_grammar_unref(g);
    g = walk_calls(WEIR_CALL_TAGS,
                   "[" TOOL("f", "{\"properties\":{\"s\":{\"type\":\"string\",\"maxLength\":2000}}}") "]");
    assert_true(walk_accepts(g, WEIR_STR(F("f", P("s", "<p>")))));
    assert_false(walk_accepts(g, WEIR_STR(F("f", P("s", "<p></p>")))));
    weir_grammar_unref(g);
    weir_buf_release(&json);
}

static void test_no_memory(void **state)
{
    struct weir_grammar_vocab *vocab = walk_vocab();
    bool done = false;

    (void)state;
    for (long n = 0; !done; n++) {
        struct weir_grammar *g = NULL;
        const struct weir_grammar_calls calls = { .form = WEIR_CALL_TAGS,
                                                  .tools = weir_str(samples[2].tools) };
        weir_test_alloc_budget(n);
        weir_err err = weir_grammar_compile_calls(vocab, &calls, NULL, &g, NULL);
        weir_test_alloc_budget(-1);
        assert_true(err == WEIR_OK ? g != NULL : (err == WEIR_NOMEM || err == WEIR_TOOLARGE) && !g);
        weir_grammar_unref(g);
        done = err == WEIR_OK;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_samples),   cmocka_unit_test(test_walks_are_read_back),
        cmocka_unit_test(test_refusals),  cmocka_unit_test(test_masks_between_tags),
        cmocka_unit_test(test_no_memory), cmocka_unit_test(test_large_tools),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);

    walk_free();
    return rc;
}
