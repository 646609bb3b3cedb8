/* err.c - the error table, sentences for people, and what happens on our own faults.
 *
 *   [E1] A sentence is always terminated and never ends within a UTF-8 character.
 *   [E2] `why` may be NULL everywhere.
 * Any thread; the count of failed checks is a relaxed atomic (only read for a metric). */
#include "base/err.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/utf8.h"

static const struct weir_err_info infos[] = {
#define ROW(name, http, grpc, retry, type, code, text) { #name, http, grpc, retry, type, code, text },
    WEIR_ERRORS(ROW)
#undef ROW
};

static atomic_ulong n_failed_checks;

const struct weir_err_info *weir_err_info(weir_err err)
{
    unsigned i = (unsigned)err;

    return &infos[i < WEIR_ERR_COUNT ? i : WEIR_INTERNAL];
}

weir_err weir_err_from_grpc(int grpc)
{
    for (unsigned i = 0; i < WEIR_ERR_COUNT; i++)
        if (infos[i].grpc == grpc)
            return (weir_err)i;
    return WEIR_INTERNAL;
}

/* [E1] Format into `text`; cut what is too long at a character. */
WEIR_PRINTF(3, 0) static void write_text(char *text, size_t size, const char *fmt, va_list args)
{
    int n = vsnprintf(text, size, fmt, args);

    if (n < 0)
        text[0] = '\0';
    else if ((size_t)n >= size) {
        /* What came after the cut is lost: look back for a lead byte whose tails are not all there. */
        size_t at = size - 1, start = at;
        while (start > 0 && at - start < 3 && ((unsigned char)text[start - 1] & 0xc0) == 0x80)
            start--;
        if (start > 0 && (unsigned char)text[start - 1] >= 0xc0 &&
            !weir_utf8_step(text + start - 1, at - start + 1))
            text[start - 1] = '\0';
    }
}

static void write_param(struct weir_why *why, const char *param)
{
    size_t n = weir_utf8_cut(param, strlen(param), sizeof why->param - 1);

    memmove(why->param, param, n); /* it may be our own param, passed on */
    why->param[n] = '\0';
}

weir_err weir_fail(struct weir_why *why, weir_err err, const char *fmt, ...)
{
    va_list args;

    if (!why)
        return err; /* [E2] */
    va_start(args, fmt);
    write_text(why->text, sizeof why->text, fmt, args);
    va_end(args);
    why->param[0] = '\0';
    return err;
}

weir_err weir_fail_param(struct weir_why *why, const char *param, weir_err err, const char *fmt, ...)
{
    va_list args;

    if (!why)
        return err; /* [E2] */
    va_start(args, fmt);
    write_text(why->text, sizeof why->text, fmt, args);
    va_end(args);
    write_param(why, param);
    return err;
}

/* One write(2), no heap: it may be the heap that is broken. */
static void tell(const char *kind, const char *file, int line, const char *what)
{
    char text[512];
    int n = snprintf(text, sizeof text, "%s at %s:%d: %s\n", kind, file, line, what);

    if (n > 0 && write(STDERR_FILENO, text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1) < 0)
        return; /* nobody left to tell */
}

void weir_bug(const char *file, int line, const char *what)
{
    tell("bug", file, line, what);
    abort();
}

void weir_check_failed(const char *file, int line, const char *what)
{
#ifdef WEIR_DEBUG
    weir_bug(file, line, what);
#else
    /* The first is worth a line; a check that fails on each request must not flood the log. */
    if (atomic_fetch_add_explicit(&n_failed_checks, 1, memory_order_relaxed) == 0)
        tell("check failed", file, line, what);
#endif
}

unsigned long weir_check_count(void)
{
    return atomic_load_explicit(&n_failed_checks, memory_order_relaxed);
}
