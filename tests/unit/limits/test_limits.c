/* test_limits.c - one router's limits: what is admitted, refused, held, settled, forgotten; how limits grow; pages. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "base/buf.h"
#include "router/limits/limits_int.h"

#define S 1000000000ull
#define START (5000 * S)

static struct weir_limits *open_limits(void)
{
    struct weir_limits_opts opts = { .self = 7 };
    struct weir_limits *lim = NULL;

    weir_limit_table_init(&opts.table);
    assert_int_equal(weir_limits_open(&opts, START, &lim, NULL), WEIR_OK);
    return lim;
}

/* 6,000 generated tokens a minute = 100 a second, so a burst of 1,000; prompts never matter. */
static const struct weir_limits_account small = {
    .pays = true, .size = 2, .start = { 60e6, 60e6, 6000 }, .upper = { 60e6, 60e6, 6000 }, .requests = 6e6
};

static uint32_t last_call;

static bool ask_n(struct weir_limits *lim, const struct weir_limits_account *numbers, uint32_t output,
                  uint32_t n, uint64_t now_ns, struct weir_limits_verdict *ret, uint8_t id[16])
{
    memset(id, 0, 16);
    last_call++;
    memcpy(id, &last_call, sizeof last_call);
    struct weir_limits_ask ask = { .account = weir_str("acme"),
                                   .deployment = weir_str("llama"),
                                   .numbers = numbers,
                                   .call_id = id,
                                   .prompt_bytes = 400,
                                   .n = n,
                                   .expect_output = output };
    assert_int_equal(weir_limits_reserve(lim, &ask, now_ns, ret), WEIR_OK);
    return ret->admitted;
}

static bool ask(struct weir_limits *lim, uint32_t output, uint64_t now_ns, uint8_t id[16])
{
    struct weir_limits_verdict verdict;
    return ask_n(lim, &small, output, 1, now_ns, &verdict, id);
}

static double held(struct weir_limits *lim, enum weir_meter meter, uint64_t now_ns)
{
    struct weir_limits_view view;

    weir_limits_show(lim, weir_str("acme"), weir_str(meter == WEIR_METER_REQUESTS ? "" : "llama"), now_ns,
                     &view, NULL, 0);
    for (int i = 0; i < view.n_meters; i++)
        if (view.meters[i].meter == meter)
            return view.meters[i].held;
    return -1;
}

static double level(struct weir_limits *lim, enum weir_meter meter, uint64_t now_ns)
{
    struct weir_limits_view view;

    weir_limits_show(lim, weir_str("acme"), weir_str("llama"), now_ns, &view, NULL, 0);
    assert_true(view.found);
    return view.meters[meter].level;
}

/* [L1] and the wait: exactly so long, given no other traffic. */
static void test_refusal_spends_nothing(void **state)
{
    struct weir_limits *lim = open_limits();
    struct weir_limits_verdict verdict;
    uint8_t id[16];

    (void)state;
    assert_true(ask(lim, 900, START, id));
    assert_false(ask_n(lim, &small, 200, 1, START, &verdict, id));
    assert_int_equal(verdict.meter, WEIR_METER_GENERATED);
    assert_true(fabs(verdict.limit - 6000) < 1e-6);
    assert_true(fabs(verdict.used - 900) < 1e-6);
    assert_true(held(lim, WEIR_METER_GENERATED, START) == 900);
    assert_true(held(lim, WEIR_METER_REQUESTS, START) == 1);
    /* 100 too many, at 100 a second; a hold does not drain, what it was settled to does */
    assert_true(llabs((long long)verdict.wait_ns - (long long)S) < 1000);
    id[0] = 1;
    weir_limits_close(lim);
}

static void test_wait_is_exact(void **state)
{
    struct weir_limits *lim = open_limits();
    struct weir_limits_verdict verdict;
    uint8_t first[16], id[16];

    (void)state;
    assert_true(ask(lim, 900, START, first));
    weir_limits_settle(lim, weir_str("acme"), first, 100, 0, 900, START);
    assert_false(ask_n(lim, &small, 350, 1, START, &verdict, id));
    struct weir_limits_view refused;
    weir_limits_show(lim, weir_str("acme"), weir_str("llama"), START, &refused, NULL, 0);
    assert_false(refused.last_refusal.admitted);
    assert_true(llabs((long long)verdict.wait_ns - 2500000000ll) < 1000);
    assert_false(ask(lim, 350, START + verdict.wait_ns - 10000000, id));
    assert_true(ask(lim, 350, START + verdict.wait_ns + 1000, id));
    weir_limits_close(lim);
}

