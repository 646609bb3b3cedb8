/* share.c - how much of what is left this router may give away before it hears from the others again.
 *
 * Between two rounds each router may spend its share of the remainder, by its recent share of the demand, and at least one mean
 * request while the remainder covers one for everybody. Below that the whole remainder is one router's, drawn by lot each few
 * rounds, weighted by demand: small limits are then still used in full, by requests that no share would cover.
 *
 *   [S1] Routers with the same view give away the remainder once at most: shares add up to 1, a lot has one winner.
 *   [S2] Rounds are counted, not timed: the mesh's routers agree on the number but for the time a frame takes. The first round of
 *        a lot is nobody's, so that those who are one behind do not draw twice.
 *   [S3] A key that was quiet gives each router an equal part, which lasts until all can have heard of each other's demand.
 */
#include <math.h>

#include "base/hash.h"
#include "router/limits/limits_int.h"

#define LOT_ROUNDS 5
#define RARE_S 0.4
#define YOUNG_ROUNDS 3
#define EXPECT_MAX_S 1.0
#define QUIET_SHARE 0.02 /* of the limit */
#define DEMAND_MIN 1.0   /* tokens a second: a router that was asked nothing yet has a say */

static double share_of_demand(const struct limit_key *key, uint64_t now_ns)
{
    double mine = key_demand(key, now_ns) + DEMAND_MIN;
    return mine / (mine + key->others_demand + DEMAND_MIN * key->n_others);
}

/* The lot: each router's number is -log(u) / weight with u from (key, lot, router); the smallest wins, which is the weighted draw. */
static double lot_number(uint64_t key, uint64_t lot, uint64_t router, double weight)
{
    uint64_t hash = weir_hash_mix(weir_hash_mix(key, lot), router);
    double u = ((double)(hash >> 11) + 1) * 0x1p-53;
    return -log(u) / weight;
}

/* Requests so rare that hardly two fall between two rounds: whoever is asked gives, and what was given twice is a debt that is
 * paid before the next. A lot would have most of them refused by losers. */
static bool is_rare(const struct limit_key *key, uint64_t now_ns)
{
    double request = 0;

    for (int i = 0; i < key->n_meters; i++)
        request += key->mean[i];
    return (key_demand(key, now_ns) + key->others_demand) * RARE_S < request;
}

bool key_may_take_last(struct weir_limits *lim, const struct limit_key *key, uint64_t now_ns)
{
    uint64_t round = atomic_load_explicit(&lim->round, memory_order_relaxed), lot = round / LOT_ROUNDS;

    if (key->n_others == 0 || is_rare(key, now_ns))
        return true;
    if (round % LOT_ROUNDS == 0) /* [S2] */
        return false;
    double mine = lot_number(key->id, lot, lim->opts.self, key_demand(key, now_ns) + DEMAND_MIN);
    for (const struct reg *reg = key->regs; reg; reg = reg->next) {
        const struct origin *o = &lim->origins[reg->origin];
        if (o->live && lot_number(key->id, lot, o->id, reg->demand + DEMAND_MIN) < mine)
            return false;
    }
    return true;
}

/* Nobody has asked for a while: whoever is asked now can't know whether others are, too. */
bool key_is_quiet(const struct limit_key *key, const struct weir_limit_table *t, uint64_t now_ns)
{
    double limit = 0;

    for (int i = 0; i < key->n_meters; i++)
        limit += key_limit(key, t, i);
    return key->slice_until == 0 || key_demand(key, now_ns) + key->others_demand < QUIET_SHARE * limit;
}

/* What others have reserved since they were heard, at the pace of before. */
static void expect_holds(struct weir_limits *lim, const struct limit_key *key, uint64_t now_ns,
                         double ret[LEVELS])
{
    for (const struct reg *reg = key->regs; reg; reg = reg->next) {
        double since = (double)(now_ns - reg->heard_ns) * 1e-9;
        if (!lim->origins[reg->origin].live || since > EXPECT_MAX_S)
            continue;
        for (int i = 0; i < key->n_meters; i++)
            ret[i] += reg->held_rate[i] * since;
    }
    if (key->n_levels > DAY)
        ret[DAY] = ret[WEIR_METER_PROMPT] + ret[WEIR_METER_GENERATED];
}

void key_cut_slice(struct weir_limits *lim, struct limit_key *key, const struct weir_limit_table *t,
                   bool was_quiet, uint64_t now_ns)
{
    uint64_t round = atomic_load_explicit(&lim->round, memory_order_relaxed);
    uint32_t n_live = atomic_load_explicit(&lim->n_live, memory_order_relaxed);
    bool young = was_quiet && n_live > 1, last;
    double share = n_live <= 1 ? 1 : young ? 1.0 / n_live : share_of_demand(key, now_ns);

    if (n_live > 1 && round < key->slice_until)
        return;
    key->slice_until = round + (young ? YOUNG_ROUNDS : 1); /* [S3] */
    last = young || key_may_take_last(lim, key, now_ns);
    double more[LEVELS] = { 0 };
    expect_holds(lim, key, now_ns, more);
    for (int i = 0; i < key->n_levels; i++) {
        double room = key_limit(key, t, i) * key->burst_s[i] - key->level[i] - key_holds(key, i) - more[i];
        double mean =
            i < WEIR_ADAPTIVE ? key->mean[i] : key->mean[WEIR_METER_PROMPT] + key->mean[WEIR_METER_GENERATED];
        double slice = share * room;
        if (slice < mean && (young || room >= mean * (key->n_others + 1)))
            slice = mean < room ? mean : room;
        else if (slice < mean && last)
            slice = room;
        key->slice[i] = slice > 0 ? slice : 0;
    }
}

bool key_is_owned(struct weir_limits *lim, const struct limit_key *key, uint64_t *ret_owner)
{
    uint64_t best = lim->opts.self, best_hash = weir_hash_mix(key->id, best);

    /* Among those that count this key, as they alone know its numbers. */
    for (const struct reg *reg = key->regs; reg; reg = reg->next) {
        const struct origin *o = &lim->origins[reg->origin];
        uint64_t hash = weir_hash_mix(key->id, o->id);
        if (o->live && (!key->has_numbers || hash > best_hash)) {
            best = o->id;
            best_hash = hash;
        }
    }
    if (ret_owner)
        *ret_owner = best;
    return best == lim->opts.self && key->has_numbers;
}
