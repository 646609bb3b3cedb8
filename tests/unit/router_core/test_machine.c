/* The call machine: its whole table, and its promises under every order of events a bad replica can think of.
 */
#include "tests/unit/router_core/cm.h"

#include <string.h>

#include "base/hash.h"
#include "router/call/machine.h"

/* ---- events, by name ---- */
enum word { /* what a replica, a client or the driver can say; the terminals apart */
            W_PLACED,
            W_REFUSED,
            W_ACCEPTED,
            W_STARTED,
            W_DELTA,
            W_LAST_DELTA,
            W_BAD_CHOICE,
            W_T_NONE,
            W_T_DONE,
            W_T_CANCELLED,
            W_T_REJECTED,
            W_T_INVALID,
            W_T_FAILED,
            W_T_CUT,
            W_LOST,
            W_LATE,
            W_SLOW,
            W_CANCEL,
            WORDS
};

static Weir__Fabric__V1__Accepted accepted;
static Weir__Fabric__V1__Started started;
static Weir__Fabric__V1__Delta delta, last_delta, bad_choice;
static Weir__Fabric__V1__Terminal terminals[8];
static struct weir_why refused_why = { .text = "no room", .param = "model" };
static uint32_t ids[3] = { 1, 2, 3 };

static int setup(void **state)
{
    (void)state;
    weir__fabric__v1__accepted__init(&accepted);
    accepted.prompt_tokens = 11;
    weir__fabric__v1__started__init(&started);
    started.cached_tokens = 5;
    started.queue_ns = 7;
    weir__fabric__v1__delta__init(&delta);
    delta.n_ids = 3;
    delta.ids = ids;
    last_delta = bad_choice = delta;
    last_delta.finish = WEIR__V1__FINISH_REASON__FINISH_STOP;
    bad_choice.choice = 1;
    for (int i = 0; i < 8; i++) {
        weir__fabric__v1__terminal__init(&terminals[i]);
        terminals[i].reason = (Weir__Fabric__V1__TerminalReason)i;
        terminals[i].prompt_tokens = 12;
        terminals[i].completion_tokens = 34;
    }
    return 0;
}

static struct call_event event_of(enum word word)
{
    static const enum call_event_kind kinds[WORDS] = {
        [W_PLACED] = CALL_EV_PLACED,    [W_REFUSED] = CALL_EV_REFUSED, [W_ACCEPTED] = CALL_EV_ACCEPTED,
        [W_STARTED] = CALL_EV_STARTED,  [W_DELTA] = CALL_EV_DELTA,     [W_LAST_DELTA] = CALL_EV_DELTA,
        [W_BAD_CHOICE] = CALL_EV_DELTA, [W_LOST] = CALL_EV_LOST,       [W_LATE] = CALL_EV_LATE,
        [W_SLOW] = CALL_EV_SLOW,        [W_CANCEL] = CALL_EV_CANCEL,
    };
    struct call_event ev = { .kind = kinds[word] };

    if (word >= W_T_NONE && word <= W_T_CUT) {
        ev.kind = CALL_EV_TERMINAL;
        ev.terminal = &terminals[word - W_T_NONE];
    } else if (word == W_REFUSED) {
        ev.refused.err = WEIR_OVERLOADED;
        ev.refused.why = &refused_why;
        ev.refused.retry_after_ms = 77;
    } else if (word == W_ACCEPTED) {
        ev.accepted = &accepted;
    } else if (word == W_STARTED) {
        ev.started = &started;
    } else {
        ev.delta = word == W_DELTA ? &delta : word == W_LAST_DELTA ? &last_delta : &bad_choice;
    }
    return ev;
}

struct world {
    struct call_machine m;
    struct call_budget budget;
};

static void world_init(struct world *w, uint32_t n_choices)
{
    call_machine_init(&w->m, n_choices);
    call_budget_init(&w->budget, 0.1);
}

static unsigned say(struct world *w, enum word word)
{
    struct call_event ev = event_of(word);

    return call_machine_step(&w->m, &ev, &w->budget);
}

