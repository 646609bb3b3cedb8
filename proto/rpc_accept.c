/* rpc_accept.c - our own accept loop for plaintext ports.
 *
 * The core's listener stops for good when accept once fails for want of a descriptor (upstream fixed that
 * after the version that Debian has), and it has no bound on connections. Here a socket is accepted, counted
 * and handed over. [A1] Out of descriptors: the spare one is spent on accepting and closing the connection,
 * so that the peer hears at once and the loop does not spin; when there are descriptors again, all is as
 * before. [A2] At most connections_max connections live. The core owns a socket once it has it and does not
 * say when it closes it; the table keeps each socket's inode, and a descriptor that is another inode by now
 * is free. Threads: accept. */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <grpc/grpc_posix.h>
#include <grpc/grpc_security.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "proto/rpc_int.h"

#define LISTENERS_MAX 4 /* addresses of one name */
#define BACKLOG 512
#define RETRY_MS 50 /* with no descriptor and no spare either */

struct conn {
    int fd;
    ino_t inode;
};

struct rpc_accept {
    struct pollfd fds[LISTENERS_MAX + 1]; /* [0] is the stop signal, an eventfd */
    nfds_t n_fds;
    int spare_fd;
    int port;
    struct weir_thread thread;
    grpc_server *server;
    grpc_server_credentials *creds;
    struct weir_counter *over_cap, *no_descriptor; /* connections refused, by reason */
    uint32_t n_conns, n_conns_max;
    struct conn conns[]; /* at most n_conns_max */
};

/* ---- listening ---- */
static int listen_on(const struct addrinfo *ai, int *reterr_errno)
{
    int on = 1, off = 0;
    int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, ai->ai_protocol);

    if (fd < 0)
        goto fail;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (ai->ai_family == AF_INET6) /* "[::]" is every address of both kinds */
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    if (bind(fd, ai->ai_addr, ai->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
fail:
    *reterr_errno = errno;
    if (fd >= 0)
        close(fd);
    return -1;
}

static int port_of(int fd)
{
    struct sockaddr_storage addr = { 0 };
    socklen_t len = sizeof addr;

    if (getsockname(fd, (struct sockaddr *)&addr, &len) != 0)
        return 0;
    return ntohs(addr.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&addr)->sin6_port
                                            : ((struct sockaddr_in *)&addr)->sin_port);
}

static void set_port(struct sockaddr *addr, int port)
{
    if (addr->sa_family == AF_INET6)
        ((struct sockaddr_in6 *)addr)->sin6_port = htons((uint16_t)port);
    else
        ((struct sockaddr_in *)addr)->sin_port = htons((uint16_t)port);
}

/* A name may stand twice in /etc/hosts. */
static bool is_repeated(const struct addrinfo *list, const struct addrinfo *ai)
{
    for (; list != ai; list = list->ai_next)
        if (list->ai_addrlen == ai->ai_addrlen && memcmp(list->ai_addr, ai->ai_addr, ai->ai_addrlen) == 0)
            return true;
    return false;
}

/* Every address of the name, on one port. A kind of address that this machine lacks (::1 in many containers)
 * is no fault as long as one is left; nor is it when the port that one address was given is taken at another.
 */
static weir_err listen_on_all(struct rpc_accept *acc, struct addrinfo *list, const char *text,
                              struct weir_why *why)
{
    bool any_port = weir_str_eq((struct weir_str){ text + strlen(text) - 2, 2 }, ":0");
    int error = 0;

    for (struct addrinfo *ai = list; ai && acc->n_fds <= LISTENERS_MAX; ai = ai->ai_next) {
        if (acc->port != 0)
            set_port(ai->ai_addr, acc->port);
        if (is_repeated(list, ai))
            continue;
        int fd = listen_on(ai, &error);
        if (fd >= 0) {
            acc->fds[acc->n_fds++] = (struct pollfd){ .fd = fd, .events = POLLIN };
            acc->port = port_of(fd);
        } else if (error == EADDRINUSE && any_port && acc->n_fds > 1) {
            continue;
        } else if (error != EADDRNOTAVAIL && error != EAFNOSUPPORT) {
            return weir_fail_param(why, "listen", WEIR_IO, "can't listen on %s: %s", text, strerror(error));
        }
    }
    if (acc->n_fds == 1)
        return weir_fail_param(why, "listen", WEIR_IO, "can't listen on %s: %s", text, strerror(error));
    return WEIR_OK;
}

