/* request_chat.c - the bounds of what makes a chat: messages, tools, reasoning, and the answer's format.
 *   [R1] A tool's parameters and the arguments of a call are JSON that base/json reads. [R2] A tool choice names
 * a tool that is there. [R3] Only one thing decides what the answer may look like: a format or a forced call. */
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "router/request_int.h"

enum {
    MESSAGES_MAX = 4096,
    TOOLS_MAX = 128,
    TOOL_NAME_MAX = 64,
    CALLS_MAX = 128, /* of one message */
    CALL_ID_MAX = 256,
    SPEAKER_MAX = 256, /* of a speaker */
    FORMAT_TEXT_MAX = 256 << 10,
};

/* One value of the wanted type, and nothing behind it. */
static bool is_json(const char *text, enum weir_json_type type)
{
    struct weir_arena arena;
    struct weir_json j;
    struct weir_why ignored;

    weir_arena_init(&arena, 0);
    weir_json_init(&j, text, strlen(text), &arena);
    bool fits = weir_json_peek(&j) == type && weir_json_skip(&j);
    fits = weir_json_end(&j, &ignored) == WEIR_OK && fits;
    weir_arena_release(&arena);
    return fits;
}

static const char *text_of(const char *text)
{
    return text ? text : "";
}

/* ---- messages ---- */
/* "developer" is the newer name of system. */
static weir_err check_role(struct weir_request *req, size_t i, Weir__V1__Message *message,
                           struct weir_why *why)
{
    static const char *const roles[] = { "system", "user", "assistant", "tool" };
    char param[64];

    for (size_t k = 0; k < sizeof roles / sizeof *roles; k++)
        if (strcmp(text_of(message->role), roles[k]) == 0)
            return WEIR_OK;
    if (strcmp(text_of(message->role), "developer") == 0) {
        message->role = weir_arena_strndup(&req->arena, "system", 6);
        return message->role ? WEIR_OK : weir_fail(why, WEIR_NOMEM, "no memory for this request");
    }
    snprintf(param, sizeof param, "messages[%zu].role", i);
    return request_bad(why, param, "must be one of system, developer, user, assistant, tool");
}

static weir_err check_calls(size_t i, const Weir__V1__Message *message, struct weir_why *why)
{
    char param[96];

    snprintf(param, sizeof param, "messages[%zu].tool_calls", i);
    if (message->n_tool_calls > 0 && strcmp(message->role, "assistant") != 0)
        return request_bad(why, param, "only an assistant calls tools");
    if (message->n_tool_calls > CALLS_MAX)
        return weir_fail_param(why, param, WEIR_INVALID, "%s: at most %d, these are %zu", param, CALLS_MAX,
                               message->n_tool_calls);
    for (size_t k = 0; k < message->n_tool_calls; k++) {
        const Weir__V1__ToolCall *call = message->tool_calls[k];
        snprintf(param, sizeof param, "messages[%zu].tool_calls[%zu].id", i, k);
        weir_err rc = request_check_text(param, call->id, 0, CALL_ID_MAX, why);
        snprintf(param, sizeof param, "messages[%zu].tool_calls[%zu].function.name", i, k);
        if (rc == WEIR_OK)
            rc = request_check_text(param, call->name, 1, SPEAKER_MAX, why);
        snprintf(param, sizeof param, "messages[%zu].tool_calls[%zu].function.arguments", i, k);
        if (rc == WEIR_OK)
            rc = request_check_text(param, call->arguments, 0, /* max= */ 0, why);
        if (rc != WEIR_OK)
            return rc;
    }
    return WEIR_OK;
}

static weir_err check_message(struct weir_request *req, size_t i, struct weir_why *why)
{
    Weir__V1__Message *message = req->msg->chat->messages[i];
    const struct {
        const char *name, *text;
        size_t max;
    } texts[] = {
        { "content", message->content, 0 },
        { "reasoning_content", message->reasoning_content, 0 },
        { "tool_call_id", message->tool_call_id, CALL_ID_MAX },
        { "name", message->name, SPEAKER_MAX },
    };
    char param[64];
    weir_err rc = check_role(req, i, message, why);

    for (size_t k = 0; k < sizeof texts / sizeof *texts && rc == WEIR_OK; k++) {
        snprintf(param, sizeof param, "messages[%zu].%s", i, texts[k].name);
        rc = request_check_text(param, texts[k].text, 0, texts[k].max, why);
    }
    snprintf(param, sizeof param, "messages[%zu].reasoning_content", i);
    if (rc == WEIR_OK && text_of(message->reasoning_content)[0] && strcmp(message->role, "assistant") != 0)
        return request_bad(why, param, "only an assistant reasons");
    snprintf(param, sizeof param, "messages[%zu].tool_call_id", i);
    if (rc == WEIR_OK && text_of(message->tool_call_id)[0] && strcmp(message->role, "tool") != 0)
        return request_bad(why, param, "only a tool's result has it");
    return rc == WEIR_OK ? check_calls(i, message, why) : rc;
}

weir_err request_check_chat(struct weir_request *req, struct weir_why *why)
{
    const Weir__V1__Chat *chat = req->msg->chat;
    weir_err rc = WEIR_OK;

    if (!chat || chat->n_messages == 0)
        return request_bad(why, "messages", "at least one message is needed");
    if (chat->n_messages > MESSAGES_MAX)
        return weir_fail_param(why, "messages", WEIR_INVALID, "messages: at most %d, these are %zu",
                               MESSAGES_MAX, chat->n_messages);
    for (size_t i = 0; i < chat->n_messages && rc == WEIR_OK; i++)
        rc = check_message(req, i, why);
    return rc;
}

