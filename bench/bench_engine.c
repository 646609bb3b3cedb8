/* bench_engine.c - prompts and decoding of one model on this machine, beside what its memory can read.
 *
 * Each figure is the best of a few rounds: on a machine shared with others the best is the one that was least disturbed. With
 * --cpu-time the process's own time is counted, which on a busy machine says what one thread would do alone.
 * The probe reads 256 MiB with as many threads as the engine has, just before the decoding; a decoded token reads every weight
 * once, so weight bytes times steps a second over the probe is the share of the memory's speed that decoding reaches. */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "replica/engine/engine.h"

#define PROBE_BYTES (256u << 20)
#define HUGE_PAGE ((size_t)2 << 20)
#define THREADS_MAX 256
#define BATCH_MAX 64
#define DECODE_PROMPT 32
#define PREFIX 2000
#define REST 64

struct options {
    const char *model, *weights, *kv, *activations,
        *only; /* only: NULL, or the one kind of figures that is wanted */
    uint32_t n_threads, step_tokens, rounds;
    uint64_t head_params; /* of the table and the head: a prompt's tokens do not go through them */
    bool json;
};

/* ---- time ---- */
static clockid_t timer = CLOCK_MONOTONIC;

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(timer, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- what the memory can do ---- */
struct reader {
    pthread_t thread;
    const uint64_t *from;
    size_t n_words;
    uint64_t sum;
};

/* One stream, fetched ahead, as the kernels read weights. */
static void *read_all(void *arg)
{
    struct reader *r = arg;
    uint64_t sums[8] = { 0 };

    for (size_t i = 0; i < r->n_words; i += 8) {
        __builtin_prefetch(r->from + i + 192);
        for (int k = 0; k < 8; k++)
            sums[k] += r->from[i + (size_t)k];
    }
    for (int k = 0; k < 8; k++)
        r->sum += sums[k];
    return NULL;
}

static double probe_gb_s(uint32_t n_threads, uint32_t rounds)
{
    struct reader readers[THREADS_MAX];
    uint64_t *memory = weir_alloc_aligned(HUGE_PAGE, PROBE_BYTES + 4096);
    double best = 0;

    if (!memory)
        return 0;
    madvise(memory, PROBE_BYTES, MADV_HUGEPAGE); /* as weights lie */
    memset(memory, 1, PROBE_BYTES + 4096);
    for (uint32_t round = 0; round < rounds; round++) {
        uint64_t begin = now_ns();
        for (uint32_t i = 0; i < n_threads; i++) {
            size_t share = PROBE_BYTES / 8 / n_threads / 32 * 32;
            readers[i] = (struct reader){ .from = memory + i * share, .n_words = share };
            if (pthread_create(&readers[i].thread, NULL, read_all, &readers[i]) != 0)
                exit(1);
        }
        for (uint32_t i = 0; i < n_threads; i++)
            pthread_join(readers[i].thread, NULL);
        double gb_s = PROBE_BYTES / (double)(now_ns() - begin);
        best = gb_s > best ? gb_s : best;
    }
    weir_free(memory);
    return best;
}

/* ---- the engine ---- */
static void die(const char *what)
{
    fprintf(stderr, "bench_engine: %s\n", what);
    exit(1);
}

static struct weir_engine *open_engine(const struct options *o)
{
    struct weir_engine_opts opts = { .model_dir = o->model,
                                     .backend = "cpu",
                                     .n_threads = o->n_threads,
                                     .weights = o->weights,
                                     .kv = o->kv,
                                     .activations = o->activations,
                                     .n_slots = BATCH_MAX,
                                     .n_queue_max = BATCH_MAX,
                                     .step_tokens = o->step_tokens };
    struct weir_engine *eng = NULL;
    struct weir_why why = { 0 };

    if (weir_engine_open(&opts, &eng, &why) != WEIR_OK)
        die(why.text);
    return eng;
}

/* The first n_shared tokens are the same for all who say the same `prefix`; the rest is new each time, so that the prefix cache
 * helps no further. */
static struct weir_session *submit_behind(struct weir_engine *eng, uint64_t prefix, uint32_t n_shared,
                                          uint32_t n_prompt, uint32_t max_tokens)
{
    static uint64_t fresh = 1;
    uint64_t random = prefix;
    uint32_t n_vocab = weir_engine_info(eng)->n_vocab;
    int32_t *prompt = weir_calloc(n_prompt, sizeof *prompt);
    struct weir_session *ses = NULL;
    struct weir_why why = { 0 };

    if (!prompt)
        die("no memory");
    for (uint32_t i = 0; i < n_prompt; i++) {
        if (i == n_shared)
            random = fresh++ << 32;
        random = random * 6364136223846793005ull + 1442695040888963407ull;
        prompt[i] = (int32_t)((random >> 33) % n_vocab);
    }
    struct weir_session_params params = { .prompt = prompt,
                                          .n_prompt = n_prompt,
                                          .n_choices = 1,
                                          .max_tokens = max_tokens,
                                          .top_p = 1,
                                          .ignore_eos = true,
                                          .cache_salt = { "", 0 } };
    if (weir_session_open(eng, &params, 0, &ses, &why) != WEIR_OK)
        die(why.text);
    weir_free(prompt);
    return ses;
}

static struct weir_session *submit(struct weir_engine *eng, uint32_t n_prompt, uint32_t max_tokens)
{
    return submit_behind(eng, 0, 0, n_prompt, max_tokens);
}

static struct weir_engine_step step(struct weir_engine *eng)
{
    struct weir_engine_step ret;
    struct weir_why why = { 0 };

    if (weir_engine_step(eng, 0, &ret, &why) != WEIR_OK)
        die(why.text);
    return ret;
}

/* Prompt tokens a second. */
static double bench_prefill(struct weir_engine *eng, uint32_t n_prompt, uint32_t rounds)
{
    double best = 0;

    for (uint32_t round = 0; round < rounds; round++) {
        struct weir_session *ses = submit(eng, n_prompt, 1);
        uint64_t begin = now_ns();
        while (weir_engine_has_work(eng))
            step(eng);
        double speed = n_prompt * 1e9 / (double)(now_ns() - begin);
        best = speed > best ? speed : best;
        weir_session_close(ses);
    }
    return best;
}

/* Milliseconds until the first token of PREFIX + REST tokens, the prefix unknown and known. */
static void bench_prefix(struct weir_engine *eng, uint32_t rounds, double best[2])
{
    best[0] = best[1] = INFINITY;
    for (uint32_t round = 0; round < rounds; round++)
        for (int warm = 0; warm < 2; warm++) {
            uint64_t begin = now_ns();
            struct weir_session *ses = submit_behind(eng, 1000 + round, PREFIX, PREFIX + REST, 1);
            while (weir_engine_has_work(eng))
                step(eng);
            double ms = (double)(now_ns() - begin) / 1e6;
            best[warm] = ms < best[warm] ? ms : best[warm];
            weir_session_close(ses);
        }
}

/* Tokens a second of all sequences together; n_steps are timed at once, so that a step is not just a lucky one. */
static double bench_decode(struct weir_engine *eng, uint32_t n_batch, uint32_t n_steps, uint32_t rounds)
{
    struct weir_session *sessions[BATCH_MAX];
    double best = 0;

    for (uint32_t i = 0; i < n_batch; i++)
        sessions[i] = submit(eng, DECODE_PROMPT, n_steps * rounds + BATCH_MAX);
    while (step(eng).n_decode < n_batch)
        ;
    for (uint32_t round = 0; round < rounds; round++) {
        uint64_t begin = now_ns();
        for (uint32_t i = 0; i < n_steps; i++)
            step(eng);
        double speed = n_steps * n_batch * 1e9 / (double)(now_ns() - begin);
        best = speed > best ? speed : best;
    }
    for (uint32_t i = 0; i < n_batch; i++)
        weir_session_close(sessions[i]);
    return best;
}

/* ---- telling ---- */
static void tell_prefill(const struct options *o, uint32_t n_prompt, double speed, double gflop_token)
{
    if (o->json)
        printf("{\"prefill\":%u,\"tokens_s\":%.1f,\"gflop_s\":%.1f}\n", n_prompt, speed, speed * gflop_token);
    else
        printf("prefill %5u tokens      %9.1f tokens/s  %7.1f GFLOP/s\n", n_prompt, speed,
               speed * gflop_token);
}

static void tell_decode(const struct options *o, uint32_t n_batch, double speed, double gb, double probe)
{
    double gb_s = speed / n_batch * gb;

    if (o->json)
        printf("{\"decode\":%u,\"tokens_s\":%.1f,\"gb_s\":%.2f,\"probe_gb_s\":%.2f}\n", n_batch, speed, gb_s,
               probe);
    else
        printf(
            "decode  %5u sequences   %9.1f tokens/s  %7.1f GB/s of weights, %3.0f %% of the memory's %.1f\n",
            n_batch, speed, gb_s, 100 * gb_s / probe, probe);
}

static void tell_prefix(const struct options *o, const double ms[2])
{
    if (o->json)
        printf("{\"prefix\":%d,\"rest\":%d,\"cold_ms\":%.1f,\"warm_ms\":%.1f}\n", PREFIX, REST, ms[0], ms[1]);
    else
        printf("first token behind %d + %d tokens: %.1f ms cold, %.1f ms warm (%.1f %%)\n", PREFIX, REST,
               ms[0], ms[1], 100 * ms[1] / ms[0]);
}

static bool wanted(const struct options *o, const char *what)
{
    return !o->only || strcmp(o->only, what) == 0;
}

static void all_prefills(const struct options *o, struct weir_engine *eng, double gflop_token)
{
    static const uint32_t prompts[] = { 128, 512, 2048 };

    for (size_t i = 0; i < sizeof prompts / sizeof *prompts; i++)
        if (prompts[i] < weir_engine_info(eng)->n_context)
            tell_prefill(o, prompts[i], bench_prefill(eng, prompts[i], o->rounds), gflop_token);
}

static void all_decodes(const struct options *o, struct weir_engine *eng, double gb)
{
    static const uint32_t batches[] = { 1, 4, 16 };

    for (size_t i = 0; i < sizeof batches / sizeof *batches; i++) {
        double probe = probe_gb_s(o->n_threads, 3);
        tell_decode(o, batches[i], bench_decode(eng, batches[i], 16, o->rounds), gb, probe);
    }
}

static bool read_options(int argc, char **argv, struct options *o)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0)
            o->json = true;
        else if (strcmp(argv[i], "--cpu-time") == 0)
            timer = CLOCK_PROCESS_CPUTIME_ID;
        else if (i + 1 < argc && strcmp(argv[i], "--model") == 0)
            o->model = argv[++i];
        else if (i + 1 < argc && strcmp(argv[i], "--weights") == 0)
            o->weights = argv[++i];
        else if (i + 1 < argc && strcmp(argv[i], "--kv") == 0)
            o->kv = argv[++i];
        else if (i + 1 < argc && strcmp(argv[i], "--activations") == 0)
            o->activations = argv[++i];
        else if (i + 1 < argc && strcmp(argv[i], "--only") == 0)
            o->only = argv[++i];
        else if (i + 1 < argc && strcmp(argv[i], "--threads") == 0)
            o->n_threads = (uint32_t)strtoul(argv[++i], NULL, 10);
        else if (i + 1 < argc && strcmp(argv[i], "--step-tokens") == 0)
            o->step_tokens = (uint32_t)strtoul(argv[++i], NULL, 10);
        else if (i + 1 < argc && strcmp(argv[i], "--head-params") == 0)
            o->head_params = strtoull(argv[++i], NULL, 10);
        else if (i + 1 < argc && strcmp(argv[i], "--rounds") == 0)
            o->rounds = (uint32_t)strtoul(argv[++i], NULL, 10);
        else
            return false;
    }
    if (o->n_threads == 0)
        o->n_threads = (uint32_t)sysconf(_SC_NPROCESSORS_ONLN);
    return o->model && o->n_threads <= THREADS_MAX && o->rounds > 0 && o->rounds <= 20;
}

