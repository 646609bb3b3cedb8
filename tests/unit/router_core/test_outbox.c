/* The outbox: what leaves in which frame. */
#include "tests/unit/router_core/cm.h"

#include <string.h>

#include "base/mem.h"
#include "router/fabric/outbox.h"
#include "weir/fabric/v1/fabric.pb-c.h"

static struct weir_outgoing *make(uint64_t tag, uint32_t len)
{
    struct weir_submit *submit = weir_alloc0(sizeof *submit + len + 1);
    uint8_t *data = (uint8_t *)(submit + 1);

    for (uint32_t i = 0; i < len; i++)
        data[i] = (uint8_t)(tag + i / 1000);
    submit->refs = 1;
    submit->account = "acme";
    submit->data = data;
    submit->len = len;
    submit->seed = 9;
    struct weir_outgoing *out = weir_outgoing_open(submit, tag, /* attempt= */ 2);
    weir_submit_unref(submit);
    return out;
}

static Weir__Fabric__V1__RouterFrame *next_frame(struct outbox *box)
{
    struct weir_buf buf;

    weir_buf_init(&buf, 0);
    assert_int_equal(outbox_next(box, &buf), WEIR_OK);
    Weir__Fabric__V1__RouterFrame *frame =
        weir__fabric__v1__router_frame__unpack(NULL, weir_buf_len(&buf), (const uint8_t *)weir_buf_ptr(&buf));
    assert_non_null(frame);
    weir_buf_release(&buf);
    return frame;
}

static void drop_frame(Weir__Fabric__V1__RouterFrame *frame)
{
    weir__fabric__v1__router_frame__free_unpacked(frame, NULL);
}

static void test_a_small_submit_is_one_begin(void **state)
{
    struct outbox box;
    struct weir_outgoing *out = make(5, 100);

    (void)state;
    outbox_init(&box, 1000);
    assert_int_equal(outbox_add(&box, out), WEIR_OK);
    Weir__Fabric__V1__RouterFrame *frame = next_frame(&box);
    assert_int_equal(frame->n_begins, 1);
    assert_int_equal(frame->n_chunks, 0);
    const Weir__Fabric__V1__Begin *begin = frame->begins[0];
    assert_int_equal(begin->tag, 5);
    assert_int_equal(begin->attempt, 2);
    assert_int_equal(begin->seed, 9);
    assert_int_equal(begin->total_bytes, 100);
    assert_int_equal(begin->data.len, 100);
    assert_string_equal(begin->account, "acme");
    assert_int_equal(begin->cache_salt.len, 32);
    drop_frame(frame);
    assert_true(outbox_is_empty(&box));
    assert_int_equal(box.bytes, 0);
    weir_outgoing_unref(out);
    outbox_release(&box);
}

/* [O1] A megabyte and, later, a small one: the small one leaves in the next frame, the pieces keep their
 * order. */
static void test_a_small_submit_overtakes_a_large_one(void **state)
{
    struct outbox box;
    struct weir_outgoing *large = make(1, 1 << 20), *small = make(2, 10);
    size_t got = 0;
    bool seen = false;

    (void)state;
    outbox_init(&box, 8 << 20);
    assert_int_equal(outbox_add(&box, large), WEIR_OK);
    for (int n = 0; !outbox_is_empty(&box); n++) {
        Weir__Fabric__V1__RouterFrame *frame = next_frame(&box);
        size_t bytes = 0;
        if (n == 0)
            assert_int_equal(outbox_add(&box, small), WEIR_OK);
        for (size_t i = 0; i < frame->n_begins; i++) {
            seen = seen || frame->begins[i]->tag == 2;
            bytes += frame->begins[i]->data.len;
            if (frame->begins[i]->tag == 1)
                got += frame->begins[i]->data.len;
        }
        for (size_t i = 0; i < frame->n_chunks; i++) {
            const Weir__Fabric__V1__Chunk *chunk = frame->chunks[i];
            assert_int_equal(chunk->tag, 1);
            assert_true(chunk->data.len <= WEIR_PIECE_MAX);
            assert_int_equal(chunk->data.data[0], (uint8_t)(1 + got / 1000)); /* in order */
            got += chunk->data.len;
            bytes += chunk->data.len;
        }
        assert_true(bytes <= WEIR_FRAME_BYTES_MAX + WEIR_PIECE_MAX); /* [O2] */
        if (n == 1)
            assert_true(seen);
        drop_frame(frame);
    }
    assert_int_equal(got, 1 << 20);
    weir_outgoing_unref(large);
    weir_outgoing_unref(small);
    outbox_release(&box);
}

