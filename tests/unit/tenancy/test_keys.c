/* test_keys.c - which account a key belongs to, and what is said when it belongs to none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "router/tenancy/keys.h"

static void key_path(const char *key, char *ret, size_t size)
{
    uint8_t digest[32];
    char hex[65];

    weir_sha256(key, strlen(key), digest);
    weir_hex(digest, 32, hex);
    snprintf(ret, size, "/weir/keys/%s", hex);
}

static weir_err check(struct weir_keys *keys, const char *authorization, char *ret_account)
{
    struct weir_arena arena;
    struct weir_str account = { "", 0 };
    struct weir_why why = { 0 };

    weir_arena_init(&arena, 0);
    weir_err err = weir_keys_check(keys, weir_str(authorization), &arena, &account, &why);
    snprintf(ret_account, 32, "%.*s", WEIR_STR_FMT(account));
    weir_arena_release(&arena);
    return err;
}

static void test_keys(void **state)
{
    char paths[3][128], account[32];
    struct weir_keys *keys = NULL;
    struct weir_why why = { 0 };

    (void)state;
    key_path("one", paths[0], sizeof paths[0]);
    key_path("two", paths[1], sizeof paths[1]);
    snprintf(paths[2], sizeof paths[2], "/weir/keys/zz");
    struct weir_disc_entry entries[3] = {
        { weir_str(paths[0]), weir_str("{\"account\":\"a\",\"name\":\"x\"}"), 1 },
        { weir_str(paths[1]), weir_str("{\"account\":\"b\"}"), 2 },
        { weir_str(paths[2]), weir_str("{\"account\":\"c\"}"), 3 }, /* not a digest: skipped */
    };
    if (strcmp(paths[0], paths[1]) > 0) { /* snapshots are sorted */
        struct weir_disc_entry swap = entries[0];
        entries[0] = entries[1];
        entries[1] = swap;
    }
    struct weir_disc_snapshot snap = { .version = 1, .revision = 3, .entries = entries, .n_entries = 3 };

    assert_int_equal(weir_keys_open("/weir/", &keys, &why), WEIR_OK);
    assert_int_equal(check(keys, "Bearer one", account),
                     WEIR_UNAVAILABLE); /* nothing is known yet: not the client's fault */
    assert_false(weir_keys_ready(keys));
    weir_keys_on_snapshot(keys, &snap);
    assert_true(weir_keys_ready(keys));
    assert_int_equal(check(keys, "Bearer one", account), WEIR_OK);
    assert_string_equal(account, "a");
    assert_int_equal(check(keys, "bearer two", account), WEIR_OK);
    assert_string_equal(account, "b");
    assert_int_equal(check(keys, "", account), WEIR_UNAUTHENTICATED);
    assert_int_equal(check(keys, "Bearer", account), WEIR_UNAUTHENTICATED);
    assert_int_equal(check(keys, "Bearer three", account), WEIR_UNAUTHENTICATED);
    assert_int_equal(check(keys, "Basic one", account), WEIR_UNAUTHENTICATED);
    assert_int_equal(check(keys, "Bearer one ", account), WEIR_UNAUTHENTICATED);

    /* A key is revoked, another changes hands. */
    bool first_is_one = entries[0].key.ptr == paths[0];
    entries[0].value = weir_str(first_is_one ? "{\"account\":\"z\"}" : "{\"account\":\"b\"}");
    entries[0].revision = 4;
    snap.n_entries = 1;
    weir_keys_on_snapshot(keys, &snap);
    assert_int_equal(check(keys, first_is_one ? "Bearer two" : "Bearer one", account), WEIR_UNAUTHENTICATED);
    assert_int_equal(check(keys, first_is_one ? "Bearer one" : "Bearer two", account), WEIR_OK);
    assert_string_equal(account, first_is_one ? "z" : "b");
    weir_keys_close(keys);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_keys) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
