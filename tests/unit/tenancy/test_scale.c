/* test_scale.c - many accounts and keys: found, kept small, looked up fast. The numbers are printed, not asserted; with
 * WEIR_TEST_LONG=1 it is 100,000 accounts and 300,000 keys, else a hundredth of that. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/hash.h"
#include "router/tenancy/keys.h"

struct world {
    struct weir_disc_entry *entries;
    char *text;
    int n_accounts, n_keys;
};

static int compare_entries(const void *a, const void *b)
{
    const struct weir_disc_entry *x = a, *y = b;
    size_t len = x->key.len < y->key.len ? x->key.len : y->key.len;
    int order = memcmp(x->key.ptr, y->key.ptr, len);
    return order ? order : x->key.len < y->key.len ? -1 : 1;
}

static void world_make(struct world *w)
{
    enum { LINE = 256 };
    int n = w->n_accounts + w->n_keys;

    w->entries = calloc((size_t)n, sizeof *w->entries);
    w->text = malloc((size_t)n * LINE);
    assert_non_null(w->text);
    for (int i = 0; i < n; i++) {
        char *path = w->text + (size_t)i * LINE, *value = path + 96, key[32], hex[65];
        uint8_t digest[32];
        if (i < w->n_accounts) {
            snprintf(path, 96, "/weir/accounts/account-%d", i);
            snprintf(value, 160,
                     "{\"createTime\":\"2026-11-21T00:00:00Z\",\"spendTier\":%d,\"hasPaymentMethod\":true}",
                     i % 5 + 1);
        } else {
            snprintf(key, sizeof key, "weir_%d", i - w->n_accounts);
            weir_sha256(key, strlen(key), digest);
            weir_hex(digest, sizeof digest, hex);
            snprintf(path, 96, "/weir/keys/%s", hex);
            snprintf(value, 160,
                     "{\"account\":\"account-%d\",\"name\":\"default\",\"prefix\":\"weir_123\",\"created\":"
                     "1795246800}",
                     (i - w->n_accounts) % w->n_accounts);
        }
        w->entries[i] = (struct weir_disc_entry){ weir_str(path), weir_str(value), i + 1 };
    }
    qsort(w->entries, (size_t)n, sizeof *w->entries, compare_entries);
}

static void test_lookups(void **state)
{
    bool is_long = getenv("WEIR_TEST_LONG") != NULL;
    struct world w = { .n_accounts = is_long ? 100000 : 1000, .n_keys = is_long ? 300000 : 3000 };
    int n_lookups = is_long ? 2000000 : 20000;
    struct weir_keys *keys = NULL;
    struct weir_arena arena;
    struct weir_str account;
    struct weir_account found;
    char bearer[64];

    (void)state;
    world_make(&w);
    struct weir_disc_snapshot snap = { .entries = w.entries, .n_entries = w.n_accounts + w.n_keys };
    assert_int_equal(weir_keys_open("/weir/", &keys, NULL), WEIR_OK);
    uint64_t start_ns = weir_now_ns();
    weir_keys_on_snapshot(keys, &snap);
    uint64_t built_ns = weir_now_ns() - start_ns;

    start_ns = weir_now_ns();
    for (int i = 0; i < w.n_keys + w.n_accounts; i += 1000)
        w.entries[i].revision += 1000000; /* a few changed: the rest is taken over */
    weir_keys_on_snapshot(keys, &snap);
    uint64_t changed_ns = weir_now_ns() - start_ns;

    weir_arena_init(&arena, 0);
    uint64_t state_random = 1, total_ns = 0;
    for (int i = 0; i < n_lookups; i++) {
        state_random = weir_hash_mix(state_random, 1);
        int k = (int)(state_random % (uint64_t)w.n_keys);
        snprintf(bearer, sizeof bearer, "Bearer weir_%d", k);
        struct weir_str header = weir_str(bearer);
        uint64_t before_ns = weir_now_ns();
        weir_err err = weir_keys_check(keys, header, &arena, &account, NULL);
        bool known = weir_keys_account(keys, account, &found);
        total_ns += weir_now_ns() - before_ns;
        assert_int_equal(err, WEIR_OK);
        assert_true(known);
        assert_int_equal(found.tier, k % w.n_accounts % 5 + 1);
        weir_arena_clear(&arena);
    }
    printf("%d accounts, %d keys: read in %.0f ms, %d changes in %.0f ms, header to account %.0f ns\n",
           w.n_accounts, w.n_keys, (double)built_ns / 1e6, (w.n_keys + w.n_accounts) / 1000,
           (double)changed_ns / 1e6, (double)total_ns / n_lookups);
    weir_arena_release(&arena);
    weir_keys_close(keys);
    free(w.entries);
    free(w.text);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_lookups) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
