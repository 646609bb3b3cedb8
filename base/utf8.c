/* utf8.c - checking and writing UTF-8.
 *
 * ASCII goes 16 bytes at a time (8 without SSE2); everything else one character at a time, by the table of
 * well-formed sequences (Unicode 15, table 3-7). Pure functions, any thread. */
#include "base/utf8.h"

#include <string.h>

#include "base/scan_int.h"

size_t weir_utf8_step(const char *text, size_t len)
{
    return scan_utf8_step(text, len);
}

bool weir_utf8_valid(const char *text, size_t len)
{
    const char *end = len ? text + len : text;

    while (text < end) {
        text += scan_ascii(text, end);
        text += scan_wide(text, end);
        if (text < end && (unsigned char)*text >= 0x80)
            return false;
    }
    return true;
}

size_t weir_utf8_cut(const char *text, size_t len, size_t max)
{
    size_t at;

    if (len <= max)
        return len;
    /* Back to the first byte of the character that the cut would split; a character has at most three tails.
     */
    for (at = max; at > 0 && max - at < 4; at--)
        if (!scan_is_tail((unsigned char)text[at]))
            return at;
    return max;
}

size_t weir_utf8_put(uint32_t code, char *ret)
{
    if (code < 0x80) {
        ret[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        ret[0] = (char)(0xc0 | code >> 6);
        ret[1] = (char)(0x80 | (code & 0x3f));
        return 2;
    }
    if (code < 0x10000) {
        ret[0] = (char)(0xe0 | code >> 12);
        ret[1] = (char)(0x80 | (code >> 6 & 0x3f));
        ret[2] = (char)(0x80 | (code & 0x3f));
        return 3;
    }
    ret[0] = (char)(0xf0 | code >> 18);
    ret[1] = (char)(0x80 | (code >> 12 & 0x3f));
    ret[2] = (char)(0x80 | (code >> 6 & 0x3f));
    ret[3] = (char)(0x80 | (code & 0x3f));
    return 4;
}