static void bring_to(struct world *w, enum call_state state)
{
    world_init(w, 1);
    if (state == CALL_CANCELLED) {
        say(w, W_CANCEL);
    } else if (state == CALL_FAILED) {
        say(w, W_REFUSED);
    } else if (state != CALL_NEW) {
        say(w, W_PLACED);
        if (state >= CALL_ACCEPTED)
            say(w, W_ACCEPTED);
        if (state >= CALL_RUNNING)
            say(w, W_DELTA);
        if (state == CALL_DONE) {
            say(w, W_LAST_DELTA);
            say(w, W_T_DONE);
        }
    }
    assert_int_equal(w->m.state, state);
}

/* ---- the whole table: every state x every word ---- */
enum {
    FAIL = CALL_SAY_FAILED | CALL_DO_CLOSE,
    LEAVE = CALL_DO_LEAVE,
    CANCEL = CALL_DO_CANCEL,
    VIO = CALL_NOTE_VIOLATION
};

struct expected {
    enum call_state state;
    unsigned todo;
    weir_err err; /* when failed */
};

#define AGAIN(leave)                                                                                         \
    {                                                                                                        \
        CALL_NEW, (leave) | CALL_DO_PLACE, WEIR_OK                                                           \
    }
#define BROKEN(leave)                                                                                        \
    {                                                                                                        \
        CALL_FAILED, (leave) | FAIL, WEIR_UPSTREAM                                                           \
    }
#define SAME(state)                                                                                          \
    {                                                                                                        \
        state, 0, WEIR_OK                                                                                    \
    }

