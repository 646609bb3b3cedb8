/* keys.c - the set of keys is an immutable, sorted array, replaced whole with each snapshot that changed one.
 *
 * The digest is looked up, never the key, so the time of a search tells nothing about a secret.
 * Threads: on_snapshot on the discovery thread; check anywhere; a short lock guards the pointer, not the
 * search. */
#include "router/tenancy/keys.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/hash.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"

#define KEY_BYTES_MAX 512

struct key {
    uint8_t digest[32];
    const char *account; /* in the set's arena */
};

struct key_set {
    atomic_uint refs;
    struct weir_arena arena;
    struct key *keys;
    size_t n;
};

struct weir_keys {
    char *prefix; /* "/weir/keys/" */
    pthread_mutex_t lock;
    struct key_set *set; /* NULL before the first snapshot */
    /* discovery thread: to tell whether a snapshot changed a key */
    int n_entries;
    int64_t revision_sum;
    struct weir_counter *bad;
    struct weir_gauge *known;
};

static void set_unref(struct key_set *set)
{
    if (!set || atomic_fetch_sub_explicit(&set->refs, 1, memory_order_acq_rel) != 1)
        return;
    weir_arena_release(&set->arena);
    weir_free(set->keys);
    weir_free(set);
}

weir_err weir_keys_open(const char *prefix, struct weir_keys **ret, struct weir_why *why)
{
    struct weir_keys *keys = weir_alloc0(sizeof *keys);
    size_t len = strlen(prefix) + sizeof "keys/";

    if (!keys || !(keys->prefix = weir_alloc(len))) {
        weir_free(keys);
        return weir_fail(why, WEIR_NOMEM, "no memory for the keys");
    }
    memcpy(keys->prefix, prefix, strlen(prefix));
    memcpy(keys->prefix + strlen(prefix), "keys/", sizeof "keys/");
    pthread_mutex_init(&keys->lock, NULL);
    keys->bad = weir_counter("weir_bad_key_records_total", "", "key records that could not be read");
    keys->known = weir_gauge("weir_api_keys", "", "API keys known");
    *ret = keys;
    return WEIR_OK;
}

void weir_keys_close(struct weir_keys *keys)
{
    if (!keys)
        return;
    set_unref(keys->set);
    pthread_mutex_destroy(&keys->lock);
    weir_free(keys->prefix);
    weir_free(keys);
}

