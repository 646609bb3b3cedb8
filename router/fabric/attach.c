/* attach.c - the life of one attachment: see attach.h.
 *
 *   IDLE --connect--> CONNECTING --hello--> READY --drain--> DRAINING
 *     ^                   | wrong hello: EJECTED     |             |
 *     +---- backoff ------+------------- the stream ends ----------+
 *
 * Threads: the fleet thread connects and cuts (attach_tick); the stream's callbacks come from its CQ thread;
 * loops submit and cancel. `lock` guards state, stream and outbox; it is never held while sending or
 * cancelling, so that no lock of the door is taken under it, except while the call is opened: on_closed,
 * which takes the lock, can then not run before the stream has been stored. Lock order: this lock, then the
 * fleet's.
 *
 * Memory: counted. Each stream holds a reference until on_closed, each frame on its way to a loop, each call.
 * A channel is opened for each attempt: core's own waiting between attempts grows to minutes. */
#include "router/fabric/fabric_int.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "router/fabric/metrics_int.h"

#define ATTACH_METHOD "/weir.fabric.v1.Replica/Attach"

enum state { IDLE, CONNECTING, READY, DRAINING, EJECTED };

struct weir_attach {
    _Atomic uint32_t refs;
    const struct attach_opts *opts; /* not after the last stream */
    struct weir_fleet *fleet;       /* not after the last stream */
    struct weir_replica_record rec; /* strings in the same block, NUL-terminated */
    struct weir_counter *breaks;
    struct weir_load_view load;
    size_t inbox_bytes_max;
    _Atomic size_t inbox_bytes; /* frames that loops have not finished */

    pthread_mutex_t lock;
    enum state state;
    bool wanted;       /* in the view */
    bool retired;      /* replaced by another incarnation or address */
    bool said_hello;   /* this stream: it may have calls */
    bool sending;      /* one send is in flight [T2] */
    bool cutting;      /* cancelled by us: nothing it still brings counts */
    bool paused;       /* receiving; the inbox is full */
    uint32_t n_failed; /* attempts in a row */
    uint64_t epoch;    /* of the stream; rises with each */
    struct weir_rpc_stream *stream;
    struct loss *loss; /* for this stream's end */
    struct outbox box;
    struct weir_buf spare; /* a frame buffer for reuse */
    uint64_t retry_ns, hello_by_ns;
    uint32_t backoff_ms;
    uint32_t request_bytes_max;
};

#define SET(field, value) atomic_store_explicit(&att->load.field, (value), memory_order_relaxed)
#define GET(field) atomic_load_explicit(&att->load.field, memory_order_relaxed)

/* ---- memory ---- */
static struct weir_str copy_str(char **at, struct weir_str s)
{
    struct weir_str copy = { *at, s.len };

    if (s.len > 0)
        memcpy(*at, s.ptr, s.len);
    (*at)[s.len] = '\0';
    *at += s.len + 1;
    return copy;
}

struct weir_attach *attach_open(const struct attach_opts *opts, struct weir_fleet *fleet,
                                const struct weir_replica_record *rec)
{
    size_t n_text = rec->id.len + rec->model.len + rec->grpc.len + rec->admin.len + 4;
    struct weir_attach *att = weir_alloc0(sizeof *att + n_text);

    if (!att)
        return NULL;
    char *at = (char *)(att + 1);
    att->refs = 1;
    att->opts = opts;
    att->fleet = fleet;
    att->rec = *rec;
    att->rec.id = copy_str(&at, rec->id);
    att->rec.model = copy_str(&at, rec->model);
    att->rec.grpc = copy_str(&at, rec->grpc);
    att->rec.admin = copy_str(&at, rec->admin);
    att->breaks = fabric_breaks_of(att->rec.id);
    att->inbox_bytes_max = opts->inbox_bytes_max;
    att->wanted = true;
    att->backoff_ms = opts->backoff_min_ms;
    pthread_mutex_init(&att->lock, /* attr= */ NULL);
    outbox_init(&att->box, opts->outbox_bytes_max);
    weir_buf_init(&att->spare, /* limit= */ 0);
    return att;
}

struct weir_attach *weir_attach_ref(struct weir_attach *att)
{
    atomic_fetch_add_explicit(&att->refs, 1, memory_order_relaxed);
    return att;
}

