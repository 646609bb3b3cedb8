/* affinity.h - the key that keeps one conversation on one replica, where its prefix is cached.
 *
 * The first of: session (x-multi-turn-session-id, else x-session-affinity), prompt_cache_key, user, else the
 * heads of the system messages and of the first user message, which stay the same over a conversation's turns
 * (a plain prompt: its first bytes). At most 4 KiB are read, whatever the size of the prompt. Account and
 * isolation key are always mixed in, so that tenants spread independently and nobody can aim at another's
 * replica. Pure; any thread; the same on every router. */
#ifndef WEIR_ROUTER_ROUTE_AFFINITY_H
#define WEIR_ROUTER_ROUTE_AFFINITY_H

#include <stdint.h>

#include "router/request.h"

#define WEIR_AFFINITY_HEAD_MAX 4096   /* bytes of the prompt that are read */
#define WEIR_AFFINITY_SYSTEM_MAX 2048 /* of which system messages */
#define WEIR_AFFINITY_PROMPT_MAX 256  /* of a plain prompt: short, because it grows from turn to turn */

uint64_t weir_affinity_key(const struct weir_request *req);

#endif
