/* outbox.c - a ring of waiting submits that take turns, and a list of cancels: see outbox.h. */
#include "router/fabric/outbox.h"

#include <string.h>

#include "base/mem.h"
#include "weir/fabric/v1/fabric.pb-c.h"

/* ---- counted things ---- */
struct weir_submit *weir_submit_ref(struct weir_submit *submit)
{
    atomic_fetch_add_explicit(&submit->refs, 1, memory_order_relaxed);
    return submit;
}

void weir_submit_unref(struct weir_submit *submit)
{
    if (submit && atomic_fetch_sub_explicit(&submit->refs, 1, memory_order_acq_rel) == 1)
        weir_free(submit);
}

struct weir_outgoing *weir_outgoing_open(struct weir_submit *submit, uint64_t tag, uint32_t attempt)
{
    struct weir_outgoing *out = weir_alloc0(sizeof *out);

    if (!out)
        return NULL;
    out->refs = 1;
    out->submit = weir_submit_ref(submit);
    out->tag = tag;
    out->attempt = attempt;
    return out;
}

void weir_outgoing_unref(struct weir_outgoing *out)
{
    if (!out || atomic_fetch_sub_explicit(&out->refs, 1, memory_order_acq_rel) != 1)
        return;
    weir_submit_unref(out->submit);
    weir_free(out);
}

/* ---- the list ---- */
static void link_last(struct outbox *box, struct weir_outgoing *out)
{
    out->next = NULL;
    out->prev = box->tail;
    *(box->tail ? &box->tail->next : &box->head) = out;
    box->tail = out;
}

static void unlink_it(struct outbox *box, struct weir_outgoing *out)
{
    *(out->prev ? &out->prev->next : &box->head) = out->next;
    *(out->next ? &out->next->prev : &box->tail) = out->prev;
    out->next = out->prev = NULL;
}

void outbox_init(struct outbox *box, size_t bytes_max)
{
    memset(box, 0, sizeof *box);
    box->bytes_max = bytes_max;
}

void outbox_release(struct outbox *box)
{
    outbox_clear(box);
    weir_free(box->cancels);
    box->cancels = NULL;
    box->cancels_cap = 0;
}

void outbox_clear(struct outbox *box)
{
    while (box->head)
        outbox_drop(box, box->head);
    box->n_cancels = 0;
}

bool outbox_is_empty(const struct outbox *box)
{
    return !box->head && box->n_cancels == 0;
}

weir_err outbox_add(struct outbox *box, struct weir_outgoing *out)
{
    if (out->submit->len > box->bytes_max - box->bytes)
        return WEIR_FULL; /* [O3] */
    box->bytes += out->submit->len;
    out->queued = true;
    atomic_fetch_add_explicit(&out->refs, 1, memory_order_relaxed);
    link_last(box, out);
    return WEIR_OK;
}

void outbox_drop(struct outbox *box, struct weir_outgoing *out)
{
    if (!out->queued)
        return;
    unlink_it(box, out);
    out->queued = false;
    box->bytes -= out->submit->len - out->sent_bytes;
    weir_outgoing_unref(out);
}

weir_err outbox_cancel(struct outbox *box, struct weir_outgoing *out)
{
    bool began = out->began;
    uint64_t tag = out->tag;

    outbox_drop(box, out);
    if (!began)
        return WEIR_OK; /* [O4] */
    if (box->n_cancels == box->cancels_cap) {
        size_t cap = box->cancels_cap ? box->cancels_cap * 2 : 64;
        uint64_t *cancels = weir_realloc(box->cancels, cap * sizeof *cancels);
        if (!cancels)
            return WEIR_NOMEM;
        box->cancels = cancels;
        box->cancels_cap = cap;
    }
    box->cancels[box->n_cancels++] = tag;
    return WEIR_OK;
}

/* ---- frames ---- */
struct packer {
    Weir__Fabric__V1__RouterFrame frame;
    Weir__Fabric__V1__Begin begin[WEIR_FRAME_PIECES_MAX];
    Weir__Fabric__V1__Begin *begins[WEIR_FRAME_PIECES_MAX];
    Weir__Fabric__V1__Chunk chunk[WEIR_FRAME_PIECES_MAX];
    Weir__Fabric__V1__Chunk *chunks[WEIR_FRAME_PIECES_MAX];
    struct weir_outgoing *done[WEIR_FRAME_PIECES_MAX]; /* held until packed: the pieces point into them */
    size_t n_done, bytes;
};

