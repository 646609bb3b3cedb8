/* test_cap.c - a bound of reasoning: where it begins, what it counts, how it ends, and the grammar behind it. */
#include "tests/support/thinking_model.h"
#include "tests/unit/serve/calls.h"

static int begin(void **state)
{
    (void)state;
    serve_begin("{# </think> #}{{ messages[0].content }}");
    return 0;
}

static int end(void **state)
{
    (void)state;
    serve_end();
    return 0;
}

static uint32_t bits[2048 / 32];

static bool may(struct cap_state *cap, int32_t id)
{
    cap_mask(cap, bits, serve.info->n_vocab);
    return bits[id / 32] >> id % 32 & 1;
}

static struct call *reasoning(uint32_t n, bool in_reasoning)
{
    struct call *call = call_make();

    call_msg(call)->has_reasoning_tokens_case = 41;
    call_msg(call)->reasoning_tokens = n;
    call->format.thinks = true;
    call->format.in_reasoning = in_reasoning;
    assert_int_equal(cap_prepare(&serve, call), WEIR_OK);
    assert_true(call->cap_end.n > 0);
    return call;
}

static struct weir_tokens tokens_of(struct call *call, const char *text)
{
    struct weir_tokens tokens;

    assert_int_equal(
        weir_tokenize(serve.opts.tokenizer, weir_str(text), true, false, 256, &call->arena, &tokens, NULL),
        WEIR_OK);
    return tokens;
}

/* Feeds the text; returns how many of its tokens the mask allowed. */
static size_t feed(struct cap_state *cap, struct call *call, const char *text)
{
    struct weir_tokens tokens = tokens_of(call, text);
    size_t n = 0;

    while (n < tokens.n && may(cap, tokens.ids[n]) && cap_accept(cap, tokens.ids[n]))
        n++;
    return n;
}

/* [K1] */
static void test_the_marker_is_forced_when_the_tokens_are_used_up(void **state)
{
    struct call *call = reasoning(3, true);
    struct weir_tokens words = tokens_of(call, "one two three four five");
    struct cap_state *cap = NULL;

    (void)state;
    assert_int_equal(cap_open(&serve, call, NULL, &cap), WEIR_OK);
    assert_int_equal(feed(cap, call, "one two three four five"), 3);
    for (size_t i = 0; i < call->cap_end.n; i++) {
        int32_t id = call->cap_end.ids[i];
        assert_true(may(cap, id));
        for (int32_t other = 0; other < (int32_t)serve.info->n_vocab; other++)
            assert_true(other == id || !(bits[other / 32] >> other % 32 & 1));
        assert_true(cap_accept(cap, id));
    }
    assert_true(may(cap, words.ids[0])); /* it is over: anything goes */
    assert_true(feed(cap, call, "one two three four five <think> six") > 5);
    cap_close(cap);
    call_free(call);
}

static void test_it_may_end_by_itself(void **state)
{
    struct call *call = reasoning(50, true);
    struct cap_state *cap = NULL;
    struct weir_tokens words;

    (void)state;
    assert_int_equal(cap_open(&serve, call, NULL, &cap), WEIR_OK);
    feed(cap, call, "one</think>");
    words = tokens_of(
        call,
        "a b c d e f g h i j k l m n o p q r s t u v w x y z a b c d e f g h i j k l m n o p q r s t u v "
        "w x y z a b c d e f g h");
    assert_true(words.n > 50);
    for (size_t i = 0; i < words.n; i++)
        assert_true(may(cap, words.ids[i]) && cap_accept(cap, words.ids[i]));
    cap_close(cap);
    call_free(call);
}

/* [K1] A mark that is a special token is one token. */
static void test_a_special_token_is_forced(void **state)
{
    struct weir_grammar_state *grammar = NULL;
    struct cap_state *cap = NULL;
    char dir[64];

    end(state);
    assert_true(thinking_model_make(dir));
    serve_begin_in(dir, "{{ messages[0].content }}{# [/THINK] #}");
    thinking_model_remove(dir);
    struct call *call = call_make();
    call_msg(call)->has_reasoning_tokens_case = 41;
    call_msg(call)->reasoning_tokens = 2;
    call_add_message(call, "user", "x");
    call_set_format(call, WEIR__V1__RESPONSE_FORMAT_KIND__RESPONSE_GRAMMAR, "root ::= \"yes\"");
    assert_int_equal(format_choose(&serve, call, WEIR_STR("x[THINK]")), WEIR_OK);
    assert_int_equal(cap_prepare(&serve, call), WEIR_OK);
    assert_int_equal(call->cap_end.n, 1);
    assert_int_equal(weir_grammar_state_open(call->grammar, &grammar, NULL), WEIR_OK);
    assert_int_equal(cap_open(&serve, call, grammar, &cap), WEIR_OK);
    assert_int_equal(feed(cap, call, "one two three"), 2);
    assert_true(may(cap, THINK_END_ID) && cap_accept(cap, THINK_END_ID));
    assert_int_equal(feed(cap, call, "yes"), tokens_of(call, "yes").n);
    cap_close(cap);
    call_free(call);
    serve_end();
    begin(state);
}

/* [K3] */
static void test_what_is_no_reasoning_is_not_bounded(void **state)
{
    struct cap_state *cap = NULL;
    struct call *call = reasoning(2, false);

    (void)state;
    assert_int_equal(cap_open(&serve, call, NULL, &cap), WEIR_OK);
    struct weir_tokens plain = tokens_of(call, "one two three four five");
    assert_int_equal(feed(cap, call, "one two three four five"), plain.n);
    cap_close(cap);
    assert_int_equal(cap_open(&serve, call, NULL, &cap), WEIR_OK);
    size_t n_mark = tokens_of(call, " <think>").n;
    assert_int_equal(feed(cap, call, " <think>"), n_mark);
    assert_int_equal(feed(cap, call, "one two three four five"), 2);
    cap_close(cap);
    call_free(call);
}

/* [K2] */
static void test_the_grammar_waits_behind_it(void **state)
{
    struct call *call = reasoning(2, true);
    struct weir_grammar_state *grammar = NULL;
    struct cap_state *cap = NULL;

    (void)state;
    call_set_format(call, WEIR__V1__RESPONSE_FORMAT_KIND__RESPONSE_GRAMMAR, "root ::= \"\\n\\n\"? \"yes\"");
    call_add_message(call, "user", "x");
    assert_int_equal(format_choose(&serve, call, WEIR_STR("x<think>\n")), WEIR_OK);
    assert_int_equal(weir_grammar_state_open(call->grammar, &grammar, NULL), WEIR_OK);
    assert_int_equal(cap_open(&serve, call, grammar, &cap), WEIR_OK);
    assert_int_equal(feed(cap, call, "one two three"), 2);
    for (size_t i = 0; i < call->cap_end.n; i++)
        assert_true(may(cap, call->cap_end.ids[i]) && cap_accept(cap, call->cap_end.ids[i]));
    assert_int_equal(feed(cap, call, "no"), 0);
    assert_int_equal(feed(cap, call, "yes"), tokens_of(call, "yes").n);
    assert_true(may(cap, 2044)); /* whole: it may end */
    cap_close(cap);
    call_free(call);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_marker_is_forced_when_the_tokens_are_used_up),
        cmocka_unit_test(test_it_may_end_by_itself),
        cmocka_unit_test(test_what_is_no_reasoning_is_not_bounded),
        cmocka_unit_test(test_the_grammar_waits_behind_it),
        cmocka_unit_test(test_a_special_token_is_forced),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