static const struct expected table[4][WORDS] = {
    [CALL_NEW] = {
        [W_PLACED] = { CALL_SUBMITTED, 0, WEIR_OK },
        [W_REFUSED] = { CALL_FAILED, FAIL, WEIR_OVERLOADED },
        [W_LATE] = { CALL_FAILED, FAIL, WEIR_DEADLINE },
        [W_CANCEL] = { CALL_CANCELLED, CALL_DO_CLOSE, WEIR_OK },
        [W_ACCEPTED] = SAME(CALL_NEW), [W_STARTED] = SAME(CALL_NEW), [W_DELTA] = SAME(CALL_NEW),
        [W_LAST_DELTA] = SAME(CALL_NEW), [W_BAD_CHOICE] = SAME(CALL_NEW), [W_T_NONE] = SAME(CALL_NEW),
        [W_T_DONE] = SAME(CALL_NEW), [W_T_CANCELLED] = SAME(CALL_NEW), [W_T_REJECTED] = SAME(CALL_NEW),
        [W_T_INVALID] = SAME(CALL_NEW), [W_T_FAILED] = SAME(CALL_NEW), [W_T_CUT] = SAME(CALL_NEW),
        [W_LOST] = SAME(CALL_NEW), [W_SLOW] = SAME(CALL_NEW),
    },
    [CALL_SUBMITTED] = {
        [W_PLACED] = SAME(CALL_SUBMITTED), [W_REFUSED] = SAME(CALL_SUBMITTED), [W_SLOW] = SAME(CALL_SUBMITTED),
        [W_ACCEPTED] = { CALL_ACCEPTED, 0, WEIR_OK },
        [W_STARTED] = AGAIN(CANCEL | VIO), [W_DELTA] = AGAIN(CANCEL | VIO), [W_LAST_DELTA] = AGAIN(CANCEL | VIO),
        [W_BAD_CHOICE] = AGAIN(CANCEL | VIO),
        [W_T_NONE] = AGAIN(LEAVE | VIO), [W_T_DONE] = AGAIN(LEAVE | VIO), [W_T_CANCELLED] = AGAIN(LEAVE | VIO),
        [W_T_REJECTED] = AGAIN(LEAVE),
        [W_T_INVALID] = { CALL_FAILED, LEAVE | FAIL, WEIR_INVALID },
        [W_T_FAILED] = AGAIN(LEAVE), [W_T_CUT] = AGAIN(LEAVE), [W_LOST] = AGAIN(LEAVE),
        [W_LATE] = { CALL_FAILED, CANCEL | FAIL, WEIR_DEADLINE },
        [W_CANCEL] = { CALL_CANCELLED, CANCEL | CALL_DO_CLOSE, WEIR_OK },
    },
    [CALL_ACCEPTED] = {
        [W_PLACED] = SAME(CALL_ACCEPTED), [W_REFUSED] = SAME(CALL_ACCEPTED), [W_SLOW] = SAME(CALL_ACCEPTED),
        [W_ACCEPTED] = AGAIN(CANCEL | VIO),
        [W_STARTED] = { CALL_ACCEPTED, 0, WEIR_OK },
        [W_DELTA] = { CALL_RUNNING, CALL_SAY_STARTED | CALL_SAY_DELTA, WEIR_OK },
        [W_LAST_DELTA] = { CALL_RUNNING, CALL_SAY_STARTED | CALL_SAY_DELTA, WEIR_OK },
        [W_BAD_CHOICE] = AGAIN(CANCEL | VIO),
        [W_T_NONE] = AGAIN(LEAVE | VIO), [W_T_DONE] = AGAIN(LEAVE | VIO), [W_T_CANCELLED] = AGAIN(LEAVE | VIO),
        [W_T_REJECTED] = AGAIN(LEAVE),
        [W_T_INVALID] = { CALL_FAILED, LEAVE | FAIL, WEIR_INVALID },
        [W_T_FAILED] = AGAIN(LEAVE), [W_T_CUT] = AGAIN(LEAVE), [W_LOST] = AGAIN(LEAVE),
        [W_LATE] = { CALL_FAILED, CANCEL | FAIL, WEIR_DEADLINE },
        [W_CANCEL] = { CALL_CANCELLED, CANCEL | CALL_DO_CLOSE, WEIR_OK },
    },
    [CALL_RUNNING] = { /* [M3]: nothing here leads back to NEW */
        [W_PLACED] = SAME(CALL_RUNNING), [W_REFUSED] = SAME(CALL_RUNNING), [W_LATE] = SAME(CALL_RUNNING),
        [W_ACCEPTED] = BROKEN(CANCEL | VIO), [W_STARTED] = BROKEN(CANCEL | VIO),
        [W_DELTA] = { CALL_RUNNING, CALL_SAY_DELTA, WEIR_OK },
        [W_LAST_DELTA] = { CALL_RUNNING, CALL_SAY_DELTA, WEIR_OK },
        [W_BAD_CHOICE] = BROKEN(CANCEL | VIO),
        [W_T_NONE] = BROKEN(LEAVE | VIO), [W_T_DONE] = BROKEN(LEAVE | VIO), /* a choice has not finished */
        [W_T_CANCELLED] = BROKEN(LEAVE | VIO), [W_T_REJECTED] = BROKEN(LEAVE | VIO),
        [W_T_INVALID] = BROKEN(LEAVE | VIO), [W_T_FAILED] = BROKEN(LEAVE), [W_T_CUT] = BROKEN(LEAVE),
        [W_LOST] = BROKEN(LEAVE),
        [W_SLOW] = { CALL_CANCELLED, CANCEL | CALL_DO_CLOSE, WEIR_OK },
        [W_CANCEL] = { CALL_CANCELLED, CANCEL | CALL_DO_CLOSE, WEIR_OK },
    },
};

static void test_every_event_in_every_living_state(void **state)
{
    (void)state;
    for (int s = CALL_NEW; s <= CALL_RUNNING; s++) {
        for (int e = 0; e < WORDS; e++) {
            struct world w;
            bring_to(&w, (enum call_state)s);
            unsigned todo = say(&w, (enum word)e);
            const struct expected *x = &table[s][e];
            if (w.m.state != x->state || todo != x->todo)
                fail_msg("state %s, event %d: %s %#x, not %s %#x", call_state_name((enum call_state)s), e,
                         call_state_name(w.m.state), todo, call_state_name(x->state), x->todo);
            if (x->state == CALL_FAILED) {
                assert_int_equal(w.m.err, x->err);
                assert_true(w.m.why.text[0] != '\0');
            }
        }
    }
}

