/* mesh.c - whom a router tells what, and when.
 *
 * Each peer has a pass over the registers that changed since the pass before (limits_int.h, struct register_walk). Peers whose
 * passes stand at the same place get the same bytes, made once. */
#include "router/mesh/mesh.h"

#include <pthread.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "router/mesh/frame.h"

#define INTERVAL_MS 200
#define BYTES_S (8u << 20)
#define DIRECT_MAX 32
#define FANOUT 8
#define FRAME_MIN 512
#define HOT_ROUNDS 3   /* epidemic: a change is told on for so long */
#define FULL_ROUNDS 25 /* epidemic: one peer is told all, so often */

struct peer {
    uint64_t id;
    struct register_walk walk;
    bool joined; /* it is told all, next */
};

struct weir_mesh {
    struct weir_mesh_opts opts;
    uint64_t self;
    pthread_mutex_t lock; /* peers, round, stats */
    struct peer *peers;   /* sorted by id */
    uint32_t n_peers;
    uint64_t round, seq, random;
    uint64_t hot[HOT_ROUNDS]; /* versions at the last rounds */
    uint64_t before[2];       /* at the tick before, and the one before that */
    struct frame_writer frame;
    struct weir_mesh_stats stats;
};

uint64_t weir_mesh_router(struct weir_str id, uint64_t incarnation)
{
    return weir_hash_mix(weir_hash64(id.ptr, id.len, 0), incarnation);
}

weir_err weir_mesh_open(const struct weir_mesh_opts *opts, struct weir_mesh **ret, struct weir_why *why)
{
    struct weir_mesh *mesh = weir_alloc0(sizeof *mesh);

    if (!mesh)
        return weir_fail(why, WEIR_NOMEM, "no memory for the mesh");
    mesh->opts = *opts;
    mesh->opts.interval_ms = opts->interval_ms ? opts->interval_ms : INTERVAL_MS;
    mesh->opts.bytes_s = opts->bytes_s ? opts->bytes_s : BYTES_S;
    mesh->opts.direct_max = opts->direct_max ? opts->direct_max : DIRECT_MAX;
    mesh->opts.fanout = opts->fanout ? opts->fanout : FANOUT;
    mesh->self = opts->limits->opts.self;
    mesh->random = mesh->self;
    pthread_mutex_init(&mesh->lock, NULL);
    frame_init(&mesh->frame);
    *ret = mesh;
    return WEIR_OK;
}

void weir_mesh_close(struct weir_mesh *mesh)
{
    if (!mesh)
        return;
    frame_release(&mesh->frame);
    pthread_mutex_destroy(&mesh->lock);
    weir_free(mesh->peers);
    weir_free(mesh);
}

/* ---- peers ---- */
static struct peer *find_peer(struct weir_mesh *mesh, uint64_t id)
{
    for (uint32_t i = 0; i < mesh->n_peers; i++)
        if (mesh->peers[i].id == id)
            return &mesh->peers[i];
    return NULL;
}

void weir_mesh_joined(struct weir_mesh *mesh, uint64_t id)
{
    pthread_mutex_lock(&mesh->lock);
    struct peer *peer = find_peer(mesh, id);
    if (peer)
        peer->joined = true;
    pthread_mutex_unlock(&mesh->lock);
}

static bool same_members(const struct weir_mesh *mesh, const uint64_t *ids, uint32_t n)
{
    if (n != mesh->n_peers)
        return false;
    for (uint32_t i = 0; i < n; i++)
        if (mesh->peers[i].id != ids[i])
            return false;
    return true;
}

