/* test_exchange.c - routers in one process find each other in a view and hear what is sent, and nobody else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <pthread.h>

#include <cmocka.h>

#include "base/clock.h"
#include "router/exchange/exchange.h"

#define DEADLINE_NS (20 * WEIR_S)
#define N_MAX 3

struct node {
    struct weir_exchange *ex;
    char id[16], value[256], key[64];
    pthread_mutex_t lock;
    char heard[N_MAX][64]; /* the last frame of each */
    uint64_t incarnation[N_MAX];
    int n_joined[N_MAX];
    int n_peers, n_ticks;
};

static struct weir_rpc *rpc;
static struct node nodes[N_MAX];

static int index_of(const char *id)
{
    return id[1] - '0';
}

static void tick(void *ctx, uint64_t now_ns, const struct weir_mesh_peer *peers, int n_peers)
{
    struct node *node = ctx;

    (void)now_ns;
    pthread_mutex_lock(&node->lock);
    node->n_ticks++;
    node->n_peers = n_peers;
    pthread_mutex_unlock(&node->lock);
    for (int i = 0; i < n_peers; i++) {
        char text[320];
        snprintf(text, sizeof text, "%s to %s", node->id, peers[i].id);
        (void)!weir_exchange_send(node->ex, peers[i].id, weir_str(text));
    }
}

static void receive(void *ctx, const struct weir_mesh_peer *from, struct weir_str bytes, uint64_t now_ns)
{
    struct node *node = ctx;

    (void)now_ns;
    pthread_mutex_lock(&node->lock);
    snprintf(node->heard[index_of(from->id)], 64, "%.*s", WEIR_STR_FMT(bytes));
    node->incarnation[index_of(from->id)] = from->incarnation;
    pthread_mutex_unlock(&node->lock);
}

static void joined(void *ctx, const struct weir_mesh_peer *peer)
{
    struct node *node = ctx;

    pthread_mutex_lock(&node->lock);
    node->n_joined[index_of(peer->id)]++;
    pthread_mutex_unlock(&node->lock);
}

static void node_open(int i, uint64_t incarnation)
{
    struct node *node = &nodes[i];
    struct weir_router_record rec = { .incarnation = incarnation };
    struct weir_buf out;
    char address[32];

    memset(node, 0, sizeof *node);
    pthread_mutex_init(&node->lock, NULL);
    snprintf(node->id, sizeof node->id, "r%d", i);
    struct weir_exchange_opts opts = { .rpc = rpc,
                                       .router = node->id,
                                       .incarnation = incarnation,
                                       .prefix = "/weir/",
                                       .listen = "127.0.0.1:0",
                                       .interval_ms = 10,
                                       .ops = { tick, receive, joined },
                                       .ctx = node };
    assert_int_equal(weir_exchange_open(&opts, &node->ex, NULL), WEIR_OK);
    assert_int_equal(weir_exchange_start(node->ex, NULL), WEIR_OK);
    snprintf(address, sizeof address, "127.0.0.1:%d", weir_exchange_port(node->ex));
    rec.id = weir_str(node->id);
    rec.mesh = weir_str(address);
    weir_buf_init(&out, 0);
    weir_router_record_write(&out, &rec);
    snprintf(node->value, sizeof node->value, "%s", weir_buf_cstr(&out));
    snprintf(node->key, sizeof node->key, "/weir/routers/r%d", i);
    weir_buf_release(&out);
}

static void node_close(int i)
{
    weir_exchange_close(nodes[i].ex);
    nodes[i].ex = NULL;
}

/* The view of those below n, shown to all that are open. */
static void show(int first, int n)
{
    struct weir_disc_entry entries[N_MAX];
    int k = 0;

    for (int i = first; i < n; i++)
        entries[k++] = (struct weir_disc_entry){ weir_str(nodes[i].key), weir_str(nodes[i].value), i + 1 };
    struct weir_disc_snapshot snap = { .version = 1, .entries = entries, .n_entries = k };
    for (int i = 0; i < N_MAX; i++)
        if (nodes[i].ex)
            weir_exchange_on_snapshot(nodes[i].ex, &snap);
}

static bool hears(int to, int from)
{
    char wanted[64];

    snprintf(wanted, sizeof wanted, "r%d to r%d", from, to);
    pthread_mutex_lock(&nodes[to].lock);
    bool yes = strcmp(nodes[to].heard[from], wanted) == 0;
    pthread_mutex_unlock(&nodes[to].lock);
    return yes;
}

static void forget(void)
{
    for (int i = 0; i < N_MAX; i++) {
        pthread_mutex_lock(&nodes[i].lock);
        memset(nodes[i].heard, 0, sizeof nodes[i].heard);
        pthread_mutex_unlock(&nodes[i].lock);
    }
}

static void pause_ms(long ms)
{
    nanosleep(&(struct timespec){ .tv_nsec = ms * 1000000 }, NULL);
}

