/* test_regs.c - the table of wanted keys: what is still to be told to etcd after each thing that can happen.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "discovery/regs.h"
#include "discovery/snapshot.h"

static struct regs regs;
static struct weir_buf key, value;

static int setup(void **state)
{
    (void)state;
    regs_init(&regs);
    weir_buf_init(&key, 0);
    weir_buf_init(&value, 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    regs_release(&regs);
    weir_buf_release(&key);
    weir_buf_release(&value);
    return 0;
}

static struct regs_work next(const char *want_key, const char *want_value)
{
    struct regs_work work = { 0 };
    assert_true(regs_next(&regs, &key, &value, &work));
    assert_string_equal(weir_buf_cstr(&key), want_key);
    assert_int_equal(work.is_delete, want_value == NULL);
    if (want_value)
        assert_string_equal(weir_buf_cstr(&value), want_value);
    return work;
}

static void test_a_value_is_put_once_and_again_when_the_lease_is_lost(void **state)
{
    (void)state;
    assert_false(regs_wants_lease(&regs));
    assert_int_equal(regs_set(&regs, "k", WEIR_STR("1")), WEIR_OK);
    assert_int_equal(regs_set(&regs, "k", WEIR_STR("2")), WEIR_OK); /* before etcd was told: one put */
    assert_true(regs_wants_lease(&regs));
    regs_done(&regs, WEIR_STR("k"), next("k", "2").gen, 5);
    assert_false(regs_is_behind(&regs));
    regs_lost(&regs);
    next("k", "2");
}

/* [G2] */
static void test_an_old_acknowledgement_does_not_hide_a_newer_value(void **state)
{
    (void)state;
    assert_int_equal(regs_set(&regs, "k", WEIR_STR("1")), WEIR_OK);
    struct regs_work work = next("k", "1");
    assert_int_equal(regs_set(&regs, "k", WEIR_STR("2")), WEIR_OK);
    regs_done(&regs, WEIR_STR("k"), work.gen, 5);
    next("k", "2");
}

/* [G1] */
static void test_a_removed_key_is_deleted_then_forgotten(void **state)
{
    (void)state;
    assert_int_equal(regs_set(&regs, "k", WEIR_STR("1")), WEIR_OK);
    regs_done(&regs, WEIR_STR("k"), next("k", "1").gen, 5);
    regs_remove(&regs, "k");
    regs_remove(&regs, "never there");
    struct regs_work work = next("k", NULL);
    assert_int_equal(regs_set(&regs, "k", WEIR_STR("2")),
                     WEIR_OK); /* wanted again while the delete is on its way */
    regs_done(&regs, WEIR_STR("k"), work.gen, 6);
    regs_done(&regs, WEIR_STR("k"), next("k", "2").gen, 7);
    regs_remove(&regs, "k");
    regs_done(&regs, WEIR_STR("k"), next("k", NULL).gen, 8);
    assert_int_equal(regs.n, 0);
    assert_int_equal(regs_set(&regs, "k", WEIR_STR("1")), WEIR_OK);
    regs_remove(&regs, "k");
    regs_lost(&regs); /* it went with the lease */
    assert_int_equal(regs.n, 0);
}

static void test_only_a_key_that_vanished_is_put_again(void **state)
{
    const struct weir_disc_snapshot *empty, *other;
    struct snapshot_change theirs = { .key = WEIR_STR("k"), .value = WEIR_STR("theirs"), .revision = 6 };
    (void)state;
    assert_int_equal(snapshot_apply(NULL, NULL, 0, 1, &empty, NULL), WEIR_OK);
    assert_int_equal(snapshot_apply(NULL, &theirs, 1, 6, &other, NULL), WEIR_OK);
    assert_int_equal(regs_set(&regs, "k", WEIR_STR("1")), WEIR_OK);
    regs_done(&regs, WEIR_STR("k"), next("k", "1").gen, 5);
    assert_int_equal(regs_check(&regs, empty, 4), 0); /* the view is older than our put */
    assert_int_equal(regs_check(&regs, other, 6), 0); /* taken over by another: no fight */
    assert_int_equal(regs_check(&regs, empty, 7), 1);
    next("k", "1");
    weir_disc_snapshot_unref(empty);
    weir_disc_snapshot_unref(other);
}

static void test_bounds(void **state)
{
    static char big[REGS_VALUE_MAX + 1];
    char name[16];
    (void)state;
    assert_int_equal(regs_set(&regs, "k", (struct weir_str){ big, sizeof big }), WEIR_TOOLARGE);
    for (int i = 0; i < REGS_MAX; i++) {
        snprintf(name, sizeof name, "k%d", i);
        assert_int_equal(regs_set(&regs, name, WEIR_STR("")), WEIR_OK);
    }
    assert_int_equal(regs_set(&regs, "more", WEIR_STR("")), WEIR_FULL);
    assert_int_equal(regs_set(&regs, "k3", WEIR_STR("x")), WEIR_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_value_is_put_once_and_again_when_the_lease_is_lost, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_an_old_acknowledgement_does_not_hide_a_newer_value, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_removed_key_is_deleted_then_forgotten, setup, teardown),
        cmocka_unit_test_setup_teardown(test_only_a_key_that_vanished_is_put_again, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bounds, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