/* In the order given, so that a peer's place here is its place there. */
static void set_members(struct weir_mesh *mesh, const uint64_t *ids, uint32_t n, uint64_t now_ns)
{
    struct peer *peers;

    if (same_members(mesh, ids, n))
        return;
    peers = weir_calloc(n + 1, sizeof *peers);
    if (!peers)
        return; /* next time */
    for (uint32_t i = 0; i < n; i++) {
        const struct peer *old = find_peer(mesh, ids[i]);
        peers[i] = old ? *old : (struct peer){ .id = ids[i], .joined = true };
    }
    weir_free(mesh->peers);
    mesh->peers = peers;
    mesh->n_peers = n;
    limits_set_live(mesh->opts.limits, ids, n, now_ns);
}

/* ---- telling ---- */
struct own_ctx {
    struct weir_mesh *mesh;
    uint64_t origin_ms; /* the tick's, for all: one section */
};

static bool tell_own(void *arg, const struct reg_news *news)
{
    struct own_ctx *ctx = arg;
    struct reg_news mine = *news;

    mine.seq = ctx->mesh->seq;
    mine.origin_ms = ctx->origin_ms;
    return frame_add(&ctx->mesh->frame, ctx->mesh->self, &mine);
}

static bool tell_other(void *arg, uint64_t origin, const struct reg_news *news)
{
    struct weir_mesh *mesh = arg;
    return frame_add(&mesh->frame, origin, news);
}

/* The frame for a peer whose pass stands at *walk, which moves on; empty: nothing to tell. */
static struct weir_str make_frame(struct weir_mesh *mesh, struct register_walk *walk, size_t max,
                                  bool pass_on, uint64_t now_ns)
{
    struct own_ctx ctx = { mesh, now_ns / 1000000 };
    const struct register_walk before = *walk;

    frame_begin(&mesh->frame, mesh->round, before.full, max);
    if (registers_walk_own(mesh->opts.limits, walk, now_ns, tell_own, &ctx))
        *walk = (struct register_walk){ .after = before.until };
    if (pass_on && !before.full) /* registers of a full frame have levels, and others' are not known */
        registers_each_other(mesh->opts.limits, before.after, before.until, tell_other, mesh);
    struct weir_str bytes = frame_end(&mesh->frame);
    if (bytes.len == 0) /* no memory: it is all told again */
        *walk = before;
    return mesh->frame.n_all > 0 ? bytes : (struct weir_str){ "", 0 };
}

static void begin_pass(struct weir_mesh *mesh, struct peer *peer, bool epidemic)
{
    uint64_t version = limits_version(mesh->opts.limits);

    if (peer->joined) {
        peer->walk = (struct register_walk){ .until = version, .full = true };
        peer->joined = false;
    } else if (peer->walk.until == 0) { /* the pass before is over */
        uint64_t hot = mesh->hot[mesh->round % HOT_ROUNDS];
        peer->walk.until = version;
        if (epidemic && peer->walk.after < hot)
            peer->walk.after = hot;
    }
}

struct round { /* what was made for the peer before may serve the next */
    struct register_walk at, then;
    bool made;
    struct weir_str bytes;
    size_t max;
};

static void tell(struct weir_mesh *mesh, uint32_t i, struct round *round, bool epidemic, uint64_t now_ns,
                 weir_err (*send)(void *ctx, uint32_t i_peer, struct weir_str bytes), void *ctx)
{
    struct peer *peer = &mesh->peers[i];

    begin_pass(mesh, peer, epidemic);
    if (!round->made || memcmp(&round->at, &peer->walk, sizeof round->at) != 0) {
        round->at = round->then = peer->walk;
        round->bytes = make_frame(mesh, &round->then, round->max, epidemic, now_ns);
        round->made = true;
    }
    if (round->bytes.len == 0) { /* [G1] */
        peer->walk = round->then;
        return;
    }
    if (send(ctx, i, round->bytes) != WEIR_OK) {
        mesh->stats.frames_held++;
        if (peer->walk.shard == 0 && peer->walk.at == 0)
            peer->walk.until = 0; /* then with what has changed meanwhile */
        return;
    }
    peer->walk = round->then;
    mesh->stats.frames_sent++;
    mesh->stats.bytes_sent += round->bytes.len;
    mesh->stats.registers_sent += mesh->frame.n_all;
}

