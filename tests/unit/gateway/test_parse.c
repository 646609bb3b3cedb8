/* test_parse.c - OpenAI bodies into requests: what is meant arrives, what is wrong is named. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "router/gateway/parse.h"

#define MESSAGES "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"

static struct weir_request *req;
static struct weir_answer_opts opts;
static struct weir_why why;

static weir_err parse(bool chat, const char *body)
{
    weir_request_close(req);
    req = weir_request_open();
    assert_non_null(req);
    memset(&why, 0, sizeof why);
    return weir_parse_openai(req, chat, weir_str(body), &opts, &why);
}

static int teardown(void **state)
{
    (void)state;
    weir_request_close(req);
    req = NULL;
    return 0;
}

static void test_every_field_arrives(void **state)
{
    const Weir__V1__GenerateRequest *msg;

    (void)state;
    assert_int_equal(
        parse(true,
              "{\"model\":\"m\",\"messages\":[{\"role\":\"system\",\"content\":\"s\"},"
              "{\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"text\":\"b\",\"type\":\"text\"}],\"role\":"
              "\"user\"}],"
              "\"stream\":true,\"stream_options\":{\"include_usage\":true},\"n\":3,\"stop\":[\"x\",\"yz\"],"
              "\"seed\":-1,\"temperature\":0,\"top_p\":0.5,\"top_k\":7,\"min_p\":0.25,\"max_completion_"
              "tokens\":9,"
              "\"logprobs\":true,\"top_logprobs\":4,\"user\":\"u\",\"prompt_cache_key\":\"k\","
              "\"prompt_cache_isolation_key\":\"i\",\"perf_metrics_in_response\":true,\"metadata\":{\"a\":"
              "\"b\"}}"),
        WEIR_OK);
    msg = req->msg;
    assert_string_equal(msg->model, "m");
    assert_int_equal(msg->chat->n_messages, 2);
    assert_string_equal(msg->chat->messages[0]->role, "system");
    assert_string_equal(msg->chat->messages[1]->content, "ab");
    assert_true(opts.chat && opts.stream && opts.include_usage && !opts.legacy_logprobs);
    assert_int_equal(msg->n, 3);
    assert_int_equal(msg->n_stop, 2);
    assert_string_equal(msg->stop[1], "yz");
    assert_true(msg->has_seed_case && msg->seed == UINT64_MAX);
    assert_true(msg->has_temperature_case && msg->temperature == 0.0); /* 0 is not absent */
    assert_true(msg->top_p == 0.5 && msg->min_p == 0.25);
    assert_int_equal(msg->top_k, 7);
    assert_int_equal(msg->max_tokens, 9);
    assert_true(msg->logprobs && msg->top_logprobs == 4);
    assert_string_equal(msg->user, "u");
    assert_string_equal(msg->prompt_cache_key, "k");
    assert_true(weir_str_eq(req->isolation, "i"));
    assert_true(msg->perf_metrics);
    assert_string_equal(msg->metadata[0]->key, "a");
    assert_string_equal(msg->metadata[0]->value, "b");
}

static void test_absent_and_null_are_the_same(void **state)
{
    (void)state;
    assert_int_equal(
        parse(true, "{\"model\":\"m\"," MESSAGES ",\"seed\":null,\"temperature\":null,\"n\":null,"
                    "\"stop\":null,\"max_tokens\":null,\"stream\":null,\"metadata\":null,\"user\":null}"),
        WEIR_OK);
    assert_false(req->msg->has_seed_case || req->msg->has_temperature_case || req->msg->has_max_tokens_case);
    assert_int_equal(req->msg->n_stop, 0);
    assert_false(opts.stream);
}

static void test_completion_shapes(void **state)
{
    (void)state;
    assert_int_equal(parse(false, "{\"model\":\"m\",\"prompt\":\"p\",\"logprobs\":2,\"stop\":\"s\"}"),
                     WEIR_OK);
    assert_string_equal(req->msg->prompt, "p");
    assert_true(opts.legacy_logprobs && req->msg->logprobs && req->msg->top_logprobs == 2);
    assert_string_equal(req->msg->stop[0], "s");
    assert_int_equal(parse(false, "{\"model\":\"m\",\"prompt\":[\"p\"]}"), WEIR_OK);
    assert_string_equal(req->msg->prompt, "p");
}

