/* test_http_tls.c - the same server behind TLS: certificates are made here; the client is OpenSSL. */
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
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include "base/clock.h"
#include "base/metrics.h"
#include "http/http_server.h"

enum { PATIENCE_S = 20, BODY = 1 << 20 };

/* A certificate that signs itself, and its key, as PEM files of a temporary folder. */

static char folder[] = "/tmp/weir_tls_XXXXXX";
static char cert[64], key[64], other_cert[64], other_key[64];

static void make_cert(const char *cert_path, const char *key_path, const char *name)
{
    EVP_PKEY *pkey = EVP_EC_gen("P-256");
    X509 *x509 = X509_new();
    FILE *file;

    assert_non_null(pkey);
    X509_set_version(x509, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x509), 1);
    X509_gmtime_adj(X509_getm_notBefore(x509), -3600);
    X509_gmtime_adj(X509_getm_notAfter(x509), 3600);
    X509_set_pubkey(x509, pkey);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x509), "CN", MBSTRING_ASC, (const unsigned char *)name,
                               -1, -1, 0);
    X509_set_issuer_name(x509, X509_get_subject_name(x509));
    assert_true(X509_sign(x509, pkey, EVP_sha256()) > 0);
    file = fopen(cert_path, "w");
    assert_int_equal(PEM_write_X509(file, x509), 1);
    fclose(file);
    file = fopen(key_path, "w");
    assert_int_equal(PEM_write_PrivateKey(file, pkey, NULL, NULL, 0, NULL, NULL), 1);
    fclose(file);
    X509_free(x509);
    EVP_PKEY_free(pkey);
}

static int make_files(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN); /* OpenSSL writes with write(2) */
    if (!mkdtemp(folder))
        return -1;
    snprintf(cert, sizeof cert, "%s/cert", folder);
    snprintf(key, sizeof key, "%s/key", folder);
    snprintf(other_cert, sizeof other_cert, "%s/other_cert", folder);
    snprintf(other_key, sizeof other_key, "%s/other_key", folder);
    make_cert(cert, key, "localhost");
    make_cert(other_cert, other_key, "client");
    return 0;
}

static int remove_files(void **state)
{
    (void)state;
    unlink(cert), unlink(key), unlink(other_cert), unlink(other_key);
    return rmdir(folder);
}

static struct weir_loop *loop;
static struct weir_http_server *server;
static struct weir_http_req *pending;
static int n_gone;

static void on_gone(struct weir_http_req *req)
{
    assert_ptr_equal(req, pending);
    pending = NULL;
    n_gone++;
}

static void on_request(void *ctx, struct weir_http_req *req)
{
    (void)ctx;
    if (weir_str_eq(req->path, "/later")) {
        pending = req;
        req->on_gone = on_gone;
        return;
    }
    weir_http_respond(req, 200, NULL, req->body.ptr, req->body.len);
}

static const struct weir_http_hooks hooks = { .on_request = on_request };

static void open_server(const char *client_ca, uint32_t tls_ms)
{
    struct weir_http_opts opts = { .name = "tls_test",
                                   .listen = "127.0.0.1:0",
                                   .tls_cert = cert,
                                   .tls_key = key,
                                   .tls_client_ca = client_ca,
                                   .tls_ms = tls_ms };
    struct weir_why why;
    pending = NULL;
    n_gone = 0;
    assert_int_equal(weir_loop_open(0, &loop, NULL), WEIR_OK);
    if (weir_http_server_open(&opts, &hooks, &loop, 1, &server, &why) != WEIR_OK)
        fail_msg("%s", why.text);
}

static void close_server(void)
{
    weir_http_server_close(server);
    weir_loop_close(loop);
}

static uint64_t n_refused(void)
{
    return weir_counter_get(
        weir_counter("weir_http_refused_total", "listener=\"tls_test\",reason=\"tls_handshake\"", ""));
}

