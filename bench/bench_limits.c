/* bench_limits.c - what one admission costs: the key's lookup, three meters and a day's, the account's requests, the hold; and
 * what settling costs. One thread, many accounts in no order, so that caches are of little help. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "router/limits/limits.h"
#include "router/tenancy/keys.h"

#define ROUNDS 5
#define LIVE 500
#define CALLS 200000 /* a multiple of LIVE */

struct world {
    struct weir_disc_entry *entries;
    char *text;
    uint32_t n_accounts, n_keys;
    struct weir_keys *keys;
    struct weir_limits *limits;
    uint64_t n_calls;
};

static int by_key(const void *a, const void *b)
{
    const struct weir_disc_entry *x = a, *y = b;
    return strcmp(x->key.ptr, y->key.ptr);
}

static void make_entries(struct world *w)
{
    enum { LINE = 192 };
    uint32_t n = w->n_accounts + w->n_keys;

    w->entries = calloc(n, sizeof *w->entries);
    w->text = malloc((size_t)n * LINE);
    WEIR_CHECK(w->entries && w->text);
    for (uint32_t i = 0; i < n; i++) {
        char *path = w->text + (size_t)i * LINE, *value = path + 96, key[32], hex[65];
        uint8_t digest[32];
        if (i < w->n_accounts) {
            snprintf(path, 96, "/weir/accounts/account-%u", i);
            snprintf(value, 96, "{\"spendTier\":%u,\"hasPaymentMethod\":true}", i % 5 + 1);
        } else {
            snprintf(key, sizeof key, "weir_%u", i - w->n_accounts);
            weir_sha256(key, strlen(key), digest);
            weir_hex(digest, sizeof digest, hex);
            snprintf(path, 96, "/weir/keys/%s", hex);
            snprintf(value, 96, "{\"account\":\"account-%u\",\"name\":\"default\"}",
                     (i - w->n_accounts) % w->n_accounts);
        }
        w->entries[i] = (struct weir_disc_entry){ weir_str(path), weir_str(value), i + 1 };
    }
    qsort(w->entries, n, sizeof *w->entries, by_key);
}

struct call {
    char bearer[40];
    uint8_t id[16];
    struct weir_str account;
};

static void draw_calls(struct world *w, struct call *calls, uint64_t *random)
{
    for (uint32_t i = 0; i < CALLS; i++) {
        *random = weir_hash_mix(*random, i);
        snprintf(calls[i].bearer, sizeof calls[i].bearer, "Bearer weir_%" PRIu64, *random % w->n_keys);
        memset(calls[i].id, 0, sizeof calls[i].id);
        w->n_calls++;
        memcpy(calls[i].id, &w->n_calls, sizeof w->n_calls);
    }
}

/* Calls end LIVE calls after they began, as they do where some hundred are under way. */
static void run_calls(struct world *w, struct call *calls, struct weir_arena *arena, uint64_t now_ns,
                      double *ret_admit, double *ret_settle)
{
    static const struct weir_limits_account numbers = {
        .pays = true, .size = 2, .start = { 1e12, 1e12, 1e12 }, .requests = 1e12, .day_tokens = 1e15
    };
    uint64_t admit_ns = 0, settle_ns = 0;

    for (uint32_t begin = 0; begin < CALLS; begin += LIVE) {
        uint64_t start_ns = weir_thread_cpu_ns();
        for (uint32_t i = begin; i < begin + LIVE; i++) {
            struct call *c = &calls[i];
            struct weir_limits_verdict verdict;
            struct weir_account record;
            struct weir_limits_ask ask = { .deployment = WEIR_STR("llama"),
                                           .numbers = &numbers,
                                           .call_id = c->id,
                                           .prompt_bytes = 2000,
                                           .max_tokens = 100,
                                           .n = 1 };
            WEIR_CHECK(weir_keys_check(w->keys, weir_str(c->bearer), arena, &c->account, NULL) == WEIR_OK);
            WEIR_CHECK(weir_keys_account(w->keys, c->account, &record));
            ask.account = c->account;
            WEIR_CHECK(weir_limits_reserve(w->limits, &ask, now_ns, &verdict) == WEIR_OK && verdict.admitted);
        }
        admit_ns += weir_thread_cpu_ns() - start_ns;
        start_ns = weir_thread_cpu_ns();
        for (uint32_t i = begin; i < begin + LIVE; i++)
            weir_limits_settle(w->limits, calls[i].account, calls[i].id, 500, 100, 80, now_ns);
        settle_ns += weir_thread_cpu_ns() - start_ns;
        now_ns += WEIR_MS;
    }
    *ret_admit = (double)admit_ns / CALLS;
    *ret_settle = (double)settle_ns / CALLS;
}

