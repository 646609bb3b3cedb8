/* parse_chat.c - messages and tools, in OpenAI's present shape and in the one before it (functions).
 *
 * Both shapes become the same request; only the answer remembers which was asked for. Sources: OpenAI's API
 * reference. */
#include <string.h>

#include "router/gateway/parse_int.h"

/* ---- messages ---- */
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

static void read_type(struct parse *p, const char *wanted)
{
    struct weir_str type;

    if (weir_json_string(&p->j, &type) && !weir_str_eq(type, wanted))
        weir_json_fail(&p->j, WEIR_INVALID, "must be \"%s\"", wanted);
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
            read_type(p, "function");
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

/* ---- tools ---- */
/* {"name", "description", "parameters"}; the schema is passed on as its text. */
static void read_function(struct parse *p, Weir__V1__Tool *tool)
{
    struct weir_str key, raw;

    if (!weir_json_object(&p->j))
        return;
    while (weir_json_key(&p->j, &key)) {
        if (weir_str_eq(key, "name"))
            parse_string(p, &tool->name);
        else if (weir_str_eq(key, "description")) {
            if (!parse_null(p))
                parse_string(p, &tool->description);
        } else if (weir_str_eq(key, "parameters")) {
            if (!parse_null(p) && weir_json_raw(&p->j, &raw))
                parse_copy(p, raw, &tool->parameters);
        } else if (weir_str_eq(key, "strict")) { /* forced calls always keep the schema */
            bool ignored;
            if (!parse_null(p))
                weir_json_bool(&p->j, &ignored);
        } else
            parse_unknown(p, false);
    }
}

static void add_tool(struct parse *p, Weir__V1__Tool *tool)
{
    if (weir_json_ok(&p->j))
        parse_list_add(p, (void ***)&p->msg->tools, &p->msg->n_tools, tool);
}

static Weir__V1__Tool *new_tool(struct parse *p)
{
    Weir__V1__Tool *tool = parse_room(p, sizeof *tool);

    if (tool)
        weir__v1__tool__init(tool);
    return tool;
}

static void read_tool(struct parse *p)
{
    Weir__V1__Tool *tool = new_tool(p);
    struct weir_str key;
    bool has_type = false, has_function = false;

    if (!tool || !weir_json_object(&p->j))
        return;
    while (weir_json_key(&p->j, &key)) {
        if (weir_str_eq(key, "type")) {
            read_type(p, "function");
            has_type = true;
        } else if (weir_str_eq(key, "function")) {
            read_function(p, tool);
            has_function = true;
        } else
            parse_unknown(p, false);
    }
    if (weir_json_ok(&p->j) && !has_type)
        weir_json_fail_key(&p->j, "type", WEIR_INVALID, "the tool has no type");
    else if (weir_json_ok(&p->j) && !has_function)
        weir_json_fail_key(&p->j, "function", WEIR_INVALID, "the tool has no function");
    add_tool(p, tool);
}

void parse_tools(struct parse *p)
{
    p->has_tools = true;
    if (!weir_json_array(&p->j))
        return;
    while (weir_json_next(&p->j))
        read_tool(p);
}

void parse_functions(struct parse *p)
{
    p->has_functions = p->opts->legacy_functions = true;
    if (!weir_json_array(&p->j))
        return;
    while (weir_json_next(&p->j)) {
        Weir__V1__Tool *tool = new_tool(p);
        if (!tool)
            return;
        read_function(p, tool);
        add_tool(p, tool);
    }
}

static void read_choice_word(struct parse *p, bool is_older)
{
    static const struct {
        const char *word;
        Weir__V1__ToolChoiceKind kind;
        bool is_newer;
    } words[] = {
        { "auto", WEIR__V1__TOOL_CHOICE_KIND__TOOL_CHOICE_AUTO, false },
        { "none", WEIR__V1__TOOL_CHOICE_KIND__TOOL_CHOICE_NONE, false },
        { "required", WEIR__V1__TOOL_CHOICE_KIND__TOOL_CHOICE_REQUIRED, true },
        { "any", WEIR__V1__TOOL_CHOICE_KIND__TOOL_CHOICE_REQUIRED, true },
    };
    struct weir_str word;

    if (!weir_json_string(&p->j, &word))
        return;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (!weir_str_eq(word, words[i].word) || (is_older && words[i].is_newer))
            continue;
        p->msg->tool_choice = words[i].kind;
        return;
    }
    weir_json_fail(&p->j, WEIR_INVALID,
                   is_older ? "must be auto, none or an object that names a function"
                            : "must be auto, none, required, any or an object");
}

static void read_choice_name(struct parse *p)
{
    p->msg->tool_choice = WEIR__V1__TOOL_CHOICE_KIND__TOOL_CHOICE_NAMED;
    parse_string(p, &p->msg->tool_name);
}

/* {"name": ...} */
static void read_named(struct parse *p)
{
    struct weir_str key;

    if (!weir_json_object(&p->j))
        return;
    while (weir_json_key(&p->j, &key)) {
        if (weir_str_eq(key, "name"))
            read_choice_name(p);
        else
            parse_unknown(p, false);
    }
}

static void need_name(struct parse *p)
{
    if (weir_json_ok(&p->j) && p->msg->tool_choice != WEIR__V1__TOOL_CHOICE_KIND__TOOL_CHOICE_NAMED)
        weir_json_fail_key(&p->j, "name", WEIR_INVALID, "no function is named");
}

void parse_tool_choice(struct parse *p)
{
    struct weir_str key;

    p->has_tool_choice = true;
    if (weir_json_peek(&p->j) != WEIR_JSON_OBJECT) {
        read_choice_word(p, /* is_older= */ false);
        return;
    }
    weir_json_object(&p->j);
    while (weir_json_key(&p->j, &key)) {
        if (weir_str_eq(key, "type"))
            read_type(p, "function");
        else if (weir_str_eq(key, "function"))
            read_named(p);
        else if (weir_str_eq(key, "name"))
            read_choice_name(p);
        else
            parse_unknown(p, false);
    }
    need_name(p);
}

void parse_function_call(struct parse *p)
{
    p->has_function_call = true;
    if (weir_json_peek(&p->j) != WEIR_JSON_OBJECT) {
        read_choice_word(p, /* is_older= */ true);
        return;
    }
    read_named(p);
    need_name(p);
}