#define TURN_UNTIL(done)                                                                                     \
    do {                                                                                                     \
        uint64_t give_up_ns = weir_now_ns() + PATIENCE_S * WEIR_S;                                           \
        while (!(done)) {                                                                                    \
            if (weir_now_ns() > give_up_ns)                                                                  \
                fail_msg("waited in vain for %s", #done);                                                    \
            weir_loop_turn(loop, /* timeout_ms= */ 2);                                                       \
        }                                                                                                    \
    } while (0)

struct client {
    int fd;
    SSL_CTX *tls;
    SSL *ssl;
};

static void dial(struct client *client)
{
    struct sockaddr_in to = { .sin_family = AF_INET,
                              .sin_port = htons((uint16_t)weir_http_server_port(server)) };
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    client->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(client->fd, (struct sockaddr *)&to, sizeof to), 0);
    assert_int_equal(fcntl(client->fd, F_SETFL, O_NONBLOCK), 0);
    client->tls = SSL_CTX_new(TLS_client_method());
    SSL_CTX_load_verify_locations(client->tls, cert, NULL);
    SSL_CTX_set_verify(client->tls, SSL_VERIFY_PEER, NULL);
    client->ssl = SSL_new(client->tls);
    SSL_set_fd(client->ssl, client->fd);
    SSL_set_connect_state(client->ssl);
}

static void hang_up(struct client *client)
{
    SSL_free(client->ssl);
    SSL_CTX_free(client->tls);
    close(client->fd);
}

/* 1: done; 0: not yet; -1: failed. */
static int outcome(struct client *client, int n)
{
    if (n > 0)
        return 1;
    int error = SSL_get_error(client->ssl, n);
    return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? 0 : -1;
}

static int shake(struct client *client)
{
    int rc = 0;
    TURN_UNTIL((rc = outcome(client, SSL_do_handshake(client->ssl))) != 0);
    return rc;
}

static void say(struct client *client, const char *data, size_t len)
{
    while (len > 0) {
        int n = SSL_write(client->ssl, data, len < 9000 ? (int)len : 9000);
        assert_true(outcome(client, n) >= 0);
        data += n > 0 ? n : 0;
        len -= n > 0 ? (size_t)n : 0;
        weir_loop_turn(loop, 0);
    }
}

static size_t hear(struct client *client, char *in, size_t len)
{
    size_t have = 0;
    int rc = 1;
    while (have < len && rc >= 0) {
        int n = SSL_read(client->ssl, in + have, (int)(len - have));
        rc = outcome(client, n);
        have += n > 0 ? (size_t)n : 0;
        weir_loop_turn(loop, 1);
    }
    return have;
}

