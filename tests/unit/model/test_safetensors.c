/* test_safetensors.c - good files are read, damaged ones refused with the tensor and the reason. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "replica/model/safetensors.h"
#include "tests/support/tiny_model.h"

static char dir[TINY_DIR_MAX];

static int make_dir(void **state)
{
    struct tiny_shape shape = tiny_shape();

    (void)state;
    tiny_model_write(dir, &shape);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    tiny_model_remove(dir);
    return 0;
}

/* A file with this header; the length that it claims; n_data bytes 0, 1, 2... behind it. */
static void write_file(const char *name, const char *header, uint64_t claimed, size_t n_data)
{
    size_t len = strlen(header);
    char *file = malloc(8 + len + n_data);

    for (int i = 0; i < 8; i++)
        file[i] = (char)(claimed >> (8 * i));
    memcpy(file + 8, header, len);
    for (size_t i = 0; i < n_data; i++)
        file[8 + len + i] = (char)i;
    tiny_file_write(dir, name, file, 8 + len + n_data);
    free(file);
}

static weir_err open_header(const char *header, size_t n_data, struct safetensors **ret, struct weir_why *why)
{
    *why = (struct weir_why){ 0 };
    write_file("model.safetensors", header, strlen(header), n_data);
    return safetensors_open(dir, ret, why);
}

#define T(name, dtype, shape, offsets)                                                                       \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static void test_tensors_by_name(void **state)
{
    struct safetensors *st = NULL;
    struct weir_why why;

    (void)state;
    assert_int_equal(
        open_header("{\"__metadata__\":{\"format\":\"pt\"}," T("b", "BF16", "[2,3]", "[4,16]") "," T(
                        "a", "F32", "[1]", "[0,4]") "," T("ab", "F16", "[0]", "[16,16]") "}",
                    16, &st, &why),
        WEIR_OK);
    const struct tensor *b = safetensors_find(st, "b");
    assert_non_null(b);
    assert_int_equal(b->dtype, WEIR_BF16);
    assert_int_equal(b->n_dims, 2);
    assert_int_equal(b->dims[0], 2);
    assert_int_equal(b->dims[1], 3);
    assert_int_equal(((const char *)b->data)[0], 4);
    assert_int_equal(safetensors_find(st, "a")->dtype, WEIR_F32);
    assert_int_equal(safetensors_find(st, "ab")->dims[0], 0);
    assert_null(safetensors_find(st, "c"));
    assert_null(safetensors_find(st, ""));
    assert_null(safetensors_find(st, "__metadata__"));
    assert_int_equal(safetensors_bytes(st), 16);
    safetensors_close(st);
    safetensors_close(NULL);
}

/* Advice changes nothing that is read, and prefixes that nothing has are fine. */
static void test_advice_about_pages(void **state)
{
    static const char *const prefixes[] = { "", "a", "ab", "b", "c", "ab.", "zz" };
    struct safetensors *st = NULL;
    struct weir_why why;

    (void)state;
    assert_int_equal(open_header("{" T("ab.x", "F32", "[2]", "[8,16]") "," T(
                                     "ab", "F32", "[2]", "[0,8]") "," T("b", "F32", "[0]", "[16,16]") "}",
                                 16, &st, &why),
                     WEIR_OK);
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        safetensors_will_read(st, prefixes[i]);
        safetensors_have_read(st, prefixes[i]);
        for (int k = 0; k < 8; k++) {
            assert_int_equal(((const char *)safetensors_find(st, "ab")->data)[k], k);
            assert_int_equal(((const char *)safetensors_find(st, "ab.x")->data)[k], 8 + k);
        }
    }
    assert_int_equal(safetensors_count(st), 3);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(safetensors_index(st, safetensors_at(st, i)), i);
    safetensors_close(st);
}

static void test_damaged_headers(void **state)
{
    static const struct {
        const char *header;
        weir_err err;
        const char *reason;
    } cases[] = {
        { "{", WEIR_CORRUPT, "model.safetensors" },
        { "[]", WEIR_CORRUPT, "model.safetensors" },
        { "{} x", WEIR_CORRUPT, "model.safetensors" },
        { "{" T("a", "F32", "[4]", "[0,17]") "}", WEIR_CORRUPT,
          "`a`: offsets 0 to 17 lie outside the data, 16 bytes" },
        { "{" T("a", "F32", "[4]", "[16,0]") "}", WEIR_CORRUPT, "`a`: offsets 16 to 0" },
        { "{" T("a", "F32", "[4]", "[18446744073709551600,0]") "}", WEIR_CORRUPT, "`a`: offsets" },
        { "{" T("a", "F32", "[4]", "[-1,15]") "}", WEIR_CORRUPT, "data_offsets" },
        { "{" T("a", "F32", "[4]", "[0,16,16]") "}", WEIR_CORRUPT, "more than two offsets" },
        { "{" T("a", "F32", "[4]", "[0]") "}", WEIR_CORRUPT, "two offsets are needed" },
        { "{" T("a", "F32", "[3]", "[0,16]") "}", WEIR_CORRUPT,
          "`a`: the shape needs 12 bytes, the offsets give 16" },
        { "{" T("a", "F32", "[4294967295,4294967295,4294967295]", "[0,16]") "}", WEIR_CORRUPT,
          "`a`: the shape needs" },
        { "{" T("a", "F32", "[4294967296]", "[0,16]") "}", WEIR_CORRUPT, "too large" },
        { "{" T("a", "F32", "[1,1,1,1,4]", "[0,16]") "}", WEIR_CORRUPT, "too large" },
        { "{" T("a", "I8", "[16]", "[0,16]") "}", WEIR_UNIMPLEMENTED, "the dtype `I8`" },
        { "{\"a\":{\"shape\":[4],\"data_offsets\":[0,16]}}", WEIR_CORRUPT, "no dtype" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[4]}}", WEIR_CORRUPT, "no data_offsets" },
        { "{\"a\":5}", WEIR_CORRUPT, "a" },
        { "{" T("a", "F32", "[2]", "[0,8]") "," T("a", "F32", "[2]", "[8,16]") "}", WEIR_CORRUPT,
          "`a` is there twice" },
        { "{" T("a", "F32", "[2]", "[4,12]") "," T("b", "F32", "[2]", "[0,8]") "}", WEIR_CORRUPT,
          "`b` and `a` overlap" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct safetensors *st = NULL;
        struct weir_why why;
        assert_int_equal(open_header(cases[i].header, 16, &st, &why), cases[i].err);
        assert_null(st);
        if (!strstr(why.text, cases[i].reason))
            fail_msg("`%s`: `%s` does not say `%s`", cases[i].header, why.text, cases[i].reason);
    }
}

