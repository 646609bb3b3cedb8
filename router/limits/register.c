/* register.c - what routers tell each other of a key: coming in, and going out.
 *
 *   [R1] A register is taken over whole when it is newer: (generation, tick of the origin). So frames may come twice, late, in any
 *        order, or over others: the result is the same.
 *   [R2] Each token that was told is in the level once: an increase over what was known, less what was believed meanwhile.
 *   [R3] What an origin had counted before we first heard of it is in the level that came with a full frame; never added up over
 *        several senders, whose levels all contain it. */
#include <string.h>

#include "base/mem.h"
#include "router/limits/limits_int.h"

#define NS 1e-9
#define RATE_WEIGHT 0.5
#define GAP_MIN_S 0.02
#define GAP_MAX_S 3600.0
#define JOIN_NS (5 * 1000000000ull) /* after a start: all others will have told all they know */

uint64_t limits_version(struct weir_limits *lim)
{
    uint64_t version = atomic_load(&lim->version);

    atomic_store(&lim->told, version);
    return version;
}

void limits_set_round(struct weir_limits *lim, uint64_t round)
{
    atomic_store(&lim->round, round);
}

/* The place of a router in lim->origins, if need be that of one that left and of which nothing is known any more; -1: there is
 * no room. Under the origins' lock. */
static int origin_place(struct weir_limits *lim, uint64_t id)
{
    uint32_t i, unused = lim->n_origins;

    for (i = 0; i < lim->n_origins; i++) {
        const struct origin *o = &lim->origins[i];
        if (o->id == id)
            return (int)i;
        if (unused == lim->n_origins && !o->live && o->view < lim->view && o->n_regs == 0)
            unused = i;
    }
    if (unused == ORIGINS_MAX)
        return -1;
    lim->origins[unused] = (struct origin){ .id = id };
    lim->n_origins += unused == lim->n_origins;
    return (int)unused;
}

void limits_set_live(struct weir_limits *lim, const uint64_t *origins, uint32_t n, uint64_t now_ns)
{
    pthread_mutex_lock(&lim->origins_lock);
    lim->view++;
    for (uint32_t i = 0; i < n; i++) {
        int place = origin_place(lim, origins[i]);
        if (place >= 0) {
            struct origin *o = &lim->origins[place];
            o->view = lim->view;
            if (o->heard_ns == 0)
                o->heard_ns = now_ns;
        }
    }
    for (uint32_t i = 0; i < lim->n_origins; i++)
        lim->origins[i].live = lim->origins[i].view == lim->view;
    atomic_store(&lim->n_live, n + 1);
    pthread_mutex_unlock(&lim->origins_lock);
}

/* ---- coming in ---- */
static struct reg *reg_of(struct limit_key *key, uint32_t origin)
{
    struct reg *reg = key->regs;

    while (reg && reg->origin != origin)
        reg = reg->next;
    return reg;
}

static struct reg *reg_make(struct weir_limits *lim, struct limit_key *key, uint32_t origin, uint64_t now_ns)
{
    struct reg *reg = weir_alloc0(sizeof *reg);

    if (!reg)
        return NULL;
    reg->key = key;
    reg->origin = origin;
    lim->origins[origin].n_regs++;
    reg->heard_ns = reg->moved_ns = now_ns;
    memcpy(reg->flow, key->flow, sizeof reg->flow);
    reg->next = key->regs;
    key->regs = reg;
    return reg;
}

void reg_free(struct weir_limits *lim, struct reg *reg)
{
    lim->origins[reg->origin].n_regs--;
    weir_free(reg);
}

void key_drop_gone(struct weir_limits *lim, struct shard *shard, struct limit_key *key, uint64_t silent_ns,
                   uint64_t now_ns)
{
    for (struct reg **at = &key->regs, *reg; (reg = *at) != NULL;) {
        const struct origin *o = &lim->origins[reg->origin];
        if (o->live || now_ns < o->heard_ns + silent_ns) {
            at = &reg->next;
            continue;
        }
        *at = reg->next;
        change_remove(&shard->others, &reg->change);
        reg_free(lim, reg);
    }
}

