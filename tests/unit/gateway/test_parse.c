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
        { true, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"a\\u0000\"}]}",
          "messages[0].content" }, /* [P2] */
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
        { false, "{\"model\":\"m\",\"prompt\":[\"a\",\"b\"]}", "prompt[1]" },
        { false, "{\"model\":\"m\",\"prompt\":[1,2]}", "prompt[0]" },
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
    const char *body = "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\","
                       "\"text\":\"\\n\"}]}],"
                       "\"stop\":[\"a\"],\"metadata\":{\"a\":\"b\"}}";
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
        cmocka_unit_test_teardown(test_long_lists_grow, teardown),
        cmocka_unit_test_teardown(test_faults_are_named, teardown),
        cmocka_unit_test_teardown(test_no_memory_is_an_error, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
