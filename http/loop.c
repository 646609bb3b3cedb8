/* loop.c - the epoll loop of one thread.
 *
 * Descriptors are mostly watched edge-triggered by their owners, so a turn costs one epoll_wait and what the
 * owners do. Timers are a binary heap of pointers with the place kept in the timer: set, move and clear are
 * O(log n), and the owners move them lazily. Tasks come through the queue of base, whose eventfd is written
 * only when it was empty.
 *   [W1] After weir_loop_unwatch no event reaches the watch: those of this turn still to come are struck out.
 *   [W2] A turn ends: it runs no more timers than were set at its start, and what a `later` queues is for the
 *        next turn.
 *   [W3] A task that was posted is run exactly once, at the latest by weir_loop_close.
 * Threads: the loop's own, but for post and stop. Memory: the heap of timers only grows. */
#include "http/loop.h"

#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"

enum { EVENTS_MAX = 256, TIMERS_MIN = 64 };

struct weir_loop {
    int index;
    int epoll_fd;
    uint64_t now_ns;
    atomic_bool stopped; /* set by anyone, read by run; the stop task that follows it wakes the loop */
    struct weir_queue inbox;
    struct weir_watch inbox_watch;
    struct weir_task stop_task;
    struct weir_later *laters;  /* of this turn, newest first */
    struct weir_later *running; /* those that are being run now */
    struct weir_timer **heap;   /* from 1 */
    size_t n_timers, timers_cap;
    struct epoll_event events[EVENTS_MAX];
    int i_event, n_events; /* of this turn */
};

static _Thread_local struct weir_loop *current;

static void run_tasks(struct weir_watch *watch, uint32_t events)
{
    struct weir_loop *loop = (struct weir_loop *)((char *)watch - offsetof(struct weir_loop, inbox_watch));
    (void)events;
    for (struct weir_qnode *node = weir_queue_take(&loop->inbox), *next; node; node = next) {
        next = node->next; /* the task may be freed by its run */
        struct weir_task *task = (struct weir_task *)((char *)node - offsetof(struct weir_task, node));
        task->run(task);
    }
}

static void stop_run(struct weir_task *task)
{
    (void)task; /* it only wakes the loop */
}

weir_err weir_loop_open(int index, struct weir_loop **ret, struct weir_why *why)
{
    struct weir_loop *loop = weir_alloc0(sizeof *loop);
    weir_err rc = WEIR_NOMEM;
    if (!loop)
        return weir_fail(why, WEIR_NOMEM, "loop: no memory");
    loop->index = index;
    loop->inbox.wake_fd = -1;
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    loop->stop_task.run = stop_run;
    loop->now_ns = weir_now_ns();
    loop->timers_cap = TIMERS_MIN;
    loop->heap = weir_calloc(loop->timers_cap, sizeof *loop->heap);
    if (loop->epoll_fd < 0 || !loop->heap) {
        rc = loop->heap ? weir_fail(why, WEIR_IO, "loop: epoll_create1: %s", strerror(errno))
                        : weir_fail(why, WEIR_NOMEM, "loop: no memory");
        goto fail;
    }
    rc = weir_queue_init(&loop->inbox, /* n_max= */ 0, /* with_fd= */ true, why);
    if (rc != WEIR_OK)
        goto fail;
    loop->inbox_watch.fd = loop->inbox.wake_fd;
    loop->inbox_watch.run = run_tasks;
    rc = weir_loop_watch(loop, &loop->inbox_watch, EPOLLIN, why);
    if (rc != WEIR_OK) {
        weir_queue_release(&loop->inbox);
        goto fail;
    }
    *ret = loop;
    return WEIR_OK;
fail:
    if (loop->epoll_fd >= 0)
        close(loop->epoll_fd);
    weir_free(loop->heap);
    weir_free(loop);
    return rc;
}

void weir_loop_close(struct weir_loop *loop)
{
    if (!loop)
        return;
    while (weir_queue_len(&loop->inbox) != 0) /* [W3] */
        run_tasks(&loop->inbox_watch, EPOLLIN);
    weir_queue_close(&loop->inbox);
    weir_queue_release(&loop->inbox);
    close(loop->epoll_fd);
    if (current == loop)
        current = NULL;
    weir_free(loop->heap);
    weir_free(loop);
}

int weir_loop_index(const struct weir_loop *loop)
{
    return loop->index;
}

uint64_t weir_loop_now(const struct weir_loop *loop)
{
    return loop->now_ns;
}

struct weir_loop *weir_loop_current(void)
{
    return current;
}

void weir_loop_post(struct weir_loop *loop, struct weir_task *task)
{
    weir_err rc = weir_queue_push(&loop->inbox, &task->node);
    WEIR_BUG_ON(rc !=
                WEIR_OK); /* no bound, and not yet closed: a task after weir_loop_close is a fault of ours */
}

void weir_loop_stop(struct weir_loop *loop)
{
    if (!atomic_exchange(&loop->stopped, true))
        weir_loop_post(loop, &loop->stop_task);
}

/* Timers: a binary heap, soonest first. */

static void heap_put(struct weir_loop *loop, size_t i, struct weir_timer *timer)
{
    loop->heap[i] = timer;
    timer->i_heap = i;
}

static void heap_up(struct weir_loop *loop, size_t i, struct weir_timer *timer)
{
    for (; i > 1 && loop->heap[i / 2]->at_ns > timer->at_ns; i /= 2)
        heap_put(loop, i, loop->heap[i / 2]);
    heap_put(loop, i, timer);
}

