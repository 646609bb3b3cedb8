/* api_table.c - the table of limits: one record, whose every number can change while routers run. */
#include "router/admin/api_int.h"
#include "router/tenancy/limit_table.h"

static void write_table(struct weir_buf *out, const struct weir_limit_table *table)
{
    struct weir_buf members;

    weir_buf_init(&members, 0);
    weir_limit_table_write(&members, table);
    api_write_resource(out, "limitsTable", (struct weir_str){ "", 0 }, &members);
    weir_buf_release(&members);
}

/* Without a record: the defaults, at revision 0. */
static weir_err read_now(struct api_job *job, const char *path, struct weir_limit_table *table,
                         int64_t *ret_revision)
{
    struct weir_str value;
    weir_err err = api_get(job, path, &value, ret_revision);

    weir_limit_table_init(table);
    if (err == WEIR_NOTFOUND) {
        *ret_revision = 0;
        return WEIR_OK;
    }
    return err == WEIR_OK ? api_stored(job, weir_limit_table_read(value, &job->arena, /* is_patch= */ false,
                                                                  table, &job->why))
                          : err;
}

static weir_err patch_once(struct api_job *job, const char *path)
{
    struct weir_limit_table table;
    struct weir_buf value;
    int64_t revision;
    weir_err err = read_now(job, path, &table, &revision);

    if (err == WEIR_OK)
        err = weir_limit_table_read(job->body, &job->arena, /* is_patch= */ true, &table, &job->why);
    if (err != WEIR_OK)
        return err;
    struct weir_disc_cond cond = { weir_str(path), revision };
    weir_buf_init(&value, 0);
    weir_limit_table_write(&value, &table);
    err = value.failed
              ? weir_fail(&job->why, WEIR_NOMEM, "no memory for the record")
              : api_change(job, path, (struct weir_str){ weir_buf_ptr(&value), weir_buf_len(&value) }, &cond,
                           1);
    weir_buf_release(&value);
    if (err == WEIR_OK)
        write_table(&job->out, &table);
    return err;
}

/* Back to the defaults, whatever the record holds. */
static weir_err reset(struct api_job *job, const char *path)
{
    struct weir_limit_table table;
    weir_err err = api_change(job, path, (struct weir_str){ NULL, 0 }, NULL, 0);

    weir_limit_table_init(&table);
    if (err == WEIR_OK)
        write_table(&job->out, &table);
    return err;
}

weir_err api_table(struct api_job *job)
{
    const char *path = api_key_path(job, WEIR_LIMIT_TABLE_KEY, (struct weir_str){ "", 0 });
    struct weir_limit_table table;
    int64_t revision;
    weir_err err = WEIR_CONFLICT;

    if (!path)
        return weir_fail(&job->why, WEIR_NOMEM, "no memory");
    if (api_is(job, "PATCH")) {
        for (int i = 0; i < API_TRIES_MAX && err == WEIR_CONFLICT; i++)
            err = patch_once(job, path);
        return err;
    }
    if (api_is(job, "DELETE"))
        return reset(job, path);
    if (!api_is(job, "GET"))
        return api_method_error(job, "GET, PATCH and DELETE");
    err = read_now(job, path, &table, &revision);
    if (err == WEIR_OK)
        write_table(&job->out, &table);
    return err;
}
