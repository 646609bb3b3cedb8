/* stub_replica.c - see stub_replica.h.
 *
 * Frames are written by hand: fields of a protobuf message may be appended in pieces, so a frame is a run of
 * bytes to which every call adds its entries, and each entry is a tag in front of a tail that is prepared
 * once for a plan. [P1] One send is in flight for each attachment; what comes meanwhile goes into segments of
 * at most SEGMENT_MAX. Threads: the stream callbacks (CQ) and one step thread. Locks: the stub's (plan,
 * list), then an attachment's. */
#include "tests/support/stub_replica.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/thread.h"
#include "weir/fabric/v1/fabric.pb-c.h"

enum { BUCKETS = 4096, SEGMENT_MAX = 512 << 10, TEXT_MAX = 256, LOAD_EVERY_MS = 500 };

/* A plan as calls use it: counted, with its entries' tails. */
struct plan {
    _Atomic uint32_t refs;
    struct weir_stub_plan p;
    char text[TEXT_MAX], code[TEXT_MAX], message[TEXT_MAX], param[TEXT_MAX];
    struct weir_buf delta, last_delta; /* tails: text, ids, finish */
};

struct segment {
    struct segment *next;
    struct weir_buf bytes;
};

struct call {
    struct call *hash_next, *next, *prev; /* next, prev: among those that are stepped */
    uint64_t tag;
    struct plan *plan;
    uint32_t total_bytes, got_bytes, n_choices, n_deltas, i_delta;
    bool begun; /* has all its bytes */
    struct weir_buf data;
    struct weir_stub_last last;
};

struct attach {
    struct attach *next;
    struct weir_stub *stub;
    struct weir_rpc_stream *stream;
    pthread_mutex_t lock;
    bool sending, breaking;
    bool said_hello;
    uint32_t n_receiving; /* calls that are still arriving */
    struct segment *head, **tail;
    struct call *stepped;
    struct call *buckets[BUCKETS];
};

struct weir_stub {
    struct weir_stub_opts opts;
    char id[TEXT_MAX], model[TEXT_MAX];
    struct weir_rpc_server *server;
    struct weir_rpc_handler handler;
    struct weir_thread thread;
    pthread_mutex_t lock;
    pthread_cond_t more;
    bool stopping, silent, draining;
    uint64_t gap_ns; /* of the plan in force; the step */
    struct plan *plan;
    struct weir_stub_load load;
    struct attach *attaches;
    struct weir_stub_counts counts;
    struct weir_stub_last last;
};

/* ---- writing ---- */
static void put_varint(struct weir_buf *out, uint64_t x)
{
    char bytes[10];
    size_t n = 0;

    for (; x > 127; x >>= 7)
        bytes[n++] = (char)((x & 127) | 128);
    bytes[n++] = (char)x;
    weir_buf_add(out, bytes, n);
}

static void put_u64(struct weir_buf *out, unsigned field, uint64_t x)
{
    if (x == 0)
        return;
    put_varint(out, field << 3);
    put_varint(out, x);
}

static void put_text(struct weir_buf *out, unsigned field, const char *text)
{
    size_t len = strlen(text);

    if (len == 0)
        return;
    put_varint(out, field << 3 | 2);
    put_varint(out, len);
    weir_buf_add(out, text, len);
}

/* An entry of a frame: the tag, then for a delta its choice, then the tail. */
static void put_entry(struct weir_buf *out, unsigned field, uint64_t tag, uint32_t choice, const char *tail,
                      size_t n)
{
    char head[24];
    size_t n_choice = choice == 0 ? 0 : choice < 128 ? 2 : 3;
    size_t n_body = 9 + n_choice + n, i = 0;

    head[i++] = (char)(field << 3 | 2);
    for (; n_body > 127; n_body >>= 7)
        head[i++] = (char)((n_body & 127) | 128);
    head[i++] = (char)n_body;
    head[i++] = 0x09; /* tag: field 1, fixed64, little-endian */
    for (int shift = 0; shift < 64; shift += 8)
        head[i++] = (char)(tag >> shift);
    if (choice > 0) {
        head[i++] = 0x10;
        if (choice > 127)
            head[i++] = (char)((choice & 127) | 128);
        head[i++] = (char)(choice > 127 ? choice >> 7 : choice);
    }
    weir_buf_add(out, head, i);
    weir_buf_add(out, tail, n);
}

