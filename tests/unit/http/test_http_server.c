/* test_http_server.c - the server over real loopback sockets. The test's thread turns the loop itself, so
 * that a test says what happens in which order; nothing here waits for a time to pass, only for something to
 * happen. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/thread.h"
#include "http/http_int.h"

enum { PATIENCE_S = 20 }; /* a test that waits so long has failed */

/* The application under test: what the path says. */

static struct app {
    struct weir_loop *loop;
    struct weir_http_server *server;
    struct weir_http_req *pending; /* /later, /stream */
    int n_requests, n_gone, n_drained;
    char peer[64];
} app;

static void app_gone(struct weir_http_req *req)
{
    assert_ptr_equal(req->user, &app);
    app.n_gone++;
    if (app.pending == req)
        app.pending = NULL;
}

static void app_request(void *ctx, struct weir_http_req *req)
{
    assert_ptr_equal(ctx, &app);
    app.n_requests++;
    snprintf(app.peer, sizeof app.peer, "%s", req->peer);
    if (weir_str_eq(req->path, "/hello")) {
        weir_http_respond(req, 200, NULL, "hello", 5);
    } else if (weir_str_eq(req->path, "/echo")) {
        struct weir_http_fields fields;
        weir_http_fields_init(&fields);
        weir_http_fields_add(&fields, "x-token", weir_http_header(req, "X-TOKEN"));
        weir_http_fields_add(&fields, "x-query", req->query);
        weir_http_respond(req, 200, &fields, req->body.ptr, req->body.len);
    } else if (weir_str_eq(req->path, "/huge")) {
        char *body = calloc(1, 32 << 20);
        weir_http_respond(req, 200, NULL, body, 32 << 20);
        free(body);
    } else if (weir_str_eq(req->path, "/204")) {
        weir_http_respond(req, 204, NULL, NULL, 0);
    } else if (weir_str_eq(req->path, "/abort")) {
        weir_http_abort(req);
    } else {
        assert_null(app.pending);
        app.pending = req;
        req->user = &app;
        req->on_gone = app_gone;
        if (weir_str_eq(req->path, "/stream"))
            weir_http_stream_begin(req, 200, NULL);
    }
}

static void app_head(void *ctx, struct weir_http_req *req)
{
    (void)ctx;
    assert_int_equal(req->body.len, 0);
    if (weir_str_eq(req->path, "/forbidden"))
        weir_http_respond(req, 403, NULL, "no", 2);
}

static void app_error(void *ctx, int status, const char *text, struct weir_http_fields *fields,
                      struct weir_buf *body)
{
    (void)ctx;
    weir_http_fields_adds(fields, "content-type", "application/json");
    weir_buf_addf(body, "{\"status\":%d,\"text\":\"%s\"}", status, text);
}

static void app_drained(void *ctx)
{
    (void)ctx;
    app.n_drained++;
}

static const struct weir_http_hooks hooks = {
    .ctx = &app,
    .on_request = app_request,
    .on_head = app_head,
    .on_error = app_error,
    .on_drained = app_drained,
};

static void open_server(const struct weir_http_opts *change)
{
    struct weir_http_opts opts = change ? *change : (struct weir_http_opts){ .name = NULL };
    struct weir_why why = { .text = "" };
    opts.name = "test";
    opts.listen = "127.0.0.1:0";
    memset(&app, 0, sizeof app);
    assert_int_equal(weir_loop_open(0, &app.loop, &why), WEIR_OK);
    if (weir_http_server_open(&opts, &hooks, &app.loop, 1, &app.server, &why) != WEIR_OK)
        fail_msg("%s", why.text);
}

static void close_server(void)
{
    weir_http_server_close(app.server);
    weir_loop_close(app.loop);
    app.server = NULL;
    app.loop = NULL;
}

static uint64_t count_of(const char *name, const char *more_labels)
{
    char labels[140];
    snprintf(labels, sizeof labels, "listener=\"test\"%s", more_labels);
    return weir_counter_get(weir_counter(name, labels, ""));
}

static uint64_t refused(const char *reason)
{
    char labels[100];
    snprintf(labels, sizeof labels, ",reason=\"%s\"", reason);
    return count_of("weir_http_refused_total", labels);
}

/* A client whose every wait turns the loop. */

struct client {
    int fd;
    bool ended, reset;
    struct weir_buf in;
};

static void dial(struct client *client)
{
    struct sockaddr_in to = { .sin_family = AF_INET,
                              .sin_port = htons((uint16_t)weir_http_server_port(app.server)) };
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    memset(client, 0, sizeof *client);
    client->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(client->fd >= 0);
    assert_int_equal(connect(client->fd, (struct sockaddr *)&to, sizeof to), 0);
    assert_int_equal(fcntl(client->fd, F_SETFL, O_NONBLOCK), 0);
}

static void hang_up(struct client *client)
{
    close(client->fd);
    weir_buf_release(&client->in);
}

static bool drain_socket(struct client *client)
{
    char piece[65536];
    ssize_t n;
    while ((n = recv(client->fd, piece, sizeof piece, 0)) > 0)
        weir_buf_add(&client->in, piece, (size_t)n);
    if (n == 0)
        client->ended = true;
    else if (errno != EAGAIN)
        client->ended = client->reset = true;
    return true;
}

