/* tool_json.c - calls in JSON: {"name": ..., "arguments": {...}}, told as they come where the name comes first. */
#include "replica/text/tool_parse_int.h"

#include <string.h>

#include "base/arena.h"
#include "base/json.h"

/* ---- scanning JSON ---- */

/* One more byte of a value. False: it can't be JSON. */
static bool scan_byte(struct scan *sc, char c)
{
    if (sc->in_string) {
        if (sc->escaped)
            sc->escaped = false;
        else if (c == '\\')
            sc->escaped = true;
        else if (c == '"')
            sc->in_string = false;
        return true;
    }
    if (c == '"')
        sc->in_string = true;
    else if (c == '{' || c == '[')
        sc->depth++;
    else if (c == '}' || c == ']')
        sc->depth--;
    else
        return parse_is_space(c) || (c && strchr("0123456789+-.eEtrufalsn:,", c));
    return true;
}

int parse_scan_on(struct scan *sc, struct weir_str s, int until)
{
    while (sc->at < s.len) {
        if (!scan_byte(sc, s.ptr[sc->at]))
            return -1;
        sc->at++;
        if (sc->depth == until && !sc->in_string)
            return 1;
    }
    return 0;
}

/* ---- the head ---- */

/* A string's end, behind its quote: 0 when more is needed. */
static size_t string_end(struct weir_str s, size_t i)
{
    for (i++; i < s.len; i++) {
        if (s.ptr[i] == '\\')
            i++;
        else if (s.ptr[i] == '"')
            return i + 1;
    }
    return 0;
}

/* The head of {"name": "x", "arguments": {...}}, as far as it is there. */
enum head_kind { HEAD_MORE, HEAD_CALL, HEAD_WHOLE, HEAD_NONE };
struct head {
    enum head_kind kind;
    struct weir_str name; /* with its quotes */
    size_t n;             /* bytes before the arguments */
};

/* Reads `"key" :`; *at moves to the value. HEAD_CALL: read. */
static enum head_kind head_key(struct weir_str s, size_t *at, struct weir_str *ret)
{
    size_t i = parse_spaces(s, *at);

    if (i == s.len)
        return HEAD_MORE;
    if (s.ptr[i] != '"')
        return HEAD_NONE;
    size_t end = string_end(s, i);
    if (end == 0)
        return HEAD_MORE;
    *ret = (struct weir_str){ s.ptr + i + 1, end - i - 2 };
    i = parse_spaces(s, end);
    if (i == s.len)
        return HEAD_MORE;
    if (s.ptr[i] != ':')
        return HEAD_NONE;
    *at = parse_spaces(s, i + 1);
    return *at == s.len ? HEAD_MORE : HEAD_CALL;
}

static bool begins_call(struct weir_str key)
{
    return weir_str_eq(key, "name") || weir_str_eq(key, "type") || weir_str_eq(key, "function") ||
           weir_str_eq(key, "id") || weir_str_eq(key, "parameters") || weir_str_eq(key, "arguments");
}

static struct head read_head(struct weir_str s)
{
    struct head h = { .kind = HEAD_NONE };
    struct weir_str key;
    size_t i = parse_spaces(s, 0);
    enum head_kind got;

    if (i == s.len)
        return (struct head){ .kind = HEAD_MORE };
    if (s.ptr[i] != '{')
        return h;
    i++;
    got = head_key(s, &i, &key);
    if (got != HEAD_CALL)
        return (struct head){ .kind = got };
    if (!weir_str_eq(key, "name") || s.ptr[i] != '"')
        return (struct head){ .kind = begins_call(key) ? HEAD_WHOLE : HEAD_NONE };
    size_t end = string_end(s, i);
    if (end == 0)
        return (struct head){ .kind = HEAD_MORE };
    h.name = (struct weir_str){ s.ptr + i, end - i };
    i = parse_spaces(s, end);
    if (i == s.len)
        return (struct head){ .kind = HEAD_MORE };
    if (s.ptr[i] != ',')
        return (struct head){ .kind = s.ptr[i] == '}' ? HEAD_WHOLE : HEAD_NONE };
    i++;
    got = head_key(s, &i, &key);
    if (got != HEAD_CALL)
        return (struct head){ .kind = got };
    bool args = weir_str_eq(key, "arguments") || weir_str_eq(key, "parameters");
    h.kind = args && s.ptr[i] == '{' ? HEAD_CALL : HEAD_WHOLE;
    h.n = i;
    return h;
}

