/* Calls end to end: sink, machine, routing, fabric, real gRPC, a stub replica. */
#include "tests/unit/router_core/cm.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "router/call/gate.h"
#include "router/call/shedding.h"
#include "router/tenancy/keys.h"
#include "tests/unit/router_core/requests.h"
#include "tests/unit/router_core/rig.h"

#define MS 1000000ull

static struct weir_stub_plan slow_plan(uint32_t n_deltas)
{
    struct weir_stub_plan plan;

    weir_stub_plan_init(&plan);
    plan.gap_ns = 10 * MS;
    plan.n_deltas = n_deltas;
    return plan;
}

static struct weir_request *to(struct rig *rig, const char *session)
{
    struct weir_request *req = rig_request(rig, "hello");

    req->session = (struct weir_str){ req_text(req, session), strlen(session) };
    return req;
}

static bool nothing_lives(struct rig *rig, void *ctx)
{
    (void)ctx;
    for (int i = 0; i < rig->n_stubs; i++)
        if (rig->stubs[i] && rig_counts(rig, i).live > 0)
            return false;
    return true;
}

static void until_nothing_lives(struct rig *rig)
{
    rig_until(rig, nothing_lives, NULL);
}

static uint64_t metric(const char *name, const char *labels)
{
    return weir_counter_get(weir_counter(name, labels, ""));
}

static int64_t shedding_now(void)
{
    return weir_gauge_get(weir_gauge("weir_shedding_deployments", "", ""));
}

/* ---- good calls ---- */
static void test_a_stream_from_start_to_done(void **state)
{
    struct rig rig;
    struct client client = { .n_done = 0 };
    struct weir_stub_plan plan = slow_plan(5);
    struct weir_stub_last last;

    (void)state;
    rig_init(&rig, 1);
    rig_start(&rig);
    plan.tokens_per_delta = 3;
    plan.text = "ab";
    plan.cached_tokens = 2;
    rig_plan(&rig, &plan);
    struct weir_request *req = rig_request(&rig, "hello");
    req->msg->has_seed_case = WEIR__V1__GENERATE_REQUEST__HAS_SEED_SEED;
    req->msg->seed = 0xffffffffffffffffull;
    req->priority = 2;
    size_t len = weir__v1__generate_request__get_packed_size(req->msg);
    uint8_t *packed = weir_alloc(len);
    weir__v1__generate_request__pack(req->msg, packed);
    uint64_t hash = weir_hash64(packed, len, 0);
    weir_free(packed);
    client_start(&client, &rig, req);
    assert_non_null(client.call);
    assert_int_equal(weir_callset_live(rig.set), 1);
    client_wait(&client);

    assert_int_equal(client.n_done, 1);
    assert_int_equal(client.n_started, 1);
    assert_int_equal(client.n_delta, 5);
    assert_int_equal(client.n_ids, 15);
    assert_int_equal(client.text_bytes, 30);
    assert_int_equal(client.n_finished, 1);
    assert_string_equal(client.replica, "replica-0");
    assert_int_equal(client.started.cached_tokens, 2);
    assert_int_equal(client.started.prompt_tokens, len / 4 + 1);
    assert_true(client.started.first_token_ns >= client.started.queue_ns);
    assert_int_equal(client.done.completion_tokens, 15);
    assert_int_equal(client.done.prefill_ns, 2000000);
    assert_int_equal(weir_callset_live(rig.set), 0);

    weir_stub_last(rig.stubs[0], &last);
    assert_int_equal(last.data_hash, hash); /* byte for byte */
    assert_int_equal(last.seed, 0xffffffffffffffffull);
    assert_int_equal(last.now_unix, 1700000000);
    assert_int_equal(last.priority, 2);
    assert_int_equal(last.attempt, 0);
    assert_string_equal(last.account, "acme");
    assert_int_equal(last.call_id[6], 0x11); /* the incarnation, then the sequence */
    assert_int_equal(last.call_id[7], 0x22);
    assert_int_equal(last.call_id[15], 1);
    rig_stop(&rig);
}

static void test_a_whole_answer_in_one_frame(void **state)
{
    struct rig rig;
    struct client client = { .n_done = 0 };

    (void)state;
    rig_init(&rig, 1);
    rig_start(&rig);
    client_start(&client, &rig, rig_request(&rig, "hello"));
    client_wait(&client);
    assert_int_equal(client.n_done, 1);
    assert_int_equal(client.n_delta, 8);
    rig_stop(&rig);
}

