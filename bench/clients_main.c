/* clients_main.c - weir-bench-clients: what bench_serving.py measures servers with. Prints one JSON object for each request (when
 * its tokens came and what the usage said, times from the first request on), and one for the run. */
#include <stdio.h>
#include <sys/resource.h>

#include "base/conf.h"
#include "base/json.h"
#include "base/thread.h"
#include "bench/clients.h"
#include "bench/event.h"

#define CLIENTS_CONF(X)                                                                                      \
    X(STR, target, "127.0.0.1:8080", 1, 255, "host:port", "the server")                                      \
    X(STR, path, "/v1/completions", 1, 255, "", "what to ask for")                                           \
    X(STR, api_key, "none", 0, 255, "", "sent as the bearer token")                                          \
    X(STR, model, "demo", 1, 200, "", "the model asked for")                                                 \
    X(U32, clients, "1", 1, 1000, "", "at once; all begin together")                                         \
    X(U32, requests, "1", 1, 100000, "", "of each client, one after the other")                              \
    X(U32, shared_tokens, "0", 0, 1000000, "tokens", "that all prompts begin with")                          \
    X(U32, own_tokens, "512", 1, 1000000, "tokens", "of each prompt behind them")                            \
    X(U32, out_tokens, "128", 1, 1000000, "tokens", "of each answer")                                        \
    X(U32, id_min, "300", 0, 10000000, "", "prompts are made of ids from here")                              \
    X(U32, id_max, "4000", 0, 10000000, "", "to here")                                                       \
    X(U64, shared_seed, "1", 0, 0, "", "same seed, same shared tokens")                                      \
    X(U64, own_seed, "1", 0, 0, "", "same seed, same own tokens")

struct clients_conf {
    WEIR_CONF_FIELDS(CLIENTS_CONF)
};
#define WEIR_CONF_STRUCT struct clients_conf
static const struct weir_conf_row rows[] = { WEIR_CONF_ROWS(CLIENTS_CONF) };
static const struct weir_conf_spec spec = {
    .program = "weir-bench-clients",
    .summary = "closed-loop clients that stream completions of prompts given as token ids",
    .env_prefix = "WEIR_BENCH_CLIENTS",
    .rows = rows,
    .n_rows = sizeof rows / sizeof *rows,
};

/* ---- reading what came ---- */
struct told { /* by one answer */
    const char *fault;
    struct event usage;
    uint64_t n_token_events, first_ns, last_ns; /* first_ns 0: no token came */
};

static double ms(uint64_t ns)
{
    return (double)(ns / 1000) / 1e3;
}

/* The gap between two reads that brought tokens; tokens that came in one read came at once. */
static void tell_token(struct told *told, uint64_t at_ns, struct weir_jw *w)
{
    told->n_token_events++;
    if (told->first_ns == 0)
        told->first_ns = at_ns;
    else if (at_ns != told->last_ns)
        weir_jw_f64(w, ms(at_ns - told->last_ns));
    told->last_ns = at_ns;
}

/* Goes through the events beside the reads that brought them; writes the gaps. */
static void read_answer(const struct clients_answer *a, struct told *told, struct weir_jw *w)
{
    struct weir_str rest = { weir_buf_ptr(&a->body), weir_buf_len(&a->body) }, block;
    struct weir_arena arena;
    struct event event;
    size_t i_read = 0;

    weir_arena_init(&arena, 0);
    for (uint64_t n = 1; !told->fault && event_next(&rest, &block); n++) {
        while (i_read + 1 < a->n_reads && a->reads[i_read].n_events < n)
            i_read++;
        weir_arena_clear(&arena);
        if (!event_read(block, &arena, &event))
            told->fault = "an event that is an error, or not understood";
        if (event.has_tokens)
            tell_token(told, a->reads[i_read].at_ns, w);
        if (event.has_usage)
            told->usage = event;
    }
    weir_arena_release(&arena);
}

static void write_error(struct weir_jw *w, const struct clients_answer *a, const struct told *told)
{
    struct weir_str body = { weir_buf_ptr(&a->body), weir_buf_len(&a->body) };

    if (!told->fault && a->status == 200)
        return;
    weir_jw_key(w, "error");
    weir_jw_cstr(w, told->fault ? told->fault : a->sent_ns ? "refused" : "not asked");
    weir_jw_key(w, "body");
    body.len = body.len < 400 ? body.len : 400;
    weir_jw_str(w, body);
}

