/* api.c - the admin API's door: who may enter, a request as a job, and the worker.
 *
 *   [A1] Nothing is read or changed for a request without the token, or, where there is none, a certificate.
 *
 * Threads: requests and answers on the listener's loop, the work on one worker; a job belongs to the worker between
 * push and post. The loop alone looks at job->http. */
#include "router/admin/api.h"

#include <pthread.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/thread.h"
#include "router/admin/api_int.h"

#define JOBS_MAX 256
#define ARENA_MAX (64u << 20)

struct weir_admin_api {
    struct weir_admin_api_opts opts;
    uint8_t token[32]; /* its SHA-256: compared in a time that says nothing about the token */
    struct weir_queue jobs;
    struct weir_thread thread;
    struct weir_counter *n_requests, *n_refused;
};

const struct weir_admin_api_opts *api_opts(const struct api_job *job)
{
    return &job->api->opts;
}

/* ---- answers ---- */
static void write_status(struct weir_buf *out, weir_err err, int grpc, const struct weir_why *why)
{
    const struct weir_err_info *info = weir_err_info(err);
    struct weir_jw w;

    weir_jw_init(&w, out);
    weir_jw_object(&w);
    weir_jw_key(&w, "code");
    weir_jw_i64(&w, grpc ? grpc : info->grpc);
    weir_jw_key(&w, "message");
    weir_jw_cstr(&w, why->text[0] ? why->text : info->text);
    weir_jw_key(&w, "details");
    weir_jw_array(&w);
    if (why->param[0]) {
        weir_jw_object(&w);
        weir_jw_key(&w, "field");
        weir_jw_cstr(&w, why->param);
        weir_jw_object_end(&w);
    }
    weir_jw_array_end(&w);
    weir_jw_object_end(&w);
}

static void respond(struct weir_http_req *http, int status, const struct weir_buf *body)
{
    struct weir_http_fields fields;

    weir_http_fields_init(&fields);
    weir_http_fields_adds(&fields, "content-type", "application/json");
    weir_http_fields_adds(&fields, "cache-control", "no-store");
    if (status == 401)
        weir_http_fields_adds(&fields, "www-authenticate", "Bearer");
    weir_http_respond(http, status, &fields, weir_buf_ptr(body), weir_buf_len(body));
}

static void respond_error(struct weir_http_req *http, weir_err err, const struct weir_why *why)
{
    struct weir_buf body;

    weir_buf_init(&body, 0);
    write_status(&body, err, /* grpc= */ 0, why);
    respond(http, weir_err_info(err)->http, &body);
    weir_buf_release(&body);
}

/* ---- who may enter ---- */
static weir_err check_token(const struct weir_admin_api *api, struct weir_str header, struct weir_why *why)
{
    uint8_t digest[32], differs = 0;

    if (!api->opts.token)
        return api->opts.has_client_certs
                   ? WEIR_OK
                   : weir_fail(
                         why, WEIR_FORBIDDEN,
                         "the admin API is off: the router has neither --admin-token nor --admin-tls-ca");
    if (header.len <= 7 || strncasecmp(header.ptr, "bearer ", 7) != 0)
        return weir_fail(why, WEIR_UNAUTHENTICATED, "send the admin token: Authorization: Bearer <token>");
    weir_sha256(header.ptr + 7, header.len - 7, digest);
    for (size_t i = 0; i < sizeof digest; i++)
        differs |= (uint8_t)(digest[i] ^ api->token[i]);
    return differs ? weir_fail(why, WEIR_UNAUTHENTICATED, "this is not the admin token") : WEIR_OK;
}

bool weir_admin_api_allowed(struct weir_admin_api *api, struct weir_http_req *req)
{
    struct weir_why why = { 0 };
    weir_err err = check_token(api, weir_http_header(req, "authorization"), &why); /* [A1] */

    if (err == WEIR_OK)
        return true;
    weir_counter_add(api->n_refused, 1);
    respond_error(req, err, &why);
    return false;
}

static bool begins(struct weir_str s, const char *with)
{
    size_t len = strlen(with);

    return s.len >= len && memcmp(s.ptr, with, len) == 0;
}

static bool is_below(struct weir_str path, const char *resource)
{
    size_t len = strlen(resource);

    return begins(path, resource) && (path.len == len || path.ptr[len] == '/');
}

bool weir_admin_api_is_ours(const struct weir_http_req *req)
{
    return is_below(req->path, "/v1/accounts") || is_below(req->path, "/v1/fleet");
}

/* ---- a request as a job ---- */
static void job_free(struct api_job *job)
{
    weir_arena_release(&job->arena);
    weir_buf_release(&job->out);
    weir_free(job);
}

