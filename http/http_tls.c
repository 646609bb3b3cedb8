/* http_tls.c - TLS for the server: OpenSSL over non-blocking sockets, behind the same calls as plaintext.
 *
 * TLS 1.2 and up, no renegotiation, no compression; ALPN: a client that offers protocols must offer http/1.1.
 * Buffers are given back while a connection rests. An end without close_notify counts as an end: HTTP frames
 * its messages itself. OpenSSL writes with write(2), so the program must ignore SIGPIPE, which
 * weir_signals_block does. A client that says close_notify without closing its socket is not gone yet. */
#include <errno.h>
#include <openssl/err.h>
#include <string.h>

#include "http/http_int.h"

static int choose_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *in,
                       unsigned in_len, void *arg)
{
    static const unsigned char ours[] = "\x08http/1.1";
    unsigned char *chosen;
    (void)ssl;
    (void)arg;
    if (SSL_select_next_proto(&chosen, out_len, ours, sizeof ours - 1, in, in_len) != OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

static weir_err tls_fail(struct weir_why *why, const char *param, const char *file)
{
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    ERR_clear_error();
    return weir_fail_param(why, param, WEIR_INVALID, "%s: `%s`: %s", param, file,
                           reason ? reason : "unusable");
}

weir_err http_tls_open(const struct weir_http_opts *opts, SSL_CTX **ret, struct weir_why *why)
{
    weir_err rc = WEIR_OK;
    *ret = NULL;
    if (!opts->tls_cert && !opts->tls_key && !opts->tls_client_ca)
        return WEIR_OK;
    /* Whoever asks for a client's certificate must not get a plaintext port that lets everybody in. */
    if (!opts->tls_cert)
        return weir_fail_param(why, "tls_cert", WEIR_INVALID, "listener %s: %s is given without tls_cert",
                               opts->name ? opts->name : "", opts->tls_key ? "tls_key" : "tls_client_ca");
    if (!opts->tls_key)
        return weir_fail_param(why, "tls_key", WEIR_INVALID, "tls_cert is given without tls_key");
    ERR_clear_error();
    SSL_CTX *tls = SSL_CTX_new(TLS_server_method());
    if (!tls)
        return weir_fail(why, WEIR_NOMEM, "tls: no memory");
    SSL_CTX_set_min_proto_version(tls, TLS1_2_VERSION);
    SSL_CTX_set_options(tls, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                 SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                              SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_alpn_select_cb(tls, choose_alpn, /* arg= */ NULL);
    SSL_CTX_set_session_id_context(tls, (const unsigned char *)"weir", 4);

    if (SSL_CTX_use_certificate_chain_file(tls, opts->tls_cert) != 1)
        rc = tls_fail(why, "tls_cert", opts->tls_cert);
    else if (SSL_CTX_use_PrivateKey_file(tls, opts->tls_key, SSL_FILETYPE_PEM) != 1 ||
             SSL_CTX_check_private_key(tls) != 1)
        rc = tls_fail(why, "tls_key", opts->tls_key);
    else if (opts->tls_client_ca &&
             SSL_CTX_load_verify_locations(tls, opts->tls_client_ca, /* dir= */ NULL) != 1)
        rc = tls_fail(why, "tls_client_ca", opts->tls_client_ca);
    if (rc != WEIR_OK) {
        SSL_CTX_free(tls);
        return rc;
    }
    if (opts->tls_client_ca) {
        SSL_CTX_set_client_CA_list(tls, SSL_load_client_CA_file(opts->tls_client_ca));
        SSL_CTX_set_verify(tls, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, /* callback= */ NULL);
    }
    *ret = tls;
    return WEIR_OK;
}

void http_tls_close(SSL_CTX *tls)
{
    SSL_CTX_free(tls);
}

SSL *http_tls_accept(SSL_CTX *tls, int fd)
{
    SSL *ssl = SSL_new(tls);
    if (!ssl)
        return NULL;
    if (SSL_set_fd(ssl, fd) != 1) {
        SSL_free(ssl);
        return NULL;
    }
    SSL_set_accept_state(ssl);
    return ssl;
}

/* What OpenSSL's answer means to us. */
static ssize_t outcome(struct http_conn *conn, int n)
{
    if (n > 0)
        return n;
    switch (SSL_get_error(conn->ssl, n)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        return HTTP_IO_AGAIN;
    case SSL_ERROR_ZERO_RETURN:
        return HTTP_IO_END;
    default:
        conn->broken = true; /* SSL_shutdown must not be called after such an error */
        return HTTP_IO_BROKEN;
    }
}

ssize_t http_tls_handshake(struct http_conn *conn)
{
    ERR_clear_error();
    return outcome(conn, SSL_do_handshake(conn->ssl));
}

static ssize_t tls_read(struct http_conn *conn, void *buf, size_t len)
{
    ERR_clear_error();
    return outcome(conn, SSL_read(conn->ssl, buf, (int)len));
}

static ssize_t tls_write(struct http_conn *conn, const void *buf, size_t len)
{
    enum { WRITE_MAX = 1 << 20 };
    ERR_clear_error();
    return outcome(conn, SSL_write(conn->ssl, buf, len < WRITE_MAX ? (int)len : WRITE_MAX));
}

const struct http_io http_tls_io = { .read = tls_read, .write = tls_write };

void http_tls_end(struct http_conn *conn)
{
    if (!conn->ssl)
        return;
    ERR_clear_error();
    if (conn->tls_up && !conn->broken)
        (void)SSL_shutdown(conn->ssl); /* one way; nobody waits for the client's */
    ERR_clear_error();
    SSL_free(conn->ssl);
    conn->ssl = NULL;
}
