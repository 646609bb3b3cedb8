/* test_sample.c - which tokens may be drawn, how often, and what is said of them. Seeds are fixed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "replica/engine/sample.h"

enum { N = 64, DRAWS = 20000 };

static struct sample_item scratch[4096];

static struct sample_params params(double temperature, int top_k, double top_p, double min_p)
{
    return (struct sample_params){
        .temperature = temperature, .top_k = top_k, .top_p = top_p, .min_p = min_p, .seed = 5
    };
}

static int32_t draw(const float *logits, uint32_t n, struct sample_params p, uint32_t position)
{
    return sample_token(logits, n, &p, 0, position, scratch);
}

static void make_logits(float *logits)
{
    for (uint32_t i = 0; i < N; i++)
        logits[i] = (float)(i * 29 % N) * 0.1f - 2; /* a permutation of even steps */
}

/* How many logits are above: 0 for the best. */
static uint32_t rank(const float *logits, uint32_t n, int32_t id)
{
    uint32_t above = 0;

    for (uint32_t i = 0; i < n; i++)
        above += logits[i] > logits[id] || (logits[i] == logits[id] && (int32_t)i < id);
    return above;
}

static void test_greedy_takes_the_best_and_the_lower_id(void **state)
{
    float logits[5] = { -1, 3, 2, 3, -INFINITY };

    (void)state;
    assert_int_equal(draw(logits, 5, params(0, 0, 1, 0), 0), 1);
    assert_int_equal(draw(logits, 5, params(1, 1, 1, 0), 0), 1);
    assert_int_equal(draw(logits, 1, params(0.7, 0, 0.5, 0.5), 0), 0);
    logits[4] = 4;
    assert_int_equal(draw(logits, 5, params(0, 3, 0.2, 0), 9), 4);
}

static void test_no_answer(void **state)
{
    float nan_in[3] = { 1, NAN, 2 }, nan_first[3] = { NAN, 1, 2 },
          none[3] = { -INFINITY, -INFINITY, -INFINITY };
    float infinite[3] = { 1, INFINITY, 2 };

    (void)state;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(draw(nan_in, 3, params(i, 0, 1, 0), 0), -1);
        assert_int_equal(draw(nan_first, 3, params(i, 0, 1, 0), 0), -1);
        assert_int_equal(draw(none, 3, params(i, 0, 1, 0), 0), -1);
        assert_int_equal(draw(infinite, 3, params(i, 0, 1, 0), 0), -1);
    }
}

/* [M1] top-k: the k best and no other, each of them; ties go to the lower id. */
static void test_top_k(void **state)
{
    float logits[N], equal[N] = { 0 };

    (void)state;
    make_logits(logits);
    for (int k = 1; k <= N + 1; k = k * 2 + 1) {
        bool seen[N] = { false };
        int n_seen = 0;
        for (uint32_t i = 0; i < DRAWS; i++) {
            int32_t id = draw(logits, N, params(3, k, 1, 0), i);
            assert_true(rank(logits, N, id) < (uint32_t)k);
            n_seen += !seen[id];
            seen[id] = true;
        }
        assert_int_equal(n_seen, k < N ? k : N);
    }
    for (uint32_t i = 0; i < 1000; i++)
        assert_true(draw(equal, N, params(1, 3, 1, 0), i) < 3);
}

/* [M1] top-p: the fewest best whose mass reaches p. */
static void test_top_p(void **state)
{
    static const double ps[] = { 0, 0.1, 0.5, 0.9, 0.999 };
    float logits[N];
    double masses[N], total = 0;

    (void)state;
    make_logits(logits);
    for (uint32_t i = 0; i < N; i++)
        total += masses[rank(logits, N, (int32_t)i)] = exp(logits[i] / 1.3);
    for (size_t k = 0; k < sizeof ps / sizeof *ps; k++) {
        uint32_t allowed = 1, worst = 0;
        for (double mass = masses[0]; mass < ps[k] * total && allowed < N; allowed++)
            mass += masses[allowed];
        for (uint32_t i = 0; i < DRAWS; i++) {
            uint32_t r = rank(logits, N, draw(logits, N, params(1.3, 0, ps[k], 0), i));
            assert_true(r < allowed);
            worst = r > worst ? r : worst;
        }
        assert_true(worst + 1 == allowed || ps[k] > 0.99); /* the last one is drawn too */
    }
}

