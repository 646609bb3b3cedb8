/* main.c - weir-replica: loads a model folder, serves routers, keeps its registration alive, drains.
 *
 * Draining (SIGTERM): the registration goes, attached routers are told, running requests finish within
 * drain_timeout_ms. A second signal ends the wait. Threads: main starts and stops the others. */
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/ident.h"
#include "base/json.h"
#include "base/log.h"
#include "base/program.h"
#include "base/thread.h"
#include "discovery/discovery.h"
#include "http/http_server.h"
#include "http/pages.h"
#include "proto/rpc.h"
#include "replica/engine/engine.h"
#include "replica/replica_conf.h"
#include "replica/serve/serve.h"
#include "replica/text/template.h"
#include "replica/text/tokenizer.h"

#define WEIR_CONF_STRUCT struct weir_replica_conf
static const struct weir_conf_row rows[] = { WEIR_CONF_ROWS(WEIR_REPLICA_CONF) };
static const struct weir_conf_spec spec = {
    .program = "weir-replica",
    .summary = "serves one model to the routers of a Weir fleet",
    .env_prefix = "WEIR_REPLICA",
    .rows = rows,
    .n_rows = sizeof rows / sizeof *rows,
};

struct replica {
    struct weir_replica_conf conf;
    struct weir_conf *parsed;
    char id[80], model[256], grpc[280], admin[280], key[640];
    struct weir_tokenizer *tokenizer;
    struct weir_template *chat_template;
    struct weir_buf template_text;
    uint8_t template_hash[32];
    struct weir_engine *engine;
    struct weir_serve *serve;
    struct weir_rpc *rpc;
    struct weir_rpc_handler handler;
    struct weir_rpc_server *server;
    struct weir_discovery *discovery;
    struct weir_loop *loop;
    struct weir_thread loop_thread;
    struct weir_http_server *admin_server;
    atomic_bool ready;
};

/* ---- the admin pages ---- */
static int page_ready(void *ctx, struct weir_buf *out)
{
    struct replica *r = ctx;
    bool ready = atomic_load(&r->ready) && weir_discovery_connected(r->discovery);

    weir_buf_adds(out, ready ? "ready\n" : "not ready: loading, draining, or not registered\n");
    return ready ? 200 : 503;
}

static int page_load(void *ctx, struct weir_buf *out)
{
    struct replica *r = ctx;

    weir_serve_describe(r->serve, out);
    return 200;
}

static int page_config(void *ctx, struct weir_buf *out)
{
    struct replica *r = ctx;

    weir_conf_dump(r->parsed, out);
    return 200;
}

static const struct weir_page pages[] = {
    { "/metrics", WEIR_METRICS_CONTENT_TYPE, weir_page_metrics },
    { "/healthz", "text/plain", weir_page_health },
    { "/readyz", "text/plain", page_ready },
    { "/debug/load", "application/json", page_load },
    { "/debug/config", "application/json", page_config },
};

static void on_request(void *ctx, struct weir_http_req *req)
{
    if (!weir_pages_respond(pages, sizeof pages / sizeof *pages, ctx, req))
        weir_http_respond(req, 404, NULL, "no such page\n", 13);
}

static void *run_loop(void *loop)
{
    weir_loop_run(loop);
    return NULL;
}

static weir_err open_admin(struct replica *r, struct weir_why *why)
{
    struct weir_http_opts opts = { .name = "admin", .listen = r->conf.admin_listen, .connections_max = 256 };
    struct weir_http_hooks hooks = { .ctx = r, .on_request = on_request };
    weir_err err = weir_loop_open(0, &r->loop, why);

    if (err == WEIR_OK)
        err = weir_http_server_open(&opts, &hooks, &r->loop, 1, &r->admin_server, why);
    return err;
}

/* ---- opening ---- */
static weir_err open_template(struct replica *r, struct weir_why *why)
{
    struct weir_buf *source = &r->template_text;

    weir_buf_init(source, 1 << 20);
    weir_err err = weir_template_load(r->conf.model_dir, source, why);
    if (err == WEIR_OK) {
        struct weir_str text = { weir_buf_ptr(source), weir_buf_len(source) };
        weir_sha256(text.ptr, text.len, r->template_hash);
        err = weir_template_compile(text, &r->chat_template, why);
    } else if (err == WEIR_NOTFOUND) {
        WEIR_WARN("no_chat_template", "model_dir=%s chat is refused, completions are served",
                  r->conf.model_dir);
        err = WEIR_OK;
    }
    return err;
}

