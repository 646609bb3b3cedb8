/* frame.c - a replica's frame, decoded once and handed to the loops whose calls it speaks of.
 *
 * A frame is one block of arena memory that all loops share: each gets the slice of entries that are its own,
 * in one task, and the last to finish frees the whole. A delta so costs its decoding (four bumps of the
 * arena) and 24 bytes of sorting, whatever the number of loops. [D1] A port's entries keep the frame's order
 * of meaning: accepted, started, deltas, terminals. [D2] What a frame grows to when decoded is bounded:
 * FRAME_ARENA_MAX. Threads: opened and dispatched by the CQ thread of the stream; read by loops; freed by the
 * last of them. */
#include "router/fabric/fabric_int.h"

#include <string.h>

#include "base/mem.h"

#define FRAME_ARENA_MAX (64u << 20)

struct frame {
    struct weir_arena arena; /* of the message and all below */
    Weir__Fabric__V1__ReplicaFrame *msg;
    struct weir_attach *att;
    size_t cost_bytes;
    _Atomic uint32_t n_parts; /* loops that have not finished */
};

/* One loop's share. */
struct part {
    struct weir_task task;
    struct frame *frame;
    struct weir_port *port;
    const struct weir_news *news;
    uint32_t n;
};

struct frame *fabric_frame_open(struct weir_str bytes)
{
    struct frame *frame = weir_alloc0(sizeof *frame);
    ProtobufCAllocator allocator;

    if (!frame)
        return NULL;
    weir_arena_init(&frame->arena, FRAME_ARENA_MAX); /* [D2] */
    weir_pb_allocator(&allocator, &frame->arena);
    frame->msg = weir__fabric__v1__replica_frame__unpack(&allocator, bytes.len, (const uint8_t *)bytes.ptr);
    if (!frame->msg) {
        frame_close(frame);
        return NULL;
    }
    return frame;
}

void frame_close(struct frame *frame)
{
    if (!frame)
        return;
    struct weir_attach *att = frame->att;
    size_t cost_bytes = frame->cost_bytes;
    weir_arena_release(&frame->arena);
    weir_free(frame);
    if (att) {
        attach_frame_released(att, cost_bytes);
        weir_attach_unref(att);
    }
}

const Weir__Fabric__V1__ReplicaFrame *frame_msg(const struct frame *frame)
{
    return frame->msg;
}

size_t frame_cost_bytes(const struct frame *frame)
{
    return sizeof *frame + frame->arena.used;
}

/* ---- delivery ---- */
static void part_done(struct frame *frame)
{
    if (atomic_fetch_sub_explicit(&frame->n_parts, 1, memory_order_acq_rel) == 1)
        frame_close(frame);
}

static void part_run(struct weir_task *task)
{
    struct part *part = (struct part *)task;
    struct weir_port *port = part->port;

    if (port->ctx)
        port->ops.news(port->ctx, part->frame->att, part->news, part->n);
    part_done(part->frame); /* frees the part, too */
    port_unref(port);
}

/* ---- sorting ---- */
struct sorter {
    uint32_t n[WEIR_PORTS_MAX]; /* entries of each port; then the place of its next one */
    struct weir_news *news;     /* NULL in the counting pass */
    uint32_t n_unknown;
};

static void sort_one(struct sorter *s, enum weir_news_kind kind, uint64_t tag, const void *msg)
{
    uint64_t port = tag >> WEIR_TAG_PORT_SHIFT;

    if (port >= WEIR_PORTS_MAX)
        s->n_unknown++;
    else if (!s->news)
        s->n[port]++;
    else
        s->news[s->n[port]++] = (struct weir_news){ .tag = tag, .msg = msg, .kind = kind };
}

static void sort_all(struct sorter *s, const Weir__Fabric__V1__ReplicaFrame *msg) /* [D1] */
{
    s->n_unknown = 0;
    for (size_t i = 0; i < msg->n_accepted; i++)
        sort_one(s, WEIR_NEWS_ACCEPTED, msg->accepted[i]->tag, msg->accepted[i]);
    for (size_t i = 0; i < msg->n_started; i++)
        sort_one(s, WEIR_NEWS_STARTED, msg->started[i]->tag, msg->started[i]);
    for (size_t i = 0; i < msg->n_deltas; i++)
        sort_one(s, WEIR_NEWS_DELTA, msg->deltas[i]->tag, msg->deltas[i]);
    for (size_t i = 0; i < msg->n_terminals; i++)
        sort_one(s, WEIR_NEWS_TERMINAL, msg->terminals[i]->tag, msg->terminals[i]);
}

