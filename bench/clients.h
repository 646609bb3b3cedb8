/* clients.h - clients that each ask a few times in a row for a streamed completion of prompts given as token ids.
 *
 * Ids, so that every server computes the same tokens, whatever its tokenizer is. A thread for each client, all begin at once; while
 * they run nothing is done but sending, receiving and reading a clock: what was received is read afterwards. */
#ifndef WEIR_BENCH_CLIENTS_H
#define WEIR_BENCH_CLIENTS_H

#include "base/buf.h"
#include "base/err.h"

struct clients_opts {
    const char *target; /* host:port */
    const char *path, *api_key, *model;
    uint32_t n_clients, n_requests; /* of each client, one after the other */
    uint32_t n_shared, n_own;       /* tokens of a prompt: first those that all have, then its own */
    uint32_t n_out;
    uint32_t id_min, id_max; /* prompts are made of these */
    uint64_t shared_seed, own_seed;
};

struct clients_read {
    uint64_t at_ns;
    uint64_t n_events; /* of the answer, up to here */
};

/* How one request went; n_requests of them for each client. */
struct clients_answer {
    int status;                 /* 0: no answer */
    uint64_t sent_ns;           /* when its first byte was about to be */
    struct clients_read *reads; /* those that brought events */
    size_t n_reads, cap_reads;
    struct weir_buf body;
    const char *fault; /* a constant; NULL when it ended as it should */
};

#define CLIENTS_SILENCE_S 300 /* a server that says nothing for so long has failed */

/* One prompt: ids with commas between them. The same for the same seeds and place; any thread. */
void clients_prompt(const struct clients_opts *opts, uint32_t i_client, uint32_t i_request,
                    struct weir_buf *out);
/* Runs all to their end. *ret has n_clients * n_requests entries, client by client: the caller's to close.
 * Requests that failed say so themselves. WEIR_INVALID: the target; WEIR_NOMEM; WEIR_UNAVAILABLE: no thread. */
WEIR_MUST_CHECK weir_err clients_run(const struct clients_opts *opts, struct clients_answer **ret,
                                     struct weir_why *why);
void clients_close(struct clients_answer *answers, size_t n); /* takes NULL */

#endif
