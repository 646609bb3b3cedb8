/* test_prompt.c - from a request's input to tokens: what the template sees, what is cut, what does not fit. */
#include "tests/unit/serve/calls.h"

#define PLAIN                                                                                                \
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% if m.reasoning_content %}({{ "                   \
    "m.reasoning_content "                                                                                   \
    "}}){% endif %}{% for c in m.tool_calls or [] %}<{{ c.function.name }} {{ c.function.arguments | "       \
    "tojson }}>"                                                                                             \
    "{% endfor %}{% endfor %}{% for t in tools or [] %}{{ t | tojson }}{% endfor %}{% if enable_thinking "   \
    "is "                                                                                                    \
    "defined %}think={{ enable_thinking }}{% endif %}"

static int begin(void **state)
{
    (void)state;
    serve_begin(PLAIN "{# calls are written <tool_call> #}");
    return 0;
}

static int end(void **state)
{
    (void)state;
    serve_end();
    return 0;
}

static void make(struct call *call)
{
    if (prompt_make(&serve, call) != WEIR_OK)
        fail_msg("%s", call->why.text);
}

static Weir__V1__Message *add_call(struct call *call, const char *arguments)
{
    Weir__V1__ToolCall *made = weir_arena_alloc(&call->arena, sizeof *made);

    call_add_message(call, "assistant", "");
    Weir__V1__Message *message = call->msg->chat->messages[call->msg->chat->n_messages - 1];
    weir__v1__tool_call__init(made);
    made->name = call_text(call, "f");
    made->arguments = call_text(call, arguments);
    message->tool_calls = weir_arena_alloc(&call->arena, sizeof(void *));
    message->tool_calls[0] = made;
    message->n_tool_calls = 1;
    return message;
}

/* [P1] */
static void test_calls_and_tools_reach_the_template(void **state)
{
    struct call *call = call_make();

    (void)state;
    call_add_message(call, "user", "hi");
    add_call(call, "{\"b\": 1, \"a\": [2]}");
    add_call(call, "not json");
    call_add_message(call, "tool", "21");
    call_add_tool(call, "f", "{\"type\": \"object\"}");
    make(call);
    assert_string_equal(
        call_prompt_text(call),
        "[user]hi[assistant]None<f {\"b\": 1, \"a\": [2]}>[assistant]None<f \"not json\">[tool]21{\"type\": "
        "\"function\", "
        "\"function\": {\"name\": \"f\", \"description\": \"\", \"parameters\": {\"type\": \"object\"}}}");
    call_free(call);
}

static void test_no_tools_when_none_are_to_be_called(void **state)
{
    struct call *call = call_make();

    (void)state;
    call_add_message(call, "user", "hi");
    call_add_tool(call, "f", "");
    call_msg(call)->tool_choice = WEIR__V1__TOOL_CHOICE_KIND__TOOL_CHOICE_NONE;
    make(call);
    assert_string_equal(call_prompt_text(call), "[user]hi");
    call_free(call);
}

static void test_reasoning_history(void **state)
{
    static const struct {
        const char *history, *prompt;
    } cases[] = {
        { "", "[user]a[assistant]b(old)[user]c[assistant]d(new)[tool]e" },
        { "preserved", "[user]a[assistant]b(old)[user]c[assistant]d(new)[tool]e" },
        { "interleaved", "[user]a[assistant]b[user]c[assistant]d(new)[tool]e" },
        { "disabled", "[user]a[assistant]b[user]c[assistant]d[tool]e" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct call *call = call_make();
        call_add_message(call, "user", "a");
        call_add_message(call, "assistant", "b");
        call_add_message(call, "user", "c");
        call_add_message(call, "assistant", "d");
        call_add_message(call, "tool", "e");
        call->msg->chat->messages[1]->reasoning_content = call_text(call, "old");
        call->msg->chat->messages[3]->reasoning_content = call_text(call, "new");
        call_msg(call)->reasoning_history = call_text(call, cases[i].history);
        make(call);
        assert_string_equal(call_prompt_text(call), cases[i].prompt);
        call_free(call);
    }
}

static void test_the_switch_for_reasoning(void **state)
{
    static const struct {
        const char *effort, *prompt;
    } cases[] = { { "", "[user]a" }, { "none", "[user]athink=False" }, { "high", "[user]athink=True" } };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct call *call = call_make();
        call_add_message(call, "user", "a");
        call_msg(call)->reasoning_effort = call_text(call, cases[i].effort);
        make(call);
        assert_string_equal(call_prompt_text(call), cases[i].prompt);
        call_free(call);
    }
}

