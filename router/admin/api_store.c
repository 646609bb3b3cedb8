/* api_store.c - records in etcd, as the admin API's resources read and change them, and lists of them from the view.
 *
 *   [A2] A change happens whole or not at all, and never over somebody else's: it names the revision that it saw. */
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "router/admin/api_int.h"

#define SHOWN_WAIT_NS WEIR_S

char *api_key_path(struct api_job *job, const char *folder, struct weir_str id)
{
    return weir_arena_printf(&job->arena, "%s%s%.*s", api_opts(job)->prefix, folder, WEIR_STR_FMT(id));
}

/* Whoever asks this router after the answer meets the change: the view has it, and all who follow the view have taken it
 * in. */
static void wait_until_shown(struct api_job *job, const char *path, struct weir_str value)
{
    uint64_t end_ns = weir_now_ns() + SHOWN_WAIT_NS;
    bool shown = false;

    while (!shown && weir_now_ns() < end_ns) {
        const struct weir_disc_snapshot *snap = weir_discovery_snapshot(api_opts(job)->discovery);
        const struct weir_disc_entry *entry = snap ? weir_disc_find(snap, weir_str(path)) : NULL;
        shown = value.ptr ? entry && entry->value.len == value.len &&
                                memcmp(entry->value.ptr, value.ptr, value.len) == 0
                          : snap && !entry;
        shown = shown && api_opts(job)->has_applied(api_opts(job)->ctx, snap->version);
        weir_disc_snapshot_unref(snap);
        if (!shown)
            nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
    }
}

weir_err api_change(struct api_job *job, const char *path, struct weir_str value,
                    const struct weir_disc_cond *conds, int n_conds)
{
    struct weir_disc_op op = { value.ptr ? WEIR_DISC_PUT : WEIR_DISC_DELETE, weir_str(path), value };
    weir_err err = weir_discovery_txn(&api_opts(job)->source, conds, n_conds, &op, 1, &job->why); /* [A2] */

    if (err == WEIR_OK)
        wait_until_shown(job, path, value);
    return err;
}

weir_err api_get(struct api_job *job, const char *path, struct weir_str *ret_value, int64_t *ret_revision)
{
    struct weir_buf value;

    weir_buf_init(&value, 0);
    weir_err err =
        weir_discovery_get(&api_opts(job)->source, weir_str(path), &value, ret_revision, &job->why);
    if (err == WEIR_OK) {
        size_t len = weir_buf_len(&value);
        *ret_value = (struct weir_str){ weir_arena_strndup(&job->arena, weir_buf_ptr(&value), len), len };
        if (!ret_value->ptr)
            err = weir_fail(&job->why, WEIR_NOMEM, "no memory for the record");
    }
    weir_buf_release(&value);
    return err;
}

weir_err api_stored(struct api_job *job, weir_err err)
{
    struct weir_why inner = job->why;

    return err == WEIR_INVALID
               ? weir_fail(&job->why, WEIR_CORRUPT, "the stored record is not good: %.64s: %.200s",
                           inner.param, inner.text)
               : err;
}

void api_write_resource(struct weir_buf *out, const char *folder, struct weir_str id,
                        const struct weir_buf *members)
{
    struct weir_buf name;
    struct weir_jw w;
    size_t len = weir_buf_len(members);

    weir_buf_init(&name, 0);
    weir_buf_addf(&name, "%s%.*s", folder, WEIR_STR_FMT(id));
    weir_jw_init(&w, out);
    weir_jw_object(&w);
    weir_jw_key(&w, "name");
    weir_jw_str(&w, (struct weir_str){ weir_buf_ptr(&name), weir_buf_len(&name) });
    if (len > 2) { /* without its braces */
        weir_buf_addc(out, ',');
        weir_buf_add(out, weir_buf_ptr(members) + 1, len - 2);
    }
    weir_jw_object_end(&w);
    out->failed |= members->failed || name.failed;
    weir_buf_release(&name);
}

/* ---- lists ---- */
static weir_err page_size(struct api_job *job, uint32_t *ret)
{
    struct weir_str text;
    uint32_t n = 0;
    weir_err err = api_param(job, "pageSize", &text);

    if (err != WEIR_OK)
        return err;
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] < '0' || text.ptr[i] > '9' || text.len > 4)
            return weir_fail_param(&job->why, "pageSize", WEIR_INVALID, "pageSize: a number up to %d",
                                   API_PAGE_MAX);
        n = 10 * n + (uint32_t)(text.ptr[i] - '0');
    }
    *ret = n == 0 ? API_PAGE_DEFAULT : n > API_PAGE_MAX ? API_PAGE_MAX : n;
    return WEIR_OK;
}

weir_err api_list_begin(struct api_job *job, const char *folder, struct api_list *ret)
{
    struct weir_str token;
    const char *prefix = api_key_path(job, folder, (struct weir_str){ "", 0 });
    uint32_t n = 0;
    weir_err err = page_size(job, &n);

    if (err == WEIR_OK)
        err = api_param(job, "pageToken", &token);
    if (err != WEIR_OK)
        return err;
    *ret = (struct api_list){ .snap = weir_discovery_snapshot(api_opts(job)->discovery), .n_left = n };
    if (!ret->snap || !prefix) {
        weir_disc_snapshot_unref(ret->snap);
        return weir_fail(&job->why, WEIR_UNAVAILABLE, "the router has not read its records yet");
    }
    ret->prefix_len = strlen(prefix);
    ret->n = weir_disc_prefix(ret->snap, prefix, &ret->entries);
    int low = 0, high = token.len ? ret->n : 0; /* the first after the token */
    while (low < high) {
        int middle = low + (high - low) / 2;
        struct weir_str key = ret->entries[middle].key;
        struct weir_str id = { key.ptr + ret->prefix_len, key.len - ret->prefix_len };
        if (weir_str_cmp(id, token) <= 0)
            low = middle + 1;
        else
            high = middle;
    }
    ret->i = low;
    return WEIR_OK;
}

bool api_list_next(struct api_list *list, struct weir_str *ret_id, struct weir_str *ret_value)
{
    if (list->n_left == 0 || list->i == list->n)
        return false;
    const struct weir_disc_entry *entry = &list->entries[list->i++];
    *ret_id = (struct weir_str){ entry->key.ptr + list->prefix_len, entry->key.len - list->prefix_len };
    *ret_value = entry->value;
    return true;
}

void api_list_took(struct api_list *list, struct weir_str id)
{
    list->n_left--;
    list->last = id;
}

void api_list_end(struct api_list *list, struct weir_jw *w)
{
    if (list->i < list->n) {
        weir_jw_key(w, "nextPageToken");
        weir_jw_str(w, list->last);
    }
    weir_disc_snapshot_unref(list->snap);
}
