/* tool_parse.c - an answer's text as content, reasoning and tool calls, while it comes.
 *
 * Text that is not settled is held; each state looks at the front of what is held and either settles some of it or
 * asks for more. What a state decides depends on the text alone, never on where it was cut:
 *   [W1] The events, their pieces joined, are the same for every cutting of the same text.
 *   [W2] A byte is looked at a bounded number of times: long values are scanned on from where the scan stood.
 *   [W3] A call begins only when its name is known and its arguments have begun; until then it can still turn out to
 *        be content, marker and all.
 * White space around reasoning and around calls belongs to the form, not to the text, and is dropped. */
#include "replica/text/tool_parse_int.h"

#include <string.h>

#include "base/mem.h"

static const char *const opening[] = { [WEIR_TOOLS_NONE] = NULL,
                                       [WEIR_TOOLS_LLAMA3] = PYTHON,
                                       [WEIR_TOOLS_HERMES] = HERMES,
                                       [WEIR_TOOLS_MISTRAL] = MISTRAL,
                                       [WEIR_TOOLS_DEEPSEEK] = DS_CALLS };

/* ---- pieces ---- */

struct weir_str parse_held(const struct weir_output_parser *p)
{
    return (struct weir_str){ weir_buf_ptr(&p->held), weir_buf_len(&p->held) };
}

struct weir_str parse_held_most(const struct weir_output_parser *p, size_t n_most)
{
    size_t n = weir_buf_len(&p->held);

    return (struct weir_str){ weir_buf_ptr(&p->held), n < n_most ? n : n_most };
}

void parse_tell(struct weir_output_parser *p, enum weir_output_kind kind, struct weir_str text)
{
    uint32_t call = p->n_calls ? p->n_calls - 1 : 0;
    const struct weir_output_event event = { kind, kind >= WEIR_OUTPUT_CALL ? call : 0, text };

    if (text.len > 0 || kind == WEIR_OUTPUT_CALL_END)
        p->fn(p->ctx, &event);
}

void parse_let_go(struct weir_output_parser *p, size_t n)
{
    weir_buf_consume(&p->held, n);
    p->n_spaces = p->n_spaces > n ? p->n_spaces - n : 0;
}

/* Tells the first n bytes of what is held and lets go of them. */
void parse_tell_held(struct weir_output_parser *p, enum weir_output_kind kind, size_t n)
{
    parse_tell(p, kind, (struct weir_str){ weir_buf_ptr(&p->held), n });
    parse_let_go(p, n);
}

bool parse_is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

size_t parse_spaces(struct weir_str s, size_t i)
{
    while (i < s.len && parse_is_space(s.ptr[i]))
        i++;
    return i;
}

/* [W2] */
size_t parse_spaces_held(struct weir_output_parser *p)
{
    p->n_spaces = parse_spaces(parse_held(p), p->n_spaces);
    return p->n_spaces;
}

void parse_drop_spaces(struct weir_output_parser *p)
{
    parse_let_go(p, parse_spaces_held(p));
}

int parse_marker_at(const struct weir_output_parser *p, struct weir_str s, size_t i, const char *marker)
{
    size_t n = strlen(marker), have = s.len - i;

    if (memcmp(s.ptr + i, marker, have < n ? have : n) != 0)
        return 0;
    return have >= n ? 1 : p->at_end ? 0 : -1;
}

size_t parse_find_marker(const struct weir_output_parser *p, struct weir_str s, size_t i, const char *marker,
                         int *ret)
{
    for (; i < s.len; i++) {
        const char *hit = memchr(s.ptr + i, marker[0], s.len - i);
        if (!hit)
            break;
        i = (size_t)(hit - s.ptr);
        *ret = parse_marker_at(p, s, i, marker);
        if (*ret != 0)
            return i;
    }
    *ret = 0;
    return s.len;
}

int parse_take(struct weir_output_parser *p, const char *marker)
{
    struct weir_str s = parse_held(p);
    size_t i = parse_spaces_held(p);
    int got = i < s.len ? parse_marker_at(p, s, i, marker) : p->at_end ? 0 : -1;

    if (got == 1) {
        weir_buf_add(&p->undo, s.ptr, i + strlen(marker));
        parse_let_go(p, i + strlen(marker));
    }
    return got;
}

