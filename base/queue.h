/* queue.h - how threads meet: a bounded queue of pointers, many producers, one consumer, woken by an eventfd.
 *
 * Intrusive nodes: a push never allocates, so it fails for one reason only: the bound. The eventfd is written
 * only when the queue was empty (coalesced), so that a burst costs one wake-up. FIFO per producer.
 *   [Q1] No node is lost or seen twice.
 *   [Q2] A push that follows the consumer's empty look always wakes it. */
#ifndef WEIR_BASE_QUEUE_H
#define WEIR_BASE_QUEUE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#ifdef __cplusplus
extern "C" {
#endif

struct weir_qnode {
    struct weir_qnode *next;
};

struct weir_queue {
    pthread_mutex_t lock; /* held for a few instructions and at most a wake-up */
    struct weir_qnode *head, **tail;
    size_t n, n_max; /* n_max 0 = the caller bounds it otherwise (pre-allocated nodes) */
    uint64_t n_refused;
    int wake_fd; /* eventfd, non-blocking; poll it for reading; -1 when made without one */
    bool closed;
    pthread_cond_t more; /* for weir_queue_wait */
};

/* with_fd: also make an eventfd for an epoll loop. WEIR_IO: no descriptor left. */
WEIR_MUST_CHECK weir_err weir_queue_init(struct weir_queue *q, size_t n_max, bool with_fd,
                                         struct weir_why *why);
void weir_queue_release(struct weir_queue *q); /* nodes left are the caller's */

/* Any thread. WEIR_FULL: at the bound. WEIR_UNAVAILABLE: closed. */
WEIR_MUST_CHECK weir_err weir_queue_push(struct weir_queue *q, struct weir_qnode *node);
/* The consumer takes everything at once, oldest first; NULL when empty. Clears the eventfd. */
struct weir_qnode *weir_queue_take(struct weir_queue *q);
/* Blocks until there is something, or it is closed (NULL), or timeout_ns (UINT64_MAX = none) has passed
 * (NULL). */
struct weir_qnode *weir_queue_wait(struct weir_queue *q, uint64_t timeout_ns);
/* No more pushes; wakes the consumer. */
void weir_queue_close(struct weir_queue *q);
size_t weir_queue_len(struct weir_queue *q);
bool weir_queue_closed(struct weir_queue *q); /* nodes pushed before may still be there to take */

#ifdef __cplusplus
}
#endif
#endif
