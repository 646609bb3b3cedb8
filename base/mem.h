/* mem.h - the one door to the heap.
 *
 * Thin over malloc (jemalloc in release builds); in test builds an allocation budget makes the n-th call
 * fail. Any thread. NULL means no memory. */
#ifndef WEIR_BASE_MEM_H
#define WEIR_BASE_MEM_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

void *weir_alloc(size_t size);
void *weir_alloc0(size_t size);                          /* zeroed */
void *weir_calloc(size_t n, size_t size);                /* zeroed; NULL when n * size overflows */
void *weir_realloc(void *ptr, size_t size);              /* the old block stays on failure */
void *weir_alloc_aligned(size_t alignment, size_t size); /* power of two; free with weir_free */
void weir_free(void *ptr);                               /* takes NULL */
char *weir_strdup(const char *text);
char *weir_strndup(const char *text, size_t len); /* copies len bytes, adds a NUL */

/* Tests: only the next `n` allocations of this thread succeed; -1 lifts the limit. */
void weir_test_alloc_budget(long n);

#ifdef __cplusplus
}
#endif
#endif
