/* test_etcd_request.c - the bodies that etcd is sent, byte for byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "discovery/etcd_request.h"

static struct weir_buf out;

static int setup(void **state)
{
    (void)state;
    weir_buf_init(&out, 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    weir_buf_release(&out);
    return 0;
}

static void test_range_ends_behind_the_prefix(void **state)
{
    (void)state;
    etcd_request_range(&out, WEIR_STR("/weir/"), WEIR_STR("/weir/"), 0, 10);
    assert_string_equal(weir_buf_cstr(&out),
                        "{\"key\":\"L3dlaXIv\",\"range_end\":\"L3dlaXIw\",\"limit\":\"10\"}");
    etcd_request_range(&out, WEIR_STR("/weir/a\0"), WEIR_STR("/weir/"), 77, 10); /* a next page */
    assert_string_equal(weir_buf_cstr(&out), "{\"key\":\"L3dlaXIvYQA=\",\"range_end\":\"L3dlaXIw\","
                                             "\"revision\":\"77\",\"limit\":\"10\"}");
    etcd_request_range(&out, WEIR_STR("a"), WEIR_STR("a\xff\xff"), 0, 1); /* carries into 'b' */
    assert_string_equal(weir_buf_cstr(&out), "{\"key\":\"YQ==\",\"range_end\":\"Yg==\",\"limit\":\"1\"}");
    etcd_request_range(&out, WEIR_STR("\xff"), WEIR_STR("\xff"), 0, 1); /* to the end of everything */
    assert_string_equal(weir_buf_cstr(&out), "{\"key\":\"/w==\",\"range_end\":\"AA==\",\"limit\":\"1\"}");
}

static void test_watch_asks_for_fragments_and_progress(void **state)
{
    (void)state;
    etcd_request_watch(&out, WEIR_STR("/w/"), 6);
    assert_string_equal(
        weir_buf_cstr(&out),
        "{\"create_request\":{\"key\":\"L3cv\",\"range_end\":\"L3cw\",\"start_revision\":\"6\","
        "\"progress_notify\":true,\"fragment\":true}}");
}

static void test_txn_conditions(void **state)
{
    struct weir_disc_cond conds[] = { { WEIR_STR("a"), 0 }, { WEIR_STR("b"), 9007199254740993 } };
    struct weir_disc_op ops[] = { { WEIR_DISC_PUT, WEIR_STR("a"), WEIR_STR("") },
                                  { WEIR_DISC_DELETE, WEIR_STR("b"), { 0 } } };
    (void)state;
    etcd_request_txn(&out, conds, 2, ops, 2);
    assert_string_equal(
        weir_buf_cstr(&out),
        "{\"compare\":[{\"key\":\"YQ==\",\"target\":\"CREATE\",\"result\":\"EQUAL\",\"create_revision\":"
        "\"0\"},"
        "{\"key\":\"Yg==\",\"target\":\"MOD\",\"result\":\"EQUAL\",\"mod_revision\":\"9007199254740993\"}],"
        "\"success\":[{\"request_put\":{\"key\":\"YQ==\",\"value\":\"\"}},"
        "{\"request_delete_range\":{\"key\":\"Yg==\"}}]}");
}

static void test_leases_are_strings(void **state)
{
    (void)state;
    etcd_request_put(&out, WEIR_STR("k"), WEIR_STR("v"), 7587862094938183426);
    assert_string_equal(weir_buf_cstr(&out),
                        "{\"key\":\"aw==\",\"value\":\"dg==\",\"lease\":\"7587862094938183426\"}");
    etcd_request_lease(&out, 7587862094938183426);
    assert_string_equal(weir_buf_cstr(&out), "{\"ID\":\"7587862094938183426\"}");
    etcd_request_auth(&out, "a\"b", NULL);
    assert_string_equal(weir_buf_cstr(&out), "{\"name\":\"a\\\"b\",\"password\":\"\"}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_range_ends_behind_the_prefix),
        cmocka_unit_test(test_watch_asks_for_fragments_and_progress),
        cmocka_unit_test(test_txn_conditions),
        cmocka_unit_test(test_leases_are_strings),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
