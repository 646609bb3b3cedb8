/* test_hash.c - digests and encodings against published vectors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"

static void test_sha256_of_fips_180(void **state)
{
    uint8_t digest[32];
    char hex[65];

    (void)state;
    weir_sha256("abc", 3, digest);
    weir_hex(digest, 32, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    weir_sha256("", 0, digest);
    weir_hex(digest, 32, hex);
    assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

static void test_hash64_depends_on_all_bytes_and_the_seed(void **state)
{
    char text[100] = { 0 };

    (void)state;
    assert_int_equal(weir_hash64("", 0, 0),
                     0x2d06800538d394c2); /* XXH3 64 of nothing, from its specification */
    uint64_t base = weir_hash64(text, sizeof text, 1);
    assert_int_equal(base, weir_hash64(text, sizeof text, 1));
    assert_int_not_equal(base, weir_hash64(text, sizeof text, 2));
    for (size_t i = 0; i < sizeof text; i++) {
        text[i] = 1;
        assert_int_not_equal(base, weir_hash64(text, sizeof text, 1));
        text[i] = 0;
    }
}

static void test_mix_depends_on_order(void **state)
{
    (void)state;
    assert_int_not_equal(weir_hash_mix(weir_hash_mix(0, 1), 2), weir_hash_mix(weir_hash_mix(0, 2), 1));
    assert_int_not_equal(weir_hash_mix(0, 0), weir_hash_mix(0, 1));
    assert_int_not_equal(weir_hash_mix(1, 0), weir_hash_mix(0, 1));
    /* Small numbers spread over the high bits: half of them set, roughly. */
    int ones = 0;
    for (uint64_t i = 0; i < 1000; i++)
        ones += __builtin_popcountll(weir_hash_mix(0, i) >> 32);
    assert_true(ones > 15000 && ones < 17000);
}

static void test_base64_of_rfc_4648(void **state)
{
    static const char *const pairs[][2] = { { "", "" },
                                            { "f", "Zg==" },
                                            { "fo", "Zm8=" },
                                            { "foo", "Zm9v" },
                                            { "foob", "Zm9vYg==" },
                                            { "fooba", "Zm9vYmE=" },
                                            { "foobar", "Zm9vYmFy" },
                                            { "\xfb\xff\xbf", "+/+/" } };
    char text[16];
    uint8_t bytes[16];

    (void)state;
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        assert_int_equal(weir_base64(pairs[i][0], strlen(pairs[i][0]), text), strlen(pairs[i][1]));
        assert_string_equal(text, pairs[i][1]);
        assert_int_equal(weir_base64_decode(text, strlen(text), bytes), strlen(pairs[i][0]));
        assert_memory_equal(bytes, pairs[i][0], strlen(pairs[i][0]));
    }
}

static void test_base64_of_random_bytes(void **state)
{
    uint8_t in[200], out[200];
    char text[4 * 67 + 1];

    (void)state;
    weir_random(in, sizeof in);
    for (size_t len = 0; len <= sizeof in; len++) {
        size_t n = weir_base64(in, len, text);
        assert_int_equal(n, 4 * ((len + 2) / 3));
        assert_int_equal(weir_base64_decode(text, n, out), len);
        assert_memory_equal(in, out, len);
    }
}

/* [H1] */
static void test_base64_decoding_is_strict(void **state)
{
    static const char *const bad[] = { "A",    "AA",    "AAA",  "AA=A", "=AAA",     "A===", "====",
                                       "AAA-", "AA\nA", "Zh==", "Zm9=", "Zg==Zg==", "AAA ", "AAAAA" };
    uint8_t bytes[16];

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_true(weir_base64_decode(bad[i], strlen(bad[i]), bytes) == SIZE_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sha256_of_fips_180),
        cmocka_unit_test(test_hash64_depends_on_all_bytes_and_the_seed),
        cmocka_unit_test(test_mix_depends_on_order),
        cmocka_unit_test(test_base64_of_rfc_4648),
        cmocka_unit_test(test_base64_of_random_bytes),
        cmocka_unit_test(test_base64_decoding_is_strict),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
