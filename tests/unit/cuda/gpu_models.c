/* gpu_models.c - whole models of every family on the device, against the CPU back end: `./dev gpu-check` runs it on a GPU, the unit
 * tests over the emulator.
 *
 *     gpu_models [<ranks>]
 *
 * The prompt goes in chunks, then tokens one by one: from the third step on recorded ones. Log-probabilities of the CPU's best
 * tokens may differ by what bf16 costs; a greedy token must be the CPU's wherever the CPU's best is ahead of the device's by more
 * than that, but for REROUTED_MAX of a model with experts. Then tokens drawn on the device, each waited for or with the next step
 * launched before: the same. Several ranks: NCCL where each has a GPU, in the process where they share one. Ends with 0: all agree; 1: not; 77: no
 * device. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/dev.h"
#include "kernels/cuda/plugin.h"
#include "replica/parallel/parallel.h"
#include "tests/support/golden_model.h"

#define FOLDER "tests/golden/models"
#define REROUTED_MAX                                                                                         \
    1 /* tokens of a model with experts that may be others: the route was near a tie, and bf16 took another expert */
#define BEHIND_MAX 0.5 /* activations are bf16: so far may log-probabilities of single tokens be off */
#define MEAN_MAX 0.15  /* in the mean of a case, tokens of another expert among them */

enum { N_PAGES = 32, CHUNK = 21, N_GREEDY = 12 };

struct runner {
    struct parallel *p;
    int32_t table[N_PAGES], pos;
};

struct sweep {
    uint32_t n_ranks, n_run, n_bad, n_skipped, n_told, n_tied, n_rerouted;
    double mean_max;
};

static weir_err open_device(const struct weir_backend_opts *opts, struct weir_backend **ret,
                            struct weir_why *why)
{
    return cuda_open(weir_plugin_host(), opts, ret, why);
}

static bool open_runner(struct runner *r, const struct golden_model *g, const struct model_config *config,
                        const struct parallel_opts *opts)
{
    struct model_limits limits = { .n_tok_max = CHUNK, .n_logits_max = CHUNK, .n_blocks = N_PAGES };
    struct weir_why why = { 0 };

    *r = (struct runner){ 0 };
    for (int32_t i = 0; i < N_PAGES; i++)
        r->table[i] = (i * 7 + 3) % N_PAGES;
    weir_err err = parallel_open(opts, config, &r->p, &why);
    limits.n_draws_max = err == WEIR_OK && parallel_can_draw(r->p);
    if (err == WEIR_OK)
        err = parallel_load(r->p, g->dir, &limits, &why);
    if (err == WEIR_OK)
        return true;
    printf("%s: %s\n", g->name, why.text);
    return false;
}

/* n tokens; logits of all of them, or NULL. */
static const float *feed(struct runner *r, const int32_t *ids, uint32_t n)
{
    int32_t pos[CHUNK], seq[CHUNK] = { 0 }, rows[CHUNK];
    const struct weir_batch batch = { n, ids, pos, seq, r->table, 1, N_PAGES, NULL };
    const float *logits = NULL;
    struct weir_why why = { 0 };

    for (uint32_t i = 0; i < n; i++) {
        pos[i] = r->pos++;
        rows[i] = (int32_t)i;
    }
    if (parallel_forward(r->p, &batch, &why) == WEIR_OK &&
        parallel_logits(r->p, rows, n, &logits, &why) == WEIR_OK)
        return logits;
    printf("a step failed: %s\n", why.text);
    return NULL;
}

static int32_t best(const float *logits, uint32_t n)
{
    int32_t ret = 0;

    for (uint32_t i = 1; i < n; i++)
        ret = logits[i] > logits[ret] ? (int32_t)i : ret;
    return ret;
}

static double logprob(const float *logits, uint32_t n, int32_t id)
{
    double max = (double)logits[best(logits, n)], sum = 0;

    for (uint32_t i = 0; i < n; i++)
        sum += exp((double)logits[i] - max);
    return (double)logits[id] - max - log(sum);
}