/* [M1] */
static void test_nothing_moves_a_call_that_is_over(void **state)
{
    (void)state;
    for (int s = CALL_DONE; s < CALL_STATES; s++) {
        for (int e = 0; e < WORDS; e++) {
            struct world w;
            bring_to(&w, (enum call_state)s);
            assert_int_equal(say(&w, (enum word)e), 0);
            assert_int_equal(w.m.state, s);
        }
    }
}

/* ---- stories ---- */
static void test_a_good_call(void **state)
{
    struct world w;

    (void)state;
    bring_to(&w, CALL_ACCEPTED);
    say(&w, W_STARTED);
    assert_int_equal(say(&w, W_DELTA), CALL_SAY_STARTED | CALL_SAY_DELTA);
    assert_int_equal(say(&w, W_DELTA), CALL_SAY_DELTA);
    assert_int_equal(say(&w, W_LAST_DELTA), CALL_SAY_DELTA);
    assert_int_equal(say(&w, W_T_DONE), CALL_DO_LEAVE | CALL_SAY_DONE | CALL_DO_CLOSE);
    assert_int_equal(w.m.prompt_tokens, 11);
    assert_int_equal(w.m.cached_tokens, 5);
    assert_int_equal(w.m.queue_ns, 7);
    assert_int_equal(w.m.n_ids, 9);
    assert_int_equal(w.m.ids[0], 9);
    assert_int_equal(w.m.done.prompt_tokens, 12);
    assert_int_equal(w.m.done.completion_tokens, 34);
}

static void test_done_needs_every_choice_to_have_finished(void **state)
{
    struct world w;

    (void)state;
    world_init(&w, 128);
    say(&w, W_PLACED);
    say(&w, W_ACCEPTED);
    for (uint32_t i = 0; i < 128; i++) {
        last_delta.choice = i;
        assert_int_equal(say(&w, W_LAST_DELTA), i == 0 ? CALL_SAY_STARTED | CALL_SAY_DELTA : CALL_SAY_DELTA);
    }
    assert_int_equal(say(&w, W_T_DONE), CALL_DO_LEAVE | CALL_SAY_DONE | CALL_DO_CLOSE);

    world_init(&w, 2);
    say(&w, W_PLACED);
    say(&w, W_ACCEPTED);
    last_delta.choice = 1;
    say(&w, W_LAST_DELTA);
    say(&w, W_T_DONE);
    assert_int_equal(w.m.state, CALL_FAILED);
}

static void test_a_choice_that_has_finished_says_no_more(void **state)
{
    struct world w;

    (void)state;
    bring_to(&w, CALL_RUNNING);
    say(&w, W_LAST_DELTA);
    assert_int_equal(say(&w, W_DELTA), CALL_DO_CANCEL | CALL_NOTE_VIOLATION | FAIL);
}

/* [M4] */
static void test_two_replicas_may_reject_a_third_time_is_the_end(void **state)
{
    struct world w;

    (void)state;
    world_init(&w, 1);
    for (uint32_t i = 0; i < 2; i++) {
        say(&w, W_PLACED);
        assert_int_equal(say(&w, W_T_REJECTED), CALL_DO_LEAVE | CALL_DO_PLACE);
        assert_int_equal(w.m.retry, CALL_RETRY_REJECTED);
        assert_int_equal(w.m.attempt, i + 1);
        assert_false(w.m.recovery);
    }
    say(&w, W_PLACED);
    assert_int_equal(say(&w, W_T_REJECTED), CALL_DO_LEAVE | FAIL);
    assert_int_equal(w.m.err, WEIR_OVERLOADED);
}

/* [M4] Poison: two replicas are lost with the call on them, and no third is tried. */
static void test_a_call_is_lost_twice_at_the_most(void **state)
{
    struct world w;

    (void)state;
    world_init(&w, 1);
    say(&w, W_PLACED);
    say(&w, W_ACCEPTED);
    assert_int_equal(say(&w, W_LOST), CALL_DO_LEAVE | CALL_DO_PLACE);
    assert_true(w.m.recovery);
    assert_int_equal(w.m.retry, CALL_RETRY_LOST);
    say(&w, W_PLACED);
    assert_int_equal(say(&w, W_LOST), CALL_DO_LEAVE | FAIL);
    assert_int_equal(w.m.err, WEIR_UPSTREAM);
}

