/* admit.c - who gets a place in the batch, and what of its prompt is computed already.
 *
 * Admission reserves pages for the prompt and the output that is likely, not for the worst case: when many say more
 * than that, suspend.c makes room.
 *   [A1] Who was suspended goes on before anybody of its class or a later one starts. [A2] Nobody overtakes: when the
 * next one does not fit, the others wait too. [A3] Pages that several hold count once. [A4] Who needs pages that
 * another is just computing waits for them, in its place, and finds them: it starts only then, so that what it tells
 * of the cache is exact. Nobody awaits one that awaits.
 * Cost: of a step, the tokens of one prompt hashed and a walk over the running; nothing that grows with the waiting. */
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "replica/engine/engine_int.h"

/* ---- the prefix ---- */
/* The last token is always computed, for its logits; so is the one before each token whose log-probability is to be
 * told. */
static uint32_t pages_to_find(const struct seq *seq)
{
    const struct weir_session *ses = seq->session;
    const struct weir_session_params *p = &ses->params;
    uint32_t n_max = (ses->tell_from < p->n_prompt ? ses->tell_from : seq->n_tokens) - 1;

    if (p->has_cache_max && p->cache_max < n_max)
        n_max = p->cache_max;
    return n_max / WEIR_KV_BLOCK;
}

void admit_find_prefix(struct weir_engine *eng, struct seq *seq)
{
    uint32_t n_max = pages_to_find(seq);

    seq->chain = kv_root(seq->session->params.cache_salt);
    while (seq->n_pages < n_max) {
        const int32_t *tokens = seq->tokens + (size_t)seq->n_pages * WEIR_KV_BLOCK;
        int32_t page = kv_find(&eng->kv, seq->chain, tokens);
        if (page < 0)
            break;
        seq_table(seq)[seq->n_pages++] = page;
        seq->chain = kv_next(seq->chain, tokens);
    }
    seq->n_named = seq->n_pages;
    seq->n_computed = seq->n_pages * WEIR_KV_BLOCK;
}

void admit_share_prompt(struct weir_engine *eng, struct seq *seq)
{
    struct weir_session *ses = seq->session;
    uint32_t n_shared = ses->params.n_prompt / WEIR_KV_BLOCK, i = 0;

    while (i < ses->params.n_choices && ses->seqs[i].state != SEQ_DECODE)
        i++;
    if (i == ses->params.n_choices)
        return;
    while (seq->n_pages < n_shared) { /* whatever the cache may keep: the worst case counts on it */
        int32_t page = seq_table(&ses->seqs[i])[seq->n_pages];
        kv_hold(&eng->kv, page);
        seq->chain = kv_next(seq->chain, seq->tokens + (size_t)seq->n_pages * WEIR_KV_BLOCK);
        seq_table(seq)[seq->n_pages++] = page;
    }
    seq->n_named = seq->n_pages;
    seq->n_computed = seq->n_pages * WEIR_KV_BLOCK;
}

uint32_t admit_n_uncached(struct weir_engine *eng, const struct weir_session *ses)
{
    const struct seq *seq = &ses->seqs[0];
    struct kv_name chain = kv_root(ses->params.cache_salt);
    uint32_t n = 0, n_max = pages_to_find(seq);

    for (; n < n_max && kv_has(&eng->kv, chain, seq->tokens + (size_t)n * WEIR_KV_BLOCK); n++)
        chain = kv_next(chain, seq->tokens + (size_t)n * WEIR_KV_BLOCK);
    return seq->n_tokens - n * WEIR_KV_BLOCK;
}

/* ---- those who compute the same [A4] ---- */
static uint32_t n_common_pages(const struct weir_session *ses, const struct weir_session *other,
                               uint32_t n_max)
{
    size_t page_bytes = WEIR_KV_BLOCK * sizeof(int32_t);
    uint32_t n = 0, n_other = other->params.n_prompt / WEIR_KV_BLOCK;

    n_max = n_max < n_other ? n_max : n_other;
    while (n < n_max && memcmp((const char *)ses->tokens + n * page_bytes,
                               (const char *)other->tokens + n * page_bytes, page_bytes) == 0)
        n++;
    return n;
}

