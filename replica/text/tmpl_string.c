/* tmpl_string.c - strings as Python has them: characters, not bytes; case; white space; replacing; joining.
 *
 * Bytes that are not UTF-8 can't come in through a checked request; one that does counts as a character. Case
 * is one character for one (utf8proc's tables), but for the sharp s. */
#include "replica/text/tmpl_int.h"

#include <string.h>

#include <utf8proc.h>

#include "base/utf8.h"

size_t tmpl_char_at(struct weir_str s, size_t i, uint32_t *ret)
{
    size_t n = weir_utf8_step(s.ptr + i, s.len - i);
    utf8proc_int32_t c = (unsigned char)s.ptr[i];

    if (n > 1)
        utf8proc_iterate((const utf8proc_uint8_t *)s.ptr + i, (utf8proc_ssize_t)n, &c);
    *ret = (uint32_t)c;
    return n ? n : 1;
}

size_t tmpl_chars(struct weir_str s)
{
    size_t n = 0;

    for (size_t i = 0; i < s.len; n++) {
        size_t step = (unsigned char)s.ptr[i] < 0x80 ? 1 : weir_utf8_step(s.ptr + i, s.len - i);
        i += step ? step : 1;
    }
    return n;
}

size_t tmpl_char_offset(struct weir_str s, size_t i_char)
{
    size_t i = 0;

    for (; i_char > 0 && i < s.len; i_char--) {
        size_t step = (unsigned char)s.ptr[i] < 0x80 ? 1 : weir_utf8_step(s.ptr + i, s.len - i);
        i += step ? step : 1;
    }
    return i;
}

bool tmpl_is_space(uint32_t c)
{
    if (c < 0x80)
        return c == ' ' || (c >= '\t' && c <= '\r') || (c >= 0x1c && c <= 0x1f);
    return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
           c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

/* ---- case ---- */

static bool is_letter(uint32_t c)
{
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);

    return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LT;
}

static void put(struct weir_buf *out, uint32_t c, bool upper, bool title)
{
    char *room = weir_buf_reserve(out, 4);
    utf8proc_int32_t code = (utf8proc_int32_t)c;

    if (!room)
        return;
    if (upper && c == 0xdf) {
        weir_buf_adds(out, title ? "Ss" : "SS");
        return;
    }
    code = !upper ? utf8proc_tolower(code) : title ? utf8proc_totitle(code) : utf8proc_toupper(code);
    weir_buf_commit(out, weir_utf8_put((uint32_t)code, room));
}

/* Does a word begin behind `c`, for the title filter? */
static bool title_break(uint32_t c)
{
    return tmpl_is_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
}

bool tmpl_case(struct tmpl_run *run, struct weir_str s, enum tmpl_case how, struct tmpl_value *ret)
{
    struct weir_buf out;
    bool starts = true; /* a word */

    if (!tmpl_tick(run, s.len))
        return false;
    weir_buf_init(&out, TMPL_RUN_BYTES_MAX);
    for (size_t i = 0; i < s.len && !out.failed;) {
        uint32_t c;
        size_t n = tmpl_char_at(s, i, &c);
        bool is_upper = utf8proc_category((utf8proc_int32_t)c) == UTF8PROC_CATEGORY_LU;
        bool upper = how == TMPL_UPPER || (how == TMPL_SWAP ? !is_upper : how != TMPL_LOWER && starts);
        if (weir_utf8_step(s.ptr + i, s.len - i) == 0)
            weir_buf_add(&out, s.ptr + i, n);
        else
            put(&out, c, upper, how == TMPL_TITLE || how == TMPL_CAPITALIZE);
        starts = how == TMPL_TITLE_FILTER ? title_break(c) : how == TMPL_TITLE && !is_letter(c);
        i += n;
    }
    tmpl_mark(run, &out, 0, s);
    return tmpl_take(run, &out, ret) && run->err == WEIR_OK;
}

/* ---- white space ---- */

static bool strips(uint32_t c, const struct weir_str *chars)
{
    if (!chars)
        return tmpl_is_space(c);
    for (size_t i = 0; i < chars->len;) {
        uint32_t other;
        i += tmpl_char_at(*chars, i, &other);
        if (other == c)
            return true;
    }
    return false;
}

struct weir_str tmpl_strip(struct weir_str s, const struct weir_str *chars, bool left, bool right)
{
    uint32_t c;

