/* The events of a streamed completion: which brought tokens, and what the usage said. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "bench/event.h"

static struct weir_str text(const char *s)
{
    return weir_str(s);
}

static struct event read_one(const char *block)
{
    struct weir_arena arena;
    struct event event;

    weir_arena_init(&arena, 0);
    assert_true(event_read(text(block), &arena, &event));
    weir_arena_release(&arena);
    return event;
}

static void assert_fails(const char *block)
{
    struct weir_arena arena;
    struct event event;

    weir_arena_init(&arena, 0);
    assert_false(event_read(text(block), &arena, &event));
    weir_arena_release(&arena);
}

static void test_blocks_in_order(void **state)
{
    struct weir_str rest = text("data: {\"a\":1}\n\n: waits\n\ndata: [DONE]\n\nhalf"), block;

    (void)state;
    assert_true(event_next(&rest, &block) && weir_str_eq(block, "data: {\"a\":1}"));
    assert_true(event_next(&rest, &block) && weir_str_eq(block, ": waits"));
    assert_true(event_next(&rest, &block) && weir_str_eq(block, "data: [DONE]"));
    assert_false(event_next(&rest, &block));
    rest = (struct weir_str){ NULL, 0 };
    assert_false(event_next(&rest, &block));
}

#define CHUNK(choice) "data: {\"id\":\"c\",\"choices\":[" choice "],\"usage\":null}"

static void test_which_bring_tokens(void **state)
{
    (void)state;
    assert_true(read_one(CHUNK("{\"index\":0,\"text\":\" \\u00e9\",\"finish_reason\":null}")).has_tokens);
    assert_true(read_one(CHUNK("{\"text\":\"\",\"token_ids\":[7],\"finish_reason\":null}")).has_tokens);
    assert_true(read_one(CHUNK("{\"text\":\"a\",\"finish_reason\":\"length\"}")).has_tokens);
    /* A token without text, from a server that knows no token_ids. */
    assert_true(read_one(CHUNK("{\"text\":\"\",\"finish_reason\":null}")).has_tokens);
    /* The prompt is told before the first token. */
    assert_false(
        read_one(CHUNK("{\"text\":\"\",\"token_ids\":[],\"prompt_token_ids\":[1,2],\"finish_reason\":null}"))
            .has_tokens);
    assert_false(read_one(CHUNK("{\"text\":\"\",\"finish_reason\":\"length\"}")).has_tokens);
    assert_false(read_one(CHUNK("")).has_tokens);
    assert_false(read_one("data: [DONE]").has_tokens);
    assert_false(read_one(": waits").has_tokens);
}

static void test_usage(void **state)
{
    struct event event =
        read_one("data: {\"choices\":[],\"usage\":{\"prompt_tokens\":2064,\"total_tokens\":2080,"
                 "\"completion_tokens\":16,\"prompt_tokens_details\":{\"cached_tokens\":2000}}}");

    (void)state;
    assert_true(event.has_usage && !event.has_tokens);
    assert_int_equal(event.prompt_tokens, 2064);
    assert_int_equal(event.completion_tokens, 16);
    assert_int_equal(event.cached_tokens, 2000);
    event = read_one(
        "data: {\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1,\"prompt_tokens_details\":null}}");
    assert_true(event.has_usage && event.prompt_tokens == 3 && event.cached_tokens == 0);
    assert_false(read_one(CHUNK("")).has_usage);
}

static void test_what_is_not_understood(void **state)
{
    (void)state;
    assert_fails("event: x");
    assert_fails("data: {\"choices\":[");
    assert_fails("data: {\"choices\":7}");
    assert_fails("data: {\"error\":{\"message\":\"no\"}}");
    assert_fails("data: {\"usage\":{\"prompt_tokens\":-1}}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks_in_order),
        cmocka_unit_test(test_which_bring_tokens),
        cmocka_unit_test(test_usage),
        cmocka_unit_test(test_what_is_not_understood),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
