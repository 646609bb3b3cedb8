/* etcd_http.h - the door to libcurl, for the files of discovery/: many requests in flight on one thread.
 *
 * A call is opened, moved on by perform, and freed by it right after its on_done; closing one earlier cancels
 * it and no callback follows. Callbacks run inside perform only. All functions on one thread, but wake: any.
 */
#ifndef WEIR_DISCOVERY_ETCD_HTTP_H
#define WEIR_DISCOVERY_ETCD_HTTP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

struct etcd_http;
struct etcd_call;

struct etcd_http_opts { /* TLS; strings are copied; each may be NULL */
    const char *ca_file, *cert_file, *key_file;
};
WEIR_MUST_CHECK weir_err etcd_http_open(const struct etcd_http_opts *opts, struct etcd_http **ret,
                                        struct weir_why *why);
void etcd_http_close(struct etcd_http *http); /* cancels what is in flight */

struct etcd_result {
    weir_err err; /* OK: there is an answer, whatever its status. DEADLINE, TOOLARGE, UNAVAILABLE, CANCELLED
                     (on_data said so), NOMEM */
    bool maybe_sent;      /* the server may have seen the request although err is not OK */
    int status;           /* HTTP; 0 without an answer */
    struct weir_str body; /* gone after on_done; empty when on_data took it */
    const char *detail;   /* libcurl's sentence when err is not OK */
};

struct etcd_call_spec {
    const char *url;
    const char *method;        /* NULL: POST with a body, GET without */
    const char *authorization; /* the whole header value, or NULL */
    struct weir_str body;      /* copied; ptr NULL: a GET */
    uint32_t timeout_ms;       /* 0: none (a stream) */
    size_t body_max;           /* of the reply, where on_data is NULL */
    bool fresh;                /* not over a connection that is already open: it may be a dead one */
    bool (*on_data)(void *ctx, const char *data, size_t len); /* a stream's bytes; false ends the call */
    void (*on_done)(void *ctx, const struct etcd_result *result);
    void *ctx;
};
/* NULL: no memory. */
struct etcd_call *etcd_call_open(struct etcd_http *http, const struct etcd_call_spec *spec);
void etcd_call_close(struct etcd_call *call); /* never from on_data, never from its own on_done; takes NULL */

void etcd_http_perform(struct etcd_http *http);
/* Sleeps until there is I/O to do, a wake, or the timeout. */
void etcd_http_wait(struct etcd_http *http, uint64_t timeout_ns);
void etcd_http_wake(struct etcd_http *http);

#endif
