/* discovery_int.h - how the door (discovery.c) and a provider (etcd.c, file.c) work together.
 *
 * The thread's loop is: now = clock; next = tick(now); wait(next - now). A provider reads no clock of its
 * own. */
#ifndef WEIR_DISCOVERY_DISCOVERY_INT_H
#define WEIR_DISCOVERY_DISCOVERY_INT_H

#include "discovery/discovery.h"
#include "discovery/regs.h"
#include "discovery/source.h"

/* Longest prefix; etcd_request.c keeps its end on the stack. */
#define DISC_PREFIX_MAX 200

struct disc_provider; /* each provider has its own */
struct disc_provider_ops {
    /* `src` is the provider's to borrow until close. */
    weir_err (*open)(struct weir_discovery *d, const struct weir_discovery_opts *opts,
                     const struct source *src, struct disc_provider **ret, struct weir_why *why);
    uint64_t (*tick)(struct disc_provider *p,
                     uint64_t now_ns); /* does what is due; returns when the next is */
    void (*wait)(struct disc_provider *p, uint64_t timeout_ns);
    void (*wake)(struct disc_provider *p);  /* any thread */
    void (*leave)(struct disc_provider *p); /* the last thing on the thread: say goodbye */
    void (*close)(struct disc_provider *p); /* after the thread; takes NULL */
    bool takes_registrations;
};
extern const struct disc_provider_ops disc_etcd_ops, disc_file_ops;

/* ---- what a provider tells the door, on the discovery thread ---- */
void disc_publish(struct weir_discovery *d,
                  const struct weir_disc_snapshot *snap); /* takes a reference itself */
void disc_set_connected(struct weir_discovery *d, bool connected);
struct regs *disc_regs(struct weir_discovery *d);

/* file.c: reads the file once. WEIR_IO, WEIR_INVALID, WEIR_TOOLARGE name the file and the fault. */
WEIR_MUST_CHECK weir_err disc_file_read(const char *path, const char *prefix, int64_t revision,
                                        const struct weir_disc_snapshot *old,
                                        const struct weir_disc_snapshot **ret, struct weir_why *why);

#endif
