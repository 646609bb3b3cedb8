/* tool_call.c - tool calls as the families write them: what comes before a call's arguments, and what behind them. */
#include "replica/text/tool_parse_int.h"

#include <string.h>

#include "base/json.h"

void parse_begin_call(struct weir_output_parser *p, struct weir_str name, bool wrapped)
{
    p->n_calls++;
    p->started = true;
    p->wrapped = wrapped;
    p->n_passed = 0;
    weir_buf_clear(&p->undo);
    parse_tell(p, WEIR_OUTPUT_CALL, name);
}

void parse_end_call(struct weir_output_parser *p)
{
    parse_tell(p, WEIR_OUTPUT_CALL_END, WEIR_STR(""));
}

/* [W3] It was no call: what led here is content. */
enum verdict parse_no_call(struct weir_output_parser *p)
{
    p->started = true;
    p->skip_space = p->in_list = false;
    p->state = IN_CONTENT;
    parse_tell(p, WEIR_OUTPUT_CONTENT, (struct weir_str){ weir_buf_ptr(&p->undo), weir_buf_len(&p->undo) });
    weir_buf_clear(&p->undo);
    return GO;
}

bool parse_good_name(struct weir_str name)
{
    return name.len > 0 && name.len <= WEIR_OUTPUT_NAME_MAX;
}

enum verdict parse_start_args(struct weir_output_parser *p, struct weir_str name, size_t n_head, bool wrapped)
{
    parse_begin_call(p, name, wrapped); /* the name may point into what is held */
    parse_let_go(p, n_head);
    p->scan = (struct scan){ 0 };
    p->state = IN_ARGS;
    return GO;
}

/* ---- the other heads ---- */

static bool in_name(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '.';
}

/* name{...}, name[ARGS]{...}, name[CALL_ID]id[ARGS]{...}: behind [TOOL_CALLS]. */
static enum verdict mistral_head(struct weir_output_parser *p)
{
    struct weir_str s = parse_held_most(p, HEAD_MAX);
    size_t begin = parse_spaces(s, 0), end = begin, i;

    if (begin < s.len && s.ptr[begin] == '[') { /* a list of objects */
        weir_buf_add(&p->undo, s.ptr, begin + 1);
        parse_let_go(p, begin + 1);
        p->in_list = true;
        return parse_json_head(p);
    }
    while (end < s.len && in_name(s.ptr[end]))
        end++;
    i = parse_spaces(s, end);
    int id = i < s.len ? parse_marker_at(p, s, i, MISTRAL_ID) : -1;
    if (id == 1)
        for (i += strlen(MISTRAL_ID); i < s.len && in_name(s.ptr[i]);)
            i++;
    int args = i < s.len ? parse_marker_at(p, s, i, MISTRAL_ARGS) : -1;
    if (args == 1)
        i = parse_spaces(s, i + strlen(MISTRAL_ARGS));
    bool partial = id < 0 || args < 0 || i == s.len;
    if (partial && !p->at_end && s.len < HEAD_MAX)
        return MORE;
    struct weir_str name = { s.ptr + begin, end - begin };
    if (partial || s.ptr[i] != '{' || !parse_good_name(name) || p->n_calls == WEIR_OUTPUT_CALLS_MAX)
        return parse_no_call(p);
    return parse_start_args(p, name, i, /* wrapped= */ false);
}

/* Behind the marker of one call: type, separator, name, a fence of ```json, {...}; or name, separator, {...}. */
static enum verdict deepseek_head(struct weir_output_parser *p)
{
    struct weir_str s = parse_held_most(p, HEAD_MAX), name;
    int got;
    size_t sep = parse_find_marker(p, s, 0, DS_SEP, &got), i = sep + strlen(DS_SEP);
    bool partial = got != 1;

    if (!partial) {
        const char *line = memchr(s.ptr + i, '\n', s.len - i);
        size_t first = parse_spaces(s, i);
        name = (struct weir_str){ s.ptr, sep };
        partial = first == s.len;
        if (!partial && s.ptr[first] == '{') {
            i = first;
        } else if (line) {
            name = (struct weir_str){ s.ptr + i, (size_t)(line - s.ptr) - i };
            i = parse_spaces(s, (size_t)(line - s.ptr));
            int fence = i < s.len ? parse_marker_at(p, s, i, "```json") : -1;
            if (fence == 1)
                i = parse_spaces(s, i + 7);
            partial = fence < 0 || i == s.len;
        } else {
            partial = true;
        }
    }
    if (partial && !p->at_end && s.len < HEAD_MAX)
        return MORE;
    if (partial || s.ptr[i] != '{' || !parse_good_name(name) || p->n_calls == WEIR_OUTPUT_CALLS_MAX)
        return parse_no_call(p);
    return parse_start_args(p, name, i, /* wrapped= */ false);
}