/* [M1] min-p: nothing below that share of the best one's probability. */
static void test_min_p(void **state)
{
    float logits[N];
    uint32_t n_allowed = 0, n_seen = 0;
    bool seen[N] = { false };

    (void)state;
    make_logits(logits);
    for (uint32_t i = 0; i < N; i++)
        n_allowed += exp((logits[i] - 4.3) / 0.8) >= 0.2;
    assert_in_range(n_allowed, 5, 30);
    for (uint32_t i = 0; i < DRAWS; i++) {
        int32_t id = draw(logits, N, params(0.8, 0, 1, 0.2), i);
        assert_true(exp((logits[id] - 4.3f) / 0.8) >= 0.2 - 1e-6);
        n_seen += !seen[id];
        seen[id] = true;
    }
    assert_int_equal(n_seen, n_allowed);
}

/* Limits together, over a vocabulary as large as real ones have; a masked token never comes. */
static void test_together_on_many(void **state)
{
    static float logits[4096];

    (void)state;
    for (uint32_t i = 0; i < 4096; i++)
        logits[i] = i % 3 == 0 ? -INFINITY : (float)((i * 2654435761u) >> 16 & 1023) / 40;
    for (uint32_t i = 0; i < 300; i++) {
        assert_true(draw(logits, 4096, params(2, 0, 1, 0), i) % 3 != 0);
        assert_true(draw(logits, 4096, params(2, 0, 0.7, 0), i) % 3 != 0);
        assert_true(rank(logits, 4096, draw(logits, 4096, params(2, 50, 0.9, 0.01), i)) < 50);
        assert_true(rank(logits, 4096, draw(logits, 4096, params(1e-300, 0, 0.9, 0), i)) == 0);
        assert_true(draw(logits, 4096, params(1e300, 4000, 1, 0), i) % 3 != 0);
    }
}

/* Drawn as often as the probabilities say: chi-square with 9 degrees of freedom, 27.9 at one in a thousand. */
static void test_frequencies(void **state)
{
    float logits[10];
    double p[10], total = 0, chi = 0;
    int n[10] = { 0 };

    (void)state;
    for (int i = 0; i < 10; i++) {
        logits[i] = logf((float)(i + 1));
        p[i] = pow(i + 1, 1 / 0.7);
        total += p[i];
    }
    for (uint32_t i = 0; i < DRAWS; i++)
        n[draw(logits, 10, params(0.7, 0, 1, 0), i)]++;
    for (int i = 0; i < 10; i++) {
        double wanted = DRAWS * p[i] / total;
        chi += (n[i] - wanted) * (n[i] - wanted) / wanted;
    }
    assert_true(chi < 27.9);
}

/* 64 cells, 63 degrees of freedom: 103.4 at one in a thousand. Along positions, choices and seeds. */
static void test_uniform(void **state)
{
    (void)state;
    for (int along = 0; along < 3; along++) {
        int n[64] = { 0 };
        double chi = 0, previous = 0, product = 0;
        for (uint32_t i = 0; i < DRAWS; i++) {
            double u = sample_uniform(along == 2 ? i : 9, along == 1 ? i : 0, along == 0 ? i : 3);
            assert_true(u >= 0 && u < 1);
            n[(int)(u * 64)]++;
            product += (u - 0.5) * (previous - 0.5);
            previous = u;
        }
        for (int i = 0; i < 64; i++)
            chi += (n[i] - DRAWS / 64.0) * (n[i] - DRAWS / 64.0) / (DRAWS / 64.0);
        assert_true(chi < 103.4);
        assert_true(fabs(product / DRAWS * 12) < 4 / sqrt(DRAWS)); /* neighbours have nothing in common */
    }
}

/* [M2] */
static void test_same_arguments_same_token(void **state)
{
    float logits[N];
    int n_differ = 0;

    (void)state;
    make_logits(logits);
    for (uint32_t i = 0; i < 500; i++) {
        struct sample_params p = params(2, 40, 0.95, 0.01), other = p;
        other.seed++;
        int32_t id = sample_token(logits, N, &p, 1, i, scratch);
        memset(scratch, 0x5a, sizeof scratch);
        assert_int_equal(sample_token(logits, N, &p, 1, i, scratch), id);
        n_differ += sample_token(logits, N, &p, 2, i, scratch) != id;
        n_differ += sample_token(logits, N, &other, 1, i, scratch) != id;
    }
    assert_true(n_differ > 500);
    assert_true(sample_uniform(6, 0, 3) !=
                sample_uniform(5, 1, 3)); /* a neighbour's seed is not the next choice */
    assert_true(sample_uniform(5, 1, 2) != sample_uniform(5, 0, 3));
}

