/* record_int.h - the values that records are made of. Private to tenancy/. */
#ifndef WEIR_ROUTER_TENANCY_RECORD_INT_H
#define WEIR_ROUTER_TENANCY_RECORD_INT_H

#include "base/json.h"
#include "router/tenancy/record.h"

enum value_kind {
    VALUE_LABEL,      /* struct weir_str, for people */
    VALUE_SECRET,     /* struct weir_str; never written */
    VALUE_DEPLOYMENT, /* struct weir_str */
    VALUE_TIME,       /* uint64_t, seconds since 1970; RFC 3339 or a number; null or "" is 0 */
    VALUE_SECONDS,    /* the same, written as a number */
    VALUE_BOOL,
    VALUE_COUNT,   /* uint32_t */
    VALUE_TIER,    /* uint32_t */
    VALUE_SUSPEND, /* enum weir_suspend, and so on: by name */
    VALUE_POLICY,
    VALUE_SIZE,
    VALUE_LIMITS, /* struct weir_limit_overrides */
    VALUE_STRS,   /* struct weir_strs */
};

/* Takes the next value; what is not good is the parser's error, and *to stays. */
void value_read(enum value_kind kind, struct weir_json *j, struct weir_arena *arena, void *to);
/* Nothing when the value says nothing (0, empty, INHERIT), unless `always`. */
void value_write(enum value_kind kind, struct weir_jw *w, const char *name, const void *from, bool always);

#endif