/* [O3] */
static void test_the_bound_refuses_whole_submits(void **state)
{
    struct outbox box;
    struct weir_outgoing *a = make(1, 600), *b = make(2, 600), *c = make(3, 400);

    (void)state;
    outbox_init(&box, 1000);
    assert_int_equal(outbox_add(&box, a), WEIR_OK);
    assert_int_equal(outbox_add(&box, b), WEIR_FULL);
    assert_int_equal(outbox_add(&box, c), WEIR_OK);
    outbox_drop(&box, a);
    assert_int_equal(outbox_add(&box, b), WEIR_OK);
    outbox_clear(&box);
    assert_int_equal(box.bytes, 0);
    weir_outgoing_unref(a);
    weir_outgoing_unref(b);
    weir_outgoing_unref(c);
    outbox_release(&box);
}

static void test_cancels_come_first_and_only_for_what_left(void **state)
{
    struct outbox box;
    struct weir_outgoing *gone = make(1, 10), *half = make(2, 1 << 20), *unsent = make(3, 10),
                         *late = make(4, 10);

    (void)state;
    outbox_init(&box, 8 << 20);
    assert_int_equal(outbox_add(&box, gone), WEIR_OK);
    assert_int_equal(outbox_add(&box, half), WEIR_OK);
    drop_frame(next_frame(&box));
    assert_int_equal(outbox_add(&box, unsent), WEIR_OK);
    assert_int_equal(outbox_cancel(&box, gone), WEIR_OK);
    assert_int_equal(outbox_cancel(&box, half), WEIR_OK);
    assert_int_equal(outbox_cancel(&box, unsent), WEIR_OK); /* [O4] */
    assert_int_equal(outbox_add(&box, late), WEIR_OK);
    Weir__Fabric__V1__RouterFrame *frame = next_frame(&box);
    assert_int_equal(frame->n_cancels, 2);
    assert_int_equal(frame->cancels[0], 1);
    assert_int_equal(frame->cancels[1], 2);
    assert_int_equal(frame->n_begins, 1);
    assert_int_equal(frame->begins[0]->tag, 4);
    assert_int_equal(frame->n_chunks, 0);
    drop_frame(frame);
    assert_true(outbox_is_empty(&box));
    assert_int_equal(box.bytes, 0);
    weir_outgoing_unref(gone);
    weir_outgoing_unref(half);
    weir_outgoing_unref(unsent);
    weir_outgoing_unref(late);
    outbox_release(&box);
}

static void test_many_cancels_take_several_frames(void **state)
{
    enum { N = 3000 };
    static struct weir_outgoing *out[N];
    struct outbox box;
    uint64_t expected = 1;

    (void)state;
    outbox_init(&box, 8 << 20);
    for (uint64_t i = 0; i < N; i++) {
        out[i] = make(i + 1, 1);
        assert_int_equal(outbox_add(&box, out[i]), WEIR_OK);
    }
    while (!outbox_is_empty(&box))
        drop_frame(next_frame(&box));
    for (int i = 0; i < N; i++)
        assert_int_equal(outbox_cancel(&box, out[i]), WEIR_OK);
    while (!outbox_is_empty(&box)) {
        Weir__Fabric__V1__RouterFrame *frame = next_frame(&box);
        assert_true(frame->n_cancels <= WEIR_FRAME_CANCELS_MAX);
        for (size_t i = 0; i < frame->n_cancels; i++)
            assert_int_equal(frame->cancels[i], expected++);
        drop_frame(frame);
    }
    assert_int_equal(expected, N + 1);
    for (int i = 0; i < N; i++)
        weir_outgoing_unref(out[i]);
    outbox_release(&box);
}

static void test_no_memory_is_an_error_and_leaks_nothing(void **state)
{
    struct outbox box;
    struct weir_buf buf;
    struct weir_outgoing *out = make(1, 100);

    (void)state;
    outbox_init(&box, 1000);
    assert_int_equal(outbox_add(&box, out), WEIR_OK);
    weir_buf_init(&buf, /* limit= */ 50);
    assert_int_equal(outbox_next(&box, &buf), WEIR_NOMEM);
    outbox_clear(&box);
    weir_buf_release(&buf);
    outbox_release(&box);
    weir_outgoing_unref(out);
    weir_test_alloc_budget(0);
    struct weir_submit submit = { .refs = 1 };
    assert_null(weir_outgoing_open(&submit, 1, 0));
    weir_test_alloc_budget(-1);
    weir_outgoing_unref(NULL);
    weir_submit_unref(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_small_submit_is_one_begin),
        cmocka_unit_test(test_a_small_submit_overtakes_a_large_one),
        cmocka_unit_test(test_the_bound_refuses_whole_submits),
        cmocka_unit_test(test_cancels_come_first_and_only_for_what_left),
        cmocka_unit_test(test_many_cancels_take_several_frames),
        cmocka_unit_test(test_no_memory_is_an_error_and_leaks_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
