/* main.c - weir-bench: puts load on a REST endpoint or a gRPC port and prints what came of it as one JSON object. */
#include <stdio.h>
#include <sys/resource.h>

#include "base/conf.h"
#include "base/thread.h"
#include "bench/load.h"

#define BENCH_CONF(X)                                                                                        \
    X(STR, target, "127.0.0.1:8080", 1, 255, "host:port", "where to send the load")                          \
    X(BOOL, grpc, "false", 0, 0, "", "over gRPC: weir.v1.Inference/Generate, always streams")                \
    X(STR, path, "/v1/chat/completions", 1, 255, "", "what to ask for")                                      \
    X(STR, api_key, "none", 0, 255, "", "sent as the bearer token")                                          \
    X(STR, model, "demo", 1, 200, "", "the model asked for")                                                 \
    X(U32, connections, "64", 1, 60000, "", "connections at once")                                           \
    X(F64, rate, "0", 0, 10000000, "requests/s", "open loop at this rate; 0 = closed loop")                  \
    X(F64, seconds, "5", 0.1, 86400, "s", "how long to measure")                                             \
    X(F64, warmup, "1", 0, 3600, "s", "load before it is measured")                                          \
    X(BOOL, stream, "false", 0, 0, "", "ask for server-sent events")                                         \
    X(U32, max_tokens, "16", 1, 100000, "tokens", "of each answer")                                          \
    X(U32, prompt_bytes, "400", 1, 1000000, "bytes", "of each prompt")                                       \
    X(U32, affinity_keys, "0", 0, 1000000, "", "sessions; 0 = one for each connection")

struct bench_conf {
    WEIR_CONF_FIELDS(BENCH_CONF)
};
#define WEIR_CONF_STRUCT struct bench_conf
static const struct weir_conf_row rows[] = { WEIR_CONF_ROWS(BENCH_CONF) };
static const struct weir_conf_spec spec = {
    .program = "weir-bench",
    .summary = "open- or closed-loop load on an OpenAI-compatible endpoint or a gRPC port",
    .env_prefix = "WEIR_BENCH",
    .rows = rows,
    .n_rows = sizeof rows / sizeof *rows,
};

static void print(const struct load_result *result)
{
    struct weir_buf out;
    struct weir_jw w;

    weir_buf_init(&out, 0);
    weir_jw_init(&w, &out);
    weir_jw_object(&w);
    weir_jw_key(&w, "requests_s");
    weir_jw_f64(&w, (double)result->n_requests / result->seconds);
    weir_jw_key(&w, "events_s");
    weir_jw_f64(&w, (double)result->n_events / result->seconds);
    weir_jw_key(&w, "requests");
    weir_jw_u64(&w, result->n_requests);
    weir_jw_key(&w, "events");
    weir_jw_u64(&w, result->n_events);
    weir_jw_key(&w, "errors");
    weir_jw_u64(&w, result->n_errors);
    weir_jw_key(&w, "error");
    weir_jw_cstr(&w, result->error);
    weir_jw_key(&w, "bytes");
    weir_jw_u64(&w, result->n_bytes);
    weir_jw_key(&w, "latency_ms");
    hist_write(&result->latency, &w);
    weir_jw_key(&w, "first_event_ms");
    hist_write(&result->first_event, &w);
    weir_jw_key(&w, "gap_ms");
    hist_write(&result->gap, &w);
    weir_jw_object_end(&w);
    printf("%s\n", weir_buf_cstr(&out));
    weir_buf_release(&out);
}

int main(int argc, char **argv)
{
    static struct load_result result;
    struct bench_conf conf;
    struct weir_conf *parsed = NULL;
    enum weir_conf_action action;
    struct weir_why why = { 0 };
    struct rlimit files;

    weir_err err = weir_conf_open(&spec, argc, argv, &conf, &parsed, &action, &why);
    if (err == WEIR_OK && action == WEIR_CONF_EXIT) {
        weir_conf_close(parsed);
        return 0;
    }
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    if (err == WEIR_OK) {
        struct load_opts opts = { conf.target,      conf.path,       conf.api_key,      conf.model,
                                  conf.connections, conf.rate,       conf.seconds,      conf.warmup,
                                  conf.stream,      conf.max_tokens, conf.prompt_bytes, conf.affinity_keys };
        err = conf.grpc ? grpc_run(&opts, &result, &why) : rest_run(&opts, &result, &why);
    }
    if (err == WEIR_OK)
        print(&result);
    else
        fprintf(stderr, "weir-bench: %s\n", why.text);
    weir_conf_close(parsed);
    return err == WEIR_OK ? 0 : 1;
}
