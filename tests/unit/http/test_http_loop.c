/* test_http_loop.c - the loop: timers in order, tasks from other threads, late work, events struck out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/thread.h"
#include "http/loop.h"

static struct weir_loop *loop;

static int setup(void **state)
{
    (void)state;
    return weir_loop_open(/* index= */ 3, &loop, /* why= */ NULL) == WEIR_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    weir_loop_close(loop);
    return 0;
}

/* Timers */

enum { N_TIMERS = 500 };
struct probe {
    struct weir_timer timer;
    bool fired;
};
static uint64_t last_at_ns;
static int n_fired;

static void probe_run(struct weir_timer *timer)
{
    struct probe *probe = (struct probe *)timer;
    assert_false(probe->fired);
    assert_int_equal(timer->i_heap, 0);
    assert_true(timer->at_ns >= last_at_ns);
    assert_true(timer->at_ns <= weir_loop_now(loop));
    last_at_ns = timer->at_ns;
    probe->fired = true;
    n_fired++;
}

/* Set in disorder, moved both ways, some cleared: the rest fire once each, soonest first. */
static void test_timers_fire_in_order(void **state)
{
    static struct probe probes[N_TIMERS];
    uint64_t now_ns = weir_now_ns(), random = 88172645463325252ull;

    (void)state;
    memset(probes, 0, sizeof probes);
    last_at_ns = 0;
    n_fired = 0;
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < N_TIMERS; i++) {
            random ^= random << 13, random ^= random >> 7, random ^= random << 17;
            probes[i].timer.run = probe_run;
            assert_int_equal(weir_loop_timer_set(loop, &probes[i].timer, now_ns + random % 1000), WEIR_OK);
        }
    }
    for (int i = 0; i < N_TIMERS; i += 5)
        weir_loop_timer_clear(loop, &probes[i].timer);
    weir_loop_timer_clear(loop, &probes[0].timer); /* one that is not set */
    weir_loop_turn(loop, 0);
    assert_int_equal(n_fired, N_TIMERS - N_TIMERS / 5);
    for (int i = 0; i < N_TIMERS; i++)
        assert_int_equal(probes[i].fired, i % 5 != 0);
}

static void again_run(struct weir_timer *timer)
{
    n_fired++;
    assert_int_equal(weir_loop_timer_set(loop, timer, 0), WEIR_OK);
}

/* [W2] */
static void test_a_timer_that_sets_itself_does_not_hold_the_loop(void **state)
{
    struct weir_timer timer = { .run = again_run };
    (void)state;
    n_fired = 0;
    assert_int_equal(weir_loop_timer_set(loop, &timer, 0), WEIR_OK);
    weir_loop_turn(loop, /* timeout_ms= */ -1);
    weir_loop_turn(loop, /* timeout_ms= */ -1);
    assert_int_equal(n_fired, 2);
    weir_loop_timer_clear(loop, &timer);
}

static void test_a_far_timer_does_not_end_the_wait(void **state)
{
    struct weir_timer timer = { .run = again_run };
    (void)state;
    n_fired = 0;
    assert_int_equal(weir_loop_timer_set(loop, &timer, weir_now_ns() + 3600 * WEIR_S), WEIR_OK);
    weir_loop_turn(loop, /* timeout_ms= */ 1);
    assert_int_equal(n_fired, 0);
    weir_loop_timer_clear(loop, &timer);
}

static void test_a_timer_without_memory_is_refused(void **state)
{
    static struct weir_timer timers[200];
    weir_err rc = WEIR_OK;
    int n = 0;

    (void)state;
    memset(timers, 0, sizeof timers);
    weir_test_alloc_budget(0);
    while (n < 200 && rc == WEIR_OK)
        rc = weir_loop_timer_set(loop, &timers[n++], UINT64_MAX);
    weir_test_alloc_budget(-1);
    assert_int_equal(rc, WEIR_NOMEM);
    assert_int_equal(timers[n - 1].i_heap, 0);
    assert_int_equal(weir_loop_timer_set(loop, &timers[n - 1], UINT64_MAX), WEIR_OK);
}

/* Late work */

static int order[8], n_order;
struct late {
    struct weir_later later;
    struct late *cancels, *queues;
    int id;
};

static void late_run(struct weir_later *later)
{
    struct late *late = (struct late *)later;
    order[n_order++] = late->id;
    if (late->cancels)
        weir_loop_later_cancel(&late->cancels->later);
    if (late->queues)
        weir_loop_later(loop, &late->queues->later);
}

static void test_late_work_runs_once_at_the_end_of_the_turn(void **state)
{
    struct late a = { .later.run = late_run, .id = 1 }, b = { .later.run = late_run, .id = 2 };
    (void)state;
    n_order = 0;
    weir_loop_later(loop, &a.later);
    weir_loop_later(loop, &a.later);
    weir_loop_later(loop, &b.later);
    weir_loop_later_cancel(&b.later);
    weir_loop_later_cancel(&b.later);
    weir_loop_turn(loop, /* timeout_ms= */ -1);
    assert_int_equal(n_order, 1);
    assert_int_equal(order[0], 1);
}

/* [W2] What is queued by late work waits for the next turn, and makes that one not wait; its brother can be
 * cancelled. */
static void test_late_work_may_queue_and_cancel(void **state)
{
    struct late a = { .later.run = late_run, .id = 1 }, b = { .later.run = late_run, .id = 2 };
    (void)state;
    n_order = 0;
    b.cancels = &a; /* b was queued last, so it runs first */
    b.queues = &b;
    weir_loop_later(loop, &a.later);
    weir_loop_later(loop, &b.later);
    weir_loop_turn(loop, /* timeout_ms= */ -1);
    assert_int_equal(n_order, 1);
    assert_int_equal(order[0], 2);
    weir_loop_turn(loop, /* timeout_ms= */ -1);
    assert_int_equal(n_order, 2);
    weir_loop_later_cancel(&b.later);
}

