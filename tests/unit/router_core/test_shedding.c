/* test_shedding.c - ramp clocks stand from a deployment's first shed until some seconds after its last. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "router/call/shedding.h"
#include "router/limits/limits.h"

#define S 1000000000ull
#define START (100 * S)

static struct weir_limits *limits;
static struct weir_shedding *shedding;
static uint64_t now, n_calls;

static int setup(void **state)
{
    struct weir_limits_opts opts = { .self = 7 };

    (void)state;
    weir_limit_table_init(&opts.table);
    assert_int_equal(weir_limits_open(&opts, START, &limits, NULL), WEIR_OK);
    assert_int_equal(weir_shedding_open(limits, &shedding, NULL), WEIR_OK);
    now = START;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    weir_shedding_close(shedding);
    weir_limits_close(limits);
    return 0;
}

/* An account that uses nine tenths of 6,000 generated tokens a minute of the deployment for so many seconds. */
static void use(const char *deployment, int seconds)
{
    static const struct weir_limits_account numbers = {
        .pays = true, .start = { 60e6, 60e6, 6000 }, .upper = { 6e9, 6e9, 6e5 }, .requests = 6e6
    };

    for (int i = 0; i < seconds; i++, now += S) {
        struct weir_limits_verdict verdict;
        uint8_t id[16] = { 0 };
        uint64_t n = ++n_calls;
        memcpy(id, &n, sizeof n);
        struct weir_limits_ask ask = { .account = weir_str("a"),
                                       .deployment = weir_str(deployment),
                                       .numbers = &numbers,
                                       .call_id = id,
                                       .expect_output = 90,
                                       .n = 1 };
        assert_int_equal(weir_limits_reserve(limits, &ask, now, &verdict), WEIR_OK);
        weir_limits_settle(limits, ask.account, id, 10, 0, 90, now);
        for (int k = 0; k < 64; k++)
            weir_limits_sweep(limits, now + (uint64_t)k);
        weir_shedding_sweep(shedding, now);
    }
}

static double clock_of(const char *deployment)
{
    struct weir_limits_view view;

    weir_limits_show(limits, weir_str("a"), weir_str(deployment), now, &view, NULL, 0);
    return view.found ? view.meters[WEIR_METER_GENERATED].clock_s : -1;
}

static void test_clocks_stand_while_a_deployment_sheds(void **state)
{
    (void)state;
    use("llama", 120);
    double before = clock_of("llama");
    assert_true(before > 30);
    for (int i = 0; i < 30; i++) { /* a shed every second */
        weir_shedding_note(shedding, weir_str("llama"), now);
        use("llama", 1);
    }
    assert_true(fabs(clock_of("llama") - before) < 1.5);
    use("llama", 60); /* quiet: from some seconds on it runs again */
    assert_true(clock_of("llama") > before + 40);
    assert_true(clock_of("llama") < before + 60);
}

static void test_other_deployments_run_on(void **state)
{
    (void)state;
    use("llama", 120);
    double before = clock_of("llama");
    weir_shedding_note(shedding, weir_str("mistral"), now);
    use("llama", 4);
    assert_true(clock_of("llama") > before + 2);
}

static void test_more_deployments_than_places(void **state)
{
    char name[32];

    (void)state;
    for (int i = 0; i < 2 * WEIR_SHEDDING_MAX; i++) {
        snprintf(name, sizeof name, "m%d", i);
        weir_shedding_note(shedding, weir_str(name), now);
    }
    weir_shedding_sweep(shedding, now + WEIR_SHEDDING_QUIET_NS); /* all places are free again */
    use("llama", 120);
    double before = clock_of("llama");
    weir_shedding_note(shedding, weir_str("llama"), now);
    use("llama", 4);
    assert_true(fabs(clock_of("llama") - before) < 1.5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_clocks_stand_while_a_deployment_sheds, setup, teardown),
        cmocka_unit_test_setup_teardown(test_other_deployments_run_on, setup, teardown),
        cmocka_unit_test_setup_teardown(test_more_deployments_than_places, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
