/* set_accounts.c - accounts by id: an array in the order of the ids behind a hash table. What a request needs is kept;
 * names and addresses for people stay in discovery's snapshot. */
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "router/tenancy/sets_int.h"

void account_set_unref(struct account_set *set)
{
    if (!set || atomic_fetch_sub_explicit(&set->refs, 1, memory_order_acq_rel) != 1)
        return;
    weir_arena_release(&set->arena);
    weir_free(set->accounts);
    weir_free(set->slots);
    weir_free(set);
}

static bool copy_str(struct weir_arena *arena, struct weir_str *s)
{
    char *copy = weir_arena_strndup(arena, s->len ? s->ptr : "", s->len);

    s->ptr = copy;
    return copy != NULL;
}

static bool copy_strs(struct weir_arena *arena, struct weir_strs *strs)
{
    if (strs->n == 0)
        return true;
    struct weir_str *items = weir_arena_alloc(arena, strs->n * sizeof *items);
    if (!items)
        return false;
    memcpy(items, strs->items, strs->n * sizeof *items);
    strs->items = items;
    for (uint32_t i = 0; i < strs->n; i++)
        if (!copy_str(arena, &items[i]))
            return false;
    return true;
}

/* Into the set's own memory. */
static bool own(struct account_set *set, struct account_entry *account)
{
    if (account->limits) {
        struct weir_limit_overrides *limits = weir_arena_alloc(&set->arena, sizeof *limits);
        if (!limits)
            return false;
        *limits = *account->limits;
        account->limits = limits;
    }
    return copy_str(&set->arena, &account->id) && copy_strs(&set->arena, &account->models);
}

static weir_err read_account(struct account_set *set, struct weir_arena *scratch,
                             const struct weir_disc_entry *entry, struct account_entry *account,
                             struct weir_why *why)
{
    static const struct weir_limit_overrides none;
    struct weir_account_record rec;

    weir_arena_clear(scratch);
    weir_account_record_init(&rec);
    weir_err err = weir_account_id_check(account->id, why);
    if (err == WEIR_OK)
        err = weir_account_record_read(entry->value, scratch, /* is_patch= */ false, &rec, why);
    if (err != WEIR_OK)
        return err;
    account->tier = (uint8_t)rec.tier;
    account->suspend = (uint8_t)rec.suspend;
    account->policy = (uint8_t)rec.policy;
    account->has_payment_method = rec.has_payment_method;
    account->unlimited = rec.unlimited;
    account->models = rec.models;
    account->limits = memcmp(&rec.limits, &none, sizeof none) == 0 ? NULL : &rec.limits;
    return own(set, account) ? WEIR_OK : weir_fail(why, WEIR_NOMEM, "no memory");
}

static bool fill(struct account_set *set, const struct account_set *old, const char *prefix,
                 const struct weir_disc_entry *entries, int n, uint64_t *n_bad)
{
    size_t prefix_len = strlen(prefix), i_old = 0;
    struct weir_arena scratch;
    weir_err err = WEIR_OK;

    weir_arena_init(&scratch, 0);
    for (int i = 0; i < n && err != WEIR_NOMEM; i++) {
        struct account_entry *account = &set->accounts[set->n];
        struct weir_why why = { 0 };
        struct weir_str id = { entries[i].key.ptr + prefix_len, entries[i].key.len - prefix_len };
        while (old && i_old < old->n && weir_str_cmp(old->accounts[i_old].id, id) < 0)
            i_old++;
        const struct account_entry *was = old && i_old < old->n ? &old->accounts[i_old] : NULL;
        if (was && was->revision == entries[i].revision && weir_str_cmp(was->id, id) == 0) {
            *account = *was;
            err = own(set, account) ? WEIR_OK : WEIR_NOMEM;
        } else {
            *account = (struct account_entry){ .id = id, .revision = entries[i].revision };
            err = read_account(set, &scratch, &entries[i], account, &why);
        }
        set->n += err == WEIR_OK;
        if (err != WEIR_OK && err != WEIR_NOMEM) {
            ++*n_bad;
            set_complain(&entries[i], &why);
        }
    }
    weir_arena_release(&scratch);
    return err != WEIR_NOMEM;
}

static bool index_accounts(struct account_set *set)
{
    size_t n_slots = 16;

    while (n_slots < 2 * set->n)
        n_slots *= 2;
    set->slots = weir_calloc(n_slots, sizeof *set->slots);
    if (!set->slots)
        return false;
    set->mask = n_slots - 1;
    for (size_t i = 0; i < set->n; i++) {
        size_t at = weir_hash64(set->accounts[i].id.ptr, set->accounts[i].id.len, 0) & set->mask;
        while (set->slots[at])
            at = (at + 1) & set->mask;
        set->slots[at] = (uint32_t)i + 1;
    }
    return true;
}

struct account_set *account_set_open(const struct account_set *old, const char *prefix,
                                     const struct weir_disc_entry *entries, int n, uint64_t *n_bad)
{
    struct account_set *set = weir_alloc0(sizeof *set);

    if (!set)
        return NULL;
    atomic_init(&set->refs, 1);
    weir_arena_init(&set->arena, 0);
    set->accounts = weir_calloc((size_t)n + 1, sizeof *set->accounts);
    if (set->accounts && fill(set, old, prefix, entries, n, n_bad) && index_accounts(set))
        return set;
    account_set_unref(set);
    return NULL;
}

const struct account_entry *account_set_find(const struct account_set *set, struct weir_str id)
{
    size_t at = weir_hash64(id.len ? id.ptr : "", id.len, 0) & set->mask;

    for (; set->slots[at]; at = (at + 1) & set->mask) {
        const struct account_entry *account = &set->accounts[set->slots[at] - 1];
        if (account->id.len == id.len && memcmp(account->id.ptr, id.ptr, id.len) == 0)
            return account;
    }
    return NULL;
}
