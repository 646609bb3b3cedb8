/* ctl.h - weirctl: what its commands share. One thread, one command a process.
 *
 * A command fills nothing before it knows that it can succeed: what a script reads from standard output is
 * whole or not there. Messages go to standard error. */
#ifndef WEIR_CTL_CTL_H
#define WEIR_CTL_CTL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "discovery/discovery.h"

enum ctl_exit {
    CTL_OK = 0,
    CTL_FAILED = 1,      /* refused: a conflict, no such thing, a bad answer */
    CTL_USAGE = 2,       /* the command line is wrong */
    CTL_UNREACHABLE = 3, /* etcd or a router does not answer */
};

/* One option: "--name VALUE" or "--name=VALUE". */
struct ctl_option {
    const char *name; /* without the dashes */
    const char *arg;  /* for --help: "HOST:PORT" */
    const char *help;
    const char **value;
};

struct ctl {
    /* global options */
    const char *etcd, *source, *admin, *fleet_file, *output, *prefix;
    const char *ca_file, *cert_file, *key_file, *user;
    const char *admin_token, *admin_ca, *admin_cert, *admin_key;
    bool json;
    /* defaults of chat's options, from the environment and --fleet */
    const char *key, *router, *model;
    const char *source_text; /* after defaults: "etcd://..." */
    struct weir_arena arena; /* lives as long as the process */
};

struct ctl_command {
    const char *name;     /* "api-key create" */
    const char *operands; /* "", "TEXT", or "[TEXT]" when it can do without */
    const char *summary;
    const struct ctl_option *options; /* ends with a NULL name */
    int n_operands_max;
    enum ctl_exit (*run)(struct ctl *ctl, int n_operands, char **operands);
};
extern const struct ctl_command ctl_account_create, ctl_account_get, ctl_account_list, ctl_account_update,
    ctl_account_suspend, ctl_account_resume, ctl_key_create, ctl_key_list, ctl_key_delete, ctl_model_create,
    ctl_model_get, ctl_model_list, ctl_model_update, ctl_model_delete, ctl_limits_show, ctl_limits_table_get,
    ctl_limits_table_set, ctl_limits_table_reset, ctl_fleet, ctl_chat, ctl_completion;
extern const struct ctl_command *const ctl_commands[]; /* ends with NULL */
extern const char *const ctl_global_names[]; /* the global options, for completion; ends with NULL */

/* options.c: reads the command line, the environment and the fleet file. Returns NULL when all is said
 * already
 * (*ret_exit). Operands are moved to the front of *ret_operands. */
const struct ctl_command *ctl_options_read(struct ctl *ctl, const struct ctl_command *const *commands,
                                           int argc, char **argv, int *ret_n_operands, char ***ret_operands,
                                           enum ctl_exit *ret_exit);
struct weir_discovery_opts ctl_discovery(const struct ctl *ctl);
/* "keys/" -> "/weir/keys/" */
const char *ctl_path(struct ctl *ctl, const char *name);

/* Prints "weirctl: ..." to standard error and returns the code that fits the error. */
enum ctl_exit ctl_fail(weir_err err, const char *fmt, ...) WEIR_PRINTF(2, 3);
enum ctl_exit ctl_usage(const char *fmt, ...) WEIR_PRINTF(1, 2);
/* Prints what was gathered, with a newline; CTL_FAILED when that fails (a full disk). */
enum ctl_exit ctl_print(struct weir_buf *out);

/* table.c: rows of cells, printed in columns as wide as needed. Cells are copied into the arena. */
#define CTL_COLUMNS_MAX 16
struct ctl_table {
    struct weir_arena *arena;
    int n_columns, n_rows, cap;
    const char *const *headers;
    const char **cells; /* in the arena */
};
void ctl_table_init(struct ctl_table *t, struct weir_arena *arena,
                    const char *const *headers); /* ends with NULL */
void ctl_table_row(struct ctl_table *t, const char *const *cells);
void ctl_table_write(const struct ctl_table *t, struct weir_buf *out);

/* Text as a C string in the arena; never NULL (no memory ends the program: it is a tool). */
const char *ctl_text(struct ctl *ctl, struct weir_str s);
const char *ctl_format(struct ctl *ctl, const char *fmt, ...) WEIR_PRINTF(2, 3);

#endif
