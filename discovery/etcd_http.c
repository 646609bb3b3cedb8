/* etcd_http.c - the only file that knows libcurl: one curl_multi, requests with timeouts, streams without.
 *
 * curl_multi in one thread, so that a watch, a beat and a put share it without locks. HTTP/1.1 also over
 * TLS: cancelling a watch then closes its connection, which etcd notices at once. Proxies of the environment
 * are not used: etcd is next door.
 *
 *   [H1] on_done comes exactly once for a call that is not closed first, and only from perform.
 *   [H2] No more of a reply than body_max is kept. */
#include "discovery/etcd_http.h"

#include <curl/curl.h>
#include <pthread.h>
#include <string.h>

#include "base/mem.h"
#include "discovery/http.h"

#define CONNECT_TIMEOUT_MS 1000
#define CONNECTIONS_MAX 8 /* kept open; three are in use at most */

struct etcd_http {
    CURLM *multi;
    char *ca_file, *cert_file, *key_file;
    struct etcd_call *calls; /* doubly linked */
};

struct etcd_call {
    struct etcd_http *http;
    struct etcd_call *next, **link;
    CURL *easy;
    struct curl_slist *headers;
    struct weir_buf body;
    bool refused; /* on_data said no */
    bool (*on_data)(void *ctx, const char *data, size_t len);
    void (*on_done)(void *ctx, const struct etcd_result *result);
    void *ctx;
    char errbuf[CURL_ERROR_SIZE];
};

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;
static void curl_start(void)
{
    (void)curl_global_init(CURL_GLOBAL_DEFAULT);
}

static weir_err copy_text(char **to, const char *from)
{
    if (!from || !*from)
        return WEIR_OK;
    *to = weir_strdup(from);
    return *to ? WEIR_OK : WEIR_NOMEM;
}

weir_err etcd_http_open(const struct etcd_http_opts *opts, struct etcd_http **ret, struct weir_why *why)
{
    pthread_once(&curl_once, curl_start);
    struct etcd_http *http = weir_alloc0(sizeof *http);
    if (!http)
        return weir_fail(why, WEIR_NOMEM, "http: no memory");
    if (copy_text(&http->ca_file, opts->ca_file) || copy_text(&http->cert_file, opts->cert_file) ||
        copy_text(&http->key_file, opts->key_file) || !(http->multi = curl_multi_init())) {
        etcd_http_close(http);
        return weir_fail(why, WEIR_NOMEM, "http: no memory");
    }
    curl_multi_setopt(http->multi, CURLMOPT_MAXCONNECTS, (long)CONNECTIONS_MAX);
    *ret = http;
    return WEIR_OK;
}

void etcd_http_close(struct etcd_http *http)
{
    if (!http)
        return;
    while (http->calls)
        etcd_call_close(http->calls);
    if (http->multi)
        curl_multi_cleanup(http->multi);
    weir_free(http->ca_file);
    weir_free(http->cert_file);
    weir_free(http->key_file);
    weir_free(http);
}

static size_t on_bytes(char *data, size_t size, size_t n, void *ctx)
{
    struct etcd_call *call = ctx;
    size_t len = size * n;
    if (call->on_data) {
        call->refused = !call->on_data(call->ctx, data, len);
        return call->refused ? 0 : len;
    }
    weir_buf_add(&call->body, data, len); /* [H2] */
    return call->body.failed ? 0 : len;
}

static bool add_header(struct etcd_call *call, const char *line)
{
    struct curl_slist *longer = curl_slist_append(call->headers, line);
    if (longer)
        call->headers = longer;
    return longer != NULL;
}

static bool set_headers(struct etcd_call *call, const char *authorization)
{
    struct weir_buf line;
    bool ok = add_header(call, "Content-Type: application/json") && add_header(call, "Expect:");
    if (!ok || !authorization)
        return ok;
    weir_buf_init(&line, /* limit_bytes= */ 0);
    weir_buf_addf(&line, "Authorization: %s", authorization);
    const char *text = weir_buf_cstr(&line);
    ok = text && add_header(call, text);
    weir_buf_release(&line);
    return ok;
}

