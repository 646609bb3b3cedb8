/* test_queue.c - the queue between threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "base/queue.h"

struct item {
    struct weir_qnode node; /* first: the cast back is free */
    int producer, i;
};

static bool is_readable(int fd)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };

    return poll(&p, 1, 0) == 1;
}

static void test_order_bound_and_close(void **state)
{
    struct weir_queue q;
    struct item items[4] = { 0 };

    (void)state;
    assert_int_equal(weir_queue_init(&q, 3, false, NULL), WEIR_OK);
    assert_int_equal(q.wake_fd, -1);
    assert_null(weir_queue_take(&q));
    for (int i = 0; i < 3; i++) {
        items[i].i = i;
        assert_int_equal(weir_queue_push(&q, &items[i].node), WEIR_OK);
    }
    assert_int_equal(weir_queue_push(&q, &items[3].node), WEIR_FULL);
    assert_int_equal(q.n_refused, 1);
    assert_int_equal(weir_queue_len(&q), 3);
    struct weir_qnode *node = weir_queue_take(&q);
    for (int i = 0; i < 3; i++, node = node->next)
        assert_int_equal(((struct item *)node)->i, i);
    assert_null(node);
    assert_int_equal(weir_queue_push(&q, &items[3].node), WEIR_OK); /* room again */
    assert_false(weir_queue_closed(&q));
    weir_queue_close(&q);
    assert_true(weir_queue_closed(&q));
    assert_int_equal(weir_queue_push(&q, &items[0].node), WEIR_UNAVAILABLE);
    node = weir_queue_wait(&q, UINT64_MAX); /* what was pushed before is still given */
    assert_ptr_equal(node, &items[3].node);
    assert_null(node->next);
    assert_null(weir_queue_wait(&q, UINT64_MAX)); /* closed: no wait */
    weir_queue_release(&q);
    weir_queue_release(&q);
    weir_queue_release(NULL);
}

/* [Q3] */
static void test_eventfd_is_readable_while_nodes_wait(void **state)
{
    struct weir_queue q;
    struct item a = { 0 }, b = { 0 };

    (void)state;
    assert_int_equal(weir_queue_init(&q, 0, true, NULL), WEIR_OK);
    assert_false(is_readable(q.wake_fd));
    assert_int_equal(weir_queue_push(&q, &a.node), WEIR_OK);
    assert_int_equal(weir_queue_push(&q, &b.node), WEIR_OK);
    assert_true(is_readable(q.wake_fd));
    assert_non_null(weir_queue_take(&q));
    assert_false(is_readable(q.wake_fd));
    assert_null(weir_queue_take(&q));
    assert_int_equal(weir_queue_push(&q, &a.node), WEIR_OK);
    assert_true(is_readable(q.wake_fd));
    assert_non_null(weir_queue_wait(&q, 0));
    assert_false(is_readable(q.wake_fd));
    weir_queue_close(&q);
    assert_true(is_readable(q.wake_fd));
    assert_null(weir_queue_take(&q));
    assert_false(is_readable(q.wake_fd)); /* the close was seen: an epoll loop does not spin */
    assert_null(weir_queue_take(&q));
    weir_queue_release(&q);
}

static void test_wait_gives_up_after_its_timeout(void **state)
{
    struct weir_queue q;

    (void)state;
    assert_int_equal(weir_queue_init(&q, 0, false, NULL), WEIR_OK);
    uint64_t start_ns = weir_now_ns();
    assert_null(weir_queue_wait(&q, 20 * WEIR_MS));
    assert_true(weir_now_ns() - start_ns >= 20 * WEIR_MS);
    weir_queue_release(&q);
}

static void test_no_descriptor_left_is_an_error(void **state)
{
    struct rlimit old, none;
    struct weir_queue q;
    struct weir_why why;

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    none = old;
    none.rlim_cur = 0;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    weir_err rc = weir_queue_init(&q, 0, true, &why);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    assert_int_equal(rc, WEIR_IO);
    assert_non_null(strstr(why.text, "eventfd"));
}

/* ---- Many producers against one consumer, which sleeps in poll() or in weir_queue_wait() ---- */

enum { N_PRODUCERS = 4, N_ITEMS = 20000 };

