/* gateway.c - which path means what, who may call it, and how a request becomes a call.
 *
 *   POST /v1/chat/completions   POST /v1/completions   GET /v1/models   GET /v1/models/<id>
 *   GET /healthz (the process answers)   GET /readyz (it can serve: keys are known, a replica takes calls)
 *
 * The same under /inference, so that a base URL of the hosted service works with its host changed. A wrong
 * path, method, key or media type is refused on the head, before the body is read. Threads: the connection's
 * loop; ready and drain anywhere. */
#include "router/gateway/gateway.h"

#include <stdatomic.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "router/call/catalog.h"
#include "router/gateway/answer.h"
#include "router/gateway/parse.h"

struct weir_gateway {
    struct weir_gateway_opts opts;
    struct weir_answer_env *envs; /* by loop index */
    atomic_bool draining;
};

enum route { ROUTE_NONE, ROUTE_CHAT, ROUTE_COMPLETION, ROUTE_MODELS, ROUTE_MODEL, ROUTE_HEALTH, ROUTE_READY };

static const struct path {
    const char *path;
    enum route route;
    const char *method;
    bool needs_key;
} paths[] = {
    { "/v1/chat/completions", ROUTE_CHAT, "POST", true },
    { "/v1/completions", ROUTE_COMPLETION, "POST", true },
    { "/v1/models", ROUTE_MODELS, "GET", true },
    { "/v1/models/", ROUTE_MODEL, "GET", true }, /* and an id */
    { "/healthz", ROUTE_HEALTH, "GET", false },
    { "/readyz", ROUTE_READY, "GET", false },
};

static struct weir_str strip_prefix(struct weir_str s, const char *prefix)
{
    size_t len = strlen(prefix);
    if (s.len < len || memcmp(s.ptr, prefix, len) != 0)
        return s;
    return (struct weir_str){ s.ptr + len, s.len - len };
}

static const struct path *find_path(struct weir_str target)
{
    struct weir_str path = strip_prefix(target, "/inference");

    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        size_t len = strlen(paths[i].path);
        bool is_prefix =
            paths[i].path[len - 1] == '/' && path.len > len && memcmp(path.ptr, paths[i].path, len) == 0;
        if (is_prefix || weir_str_eq(path, paths[i].path))
            return &paths[i];
    }
    return NULL;
}

static void refuse(struct weir_http_req *http, weir_err err, const struct weir_why *why)
{
    weir_answer_error(http, err, why, NULL, err == WEIR_UNAVAILABLE ? 1000 : 0);
}

/* ---- before the body ---- */
static weir_err check_head(struct weir_gateway *g, const struct weir_http_req *http, const struct path *path,
                           bool with_key, struct weir_arena *arena, struct weir_str *ret_account,
                           struct weir_why *why)
{
    struct weir_str type = weir_http_header(http, "content-type");
    static const char json[] = "application/json";

    if (!path)
        return weir_fail(why, WEIR_NOTFOUND, "no such path: %.*s", WEIR_STR_FMT(http->path));
    if (!weir_str_eq(http->method, path->method))
        return weir_fail(why, WEIR_METHOD, "%s takes %s only", path->path, path->method);
    if (strcmp(path->method, "POST") == 0 && type.len > 0) {
        struct weir_str essence = { type.ptr, type.len < sizeof json - 1 ? type.len : sizeof json - 1 };
        bool ends = type.len == essence.len || strchr("; \t", type.ptr[essence.len]);
        if (!weir_str_eq_nocase(essence, json) || !ends)
            return weir_fail_param(why, "content-type", WEIR_MEDIATYPE, "content-type must be %s", json);
    }
    if (!path->needs_key || !with_key)
        return WEIR_OK;
    return weir_keys_check(g->opts.keys, weir_http_header(http, "authorization"), arena, ret_account, why);
}

/* start_call checks the key itself: for a small body that is soon enough, and looks the key up once instead of twice. */
static bool key_can_wait(const struct path *path, const struct weir_http_req *http)
{
    struct weir_str length = weir_http_header(http, "content-length");
    bool is_call = path && (path->route == ROUTE_CHAT || path->route == ROUTE_COMPLETION);

    return is_call && length.len > 0 && length.len <= 4; /* the parser saw to it that these are digits */
}

static void on_head(void *ctx, struct weir_http_req *http)
{
    const struct path *path = find_path(http->path);
    struct weir_arena arena;
    struct weir_str account;
    struct weir_why why = { 0 };

    weir_arena_init(&arena, 0);
    weir_err err = check_head(ctx, http, path, !key_can_wait(path, http), &arena, &account, &why);
    weir_arena_release(&arena);
    if (err != WEIR_OK)
        refuse(http, err, &why);
}

