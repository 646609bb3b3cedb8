/* parse_int.h - what the readers of request bodies share: the state, and how values are read.
 *
 * The pull parser's first error sticks and carries the path, so a reader just reads and returns. */
#ifndef WEIR_ROUTER_GATEWAY_PARSE_INT_H
#define WEIR_ROUTER_GATEWAY_PARSE_INT_H

#include "base/json.h"
#include "router/gateway/parse.h"

struct parse {
    struct weir_json j;
    struct weir_request *req;
    Weir__V1__GenerateRequest *msg;
    struct weir_answer_opts *opts;
    bool has_max_completion_tokens, has_max_tokens;
    bool has_effort, has_thinking, has_kwargs; /* reasoning_effort, thinking, chat_template_kwargs */
    bool has_tools, has_functions;             /* the newer and the older shape: one of them */
    bool has_tool_choice, has_function_call;
};

/* ---- values: parse_value.c ---- */
bool parse_nomem(struct parse *p);              /* false, for a tail call */
void *parse_room(struct parse *p, size_t size); /* zeroed; NULL after nomem */
/* A copy of the next value in the arena; a NUL in it is refused. *ret is written on success. */
void parse_string(struct parse *p, char **ret);
void parse_copy(struct parse *p, struct weir_str s, char **ret);
void parse_count(struct parse *p, uint32_t *ret);
void parse_flag(struct parse *p, protobuf_c_boolean *ret);
/* Takes a null: true when it was one. */
bool parse_null(struct parse *p);
/* A growing list of pointers in the arena. */
bool parse_list_add(struct parse *p, void ***list, size_t *n, void *item);
bool parse_ids_add(struct parse *p, Weir__V1__TokenIds *ids, int64_t id);
/* "unknown field" or, when it is there already, "given twice". */
void parse_unknown(struct parse *p, bool is_twice);

/* A "type" that has one value only. */
void parse_type(struct parse *p, const char *wanted);

/* ---- what is asked: parse_prompt.c, parse_chat.c ---- */
void parse_prompt(struct parse *p);
void parse_messages(struct parse *p);
/* A string or parts of text, put together. */
void parse_content(struct parse *p, char **ret);

/* ---- parse_tools.c ---- */
void parse_tools(struct parse *p);
void parse_tool_choice(struct parse *p);
void parse_functions(struct parse *p);     /* the older shape of tools */
void parse_function_call(struct parse *p); /* the older shape of tool_choice */

/* ---- how to answer and how to think: parse_format.c ---- */
void parse_response_format(struct parse *p);
void parse_reasoning_effort(struct parse *p);
void parse_reasoning_history(struct parse *p);
void parse_thinking(struct parse *p);
void parse_template_kwargs(struct parse *p);

#endif