void weir_attach_unref(struct weir_attach *att)
{
    if (!att || atomic_fetch_sub_explicit(&att->refs, 1, memory_order_acq_rel) != 1)
        return;
    outbox_release(&att->box);
    weir_buf_release(&att->spare);
    pthread_mutex_destroy(&att->lock);
    weir_free(att);
}

struct weir_str weir_attach_id(const struct weir_attach *att)
{
    return att->rec.id;
}

struct weir_load_view *weir_attach_load(struct weir_attach *att)
{
    return &att->load;
}

const struct weir_replica_record *attach_record(const struct weir_attach *att)
{
    return &att->rec;
}

/* ---- sending ---- */
void attach_cut(struct weir_attach *att, enum weir_log_level level, const char *reason)
{
    pthread_mutex_lock(&att->lock);
    struct weir_rpc_stream *stream = att->stream && !att->cutting ? weir_rpc_stream_ref(att->stream) : NULL;
    att->cutting = att->cutting || stream;
    SET(usable, false);
    pthread_mutex_unlock(&att->lock);
    if (!stream)
        return;
    weir_log(level, "attach_cut", "replica=%s model=%s reason=%s", att->rec.id.ptr, att->rec.model.ptr,
             reason);
    weir_rpc_stream_cancel(stream);
    weir_rpc_stream_unref(stream);
}

static bool may_send(const struct weir_attach *att)
{
    return !att->sending && !att->cutting && att->stream && (att->state == READY || att->state == DRAINING);
}

static void keep_spare(struct weir_attach *att, struct weir_buf *buf)
{
    pthread_mutex_lock(&att->lock);
    if (!att->spare.data && buf->cap <= 2 * WEIR_FRAME_BYTES_MAX) {
        weir_buf_clear(buf);
        att->spare = *buf;
        weir_buf_init(buf, /* limit= */ 0);
    }
    pthread_mutex_unlock(&att->lock);
    weir_buf_release(buf);
}

/* Packs one frame of what waits, unless a send is in flight. Whoever set `sending` alone sends. [T2] */
static void flush(struct weir_attach *att)
{
    struct weir_buf buf;
    struct weir_rpc_stream *stream = NULL;
    weir_err rc = WEIR_OK;

    pthread_mutex_lock(&att->lock);
    if (may_send(att) && !outbox_is_empty(&att->box)) {
        buf = att->spare;
        weir_buf_init(&att->spare, /* limit= */ 0);
        rc = outbox_next(&att->box, &buf);
        stream = weir_rpc_stream_ref(att->stream);
        att->sending = true;
    }
    pthread_mutex_unlock(&att->lock);
    if (!stream)
        return;
    if (rc == WEIR_OK) {
        weir_counter_add(fabric_metrics()->bytes_out, weir_buf_len(&buf));
        rc = weir_rpc_stream_send(stream, (struct weir_str){ weir_buf_ptr(&buf), weir_buf_len(&buf) });
    }
    weir_rpc_stream_unref(stream);
    keep_spare(att, &buf);
    if (rc != WEIR_OK && rc != WEIR_UNAVAILABLE) /* unavailable: on_closed is on its way */
        attach_cut(att, WEIR_LOG_WARN, weir_err_info(rc)->text);
}

static void on_sent(void *ctx, struct weir_rpc_stream *stream, bool ok)
{
    struct weir_attach *att = ctx;

    (void)stream;
    if (!ok)
        return; /* on_closed follows */
    pthread_mutex_lock(&att->lock);
    att->sending = false;
    pthread_mutex_unlock(&att->lock);
    flush(att);
}

/* ---- calls ---- */
weir_err weir_attach_submit(struct weir_attach *att, struct weir_submit *submit, uint64_t tag,
                            uint32_t attempt, struct weir_outgoing **ret)
{
    struct weir_outgoing *out = weir_outgoing_open(submit, tag, attempt);
    weir_err rc = WEIR_OK;

    if (!out)
        return WEIR_NOMEM;
    pthread_mutex_lock(&att->lock);
    if (att->state != READY || att->cutting || att->retired)
        rc = WEIR_UNAVAILABLE; /* [T3] */
    else if (att->request_bytes_max > 0 && submit->len > att->request_bytes_max)
        rc = WEIR_TOOLARGE;
    else
        rc = outbox_add(&att->box, out);
    out->epoch = att->epoch;
    pthread_mutex_unlock(&att->lock);
    if (rc != WEIR_OK) {
        weir_counter_add(fabric_metrics()->outbox_refused, rc == WEIR_FULL);
        weir_outgoing_unref(out);
        return rc;
    }
    weir_load_sent(&att->load, submit->prompt_tokens);
    atomic_fetch_add_explicit(&att->load.n_in_flight, 1, memory_order_relaxed);
    *ret = out;
    flush(att);
    return WEIR_OK;
}

