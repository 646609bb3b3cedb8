/* limit_table.c - the table as JSON, both ways, and the record that routers follow.
 *
 *   [W1] The limits never see a table that weir_limit_table_check refuses. */
#include "router/tenancy/limit_table.h"

#include <string.h>

#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"

#define NUMBER_MAX 1e15
#define SECONDS_MAX (7 * 86400) /* of a hold or a rest: a week */
#define RAMP_POINTS 4

static const char *const meter_names[WEIR_ADAPTIVE] = { "tokensPrompt", "tokensCacheAdjustedPrompt",
                                                        "tokensGenerated" };
static const char *const size_names[WEIR_SIZES] = { "SMALL", "MEDIUM", "LARGE" };

/* ---- reading ---- */
static void read_number(struct weir_json *j, bool zero_is_fine, double *to)
{
    double x;

    if (!weir_json_f64(j, &x))
        return;
    if (x > NUMBER_MAX || x < 0 || (x <= 0 && !zero_is_fine))
        weir_json_fail(j, WEIR_INVALID, "must be %s 0 and at most %.0f", zero_is_fine ? "at least" : "above",
                       NUMBER_MAX);
    else
        *to = x;
}

static void read_seconds(struct weir_json *j, uint32_t *to)
{
    uint64_t n;

    if (!weir_json_u64(j, &n))
        return;
    if (n < 1 || n > SECONDS_MAX)
        weir_json_fail(j, WEIR_INVALID, "must be from 1 to %d", SECONDS_MAX);
    else
        *to = (uint32_t)n;
}

/* All of a row's numbers: a list has no names by which one of them could be changed. */
static void read_list(struct weir_json *j, bool zero_is_fine, double *to, int n)
{
    int i = 0;

    if (!weir_json_array(j))
        return;
    while (weir_json_next(j)) {
        if (i == n)
            weir_json_fail(j, WEIR_INVALID, "must have %d numbers", n);
        else
            read_number(j, zero_is_fine, &to[i++]);
    }
    if (weir_json_ok(j) && i < n)
        weir_json_fail(j, WEIR_INVALID, "must have %d numbers", n);
}

/* The number of the name that comes next; -1 when it is none of them. */
static int name_index(struct weir_json *j, struct weir_str key, const char *const names[3])
{
    for (int i = 0; i < 3; i++)
        if (weir_str_eq(key, names[i]))
            return i;
    weir_json_fail(j, WEIR_INVALID, "unknown; there are %s, %s, %s", names[0], names[1], names[2]);
    return -1;
}

static void read_named(struct weir_json *j, const char *const names[3], bool zero_is_fine, double to[3])
{
    struct weir_str key;
    int i;

    if (!weir_json_object(j))
        return;
    while (weir_json_key(j, &key))
        if ((i = name_index(j, key, names)) >= 0)
            read_number(j, zero_is_fine, &to[i]);
}

static void read_ceilings(struct weir_json *j, double to[WEIR_SIZES][WEIR_ADAPTIVE])
{
    struct weir_str key;
    int i;

    if (!weir_json_object(j))
        return;
    while (weir_json_key(j, &key))
        if ((i = name_index(j, key, size_names)) >= 0)
            read_named(j, meter_names, /* zero_is_fine= */ false, to[i]);
}

