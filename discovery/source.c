/* source.c - parser of the discovery source. */
#include "discovery/source.h"

#include <string.h>

#include "base/mem.h"

#define HOSTPORT_MAX 300

bool source_is_hostport(struct weir_str s)
{
    const char *colon = s.len ? memrchr(s.ptr, ':', s.len) : NULL;
    if (!colon || colon == s.ptr || s.len > HOSTPORT_MAX)
        return false;
    size_t n_host = (size_t)(colon - s.ptr), n_digits = s.len - n_host - 1;
    unsigned port = 0;
    bool is_v6 = s.ptr[0] == '[';
    if (is_v6 && (n_host < 4 || s.ptr[n_host - 1] != ']'))
        return false;
    for (size_t i = 0; i < n_host; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        bool is_bracket = is_v6 && (i == 0 || i == n_host - 1);
        if (c <= ' ' || c >= 0x7f || strchr("/@?#\\", c) || (!is_v6 && c == ':') ||
            (!is_bracket && strchr("[]", c)))
            return false;
    }
    for (size_t i = 0; i < n_digits; i++) {
        unsigned digit = (unsigned)(unsigned char)colon[1 + i] - '0';
        if (digit > 9 || n_digits > 5)
            return false;
        port = port * 10 + digit;
    }
    return n_digits > 0 && port >= 1 && port <= 65535;
}

static weir_err add_endpoint(struct source *src, const char *scheme, struct weir_str hostport,
                             struct weir_why *why)
{
    struct weir_buf url;
    if (!source_is_hostport(hostport))
        return weir_fail_param(why, "source", WEIR_INVALID, "discovery source: \"%.*s\" is not host:port",
                               (int)(hostport.len < 100 ? hostport.len : 100), hostport.ptr);
    if (src->n_urls == SOURCE_ENDPOINTS_MAX)
        return weir_fail_param(why, "source", WEIR_INVALID, "discovery source: more than %d endpoints",
                               SOURCE_ENDPOINTS_MAX);
    weir_buf_init(&url, /* limit_bytes= */ 0);
    weir_buf_addf(&url, "%s%.*s", scheme, WEIR_STR_FMT(hostport));
    const char *text = weir_buf_cstr(&url);
    char *copy = text ? weir_strdup(text) : NULL;
    weir_buf_release(&url);
    if (!copy)
        return weir_fail(why, WEIR_NOMEM, "discovery source: no memory");
    src->urls[src->n_urls++] = copy;
    return WEIR_OK;
}

weir_err source_init(struct source *src, const char *text, struct weir_why *why)
{
    const char *scheme, *list;
    *src = (struct source){ 0 };
    if (text && strncmp(text, "file:", 5) == 0 && text[5]) {
        src->file = weir_strdup(text + 5);
        return src->file ? WEIR_OK : weir_fail(why, WEIR_NOMEM, "discovery source: no memory");
    }
    if (text && strncmp(text, "etcd://", 7) == 0) {
        scheme = "http://";
        list = text + 7;
    } else if (text && strncmp(text, "etcds://", 8) == 0) {
        scheme = "https://";
        list = text + 8;
    } else {
        return weir_fail_param(
            why, "source", WEIR_INVALID,
            "discovery source: \"%.100s\" is none of etcd://host:port,..., etcds://..., file:PATH",
            text ? text : "");
    }
    for (;;) {
        size_t n = strcspn(list, ",");
        weir_err rc = add_endpoint(src, scheme, (struct weir_str){ list, n }, why);
        if (rc != WEIR_OK)
            return rc;
        if (list[n] == '\0')
            return WEIR_OK;
        list += n + 1;
    }
}

void source_release(struct source *src)
{
    weir_free(src->file);
    for (int i = 0; i < src->n_urls; i++)
        weir_free(src->urls[i]);
    *src = (struct source){ 0 };
}