/* Several meters are full: it waits for the slowest, and that one is named. */
static void test_wait_is_the_longest(void **state)
{
    const struct weir_limits_account both = {
        .pays = true, .size = 2, .start = { 6000, 60e6, 600 }, .upper = { 6000, 60e6, 600 }, .requests = 6e6
    };
    struct weir_limits *lim = open_limits();
    struct weir_limits_verdict verdict;
    uint8_t first[16], id[16];

    (void)state;
    assert_true(ask_n(lim, &both, 100, 1, START, &verdict, first));
    weir_limits_settle(lim, weir_str("acme"), first, 1000, 0, 100, START);
    assert_false(ask_n(lim, &both, 50, 1, START, &verdict, id)); /* prompts: 1 s or so; output: 5 s */
    assert_int_equal(verdict.meter, WEIR_METER_GENERATED);
    assert_true(llabs((long long)verdict.wait_ns - (long long)(5 * S)) < 1000);
    weir_limits_close(lim);
}

/* A stream may outlive its hold, and all its account's other traffic: its keys stay while it runs. */
static void test_long_streams_keep_their_keys(void **state)
{
    struct weir_limits *lim = open_limits();
    struct weir_limits_stats stats;
    uint64_t now_ns = START;
    uint8_t id[16];

    (void)state;
    assert_true(ask(lim, 10, now_ns, id));
    weir_limits_started(lim, weir_str("acme"), id, 100, 0, now_ns);
    weir_limits_charge(lim, weir_str("acme"), id, 10, now_ns);
    for (int minute = 0; minute < 50; minute++, now_ns += 60 * S)
        for (int i = 0; i < 8; i++)
            weir_limits_sweep(lim, now_ns);
    weir_limits_stats(lim, &stats);
    assert_int_equal(stats.keys, 2);
    weir_limits_settle(lim, weir_str("acme"), id, 100, 0, 500, now_ns);
    assert_true(fabs(level(lim, WEIR_METER_GENERATED, now_ns) - 490) < 1e-6);
    weir_limits_close(lim);
}

/* [L2] [L3] Holds become use, once. */
static void test_settled_once(void **state)
{
    struct weir_limits *lim = open_limits();
    struct weir_limits_stats stats;
    uint8_t id[16];

    (void)state;
    assert_true(ask(lim, 500, START, id));
    weir_limits_started(lim, weir_str("acme"), id, 120, 20, START);
    assert_true(level(lim, WEIR_METER_PROMPT, START) == 120);
    assert_true(level(lim, WEIR_METER_UNCACHED, START) == 100);
    assert_true(held(lim, WEIR_METER_PROMPT, START) == 0);
    weir_limits_charge(lim, weir_str("acme"), id, 30, START); /* eats the hold first */
    assert_true(level(lim, WEIR_METER_GENERATED, START) == 30);
    assert_true(held(lim, WEIR_METER_GENERATED, START) == 470);
    for (int i = 0; i < 3; i++)
        weir_limits_settle(lim, weir_str("acme"), id, 120, 20, 40, START);
    weir_limits_charge(lim, weir_str("acme"), id, 99, START);
    assert_true(level(lim, WEIR_METER_GENERATED, START) == 40);
    assert_true(level(lim, WEIR_METER_DAY, START) == 160);
    assert_true(held(lim, WEIR_METER_GENERATED, START) == 0);
    weir_limits_stats(lim, &stats);
    assert_int_equal(stats.holds, 0);
    assert_int_equal(stats.admitted_tokens[WEIR_METER_GENERATED], 40);
    assert_int_equal(stats.admitted_tokens[WEIR_METER_UNCACHED], 100);
    weir_limits_close(lim);
}

static void test_call_that_never_started_costs_nothing(void **state)
{
    struct weir_limits *lim = open_limits();
    uint8_t id[16];

    (void)state;
    assert_true(ask(lim, 500, START, id));
    weir_limits_settle(lim, weir_str("acme"), id, 0, 0, 0, START);
    for (int m = 0; m < WEIR_METER_REQUESTS; m++) {
        assert_true(level(lim, m, START) == 0);
        assert_true(held(lim, m, START) == 0);
    }
    assert_true(held(lim, WEIR_METER_REQUESTS, START) == 0);
    weir_limits_close(lim);
}

