/* tool_xml.c - calls as Qwen's coders write them, each argument between tags:
 *
 *     <function=name>
 *     <parameter=key>
 *     the value, as it is
 *     </parameter>
 *     </function>
 *
 * Told as a JSON object. What a value's type is, the function's schema says: text stays text, whatever it looks like, and is
 * told as it comes, since it may be a whole file. Anything else is JSON if it can be read so, and text if it can't. */
#include "replica/text/tool_parse_int.h"

#include <string.h>

#include "base/arena.h"
#include "base/json.h"

#define PARAMETER "<parameter="
#define PARAMETER_END "</parameter>"
#define FUNCTION_END "</function>"

/* ---- types ---- */

/* The text of a member of an object; len 0: there is none, or it is no object. */
static struct weir_str member(struct weir_output_parser *p, struct weir_str object, struct weir_str name,
                              struct weir_arena *arena)
{
    struct weir_str key, raw, found = { "", 0 };
    struct weir_json j;

    weir_json_init(&j, object.ptr, object.len, arena);
    if (object.len == 0 || weir_json_peek(&j) != WEIR_JSON_OBJECT || !weir_json_object(&j))
        return found;
    while (weir_json_key(&j, &key) && weir_json_raw(&j, &raw))
        if (key.len == name.len && (key.len == 0 || memcmp(key.ptr, name.ptr, key.len) == 0))
            found = raw;
    p->failed = p->failed || weir_json_end(&j, NULL) == WEIR_NOMEM;
    return found;
}

/* By the schema of the function that is being called: "string", ["string", "null"], or an enum whose first value is one. */
static bool is_text(struct weir_output_parser *p, struct weir_str name)
{
    struct weir_arena arena;

    if (!p->tool)
        return false;
    weir_arena_init(&arena, /* limit_bytes= */ 0); /* as much as the schema, which the request bounds */
    struct weir_str all = member(p, p->tool->parameters, WEIR_STR("properties"), &arena);
    struct weir_str schema = member(p, all, name, &arena);
    struct weir_str type = member(p, schema, WEIR_STR("type"), &arena);
    struct weir_str choices = member(p, schema, WEIR_STR("enum"), &arena);
    weir_arena_release(&arena); /* these point into the schema */
    if (type.len > 0)
        return memmem(type.ptr, type.len, "\"string\"", 8) != NULL;
    size_t i = choices.len > 0 ? parse_spaces(choices, 1) : 0;
    return i > 0 && i < choices.len && choices.ptr[i] == '"';
}

/* ---- the head ---- */

/* `<function=name>`: 1 when it is all there, *ret_end behind it; 0 when it is not; -1 perhaps. */
static int read_tag(const struct weir_output_parser *p, struct weir_str s, size_t i, const char *tag,
                    struct weir_str *ret_name, size_t *ret_end)
{
    size_t begin = i + strlen(tag);
    int got = i < s.len ? parse_marker_at(p, s, i, tag) : p->at_end ? 0 : -1;

    if (got != 1)
        return got;
    size_t n_most = s.len - begin < WEIR_OUTPUT_NAME_MAX + 1 ? s.len - begin : WEIR_OUTPUT_NAME_MAX + 1;
    const char *end = memchr(s.ptr + begin, '>', n_most);
    if (!end)
        return p->at_end || n_most > WEIR_OUTPUT_NAME_MAX ? 0 : -1;
    *ret_name = (struct weir_str){ s.ptr + begin, (size_t)(end - s.ptr) - begin };
    *ret_end = (size_t)(end - s.ptr) + 1;
    return parse_good_name(*ret_name);
}

int parse_at_xml(struct weir_output_parser *p)
{
    struct weir_str s = parse_held(p);
    size_t i = parse_spaces_held(p);

    return i < s.len ? parse_marker_at(p, s, i, FUNCTION) : p->at_end ? 0 : -1;
}

enum verdict parse_xml_head(struct weir_output_parser *p)
{
    struct weir_str name;
    size_t end;
    int got = read_tag(p, parse_held(p), parse_spaces_held(p), FUNCTION, &name, &end);

    if (got < 0)
        return MORE;
    if (got == 0 || p->n_calls == WEIR_OUTPUT_CALLS_MAX)
        return parse_no_call(p);
    p->tool = NULL;
    for (size_t i = 0; i < p->format.n_described && !p->tool; i++) {
        const struct weir_output_tool *tool = &p->format.described[i];
        if (tool->name.len == name.len && memcmp(tool->name.ptr, name.ptr, name.len) == 0)
            p->tool = tool;
    }
    parse_begin_call(p, name, /* wrapped= */ false);
    parse_let_go(p, end);
    parse_tell(p, WEIR_OUTPUT_ARGUMENTS, WEIR_STR("{"));
    p->has_parameters = false;
    p->state = IN_XML;
    return GO;
}

