/* record.c - one table a record: each field's name, what it holds, and where it may stand. Reading and writing follow it. */
#include "router/tenancy/record.h"

#include <stddef.h>
#include <string.h>

#include "router/tenancy/record_int.h"

enum {
    STORED = 1, /* in the record, in this order */
    PATCH = 2,  /* in what the admin API takes */
    BOTH = STORED | PATCH,
    ALWAYS = 4, /* written whatever it is */
    NEEDED = 8, /* a stored record without it is none */
};

struct field {
    const char *name;
    enum value_kind kind;
    int where;
    size_t at; /* in the struct */
};

struct weir_record_kind {
    const void *fresh; /* as _init leaves it */
    size_t size;
    const struct field *fields; /* up to one without a name */
};

static const struct weir_account_record fresh_account = { .tier = 1 };
static const struct weir_key_record fresh_key;
static const struct weir_model_record fresh_model = { .size = WEIR_SIZE_LARGE, .is_public = true };

#define AT(member) offsetof(struct weir_account_record, member)
static const struct field account_fields[] = {
    { "displayName", VALUE_LABEL, BOTH, AT(display_name) },
    { "email", VALUE_LABEL, BOTH, AT(email) },
    { "createTime", VALUE_TIME, STORED, AT(created_s) },
    { "updateTime", VALUE_TIME, STORED, AT(updated_s) },
    { "suspendState", VALUE_SUSPEND, STORED | ALWAYS, AT(suspend) },
    { "spendTier", VALUE_TIER, BOTH | ALWAYS, AT(tier) },
    { "hasPaymentMethod", VALUE_BOOL, BOTH | ALWAYS, AT(has_payment_method) },
    { "unlimited", VALUE_BOOL, BOTH, AT(unlimited) },
    { "limitPolicy", VALUE_POLICY, BOTH, AT(policy) },
    { "limits", VALUE_LIMITS, BOTH, AT(limits) },
    { "models", VALUE_STRS, BOTH, AT(models) },
    { NULL, VALUE_LABEL, 0, 0 },
};
#undef AT

#define AT(member) offsetof(struct weir_key_record, member)
static const struct field key_fields[] = {
    { "account", VALUE_LABEL, STORED | ALWAYS | NEEDED, AT(account) },
    { "name", VALUE_LABEL, STORED | ALWAYS, AT(name) },
    { "displayName", VALUE_LABEL, PATCH, AT(name) },
    { "prefix", VALUE_LABEL, STORED, AT(prefix) },
    { "created", VALUE_SECONDS, STORED, AT(created_s) },
    { "expires", VALUE_SECONDS, STORED, AT(expires_s) },
    { "expireTime", VALUE_TIME, PATCH, AT(expires_s) },
    { "key", VALUE_SECRET, PATCH, AT(secret) },
    { NULL, VALUE_LABEL, 0, 0 },
};
#undef AT

#define AT(member) offsetof(struct weir_model_record, member)
static const struct field model_fields[] = {
    { "deployment", VALUE_DEPLOYMENT, BOTH | ALWAYS, AT(deployment) },
    { "displayName", VALUE_LABEL, BOTH, AT(display_name) },
    { "createTime", VALUE_TIME, STORED, AT(created_s) },
    { "updateTime", VALUE_TIME, STORED, AT(updated_s) },
    { "sizeClass", VALUE_SIZE, BOTH | ALWAYS, AT(size) },
    { "limitPolicy", VALUE_POLICY, BOTH, AT(policy) },
    { "contextLength", VALUE_COUNT, BOTH | ALWAYS, AT(context_length) },
    { "deprecationDate", VALUE_TIME, BOTH, AT(deprecated_s) },
    { "public", VALUE_BOOL, BOTH | ALWAYS, AT(is_public) },
    { "needsPaymentMethod", VALUE_BOOL, BOTH | ALWAYS, AT(needs_payment_method) },
    { "accounts", VALUE_STRS, BOTH, AT(accounts) },
    { NULL, VALUE_LABEL, 0, 0 },
};
#undef AT

