/* test_mesh.c - what routers know of each other: merging in any order, joining, quiet keys, budgets, those that left. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "base/hash.h"
#include "base/mem.h"
#include "router/limits/limits_int.h"
#include "router/mesh/mesh.h"

#define S 1000000000ull
#define START (5000 * S)
#define TICK (S / 5)
#define FRAMES_MAX 4096

struct frame {
    uint32_t from, to;
    struct weir_str bytes;
};

struct node {
    struct weir_limits *limits;
    struct weir_mesh *mesh;
    uint64_t id;
};

struct rig {
    struct node nodes[4];
    uint32_t n, from;
    struct frame frames[FRAMES_MAX];
    uint32_t n_frames;
    uint64_t now;
    bool refuse; /* send fails */
    uint32_t direct_max;
};

static uint32_t last_call;

static void node_open(struct rig *rig, uint32_t i, uint64_t incarnation, uint64_t bytes_s)
{
    struct node *n = &rig->nodes[i];
    struct weir_limits_opts opts = { .self = n->id = weir_mesh_router(WEIR_STR("router"), incarnation) };

    weir_limit_table_init(&opts.table);
    assert_int_equal(weir_limits_open(&opts, rig->now, &n->limits, NULL), WEIR_OK);
    struct weir_mesh_opts mesh = { .limits = n->limits, .bytes_s = bytes_s, .direct_max = rig->direct_max };
    assert_int_equal(weir_mesh_open(&mesh, &n->mesh, NULL), WEIR_OK);
}

static struct rig *rig_open(uint32_t n)
{
    struct rig *rig = calloc(1, sizeof *rig);

    rig->now = START;
    rig->n = n;
    for (uint32_t i = 0; i < n; i++)
        node_open(rig, i, i + 1, 0);
    return rig;
}

static void node_close(struct node *n)
{
    weir_mesh_close(n->mesh);
    weir_limits_close(n->limits);
}

static void rig_close(struct rig *rig)
{
    for (uint32_t i = 0; i < rig->n; i++)
        node_close(&rig->nodes[i]);
    for (uint32_t i = 0; i < rig->n_frames; i++)
        free((void *)(uintptr_t)rig->frames[i].bytes.ptr);
    free(rig);
}

static weir_err keep_frame(void *ctx, uint32_t i_peer, struct weir_str bytes)
{
    struct rig *rig = ctx;

    if (rig->refuse)
        return WEIR_FULL;
    assert_true(rig->n_frames < FRAMES_MAX);
    char *copy = malloc(bytes.len);
    memcpy(copy, bytes.ptr, bytes.len);
    rig->frames[rig->n_frames++] =
        (struct frame){ rig->from, i_peer < rig->from ? i_peer : i_peer + 1, { copy, bytes.len } };
    return WEIR_OK;
}

static void tick(struct rig *rig, uint32_t i)
{
    uint64_t peers[4];
    uint32_t n = 0;

    for (uint32_t k = 0; k < rig->n; k++)
        if (k != i)
            peers[n++] = rig->nodes[k].id;
    rig->from = i;
    weir_mesh_tick(rig->nodes[i].mesh, rig->now, peers, n, keep_frame, rig);
}

static void deliver(struct rig *rig, uint32_t frame)
{
    struct weir_why why;
    const struct frame *f = &rig->frames[frame];

    assert_int_equal(
        weir_mesh_receive(rig->nodes[f->to].mesh, rig->nodes[f->from].id, f->bytes, rig->now, &why), WEIR_OK);
}

/* All tick, and all frames arrive. */
static void round_all(struct rig *rig)
{
    uint32_t first = rig->n_frames;

    for (uint32_t i = 0; i < rig->n; i++)
        tick(rig, i);
    for (uint32_t k = first; k < rig->n_frames; k++)
        deliver(rig, k);
    rig->now += TICK;
}

static const struct weir_limits_account plain = { .pays = true, .size = 2, .upper = { 3.6e6, 900e3, 36e3 } };

static const struct weir_limits_account unpaid = { .size = 2 }; /* 10 requests a minute, 10 at once */
static const struct weir_limits_account *numbers = &plain;

static bool use(struct rig *rig, uint32_t i, const char *account, uint32_t prompt, uint32_t output,
                bool settle)
{
    uint8_t id[16] = { 0 };
    struct weir_limits_verdict verdict;
    struct weir_limits_ask ask = { .account = weir_str(account),
                                   .deployment = weir_str("llama"),
                                   .numbers = numbers,
                                   .call_id = id,
                                   .prompt_bytes = 4 * prompt,
                                   .n = 1,
                                   .expect_output = output };

    last_call++;
    memcpy(id, &last_call, sizeof last_call);
    assert_int_equal(weir_limits_reserve(rig->nodes[i].limits, &ask, rig->now, &verdict), WEIR_OK);
    if (verdict.admitted && settle)
        weir_limits_settle(rig->nodes[i].limits, weir_str(account), id, prompt, 0, output, rig->now);
    return verdict.admitted;
}