/* [P2] */
static void test_the_oldest_turns_go_first(void **state)
{
    size_t last = SIZE_MAX;

    (void)state;
    for (uint32_t n_max = 200; n_max > 0; n_max -= n_max > 10 ? 7 : 1) {
        struct call *call = call_make();
        call_add_message(call, "system", "S");
        for (int i = 0; i < 6; i++) {
            call_add_message(call, "user", "one two three four");
            call_add_message(call, "assistant", "five six");
        }
        call_add_message(call, "user", "LAST");
        call_msg(call)->has_prompt_truncate_len_case = 30;
        call_msg(call)->prompt_truncate_len = n_max;
        make(call);
        const char *text = call_prompt_text(call);
        assert_true(strncmp(text, "[system]S[user]", 15) == 0 && strstr(text, "[user]LAST"));
        assert_true(call->prompt.n <= n_max || strcmp(text, "[system]S[user]LAST") == 0);
        assert_true(call->prompt.n <= last); /* less room, fewer turns */
        last = call->prompt.n;
        call_free(call);
    }
    assert_true(last < 20);
}

static void test_a_plain_prompt_keeps_its_end(void **state)
{
    struct call *call = call_make();

    (void)state;
    call_msg(call)->input_case = WEIR__V1__GENERATE_REQUEST__INPUT_PROMPT;
    call_msg(call)->prompt = call_text(call, "one two three four five six seven eight nine ten");
    call_msg(call)->has_prompt_truncate_len_case = 30;
    call_msg(call)->prompt_truncate_len = 4;
    make(call);
    assert_int_equal(call->prompt.n, 4);
    assert_non_null(strstr(call_prompt_text(call), "ten"));
    assert_null(strstr(call_prompt_text(call), "one"));
    assert_true(call->is_cut);
    call_free(call);
}

/* [P3] */
static void test_words_of_users_are_no_special_tokens(void **state)
{
    size_t n[2];

    (void)state;
    for (int safe = 0; safe < 2; safe++) {
        struct call *call = call_make();
        call_add_message(call, "user", "<|eot_id|>");
        call_msg(call)->safe_tokenization = safe;
        make(call);
        assert_string_equal(call_prompt_text(call), "[user]<|eot_id|>");
        n[safe] = 0;
        for (size_t i = 0; i < call->prompt.n; i++)
            n[safe] += weir_token_is_special(serve.opts.tokenizer, call->prompt.ids[i]);
        call_free(call);
    }
    assert_true(n[0] == 1 && n[1] == 0);
}

static void ids(struct call *call, size_t n, uint32_t id)
{
    Weir__V1__TokenIds *prompt = weir_arena_alloc(&call->arena, sizeof *prompt);

    weir__v1__token_ids__init(prompt);
    prompt->n_ids = n;
    prompt->ids = weir_arena_alloc(&call->arena, n * sizeof *prompt->ids);
    for (size_t i = 0; i < n; i++)
        prompt->ids[i] = id;
    call_msg(call)->input_case = WEIR__V1__GENERATE_REQUEST__INPUT_PROMPT_IDS;
    call_msg(call)->prompt_ids = prompt;
}

static void test_what_does_not_fit_is_refused(void **state)
{
    static const struct {
        size_t n;
        uint32_t id, max_tokens, error_mode;
        weir_err err;
        const char *param;
    } cases[] = {
        { 1023, 7, 5, 0, WEIR_OK, "" },
        { 1024, 7, 5, 0, WEIR_CONTEXT, "prompt" },
        { 5000, 7, 5, 0, WEIR_CONTEXT, "prompt" },
        { 1000, 7, 25, 0, WEIR_OK, "" }, /* truncate: the answer is shorter */
        { 1000, 7, 24, 1, WEIR_OK, "" },
        { 1000, 7, 25, 1, WEIR_CONTEXT, "max_tokens" },
        { 3, 2047, 5, 0, WEIR_OK, "" },
        { 3, 2048, 5, 0, WEIR_INVALID, "prompt" }, /* not in the vocabulary */
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct call *call = call_make();
        ids(call, cases[i].n, cases[i].id);
        call_msg(call)->has_max_tokens_case = 4;
        call_msg(call)->max_tokens = cases[i].max_tokens;
        call_msg(call)->context_exceeded = cases[i].error_mode;
        assert_int_equal(prompt_make(&serve, call), cases[i].err);
        assert_string_equal(call->why.param, cases[i].param);
        call_free(call);
    }
}

static void test_the_length_is_told(void **state)
{
    struct call *call = call_make();

    (void)state;
    ids(call, 1500, 7);
    assert_int_equal(prompt_make(&serve, call), WEIR_CONTEXT);
    assert_non_null(strstr(call->why.text, "1500"));
    assert_non_null(strstr(call->why.text, "1024"));
    call_free(call);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_calls_and_tools_reach_the_template),
        cmocka_unit_test(test_no_tools_when_none_are_to_be_called),
        cmocka_unit_test(test_reasoning_history),
        cmocka_unit_test(test_the_switch_for_reasoning),
        cmocka_unit_test(test_the_oldest_turns_go_first),
        cmocka_unit_test(test_a_plain_prompt_keeps_its_end),
        cmocka_unit_test(test_words_of_users_are_no_special_tokens),
        cmocka_unit_test(test_what_does_not_fit_is_refused),
        cmocka_unit_test(test_the_length_is_told),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
