/* tool_parse.c - an answer's text as content, reasoning and tool calls, while it comes.
 *
 * Text that is not settled is held; each state looks at the front of what is held and either settles some of it or
 * asks for more. What a state decides depends on the text alone, never on where it was cut:
 *   [W1] The events, their pieces joined, are the same for every cutting of the same text.
 *   [W2] A byte is looked at a bounded number of times: long values are scanned on from where the scan stood.
 *   [W3] A call begins only when its name is known and its arguments have begun; until then it can still turn out to
 *        be content, marker and all.
 * White space around reasoning and around calls belongs to the form, not to the text, and is dropped. */
#include "replica/text/tool_parse.h"

#include <string.h>

#include "base/arena.h"
#include "base/json.h"
#include "base/mem.h"

#define THINK "<think>"
#define THINK_END "</think>"
#define HERMES "<tool_call>"
#define HERMES_END "</tool_call>"
#define MISTRAL "[TOOL_CALLS]"
#define MISTRAL_ID "[CALL_ID]"
#define MISTRAL_ARGS "[ARGS]"
#define PYTHON "<|python_tag|>"
#define BAR "\xef\xbd\x9c" /* fullwidth vertical line */
#define LOW "\xe2\x96\x81" /* lower one eighth block */
#define DS(name) "<" BAR "tool" LOW name BAR ">"
#define DS_CALLS DS("calls" LOW "begin")
#define DS_CALLS_END DS("calls" LOW "end")
#define DS_CALL DS("call" LOW "begin")
#define DS_CALL_END DS("call" LOW "end")
#define DS_SEP DS("sep")

enum { HEAD_MAX = 4096 }; /* bytes before a call's arguments */

enum state {
    AT_START,
    IN_REASONING,
    IN_CONTENT,
    AT_HEAD,  /* a call may begin */
    IN_WHOLE, /* a JSON object that must be whole to be understood */
    IN_ARGS,
    IN_TAIL, /* of the object around the arguments */
    AT_NEXT, /* behind a call */
    IN_CODE,
};
enum verdict { MORE, GO };

/* How far a scan of a JSON value has come. */
struct scan {
    size_t at;
    int depth;
    bool in_string, escaped;
};

struct weir_output_parser {
    struct weir_output_format format;
    weir_output_fn *fn;
    void *ctx;
    enum state state;
    struct weir_buf held;
    struct weir_buf undo; /* what led to AT_HEAD, should it be no call */
    struct scan scan;
    bool skip_space;       /* white space at the front of held is dropped */
    bool started;          /* content or a call has come: a '{' is not at the answer's start */
    bool in_list, wrapped; /* Mistral's brackets; an object is around the arguments */
    bool at_end, failed;
    uint32_t n_passed; /* of the markers behind a call of DeepSeek's */
    uint32_t n_calls;
};

static const char *const opening[] = { [WEIR_TOOLS_NONE] = NULL,
                                       [WEIR_TOOLS_LLAMA3] = PYTHON,
                                       [WEIR_TOOLS_HERMES] = HERMES,
                                       [WEIR_TOOLS_MISTRAL] = MISTRAL,
                                       [WEIR_TOOLS_DEEPSEEK] = DS_CALLS };

/* ---- pieces ---- */

static struct weir_str held(const struct weir_output_parser *p)
{
    return (struct weir_str){ weir_buf_ptr(&p->held), weir_buf_len(&p->held) };
}

static void tell(struct weir_output_parser *p, enum weir_output_kind kind, struct weir_str text)
{
    uint32_t call = p->n_calls ? p->n_calls - 1 : 0;
    const struct weir_output_event event = { kind, kind >= WEIR_OUTPUT_CALL ? call : 0, text };

    if (text.len > 0 || kind == WEIR_OUTPUT_CALL_END)
        p->fn(p->ctx, &event);
}

/* Tells the first n bytes of what is held and lets go of them. */
static void tell_held(struct weir_output_parser *p, enum weir_output_kind kind, size_t n)
{
    tell(p, kind, (struct weir_str){ weir_buf_ptr(&p->held), n });
    weir_buf_consume(&p->held, n);
}

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

static size_t spaces(struct weir_str s, size_t i)
{
    while (i < s.len && is_space(s.ptr[i]))
        i++;
    return i;
}

static void drop_spaces(struct weir_output_parser *p)
{
    weir_buf_consume(&p->held, spaces(held(p), 0));
}

