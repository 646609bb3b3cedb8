/* event.h - the events of a streamed OpenAI completion, read after it has ended: which brought tokens, and the usage.
 *
 *     struct weir_str rest = body, block;
 *     while (event_next(&rest, &block))       // the same blocks, in the same order, that answer.h counts
 *         event_read(block, &arena, &event);
 */
#ifndef WEIR_BENCH_EVENT_H
#define WEIR_BENCH_EVENT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"

struct event {
    bool
        has_tokens; /* text or ids; or a chunk without either in the middle of an answer: a token without text */
    bool has_usage;
    uint64_t prompt_tokens, completion_tokens, cached_tokens; /* 0 where the usage does not say */
};

/* A block ends with an empty line; false when none is left. */
bool event_next(struct weir_str *rest, struct weir_str *ret_block);
/* False: not data that is understood, or an error that the server tells. [DONE] and comments are events without anything. */
bool event_read(struct weir_str block, struct weir_arena *arena, struct event *ret);

#endif
