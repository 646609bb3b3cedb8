/* hash.h - hashes: XXH3 (seeded) for places in rings and tables, SHA-256 for secrets and content, and hex.
 * The doors to libxxhash and to OpenSSL's digests. Any thread. */
#ifndef WEIR_BASE_HASH_H
#define WEIR_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

uint64_t weir_hash64(const void *data, size_t len, uint64_t seed);
/* Mixes one more number into a hash; for composing keys. */
uint64_t weir_hash_mix(uint64_t hash, uint64_t value);
void weir_sha256(const void *data, size_t len, uint8_t ret[32]);
/* 2 * len characters and a NUL, lower case. */
void weir_hex(const uint8_t *data, size_t len, char *ret);
/* Standard base64 with padding (RFC 4648); ret holds 4 * ((len + 2) / 3) + 1. Returns the length without the
 * NUL. */
size_t weir_base64(const void *data, size_t len, char *ret);
/* Strict decoding; returns the byte count, or SIZE_MAX when malformed. ret holds 3 * (len / 4) bytes. */
size_t weir_base64_decode(const char *text, size_t len, uint8_t *ret);

#ifdef __cplusplus
}
#endif
#endif
