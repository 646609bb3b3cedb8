/* sets_int.h - immutable sets of keys, accounts and models, each made from a snapshot's entries and the set before.
 *
 * An entry whose revision did not change is taken over from the old set instead of being parsed again, so that one
 * changed key among 300,000 costs a walk and not 300,000 parses. Records that can't be read are counted, logged and left
 * out. Sets are reference-counted; what they hand out lives as long as a reference. Private to tenancy/. */
#ifndef WEIR_ROUTER_TENANCY_SETS_INT_H
#define WEIR_ROUTER_TENANCY_SETS_INT_H

#include <stdatomic.h>

#include "router/tenancy/keys.h"

struct key_entry {
    uint8_t digest[32];
    const char *account; /* interned in the set's arena */
    int64_t revision;
    uint64_t expires_s; /* 0: never */
};
struct key_set {
    atomic_uint refs;
    struct weir_arena arena;
    struct key_entry *keys; /* by digest */
    size_t n;
    uint32_t *starts; /* of the keys whose first bits are i; 2^bits + 1 of them */
    uint32_t bits;
};

struct account_entry {
    struct weir_str id;
    int64_t revision;
    const struct weir_limit_overrides *limits; /* NULL: none */
    struct weir_strs models;
    uint8_t tier, suspend, policy;
    bool has_payment_method, unlimited;
};
struct account_set {
    atomic_uint refs;
    struct weir_arena arena;
    struct account_entry *accounts; /* by id */
    size_t n;
    uint32_t *slots; /* hash table of indices + 1; 0 = free */
    size_t mask;
};

struct model_set {
    atomic_uint refs;
    struct weir_arena arena;
    struct weir_model_record *models; /* by id */
    size_t n;
    struct weir_str *deployments; /* sorted */
};

/* Entries below `prefix`; `old` may be NULL. NULL: no memory. `*n_bad` counts the records left out. */
struct key_set *key_set_open(const struct key_set *old, const char *prefix,
                             const struct weir_disc_entry *entries, int n, uint64_t *n_bad);
const struct key_entry *key_set_find(const struct key_set *set, const uint8_t digest[32]);
void key_set_unref(struct key_set *set);

struct account_set *account_set_open(const struct account_set *old, const char *prefix,
                                     const struct weir_disc_entry *entries, int n, uint64_t *n_bad);
const struct account_entry *account_set_find(const struct account_set *set, struct weir_str id);
void account_set_unref(struct account_set *set);

struct model_set *model_set_open(const char *prefix, const struct weir_disc_entry *entries, int n,
                                 uint64_t *n_bad);
const struct weir_model_record *model_set_find(const struct model_set *set, struct weir_str id);
bool model_set_is_deployment(const struct model_set *set, struct weir_str name);
void model_set_unref(struct model_set *set);

/* What a bad record costs: one line. */
void set_complain(const struct weir_disc_entry *entry, const struct weir_why *why);

#endif
