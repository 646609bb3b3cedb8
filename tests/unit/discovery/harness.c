/* harness.c - etcd as a child process, and a view that can be waited for. Tests only. */
#include "harness.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/metrics.h"
#include "discovery/etcd_http.h"
#include "discovery/http.h"

static int port_sockets[64], n_port_sockets;

/* Asked of the kernel; the socket stays bound (without listening) until etcd starts, so no other test gets
 * it. */
int free_port(void)
{
    struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof addr;
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0 && n_port_sockets < 64);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one); /* Go sets it too: it may bind beside us */
    assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof addr), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&addr, &len), 0);
    port_sockets[n_port_sockets++] = fd;
    return ntohs(addr.sin_port);
}

void run_command(const char *fmt, ...)
{
    char command[2000];
    va_list args;
    va_start(args, fmt);
    vsnprintf(command, sizeof command, fmt, args);
    va_end(args);
    int status = system(command);
    if (status != 0)
        fail_msg("status %d: %s", status, command);
}

bool wait_until(bool (*cond)(void *ctx), void *ctx)
{
    uint64_t end = weir_now_ns() + DEADLINE_S * WEIR_S;
    while (!cond(ctx)) {
        if (weir_now_ns() > end)
            return false;
        usleep(3000);
    }
    return true;
}

/* ---- etcd ---- */

bool etcd_is_installed(void)
{
    return system("command -v etcd >/dev/null 2>&1") == 0;
}

static void make_certificates(const char *dir)
{
    run_command(
        "cd %s && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out "
        "ca.pem "
        "-days 2 -subj /CN=ca 2>/dev/null && for n in server client; do openssl req -newkey ec -pkeyopt "
        "ec_paramgen_curve:P-256 -nodes -keyout $n.key -out $n.csr -subj /CN=$n 2>/dev/null && printf "
        "'subjectAltName=IP:127.0.0.1\\nextendedKeyUsage=serverAuth,clientAuth\\n' > ext && openssl x509 "
        "-req -in "
        "$n.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out $n.pem 2>/dev/null; done",
        dir);
}

void etcd_proc_init(struct etcd_proc *p, bool tls)
{
    *p = (struct etcd_proc){ .tls = tls };
    strcpy(p->dir, "/tmp/weir-test-etcd-XXXXXX");
    assert_non_null(mkdtemp(p->dir));
    p->client_port = free_port();
    p->peer_port = free_port();
    snprintf(p->source, sizeof p->source, "etcd%s://127.0.0.1:%d", tls ? "s" : "", p->client_port);
    snprintf(p->url, sizeof p->url, "http%s://127.0.0.1:%d", tls ? "s" : "", p->client_port);
    if (tls)
        make_certificates(p->dir);
}

static void exec_etcd(struct etcd_proc *p)
{
    char peer[96], cluster[128], token[64], command[2400], tls[400] = "";
    snprintf(peer, sizeof peer, "http://127.0.0.1:%d", p->peer_port);
    snprintf(cluster, sizeof cluster, "n=%s", peer);
    snprintf(token, sizeof token, "t%d", p->token);
    if (p->tls)
        snprintf(tls, sizeof tls,
                 "--cert-file %s/server.pem --key-file %s/server.key --trusted-ca-file %s/ca.pem "
                 "--client-cert-auth",
                 p->dir, p->dir, p->dir);
    snprintf(command, sizeof command,
             "exec etcd --name n --data-dir %s/data --listen-client-urls %s --advertise-client-urls %s "
             "--listen-peer-urls %s --initial-advertise-peer-urls %s --initial-cluster %s "
             "--initial-cluster-token %s --heartbeat-interval 50 --election-timeout 500 %s >%s/log 2>&1",
             p->dir, p->url, p->url, peer, peer, cluster, token, tls, p->dir);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    execl("/bin/sh", "sh", "-c", command, (char *)NULL);
    _exit(127);
}

