/* test_etcd.c - the fleet's view and our registrations against a real etcd: what a restart, a freeze, a
 * compaction, a lost disk, passwords and TLS do to them. Skipped (77) where no etcd is installed. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "harness.h"

static struct etcd_proc shared; /* for tests that leave etcd as it was */

static struct weir_discovery_opts opts_of(struct etcd_proc *p)
{
    return view_opts(p);
}

static int count(struct view *v, const char *prefix)
{
    const struct weir_disc_entry *first;
    const struct weir_disc_snapshot *snap = weir_discovery_snapshot(v->d);
    int n = weir_disc_prefix(snap, prefix, &first);
    weir_disc_snapshot_unref(snap);
    return n;
}

/* ---- the view ---- */

static void test_watch_shows_adds_changes_and_deletes(void **state)
{
    struct view v;
    (void)state;
    etcd_proc_put(&shared, "/weir/keys/before", "{\"n\":0}");
    etcd_proc_put(&shared, "/elsewhere/x", "not ours");
    view_open(&v, opts_of(&shared));
    assert_true(view_wait(&v, "/weir/keys/before", "{\"n\":0}"));
    etcd_proc_put(&shared, "/weir/keys/a", "{\"n\":1}");
    assert_true(view_wait(&v, "/weir/keys/a", "{\"n\":1}"));
    etcd_proc_put(&shared, "/weir/keys/a", "{\"n\":2}");
    assert_true(view_wait(&v, "/weir/keys/a", "{\"n\":2}"));
    etcd_proc_delete(&shared, "/weir/keys/a");
    assert_true(view_wait(&v, "/weir/keys/a", NULL));
    assert_true(view_has(&v, "/weir/keys/before", "{\"n\":0}"));
    assert_true(view_has(&v, "/elsewhere/x", NULL));
    assert_true(weir_discovery_connected(v.d));
    etcd_proc_delete(&shared, "/weir/keys/before");
    view_close(&v);
}

static void test_an_empty_etcd_gives_an_empty_snapshot(void **state)
{
    struct view v;
    (void)state;
    struct weir_discovery_opts opts = opts_of(&shared);
    opts.prefix = "/nothing/here/";
    view_open(&v, opts);
    assert_true(view_wait(&v, "/nothing/here/x", NULL));
    assert_int_equal(count(&v, ""), 0);
    view_close(&v);
}

static void test_many_keys_come_in_pages_of_one_moment(void **state)
{
    enum { N = 33000, BATCH = 120 }; /* more than two pages */
    static char keys[BATCH][48];
    struct weir_disc_op ops[BATCH];
    struct weir_discovery_opts opts = opts_of(&shared);
    const struct weir_disc_snapshot *snap;
    struct view v;
    (void)state;
    for (int i = 0; i < N; i += BATCH) {
        for (int k = 0; k < BATCH; k++) {
            snprintf(keys[k], sizeof keys[k], "/many/keys/%05d", i + k);
            ops[k] = (struct weir_disc_op){ WEIR_DISC_PUT, weir_str(keys[k]), WEIR_STR("{}") };
        }
        assert_int_equal(weir_discovery_txn(&opts, NULL, 0, ops, BATCH, NULL), WEIR_OK);
    }
    assert_int_equal(weir_discovery_read(&opts, "/many/", &snap, NULL), WEIR_OK);
    assert_int_equal(snap->n_entries, N);
    weir_disc_snapshot_unref(snap);
    opts.prefix = "/many/";
    view_open(&v, opts);
    assert_true(view_wait(&v, "/many/keys/32999", "{}"));
    assert_int_equal(count(&v, "/many/keys/"), N);
    view_close(&v);
}

/* ---- transactions ---- */

