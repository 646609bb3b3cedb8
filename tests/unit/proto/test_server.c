/* test_server.c - listening, connections, and the ways a server ends. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/metrics.h"
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

static weir_err try_listen(const char *listen, struct weir_rpc_server **ret, struct weir_why *why)
{
    struct weir_rpc_server_opts opts = { .listen = listen,
                                         .handlers = world_handlers,
                                         .n_handlers = WORLD_HANDLERS };
    return weir_rpc_server_open(w.rpc, &opts, ret, why);
}

static int raw_connect(int port)
{
    struct sockaddr_in addr = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    struct timeval patience = { .tv_sec = 30 };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof addr), 0);
    return fd;
}

/* A live connection is greeted with HTTP/2 settings; a refused one ends. */
static bool is_served(int fd)
{
    char byte;
    ssize_t n = recv(fd, &byte, 1, 0);

    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        fail_msg("neither served nor refused");
    return n == 1;
}

static void assert_echo_works(struct weir_rpc_channel *channel)
{
    struct end end;

    channel_call(channel, &end, "/t.T/Echo", 0);
    end_send(&end, "hello");
    END_WAIT(&end, end.n_got == 1);
    weir_rpc_stream_send_done(end.s);
    END_WAIT(&end, end.n_closed > 0);
    assert_int_equal(end.status, 0);
    end_release(&end);
}

/* ---- listening ---- */
static void test_taken_port_is_an_error(void **state)
{
    struct weir_rpc_server *second = NULL;
    struct weir_why why;

    (void)state;
    assert_int_equal(try_listen(w.address, &second, &why), WEIR_IO);
    assert_null(second);
    assert_non_null(strstr(why.text, w.address));
    assert_non_null(strstr(why.text, "in use"));
    assert_string_equal(why.param, "listen");
    assert_echo_works(w.channel); /* the first is none the worse */
}

static void test_bad_addresses(void **state)
{
    static const struct {
        const char *listen;
        weir_err rc;
    } rows[] = {
        { NULL, WEIR_INVALID },           { "", WEIR_INVALID },         { "9000", WEIR_INVALID },
        { ":9000", WEIR_INVALID },        { "h:", WEIR_INVALID },       { "h:x", WEIR_INVALID },
        { "h:65536", WEIR_INVALID },      { "::1:9000", WEIR_INVALID }, { "[]:9000", WEIR_INVALID },
        { "h:-1", WEIR_INVALID },         { "192.0.2.1:0", WEIR_IO },   { "h:1000000", WEIR_INVALID },
        { "no.such.invalid:0", WEIR_IO },
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct weir_rpc_server *server = NULL;
        struct weir_why why = { .text = "" };
        assert_int_equal(try_listen(rows[i].listen, &server, &why), rows[i].rc);
        assert_null(server);
        assert_string_equal(why.param, "listen");
    }
}

static void test_kinds_of_addresses(void **state)
{
    static const char *const listens[] = { "0.0.0.0:0", "localhost:0", "[::1]:0", "[::]:0" };

    (void)state;
    for (size_t i = 0; i < sizeof listens / sizeof listens[0]; i++) {
        struct weir_rpc_server *server = NULL;
        struct weir_rpc_channel *channel = NULL;
        struct weir_why why;
        char address[64];
        weir_err rc = try_listen(listens[i], &server, &why);
        if (rc == WEIR_IO && strchr(listens[i], '[') && strstr(why.text, "assign"))
            continue; /* a machine without IPv6 */
        assert_int_equal(rc, WEIR_OK);
        assert_in_range(weir_rpc_server_port(server), 1, 65535);
        snprintf(address, sizeof address, "%s:%d",
                 i == 2   ? "[::1]"
                 : i == 1 ? "localhost"
                          : "127.0.0.1",
                 weir_rpc_server_port(server));
        struct weir_rpc_channel_opts opts = { .address = address };
        assert_int_equal(weir_rpc_channel_open(w.rpc, &opts, &channel, &why), WEIR_OK);
        assert_echo_works(channel);
        weir_rpc_channel_close(channel);
        weir_rpc_server_close(server);
    }
}

