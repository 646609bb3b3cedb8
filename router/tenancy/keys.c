/* keys.c - three immutable sets, each replaced whole by the snapshot that changed one of its records.
 *
 *   [T1] A key that is gone, expired or whose account is suspended is refused from the snapshot on that says so.
 *   [T2] A model that an account may not see is answered like one that does not exist.
 *
 * Threads: on_snapshot on the discovery thread; checks anywhere; a short lock guards the pointers, not the searches. */
#include "router/tenancy/keys.h"

#include <pthread.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "router/tenancy/sets_int.h"

#define KEY_BYTES_MAX 512

struct part { /* of the snapshot; the discovery thread's: to tell whether a snapshot changed it */
    char *prefix;
    int n_entries;
    int64_t revision_sum;
    struct weir_gauge *known;
};

struct weir_keys {
    struct part keys_part, accounts_part, models_part;
    bool accounts_required;
    pthread_mutex_t lock; /* guards the three pointers */
    struct key_set *keys; /* NULL before the first snapshot, like the others */
    struct account_set *accounts;
    struct model_set *models;
    struct weir_counter *bad;
};

static bool part_open(struct part *part, const char *prefix, const char *name, const char *metric,
                      const char *help)
{
    size_t len = strlen(prefix) + strlen(name) + 1;

    part->prefix = weir_alloc(len);
    if (!part->prefix)
        return false;
    memcpy(part->prefix, prefix, strlen(prefix));
    memcpy(part->prefix + strlen(prefix), name, strlen(name) + 1);
    part->n_entries = -1;
    part->known = weir_gauge(metric, "", help);
    return true;
}

weir_err weir_keys_open(const char *prefix, struct weir_keys **ret, struct weir_why *why)
{
    struct weir_keys *keys = weir_alloc0(sizeof *keys);

    if (!keys)
        return weir_fail(why, WEIR_NOMEM, "no memory for the keys");
    pthread_mutex_init(&keys->lock, NULL);
    if (!part_open(&keys->keys_part, prefix, "keys/", "weir_api_keys", "API keys known") ||
        !part_open(&keys->accounts_part, prefix, "accounts/", "weir_accounts", "accounts with a record") ||
        !part_open(&keys->models_part, prefix, "models/", "weir_model_records", "models with a record")) {
        weir_keys_close(keys);
        return weir_fail(why, WEIR_NOMEM, "no memory for the keys");
    }
    keys->bad = weir_counter("weir_bad_tenancy_records_total", "",
                             "records of keys, accounts and models that could not be read");
    *ret = keys;
    return WEIR_OK;
}

void weir_keys_close(struct weir_keys *keys)
{
    if (!keys)
        return;
    key_set_unref(keys->keys);
    account_set_unref(keys->accounts);
    model_set_unref(keys->models);
    pthread_mutex_destroy(&keys->lock);
    weir_free(keys->keys_part.prefix);
    weir_free(keys->accounts_part.prefix);
    weir_free(keys->models_part.prefix);
    weir_free(keys);
}

void weir_keys_set_accounts_required(struct weir_keys *keys, bool required)
{
    keys->accounts_required = required;
}

/* ---- snapshots ---- */
struct range {
    const struct weir_disc_entry *entries;
    int n;
    int64_t sum;
};

/* Revisions rise with every change, so the same count and sum mean the same records. */
static bool part_changed(const struct part *part, const struct weir_disc_snapshot *snap, struct range *ret)
{
    ret->n = weir_disc_prefix(snap, part->prefix, &ret->entries);
    ret->sum = 0;
    for (int i = 0; i < ret->n; i++)
        ret->sum += ret->entries[i].revision;
    return ret->n != part->n_entries || ret->sum != part->revision_sum;
}

static void part_took(struct part *part, const struct range *range, size_t n_known)
{
    part->n_entries = range->n;
    part->revision_sum = range->sum;
    weir_gauge_set(part->known, (int64_t)n_known);
}

/* With no memory the old set serves on, and the next snapshot tries again. */
#define TAKE(member, part, open_call, unref)                                                                 \
    do {                                                                                                     \
        void *set_ = (open_call);                                                                            \
        if (set_) {                                                                                          \
            pthread_mutex_lock(&keys->lock);                                                                 \
            void *old_ = keys->member;                                                                       \
            keys->member = set_;                                                                             \
            pthread_mutex_unlock(&keys->lock);                                                               \
            part_took(&keys->part, &range, keys->member->n);                                                 \
            unref(old_);                                                                                     \
        }                                                                                                    \
    } while (0)

