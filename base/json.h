/* json.h - one strict pull parser and one writer (RFC 8259).
 *
 * Ours, because the only correct C library spends 40 of the 66 microseconds a request may cost
 * (docs/decisions/). Strict: UTF-8 is validated, no NaN, no trailing commas, no data after the value, no lone
 * surrogates, depth bounded. It pulls: the caller asks for what it expects, nothing is built.
 *
 *     struct weir_json j;
 *     weir_json_init(&j, text, len, &arena);
 *     if (weir_json_object(&j)) {                       // enters the object
 *         struct weir_str key;
 *         while (weir_json_key(&j, &key)) {             // false at the closing brace or on error
 *             if (weir_str_eq(key, "n")) weir_json_i64(&j, &n);
 *             else weir_json_skip(&j);
 *         }
 *     }
 *     rc = weir_json_end(&j, &why);                     // no trailing data; reports the first error
 *
 * The first error sticks: later calls return false and do nothing. Errors carry the byte offset and the path
 * ("messages[2].content"), so that a bad field is named. One thread at a time. */
#ifndef WEIR_BASE_JSON_H
#define WEIR_BASE_JSON_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/utf8.h" /* weir_utf8_valid */

#ifdef __cplusplus
extern "C" {
#endif

#define WEIR_JSON_DEPTH_MAX 64

enum weir_json_type {
    WEIR_JSON_NONE, /* end of input or an error */
    WEIR_JSON_NULL,
    WEIR_JSON_BOOL,
    WEIR_JSON_NUMBER,
    WEIR_JSON_STRING,
    WEIR_JSON_ARRAY,
    WEIR_JSON_OBJECT,
};

struct weir_json {
    const char *start, *pos, *end;
    struct weir_arena *arena; /* unescaped strings live here; NULL: an escaped string is an error */
    int depth;
    bool closed_object; /* the last thing read was the end of an object */
    struct {
        bool is_array, is_first;
        struct weir_str key; /* of the member being read; raw, for the path */
        size_t index;
    } stack[WEIR_JSON_DEPTH_MAX];
    weir_err err;
    struct weir_why why;
};

/* Borrows `text` until the last string taken from it is no longer used: strings without escapes point into
 * it. */
void weir_json_init(struct weir_json *j, const char *text, size_t len, struct weir_arena *arena);

enum weir_json_type weir_json_peek(struct weir_json *j); /* what comes next */

/* Each takes the next value and fails (false, error kept) when it is of another type. */
bool weir_json_object(struct weir_json *j);
bool weir_json_key(struct weir_json *j, struct weir_str *ret_key); /* valid until the arena is released */
bool weir_json_array(struct weir_json *j);
bool weir_json_next(struct weir_json *j); /* another element? false at the closing bracket or on error */
bool weir_json_string(struct weir_json *j, struct weir_str *ret); /* unescaped UTF-8; NULs are kept */
bool weir_json_bool(struct weir_json *j, bool *ret);
bool weir_json_null(struct weir_json *j);
bool weir_json_i64(struct weir_json *j, int64_t *ret); /* an integer; 1.0 and 1e2 count as integers */
bool weir_json_u64(struct weir_json *j, uint64_t *ret);
bool weir_json_f64(struct weir_json *j, double *ret);          /* finite */
bool weir_json_skip(struct weir_json *j);                      /* any value, validated */
bool weir_json_raw(struct weir_json *j, struct weir_str *ret); /* any value, validated, as its text */

/* The caller's own complaint about the value just read or about to be read; the path is added as `param`. */
bool weir_json_fail(struct weir_json *j, weir_err err, const char *fmt, ...) WEIR_PRINTF(3, 4);
/* The same about a named member of the current object ("top_k"), whether it is there or not; right after its
 * closing brace was read an object is still the current one. */
bool weir_json_fail_key(struct weir_json *j, const char *key, weir_err err, const char *fmt, ...)
    WEIR_PRINTF(4, 5);
bool weir_json_ok(const struct weir_json *j);
/* WEIR_OK when the whole input was read and nothing failed. WEIR_INVALID: malformed; `why` says where. */
WEIR_MUST_CHECK weir_err weir_json_end(struct weir_json *j, struct weir_why *why);

/* Writing: plain appends to a buffer. Commas are the writer's job through `struct weir_jw`, so that it stays
 * a handful of appends with no tree. */
struct weir_jw {
    struct weir_buf *out;
    uint64_t first; /* bit d: nothing written yet in the container at depth d + 1 */
    int depth;
    bool after_key;
};
void weir_jw_init(struct weir_jw *w, struct weir_buf *out);
void weir_jw_object(struct weir_jw *w);
void weir_jw_object_end(struct weir_jw *w);
void weir_jw_array(struct weir_jw *w);
void weir_jw_array_end(struct weir_jw *w);
void weir_jw_key(struct weir_jw *w, const char *key);         /* plain ASCII without anything to escape */
void weir_jw_key_str(struct weir_jw *w, struct weir_str key); /* any text; escaped like a string */
void weir_jw_str(struct weir_jw *w, struct weir_str s);       /* escapes; invalid UTF-8 becomes U+FFFD */
void weir_jw_cstr(struct weir_jw *w, const char *s);
void weir_jw_u64(struct weir_jw *w, uint64_t n);
void weir_jw_i64(struct weir_jw *w, int64_t n);
void weir_jw_f64(struct weir_jw *w, double x); /* shortest text that reads back equal; not finite: null */
void weir_jw_bool(struct weir_jw *w, bool b);
void weir_jw_null(struct weir_jw *w);
void weir_jw_raw(struct weir_jw *w, struct weir_str json); /* already JSON */

#ifdef __cplusplus
}
#endif
#endif
