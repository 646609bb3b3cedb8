/* stop.c - stop strings, found whatever the borders of the pieces that the text comes in.
 *
 * An Aho-Corasick automaton over bytes; the request's arena owns it. Between pushes the state is the automaton's node and
 * the held text, which is the path to it from the root.
 *   [S1] Held is the longest suffix of the text that begins some stop string, so nothing is held without need.
 *   [S2] The first stop string to end wins; of those that end together, the longest. A text that comes byte by byte can do
 *        no better, so the place does not depend on the borders.
 * Source: Aho and Corasick 1975. */
#include "replica/text/tokenizer.h"

#include <string.h>

enum { STOP_BYTES_MAX = 1 << 20 }; /* of all stop strings together */

struct node {
    uint32_t child, sibling; /* 0 = none: the root is nobody's child */
    uint32_t fail;           /* the longest proper suffix that is a path too */
    uint32_t depth;
    uint32_t n_match; /* bytes of the longest stop string that ends here, 0 = none */
    uint8_t byte;
};

struct weir_stop {
    struct node *nodes;
    uint32_t n_nodes;
};

static uint32_t find_child(const struct weir_stop *set, uint32_t node, uint8_t byte)
{
    uint32_t child = set->nodes[node].child;

    while (child != 0 && set->nodes[child].byte != byte)
        child = set->nodes[child].sibling;
    return child;
}

static void add_string(struct weir_stop *set, struct weir_str stop)
{
    uint32_t at = 0;

    for (size_t i = 0; i < stop.len; i++) {
        uint32_t child = find_child(set, at, (uint8_t)stop.ptr[i]);
        if (child == 0) {
            child = set->n_nodes++;
            set->nodes[child] = (struct node){ .sibling = set->nodes[at].child,
                                               .depth = set->nodes[at].depth + 1,
                                               .byte = (uint8_t)stop.ptr[i] };
            set->nodes[at].child = child;
        }
        at = child;
    }
    set->nodes[at].n_match = set->nodes[at].depth;
}

static uint32_t step(const struct weir_stop *set, uint32_t at, uint8_t byte)
{
    for (;;) {
        uint32_t child = find_child(set, at, byte);
        if (child != 0 || at == 0)
            return child;
        at = set->nodes[at].fail;
    }
}

/* Breadth first: a node's suffix is shorter than the node. `queue` has room for all nodes. */
static void link_suffixes(struct weir_stop *set, uint32_t *queue)
{
    uint32_t n_queue = 0;

    for (uint32_t child = set->nodes[0].child; child != 0; child = set->nodes[child].sibling)
        queue[n_queue++] = child; /* their suffix is the root */
    for (uint32_t i = 0; i < n_queue; i++) {
        const struct node *node = &set->nodes[queue[i]];
        for (uint32_t child = node->child; child != 0; child = set->nodes[child].sibling) {
            struct node *c = &set->nodes[child];
            c->fail = step(set, node->fail, c->byte);
            if (c->n_match == 0)
                c->n_match = set->nodes[c->fail].n_match;
            queue[n_queue++] = child;
        }
    }
}

weir_err weir_stop_compile(const struct weir_str *stops, int n, struct weir_arena *arena,
                           struct weir_stop **ret)
{
    size_t n_bytes = 0;

    for (int i = 0; i < n; i++) {
        if (stops[i].len > STOP_BYTES_MAX - n_bytes)
            return WEIR_TOOLARGE;
        n_bytes += stops[i].len;
    }
    if (n_bytes == 0) { /* an empty string stops nothing */
        *ret = NULL;
        return WEIR_OK;
    }
    struct weir_stop *set = weir_arena_alloc0(arena, sizeof *set);
    uint32_t *queue = weir_arena_alloc(arena, (n_bytes + 1) * sizeof *queue);
    if (set)
        set->nodes = weir_arena_alloc0(arena, (n_bytes + 1) * sizeof *set->nodes);
    if (!set || !set->nodes || !queue)
        return WEIR_NOMEM;
    set->n_nodes = 1;
    for (int i = 0; i < n; i++)
        if (stops[i].len > 0)
            add_string(set, stops[i]);
    link_suffixes(set, queue);
    *ret = set;
    return WEIR_OK;
}

/* The held text, the first n bytes of it, goes out. */
static void release_held(struct weir_stop_state *st, size_t n, struct weir_buf *out)
{
    weir_buf_add(out, weir_buf_ptr(&st->held), n);
    weir_buf_consume(&st->held, n);
}

/* Text [0, end) was read and the automaton is at `depth`: all but the last `keep` bytes of held and text goes
 * out; the last `depth` stay held. */
static void settle(struct weir_stop_state *st, struct weir_str text, size_t end, size_t keep,
                   struct weir_buf *out)
{
    size_t n_held = weir_buf_len(&st->held), total = n_held + end;
    size_t n_out = total - keep;

    release_held(st, n_out < n_held ? n_out : n_held, out);
    if (n_out > n_held)
        weir_buf_add(out, text.ptr, n_out - n_held);
    size_t taken = n_out > n_held ? n_out - n_held : 0;
    weir_buf_add(&st->held, text.ptr + taken, end - taken);
    out->failed = out->failed || st->held.failed;
}

bool weir_stop_push(const struct weir_stop *set, struct weir_stop_state *st, struct weir_str text,
                    struct weir_buf *out)
{
    if (!set) {
        weir_buf_add(out, text.ptr, text.len);
        return false;
    }
    uint32_t at = st->at;
    WEIR_DCHECK(st->held.failed || set->nodes[at].depth == weir_buf_len(&st->held)); /* [S1] */
    for (size_t i = 0; i < text.len; i++) {
        at = step(set, at, (uint8_t)text.ptr[i]);
        if (set->nodes[at].n_match > 0) { /* [S2] */
            settle(st, text, i + 1, set->nodes[at].n_match, out);
            weir_buf_clear(&st->held);
            st->at = 0;
            return true;
        }
    }
    settle(st, text, text.len, set->nodes[at].depth, out);
    st->at = at;
    return false;
}

void weir_stop_finish(struct weir_stop_state *st, struct weir_buf *out)
{
    release_held(st, weir_buf_len(&st->held), out);
    st->at = 0;
}

void weir_stop_release(struct weir_stop_state *st)
{
    weir_buf_release(&st->held);
}
