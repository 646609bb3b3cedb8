/* source.h - where the fleet's view comes from, taken apart: "etcd://h:p,h:p", "etcds://..." or "file:PATH".
 * Private to discovery/. */
#ifndef WEIR_DISCOVERY_SOURCE_H
#define WEIR_DISCOVERY_SOURCE_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/err.h"

#define SOURCE_ENDPOINTS_MAX 16

struct source {
    char *file;                       /* NULL: etcd */
    char *urls[SOURCE_ENDPOINTS_MAX]; /* "http://host:port" */
    int n_urls;
};
/* WEIR_INVALID: malformed; the text says which part. Release what was filled in either case. */
WEIR_MUST_CHECK weir_err source_init(struct source *src, const char *text, struct weir_why *why);
void source_release(struct source *src);

/* "host:port", "[v6]:port": a host without spaces or control characters, a port from 1 to 65535. */
bool source_is_hostport(struct weir_str s);

#endif
