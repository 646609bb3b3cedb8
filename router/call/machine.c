/* machine.c - the table, and the few functions that its cells name: see machine.h.
 *
 * Two tables: which event does what in which state, and which state may follow which. The second is checked
 * on every move, so that a cell that lies is found by the first test that reaches it. Events of an attempt
 * that was left never get here (the driver's tags die with the attempt). Not here: who is chosen (route),
 * time, I/O, the sink (callset.c).
 */
#include "router/call/machine.h"

#include <string.h>

/* What may follow what. [M1] is the three empty rows. */
#define BIT(state) (1u << (state))
#define ENDS (BIT(CALL_FAILED) | BIT(CALL_CANCELLED))
static const unsigned moves[CALL_STATES] = {
    [CALL_NEW] = BIT(CALL_SUBMITTED) | ENDS,
    [CALL_SUBMITTED] = BIT(CALL_ACCEPTED) | BIT(CALL_NEW) | ENDS,
    [CALL_ACCEPTED] = BIT(CALL_RUNNING) | BIT(CALL_NEW) | ENDS,
    [CALL_RUNNING] = BIT(CALL_DONE) | ENDS, /* [M3] */
};

static void move(struct call_machine *m, enum call_state to)
{
    WEIR_BUG_ON(!(moves[m->state] & BIT(to)));
    m->state = to;
}

const char *call_state_name(enum call_state state)
{
    static const char *const names[CALL_STATES] = { "new",  "submitted", "accepted", "running",
                                                    "done", "failed",    "cancelled" };
    return (unsigned)state < CALL_STATES ? names[state] : "unknown";
}

bool call_machine_is_over(const struct call_machine *m)
{
    return m->state >= CALL_DONE;
}

void call_machine_init(struct call_machine *m, uint32_t n_choices)
{
    memset(m, 0, sizeof *m);
    m->n_choices = n_choices;
}

/* ---- the retry budget ---- */
void call_budget_init(struct call_budget *budget, double share)
{
    *budget = (struct call_budget){ .tokens = CALL_BUDGET_BURST, .share = share };
}

void call_budget_earn(struct call_budget *budget)
{
    budget->tokens += budget->share;
    if (budget->tokens > CALL_BUDGET_BURST)
        budget->tokens = CALL_BUDGET_BURST;
}

bool call_budget_spend(struct call_budget *budget)
{
    if (budget->tokens < 1)
        return false;
    budget->tokens -= 1;
    return true;
}

/* ---- ends ---- */
struct step {
    struct call_machine *m;
    const struct call_event *ev;
    struct call_budget *budget;
    unsigned leave; /* CALL_DO_LEAVE or CALL_DO_CANCEL: how the present attempt is left */
};

static unsigned fail(struct call_machine *m, unsigned leave, weir_err err, const char *text)
{
    m->err = err;
    m->why.param[0] = '\0';
    weir_fail(&m->why, err, "%s", text);
    move(m, CALL_FAILED);
    return leave | CALL_SAY_FAILED | CALL_DO_CLOSE;
}

/* The attempt is over without a word to the client: another one, if that is still allowed. [M4] */
static unsigned again(struct step *s, enum call_retry retry)
{
    struct call_machine *m = s->m;

    m->n_losses += retry != CALL_RETRY_REJECTED;
    if (retry == CALL_RETRY_REJECTED &&
        (m->n_hops == CALL_HOPS_MAX || (!m->recovery && !call_budget_spend(s->budget))))
        return fail(m, s->leave, WEIR_OVERLOADED, "the replicas that were tried have no room; try again");
    if (m->n_hops == CALL_HOPS_MAX || m->n_losses == CALL_LOSSES_MAX)
        return fail(m, s->leave, WEIR_UPSTREAM, "the replicas that were tried broke off");
    m->n_hops++;
    m->attempt++;
    m->retry = retry;
    m->recovery = m->recovery || retry != CALL_RETRY_REJECTED;
    m->started_news = false;
    move(m, CALL_NEW);
    return s->leave | CALL_DO_PLACE;
}

