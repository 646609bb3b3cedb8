/* gate.c - the model's name becomes a deployment, the account's record becomes numbers, and limits/ decides.
 *
 * The answer keeps the model's name that the client gave: it took its copy when the request came. */
#include "router/call/gate.h"

#include <string.h>

#include "base/clock.h"
#include "router/call/limit_note.h"
#include "router/call/shedding.h"
#include "router/tenancy/keys.h"

#define PRIORITY_OVER_LIMIT 2

static const char *const params[WEIR_METERS] = {
    [WEIR_METER_PROMPT] = "tokens_prompt",       [WEIR_METER_UNCACHED] = "tokens_cache_adjusted_prompt",
    [WEIR_METER_GENERATED] = "tokens_generated", [WEIR_METER_DAY] = "tokens_day",
    [WEIR_METER_REQUESTS] = "requests",
};

void weir_gate_numbers(const struct weir_account *account, enum weir_size_class size,
                       struct weir_limits_account *ret)
{
    static const uint32_t sizes[] = { [WEIR_SIZE_SMALL] = 0, [WEIR_SIZE_MEDIUM] = 1, [WEIR_SIZE_LARGE] = 2 };

    *ret = (struct weir_limits_account){
        .tier = account->tier > 0 ? account->tier - 1u : 0,
        .size = sizes[size],
        .pays = account->has_payment_method,
        .requests = (double)account->limits.requests_per_minute,
        .day_tokens = (double)account->limits.daily_tokens,
    };
    for (int i = 0; i < WEIR_ADAPTIVE; i++) { /* the meters of both are in one order */
        ret->start[i] = (double)account->limits.meter[i].start;
        ret->upper[i] = (double)account->limits.meter[i].max;
    }
}

/* The model's policy, else the account's, else the fleet's. */
static bool is_legacy(const struct weir_gate *gate, const struct weir_model *model,
                      const struct weir_account *account)
{
    enum weir_limit_policy policy = model->policy != WEIR_POLICY_INHERIT ? model->policy : account->policy;

    return policy == WEIR_POLICY_INHERIT ? gate->legacy : policy == WEIR_POLICY_DEPRIORITIZE;
}

static weir_err refuse(const struct weir_limits_verdict *verdict, struct weir_str deployment,
                       uint32_t *ret_retry_ms, struct weir_why *why)
{
    uint64_t wait_ms = (verdict->wait_ns + WEIR_MS - 1) / WEIR_MS;
    bool is_day = verdict->meter == WEIR_METER_DAY;

    *ret_retry_ms = wait_ms == 0 ? 1 : wait_ms > UINT32_MAX ? UINT32_MAX : (uint32_t)wait_ms;
    return weir_fail_param(
        why, params[verdict->meter], WEIR_LIMITED,
        "over the account's limit of %s%s%.*s: %.0f a %s, of which at most %.0f at once; %.0f are used or "
        "held and "
        "this request needs %.0f; try again in %.3f s",
        weir_meter_name(verdict->meter), verdict->meter == WEIR_METER_REQUESTS ? "" : " for ",
        verdict->meter == WEIR_METER_REQUESTS ? 0 : (int)(deployment.len < 64 ? deployment.len : 64),
        deployment.ptr, verdict->limit, is_day ? "day" : "minute", verdict->burst, verdict->used,
        verdict->estimate, (double)*ret_retry_ms / 1e3);
}

static weir_err reserve(const struct weir_gate *gate, struct weir_request *req,
                        const struct weir_model *model, const struct weir_account *account, uint64_t now_ns,
                        struct weir_gate_pass *pass, uint32_t *ret_retry_ms, struct weir_why *why)
{
    struct weir_limits_account numbers;
    struct weir_limits_verdict verdict;
    size_t bytes = weir__v1__generate_request__get_packed_size(req->msg);
    bool has_max = req->msg->has_max_tokens_case == WEIR__V1__GENERATE_REQUEST__HAS_MAX_TOKENS_MAX_TOKENS;

    weir_gate_numbers(account, model->size, &numbers);
    numbers.legacy = is_legacy(gate, model, account);
    struct weir_limits_ask ask = { .account = req->account,
                                   .deployment = model->deployment,
                                   .numbers = &numbers,
                                   .call_id = req->call_id,
                                   .prompt_bytes = bytes > UINT32_MAX ? UINT32_MAX : (uint32_t)bytes,
                                   .max_tokens = has_max ? req->msg->max_tokens : 0,
                                   .n = req->msg->n ? req->msg->n : 1 };
    weir_err err = weir_limits_reserve(gate->limits, &ask, now_ns, &verdict);
    if (err != WEIR_OK)
        return weir_fail(why, err, "no memory for the request's meters");
    if (req->note)
        *req->note = (struct weir_limit_note){ true, numbers.legacy, verdict };
    if (!verdict.admitted)
        return refuse(&verdict, model->deployment, ret_retry_ms, why);
    pass->metered = true;
    if (verdict.over_limit)
        req->priority = PRIORITY_OVER_LIMIT;
    return WEIR_OK;
}

weir_err weir_gate_enter(const struct weir_gate *gate, struct weir_request *req, uint64_t now_ns,
                         struct weir_gate_pass *ret, uint32_t *ret_retry_ms, struct weir_why *why)
{
    struct weir_account account;
    struct weir_model model;
    weir_err err =
        weir_keys_model(gate->keys, req->account, weir_str(req->msg->model), &req->arena, &model, why);

    *ret = (struct weir_gate_pass){ .metered = false };
    *ret_retry_ms = 0;
    if (err != WEIR_OK)
        return err;
    req->msg->model = (char *)(uintptr_t)model.deployment.ptr; /* NUL-terminated, the arena's */
    weir_keys_account(gate->keys, req->account, &account);
    if (!gate->limits || account.unlimited)
        return WEIR_OK;
    return reserve(gate, req, &model, &account, now_ns, ret, ret_retry_ms, why);
}

void weir_gate_progress(const struct weir_gate *gate, struct weir_gate_pass *pass,
                        const struct weir_request *req, uint32_t prompt_tokens, uint32_t cached_tokens,
                        uint64_t generated_tokens, uint64_t now_ns)
{
    if (!pass->metered || generated_tokens <= pass->n_charged)
        return;
    if (!pass->started)
        weir_limits_started(gate->limits, req->account, req->call_id, prompt_tokens, cached_tokens, now_ns);
    pass->started = true;
    weir_limits_charge(gate->limits, req->account, req->call_id,
                       (uint32_t)(generated_tokens - pass->n_charged), now_ns);
    pass->n_charged = generated_tokens;
}

void weir_gate_leave(const struct weir_gate *gate, struct weir_gate_pass *pass,
                     const struct weir_request *req, uint32_t prompt_tokens, uint32_t cached_tokens,
                     uint32_t generated_tokens, uint64_t now_ns)
{
    if (!pass->metered)
        return;
    pass->metered = false;
    weir_limits_settle(gate->limits, req->account, req->call_id, prompt_tokens, cached_tokens,
                       generated_tokens, now_ns);
}

void weir_gate_shed(const struct weir_gate *gate, const struct weir_request *req, uint64_t now_ns)
{
    if (gate->shedding)
        weir_shedding_note(gate->shedding, weir_str(req->msg->model), now_ns);
}
