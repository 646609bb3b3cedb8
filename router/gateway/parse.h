/* parse.h - an OpenAI request body into a weir_request, strictly: what is unknown or out of range is named.
 */
#ifndef WEIR_ROUTER_GATEWAY_PARSE_H
#define WEIR_ROUTER_GATEWAY_PARSE_H

#include "router/request.h"

#define WEIR_PROMPTS_MAX 128 /* of one completion request; times n, at most WEIR_CHOICES_MAX */

/* One of several prompts: text, or else ids. */
struct weir_prompt {
    char *text;
    Weir__V1__TokenIds *ids;
};

/* What concerns the answer's shape alone and never travels to a replica. */
struct weir_answer_opts {
    bool chat;
    bool stream;
    bool include_usage;    /* a last chunk with usage and no choices */
    bool legacy_logprobs;  /* logprobs as a number: the older shape */
    bool legacy_functions; /* functions instead of tools: the answer's shape too */
    /* More than one prompt: a call for each, in this order; the message has the first. On the request's arena. */
    const struct weir_prompt *prompts;
    uint32_t n_prompts; /* 0 or 1: just the message's */
};

/* `chat`: /v1/chat/completions, else /v1/completions. Fills req->msg from `body`, which must live as long as
 * the request or be copied: strings are copied to the arena. Calls weir_request_check. A null counts as
 * absent. WEIR_INVALID: malformed JSON, an unknown, repeated or mistyped field, a value out of range:
 * `why->param` names it. */
WEIR_MUST_CHECK weir_err weir_parse_openai(struct weir_request *req, bool chat, struct weir_str body,
                                           struct weir_answer_opts *ret, struct weir_why *why);

#endif