static bool is_newer(const struct reg *reg, const struct reg_news *news)
{
    if (news->generation != reg->generation)
        return news->generation > reg->generation;
    return news->seq > reg->seq;
}

/* [R2] One meter of a register that was known. */
static void add_increase(struct limit_key *key, const struct weir_limit_table *t, struct reg *reg, int i,
                         uint64_t used, bool same_generation, double gap_s)
{
    uint64_t before = same_generation ? reg->used[i] : 0, increase = used > before ? used - before : 0;
    double believed = reg->rate[i] * (key->flow[i] - reg->flow[i]);

    key_use(key, t, i, (double)increase - believed, gap_s);
    key_note_use(key, i, (double)increase);
    double rate = (double)increase / gap_s;
    reg->rate[i] = increase == 0 ? 0 : reg->rate[i] + (rate - reg->rate[i]) * RATE_WEIGHT;
}

static void take_clock(struct weir_limits *lim, struct limit_key *key, uint64_t origin,
                       const struct reg_news *news)
{
    uint64_t owner = 0;

    for (int i = 0; i < key->n_meters; i++)
        key->told_limit[i] = news->limit_s[i];
    if (key->n_levels > DAY && key->told_limit[DAY] == 0)
        key->told_limit[DAY] = 1e12 / SECONDS_A_DAY;
    /* Of whoever tells first: a router that starts knows nothing; afterwards of the owner alone. */
    bool owned = key_is_owned(lim, key, &owner);
    if (!key->told_clock) {
        if (!key->has_numbers)
            key_forget_rates(key);
        for (int i = 0; i < key->n_meters; i++)
            key->clock_s[i] = news->clock_s[i] > key->clock_s[i] ? news->clock_s[i] : key->clock_s[i];
        key->told_clock = true;
    } else if (!owned && (!key->has_numbers || owner == origin)) {
        memcpy(key->clock_s, news->clock_s, sizeof key->clock_s);
    }
}

/* [R3] */
static void take_level(struct limit_key *key, const struct reg_news *news)
{
    for (int i = 0; i < key->n_levels; i++)
        if (news->level[i] > key->level[i]) {
            key->level[i] = news->level[i];
            key->empty_ns[i] = UINT64_MAX;
        }
}

static void apply(struct weir_limits *lim, struct limit_key *key, struct reg *reg, bool known,
                  const struct reg_news *news, const struct weir_limit_table *t, uint64_t now_ns)
{
    bool same = known && reg->generation == news->generation;
    double gap = known && news->origin_ms > reg->origin_ms ? (double)(news->origin_ms - reg->origin_ms) * 1e-3
                                                           : GAP_MIN_S;

    gap = gap < GAP_MIN_S ? GAP_MIN_S : gap > GAP_MAX_S ? GAP_MAX_S : gap;
    if (news->has_clock) /* first: what is added drains at the limit */
        take_clock(lim, key, lim->origins[reg->origin].id, news);
    bool moved = !same;
    for (int i = 0; i < key->n_meters; i++) {
        moved = moved || reg->used[i] != news->used[i] || reg->held[i] != news->held[i];
        if (known || !news->full)
            add_increase(key, t, reg, i, news->used[i], same, gap);
        reg->held_rate[i] =
            same && news->held[i] > reg->held[i] ? (double)(news->held[i] - reg->held[i]) / gap : 0;
        reg->used[i] = news->used[i];
        reg->held[i] = news->held[i];
    }
    if (!known && news->full)
        take_level(key, news);
    memcpy(reg->flow, key->flow, sizeof reg->flow);
    reg->generation = news->generation;
    reg->seq = news->seq;
    reg->origin_ms = news->origin_ms;
    reg->demand = news->demand;
    reg->heard_ns = now_ns;
    if (moved)
        reg->moved_ns = now_ns;
    key_sum_registers(lim, key);
}

/* The sender itself has counted nothing: it passes on what it knows of the key's level and clocks. */
static bool is_hearsay(const struct reg_news *news)
{
    bool counted = news->demand > 0;

    for (int i = 0; i < WEIR_ADAPTIVE; i++)
        counted = counted || news->used[i] || news->held[i];
    return !counted;
}