/* Turns the loop until `done`. */
#define TURN_UNTIL(done)                                                                                     \
    do {                                                                                                     \
        uint64_t give_up_ns = weir_now_ns() + PATIENCE_S * WEIR_S;                                           \
        while (!(done)) {                                                                                    \
            if (weir_now_ns() > give_up_ns)                                                                  \
                fail_msg("waited in vain for %s", #done);                                                    \
            weir_loop_turn(app.loop, /* timeout_ms= */ 2);                                                   \
        }                                                                                                    \
    } while (0)

static void say_bytes(struct client *client, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = send(client->fd, data, len, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN) /* refused half way: what the test is about will show it */
            return;
        data += n > 0 ? n : 0;
        len -= n > 0 ? (size_t)n : 0;
        if (n < 0)
            weir_loop_turn(app.loop, 2);
    }
}

static void say(struct client *client, const char *text)
{
    say_bytes(client, text, strlen(text));
}

static const char *heard(struct client *client)
{
    const char *text = weir_buf_cstr(&client->in);
    return text ? text : "";
}

static void hear(struct client *client, const char *needle)
{
    TURN_UNTIL(drain_socket(client) && (strstr(heard(client), needle) || client->ended));
    if (!strstr(heard(client), needle))
        fail_msg("the connection ended without `%s`: %s", needle, heard(client));
}

static void hear_end(struct client *client)
{
    TURN_UNTIL(drain_socket(client) && client->ended);
}

static void forget(struct client *client)
{
    weir_buf_clear(&client->in);
}

#define H "Host: a\r\n"

static void test_keep_alive(void **state)
{
    struct client c;
    (void)state;
    open_server(NULL);
    dial(&c);
    for (int i = 0; i < 3; i++) {
        say(&c, "GET /hello HTTP/1.1\r\n" H "\r\n");
        hear(&c, "\r\n\r\nhello");
        assert_int_equal(strncmp(heard(&c), "HTTP/1.1 200 OK\r\n", 17), 0);
        assert_non_null(strstr(heard(&c), "\r\nserver: weir\r\n"));
        assert_non_null(strstr(heard(&c), " GMT\r\n"));
        assert_non_null(strstr(heard(&c), "\r\ncontent-length: 5\r\n"));
        assert_null(strstr(heard(&c), "connection:"));
        forget(&c);
    }
    assert_int_equal(strncmp(app.peer, "127.0.0.1:", 10), 0);
    assert_int_equal(weir_http_server_connections(app.server), 1);
    say(&c, "GET /hello HTTP/1.1\r\n" H "Connection: close\r\n\r\n");
    hear(&c, "\r\nconnection: close\r\n");
    hear_end(&c);
    assert_false(c.reset);
    assert_int_equal(weir_http_server_connections(app.server), 0);
    hang_up(&c);
    close_server();
}

/* [C2] */
static void test_pipelined_requests_are_answered_in_order(void **state)
{
    struct client c;
    (void)state;
    open_server(NULL);
    dial(&c);
    say(&c,
        "GET /later HTTP/1.1\r\n" H "\r\nPOST /echo HTTP/1.1\r\n" H
        "Content-Length: 6\r\n\r\nsecondGET /hello HTTP/1.1\r\n" H "\r\n\r\nGET /204 HTTP/1.1\r\n" H "\r\n");
    TURN_UNTIL(app.pending);
    assert_int_equal(app.n_requests, 1);
    weir_http_respond(app.pending, 200, NULL, "first", 5);
    app.pending = NULL;
    hear(&c, "204 No Content");
    const char *first = strstr(heard(&c), "first"), *second = strstr(heard(&c), "second");
    const char *third = strstr(heard(&c), "hello");
    assert_true(first && second && third && first < second && second < third);
    assert_null(strstr(strstr(heard(&c), "204 No Content"), "content-length"));
    hang_up(&c);
    close_server();
}

static void test_headers_query_and_body_reach_the_handler(void **state)
{
    static const char request[] =
        "POST /echo?a=%20b HTTP/1.1\r\n" H "x-token: t\r\nTransfer-Encoding: chunked\r\n\r\n"
        "5\r\nhello\r\n1\r\n!\r\n0\r\nx: y\r\n\r\n";
    struct client c;
    (void)state;
    open_server(NULL);
    dial(&c);
    for (size_t i = 0; i < sizeof request - 1; i++) {
        say_bytes(&c, request + i, 1);
        weir_loop_turn(app.loop, 0);
    }
    hear(&c, "\r\n\r\nhello!");
    assert_non_null(strstr(heard(&c), "\r\nx-token: t\r\nx-query: a=%20b\r\n"));
    hang_up(&c);
    close_server();
}

static void test_a_large_body_arrives_whole(void **state)
{
    enum { LEN = 3 << 20 };
    struct client c;
    char head[100];
    char *body = malloc(LEN);
    (void)state;
    open_server(NULL);
    dial(&c);
    for (size_t i = 0; i < LEN; i++)
        body[i] = (char)(i * 2654435761u >> 24);
    snprintf(head, sizeof head, "POST /echo HTTP/1.1\r\n" H "Content-Length: %d\r\n\r\n", LEN);
    for (int i = 0; i < 2; i++) {
        say(&c, head);
        say_bytes(&c, body, LEN);
        hear(&c, "\r\n\r\n");
        size_t n_head = (size_t)(strstr(heard(&c), "\r\n\r\n") + 4 - heard(&c));
        TURN_UNTIL(drain_socket(&c) && weir_buf_len(&c.in) == n_head + LEN);
        assert_memory_equal(weir_buf_ptr(&c.in) + n_head, body, LEN);
        forget(&c);
    }
    free(body);
    hang_up(&c);
    close_server();
}

