/* ident.h - who a process is: its id, its incarnation, the addresses that others reach it at. Start-up only.
 */
#ifndef WEIR_BASE_IDENT_H
#define WEIR_BASE_IDENT_H

#include <stddef.h>
#include <stdint.h>

/* The wall clock in nanoseconds with random low bits: later starts are larger, two at once differ. */
uint64_t weir_incarnation(void);
/* `given`, or when it is empty "<role>-<8 hex digits>". */
void weir_ident_id(const char *given, const char *role, char *ret, size_t size);
/* What to tell others: `given`, or when it is empty the host of `listen` with the port that was really bound.
 */
void weir_ident_address(const char *given, const char *listen, int port, char *ret, size_t size);

#endif
