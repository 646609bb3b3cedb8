/* pages.c - see pages.h. A page is built whole and then sent: none is large. */
#include "http/pages.h"

#include "base/metrics.h"

int weir_page_metrics(void *ctx, struct weir_buf *out)
{
    (void)ctx;
    weir_metrics_write(out);
    return 200;
}

int weir_page_health(void *ctx, struct weir_buf *out)
{
    (void)ctx;
    weir_buf_adds(out, "ok\n");
    return 200;
}

bool weir_pages_respond(const struct weir_page *pages, size_t n_pages, void *ctx, struct weir_http_req *req)
{
    const struct weir_page *page = NULL;
    struct weir_http_fields fields;
    struct weir_buf body;

    for (size_t i = 0; i < n_pages && !page; i++)
        page = weir_str_eq(req->path, pages[i].path) ? &pages[i] : NULL;
    if (!page)
        return false;
    weir_http_fields_init(&fields);
    if (!weir_str_eq(req->method, "GET") && !weir_str_eq(req->method, "HEAD")) {
        weir_http_fields_adds(&fields, "allow", "GET, HEAD");
        weir_http_respond(req, 405, &fields, "GET only\n", 9);
        return true;
    }
    weir_buf_init(&body, 0);
    int status = page->write(ctx, &body);
    weir_http_fields_adds(&fields, "content-type", page->content_type);
    weir_http_fields_adds(&fields, "cache-control", "no-store");
    if (body.failed)
        weir_http_respond(req, 503, NULL, "no memory\n", 10);
    else
        weir_http_respond(req, status, &fields, weir_buf_ptr(&body), weir_buf_len(&body));
    weir_buf_release(&body);
    return true;
}