/* A refusal says why, in the application's form, and reaches even a client that sends on without reading. */
static void refused_as(const char *request, size_t n_more, const char *status, const char *label)
{
    struct client c;
    char *more = calloc(1, n_more + 1);
    uint64_t before = refused(label);
    dial(&c);
    say(&c, request);
    say_bytes(&c, more, n_more);
    hear_end(&c);
    assert_false(c.reset);
    assert_non_null(strstr(heard(&c), status));
    assert_non_null(strstr(heard(&c), "\r\nconnection: close\r\n"));
    assert_non_null(strstr(heard(&c), "{\"status\":"));
    assert_int_equal(refused(label), before + 1);
    free(more);
    hang_up(&c);
}

static void test_refusals(void **state)
{
    struct weir_http_opts opts = { .body_max = 1 << 20 };
    char *long_line = calloc(1, 60000);
    (void)state;
    open_server(&opts);
    refused_as("POST /echo HTTP/1.1\r\n" H "Content-Length: 2000000\r\n\r\n", 2000000, " 413 ",
               "body_too_large");
    refused_as("POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n200000\r\n", 2000000, " 413 ",
               "body_too_large");
    refused_as("GET / HTTP/1.1\r\n" H "a b\r\n\r\n", 0, " 400 ", "header_name");
    refused_as("GET / HTTP/3.0\r\n\r\n", 0, " 505 ", "version");
    refused_as("POST / HTTP/1.1\r\n" H "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 0, " 400 ",
               "length_and_encoding");
    memset(long_line, 'a', 50000);
    refused_as(long_line, 0, " 414 ", "line_too_long");
    memcpy(long_line, "GET / HTTP/1.1\r\nx:", 18);
    refused_as(long_line, 0, " 431 ", "head_too_large");
    assert_int_equal(app.n_requests, 0);
    free(long_line);
    close_server();
}

/* Each body is small enough, all together are not; when one is done there is room again. */
static void test_all_bodies_together_are_bounded(void **state)
{
    static const char half[] = "POST /later HTTP/1.1\r\n" H "Content-Length: 600\r\n\r\n";
    struct weir_http_opts opts = { .bodies_max = 1000 };
    static char body[600];
    struct client c;
    (void)state;
    open_server(&opts);
    dial(&c);
    say(&c, half);
    say_bytes(&c, body, sizeof body);
    TURN_UNTIL(app.pending);
    refused_as(half, sizeof body, " 503 ", "bodies");
    weir_http_respond(app.pending, 200, NULL, "one", 3);
    app.pending = NULL;
    hear(&c, "one");
    say(&c, half);
    say_bytes(&c, body, sizeof body);
    TURN_UNTIL(app.pending);
    hang_up(&c);
    TURN_UNTIL(app.n_gone);
    assert_int_equal(atomic_load(&app.server->body_bytes), 0);
    close_server();
}

static void test_refusal_before_the_body(void **state)
{
    struct client c;
    (void)state;
    open_server(NULL);
    dial(&c);
    say(&c, "GET /forbidden HTTP/1.1\r\n" H "\r\n"); /* no body: the connection lives on */
    hear(&c, "\r\n\r\nno");
    assert_null(strstr(heard(&c), "connection: close"));
    say(&c, "POST /forbidden HTTP/1.1\r\n" H "Content-Length: 1000000\r\nExpect: 100-continue\r\n\r\n");
    hear(&c, "connection: close");
    hear_end(&c);
    assert_null(strstr(heard(&c), "100 Continue"));
    assert_int_equal(app.n_requests, 0);
    hang_up(&c);
    close_server();
}

