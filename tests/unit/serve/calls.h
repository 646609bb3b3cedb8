/* calls.h - calls by hand, on a serve without threads or an engine: the bundled model's tokenizer, a template of the
 * test's. */
#ifndef WEIR_TESTS_UNIT_SERVE_CALLS_H
#define WEIR_TESTS_UNIT_SERVE_CALLS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "replica/serve/serve_int.h"

extern struct weir_serve serve;

/* `template` NULL: the model has none. The context holds 1,024 tokens. */
void serve_begin(const char *template_text);
/* The same with a tokenizer from another folder. */
void serve_begin_in(const char *dir, const char *template_text);
void serve_end(void);

struct call *call_make(void); /* of an empty message */
void call_free(struct call *call);
void call_add_message(struct call *call, const char *role, const char *content);
void call_add_tool(struct call *call, const char *name, const char *parameters);
void call_set_format(struct call *call, Weir__V1__ResponseFormatKind kind, const char *text);
/* Its message, to be changed. */
Weir__V1__GenerateRequest *call_msg(struct call *call);
char *call_text(struct call *call, const char *text);
/* The prompt's tokens as text. Until the next call. */
const char *call_prompt_text(const struct call *call);

#endif
