/* check.c - the invariants: what must hold of every limiter after every event, and of the whole at the end. */
#include <inttypes.h>
#include <math.h>

#include "tests/sim/sim_int.h"

#define SIM_COUNTED_MAX 64 /* accounts that are looked at after every event */
#define MEMORY_A_KEY 4096  /* bytes, registers of up to 16 routers and holds included */

void check_held(struct weir_limits *lim, const struct account *a, double ret[LEVELS])
{
    uint64_t id = limit_key_id(weir_str(a->name), weir_str("m"));
    const struct limit_key *key = key_find(shard_of_id(lim, id), id);

    for (int i = 0; i < LEVELS; i++)
        ret[i] = key ? key->held[i] : 0;
}

/* [L1] */
void check_refusal(struct sim *s, struct weir_limits *lim, const struct account *a,
                   const double before[LEVELS])
{
    double after[LEVELS];

    check_held(lim, a, after);
    for (int i = 0; i < LEVELS; i++)
        if (after[i] != before[i])
            sim_fail(s, "a refused request holds %g of meter %d", after[i] - before[i], i);
}

static void check_key(struct sim *s, const struct router *r, const struct limit_key *key,
                      uint64_t used[WEIR_ADAPTIVE])
{
    for (int i = 0; i < key->n_levels; i++) {
        if (!(key->level[i] >= 0) || !isfinite(key->level[i]))
            sim_fail(s, "level %d of key %014" PRIx64 " is %g", i, key->id, key->level[i]);
        if (!(key->held[i] >= 0))
            sim_fail(s, "holds of key %014" PRIx64 " are %g", key->id, key->held[i]);
    }
    for (int i = 0; i < WEIR_ADAPTIVE && !key->is_account && key->has_numbers; i++) { /* [L4] */
        double limit = key_limit(key, &r->limits->table, i);
        if (limit < key->start[i] * 0.999999 || limit > key->upper[i] * 1.000001)
            sim_fail(s, "limit %g is out of [%g, %g]", limit, key->start[i], key->upper[i]);
    }
    for (int i = 0; i < WEIR_ADAPTIVE && !key->is_account; i++)
        used[i] += key->used[i];
    for (const struct reg *reg = key->regs; reg;
         reg = reg->next) /* nobody knows more of a router than it does itself */
        for (uint32_t k = 0; k < s->opts.n_routers && !key->is_account; k++) {
            const struct router *other = &s->routers[k];
            if (other->id != r->limits->origins[reg->origin].id)
                continue;
            const struct limit_key *truth = key_find(shard_of_id(other->limits, key->id), key->id);
            for (int i = 0; truth && truth->generation == reg->generation && i < WEIR_ADAPTIVE; i++)
                if (reg->used[i] > truth->used[i])
                    sim_fail(s, "router %u is thought to have used %" PRIu64 ", and has used %" PRIu64, k,
                             reg->used[i], truth->used[i]);
        }
}

/* [R2] What a router believes that all of them used is never more than they did: nothing is counted twice. */
static void check_counted_once(struct sim *s, uint32_t i_router)
{
    for (uint32_t i = 0; i < s->opts.n_accounts && i < SIM_COUNTED_MAX; i++) {
        const struct account *a = &s->accounts[i];
        uint64_t id = limit_key_id(weir_str(a->name), weir_str("m"));
        const struct limit_key *key = key_find(shard_of_id(s->routers[i_router].limits, id), id);
        for (int m = 0; key && m < WEIR_ADAPTIVE; m++) {
            double counted = 0;
            for (int slot = 0; slot < WINDOW_SLOTS; slot++)
                counted += key->window[m][slot];
            if (counted > (double)a->used[m] + 0.5)
                sim_fail(s, "router %u counts %.0f of meter %d for %s, and all together used %" PRIu64,
                         i_router, counted, m, a->name, a->used[m]);
        }
    }
}