static struct weir_limits_view show(struct rig *rig, uint32_t i, const char *account,
                                    struct weir_limits_part parts[4])
{
    struct weir_limits_view view;

    weir_limits_show(rig->nodes[i].limits, weir_str(account), weir_str("llama"), rig->now, &view, parts,
                     parts ? 4 : 0);
    return view;
}

static void test_counts_travel(void **state)
{
    struct rig *rig = rig_open(3);
    struct weir_limits_part parts[4];

    (void)state;
    round_all(rig);
    assert_true(use(rig, 0, "acme", 1000, 200, true));
    assert_true(use(rig, 1, "acme", 500, 100, false));
    round_all(rig);
    struct weir_limits_view view = show(rig, 2, "acme", parts);
    assert_true(view.found);
    assert_int_equal(view.n_parts, 3);
    uint64_t used = 0, held = 0;
    for (int i = 0; i < view.n_parts; i++) {
        used += parts[i].used[WEIR_METER_GENERATED];
        held += parts[i].held[WEIR_METER_GENERATED];
    }
    assert_int_equal(used, 200);
    assert_int_equal(held, 100);
    rig_close(rig);
}

/* Commutative, associative, idempotent: whatever the order, and however often, the same comes of the same frames. */
static void test_merge_in_any_order(void **state)
{
    enum { ROUNDS = 6, TRIALS = 200 };
    uint64_t random = 1;

    (void)state;
    for (int trial = 0; trial < TRIALS; trial++) {
        struct rig *rig = rig_open(4);
        uint32_t order[FRAMES_MAX], n = 0;
        for (int r = 0; r < ROUNDS; r++) {
            for (uint32_t i = 0; i < 3; i++) {
                random = weir_hash_mix(random, i);
                use(rig, i, random % 2 ? "acme" : "other", (uint32_t)(random >> 8) % 500 + 1,
                    (uint32_t)(random >> 20) % 50 + 1, random % 3 != 0);
                tick(rig, i);
            }
            rig->now += TICK;
        }
        for (uint32_t k = 0; k < rig->n_frames; k++)
            if (rig->frames[k].to == 3)
                order[n++] = k;
        /* in order at one; shuffled and doubled at another that is just as new */
        struct node inorder = rig->nodes[3], shuffled;
        for (uint32_t k = 0; k < n; k++)
            deliver(rig, order[k]);
        node_open(rig, 3, 4, 0);
        shuffled = rig->nodes[3];
        for (uint32_t k = n; k > 0; k--) {
            random = weir_hash_mix(random, 77);
            uint32_t pick = (uint32_t)(random % k), t = order[pick];
            deliver(rig, t);
            if (random & 256)
                deliver(rig, t);
            order[pick] = order[k - 1];
            order[k - 1] = t;
        }
        for (uint32_t k = 0; k < n; k++)
            deliver(rig, order[k]);
        const char *const names[] = { "acme", "other" };
        for (int a = 0; a < 2; a++) {
            struct weir_limits_part x[4], y[4];
            rig->nodes[3] = inorder;
            struct weir_limits_view vx = show(rig, 3, names[a], x);
            rig->nodes[3] = shuffled;
            struct weir_limits_view vy = show(rig, 3, names[a], y);
            assert_int_equal(vx.found, vy.found);
            assert_int_equal(vx.n_parts, vy.n_parts);
            for (int i = 1; i < vx.n_parts; i++)
                for (int k = 1; k < vy.n_parts; k++)
                    if (x[i].router == y[k].router) {
                        assert_memory_equal(x[i].used, y[k].used, sizeof x[i].used);
                        assert_memory_equal(x[i].held, y[k].held, sizeof x[i].held);
                    }
        }
        node_close(&inorder);
        rig_close(rig);
    }
}

/* [G1] */
static void test_quiet_keys_cost_nothing(void **state)
{
    struct rig *rig = rig_open(3);
    struct weir_mesh_stats before, after;

    (void)state;
    round_all(rig);
    for (int i = 0; i < 50; i++) {
        char name[16];
        snprintf(name, sizeof name, "a%d", i);
        use(rig, 0, name, 10, 10, true);
    }
    for (int i = 0; i < 4; i++)
        round_all(rig);
    weir_mesh_stats(rig->nodes[0].mesh, &before);
    for (int i = 0; i < 50; i++)
        round_all(rig);
    weir_mesh_stats(rig->nodes[0].mesh, &after);
    assert_true(after.bytes_sent == before.bytes_sent);
    rig_close(rig);
}

