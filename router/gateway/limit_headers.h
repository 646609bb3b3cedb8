/* limit_headers.h - the limits as response headers: x-ratelimit-*. */
#ifndef WEIR_ROUTER_GATEWAY_LIMIT_HEADERS_H
#define WEIR_ROUTER_GATEWAY_LIMIT_HEADERS_H

#include "http/http_server.h"
#include "router/call/limit_note.h"

enum weir_limit_unit { WEIR_LIMIT_PER_SECOND, WEIR_LIMIT_PER_MINUTE };

/* Nothing for a call without limits. The older set, per minute and with requests, where over-limit work is served last;
 * else the present one, in tokens per `unit`. */
void weir_limit_headers_add(struct weir_http_fields *fields, const struct weir_limit_note *note,
                            enum weir_limit_unit unit);

#endif
