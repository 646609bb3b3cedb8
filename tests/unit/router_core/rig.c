/* rig.c - see rig.h. */
#include "tests/unit/router_core/rig.h"

#include "tests/unit/router_core/cm.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "router/fabric/fleet.h"
#include "router/route/affinity.h"
#include "tests/unit/router_core/requests.h"

#define PATIENCE (30 * WEIR_S)

struct weir_stub_opts rig_stub_opts(struct rig *rig, int i)
{
    return (struct weir_stub_opts){ .rpc = rig->rpc, .id = rig->id[i], .model = RIG_MODEL };
}

void rig_init(struct rig *rig, int n_stubs)
{
    struct weir_why why;

    memset(rig, 0, sizeof *rig);
    assert_int_equal(weir_rpc_open(/* n_cq_threads= */ 2, &rig->rpc, &why), WEIR_OK);
    rig->n_stubs = n_stubs;
    for (int i = 0; i < n_stubs; i++) {
        snprintf(rig->id[i], sizeof rig->id[i], "replica-%d", i);
        struct weir_stub_opts opts = rig_stub_opts(rig, i);
        if (weir_stub_open(&opts, &rig->stubs[i], &why) != WEIR_OK)
            fail_msg("%s", why.text);
        snprintf(rig->address[i], sizeof rig->address[i], "127.0.0.1:%d", weir_stub_port(rig->stubs[i]));
        rig->records[i] = (struct weir_replica_record){
            .id = weir_str(rig->id[i]),
            .model = weir_str(RIG_MODEL),
            .grpc = weir_str(rig->address[i]),
            .admin = weir_str("127.0.0.1:1"),
            .incarnation = 1,
            .started_s = 1000 + (uint64_t)i,
        };
    }
    rig->fleet_opts =
        (struct weir_fleet_opts){ .rpc = rig->rpc, .router = "router-1", .incarnation = 0x1122 };
    weir_callset_opts_init(&rig->call_opts);
}

void rig_set_view(struct rig *rig)
{
    assert_int_equal(weir_fleet_set_view(rig->fleet, rig->records, (size_t)rig->n_stubs), WEIR_OK);
}

void rig_start(struct rig *rig)
{
    struct weir_why why;

    assert_int_equal(weir_fleet_open(&rig->fleet_opts, &rig->fleet, &why), WEIR_OK);
    assert_int_equal(weir_loop_open(/* index= */ 0, &rig->loop, &why), WEIR_OK);
    assert_int_equal(weir_callset_open(rig->loop, rig->fleet, &rig->call_opts, &rig->set, &why), WEIR_OK);
    rig_set_view(rig);
    rig_until_usable(rig, (uint32_t)rig->n_stubs);
}

void rig_stop(struct rig *rig)
{
    weir_callset_close(rig->set);
    weir_fleet_close(rig->fleet);
    for (int i = 0; i < RIG_STUBS_MAX; i++)
        weir_stub_close(rig->stubs[i]);
    weir_rpc_close(rig->rpc);
    weir_loop_close(rig->loop);
}

void rig_plan(struct rig *rig, const struct weir_stub_plan *plan)
{
    for (int i = 0; i < rig->n_stubs; i++)
        if (rig->stubs[i])
            weir_stub_set_plan(rig->stubs[i], plan);
}

void rig_until(struct rig *rig, bool (*done)(struct rig *rig, void *ctx), void *ctx)
{
    uint64_t end_ns = weir_now_ns() + PATIENCE;

    while (!done(rig, ctx)) {
        if (weir_now_ns() > end_ns)
            fail_msg("nothing came of it in half a minute");
        weir_loop_turn(rig->loop, /* timeout_ms= */ 5);
    }
}

void rig_turn_ms(struct rig *rig, uint32_t ms)
{
    uint64_t end_ns = weir_now_ns() + ms * WEIR_MS;

    while (weir_now_ns() < end_ns)
        weir_loop_turn(rig->loop, /* timeout_ms= */ 5);
}

static bool has_usable(struct rig *rig, void *ctx)
{
    return weir_fleet_n_usable(rig->fleet) == *(uint32_t *)ctx;
}

