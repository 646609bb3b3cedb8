/* fair.h - who is next among those that wait: the class first, then each account its turn.
 *
 * Deficit round robin (Shreedhar and Varghese 1995) over the accounts of a class, in tokens that must be computed,
 * charged when a session starts. Who has waited longer than the starvation age goes before everybody. Pure
 * bookkeeping: no session is looked into. Step thread only. */
#ifndef WEIR_REPLICA_ENGINE_FAIR_H
#define WEIR_REPLICA_ENGINE_FAIR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

#define FAIR_CLASSES 8
#define FAIR_QUANTUM 512 /* tokens that a turn brings */
#define FAIR_BUCKETS 256

struct fair_account;

/* Part of what waits. */
struct fair_item {
    uint32_t class; /* 0 to FAIR_CLASSES - 1; lower goes first */
    uint32_t cost;  /* tokens, as far as is known */
    uint64_t since_ns;
    struct fair_account *account;
    struct fair_item *next, *prev;   /* of the account */
    struct fair_item *older, *newer; /* of all */
};

struct fair_account {
    uint64_t name; /* hash of class and account */
    uint32_t class;
    int64_t deficit;
    struct fair_item *first, *last;
    struct fair_account *next, *prev; /* the ring of the class */
    struct fair_account *next_in_bucket;
};

struct fair {
    struct fair_account *turns[FAIR_CLASSES]; /* whose turn it is; NULL: nobody waits */
    struct fair_account *buckets[FAIR_BUCKETS];
    struct fair_item *oldest, *newest;
    uint32_t n;
    uint64_t n_tokens; /* costs of all */
};

/* class, cost and since_ns are set. WEIR_NOMEM. */
WEIR_MUST_CHECK weir_err fair_push(struct fair *fair, struct fair_item *item, struct weir_str account,
                                   struct weir_why *why);
/* The next one; NULL when nobody waits. The same one until something changes. */
struct fair_item *fair_peek(struct fair *fair, uint64_t now_ns, uint64_t starve_ns);
/* It starts: its account pays `cost`. */
void fair_take(struct fair *fair, struct fair_item *item, uint32_t cost);
/* It gave up. */
void fair_remove(struct fair *fair, struct fair_item *item);

#endif
