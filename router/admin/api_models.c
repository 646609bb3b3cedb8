/* api_models.c - models: what clients' names stand for, who may use them, and until when. */
#include "router/admin/api_int.h"

static void stamp(union api_record *rec, struct weir_str id, uint64_t now_s, bool is_new)
{
    rec->model.updated_s = now_s;
    if (is_new)
        rec->model.created_s = now_s;
    if (rec->model.deployment.len == 0)
        rec->model.deployment = id;
}

static const struct api_kind models = {
    .noun = "model",
    .param = "modelId",
    .folder = "models/",
    .members = "models",
    .fields = &weir_model_kind,
    .check_id = weir_model_id_check,
    .stamp = stamp,
};

/* parts: fleet, models, and an id whose slashes are percent-encoded. */
weir_err api_models(struct api_job *job)
{
    if (job->verb.len || job->n_parts > 3)
        return weir_fail(&job->why, WEIR_NOTFOUND, "no such path; a / in a model's id is %%2F, a : is %%3A");
    if (job->n_parts == 2)
        return api_is(job, "GET")    ? api_record_list(job, &models)
               : api_is(job, "POST") ? api_record_create(job, &models)
                                     : api_method_error(job, "GET and POST");
    return api_is(job, "GET")      ? api_record_show(job, &models, job->parts[2])
           : api_is(job, "PATCH")  ? api_record_change(job, &models, job->parts[2], api_record_patch)
           : api_is(job, "DELETE") ? api_record_delete(job, &models, job->parts[2])
                                   : api_method_error(job, "GET, PATCH and DELETE");
}
