/* stub_main.c - weir-stub: a replica without a model and an HTTP server that answers alike, for measuring what is before
 * them. Prints {"grpc":port,"http":port} when both listen, and runs until SIGTERM. */
#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/program.h"
#include "base/thread.h"
#include "bench/http_stub.h"
#include "proto/rpc.h"
#include "tests/support/stub_replica.h"

#define STUB_CONF(X)                                                                                         \
    X(STR, id, "stub", 1, 64, "", "name of the replica")                                                     \
    X(STR, model, "demo", 1, 200, "", "name of its model")                                                   \
    X(STR, grpc_listen, "127.0.0.1:0", 1, 255, "host:port", "where routers attach")                          \
    X(STR, http_listen, "127.0.0.1:0", 1, 255, "host:port", "where proxies connect")                         \
    X(U32, deltas, "16", 1, 1000000, "", "steps of an answer")                                               \
    X(U32, tokens, "1", 1, 1000, "tokens", "in each step")                                                   \
    X(U64, gap_us, "0", 0, 0, "us", "between steps; 0 = the whole answer at once")

struct stub_conf {
    WEIR_CONF_FIELDS(STUB_CONF)
};
#define WEIR_CONF_STRUCT struct stub_conf
static const struct weir_conf_row rows[] = { WEIR_CONF_ROWS(STUB_CONF) };
static const struct weir_conf_spec spec = {
    .program = "weir-stub",
    .summary = "a replica without a model, and an HTTP server that answers alike",
    .env_prefix = "WEIR_STUB",
    .rows = rows,
    .n_rows = sizeof rows / sizeof *rows,
};

struct stubs {
    struct weir_rpc *rpc;
    struct weir_stub *replica;
    struct weir_loop *loop;
    struct http_stub *http;
    struct weir_thread thread;
};

static void *run_loop(void *loop)
{
    weir_loop_run(loop);
    return NULL;
}

static weir_err open_all(struct stubs *s, const struct stub_conf *conf, struct weir_why *why)
{
    struct weir_stub_plan plan;
    struct http_stub_opts http = { conf->http_listen, conf->deltas, conf->gap_us * WEIR_US };
    weir_err err = weir_rpc_open(1, &s->rpc, why);
    struct weir_stub_opts opts = {
        .rpc = s->rpc, .listen = conf->grpc_listen, .id = conf->id, .model = conf->model, .slots = 100000
    };

    if (err == WEIR_OK)
        err = weir_stub_open(&opts, &s->replica, why);
    if (err == WEIR_OK) {
        weir_stub_plan_init(&plan);
        plan.n_deltas = conf->deltas;
        plan.tokens_per_delta = conf->tokens;
        plan.gap_ns = conf->gap_us * WEIR_US;
        weir_stub_set_plan(s->replica, &plan);
        err = weir_loop_open(0, &s->loop, why);
    }
    if (err == WEIR_OK)
        err = http_stub_open(&http, s->loop, &s->http, why);
    if (err == WEIR_OK)
        err = weir_thread_start(&s->thread, WEIR_ROLE_IO, "http", run_loop, s->loop, why);
    return err;
}

int main(int argc, char **argv)
{
    struct stub_conf conf;
    struct weir_conf *parsed = NULL;
    struct stubs stubs = { 0 };
    struct weir_why why = { 0 };
    int code;

    if (!weir_program_begin(&spec, argc, argv, &conf, &parsed, &code))
        return code;
    weir_log_setup(WEIR_LOG_WARN, WEIR_LOG_AUTO, "stub", conf.id);
    weir_err err = open_all(&stubs, &conf, &why);
    if (err == WEIR_OK) {
        printf("{\"grpc\":%d,\"http\":%d}\n", weir_stub_port(stubs.replica), http_stub_port(stubs.http));
        fflush(stdout);
        while (!weir_program_told_to_end(-1))
            ;
    } else {
        fprintf(stderr, "weir-stub: %s\n", why.text);
    }
    weir_stub_close(stubs.replica);
    if (stubs.loop)
        weir_loop_stop(stubs.loop);
    weir_thread_join(&stubs.thread);
    http_stub_close(stubs.http);
    if (stubs.loop)
        weir_loop_close(stubs.loop);
    weir_rpc_close(stubs.rpc);
    weir_conf_close(parsed);
    return err == WEIR_OK ? 0 : 1;
}
