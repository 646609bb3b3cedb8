/* test_frame.c - registers as bytes and back, their size, and what a hostile peer may send. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "base/hash.h"
#include "router/mesh/frame.h"

static uint64_t random_state = 1;

static uint64_t draw(uint64_t below)
{
    random_state = weir_hash_mix(random_state, 1);
    return random_state % below;
}

static struct reg_news random_news(bool full)
{
    struct reg_news n = { .key = draw(1ull << 56),
                          .seq = draw(1000),
                          .origin_ms = draw(1u << 30),
                          .full = full,
                          .generation = (uint32_t)draw(1u << 20),
                          .is_account = draw(3) == 0,
                          .has_clock = draw(2) == 0 };

    n.demand = (double)draw(1000000);
    int n_meters = n.is_account ? 1 : WEIR_ADAPTIVE;
    for (int i = 0; i < n_meters; i++) {
        n.used[i] = draw(4) ? draw(1ull << draw(50)) : 0;
        n.held[i] = draw(2) ? draw(1u << 20) : 0;
        if (n.has_clock) {
            n.clock_s[i] = (double)draw(7200);
            n.limit_s[i] = (double)draw(1u << 20) / 60;
        }
    }
    for (int i = 0; full && i < (n.is_account ? 1 : LEVELS); i++)
        n.level[i] = (double)draw(1u << 30);
    return n;
}

static void check_equal(const struct reg_news *a, const struct reg_news *b)
{
    assert_true(a->key == b->key && a->seq == b->seq && a->origin_ms == b->origin_ms);
    assert_true(a->generation == b->generation && a->is_account == b->is_account && a->full == b->full);
    assert_true(a->has_clock == b->has_clock);
    assert_memory_equal(a->used, b->used, sizeof a->used);
    for (int i = 0; i < WEIR_ADAPTIVE; i++)
        assert_true(b->held[i] == (a->held[i] < 4096 ? a->held[i] : (a->held[i] + 15) / 16 * 16));
    assert_true(fabs(log2(1 + a->demand) - log2(1 + b->demand)) <
                0.13); /* it is told in an eighth of an octave */
    for (int i = 0; i < LEVELS; i++)
        assert_true(fabs(a->level[i] - b->level[i]) <= 0.5);
    for (int i = 0; i < WEIR_ADAPTIVE; i++) {
        assert_true(fabs(a->clock_s[i] - b->clock_s[i]) <= 0.5);
        assert_true(fabs(a->limit_s[i] - b->limit_s[i]) <= 0.01);
    }
}

static void test_there_and_back(void **state)
{
    enum { N = 40 };
    struct reg_news news[N], got;
    uint64_t origins[N];
    struct frame_writer w;
    struct frame_reader r;

    (void)state;
    frame_init(&w);
    for (int round = 0; round < 500; round++) {
        bool full = round % 2;
        frame_begin(&w, (uint64_t)round, full, 1u << 20);
        for (int i = 0; i < N; i++) {
            news[i] = random_news(full);
            origins[i] = i > 0 && draw(2) ? origins[i - 1] : draw(5);
            assert_true(frame_add(&w, origins[i], &news[i]));
        }
        struct weir_str bytes = frame_end(&w);
        assert_true(frame_open(&r, bytes));
        assert_int_equal(r.round, round);
        for (int i = 0; i < N; i++) {
            assert_true(frame_next(&r, &got));
            assert_true(r.origin == origins[i]);
            check_equal(&news[i], &got);
        }
        assert_false(frame_next(&r, &got));
        assert_false(r.bad);
    }
    frame_release(&w);
}

/* A key that is busy on all meters for hours. */
static void test_size(void **state)
{
    struct frame_writer w;

    (void)state;
    frame_init(&w);
    frame_begin(&w, 100000, false, 1u << 20);
    for (int i = 0; i < 1000; i++) {
        struct reg_news n = { .key = draw(1ull << 56),
                              .seq = 100000,
                              .origin_ms = 20000000,
                              .generation = 12345,
                              .used = { 216000000 + draw(1000000), 54000000, 2100000 },
                              .held = { 100000, 80000, 60000 },
                              .demand = 75600 };
        assert_true(frame_add(&w, 7, &n));
    }
    assert_true(frame_end(&w).len <= 32 * 1000);
    frame_release(&w);
}

static void test_no_room(void **state)
{
    struct frame_writer w;
    int n = 0;

    (void)state;
    frame_init(&w);
    frame_begin(&w, 1, false, 512);
    for (;; n++) {
        struct reg_news news = random_news(false);
        if (!frame_add(&w, 7, &news))
            break;
    }
    assert_true(n > 5);
    assert_true(frame_end(&w).len <= 512);
    frame_release(&w);
}

/* [G3] Cut anywhere, or with bits turned: refused, or read to its end; never more than it holds. */
static void test_hostile(void **state)
{
    struct frame_writer w;
    struct frame_reader r;
    struct reg_news got;

    (void)state;
    frame_init(&w);
    frame_begin(&w, 5, true, 1u << 20);
    for (int i = 0; i < 5; i++) {
        struct reg_news news = random_news(true);
        news.seq = news.origin_ms = 3; /* one section: it says how many there are */
        frame_add(&w, 9, &news);
    }
    struct weir_str whole = frame_end(&w);
    for (size_t len = 0; len < whole.len; len++) {
        char *copy = malloc(len + 1); /* so that a sanitizer sees what is read past it */
        memcpy(copy, whole.ptr, len);
        bool open = frame_open(&r, (struct weir_str){ copy, len });
        while (open && frame_next(&r, &got))
            ;
        assert_true(!open || r.bad || r.left == 0);
        if (len > 20)
            assert_true(r.bad);
        for (int k = 0; k < 50 && len > 0; k++) {
            copy[draw(len)] ^= (char)(1 << draw(8));
            open = frame_open(&r, (struct weir_str){ copy, len });
            for (int n = 0; open && frame_next(&r, &got); n++)
                assert_true(n < 1000);
        }
        free(copy);
    }
    assert_false(frame_open(&r, WEIR_STR("\x02\x01")));
    frame_release(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_there_and_back),
        cmocka_unit_test(test_size),
        cmocka_unit_test(test_no_room),
        cmocka_unit_test(test_hostile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
