/* The clients of the serving benchmark, against a server of this process that answers each connection in pieces. */
#include <arpa/inet.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "bench/clients.h"

static struct clients_opts opts_of(uint32_t n_clients, uint32_t n_requests)
{
    return (struct clients_opts){ "127.0.0.1:9",
                                  "/v1/completions",
                                  "key",
                                  "m",
                                  n_clients,
                                  n_requests,
                                  /* n_shared= */ 3,
                                  /* n_own= */ 2,
                                  /* n_out= */ 4,
                                  /* id_min= */ 10,
                                  /* id_max= */ 9999,
                                  1,
                                  2 };
}

/* ---- prompts ---- */
static const char *prompt(const struct clients_opts *opts, uint32_t i_client, uint32_t i_request,
                          struct weir_buf *out)
{
    weir_buf_init(out, 0);
    clients_prompt(opts, i_client, i_request, out);
    return weir_buf_cstr(out);
}

static size_t equal_ids(const char *a, const char *b)
{
    size_t n = 0;

    for (; *a && *a == *b; a++, b++)
        n += *a == ',';
    return n + (*a == *b);
}

static size_t compare(const struct clients_opts *a, const struct clients_opts *b, uint32_t i_client,
                      uint32_t i_request)
{
    struct weir_buf one, two;
    size_t n = equal_ids(prompt(a, 0, 0, &one), prompt(b, i_client, i_request, &two));

    weir_buf_release(&one);
    weir_buf_release(&two);
    return n;
}

static void test_prompts_share_what_they_should(void **state)
{
    struct clients_opts opts = opts_of(2, 2), other = opts;

    (void)state;
    assert_int_equal(compare(&opts, &opts, 0, 0), 5);
    assert_int_equal(compare(&opts, &opts, 0, 1), 3);
    assert_int_equal(compare(&opts, &opts, 1, 0), 3);
    other.shared_seed++;
    assert_int_equal(compare(&opts, &other, 0, 0), 0);
    opts.n_shared = 0;
    other = opts;
    other.shared_seed++;
    assert_int_equal(compare(&opts, &other, 0, 0), 2);
    other.own_seed++;
    assert_int_equal(compare(&opts, &other, 0, 0), 0);
}

/* ---- whole runs ---- */
struct server {
    int fd;
    uint32_t n_left; /* connections to answer */
    const char *pieces[4];
    char target[32], request[4096]; /* the last one */
};

static void answer(struct server *server, int fd)
{
    size_t n = 0;

    do {
        ssize_t got = recv(fd, server->request + n, sizeof server->request - 1 - n, 0);
        if (got <= 0)
            return; /* no assertion works on this thread; the client tells */
        server->request[n += (size_t)got] = '\0';
    } while (!strstr(server->request, "]}"));
    for (int i = 0; i < 4 && server->pieces[i]; i++) {
        usleep(3000); /* mostly a read of its own for each */
        if (send(fd, server->pieces[i], strlen(server->pieces[i]), MSG_NOSIGNAL) < 0)
            return;
    }
}

static void *serve(void *arg)
{
    struct server *server = arg;

    for (; server->n_left > 0; server->n_left--) {
        int fd = accept(server->fd, NULL, NULL);
        answer(server, fd);
        close(fd);
    }
    return NULL;
}

static void listen_on(struct server *server)
{
    struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof addr;

    server->fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(server->fd, (struct sockaddr *)&addr, len), 0);
    assert_int_equal(listen(server->fd, 16), 0);
    assert_int_equal(getsockname(server->fd, (struct sockaddr *)&addr, &len), 0);
    snprintf(server->target, sizeof server->target, "127.0.0.1:%d", ntohs(addr.sin_port));
}

static struct clients_answer *run(struct server *server, struct clients_opts *opts)
{
    struct clients_answer *answers = NULL;
    struct weir_why why = { 0 };
    pthread_t thread;

