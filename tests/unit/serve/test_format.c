/* test_format.c - what an answer must be: grammars and their cache, forced calls in every style, refusals. */
#include "tests/unit/serve/calls.h"

#include <stdio.h>

#include "tests/support/thinking_model.h"

#define HERMES "{# <tool_call> {\"name\": ..., \"arguments\": ...} </tool_call> #}{{ messages[0].content }}"
#define THINKS "{# </think> <tool_call> </tool_call> #}{{ messages[0].content }}<think>\n"

static weir_err choose(struct call *call, const char *prompt)
{
    return format_choose(&serve, call, weir_str(prompt));
}

/* Is this text, in whole, one that the call's grammar takes? */
static bool takes(const struct call *call, const char *text)
{
    struct weir_grammar_state *state = NULL;
    struct weir_tokens tokens;
    struct weir_arena arena;
    bool good = true;

    weir_arena_init(&arena, 0);
    assert_int_equal(weir_grammar_state_open(call->grammar, &state, NULL), WEIR_OK);
    assert_int_equal(weir_tokenize(serve.opts.tokenizer, weir_str(text), /* parse_special= */ false,
                                   /* add_bos= */ false, 4096, &arena, &tokens, NULL),
                     WEIR_OK);
    for (size_t i = 0; i < tokens.n && good; i++)
        good = weir_grammar_state_accept(state, tokens.ids[i]);
    good = good && weir_grammar_state_whole(state);
    weir_grammar_state_close(state);
    weir_arena_release(&arena);
    return good;
}

static struct call *with_tools(Weir__V1__ToolChoiceKind choice)
{
    struct call *call = call_make();

    call_add_message(call, "user", "x");
    call_add_tool(call, "add",
                  "{\"type\":\"object\",\"properties\":{\"n\":{\"type\":\"integer\"}},\"required\":[\"n\"],"
                  "\"additionalProperties\":false}");
    call_add_tool(call, "stop", "");
    call_msg(call)->tool_choice = choice;
    call_msg(call)->tool_name = call_text(call, "add");
    return call;
}