static void put_message(struct weir_buf *out, unsigned field, const ProtobufCMessage *msg)
{
    size_t len = protobuf_c_message_get_packed_size(msg);

    put_varint(out, field << 3 | 2);
    put_varint(out, len);
    char *room = weir_buf_reserve(out, len ? len : 1);
    if (room)
        weir_buf_commit(out, protobuf_c_message_pack(msg, (uint8_t *)room));
}

/* ---- plans ---- */
void weir_stub_plan_init(struct weir_stub_plan *plan)
{
    *plan = (struct weir_stub_plan){ .mode = WEIR_STUB_SERVE, .n_deltas = 8, .tokens_per_delta = 1 };
}

static void plan_tail(const struct plan *plan, bool last, struct weir_buf *out)
{
    uint32_t n = plan->p.tokens_per_delta;
    size_t len = strlen(plan->text);

    weir_buf_init(out, /* limit= */ 0);
    put_varint(out, 3 << 3 | 2); /* text */
    put_varint(out, n * len);
    for (uint32_t i = 0; i < n; i++)
        weir_buf_add(out, plan->text, len);
    put_varint(out, 4 << 3 | 2); /* ids, packed, of one byte each */
    put_varint(out, n);
    for (uint32_t i = 0; i < n; i++)
        put_varint(out, 1 + i % 100);
    if (last)
        put_u64(out, 6, WEIR__V1__FINISH_REASON__FINISH_LENGTH);
}

static struct plan *plan_open(const struct weir_stub_plan *from)
{
    struct plan *plan = weir_alloc0(sizeof *plan);

    WEIR_BUG_ON(!plan);
    plan->refs = 1;
    plan->p = *from;
    plan->p.n_deltas = from->n_deltas ? from->n_deltas : 1;
    plan->p.tokens_per_delta = from->tokens_per_delta ? from->tokens_per_delta : 1;
    snprintf(plan->text, sizeof plan->text, "%s", from->text ? from->text : " tok");
    snprintf(plan->code, sizeof plan->code, "%s", from->code ? from->code : "");
    snprintf(plan->message, sizeof plan->message, "%s", from->message ? from->message : "");
    snprintf(plan->param, sizeof plan->param, "%s", from->param ? from->param : "");
    plan_tail(plan, false, &plan->delta);
    plan_tail(plan, true, &plan->last_delta);
    return plan;
}

static struct plan *plan_ref(struct plan *plan)
{
    atomic_fetch_add_explicit(&plan->refs, 1, memory_order_relaxed);
    return plan;
}

static void plan_unref(struct plan *plan)
{
    if (atomic_fetch_sub_explicit(&plan->refs, 1, memory_order_acq_rel) != 1)
        return;
    weir_buf_release(&plan->delta);
    weir_buf_release(&plan->last_delta);
    weir_free(plan);
}

static struct plan *plan_get(struct weir_stub *stub)
{
    pthread_mutex_lock(&stub->lock);
    struct plan *plan = plan_ref(stub->plan);
    pthread_mutex_unlock(&stub->lock);
    return plan;
}

void weir_stub_set_plan(struct weir_stub *stub, const struct weir_stub_plan *from)
{
    struct plan *plan = plan_open(from);

    pthread_mutex_lock(&stub->lock);
    struct plan *old = stub->plan;
    stub->plan = plan;
    stub->gap_ns = plan->p.gap_ns ? plan->p.gap_ns : stub->gap_ns;
    pthread_cond_signal(&stub->more);
    pthread_mutex_unlock(&stub->lock);
    plan_unref(old);
}

/* ---- sending; with the attachment's lock held, except flush ---- */
static struct weir_buf *room_for_entry(struct attach *att)
{
    struct segment *last = NULL;