static void test_txn_keeps_its_conditions(void **state)
{
    struct weir_discovery_opts opts = opts_of(&shared);
    struct weir_disc_cond absent = { WEIR_STR("/weir/t/k"), 0 };
    struct weir_disc_op put = { WEIR_DISC_PUT, WEIR_STR("/weir/t/k"), WEIR_STR("1") };
    struct weir_disc_op put2 = { WEIR_DISC_PUT, WEIR_STR("/weir/t/k"), WEIR_STR("2") };
    struct weir_disc_op del = { WEIR_DISC_DELETE, WEIR_STR("/weir/t/k"), { 0 } };
    const struct weir_disc_snapshot *snap;
    struct weir_why why = { 0 };
    (void)state;
    struct weir_buf value;
    int64_t revision = 0;
    weir_buf_init(&value, /* limit_bytes= */ 0);
    assert_int_equal(weir_discovery_get(&opts, absent.key, &value, &revision, &why), WEIR_NOTFOUND);
    assert_int_equal(weir_discovery_txn(&opts, &absent, 1, &put, 1, &why), WEIR_OK);
    assert_int_equal(weir_discovery_get(&opts, absent.key, &value, &revision, &why), WEIR_OK);
    assert_string_equal(weir_buf_cstr(&value), "1");
    struct weir_disc_cond as_seen = { absent.key, revision };
    assert_int_equal(weir_discovery_txn(&opts, &as_seen, 1, &put, 1, &why), WEIR_OK);
    assert_int_equal(weir_discovery_txn(&opts, &as_seen, 1, &put, 1, &why),
                     WEIR_CONFLICT); /* it has changed */
    weir_buf_release(&value);
    assert_int_equal(weir_discovery_txn(&opts, &absent, 1, &put, 1, &why), WEIR_CONFLICT);
    assert_int_equal(weir_discovery_read(&opts, "/weir/t/", &snap, &why), WEIR_OK);
    assert_int_equal(snap->n_entries, 1);
    struct weir_disc_cond at = { WEIR_STR("/weir/t/k"), snap->entries[0].revision };
    weir_disc_snapshot_unref(snap);
    assert_int_equal(weir_discovery_txn(&opts, &at, 1, &put2, 1, &why), WEIR_OK);
    assert_int_equal(weir_discovery_txn(&opts, &at, 1, &del, 1, &why), WEIR_CONFLICT);
    assert_int_equal(weir_discovery_txn(&opts, NULL, 0, &del, 1, &why), WEIR_OK);
    assert_int_equal(weir_discovery_read(&opts, "/weir/t/", &snap, &why), WEIR_OK);
    assert_int_equal(snap->n_entries, 0);
    weir_disc_snapshot_unref(snap);
}

static void test_txn_without_etcd_is_unavailable_and_the_next_endpoint_is_tried(void **state)
{
    char source[200];
    struct weir_discovery_opts opts = opts_of(&shared);
    struct weir_disc_op put = { WEIR_DISC_PUT, WEIR_STR("/weir/t/k"), WEIR_STR("1") };
    struct weir_disc_op del = { WEIR_DISC_DELETE, WEIR_STR("/weir/t/k"), { 0 } };
    struct weir_why why = { 0 };
    (void)state;
    opts.source = "etcd://127.0.0.1:1";
    assert_int_equal(weir_discovery_txn(&opts, NULL, 0, &put, 1, &why), WEIR_UNAVAILABLE);
    assert_true(strlen(why.text) > 0);
    snprintf(source, sizeof source, "etcd://127.0.0.1:1,127.0.0.1:%d", shared.client_port);
    opts.source = source;
    assert_int_equal(weir_discovery_txn(&opts, NULL, 0, &put, 1, &why), WEIR_OK);
    assert_int_equal(weir_discovery_txn(&opts, NULL, 0, &del, 1, &why), WEIR_OK);
}

/* ---- registrations ---- */

static void test_registration_appears_changes_and_leaves_at_once_on_close(void **state)
{
    struct view v, owner;
    (void)state;
    view_open(&v, opts_of(&shared));
    struct weir_discovery_opts opts = opts_of(&shared);
    opts.lease_ttl_s = 600; /* so that only the revoke can explain that the key goes */
    view_open(&owner, opts);
    assert_int_equal(weir_discovery_register(owner.d, "/weir/replicas/m/r1", WEIR_STR("{\"id\":\"r1\"}")),
                     WEIR_OK);
    assert_int_equal(weir_discovery_register(owner.d, "/weir/routers/x", WEIR_STR("{}")), WEIR_OK);
    assert_true(view_wait(&v, "/weir/replicas/m/r1", "{\"id\":\"r1\"}"));
    assert_true(view_wait(&v, "/weir/routers/x", "{}"));
    assert_int_equal(weir_discovery_register(owner.d, "/weir/replicas/m/r1", WEIR_STR("{\"id\":\"r2\"}")),
                     WEIR_OK);
    assert_true(view_wait(&v, "/weir/replicas/m/r1", "{\"id\":\"r2\"}"));
    weir_discovery_unregister(owner.d, "/weir/routers/x");
    assert_true(view_wait(&v, "/weir/routers/x", NULL));
    assert_true(view_has(&v, "/weir/replicas/m/r1", "{\"id\":\"r2\"}"));
    view_close(&owner);
    assert_true(view_wait(&v, "/weir/replicas/m/r1", NULL));
    view_close(&v);
}