static bool is_answering(void *ctx)
{
    struct etcd_proc *p = ctx;
    char command[600];
    if (p->tls) {
        snprintf(command, sizeof command,
                 "curl -s -m 1 --noproxy '*' --cacert %s/ca.pem --cert %s/client.pem --key %s/client.key "
                 "%s/health | grep -q true",
                 p->dir, p->dir, p->dir, p->url);
        return system(command) == 0;
    }
    struct weir_buf body;
    int status = 0;
    weir_buf_init(&body, 4096);
    snprintf(command, sizeof command, "%s/health", p->url);
    bool ok = weir_http_get(command, 500, &body, &status, NULL) == WEIR_OK && status == 200;
    weir_buf_release(&body);
    return ok;
}

void etcd_proc_start(struct etcd_proc *p)
{
    while (n_port_sockets > 0)
        close(port_sockets[--n_port_sockets]);
    p->pid = fork();
    assert_true(p->pid >= 0);
    if (p->pid == 0)
        exec_etcd(p);
    assert_true(wait_until(is_answering, p));
}

void etcd_proc_kill(struct etcd_proc *p)
{
    if (p->pid <= 0)
        return;
    kill(p->pid, SIGKILL);
    waitpid(p->pid, NULL, 0);
    p->pid = 0;
}

void etcd_proc_wipe(struct etcd_proc *p, bool new_cluster_id)
{
    run_command("rm -rf %s/data", p->dir);
    p->token += new_cluster_id;
}

void etcd_proc_release(struct etcd_proc *p)
{
    etcd_proc_kill(p);
    if (p->dir[0])
        run_command("rm -rf %s", p->dir);
    p->dir[0] = '\0';
}

struct post {
    bool done;
    int status;
    weir_err err;
    char *reply;
};

static void on_posted(void *ctx, const struct etcd_result *result)
{
    struct post *post = ctx;
    post->done = true;
    post->err = result->err;
    post->status = result->status;
    if (post->reply)
        snprintf(post->reply, 4096, "%.*s", WEIR_STR_FMT(result->body));
    if (result->err != WEIR_OK || result->status != 200)
        print_error("etcd: %s %d %.*s\n", result->detail, result->status, WEIR_STR_FMT(result->body));
}

void etcd_proc_post(struct etcd_proc *p, const char *bearer, const char *path, const char *json, char *reply)
{
    struct etcd_http *http;
    struct post post = { .reply = reply };
    char url[200];
    snprintf(url, sizeof url, "%s%s", p->url, path);
    assert_int_equal(etcd_http_open(&(struct etcd_http_opts){ 0 }, &http, NULL), WEIR_OK);
    struct etcd_call_spec spec = { .url = url,
                                   .authorization = bearer,
                                   .body = weir_str(json),
                                   .timeout_ms = 5000,
                                   .body_max = 4096,
                                   .on_done = on_posted,
                                   .ctx = &post };
    assert_non_null(etcd_call_open(http, &spec));
    while (!post.done) {
        etcd_http_perform(http);
        if (!post.done)
            etcd_http_wait(http, WEIR_S);
    }
    etcd_http_close(http);
    assert_int_equal(post.err, WEIR_OK);
    assert_int_equal(post.status, 200);
}

static void change(struct etcd_proc *p, const struct weir_disc_op *op)
{
    struct weir_discovery_opts opts = view_opts(p);
    struct weir_why why = { 0 };
    weir_err rc = weir_discovery_txn(&opts, NULL, 0, op, 1, &why);
    if (rc != WEIR_OK)
        fail_msg("txn: %s", why.text);
}

void etcd_proc_put(struct etcd_proc *p, const char *key, const char *value)
{
    change(p, &(struct weir_disc_op){ WEIR_DISC_PUT, weir_str(key), weir_str(value) });
}

void etcd_proc_delete(struct etcd_proc *p, const char *key)
{
    change(p, &(struct weir_disc_op){ WEIR_DISC_DELETE, weir_str(key), { 0 } });
}

/* ---- a view ---- */