static void read_field(struct weir_json *j, struct weir_str key, bool is_patch, struct weir_limit_table *t)
{
    if (weir_str_eq(key, "start"))
        read_named(j, meter_names, /* zero_is_fine= */ false, t->start);
    else if (weir_str_eq(key, "ceiling"))
        read_ceilings(j, t->ceiling);
    else if (weir_str_eq(key, "tierFactor"))
        read_list(j, /* zero_is_fine= */ false, t->tier_factor, WEIR_SPEND_TIERS);
    else if (weir_str_eq(key, "dayTokens"))
        read_named(j, size_names, /* zero_is_fine= */ true, t->day_tokens);
    else if (weir_str_eq(key, "requests"))
        read_number(j, /* zero_is_fine= */ false, &t->requests);
    else if (weir_str_eq(key, "requestsUnpaid"))
        read_number(j, /* zero_is_fine= */ false, &t->requests_unpaid);
    else if (weir_str_eq(key, "burstSeconds"))
        read_number(j, /* zero_is_fine= */ false, &t->burst_s);
    else if (weir_str_eq(key, "requestsBurstSeconds"))
        read_number(j, /* zero_is_fine= */ false, &t->requests_burst_s);
    else if (weir_str_eq(key, "rampMinutes"))
        read_list(j, /* zero_is_fine= */ true, t->ramp_minutes, RAMP_POINTS);
    else if (weir_str_eq(key, "rampFactor"))
        read_list(j, /* zero_is_fine= */ false, t->ramp_factor, RAMP_POINTS);
    else if (weir_str_eq(key, "runShare"))
        read_number(j, /* zero_is_fine= */ false, &t->run_share);
    else if (weir_str_eq(key, "holdShare"))
        read_number(j, /* zero_is_fine= */ false, &t->hold_share);
    else if (weir_str_eq(key, "holdTtlSeconds"))
        read_seconds(j, &t->hold_ttl_s);
    else if (weir_str_eq(key, "keyRestSeconds"))
        read_seconds(j, &t->key_rest_s);
    else if (is_patch)
        weir_json_fail(j, WEIR_INVALID, "`%.*s` is not a field that can be set",
                       (int)(key.len < 64 ? key.len : 64), key.ptr);
    else /* of a newer Weir */
        weir_json_skip(j);
}

/* What fields mean to each other. */
static weir_err check_ramp(const char *field, const double *row, double first, struct weir_why *why)
{
    bool rises = row[0] >= first && row[0] <= first;

    for (int i = 1; i < RAMP_POINTS; i++)
        rises = rises && row[i] > row[i - 1];
    return rises ? WEIR_OK
                 : weir_fail_param(why, field, WEIR_INVALID, "%s: begins with %.0f and rises", field, first);
}

weir_err weir_limit_table_read(struct weir_str json, struct weir_arena *arena, bool is_patch,
                               struct weir_limit_table *table, struct weir_why *why)
{
    struct weir_limit_table t = *table;
    struct weir_json j;
    struct weir_str key;

    weir_json_init(&j, json.ptr, json.len, arena);
    if (weir_json_object(&j))
        while (weir_json_key(&j, &key))
            read_field(&j, key, is_patch, &t);
    weir_err err = weir_json_end(&j, why);
    if (err == WEIR_OK)
        err = check_ramp("rampMinutes", t.ramp_minutes, 0, why);
    if (err == WEIR_OK)
        err = check_ramp("rampFactor", t.ramp_factor, 1, why);
    if (err == WEIR_OK && t.run_share < t.hold_share)
        err = weir_fail_param(why, "runShare", WEIR_INVALID, "runShare: must be holdShare or more");
    if (err == WEIR_OK)
        err = weir_limit_table_check(&t, why); /* [W1] */
    if (err == WEIR_OK)
        *table = t;
    return err;
}

/* ---- writing ---- */
static void put_f64(struct weir_jw *w, const char *key, double x)
{
    weir_jw_key(w, key);
    weir_jw_f64(w, x);
}

static void put_list(struct weir_jw *w, const char *key, const double *row, int n)
{
    weir_jw_key(w, key);
    weir_jw_array(w);
    for (int i = 0; i < n; i++)
        weir_jw_f64(w, row[i]);
    weir_jw_array_end(w);
}

static void put_named(struct weir_jw *w, const char *key, const char *const names[3], const double row[3])
{
    weir_jw_key(w, key);
    weir_jw_object(w);
    for (int i = 0; i < 3; i++)
        put_f64(w, names[i], row[i]);
    weir_jw_object_end(w);
}