static void test_a_key_deleted_by_somebody_is_put_again(void **state)
{
    struct view owner;
    (void)state;
    view_open(&owner, opts_of(&shared));
    assert_int_equal(weir_discovery_register(owner.d, "/weir/routers/y", WEIR_STR("{\"v\":1}")), WEIR_OK);
    assert_true(view_wait(&owner, "/weir/routers/y", "{\"v\":1}"));
    view_mark(&owner);
    etcd_proc_delete(&shared, "/weir/routers/y");
    assert_true(view_wait_snapshot(&owner));
    assert_true(view_wait(&owner, "/weir/routers/y", "{\"v\":1}"));
    view_close(&owner);
}

static int64_t revision_in_etcd(const char *key)
{
    const struct weir_disc_snapshot *snap;
    struct weir_discovery_opts opts = opts_of(&shared);
    assert_int_equal(weir_discovery_read(&opts, key, &snap, NULL), WEIR_OK);
    int64_t revision = snap->n_entries == 1 ? snap->entries[0].revision : -1;
    weir_disc_snapshot_unref(snap);
    return revision;
}

static void test_unregister_leaves_a_name_that_another_took_over(void **state)
{
    struct view older, newer;
    (void)state;
    view_open(&older, opts_of(&shared));
    view_open(&newer, opts_of(&shared));
    assert_int_equal(weir_discovery_register(older.d, "/weir/routers/z", WEIR_STR("\"old\"")), WEIR_OK);
    assert_true(view_wait(&newer, "/weir/routers/z", "\"old\""));
    assert_int_equal(weir_discovery_register(newer.d, "/weir/routers/z", WEIR_STR("\"new\"")), WEIR_OK);
    assert_true(view_wait(&newer, "/weir/routers/z", "\"new\""));
    int64_t revision = revision_in_etcd("/weir/routers/z");
    weir_discovery_unregister(older.d, "/weir/routers/z");
    /* A marker through the same queue: when it shows, the delete has been answered. */
    assert_int_equal(weir_discovery_register(older.d, "/weir/routers/marker", WEIR_STR("1")), WEIR_OK);
    assert_true(view_wait(&newer, "/weir/routers/marker", "1"));
    view_close(&older);
    assert_true(view_wait(&newer, "/weir/routers/marker", NULL)); /* its lease is revoked */
    assert_true(view_has(&newer, "/weir/routers/z", "\"new\""));
    assert_true(revision_in_etcd("/weir/routers/z") == revision); /* never gone, not even for a moment */
    view_close(&newer);
}

/* Another process holds a registration, until it is killed. */
static int hold_registration(const char *source, const char *key)
{
    struct weir_discovery_opts opts = { .source = source, .prefix = "/weir/", .lease_ttl_s = 2 };
    struct weir_discovery *d;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (weir_discovery_open(&opts, &d, NULL) != WEIR_OK ||
        weir_discovery_register(d, key, WEIR_STR("\"held\"")) != WEIR_OK)
        return 1;
    for (;;)
        pause();
}

static void test_a_killed_process_leaves_when_its_lease_ends(void **state)
{
    struct view v;
    (void)state;
    view_open(&v, opts_of(&shared));
    pid_t pid = fork();
    if (pid == 0) {
        execl("/proc/self/exe", "test_etcd", "--hold", shared.source, "/weir/replicas/m/dead", (char *)NULL);
        _exit(127);
    }
    assert_true(view_wait(&v, "/weir/replicas/m/dead", "\"held\""));
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    assert_true(view_wait(&v, "/weir/replicas/m/dead", NULL));
    view_close(&v);
}

