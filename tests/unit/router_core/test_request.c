/* The bounds of a request: each field inside, at, and past its bound; the field at fault is named. */
#include "tests/unit/router_core/cm.h"

#include <math.h>
#include <stdio.h>

#include "tests/unit/router_core/requests.h"

static struct weir_request *good(void)
{
    struct weir_request *req = req_open("llama");

    req_add(req, "user", "hello");
    return req;
}

static void accept(struct weir_request *req)
{
    struct weir_why why = { .text = "" };

    if (weir_request_check(req, &why) != WEIR_OK)
        fail_msg("refused: %s", why.text);
    weir_request_close(req);
}

static void refuse(struct weir_request *req, const char *param)
{
    struct weir_why why = { .text = "" };

    assert_int_equal(weir_request_check(req, &why), WEIR_INVALID);
    assert_string_equal(why.param, param);
    assert_non_null(strstr(why.text, param));
    weir_request_close(req);
}

#define WITH(...)                                                                                            \
    do {                                                                                                     \
        struct weir_request *req = good();                                                                   \
        Weir__V1__GenerateRequest *msg = req->msg;                                                           \
        (void)msg;                                                                                           \
        __VA_ARGS__;                                                                                         \
    } while (0)

static char *long_text(struct weir_request *req, size_t n)
{
    char *text = weir_arena_alloc(&req->arena, n + 1);

    memset(text, 'x', n);
    text[n] = '\0';
    return text;
}

static void test_numbers(void **state)
{
    (void)state;
    accept(good());
    WITH(msg->has_max_tokens_case = 4; msg->max_tokens = 1; accept(req));
    WITH(msg->has_max_tokens_case = 4; msg->max_tokens = 0; refuse(req, "max_tokens"));
    WITH(msg->n = 128; accept(req));
    WITH(msg->n = 129; refuse(req, "n"));
    WITH(msg->has_temperature_case = 8; msg->temperature = 0; accept(req));
    WITH(msg->has_temperature_case = 8; msg->temperature = 2; accept(req));
    WITH(msg->has_temperature_case = 8; msg->temperature = 2.01; refuse(req, "temperature"));
    WITH(msg->has_temperature_case = 8; msg->temperature = -0.01; refuse(req, "temperature"));
    WITH(msg->has_temperature_case = 8; msg->temperature = NAN; refuse(req, "temperature"));
    WITH(msg->has_top_p_case = 9; msg->top_p = 1; accept(req));
    WITH(msg->has_top_p_case = 9; msg->top_p = 1.1; refuse(req, "top_p"));
    WITH(msg->has_top_k_case = 10; msg->top_k = 100; accept(req));
    WITH(msg->has_top_k_case = 10; msg->top_k = 101; refuse(req, "top_k"));
    WITH(msg->has_min_p_case = 11; msg->min_p = 1; accept(req));
    WITH(msg->has_min_p_case = 11; msg->min_p = INFINITY; refuse(req, "min_p"));
    WITH(msg->logprobs = true; msg->top_logprobs = 5; accept(req));
    WITH(msg->logprobs = true; msg->top_logprobs = 6; refuse(req, "top_logprobs"));
    WITH(msg->top_logprobs = 1; refuse(req, "top_logprobs"));
}

static void test_sampling(void **state)
{
    (void)state;
    WITH(msg->has_typical_p_case = 18; msg->typical_p = 1; accept(req));
    WITH(msg->has_typical_p_case = 18; msg->typical_p = 1.01; refuse(req, "typical_p"));
    WITH(msg->has_repetition_penalty_case = 19; msg->repetition_penalty = 2; accept(req));
    WITH(msg->has_repetition_penalty_case = 19; msg->repetition_penalty = 0;
         refuse(req, "repetition_penalty"));
    WITH(msg->has_frequency_penalty_case = 20; msg->frequency_penalty = -2; accept(req));
    WITH(msg->has_frequency_penalty_case = 20; msg->frequency_penalty = -2.1;
         refuse(req, "frequency_penalty"));
    WITH(msg->has_presence_penalty_case = 21; msg->presence_penalty = NAN; refuse(req, "presence_penalty"));
    WITH(msg->has_mirostat_target_case = 22; msg->mirostat_target = 5; accept(req));
    WITH(msg->has_mirostat_target_case = 22; msg->mirostat_target = 0; refuse(req, "mirostat_target"));
    WITH(msg->has_mirostat_lr_case = 23; msg->mirostat_lr = 1.5; refuse(req, "mirostat_lr"));
    WITH(msg->has_max_tokens_case = 4; msg->max_tokens = 3; msg->min_tokens = 4; refuse(req, "min_tokens"));
    WITH(msg->has_prompt_truncate_len_case = 30; refuse(req, "prompt_truncate_len"));
    WITH(msg->service_tier = 9; refuse(req, "service_tier"));
    WITH(msg->context_exceeded = 2; refuse(req, "context_length_exceeded_behavior"));
}

