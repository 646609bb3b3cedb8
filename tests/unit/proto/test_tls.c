/* test_tls.c - TLS and mutual TLS, with certificates made here by the openssl program. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/proto/harness.h"

static struct world w;
static char dir[64];
static char ca[96], cert[96], key[96], other_ca[96], client_cert[96], client_key[96], stranger_cert[96],
    stranger_key[96], empty[96];

static void run(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void run(const char *fmt, ...)
{
    char command[1024];
    va_list args;

    va_start(args, fmt);
    vsnprintf(command, sizeof command, fmt, args);
    va_end(args);
    if (system(command) != 0)
        fail_msg("failed: %s", command);
}

/* A key and a certificate that `issuer` signed; itself when it has no issuer. */
static void issue(const char *name, const char *issuer, char *ret_cert, char *ret_key)
{
    snprintf(ret_cert, 96, "%s/%s.crt", dir, name);
    snprintf(ret_key, 96, "%s/%s.key", dir, name);
    run("openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout %s -out %s/%s.csr -subj "
        "/CN=%s "
        "2>/dev/null",
        ret_key, dir, name, name);
    run("printf 'subjectAltName=DNS:%s\\nbasicConstraints=CA:%s\\n' > %s/ext", name,
        issuer ? "FALSE" : "TRUE", dir);
    if (issuer)
        run("openssl x509 -req -in %s/%s.csr -CA %s/%s.crt -CAkey %s/%s.key -CAcreateserial -days 2 -extfile "
            "%s/ext "
            "-out %s 2>/dev/null",
            dir, name, dir, issuer, dir, issuer, dir, ret_cert);
    else
        run("openssl x509 -req -in %s/%s.csr -signkey %s -days 2 -extfile %s/ext -out %s 2>/dev/null", dir,
            name, ret_key, dir, ret_cert);
}

