/* test_keys.c - which account a key belongs to, and what is said when it belongs to none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
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

/* ---- accounts and models: a small world as one snapshot ---- */
#define WORLD_MAX 32

struct world {
    char paths[WORLD_MAX][160];
    struct weir_disc_entry entries[WORLD_MAX];
    struct weir_disc_snapshot snap;
};

static int compare_entries(const void *a, const void *b)
{
    const struct weir_disc_entry *x = a, *y = b;
    size_t len = x->key.len < y->key.len ? x->key.len : y->key.len;
    int order = memcmp(x->key.ptr, y->key.ptr, len);
    return order ? order : x->key.len < y->key.len ? -1 : 1;
}

static void put(struct world *w, const char *path, const char *json)
{
    int i = w->snap.n_entries;

    assert_true(i < WORLD_MAX);
    snprintf(w->paths[i], sizeof w->paths[i], "%s", path);
    w->entries[i] = (struct weir_disc_entry){ weir_str(w->paths[i]), weir_str(json), i + 1 };
    w->snap.n_entries++;
    w->snap.entries = w->entries;
}

static void put_key(struct world *w, const char *key, const char *json)
{
    char path[128];
    key_path(key, path, sizeof path);
    put(w, path, json);
}

static void show(struct weir_keys *keys, struct world *w)
{
    /* The paths move with their entries: pointers stay good. */
    qsort(w->entries, (size_t)w->snap.n_entries, sizeof *w->entries, compare_entries);
    weir_keys_on_snapshot(keys, &w->snap);
}

static weir_err model(struct weir_keys *keys, const char *account, const char *name, char *ret_deployment)
{
    struct weir_arena arena;
    struct weir_model found = { .deployment = { "", 0 } };
    struct weir_why why = { 0 };

    weir_arena_init(&arena, 0);
    weir_err err = weir_keys_model(keys, weir_str(account), weir_str(name), &arena, &found, &why);
    snprintf(ret_deployment, 32, "%.*s", WEIR_STR_FMT(found.deployment));
    if (err != WEIR_OK)
        assert_string_equal(why.param, "model");
    weir_arena_release(&arena);
    return err;
}

/* [T1] A suspended account's keys and expired keys are refused; what an account is, is told. */
static void test_accounts(void **state)
{
    static struct world w;
    struct weir_keys *keys = NULL;
    struct weir_account account;
    char name[32];

    (void)state;
    put(&w, "/weir/accounts/good",
        "{\"spendTier\":3,\"hasPaymentMethod\":true,\"limits\":{\"requestsPerMinute\":7}}");
    put(&w, "/weir/accounts/bad", "{\"suspendState\":\"FAILED_PAYMENTS\"}");
    put_key(&w, "k-good", "{\"account\":\"good\",\"name\":\"x\"}");
    put_key(&w, "k-bad", "{\"account\":\"bad\",\"name\":\"x\"}");
    put_key(&w, "k-old", "{\"account\":\"good\",\"name\":\"x\",\"expires\":1000}");
    put_key(&w, "k-new", "{\"account\":\"good\",\"name\":\"x\",\"expires\":99999999999}");
    put_key(&w, "k-none", "{\"account\":\"nobody\",\"name\":\"x\"}");
    assert_int_equal(weir_keys_open("/weir/", &keys, NULL), WEIR_OK);
    assert_false(weir_keys_account(keys, weir_str("good"), &account));
    show(keys, &w);
    assert_int_equal(check(keys, "Bearer k-good", name), WEIR_OK);
    assert_string_equal(name, "good");
    assert_int_equal(check(keys, "Bearer k-new", name), WEIR_OK);
    assert_int_equal(check(keys, "Bearer k-old", name), WEIR_UNAUTHENTICATED);
    assert_int_equal(check(keys, "Bearer k-bad", name), WEIR_SUSPENDED);
    assert_int_equal(check(keys, "Bearer k-none", name), WEIR_OK);
    weir_keys_set_accounts_required(keys, true);
    assert_int_equal(check(keys, "Bearer k-none", name), WEIR_UNAUTHENTICATED);

    assert_true(weir_keys_account(keys, weir_str("good"), &account));
    assert_int_equal(account.tier, 3);
    assert_true(account.has_payment_method);
    assert_int_equal(account.limits.requests_per_minute, 7);
    assert_false(account.unlimited);
    assert_false(weir_keys_account(keys, weir_str("goo"), &account));
    assert_true(account.unlimited);

    /* It pays: resumed, with everything else taken over from the set before. */
    for (int i = 0; i < w.snap.n_entries; i++)
        if (weir_str_eq(w.entries[i].key, "/weir/accounts/bad"))
            w.entries[i] = (struct weir_disc_entry){ w.entries[i].key, weir_str("{}"), 100 };
    show(keys, &w);
    assert_int_equal(check(keys, "Bearer k-bad", name), WEIR_OK);
    assert_true(weir_keys_account(keys, weir_str("good"), &account));
    assert_int_equal(account.limits.requests_per_minute, 7);
    weir_keys_close(keys);
}

