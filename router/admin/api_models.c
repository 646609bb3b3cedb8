/* api_models.c - models: what clients' names stand for, who may use them, and until when. */
#include <string.h>

#include "base/clock.h"
#include "router/admin/api_int.h"
#include "router/tenancy/record.h"

#define GRPC_ALREADY_EXISTS 6

static void write_model(struct weir_buf *out, struct weir_str id, const struct weir_model_record *rec)
{
    struct weir_buf members;

    weir_buf_init(&members, 0);
    weir_model_record_write(&members, rec);
    api_write_resource(out, "models/", id, &members);
    weir_buf_release(&members);
}

static weir_err save(struct api_job *job, const char *path, struct weir_str id, struct weir_model_record *rec,
                     int64_t revision)
{
    struct weir_disc_cond cond = { weir_str(path), revision };
    struct weir_buf value;

    if (rec->deployment.len == 0)
        rec->deployment = id;
    rec->updated_s = weir_wall_ns() / WEIR_S;
    weir_buf_init(&value, 0);
    weir_model_record_write(&value, rec);
    weir_err err =
        value.failed ? weir_fail(&job->why, WEIR_NOMEM, "no memory for the record")
                     : api_change(job, path, (struct weir_str){ weir_buf_ptr(&value), weir_buf_len(&value) },
                                  &cond, 1);
    weir_buf_release(&value);
    if (err == WEIR_OK)
        write_model(&job->out, id, rec);
    return err;
}

static weir_err create(struct api_job *job)
{
    struct weir_str id = api_param(job, "modelId");
    struct weir_model_record rec;
    const char *path = api_key_path(job, "models/", id);
    weir_err err = weir_model_id_check(id, &job->why);

    weir_model_record_init(&rec);
    if (err == WEIR_OK && job->body.len > 0)
        err = weir_model_record_read(job->body, &job->arena, /* is_patch= */ true, &rec, &job->why);
    if (err == WEIR_OK && !path)
        err = weir_fail(&job->why, WEIR_NOMEM, "no memory");
    if (err != WEIR_OK)
        return err;
    rec.created_s = weir_wall_ns() / WEIR_S;
    err = save(job, path, id, &rec, /* revision= */ 0);
    if (err != WEIR_CONFLICT)
        return err;
    job->grpc = GRPC_ALREADY_EXISTS;
    return weir_fail(&job->why, WEIR_CONFLICT, "the model %.*s exists already", WEIR_STR_FMT(id));
}

static weir_err list(struct api_job *job)
{
    struct api_list l;
    struct weir_jw w;
    struct weir_str id, value;
    weir_err err = api_list_begin(job, "models/", &l);

    if (err != WEIR_OK)
        return err;
    weir_jw_init(&w, &job->out);
    weir_jw_object(&w);
    weir_jw_key(&w, "models");
    weir_jw_array(&w);
    while (api_list_next(&l, &id, &value)) {
        struct weir_model_record rec;
        struct weir_buf one;
        weir_model_record_init(&rec);
        api_list_took(&l, id);
        if (weir_model_record_read(value, &job->arena, /* is_patch= */ false, &rec, NULL) != WEIR_OK)
            continue;
        weir_buf_init(&one, 0);
        write_model(&one, id, &rec);
        weir_jw_raw(&w, (struct weir_str){ weir_buf_ptr(&one), weir_buf_len(&one) });
        weir_buf_release(&one);
    }
    weir_jw_array_end(&w);
    api_list_end(&l, &w);
    weir_jw_object_end(&w);
    return WEIR_OK;
}

static weir_err read_now(struct api_job *job, const char *path, struct weir_str id,
                         struct weir_model_record *rec, int64_t *ret_revision)
{
    struct weir_str value;
    weir_err err = api_get(job, path, &value, ret_revision);

    weir_model_record_init(rec);
    if (err == WEIR_NOTFOUND)
        return weir_fail(&job->why, WEIR_NOTFOUND, "there is no model %.*s", WEIR_STR_FMT(id));
    return err == WEIR_OK ? weir_model_record_read(value, &job->arena, /* is_patch= */ false, rec, &job->why)
                          : err;
}

static weir_err change_once(struct api_job *job, struct weir_str id, const char *path)
{
    struct weir_model_record rec;
    int64_t revision;
    weir_err err = read_now(job, path, id, &rec, &revision);

    if (err == WEIR_OK && api_is(job, "DELETE")) {
        struct weir_disc_cond cond = { weir_str(path), revision };
        err = api_change(job, path, (struct weir_str){ NULL, 0 }, &cond, 1);
        if (err == WEIR_OK)
            write_model(&job->out, id, &rec);
        return err;
    }
    if (err == WEIR_OK)
        err = weir_model_record_read(job->body, &job->arena, /* is_patch= */ true, &rec, &job->why);
    return err == WEIR_OK ? save(job, path, id, &rec, revision) : err;
}

static weir_err one(struct api_job *job, struct weir_str id)
{
    const char *path = api_key_path(job, "models/", id);
    struct weir_model_record rec;
    int64_t revision;
    weir_err err = WEIR_CONFLICT;

    if (!path)
        return weir_fail(&job->why, WEIR_NOMEM, "no memory");
    if (api_is(job, "PATCH") || api_is(job, "DELETE")) {
        for (int i = 0; i < API_TRIES_MAX && err == WEIR_CONFLICT; i++)
            err = change_once(job, id, path);
        return err;
    }
    if (!api_is(job, "GET"))
        return api_method_error(job, "GET, PATCH and DELETE");
    err = read_now(job, path, id, &rec, &revision);
    if (err == WEIR_OK)
        write_model(&job->out, id, &rec);
    return err;
}

/* parts: fleet, models, and an id whose slashes are percent-encoded. */
weir_err api_models(struct api_job *job)
{
    if (job->verb.len || job->n_parts > 3)
        return weir_fail(&job->why, WEIR_NOTFOUND, "no such path; a / in a model's id is %%2F, a : is %%3A");
    if (job->n_parts == 3)
        return one(job, job->parts[2]);
    return api_is(job, "GET")    ? list(job)
           : api_is(job, "POST") ? create(job)
                                 : api_method_error(job, "GET and POST");
}
