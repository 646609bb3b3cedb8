/* parse_chat.c - messages, with the calls that an assistant made and their results; a call of the older shape
 * (function_call) becomes one of the present. Sources: OpenAI's API reference. */
#include <string.h>

#include "router/gateway/parse_int.h"

/* {"type": "text", "text": "..."}: the only kind of part a text model takes. */
static void read_part(struct parse *p, struct weir_buf *text)
{
    struct weir_str key, type = { NULL, 0 }, value = { NULL, 0 };

    if (!weir_json_object(&p->j))
        return;
    while (weir_json_key(&p->j, &key)) {
        if (weir_str_eq(key, "type"))
            weir_json_string(&p->j, &type);
        else if (weir_str_eq(key, "text"))
            weir_json_string(&p->j, &value);
        else if (weir_str_eq(key, "image_url") || weir_str_eq(key, "video_url"))
            weir_json_fail(&p->j, WEIR_INVALID, "this model takes text only");
        else
            parse_unknown(p, /* is_twice= */ false);
    }
    if (!weir_json_ok(&p->j))
        return;
    if (!weir_str_eq(type, "text"))
        weir_json_fail_key(&p->j, "type", WEIR_INVALID, "a part's type must be \"text\"");
    else if (!value.ptr)
        weir_json_fail_key(&p->j, "text", WEIR_INVALID, "the part has no text");
    else
        weir_buf_add(text, value.ptr, value.len);
}

void parse_content(struct parse *p, char **ret)
{
    struct weir_buf text;

    if (weir_json_peek(&p->j) != WEIR_JSON_ARRAY) {
        parse_string(p, ret);
        return;
    }
    weir_buf_init(&text, 0);
    weir_json_array(&p->j);
    while (weir_json_next(&p->j))
        read_part(p, &text);
    if (text.failed)
        parse_nomem(p);
    if (weir_json_ok(&p->j))
        parse_copy(p, (struct weir_str){ weir_buf_ptr(&text), weir_buf_len(&text) }, ret);
    weir_buf_release(&text);
}

/* {"name", "arguments"} of a call that an assistant made. */
static void read_called(struct parse *p, Weir__V1__ToolCall *call)
{
    struct weir_str key;

    if (!weir_json_object(&p->j))
        return;
    while (weir_json_key(&p->j, &key)) {
        if (weir_str_eq(key, "name"))
            parse_string(p, &call->name);
        else if (weir_str_eq(key, "arguments"))
            parse_string(p, &call->arguments);
        else
            parse_unknown(p, false);
    }
}

static void read_call(struct parse *p, Weir__V1__Message *message)
{
    Weir__V1__ToolCall *call = parse_room(p, sizeof *call);
    struct weir_str key;

    if (!call || !weir_json_object(&p->j))
        return;
    weir__v1__tool_call__init(call);
    while (weir_json_key(&p->j, &key)) {
        if (weir_str_eq(key, "id"))
            parse_string(p, &call->id);
        else if (weir_str_eq(key, "type"))
            parse_type(p, "function");
        else if (weir_str_eq(key, "function"))
            read_called(p, call);
        else if (weir_str_eq(key, "index")) /* clients send back what a stream brought */
            weir_json_skip(&p->j);
        else
            parse_unknown(p, false);
    }
    if (weir_json_ok(&p->j))
        parse_list_add(p, (void ***)&message->tool_calls, &message->n_tool_calls, call);
}

static void read_calls(struct parse *p, Weir__V1__Message *message)
{
    if (!weir_json_array(&p->j))
        return;
    while (weir_json_next(&p->j))
        read_call(p, message);
}

/* The older shape: one call, without an id. */
static void read_function_call(struct parse *p, Weir__V1__Message *message)
{
    Weir__V1__ToolCall *call = parse_room(p, sizeof *call);

    if (!call)
        return;
    weir__v1__tool_call__init(call);
    read_called(p, call);
    if (weir_json_ok(&p->j))
        parse_list_add(p, (void ***)&message->tool_calls, &message->n_tool_calls, call);
}

enum member {
    ROLE = 1,
    CONTENT = 2,
    REASONING = 4,
    CALLS = 8,
    CALL_ID = 16,
    NAME = 32,
    FUNCTION_CALL = 64,
    IGNORED = 128, /* what answers carry and clients send back */
};

static enum member member_of(struct weir_str key)
{
    static const struct {
        const char *name;
        enum member member;
    } members[] = {
        { "role", ROLE },
        { "content", CONTENT },
        { "reasoning_content", REASONING },
        { "tool_calls", CALLS },
        { "tool_call_id", CALL_ID },
        { "name", NAME },
        { "function_call", FUNCTION_CALL },
        { "refusal", IGNORED },
        { "audio", IGNORED },
        { "annotations", IGNORED },
    };

    for (size_t i = 0; i < sizeof members / sizeof *members; i++)
        if (weir_str_eq(key, members[i].name))
            return members[i].member;
    return 0;
}

static void read_member(struct parse *p, enum member member, Weir__V1__Message *message)
{
    if (member != ROLE && parse_null(p))
        return;
    switch (member) {
    case ROLE:
        parse_string(p, &message->role);
        break;
    case CONTENT:
        parse_content(p, &message->content);
        break;
    case REASONING:
        parse_string(p, &message->reasoning_content);
        break;
    case CALLS:
        read_calls(p, message);
        break;
    case CALL_ID:
        parse_string(p, &message->tool_call_id);
        break;
    case NAME:
        parse_string(p, &message->name);
        break;
    case FUNCTION_CALL:
        read_function_call(p, message);
        break;
    case IGNORED:
        weir_json_fail(&p->j, WEIR_INVALID, "only null is taken");
        break;
    }
}

static void read_message(struct parse *p, Weir__V1__Chat *chat)
{
    Weir__V1__Message *message = parse_room(p, sizeof *message);
    struct weir_str key;
    unsigned seen = 0;

    if (!message || !weir_json_object(&p->j))
        return;
    weir__v1__message__init(message);
    const char *absent = message->content;
    while (weir_json_key(&p->j, &key)) {
        enum member member = member_of(key);
        if (!member || (seen & member && member != IGNORED))
            parse_unknown(p, /* is_twice= */ member != 0);
        else
            read_member(p, member, message);
        seen |= member;
    }
    if (!weir_json_ok(&p->j))
        return;
    if (!(seen & ROLE))
        weir_json_fail_key(&p->j, "role", WEIR_INVALID, "the message has no role");
    else if (message->content == absent && message->n_tool_calls == 0 &&
             !(message->reasoning_content && message->reasoning_content[0]))
        weir_json_fail_key(&p->j, "content", WEIR_INVALID, "the message has no content");
    else if (strcmp(message->role, "function") == 0) /* the older name */
        parse_copy(p, WEIR_STR("tool"), &message->role);
    if (weir_json_ok(&p->j))
        parse_list_add(p, (void ***)&chat->messages, &chat->n_messages, message);
}

void parse_messages(struct parse *p)
{
    Weir__V1__Chat *chat = parse_room(p, sizeof *chat);

    if (!chat || !weir_json_array(&p->j))
        return;
    weir__v1__chat__init(chat);
    while (weir_json_next(&p->j))
        read_message(p, chat);
    p->msg->input_case = WEIR__V1__GENERATE_REQUEST__INPUT_CHAT;
    p->msg->chat = chat;
}
