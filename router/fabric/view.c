/* view.c - what discovery says, as a sorted list of checked records.
 *   [K1] A record that is malformed, past a bound or the second of its kind is skipped and counted; the rest
 * holds. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "router/fabric/fleet_int.h"
#include "router/fabric/metrics_int.h"

static struct view *view_open(size_t n_max)
{
    struct view *view = weir_alloc0(sizeof *view);

    if (!view)
        return NULL;
    weir_arena_init(&view->arena, /* limit= */ 0);
    view->records = weir_arena_alloc0(&view->arena, (n_max ? n_max : 1) * sizeof *view->records);
    if (!view->records) {
        view_close(view);
        return NULL;
    }
    return view;
}

void view_close(struct view *view)
{
    if (!view)
        return;
    weir_arena_release(&view->arena);
    weir_free(view);
}

/* ---- order ---- */
static int compare_rec(const struct weir_replica_record *a, const struct weir_replica_record *b)
{
    int by_model = weir_str_cmp(a->model, b->model);

    return by_model != 0 ? by_model : weir_str_cmp(a->id, b->id);
}

static int by_model_and_id(const void *a, const void *b)
{
    return compare_rec(&((const struct view_record *)a)->rec, &((const struct view_record *)b)->rec);
}

static int key_against(const void *key, const void *record)
{
    return compare_rec(key, &((const struct view_record *)record)->rec);
}

struct view_record *view_find(struct view *view, const struct weir_replica_record *rec)
{
    return view->n ? bsearch(rec, view->records, view->n, sizeof *view->records, key_against) : NULL;
}

/* ---- filling ---- */
static void skip(const char *reason, struct weir_str id)
{
    weir_counter_add(fabric_metrics()->records_skipped, 1);
    WEIR_WARN("replica_record_skipped", "replica=%.*s reason=%s", id.len < 64 ? (int)id.len : 64,
              id.ptr ? id.ptr : "", reason);
}

static bool is_good(struct weir_str s, bool may_be_empty)
{
    return (may_be_empty || s.len > 0) && s.len <= WEIR_FLEET_ID_MAX &&
           (s.len == 0 || !memchr(s.ptr, '\0', s.len));
}

static bool copy_str(struct view *view, struct weir_str *s)
{
    s->ptr = weir_arena_strndup(&view->arena, s->len ? s->ptr : "", s->len);
    return s->ptr != NULL;
}

/* false: no memory. */
static bool add(struct view *view, const struct weir_replica_record *rec)
{
    if (!is_good(rec->id, false) || !is_good(rec->model, false) || !is_good(rec->grpc, false) ||
        !is_good(rec->admin, true)) {
        skip("a field is empty, too long or holds a NUL", rec->id);
        return true;
    }
    if (view->n == WEIR_FLEET_REPLICAS_MAX) {
        skip("more replicas than the fleet takes", rec->id);
        return true;
    }
    struct weir_replica_record copy = *rec;
    if (!copy_str(view, &copy.id) || !copy_str(view, &copy.model) || !copy_str(view, &copy.grpc) ||
        !copy_str(view, &copy.admin))
        return false;
    view->records[view->n++].rec = copy;
    return true;
}

static void sort(struct view *view)
{
    uint32_t n = 0;

    if (view->n > 0)
        qsort(view->records, view->n, sizeof *view->records, by_model_and_id);
    for (uint32_t i = 0; i < view->n; i++) {
        if (n > 0 && compare_rec(&view->records[n - 1].rec, &view->records[i].rec) == 0)
            skip("a second record of this model and id", view->records[i].rec.id); /* [K1] */
        else
            view->records[n++] = view->records[i];
    }
    view->n = n;
}

weir_err weir_fleet_set_view(struct weir_fleet *fleet, const struct weir_replica_record *records, size_t n)
{
    bool too_many = n > WEIR_FLEET_REPLICAS_MAX;
    struct view *view = view_open(too_many ? WEIR_FLEET_REPLICAS_MAX : n);

    if (!view)
        return WEIR_NOMEM;
    for (size_t i = 0; i < n; i++) {
        if (!add(view, &records[i])) {
            view_close(view);
            return WEIR_NOMEM;
        }
    }
    sort(view);
    fleet_give_view(fleet, view);
    return too_many ? WEIR_FULL : WEIR_OK;
}

void weir_fleet_on_snapshot(void *ctx, const struct weir_disc_snapshot *snap)
{
    struct weir_fleet *fleet = ctx;
    const struct weir_disc_entry *entries = NULL;
    char prefix[WEIR_FLEET_ID_MAX + 16];
    struct weir_arena arena;

    int n_prefix = snprintf(prefix, sizeof prefix, "%sreplicas/", fleet_prefix(fleet));
    WEIR_BUG_ON(n_prefix < 0 || (size_t)n_prefix >= sizeof prefix); /* checked by weir_fleet_open */
    int n = weir_disc_prefix(snap, prefix, &entries);
    struct view *view = view_open(n < WEIR_FLEET_REPLICAS_MAX ? (size_t)n : WEIR_FLEET_REPLICAS_MAX);
    bool ok = view != NULL;
    weir_arena_init(&arena, /* limit= */ 0);
    for (int i = 0; ok && i < n; i++) {
        struct weir_replica_record rec;
        struct weir_why why;
        weir_arena_clear(&arena);
        if (weir_replica_record_parse(entries[i].value, &arena, &rec, &why) != WEIR_OK)
            skip(why.text, entries[i].key);
        else
            ok = add(view, &rec);
    }
    weir_arena_release(&arena);
    if (!ok) {
        WEIR_ERROR("fleet_view", "error=no memory for the view; the old one stays");
        view_close(view);
        return;
    }
    sort(view);
    fleet_give_view(fleet, view);
}
