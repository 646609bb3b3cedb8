/* http_stub.h - an HTTP server that answers like a router in front of a stub replica: what proxies are measured against. */
#ifndef WEIR_BENCH_HTTP_STUB_H
#define WEIR_BENCH_HTTP_STUB_H

#include "base/err.h"
#include "http/http_server.h"

struct http_stub;

struct http_stub_opts {
    const char *listen;
    uint32_t n_events; /* of a streamed answer, before the last one and [DONE] */
    uint64_t gap_ns;   /* between a stream's events; 0 = all at once */
};

/* One loop, which the caller runs. */
WEIR_MUST_CHECK weir_err http_stub_open(const struct http_stub_opts *opts, struct weir_loop *loop,
                                        struct http_stub **ret, struct weir_why *why);
int http_stub_port(const struct http_stub *stub);
void http_stub_close(struct http_stub *stub); /* when the loop runs no more; takes NULL */

#endif
