/* test_golden.c - the demo model's greedy tokens and log-probabilities against tests/golden/demo.json, which comes from
 * float64 arithmetic written independently (tools/make_golden.py). Skipped, visibly, when the model is not there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>
#include <math.h>

#include "base/hash.h"
#include "base/mem.h"
#include "replica/model/config.h"
#include "tests/unit/engine/run.h"

#define MODEL "models/demo"
#define GOLDEN "tests/golden/demo.json"
#define TOLERANCE 1e-4

static json_t *golden;
static int n_checked;

/* A step whose first two candidates are closer than our error may choose either. */
static bool is_clear(json_t *step)
{
    json_t *top = json_object_get(step, "top");
    double first = json_number_value(json_array_get(json_array_get(top, 0), 1));
    return first - json_number_value(json_array_get(json_array_get(top, 1), 1)) > 2 * TOLERANCE;
}

static void check_step(const struct run_choice *c, int i, json_t *step)
{
    json_t *top = json_object_get(step, "top");

    assert_int_equal(c->ids[i], json_integer_value(json_object_get(step, "id")));
    assert_true(fabs(c->logprobs[i] - json_number_value(json_object_get(step, "logprob"))) <= TOLERANCE);
    for (size_t k = 0; k < RUN_TOPS; k++) {
        json_t *pair = json_array_get(top, k);
        assert_true(fabs(c->tops[i][k].logprob - json_number_value(json_array_get(pair, 1))) <= TOLERANCE);
    }
}

static void check_prompt(struct weir_engine *eng, json_t *row)
{
    json_t *ids = json_object_get(row, "ids"), *steps = json_object_get(row, "steps"),
           *stop = json_object_get(row, "stop");
    struct run_request r;

    run_request_init(&r, 0, 2, (uint32_t)json_array_size(ids), (uint32_t)json_array_size(steps));
    for (size_t i = 0; i < json_array_size(ids); i++)
        r.prompt[i] = (int32_t)json_integer_value(json_array_get(ids, i));
    r.params.ignore_eos = true;
    run_one(eng, &r);
    assert_int_equal(r.choices[0].n, json_array_size(steps));
    for (size_t i = 0; i < json_array_size(steps); i++) {
        if (!is_clear(json_array_get(steps, i)))
            break;
        check_step(&r.choices[0], (int)i, json_array_get(steps, i));
        n_checked++;
    }
    r.params.ignore_eos = false;
    memset(r.choices, 0, sizeof r.choices);
    r.n_started = 0;
    run_one(eng, &r);
    assert_int_equal(r.choices[0].n,
                     json_is_null(stop) ? (json_int_t)json_array_size(steps) : json_integer_value(stop));
}

static void check_all(const char *isa)
{
    json_t *rows = json_object_get(golden, "generate");

    setenv("WEIR_CPU", isa, 1);
    struct weir_engine *eng =
        run_open(MODEL, &(struct weir_engine_opts){
                            .n_threads = 2, .kv_bytes = 8 << 20, .kv = "f32", .activations = "exact" });
    n_checked = 0;
    for (size_t i = 0; i < json_array_size(rows); i++)
        check_prompt(eng, json_array_get(rows, i));
    assert_true(n_checked >= 100);
    run_idle(eng);
    weir_engine_close(eng);
}

static void test_demo_on_each_instruction_set(void **state)
{
    (void)state;
    check_all("generic");
    check_all("avx2");
    check_all("avx512");
    check_all("amx");
}

/* The numbers belong to these weights. */
static void test_same_weights(void **state)
{
    json_t *sums = json_object_get(json_object_get(golden, "model"), "sha256");
    char *bytes = NULL, hex[65];
    uint8_t digest[32];
    size_t len = 0;
    struct weir_why why;

    (void)state;
    assert_int_equal(model_read_file(MODEL, "model.safetensors", 64 << 20, &bytes, &len, &why), WEIR_OK);
    weir_sha256(bytes, len, digest);
    weir_hex(digest, sizeof digest, hex);
    weir_free(bytes);
    if (strcmp(hex, json_string_value(json_object_get(sums, "model.safetensors"))) != 0)
        fail_msg(GOLDEN " is about other weights than " MODEL
                        " has: regenerate it with tools/make_golden.py");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_weights),
        cmocka_unit_test(test_demo_on_each_instruction_set),
    };
    json_error_t error;

    if (access(MODEL "/model.safetensors", R_OK) != 0) {
        printf("skipped: there is no " MODEL "\n");
        return 77;
    }
    golden = json_load_file(GOLDEN, JSON_ALLOW_NUL, &error);
    if (!golden) {
        fprintf(stderr, GOLDEN ": %s\n", error.text);
        return 1;
    }
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    json_decref(golden);
    return rc;
}