static void bias(struct weir_request *req, size_t n, uint32_t id, double value)
{
    req->msg->n_logit_bias = n;
    req->msg->logit_bias = weir_arena_alloc(&req->arena, n * sizeof(void *));
    for (size_t i = 0; i < n; i++) {
        req->msg->logit_bias[i] = weir_arena_alloc(&req->arena, sizeof **req->msg->logit_bias);
        weir__v1__logit_bias__init(req->msg->logit_bias[i]);
        req->msg->logit_bias[i]->id = id;
        req->msg->logit_bias[i]->bias = value;
    }
}

static void test_logit_bias(void **state)
{
    (void)state;
    WITH(bias(req, 1024, 7, -100); accept(req));
    WITH(bias(req, 1025, 7, 1); refuse(req, "logit_bias"));
    WITH(bias(req, 1, 7, 100.5); refuse(req, "logit_bias.7"));
    WITH(bias(req, 1, UINT32_MAX, 1); refuse(req, "logit_bias.4294967295"));
}

static void test_the_priority_tier_goes_first(void **state)
{
    struct weir_request *req = good();
    struct weir_why why;

    (void)state;
    req->msg->service_tier = WEIR__V1__SERVICE_TIER__TIER_FLEX;
    assert_int_equal(weir_request_check(req, &why), WEIR_OK);
    assert_int_equal(req->priority, 1);
    req->msg->service_tier = WEIR__V1__SERVICE_TIER__TIER_PRIORITY;
    assert_int_equal(weir_request_check(req, &why), WEIR_OK);
    assert_int_equal(req->priority, 0);
    weir_request_close(req);
}

static void tool(struct weir_request *req, const char *name, const char *parameters)
{
    Weir__V1__Tool *one = weir_arena_alloc(&req->arena, sizeof *one);

    weir__v1__tool__init(one);
    one->name = req_text(req, name);
    one->parameters = req_text(req, parameters);
    req->msg->tools = weir_arena_alloc(&req->arena, 200 * sizeof(void *));
    for (size_t i = 0; i < 200; i++)
        req->msg->tools[i] = one;
    req->msg->n_tools = 1;
}

static void test_tools(void **state)
{
    (void)state;
    WITH(tool(req, "get_weather-2.x", "{\"type\":\"object\"}"); accept(req));
    WITH(tool(req, "f", ""); accept(req));
    WITH(tool(req, "f", ""); msg->n_tools = 128; accept(req));
    WITH(tool(req, "f", ""); msg->n_tools = 129; refuse(req, "tools"));
    WITH(tool(req, "", ""); refuse(req, "tools[0].function.name"));
    WITH(tool(req, "a b", ""); refuse(req, "tools[0].function.name"));
    WITH(tool(req, "f", "[]"); refuse(req, "tools[0].function.parameters"));
    WITH(tool(req, "f", "{\"a\":}"); refuse(req, "tools[0].function.parameters"));
    WITH(tool(req, "f", "{} {}"); refuse(req, "tools[0].function.parameters"));
    WITH(tool(req, "f", ""); req_prompt(req, "x"); refuse(req, "tools"));
    WITH(msg->tool_choice = 2; refuse(req, "tool_choice"));
    WITH(tool(req, "f", ""); msg->tool_choice = 2; accept(req));
    WITH(tool(req, "f", ""); msg->tool_choice = 3; msg->tool_name = req_text(req, "f"); accept(req));
    WITH(tool(req, "f", ""); msg->tool_choice = 3; msg->tool_name = req_text(req, "g");
         refuse(req, "tool_choice"));
    WITH(tool(req, "f", ""); msg->tool_choice = 4; refuse(req, "tool_choice"));
}

