/* gossip.c - ticks the mesh and feeds it what comes.
 *
 * Threads: ticks on the mesh thread, frames on CQ threads. */
#include "router/exchange/gossip.h"

#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "router/exchange/pages.h"
#include "router/mesh/mesh.h"

struct weir_gossip {
    struct weir_gossip_opts opts;
    struct weir_mesh *mesh;
    struct weir_exchange *exchange;
    struct weir_pages *pages;
    /* mesh thread */
    const struct weir_mesh_peer *peers;
    uint64_t numbers[WEIR_MESH_PEERS_MAX];
    int n_peers_before;
    struct weir_mesh_stats counted;
    struct weir_counter *registers_sent, *registers_new;
    struct weir_gauge *keys, *holds, *bytes;
};

/* ---- the mesh ---- */
static weir_err send_to(void *ctx, uint32_t i_peer, struct weir_str bytes)
{
    struct weir_gossip *g = ctx;

    return weir_exchange_send(g->exchange, g->peers[i_peer].id, bytes);
}

static void count(struct weir_gossip *g)
{
    struct weir_mesh_stats mesh;
    struct weir_limits_stats limits;

    weir_mesh_stats(g->mesh, &mesh);
    weir_limits_stats(g->opts.limits, &limits);
    weir_counter_add(g->registers_sent, mesh.registers_sent - g->counted.registers_sent);
    weir_counter_add(g->registers_new, mesh.registers_new - g->counted.registers_new);
    g->counted = mesh;
    weir_gauge_set(g->keys, (int64_t)limits.keys);
    weir_gauge_set(g->holds, (int64_t)limits.holds);
    weir_gauge_set(g->bytes, (int64_t)limits.bytes);
}

static void tick(void *ctx, uint64_t now_ns, const struct weir_mesh_peer *peers, int n_peers)
{
    struct weir_gossip *g = ctx;

    g->peers = peers;
    for (int i = 0; i < n_peers; i++)
        g->numbers[i] = weir_mesh_router(weir_str(peers[i].id), peers[i].incarnation);
    if (n_peers < g->n_peers_before)
        weir_pages_reread(g->pages);
    g->n_peers_before = n_peers;
    weir_limits_sweep(g->opts.limits, now_ns);
    weir_mesh_tick(g->mesh, now_ns, g->numbers, (uint32_t)n_peers, send_to, g);
    count(g);
}

static void receive(void *ctx, const struct weir_mesh_peer *from, struct weir_str bytes, uint64_t now_ns)
{
    struct weir_gossip *g = ctx;
    struct weir_why why = { 0 };

    if (weir_mesh_receive(g->mesh, weir_mesh_router(weir_str(from->id), from->incarnation), bytes, now_ns,
                          &why) != WEIR_OK)
        WEIR_WARN("mesh_bad_state", "peer=%s why=%s", from->id, why.text);
}

static void joined(void *ctx, const struct weir_mesh_peer *peer)
{
    struct weir_gossip *g = ctx;

    weir_mesh_joined(g->mesh, weir_mesh_router(weir_str(peer->id), peer->incarnation));
}

/* ---- lifecycle ---- */
weir_err weir_gossip_open(const struct weir_gossip_opts *opts, struct weir_gossip **ret, struct weir_why *why)
{
    struct weir_gossip *g = weir_alloc0(sizeof *g);

    if (!g)
        return weir_fail(why, WEIR_NOMEM, "mesh: no memory");
    g->opts = *opts;
    g->registers_sent =
        weir_counter("weir_mesh_registers_sent_total", "", "changed keys told to other routers");
    g->registers_new =
        weir_counter("weir_mesh_registers_new_total", "", "changed keys heard from other routers");
    g->keys = weir_gauge("weir_limit_keys", "", "accounts and deployments with meters here");
    g->holds = weir_gauge("weir_limit_holds", "", "reservations of live calls");
    g->bytes = weir_gauge("weir_limit_bytes", "", "memory of meters and reservations");
    struct weir_mesh_opts mesh = { .limits = opts->limits, .interval_ms = opts->interval_ms };
    struct weir_exchange_opts exchange = { .rpc = opts->rpc,
                                           .router = opts->router,
                                           .incarnation = opts->incarnation,
                                           .prefix = opts->prefix,
                                           .listen = opts->listen,
                                           .tls = opts->tls,
                                           .interval_ms = opts->interval_ms,
                                           .ops = { tick, receive, joined },
                                           .ctx = g };
    struct weir_pages_opts pages = {
        .limits = opts->limits, .router = opts->router, .prefix = opts->prefix, .source = opts->source
    };
    weir_err err = weir_mesh_open(&mesh, &g->mesh, why);
    if (err == WEIR_OK)
        err = weir_pages_open(&pages, &g->pages, why);
    if (err == WEIR_OK)
        err = weir_exchange_open(&exchange, &g->exchange, why);
    if (err != WEIR_OK) {
        weir_gossip_close(g);
        return err;
    }
    *ret = g;
    return WEIR_OK;
}

weir_err weir_gossip_start(struct weir_gossip *g, struct weir_why *why)
{
    weir_err err = weir_pages_start(g->pages, why);

    return err == WEIR_OK ? weir_exchange_start(g->exchange, why) : err;
}

void weir_gossip_close(struct weir_gossip *g)
{
    if (!g)
        return;
    weir_exchange_close(g->exchange);
    weir_pages_close(g->pages);
    weir_mesh_close(g->mesh);
    weir_free(g);
}

void weir_gossip_on_snapshot(struct weir_gossip *g, const struct weir_disc_snapshot *snap)
{
    weir_exchange_on_snapshot(g->exchange, snap);
}

int weir_gossip_port(const struct weir_gossip *g)
{
    return weir_exchange_port(g->exchange);
}

struct weir_exchange *weir_gossip_exchange(struct weir_gossip *g)
{
    return g->exchange;
}