static void test_expect_continue(void **state)
{
    struct client c;
    (void)state;
    open_server(NULL);
    dial(&c);
    say(&c, "POST /echo HTTP/1.1\r\n" H "Content-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    hear(&c, "HTTP/1.1 100 Continue\r\n\r\n");
    say(&c, "body");
    hear(&c, "\r\n\r\nbody");
    hang_up(&c);
    close_server();
}

/* [C1] However a client leaves, and whatever it left unread, the handler hears of it once, before any byte of
 * an answer. */
static void test_a_client_that_leaves_is_noticed(void **state)
{
    enum how { CLOSE, HALF_CLOSE, RESET, CLOSE_BEHIND_UNREAD, WITH_THE_REQUEST, N_HOW };
    (void)state;
    for (int streaming = 0; streaming <= 1; streaming++) {
        for (int how = 0; how < N_HOW; how++) {
            struct client c;
            static char junk[20000];
            open_server(NULL);
            dial(&c);
            say(&c, streaming ? "GET /stream HTTP/1.1\r\n" H "\r\n" : "GET /later HTTP/1.1\r\n" H "\r\n");
            if (how == WITH_THE_REQUEST)
                shutdown(c.fd, SHUT_WR);
            else
                TURN_UNTIL(app.pending);
            if (how == CLOSE_BEHIND_UNREAD) {
                assert_true(send(c.fd, junk, sizeof junk, 0) > 0);
                for (int i = 0; i < 5; i++)
                    weir_loop_turn(app.loop, 0);
                assert_int_equal(app.n_gone, 0);
            }
            if (how == HALF_CLOSE)
                shutdown(c.fd, SHUT_WR);
            if (how == RESET) {
                struct linger none = { .l_onoff = 1 };
                setsockopt(c.fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
            }
            if (how == CLOSE || how == RESET || how == CLOSE_BEHIND_UNREAD)
                close(c.fd);
            TURN_UNTIL(app.n_gone);
            assert_null(app.pending);
            for (int i = 0; i < 5; i++)
                weir_loop_turn(app.loop, 0);
            assert_int_equal(app.n_gone, 1);
            assert_int_equal(weir_http_server_connections(app.server), 0);
            if (how == HALF_CLOSE || how == WITH_THE_REQUEST)
                close(c.fd);
            weir_buf_release(&c.in);
            close_server();
        }
    }
}

static void test_half_closed_clients_get_complete_answers(void **state)
{
    struct client c;
    (void)state;
    open_server(NULL);
    dial(&c);
    say(&c, "GET /hello HTTP/1.1\r\n" H "\r\nGET /204 HTTP/1.1\r\n" H "\r\n");
    shutdown(c.fd, SHUT_WR);
    hear_end(&c);
    assert_false(c.reset);
    assert_non_null(strstr(heard(&c), "\r\n\r\nhello"));
    assert_non_null(strstr(heard(&c), " 204 "));
    hang_up(&c);
    close_server();
}

/* One byte now and again does not extend a deadline. */
static void test_slow_senders_are_cut_off(void **state)
{
    struct weir_http_opts opts = { .head_ms = 60, .body_ms = 60, .idle_ms = 60, .body_rate = 1 << 30 };
    static const char *starts[] = { "GET / HTTP/1.1\r\nx: ",
                                    "POST /echo HTTP/1.1\r\n" H "Content-Length: 99999\r\n\r\n" };
    static const char *labels[] = { "head_timeout", "body_timeout" };
    struct client c;
    (void)state;
    open_server(&opts);
    for (int i = 0; i < 2; i++) {
        uint64_t before = refused(labels[i]);
        dial(&c);
        say(&c, starts[i]);
        TURN_UNTIL(drain_socket(&c) && (say(&c, "a"), c.ended || strstr(heard(&c), " 408 ")));
        assert_int_equal(refused(labels[i]), before + 1);
        assert_non_null(strstr(heard(&c), " 408 "));
        hear_end(&c);
        hang_up(&c);
    }
    /* A silent one is closed without a word; so is one that sent but the empty line old clients add. */
    for (int i = 0; i < 2; i++) {
        dial(&c);
        if (i == 1)
            say(&c, "\r\n");
        hear_end(&c);
        assert_string_equal(heard(&c), "");
        hang_up(&c);
    }
    assert_int_equal(weir_http_server_connections(app.server), 0);
    close_server();
}

/* While the handler works there is no deadline, and the idle one counts anew after each answer. */
static void test_the_handlers_time_is_its_own(void **state)
{
    struct weir_http_opts opts = { .head_ms = 20, .body_ms = 20, .idle_ms = 20, .stall_ms = 20 };
    struct client c;
    (void)state;
    open_server(&opts);
    dial(&c);
    say(&c, "GET /later HTTP/1.1\r\n" H "\r\n");
    TURN_UNTIL(app.pending);
    uint64_t until_ns = weir_now_ns() + 200 * WEIR_MS;
    TURN_UNTIL(weir_now_ns() > until_ns);
    assert_non_null(app.pending);
    weir_http_respond(app.pending, 200, NULL, "done", 4);
    app.pending = NULL;
    hear(&c, "\r\n\r\ndone");
    hear_end(&c); /* idle */
    hang_up(&c);
    close_server();
}

static void test_stream(void **state)
{
    struct client c;
    (void)state;
    open_server(NULL);
    dial(&c);
    say(&c, "GET /stream HTTP/1.1\r\n" H "\r\n");
    hear(&c, "transfer-encoding: chunked\r\n\r\n");
    assert_int_equal(weir_http_stream_write(app.pending, "data: 1\n\n", 9), WEIR_OK);
    assert_int_equal(weir_http_stream_write(app.pending, "", 0), WEIR_OK); /* not the end */
    assert_int_equal(weir_http_stream_write(app.pending, "data: 2, and longer\n\n", 21), WEIR_OK);
    forget(&c);
    hear(&c, "longer");
    assert_int_equal(weir_http_stream_waiting(app.pending), 0);
    assert_string_equal(heard(&c), "9\r\ndata: 1\n\n\r\n15\r\ndata: 2, and longer\n\n\r\n");
    forget(&c);
    weir_http_stream_end(app.pending);
    app.pending = NULL;
    hear(&c, "0\r\n\r\n");
    say(&c, "GET /hello HTTP/1.1\r\n" H "\r\n");
    hear(&c, "hello");
    hang_up(&c);
    close_server();
}

static void test_stream_for_http_1_0_ends_with_the_connection(void **state)
{
    struct client c;
    (void)state;
    open_server(NULL);
    dial(&c);
    say(&c, "GET /stream HTTP/1.0\r\n\r\n");
    hear(&c, "\r\n\r\n");
    assert_null(strstr(heard(&c), "chunked"));
    assert_int_equal(weir_http_stream_write(app.pending, "abc", 3), WEIR_OK);
    weir_http_stream_end(app.pending);
    app.pending = NULL;
    hear_end(&c);
    assert_false(c.reset);
    assert_non_null(strstr(heard(&c), "\r\nconnection: close\r\n\r\nabc"));
    hang_up(&c);
    close_server();
}

static void test_head_gets_no_body(void **state)
{
    struct client c;
    (void)state;
    open_server(NULL);
    dial(&c);
    say(&c, "HEAD /hello HTTP/1.1\r\n" H "\r\nHEAD /stream HTTP/1.1\r\n" H "\r\n");
    TURN_UNTIL(app.pending);
    assert_int_equal(weir_http_stream_write(app.pending, "abc", 3), WEIR_OK);
    weir_http_stream_end(app.pending);
    app.pending = NULL;
    say(&c, "GET /hello HTTP/1.1\r\n" H "\r\n");
    hear(&c, "\r\n\r\nhello");
    const char *second = strstr(heard(&c), "content-length: 5\r\n\r\nHTTP/1.1 200 OK");
    assert_non_null(second);
    assert_non_null(strstr(second, "chunked\r\n\r\nHTTP/1.1 200 OK"));
    hang_up(&c);
    close_server();
}

static void test_an_aborted_stream_is_no_end(void **state)
{
    struct client c;
    (void)state;
    open_server(NULL);
    dial(&c);
    say(&c, "GET /stream HTTP/1.1\r\n" H "\r\n");
    TURN_UNTIL(app.pending);
    assert_int_equal(weir_http_stream_write(app.pending, "abc", 3), WEIR_OK);
    hear(&c, "abc\r\n");
    weir_http_abort(app.pending);
    app.pending = NULL;
    hear_end(&c);
    assert_true(c.reset);
    assert_int_equal(app.n_gone, 0);
    hang_up(&c);
    dial(&c);
    say(&c, "GET /abort HTTP/1.1\r\n" H "\r\n");
    hear_end(&c);
    assert_true(c.reset);
    hang_up(&c);
    close_server();
}

/* [R3] Who does not read makes its own answer fail; memory stays within the bound. */
static void test_a_slow_reader_hits_the_bound(void **state)
{
    enum { MAX = 100000 };
    struct weir_http_opts opts = { .output_max = MAX };
    static char piece[5000];
    struct client c;
    weir_err rc = WEIR_OK;
    uint64_t before = refused("output_full");
    (void)state;
    open_server(&opts);
    dial(&c);
    say(&c, "GET /stream HTTP/1.1\r\n" H "\r\n");
    TURN_UNTIL(app.pending);
    for (int i = 0; i < 100000 && rc == WEIR_OK; i++) {
        rc = weir_http_stream_write(app.pending, piece, sizeof piece);
        assert_true(weir_http_stream_waiting(app.pending) <= MAX);
        weir_loop_turn(app.loop, 0);
    }
    assert_int_equal(rc, WEIR_FULL);
    assert_int_equal(app.n_gone, 0);
    assert_int_equal(refused("output_full"), before + 1);
    assert_int_equal(weir_http_stream_write(app.pending, piece, sizeof piece),
                     WEIR_FULL); /* still the caller's choice */
    weir_http_abort(app.pending);
    app.pending = NULL;
    hear_end(&c);
    assert_true(c.reset);
    hang_up(&c);
    close_server();
}

/* A reader that stops is cut off: of a stream the handler hears; of a whole answer it has nothing more to do
 * with. */
static void test_a_stalled_reader_is_cut_off(void **state)
{
    struct weir_http_opts opts = { .stall_ms = 300, .output_max = 64 << 20 };
    static char piece[1 << 20];
    struct client c;
    uint64_t before = refused("write_stall");
    (void)state;
    open_server(&opts);
    dial(&c);
    say(&c, "GET /huge HTTP/1.1\r\n" H "\r\n");
    TURN_UNTIL(refused("write_stall") == before + 1);
    assert_int_equal(weir_http_server_connections(app.server), 0);
    assert_int_equal(app.n_gone, 0);
    hang_up(&c);

    dial(&c);
    say(&c, "GET /stream HTTP/1.1\r\n" H "\r\n");
    TURN_UNTIL(app.pending);
    for (int i = 0; i < 32; i++)
        assert_int_equal(weir_http_stream_write(app.pending, piece, sizeof piece), WEIR_OK);
    /* That we go on writing is no progress of the client's. */
    TURN_UNTIL((app.pending && weir_http_stream_write(app.pending, "a", 1) != WEIR_OK) || app.n_gone == 1);
    assert_int_equal(app.n_gone, 1);
    assert_int_equal(refused("write_stall"), before + 2);
    hang_up(&c);
    close_server();
}

/* A slow reader that does read gets everything. */
static void test_a_slow_reader_gets_a_large_answer(void **state)
{
    struct client c;
    size_t total = 0;
    char piece[16384];
    (void)state;
    open_server(NULL);
    dial(&c);
    say(&c, "GET /huge HTTP/1.1\r\n" H "\r\n");
    while (total < 32 << 20) {
        ssize_t n = recv(c.fd, piece, sizeof piece, 0);
        assert_true(n > 0 || (n < 0 && errno == EAGAIN));
        total += n > 0 ? (size_t)n : 0;
        weir_loop_turn(app.loop, 0);
    }
    say(&c, "GET /hello HTTP/1.1\r\n" H "\r\n");
    hear(&c, "hello");
    hang_up(&c);
    close_server();
}

/* [S1] */
static void test_drain(void **state)
{
    struct client idle, busy, half;
    (void)state;
    open_server(NULL);
    dial(&idle), dial(&busy), dial(&half);
    say(&idle, "GET /hello HTTP/1.1\r\n" H "\r\n");
    hear(&idle, "hello");
    say(&busy, "GET /later HTTP/1.1\r\n" H "\r\n");
    TURN_UNTIL(app.pending);
    say(&half, "GET /hello HTTP/1.1\r\n");
    weir_http_server_drain(app.server, /* timeout_ms= */ 60000);
    weir_http_server_drain(app.server, /* timeout_ms= */ 1); /* the first word counts */
    hear_end(&idle);
    assert_int_equal(app.n_drained, 0);

    struct sockaddr_in to = { .sin_family = AF_INET,
                              .sin_port = htons((uint16_t)weir_http_server_port(app.server)) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), -1);
    close(fd);

    say(&half, H "\r\n");
    hear(&half, "connection: close");
    hear_end(&half);
    assert_non_null(strstr(heard(&half), "hello"));
    weir_http_respond(app.pending, 200, NULL, "done", 4);
    app.pending = NULL;
    hear_end(&busy);
    assert_non_null(strstr(heard(&busy), "connection: close\r\n"));
    assert_non_null(strstr(heard(&busy), "done"));
    TURN_UNTIL(app.n_drained);
    weir_loop_turn(app.loop, 0);
    assert_int_equal(app.n_drained, 1);
    hang_up(&idle), hang_up(&busy), hang_up(&half);
    close_server();
}

static void test_drain_answers_what_has_arrived(void **state)
{
    struct client old, fresh;
    (void)state;
    open_server(NULL);
    dial(&old);
    say(&old, "GET /hello HTTP/1.1\r\n" H "\r\n");
    hear(&old, "hello");
    forget(&old);
    say(&old, "GET /hello HTTP/1.1\r\n" H "\r\n");
    dial(&fresh);
    say(&fresh, "GET /hello HTTP/1.1\r\n" H "\r\n");
    weir_http_server_drain(app.server, /* timeout_ms= */ 60000);
    hear_end(&old);
    hear_end(&fresh);
    assert_non_null(strstr(heard(&old), "hello"));
    assert_non_null(strstr(heard(&fresh), "hello"));
    TURN_UNTIL(app.n_drained);
    hang_up(&old), hang_up(&fresh);
    close_server();
}

static void test_drain_resets_what_is_left_at_its_deadline(void **state)
{
    struct client c;
    (void)state;
    open_server(NULL);
    dial(&c);
    say(&c, "GET /later HTTP/1.1\r\n" H "\r\n");
    TURN_UNTIL(app.pending);
    weir_http_server_drain(app.server, /* timeout_ms= */ 30);
    TURN_UNTIL(app.n_drained);
    assert_int_equal(app.n_gone, 1);
    hear_end(&c);
    assert_true(c.reset);
    hang_up(&c);
    close_server();
}

/* [S2] and: closing tells the handler of what it still has. */
static void test_close_with_a_request_and_a_drain_under_way(void **state)
{
    struct client c;
    (void)state;
    open_server(NULL);
    dial(&c);
    say(&c, "GET /later HTTP/1.1\r\n" H "\r\n");
    TURN_UNTIL(app.pending);
    weir_http_server_drain(app.server, /* timeout_ms= */ 1000);
    weir_http_server_close(app.server);
    app.server = NULL;
    assert_int_equal(app.n_gone, 1);
    weir_loop_turn(app.loop, 0);
    assert_int_equal(app.n_drained, 0);
    hang_up(&c);
    close_server();
}

static void test_connections_are_bounded(void **state)
{
    struct weir_http_opts opts = { .connections_max = 2 };
    struct client a, b, c;
    uint64_t before = refused("connections");
    (void)state;
    open_server(&opts);
    dial(&a), dial(&b);
    TURN_UNTIL(weir_http_server_connections(app.server) == 2);
    dial(&c);
    hear_end(&c);
    assert_non_null(strstr(heard(&c), " 503 "));
    assert_int_equal(refused("connections"), before + 1);
    hang_up(&c);
    hang_up(&b);
    TURN_UNTIL(weir_http_server_connections(app.server) == 1);
    dial(&c);
    say(&c, "GET /hello HTTP/1.1\r\n" H "\r\n");
    hear(&c, "hello");
    hang_up(&a), hang_up(&c);
    close_server();
}

/* Out of descriptors, the waiting client is turned away, the loop does not spin, and service resumes. */
static void test_out_of_descriptors(void **state)
{
    struct rlimit old, low;
    struct client c, d;
    int spare[64], n_spare = 0;
    uint64_t before = refused("descriptors");
    (void)state;
    open_server(NULL);
    dial(&c);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    low = old;
    low.rlim_cur = (rlim_t)c.fd + 4;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    while (n_spare < 64 && (spare[n_spare] = open("/dev/null", O_RDONLY)) >= 0)
        n_spare++;
    hear_end(&c);
    assert_true(refused("descriptors") > before);
    assert_false(app.server->shards[0]->listening);
    while (n_spare > 0)
        close(spare[--n_spare]);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    hang_up(&c);
    dial(&d);
    say(&d, "GET /hello HTTP/1.1\r\n" H "\r\n");
    hear(&d, "hello");
    hang_up(&d);
    close_server();
}

static void test_listen_addresses(void **state)
{
    static const char *bad[] = { "",
                                 "127.0.0.1",
                                 "127.0.0.1:",
                                 "127.0.0.1:x",
                                 "127.0.0.1:65536",
                                 "127.0.0.1:-1",
                                 "::1:80",
                                 "[::1:80",
                                 "no.such.host.invalid:80" };
    static const char *good[] = { "127.0.0.1:0", "localhost:0", ":0" };
    struct weir_loop *loops[2];
    struct weir_http_server *first, *second = NULL;
    struct weir_http_opts opts = { .name = "test" };
    struct weir_why why;
    char taken[40];

    (void)state;
    for (int i = 0; i < 2; i++)
        assert_int_equal(weir_loop_open(i, &loops[i], NULL), WEIR_OK);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        opts.listen = bad[i];
        assert_int_equal(weir_http_server_open(&opts, &hooks, loops, 2, &first, &why), WEIR_INVALID);
        assert_string_equal(why.param, "listen");
    }
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        opts.listen = good[i];
        assert_int_equal(weir_http_server_open(&opts, &hooks, loops, 2, &first, &why), WEIR_OK);
        assert_in_range(weir_http_server_port(first), 1, 65535);
        weir_http_server_close(first);
    }
    /* A second server must not share the port, though the loops of one do. */
    opts.listen = "127.0.0.1:0";
    assert_int_equal(weir_http_server_open(&opts, &hooks, loops, 2, &first, &why), WEIR_OK);
    snprintf(taken, sizeof taken, "127.0.0.1:%d", weir_http_server_port(first));
    opts.listen = taken;
    assert_int_equal(weir_http_server_open(&opts, &hooks, loops, 2, &second, &why), WEIR_CONFLICT);
    assert_null(second);
    assert_non_null(strstr(why.text, taken));
    weir_http_server_close(first);
    assert_int_equal(weir_http_server_open(&opts, &hooks, loops, 2, &second, &why), WEIR_OK);
    weir_http_server_close(second);
    for (int i = 0; i < 2; i++)
        weir_loop_close(loops[i]);
}

