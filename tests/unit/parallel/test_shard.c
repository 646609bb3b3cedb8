/* test_shard.c - what ranks hold: everything once, and query heads beside their key heads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "replica/parallel/shard.h"

static struct model_config config_of(uint32_t n_head, uint32_t n_kv_head, uint32_t d_ffn, uint32_t n_vocab)
{
    return (struct model_config){ .n_head = n_head,
                                  .n_kv_head = n_kv_head,
                                  .d_ffn = d_ffn,
                                  .n_vocab = n_vocab,
                                  .n_expert = 4,
                                  .d_expert = d_ffn / 2 };
}

static void check_follows(struct shard_range *all, struct shard_range part)
{
    assert_int_equal(part.from, all->from + all->n);
    all->n += part.n;
}

/* [S1] [S2] */
static void check_ranks(const struct model_config *c, uint32_t n_ranks)
{
    struct shard_range heads = { 0, 0 }, ffn = { 0, 0 }, expert = { 0, 0 }, vocab = { 0, 0 };
    uint32_t group = c->n_head / c->n_kv_head;

    for (uint32_t i = 0; i < n_ranks; i++) {
        struct shard s;
        struct weir_why why;
        assert_int_equal(shard_of(c, i, n_ranks, &s, &why), WEIR_OK);
        check_follows(&heads, s.heads);
        check_follows(&ffn, s.ffn);
        check_follows(&expert, s.expert);
        check_follows(&vocab, s.vocab);
        assert_true(s.ffn.n > 0 && s.expert.n > 0);
        assert_int_equal(s.kv_heads.from, s.heads.from / group);
        assert_int_equal(s.kv_heads.from + s.kv_heads.n - 1, (s.heads.from + s.heads.n - 1) / group);
        assert_int_equal(s.heads.n % s.kv_heads.n, 0);
        assert_true(s.vocab.n <= s.vocab_rows && s.vocab_rows * n_ranks < c->n_vocab + n_ranks);
        assert_true(s.vocab.n == 0 || s.vocab.from == s.vocab_rows * i); /* where the gathered rows put it */
    }
    assert_int_equal(heads.n, c->n_head);
    assert_int_equal(ffn.n, c->d_ffn);
    assert_int_equal(expert.n, c->d_expert);
    assert_int_equal(vocab.n, c->n_vocab);
}

static void test_everything_once(void **state)
{
    static const uint32_t ffns[] = { 8, 96, 101, 1536, 4864, 8192, 14336 },
                          vocabs[] = { 9, 97, 4096, 151936 };
    static const struct {
        uint32_t n_head, n_kv_head;
    } heads[] = { { 8, 8 }, { 8, 4 }, { 8, 2 }, { 8, 1 }, { 32, 8 }, { 24, 8 }, { 64, 4 } };

    (void)state;
    for (size_t h = 0; h < sizeof heads / sizeof *heads; h++)
        for (size_t f = 0; f < sizeof ffns / sizeof *ffns; f++)
            for (size_t v = 0; v < sizeof vocabs / sizeof *vocabs; v++) {
                struct model_config c = config_of(heads[h].n_head, heads[h].n_kv_head, ffns[f], vocabs[v]);
                for (uint32_t n_ranks = 1; n_ranks <= (ffns[f] == 8 ? 4 : 8); n_ranks *= 2)
                    check_ranks(&c, n_ranks);
            }
}

/* Groups of quantized weights stay whole where there is enough to cut. */
static void test_cuts_are_round(void **state)
{
    struct model_config c = config_of(8, 8, 4864, 4096);
    struct shard s;
    struct weir_why why;

    (void)state;
    for (uint32_t i = 0; i < 8; i++) {
        assert_int_equal(shard_of(&c, i, 8, &s, &why), WEIR_OK);
        assert_int_equal(s.ffn.from % 64, 0);
        assert_int_equal(s.ffn.n % 64, 0);
        assert_int_equal(s.expert.from % 64, 0);
    }
}

static void refuse(struct model_config c, uint32_t n_ranks, const char *reason)
{
    struct shard s;
    struct weir_why why = { 0 };

    assert_int_equal(shard_of(&c, 0, n_ranks, &s, &why), WEIR_INVALID);
    assert_string_equal(why.param, "tensor_parallel");
    if (!strstr(why.text, reason))
        fail_msg("`%s` does not say `%s`", why.text, reason);
}

static void test_refused_by_name(void **state)
{
    (void)state;
    refuse(config_of(6, 6, 96, 97), 4, "4 ranks can't share the model's heads");
    refuse(config_of(24, 6, 96, 97), 4, "key heads");
    refuse(config_of(8, 8, 96, 97), 0, "1 to 64");
    refuse(config_of(128, 128, 9600, 97), 128, "1 to 64");
    refuse(config_of(8, 8, 6, 97), 8, "too few");
    refuse(config_of(8, 8, 96, 7), 8, "too few");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_everything_once),
        cmocka_unit_test(test_cuts_are_round),
        cmocka_unit_test(test_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