static weir_err open_model(struct replica *r, struct weir_why *why)
{
    uint64_t begin_ns = weir_now_ns();
    struct weir_engine_opts opts = {
        .model_dir = r->conf.model_dir,
        .backend = r->conf.backend,
        .n_threads = r->conf.threads,
        .tensor_parallel = r->conf.tensor_parallel,
        .weights = r->conf.weights,
        .kv = r->conf.kv_type,
        .activations = r->conf.activations,
        .deterministic = r->conf.deterministic,
        .n_slots = r->conf.slots,
        .n_queue_max = r->conf.queue_max,
        .queue_ms_max = r->conf.queue_ms_max,
        .starve_ms = r->conf.starve_ms,
        .cache_share_pct = r->conf.cache_share_pct,
        .kv_bytes = r->conf.kv_bytes,
        .step_tokens = r->conf.step_tokens,
        .step_ms_max = r->conf.step_ms_max,
    };
    weir_err err = WEIR_OK;

    if (!r->conf.model_dir[0])
        err = weir_fail_param(why, "model_dir", WEIR_INVALID, "model_dir is needed: --model-dir FOLDER");
    if (err == WEIR_OK)
        err = weir_tokenizer_open(r->conf.model_dir, &r->tokenizer, why);
    if (err == WEIR_OK)
        err = open_template(r, why);
    if (err == WEIR_OK)
        err = weir_engine_open(&opts, &r->engine, why);
    if (err != WEIR_OK)
        return err;
    const struct weir_engine_info *info = weir_engine_info(r->engine);
    WEIR_INFO("model_loaded", "architecture=%s backend=%s parameters=%llu context=%u ms=%llu",
              info->architecture, info->backend, (unsigned long long)info->n_params, info->n_context,
              (unsigned long long)((weir_now_ns() - begin_ns) / WEIR_MS));
    return WEIR_OK;
}

static weir_err open_serving(struct replica *r, struct weir_why *why)
{
    struct weir_serve_opts opts = {
        .replica = r->id,
        .model = r->model,
        .engine = r->engine,
        .tokenizer = r->tokenizer,
        .chat_template = r->chat_template,
        .template_text = { weir_buf_ptr(&r->template_text), weir_buf_len(&r->template_text) },
        .n_text_workers = r->conf.text_workers,
        .n_queue_max = r->conf.queue_max,
        .request_bytes_max = r->conf.request_bytes_max,
        .receiving_bytes_max = r->conf.receiving_bytes_max,
        .outbox_bytes_max = r->conf.outbox_bytes_max,
    };
    struct weir_rpc_server_opts server = {
        .listen = r->conf.grpc_listen,
        .tls = { weir_conf_given(r->conf.tls_ca), weir_conf_given(r->conf.tls_cert),
                 weir_conf_given(r->conf.tls_key), NULL },
        .handlers = &r->handler,
        .n_handlers = 1,
        .reflection = true,
        .message_bytes_max = 4u << 20,
    };

    memcpy(opts.template_hash, r->template_hash, sizeof opts.template_hash);
    opts.tool_format_given = strcmp(r->conf.tool_format, "auto") != 0;
    if (opts.tool_format_given && !weir_tool_format_parse(weir_str(r->conf.tool_format), &opts.tool_format))
        return weir_fail_param(why, "tool_format", WEIR_INVALID,
                               "tool_format must be auto, none, llama3, hermes, mistral or deepseek");
    weir_err err = weir_serve_open(&opts, &r->serve, why);
    if (err != WEIR_OK)
        return err;
    r->handler = weir_serve_handler(r->serve);
    err = weir_rpc_open((int)r->conf.cq_threads, &r->rpc, why);
    return err == WEIR_OK ? weir_rpc_server_open(r->rpc, &server, &r->server, why) : err;
}

static weir_err open_discovery(struct replica *r, struct weir_why *why)
{
    struct weir_discovery_opts opts = WEIR_DISCOVERY_OPTS(&r->conf, /* snapshot_hook= */ NULL, NULL);
    return weir_discovery_open(&opts, &r->discovery, why);
}