static bool may_lead(const struct weir_session *ses, const struct weir_session *other)
{
    const struct weir_session_params *p = &other->params;

    return other != ses && !other->awaits && other->seqs[0].state == SEQ_PROMPT &&
           !(p->has_cache_max && p->cache_max == 0) && p->cache_salt.len == ses->params.cache_salt.len &&
           memcmp(p->cache_salt.ptr, ses->params.cache_salt.ptr, p->cache_salt.len) == 0;
}

/* The running session that will have most of this one's prompt, when that is more than is there. */
static void find_leader(struct weir_engine *eng, struct weir_session *ses)
{
    uint32_t n_max = pages_to_find(&ses->seqs[0]), n_best = ses->seqs[0].n_pages;

    ses->leader = NULL;
    for (struct weir_session *other = eng->running.first; other; other = other->next) {
        if (!may_lead(ses, other))
            continue;
        uint32_t n = n_common_pages(ses, other, n_max);
        if (n > n_best) {
            n_best = n;
            ses->leader = other;
        }
    }
    ses->awaits = ses->leader != NULL;
    ses->n_awaited = n_best * WEIR_KV_BLOCK;
}

void admit_leader_gone(struct weir_engine *eng, const struct weir_session *leader)
{
    for (struct weir_session *ses = eng->running.first; ses; ses = ses->next)
        if (ses->leader == leader)
            ses->leader = NULL;
}

/* ---- starting ---- */
static void drop_prefix(struct weir_engine *eng, struct seq *seq)
{
    while (seq->n_pages > 0)
        kv_drop(&eng->kv, seq_table(seq)[--seq->n_pages]);
    seq->n_named = seq->n_computed = 0;
}

static void start(struct weir_engine *eng, struct weir_session *ses, uint64_t now_ns)
{
    struct weir_engine_event *ev = event_add(eng, WEIR_EV_STARTED, ses, 0);

    ses->seqs[0].state = SEQ_PROMPT;
    ev->cached_tokens = ses->seqs[0].n_computed;
    ev->queue_ns = now_ns - ses->arrived_ns;
    if (ses->params.n_prompt_logprobs >= ses->params.n_prompt) { /* nothing comes before the first */
        ev = event_add(eng, WEIR_EV_PROMPT, ses, 0);
        ev->id = ses->seqs[0].tokens[0];
        ev->logprob = NAN;
    }
}

/* The prefix has been looked up: starts, or waits for more of it. */
static void start_or_await(struct weir_engine *eng, struct weir_session *ses, uint64_t now_ns)
{
    find_leader(eng, ses);
    if (ses->awaits)
        drop_prefix(eng, &ses->seqs[0]);
    else
        start(eng, ses, now_ns);
}

static void wake(struct weir_engine *eng, uint64_t now_ns)
{
    for (struct weir_session *ses = eng->running.first; ses; ses = ses->next) {
        if (!ses->awaits || ses->n_live == 0)
            continue;
        const struct seq *leader = ses->leader ? &ses->leader->seqs[0] : NULL;
        if (leader && leader->state == SEQ_PROMPT && leader->n_computed < ses->n_awaited)
            continue;
        admit_find_prefix(eng, &ses->seqs[0]);
        start_or_await(eng, ses, now_ns);
    }
}

/* ---- room ---- */
static uint32_t n_pages_held(const struct weir_session *ses)
{
    uint32_t n_shared = ses->params.n_prompt / WEIR_KV_BLOCK, n = 0, n_sharing = 0;

    for (uint32_t i = 0; i < ses->params.n_choices; i++) {
        n += ses->seqs[i].n_pages;
        n_sharing += ses->seqs[i].n_pages >= n_shared && ses->seqs[i].n_pages > 0;
    }
    return n - (n_sharing > 1 ? (n_sharing - 1) * n_shared : 0); /* [A3] */
}

