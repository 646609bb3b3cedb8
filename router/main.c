/* main.c - weir-router: opens the parts in the order in which they lean on each other, waits, drains, closes.
 *
 *   loops <- callsets <- gateway, rpc api, admin;  rpc <- fleet <- callsets;  discovery -> keys, fleet
 *
 * Draining (SIGTERM): not ready, registration gone, no new connections; open calls finish within
 * drain_timeout_ms; what is left then is cancelled. A second signal ends the wait. Threads: main starts and
 * stops the others, and runs a loop's left-over tasks once its thread is gone. */
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/ident.h"
#include "base/log.h"
#include "base/program.h"
#include "base/thread.h"
#include "discovery/discovery.h"
#include "http/http_server.h"
#include "proto/rpc.h"
#include "router/admin/admin.h"
#include "router/admin/api.h"
#include "router/call/callset.h"
#include "router/call/gate.h"
#include "router/call/shedding.h"
#include "router/exchange/gossip.h"
#include "router/fabric/fleet.h"
#include "router/gateway/gateway.h"
#include "router/limits/limits.h"
#include "router/mesh/mesh.h"
#include "router/router_conf.h"
#include "router/rpc/api.h"
#include "router/tenancy/keys.h"
#include "router/tenancy/limit_table.h"

#define LOOPS_MAX 64
#define GRPC_OUTBOX_BYTES (1u << 20)
#define SWEEP_MS 500 /* of the deployments that shed */

#define WEIR_CONF_STRUCT struct weir_router_conf
static const struct weir_conf_row rows[] = { WEIR_CONF_ROWS(WEIR_ROUTER_CONF) };
static const struct weir_conf_spec spec = {
    .program = "weir-router",
    .summary = "the stateless front of a Weir fleet: REST and gRPC in, replicas out",
    .env_prefix = "WEIR_ROUTER",
    .rows = rows,
    .n_rows = sizeof rows / sizeof *rows,
};

struct router {
    struct weir_router_conf conf;
    struct weir_conf *parsed;
    char id[80], rest[280], grpc[280], admin_address[280], mesh[280];
    uint64_t incarnation;
    struct weir_rpc *rpc;
    struct weir_loop *loops[LOOPS_MAX];
    struct weir_thread threads[LOOPS_MAX];
    struct weir_callset *sets[LOOPS_MAX];
    size_t n_loops;
    struct weir_keys *keys;
    struct weir_limits *limits;
    struct weir_table_watch *table_watch;
    struct weir_shedding *shedding;
    struct weir_gossip *gossip;
    struct weir_gate gate;
    struct weir_fleet *fleet;
    struct weir_discovery *discovery;
    atomic_uint_fast64_t version_applied; /* of snapshots: discovery's thread writes, the admin API's reads */
    struct weir_gateway *gateway;
    struct weir_admin_api *admin_api;
    struct weir_admin *admin;
    struct weir_rpc_api *api;
    struct weir_http_server *rest_server, *admin_server;
    struct weir_rpc_server *grpc_server;
};

/* ---- opening ---- */
static void on_snapshot(void *ctx, const struct weir_disc_snapshot *snap)
{
    struct router *r = ctx;

    weir_keys_on_snapshot(r->keys, snap);
    weir_table_watch_on_snapshot(r->table_watch, snap);
    weir_fleet_on_snapshot(r->fleet, snap);
    weir_gossip_on_snapshot(r->gossip, snap);
    atomic_store(&r->version_applied, snap->version);
}

static bool has_applied(void *ctx, uint64_t version)
{
    struct router *r = ctx;

    return atomic_load(&r->version_applied) >= version;
}

static weir_err open_fabric(struct router *r, struct weir_why *why)
{
    struct weir_fleet_opts opts = {
        .router = r->id,
        .incarnation = r->incarnation,
        .prefix = r->conf.discovery_prefix,
        .tls = { weir_conf_given(r->conf.fabric_tls_ca), weir_conf_given(r->conf.fabric_tls_cert),
                 weir_conf_given(r->conf.fabric_tls_key), NULL },
    };
    weir_err err = weir_rpc_open((int)r->conf.cq_threads, &r->rpc, why);

    opts.rpc = r->rpc;
    if (err == WEIR_OK)
        err = weir_fleet_open(&opts, &r->fleet, why);
    return err;
}

