/* requests.h - making requests by hand. Everything hangs on the request's arena. */
#ifndef WEIR_TESTS_ROUTER_CORE_REQUESTS_H
#define WEIR_TESTS_ROUTER_CORE_REQUESTS_H

#include <string.h>

#include "router/request.h"

static inline char *req_text(struct weir_request *req, const char *text)
{
    return weir_arena_strndup(&req->arena, text, strlen(text));
}

static inline struct weir_request *req_open(const char *model)
{
    struct weir_request *req = weir_request_open();

    req->msg->model = req_text(req, model);
    req->account = weir_str("acme");
    return req;
}

static inline void req_add(struct weir_request *req, const char *role, const char *content)
{
    Weir__V1__GenerateRequest *msg = req->msg;

    if (msg->input_case != WEIR__V1__GENERATE_REQUEST__INPUT_CHAT) {
        msg->input_case = WEIR__V1__GENERATE_REQUEST__INPUT_CHAT;
        msg->chat = weir_arena_alloc(&req->arena, sizeof *msg->chat);
        weir__v1__chat__init(msg->chat);
        msg->chat->messages = weir_arena_alloc0(&req->arena, 5000 * sizeof *msg->chat->messages);
    }
    Weir__V1__Message *message = weir_arena_alloc(&req->arena, sizeof *message);
    weir__v1__message__init(message);
    message->role = req_text(req, role);
    message->content = req_text(req, content);
    msg->chat->messages[msg->chat->n_messages++] = message;
}

static inline void req_prompt(struct weir_request *req, const char *prompt)
{
    req->msg->input_case = WEIR__V1__GENERATE_REQUEST__INPUT_PROMPT;
    req->msg->prompt = req_text(req, prompt);
}

#endif