static uint64_t draw(struct weir_mesh *mesh)
{
    mesh->random = weir_hash_mix(mesh->random, mesh->round);
    return mesh->random;
}

void weir_mesh_tick(struct weir_mesh *mesh, uint64_t now_ns, const uint64_t *peers, uint32_t n,
                    weir_err (*send)(void *ctx, uint32_t i_peer, struct weir_str bytes), void *ctx)
{
    bool epidemic = n > mesh->opts.direct_max;
    uint32_t n_told = epidemic ? mesh->opts.fanout : n;

    pthread_mutex_lock(&mesh->lock);
    set_members(mesh, peers, n, now_ns);
    mesh->round++; /* [G4] */
    mesh->seq++;
    mesh->stats.rounds++;
    limits_set_round(mesh->opts.limits, mesh->round);
    registers_add_tails(mesh->opts.limits, mesh->before[1], mesh->before[0]);
    mesh->before[1] = mesh->before[0];
    mesh->before[0] = limits_version(mesh->opts.limits);
    struct round round = { .max = n_told ? mesh->opts.bytes_s * mesh->opts.interval_ms / 1000 / n_told : 0 };
    round.max = round.max < FRAME_MIN ? FRAME_MIN : round.max;
    round.max = round.max > WEIR_MESH_FRAME_BYTES_MAX ? WEIR_MESH_FRAME_BYTES_MAX : round.max;
    if (mesh->n_peers != n) /* there was no memory for them: nobody is told */
        n_told = 0;
    if (epidemic && n_told && mesh->round % FULL_ROUNDS == mesh->self % FULL_ROUNDS)
        mesh->peers[draw(mesh) % n].joined = true;
    for (uint32_t k = 0; k < n_told; k++)
        tell(mesh, epidemic ? (uint32_t)(draw(mesh) % n) : k, &round, epidemic, now_ns, send, ctx);
    mesh->hot[mesh->round % HOT_ROUNDS] = limits_version(mesh->opts.limits);
    pthread_mutex_unlock(&mesh->lock);
}

/* ---- hearing ---- */
static bool is_whole(struct weir_str bytes)
{
    struct frame_reader r;
    struct reg_news news;

    if (!frame_open(&r, bytes))
        return false;
    while (frame_next(&r, &news))
        ;
    return !r.bad;
}

weir_err weir_mesh_receive(struct weir_mesh *mesh, uint64_t from, struct weir_str bytes, uint64_t now_ns,
                           struct weir_why *why)
{
    struct frame_reader r;
    struct reg_news news;
    uint64_t n = 0, n_new = 0;
    bool good = bytes.len <= WEIR_MESH_FRAME_BYTES_MAX && is_whole(bytes); /* [G3] */

    if (good && frame_open(&r, bytes))
        for (; frame_next(&r, &news); n++)
            n_new += register_apply(mesh->opts.limits, r.origin, &news, now_ns);
    pthread_mutex_lock(&mesh->lock);
    mesh->stats.frames_received++;
    mesh->stats.frames_bad += !good;
    mesh->stats.registers_received += n;
    mesh->stats.registers_new += n_new;
    if (good && r.round > mesh->round && r.round - mesh->round < 1ull << 32) {
        mesh->round = r.round; /* [G4] */
        limits_set_round(mesh->opts.limits, r.round);
    }
    pthread_mutex_unlock(&mesh->lock);
    if (!good)
        return weir_fail(why, WEIR_CORRUPT, "a malformed frame of %zu bytes from router %016llx", bytes.len,
                         (unsigned long long)from);
    return WEIR_OK;
}

void weir_mesh_stats(struct weir_mesh *mesh, struct weir_mesh_stats *ret)
{
    pthread_mutex_lock(&mesh->lock);
    *ret = mesh->stats;
    pthread_mutex_unlock(&mesh->lock);
}
