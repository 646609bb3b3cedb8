/* rpc.c - the runtime: the core's one start and end, a completion queue for each polling thread, tag
 * dispatch.
 *
 * One queue a thread: measured, several threads on one queue are slower than one, and with its own queue a
 * stream's callbacks come one at a time without a lock held around them. [R1] A tag's function runs on the
 * thread of the queue it was started for, and on no other. Threads: cq[n]. The core adds about eight of its
 * own, which run none of our code. Sources: the core's 1.51 headers; docs/decisions/0003-grpc-core-door.md.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include <grpc/support/log.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "proto/rpc_int.h"

#define QUEUES_MAX 64
#define BEAT_MS 1000 /* an idle thread still tells the watchdog that it lives */

static void *poll_queue(void *arg)
{
    struct rpc_queue *queue = arg;

    for (;;) {
        grpc_event ev = core_next(queue->cq, BEAT_MS);
        weir_thread_beat(weir_now_ns());
        if (ev.type == GRPC_QUEUE_SHUTDOWN)
            return NULL;
        if (ev.type != GRPC_OP_COMPLETE)
            continue;
        struct rpc_tag *tag = ev.tag;
        tag->fn(tag, ev.success != 0); /* [R1] */
    }
}

/* The core logs a peer's faults as errors: for us they are worth a look, no more. */
static void core_log(gpr_log_func_args *args)
{
    weir_log(args->severity == GPR_LOG_SEVERITY_ERROR ? WEIR_LOG_WARN : WEIR_LOG_DEBUG, "grpc_core",
             "message=%s", args->message);
}

/* A core that has run out of descriptors stops accepting for good on TLS ports: let it have what there is. */
static void raise_fd_limit(void)
{
    struct rlimit lim;

    if (getrlimit(RLIMIT_NOFILE, &lim) != 0 || lim.rlim_cur >= lim.rlim_max)
        return;
    lim.rlim_cur = lim.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &lim) != 0)
        WEIR_WARN("rpc_fd_limit", "reason=can't raise the soft limit of open files to %lu",
                  (unsigned long)lim.rlim_max);
}

/* Of the core's two ways to look a name up, its own (c-ares) leaks a little each time a name comes from
 * /etc/hosts. The other is getaddrinfo on a thread of the core's. The core reads this once, from the
 * environment only; what the operator has set stands. */
static void choose_resolver(void)
{
    (void)setenv("GRPC_DNS_RESOLVER", "native", /* overwrite= */ 0);
}

grpc_completion_queue *rpc_pick_queue(struct weir_rpc *rpc)
{
    unsigned turn = atomic_fetch_add_explicit(&rpc->turn, 1, memory_order_relaxed);

    return rpc->queues[turn % (unsigned)rpc->n_queues].cq;
}

weir_err weir_rpc_open(int n_cq_threads, struct weir_rpc **ret, struct weir_why *why)
{
    weir_err rc = WEIR_OK;

    if (n_cq_threads < 1 || n_cq_threads > QUEUES_MAX)
        return weir_fail_param(why, "n_cq_threads", WEIR_INVALID, "rpc: 1 to %d threads, not %d", QUEUES_MAX,
                               n_cq_threads);
    struct weir_rpc *rpc = weir_alloc0(sizeof *rpc + (size_t)n_cq_threads * sizeof rpc->queues[0]);
    if (!rpc)
        return weir_fail(why, WEIR_NOMEM, "rpc: no memory");
    raise_fd_limit();
    choose_resolver();
    gpr_set_log_function(core_log);
    grpc_init();
    for (int i = 0; i < n_cq_threads && rc == WEIR_OK; i++) {
        struct rpc_queue *queue = &rpc->queues[i];
        char name[16];

        queue->cq = grpc_completion_queue_create_for_next(/* reserved= */ NULL);
        rpc->n_queues = i + 1;
        snprintf(name, sizeof name, "cq%d", i);
        rc = weir_thread_start(&queue->thread, WEIR_ROLE_CQ, name, poll_queue, queue, why);
    }
    if (rc != WEIR_OK) {
        weir_rpc_close(rpc);
        return rc;
    }
    *ret = rpc;
    return WEIR_OK;
}

/* A queue without a thread has had no operations: its shutdown is all there is to drain. */
static void close_queue(struct rpc_queue *queue)
{
    bool polled = queue->thread.running;

    grpc_completion_queue_shutdown(queue->cq);
    weir_thread_join(&queue->thread);
    while (!polled && core_next(queue->cq, BEAT_MS).type != GRPC_QUEUE_SHUTDOWN)
        continue;
    grpc_completion_queue_destroy(queue->cq);
}

void weir_rpc_close(struct weir_rpc *rpc)
{
    if (!rpc)
        return;
    for (int i = 0; i < rpc->n_queues; i++)
        close_queue(&rpc->queues[i]);
    WEIR_CHECK(atomic_load_explicit(&rpc->n_streams, memory_order_relaxed) == 0);
    grpc_shutdown_blocking(); /* so that nothing of the core runs when main returns */
    weir_free(rpc);
}
