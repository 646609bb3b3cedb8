/* rpc_reflection.c - grpc.reflection: tools ask which services there are and get the contracts' descriptors.
 *
 * The descriptors were serialized at build time; to answer "which file has this symbol" they are walked as
 * they lie, field by field, each time: nobody asks often. v1 and v1alpha are the same messages under two
 * names. A file is answered with all that it imports, itself first. Fields and enum values are no symbols
 * here, and there are no extensions. [X1] One request is answered before the next is read. Source:
 * doc/server-reflection.md of gRPC; google/protobuf/descriptor.proto for the field numbers. */
#include "proto/rpc_reflection.h"

#include <string.h>

#include "base/mem.h"
#include "grpc/reflection/v1/reflection.pb-c.h"

#define REQUEST_BYTES_MAX 4096
#define FILES_MAX 64 /* of our own contracts */

typedef Grpc__Reflection__V1__ServerReflectionRequest request_t;
typedef Grpc__Reflection__V1__ServerReflectionResponse response_t;

/* Field numbers of google.protobuf. */
enum { SET_FILE = 1 };
enum {
    FILE_NAME = 1,
    FILE_PACKAGE = 2,
    FILE_DEPENDENCY = 3,
    FILE_MESSAGE = 4,
    FILE_ENUM = 5,
    FILE_SERVICE = 6
};
enum { ANY_NAME = 1, MESSAGE_NESTED = 3, MESSAGE_ENUM = 4, SERVICE_METHOD = 2 };

/* ---- walking what protoc wrote ---- */
static bool take_varint(struct weir_str *at, uint64_t *ret)
{
    uint64_t value = 0;

    for (unsigned shift = 0; shift < 64 && at->len > 0; shift += 7) {
        uint8_t byte = (uint8_t)*at->ptr;
        at->ptr++;
        at->len--;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *ret = value;
            return true;
        }
    }
    return false;
}

/* The next field that is made of bytes; others are passed over. False: the end. */
static bool next_field(struct weir_str *at, uint64_t *ret_number, struct weir_str *ret)
{
    uint64_t key = 0, n = 0;

    while (take_varint(at, &key)) {
        unsigned wire = key & 7;
        if (wire == 0) {
            if (!take_varint(at, &n))
                return false;
            continue;
        }
        if (wire == 2 ? !take_varint(at, &n) : wire != 1 && wire != 5)
            return false;
        n = wire == 1 ? 8 : wire == 5 ? 4 : n;
        if (n > at->len)
            return false;
        *ret_number = key >> 3;
        *ret = (struct weir_str){ at->ptr, n };
        at->ptr += n;
        at->len -= n;
        if (wire == 2)
            return true;
    }
    return false;
}

/* The i-th field of that number; empty when there are fewer. */
static struct weir_str field(struct weir_str in, uint64_t number, int i)
{
    struct weir_str value;
    uint64_t at;

    while (next_field(&in, &at, &value))
        if (at == number && i-- == 0)
            return value;
    return (struct weir_str){ "", 0 };
}

static bool is_same(struct weir_str a, struct weir_str b)
{
    return a.len == b.len && memcmp(a.ptr, b.ptr, a.len) == 0;
}

/* "a.b.c" begins with "a" and a dot: leaves "b.c". */
static bool strip_scope(struct weir_str *symbol, struct weir_str scope)
{
    if (scope.len == 0)
        return true;
    if (symbol->len <= scope.len || memcmp(symbol->ptr, scope.ptr, scope.len) != 0 ||
        symbol->ptr[scope.len] != '.')
        return false;
    symbol->ptr += scope.len + 1;
    symbol->len -= scope.len + 1;
    return true;
}

/* Is `symbol` the name of a field `number` of `in`? */
static bool names(struct weir_str in, uint64_t number, struct weir_str symbol)
{
    struct weir_str value;
    uint64_t at;

    while (next_field(&in, &at, &value))
        if (at == number && is_same(field(value, ANY_NAME, 0), symbol))
            return true;
    return false;
}

static bool message_declares(struct weir_str message, struct weir_str symbol)
{
    struct weir_str name = field(message, ANY_NAME, 0), value;
    uint64_t at;

    if (is_same(name, symbol))
        return true;
    if (!strip_scope(&symbol, name))
        return false;
    if (names(message, MESSAGE_ENUM, symbol))
        return true;
    while (next_field(&message, &at, &value))
        if (at == MESSAGE_NESTED && message_declares(value, symbol))
            return true;
    return false;
}

