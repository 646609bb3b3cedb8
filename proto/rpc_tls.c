/* rpc_tls.c - credentials from PEM files.
 *
 * The core takes texts and complains, if at all, when the first connection fails; so the files are tried with
 * OpenSSL first, which says which one is at fault. A server with a CA demands a client certificate that it
 * signed. Keys are wiped from our memory; the core keeps its own copy. Not here: reloading (a restart reads
 * the files anew). */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <grpc/grpc_security.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include "base/mem.h"
#include "proto/rpc_int.h"

#define PEM_BYTES_MAX (1u << 20)

struct pem {
    char *ca, *cert, *key;
};

bool rpc_tls_on(const struct weir_rpc_tls *tls)
{
    return tls->ca_file || tls->cert_file || tls->key_file;
}

/* ---- trying the files ---- */
static weir_err fault(struct weir_why *why, const char *field, const char *file)
{
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());

    ERR_clear_error();
    return weir_fail_param(why, field, WEIR_INVALID, "tls: %s '%s': %s", field, file,
                           reason ? reason : "unusable");
}

static weir_err try_with(SSL_CTX *ctx, const struct weir_rpc_tls *tls, struct weir_why *why)
{
    if (tls->ca_file && SSL_CTX_load_verify_file(ctx, tls->ca_file) != 1)
        return fault(why, "ca_file", tls->ca_file);
    if (tls->cert_file && SSL_CTX_use_certificate_chain_file(ctx, tls->cert_file) != 1)
        return fault(why, "cert_file", tls->cert_file);
    if (tls->key_file && (SSL_CTX_use_PrivateKey_file(ctx, tls->key_file, SSL_FILETYPE_PEM) != 1 ||
                          SSL_CTX_check_private_key(ctx) != 1))
        return fault(why, "key_file", tls->key_file);
    return WEIR_OK;
}

static weir_err try_files(const struct weir_rpc_tls *tls, struct weir_why *why)
{
    if (!tls->cert_file != !tls->key_file)
        return weir_fail_param(why, tls->cert_file ? "key_file" : "cert_file", WEIR_INVALID,
                               "tls: a certificate and its key go together: %s is missing",
                               tls->cert_file ? "key_file" : "cert_file");
    ERR_clear_error();
    SSL_CTX *ctx = SSL_CTX_new(TLS_method());
    weir_err rc = ctx ? try_with(ctx, tls, why) : weir_fail(why, WEIR_NOMEM, "tls: no memory");
    SSL_CTX_free(ctx);
    return rc;
}

/* ---- the texts ---- */
static void pem_release(struct pem *pem)
{
    if (pem->key)
        OPENSSL_cleanse(pem->key, strlen(pem->key));
    weir_free(pem->ca);
    weir_free(pem->cert);
    weir_free(pem->key);
}

/* NULL for no file is no fault. */
static weir_err read_text(const char *path, char **ret, struct weir_why *why)
{
    FILE *file = path ? fopen(path, "re") : NULL;
    weir_err rc = WEIR_OK;

    if (!path)
        return WEIR_OK;
    if (!file)
        return weir_fail(why, WEIR_IO, "tls: '%s': %s", path, strerror(errno));
    char *text = weir_alloc0(PEM_BYTES_MAX + 1);
    size_t len = text ? fread(text, 1, PEM_BYTES_MAX + 1, file) : 0;
    if (!text)
        rc = weir_fail(why, WEIR_NOMEM, "tls: no memory");
    else if (ferror(file) || len > PEM_BYTES_MAX)
        rc = weir_fail(why, WEIR_IO, "tls: '%s': unreadable, or over %u bytes", path, PEM_BYTES_MAX);
    fclose(file);
    if (rc == WEIR_OK)
        *ret = text;
    else
        weir_free(text);
    return rc;
}

static weir_err read_pem(const struct weir_rpc_tls *tls, struct pem *ret, struct weir_why *why)
{
    struct pem pem = { 0 };
    weir_err rc = try_files(tls, why);

    if (rc == WEIR_OK)
        rc = read_text(tls->ca_file, &pem.ca, why);
    if (rc == WEIR_OK)
        rc = read_text(tls->cert_file, &pem.cert, why);
    if (rc == WEIR_OK)
        rc = read_text(tls->key_file, &pem.key, why);
    if (rc == WEIR_OK)
        *ret = pem;
    else
        pem_release(&pem);
    return rc;
}

/* ---- credentials ---- */
weir_err rpc_tls_client(const struct weir_rpc_tls *tls, grpc_channel_credentials **ret, struct weir_why *why)
{
    struct pem pem;
    weir_err rc = read_pem(tls, &pem, why);

    if (rc != WEIR_OK)
        return rc;
    grpc_ssl_pem_key_cert_pair pair = { pem.key, pem.cert };
    *ret =
        grpc_ssl_credentials_create(pem.ca, pem.key ? &pair : NULL, /* verify= */ NULL, /* reserved= */ NULL);
    pem_release(&pem);
    return WEIR_OK;
}

weir_err rpc_tls_server(const struct weir_rpc_tls *tls, grpc_server_credentials **ret, struct weir_why *why)
{
    struct pem pem;

    if (!tls->cert_file)
        return weir_fail_param(why, "cert_file", WEIR_INVALID, "tls: a server needs a certificate");
    weir_err rc = read_pem(tls, &pem, why);
    if (rc != WEIR_OK)
        return rc;
    grpc_ssl_pem_key_cert_pair pair = { pem.key, pem.cert };
    *ret = grpc_ssl_server_credentials_create_ex(
        pem.ca, &pair, 1,
        pem.ca ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
               : GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE,
        /* reserved= */ NULL);
    pem_release(&pem);
    return WEIR_OK;
}
