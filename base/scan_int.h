/* scan_int.h - how far the plain bytes go: the inner loops of the JSON reader, its writer and the UTF-8
 * check. Private to base. */
#ifndef WEIR_BASE_SCAN_INT_H
#define WEIR_BASE_SCAN_INT_H

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