static bool set_options(struct etcd_call *call, const struct etcd_call_spec *spec)
{
    CURL *e = call->easy;
    struct etcd_http *http = call->http;
    bool ok =
        curl_easy_setopt(e, CURLOPT_URL, spec->url) == CURLE_OK && set_headers(call, spec->authorization);
    if (ok && spec->body.ptr)
        ok = curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)spec->body.len) == CURLE_OK &&
             curl_easy_setopt(e, CURLOPT_COPYPOSTFIELDS, spec->body.ptr) == CURLE_OK;
    if (ok && spec->method)
        ok = curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, spec->method) == CURLE_OK;
    curl_easy_setopt(e, CURLOPT_HTTPHEADER, call->headers);
    curl_easy_setopt(e, CURLOPT_PRIVATE, call);
    curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_bytes);
    curl_easy_setopt(e, CURLOPT_WRITEDATA, call);
    curl_easy_setopt(e, CURLOPT_ERRORBUFFER, call->errbuf);
    curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(e, CURLOPT_PROXY, "");
    curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_TIMEOUT_MS);
    curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, (long)spec->timeout_ms);
    curl_easy_setopt(e, CURLOPT_FRESH_CONNECT, spec->fresh ? 1L : 0L);
    if (http->ca_file)
        curl_easy_setopt(e, CURLOPT_CAINFO, http->ca_file);
    if (http->cert_file)
        curl_easy_setopt(e, CURLOPT_SSLCERT, http->cert_file);
    if (http->key_file)
        curl_easy_setopt(e, CURLOPT_SSLKEY, http->key_file);
    return ok;
}

static void call_free(struct etcd_call *call)
{
    if (call->link) {
        *call->link = call->next;
        if (call->next)
            call->next->link = call->link;
    }
    if (call->easy) {
        curl_multi_remove_handle(call->http->multi, call->easy);
        curl_easy_cleanup(call->easy);
    }
    curl_slist_free_all(call->headers);
    weir_buf_release(&call->body);
    weir_free(call);
}

struct etcd_call *etcd_call_open(struct etcd_http *http, const struct etcd_call_spec *spec)
{
    struct etcd_call *call = weir_alloc0(sizeof *call);
    if (!call)
        return NULL;
    call->http = http;
    call->on_data = spec->on_data;
    call->on_done = spec->on_done;
    call->ctx = spec->ctx;
    weir_buf_init(&call->body, spec->body_max);
    call->easy = curl_easy_init();
    if (!call->easy || !set_options(call, spec) ||
        curl_multi_add_handle(http->multi, call->easy) != CURLM_OK) {
        call_free(call);
        return NULL;
    }
    call->next = http->calls;
    call->link = &http->calls;
    if (call->next)
        call->next->link = &call->next;
    http->calls = call;
    return call;
}

void etcd_call_close(struct etcd_call *call)
{
    if (call)
        call_free(call);
}

static weir_err result_err(const struct etcd_call *call, CURLcode code)
{
    if (code == CURLE_OK)
        return WEIR_OK;
    if (call->refused)
        return WEIR_CANCELLED;
    if (code == CURLE_WRITE_ERROR)
        return WEIR_TOOLARGE;
    if (code == CURLE_OUT_OF_MEMORY)
        return WEIR_NOMEM;
    return code == CURLE_OPERATION_TIMEDOUT ? WEIR_DEADLINE : WEIR_UNAVAILABLE;
}

static void finish(struct etcd_call *call, CURLcode code)
{
    struct etcd_result result = { .err = result_err(call, code) };
    long status = 0;
    double connected_s = 0;
    curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(call->easy, CURLINFO_PRETRANSFER_TIME, &connected_s);
    result.status = (int)status;
    result.maybe_sent = connected_s > 0;
    result.body = (struct weir_str){ weir_buf_ptr(&call->body), weir_buf_len(&call->body) };
    result.detail = call->errbuf[0] ? call->errbuf : curl_easy_strerror(code);
    call->on_done(call->ctx, &result); /* [H1] */
    call_free(call);
}

void etcd_http_perform(struct etcd_http *http)
{
    int n_running, n_left;
    CURLMsg *msg;
    (void)curl_multi_perform(http->multi, &n_running);
    while ((msg = curl_multi_info_read(http->multi, &n_left))) {
        char *owner = NULL;
        CURLcode code = msg->data.result; /* msg dies with the handle */
        curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, &owner);
        finish((struct etcd_call *)(void *)owner, code);
    }
}

void etcd_http_wait(struct etcd_http *http, uint64_t timeout_ns)
{
    uint64_t ms = timeout_ns / 1000000 + (timeout_ns % 1000000 != 0);
    (void)curl_multi_poll(http->multi, NULL, 0, ms > 60000 ? 60000 : (int)ms, NULL);
}

void etcd_http_wake(struct etcd_http *http)
{
    (void)curl_multi_wakeup(http->multi);
}

/* ---- blocking requests (http.h) ---- */

struct waiter {
    struct etcd_call *call;
    bool done;
    weir_err err;
    int status;
    struct weir_buf *body;
    struct weir_why *why;
    bool (*on_data)(void *ctx, int status, const char *data, size_t len);
    void *ctx;
};

