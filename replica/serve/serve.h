/* serve.h - the serving side of a replica: routers attach, submit calls, and get one frame a step.
 *
 * serve owns the engine's step thread, the text workers and the sender; the caller owns the model and the rpc
 * runtime and opens the server with weir_serve_handler(). */
#ifndef WEIR_REPLICA_SERVE_SERVE_H
#define WEIR_REPLICA_SERVE_SERVE_H

#include "base/buf.h"
#include "base/err.h"
#include "proto/rpc.h"
#include "replica/text/tool_parse.h"

struct weir_serve;
struct weir_engine;
struct weir_tokenizer;
struct weir_template;

struct weir_serve_opts {
    const char *replica; /* our id; borrowed */
    const char *model;   /* the name routers know; borrowed */
    struct weir_engine *engine;
    const struct weir_tokenizer *tokenizer;
    const struct weir_template *chat_template; /* NULL: the model has none; chat is refused */
    struct weir_str template_text;             /* its source; borrowed */
    bool tool_format_given;                    /* else the template's text says how calls are written */
    enum weir_tool_format tool_format;
    uint8_t template_hash[32];
    uint32_t n_text_workers;
    uint32_t n_queue_max;         /* calls accepted but not yet running */
    uint32_t request_bytes_max;   /* one encoded request */
    uint32_t receiving_bytes_max; /* requests still arriving, per attachment */
    uint32_t outbox_bytes_max;    /* answers not yet taken by a router; past it the attachment is cut */
};

WEIR_MUST_CHECK weir_err weir_serve_open(const struct weir_serve_opts *opts, struct weir_serve **ret,
                                         struct weir_why *why);
/* What serves /weir.fabric.v1.Replica/Attach. */
struct weir_rpc_handler weir_serve_handler(struct weir_serve *serve);
/* No new work; every attached router is told. */
void weir_serve_drain(struct weir_serve *serve);
unsigned weir_serve_n_calls(const struct weir_serve *serve); /* any thread */
/* The engine broke; the process was told to end. Any thread. */
bool weir_serve_failed(const struct weir_serve *serve);
/* Load, rates and bounds as one JSON object, for the admin listener. Any thread. */
void weir_serve_describe(struct weir_serve *serve, struct weir_buf *out);
/* After the rpc server is closed. Takes NULL and half-built ones. */
void weir_serve_close(struct weir_serve *serve);

#endif