/* [R2] */
static void test_a_field_value_cannot_start_another_field(void **state)
{
    struct weir_http_fields fields;
    (void)state;
    weir_http_fields_init(&fields);
    weir_http_fields_adds(&fields, "x-a", "b\r\nset-cookie: c\x7f");
    weir_http_fields_addu(&fields, "x-n", UINT64_MAX);
    weir_http_fields_addu(&fields, "x-z", 0);
    weir_http_fields_addf(&fields, "x-f", "%d%%", 7);
    fields.text[fields.len] = '\0';
    assert_string_equal(fields.text,
                        "x-a: b??set-cookie: c?\r\nx-n: 18446744073709551615\r\nx-z: 0\r\nx-f: 7%\r\n");
}

static void test_an_idle_connection_is_small(void **state)
{
    struct client c;
    (void)state;
    open_server(NULL);
    dial(&c);
    say(&c, "GET /hello HTTP/1.1\r\n" H "\r\n");
    hear(&c, "hello");
    struct http_conn *conn = app.server->shards[0]->conns;
    assert_true(sizeof *conn < 1024);
    assert_null(conn->x);
    assert_null(conn->in.data);
    hang_up(&c);
    close_server();
}

/* Only n allocations succeed: an error or a lost connection, never a crash or a leak; and then service as
 * before. */
