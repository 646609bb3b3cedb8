/* bucket.c - a key's meters through time. All under the shard's lock. */
#include <math.h>
#include <string.h>

#include "router/limits/limits_int.h"

#define NS 1e-9
#define BUSY_MIN_S 5.0

double key_limit(const struct limit_key *key, const struct weir_limit_table *t, int i)
{
    if (!key->has_numbers)
        return key->told_limit[i];
    if (key->is_account || i == DAY)
        return key->start[i];
    double limit = key->start[i] * ramp_factor(t, key->clock_s[i]); /* [L4] */
    return limit < key->upper[i] ? limit : key->upper[i];
}

double key_holds(const struct limit_key *key, int i)
{
    if (i == DAY)
        return key->held[DAY] + key->others_held[WEIR_METER_PROMPT] + key->others_held[WEIR_METER_GENERATED];
    return key->held[i] + key->others_held[i];
}

double key_demand(const struct limit_key *key, uint64_t now_ns)
{
    if (now_ns <= key->demand_ns)
        return key->demand;
    double dt = (double)(now_ns - key->demand_ns) * NS / DEMAND_TAU_S;
    return dt < 0.01 ? key->demand * (1 - dt)
                     : key->demand * exp(-dt); /* most often the first, which is cheap */
}

/* What others use is believed up to the limit: more they can't be admitted for long. */
static double belief(const struct limit_key *key, int i, double limit)
{
    return key->rates[i] > limit ? limit / key->rates[i] : 1;
}

static void fill(struct limit_key *key, int i, double n)
{
    key->level[i] += n;
    if (key->level[i] > 0)
        key->empty_ns[i] = UINT64_MAX;
}

static void drain(struct limit_key *key, int i, double net_per_s, double dt_s)
{
    double level = key->level[i] + net_per_s * dt_s;

    if (level > 0) {
        fill(key, i, net_per_s * dt_s);
        return;
    }
    if (key->empty_ns[i] == UINT64_MAX)
        key->empty_ns[i] = key->t_ns + (uint64_t)(net_per_s < 0 ? key->level[i] / -net_per_s * 1e9 : 0);
    key->level[i] = 0;
}

static void turn_window(struct limit_key *key, uint64_t now_ns)
{
    uint64_t slot = now_ns / WINDOW_SLOT_NS;

    if (slot - key->window_slot > WINDOW_SLOTS)
        key->window_slot = slot - WINDOW_SLOTS;
    while (key->window_slot < slot) {
        key->window_slot++;
        for (int i = 0; i < key->n_meters; i++)
            key->window[i][key->window_slot % WINDOW_SLOTS] = 0;
    }
}

void key_advance(struct limit_key *key, const struct weir_limit_table *t, uint64_t now_ns)
{
    if (now_ns <= key->t_ns)
        return;
    double dt = (double)(now_ns - key->t_ns) * NS, day = 0;
    for (int i = 0; i < key->n_meters; i++) {
        double limit = key_limit(key, t, i), share = belief(key, i, limit), inflow = key->rates[i] * share;
        key->flow[i] += share * dt;
        drain(key, i, inflow - limit, dt);
        day += i == WEIR_METER_UNCACHED ? 0 : inflow;
    }
    if (key->n_levels > DAY)
        drain(key, DAY, day - key_limit(key, t, DAY), dt);
    turn_window(key, now_ns);
    key->t_ns = now_ns;
}

/* While the bucket was empty, use that was spread over that time drained away as it came. */
static double not_drained(const struct limit_key *key, int i, double n, double late_s, double net_drain)
{
    if (key->empty_ns[i] == UINT64_MAX || late_s <= 0 || n <= 0)
        return n;
    double idle = (double)(key->t_ns - key->empty_ns[i]) * NS;
    double gone = (idle < late_s ? idle : late_s) * (net_drain > 0 ? net_drain : 0);
    return n > gone ? n - gone : 0;
}

static void add_level(struct limit_key *key, const struct weir_limit_table *t, int i, double n, double late_s)
{
    double inflow = i == DAY ? 0 : key->rates[i];

    n = not_drained(key, i, n, late_s, key_limit(key, t, i) - inflow);
    if (key->level[i] + n <= 0) {
        if (key->level[i] > 0)
            key->empty_ns[i] = key->t_ns;
        key->level[i] = 0;
        return;
    }
    fill(key, i, n);
}

void key_use(struct limit_key *key, const struct weir_limit_table *t, int i, double n, double late_s)
{
    add_level(key, t, i, n, late_s);
    if (key->n_levels > DAY && i != WEIR_METER_UNCACHED)
        add_level(key, t, DAY, n, late_s);
}

double key_used_last_minute(const struct limit_key *key, int i)
{
    /* The oldest slot counts by what is left of it in the minute. A key that has been busy for less is taken to go on so. */
    double into = (double)(key->t_ns % WINDOW_SLOT_NS) / (double)WINDOW_SLOT_NS, sum = 0;
    uint64_t oldest = (key->window_slot + 1) % WINDOW_SLOTS;
    double busy_s = (double)(key->t_ns - key->busy_ns) * NS;

    for (uint64_t s = 0; s < WINDOW_SLOTS; s++)
        sum += key->window[i][s] * (s == oldest ? 1 - into : 1);
    if (busy_s >= 60)
        return sum;
    return sum * 60 / (busy_s > BUSY_MIN_S ? busy_s : BUSY_MIN_S);
}

void key_note_use(struct limit_key *key, int i, double n)
{
    double all = 0;

    for (int m = 0; m < key->n_meters; m++)
        for (int s = 0; s < WINDOW_SLOTS; s++)
            all += key->window[m][s];
    if (all <= 0)
        key->busy_ns = key->t_ns;
    key->window[i][key->window_slot % WINDOW_SLOTS] += n;
}

void key_sum_registers(struct weir_limits *lim, struct limit_key *key)
{
    for (int i = 0; i < WEIR_ADAPTIVE; i++)
        key->rates[i] = key->others_held[i] = 0;
    key->others_demand = 0;
    key->n_others = 0;
    for (const struct reg *reg = key->regs; reg; reg = reg->next) {
        if (!lim->origins[reg->origin].live)
            continue;
        for (int i = 0; i < key->n_meters; i++) {
            key->rates[i] += reg->rate[i];
            key->others_held[i] += (double)reg->held[i];
        }
        key->others_demand += reg->demand;
        key->n_others++;
    }
}

void key_forget_rates(struct limit_key *key)
{
    for (struct reg *reg = key->regs; reg; reg = reg->next)
        memset(reg->rate, 0, sizeof reg->rate);
    memset(key->rates, 0, sizeof key->rates);
}

void key_run_clock(struct limit_key *key, const struct weir_limit_table *t, double dt_s, bool shedding)
{
    if (key->is_account || !key->has_numbers || shedding)
        return;
    for (int i = 0; i < WEIR_ADAPTIVE; i++) {
        double used = key_used_last_minute(key, i), limit = key_limit(key, t, i) * 60;
        double most = ramp_clock(t, key->upper[i] / key->start[i]), clock = key->clock_s[i];
        if (used >= t->run_share * limit)
            clock += dt_s;
        else if (used < t->hold_share * limit)
            clock -= dt_s;
        key->clock_s[i] = clock < 0 ? 0 : clock > most ? most : clock; /* [L4] */
    }
}