/* At byte i: 1 the marker, 0 not, -1 its beginning and then the end of what is there. */
static int marker_at(const struct weir_output_parser *p, struct weir_str s, size_t i, const char *marker)
{
    size_t n = strlen(marker), have = s.len - i;

    if (memcmp(s.ptr + i, marker, have < n ? have : n) != 0)
        return 0;
    return have >= n ? 1 : p->at_end ? 0 : -1;
}

/* Where the marker is, or where it may begin; s.len: nowhere. */
static size_t find_marker(const struct weir_output_parser *p, struct weir_str s, const char *marker, int *ret)
{
    for (size_t i = 0; i < s.len; i++) {
        const char *hit = memchr(s.ptr + i, marker[0], s.len - i);
        if (!hit)
            break;
        i = (size_t)(hit - s.ptr);
        *ret = marker_at(p, s, i, marker);
        if (*ret != 0)
            return i;
    }
    *ret = 0;
    return s.len;
}

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
        return is_space(c) || (c && strchr("0123456789+-.eEtrufalsn:,", c));
    return true;
}

/* Scans on until the depth is `until`. 1: there, sc->at is behind it; 0: more is needed; -1: not JSON, at sc->at. */
static int scan_on(struct scan *sc, struct weir_str s, int until)
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

/* ---- calls ---- */

static void begin_call(struct weir_output_parser *p, struct weir_str name, bool wrapped)
{
    p->n_calls++;
    p->started = true;
    p->wrapped = wrapped;
    p->n_passed = 0;
    weir_buf_clear(&p->undo);
    tell(p, WEIR_OUTPUT_CALL, name);
}

static void end_call(struct weir_output_parser *p)
{
    tell(p, WEIR_OUTPUT_CALL_END, WEIR_STR(""));
}

/* [W3] It was no call: what led here is content. */
static enum verdict no_call(struct weir_output_parser *p)
{
    p->started = true;
    p->skip_space = p->in_list = false;
    p->state = IN_CONTENT;
    tell(p, WEIR_OUTPUT_CONTENT, (struct weir_str){ weir_buf_ptr(&p->undo), weir_buf_len(&p->undo) });
    weir_buf_clear(&p->undo);
    return GO;
}

static bool good_name(struct weir_str name)
{
    return name.len > 0 && name.len <= WEIR_OUTPUT_NAME_MAX;
}

static enum verdict start_args(struct weir_output_parser *p, struct weir_str name, size_t n_head,
                               bool wrapped)
{
    begin_call(p, name, wrapped); /* the name may point into what is held */
    weir_buf_consume(&p->held, n_head);
    p->scan = (struct scan){ 0 };
    p->state = IN_ARGS;
    return GO;
}

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
    size_t i = spaces(s, *at);

    if (i == s.len)
        return HEAD_MORE;
    if (s.ptr[i] != '"')
        return HEAD_NONE;
    size_t end = string_end(s, i);
    if (end == 0)
        return HEAD_MORE;
    *ret = (struct weir_str){ s.ptr + i + 1, end - i - 2 };
    i = spaces(s, end);
    if (i == s.len)
        return HEAD_MORE;
    if (s.ptr[i] != ':')
        return HEAD_NONE;
    *at = spaces(s, i + 1);
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
    size_t i = spaces(s, 0);
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
    i = spaces(s, end);
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
    return weir_json_string(&j, ret) && weir_json_end(&j, NULL) == WEIR_OK && good_name(*ret);
}

static enum verdict json_head(struct weir_output_parser *p)
{
    struct head h = read_head(held(p));
    struct weir_arena arena;
    struct weir_str name;
    enum verdict v = GO;

    if (h.kind == HEAD_MORE && !p->at_end && weir_buf_len(&p->held) < HEAD_MAX)
        return MORE;
    if (p->n_calls == WEIR_OUTPUT_CALLS_MAX || h.kind == HEAD_MORE || h.kind == HEAD_NONE)
        return no_call(p);
    if (h.kind == HEAD_WHOLE) {
        p->scan = (struct scan){ 0 };
        p->state = IN_WHOLE;
        return GO;
    }
    weir_arena_init(&arena, /* limit_bytes= */ 0); /* HEAD_MAX bounds the name */
    v = read_name(h.name, &arena, &name) ? start_args(p, name, h.n, /* wrapped= */ true) : no_call(p);
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
    bool ok = read_call(&j, &parts, 0) && weir_json_end(&j, NULL) == WEIR_OK && good_name(parts.name);
    if (weir_buf_len(&p->undo) == 0 && !parts.args.ptr)
        ok = false; /* without a marker a name alone makes no call */
    if (ok) {
        begin_call(p, parts.name, /* wrapped= */ false);
        tell(p, WEIR_OUTPUT_ARGUMENTS, parts.args.len ? parts.args : WEIR_STR("{}"));
        end_call(p);
    }
    weir_arena_release(&arena);
    return ok;
}