static weir_err open_loops(struct router *r, struct weir_why *why)
{
    struct weir_callset_opts opts;
    long n_cores = sysconf(_SC_NPROCESSORS_ONLN);
    size_t wanted = r->conf.io_threads ? r->conf.io_threads
                    : n_cores < 1      ? 1
                    : n_cores > 8      ? 8
                                       : (size_t)n_cores;

    weir_callset_opts_init(&opts);
    opts.gate = &r->gate;
    opts.calls_max = r->conf.calls_max;
    opts.first_token_timeout_ms = r->conf.first_token_timeout_ms;
    while (r->n_loops < wanted) {
        weir_err err = weir_loop_open((int)r->n_loops, &r->loops[r->n_loops], why);
        if (err != WEIR_OK)
            return err;
        r->n_loops++;
        err = weir_callset_open(r->loops[r->n_loops - 1], r->fleet, &opts, &r->sets[r->n_loops - 1], why);
        if (err != WEIR_OK)
            return err;
    }
    return WEIR_OK;
}

static weir_err open_limits(struct router *r, struct weir_why *why)
{
    struct weir_limits_opts opts = { .self = weir_mesh_router(weir_str(r->id), r->incarnation) };
    struct weir_gossip_opts gossip = {
        .rpc = r->rpc,
        .router = r->id,
        .incarnation = r->incarnation,
        .prefix = r->conf.discovery_prefix,
        .listen = r->conf.mesh_listen,
        .tls = { weir_conf_given(r->conf.mesh_tls_ca), weir_conf_given(r->conf.mesh_tls_cert),
                 weir_conf_given(r->conf.mesh_tls_key), NULL },
        .interval_ms = r->conf.mesh_interval_ms,
        .source = WEIR_DISCOVERY_OPTS(&r->conf, NULL, NULL),
    };

    if (!gossip.tls.ca_file != !gossip.tls.cert_file) /* gRPC would let in whoever comes */
        return weir_fail(why, WEIR_INVALID, "mesh_tls_ca, mesh_tls_cert and mesh_tls_key go together");
    if (strcmp(r->conf.limit_policy, "refuse") != 0 && strcmp(r->conf.limit_policy, "deprioritize") != 0)
        return weir_fail(why, WEIR_INVALID, "limit_policy: refuse or deprioritize");
    if (strcmp(r->conf.limit_header_unit, "second") != 0 && strcmp(r->conf.limit_header_unit, "minute") != 0)
        return weir_fail(why, WEIR_INVALID, "limit_header_unit: second or minute");
    weir_limit_table_init(&opts.table);
    weir_err err = weir_limits_open(&opts, weir_now_ns(), &r->limits, why);
    gossip.limits = r->limits;
    if (err == WEIR_OK)
        err = weir_table_watch_open(r->conf.discovery_prefix, r->limits, &r->table_watch, why);
    if (err == WEIR_OK)
        err = weir_shedding_open(r->limits, &r->shedding, why);
    return err == WEIR_OK ? weir_gossip_open(&gossip, &r->gossip, why) : err;
}

static weir_err open_tenancy(struct router *r, struct weir_why *why)
{
    weir_err err = weir_keys_open(r->conf.discovery_prefix, &r->keys, why);

    if (err == WEIR_OK)
        weir_keys_set_accounts_required(r->keys, r->conf.accounts_required);
    if (err == WEIR_OK)
        err = open_limits(r, why);
    r->gate = (struct weir_gate){ .keys = r->keys,
                                  .limits = r->conf.limits ? r->limits : NULL,
                                  .shedding = r->shedding,
                                  .legacy = strcmp(r->conf.limit_policy, "deprioritize") == 0 };
    return err;
}

static weir_err open_discovery(struct router *r, struct weir_why *why)
{
    struct weir_discovery_opts opts = WEIR_DISCOVERY_OPTS(&r->conf, on_snapshot, r);

    return weir_discovery_open(&opts, &r->discovery, why);
}

static weir_err open_admin(struct router *r, struct weir_why *why)
{
    struct weir_admin_api_opts api = {
        .keys = r->keys,
        .limits = r->limits,
        .fleet = r->fleet,
        .exchange = weir_gossip_exchange(r->gossip),
        .token = weir_conf_given(r->conf.admin_token),
        .has_client_certs = r->conf.admin_tls_ca[0] != '\0',
        .prefix = r->conf.discovery_prefix,
        .discovery = r->discovery,
        .has_applied = has_applied,
        .ctx = r,
        .source = WEIR_DISCOVERY_OPTS(&r->conf, NULL, NULL),
    };
    weir_err err = weir_admin_api_open(&api, &r->admin_api, why);

    if (err != WEIR_OK)
        return err;
    struct weir_admin_opts admin = {
        r->id, r->conf.discovery_prefix, r->fleet, r->gateway, r->discovery, r->parsed, r->admin_api
    };
    return weir_admin_open(&admin, &r->admin, why);
}

