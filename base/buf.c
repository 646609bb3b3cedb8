/* buf.c - the byte buffer.
 *
 * Memory doubles; content moves to the front only when at least half of the memory before it is free, so that
 * each byte moves a bounded number of times.
 *   [B1] Content never passes the limit.    [B2] After a failure nothing is added until weir_buf_clear. */
#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"

enum { CAP_MIN = 256 };

struct weir_str weir_str(const char *text)
{
    return (struct weir_str){ text, text ? strlen(text) : 0 };
}

bool weir_str_eq(struct weir_str a, const char *b)
{
    size_t len = strlen(b);

    return a.len == len && (len == 0 || memcmp(a.ptr, b, len) == 0);
}

int weir_str_cmp(struct weir_str a, struct weir_str b)
{
    size_t len = a.len < b.len ? a.len : b.len;
    int order = len ? memcmp(a.ptr, b.ptr, len) : 0;

    return order ? order : (a.len > b.len) - (a.len < b.len);
}

static unsigned char lower(char c)
{
    return (unsigned char)(c >= 'A' && c <= 'Z' ? c + 32 : c);
}

bool weir_str_eq_nocase(struct weir_str a, const char *b)
{
    if (a.len != strlen(b))
        return false;
    for (size_t i = 0; i < a.len; i++)
        if (lower(a.ptr[i]) != lower(b[i]))
            return false;
    return true;
}

void weir_buf_init(struct weir_buf *buf, size_t limit_bytes)
{
    memset(buf, 0, sizeof *buf);
    buf->limit = limit_bytes;
}

void weir_buf_release(struct weir_buf *buf)
{
    if (!buf)
        return;
    weir_free(buf->data);
    weir_buf_init(buf, buf->limit);
}

void weir_buf_clear(struct weir_buf *buf)
{
    buf->head = buf->tail = 0;
    buf->failed = false;
}

size_t weir_buf_len(const struct weir_buf *buf)
{
    return buf->tail - buf->head;
}

const char *weir_buf_ptr(const struct weir_buf *buf)
{
    return buf->data ? buf->data + buf->head : NULL;
}

void weir_buf_consume(struct weir_buf *buf, size_t n)
{
    WEIR_BUG_ON(n > weir_buf_len(buf));
    buf->head += n;
    if (buf->head == buf->tail)
        buf->head = buf->tail = 0;
}

/* Memory for n more bytes behind the content, whatever the limit. */
static bool make_room(struct weir_buf *buf, size_t n)
{
    size_t len = weir_buf_len(buf), need, cap;

    if (n <= buf->cap - buf->tail)
        return true;
    if (__builtin_add_overflow(len, n, &need) || need > SIZE_MAX / 2)
        return false;
    if (need <= buf->cap && buf->head >= buf->cap / 2) {
        memmove(buf->data, buf->data + buf->head, len);
        buf->head = 0;
        buf->tail = len;
        return true;
    }
    for (cap = buf->cap ? buf->cap : CAP_MIN; cap < need; cap *= 2)
        ;
    if (buf->head == 0) {
        char *data = weir_realloc(buf->data, cap);
        if (!data)
            return false;
        buf->data = data;
        buf->cap = cap;
        return true;
    }
    /* A fresh block: realloc would copy the consumed part too. Grow it when the content is most of it. */
    if (need > cap / 2)
        cap *= 2;
    char *data = weir_alloc(cap);
    if (!data)
        return false;
    memcpy(data, buf->data + buf->head, len);
    weir_free(buf->data);
    buf->data = data;
    buf->cap = cap;
    buf->head = 0;
    buf->tail = len;
    return true;
}

char *weir_buf_reserve(struct weir_buf *buf, size_t n)
{
    if (buf->failed)
        return NULL; /* [B2] */
    /* [B1]; the length can be past a limit that was lowered since. */
    bool fits = buf->limit == 0 || (weir_buf_len(buf) <= buf->limit && n <= buf->limit - weir_buf_len(buf));
    if (!fits || !make_room(buf, n ? n : 1)) {
        buf->failed = true;
        return NULL;
    }
    return buf->data + buf->tail;
}

void weir_buf_commit(struct weir_buf *buf, size_t n)
{
    WEIR_BUG_ON(n > buf->cap - buf->tail);
    buf->tail += n;
}

void weir_buf_add(struct weir_buf *buf, const void *data, size_t n)
{
    char *at = weir_buf_reserve(buf, n);

    if (!at || n == 0)
        return;
    memcpy(at, data, n);
    buf->tail += n;
}

void weir_buf_adds(struct weir_buf *buf, const char *text)
{
    weir_buf_add(buf, text, strlen(text));
}

void weir_buf_addc(struct weir_buf *buf, char c)
{
    char *at = weir_buf_reserve(buf, 1);

    if (!at)
        return;
    *at = c;
    buf->tail++;
}

void weir_buf_addu(struct weir_buf *buf, uint64_t n)
{
    char text[20], *at = text + sizeof text;

    do {
        *--at = (char)('0' + n % 10);
        n /= 10;
    } while (n);
    weir_buf_add(buf, at, (size_t)(text + sizeof text - at));
}

void weir_buf_addf(struct weir_buf *buf, const char *fmt, ...)
{
    va_list args, again;
    char text[256];

    va_start(args, fmt);
    va_copy(again, args);
    int n = vsnprintf(text, sizeof text, fmt, args);
    if (n < 0)
        buf->failed = true;
    else if ((size_t)n < sizeof text)
        weir_buf_add(buf, text, (size_t)n);
    else {
        char *at = weir_buf_reserve(buf, (size_t)n);
        /* vsnprintf ends with a NUL, which is not content and so not under the limit. */
        if (at && !make_room(buf, (size_t)n + 1))
            buf->failed = true;
        else if (at) {
            vsnprintf(buf->data + buf->tail, (size_t)n + 1, fmt, again);
            buf->tail += (size_t)n;
        }
    }
    va_end(again);
    va_end(args);
}

const char *weir_buf_cstr(struct weir_buf *buf)
{
    if (!buf->failed && !make_room(buf, 1))
        buf->failed = true;
    if (buf->failed)
        return NULL;
    buf->data[buf->tail] = '\0';
    return buf->data + buf->head;
}
