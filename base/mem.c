/* mem.c - the heap's door.
 *
 * Programs link jemalloc over malloc, so that these stay malloc. The test budget is one thread-local compare
 * on each call: nothing beside malloc itself, and it lets a release build run the same tests.
 *   [M1] With a budget of n, n allocations succeed and the rest give NULL, on this thread only. */
#include "base/mem.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local long budget = -1;

static bool spend(void)
{
    if (__builtin_expect(budget < 0, 1))
        return true;
    if (budget == 0)
        return false; /* [M1] */
    budget--;
    return true;
}

void weir_test_alloc_budget(long n)
{
    budget = n;
}

/* malloc(0) may give NULL, which would read as "no memory". */
static size_t at_least_1(size_t size)
{
    return size ? size : 1;
}

void *weir_alloc(size_t size)
{
    return spend() ? malloc(at_least_1(size)) : NULL;
}

void *weir_alloc0(size_t size)
{
    return spend() ? calloc(1, at_least_1(size)) : NULL;
}

void *weir_calloc(size_t n, size_t size)
{
    size_t total;

    if (__builtin_mul_overflow(n, size, &total))
        return NULL;
    return weir_alloc0(total);
}

void *weir_realloc(void *ptr, size_t size)
{
    return spend() ? realloc(ptr, at_least_1(size)) : NULL;
}

void *weir_alloc_aligned(size_t alignment, size_t size)
{
    void *ptr;

    if (alignment < sizeof(void *))
        alignment = sizeof(void *);
    if (!spend() || posix_memalign(&ptr, alignment, at_least_1(size)) != 0)
        return NULL;
    return ptr;
}

void weir_free(void *ptr)
{
    free(ptr);
}

char *weir_strndup(const char *text, size_t len)
{
    char *copy = len < SIZE_MAX ? weir_alloc(len + 1) : NULL;

    if (!copy)
        return NULL;
    memcpy(copy, text, len);
    copy[len] = '\0';
    return copy;
}

char *weir_strdup(const char *text)
{
    return weir_strndup(text, strlen(text));
}