    if (att->head)
        last = (struct segment *)(void *)((char *)att->tail - offsetof(struct segment, next));
    if (!last || weir_buf_len(&last->bytes) > SEGMENT_MAX) { /* [P1] */
        last = weir_alloc0(sizeof *last);
        WEIR_BUG_ON(!last);
        weir_buf_init(&last->bytes, /* limit= */ 0);
        *att->tail = last;
        att->tail = &last->next;
    }
    return &last->bytes;
}

static void segment_free(struct segment *seg)
{
    if (!seg)
        return;
    weir_buf_release(&seg->bytes);
    weir_free(seg);
}

static void flush(struct attach *att)
{
    pthread_mutex_lock(&att->lock);
    struct segment *seg = !att->sending ? att->head : NULL;
    bool break_now = att->breaking && !att->sending && !seg; /* what is written goes out first */
    if (seg) {
        att->head = seg->next;
        if (!att->head)
            att->tail = &att->head;
        att->sending = true;
    }
    pthread_mutex_unlock(&att->lock);
    if (seg) /* a failure shows as on_closed */
        (void)!weir_rpc_stream_send(
            att->stream, (struct weir_str){ weir_buf_ptr(&seg->bytes), weir_buf_len(&seg->bytes) });
    else if (break_now)
        weir_rpc_stream_cancel(att->stream);
    segment_free(seg);
}

static void put_load(const struct weir_stub *stub, struct weir_buf *out)
{
    Weir__Fabric__V1__Load load = WEIR__FABRIC__V1__LOAD__INIT;

    load.running = stub->load.running;
    load.waiting = stub->load.waiting;
    load.slots = stub->opts.slots;
    load.queued_tokens = stub->load.queued_tokens;
    load.prefill_tokens_s = stub->load.prefill_tokens_s;
    load.decode_tokens_s = stub->load.decode_tokens_s;
    load.predicted_wait_ms = stub->load.predicted_wait_ms;
    put_message(out, 6, &load.base);
}

static void put_hello(const struct weir_stub *stub, struct weir_buf *out)
{
    Weir__Fabric__V1__ReplicaHello hello = WEIR__FABRIC__V1__REPLICA_HELLO__INIT;

    hello.replica = (char *)(uintptr_t)stub->id;
    hello.model = (char *)(uintptr_t)stub->model;
    hello.version = stub->opts.version;
    hello.context_tokens = 1 << 20;
    hello.slots = stub->opts.slots;
    hello.queue_max = stub->opts.queue_max;
    hello.request_bytes_max = stub->opts.request_bytes_max;
    put_message(out, 1, &hello.base);
}

static void put_terminal(struct weir_buf *out, const struct call *call, uint64_t reason)
{
    const struct plan *plan = call->plan;
    bool is_done = reason == WEIR__FABRIC__V1__TERMINAL_REASON__TERMINAL_DONE;
    bool is_invalid = reason == WEIR__FABRIC__V1__TERMINAL_REASON__TERMINAL_INVALID;
    char memory[1024];
    struct weir_buf tail = { .data = memory, .cap = sizeof memory }; /* never grows: three short texts */

    put_u64(&tail, 2, reason);
    put_u64(&tail, 3, call->total_bytes / 4 + 1);
    put_u64(&tail, 4, plan->p.cached_tokens);
    put_u64(&tail, 5, is_done ? (uint64_t)call->i_delta * call->n_choices * plan->p.tokens_per_delta : 0);
    if (is_invalid) {
        put_text(&tail, 6, plan->message);
        put_text(&tail, 7, plan->param);
        put_text(&tail, 8, plan->code);
    }
    put_u64(&tail, 9, 1000000);
    put_u64(&tail, 10, 2000000);
    put_u64(&tail, 11, 3000000);
    put_entry(out, 5, call->tag, 0, weir_buf_ptr(&tail), weir_buf_len(&tail));
}

