/* scan_int.h - how far the plain bytes go: the inner loops of the JSON reader, its writer and the UTF-8
 * check. Private to base. */
#ifndef WEIR_BASE_SCAN_INT_H
#define WEIR_BASE_SCAN_INT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define SCAN_ONES 0x0101010101010101ull
#define SCAN_HIGH 0x8080808080808080ull

/* High bit set in a byte of the result when that byte of x is zero (bytes above a hit may be wrong too). */
static inline uint64_t scan_zeros(uint64_t x)
{
    return (x - SCAN_ONES) & ~x & SCAN_HIGH;
}

/* Bytes up to the first one that is not ASCII, or `end`. */
static inline size_t scan_ascii(const char *text, const char *end)
{
    const char *p = text;

#ifdef __SSE2__
    for (; end - p >= 16; p += 16) {
        int mask = _mm_movemask_epi8(_mm_loadu_si128((const __m128i *)(const void *)p));
        if (mask)
            return (size_t)(p - text) + (size_t)__builtin_ctz((unsigned)mask);
    }
#else
    for (uint64_t x; end - p >= 8; p += 8) {
        memcpy(&x, p, 8);
        if (x & SCAN_HIGH)
            break;
    }
#endif
    while (p < end && (unsigned char)*p < 0x80)
        p++;
    return (size_t)(p - text);
}

/* Bytes of the valid UTF-8 character at `text`; 0 when it is invalid or cut off. Inline: text in most of the
 * world's scripts comes here for each character. */
static inline bool scan_is_tail(unsigned char c)
{
    return (c & 0xc0) == 0x80;
}

static inline size_t scan_utf8_step(const char *text, size_t len)
{
    const unsigned char *s = (const unsigned char *)text;
    unsigned char lo = 0x80, hi = 0xbf; /* bounds of the second byte */

    if (s[0] < 0x80)
        return 1;
    if (s[0] < 0xc2)
        return 0; /* a tail, or an overlong form */
    if (s[0] < 0xe0)
        return len >= 2 && scan_is_tail(s[1]) ? 2 : 0;
    if (s[0] < 0xf0) {
        if (s[0] == 0xe0)
            lo = 0xa0; /* overlong below */
        else if (s[0] == 0xed)
            hi = 0x9f; /* surrogates above */
        return len >= 3 && s[1] >= lo && s[1] <= hi && scan_is_tail(s[2]) ? 3 : 0;
    }
    if (s[0] > 0xf4)
        return 0;
    if (s[0] == 0xf0)
        lo = 0x90; /* overlong below */
    else if (s[0] == 0xf4)
        hi = 0x8f; /* past U+10FFFF above */
    return len >= 4 && s[1] >= lo && s[1] <= hi && scan_is_tail(s[2]) && scan_is_tail(s[3]) ? 4 : 0;
}

/* Bytes of the valid characters at `text` that are not ASCII: up to one that is, an invalid one, or `end`. */
static inline size_t scan_wide(const char *text, const char *end)
{
    const char *p = text;

    while (p < end && (unsigned char)*p >= 0x80) {
        size_t n = scan_utf8_step(p, (size_t)(end - p));
        if (n == 0)
            break;
        p += n;
    }
    return (size_t)(p - text);
}

/* Bytes of a JSON string that stand for themselves and are ASCII: up to a quote, a backslash, a control
 * character, a byte of 0x80 or more, or `end`. */
static inline size_t scan_plain(const char *text, const char *end)
{
    const char *p = text;

#ifdef __SSE2__
    const __m128i quote = _mm_set1_epi8('"'), slash = _mm_set1_epi8('\\'), space = _mm_set1_epi8(0x20);
    for (; end - p >= 16; p += 16) {
        __m128i x = _mm_loadu_si128((const __m128i *)(const void *)p);
        /* A signed compare: bytes of 0x80 and more are below the space as well. */
        __m128i odd = _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(x, quote), _mm_cmpeq_epi8(x, slash)),
                                   _mm_cmplt_epi8(x, space));
        int mask = _mm_movemask_epi8(odd);
        if (mask)
            return (size_t)(p - text) + (size_t)__builtin_ctz((unsigned)mask);
    }
#else
    for (uint64_t x; end - p >= 8; p += 8) {
        memcpy(&x, p, 8);
        if ((x | scan_zeros(x ^ SCAN_ONES * '"') | scan_zeros(x ^ SCAN_ONES * '\\') |
             (x - SCAN_ONES * 0x20)) &
            SCAN_HIGH)
            break;
    }
#endif
    while (p < end && (unsigned char)*p >= 0x20 && (unsigned char)*p < 0x80 && *p != '"' && *p != '\\')
        p++;
    return (size_t)(p - text);
}

#endif
