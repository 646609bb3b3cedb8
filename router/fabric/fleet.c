/* fleet.c - the fleet thread: makes the attachments what the view says, and keeps them so. See fleet.h.
 *
 * The view comes as records, which are turned into a list of wanted attachments; that list and a flag are all
 * that others give this thread. It alone owns `attaches`. It wakes when it is stirred (a new view, a stream's
 * end) or when an attachment's next deadline is due, and looks at all of them: some hundreds of short locks.
 *   [G1] In one pass what is new appears in the table before what is gone leaves it.
 * Lock order: an attachment's, then `lock`. */
#include "router/fabric/fleet.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/thread.h"
#include "router/fabric/fabric_int.h"
#include "router/fabric/fleet_int.h"
#include "router/fabric/metrics_int.h"
#include "router/fabric/table_int.h"

enum { ROUTER_ID_MAX = 256 };

struct weir_fleet {
    struct attach_opts opts;
    char *router, *prefix;
    struct ports ports;
    _Atomic uint64_t sequence;
    struct weir_thread thread;

    pthread_mutex_t lock;
    pthread_cond_t more;
    bool stopping, stirred;
    uint32_t n_streams; /* open ones: each calls fleet_stirred at its end */
    struct view *view;  /* the newest, not yet taken */
    const struct weir_table *table;
    _Atomic uint64_t
        version; /* of `table`; written under the lock, read by loops to see whether theirs is old */

    /* The fleet thread's own. */
    struct weir_attach **attaches;
    uint32_t n_attaches, attaches_cap;
};

struct ports *fleet_ports(struct weir_fleet *fleet)
{
    return &fleet->ports;
}

const char *fleet_prefix(const struct weir_fleet *fleet)
{
    return fleet->prefix;
}

void fleet_stirred(struct weir_fleet *fleet, int n_streams)
{
    pthread_mutex_lock(&fleet->lock);
    fleet->n_streams += (uint32_t)n_streams;
    fleet->stirred = true;
    pthread_cond_broadcast(&fleet->more); /* the thread, or weir_fleet_close */
    pthread_mutex_unlock(&fleet->lock);
}

void fleet_give_view(struct weir_fleet *fleet, struct view *view)
{
    pthread_mutex_lock(&fleet->lock);
    struct view *old = fleet->view;
    fleet->view = view;
    fleet->stirred = true;
    pthread_cond_broadcast(&fleet->more);
    pthread_mutex_unlock(&fleet->lock);
    view_close(old);
}

/* ---- the table ---- */
static void publish(struct weir_fleet *fleet)
{
    struct weir_attach **in = weir_calloc(fleet->n_attaches ? fleet->n_attaches : 1, sizeof *in);
    uint32_t n = 0, n_left_out = 0;

    for (uint32_t i = 0; in && i < fleet->n_attaches; i++)
        if (attach_in_table(fleet->attaches[i]))
            in[n++] = fleet->attaches[i];
    uint64_t version = atomic_load_explicit(&fleet->version, memory_order_relaxed) + 1;
    const struct weir_table *table = in ? table_open(in, n, version, &n_left_out) : NULL;
    weir_free(in);
    if (!table) {
        WEIR_ERROR("fleet_table", "error=no memory for the routing table; the old one stays");
        return;
    }
    if (n_left_out > 0)
        WEIR_ERROR("fleet_table", "error=a model has more replicas than fit left_out=%u max=%d", n_left_out,
                   WEIR_RING_MEMBERS_MAX);
    pthread_mutex_lock(&fleet->lock);
    const struct weir_table *old = fleet->table;
    fleet->table = table;
    /* Relaxed is enough: who sees the new number takes the lock to get the table. */
    atomic_store_explicit(&fleet->version, version, memory_order_relaxed);
    pthread_mutex_unlock(&fleet->lock);
    weir_table_unref(old);
}

void weir_fleet_refresh(struct weir_fleet *fleet, const struct weir_table **table)
{
    uint64_t version = atomic_load_explicit(&fleet->version, memory_order_relaxed);

    if (*table && (*table)->version == version)
        return;
    const struct weir_table *old = *table;
    pthread_mutex_lock(&fleet->lock);
    *table = weir_table_ref(fleet->table);
    pthread_mutex_unlock(&fleet->lock);
    weir_table_unref(old);
}

