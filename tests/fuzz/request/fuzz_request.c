/* fuzz_request.c - any bytes as an OpenAI request body.
 *
 * What is accepted keeps every bound, and means the same on the other side of the wire; what is refused says
 * why. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "router/gateway/parse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds)
{
    if (!holds)
        abort();
}

/* Packed, unpacked and packed again it is the same bytes. */
static void check_wire(const Weir__V1__GenerateRequest *msg)
{
    size_t len = weir__v1__generate_request__get_packed_size(msg);
    uint8_t *first = malloc(len + 1), *second = malloc(len + 1);

    must(first && second && weir__v1__generate_request__pack(msg, first) == len);
    Weir__V1__GenerateRequest *copy = weir__v1__generate_request__unpack(NULL, len, first);
    must(copy != NULL);
    must(weir__v1__generate_request__get_packed_size(copy) == len);
    weir__v1__generate_request__pack(copy, second);
    must(memcmp(first, second, len) == 0);
    weir__v1__generate_request__free_unpacked(copy, NULL);
    free(first);
    free(second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct weir_answer_opts opts;
    struct weir_why why = { 0 };

    if (size == 0)
        return 0;
    struct weir_request *req = weir_request_open();
    must(req != NULL);
    struct weir_str body = { (const char *)data + 1, size - 1 };
    weir_err err = weir_parse_openai(req, /* chat= */ data[0] & 1, body, &opts, &why);
    if (err == WEIR_OK) {
        must(weir_request_check(req, &why) == WEIR_OK);
        must(weir_utf8_valid(body.ptr, body.len));
        check_wire(req->msg);
    } else {
        must(why.text[0] != '\0');
        must(weir_err_info(err)->http >= 400 && weir_err_info(err)->http < 500);
    }
    weir_request_close(req);
    return 0;
}
