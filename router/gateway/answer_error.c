/* answer_error.c - an error as OpenAI's clients read it: a body, and for a whole answer its status and headers. */
#include "router/gateway/answer_int.h"

void weir_answer_error_body(struct weir_buf *out, weir_err err, const struct weir_why *why,
                            const char *request_id)
{
    const struct weir_err_info *info = weir_err_info(err);
    struct weir_jw w;

    weir_jw_init(&w, out);
    weir_jw_object(&w);
    weir_jw_key(&w, "error");
    weir_jw_object(&w);
    weir_jw_key(&w, "message");
    weir_jw_cstr(&w, why && why->text[0] ? why->text : info->text);
    weir_jw_key(&w, "type");
    weir_jw_cstr(&w, info->type);
    weir_jw_key(&w, "param");
    if (why && why->param[0])
        weir_jw_cstr(&w, why->param);
    else
        weir_jw_null(&w);
    weir_jw_key(&w, "code");
    weir_jw_cstr(&w, info->code);
    weir_jw_object_end(&w);
    if (request_id && request_id[0]) {
        weir_jw_key(&w, "request_id");
        weir_jw_cstr(&w, request_id);
    }
    weir_jw_object_end(&w);
}

void answer_error(struct weir_http_req *http, weir_err err, const struct weir_why *why,
                  const char *request_id, uint32_t retry_after_ms, const struct answer *a)
{
    struct weir_http_fields fields;
    struct weir_buf body;

    weir_buf_init(&body, 0);
    weir_answer_error_body(&body, err, why, request_id);
    weir_http_fields_init(&fields);
    weir_http_fields_adds(&fields, "content-type", "application/json");
    if (request_id && request_id[0])
        weir_http_fields_adds(&fields, "x-request-id", request_id);
    if (retry_after_ms) {
        weir_http_fields_addu(&fields, "retry-after", (retry_after_ms + 999) / 1000);
        weir_http_fields_addu(&fields, "retry-after-ms", retry_after_ms);
    }
    if (err == WEIR_UNAUTHENTICATED)
        weir_http_fields_adds(&fields, "www-authenticate", "Bearer");
    if (a)
        weir_limit_headers_add(&fields, &a->limits, a->env->limit_unit);
    weir_http_respond(http, weir_err_info(err)->http, &fields, weir_buf_ptr(&body), weir_buf_len(&body));
    weir_buf_release(&body);
}

void weir_answer_error(struct weir_http_req *http, weir_err err, const struct weir_why *why,
                       const char *request_id, uint32_t retry_after_ms)
{
    answer_error(http, err, why, request_id, retry_after_ms, /* a= */ NULL);
}