static void test_without_memory(void **state)
{
    struct client c;
    (void)state;
    for (int n = 0; n < 14; n++) {
        open_server(NULL);
        dial(&c);
        say(&c, "POST /echo HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\nhelloGET /hello HTTP/1.1\r\n" H "\r\n");
        weir_test_alloc_budget(n);
        for (int i = 0; i < 10; i++)
            weir_loop_turn(app.loop, 0);
        weir_test_alloc_budget(-1);
        hang_up(&c);
        dial(&c);
        say(&c, "GET /hello HTTP/1.1\r\n" H "\r\n");
        hear(&c, "hello");
        hang_up(&c);
        close_server();
    }
    for (int n = 0;; n++) {
        struct weir_loop *loop;
        struct weir_http_server *server = NULL;
        struct weir_http_opts opts = { .name = "test", .listen = "127.0.0.1:0" };
        assert_int_equal(weir_loop_open(0, &loop, NULL), WEIR_OK);
        weir_test_alloc_budget(n);
        weir_err rc = weir_http_server_open(&opts, &hooks, &loop, 1, &server, NULL);
        weir_test_alloc_budget(-1);
        assert_true(rc == WEIR_OK ? server != NULL : rc == WEIR_NOMEM && server == NULL);
        weir_http_server_close(server);
        weir_loop_close(loop);
        if (rc == WEIR_OK)
            break;
    }
}

