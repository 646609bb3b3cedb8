/* etcd_call.c - blocking transactions and reads, over a connection of their own.
 *
 * Endpoints are tried in turn, but only while the request can't have arrived: a transaction that may have
 * been applied is not sent again, because its own effect would make its conditions fail. The caller is told
 * so. */
#include "discovery/etcd_call.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "discovery/etcd_http.h"
#include "discovery/etcd_request.h"
#include "discovery/etcd_stream.h"
#include "discovery/snapshot.h"

#define CALL_TIMEOUT_MS 3000
#define REPLY_BYTES_MAX (64u << 20)
#define ARENA_BYTES_MAX (1024u << 20)
#define PAGE_KEYS 2000

struct session {
    const struct weir_discovery_opts *opts;
    const struct source *src;
    struct etcd_http *http;
    char *token;
    struct weir_arena arena;
    struct weir_buf body;
    /* the request in flight */
    bool done, maybe_sent;
    weir_err err;
    struct etcd_msg msg;
    struct weir_why *why;
};

static weir_err session_open(struct session *s, const struct weir_discovery_opts *opts,
                             const struct source *src, struct weir_why *why)
{
    *s = (struct session){ .opts = opts, .src = src, .why = why };
    weir_arena_init(&s->arena, ARENA_BYTES_MAX);
    weir_buf_init(&s->body, /* limit_bytes= */ 0);
    return etcd_http_open(&(struct etcd_http_opts){ opts->ca_file, opts->cert_file, opts->key_file },
                          &s->http, why);
}

static void session_close(struct session *s)
{
    etcd_http_close(s->http);
    weir_free(s->token);
    weir_arena_release(&s->arena);
    weir_buf_release(&s->body);
}

static weir_err etcd_error(const struct etcd_msg *msg, struct weir_why *why)
{
    weir_err rc = msg->error_code > 0 && msg->error_code <= 16 ? weir_err_from_grpc((int)msg->error_code)
                                                               : WEIR_UPSTREAM;
    return weir_fail(why, rc, "etcd: %.*s", WEIR_STR_FMT(msg->error));
}

static void on_done(void *ctx, const struct etcd_result *result)
{
    struct session *s = ctx;
    s->done = true;
    s->maybe_sent = result->maybe_sent;
    s->err = result->err;
    if (result->err != WEIR_OK) {
        (void)weir_fail(s->why, result->err, "etcd: %s", result->detail);
        return;
    }
    s->err = etcd_msg_parse(result->body, &s->arena, &s->msg, s->why);
    if (s->err == WEIR_OK && s->msg.token.len) { /* it points into the body, which goes */
        const char *token = weir_arena_strndup(&s->arena, s->msg.token.ptr, s->msg.token.len);
        if (token)
            s->msg.token.ptr = token;
        else
            s->err = weir_fail(s->why, WEIR_NOMEM, "etcd: no memory for a token");
    }
    if (s->err == WEIR_OK && s->msg.is_error)
        s->err = etcd_error(&s->msg, s->why);
    else if (s->err == WEIR_OK && result->status != 200)
        s->err = weir_fail(s->why, WEIR_UPSTREAM, "etcd: status %d", result->status);
}

static weir_err send_to(struct session *s, const char *base, const char *path)
{
    char url[400];
    snprintf(url, sizeof url, "%s%s", base, path);
    s->done = false;
    s->msg = (struct etcd_msg){ 0 };
    struct etcd_call_spec spec = { .url = url,
                                   .authorization = s->token,
                                   .body = { weir_buf_ptr(&s->body), weir_buf_len(&s->body) },
                                   .timeout_ms = CALL_TIMEOUT_MS,
                                   .body_max = REPLY_BYTES_MAX,
                                   .on_done = on_done,
                                   .ctx = s };
    if (s->body.failed || !etcd_call_open(s->http, &spec))
        return weir_fail(s->why, WEIR_NOMEM, "etcd: no memory for a request");
    while (!s->done) {
        etcd_http_perform(s->http);
        if (!s->done)
            etcd_http_wait(s->http, WEIR_S);
    }
    return s->err;
}

static weir_err send_anywhere(struct session *s, const char *path, bool is_write)
{
    weir_err rc = WEIR_UNAVAILABLE;
    for (int i = 0; i < s->src->n_urls; i++) {
        rc = send_to(s, s->src->urls[i], path);
        bool is_lost = rc == WEIR_UNAVAILABLE || rc == WEIR_DEADLINE;
        if (!is_lost)
            return rc;
        if (is_write && s->maybe_sent) {
            struct weir_why inner = s->why ? *s->why : (struct weir_why){ 0 };
            return weir_fail(s->why, WEIR_UNAVAILABLE, "%.200s (the change may or may not have been made)",
                             inner.text);
        }
    }
    return rc == WEIR_DEADLINE ? WEIR_UNAVAILABLE : rc;
}

