/* state.c - how far a text has come in its grammar.
 *
 * The text so far may be read in several ways; each is a head: a node, and the entry where to go on when the node's
 * rule ends. Entries are shared among heads and told apart by what they hold, so equal ways are one. An entry lives
 * until a sweep finds that no head leads to it.
 *   [G1] Heads of one set differ, and from each the text can still be ended (link.c [K1]).
 *   [G2] Asking for a mask leaves the state as it was: entries made meanwhile are cut off again.
 *   [G3] Settling ends: no rule begins with itself, and GRAM_VISITS_MAX bounds what an ambiguous grammar does. */
#include "replica/grammar/gram_int.h"

#include <string.h>

#include "base/mem.h"

#define NO_ENTRY UINT32_MAX

/* ---- entries ---- */

static uint32_t bucket_of(const struct weir_grammar_state *st, uint32_t node, uint32_t parent)
{
    uint64_t x = ((uint64_t)node << 32 | parent) * 0x9e3779b97f4a7c15ull;

    return (uint32_t)(x >> 32) & (st->n_buckets - 1);
}

static void link_entry(struct weir_grammar_state *st, uint32_t i)
{
    uint32_t *bucket = &st->buckets[bucket_of(st, st->entries[i].node, st->entries[i].parent)];

    st->entries[i].next = *bucket;
    *bucket = i;
}

static void relink(struct weir_grammar_state *st)
{
    memset(st->buckets, 0xff, st->n_buckets * sizeof *st->buckets);
    for (uint32_t i = 0; i < st->n_entries; i++)
        link_entry(st, i); /* in order, so that the newest is at its bucket's front */
}

static bool grow_entries(struct weir_grammar_state *st)
{
    uint32_t cap = st->entries_cap ? 2 * st->entries_cap : 64;

    if (st->n_entries >= WEIR_GRAMMAR_ENTRIES_MAX)
        return false;
    struct gram_entry *entries = weir_realloc(st->entries, cap * sizeof *entries);
    if (entries)
        st->entries = entries;
    uint32_t *buckets = weir_realloc(st->buckets, cap * sizeof *buckets);
    if (buckets)
        st->buckets = buckets;
    if (!entries || !buckets)
        return false;
    st->entries_cap = st->n_buckets = cap; /* as many: sweep uses the buckets by entry */
    relink(st);
    return true;
}

/* The entry of this content; NO_ENTRY at a bound. */
static uint32_t intern(struct weir_grammar_state *st, uint32_t node, uint32_t parent)
{
    for (uint32_t i = st->n_buckets ? st->buckets[bucket_of(st, node, parent)] : NO_ENTRY; i != NO_ENTRY;
         i = st->entries[i].next)
        if (st->entries[i].node == node && st->entries[i].parent == parent)
            return i;
    if (st->n_entries == st->entries_cap && !grow_entries(st))
        return NO_ENTRY;
    st->entries[st->n_entries] = (struct gram_entry){ .node = node, .parent = parent };
    link_entry(st, st->n_entries);
    return st->n_entries++;
}

void gram_entries_cut(struct weir_grammar_state *st, uint32_t n)
{
    while (st->n_entries > n) { /* the newest first: each is at its bucket's front */
        const struct gram_entry *e = &st->entries[--st->n_entries];
        st->buckets[bucket_of(st, e->node, e->parent)] = e->next;
    }
}

/* Drops what no head leads to. A parent was made before its child, so one pass down marks and one up moves; the
 * buckets, which are filled anew, hold meanwhile where each entry went. */
static void sweep(struct weir_grammar_state *st)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < st->n_entries; i++)
        st->entries[i].next = 0; /* not needed */
    for (uint32_t i = 0; i < st->n_now; i++)
        if (st->heads.at[i].parent < GRAM_UNKNOWN)
            st->entries[st->heads.at[i].parent].next = 1;
    for (uint32_t i = st->n_entries; i-- > 0;)
        if (st->entries[i].next && st->entries[i].parent < GRAM_UNKNOWN)
            st->entries[st->entries[i].parent].next = 1;
    for (uint32_t i = 0; i < st->n_entries; i++) {
        struct gram_entry e = st->entries[i];
        if (!e.next)
            continue;
        if (e.parent < GRAM_UNKNOWN)
            e.parent = st->buckets[e.parent];
        st->buckets[i] = n;
        st->entries[n++] = e;
    }
    for (uint32_t i = 0; i < st->n_now; i++)
        if (st->heads.at[i].parent < GRAM_UNKNOWN)
            st->heads.at[i].parent = st->buckets[st->heads.at[i].parent];
    st->n_entries = st->n_kept = n;
    st->last.good = false; /* its entries have other numbers now */
    relink(st);
}