/* How far the device's log-probability of the CPU's best token is off, summed over rows. */
static double errors(const float *cpu, const float *device, uint32_t n_rows, uint32_t n_vocab)
{
    double sum = 0;

    for (uint32_t i = 0; i < n_rows; i++, cpu += n_vocab, device += n_vocab) {
        int32_t id = best(cpu, n_vocab);
        sum += fabs(logprob(cpu, n_vocab, id) - logprob(device, n_vocab, id));
    }
    return sum;
}

/* False: the device's token is another, and the CPU is sure of its own. */
static bool same_token(struct sweep *s, const char *name, const float *cpu, const float *device,
                       uint32_t n_vocab, int32_t id)
{
    int32_t other = best(device, n_vocab);
    double ahead = logprob(cpu, n_vocab, id) - logprob(cpu, n_vocab, other);

    s->n_told += other == id;
    s->n_tied += other != id && ahead <= BEHIND_MAX;
    if (ahead <= BEHIND_MAX)
        return true;
    s->n_rerouted++;
    printf("%s: token %d, and the CPU's is %d, by %.2f\n", name, other, id, ahead);
    return false;
}

/* `n_other`: so many tokens may be others. */
static bool compare(struct sweep *s, const struct golden_model *g, struct runner *cpu, struct runner *device,
                    uint32_t n_other)
{
    const float *want = NULL, *got = NULL;
    double sum = 0;

    for (uint32_t from = 0, n; from < g->n_prompt; from += n) {
        n = g->n_prompt - from < CHUNK ? g->n_prompt - from : CHUNK;
        want = feed(cpu, g->prompt + from, n);
        got = feed(device, g->prompt + from, n);
        if (!want || !got)
            return false;
        sum += errors(want, got, n, g->n_vocab);
        want += (size_t)(n - 1) * g->n_vocab;
        got += (size_t)(n - 1) * g->n_vocab;
    }
    for (uint32_t i = 0; i < N_GREEDY; i++) {
        int32_t id = best(want, g->n_vocab);
        if (!same_token(s, g->name, want, got, g->n_vocab, id) && n_other-- == 0)
            return false;
        want = feed(cpu, &id, 1);
        got = feed(device, &id, 1);
        if (!want || !got)
            return false;
        sum += errors(want, got, 1, g->n_vocab);
    }
    double mean = sum / (g->n_prompt + N_GREEDY);
    s->mean_max = fmax(s->mean_max, mean);
    printf("%s: log-probabilities are off by %.1e in the mean\n", g->name, mean);
    return mean < MEAN_MAX; /* false for NaN */
}

/* ---- tokens drawn on the device ---- */
/* The next step, whose id is known, or is result 0 of the latest draw. */
static weir_err next_step(struct runner *r, int32_t id, bool known, struct weir_why *why)
{
    const int32_t pos = r->pos++, zero = 0;
    const struct weir_batch batch = { 1, &id, &pos, &zero, r->table, 1, N_PAGES, known ? NULL : &zero };
    weir_err err = parallel_forward(r->p, &batch, why);

    return err == WEIR_OK ? parallel_head(r->p, &zero, 1, why) : err;
}

/* Drawn tokens behind the prompt: each waited for before the next step, or looked at when the next step is launched. */
static bool draw_tokens(struct runner *r, const struct golden_model *g, bool waits, int32_t out[N_GREEDY])
{
    const struct weir_drawn *drawn = NULL;
    uint32_t row = (g->n_prompt - 1) % CHUNK;
    struct weir_why why = { 0 };
    weir_err err = WEIR_OK;

    r->pos = 0;
    for (uint32_t from = 0; from < g->n_prompt; from += CHUNK)
        if (!feed(r, g->prompt + from, g->n_prompt - from < CHUNK ? g->n_prompt - from : CHUNK))
            return false;
    for (uint32_t i = 0; err == WEIR_OK && i < N_GREEDY; i++) {
        const struct weir_draw draw = { .temperature = i % 3 ? 0.8 : 0, /* greedy now and then */
                                        .top_p = 1,
                                        .repetition = 1,
                                        .seed = 42,
                                        .position = (uint32_t)r->pos,
                                        .row = i ? 0 : (int32_t)row };
        err = parallel_draw(r->p, i % 2, 0, &draw, 1, &why);
        if (err == WEIR_OK && !waits)
            err = next_step(r, 0, false, &why);
        if (err == WEIR_OK)
            err = parallel_drawn(r->p, i % 2, &drawn, &why);
        if (err == WEIR_OK)
            out[i] = drawn[0].id;
        if (err == WEIR_OK && waits)
            err = next_step(r, out[i], true, &why);
    }
    if (err != WEIR_OK)
        printf("%s: drawing failed: %s\n", g->name, why.text);
    return err == WEIR_OK;
}

