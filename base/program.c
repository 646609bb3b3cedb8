/* program.c - see program.h. */
#include "base/program.h"

#include <signal.h>
#include <stdio.h>

#include "base/thread.h"

bool weir_program_begin(const struct weir_conf_spec *spec, int argc, char **argv, void *values,
                        struct weir_conf **ret_conf, int *ret_code)
{
    enum weir_conf_action action = WEIR_CONF_EXIT;
    struct weir_why why = { 0 };

    weir_signals_block();
    weir_crash_report_setup(spec->program);
    if (weir_conf_open(spec, argc, argv, values, ret_conf, &action, &why) != WEIR_OK) {
        fprintf(stderr, "%s: %s\n", spec->program, why.text);
        *ret_code = 2;
        return false;
    }
    *ret_code = 0;
    if (action == WEIR_CONF_RUN)
        return true;
    weir_conf_close(*ret_conf);
    return false;
}

bool weir_program_told_to_end(int timeout_ms)
{
    int sig = weir_signals_wait(timeout_ms);

    return sig == SIGTERM || sig == SIGINT;
}
