/* The fleet: who is attached, who is not, and what a broken stream or an odd view does to that. */
#include "tests/unit/router_core/cm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "base/metrics.h"
#include "tests/unit/router_core/rig.h"

static const char *describe(struct rig *rig, char *text, size_t n)
{
    struct weir_buf buf;
    struct weir_json json;

    weir_buf_init(&buf, 0);
    weir_fleet_describe(rig->fleet, &buf);
    snprintf(text, n, "%s", weir_buf_cstr(&buf));
    weir_buf_release(&buf);
    weir_json_init(&json, text, strlen(text), NULL);
    weir_json_skip(&json);
    assert_int_equal(weir_json_end(&json, NULL), WEIR_OK);
    return text;
}

struct wish {
    const char *text;
    bool absent;
};

static bool described(struct rig *rig, void *ctx)
{
    const struct wish *wish = ctx;
    char text[4096];

    return (strstr(describe(rig, text, sizeof text), wish->text) == NULL) == wish->absent;
}

static void until_described(struct rig *rig, const char *text)
{
    rig_until(rig, described, &(struct wish){ .text = text });
}

static void until_not_described(struct rig *rig, const char *text)
{
    rig_until(rig, described, &(struct wish){ .text = text, .absent = true });
}

static void count_model(void *ctx, const struct weir_fleet_model *model)
{
    struct weir_fleet_model *ret = ctx;

    assert_int_equal(strlen(model->id.ptr), model->id.len);
    ret->n_replicas += model->n_replicas;
    ret->n_usable += model->n_usable;
    ret->created_s = model->created_s;
}

static void test_a_fleet_attaches_and_is_described(void **state)
{
    struct rig rig;
    struct weir_fleet_model model = { .n_usable = 0 };
    char text[4096];

    (void)state;
    rig_init(&rig, 3);
    rig_start(&rig);
    weir_stub_set_load(rig.stubs[1], &(struct weir_stub_load){ .running = 3,
                                                               .waiting = 4,
                                                               .queued_tokens = 555,
                                                               .decode_tokens_s = 12.5,
                                                               .prefill_tokens_s = 100,
                                                               .predicted_wait_ms = 7.25 });
    until_described(&rig, "\"queued_tokens\":555");
    describe(&rig, text, sizeof text);
    assert_non_null(
        strstr(text, "{\"replicas\":[{\"id\":\"replica-0\",\"model\":\"test/model\",\"grpc\":\"127.0.0.1:"));
    assert_non_null(
        strstr(text, "\"state\":\"usable\",\"running\":3,\"waiting\":4,\"slots\":64,\"queued_tokens\":555,"
                     "\"decode_tokens_s\":12.5,\"prefill_tokens_s\":100"));
    assert_non_null(strstr(text, "\"predicted_wait_ms\":7.25"));
    weir_fleet_models(rig.fleet, count_model, &model);
    assert_int_equal(model.n_replicas, 3);
    assert_int_equal(model.n_usable, 3);
    assert_int_equal(model.created_s, 1000);
    assert_true(weir_fleet_model(rig.fleet, weir_str(RIG_MODEL), &model));
    assert_int_equal(model.n_usable, 3);
    assert_false(weir_fleet_model(rig.fleet, weir_str("test/mode"), &model));
    assert_false(weir_fleet_model(rig.fleet, weir_str("test/model2"), &model));
    assert_false(weir_fleet_model(rig.fleet, weir_str(""), &model));
    rig_stop(&rig);
}

/* Opens stub 0 with these options in place of what rig_init made of it. */
static void start_with(struct rig *rig, struct weir_stub_opts opts)
{
    struct weir_why why;

    weir_stub_close(rig->stubs[0]);
    opts.rpc = rig->rpc;
    assert_int_equal(weir_stub_open(&opts, &rig->stubs[0], &why), WEIR_OK);
    snprintf(rig->address[0], sizeof rig->address[0], "127.0.0.1:%d", weir_stub_port(rig->stubs[0]));
    rig->records[0].grpc = weir_str(rig->address[0]);
    assert_int_equal(weir_fleet_open(&rig->fleet_opts, &rig->fleet, &why), WEIR_OK);
    assert_int_equal(weir_loop_open(0, &rig->loop, &why), WEIR_OK);
    rig_set_view(rig);
}

static void test_who_says_something_else_is_ejected(void **state)
{
    const struct weir_stub_opts odd[] = {
        { .id = "replica-0", .model = RIG_MODEL, .version = 2 },
        { .id = "replica-9", .model = RIG_MODEL },
        { .id = "replica-0", .model = "another/model" },
    };
    struct rig rig;

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        rig_init(&rig, 1);
        rig.fleet_opts.backoff_min_ms = 10;
        start_with(&rig, odd[i]);
        until_described(&rig, "\"state\":\"ejected\"");
        assert_int_equal(weir_fleet_n_usable(rig.fleet), 0);
        rig_turn_ms(&rig, 200);
        assert_int_equal(rig_counts(&rig, 0).attaches, 1); /* not again */
        rig_stop(&rig);
    }
}

