/* route.h - which replica takes this call, or why none does: loads and a key in, a choice out.
 *
 * wait(i)  = what replica i predicts + what we sent that it has not counted yet / its prefill rate, in ms
 * score(i) = wait(i) + the prefill of this prompt, for all but the key's first candidate (the rest are cold)
 * Candidates are the first few of the key's ring order that are usable, have room, and whose wait is within
 * the load bound, max((1 + e) * mean wait, floor). Of these the first whose score is within the hysteresis of
 * the best wins: an idle fleet keeps affinity, and a hot key warms its next neighbour, the same on every
 * router. [S1] Somebody usable with room is found whenever there is one: the bound gives way before a call is
 * refused. [S2] The choice is among the key's first few candidates left after skipping, so it does not
 * wander. [S3] A refusal says why and when to come back, with jitter. Pure; any thread. Source of the bound:
 * Mirrokni, Thorup and Zadimoghaddam 2018 (bounded loads). */
#ifndef WEIR_ROUTER_ROUTE_ROUTE_H
#define WEIR_ROUTER_ROUTE_ROUTE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "router/route/load.h"
#include "router/route/ring.h"

#define WEIR_PRIORITIES 4
#define WEIR_ROUTE_FEW_MAX 16
#define WEIR_ROUTE_EXCLUDE_MAX 8

struct weir_route_opts {
    uint32_t few;                          /* candidates that are scored; 3 */
    double spread;                         /* e of the load bound; 0.25 */
    double bound_floor_ms;                 /* 50 */
    double hysteresis_ms;                  /* the larger of this (50) */
    double hysteresis_share;               /* and this share (0.25) of the best score */
    uint32_t silent_ms;                    /* no frame for so long: skipped; 3,000 */
    double prefill_tokens_s;               /* where a replica has measured none yet; 2,000 */
    uint32_t wait_max_ms[WEIR_PRIORITIES]; /* a class is refused where it would wait longer; 60, 30, 5, 2 s */
    uint32_t retry_after_min_ms, retry_after_max_ms; /* 500 and 30,000, before jitter */
};
void weir_route_opts_init(struct weir_route_opts *opts);

struct weir_route_ask {
    uint64_t key;                                                 /* weir_affinity_key() */
    uint32_t priority;                                            /* 0 to 3; anything above counts as 3 */
    uint32_t prompt_tokens;                                       /* an estimate */
    bool recovery;                                                /* was admitted before: no class bound */
    const struct weir_load_view *exclude[WEIR_ROUTE_EXCLUDE_MAX]; /* tried already */
    uint32_t n_exclude;
    uint64_t now_ns;
    uint64_t random; /* for the jitter */
};

enum weir_route_reason {
    WEIR_ROUTE_PLACED,
    WEIR_ROUTE_NO_MODEL,   /* the ring has no member */
    WEIR_ROUTE_NO_REPLICA, /* members, but none usable: attaching, draining, silent */
    WEIR_ROUTE_SATURATED,  /* usable, but none with room for this class */
    WEIR_ROUTE_TRIED,      /* usable ones are left only among those tried already */
    WEIR_ROUTE_REASONS
};
const char *weir_route_reason_name(enum weir_route_reason reason); /* "saturated"; a metric's label */

struct weir_route_choice {
    enum weir_route_reason reason;
    uint32_t i_member; /* when placed */
    double wait_ms; /* of the chosen one; refused: the shortest wait of a usable one, 0 when there is none */
    uint32_t retry_after_ms; /* refused: with jitter; 0 for NO_MODEL */
};

/* WEIR_OK; WEIR_NOMODEL; WEIR_OVERLOADED. *ret is always written. */
WEIR_MUST_CHECK weir_err weir_route_choose(const struct weir_route_opts *opts, const struct weir_ring *ring,
                                           const struct weir_route_ask *ask, struct weir_route_choice *ret,
                                           struct weir_why *why);
/* min to max around `base_ms`, +-25 % by the random bits. */
uint32_t weir_route_retry_after(const struct weir_route_opts *opts, double base_ms, uint64_t random);

#endif
