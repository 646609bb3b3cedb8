/* test_limit_table.c - the table reads back as written, patches touch what they name, bad fields are named, and a bad record leaves
 * the last good one standing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "router/tenancy/limit_table.h"

static struct weir_arena arena;
static struct weir_why why;

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

static weir_err patch(struct weir_limit_table *table, const char *json)
{
    memset(&why, 0, sizeof why);
    return weir_limit_table_read(weir_str(json), &arena, /* is_patch= */ true, table, &why);
}

static void test_patch_and_round_trip(void **state)
{
    struct weir_limit_table table, back, defaults;
    struct weir_buf out;

    (void)state;
    weir_limit_table_init(&table);
    weir_limit_table_init(&defaults);
    assert_int_equal(patch(&table, "{\"start\":{\"tokensGenerated\":72000},\"start\":{\"tokensPrompt\":1e6},"
                                   "\"ceiling\":{\"MEDIUM\":{\"tokensCacheAdjustedPrompt\":7}},"
                                   "\"tierFactor\":[1,2,3,4,5.5],\"dayTokens\":{\"LARGE\":0},\"requests\":9,"
                                   "\"requestsUnpaid\":3,\"burstSeconds\":2.5,\"requestsBurstSeconds\":30,"
                                   "\"rampMinutes\":[0,1,2,3],\"rampFactor\":[1,2,4,8],\"runShare\":0.75,"
                                   "\"holdShare\":0.5,\"holdTtlSeconds\":60,\"keyRestSeconds\":61}"),
                     WEIR_OK);
    assert_float_equal(table.start[WEIR_METER_GENERATED], 72000, 0);
    assert_float_equal(table.start[WEIR_METER_PROMPT], 1e6, 0);
    assert_float_equal(table.start[WEIR_METER_UNCACHED], defaults.start[WEIR_METER_UNCACHED], 0);
    assert_float_equal(table.ceiling[1][WEIR_METER_UNCACHED], 7, 0);
    assert_float_equal(table.ceiling[0][WEIR_METER_UNCACHED], defaults.ceiling[0][WEIR_METER_UNCACHED], 0);
    assert_float_equal(table.tier_factor[4], 5.5, 0);
    assert_float_equal(table.day_tokens[2], 0, 0);
    assert_float_equal(table.burst_s, 2.5, 0);
    assert_int_equal(table.hold_ttl_s, 60);
    assert_int_equal(table.key_rest_s, 61);
    weir_buf_init(&out, 0);
    weir_limit_table_write(&out, &table);
    memset(&back, 0, sizeof back);
    weir_limit_table_init(&back);
    struct weir_str json = { weir_buf_ptr(&out), weir_buf_len(&out) };
    assert_int_equal(weir_limit_table_read(json, &arena, /* is_patch= */ true, &back, &why), WEIR_OK);
    assert_memory_equal(&back.start, &table.start, sizeof back.start);
    assert_memory_equal(&back.ceiling, &table.ceiling, sizeof back.ceiling);
    assert_memory_equal(&back.tier_factor, &table.tier_factor, sizeof back.tier_factor);
    assert_memory_equal(&back.day_tokens, &table.day_tokens, sizeof back.day_tokens);
    assert_memory_equal(&back.ramp_minutes, &table.ramp_minutes, sizeof back.ramp_minutes);
    assert_memory_equal(&back.ramp_factor, &table.ramp_factor, sizeof back.ramp_factor);
    assert_float_equal(back.requests, 9, 0);
    assert_float_equal(back.requests_unpaid, 3, 0);
    assert_float_equal(back.requests_burst_s, 30, 0);
    assert_float_equal(back.run_share, 0.75, 0);
    assert_float_equal(back.hold_share, 0.5, 0);
    assert_int_equal(back.hold_ttl_s, 60);
    weir_buf_release(&out);
}