static bool has_attaches(struct rig *rig, void *ctx)
{
    return rig_counts(rig, 0).attaches >= *(uint64_t *)ctx;
}

static void test_who_says_no_hello_is_tried_again(void **state)
{
    struct rig rig;
    uint64_t three = 3;

    (void)state;
    rig_init(&rig, 1);
    rig.fleet_opts.hello_timeout_ms = 50;
    rig.fleet_opts.backoff_min_ms = 10;
    start_with(&rig, (struct weir_stub_opts){ .id = "replica-0", .model = RIG_MODEL, .mute = true });
    rig_until(&rig, has_attaches, &three);
    assert_int_equal(weir_fleet_n_usable(rig.fleet), 0);
    rig_stop(&rig);
}

static void test_a_replica_that_comes_back_is_attached_again(void **state)
{
    struct rig rig;
    struct weir_why why;

    (void)state;
    rig_init(&rig, 1);
    rig.fleet_opts.backoff_min_ms = 10;
    rig.fleet_opts.backoff_max_ms = 100;
    rig_start(&rig);
    weir_stub_break(rig.stubs[0]); /* only the stream */
    until_not_described(&rig, "\"state\":\"usable\"");
    rig_until_usable(&rig, 1);
    weir_stub_close(rig.stubs[0]); /* the process */
    rig_until_usable(&rig, 0);
    until_described(&rig, "\"state\":\"connecting\"");
    rig_turn_ms(&rig, 150);
    struct weir_stub_opts opts = rig_stub_opts(&rig, 0);
    opts.listen = rig.address[0];
    rig.stubs[0] = NULL;
    assert_int_equal(weir_stub_open(&opts, &rig.stubs[0], &why), WEIR_OK);
    rig_until_usable(&rig, 1);
    rig_stop(&rig);
}

/* [F2] */
static void test_a_replica_without_a_record_serves_while_its_stream_lives(void **state)
{
    struct rig rig;
    struct client client = { .n_done = 0 };
    struct weir_fleet_model model;

    (void)state;
    rig_init(&rig, 1);
    rig_start(&rig);
    assert_int_equal(weir_fleet_set_view(rig.fleet, NULL, 0), WEIR_OK);
    rig_turn_ms(&rig, 100);
    assert_int_equal(weir_fleet_n_usable(rig.fleet), 1);
    client_start(&client, &rig, rig_request(&rig, "hello"));
    client_wait(&client);
    assert_int_equal(client.n_done, 1);
    weir_stub_break(rig.stubs[0]);
    until_not_described(&rig, "replica-0");
    assert_false(weir_fleet_model(rig.fleet, weir_str(RIG_MODEL), &model));
    client_start(&client, &rig, rig_request(&rig, "hello"));
    assert_int_equal(client.err, WEIR_NOMODEL);
    rig_set_view(&rig); /* and it comes back */
    rig_until_usable(&rig, 1);
    rig_stop(&rig);
}

static void test_a_draining_replica_finishes_and_takes_nothing_new(void **state)
{
    struct rig rig;
    struct client old = { .n_done = 0 }, new = { .n_done = 0 };
    struct weir_stub_plan plan;

    (void)state;
    rig_init(&rig, 1);
    rig_start(&rig);
    weir_stub_plan_init(&plan);
    plan.gap_ns = 20000000;
    plan.n_deltas = 20;
    rig_plan(&rig, &plan);
    client_start(&old, &rig, rig_request(&rig, "hello"));
    client_wait_delta(&old);
    weir_stub_drain(rig.stubs[0]);
    until_described(&rig, "\"state\":\"draining\"");
    assert_int_equal(weir_fleet_n_usable(rig.fleet), 0);
    client_start(&new, &rig, rig_request(&rig, "hello"));
    assert_int_equal(new.err, WEIR_OVERLOADED);
    assert_true(new.retry_after_ms > 0);
    client_wait(&old);
    assert_int_equal(old.n_done, 1);
    rig_stop(&rig);
}

/* [F3] */
static void test_another_incarnation_is_another_replica(void **state)
{
    struct rig rig;
    struct client old = { .n_done = 0 }, new = { .n_done = 0 };
    struct weir_stub_plan plan;
    uint64_t two = 2;

    (void)state;
    rig_init(&rig, 1);
    rig_start(&rig);
    weir_stub_plan_init(&plan);
    plan.gap_ns = 20000000;
    plan.n_deltas = 20;
    rig_plan(&rig, &plan);
    client_start(&old, &rig, rig_request(&rig, "hello"));
    client_wait_delta(&old);
    rig.records[0].incarnation = 2;
    rig_set_view(&rig);
    rig_until(&rig, has_attaches, &two);
    rig_until_usable(&rig, 1);
    client_start(&new, &rig, rig_request(&rig, "hello"));
    client_wait(&old);
    client_wait(&new);
    assert_int_equal(old.n_done, 1); /* on the old stream, to its end */
    assert_int_equal(new.n_done, 1);
    rig_stop(&rig);
}

