/* set_keys.c - API keys by digest: a sorted array behind an index of first bits, so that a lookup is about two cache
 * misses whatever the number of keys.
 *
 * Names below the prefix are digests in hex, so entries come in the order of the digests: nothing is sorted, and the old
 * set is walked beside the new one. Digests are looked up, never keys, so the time of a search tells nothing about a
 * secret. */
#include <string.h>

#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "router/tenancy/sets_int.h"

#define KEYS_A_BUCKET 4

void set_complain(const struct weir_disc_entry *entry, const struct weir_why *why)
{
    WEIR_WARN("bad_tenancy_record", "key=%.*s why=%s", WEIR_STR_FMT(entry->key), why->text);
}

void key_set_unref(struct key_set *set)
{
    if (!set || atomic_fetch_sub_explicit(&set->refs, 1, memory_order_acq_rel) != 1)
        return;
    weir_arena_release(&set->arena);
    weir_free(set->keys);
    weir_free(set->starts);
    weir_free(set);
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

/* ---- accounts' names, each once: many keys share one ---- */
struct names {
    const char **slots;
    size_t mask, n;
};

static bool names_grow(struct names *names)
{
    size_t n = names->slots ? 2 * (names->mask + 1) : 1024;
    const char **slots = weir_calloc(n, sizeof *slots);

    if (!slots)
        return false;
    for (size_t i = 0; names->slots && i <= names->mask; i++) {
        if (!names->slots[i])
            continue;
        size_t at = weir_hash64(names->slots[i], strlen(names->slots[i]), 0) & (n - 1);
        while (slots[at])
            at = (at + 1) & (n - 1);
        slots[at] = names->slots[i];
    }
    weir_free(names->slots);
    names->slots = slots;
    names->mask = n - 1;
    return true;
}

static const char *intern(struct names *names, struct weir_arena *arena, const char *text, size_t len)
{
    if (2 * names->n >= names->mask && !names_grow(names))
        return NULL;
    size_t at = weir_hash64(text, len, 0) & names->mask;
    for (; names->slots[at]; at = (at + 1) & names->mask)
        if (strncmp(names->slots[at], text, len) == 0 && names->slots[at][len] == '\0')
            return names->slots[at];
    const char *copy = weir_arena_strndup(arena, text, len);
    names->slots[at] = copy;
    names->n += copy != NULL;
    return copy;
}

/* ---- building ---- */
static weir_err read_key(struct key_set *set, struct names *names, struct weir_arena *scratch,
                         const struct weir_disc_entry *entry, struct key_entry *key, struct weir_why *why)
{
    struct weir_key_record rec;

    weir_arena_clear(scratch);
    weir_key_record_init(&rec);
    weir_err err = weir_key_record_read(entry->value, scratch, /* is_patch= */ false, &rec, why);
    if (err != WEIR_OK)
        return err;
    key->expires_s = rec.expires_s;
    key->account = intern(names, &set->arena, rec.account.ptr, rec.account.len);
    return key->account ? WEIR_OK : weir_fail(why, WEIR_NOMEM, "no memory");
}

static bool fill(struct key_set *set, const struct key_set *old, const char *prefix,
                 const struct weir_disc_entry *entries, int n, uint64_t *n_bad)
{
    size_t prefix_len = strlen(prefix), i_old = 0;
    struct names names = { NULL, 0, 0 };
    struct weir_arena scratch;
    weir_err err = WEIR_OK;

    weir_arena_init(&scratch, 0);
    for (int i = 0; i < n && err != WEIR_NOMEM; i++) {
        struct key_entry *key = &set->keys[set->n];
        struct weir_why why = { .text = "the name is not a SHA-256 in hex" };
        struct weir_str hex = { entries[i].key.ptr + prefix_len, entries[i].key.len - prefix_len };
        if (!digest_parse(hex, key->digest)) {
            err = WEIR_INVALID;
        } else {
            while (old && i_old < old->n && memcmp(old->keys[i_old].digest, key->digest, 32) < 0)
                i_old++;
            const struct key_entry *was = old && i_old < old->n ? &old->keys[i_old] : NULL;
            key->revision = entries[i].revision;
            if (was && was->revision == key->revision && memcmp(was->digest, key->digest, 32) == 0) {
                key->expires_s = was->expires_s;
                key->account = intern(&names, &set->arena, was->account, strlen(was->account));
                err = key->account ? WEIR_OK : WEIR_NOMEM;
            } else {
                err = read_key(set, &names, &scratch, &entries[i], key, &why);
            }
        }
        set->n += err == WEIR_OK;
        if (err == WEIR_INVALID) {
            ++*n_bad;
            set_complain(&entries[i], &why);
        }
    }
    weir_arena_release(&scratch);
    weir_free(names.slots);
    return err != WEIR_NOMEM;
}

static uint32_t first_bits(const uint8_t *digest, uint32_t bits)
{
    uint32_t top =
        (uint32_t)digest[0] << 24 | (uint32_t)digest[1] << 16 | (uint32_t)digest[2] << 8 | digest[3];

    return bits ? top >> (32 - bits) : 0;
}

static bool index_keys(struct key_set *set)
{
    while (set->bits < 24 && (set->n >> set->bits) > KEYS_A_BUCKET)
        set->bits++;
    size_t n = ((size_t)1 << set->bits) + 1, at = 0;
    set->starts = weir_alloc(n * sizeof *set->starts);
    if (!set->starts)
        return false;
    for (size_t i = 0; i < n; i++) {
        while (at < set->n && first_bits(set->keys[at].digest, set->bits) < i)
            at++;
        set->starts[i] = (uint32_t)at;
    }
    return true;
}

struct key_set *key_set_open(const struct key_set *old, const char *prefix,
                             const struct weir_disc_entry *entries, int n, uint64_t *n_bad)
{
    struct key_set *set = weir_alloc0(sizeof *set);

    if (!set)
        return NULL;
    atomic_init(&set->refs, 1);
    weir_arena_init(&set->arena, 0);
    set->keys = weir_calloc((size_t)n + 1, sizeof *set->keys);
    if (set->keys && fill(set, old, prefix, entries, n, n_bad) && index_keys(set))
        return set;
    key_set_unref(set);
    return NULL;
}

const struct key_entry *key_set_find(const struct key_set *set, const uint8_t digest[32])
{
    uint32_t bucket = first_bits(digest, set->bits);

    for (uint32_t i = set->starts[bucket]; i < set->starts[bucket + 1]; i++)
        if (memcmp(set->keys[i].digest, digest, 32) == 0)
            return &set->keys[i];
    return NULL;
}
