/* err.h - one table of errors: name, HTTP status, gRPC status, may the caller retry, the words a client sees.
 *
 * What can fail returns weir_err. Results are written on success only; `why`, which may be NULL, on failure
 * only. */
#ifndef WEIR_BASE_ERR_H
#define WEIR_BASE_ERR_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* One row per error:
 * X(name, HTTP status, gRPC status, retryable, OpenAI `type`, `code`, default text)
 * gRPC numbers are those of google.rpc.Code; the HTTP column follows the service this one equals. */
#define WEIR_ERRORS(X)                                                                                       \
    X(OK, 200, 0, 0, "", "ok", "ok")                                                                         \
    X(INVALID, 400, 3, 0, "invalid_request_error", "invalid_request", "the request is malformed")            \
    X(CONTEXT, 400, 3, 0, "invalid_request_error", "context_length_exceeded", "the prompt is too long")      \
    X(UNAUTHENTICATED, 401, 16, 0, "authentication_error", "invalid_api_key", "missing or invalid API key")  \
    X(PAYMENT, 402, 7, 0, "billing_error", "payment_required", "the account may not spend more")             \
    X(FORBIDDEN, 403, 7, 0, "permission_error", "forbidden", "the key may not do this")                      \
    X(NOTFOUND, 404, 5, 0, "not_found_error", "not_found", "no such thing")                                  \
    X(NOMODEL, 404, 5, 0, "not_found_error", "model_not_found", "the model does not exist or is not served") \
    X(METHOD, 405, 12, 0, "invalid_request_error", "method_not_allowed", "wrong method for this path")       \
    X(TIMEOUT, 408, 4, 1, "timeout_error", "request_timeout", "the request took too long to arrive")         \
    X(CONFLICT, 409, 10, 1, "invalid_request_error", "conflict", "somebody else changed it first")           \
    X(SUSPENDED, 412, 9, 0, "billing_error", "account_suspended", "the account is suspended")                \
    X(TOOLARGE, 413, 8, 0, "invalid_request_error", "request_too_large", "the request is too large")         \
    X(MEDIATYPE, 415, 3, 0, "invalid_request_error", "unsupported_media_type", "send application/json")      \
    X(HEADERS, 431, 8, 0, "invalid_request_error", "headers_too_large", "the header section is too large")   \
    X(LIMITED, 429, 8, 1, "rate_limit_error", "rate_limit_exceeded", "over the account's limit")             \
    X(CANCELLED, 499, 1, 0, "cancelled", "cancelled", "the client went away")                                \
    X(INTERNAL, 500, 13, 1, "api_error", "internal_error", "internal error")                                 \
    X(NOMEM, 503, 8, 1, "api_error", "out_of_memory", "no memory for this request")                          \
    X(UNIMPLEMENTED, 501, 12, 0, "invalid_request_error", "unimplemented", "not implemented")                \
    X(UPSTREAM, 502, 14, 1, "api_error", "bad_upstream", "the replica broke off")                            \
    X(OVERLOADED, 503, 14, 1, "overloaded_error", "service_overloaded", "no replica has room; try again")    \
    X(UNAVAILABLE, 503, 14, 1, "overloaded_error", "service_unavailable", "not available now; try again")    \
    X(DEADLINE, 504, 4, 1, "timeout_error", "deadline_exceeded", "the replica did not answer in time")       \
    X(BADVERSION, 505, 12, 0, "invalid_request_error", "http_version_not_supported", "HTTP/1.1 only")        \
    X(IO, 500, 13, 1, "api_error", "io_error", "input or output failed")                                     \
    X(CORRUPT, 500, 15, 0, "api_error", "data_corrupt", "the data is damaged")                               \
    X(DEVICE, 500, 13, 1, "api_error", "device_error", "the device failed")                                  \
    X(FULL, 503, 8, 1, "overloaded_error", "queue_full", "a bounded queue is full")

typedef enum weir_err {
#define WEIR_ERR_ENUM(name, http, grpc, retry, type, code, text) WEIR_##name,
    WEIR_ERRORS(WEIR_ERR_ENUM)
#undef WEIR_ERR_ENUM
        WEIR_ERR_COUNT
} weir_err;

struct weir_err_info {
    const char *name; /* "INVALID" */
    int http;
    int grpc;
    bool retryable;
    const char *type; /* OpenAI's error.type */
    const char *code; /* OpenAI's error.code */
    const char *text; /* what a client sees when nothing better is known */
};

/* Never NULL; an unknown number gives INTERNAL's row. */
const struct weir_err_info *weir_err_info(weir_err err);

/* The row whose HTTP or gRPC number this is; the first in the table wins; INTERNAL when there is none. */
weir_err weir_err_from_grpc(int grpc);

/* Why it failed: one sentence for a person, and the field it is about ("" when none). */
struct weir_why {
    char text[320];
    char param[96];
};

#define WEIR_MUST_CHECK __attribute__((warn_unused_result))
#define WEIR_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

/* Write the sentence (cut, never split within a UTF-8 character, when it is too long) and return `err`. */
weir_err weir_fail(struct weir_why *why, weir_err err, const char *fmt, ...) WEIR_PRINTF(3, 4);

/* The same, naming the field at fault: weir_fail_param(why, "messages[3].role", WEIR_INVALID, ...). */
weir_err weir_fail_param(struct weir_why *why, const char *param, weir_err err, const char *fmt, ...)
    WEIR_PRINTF(4, 5);

/* Our own faults. BUG_ON: always fatal. CHECK: counted in release (weir_check_count), fatal in debug builds.
 * DCHECK: debug builds only, for hot paths. */
__attribute__((noreturn)) void weir_bug(const char *file, int line, const char *what);
void weir_check_failed(const char *file, int line, const char *what);
unsigned long weir_check_count(void);

#define WEIR_BUG_ON(cond)                                                                                    \
    do {                                                                                                     \
        if (__builtin_expect(!!(cond), 0))                                                                   \
            weir_bug(__FILE__, __LINE__, #cond);                                                             \
    } while (0)
#define WEIR_CHECK(cond)                                                                                     \
    do {                                                                                                     \
        if (__builtin_expect(!(cond), 0))                                                                    \
            weir_check_failed(__FILE__, __LINE__, #cond);                                                    \
    } while (0)
#ifdef WEIR_DEBUG
#define WEIR_DCHECK(cond) WEIR_BUG_ON(!(cond))
#else
#define WEIR_DCHECK(cond) ((void)0)
#endif

#ifdef __cplusplus
}
#endif
#endif
