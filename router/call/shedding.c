/* shedding.c - a small table of deployments by hash, with the time of each one's last shed.
 *
 * A note that meets the sweep of its entry is lost: the next shed tells anew. */
#include "router/call/shedding.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "router/limits/limits.h"

#define DEPLOYMENT_MAX 256 /* a longer name sheds unseen; records have none */

struct entry {
    _Atomic uint64_t hash; /* 0: free */
    _Atomic uint64_t last_ns;
    uint32_t len; /* with the name: under the lock */
    char name[DEPLOYMENT_MAX];
};

struct weir_shedding {
    struct weir_limits *limits;
    struct weir_gauge *known;
    pthread_mutex_t lock; /* guards coming and going */
    struct entry entries[WEIR_SHEDDING_MAX];
};

weir_err weir_shedding_open(struct weir_limits *limits, struct weir_shedding **ret, struct weir_why *why)
{
    struct weir_shedding *s = weir_alloc0(sizeof *s);

    if (!s)
        return weir_fail(why, WEIR_NOMEM, "no memory for the deployments that shed");
    s->limits = limits;
    s->known = weir_gauge("weir_shedding_deployments", "", "deployments that shed calls now");
    pthread_mutex_init(&s->lock, NULL);
    *ret = s;
    return WEIR_OK;
}

void weir_shedding_close(struct weir_shedding *s)
{
    if (!s)
        return;
    pthread_mutex_destroy(&s->lock);
    weir_free(s);
}

/* The entry with this hash; 0 finds a free one. */
static struct entry *find(struct weir_shedding *s, uint64_t hash)
{
    for (int i = 0; i < WEIR_SHEDDING_MAX; i++)
        if (atomic_load_explicit(&s->entries[i].hash, memory_order_relaxed) == hash)
            return &s->entries[i];
    return NULL;
}

static void begin(struct weir_shedding *s, struct weir_str deployment, uint64_t hash, uint64_t now_ns)
{
    pthread_mutex_lock(&s->lock);
    struct entry *entry = find(s, hash) ? NULL : find(s, 0);
    if (entry) {
        memcpy(entry->name, deployment.ptr, deployment.len);
        entry->len = (uint32_t)deployment.len;
        atomic_store(&entry->last_ns, now_ns);
        atomic_store(&entry->hash, hash);
        weir_limits_set_shedding(s->limits, deployment, true);
        weir_gauge_add(s->known, 1);
    }
    pthread_mutex_unlock(&s->lock);
}

void weir_shedding_note(struct weir_shedding *s, struct weir_str deployment, uint64_t now_ns)
{
    if (deployment.len == 0 || deployment.len > DEPLOYMENT_MAX)
        return;
    uint64_t hash = weir_hash64(deployment.ptr, deployment.len, 0) | 1; /* never 0 */
    struct entry *entry = find(s, hash);
    if (entry)
        atomic_store_explicit(&entry->last_ns, now_ns, memory_order_relaxed);
    else
        begin(s, deployment, hash, now_ns);
}

void weir_shedding_sweep(struct weir_shedding *s, uint64_t now_ns)
{
    pthread_mutex_lock(&s->lock);
    for (int i = 0; i < WEIR_SHEDDING_MAX; i++) {
        struct entry *entry = &s->entries[i];
        uint64_t last_ns = atomic_load(&entry->last_ns);
        if (atomic_load(&entry->hash) == 0 || now_ns < last_ns || now_ns - last_ns < WEIR_SHEDDING_QUIET_NS)
            continue;
        weir_limits_set_shedding(s->limits, (struct weir_str){ entry->name, entry->len }, false);
        atomic_store(&entry->hash, 0);
        weir_gauge_add(s->known, -1);
    }
    pthread_mutex_unlock(&s->lock);
}