/* ---- tools ---- */
static bool is_tool_name(const char *name)
{
    size_t n = strlen(name);

    for (size_t i = 0; i < n; i++) {
        char c = name[i];
        bool is_alnum = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
        if (!is_alnum && c != '_' && c != '-' && c != '.')
            return false;
    }
    return n >= 1 && n <= TOOL_NAME_MAX;
}

static weir_err check_tool(size_t i, const Weir__V1__Tool *tool, struct weir_why *why)
{
    char param[64];

    snprintf(param, sizeof param, "tools[%zu].function.name", i);
    if (!is_tool_name(text_of(tool->name)))
        return request_bad(why, param, "must be 1 to 64 of A-Z a-z 0-9 _ - .");
    snprintf(param, sizeof param, "tools[%zu].function.description", i);
    weir_err rc = request_check_text(param, tool->description, 0, /* max= */ 0, why);
    snprintf(param, sizeof param, "tools[%zu].function.parameters", i);
    if (rc == WEIR_OK)
        rc = request_check_text(param, tool->parameters, 0, FORMAT_TEXT_MAX, why);
    if (rc == WEIR_OK && text_of(tool->parameters)[0] && !is_json(tool->parameters, WEIR_JSON_OBJECT))
        rc = request_bad(why, param, "must be a JSON schema, an object"); /* [R1] */
    return rc;
}

static weir_err check_tool_choice(const Weir__V1__GenerateRequest *msg, struct weir_why *why)
{
    if ((unsigned)msg->tool_choice > WEIR__V1__TOOL_CHOICE_KIND__TOOL_CHOICE_NAMED)
        return request_bad(why, "tool_choice", "must be auto, none, required or a function's name");
    if (msg->n_tools == 0 && msg->tool_choice >= WEIR__V1__TOOL_CHOICE_KIND__TOOL_CHOICE_REQUIRED)
        return request_bad(why, "tool_choice", "needs tools");
    if (msg->tool_choice != WEIR__V1__TOOL_CHOICE_KIND__TOOL_CHOICE_NAMED)
        return WEIR_OK;
    for (size_t i = 0; i < msg->n_tools; i++)
        if (strcmp(msg->tools[i]->name, text_of(msg->tool_name)) == 0)
            return WEIR_OK;
    return request_bad(why, "tool_choice", "names none of the tools"); /* [R2] */
}

weir_err request_check_tools(struct weir_request *req, struct weir_why *why)
{
    const Weir__V1__GenerateRequest *msg = req->msg;
    weir_err rc = WEIR_OK;

    if (msg->n_tools > TOOLS_MAX)
        return weir_fail_param(why, "tools", WEIR_INVALID, "tools: at most %d, these are %zu", TOOLS_MAX,
                               msg->n_tools);
    if (msg->n_tools > 0 && msg->input_case != WEIR__V1__GENERATE_REQUEST__INPUT_CHAT)
        return request_bad(why, "tools", "only a chat has tools");
    for (size_t i = 0; i < msg->n_tools && rc == WEIR_OK; i++)
        rc = check_tool(i, msg->tools[i], why);
    return rc == WEIR_OK ? check_tool_choice(msg, why) : rc;
}

/* ---- the answer's format, and reasoning ---- */
static weir_err check_response_format(const Weir__V1__GenerateRequest *msg, struct weir_why *why)
{
    const Weir__V1__ResponseFormat *format = msg->response_format;
    const char *param = "response_format";

    if (!format || format->kind == WEIR__V1__RESPONSE_FORMAT_KIND__RESPONSE_TEXT)
        return WEIR_OK;
    const char *text = text_of(format->text);
    if ((unsigned)format->kind > WEIR__V1__RESPONSE_FORMAT_KIND__RESPONSE_GRAMMAR)
        return request_bad(why, param, "must be text, json_object, json_schema or grammar");
    if (msg->tool_choice >= WEIR__V1__TOOL_CHOICE_KIND__TOOL_CHOICE_REQUIRED)
        return request_bad(why, param, "a forced tool call leaves no choice of format"); /* [R3] */
    bool is_grammar = format->kind == WEIR__V1__RESPONSE_FORMAT_KIND__RESPONSE_GRAMMAR;
    param = is_grammar ? "response_format.grammar" : "response_format.json_schema.schema";
    bool may_lack = format->kind == WEIR__V1__RESPONSE_FORMAT_KIND__RESPONSE_JSON_OBJECT;
    weir_err rc = request_check_text(param, text, may_lack ? 0 : 1, FORMAT_TEXT_MAX, why);
    if (rc == WEIR_OK && !is_grammar && text[0] && !is_json(text, WEIR_JSON_OBJECT))
        rc = request_bad(why, param, "must be a JSON schema, an object");
    return rc;
}

static bool is_one_of(const char *text, const char *const *names, size_t n)
{
    bool found = false;

    for (size_t i = 0; i < n; i++)
        found = found || strcmp(text, names[i]) == 0;
    return found;
}

weir_err request_check_format(struct weir_request *req, struct weir_why *why)
{
    static const char *const efforts[] = { "", "low", "medium", "high", "max", "none" };
    static const char *const histories[] = { "", "disabled", "interleaved", "preserved" };
    const Weir__V1__GenerateRequest *msg = req->msg;

    if (!is_one_of(text_of(msg->reasoning_effort), efforts, 6))
        return request_bad(why, "reasoning_effort", "must be low, medium, high, max, none or a count");
    if (!is_one_of(text_of(msg->reasoning_history), histories, 4))
        return request_bad(why, "reasoning_history", "must be disabled, interleaved or preserved");
    if (msg->has_reasoning_tokens_case && msg->reasoning_tokens < 1)
        return request_bad(why, "reasoning_effort", "a count must be at least 1");
    return check_response_format(msg, why);
}
