/* record.h - what the operator keeps of accounts, API keys and models: the JSON values below discovery's prefix,
 * which are also the resources of the admin API.
 *
 *   <prefix>accounts/<id>     struct weir_account_record      <prefix>keys/<sha256 hex>   struct weir_key_record
 *   <prefix>models/<id>       struct weir_model_record
 *
 * One table a record, which reader and writer follow. Reading goes over what the struct already holds: a field that the JSON lacks
 * keeps its value, so the same function reads a whole record (after _init) and a patch. Errors name the field. Strings
 * point into the JSON or the arena. Names of fields and states follow the hosted service's public API. No I/O, no clock.
 */
#ifndef WEIR_ROUTER_TENANCY_RECORD_H
#define WEIR_ROUTER_TENANCY_RECORD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"

#define WEIR_ACCOUNT_ID_MAX 128
#define WEIR_MODEL_ID_MAX 256
#define WEIR_LABEL_MAX 256    /* display names, e-mail addresses, key names */
#define WEIR_ALLOWLIST_MAX 64 /* models of an account, accounts of a model */
#define WEIR_TIERS 5          /* 1 to 4 by spend, 5 unlimited */
#define WEIR_KEY_ID_LEN 24    /* a key's public id: the first digits of its SHA-256 */

/* X(name, why a client may not spend) - the service's suspendState. */
#define WEIR_SUSPEND_STATES(X)                                                                               \
    X(UNSUSPENDED, "")                                                                                       \
    X(FAILED_PAYMENTS, "a payment failed")                                                                   \
    X(CREDIT_DEPLETED, "its credit is used up")                                                              \
    X(MONTHLY_SPEND_LIMIT_EXCEEDED, "its monthly spend limit is reached")                                    \
    X(BLOCKED_BY_ABUSE_RULE, "it is blocked")                                                                \
    X(SUSPENDED_BY_OPERATOR, "the operator suspended it")
enum weir_suspend {
#define WEIR_SUSPEND_ENUM(name, text) WEIR_SUSPEND_##name,
    WEIR_SUSPEND_STATES(WEIR_SUSPEND_ENUM)
#undef WEIR_SUSPEND_ENUM
        WEIR_SUSPEND_COUNT
};
const char *weir_suspend_name(enum weir_suspend state);
const char *weir_suspend_text(enum weir_suspend state);

/* What happens over a limit: refuse (429), or run last and say so. INHERIT: the account takes the fleet's, the model
 * the account's. */
enum weir_limit_policy { WEIR_POLICY_INHERIT, WEIR_POLICY_REFUSE, WEIR_POLICY_DEPRIORITIZE };

/* Of unknown size = large: the smallest ceilings. */
enum weir_size_class { WEIR_SIZE_LARGE, WEIR_SIZE_MEDIUM, WEIR_SIZE_SMALL };

/* Numbers of one account in the place of the table's; 0 = the table's. Tokens and requests a minute. */
enum { WEIR_OVERRIDE_PROMPT, WEIR_OVERRIDE_UNCACHED, WEIR_OVERRIDE_GENERATED, WEIR_OVERRIDE_METERS };
struct weir_limit_overrides {
    uint64_t requests_per_minute;
    uint64_t daily_tokens;
    struct {
        uint64_t start, max;
    } meter[WEIR_OVERRIDE_METERS];
};

struct weir_strs {
    struct weir_str *items;
    uint32_t n;
};

struct weir_account_record {
    struct weir_str id, display_name, email;
    enum weir_suspend suspend;
    uint32_t tier;
    bool has_payment_method;
    bool unlimited; /* no meters at all: the operator's own probes and benchmarks */
    enum weir_limit_policy policy;
    struct weir_limit_overrides limits;
    struct weir_strs models; /* may use these alone; empty = all */
    uint64_t created_s, updated_s;
};

struct weir_key_record {
    struct weir_str account, name, prefix; /* prefix: the key's first characters, to recognise it by */
    struct weir_str secret;                /* a patch's own key, to be hashed; never written */
    uint64_t created_s, expires_s;         /* 0 = not known; never */
};

struct weir_model_record {
    struct weir_str id;         /* what requests say */
    struct weir_str deployment; /* what replicas serve it as; meters count by it */
    struct weir_str display_name;
    enum weir_size_class size;
    enum weir_limit_policy policy;
    uint32_t context_length; /* tokens; 0 = as the replica says */
    uint64_t deprecated_s;   /* from this moment on the id is gone; 0 = never */
    bool is_public;          /* else only `accounts` see it */
    bool needs_payment_method;
    struct weir_strs accounts;
    uint64_t created_s, updated_s;
};

/* What the three have in common. Init: tier 1, no payment method; large, public. */
struct weir_record_kind;
extern const struct weir_record_kind weir_account_kind, weir_key_kind, weir_model_kind;
void weir_record_init(const struct weir_record_kind *kind, void *rec);
/* WEIR_INVALID: `why` names the field. With `is_patch` what only Weir may set (times, names, a suspension) is
 * refused, and so is a field that is not known. */
WEIR_MUST_CHECK weir_err weir_record_read(const struct weir_record_kind *kind, struct weir_str json,
                                          struct weir_arena *arena, bool is_patch, void *rec,
                                          struct weir_why *why);
void weir_record_write(const struct weir_record_kind *kind, struct weir_buf *out, const void *rec);

/* The same by name: weir_account_record_init, _read, _write, and those of keys and models. */
#define WEIR_RECORD(name)                                                                                    \
    static inline void weir_##name##_record_init(struct weir_##name##_record *rec)                           \
    {                                                                                                        \
        weir_record_init(&weir_##name##_kind, rec);                                                          \
    }                                                                                                        \
    WEIR_MUST_CHECK static inline weir_err weir_##name##_record_read(                                        \
        struct weir_str json, struct weir_arena *arena, bool is_patch, struct weir_##name##_record *rec,     \
        struct weir_why *why)                                                                                \
    {                                                                                                        \
        return weir_record_read(&weir_##name##_kind, json, arena, is_patch, rec, why);                       \
    }                                                                                                        \
    static inline void weir_##name##_record_write(struct weir_buf *out,                                      \
                                                  const struct weir_##name##_record *rec)                    \
    {                                                                                                        \
        weir_record_write(&weir_##name##_kind, out, rec);                                                    \
    }
WEIR_RECORD(account)
WEIR_RECORD(key)
WEIR_RECORD(model)
#undef WEIR_RECORD

/* Ids of accounts: [a-z0-9-], as in resource names; of models: visible ASCII, slashes too. */
WEIR_MUST_CHECK weir_err weir_account_id_check(struct weir_str id, struct weir_why *why);
WEIR_MUST_CHECK weir_err weir_model_id_check(struct weir_str id, struct weir_why *why);

/* RFC 3339 in UTC ("2026-11-21T07:40:00Z"), 21 bytes with the NUL. Reading also takes "2026-11-21" (its first
 * moment) and a space for the T. */
#define WEIR_TIME_TEXT 21
void weir_time_format(uint64_t unix_s, char ret[WEIR_TIME_TEXT]);
bool weir_time_parse(struct weir_str text, uint64_t *ret_unix_s);

#endif
