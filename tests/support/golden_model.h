/* golden_model.h - a case of tests/golden/models: its model, made again in a temporary folder, and what it must compute.
 *
 * tools/make_model_golden.py says how a weight comes from (seed, name, index), and what the numbers are. */
#ifndef WEIR_TESTS_SUPPORT_GOLDEN_MODEL_H
#define WEIR_TESTS_SUPPORT_GOLDEN_MODEL_H

#include <stdint.h>

#include "tests/support/tiny_model.h"

enum { GOLDEN_TOP = 3, GOLDEN_PROMPT_MAX = 64, GOLDEN_GREEDY_MAX = 256 };

struct golden_token {
    int32_t id;
    double logprob;
};

struct golden_model {
    char name[64], dir[TINY_DIR_MAX];
    uint32_t n_vocab, n_prompt, n_greedy;
    int32_t prompt[GOLDEN_PROMPT_MAX];
    struct golden_token scored[GOLDEN_PROMPT_MAX][GOLDEN_TOP], greedy[GOLDEN_GREEDY_MAX];
    double gap; /* least distance between the best two tokens along the greedy steps */
};

/* Reads the file and writes the folder; aborts when it can't. */
void golden_model_open(struct golden_model *ret, const char *path);
void golden_model_close(struct golden_model *g); /* removes the folder */
/* Calls fn for every case in the folder, in the order of names; how many there were. */
int golden_model_each(const char *folder, void (*fn)(const struct golden_model *g, void *arg), void *arg);

#endif