static void test_a_lost_lease_is_granted_again_and_the_key_put_again(void **state)
{
    struct view v;
    char reply[4096];
    (void)state;
    view_open(&v, opts_of(&shared));
    assert_int_equal(weir_discovery_register(v.d, "/weir/routers/lease", WEIR_STR("1")), WEIR_OK);
    assert_true(view_wait(&v, "/weir/routers/lease", "1"));
    etcd_proc_post(&shared, NULL, "/v3/lease/leases", "{}", reply);
    view_mark(&v);
    for (char *at = reply; (at = strstr(at, "\"ID\":\"")); at++) { /* revoke every lease there is */
        char json[100];
        snprintf(json, sizeof json, "{\"ID\":\"%lld\"}", atoll(at + 6));
        etcd_proc_post(&shared, NULL, "/v3/lease/revoke", json, NULL);
    }
    assert_true(view_wait_snapshot(&v));
    assert_true(view_wait(&v, "/weir/routers/lease", "1"));
    view_close(&v);
}

/* ---- etcd in trouble: each with an etcd of its own ---- */

static int setup_etcd(void **state)
{
    struct etcd_proc *p = calloc(1, sizeof *p);
    etcd_proc_init(p, /* tls= */ false);
    etcd_proc_start(p);
    *state = p;
    return 0;
}

static int teardown_etcd(void **state)
{
    etcd_proc_release(*state);
    free(*state);
    return 0;
}

static void test_kill_and_restart_loses_no_event_and_shows_nothing_less(void **state)
{
    struct etcd_proc *p = *state;
    struct view v, owner;
    etcd_proc_put(p, "/weir/keys/a", "1");
    etcd_proc_put(p, "/weir/keys/b", "1");
    view_open(&v, opts_of(p));
    view_open(&owner, opts_of(p));
    assert_int_equal(weir_discovery_register(owner.d, "/weir/routers/r", WEIR_STR("1")), WEIR_OK);
    assert_true(view_wait(&v, "/weir/routers/r", "1"));
    view_mark(&v);
    uint64_t n_start = resyncs("start");
    etcd_proc_kill(p);
    assert_true(view_wait_connected(&v, false));
    assert_true(view_has(&v, "/weir/keys/a", "1")); /* the last view stays */
    etcd_proc_start(p);
    /* Changes while our watch may not be back yet. */
    etcd_proc_put(p, "/weir/keys/a", "2");
    etcd_proc_put(p, "/weir/keys/c", "1");
    assert_true(view_wait(&v, "/weir/keys/a", "2"));
    assert_true(view_wait(&v, "/weir/keys/c", "1"));
    assert_true(view_wait_connected(&v, true));
    assert_true(view_has(&v, "/weir/routers/r", "1"));
    assert_true(view_n_entries_min(&v) >= 3);
    assert_int_equal(resyncs("start"), n_start); /* resumed, not read again */
    view_close(&owner);
    assert_true(view_wait(&v, "/weir/routers/r", NULL)); /* the lease is still the owner's: revoked */
    view_close(&v);
}

static void test_a_registration_made_during_an_outage_comes_after_it(void **state)
{
    struct etcd_proc *p = *state;
    struct view v;
    view_open(&v, opts_of(p));
    assert_true(view_wait_connected(&v, true));
    etcd_proc_kill(p);
    assert_true(view_wait_connected(&v, false));
    assert_int_equal(weir_discovery_register(v.d, "/weir/routers/late", WEIR_STR("1")), WEIR_OK);
    etcd_proc_start(p);
    assert_true(view_wait(&v, "/weir/routers/late", "1"));
    view_close(&v);
}