    listen_on(server);
    opts->target = server->target;
    assert_int_equal(pthread_create(&thread, NULL, serve, server), 0);
    assert_int_equal(clients_run(opts, &answers, &why), WEIR_OK);
    pthread_join(thread, NULL);
    close(server->fd);
    return answers;
}

#define HEAD "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
#define BODY "data: 1\n\ndata: 2\n\ndata: 3\n\n"

static void assert_whole(const struct clients_answer *a)
{
    assert_null(a->fault);
    assert_int_equal(a->status, 200);
    assert_int_equal(weir_buf_len(&a->body), sizeof BODY - 1);
    assert_memory_equal(weir_buf_ptr(&a->body), BODY, sizeof BODY - 1);
    assert_in_range(a->n_reads, 1, 2); /* one on a machine too busy to read between the two */
    assert_int_equal(a->reads[0].n_events, a->n_reads == 1 ? 3 : 1);
    assert_int_equal(a->reads[a->n_reads - 1].n_events, 3);
    assert_true(a->sent_ns < a->reads[0].at_ns);
    assert_true(a->n_reads == 1 || a->reads[0].at_ns < a->reads[1].at_ns);
}

static void test_each_asks_in_a_row(void **state)
{
    struct server server = { .n_left = 6,
                             .pieces = { HEAD, "9\r\ndata: 1\n\n\r\n", "12\r\ndata: 2\n\ndata: 3\n\n\r\n",
                                         "0\r\n\r\n" } };
    struct clients_opts opts = opts_of(2, 3);
    struct clients_answer *answers = run(&server, &opts);

    (void)state;
    for (int i = 0; i < 6; i++)
        assert_whole(&answers[i]);
    for (int i = 0; i < 5; i++)
        assert_true(i == 2 || answers[i].reads[answers[i].n_reads - 1].at_ns < answers[i + 1].sent_ns);
    assert_non_null(strstr(server.request, "POST /v1/completions HTTP/1.1\r\n"));
    assert_non_null(strstr(server.request, "authorization: Bearer key\r\n"));
    assert_non_null(strstr(server.request, "\"max_tokens\":4,"));
    clients_close(answers, 6);
}

static void test_who_is_refused_asks_no_more(void **state)
{
    struct server server = { .n_left = 1,
                             .pieces = { "HTTP/1.1 429 Slow\r\ncontent-length: 4\r\n\r\nbusy" } };
    struct clients_opts opts = opts_of(1, 3);
    struct clients_answer *answers = run(&server, &opts);

    (void)state;
    assert_null(answers[0].fault);
    assert_int_equal(answers[0].status, 429);
    assert_int_equal(weir_buf_len(&answers[0].body), 4);
    assert_true(answers[0].sent_ns > 0 && answers[1].sent_ns == 0 && answers[2].status == 0);
    clients_close(answers, 3);
}

static void test_an_end_too_early_is_told(void **state)
{
    struct server server = { .n_left = 1, .pieces = { HEAD, "9\r\ndata: 1\n\n\r\n" } };
    struct clients_opts opts = opts_of(1, 1);
    struct clients_answer *answers = run(&server, &opts);

    (void)state;
    assert_string_equal(answers[0].fault, "the connection closed in the middle of an answer");
    assert_int_equal(answers[0].n_reads, 1);
    clients_close(answers, 1);
}

static void test_no_server(void **state)
{
    struct clients_opts opts = opts_of(2, 1);
    struct clients_answer *answers = NULL;
    struct weir_why why = { 0 };

    (void)state;
    opts.target = "nowhere";
    assert_int_equal(clients_run(&opts, &answers, &why), WEIR_INVALID);
    assert_null(answers);
    opts.target = "127.0.0.1:1";
    assert_int_equal(clients_run(&opts, &answers, &why), WEIR_OK);
    assert_string_equal(answers[1].fault, "can't connect");
    clients_close(answers, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prompts_share_what_they_should),
        cmocka_unit_test(test_each_asks_in_a_row),
        cmocka_unit_test(test_who_is_refused_asks_no_more),
        cmocka_unit_test(test_an_end_too_early_is_told),
        cmocka_unit_test(test_no_server),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
