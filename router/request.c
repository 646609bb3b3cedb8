/* request.c - the request's memory and the one set of bounds for both APIs: see request.h.
 *   [Q1] A request that passes weir_request_check() keeps every bound, is UTF-8, and has only roles the
 * replica knows. [Q2] Of a refused one the field is named as REST spells it. */
#include "router/request.h"

#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/json.h"
#include "base/mem.h"
#include "router/request_int.h"

enum {
    MODEL_MAX = 256,
    STOPS_MAX = 4,
    STOP_MAX = 256,
    LABEL_MAX = 512, /* user, prompt_cache_key, session, isolation key */
    TOP_LOGPROBS_MAX = 5,
    TOP_K_MAX = 100,
    LOGIT_BIAS_MAX = 1024,
    TOKEN_ID_MAX = INT32_MAX, /* the replica knows its vocabulary */
    METADATA_MAX = 16,
    METADATA_KEY_MAX = 64,
    METADATA_VALUE_MAX = 512,
};

struct weir_request *weir_request_open(void)
{
    struct weir_request *req = weir_alloc0(sizeof *req);

    if (!req)
        return NULL;
    weir_arena_init(&req->arena, WEIR_REQUEST_ARENA_MAX);
    req->msg = weir_arena_alloc(&req->arena, sizeof *req->msg);
    req->n_forks = 1;
    if (!req->msg) {
        weir_request_close(req);
        return NULL;
    }
    weir__v1__generate_request__init(req->msg);
    req->priority = 1;
    return req;
}

struct weir_request *weir_request_fork(struct weir_request *req)
{
    struct weir_request *fork = weir_request_open();

    if (!fork)
        return NULL;
    struct weir_arena arena = fork->arena;
    Weir__V1__GenerateRequest *msg = fork->msg;
    *msg = *req->msg;
    *fork = *req;
    fork->arena = arena;
    fork->msg = msg;
    fork->n_forks = 1;
    fork->parent = req;
    memset(fork->call_id, 0, sizeof fork->call_id);
    req->n_forks++;
    return fork;
}

void weir_request_close(struct weir_request *req)
{
    while (req && --req->n_forks == 0) {
        struct weir_request *parent = req->parent;
        weir_arena_release(&req->arena);
        weir_free(req);
        req = parent;
    }
}

void weir_request_set_id(struct weir_request *req, struct weir_str from_client)
{
    size_t n = 0;

    for (size_t i = 0; i < from_client.len && n < WEIR_REQUEST_ID_MAX; i++) {
        char c = from_client.ptr[i];
        bool is_alnum = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
        if (is_alnum || c == '.' || c == '_' || c == ':' || c == '-')
            req->request_id[n++] = c;
    }
    req->request_id[n] = '\0';
    if (n == 0)
        weir_hex(req->call_id, sizeof req->call_id, req->request_id);
}

/* ---- the bounds ---- */
weir_err request_bad(struct weir_why *why, const char *param, const char *text)
{
    return weir_fail_param(why, param, WEIR_INVALID, "%s: %s", param, text); /* [Q2] */
}

weir_err request_check_text(const char *param, const char *text, size_t min, size_t max, struct weir_why *why)
{
    size_t len = text ? strlen(text) : 0;

    if (len < min && min == 1)
        return request_bad(why, param, "must not be empty");
    if (max > 0 && len > max)
        return weir_fail_param(why, param, WEIR_INVALID, "%s: at most %zu bytes, this has %zu", param, max,
                               len);
    if (!weir_utf8_valid(text ? text : "", len))
        return request_bad(why, param, "not valid UTF-8");
    return WEIR_OK;
}

static weir_err check_str(const char *param, struct weir_str s, struct weir_why *why)
{
    if (s.len > LABEL_MAX)
        return weir_fail_param(why, param, WEIR_INVALID, "%s: at most %d bytes, this has %zu", param,
                               LABEL_MAX, s.len);
    return WEIR_OK;
}

static weir_err check_ids(const Weir__V1__GenerateRequest *msg, struct weir_why *why)
{
    const Weir__V1__TokenIds *ids = msg->prompt_ids;

    if (!ids || ids->n_ids == 0)
        return request_bad(why, "prompt", "at least one token is needed");
    for (size_t i = 0; i < ids->n_ids; i++)
        if (ids->ids[i] > TOKEN_ID_MAX)
            return weir_fail_param(why, "prompt", WEIR_INVALID, "prompt: %u is not a token's id",
                                   ids->ids[i]);
    return WEIR_OK;
}