static void test_prompts_of_tokens_and_several(void **state) /* [P2] */
{
    (void)state;
    assert_int_equal(parse(false, "{\"model\":\"m\",\"prompt\":[7,0,2147483647]}"), WEIR_OK);
    assert_int_equal(req->msg->input_case, WEIR__V1__GENERATE_REQUEST__INPUT_PROMPT_IDS);
    assert_int_equal(req->msg->prompt_ids->n_ids, 3);
    assert_int_equal(req->msg->prompt_ids->ids[2], 2147483647);
    assert_true(opts.n_prompts <= 1);
    assert_int_equal(parse(false, "{\"model\":\"m\",\"prompt\":[\"a\",[1,2],\"b\"],\"n\":2}"), WEIR_OK);
    assert_int_equal(opts.n_prompts, 3);
    assert_string_equal(req->msg->prompt, "a");
    assert_int_equal(opts.prompts[1].ids->n_ids, 2);
    assert_string_equal(opts.prompts[2].text, "b");
}

static void test_sampling_fields_arrive(void **state)
{
    const Weir__V1__GenerateRequest *msg;

    (void)state;
    assert_int_equal(
        parse(false, "{\"model\":\"m\",\"prompt\":\"p\",\"typical_p\":0.5,\"repetition_penalty\":1.5,"
                     "\"frequency_penalty\":-1,"
                     "\"presence_penalty\":2,\"mirostat_target\":5,\"mirostat_lr\":0.1,\"logit_bias\":{\"3\":"
                     "-100,\"12\":1.5},"
                     "\"min_tokens\":4,\"ignore_eos\":true,\"echo\":true,\"echo_last\":3,"
                     "\"context_length_exceeded_behavior\":\"error\",\"prompt_truncate_len\":64,\"prompt_"
                     "cache_max_len\":0,"
                     "\"raw_output\":true,\"return_token_ids\":true,\"service_tier\":\"priority\","
                     "\"speculation\":[1,2],"
                     "\"prediction\":{\"type\":\"content\",\"content\":\"x\"},\"images\":[],\"logprobs\":5}"),
        WEIR_OK);
    msg = req->msg;
    assert_true(msg->has_typical_p_case && msg->typical_p == 0.5);
    assert_true(msg->has_repetition_penalty_case && msg->repetition_penalty == 1.5);
    assert_true(msg->has_frequency_penalty_case && msg->frequency_penalty == -1.0);
    assert_true(msg->has_presence_penalty_case && msg->presence_penalty == 2.0);
    assert_true(msg->has_mirostat_target_case && msg->mirostat_target == 5.0);
    assert_true(msg->has_mirostat_lr_case && msg->mirostat_lr == 0.1);
    assert_int_equal(msg->n_logit_bias, 2);
    assert_true(msg->logit_bias[1]->id == 12 && msg->logit_bias[1]->bias == 1.5);
    assert_true(msg->min_tokens == 4 && msg->ignore_eos && msg->echo);
    assert_true(msg->has_echo_last_case && msg->echo_last == 3);
    assert_int_equal(msg->context_exceeded, WEIR__V1__CONTEXT_EXCEEDED__CONTEXT_ERROR);
    assert_int_equal(msg->prompt_truncate_len, 64);
    assert_true(msg->has_prompt_cache_max_len_case && msg->prompt_cache_max_len == 0);
    assert_true(msg->raw_output && msg->return_token_ids);
    assert_int_equal(req->priority, 0);
    assert_true(msg->logprobs && msg->top_logprobs == 5 && opts.legacy_logprobs);
}

