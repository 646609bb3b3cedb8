/* rpc_client.c - channels: a connection of their own to one address, kept alive, and the calls made on it.
 *
 * The core's defaults would share connections between channels, go through an HTTP proxy even to 127.0.0.1,
 * keep copies for retries, ask DNS for a service configuration and wait up to two minutes between attempts;
 * all are off. [K1] The core's channel lives until it is closed and its last stream has ended: destroying it
 * earlier would fail calls that are still connecting. Threads: any. Memory: counted by the owner and each
 * stream. */
#include <string.h>

#include <grpc/grpc_security.h>

#include "base/clock.h"
#include "base/mem.h"
#include "proto/rpc_int.h"

#define MESSAGE_BYTES_MAX (4u << 20)
#define KEEPALIVE_MS 10000u
#define BACKOFF_FIRST_MS 100
#define BACKOFF_MAX_MS 2000
#define CONNECT_MS 5000 /* what an attempt is given at least, the TLS handshake included */
#define RESOLVE_MS 1000 /* between look-ups of the name */

struct weir_rpc_channel {
    _Atomic uint32_t refs;
    struct weir_rpc *rpc;
    grpc_channel *channel;
    char address[80]; /* for weir_rpc_stream_peer; a longer one is cut */
};

void rpc_channel_unref(struct weir_rpc_channel *ch)
{
    if (atomic_fetch_sub_explicit(&ch->refs, 1, memory_order_acq_rel) > 1)
        return;
    if (ch->channel)
        grpc_channel_destroy(ch->channel); /* [K1] */
    weir_free(ch);
}

void weir_rpc_channel_close(struct weir_rpc_channel *ch)
{
    if (ch)
        rpc_channel_unref(ch);
}

static grpc_arg arg_int(const char *key, uint32_t value)
{
    grpc_arg arg = { .type = GRPC_ARG_INTEGER, .key = (char *)(uintptr_t)key };

    arg.value.integer = value > INT32_MAX ? INT32_MAX : (int)value;
    return arg;
}

static grpc_channel *create(const struct weir_rpc_channel_opts *opts, grpc_channel_credentials *creds)
{
    uint32_t message_max = opts->message_bytes_max ? opts->message_bytes_max : MESSAGE_BYTES_MAX;
    uint32_t keepalive_ms = opts->keepalive_ms ? opts->keepalive_ms : KEEPALIVE_MS;
    grpc_arg args[20] = {
        arg_int(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, message_max),
        arg_int(GRPC_ARG_KEEPALIVE_TIME_MS, keepalive_ms),
        arg_int(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, (keepalive_ms + 1) / 2),
        arg_int(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1),
        arg_int(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0),
        arg_int(GRPC_ARG_ENABLE_RETRIES, 0),
        arg_int(GRPC_ARG_ENABLE_HTTP_PROXY, 0),
        arg_int(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1),
        arg_int(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1),
        arg_int(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, BACKOFF_FIRST_MS),
        arg_int(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, BACKOFF_MAX_MS),
        arg_int(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, CONNECT_MS),
        arg_int(GRPC_ARG_DNS_MIN_TIME_BETWEEN_RESOLUTIONS_MS, RESOLVE_MS),
    };
    size_t n = 13;

    if (opts->lookahead_bytes) {
        args[n++] = arg_int(GRPC_ARG_HTTP2_BDP_PROBE, 0); /* it would grow the window past the bound */
        args[n++] = arg_int(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, opts->lookahead_bytes);
    }
    if (opts->tls.server_name) {
        args[n] = (grpc_arg){ .type = GRPC_ARG_STRING,
                              .key = (char *)(uintptr_t)GRPC_SSL_TARGET_NAME_OVERRIDE_ARG };
        args[n++].value.string = (char *)(uintptr_t)opts->tls.server_name;
    }
    grpc_channel_args all = { .num_args = n, .args = args };
    return grpc_channel_create(opts->address, creds, &all);
}

weir_err weir_rpc_channel_open(struct weir_rpc *rpc, const struct weir_rpc_channel_opts *opts,
                               struct weir_rpc_channel **ret, struct weir_why *why)
{
    grpc_channel_credentials *creds = NULL;
    char host[256], port[8];

    weir_err rc = rpc_address_split("address", opts->address, host, port, why);
    if (rc != WEIR_OK)
        return rc;
    if (rpc_tls_on(&opts->tls))
        rc = rpc_tls_client(&opts->tls, &creds, why);
    else
        creds = grpc_insecure_credentials_create();
    if (rc != WEIR_OK)
        return rc;
    struct weir_rpc_channel *ch = weir_alloc0(sizeof *ch);
    if (!ch) {
        grpc_channel_credentials_release(creds);
        return weir_fail(why, WEIR_NOMEM, "rpc: no memory for a channel");
    }
    atomic_init(&ch->refs, 1);
    ch->rpc = rpc;
    strncpy(ch->address, opts->address, sizeof ch->address - 1);
    ch->channel = create(opts, creds);
    grpc_channel_credentials_release(creds);
    *ret = ch;
    return WEIR_OK;
}

static gpr_timespec core_deadline(uint64_t deadline_ns)
{
    if (deadline_ns == 0 || deadline_ns == UINT64_MAX)
        return gpr_inf_future(GPR_CLOCK_MONOTONIC);
    int64_t left_ns = (int64_t)(deadline_ns - weir_now_ns()); /* negative: passed */
    return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_nanos(left_ns, GPR_TIMESPAN));
}

weir_err weir_rpc_channel_call(struct weir_rpc_channel *ch, const char *method,
                               const struct weir_rpc_meta *meta, int n_meta, uint64_t deadline_ns,
                               const struct weir_rpc_stream_ops *ops, void *ctx, struct weir_rpc_stream **ret,
                               struct weir_why *why)
{
    struct weir_rpc_stream *s = rpc_stream_new(ch->rpc);

    if (!s)
        return weir_fail(why, WEIR_NOMEM, "rpc: no memory for a stream");
    weir_err rc = rpc_meta_build(meta, n_meta, &s->meta_out, why);
    if (rc != WEIR_OK) {
        rpc_stream_drop(s);
        return rc;
    }
    s->n_meta_out = (size_t)n_meta;
    s->ops = ops;
    s->ctx = ctx;
    s->deadline_ns = deadline_ns ? deadline_ns : UINT64_MAX;
    memcpy(s->peer, ch->address, sizeof s->peer);
    s->channel = ch;
    atomic_fetch_add_explicit(&ch->refs, 1, memory_order_relaxed); /* [K1] */
    s->details.method = grpc_slice_from_copied_string(method);
    s->call = grpc_channel_create_call(ch->channel, /* parent_call= */ NULL, GRPC_PROPAGATE_DEFAULTS,
                                       rpc_pick_queue(ch->rpc), s->details.method, /* host= */ NULL,
                                       core_deadline(deadline_ns), /* reserved= */ NULL);
    *ret = s; /* before it starts: a callback may look for it where the caller keeps it */
    rpc_stream_start_client(s);
    return WEIR_OK;
}
