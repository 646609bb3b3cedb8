/* test_records.c - records of replicas and routers; the source's text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/metrics.h"
#include "discovery/discovery.h"
#include "discovery/source.h"

static struct weir_arena arena;

static int setup(void **state)
{
    (void)state;
    weir_arena_init(&arena, 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    weir_arena_release(&arena);
    return 0;
}

static void test_what_is_written_is_read_back(void **state)
{
    struct weir_replica_record rep = { .id = WEIR_STR("r\"1"),
                                       .model = WEIR_STR("demo/\xc3\xa9"),
                                       .grpc = WEIR_STR("10.0.0.1:8380"),
                                       .admin = WEIR_STR("[::1]:8480"),
                                       .incarnation = 0xfedcba9876543210u,
                                       .started_s = 1795238554 },
                               rep2;
    struct weir_router_record router = { .id = WEIR_STR("router-1"),
                                         .mesh = WEIR_STR("10.0.0.9:7"),
                                         .rest = WEIR_STR("h:80"),
                                         .incarnation = 1 },
                              router2;
    struct weir_buf out;
    (void)state;
    weir_buf_init(&out, 0);
    weir_replica_record_write(&out, &rep);
    assert_int_equal(weir_replica_record_parse(weir_str(weir_buf_cstr(&out)), &arena, &rep2, NULL), WEIR_OK);
    assert_true(weir_str_eq(rep2.id, "r\"1"));
    assert_true(weir_str_eq(rep2.model, "demo/\xc3\xa9"));
    assert_true(weir_str_eq(rep2.grpc, "10.0.0.1:8380"));
    assert_true(weir_str_eq(rep2.admin, "[::1]:8480"));
    assert_true(rep2.incarnation == rep.incarnation);
    assert_true(rep2.started_s == rep.started_s);
    weir_buf_clear(&out);
    weir_router_record_write(&out, &router);
    assert_int_equal(weir_router_record_parse(weir_str(weir_buf_cstr(&out)), &arena, &router2, NULL),
                     WEIR_OK);
    assert_true(weir_str_eq(router2.mesh, "10.0.0.9:7"));
    assert_true(weir_str_eq(router2.id, "router-1"));
    assert_true(weir_str_eq(router2.rest, "h:80"));
    assert_int_equal(router2.grpc.len, 0);
    assert_true(router2.incarnation == 1);
    weir_buf_release(&out);
}

static void refuse(const char *json, const char *param)
{
    struct weir_replica_record rec;
    struct weir_why why = { 0 };
    struct weir_counter *bad = weir_counter("weir_discovery_bad_records_total", "", "");
    uint64_t n_before = weir_counter_get(bad);
    if (weir_replica_record_parse(weir_str(json), &arena, &rec, &why) == WEIR_OK)
        fail_msg("taken: %s", json);
    assert_true(weir_counter_get(bad) == n_before + 1);
    if (strcmp(why.param, param) != 0 || !strstr(why.text, param))
        fail_msg("%s: \"%s\" names \"%s\"", json, why.text, why.param);
}

static void test_a_bad_record_names_its_field_and_is_counted(void **state)
{
    (void)state;
    refuse("{", "");
    refuse("{\"model\":\"m\",\"grpc\":\"h:1\"}", "id");
    refuse("{\"id\":\"\",\"model\":\"m\",\"grpc\":\"h:1\"}", "id");
    refuse("{\"id\":\"a b\",\"model\":\"m\",\"grpc\":\"h:1\"}", "id");
    refuse("{\"id\":7,\"model\":\"m\",\"grpc\":\"h:1\"}", "id");
    refuse("{\"id\":\"a\",\"grpc\":\"h:1\"}", "model");
    refuse("{\"id\":\"a\",\"model\":\"m\"}", "grpc");
    refuse("{\"id\":\"a\",\"model\":\"m\",\"grpc\":\"nowhere\"}", "grpc");
    refuse("{\"id\":\"a\",\"model\":\"m\",\"grpc\":\"h:1\",\"admin\":\"h:0\"}", "admin");
    refuse("{\"id\":\"a\",\"model\":\"m\",\"grpc\":\"h:1\",\"incarnation\":\"XYZ\"}", "incarnation");
    refuse("{\"id\":\"a\",\"model\":\"m\",\"grpc\":\"h:1\",\"incarnation\":\"12345678123456781\"}",
           "incarnation");
    refuse("{\"id\":\"a\",\"model\":\"m\",\"grpc\":\"h:1\",\"started\":-1}", "started");
}

static void test_unknown_members_are_passed_over(void **state)
{
    struct weir_replica_record rec;
    (void)state;
    assert_int_equal(weir_replica_record_parse(
                         WEIR_STR("{\"id\":\"a\",\"zone\":{\"x\":[1]},\"model\":\"m\",\"grpc\":\"h:1\"}"),
                         &arena, &rec, NULL),
                     WEIR_OK);
    assert_true(rec.incarnation == 0); /* a file written by hand has none */
}

