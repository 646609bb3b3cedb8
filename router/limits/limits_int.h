/* limits_int.h - what the files of limits/ share, and what router/mesh needs of it: keys, buckets, registers, shards.
 *
 *   table.c     the numbers, and the ramp
 *   bucket.c    a key's meters through time: draining, other routers' use, the ramp clock
 *   share.c     this router's slice of what is left
 *   admit.c     the decision
 *   charge.c    what becomes of what was admitted
 *   limits.c    the whole: opened, its table, housekeeping
 *   keys.c      a shard's keys, and its lists by last change
 *   holds.c     a shard's reservations
 *   register.c  what routers tell each other of a key, coming in and going out
 *   show.c      for people
 *   page.c      for etcd
 *
 * A register is what one router has counted of a key: (origin, key) has one writer, and the newer one wins whole. The level of
 * a bucket here is own use plus what the others told, each increase once, plus what they have probably used since: their last
 * rate goes on until they are heard again, and is then corrected by the truth. So a router that is cut off leaves the others
 * what they used to have. */
#ifndef WEIR_ROUTER_LIMITS_LIMITS_INT_H
#define WEIR_ROUTER_LIMITS_LIMITS_INT_H

#include <pthread.h>
#include <stdatomic.h>

#include "router/limits/limits.h"

#define SHARDS 64 /* and pages: an account is in one shard */
#define DAY 3     /* the meter behind those that are told: sums of prompt and generated */
#define LEVELS 4
#define SECONDS_A_DAY 86400.0
#define WINDOW_SLOTS 7 /* the last minute, and the one that is being filled */
#define WINDOW_SLOT_NS (10 * 1000000000ull)
#define ORIGINS_MAX 4096
#define SHEDDING_MAX 64
#define DEMAND_TAU_S 5.0
#define BUCKETS_FIRST 64 /* of a shard's tables */
#define WEIR_MS_NS 1000000ull
#define ROUND_WAIT_NS (200 * WEIR_MS_NS)

_Static_assert(SHARDS == WEIR_LIMITS_PAGES, "a page is a shard");

struct change { /* place in a shard's list by last change, newest first */
    struct change *newer, *older;
    uint64_t version;
};

/* What another router told of a key. */
struct reg {
    struct change change; /* first: lists hold these */
    uint64_t born;        /* version of the change that brought it */
    struct limit_key *key;
    struct reg *next; /* of the key */
    uint32_t origin;
    uint32_t generation;
    uint64_t seq; /* the origin's tick */
    uint64_t used[WEIR_ADAPTIVE], held[WEIR_ADAPTIVE];
    uint64_t origin_ms;                              /* the origin's clock */
    double rate[WEIR_ADAPTIVE], flow[WEIR_ADAPTIVE]; /* a second; key->flow when last heard */
    double demand, held_rate[WEIR_ADAPTIVE]; /* held_rate: holds that came, a second; 0 when they fell */
    uint64_t heard_ns;
    uint64_t moved_ns; /* used or held last changed */
};

struct limit_key {
    struct change change;   /* first: own counters changed */
    struct limit_key *next; /* in its bucket of the table */
    uint64_t id;
    uint64_t deployment; /* hash */
    bool is_account, has_numbers, told_clock;
    int n_meters, n_levels; /* 1 and 1 of an account; 3 and 4 */

    /* Numbers, a second. Without numbers of its own: as the owner told. */
    double start[LEVELS], upper[LEVELS], burst_s[LEVELS], told_limit[LEVELS];

    uint64_t t_ns; /* all below is of this moment */
    double level[LEVELS], clock_s[WEIR_ADAPTIVE];
    uint64_t empty_ns[LEVELS];  /* the bucket is empty since; UINT64_MAX: it is not */
    double flow[WEIR_ADAPTIVE]; /* integral over time of the share of told rates that is believed */
    double rates[WEIR_ADAPTIVE], others_held[WEIR_ADAPTIVE], others_demand; /* sums over registers */
    uint32_t n_others;                                                      /* registers of live routers */

    /* Own register. */
    uint32_t generation;
    uint64_t used[WEIR_ADAPTIVE];
    double held[LEVELS];

    double window[WEIR_ADAPTIVE][WINDOW_SLOTS]; /* use of all routers in the last slots of 10 s */
    uint64_t window_slot, busy_ns;              /* busy: since the window was last empty */
    double demand;                              /* asked of this router, a second, decaying */
    uint64_t demand_ns;
    double mean[WEIR_ADAPTIVE]; /* of a request */

