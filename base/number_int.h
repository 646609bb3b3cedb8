/* number_int.h - doubles as text, whatever the locale. Private to base. */
#ifndef WEIR_BASE_NUMBER_INT_H
#define WEIR_BASE_NUMBER_INT_H

#include <stddef.h>

enum { NUMBER_TEXT_MAX = 40 };

/* strtod in the C locale. */
double number_read(const char *text, char **ret_end);
/* The shortest text that reads back equal; x is finite. Returns its length; a NUL follows. */
size_t number_write(double x, char ret[NUMBER_TEXT_MAX]);

#endif