const struct weir_record_kind weir_account_kind = { &fresh_account, sizeof fresh_account, account_fields };
const struct weir_record_kind weir_key_kind = { &fresh_key, sizeof fresh_key, key_fields };
const struct weir_record_kind weir_model_kind = { &fresh_model, sizeof fresh_model, model_fields };

/* ---- ids ---- */
weir_err weir_account_id_check(struct weir_str id, struct weir_why *why)
{
    bool ok = id.len >= 1 && id.len <= WEIR_ACCOUNT_ID_MAX;

    for (size_t i = 0; i < id.len && ok; i++)
        ok = (id.ptr[i] >= 'a' && id.ptr[i] <= 'z') || (id.ptr[i] >= '0' && id.ptr[i] <= '9') ||
             id.ptr[i] == '-';
    return ok ? WEIR_OK
              : weir_fail_param(why, "accountId", WEIR_INVALID, "accountId: 1 to %d of a-z, 0-9 and -",
                                WEIR_ACCOUNT_ID_MAX);
}

weir_err weir_model_id_check(struct weir_str id, struct weir_why *why)
{
    bool ok = id.len >= 1 && id.len <= WEIR_MODEL_ID_MAX;

    for (size_t i = 0; i < id.len && ok; i++)
        ok = id.ptr[i] > ' ' && id.ptr[i] < 0x7f;
    return ok ? WEIR_OK
              : weir_fail_param(why, "modelId", WEIR_INVALID, "modelId: 1 to %d visible ASCII characters",
                                WEIR_MODEL_ID_MAX);
}

/* ---- reading and writing ---- */
void weir_record_init(const struct weir_record_kind *kind, void *rec)
{
    memcpy(rec, kind->fresh, kind->size);
}

static const struct field *find_field(const struct weir_record_kind *kind, struct weir_str name, int where)
{
    for (const struct field *f = kind->fields; f->name; f++)
        if (f->where & where && weir_str_eq(name, f->name))
            return f;
    return NULL;
}

static void check_needed(const struct weir_record_kind *kind, struct weir_json *j, const void *rec)
{
    for (const struct field *f = kind->fields; f->name; f++)
        if (f->where & NEEDED &&
            ((const struct weir_str *)(const void *)((const char *)rec + f->at))->len == 0)
            weir_json_fail_key(j, f->name, WEIR_INVALID, "the record has no %s", f->name);
}

weir_err weir_record_read(const struct weir_record_kind *kind, struct weir_str json, struct weir_arena *arena,
                          bool is_patch, void *rec, struct weir_why *why)
{
    struct weir_json j;
    struct weir_str name;

    weir_json_init(&j, json.ptr, json.len, arena);
    if (weir_json_object(&j)) {
        while (weir_json_key(&j, &name)) {
            const struct field *f = find_field(kind, name, is_patch ? PATCH : STORED);
            if (f)
                value_read(f->kind, &j, arena, (char *)rec + f->at);
            else if (is_patch) /* Weir's own, or a misspelling */
                weir_json_fail(&j, WEIR_INVALID, "`%.*s` is not a field that can be set",
                               (int)(name.len < 64 ? name.len : 64), name.ptr);
            else /* of a newer Weir */
                weir_json_skip(&j);
        }
        if (!is_patch)
            check_needed(kind, &j, rec);
    }
    return weir_json_end(&j, why);
}

void weir_record_write(const struct weir_record_kind *kind, struct weir_buf *out, const void *rec)
{
    struct weir_jw w;

    weir_jw_init(&w, out);
    weir_jw_object(&w);
    for (const struct field *f = kind->fields; f->name; f++)
        if (f->where & STORED)
            value_write(f->kind, &w, f->name, (const char *)rec + f->at, (f->where & ALWAYS) != 0);
    weir_jw_object_end(&w);
}
