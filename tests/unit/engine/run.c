/* run.c - see run.h. */
#include "tests/unit/engine/run.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "replica/engine/engine_int.h"

static int n_started;

struct weir_engine *run_open(const char *dir, const struct weir_engine_opts *wanted)
{
    struct weir_engine_opts opts = *wanted;
    struct weir_engine *eng = NULL;
    struct weir_why why = { 0 };

    opts.model_dir = dir;
    opts.backend = "cpu";
    opts.n_threads = opts.n_threads ? opts.n_threads : 1;
    opts.n_slots = opts.n_slots ? opts.n_slots : 4;
    opts.n_queue_max = opts.n_queue_max ? opts.n_queue_max : 64;
    if (weir_engine_open(&opts, &eng, &why) != WEIR_OK)
        fail_msg("%s", why.text);
    return eng;
}

void run_request_init(struct run_request *r, uint64_t seed, uint32_t n_vocab, uint32_t n_prompt,
                      uint32_t max_tokens)
{
    memset(r, 0, sizeof *r);
    assert_true(n_prompt <= RUN_PROMPT_MAX && max_tokens <= RUN_TOKENS_MAX);
    for (uint32_t i = 0; i < n_prompt; i++)
        r->prompt[i] = (int32_t)(weir_hash_mix(seed, i) % n_vocab);
    r->params = (struct weir_session_params){
        .prompt = r->prompt,
        .n_prompt = n_prompt,
        .n_choices = 1,
        .max_tokens = max_tokens,
        .seed = seed,
        .top_p = 1,
        .logprobs = true,
        .n_top_logprobs = RUN_TOPS,
        .cache_salt = { "", 0 },
    };
}

void run_submit(struct weir_engine *eng, struct run_request *r)
{
    struct weir_why why = { 0 };

    r->params.user = r;
    if (weir_session_open(eng, &r->params, /* now_ns= */ 1000, &r->session, &why) != WEIR_OK)
        fail_msg("%s", why.text);
}

static void take_token(struct run_choice *c, const struct weir_engine_event *ev,
                       const struct weir_session_params *p)
{
    assert_true(c->n < RUN_TOKENS_MAX);
    c->ids[c->n] = ev->id;
    c->logprobs[c->n] = ev->logprob;
    if (p->logprobs) {
        memcpy(c->tops[c->n], ev->top, (size_t)p->n_top_logprobs * sizeof *ev->top);
        assert_true(ev->logprob <= 0 && (p->n_top_logprobs == 0 || ev->logprob <= ev->top[0].logprob));
    }
    c->n++;
}

static void take_event(const struct weir_engine_event *ev)
{
    struct run_request *r = weir_session_user(ev->session);
    struct run_choice *c = &r->choices[ev->choice];

    assert_ptr_equal(ev->session, r->session);
    assert_true(ev->choice < r->params.n_choices);
    if (ev->kind == WEIR_EV_STARTED) {
        assert_int_equal(r->n_started++, 0);
        r->started_as = n_started++;
        r->cached_tokens = ev->cached_tokens;
        assert_int_equal(ev->queue_ns, 500);
        return;
    }
    assert_int_equal(r->n_started, 1);
    assert_int_equal(c->n_finished, 0); /* [N2] */
    if (ev->kind == WEIR_EV_PROMPT) {
        assert_int_equal(c->n, 0);
        assert_true(r->n_told < RUN_PROMPT_MAX);
        r->told_ids[r->n_told] = ev->id;
        r->told[r->n_told++] = ev->logprob;
        return;
    }
    if (ev->kind == WEIR_EV_TOKEN)
        take_token(c, ev, &r->params);
    else {
        c->n_finished++;
        c->finish = ev->finish;
    }
}

struct weir_engine_step run_step(struct weir_engine *eng)
{
    struct weir_engine_step step;
    struct weir_why why;

    assert_int_equal(weir_engine_step(eng, /* now_ns= */ 1500, &step, &why), WEIR_OK);
    for (int i = 0; i < step.n_events; i++)
        take_event(&step.events[i]);
    return step;
}

bool run_done(const struct run_request *r)
{
    for (uint32_t i = 0; i < r->params.n_choices; i++)
        if (r->choices[i].n_finished == 0)
            return false;
    return true;
}

static int close_done(struct run_request *requests, int n)
{
    int left = 0;

    for (int i = 0; i < n; i++) {
        if (requests[i].session && run_done(&requests[i])) {
            weir_session_close(requests[i].session);
            requests[i].session = NULL;
        }
        left += requests[i].session != NULL;
    }
    return left;
}

void run_all(struct weir_engine *eng, struct run_request *requests, int n)
{
    for (int steps = 0; close_done(requests, n) > 0; steps++) {
        assert_true(steps < 100000 && weir_engine_has_work(eng));
        run_step(eng);
    }
}

void run_one(struct weir_engine *eng, struct run_request *r)
{
    run_submit(eng, r);
    run_all(eng, r, 1);
}

void run_same(const struct run_choice *a, const struct run_choice *b)
{
    assert_int_equal(a->n, b->n);
    assert_int_equal(a->finish, b->finish);
    assert_memory_equal(a->ids, b->ids, (size_t)a->n * sizeof *a->ids);
    assert_memory_equal(a->logprobs, b->logprobs, (size_t)a->n * sizeof *a->logprobs);
    assert_memory_equal(a->tops, b->tops, (size_t)a->n * sizeof *a->tops);
}

void run_idle(struct weir_engine *eng)
{
    struct weir_engine_load load;

    weir_engine_load(eng, &load);
    assert_int_equal(kv_n_held(&eng->kv), 0);
    assert_int_equal(load.kv_blocks_used, 0);
    assert_int_equal(load.n_running, 0);
    assert_int_equal(load.n_waiting, 0);
    assert_int_equal(load.queued_tokens, 0);
    assert_int_equal(eng->suspended.n, 0);
    assert_int_equal(eng->n_slots_free, eng->opts.n_slots);
    assert_int_equal(eng->running.n, 0);
    for (uint32_t i = 0; i < eng->opts.n_slots; i++)
        assert_null(eng->slots[i]);
    assert_false(weir_engine_has_work(eng));
}
