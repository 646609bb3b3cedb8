/* regs.h - the keys that this process wants to exist, and how far etcd has been told. Private to discovery/.
 *
 * Any thread states what it wants (set, remove); the discovery thread works off the difference. The table is
 * the queue: a value set ten times before etcd answers is put once. */
#ifndef WEIR_DISCOVERY_REGS_H
#define WEIR_DISCOVERY_REGS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "discovery/discovery.h"

#define REGS_MAX 64
#define REGS_VALUE_MAX (64u << 10)

struct reg {
    char *key;
    char *value;
    size_t value_len;
    uint64_t gen;         /* of the wanted state; rises with each set or remove */
    uint64_t put_gen;     /* of the state that etcd has under our lease; 0: nothing */
    int64_t put_revision; /* etcd's revision of that put */
    bool gone;            /* to be deleted, then forgotten */
};
struct regs {
    pthread_mutex_t lock; /* a leaf: nothing is called under it */
    struct reg items[REGS_MAX];
    int n;
    uint64_t gen_last;
};
void regs_init(struct regs *regs);
void regs_release(struct regs *regs);

/* WEIR_FULL: REGS_MAX keys. WEIR_TOOLARGE: over REGS_VALUE_MAX. WEIR_NOMEM. */
WEIR_MUST_CHECK weir_err regs_set(struct regs *regs, const char *key, struct weir_str value);
void regs_remove(struct regs *regs, const char *key);

/* ---- the discovery thread ---- */
bool regs_wants_lease(struct regs *regs); /* is any key wanted? */
bool regs_is_behind(struct regs *regs);   /* is there a put or a delete to do? */
struct regs_work {
    uint64_t gen;
    bool is_delete;
};
/* Copies the next piece of work to key and value (cleared first). false: none, or no memory for it now. */
bool regs_next(struct regs *regs, struct weir_buf *key, struct weir_buf *value, struct regs_work *ret);
void regs_done(struct regs *regs, struct weir_str key, uint64_t gen, int64_t revision);
/* The lease is gone and every key with it. */
void regs_lost(struct regs *regs);
/* Keys that etcd has lost although our lease lives (somebody deleted them) are put again. `snap` shows all
 * changes up to `revision`. Returns how many. A key that is there with another value is left alone: two
 * processes with one name would fight for ever. */
int regs_check(struct regs *regs, const struct weir_disc_snapshot *snap, int64_t revision);

#endif