static void test_many_choices(void **state)
{
    struct rig rig;
    struct client client = { .n_done = 0 };
    struct weir_stub_plan plan = slow_plan(4);

    (void)state;
    rig_init(&rig, 1);
    rig_start(&rig);
    plan.decode = true;
    rig_plan(&rig, &plan);
    struct weir_request *req = rig_request(&rig, "hello");
    req->msg->n = 128;
    client_start(&client, &rig, req);
    client_wait(&client);
    assert_int_equal(client.n_done, 1);
    assert_int_equal(client.n_finished, 128);
    assert_int_equal(client.n_delta, 4 * 128);
    rig_stop(&rig);
}

/* One large request and, right behind it, eight small ones. */
static void send_large_and_small(struct rig *rig, const char *text)
{
    struct client large = { .n_done = 0 }, small[8];

    client_start(&large, rig, rig_request(rig, text));
    for (int i = 0; i < 8; i++) {
        memset(&small[i], 0, sizeof small[i]);
        client_start(&small[i], rig, rig_request(rig, "hello"));
    }
    client_wait(&large);
    for (int i = 0; i < 8; i++)
        client_wait(&small[i]);
    assert_int_equal(large.n_done, 1);
}

/* Whether a small one meets the large one under way is up to the threads, so it may take several tries; were requests sent
 * whole, it would never happen. test_outbox.c has the order itself. */
static void test_a_megabyte_goes_in_pieces_and_holds_nobody_up(void **state)
{
    struct weir_stub_counts counts = { 0 };
    struct rig rig;
    char *text = malloc((3 << 20) + 1);

    (void)state;
    memset(text, 'x', 3 << 20);
    text[3 << 20] = '\0';
    rig_init(&rig, 1);
    rig_start(&rig);
    for (int i = 0; i < 50 && counts.interleaved == 0; i++) {
        send_large_and_small(&rig, text);
        counts = rig_counts(&rig, 0);
    }
    assert_int_equal(counts.chunk_bytes_max, 64 << 10);
    assert_true(counts.request_bytes > 3 << 20);
    assert_true(counts.interleaved > 0);
    assert_int_equal(counts.malformed, 0);
    free(text);
    rig_stop(&rig);
}

/* The salt is the account's and the isolation key's; no client can name another's. */
static void test_salts_and_minted_seeds(void **state)
{
    static const char *const accounts[][2] = {
        { "a", "" }, { "a", "" }, { "b", "" }, { "a", "x" }, { "ax", "" }
    };
    struct weir_stub_last last[5];
    struct rig rig;

    (void)state;
    rig_init(&rig, 1);
    rig_start(&rig);
    for (int i = 0; i < 5; i++) {
        struct client client = { .n_done = 0 };
        struct weir_request *req = rig_request(&rig, "hello");
        req->account = weir_str(accounts[i][0]);
        req->isolation = weir_str(accounts[i][1]);
        client_start(&client, &rig, req);
        client_wait(&client);
        weir_stub_last(rig.stubs[0], &last[i]);
    }
    for (int i = 0; i < 5; i++)
        for (int k = 0; k < i; k++) {
            bool same = memcmp(last[i].cache_salt, last[k].cache_salt, 32) == 0;
            assert_int_equal(same, i == 1 && k == 0);
            assert_true(last[i].seed != last[k].seed);
            assert_true(memcmp(last[i].call_id, last[k].call_id, 16) > 0); /* ids sort by time */
        }
    rig_stop(&rig);
}

static void test_a_session_stays_with_its_replica(void **state)
{
    struct rig rig;
    char session[32];

    (void)state;
    rig_init(&rig, 3);
    rig_start(&rig);
    for (int i = 0; i < 3; i++) {
        rig_session_for(&rig, i, session);
        for (int k = 0; k < 5; k++) {
            struct client client = { .n_done = 0 };
            client_start(&client, &rig, to(&rig, session));
            client_wait(&client);
            assert_string_equal(client.replica, rig.id[i]);
        }
    }
    rig_stop(&rig);
}

/* ---- cancelling ---- */
static void test_a_cancel_reaches_the_replica_and_nothing_more_is_said(void **state)
{
    struct rig rig;
    struct client client = { .n_done = 0 };
    struct weir_stub_plan plan = slow_plan(100000);

    (void)state;
    rig_init(&rig, 1);
    rig_start(&rig);
    rig_plan(&rig, &plan);
    client_start(&client, &rig, rig_request(&rig, "hello"));
    client_wait_delta(&client);
    weir_call_cancel(client.call);
    client.over = true; /* its sink fails the test from now on */
    assert_int_equal(weir_callset_live(rig.set), 0);
    until_nothing_lives(&rig);
    assert_int_equal(rig_counts(&rig, 0).cancels, 1);
    rig_turn_ms(&rig, 50);
    assert_int_equal(client.n_done + client.n_failed, 0);
    rig_stop(&rig);
}

