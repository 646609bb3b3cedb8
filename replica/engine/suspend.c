/* suspend.c - room for those that run, when the pool is dry: the youngest of the lowest class gives up its pages.
 *
 * Its tokens stay; it computes them again when there is room, and by the bit law goes on as if nothing had been.
 *   [U1] The oldest that computes is never suspended, and always has a page: it finishes, and then the next is the
 * oldest. [U2] Nothing is suspended to let another start. */
#include "replica/engine/engine_int.h"

static bool computes(const struct weir_session *ses)
{
    return ses->n_live > 0 && !ses->awaits;
}

/* Pages that the next token of everybody who decodes needs, and the oldest's next piece of a prompt. */
static uint32_t n_pages_needed(const struct weir_engine *eng)
{
    bool is_oldest = true;
    uint32_t n = 0;

    for (const struct weir_session *ses = eng->running.first; ses; ses = ses->next) {
        if (!computes(ses))
            continue;
        for (uint32_t i = 0; i < ses->params.n_choices; i++) {
            const struct seq *seq = &ses->seqs[i];
            bool is_filling = seq->state == SEQ_PROMPT || seq->state == SEQ_REFILL;
            if (seq_decodes(seq) || (is_oldest && is_filling))
                n += seq->n_computed / WEIR_KV_BLOCK == seq->n_pages;
            if (is_oldest && seq->state == SEQ_PROMPT)
                n += ses->params.n_choices - 1; /* copies of its last page */
        }
        is_oldest = false;
    }
    return n;
}

/* [U1]; NULL: there is nobody else who holds anything. */
static struct weir_session *choose_victim(struct weir_engine *eng)
{
    struct weir_session *oldest = eng->running.first, *victim = NULL;

    while (oldest && !computes(oldest))
        oldest = oldest->next;
    for (struct weir_session *ses = eng->running.last; ses && ses != oldest; ses = ses->prev)
        if (computes(ses) && (!victim || ses->params.priority > victim->params.priority))
            victim = ses;
    return victim;
}

static void suspend(struct weir_engine *eng, struct weir_session *ses, uint64_t now_ns)
{
    WEIR_BUG_ON(eng->flight.flies); /* [O1]: whose token is on its way would lose it */
    for (uint32_t i = 0; i < ses->params.n_choices; i++) {
        struct seq *seq = &ses->seqs[i];
        seq_drop_pages(seq);
        if (seq->state == SEQ_DECODE)
            seq->state = SEQ_REFILL;
    }
    session_disown(ses);
    ses->n_output_room = UINT32_MAX; /* it goes on when its worst case fits: once is enough */
    ses->since_ns = now_ns;
    ses->place = PLACE_SUSPENDED;
    list_remove_session(&eng->running, ses);
    list_insert_session(&eng->suspended, ses);
    admit_leader_gone(eng, ses);
}

bool suspend_is_due(const struct weir_engine *eng)
{
    return n_pages_needed(eng) > kv_n_left(&eng->kv);
}

void suspend_for_room(struct weir_engine *eng, uint64_t now_ns)
{
    while (suspend_is_due(eng)) {
        struct weir_session *victim = choose_victim(eng);
        if (!victim)
            return;
        suspend(eng, victim, now_ns);
    }
}