/* [T2] What an account may not see looks like what is not there. */
static void test_models(void **state)
{
    static struct world w;
    struct weir_keys *keys = NULL;
    char to[32];

    (void)state;
    put(&w, "/weir/accounts/paid", "{\"hasPaymentMethod\":true}");
    put(&w, "/weir/accounts/unpaid", "{}");
    put(&w, "/weir/accounts/narrow", "{\"models\":[\"open\"]}");
    put(&w, "/weir/models/open", "{\"deployment\":\"d1\",\"sizeClass\":\"SMALL\"}");
    put(&w, "/weir/models/a/b", "{}");
    put(&w, "/weir/models/paying", "{\"deployment\":\"d2\",\"needsPaymentMethod\":true}");
    put(&w, "/weir/models/secret", "{\"deployment\":\"d3\",\"public\":false,\"accounts\":[\"paid\"]}");
    put(&w, "/weir/models/gone", "{\"deployment\":\"d4\",\"deprecationDate\":\"2020-01-01\"}");
    put(&w, "/weir/models/broken", "{\"sizeClass\":\"TINY\"}");
    assert_int_equal(weir_keys_open("/weir/", &keys, NULL), WEIR_OK);
    show(keys, &w);
    assert_int_equal(model(keys, "unpaid", "open", to), WEIR_OK);
    assert_string_equal(to, "d1");
    assert_int_equal(model(keys, "unpaid", "a/b", to), WEIR_OK);
    assert_string_equal(to, "a/b");
    assert_int_equal(model(keys, "unpaid", "unheard-of", to), WEIR_OK); /* the fleet decides */
    assert_string_equal(to, "unheard-of");
    assert_int_equal(model(keys, "unpaid", "d1", to), WEIR_NOMODEL); /* its record is the only way to it */
    assert_int_equal(model(keys, "unpaid", "paying", to), WEIR_PAYMENT);
    assert_int_equal(model(keys, "paid", "paying", to), WEIR_OK);
    assert_int_equal(model(keys, "unpaid", "secret", to), WEIR_NOMODEL);
    assert_int_equal(model(keys, "unpaid", "d3", to), WEIR_NOMODEL);
    assert_int_equal(model(keys, "paid", "secret", to), WEIR_OK);
    assert_int_equal(model(keys, "paid", "gone", to), WEIR_NOMODEL);
    assert_int_equal(model(keys, "narrow", "open", to), WEIR_OK);
    assert_int_equal(model(keys, "narrow", "a/b", to), WEIR_FORBIDDEN);
    weir_keys_close(keys);
}

/* 3,000 keys come and go; each is found while it is there. Odd rounds change a few, so that most are taken over. */
static void test_many_keys(void **state)
{
    enum { N = 3000 };
    static struct weir_disc_entry all[N], now[N];
    static char paths[N][80], names[N][16], values[N][64];
    struct weir_keys *keys = NULL;
    char got[32], bearer[64];

    (void)state;
    for (int i = 0; i < N; i++) {
        snprintf(names[i], sizeof names[i], "key-%d", i);
        key_path(names[i], paths[i], sizeof paths[i]);
        snprintf(values[i], sizeof values[i], "{\"account\":\"a%d\",\"name\":\"n\"}", i % 100);
        all[i] = (struct weir_disc_entry){ weir_str(paths[i]), weir_str(values[i]), i + 1 };
    }
    assert_int_equal(weir_keys_open("/weir/", &keys, NULL), WEIR_OK);
    for (int round = 0; round < 4; round++) {
        int n = 0;
        for (int i = 0; i < N; i++)
            if ((i + round) % 7 != 0 || round == 2)
                now[n++] = all[i];
        qsort(now, (size_t)n, sizeof *now, compare_entries);
        struct weir_disc_snapshot snap = { .entries = now, .n_entries = n };
        weir_keys_on_snapshot(keys, &snap);
        for (int i = 0; i < N; i++) {
            char wanted[32];
            snprintf(bearer, sizeof bearer, "Bearer key-%d", i);
            snprintf(wanted, sizeof wanted, "a%d", i % 100);
            bool is_there = (i + round) % 7 != 0 || round == 2;
            assert_int_equal(check(keys, bearer, got), is_there ? WEIR_OK : WEIR_UNAUTHENTICATED);
            if (is_there)
                assert_string_equal(got, wanted);
        }
    }
    weir_keys_close(keys);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_keys), cmocka_unit_test(test_accounts),
                                        cmocka_unit_test(test_models), cmocka_unit_test(test_many_keys) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