/* Watches */

struct pair {
    struct weir_watch watch;
    struct weir_watch *kills;
    int n;
};

static void pair_run(struct weir_watch *watch, uint32_t events)
{
    struct pair *pair = (struct pair *)watch;
    assert_true(events & EPOLLIN);
    pair->n++;
    weir_loop_unwatch(loop, pair->kills);
}

/* [W1] Both are ready in one turn; whichever runs first unwatches the other, which must then not be called.
 */
static void test_no_event_after_unwatch(void **state)
{
    struct pair a = { .watch = { .run = pair_run } }, b = { .watch = { .run = pair_run } };
    (void)state;
    a.kills = &b.watch, b.kills = &a.watch;
    a.watch.fd = eventfd(1, EFD_NONBLOCK);
    b.watch.fd = eventfd(1, EFD_NONBLOCK);
    assert_int_equal(weir_loop_watch(loop, &a.watch, EPOLLIN, NULL), WEIR_OK);
    assert_int_equal(weir_loop_watch(loop, &b.watch, EPOLLIN, NULL), WEIR_OK);
    weir_loop_turn(loop, 0);
    assert_int_equal(a.n + b.n, 1);
    weir_loop_unwatch(loop, &a.watch);
    weir_loop_unwatch(loop, &b.watch);
    close(a.watch.fd);
    close(b.watch.fd);
}

static void test_watching_nothing_is_an_error(void **state)
{
    struct weir_watch watch = { .fd = -1 };
    struct weir_why why;
    (void)state;
    assert_int_equal(weir_loop_watch(loop, &watch, EPOLLIN, &why), WEIR_IO);
    assert_non_null(strstr(why.text, "epoll_ctl"));
}

/* Tasks */

enum { N_THREADS = 4, N_TASKS = 2000 };
struct numbered {
    struct weir_task task;
    int thread, number;
};
static int next_number[N_THREADS], n_tasks_run;

static void numbered_run(struct weir_task *task)
{
    struct numbered *numbered = (struct numbered *)task;
    assert_int_equal(numbered->number, next_number[numbered->thread]++);
    assert_ptr_equal(weir_loop_current(), loop);
    if (++n_tasks_run == N_THREADS * N_TASKS)
        weir_loop_stop(loop);
    free(numbered);
}

static void *poster(void *arg)
{
    for (int i = 0; i < N_TASKS; i++) {
        struct numbered *numbered = malloc(sizeof *numbered);
        *numbered = (struct numbered){ .task.run = numbered_run, .thread = (int)(intptr_t)arg, .number = i };
        weir_loop_post(loop, &numbered->task);
    }
    return NULL;
}

/* [W3] None lost, each thread's in its order, run on the loop's thread. */
static void test_tasks_of_many_threads(void **state)
{
    struct weir_thread threads[N_THREADS];
    (void)state;
    n_tasks_run = 0;
    memset(next_number, 0, sizeof next_number);
    memset(threads, 0, sizeof threads);
    for (intptr_t i = 0; i < N_THREADS; i++)
        assert_int_equal(weir_thread_start(&threads[i], WEIR_ROLE_ANY, "poster", poster, (void *)i, NULL),
                         WEIR_OK);
    weir_loop_run(loop);
    for (int i = 0; i < N_THREADS; i++)
        weir_thread_join(&threads[i]);
    assert_int_equal(n_tasks_run, N_THREADS * N_TASKS);
    assert_int_equal(weir_loop_index(loop), 3);
}

static bool last_ran;
static void last_run(struct weir_task *task)
{
    (void)task;
    last_ran = true;
}

static void *stopper(void *arg)
{
    (void)arg;
    weir_loop_stop(loop);
    weir_loop_stop(loop); /* twice does no harm */
    return NULL;
}

/* [W3] A task that comes too late for run is run by close. */
static void test_stop_from_another_thread_and_the_last_task(void **state)
{
    struct weir_thread thread = { .running = 0 };
    struct weir_task last = { .run = last_run };
    (void)state;
    last_ran = false;
    assert_int_equal(weir_thread_start(&thread, WEIR_ROLE_ANY, "stopper", stopper, NULL, NULL), WEIR_OK);
    weir_loop_run(loop);
    weir_thread_join(&thread);
    weir_loop_post(loop, &last);
    weir_loop_close(loop);
    loop = NULL;
    assert_true(last_ran);
}

static void test_open_without_memory(void **state)
{
    (void)state;
    for (int n = 0;; n++) {
        struct weir_loop *other = NULL;
        weir_test_alloc_budget(n);
        weir_err rc = weir_loop_open(0, &other, NULL);
        weir_test_alloc_budget(-1);
        assert_true(rc == WEIR_OK ? other != NULL : rc == WEIR_NOMEM && other == NULL);
        weir_loop_close(other);
        if (rc == WEIR_OK)
            break;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_timers_fire_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_timer_that_sets_itself_does_not_hold_the_loop, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_far_timer_does_not_end_the_wait, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_timer_without_memory_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_late_work_runs_once_at_the_end_of_the_turn, setup, teardown),
        cmocka_unit_test_setup_teardown(test_late_work_may_queue_and_cancel, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_event_after_unwatch, setup, teardown),
        cmocka_unit_test_setup_teardown(test_watching_nothing_is_an_error, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tasks_of_many_threads, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stop_from_another_thread_and_the_last_task, setup, teardown),
        cmocka_unit_test(test_open_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
