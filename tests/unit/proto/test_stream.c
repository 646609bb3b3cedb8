/* test_stream.c - streams over loopback: both ends, in order, to the end. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "tests/unit/proto/harness.h"

static struct world w;

static int setup(void **state)
{
    (void)state;
    world_open(&w, (struct weir_rpc_server_opts){ 0 }, (struct weir_rpc_channel_opts){ 0 });
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    world_close(&w);
    return 0;
}

static void test_echo_thousand(void **state)
{
    struct end end;
    char text[32];

    (void)state;
    world_call(&w, &end, "/t.T/Echo", 0);
    for (int i = 0; i < 1000; i++) {
        snprintf(text, sizeof text, "message %d", i);
        end_send(&end, text);
        END_WAIT(&end, end.n_got == i + 1);
        assert_string_equal(end.last, text);
    }
    weir_rpc_stream_send_done(end.s);
    END_WAIT(&end, end.n_closed > 0);
    assert_int_equal(end.status, 0);
    assert_int_equal(end.n_got, 1000);
    assert_int_equal(weir_rpc_stream_send(end.s, WEIR_STR("late")), WEIR_UNAVAILABLE);
    end_release(&end);
}

static void test_server_streams(void **state)
{
    struct end end;

    (void)state;
    world_call(&w, &end, "/t.T/Count", 0);
    end_send(&end, "5000");
    weir_rpc_stream_send_done(end.s);
    END_WAIT(&end, end.n_closed > 0);
    assert_int_equal(end.status, 0);
    assert_int_equal(end.n_got, 5000);
    assert_string_equal(end.last, "4999");
    end_release(&end);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_echo_thousand, setup, teardown),
        cmocka_unit_test_setup_teardown(test_server_streams, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
