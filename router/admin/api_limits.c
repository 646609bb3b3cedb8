/* api_limits.c - what the limits know of an account: for operators in full, and as the hosted service's
 * serverlessRateLimits. And the mesh: who is connected, and cuts for tests of partitions. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "router/admin/api_int.h"
#include "router/exchange/exchange.h"
#include "router/fabric/fleet.h"
#include "router/limits/limits.h"
#include "router/tenancy/keys.h"

#define PARTS_MAX 256
#define CUT_MAX 64

static const char *const meter_keys[WEIR_METERS] = {
    [WEIR_METER_PROMPT] = "TOKENS_PROMPT",       [WEIR_METER_UNCACHED] = "TOKENS_CACHE_ADJUSTED_PROMPT",
    [WEIR_METER_GENERATED] = "TOKENS_GENERATED", [WEIR_METER_DAY] = "TOKENS_DAY",
    [WEIR_METER_REQUESTS] = "REQUESTS",
};

static void put_f64(struct weir_jw *w, const char *key, double value)
{
    weir_jw_key(w, key);
    weir_jw_f64(w, value);
}

static void put_hex(struct weir_jw *w, const char *key, uint64_t value)
{
    char hex[17];

    snprintf(hex, sizeof hex, "%016llx", (unsigned long long)value);
    weir_jw_key(w, key);
    weir_jw_cstr(w, hex);
}

static void write_meters(struct weir_jw *w, const struct weir_limits_view *view)
{
    weir_jw_key(w, "meters");
    weir_jw_array(w);
    for (int i = 0; i < view->n_meters; i++) {
        weir_jw_object(w);
        weir_jw_key(w, "metric");
        weir_jw_cstr(w, meter_keys[view->meters[i].meter]);
        put_f64(w, "limit", view->meters[i].limit);
        put_f64(w, "lower", view->meters[i].lower);
        put_f64(w, "upper", view->meters[i].upper);
        put_f64(w, "usedLastMinute", view->meters[i].used_last_minute);
        put_f64(w, "level", view->meters[i].level);
        put_f64(w, "held", view->meters[i].held);
        put_f64(w, "burst", view->meters[i].burst);
        put_f64(w, "rampClockSeconds", view->meters[i].clock_s);
        weir_jw_object_end(w);
    }
    weir_jw_array_end(w);
}

static void write_counts(struct weir_jw *w, const char *key, const uint64_t counts[WEIR_ADAPTIVE])
{
    weir_jw_key(w, key);
    weir_jw_array(w);
    for (int i = 0; i < WEIR_ADAPTIVE; i++)
        weir_jw_u64(w, counts[i]);
    weir_jw_array_end(w);
}

static void write_parts(struct weir_jw *w, const struct weir_limits_view *view,
                        const struct weir_limits_part *parts)
{
    weir_jw_key(w, "routers");
    weir_jw_array(w);
    for (int i = 0; i < view->n_parts; i++) {
        weir_jw_object(w);
        put_hex(w, "router", parts[i].router);
        write_counts(w, "used", parts[i].used);
        write_counts(w, "held", parts[i].held);
        put_f64(w, "demand", parts[i].demand);
        put_f64(w, "silentSeconds", (double)parts[i].silent_ns / 1e9);
        weir_jw_key(w, "gone");
        weir_jw_bool(w, parts[i].gone);
        weir_jw_object_end(w);
    }
    weir_jw_array_end(w);
}

static void write_refusal(struct weir_jw *w, const struct weir_limits_view *view)
{
    const struct weir_limits_verdict *last = &view->last_refusal;

    weir_jw_key(w, "lastRefusal");
    if (last->limit <= 0) { /* there was none */
        weir_jw_null(w);
        return;
    }
    weir_jw_object(w);
    weir_jw_key(w, "metric");
    weir_jw_cstr(w, meter_keys[last->meter]);
    put_f64(w, "limit", last->limit);
    put_f64(w, "used", last->used);
    put_f64(w, "burst", last->burst);
    put_f64(w, "asked", last->estimate);
    put_f64(w, "waitSeconds", (double)last->wait_ns / 1e9);
    put_f64(w, "secondsAgo", (double)view->last_refusal_ago_ns / 1e9);
    weir_jw_object_end(w);
}

