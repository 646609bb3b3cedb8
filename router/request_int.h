/* request_int.h - what the files that check a request share. Each check names the field as REST spells it. */
#ifndef WEIR_ROUTER_REQUEST_INT_H
#define WEIR_ROUTER_REQUEST_INT_H

#include "router/request.h"

/* WEIR_INVALID, with "<param>: <text>". */
weir_err request_bad(struct weir_why *why, const char *param, const char *text);
/* min 0 or 1 bytes, max 0 = the body's bound is enough; UTF-8. */
weir_err request_check_text(const char *param, const char *text, size_t min, size_t max,
                            struct weir_why *why);

/* request_chat.c */
weir_err request_check_chat(struct weir_request *req, struct weir_why *why);
weir_err request_check_tools(struct weir_request *req, struct weir_why *why);
weir_err request_check_format(struct weir_request *req, struct weir_why *why);

#endif