    while (left && s.len > 0) {
        size_t n = tmpl_char_at(s, 0, &c);
        if (!strips(c, chars))
            break;
        s.ptr += n;
        s.len -= n;
    }
    while (right && s.len > 0) {
        size_t start = s.len - 1;
        while (start > 0 && s.len - start < 4 && (s.ptr[start] & 0xc0) == 0x80)
            start--;
        if (tmpl_char_at(s, start, &c) != s.len - start)
            break; /* not a character */
        if (!strips(c, chars))
            break;
        s.len = start;
    }
    return s;
}

static bool is_line_end(uint32_t c)
{
    return (c >= '\n' && c <= '\r') || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

bool tmpl_splitlines(struct tmpl_run *run, struct weir_str s, bool keep_ends, struct tmpl_value *ret)
{
    size_t start = 0;

    if (!tmpl_tick(run, s.len) || !tmpl_new_list(run, TMPL_LIST, ret))
        return false;
    for (size_t i = 0; i < s.len;) {
        uint32_t c;
        size_t end = i;
        i += tmpl_char_at(s, i, &c);
        if (!is_line_end(c))
            continue;
        if (c == '\r' && i < s.len && s.ptr[i] == '\n')
            i++;
        if (!tmpl_push(run, ret->list,
                       tmpl_str((struct weir_str){ s.ptr + start, (keep_ends ? i : end) - start })))
            return false;
        start = i;
    }
    return start == s.len ||
           tmpl_push(run, ret->list, tmpl_str((struct weir_str){ s.ptr + start, s.len - start }));
}

/* ---- padding, replacing and joining ---- */

bool tmpl_pad(struct tmpl_run *run, struct weir_str s, int64_t width, struct weir_str fill, bool left,
              bool right, struct tmpl_value *ret)
{
    int64_t n_chars = (int64_t)tmpl_chars(s), room = width > n_chars ? width - n_chars : 0;
    int64_t n_left = !left ? 0 : !right ? room : room / 2 + (room & width & 1);
    struct weir_buf out;

    weir_buf_init(&out, TMPL_RUN_BYTES_MAX);
    for (int64_t i = 0; i < n_left && tmpl_tick(run, 0); i++)
        tmpl_put(run, &out, fill);
    tmpl_put(run, &out, s);
    for (int64_t i = n_left; i < room && tmpl_tick(run, 0); i++)
        tmpl_put(run, &out, fill);
    return tmpl_take(run, &out, ret) && run->err == WEIR_OK;
}

bool tmpl_replace(struct tmpl_run *run, struct weir_str s, struct weir_str old, struct weir_str with,
                  int64_t n_max, struct tmpl_value *ret)
{
    struct weir_buf out;
    size_t i = 0;

    if (!tmpl_tick(run, s.len))
        return false;
    weir_buf_init(&out, TMPL_RUN_BYTES_MAX);
    for (; n_max != 0 && i <= s.len && !out.failed; n_max--) {
        const char *hit = old.len ? memmem(s.ptr + i, s.len - i, old.ptr, old.len) : s.ptr + i;
        if (!hit)
            break;
        uint32_t c;
        size_t at = s.len ? (size_t)(hit - s.ptr) : 0;
        /* An empty string is found in front of every character and at the end. */
        size_t step = old.len ? old.len : at < s.len ? tmpl_char_at(s, at, &c) : 0;
        tmpl_put(run, &out, (struct weir_str){ s.ptr + i, at - i });
        tmpl_put(run, &out, with);
        if (old.len == 0)
            tmpl_put(run, &out, (struct weir_str){ s.ptr + at, step });
        i = at + step;
        if (old.len == 0 && step == 0)
            break;
    }
    if (i < s.len)
        tmpl_put(run, &out, (struct weir_str){ s.ptr + i, s.len - i });
    return tmpl_take(run, &out, ret) && run->err == WEIR_OK;
}

bool tmpl_join(struct tmpl_run *run, struct weir_str with, struct tmpl_value of, struct tmpl_value *ret)
{
    const struct tmpl_list *items;
    struct weir_buf out;

    if (!tmpl_items(run, of, &items))
        return false;
    weir_buf_init(&out, TMPL_RUN_BYTES_MAX);
    for (size_t i = 0; i < items->n; i++) {
        if (i > 0)
            tmpl_put(run, &out, with);
        if (!tmpl_tick(run, with.len) || !tmpl_print(run, items->at[i], &out)) {
            weir_buf_release(&out);
            return false;
        }
    }
    return tmpl_take(run, &out, ret);
}
