/* fake.c - one connection at a time would let a stream block all others, so each has a thread. Tests only. */
#include "fake.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define REQUEST_MAX 65536

struct conn {
    struct fake *fake;
    int fd;
};

void fake_say(int fd, const char *text)
{
    size_t len = strlen(text);
    while (len > 0) {
        ssize_t n = send(fd, text, len, MSG_NOSIGNAL);
        if (n <= 0)
            return;
        text += n;
        len -= (size_t)n;
    }
}

static void *serve(void *arg)
{
    struct conn *conn = arg;
    char *request = calloc(1, REQUEST_MAX), *body = NULL;
    size_t len = 0, want = 0;
    while (request && len < REQUEST_MAX - 1) {
        ssize_t n = recv(conn->fd, request + len, REQUEST_MAX - 1 - len, 0);
        if (n <= 0)
            break;
        len += (size_t)n;
        body = strstr(request, "\r\n\r\n");
        const char *length = strcasestr(request, "content-length:");
        want = length ? strtoul(length + 15, NULL, 10) : 0;
        if (body && len >= (size_t)(body + 4 - request) + want)
            break;
    }
    if (body) {
        body += 4;
        request[strcspn(request, "\r")] = '\0';
        conn->fake->answer(conn->fake->ctx, conn->fd, request, body);
    }
    shutdown(conn->fd, SHUT_RDWR);
    close(conn->fd);
    free(request);
    atomic_fetch_sub(&conn->fake->n_conns, 1);
    free(conn);
    return NULL;
}

static void *run(void *arg)
{
    struct fake *f = arg;
    for (;;) {
        int fd = accept(f->listen_fd, NULL, NULL);
        if (fd < 0)
            return NULL;
        struct conn *conn = malloc(sizeof *conn);
        pthread_t thread;
        *conn = (struct conn){ f, fd };
        atomic_fetch_add(&f->n_conns, 1);
        if (pthread_create(&thread, NULL, serve, conn) != 0)
            abort();
        pthread_detach(thread);
    }
}

void fake_open(struct fake *f, void (*answer)(void *, int, const char *, const char *), void *ctx)
{
    struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof addr;
    f->answer = answer;
    f->ctx = ctx;
    atomic_init(&f->n_conns, 0);
    f->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(f->listen_fd, (struct sockaddr *)&addr, sizeof addr), 0);
    assert_int_equal(listen(f->listen_fd, 32), 0);
    assert_int_equal(getsockname(f->listen_fd, (struct sockaddr *)&addr, &len), 0);
    f->port = ntohs(addr.sin_port);
    assert_int_equal(pthread_create(&f->thread, NULL, run, f), 0);
}

void fake_close(struct fake *f)
{
    shutdown(f->listen_fd, SHUT_RDWR); /* wakes accept */
    pthread_join(f->thread, NULL);
    close(f->listen_fd);
    while (atomic_load(&f->n_conns) > 0)
        usleep(1000);
}
