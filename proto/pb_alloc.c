/* pb_alloc.c - protobuf-c's allocator over an arena: a message of many strings costs a few chunk allocations
 * instead of one malloc each, and goes with the request.
 *
 * The arena's limit bounds what a message may unpack to: past it, protobuf-c gives up the whole message. */
#include <protobuf-c/protobuf-c.h>

#include "base/arena.h"
#include "proto/rpc.h"

static void *take(void *arena, size_t size)
{
    return weir_arena_alloc(arena, size);
}

static void leave(void *arena, void *block)
{
    (void)arena;
    (void)block;
}

void weir_pb_allocator(struct ProtobufCAllocator *ret, struct weir_arena *arena)
{
    *ret = (struct ProtobufCAllocator){ .alloc = take, .free = leave, .allocator_data = arena };
}