/* ---- heads ---- */

bool gram_heads_add(struct weir_grammar_state *st, struct gram_head head)
{
    struct gram_heads *h = &st->heads;

    if (h->n == h->cap) {
        uint32_t cap = h->cap ? 2 * h->cap : 64;
        struct gram_head *at = weir_realloc(h->at, cap * sizeof *at);
        if (!at)
            return false;
        h->at = at;
        h->cap = cap;
    }
    h->at[h->n++] = head;
    return true;
}

/* Looks at a head once a settling. False at a bound. */
static bool visit(struct weir_grammar_state *st, struct gram_head head)
{
    uint64_t x = ((uint64_t)head.node << 32 | head.parent) * 0x9e3779b97f4a7c15ull;
    uint32_t slot = (uint32_t)(x >> 40) & (GRAM_SEEN - 1);

    for (; st->seen[slot].turn == st->turn; slot = (slot + 1) & (GRAM_SEEN - 1))
        if (st->seen[slot].head.node == head.node && st->seen[slot].head.parent == head.parent)
            return true;
    if (st->n_seen == GRAM_VISITS_MAX) /* [G3] */
        return false;
    st->n_seen++;
    st->seen[slot] = (struct gram_seen){ head, st->turn };
    st->todo[st->n_todo++] = head;
    return true;
}

static void begin_settling(struct weir_grammar_state *st)
{
    if (++st->turn == 0) { /* the marks of 2^32 settlings ago look like today's */
        memset(st->seen, 0, GRAM_SEEN * sizeof *st->seen);
        st->turn = 1;
    }
    st->n_seen = st->n_todo = 0;
}

static bool leave(struct weir_grammar_state *st, uint32_t parent, struct gram_outcome *ret)
{
    if (parent == GRAM_NO_PARENT)
        ret->whole = true;
    else if (parent == GRAM_UNKNOWN)
        ret->escaped = true;
    else
        return visit(st, (struct gram_head){ st->entries[parent].node, st->entries[parent].parent });
    return true;
}

static bool enter(struct weir_grammar_state *st, const struct gram_call_edge *call, uint32_t parent)
{
    if (!(st->grammar->a.nodes[call->to].flags & GRAM_TAIL)) { /* else back there is only leaving again */
        parent = intern(st, call->to, parent);
        if (parent == NO_ENTRY)
            return false;
    }
    return visit(st, (struct gram_head){ call->rule, parent });
}

static bool settle_todo(struct weir_grammar_state *st, struct gram_outcome *ret)
{
    const struct gram_auto *a = &st->grammar->a;

    while (st->n_todo > 0) {
        struct gram_head head = st->todo[--st->n_todo];
        const struct gram_node *node = &a->nodes[head.node];
        bool ok = node[1].edge == node->edge || gram_heads_add(st, head);
        if (ok && (node->flags & GRAM_FINAL))
            ok = leave(st, head.parent, ret);
        for (uint32_t c = node->call; ok && c < node[1].call; c++)
            ok = enter(st, &a->calls[c], head.parent);
        if (!ok) {
            st->spent = true;
            return false;
        }
    }
    st->work += st->n_seen;
    if (st->work > GRAM_STEP_WORK_MAX)
        st->spent = true;
    return !st->spent;
}

bool gram_settle(struct weir_grammar_state *st, struct gram_head head, struct gram_outcome *ret)
{
    begin_settling(st);
    return visit(st, head) && settle_todo(st, ret);
}

/* UINT32_MAX: nowhere. */
static uint32_t next_node(const struct gram_auto *a, uint32_t node, uint8_t byte)
{
    const struct gram_edge *e = a->edges + a->nodes[node].edge, *end = a->edges + a->nodes[node + 1].edge;

    for (; e < end; e++)
        if (byte <= e->hi)
            return byte >= e->lo ? e->to : UINT32_MAX;
    return UINT32_MAX;
}

bool gram_advance(struct weir_grammar_state *st, uint32_t first, uint32_t n, uint8_t byte,
                  struct gram_outcome *ret)
{
    const struct gram_auto *a = &st->grammar->a;

