/* utf8.h - where one UTF-8 character ends (RFC 3629: no surrogates, no overlong forms, at most U+10FFFF). */
#ifndef WEIR_BASE_UTF8_H
#define WEIR_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes of the valid character at `text`, 1 to 4; 0 when it is invalid or cut off. len is 1 or more. */
size_t weir_utf8_step(const char *text, size_t len);
/* The longest prefix of at most `max` bytes that splits no character; text that is not UTF-8 is cut at `max`.
 */
size_t weir_utf8_cut(const char *text, size_t len, size_t max);
/* Writes the character (1 to 4 bytes) and returns its length; `code` is a Unicode scalar value. */
size_t weir_utf8_put(uint32_t code, char *ret);
/* Is it valid UTF-8? */
bool weir_utf8_valid(const char *text, size_t len);

#ifdef __cplusplus
}
#endif
#endif