/* A router that starts again knows the levels and clocks that its former self had made. */
static void test_restart_resets_nobody(void **state)
{
    struct rig *rig = rig_open(3);

    (void)state;
    round_all(rig);
    round_all(rig);
    use(rig, 1, "acme", 10, 10, true); /* so that another one counts the account, too */
    for (int i = 0; i < 20; i++)
        use(rig, 0, "acme", 100, 300, true);
    double level = show(rig, 0, "acme", NULL).meters[WEIR_METER_GENERATED].level;
    assert_true(level > 1000);
    round_all(rig);
    node_close(&rig->nodes[0]);
    node_open(rig, 0, 99, 0);
    round_all(rig);
    double again = show(rig, 0, "acme", NULL).meters[WEIR_METER_GENERATED].level;
    assert_true(again > level - 600 * 0.5 && again <= level + 1); /* 600 a second have drained */
    rig_close(rig);
}

/* What cannot be sent now is told later, and once. */
static void test_busy_streams(void **state)
{
    struct rig *rig = rig_open(2);
    struct weir_limits_part parts[4];

    (void)state;
    round_all(rig);
    rig->refuse = true;
    for (int i = 0; i < 5; i++) {
        assert_true(use(rig, 0, "acme", 100, 10, true));
        round_all(rig);
    }
    assert_int_equal(show(rig, 1, "acme", NULL).found, false);
    rig->refuse = false;
    round_all(rig);
    struct weir_limits_view view = show(rig, 1, "acme", parts);
    assert_int_equal(view.n_parts, 2);
    assert_int_equal(parts[1].used[WEIR_METER_GENERATED], 50);
    assert_true(view.meters[WEIR_METER_GENERATED].level <= 50);
    rig_close(rig);
}

/* [G2] A thousand keys through frames of 512 bytes: all arrive in the end, and no frame is larger. */
static void test_budget(void **state)
{
    struct rig *rig = rig_open(2);
    struct weir_limits_stats stats;

    (void)state;
    node_close(&rig->nodes[0]);
    node_open(rig, 0, 50, 1000);
    for (int i = 0; i < 1000; i++) {
        char name[16];
        snprintf(name, sizeof name, "a%d", i);
        assert_true(use(rig, 0, name, 10, 10, true));
    }
    for (int i = 0; i < 250; i++)
        round_all(rig);
    for (uint32_t k = 0; k < rig->n_frames; k++)
        assert_true(rig->frames[k].bytes.len <= 512);
    weir_limits_stats(rig->nodes[1].limits, &stats);
    assert_int_equal(stats.keys, 2000); /* accounts, and their deployments */
    rig_close(rig);
}

/* One that left: its holds are gone, its use stays and drains. */
static void test_gone(void **state)
{
    struct rig *rig = rig_open(3);

    (void)state;
    round_all(rig);
    assert_true(use(rig, 2, "acme", 100, 1400, true));
    assert_true(use(rig, 2, "acme", 100, 500, false));
    round_all(rig);
    assert_true(show(rig, 0, "acme", NULL).meters[WEIR_METER_GENERATED].held >= 500);
    node_close(&rig->nodes[2]);
    rig->n = 2;
    round_all(rig);
    for (int i = 0; i < 8; i++)
        weir_limits_sweep(rig->nodes[0].limits, rig->now);
    struct weir_limits_view view = show(rig, 0, "acme", NULL);
    assert_true(view.meters[WEIR_METER_GENERATED].held == 0);
    assert_true(view.meters[WEIR_METER_GENERATED].level > 800);
    rig_close(rig);
}

/* More peers than are told directly: a joining one gets a full frame, and what others told goes on in the later ones. */
static void test_epidemic(void **state)
{
    struct rig *rig = rig_open(4);
    struct weir_mesh_stats stats;

    (void)state;
    for (uint32_t i = 0; i < 4; i++)
        node_close(&rig->nodes[i]);
    rig->direct_max = 1;
    for (uint32_t i = 0; i < 4; i++)
        node_open(rig, i, i + 1, 0);
    for (uint32_t k = 0; k < 40; k++) {
        use(rig, k % 4, "acme", 10, 10, true);
        round_all(rig);
    }
    for (uint32_t i = 0; i < 4; i++) {
        weir_mesh_stats(rig->nodes[i].mesh, &stats);
        assert_true(stats.frames_received > 0);
        assert_int_equal(stats.frames_bad, 0);
    }
    rig_close(rig);
}