static void test_a_cancel_before_the_first_token(void **state)
{
    struct rig rig;
    struct client client = { .n_done = 0 };
    struct weir_stub_plan plan = slow_plan(1);

    (void)state;
    rig_init(&rig, 1);
    rig_start(&rig);
    plan.mode = WEIR_STUB_STALL;
    rig_plan(&rig, &plan);
    client_start(&client, &rig, rig_request(&rig, "hello"));
    rig_turn_ms(&rig, 50);
    weir_call_cancel(client.call);
    client.over = true;
    until_nothing_lives(&rig);
    assert_int_equal(client.n_started, 0);
    rig_stop(&rig);
}

static void test_a_slow_client_is_cancelled_others_are_not(void **state)
{
    struct rig rig;
    struct client slow = { .slow_after = 3 }, good = { .n_done = 0 };
    struct weir_stub_plan plan = slow_plan(40);
    uint64_t before = metric("weir_calls_total", "outcome=\"slow\"");

    (void)state;
    rig_init(&rig, 1);
    rig_start(&rig);
    rig_plan(&rig, &plan);
    client_start(&slow, &rig, rig_request(&rig, "hello"));
    client_start(&good, &rig, rig_request(&rig, "hello"));
    client_wait(&good);
    until_nothing_lives(&rig);
    assert_int_equal(slow.n_delta, 3);
    assert_int_equal(slow.n_done + slow.n_failed, 0);
    assert_int_equal(good.n_done, 1);
    assert_int_equal(good.n_delta, 40);
    assert_int_equal(rig_counts(&rig, 0).cancels, 1);
    assert_int_equal(metric("weir_calls_total", "outcome=\"slow\"") - before, 1);
    rig_stop(&rig);
}

/* [C2] */
static void test_a_call_may_cancel_itself_from_its_sink(void **state)
{
    struct rig rig;
    struct client client = { .cancel_after = 1 };
    struct weir_stub_plan plan = slow_plan(40);

    (void)state;
    rig_init(&rig, 1);
    rig_start(&rig);
    rig_plan(&rig, &plan);
    client_start(&client, &rig, rig_request(&rig, "hello"));
    client_wait_delta(&client);
    until_nothing_lives(&rig);
    assert_int_equal(client.n_delta, 1);
    assert_int_equal(weir_callset_live(rig.set), 0);
    rig_stop(&rig);
}

/* ---- refusals ---- */
static void test_the_replica_names_the_fault(void **state)
{
    struct rig rig;
    struct client client = { .n_done = 0 };
    struct weir_stub_plan plan = slow_plan(1);

    (void)state;
    rig_init(&rig, 2);
    rig_start(&rig);
    plan.mode = WEIR_STUB_INVALID;
    plan.code = "CONTEXT";
    plan.message = "the prompt has 9000 tokens, the context 8192";
    plan.param = "messages";
    rig_plan(&rig, &plan);
    client_start(&client, &rig, rig_request(&rig, "hello"));
    client_wait(&client);
    assert_int_equal(client.err, WEIR_CONTEXT);
    assert_string_equal(client.why.text, plan.message);
    assert_string_equal(client.why.param, "messages");
    assert_int_equal(client.n_started, 0);
    assert_int_equal(rig_counts(&rig, 0).begins + rig_counts(&rig, 1).begins, 1); /* not tried elsewhere */
    rig_stop(&rig);
}

static void test_an_unknown_model_is_named(void **state)
{
    struct rig rig;
    struct client client = { .n_done = 0 };

    (void)state;
    rig_init(&rig, 1);
    rig_start(&rig);
    struct weir_request *req = rig_request(&rig, "hello");
    req->msg->model = req_text(req, "no/such");
    client_start(&client, &rig, req);
    assert_null(client.call); /* refused before start returned */
    assert_int_equal(client.err, WEIR_NOMODEL);
    assert_string_equal(client.why.param, "model");
    assert_int_equal(weir_callset_live(rig.set), 0);
    rig_stop(&rig);
}