static void test_tools_and_calls_arrive(void **state)
{
    const Weir__V1__GenerateRequest *msg;

    (void)state;
    assert_int_equal(
        parse(
            true,
            "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\",\"name\":\"ann\"},"
            "{\"role\":\"assistant\",\"content\":null,\"reasoning_content\":\"hm\",\"refusal\":null,\"tool_"
            "calls\":[{\"id\":"
            "\"c1\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"a\\\": 1}\"}}]},"
            "{\"role\":\"tool\",\"tool_call_id\":\"c1\",\"content\":\"21\"}],\"safe_tokenization\":true,"
            "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"description\":\"d\","
            "\"parameters\":"
            "{\"type\": "
            "\"object\"},\"strict\":true}}],\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":"
            "\"f\"}},"
            "\"parallel_tool_calls\":false,\"reasoning_effort\":\"low\",\"reasoning_history\":"
            "\"preserved\"}"),
        WEIR_OK);
    msg = req->msg;
    assert_string_equal(msg->chat->messages[0]->name, "ann");
    assert_string_equal(msg->chat->messages[1]->reasoning_content, "hm");
    assert_string_equal(msg->chat->messages[1]->tool_calls[0]->id, "c1");
    assert_string_equal(msg->chat->messages[1]->tool_calls[0]->name, "f");
    assert_string_equal(msg->chat->messages[1]->tool_calls[0]->arguments, "{\"a\": 1}");
    assert_string_equal(msg->chat->messages[2]->tool_call_id, "c1");
    assert_string_equal(msg->tools[0]->name, "f");
    assert_string_equal(msg->tools[0]->description, "d");
    assert_string_equal(msg->tools[0]->parameters, "{\"type\": \"object\"}");
    assert_int_equal(msg->tool_choice, WEIR__V1__TOOL_CHOICE_KIND__TOOL_CHOICE_NAMED);
    assert_string_equal(msg->tool_name, "f");
    assert_true(msg->has_parallel_tool_calls_case && !msg->parallel_tool_calls);
    assert_true(msg->safe_tokenization);
    assert_string_equal(msg->reasoning_effort, "low");
    assert_string_equal(msg->reasoning_history, "preserved");
}

static void test_the_older_shape_of_tools(void **state)
{
    (void)state;
    assert_int_equal(
        parse(true,
              "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"},{\"role\":\"assistant\","
              "\"content\":null,\"function_call\":{\"name\":\"f\",\"arguments\":\"{}\"}},"
              "{\"role\":\"function\",\"name\":\"f\",\"content\":\"1\"}],"
              "\"functions\":[{\"name\":\"f\"}],\"function_call\":{\"name\":\"f\"}}"),
        WEIR_OK);
    assert_true(opts.legacy_functions);
    assert_string_equal(req->msg->tools[0]->name, "f");
    assert_string_equal(req->msg->chat->messages[1]->tool_calls[0]->name, "f");
    assert_string_equal(req->msg->chat->messages[2]->role, "tool");
    assert_int_equal(req->msg->tool_choice, WEIR__V1__TOOL_CHOICE_KIND__TOOL_CHOICE_NAMED);
}

static void test_formats_and_reasoning_arrive(void **state)
{
    (void)state;
    assert_int_equal(parse(true,
                           "{\"model\":\"m\"," MESSAGES ",\"response_format\":{\"type\":\"json_schema\","
                           "\"json_schema\":{\"name\":\"n\",\"strict\":true,\"schema\":{\"a\": [1]}}}}"),
                     WEIR_OK);
    assert_int_equal(req->msg->response_format->kind, WEIR__V1__RESPONSE_FORMAT_KIND__RESPONSE_JSON_SCHEMA);
    assert_string_equal(req->msg->response_format->text, "{\"a\": [1]}");
    assert_int_equal(parse(true,
                           "{\"model\":\"m\"," MESSAGES ",\"response_format\":{\"type\":\"json_object\"},"
                           "\"reasoning_effort\":300}"),
                     WEIR_OK);
    assert_int_equal(req->msg->response_format->kind, WEIR__V1__RESPONSE_FORMAT_KIND__RESPONSE_JSON_OBJECT);
    assert_string_equal(req->msg->response_format->text, "");
    assert_true(req->msg->has_reasoning_tokens_case && req->msg->reasoning_tokens == 300);
    assert_int_equal(parse(true, "{\"model\":\"m\"," MESSAGES
                                 ",\"response_format\":{\"type\":\"grammar\",\"grammar\":"
                                 "\"root ::= [a]\"},\"thinking\":{\"type\":\"disabled\"}}"),
                     WEIR_OK);
    assert_string_equal(req->msg->response_format->text, "root ::= [a]");
    assert_string_equal(req->msg->reasoning_effort, "none");
    assert_int_equal(parse(true, "{\"model\":\"m\"," MESSAGES ",\"reasoning_effort\":true,"
                                 "\"chat_template_kwargs\":{\"enable_thinking\":false,\"x\":[1]}}"),
                     WEIR_OK);
    assert_string_equal(req->msg->reasoning_effort, "medium");
    assert_int_equal(
        parse(true, "{\"model\":\"m\"," MESSAGES ",\"chat_template_kwargs\":{\"thinking\":false}}"), WEIR_OK);
    assert_string_equal(req->msg->reasoning_effort, "none");
}

