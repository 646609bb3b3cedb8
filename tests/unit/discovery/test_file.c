/* test_file.c - a fleet in a file: edits appear, broken files change nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "harness.h"

static char path[64], source[80];

static int setup(void **state)
{
    (void)state;
    strcpy(path, "/tmp/weir-test-file-XXXXXX");
    int fd = mkstemp(path);
    if (fd < 0)
        return 1;
    close(fd);
    snprintf(source, sizeof source, "file:%s", path);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    return 0;
}

static void write_file(const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static struct weir_discovery_opts opts(void)
{
    return (struct weir_discovery_opts){ .source = source, .prefix = "/weir/" };
}

static int64_t revision_of(struct view *v, const char *key)
{
    const struct weir_disc_snapshot *snap = weir_discovery_snapshot(v->d);
    const struct weir_disc_entry *entry = weir_disc_find(snap, weir_str(key));
    int64_t revision = entry ? entry->revision : -1;
    weir_disc_snapshot_unref(snap);
    return revision;
}

static void test_edits_appear_and_broken_files_change_nothing(void **state)
{
    struct view v;
    (void)state;
    write_file(
        "{\"note\":\"mine\",\"entries\":{\"keys/a\":{\"account\":\"demo\"},\"models/m\":{\"id\": \"m\"}}}");
    view_open(&v, opts());
    assert_true(view_wait(&v, "/weir/keys/a", "{\"account\":\"demo\"}"));
    assert_true(view_has(&v, "/weir/models/m", "{\"id\": \"m\"}"));
    assert_true(view_wait_connected(&v, true));
    int64_t before = revision_of(&v, "/weir/models/m"), changed = revision_of(&v, "/weir/keys/a");
    view_mark(&v);
    write_file("{\"entries\":{\"keys/a\":"); /* an editor at work */
    assert_true(view_wait_connected(&v, false));
    assert_int_equal(view_n_snapshots(&v), 0);
    assert_true(view_has(&v, "/weir/keys/a", "{\"account\":\"demo\"}"));
    write_file("{\"entries\":{\"keys/a\":{\"account\":\"other\"},\"models/m\":{\"id\": \"m\"}}}");
    assert_true(view_wait(&v, "/weir/keys/a", "{\"account\":\"other\"}"));
    assert_int_equal(view_n_snapshots(&v), 1);
    assert_int_equal(revision_of(&v, "/weir/models/m"), before); /* did not change */
    assert_true(revision_of(&v, "/weir/keys/a") > changed);
    unlink(path);
    assert_true(view_wait_connected(&v, false));
    assert_true(view_has(&v, "/weir/keys/a", "{\"account\":\"other\"}"));
    write_file("{\"entries\":{}}"); /* an empty fleet is a choice */
    assert_true(view_wait(&v, "/weir/keys/a", NULL));
    assert_true(view_has(&v, "/weir/models/m", NULL));
    view_close(&v);
}

/* [F2] Same size, and likely the same time stamp as the one read: found by the second look. */
static void test_two_writes_in_one_tick_are_both_seen(void **state)
{
    struct view v;
    (void)state;
    write_file("{\"entries\":{\"keys/a\":1}}");
    view_open(&v, opts());
    assert_true(view_wait(&v, "/weir/keys/a", "1"));
    run_command(
        "cp -p %s %s.keep && printf '{\"entries\":{\"keys/a\":2}}' > %s && touch -r %s.keep %s; rm %s.keep",
        path, path, path, path, path, path);
    assert_true(view_wait(&v, "/weir/keys/a", "2"));
    view_close(&v);
}

static void test_the_last_of_two_equal_names_wins_and_values_may_be_anything(void **state)
{
    struct weir_discovery_opts o = opts();
    const struct weir_disc_snapshot *snap;
    (void)state;
    write_file("{\"entries\":{\"keys/a\":1,\"keys/a\":[2, null],\"k\\u0065ys/b\":\"x\"}}");
    assert_int_equal(weir_discovery_read(&o, "/weir/keys/", &snap, NULL), WEIR_OK);
    assert_int_equal(snap->n_entries, 2);
    assert_true(weir_str_eq(snap->entries[0].value, "[2, null]"));
    assert_true(weir_str_eq(snap->entries[1].key, "/weir/keys/b"));
    weir_disc_snapshot_unref(snap);
    assert_int_equal(weir_discovery_read(&o, "/weir/models/", &snap, NULL), WEIR_OK);
    assert_int_equal(snap->n_entries, 0);
    weir_disc_snapshot_unref(snap);
}

static void test_faults_name_the_file_and_the_place(void **state)
{
    struct weir_discovery_opts o = opts();
    const struct weir_disc_snapshot *snap;
    struct weir_disc_op put = { WEIR_DISC_PUT, WEIR_STR("/weir/k"), WEIR_STR("1") };
    struct weir_why why = { 0 };
    (void)state;
    write_file("{}");
    assert_int_equal(weir_discovery_read(&o, "/weir/", &snap, &why), WEIR_INVALID);
    assert_non_null(strstr(why.text, path));
    assert_string_equal(why.param, "entries");
    write_file("{\"entries\":{\"keys/a\":{]}}");
    assert_int_equal(weir_discovery_read(&o, "/weir/", &snap, &why), WEIR_INVALID);
    assert_non_null(strstr(why.text, "keys/a"));
    unlink(path);
    assert_int_equal(weir_discovery_read(&o, "/weir/", &snap, &why), WEIR_IO);
    assert_non_null(strstr(why.text, "No such file"));
    assert_int_equal(weir_discovery_txn(&o, NULL, 0, &put, 1, &why), WEIR_UNIMPLEMENTED);
}

static void test_registrations_are_taken_and_ignored(void **state)
{
    struct view v;
    (void)state;
    write_file("{\"entries\":{\"keys/a\":1}}");
    view_open(&v, opts());
    assert_int_equal(weir_discovery_register(v.d, "/weir/routers/r", WEIR_STR("1")), WEIR_OK);
    assert_int_equal(weir_discovery_register(v.d, "/elsewhere/r", WEIR_STR("1")), WEIR_INVALID);
    weir_discovery_unregister(v.d, "/weir/routers/r");
    assert_true(view_wait(&v, "/weir/keys/a", "1"));
    assert_true(view_has(&v, "/weir/routers/r", NULL));
    view_close(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_edits_appear_and_broken_files_change_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_two_writes_in_one_tick_are_both_seen, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_last_of_two_equal_names_wins_and_values_may_be_anything,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_faults_name_the_file_and_the_place, setup, teardown),
        cmocka_unit_test_setup_teardown(test_registrations_are_taken_and_ignored, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