void weir_limit_table_write(struct weir_buf *out, const struct weir_limit_table *t)
{
    struct weir_jw w;

    weir_jw_init(&w, out);
    weir_jw_object(&w);
    put_named(&w, "start", meter_names, t->start);
    weir_jw_key(&w, "ceiling");
    weir_jw_object(&w);
    for (int i = 0; i < WEIR_SIZES; i++)
        put_named(&w, size_names[i], meter_names, t->ceiling[i]);
    weir_jw_object_end(&w);
    put_list(&w, "tierFactor", t->tier_factor, WEIR_SPEND_TIERS);
    put_named(&w, "dayTokens", size_names, t->day_tokens);
    put_f64(&w, "requests", t->requests);
    put_f64(&w, "requestsUnpaid", t->requests_unpaid);
    put_f64(&w, "burstSeconds", t->burst_s);
    put_f64(&w, "requestsBurstSeconds", t->requests_burst_s);
    put_list(&w, "rampMinutes", t->ramp_minutes, RAMP_POINTS);
    put_list(&w, "rampFactor", t->ramp_factor, RAMP_POINTS);
    put_f64(&w, "runShare", t->run_share);
    put_f64(&w, "holdShare", t->hold_share);
    put_f64(&w, "holdTtlSeconds", t->hold_ttl_s);
    put_f64(&w, "keyRestSeconds", t->key_rest_s);
    weir_jw_object_end(&w);
}

/* ---- the record, as snapshots bring it ---- */
struct weir_table_watch {
    struct weir_limits *limits;
    char *key;
    int64_t revision; /* of the record that was read last, good or bad; 0: none */
    struct weir_counter *bad;
};

weir_err weir_table_watch_open(const char *prefix, struct weir_limits *limits, struct weir_table_watch **ret,
                               struct weir_why *why)
{
    struct weir_table_watch *watch = weir_alloc0(sizeof *watch);
    size_t len = strlen(prefix);

    if (watch)
        watch->key = weir_alloc(len + sizeof WEIR_LIMIT_TABLE_KEY);
    if (!watch || !watch->key) {
        weir_table_watch_close(watch);
        return weir_fail(why, WEIR_NOMEM, "no memory for the table of limits");
    }
    memcpy(watch->key, prefix, len);
    memcpy(watch->key + len, WEIR_LIMIT_TABLE_KEY, sizeof WEIR_LIMIT_TABLE_KEY);
    watch->limits = limits;
    watch->bad = weir_counter("weir_limit_table_bad_total", "",
                              "tables of limits that were not good and were ignored");
    *ret = watch;
    return WEIR_OK;
}

void weir_table_watch_close(struct weir_table_watch *watch)
{
    if (!watch)
        return;
    weir_free(watch->key);
    weir_free(watch);
}

void weir_table_watch_on_snapshot(struct weir_table_watch *watch, const struct weir_disc_snapshot *snap)
{
    const struct weir_disc_entry *entry = weir_disc_find(snap, weir_str(watch->key));
    int64_t revision = entry ? entry->revision : 0;
    struct weir_limit_table table;
    struct weir_arena arena;
    struct weir_why why = { 0 };

    if (revision == watch->revision)
        return;
    watch->revision = revision;
    weir_limit_table_init(&table);
    weir_arena_init(&arena, /* limit_bytes= */ 0);
    if (entry &&
        weir_limit_table_read(entry->value, &arena, /* is_patch= */ false, &table, &why) != WEIR_OK) {
        weir_counter_add(watch->bad, 1);
        WEIR_WARN("bad_limit_table", "key=%s field=%s why=%s", watch->key, why.param, why.text);
    } else {
        weir_limits_set_table(watch->limits, &table);
        WEIR_INFO("limit_table", "revision=%lld", (long long)revision);
    }
    weir_arena_release(&arena);
}