static void test_long_lists_grow(void **state)
{
    enum { N = 1000 };
    static char body[N * 64];
    size_t len = (size_t)snprintf(body, sizeof body, "{\"model\":\"m\",\"messages\":[");

    (void)state;
    for (int i = 0; i < N; i++)
        len += (size_t)snprintf(body + len, sizeof body - len, "%s{\"role\":\"user\",\"content\":\"%d\"}",
                                i ? "," : "", i);
    snprintf(body + len, sizeof body - len, "]}");
    assert_int_equal(parse(true, body), WEIR_OK);
    assert_int_equal(req->msg->chat->n_messages, N);
    for (int i = 0; i < N; i++) {
        char text[16];
        snprintf(text, sizeof text, "%d", i);
        assert_string_equal(req->msg->chat->messages[i]->content, text);
    }
}

static void test_faults_are_named(void **state)
{
    static const struct {
        bool chat;
        const char *body, *param;
    } cases[] = {
        { true, "{\"model\":\"m\"," MESSAGES ",\"tmeperature\":1}", "tmeperature" },
        { true, "{\"model\":\"m\"," MESSAGES ",\"prompt\":\"p\"}", "prompt" }, /* of the other path */
        { false, "{\"model\":\"m\",\"prompt\":\"p\"," MESSAGES "}", "messages" },
        { true, "{\"model\":\"m\",\"n\":1,\"n\":1," MESSAGES "}", "n" }, /* [P1] */
        { true, "{\"model\":\"m\",\"metadata\":{\"a\\u0000\":\"b\"}}", "metadata.a\\u0000" },
        { true, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"a\\u0000\"}]}",
          "messages[0].content" }, /* [V1] */
        { true, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"role\":\"user\",\"content\":\"\"}]}",
          "messages[0].role" },
        { true, "{\"model\":\"m\"," MESSAGES ",\"max_tokens\":1,\"max_completion_tokens\":1}",
          "max_completion_tokens" },
        { true, "{\"model\":\"m\"," MESSAGES ",\"n\":0}", "n" },
        { true, "{\"model\":\"m\"," MESSAGES ",\"n\":99999999999}", "n" },
        { true, "{\"model\":\"m\"," MESSAGES ",\"stop\":[\"a\",\"b\",\"c\",\"d\",\"e\"]}", "stop" },
        { true, "{\"model\":\"m\"," MESSAGES ",\"stream_options\":{\"include_usage\":true}}",
          "stream_options" },
        { true, "{\"model\":\"m\"}", "messages" },
        { false, "{\"model\":\"m\"}", "prompt" },
        { false, "{\"model\":\"m\",\"prompt\":[]}", "prompt" },
        { false, "{\"model\":\"m\",\"prompt\":[\"a\",7]}", "prompt[1]" },
        { false, "{\"model\":\"m\",\"prompt\":[1,-2]}", "prompt[1]" },
        { false, "{\"model\":\"m\",\"prompt\":[1,\"a\"]}", "prompt[1]" },
        { false, "{\"model\":\"m\",\"prompt\":[[1],[]]}", "prompt[1]" },
        { false, "{\"model\":\"m\",\"prompt\":[[1],[2]],\"n\":65}", "n" },
        { false, "{\"model\":\"m\",\"prompt\":\"p\",\"tools\":[]}", "tools" },
        { false, "{\"model\":\"m\",\"prompt\":\"p\",\"images\":[\"x\"]}", "images[0]" },
        { true, "{\"model\":\"m\"," MESSAGES ",\"logprobs\":6}", "logprobs" },
        { true, "{\"model\":\"m\"," MESSAGES ",\"logit_bias\":{\"x\":1}}", "logit_bias.x" },
        { true, "{\"model\":\"m\"," MESSAGES ",\"logit_bias\":{\"5\":101}}", "logit_bias.5" },
        { true, "{\"model\":\"m\"," MESSAGES ",\"repetition_penalty\":2.5}", "repetition_penalty" },
        { true, "{\"model\":\"m\"," MESSAGES ",\"service_tier\":\"gold\"}", "service_tier" },
        { true, "{\"model\":\"m\"," MESSAGES ",\"context_length_exceeded_behavior\":\"x\"}",
          "context_length_exceeded_behavior" },
        { true, "{\"model\":\"m\"," MESSAGES ",\"tools\":[{\"type\":\"web\"}]}", "tools[0].type" },
        { true, "{\"model\":\"m\"," MESSAGES ",\"tools\":[{\"function\":{\"name\":\"f\"}}]}",
          "tools[0].type" },
        { true, "{\"model\":\"m\"," MESSAGES ",\"tools\":[{\"type\":\"function\"}]}", "tools[0].function" },
        { true, "{\"model\":\"m\"," MESSAGES ",\"tools\":[{\"type\":\"function\",\"function\":{}}]}",
          "tools[0].function.name" },
        { true, "{\"model\":\"m\"," MESSAGES ",\"tool_choice\":\"always\"}", "tool_choice" },
        { true, "{\"model\":\"m\"," MESSAGES ",\"tool_choice\":{\"type\":\"function\"}}",
          "tool_choice.name" },
        { true, "{\"model\":\"m\"," MESSAGES ",\"tool_choice\":{\"name\":\"f\"}}",
          "tool_choice" }, /* no tools */
        { true, "{\"model\":\"m\"," MESSAGES ",\"tools\":[],\"functions\":[]}", "functions" },
        { true, "{\"model\":\"m\"," MESSAGES ",\"response_format\":{\"type\":\"xml\"}}",
          "response_format.type" },
        { true, "{\"model\":\"m\"," MESSAGES ",\"response_format\":{\"type\":\"json_schema\"}}",
          "response_format.json_schema" },
        { true,
          "{\"model\":\"m\"," MESSAGES ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{}}}",
          "response_format.json_schema.schema" },
        { true, "{\"model\":\"m\"," MESSAGES ",\"response_format\":{\"type\":\"grammar\"}}",
          "response_format.grammar" },
        { true, "{\"model\":\"m\"," MESSAGES ",\"reasoning_effort\":\"huge\"}", "reasoning_effort" },
        { true, "{\"model\":\"m\"," MESSAGES ",\"reasoning_effort\":1,\"thinking\":{\"type\":\"enabled\"}}",
          "thinking" },
        { true, "{\"model\":\"m\"," MESSAGES ",\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":5}}",
          "thinking.budget_tokens" },
        { true, "{\"model\":\"m\",\"messages\":[{\"role\":\"assistant\",\"content\":null}]}",
          "messages[0].content" },
        { true,
          "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"\",\"tool_call_id\":\"c\"}]}",
          "messages[0].tool_call_id" },
        { true, "{" MESSAGES "}", "model" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (parse(cases[i].chat, cases[i].body) != WEIR_INVALID || strcmp(why.param, cases[i].param) != 0)
            fail_msg("%s: param \"%s\", \"%s\"", cases[i].body, why.param, why.text);
        assert_true(why.text[0]);
    }
}

