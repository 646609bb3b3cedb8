/* arena.h - memory that is freed all at once: one for each request.
 *
 * Bump allocation in chunks that double up to 64 KiB; larger blocks get a chunk of their own. `limit` bounds
 * the total, so that no request can take more than its share. Under ASan freed and unused parts are poisoned.
 * One thread at a time. */
#ifndef WEIR_BASE_ARENA_H
#define WEIR_BASE_ARENA_H

#include <stdarg.h>
#include <stddef.h>

#include "base/err.h"

#ifdef __cplusplus
extern "C" {
#endif

struct weir_arena_chunk;
struct weir_arena {
    struct weir_arena_chunk *head; /* newest first */
    char *next, *end;              /* free part of the newest chunk */
    size_t used, limit;            /* bytes taken from the heap; 0 = no limit */
};

void weir_arena_init(struct weir_arena *arena, size_t limit_bytes);
void weir_arena_release(struct weir_arena *arena); /* frees all; the arena may be initialised again */
void weir_arena_clear(struct weir_arena *arena);   /* empties for reuse, keeps one chunk */

/* 16-byte aligned; NULL when out of memory or past the limit. */
void *weir_arena_alloc(struct weir_arena *arena, size_t size);
void *weir_arena_alloc0(struct weir_arena *arena, size_t size);
char *weir_arena_strndup(struct weir_arena *arena, const char *text, size_t len); /* adds a NUL */
char *weir_arena_printf(struct weir_arena *arena, const char *fmt, ...) WEIR_PRINTF(2, 3);

#ifdef __cplusplus
}
#endif
#endif