static void put_accepted(struct weir_buf *out, const struct call *call)
{
    char memory[32];
    struct weir_buf tail = { .data = memory, .cap = sizeof memory };

    put_u64(&tail, 2, call->total_bytes / 4 + 1);
    put_entry(out, 2, call->tag, 0, weir_buf_ptr(&tail), weir_buf_len(&tail));
    weir_buf_clear(&tail);
    put_u64(&tail, 2, call->plan->p.cached_tokens);
    put_u64(&tail, 3, 1000000);
    put_entry(out, 3, call->tag, 0, weir_buf_ptr(&tail), weir_buf_len(&tail));
}

static void put_deltas(struct weir_buf *out, struct call *call)
{
    const struct plan *plan = call->plan;
    bool last = ++call->i_delta == call->n_deltas;
    const struct weir_buf *tail = last ? &plan->last_delta : &plan->delta;

    for (uint32_t i = 0; i < call->n_choices; i++)
        put_entry(out, 4, call->tag, i, weir_buf_ptr(tail), weir_buf_len(tail));
}

/* ---- calls; with the attachment's lock held ---- */
static struct call **bucket(struct attach *att, uint64_t tag)
{
    return &att->buckets[(tag ^ tag >> 24) % BUCKETS];
}

static struct call *call_find(struct attach *att, uint64_t tag)
{
    struct call *call = *bucket(att, tag);

    while (call && call->tag != tag)
        call = call->hash_next;
    return call;
}

static void call_step_on(struct attach *att, struct call *call)
{
    call->next = att->stepped;
    call->prev = NULL;
    if (att->stepped)
        att->stepped->prev = call;
    att->stepped = call;
}

static void call_remove(struct attach *att, struct call *call)
{
    struct call **at = bucket(att, call->tag);

    while (*at != call)
        at = &(*at)->hash_next;
    *at = call->hash_next;
    if (call->prev)
        call->prev->next = call->next;
    else if (att->stepped == call)
        att->stepped = call->next;
    if (call->next)
        call->next->prev = call->prev;
    att->n_receiving -= !call->begun;
}

static void call_free(struct call *call)
{
    plan_unref(call->plan);
    weir_buf_release(&call->data);
    weir_free(call);
}

static void read_request(struct call *call)
{
    Weir__V1__GenerateRequest *msg = weir__v1__generate_request__unpack(
        /* allocator= */ NULL, weir_buf_len(&call->data), (const uint8_t *)weir_buf_ptr(&call->data));

    if (!msg)
        return;
    call->n_choices = msg->n ? msg->n : 1;
    if (msg->has_max_tokens_case && msg->max_tokens < call->n_deltas * call->plan->p.tokens_per_delta)
        call->n_deltas =
            (msg->max_tokens + call->plan->p.tokens_per_delta - 1) / call->plan->p.tokens_per_delta;
    snprintf(call->last.model, sizeof call->last.model, "%s", msg->model);
    weir__v1__generate_request__free_unpacked(msg, /* allocator= */ NULL);
}

/* The whole request is here. Returns true when the call is over. */
static bool call_answer(struct attach *att, struct call *call)
{
    const struct weir_stub_plan *p = &call->plan->p;
    struct weir_buf *out = room_for_entry(att);

    switch (p->mode) {
    case WEIR_STUB_REJECT:
        put_terminal(out, call, WEIR__FABRIC__V1__TERMINAL_REASON__TERMINAL_REJECTED);
        return true;
    case WEIR_STUB_INVALID:
        put_terminal(out, call, WEIR__FABRIC__V1__TERMINAL_REASON__TERMINAL_INVALID);
        return true;
    case WEIR_STUB_FAIL:
        put_terminal(out, call, WEIR__FABRIC__V1__TERMINAL_REASON__TERMINAL_FAILED);
        return true;
    case WEIR_STUB_ROGUE:
        put_deltas(out, call);
        return false;
    default:
        break;
    }
    put_accepted(out, call);
    att->breaking = att->breaking || p->mode == WEIR_STUB_BREAK;
    if (p->mode != WEIR_STUB_SERVE)
        return false;
    if (p->gap_ns > 0) {
        call_step_on(att, call);
        return false;
    }
    while (call->i_delta < call->n_deltas)
        put_deltas(room_for_entry(att), call);
    put_terminal(room_for_entry(att), call, WEIR__FABRIC__V1__TERMINAL_REASON__TERMINAL_DONE);
    return true;
}

