/* kv.c - see kv.h. */
#include "replica/engine/kv.h"

#include <string.h>

#include "base/hash.h"
#include "base/mem.h"

/* ---- lists of pages ---- */
static void list_remove(struct kv *kv, struct kv_list *list, int32_t i)
{
    struct kv_page *page = &kv->pages[i];

    if (page->older >= 0)
        kv->pages[page->older].newer = page->newer;
    else
        list->oldest = page->newer;
    if (page->newer >= 0)
        kv->pages[page->newer].older = page->older;
    else
        list->newest = page->older;
    list->n--;
}

static void list_append(struct kv *kv, struct kv_list *list, int32_t i)
{
    struct kv_page *page = &kv->pages[i];

    page->older = list->newest;
    page->newer = -1;
    if (list->newest >= 0)
        kv->pages[list->newest].newer = i;
    else
        list->oldest = i;
    list->newest = i;
    list->n++;
}

weir_err kv_init(struct kv *kv, uint32_t n_pages, struct weir_why *why)
{
    memset(kv, 0, sizeof *kv);
    kv->n_buckets = 16;
    while (kv->n_buckets < 2 * n_pages)
        kv->n_buckets *= 2;
    kv->pages = weir_calloc(n_pages, sizeof *kv->pages);
    kv->buckets = weir_calloc(kv->n_buckets, sizeof *kv->buckets);
    if (!kv->pages || !kv->buckets) {
        kv_release(kv);
        return weir_fail(why, WEIR_NOMEM, "no memory to keep track of %u KV pages", n_pages);
    }
    kv->n_pages = n_pages;
    kv->free = kv->cached = (struct kv_list){ -1, -1, 0 };
    memset(kv->buckets, 0xff, kv->n_buckets * sizeof *kv->buckets); /* -1 */
    for (uint32_t i = 0; i < n_pages; i++)
        list_append(kv, &kv->free, (int32_t)i);
    return WEIR_OK;
}

void kv_release(struct kv *kv)
{
    weir_free(kv->pages);
    weir_free(kv->buckets);
    memset(kv, 0, sizeof *kv);
}

/* ---- names ---- */
struct kv_name kv_root(struct weir_str salt) /* [V2] */
{
    return (struct kv_name){ weir_hash64(salt.ptr, salt.len, 1), weir_hash64(salt.ptr, salt.len, 2) };
}

struct kv_name kv_next(struct kv_name parent, const int32_t tokens[WEIR_KV_BLOCK])
{
    size_t bytes = WEIR_KV_BLOCK * sizeof *tokens;
    return (struct kv_name){ weir_hash64(tokens, bytes, parent.a), weir_hash64(tokens, bytes, parent.b) };
}

static bool same(struct kv_name x, struct kv_name y)
{
    return x.a == y.a && x.b == y.b;
}

static int32_t *bucket(struct kv *kv, struct kv_name name)
{
    return &kv->buckets[name.a & (kv->n_buckets - 1)];
}

static int32_t find(struct kv *kv, struct kv_name parent, const int32_t *tokens)
{
    struct kv_name name = kv_next(parent, tokens);
    int32_t i = *bucket(kv, name);

    for (; i >= 0; i = kv->pages[i].next_in_bucket) {
        struct kv_page *page = &kv->pages[i];
        if (same(page->name, name) && same(page->parent, parent) &&
            memcmp(page->tokens, tokens, sizeof page->tokens) == 0)
            return i;
    }
    return -1;
}

static void forget(struct kv *kv, int32_t i)
{
    struct kv_page *page = &kv->pages[i];
    int32_t *at = bucket(kv, page->name);

    while (*at != i)
        at = &kv->pages[*at].next_in_bucket;
    *at = page->next_in_bucket;
    page->named = false;
}

/* ---- pages ---- */
int32_t kv_take(struct kv *kv)
{
    struct kv_list *from = kv->free.n ? &kv->free : &kv->cached; /* [V3] */
    int32_t i = from->oldest;

    if (i < 0)
        return -1;
    list_remove(kv, from, i);
    if (kv->pages[i].named)
        forget(kv, i);
    kv->pages[i].refs = 1;
    return i;
}

void kv_hold(struct kv *kv, int32_t i)
{
    struct kv_page *page = &kv->pages[i];

    if (page->refs++ == 0) {
        WEIR_BUG_ON(!page->named); /* [V1]: nobody knows a free page's number */
        list_remove(kv, &kv->cached, i);
    }
}

void kv_drop(struct kv *kv, int32_t i)
{
    struct kv_page *page = &kv->pages[i];

    WEIR_BUG_ON(page->refs == 0); /* [V1] */
    if (--page->refs == 0)
        list_append(kv, page->named ? &kv->cached : &kv->free, i);
}

int32_t kv_find(struct kv *kv, struct kv_name parent, const int32_t tokens[WEIR_KV_BLOCK])
{
    int32_t i = find(kv, parent, tokens);

    if (i >= 0)
        kv_hold(kv, i);
    return i;
}

void kv_publish(struct kv *kv, int32_t i, struct kv_name parent, const int32_t tokens[WEIR_KV_BLOCK])
{
    struct kv_page *page = &kv->pages[i];

    if (page->named || find(kv, parent, tokens) >= 0)
        return;
    page->parent = parent;
    page->name = kv_next(parent, tokens);
    memcpy(page->tokens, tokens, sizeof page->tokens);
    page->next_in_bucket = *bucket(kv, page->name);
    *bucket(kv, page->name) = i;
    page->named = true;
}

uint32_t kv_n_held(const struct kv *kv)
{
    return kv->n_pages - kv->free.n - kv->cached.n;
}