static enum verdict whole(struct weir_output_parser *p)
{
    int got = scan_on(&p->scan, held(p), 0);

    /* White space before the brace ends a scan at depth 0 at once. */
    while (got == 1 && weir_buf_ptr(&p->held)[p->scan.at - 1] != '}')
        got = scan_on(&p->scan, held(p), 0);
    if (got == 0 && !p->at_end && weir_buf_len(&p->held) < WEIR_OUTPUT_HELD_MAX)
        return MORE;
    if (got != 1 || !tell_whole(p, (struct weir_str){ weir_buf_ptr(&p->held), p->scan.at }))
        return no_call(p);
    weir_buf_consume(&p->held, p->scan.at);
    p->state = AT_NEXT;
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
    struct weir_str s = held(p);
    size_t begin = spaces(s, 0), end = begin, i;

    if (begin < s.len && s.ptr[begin] == '[') { /* a list of objects */
        weir_buf_add(&p->undo, s.ptr, begin + 1);
        weir_buf_consume(&p->held, begin + 1);
        p->in_list = true;
        return json_head(p);
    }
    while (end < s.len && in_name(s.ptr[end]))
        end++;
    i = spaces(s, end);
    int id = i < s.len ? marker_at(p, s, i, MISTRAL_ID) : -1;
    if (id == 1)
        for (i += strlen(MISTRAL_ID); i < s.len && in_name(s.ptr[i]);)
            i++;
    int args = i < s.len ? marker_at(p, s, i, MISTRAL_ARGS) : -1;
    if (args == 1)
        i = spaces(s, i + strlen(MISTRAL_ARGS));
    bool partial = id < 0 || args < 0 || i == s.len;
    if (partial && !p->at_end && s.len < HEAD_MAX)
        return MORE;
    struct weir_str name = { s.ptr + begin, end - begin };
    if (partial || s.ptr[i] != '{' || !good_name(name) || p->n_calls == WEIR_OUTPUT_CALLS_MAX)
        return no_call(p);
    return start_args(p, name, i, /* wrapped= */ false);
}

/* Behind the marker of one call: type, separator, name, a fence of ```json, {...}; or name, separator, {...}. */
static enum verdict deepseek_head(struct weir_output_parser *p)
{
    struct weir_str s = held(p), name;
    int got;
    size_t sep = find_marker(p, s, DS_SEP, &got), i = sep + strlen(DS_SEP);
    bool partial = got != 1;

    if (!partial) {
        const char *line = memchr(s.ptr + i, '\n', s.len - i);
        size_t first = spaces(s, i);
        name = (struct weir_str){ s.ptr, sep };
        partial = first == s.len;
        if (!partial && s.ptr[first] == '{') {
            i = first;
        } else if (line) {
            name = (struct weir_str){ s.ptr + i, (size_t)(line - s.ptr) - i };
            i = spaces(s, (size_t)(line - s.ptr));
            int fence = i < s.len ? marker_at(p, s, i, "```json") : -1;
            if (fence == 1)
                i = spaces(s, i + 7);
            partial = fence < 0 || i == s.len;
        } else {
            partial = true;
        }
    }
    if (partial && !p->at_end && s.len < HEAD_MAX)
        return MORE;
    if (partial || s.ptr[i] != '{' || !good_name(name) || p->n_calls == WEIR_OUTPUT_CALLS_MAX)
        return no_call(p);
    return start_args(p, name, i, /* wrapped= */ false);
}

/* Takes a marker, and white space before it, into `undo`. 1: taken; 0: it is not there; -1: perhaps. */
static int take(struct weir_output_parser *p, const char *marker)
{
    struct weir_str s = held(p);
    size_t i = spaces(s, 0);
    int got = i < s.len ? marker_at(p, s, i, marker) : p->at_end ? 0 : -1;

    if (got == 1) {
        weir_buf_add(&p->undo, s.ptr, i + strlen(marker));
        weir_buf_consume(&p->held, i + strlen(marker));
    }
    return got;
}

