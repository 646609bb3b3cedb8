/* test_record.c - records read back as written; bad fields are named; patches touch what they name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "router/tenancy/record.h"

static struct weir_arena arena;
static struct weir_why why;

static int setup(void **state)
{
    (void)state;
    weir_arena_init(&arena, 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    weir_arena_release(&arena);
    return 0;
}

static weir_err patch_account(struct weir_account_record *rec, const char *json)
{
    memset(&why, 0, sizeof why);
    return weir_account_record_read(weir_str(json), &arena, /* is_patch= */ true, rec, &why);
}

static void test_account_round_trip(void **state)
{
    struct weir_account_record rec, back;
    struct weir_buf out, again;

    (void)state;
    weir_account_record_init(&rec);
    assert_int_equal(rec.tier, 1);
    assert_int_equal(
        patch_account(
            &rec,
            "{\"displayName\":\"A \\u00e9\",\"email\":\"a@b\",\"spendTier\":4,\"hasPaymentMethod\":true,"
            "\"limitPolicy\":\"DEPRIORITIZE\",\"models\":[\"m/1\",\"m/"
            "2\"],\"limits\":{\"requestsPerMinute\":7,"
            "\"dailyTokens\":9,\"tokensGenerated\":{\"start\":5,\"max\":6}}}"),
        WEIR_OK);
    rec.suspend = WEIR_SUSPEND_CREDIT_DEPLETED;
    rec.created_s = 1795246800;
    weir_buf_init(&out, 0);
    weir_buf_init(&again, 0);
    weir_account_record_write(&out, &rec);
    weir_account_record_init(&back);
    struct weir_str json = { weir_buf_ptr(&out), weir_buf_len(&out) };
    assert_int_equal(weir_account_record_read(json, &arena, /* is_patch= */ false, &back, &why), WEIR_OK);
    assert_int_equal(back.tier, 4);
    assert_true(back.has_payment_method);
    assert_int_equal(back.suspend, WEIR_SUSPEND_CREDIT_DEPLETED);
    assert_int_equal(back.policy, WEIR_POLICY_DEPRIORITIZE);
    assert_int_equal(back.limits.requests_per_minute, 7);
    assert_int_equal(back.limits.meter[WEIR_OVERRIDE_GENERATED].max, 6);
    assert_int_equal(back.models.n, 2);
    assert_true(weir_str_eq(back.models.items[1], "m/2"));
    assert_int_equal(back.created_s, rec.created_s);
    weir_account_record_write(&again, &back);
    assert_int_equal(weir_buf_len(&out), weir_buf_len(&again));
    assert_memory_equal(weir_buf_ptr(&out), weir_buf_ptr(&again), weir_buf_len(&out));
    weir_buf_release(&out);
    weir_buf_release(&again);
}

static void test_patches_name_what_is_wrong(void **state)
{
    static const struct {
        const char *json, *param;
    } bad[] = {
        { "{\"spendTier\":6}", "spendTier" },
        { "{\"spendTier\":\"1\"}", "spendTier" },
        { "{\"limitPolicy\":\"NONE\"}", "limitPolicy" },
        { "{\"suspendState\":\"UNSUSPENDED\"}", "suspendState" }, /* :suspend and :resume do that */
        { "{\"createTime\":1}", "createTime" },
        { "{\"limits\":{\"tokensGenerated\":{\"start\":9,\"max\":6}}}", "limits.tokensGenerated" },
        { "{\"limits\":{\"rpm\":1}}", "limits.rpm" },
        { "{\"models\":[\"\"]}", "models[0]" },
        { "{\"nonsense\":1}", "nonsense" },
    };
    struct weir_account_record rec;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        weir_account_record_init(&rec);
        assert_int_equal(patch_account(&rec, bad[i].json), WEIR_INVALID);
        assert_string_equal(why.param, bad[i].param);
    }
    /* What a patch does not name stays. */
    weir_account_record_init(&rec);
    rec.tier = 3;
    assert_int_equal(patch_account(&rec, "{\"hasPaymentMethod\":true}"), WEIR_OK);
    assert_int_equal(rec.tier, 3);
    assert_int_equal(patch_account(&rec, "{}"), WEIR_OK);
    assert_true(rec.has_payment_method);
}

static void test_stored_records_of_a_newer_weir_are_read(void **state)
{
    struct weir_account_record rec;

    (void)state;
    weir_account_record_init(&rec);
    assert_int_equal(weir_account_record_read(weir_str("{\"spendTier\":2,\"colour\":{\"a\":[1]}}"), &arena,
                                              /* is_patch= */ false, &rec, &why),
                     WEIR_OK);
    assert_int_equal(rec.tier, 2);
}

static void test_models(void **state)
{
    struct weir_model_record rec;

    (void)state;
    weir_model_record_init(&rec);
    assert_true(rec.is_public);
    assert_int_equal(rec.size, WEIR_SIZE_LARGE);
    assert_int_equal(
        weir_model_record_read(
            weir_str("{\"deployment\":\"d\",\"sizeClass\":\"SMALL\",\"deprecationDate\":\"2026-12-01\","
                     "\"contextLength\":4096,\"public\":false,\"accounts\":[\"a\"]}"),
            &arena, /* is_patch= */ true, &rec, &why),
        WEIR_OK);
    assert_int_equal(rec.size, WEIR_SIZE_SMALL);
    assert_int_equal(rec.deprecated_s, 1796083200);
    assert_int_equal(
        weir_model_record_read(weir_str("{\"deprecationDate\":\"2026-02-30\"}"), &arena, true, &rec, &why),
        WEIR_INVALID);
    assert_string_equal(why.param, "deprecationDate");
    assert_int_equal(weir_model_record_read(weir_str("{\"deprecationDate\":null}"), &arena, true, &rec, &why),
                     WEIR_OK);
    assert_int_equal(rec.deprecated_s, 0);
}