static bool apply_locked(struct weir_limits *lim, struct shard *shard, uint32_t origin,
                         const struct reg_news *news, uint64_t now_ns)
{
    struct limit_key *key = key_find(shard, news->key);
    bool is_new = !key;

    if (!key) {
        key = key_make(lim, shard, news->key, news->is_account, now_ns);
        if (!key)
            return false;
        for (int i = 0; i < LEVELS; i++)
            key->told_limit[i] =
                (key->is_account ? lim->table.requests : lim->table.start[i < WEIR_ADAPTIVE ? i : 0]) / 60;
        key->demand_ns = now_ns;
    }
    if (key->is_account != news->is_account)
        return false;
    struct reg *reg = reg_of(key, origin);
    bool known = reg != NULL;
    if (known && !is_newer(reg, news)) /* [R1] */
        return false;
    key_advance(key, &lim->table, now_ns);
    if (!known && is_hearsay(news)) { /* no register comes of it: there may be thousands of routers */
        /* Worth something to whoever knows nothing; later it is older than what is known. */
        if (news->full && (is_new || now_ns < lim->born_ns + JOIN_NS))
            take_level(key, news);
        if (news->has_clock)
            take_clock(lim, key, lim->origins[origin].id, news);
        return false;
    }
    if (!known && !(reg = reg_make(lim, key, origin, now_ns)))
        return false;
    apply(lim, key, reg, known, news, &lim->table, now_ns);
    change_touch(lim, &shard->others, &reg->change);
    if (!known)
        reg->born = reg->change.version;
    return true;
}

bool register_apply(struct weir_limits *lim, uint64_t origin, const struct reg_news *news, uint64_t now_ns)
{
    struct shard *shard = shard_of_id(lim, news->key);
    int place;

    if (origin == lim->opts.self)
        return false;
    pthread_mutex_lock(&lim->origins_lock);
    place = origin_place(lim, origin);
    if (place >= 0) {
        lim->origins[place].heard_ns = now_ns;
        lim->origins[place].n_regs++; /* it stays this origin's meanwhile */
    }
    pthread_mutex_unlock(&lim->origins_lock);
    if (place < 0)
        return false;
    pthread_rwlock_rdlock(&lim->table_lock);
    pthread_mutex_lock(&shard->lock);
    bool applied = apply_locked(lim, shard, (uint32_t)place, news, now_ns);
    pthread_mutex_unlock(&shard->lock);
    pthread_rwlock_unlock(&lim->table_lock);
    lim->origins[place].n_regs--;
    return applied;
}

/* ---- going out ---- */
void registers_add_tails(struct weir_limits *lim, uint64_t after, uint64_t until)
{
    for (int i = 0; i < SHARDS; i++) {
        struct shard *shard = &lim->shards[i];
        pthread_mutex_lock(&shard->lock);
        for (struct change *c = shard->own.newest, *older; c && c->version > after; c = older) {
            struct limit_key *key = (struct limit_key *)c;
            older = c->older;
            if (c->version > until || key->is_tail)
                continue;
            change_touch(lim, &shard->own, c);
            key->is_tail = true;
        }
        pthread_mutex_unlock(&shard->lock);
    }
}

static void fill_clock(const struct weir_limits *lim, const struct limit_key *key, struct reg_news *ret)
{
    ret->has_clock = true;
    for (int i = 0; i < key->n_meters; i++) {
        ret->clock_s[i] = key->clock_s[i];
        ret->limit_s[i] = key_limit(key, &lim->table, i);
    }
}

/* Clocks are the owner's to tell; limits anybody's who has them, once, as most routers have not been asked for the key. */
static bool tells_clock(struct weir_limits *lim, const struct limit_key *key, uint64_t after)
{
    return (key->clock_change > after && key_is_owned(lim, key, NULL)) ||
           (key->has_numbers && key->limit_change > after);
}

