/* fair.c - see fair.h.
 *
 *   [F1] A lower class goes first; within one account the order of arrival holds. [F2] Two accounts that always have
 * something waiting start the same number of tokens, to within a quantum and the largest request. [F3] Nobody waits
 * longer than the starvation age and those who did so before. [F4] An account is remembered only while it waits.
 * Cost: constant for arriving, leaving and starting, but for turns given: one for each quantum of tokens started. */
#include "replica/engine/fair.h"

#include "base/hash.h"
#include "base/mem.h"

/* ---- accounts ---- */
static struct fair_account **find(struct fair *fair, uint64_t name)
{
    struct fair_account **at = &fair->buckets[name % FAIR_BUCKETS];

    while (*at && (*at)->name != name)
        at = &(*at)->next_in_bucket;
    return at;
}

/* Behind everybody of the class: just before the one whose turn it is. */
static void enter_ring(struct fair *fair, struct fair_account *account)
{
    struct fair_account **turn = &fair->turns[account->class];

    if (!*turn) {
        account->next = account->prev = account;
        *turn = account;
        return;
    }
    account->next = *turn;
    account->prev = (*turn)->prev;
    account->prev->next = account;
    account->next->prev = account;
}

static void leave_ring(struct fair *fair, struct fair_account *account)
{
    struct fair_account **turn = &fair->turns[account->class];

    account->prev->next = account->next;
    account->next->prev = account->prev;
    if (*turn == account)
        *turn = account->next == account ? NULL : account->next;
}

static struct fair_account *get_account(struct fair *fair, uint32_t class, struct weir_str account)
{
    uint64_t name = weir_hash64(account.ptr, account.len, class);
    struct fair_account **at = find(fair, name);

    if (*at)
        return *at;
    *at = weir_alloc0(sizeof **at);
    if (!*at)
        return NULL;
    (*at)->name = name;
    (*at)->class = class;
    enter_ring(fair, *at);
    return *at;
}

static void forget_if_empty(struct fair *fair, struct fair_account *account) /* [F4] */
{
    if (account->first)
        return;
    struct fair_account **at = find(fair, account->name);
    *at = account->next_in_bucket;
    leave_ring(fair, account);
    weir_free(account);
}

/* ---- items ---- */
weir_err fair_push(struct fair *fair, struct fair_item *item, struct weir_str name, struct weir_why *why)
{
    struct fair_account *account = get_account(fair, item->class, name);

    if (!account)
        return weir_fail(why, WEIR_NOMEM, "no memory for the queue");
    item->account = account;
    item->prev = account->last;
    item->next = NULL;
    *(account->last ? &account->last->next : &account->first) = item;
    account->last = item;
    item->older = fair->newest;
    item->newer = NULL;
    *(fair->newest ? &fair->newest->newer : &fair->oldest) = item;
    fair->newest = item;
    fair->n++;
    fair->n_tokens += item->cost;
    return WEIR_OK;
}

struct fair_item *fair_peek(struct fair *fair, uint64_t now_ns, uint64_t starve_ns)
{
    uint32_t class = 0;

    if (fair->oldest && now_ns > fair->oldest->since_ns && now_ns - fair->oldest->since_ns >= starve_ns)
        return fair->oldest; /* [F3] */
    while (class < FAIR_CLASSES && !fair->turns[class])
        class ++;
    if (class == FAIR_CLASSES)
        return NULL;
    for (;;) {
        struct fair_account *account = fair->turns[class];
        if (account->deficit >= account->first->cost)
            return account->first;
        account->deficit += FAIR_QUANTUM;
        fair->turns[class] = account->next; /* [F2] */
    }
}

void fair_remove(struct fair *fair, struct fair_item *item)
{
    struct fair_account *account = item->account;

    *(item->prev ? &item->prev->next : &account->first) = item->next;
    *(item->next ? &item->next->prev : &account->last) = item->prev;
    *(item->older ? &item->older->newer : &fair->oldest) = item->newer;
    *(item->newer ? &item->newer->older : &fair->newest) = item->older;
    item->account = NULL;
    fair->n--;
    fair->n_tokens -= item->cost;
    forget_if_empty(fair, account);
}

void fair_take(struct fair *fair, struct fair_item *item, uint32_t cost)
{
    item->account->deficit -= cost;
    fair_remove(fair, item);
}
