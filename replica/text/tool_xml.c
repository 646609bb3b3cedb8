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

struct member {
    struct weir_str name, value; /* value: its JSON; len 0: there is none */
};

/* Finds members of an object, if it is one. */
static void find_members(struct weir_output_parser *p, struct weir_str object, struct member *at, int n,
                         struct weir_arena *arena)
{
    struct weir_str key, raw;
    struct weir_json j;

    weir_json_init(&j, object.ptr, object.len, arena);
    if (object.len == 0 || weir_json_peek(&j) != WEIR_JSON_OBJECT || !weir_json_object(&j))
        return;
    while (weir_json_key(&j, &key) && weir_json_raw(&j, &raw))
        for (int i = 0; i < n; i++)
            if (key.len == at[i].name.len && (key.len == 0 || memcmp(key.ptr, at[i].name.ptr, key.len) == 0))
                at[i].value = raw;
    p->failed = p->failed || weir_json_end(&j, NULL) == WEIR_NOMEM;
}

/* The i-th of a list; len 0: there is none. */
static struct weir_str element(struct weir_output_parser *p, struct weir_str list, uint32_t i,
                               struct weir_arena *arena)
{
    struct weir_str raw = { "", 0 };
    struct weir_json j;
    bool is = false;

    weir_json_init(&j, list.ptr, list.len, arena);
    if (list.len == 0 || weir_json_peek(&j) != WEIR_JSON_ARRAY || !weir_json_array(&j))
        return raw;
    for (uint32_t k = 0; k <= i && (is = weir_json_next(&j)); k++)
        if (!weir_json_raw(&j, &raw))
            break;
    p->failed = p->failed || (!is && weir_json_end(&j, NULL) == WEIR_NOMEM);
    return is ? raw : (struct weir_str){ "", 0 };
}

/* A member of an object, or an element of a list by its number. */
static struct weir_str step_into(struct weir_output_parser *p, struct weir_str at, struct weir_str step,
                                 struct weir_arena *arena)
{
    struct member member = { .name = step };
    uint32_t i = 0;

    if (at.ptr[0] != '[') {
        find_members(p, at, &member, 1, arena);
        return member.value;
    }
    for (size_t k = 0; k < step.len; k++) {
        if (step.ptr[k] < '0' || step.ptr[k] > '9' || step.len > 6)
            return member.value;
        i = 10 * i + (uint32_t)(step.ptr[k] - '0');
    }
    return step.len > 0 ? element(p, at, i, arena) : member.value;
}

/* What "#/a/b" points at; len 0: nothing, or a step that is escaped. */
static struct weir_str pointed_at(struct weir_output_parser *p, struct weir_str ref, struct weir_arena *arena)
{
    struct weir_str at = p->tool->parameters, none = { "", 0 }, path;
    struct weir_json j;

    weir_json_init(&j, ref.ptr, ref.len, arena);
    bool is_string = weir_json_string(&j, &path);
    p->failed = p->failed || weir_json_end(&j, NULL) == WEIR_NOMEM;
    if (!is_string || path.len == 0 || path.ptr[0] != '#' || memchr(path.ptr, '~', path.len) ||
        memchr(path.ptr, '%', path.len))
        return none;
    for (size_t i = 1, end; i < path.len && at.len > 0; i = end) {
        end = ++i;
        while (end < path.len && path.ptr[end] != '/')
            end++;
        at = step_into(p, at, (struct weir_str){ path.ptr + i, end - i }, arena);
    }
    return at;
}

static bool is_string(struct weir_str json)
{
    return json.len > 0 && json.ptr[0] == '"';
}

/* A value is text where its schema permits strings and says so. replica/grammar/tags.c decides in the same way. */
static bool says_text(struct weir_output_parser *p, struct weir_str schema, int *n_left,
                      struct weir_arena *arena)
{
    enum { REF, TYPE, ENUM, CONST, LISTS, MEMBERS = LISTS + 3 };
    struct member m[MEMBERS] = {
        [REF] = { .name = WEIR_STR("$ref") },       [TYPE] = { .name = WEIR_STR("type") },
        [ENUM] = { .name = WEIR_STR("enum") },      [CONST] = { .name = WEIR_STR("const") },
        [LISTS] = { .name = WEIR_STR("anyOf") },    [LISTS + 1] = { .name = WEIR_STR("oneOf") },
        [LISTS + 2] = { .name = WEIR_STR("allOf") }
    };

    if (--*n_left < 0)
        return false;
    find_members(p, schema, m, MEMBERS, arena);
    if (m[REF].value.len > 0)
        return says_text(p, pointed_at(p, m[REF].value, arena), n_left, arena);
    if (m[TYPE].value.len > 0)
        return memmem(m[TYPE].value.ptr, m[TYPE].value.len, "\"string\"", 8) != NULL;
    if (m[ENUM].value.len > 0)
        return is_string(element(p, m[ENUM].value, 0, arena));
    if (m[CONST].value.len > 0)
        return is_string(m[CONST].value);
    for (int i = LISTS; i < MEMBERS; i++) {
        struct weir_str one;
        for (uint32_t k = 0; *n_left > 0 && (one = element(p, m[i].value, k, arena)).len > 0; k++)
            if (says_text(p, one, n_left, arena))
                return true;
    }
    return false;
}

static bool is_text(struct weir_output_parser *p, struct weir_str name)
{
    struct member all = { .name = WEIR_STR("properties") }, one = { .name = name };
    int n_left = WEIR_OUTPUT_TYPE_LOOKS_MAX;
    struct weir_arena arena;

    if (!p->tool)
        return false;
    weir_arena_init(&arena, /* limit_bytes= */ 0); /* a few times the schema, which the request bounds */
    find_members(p, p->tool->parameters, &all, 1, &arena);
    find_members(p, all.value, &one, 1, &arena);
    bool text = says_text(p, one.value, &n_left, &arena);
    weir_arena_release(&arena);
    return text;
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
