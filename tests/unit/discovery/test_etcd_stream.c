/* test_etcd_stream.c - replies as etcd 3.4 sends them, with every field that it leaves out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "discovery/etcd_stream.h"

#define HEADER "\"header\":{\"cluster_id\":\"14841639068965178418\",\"member_id\":\"10276657743932975437\","
#define HEAD(revision) HEADER "\"revision\":\"" #revision "\",\"raft_term\":\"2\"}"

static struct weir_arena arena;

static int setup(void **state)
{
    (void)state;
    weir_arena_init(&arena, 1 << 20);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    weir_arena_release(&arena);
    return 0;
}

static struct etcd_msg parse(const char *text)
{
    struct etcd_msg msg;
    struct weir_why why = { 0 };
    if (etcd_msg_parse(weir_str(text), &arena, &msg, &why) != WEIR_OK)
        fail_msg("%s", why.text);
    return msg;
}

static void refuse(const char *text)
{
    struct etcd_msg msg;
    struct weir_why why = { 0 };
    if (etcd_msg_parse(weir_str(text), &arena, &msg, &why) != WEIR_INVALID)
        fail_msg("taken: %s", text);
    assert_true(why.text[0] != '\0');
}

static void test_range(void **state)
{
    (void)state;
    struct etcd_msg msg =
        parse("{" HEAD(7) ",\"kvs\":[{\"key\":\"L3dlaXIvYQ==\",\"create_revision\":\"5\","
                          "\"mod_revision\":\"6\",\"version\":\"2\",\"value\":\"eyJuIjoxfQ==\"},"
                          "{\"key\":\"L3dlaXIvYg==\",\"mod_revision\":\"7\"}],"
                          "\"more\":true,\"count\":\"9\"}");
    assert_true(msg.has_header);
    assert_true(msg.cluster_id == 14841639068965178418u); /* over 2^63 */
    assert_int_equal(msg.revision, 7);
    assert_true(msg.more);
    assert_int_equal(msg.n_kvs, 2);
    assert_true(weir_str_eq(msg.kvs[0].key, "/weir/a"));
    assert_true(weir_str_eq(msg.kvs[0].value, "{\"n\":1}"));
    assert_int_equal(msg.kvs[0].mod_revision, 6);
    assert_true(weir_str_eq(msg.kvs[1].value, "")); /* an empty value is left out */
    msg = parse("{" HEAD(7) "}");                   /* nothing matched: no kvs, no count */
    assert_int_equal(msg.n_kvs, 0);
    assert_false(msg.more);
}

static void test_txn_lease_and_token(void **state)
{
    (void)state;
    assert_true(
        parse("{" HEAD(8) ",\"succeeded\":true,\"responses\":[{\"response_put\":{" HEAD(8) "}}]}").succeeded);
    assert_false(parse("{" HEAD(8) "}").succeeded); /* false is left out */
    struct etcd_msg msg = parse("{" HEAD(8) ",\"ID\":\"7587862094938183426\",\"TTL\":\"10\"}");
    assert_true(msg.lease_id == 7587862094938183426);
    assert_int_equal(msg.ttl_s, 10);
    msg = parse("{\"result\":{" HEAD(8) ",\"ID\":\"7587862094938183426\",\"TTL\":\"10\"}}");
    assert_int_equal(msg.ttl_s, 10);
    msg = parse("{\"result\":{" HEAD(
        8) ",\"ID\":\"7587862094938183426\"}}"); /* the lease is gone: no TTL, HTTP 200 */
    assert_int_equal(msg.ttl_s, 0);
    assert_true(weir_str_eq(parse("{" HEAD(8) ",\"token\":\"abc.12\"}").token, "abc.12"));
    assert_int_equal(parse("{\"ID\":7,\"TTL\":2}").lease_id, 7); /* numbers are taken as well */
}

static void test_watch_events(void **state)
{
    (void)state;
    struct etcd_msg msg = parse("{\"result\":{" HEAD(5) ",\"created\":true}}");
    assert_true(msg.created && !msg.canceled);
    msg = parse("{\"result\":{" HEAD(12) ",\"events\":[{\"kv\":{\"key\":\"YQ==\",\"mod_revision\":\"11\","
                                         "\"value\":\"MQ==\"}},{\"type\":\"DELETE\",\"kv\":{\"key\":\"Yg==\","
                                         "\"mod_revision\":\"12\"}}]}}");
    assert_int_equal(msg.n_kvs, 2);
    assert_false(msg.kvs[0].is_delete); /* a PUT is not spelled out */
    assert_true(msg.kvs[1].is_delete);
    assert_true(weir_str_eq(msg.kvs[1].key, "b"));
    assert_int_equal(msg.kvs[1].mod_revision, 12);
    assert_true(parse("{\"result\":{" HEAD(12) ",\"fragment\":true,\"events\":[]}}").fragment);
}

static void test_a_refused_watch_is_created_and_canceled(void **state)
{
    (void)state;
    struct etcd_msg msg = parse("{\"result\":{" HEAD(12) ",\"canceled\":true,\"compact_revision\":\"12\"}}");
    assert_true(msg.canceled);
    assert_int_equal(msg.compact_revision, 12);
    msg = parse("{\"result\":{" HEAD(12) ",\"watch_id\":\"-1\",\"created\":true,\"canceled\":true,"
                                         "\"cancel_reason\":\"rpc error: code = PermissionDenied\"}}");
    assert_true(msg.created && msg.canceled);
    assert_true(weir_str_eq(msg.cancel_reason, "rpc error: code = PermissionDenied"));
}

