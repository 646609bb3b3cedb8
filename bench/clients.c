/* clients.c - see clients.h.
 *
 * Blocking sockets and a thread for each client: a read wakes the thread it is for, and no loop is between; some dozens of
 * clients are meant, not thousands (rest.c does those).
 * Threads: a client's thread owns its answers until it is joined. */
#include "bench/clients.h"

#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/thread.h"
#include "bench/answer.h"
#include "bench/load.h"

struct crowd;

struct client {
    struct weir_thread thread;
    struct crowd *crowd;
    uint32_t index;
    struct weir_buf request;
    struct clients_answer *answers; /* its part of all of them */
    struct answer answer;
};

struct crowd {
    const struct clients_opts *opts;
    struct sockaddr_storage addr;
    socklen_t addr_len;
    struct client *clients;
    struct clients_answer *answers;
    pthread_mutex_t gate; /* held until all threads are there */
    bool is_off;          /* under the gate: not all could start, so nobody asks */
};

/* ---- requests ---- */
static uint64_t next_random(uint64_t *state) /* splitmix64 (Steele, Lea, Flood 2014) */
{
    uint64_t z = *state += 0x9e3779b97f4a7c15;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

static void add_ids(const struct clients_opts *opts, uint64_t seed, uint32_t n, struct weir_buf *out)
{
    for (uint32_t i = 0; i < n; i++) {
        if (weir_buf_len(out) > 0)
            weir_buf_addc(out, ',');
        weir_buf_addu(out, opts->id_min + next_random(&seed) % (opts->id_max - opts->id_min + 1));
    }
}

void clients_prompt(const struct clients_opts *opts, uint32_t i_client, uint32_t i_request,
                    struct weir_buf *out)
{
    uint64_t state = opts->own_seed ^ ((uint64_t)i_client << 32 | i_request);

    add_ids(opts, opts->shared_seed, opts->n_shared, out);
    add_ids(opts, next_random(&state), opts->n_own, out);
}

/* return_token_ids: a token without text is an event, too, where the server knows the field. */
static void add_body(const struct client *c, uint32_t i_request, struct weir_buf *out)
{
    const struct clients_opts *opts = c->crowd->opts;
    struct weir_buf ids;

    weir_buf_init(&ids, 0);
    clients_prompt(opts, c->index, i_request, &ids);
    weir_buf_addf(
        out,
        "{\"model\":\"%s\",\"stream\":true,\"stream_options\":{\"include_usage\":true},\"max_tokens\":%u,"
        "\"temperature\":0,\"ignore_eos\":true,\"return_token_ids\":true,\"prompt\":[",
        opts->model, opts->n_out);
    weir_buf_add(out, weir_buf_ptr(&ids), weir_buf_len(&ids));
    weir_buf_adds(out, "]}");
    out->failed |= ids.failed;
    weir_buf_release(&ids);
}

static bool make_request(struct client *c, uint32_t i_request)
{
    const struct clients_opts *opts = c->crowd->opts;
    struct weir_buf body;

    weir_buf_init(&body, 0);
    weir_buf_clear(&c->request);
    add_body(c, i_request, &body);
    weir_buf_addf(
        &c->request,
        "POST %s HTTP/1.1\r\nhost: %s\r\nauthorization: Bearer %s\r\ncontent-type: application/json\r\n"
        "content-length: %zu\r\n\r\n",
        opts->path, opts->target, opts->api_key, weir_buf_len(&body));
    weir_buf_add(&c->request, weir_buf_ptr(&body), weir_buf_len(&body));
    bool ok = !body.failed && !c->request.failed;
    weir_buf_release(&body);
    return ok;
}

/* ---- one exchange ---- */
static bool send_all(int fd, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = send(fd, data, len, MSG_NOSIGNAL);
        if (n < 0)
            return false;
        data += n;
        len -= (size_t)n;
    }
    return true;
}

static bool add_read(struct clients_answer *a, uint64_t n_events)
{
    if (a->n_reads == a->cap_reads) {
        size_t cap = a->cap_reads ? 2 * a->cap_reads : 256;
        struct clients_read *reads = weir_realloc(a->reads, cap * sizeof *reads);
        if (!reads)
            return false;
        a->reads = reads;
        a->cap_reads = cap;
    }
    a->reads[a->n_reads++] = (struct clients_read){ weir_now_ns(), n_events };
    return true;
}

