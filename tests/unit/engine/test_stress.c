/* test_stress.c - ten thousand random requests, stepped, stopped, closed, out of memory, suspended: the books balance
 * after each action, and every page is free or cached at the end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "replica/engine/engine_int.h"
#include "tests/unit/engine/run.h"

enum { N_OPENED = 10000, N_REQUESTS = 24, N_VOCAB = 31, N_SLOTS = 6 };

static uint64_t random_state = 42;

static uint32_t below(uint32_t n)
{
    random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(random_state >> 33) % n;
}

/* Every page is held as often as tables name it; nothing promised is more than the pool; slots are counted. */
static void check_books(const struct weir_engine *eng)
{
    static uint32_t refs[4096];
    uint32_t n_used = 0;

    memset(refs, 0, eng->kv.n_pages * sizeof *refs);
    for (uint32_t i = 0; i < eng->opts.n_slots; i++) {
        struct seq *seq = eng->slots[i];
        if (!seq)
            continue;
        n_used++;
        assert_int_equal(seq->i_slot, i);
        for (uint32_t k = 0; k < seq->n_pages; k++)
            refs[seq_table(seq)[k]]++;
    }
    assert_int_equal(n_used + eng->n_slots_free, eng->opts.n_slots);
    for (uint32_t i = 0; i < eng->kv.n_pages; i++)
        assert_int_equal(refs[i], eng->kv.pages[i].refs);
}

static void open_random(struct weir_engine *eng, struct run_request *r)
{
    static const char *const salts[] = { "", "a", "b" };
    struct weir_why why;
    bool is_short_of_memory = below(20) == 0;

    run_request_init(r, below(4), N_VOCAB, 1 + below(90), 1 + below(30)); /* few seeds: prefixes are shared */
    r->params.n_choices = below(4) ? 1 : 1 + below(3);
    r->params.temperature = below(2);
    r->params.priority = below(3);
    r->params.cache_salt = weir_str(salts[below(3)]);
    r->params.account = r->params.cache_salt;
    r->params.n_prompt_logprobs = below(8) ? 0 : below(40);
    r->params.has_cache_max = below(6) == 0;
    r->params.cache_max = below(2) * 20;
    r->params.user = r;
    weir_test_alloc_budget(is_short_of_memory ? (long)below(8) : -1);
    weir_err err = weir_session_open(eng, &r->params, 1000, &r->session, &why);
    weir_test_alloc_budget(-1);
    if (is_short_of_memory && err == WEIR_NOMEM)
        r->session = NULL;
    else
        assert_true(err == WEIR_OK || err == WEIR_FULL || err == WEIR_INVALID); /* the pool is small */
    if (err != WEIR_OK)
        r->session = NULL;
}

static void test_random_lives(void **state)
{
    struct tiny_shape shape = { .n_layer = 1,
                                .n_head = 2,
                                .n_kv_head = 1,
                                .d_head = 4,
                                .d_model = 16,
                                .d_ffn = 16,
                                .n_vocab = N_VOCAB,
                                .n_context = 128,
                                .tied = true,
                                .dtype = "F32",
                                .more = "\"eos_token_id\":3,",
                                .seed = 2 };
    struct run_request *requests = calloc(N_REQUESTS, sizeof *requests);
    char dir[TINY_DIR_MAX];
    int n_ended = 0, n_tokens = 0, n_cached = 0, n_suspended = 0, n_opened = 0;

    (void)state;
    tiny_model_write(dir, &shape);
    struct weir_engine *eng = run_open(dir, &(struct weir_engine_opts){ .n_slots = N_SLOTS,
                                                                        .n_queue_max = 8,
                                                                        .step_tokens = 32,
                                                                        .n_threads = 2,
                                                                        .kv_bytes = 20 * 16 * 2 * 4 * 2 });
    assert_int_equal(eng->kv.n_pages, 20);
    while (n_opened < N_OPENED) {
        struct run_request *r = &requests[below(N_REQUESTS)];
        uint32_t action = below(10);
        if (action < 5) {
            struct weir_engine_step step = run_step(eng);
            n_tokens += (int)(step.n_prefill + step.n_decode);
        } else if (!r->session) {
            open_random(eng, r);
            n_opened += r->session != NULL;
            eng->n_output_mean = 1; /* admission expects little, so that the pool runs dry */
        } else if (run_done(r) || action == 9) {
            n_ended += run_done(r);
            n_cached += r->cached_tokens > 0;
            weir_session_close(r->session);
            r->session = NULL;
        } else if (action == 8) {
            uint32_t choice = below(3);
            weir_session_stop_choice(r->session, choice);
            if (choice < r->params.n_choices && r->session->seqs[choice].state == SEQ_DONE)
                r->choices[choice].n_finished = 1;
        }
        n_suspended += eng->suspended.n > 0;
        check_books(eng);
    }
    print_message("%d ended, %d from the cache, %d tokens, suspended after %d actions\n", n_ended, n_cached,
                  n_tokens, n_suspended);
    assert_true(n_ended > 1000 && n_cached > 500 && n_tokens > 50000 && n_suspended > 500); /* it did work */
    for (int i = 0; i < N_REQUESTS; i++)
        weir_session_close(requests[i].session);
    run_idle(eng);
    weir_engine_close(eng);
    tiny_model_remove(dir);
    free(requests);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_random_lives) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