static void test_hostports(void **state)
{
    const char *good[] = { "h:1", "127.0.0.1:65535", "[::1]:80", "a-b.c_d:2379" };
    const char *bad[] = { "",     "h",      ":1",      "h:",    "h:0",    "h:65536", "h:1x",  "h:000001",
                          "h :1", "::1:80", "[::1:80", "[]:80", "h/x:80", "u@h:80",  "h:80/", "h?:80" };
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        if (!source_is_hostport(weir_str(good[i])))
            fail_msg("refused: %s", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (source_is_hostport(weir_str(bad[i])))
            fail_msg("taken: %s", bad[i]);
}

static void test_sources(void **state)
{
    struct source src;
    struct weir_why why = { 0 };
    const char *bad[] = {
        "", "etcd://", "etcd://h", "etcd://h:1,", "http://h:1", "file:", "etcd://h:1,,h:2"
    };
    (void)state;
    assert_int_equal(source_init(&src, "etcds://a:1,b:2", &why), WEIR_OK);
    assert_int_equal(src.n_urls, 2);
    assert_string_equal(src.urls[0], "https://a:1");
    assert_string_equal(src.urls[1], "https://b:2");
    source_release(&src);
    assert_int_equal(source_init(&src, "file:/x y", &why), WEIR_OK);
    assert_string_equal(src.file, "/x y");
    source_release(&src);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (source_init(&src, bad[i], &why) != WEIR_INVALID)
            fail_msg("taken: %s", bad[i]);
        assert_string_equal(why.param, "source");
        source_release(&src);
    }
    assert_int_equal(source_init(&src, NULL, &why), WEIR_INVALID);
    source_release(&src);
}

static void test_open_refuses_bad_options(void **state)
{
    struct weir_discovery_opts opts = { .source = "etcd://h:1", .prefix = "/weir" };
    struct weir_discovery *d = NULL;
    struct weir_why why = { 0 };
    (void)state;
    assert_int_equal(weir_discovery_open(&opts, &d, &why), WEIR_INVALID);
    assert_string_equal(why.param, "prefix");
    opts.prefix = "/weir/";
    opts.lease_ttl_s = 1;
    assert_int_equal(weir_discovery_open(&opts, &d, &why), WEIR_INVALID);
    assert_string_equal(why.param, "lease_ttl_s");
    opts.lease_ttl_s = 0;
    opts.source = "ectd://h:1";
    assert_int_equal(weir_discovery_open(&opts, &d, &why), WEIR_INVALID);
    assert_string_equal(why.param, "source");
    assert_null(d);
    weir_discovery_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_written_is_read_back),
        cmocka_unit_test(test_a_bad_record_names_its_field_and_is_counted),
        cmocka_unit_test(test_unknown_members_are_passed_over),
        cmocka_unit_test(test_hostports),
        cmocka_unit_test(test_sources),
        cmocka_unit_test(test_open_refuses_bad_options),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