static void write_answer(struct weir_jw *w, const struct clients_answer *a, uint64_t begin_ns)
{
    struct told told = { .fault = a->fault };

    weir_jw_object(w);
    weir_jw_key(w, "gaps_ms");
    weir_jw_array(w);
    if (!told.fault && a->status == 200)
        read_answer(a, &told, w);
    weir_jw_array_end(w);
    weir_jw_key(w, "status");
    weir_jw_i64(w, a->status);
    write_error(w, a, &told);
    weir_jw_key(w, "token_events");
    weir_jw_u64(w, told.n_token_events);
    if (told.first_ns) {
        weir_jw_key(w, "sent_ms");
        weir_jw_f64(w, ms(a->sent_ns - begin_ns));
        weir_jw_key(w, "first_ms");
        weir_jw_f64(w, ms(told.first_ns - begin_ns));
        weir_jw_key(w, "last_ms");
        weir_jw_f64(w, ms(told.last_ns - begin_ns));
    }
    if (told.usage.has_usage) {
        weir_jw_key(w, "prompt_tokens");
        weir_jw_u64(w, told.usage.prompt_tokens);
        weir_jw_key(w, "completion_tokens");
        weir_jw_u64(w, told.usage.completion_tokens);
        weir_jw_key(w, "cached_tokens");
        weir_jw_u64(w, told.usage.cached_tokens);
    }
    weir_jw_object_end(w);
}

static uint64_t first_sent(const struct clients_answer *answers, size_t n)
{
    uint64_t first = UINT64_MAX;

    for (size_t i = 0; i < n; i++)
        if (answers[i].sent_ns && answers[i].sent_ns < first)
            first = answers[i].sent_ns;
    return first;
}

static double cpu_s(void)
{
    struct rusage used;

    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static void print(const struct clients_answer *answers, size_t n, double used_s)
{
    uint64_t begin_ns = first_sent(answers, n);
    struct weir_buf out;
    struct weir_jw w;

    weir_buf_init(&out, 0);
    for (size_t i = 0; i < n; i++) {
        weir_jw_init(&w, &out);
        write_answer(&w, &answers[i], begin_ns);
        weir_buf_addc(&out, '\n');
    }
    weir_jw_init(&w, &out);
    weir_jw_object(&w);
    weir_jw_key(&w, "cpu_s");
    weir_jw_f64(&w, used_s);
    weir_jw_object_end(&w);
    printf("%s\n", weir_buf_cstr(&out) ? weir_buf_cstr(&out) : "");
    weir_buf_release(&out);
}

static weir_err run(const struct clients_conf *conf, struct weir_why *why)
{
    struct clients_opts opts = { conf->target,     conf->path,     conf->api_key,       conf->model,
                                 conf->clients,    conf->requests, conf->shared_tokens, conf->own_tokens,
                                 conf->out_tokens, conf->id_min,   conf->id_max,        conf->shared_seed,
                                 conf->own_seed };
    size_t n = (size_t)conf->clients * conf->requests;
    struct clients_answer *answers = NULL;

    if (conf->id_min > conf->id_max)
        return weir_fail_param(why, "id_max", WEIR_INVALID, "id_max: below id_min");
    double begin_s = cpu_s();
    weir_err err = clients_run(&opts, &answers, why);
    if (err == WEIR_OK)
        print(answers, n, cpu_s() - begin_s);
    clients_close(answers, n);
    return err;
}

int main(int argc, char **argv)
{
    struct clients_conf conf;
    struct weir_conf *parsed = NULL;
    enum weir_conf_action action = WEIR_CONF_RUN;
    struct weir_why why = { 0 };

    weir_err err = weir_conf_open(&spec, argc, argv, &conf, &parsed, &action, &why);
    if (err == WEIR_OK && action == WEIR_CONF_RUN)
        err = run(&conf, &why);
    if (err != WEIR_OK)
        fprintf(stderr, "weir-bench-clients: %s\n", why.text);
    weir_conf_close(parsed);
    return err == WEIR_OK ? 0 : 1;
}