static void on_snapshot(void *ctx, const struct weir_disc_snapshot *snap)
{
    struct view *v = ctx;
    pthread_mutex_lock(&v->lock);
    if (snap->version <= v->version_last || snap->revision < v->revision_last)
        v->is_unordered = true;
    for (int i = 0; i < snap->n_entries; i++)
        if (snap->entries[i].revision > snap->revision && snap->revision != 0)
            v->is_unordered = true;
    v->version_last = snap->version;
    v->revision_last = snap->revision;
    v->n_snapshots++;
    if (snap->n_entries < v->n_entries_min)
        v->n_entries_min = snap->n_entries;
    pthread_cond_broadcast(&v->changed);
    pthread_mutex_unlock(&v->lock);
}

struct weir_discovery_opts view_opts(const struct etcd_proc *p)
{
    static char ca[100], cert[100], key[100];
    struct weir_discovery_opts opts = { .source = p->source, .prefix = "/weir/", .lease_ttl_s = 2 };
    if (p->tls) {
        snprintf(ca, sizeof ca, "%s/ca.pem", p->dir);
        snprintf(cert, sizeof cert, "%s/client.pem", p->dir);
        snprintf(key, sizeof key, "%s/client.key", p->dir);
        opts.ca_file = ca;
        opts.cert_file = cert;
        opts.key_file = key;
    }
    return opts;
}

void view_open(struct view *v, struct weir_discovery_opts opts)
{
    struct weir_why why = { 0 };
    *v = (struct view){ 0 };
    pthread_mutex_init(&v->lock, NULL);
    pthread_cond_init(&v->changed, NULL);
    view_mark(v);
    opts.on_snapshot = on_snapshot;
    opts.ctx = v;
    weir_err rc = weir_discovery_open(&opts, &v->d, &why);
    if (rc != WEIR_OK)
        fail_msg("open: %s", why.text);
}

void view_close(struct view *v)
{
    weir_discovery_close(v->d);
    v->d = NULL;
    assert_false(v->is_unordered);
    pthread_cond_destroy(&v->changed);
    pthread_mutex_destroy(&v->lock);
}

void view_mark(struct view *v)
{
    pthread_mutex_lock(&v->lock);
    v->n_snapshots = 0;
    v->n_entries_min = 1 << 30;
    pthread_mutex_unlock(&v->lock);
}

bool view_has(struct view *v, const char *key, const char *value)
{
    const struct weir_disc_snapshot *snap = weir_discovery_snapshot(v->d);
    const struct weir_disc_entry *entry = weir_disc_find(snap, weir_str(key));
    bool ok = value ? entry && weir_str_eq(entry->value, value) : snap && !entry;
    weir_disc_snapshot_unref(snap);
    return ok;
}

bool view_wait(struct view *v, const char *key, const char *value)
{
    struct timespec end;
    bool ok;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += DEADLINE_S;
    pthread_mutex_lock(&v->lock);
    while (!(ok = view_has(v, key, value)))
        if (pthread_cond_timedwait(&v->changed, &v->lock, &end) != 0)
            break;
    pthread_mutex_unlock(&v->lock);
    return ok;
}

int view_n_snapshots(struct view *v)
{
    pthread_mutex_lock(&v->lock);
    int n = v->n_snapshots;
    pthread_mutex_unlock(&v->lock);
    return n;
}

int view_n_entries_min(struct view *v)
{
    pthread_mutex_lock(&v->lock);
    int n = v->n_entries_min;
    pthread_mutex_unlock(&v->lock);
    return n;
}

static bool has_snapshot(void *ctx)
{
    return view_n_snapshots(ctx) > 0;
}

bool view_wait_snapshot(struct view *v)
{
    return wait_until(has_snapshot, v);
}

struct connected {
    struct view *v;
    bool want;
};

static bool is_connected(void *ctx)
{
    struct connected *c = ctx;
    return weir_discovery_connected(c->v->d) == c->want;
}

bool view_wait_connected(struct view *v, bool connected)
{
    return wait_until(is_connected, &(struct connected){ v, connected });
}

uint64_t resyncs(const char *reason)
{
    char labels[64];
    snprintf(labels, sizeof labels, "reason=\"%s\"", reason);
    return weir_counter_get(
        weir_counter("weir_discovery_resyncs_total", labels, "whole reads of the fleet's view, by cause"));
}