/* ---- one key ---- */
struct look {
    struct api_job *job;
    struct weir_str account;
    struct weir_jw w;
    struct weir_limits_part *parts;
    bool as_series; /* rates */
};

/* Opens the answer's object. *ret: the query's one parameter, what to look at; empty: at all. */
static weir_err look_begin(struct look *look, struct api_job *job, struct weir_str account, const char *param,
                           struct weir_str *ret)
{
    if (!api_is(job, "GET"))
        return api_method_error(job, "GET");
    *look = (struct look){ .job = job, .account = account };
    look->parts = weir_arena_alloc0(&job->arena, PARTS_MAX * sizeof *look->parts);
    if (!look->parts)
        return weir_fail(&job->why, WEIR_NOMEM, "no memory");
    weir_err err = api_param(job, param, ret);
    if (err == WEIR_OK) {
        weir_jw_init(&look->w, &job->out);
        weir_jw_object(&look->w);
    }
    return err;
}

static void write_key(struct look *look, struct weir_str deployment)
{
    struct weir_limits_view view = { .found = false };

    weir_limits_show(api_opts(look->job)->limits, look->account, deployment, weir_now_ns(), &view,
                     look->parts, PARTS_MAX);
    if (!view.found)
        return;
    weir_jw_object(&look->w);
    weir_jw_key(&look->w, "deployment");
    weir_jw_str(&look->w, deployment);
    put_hex(&look->w, "owner", view.owner_id);
    weir_jw_key(&look->w, "isOwner");
    weir_jw_bool(&look->w, view.owner);
    write_meters(&look->w, &view);
    write_parts(&look->w, &view, look->parts);
    write_refusal(&look->w, &view);
    weir_jw_object_end(&look->w);
}

static void on_model(void *ctx, const struct weir_fleet_model *model)
{
    write_key(ctx, model->id);
}

/* The model's deployment, also when the account may not use it (now). */
static struct weir_str deployment_of(struct api_job *job, struct weir_str account, struct weir_str model)
{
    struct weir_model found;

    return weir_keys_model(api_opts(job)->keys, account, model, &job->arena, &found, NULL) == WEIR_OK
               ? found.deployment
               : model;
}

weir_err api_limits(struct api_job *job, struct weir_str account)
{
    struct look look;
    struct weir_str model;
    weir_err err = look_begin(&look, job, account, "model", &model);

    if (err != WEIR_OK)
        return err;
    weir_jw_key(&look.w, "account");
    weir_jw_str(&look.w, account);
    weir_jw_key(&look.w, "limits");
    weir_jw_array(&look.w);
    write_key(&look, (struct weir_str){ "", 0 }); /* requests */
    if (model.len)
        write_key(&look, deployment_of(job, account, model));
    else
        weir_fleet_models(api_opts(job)->fleet, on_model, &look);
    weir_jw_array_end(&look.w);
    weir_jw_object_end(&look.w);
    return WEIR_OK;
}

