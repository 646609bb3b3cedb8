/* test_etcd_fake.c - the etcd client against replies that a healthy etcd does not give on demand: revisions
 * cut in two, garbage, lines without an end, refusals within the stream. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fake.h"
#include "harness.h"

#define HEAD(cluster, revision) "\"header\":{\"cluster_id\":\"" #cluster "\",\"revision\":\"" #revision "\"}"
#define CREATED(revision) "{\"result\":{" HEAD(1, revision) ",\"created\":true}}\n"
/* "/weir/keys/a" = 1 and so on */
#define KEY_A "L3dlaXIva2V5cy9h"
#define KEY_B "L3dlaXIva2V5cy9i"
#define EVENT(key, revision, value)                                                                          \
    "{\"kv\":{\"key\":\"" key "\",\"mod_revision\":\"" #revision "\",\"value\":\"" value "\"}}"
#define ONE "MQ=="
#define TWO "Mg=="

struct script {
    pthread_mutex_t lock;
    const char *watches[8]; /* what the n-th watch is told; the last one then stays open, the others end */
    int n_watches;
    const char *ranges[4]; /* the n-th range of the whole prefix; the last for all later ones */
    int n_ranges;
    char starts[8][32]; /* the start_revision that the n-th watch asked for */
    int end_pipe[2];    /* closed at the end of the test: open watches end */
    bool long_line;     /* the first watch is told a line of 9 MiB */
    bool lingers; /* the first watch ends only after two more beats, so that the client has seen what it was
                     told */
    int n_beats, n_grants, n_puts;
    char put_leases[4][32]; /* the lease that the n-th put named */
};

static void say_long_line(int fd)
{
    static char chunk[65537];
    memset(chunk, 'x', sizeof chunk - 1);
    for (int i = 0; i < 144; i++)
        fake_say(fd, chunk);
}

static int count(struct script *s, const int *n)
{
    pthread_mutex_lock(&s->lock);
    int now = *n;
    pthread_mutex_unlock(&s->lock);
    return now;
}

static void linger(struct script *s)
{
    int end = count(s, &s->n_beats) + 2;
    while (count(s, &s->n_beats) < end)
        usleep(2000);
}

static void copy_number(char *to, size_t size, const char *body, const char *before)
{
    const char *at = strstr(body, before);
    if (at)
        snprintf(to, size, "%.*s", (int)strcspn(at + strlen(before), "\""), at + strlen(before));
}

static void answer_watch(struct script *s, int fd, const char *body)
{
    char byte;
    pthread_mutex_lock(&s->lock);
    int n = s->n_watches++;
    if (n < 8)
        copy_number(s->starts[n], sizeof s->starts[n], body, "\"start_revision\":\"");
    while (n > 0 && !s->watches[n < 8 ? n : 7])
        n--;
    bool is_last = n == 7 || !s->watches[n + 1], is_long = n == 0 && s->long_line,
         lingers = n == 0 && s->lingers;
    const char *text = s->watches[n];
    pthread_mutex_unlock(&s->lock);
    fake_say(fd, FAKE_HEAD_OK);
    fake_say(fd, text);
    if (is_long)
        say_long_line(fd);
    else if (lingers)
        linger(s);
    else if (is_last)
        (void)!read(s->end_pipe[0], &byte, 1);
}

static void answer_range(struct script *s, int fd)
{
    pthread_mutex_lock(&s->lock);
    int n = s->n_ranges < 4 ? s->n_ranges : 3;
    s->n_ranges++;
    while (!s->ranges[n])
        n--;
    pthread_mutex_unlock(&s->lock);
    fake_say(fd, s->ranges[n]);
}

/* Lease 11, lost at its first keep-alive, then lease 12, which stays. */
static void answer_lease(struct script *s, int fd, const char *what, const char *body)
{
    bool is_grant = strstr(what, "/grant") != NULL;
    pthread_mutex_lock(&s->lock);
    s->n_grants += is_grant;
    bool is_first = s->n_grants == 1;
    pthread_mutex_unlock(&s->lock);
    if (is_grant)
        fake_say(fd, is_first ? "{" HEAD(1, 5) ",\"ID\":\"11\",\"TTL\":\"2\"}"
                              : "{" HEAD(1, 5) ",\"ID\":\"12\",\"TTL\":\"2\"}");
    else if (strstr(body, "\"11\""))
        fake_say(fd, "{\"result\":{" HEAD(1, 5) ",\"ID\":\"11\"}}\n"); /* no TTL: gone */
    else
        fake_say(fd, "{\"result\":{" HEAD(1, 5) ",\"ID\":\"12\",\"TTL\":\"2\"}}\n");
}