void weir_attach_accepted(struct weir_attach *att, struct weir_outgoing *out)
{
    if (out->acked)
        return;
    out->acked = true;
    weir_load_acked(&att->load, out->submit->prompt_tokens);
}

static void let_go(struct weir_attach *att, struct weir_outgoing *out)
{
    weir_attach_accepted(att, out); /* what has ended is not on its way either */
    atomic_fetch_sub_explicit(&att->load.n_in_flight, 1, memory_order_relaxed);
    weir_outgoing_unref(out);
}

void weir_attach_cancel(struct weir_attach *att, struct weir_outgoing *out)
{
    weir_err rc = WEIR_OK;

    pthread_mutex_lock(&att->lock);
    if (out->epoch == att->epoch && att->said_hello)
        rc = outbox_cancel(&att->box, out);
    pthread_mutex_unlock(&att->lock);
    let_go(att, out);
    if (rc != WEIR_OK)
        attach_cut(att, WEIR_LOG_WARN, "no memory for a cancel");
    flush(att);
}

void weir_attach_forget(struct weir_attach *att, struct weir_outgoing *out)
{
    pthread_mutex_lock(&att->lock);
    outbox_drop(&att->box, out);
    pthread_mutex_unlock(&att->lock);
    let_go(att, out);
}

/* ---- receiving ---- */
static const char *hello_fault(const struct weir_attach *att, const Weir__Fabric__V1__ReplicaHello *hello)
{
    if (hello->version != WEIR_FABRIC_VERSION)
        return "it speaks another version";
    if (!weir_str_eq(att->rec.id, hello->replica))
        return "another replica answers at its address";
    if (!weir_str_eq(att->rec.model, hello->model))
        return "it serves another model";
    return NULL;
}

static void take_hello(struct weir_attach *att, const Weir__Fabric__V1__ReplicaHello *hello)
{
    const char *fault = hello_fault(att, hello);

    pthread_mutex_lock(&att->lock);
    att->state = fault ? EJECTED : READY;
    att->said_hello = !fault;
    att->n_failed = fault ? 1 : 0; /* the ejection is logged here */
    att->backoff_ms = att->opts->backoff_min_ms;
    att->request_bytes_max = hello->request_bytes_max;
    SET(queue_max, hello->queue_max);
    SET(slots, hello->slots);
    SET(usable, !fault && !att->retired);
    pthread_mutex_unlock(&att->lock);
    if (fault) {
        WEIR_ERROR("replica_ejected", "replica=%s model=%s address=%s version=%u says=%s reason=%s",
                   att->rec.id.ptr, att->rec.model.ptr, att->rec.grpc.ptr, hello->version, hello->replica,
                   fault);
        attach_cut(att, WEIR_LOG_WARN, fault);
        return;
    }
    weir_gauge_add(fabric_metrics()->attachments, 1);
    WEIR_INFO("replica_attached", "replica=%s model=%s address=%s slots=%u context=%u", att->rec.id.ptr,
              att->rec.model.ptr, att->rec.grpc.ptr, hello->slots, hello->context_tokens);
    fleet_stirred(att->fleet, 0);
}

static void take_drain(struct weir_attach *att)
{
    pthread_mutex_lock(&att->lock);
    bool is_new = att->state == READY;
    if (is_new)
        att->state = DRAINING;
    SET(usable, false);
    pthread_mutex_unlock(&att->lock);
    if (is_new)
        WEIR_INFO("replica_draining", "replica=%s model=%s", att->rec.id.ptr, att->rec.model.ptr);
}

static void take_load(struct weir_attach *att, const Weir__Fabric__V1__Load *msg)
{
    struct weir_load load = {
        .running = msg->running,
        .waiting = msg->waiting,
        .slots = msg->slots,
        .queued_tokens = msg->queued_tokens,
        .kv_blocks_used = msg->kv_blocks_used,
        .kv_blocks = msg->kv_blocks,
        .generated_total = msg->generated_total,
        .prefill_tokens_s = msg->prefill_tokens_s,
        .decode_tokens_s = msg->decode_tokens_s,
        .predicted_wait_ms = msg->predicted_wait_ms,
    };
    weir_load_set(&att->load, &load);
}

