/* nfa.c - one rule's expression as a nondeterministic automaton over the bytes of UTF-8.
 *
 * Thompson's construction. Characters become byte sequences here, so that a token may end within one: a class is cut
 * where the length or the bytes that may follow change, and the continuation bytes that may be anything are shared.
 * A repetition is written out; GRAM_NFA_MAX bounds what comes of it, and gram_work what nothing comes of. */
#include "replica/grammar/gram_int.h"

#include <string.h>

#include "base/mem.h"

struct nfa_run {
    struct gram_build *b;
    struct gram_nfa *nfa;
    uint32_t i_rule; /* for errors */
    bool failed;
};

static void too_large(struct nfa_run *r)
{
    const struct gram_rule *rule = &r->b->rules[r->i_rule];

    r->failed = true;
    gram_fail(r->b, WEIR_TOOLARGE,
              "%.*s: too large: its repetitions or alternatives make more than %d states",
              WEIR_STR_FMT(rule->name), GRAM_NFA_MAX);
}

static void *grown(struct nfa_run *r, void *old, uint32_t n, uint32_t *cap, size_t size)
{
    if (n < *cap)
        return old;
    if (n >= GRAM_NFA_MAX) {
        too_large(r);
        return NULL;
    }
    void *at = weir_realloc(old, (*cap ? 2 * (size_t)*cap : 64) * size);
    if (!at) {
        r->failed = true;
        gram_fail(r->b, WEIR_NOMEM, "no memory for the grammar");
        return NULL;
    }
    *cap = *cap ? 2 * *cap : 64;
    return at;
}

static uint32_t new_state(struct nfa_run *r)
{
    if (r->failed)
        return 0;
    uint32_t *first = grown(r, r->nfa->first, r->nfa->n_states, &r->nfa->states_cap, sizeof *first);
    if (!first)
        return 0;
    r->nfa->first = first;
    first[r->nfa->n_states] = 0;
    return r->nfa->n_states++;
}

static void add_edge(struct nfa_run *r, uint32_t from, struct gram_nfa_edge edge)
{
    struct gram_nfa *nfa = r->nfa;

    if (r->failed)
        return;
    struct gram_nfa_edge *edges = grown(r, nfa->edges, nfa->n_edges, &nfa->edges_cap, sizeof *edges);
    if (!edges)
        return;
    nfa->edges = edges;
    edge.next = nfa->first[from];
    edges[nfa->n_edges] = edge;
    nfa->first[from] = nfa->n_edges++;
}

static void epsilon(struct nfa_run *r, uint32_t from, uint32_t to)
{
    add_edge(r, from, (struct gram_nfa_edge){ .kind = GRAM_EPSILON, .to = to });
}

static void bytes_edge(struct nfa_run *r, uint32_t from, uint32_t lo, uint32_t hi, uint32_t to)
{
    add_edge(r, from,
             (struct gram_nfa_edge){ .kind = GRAM_BYTE, .lo = (uint8_t)lo, .hi = (uint8_t)hi, .to = to });
}

/* ---- classes ---- */

struct class_run {
    struct nfa_run *r;
    uint32_t rest[4]; /* the state from which any n continuation bytes lead to the end; 0 = not made */
};

static uint32_t any_rest(struct class_run *c, int n)
{
    if (c->rest[n] == 0) {
        uint32_t to = any_rest(c, n - 1);
        c->rest[n] = new_state(c->r);
        bytes_edge(c->r, c->rest[n], 0x80, 0xbf, to);
    }
    return c->rest[n];
}

/* The code points lo..hi, whose n bytes behind the first `head` bits differ as 6 n low bits; `from` has read the rest. */
static void tails(struct class_run *c, uint32_t from, uint32_t lo, uint32_t hi, uint32_t mark, int n)
{
    uint32_t unit = 1u << (6 * n); /* code points below one value of this byte */

    while (lo <= hi) {
        uint32_t end = lo | (unit - 1); /* the last below this byte's value */
        bool whole = (lo & (unit - 1)) == 0 && end <= hi;
        if (whole) { /* as many whole ones as there are */
            end = (hi & (unit - 1)) == unit - 1 ? hi : (hi & ~(unit - 1)) - 1;
            bytes_edge(c->r, from, mark | lo >> (6 * n), mark | end >> (6 * n), any_rest(c, n));
        } else {
            if (end > hi)
                end = hi;
            uint32_t to = new_state(c->r);
            bytes_edge(c->r, from, mark | lo >> (6 * n), mark | lo >> (6 * n), to);
            tails(c, to, lo & (unit - 1), end & (unit - 1), 0x80, n - 1);
        }
        if (c->r->failed || end == UINT32_MAX)
            return;
        lo = end + 1;
    }
}