void weir_keys_on_snapshot(struct weir_keys *keys, const struct weir_disc_snapshot *snap)
{
    struct range range;
    uint64_t n_bad = 0;

    /* Accounts first: a key that comes with its account finds it. */
    if (part_changed(&keys->accounts_part, snap, &range))
        TAKE(accounts, accounts_part,
             account_set_open(keys->accounts, keys->accounts_part.prefix, range.entries, range.n, &n_bad),
             account_set_unref);
    if (part_changed(&keys->models_part, snap, &range))
        TAKE(models, models_part, model_set_open(keys->models_part.prefix, range.entries, range.n, &n_bad),
             model_set_unref);
    if (part_changed(&keys->keys_part, snap, &range))
        TAKE(keys, keys_part,
             key_set_open(keys->keys, keys->keys_part.prefix, range.entries, range.n, &n_bad), key_set_unref);
    weir_counter_add(keys->bad, n_bad);
}

/* ---- the present sets, with a reference ---- */
#define CURRENT(keys_, member, out)                                                                          \
    do {                                                                                                     \
        pthread_mutex_lock(&(keys_)->lock);                                                                  \
        (out) = (keys_)->member;                                                                             \
        if (out)                                                                                             \
            atomic_fetch_add_explicit(&(out)->refs, 1, memory_order_relaxed);                                \
        pthread_mutex_unlock(&(keys_)->lock);                                                                \
    } while (0)

bool weir_keys_ready(struct weir_keys *keys)
{
    pthread_mutex_lock(&keys->lock);
    bool ready = keys->keys && keys->accounts && keys->models;
    pthread_mutex_unlock(&keys->lock);
    return ready;
}

/* ---- who asks ---- */
static weir_err find_key(struct weir_keys *keys, struct weir_str secret, struct weir_arena *arena,
                         struct weir_str *ret_account, struct weir_why *why)
{
    uint8_t digest[32];
    struct key_set *set;
    weir_err err = WEIR_OK;

    CURRENT(keys, keys, set);
    if (!set)
        return weir_fail(why, WEIR_UNAVAILABLE, "the router has not read its keys yet");
    weir_sha256(secret.ptr, secret.len, digest);
    const struct key_entry *key = key_set_find(set, digest);
    if (!key)
        err = weir_fail(why, WEIR_UNAUTHENTICATED, "the API key is not known");
    else if (key->expires_s && key->expires_s <= weir_wall_ns() / WEIR_S)
        err = weir_fail(why, WEIR_UNAUTHENTICATED, "the API key has expired"); /* [T1] */
    if (err == WEIR_OK) {
        char *account = weir_arena_strndup(arena, key->account, strlen(key->account));
        if (account)
            *ret_account = weir_str(account);
        else
            err = weir_fail(why, WEIR_NOMEM, "no memory for the account");
    }
    key_set_unref(set);
    return err;
}

static weir_err check_account(struct weir_keys *keys, struct weir_str id, struct weir_why *why)
{
    struct account_set *set;
    weir_err err = WEIR_OK;

    CURRENT(keys, accounts, set);
    if (!set)
        return weir_fail(why, WEIR_UNAVAILABLE, "the router has not read its accounts yet");
    const struct account_entry *account = account_set_find(set, id);
    if (!account && keys->accounts_required)
        err = weir_fail(why, WEIR_UNAUTHENTICATED, "the API key's account does not exist");
    else if (account && account->suspend != WEIR_SUSPEND_UNSUSPENDED)
        err = weir_fail(why, WEIR_SUSPENDED, "the account is suspended: %s; see its billing page",
                        weir_suspend_text((enum weir_suspend)account->suspend)); /* [T1] */
    account_set_unref(set);
    return err;
}

weir_err weir_keys_check(struct weir_keys *keys, struct weir_str authorization, struct weir_arena *arena,
                         struct weir_str *ret_account, struct weir_why *why)
{
    static const struct weir_str scheme = { "bearer ", 7 };

    if (authorization.len == 0)
        return weir_fail(why, WEIR_UNAUTHENTICATED, "no API key: send `Authorization: Bearer <key>`");
    if (authorization.len <= scheme.len || strncasecmp(authorization.ptr, scheme.ptr, scheme.len) != 0 ||
        authorization.len > KEY_BYTES_MAX)
        return weir_fail(why, WEIR_UNAUTHENTICATED, "malformed Authorization: send `Bearer <key>`");
    struct weir_str secret = { authorization.ptr + scheme.len, authorization.len - scheme.len }, account;
    weir_err err = find_key(keys, secret, arena, &account, why);
    if (err == WEIR_OK)
        err = check_account(keys, account, why);
    if (err == WEIR_OK)
        *ret_account = account;
    return err;
}