static void test_damaged_files(void **state)
{
    static const uint64_t lengths[] = { 100, 3, UINT64_MAX, 1ull << 40, 1ull << 63 };
    struct safetensors *st = NULL;
    struct weir_why why = { 0 };

    (void)state;
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        write_file("model.safetensors", "{}", lengths[i], 0);
        assert_int_equal(safetensors_open(dir, &st, &why), WEIR_CORRUPT);
        assert_non_null(strstr(why.text, "a header of"));
    }
    for (size_t len = 0; len < 8; len++) {
        tiny_file_write(dir, "model.safetensors", "\2\0\0\0\0\0\0\0", len);
        assert_int_equal(safetensors_open(dir, &st, &why), WEIR_CORRUPT);
    }
    assert_int_equal(safetensors_open("/nowhere", &st, &why), WEIR_IO);
    assert_non_null(strstr(why.text, "/nowhere/model.safetensors"));
    assert_null(st);
}

/* Cut anywhere, the file of a whole model is refused: nothing is read past its end. */
static void test_truncated_model(void **state)
{
    struct safetensors *st = NULL;
    struct weir_why why;
    char path[2 * TINY_DIR_MAX];

    (void)state;
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    char *bytes = malloc(1 << 20);
    size_t len = fread(bytes, 1, 1 << 20, file);
    fclose(file);
    assert_in_range(len, 10000, (1 << 20) - 1);
    for (size_t cut = 1; cut <= len; cut = cut * 3 + 1) {
        tiny_file_write(dir, "model.safetensors", bytes, len - cut);
        assert_int_equal(safetensors_open(dir, &st, &why), WEIR_CORRUPT);
        assert_null(st);
    }
    tiny_file_write(dir, "model.safetensors", bytes, len);
    assert_int_equal(safetensors_open(dir, &st, &why), WEIR_OK);
    safetensors_close(st);
    free(bytes);
}

static void write_index(const char *text)
{
    tiny_file_write(dir, "model.safetensors.index.json", text, strlen(text));
}

static void test_shards(void **state)
{
    static const char one[] = "{" T("x", "F32", "[2]", "[0,8]") "}",
                      two[] = "{" T("y", "BF16", "[1,2]", "[4,8]") "}";
    struct safetensors *st = NULL;
    struct weir_why why = { 0 };
    uint8_t hash[32];

    (void)state;
    write_file("a.safetensors", one, strlen(one), 8);
    write_file("b.safetensors", two, strlen(two), 8);
    write_index(
        "{\"metadata\":{\"total_size\":12},\"weight_map\":{\"x\":\"a.safetensors\",\"y\":\"b.safetensors\","
        "\"z\":\"a.safetensors\"}}");
    assert_int_equal(safetensors_open(dir, &st, &why), WEIR_OK);
    assert_non_null(safetensors_find(st, "x"));
    assert_int_equal(((const char *)safetensors_find(st, "y")->data)[0], 4);
    memcpy(hash, safetensors_hash(st), sizeof hash);
    safetensors_close(st);
    st = NULL;
    write_file("b.safetensors", two, strlen(two), 9); /* other data, other hash */
    assert_int_equal(safetensors_open(dir, &st, &why), WEIR_OK);
    assert_memory_not_equal(hash, safetensors_hash(st), sizeof hash);
    safetensors_close(st);
    st = NULL;
    write_index("{\"weight_map\":{\"x\":\"../a.safetensors\"}}");
    assert_int_equal(safetensors_open(dir, &st, &why), WEIR_CORRUPT);
    assert_non_null(strstr(why.text, "another folder"));
    write_index("{\"weight_map\":{\"x\":\"c.safetensors\"}}");
    assert_int_equal(safetensors_open(dir, &st, &why), WEIR_IO);
    assert_non_null(strstr(why.text, "c.safetensors"));
    write_index("{\"weight_map\":[]}");
    assert_int_equal(safetensors_open(dir, &st, &why), WEIR_CORRUPT);
    assert_null(st);
}

static void test_no_memory(void **state)
{
    struct safetensors *st = NULL;
    struct weir_why why;
    weir_err err = WEIR_NOMEM;

    (void)state;
    for (long n = 0; err != WEIR_OK; n++) {
        weir_test_alloc_budget(n);
        err = safetensors_open(dir, &st, &why);
        weir_test_alloc_budget(-1);
        assert_true(err == WEIR_OK ? st != NULL : st == NULL);
    }
    safetensors_close(st);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_tensors_by_name, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_advice_about_pages, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_damaged_headers, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_damaged_files, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_truncated_model, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_shards, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(test_no_memory, make_dir, remove_dir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
