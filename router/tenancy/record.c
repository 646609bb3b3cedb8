/* record.c - records as JSON, both ways. A reader is a chain of keys; a field's rule stands beside its name. */
#include "router/tenancy/record.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/json.h"

static const struct suspend_info {
    const char *name, *text;
} suspends[] = {
#define SUSPEND_ROW(name, text) { #name, text },
    WEIR_SUSPEND_STATES(SUSPEND_ROW)
};
static const char *const policy_names[] = { "INHERIT", "REFUSE", "DEPRIORITIZE" };
static const char *const size_names[] = { "LARGE", "MEDIUM", "SMALL" };
static const char *const meter_names[WEIR_OVERRIDE_METERS] = { "tokensPrompt", "tokensCacheAdjustedPrompt",
                                                               "tokensGenerated" };

const char *weir_suspend_name(enum weir_suspend state)
{
    return suspends[state].name;
}

const char *weir_suspend_text(enum weir_suspend state)
{
    return suspends[state].text;
}

/* ---- times ---- */
void weir_time_format(uint64_t unix_s, char ret[WEIR_TIME_TEXT])
{
    time_t when = (time_t)unix_s;
    struct tm tm;

    if (!gmtime_r(&when, &tm) || strftime(ret, WEIR_TIME_TEXT, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
        snprintf(ret, WEIR_TIME_TEXT, "9999-12-31T23:59:59Z");
}

bool weir_time_parse(struct weir_str text, uint64_t *ret_unix_s)
{
    char copy[WEIR_TIME_TEXT], zone = 'Z', separator = 'T';
    struct tm tm = { 0 };
    int n = 0;

    if (text.len >= sizeof copy)
        return false;
    memcpy(copy, text.ptr ? text.ptr : "", text.len);
    copy[text.len] = '\0';
    int got = sscanf(copy, "%4d-%2d-%2d%n%c%2d:%2d:%2d%n%c%n", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &n,
                     &separator, &tm.tm_hour, &tm.tm_min, &tm.tm_sec, &n, &zone, &n);
    if ((got != 3 && got != 7 && got != 8) || (size_t)n != text.len || zone != 'Z' ||
        (separator != 'T' && separator != ' '))
        return false;
    struct tm wanted = tm;
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    time_t when = timegm(&tm);
    /* timegm takes February 30 for March 2: what comes back must be what was said. */
    if (when < 0 || tm.tm_mday != wanted.tm_mday || tm.tm_mon + 1 != wanted.tm_mon ||
        tm.tm_hour != wanted.tm_hour || tm.tm_min != wanted.tm_min || tm.tm_sec != wanted.tm_sec)
        return false;
    *ret_unix_s = (uint64_t)when;
    return true;
}

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

/* ---- fields ---- */
static void read_label(struct weir_json *j, struct weir_str *to)
{
    struct weir_str text;

    if (!weir_json_string(j, &text))
        return;
    if (text.len > WEIR_LABEL_MAX || memchr(text.ptr ? text.ptr : "", 0, text.len))
        weir_json_fail(j, WEIR_INVALID, "at most %d bytes, no NUL", WEIR_LABEL_MAX);
    else
        *to = text;
}

static void read_time(struct weir_json *j, uint64_t *to)
{
    struct weir_str text;

    if (weir_json_peek(j) == WEIR_JSON_NULL) {
        weir_json_null(j);
        *to = 0;
    } else if (weir_json_peek(j) == WEIR_JSON_NUMBER) { /* seconds since 1970 */
        weir_json_u64(j, to);
    } else if (weir_json_string(j, &text) && text.len == 0) {
        *to = 0;
    } else if (weir_json_ok(j) && !weir_time_parse(text, to)) {
        weir_json_fail(j, WEIR_INVALID, "not a time like 2026-11-21 or 2026-11-21T07:40:00Z");
    }
}

/* One of n names; its number. */
static uint32_t read_name(struct weir_json *j, const char *const *names, size_t stride, uint32_t n,
                          uint32_t before)
{
    struct weir_str text;
    char all[200] = "";

    if (!weir_json_string(j, &text))
        return before;
    for (uint32_t i = 0; i < n; i++) {
        const char *name = *(const char *const *)(const void *)((const char *)names + i * stride);
        if (weir_str_eq(text, name))
            return i;
        size_t len = strlen(all);
        snprintf(all + len, sizeof all - len, "%s%s", i ? ", " : "", name);
    }
    weir_json_fail(j, WEIR_INVALID, "must be one of %s", all);
    return before;
}

static void read_u32(struct weir_json *j, uint32_t min, uint32_t max, uint32_t *to)
{
    uint64_t n;

    if (!weir_json_u64(j, &n))
        return;
    if (n < min || n > max)
        weir_json_fail(j, WEIR_INVALID, "must be from %u to %u", min, max);
    else
        *to = (uint32_t)n;
}

static void read_strs(struct weir_json *j, struct weir_arena *arena, struct weir_strs *to)
{
    struct weir_str items[WEIR_ALLOWLIST_MAX], text;
    uint32_t n = 0;

    if (!weir_json_array(j))
        return;
    while (weir_json_next(j)) {
        if (!weir_json_string(j, &text))
            return;
        if (n == WEIR_ALLOWLIST_MAX || text.len == 0 || text.len > WEIR_MODEL_ID_MAX) {
            weir_json_fail(j, WEIR_INVALID, "at most %d names of 1 to %d bytes", WEIR_ALLOWLIST_MAX,
                           WEIR_MODEL_ID_MAX);
            return;
        }
        items[n++] = text;
    }
    if (!weir_json_ok(j))
        return;
    struct weir_str *copy = weir_arena_alloc(arena, (n + 1) * sizeof *copy);
    if (!copy) {
        weir_json_fail(j, WEIR_NOMEM, "no memory");
        return;
    }
    memcpy(copy, items, n * sizeof *copy);
    *to = (struct weir_strs){ copy, n };
}

#define LIMIT_MAX (1ull << 50) /* a minute; far beyond any machine, and sums of it stay in 64 bits */

static void read_limit(struct weir_json *j, uint64_t *to)
{
    uint64_t n;

    if (!weir_json_u64(j, &n))
        return;
    if (n > LIMIT_MAX)
        weir_json_fail(j, WEIR_INVALID, "must be at most %llu", LIMIT_MAX);
    else
        *to = n;
}

static void read_meter(struct weir_json *j, uint64_t *start, uint64_t *max)
{
    struct weir_str key;

    if (!weir_json_object(j))
        return;
    while (weir_json_key(j, &key)) {
        if (weir_str_eq(key, "start"))
            read_limit(j, start);
        else if (weir_str_eq(key, "max"))
            read_limit(j, max);
        else
            weir_json_fail(j, WEIR_INVALID, "unknown; there are start and max");
    }
    if (weir_json_ok(j) && *max && *start > *max)
        weir_json_fail(j, WEIR_INVALID, "start is over max");
}

static void read_limits(struct weir_json *j, struct weir_limit_overrides *to)
{
    struct weir_str key;

    if (!weir_json_object(j))
        return;
    while (weir_json_key(j, &key)) {
        int i = 0;
        while (i < WEIR_OVERRIDE_METERS && !weir_str_eq(key, meter_names[i]))
            i++;
        if (i < WEIR_OVERRIDE_METERS)
            read_meter(j, &to->meter[i].start, &to->meter[i].max);
        else if (weir_str_eq(key, "requestsPerMinute"))
            read_limit(j, &to->requests_per_minute);
        else if (weir_str_eq(key, "dailyTokens"))
            read_limit(j, &to->daily_tokens);
        else
            weir_json_fail(j, WEIR_INVALID, "unknown; there are requestsPerMinute, dailyTokens, %s, %s, %s",
                           meter_names[0], meter_names[1], meter_names[2]);
    }
}

/* A key that no branch took: Weir's own fields, or a misspelling. A record of a newer Weir is read all the same. */
static void read_other(struct weir_json *j, struct weir_str key, bool is_patch)
{
    if (is_patch)
        weir_json_fail(j, WEIR_INVALID, "`%.*s` is not a field that can be set",
                       (int)(key.len < 64 ? key.len : 64), key.ptr);
    else
        weir_json_skip(j);
}

static uint32_t read_policy(struct weir_json *j, uint32_t before)
{
    return read_name(j, policy_names, sizeof *policy_names, 3, before);
}

/* ---- accounts ---- */
void weir_account_record_init(struct weir_account_record *rec)
{
    *rec = (struct weir_account_record){ .tier = 1 };
}

static bool read_own_account(struct weir_json *j, struct weir_str key, struct weir_account_record *rec)
{
    if (weir_str_eq(key, "suspendState"))
        rec->suspend = (enum weir_suspend)read_name(j, &suspends[0].name, sizeof *suspends,
                                                    WEIR_SUSPEND_COUNT, rec->suspend);
    else if (weir_str_eq(key, "createTime"))
        read_time(j, &rec->created_s);
    else if (weir_str_eq(key, "updateTime"))
        read_time(j, &rec->updated_s);
    else
        return false;
    return true;
}

weir_err weir_account_record_read(struct weir_str json, struct weir_arena *arena, bool is_patch,
                                  struct weir_account_record *rec, struct weir_why *why)
{
    struct weir_json j;
    struct weir_str key;

    weir_json_init(&j, json.ptr, json.len, arena);
    if (weir_json_object(&j))
        while (weir_json_key(&j, &key)) {
            if (weir_str_eq(key, "displayName"))
                read_label(&j, &rec->display_name);
            else if (weir_str_eq(key, "email"))
                read_label(&j, &rec->email);
            else if (weir_str_eq(key, "spendTier"))
                read_u32(&j, 1, WEIR_TIERS, &rec->tier);
            else if (weir_str_eq(key, "hasPaymentMethod"))
                weir_json_bool(&j, &rec->has_payment_method);
            else if (weir_str_eq(key, "unlimited"))
                weir_json_bool(&j, &rec->unlimited);
            else if (weir_str_eq(key, "limitPolicy"))
                rec->policy = (enum weir_limit_policy)read_policy(&j, rec->policy);
            else if (weir_str_eq(key, "limits"))
                read_limits(&j, &rec->limits);
            else if (weir_str_eq(key, "models"))
                read_strs(&j, arena, &rec->models);
            else if (is_patch || !read_own_account(&j, key, rec))
                read_other(&j, key, is_patch);
        }
    return weir_json_end(&j, why);
}

static void put_str(struct weir_jw *w, const char *key, struct weir_str value)
{
    weir_jw_key(w, key);
    weir_jw_str(w, value);
}

static void put_u64(struct weir_jw *w, const char *key, uint64_t value)
{
    weir_jw_key(w, key);
    weir_jw_u64(w, value);
}

static void put_bool(struct weir_jw *w, const char *key, bool value)
{
    weir_jw_key(w, key);
    weir_jw_bool(w, value);
}

static void put_time(struct weir_jw *w, const char *key, uint64_t unix_s)
{
    char text[WEIR_TIME_TEXT];

    if (unix_s == 0)
        return;
    weir_time_format(unix_s, text);
    weir_jw_key(w, key);
    weir_jw_cstr(w, text);
}

static void put_strs(struct weir_jw *w, const char *key, struct weir_strs strs)
{
    if (strs.n == 0)
        return;
    weir_jw_key(w, key);
    weir_jw_array(w);
    for (uint32_t i = 0; i < strs.n; i++)
        weir_jw_str(w, strs.items[i]);
    weir_jw_array_end(w);
}

static void write_limits(struct weir_jw *w, const struct weir_limit_overrides *limits)
{
    static const struct weir_limit_overrides none;

    if (memcmp(limits, &none, sizeof none) == 0)
        return;
    weir_jw_key(w, "limits");
    weir_jw_object(w);
    if (limits->requests_per_minute)
        put_u64(w, "requestsPerMinute", limits->requests_per_minute);
    if (limits->daily_tokens)
        put_u64(w, "dailyTokens", limits->daily_tokens);
    for (int i = 0; i < WEIR_OVERRIDE_METERS; i++) {
        if (!limits->meter[i].start && !limits->meter[i].max)
            continue;
        weir_jw_key(w, meter_names[i]);
        weir_jw_object(w);
        if (limits->meter[i].start)
            put_u64(w, "start", limits->meter[i].start);
        if (limits->meter[i].max)
            put_u64(w, "max", limits->meter[i].max);
        weir_jw_object_end(w);
    }
    weir_jw_object_end(w);
}

void weir_account_record_write(struct weir_buf *out, const struct weir_account_record *rec)
{
    struct weir_jw w;

    weir_jw_init(&w, out);
    weir_jw_object(&w);
    if (rec->display_name.len)
        put_str(&w, "displayName", rec->display_name);
    if (rec->email.len)
        put_str(&w, "email", rec->email);
    put_time(&w, "createTime", rec->created_s);
    put_time(&w, "updateTime", rec->updated_s);
    put_str(&w, "suspendState", weir_str(suspends[rec->suspend].name));
    put_u64(&w, "spendTier", rec->tier);
    put_bool(&w, "hasPaymentMethod", rec->has_payment_method);
    if (rec->unlimited)
        put_bool(&w, "unlimited", true);
    if (rec->policy != WEIR_POLICY_INHERIT)
        put_str(&w, "limitPolicy", weir_str(policy_names[rec->policy]));
    write_limits(&w, &rec->limits);
    put_strs(&w, "models", rec->models);
    weir_jw_object_end(&w);
}

/* ---- keys ---- */
void weir_key_record_init(struct weir_key_record *rec)
{
    *rec = (struct weir_key_record){ .created_s = 0 };
}

weir_err weir_key_record_read(struct weir_str json, struct weir_arena *arena, bool is_patch,
                              struct weir_key_record *rec, struct weir_why *why)
{
    struct weir_json j;
    struct weir_str key;

    weir_json_init(&j, json.ptr, json.len, arena);
    if (weir_json_object(&j)) {
        while (weir_json_key(&j, &key)) {
            if (weir_str_eq(key, is_patch ? "displayName" : "name"))
                read_label(&j, &rec->name);
            else if (weir_str_eq(key, is_patch ? "expireTime" : "expires"))
                read_time(&j, &rec->expires_s);
            else if (is_patch && weir_str_eq(key, "key"))
                weir_json_string(&j, &rec->secret);
            else if (!is_patch && weir_str_eq(key, "account"))
                read_label(&j, &rec->account);
            else if (!is_patch && weir_str_eq(key, "prefix"))
                read_label(&j, &rec->prefix);
            else if (!is_patch && weir_str_eq(key, "created"))
                read_time(&j, &rec->created_s);
            else
                read_other(&j, key, is_patch);
        }
        if (!is_patch && rec->account.len == 0)
            weir_json_fail_key(&j, "account", WEIR_INVALID, "the key has no account");
    }
    return weir_json_end(&j, why);
}

void weir_key_record_write(struct weir_buf *out, const struct weir_key_record *rec)
{
    struct weir_jw w;

    weir_jw_init(&w, out);
    weir_jw_object(&w);
    put_str(&w, "account", rec->account);
    put_str(&w, "name", rec->name);
    if (rec->prefix.len)
        put_str(&w, "prefix", rec->prefix);
    if (rec->created_s)
        put_u64(&w, "created", rec->created_s);
    if (rec->expires_s)
        put_u64(&w, "expires", rec->expires_s);
    weir_jw_object_end(&w);
}

/* ---- models ---- */
void weir_model_record_init(struct weir_model_record *rec)
{
    *rec = (struct weir_model_record){ .size = WEIR_SIZE_LARGE, .is_public = true };
}

static bool read_own_model(struct weir_json *j, struct weir_str key, struct weir_model_record *rec)
{
    if (weir_str_eq(key, "createTime"))
        read_time(j, &rec->created_s);
    else if (weir_str_eq(key, "updateTime"))
        read_time(j, &rec->updated_s);
    else
        return false;
    return true;
}

static void read_deployment(struct weir_json *j, struct weir_str *to)
{
    struct weir_str text;

    if (weir_json_string(j, &text) && weir_model_id_check(text, NULL) != WEIR_OK)
        weir_json_fail(j, WEIR_INVALID, "1 to %d visible ASCII characters", WEIR_MODEL_ID_MAX);
    else if (weir_json_ok(j))
        *to = text;
}

weir_err weir_model_record_read(struct weir_str json, struct weir_arena *arena, bool is_patch,
                                struct weir_model_record *rec, struct weir_why *why)
{
    struct weir_json j;
    struct weir_str key;

    weir_json_init(&j, json.ptr, json.len, arena);
    if (weir_json_object(&j))
        while (weir_json_key(&j, &key)) {
            if (weir_str_eq(key, "deployment"))
                read_deployment(&j, &rec->deployment);
            else if (weir_str_eq(key, "displayName"))
                read_label(&j, &rec->display_name);
            else if (weir_str_eq(key, "sizeClass"))
                rec->size = (enum weir_size_class)read_name(&j, size_names, sizeof *size_names, 3, rec->size);
            else if (weir_str_eq(key, "limitPolicy"))
                rec->policy = (enum weir_limit_policy)read_policy(&j, rec->policy);
            else if (weir_str_eq(key, "contextLength"))
                read_u32(&j, 0, UINT32_MAX, &rec->context_length);
            else if (weir_str_eq(key, "deprecationDate"))
                read_time(&j, &rec->deprecated_s);
            else if (weir_str_eq(key, "public"))
                weir_json_bool(&j, &rec->is_public);
            else if (weir_str_eq(key, "needsPaymentMethod"))
                weir_json_bool(&j, &rec->needs_payment_method);
            else if (weir_str_eq(key, "accounts"))
                read_strs(&j, arena, &rec->accounts);
            else if (is_patch || !read_own_model(&j, key, rec))
                read_other(&j, key, is_patch);
        }
    return weir_json_end(&j, why);
}

void weir_model_record_write(struct weir_buf *out, const struct weir_model_record *rec)
{
    struct weir_jw w;

    weir_jw_init(&w, out);
    weir_jw_object(&w);
    put_str(&w, "deployment", rec->deployment);
    if (rec->display_name.len)
        put_str(&w, "displayName", rec->display_name);
    put_time(&w, "createTime", rec->created_s);
    put_time(&w, "updateTime", rec->updated_s);
    put_str(&w, "sizeClass", weir_str(size_names[rec->size]));
    if (rec->policy != WEIR_POLICY_INHERIT)
        put_str(&w, "limitPolicy", weir_str(policy_names[rec->policy]));
    put_u64(&w, "contextLength", rec->context_length);
    put_time(&w, "deprecationDate", rec->deprecated_s);
    put_bool(&w, "public", rec->is_public);
    put_bool(&w, "needsPaymentMethod", rec->needs_payment_method);
    put_strs(&w, "accounts", rec->accounts);
    weir_jw_object_end(&w);
}