    *ret = (struct gram_outcome){ false, false };
    st->work += n;
    if (n == 1) { /* the common case: one way, within one rule */
        struct gram_head head = st->heads.at[first];
        head.node = next_node(a, head.node, byte);
        if (head.node == UINT32_MAX)
            return true;
        if (a->nodes[head.node].flags & GRAM_PLAIN) {
            st->spent = !gram_heads_add(st, head);
            return !st->spent;
        }
    }
    begin_settling(st);
    for (uint32_t i = first; i < first + n; i++) {
        uint32_t to = next_node(a, st->heads.at[i].node, byte);
        if (to != UINT32_MAX && !visit(st, (struct gram_head){ to, st->heads.at[i].parent })) { /* [G1] */
            st->spent = true;
            return false;
        }
    }
    return settle_todo(st, ret);
}

/* ---- the public face ---- */

/* One byte further; the new heads take the old ones' place. */
static bool take_byte(struct weir_grammar_state *st, uint8_t byte)
{
    struct gram_outcome outcome;

    st->heads.n = st->n_now;
    if (!gram_advance(st, 0, st->n_now, byte, &outcome))
        return false;
    uint32_t n = st->heads.n - st->n_now;
    if (n > WEIR_GRAMMAR_HEADS_MAX)
        return false;
    if (n > 0)
        memmove(st->heads.at, st->heads.at + st->n_now, n * sizeof *st->heads.at);
    st->heads.n = st->n_now = n;
    st->whole = outcome.whole;
    return n > 0 || st->whole;
}

static bool is_end(const struct weir_grammar_vocab *v, int32_t id)
{
    for (int i = 0; i < v->n_end_ids; i++)
        if (v->end_ids[i] == id)
            return true;
    return false;
}

bool weir_grammar_state_accept(void *state, int32_t id)
{
    struct weir_grammar_state *st = state;
    const struct weir_grammar_vocab *v = st->grammar->vocab;
    bool ok = !st->spent && !st->ended;

    st->work = 0;
    if (ok && is_end(v, id)) {
        st->ended = true;
        ok = st->whole;
    } else {
        ok = ok && id >= 0 && (uint32_t)id < v->n_tokens && v->text[id].len > 0;
        for (size_t i = 0; ok && i < v->text[id].len; i++)
            ok = take_byte(st, (uint8_t)v->text[id].ptr[i]);
    }
    if (ok && st->n_entries > 2 * st->n_kept + 256)
        sweep(st);
    st->spent = st->spent || !ok;
    return ok;
}

bool weir_grammar_state_whole(const struct weir_grammar_state *state)
{
    return state->whole && !state->spent;
}

weir_err weir_grammar_state_open(struct weir_grammar *grammar, struct weir_grammar_state **ret,
                                 struct weir_why *why)
{
    struct weir_grammar_state *st = weir_alloc0(sizeof *st);
    struct gram_outcome outcome = { false, false };

    if (!st)
        return weir_fail(why, WEIR_NOMEM, "no memory for the grammar's state");
    st->grammar = weir_grammar_ref(grammar);
    st->seen = weir_calloc(GRAM_SEEN, sizeof *st->seen);
    st->todo = weir_calloc(GRAM_VISITS_MAX, sizeof *st->todo);
    st->levels = weir_calloc((size_t)grammar->vocab->depth_max + 2, sizeof *st->levels);
    st->bits = weir_calloc((size_t)grammar->vocab->n_words + 1, sizeof *st->bits);
    weir_err err = st->seen && st->todo && st->levels && st->bits ? WEIR_OK : WEIR_NOMEM;
    if (err == WEIR_OK && !gram_settle(st, (struct gram_head){ grammar->start, GRAM_NO_PARENT }, &outcome))
        err = st->n_seen == GRAM_VISITS_MAX ? WEIR_TOOLARGE : WEIR_NOMEM;
    if (err != WEIR_OK) {
        weir_grammar_state_close(st);
        return weir_fail(why, err,
                         err == WEIR_NOMEM
                             ? "no memory for the grammar's state"
                             : "the grammar is too ambiguous: there are too many ways to begin");
    }
    st->n_now = st->heads.n;
    st->whole = outcome.whole;
    *ret = st;
    return WEIR_OK;
}

void weir_grammar_state_close(void *state)
{
    struct weir_grammar_state *st = state;

    if (!st)
        return;
    weir_grammar_unref(st->grammar);
    weir_free(st->heads.at);
    weir_free(st->entries);
    weir_free(st->buckets);
    weir_free(st->seen);
    weir_free(st->todo);
    weir_free(st->levels);
    weir_free(st->bits);
    weir_free(st->last.bits);
    weir_free(st->last.heads);
    weir_free(st);
}
