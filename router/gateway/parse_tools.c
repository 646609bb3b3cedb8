/* parse_tools.c - tools and which of them to call, in OpenAI's present shape and in the one before it (functions).
 *
 * Both shapes become the same request; only the answer remembers which was asked for. Sources: OpenAI's API
 * reference. */
#include <string.h>

#include "router/gateway/parse_int.h"

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
            parse_type(p, "function");
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
            parse_type(p, "function");
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