static void test_calls_and_results_in_messages(void **state)
{
    (void)state;
    WITH(req_add(req, "tool", "21"); msg->chat->messages[1]->tool_call_id = req_text(req, "c1"); accept(req));
    WITH(msg->chat->messages[0]->tool_call_id = req_text(req, "c1"); refuse(req, "messages[0].tool_call_id"));
    WITH(msg->chat->messages[0]->reasoning_content = req_text(req, "hm");
         refuse(req, "messages[0].reasoning_content"));
    Weir__V1__ToolCall call = WEIR__V1__TOOL_CALL__INIT, *calls[1] = { &call };
    WITH(msg->chat->messages[0]->n_tool_calls = 1; msg->chat->messages[0]->tool_calls = calls;
         refuse(req, "messages[0].tool_calls"));
    WITH(req_add(req, "assistant", ""); msg->chat->messages[1]->n_tool_calls = 1;
         msg->chat->messages[1]->tool_calls = calls; refuse(req, "messages[1].tool_calls[0].function.name"));
}

static void format(struct weir_request *req, int kind, const char *text)
{
    Weir__V1__ResponseFormat *one = weir_arena_alloc(&req->arena, sizeof *one);

    weir__v1__response_format__init(one);
    one->kind = (Weir__V1__ResponseFormatKind)kind;
    one->text = req_text(req, text);
    req->msg->response_format = one;
}

static void test_formats(void **state)
{
    const char *schema = "response_format.json_schema.schema";

    (void)state;
    WITH(format(req, 0, ""); accept(req));
    WITH(format(req, 1, ""); accept(req));
    WITH(format(req, 1, "{\"type\":\"object\"}"); accept(req));
    WITH(format(req, 2, "{}"); accept(req));
    WITH(format(req, 2, ""); refuse(req, schema));
    WITH(format(req, 2, "[]"); refuse(req, schema));
    WITH(format(req, 3, ""); refuse(req, "response_format.grammar"));
    WITH(format(req, 3, "root ::= \"a\""); accept(req));
    WITH(format(req, 4, "x"); refuse(req, "response_format"));
    WITH(format(req, 2, "{}"); tool(req, "f", ""); msg->tool_choice = 2; refuse(req, "response_format"));
    WITH(msg->reasoning_effort = req_text(req, "huge"); refuse(req, "reasoning_effort"));
    WITH(msg->reasoning_history = req_text(req, "all"); refuse(req, "reasoning_history"));
    WITH(msg->has_reasoning_tokens_case = 41; refuse(req, "reasoning_effort"));
}

static void test_prompt_ids(void **state)
{
    uint32_t ids[2] = { 5, 2147483647u };
    Weir__V1__TokenIds prompt = WEIR__V1__TOKEN_IDS__INIT;

    (void)state;
    prompt.n_ids = 2;
    prompt.ids = ids;
    WITH(msg->input_case = 43; msg->prompt_ids = &prompt; accept(req));
    ids[1] = 2147483648u;
    WITH(msg->input_case = 43; msg->prompt_ids = &prompt; refuse(req, "prompt"));
    prompt.n_ids = 0;
    WITH(msg->input_case = 43; msg->prompt_ids = &prompt; refuse(req, "prompt"));
}

static void test_an_absent_number_is_not_checked(void **state)
{
    (void)state;
    WITH(msg->has_temperature_case = 0; msg->temperature = 9; accept(req));
    WITH(msg->has_max_tokens_case = 0; msg->max_tokens = 0; accept(req));
}

static void test_model_and_input(void **state)
{
    (void)state;
    WITH(msg->model = req_text(req, ""); refuse(req, "model"));
    WITH(msg->model = long_text(req, 256); accept(req));
    WITH(msg->model = long_text(req, 257); refuse(req, "model"));
    WITH(msg->model = req_text(req, "a\xff"); refuse(req, "model"));
    WITH(msg->input_case = WEIR__V1__GENERATE_REQUEST__INPUT__NOT_SET; refuse(req, "messages"));
    WITH(req_prompt(req, "once upon"); accept(req));
    WITH(req_prompt(req, "\xc3\x28"); refuse(req, "prompt"));
    WITH(msg->chat->n_messages = 0; refuse(req, "messages"));
}

static void test_messages(void **state)
{
    (void)state;
    WITH(req_add(req, "assistant", ""); accept(req));
    WITH(req_add(req, "wizard", "x"); refuse(req, "messages[1].role"));
    WITH(req_add(req, "", "x"); refuse(req, "messages[1].role"));
    WITH(req_add(req, "user", "\xed\xa0\x80"); refuse(req, "messages[1].content"));
    WITH(for (int i = 1; i < 4096; i++) req_add(req, "user", "x"); accept(req));
    WITH(for (int i = 1; i < 4097; i++) req_add(req, "user", "x"); refuse(req, "messages"));
}