static void test_one_hold_a_call_id(void **state)
{
    struct weir_limits *lim = open_limits();
    struct weir_limits_verdict verdict;
    uint8_t id[16] = { 9 };
    struct weir_limits_ask again = { .account = weir_str("acme"),
                                     .deployment = weir_str("llama"),
                                     .numbers = &small,
                                     .call_id = id,
                                     .n = 1,
                                     .expect_output = 600 };

    (void)state;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(weir_limits_reserve(lim, &again, START, &verdict), WEIR_OK);
        assert_true(verdict.admitted);
    }
    assert_true(held(lim, WEIR_METER_GENERATED, START) == 600);
    weir_limits_close(lim);
}

/* A hold that nobody settles counts as used, after its time. */
static void test_hold_expires(void **state)
{
    struct weir_limits *lim = open_limits();
    struct weir_limits_stats stats;
    uint8_t id[16];
    uint64_t later = START + 3601 * S;

    (void)state;
    assert_true(ask(lim, 800, START, id));
    for (int i = 0; i < 8; i++)
        weir_limits_sweep(lim, START + 3000 * S);
    assert_true(held(lim, WEIR_METER_GENERATED, later) == 800);
    for (int i = 0; i < 8; i++)
        weir_limits_sweep(lim, later);
    weir_limits_stats(lim, &stats);
    assert_int_equal(stats.expired, 1);
    assert_int_equal(stats.holds, 0);
    assert_true(held(lim, WEIR_METER_GENERATED, later) == 0);
    assert_true(level(lim, WEIR_METER_GENERATED, later) == 800);
    weir_limits_close(lim);
}

static void test_oversized_leaves_a_debt(void **state)
{
    struct weir_limits *lim = open_limits();
    struct weir_limits_verdict verdict;
    uint8_t id[16];

    (void)state;
    assert_true(ask(lim, 5000, START, id)); /* five buckets; it was empty */
    weir_limits_settle(lim, weir_str("acme"), id, 100, 0, 5000, START);
    assert_false(ask_n(lim, &small, 10, 1, START, &verdict, id));
    assert_true(llabs((long long)verdict.wait_ns - 40100000000ll) < 1000000);
    assert_false(ask(lim, 5000, START + 45 * S, id)); /* not empty yet */
    assert_true(ask(lim, 5000, START + 51 * S, id));
    weir_limits_close(lim);
}

static void test_completions_count(void **state)
{
    struct weir_limits *lim = open_limits();
    struct weir_limits_account few = small;
    struct weir_limits_verdict verdict;
    uint8_t id[16];

    (void)state;
    few.requests = 10;
    assert_true(ask_n(lim, &few, 1, 8, START, &verdict, id));
    assert_true(fabs(verdict.limits[WEIR_METER_REQUESTS] - 10) < 1e-6);
    assert_false(ask_n(lim, &few, 1, 3, START, &verdict, id));
    assert_int_equal(verdict.meter, WEIR_METER_REQUESTS);
    assert_true(ask_n(lim, &few, 1, 2, START, &verdict, id));
    weir_limits_close(lim);
}

static void test_without_payment_ten_a_minute(void **state)
{
    struct weir_limits *lim = open_limits();
    struct weir_limits_account poor = { .pays = false, .size = 2 };
    struct weir_limits_verdict verdict;
    uint8_t id[16];
    int n = 0;

    (void)state;
    while (n < 100 && ask_n(lim, &poor, 1, 1, START, &verdict, id))
        n++;
    assert_int_equal(n, 10);
    assert_true(fabs((double)verdict.wait_ns / 1e9 - 6) < 0.01); /* one more each six seconds */
    weir_limits_close(lim);
}

static void test_a_day_has_an_end(void **state)
{
    struct weir_limits *lim = open_limits();
    struct weir_limits_account numbers = small;
    struct weir_limits_verdict verdict;
    uint8_t id[16];

    (void)state;
    numbers.day_tokens = 3000;
    assert_true(ask_n(lim, &numbers, 900, 1, START, &verdict, id));
    weir_limits_settle(lim, weir_str("acme"), id, 2000, 0, 900, START);
    assert_false(ask_n(lim, &numbers, 100, 1, START + 600 * S, &verdict, id));
    assert_int_equal(verdict.meter, WEIR_METER_DAY);
    assert_true(fabs(verdict.limit - 3000) < 1e-3);
    weir_limits_close(lim);
}