bool weir_keys_account(struct weir_keys *keys, struct weir_str id, struct weir_account *ret)
{
    struct account_set *set;

    *ret = (struct weir_account){ .unlimited = true, .tier = WEIR_TIERS, .has_payment_method = true };
    CURRENT(keys, accounts, set);
    const struct account_entry *account = set ? account_set_find(set, id) : NULL;
    if (account) {
        *ret = (struct weir_account){ .known = true,
                                      .unlimited = account->unlimited,
                                      .has_payment_method = account->has_payment_method,
                                      .tier = account->tier,
                                      .suspend = (enum weir_suspend)account->suspend,
                                      .policy = (enum weir_limit_policy)account->policy };
        if (account->limits)
            ret->limits = *account->limits;
    }
    account_set_unref(set);
    return ret->known;
}

/* ---- and for what ---- */
static bool has_str(const struct weir_strs *strs, struct weir_str s)
{
    for (uint32_t i = 0; i < strs->n; i++)
        if (weir_str_cmp(strs->items[i], s) == 0)
            return true;
    return false;
}

static bool may_see(const struct weir_model_record *model, struct weir_str account, uint64_t now_s)
{
    return (!model->deprecated_s || now_s < model->deprecated_s) &&
           (model->is_public || has_str(&model->accounts, account));
}

static weir_err no_model(struct weir_str name, struct weir_why *why)
{
    return weir_fail_param(why, "model", WEIR_NOMODEL,
                           "the model `%.*s` does not exist, is not served, or is not for this account",
                           (int)(name.len < 128 ? name.len : 128), name.ptr); /* [T2] */
}

/* The rules of the account: its own list, its payment method. */
static weir_err may_use(struct weir_keys *keys, struct weir_str id, struct weir_str name,
                        const struct weir_model_record *model, struct weir_why *why)
{
    struct account_set *set;
    weir_err err = WEIR_OK;

    CURRENT(keys, accounts, set);
    const struct account_entry *account = set ? account_set_find(set, id) : NULL;
    if (account && account->models.n && !has_str(&account->models, name))
        err = weir_fail_param(why, "model", WEIR_FORBIDDEN,
                              "the account's policy does not allow the model `%.*s`",
                              (int)(name.len < 128 ? name.len : 128), name.ptr);
    else if (account && model && model->needs_payment_method && !account->has_payment_method)
        err = weir_fail_param(why, "model", WEIR_PAYMENT,
                              "the model `%.*s` needs an account with a payment method",
                              (int)(name.len < 128 ? name.len : 128), name.ptr);
    account_set_unref(set);
    return err;
}

weir_err weir_keys_model(struct weir_keys *keys, struct weir_str account, struct weir_str name,
                         struct weir_arena *arena, struct weir_model *ret, struct weir_why *why)
{
    struct weir_model found = { .deployment = name, .size = WEIR_SIZE_LARGE };
    struct model_set *set;
    weir_err err = WEIR_OK;

    CURRENT(keys, models, set);
    const struct weir_model_record *model = set ? model_set_find(set, name) : NULL;
    if (model ? !may_see(model, account, weir_wall_ns() / WEIR_S) : set && model_set_is_deployment(set, name))
        err = no_model(name, why);
    if (err == WEIR_OK)
        err = may_use(keys, account, name, model, why);
    if (err == WEIR_OK && model)
        found =
            (struct weir_model){ model->deployment, model->size, model->policy, model->context_length, true };
    if (err == WEIR_OK) {
        found.deployment.ptr = weir_arena_strndup(arena, found.deployment.ptr, found.deployment.len);
        if (!found.deployment.ptr)
            err = weir_fail(why, WEIR_NOMEM, "no memory for the request");
        else
            *ret = found;
    }
    model_set_unref(set);
    return err;
}

void weir_keys_models(struct weir_keys *keys, struct weir_str account,
                      void (*fn)(void *ctx, const struct weir_model_record *rec), void *ctx)
{
    struct model_set *set;

    CURRENT(keys, models, set);
    for (size_t i = 0; set && i < set->n; i++)
        if (may_see(&set->models[i], account, weir_wall_ns() / WEIR_S))
            fn(ctx, &set->models[i]);
    model_set_unref(set);
}
