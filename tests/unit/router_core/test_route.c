/* The decision: affinity when it is cheap, a neighbour when it is not, and a refusal that says why. */
#include "tests/unit/router_core/cm.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "router/route/route.h"

enum { N = 8 };
#define NOW (100 * WEIR_S)

struct fleet {
    struct weir_load_view load[N];
    struct weir_ring_member members[N];
    struct weir_ring ring;
    struct weir_route_opts opts;
    struct weir_route_ask ask;
};

/* Idle, attached, heard of just now; the prefill rate is 1 token a millisecond. */
static void fleet_init(struct fleet *f)
{
    memset(f, 0, sizeof *f);
    for (int i = 0; i < N; i++) {
        char id[16];
        int len = snprintf(id, sizeof id, "r%d", i);
        f->load[i].usable = true;
        f->load[i].heard_ns = NOW;
        f->load[i].queue_max = 100;
        weir_load_set(&f->load[i], &(struct weir_load){ .slots = 4, .prefill_tokens_s = 1000 });
        f->members[i].hash = weir_ring_hash((struct weir_str){ id, (size_t)len });
        f->members[i].load = &f->load[i];
    }
    f->ring = (struct weir_ring){ .members = f->members, .n = N };
    weir_route_opts_init(&f->opts);
    f->ask = (struct weir_route_ask){
        .key = 7, .priority = 1, .prompt_tokens = 10, .now_ns = NOW, .random = 1ull << 63
    };
}

static void set_wait(struct fleet *f, uint32_t i, double wait_ms)
{
    weir_load_set(&f->load[i],
                  &(struct weir_load){ .slots = 4, .prefill_tokens_s = 1000, .predicted_wait_ms = wait_ms });
}

static uint32_t choose(struct fleet *f)
{
    struct weir_route_choice choice;
    struct weir_why why;

    assert_int_equal(weir_route_choose(&f->opts, &f->ring, &f->ask, &choice, &why), WEIR_OK);
    assert_int_equal(choice.reason, WEIR_ROUTE_PLACED);
    return choice.i_member;
}

static struct weir_route_choice refused(struct fleet *f, weir_err err)
{
    struct weir_route_choice choice;
    struct weir_why why = { .text = "" };

    assert_int_equal(weir_route_choose(&f->opts, &f->ring, &f->ask, &choice, &why), err);
    assert_true(strlen(why.text) > 10);
    return choice;
}

static void order_of(struct fleet *f, uint32_t order[N])
{
    assert_int_equal(weir_ring_pick(&f->ring, f->ask.key, NULL, N, order), N);
}

static void test_an_idle_fleet_keeps_affinity(void **state)
{
    struct fleet f;
    uint32_t order[N];

    (void)state;
    fleet_init(&f);
    for (uint64_t i = 0; i < 500; i++) {
        f.ask.key = weir_hash_mix(i, 3);
        order_of(&f, order);
        assert_int_equal(choose(&f), order[0]);
        set_wait(&f, order[0], 49); /* within the floor: still at home */
        assert_int_equal(choose(&f), order[0]);
        set_wait(&f, order[0], 0);
    }
}

/* [S2] Past the bound the key goes to its second, wherever it is asked; back once the load is gone. */
static void test_a_hot_replica_spills_to_the_next_candidate(void **state)
{
    struct fleet f;
    uint32_t order[N];

    (void)state;
    fleet_init(&f);
    order_of(&f, order);
    set_wait(&f, order[0], 1000);
    assert_int_equal(choose(&f), order[1]);
    set_wait(&f, order[1], 1000);
    assert_int_equal(choose(&f), order[2]);
    set_wait(&f, order[2], 1000); /* all that are scored are past the bound: the walk goes on */
    assert_int_equal(choose(&f), order[3]);
    set_wait(&f, order[0], 0);
    assert_int_equal(choose(&f), order[0]);
}

/* The bound is relative: when all are equally busy, everybody stays at home. */
static void test_a_busy_fleet_keeps_affinity_too(void **state)
{
    struct fleet f;
    uint32_t order[N];

    (void)state;
    fleet_init(&f);
    for (uint32_t i = 0; i < N; i++)
        set_wait(&f, i, 2000 + 10 * i);
    order_of(&f, order);
    assert_int_equal(choose(&f), order[0]);
}

/* Within the bound of all, but the second would be faster even with a cold cache: beyond the hysteresis it
 * wins. */
static void test_the_cost_of_a_cold_prompt_holds_a_key_at_home(void **state)
{
    struct fleet f;
    uint32_t order[N];

    (void)state;
    fleet_init(&f);
    for (uint32_t i = 0; i < N; i++)
        set_wait(&f, i, 1000);
    order_of(&f, order);
    set_wait(&f, order[0], 1200);
    set_wait(&f, order[1], 500);
    f.ask.prompt_tokens = 100; /* 100 ms of prefill: 600 against 1200 */
    assert_int_equal(choose(&f), order[1]);
    f.ask.prompt_tokens = 600; /* 1100 against 1200: home is good enough */
    assert_int_equal(choose(&f), order[0]);
}