#define WAIT_FOR(cond)                                                                                       \
    do {                                                                                                     \
        uint64_t end_ns_ = weir_now_ns() + DEADLINE_NS;                                                      \
        while (!(cond) && weir_now_ns() < end_ns_)                                                           \
            pause_ms(2);                                                                                     \
        assert_true(cond);                                                                                   \
    } while (0)

/* A while in which r0 and r1 heard each other, and `to` did not hear `from`: what was on its way has come by then. */
static bool is_silent(int to, int from)
{
    forget();
    WAIT_FOR(hears(0, 1) && hears(1, 0));
    return !hears(to, from);
}

/* [X2] Three routers hear each other; one that leaves the view hears nothing more [X3]; one that comes back with another
 * incarnation is joined anew. */
static void test_mesh_of_three(void **state)
{
    (void)state;
    for (int i = 0; i < N_MAX; i++)
        node_open(i, 100 + (uint64_t)i);
    show(0, N_MAX);
    for (int to = 0; to < N_MAX; to++)
        for (int from = 0; from < N_MAX; from++)
            if (to != from)
                WAIT_FOR(hears(to, from));
    assert_int_equal(nodes[0].incarnation[2], 102);
    assert_int_equal(nodes[0].n_peers, 2);

    node_close(2);
    node_open(2, 202);
    show(0, N_MAX);
    forget();
    WAIT_FOR(hears(0, 2) && hears(2, 0) && hears(2, 1) && hears(1, 0));
    assert_int_equal(nodes[0].incarnation[2], 202);
    assert_true(nodes[0].n_joined[2] >= 2);

    show(0, 2);
    WAIT_FOR(is_silent(2, 0)); /* [X3] */
    for (int i = 0; i < N_MAX; i++)
        node_close(i);
}

/* A cut is mutual for the routers it names, leaves the others alone, and heals. */
static void test_cut_and_heal(void **state)
{
    struct weir_str two[] = { WEIR_STR("r2") };

    (void)state;
    for (int i = 0; i < N_MAX; i++)
        node_open(i, 1);
    show(0, N_MAX);
    WAIT_FOR(hears(0, 2) && hears(2, 0) && hears(1, 0) && hears(2, 1));
    weir_exchange_cut(nodes[0].ex, two, 1);
    assert_int_equal(weir_exchange_send(nodes[0].ex, "r2", WEIR_STR("x")), WEIR_UNAVAILABLE);
    WAIT_FOR(is_silent(0, 2) && is_silent(2, 0));
    WAIT_FOR(hears(1, 2) && hears(2, 1));
    weir_exchange_cut(nodes[0].ex, NULL, 0);
    WAIT_FOR(hears(0, 2) && hears(2, 0));
    for (int i = 0; i < N_MAX; i++)
        node_close(i);
}

/* The address of one that is gone may be another's: who answers there is not taken for it. */
static void test_a_stranger_at_the_address(void **state)
{
    (void)state;
    node_open(0, 1);
    node_open(1, 1);
    snprintf(nodes[2].key, sizeof nodes[2].key, "/weir/routers/r2");
    snprintf(nodes[2].value, sizeof nodes[2].value,
             "{\"id\":\"r2\",\"incarnation\":\"1\",\"mesh\":\"127.0.0.1:%d\"}",
             weir_exchange_port(nodes[1].ex));
    show(0, N_MAX);
    WAIT_FOR(hears(1, 0));
    pause_ms(50);
    assert_int_equal(nodes[0].n_joined[2], 0);
    assert_int_equal(weir_exchange_send(nodes[0].ex, "r2", WEIR_STR("x")), WEIR_UNAVAILABLE);
    assert_int_equal(weir_exchange_send(nodes[0].ex, "nobody", WEIR_STR("x")), WEIR_UNAVAILABLE);
    node_close(0);
    node_close(1);
}

/* [X1] A frame too large is refused; one in flight holds the next back. */
static void test_bounds(void **state)
{
    static char big[WEIR_MESH_FRAME_MAX + 1];

    (void)state;
    node_open(0, 1);
    node_open(1, 1);
    show(0, 2);
    WAIT_FOR(hears(1, 0));
    assert_int_equal(weir_exchange_send(nodes[0].ex, "r1", (struct weir_str){ big, sizeof big }),
                     WEIR_TOOLARGE);
    weir_err err = WEIR_OK; /* one at a time is taken only as long as each has left before the next comes */
    for (int i = 0; i < 1000 && err == WEIR_OK; i++)
        err = weir_exchange_send(nodes[0].ex, "r1", (struct weir_str){ big, WEIR_MESH_FRAME_MAX });
    assert_int_equal(err, WEIR_FULL);
    node_close(0);
    node_close(1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mesh_of_three),
        cmocka_unit_test(test_cut_and_heal),
        cmocka_unit_test(test_a_stranger_at_the_address),
        cmocka_unit_test(test_bounds),
    };
    if (weir_rpc_open(2, &rpc, NULL) != WEIR_OK)
        return 1;
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    weir_rpc_close(rpc);
    return rc;
}