/* What an etcd of an older Weir holds, byte for byte. */
static void test_records_are_written_as_ever(void **state)
{
    static const char
        account[] = "{\"displayName\":\"A\",\"createTime\":\"2026-11-21T07:40:00Z\",\"suspendState\":"
                    "\"FAILED_PAYMENTS\",\"spendTier\":2,\"hasPaymentMethod\":false,\"limitPolicy\":"
                    "\"REFUSE\",\"limits\":{\"dailyTokens\":9},\"models\":[\"m\"]}",
        key[] = "{\"account\":\"a\",\"name\":\"\",\"created\":5,\"expires\":253402300799}",
        model[] = "{\"deployment\":\"d\",\"sizeClass\":\"LARGE\",\"contextLength\":0,\"deprecationDate\":"
                  "\"2026-12-01T00:00:00Z\",\"public\":true,\"needsPaymentMethod\":false}";
    static const struct {
        const struct weir_record_kind *kind;
        const char *json;
    } rows[] = { { &weir_account_kind, account }, { &weir_key_kind, key }, { &weir_model_kind, model } };
    union {
        struct weir_account_record account;
        struct weir_key_record key;
        struct weir_model_record model;
    } rec;
    struct weir_buf out;

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        weir_buf_init(&out, 0);
        weir_record_init(rows[i].kind, &rec);
        assert_int_equal(
            weir_record_read(rows[i].kind, weir_str(rows[i].json), &arena, /* is_patch= */ false, &rec, &why),
            WEIR_OK);
        weir_record_write(rows[i].kind, &out, &rec);
        assert_string_equal(weir_buf_cstr(&out), rows[i].json);
        weir_buf_release(&out);
    }
}

static void test_keys(void **state)
{
    struct weir_key_record rec;

    (void)state;
    weir_key_record_init(&rec);
    assert_int_equal(weir_key_record_read(weir_str("{\"name\":\"n\"}"), &arena, false, &rec, &why),
                     WEIR_INVALID);
    assert_string_equal(why.param, "account");
    weir_key_record_init(&rec);
    assert_int_equal(weir_key_record_read(weir_str("{\"displayName\":\"n\",\"key\":\"s\",\"expireTime\":7}"),
                                          &arena, /* is_patch= */ true, &rec, &why),
                     WEIR_OK);
    assert_true(weir_str_eq(rec.name, "n") && weir_str_eq(rec.secret, "s"));
    assert_int_equal(rec.expires_s, 7);
    /* Milliseconds, most likely: no time that could be written down. */
    assert_int_equal(
        weir_key_record_read(weir_str("{\"expireTime\":1795246800000}"), &arena, true, &rec, &why),
        WEIR_INVALID);
    assert_string_equal(why.param, "expireTime");
    assert_int_equal(rec.expires_s, 7);
    assert_int_equal(weir_key_record_read(weir_str("{\"account\":\"a\"}"), &arena, true, &rec, &why),
                     WEIR_INVALID);
    assert_string_equal(why.param, "account");
}

static void test_times(void **state)
{
    static const char *const bad[] = { "",
                                       "2026",
                                       "2026-13-01",
                                       "2026-02-29",
                                       "2026-11-21T",
                                       "2026-11-21x",
                                       "2026-11-21T25:00:00Z",
                                       "2026-11-21T00:00:00+",
                                       "1969-12-31",
                                       "2026-11-21T00:00:00ZZ" };
    char text[WEIR_TIME_TEXT];
    uint64_t s;

    (void)state;
    assert_true(weir_time_parse(weir_str("2028-02-29"), &s));
    weir_time_format(s, text);
    assert_string_equal(text, "2028-02-29T00:00:00Z");
    assert_true(weir_time_parse(weir_str("2026-11-21 07:40:01"), &s));
    weir_time_format(s, text);
    assert_string_equal(text, "2026-11-21T07:40:01Z");
    assert_true(weir_time_parse(weir_str(text), &s));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(weir_time_parse(weir_str(bad[i]), &s));
}

static void test_ids(void **state)
{
    (void)state;
    assert_int_equal(weir_account_id_check(weir_str("a-1"), &why), WEIR_OK);
    assert_int_equal(weir_account_id_check(weir_str("A"), &why), WEIR_INVALID);
    assert_int_equal(weir_account_id_check(weir_str(""), &why), WEIR_INVALID);
    assert_int_equal(weir_account_id_check(weir_str("a/b"), &why), WEIR_INVALID);
    assert_int_equal(weir_model_id_check(weir_str("accounts/x/models/y"), &why), WEIR_OK);
    assert_int_equal(weir_model_id_check(weir_str("a b"), &why), WEIR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_account_round_trip),
        cmocka_unit_test(test_patches_name_what_is_wrong),
        cmocka_unit_test(test_stored_records_of_a_newer_weir_are_read),
        cmocka_unit_test(test_models),
        cmocka_unit_test(test_records_are_written_as_ever),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_times),
        cmocka_unit_test(test_ids),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