static void test_a_rejecting_replica_is_left_for_the_next(void **state)
{
    struct rig rig;
    struct client client = { .n_done = 0 };
    struct weir_stub_plan plan = slow_plan(1);
    struct weir_stub_last last;
    char session[32];
    uint64_t before = metric("weir_call_retries_total", "reason=\"rejected\"");

    (void)state;
    rig_init(&rig, 2);
    rig_start(&rig);
    plan.mode = WEIR_STUB_REJECT;
    weir_stub_set_plan(rig.stubs[0], &plan);
    client_start(&client, &rig, to(&rig, rig_session_for(&rig, 0, session)));
    client_wait(&client);
    assert_int_equal(client.n_done, 1);
    assert_string_equal(client.replica, "replica-1");
    weir_stub_last(rig.stubs[1], &last);
    assert_int_equal(last.attempt, 1);
    assert_int_equal(metric("weir_call_retries_total", "reason=\"rejected\"") - before, 1);
    rig_stop(&rig);
}

static void test_saturation_is_a_503_with_advice(void **state)
{
    struct rig rig;
    struct client client = { .n_done = 0 };
    struct weir_stub_plan plan = slow_plan(1);
    struct weir_limits_opts limits_opts = { .self = 7 };
    struct weir_limits *limits;
    struct weir_gate gate = { .legacy = false };

    (void)state;
    weir_limit_table_init(&limits_opts.table);
    assert_int_equal(weir_limits_open(&limits_opts, weir_now_ns(), &limits, NULL), WEIR_OK);
    assert_int_equal(weir_shedding_open(limits, &gate.shedding, NULL), WEIR_OK);
    assert_int_equal(weir_keys_open("/weir/", &gate.keys, NULL), WEIR_OK);
    rig_init(&rig, 3);
    rig.call_opts.gate = &gate;
    rig_start(&rig);
    plan.mode = WEIR_STUB_REJECT; /* all of them */
    rig_plan(&rig, &plan);
    client_start(&client, &rig, rig_request(&rig, "hello"));
    client_wait(&client);
    assert_int_equal(client.err, WEIR_OVERLOADED);
    assert_in_range(client.retry_after_ms, 1, 60000);
    assert_int_equal(rig_counts(&rig, 0).begins + rig_counts(&rig, 1).begins + rig_counts(&rig, 2).begins, 3);
    assert_int_equal(shedding_now(), 1); /* and ramp clocks stand */
    weir_shedding_sweep(gate.shedding, weir_now_ns() + 2 * WEIR_SHEDDING_QUIET_NS);
    assert_int_equal(shedding_now(), 0);
    rig_stop(&rig);
    weir_keys_close(gate.keys);
    weir_shedding_close(gate.shedding);
    weir_limits_close(limits);
}

static bool waits_long(struct rig *rig, void *ctx)
{
    struct weir_buf buf;

    (void)ctx;
    weir_buf_init(&buf, 0);
    weir_fleet_describe(rig->fleet, &buf);
    bool seen = strstr(weir_buf_cstr(&buf), "\"predicted_wait_ms\":10000") != NULL;
    weir_buf_release(&buf);
    return seen;
}

static void test_a_predicted_wait_sheds_the_lower_classes(void **state)
{
    struct rig rig;
    struct client batch = { .n_done = 0 }, standard = { .n_done = 0 };
    uint64_t before = metric("weir_shed_total", "reason=\"saturated\"");

    (void)state;
    rig_init(&rig, 1);
    rig_start(&rig);
    weir_stub_set_load(rig.stubs[0],
                       &(struct weir_stub_load){ .predicted_wait_ms = 10000, .prefill_tokens_s = 1000 });
    rig_until(&rig, waits_long, NULL);
    struct weir_request *req = rig_request(&rig, "hello");
    req->priority = 3;
    client_start(&batch, &rig, req);
    client_start(&standard, &rig, rig_request(&rig, "hello"));
    assert_int_equal(batch.err, WEIR_OVERLOADED);
    assert_in_range(batch.retry_after_ms, 6000, 10000); /* 10 s - 2 s, +-25 % */
    assert_int_equal(metric("weir_shed_total", "reason=\"saturated\"") - before, 1);
    client_wait(&standard);
    assert_int_equal(standard.n_done, 1);
    rig_stop(&rig);
}

static void test_a_full_set_refuses(void **state)
{
    struct rig rig;
    struct client clients[3] = { { .n_done = 0 } };
    struct weir_stub_plan plan = slow_plan(10);

    (void)state;
    rig_init(&rig, 1);
    rig.call_opts.calls_max = 2;
    rig_start(&rig);
    rig_plan(&rig, &plan);
    for (int i = 0; i < 3; i++)
        client_start(&clients[i], &rig, rig_request(&rig, "hello"));
    assert_int_equal(clients[2].err, WEIR_OVERLOADED);
    assert_true(clients[2].retry_after_ms > 0);
    client_wait(&clients[0]);
    client_wait(&clients[1]);
    rig_stop(&rig);
}

