/* admin.c - pages over what the other parts describe of themselves. Nothing here changes anything. */
#include "router/admin/admin.h"

#include <stdio.h>
#include <string.h>

#include "base/arena.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "http/pages.h"
#include "router/admin/api.h"
#include "router/admin/page.h"

struct weir_admin {
    struct weir_admin_opts opts;
    struct weir_http_hooks gateway;
    struct weir_counter *completion_tokens;
    struct weir_gauge *active_calls;
};

static int page_home(void *ctx, struct weir_buf *out)
{
    (void)ctx;
    weir_buf_add(out, weir_admin_page, weir_admin_page_len);
    return 200;
}

static int page_ready(void *ctx, struct weir_buf *out)
{
    struct weir_admin *admin = ctx;
    bool ready = weir_gateway_ready(admin->opts.gateway);

    weir_buf_adds(out, ready ? "ready\n" : "not ready: draining, no keys yet, or no replica\n");
    return ready ? 200 : 503;
}

static int page_config(void *ctx, struct weir_buf *out)
{
    struct weir_admin *admin = ctx;

    weir_conf_dump(admin->opts.conf, out);
    return 200;
}

static void write_router(struct weir_jw *w, const struct weir_router_record *rec)
{
    weir_jw_object(w);
    weir_jw_key(w, "id");
    weir_jw_str(w, rec->id);
    weir_jw_key(w, "rest");
    weir_jw_str(w, rec->rest);
    weir_jw_key(w, "grpc");
    weir_jw_str(w, rec->grpc);
    weir_jw_key(w, "admin");
    weir_jw_str(w, rec->admin);
    weir_jw_key(w, "started");
    weir_jw_u64(w, rec->started_s);
    weir_jw_object_end(w);
}

static void write_routers(struct weir_admin *admin, struct weir_jw *w)
{
    const struct weir_disc_snapshot *snap = weir_discovery_snapshot(admin->opts.discovery);
    const struct weir_disc_entry *entries = NULL;
    char prefix[256];
    int n;

    weir_jw_key(w, "routers");
    weir_jw_array(w);
    snprintf(prefix, sizeof prefix, "%srouters/", admin->opts.prefix);
    n = snap ? weir_disc_prefix(snap, prefix, &entries) : 0;
    for (int i = 0; i < n; i++) {
        struct weir_router_record rec;
        struct weir_arena arena;
        weir_arena_init(&arena, 1 << 16);
        if (weir_router_record_parse(entries[i].value, &arena, &rec, NULL) == WEIR_OK)
            write_router(w, &rec);
        weir_arena_release(&arena);
    }
    weir_jw_array_end(w);
    weir_disc_snapshot_unref(snap);
}

/* {"self":{...},"routers":[...], and then the members of weir_fleet_describe's object. */
static int page_fleet(void *ctx, struct weir_buf *out)
{
    struct weir_admin *admin = ctx;
    struct weir_buf fleet;
    struct weir_jw w;

    weir_jw_init(&w, out);
    weir_jw_object(&w);
    weir_jw_key(&w, "self");
    weir_jw_object(&w);
    weir_jw_key(&w, "id");
    weir_jw_cstr(&w, admin->opts.router);
    weir_jw_key(&w, "active_calls");
    weir_jw_i64(&w, weir_gauge_get(admin->active_calls));
    weir_jw_key(&w, "completion_tokens_total");
    weir_jw_u64(&w, weir_counter_get(admin->completion_tokens));
    weir_jw_key(&w, "discovery_connected");
    weir_jw_bool(&w, weir_discovery_connected(admin->opts.discovery));
    weir_jw_object_end(&w);
    write_routers(admin, &w);
    weir_buf_init(&fleet, 0);
    weir_fleet_describe(admin->opts.fleet, &fleet);
    size_t len = weir_buf_len(&fleet);
    if (len > 2) { /* its members, without the braces */
        weir_buf_addc(out, ',');
        weir_buf_add(out, weir_buf_ptr(&fleet) + 1, len - 2);
    }
    weir_buf_release(&fleet);
    weir_jw_object_end(&w);
    return 200;
}

static const struct weir_page pages[] = {
    { "/", "text/html; charset=utf-8", page_home },
    { "/metrics", WEIR_METRICS_CONTENT_TYPE, weir_page_metrics },
    { "/healthz", "text/plain", weir_page_health },
    { "/readyz", "text/plain", page_ready },
    { "/debug/fleet", "application/json", page_fleet },
    { "/debug/config", "application/json", page_config },
};

static bool for_gateway(const struct weir_http_req *req)
{
    return req->path.len >= 4 && memcmp(req->path.ptr, "/v1/", 4) == 0;
}

static void on_head(void *ctx, struct weir_http_req *req)
{
    struct weir_admin *admin = ctx;

    if (weir_admin_api_is_ours(req)) /* before its body is taken in */
        (void)weir_admin_api_allowed(admin->opts.api, req);
    else if (for_gateway(req))
        admin->gateway.on_head(admin->gateway.ctx, req);
}

static void on_request(void *ctx, struct weir_http_req *req)
{
    struct weir_admin *admin = ctx;

    if (weir_admin_api_is_ours(req))
        weir_admin_api_on_request(admin->opts.api, req);
    else if (for_gateway(req))
        admin->gateway.on_request(admin->gateway.ctx, req);
    else if (!weir_pages_respond(pages, sizeof pages / sizeof *pages, admin, req))
        weir_http_respond(req, 404, NULL, "no such page\n", 13);
}

struct weir_http_hooks weir_admin_hooks(struct weir_admin *admin)
{
    return (struct weir_http_hooks){ .ctx = admin, .on_request = on_request, .on_head = on_head };
}

weir_err weir_admin_open(const struct weir_admin_opts *opts, struct weir_admin **ret, struct weir_why *why)
{
    struct weir_admin *admin = weir_alloc0(sizeof *admin);

    if (!admin)
        return weir_fail(why, WEIR_NOMEM, "no memory for the admin pages");
    admin->opts = *opts;
    admin->gateway = weir_gateway_hooks(opts->gateway);
    admin->completion_tokens = weir_counter("weir_tokens_total", "kind=\"completion\"", "tokens, by kind");
    admin->active_calls = weir_gauge("weir_active_calls", "", "calls under way");
    *ret = admin;
    return WEIR_OK;
}

void weir_admin_close(struct weir_admin *admin)
{
    weir_free(admin);
}