static void test_legacy_admits_and_says_so(void **state)
{
    struct weir_limits *lim = open_limits();
    struct weir_limits_account legacy = small;
    struct weir_limits_verdict verdict;
    uint8_t id[16];

    (void)state;
    legacy.legacy = true;
    assert_true(ask_n(lim, &legacy, 1000, 1, START, &verdict, id));
    assert_false(verdict.over_limit);
    assert_true(ask_n(lim, &legacy, 1000, 1, START, &verdict, id));
    assert_true(verdict.over_limit);
    assert_true(held(lim, WEIR_METER_GENERATED, START) == 2000);
    weir_limits_close(lim);
}

/* ---- the ramp ---- */
/* A caller at its limit, second by second, for so many minutes; the limit in the end, of the start. */
static double run_at_limit(struct weir_limits *lim, const struct weir_limits_account *numbers, double share,
                           int minutes, uint64_t *now_ns)
{
    struct weir_limits_view view = { 0 };
    struct weir_limits_verdict verdict;
    uint8_t id[16];

    for (int s = 0; s < minutes * 60; s++) {
        weir_limits_show(lim, weir_str("acme"), weir_str("llama"), *now_ns, &view, NULL, 0);
        double limit = view.found && view.n_meters > 2 ? view.meters[WEIR_METER_GENERATED].limit : 6000;
        uint32_t tokens = (uint32_t)(share * limit / 60);
        if (tokens > 0 && ask_n(lim, numbers, tokens, 1, *now_ns, &verdict, id))
            weir_limits_settle(lim, weir_str("acme"), id, 10, 0, tokens, *now_ns);
        *now_ns += S;
        for (int i = 0; i < 8; i++)
            weir_limits_sweep(lim, *now_ns);
    }
    weir_limits_show(lim, weir_str("acme"), weir_str("llama"), *now_ns, &view, NULL, 0);
    return view.meters[WEIR_METER_GENERATED].limit / view.meters[WEIR_METER_GENERATED].lower;
}

static void test_ramp(void **state)
{
    struct weir_limits *lim = open_limits();
    struct weir_limits_account grows = small;
    uint64_t now = START;

    (void)state;
    grows.upper[WEIR_METER_GENERATED] = 30 * 6000;
    grows.day_tokens = 1e15;
    assert_true(fabs(run_at_limit(lim, &grows, 0.99, 10, &now) - 2) < 0.05);
    assert_true(fabs(run_at_limit(lim, &grows, 0.99, 50, &now) - 12) < 0.2);
    double held_at = run_at_limit(lim, &grows, 0.4, 10,
                                  &now); /* between the shares: stands still, but for a minute's memory */
    assert_true(fabs(held_at - 12.2) < 0.3);
    assert_true(fabs(run_at_limit(lim, &grows, 0.99, 60, &now) - 24) < 0.5);
    double back = run_at_limit(lim, &grows, 0.1, 61, &now);
    assert_true(fabs(back - 12) < 0.5);
    run_at_limit(lim, &grows, 0, 120, &now); /* back to the lower bound [L4], and forgotten */
    struct weir_limits_verdict verdict;
    uint8_t id[16];
    assert_true(ask_n(lim, &grows, 1, 1, now, &verdict, id));
    assert_true(fabs(verdict.limits[WEIR_METER_GENERATED] - 6000) < 1e-6);
    weir_limits_close(lim);
}

static void test_ramp_stops_at_its_bound_and_while_shedding(void **state)
{
    struct weir_limits *lim = open_limits();
    struct weir_limits_account grows = small;
    uint64_t now = START;

    (void)state;
    grows.upper[WEIR_METER_GENERATED] = 3 * 6000;
    grows.day_tokens = 1e15;
    weir_limits_set_shedding(lim, weir_str("llama"), true);
    assert_true(fabs(run_at_limit(lim, &grows, 0.99, 5, &now) - 1) < 1e-9);
    weir_limits_set_shedding(lim, weir_str("llama"), false);
    assert_true(fabs(run_at_limit(lim, &grows, 0.99, 60, &now) - 3) < 1e-9);
    weir_limits_close(lim);
}

/* Loops' clocks are as old as their turns: a request that comes with the older one adds to the demand, and takes no
 * time back. */
