/* test_pages.c - pages of the limits in a real etcd: a restart resets nobody's meters, pages of routers that are gone go,
 * and an etcd that is away holds nothing up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/metrics.h"
#include "router/exchange/pages.h"
#include "tests/unit/discovery/harness.h"

static struct etcd_proc etcd;

static struct weir_limits *open_limits(uint64_t self)
{
    struct weir_limits_opts opts = { .self = self };
    struct weir_limits *lim;

    weir_limit_table_init(&opts.table);
    assert_int_equal(weir_limits_open(&opts, weir_now_ns(), &lim, NULL), WEIR_OK);
    return lim;
}

static void use(struct weir_limits *lim, const char *account, uint32_t output)
{
    static const struct weir_limits_account numbers = { .pays = true, .size = 2 };
    static uint8_t call_id[16];
    struct weir_limits_verdict verdict;
    struct weir_limits_ask ask = { .account = weir_str(account),
                                   .deployment = weir_str("llama"),
                                   .numbers = &numbers,
                                   .call_id = call_id,
                                   .n = 1 };

    assert_int_equal(weir_limits_reserve(lim, &ask, weir_now_ns(), &verdict), WEIR_OK);
    assert_true(verdict.admitted);
    weir_limits_settle(lim, ask.account, call_id, 10, 0, output, weir_now_ns());
    call_id[0]++;
}

static struct weir_pages *open_pages(struct weir_limits *lim, const char *router)
{
    struct weir_pages_opts opts = {
        .limits = lim, .router = router, .prefix = "/weir/", .source = view_opts(&etcd)
    };
    struct weir_pages *pages;
    struct weir_why why;

    assert_int_equal(weir_pages_open(&opts, &pages, &why), WEIR_OK);
    assert_int_equal(weir_pages_start(pages, &why), WEIR_OK);
    return pages;
}

static uint64_t counted(const char *name)
{
    return weir_counter_get(weir_counter(name, "", ""));
}

static bool is_there(const char *key)
{
    struct weir_discovery_opts opts = view_opts(&etcd);
    struct weir_buf value;
    int64_t revision;

    weir_buf_init(&value, 0);
    weir_err err = weir_discovery_get(&opts, weir_str(key), &value, &revision, NULL);
    weir_buf_release(&value);
    assert_true(err == WEIR_OK || err == WEIR_NOTFOUND);
    return err == WEIR_OK;
}

static void test_a_restart_resets_nobodys_meters(void **state)
{
    struct weir_limits *before = open_limits(1), *after = open_limits(2);
    struct weir_limits_view view;

    (void)state;
    struct weir_pages *pages = open_pages(before, "router-1");
    use(before, "acme", 30000); /* a burst and a debt of more than half a minute */
    weir_pages_close(pages);
    pages = open_pages(after, "router-2");
    weir_limits_show(after, weir_str("acme"), weir_str("llama"), weir_now_ns(), &view, NULL, 0);
    assert_true(view.found);
    assert_true(view.meters[WEIR_METER_GENERATED].level > 10000);
    weir_pages_close(pages);
    weir_limits_close(before);
    weir_limits_close(after);
}

static void test_pages_of_routers_long_gone_are_removed(void **state)
{
    struct weir_limits *lim = open_limits(3);
    char fresh[64];
    uint64_t before = counted("weir_limit_pages_removed_total");

    (void)state;
    snprintf(fresh, sizeof fresh, "{\"wall_ms\":%llu,\"keys\":[]}",
             (unsigned long long)(weir_wall_ns() / WEIR_MS));
    etcd_proc_put(&etcd, "/weir-limits/07/gone", "{\"wall_ms\":1,\"keys\":[]}");
    etcd_proc_put(&etcd, "/weir-limits/08/gone", "{\"wall_ms\":1,\"keys\":[]}");
    etcd_proc_put(&etcd, "/weir-limits/07/lives", fresh);
    etcd_proc_put(&etcd, "/weir-limits/07/broken", "{");
    etcd_proc_put(&etcd, "/weir-limits/07/router-3", "{\"wall_ms\":1,\"keys\":[]}"); /* our own */
    weir_pages_close(open_pages(lim, "router-3"));
    assert_false(is_there("/weir-limits/07/gone"));
    assert_false(is_there("/weir-limits/08/gone"));
    assert_true(is_there("/weir-limits/07/lives"));
    assert_true(is_there("/weir-limits/07/broken"));
    assert_true(is_there("/weir-limits/07/router-3"));
    assert_int_equal(counted("weir_limit_pages_removed_total"), before + 2);
    weir_limits_close(lim);
}

/* [P1] A page that somebody else has written under our name is read again before it is written over. */
static void test_a_namesakes_page_is_written_over_knowingly(void **state)
{
    struct weir_limits *lim = open_limits(4);
    uint64_t failed = counted("weir_limit_pages_failed_total");
    struct weir_pages *pages = open_pages(lim, "router-4");
    char key[64];

    (void)state;
    for (int i = 0; i < WEIR_LIMITS_PAGES; i++) {
        snprintf(key, sizeof key, "/weir-limits/%02d/router-4", i);
        etcd_proc_put(&etcd, key, "{\"keys\":[]}");
    }
    use(lim, "globex", 100);
    weir_pages_close(pages);
    assert_int_equal(counted("weir_limit_pages_failed_total"), failed + 1);
    weir_limits_close(lim);
}

/* [P2] */
static void test_the_end_does_not_wait_for_an_etcd_that_is_gone(void **state)
{
    struct weir_limits *lim = open_limits(5);
    struct weir_pages *pages = open_pages(lim, "router-5");
    char account[16];

    (void)state;
    etcd_proc_kill(&etcd);
    for (int i = 0; i < 1000; i++) { /* of every page */
        snprintf(account, sizeof account, "a%d", i);
        use(lim, account, 10);
    }
    uint64_t before = counted("weir_limit_pages_failed_total");
    weir_pages_close(pages);
    assert_in_range(counted("weir_limit_pages_failed_total"), before + 1,
                    before + 2); /* its own and a last round's */
    weir_limits_close(lim);
}

static int start_etcd(void **state)
{
    (void)state;
    etcd_proc_init(&etcd, /* tls= */ false);
    etcd_proc_start(&etcd);
    return 0;
}

static int stop_etcd(void **state)
{
    (void)state;
    etcd_proc_release(&etcd);
    return 0;
}

int main(void)
{
    if (!etcd_is_installed()) {
        printf("SKIP: no etcd binary\n");
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_restart_resets_nobodys_meters),
        cmocka_unit_test(test_pages_of_routers_long_gone_are_removed),
        cmocka_unit_test(test_a_namesakes_page_is_written_over_knowingly),
        cmocka_unit_test(test_the_end_does_not_wait_for_an_etcd_that_is_gone),
    };
    return cmocka_run_group_tests(tests, start_etcd, stop_etcd);
}