static enum verdict at_head(struct weir_output_parser *p)
{
    if (p->format.tools == WEIR_TOOLS_MISTRAL && !p->in_list)
        return mistral_head(p);
    if (p->format.tools == WEIR_TOOLS_DEEPSEEK)
        return deepseek_head(p);
    return json_head(p);
}

/* ---- arguments and what is behind them ---- */

static enum verdict in_args(struct weir_output_parser *p)
{
    int got = scan_on(&p->scan, held(p), 0);

    tell_held(p, WEIR_OUTPUT_ARGUMENTS, p->scan.at);
    p->scan.at = 0;
    if (got == 0 && !p->at_end)
        return MORE;
    end_call(p);
    p->scan = (struct scan){ .depth = 1 };
    p->state = p->wrapped ? IN_TAIL : AT_NEXT;
    return GO;
}

static enum verdict in_tail(struct weir_output_parser *p)
{
    int got = scan_on(&p->scan, held(p), 0);

    weir_buf_consume(&p->held, p->scan.at);
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

static enum verdict another_call(struct weir_output_parser *p)
{
    p->state = AT_HEAD;
    return GO;
}

/* Behind the marker of all calls, or behind a call. */
static enum verdict next_deepseek(struct weir_output_parser *p)
{
    static const char *const markers[] = { "```", DS_CALL_END, DS_CALL, DS_CALLS_END };
    bool first = p->state == IN_CONTENT, ended = false;

    for (; p->n_passed < 4; p->n_passed++) {
        uint32_t i = p->n_passed;
        int got = take(p, markers[i]);
        if (got < 0)
            return MORE;
        if (got == 1 && i == 2) {
            if (!first) { /* should it be no call, its own marker alone comes out */
                weir_buf_clear(&p->undo);
                weir_buf_adds(&p->undo, DS_CALL);
            }
            return another_call(p);
        }
        ended = got == 1 && i == 3;
    }
    return first && !ended ? no_call(p) : back_to_content(p);
}

static enum verdict at_next(struct weir_output_parser *p)
{
    int got;

    weir_buf_clear(&p->undo);
    if (p->format.tools == WEIR_TOOLS_DEEPSEEK)
        return next_deepseek(p);
    drop_spaces(p);
    if (weir_buf_len(&p->held) == 0 && !p->at_end)
        return MORE;
    char c = weir_buf_len(&p->held) ? weir_buf_ptr(&p->held)[0] : 0;
    if (c == '{' && p->format.tools != WEIR_TOOLS_MISTRAL)
        return another_call(p);
    switch (p->format.tools) {
    case WEIR_TOOLS_HERMES:
        got = take(p, HERMES_END);
        return got < 0 ? MORE : back_to_content(p);
    case WEIR_TOOLS_MISTRAL:
        if (!p->in_list || (c != ',' && c != ']' && c != '{'))
            return back_to_content(p);
        if (c == '{')
            return another_call(p);
        weir_buf_consume(&p->held, 1);
        return c == ']' ? back_to_content(p) : GO;
    default:
        if (c != ';' && c != ',')
            return back_to_content(p);
        weir_buf_consume(&p->held, 1);
        return GO;
    }
}

/* Code behind <|python_tag|>: {"code": "..."}. */
static void tell_code(struct weir_output_parser *p)
{
    struct weir_str s = held(p);
    struct weir_buf out;
    struct weir_jw w;

    weir_buf_init(&out, /* limit_bytes= */ 0); /* six times a piece at most */
    weir_jw_init(&w, &out);
    weir_jw_str(&w, s);
    p->failed = p->failed || out.failed;
    if (!out.failed && s.len > 0) /* without its quotes */
        tell(p, WEIR_OUTPUT_ARGUMENTS, (struct weir_str){ weir_buf_ptr(&out) + 1, weir_buf_len(&out) - 2 });
    weir_buf_release(&out);
    weir_buf_consume(&p->held, s.len);
}

static enum verdict in_code(struct weir_output_parser *p)
{
    tell_code(p);
    if (!p->at_end)
        return MORE;
    tell(p, WEIR_OUTPUT_ARGUMENTS, WEIR_STR("\"}"));
    end_call(p);
    p->state = IN_CONTENT;
    return GO;
}

/* ---- reasoning and content ---- */

static enum verdict at_start(struct weir_output_parser *p)
{
    struct weir_str s = held(p);
    size_t i = spaces(s, 0);
    int got = i < s.len ? marker_at(p, s, i, THINK) : p->at_end ? 0 : -1;