static void test_what_was_sent_counts_until_the_replica_has_counted_it(void **state)
{
    struct fleet f;
    uint32_t order[N];

    (void)state;
    fleet_init(&f);
    order_of(&f, order);
    struct weir_load_view *home = &f.load[order[0]];
    for (int i = 0; i < 10; i++)
        weir_load_sent(home, 50); /* 500 ms of work in all */
    assert_int_equal(weir_load_unseen_tokens(home), 500);
    assert_int_equal(choose(&f), order[1]);
    set_wait(&f, order[0], 0); /* a load from before they arrived */
    assert_int_equal(choose(&f), order[1]);
    for (int i = 0; i < 10; i++)
        weir_load_acked(home, 50);
    assert_int_equal(choose(&f), order[1]); /* accepted, but the last load does not know yet */
    set_wait(&f, order[0], 0);
    assert_int_equal(weir_load_unseen_tokens(home), 0);
    assert_int_equal(weir_load_unseen_calls(home), 0);
    assert_int_equal(choose(&f), order[0]);
}

static void test_who_can_not_serve_is_skipped_in_order(void **state)
{
    struct fleet f;
    uint32_t order[N];

    (void)state;
    fleet_init(&f);
    order_of(&f, order);
    f.load[order[0]].usable = false;                      /* draining, ejected, not attached */
    f.load[order[1]].heard_ns = NOW - 4 * WEIR_S;         /* silent */
    f.ask.exclude[f.ask.n_exclude++] = &f.load[order[2]]; /* tried */
    for (int i = 0; i < 104; i++)
        weir_load_sent(&f.load[order[3]], 0); /* its queue and its slots are taken */
    assert_int_equal(choose(&f), order[4]);
    f.load[order[0]].usable = true;
    assert_int_equal(choose(&f), order[0]);
}

/* A frame may be newer than the turn in which a loop decides. */
static void test_a_frame_from_the_future_is_not_silence(void **state)
{
    struct fleet f;
    uint32_t order[N];

    (void)state;
    fleet_init(&f);
    order_of(&f, order);
    f.load[order[0]].heard_ns = NOW + WEIR_MS;
    assert_int_equal(choose(&f), order[0]);
}

static void test_a_full_queue_counts_free_slots(void **state)
{
    struct fleet f;
    struct weir_route_choice choice;

    (void)state;
    fleet_init(&f);
    f.ring.n = 1;
    for (int i = 0; i < 103; i++) /* queue of 100, 4 free slots */
        weir_load_sent(&f.load[0], 0);
    assert_int_equal(choose(&f), 0);
    weir_load_sent(&f.load[0], 0);
    choice = refused(&f, WEIR_OVERLOADED);
    assert_int_equal(choice.reason, WEIR_ROUTE_SATURATED);
}

/* [S1] Everybody in the key's neighbourhood is beyond the bound, but one far away has room. */
static void test_room_anywhere_is_found(void **state)
{
    struct fleet f;
    uint32_t order[N];

    (void)state;
    fleet_init(&f);
    order_of(&f, order);
    for (int i = 0; i < N - 1; i++)
        set_wait(&f, order[i], 40000); /* past the class's 30 s */
    assert_int_equal(choose(&f), order[N - 1]);
    /* And one that is past the load bound is taken rather than nobody. */
    f.load[order[N - 1]].usable = false;
    set_wait(&f, order[3], 29999);
    for (int i = 0; i < N; i++)
        if (i != 3)
            f.load[order[i]].waiting = 200;
    assert_int_equal(choose(&f), order[3]);
}

static void test_the_load_bound_gives_way_before_a_call_is_refused(void **state)
{
    struct fleet f;
    uint32_t order[N];

    (void)state;
    fleet_init(&f);
    order_of(&f, order);
    for (int i = 0; i < N; i++) { /* idle ones whose queue is full, and one busy one with room */
        f.load[order[i]].queue_max = i == 5 ? 100 : 1;
        for (int k = 0; k < 5 && i != 5; k++)
            weir_load_sent(&f.load[order[i]], 0);
    }
    set_wait(&f, order[5], 9000);
    assert_int_equal(choose(&f), order[5]);
}

/* Lower classes go first. */
static void test_classes_are_shed_in_order(void **state)
{
    static const double waits[] = { 0, 1000, 4000, 20000, 50000, 70000 };
    static const int n_admitted[] = { 4, 4, 3, 2, 1, 0 };
    struct fleet f;

    (void)state;
    fleet_init(&f);
    for (int w = 0; w < 6; w++) {
        int n = 0;
        for (uint32_t i = 0; i < N; i++)
            set_wait(&f, i, waits[w]);
        for (uint32_t p = 0; p < 4; p++) {
            struct weir_route_choice choice;
            f.ask.priority = p;
            bool ok = weir_route_choose(&f.opts, &f.ring, &f.ask, &choice, NULL) == WEIR_OK;
            assert_int_equal(ok, p < (uint32_t)n_admitted[w]);
            n += ok;
        }
        assert_int_equal(n, n_admitted[w]);
    }
    f.ask.priority = 200; /* what is not known is the lowest */
    set_wait(&f, 0, 3000);
    refused(&f, WEIR_OVERLOADED);
}

