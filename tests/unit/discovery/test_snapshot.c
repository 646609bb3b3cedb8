/* test_snapshot.c - snapshots against a plain model, and what sharing must not break. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "discovery/snapshot.h"

static struct snapshot_change put(const char *key, const char *value, int64_t revision)
{
    return (struct snapshot_change){ .key = weir_str(key), .value = weir_str(value), .revision = revision };
}

static struct snapshot_change del(const char *key, int64_t revision)
{
    return (struct snapshot_change){ .key = weir_str(key), .revision = revision, .is_delete = true };
}

static const struct weir_disc_snapshot *apply(const struct weir_disc_snapshot *base,
                                              const struct snapshot_change *c, int n)
{
    const struct weir_disc_snapshot *snap = NULL;
    assert_int_equal(snapshot_apply(base, c, n, /* revision= */ 1, &snap, NULL), WEIR_OK);
    return snap;
}

static const char *value_of(const struct weir_disc_snapshot *snap, const char *key)
{
    static char text[64];
    const struct weir_disc_entry *entry = weir_disc_find(snap, weir_str(key));
    if (!entry)
        return NULL;
    snprintf(text, sizeof text, "%.*s", WEIR_STR_FMT(entry->value));
    return text;
}

/* [S1] Random bursts of puts and deletes give what an array of slots gives. */
static void test_apply_equals_a_plain_model(void **state)
{
    enum { KEYS = 24, ROUNDS = 400, BURST = 12 };
    char names[KEYS][8], values[BURST][32];
    char model[KEYS][32] = { "" };
    const struct weir_disc_snapshot *snap = apply(NULL, NULL, 0);
    (void)state;
    srand(7);
    for (int k = 0; k < KEYS; k++)
        snprintf(names[k], sizeof names[k], "k%x", k * 37 % 256);
    for (int round = 0; round < ROUNDS; round++) {
        struct snapshot_change changes[BURST];
        int n = rand() % (BURST + 1), n_alive = 0;
        for (int i = 0; i < n; i++) {
            int k = rand() % KEYS;
            snprintf(values[i], sizeof values[i], "v%d.%d", round, i);
            bool is_delete = rand() % 3 == 0;
            changes[i] = is_delete ? del(names[k], round) : put(names[k], values[i], round);
            memcpy(model[k], is_delete ? "" : values[i], is_delete ? 1 : sizeof values[i]);
        }
        const struct weir_disc_snapshot *next = apply(snap, changes, n);
        for (int k = 0; k < KEYS; k++) {
            const char *value = value_of(next, names[k]);
            assert_true(model[k][0] ? value && strcmp(value, model[k]) == 0 : value == NULL);
            n_alive += model[k][0] != '\0';
        }
        assert_int_equal(next->n_entries, n_alive);
        for (int i = 1; i < next->n_entries; i++)
            assert_true(weir_str_cmp(next->entries[i - 1].key, next->entries[i].key) < 0);
        weir_disc_snapshot_unref(snap);
        snap = next;
    }
    weir_disc_snapshot_unref(snap);
}

/* [S2] An old snapshot reads the same after it was followed by others, and outlives and is outlived by them.
 */
static void test_an_old_snapshot_is_untouched_by_the_next(void **state)
{
    struct snapshot_change first[] = { put("a", "1", 1), put("b", "1", 1) };
    struct snapshot_change second[] = { put("a", "2", 2), del("b", 2), put("c", "2", 2) };
    const struct weir_disc_snapshot *s1 = apply(NULL, first, 2), *s2 = apply(s1, second, 3);
    (void)state;
    assert_string_equal(value_of(s1, "a"), "1");
    assert_string_equal(value_of(s1, "b"), "1");
    assert_null(value_of(s1, "c"));
    assert_true(s2->version > s1->version); /* [S3] */
    weir_disc_snapshot_unref(s1);
    assert_string_equal(value_of(s2, "a"), "2");
    assert_null(value_of(s2, "b"));
    const struct weir_disc_snapshot *again = weir_disc_snapshot_ref(s2);
    weir_disc_snapshot_unref(s2);
    assert_string_equal(value_of(again, "c"), "2");
    weir_disc_snapshot_unref(again);
}

static void test_the_later_change_of_a_key_wins(void **state)
{
    struct snapshot_change c[] = { put("x", "1", 1), del("x", 2), put("x", "3", 3), put("y", "1", 1),
                                   del("y", 2) };
    const struct weir_disc_snapshot *snap = apply(NULL, c, 5);
    (void)state;
    assert_int_equal(snap->n_entries, 1);
    assert_string_equal(value_of(snap, "x"), "3");
    assert_int_equal(snap->entries[0].revision, 3);
    weir_disc_snapshot_unref(snap);
}

