/* fake.h - an HTTP server that says what a test tells it to: for replies that no real etcd or router gives on
 * demand. */
#ifndef WEIR_TESTS_DISCOVERY_FAKE_H
#define WEIR_TESTS_DISCOVERY_FAKE_H

#include <pthread.h>
#include <stdatomic.h>

#define FAKE_HEAD_OK "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"

struct fake {
    int listen_fd, port;
    pthread_t thread;
    atomic_int n_conns;
    /* On the fake's thread, for each request: writes the whole answer to fd, which is closed after it. */
    void (*answer)(void *ctx, int fd, const char *method_and_path, const char *body);
    void *ctx;
};
void fake_open(struct fake *f, void (*answer)(void *, int, const char *, const char *), void *ctx);
void fake_close(struct fake *f);         /* waits for answers that are being written */
void fake_say(int fd, const char *text); /* also from answer */

#endif