/* The hello comes first and once. What a peer does wrong costs it the stream. */
static const char *frame_fault(const struct weir_attach *att, const Weir__Fabric__V1__ReplicaFrame *msg)
{
    if (!att->said_hello && !msg->hello)
        return "the first frame is no hello";
    if (att->said_hello && msg->hello)
        return "a second hello";
    return NULL;
}

static void take_frame(struct weir_attach *att, struct frame *frame)
{
    const Weir__Fabric__V1__ReplicaFrame *msg = frame_msg(frame);
    const char *fault = frame_fault(att, msg);
    uint32_t n_unknown = 0;

    if (fault) {
        weir_counter_add(fabric_metrics()->malformed, 1);
        attach_cut(att, WEIR_LOG_WARN, fault);
        frame_close(frame);
        return;
    }
    SET(heard_ns, weir_now_ns());
    if (msg->hello)
        take_hello(att, msg->hello);
    if (!att->said_hello) { /* ejected */
        frame_close(frame);
        return;
    }
    if (msg->load)
        take_load(att, msg->load);
    if (msg->drain)
        take_drain(att);
    if (frame_dispatch(frame, fleet_ports(att->fleet), att, &n_unknown) != WEIR_OK)
        attach_cut(att, WEIR_LOG_WARN, "no memory for a frame"); /* its calls would never hear of it */
    if (n_unknown > 0)
        weir_counter_add(fabric_metrics()->unknown_tags, n_unknown);
}

/* `cutting` and `said_hello` are written under the lock; said_hello and epoch by this CQ thread only. */
static bool on_message(void *ctx, struct weir_rpc_stream *stream, struct weir_str bytes)
{
    struct weir_attach *att = ctx;

    (void)stream;
    weir_counter_add(fabric_metrics()->frames, 1);
    weir_counter_add(fabric_metrics()->bytes_in, bytes.len);
    pthread_mutex_lock(&att->lock);
    bool ignore = att->cutting;
    pthread_mutex_unlock(&att->lock);
    if (ignore)
        return true;
    struct frame *frame = fabric_frame_open(bytes);
    if (!frame) {
        weir_counter_add(fabric_metrics()->malformed, 1);
        attach_cut(att, WEIR_LOG_WARN, "a frame that can't be decoded");
        return true;
    }
    take_frame(att, frame);

    pthread_mutex_lock(&att->lock);
    if (atomic_load_explicit(&att->inbox_bytes, memory_order_seq_cst) > att->inbox_bytes_max)
        att->paused = true;
    bool go_on = !att->paused;
    pthread_mutex_unlock(&att->lock);
    weir_counter_add(fabric_metrics()->inbox_full, !go_on);
    return go_on;
}

void attach_frame_taken(struct weir_attach *att, size_t bytes)
{
    atomic_fetch_add_explicit(&att->inbox_bytes, bytes, memory_order_seq_cst);
}

/* A loop catches up: receive again once half of the inbox is free. */
void attach_frame_released(struct weir_attach *att, size_t bytes)
{
    size_t left = atomic_fetch_sub_explicit(&att->inbox_bytes, bytes, memory_order_seq_cst) - bytes;
    struct weir_rpc_stream *stream = NULL;

    if (left + bytes <= att->inbox_bytes_max / 2 || left > att->inbox_bytes_max / 2)
        return; /* this one did not cross the line */
    pthread_mutex_lock(&att->lock);
    if (att->paused && att->stream) {
        att->paused = false;
        stream = weir_rpc_stream_ref(att->stream);
    }
    pthread_mutex_unlock(&att->lock);
    if (!stream)
        return;
    weir_rpc_stream_resume(stream);
    weir_rpc_stream_unref(stream);
}