/* Requests of one account, dealt round n routers that are long joined and hear all before the next; how many were admitted. */
static uint32_t deal_round(struct rig *rig, uint32_t n_requests, uint32_t n_rounds)
{
    uint32_t n_admitted = 0;

    for (uint32_t k = 0; k < 30; k++)
        round_all(rig);
    for (uint32_t k = 0; k < n_requests; k++) {
        n_admitted += use(rig, k % rig->n, "acme", 10, 10, true);
        for (uint32_t r = 0; r < n_rounds; r++)
            round_all(rig);
    }
    return n_admitted;
}

/* A router that was never asked for a key counts it against the key's own limit, not the table's: nothing is given away before
 * the first request that is its own. */
static void test_limits_travel_with_counts(void **state)
{
    static const struct weir_limits_account small = {
        .pays = true, .size = 2, .start = { 0, 0, 600 }, .upper = { 0, 0, 600 }
    }; /* 100 tokens at once */

    (void)state;
    numbers = &unpaid;
    struct rig *rig = rig_open(2);
    assert_int_equal(deal_round(rig, 14, 1), 10); /* in 2.8 s */
    rig_close(rig);

    numbers = &small;
    rig = rig_open(2);
    uint32_t n = deal_round(rig, 20, 1); /* in 4 s, in which 40 tokens come back */
    assert_in_range(n, 10, 14);
    rig_close(rig);

    numbers = &unpaid;
    rig = rig_open(4);
    for (uint32_t i = 0; i < 4; i++)
        node_close(&rig->nodes[i]);
    rig->direct_max = 1; /* others pass it on */
    for (uint32_t i = 0; i < 4; i++)
        node_open(rig, i, i + 1, 0);
    assert_in_range(deal_round(rig, 16, 5), 10, 12); /* in 16 s, in which 2.7 come back */
    rig_close(rig);
    numbers = &plain;
}

static bool keep_news(void *ctx, uint64_t origin, const struct reg_news *news)
{
    (void)origin;
    if (news->is_account)
        *(struct reg_news *)ctx = *news;
    return true;
}

/* What is passed on brings the limit, the first time. */
static void test_a_limit_is_passed_on(void **state)
{
    struct rig *rig = rig_open(2);
    struct reg_news news = { 0 };

    (void)state;
    numbers = &unpaid;
    for (uint32_t k = 0; k < 30; k++)
        round_all(rig);
    assert_true(use(rig, 0, "acme", 10, 10, true));
    round_all(rig);
    struct weir_limits *second = rig->nodes[1].limits;
    uint64_t version = limits_version(second);
    registers_each_other(second, /* after= */ 0, version, keep_news, &news);
    assert_true(news.is_account && news.has_clock && news.limit_s[0] * 60 > 9.9 &&
                news.limit_s[0] * 60 < 10.1);
    round_all(rig);
    assert_true(use(rig, 0, "acme", 10, 10, true));
    round_all(rig);
    registers_each_other(second, /* after= */ version, limits_version(second), keep_news, &news);
    assert_false(news.has_clock);
    numbers = &plain;
    rig_close(rig);
}

/* A limit that nobody told is no reason to take anything off later: counts, then a request here, then that there was nothing
 * more; and for another key the limit at last, with one more. */
static void test_a_limit_comes_late(void **state)
{
    struct rig *rig = rig_open(2);
    struct weir_limits *second = rig->nodes[1].limits;
    struct weir_limits_view view;

    (void)state;
    numbers = &unpaid;
    for (uint32_t k = 0; k < 30; k++)
        round_all(rig);
    struct reg_news news = { .key = limit_key_id(weir_str("other"), weir_str("")),
                             .seq = 1u << 20,
                             .origin_ms = rig->now / 1000000,
                             .generation = 1u << 20,
                             .is_account = true,
                             .used = { 1 } };
    assert_true(register_apply(second, rig->nodes[0].id, &news, rig->now));
    rig->now += TICK;
    assert_true(use(rig, 1, "other", 10, 10, true));
    rig->now += TICK;
    news.seq++;
    news.origin_ms = rig->now / 1000000;
    assert_true(register_apply(second, rig->nodes[0].id, &news, rig->now));
    weir_limits_show(second, weir_str("other"), weir_str(""), rig->now, &view, NULL, 0);
    assert_true(view.n_meters == 1 && view.meters[0].level > 0.9);

    news.key = limit_key_id(weir_str("third"), weir_str(""));
    assert_true(register_apply(second, rig->nodes[0].id, &news, rig->now));
    rig->now += TICK;
    news.seq++;
    news.origin_ms = rig->now / 1000000;
    news.used[0]++;
    news.has_clock = true;
    news.limit_s[0] = 10.0 / 60;
    assert_true(register_apply(second, rig->nodes[0].id, &news, rig->now));
    weir_limits_show(second, weir_str("third"), weir_str(""), rig->now, &view, NULL, 0);
    assert_true(view.n_meters == 1 && view.meters[0].level > 0.9);
    numbers = &plain;
    rig_close(rig);
}