/* ---- the view ---- */
static bool add(struct weir_fleet *fleet, const struct weir_replica_record *rec)
{
    if (fleet->n_attaches == fleet->attaches_cap) {
        uint32_t cap = fleet->attaches_cap ? fleet->attaches_cap * 2 : 16;
        struct weir_attach **attaches = weir_realloc(fleet->attaches, cap * sizeof *attaches);
        if (!attaches)
            return false;
        fleet->attaches = attaches;
        fleet->attaches_cap = cap;
    }
    struct weir_attach *att = attach_open(&fleet->opts, fleet, rec);
    if (!att)
        return false;
    fleet->attaches[fleet->n_attaches++] = att;
    WEIR_INFO("replica_found", "replica=%.*s model=%.*s address=%.*s", WEIR_STR_FMT(rec->id),
              WEIR_STR_FMT(rec->model), WEIR_STR_FMT(rec->grpc));
    return true;
}

/* Each attachment against the view: the same record, another record of the same replica, or none. */
static void compare_with_view(struct weir_fleet *fleet, struct view *view)
{
    for (uint32_t i = 0; i < fleet->n_attaches; i++) {
        struct weir_attach *att = fleet->attaches[i];
        struct view_record *found = view_find(view, attach_record(att));
        bool same = found && attach_is_for(att, &found->rec);
        if (same && attach_in_table(att))
            found->has_attach = true;
        else if (found)
            attach_retire(att); /* [F3] */
        attach_set_wanted(att, same);
    }
}

static void take_view(struct weir_fleet *fleet, struct view *view)
{
    compare_with_view(fleet, view);
    for (uint32_t i = 0; i < view->n; i++)
        if (!view->records[i].has_attach && !add(fleet, &view->records[i].rec))
            WEIR_ERROR("fleet_view", "error=no memory for an attachment replica=%.*s",
                       WEIR_STR_FMT(view->records[i].rec.id));
    view_close(view);
}

static uint64_t tick_all(struct weir_fleet *fleet, bool *ret_changed)
{
    uint64_t due_ns = UINT64_MAX;

    for (uint32_t i = 0; i < fleet->n_attaches;) {
        bool gone = false;
        uint64_t next_ns = attach_tick(fleet->attaches[i], weir_now_ns(), &gone);
        if (gone) {
            const struct weir_replica_record *rec = attach_record(fleet->attaches[i]);
            WEIR_INFO("replica_gone", "replica=%s model=%s", rec->id.ptr, rec->model.ptr);
            weir_attach_unref(fleet->attaches[i]);
            fleet->attaches[i] = fleet->attaches[--fleet->n_attaches];
            *ret_changed = true;
            continue;
        }
        due_ns = next_ns < due_ns ? next_ns : due_ns;
        i++;
    }
    return due_ns;
}

static void wait_until(struct weir_fleet *fleet, uint64_t due_ns)
{
    struct timespec at = { .tv_sec = (time_t)(due_ns / WEIR_S), .tv_nsec = (long)(due_ns % WEIR_S) };

    while (!fleet->stopping && !fleet->stirred) {
        if (due_ns == UINT64_MAX)
            pthread_cond_wait(&fleet->more, &fleet->lock);
        else if (pthread_cond_timedwait(&fleet->more, &fleet->lock, &at) == ETIMEDOUT)
            return;
    }
}

static void *fleet_main(void *arg)
{
    struct weir_fleet *fleet = arg;
    uint64_t due_ns = UINT64_MAX;

    for (;;) {
        pthread_mutex_lock(&fleet->lock);
        wait_until(fleet, due_ns);
        bool stopping = fleet->stopping;
        struct view *view = fleet->view;
        fleet->view = NULL;
        fleet->stirred = false;
        pthread_mutex_unlock(&fleet->lock);
        if (stopping) {
            view_close(view);
            return NULL;
        }
        bool changed = view != NULL;
        if (view)
            take_view(fleet, view);
        if (changed)
            publish(fleet); /* [G1] before the connecting, which takes time, and before anything is dropped */
        changed = false;
        due_ns = tick_all(fleet, &changed);
        if (changed)
            publish(fleet);
    }
}

/* ---- opening and closing ---- */
static uint32_t or_default(uint32_t value, uint32_t init)
{
    return value ? value : init;
}

