/* harness.h - a real etcd in a temporary folder, and a reader that waits for what the fleet's view should
 * show. */
#ifndef WEIR_TESTS_DISCOVERY_HARNESS_H
#define WEIR_TESTS_DISCOVERY_HARNESS_H

#include <pthread.h>
#include <stdbool.h>
#include <sys/types.h>

#include "discovery/discovery.h"

#define DEADLINE_S 20 /* of every wait: reached only when something is broken */

/* ---- etcd ---- */
struct etcd_proc {
    pid_t pid;
    char dir[64];
    char source[96]; /* "etcd://127.0.0.1:port" */
    char url[96];    /* "http://127.0.0.1:port" */
    int client_port, peer_port;
    int token; /* of the cluster: another one gives another cluster id */
    bool tls;
};
bool etcd_is_installed(void);
void etcd_proc_init(struct etcd_proc *p, bool tls); /* a folder, ports, with tls certificates; not started */
void etcd_proc_start(struct etcd_proc *p);          /* returns when it answers */
void etcd_proc_kill(struct etcd_proc *p);           /* -9 */
void etcd_proc_wipe(struct etcd_proc *p, bool new_cluster_id); /* a killed one loses its data */
void etcd_proc_release(struct etcd_proc *p); /* kills, removes the folder; takes one half made */
/* POST to its gateway; fails the test unless the status is 200. `reply` (may be NULL) of 4096 bytes. */
void etcd_proc_post(struct etcd_proc *p, const char *bearer, const char *path, const char *json, char *reply);
void etcd_proc_put(struct etcd_proc *p, const char *key, const char *value);
void etcd_proc_delete(struct etcd_proc *p, const char *key);

/* ---- a view ---- */
struct view {
    struct weir_discovery *d;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int n_snapshots, n_entries_min; /* since view_mark */
    uint64_t version_last;
    int64_t revision_last;
    bool is_unordered; /* a version or revision went back, or keys were not sorted */
};
struct weir_discovery_opts view_opts(const struct etcd_proc *p); /* prefix /weir/, TTL 2 s */
void view_open(struct view *v, struct weir_discovery_opts opts);
void view_close(struct view *v);
void view_mark(struct view *v);
/* Waits until the key has the value (NULL: is absent). False after DEADLINE_S. */
bool view_wait(struct view *v, const char *key, const char *value);
bool view_has(struct view *v, const char *key, const char *value); /* now */
/* Since view_mark. */
int view_n_snapshots(struct view *v);
int view_n_entries_min(struct view *v);
bool view_wait_snapshot(struct view *v); /* until there is one */
bool view_wait_connected(struct view *v, bool connected);
/* Waits until the condition holds; polled every few milliseconds. */
bool wait_until(bool (*cond)(void *ctx), void *ctx);
uint64_t resyncs(const char *reason); /* the counter */

int free_port(void);
void run_command(const char *fmt, ...) WEIR_PRINTF(1, 2); /* fails the test unless it exits with 0 */

#endif