static void test_logprobs(void **state)
{
    float logits[6] = { 1, 5, -2, 5, 3, -INFINITY };
    struct weir_top_logprob top[5];
    double total = 0;

    (void)state;
    for (int i = 0; i < 6; i++)
        total += exp(logits[i]);
    for (int32_t id = 0; id < 5; id++)
        assert_true(fabs(sample_logprob(logits, 6, id, NULL, 0) - (logits[id] - log(total))) < 1e-6);
    sample_logprob(logits, 6, 0, top, 4);
    const int32_t wanted[] = { 1, 3, 4, 0 };
    for (int i = 0; i < 4; i++) {
        assert_int_equal(top[i].id, wanted[i]);
        assert_true(fabs(top[i].logprob - (logits[wanted[i]] - log(total))) < 1e-6);
    }
    sample_logprob(logits, 3, 0, top, 5); /* more than there are */
    assert_int_equal(top[0].id, 1);
    assert_int_equal(top[2].id, 2);
    assert_int_equal(top[3].id, -1);
    logits[2] = NAN;
    assert_true(isnan(sample_logprob(logits, 3, 0, top, 5)));
    for (int i = 0; i < 5; i++)
        assert_true(top[i].id == -1 && top[i].logprob == -INFINITY);
    float huge[2] = { 3e38f, 2.9e38f };
    assert_true(sample_logprob(huge, 2, 0, top, 1) == 0.0f);
}

/* Probabilities 0.5, 0.3, 0.1, 0.06, 0.04: the surprise of the second is nearest to the mean, then the first's. */
static void test_typical_keeps_the_least_surprising_surprise(void **state)
{
    const double p_of[5] = { 0.5, 0.3, 0.1, 0.06, 0.04 };
    float logits[5];
    bool seen[5] = { false };
    struct sample_params p = params(1, 0, 1, 0);

    (void)state;
    for (int i = 0; i < 5; i++)
        logits[i] = (float)log(p_of[i]);
    p.typical_p = 0.2;
    for (uint32_t i = 0; i < 200; i++)
        assert_int_equal(draw(logits, 5, p, i), 1);
    p.typical_p = 0.7;
    for (uint32_t i = 0; i < 2000; i++)
        seen[draw(logits, 5, p, i)] = true;
    assert_true(seen[0] && seen[1] && !seen[2] && !seen[3] && !seen[4]);
    p.typical_p = 1; /* off */
    for (uint32_t i = 0; i < 2000; i++)
        seen[draw(logits, 5, p, i)] = true;
    assert_true(seen[2] && seen[3] && seen[4]);
}

/* The mean surprise of what is drawn comes near the target's, whatever the distribution it is drawn from. */
static void test_mirostat_reaches_its_target(void **state)
{
    const double targets[2] = { 8, 16 };
    float logits[256];
    double total = 0;

    (void)state;
    for (int i = 0; i < 256; i++) {
        logits[i] = (float)(-1.1 * log(i + 1)); /* Zipf */
        total += exp(logits[i]);
    }
    for (int t = 0; t < 2; t++) {
        struct sample_params p = params(1, 5, 0.1, 0.9); /* those don't count here */
        double bound = 0, again_bound = 0, sum = 0;
        p.mirostat_target = targets[t];
        p.mirostat_lr = 0.1;
        for (uint32_t i = 0; i < 4000; i++) {
            int32_t id = sample_mirostat(logits, 256, &p, 0, i, scratch, &bound);
            assert_int_equal(sample_mirostat(logits, 256, &p, 0, i, scratch, &again_bound), id); /* [M2] */
            sum += i >= 1000 ? log2(total) - logits[id] / log(2.0) : 0;
        }
        assert_true(fabs(sum / 3000 - log2(targets[t])) < 0.15);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greedy_takes_the_best_and_the_lower_id),
        cmocka_unit_test(test_no_answer),
        cmocka_unit_test(test_top_k),
        cmocka_unit_test(test_top_p),
        cmocka_unit_test(test_min_p),
        cmocka_unit_test(test_together_on_many),
        cmocka_unit_test(test_frequencies),
        cmocka_unit_test(test_uniform),
        cmocka_unit_test(test_same_arguments_same_token),
        cmocka_unit_test(test_logprobs),
        cmocka_unit_test(test_typical_keeps_the_least_surprising_surprise),
        cmocka_unit_test(test_mirostat_reaches_its_target),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
