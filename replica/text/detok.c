/* detok.c - bytes of tokens become whole characters.
 *
 * A token may end within a character: its start is held until the rest comes. Bytes that can't become a
 * character turn into U+FFFD, one for each longest prefix of a valid sequence (Unicode 15, section 3.9,
 * "maximal subparts"), so the text does not depend on where the tokens' borders are. [D1] What is held is a
 * proper, valid prefix of one character: 1 to 3 bytes. */
#include "replica/text/tokenizer.h"

#include <string.h>

#include "base/utf8.h"

static const char replacement[] = "\xef\xbf\xbd";

/* Length of the valid prefix of a character at `text`: the whole character, or, when it is cut off or broken,
 * as much of it as is right; at least 1. *ret_cut: the text ends before the character does. */
static size_t prefix_len(const unsigned char *text, size_t len, bool *ret_cut)
{
    size_t n = weir_utf8_step((const char *)text, len);
    unsigned char c = text[0];

    *ret_cut = false;
    if (n > 0)
        return n;
    size_t want = c < 0xc2 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 1;
    unsigned char lo = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
    unsigned char hi = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
    for (n = 1; n < want && n < len && text[n] >= lo && text[n] <= hi; n++) {
        lo = 0x80;
        hi = 0xbf;
    }
    *ret_cut = n == len && n < want;
    return n;
}

void weir_detok_init(struct weir_detok *d)
{
    memset(d, 0, sizeof *d);
}

/* The held bytes and the first of `bytes`, until nothing is held or nothing is left. Returns how many it
 * took. */
static size_t finish_held(struct weir_detok *d, struct weir_str bytes, struct weir_buf *out)
{
    size_t used = 0;

    while (d->n_held > 0 && used < bytes.len) {
        bool cut;
        size_t before = d->n_held;
        d->held[d->n_held++] = bytes.ptr[used];
        size_t n = prefix_len((const unsigned char *)d->held, d->n_held, &cut);
        if (cut) {
            used++;
        } else if (n > before) { /* the byte completed it */
            weir_buf_add(out, d->held, n);
            d->n_held = 0;
            used++;
        } else { /* the byte does not fit: it is looked at again, on its own */
            weir_buf_add(out, replacement, 3);
            d->n_held = 0;
        }
    }
    return used;
}

void weir_detok_push(struct weir_detok *d, struct weir_str bytes, struct weir_buf *out)
{
    size_t i = finish_held(d, bytes, out), start = i;

    while (i < bytes.len) {
        bool cut;
        size_t n = weir_utf8_step(bytes.ptr + i, bytes.len - i);
        if (n > 0) {
            i += n;
            continue;
        }
        weir_buf_add(out, bytes.ptr + start, i - start);
        n = prefix_len((const unsigned char *)bytes.ptr + i, bytes.len - i, &cut);
        if (cut) { /* [D1] */
            memcpy(d->held, bytes.ptr + i, n);
            d->n_held = (uint8_t)n;
        } else {
            weir_buf_add(out, replacement, 3);
        }
        i += n;
        start = i;
    }
    weir_buf_add(out, bytes.ptr + start, i - start);
}

void weir_detok_finish(struct weir_detok *d, struct weir_buf *out)
{
    if (d->n_held > 0)
        weir_buf_add(out, replacement, 3);
    d->n_held = 0;
}
