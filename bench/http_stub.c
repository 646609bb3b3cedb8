/* http_stub.c - see http_stub.h. The bodies have the bytes of a router's own answers, so that all sides move as much. */
#include "bench/http_stub.h"

#include <string.h>

#include "base/mem.h"

#define EVENT                                                                                                \
    "data: {\"id\":\"chatcmpl-18e9f94325a5876f0000000000000001\",\"object\":\"chat.completion.chunk\","      \
    "\"created\":1795240016,\"model\":\"demo\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" tok\"},"  \
    "\"logprobs\":null,\"finish_reason\":null}],\"usage\":null}\n\n"
#define END "data: [DONE]\n\n"
#define BODY                                                                                                 \
    "{\"id\":\"chatcmpl-18e9f94325a5876f0000000000000001\",\"object\":\"chat.completion\",\"created\":"      \
    "1795240016,"                                                                                            \
    "\"model\":\"demo\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\" tok "   \
    "tok tok tok "                                                                                           \
    "tok tok tok tok tok tok tok tok tok tok tok "                                                           \
    "tok\"},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":"                                       \
    "{\"prompt_tokens\":100,\"total_tokens\":116,\"completion_tokens\":16,\"prompt_tokens_details\":{"       \
    "\"cached_tokens\":0}}}"

struct stream {
    struct http_stub *stub;
    struct weir_http_req *req;
    struct weir_timer timer;
    uint32_t n_sent;
    uint64_t next_ns;
};

struct http_stub {
    struct http_stub_opts opts;
    struct weir_loop *loop;
    struct weir_http_server *server;
};

static void stream_end(struct stream *s)
{
    weir_loop_timer_clear(s->stub->loop, &s->timer);
    weir_free(s);
}

static void on_gone(struct weir_http_req *req)
{
    stream_end(req->user);
}

static void tick(struct weir_timer *timer)
{
    struct stream *s = (struct stream *)((char *)timer - offsetof(struct stream, timer));
    bool at_once = s->stub->opts.gap_ns == 0;
    weir_err err = WEIR_OK;

    do
        err = weir_http_stream_write(s->req, EVENT, sizeof EVENT - 1);
    while (++s->n_sent < s->stub->opts.n_events && at_once && err == WEIR_OK);
    if (err == WEIR_OK && s->n_sent >= s->stub->opts.n_events)
        err = weir_http_stream_write(s->req, END, sizeof END - 1);
    if (err != WEIR_OK) {
        weir_http_abort(s->req);
        stream_end(s);
    } else if (s->n_sent >= s->stub->opts.n_events) {
        weir_http_stream_end(s->req);
        stream_end(s);
    } else {
        s->next_ns += s->stub->opts.gap_ns;
        (void)!weir_loop_timer_set(s->stub->loop, &s->timer, s->next_ns);
    }
}

static void on_request(void *ctx, struct weir_http_req *req)
{
    struct http_stub *stub = ctx;
    struct weir_http_fields fields;

    weir_http_fields_init(&fields);
    if (!memmem(req->body.ptr, req->body.len, "\"stream\":true", 13)) {
        weir_http_fields_adds(&fields, "content-type", "application/json");
        weir_http_respond(req, 200, &fields, BODY, sizeof BODY - 1);
        return;
    }
    struct stream *s = weir_alloc0(sizeof *s);
    if (!s) {
        weir_http_respond(req, 503, NULL, "", 0);
        return;
    }
    *s = (struct stream){ .stub = stub, .req = req, .timer.run = tick };
    req->user = s;
    req->on_gone = on_gone;
    weir_http_fields_adds(&fields, "content-type", "text/event-stream");
    weir_http_stream_begin(req, 200, &fields);
    s->next_ns = weir_loop_now(stub->loop) + stub->opts.gap_ns;
    if (stub->opts.gap_ns == 0)
        tick(&s->timer);
    else
        (void)!weir_loop_timer_set(stub->loop, &s->timer, s->next_ns);
}

weir_err http_stub_open(const struct http_stub_opts *opts, struct weir_loop *loop, struct http_stub **ret,
                        struct weir_why *why)
{
    struct http_stub *stub = weir_alloc0(sizeof *stub);
    struct weir_http_opts http = { .name = "stub", .listen = opts->listen };
    struct weir_http_hooks hooks = { .ctx = stub, .on_request = on_request };

    if (!stub)
        return weir_fail(why, WEIR_NOMEM, "no memory for the stub");
    stub->opts = *opts;
    stub->loop = loop;
    weir_err err = weir_http_server_open(&http, &hooks, &loop, 1, &stub->server, why);
    if (err != WEIR_OK) {
        weir_free(stub);
        return err;
    }
    *ret = stub;
    return WEIR_OK;
}

int http_stub_port(const struct http_stub *stub)
{
    return weir_http_server_port(stub->server);
}

void http_stub_close(struct http_stub *stub)
{
    if (!stub)
        return;
    weir_http_server_close(stub->server);
    weir_free(stub);
}