static double look_up(struct world *w, struct call *calls, struct weir_arena *arena)
{
    uint64_t start_ns = weir_thread_cpu_ns();
    struct weir_account record;
    struct weir_str account;

    for (uint32_t i = 0; i < CALLS; i++) {
        WEIR_CHECK(weir_keys_check(w->keys, weir_str(calls[i].bearer), arena, &account, NULL) == WEIR_OK);
        WEIR_CHECK(weir_keys_account(w->keys, account, &record));
    }
    return (double)(weir_thread_cpu_ns() - start_ns) / CALLS;
}

static int by_number(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *x)
{
    qsort(x, ROUNDS, sizeof *x, by_number);
    return x[ROUNDS / 2];
}

static void measure(uint32_t n_accounts, bool json)
{
    struct world w = { .n_accounts = n_accounts, .n_keys = 3 * n_accounts };
    struct weir_limits_opts opts = { .self = 1 };
    struct call *calls = calloc(CALLS, sizeof *calls);
    double look[ROUNDS], whole[ROUNDS], end[ROUNDS];
    uint64_t random = 1, now_ns = weir_now_ns();
    struct weir_arena arena;

    WEIR_CHECK(calls);
    make_entries(&w);
    struct weir_disc_snapshot snap = { .entries = w.entries, .n_entries = (int)(w.n_accounts + w.n_keys) };
    weir_limit_table_init(&opts.table);
    WEIR_CHECK(weir_limits_open(&opts, now_ns, &w.limits, NULL) == WEIR_OK);
    WEIR_CHECK(weir_keys_open("/weir/", &w.keys, NULL) == WEIR_OK);
    weir_keys_on_snapshot(w.keys, &snap);
    weir_arena_init(&arena, 0);
    for (int r = -1; r < ROUNDS; r++) { /* the first brings the keys into being */
        now_ns += 3600 * WEIR_S;
        draw_calls(&w, calls, &random);
        double l = look_up(&w, calls, &arena);
        weir_arena_clear(&arena);
        double a = 0, s = 0;
        run_calls(&w, calls, &arena, now_ns, &a, &s);
        weir_arena_clear(&arena);
        if (r >= 0) {
            look[r] = l;
            whole[r] = a;
            end[r] = s;
        }
    }
    double m[] = { median(look), median(whole), median(end) };
    if (json)
        printf("{\"accounts\":%u,\"keys\":%u,\"lookup_ns\":%.0f,\"admission_ns\":%.0f,\"settle_ns\":%.0f}\n",
               w.n_accounts, w.n_keys, m[0], m[1], m[2]);
    else
        printf(
            "%9u accounts %9u keys   lookup %4.0f ns   lookup and admission %4.0f ns   settling %4.0f ns\n",
            w.n_accounts, w.n_keys, m[0], m[1], m[2]);
    weir_arena_release(&arena);
    weir_keys_close(w.keys);
    weir_limits_close(w.limits);
    free(calls);
    free(w.entries);
    free(w.text);
}

int main(int argc, char **argv)
{
    bool json = argc > 1 && strcmp(argv[1], "--json") == 0;

    if (!json)
        printf("medians of %d rounds of %d calls, CPU time of one thread\n", ROUNDS, CALLS);
    measure(100, json);
    measure(10000, json);
    measure(100000, json);
    return 0;
}