/* ---- reasoning and content ---- */

static enum verdict at_start(struct weir_output_parser *p)
{
    const char *begin = weir_think_marks_of(p->format.think)->begin;
    struct weir_str s = parse_held(p);
    size_t i = parse_spaces_held(p);
    int got = i < s.len ? parse_marker_at(p, s, i, begin) : p->at_end ? 0 : -1;

    if (got < 0)
        return MORE;
    if (got == 1)
        parse_let_go(p, i + strlen(begin));
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
        parse_drop_spaces(p);
    struct weir_str s = parse_held(p);
    size_t begin = parse_spaces_held(p);
    size_t end = marker ? parse_find_marker(p, s, begin, marker, &got) : s.len, text = end;
    bool drops_spaces = got != 0 || (marker && !p->at_end);
    while (text > begin && drops_spaces && parse_is_space(s.ptr[text - 1]))
        text--;
    if (text == begin && drops_spaces)
        text = 0;
    if (text > 0) {
        p->skip_space = false;
        p->started = p->started || kind == WEIR_OUTPUT_CONTENT;
        parse_tell_held(p, kind, text);
    }
    return got == 1;
}

static enum verdict in_reasoning(struct weir_output_parser *p)
{
    const char *end = weir_think_marks_of(p->format.think)->end;

    if (!up_to(p, WEIR_OUTPUT_REASONING, end))
        return MORE;
    parse_drop_spaces(p);
    parse_let_go(p, strlen(end));
    p->skip_space = true;
    p->state = IN_CONTENT;
    return GO;
}

/* Llama answers with the bare object. */
static bool at_bare_call(struct weir_output_parser *p)
{
    struct weir_str s = parse_held(p);
    size_t i = parse_spaces_held(p);

    return p->format.tools == WEIR_TOOLS_LLAMA3 && !p->started && i < s.len && s.ptr[i] == '{';
}

static enum verdict python_or_json(struct weir_output_parser *p)
{
    size_t i = parse_spaces_held(p);

    if (i == weir_buf_len(&p->held) && !p->at_end)
        return MORE;
    if (i < weir_buf_len(&p->held) && weir_buf_ptr(&p->held)[i] != '{' &&
        p->n_calls < WEIR_OUTPUT_CALLS_MAX) {
        parse_let_go(p, i);
        parse_begin_call(p, WEIR_STR("code_interpreter"), /* wrapped= */ false);
        parse_tell(p, WEIR_OUTPUT_ARGUMENTS, WEIR_STR("{\"code\":\""));
        p->state = IN_CODE;
        return GO;
    }
    return parse_another_call(p);
}

static enum verdict in_content(struct weir_output_parser *p)
{
    const char *marker = opening[p->format.tools];

    if (weir_buf_len(&p->undo) > 0) /* the marker of Llama's code, or of DeepSeek's calls, was taken */
        return p->format.tools == WEIR_TOOLS_LLAMA3 ? python_or_json(p) : parse_next_deepseek(p);
    if (at_bare_call(p))
        return parse_another_call(p);
    if (!up_to(p, WEIR_OUTPUT_CONTENT, marker))
        return MORE;
    parse_take(p, marker);
    p->n_passed = 2; /* a call begins, or all end */
    if (p->format.tools == WEIR_TOOLS_LLAMA3 || p->format.tools == WEIR_TOOLS_DEEPSEEK)
        return GO;
    return parse_another_call(p);
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
        return parse_at_head(p);
    case IN_WHOLE:
        return parse_whole(p);
    case IN_ARGS:
        return parse_in_args(p);
    case IN_TAIL:
        return parse_in_tail(p);
    case AT_NEXT:
        return parse_at_next(p);
    case IN_CODE:
        return parse_in_code(p);
    case IN_XML:
        return parse_in_xml(p);
    case IN_XML_TEXT:
        return parse_in_xml_text(p);
    case IN_XML_VALUE:
        return parse_in_xml_value(p);
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
        parse_tell_held(p, p->state == IN_REASONING ? WEIR_OUTPUT_REASONING : WEIR_OUTPUT_CONTENT,
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