static void test_rejects_are_tried_again_within_a_budget_losses_always(void **state)
{
    struct call_budget budget;
    struct world w;
    int n_retried = 0, n_lost_retried = 0;

    (void)state;
    call_budget_init(&budget, 0.1);
    for (int i = 0; i < 1000; i++) { /* everybody rejects everything */
        world_init(&w, 1);
        call_budget_earn(&budget);
        w.budget = budget;
        say(&w, W_PLACED);
        n_retried += (say(&w, W_T_REJECTED) & CALL_DO_PLACE) != 0;
        budget = w.budget;
    }
    assert_in_range(n_retried, 100, 112); /* a tenth, and the burst */
    for (int i = 0; i < 100; i++) {
        world_init(&w, 1);
        w.budget = (struct call_budget){ .tokens = 0 };
        say(&w, W_PLACED);
        n_lost_retried += (say(&w, W_LOST) & CALL_DO_PLACE) != 0;
        say(&w, W_PLACED); /* what is recovering may be rejected, too */
        assert_true(say(&w, W_T_REJECTED) & CALL_DO_PLACE);
    }
    assert_int_equal(n_lost_retried, 100);
}

static void test_an_invalid_request_is_the_clients_fault_and_named(void **state)
{
    Weir__Fabric__V1__Terminal t = terminals[4];
    struct call_event ev = { .kind = CALL_EV_TERMINAL, .terminal = &t };
    struct world w;
    static const struct {
        const char *code;
        weir_err err;
    } rows[] = {
        { "CONTEXT", WEIR_CONTEXT },  { "INVALID", WEIR_INVALID }, { "TOOLARGE", WEIR_TOOLARGE },
        { "INTERNAL", WEIR_INVALID }, /* not the client's: not believed */
        { "OK", WEIR_INVALID },       { "", WEIR_INVALID },        { "NONSENSE", WEIR_INVALID },
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        t.code = (char *)(uintptr_t)rows[i].code;
        t.message = (char *)"the prompt has 9000 tokens";
        t.param = (char *)"messages";
        bring_to(&w, CALL_SUBMITTED);
        assert_int_equal(call_machine_step(&w.m, &ev, &w.budget), CALL_DO_LEAVE | FAIL);
        assert_int_equal(w.m.err, rows[i].err);
        assert_string_equal(w.m.why.text, "the prompt has 9000 tokens");
        assert_string_equal(w.m.why.param, "messages");
    }
    char long_param[300];
    memset(long_param, 'p', sizeof long_param - 1);
    long_param[sizeof long_param - 1] = '\0';
    t.param = long_param;
    t.message = (char *)"";
    bring_to(&w, CALL_SUBMITTED);
    call_machine_step(&w.m, &ev, &w.budget);
    assert_int_equal(strlen(w.m.why.param), sizeof w.m.why.param - 1);
    assert_true(w.m.why.text[0] != '\0');
}

static void test_a_refusal_is_handed_on(void **state)
{
    struct world w;

    (void)state;
    world_init(&w, 1);
    say(&w, W_REFUSED);
    assert_int_equal(w.m.err, WEIR_OVERLOADED);
    assert_int_equal(w.m.retry_after_ms, 77);
    assert_string_equal(w.m.why.text, "no room");
    assert_string_equal(w.m.why.param, "model");
}

/* ---- a long random life: a driver, a client and bad replicas, with the promises checked after every event
 * ---- */
struct promises {
    int n_started, n_delta, n_done, n_failed, n_cancelled;
    bool attempt_out; /* the driver holds an attempt */
    bool closed;
};