static weir_err open_services(struct router *r, struct weir_why *why)
{
    struct weir_gateway_opts gateway = { r->keys,
                                         r->fleet,
                                         r->sets,
                                         r->n_loops,
                                         r->conf.perf_header_prefix,
                                         r->conf.limit_header_unit[0] == 'm' ? WEIR_LIMIT_PER_MINUTE
                                                                             : WEIR_LIMIT_PER_SECOND };
    struct weir_rpc_api_opts api = { r->keys, r->fleet, r->loops, r->sets, r->n_loops, GRPC_OUTBOX_BYTES };
    weir_err err = weir_gateway_open(&gateway, &r->gateway, why);

    if (err == WEIR_OK)
        err = open_admin(r, why);
    return err == WEIR_OK ? weir_rpc_api_open(&api, &r->api, why) : err;
}

static weir_err open_rest(struct router *r, struct weir_why *why)
{
    struct weir_http_opts opts = {
        .name = "rest",
        .listen = r->conf.rest_listen,
        .body_max = r->conf.body_bytes_max,
        .output_max = r->conf.output_bytes_max,
        .connections_max = r->conf.connections_max,
        .head_ms = r->conf.head_timeout_ms,
        .body_ms = r->conf.body_timeout_ms,
        .idle_ms = r->conf.idle_timeout_ms,
        .stall_ms = r->conf.stall_timeout_ms,
        .tls_cert = weir_conf_given(r->conf.rest_tls_cert),
        .tls_key = weir_conf_given(r->conf.rest_tls_key),
    };
    struct weir_http_hooks hooks = weir_gateway_hooks(r->gateway);

    return weir_http_server_open(&opts, &hooks, r->loops, r->n_loops, &r->rest_server, why);
}

static weir_err open_listeners(struct router *r, struct weir_why *why)
{
    struct weir_http_opts admin = { .name = "admin",
                                    .listen = r->conf.admin_listen,
                                    .connections_max = 256,
                                    .tls_cert = weir_conf_given(r->conf.admin_tls_cert),
                                    .tls_key = weir_conf_given(r->conf.admin_tls_key),
                                    .tls_client_ca = weir_conf_given(r->conf.admin_tls_ca) };
    struct weir_http_hooks admin_hooks = weir_admin_hooks(r->admin);
    struct weir_rpc_server_opts grpc = {
        .listen = r->conf.grpc_listen,
        .tls = { weir_conf_given(r->conf.grpc_tls_ca), weir_conf_given(r->conf.grpc_tls_cert),
                 weir_conf_given(r->conf.grpc_tls_key), NULL },
        .handlers = weir_rpc_api_handlers(r->api),
        .n_handlers = WEIR_RPC_API_METHODS,
        .reflection = true,
        .message_bytes_max = r->conf.body_bytes_max,
        .connections_max = 4096,
    };
    weir_err err = open_rest(r, why);

    if (err == WEIR_OK)
        err = weir_http_server_open(&admin, &admin_hooks, r->loops, 1, &r->admin_server, why);
    if (err == WEIR_OK)
        err = weir_rpc_server_open(r->rpc, &grpc, &r->grpc_server, why);
    return err;
}

static void *run_loop(void *loop)
{
    weir_loop_run(loop);
    return NULL;
}

static weir_err start_loops(struct router *r, struct weir_why *why)
{
    weir_err err = WEIR_OK;

    for (size_t i = 0; i < r->n_loops && err == WEIR_OK; i++) {
        char name[32];
        snprintf(name, sizeof name, "io%zu", i);
        err = weir_thread_start(&r->threads[i], WEIR_ROLE_IO, name, run_loop, r->loops[i], why);
    }
    return err;
}

static weir_err announce(struct router *r, struct weir_why *why)
{
    struct weir_router_record record;
    struct weir_buf value;
    char key[256];

    weir_ident_address(r->conf.advertise_rest, r->conf.rest_listen, weir_http_server_port(r->rest_server),
                       r->rest, sizeof r->rest);
    weir_ident_address(r->conf.advertise_grpc, r->conf.grpc_listen, weir_rpc_server_port(r->grpc_server),
                       r->grpc, sizeof r->grpc);
    weir_ident_address(r->conf.advertise_admin, r->conf.admin_listen, weir_http_server_port(r->admin_server),
                       r->admin_address, sizeof r->admin_address);
    weir_ident_address(r->conf.advertise_mesh, r->conf.mesh_listen, weir_gossip_port(r->gossip), r->mesh,
                       sizeof r->mesh);
    record = (struct weir_router_record){ .mesh = weir_str(r->mesh),
                                          .id = weir_str(r->id),
                                          .rest = weir_str(r->rest),
                                          .grpc = weir_str(r->grpc),
                                          .admin = weir_str(r->admin_address),
                                          .incarnation = r->incarnation,
                                          .started_s = weir_wall_ns() / WEIR_S };
    weir_buf_init(&value, 0);
    weir_router_record_write(&value, &record);
    snprintf(key, sizeof key, "%srouters/%s", r->conf.discovery_prefix, r->id);
    weir_err err = weir_discovery_register(r->discovery, key,
                                           (struct weir_str){ weir_buf_ptr(&value), weir_buf_len(&value) });
    weir_buf_release(&value);
    if (err != WEIR_OK)
        return weir_fail(why, err, "could not register %s", key);
    weir_rpc_server_set_serving(r->grpc_server, true);
    WEIR_INFO("listening", "rest=%s grpc=%s admin=%s loops=%zu", r->rest, r->grpc, r->admin_address,
              r->n_loops);
    return WEIR_OK;
}

