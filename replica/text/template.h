/* template.h - chat templates: the Jinja that model makers publish, bounded in time and memory.
 *
 * Compiled once at load, rendered by any thread. Equal, byte for byte, to the jinja2 package set up as
 * transformers sets it (trim_blocks, lstrip_blocks, tojson, raise_exception, strftime_now). */
#ifndef WEIR_REPLICA_TEXT_TEMPLATE_H
#define WEIR_REPLICA_TEXT_TEMPLATE_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "replica/text/tokenizer.h" /* struct weir_span */

struct weir_template;

/* WEIR_CORRUPT: not a template; `why` names the line. WEIR_UNIMPLEMENTED: a construct we don't know, named.
 */
WEIR_MUST_CHECK weir_err weir_template_compile(struct weir_str source, struct weir_template **ret,
                                               struct weir_why *why);
void weir_template_close(struct weir_template *t);

struct weir_chat_message {
    struct weir_str role, content;
};
struct weir_template_args {
    const struct weir_chat_message *messages;
    int n_messages;
    bool add_generation_prompt;
    struct weir_str bos, eos;
    uint64_t now_unix; /* what strftime_now shows; seconds, UTC */
    /* A JSON object whose members become variables too: tools, documents, enable_thinking, ...; one that is
     * called "messages" takes the place of those above. Empty: none. WEIR_INVALID when it is malformed. */
    struct weir_str variables;
};
/* Appends to `out` (bounded by out->limit). WEIR_INVALID: the template refused the messages
 * (raise_exception), `why` carries its words. WEIR_TOOLARGE: over the bound of steps or bytes. */
WEIR_MUST_CHECK weir_err weir_template_render(const struct weir_template *t,
                                              const struct weir_template_args *args, struct weir_buf *out,
                                              struct weir_why *why);
/* The same, and which bytes of the text came from the messages and the variables rather than from the template:
 * spans of text appended to `out` by this call (offset 0 is its first byte), in order, not touching each other,
 * in `arena`. Where a filter makes a new text out of given and fixed parts in a way that mixes them, all of it
 * counts as given. */
WEIR_MUST_CHECK weir_err weir_template_render_spans(const struct weir_template *t,
                                                    const struct weir_template_args *args,
                                                    struct weir_buf *out, struct weir_arena *arena,
                                                    struct weir_span **ret_spans, size_t *ret_n_spans,
                                                    struct weir_why *why);
/* The chat_template of <dir>: tokenizer_config.json or chat_template.jinja; WEIR_NOTFOUND when it has none.
 * The text is written to `out`. Where the model has another one for talks with tools ("tool_use"), it is a template
 * that chooses by whether `tools` is given. */
WEIR_MUST_CHECK weir_err weir_template_load(const char *dir, struct weir_buf *out, struct weir_why *why);

#endif
