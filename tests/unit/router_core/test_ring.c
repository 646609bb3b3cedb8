/* The ring: an order for each key that only the members decide. */
#include "tests/unit/router_core/cm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "router/route/ring.h"

enum { MEMBERS_MAX = 300, KEYS = 1000 };

static uint64_t key_of(uint64_t i)
{
    return weir_hash64(&i, sizeof i, 42);
}

/* Members "replica-<first>" and so on, in rising order of place. */
static struct weir_ring make(struct weir_ring_member *members, uint32_t first, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        char id[32];
        int len = snprintf(id, sizeof id, "replica-%u", first + i);
        members[i] =
            (struct weir_ring_member){ .hash = weir_ring_hash((struct weir_str){ id, (size_t)len }) };
    }
    return (struct weir_ring){ .members = members, .n = n };
}

static uint64_t first_hash(const struct weir_ring *ring, uint64_t key)
{
    uint32_t at;

    assert_int_equal(weir_ring_pick(ring, key, NULL, 1, &at), 1);
    return ring->members[at].hash;
}

static void test_two_share_evenly_and_a_third_takes_its_part_only(void **state)
{
    struct weir_ring_member two[2], three[3];
    struct weir_ring a = make(two, 0, 2), b = make(three, 0, 3);
    int n_first = 0, n_moved = 0;

    (void)state;
    for (uint64_t i = 0; i < KEYS; i++) {
        uint64_t before = first_hash(&a, key_of(i)), after = first_hash(&b, key_of(i));
        n_first += before == two[0].hash;
        n_moved += before != after;
        if (before != after) /* [R2] */
            assert_true(after == three[2].hash);
    }
    assert_in_range(n_first, 425, 575);
    assert_in_range(n_moved, 250, 420);
}

/* [R2] One of 50 leaves: its own keys move, all to where they were second; no other key does. */
static void test_leaving_moves_only_its_own_keys(void **state)
{
    struct weir_ring_member fifty[50], rest[50];
    struct weir_ring all = make(fifty, 0, 50);
    int n_moved = 0;

    (void)state;
    memcpy(rest, fifty, sizeof rest);
    memmove(&rest[17], &rest[18], 32 * sizeof rest[0]);
    struct weir_ring less = { .members = rest, .n = 49 };
    for (uint64_t i = 0; i < 20 * KEYS; i++) {
        uint32_t order[2];
        weir_ring_pick(&all, key_of(i), NULL, 2, order);
        uint64_t after = first_hash(&less, key_of(i));
        bool owned = order[0] == 17;
        n_moved += owned;
        assert_true(after == fifty[order[owned ? 1 : 0]].hash);
    }
    assert_in_range(n_moved, 20 * KEYS / 50 * 7 / 10, 20 * KEYS / 50 * 13 / 10);
}

/* [R1] Two routers that list the members differently agree on the whole order. */
static void test_the_order_does_not_depend_on_places(void **state)
{
    struct weir_ring_member here[60], there[60];
    struct weir_ring a = make(here, 0, 60), b = { .members = there, .n = 60 };

    (void)state;
    for (int i = 0; i < 60; i++)
        there[i] = here[(i * 7 + 13) % 60];
    for (uint64_t i = 0; i < 100; i++) {
        uint32_t order_a[60], order_b[60];
        assert_int_equal(weir_ring_pick(&a, key_of(i), NULL, 60, order_a), 60);
        assert_int_equal(weir_ring_pick(&b, key_of(i), NULL, 60, order_b), 60);
        for (int k = 0; k < 60; k++)
            assert_true(here[order_a[k]].hash == there[order_b[k]].hash);
    }
}

/* [R3] Skipping gives the order of the rest. */
static void test_skipping_keeps_the_order_of_the_rest(void **state)
{
    struct weir_ring_member members[40];
    struct weir_ring ring = make(members, 0, 40);

    (void)state;
    for (uint64_t i = 0; i < 200; i++) {
        uint32_t all[40], some[40], n = 0;
        bool skip[40];
        for (int k = 0; k < 40; k++)
            skip[k] = key_of(i * 40 + (uint64_t)k) % 3 == 0;
        weir_ring_pick(&ring, key_of(i), NULL, 40, all);
        uint32_t n_some = weir_ring_pick(&ring, key_of(i), skip, 40, some);
        for (int k = 0; k < 40; k++)
            if (!skip[all[k]])
                assert_int_equal(all[k], some[n++]);
        assert_int_equal(n, n_some);
        assert_int_equal(weir_ring_pick(&ring, key_of(i), skip, 3, some), n_some < 3 ? n_some : 3);
    }
}

static void test_a_large_fleet_shares_evenly(void **state)
{
    static struct weir_ring_member members[MEMBERS_MAX];
    static int count[MEMBERS_MAX];
    struct weir_ring ring = make(members, 0, MEMBERS_MAX);

    (void)state;
    for (uint64_t i = 0; i < MEMBERS_MAX * 400; i++) {
        uint32_t at;
        weir_ring_pick(&ring, key_of(i), NULL, 1, &at);
        count[at]++;
    }
    for (int i = 0; i < MEMBERS_MAX; i++) /* 400 +- 5 standard deviations */
        assert_in_range(count[i], 300, 500);
}

static void test_empty_rings_and_no_wish(void **state)
{
    struct weir_ring_member one[1];
    struct weir_ring ring = make(one, 0, 1), none = { .n = 0 };
    const bool skip[1] = { true };
    uint32_t at;

    (void)state;
    assert_int_equal(weir_ring_pick(&none, 1, NULL, 1, &at), 0);
    assert_int_equal(weir_ring_pick(&ring, 1, NULL, 0, &at), 0);
    assert_int_equal(weir_ring_pick(&ring, 1, skip, 1, &at), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_share_evenly_and_a_third_takes_its_part_only),
        cmocka_unit_test(test_leaving_moves_only_its_own_keys),
        cmocka_unit_test(test_the_order_does_not_depend_on_places),
        cmocka_unit_test(test_skipping_keeps_the_order_of_the_rest),
        cmocka_unit_test(test_a_large_fleet_shares_evenly),
        cmocka_unit_test(test_empty_rings_and_no_wish),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
