/* capture.h - what a piece of code writes to a file descriptor (1 or 2), for the tests of base. */
#ifndef WEIR_TESTS_BASE_CAPTURE_H
#define WEIR_TESTS_BASE_CAPTURE_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct capture {
    int fd, saved;
    FILE *file;
    char text[262144];
};

static inline void capture_start(struct capture *c, int fd)
{
    fflush(NULL);
    c->fd = fd;
    c->file = tmpfile();
    c->saved = dup(fd);
    if (!c->file || c->saved < 0 || dup2(fileno(c->file), fd) < 0)
        abort();
}

static inline void capture_end(struct capture *c)
{
    fflush(NULL);
    if (dup2(c->saved, c->fd) < 0)
        abort();
    close(c->saved);
    rewind(c->file);
    size_t n = fread(c->text, 1, sizeof c->text - 1, c->file);
    c->text[n] = '\0';
    fclose(c->file);
}

#endif