/* ---- receiving ---- */
struct tally { /* what one frame adds to the counts, and the plan for what begins in it */
    struct plan *plan;
    uint64_t begins, cancels, finished, bytes, chunk_max, malformed, interleaved;
    struct weir_stub_last last;
    bool has_last;
};

static void call_done(struct attach *att, struct call *call, struct tally *tally)
{
    tally->finished++;
    call_remove(att, call);
    call_free(call);
}

static void call_data(struct attach *att, struct call *call, ProtobufCBinaryData data, struct tally *tally)
{
    tally->chunk_max = data.len > tally->chunk_max ? data.len : tally->chunk_max;
    call->got_bytes += (uint32_t)data.len;
    weir_buf_add(&call->data, data.data, data.len);
    if (call->got_bytes > call->total_bytes)
        tally->malformed++;
    if (call->got_bytes < call->total_bytes)
        return;
    call->begun = true;
    att->n_receiving--;
    tally->bytes += call->total_bytes;
    call->last.data_hash = weir_hash64(weir_buf_ptr(&call->data), weir_buf_len(&call->data), 0);
    if (call->plan->p.decode)
        read_request(call);
    weir_buf_release(&call->data);
    tally->last = call->last;
    tally->has_last = true;
    if (call_answer(att, call))
        call_done(att, call, tally);
}

static void copy_bytes(void *to, size_t n, ProtobufCBinaryData from)
{
    if (from.len > 0)
        memcpy(to, from.data, from.len < n ? from.len : n);
}

static void on_begin(struct attach *att, const Weir__Fabric__V1__Begin *begin, struct tally *tally)
{
    struct call *call = weir_alloc0(sizeof *call);

    WEIR_BUG_ON(!call);
    tally->begins++;
    tally->malformed += call_find(att, begin->tag) != NULL;
    tally->interleaved += att->n_receiving > 0 && begin->data.len == begin->total_bytes;
    call->tag = begin->tag;
    call->plan = plan_ref(tally->plan);
    call->total_bytes = begin->total_bytes;
    call->n_choices = 1;
    call->n_deltas = call->plan->p.n_deltas;
    call->last = (struct weir_stub_last){ .attempt = begin->attempt,
                                          .priority = begin->priority,
                                          .total_bytes = begin->total_bytes,
                                          .seed = begin->seed,
                                          .now_unix = begin->now_unix,
                                          .tag = begin->tag };
    copy_bytes(call->last.call_id, sizeof call->last.call_id, begin->call_id);
    copy_bytes(call->last.cache_salt, sizeof call->last.cache_salt, begin->cache_salt);
    snprintf(call->last.account, sizeof call->last.account, "%s", begin->account);
    weir_buf_init(&call->data, /* limit= */ 0);
    call->hash_next = *bucket(att, call->tag);
    *bucket(att, call->tag) = call;
    att->n_receiving++;
    call_data(att, call, begin->data, tally);
}

static void on_cancel(struct attach *att, uint64_t tag, struct tally *tally)
{
    struct call *call = call_find(att, tag);

    tally->cancels++;
    if (!call)
        return; /* it has just ended here */
    put_terminal(room_for_entry(att), call, WEIR__FABRIC__V1__TERMINAL_REASON__TERMINAL_CANCELLED);
    call_remove(att, call);
    call_free(call);
}

static void count(struct weir_stub *stub, const struct tally *tally)
{
    pthread_mutex_lock(&stub->lock);
    stub->counts.begins += tally->begins;
    stub->counts.cancels += tally->cancels;
    stub->counts.finished += tally->finished;
    stub->counts.request_bytes += tally->bytes;
    stub->counts.malformed += tally->malformed;
    stub->counts.interleaved += tally->interleaved;
    if (tally->chunk_max > stub->counts.chunk_bytes_max)
        stub->counts.chunk_bytes_max = tally->chunk_max;
    if (tally->has_last)
        stub->last = tally->last;
    pthread_mutex_unlock(&stub->lock);
}