/* Several loops, each in its thread; answers come from posted tasks; clients in threads of their own. */

enum { N_LOOPS = 2, N_CLIENTS = 8, N_ROUNDS = 50 };

struct answer {
    struct weir_task task;
    struct weir_http_req *req;
};

static void answer_run(struct weir_task *task)
{
    struct answer *answer = (struct answer *)task;
    if (answer->req) {
        assert_ptr_equal(answer->req->loop, weir_loop_current());
        weir_http_respond(answer->req, 200, NULL, "posted", 6);
    }
    free(answer);
}

static void answer_gone(struct weir_http_req *req)
{
    ((struct answer *)req->user)->req = NULL;
}

static void *loop_main(void *arg)
{
    weir_loop_run(arg);
    return NULL;
}

static void threaded_request(void *ctx, struct weir_http_req *req)
{
    struct answer *answer = malloc(sizeof *answer);
    (void)ctx;
    *answer = (struct answer){ .task.run = answer_run, .req = req };
    req->user = answer;
    req->on_gone = answer_gone;
    weir_loop_post(req->loop, &answer->task);
}

static int threaded_port;

static void *threaded_client(void *arg)
{
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)threaded_port) };
    static const char request[] = "GET / HTTP/1.1\r\n" H "\r\n";
    intptr_t n_ok = 0;
    (void)arg;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (int i = 0; i < N_ROUNDS; i++) {
        char in[1000];
        size_t len = 0;
        ssize_t n = 1;
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0 ||
            send(fd, request, sizeof request - 1, MSG_NOSIGNAL) < 0)
            n = 0;
        if (i % 3 == 0) /* some leave at once */
            n = 0, n_ok++;
        while (n > 0 && len < sizeof in - 1) {
            n = recv(fd, in + len, sizeof in - 1 - len, 0);
            len += n > 0 ? (size_t)n : 0;
            in[len] = '\0';
            if (strstr(in, "posted")) {
                n_ok++;
                break;
            }
        }
        close(fd);
    }
    return (void *)n_ok;
}