static void check_step(struct promises *p, const struct world *w, unsigned todo, bool by_owner)
{
    assert_false(p->closed && todo != 0);          /* [M1] */
    if (todo & (CALL_DO_LEAVE | CALL_DO_CANCEL)) { /* [M6] */
        assert_true(p->attempt_out);
        assert_false((todo & CALL_DO_LEAVE) && (todo & CALL_DO_CANCEL));
        p->attempt_out = false;
    }
    if (todo & CALL_DO_PLACE) {
        assert_false(p->attempt_out);
        assert_int_equal(p->n_started, 0); /* [M3] */
        assert_int_equal(w->m.state, CALL_NEW);
    }
    p->n_started += (todo & CALL_SAY_STARTED) != 0;
    if (todo & CALL_SAY_DELTA)
        assert_int_equal(p->n_started, 1); /* [M2] */
    p->n_delta += (todo & CALL_SAY_DELTA) != 0;
    p->n_done += (todo & CALL_SAY_DONE) != 0;
    p->n_failed += (todo & CALL_SAY_FAILED) != 0;
    p->n_cancelled += by_owner && (todo & CALL_DO_CLOSE);
    if (todo & CALL_SAY_DONE)
        assert_int_equal(p->n_started, 1);
    if (todo & CALL_DO_CLOSE) {
        p->closed = true;
        assert_false(p->attempt_out); /* nothing is left behind at a replica */
    }
    assert_true(p->n_started <= 1);
    assert_true(p->n_done + p->n_failed + p->n_cancelled <= 1);
    assert_int_equal(p->closed, call_machine_is_over(&w->m));
    assert_int_equal(p->closed, p->n_done + p->n_failed + p->n_cancelled == 1);
    assert_true(w->m.n_hops <= CALL_HOPS_MAX && w->m.n_losses <= CALL_LOSSES_MAX); /* [M4] */
}

static void live(uint64_t seed)
{
    struct promises p = { .n_started = 0 };
    struct world w;
    uint64_t random = seed;

    world_init(&w, 1 + (uint32_t)(seed % 3));
    w.budget.tokens = (double)(seed % 4);
    for (int i = 0; i < 60; i++) {
        random = weir_hash_mix(random, (uint64_t)i);
        enum word word = (enum word)(random % WORDS);
        if (random >> 32 & 1) { /* half of the time something that helps it along */
            static const enum word on[] = { W_PLACED, W_ACCEPTED, W_DELTA, W_LAST_DELTA };
            word = on[w.m.state < 4 ? w.m.state : 0];
            if (w.m.state == CALL_RUNNING && w.m.n_finished == w.m.n_choices)
                word = W_T_DONE;
        }
        if (word == W_SLOW && !(w.m.state == CALL_RUNNING))
            continue; /* the driver says so only after a delta */
        if ((word == W_PLACED || word == W_REFUSED) && w.m.state != CALL_NEW)
            continue; /* and these only when asked */
        last_delta.choice = w.m.n_finished;
        delta.choice = w.m.n_finished < w.m.n_choices ? w.m.n_finished : 0;
        bad_choice.choice = w.m.n_choices + (uint32_t)(random >> 40 & 0xffff);
        if (word == W_PLACED && w.m.state == CALL_NEW)
            p.attempt_out = true;
        check_step(&p, &w, say(&w, word), word == W_CANCEL || word == W_SLOW);
    }
    check_step(&p, &w, say(&w, W_CANCEL), true);
    assert_true(p.closed);
}

static void test_the_promises_hold_in_every_random_life(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 200000; seed++)
        live(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_every_event_in_every_living_state, setup),
        cmocka_unit_test_setup(test_nothing_moves_a_call_that_is_over, setup),
        cmocka_unit_test_setup(test_a_good_call, setup),
        cmocka_unit_test_setup(test_done_needs_every_choice_to_have_finished, setup),
        cmocka_unit_test_setup(test_a_choice_that_has_finished_says_no_more, setup),
        cmocka_unit_test_setup(test_two_replicas_may_reject_a_third_time_is_the_end, setup),
        cmocka_unit_test_setup(test_a_call_is_lost_twice_at_the_most, setup),
        cmocka_unit_test_setup(test_rejects_are_tried_again_within_a_budget_losses_always, setup),
        cmocka_unit_test_setup(test_an_invalid_request_is_the_clients_fault_and_named, setup),
        cmocka_unit_test_setup(test_a_refusal_is_handed_on, setup),
        cmocka_unit_test_setup(test_the_promises_hold_in_every_random_life, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
