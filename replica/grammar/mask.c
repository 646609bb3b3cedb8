/* mask.c - which tokens may come next.
 *
 * What a token does within one rule does not depend on who called the rule: a node's own mask is found once, by a
 * walk of the trie from that node, and kept with the grammar. Only tokens that run past the rule's end depend on the
 * caller; the places in the trie where the rule ends are kept too, and from there the walk goes on with the real
 * caller. So a step inside a JSON string copies bits and looks at the few tokens that have a quote in them.
 * Source: the split into context-independent and dependent tokens is that of XGrammar (Dong et al. 2024). */
#include "replica/grammar/gram_int.h"

#include <string.h>

#include "base/mem.h"

/* ---- walking ---- */

static bool add_escape(struct gram_found *found, uint32_t v)
{
    if (found->n_escapes == found->escapes_cap) {
        uint32_t cap = found->escapes_cap ? 2 * found->escapes_cap : 256;
        uint32_t *escapes = weir_realloc(found->escapes, cap * sizeof *escapes);
        if (!escapes)
            return false;
        found->escapes = escapes;
        found->escapes_cap = cap;
    }
    found->escapes[found->n_escapes++] = v;
    return true;
}

static void add_tokens(const struct weir_grammar_vocab *vocab, uint32_t v, struct gram_found *found)
{
    for (uint32_t i = vocab->nodes[v].first; i < vocab->nodes[v + 1].first; i++) {
        uint32_t id = (uint32_t)vocab->ids[i];
        if (id < found->n_vocab)
            found->bits[id / 32] |= 1u << (id % 32);
    }
}

bool gram_walk(struct weir_grammar_state *st, uint32_t v, uint32_t first, uint32_t n,
               struct gram_found *found)
{
    const struct weir_grammar_vocab *vocab = st->grammar->vocab;
    const uint32_t end = vocab->nodes[v].end, n_heads = st->heads.n;
    struct gram_level *level = st->levels;

    *level = (struct gram_level){ end, first, n, st->n_entries };
    for (uint32_t i = v + 1; i < end;) {
        struct gram_outcome outcome;
        uint32_t below = vocab->nodes[i].end;
        while (level->end <= i)
            level--;
        st->heads.n = level == st->levels ? n_heads : level->first + level->n;
        gram_entries_cut(st, level->n_entries);
        uint32_t at = st->heads.n;
        if (!gram_advance(st, level->first, level->n, vocab->bytes[i], &outcome))
            return false;
        uint32_t n_next = st->heads.n - at;
        bool goes_on = below > i + 1;
        if (n_next > 0 || outcome.whole || outcome.escaped)
            add_tokens(vocab, i, found);
        if (outcome.escaped && goes_on && !add_escape(found, i)) {
            st->spent = true;
            return false;
        }
        if (n_next > 0 && goes_on) {
            *++level = (struct gram_level){ below, at, n_next, st->n_entries };
            i++;
        } else {
            i = below;
        }
    }
    st->heads.n = n_heads;
    gram_entries_cut(st, st->levels->n_entries);
    return true;
}

/* ---- one node's mask ---- */

/* What was found, as a list when that is shorter; the bits are cleared. */
static struct gram_mask *pack(const struct weir_grammar_vocab *vocab, struct gram_found *found,
                              size_t *ret_size)
{
    uint32_t n_ids = 0;

    for (uint32_t w = 0; w < vocab->n_words; w++)
        n_ids += (uint32_t)__builtin_popcount(found->bits[w]);
    bool as_list = n_ids < vocab->n_words;
    uint32_t n = as_list ? n_ids : vocab->n_words;
    *ret_size = sizeof(struct gram_mask) + ((size_t)n + found->n_escapes) * sizeof(uint32_t);
    struct gram_mask *mask = weir_alloc(*ret_size);
    if (!mask)
        return NULL;
    mask->n_ids = as_list ? n_ids : UINT32_MAX;
    mask->n_escapes = found->n_escapes;
    uint32_t k = 0;
    for (uint32_t w = 0; as_list && w < vocab->n_words; w++)
        for (uint32_t word = found->bits[w]; word != 0; word &= word - 1)
            mask->at[k++] = 32 * w + (uint32_t)__builtin_ctz(word);
    if (!as_list)
        memcpy(mask->at, found->bits, n * sizeof *mask->at);
    if (found->n_escapes > 0)
        memcpy(mask->at + n, found->escapes, found->n_escapes * sizeof *mask->at);
    return mask;
}

static struct gram_mask *make_mask(struct weir_grammar_state *st, uint32_t node, size_t *ret_size)
{
    const struct weir_grammar_vocab *vocab = st->grammar->vocab;
    struct gram_found found = { .bits = st->bits, .n_vocab = vocab->n_tokens };
    uint32_t n = st->heads.n, work = st->work;
    struct gram_mask *mask = NULL;

    st->work =
        0; /* a bound of its own: whether a mask was kept must not decide what a step may cost besides */
    if (gram_heads_add(st, (struct gram_head){ node, GRAM_UNKNOWN }) && gram_walk(st, 0, n, 1, &found))
        mask = pack(vocab, &found, ret_size);
    st->heads.n = n;
    st->work = work;
    st->spent = st->spent || !mask;
    memset(st->bits, 0, vocab->n_words * sizeof *st->bits);
    weir_free(found.escapes);
    return mask;
}

