/* The answer reader: ends and events are found wherever the reads were cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "bench/answer.h"

#define FIXED "HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 10\r\n\r\n0123456789"
/* The first and the second event lie over two chunks; one chunk looks like the last. */
#define CHUNKED                                                                                              \
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-type: text/event-stream\r\n\r\n"               \
    "D\r\ndata: {\"a\":1}\r\n2\r\n\n\n\r\n"                                                                  \
    "8\r\ndata: 0\n\r\n1\r\n\n\r\n"                                                                          \
    "5\r\n0\r\n\r\n\r\n"                                                                                     \
    "0e;x=0\r\ndata: [DONE]\n\n\r\n"                                                                         \
    "0\r\nx-sum: 1\r\n\r\n"

static void take_all(struct answer *a, const char *bytes, size_t len)
{
    answer_begin(a);
    assert_int_equal(answer_take(a, bytes, len), ANSWER_DONE);
}

static void test_whole(void **state)
{
    static struct answer a;

    (void)state;
    take_all(&a, FIXED, sizeof FIXED - 1);
    assert_int_equal(a.status, 200);
    assert_int_equal(a.n_events, 0);
    take_all(&a, CHUNKED, sizeof CHUNKED - 1);
    assert_int_equal(a.status, 200);
    assert_int_equal(a.n_events, 3);
}

/* [A1] */
static void assert_same_in_two_reads(const char *bytes, size_t len, uint64_t n_events)
{
    static struct answer a;

    for (size_t cut = 1; cut < len; cut++) {
        answer_begin(&a);
        assert_int_equal(answer_take(&a, bytes, cut), ANSWER_MORE);
        assert_int_equal(answer_take(&a, bytes + cut, len - cut), ANSWER_DONE);
        assert_int_equal(a.n_events, n_events);
        assert_int_equal(a.status, 200);
    }
}

static void test_cut_anywhere(void **state)
{
    (void)state;
    assert_same_in_two_reads(FIXED, sizeof FIXED - 1, 0);
    assert_same_in_two_reads(CHUNKED, sizeof CHUNKED - 1, 3);
}

/* [A1] */
static void test_byte_by_byte(void **state)
{
    static struct answer a;
    static const char bytes[] = CHUNKED;

    (void)state;
    answer_begin(&a);
    for (size_t i = 0; i + 1 < sizeof bytes - 1; i++)
        assert_int_equal(answer_take(&a, bytes + i, 1), ANSWER_MORE);
    assert_int_equal(answer_take(&a, bytes + sizeof bytes - 2, 1), ANSWER_DONE);
    assert_int_equal(a.n_events, 3);
}

static void test_empty_body(void **state)
{
    static const char bytes[] = "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n";
    static struct answer a;

    (void)state;
    take_all(&a, bytes, sizeof bytes - 1);
    assert_int_equal(a.status, 503);
    assert_string_equal(a.head, "HTTP/1.1 503 Busy\r\ncontent-length: 0");
}

static void test_one_after_the_other(void **state)
{
    static struct answer a;

    (void)state;
    for (int i = 0; i < 3; i++) {
        take_all(&a, CHUNKED, sizeof CHUNKED - 1);
        assert_int_equal(a.n_events, 3);
    }
}

static void assert_bad(const char *bytes)
{
    static struct answer a;

    answer_begin(&a);
    assert_int_equal(answer_take(&a, bytes, strlen(bytes)), ANSWER_BAD);
}

static void test_what_is_not_understood(void **state)
{
    (void)state;
    assert_bad("SSH-2.0-x\r\n\r\n");
    assert_bad("HTTP/1.1 200 OK\r\nserver: x\r\n\r\n");
    assert_bad(FIXED "more");
    assert_bad(CHUNKED "HTTP/1.1 200 OK\r\n");
    assert_bad("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n");
    assert_bad("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n");
    assert_bad("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabcd");
}

/* A head without an end is given up, whatever its pieces. */
static void test_head_without_an_end(void **state)
{
    static struct answer a;
    enum answer_state found = ANSWER_MORE;

    (void)state;
    answer_begin(&a);
    for (int i = 0; i < 2 * ANSWER_HEAD_MAX / 8 && found == ANSWER_MORE; i++)
        found = answer_take(&a, "HTTP/1.1", 8);
    assert_int_equal(found, ANSWER_BAD);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole),
        cmocka_unit_test(test_cut_anywhere),
        cmocka_unit_test(test_byte_by_byte),
        cmocka_unit_test(test_empty_body),
        cmocka_unit_test(test_one_after_the_other),
        cmocka_unit_test(test_what_is_not_understood),
        cmocka_unit_test(test_head_without_an_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
