/* test_stream.c - streams over loopback: both ends, in order, to the end. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/unit/proto/harness.h"

static struct world w;

static int setup(void **state)
{
    (void)state;
    world_open(&w, (struct weir_rpc_server_opts){ 0 }, (struct weir_rpc_channel_opts){ 0 });
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    world_close(&w);
    return 0;
}

static void test_echo_thousand(void **state)
{
    struct end end;
    char text[32];

    (void)state;
    world_call(&w, &end, "/t.T/Echo", 0);
    for (int i = 0; i < 1000; i++) {
        snprintf(text, sizeof text, "message %d", i);
        end_send(&end, text);
        END_WAIT(&end, end.n_got == i + 1);
        assert_string_equal(end.last, text);
    }
    weir_rpc_stream_send_done(end.s);
    END_WAIT(&end, end.n_closed > 0);
    assert_int_equal(end.status, 0);
    assert_int_equal(end.n_got, 1000);
    assert_int_equal(weir_rpc_stream_send(end.s, WEIR_STR("late")), WEIR_UNAVAILABLE);
    end_release(&end);
}

static void test_server_streams(void **state)
{
    struct end end;

    (void)state;
    world_call(&w, &end, "/t.T/Count", 0);
    end_send(&end, "5000");
    weir_rpc_stream_send_done(end.s);
    END_WAIT(&end, end.n_closed > 0);
    assert_int_equal(end.status, 0);
    assert_int_equal(end.n_got, 5000);
    assert_string_equal(end.last, "4999");
    end_release(&end);
}

/* [S1] A second message does not go while one is in flight; the status waits behind it and is not lost. */
static void test_one_send_at_a_time(void **state)
{
    struct end end;
    char *big = test_malloc(1 << 20);

    (void)state;
    memset(big, 'x', 1 << 20);
    world_call(&w, &end, "/t.T/Hold", 0);
    END_WAIT(&w.server_end, w.server_end.s);
    pthread_mutex_lock(&end.lock);
    end.hold = true; /* so that the window fills */
    pthread_mutex_unlock(&end.lock);
    struct weir_str bytes = { big, 1 << 20 };
    weir_err rc = WEIR_OK;
    int n = 0;
    while (rc == WEIR_OK && n < 1000) { /* some of them leave at once, into the window */
        rc = weir_rpc_stream_send(w.server_end.s, bytes);
        n += rc == WEIR_OK;
    }
    assert_int_equal(rc, WEIR_FULL);
    weir_rpc_stream_finish(w.server_end.s, 0, "", NULL, 0);
    weir_rpc_stream_finish(w.server_end.s, 13, "a second status is ignored", NULL, 0);
    assert_int_equal(weir_rpc_stream_send(w.server_end.s, bytes), WEIR_UNAVAILABLE);
    for (int i = 1; i <= n; i++) {
        END_WAIT(&end, end.n_got == i);
        weir_rpc_stream_resume(end.s);
    }
    END_WAIT(&end, end.n_closed > 0);
    assert_int_equal(end.status, 0);
    assert_int_equal(end.bytes, (size_t)n << 20);
    END_WAIT(&w.server_end, w.server_end.n_closed > 0);
    assert_int_equal(w.server_end.status, 0);
    assert_int_equal(w.server_end.n_sent, n);
    end_release(&end);
    test_free(big);
}

/* [S2] A reader that takes nothing stops the sender; once it goes on, nothing is lost. */
static void test_back_pressure(void **state)
{
    const int n = 200000;
    struct end end;

    (void)state;
    atomic_store(&n_counted, 0);
    world_call(&w, &end, "/t.T/Count", 0);
    pthread_mutex_lock(&end.lock);
    end.hold = true;
    pthread_mutex_unlock(&end.lock);
    end_send(&end, "200000");
    weir_rpc_stream_send_done(end.s);
    END_WAIT(&end, end.n_got == 1);
    usleep(
        300000); /* no assertion fails by being too quick: a sender that isn't stopped is far ahead by now */
    assert_in_range(atomic_load(&n_counted), 1, 10000);
    pthread_mutex_lock(&end.lock);
    assert_int_equal(end.n_got, 1);
    end.hold = false;
    pthread_mutex_unlock(&end.lock);
    weir_rpc_stream_resume(end.s);
    weir_rpc_stream_resume(end.s); /* twice is once */
    END_WAIT(&end, end.n_closed > 0);
    assert_int_equal(end.n_got, n);
    assert_string_equal(end.last, "199999");
    end_release(&end);
}

