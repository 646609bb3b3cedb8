/* thinking_model.h - the bundled model's tokenizer in a folder of its own, but for two special tokens, which are [THINK] and
 * [/THINK]. */
#ifndef WEIR_TESTS_THINKING_MODEL_H
#define WEIR_TESTS_THINKING_MODEL_H

#include <stdbool.h>

enum { THINK_BEGIN_ID = 2046, THINK_END_ID = 2047 };

bool thinking_model_make(char ret_dir[64]); /* false: it could not be written */
void thinking_model_remove(const char *dir);

#endif