int main(int argc, char **argv)
{
    struct options o = { .weights = "native", .kv = "bf16", .rounds = 5 };

    if (!read_options(argc, argv, &o)) {
        fprintf(stderr,
                "usage: %s --model DIR [--weights native|q8|q4] [--kv f32|bf16] [--activations fast|exact] "
                "[--threads N] [--step-tokens N] "
                "[--head-params N] [--rounds 1-20] [--only prefill|prefix|decode] [--cpu-time] [--json]\n",
                argv[0]);
        return 2;
    }
    struct weir_engine *eng = open_engine(&o);
    const struct weir_engine_info *info = weir_engine_info(eng);
    double gb = (double)info->weight_bytes / 1e9,
           gflop_token = 2 * (double)(info->n_params - o.head_params) / 1e9;
    if (o.json)
        printf("{\"backend\":\"%s\",\"weights\":\"%s\",\"kv\":\"%s\",\"threads\":%u,\"n_params\":%llu,"
               "\"weight_bytes\":%llu}\n",
               info->backend, o.weights, o.kv, o.n_threads, (unsigned long long)info->n_params,
               (unsigned long long)info->weight_bytes);
    else
        printf("%s, weights %s, keys and values %s, %u threads, %.1f M parameters, %.1f MB of weights\n",
               info->backend, o.weights, o.kv, o.n_threads, (double)info->n_params / 1e6, gb * 1e3);
    if (wanted(&o, "prefill"))
        all_prefills(&o, eng, gflop_token);
    if (wanted(&o, "prefix") && PREFIX + REST < info->n_context) {
        double ms[2];
        bench_prefix(eng, o.rounds, ms);
        tell_prefix(&o, ms);
    }
    if (wanted(&o, "decode"))
        all_decodes(&o, eng, gb);
    weir_engine_close(eng);
    return 0;
}
