/* utf8.c - checking and writing UTF-8.
 *
 * ASCII goes 16 bytes at a time (8 without SSE2); everything else one character at a time, by the table of
 * well-formed sequences (Unicode 15, table 3-7). Pure functions, any thread. */
#include "base/utf8.h"

#include <string.h>

#include "base/scan_int.h"

static bool is_tail(unsigned char c)
{
    return (c & 0xc0) == 0x80;
}

size_t weir_utf8_step(const char *text, size_t len)
{
    const unsigned char *s = (const unsigned char *)text;
    unsigned char lo = 0x80, hi = 0xbf; /* bounds of the second byte */

    if (s[0] < 0x80)
        return 1;
    if (s[0] < 0xc2)
        return 0; /* a tail, or an overlong form */
    if (s[0] < 0xe0)
        return len >= 2 && is_tail(s[1]) ? 2 : 0;
    if (s[0] < 0xf0) {
        if (s[0] == 0xe0)
            lo = 0xa0; /* overlong below */
        else if (s[0] == 0xed)
            hi = 0x9f; /* surrogates above */
        return len >= 3 && s[1] >= lo && s[1] <= hi && is_tail(s[2]) ? 3 : 0;
    }
    if (s[0] > 0xf4)
        return 0;
    if (s[0] == 0xf0)
        lo = 0x90; /* overlong below */
    else if (s[0] == 0xf4)
        hi = 0x8f; /* past U+10FFFF above */
    return len >= 4 && s[1] >= lo && s[1] <= hi && is_tail(s[2]) && is_tail(s[3]) ? 4 : 0;
}

bool weir_utf8_valid(const char *text, size_t len)
{
    const char *end = len ? text + len : text;

    while (text < end) {
        text += scan_ascii(text, end);
        while (text < end && (unsigned char)*text >= 0x80) {
            size_t n = weir_utf8_step(text, (size_t)(end - text));
            if (n == 0)
                return false;
            text += n;
        }
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
        if (!is_tail((unsigned char)text[at]))
            return at;
    return max - at < 4 ? at : max;
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
