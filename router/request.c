/* request.c - the request's memory and the one set of bounds for both APIs: see request.h.
 *   [Q1] A request that passes weir_request_check() keeps every bound, is UTF-8, and has only roles the
 * replica knows. [Q2] Of a refused one the field is named as REST spells it. */
#include "router/request.h"

#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/json.h"
#include "base/mem.h"

enum {
    MODEL_MAX = 256,
    MESSAGES_MAX = 4096,
    STOPS_MAX = 4,
    STOP_MAX = 256,
    LABEL_MAX = 512, /* user, prompt_cache_key, session, isolation key */
    TOP_LOGPROBS_MAX = 5,
    TOP_K_MAX = 100,
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
    if (!req->msg) {
        weir_request_close(req);
        return NULL;
    }
    weir__v1__generate_request__init(req->msg);
    req->priority = 1;
    return req;
}

void weir_request_close(struct weir_request *req)
{
    if (!req)
        return;
    weir_arena_release(&req->arena);
    weir_free(req);
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
static weir_err bad(struct weir_why *why, const char *param, const char *text)
{
    return weir_fail_param(why, param, WEIR_INVALID, "%s: %s", param, text); /* [Q2] */
}

static weir_err check_text(const char *param, const char *text, size_t min, size_t max, struct weir_why *why)
{
    size_t len = text ? strlen(text) : 0;

    if (len < min && min == 1)
        return bad(why, param, "must not be empty");
    if (max > 0 && len > max)
        return weir_fail_param(why, param, WEIR_INVALID, "%s: at most %zu bytes, this has %zu", param, max,
                               len);
    if (!weir_utf8_valid(text ? text : "", len))
        return bad(why, param, "not valid UTF-8");
    return WEIR_OK;
}

static weir_err check_str(const char *param, struct weir_str s, struct weir_why *why)
{
    if (s.len > LABEL_MAX)
        return weir_fail_param(why, param, WEIR_INVALID, "%s: at most %d bytes, this has %zu", param,
                               LABEL_MAX, s.len);
    return WEIR_OK;
}

static weir_err check_range(const char *param, bool given, double x, double max, struct weir_why *why)
{
    if (given && !(x >= 0 && x <= max)) /* so that NaN fails */
        return weir_fail_param(why, param, WEIR_INVALID, "%s: must be from 0 to %g", param, max);
    return WEIR_OK;
}

/* The replica knows system, user and assistant; "developer" is the newer name of the first. */
static weir_err check_role(struct weir_request *req, size_t i, Weir__V1__Message *message,
                           struct weir_why *why)
{
    const char *role = message->role ? message->role : "";
    char param[64];

    if (strcmp(role, "system") == 0 || strcmp(role, "user") == 0 || strcmp(role, "assistant") == 0)
        return WEIR_OK;
    if (strcmp(role, "developer") == 0) {
        message->role = weir_arena_strndup(&req->arena, "system", 6);
        return message->role ? WEIR_OK : weir_fail(why, WEIR_NOMEM, "no memory for this request");
    }
    snprintf(param, sizeof param, "messages[%zu].role", i);
    return bad(why, param, "must be one of system, developer, user, assistant");
}

static weir_err check_chat(struct weir_request *req, struct weir_why *why)
{
    const Weir__V1__Chat *chat = req->msg->chat;

    if (!chat || chat->n_messages == 0)
        return bad(why, "messages", "at least one message is needed");
    if (chat->n_messages > MESSAGES_MAX)
        return weir_fail_param(why, "messages", WEIR_INVALID, "messages: at most %d, these are %zu",
                               MESSAGES_MAX, chat->n_messages);
    for (size_t i = 0; i < chat->n_messages; i++) {
        Weir__V1__Message *message = chat->messages[i];
        char param[64];
        weir_err rc = check_role(req, i, message, why);
        if (rc != WEIR_OK)
            return rc;
        snprintf(param, sizeof param, "messages[%zu].content", i);
        rc = check_text(param, message->content, 0, /* max= */ 0, why);
        if (rc != WEIR_OK)
            return rc;
    }
    return WEIR_OK;
}

static weir_err check_input(struct weir_request *req, struct weir_why *why)
{
    switch (req->msg->input_case) {
    case WEIR__V1__GENERATE_REQUEST__INPUT_CHAT:
        return check_chat(req, why);
    case WEIR__V1__GENERATE_REQUEST__INPUT_PROMPT:
        return check_text("prompt", req->msg->prompt, 0, /* max= */ 0, why);
    default:
        return bad(why, "messages", "messages or a prompt is needed");
    }
}

static weir_err check_sampling(const Weir__V1__GenerateRequest *msg, struct weir_why *why)
{
    weir_err rc = WEIR_OK;

    if (msg->has_max_tokens_case && msg->max_tokens < 1)
        rc = bad(why, "max_tokens", "must be at least 1");
    else if (msg->n > WEIR_CHOICES_MAX)
        rc = weir_fail_param(why, "n", WEIR_INVALID, "n: must be from 1 to %d", WEIR_CHOICES_MAX);
    else if (msg->has_top_k_case && msg->top_k > TOP_K_MAX)
        rc = weir_fail_param(why, "top_k", WEIR_INVALID, "top_k: must be from 0 to %d", TOP_K_MAX);
    else if (msg->top_logprobs > TOP_LOGPROBS_MAX)
        rc = weir_fail_param(why, "top_logprobs", WEIR_INVALID, "top_logprobs: must be from 0 to %d",
                             TOP_LOGPROBS_MAX);
    else if (msg->top_logprobs > 0 && !msg->logprobs)
        rc = bad(why, "top_logprobs", "needs logprobs");
    if (rc == WEIR_OK)
        rc = check_range("temperature", msg->has_temperature_case, msg->temperature, 2, why);
    if (rc == WEIR_OK)
        rc = check_range("top_p", msg->has_top_p_case, msg->top_p, 1, why);
    if (rc == WEIR_OK)
        rc = check_range("min_p", msg->has_min_p_case, msg->min_p, 1, why);
    return rc;
}

static weir_err check_stops(const Weir__V1__GenerateRequest *msg, struct weir_why *why)
{
    if (msg->n_stop > STOPS_MAX)
        return weir_fail_param(why, "stop", WEIR_INVALID, "stop: at most %d, these are %zu", STOPS_MAX,
                               msg->n_stop);
    for (size_t i = 0; i < msg->n_stop; i++) {
        char param[32];
        snprintf(param, sizeof param, "stop[%zu]", i);
        weir_err rc = check_text(param, msg->stop[i], 1, STOP_MAX, why);
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
        weir_err rc = check_text("metadata", entry->key, 1, METADATA_KEY_MAX, why);
        if (rc != WEIR_OK)
            return rc;
        snprintf(param, sizeof param, "metadata.%s", entry->key);
        rc = check_text(param, entry->value, 0, METADATA_VALUE_MAX, why);
        if (rc != WEIR_OK)
            return rc;
    }
    return WEIR_OK;
}

weir_err weir_request_check(struct weir_request *req, struct weir_why *why)
{
    const Weir__V1__GenerateRequest *msg = req->msg;
    weir_err rc = check_text("model", msg->model, 1, MODEL_MAX, why);

    if (rc == WEIR_OK)
        rc = check_input(req, why);
    if (rc == WEIR_OK)
        rc = check_sampling(msg, why);
    if (rc == WEIR_OK)
        rc = check_stops(msg, why);
    if (rc == WEIR_OK)
        rc = check_text("user", msg->user, 0, LABEL_MAX, why);
    if (rc == WEIR_OK)
        rc = check_text("prompt_cache_key", msg->prompt_cache_key, 0, LABEL_MAX, why);
    if (rc == WEIR_OK)
        rc = check_str("x-session-affinity", req->session, why);
    if (rc == WEIR_OK)
        rc = check_str("x-prompt-cache-isolation-key", req->isolation, why);
    if (rc == WEIR_OK)
        rc = check_metadata(msg, why);
    return rc;
}
