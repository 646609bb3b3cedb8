/* answer.h - what a call says, as an OpenAI answer over HTTP: one JSON body, or server-sent events.
 *
 * One answer per request, on the connection's loop. It owns nothing but its buffers: the gateway ties it to
 * the call. */
#ifndef WEIR_ROUTER_GATEWAY_ANSWER_H
#define WEIR_ROUTER_GATEWAY_ANSWER_H

#include "http/http_server.h"
#include "router/call/call.h"
#include "router/gateway/limit_headers.h"
#include "router/gateway/parse.h"

/* What the answers of one loop share. */
struct weir_answer_env {
    struct weir_callset *set;
    const char *perf_prefix; /* before the names of performance headers */
    struct weir_buf scratch; /* one event under construction */
    enum weir_limit_unit limit_unit;
};

/* Starts the call and answers `http` when it speaks. Takes both: the request is closed with the call, and
 * `http` is answered (or its on_gone cancels the call). */
void weir_answer_start(struct weir_answer_env *env, struct weir_request *req,
                       const struct weir_answer_opts *opts, struct weir_http_req *http);

/* The body of an error in OpenAI's shape: {"error":{"message","type","param","code"},"request_id"}. */
void weir_answer_error_body(struct weir_buf *out, weir_err err, const struct weir_why *why,
                            const char *request_id);
/* A whole error answer. Ends `http`. `retry_after_ms` 0 = no advice. */
void weir_answer_error(struct weir_http_req *http, weir_err err, const struct weir_why *why,
                       const char *request_id, uint32_t retry_after_ms);

#endif
