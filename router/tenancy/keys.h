/* keys.h - which account an API key belongs to: the fleet's keys, in memory, by SHA-256.
 *
 * Fed by discovery snapshots (<prefix>keys/<sha256 hex> -> {"account","name"}); read by any thread. The key
 * itself is never stored, logged or compared: only its hash is. Until the first snapshot no key is known
 * (WEIR_UNAVAILABLE); when discovery goes away the last good set stays. */
#ifndef WEIR_ROUTER_TENANCY_KEYS_H
#define WEIR_ROUTER_TENANCY_KEYS_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "discovery/discovery.h"

struct weir_keys;

WEIR_MUST_CHECK weir_err weir_keys_open(const char *prefix, struct weir_keys **ret, struct weir_why *why);
void weir_keys_close(struct weir_keys *keys);
/* The discovery thread; for weir_discovery_opts.on_snapshot. */
void weir_keys_on_snapshot(struct weir_keys *keys, const struct weir_disc_snapshot *snap);
/* `authorization`: the header's or metadata's whole value, "Bearer <key>". The account is copied to the
 * arena. WEIR_UNAUTHENTICATED: missing, malformed or unknown. WEIR_UNAVAILABLE: no snapshot yet. WEIR_NOMEM.
 */
WEIR_MUST_CHECK weir_err weir_keys_check(struct weir_keys *keys, struct weir_str authorization,
                                         struct weir_arena *arena, struct weir_str *ret_account,
                                         struct weir_why *why);
bool weir_keys_ready(struct weir_keys *keys);

#endif
