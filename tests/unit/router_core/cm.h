/* cm.h - what cmocka wants included before it. */
#ifndef WEIR_TESTS_ROUTER_CORE_CM_H
#define WEIR_TESTS_ROUTER_CORE_CM_H

/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#endif