static int unhex(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* Percent-decoded into the arena; ptr NULL when malformed, with a NUL that would cut it short, or out of memory. */
static struct weir_str decode(struct weir_arena *arena, struct weir_str from, bool plus_is_space)
{
    char *to = weir_arena_alloc(arena, from.len + 1);
    size_t n = 0;

    for (size_t i = 0; to && i < from.len; i++) {
        char c = from.ptr[i];
        if (c == '%') {
            int high = i + 2 < from.len ? unhex(from.ptr[i + 1]) : -1,
                low = i + 2 < from.len ? unhex(from.ptr[i + 2]) : -1;
            if (high < 0 || low < 0)
                return (struct weir_str){ NULL, 0 };
            c = (char)(high << 4 | low);
            if (c == '\0')
                return (struct weir_str){ NULL, 0 };
            i += 2;
        } else if (c == '+' && plus_is_space) {
            c = ' ';
        }
        to[n++] = c;
    }
    return (struct weir_str){ to, n };
}

static weir_err split_path(struct api_job *job, struct weir_str path)
{
    path.ptr += sizeof "/v1/" - 1;
    path.len -= sizeof "/v1/" - 1;
    while (path.len > 0) {
        const char *slash = memchr(path.ptr, '/', path.len);
        struct weir_str part = { path.ptr, slash ? (size_t)(slash - path.ptr) : path.len };
        path.ptr += part.len + (slash != NULL);
        path.len -= part.len + (slash != NULL);
        const char *colon = !slash ? memchr(part.ptr, ':', part.len) : NULL;
        if (colon) {
            job->verb =
                decode(&job->arena, (struct weir_str){ colon + 1, part.len - (size_t)(colon - part.ptr) - 1 },
                       false);
            part.len = (size_t)(colon - part.ptr);
        }
        if (job->n_parts == API_PARTS_MAX || part.len == 0)
            return weir_fail(&job->why, WEIR_NOTFOUND, "no such path");
        job->parts[job->n_parts] = decode(&job->arena, part, /* plus_is_space= */ false);
        if (!job->parts[job->n_parts++].ptr)
            return weir_fail(&job->why, WEIR_INVALID, "the path is not percent-encoded rightly");
    }
    return WEIR_OK;
}

static bool copy(struct weir_arena *arena, struct weir_str from, struct weir_str *to)
{
    char *ptr = weir_arena_strndup(arena, from.len ? from.ptr : "", from.len);

    *to = (struct weir_str){ ptr, from.len };
    return ptr != NULL;
}

static void on_gone(struct weir_http_req *http)
{
    struct api_job *job = http->user;

    job->http = NULL;
}

static weir_err run(struct api_job *job)
{
    if (weir_str_eq(job->parts[0], "accounts"))
        return api_accounts(job);
    if (job->n_parts >= 2 && weir_str_eq(job->parts[1], "models"))
        return api_models(job);
    if (job->n_parts == 2 && weir_str_eq(job->parts[1], "mesh"))
        return api_mesh(job);
    if (job->n_parts == 2 && !job->verb.len && weir_str_eq(job->parts[1], "limitsTable"))
        return api_table(job);
    return weir_fail(&job->why, WEIR_NOTFOUND, "no such path");
}

static void on_done(struct weir_task *task)
{
    struct api_job *job = (struct api_job *)(void *)((char *)task - offsetof(struct api_job, done));

    if (job->http)
        respond(job->http, weir_err_info(job->err)->http, &job->out);
    job_free(job);
}

/* On the worker: the job's answer, whatever becomes of it. */
static void finish(struct api_job *job)
{
    job->err = run(job);
    if (job->err == WEIR_OK && job->out.failed)
        job->err = weir_fail(&job->why, WEIR_NOMEM, "no memory for the answer");
    if (job->err == WEIR_OK) {
        weir_buf_addc(&job->out, '\n');
    } else {
        weir_buf_clear(&job->out);
        write_status(&job->out, job->err, job->grpc, &job->why);
    }
    weir_loop_post(job->loop, &job->done);
}

static void *work(void *ctx)
{
    struct weir_admin_api *api = ctx;

    while (!weir_queue_closed(&api->jobs)) {
        struct weir_qnode *node = weir_queue_wait(&api->jobs, WEIR_S);
        weir_thread_beat(weir_now_ns());
        while (node) {
            struct weir_qnode *next = node->next;
            struct api_job *job = (struct api_job *)(void *)((char *)node - offsetof(struct api_job, node));
            finish(job);
            node = next;
        }
    }
    return NULL;
}

void weir_admin_api_on_request(struct weir_admin_api *api, struct weir_http_req *req)
{
    struct weir_why why = { 0 };

    if (!weir_admin_api_allowed(api, req)) /* on_head has seen to it; it costs nothing to be sure */
        return;
    weir_counter_add(api->n_requests, 1);
    struct api_job *job = weir_alloc0(sizeof *job);
    if (!job) {
        weir_fail(&why, WEIR_NOMEM, "no memory for the request");
        respond_error(req, WEIR_NOMEM, &why);
        return;
    }
    job->api = api;
    job->loop = req->loop;
    job->done.run = on_done;
    weir_arena_init(&job->arena, ARENA_MAX);
    weir_buf_init(&job->out, 0);
    weir_err err = copy(&job->arena, req->method, &job->method) &&
                           copy(&job->arena, req->query, &job->query) &&
                           copy(&job->arena, req->body, &job->body)
                       ? split_path(job, req->path)
                       : weir_fail(&job->why, WEIR_NOMEM, "no memory for the request");
    if (err == WEIR_OK && (err = weir_queue_push(&api->jobs, &job->node)) != WEIR_OK)
        weir_fail(&job->why, WEIR_FULL, "%d admin requests are waiting; try again", JOBS_MAX);
    if (err != WEIR_OK) {
        respond_error(req, err, &job->why);
        job_free(job);
        return;
    }
    /* Still ours: the worker's answer comes by a task, and this loop is busy here. */
    job->http = req;
    req->user = job;
    req->on_gone = on_gone;
}

/* ---- what a job says ---- */
bool api_is(const struct api_job *job, const char *method)
{
    return weir_str_eq(job->method, method);
}

weir_err api_method_error(struct api_job *job, const char *takes)
{
    return weir_fail(&job->why, WEIR_METHOD, "this path takes %s", takes);
}

weir_err api_param(struct api_job *job, const char *name, struct weir_str *ret)
{
    struct weir_str rest = job->query;

    *ret = (struct weir_str){ "", 0 };
    while (rest.len > 0) {
        const char *end = memchr(rest.ptr, '&', rest.len);
        struct weir_str pair = { rest.ptr, end ? (size_t)(end - rest.ptr) : rest.len };
        const char *equals = memchr(pair.ptr, '=', pair.len);
        struct weir_str key = { pair.ptr, equals ? (size_t)(equals - pair.ptr) : pair.len };
        rest.ptr += pair.len + (end != NULL);
        rest.len -= pair.len + (end != NULL);
        if (equals && weir_str_eq(key, name)) {
            struct weir_str value = { equals + 1, pair.len - key.len - 1 };
            *ret = decode(&job->arena, value, /* plus_is_space= */ true);
            return ret->ptr ? WEIR_OK
                            : weir_fail_param(&job->why, name, WEIR_INVALID,
                                              "%s: not percent-encoded rightly", name);
        }
    }
    return WEIR_OK;
}

/* ---- lifecycle ---- */
weir_err weir_admin_api_open(const struct weir_admin_api_opts *opts, struct weir_admin_api **ret,
                             struct weir_why *why)
{
    struct weir_admin_api *api = weir_alloc0(sizeof *api);

    if (!api)
        return weir_fail(why, WEIR_NOMEM, "no memory for the admin API");
    api->opts = *opts;
    if (opts->token)
        weir_sha256(opts->token, strlen(opts->token), api->token);
    api->n_requests =
        weir_counter("weir_admin_requests_total", "", "requests of the admin API that were let in");
    api->n_refused =
        weir_counter("weir_admin_refused_total", "", "requests of the admin API without its token");
    weir_err err = weir_queue_init(&api->jobs, JOBS_MAX, /* with_fd= */ false, why);
    if (err != WEIR_OK) {
        weir_free(api);
        return err;
    }
    err = weir_thread_start(&api->thread, WEIR_ROLE_ADMIN, "admin", work, api, why);
    if (err != WEIR_OK) {
        weir_admin_api_close(api);
        return err;
    }
    *ret = api;
    return WEIR_OK;
}

void weir_admin_api_stop(struct weir_admin_api *api)
{
    if (!api)
        return;
    weir_queue_close(&api->jobs);
    weir_thread_join(&api->thread);
    for (struct weir_qnode *node = weir_queue_take(&api->jobs), *next; node; node = next) {
        next = node->next;
        job_free((struct api_job *)(void *)((char *)node - offsetof(struct api_job, node)));
    }
}

void weir_admin_api_close(struct weir_admin_api *api)
{
    if (!api)
        return;
    weir_admin_api_stop(api);
    weir_queue_release(&api->jobs);
    weir_free(api);
}
