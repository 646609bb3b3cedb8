/* test_kv.c - pages are held, cached or free; names find them; the cache gives way in order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "replica/engine/kv.h"

static void fill(int32_t tokens[WEIR_KV_BLOCK], int32_t first)
{
    for (int32_t i = 0; i < WEIR_KV_BLOCK; i++)
        tokens[i] = first + i;
}

static void make(struct kv *kv, uint32_t n_pages)
{
    struct weir_why why;
    assert_int_equal(kv_init(kv, n_pages, /* n_users= */ 2, /* n_share= */ n_pages, &why), WEIR_OK);
    assert_int_equal(kv_owner_ref(kv, weir_str("one")), 0);
}

/* [V1] */
static void test_take_and_drop(void **state)
{
    struct kv kv;
    bool seen[5] = { false };

    (void)state;
    make(&kv, 5);
    for (uint32_t i = 0; i < 5; i++) {
        int32_t page = kv_take(&kv, 0);
        assert_true(page >= 0 && page < 5 && !seen[page]);
        seen[page] = true;
        assert_int_equal(kv_n_held(&kv), i + 1);
    }
    assert_int_equal(kv_take(&kv, 0), -1);
    kv_hold(&kv, 3);
    kv_drop(&kv, 3);
    assert_int_equal(kv_take(&kv, 0), -1); /* still held once */
    kv_drop(&kv, 3);
    assert_int_equal(kv_take(&kv, 0), 3);
    kv_release(&kv);
    kv_release(&kv);
}

static void test_found_by_all_of_its_name(void **state)
{
    struct kv kv;
    int32_t a[WEIR_KV_BLOCK], b[WEIR_KV_BLOCK];
    struct kv_name root = kv_root(weir_str("x")), other = kv_root(weir_str("y"));

    (void)state;
    make(&kv, 4);
    fill(a, 10);
    fill(b, 50);
    int32_t first = kv_take(&kv, 0), second = kv_take(&kv, 0);
    kv_publish(&kv, first, root, a);
    kv_publish(&kv, second, kv_next(root, a), b);
    assert_int_equal(kv_find(&kv, root, a), first);
    assert_int_equal(kv_find(&kv, kv_next(root, a), b), second);
    assert_int_equal(kv_find(&kv, root, b), -1);              /* other place */
    assert_int_equal(kv_find(&kv, other, a), -1);             /* [V2] other salt */
    assert_int_equal(kv_find(&kv, kv_next(other, a), b), -1); /* other start */
    a[15]++;
    assert_int_equal(kv_find(&kv, root, a), -1); /* other token */
    assert_int_equal(kv_n_held(&kv), 2);
    kv_release(&kv);
}

/* Two sequences computed the same page: the first one's is the one that is found; the other is freed when dropped. */
static void test_published_twice(void **state)
{
    struct kv kv;
    int32_t a[WEIR_KV_BLOCK];
    struct kv_name root = kv_root(weir_str(""));

    (void)state;
    make(&kv, 2);
    fill(a, 0);
    int32_t first = kv_take(&kv, 0), second = kv_take(&kv, 0);
    kv_publish(&kv, first, root, a);
    kv_publish(&kv, second, root, a);
    kv_drop(&kv, second);
    kv_drop(&kv, first);
    assert_int_equal(kv_find(&kv, root, a), first);
    assert_int_equal(kv_take(&kv, 0), second);
    assert_int_equal(kv_take(&kv, 0), -1); /* the cached one is held again */
    kv_release(&kv);
}

/* [V3] Free pages first; then the cached ones, least recently used first. */
static void test_eviction_order(void **state)
{
    struct kv kv;
    int32_t tokens[3][WEIR_KV_BLOCK], pages[3];
    struct kv_name root = kv_root(weir_str(""));

    (void)state;
    make(&kv, 4);
    for (int i = 0; i < 3; i++) {
        fill(tokens[i], 100 * i);
        pages[i] = kv_take(&kv, 0);
        kv_publish(&kv, pages[i], root, tokens[i]);
    }
    for (int i = 0; i < 3; i++)
        kv_drop(&kv, pages[i]);
    kv_drop(&kv, kv_find(&kv, root, tokens[0])); /* used again: the youngest now */
    int32_t fresh = kv_take(&kv, 0);
    assert_true(fresh != pages[0] && fresh != pages[1] && fresh != pages[2]);
    assert_int_equal(kv_take(&kv, 0), pages[1]);
    assert_int_equal(kv_find(&kv, root, tokens[1]), -1); /* forgotten */
    assert_int_equal(kv_take(&kv, 0), pages[2]);
    assert_int_equal(kv_find(&kv, root, tokens[0]), pages[0]);
    assert_int_equal(kv_take(&kv, 0), -1);
    kv_release(&kv);
}

/* Many names in few buckets, against a plain list of what must be there. */
static void test_many_names(void **state)
{
    enum { N = 300, ROUNDS = 20000 };
    struct kv kv;
    int32_t page_of[1000], name_of[N];
    struct kv_name root = kv_root(weir_str("s"));
    uint32_t random = 1;

    (void)state;
    make(&kv, N);
    memset(page_of, 0xff, sizeof page_of);
    memset(name_of, 0xff, sizeof name_of);
    for (int i = 0; i < ROUNDS; i++) {
        int32_t tokens[WEIR_KV_BLOCK];
        random = random * 1664525 + 1013904223;
        int32_t name = (int32_t)(random >> 8) % 1000;
        fill(tokens, name * 1000);
        int32_t page = kv_find(&kv, root, tokens);
        assert_int_equal(page, page_of[name]);
        if (page < 0) {
            page = kv_take(&kv, 0);
            assert_true(page >= 0);
            if (name_of[page] >= 0)
                page_of[name_of[page]] = -1;
            kv_publish(&kv, page, root, tokens);
            page_of[name] = page;
            name_of[page] = name;
        }
        kv_drop(&kv, page);
        assert_int_equal(kv_n_held(&kv), 0);
    }
    assert_int_equal(kv.free.n + kv.cached.n, N);
    kv_release(&kv);
}

static void test_no_memory(void **state)
{
    struct kv kv;
    struct weir_why why;
    weir_err err = WEIR_NOMEM;

    (void)state;
    for (long n = 0; err != WEIR_OK; n++) {
        weir_test_alloc_budget(n);
        err = kv_init(&kv, 7, 1, 7, &why);
        weir_test_alloc_budget(-1);
        assert_true(err == WEIR_OK || err == WEIR_NOMEM);
    }
    kv_release(&kv);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_take_and_drop),   cmocka_unit_test(test_found_by_all_of_its_name),
        cmocka_unit_test(test_published_twice), cmocka_unit_test(test_eviction_order),
        cmocka_unit_test(test_many_names),      cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