static void test_prefix_finds_the_range_and_nothing_else(void **state)
{
    struct snapshot_change c[] = { put("/a/1", "", 1), put("/a/2", "", 1), put("/a", "", 1),
                                   put("/a0", "", 1),  put("/b/1", "", 1), put("/\xff", "", 1) };
    const struct weir_disc_snapshot *snap = apply(NULL, c, 6);
    const struct weir_disc_entry *first = NULL;
    (void)state;
    assert_int_equal(weir_disc_prefix(snap, "/a/", &first), 2);
    assert_true(weir_str_eq(first[0].key, "/a/1"));
    assert_true(weir_str_eq(first[1].key, "/a/2"));
    assert_int_equal(weir_disc_prefix(snap, "/a", &first), 4);
    assert_int_equal(weir_disc_prefix(snap, "/c", &first), 0);
    assert_int_equal(weir_disc_prefix(snap, "", &first), 6);
    assert_int_equal(weir_disc_prefix(NULL, "", &first), 0);
    assert_null(weir_disc_find(snap, WEIR_STR("/a/")));
    assert_null(weir_disc_find(NULL, WEIR_STR("/a")));
    weir_disc_snapshot_unref(snap);
}

static bool is_b(void *ctx, const struct weir_disc_entry *entry)
{
    (void)ctx;
    return weir_str_eq(entry->key, "b");
}

static void test_union_and_filter(void **state)
{
    struct snapshot_change under_c[] = { put("a", "old", 1), put("b", "old", 1) };
    struct snapshot_change over_c[] = { put("b", "new", 2), put("c", "new", 2) };
    const struct weir_disc_snapshot *under = apply(NULL, under_c, 2), *over = apply(NULL, over_c, 2), *both,
                                    *less;
    (void)state;
    assert_int_equal(snapshot_union(under, over, &both, NULL), WEIR_OK);
    assert_int_equal(both->n_entries, 3);
    assert_string_equal(value_of(both, "a"), "old");
    assert_string_equal(value_of(both, "b"), "new");
    assert_int_equal(snapshot_filter(both, is_b, NULL, &less, NULL), WEIR_OK);
    assert_int_equal(less->n_entries, 2);
    assert_null(value_of(less, "b"));
    weir_disc_snapshot_unref(under);
    weir_disc_snapshot_unref(over);
    weir_disc_snapshot_unref(both);
    weir_disc_snapshot_unref(less);
}

static void test_build_keeps_the_entry_whose_value_did_not_change(void **state)
{
    struct snapshot_change old_c[] = { put("a", "same", 50), put("b", "before", 50), put("c", "gone", 50) };
    struct snapshot_change new_c[] = { put("a", "same", 3), put("b", "after", 4) };
    const struct weir_disc_snapshot *old = apply(NULL, old_c, 3), *fresh, *again;
    (void)state;
    assert_int_equal(snapshot_build(old, new_c, 2, 4, &fresh, NULL), WEIR_OK);
    assert_int_equal(fresh->n_entries, 2);
    assert_int_equal(weir_disc_find(fresh, WEIR_STR("a"))->revision, 50);
    assert_int_equal(weir_disc_find(fresh, WEIR_STR("b"))->revision, 4);
    assert_int_equal(snapshot_build(fresh, new_c, 2, 9, &again, NULL), WEIR_OK);
    assert_true(snapshot_same(fresh, again));
    assert_false(snapshot_same(fresh, old));
    weir_disc_snapshot_unref(old);
    weir_disc_snapshot_unref(fresh);
    weir_disc_snapshot_unref(again);
}

static void test_no_memory_is_an_error_and_leaks_nothing(void **state)
{
    struct snapshot_change c[] = { put("a", "1", 1), put("b", "1", 1), put("c", "1", 1) };
    const struct weir_disc_snapshot *snap = NULL;
    weir_err rc = WEIR_NOMEM;
    int n = 0;
    (void)state;
    for (; rc != WEIR_OK && n < 50; n++) {
        weir_test_alloc_budget(n);
        rc = snapshot_apply(NULL, c, 3, 1, &snap, NULL);
        weir_test_alloc_budget(-1);
        assert_true(rc == WEIR_OK ? snap != NULL : rc == WEIR_NOMEM && snap == NULL);
    }
    assert_true(n > 3 && rc == WEIR_OK);
    weir_disc_snapshot_unref(snap);
    weir_disc_snapshot_unref(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_apply_equals_a_plain_model),
        cmocka_unit_test(test_an_old_snapshot_is_untouched_by_the_next),
        cmocka_unit_test(test_the_later_change_of_a_key_wins),
        cmocka_unit_test(test_prefix_finds_the_range_and_nothing_else),
        cmocka_unit_test(test_union_and_filter),
        cmocka_unit_test(test_build_keeps_the_entry_whose_value_did_not_change),
        cmocka_unit_test(test_no_memory_is_an_error_and_leaks_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