static weir_err check_input(struct weir_request *req, struct weir_why *why)
{
    switch (req->msg->input_case) {
    case WEIR__V1__GENERATE_REQUEST__INPUT_CHAT:
        return request_check_chat(req, why);
    case WEIR__V1__GENERATE_REQUEST__INPUT_PROMPT:
        return request_check_text("prompt", req->msg->prompt, 0, /* max= */ 0, why);
    case WEIR__V1__GENERATE_REQUEST__INPUT_PROMPT_IDS:
        return check_ids(req->msg, why);
    default:
        return request_bad(why, "messages", "messages or a prompt is needed");
    }
}

/* ---- numbers ---- */
struct range {
    const char *name;
    bool given;
    double value, min, max;
    bool above_min; /* the minimum itself is out */
};

static weir_err check_range(const struct range *r, struct weir_why *why)
{
    /* Written so that NaN fails. */
    bool inside = r->value <= r->max && (r->above_min ? r->value > r->min : r->value >= r->min);

    if (!r->given || inside)
        return WEIR_OK;
    return weir_fail_param(why, r->name, WEIR_INVALID, "%s: must be %s %g %s %g", r->name,
                           r->above_min ? "above" : "from", r->min, r->above_min ? "and at most" : "to",
                           r->max);
}

static weir_err check_ranges(const Weir__V1__GenerateRequest *msg, struct weir_why *why)
{
    const struct range ranges[] = {
        { "temperature", msg->has_temperature_case, msg->temperature, 0, 2, false },
        { "top_p", msg->has_top_p_case, msg->top_p, 0, 1, false },
        { "min_p", msg->has_min_p_case, msg->min_p, 0, 1, false },
        { "typical_p", msg->has_typical_p_case, msg->typical_p, 0, 1, false },
        { "repetition_penalty", msg->has_repetition_penalty_case, msg->repetition_penalty, 0, 2, true },
        { "frequency_penalty", msg->has_frequency_penalty_case, msg->frequency_penalty, -2, 2, false },
        { "presence_penalty", msg->has_presence_penalty_case, msg->presence_penalty, -2, 2, false },
        { "mirostat_target", msg->has_mirostat_target_case, msg->mirostat_target, 0, 1000, true },
        { "mirostat_lr", msg->has_mirostat_lr_case, msg->mirostat_lr, 0, 1, true },
    };
    weir_err rc = WEIR_OK;

    for (size_t i = 0; i < sizeof ranges / sizeof *ranges && rc == WEIR_OK; i++)
        rc = check_range(&ranges[i], why);
    return rc;
}

static weir_err check_bias(const Weir__V1__GenerateRequest *msg, struct weir_why *why)
{
    char param[40];

    if (msg->n_logit_bias > LOGIT_BIAS_MAX)
        return weir_fail_param(why, "logit_bias", WEIR_INVALID,
                               "logit_bias: at most %d tokens, these are %zu", LOGIT_BIAS_MAX,
                               msg->n_logit_bias);
    for (size_t i = 0; i < msg->n_logit_bias; i++) {
        const Weir__V1__LogitBias *bias = msg->logit_bias[i];
        snprintf(param, sizeof param, "logit_bias.%u", bias->id);
        if (bias->id > TOKEN_ID_MAX)
            return request_bad(why, param, "not a token's id");
        weir_err rc = check_range(&(struct range){ param, true, bias->bias, -100, 100, false }, why);
        if (rc != WEIR_OK)
            return rc;
    }
    return WEIR_OK;
}

static weir_err check_counts(const Weir__V1__GenerateRequest *msg, struct weir_why *why)
{
    if (msg->has_max_tokens_case && msg->max_tokens < 1)
        return request_bad(why, "max_tokens", "must be at least 1");
    if (msg->has_max_tokens_case && msg->min_tokens > msg->max_tokens)
        return request_bad(why, "min_tokens", "must not be above max_tokens");
    if (msg->n > WEIR_CHOICES_MAX)
        return weir_fail_param(why, "n", WEIR_INVALID, "n: must be from 1 to %d", WEIR_CHOICES_MAX);
    if (msg->has_top_k_case && msg->top_k > TOP_K_MAX)
        return weir_fail_param(why, "top_k", WEIR_INVALID, "top_k: must be from 0 to %d", TOP_K_MAX);
    if (msg->top_logprobs > TOP_LOGPROBS_MAX)
        return weir_fail_param(why, "top_logprobs", WEIR_INVALID, "top_logprobs: must be from 0 to %d",
                               TOP_LOGPROBS_MAX);
    if (msg->top_logprobs > 0 && !msg->logprobs)
        return request_bad(why, "top_logprobs", "needs logprobs");
    if (msg->has_prompt_truncate_len_case && msg->prompt_truncate_len < 1)
        return request_bad(why, "prompt_truncate_len", "must be at least 1");
    return WEIR_OK;
}