/* ---- the stream's ends ---- */
static void on_closed(void *ctx, struct weir_rpc_stream *stream, int grpc_status, const char *message)
{
    struct weir_attach *att = ctx;

    pthread_mutex_lock(&att->lock);
    bool was_attached = att->said_hello, quiet = att->state == DRAINING || att->retired || !att->wanted;
    struct loss *loss = att->loss;
    uint64_t epoch = att->epoch;
    SET(usable, false); /* [F1] [T3] */
    att->state = att->state == EJECTED ? EJECTED : IDLE;
    att->stream = NULL;
    att->loss = NULL;
    att->said_hello = att->sending = att->cutting = att->paused = false;
    outbox_clear(&att->box);
    att->retry_ns = weir_now_ns() + att->backoff_ms * WEIR_MS;
    att->backoff_ms =
        att->backoff_ms > att->opts->backoff_max_ms / 2 ? att->opts->backoff_max_ms : att->backoff_ms * 2;
    bool first_failure = !was_attached && att->n_failed++ == 0;
    pthread_mutex_unlock(&att->lock);

    if (was_attached) {
        weir_gauge_add(fabric_metrics()->attachments, -1);
        weir_counter_add(att->breaks, 1);
        weir_log(quiet ? WEIR_LOG_INFO : WEIR_LOG_WARN, "replica_detached",
                 "replica=%s model=%s status=%d reason=%s", att->rec.id.ptr, att->rec.model.ptr, grpc_status,
                 message ? message : "");
        loss_dispatch(loss, fleet_ports(att->fleet), att, epoch);
    } else {
        weir_log(first_failure ? WEIR_LOG_WARN : WEIR_LOG_DEBUG, "attach_failed",
                 "replica=%s model=%s address=%s status=%d reason=%s", att->rec.id.ptr, att->rec.model.ptr,
                 att->rec.grpc.ptr, grpc_status, message ? message : "");
        loss_close(loss);
    }
    weir_rpc_stream_unref(stream);
    fleet_stirred(att->fleet, -1);
    weir_attach_unref(att);
}

static const struct weir_rpc_stream_ops stream_ops = {
    .on_message = on_message,
    .on_sent = on_sent,
    .on_closed = on_closed,
};

static weir_err open_stream(struct weir_attach *att, struct weir_rpc_channel *channel, struct weir_why *why)
{
    weir_err rc = weir_rpc_channel_call(channel, ATTACH_METHOD, /* meta= */ NULL, /* n_meta= */ 0,
                                        /* deadline_ns= */ 0, &stream_ops, att, &att->stream, why);
    if (rc != WEIR_OK) {
        att->stream = NULL;
        return rc;
    }
    weir_rpc_stream_ref(att->stream);
    weir_attach_ref(att); /* until on_closed */
    return WEIR_OK;
}

static void send_hello(struct weir_attach *att, struct weir_rpc_stream *stream)
{
    Weir__Fabric__V1__RouterHello hello = WEIR__FABRIC__V1__ROUTER_HELLO__INIT;
    Weir__Fabric__V1__RouterFrame frame = WEIR__FABRIC__V1__ROUTER_FRAME__INIT;
    uint8_t bytes[512];

    hello.router = (char *)(uintptr_t)att->opts->router;
    hello.incarnation = att->opts->incarnation;
    hello.version = WEIR_FABRIC_VERSION;
    frame.hello = &hello;
    size_t len = weir__fabric__v1__router_frame__get_packed_size(&frame);
    WEIR_BUG_ON(len > sizeof bytes); /* the id's length is checked by weir_fleet_open */
    weir__fabric__v1__router_frame__pack(&frame, bytes);
    weir_err rc = weir_rpc_stream_send(stream, (struct weir_str){ (const char *)bytes, len });
    if (rc != WEIR_OK && rc != WEIR_UNAVAILABLE)
        attach_cut(att, WEIR_LOG_WARN, weir_err_info(rc)->text);
}

/* With the lock held, which it gives up. */
static void connect_now(struct weir_attach *att, uint64_t now_ns)
{
    struct weir_rpc_channel_opts opts = {
        .address = att->rec.grpc.ptr,
        .tls = att->opts->tls,
        .message_bytes_max = att->opts->message_bytes_max,
    };
    struct weir_rpc_channel *channel = NULL;
    struct weir_rpc_stream *stream = NULL;
    struct weir_why why = { .text = "no memory" };

    att->epoch++;
    att->sending = true; /* the hello */
    att->hello_by_ns = now_ns + att->opts->hello_timeout_ms * WEIR_MS;
    fleet_stirred(att->fleet, 1);
    att->loss = loss_open();
    weir_err rc = att->loss ? weir_rpc_channel_open(att->opts->rpc, &opts, &channel, &why) : WEIR_NOMEM;
    if (rc == WEIR_OK)
        rc = open_stream(att, channel, &why);
    if (rc == WEIR_OK) {
        att->state = CONNECTING;
        stream = weir_rpc_stream_ref(att->stream);
    } else {
        att->sending = false;
        loss_close(att->loss);
        att->loss = NULL;
        att->retry_ns = now_ns + att->opts->backoff_max_ms * WEIR_MS;
        fleet_stirred(att->fleet, -1);
    }
    pthread_mutex_unlock(&att->lock);

    if (channel)
        weir_rpc_channel_close(channel); /* the stream goes on */
    if (!stream) {
        WEIR_WARN("attach_failed", "replica=%s model=%s address=%s reason=%s", att->rec.id.ptr,
                  att->rec.model.ptr, att->rec.grpc.ptr, why.text);
        return;
    }
    send_hello(att, stream);
    weir_rpc_stream_unref(stream);
}

