/* arena.c - bump allocation in doubling chunks.
 *
 * The newest chunk is bumped; a block that is too large for a chunk gets its own, linked behind the newest,
 * so that the free part of that one is not lost.
 *   [A1] Blocks are 16-byte aligned and never overlap.
 *   [A2] Bytes taken from the heap, chunk headers included, never pass the limit.
 *   [A3] Under ASan every byte that is not part of a block is poisoned; there is a gap between two blocks.
 * One thread at a time. */
#include "base/arena.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/sanitize_int.h"

#if WITH_ASAN
#include <sanitizer/asan_interface.h>
#define POISON(ptr, len) ASAN_POISON_MEMORY_REGION(ptr, len)
#define UNPOISON(ptr, len) ASAN_UNPOISON_MEMORY_REGION(ptr, len)
enum { GAP = 16 };
#else
#define POISON(ptr, len) ((void)(ptr), (void)(len))
#define UNPOISON(ptr, len) ((void)(ptr), (void)(len))
enum { GAP = 0 };
#endif

enum { ALIGN = 16, CHUNK_MIN = 2048, CHUNK_MAX = 65536 };

struct weir_arena_chunk {
    struct weir_arena_chunk *next;
    size_t size; /* of the heap block, this header included */
    char data[] __attribute__((aligned(ALIGN)));
};

void weir_arena_init(struct weir_arena *arena, size_t limit_bytes)
{
    memset(arena, 0, sizeof *arena);
    arena->limit = limit_bytes;
}

static void chunk_free(struct weir_arena *arena, struct weir_arena_chunk *chunk)
{
    size_t len = chunk->size - sizeof *chunk;

    UNPOISON(chunk->data, len);
    arena->used -= chunk->size;
    weir_free(chunk);
}

void weir_arena_release(struct weir_arena *arena)
{
    if (!arena)
        return;
    while (arena->head) {
        struct weir_arena_chunk *chunk = arena->head;
        arena->head = chunk->next;
        chunk_free(arena, chunk);
    }
    weir_arena_init(arena, arena->limit);
}

void weir_arena_clear(struct weir_arena *arena)
{
    struct weir_arena_chunk *keep = arena->head;

    if (!keep)
        return;
    while (keep->next) {
        struct weir_arena_chunk *chunk = keep->next;
        keep->next = chunk->next;
        chunk_free(arena, chunk);
    }
    /* One large block must not stay with a connection for ever. */
    if (keep->size > CHUNK_MAX) {
        weir_arena_release(arena);
        return;
    }
    arena->next = keep->data;
    arena->end = (char *)keep + keep->size;
    POISON(arena->next, (size_t)(arena->end - arena->next));
}

/* A chunk with room for `need` bytes, aiming at `want` heap bytes; less when the limit leaves less. [A2] */
static struct weir_arena_chunk *chunk_new(struct weir_arena *arena, size_t need, size_t want)
{
    size_t least = sizeof(struct weir_arena_chunk) + need;
    size_t left = arena->limit ? arena->limit - arena->used : SIZE_MAX;

    if (least > left)
        return NULL;
    if (want < least)
        want = least;
    if (want > left)
        want = left;
    struct weir_arena_chunk *chunk = weir_alloc(want);
    if (!chunk)
        return NULL;
    chunk->size = want;
    arena->used += want;
    POISON(chunk->data, want - sizeof *chunk);
    return chunk;
}

static void *alloc_slow(struct weir_arena *arena, size_t need, size_t size)
{
    struct weir_arena_chunk *head = arena->head;
    bool own = head && need > CHUNK_MAX / 4; /* the rest of the newest chunk is worth keeping */
    size_t want = own ? need : head && head->size < CHUNK_MAX ? head->size * 2 : head ? CHUNK_MAX : CHUNK_MIN;
    struct weir_arena_chunk *chunk = chunk_new(arena, need, want < CHUNK_MAX || own ? want : CHUNK_MAX);

    if (!chunk)
        return NULL;
    if (own) {
        chunk->next = head->next;
        head->next = chunk;
    } else {
        chunk->next = head;
        arena->head = chunk;
        arena->next = chunk->data + need;
        arena->end = (char *)chunk + chunk->size;
    }
    UNPOISON(chunk->data, size);
    return chunk->data;
}

void *weir_arena_alloc(struct weir_arena *arena, size_t size)
{
    if (size > SIZE_MAX / 2)
        return NULL;
    size_t need = ((size + ALIGN - 1) & ~(size_t)(ALIGN - 1)) + GAP; /* [A1] [A3] */
    if (need == 0)
        need = ALIGN; /* two empty blocks still differ */
    if (need > (size_t)(arena->end - arena->next))
        return alloc_slow(arena, need, size);
    void *ptr = arena->next;
    arena->next += need;
    UNPOISON(ptr, size);
    return ptr;
}

void *weir_arena_alloc0(struct weir_arena *arena, size_t size)
{
    void *ptr = weir_arena_alloc(arena, size);

    if (ptr)
        memset(ptr, 0, size);
    return ptr;
}

char *weir_arena_strndup(struct weir_arena *arena, const char *text, size_t len)
{
    char *copy = len < SIZE_MAX ? weir_arena_alloc(arena, len + 1) : NULL;

    if (!copy)
        return NULL;
    if (len > 0)
        memcpy(copy, text, len);
    copy[len] = '\0';
    return copy;
}

char *weir_arena_printf(struct weir_arena *arena, const char *fmt, ...)
{
    va_list args, again;
    char *text = NULL;

    va_start(args, fmt);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    if (n >= 0)
        text = weir_arena_alloc(arena, (size_t)n + 1);
    if (text)
        vsnprintf(text, (size_t)n + 1, fmt, again);
    va_end(again);
    va_end(args);
    return text;
}