/* Pages that admission reckons it will still take. */
static uint32_t n_pages_to_come(const struct weir_session *ses)
{
    const struct weir_session_params *p = &ses->params;
    uint32_t n_out = p->max_tokens < ses->n_output_room ? p->max_tokens : ses->n_output_room;
    uint32_t whole = pages_for(p->n_prompt + n_out), own = whole - p->n_prompt / WEIR_KV_BLOCK;
    uint32_t held = n_pages_held(ses);
    uint32_t n = ses->n_live ? whole + (ses->n_live - 1) * own : 0;

    return n > held ? n - held : 0;
}

static bool has_room(const struct weir_engine *eng, const struct weir_session *ses)
{
    uint64_t n = n_pages_to_come(ses);

    for (const struct weir_session *other = eng->running.first; other; other = other->next)
        n += n_pages_to_come(other);
    return n <= kv_n_left(&eng->kv);
}

/* ---- places ---- */
static void take_slot(struct weir_engine *eng, struct seq *seq)
{
    uint32_t i = 0;

    while (eng->slots[i])
        i++;
    eng->slots[i] = seq;
    eng->n_slots_free--;
    seq->i_slot = (int32_t)i;
}

/* Slots, and what the cache has; false, and as it was: not now. */
static bool place(struct weir_engine *eng, struct weir_session *ses)
{
    struct seq *first = NULL;

    if (ses->n_live > eng->n_slots_free)
        return false;
    for (uint32_t i = 0; i < ses->params.n_choices; i++)
        if (ses->seqs[i].state != SEQ_DONE) {
            take_slot(eng, &ses->seqs[i]);
            first = first ? first : &ses->seqs[i];
        }
    if (first)
        admit_find_prefix(eng, first);
    if (has_room(eng, ses))
        return true;
    for (uint32_t i = 0; i < ses->params.n_choices; i++)
        seq_drop_pages(&ses->seqs[i]);
    return false;
}

static void enter(struct weir_engine *eng, struct weir_session *ses)
{
    ses->place = PLACE_RUNNING;
    if (ses->n_live > 0)
        ses->owner = kv_owner_ref(&eng->kv, ses->params.account);
    list_insert_session(&eng->running, ses);
}

static bool admit_new(struct weir_engine *eng, struct weir_session *ses, uint64_t now_ns)
{
    ses->n_output_room = (uint32_t)eng->n_output_mean + WEIR_KV_BLOCK;
    if (!place(eng, ses))
        return false;
    ses->order = ++eng->n_started;
    enter(eng, ses);
    uint32_t n_cached = ses->seqs[0].n_computed;
    start_or_await(eng, ses, now_ns);
    if (ses->awaits)
        n_cached = ses->n_awaited;
    fair_take(&eng->waiting, &ses->wait, ses->params.n_prompt - n_cached);
    return true;
}

static bool admit_again(struct weir_engine *eng, struct weir_session *ses)
{
    if (!place(eng, ses))
        return false;
    list_remove_session(&eng->suspended, ses);
    enter(eng, ses);
    return true;
}

void admit_all(struct weir_engine *eng, uint64_t now_ns)
{
    bool more = true;

    wake(eng, now_ns);
    while (more) {
        struct fair_item *item = fair_peek(&eng->waiting, now_ns, eng->starve_ns);
        struct weir_session *back = eng->suspended.first;
        bool starves = back && now_ns > back->since_ns && now_ns - back->since_ns >= eng->starve_ns;
        if (back && (!item || starves || item->class >= back->params.priority)) /* [A1] */
            more = admit_again(eng, back);
        else /* [A2] */
            more =
                item && admit_new(eng, (void *)((char *)item - offsetof(struct weir_session, wait)), now_ns);
    }
}
