/* test_pb_alloc.c - messages unpacked into an arena. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/arena.h"
#include "proto/rpc.h"
#include "weir/v1/inference.pb-c.h"

static size_t pack_request(uint8_t *out, size_t n_out)
{
    Weir__V1__GenerateRequest request = WEIR__V1__GENERATE_REQUEST__INIT;
    char *stop[4] = { "one", "two", "three", "four" };

    request.model = "demo";
    request.input_case = WEIR__V1__GENERATE_REQUEST__INPUT_PROMPT;
    request.prompt = "a prompt of some length, so that it is not nothing";
    request.n_stop = 4;
    request.stop = stop;
    request.has_seed_case = WEIR__V1__GENERATE_REQUEST__HAS_SEED_SEED;
    assert_true(weir__v1__generate_request__get_packed_size(&request) <= n_out);
    return weir__v1__generate_request__pack(&request, out);
}

static void test_unpack_into_arena(void **state)
{
    struct ProtobufCAllocator allocator;
    struct weir_arena arena;
    uint8_t bytes[256];
    size_t n = pack_request(bytes, sizeof bytes);

    (void)state;
    weir_arena_init(&arena, 0);
    weir_pb_allocator(&allocator, &arena);
    Weir__V1__GenerateRequest *request = weir__v1__generate_request__unpack(&allocator, n, bytes);
    assert_non_null(request);
    assert_string_equal(request->model, "demo");
    assert_string_equal(request->stop[3], "four");
    assert_int_equal(request->has_seed_case,
                     WEIR__V1__GENERATE_REQUEST__HAS_SEED_SEED); /* a zero, but there */
    assert_int_equal(request->has_top_k_case, 0);
    assert_true(arena.used > 0);
    weir_arena_release(&arena); /* all of it: the leak checker agrees */
}

/* The arena's limit bounds what a message may become; half a message is no message. */
static void test_limit(void **state)
{
    struct ProtobufCAllocator allocator;
    struct weir_arena arena;
    uint8_t bytes[256];
    size_t n = pack_request(bytes, sizeof bytes);
    int n_refused = 0;

    (void)state;
    for (size_t limit = 64; limit < 8192; limit += 64) {
        weir_arena_init(&arena, limit);
        weir_pb_allocator(&allocator, &arena);
        n_refused += weir__v1__generate_request__unpack(&allocator, n, bytes) == NULL;
        assert_true(arena.used <= limit);
        weir_arena_release(&arena);
    }
    assert_in_range(n_refused, 1, 126);
}

static void test_damaged(void **state)
{
    struct ProtobufCAllocator allocator;
    struct weir_arena arena;
    uint8_t bytes[256];
    size_t n = pack_request(bytes, sizeof bytes);

    (void)state;
    weir_arena_init(&arena, 0);
    weir_pb_allocator(&allocator, &arena);
    assert_null(weir__v1__generate_request__unpack(&allocator, n - 1, bytes));
    weir_arena_release(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unpack_into_arena),
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_damaged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
