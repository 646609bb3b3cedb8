/* tok_chars.c - what the tokenizer needs to know about characters.
 *
 * Classes follow the regular expressions and the Unicode tables that the published tokenizer files were made
 * with. */
#include "replica/text/tok_int.h"

#include <utf8proc.h>

size_t tok_char(const char *text, uint32_t *ret)
{
    const unsigned char *s = (const unsigned char *)text;

    if (s[0] < 0x80) {
        *ret = s[0];
        return 1;
    }
    if (s[0] < 0xe0) {
        *ret = (uint32_t)(s[0] & 0x1f) << 6 | (s[1] & 0x3f);
        return 2;
    }
    if (s[0] < 0xf0) {
        *ret = (uint32_t)(s[0] & 0x0f) << 12 | (uint32_t)(s[1] & 0x3f) << 6 | (s[2] & 0x3f);
        return 3;
    }
    *ret = (uint32_t)(s[0] & 0x07) << 18 | (uint32_t)(s[1] & 0x3f) << 12 | (uint32_t)(s[2] & 0x3f) << 6 |
           (s[3] & 0x3f);
    return 4;
}

bool tok_is_space(uint32_t c)
{
    if (c < 0x80)
        return c == ' ' || (c >= '\t' && c <= '\r');
    return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
           c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

bool tok_is_word(uint32_t c)
{
    if (c < 0x80)
        return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default:
        /* Join controls, and the letters that Unicode files under symbols (circled, squared). */
        return c == 0x200c || c == 0x200d || (c >= 0x24b6 && c <= 0x24e9) || (c >= 0x1f130 && c <= 0x1f149) ||
               (c >= 0x1f150 && c <= 0x1f169) || (c >= 0x1f170 && c <= 0x1f189);
    }
}

bool tok_is_numeric(uint32_t c)
{
    if (c < 0x80)
        return c >= '0' && c <= '9';
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);
    return category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL ||
           category == UTF8PROC_CATEGORY_NO;
}

bool tok_is_punct(uint32_t c)
{
    if (c < 0x80)
        return c > ' ' && c < 0x7f && !(tok_is_word(c) && c != '_');
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);
    return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
}

/* Printable Latin-1 stands for itself; the other 68 bytes, in order, for U+0100 and on. */
static bool is_own_byte(uint32_t c)
{
    return (c >= '!' && c <= '~') || (c >= 0xa1 && c <= 0xac) || (c >= 0xae && c <= 0xff);
}

int tok_byte_of_char(uint32_t c)
{
    if (c < 0x100)
        return is_own_byte(c) ? (int)c : -1;
    if (c < 0x121)
        return (int)(c - 0x100); /* 0x00 to 0x20 */
    if (c < 0x143)
        return (int)(c - 0x121 + 0x7f); /* 0x7f to 0xa0 */
    return c == 0x143 ? 0xad : -1;
}

bool tok_unmap_bytes(struct weir_str text, char *ret, size_t *ret_len)
{
    size_t n = 0;

    for (size_t i = 0; i < text.len;) {
        uint32_t c;
        i += tok_char(text.ptr + i, &c);
        int byte = tok_byte_of_char(c);
        if (byte < 0)
            return false;
        ret[n++] = (char)byte;
    }
    *ret_len = n;
    return true;
}