const struct gram_mask *gram_mask_of(struct weir_grammar_state *st, uint32_t node, bool *ret_owned)
{
    struct weir_grammar *g = st->grammar;
    size_t size = 0;
    node = g->alike[node]; /* [A1] */
    struct gram_mask *mask = atomic_load_explicit(&g->masks[node], memory_order_acquire);

    *ret_owned = false;
    if (mask)
        return mask;
    mask = make_mask(st, node, &size);
    if (!mask)
        return NULL;
    if (atomic_fetch_add(&g->mask_bytes, size) + size > GRAM_MASK_BYTES_MAX) {
        atomic_fetch_sub(&g->mask_bytes, size);
        *ret_owned = true;
        return mask;
    }
    struct gram_mask *other = NULL;
    if (atomic_compare_exchange_strong_explicit(&g->masks[node], &other, mask, memory_order_release,
                                                memory_order_acquire))
        return mask;
    atomic_fetch_sub(&g->mask_bytes, size); /* another thread was first; theirs is the same */
    weir_free(mask);
    return other;
}

/* ---- the mask of all heads ---- */

static const uint32_t *put_own(const struct weir_grammar_vocab *vocab, const struct gram_mask *mask,
                               const struct gram_found *found)
{
    uint32_t n_words = (found->n_vocab + 31) / 32;

    if (mask->n_ids == UINT32_MAX) {
        for (uint32_t w = 0; w < vocab->n_words && w < n_words; w++)
            found->bits[w] |= mask->at[w];
        return mask->at + vocab->n_words;
    }
    for (uint32_t i = 0; i < mask->n_ids; i++)
        if (mask->at[i] < found->n_vocab)
            found->bits[mask->at[i] / 32] |= 1u << (mask->at[i] % 32);
    return mask->at + mask->n_ids;
}

/* Tokens that run past the rule of `head`, with what its caller allows. */
static bool put_escapes(struct weir_grammar_state *st, uint32_t parent, const uint32_t *escapes, uint32_t n,
                        struct gram_found *found)
{
    struct gram_outcome outcome = { false, false };
    uint32_t first = st->heads.n, n_entries = st->n_entries;
    bool ok =
        gram_settle(st, (struct gram_head){ st->entries[parent].node, st->entries[parent].parent }, &outcome);
    uint32_t n_heads = st->heads.n - first;

    for (uint32_t i = 0; ok && n_heads > 0 && i < n; i++)
        ok = gram_walk(st, escapes[i], first, n_heads, found);
    st->heads.n = first;
    gram_entries_cut(st, n_entries); /* [G2] */
    return ok;
}

static bool put_head(struct weir_grammar_state *st, struct gram_head head, struct gram_found *found)
{
    bool owned;
    const struct gram_mask *mask = gram_mask_of(st, head.node, &owned);

    if (!mask)
        return false;
    const uint32_t *escapes = put_own(st->grammar->vocab, mask, found);
    bool ok = mask->n_escapes == 0 || head.parent == GRAM_NO_PARENT ||
              put_escapes(st, head.parent, escapes, mask->n_escapes, found);
    if (owned)
        weir_free((struct gram_mask *)mask);
    return ok;
}

/* ---- the last mask again ---- */

static bool same_as_last(const struct weir_grammar_state *st, uint32_t n_vocab)
{
    const struct gram_last *last = &st->last;

    return last->good && last->n_vocab == n_vocab && last->n_heads == st->n_now && last->whole == st->whole &&
           (st->n_now == 0 || memcmp(last->heads, st->heads.at, st->n_now * sizeof *last->heads) == 0);
}

/* Without memory it is not kept: it is found again. */
static void keep_last(struct weir_grammar_state *st, const uint32_t *bits, uint32_t n_vocab)
{
    struct gram_last *last = &st->last;
    size_t n_bytes = ((size_t)n_vocab + 31) / 32 * sizeof *bits;

    last->good = false;
    if (st->n_now > 64 || (last->bits && last->n_vocab != n_vocab))
        return;
    if (!last->heads)
        last->heads = weir_calloc(64, sizeof *last->heads);
    if (!last->bits)
        last->bits = weir_alloc(n_bytes + 1);
    if (!last->heads || !last->bits)
        return;
    memcpy(last->bits, bits, n_bytes);
    if (st->n_now > 0)
        memcpy(last->heads, st->heads.at, st->n_now * sizeof *last->heads);
    last->n_vocab = n_vocab;
    last->n_heads = st->n_now;
    last->whole = st->whole;
    last->good = true;
}

static void find_mask(struct weir_grammar_state *st, uint32_t *bits, uint32_t n_vocab)
{
    const struct weir_grammar_vocab *vocab = st->grammar->vocab;
    size_t n_words = ((size_t)n_vocab + 31) / 32;
    struct gram_found found = { .bits = bits, .n_vocab = n_vocab };

    memset(bits, 0, n_words * sizeof *bits);
    st->work = 0;
    st->heads.n = st->n_now;
    for (uint32_t i = 0; i < st->n_now && !st->spent; i++)
        put_head(st, st->heads.at[i], &found);
    for (int i = 0; st->whole && i < vocab->n_end_ids; i++)
        if ((uint32_t)vocab->end_ids[i] < n_vocab)
            bits[vocab->end_ids[i] / 32] |= 1u << (vocab->end_ids[i] % 32);
    if (n_vocab % 32 != 0) /* a kept mask may know more tokens */
        bits[n_words - 1] &= (1u << (n_vocab % 32)) - 1;
    if (st->spent)
        memset(bits, 0, n_words * sizeof *bits);
}

void weir_grammar_state_mask(void *state, uint32_t *bits, uint32_t n_vocab)
{
    struct weir_grammar_state *st = state;
    size_t n_bytes = ((size_t)n_vocab + 31) / 32 * sizeof *bits;

    if (st->spent || st->ended) {
        memset(bits, 0, n_bytes);
    } else if (same_as_last(st, n_vocab)) {
        memcpy(bits, st->last.bits, n_bytes);
    } else {
        find_mask(st, bits, n_vocab);
        keep_last(st, bits, n_vocab);
    }
}