/* Whoever resumes may be quicker than the callback that stops: the stream must not stay stopped. */
static void test_resume_before_the_stop(void **state)
{
    struct end end;

    (void)state;
    world_call(&w, &end, "/t.T/Count", 0);
    pthread_mutex_lock(&end.lock);
    end.hold = end.resume_inside = true;
    pthread_mutex_unlock(&end.lock);
    end_send(&end, "100");
    END_WAIT(&end, end.n_closed > 0);
    assert_int_equal(end.status, 0);
    assert_int_equal(end.n_got, 100);
    end_release(&end);
}

static int setup_lookahead(void **state)
{
    (void)state;
    world_open(&w, (struct weir_rpc_server_opts){ 0 },
               (struct weir_rpc_channel_opts){ .lookahead_bytes = 16384 });
    return 0;
}

static void test_half_close(void **state)
{
    struct end end;

    (void)state;
    world_call(&w, &end, "/t.T/Hold", 0);
    END_WAIT(&w.server_end, w.server_end.s);
    END_NOW(&w.server_end, !w.server_end.peer_done);
    end_send(&end, "last");
    weir_rpc_stream_send_done(end.s);
    weir_rpc_stream_send_done(end.s); /* twice is once */
    END_WAIT(&w.server_end, w.server_end.peer_done);
    assert_int_equal(w.server_end.n_got, 1);
    end_send(&w.server_end, "still here"); /* the other half goes on */
    END_WAIT(&end, end.n_got == 1);
    weir_rpc_stream_finish(w.server_end.s, 0, "", NULL, 0);
    END_WAIT(&end, end.n_closed > 0);
    assert_int_equal(end.status, 0);
    end_release(&end);
}

static void test_what_the_server_sees(void **state)
{
    struct end end;
    uint64_t deadline_ns = weir_now_ns() + 100 * WEIR_S;

    (void)state;
    world_call(&w, &end, "/t.T/Hold", deadline_ns);
    END_WAIT(&w.server_end, w.server_end.s);
    assert_string_equal(w.server_end.seen_meta, "a value");
    assert_memory_equal(w.server_end.peer, "127.0.0.1:", 10);
    /* The wire has the time left, rounded up, not the time of day. */
    assert_in_range(w.server_end.deadline_ns, deadline_ns - 10 * WEIR_S, deadline_ns + 10 * WEIR_S);
    weir_rpc_stream_cancel(end.s);
    END_WAIT(&w.server_end, w.server_end.n_closed > 0);
    END_WAIT(&end, end.n_closed > 0);
    end_release(&end);
}

static void test_status_and_trailing(void **state)
{
    struct end end;

    (void)state;
    world_call(&w, &end, "/t.T/Trailing", 0);
    end_send(&end, "x");
    END_WAIT(&end, end.n_closed > 0);
    assert_int_equal(end.status, 9);
    assert_string_equal(end.text, "held");
    assert_string_equal(end.seen_meta, "gone");
    end_release(&end);
}

static void test_unknown_method(void **state)
{
    struct end end;

    (void)state;
    world_call(&w, &end, "/t.T/Nothing", 0); /* no deadline: it must be answered, not time out */
    END_WAIT(&end, end.n_closed > 0);
    assert_int_equal(end.status, 12);
    assert_non_null(strstr(end.text, "/t.T/Nothing"));
    end_release(&end);
}

static void test_refusal_says_why(void **state)
{
    struct end end;

    (void)state;
    world_call(&w, &end, "/t.T/Refuse", 0);
    END_WAIT(&end, end.n_closed > 0);
    assert_int_equal(end.status, 8);
    assert_string_equal(end.text, "acme is over its limit");
    end_release(&end);
}

