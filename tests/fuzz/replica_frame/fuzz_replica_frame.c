/* Property: whatever bytes a replica sends as a frame, it is decoded within its bound or refused, and every
 * entry of it is accounted for; here no port is open, so all of them are unknown. */
#include <string.h>

#include "router/fabric/fabric_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct weir_attach *attach(void)
{
    static const struct attach_opts opts = { .backoff_min_ms = 1, .inbox_bytes_max = 1 << 20 };
    const struct weir_replica_record rec = {
        .id = WEIR_STR("r"), .model = WEIR_STR("m"), .grpc = WEIR_STR("h:1"), .admin = WEIR_STR("h:2")
    };
    return attach_open(&opts, /* fleet= */ NULL, &rec);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct ports ports;
    static struct weir_attach *att;
    uint32_t n_unknown = 0;

    if (!att) {
        ports_init(&ports);
        att = attach();
        WEIR_BUG_ON(!att);
    }
    struct frame *frame = fabric_frame_open((struct weir_str){ (const char *)data, size });
    if (!frame)
        return 0;
    const Weir__Fabric__V1__ReplicaFrame *msg = frame_msg(frame);
    size_t n = msg->n_accepted + msg->n_started + msg->n_deltas + msg->n_terminals;
    WEIR_BUG_ON(frame_cost_bytes(frame) > (65u << 20));
    WEIR_BUG_ON(frame_dispatch(frame, &ports, att, &n_unknown) != WEIR_OK);
    WEIR_BUG_ON(n_unknown != n);
    return 0;
}