/* What was wrong with it, or NULL. */
static const char *receive(struct client *c, int fd, struct clients_answer *ret)
{
    char data[1 << 14];

    answer_begin(&c->answer);
    c->answer.body = &ret->body;
    while (c->answer.state == ANSWER_MORE) {
        uint64_t n_before = c->answer.n_events;
        ssize_t n = recv(fd, data, sizeof data, 0);
        if (n <= 0)
            return n == 0 ? "the connection closed in the middle of an answer" : "nothing came any more";
        answer_take(&c->answer, data, (size_t)n);
        ret->status = c->answer.status;
        if (c->answer.n_events > n_before && !add_read(ret, c->answer.n_events))
            return "no memory";
    }
    if (ret->body.failed)
        return "no memory";
    return c->answer.state == ANSWER_BAD ? "an answer that is not understood" : NULL;
}

/* On a connection of its own: there are servers that promise to keep one, and close it. */
static const char *ask(struct client *c, struct clients_answer *ret)
{
    struct timeval silence = { .tv_sec = CLIENTS_SILENCE_S };

    ret->sent_ns = weir_now_ns();
    int fd = load_connect(&c->crowd->addr, c->crowd->addr_len);
    if (fd < 0)
        return "can't connect";
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &silence, sizeof silence);
    const char *fault = "the connection closed before the request was sent";
    if (send_all(fd, weir_buf_ptr(&c->request), weir_buf_len(&c->request)))
        fault = receive(c, fd, ret);
    close(fd);
    return fault;
}

static bool may_begin(struct crowd *crowd)
{
    pthread_mutex_lock(&crowd->gate);
    bool may = !crowd->is_off;
    pthread_mutex_unlock(&crowd->gate);
    return may;
}

static void *client_run(void *arg)
{
    struct client *c = arg;
    uint32_t n = may_begin(c->crowd) ? c->crowd->opts->n_requests : 0;

    for (uint32_t i = 0; i < n; i++) {
        struct clients_answer *a = &c->answers[i];
        a->fault = make_request(c, i) ? ask(c, a) : "no memory";
        if (a->fault || a->status != 200)
            break; /* the rest of this client's stays without an answer */
    }
    return NULL;
}

/* ---- all of them ---- */
static weir_err open_all(struct crowd *crowd, struct weir_why *why)
{
    uint32_t n = crowd->opts->n_clients;

    crowd->clients = weir_calloc(n, sizeof *crowd->clients);
    crowd->answers = weir_calloc((size_t)n * crowd->opts->n_requests, sizeof *crowd->answers);
    if (!crowd->clients || !crowd->answers)
        return weir_fail(why, WEIR_NOMEM, "no memory for %u clients", n);
    for (uint32_t i = 0; i < n; i++) {
        struct client *c = &crowd->clients[i];
        c->crowd = crowd;
        c->index = i;
        c->answers = crowd->answers + (size_t)i * crowd->opts->n_requests;
        weir_buf_init(&c->request, 0);
    }
    return WEIR_OK;
}

static weir_err run_all(struct crowd *crowd, struct weir_why *why)
{
    weir_err err = WEIR_OK;

    pthread_mutex_lock(&crowd->gate);
    for (uint32_t i = 0; i < crowd->opts->n_clients && err == WEIR_OK; i++)
        err = weir_thread_start(&crowd->clients[i].thread, WEIR_ROLE_ANY, "client", client_run,
                                &crowd->clients[i], why);
    crowd->is_off = err != WEIR_OK;
    pthread_mutex_unlock(&crowd->gate);
    for (uint32_t i = 0; i < crowd->opts->n_clients; i++)
        weir_thread_join(&crowd->clients[i].thread);
    return err;
}

static void release(struct crowd *crowd)
{
    for (uint32_t i = 0; crowd->clients && i < crowd->opts->n_clients; i++)
        weir_buf_release(&crowd->clients[i].request);
    weir_free(crowd->clients);
}

weir_err clients_run(const struct clients_opts *opts, struct clients_answer **ret, struct weir_why *why)
{
    struct crowd crowd = { .opts = opts, .gate = PTHREAD_MUTEX_INITIALIZER };
    weir_err err = load_resolve(opts->target, &crowd.addr, &crowd.addr_len, why);

    if (err == WEIR_OK)
        err = open_all(&crowd, why);
    if (err == WEIR_OK)
        err = run_all(&crowd, why);
    release(&crowd);
    if (err == WEIR_OK)
        *ret = crowd.answers;
    else
        clients_close(crowd.answers, (size_t)opts->n_clients * opts->n_requests);
    return err;
}

void clients_close(struct clients_answer *answers, size_t n)
{
    for (size_t i = 0; answers && i < n; i++) {
        weir_free(answers[i].reads);
        weir_buf_release(&answers[i].body);
    }
    weir_free(answers);
}