static void answer(void *ctx, int fd, const char *what, const char *body)
{
    struct script *s = ctx;
    if (strstr(what, "/v3/watch")) {
        answer_watch(s, fd, body);
        return;
    }
    fake_say(fd, FAKE_HEAD_OK);
    if (strstr(what, "/v3/lease/")) {
        answer_lease(s, fd, what, body);
    } else if (strstr(what, "/v3/kv/put")) {
        pthread_mutex_lock(&s->lock);
        if (s->n_puts < 4)
            copy_number(s->put_leases[s->n_puts], sizeof s->put_leases[0], body, "\"lease\":\"");
        s->n_puts++;
        pthread_mutex_unlock(&s->lock);
        fake_say(fd, "{" HEAD(1, 5) "}");
    } else if (!strstr(body, "count_only")) {
        answer_range(s, fd);
    } else {
        pthread_mutex_lock(&s->lock);
        s->n_beats++;
        pthread_mutex_unlock(&s->lock);
        fake_say(fd, "{" HEAD(1, 5) ",\"count\":\"1\"}");
    }
}

struct rig {
    struct script s;
    struct fake fake;
    struct view v;
    char source[64];
};

static void rig_open(struct rig *r)
{
    pthread_mutex_init(&r->s.lock, NULL);
    assert_int_equal(pipe(r->s.end_pipe), 0);
    fake_open(&r->fake, answer, &r->s);
    snprintf(r->source, sizeof r->source, "etcd://127.0.0.1:%d", r->fake.port);
    view_open(&r->v,
              (struct weir_discovery_opts){ .source = r->source, .prefix = "/weir/", .lease_ttl_s = 2 });
}

static void rig_close(struct rig *r)
{
    view_close(&r->v);
    close(r->s.end_pipe[1]);
    fake_close(&r->fake);
    close(r->s.end_pipe[0]);
}

#define RANGE_A                                                                                              \
    "{" HEAD(1, 5) ",\"kvs\":[{\"key\":\"" KEY_A "\",\"mod_revision\":\"4\",\"value\":\"" ONE "\"}]}"

/* [D1] The first half of revision 6 came, then the connection broke: nothing of it may show, and it is asked
 * for again. */
static void test_half_a_revision_is_not_shown(void **state)
{
    static struct rig r;
    (void)state;
    r = (struct rig){ 0 };
    r.s.ranges[0] = RANGE_A;
    r.s.lingers = true;
    r.s.watches[0] =
        CREATED(5) "{\"result\":{" HEAD(1, 6) ",\"fragment\":true,\"events\":[" EVENT(KEY_A, 6, TWO) "]}}\n";
    r.s.watches[1] = CREATED(5) "{\"result\":{" HEAD(1, 6) ",\"fragment\":true,\"events\":[" EVENT(
        KEY_A, 6, TWO) "]}}\n"
                       "{\"result\":{" HEAD(1, 6) ",\"events\":[" EVENT(KEY_B, 6, TWO) "]}}\n";
    rig_open(&r);
    assert_true(view_wait(&r.v, "/weir/keys/b", "2"));
    assert_true(view_has(&r.v, "/weir/keys/a", "2"));
    assert_int_equal(view_n_snapshots(&r.v), 2); /* the range, then both keys at once */
    assert_string_equal(r.s.starts[0], "6");
    assert_string_equal(r.s.starts[1], "6");
    rig_close(&r);
}

static void test_events_that_come_twice_count_once(void **state)
{
    static struct rig r;
    (void)state;
    r = (struct rig){ 0 };
    r.s.ranges[0] = RANGE_A;
    r.s.watches[0] = CREATED(5) "{\"result\":{" HEAD(1, 7) ",\"events\":[" EVENT(KEY_A, 4, TWO) "," EVENT(
        KEY_B, 7, ONE) "]}}\n";
    rig_open(&r);
    assert_true(view_wait(&r.v, "/weir/keys/b", "1"));
    assert_true(view_has(&r.v, "/weir/keys/a", "1")); /* revision 4 was in the range */
    rig_close(&r);
}

