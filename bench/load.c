/* load.c - see load.h: what both ways share. */
#include "bench/load.h"

#include <stdio.h>

void load_fault(struct load_result *result, const char *what)
{
    if (result->n_errors++ == 0)
        snprintf(result->error, sizeof result->error, "%.150s", what);
}

void load_prompt(char *ret, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        ret[i] = "the river runs on and on "[i % 25];
}