static void test_recovery_knows_no_class_bound(void **state)
{
    struct fleet f;

    (void)state;
    fleet_init(&f);
    for (uint32_t i = 0; i < N; i++)
        set_wait(&f, i, 100000);
    assert_int_equal(refused(&f, WEIR_OVERLOADED).reason, WEIR_ROUTE_SATURATED);
    f.ask.recovery = true;
    choose(&f);
}

/* [S3] */
static void test_a_refusal_says_why_and_when(void **state)
{
    struct fleet f;
    struct weir_route_choice choice;

    (void)state;
    fleet_init(&f);
    for (uint32_t i = 0; i < N; i++)
        set_wait(&f, i, 34000 + i);
    choice = refused(&f, WEIR_OVERLOADED);
    assert_int_equal(choice.reason, WEIR_ROUTE_SATURATED);
    assert_int_equal(choice.retry_after_ms, 4000); /* 34 s - 30 s; the middle of the jitter */
    f.ask.random = 0;
    assert_int_equal(refused(&f, WEIR_OVERLOADED).retry_after_ms, 3000);
    f.ask.random = UINT64_MAX;
    assert_in_range(refused(&f, WEIR_OVERLOADED).retry_after_ms, 4990, 5000);

    for (uint32_t i = 0; i < N; i++)
        f.load[i].usable = false;
    choice = refused(&f, WEIR_OVERLOADED);
    assert_int_equal(choice.reason, WEIR_ROUTE_NO_REPLICA);
    assert_in_range(choice.retry_after_ms, 375, 30000);

    f.load[2].usable = true;
    set_wait(&f, 2, 0);
    f.ask.exclude[f.ask.n_exclude++] = &f.load[2];
    assert_int_equal(refused(&f, WEIR_OVERLOADED).reason, WEIR_ROUTE_TRIED);

    f.ring.n = 0;
    choice = refused(&f, WEIR_NOMODEL);
    assert_int_equal(choice.reason, WEIR_ROUTE_NO_MODEL);
    assert_int_equal(choice.retry_after_ms, 0);
}

static void test_retry_after_stays_within_its_bounds(void **state)
{
    struct weir_route_opts opts;

    (void)state;
    weir_route_opts_init(&opts);
    assert_in_range(weir_route_retry_after(&opts, 0, 0), 375, 500);
    assert_in_range(weir_route_retry_after(&opts, 1e12, UINT64_MAX), 30000, 37500);
}

/* A replica that lies about its numbers does no more harm than being avoided. */
static void test_odd_numbers_are_made_harmless(void **state)
{
    struct fleet f;
    uint32_t order[N];

    (void)state;
    fleet_init(&f);
    order_of(&f, order);
    weir_load_set(&f.load[order[0]], &(struct weir_load){ .slots = 4,
                                                          .prefill_tokens_s = -5,
                                                          .decode_tokens_s = 1e300 * 1e300,
                                                          .predicted_wait_ms = 0.0 / 0.0 });
    assert_true(f.load[order[0]].prefill_tokens_s == 0);
    assert_true(f.load[order[0]].decode_tokens_s == 0);
    assert_true(f.load[order[0]].predicted_wait_ms == 0);
    assert_int_equal(choose(&f), order[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_idle_fleet_keeps_affinity),
        cmocka_unit_test(test_a_hot_replica_spills_to_the_next_candidate),
        cmocka_unit_test(test_a_busy_fleet_keeps_affinity_too),
        cmocka_unit_test(test_the_cost_of_a_cold_prompt_holds_a_key_at_home),
        cmocka_unit_test(test_what_was_sent_counts_until_the_replica_has_counted_it),
        cmocka_unit_test(test_who_can_not_serve_is_skipped_in_order),
        cmocka_unit_test(test_a_frame_from_the_future_is_not_silence),
        cmocka_unit_test(test_a_full_queue_counts_free_slots),
        cmocka_unit_test(test_room_anywhere_is_found),
        cmocka_unit_test(test_the_load_bound_gives_way_before_a_call_is_refused),
        cmocka_unit_test(test_classes_are_shed_in_order),
        cmocka_unit_test(test_recovery_knows_no_class_bound),
        cmocka_unit_test(test_a_refusal_says_why_and_when),
        cmocka_unit_test(test_retry_after_stays_within_its_bounds),
        cmocka_unit_test(test_odd_numbers_are_made_harmless),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