static weir_err open_all(struct router *r, struct weir_why *why)
{
    weir_err err = open_fabric(r, why);

    if (err == WEIR_OK)
        err = open_tenancy(r, why);
    if (err == WEIR_OK)
        err = open_loops(r, why);
    if (err == WEIR_OK)
        err = open_discovery(r, why);
    if (err == WEIR_OK)
        err = open_services(r, why);
    if (err == WEIR_OK)
        err = open_listeners(r, why);
    if (err == WEIR_OK)
        err = weir_gossip_start(r->gossip, why);
    if (err == WEIR_OK)
        err = start_loops(r, why);
    if (err == WEIR_OK)
        err = announce(r, why);
    return err;
}

/* ---- closing ---- */
static void drain(struct router *r)
{
    char key[256];
    uint32_t timeout_ms = r->conf.drain_timeout_ms;
    uint64_t end_ns =
        weir_now_ns() + timeout_ms * WEIR_MS + WEIR_S; /* the server resets what is left by itself */

    WEIR_INFO("draining", "timeout_ms=%u connections=%u", timeout_ms,
              weir_http_server_connections(r->rest_server));
    weir_gateway_drain(r->gateway);
    weir_rpc_server_set_serving(r->grpc_server, false);
    snprintf(key, sizeof key, "%srouters/%s", r->conf.discovery_prefix, r->id);
    weir_discovery_unregister(r->discovery, key);
    weir_http_server_drain(r->rest_server, timeout_ms);
    weir_rpc_server_drain(r->grpc_server, timeout_ms);
    while (weir_http_server_connections(r->rest_server) > 0 && weir_now_ns() < end_ns)
        if (weir_program_told_to_end(20))
            break;
}

static void close_all(struct router *r)
{
    weir_rpc_server_close(r->grpc_server);
    for (size_t i = 0; i < r->n_loops; i++)
        weir_loop_stop(r->loops[i]);
    for (size_t i = 0; i < r->n_loops; i++)
        weir_thread_join(&r->threads[i]);
    if (r->rest_server)
        weir_http_server_close(r->rest_server);
    if (r->admin_server)
        weir_http_server_close(r->admin_server);
    weir_admin_api_stop(r->admin_api);
    /* What the closing threads posted, while the callsets are still there. */
    for (size_t i = 0; i < r->n_loops; i++)
        weir_loop_turn(r->loops[i], 0);
    weir_discovery_close(r->discovery);
    for (size_t i = 0; i < r->n_loops; i++)
        weir_callset_close(r->sets[i]);
    weir_fleet_close(r->fleet);
    weir_gossip_close(r->gossip);
    weir_rpc_close(r->rpc);
    for (size_t i = 0; i < r->n_loops; i++)
        weir_loop_close(r->loops[i]);
    weir_rpc_api_close(r->api);
    weir_admin_close(r->admin);
    weir_admin_api_close(r->admin_api);
    weir_gateway_close(r->gateway);
    weir_table_watch_close(r->table_watch);
    weir_shedding_close(r->shedding);
    weir_limits_close(r->limits);
    weir_keys_close(r->keys);
}

int main(int argc, char **argv)
{
    static struct router router;
    struct weir_why why = { 0 };
    int code;

    if (!weir_program_begin(&spec, argc, argv, &router.conf, &router.parsed, &code))
        return code;
    router.incarnation = weir_incarnation();
    weir_ident_id(router.conf.id, "router", router.id, sizeof router.id);
    weir_err err =
        weir_log_setup_by_name(router.conf.log_level, router.conf.log_format, "router", router.id, &why);
    if (err == WEIR_OK)
        err = open_all(&router, &why);
    if (err == WEIR_OK) {
        while (!weir_program_told_to_end(SWEEP_MS))
            weir_shedding_sweep(router.shedding, weir_now_ns());
        drain(&router);
    } else {
        WEIR_ERROR("start_failed", "err=%s why=%s", weir_err_info(err)->name, why.text);
    }
    close_all(&router);
    WEIR_INFO("stopped", "id=%s", router.id);
    weir_conf_close(router.parsed);
    return err == WEIR_OK ? 0 : 1;
}
