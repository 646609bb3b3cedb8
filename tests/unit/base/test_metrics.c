/* test_metrics.c - the registry and its text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/metrics.h"

static struct weir_buf text;

static const char *write_text(void)
{
    weir_buf_clear(&text);
    weir_metrics_write(&text);
    const char *all = weir_buf_cstr(&text);
    assert_non_null(all);
    return all;
}

static void test_same_name_and_labels_give_the_same_handle(void **state)
{
    (void)state;
    struct weir_counter *a = weir_counter("same_total", "x=\"1\"", "Help a.");
    assert_ptr_equal(a, weir_counter("same_total", "x=\"1\"", "Help b."));
    assert_ptr_not_equal(a, weir_counter("same_total", "x=\"2\"", "Help a."));
    weir_counter_add(a, 3);
    assert_int_equal(weir_counter_get(a), 3);
    const char *all = write_text();
    assert_non_null(strstr(all,
                           "# HELP same_total Help a.\n# TYPE same_total counter\nsame_total{x=\"1\"} 3\n"
                           "same_total{x=\"2\"} 0\n"));
    assert_null(strstr(all, "Help b."));
}

static void test_gauge_comes_and_goes(void **state)
{
    (void)state;
    struct weir_gauge *g = weir_gauge("slots", "replica=\"a\"", "Slots.");
    weir_gauge_set(g, 5);
    weir_gauge_add(g, -7);
    assert_int_equal(weir_gauge_get(g), -2);
    assert_non_null(strstr(write_text(), "\nslots{replica=\"a\"} -2\n"));
    weir_gauge_remove(g);
    assert_null(strstr(write_text(), "\nslots{"));
    weir_gauge_set(g, 1);
    assert_non_null(strstr(write_text(), "\nslots{replica=\"a\"} 1\n"));
}

/* [P2] */
static void test_histogram_buckets_are_cumulative(void **state)
{
    static const double bounds[] = { 0.1, 1, 10 };

    (void)state;
    struct weir_histogram *h = weir_histogram("wait_seconds", "", "Wait.", bounds, 3);
    struct weir_histogram *labelled = weir_histogram("wait_seconds", "op=\"x\"", "Wait.", NULL, 0);
    weir_histogram_observe(h, 0.05);
    weir_histogram_observe(h, 0.1); /* a bound belongs to its own bucket */
    weir_histogram_observe(h, 0.5);
    weir_histogram_observe(h, 100);
    weir_histogram_observe(h, (double)NAN); /* no observation at all */
    weir_histogram_observe(labelled, 5);
    const char *all = write_text();
    assert_non_null(strstr(all, "# TYPE wait_seconds histogram\n"
                                "wait_seconds_bucket{le=\"0.1\"} 2\n"
                                "wait_seconds_bucket{le=\"1\"} 3\n"
                                "wait_seconds_bucket{le=\"10\"} 3\n"
                                "wait_seconds_bucket{le=\"+Inf\"} 4\n"
                                "wait_seconds_sum 100.65\n"
                                "wait_seconds_count 4\n"
                                "wait_seconds_bucket{op=\"x\",le=\"0.1\"} 0\n"));
    assert_non_null(strstr(all, "wait_seconds_sum{op=\"x\"} 5\nwait_seconds_count{op=\"x\"} 1\n"));
}

static void test_families_are_sorted_and_the_process_is_there(void **state)
{
    static const char *const wanted[] = {
        "\nprocess_cpu_seconds_total ", "\nprocess_open_fds ",          "\nprocess_resident_memory_bytes ",
        "\nprocess_threads 1\n",        "\nweir_build_info{version=\"", "\nweir_checks_failed_total 0\n"
    };
    char last[128] = "", name[128];
    int n = 0;

    (void)state;
    weir_counter("zz_total", "", "Z.");
    weir_counter("aa_total", "", "A.");
    const char *all = write_text();
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++)
        if (!strstr(all, wanted[i]))
            fail_msg("no %s", wanted[i] + 1);
    for (const char *at = all; (at = strstr(at, "# TYPE ")); at++, n++) {
        assert_int_equal(sscanf(at, "# TYPE %127s", name), 1);
        assert_true(strcmp(last, name) < 0);
        strcpy(last, name);
    }
    assert_true(n >= 8);
    /* The memory of a running program is more than a page and less than the machine's. */
    double bytes = atof(strstr(all, wanted[2]) + strlen(wanted[2]));
    assert_true(bytes > 100000 && bytes < 1e12);
    assert_true(atof(strstr(all, wanted[1]) + strlen(wanted[1])) >= 3);
}

enum { N_THREADS = 8, N_ADDS = 20000 };

static void *update(void *arg)
{
    struct weir_histogram *h =
        weir_histogram("shared_seconds", "", "S.", weir_latency_bounds_s, weir_n_latency_bounds);

    for (int i = 0; i < N_ADDS; i++) {
        weir_counter_add(arg, 1);
        weir_histogram_observe(h, 0.25);
    }
    return NULL;
}

static void test_updates_of_threads_are_not_lost(void **state)
{
    pthread_t threads[N_THREADS];

    (void)state;
    struct weir_counter *c = weir_counter("shared_total", "", "S.");
    for (int i = 0; i < N_THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, update, c), 0);
    weir_buf_clear(&text);
    weir_metrics_write(&text); /* while they run */
    for (int i = 0; i < N_THREADS; i++)
        pthread_join(threads[i], NULL);
    const char *all = write_text();
    assert_non_null(strstr(all, "\nshared_total 160000\n"));
    assert_non_null(strstr(all, "\nshared_seconds_sum 40000\nshared_seconds_count 160000\n"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_name_and_labels_give_the_same_handle),
        cmocka_unit_test(test_gauge_comes_and_goes),
        cmocka_unit_test(test_histogram_buckets_are_cumulative),
        cmocka_unit_test(test_families_are_sorted_and_the_process_is_there),
        cmocka_unit_test(test_updates_of_threads_are_not_lost),
    };
    weir_buf_init(&text, 0);
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    weir_buf_release(&text);
    return rc;
}
