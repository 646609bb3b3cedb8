/* page.h - page.html, embedded at build time. */
#ifndef WEIR_ROUTER_ADMIN_PAGE_H
#define WEIR_ROUTER_ADMIN_PAGE_H

#include <stddef.h>

extern const char weir_admin_page[];
extern const size_t weir_admin_page_len;

#endif