enum verdict parse_at_head(struct weir_output_parser *p)
{
    if (p->format.tools == WEIR_TOOLS_MISTRAL && !p->in_list)
        return mistral_head(p);
    if (p->format.tools == WEIR_TOOLS_DEEPSEEK)
        return deepseek_head(p);
    int tags = p->format.tools == WEIR_TOOLS_HERMES ? parse_at_xml(p) : 0;
    if (tags != 0)
        return tags < 0 ? MORE : parse_xml_head(p);
    return parse_json_head(p);
}

/* ---- arguments and what is behind them ---- */

enum verdict parse_in_args(struct weir_output_parser *p)
{
    int got = parse_scan_on(&p->scan, parse_held(p), 0);

    parse_tell_held(p, WEIR_OUTPUT_ARGUMENTS, p->scan.at);
    p->scan.at = 0;
    if (got == 0 && !p->at_end)
        return MORE;
    parse_end_call(p);
    p->scan = (struct scan){ .depth = 1 };
    p->state = p->wrapped ? IN_TAIL : AT_NEXT;
    return GO;
}

enum verdict parse_in_tail(struct weir_output_parser *p)
{
    int got = parse_scan_on(&p->scan, parse_held(p), 0);

    parse_let_go(p, p->scan.at);
    p->scan.at = 0;
    if (got == 0 && !p->at_end)
        return MORE;
    p->state = AT_NEXT;
    return GO;
}

static enum verdict back_to_content(struct weir_output_parser *p)
{
    p->skip_space = true;
    p->in_list = false;
    p->state = IN_CONTENT;
    weir_buf_clear(&p->undo);
    return GO;
}

enum verdict parse_another_call(struct weir_output_parser *p)
{
    p->state = AT_HEAD;
    return GO;
}

enum verdict parse_next_deepseek(struct weir_output_parser *p)
{
    static const char *const markers[] = { "```", DS_CALL_END, DS_CALL, DS_CALLS_END };
    bool first = p->state == IN_CONTENT, ended = false;

    for (; p->n_passed < 4; p->n_passed++) {
        uint32_t i = p->n_passed;
        int got = parse_take(p, markers[i]);
        if (got < 0)
            return MORE;
        if (got == 1 && i == 2) {
            if (!first) { /* should it be no call, its own marker alone comes out */
                weir_buf_clear(&p->undo);
                weir_buf_adds(&p->undo, DS_CALL);
            }
            return parse_another_call(p);
        }
        ended = got == 1 && i == 3;
    }
    return first && !ended ? parse_no_call(p) : back_to_content(p);
}

enum verdict parse_at_next(struct weir_output_parser *p)
{
    int got;

    weir_buf_clear(&p->undo);
    if (p->format.tools == WEIR_TOOLS_DEEPSEEK)
        return parse_next_deepseek(p);
    parse_drop_spaces(p);
    if (weir_buf_len(&p->held) == 0 && !p->at_end)
        return MORE;
    char c = weir_buf_len(&p->held) ? weir_buf_ptr(&p->held)[0] : 0;
    if (c == '{' && p->format.tools != WEIR_TOOLS_MISTRAL)
        return parse_another_call(p);
    switch (p->format.tools) {
    case WEIR_TOOLS_HERMES:
        got = parse_at_xml(p);
        if (got != 0)
            return got < 0 ? MORE : parse_another_call(p);
        got = parse_take(p, HERMES_END);
        return got < 0 ? MORE : back_to_content(p);
    case WEIR_TOOLS_MISTRAL:
        if (!p->in_list || (c != ',' && c != ']' && c != '{'))
            return back_to_content(p);
        if (c == '{')
            return parse_another_call(p);
        parse_let_go(p, 1);
        return c == ']' ? back_to_content(p) : GO;
    default:
        if (c != ';' && c != ',')
            return back_to_content(p);
        parse_let_go(p, 1);
        return GO;
    }
}

void parse_tell_escaped(struct weir_output_parser *p, struct weir_str text)
{
    struct weir_buf out;
    struct weir_jw w;

    weir_buf_init(&out, /* limit_bytes= */ 0); /* six times a piece at most */
    weir_jw_init(&w, &out);
    weir_jw_str(&w, text);
    p->failed = p->failed || out.failed;
    if (!out.failed) /* without its quotes */
        parse_tell(p, WEIR_OUTPUT_ARGUMENTS,
                   (struct weir_str){ weir_buf_ptr(&out) + 1, weir_buf_len(&out) - 2 });
    weir_buf_release(&out);
}

/* Code behind <|python_tag|>: {"code": "..."}. */
enum verdict parse_in_code(struct weir_output_parser *p)
{
    parse_tell_escaped(p, parse_held(p));
    parse_let_go(p, weir_buf_len(&p->held));
    if (!p->at_end)
        return MORE;
    parse_tell(p, WEIR_OUTPUT_ARGUMENTS, WEIR_STR("\"}"));
    parse_end_call(p);
    p->state = IN_CONTENT;
    return GO;
}