static void heap_down(struct weir_loop *loop, size_t i, struct weir_timer *timer)
{
    for (size_t child; (child = 2 * i) <= loop->n_timers; i = child) {
        if (child < loop->n_timers && loop->heap[child + 1]->at_ns < loop->heap[child]->at_ns)
            child++;
        if (loop->heap[child]->at_ns >= timer->at_ns)
            break;
        heap_put(loop, i, loop->heap[child]);
    }
    heap_put(loop, i, timer);
}

static void heap_move(struct weir_loop *loop, size_t i, struct weir_timer *timer)
{
    if (i > 1 && loop->heap[i / 2]->at_ns > timer->at_ns)
        heap_up(loop, i, timer);
    else
        heap_down(loop, i, timer);
}

weir_err weir_loop_timer_set(struct weir_loop *loop, struct weir_timer *timer, uint64_t at_ns)
{
    if (timer->i_heap != 0) {
        timer->at_ns = at_ns;
        heap_move(loop, timer->i_heap, timer);
        return WEIR_OK;
    }
    if (loop->n_timers + 1 >= loop->timers_cap) {
        struct weir_timer **heap = weir_realloc(loop->heap, 2 * loop->timers_cap * sizeof *heap);
        if (!heap)
            return WEIR_NOMEM;
        loop->heap = heap;
        loop->timers_cap *= 2;
    }
    timer->at_ns = at_ns;
    heap_up(loop, ++loop->n_timers, timer);
    return WEIR_OK;
}

void weir_loop_timer_clear(struct weir_loop *loop, struct weir_timer *timer)
{
    size_t i = timer->i_heap;
    if (i == 0)
        return;
    struct weir_timer *last = loop->heap[loop->n_timers--];
    timer->i_heap = 0;
    if (last != timer)
        heap_move(loop, i, last);
}

static void run_timers(struct weir_loop *loop)
{
    for (size_t n = loop->n_timers; n > 0 && loop->n_timers > 0; n--) { /* [W2] */
        struct weir_timer *timer = loop->heap[1];
        if (timer->at_ns > loop->now_ns)
            break;
        weir_loop_timer_clear(loop, timer);
        timer->run(timer);
    }
}

void weir_loop_later(struct weir_loop *loop, struct weir_later *later)
{
    if (later->pprev)
        return;
    later->next = loop->laters;
    later->pprev = &loop->laters;
    if (later->next)
        later->next->pprev = &later->next;
    loop->laters = later;
}

void weir_loop_later_cancel(struct weir_later *later)
{
    if (!later->pprev)
        return;
    *later->pprev = later->next;
    if (later->next)
        later->next->pprev = later->pprev;
    later->pprev = NULL;
}

static void run_laters(struct weir_loop *loop)
{
    loop->running = loop->laters; /* [W2]: what is queued from now on is for the next turn */
    loop->laters = NULL;
    if (loop->running)
        loop->running->pprev = &loop->running;
    while (loop->running) {
        struct weir_later *later = loop->running;
        weir_loop_later_cancel(later);
        later->run(later);
    }
}

weir_err weir_loop_watch(struct weir_loop *loop, struct weir_watch *watch, uint32_t epoll_events,
                         struct weir_why *why)
{
    struct epoll_event event = { .events = epoll_events, .data.ptr = watch };
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, watch->fd, &event) != 0)
        return weir_fail(why, WEIR_IO, "loop: epoll_ctl: %s", strerror(errno));
    return WEIR_OK;
}

void weir_loop_unwatch(struct weir_loop *loop, struct weir_watch *watch)
{
    (void)epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, watch->fd, NULL); /* fails only when it isn't there */
    for (int i = loop->i_event; i < loop->n_events; i++) {
        if (loop->events[i].data.ptr == watch)
            loop->events[i].data.ptr = NULL; /* [W1] */
    }
}

static int wait_ms(const struct weir_loop *loop, int timeout_ms)
{
    if (loop->laters)
        return 0;
    if (loop->n_timers == 0)
        return timeout_ms;
    uint64_t now_ns = weir_now_ns(), at_ns = loop->heap[1]->at_ns;
    uint64_t ms = at_ns <= now_ns ? 0 : (at_ns - now_ns + WEIR_MS - 1) / WEIR_MS;
    if (timeout_ms >= 0 && ms > (uint64_t)timeout_ms)
        return timeout_ms;
    return ms > INT_MAX ? INT_MAX : (int)ms;
}

void weir_loop_turn(struct weir_loop *loop, int timeout_ms)
{
    current = loop;
    int n = epoll_wait(loop->epoll_fd, loop->events, EVENTS_MAX, wait_ms(loop, timeout_ms));
    WEIR_BUG_ON(n < 0 && errno != EINTR);
    loop->n_events = n < 0 ? 0 : n;
    loop->now_ns = weir_now_ns();
    loop->i_event = 0;
    run_timers(loop);
    while (loop->i_event < loop->n_events) {
        struct epoll_event *event = &loop->events[loop->i_event++];
        struct weir_watch *watch = event->data.ptr;
        if (watch)
            watch->run(watch, event->events);
    }
    run_laters(loop);
}

void weir_loop_run(struct weir_loop *loop)
{
    while (!atomic_load(&loop->stopped))
        weir_loop_turn(loop, /* timeout_ms= */ -1);
}
