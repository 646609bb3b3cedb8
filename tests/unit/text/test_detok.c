/* Whatever the borders of the pieces, the text is the same: that of a decoder which sees all bytes at once.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/utf8.h"
#include "replica/text/tokenizer.h"

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525 + 1013904223;
    return *state >> 8;
}

/* The plain way, by the table of well-formed sequences: one U+FFFD for each longest good prefix. */
static void decode_whole(const unsigned char *s, size_t len, struct weir_buf *out)
{
    for (size_t i = 0; i < len;) {
        size_t n = weir_utf8_step((const char *)s + i, len - i);
        if (n > 0) {
            weir_buf_add(out, s + i, n);
            i += n;
            continue;
        }
        /* A prefix is good when some ending makes it a character. */
        size_t good = 1;
        for (size_t take = 2; take < 4 && i + take <= len; take++) {
            char text[4] = { 0 };
            bool fits = false;
            memcpy(text, s + i, take);
            for (int a = 0x80; a < 0xc0 && !fits; a++) {
                text[take] = (char)a;
                fits = weir_utf8_step(text, take + 1) == take + 1;
                for (int b = 0x80; take == 2 && b < 0xc0 && !fits; b++) {
                    text[3] = (char)b;
                    fits = weir_utf8_step(text, 4) == 4;
                }
            }
            if (!fits)
                break;
            good = take;
        }
        weir_buf_adds(out, "\xef\xbf\xbd");
        i += good;
    }
}

static size_t random_bytes(uint32_t *seed, unsigned char *ret, size_t max)
{
    static const unsigned char leads[] = { 0xc2, 0xdf, 0xe0, 0xe1, 0xed, 0xef,
                                           0xf0, 0xf1, 0xf4, 0xc0, 0xf5, 0xff };
    size_t n = 0, len = next_random(seed) % max;

    while (n < len) {
        uint32_t what = next_random(seed) % 4;
        if (what == 0)
            ret[n++] = (unsigned char)(next_random(seed) % 128);
        else if (what == 1)
            ret[n++] = leads[next_random(seed) % sizeof leads];
        else if (what == 2)
            ret[n++] = (unsigned char)(0x80 + next_random(seed) % 64);
        else if (n + 4 < max)
            n += weir_utf8_put(0x100 + next_random(seed) % 0xd000, (char *)ret + n);
        else
            break;
    }
    return n;
}

static void test_any_borders_same_text(void **state)
{
    uint32_t seed = 1;

    (void)state;
    for (int round = 0; round < 5000; round++) {
        unsigned char bytes[48];
        size_t len = random_bytes(&seed, bytes, 40);
        struct weir_buf want, got;
        struct weir_detok d;
        weir_buf_init(&want, 0);
        weir_buf_init(&got, 0);
        decode_whole(bytes, len, &want);
        weir_detok_init(&d);
        for (size_t i = 0; i < len;) {
            size_t n = 1 + next_random(&seed) % 5;
            if (n > len - i)
                n = len - i;
            weir_detok_push(&d, (struct weir_str){ (char *)bytes + i, n }, &got);
            /* Only whole characters come out, and what is held could still become one. [D1] */
            assert_true(weir_utf8_valid(weir_buf_ptr(&got), weir_buf_len(&got)));
            assert_true(d.n_held < 4);
            i += n;
        }
        weir_detok_finish(&d, &got);
        assert_int_equal(d.n_held, 0);
        assert_int_equal(weir_buf_len(&got), weir_buf_len(&want));
        if (weir_buf_len(&want))
            assert_memory_equal(weir_buf_ptr(&got), weir_buf_ptr(&want), weir_buf_len(&want));
        weir_buf_release(&want);
        weir_buf_release(&got);
    }
}

static void check(const char *const *pieces, const char *want)
{
    struct weir_detok d;
    struct weir_buf out;

    weir_detok_init(&d);
    weir_buf_init(&out, 0);
    for (; *pieces; pieces++)
        weir_detok_push(&d, weir_str(*pieces), &out);
    weir_detok_finish(&d, &out);
    assert_string_equal(weir_buf_cstr(&out), want);
    weir_buf_release(&out);
}

static void test_examples(void **state)
{
    (void)state;
    check((const char *const[]){ "a\xf0", "\x9f", "\x8c",
                                 "\x8a"
                                 "b",
                                 NULL },
          "a\xf0\x9f\x8c\x8a"
          "b");
    check((const char *const[]){ "\xe6", "\xb0", NULL }, "\xef\xbf\xbd"); /* cut off: one */
    check((const char *const[]){ "\xe6\xb0", "x", NULL },
          "\xef\xbf\xbdx"); /* broken off: one, then the text */
    check((const char *const[]){ "\xe6", "\xe6\xb0\xb4", NULL }, "\xef\xbf\xbd\xe6\xb0\xb4");
    check((const char *const[]){ "\xed\xa0\x80", NULL },
          "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"); /* a surrogate: three */
    check((const char *const[]){ "\x80", "\xff", NULL }, "\xef\xbf\xbd\xef\xbf\xbd");
}

/* Nothing is held that is not needed: a whole character comes out at once. */
static void test_no_delay(void **state)
{
    struct weir_detok d;
    struct weir_buf out;

    (void)state;
    weir_detok_init(&d);
    weir_buf_init(&out, 0);
    weir_detok_push(&d, WEIR_STR("h\xc3"), &out);
    assert_int_equal(weir_buf_len(&out), 1);
    weir_detok_push(&d, WEIR_STR("\xa9"), &out);
    assert_int_equal(weir_buf_len(&out), 3);
    weir_buf_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_borders_same_text),
        cmocka_unit_test(test_examples),
        cmocka_unit_test(test_no_delay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
