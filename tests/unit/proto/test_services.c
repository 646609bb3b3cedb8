/* test_services.c - what the door answers itself: health and reflection. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grpc/health/v1/health.pb-c.h"
#include "grpc/reflection/v1/reflection.pb-c.h"
#include "tests/unit/proto/harness.h"

static struct world w;

static int setup(void **state)
{
    (void)state;
    world_open(&w, (struct weir_rpc_server_opts){ .reflection = true }, (struct weir_rpc_channel_opts){ 0 });
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    world_close(&w);
    return 0;
}

/* ---- health ---- */
enum { SERVING = 1, NOT_SERVING = 2, SERVICE_UNKNOWN = 3 }; /* the standard's numbers */

static void ask_health(struct end *end, const char *method, const char *service)
{
    Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    uint8_t bytes[300];

    request.service = (char *)(uintptr_t)service;
    size_t n = grpc__health__v1__health_check_request__pack(&request, bytes);
    world_call(&w, end, method, 0);
    end_send_bytes(end, bytes, n);
    weir_rpc_stream_send_done(end->s);
}

static int latest_health(struct end *end)
{
    pthread_mutex_lock(&end->lock);
    Grpc__Health__V1__HealthCheckResponse *answer =
        grpc__health__v1__health_check_response__unpack(NULL, end->last_len, (const uint8_t *)end->last);
    pthread_mutex_unlock(&end->lock);
    assert_non_null(answer);
    int status = (int)answer->status;
    grpc__health__v1__health_check_response__free_unpacked(answer, NULL);
    return status;
}

static void assert_check(const char *service, int wanted)
{
    struct end end;

    ask_health(&end, "/grpc.health.v1.Health/Check", service);
    END_WAIT(&end, end.n_closed > 0);
    assert_int_equal(end.status, 0);
    assert_int_equal(end.n_got, 1);
    assert_int_equal(latest_health(&end), wanted);
    end_release(&end);
}

static void test_check(void **state)
{
    struct end end;

    (void)state;
    assert_check("", NOT_SERVING); /* until told */
    weir_rpc_server_set_serving(w.server, true);
    assert_check("", SERVING);
    assert_check("t.T", SERVING);
    assert_check("grpc.health.v1.Health", SERVING);
    weir_rpc_server_set_serving(w.server, false);
    assert_check("t.T", NOT_SERVING);

    ask_health(&end, "/grpc.health.v1.Health/Check", "no.Such"); /* [H2] */
    END_WAIT(&end, end.n_closed > 0);
    assert_int_equal(end.status, 5);
    assert_int_equal(end.n_got, 0);
    end_release(&end);
}

static void test_health_bad_requests(void **state)
{
    static const char *const methods[] = { "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch" };
    char long_name[300];
    struct end end;

    (void)state;
    memset(long_name, 'a', sizeof long_name);
    for (int i = 0; i < 2; i++) {
        world_call(&w, &end, methods[i], 0);
        end_send_bytes(&end, "\xff\xff\xff", 3);
        END_WAIT(&end, end.n_closed > 0);
        assert_int_equal(end.status, 3);
        end_release(&end);
        world_call(&w, &end, methods[i], 0);
        weir_rpc_stream_send_done(end.s); /* no request at all */
        END_WAIT(&end, end.n_closed > 0);
        assert_int_equal(end.status, 3);
        end_release(&end);
        world_call(&w, &end, methods[i], 0);
        end_send_bytes(&end, long_name, sizeof long_name);
        END_WAIT(&end, end.n_closed > 0);
        assert_int_equal(end.status, 3);
        end_release(&end);
    }
}

static void test_watch(void **state)
{
    struct end end, unknown;

    (void)state;
    ask_health(&end, "/grpc.health.v1.Health/Watch", "t.T");
    ask_health(&unknown, "/grpc.health.v1.Health/Watch", "no.Such");
    END_WAIT(&end, end.n_got == 1);
    assert_int_equal(latest_health(&end), NOT_SERVING);
    END_WAIT(&unknown, unknown.n_got == 1);
    assert_int_equal(latest_health(&unknown), SERVICE_UNKNOWN); /* [H2] */
    weir_rpc_server_set_serving(w.server, true);
    END_WAIT(&end, end.n_got == 2);
    assert_int_equal(latest_health(&end), SERVING);
    weir_rpc_server_set_serving(w.server, true); /* no change, no word */
    weir_rpc_server_set_serving(w.server, false);
    END_WAIT(&end, end.n_got == 3);
    assert_int_equal(latest_health(&end), NOT_SERVING);
    weir_rpc_stream_cancel(unknown.s);
    END_WAIT(&unknown, unknown.n_closed > 0);
    assert_int_equal(unknown.n_got, 1);
    END_NOW(&end, end.n_closed == 0);
    weir_rpc_server_set_serving(w.server, true);
    END_WAIT(&end, end.n_got == 4);

    weir_rpc_server_drain(w.server, /* timeout_ms= */ 600000); /* watches don't keep it */
    END_WAIT(&end, end.n_closed > 0);
    assert_int_equal(end.status,
                     14); /* "not serving" comes before it, unless another answer was on its way */
    end_release(&end);
    end_release(&unknown);
}