static void range(struct class_run *c, uint32_t from, uint32_t lo, uint32_t hi)
{
    static const struct {
        uint32_t lo, hi, mark;
    } lengths[] = {
        { 0, 0x7f, 0 }, { 0x80, 0x7ff, 0xc0 }, { 0x800, 0xffff, 0xe0 }, { 0x10000, 0x10ffff, 0xf0 }
    };

    for (int n = 0; n < 4; n++) {
        uint32_t from_c = lo > lengths[n].lo ? lo : lengths[n].lo;
        uint32_t to_c = hi < lengths[n].hi ? hi : lengths[n].hi;
        if (from_c <= to_c)
            tails(c, from, from_c, to_c, lengths[n].mark, n);
    }
}

static uint32_t emit_class(struct nfa_run *r, const struct gram_class *set, uint32_t from)
{
    struct class_run c = { .r = r };

    c.rest[0] = new_state(r);
    for (uint32_t i = 0; i < set->n && !r->failed; i++)
        range(&c, from, set->at[i].lo, set->at[i].hi);
    return c.rest[0];
}

/* ---- the other kinds ---- */

static uint32_t emit(struct nfa_run *r, const struct gram_expr *x, uint32_t from);

static uint32_t emit_bytes(struct nfa_run *r, struct weir_str bytes, uint32_t from)
{
    for (size_t i = 0; i < bytes.len && !r->failed; i++) {
        uint32_t to = new_state(r);
        bytes_edge(r, from, (uint8_t)bytes.ptr[i], (uint8_t)bytes.ptr[i], to);
        from = to;
    }
    return from;
}

static uint32_t emit_alt(struct nfa_run *r, const struct gram_expr *x, uint32_t from)
{
    uint32_t to = new_state(r);

    for (uint32_t i = 0; i < x->n_parts && !r->failed; i++) {
        uint32_t start = new_state(r);
        epsilon(r, from, start);
        epsilon(r, emit(r, x->parts[i], start), to);
    }
    return to;
}

static uint32_t emit_loop(struct nfa_run *r, const struct gram_expr *of, uint32_t from)
{
    uint32_t loop = new_state(r);

    epsilon(r, from, loop);
    epsilon(r, emit(r, of, loop), loop);
    return loop;
}

static uint32_t emit_repeat(struct nfa_run *r, const struct gram_expr *x, uint32_t from)
{
    for (uint32_t i = 0; i < x->min && !r->failed; i++)
        from = emit(r, x->of, from);
    if (x->max == GRAM_INF)
        return emit_loop(r, x->of, from);
    uint32_t to = new_state(r);
    epsilon(r, from, to);
    for (uint32_t i = x->min; i < x->max && !r->failed; i++) {
        uint32_t start = new_state(r);
        epsilon(r, from, start);
        from = emit(r, x->of, start);
        epsilon(r, from, to);
    }
    return to;
}

/* Two lanes: nothing was written yet, or something was and a separator comes first. */
static uint32_t emit_chain(struct nfa_run *r, const struct gram_expr *x, uint32_t from)
{
    uint32_t none = new_state(r), some = new_state(r), to = new_state(r);
    bool may_be_none = true;

    epsilon(r, from, none);
    for (uint32_t i = 0; i < x->n_parts && !r->failed; i++) {
        bool repeats = x->last_repeats && i + 1 == x->n_parts;
        bool optional = x->optional[i] || repeats;
        uint32_t next_none = new_state(r), next_some = new_state(r);
        if (may_be_none)
            epsilon(r, emit(r, x->parts[i], none), next_some);
        if (i > 0 || repeats) {
            uint32_t start = repeats ? next_some : some;
            if (repeats)
                epsilon(r, some, next_some);
            epsilon(r, emit(r, x->parts[i], emit(r, x->of, start)), next_some);
        }
        if (optional) {
            if (may_be_none)
                epsilon(r, none, next_none);
            epsilon(r, some, next_some);
        }
        may_be_none = may_be_none && optional;
        none = next_none;
        some = next_some;
    }
    if (may_be_none)
        epsilon(r, none, to);
    epsilon(r, some, to);
    return to;
}