static void test_many_loops(void **state)
{
    struct weir_http_hooks threaded = { .on_request = threaded_request };
    struct weir_http_opts opts = { .name = "threads", .listen = "127.0.0.1:0" };
    struct weir_loop *loops[N_LOOPS];
    struct weir_thread threads[N_LOOPS];
    pthread_t clients[N_CLIENTS];
    struct weir_http_server *server;

    (void)state;
    memset(threads, 0, sizeof threads);
    for (int i = 0; i < N_LOOPS; i++)
        assert_int_equal(weir_loop_open(i, &loops[i], NULL), WEIR_OK);
    assert_int_equal(weir_http_server_open(&opts, &threaded, loops, N_LOOPS, &server, NULL), WEIR_OK);
    threaded_port = weir_http_server_port(server);
    for (int i = 0; i < N_LOOPS; i++)
        assert_int_equal(weir_thread_start(&threads[i], WEIR_ROLE_IO, "io", loop_main, loops[i], NULL),
                         WEIR_OK);
    for (int i = 0; i < N_CLIENTS; i++)
        assert_int_equal(pthread_create(&clients[i], NULL, threaded_client, NULL), 0);
    for (int i = 0; i < N_CLIENTS; i++) {
        void *n_ok = NULL;
        pthread_join(clients[i], &n_ok);
        assert_int_equal((intptr_t)n_ok, N_ROUNDS);
    }
    weir_http_server_drain(server, /* timeout_ms= */ 100);
    for (int i = 0; i < N_LOOPS; i++)
        weir_loop_stop(loops[i]);
    for (int i = 0; i < N_LOOPS; i++)
        weir_thread_join(&threads[i]);
    weir_http_server_close(server);
    for (int i = 0; i < N_LOOPS; i++)
        weir_loop_close(loops[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keep_alive),
        cmocka_unit_test(test_pipelined_requests_are_answered_in_order),
        cmocka_unit_test(test_headers_query_and_body_reach_the_handler),
        cmocka_unit_test(test_a_large_body_arrives_whole),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_all_bodies_together_are_bounded),
        cmocka_unit_test(test_refusal_before_the_body),
        cmocka_unit_test(test_expect_continue),
        cmocka_unit_test(test_a_client_that_leaves_is_noticed),
        cmocka_unit_test(test_half_closed_clients_get_complete_answers),
        cmocka_unit_test(test_slow_senders_are_cut_off),
        cmocka_unit_test(test_the_handlers_time_is_its_own),
        cmocka_unit_test(test_stream),
        cmocka_unit_test(test_stream_for_http_1_0_ends_with_the_connection),
        cmocka_unit_test(test_head_gets_no_body),
        cmocka_unit_test(test_an_aborted_stream_is_no_end),
        cmocka_unit_test(test_a_slow_reader_hits_the_bound),
        cmocka_unit_test(test_a_stalled_reader_is_cut_off),
        cmocka_unit_test(test_a_slow_reader_gets_a_large_answer),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_drain_answers_what_has_arrived),
        cmocka_unit_test(test_drain_resets_what_is_left_at_its_deadline),
        cmocka_unit_test(test_close_with_a_request_and_a_drain_under_way),
        cmocka_unit_test(test_connections_are_bounded),
        cmocka_unit_test(test_out_of_descriptors),
        cmocka_unit_test(test_listen_addresses),
        cmocka_unit_test(test_a_field_value_cannot_start_another_field),
        cmocka_unit_test(test_an_idle_connection_is_small),
        cmocka_unit_test(test_without_memory),
        cmocka_unit_test(test_many_loops),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
