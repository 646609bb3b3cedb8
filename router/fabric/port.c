/* port.c - the table of ports: see port.h. The lock is held for a few instructions: a reference must be taken
 * before the port can go. */
#include "router/fabric/fabric_int.h"

#include <string.h>

#include "base/mem.h"

void ports_init(struct ports *ports)
{
    memset(ports, 0, sizeof *ports);
    pthread_mutex_init(&ports->lock, /* attr= */ NULL);
}

void ports_release(struct ports *ports)
{
    for (uint32_t i = 0; i < ports->n; i++)
        WEIR_CHECK(!ports->port[i]); /* every callset is closed before the fleet */
    pthread_mutex_destroy(&ports->lock);
}

struct weir_port *ports_get(struct ports *ports, uint32_t index)
{
    struct weir_port *port = NULL;

    if (index >= WEIR_PORTS_MAX)
        return NULL;
    pthread_mutex_lock(&ports->lock);
    port = ports->port[index];
    if (port)
        atomic_fetch_add_explicit(&port->refs, 1, memory_order_relaxed);
    pthread_mutex_unlock(&ports->lock);
    return port;
}

void port_unref(struct weir_port *port)
{
    if (port && atomic_fetch_sub_explicit(&port->refs, 1, memory_order_acq_rel) == 1)
        weir_free(port);
}

weir_err weir_port_open(struct weir_fleet *fleet, struct weir_loop *loop, const struct weir_port_ops *ops,
                        void *ctx, struct weir_port **ret, struct weir_why *why)
{
    struct ports *ports = fleet_ports(fleet);
    struct weir_port *port = weir_alloc0(sizeof *port);

    if (!port)
        return weir_fail(why, WEIR_NOMEM, "fabric: no room for a port");
    port->refs = 1;
    port->loop = loop;
    port->ops = *ops;
    port->ctx = ctx;
    pthread_mutex_lock(&ports->lock);
    bool full = ports->n == WEIR_PORTS_MAX;
    if (!full) {
        port->index = ports->n++;
        ports->port[port->index] = port;
    }
    pthread_mutex_unlock(&ports->lock);
    if (full) {
        weir_free(port);
        return weir_fail(why, WEIR_FULL, "fabric: a fleet has at most %d loops in its life", WEIR_PORTS_MAX);
    }
    *ret = port;
    return WEIR_OK;
}

void weir_port_close(struct weir_fleet *fleet, struct weir_port *port)
{
    struct ports *ports = fleet_ports(fleet);

    if (!port)
        return;
    pthread_mutex_lock(&ports->lock);
    ports->port[port->index] = NULL;
    pthread_mutex_unlock(&ports->lock);
    port->ctx = NULL;
    port_unref(port);
}

uint64_t weir_port_tag_base(const struct weir_port *port)
{
    return (uint64_t)port->index << WEIR_TAG_PORT_SHIFT;
}