/* ---- texts up to, or without, some bytes: Knuth, Morris and Pratt's automaton ---- */

struct kmp {
    struct weir_str bytes;
    uint32_t fall[GRAM_AFTER_MAX + 1]; /* the longest proper border of the first i bytes */
};

static void kmp_init(struct kmp *kmp, struct weir_str bytes)
{
    kmp->bytes = bytes;
    kmp->fall[0] = 0;
    for (uint32_t i = 1; i <= bytes.len; i++) {
        uint32_t k = i > 1 ? kmp->fall[i - 1] : 0;
        while (i > 1 && k > 0 && bytes.ptr[k] != bytes.ptr[i - 1])
            k = kmp->fall[k];
        kmp->fall[i] = i > 1 && bytes.ptr[k] == bytes.ptr[i - 1] ? k + 1 : 0;
    }
}

/* How many of the bytes are there when k of them, not yet all, are followed by c. */
static uint32_t kmp_step(const struct kmp *kmp, uint32_t k, uint32_t c)
{
    while (k > 0 && (uint8_t)kmp->bytes.ptr[k] != c)
        k = kmp->fall[k];
    return (uint8_t)kmp->bytes.ptr[k] == c ? k + 1 : 0;
}

static uint32_t emit_until(struct nfa_run *r, struct weir_str bytes, uint32_t from)
{
    uint32_t states[GRAM_AFTER_MAX + 1];
    struct kmp kmp;

    kmp_init(&kmp, bytes);
    for (uint32_t i = 0; i <= bytes.len; i++)
        states[i] = new_state(r);
    epsilon(r, from, states[0]);
    for (uint32_t i = 0; i < bytes.len; i++)
        for (uint32_t c = 0; c < 256 && !r->failed; c++)
            bytes_edge(r, states[i], c, c, states[kmp_step(&kmp, i, c)]);
    return states[bytes.len];
}

/* One more character, from the states `now` to the states `next`: by how many of the bytes are there. */
static void emit_one_without(struct nfa_run *r, const struct kmp *kmp, const uint32_t *now,
                             const uint32_t *next)
{
    static struct gram_range wide_ranges[] = { { 0x80, 0xd7ff }, { 0xe000, 0x10ffff } };
    const struct gram_class wide = { wide_ranges, 2 };
    uint32_t before_wide = new_state(r);

    for (uint32_t k = 0; k < kmp->bytes.len; k++) {
        epsilon(r, now[k], before_wide);
        for (uint32_t c = 0, end; c < 0x80 && !r->failed; c = end) {
            uint32_t to = kmp_step(kmp, k, c);
            bool may = c >= ' ' || c == '\t' || c == '\n' || c == '\r';
            for (end = c + 1; c >= ' ' && end < 0x80 && kmp_step(kmp, k, end) == to; end++)
                ;
            if (may && to < kmp->bytes.len)
                bytes_edge(r, now[k], c, end - 1, next[to]);
        }
    }
    epsilon(r, emit_class(r, &wide, before_wide), next[0]);
}

/* The automaton once for each count; where there is no end above, the last one leads to itself. */
static uint32_t emit_without(struct nfa_run *r, const struct gram_expr *x, uint32_t from)
{
    uint32_t states[2][GRAM_AFTER_MAX], to = new_state(r);
    struct kmp kmp;

    kmp_init(&kmp, x->bytes);
    for (uint32_t k = 0; k < x->bytes.len; k++)
        states[0][k] = new_state(r);
    epsilon(r, from, states[0][0]);
    for (uint32_t n = 0; !r->failed; n++) {
        uint32_t *now = states[n % 2], *next = states[(n + 1) % 2];
        bool loops = n == x->min && x->max == GRAM_INF;
        for (uint32_t k = 0; k < x->bytes.len; k++) {
            if (n >= x->min)
                epsilon(r, now[k], to);
            if (n < x->max)
                next[k] = loops ? now[k] : new_state(r);
        }
        if (n < x->max)
            emit_one_without(r, &kmp, now, next);
        if (n == x->max || loops)
            break;
    }
    return to;
}

/* ---- rules in place of calls ---- */

enum { NEVER_INLINE = UINT32_MAX, BEING_WEIGHED = UINT32_MAX - 1 };

