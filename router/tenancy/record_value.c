/* record_value.c - the values of records as JSON, both ways: each kind's reader stands beside its writer. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "router/tenancy/record_int.h"

#define TIME_MAX 253402300799ull /* the last second of the year 9999: later ones have no text */

static const char *const suspend_names[] = {
#define SUSPEND_NAME(name, text) #name,
    WEIR_SUSPEND_STATES(SUSPEND_NAME)
};
static const char *const suspend_texts[] = {
#define SUSPEND_TEXT(name, text) text,
    WEIR_SUSPEND_STATES(SUSPEND_TEXT)
};
static const char *const policy_names[] = { "INHERIT", "REFUSE", "DEPRIORITIZE" };
static const char *const size_names[] = { "LARGE", "MEDIUM", "SMALL" };
static const char *const meter_names[WEIR_OVERRIDE_METERS] = { "tokensPrompt", "tokensCacheAdjustedPrompt",
                                                               "tokensGenerated" };

const char *weir_suspend_name(enum weir_suspend state)
{
    return suspend_names[state];
}

const char *weir_suspend_text(enum weir_suspend state)
{
    return suspend_texts[state];
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

static void read_time(struct weir_json *j, uint64_t *to)
{
    struct weir_str text;
    uint64_t s = 0;

    if (weir_json_peek(j) == WEIR_JSON_NULL) {
        weir_json_null(j);
    } else if (weir_json_peek(j) == WEIR_JSON_NUMBER) {
        if (weir_json_u64(j, &s) && s > TIME_MAX)
            weir_json_fail(j, WEIR_INVALID, "seconds since 1970, at most %llu", TIME_MAX);
    } else if (weir_json_string(j, &text) && text.len > 0 && !weir_time_parse(text, &s)) {
        weir_json_fail(j, WEIR_INVALID, "not a time like 2026-11-21 or 2026-11-21T07:40:00Z");
    }
    if (weir_json_ok(j))
        *to = s;
}

static void write_time(struct weir_jw *w, uint64_t unix_s)
{
    char text[WEIR_TIME_TEXT];

    weir_time_format(unix_s, text);
    weir_jw_cstr(w, text);
}

/* ---- text ---- */
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

static void read_deployment(struct weir_json *j, struct weir_str *to)
{
    struct weir_str text;

    if (weir_json_string(j, &text) && weir_model_id_check(text, NULL) != WEIR_OK)
        weir_json_fail(j, WEIR_INVALID, "1 to %d visible ASCII characters", WEIR_MODEL_ID_MAX);
    else if (weir_json_ok(j))
        *to = text;
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

static void write_strs(struct weir_jw *w, const struct weir_strs *strs)
{
    weir_jw_array(w);
    for (uint32_t i = 0; i < strs->n; i++)
        weir_jw_str(w, strs->items[i]);
    weir_jw_array_end(w);
}

/* ---- numbers and names ---- */
/* Kinds that are one of some names. Their enums are as wide as a uint32_t, and begin with what goes without saying. */
static const struct names {
    const char *const *of;
    uint32_t n;
} names[] = {
    [VALUE_SUSPEND] = { suspend_names, WEIR_SUSPEND_COUNT },
    [VALUE_POLICY] = { policy_names, 3 },
    [VALUE_SIZE] = { size_names, 3 },
};
_Static_assert(sizeof(enum weir_suspend) == sizeof(uint32_t) &&
                   sizeof(enum weir_limit_policy) == sizeof(uint32_t) &&
                   sizeof(enum weir_size_class) == sizeof(uint32_t),
               "an enum is read and written as a number");

static void read_name(struct weir_json *j, const struct names *known, uint32_t *to)
{
    struct weir_str text;
    char all[200] = "";

    if (!weir_json_string(j, &text))
        return;
    for (uint32_t i = 0; i < known->n; i++) {
        if (weir_str_eq(text, known->of[i])) {
            *to = i;
            return;
        }
        size_t len = strlen(all);
        snprintf(all + len, sizeof all - len, "%s%s", i ? ", " : "", known->of[i]);
    }
    weir_json_fail(j, WEIR_INVALID, "must be one of %s", all);
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

/* ---- an account's own numbers ---- */
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

static void put_limit(struct weir_jw *w, const char *key, uint64_t limit)
{
    if (limit == 0)
        return;
    weir_jw_key(w, key);
    weir_jw_u64(w, limit);
}

static bool is_no_limits(const struct weir_limit_overrides *limits)
{
    static const struct weir_limit_overrides none;

    return memcmp(limits, &none, sizeof none) == 0;
}

static void write_limits(struct weir_jw *w, const struct weir_limit_overrides *limits)
{
    weir_jw_object(w);
    put_limit(w, "requestsPerMinute", limits->requests_per_minute);
    put_limit(w, "dailyTokens", limits->daily_tokens);
    for (int i = 0; i < WEIR_OVERRIDE_METERS; i++) {
        if (!limits->meter[i].start && !limits->meter[i].max)
            continue;
        weir_jw_key(w, meter_names[i]);
        weir_jw_object(w);
        put_limit(w, "start", limits->meter[i].start);
        put_limit(w, "max", limits->meter[i].max);
        weir_jw_object_end(w);
    }
    weir_jw_object_end(w);
}

/* ---- all kinds ---- */
void value_read(enum value_kind kind, struct weir_json *j, struct weir_arena *arena, void *to)
{
    switch (kind) {
    case VALUE_LABEL:
        read_label(j, to);
        break;
    case VALUE_SECRET:
        weir_json_string(j, to);
        break;
    case VALUE_DEPLOYMENT:
        read_deployment(j, to);
        break;
    case VALUE_TIME:
    case VALUE_SECONDS:
        read_time(j, to);
        break;
    case VALUE_BOOL:
        weir_json_bool(j, to);
        break;
    case VALUE_COUNT:
        read_u32(j, 0, UINT32_MAX, to);
        break;
    case VALUE_TIER:
        read_u32(j, 1, WEIR_TIERS, to);
        break;
    case VALUE_SUSPEND:
    case VALUE_POLICY:
    case VALUE_SIZE:
        read_name(j, &names[kind], to);
        break;
    case VALUE_LIMITS:
        read_limits(j, to);
        break;
    case VALUE_STRS:
        read_strs(j, arena, to);
        break;
    }
}

static bool says_nothing(enum value_kind kind, const void *from)
{
    switch (kind) {
    case VALUE_LABEL:
    case VALUE_DEPLOYMENT:
        return ((const struct weir_str *)from)->len == 0;
    case VALUE_SECRET:
        return true;
    case VALUE_TIME:
    case VALUE_SECONDS:
        return *(const uint64_t *)from == 0;
    case VALUE_BOOL:
        return !*(const bool *)from;
    case VALUE_COUNT:
    case VALUE_TIER:
    case VALUE_SUSPEND:
    case VALUE_POLICY:
    case VALUE_SIZE:
        return *(const uint32_t *)from == 0;
    case VALUE_LIMITS:
        return is_no_limits(from);
    case VALUE_STRS:
        return ((const struct weir_strs *)from)->n == 0;
    }
    return true;
}

void value_write(enum value_kind kind, struct weir_jw *w, const char *name, const void *from, bool always)
{
    if (says_nothing(kind, from) && !always)
        return;
    weir_jw_key(w, name);
    switch (kind) {
    case VALUE_LABEL:
    case VALUE_SECRET:
    case VALUE_DEPLOYMENT:
        weir_jw_str(w, *(const struct weir_str *)from);
        break;
    case VALUE_TIME:
        write_time(w, *(const uint64_t *)from);
        break;
    case VALUE_SECONDS:
        weir_jw_u64(w, *(const uint64_t *)from);
        break;
    case VALUE_BOOL:
        weir_jw_bool(w, *(const bool *)from);
        break;
    case VALUE_COUNT:
    case VALUE_TIER:
        weir_jw_u64(w, *(const uint32_t *)from);
        break;
    case VALUE_SUSPEND:
    case VALUE_POLICY:
    case VALUE_SIZE:
        weir_jw_cstr(w, names[kind].of[*(const uint32_t *)from]);
        break;
    case VALUE_LIMITS:
        write_limits(w, from);
        break;
    case VALUE_STRS:
        write_strs(w, from);
        break;
    }
}
