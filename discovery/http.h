/* http.h - small blocking HTTP requests for command-line tools, through the folder's one door to libcurl.
 *
 * Any thread; each call has a connection of its own. No proxy of the environment is used. */
#ifndef WEIR_DISCOVERY_HTTP_H
#define WEIR_DISCOVERY_HTTP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

/* GET into `body` (its limit bounds the reply). An answer of any status is WEIR_OK.
 * WEIR_UNAVAILABLE: no connection or broken off. WEIR_DEADLINE: timeout_ms passed. WEIR_TOOLARGE: over the
 * limit. */
WEIR_MUST_CHECK weir_err weir_http_get(const char *url, uint32_t timeout_ms, struct weir_buf *body,
                                       int *ret_status, struct weir_why *why);

/* Any method, whole answers: the body goes to `body`. NULL members are left out; TLS files are for https URLs.
 * Errors as for get. */
struct weir_http_request {
    const char *method, *url, *bearer;
    const char *ca_file, *cert_file, *key_file;
    struct weir_str json; /* ptr NULL: none */
    uint32_t timeout_ms;
};
WEIR_MUST_CHECK weir_err weir_http_call(const struct weir_http_request *req, struct weir_buf *body,
                                        int *ret_status, struct weir_why *why);

/* POST a JSON body; the reply's bytes go to on_data as they come (in any splits). on_data returning false
 * ends the request with WEIR_CANCELLED. `bearer` may be NULL. timeout_ms 0: none. Errors as for get. */
WEIR_MUST_CHECK weir_err weir_http_post_stream(const char *url, const char *bearer, struct weir_str json,
                                               uint32_t timeout_ms,
                                               bool (*on_data)(void *ctx, int status, const char *data,
                                                               size_t len),
                                               void *ctx, int *ret_status, struct weir_why *why);

#endif
