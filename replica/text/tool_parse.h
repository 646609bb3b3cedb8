/* tool_parse.h - what a model wrote, taken apart while it comes: reasoning, content and tool calls.
 *
 * One parser for a choice. Text comes in pieces of any size (after detokenization and stop strings); events go
 * out in order, and they do not depend on how the text was cut. What may be the start of a marker is held until
 * it is known; nothing of a marker is ever told. Text that looks like a call but is none (JSON that is malformed
 * or has no name) comes out as the content it was. Once a call's arguments have begun they are passed on as they
 * come, so a client may see arguments that are not JSON, as the model wrote them.
 *
 * Not here: whether a call names a tool that exists, call ids (the caller makes them). One thread at a time. */
#ifndef WEIR_REPLICA_TEXT_TOOL_PARSE_H
#define WEIR_REPLICA_TEXT_TOOL_PARSE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "replica/text/tokenizer.h"

enum weir_tool_format {
    WEIR_TOOLS_NONE,   /* no calls: all is content */
    WEIR_TOOLS_LLAMA3, /* the whole answer is {"name": ..., "parameters": {...}}, perhaps several with ';',
                          * or <|python_tag|> before it; <|python_tag|> and code: a call of "code_interpreter" */
    WEIR_TOOLS_HERMES, /* <tool_call>{"name": ..., "arguments": {...}}</tool_call>: Hermes, Qwen 2.5 and 3; or, as
                          * Qwen's coders do, <tool_call><function=name><parameter=key>value</parameter>...</function> */
    WEIR_TOOLS_MISTRAL,  /* [TOOL_CALLS][{"name": ..., "arguments": {...}}, ...] or [TOOL_CALLS]name{...} */
    WEIR_TOOLS_DEEPSEEK, /* <|tool_calls_begin|> ... with DeepSeek's bars; name, ```json, arguments, ``` */
};

/* A function that may be called, and the JSON schema of its arguments: what type a value in tags is. */
struct weir_output_tool {
    struct weir_str name, parameters;
};
/* What reasoning stands between, and what models write behind its end. */
enum weir_think_form { WEIR_THINK_TAGS, WEIR_THINK_BRACKETS };
struct weir_think_marks {
    const char *begin, *end; /* <think> </think>, or Mistral's [THINK] [/THINK] */
    const char *behind;
};
const struct weir_think_marks *weir_think_marks_of(enum weir_think_form form);
bool weir_think_is_end(struct weir_str token); /* of either form */

struct weir_output_format {
    enum weir_tool_format tools;
    bool in_tags; /* HERMES: the model was taught tags rather than JSON; both are understood */
    enum weir_think_form think;
    bool thinks; /* what stands between the marks at the start is reasoning */
    /* The prompt ends within it: the template wrote the first mark itself, so the answer begins as reasoning. */
    bool in_reasoning;
    const struct weir_output_tool *described; /* borrowed while a parser is open; may be NULL */
    size_t n_described;
};
/* What a chat template's text says of the answers its model gives. Never fails: what it does not know is
 * {NONE, TAGS, false, false}. tok: special tokens that are the marks of reasoning say so too, where the template does
 * not; may be NULL. prompt_end: the end of the rendered prompt (64 bytes are enough), for in_reasoning. */
void weir_output_format_guess(struct weir_str template_text, const struct weir_tokenizer *tok,
                              struct weir_str prompt_end, struct weir_output_format *ret);
/* "none", "llama3", "hermes", "mistral", "deepseek"; false for any other name. */
bool weir_tool_format_parse(struct weir_str name, enum weir_tool_format *ret);
/* Whether a special token of this spelling is a marker that the parser must see: detokenize it with its text
 * (weir_token_bytes with_special) when true, drop it as always when false. */
bool weir_output_wants_special(const struct weir_output_format *format, struct weir_str token);

enum weir_output_kind {
    WEIR_OUTPUT_CONTENT,   /* text: a piece of it */
    WEIR_OUTPUT_REASONING, /* text: a piece of it */
    WEIR_OUTPUT_CALL,      /* a call begins; text: the function's name */
    WEIR_OUTPUT_ARGUMENTS, /* text: a piece of the JSON text of this call's arguments */
    WEIR_OUTPUT_CALL_END,  /* text: empty */
};
struct weir_output_event {
    enum weir_output_kind kind;
    uint32_t call;        /* CALL, ARGUMENTS, CALL_END: 0 for the first call of the choice, then 1, ... */
    struct weir_str text; /* until the function returns; never empty but for CALL_END */
};
typedef void weir_output_fn(void *ctx, const struct weir_output_event *event);

#define WEIR_OUTPUT_CALLS_MAX 128u        /* in one choice; more are content */
#define WEIR_OUTPUT_NAME_MAX 256u         /* bytes of a function's name; a longer one is no call */
#define WEIR_OUTPUT_HELD_MAX (256u << 10) /* bytes held back at most; a call that needs more is content */
/* Schemas looked at to find whether a value in tags is text: it and those it refers to. Past it a value is JSON. */
#define WEIR_OUTPUT_TYPE_LOOKS_MAX 16

struct weir_output_parser;
/* WEIR_NOMEM only. */
WEIR_MUST_CHECK weir_err weir_output_parser_open(const struct weir_output_format *format, weir_output_fn *fn,
                                                 void *ctx, struct weir_output_parser **ret);
/* Calls fn for what the text settles. WEIR_NOMEM: what was held is lost; close the parser. */
WEIR_MUST_CHECK weir_err weir_output_parser_push(struct weir_output_parser *p, struct weir_str text);
/* The text is at its end: what was held comes out; a call under way ends. */
WEIR_MUST_CHECK weir_err weir_output_parser_finish(struct weir_output_parser *p);
uint32_t weir_output_parser_calls(const struct weir_output_parser *p); /* calls begun so far */
void weir_output_parser_close(struct weir_output_parser *p);           /* takes NULL */

#endif