static void test_a_request_that_no_replica_takes_is_too_large(void **state)
{
    struct rig rig;
    struct client client = { .n_done = 0 };
    struct weir_why why;

    (void)state;
    rig_init(&rig, 1);
    weir_stub_close(rig.stubs[0]);
    struct weir_stub_opts opts = rig_stub_opts(&rig, 0);
    opts.listen = rig.address[0];
    opts.request_bytes_max = 20;
    assert_int_equal(weir_stub_open(&opts, &rig.stubs[0], &why), WEIR_OK);
    rig_start(&rig);
    client_start(&client, &rig, rig_request(&rig, "a prompt of some forty bytes, more or less"));
    assert_int_equal(client.err, WEIR_TOOLARGE);
    rig_stop(&rig);
}

/* The outbox of one replica is full: the next candidate takes the call. */
static void test_a_full_outbox_moves_on(void **state)
{
    struct rig rig;
    struct client clients[2] = { { .n_done = 0 } };
    uint64_t before = metric("weir_fabric_outbox_refused_total", "");

    (void)state;
    rig_init(&rig, 1);
    rig.fleet_opts.outbox_bytes_max = 100;
    rig_start(&rig);
    char text[200];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    client_start(&clients[0], &rig, rig_request(&rig, text)); /* past the bound by itself */
    assert_int_equal(clients[0].err, WEIR_OVERLOADED);
    client_start(&clients[1], &rig, rig_request(&rig, "hello"));
    client_wait(&clients[1]);
    assert_int_equal(clients[1].n_done, 1);
    assert_int_equal(metric("weir_fabric_outbox_refused_total", "") - before, 1);
    rig_stop(&rig);
}

/* ---- replicas that break ---- */
static void test_a_replica_killed_before_the_first_token_costs_nothing(void **state)
{
    struct rig rig;
    struct client client = { .n_done = 0 };
    struct weir_stub_plan plan = slow_plan(1);
    char session[32];
    uint64_t before = metric("weir_calls_lost_total", "phase=\"before_first_token\"");

    (void)state;
    rig_init(&rig, 2);
    rig_start(&rig);
    plan.mode = WEIR_STUB_STALL;
    weir_stub_set_plan(rig.stubs[0], &plan);
    client_start(&client, &rig, to(&rig, rig_session_for(&rig, 0, session)));
    rig_turn_ms(&rig, 100);
    assert_int_equal(rig_counts(&rig, 0).live, 1);
    weir_stub_close(rig.stubs[0]);
    rig.stubs[0] = NULL;
    client_wait(&client);
    assert_int_equal(client.n_done, 1);
    assert_int_equal(client.n_started, 1);
    assert_string_equal(client.replica, "replica-1");
    assert_int_equal(metric("weir_calls_lost_total", "phase=\"before_first_token\"") - before, 1);
    rig_stop(&rig);
}

static void test_a_replica_killed_in_mid_stream_is_an_error_event(void **state)
{
    struct rig rig;
    struct client client = { .n_done = 0 };
    struct weir_stub_plan plan = slow_plan(100000);
    char session[32];

    (void)state;
    rig_init(&rig, 2);
    rig_start(&rig);
    weir_stub_set_plan(rig.stubs[0], &plan);
    client_start(&client, &rig, to(&rig, rig_session_for(&rig, 0, session)));
    client_wait_delta(&client);
    weir_stub_close(rig.stubs[0]);
    rig.stubs[0] = NULL;
    client_wait(&client);
    assert_int_equal(client.n_failed, 1);
    assert_int_equal(client.err, WEIR_UPSTREAM);
    assert_int_equal(rig_counts(&rig, 1).begins, 0); /* what was seen stays true */
    rig_stop(&rig);
}

static void test_a_request_that_breaks_replicas_fails_after_two(void **state)
{
    struct rig rig;
    struct client client = { .n_done = 0 };
    struct weir_stub_plan plan = slow_plan(1);
    uint64_t n = 0;

    (void)state;
    rig_init(&rig, 4);
    rig_start(&rig);
    plan.mode = WEIR_STUB_BREAK;
    rig_plan(&rig, &plan);
    client_start(&client, &rig, rig_request(&rig, "poison"));
    client_wait(&client);
    assert_int_equal(client.err, WEIR_UPSTREAM);
    for (int i = 0; i < 4; i++)
        n += rig_counts(&rig, i).begins;
    assert_int_equal(n, 2);
    rig_until_usable(&rig, 4); /* the fleet recovers */
    rig_stop(&rig);
}