    uint64_t slice_until; /* share.c: the slice is cut again in this round */
    double slice[LEVELS];

    double tokens_per_byte, hit_share, mean_output; /* running estimates */
    uint32_t n_holds;                               /* that point here: it is not forgotten meanwhile */
    struct reg *regs;
    uint64_t clock_change; /* version of the change that moved the clocks */
    uint64_t limit_change; /* and of the one that brought its numbers, or other ones */
    bool limit_is_new;     /* that is yet to come */
    bool is_tail;          /* changed only to say that nothing changed */
    uint64_t clock_ns;     /* when it was last run */
    struct weir_limits_verdict refusal;
    uint64_t refusal_ns;
};

struct hold {
    struct hold *next;           /* by call id */
    struct hold *sooner, *later; /* by expiry: they all live equally long */
    uint8_t call_id[16];
    struct limit_key *key, *account; /* each counts it in n_holds */
    double held[LEVELS], requests;
    uint64_t expires_ns;
    uint32_t n_prompt_bytes, n, charged; /* output tokens */
    bool started;
    uint32_t prompt, cached;
};

struct change_list {
    struct change *newest, *oldest;
};

struct shard {
    pthread_mutex_t lock;
    struct limit_key **keys;
    uint32_t n_buckets, n_keys;
    struct hold **holds;
    uint32_t n_hold_buckets, n_holds;
    struct hold *next_expiry, *last_expiry;
    struct change_list own, others;
    uint64_t page_version;
    struct weir_limits_stats stats;
};

/* A router of the mesh, as the others know it. */
struct origin {
    uint64_t id;        /* changes only while n_regs is 0 */
    atomic_uint n_regs; /* registers that point here, and those about to: its place is taken */
    atomic_bool live;   /* in the mesh's view */
    atomic_uint_fast64_t heard_ns;
    uint64_t view; /* the last one that it was in */
};

struct weir_limits {
    struct weir_limits_opts opts;
    pthread_rwlock_t table_lock;
    struct weir_limit_table table; /* under table_lock */
    struct shard shards[SHARDS];
    atomic_uint_fast64_t version, round, told; /* told: passes may have been as far as this version */
    atomic_uint n_keys, generations;
    atomic_uint n_live; /* routers, this one too */
    uint64_t born_ns;

    pthread_mutex_t origins_lock; /* after a shard's lock */
    struct origin origins[ORIGINS_MAX];
    uint32_t n_origins;
    uint64_t view;
    uint32_t sweep_at;
    pthread_mutex_t
        shedding_lock; /* of writers; clocks read without it, and may miss what is just being moved */
    atomic_uint n_shedding;
    atomic_uint_fast64_t shedding[SHEDDING_MAX]; /* hashes of deployments */
};

/* table.c */
double ramp_factor(const struct weir_limit_table *t, double clock_s);
double ramp_clock(const struct weir_limit_table *t, double factor);
/* True: they were not known, or others. */
bool key_set_numbers(struct limit_key *key, const struct weir_limit_table *t,
                     const struct weir_limits_account *a);

/* bucket.c: under the shard's lock */
double key_limit(const struct limit_key *key, const struct weir_limit_table *t, int i); /* a second */
void key_advance(struct limit_key *key, const struct weir_limit_table *t, uint64_t now_ns);
/* Tokens used: into the level, all at once now, or `late` seconds long until now. */
void key_use(struct limit_key *key, const struct weir_limit_table *t, int i, double n, double late_s);
/* Of all routers, for the ramp clock. */
void key_note_use(struct limit_key *key, int i, double n);
double key_used_last_minute(const struct limit_key *key, int i);
double key_holds(const struct limit_key *key, int i);
/* What is expected of others until they are heard again is forgotten: what comes of it is not taken off later. */
void key_forget_rates(struct limit_key *key);
void key_sum_registers(struct weir_limits *lim, struct limit_key *key);
void key_run_clock(struct limit_key *key, const struct weir_limit_table *t, double dt_s, bool shedding);
/* Callers' clocks differ by a loop's turn: one that is behind the last request's decays nothing. */
double key_demand(const struct limit_key *key, uint64_t now_ns);