/* One block for all entries and parts; it may pass the decoding's bound, as it is in proportion to it. */
static struct part *sort_by_port(struct frame *frame, struct sorter *s, uint32_t *ret_n_parts)
{
    uint32_t first[WEIR_PORTS_MAX], n = 0, n_parts = 0;

    memset(s, 0, sizeof *s);
    sort_all(s, frame->msg);
    for (uint32_t i = 0; i < WEIR_PORTS_MAX; i++) {
        uint32_t n_port = s->n[i];
        first[i] = s->n[i] = n;
        n += n_port;
        n_parts += n_port > 0;
    }
    *ret_n_parts = n_parts;
    if (n == 0)
        return NULL;
    frame->arena.limit = 0;
    s->news = weir_arena_alloc(&frame->arena, n * sizeof *s->news);
    struct part *parts = weir_arena_alloc(&frame->arena, n_parts * sizeof *parts);
    if (!s->news || !parts)
        return NULL;
    sort_all(s, frame->msg);
    struct part *part = parts;
    for (uint32_t i = 0; i < WEIR_PORTS_MAX; i++)
        if (s->n[i] > first[i])
            *part++ = (struct part){ .news = s->news + first[i], .n = s->n[i] - first[i] };
    return parts;
}

weir_err frame_dispatch(struct frame *frame, struct ports *ports, struct weir_attach *att,
                        uint32_t *ret_n_unknown)
{
    struct sorter sorter;
    uint32_t n_parts = 0;
    struct part *parts = sort_by_port(frame, &sorter, &n_parts);

    *ret_n_unknown = sorter.n_unknown;
    if (!parts) {
        frame_close(frame);
        return n_parts > 0 ? WEIR_NOMEM : WEIR_OK;
    }
    frame->att = weir_attach_ref(att);
    frame->cost_bytes = frame_cost_bytes(frame);
    attach_frame_taken(att, frame->cost_bytes);
    atomic_store_explicit(&frame->n_parts, n_parts + 1,
                          memory_order_relaxed); /* one is ours, while we post */
    for (uint32_t i = 0; i < n_parts; i++) {
        struct part *part = &parts[i];
        part->frame = frame;
        part->task.run = part_run;
        part->port = ports_get(ports, (uint32_t)(part->news->tag >> WEIR_TAG_PORT_SHIFT));
        if (part->port) {
            weir_loop_post(part->port->loop, &part->task);
        } else {
            *ret_n_unknown += part->n;
            part_done(frame);
        }
    }
    part_done(frame);
    return WEIR_OK;
}

/* ---- losses ---- */
struct notice {
    struct weir_task task;
    struct loss *loss;
    struct weir_port *port;
};
struct loss {
    _Atomic uint32_t refs;
    struct weir_attach *att;
    uint64_t epoch;
    struct notice notices[WEIR_PORTS_MAX];
};

struct loss *loss_open(void)
{
    struct loss *loss = weir_alloc0(sizeof *loss);

    if (loss)
        loss->refs = 1;
    return loss;
}

void loss_close(struct loss *loss)
{
    if (!loss || atomic_fetch_sub_explicit(&loss->refs, 1, memory_order_acq_rel) != 1)
        return;
    weir_attach_unref(loss->att);
    weir_free(loss);
}

static void notice_run(struct weir_task *task)
{
    struct notice *notice = (struct notice *)task;
    struct weir_port *port = notice->port;
    struct loss *loss = notice->loss;

    if (port->ctx)
        port->ops.lost(port->ctx, loss->att, loss->epoch);
    port_unref(port);
    loss_close(loss);
}

void loss_dispatch(struct loss *loss, struct ports *ports, struct weir_attach *att, uint64_t epoch)
{
    loss->att = weir_attach_ref(att);
    loss->epoch = epoch;
    for (uint32_t i = 0; i < WEIR_PORTS_MAX; i++) {
        struct notice *notice = &loss->notices[i];
        notice->port = ports_get(ports, i);
        if (!notice->port)
            continue;
        notice->loss = loss;
        notice->task.run = notice_run;
        atomic_fetch_add_explicit(&loss->refs, 1, memory_order_relaxed);
        weir_loop_post(notice->port->loop, &notice->task);
    }
    loss_close(loss);
}
