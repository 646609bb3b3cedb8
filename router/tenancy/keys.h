/* keys.h - who asks and for what: API keys, accounts and models, in memory, fed by discovery snapshots.
 *
 *     weir_keys_check(keys, header, arena, &account, &why)       the key is good, its account may ask: 401, 412
 *     weir_keys_account(keys, account, &ret)                     its tier, policy and numbers, for the limits
 *     weir_keys_model(keys, account, name, arena, &ret, &why)    what a model's name means to it: 402, 403, 404
 *
 * A key itself is never stored, logged or compared: only its SHA-256 is. Until the first snapshot no key is known
 * (WEIR_UNAVAILABLE); when discovery goes away the last good state stays. An account without a record is served without
 * limits, or refused when `accounts_required`; a model without a record is what a replica calls itself, of unknown size,
 * unless some record names it as its deployment: then its records are the only way to it.
 *
 * Threads: on_snapshot on the discovery thread; the rest anywhere, each a few hundred nanoseconds. */
#ifndef WEIR_ROUTER_TENANCY_KEYS_H
#define WEIR_ROUTER_TENANCY_KEYS_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "discovery/discovery.h"
#include "router/tenancy/record.h"

struct weir_keys;

struct weir_account { /* a copy; what the limits need to know */
    bool known;       /* there is a record; else served without limits */
    bool unlimited;
    bool has_payment_method;
    uint8_t tier; /* 1 to WEIR_TIERS */
    enum weir_suspend suspend;
    enum weir_limit_policy policy;
    struct weir_limit_overrides limits;
};

struct weir_model {
    struct weir_str deployment; /* in the arena */
    enum weir_size_class size;
    enum weir_limit_policy policy;
    uint32_t context_length; /* 0: not known here */
    bool has_record;
};

WEIR_MUST_CHECK weir_err weir_keys_open(const char *prefix, struct weir_keys **ret, struct weir_why *why);
void weir_keys_close(struct weir_keys *keys);
/* Before the first check: refuse keys whose account has no record. */
void weir_keys_set_accounts_required(struct weir_keys *keys, bool required);
/* The discovery thread; for weir_discovery_opts.on_snapshot. */
void weir_keys_on_snapshot(struct weir_keys *keys, const struct weir_disc_snapshot *snap);
/* `authorization`: the header's or metadata's whole value, "Bearer <key>". The account is copied to the
 * arena. WEIR_UNAUTHENTICATED: missing, malformed, unknown or expired. WEIR_SUSPENDED: its account is.
 * WEIR_UNAVAILABLE: no snapshot yet. WEIR_NOMEM. */
WEIR_MUST_CHECK weir_err weir_keys_check(struct weir_keys *keys, struct weir_str authorization,
                                         struct weir_arena *arena, struct weir_str *ret_account,
                                         struct weir_why *why);
/* False: there is no record; *ret is then an account without limits. */
bool weir_keys_account(struct weir_keys *keys, struct weir_str account, struct weir_account *ret);
/* WEIR_NOMODEL: it does not exist, is taken down, or the account may not see it (a client cannot tell which).
 * WEIR_FORBIDDEN: it is not on the account's own list. WEIR_PAYMENT: it needs a payment method. WEIR_NOMEM. */
WEIR_MUST_CHECK weir_err weir_keys_model(struct weir_keys *keys, struct weir_str account,
                                         struct weir_str name, struct weir_arena *arena,
                                         struct weir_model *ret, struct weir_why *why);
/* Calls fn for each model record that the account may see now; names are valid during the call. */
void weir_keys_models(struct weir_keys *keys, struct weir_str account,
                      void (*fn)(void *ctx, const struct weir_model_record *rec), void *ctx);
bool weir_keys_ready(struct weir_keys *keys);

#endif
