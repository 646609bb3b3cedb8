/* conf.h - table-driven configuration: file, environment, flags; later ones win; each value knows who set it.
 *
 * A program keeps one X-macro table; from a row come the struct field, the parser, the bounds, --help and the
 * dump.
 *
 *     #define ROUTER_CONF(X)                                                                            \
 *         X(STR, rest_listen, "127.0.0.1:8080", 0, 255, "host:port", "address of the REST listener")    \
 *         X(U32, drain_timeout_ms, "30000", 0, 600000, "ms", "wait for open streams on shutdown")       \
 *     struct router_conf { WEIR_CONF_FIELDS(ROUTER_CONF) };
 *     #define WEIR_CONF_STRUCT struct router_conf
 *     static const struct weir_conf_row router_rows[] = { WEIR_CONF_ROWS(ROUTER_CONF) };
 *
 * Kinds: STR, U32, U64, F64, BOOL; defaults and bounds are text and numbers of the row.
 * File: one JSON object with the row names as keys (--config FILE). Environment: <PREFIX>_<NAME>, upper case.
 * Flags: --name=value, --name value, --no-name for BOOL; '-' and '_' are the same in flags.
 * Start-up thread only. */
#ifndef WEIR_BASE_CONF_H
#define WEIR_BASE_CONF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

#ifdef __cplusplus
extern "C" {
#endif

enum weir_conf_kind { WEIR_CONF_STR, WEIR_CONF_U32, WEIR_CONF_U64, WEIR_CONF_F64, WEIR_CONF_BOOL };

struct weir_conf_row {
    enum weir_conf_kind kind;
    const char *name;
    size_t offset;    /* of the field */
    const char *init; /* the default, as text */
    double min, max;  /* bounds, both 0 = none; for STR: of the length */
    const char *unit;
    const char *help;
};

#define WEIR_CONF_TYPE_STR const char *
#define WEIR_CONF_TYPE_U32 uint32_t
#define WEIR_CONF_TYPE_U64 uint64_t
#define WEIR_CONF_TYPE_F64 double
#define WEIR_CONF_TYPE_BOOL bool
#define WEIR_CONF_FIELD(kind, name, init, min, max, unit, help) WEIR_CONF_TYPE_##kind name;
#define WEIR_CONF_FIELDS(TABLE) TABLE(WEIR_CONF_FIELD)
/* A row needs the struct's name, which an X-macro can't pass on: define WEIR_CONF_STRUCT before ROWS. */
#define WEIR_CONF_ROW(kind, name, init, min, max, unit, help)                                                \
    { WEIR_CONF_##kind, #name, offsetof(WEIR_CONF_STRUCT, name), init, min, max, unit, help },
#define WEIR_CONF_ROWS(TABLE) TABLE(WEIR_CONF_ROW)

struct weir_conf; /* the parsed set with its provenance */

struct weir_conf_spec {
    const char *program;    /* "weir-router" */
    const char *summary;    /* one line for --help */
    const char *env_prefix; /* "WEIR_ROUTER" */
    const struct weir_conf_row *rows;
    size_t n_rows;
};

/* Parse into `values` (the program's struct, zeroed by this call). Positional arguments are an error.
 * `ret_action` says what to do: RUN, or EXIT when --help, --version or --check-config was asked for and has
 * been printed to standard output. Strings live until weir_conf_close.
 * WEIR_INVALID: unknown or malformed or out of range; `why` names the key and who set it.
 * WEIR_IO: unreadable file. */
enum weir_conf_action { WEIR_CONF_RUN, WEIR_CONF_EXIT };
WEIR_MUST_CHECK weir_err weir_conf_open(const struct weir_conf_spec *spec, int argc, char **argv,
                                        void *values, struct weir_conf **ret,
                                        enum weir_conf_action *ret_action, struct weir_why *why);
void weir_conf_close(struct weir_conf *conf);
/* NULL for an empty text: settings say "absent" by being empty, functions by NULL. */
static inline const char *weir_conf_given(const char *text)
{
    return text[0] ? text : NULL;
}
/* Every value with its origin, as a JSON object {"name":{"value":..,"from":"flag"}}; for /debug/config.
 * Rows whose name ends in _secret or _token or _password show as "***". */
void weir_conf_dump(const struct weir_conf *conf, struct weir_buf *out);

#ifdef __cplusplus
}
#endif
#endif