/* A tick that lacks memory, wherever it does, tells less, and the next one tells it. */
static void test_no_memory_loses_no_news(void **state)
{
    (void)state;
    for (uint32_t direct_max = 1; direct_max <= 32; direct_max += 31)
        for (long n = 0; n < 8; n++) {
            struct rig *rig = rig_open(0);
            rig->direct_max = direct_max;
            for (rig->n = 0; rig->n < 4; rig->n++)
                node_open(rig, rig->n, rig->n + 1, 0);
            assert_true(use(rig, 0, "acme", 10, 20, true));
            for (int k = 0; k < 25; k++) { /* the one in which an epidemic mesh tells all is among them */
                weir_test_alloc_budget(n);
                tick(rig, 0);
                weir_test_alloc_budget(-1);
            }
            for (uint32_t k = 0; k < rig->n_frames; k++)
                deliver(rig, k);
            for (int k = 0; k < 25; k++)
                round_all(rig);
            for (uint32_t i = 1; i < 4; i++)
                assert_true(show(rig, i, "acme", NULL).found);
            rig_close(rig);
        }
}

/* Routers start anew more often than there are places for them: what the dead have told makes room. */
static void test_many_incarnations(void **state)
{
    enum { AT_ONCE = 100, TIMES = ORIGINS_MAX / AT_ONCE + 2 };
    struct rig *rig = rig_open(1);
    struct weir_limits *lim = rig->nodes[0].limits;
    struct weir_limits_stats stats;
    uint64_t ids[AT_ONCE];

    (void)state;
    for (uint64_t t = 0; t < TIMES; t++) {
        use(rig, 0, "acme", 100, 10, true);
        for (uint64_t i = 0; i < AT_ONCE; i++)
            ids[i] = 1000 + t * AT_ONCE + i;
        limits_set_live(lim, ids, AT_ONCE, rig->now);
        for (uint64_t i = 0; i < AT_ONCE; i++) {
            struct reg_news news = { .key = limit_key_id(WEIR_STR("acme"), WEIR_STR("llama")),
                                     .seq = 1,
                                     .generation = 1,
                                     .used = { 1, 1, 1 } };
            assert_true(register_apply(lim, ids[i], &news, rig->now));
        }
        limits_set_live(lim, NULL, 0, rig->now);
        rig->now += 901 * S;
        for (int i = 0; i < 8; i++)
            weir_limits_sweep(lim, rig->now);
    }
    weir_limits_stats(lim, &stats);
    assert_true(stats.bytes - sizeof *lim < 64 * 1024 + AT_ONCE * sizeof(struct reg));
    rig_close(rig);
}

static void test_malformed_changes_nothing(void **state)
{
    struct rig *rig = rig_open(2);
    struct weir_mesh_stats stats;
    struct weir_why why;

    (void)state;
    round_all(rig);
    use(rig, 0, "acme", 100, 10, true);
    tick(rig, 0);
    struct weir_str bytes = rig->frames[rig->n_frames - 1].bytes;
    bytes.len--;
    assert_int_equal(weir_mesh_receive(rig->nodes[1].mesh, rig->nodes[0].id, bytes, rig->now, &why),
                     WEIR_CORRUPT);
    assert_false(show(rig, 1, "acme", NULL).found);
    weir_mesh_stats(rig->nodes[1].mesh, &stats);
    assert_int_equal(stats.frames_bad, 1);
    rig_close(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counts_travel),
        cmocka_unit_test(test_merge_in_any_order),
        cmocka_unit_test(test_quiet_keys_cost_nothing),
        cmocka_unit_test(test_restart_resets_nobody),
        cmocka_unit_test(test_busy_streams),
        cmocka_unit_test(test_budget),
        cmocka_unit_test(test_gone),
        cmocka_unit_test(test_epidemic),
        cmocka_unit_test(test_limits_travel_with_counts),
        cmocka_unit_test(test_a_limit_is_passed_on),
        cmocka_unit_test(test_a_limit_comes_late),
        cmocka_unit_test(test_no_memory_loses_no_news),
        cmocka_unit_test(test_many_incarnations),
        cmocka_unit_test(test_malformed_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