/* A JSON string's content; false when it is none, or no name. */
static bool read_name(struct weir_str quoted, struct weir_arena *arena, struct weir_str *ret)
{
    struct weir_json j;

    weir_json_init(&j, quoted.ptr, quoted.len, arena);
    return weir_json_string(&j, ret) && weir_json_end(&j, NULL) == WEIR_OK && parse_good_name(*ret);
}

enum verdict parse_json_head(struct weir_output_parser *p)
{
    struct head h = read_head(parse_held_most(p, HEAD_MAX));
    struct weir_arena arena;
    struct weir_str name;
    enum verdict v = GO;

    if (h.kind == HEAD_MORE && !p->at_end && weir_buf_len(&p->held) < HEAD_MAX)
        return MORE;
    if (p->n_calls == WEIR_OUTPUT_CALLS_MAX || h.kind == HEAD_MORE || h.kind == HEAD_NONE)
        return parse_no_call(p);
    if (h.kind == HEAD_WHOLE) {
        p->scan = (struct scan){ 0 };
        p->state = IN_WHOLE;
        return GO;
    }
    weir_arena_init(&arena, /* limit_bytes= */ 0); /* HEAD_MAX bounds the name */
    v = read_name(h.name, &arena, &name) ? parse_start_args(p, name, h.n, /* wrapped= */ true)
                                         : parse_no_call(p);
    weir_arena_release(&arena);
    return v;
}

/* ---- objects that must be whole ---- */

struct call_parts {
    struct weir_str name, args; /* args: JSON; ptr NULL = absent */
};

static bool read_call(struct weir_json *j, struct call_parts *ret, int depth)
{
    struct weir_str key;

    if (!weir_json_object(j))
        return false;
    while (weir_json_key(j, &key)) {
        enum weir_json_type type = weir_json_peek(j);
        bool is_args = weir_str_eq(key, "arguments") || weir_str_eq(key, "parameters");
        if (type == WEIR_JSON_STRING && (weir_str_eq(key, "name") || weir_str_eq(key, "function")))
            weir_json_string(j, &ret->name);
        else if (type == WEIR_JSON_OBJECT && weir_str_eq(key, "function") && depth == 0)
            read_call(j, ret, depth + 1);
        else if (is_args && type == WEIR_JSON_STRING) /* JSON within JSON */
            weir_json_string(j, &ret->args);
        else if (is_args)
            weir_json_raw(j, &ret->args);
        else
            weir_json_skip(j);
    }
    return weir_json_ok(j);
}

static bool tell_whole(struct weir_output_parser *p, struct weir_str json)
{
    struct call_parts parts = { 0 };
    struct weir_arena arena;
    struct weir_json j;

    weir_arena_init(&arena, /* limit_bytes= */ 0); /* WEIR_OUTPUT_HELD_MAX bounds it */
    weir_json_init(&j, json.ptr, json.len, &arena);
    bool ok = read_call(&j, &parts, 0) && weir_json_end(&j, NULL) == WEIR_OK && parse_good_name(parts.name);
    if (weir_buf_len(&p->undo) == 0 && !parts.args.ptr)
        ok = false; /* without a marker a name alone makes no call */
    if (ok) {
        parse_begin_call(p, parts.name, /* wrapped= */ false);
        parse_tell(p, WEIR_OUTPUT_ARGUMENTS, parts.args.len ? parts.args : WEIR_STR("{}"));
        parse_end_call(p);
    }
    weir_arena_release(&arena);
    return ok;
}

enum verdict parse_whole(struct weir_output_parser *p)
{
    struct weir_str s = parse_held_most(p, WEIR_OUTPUT_HELD_MAX);
    int got = parse_scan_on(&p->scan, s, 0);

    /* White space before the brace ends a scan at depth 0 at once. */
    while (got == 1 && s.ptr[p->scan.at - 1] != '}')
        got = parse_scan_on(&p->scan, s, 0);
    if (got == 0 && !p->at_end && s.len < WEIR_OUTPUT_HELD_MAX)
        return MORE;
    if (got != 1 || !tell_whole(p, (struct weir_str){ s.ptr, p->scan.at }))
        return parse_no_call(p);
    parse_let_go(p, p->scan.at);
    p->state = AT_NEXT;
    return GO;
}