/* ---- calls ---- */
static weir_err copy_label(struct weir_request *req, struct weir_str from, struct weir_str *ret,
                           struct weir_why *why)
{
    char *copy = weir_arena_strndup(&req->arena, from.len ? from.ptr : "", from.len);

    if (!copy)
        return weir_fail(why, WEIR_NOMEM, "no memory for the request");
    *ret = (struct weir_str){ copy, from.len };
    return WEIR_OK;
}

static weir_err fill(struct weir_gateway *g, struct weir_request *req, const struct weir_http_req *http,
                     const struct path *path, struct weir_answer_opts *ret_opts, struct weir_why *why)
{
    struct weir_str session = weir_http_header(http, "x-multi-turn-session-id");
    weir_err err = check_head(g, http, path, /* with_key= */ true, &req->arena, &req->account, why);

    if (session.len == 0)
        session = weir_http_header(http, "x-session-affinity");
    req->arrived_ns = http->start_ns;
    req->created_s = weir_wall_ns() / WEIR_S;
    weir_request_set_id(req, weir_http_header(http, "x-request-id"));
    if (err == WEIR_OK)
        err = copy_label(req, session, &req->session, why);
    if (err == WEIR_OK)
        err = copy_label(req, weir_http_header(http, "x-prompt-cache-isolation-key"), &req->isolation, why);
    if (err == WEIR_OK)
        err = weir_parse_openai(req, path->route == ROUTE_CHAT, http->body, ret_opts, why);
    return err;
}

static void start_call(struct weir_gateway *g, struct weir_http_req *http, const struct path *path)
{
    struct weir_answer_env *env = &g->envs[weir_loop_index(http->loop)];
    struct weir_request *req = weir_request_open();
    struct weir_answer_opts opts;
    struct weir_why why = { 0 };

    if (!req) {
        refuse(http, WEIR_NOMEM, NULL);
        return;
    }
    weir_callset_mint(env->set, req);
    weir_err err = fill(g, req, http, path, &opts, &why);
    if (err == WEIR_OK) {
        weir_answer_start(env, req, &opts, http);
        return;
    }
    weir_answer_error(http, err, &why, req->request_id, 0);
    weir_request_close(req);
}

/* ---- models ---- */
static void write_model(struct weir_jw *w, const struct weir_fleet_model *model)
{
    weir_jw_object(w);
    weir_jw_key(w, "id");
    weir_jw_str(w, model->id);
    weir_jw_key(w, "object");
    weir_jw_cstr(w, "model");
    weir_jw_key(w, "created");
    weir_jw_u64(w, model->created_s);
    weir_jw_key(w, "owned_by");
    weir_jw_cstr(w, "weir");
    weir_jw_object_end(w);
}

static void add_model(void *w, const struct weir_fleet_model *model)
{
    write_model(w, model);
}

static void respond_json(struct weir_http_req *http, int status, struct weir_buf *body)
{
    struct weir_http_fields fields;

    weir_http_fields_init(&fields);
    weir_http_fields_adds(&fields, "content-type", "application/json");
    weir_http_respond(http, status, &fields, weir_buf_ptr(body), weir_buf_len(body));
}

/* Looked up again: on_head keeps nothing. */
static weir_err account_of(struct weir_gateway *g, const struct weir_http_req *http, struct weir_arena *arena,
                           struct weir_str *ret, struct weir_why *why)
{
    return weir_keys_check(g->opts.keys, weir_http_header(http, "authorization"), arena, ret, why);
}

static void list_models(struct weir_gateway *g, struct weir_http_req *http)
{
    struct weir_why why = { 0 };
    struct weir_arena arena;
    struct weir_str account;
    struct weir_buf body;
    struct weir_jw w;

    weir_arena_init(&arena, 0);
    weir_buf_init(&body, 0);
    weir_err err = account_of(g, http, &arena, &account, &why);
    if (err == WEIR_OK) {
        weir_jw_init(&w, &body);
        weir_jw_object(&w);
        weir_jw_key(&w, "object");
        weir_jw_cstr(&w, "list");
        weir_jw_key(&w, "data");
        weir_jw_array(&w);
        weir_catalog_list(g->opts.keys, g->opts.fleet, account, add_model, &w);
        weir_jw_array_end(&w);
        weir_jw_object_end(&w);
        respond_json(http, 200, &body);
    } else {
        refuse(http, err, &why);
    }
    weir_buf_release(&body);
    weir_arena_release(&arena);
}