/* [S3] */
static void test_client_cancel(void **state)
{
    struct end end;

    (void)state;
    world_call(&w, &end, "/t.T/Hold", 0);
    END_WAIT(&w.server_end, w.server_end.s);
    weir_rpc_stream_cancel(end.s);
    END_WAIT(&end, end.n_closed > 0);
    assert_int_equal(end.status, 1);
    END_WAIT(&w.server_end, w.server_end.n_closed > 0);
    assert_int_equal(w.server_end.status, 1);
    weir_rpc_stream_cancel(end.s); /* after the end: nothing */
    weir_rpc_stream_finish(w.server_end.s, 0, "", NULL, 0);
    weir_rpc_stream_resume(end.s);
    end_release(&end);
}

static void test_server_cancel(void **state)
{
    struct end end;

    (void)state;
    world_call(&w, &end, "/t.T/Hold", 0);
    END_WAIT(&w.server_end, w.server_end.s);
    weir_rpc_stream_cancel(w.server_end.s);
    END_WAIT(&end, end.n_closed > 0);
    assert_int_not_equal(end.status, 0);
    END_WAIT(&w.server_end, w.server_end.n_closed > 0);
    assert_int_equal(w.server_end.status, 1);
    end_release(&end);
}

static void test_deadline(void **state)
{
    struct end end;

    (void)state;
    world_call(&w, &end, "/t.T/Hold", weir_now_ns() + 200 * WEIR_MS);
    END_WAIT(&end, end.n_closed > 0);
    assert_int_equal(end.status, 4);
    pthread_mutex_lock(&w.server_end.lock);
    bool arrived = w.server_end.s != NULL; /* a very slow machine may not get that far */
    pthread_mutex_unlock(&w.server_end.lock);
    if (arrived) {
        END_WAIT(&w.server_end, w.server_end.n_closed > 0);
        assert_int_equal(w.server_end.status, 1);
    }
    end_release(&end);
    world_call(&w, &end, "/t.T/Echo", weir_now_ns() - WEIR_S); /* has passed */
    END_WAIT(&end, end.n_closed > 0);
    assert_int_equal(end.status, 4);
    end_release(&end);
}

static void test_oversize(void **state)
{
    struct end end;
    char *big = test_malloc(3 << 20);

    (void)state;
    memset(big, 'x', 3 << 20);
    world_call(&w, &end, "/t.T/Hold", 0); /* the server takes 2 MiB */
    END_WAIT(&w.server_end, w.server_end.s);
    assert_int_equal(weir_rpc_stream_send(end.s, (struct weir_str){ big, 3 << 20 }), WEIR_OK);
    END_WAIT(&end, end.n_closed > 0);
    assert_int_equal(end.status, 8);
    END_WAIT(&w.server_end, w.server_end.n_closed > 0);
    assert_int_equal(w.server_end.status, 1);
    assert_int_equal(w.server_end.n_got, 0);
    end_release(&end);
    end_release(&w.server_end);
    end_init(&w.server_end);

    world_call(&w, &end, "/t.T/Hold", 0); /* the client takes 1 MiB */
    END_WAIT(&w.server_end, w.server_end.s);
    assert_int_equal(weir_rpc_stream_send(w.server_end.s, (struct weir_str){ big, 1 << 20 }), WEIR_OK);
    END_WAIT(&end, end.n_got == 1);
    END_WAIT(&w.server_end, w.server_end.n_sent == 1);
    assert_int_equal(weir_rpc_stream_send(w.server_end.s, (struct weir_str){ big, (1 << 20) + 1 }), WEIR_OK);
    END_WAIT(&end, end.n_closed > 0);
    assert_int_equal(end.status, 8);
    END_WAIT(&w.server_end, w.server_end.n_closed > 0);
    end_release(&end);
    test_free(big);
}

static int setup_small(void **state)
{
    (void)state;
    world_open(&w, (struct weir_rpc_server_opts){ .message_bytes_max = 2 << 20 },
               (struct weir_rpc_channel_opts){ .message_bytes_max = 1 << 20 });
    return 0;
}

