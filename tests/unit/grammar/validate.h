/* validate.h - a plain JSON Schema validator over jansson trees, written apart from the compiler under test. */
#ifndef WEIR_TESTS_GRAMMAR_VALIDATE_H
#define WEIR_TESTS_GRAMMAR_VALIDATE_H

#include <jansson.h>
#include <stdbool.h>

/* As the standard reads it (oneOf: exactly one), without formats. root: where $ref begins. An unknown keyword fails
 * the test. */
bool validate(json_t *root, json_t *schema, json_t *value);

#endif