static weir_err announce(struct replica *r, struct weir_why *why)
{
    struct weir_replica_record record;
    struct weir_buf value;

    weir_ident_address(r->conf.advertise_grpc, r->conf.grpc_listen, weir_rpc_server_port(r->server), r->grpc,
                       sizeof r->grpc);
    weir_ident_address(r->conf.advertise_admin, r->conf.admin_listen, weir_http_server_port(r->admin_server),
                       r->admin, sizeof r->admin);
    record = (struct weir_replica_record){ weir_str(r->id),    weir_str(r->model), weir_str(r->grpc),
                                           weir_str(r->admin), weir_incarnation(), weir_wall_ns() / WEIR_S };
    snprintf(r->key, sizeof r->key, "%sreplicas/%s/%s", r->conf.discovery_prefix, r->model, r->id);
    weir_buf_init(&value, 0);
    weir_replica_record_write(&value, &record);
    weir_err err = weir_discovery_register(r->discovery, r->key,
                                           (struct weir_str){ weir_buf_ptr(&value), weir_buf_len(&value) });
    weir_buf_release(&value);
    if (err != WEIR_OK)
        return weir_fail(why, err, "could not register %s", r->key);
    weir_rpc_server_set_serving(r->server, true);
    atomic_store(&r->ready, true);
    WEIR_INFO("listening", "model=%s grpc=%s admin=%s", r->model, r->grpc, r->admin);
    return WEIR_OK;
}

static void name_model(struct replica *r)
{
    char folder[1024];

    snprintf(folder, sizeof folder, "%s", r->conf.model_dir);
    for (size_t len = strlen(folder); len > 1 && folder[len - 1] == '/'; len--)
        folder[len - 1] = '\0';
    const char *slash = strrchr(folder, '/');
    snprintf(r->model, sizeof r->model, "%.200s",
             r->conf.model_name[0] ? r->conf.model_name
             : slash               ? slash + 1
                                   : folder);
}

static weir_err open_all(struct replica *r, struct weir_why *why)
{
    weir_err err = open_model(r, why);

    if (err == WEIR_OK)
        err = open_serving(r, why);
    if (err == WEIR_OK)
        err = open_discovery(r, why);
    if (err == WEIR_OK)
        err = open_admin(r, why);
    if (err == WEIR_OK)
        err = weir_thread_start(&r->loop_thread, WEIR_ROLE_ADMIN, "admin", run_loop, r->loop, why);
    if (err == WEIR_OK)
        err = announce(r, why);
    return err;
}

/* ---- closing ---- */
static void drain(struct replica *r)
{
    uint64_t end_ns = weir_now_ns() + r->conf.drain_timeout_ms * WEIR_MS;

    WEIR_INFO("draining", "timeout_ms=%u calls=%u", r->conf.drain_timeout_ms, weir_serve_n_calls(r->serve));
    atomic_store(&r->ready, false);
    weir_rpc_server_set_serving(r->server, false);
    weir_discovery_unregister(r->discovery, r->key);
    weir_serve_drain(r->serve);
    while (weir_serve_n_calls(r->serve) > 0 && weir_now_ns() < end_ns && !weir_serve_failed(r->serve))
        if (weir_program_told_to_end(20))
            break;
    weir_program_told_to_end(100); /* the last frames leave */
}

static void close_all(struct replica *r)
{
    weir_rpc_server_close(r->server);
    weir_serve_close(r->serve);
    weir_discovery_close(r->discovery);
    if (r->loop)
        weir_loop_stop(r->loop);
    weir_thread_join(&r->loop_thread);
    if (r->admin_server)
        weir_http_server_close(r->admin_server);
    if (r->loop)
        weir_loop_close(r->loop);
    weir_rpc_close(r->rpc);
    weir_engine_close(r->engine);
    weir_template_close(r->chat_template);
    weir_buf_release(&r->template_text);
    weir_tokenizer_close(r->tokenizer);
}

int main(int argc, char **argv)
{
    static struct replica replica;
    struct weir_why why = { 0 };
    int code;

    if (!weir_program_begin(&spec, argc, argv, &replica.conf, &replica.parsed, &code))
        return code;
    name_model(&replica);
    weir_ident_id(replica.conf.id, "replica", replica.id, sizeof replica.id);
    weir_err err =
        weir_log_setup_by_name(replica.conf.log_level, replica.conf.log_format, "replica", replica.id, &why);
    if (err == WEIR_OK)
        err = open_all(&replica, &why);
    bool failed = err != WEIR_OK;
    if (!failed) {
        while (!weir_program_told_to_end(-1))
            ;
        drain(&replica);
        failed = weir_serve_failed(replica.serve);
    } else {
        WEIR_ERROR("start_failed", "err=%s why=%s", weir_err_info(err)->name, why.text);
    }
    close_all(&replica);
    WEIR_INFO("stopped", "id=%s", replica.id);
    weir_conf_close(replica.parsed);
    return failed ? 1 : 0;
}
