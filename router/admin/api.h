/* api.h - the admin API: accounts, keys, models and limits, as JSON over the admin listener.
 *
 *   GET POST           /v1/accounts?accountId=A         GET PATCH   /v1/accounts/A
 *   POST               /v1/accounts/A:suspend {"suspendState"}   /v1/accounts/A:resume
 *   GET POST           /v1/accounts/A/apiKeys           DELETE      /v1/accounts/A/apiKeys/ID
 *   POST               /v1/accounts/A/apiKeys:delete {"keyId"}      (A may be - in a list: of all accounts)
 *   GET POST           /v1/fleet/models?modelId=M       GET PATCH DELETE   /v1/fleet/models/M
 *   GET                /v1/accounts/A/limits?model=M    /v1/accounts/A/serverlessRateLimits?deployment=D
 *   GET PATCH DELETE   /v1/fleet/limitsTable            (every number of the limits; DELETE: the defaults)
 *   GET                /v1/fleet/mesh                   POST        /v1/fleet/mesh:cut {"routers":[]}  (a fault on purpose)
 *
 * Lists take pageSize (50, at most 200) and pageToken. Errors are google.rpc.Status as JSON:
 * {"code","message","details":[{"field"}]}. Every request needs the admin token as a bearer token, where there is one,
 * and a client certificate, where the listener demands one; with neither set up the API refuses everything.
 *
 * Requests are taken on the listener's loop, done by one worker thread (etcd's transactions block) and answered on the
 * loop. A change is answered when this router itself goes by it, or after a second. */
#ifndef WEIR_ROUTER_ADMIN_API_H
#define WEIR_ROUTER_ADMIN_API_H

#include "discovery/discovery.h"
#include "http/http_server.h"

struct weir_admin_api;
struct weir_exchange;
struct weir_fleet;
struct weir_keys;
struct weir_limits;

struct weir_admin_api_opts {
    struct weir_keys *keys; /* all borrowed */
    struct weir_limits *limits;
    struct weir_fleet *fleet;
    struct weir_exchange *exchange;
    const char *token;     /* NULL: none */
    bool has_client_certs; /* the listener lets nobody in without one */
    const char *prefix;    /* of discovery's keys */
    struct weir_discovery *discovery;
    /* Have all in this router who follow discovery taken in its snapshot of this version? Any thread. */
    bool (*has_applied)(void *ctx, uint64_t version);
    void *ctx;
    struct weir_discovery_opts source; /* for transactions; its strings are borrowed */
};

/* Starts the worker. */
WEIR_MUST_CHECK weir_err weir_admin_api_open(const struct weir_admin_api_opts *opts,
                                             struct weir_admin_api **ret, struct weir_why *why);
/* After the listener is closed, while its loop still is: stops the worker; what it was doing is posted to the loop. */
void weir_admin_api_stop(struct weir_admin_api *api);
void weir_admin_api_close(struct weir_admin_api *api); /* after the loop's last turn; takes NULL */

bool weir_admin_api_is_ours(const struct weir_http_req *req);
void weir_admin_api_on_request(struct weir_admin_api *api, struct weir_http_req *req);
/* With the token, or past the listener where there is none; else answers req and returns false. For pages that want the same door. */
bool weir_admin_api_allowed(struct weir_admin_api *api, struct weir_http_req *req);

#endif