    if (got < 0)
        return MORE;
    if (got == 1)
        weir_buf_consume(&p->held, i + strlen(THINK));
    p->skip_space = got == 1 || p->format.in_reasoning;
    p->state = got == 1 || p->format.in_reasoning ? IN_REASONING : IN_CONTENT;
    return GO;
}

/* Tells what is before `marker`, or what can't be part of it, without the white space in front of it. True: the
 * marker is at the front now. */
static bool up_to(struct weir_output_parser *p, enum weir_output_kind kind, const char *marker)
{
    int got = 0;

    if (p->skip_space)
        drop_spaces(p);
    struct weir_str s = held(p);
    size_t end = marker ? find_marker(p, s, marker, &got) : s.len, text = end;
    while (text > 0 && is_space(s.ptr[text - 1]) && (got != 0 || (marker && !p->at_end)))
        text--;
    if (text > 0) {
        p->skip_space = false;
        p->started = p->started || kind == WEIR_OUTPUT_CONTENT;
        tell_held(p, kind, text);
    }
    return got == 1;
}

static enum verdict in_reasoning(struct weir_output_parser *p)
{
    if (!up_to(p, WEIR_OUTPUT_REASONING, THINK_END))
        return MORE;
    drop_spaces(p);
    weir_buf_consume(&p->held, strlen(THINK_END));
    p->skip_space = true;
    p->state = IN_CONTENT;
    return GO;
}

/* Llama answers with the bare object. */
static bool at_bare_call(struct weir_output_parser *p)
{
    struct weir_str s = held(p);
    size_t i = spaces(s, 0);

    return p->format.tools == WEIR_TOOLS_LLAMA3 && !p->started && i < s.len && s.ptr[i] == '{';
}

static enum verdict python_or_json(struct weir_output_parser *p)
{
    size_t i = spaces(held(p), 0);

    if (i == weir_buf_len(&p->held) && !p->at_end)
        return MORE;
    if (i < weir_buf_len(&p->held) && weir_buf_ptr(&p->held)[i] != '{' &&
        p->n_calls < WEIR_OUTPUT_CALLS_MAX) {
        weir_buf_consume(&p->held, i);
        begin_call(p, WEIR_STR("code_interpreter"), /* wrapped= */ false);
        tell(p, WEIR_OUTPUT_ARGUMENTS, WEIR_STR("{\"code\":\""));
        p->state = IN_CODE;
        return GO;
    }
    return another_call(p);
}

static enum verdict in_content(struct weir_output_parser *p)
{
    const char *marker = opening[p->format.tools];

    if (weir_buf_len(&p->undo) > 0) /* the marker of Llama's code, or of DeepSeek's calls, was taken */
        return p->format.tools == WEIR_TOOLS_LLAMA3 ? python_or_json(p) : next_deepseek(p);
    if (at_bare_call(p))
        return another_call(p);
    if (!up_to(p, WEIR_OUTPUT_CONTENT, marker))
        return MORE;
    take(p, marker);
    p->n_passed = 2; /* a call begins, or all end */
    if (p->format.tools == WEIR_TOOLS_LLAMA3 || p->format.tools == WEIR_TOOLS_DEEPSEEK)
        return GO;
    return another_call(p);
}

/* ---- the public face ---- */

static enum verdict step(struct weir_output_parser *p)
{
    switch (p->state) {
    case AT_START:
        return at_start(p);
    case IN_REASONING:
        return in_reasoning(p);
    case IN_CONTENT:
        return in_content(p);
    case AT_HEAD:
        return at_head(p);
    case IN_WHOLE:
        return whole(p);
    case IN_ARGS:
        return in_args(p);
    case IN_TAIL:
        return in_tail(p);
    case AT_NEXT:
        return at_next(p);
    case IN_CODE:
        return in_code(p);
    }
    return MORE;
}

static weir_err run(struct weir_output_parser *p)
{
    while (!p->failed && step(p) == GO)
        p->failed = p->held.failed || p->undo.failed;
    return p->failed || p->held.failed || p->undo.failed ? WEIR_NOMEM : WEIR_OK;
}

weir_err weir_output_parser_push(struct weir_output_parser *p, struct weir_str text)
{
    weir_buf_add(&p->held, text.ptr, text.len);
    return run(p);
}

weir_err weir_output_parser_finish(struct weir_output_parser *p)
{
    p->at_end = true;
    weir_err err = run(p);
    /* White space that was held before a marker that did not come. */
    if (err == WEIR_OK && weir_buf_len(&p->held) > 0 && !p->skip_space)
        tell_held(p, p->state == IN_REASONING ? WEIR_OUTPUT_REASONING : WEIR_OUTPUT_CONTENT,
                  weir_buf_len(&p->held));
    return err;
}

uint32_t weir_output_parser_calls(const struct weir_output_parser *p)
{
    return p->n_calls;
}

weir_err weir_output_parser_open(const struct weir_output_format *format, weir_output_fn *fn, void *ctx,
                                 struct weir_output_parser **ret)
{
    struct weir_output_parser *p = weir_alloc0(sizeof *p);