/* ---- the hosted service's shape ---- */
/* {"deployment","metric","effectiveLimit"}, or as a series of one point: {"labels":{...},"values":[...]}. */
static void write_rate(struct look *look, struct weir_str deployment, enum weir_meter meter, double a_second)
{
    char now[WEIR_TIME_TEXT];

    weir_jw_object(&look->w);
    if (look->as_series) {
        weir_jw_key(&look->w, "labels");
        weir_jw_object(&look->w);
    }
    weir_jw_key(&look->w, "deployment");
    weir_jw_str(&look->w, deployment);
    weir_jw_key(&look->w, "metric");
    weir_jw_cstr(&look->w, meter_keys[meter]);
    if (look->as_series) {
        weir_time_format(weir_wall_ns() / WEIR_S, now);
        weir_jw_object_end(&look->w);
        weir_jw_key(&look->w, "values");
        weir_jw_array(&look->w);
        weir_jw_object(&look->w);
        weir_jw_key(&look->w, "timestamp");
        weir_jw_cstr(&look->w, now);
        put_f64(&look->w, "value", a_second);
        weir_jw_object_end(&look->w);
        weir_jw_array_end(&look->w);
    } else {
        put_f64(&look->w, "effectiveLimit", a_second);
    }
    weir_jw_object_end(&look->w);
}

static void write_rates(struct look *look, struct weir_str deployment)
{
    struct weir_limits_view view = { .found = false };

    weir_limits_show(api_opts(look->job)->limits, look->account, deployment, weir_now_ns(), &view,
                     look->parts, PARTS_MAX);
    for (int i = 0; i < view.n_meters && view.found; i++)
        if (view.meters[i].meter <= WEIR_METER_GENERATED)
            write_rate(look, deployment, view.meters[i].meter, view.meters[i].limit / 60);
}

static void on_model_rates(void *ctx, const struct weir_fleet_model *model)
{
    write_rates(ctx, model->id);
}

static void write_rate_list(struct look *look, const char *name, struct weir_str deployment, bool as_series)
{
    look->as_series = as_series;
    weir_jw_key(&look->w, name);
    weir_jw_array(&look->w);
    if (deployment.len)
        write_rates(look, deployment);
    else
        weir_fleet_models(api_opts(look->job)->fleet, on_model_rates, look);
    weir_jw_array_end(&look->w);
}

weir_err api_rate_limits(struct api_job *job, struct weir_str account)
{
    struct look look;
    struct weir_str deployment;
    weir_err err = look_begin(&look, job, account, "deployment", &deployment);

    if (err != WEIR_OK)
        return err;
    write_rate_list(&look, "rateLimits", deployment, /* as_series= */ false);
    write_rate_list(&look, "series", deployment, /* as_series= */ true);
    weir_jw_object_end(&look.w);
    return WEIR_OK;
}

/* ---- the mesh ---- */
/* {"routers":["router-7"]}; "*" alone is everybody; none heals. */
static weir_err cut(struct api_job *job)
{
    struct weir_json j;
    struct weir_str key, ids[CUT_MAX];
    int n = 0;

    weir_json_init(&j, job->body.ptr, job->body.len, &job->arena);
    if (weir_json_object(&j))
        while (weir_json_key(&j, &key)) {
            if (!weir_str_eq(key, "routers"))
                weir_json_fail(&j, WEIR_INVALID, "there is only routers");
            else if (weir_json_array(&j))
                while (weir_json_next(&j)) {
                    if (n == CUT_MAX)
                        weir_json_fail(&j, WEIR_INVALID, "at most %d", CUT_MAX);
                    else
                        n += weir_json_string(&j, &ids[n]);
                }
        }
    weir_err err = weir_json_end(&j, &job->why);
    if (err == WEIR_OK)
        weir_exchange_cut(api_opts(job)->exchange, ids, n);
    return err;
}

weir_err api_mesh(struct api_job *job)
{
    weir_err err = WEIR_OK;

    if (weir_str_eq(job->verb, "cut"))
        err = api_is(job, "POST") ? cut(job) : api_method_error(job, "POST");
    else if (job->verb.len || !api_is(job, "GET"))
        err = api_method_error(job, "GET; POST as :cut");
    if (err == WEIR_OK) {
        weir_buf_adds(&job->out, "{\"peers\":");
        weir_exchange_describe(api_opts(job)->exchange, &job->out);
        weir_buf_addc(&job->out, '}');
    }
    return err;
}
