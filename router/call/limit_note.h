/* limit_note.h - what the limits said of a call, for whoever writes its answer's headers. */
#ifndef WEIR_ROUTER_CALL_LIMIT_NOTE_H
#define WEIR_ROUTER_CALL_LIMIT_NOTE_H

#include "router/limits/limits.h"

struct weir_limit_note {
    bool metered; /* else the call has no limits, and nothing below is said */
    bool legacy;  /* over a limit it is served last instead of refused: the older set of headers */
    struct weir_limits_verdict verdict;
};

#endif
