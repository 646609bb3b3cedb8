/* test_json_write.c - what is written is JSON, and reads back as what was meant. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

static void test_commas_and_nesting(void **state)
{
    struct weir_buf out;
    struct weir_jw w;

    (void)state;
    weir_buf_init(&out, 0);
    weir_jw_init(&w, &out);
    weir_jw_object(&w);
    weir_jw_key(&w, "a");
    weir_jw_array(&w);
    weir_jw_u64(&w, 1);
    weir_jw_i64(&w, INT64_MIN);
    weir_jw_array(&w);
    weir_jw_array_end(&w);
    weir_jw_object(&w);
    weir_jw_object_end(&w);
    weir_jw_null(&w);
    weir_jw_array_end(&w);
    weir_jw_key(&w, "b");
    weir_jw_bool(&w, true);
    weir_jw_key(&w, "c");
    weir_jw_f64(&w, (double)NAN);
    weir_jw_key(&w, "d");
    weir_jw_f64(&w, (double)-INFINITY);
    weir_jw_key(&w, "e");
    weir_jw_raw(&w, WEIR_STR("{\"x\":0.10}"));
    weir_jw_key(&w, "f");
    weir_jw_cstr(&w, "s");
    weir_jw_object_end(&w);
    assert_string_equal(weir_buf_cstr(&out),
                        "{\"a\":[1,-9223372036854775808,[],{},null],\"b\":true,\"c\":null,"
                        "\"d\":null,\"e\":{\"x\":0.10},\"f\":\"s\"}");
    assert_int_equal(w.depth, 0);
    weir_buf_release(&out);
}

static void write_one(struct weir_buf *out, const char *text, size_t len)
{
    struct weir_jw w;

    weir_buf_clear(out);
    weir_jw_init(&w, out);
    weir_jw_str(&w, (struct weir_str){ text, len });
}

static void test_escapes(void **state)
{
    struct weir_buf out;

    (void)state;
    weir_buf_init(&out, 0);
    write_one(&out, "a\"b\\c/\n\r\t\b\f\x01\x1f\x7f\xc3\xa9", 16);
    assert_string_equal(weir_buf_cstr(&out), "\"a\\\"b\\\\c/\\n\\r\\t\\b\\f\\u0001\\u001f\x7f\xc3\xa9\"");
    write_one(&out, "x\0y", 3);
    assert_string_equal(weir_buf_cstr(&out), "\"x\\u0000y\"");
    write_one(&out, "", 0);
    assert_string_equal(weir_buf_cstr(&out), "\"\"");
    write_one(&out, NULL, 0);
    assert_string_equal(weir_buf_cstr(&out), "\"\"");
    write_one(&out, "a\xff\xed\xa0\x80z\xe2\x82", 8);
    assert_string_equal(weir_buf_cstr(&out),
                        "\"a\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdz\xef\xbf\xbd\xef\xbf\xbd\"");
    weir_buf_release(&out);
}

/* [W1] Any bytes give a valid string; valid UTF-8 comes back as it was. */
static void test_random_strings_read_back(void **state)
{
    struct weir_buf out;
    struct weir_arena arena;
    char text[64];

    (void)state;
    weir_buf_init(&out, 0);
    weir_arena_init(&arena, 0);
    srand(5);
    for (int i = 0; i < 50000; i++) {
        size_t len = 0, n_chars = (size_t)rand() % 12;
        for (size_t k = 0; k < n_chars; k++) {
            uint32_t code = (uint32_t)rand() % (i % 4 == 0 ? 0x110000u : 0x100u);
            if (i % 5 == 0)
                text[len++] = (char)rand(); /* most probably not UTF-8 */
            else
                len += weir_utf8_put(code >= 0xd800 && code < 0xe000 ? '"' : code, text + len);
        }
        write_one(&out, text, len);
        struct weir_json j;
        struct weir_str back;
        weir_json_init(&j, weir_buf_ptr(&out), weir_buf_len(&out), &arena);
        assert_true(weir_json_string(&j, &back));
        assert_int_equal(weir_json_end(&j, NULL), WEIR_OK);
        if (weir_utf8_valid(text, len)) {
            assert_int_equal(back.len, len);
            assert_memory_equal(back.ptr, text, len);
        }
        weir_arena_clear(&arena);
    }
    weir_arena_release(&arena);
    weir_buf_release(&out);
}

/* The deepest text that the reader takes can be written. */
static void test_depth(void **state)
{
    struct weir_buf out;
    struct weir_jw w;
    struct weir_json j;

    (void)state;
    weir_buf_init(&out, 0);
    weir_jw_init(&w, &out);
    for (int i = 0; i < WEIR_JSON_DEPTH_MAX; i++) {
        weir_jw_array(&w);
        weir_jw_u64(&w, 1);
    }
    while (w.depth > 0)
        weir_jw_array_end(&w);
    weir_json_init(&j, weir_buf_ptr(&out), weir_buf_len(&out), NULL);
    weir_json_skip(&j);
    assert_int_equal(weir_json_end(&j, NULL), WEIR_OK);
    weir_buf_release(&out);
}

static void test_full_buffer_is_remembered(void **state)
{
    struct weir_buf out;
    struct weir_jw w;

    (void)state;
    weir_buf_init(&out, 8);
    weir_jw_init(&w, &out);
    weir_jw_array(&w);
    weir_jw_cstr(&w, "much too long");
    weir_jw_array_end(&w);
    assert_true(out.failed);
    weir_buf_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_commas_and_nesting),        cmocka_unit_test(test_escapes),
        cmocka_unit_test(test_random_strings_read_back),  cmocka_unit_test(test_depth),
        cmocka_unit_test(test_full_buffer_is_remembered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
