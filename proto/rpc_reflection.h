/* rpc_reflection.h - grpc.reflection.v1 and v1alpha: what a server's services are and how they are described.
 * Private to proto.
 *
 * The description is the FileDescriptorSet of every contract, made at build time. */
#ifndef WEIR_PROTO_RPC_REFLECTION_H
#define WEIR_PROTO_RPC_REFLECTION_H

#include <stddef.h>

#include "proto/rpc.h"

extern const char rpc_contracts[]; /* a serialized google.protobuf.FileDescriptorSet */
extern const size_t rpc_contracts_len;

struct rpc_reflection {
    const struct weir_rpc_handler *handlers; /* of the whole server: whose services are listed */
    int n_handlers;
};
#define RPC_REFLECTION_HANDLERS 2
void rpc_reflection_handlers(struct rpc_reflection *reflection,
                             struct weir_rpc_handler ret[RPC_REFLECTION_HANDLERS]);

/* "pkg.Service" of "/pkg.Service/Method"; is it the first handler of its service? */
struct weir_str rpc_service_of(const struct weir_rpc_handler *handler);
bool rpc_is_first_of_service(const struct weir_rpc_handler *handlers, int i);

#endif