/* Tokens that the account's meters count, and hold, of all calls. */
static void meters(struct weir_limits *limits, uint64_t ret_used[WEIR_ADAPTIVE], uint64_t *ret_held)
{
    struct weir_limits_view view;
    struct weir_limits_part part = { .router = 0 };

    weir_limits_show(limits, WEIR_STR("acme"), WEIR_STR(RIG_MODEL), weir_now_ns(), &view, &part, 1);
    assert_true(view.found);
    memcpy(ret_used, part.used, sizeof part.used);
    *ret_held = part.held[WEIR_METER_PROMPT] + part.held[WEIR_METER_GENERATED];
}

static void test_who_saw_no_token_is_charged_none(void **state)
{
    struct weir_disc_entry account = { WEIR_STR("/weir/accounts/acme"), WEIR_STR("{}"), 1 };
    struct weir_disc_snapshot snap = { .entries = &account, .n_entries = 1 };
    struct rig rig;
    struct client client = { .n_done = 0 };
    struct weir_stub_plan plan = slow_plan(4);
    struct weir_limits_opts limits_opts = { .self = 7 };
    struct weir_gate gate = { .legacy = false };
    uint64_t used[WEIR_ADAPTIVE], held;

    (void)state;
    weir_limit_table_init(&limits_opts.table);
    assert_int_equal(weir_limits_open(&limits_opts, weir_now_ns(), &gate.limits, NULL), WEIR_OK);
    assert_int_equal(weir_keys_open("/weir/", &gate.keys, NULL), WEIR_OK);
    weir_keys_on_snapshot(gate.keys, &snap);
    rig_init(&rig, 4);
    rig.call_opts.gate = &gate;
    rig_start(&rig);
    plan.mode = WEIR_STUB_BREAK; /* after it said how long the prompt is */
    rig_plan(&rig, &plan);
    client_start(&client, &rig, rig_request(&rig, "hello"));
    client_wait(&client);
    assert_int_equal(client.err, WEIR_UPSTREAM);
    meters(gate.limits, used, &held);
    assert_int_equal(used[WEIR_METER_PROMPT] + used[WEIR_METER_GENERATED] + held, 0);

    rig_until_usable(&rig, 4);
    plan.mode = WEIR_STUB_SERVE;
    rig_plan(&rig, &plan);
    client_start(&client, &rig, rig_request(&rig, "hello"));
    client_wait(&client);
    assert_int_equal(client.n_done, 1);
    meters(gate.limits, used, &held);
    assert_int_equal(used[WEIR_METER_PROMPT], client.done.prompt_tokens);
    assert_int_equal(used[WEIR_METER_GENERATED], client.done.completion_tokens);
    assert_int_equal(held, 0);
    assert_true(used[WEIR_METER_PROMPT] > 0 && used[WEIR_METER_GENERATED] == 4);
    rig_stop(&rig);
    weir_keys_close(gate.keys);
    weir_limits_close(gate.limits);
}

static void test_a_rogue_replica_is_told_to_stop_and_left(void **state)
{
    struct rig rig;
    struct client client = { .n_done = 0 };
    struct weir_stub_plan plan = slow_plan(1);
    char session[32];
    uint64_t before = metric("weir_calls_protocol_errors_total", "");

    (void)state;
    rig_init(&rig, 2);
    rig_start(&rig);
    plan.mode = WEIR_STUB_ROGUE;
    weir_stub_set_plan(rig.stubs[0], &plan);
    client_start(&client, &rig, to(&rig, rig_session_for(&rig, 0, session)));
    client_wait(&client);
    assert_int_equal(client.n_done, 1);
    assert_string_equal(client.replica, "replica-1");
    until_nothing_lives(&rig);
    assert_int_equal(rig_counts(&rig, 0).cancels, 1);
    assert_int_equal(metric("weir_calls_protocol_errors_total", "") - before, 1);
    rig_stop(&rig);
}

static void test_no_first_token_in_time_is_a_504(void **state)
{
    struct rig rig;
    struct client client = { .n_done = 0 };
    struct weir_stub_plan plan = slow_plan(1);

    (void)state;
    rig_init(&rig, 1);
    rig.call_opts.first_token_timeout_ms = 100;
    rig_start(&rig);
    plan.mode = WEIR_STUB_STALL;
    rig_plan(&rig, &plan);
    client_start(&client, &rig, rig_request(&rig, "hello"));
    client_wait(&client);
    assert_int_equal(client.err, WEIR_DEADLINE);
    until_nothing_lives(&rig); /* cancelled there */
    rig_stop(&rig);
}