/* [F2] */
static void test_forced_calls_in_every_style(void **state)
{
    static const struct {
        enum weir_tool_format style;
        const char *prefill, *call, *other;
    } cases[] = {
        { WEIR_TOOLS_HERMES, "<tool_call>\n", "{\"name\": \"add\", \"arguments\": {\"n\": 3}}",
          "{\"name\": \"stop\", \"arguments\": {}}" },
        { WEIR_TOOLS_LLAMA3, "", "{\"name\": \"add\", \"parameters\": {\"n\": 3}}",
          "{\"name\": \"stop\", \"parameters\": {}}" },
        { WEIR_TOOLS_MISTRAL, "[TOOL_CALLS]", "[{\"name\": \"add\", \"arguments\": {\"n\": 3}}]",
          "[{\"name\": \"stop\", \"arguments\": {}}]" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (int named = 0; named < 2; named++) {
            serve_begin(HERMES);
            serve.opts.tool_format_given = true;
            serve.opts.tool_format = cases[i].style;
            struct call *call = with_tools(named ? WEIR__V1__TOOL_CHOICE_KIND__TOOL_CHOICE_NAMED
                                                 : WEIR__V1__TOOL_CHOICE_KIND__TOOL_CHOICE_REQUIRED);
            assert_int_equal(choose(call, "x"), WEIR_OK);
            assert_true(weir_str_eq(call->prefill, cases[i].prefill) && call->parses);
            assert_true(takes(call, cases[i].call));
            assert_int_equal(takes(call, cases[i].other), !named);
            assert_false(takes(call, "{\"name\": \"add\", \"arguments\": {\"n\": \"three\"}}"));
            assert_false(takes(call, "No."));
            call_free(call);
            serve_end();
        }
    }
}

/* [F2] A model that was taught tags writes them when it is forced, too. */
static void test_forced_calls_in_tags(void **state)
{
    (void)state;
    serve_begin("{# <tool_call> <function=name> </tool_call> #}{{ messages[0].content }}");
    for (int named = 0; named < 2; named++) {
        struct call *call = with_tools(named ? WEIR__V1__TOOL_CHOICE_KIND__TOOL_CHOICE_NAMED
                                             : WEIR__V1__TOOL_CHOICE_KIND__TOOL_CHOICE_REQUIRED);
        assert_int_equal(choose(call, "x"), WEIR_OK);
        assert_true(weir_str_eq(call->prefill, "<tool_call>\n") && call->parses);
        assert_true(takes(call, "<function=add>\n<parameter=n>\n3\n</parameter>\n</function>"));
        assert_int_equal(takes(call, "<function=stop>\n</function>"), !named);
        assert_false(takes(call, "<function=add>\n<parameter=n>\nthree\n</parameter>\n</function>"));
        assert_false(takes(call, "{\"name\": \"add\", \"arguments\": {\"n\": 3}}"));
        call_free(call);
    }
    serve_end();
}

/* [F1] The same tools, and one call or several. */
static void test_a_list_of_calls_has_its_length(void **state)
{
    static const char two[] =
        "[{\"name\": \"stop\", \"arguments\": {}}, {\"name\": \"stop\", \"arguments\": {}}]";

    (void)state;
    serve_begin("{# [TOOL_CALLS] #}{{ messages[0].content }}");
    for (int one = 0; one < 2; one++) {
        struct call *call = with_tools(WEIR__V1__TOOL_CHOICE_KIND__TOOL_CHOICE_REQUIRED);
        call_msg(call)->has_parallel_tool_calls_case = one ? 39 : 0;
        call_msg(call)->parallel_tool_calls = false;
        assert_int_equal(choose(call, "x"), WEIR_OK);
        assert_int_equal(takes(call, two), !one);
        call_free(call);
    }
    serve_end();
}

static void test_deepseek_takes_a_name_first(void **state)
{
    (void)state;
    serve_begin(HERMES);
    serve.opts.tool_format_given = true;
    serve.opts.tool_format = WEIR_TOOLS_DEEPSEEK;
    struct call *call = with_tools(WEIR__V1__TOOL_CHOICE_KIND__TOOL_CHOICE_NAMED);
    assert_int_equal(choose(call, "x"), WEIR_OK);
    assert_true(takes(call, "{\"n\": 3}"));
    call_free(call);
    call = with_tools(WEIR__V1__TOOL_CHOICE_KIND__TOOL_CHOICE_REQUIRED);
    assert_int_equal(choose(call, "x"), WEIR_INVALID);
    assert_string_equal(call->why.param, "tool_choice");
    call_free(call);
    serve_end();
}

static void test_reasoning_comes_before_what_is_bound(void **state)
{
    (void)state;
    serve_begin(THINKS);
    struct call *call = with_tools(WEIR__V1__TOOL_CHOICE_KIND__TOOL_CHOICE_REQUIRED);
    assert_int_equal(choose(call, "x<think>\n"), WEIR_OK);
    assert_int_equal(call->prefill.len, 0); /* it may think first */
    assert_true(takes(call, "hm</think>\n<tool_call>\n{\"name\": \"stop\", \"arguments\": {}}"));
    assert_false(takes(call, "hm</think>\n{\"name\": \"stop\", \"arguments\": {}}"));
    call_free(call);
    call = call_make();
    call_add_message(call, "user", "x");
    call_set_format(call, WEIR__V1__RESPONSE_FORMAT_KIND__RESPONSE_GRAMMAR, "root ::= \"yes\"");
    assert_int_equal(choose(call, "x<think>\n"), WEIR_OK);
    assert_true(takes(call, "well</think>yes"));
    assert_false(takes(call, "yes"));
    call_free(call);
    serve_end();
}

static struct weir_tokens tokens_of(struct call *call, const char *text)
{
    struct weir_tokens tokens;

    assert_int_equal(weir_tokenize(serve.opts.tokenizer, weir_str(text), /* parse_special= */ false,
                                   /* add_bos= */ false, 64, &call->arena, &tokens, NULL),
                     WEIR_OK);
    return tokens;
}

/* Where the mark is a special token, it is that token which is waited for, and it is no text of the answer. */
static void test_a_special_token_ends_the_reasoning(void **state)
{
    struct weir_grammar_state *grammar = NULL;
    struct weir_tokens hm, quote;
    uint32_t bits[2048 / 32];
    char dir[64];

    (void)state;
    assert_true(thinking_model_make(dir));
    serve_begin_in(dir, "{{ messages[0].content }}[THINK]{# [/THINK] #}");
    thinking_model_remove(dir);
    struct call *call = call_make();
    call_add_message(call, "user", "x");
    call_set_format(call, WEIR__V1__RESPONSE_FORMAT_KIND__RESPONSE_JSON_SCHEMA, "{\"type\":\"string\"}");
    assert_int_equal(choose(call, "x[THINK]"), WEIR_OK);
    assert_int_equal(call->format.think, WEIR_THINK_BRACKETS);
    hm = tokens_of(call, "hm");
    quote = tokens_of(call, "\"");
    assert_int_equal(quote.n, 1);
    assert_int_equal(weir_grammar_state_open(call->grammar, &grammar, NULL), WEIR_OK);
    for (size_t i = 0; i < hm.n; i++)
        assert_true(weir_grammar_state_accept(grammar, hm.ids[i]));
    weir_grammar_state_mask(grammar, bits, 2048);
    assert_true(bits[THINK_END_ID / 32] >> THINK_END_ID % 32 & 1);
    assert_false(bits[THINK_BEGIN_ID / 32] >> THINK_BEGIN_ID % 32 & 1);
    assert_true(weir_grammar_state_accept(grammar, THINK_END_ID));
    assert_true(weir_grammar_state_accept(grammar, quote.ids[0]));
    weir_grammar_state_mask(grammar, bits, 2048);
    assert_false(bits[THINK_END_ID / 32] >> THINK_END_ID % 32 & 1);
    assert_false(weir_grammar_state_accept(grammar, THINK_END_ID)); /* [V2] */
    weir_grammar_state_close(grammar);
    assert_true(takes(call, "hm[/THINK]\"x\"")); /* spelled out in pieces, it ends the reasoning too */
    call_free(call);
    serve_end();
}

static void test_tools_of_a_model_that_takes_none(void **state)
{
    (void)state;
    serve_begin("{{ messages[0].content }}");
    struct call *call = with_tools(WEIR__V1__TOOL_CHOICE_KIND__TOOL_CHOICE_AUTO);
    assert_int_equal(choose(call, "x"), WEIR_INVALID);
    assert_string_equal(call->why.param, "tools");
    call_free(call);
    call = with_tools(WEIR__V1__TOOL_CHOICE_KIND__TOOL_CHOICE_NONE);
    assert_int_equal(choose(call, "x"), WEIR_OK);
    assert_false(call->parses);
    call_free(call);
    call = call_make();
    call_add_message(call, "user", "x");
    call_msg(call)->has_reasoning_tokens_case = 41;
    call_msg(call)->reasoning_tokens = 5;
    assert_int_equal(choose(call, "x"), WEIR_INVALID);
    assert_string_equal(call->why.param, "reasoning_effort");
    call_free(call);
    serve_end();
}

static struct weir_grammar *grammar_of(int i)
{
    struct call *call = call_make();
    char text[64];

    snprintf(text, sizeof text, "root ::= \"%d\"", i);
    call_set_format(call, WEIR__V1__RESPONSE_FORMAT_KIND__RESPONSE_GRAMMAR, text);
    assert_int_equal(format_choose_plain(&serve, call), WEIR_OK);
    snprintf(text, sizeof text, "%d", i);
    assert_true(takes(call, text));
    struct weir_grammar *grammar = weir_grammar_ref(call->grammar);
    call_free(call);
    return grammar;
}

/* [F1] The same object for the same text while it is kept; what was asked for lately is kept. */
static void test_the_cache_keeps_the_last_used(void **state)
{
    struct weir_grammar *first, *again;

    (void)state;
    serve_begin(HERMES);
    first = grammar_of(0);
    for (int i = 1; i < 200; i++) {
        weir_grammar_unref(grammar_of(i));
        if (i % 32 == 0) {
            again = grammar_of(0);
            assert_ptr_equal(again, first);
            weir_grammar_unref(again);
        }
    }
    again = grammar_of(199);
    weir_grammar_unref(again);
    for (int i = 200; i < 300; i++)
        weir_grammar_unref(grammar_of(i));
    again = grammar_of(0);
    assert_ptr_not_equal(again, first); /* `first` still lives, so the place is not used again */
    weir_grammar_unref(again);
    weir_grammar_unref(first);
    serve_end();
}

static void test_bad_formats_are_the_clients_to_change(void **state)
{
    static const struct {
        Weir__V1__ResponseFormatKind kind;
        const char *text, *param;
    } cases[] = {
        { WEIR__V1__RESPONSE_FORMAT_KIND__RESPONSE_GRAMMAR, "root ::= (", "response_format.grammar" },
        { WEIR__V1__RESPONSE_FORMAT_KIND__RESPONSE_GRAMMAR, "root ::= root \"a\"",
          "response_format.grammar" },
        { WEIR__V1__RESPONSE_FORMAT_KIND__RESPONSE_JSON_SCHEMA,
          "{\"type\":\"object\",\"properties\":{\"x\":{\"not\":{}}}}",
          "response_format.json_schema.schema.properties.x" },
    };

    (void)state;
    serve_begin(HERMES);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct call *call = call_make();
        call_set_format(call, cases[i].kind, cases[i].text);
        assert_int_equal(format_choose_plain(&serve, call), WEIR_INVALID);
        assert_memory_equal(call->why.param, cases[i].param, strlen(cases[i].param));
        assert_null(call->grammar);
        call_free(call);
    }
    struct call *call = with_tools(WEIR__V1__TOOL_CHOICE_KIND__TOOL_CHOICE_REQUIRED);
    call_msg(call)->tools[1]->parameters = call_text(call, "{\"type\":\"strnig\"}");
    assert_int_equal(choose(call, "x"), WEIR_INVALID);
    assert_string_equal(call->why.param, "tools");
    call_free(call);
    serve_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forced_calls_in_every_style),
        cmocka_unit_test(test_forced_calls_in_tags),
        cmocka_unit_test(test_a_list_of_calls_has_its_length),
        cmocka_unit_test(test_deepseek_takes_a_name_first),
        cmocka_unit_test(test_reasoning_comes_before_what_is_bound),
        cmocka_unit_test(test_a_special_token_ends_the_reasoning),
        cmocka_unit_test(test_tools_of_a_model_that_takes_none),
        cmocka_unit_test(test_the_cache_keeps_the_last_used),
        cmocka_unit_test(test_bad_formats_are_the_clients_to_change),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