weir_err rpc_accept_open(const char *text, uint32_t connections_max, struct rpc_accept **ret,
                         struct weir_why *why)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE }, *list = NULL;
    char host[256], port[8];
    weir_err rc = rpc_address_split("listen", text, host, port, why);

    if (rc != WEIR_OK)
        return rc;
    int error = getaddrinfo(host, port, &hints, &list);
    if (error != 0)
        return weir_fail_param(why, "listen", WEIR_IO, "can't listen on %s: %s", text, gai_strerror(error));
    struct rpc_accept *acc = weir_alloc0(sizeof *acc + connections_max * sizeof acc->conns[0]);
    if (!acc) {
        freeaddrinfo(list);
        return weir_fail(why, WEIR_NOMEM, "listen: no memory");
    }
    acc->n_conns_max = connections_max;
    acc->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    acc->fds[0] = (struct pollfd){ .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .events = POLLIN };
    acc->n_fds = 1;
    if (acc->spare_fd < 0 || acc->fds[0].fd < 0)
        rc = weir_fail(why, WEIR_IO, "listen: %s", strerror(errno));
    else
        rc = listen_on_all(acc, list, text, why);
    freeaddrinfo(list);
    if (rc != WEIR_OK) {
        rpc_accept_close(acc);
        return rc;
    }
    *ret = acc;
    return WEIR_OK;
}

int rpc_accept_port(const struct rpc_accept *acc)
{
    return acc->port;
}

/* ---- the table of connections ---- */
static bool is_same_socket(const struct conn *conn)
{
    struct stat st;

    return fstat(conn->fd, &st) == 0 && S_ISSOCK(st.st_mode) && st.st_ino == conn->inode;
}

static void sweep(struct rpc_accept *acc)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < acc->n_conns; i++)
        if (is_same_socket(&acc->conns[i]))
            acc->conns[n++] = acc->conns[i];
    acc->n_conns = n;
}

/* False: the table is full. [A2] */
static bool remember(struct rpc_accept *acc, int fd)
{
    struct stat st;

    if (fstat(fd, &st) != 0)
        return false;
    if (acc->n_conns == acc->n_conns_max)
        sweep(acc);
    if (acc->n_conns == acc->n_conns_max)
        return false;
    acc->conns[acc->n_conns++] = (struct conn){ .fd = fd, .inode = st.st_ino };
    return true;
}

/* ---- the loop ---- */
static void hand_over(struct rpc_accept *acc, int fd)
{
    int on = 1;

    if (!remember(acc, fd)) {
        weir_counter_add(acc->over_cap, 1);
        close(fd);
        WEIR_WARN("rpc_connection_refused", "port=%d connections_max=%u", acc->port, acc->n_conns_max);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    grpc_server_add_channel_from_fd(acc->server, fd, acc->creds); /* owns it now */
}

/* [A1] */
static void out_of_descriptors(struct rpc_accept *acc, int listen_fd)
{
    if (acc->spare_fd >= 0) {
        close(acc->spare_fd);
        int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0)
            close(fd);
    } else {
        (void)poll(&acc->fds[0], 1, RETRY_MS);
    }
    acc->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    weir_counter_add(acc->no_descriptor, 1);
    WEIR_WARN("rpc_out_of_descriptors", "port=%d", acc->port);
}

static void accept_one(struct rpc_accept *acc, int listen_fd)
{
    int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd >= 0)
        hand_over(acc, fd);
    else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
        out_of_descriptors(acc, listen_fd);
    /* else: the peer has gone again, or another's turn */
}

static void *accept_loop(void *arg)
{
    struct rpc_accept *acc = arg;

    for (;;) {
        if (poll(acc->fds, acc->n_fds, -1) < 0)
            continue; /* EINTR */
        if (acc->fds[0].revents)
            return NULL;
        for (nfds_t i = 1; i < acc->n_fds; i++)
            if (acc->fds[i].revents)
                accept_one(acc, acc->fds[i].fd);
    }
}

weir_err rpc_accept_start(struct rpc_accept *acc, grpc_server *server, struct weir_why *why)
{
    const char *help = "connections to a gRPC port that were refused";

    acc->over_cap = weir_counter("weir_rpc_connections_refused_total", "reason=\"cap\"", help);
    acc->no_descriptor = weir_counter("weir_rpc_connections_refused_total", "reason=\"descriptors\"", help);
    acc->server = server;
    acc->creds = grpc_insecure_server_credentials_create();
    return weir_thread_start(&acc->thread, WEIR_ROLE_ANY, "rpc-accept", accept_loop, acc, why);
}

void rpc_accept_close(struct rpc_accept *acc)
{
    const uint64_t one = 1;

    if (!acc)
        return;
    if (acc->thread.running)
        WEIR_BUG_ON(write(acc->fds[0].fd, &one, sizeof one) != sizeof one);
    weir_thread_join(&acc->thread);
    for (nfds_t i = 0; i < acc->n_fds; i++)
        if (acc->fds[i].fd >= 0)
            close(acc->fds[i].fd);
    if (acc->spare_fd >= 0)
        close(acc->spare_fd);
    if (acc->creds)
        grpc_server_credentials_release(acc->creds);
    weir_free(acc);
}