static void test_a_silent_replica_is_cut_and_its_calls_are_lost(void **state)
{
    struct rig rig;
    struct client client = { .n_done = 0 };
    struct weir_stub_plan plan;

    (void)state;
    rig_init(&rig, 1);
    rig.fleet_opts.silent_cut_ms = 1500;
    rig_start(&rig);
    weir_stub_plan_init(&plan);
    plan.gap_ns = 20000000;
    plan.n_deltas = 100000;
    rig_plan(&rig, &plan);
    client_start(&client, &rig, rig_request(&rig, "hello"));
    client_wait_delta(&client);
    weir_stub_silence(rig.stubs[0], true);
    client_wait(&client);
    assert_int_equal(client.n_failed, 1);
    assert_int_equal(client.err, WEIR_UPSTREAM);
    rig_stop(&rig);
}

static void test_records_past_a_bound_are_skipped_the_rest_holds(void **state)
{
    struct rig rig;
    char long_id[400];
    struct weir_counter *skipped = weir_counter("weir_fabric_records_skipped_total", "", "");
    uint64_t before = weir_counter_get(skipped);

    (void)state;
    rig_init(&rig, 1);
    rig_start(&rig);
    memset(long_id, 'x', sizeof long_id);
    struct weir_replica_record records[6];
    for (int i = 0; i < 6; i++)
        records[i] = rig.records[0];
    records[1].id = (struct weir_str){ long_id, sizeof long_id };
    records[2].grpc = weir_str("");
    records[3].model = (struct weir_str){ "a\0b", 3 };
    records[4].model = weir_str("");
    assert_int_equal(weir_fleet_set_view(rig.fleet, records, 6), WEIR_OK); /* the last is the first again */
    assert_int_equal(weir_counter_get(skipped) - before, 5);
    rig_turn_ms(&rig, 50);
    assert_int_equal(weir_fleet_n_usable(rig.fleet), 1);
    assert_int_equal(rig_counts(&rig, 0).attaches, 1); /* the same record: the same attachment */
    rig_stop(&rig);
}

/* The way of a router: discovery's snapshots. */
static void test_a_view_from_discovery(void **state)
{
    struct rig rig;
    struct weir_why why = { .text = "" };
    struct weir_buf record;
    char path[] = "/tmp/weir-view-XXXXXX", source[64];
    struct weir_discovery *discovery = NULL;

    (void)state;
    rig_init(&rig, 1);
    assert_int_equal(weir_fleet_open(&rig.fleet_opts, &rig.fleet, &why), WEIR_OK);
    assert_int_equal(weir_loop_open(0, &rig.loop, &why), WEIR_OK);
    weir_buf_init(&record, 0);
    weir_replica_record_write(&record, &rig.records[0]);
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    dprintf(fd,
            "{\"entries\":{\"replicas/test/model/replica-0\":%.*s,\"replicas/test/model/bad\":{\"id\":7}}}",
            (int)weir_buf_len(&record), weir_buf_ptr(&record));
    close(fd);
    snprintf(source, sizeof source, "file:%s", path);
    struct weir_discovery_opts opts = {
        .source = source, .prefix = "/weir/", .on_snapshot = weir_fleet_on_snapshot, .ctx = rig.fleet
    };
    if (weir_discovery_open(&opts, &discovery, &why) != WEIR_OK)
        fail_msg("%s", why.text);
    rig_until_usable(&rig, 1);
    weir_discovery_close(discovery);
    unlink(path);
    weir_buf_release(&record);
    rig_stop(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_fleet_attaches_and_is_described),
        cmocka_unit_test(test_who_says_something_else_is_ejected),
        cmocka_unit_test(test_who_says_no_hello_is_tried_again),
        cmocka_unit_test(test_a_replica_that_comes_back_is_attached_again),
        cmocka_unit_test(test_a_replica_without_a_record_serves_while_its_stream_lives),
        cmocka_unit_test(test_a_draining_replica_finishes_and_takes_nothing_new),
        cmocka_unit_test(test_another_incarnation_is_another_replica),
        cmocka_unit_test(test_a_silent_replica_is_cut_and_its_calls_are_lost),
        cmocka_unit_test(test_records_past_a_bound_are_skipped_the_rest_holds),
        cmocka_unit_test(test_a_view_from_discovery),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