static void test_a_clock_that_is_behind_forgets_no_demand(void **state)
{
    struct weir_limits *lim = open_limits();
    struct weir_limits_view view;
    struct weir_limits_part part;
    uint64_t now = START + S;
    uint8_t id[16];

    (void)state;
    assert_true(ask(lim, 100, now, id));
    weir_limits_show(lim, weir_str("acme"), weir_str("llama"), now, &view, &part, 1);
    double once = part.demand;
    assert_true(once > 0);
    assert_true(ask(lim, 100, now - S / 1000, id));
    weir_limits_show(lim, weir_str("acme"), weir_str("llama"), now - S / 1000, &view, &part, 1);
    assert_true(part.demand > 1.9 * once);
    weir_limits_show(lim, weir_str("acme"), weir_str("llama"), now, &view, &part, 1);
    assert_true(part.demand > 1.9 * once);
    weir_limits_close(lim);
}

/* Whoever looks with a clock that is a little behind sees a refusal of this moment, not one of centuries ago. */
static void test_a_refusal_is_never_in_the_future(void **state)
{
    struct weir_limits *lim = open_limits();
    struct weir_limits_view view;
    uint8_t id[16];

    (void)state;
    assert_true(ask(lim, 1000, START, id));
    assert_false(ask(lim, 1000, START, id));
    weir_limits_show(lim, weir_str("acme"), weir_str("llama"), START - 1, &view, NULL, 0);
    assert_int_equal(view.last_refusal_ago_ns, 0);
    weir_limits_close(lim);
}

static void test_table(void **state)
{
    struct weir_limits *lim = open_limits();
    struct weir_limits_account plain = { .pays = true, .size = 0, .tier = 0 };
    struct weir_limits_verdict verdict;
    struct weir_limits_view view;
    struct weir_limit_table table;
    struct weir_why why;
    uint8_t id[16];

    (void)state;
    assert_true(ask_n(lim, &plain, 1, 1, START, &verdict, id));
    assert_true(fabs(verdict.limits[WEIR_METER_PROMPT] - 3.6e6) < 1);
    assert_true(fabs(verdict.limits[WEIR_METER_UNCACHED] - 900e3) < 1);
    assert_true(fabs(verdict.limits[WEIR_METER_GENERATED] - 36e3) < 1);
    weir_limits_show(lim, weir_str("acme"), weir_str("llama"), START, &view, NULL, 0);
    assert_true(fabs(view.meters[WEIR_METER_GENERATED].upper - 648e3) < 1);
    weir_limit_table_init(&table);
    table.start[WEIR_METER_GENERATED] = 72e3;
    weir_limits_set_table(lim, &table);
    assert_true(ask_n(lim, &plain, 1, 1, START, &verdict, id));
    assert_true(fabs(verdict.limits[WEIR_METER_GENERATED] - 72e3) < 1);
    table.ramp_factor[2] = 1;
    assert_int_equal(weir_limit_table_check(&table, &why), WEIR_INVALID);
    assert_string_equal(why.param, "ramp");
    weir_limits_close(lim);
}

/* ---- memory ---- */
static void test_keys_at_rest_are_forgotten(void **state)
{
    struct weir_limits *lim = open_limits();
    struct weir_limits_stats stats;
    uint8_t id[16];

    (void)state;
    assert_true(ask(lim, 10, START, id));
    weir_limits_settle(lim, weir_str("acme"), id, 10, 0, 10, START);
    weir_limits_stats(lim, &stats);
    assert_int_equal(stats.keys, 2); /* the deployment's and the account's */
    for (int i = 0; i < 8; i++)
        weir_limits_sweep(lim, START + 1000 * S);
    weir_limits_stats(lim, &stats);
    assert_int_equal(stats.keys, 0);
    weir_limits_close(lim);
}

static void test_beyond_the_bound_nothing_is_metered(void **state)
{
    struct weir_limits_opts opts = { .self = 7, .keys_max = 2 };
    struct weir_limits *lim = NULL;
    struct weir_limits_verdict verdict;
    struct weir_limits_stats stats;
    char name[16];

    (void)state;
    weir_limit_table_init(&opts.table);
    assert_int_equal(weir_limits_open(&opts, START, &lim, NULL), WEIR_OK);
    for (uint8_t i = 0; i < 5; i++) {
        uint8_t id[16] = { i + 1 };
        snprintf(name, sizeof name, "a%d", i);
        struct weir_limits_ask one = { .account = weir_str(name),
                                       .deployment = weir_str("llama"),
                                       .numbers = &small,
                                       .call_id = id,
                                       .n = 1 };
        assert_int_equal(weir_limits_reserve(lim, &one, START, &verdict), WEIR_OK);
        assert_true(verdict.admitted);
    }
    weir_limits_stats(lim, &stats);
    assert_int_equal(stats.keys, 2);
    assert_int_equal(stats.unmetered, 4);
    weir_limits_close(lim);
}