/* [H1] However fast it changes, the last word is the latest. */
static void test_watch_flapping(void **state)
{
    struct end end;

    (void)state;
    ask_health(&end, "/grpc.health.v1.Health/Watch", "");
    END_WAIT(&end, end.n_got == 1);
    for (int i = 0; i < 2000; i++)
        weir_rpc_server_set_serving(w.server, i % 2 == 0);
    weir_rpc_server_set_serving(w.server, true);
    /* "serving" is 08 01, "not serving" 08 02; a watch hears of changes only. */
    END_WAIT(&end, end.last_len == 2 && end.last[1] == SERVING && end.n_got >= 2);
    weir_rpc_stream_cancel(end.s);
    END_WAIT(&end, end.n_closed > 0);
    end_release(&end);
}

/* ---- reflection ---- */
typedef Grpc__Reflection__V1__ServerReflectionRequest request_t;
typedef Grpc__Reflection__V1__ServerReflectionResponse response_t;
#define ASK(x) GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_##x
#define ANSWER(x) GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_##x

/* Asks on an open stream; the answer is the caller's to free. */
static response_t *reflect(struct end *end, int what, const char *text)
{
    request_t request = GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__INIT;
    uint8_t bytes[512];

    request.message_request_case = (Grpc__Reflection__V1__ServerReflectionRequest__MessageRequestCase)what;
    request.list_services = (char *)(uintptr_t)text; /* the strings of the union are one */
    size_t n = grpc__reflection__v1__server_reflection_request__pack(&request, bytes);
    pthread_mutex_lock(&end->lock);
    int n_before = end->n_got;
    pthread_mutex_unlock(&end->lock);
    end_send_bytes(end, bytes, n);
    END_WAIT(end, end->n_got > n_before || end->n_closed > 0);
    END_NOW(end, end->n_closed == 0);
    assert_true(end->last_len < sizeof end->last - 1);
    response_t *response = grpc__reflection__v1__server_reflection_response__unpack(
        NULL, end->last_len, (const uint8_t *)end->last);
    assert_non_null(response);
    assert_int_equal(response->original_request->message_request_case, what);
    return response;
}

static void response_free(response_t *response)
{
    grpc__reflection__v1__server_reflection_response__free_unpacked(response, NULL);
}

/* A FileDescriptorProto begins with its name: tag 1, length, bytes. */
static bool is_file(const ProtobufCBinaryData *data, const char *name)
{
    size_t len = strlen(name);
    return data->len > len + 2 && data->data[0] == 0x0a && data->data[1] == len &&
           memcmp(data->data + 2, name, len) == 0;
}

static void assert_symbol_in(struct end *end, const char *symbol, const char *file)
{
    response_t *response = reflect(end, ASK(FILE_CONTAINING_SYMBOL), symbol);

    if (!file) {
        assert_int_equal(response->message_response_case, ANSWER(ERROR_RESPONSE));
        assert_int_equal(response->error_response->error_code, 5);
    } else {
        assert_int_equal(response->message_response_case, ANSWER(FILE_DESCRIPTOR_RESPONSE));
        assert_true(response->file_descriptor_response->n_file_descriptor_proto >= 1);
        assert_true(is_file(&response->file_descriptor_response->file_descriptor_proto[0], file));
    }
    response_free(response);
}

