/* main.c - weir-sim: one world, or many small ones from random seeds. See docs/limits.md. */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "tests/sim/sim.h"

static const char *const traffic_names[] = {
#define NAME(name, text) #name,
    SIM_TRAFFICS(NAME)
#undef NAME
};

static void usage(void)
{
    puts("weir-sim [OPTION...]: the limits of a mesh of routers in virtual time, beside one central limiter\n"
         "  --routers N (8)  --accounts N (10)  --minutes M (5)  --rate R (1000)   requests a second, all "
         "accounts\n"
         "  --load X (1.2)        what is asked for, as a multiple of the limits\n"
         "  --traffic KIND        one of:");
#define LINE(name, text) printf("                          %-10s %s\n", #name, text);
    SIM_TRAFFICS(LINE)
#undef LINE
    puts("  --sessions            each account always of the same router\n"
         "  --interval-ms N (200)  --delay-ms N (2)  --jitter-ms N (2)  --skew-ms N (0)  --loss P (0)\n"
         "  --partition AT:SECONDS:ROUTERS   that many cut off from the rest\n"
         "  --restart-every S     a router loses its memory so often\n"
         "  --ramp                limits may grow; prints their way\n"
         "  --bytes-s N           budget of a router's frames\n"
         "  --seed N (1)          --seeds N: so many small worlds with everything drawn by lot, from --seed "
         "on\n"
         "  --json                one line");
}

/* Everything by lot: what the invariants are hunted with. */
static void draw_opts(uint64_t seed, struct sim_opts *o)
{
    uint64_t r[16];

    sim_opts_init(o);
    for (int i = 0; i < 16; i++)
        r[i] = weir_hash_mix(seed, (uint64_t)i) >> 8;
    o->seed = seed;
    o->n_routers = 1 + (uint32_t)(r[0] % 6);
    o->n_accounts = 1 + (uint32_t)(r[1] % 5);
    o->minutes = 0.15 + (double)(r[2] % 20) / 100;
    o->rate = 5 + (double)(r[3] % 60);
    o->load = 0.5 + (double)(r[4] % 30) / 10;
    o->traffic = (enum sim_traffic)(r[5] % SIM_TRAFFIC_COUNT);
    o->interval_ms = 50 + (uint32_t)(r[6] % 400);
    o->delay_ms = (uint32_t)(r[7] % 300);
    o->jitter_ms = (uint32_t)(r[8] % 300);
    o->skew_ms = r[9] % 2 ? 5000 : 0;
    o->loss = r[10] % 3 ? 0 : (double)(r[10] % 20) / 100;
    o->partition_s = r[11] % 3 ? 0 : 1 + (double)(r[11] % 5);
    o->partition_at_s = (double)(r[12] % 10);
    o->partition_n = o->n_routers > 1 ? 1 + (uint32_t)(r[13] % (o->n_routers - 1)) : 1;
    o->restart_every_s = r[14] % 3 ? 0 : 2 + (double)(r[14] % 8);
    o->ramp = r[15] % 2;
    o->sessions = r[15] % 3 == 0;
}

static int hunt(uint64_t first, uint64_t n)
{
    for (uint64_t seed = first; seed < first + n; seed++) {
        struct sim_opts opts;
        struct sim_report report;
        draw_opts(seed, &opts);
        sim_run(&opts, &report);
        if (report.failure[0]) {
            printf("seed %" PRIu64 " (%u routers, %s): %s\nrun it again: weir-sim --seeds 1 --seed %" PRIu64
                   "\n",
                   seed, opts.n_routers, traffic_names[opts.traffic], report.failure, seed);
            return 1;
        }
    }
    printf("%" PRIu64 " seeds from %" PRIu64 " on: every invariant held\n", n, first);
    return 0;
}

static void show_json(const struct sim_opts *o, const struct sim_report *r)
{
    printf("{\"routers\":%u,\"minutes\":%g,\"traffic\":\"%s\",\"seed\":%" PRIu64 ",\"requests\":%" PRIu64
           ",\"admitted\":%" PRIu64 ",\"central_admitted\":%" PRIu64
           ",\"over_admission\":%.6f,\"under_admission\":%.6f,\"false_refusals\":%.6f,\"bytes_s\":%.1f,"
           "\"bytes_a_register\":%.2f,"
           "\"converge_ms\":%.0f,\"memory_peak\":%" PRIu64 ",\"failure\":\"%s\"}\n",
           o->n_routers, o->minutes, traffic_names[o->traffic], o->seed, r->requests, r->admitted,
           r->central_admitted, r->over_admission, r->under_admission, r->false_refusals, r->bytes_s,
           r->bytes_a_register, r->converge_ms, r->memory_peak, r->failure);
}

static void show(const struct sim_opts *o, const struct sim_report *r)
{
    printf("%u routers, %s, %g requests/s for %g minutes at %g x the limit, gossip each %u ms; seed %" PRIu64
           "\n",
           o->n_routers, traffic_names[o->traffic], o->rate, o->minutes, o->load, o->interval_ms, o->seed);
    printf("requests         %" PRIu64 ": admitted %" PRIu64 ", by one central limiter %" PRIu64 "\n",
           r->requests, r->admitted, r->central_admitted);
    printf("over-admission   %.3f %% of the limit (worst account and meter); under %.3f %%\n",
           100 * r->over_admission, 100 * r->under_admission);
    printf("false refusals   %.3f %% of the requests that should pass\n", 100 * r->false_refusals);
    printf("gossip           %.0f bytes/s a router; %.1f bytes a register and peer, frame headers included\n",
           r->bytes_s, r->bytes_a_register);
    printf("converged        %.0f ms after the last change; memory of a router at most %.1f MB\n",
           r->converge_ms, (double)r->memory_peak / 1e6);
    for (int i = 0; o->ramp && i < 13; i++)
        if (r->ramp[i] > 0)
            printf("ramp             %3d min: %.2f x\n", 10 * i, r->ramp[i]);
    printf("invariants       %s\n", r->failure[0] ? r->failure : "all held");
}