static void test_bad_arguments(void **state)
{
    const struct weir_rpc_meta bad[] = { { WEIR_STR("Upper"), WEIR_STR("x") },
                                         { WEIR_STR("key"), WEIR_STR("a\nb") } };
    struct weir_rpc_channel_opts opts = { .address = "127.0.0.1" };
    struct weir_rpc_channel *channel = NULL;
    struct weir_rpc_stream *s = NULL;
    struct weir_why why;

    (void)state;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(
            weir_rpc_channel_call(w.channel, "/t.T/Echo", &bad[i], 1, 0, &end_ops, NULL, &s, &why),
            WEIR_INVALID);
        assert_null(s);
    }
    assert_int_equal(weir_rpc_channel_open(w.rpc, &opts, &channel, &why), WEIR_INVALID);
    assert_string_equal(why.param, "address");
    assert_non_null(strstr(why.text, "127.0.0.1"));
}

/* [K1] A channel may be closed as soon as its call is made. */
static void test_channel_closed_early(void **state)
{
    struct weir_rpc_channel_opts opts = { .address = w.address };
    struct weir_rpc_channel *channel = NULL;
    struct end end;

    (void)state;
    assert_int_equal(weir_rpc_channel_open(w.rpc, &opts, &channel, NULL), WEIR_OK);
    channel_call(channel, &end, "/t.T/Echo", 0);
    weir_rpc_channel_close(channel);
    end_send(&end, "hello");
    END_WAIT(&end, end.n_got == 1);
    weir_rpc_stream_send_done(end.s);
    END_WAIT(&end, end.n_closed > 0);
    assert_int_equal(end.status, 0);
    end_release(&end);
}

static void test_nobody_there(void **state)
{
    struct weir_rpc_channel_opts opts = { .address = "127.0.0.1:1" };
    struct weir_rpc_channel *channel = NULL;
    struct end end;

    (void)state;
    assert_int_equal(weir_rpc_channel_open(w.rpc, &opts, &channel, NULL), WEIR_OK);
    channel_call(channel, &end, "/t.T/Echo", 0);
    END_WAIT(&end, end.n_closed > 0);
    assert_int_equal(end.status, 14);
    end_release(&end);
    weir_rpc_channel_close(channel);
}

/* ---- many at once, leaving in every way: each ends once, nothing leaks, no race ---- */
enum { STORM_THREADS = 4, STORM_CALLS = 60 };

static void *storm(void *arg)
{
    unsigned seed = (unsigned)(uintptr_t)arg;

    for (int i = 0; i < STORM_CALLS; i++) {
        struct end end;
        world_call(&w, &end, i % 3 == 0 ? "/t.T/Count" : "/t.T/Echo", 0);
        unsigned way = (unsigned)rand_r(&seed) % 4;
        if (way != 0)
            (void)!weir_rpc_stream_send(end.s, WEIR_STR("20"));
        if (way == 1)
            weir_rpc_stream_cancel(end.s);
        if (way == 2) {
            END_WAIT(&end, end.n_got >= 1 || end.n_closed > 0);
            weir_rpc_stream_cancel(end.s);
        }
        weir_rpc_stream_send_done(end.s);
        if (way == 0)
            weir_rpc_stream_cancel(end.s); /* Count would wait for its number */
        END_WAIT(&end, end.n_closed > 0);
        end_release(&end);
    }
    return NULL;
}

static void test_storm(void **state)
{
    pthread_t threads[STORM_THREADS];

    (void)state;
    for (uintptr_t i = 0; i < STORM_THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, storm, (void *)(i + 1)), 0);
    for (int i = 0; i < STORM_THREADS; i++)
        pthread_join(threads[i], NULL);
}

int main(void)
{
#define TEST(name, open) cmocka_unit_test_setup_teardown(name, open, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_echo_thousand, setup),
        TEST(test_server_streams, setup),
        TEST(test_one_send_at_a_time, setup),
        TEST(test_back_pressure, setup_lookahead),
        TEST(test_resume_before_the_stop, setup),
        TEST(test_half_close, setup),
        TEST(test_what_the_server_sees, setup),
        TEST(test_status_and_trailing, setup),
        TEST(test_unknown_method, setup),
        TEST(test_refusal_says_why, setup),
        TEST(test_client_cancel, setup),
        TEST(test_server_cancel, setup),
        TEST(test_deadline, setup),
        TEST(test_oversize, setup_small),
        TEST(test_bad_arguments, setup),
        TEST(test_channel_closed_early, setup),
        TEST(test_nobody_there, setup),
        TEST(test_storm, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