static void show_model(struct weir_gateway *g, struct weir_http_req *http)
{
    struct weir_str id = strip_prefix(strip_prefix(http->path, "/inference"), "/v1/models/"), account;
    struct weir_fleet_model model;
    struct weir_why why = { 0 };
    struct weir_arena arena;
    struct weir_buf body;
    struct weir_jw w;

    weir_arena_init(&arena, 0);
    weir_buf_init(&body, 0);
    weir_err err = account_of(g, http, &arena, &account, &why);
    if (err == WEIR_OK)
        err = weir_catalog_find(g->opts.keys, g->opts.fleet, account, id, &model, &why);
    if (err == WEIR_OK) {
        weir_jw_init(&w, &body);
        write_model(&w, &model);
        respond_json(http, 200, &body);
    } else {
        refuse(http, err, &why);
    }
    weir_buf_release(&body);
    weir_arena_release(&arena);
}

static void on_request(void *ctx, struct weir_http_req *http)
{
    struct weir_gateway *g = ctx;
    const struct path *path = find_path(http->path);
    struct weir_why why = { 0 };

    switch (path ? path->route : ROUTE_NONE) {
    case ROUTE_CHAT:
    case ROUTE_COMPLETION:
        start_call(g, http, path);
        break;
    case ROUTE_MODELS:
        list_models(g, http);
        break;
    case ROUTE_MODEL:
        show_model(g, http);
        break;
    case ROUTE_HEALTH:
        weir_http_respond(http, 200, NULL, "ok\n", 3);
        break;
    case ROUTE_READY:
        if (weir_gateway_ready(g))
            weir_http_respond(http, 200, NULL, "ready\n", 6);
        else
            refuse(http, weir_fail(&why, WEIR_UNAVAILABLE, "not ready: draining, no keys yet, or no replica"),
                   &why);
        break;
    case ROUTE_NONE: /* on_head has refused it already, unless it was lent from another listener */
        refuse(http, weir_fail(&why, WEIR_NOTFOUND, "no such path: %.*s", WEIR_STR_FMT(http->path)), &why);
        break;
    }
}

/* What the server itself refuses: in the same shape. */
static void on_error(void *ctx, int status, const char *text, struct weir_http_fields *fields,
                     struct weir_buf *body)
{
    struct weir_why why = { 0 };
    weir_err err = status == 413                    ? WEIR_TOOLARGE
                   : status == 431 || status == 414 ? WEIR_HEADERS
                   : status == 408                  ? WEIR_TIMEOUT
                   : status == 503                  ? WEIR_UNAVAILABLE
                                                    : WEIR_INVALID;

    (void)ctx;
    weir_fail(&why, err, "%s", text);
    weir_answer_error_body(body, err, &why, NULL);
    weir_http_fields_adds(fields, "content-type", "application/json");
}

struct weir_http_hooks weir_gateway_hooks(struct weir_gateway *gateway)
{
    return (struct weir_http_hooks){
        .ctx = gateway, .on_request = on_request, .on_head = on_head, .on_error = on_error
    };
}

weir_err weir_gateway_open(const struct weir_gateway_opts *opts, struct weir_gateway **ret,
                           struct weir_why *why)
{
    struct weir_gateway *g = weir_alloc0(sizeof *g);

    if (!g || !(g->envs = weir_calloc(opts->n_sets, sizeof *g->envs))) {
        weir_free(g);
        return weir_fail(why, WEIR_NOMEM, "no memory for the gateway");
    }
    g->opts = *opts;
    for (size_t i = 0; i < opts->n_sets; i++) {
        g->envs[i].set = opts->sets[i];
        g->envs[i].perf_prefix = opts->perf_prefix;
        g->envs[i].limit_unit = opts->limit_unit;
        weir_buf_init(&g->envs[i].scratch, 0);
    }
    *ret = g;
    return WEIR_OK;
}

void weir_gateway_close(struct weir_gateway *g)
{
    if (!g)
        return;
    for (size_t i = 0; i < g->opts.n_sets; i++)
        weir_buf_release(&g->envs[i].scratch);
    weir_free(g->envs);
    weir_free(g);
}

bool weir_gateway_ready(struct weir_gateway *g)
{
    return !atomic_load(&g->draining) && weir_keys_ready(g->opts.keys) &&
           weir_fleet_n_usable(g->opts.fleet) > 0;
}

void weir_gateway_drain(struct weir_gateway *g)
{
    atomic_store(&g->draining, true);
}
