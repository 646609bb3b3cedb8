/* buf.h - a growable byte buffer with a read end: bytes go in at the back and out at the front.
 *
 * A failed append marks the buffer broken (`failed`) and appends nothing more: a writer appends freely and
 * tests once. One thread at a time. */
#ifndef WEIR_BASE_BUF_H
#define WEIR_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#ifdef __cplusplus
extern "C" {
#endif

struct weir_str { /* bytes that somebody else owns; not NUL-terminated */
    const char *ptr;
    size_t len;
};
#define WEIR_STR(literal) ((struct weir_str){ (literal), sizeof(literal) - 1 })
#define WEIR_STR_FMT(s) (int)(s).len, (s).ptr /* for "%.*s" */

struct weir_str weir_str(const char *text); /* NULL gives the empty string */
bool weir_str_eq(struct weir_str a, const char *b);
bool weir_str_eq_nocase(struct weir_str a, const char *b); /* ASCII */
int weir_str_cmp(struct weir_str a, struct weir_str b);    /* by bytes, a prefix first: <0, 0, >0 */

struct weir_buf {
    char *data;
    size_t head, tail, cap; /* content is data[head, tail) */
    size_t limit;           /* most bytes of content; 0 = no limit */
    bool failed;
};

void weir_buf_init(struct weir_buf *buf, size_t limit_bytes);
void weir_buf_release(struct weir_buf *buf);
void weir_buf_clear(struct weir_buf *buf); /* empties, clears `failed`, keeps the memory */
size_t weir_buf_len(const struct weir_buf *buf);
const char *weir_buf_ptr(const struct weir_buf *buf); /* first byte of the content; NULL when never used */
void weir_buf_consume(struct weir_buf *buf, size_t n);

/* Room for n more bytes at the back, to be filled by the caller and then committed. NULL on failure. */
char *weir_buf_reserve(struct weir_buf *buf, size_t n);
void weir_buf_commit(struct weir_buf *buf, size_t n);

void weir_buf_add(struct weir_buf *buf, const void *data, size_t n);
void weir_buf_adds(struct weir_buf *buf, const char *text);
void weir_buf_addf(struct weir_buf *buf, const char *fmt, ...) WEIR_PRINTF(2, 3);
void weir_buf_addc(struct weir_buf *buf, char c);
void weir_buf_addu(struct weir_buf *buf, uint64_t n); /* decimal; no printf: hot path */
/* The content as a NUL-terminated string (the NUL is not content); NULL when failed. */
const char *weir_buf_cstr(struct weir_buf *buf);

#ifdef __cplusplus
}
#endif
#endif