static void test_round_trip(void **state)
{
    static const char first[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    static char body[BODY], in[BODY + 1000];
    char head[100];
    struct client c;
    const unsigned char *alpn;
    unsigned alpn_len;

    (void)state;
    for (size_t i = 0; i < sizeof body; i++)
        body[i] = (char)(i * 2654435761u >> 24);
    open_server(NULL, 0);
    dial(&c);
    SSL_set_alpn_protos(c.ssl, (const unsigned char *)"\x02h2\x08http/1.1", 12);
    assert_int_equal(shake(&c), 1);
    SSL_get0_alpn_selected(c.ssl, &alpn, &alpn_len);
    assert_int_equal(alpn_len, 8);
    for (int i = 0; i < 2; i++) {
        size_t n_first = sizeof "HTTP/1.1 200 OK\r\nserver: weir\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
                                "content-length: 0\r\n\r\n" -
                         1;
        say(&c, first, sizeof first - 1);
        assert_int_equal(hear(&c, in, n_first), n_first);
        assert_int_equal(strncmp(in, "HTTP/1.1 200 OK\r\n", 17), 0);
        snprintf(head, sizeof head, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", BODY);
        say(&c, head, strlen(head));
        say(&c, body, sizeof body);
        size_t n = n_first + strlen("1048576") - 1 + BODY;
        assert_int_equal(hear(&c, in, n), n);
        assert_memory_equal(in + n - BODY, body, BODY);
    }
    hang_up(&c);
    TURN_UNTIL(weir_http_server_connections(server) == 0);
    close_server();
}

static void test_a_client_that_leaves_is_noticed(void **state)
{
    static const char later[] = "GET /later HTTP/1.1\r\nHost: a\r\n\r\n";
    struct client c;
    (void)state;
    open_server(NULL, 0);
    dial(&c);
    assert_int_equal(shake(&c), 1);
    say(&c, later, sizeof later - 1);
    TURN_UNTIL(pending);
    SSL_shutdown(c.ssl);
    hang_up(&c);
    TURN_UNTIL(n_gone == 1);
    close_server();
}

static void test_a_complete_answer_ends_with_goodbye(void **state)
{
    static const char last[] = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    static char in[1000];
    struct client c;
    (void)state;
    open_server(NULL, 0);
    dial(&c);
    assert_int_equal(shake(&c), 1);
    say(&c, last, sizeof last - 1);
    in[hear(&c, in, sizeof in - 1)] = '\0'; /* to the end */
    assert_non_null(strstr(in, "connection: close\r\n"));
    assert_int_equal(SSL_get_shutdown(c.ssl) & SSL_RECEIVED_SHUTDOWN, SSL_RECEIVED_SHUTDOWN);
    hang_up(&c);
    close_server();
}

static void test_bad_handshakes_are_refused(void **state)
{
    struct client c;
    char byte;
    (void)state;
    open_server(NULL, /* tls_ms= */ 50);
    uint64_t before = n_refused();

    dial(&c); /* plaintext */
    assert_int_equal(send(c.fd, "GET / HTTP/1.1\r\n\r\n", 18, MSG_NOSIGNAL), 18);
    TURN_UNTIL(n_refused() == before + 1);
    hang_up(&c);

    dial(&c); /* silence */
    TURN_UNTIL(n_refused() == before + 2);
    TURN_UNTIL(recv(c.fd, &byte, 1, 0) < 0 && errno != EAGAIN);
    hang_up(&c);

    dial(&c); /* an old version */
    SSL_set_max_proto_version(c.ssl, TLS1_1_VERSION);
    SSL_set_security_level(c.ssl, 0);
    assert_int_equal(shake(&c), -1);
    hang_up(&c);

    dial(&c); /* another protocol */
    SSL_set_alpn_protos(c.ssl, (const unsigned char *)"\x02h2", 3);
    assert_int_equal(shake(&c), -1);
    hang_up(&c);
    TURN_UNTIL(n_refused() == before + 4);
    assert_int_equal(weir_http_server_connections(server), 0);
    close_server();
}

static void test_client_certificates(void **state)
{
    static const char get[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    char in[15];
    (void)state;
    for (int with = 0; with <= 1; with++) {
        struct client c;
        open_server(/* client_ca= */ other_cert, 0);
        dial(&c);
        if (with) {
            SSL_use_certificate_file(c.ssl, other_cert, SSL_FILETYPE_PEM);
            SSL_use_PrivateKey_file(c.ssl, other_key, SSL_FILETYPE_PEM);
        }
        (void)shake(&c); /* with TLS 1.3 a client hears of its refusal at its first read only */
        (void)SSL_write(c.ssl, get, sizeof get - 1);
        assert_int_equal(hear(&c, in, sizeof in) == sizeof in, with);
        hang_up(&c);
        close_server();
    }
}

static void test_bad_files_are_named(void **state)
{
    const struct {
        const char *cert, *key, *ca, *param;
    } rows[] = {
        { "/nowhere", key, NULL, "tls_cert" }, { key, key, NULL, "tls_cert" },
        { cert, NULL, NULL, "tls_key" },       { cert, "/nowhere", NULL, "tls_key" },
        { cert, other_key, NULL, "tls_key" },  { cert, key, "/nowhere", "tls_client_ca" },
        { NULL, key, NULL, "tls_cert" },       { NULL, NULL, cert, "tls_cert" }, /* not a plaintext port */
    };
    (void)state;
    assert_int_equal(weir_loop_open(0, &loop, NULL), WEIR_OK);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct weir_http_opts opts = { .listen = "127.0.0.1:0",
                                       .tls_cert = rows[i].cert,
                                       .tls_key = rows[i].key,
                                       .tls_client_ca = rows[i].ca };
        struct weir_why why;
        assert_int_equal(weir_http_server_open(&opts, &hooks, &loop, 1, &server, &why), WEIR_INVALID);
        assert_string_equal(why.param, rows[i].param);
    }
    weir_loop_close(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_a_client_that_leaves_is_noticed),
        cmocka_unit_test(test_a_complete_answer_ends_with_goodbye),
        cmocka_unit_test(test_bad_handshakes_are_refused),
        cmocka_unit_test(test_client_certificates),
        cmocka_unit_test(test_bad_files_are_named),
    };
    return cmocka_run_group_tests(tests, make_files, remove_files);
}
