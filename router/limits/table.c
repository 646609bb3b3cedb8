/* table.c - the numbers of the limits, and the ramp: how a limit grows with its clock. */
#include "router/limits/limits_int.h"

const char *weir_meter_name(enum weir_meter meter)
{
    static const char *const names[WEIR_METERS] = { "total prompt tokens", "uncached prompt tokens",
                                                    "generated tokens", "tokens per day", "requests" };
    return names[meter];
}

void weir_limit_table_init(struct weir_limit_table *t)
{
    *t = (struct weir_limit_table){
        .start = { 3.6e6, 900e3, 36e3 },
        .ceiling = { { 64.8e6, 16.2e6, 648e3 }, { 43.2e6, 10.8e6, 432e3 }, { 21.6e6, 5.4e6, 216e3 } },
        .tier_factor = { 1, 1, 1, 1, 1 },
        .day_tokens = { 2.5e9, 1.25e9, 600e6 },
        .requests = 6000,
        .requests_unpaid = 10,
        .burst_s = 10,
        .requests_burst_s = 60,
        .ramp_minutes = { 0, 10, 60, 120 },
        .ramp_factor = { 1, 2, 12, 24 },
        .run_share = 0.5,
        .hold_share = 0.25,
        .hold_ttl_s = 3600,
        .key_rest_s = 900,
    };
}

weir_err weir_limit_table_check(const struct weir_limit_table *t, struct weir_why *why)
{
    for (int i = 0; i < WEIR_ADAPTIVE; i++)
        if (!(t->start[i] > 0))
            return weir_fail_param(why, "start", WEIR_INVALID, "start: every meter's must be above 0");
    for (int i = 0; i < WEIR_SPEND_TIERS; i++)
        if (!(t->tier_factor[i] > 0))
            return weir_fail_param(why, "tier_factor", WEIR_INVALID, "tier_factor: must be above 0");
    if (!(t->requests > 0) || !(t->requests_unpaid > 0))
        return weir_fail_param(why, "requests", WEIR_INVALID, "requests: must be above 0");
    if (!(t->burst_s > 0) || !(t->requests_burst_s > 0))
        return weir_fail_param(why, "burst_s", WEIR_INVALID, "burst_s: must be above 0");
    for (int i = 0; i < 4; i++)
        if (i == 0 ? t->ramp_minutes[0] != 0 || t->ramp_factor[0] != 1
                   : !(t->ramp_minutes[i] > t->ramp_minutes[i - 1]) ||
                         !(t->ramp_factor[i] > t->ramp_factor[i - 1]))
            return weir_fail_param(why, "ramp", WEIR_INVALID,
                                   "ramp: starts at (0, 1), and both columns rise");
    if (!(t->hold_share > 0) || !(t->run_share >= t->hold_share))
        return weir_fail_param(why, "run_share", WEIR_INVALID,
                               "run_share: must be hold_share or more, and that above 0");
    if (t->hold_ttl_s == 0 || t->key_rest_s == 0)
        return weir_fail_param(why, "hold_ttl_s", WEIR_INVALID, "hold_ttl_s, key_rest_s: must be above 0");
    return WEIR_OK;
}

double ramp_factor(const struct weir_limit_table *t, double clock_s)
{
    double minutes = clock_s / 60;
    int i = 1;

    while (i < 3 && minutes > t->ramp_minutes[i])
        i++;
    double share = (minutes - t->ramp_minutes[i - 1]) / (t->ramp_minutes[i] - t->ramp_minutes[i - 1]);
    return t->ramp_factor[i - 1] + share * (t->ramp_factor[i] - t->ramp_factor[i - 1]);
}

double ramp_clock(const struct weir_limit_table *t, double factor)
{
    int i = 1;

    if (factor <= 1)
        return 0;
    while (i < 3 && factor > t->ramp_factor[i])
        i++;
    double share = (factor - t->ramp_factor[i - 1]) / (t->ramp_factor[i] - t->ramp_factor[i - 1]);
    return 60 * (t->ramp_minutes[i - 1] + share * (t->ramp_minutes[i] - t->ramp_minutes[i - 1]));
}

static bool set_number(double *to, double value)
{
    bool is_new = *to != value;

    *to = value;
    return is_new;
}

bool key_set_numbers(struct limit_key *key, const struct weir_limit_table *t,
                     const struct weir_limits_account *a)
{
    bool is_new = !key->has_numbers;

    key->has_numbers = true;
    if (key->is_account) {
        double requests = a->requests > 0 ? a->requests : a->pays ? t->requests : t->requests_unpaid;
        key->burst_s[0] = t->requests_burst_s;
        key->upper[0] = requests / 60;
        return set_number(&key->start[0], requests / 60) || is_new;
    }
    for (int i = 0; i < WEIR_ADAPTIVE; i++) {
        double start = a->start[i] > 0 ? a->start[i] : t->start[i];
        double upper = a->upper[i] > 0 ? a->upper[i] : t->ceiling[a->size][i] * t->tier_factor[a->tier];
        is_new = set_number(&key->start[i], start / 60) || is_new;
        is_new = set_number(&key->upper[i], (upper > start ? upper : start) / 60) || is_new;
        key->burst_s[i] = t->burst_s;
    }
    double day = a->day_tokens > 0 ? a->day_tokens : t->day_tokens[a->size];
    key->start[DAY] = key->upper[DAY] = day / SECONDS_A_DAY;
    key->burst_s[DAY] = SECONDS_A_DAY;
    return is_new;
}