static weir_err authenticate(struct session *s)
{
    if (!s->opts->user || !*s->opts->user)
        return WEIR_OK;
    etcd_request_auth(&s->body, s->opts->user, s->opts->password);
    weir_err rc = send_anywhere(s, "/v3/auth/authenticate", /* is_write= */ false);
    if (rc != WEIR_OK)
        return rc;
    s->token = weir_strndup(s->msg.token.ptr ? s->msg.token.ptr : "", s->msg.token.len);
    return s->token ? WEIR_OK : weir_fail(s->why, WEIR_NOMEM, "etcd: no memory for a token");
}

weir_err etcd_call_txn(const struct weir_discovery_opts *opts, const struct source *src,
                       const struct weir_disc_cond *conds, int n_conds, const struct weir_disc_op *ops,
                       int n_ops, struct weir_why *why)
{
    struct session s;
    weir_err rc = session_open(&s, opts, src, why);
    if (rc == WEIR_OK)
        rc = authenticate(&s);
    if (rc == WEIR_OK) {
        etcd_request_txn(&s.body, conds, n_conds, ops, n_ops);
        rc = send_anywhere(&s, "/v3/kv/txn", /* is_write= */ true);
    }
    if (rc == WEIR_OK && !s.msg.succeeded)
        rc = weir_fail(why, WEIR_CONFLICT, "a key is not as expected; somebody else changed it");
    session_close(&s);
    return rc;
}

/* Pages at one revision, gathered in the session's arena. */
static weir_err read_pages(struct session *s, const char *prefix, struct snapshot_change **items, int *n)
{
    struct weir_str first = weir_str(prefix);
    int64_t revision = 0;
    int cap = 0;
    for (;;) {
        etcd_request_range(&s->body, first, weir_str(prefix), revision, PAGE_KEYS);
        weir_err rc = send_anywhere(s, "/v3/kv/range", /* is_write= */ false);
        if (rc != WEIR_OK)
            return rc;
        revision = revision ? revision : s->msg.revision;
        if (*n + s->msg.n_kvs > cap) {
            cap = 2 * (*n + s->msg.n_kvs);
            struct snapshot_change *grown = weir_realloc(*items, (size_t)cap * sizeof *grown);
            if (!grown)
                return weir_fail(s->why, WEIR_NOMEM, "etcd: no memory for %d entries", cap);
            *items = grown;
        }
        for (int i = 0; i < s->msg.n_kvs; i++)
            (*items)[(*n)++] = (struct snapshot_change){ .key = s->msg.kvs[i].key,
                                                         .value = s->msg.kvs[i].value,
                                                         .revision = s->msg.kvs[i].mod_revision };
        if (!s->msg.more || s->msg.n_kvs == 0)
            return WEIR_OK;
        struct weir_str last = s->msg.kvs[s->msg.n_kvs - 1].key;
        char *next = weir_arena_strndup(&s->arena, last.ptr, last.len);
        if (!next)
            return weir_fail(s->why, WEIR_NOMEM, "etcd: no memory for a key");
        first = (struct weir_str){ next, last.len + 1 }; /* the NUL makes it the least key after `last` */
    }
}

weir_err etcd_call_read(const struct weir_discovery_opts *opts, const struct source *src, const char *prefix,
                        const struct weir_disc_snapshot **ret, struct weir_why *why)
{
    struct session s;
    struct snapshot_change *items = NULL;
    int n = 0;
    weir_err rc = session_open(&s, opts, src, why);
    if (rc == WEIR_OK)
        rc = authenticate(&s);
    if (rc == WEIR_OK)
        rc = read_pages(&s, prefix, &items, &n);
    if (rc == WEIR_OK)
        rc = snapshot_build(/* old= */ NULL, items, n, s.msg.revision, ret, why);
    weir_free(items);
    session_close(&s);
    return rc;
}

weir_err etcd_call_get(const struct weir_discovery_opts *opts, const struct source *src, struct weir_str key,
                       struct weir_buf *value, int64_t *ret_mod_revision, struct weir_why *why)
{
    struct session s;
    weir_err rc = session_open(&s, opts, src, why);
    if (rc == WEIR_OK)
        rc = authenticate(&s);
    if (rc == WEIR_OK) {
        etcd_request_get(&s.body, key);
        rc = send_anywhere(&s, "/v3/kv/range", /* is_write= */ false);
    }
    if (rc == WEIR_OK && s.msg.n_kvs == 0)
        rc = weir_fail(why, WEIR_NOTFOUND, "etcd has no %.*s", WEIR_STR_FMT(key));
    if (rc == WEIR_OK) {
        weir_buf_add(value, s.msg.kvs[0].value.ptr, s.msg.kvs[0].value.len);
        *ret_mod_revision = s.msg.kvs[0].mod_revision;
        if (value->failed)
            rc = weir_fail(why, WEIR_NOMEM, "etcd: no memory for a value");
    }
    session_close(&s);
    return rc;
}