static void test_a_developer_is_a_system_message(void **state)
{
    struct weir_request *req = good();
    struct weir_why why;

    (void)state;
    req_add(req, "developer", "x");
    assert_int_equal(weir_request_check(req, &why), WEIR_OK);
    assert_string_equal(req->msg->chat->messages[1]->role, "system");
    weir_request_close(req);
}

static void test_an_unknown_role_gets_the_list(void **state)
{
    struct weir_request *req = good();
    struct weir_why why;

    (void)state;
    req_add(req, "wizard", "x");
    assert_int_equal(weir_request_check(req, &why), WEIR_INVALID);
    assert_non_null(strstr(why.text, "system, developer, user, assistant, tool"));
    weir_request_close(req);
}

static void stops(struct weir_request *req, int n, size_t len)
{
    req->msg->n_stop = (size_t)n;
    req->msg->stop = weir_arena_alloc(&req->arena, (size_t)n * sizeof(char *));
    for (int i = 0; i < n; i++)
        req->msg->stop[i] = long_text(req, len);
}

static void test_stops(void **state)
{
    (void)state;
    WITH(stops(req, 4, 256); accept(req));
    WITH(stops(req, 5, 1); refuse(req, "stop"));
    WITH(stops(req, 2, 257); refuse(req, "stop[0]"));
    WITH(stops(req, 2, 3); msg->stop[1] = req_text(req, ""); refuse(req, "stop[1]"));
}

static void pairs(struct weir_request *req, int n, size_t key_len, size_t value_len)
{
    req->msg->n_metadata = (size_t)n;
    req->msg->metadata = weir_arena_alloc(&req->arena, (size_t)n * sizeof *req->msg->metadata);
    for (int i = 0; i < n; i++) {
        Weir__V1__GenerateRequest__MetadataEntry *entry = weir_arena_alloc(&req->arena, sizeof *entry);
        weir__v1__generate_request__metadata_entry__init(entry);
        entry->key = long_text(req, key_len);
        entry->value = long_text(req, value_len);
        req->msg->metadata[i] = entry;
    }
}

static void test_labels_and_metadata(void **state)
{
    char param[128];

    (void)state;
    WITH(msg->user = long_text(req, 512); accept(req));
    WITH(msg->user = long_text(req, 513); refuse(req, "user"));
    WITH(msg->prompt_cache_key = long_text(req, 513); refuse(req, "prompt_cache_key"));
    WITH(req->session = (struct weir_str){ long_text(req, 513), 513 }; refuse(req, "x-session-affinity"));
    WITH(req->isolation = (struct weir_str){ long_text(req, 513), 513 };
         refuse(req, "x-prompt-cache-isolation-key"));
    WITH(pairs(req, 16, 64, 512); accept(req));
    WITH(pairs(req, 17, 1, 1); refuse(req, "metadata"));
    WITH(pairs(req, 1, 65, 1); refuse(req, "metadata"));
    WITH(pairs(req, 1, 0, 1); refuse(req, "metadata"));
    snprintf(param, sizeof param, "metadata.%s", "xxx");
    WITH(pairs(req, 1, 3, 513); refuse(req, param));
}

static void test_the_request_id_is_cleaned_cut_or_minted(void **state)
{
    struct weir_request *req = good();
    char text[300];

    (void)state;
    weir_request_set_id(req, weir_str("a b\r\nSet-Cookie: x_1.2-Z"));
    assert_string_equal(req->request_id, "abSet-Cookie:x_1.2-Z");
    memset(text, 'k', sizeof text);
    weir_request_set_id(req, (struct weir_str){ text, sizeof text });
    assert_int_equal(strlen(req->request_id), WEIR_REQUEST_ID_MAX);
    memset(req->call_id, 0xab, sizeof req->call_id);
    weir_request_set_id(req, weir_str(" \t\"'"));
    assert_string_equal(req->request_id, "abababababababababababababababab");
    weir_request_close(req);
    weir_request_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_sampling),
        cmocka_unit_test(test_logit_bias),
        cmocka_unit_test(test_the_priority_tier_goes_first),
        cmocka_unit_test(test_tools),
        cmocka_unit_test(test_calls_and_results_in_messages),
        cmocka_unit_test(test_formats),
        cmocka_unit_test(test_prompt_ids),
        cmocka_unit_test(test_an_absent_number_is_not_checked),
        cmocka_unit_test(test_model_and_input),
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_a_developer_is_a_system_message),
        cmocka_unit_test(test_an_unknown_role_gets_the_list),
        cmocka_unit_test(test_stops),
        cmocka_unit_test(test_labels_and_metadata),
        cmocka_unit_test(test_the_request_id_is_cleaned_cut_or_minted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