/* ---- connections ---- */
static int setup_two_connections(void **state)
{
    (void)state;
    world_open(&w, (struct weir_rpc_server_opts){ .connections_max = 2 },
               (struct weir_rpc_channel_opts){ 0 });
    return 0;
}

static uint64_t n_refused(const char *reason)
{
    return weir_counter_get(weir_counter("weir_rpc_connections_refused_total", reason, ""));
}

/* [A2] */
static void test_connection_cap(void **state)
{
    (void)state;
    int port = weir_rpc_server_port(w.server);
    int a = raw_connect(port), b = raw_connect(port);
    assert_true(is_served(a));
    assert_true(is_served(b));
    int c = raw_connect(port);
    assert_false(is_served(c));
    assert_int_equal(n_refused("reason=\"cap\""), 1);
    close(a);
    close(c);
    bool served = false;
    while (!served) { /* the server hears of `a` a moment later */
        int d = raw_connect(port);
        served = is_served(d);
        close(d);
    }
    close(b);
}

/* [A1] No descriptor is left when connections come in: they are refused, and later ones are served. */
static void test_out_of_descriptors(void **state)
{
    enum { DESCRIPTORS_MAX = 4096, REFUSED = 3 };
    static int filler[DESCRIPTORS_MAX];
    struct rlimit before, lim;
    int n = 0, raw[REFUSED];

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    assert_echo_works(w.channel); /* what the core opens late is open */
    lim = before;
    lim.rlim_cur = 256;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &lim), 0);
    for (int i = 0; i < REFUSED; i++) { /* places for the clients' sockets */
        raw[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
        assert_true(raw[i] >= 0);
    }
    while (n < DESCRIPTORS_MAX && (filler[n] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
        n++;
    assert_in_range(n, 1, DESCRIPTORS_MAX - 1);
    for (int i = 0; i < REFUSED; i++) {
        close(raw[i]);
        raw[i] = raw_connect(weir_rpc_server_port(w.server));
        assert_true(raw[i] >= 0);
        assert_false(is_served(raw[i]));
    }
    assert_true(n_refused("reason=\"descriptors\"") >=
                REFUSED - 1);     /* the last may be counted a moment later */
    assert_echo_works(w.channel); /* a connection that was there goes on */
    for (int i = 0; i < n; i++)
        close(filler[i]);
    for (int i = 0; i < REFUSED; i++)
        close(raw[i]);
    int late = raw_connect(weir_rpc_server_port(w.server));
    assert_true(is_served(late));
    close(late);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
}

/* ---- ends ---- */
static void *drain_patiently(void *arg)
{
    weir_rpc_server_drain(arg, /* timeout_ms= */ 600000);
    return NULL;
}

static void test_drain_waits_for_calls(void **state)
{
    struct weir_rpc_channel_opts opts = { .address = w.address };
    struct weir_rpc_channel *late = NULL;
    struct end end, refused;
    pthread_t drainer;

    (void)state;
    world_call(&w, &end, "/t.T/Hold", 0);
    END_WAIT(&w.server_end, w.server_end.s);
    assert_int_equal(pthread_create(&drainer, NULL, drain_patiently, w.server), 0);
    assert_int_equal(weir_rpc_channel_open(w.rpc, &opts, &late, NULL), WEIR_OK);
    do { /* until the port is closed */
        channel_call(late, &refused, "/t.T/Trailing", weir_now_ns() + 30 * WEIR_S);
        if (weir_rpc_stream_send(refused.s, WEIR_STR("x")) != WEIR_OK)
            weir_rpc_stream_cancel(refused.s);
        END_WAIT(&refused, refused.n_closed > 0);
        end_release(&refused);
    } while (refused.status == 9);
    /* Nobody there; or, for one that came between, the core's own way to turn it away. */
    assert_true(refused.status == 14 || refused.status == 1);
    weir_rpc_channel_close(late);

    end_send(&w.server_end, "a last word");
    END_WAIT(&end, end.n_got == 1);
    weir_rpc_stream_finish(w.server_end.s, 0, "", NULL, 0);
    END_WAIT(&end, end.n_closed > 0);
    assert_int_equal(end.status, 0);
    pthread_join(drainer, NULL);
    assert_int_equal(w.server_end.n_closed, 1); /* [V2] */
    assert_int_equal(w.server_end.status, 0);
    end_release(&end);
}

static void test_drain_cancels_the_rest(void **state)
{
    struct end end;

    (void)state;
    world_call(&w, &end, "/t.T/Hold", 0);
    END_WAIT(&w.server_end, w.server_end.s);
    weir_rpc_server_drain(w.server, /* timeout_ms= */ 50);
    assert_int_equal(w.server_end.n_closed, 1);
    assert_int_equal(w.server_end.status, 1);
    END_WAIT(&end, end.n_closed > 0);
    assert_int_not_equal(end.status, 0);
    end_release(&end);
}

static void test_server_goes_while_open(void **state)
{
    struct weir_rpc_server *server = NULL;
    struct end end;

    (void)state;
    world_call(&w, &end, "/t.T/Hold", 0);
    END_WAIT(&w.server_end, w.server_end.s);
    weir_rpc_server_close(w.server);
    w.server = NULL;
    END_WAIT(&end, end.n_closed > 0);
    assert_int_not_equal(end.status, 0);
    end_release(&end);

    /* The same channel finds the next server at that address. */
    assert_int_equal(try_listen(w.address, &server, NULL), WEIR_OK);
    do {
        channel_call(w.channel, &end, "/t.T/Trailing", 0);
        if (weir_rpc_stream_send(end.s, WEIR_STR("x")) != WEIR_OK)
            weir_rpc_stream_cancel(end.s);
        END_WAIT(&end, end.n_closed > 0);
        end_release(&end);
    } while (end.status == 14);
    assert_int_equal(end.status, 9);
    weir_rpc_server_close(server);
}

/* A reference kept after the end holds nothing up. [S4] */
static void test_kept_reference(void **state)
{
    struct end end;

    (void)state;
    world_call(&w, &end, "/t.T/Hold", 0);
    END_WAIT(&w.server_end, w.server_end.s);
    weir_rpc_stream_cancel(end.s);
    END_WAIT(&end, end.n_closed > 0);
    weir_rpc_channel_close(w.channel);
    weir_rpc_server_close(w.server);
    weir_rpc_close(w.rpc);
    w.channel = NULL;
    w.server = NULL;
    w.rpc = NULL;
    assert_int_equal(weir_rpc_stream_send(end.s, WEIR_STR("x")), WEIR_UNAVAILABLE);
    weir_rpc_stream_cancel(w.server_end.s);
    weir_rpc_stream_finish(w.server_end.s, 0, "late", NULL, 0);
    end_release(&end);
}

static void test_half_built(void **state)
{
    struct weir_rpc *rpc = NULL;
    struct weir_why why;

    (void)state;
    assert_int_equal(weir_rpc_open(0, &rpc, &why), WEIR_INVALID);
    assert_int_equal(weir_rpc_open(65, &rpc, &why), WEIR_INVALID);
    weir_rpc_close(NULL);
    weir_rpc_server_close(NULL);
    weir_rpc_channel_close(NULL);
    weir_rpc_stream_unref(NULL);
}

int main(void)
{
#define TEST(name, open) cmocka_unit_test_setup_teardown(name, open, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_taken_port_is_an_error, setup), TEST(test_bad_addresses, setup),
        TEST(test_kinds_of_addresses, setup),     TEST(test_connection_cap, setup_two_connections),
        TEST(test_out_of_descriptors, setup),     TEST(test_drain_waits_for_calls, setup),
        TEST(test_drain_cancels_the_rest, setup), TEST(test_server_goes_while_open, setup),
        TEST(test_kept_reference, setup),         cmocka_unit_test(test_half_built),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
