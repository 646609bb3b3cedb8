/* api_record.c - what accounts and models have in common: made, listed, shown, changed by patches, deleted. */
#include <string.h>

#include "base/clock.h"
#include "router/admin/api_int.h"

static void write_one(struct weir_buf *out, const struct api_kind *kind, struct weir_str id,
                      const union api_record *rec)
{
    struct weir_buf members;

    weir_buf_init(&members, 0);
    weir_record_write(kind->fields, &members, rec);
    api_write_resource(out, kind->folder, id, &members);
    weir_buf_release(&members);
}

/* Over the revision that was seen; 0: it must be new. */
static weir_err save(struct api_job *job, const struct api_kind *kind, const char *path, struct weir_str id,
                     union api_record *rec, int64_t revision)
{
    struct weir_disc_cond cond = { weir_str(path), revision };
    struct weir_buf value;

    kind->stamp(rec, id, weir_wall_ns() / WEIR_S, /* is_new= */ revision == 0);
    weir_buf_init(&value, 0);
    weir_record_write(kind->fields, &value, rec);
    weir_err err =
        value.failed ? weir_fail(&job->why, WEIR_NOMEM, "no memory for the record")
                     : api_change(job, path, (struct weir_str){ weir_buf_ptr(&value), weir_buf_len(&value) },
                                  &cond, 1);
    weir_buf_release(&value);
    if (err == WEIR_OK)
        write_one(&job->out, kind, id, rec);
    return err;
}

weir_err api_record_create(struct api_job *job, const struct api_kind *kind)
{
    struct weir_str id;
    union api_record rec;
    weir_err err = api_param(job, kind->param, &id);

    weir_record_init(kind->fields, &rec);
    if (err == WEIR_OK)
        err = kind->check_id(id, &job->why);
    if (err == WEIR_OK && job->body.len > 0)
        err = weir_record_read(kind->fields, job->body, &job->arena, /* is_patch= */ true, &rec, &job->why);
    if (err != WEIR_OK)
        return err;
    const char *path = api_key_path(job, kind->folder, id);
    if (!path)
        return weir_fail(&job->why, WEIR_NOMEM, "no memory");
    err = save(job, kind, path, id, &rec, /* revision= */ 0);
    if (err != WEIR_CONFLICT)
        return err;
    job->grpc = API_GRPC_ALREADY_EXISTS;
    return weir_fail(&job->why, WEIR_CONFLICT, "the %s %.*s exists already", kind->noun, WEIR_STR_FMT(id));
}

weir_err api_record_list(struct api_job *job, const struct api_kind *kind)
{
    struct api_list list;
    struct weir_jw w;
    struct weir_str id, value;
    weir_err err = api_list_begin(job, kind->folder, &list);

    if (err != WEIR_OK)
        return err;
    weir_jw_init(&w, &job->out);
    weir_jw_object(&w);
    weir_jw_key(&w, kind->members);
    weir_jw_array(&w);
    while (api_list_next(&list, &id, &value)) {
        union api_record rec;
        struct weir_buf one;
        weir_record_init(kind->fields, &rec);
        api_list_took(&list, id);
        if (weir_record_read(kind->fields, value, &job->arena, /* is_patch= */ false, &rec, NULL) != WEIR_OK)
            continue; /* counted and logged when the view came */
        weir_buf_init(&one, 0);
        write_one(&one, kind, id, &rec);
        weir_jw_raw(&w, (struct weir_str){ weir_buf_ptr(&one), weir_buf_len(&one) });
        weir_buf_release(&one);
    }
    weir_jw_array_end(&w);
    api_list_end(&list, &w);
    weir_jw_object_end(&w);
    return WEIR_OK;
}

static weir_err read_now(struct api_job *job, const struct api_kind *kind, struct weir_str id,
                         const char **ret_path, union api_record *rec, int64_t *ret_revision)
{
    struct weir_str value;

    *ret_path = api_key_path(job, kind->folder, id);
    if (!*ret_path)
        return weir_fail(&job->why, WEIR_NOMEM, "no memory");
    weir_err err = api_get(job, *ret_path, &value, ret_revision);
    if (err == WEIR_NOTFOUND)
        return weir_fail(&job->why, WEIR_NOTFOUND, "there is no %s %.*s", kind->noun, WEIR_STR_FMT(id));
    weir_record_init(kind->fields, rec);
    return err == WEIR_OK ? api_stored(job, weir_record_read(kind->fields, value, &job->arena,
                                                             /* is_patch= */ false, rec, &job->why))
                          : err;
}

weir_err api_record_show(struct api_job *job, const struct api_kind *kind, struct weir_str id)
{
    union api_record rec;
    const char *path;
    int64_t revision;
    weir_err err = read_now(job, kind, id, &path, &rec, &revision);

    if (err == WEIR_OK)
        write_one(&job->out, kind, id, &rec);
    return err;
}

weir_err api_record_patch(struct api_job *job, const struct api_kind *kind, union api_record *rec)
{
    return weir_record_read(kind->fields, job->body, &job->arena, /* is_patch= */ true, rec, &job->why);
}

weir_err api_record_change(struct api_job *job, const struct api_kind *kind, struct weir_str id,
                           weir_err (*apply)(struct api_job *job, const struct api_kind *kind,
                                             union api_record *rec))
{
    weir_err err = WEIR_CONFLICT;

    for (int i = 0; i < API_TRIES_MAX && err == WEIR_CONFLICT; i++) {
        union api_record rec;
        const char *path;
        int64_t revision;
        err = read_now(job, kind, id, &path, &rec, &revision);
        if (err == WEIR_OK)
            err = apply(job, kind, &rec);
        if (err == WEIR_OK)
            err = save(job, kind, path, id, &rec, revision);
    }
    return err;
}

weir_err api_record_delete(struct api_job *job, const struct api_kind *kind, struct weir_str id)
{
    weir_err err = WEIR_CONFLICT;

    for (int i = 0; i < API_TRIES_MAX && err == WEIR_CONFLICT; i++) {
        union api_record rec;
        const char *path;
        int64_t revision;
        err = read_now(job, kind, id, &path, &rec, &revision);
        if (err != WEIR_OK && err != WEIR_CORRUPT) /* which can go all the same */
            return err;
        struct weir_disc_cond cond = { weir_str(path), revision };
        err = api_change(job, path, (struct weir_str){ NULL, 0 }, &cond, 1);
        if (err == WEIR_OK)
            write_one(&job->out, kind, id, &rec);
    }
    return err;
}