void rig_until_usable(struct rig *rig, uint32_t n)
{
    rig_until(rig, has_usable, &n);
}

struct weir_stub_counts rig_counts(struct rig *rig, int i)
{
    struct weir_stub_counts counts;

    weir_stub_counts(rig->stubs[i], &counts);
    return counts;
}

const char *rig_session_for(struct rig *rig, int i, char buf[32])
{
    struct weir_ring_member members[RIG_STUBS_MAX];
    struct weir_ring ring = { .members = members, .n = (uint32_t)rig->n_stubs };

    for (int k = 0; k < rig->n_stubs; k++)
        members[k] = (struct weir_ring_member){ .hash = weir_ring_hash(weir_str(rig->id[k])) };
    for (int n = 0;; n++) {
        uint32_t first;
        snprintf(buf, 32, "session-%d", n);
        struct weir_request *req = rig_request(rig, "x");
        req->session = weir_str(buf);
        weir_ring_pick(&ring, weir_affinity_key(req), NULL, 1, &first);
        weir_request_close(req);
        if (first == (uint32_t)i)
            return buf;
    }
}

/* ---- clients ---- */
struct weir_request *rig_request(struct rig *rig, const char *content)
{
    struct weir_request *req = req_open(RIG_MODEL);

    req_add(req, "user", content);
    (void)rig;
    req->arrived_ns = weir_now_ns();
    req->created_s = 1700000000;
    return req;
}

static void on_started(void *ctx, const struct weir_call_started *started)
{
    struct client *client = ctx;

    assert_false(client->over);
    assert_int_equal(client->n_started + client->n_delta, 0);
    client->n_started++;
    client->started = *started;
    snprintf(client->replica, sizeof client->replica, "%.*s", WEIR_STR_FMT(started->replica));
}

static bool on_delta(void *ctx, const Weir__Fabric__V1__Delta *delta)
{
    struct client *client = ctx;

    assert_false(client->over);
    assert_int_equal(client->n_started, 1);
    client->n_delta++;
    client->text_bytes += delta->text.len;
    client->n_ids += (uint32_t)delta->n_ids;
    client->n_finished += delta->finish != WEIR__V1__FINISH_REASON__FINISH_NONE;
    if (client->cancel_after && client->n_delta == client->cancel_after) {
        weir_call_cancel(client->call);
        client->over = true;
        return true;
    }
    if (client->slow_after && client->n_delta == client->slow_after) {
        client->over = true;
        return false;
    }
    return true;
}

static void on_done(void *ctx, const struct weir_call_done *done)
{
    struct client *client = ctx;

    assert_false(client->over);
    assert_int_equal(client->n_started, 1);
    client->n_done++;
    client->done = *done;
    client->over = true;
}

static void on_failed(void *ctx, weir_err err, const struct weir_why *why, uint32_t retry_after_ms)
{
    struct client *client = ctx;

    assert_false(client->over);
    client->n_failed++;
    client->err = err;
    client->why = *why;
    client->retry_after_ms = retry_after_ms;
    client->over = true;
}

static const struct weir_call_sink sink = {
    .started = on_started, .delta = on_delta, .done = on_done, .failed = on_failed
};

void client_start(struct client *client, struct rig *rig, struct weir_request *req)
{
    int slow_after = client->slow_after, cancel_after = client->cancel_after;

    *client = (struct client){ .rig = rig, .slow_after = slow_after, .cancel_after = cancel_after };
    weir_call_start(rig->set, req, &sink, client, &client->call);
    assert_true(client->over == !client->call);
}

static bool is_over(struct rig *rig, void *ctx)
{
    (void)rig;
    return ((struct client *)ctx)->over;
}

static bool has_delta(struct rig *rig, void *ctx)
{
    (void)rig;
    return ((struct client *)ctx)->n_delta > 0;
}

void client_wait(struct client *client)
{
    rig_until(client->rig, is_over, client);
}

void client_wait_delta(struct client *client)
{
    rig_until(client->rig, has_delta, client);
}
