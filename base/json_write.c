/* json_write.c - JSON by appends: commas, escapes, the shortest numbers.
 *
 * Nothing but the buffer can fail, and the buffer remembers. Commas come from one bit a level.
 *   [W1] The output is valid JSON and valid UTF-8 whatever the strings hold.
 * Numbers: number.c. */
#include <math.h>

#include "base/json.h"
#include "base/number_int.h"
#include "base/scan_int.h"

void weir_jw_init(struct weir_jw *w, struct weir_buf *out)
{
    *w = (struct weir_jw){ .out = out };
}

static uint64_t level_bit(const struct weir_jw *w)
{
    return 1ull << (w->depth - 1);
}

/* Before a value or a key: the comma, unless it is the first here or the value of a key. */
static void separate(struct weir_jw *w)
{
    if (w->after_key)
        w->after_key = false;
    else if (w->depth == 0)
        return;
    else if (w->first & level_bit(w))
        w->first &= ~level_bit(w);
    else
        weir_buf_addc(w->out, ',');
}

static void open_level(struct weir_jw *w, char bracket)
{
    separate(w);
    weir_buf_addc(w->out, bracket);
    WEIR_BUG_ON(w->depth >= WEIR_JSON_DEPTH_MAX);
    w->depth++;
    w->first |= level_bit(w);
}

static void close_level(struct weir_jw *w, char bracket)
{
    WEIR_BUG_ON(w->depth == 0 || w->after_key);
    w->first &= ~level_bit(w);
    w->depth--;
    weir_buf_addc(w->out, bracket);
}

void weir_jw_object(struct weir_jw *w)
{
    open_level(w, '{');
}

void weir_jw_object_end(struct weir_jw *w)
{
    close_level(w, '}');
}

void weir_jw_array(struct weir_jw *w)
{
    open_level(w, '[');
}

void weir_jw_array_end(struct weir_jw *w)
{
    close_level(w, ']');
}

void weir_jw_key(struct weir_jw *w, const char *key)
{
    separate(w);
    weir_buf_addc(w->out, '"');
    weir_buf_adds(w->out, key);
    weir_buf_add(w->out, "\":", 2);
    w->after_key = true;
}

/* The byte at p, which does not stand for itself; returns how many bytes of the text it covers. */
static size_t add_odd(struct weir_buf *out, const char *p, const char *end)
{
    static const char hex[] = "0123456789abcdef";
    unsigned char c = (unsigned char)*p;
    char escape[6] = { '\\', 'u', '0', '0', hex[c >> 4 & 1], hex[c & 15] };

    if (c >= 0x80) {
        size_t n = weir_utf8_step(p, (size_t)(end - p));
        if (n == 0)
            weir_buf_add(out, "\xef\xbf\xbd", 3); /* U+FFFD [W1] */
        else
            weir_buf_add(out, p, n);
        return n ? n : 1;
    }
    switch (c) {
    case '"':
    case '\\':
        escape[1] = (char)c;
        break;
    case '\n':
        escape[1] = 'n';
        break;
    case '\r':
        escape[1] = 'r';
        break;
    case '\t':
        escape[1] = 't';
        break;
    case '\b':
        escape[1] = 'b';
        break;
    case '\f':
        escape[1] = 'f';
        break;
    default:
        break;
    }
    weir_buf_add(out, escape, escape[1] == 'u' ? 6 : 2);
    return 1;
}

/* Bytes that can be copied: plain ASCII and valid longer characters. */
static size_t copyable(const char *text, const char *end)
{
    const char *p = text;

    for (;;) {
        p += scan_plain(p, end);
        size_t n = scan_wide(p, end);
        if (n == 0)
            return (size_t)(p - text);
        p += n;
    }
}

void weir_jw_str(struct weir_jw *w, struct weir_str s)
{
    const char *p = s.ptr, *end = s.len ? p + s.len : p; /* NULL when empty, perhaps */

    separate(w);
    weir_buf_addc(w->out, '"');
    while (p < end) {
        size_t n = copyable(p, end);
        weir_buf_add(w->out, p, n);
        p += n;
        if (p < end)
            p += add_odd(w->out, p, end);
    }
    weir_buf_addc(w->out, '"');
}

void weir_jw_key_str(struct weir_jw *w, struct weir_str key)
{
    weir_jw_str(w, key);
    weir_buf_addc(w->out, ':');
    w->after_key = true;
}

void weir_jw_cstr(struct weir_jw *w, const char *s)
{
    weir_jw_str(w, weir_str(s));
}

void weir_jw_u64(struct weir_jw *w, uint64_t n)
{
    separate(w);
    weir_buf_addu(w->out, n);
}

static void add_i64(struct weir_buf *out, int64_t n)
{
    if (n < 0)
        weir_buf_addc(out, '-');
    weir_buf_addu(out, n < 0 ? 0 - (uint64_t)n : (uint64_t)n);
}

void weir_jw_i64(struct weir_jw *w, int64_t n)
{
    separate(w);
    add_i64(w->out, n);
}

void weir_jw_f64(struct weir_jw *w, double x)
{
    char text[NUMBER_TEXT_MAX];

    if (!isfinite(x)) {
        weir_jw_null(w);
        return;
    }
    separate(w);
    weir_buf_add(w->out, text, number_write(x, text));
}

void weir_jw_bool(struct weir_jw *w, bool b)
{
    weir_jw_raw(w, b ? WEIR_STR("true") : WEIR_STR("false"));
}

void weir_jw_null(struct weir_jw *w)
{
    weir_jw_raw(w, WEIR_STR("null"));
}

void weir_jw_raw(struct weir_jw *w, struct weir_str json)
{
    separate(w);
    weir_buf_add(w->out, json.ptr, json.len);
}
