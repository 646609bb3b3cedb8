/* parse.h - an OpenAI request body into a weir_request, strictly: what is unknown or out of range is named.
 */
#ifndef WEIR_ROUTER_GATEWAY_PARSE_H
#define WEIR_ROUTER_GATEWAY_PARSE_H

#include "router/request.h"

/* What concerns the answer's shape alone and never travels to a replica. */
struct weir_answer_opts {
    bool chat;
    bool stream;
    bool include_usage;   /* a last chunk with usage and no choices */
    bool legacy_logprobs; /* completions: logprobs as a number */
};

/* `chat`: /v1/chat/completions, else /v1/completions. Fills req->msg from `body`, which must live as long as
 * the request or be copied: strings are copied to the arena. Calls weir_request_check. A null counts as
 * absent. WEIR_INVALID: malformed JSON, an unknown, repeated or mistyped field, a value out of range:
 * `why->param` names it. */
WEIR_MUST_CHECK weir_err weir_parse_openai(struct weir_request *req, bool chat, struct weir_str body,
                                           struct weir_answer_opts *ret, struct weir_why *why);

#endif