static int unhex(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool digest_parse(struct weir_str hex, uint8_t ret[32])
{
    if (hex.len != 64)
        return false;
    for (size_t i = 0; i < 32; i++) {
        int high = unhex(hex.ptr[2 * i]), low = unhex(hex.ptr[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        ret[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

static weir_err record_parse(struct weir_str json, struct weir_arena *arena, const char **ret_account,
                             struct weir_why *why)
{
    struct weir_json j;
    struct weir_str key, account = { NULL, 0 };

    weir_json_init(&j, json.ptr, json.len, arena);
    if (weir_json_object(&j)) {
        while (weir_json_key(&j, &key)) {
            if (weir_str_eq(key, "account"))
                weir_json_string(&j, &account);
            else
                weir_json_skip(&j);
        }
        if (account.len == 0 || memchr(account.ptr, 0, account.len))
            weir_json_fail_key(&j, "account", WEIR_INVALID, "the key has no account");
    }
    weir_err err = weir_json_end(&j, why);
    if (err != WEIR_OK)
        return err;
    *ret_account = weir_arena_strndup(arena, account.ptr, account.len);
    return *ret_account ? WEIR_OK : WEIR_NOMEM;
}

static int compare_keys(const void *a, const void *b)
{
    return memcmp(((const struct key *)a)->digest, ((const struct key *)b)->digest, 32);
}

static struct key_set *build(struct weir_keys *keys, const struct weir_disc_entry *entries, int n)
{
    struct key_set *set = weir_alloc0(sizeof *set);
    size_t prefix_len = strlen(keys->prefix);

    if (!set || !(set->keys = weir_calloc((size_t)n + 1, sizeof *set->keys))) {
        weir_free(set);
        return NULL;
    }
    atomic_init(&set->refs, 1);
    weir_arena_init(&set->arena, 0);
    for (int i = 0; i < n; i++) {
        struct weir_why why = { 0 };
        struct key *key = &set->keys[set->n];
        struct weir_str hex = { entries[i].key.ptr + prefix_len, entries[i].key.len - prefix_len };
        if (digest_parse(hex, key->digest) &&
            record_parse(entries[i].value, &set->arena, &key->account, &why) == WEIR_OK) {
            set->n++;
            continue;
        }
        weir_counter_add(keys->bad, 1);
        WEIR_WARN("bad_key_record", "key=%.*s why=%s", WEIR_STR_FMT(entries[i].key), why.text);
    }
    qsort(set->keys, set->n, sizeof *set->keys, compare_keys);
    return set;
}

void weir_keys_on_snapshot(struct weir_keys *keys, const struct weir_disc_snapshot *snap)
{
    const struct weir_disc_entry *entries = NULL;
    int n = weir_disc_prefix(snap, keys->prefix, &entries);
    int64_t sum = 0;

    /* Revisions rise with every change, so the same count and sum mean the same keys. */
    for (int i = 0; i < n; i++)
        sum += entries[i].revision;
    if (keys->set && n == keys->n_entries && sum == keys->revision_sum)
        return;
    struct key_set *set = build(keys, entries, n);
    if (!set)
        return; /* no memory: the old set serves on, the next snapshot tries again */
    keys->n_entries = n;
    keys->revision_sum = sum;
    weir_gauge_set(keys->known, (int64_t)set->n);
    pthread_mutex_lock(&keys->lock);
    struct key_set *old = keys->set;
    keys->set = set;
    pthread_mutex_unlock(&keys->lock);
    set_unref(old);
}

static struct key_set *current(struct weir_keys *keys)
{
    pthread_mutex_lock(&keys->lock);
    struct key_set *set = keys->set;
    if (set)
        atomic_fetch_add_explicit(&set->refs, 1, memory_order_relaxed);
    pthread_mutex_unlock(&keys->lock);
    return set;
}

bool weir_keys_ready(struct weir_keys *keys)
{
    struct key_set *set = current(keys);
    bool ready = set != NULL;

    set_unref(set);
    return ready;
}

weir_err weir_keys_check(struct weir_keys *keys, struct weir_str authorization, struct weir_arena *arena,
                         struct weir_str *ret_account, struct weir_why *why)
{
    static const struct weir_str scheme = { "bearer ", 7 };
    struct key wanted;

    if (authorization.len == 0)
        return weir_fail(why, WEIR_UNAUTHENTICATED, "no API key: send `Authorization: Bearer <key>`");
    if (authorization.len <= scheme.len || strncasecmp(authorization.ptr, scheme.ptr, scheme.len) != 0 ||
        authorization.len > KEY_BYTES_MAX)
        return weir_fail(why, WEIR_UNAUTHENTICATED, "malformed Authorization: send `Bearer <key>`");
    struct key_set *set = current(keys);
    if (!set)
        return weir_fail(why, WEIR_UNAVAILABLE, "the router has not read its keys yet");
    weir_sha256(authorization.ptr + scheme.len, authorization.len - scheme.len, wanted.digest);
    const struct key *key = bsearch(&wanted, set->keys, set->n, sizeof *set->keys, compare_keys);
    weir_err err = key ? WEIR_OK : weir_fail(why, WEIR_UNAUTHENTICATED, "the API key is not known");
    if (key) {
        char *account = weir_arena_strndup(arena, key->account, strlen(key->account));
        if (account)
            *ret_account = weir_str(account);
        else
            err = weir_fail(why, WEIR_NOMEM, "no memory for the account");
    }
    set_unref(set);
    return err;
}