static void test_no_memory_is_an_error(void **state)
{
    const char *body =
        "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\","
        "\"text\":\"\\n\"}]}],"
        "\"stop\":[\"a\"],\"metadata\":{\"a\":\"b\"},\"logit_bias\":{\"1\":1},\"tools\":[{\"type\":"
        "\"function\",\"function\":{\"name\":\"f\",\"parameters\":{}}}],"
        "\"response_format\":{\"type\":\"json_object\"}}";
    weir_err err = WEIR_NOMEM;

    (void)state;
    for (long n = 0; err != WEIR_OK; n++) {
        weir_request_close(req);
        req = weir_request_open();
        assert_non_null(req);
        weir_test_alloc_budget(n);
        err = weir_parse_openai(req, true, weir_str(body), &opts, &why);
        weir_test_alloc_budget(-1);
        assert_true(err == WEIR_OK || err == WEIR_NOMEM);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_every_field_arrives, teardown),
        cmocka_unit_test_teardown(test_absent_and_null_are_the_same, teardown),
        cmocka_unit_test_teardown(test_completion_shapes, teardown),
        cmocka_unit_test_teardown(test_prompts_of_tokens_and_several, teardown),
        cmocka_unit_test_teardown(test_sampling_fields_arrive, teardown),
        cmocka_unit_test_teardown(test_tools_and_calls_arrive, teardown),
        cmocka_unit_test_teardown(test_the_older_shape_of_tools, teardown),
        cmocka_unit_test_teardown(test_formats_and_reasoning_arrive, teardown),
        cmocka_unit_test_teardown(test_long_lists_grow, teardown),
        cmocka_unit_test_teardown(test_faults_are_named, teardown),
        cmocka_unit_test_teardown(test_no_memory_is_an_error, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