static bool same_ahead(struct runner *r, const struct golden_model *g)
{
    int32_t waited[N_GREEDY], ahead[N_GREEDY];

    if (!draw_tokens(r, g, true, waited) || !draw_tokens(r, g, false, ahead))
        return false;
    for (int i = 0; i < N_GREEDY; i++)
        if (waited[i] != ahead[i] || waited[i] < 0 || (uint32_t)waited[i] >= g->n_vocab) {
            printf("%s: drawn token %d is %d, and %d when its step is launched ahead\n", g->name, i,
                   waited[i], ahead[i]);
            return false;
        }
    return true;
}

static void check_case(const struct golden_model *g, void *arg)
{
    struct sweep *s = arg;
    const struct parallel_opts on_cpu = { .open = weir_backend_cpu_open, .n_ranks = 1 },
                               on_device = { .open = open_device, .n_ranks = s->n_ranks };
    struct runner cpu = { 0 }, device = { 0 };
    struct model_config config;
    struct shard shard;
    struct weir_why why = { 0 };

    if (model_config_load(g->dir, &config, &why) != WEIR_OK) {
        printf("%s: %s\n", g->name, why.text);
        s->n_bad++;
        return;
    }
    if (shard_of(&config, 0, s->n_ranks, &shard, &why) != WEIR_OK) {
        printf("%s: skipped: %s\n", g->name, why.text);
        s->n_skipped++;
        return;
    }
    if (!open_runner(&cpu, g, &config, &on_cpu) || !open_runner(&device, g, &config, &on_device) ||
        !compare(s, g, &cpu, &device, config.n_expert > 0 ? REROUTED_MAX : 0) || !same_ahead(&device, g)) {
        printf("FAIL %s\n", g->name);
        s->n_bad++;
    }
    s->n_run++;
    parallel_close(cpu.p);
    parallel_close(device.p);
}

/* One with heads enough for sixteen ranks; those of the goldens have few. Fewer key heads than ranks, from four on. */
static void check_wide(struct sweep *s)
{
    struct tiny_shape shape = tiny_shape();
    struct golden_model g = { .name = "sixteen heads", .n_prompt = 2 * CHUNK };

    shape.n_head = 16;
    shape.n_kv_head = 4;
    shape.d_model = 128;
    shape.d_ffn = 320;
    shape.n_context = 128;
    shape.n_vocab = 500;
    tiny_model_write(g.dir, &shape);
    for (int32_t i = 0; i < 2 * CHUNK; i++)
        g.prompt[i] = i * 37 % 500;
    g.n_vocab = shape.n_vocab;
    check_case(&g, s);
    tiny_model_remove(g.dir);
}

int main(int argc, char **argv)
{
    struct sweep s = { .n_ranks = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 1 };

    if (s.n_ranks == 0) {
        fprintf(stderr, "gpu_models: ranks: 1 or more\n");
        return 2;
    }
    if (dev_count() == 0) {
        printf("skipped: no device\n");
        return 77;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    golden_model_each(FOLDER, check_case, &s);
    check_wide(&s);
    printf("%u models on %u ranks and %d devices, %u failed, %u skipped; off by %.1e in the mean at most\n",
           s.n_run, s.n_ranks, dev_count(), s.n_bad, s.n_skipped, s.mean_max);
    printf("greedy tokens: %u the same, %u near a tie, %u of another expert\n", s.n_told, s.n_tied,
           s.n_rerouted);
    return s.n_bad > 0 || s.n_run == 0;
}
