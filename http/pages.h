/* pages.h - a listener's read-only pages as a table: /metrics, /healthz, /debug/config and the like. */
#ifndef WEIR_HTTP_PAGES_H
#define WEIR_HTTP_PAGES_H

#include "http/http_server.h"

struct weir_page {
    const char *path;
    const char *content_type;
    /* Appends the body and returns the status. On the loop's thread. */
    int (*write)(void *ctx, struct weir_buf *out);
};

/* Answers req from the table: GET and HEAD; another method is 405. False when no page has this path: req is
 * still the caller's. */
bool weir_pages_respond(const struct weir_page *pages, size_t n_pages, void *ctx, struct weir_http_req *req);

/* Pages that every process has. */
int weir_page_metrics(void *ctx, struct weir_buf *out);
int weir_page_health(void *ctx, struct weir_buf *out);
#define WEIR_METRICS_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"

#endif