/* The replica, or its stream, broke off. [M3] */
static unsigned broken(struct step *s, enum call_retry retry, const char *text)
{
    if (s->m->state == CALL_RUNNING)
        return fail(s->m, s->leave, WEIR_UPSTREAM, text);
    return again(s, retry);
}

/* ---- cells ---- */
static unsigned ignore(struct step *s)
{
    (void)s;
    return 0;
}

static unsigned violation(struct step *s) /* [M5] */
{
    s->leave = s->ev->kind == CALL_EV_TERMINAL ? CALL_DO_LEAVE : CALL_DO_CANCEL; /* [M6] */
    return CALL_NOTE_VIOLATION | broken(s, CALL_RETRY_FAILED, "the replica broke the protocol");
}

static unsigned placed(struct step *s)
{
    move(s->m, CALL_SUBMITTED);
    return 0;
}

static unsigned refused(struct step *s)
{
    struct call_machine *m = s->m;

    m->err = s->ev->refused.err;
    m->why = *s->ev->refused.why;
    m->retry_after_ms = s->ev->refused.retry_after_ms;
    move(m, CALL_FAILED);
    return CALL_SAY_FAILED | CALL_DO_CLOSE;
}

static unsigned accepted(struct step *s)
{
    s->m->prompt_tokens = s->ev->accepted->prompt_tokens;
    move(s->m, CALL_ACCEPTED);
    return 0;
}

static unsigned started(struct step *s)
{
    struct call_machine *m = s->m;

    if (m->started_news)
        return violation(s);
    m->started_news = true;
    m->cached_tokens = s->ev->started->cached_tokens;
    m->queue_ns = s->ev->started->queue_ns;
    return 0;
}

static unsigned delta(struct step *s)
{
    struct call_machine *m = s->m;
    const Weir__Fabric__V1__Delta *d = s->ev->delta;

    if (d->choice >= m->n_choices || (m->finished[d->choice / 64] >> d->choice % 64 & 1))
        return violation(s);
    m->n_ids += d->n_ids;
    m->ids[d->choice] += (uint32_t)d->n_ids;
    if (d->finish != WEIR__V1__FINISH_REASON__FINISH_NONE) {
        m->finished[d->choice / 64] |= 1ull << d->choice % 64;
        m->n_finished++;
    }
    if (m->state == CALL_RUNNING)
        return CALL_SAY_DELTA;
    move(m, CALL_RUNNING);
    return CALL_SAY_STARTED | CALL_SAY_DELTA; /* [M2] */
}

static unsigned done(struct step *s)
{
    struct call_machine *m = s->m;
    const Weir__Fabric__V1__Terminal *t = s->ev->terminal;

    if (m->state != CALL_RUNNING || m->n_finished != m->n_choices)
        return violation(s);
    m->done = (struct weir_call_done){
        .prompt_tokens = t->prompt_tokens,
        .cached_tokens = t->cached_tokens,
        .completion_tokens = t->completion_tokens,
        .queue_ns = t->queue_ns,
        .prefill_ns = t->prefill_ns,
        .generation_ns = t->generation_ns,
    };
    move(m, CALL_DONE);
    return CALL_DO_LEAVE | CALL_SAY_DONE | CALL_DO_CLOSE;
}

/* The client's fault, says the replica: any row of the table that is the client's fault may be named. */
static unsigned invalid(struct step *s)
{
    struct call_machine *m = s->m;
    const Weir__Fabric__V1__Terminal *t = s->ev->terminal;
    weir_err err = WEIR_INVALID;

    for (int i = 0; i < WEIR_ERR_COUNT; i++) {
        const struct weir_err_info *info = weir_err_info((weir_err)i);
        if (strcmp(info->name, t->code) == 0 && info->http >= 400 && info->http < 500)
            err = (weir_err)i;
    }
    fail(m, CALL_DO_LEAVE, err, t->message[0] ? t->message : weir_err_info(err)->text);
    size_t n = strnlen(t->param, sizeof m->why.param - 1);
    memcpy(m->why.param, t->param, n);
    m->why.param[n] = '\0';
    return CALL_DO_LEAVE | CALL_SAY_FAILED | CALL_DO_CLOSE;
}