static void on_frame(struct attach *att, const Weir__Fabric__V1__RouterFrame *frame, struct tally *tally)
{
    for (size_t i = 0; i < frame->n_cancels; i++)
        on_cancel(att, frame->cancels[i], tally);
    for (size_t i = 0; i < frame->n_begins; i++)
        on_begin(att, frame->begins[i], tally);
    for (size_t i = 0; i < frame->n_chunks; i++) {
        struct call *call = call_find(att, frame->chunks[i]->tag);
        if (call && !call->begun)
            call_data(att, call, frame->chunks[i]->data, tally);
    }
}

static void greet(struct attach *att)
{
    struct weir_stub *stub = att->stub;

    pthread_mutex_lock(&stub->lock);
    pthread_mutex_lock(&att->lock);
    struct weir_buf *out = room_for_entry(att);
    put_hello(stub, out);
    put_load(stub, out);
    if (stub->draining)
        put_u64(out, 7, 1);
    att->said_hello = true;
    pthread_mutex_unlock(&att->lock);
    pthread_mutex_unlock(&stub->lock);
}

static bool on_message(void *ctx, struct weir_rpc_stream *stream, struct weir_str bytes)
{
    struct attach *att = ctx;
    struct tally tally = { .plan = NULL };
    Weir__Fabric__V1__RouterFrame *frame =
        weir__fabric__v1__router_frame__unpack(/* allocator= */ NULL, bytes.len, (const uint8_t *)bytes.ptr);

    (void)stream;
    if (!frame) {
        tally.malformed = 1;
        count(att->stub, &tally);
        return true;
    }
    if (frame->hello && !att->stub->opts.mute)
        greet(att);
    tally.plan = plan_get(att->stub); /* before the attachment's lock */
    pthread_mutex_lock(&att->lock);
    on_frame(att, frame, &tally);
    pthread_mutex_unlock(&att->lock);
    plan_unref(tally.plan);
    weir__fabric__v1__router_frame__free_unpacked(frame, /* allocator= */ NULL);
    count(att->stub, &tally);
    flush(att);
    return true;
}

static void on_sent(void *ctx, struct weir_rpc_stream *stream, bool ok)
{
    struct attach *att = ctx;

    (void)stream;
    if (!ok)
        return;
    pthread_mutex_lock(&att->lock);
    att->sending = false;
    pthread_mutex_unlock(&att->lock);
    flush(att);
}

static void on_closed(void *ctx, struct weir_rpc_stream *stream, int grpc_status, const char *message)
{
    struct attach *att = ctx;
    struct weir_stub *stub = att->stub;

    (void)grpc_status;
    (void)message;
    pthread_mutex_lock(&stub->lock); /* from here on the step thread does not see it */
    struct attach **at = &stub->attaches;
    while (*at != att)
        at = &(*at)->next;
    *at = att->next;
    pthread_mutex_unlock(&stub->lock);
    for (int i = 0; i < BUCKETS; i++) {
        while (att->buckets[i]) {
            struct call *call = att->buckets[i];
            att->buckets[i] = call->hash_next;
            call_free(call);
        }
    }
    while (att->head) {
        struct segment *seg = att->head;
        att->head = seg->next;
        segment_free(seg);
    }
    pthread_mutex_destroy(&att->lock);
    weir_rpc_stream_unref(stream);
    weir_free(att);
}

static const struct weir_rpc_stream_ops stream_ops = {
    .on_message = on_message,
    .on_sent = on_sent,
    .on_closed = on_closed,
};