static bool service_declares(struct weir_str service, struct weir_str symbol)
{
    struct weir_str name = field(service, ANY_NAME, 0);

    return is_same(name, symbol) || (strip_scope(&symbol, name) && names(service, SERVICE_METHOD, symbol));
}

static bool file_declares(struct weir_str file, struct weir_str symbol)
{
    struct weir_str value;
    uint64_t at;

    if (!strip_scope(&symbol, field(file, FILE_PACKAGE, 0)))
        return false;
    if (names(file, FILE_ENUM, symbol))
        return true;
    while (next_field(&file, &at, &value))
        if ((at == FILE_MESSAGE && message_declares(value, symbol)) ||
            (at == FILE_SERVICE && service_declares(value, symbol)))
            return true;
    return false;
}

/* ---- the files ---- */
struct files {
    ProtobufCBinaryData data[FILES_MAX];
    size_t n;
};

static struct weir_str file_at(int i)
{
    return field((struct weir_str){ rpc_contracts, rpc_contracts_len }, SET_FILE, i);
}

static struct weir_str file_named(struct weir_str name)
{
    for (int i = 0; file_at(i).len > 0; i++)
        if (is_same(field(file_at(i), FILE_NAME, 0), name))
            return file_at(i);
    return (struct weir_str){ "", 0 };
}

static struct weir_str file_with(struct weir_str symbol)
{
    for (int i = 0; file_at(i).len > 0; i++)
        if (file_declares(file_at(i), symbol))
            return file_at(i);
    return (struct weir_str){ "", 0 };
}

/* `file` and what it imports, each once. */
static void add_file(struct files *files, struct weir_str file)
{
    for (size_t i = 0; i < files->n; i++)
        if (files->data[i].data == (const uint8_t *)file.ptr)
            return;
    WEIR_BUG_ON(files->n == FILES_MAX);
    files->data[files->n++] = (ProtobufCBinaryData){ file.len, (uint8_t *)(uintptr_t)file.ptr };
    for (int i = 0; field(file, FILE_DEPENDENCY, i).len > 0; i++)
        add_file(files, file_named(field(file, FILE_DEPENDENCY, i)));
}

/* ---- services ---- */
struct weir_str rpc_service_of(const struct weir_rpc_handler *handler)
{
    const char *from = handler->method + 1, *slash = strchr(from, '/');

    return (struct weir_str){ from, slash ? (size_t)(slash - from) : strlen(from) };
}

bool rpc_is_first_of_service(const struct weir_rpc_handler *handlers, int i)
{
    for (int j = 0; j < i; j++)
        if (is_same(rpc_service_of(&handlers[j]), rpc_service_of(&handlers[i])))
            return false;
    return true;
}

/* ---- answers ---- */
static void send_response(struct weir_rpc_stream *s, const response_t *response)
{
    size_t len = grpc__reflection__v1__server_reflection_response__get_packed_size(response);
    uint8_t *bytes = weir_alloc(len + 1);

    if (bytes)
        grpc__reflection__v1__server_reflection_response__pack(response, bytes);
    if (!bytes || weir_rpc_stream_send(s, (struct weir_str){ (const char *)bytes, len }) != WEIR_OK)
        weir_rpc_stream_cancel(s);
    weir_free(bytes);
}

static void answer_error(struct weir_rpc_stream *s, response_t *response, weir_err err, const char *message)
{
    Grpc__Reflection__V1__ErrorResponse error = GRPC__REFLECTION__V1__ERROR_RESPONSE__INIT;

    error.error_code = weir_err_info(err)->grpc;
    error.error_message = (char *)(uintptr_t)message;
    response->message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ERROR_RESPONSE;
    response->error_response = &error;
    send_response(s, response);
}

static void answer_file(struct weir_rpc_stream *s, response_t *response, struct weir_str file)
{
    Grpc__Reflection__V1__FileDescriptorResponse answer =
        GRPC__REFLECTION__V1__FILE_DESCRIPTOR_RESPONSE__INIT;
    struct files files = { .n = 0 };

    if (file.len == 0) {
        answer_error(s, response, WEIR_NOTFOUND, "no such file or symbol");
        return;
    }
    add_file(&files, file);
    answer.n_file_descriptor_proto = files.n;
    answer.file_descriptor_proto = files.data;
    response->message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_FILE_DESCRIPTOR_RESPONSE;
    response->file_descriptor_response = &answer;
    send_response(s, response);
}