static void fill_own(struct weir_limits *lim, struct limit_key *key, const struct register_walk *walk,
                     uint64_t now_ns, struct reg_news *ret)
{
    *ret = (struct reg_news){
        .key = key->id, .generation = key->generation, .is_account = key->is_account, .full = walk->full
    };
    key_advance(key, &lim->table, now_ns);
    ret->demand = key_demand(key, now_ns);
    for (int i = 0; i < key->n_meters; i++) {
        ret->used[i] = key->used[i];
        ret->held[i] = (uint64_t)key->held[i];
    }
    memcpy(ret->level, key->level, sizeof ret->level);
    if (walk->full || tells_clock(lim, key, walk->after))
        fill_clock(lim, key, ret);
}

static bool walk_changes(struct weir_limits *lim, struct shard *shard, struct register_walk *walk,
                         uint64_t now_ns, bool (*fn)(void *ctx, const struct reg_news *news), void *ctx)
{
    uint64_t from = walk->at > walk->after ? walk->at : walk->after;
    struct change *c = shard->own.newest;
    struct reg_news news;

    while (c && c->version > from && c->older && c->older->version > from)
        c = c->older;
    for (; c && c->version <= walk->until; c = c->newer) {
        if (c->version <= from)
            continue;
        fill_own(lim, (struct limit_key *)c, walk, now_ns, &news);
        if (!fn(ctx, &news))
            return false;
        walk->at = c->version;
    }
    return true;
}

/* A bucket's keys are told together or again. */
static bool walk_all(struct weir_limits *lim, struct shard *shard, struct register_walk *walk,
                     uint64_t now_ns, bool (*fn)(void *ctx, const struct reg_news *news), void *ctx)
{
    struct reg_news news;

    for (; walk->at < shard->n_buckets; walk->at++)
        for (struct limit_key *key = shard->keys[walk->at]; key; key = key->next) {
            fill_own(lim, key, walk, now_ns, &news);
            if (!fn(ctx, &news))
                return false;
        }
    return true;
}

bool registers_walk_own(struct weir_limits *lim, struct register_walk *walk, uint64_t now_ns,
                        bool (*fn)(void *ctx, const struct reg_news *news), void *ctx)
{
    bool more = true;

    pthread_rwlock_rdlock(&lim->table_lock);
    while (more && walk->shard < SHARDS) {
        struct shard *shard = &lim->shards[walk->shard];
        pthread_mutex_lock(&shard->lock);
        more = (walk->full ? walk_all : walk_changes)(lim, shard, walk, now_ns, fn, ctx);
        pthread_mutex_unlock(&shard->lock);
        if (more) {
            walk->shard++;
            walk->at = 0;
        }
    }
    pthread_rwlock_unlock(&lim->table_lock);
    return more;
}

static void fill_other(const struct weir_limits *lim, const struct reg *reg, uint64_t after,
                       struct reg_news *ret)
{
    const struct limit_key *key = reg->key;

    *ret = (struct reg_news){ .key = reg->key->id,
                              .seq = reg->seq,
                              .origin_ms = reg->origin_ms,
                              .generation = reg->generation,
                              .is_account = reg->key->is_account,
                              .demand = reg->demand };
    memcpy(ret->used, reg->used, sizeof ret->used);
    memcpy(ret->held, reg->held, sizeof ret->held);
    if (reg->born > after && (key->has_numbers || key->told_clock))
        fill_clock(lim, key, ret);
}

void registers_each_other(struct weir_limits *lim, uint64_t after, uint64_t until,
                          bool (*fn)(void *ctx, uint64_t origin, const struct reg_news *news), void *ctx)
{
    struct reg_news news;
    bool more = true;

    for (int i = 0; i < SHARDS && more; i++) {
        struct shard *shard = &lim->shards[i];
        pthread_mutex_lock(&shard->lock);
        struct change *c = shard->others.newest;
        while (c && c->older && c->older->version > after)
            c = c->older;
        for (; c && more && c->version <= until; c = c->newer) {
            const struct reg *reg = (const struct reg *)c;
            if (c->version <= after)
                continue;
            fill_other(lim, reg, after, &news);
            more = fn(ctx, lim->origins[reg->origin].id, &news);
        }
        pthread_mutex_unlock(&shard->lock);
    }
}