static void list_and_look_up(const char *method)
{
    static const char *const services[] = { "t.T", "grpc.health.v1.Health",
                                            "grpc.reflection.v1.ServerReflection",
                                            "grpc.reflection.v1alpha.ServerReflection" };
    struct end end;

    world_call(&w, &end, method, 0);
    response_t *response = reflect(&end, ASK(LIST_SERVICES), "");
    assert_int_equal(response->message_response_case, ANSWER(LIST_SERVICES_RESPONSE));
    assert_int_equal(response->list_services_response->n_service, 4);
    for (size_t i = 0; i < 4; i++)
        assert_string_equal(response->list_services_response->service[i]->name, services[i]);
    response_free(response);

    assert_symbol_in(&end, "weir.v1.Inference", "weir/v1/inference.proto");
    assert_symbol_in(&end, "weir.v1.Inference.Generate", "weir/v1/inference.proto");
    assert_symbol_in(&end, "weir.v1.FinishReason", "weir/v1/inference.proto");
    assert_symbol_in(&end, "weir.v1.GenerateRequest.MetadataEntry", "weir/v1/inference.proto");
    assert_symbol_in(&end, "weir.fabric.v1.RouterFrame", "weir/fabric/v1/fabric.proto");
    assert_symbol_in(&end, "grpc.health.v1.HealthCheckResponse.ServingStatus", "grpc/health/v1/health.proto");
    assert_symbol_in(&end, "grpc.health.v1.Health", "grpc/health/v1/health.proto");
    assert_symbol_in(&end, "weir.v1.Nothing", NULL);
    assert_symbol_in(&end, "weir.v1", NULL);
    assert_symbol_in(&end, "weir.v1.", NULL);
    assert_symbol_in(&end, "weir.v1.Inference.", NULL);
    assert_symbol_in(&end, "", NULL);

    response = reflect(&end, ASK(FILE_BY_FILENAME), "weir/fabric/v1/fabric.proto");
    assert_int_equal(response->message_response_case, ANSWER(FILE_DESCRIPTOR_RESPONSE));
    assert_int_equal(response->file_descriptor_response->n_file_descriptor_proto, 2); /* and its import */
    assert_true(is_file(&response->file_descriptor_response->file_descriptor_proto[0],
                        "weir/fabric/v1/fabric.proto"));
    assert_true(
        is_file(&response->file_descriptor_response->file_descriptor_proto[1], "weir/v1/inference.proto"));
    response_free(response);
    response = reflect(&end, ASK(FILE_BY_FILENAME), "no/such.proto");
    assert_int_equal(response->message_response_case, ANSWER(ERROR_RESPONSE));
    response_free(response);
    response = reflect(&end, ASK(ALL_EXTENSION_NUMBERS_OF_TYPE), "weir.v1.Message");
    assert_int_equal(response->error_response->error_code, 5);
    response_free(response);

    weir_rpc_stream_send_done(end.s);
    END_WAIT(&end, end.n_closed > 0);
    assert_int_equal(end.status, 0);
    end_release(&end);
}

static void test_reflection(void **state)
{
    (void)state;
    list_and_look_up("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo");
    list_and_look_up("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo");
}

/* [X1] Many questions at once: each is answered. */
static void test_reflection_burst(void **state)
{
    request_t request = GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__INIT;
    uint8_t bytes[64];
    struct end end;

    (void)state;
    request.message_request_case = ASK(FILE_CONTAINING_SYMBOL);
    request.file_containing_symbol = (char *)(uintptr_t) "weir.v1.Inference";
    size_t n = grpc__reflection__v1__server_reflection_request__pack(&request, bytes);
    world_call(&w, &end, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", 0);
    for (int i = 0; i < 100; i++)
        end_send_bytes(&end, bytes, n);
    weir_rpc_stream_send_done(end.s);
    END_WAIT(&end, end.n_closed > 0);
    assert_int_equal(end.status, 0);
    assert_int_equal(end.n_got, 100);
    end_release(&end);
}

static void test_reflection_bad_request(void **state)
{
    struct end end;
    char big[5000];

    (void)state;
    memset(big, 'x', sizeof big);
    world_call(&w, &end, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", 0);
    end_send_bytes(&end, big, sizeof big);
    END_WAIT(&end, end.n_closed > 0);
    assert_int_equal(end.status, 3);
    end_release(&end);
}

static int setup_without(void **state)
{
    (void)state;
    world_open(&w, (struct weir_rpc_server_opts){ 0 }, (struct weir_rpc_channel_opts){ 0 });
    return 0;
}

static void test_reflection_off(void **state)
{
    struct end end;

    (void)state;
    world_call(&w, &end, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", 0);
    END_WAIT(&end, end.n_closed > 0);
    assert_int_equal(end.status, 12);
    end_release(&end);
}

int main(void)
{
#define TEST(name, open) cmocka_unit_test_setup_teardown(name, open, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_check, setup),
        TEST(test_health_bad_requests, setup),
        TEST(test_watch, setup),
        TEST(test_watch_flapping, setup),
        TEST(test_reflection, setup),
        TEST(test_reflection_burst, setup),
        TEST(test_reflection_bad_request, setup),
        TEST(test_reflection_off, setup_without),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