static void test_bad_fields_are_named(void **state)
{
    static const struct {
        const char *json, *field;
    } bad[] = {
        { "{\"start\":{\"tokensGenerated\":0}}", "start.tokensGenerated" },
        { "{\"start\":{\"tokensGenerated\":1e16}}", "start.tokensGenerated" },
        { "{\"start\":{\"generated\":1}}", "start.generated" },
        { "{\"ceiling\":{\"SMALL\":{\"tokensPrompt\":-1}}}", "ceiling.SMALL.tokensPrompt" },
        { "{\"ceiling\":{\"HUGE\":{}}}", "ceiling.HUGE" },
        { "{\"tierFactor\":[1,1,1,1]}", "tierFactor" },
        { "{\"dayTokens\":{\"SMALL\":-1}}", "dayTokens.SMALL" },
        { "{\"burstSeconds\":\"10\"}", "burstSeconds" },
        { "{\"rampMinutes\":[0,10,10,120]}", "rampMinutes" },
        { "{\"rampFactor\":[2,3,4,5]}", "rampFactor" },
        { "{\"runShare\":0.1}", "runShare" },
        { "{\"holdTtlSeconds\":0}", "holdTtlSeconds" },
        { "{\"keyRestSeconds\":604801}", "keyRestSeconds" },
        { "{\"burst\":5}", "burst" },
    };
    struct weir_limit_table table, before;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        weir_limit_table_init(&table);
        before = table;
        assert_int_equal(patch(&table, bad[i].json), WEIR_INVALID);
        assert_string_equal(why.param, bad[i].field);
        assert_memory_equal(&table.start, &before.start, sizeof table.start); /* nothing by halves */
    }
    assert_int_equal(patch(&table, "{\"tierFactor\":[1,1,1,1,1,1]}"), WEIR_INVALID);
    assert_int_equal(patch(&table, "[]"), WEIR_INVALID);
    /* A record of a newer Weir. */
    assert_int_equal(weir_limit_table_read(weir_str("{\"more\":[1],\"requests\":5}"), &arena,
                                           /* is_patch= */ false, &table, &why),
                     WEIR_OK);
    assert_float_equal(table.requests, 5, 0);
}

static uint64_t n_calls;

static double start_now(struct weir_limits *limits)
{
    struct weir_limits_account account = { .pays = true };
    struct weir_limits_verdict verdict = { .admitted = false };
    uint8_t id[16] = { (uint8_t)++n_calls };
    struct weir_limits_ask ask = {
        .account = weir_str("a"), .deployment = weir_str("m"), .numbers = &account, .call_id = id, .n = 1
    };

    assert_int_equal(weir_limits_reserve(limits, &ask, 1000000000, &verdict), WEIR_OK);
    return verdict.limits[WEIR_METER_GENERATED];
}

static void show(struct weir_table_watch *watch, const char *json, int64_t revision)
{
    struct weir_disc_entry entry = { .key = weir_str("/weir/limits-table"),
                                     .value = weir_str(json ? json : ""),
                                     .revision = revision };
    struct weir_disc_snapshot snap = { .entries = &entry, .n_entries = json ? 1 : 0 };

    weir_table_watch_on_snapshot(watch, &snap);
}

static void test_the_record_is_followed(void **state)
{
    struct weir_limits_opts opts = { .self = 7 };
    struct weir_limits *limits;
    struct weir_table_watch *watch;

    (void)state;
    weir_limit_table_init(&opts.table);
    assert_int_equal(weir_limits_open(&opts, 1000000000, &limits, &why), WEIR_OK);
    assert_int_equal(weir_table_watch_open("/weir/", limits, &watch, &why), WEIR_OK);
    show(watch, NULL, 0);
    assert_float_equal(start_now(limits), 36e3, 1);
    show(watch, "{\"start\":{\"tokensGenerated\":72000}}", 5);
    assert_float_equal(start_now(limits), 72e3, 1);
    show(watch, "{\"start\":{\"tokensGenerated\":-1}}", 6); /* the last good one stays */
    assert_float_equal(start_now(limits), 72e3, 1);
    show(watch, "{\"start\":{\"tokensGenerated\":48000}}", 7);
    assert_float_equal(start_now(limits), 48e3, 1);
    show(watch, NULL, 0);
    assert_float_equal(start_now(limits), 36e3, 1);
    weir_table_watch_close(watch);
    weir_limits_close(limits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_patch_and_round_trip, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_fields_are_named, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_record_is_followed, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