static bool set_traffic(struct sim_opts *o, const char *name)
{
    for (int i = 0; i < SIM_TRAFFIC_COUNT; i++)
        if (strcmp(name, traffic_names[i]) == 0) {
            o->traffic = (enum sim_traffic)i;
            return true;
        }
    fprintf(stderr, "weir-sim: --traffic: there is no `%s`\n", name);
    return false;
}

static bool set_partition(struct sim_opts *o, const char *text)
{
    if (sscanf(text, "%lf:%lf:%u", &o->partition_at_s, &o->partition_s, &o->partition_n) == 3)
        return true;
    fprintf(stderr, "weir-sim: --partition: `%s` is not AT:SECONDS:ROUTERS\n", text);
    return false;
}

enum {
    SEEDS = 256,
    JSON,
    RAMP,
    SESSIONS,
    PARTITION,
    TRAFFIC,
    ROUTERS,
    ACCOUNTS,
    MINUTES,
    RATE,
    LOAD,
    INTERVAL,
    DELAY,
    JITTER,
    SKEW,
    LOSS,
    RESTART,
    SEED,
    BYTES,
    HELP
};

static const struct option options[] = {
    { "routers", 1, NULL, ROUTERS },
    { "accounts", 1, NULL, ACCOUNTS },
    { "minutes", 1, NULL, MINUTES },
    { "rate", 1, NULL, RATE },
    { "load", 1, NULL, LOAD },
    { "traffic", 1, NULL, TRAFFIC },
    { "interval-ms", 1, NULL, INTERVAL },
    { "delay-ms", 1, NULL, DELAY },
    { "jitter-ms", 1, NULL, JITTER },
    { "skew-ms", 1, NULL, SKEW },
    { "loss", 1, NULL, LOSS },
    { "partition", 1, NULL, PARTITION },
    { "restart-every", 1, NULL, RESTART },
    { "ramp", 0, NULL, RAMP },
    { "sessions", 0, NULL, SESSIONS },
    { "seed", 1, NULL, SEED },
    { "seeds", 1, NULL, SEEDS },
    { "json", 0, NULL, JSON },
    { "bytes-s", 1, NULL, BYTES },
    { "help", 0, NULL, HELP },
    { NULL, 0, NULL, 0 },
};

struct command {
    struct sim_opts opts;
    uint64_t n_seeds;
    bool json;
};

static bool set_number(struct sim_opts *o, int c, double x)
{
    switch (c) {
    case ROUTERS:
        o->n_routers = (uint32_t)x;
        return x >= 1 && x <= 4000;
    case ACCOUNTS:
        o->n_accounts = (uint32_t)x;
        return x >= 1 && x <= SIM_ACCOUNTS_MAX;
    case MINUTES:
        o->minutes = x;
        return x > 0;
    case RATE:
        o->rate = x;
        return x > 0;
    case LOAD:
        o->load = x;
        return x > 0;
    case INTERVAL:
        o->interval_ms = (uint32_t)x;
        return x >= 1;
    case DELAY:
        o->delay_ms = (uint32_t)x;
        return x >= 0;
    case JITTER:
        o->jitter_ms = (uint32_t)x;
        return x >= 0;
    case SKEW:
        o->skew_ms = (uint32_t)x;
        return x >= 0;
    case LOSS:
        o->loss = x;
        return x >= 0 && x < 1;
    case RESTART:
        o->restart_every_s = x;
        return x >= 0;
    case SEED:
        o->seed = (uint64_t)x;
        return x >= 0;
    default:
        o->bytes_s = (uint64_t)x;
        return x >= 0;
    }
}

static bool set_option(struct command *cmd, int c, const char *name)
{
    char *end = NULL;

    switch (c) {
    case RAMP:
        cmd->opts.ramp = true;
        return true;
    case SESSIONS:
        cmd->opts.sessions = true;
        return true;
    case JSON:
        cmd->json = true;
        return true;
    case TRAFFIC:
        return set_traffic(&cmd->opts, optarg);
    case PARTITION:
        return set_partition(&cmd->opts, optarg);
    default:
        break;
    }
    double x = strtod(optarg, &end);
    if (c == SEEDS)
        cmd->n_seeds = (uint64_t)x;
    if (*end || end == optarg || (c != SEEDS && !set_number(&cmd->opts, c, x))) {
        fprintf(stderr, "weir-sim: --%s: `%s` can't be\n", name, optarg);
        return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    struct command cmd = { .n_seeds = 0 };
    struct sim_report report;
    int c, index = 0;

    sim_opts_init(&cmd.opts);
    while ((c = getopt_long(argc, argv, "", options, &index)) != -1) {
        if (c == HELP) {
            usage();
            return 0;
        }
        if (c == '?' || !set_option(&cmd, c, options[index].name))
            return 2;
    }
    if (cmd.n_seeds > 0)
        return hunt(cmd.opts.seed, cmd.n_seeds);
    sim_run(&cmd.opts, &report);
    (cmd.json ? show_json : show)(&cmd.opts, &report);
    return report.failure[0] != 0;
}
