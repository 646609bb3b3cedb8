/* limits.h - how many tokens an account may use: admission, reservations, adaptive limits, shared by all routers.
 *
 *     weir_limits_reserve      before routing: admits and holds the estimate, or refuses and spends nothing
 *     weir_limits_started      prompt and cached tokens are known
 *     weir_limits_charge       output as it streams; eats the hold first
 *     weir_limits_settle       the end, once, whatever was retried, cancelled or lost
 *
 * A key is an account (requests) or an account's deployment (tokens: total prompt, uncached prompt, generated; and a day's).
 * Each meter is a leaky bucket that drains at the current limit; its burst is the limit times some seconds. Admitted iff
 * level + holds + estimate <= burst, or the bucket is empty (an oversized request then leaves a debt).
 *
 *   [L1] A refused request spent nothing.
 *   [L2] What was settled adds up to the truth, on every meter; counters of a generation never fall.
 *   [L3] A hold is settled once; one that nobody settles within hold_ttl is released and counted as used in full.
 *   [L4] The limit stays within [lower, upper] of the key.
 *   [L5] Keys at rest are forgotten: memory is bounded by keys_max, and beyond it new keys are admitted unmetered and counted.
 *
 * No I/O and no clock: now_ns is monotonic and comes in. Threads: any; shards by account hash, one lock each, nothing is called
 * under it. */
#ifndef WEIR_ROUTER_LIMITS_LIMITS_H
#define WEIR_ROUTER_LIMITS_LIMITS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

struct weir_limits;

enum weir_meter {
    WEIR_METER_PROMPT,    /* all prompt tokens */
    WEIR_METER_UNCACHED,  /* those that no cache had */
    WEIR_METER_GENERATED, /* output */
    WEIR_METER_DAY,       /* prompt and output, over a day */
    WEIR_METER_REQUESTS,  /* per account; counts completions */
    WEIR_METERS
};
const char *weir_meter_name(enum weir_meter meter); /* "total prompt tokens" */

enum {
    WEIR_SIZES = 3,
    WEIR_SPEND_TIERS = 5,
    WEIR_ADAPTIVE = 3
}; /* small, medium, large; 1-4 and unlimited; token meters */

/* Every number of the limits. Tokens and requests a minute. */
struct weir_limit_table {
    double start[WEIR_ADAPTIVE], ceiling[WEIR_SIZES][WEIR_ADAPTIVE];
    double tier_factor[WEIR_SPEND_TIERS]; /* of the ceilings */
    double day_tokens[WEIR_SIZES];        /* 0 = unlimited */
    double requests, requests_unpaid;
    double burst_s, requests_burst_s;
    double ramp_minutes[4],
        ramp_factor[4]; /* limit / start at these minutes of the ramp clock; the first is (0, 1) */
    double run_share,
        hold_share; /* of the limit, used over the last minute: the clock runs; holds; below, runs back */
    uint32_t hold_ttl_s, key_rest_s;
};
void weir_limit_table_init(struct weir_limit_table *table);
/* WEIR_INVALID: `why` names the row. */
WEIR_MUST_CHECK weir_err weir_limit_table_check(const struct weir_limit_table *table, struct weir_why *why);

struct weir_limits_opts {
    struct weir_limit_table table;
    uint64_t self;     /* this router in the mesh: unlike any other, and anew with every start */
    uint32_t keys_max; /* 0 = 1,000,000 */
};
WEIR_MUST_CHECK weir_err weir_limits_open(const struct weir_limits_opts *opts, uint64_t now_ns,
                                          struct weir_limits **ret, struct weir_why *why);
void weir_limits_close(struct weir_limits *lim); /* takes NULL */
/* New numbers from now on; checked before. */
void weir_limits_set_table(struct weir_limits *lim, const struct weir_limit_table *table);

/* The numbers of one account on one deployment. */
struct weir_limits_account {
    uint32_t tier; /* 0 to WEIR_SPEND_TIERS - 1 */
    uint32_t size; /* 0 small, 1 medium, 2 large or unknown */
    bool pays;     /* has a payment method or credit */
    bool legacy;   /* over the limit: admitted, to run last, instead of refused */
    /* In the place of the table's; 0 = the table's. Tokens and requests a minute; a day's tokens. */
    double start[WEIR_ADAPTIVE], upper[WEIR_ADAPTIVE], requests, day_tokens;
};

struct weir_limits_ask {
    struct weir_str account, deployment;
    const struct weir_limits_account *numbers;
    const uint8_t *call_id; /* [16] */
    uint32_t prompt_bytes;  /* of the messages; tokens are estimated by what the key has seen */
    uint32_t max_tokens;    /* per completion; 0 = not said */
    uint32_t n;             /* completions */
    /* What the caller knows better than the key's running means; 0 = they decide. Output: per completion. */
    uint32_t expect_uncached, expect_output;
};