static void test_errors_of_bodies_and_of_streams(void **state)
{
    (void)state;
    struct etcd_msg msg = parse("{\"error\":\"etcdserver: requested lease not found\","
                                "\"message\":\"etcdserver: requested lease not found\",\"code\":5}");
    assert_true(msg.is_error);
    assert_int_equal(msg.error_code, 5);
    assert_true(weir_str_eq(msg.error, "etcdserver: requested lease not found"));
    msg = parse(
        "{\"error\":{\"grpc_code\":14,\"http_code\":503,\"message\":\"no leader\",\"http_status\":\"x\"}}");
    assert_true(msg.is_error);
    assert_int_equal(msg.error_code, 14);
    assert_true(weir_str_eq(msg.error, "no leader"));
}

static void test_damaged_replies_are_refused(void **state)
{
    (void)state;
    refuse("");
    refuse("{");
    refuse("[]");
    refuse("{\"kvs\":[{\"key\":\"YQ=\"}]}"); /* base64 */
    refuse("{\"kvs\":[{\"key\":\"\"}]}");    /* a key-value without a key */
    refuse("{\"kvs\":[{\"value\":\"YQ==\"}]}");
    refuse("{\"kvs\":{}}");
    refuse("{\"header\":{\"revision\":\"9223372036854775808\"}}");
    refuse("{\"header\":{\"revision\":\"\"}}");
    refuse("{\"header\":{\"revision\":\"1x\"}}");
    refuse("{\"header\":{\"cluster_id\":\"-1\"}}");
    refuse("{\"header\":{\"cluster_id\":\"18446744073709551616\"}}");
    refuse("{\"result\":{\"events\":[{\"type\":\"MOVE\",\"kv\":{\"key\":\"YQ==\"}}]}}");
    refuse("{\"result\":{\"events\":[{}]}}");
    refuse("{\"result\":{\"created\":1}}");
    parse("{\"result\":{\"result\":{\"created\":1}}}"); /* a result within a result is an unknown field */
}

static void test_the_arena_bounds_a_reply(void **state)
{
    struct weir_arena small;
    struct etcd_msg msg;
    static char text[40000];
    (void)state;
    strcpy(text, "{\"kvs\":[{\"key\":\"");
    memset(text + strlen(text), 'A', 32000);
    strcat(text, "\"}]}");
    weir_arena_init(&small, 8 << 10);
    assert_int_equal(etcd_msg_parse(weir_str(text), &small, &msg, NULL), WEIR_NOMEM);
    weir_arena_release(&small);
}

/* ---- lines ---- */

static void collect(struct etcd_lines *lines, char *out)
{
    struct weir_str line;
    while (etcd_lines_next(lines, &line))
        sprintf(out + strlen(out), "<%.*s>", WEIR_STR_FMT(line));
}

/* [E1] Every way to cut the bytes in two gives the same lines. */
static void test_lines_do_not_depend_on_the_splits(void **state)
{
    const char *text = "one\n\ntwo\r\nthree three\n\r\nfour\nrest";
    const char *want = "<one><two><three three><four>";
    size_t len = strlen(text);
    (void)state;
    for (size_t a = 0; a <= len; a++)
        for (size_t b = a; b <= len; b++) {
            struct etcd_lines lines;
            char out[200] = "";
            etcd_lines_init(&lines, 64);
            assert_int_equal(etcd_lines_feed(&lines, text, a, NULL), WEIR_OK);
            collect(&lines, out);
            assert_int_equal(etcd_lines_feed(&lines, text + a, b - a, NULL), WEIR_OK);
            collect(&lines, out);
            assert_int_equal(etcd_lines_feed(&lines, text + b, len - b, NULL), WEIR_OK);
            collect(&lines, out);
            assert_string_equal(out, want);
            etcd_lines_release(&lines);
        }
}

/* [E2] */
static void test_a_line_without_an_end_is_bounded(void **state)
{
    struct etcd_lines lines;
    struct weir_why why = { 0 };
    struct weir_str line;
    weir_err rc = WEIR_OK;
    int n = 0;
    (void)state;
    etcd_lines_init(&lines, 1000);
    for (; n < 100 && rc == WEIR_OK; n++) {
        rc = etcd_lines_feed(&lines, "xxxxxxxxxxxxxxxxxxxx", 20, &why);
        assert_false(etcd_lines_next(&lines, &line));
    }
    assert_int_equal(rc, WEIR_TOOLARGE);
    assert_int_equal(n, 51);
    etcd_lines_clear(&lines); /* and is usable again */
    assert_int_equal(etcd_lines_feed(&lines, "ok\n", 3, &why), WEIR_OK);
    assert_true(etcd_lines_next(&lines, &line));
    etcd_lines_release(&lines);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_range),
        cmocka_unit_test(test_txn_lease_and_token),
        cmocka_unit_test(test_watch_events),
        cmocka_unit_test(test_a_refused_watch_is_created_and_canceled),
        cmocka_unit_test(test_errors_of_bodies_and_of_streams),
        cmocka_unit_test(test_damaged_replies_are_refused),
        cmocka_unit_test(test_the_arena_bounds_a_reply),
        cmocka_unit_test(test_lines_do_not_depend_on_the_splits),
        cmocka_unit_test(test_a_line_without_an_end_is_bounded),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