/* [L2] [L4] [L5] */
void check_router(struct sim *s, uint32_t i_router)
{
    struct router *r = &s->routers[i_router];
    uint64_t used[WEIR_ADAPTIVE] = { 0 };
    struct weir_limits_stats stats;

    for (int k = 0; k < SHARDS; k++)
        for (uint32_t b = 0; b < r->limits->shards[k].n_buckets; b++)
            for (const struct limit_key *key = r->limits->shards[k].keys[b]; key; key = key->next)
                check_key(s, r, key, used);
    weir_limits_stats(r->limits, &stats);
    for (int i = 0; i < WEIR_ADAPTIVE; i++)
        if (stats.expired == 0 && s->opts.minutes < 14 && used[i] != r->settled[i])
            sim_fail(s, "router %u counts %" PRIu64 " of meter %d, and %" PRIu64 " were used", i_router,
                     used[i], i, r->settled[i]);
    if (stats.expired == 0)
        check_counted_once(s, i_router);
    if (stats.bytes > s->report->memory_peak)
        s->report->memory_peak = stats.bytes;
    if (s->opts.n_routers <= 16 &&
        stats.bytes > sizeof *r->limits + (uint64_t)SHARDS * 65536 + stats.holds * 1024 +
                          2ull * s->opts.n_accounts * MEMORY_A_KEY * (1 + stats.keys / 1000000))
        sim_fail(s, "%" PRIu64 " bytes for %" PRIu64 " keys", stats.bytes, stats.keys);
}

static bool knows(const struct sim *s, const struct router *r, const struct router *other,
                  const struct limit_key *truth)
{
    const struct limit_key *key = key_find(shard_of_id(r->limits, truth->id), truth->id);
    bool used = truth->used[0] || truth->used[1] || truth->used[2];

    (void)s;
    for (const struct reg *reg = key ? key->regs : NULL; reg; reg = reg->next) {
        if (r->limits->origins[reg->origin].id != other->id)
            continue;
        for (int i = 0; i < truth->n_meters; i++)
            if (reg->used[i] != truth->used[i] || reg->held[i] < (uint64_t)truth->held[i] ||
                reg->held[i] > (uint64_t)truth->held[i] + 15)
                return false;
        return true;
    }
    return !used;
}

bool check_converged(struct sim *s)
{
    for (uint32_t o = 0; o < s->opts.n_routers; o++) {
        const struct router *other = &s->routers[o];
        for (int k = 0; k < SHARDS; k++)
            for (uint32_t b = 0; b < other->limits->shards[k].n_buckets; b++)
                for (const struct limit_key *key = other->limits->shards[k].keys[b]; key; key = key->next)
                    for (uint32_t i = 0; i < s->opts.n_routers; i++)
                        if (i != o && !knows(s, &s->routers[i], other, key))
                            return false;
    }
    return true;
}

static void compare_with_central(struct sim *s)
{
    double minutes = s->opts.minutes;
    uint64_t admitted = 0, central = 0, missing = 0;
    struct sim_report *r = s->report;

    for (uint32_t i = 0; i < s->opts.n_accounts; i++) {
        const struct account *a = &s->accounts[i];
        r->requests += a->n_asked;
        admitted += a->n_admitted;
        central += a->n_central;
        missing += a->n_central > a->n_admitted ? a->n_central - a->n_admitted : 0;
        for (int m = 0; m < WEIR_ADAPTIVE; m++) {
            double allowed = a->numbers.start[m] * minutes,
                   excess = (double)a->used[m] - (double)a->central_used[m];
            double share = excess / allowed;
            if (share > r->over_admission)
                r->over_admission = share;
            if (-share > r->under_admission)
                r->under_admission = -share;
        }
    }
    r->admitted = admitted;
    r->central_admitted = central;
    r->false_refusals = central ? (double)missing / (double)central : 0;
}

void check_end(struct sim *s)
{
    for (uint32_t i = 0; i < s->opts.n_routers && !s->report->failure[0]; i++)
        check_router(s, i);
    compare_with_central(s);
    if (!s->report->failure[0] && !check_converged(s))
        sim_fail(s, "some router does not know what another has used, long after the last request");
}
