/* kv.c - see kv.h. */
#include "replica/engine/kv.h"

#include <string.h>

#include "base/hash.h"
#include "base/mem.h"

/* ---- lists of pages ---- */
enum { ALL, OWN }; /* of a page's links */

static void list_remove(struct kv *kv, struct kv_list *list, int which, int32_t i)
{
    struct kv_link *link = &kv->pages[i].links[which];

    if (link->older >= 0)
        kv->pages[link->older].links[which].newer = link->newer;
    else
        list->oldest = link->newer;
    if (link->newer >= 0)
        kv->pages[link->newer].links[which].older = link->older;
    else
        list->newest = link->older;
    list->n--;
}

static void list_append(struct kv *kv, struct kv_list *list, int which, int32_t i)
{
    struct kv_link *link = &kv->pages[i].links[which];

    link->older = list->newest;
    link->newer = -1;
    if (list->newest >= 0)
        kv->pages[list->newest].links[which].newer = i;
    else
        list->oldest = i;
    list->newest = i;
    list->n++;
}

static void init_pages(struct kv *kv)
{
    kv->free = kv->cached = (struct kv_list){ -1, -1, 0 };
    memset(kv->buckets, 0xff, kv->n_buckets * sizeof *kv->buckets); /* -1 */
    memset(kv->owner_buckets, 0xff, kv->n_buckets * sizeof *kv->owner_buckets);
    for (uint32_t i = 0; i < kv->n_pages; i++) {
        kv->pages[i].owner = -1;
        list_append(kv, &kv->free, ALL, (int32_t)i);
    }
}

weir_err kv_init(struct kv *kv, uint32_t n_pages, uint32_t n_users, uint32_t n_share, struct weir_why *why)
{
    uint32_t n_owners = n_pages + n_users;

    memset(kv, 0, sizeof *kv);
    kv->n_buckets = 16;
    while (kv->n_buckets < 2 * n_pages)
        kv->n_buckets *= 2;
    kv->pages = weir_calloc(n_pages, sizeof *kv->pages);
    kv->buckets = weir_calloc(kv->n_buckets, sizeof *kv->buckets);
    kv->owners = weir_calloc(n_owners, sizeof *kv->owners);
    kv->owner_buckets = weir_calloc(kv->n_buckets, sizeof *kv->owner_buckets);
    if (!kv->pages || !kv->buckets || !kv->owners || !kv->owner_buckets) {
        kv_release(kv);
        return weir_fail(why, WEIR_NOMEM, "no memory to keep track of %u KV pages", n_pages);
    }
    kv->n_pages = n_pages;
    kv->n_share = n_share;
    init_pages(kv);
    for (uint32_t i = 0; i < n_owners; i++)
        kv->owners[i].next = i + 1 < n_owners ? (int32_t)i + 1 : -1;
    return WEIR_OK;
}

void kv_release(struct kv *kv)
{
    weir_free(kv->pages);
    weir_free(kv->buckets);
    weir_free(kv->owners);
    weir_free(kv->owner_buckets);
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

static int32_t *bucket(const struct kv *kv, struct kv_name name)
{
    return &kv->buckets[name.a & (kv->n_buckets - 1)];
}

static int32_t find(const struct kv *kv, struct kv_name parent, const int32_t *tokens)
{
    struct kv_name name = kv_next(parent, tokens);
    int32_t i = *bucket(kv, name);

    for (; i >= 0; i = kv->pages[i].next_in_bucket) {
        const struct kv_page *page = &kv->pages[i];
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

/* ---- owners ---- */
int32_t kv_owner_ref(struct kv *kv, struct weir_str account)
{
    uint64_t name = weir_hash64(account.ptr, account.len, 3);
    int32_t *head = &kv->owner_buckets[name & (kv->n_buckets - 1)], i = *head;

    while (i >= 0 && kv->owners[i].name != name)
        i = kv->owners[i].next;
    if (i < 0) {
        i = kv->owner_unused;
        WEIR_BUG_ON(i < 0); /* each has a user or a page, and there are no more of these */
        kv->owner_unused = kv->owners[i].next;
        kv->owners[i] = (struct kv_owner){ .name = name, .cached = { -1, -1, 0 }, .next = *head };
        *head = i;
    }
    kv->owners[i].refs++;
    return i;
}

static void owner_check(struct kv *kv, int32_t i)
{
    struct kv_owner *owner = &kv->owners[i];
    int32_t *at = &kv->owner_buckets[owner->name & (kv->n_buckets - 1)];

    if (owner->refs > 0 || owner->n_pages > 0)
        return;
    while (*at != i)
        at = &kv->owners[*at].next;
    *at = owner->next;
    owner->next = kv->owner_unused;
    kv->owner_unused = i;
}

void kv_owner_unref(struct kv *kv, int32_t i)
{
    kv->owners[i].refs--;
    owner_check(kv, i);
}

static void disown(struct kv *kv, int32_t i)
{
    int32_t owner = kv->pages[i].owner;

    kv->pages[i].owner = -1;
    kv->owners[owner].n_pages--;
    owner_check(kv, owner);
}

/* ---- pages ---- */
static void uncache(struct kv *kv, int32_t i)
{
    list_remove(kv, &kv->cached, ALL, i);
    list_remove(kv, &kv->owners[kv->pages[i].owner].cached, OWN, i);
}

/* [V3] [V4] */
static int32_t evict(struct kv *kv, const struct kv_owner *owner)
{
    bool has_share = owner->n_pages >= kv->n_share && owner->cached.n > 0;
    int32_t i = has_share ? owner->cached.oldest : kv->cached.oldest;

    if (i < 0)
        return -1;
    uncache(kv, i);
    forget(kv, i);
    disown(kv, i);
    return i;
}

int32_t kv_take(struct kv *kv, int32_t owner)
{
    int32_t i = kv->free.oldest;

    if (i >= 0)
        list_remove(kv, &kv->free, ALL, i);
    else
        i = evict(kv, &kv->owners[owner]);
    if (i < 0)
        return -1;
    kv->pages[i].refs = 1;
    kv->pages[i].owner = owner;
    kv->owners[owner].n_pages++;
    return i;
}

void kv_hold(struct kv *kv, int32_t i)
{
    struct kv_page *page = &kv->pages[i];

    if (page->refs++ == 0) {
        WEIR_BUG_ON(!page->named); /* [V1]: nobody knows a free page's number */
        uncache(kv, i);
    }
}

void kv_drop(struct kv *kv, int32_t i)
{
    struct kv_page *page = &kv->pages[i];

    WEIR_BUG_ON(page->refs == 0); /* [V1] */
    if (--page->refs > 0)
        return;
    if (page->named) {
        list_append(kv, &kv->cached, ALL, i);
        list_append(kv, &kv->owners[page->owner].cached, OWN, i);
    } else {
        disown(kv, i);
        list_append(kv, &kv->free, ALL, i);
    }
}

bool kv_has(const struct kv *kv, struct kv_name parent, const int32_t tokens[WEIR_KV_BLOCK])
{
    return find(kv, parent, tokens) >= 0;
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

uint32_t kv_n_left(const struct kv *kv)
{
    return kv->free.n + kv->cached.n;
}