weir_err weir_fleet_open(const struct weir_fleet_opts *opts, struct weir_fleet **ret, struct weir_why *why)
{
    pthread_condattr_t attr;
    uint32_t n_left_out;
    weir_err rc = WEIR_NOMEM;
    const char *router = opts->router ? opts->router : "";
    const char *prefix = opts->prefix ? opts->prefix : "/weir/";

    if (strlen(router) > ROUTER_ID_MAX)
        return weir_fail_param(why, "id", WEIR_INVALID, "a router's id has at most %d bytes", ROUTER_ID_MAX);
    if (strlen(prefix) > WEIR_FLEET_ID_MAX)
        return weir_fail_param(why, "prefix", WEIR_INVALID, "a prefix has at most %d bytes",
                               WEIR_FLEET_ID_MAX);
    struct weir_fleet *fleet = weir_alloc0(sizeof *fleet);
    if (!fleet)
        return weir_fail(why, WEIR_NOMEM, "fleet: no memory");
    ports_init(&fleet->ports);
    pthread_mutex_init(&fleet->lock, /* attr= */ NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&fleet->more, &attr);
    pthread_condattr_destroy(&attr);
    fabric_metrics();
    fleet->router = weir_strdup(router);
    fleet->prefix = weir_strdup(prefix);
    fleet->table = table_open(/* attaches= */ NULL, /* n= */ 0, /* version= */ 0, &n_left_out);
    fleet->opts = (struct attach_opts){
        .rpc = opts->rpc,
        .router = fleet->router,
        .incarnation = opts->incarnation,
        .tls = opts->tls,
        .hello_timeout_ms = or_default(opts->hello_timeout_ms, 5000),
        .backoff_min_ms = or_default(opts->backoff_min_ms, 100),
        .backoff_max_ms = or_default(opts->backoff_max_ms, 2000),
        .silent_cut_ms = or_default(opts->silent_cut_ms, 10000),
        .outbox_bytes_max = or_default(opts->outbox_bytes_max, 16u << 20),
        .inbox_bytes_max = or_default(opts->inbox_bytes_max, 32u << 20),
        .message_bytes_max = or_default(opts->message_bytes_max, 4u << 20),
    };
    if (!fleet->router || !fleet->prefix || !fleet->table) {
        weir_fail(why, WEIR_NOMEM, "fleet: no memory");
        goto fail;
    }
    rc = weir_thread_start(&fleet->thread, WEIR_ROLE_FLEET, "fleet", fleet_main, fleet, why);
    if (rc != WEIR_OK)
        goto fail;
    *ret = fleet;
    return WEIR_OK;
fail:
    weir_fleet_close(fleet);
    return rc;
}

void weir_fleet_close(struct weir_fleet *fleet)
{
    if (!fleet)
        return;
    pthread_mutex_lock(&fleet->lock);
    fleet->stopping = true;
    pthread_cond_broadcast(&fleet->more);
    pthread_mutex_unlock(&fleet->lock);
    weir_thread_join(&fleet->thread);

    for (uint32_t i = 0; i < fleet->n_attaches; i++) {
        attach_set_wanted(fleet->attaches[i], false);
        attach_cut(fleet->attaches[i], WEIR_LOG_DEBUG, "the router leaves");
    }
    pthread_mutex_lock(&fleet->lock);
    while (fleet->n_streams > 0)
        pthread_cond_wait(&fleet->more, &fleet->lock);
    pthread_mutex_unlock(&fleet->lock);
    for (uint32_t i = 0; i < fleet->n_attaches; i++)
        weir_attach_unref(fleet->attaches[i]);
    view_close(fleet->view);
    weir_table_unref(fleet->table);
    ports_release(&fleet->ports);
    pthread_cond_destroy(&fleet->more);
    pthread_mutex_destroy(&fleet->lock);
    weir_free(fleet->attaches);
    weir_free(fleet->router);
    weir_free(fleet->prefix);
    weir_free(fleet);
}

uint64_t weir_fleet_next_sequence(struct weir_fleet *fleet)
{
    return atomic_fetch_add_explicit(&fleet->sequence, 1, memory_order_relaxed) + 1;
}

uint64_t weir_fleet_incarnation(const struct weir_fleet *fleet)
{
    return fleet->opts.incarnation;
}