/* ---- what the fleet thread does ---- */
uint64_t attach_tick(struct weir_attach *att, uint64_t now_ns, bool *ret_gone)
{
    uint64_t due_ns = UINT64_MAX;
    const char *cut = NULL;
    bool dead = att->retired || !att->wanted; /* this thread alone writes them */

    *ret_gone = false;
    pthread_mutex_lock(&att->lock);
    switch (att->state) {
    case IDLE:
        *ret_gone = dead;
        if (!dead && now_ns >= att->retry_ns) {
            connect_now(att, now_ns);
            return now_ns + att->opts->hello_timeout_ms * WEIR_MS;
        }
        due_ns = dead ? UINT64_MAX : att->retry_ns;
        break;
    case CONNECTING:
        due_ns = att->hello_by_ns;
        if (dead)
            cut = "it left the view before its hello";
        else if (now_ns >= due_ns)
            cut = "no hello in time";
        break;
    case READY:
    case DRAINING:
        due_ns = GET(heard_ns) + att->opts->silent_cut_ms * WEIR_MS;
        if (now_ns >= due_ns)
            cut = "silent for too long";
        else if (att->retired && GET(n_in_flight) == 0)
            cut = "replaced"; /* [F3] */
        else if (att->retired)
            due_ns = now_ns + 100 * WEIR_MS;
        break;
    case EJECTED:
        *ret_gone = dead && !att->stream;
        break;
    }
    pthread_mutex_unlock(&att->lock);
    if (!cut)
        return due_ns;
    attach_cut(att, dead ? WEIR_LOG_INFO : WEIR_LOG_WARN, cut);
    return UINT64_MAX; /* on_closed stirs the fleet */
}

void attach_set_wanted(struct weir_attach *att, bool wanted)
{
    pthread_mutex_lock(&att->lock);
    att->wanted = wanted;
    pthread_mutex_unlock(&att->lock);
}

void attach_retire(struct weir_attach *att)
{
    pthread_mutex_lock(&att->lock);
    att->retired = true;
    SET(usable, false);
    pthread_mutex_unlock(&att->lock);
}

bool attach_in_table(const struct weir_attach *att)
{
    struct weir_attach *a = (struct weir_attach *)(uintptr_t)att;

    pthread_mutex_lock(&a->lock);
    bool in = !a->retired && (a->wanted || a->state == READY || a->state == DRAINING); /* [F2] */
    pthread_mutex_unlock(&a->lock);
    return in;
}

static bool same(struct weir_str a, struct weir_str b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

bool attach_is_for(const struct weir_attach *att, const struct weir_replica_record *rec)
{
    return same(att->rec.id, rec->id) && same(att->rec.model, rec->model) && same(att->rec.grpc, rec->grpc) &&
           att->rec.incarnation == rec->incarnation;
}

int attach_compare(const struct weir_attach *a, const struct weir_attach *b)
{
    int by_model = strcmp(a->rec.model.ptr, b->rec.model.ptr);

    return by_model != 0 ? by_model : strcmp(a->rec.id.ptr, b->rec.id.ptr);
}

const char *attach_state_name(struct weir_attach *att, uint64_t silent_since_ns)
{
    pthread_mutex_lock(&att->lock);
    enum state state = att->state;
    pthread_mutex_unlock(&att->lock);
    switch (state) {
    case READY:
        return GET(usable) && GET(heard_ns) >= silent_since_ns ? "usable" : "ejected";
    case DRAINING:
        return "draining";
    case EJECTED:
        return "ejected";
    default:
        return "connecting";
    }
}
