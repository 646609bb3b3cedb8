/* rpc_core.h - the calls of the gRPC core that hand something to a completion queue, or take it back. Private
 * to proto.
 *
 * The core is not built with the thread sanitizer, which therefore sees no order between whoever starts an
 * operation and the thread that polls its end. These wrappers tell it of the one and only hand-over: release
 * before the start, acquire after the event, on the tag. What is not ordered by a tag is a race, here or
 * there.
 *
 *   [C1] The completion may run before the start returns: nothing of the tag's owner is touched after it,
 * unless the caller holds a reference of its own. [C2] At most one operation of each kind is outstanding on a
 * call, so a tag is never in the core twice. */
#ifndef WEIR_PROTO_RPC_CORE_H
#define WEIR_PROTO_RPC_CORE_H

#include <stdbool.h>

#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/support/time.h>

#include "base/err.h"

#if defined(__SANITIZE_THREAD__)
#define RPC_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define RPC_TSAN 1
#endif
#endif
#ifdef RPC_TSAN
void __tsan_acquire(void *addr);
void __tsan_release(void *addr);
#define CORE_RELEASE(tag) __tsan_release(tag)
#define CORE_ACQUIRE(tag) __tsan_acquire(tag)
#else
#define CORE_RELEASE(tag) ((void)(tag))
#define CORE_ACQUIRE(tag) ((void)(tag))
#endif

/* One for each operation that may be outstanding, embedded in its owner. `fn` runs on the queue's thread. */
struct rpc_tag {
    void (*fn)(struct rpc_tag *tag, bool ok);
    void *owner;
};

/* The only errors are our own faults: a second operation of a kind, bad metadata, a queue that was shut down.
 */
static inline void core_start(grpc_call *call, const grpc_op *ops, size_t n_ops, struct rpc_tag *tag)
{
    CORE_RELEASE(tag);
    grpc_call_error rc = grpc_call_start_batch(call, ops, n_ops, tag, /* reserved= */ NULL);
    WEIR_BUG_ON(rc != GRPC_CALL_OK);
}

static inline void core_request_call(grpc_server *server, grpc_call **ret_call,
                                     grpc_call_details *ret_details, grpc_metadata_array *ret_meta,
                                     grpc_completion_queue *cq, struct rpc_tag *tag)
{
    CORE_RELEASE(tag);
    grpc_call_error rc = grpc_server_request_call(server, ret_call, ret_details, ret_meta, cq, cq, tag);
    WEIR_BUG_ON(rc != GRPC_CALL_OK);
}

static inline void core_shutdown_and_notify(grpc_server *server, grpc_completion_queue *cq,
                                            struct rpc_tag *tag)
{
    CORE_RELEASE(tag);
    grpc_server_shutdown_and_notify(server, cq, tag);
}

/* The next event of `cq`; a type of GRPC_QUEUE_TIMEOUT after timeout_ms. */
static inline grpc_event core_next(grpc_completion_queue *cq, int timeout_ms)
{
    gpr_timespec until =
        gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(timeout_ms, GPR_TIMESPAN));
    grpc_event ev = grpc_completion_queue_next(cq, until, /* reserved= */ NULL);

    if (ev.type == GRPC_OP_COMPLETE)
        CORE_ACQUIRE(ev.tag);
    return ev;
}

#endif