struct service {
    Grpc__Reflection__V1__ServiceResponse response;
    char name[128];
};

static void answer_services(struct weir_rpc_stream *s, response_t *response,
                            const struct rpc_reflection *reflection)
{
    Grpc__Reflection__V1__ListServiceResponse answer = GRPC__REFLECTION__V1__LIST_SERVICE_RESPONSE__INIT;
    size_t n_max = (size_t)reflection->n_handlers;
    struct service *services = weir_calloc(n_max, sizeof *services);
    Grpc__Reflection__V1__ServiceResponse **list = weir_calloc(n_max, sizeof *list);

    for (int i = 0; services && list && i < reflection->n_handlers; i++) {
        struct weir_str name = rpc_service_of(&reflection->handlers[i]);
        struct service *service = &services[answer.n_service];
        if (!rpc_is_first_of_service(reflection->handlers, i) || name.len >= sizeof service->name)
            continue;
        memcpy(service->name, name.ptr, name.len); /* zeroed: ends */
        grpc__reflection__v1__service_response__init(&service->response);
        service->response.name = service->name;
        list[answer.n_service++] = &service->response;
    }
    answer.service = list;
    response->message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_LIST_SERVICES_RESPONSE;
    response->list_services_response = &answer;
    if (services && list)
        send_response(s, response);
    else
        weir_rpc_stream_cancel(s);
    weir_free(services);
    weir_free(list);
}

static void answer_request(const struct rpc_reflection *reflection, struct weir_rpc_stream *s,
                           request_t *request)
{
    response_t response = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;

    response.valid_host = request->host;
    response.original_request = request;
    switch (request->message_request_case) {
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_LIST_SERVICES:
        answer_services(s, &response, reflection);
        return;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_BY_FILENAME:
        answer_file(s, &response, file_named(weir_str(request->file_by_filename)));
        return;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_SYMBOL:
        answer_file(s, &response, file_with(weir_str(request->file_containing_symbol)));
        return;
    default:
        answer_error(s, &response, WEIR_NOTFOUND, "there are no extensions");
        return;
    }
}

/* ---- the stream ---- */
static bool on_message(void *ctx, struct weir_rpc_stream *s, struct weir_str bytes)
{
    request_t *request = NULL;

    if (bytes.len <= REQUEST_BYTES_MAX)
        request = grpc__reflection__v1__server_reflection_request__unpack(/* allocator= */ NULL, bytes.len,
                                                                          (const uint8_t *)bytes.ptr);
    if (!request) {
        weir_rpc_stream_finish(s, weir_err_info(WEIR_INVALID)->grpc, "not a ServerReflectionRequest",
                               /* trailing= */ NULL, /* n_trailing= */ 0);
        return true;
    }
    answer_request(ctx, s, request);
    grpc__reflection__v1__server_reflection_request__free_unpacked(request, /* allocator= */ NULL);
    return false; /* [X1] on_sent goes on */
}

static void on_sent(void *ctx, struct weir_rpc_stream *s, bool ok)
{
    (void)ctx;
    if (ok)
        weir_rpc_stream_resume(s);
}

static void on_peer_done(void *ctx, struct weir_rpc_stream *s)
{
    (void)ctx;
    weir_rpc_stream_finish(s, /* grpc_status= */ 0, "", /* trailing= */ NULL, /* n_trailing= */ 0);
}

static void on_closed(void *ctx, struct weir_rpc_stream *s, int grpc_status, const char *message)
{
    (void)ctx;
    (void)s;
    (void)grpc_status;
    (void)message;
}

static const struct weir_rpc_stream_ops stream_ops = {
    .on_message = on_message,
    .on_sent = on_sent,
    .on_peer_done = on_peer_done,
    .on_closed = on_closed,
};

static weir_err on_open(void *ctx, struct weir_rpc_stream *s, const struct weir_rpc_stream_ops **ret_ops,
                        void **ret_ctx, struct weir_why *why)
{
    (void)s;
    (void)why;
    *ret_ops = &stream_ops;
    *ret_ctx = ctx;
    return WEIR_OK;
}

void rpc_reflection_handlers(struct rpc_reflection *reflection,
                             struct weir_rpc_handler ret[RPC_REFLECTION_HANDLERS])
{
    ret[0] = (struct weir_rpc_handler){ "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", on_open,
                                        reflection };
    ret[1] = (struct weir_rpc_handler){ "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
                                        on_open, reflection };
}