static ProtobufCBinaryData bin(const void *data, size_t len)
{
    return (ProtobufCBinaryData){ .len = len, .data = (uint8_t *)(uintptr_t)data };
}

static void add_begin(struct packer *p, const struct weir_outgoing *out, ProtobufCBinaryData data)
{
    const struct weir_submit *submit = out->submit;
    Weir__Fabric__V1__Begin *begin = &p->begin[p->frame.n_begins];

    weir__fabric__v1__begin__init(begin);
    begin->tag = out->tag;
    begin->call_id = bin(submit->call_id, sizeof submit->call_id);
    begin->attempt = out->attempt;
    begin->total_bytes = submit->len;
    begin->data = data;
    begin->account = (char *)(uintptr_t)submit->account;
    begin->cache_salt = bin(submit->cache_salt, sizeof submit->cache_salt);
    begin->seed = submit->seed;
    begin->now_unix = submit->now_unix;
    begin->priority = submit->priority;
    p->begins[p->frame.n_begins++] = begin;
}

static void add_chunk(struct packer *p, const struct weir_outgoing *out, ProtobufCBinaryData data)
{
    Weir__Fabric__V1__Chunk *chunk = &p->chunk[p->frame.n_chunks];

    weir__fabric__v1__chunk__init(chunk);
    chunk->tag = out->tag;
    chunk->data = data;
    p->chunks[p->frame.n_chunks++] = chunk;
}

/* The next piece of the first in line, which then goes to the end of it, or out. */
static void add_piece(struct packer *p, struct outbox *box)
{
    struct weir_outgoing *out = box->head;
    uint32_t left = out->submit->len - out->sent_bytes;
    uint32_t n = left < WEIR_PIECE_MAX ? left : WEIR_PIECE_MAX;
    ProtobufCBinaryData data = bin(out->submit->data + out->sent_bytes, n);

    if (out->began)
        add_chunk(p, out, data);
    else
        add_begin(p, out, data);
    out->began = true;
    out->sent_bytes += n;
    box->bytes -= n;
    p->bytes += n;
    unlink_it(box, out);
    if (out->sent_bytes < out->submit->len) {
        link_last(box, out); /* [O1] */
    } else {
        out->queued = false;
        p->done[p->n_done++] = out;
    }
}

static weir_err pack(const Weir__Fabric__V1__RouterFrame *frame, struct weir_buf *to)
{
    size_t len = weir__fabric__v1__router_frame__get_packed_size(frame);
    char *room = weir_buf_reserve(to, len);

    if (!room)
        return WEIR_NOMEM;
    weir_buf_commit(to, weir__fabric__v1__router_frame__pack(frame, (uint8_t *)room));
    return WEIR_OK;
}

weir_err outbox_next(struct outbox *box, struct weir_buf *frame)
{
    struct packer p = { .n_done = 0, .bytes = 0 };
    size_t n_cancels = box->n_cancels < WEIR_FRAME_CANCELS_MAX ? box->n_cancels : WEIR_FRAME_CANCELS_MAX;

    weir__fabric__v1__router_frame__init(&p.frame);
    p.frame.cancels = box->cancels;
    p.frame.n_cancels = n_cancels;
    p.frame.begins = p.begins;
    p.frame.chunks = p.chunks;
    for (size_t n = 0; box->head && n < WEIR_FRAME_PIECES_MAX && p.bytes < WEIR_FRAME_BYTES_MAX;
         n++) /* [O2] */
        add_piece(&p, box);
    weir_err rc = pack(&p.frame, frame);
    for (size_t i = 0; i < p.n_done; i++)
        weir_outgoing_unref(p.done[i]);
    box->n_cancels -= n_cancels;
    if (box->n_cancels > 0)
        memmove(box->cancels, box->cancels + n_cancels, box->n_cancels * sizeof *box->cancels);
    return rc;
}