    if (!p)
        return WEIR_NOMEM;
    p->format = *format;
    p->fn = fn;
    p->ctx = ctx;
    p->state = format->thinks || format->in_reasoning ? AT_START : IN_CONTENT;
    weir_buf_init(&p->held, /* limit_bytes= */ 0); /* WEIR_OUTPUT_HELD_MAX, and one piece */
    weir_buf_init(&p->undo, /* limit_bytes= */ 0);
    *ret = p;
    return WEIR_OK;
}

void weir_output_parser_close(struct weir_output_parser *p)
{
    if (!p)
        return;
    weir_buf_release(&p->held);
    weir_buf_release(&p->undo);
    weir_free(p);
}

/* ---- formats ---- */

static bool has(struct weir_str text, const char *what)
{
    return text.len > 0 && memmem(text.ptr, text.len, what, strlen(what)) != NULL;
}

static bool ends_with(struct weir_str text, const char *what)
{
    size_t n = strlen(what);

    while (text.len > 0 && is_space(text.ptr[text.len - 1]))
        text.len--;
    return text.len >= n && memcmp(text.ptr + text.len - n, what, n) == 0;
}

void weir_output_format_guess(struct weir_str template_text, struct weir_str prompt_end,
                              struct weir_output_format *ret)
{
    *ret = (struct weir_output_format){ .tools = WEIR_TOOLS_NONE };
    if (has(template_text, DS_CALLS))
        ret->tools = WEIR_TOOLS_DEEPSEEK;
    else if (has(template_text, HERMES))
        ret->tools = WEIR_TOOLS_HERMES;
    else if (has(template_text, MISTRAL))
        ret->tools = WEIR_TOOLS_MISTRAL;
    else if (has(template_text, PYTHON) ||
             (has(template_text, "<|start_header_id|>") && has(template_text, "ipython")))
        ret->tools = WEIR_TOOLS_LLAMA3;
    ret->in_reasoning = ends_with(prompt_end, THINK);
    /* A prompt that ends behind the reasoning has had it. */
    ret->thinks = ret->in_reasoning || (has(template_text, THINK_END) && !ends_with(prompt_end, THINK_END));
}

bool weir_tool_format_parse(struct weir_str name, enum weir_tool_format *ret)
{
    static const char *const names[] = { "none", "llama3", "hermes", "mistral", "deepseek" };

    for (int i = 0; i < 5; i++)
        if (weir_str_eq(name, names[i])) {
            *ret = (enum weir_tool_format)i;
            return true;
        }
    return false;
}

bool weir_output_wants_special(const struct weir_output_format *format, struct weir_str token)
{
    static const struct {
        enum weir_tool_format tools;
        const char *marker;
    } markers[] = {
        { WEIR_TOOLS_LLAMA3, PYTHON },      { WEIR_TOOLS_HERMES, HERMES },
        { WEIR_TOOLS_HERMES, HERMES_END },  { WEIR_TOOLS_MISTRAL, MISTRAL },
        { WEIR_TOOLS_MISTRAL, MISTRAL_ID }, { WEIR_TOOLS_MISTRAL, MISTRAL_ARGS },
        { WEIR_TOOLS_DEEPSEEK, DS_CALLS },  { WEIR_TOOLS_DEEPSEEK, DS_CALLS_END },
        { WEIR_TOOLS_DEEPSEEK, DS_CALL },   { WEIR_TOOLS_DEEPSEEK, DS_CALL_END },
        { WEIR_TOOLS_DEEPSEEK, DS_SEP },
    };

    if (weir_str_eq(token, THINK) || weir_str_eq(token, THINK_END))
        return format->thinks || format->in_reasoning;
    for (size_t i = 0; i < sizeof markers / sizeof *markers; i++)
        if (markers[i].tools == format->tools && weir_str_eq(token, markers[i].marker))
            return true;
    return false;
}