static void test_compaction_while_away_means_a_resync_that_adds_before_it_removes(void **state)
{
    struct etcd_proc *p = *state;
    struct view v;
    char json[100];
    const struct weir_disc_snapshot *snap;
    struct weir_discovery_opts opts = opts_of(p);
    etcd_proc_put(p, "/weir/keys/old", "1");
    etcd_proc_put(p, "/weir/keys/stays", "1");
    view_open(&v, opts_of(p));
    assert_true(view_wait(&v, "/weir/keys/stays", "1"));
    assert_true(view_wait_connected(&v, true));
    view_mark(&v);
    uint64_t n_before = resyncs("compacted");
    kill(p->pid, SIGSTOP); /* away: we drop the watch, and while etcd is stopped nothing reaches it */
    assert_true(view_wait_connected(&v, false));
    etcd_proc_kill(p);
    /* The same data on other ports: we can change it, the view can't see it. */
    int client_port = p->client_port;
    struct etcd_proc other = *p;
    other.client_port = free_port();
    snprintf(other.url, sizeof other.url, "http://127.0.0.1:%d", other.client_port);
    snprintf(other.source, sizeof other.source, "etcd://127.0.0.1:%d", other.client_port);
    etcd_proc_start(&other);
    etcd_proc_delete(&other, "/weir/keys/old");
    etcd_proc_put(&other, "/weir/keys/new", "1");
    opts.source = other.source;
    assert_int_equal(weir_discovery_read(&opts, "/weir/", &snap, NULL), WEIR_OK);
    snprintf(json, sizeof json, "{\"revision\":\"%lld\"}", (long long)snap->revision);
    weir_disc_snapshot_unref(snap);
    etcd_proc_post(&other, NULL, "/v3/kv/compaction", json, NULL);
    etcd_proc_kill(&other);
    p->client_port = client_port;
    etcd_proc_start(p);
    assert_true(view_wait(&v, "/weir/keys/old", NULL));
    assert_true(view_has(&v, "/weir/keys/new", "1"));
    assert_true(view_has(&v, "/weir/keys/stays", "1"));
    assert_int_equal(view_n_snapshots(&v), 2);   /* first old + new + stays, */
    assert_int_equal(view_n_entries_min(&v), 2); /* then new + stays */
    assert_true(resyncs("compacted") > n_before);
    etcd_proc_put(p, "/weir/keys/after", "1"); /* and the watch runs */
    assert_true(view_wait(&v, "/weir/keys/after", "1"));
    view_close(&v);
}

static void test_a_frozen_etcd_is_noticed_and_nothing_is_lost_when_it_thaws(void **state)
{
    struct etcd_proc *p = *state;
    struct view v;
    etcd_proc_put(p, "/weir/keys/a", "1");
    view_open(&v, opts_of(p));
    assert_int_equal(weir_discovery_register(v.d, "/weir/routers/r", WEIR_STR("1")), WEIR_OK);
    assert_true(view_wait(&v, "/weir/routers/r", "1"));
    view_mark(&v);
    kill(p->pid, SIGSTOP);
    assert_true(view_wait_connected(&v, false)); /* although its kernel still answers for it */
    kill(p->pid, SIGCONT);
    etcd_proc_put(p, "/weir/keys/a", "2");
    assert_true(view_wait(&v, "/weir/keys/a", "2"));
    assert_true(view_wait_connected(&v, true));
    assert_true(view_wait(&v, "/weir/routers/r", "1"));
    view_close(&v);
}

static void wiped(struct etcd_proc *p, bool new_cluster_id, const char *reason)
{
    struct view v;
    etcd_proc_put(p, "/weir/keys/k1", "1");
    etcd_proc_put(p, "/weir/keys/k2", "1");
    etcd_proc_put(p, "/weir/replicas/m/gone", "1"); /* its owner will not come back */
    view_open(&v, opts_of(p));
    assert_int_equal(weir_discovery_register(v.d, "/weir/replicas/m/r", WEIR_STR("1")), WEIR_OK);
    assert_true(view_wait(&v, "/weir/replicas/m/r", "1"));
    view_mark(&v);
    uint64_t n_before = resyncs(reason);
    etcd_proc_kill(p);
    etcd_proc_wipe(p, new_cluster_id);
    etcd_proc_start(p);
    /* The owner registers again; what the new history lacks goes when the owners had their time ... */
    assert_true(view_wait(&v, "/weir/replicas/m/gone", NULL));
    assert_true(resyncs(reason) > n_before);
    assert_true(view_has(&v, "/weir/replicas/m/r", "1"));
    /* ... but a kind of which it has nothing at all is kept, */
    assert_true(view_has(&v, "/weir/keys/k1", "1"));
    assert_true(view_has(&v, "/weir/keys/k2", "1"));
    /* until it has something. */
    etcd_proc_put(p, "/weir/keys/k3", "1");
    assert_true(view_wait(&v, "/weir/keys/k1", NULL));
    assert_true(view_has(&v, "/weir/keys/k2", NULL));
    assert_true(view_has(&v, "/weir/keys/k3", "1"));
    assert_true(view_has(&v, "/weir/replicas/m/r", "1"));
    assert_true(view_n_entries_min(&v) >= 2); /* never empty */
    const struct weir_disc_snapshot *snap;
    struct weir_discovery_opts opts = opts_of(p);
    assert_int_equal(weir_discovery_read(&opts, "/weir/replicas/", &snap, NULL), WEIR_OK);
    assert_int_equal(snap->n_entries, 1); /* really registered again, not only kept in our view */
    weir_disc_snapshot_unref(snap);
    view_close(&v); /* asserts that revisions never went back */
}

