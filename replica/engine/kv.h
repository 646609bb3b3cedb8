/* kv.h - the pool of KV pages and the prefix cache over it: who holds which page, and which pages hold which
 * tokens.
 *
 * A page is held (counted), cached (full, findable by its tokens, held by nobody), or free. A full page's
 * name is a hash chain over (salt, tokens so far), so equal names mean equal prefixes of one salt; tokens are
 * compared too. Pure bookkeeping: the numbers in the pages are the model's. Step thread only. [V1] A page is
 * free, cached or held: never two of these.    [V2] Two salts never share a page. [V3] Cached pages go when a
 * page is needed, the least recently used first, a chain's end before its start. [V4] Who has his share of the
 * pages (held and cached) takes the place of his own cached pages, while there are any: nobody turns everybody
 * else out of the cache. */
#ifndef WEIR_REPLICA_ENGINE_KV_H
#define WEIR_REPLICA_ENGINE_KV_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "kernels/kernels.h"

struct kv_name {
    uint64_t a, b;
};

struct kv_link {
    int32_t older, newer;
};

struct kv_page {
    struct kv_name name;
    struct kv_name parent;
    int32_t tokens[WEIR_KV_BLOCK];
    uint32_t refs;
    bool named;
    int32_t owner; /* -1: free */
    int32_t next_in_bucket;
    struct kv_link links[2]; /* in the list of cached or of free pages; in the owner's list of cached ones */
};

struct kv_list {
    int32_t oldest, newest;
    uint32_t n;
};

/* One account's part of the pool; there while it has pages or somebody works for it. */
struct kv_owner {
    uint64_t name; /* hash of the account */
    uint32_t refs, n_pages;
    struct kv_list cached;
    int32_t next; /* in its bucket, or of the unused ones */
};

struct kv {
    struct kv_page *pages;
    int32_t *buckets;
    uint32_t n_pages, n_buckets;
    struct kv_list free, cached;
    struct kv_owner *owners;
    int32_t *owner_buckets; /* [n_buckets] */
    int32_t owner_unused;
    uint32_t n_share; /* [V4] */
};

/* `n_users`: kv_owner_ref not yet undone, at most. `n_share`: pages that one owner may have before its own go first. */
WEIR_MUST_CHECK weir_err kv_init(struct kv *kv, uint32_t n_pages, uint32_t n_users, uint32_t n_share,
                                 struct weir_why *why);
void kv_release(struct kv *kv); /* takes a zeroed one */

struct kv_name kv_root(struct weir_str salt);
struct kv_name kv_next(struct kv_name parent, const int32_t tokens[WEIR_KV_BLOCK]);
int32_t kv_owner_ref(struct kv *kv, struct weir_str account);
void kv_owner_unref(struct kv *kv, int32_t owner);
/* A page of one's own; -1 when all are held. */
int32_t kv_take(struct kv *kv, int32_t owner);
bool kv_has(const struct kv *kv, struct kv_name parent, const int32_t tokens[WEIR_KV_BLOCK]);
/* The page that follows `parent` with these tokens, held once more; -1 when there is none. */
int32_t kv_find(struct kv *kv, struct kv_name parent, const int32_t tokens[WEIR_KV_BLOCK]);
/* A held page is full: give it its name, unless another page has it already. */
void kv_publish(struct kv *kv, int32_t page, struct kv_name parent, const int32_t tokens[WEIR_KV_BLOCK]);
void kv_hold(struct kv *kv, int32_t page);
void kv_drop(struct kv *kv, int32_t page);
uint32_t kv_n_held(const struct kv *kv);
uint32_t kv_n_left(const struct kv *kv); /* free or cached: what kv_take can still give */

#endif