/* How much would come in place of a call, or NEVER_INLINE: a loop, a recursion, or too much. A rule with a loop stays
 * a rule because what it allows is costly to find and then found once for all its calls. */
static uint32_t weigh(struct gram_build *b, const struct gram_expr *x, int depth)
{
    uint32_t sum = 1;

    if (depth > GRAM_NEST_MAX)
        return NEVER_INLINE;
    switch (x->kind) {
    case GRAM_BYTES:
        return (uint32_t)(x->bytes.len < GRAM_INLINE_MAX ? x->bytes.len + 1 : NEVER_INLINE);
    case GRAM_CLASS:
        return x->set.n > 8 ? NEVER_INLINE : x->set.n > 0 && x->set.at[x->set.n - 1].hi < 0x80 ? 1 : 8;
    case GRAM_RULE: {
        struct gram_rule *rule = &b->rules[x->rule];
        if (rule->stays || !rule->body || rule->weight == BEING_WEIGHED)
            return NEVER_INLINE;
        if (rule->weight == 0) {
            rule->weight = BEING_WEIGHED;
            uint32_t w = weigh(b, rule->body, depth + 1);
            b->rules[x->rule].weight = w <= GRAM_INLINE_MAX ? w : NEVER_INLINE;
        }
        return b->rules[x->rule].weight;
    }
    case GRAM_REPEAT:
        sum = x->max == GRAM_INF ? NEVER_INLINE : weigh(b, x->of, depth + 1);
        return sum > GRAM_INLINE_MAX || x->max > GRAM_INLINE_MAX ? NEVER_INLINE : sum * (x->max + 1);
    case GRAM_CAT:
    case GRAM_ALT:
        for (uint32_t i = 0; i < x->n_parts && sum <= GRAM_INLINE_MAX; i++) {
            uint32_t w = weigh(b, x->parts[i], depth + 1);
            sum = w == NEVER_INLINE ? NEVER_INLINE : sum + w;
        }
        return sum <= GRAM_INLINE_MAX ? sum : NEVER_INLINE;
    default:
        return NEVER_INLINE;
    }
}

static uint32_t emit_rule(struct nfa_run *r, const struct gram_expr *x, uint32_t from)
{
    if (weigh(r->b, x, 0) != NEVER_INLINE)
        return emit(r, r->b->rules[x->rule].body, from);
    uint32_t to = new_state(r);
    add_edge(r, from, (struct gram_nfa_edge){ .kind = GRAM_CALL, .rule = x->rule, .to = to });
    return to;
}

/* Returns the state behind it; edges out of `from` are added, edges out of what is returned may be there already. */
static uint32_t emit(struct nfa_run *r, const struct gram_expr *x, uint32_t from)
{
    r->failed = r->failed || !gram_work(r->b, r->b->rules[r->i_rule].name, 1);
    if (r->failed)
        return 0;
    switch (x->kind) {
    case GRAM_BYTES:
        return emit_bytes(r, x->bytes, from);
    case GRAM_CLASS:
        return emit_class(r, &x->set, from);
    case GRAM_CAT:
        for (uint32_t i = 0; i < x->n_parts; i++)
            from = emit(r, x->parts[i], from);
        return from;
    case GRAM_ALT:
        return emit_alt(r, x, from);
    case GRAM_REPEAT:
        return emit_repeat(r, x, from);
    case GRAM_RULE:
        return emit_rule(r, x, from);
    case GRAM_CHAIN:
        return emit_chain(r, x, from);
    case GRAM_UNTIL:
        return emit_until(r, x->bytes, from);
    case GRAM_WITHOUT:
        return emit_without(r, x, from);
    }
    return from;
}

bool gram_nfa_make(struct gram_build *b, uint32_t rule, struct gram_nfa *ret)
{
    struct nfa_run r = { .b = b, .nfa = ret, .i_rule = rule };

    memset(ret, 0, sizeof *ret);
    ret->n_edges = 1; /* 0 is none */
    ret->edges_cap = 64;
    ret->edges = weir_calloc(ret->edges_cap, sizeof *ret->edges);
    if (!ret->edges)
        gram_fail(b, WEIR_NOMEM, "no memory for the grammar");
    if (b->err != WEIR_OK)
        return false;
    ret->end = emit(&r, b->rules[rule].body, new_state(&r));
    return !r.failed;
}

void gram_nfa_release(struct gram_nfa *nfa)
{
    weir_free(nfa->first);
    weir_free(nfa->edges);
}