static void test_an_etcd_that_lost_its_disk_does_not_empty_the_fleet(void **state)
{
    wiped(*state, /* new_cluster_id= */ true, "new_cluster");
}

static void test_an_etcd_restored_from_before_does_not_empty_the_fleet(void **state)
{
    wiped(*state, /* new_cluster_id= */ false, "rolled_back");
}

static void test_auth_with_user_and_password(void **state)
{
    struct etcd_proc *p = *state;
    struct view v;
    struct weir_discovery_opts opts = opts_of(p), wrong = opts_of(p);
    struct weir_why why = { 0 };
    etcd_proc_post(p, NULL, "/v3/auth/user/add", "{\"name\":\"root\",\"password\":\"secret\"}", NULL);
    etcd_proc_post(p, NULL, "/v3/auth/role/add", "{\"name\":\"root\"}", NULL);
    etcd_proc_post(p, NULL, "/v3/auth/user/grant", "{\"user\":\"root\",\"role\":\"root\"}", NULL);
    etcd_proc_post(p, NULL, "/v3/auth/enable", "{}", NULL);
    opts.user = wrong.user = "root";
    opts.password = "secret";
    wrong.password = "guess";
    struct weir_disc_op put = { WEIR_DISC_PUT, WEIR_STR("/weir/keys/a"), WEIR_STR("1") };
    assert_int_not_equal(weir_discovery_txn(&wrong, NULL, 0, &put, 1, &why), WEIR_OK);
    assert_non_null(strstr(why.text, "authentication failed"));
    assert_int_equal(weir_discovery_txn(&opts, NULL, 0, &put, 1, &why), WEIR_OK);
    view_open(&v, opts);
    assert_true(view_wait(&v, "/weir/keys/a", "1"));
    assert_int_equal(weir_discovery_register(v.d, "/weir/routers/r", WEIR_STR("1")), WEIR_OK);
    assert_true(view_wait(&v, "/weir/routers/r", "1"));
    /* Tokens do not survive a new password: the next put has to fetch one. */
    char reply[4096], json[200];
    etcd_proc_post(p, NULL, "/v3/auth/authenticate", "{\"name\":\"root\",\"password\":\"secret\"}", reply);
    char *token = strstr(reply, "\"token\":\"");
    assert_non_null(token);
    snprintf(json, sizeof json, "%.*s", (int)strcspn(token + 9, "\""), token + 9);
    etcd_proc_post(p, json, "/v3/auth/user/changepw", "{\"name\":\"root\",\"password\":\"secret\"}", NULL);
    assert_int_equal(weir_discovery_register(v.d, "/weir/routers/r", WEIR_STR("2")), WEIR_OK);
    assert_true(view_wait(&v, "/weir/routers/r", "2"));
    view_close(&v);
}

