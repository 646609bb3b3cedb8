/* program.h - how a long-running program begins and learns that it should end. Main thread only. */
#ifndef WEIR_BASE_PROGRAM_H
#define WEIR_BASE_PROGRAM_H

#include <stdbool.h>

#include "base/conf.h"

/* Signals, crash report, configuration. False: the program is over, with *ret_code (an error was printed, or --help and
 * the like were answered). */
bool weir_program_begin(const struct weir_conf_spec *spec, int argc, char **argv, void *values,
                        struct weir_conf **ret_conf, int *ret_code);
/* Waits for SIGTERM or SIGINT, at most timeout_ms (negative: without end). */
bool weir_program_told_to_end(int timeout_ms);

#endif
