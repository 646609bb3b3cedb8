/* tmpl_test.c - the tests behind "is". */
#include "replica/text/tmpl_int.h"

#include <math.h>

#define TEST(fn)                                                                                             \
    static bool fn(struct tmpl_run *run, struct tmpl_value in, const struct tmpl_value *argv, bool *ret)
#define TEST_KIND(fn, condition)                                                                             \
    TEST(fn)                                                                                                 \
    {                                                                                                        \
        (void)run, (void)in, (void)argv;                                                                     \
        *ret = (condition);                                                                                  \
        return true;                                                                                         \
    }

TEST_KIND(t_defined, in.kind != TMPL_UNDEF)
TEST_KIND(t_undefined, in.kind == TMPL_UNDEF)
TEST_KIND(t_none, in.kind == TMPL_NONE)
TEST_KIND(t_boolean, in.kind == TMPL_BOOL)
TEST_KIND(t_true, in.kind == TMPL_BOOL && in.b)
TEST_KIND(t_false, in.kind == TMPL_BOOL && !in.b)
TEST_KIND(t_integer, in.kind == TMPL_INT)
TEST_KIND(t_float, in.kind == TMPL_FLOAT)
TEST_KIND(t_number, in.kind == TMPL_INT || in.kind == TMPL_FLOAT || in.kind == TMPL_BOOL)
TEST_KIND(t_string, in.kind == TMPL_STR)
TEST_KIND(t_mapping, in.kind == TMPL_DICT)
TEST_KIND(t_callable, in.kind == TMPL_MACRO || in.kind == TMPL_FUNC || in.kind == TMPL_METHOD ||
                          in.kind == TMPL_LOOP || in.kind == TMPL_JOINER)
/* Undefined has a length and can be looped over, so jinja2 counts it in. */
TEST_KIND(t_sequence, in.kind == TMPL_STR || in.kind == TMPL_LIST || in.kind == TMPL_TUPLE ||
                          in.kind == TMPL_DICT || in.kind == TMPL_UNDEF)
TEST_KIND(t_iterable, in.kind == TMPL_STR || in.kind == TMPL_LIST || in.kind == TMPL_TUPLE ||
                          in.kind == TMPL_DICT || in.kind == TMPL_UNDEF || in.kind == TMPL_LOOP ||
                          in.kind == TMPL_GENERATOR)
TEST_KIND(t_escaped, false)

#define TEST_COMPARE(fn, op)                                                                                 \
    TEST(fn)                                                                                                 \
    {                                                                                                        \
        return tmpl_compare(run, op, in, argv[0], ret);                                                      \
    }

TEST_COMPARE(t_eq, TMPL_OP_EQ)
TEST_COMPARE(t_ne, TMPL_OP_NE)
TEST_COMPARE(t_lt, TMPL_OP_LT)
TEST_COMPARE(t_le, TMPL_OP_LE)
TEST_COMPARE(t_gt, TMPL_OP_GT)
TEST_COMPARE(t_ge, TMPL_OP_GE)
TEST_COMPARE(t_in, TMPL_OP_IN)

/* The same object; small values are equal values. */
TEST(t_sameas)
{
    struct tmpl_value other = argv[0];

    *ret = in.kind == other.kind && tmpl_equal(run, in, other);
    if (*ret && (in.kind == TMPL_LIST || in.kind == TMPL_TUPLE))
        *ret = in.list == other.list;
    if (*ret && in.kind == TMPL_DICT)
        *ret = in.dict == other.dict;
    return run->err == WEIR_OK;
}

static bool remainder_of(struct tmpl_run *run, struct tmpl_value in, struct tmpl_value by, bool *ret_zero)
{
    struct tmpl_value rest;
    double f;

    if (!tmpl_number(in, &f) || !tmpl_number(by, &f))
        return tmpl_fail(run, WEIR_INVALID, "'%s' has no remainder", tmpl_type_name(in));
    if (!tmpl_arith(run, TMPL_OP_MOD, in, by, &rest))
        return false;
    *ret_zero = !tmpl_truth(rest);
    return true;
}

TEST(t_divisibleby)
{
    return remainder_of(run, in, argv[0], ret);
}

TEST(t_even)
{
    (void)argv;
    return remainder_of(run, in, tmpl_int(2), ret);
}

TEST(t_odd)
{
    struct tmpl_value rest;

    (void)argv;
    if (!tmpl_arith(run, TMPL_OP_MOD, in, tmpl_int(2), &rest))
        return false;
    *ret = tmpl_equal(run, rest, tmpl_int(1));
    return true;
}

static bool has_case(struct tmpl_run *run, struct tmpl_value in, const char *method_name, bool *ret)
{
    struct weir_str s;
    struct tmpl_args none = { .n = 0 };
    struct tmpl_value argv[TMPL_PARAMS_MAX] = { { .kind = TMPL_UNSET } }, answer;
    const struct tmpl_method *method = tmpl_find_method(TMPL_STR, weir_str(method_name));

    if (!tmpl_to_str(run, in, &s) || !method->fn(run, tmpl_str(s), argv, &none, &answer))
        return false;
    *ret = tmpl_truth(answer);
    return true;
}

TEST(t_lower)
{
    (void)argv;
    return has_case(run, in, "islower", ret);
}

TEST(t_upper)
{
    (void)argv;
    return has_case(run, in, "isupper", ret);
}

TEST(t_filter)
{
    (void)run, (void)argv;
    *ret = in.kind == TMPL_STR && tmpl_find_filter(in.str);
    return true;
}

TEST(t_test)
{
    (void)run, (void)argv;
    *ret = in.kind == TMPL_STR && tmpl_find_test(in.str);
    return true;
}

static const struct tmpl_test tests[] = {
    { "boolean", 0, t_boolean },
    { "callable", 0, t_callable },
    { "defined", 0, t_defined },
    { "divisibleby", 1, t_divisibleby },
    { "eq", 1, t_eq },
    { "equalto", 1, t_eq },
    { "==", 1, t_eq },
    { "escaped", 0, t_escaped },
    { "even", 0, t_even },
    { "false", 0, t_false },
    { "filter", 0, t_filter },
    { "float", 0, t_float },
    { "ge", 1, t_ge },
    { ">=", 1, t_ge },
    { "greaterthan", 1, t_gt },
    { "gt", 1, t_gt },
    { ">", 1, t_gt },
    { "in", 1, t_in },
    { "integer", 0, t_integer },
    { "iterable", 0, t_iterable },
    { "le", 1, t_le },
    { "<=", 1, t_le },
    { "lessthan", 1, t_lt },
    { "lower", 0, t_lower },
    { "lt", 1, t_lt },
    { "<", 1, t_lt },
    { "mapping", 0, t_mapping },
    { "ne", 1, t_ne },
    { "!=", 1, t_ne },
    { "none", 0, t_none },
    { "number", 0, t_number },
    { "odd", 0, t_odd },
    { "sameas", 1, t_sameas },
    { "sequence", 0, t_sequence },
    { "string", 0, t_string },
    { "test", 0, t_test },
    { "true", 0, t_true },
    { "undefined", 0, t_undefined },
    { "upper", 0, t_upper },
};

const struct tmpl_test *tmpl_find_test(struct weir_str name)
{
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        if (weir_str_eq(name, tests[i].name))
            return &tests[i];
    return NULL;
}