struct crowd {
    struct weir_queue q;
    struct item *items;
    atomic_int next_producer;
};

static void *produce(void *arg)
{
    struct crowd *crowd = arg;
    int me = atomic_fetch_add(&crowd->next_producer, 1);

    for (int i = 0; i < N_ITEMS; i++) {
        struct item *item = &crowd->items[me * N_ITEMS + i];
        item->producer = me;
        item->i = i;
        while (weir_queue_push(&crowd->q, &item->node) != WEIR_OK)
            sched_yield();
    }
    return NULL;
}

/* [Q1] [Q2] Each item arrives once, in its producer's order, and the consumer never sleeps for ever. */
static void run_crowd(bool with_fd)
{
    struct crowd crowd = { .next_producer = 0 };
    pthread_t threads[N_PRODUCERS];
    int next[N_PRODUCERS] = { 0 }, n = 0;

    crowd.items = calloc(N_PRODUCERS * N_ITEMS, sizeof *crowd.items);
    assert_non_null(crowd.items);
    assert_int_equal(weir_queue_init(&crowd.q, 100, with_fd, NULL), WEIR_OK);
    for (int i = 0; i < N_PRODUCERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, produce, &crowd), 0);
    while (n < N_PRODUCERS * N_ITEMS) {
        struct weir_qnode *node;
        if (with_fd) {
            struct pollfd p = { .fd = crowd.q.wake_fd, .events = POLLIN };
            assert_int_equal(poll(&p, 1, 60000), 1); /* a lost wake-up fails here */
            node = weir_queue_take(&crowd.q);
        } else {
            node = weir_queue_wait(&crowd.q, 60 * WEIR_S);
        }
        assert_non_null(node);
        while (node) {
            struct item *item = (struct item *)node;
            node = node->next;
            assert_int_equal(item->i, next[item->producer]++);
            n++;
        }
    }
    for (int i = 0; i < N_PRODUCERS; i++)
        pthread_join(threads[i], NULL);
    assert_null(weir_queue_take(&crowd.q));
    weir_queue_release(&crowd.q);
    free(crowd.items);
}

static void test_crowd_through_poll(void **state)
{
    (void)state;
    run_crowd(true);
}

static void test_crowd_through_wait(void **state)
{
    (void)state;
    run_crowd(false);
}

static void *push_one(void *arg)
{
    static struct weir_qnode node;
    weir_err rc = weir_queue_push(arg, &node);

    return rc == WEIR_OK ? arg : NULL;
}

/* Once it holds the last node it expects, the consumer may release a queue on its stack at once. */
static void test_release_right_after_the_last_node(void **state)
{
    (void)state;
    for (int i = 0; i < 300; i++) {
        struct weir_queue q;
        pthread_t thread;
        assert_int_equal(weir_queue_init(&q, 0, true, NULL), WEIR_OK);
        assert_int_equal(pthread_create(&thread, NULL, push_one, &q), 0);
        assert_non_null(weir_queue_wait(&q, 60 * WEIR_S));
        weir_queue_release(&q);
        memset(&q, 0xff, sizeof q);
        pthread_join(thread, NULL);
    }
}

static void *close_it(void *arg)
{
    weir_queue_close(arg);
    return NULL;
}

static void test_close_wakes_a_sleeper(void **state)
{
    struct weir_queue q;
    pthread_t thread;

    (void)state;
    assert_int_equal(weir_queue_init(&q, 0, false, NULL), WEIR_OK);
    assert_int_equal(pthread_create(&thread, NULL, close_it, &q), 0);
    assert_null(weir_queue_wait(&q, UINT64_MAX));
    pthread_join(thread, NULL);
    weir_queue_release(&q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order_bound_and_close),
        cmocka_unit_test(test_eventfd_is_readable_while_nodes_wait),
        cmocka_unit_test(test_wait_gives_up_after_its_timeout),
        cmocka_unit_test(test_no_descriptor_left_is_an_error),
        cmocka_unit_test(test_crowd_through_poll),
        cmocka_unit_test(test_crowd_through_wait),
        cmocka_unit_test(test_release_right_after_the_last_node),
        cmocka_unit_test(test_close_wakes_a_sleeper),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