/* ---- parameters ---- */

enum verdict parse_in_xml(struct weir_output_parser *p)
{
    struct weir_str name;
    size_t end;

    parse_drop_spaces(p);
    struct weir_str s = parse_held(p);
    int parameter = read_tag(p, s, 0, PARAMETER, &name, &end);
    int over = s.len > 0 ? parse_marker_at(p, s, 0, FUNCTION_END) : p->at_end ? 0 : -1;
    if (parameter < 0 || over < 0)
        return MORE;
    if (parameter == 0) { /* the end, or what has no place here: then the call has ended without it */
        parse_let_go(p, over == 1 ? strlen(FUNCTION_END) : 0);
        parse_tell(p, WEIR_OUTPUT_ARGUMENTS, WEIR_STR("}"));
        parse_end_call(p);
        p->state = AT_NEXT;
        return GO;
    }
    bool text = is_text(p, name);
    parse_tell(p, WEIR_OUTPUT_ARGUMENTS, p->has_parameters ? WEIR_STR(", \"") : WEIR_STR("\""));
    parse_tell_escaped(p, name);
    parse_tell(p, WEIR_OUTPUT_ARGUMENTS, text ? WEIR_STR("\": \"") : WEIR_STR("\": "));
    parse_let_go(p, end);
    p->has_parameters = true;
    p->scan = (struct scan){ 0 };
    p->at_value = true;
    p->state = text ? IN_XML_TEXT : IN_XML_VALUE;
    return GO;
}

/* The line's ends behind the first tag and before the last are the form's. */
enum verdict parse_in_xml_text(struct weir_output_parser *p)
{
    struct weir_str s = parse_held(p);
    int got;

    if (p->at_value && s.len == 0 && !p->at_end)
        return MORE;
    if (p->at_value && s.len > 0 && s.ptr[0] == '\n')
        parse_let_go(p, 1);
    p->at_value = false;
    s = parse_held(p);
    size_t end = parse_find_marker(p, s, 0, PARAMETER_END, &got), text = end;
    if (text > 0 && s.ptr[text - 1] == '\n') /* perhaps the last one */
        text--;
    parse_tell_escaped(p, (struct weir_str){ s.ptr, text });
    parse_let_go(p, text);
    if (got != 1 && !p->at_end)
        return MORE;
    parse_let_go(p, end - text + (got == 1 ? strlen(PARAMETER_END) : 0));
    parse_tell(p, WEIR_OUTPUT_ARGUMENTS, WEIR_STR("\""));
    p->state = IN_XML;
    return GO;
}

/* As JSON; as Python says it, because templates print earlier calls so; else as text. */
static void tell_value(struct weir_output_parser *p, struct weir_str value)
{
    static const char *const words[][2] = { { "True", "true" }, { "False", "false" }, { "None", "null" } };
    struct weir_arena arena;
    struct weir_json j;

    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (weir_str_eq(value, words[i][0]))
            value = weir_str(words[i][1]);
    weir_arena_init(&arena, /* limit_bytes= */ 0); /* WEIR_OUTPUT_HELD_MAX bounds it */
    weir_json_init(&j, value.ptr, value.len, &arena);
    weir_json_skip(&j);
    weir_err err = weir_json_end(&j, NULL);
    bool is_json = value.len > 0 && err == WEIR_OK;
    p->failed = p->failed || err == WEIR_NOMEM;
    weir_arena_release(&arena);
    if (is_json) {
        parse_tell(p, WEIR_OUTPUT_ARGUMENTS, value);
        return;
    }
    parse_tell(p, WEIR_OUTPUT_ARGUMENTS, WEIR_STR("\""));
    parse_tell_escaped(p, value);
    parse_tell(p, WEIR_OUTPUT_ARGUMENTS, WEIR_STR("\""));
}

enum verdict parse_in_xml_value(struct weir_output_parser *p)
{
    struct weir_str s = parse_held(p);
    int got;
    size_t end = parse_find_marker(p, s, p->scan.at, PARAMETER_END, &got);

    p->scan.at = end; /* [W2] */
    if (end > WEIR_OUTPUT_HELD_MAX) {
        parse_tell(p, WEIR_OUTPUT_ARGUMENTS, WEIR_STR("\""));
        p->state = IN_XML_TEXT;
        return GO;
    }
    if (got != 1 && !p->at_end)
        return MORE;
    size_t begin = parse_spaces((struct weir_str){ s.ptr, end }, 0), text = end;
    while (text > begin && parse_is_space(s.ptr[text - 1]))
        text--;
    tell_value(p, (struct weir_str){ s.ptr + begin, text - begin });
    parse_let_go(p, end + (got == 1 ? strlen(PARAMETER_END) : 0));
    p->state = IN_XML;
    return GO;
}