/* share.c */
/* Before the request at hand is noted as demand. */
bool key_is_quiet(const struct limit_key *key, const struct weir_limit_table *t, uint64_t now_ns);
void key_cut_slice(struct weir_limits *lim, struct limit_key *key, const struct weir_limit_table *t,
                   bool was_quiet, uint64_t now_ns);
bool key_may_take_last(struct weir_limits *lim, const struct limit_key *key, uint64_t now_ns);
bool key_is_owned(struct weir_limits *lim, const struct limit_key *key, uint64_t *ret_owner);

/* keys.c */
/* Of the hash of an account's name, weir_hash64(.., 1), and a deployment. */
uint64_t limit_key_id_of(uint64_t account, struct weir_str deployment);
uint64_t limit_key_id(struct weir_str account, struct weir_str deployment);
struct shard *shard_of_id(struct weir_limits *lim, uint64_t id);
struct limit_key *key_find(struct shard *shard, uint64_t id);
struct limit_key *key_make(struct weir_limits *lim, struct shard *shard, uint64_t id, bool is_account,
                           uint64_t now_ns);
void key_forget(struct weir_limits *lim, struct shard *shard, struct limit_key *key);
void change_touch(struct weir_limits *lim, struct change_list *list, struct change *change);
void key_touch(struct weir_limits *lim, struct shard *shard,
               struct limit_key *key); /* own counters changed */
void change_remove(struct change_list *list, struct change *change);
void key_free(struct weir_limits *lim, struct limit_key *key);

/* holds.c */
struct hold *hold_find(struct shard *shard, const uint8_t call_id[16]);
struct hold *hold_add(struct shard *shard, const uint8_t call_id[16], uint64_t expires_ns);
void hold_free(struct shard *shard, struct hold *hold);

/* charge.c */
/* Holds whose time is up, by now_ns: settled as used in full. [L3] */
void holds_expire(struct weir_limits *lim, struct shard *shard, const struct weir_limit_table *t,
                  uint64_t now_ns);

/* limits.c */
bool is_shedding(struct weir_limits *lim, uint64_t deployment);

/* register.c, for router/mesh */
void reg_free(struct weir_limits *lim, struct reg *reg);
/* Registers of routers that left and said nothing for so long: what they used has drained. */
void key_drop_gone(struct weir_limits *lim, struct shard *shard, struct limit_key *key, uint64_t silent_ns,
                   uint64_t now_ns);
struct reg_news { /* one register as it travels */
    uint64_t key, seq, origin_ms;
    uint32_t generation;
    bool is_account, full, has_clock;
    uint64_t used[WEIR_ADAPTIVE], held[WEIR_ADAPTIVE];
    double demand;
    double level[LEVELS]; /* full only: of the bucket, all routers together */
    /* has_clock: the sender owns them, or whom it tells may not know them; the limit is a second's. */
    double clock_s[WEIR_ADAPTIVE], limit_s[WEIR_ADAPTIVE];
};
/* Takes in what a router told. False: nothing new in it. */
bool register_apply(struct weir_limits *lim, uint64_t origin, const struct reg_news *news, uint64_t now_ns);
/* A pass over what changed after version `after` and not after `until`, which goes on where it was stopped. */
struct register_walk {
    uint64_t after, until;
    bool full; /* every key there is, whatever changed */
    uint32_t shard;
    uint64_t at; /* in the shard: the last version told; with full the next bucket */
};
/* Calls fn with own registers. fn false: no more room, stop before this one. True: the pass is over. */
bool registers_walk_own(struct weir_limits *lim, struct register_walk *walk, uint64_t now_ns,
                        bool (*fn)(void *ctx, const struct reg_news *news), void *ctx);
/* What other routers told, to pass it on: as much as there is room for. */
void registers_each_other(struct weir_limits *lim, uint64_t after, uint64_t until,
                          bool (*fn)(void *ctx, uint64_t origin, const struct reg_news *news), void *ctx);
/* The newest version, for a pass to go up to: what changes from now on is newer. */
uint64_t limits_version(struct weir_limits *lim);
void limits_set_round(struct weir_limits *lim, uint64_t round);
/* Keys that last changed after version `after` and not after `until` are told once more: that their use has stopped. */
void registers_add_tails(struct weir_limits *lim, uint64_t after, uint64_t until);
/* The routers there are, but this one: those that left have no rate and no holds any more; their use stays and drains. */
void limits_set_live(struct weir_limits *lim, const uint64_t *origins, uint32_t n, uint64_t now_ns);

#endif
