/* shedding.h - which deployments turn calls away for lack of capacity, told to the limits: ramp clocks stand still meanwhile.
 *
 *     weir_shedding_note     a call was shed (503): from that moment on its deployment sheds
 *     weir_shedding_sweep    some times a second: a deployment without a shed for WEIR_SHEDDING_QUIET_NS sheds no more
 *
 * A router judges by its own calls. Threads: any; one that notes a deployment known to shed takes no lock, and calls that are not
 * shed come by here not at all. */
#ifndef WEIR_ROUTER_CALL_SHEDDING_H
#define WEIR_ROUTER_CALL_SHEDDING_H

#include "base/buf.h"
#include "base/err.h"

#define WEIR_SHEDDING_QUIET_NS (5ull * 1000000000)
#define WEIR_SHEDDING_MAX 64 /* deployments at once; beyond it clocks run on */

struct weir_limits;
struct weir_shedding;

WEIR_MUST_CHECK weir_err weir_shedding_open(struct weir_limits *limits, struct weir_shedding **ret,
                                            struct weir_why *why);
void weir_shedding_close(struct weir_shedding *shedding); /* takes NULL */
void weir_shedding_note(struct weir_shedding *shedding, struct weir_str deployment, uint64_t now_ns);
void weir_shedding_sweep(struct weir_shedding *shedding, uint64_t now_ns);

#endif
