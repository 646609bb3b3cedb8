/* loop.h - one epoll loop a thread: sockets, timers, tasks from other threads, and work put off
 * to the end of a turn.
 *
 *     main:   weir_loop_open(0, &loop, &why);  start a thread that calls weir_loop_run(loop)
 *     others: weir_loop_post(loop, &msg->task);             (any thread; never fails, never allocates)
 *     main:   weir_loop_stop(loop); join; weir_loop_close(loop);
 *
 * One turn: wait; read the clock once; due timers; ready sockets and posted tasks; then what was put off with
 * weir_loop_later(), so that all that one turn writes to a connection leaves in one send. Nothing here
 * allocates but the heap of timers, which grows by doubling. All hooks run on the loop's thread, and all
 * functions are for that thread (or for any, before weir_loop_run), except weir_loop_post and weir_loop_stop.
 *
 * The four structs below are embedded in the owner's; zeroed memory with `run` set is a valid, idle one. Each
 * may be freed by its owner once it is unwatched, cleared, cancelled, or (a task) run: also from inside its
 * own `run`. */
#ifndef WEIR_HTTP_LOOP_H
#define WEIR_HTTP_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/queue.h"

struct weir_loop;

struct weir_task { /* a message from any thread; owned by the loop from post until `run` is called */
    struct weir_qnode node;
    void (*run)(struct weir_task *task);
};

struct weir_timer { /* fires once, at or after at_ns of the monotonic clock, rounded up to a millisecond */
    uint64_t at_ns;
    size_t i_heap; /* place in the heap, from 1; 0 = not set */
    void (*run)(struct weir_timer *timer);
};

struct weir_later {                   /* runs once, at the end of this turn */
    struct weir_later *next, **pprev; /* pprev NULL = not queued */
    void (*run)(struct weir_later *later);
};

struct weir_watch { /* a descriptor */
    int fd;
    void (*run)(struct weir_watch *watch, uint32_t epoll_events);
};

/* `index` is the loop's number among its brothers. WEIR_IO: no descriptor left. WEIR_NOMEM. */
WEIR_MUST_CHECK weir_err weir_loop_open(int index, struct weir_loop **ret, struct weir_why *why);
/* After weir_loop_run has returned. Runs the tasks that are still posted, so that none is lost; then frees.
 */
void weir_loop_close(struct weir_loop *loop);

void weir_loop_run(struct weir_loop *loop);                  /* until weir_loop_stop */
void weir_loop_turn(struct weir_loop *loop, int timeout_ms); /* one turn; negative: wait without end */
void weir_loop_stop(struct weir_loop *loop);                 /* any thread; the turn under way is finished */

int weir_loop_index(const struct weir_loop *loop);
uint64_t weir_loop_now(const struct weir_loop *loop); /* the clock as of this turn's start */
struct weir_loop *weir_loop_current(void);            /* the loop that runs on this thread; NULL when none */

/* Any thread. Tasks of one thread run in the order they were posted. */
void weir_loop_post(struct weir_loop *loop, struct weir_task *task);

/* Sets or moves it. The heap's growth may fail: WEIR_NOMEM, the timer is then not set. A move never fails. */
WEIR_MUST_CHECK weir_err weir_loop_timer_set(struct weir_loop *loop, struct weir_timer *timer,
                                             uint64_t at_ns);
void weir_loop_timer_clear(struct weir_loop *loop, struct weir_timer *timer); /* takes one that is not set */

/* Queued twice is queued once. One that is queued by a `later` runs in the next turn, which then does not
 * wait. */
void weir_loop_later(struct weir_loop *loop, struct weir_later *later);
void weir_loop_later_cancel(struct weir_later *later);

/* epoll_events as for epoll_ctl(2). After unwatch no event of this turn reaches it any more. WEIR_IO. */
WEIR_MUST_CHECK weir_err weir_loop_watch(struct weir_loop *loop, struct weir_watch *watch,
                                         uint32_t epoll_events, struct weir_why *why);
void weir_loop_unwatch(struct weir_loop *loop, struct weir_watch *watch);

#endif