/* A stream that began in time may go on for longer than the first token's deadline. */
static void test_the_deadline_is_for_the_first_token_only(void **state)
{
    struct rig rig;
    struct client client = { .n_done = 0 };
    struct weir_stub_plan plan = slow_plan(60);

    (void)state;
    rig_init(&rig, 1);
    rig.call_opts.first_token_timeout_ms = 300;
    rig_start(&rig);
    rig_plan(&rig, &plan);
    client_start(&client, &rig, rig_request(&rig, "hello"));
    client_wait(&client);
    assert_int_equal(client.n_done, 1);
    assert_int_equal(client.n_delta, 60);
    rig_stop(&rig);
}

/* ---- many ---- */
static bool set_is_empty(struct rig *rig, void *ctx)
{
    (void)ctx;
    return weir_callset_live(rig->set) == 0;
}

static void count_idle(void *ctx)
{
    ++*(int *)ctx;
}

static void test_a_thousand_calls_at_once(void **state)
{
    enum { N = 1000 };
    struct client *clients = calloc(N, sizeof *clients);
    struct rig rig;
    struct weir_stub_plan plan = slow_plan(10);
    int n_idle = 0;
    uint64_t n_begins = 0;

    (void)state;
    rig_init(&rig, 3);
    rig_start(&rig);
    rig_plan(&rig, &plan);
    weir_callset_on_idle(rig.set, count_idle, &n_idle);
    assert_int_equal(n_idle, 1); /* nothing lives yet */
    for (int i = 0; i < N; i++) {
        char text[32];
        snprintf(text, sizeof text, "call %d", i);
        client_start(&clients[i], &rig, rig_request(&rig, text));
    }
    weir_callset_on_idle(rig.set, count_idle, &n_idle);
    assert_int_equal(weir_callset_live(rig.set), N);
    rig_until(&rig, set_is_empty, NULL);
    assert_int_equal(n_idle, 2);
    for (int i = 0; i < N; i++) {
        assert_int_equal(clients[i].n_done, 1);
        assert_int_equal(clients[i].n_delta, 10);
    }
    for (int i = 0; i < 3; i++) {
        n_begins += rig_counts(&rig, i).begins;
        assert_true(rig_counts(&rig, i).begins > N / 6); /* they share the work */
    }
    assert_int_equal(n_begins, N);
    free(clients);
    rig_stop(&rig);
}

static void test_closing_cancels_what_lives(void **state)
{
    struct rig rig;
    struct client clients[20];
    struct weir_stub_plan plan = slow_plan(100000);

    (void)state;
    rig_init(&rig, 2);
    rig_start(&rig);
    rig_plan(&rig, &plan);
    for (int i = 0; i < 20; i++) {
        memset(&clients[i], 0, sizeof clients[i]);
        client_start(&clients[i], &rig, rig_request(&rig, "hello"));
    }
    client_wait_delta(&clients[0]);
    weir_callset_close(rig.set);
    rig.set = NULL;
    for (int i = 0; i < 20; i++)
        clients[i].over = true;
    until_nothing_lives(&rig);
    rig_stop(&rig);
}

/* Two loops in threads of their own, each with its calls, over the same attachments, while streams break. */
struct side {
    struct rig *rig;
    struct weir_loop *loop;
    struct weir_callset *set;
    struct weir_task start;
    pthread_t thread;
    int n_started, n_ended, n_done;
    bool stopping;
};

enum { SIDE_CALLS = 400, SIDE_AT_ONCE = 40 };

static void side_more(struct side *side);

static void side_started(void *ctx, const struct weir_call_started *started)
{
    (void)ctx;
    (void)started;
}

static bool side_delta(void *ctx, const Weir__Fabric__V1__Delta *delta)
{
    struct side *side = ctx;

    return (delta->tag ^ (uint64_t)side->n_ended) % 97 != 0; /* now and then somebody is slow */
}

static void side_done(void *ctx, const struct weir_call_done *done)
{
    struct side *side = ctx;

    (void)done;
    side->n_done++;
    side_more(side);
}

static void side_failed(void *ctx, weir_err err, const struct weir_why *why, uint32_t retry_after_ms)
{
    (void)err;
    (void)why;
    (void)retry_after_ms;
    if (((struct side *)ctx)->n_started < SIDE_CALLS)
        side_more(ctx);
}

static void side_idle(void *ctx)
{
    struct side *side = ctx;

    if (side->n_started == SIDE_CALLS) {
        weir_loop_stop(side->loop);
        return;
    }
    for (int i = 0; i < SIDE_AT_ONCE; i++)
        side_more(side);
    weir_callset_on_idle(side->set, side_idle, side);
}