static unsigned terminal(struct step *s)
{
    bool running = s->m->state == CALL_RUNNING;

    s->leave = CALL_DO_LEAVE;
    switch (s->ev->terminal->reason) {
    case WEIR__FABRIC__V1__TERMINAL_REASON__TERMINAL_DONE:
        return done(s);
    case WEIR__FABRIC__V1__TERMINAL_REASON__TERMINAL_REJECTED:
        return running ? violation(s) : again(s, CALL_RETRY_REJECTED);
    case WEIR__FABRIC__V1__TERMINAL_REASON__TERMINAL_INVALID:
        return running ? violation(s) : invalid(s);
    case WEIR__FABRIC__V1__TERMINAL_REASON__TERMINAL_FAILED:
        return broken(s, CALL_RETRY_FAILED, "the replica failed");
    case WEIR__FABRIC__V1__TERMINAL_REASON__TERMINAL_CUT:
        return broken(s, CALL_RETRY_FAILED, "the replica could not send its output");
    default: /* cancelled, which nobody asked for, and what this version does not know */
        return violation(s);
    }
}

static unsigned lost(struct step *s)
{
    s->leave = CALL_DO_LEAVE;
    return broken(s, CALL_RETRY_LOST, "the replica broke off");
}

static unsigned late(struct step *s)
{
    unsigned leave = s->m->state == CALL_NEW ? 0 : CALL_DO_CANCEL; /* [M6] */

    return fail(s->m, leave, WEIR_DEADLINE, "no replica sent a first token in time");
}

static unsigned cancel(struct step *s) /* also of a client that is too slow */
{
    unsigned leave = s->m->state == CALL_NEW ? 0 : CALL_DO_CANCEL; /* [M6] */

    move(s->m, CALL_CANCELLED);
    return leave | CALL_DO_CLOSE;
}

typedef unsigned cell(struct step *s);
static cell *const cells[CALL_STATES][CALL_EVENTS] = {
    /* NEW has no attempt out: nothing of a replica can reach it. */
    [CALL_NEW] = { [CALL_EV_PLACED] = placed,
                   [CALL_EV_REFUSED] = refused,
                   [CALL_EV_LATE] = late,
                   [CALL_EV_CANCEL] = cancel },
    [CALL_SUBMITTED] = { [CALL_EV_ACCEPTED] = accepted,
                         [CALL_EV_STARTED] = violation,
                         [CALL_EV_DELTA] = violation,
                         [CALL_EV_TERMINAL] = terminal,
                         [CALL_EV_LOST] = lost,
                         [CALL_EV_LATE] = late,
                         [CALL_EV_CANCEL] = cancel },
    [CALL_ACCEPTED] = { [CALL_EV_ACCEPTED] = violation,
                        [CALL_EV_STARTED] = started,
                        [CALL_EV_DELTA] = delta,
                        [CALL_EV_TERMINAL] = terminal,
                        [CALL_EV_LOST] = lost,
                        [CALL_EV_LATE] = late,
                        [CALL_EV_CANCEL] = cancel },
    [CALL_RUNNING] = { [CALL_EV_ACCEPTED] = violation,
                       [CALL_EV_STARTED] = violation,
                       [CALL_EV_DELTA] = delta,
                       [CALL_EV_TERMINAL] = terminal,
                       [CALL_EV_LOST] = lost,
                       [CALL_EV_SLOW] = cancel,
                       [CALL_EV_CANCEL] = cancel },
};

unsigned call_machine_step(struct call_machine *m, const struct call_event *ev, struct call_budget *budget)
{
    struct step s = { .m = m, .ev = ev, .budget = budget };
    cell *run = cells[m->state][ev->kind];

    return (run ? run : ignore)(&s);
}