static weir_err check_enums(const Weir__V1__GenerateRequest *msg, struct weir_why *why)
{
    if ((unsigned)msg->context_exceeded > WEIR__V1__CONTEXT_EXCEEDED__CONTEXT_ERROR)
        return request_bad(why, "context_length_exceeded_behavior", "must be truncate or error");
    if ((unsigned)msg->service_tier > WEIR__V1__SERVICE_TIER__TIER_PRIORITY)
        return request_bad(why, "service_tier", "must be auto, default, flex or priority");
    return WEIR_OK;
}

static weir_err check_stops(const Weir__V1__GenerateRequest *msg, struct weir_why *why)
{
    if (msg->n_stop > STOPS_MAX)
        return weir_fail_param(why, "stop", WEIR_INVALID, "stop: at most %d, these are %zu", STOPS_MAX,
                               msg->n_stop);
    for (size_t i = 0; i < msg->n_stop; i++) {
        char param[32];
        snprintf(param, sizeof param, "stop[%zu]", i);
        weir_err rc = request_check_text(param, msg->stop[i], 1, STOP_MAX, why);
        if (rc != WEIR_OK)
            return rc;
    }
    return WEIR_OK;
}

static weir_err check_metadata(const Weir__V1__GenerateRequest *msg, struct weir_why *why)
{
    if (msg->n_metadata > METADATA_MAX)
        return weir_fail_param(why, "metadata", WEIR_INVALID, "metadata: at most %d pairs, these are %zu",
                               METADATA_MAX, msg->n_metadata);
    for (size_t i = 0; i < msg->n_metadata; i++) {
        const Weir__V1__GenerateRequest__MetadataEntry *entry = msg->metadata[i];
        char param[METADATA_KEY_MAX + 16];
        weir_err rc = request_check_text("metadata", entry->key, 1, METADATA_KEY_MAX, why);
        if (rc != WEIR_OK)
            return rc;
        snprintf(param, sizeof param, "metadata.%s", entry->key);
        rc = request_check_text(param, entry->value, 0, METADATA_VALUE_MAX, why);
        if (rc != WEIR_OK)
            return rc;
    }
    return WEIR_OK;
}

weir_err weir_request_check(struct weir_request *req, struct weir_why *why)
{
    const Weir__V1__GenerateRequest *msg = req->msg;
    weir_err rc = request_check_text("model", msg->model, 1, MODEL_MAX, why);

    if (rc == WEIR_OK)
        rc = check_input(req, why);
    if (rc == WEIR_OK)
        rc = check_counts(msg, why);
    if (rc == WEIR_OK)
        rc = check_ranges(msg, why);
    if (rc == WEIR_OK)
        rc = check_bias(msg, why);
    if (rc == WEIR_OK)
        rc = check_enums(msg, why);
    if (rc == WEIR_OK)
        rc = request_check_tools(req, why);
    if (rc == WEIR_OK)
        rc = request_check_format(req, why);
    if (rc == WEIR_OK)
        rc = check_stops(msg, why);
    if (rc == WEIR_OK)
        rc = request_check_text("user", msg->user, 0, LABEL_MAX, why);
    if (rc == WEIR_OK)
        rc = request_check_text("prompt_cache_key", msg->prompt_cache_key, 0, LABEL_MAX, why);
    if (rc == WEIR_OK)
        rc = check_str("x-session-affinity", req->session, why);
    if (rc == WEIR_OK)
        rc = check_str("x-prompt-cache-isolation-key", req->isolation, why);
    if (rc == WEIR_OK)
        rc = check_metadata(msg, why);
    if (rc == WEIR_OK && msg->service_tier == WEIR__V1__SERVICE_TIER__TIER_PRIORITY)
        req->priority = 0;
    return rc;
}
