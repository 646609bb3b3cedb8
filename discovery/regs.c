/* regs.c - the table of wanted keys.
 *
 *   [G1] A key is forgotten only after etcd said it is deleted, or its lease is gone.
 *   [G2] An acknowledgement of an older value never hides a newer one. */
#include "discovery/regs.h"

#include <string.h>

#include "base/mem.h"

void regs_init(struct regs *regs)
{
    *regs = (struct regs){ 0 };
    pthread_mutex_init(&regs->lock, NULL);
}

static void forget(struct regs *regs, int i)
{
    weir_free(regs->items[i].key);
    weir_free(regs->items[i].value);
    regs->items[i] = regs->items[--regs->n];
}

void regs_release(struct regs *regs)
{
    while (regs->n)
        forget(regs, 0);
    pthread_mutex_destroy(&regs->lock);
}

static struct reg *find(struct regs *regs, struct weir_str key)
{
    for (int i = 0; i < regs->n; i++)
        if (weir_str_eq(key, regs->items[i].key))
            return &regs->items[i];
    return NULL;
}

static weir_err set_locked(struct regs *regs, const char *key, char *value, size_t len)
{
    struct reg *reg = find(regs, weir_str(key));
    if (!reg) {
        if (regs->n == REGS_MAX)
            return WEIR_FULL;
        char *copy = weir_strdup(key);
        if (!copy)
            return WEIR_NOMEM;
        reg = &regs->items[regs->n++];
        *reg = (struct reg){ .key = copy };
    }
    weir_free(reg->value);
    reg->value = value;
    reg->value_len = len;
    reg->gone = false;
    reg->gen = ++regs->gen_last;
    return WEIR_OK;
}

weir_err regs_set(struct regs *regs, const char *key, struct weir_str value)
{
    if (value.len > REGS_VALUE_MAX)
        return WEIR_TOOLARGE;
    char *copy = weir_strndup(value.ptr ? value.ptr : "", value.len);
    if (!copy)
        return WEIR_NOMEM;
    pthread_mutex_lock(&regs->lock);
    weir_err rc = set_locked(regs, key, copy, value.len);
    pthread_mutex_unlock(&regs->lock);
    if (rc != WEIR_OK)
        weir_free(copy);
    return rc;
}

void regs_remove(struct regs *regs, const char *key)
{
    pthread_mutex_lock(&regs->lock);
    struct reg *reg = find(regs, weir_str(key));
    if (reg) {
        reg->gone = true;
        reg->gen = ++regs->gen_last;
    }
    pthread_mutex_unlock(&regs->lock);
}

bool regs_wants_lease(struct regs *regs)
{
    bool any = false;
    pthread_mutex_lock(&regs->lock);
    for (int i = 0; i < regs->n; i++)
        any |= !regs->items[i].gone;
    pthread_mutex_unlock(&regs->lock);
    return any;
}

bool regs_is_behind(struct regs *regs)
{
    bool any = false;
    pthread_mutex_lock(&regs->lock);
    for (int i = 0; i < regs->n; i++)
        any |= regs->items[i].gen != regs->items[i].put_gen;
    pthread_mutex_unlock(&regs->lock);
    return any;
}

bool regs_next(struct regs *regs, struct weir_buf *key, struct weir_buf *value, struct regs_work *ret)
{
    bool found = false;
    weir_buf_clear(key);
    weir_buf_clear(value);
    pthread_mutex_lock(&regs->lock);
    for (int i = 0; i < regs->n && !found; i++) {
        const struct reg *reg = &regs->items[i];
        if (reg->gen == reg->put_gen)
            continue;
        found = true;
        weir_buf_adds(key, reg->key);
        if (!reg->gone)
            weir_buf_add(value, reg->value, reg->value_len);
        *ret = (struct regs_work){ .gen = reg->gen, .is_delete = reg->gone };
    }
    pthread_mutex_unlock(&regs->lock);
    return found && !key->failed && !value->failed;
}

void regs_done(struct regs *regs, struct weir_str key, uint64_t gen, int64_t revision)
{
    pthread_mutex_lock(&regs->lock);
    struct reg *reg = find(regs, key);
    if (reg && reg->gen == gen && reg->gone) {
        forget(regs, (int)(reg - regs->items)); /* [G1] */
    } else if (reg) {
        reg->put_gen = gen; /* [G2] not the wanted one: still behind */
        reg->put_revision = revision;
    }
    pthread_mutex_unlock(&regs->lock);
}

void regs_lost(struct regs *regs)
{
    pthread_mutex_lock(&regs->lock);
    for (int i = regs->n; i-- > 0;) {
        regs->items[i].put_gen = 0;
        if (regs->items[i].gone)
            forget(regs, i); /* [G1] */
    }
    pthread_mutex_unlock(&regs->lock);
}

int regs_check(struct regs *regs, const struct weir_disc_snapshot *snap, int64_t revision)
{
    int n_lost = 0;
    pthread_mutex_lock(&regs->lock);
    for (int i = 0; i < regs->n; i++) {
        struct reg *reg = &regs->items[i];
        if (!reg->gone && reg->put_gen == reg->gen && reg->put_revision <= revision &&
            !weir_disc_find(snap, weir_str(reg->key))) {
            reg->put_gen = 0;
            n_lost++;
        }
    }
    pthread_mutex_unlock(&regs->lock);
    return n_lost;
}