static int make_certificates(void **state)
{
    char unused[96];

    (void)state;
    snprintf(dir, sizeof dir, "/tmp/weir-test-tls-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    issue("ca", NULL, ca, unused);
    issue("other", NULL, other_ca, unused);
    issue("weir-server", "ca", cert, key);
    issue("weir-client", "ca", client_cert, client_key);
    issue("stranger", "other", stranger_cert, stranger_key);
    snprintf(empty, sizeof empty, "%s/empty", dir);
    run(": > %s", empty);
    return 0;
}

static int remove_certificates(void **state)
{
    (void)state;
    run("rm -r %s", dir);
    return 0;
}

static void open_with(const char *server_ca, struct weir_rpc_tls client)
{
    struct weir_rpc_server_opts sopts = { .tls = {
                                              .ca_file = server_ca, .cert_file = cert, .key_file = key } };
    struct weir_rpc_channel_opts copts = { .tls = client };

    world_open(&w, sopts, copts);
}

/* Whether a call gets through; closes the world. */
static int status_of_call(void)
{
    struct end end;

    world_call(&w, &end, "/t.T/Echo", 0);
    if (weir_rpc_stream_send(end.s, WEIR_STR("secret")) == WEIR_OK)
        END_WAIT(&end, end.n_got == 1 || end.n_closed > 0);
    weir_rpc_stream_send_done(end.s);
    END_WAIT(&end, end.n_closed > 0);
    int status = end.status;
    assert_int_equal(end.n_got, status == 0 ? 1 : 0);
    end_release(&end);
    world_close(&w);
    return status;
}

static void test_tls(void **state)
{
    (void)state;
    open_with(NULL, (struct weir_rpc_tls){ .ca_file = ca, .server_name = "weir-server" });
    assert_int_equal(status_of_call(), 0);
    open_with(NULL, (struct weir_rpc_tls){ .ca_file = other_ca, .server_name = "weir-server" });
    assert_int_equal(status_of_call(), 14); /* not who we trust */
    open_with(NULL, (struct weir_rpc_tls){ .ca_file = ca, .server_name = "weir-client" });
    assert_int_equal(status_of_call(), 14); /* not who we meant */
    open_with(NULL, (struct weir_rpc_tls){ 0 });
    assert_int_equal(status_of_call(), 14); /* in the clear */
}

static void test_mutual_tls(void **state)
{
    (void)state;
    open_with(ca, (struct weir_rpc_tls){ ca, client_cert, client_key, "weir-server" });
    assert_int_equal(status_of_call(), 0);
    open_with(ca, (struct weir_rpc_tls){ .ca_file = ca, .server_name = "weir-server" });
    assert_int_equal(status_of_call(), 14); /* no certificate */
    open_with(ca, (struct weir_rpc_tls){ ca, stranger_cert, stranger_key, "weir-server" });
    assert_int_equal(status_of_call(), 14); /* one that somebody else signed */
}

static void test_peer_is_named(void **state)
{
    struct end end;

    (void)state;
    open_with(NULL, (struct weir_rpc_tls){ .ca_file = ca, .server_name = "weir-server" });
    world_call(&w, &end, "/t.T/Hold", 0);
    END_WAIT(&w.server_end, w.server_end.s);
    assert_memory_equal(w.server_end.peer, "127.0.0.1:", 10);
    weir_rpc_stream_cancel(end.s);
    END_WAIT(&end, end.n_closed > 0);
    end_release(&end);
    world_close(&w);
}

static void test_bad_files(void **state)
{
    const struct {
        struct weir_rpc_tls tls;
        const char *at_fault;
    } rows[] = {
        { { NULL, cert, NULL, NULL }, "key_file" },
        { { NULL, NULL, key, NULL }, "cert_file" },
        { { ca, NULL, NULL, NULL }, "cert_file" },
        { { NULL, "/no/such", key, NULL }, "/no/such" },
        { { NULL, cert, "/no/such", NULL }, "/no/such" },
        { { NULL, cert, client_key, NULL }, client_key },
        { { NULL, empty, key, NULL }, empty },
        { { empty, cert, key, NULL }, empty },
        { { NULL, key, key, NULL }, key },
    };
    struct weir_rpc *rpc = NULL;

    (void)state;
    assert_int_equal(weir_rpc_open(1, &rpc, NULL), WEIR_OK);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct weir_rpc_server_opts opts = { .listen = "127.0.0.1:0", .tls = rows[i].tls };
        struct weir_rpc_server *server = NULL;
        struct weir_why why = { .text = "" };
        assert_int_equal(weir_rpc_server_open(rpc, &opts, &server, &why), WEIR_INVALID);
        assert_null(server);
        if (!strstr(why.text, rows[i].at_fault) && !strstr(why.param, rows[i].at_fault))
            fail_msg("row %zu: %s (%s)", i, why.text, why.param);
    }
    struct weir_rpc_channel_opts copts = { .address = "127.0.0.1:1", .tls = { .ca_file = "/no/such" } };
    struct weir_rpc_channel *channel = NULL;
    struct weir_why why;
    assert_int_equal(weir_rpc_channel_open(rpc, &copts, &channel, &why), WEIR_INVALID);
    assert_non_null(strstr(why.text, "/no/such"));
    weir_rpc_close(rpc);
}

static void test_taken_port_is_an_error(void **state)
{
    struct weir_rpc_server_opts opts = { .tls = { .cert_file = cert, .key_file = key } };
    struct weir_rpc_server *second = NULL;
    struct weir_why why;

    (void)state;
    open_with(NULL, (struct weir_rpc_tls){ .ca_file = ca, .server_name = "weir-server" });
    opts.listen = w.address;
    assert_int_equal(weir_rpc_server_open(w.rpc, &opts, &second, &why), WEIR_IO);
    assert_non_null(strstr(why.text, "in use"));
    assert_int_equal(status_of_call(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tls),
        cmocka_unit_test(test_mutual_tls),
        cmocka_unit_test(test_peer_is_named),
        cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_taken_port_is_an_error),
    };
    if (system("openssl version >/dev/null 2>&1") != 0) {
        fprintf(stderr, "skipped: no openssl program\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, make_certificates, remove_certificates);
}