static weir_err on_open(void *server_ctx, struct weir_rpc_stream *stream,
                        const struct weir_rpc_stream_ops **ret_ops, void **ret_ctx, struct weir_why *why)
{
    struct weir_stub *stub = server_ctx;
    struct attach *att = weir_alloc0(sizeof *att);

    if (!att)
        return weir_fail(why, WEIR_NOMEM, "stub: no memory");
    att->stub = stub;
    att->stream = weir_rpc_stream_ref(stream);
    att->tail = &att->head;
    pthread_mutex_init(&att->lock, /* attr= */ NULL);
    pthread_mutex_lock(&stub->lock);
    att->next = stub->attaches;
    stub->attaches = att;
    stub->counts.attaches++;
    pthread_mutex_unlock(&stub->lock);
    *ret_ops = &stream_ops;
    *ret_ctx = att;
    return WEIR_OK;
}

/* ---- the step thread ---- */
static void step_call(struct attach *att, struct call *call, struct weir_stub_counts *counts)
{
    put_deltas(room_for_entry(att), call);
    if (call->plan->p.break_after > 0 && call->i_delta == call->plan->p.break_after) {
        att->breaking = true;
        return;
    }
    if (call->i_delta < call->n_deltas)
        return;
    put_terminal(room_for_entry(att), call, WEIR__FABRIC__V1__TERMINAL_REASON__TERMINAL_DONE);
    counts->finished++;
    call_remove(att, call);
    call_free(call);
}

/* With the stub's lock held, which keeps the attachments where they are. */
static void step_all(struct weir_stub *stub, bool with_calls, bool with_load)
{
    for (struct attach *att = stub->attaches; att; att = att->next) {
        pthread_mutex_lock(&att->lock);
        for (struct call *call = with_calls ? att->stepped : NULL, *next; call && !att->breaking;
             call = next) {
            next = call->next;
            step_call(att, call, &stub->counts);
        }
        if (with_load && att->said_hello)
            put_load(stub, room_for_entry(att));
        pthread_mutex_unlock(&att->lock);
        flush(att);
    }
}

static void *step_main(void *arg)
{
    struct weir_stub *stub = arg;
    uint64_t load_ns = weir_now_ns(), step_ns = load_ns;

    pthread_mutex_lock(&stub->lock);
    while (!stub->stopping) {
        uint64_t now_ns = weir_now_ns();
        uint64_t gap_ns = stub->gap_ns ? stub->gap_ns : LOAD_EVERY_MS * WEIR_MS;
        uint64_t due_ns = step_ns + gap_ns < load_ns ? step_ns + gap_ns : load_ns;
        if (now_ns < due_ns) {
            struct timespec at = { .tv_sec = (time_t)(due_ns / WEIR_S), .tv_nsec = (long)(due_ns % WEIR_S) };
            pthread_cond_timedwait(&stub->more, &stub->lock, &at);
            continue;
        }
        bool with_load = now_ns >= load_ns, with_calls = now_ns >= step_ns + gap_ns;
        if (with_load)
            load_ns = now_ns + LOAD_EVERY_MS * WEIR_MS;
        if (with_calls) /* behind: no catching up in a burst */
            step_ns = step_ns + 2 * gap_ns < now_ns ? now_ns : step_ns + gap_ns;
        if (!stub->silent)
            step_all(stub, with_calls, with_load);
    }
    pthread_mutex_unlock(&stub->lock);
    return NULL;
}

/* ---- from outside ---- */
void weir_stub_set_load(struct weir_stub *stub, const struct weir_stub_load *load)
{
    pthread_mutex_lock(&stub->lock);
    stub->load = *load;
    if (!stub->silent)
        for (struct attach *att = stub->attaches; att; att = att->next) {
            pthread_mutex_lock(&att->lock);
            if (att->said_hello)
                put_load(stub, room_for_entry(att));
            pthread_mutex_unlock(&att->lock);
            flush(att);
        }
    pthread_mutex_unlock(&stub->lock);
}

void weir_stub_drain(struct weir_stub *stub)
{
    pthread_mutex_lock(&stub->lock);
    stub->draining = true;
    for (struct attach *att = stub->attaches; att; att = att->next) {
        pthread_mutex_lock(&att->lock);
        if (att->said_hello)
            put_u64(room_for_entry(att), 7, 1);
        pthread_mutex_unlock(&att->lock);
        flush(att);
    }
    pthread_mutex_unlock(&stub->lock);
}