struct weir_limits_verdict {
    bool admitted;
    bool over_limit;       /* legacy: admitted all the same */
    enum weir_meter meter; /* refused or over_limit: by this one */
    double limit, used;    /* of that meter: a minute; level and holds, of `burst` */
    double burst, estimate;
    uint64_t wait_ns; /* until it would be admitted, given no other traffic; 0 when admitted */
    /* For the response headers: a minute, of prompt, uncached, generated, day, requests. */
    double limits[WEIR_METERS], remaining[WEIR_METERS];
};
/* WEIR_OK: see the verdict. WEIR_NOMEM. A call id that is held already is admitted without a second hold. */
WEIR_MUST_CHECK weir_err weir_limits_reserve(struct weir_limits *lim, const struct weir_limits_ask *ask,
                                             uint64_t now_ns, struct weir_limits_verdict *ret);

/* Nothing happens for a call that holds nothing (settled, expired, unmetered). */
void weir_limits_started(struct weir_limits *lim, struct weir_str account, const uint8_t call_id[16],
                         uint32_t prompt_tokens, uint32_t cached_tokens, uint64_t now_ns);
void weir_limits_charge(struct weir_limits *lim, struct weir_str account, const uint8_t call_id[16],
                        uint32_t n_tokens, uint64_t now_ns);
/* What it used in all. A call that never started (503, 4xx) gives its requests back, too: prompt_tokens 0. */
void weir_limits_settle(struct weir_limits *lim, struct weir_str account, const uint8_t call_id[16],
                        uint32_t prompt_tokens, uint32_t cached_tokens, uint32_t generated_tokens,
                        uint64_t now_ns);

/* Ramp clocks of a deployment stand still while it sheds. */
void weir_limits_set_shedding(struct weir_limits *lim, struct weir_str deployment, bool shedding);

/* Housekeeping of a part of the shards: expired holds, keys at rest, ramp clocks. From one thread, some times a second. */
void weir_limits_sweep(struct weir_limits *lim, uint64_t now_ns);

/* ---- looking ---- */
struct weir_limits_part { /* what one router has told, and this one */
    uint64_t router;
    uint64_t used[WEIR_ADAPTIVE], held[WEIR_ADAPTIVE];
    double demand; /* tokens or requests a second that were asked of it */
    uint64_t silent_ns;
    bool gone;
};
struct weir_limits_view {
    bool found, owner; /* this router integrates the ramp clocks */
    uint64_t owner_id;
    int n_meters;
    struct {
        enum weir_meter meter;
        double limit, lower, upper, used_last_minute, level, held, burst; /* a minute; tokens */
        double clock_s;
    } meters[WEIR_METERS];
    int n_parts;                             /* filled, at most parts_max */
    struct weir_limits_verdict last_refusal; /* admitted: there was none */
    uint64_t last_refusal_ago_ns;
};
/* deployment empty: the account's requests. */
void weir_limits_show(struct weir_limits *lim, struct weir_str account, struct weir_str deployment,
                      uint64_t now_ns, struct weir_limits_view *ret, struct weir_limits_part *parts,
                      int parts_max);

struct weir_limits_stats {
    uint64_t keys, holds, bytes;
    uint64_t admitted, refused, over_limit, unmetered, expired, duplicate;
    uint64_t admitted_tokens[WEIR_ADAPTIVE]; /* settled */
};
void weir_limits_stats(struct weir_limits *lim, struct weir_limits_stats *ret);

/* ---- pages for etcd: ramp clocks and levels of the keys that this router owns ---- */
#define WEIR_LIMITS_PAGES 64
/* A number that changes with the page's content: nothing to write while it stays. */
uint64_t weir_limits_page_version(struct weir_limits *lim, uint32_t page);
/* JSON; wall_ms is written with it. WEIR_NOMEM. */
WEIR_MUST_CHECK weir_err weir_limits_page_write(struct weir_limits *lim, uint32_t page, uint64_t now_ns,
                                                uint64_t wall_ms, struct weir_buf *out);
/* At start or takeover: levels have drained since; clocks stand. What this router knows better is left. When it was
 * written, on the writer's wall clock, is in *ret_written_ms, which may be NULL. WEIR_CORRUPT. */
WEIR_MUST_CHECK weir_err weir_limits_page_read(struct weir_limits *lim, struct weir_str json, uint64_t now_ns,
                                               uint64_t wall_ms, uint64_t *ret_written_ms,
                                               struct weir_why *why);

#endif