static void test_garbage_costs_the_connection_and_nothing_else(void **state)
{
    static struct rig r;
    (void)state;
    r = (struct rig){ 0 };
    r.s.ranges[0] = RANGE_A;
    r.s.watches[0] = CREATED(5) "{\"result\":{\"events\":[{\"kv\":{\"key\":\"!!\"}}]}}\n";
    r.s.watches[1] = CREATED(5) "{\"result\":{" HEAD(1, 7) ",\"events\":[" EVENT(KEY_B, 7, ONE) "]}}\n";
    uint64_t n_before = resyncs("garbled");
    rig_open(&r);
    assert_true(view_wait(&r.v, "/weir/keys/b", "1"));
    assert_true(view_has(&r.v, "/weir/keys/a", "1"));
    assert_true(resyncs("garbled") == n_before + 1);
    rig_close(&r);
}

static void test_a_line_without_an_end_is_cut_off(void **state)
{
    static struct rig r;
    (void)state;
    r = (struct rig){ 0 };
    r.s.ranges[0] = RANGE_A;
    r.s.long_line = true;
    r.s.watches[0] = CREATED(5);
    r.s.watches[1] = CREATED(5) "{\"result\":{" HEAD(1, 7) ",\"events\":[" EVENT(KEY_B, 7, ONE) "]}}\n";
    uint64_t n_before = resyncs("overflow");
    rig_open(&r);
    assert_true(view_wait(&r.v, "/weir/keys/b", "1"));
    assert_true(resyncs("overflow") == n_before + 1);
    rig_close(&r);
}

/* A refused watch is created AND canceled, under HTTP 200, and the stream stays open: it must not pass for a
 * watch. */
static void test_a_watch_refused_in_its_stream_is_tried_again(void **state)
{
    static struct rig r;
    (void)state;
    r = (struct rig){ 0 };
    r.s.ranges[0] = RANGE_A;
    r.s.watches[0] = "{\"result\":{" HEAD(1, 5) ",\"watch_id\":\"-1\",\"created\":true,\"canceled\":true,"
                                                "\"cancel_reason\":\"etcdserver: no\"}}\n";
    r.s.watches[1] = CREATED(5) "{\"result\":{" HEAD(1, 7) ",\"events\":[" EVENT(KEY_B, 7, ONE) "]}}\n";
    uint64_t n_before = resyncs("canceled");
    rig_open(&r);
    assert_true(view_wait(&r.v, "/weir/keys/b", "1"));
    assert_true(resyncs("canceled") == n_before + 1);
    rig_close(&r);
}

/* [D4] Within one history an empty answer is the truth. */
static void test_an_empty_range_of_the_same_history_is_applied(void **state)
{
    static struct rig r;
    (void)state;
    r = (struct rig){ 0 };
    r.s.ranges[0] = RANGE_A;
    r.s.ranges[1] = "{" HEAD(1, 9) "}";
    r.s.watches[0] =
        CREATED(5) "{\"result\":{" HEAD(1, 9) ",\"canceled\":true,\"compact_revision\":\"9\"}}\n";
    r.s.watches[1] = CREATED(9);
    rig_open(&r);
    assert_true(view_wait(&r.v, "/weir/keys/a", NULL));
    assert_true(view_wait_connected(&r.v, true));
    rig_close(&r);
}

/* A keep-alive of a lost lease is answered with HTTP 200 and without a TTL. */
static bool has_put_twice(void *ctx)
{
    struct script *s = ctx;
    return count(s, &s->n_puts) >= 2;
}

static void test_a_lease_without_ttl_is_lost_and_replaced(void **state)
{
    static struct rig r;
    (void)state;
    r = (struct rig){ 0 };
    r.s.ranges[0] = RANGE_A;
    r.s.watches[0] = CREATED(5);
    rig_open(&r);
    assert_int_equal(weir_discovery_register(r.v.d, "/weir/routers/x", WEIR_STR("1")), WEIR_OK);
    assert_true(wait_until(has_put_twice, &r.s));
    rig_close(&r);
    assert_string_equal(r.s.put_leases[0], "11");
    assert_string_equal(r.s.put_leases[1], "12");
    assert_int_equal(r.s.n_puts, 2); /* and not over and over */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_half_a_revision_is_not_shown),
        cmocka_unit_test(test_events_that_come_twice_count_once),
        cmocka_unit_test(test_garbage_costs_the_connection_and_nothing_else),
        cmocka_unit_test(test_a_line_without_an_end_is_cut_off),
        cmocka_unit_test(test_a_watch_refused_in_its_stream_is_tried_again),
        cmocka_unit_test(test_an_empty_range_of_the_same_history_is_applied),
        cmocka_unit_test(test_a_lease_without_ttl_is_lost_and_replaced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