void weir_stub_break(struct weir_stub *stub)
{
    pthread_mutex_lock(&stub->lock);
    for (struct attach *att = stub->attaches; att; att = att->next)
        weir_rpc_stream_cancel(att->stream);
    pthread_mutex_unlock(&stub->lock);
}

void weir_stub_silence(struct weir_stub *stub, bool silent)
{
    pthread_mutex_lock(&stub->lock);
    stub->silent = silent;
    pthread_mutex_unlock(&stub->lock);
}

void weir_stub_counts(struct weir_stub *stub, struct weir_stub_counts *ret)
{
    pthread_mutex_lock(&stub->lock);
    *ret = stub->counts;
    ret->live = 0;
    for (struct attach *att = stub->attaches; att; att = att->next) {
        pthread_mutex_lock(&att->lock);
        for (int i = 0; i < BUCKETS; i++)
            for (const struct call *call = att->buckets[i]; call; call = call->hash_next)
                ret->live++;
        pthread_mutex_unlock(&att->lock);
    }
    pthread_mutex_unlock(&stub->lock);
}

void weir_stub_last(struct weir_stub *stub, struct weir_stub_last *ret)
{
    pthread_mutex_lock(&stub->lock);
    *ret = stub->last;
    pthread_mutex_unlock(&stub->lock);
}

int weir_stub_port(const struct weir_stub *stub)
{
    return weir_rpc_server_port(stub->server);
}

weir_err weir_stub_open(const struct weir_stub_opts *opts, struct weir_stub **ret, struct weir_why *why)
{
    struct weir_stub *stub = weir_alloc0(sizeof *stub);
    struct weir_stub_plan plan;
    pthread_condattr_t attr;

    if (!stub)
        return weir_fail(why, WEIR_NOMEM, "stub: no memory");
    stub->opts = *opts;
    stub->opts.version = opts->version ? opts->version : 1;
    stub->opts.slots = opts->slots ? opts->slots : 64;
    stub->opts.queue_max = opts->queue_max ? opts->queue_max : 1000000;
    snprintf(stub->id, sizeof stub->id, "%s", opts->id);
    snprintf(stub->model, sizeof stub->model, "%s", opts->model);
    stub->load = (struct weir_stub_load){ .prefill_tokens_s = 1e6, .decode_tokens_s = 1000 };
    pthread_mutex_init(&stub->lock, /* attr= */ NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&stub->more, &attr);
    pthread_condattr_destroy(&attr);
    weir_stub_plan_init(&plan);
    stub->plan = plan_open(&plan);
    stub->handler = (struct weir_rpc_handler){ .method = "/weir.fabric.v1.Replica/Attach",
                                               .on_open = on_open,
                                               .server_ctx = stub };
    struct weir_rpc_server_opts server = { .listen = opts->listen ? opts->listen : "127.0.0.1:0",
                                           .tls = opts->tls,
                                           .handlers = &stub->handler,
                                           .n_handlers = 1 };
    weir_err rc = weir_rpc_server_open(opts->rpc, &server, &stub->server, why);
    if (rc == WEIR_OK)
        rc = weir_thread_start(&stub->thread, WEIR_ROLE_STEP, "stub", step_main, stub, why);
    if (rc != WEIR_OK) {
        weir_stub_close(stub);
        return rc;
    }
    *ret = stub;
    return WEIR_OK;
}

void weir_stub_close(struct weir_stub *stub)
{
    if (!stub)
        return;
    weir_rpc_server_close(stub->server);
    pthread_mutex_lock(&stub->lock);
    stub->stopping = true;
    pthread_cond_signal(&stub->more);
    pthread_mutex_unlock(&stub->lock);
    weir_thread_join(&stub->thread);
    plan_unref(stub->plan);
    pthread_cond_destroy(&stub->more);
    pthread_mutex_destroy(&stub->lock);
    weir_free(stub);
}