static void on_waiter_done(void *ctx, const struct etcd_result *result)
{
    struct waiter *w = ctx;
    w->done = true;
    w->status = result->status;
    w->err = result->err;
    if (result->err != WEIR_OK)
        (void)weir_fail(w->why, result->err, "%s", result->detail);
    else if (w->body && result->body.len)
        weir_buf_add(w->body, result->body.ptr, result->body.len);
}

static bool on_waiter_data(void *ctx, const char *data, size_t len)
{
    struct waiter *w = ctx;
    long status = 0;
    curl_easy_getinfo(w->call->easy, CURLINFO_RESPONSE_CODE, &status);
    return w->on_data(w->ctx, (int)status, data, len);
}

static weir_err run_blocking(const struct etcd_call_spec *spec, const struct etcd_http_opts *tls,
                             struct waiter *w)
{
    static const struct etcd_http_opts plain;
    struct etcd_http *http;
    weir_err rc = etcd_http_open(tls ? tls : &plain, &http, w->why);
    if (rc != WEIR_OK)
        return rc;
    w->call = etcd_call_open(http, spec);
    if (!w->call)
        w->err = weir_fail(w->why, WEIR_NOMEM, "http: no memory for a request");
    while (w->call && !w->done) {
        etcd_http_perform(http);
        if (!w->done)
            etcd_http_wait(http, 1000000000);
    }
    etcd_http_close(http);
    return w->err;
}

weir_err weir_http_get(const char *url, uint32_t timeout_ms, struct weir_buf *body, int *ret_status,
                       struct weir_why *why)
{
    struct waiter w = { .body = body, .why = why };
    struct etcd_call_spec spec = {
        .url = url, .timeout_ms = timeout_ms, .body_max = body->limit, .on_done = on_waiter_done, .ctx = &w
    };
    weir_err rc = run_blocking(&spec, /* tls= */ NULL, &w);
    if (rc == WEIR_OK && body->failed)
        rc = weir_fail(why, WEIR_NOMEM, "http: no memory for the reply");
    if (rc == WEIR_OK)
        *ret_status = w.status;
    return rc;
}

weir_err weir_http_post_stream(const char *url, const char *bearer, struct weir_str json, uint32_t timeout_ms,
                               bool (*on_data)(void *ctx, int status, const char *data, size_t len),
                               void *ctx, int *ret_status, struct weir_why *why)
{
    struct waiter w = { .why = why, .on_data = on_data, .ctx = ctx };
    struct weir_buf auth;
    weir_buf_init(&auth, /* limit_bytes= */ 0);
    if (bearer)
        weir_buf_addf(&auth, "Bearer %s", bearer);
    struct etcd_call_spec spec = { .url = url,
                                   .authorization = bearer ? weir_buf_cstr(&auth) : NULL,
                                   .body = json,
                                   .timeout_ms = timeout_ms,
                                   .on_data = on_waiter_data,
                                   .on_done = on_waiter_done,
                                   .ctx = &w };
    weir_err rc = auth.failed ? weir_fail(why, WEIR_NOMEM, "http: no memory")
                              : run_blocking(&spec, /* tls= */ NULL, &w);
    weir_buf_release(&auth);
    if (rc == WEIR_OK)
        *ret_status = w.status;
    return rc;
}

weir_err weir_http_call(const struct weir_http_request *req, struct weir_buf *body, int *ret_status,
                        struct weir_why *why)
{
    struct waiter w = { .body = body, .why = why };
    struct etcd_http_opts tls = { req->ca_file, req->cert_file, req->key_file };
    struct weir_buf auth;
    weir_buf_init(&auth, /* limit_bytes= */ 0);
    if (req->bearer)
        weir_buf_addf(&auth, "Bearer %s", req->bearer);
    struct etcd_call_spec spec = { .url = req->url,
                                   .method = req->method,
                                   .authorization = req->bearer ? weir_buf_cstr(&auth) : NULL,
                                   .body = req->json,
                                   .timeout_ms = req->timeout_ms,
                                   .body_max = body->limit,
                                   .on_done = on_waiter_done,
                                   .ctx = &w };
    weir_err rc = auth.failed ? weir_fail(why, WEIR_NOMEM, "http: no memory") : run_blocking(&spec, &tls, &w);
    weir_buf_release(&auth);
    if (rc == WEIR_OK && body->failed)
        rc = weir_fail(why, WEIR_NOMEM, "http: no memory for the reply");
    if (rc == WEIR_OK)
        *ret_status = w.status;
    return rc;
}
