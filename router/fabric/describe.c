/* describe.c - the fleet as people and /v1/models see it: read from the table and the load views, no lock
 * held long. */
#include "base/clock.h"
#include "base/json.h"
#include "router/fabric/fabric_int.h"

#define SILENT_MS 3000 /* as weir_route_opts_init has it: such a one is skipped */

#define GET(field) atomic_load_explicit(&load->field, memory_order_relaxed)

static uint32_t n_usable_of(const struct weir_table_model *model)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < model->ring.n; i++) {
        const struct weir_load_view *load = model->ring.members[i].load;
        n += GET(usable);
    }
    return n;
}

static struct weir_fleet_model model_of(const struct weir_table_model *model)
{
    return (struct weir_fleet_model){ .id = model->id,
                                      .n_replicas = model->ring.n,
                                      .n_usable = n_usable_of(model),
                                      .created_s = model->created_s };
}

void weir_fleet_models(struct weir_fleet *fleet,
                       void (*each)(void *ctx, const struct weir_fleet_model *model), void *ctx)
{
    const struct weir_table *table = NULL;

    weir_fleet_refresh(fleet, &table);
    for (uint32_t i = 0; i < table->n_models; i++) {
        struct weir_fleet_model model = model_of(&table->models[i]);
        each(ctx, &model);
    }
    weir_table_unref(table);
}

bool weir_fleet_model(struct weir_fleet *fleet, struct weir_str id, struct weir_fleet_model *ret)
{
    const struct weir_table *table = NULL;

    weir_fleet_refresh(fleet, &table);
    const struct weir_table_model *model = weir_table_find(table, id);
    if (model) {
        *ret = model_of(model);
        ret->id = id; /* the table's own goes with it */
    }
    weir_table_unref(table);
    return model != NULL;
}

uint32_t weir_fleet_n_usable(struct weir_fleet *fleet)
{
    const struct weir_table *table = NULL;
    uint32_t n = 0;

    weir_fleet_refresh(fleet, &table);
    for (uint32_t i = 0; i < table->n_models; i++)
        n += n_usable_of(&table->models[i]);
    weir_table_unref(table);
    return n;
}

static void describe_text(struct weir_jw *w, const char *key, struct weir_str text)
{
    weir_jw_key(w, key);
    weir_jw_str(w, text);
}

static void describe_u64(struct weir_jw *w, const char *key, uint64_t n)
{
    weir_jw_key(w, key);
    weir_jw_u64(w, n);
}

static void describe_f64(struct weir_jw *w, const char *key, double x)
{
    weir_jw_key(w, key);
    weir_jw_f64(w, x);
}

static void describe_one(struct weir_jw *w, struct weir_attach *att, uint64_t silent_since_ns)
{
    const struct weir_replica_record *rec = attach_record(att);
    const struct weir_load_view *load = weir_attach_load(att);

    weir_jw_object(w);
    describe_text(w, "id", rec->id);
    describe_text(w, "model", rec->model);
    describe_text(w, "grpc", rec->grpc);
    describe_text(w, "admin", rec->admin);
    describe_text(w, "state", weir_str(attach_state_name(att, silent_since_ns)));
    describe_u64(w, "running", GET(running));
    describe_u64(w, "waiting", GET(waiting));
    describe_u64(w, "slots", GET(slots));
    describe_u64(w, "queued_tokens", GET(queued_tokens));
    describe_f64(w, "decode_tokens_s", GET(decode_tokens_s));
    describe_f64(w, "prefill_tokens_s", GET(prefill_tokens_s));
    describe_f64(w, "predicted_wait_ms", GET(predicted_wait_ms));
    describe_u64(w, "kv_blocks_used", GET(kv_blocks_used));
    describe_u64(w, "kv_blocks", GET(kv_blocks));
    describe_u64(w, "in_flight", GET(n_in_flight));
    weir_jw_object_end(w);
}

void weir_fleet_describe(struct weir_fleet *fleet, struct weir_buf *json)
{
    const struct weir_table *table = NULL;
    uint64_t now_ns = weir_now_ns();
    uint64_t silent_since_ns = now_ns > SILENT_MS * WEIR_MS ? now_ns - SILENT_MS * WEIR_MS : 0;
    struct weir_jw w;

    weir_fleet_refresh(fleet, &table);
    weir_jw_init(&w, json);
    weir_jw_object(&w);
    weir_jw_key(&w, "replicas");
    weir_jw_array(&w);
    for (uint32_t i = 0; i < table->n_attaches; i++)
        describe_one(&w, table->attaches[i], silent_since_ns);
    weir_jw_array_end(&w);
    weir_jw_object_end(&w);
    weir_table_unref(table);
}