static void test_tls_with_a_client_certificate(void **state)
{
    struct etcd_proc p;
    struct view v;
    struct weir_why why = { 0 };
    (void)state;
    etcd_proc_init(&p, /* tls= */ true);
    etcd_proc_start(&p);
    struct weir_discovery_opts opts = opts_of(&p), no_ca = opts_of(&p), no_cert = opts_of(&p);
    struct weir_disc_op put = { WEIR_DISC_PUT, WEIR_STR("/weir/keys/a"), WEIR_STR("1") };
    no_ca.ca_file = NULL;
    no_cert.cert_file = no_cert.key_file = NULL;
    assert_int_equal(weir_discovery_txn(&no_ca, NULL, 0, &put, 1, &why), WEIR_UNAVAILABLE);
    assert_int_equal(weir_discovery_txn(&no_cert, NULL, 0, &put, 1, &why), WEIR_UNAVAILABLE);
    assert_int_equal(weir_discovery_txn(&opts, NULL, 0, &put, 1, &why), WEIR_OK);
    view_open(&v, opts);
    assert_true(view_wait(&v, "/weir/keys/a", "1"));
    assert_int_equal(weir_discovery_register(v.d, "/weir/routers/r", WEIR_STR("1")), WEIR_OK);
    assert_true(view_wait(&v, "/weir/routers/r", "1"));
    view_close(&v);
    etcd_proc_release(&p);
}

static void test_the_next_endpoint_serves_when_one_is_down(void **state)
{
    struct view v;
    char source[200];
    struct weir_discovery_opts opts = opts_of(&shared);
    (void)state;
    snprintf(source, sizeof source, "etcd://127.0.0.1:1,127.0.0.1:2,127.0.0.1:%d", shared.client_port);
    opts.source = source;
    view_open(&v, opts);
    assert_true(view_wait_connected(&v, true));
    view_close(&v);
}

static int start_shared(void **state)
{
    (void)state;
    etcd_proc_init(&shared, /* tls= */ false);
    etcd_proc_start(&shared);
    return 0;
}

static int stop_shared(void **state)
{
    (void)state;
    etcd_proc_release(&shared);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "--hold") == 0)
        return hold_registration(argv[2], argv[3]);
    if (!etcd_is_installed()) {
        printf("SKIP: no etcd binary\n");
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_watch_shows_adds_changes_and_deletes),
        cmocka_unit_test(test_an_empty_etcd_gives_an_empty_snapshot),
        cmocka_unit_test(test_many_keys_come_in_pages_of_one_moment),
        cmocka_unit_test(test_txn_keeps_its_conditions),
        cmocka_unit_test(test_txn_without_etcd_is_unavailable_and_the_next_endpoint_is_tried),
        cmocka_unit_test(test_registration_appears_changes_and_leaves_at_once_on_close),
        cmocka_unit_test(test_a_key_deleted_by_somebody_is_put_again),
        cmocka_unit_test(test_unregister_leaves_a_name_that_another_took_over),
        cmocka_unit_test(test_a_killed_process_leaves_when_its_lease_ends),
        cmocka_unit_test(test_a_lost_lease_is_granted_again_and_the_key_put_again),
        cmocka_unit_test(test_the_next_endpoint_serves_when_one_is_down),
        cmocka_unit_test_setup_teardown(test_kill_and_restart_loses_no_event_and_shows_nothing_less,
                                        setup_etcd, teardown_etcd),
        cmocka_unit_test_setup_teardown(test_a_registration_made_during_an_outage_comes_after_it, setup_etcd,
                                        teardown_etcd),
        cmocka_unit_test_setup_teardown(test_compaction_while_away_means_a_resync_that_adds_before_it_removes,
                                        setup_etcd, teardown_etcd),
        cmocka_unit_test_setup_teardown(test_a_frozen_etcd_is_noticed_and_nothing_is_lost_when_it_thaws,
                                        setup_etcd, teardown_etcd),
        cmocka_unit_test_setup_teardown(test_an_etcd_that_lost_its_disk_does_not_empty_the_fleet, setup_etcd,
                                        teardown_etcd),
        cmocka_unit_test_setup_teardown(test_an_etcd_restored_from_before_does_not_empty_the_fleet,
                                        setup_etcd, teardown_etcd),
        cmocka_unit_test_setup_teardown(test_auth_with_user_and_password, setup_etcd, teardown_etcd),
        cmocka_unit_test(test_tls_with_a_client_certificate),
    };
    return cmocka_run_group_tests(tests, start_shared, stop_shared);
}