/* ---- pages: a start from what was written down ---- */
static void test_pages(void **state)
{
    struct weir_limits *lim = open_limits(), *again = open_limits();
    struct weir_limits_account grows = small;
    uint64_t now = START;
    struct weir_limits_view before, after;
    uint64_t written_ms = 0;
    struct weir_why why;

    (void)state;
    grows.upper[WEIR_METER_GENERATED] = 30 * 6000;
    grows.day_tokens = 1e15;
    run_at_limit(lim, &grows, 0.99, 10, &now);
    uint8_t id[16];
    struct weir_limits_verdict verdict;
    assert_true(ask_n(lim, &grows, 1500, 1, now, &verdict, id));
    weir_limits_settle(lim, weir_str("acme"), id, 10, 0, 1500, now);
    weir_limits_show(lim, weir_str("acme"), weir_str("llama"), now, &before, NULL, 0);
    for (uint32_t page = 0; page < WEIR_LIMITS_PAGES; page++) {
        struct weir_buf out;
        weir_buf_init(&out, 0);
        assert_int_equal(weir_limits_page_write(lim, page, now, 1000000, &out), WEIR_OK);
        struct weir_str json = { weir_buf_ptr(&out), weir_buf_len(&out) };
        assert_int_equal(weir_limits_page_read(again, json, now, 1000000 + 2000, &written_ms, &why),
                         WEIR_OK); /* two seconds later */
        assert_int_equal(written_ms, 1000000);
        weir_buf_release(&out);
    }
    assert_true(ask_n(again, &grows, 1, 1, now, &verdict, id));
    weir_limits_show(again, weir_str("acme"), weir_str("llama"), now, &after, NULL, 0);
    assert_true(fabs(after.meters[2].limit - before.meters[2].limit) < 0.01 * before.meters[2].limit);
    assert_true(fabs(before.meters[2].level - after.meters[2].level - 2 * before.meters[2].limit / 60) < 5);
    weir_limits_close(lim);
    weir_limits_close(again);
}

static void test_bad_pages_are_refused(void **state)
{
    static const char *const bad[] = { "",
                                       "[]",
                                       "{\"keys\":[[1]]}",
                                       "{\"keys\":[[\"xyz\",0]]}",
                                       "{\"keys\":[[\"0123456789abcd\",0,-1]]}",
                                       "{\"wall_ms\":-1}" };
    struct weir_limits *lim = open_limits();
    struct weir_limits_stats stats;
    struct weir_why why;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(weir_limits_page_read(lim, weir_str(bad[i]), START, 1, NULL, &why), WEIR_CORRUPT);
    weir_limits_stats(lim, &stats);
    assert_int_equal(stats.keys, 0);
    weir_limits_close(lim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refusal_spends_nothing),
        cmocka_unit_test(test_wait_is_exact),
        cmocka_unit_test(test_wait_is_the_longest),
        cmocka_unit_test(test_long_streams_keep_their_keys),
        cmocka_unit_test(test_settled_once),
        cmocka_unit_test(test_call_that_never_started_costs_nothing),
        cmocka_unit_test(test_one_hold_a_call_id),
        cmocka_unit_test(test_hold_expires),
        cmocka_unit_test(test_oversized_leaves_a_debt),
        cmocka_unit_test(test_completions_count),
        cmocka_unit_test(test_without_payment_ten_a_minute),
        cmocka_unit_test(test_a_day_has_an_end),
        cmocka_unit_test(test_legacy_admits_and_says_so),
        cmocka_unit_test(test_ramp),
        cmocka_unit_test(test_ramp_stops_at_its_bound_and_while_shedding),
        cmocka_unit_test(test_a_clock_that_is_behind_forgets_no_demand),
        cmocka_unit_test(test_a_refusal_is_never_in_the_future),
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_keys_at_rest_are_forgotten),
        cmocka_unit_test(test_beyond_the_bound_nothing_is_metered),
        cmocka_unit_test(test_pages),
        cmocka_unit_test(test_bad_pages_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
