/* hash.c - XXH3, SHA-256, hex and base64. Pure functions, any thread.
 *   [H1] base64 decoding takes only what encoding can give: padded, no line breaks, unused bits zero. */
#include "base/hash.h"

#include <openssl/evp.h>
#include <pthread.h>
#include <xxhash.h>

#include "base/err.h"

uint64_t weir_hash64(const void *data, size_t len, uint64_t seed)
{
    return XXH3_64bits_withSeed(data, len, seed);
}

uint64_t weir_hash_mix(uint64_t hash, uint64_t value)
{
    /* The finalizer of splitmix64 (Steele, Lea and Flood 2014) over both, order-dependent. */
    uint64_t x = (hash ^ value) + 0x9e3779b97f4a7c15ull + (hash << 6) + (hash >> 2);

    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

/* Looked up once: OpenSSL 3 otherwise finds the algorithm by name, under a lock, for every digest, which costs more than
 * the digest of a key does. Lives as long as the process. */
static pthread_once_t sha256_once = PTHREAD_ONCE_INIT;
static EVP_MD *sha256_md;

static void sha256_fetch(void)
{
    sha256_md = EVP_MD_fetch(NULL, "SHA256", NULL);
    WEIR_BUG_ON(!sha256_md);
}

void weir_sha256(const void *data, size_t len, uint8_t ret[32])
{
    WEIR_BUG_ON(pthread_once(&sha256_once, sha256_fetch) != 0);
    WEIR_BUG_ON(!EVP_Digest(data, len, ret, NULL, sha256_md, NULL));
}

void weir_hex(const uint8_t *data, size_t len, char *ret)
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < len; i++) {
        ret[2 * i] = digits[data[i] >> 4];
        ret[2 * i + 1] = digits[data[i] & 15];
    }
    ret[2 * len] = '\0';
}

static const char digits64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

size_t weir_base64(const void *data, size_t len, char *ret)
{
    const uint8_t *in = data;
    char *out = ret;

    for (; len >= 3; in += 3, len -= 3) {
        uint32_t x = (uint32_t)in[0] << 16 | (uint32_t)in[1] << 8 | in[2];
        *out++ = digits64[x >> 18];
        *out++ = digits64[x >> 12 & 63];
        *out++ = digits64[x >> 6 & 63];
        *out++ = digits64[x & 63];
    }
    if (len > 0) {
        uint32_t x = (uint32_t)in[0] << 16 | (len > 1 ? (uint32_t)in[1] << 8 : 0);
        *out++ = digits64[x >> 18];
        *out++ = digits64[x >> 12 & 63];
        *out++ = len > 1 ? digits64[x >> 6 & 63] : '=';
        *out++ = '=';
    }
    *out = '\0';
    return (size_t)(out - ret);
}

/* 0 to 63; 64 when it is no base64 digit. */
static uint32_t value64(char c)
{
    if (c >= 'A' && c <= 'Z')
        return (uint32_t)(c - 'A');
    if (c >= 'a' && c <= 'z')
        return (uint32_t)(c - 'a') + 26;
    if (c >= '0' && c <= '9')
        return (uint32_t)(c - '0') + 52;
    return c == '+' ? 62 : c == '/' ? 63 : 64;
}

size_t weir_base64_decode(const char *text, size_t len, uint8_t *ret)
{
    uint8_t *out = ret;

    if (len % 4 != 0)
        return SIZE_MAX;
    for (size_t i = 0; i < len; i += 4) {
        const char *in = text + i;
        size_t n_pad = i + 4 < len ? 0 : in[3] != '=' ? 0 : in[2] != '=' ? 1 : 2;
        uint32_t x = 0;
        for (size_t k = 0; k < 4 - n_pad; k++) {
            uint32_t v = value64(in[k]);
            if (v > 63)
                return SIZE_MAX;
            x |= v << (18 - 6 * k);
        }
        if (n_pad > 0 && x << (8 * (4 - n_pad)) != 0)
            return SIZE_MAX; /* [H1] bits that no byte holds */
        for (size_t k = 0; k < 3 - n_pad; k++)
            *out++ = (uint8_t)(x >> (16 - 8 * k));
    }
    return (size_t)(out - ret);
}