static void side_more(struct side *side)
{
    static const struct weir_call_sink sink = {
        .started = side_started, .delta = side_delta, .done = side_done, .failed = side_failed
    };
    struct weir_call *call;

    if (side->n_started == SIDE_CALLS)
        return;
    char text[32];
    snprintf(text, sizeof text, "call %d", side->n_started++);
    side->n_ended++;
    weir_call_start(side->set, rig_request(side->rig, text), &sink, side, &call);
}

static void side_begin(struct weir_task *task)
{
    struct side *side = (struct side *)(void *)((char *)task - offsetof(struct side, start));

    side_idle(side);
}

static void *side_main(void *arg)
{
    weir_loop_run(((struct side *)arg)->loop);
    return NULL;
}

static void test_two_loops_over_breaking_streams(void **state)
{
    struct rig rig;
    struct side sides[2] = { { .n_done = 0 }, { .n_done = 0 } };
    struct weir_stub_plan plan = slow_plan(5);
    struct weir_why why;

    (void)state;
    rig_init(&rig, 3);
    rig.fleet_opts.backoff_min_ms = 5;
    rig.fleet_opts.backoff_max_ms = 20;
    rig_start(&rig);
    plan.gap_ns = 1 * MS;
    rig_plan(&rig, &plan);
    for (int i = 0; i < 2; i++) {
        struct side *side = &sides[i];
        side->rig = &rig;
        assert_int_equal(weir_loop_open(i + 1, &side->loop, &why), WEIR_OK);
        assert_int_equal(weir_callset_open(side->loop, rig.fleet, NULL, &side->set, &why), WEIR_OK);
        side->start.run = side_begin;
        weir_loop_post(side->loop, &side->start);
        assert_int_equal(pthread_create(&side->thread, NULL, side_main, side), 0);
    }
    for (int i = 0; i < 20; i++) {
        rig_turn_ms(&rig, 5);
        weir_stub_break(rig.stubs[i % 3]);
    }
    for (int i = 0; i < 2; i++)
        pthread_join(sides[i].thread, NULL);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(sides[i].n_started, SIDE_CALLS);
        assert_true(sides[i].n_done > 0);
        weir_callset_close(sides[i].set);
    }
    rig_stop(&rig);
    for (int i = 0; i < 2; i++)
        weir_loop_close(sides[i].loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_stream_from_start_to_done),
        cmocka_unit_test(test_a_whole_answer_in_one_frame),
        cmocka_unit_test(test_many_choices),
        cmocka_unit_test(test_a_megabyte_goes_in_pieces_and_holds_nobody_up),
        cmocka_unit_test(test_salts_and_minted_seeds),
        cmocka_unit_test(test_a_session_stays_with_its_replica),
        cmocka_unit_test(test_a_cancel_reaches_the_replica_and_nothing_more_is_said),
        cmocka_unit_test(test_a_cancel_before_the_first_token),
        cmocka_unit_test(test_a_slow_client_is_cancelled_others_are_not),
        cmocka_unit_test(test_a_call_may_cancel_itself_from_its_sink),
        cmocka_unit_test(test_the_replica_names_the_fault),
        cmocka_unit_test(test_an_unknown_model_is_named),
        cmocka_unit_test(test_a_rejecting_replica_is_left_for_the_next),
        cmocka_unit_test(test_saturation_is_a_503_with_advice),
        cmocka_unit_test(test_a_predicted_wait_sheds_the_lower_classes),
        cmocka_unit_test(test_a_full_set_refuses),
        cmocka_unit_test(test_a_request_that_no_replica_takes_is_too_large),
        cmocka_unit_test(test_a_full_outbox_moves_on),
        cmocka_unit_test(test_a_replica_killed_before_the_first_token_costs_nothing),
        cmocka_unit_test(test_a_replica_killed_in_mid_stream_is_an_error_event),
        cmocka_unit_test(test_a_request_that_breaks_replicas_fails_after_two),
        cmocka_unit_test(test_who_saw_no_token_is_charged_none),
        cmocka_unit_test(test_a_rogue_replica_is_told_to_stop_and_left),
        cmocka_unit_test(test_no_first_token_in_time_is_a_504),
        cmocka_unit_test(test_the_deadline_is_for_the_first_token_only),
        cmocka_unit_test(test_a_thousand_calls_at_once),
        cmocka_unit_test(test_closing_cancels_what_lives),
        cmocka_unit_test(test_two_loops_over_breaking_streams),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
