/* queue.c - the bounded queue between threads.
 *
 *   [Q1] No node is lost or seen twice.
 *   [Q2] A push that follows the consumer's empty look always wakes it.
 *   [Q3] The eventfd is readable exactly while nodes or an unseen close are waiting.
 * The wake-up happens under the lock. It is one non-blocking write, only when the queue was empty, and it
 * makes the rule of the owner simple: once a consumer holds the last node it expects, it may release the
 * queue at once. [Q3] gives [Q2]: writing and clearing the eventfd are as atomic as the list is. */
#include "base/queue.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

weir_err weir_queue_init(struct weir_queue *q, size_t n_max, bool with_fd, struct weir_why *why)
{
    pthread_condattr_t attr;
    int fd = -1;

    if (with_fd && (fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) < 0)
        return weir_fail(why, WEIR_IO, "queue: eventfd: %s", strerror(errno));
    memset(q, 0, sizeof *q);
    q->tail = &q->head;
    q->n_max = n_max;
    q->wake_fd = fd;
    pthread_mutex_init(&q->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&q->more, &attr);
    pthread_condattr_destroy(&attr);
    return WEIR_OK;
}

void weir_queue_release(struct weir_queue *q)
{
    if (!q || !q->tail)
        return; /* never initialised */
    if (q->wake_fd >= 0)
        close(q->wake_fd);
    pthread_cond_destroy(&q->more);
    pthread_mutex_destroy(&q->lock);
    memset(q, 0, sizeof *q);
    q->wake_fd = -1;
}

/* Under the lock. */
static void wake(struct weir_queue *q)
{
    const uint64_t one = 1;

    /* EAGAIN: the counter is full, so it is readable. Nothing else can happen to an eventfd of ours. */
    if (q->wake_fd >= 0 && write(q->wake_fd, &one, sizeof one) < 0)
        WEIR_CHECK(errno == EAGAIN);
    pthread_cond_signal(&q->more);
}

weir_err weir_queue_push(struct weir_queue *q, struct weir_qnode *node)
{
    weir_err rc = WEIR_OK;

    node->next = NULL;
    pthread_mutex_lock(&q->lock);
    if (q->closed)
        rc = WEIR_UNAVAILABLE;
    else if (q->n_max != 0 && q->n >= q->n_max) {
        q->n_refused++;
        rc = WEIR_FULL;
    } else {
        *q->tail = node;
        q->tail = &node->next;
        if (q->n++ == 0)
            wake(q); /* [Q2] */
    }
    pthread_mutex_unlock(&q->lock);
    return rc;
}

/* Under the lock. */
static struct weir_qnode *detach(struct weir_queue *q)
{
    struct weir_qnode *all = q->head;
    uint64_t count;

    if (q->wake_fd >= 0 && (q->n > 0 || q->closed) && read(q->wake_fd, &count, sizeof count) < 0)
        WEIR_CHECK(errno == EAGAIN); /* [Q3] a close that was seen before */
    q->head = NULL;
    q->tail = &q->head;
    q->n = 0;
    return all;
}

struct weir_qnode *weir_queue_take(struct weir_queue *q)
{
    pthread_mutex_lock(&q->lock);
    struct weir_qnode *all = detach(q);
    pthread_mutex_unlock(&q->lock);
    return all;
}

static struct timespec deadline_after(uint64_t timeout_ns)
{
    uint64_t now_ns = weir_now_ns(), at_ns;

    if (__builtin_add_overflow(now_ns, timeout_ns, &at_ns) || at_ns > INT64_MAX)
        at_ns = INT64_MAX;
    return (struct timespec){ .tv_sec = (time_t)(at_ns / WEIR_S), .tv_nsec = (long)(at_ns % WEIR_S) };
}

struct weir_qnode *weir_queue_wait(struct weir_queue *q, uint64_t timeout_ns)
{
    struct timespec until = { 0 };
    int waited = 0;

    if (timeout_ns != UINT64_MAX)
        until = deadline_after(timeout_ns);
    pthread_mutex_lock(&q->lock);
    while (q->n == 0 && !q->closed && waited != ETIMEDOUT) {
        if (timeout_ns == UINT64_MAX)
            waited = pthread_cond_wait(&q->more, &q->lock);
        else
            waited = pthread_cond_timedwait(&q->more, &q->lock, &until);
    }
    struct weir_qnode *all = detach(q);
    pthread_mutex_unlock(&q->lock);
    return all;
}

void weir_queue_close(struct weir_queue *q)
{
    pthread_mutex_lock(&q->lock);
    if (!q->closed) {
        q->closed = true;
        wake(q);
    }
    pthread_mutex_unlock(&q->lock);
}

size_t weir_queue_len(struct weir_queue *q)
{
    pthread_mutex_lock(&q->lock);
    size_t n = q->n;
    pthread_mutex_unlock(&q->lock);
    return n;
}

bool weir_queue_closed(struct weir_queue *q)
{
    pthread_mutex_lock(&q->lock);
    bool closed = q->closed;
    pthread_mutex_unlock(&q->lock);
    return closed;
}
