/* serve.c - opens and closes the serving side: queues, threads, metrics. What they do is in the files beside
 * it. */
#include "replica/serve/serve.h"

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "replica/serve/serve_int.h"

static void register_metrics(struct serve_metrics *m)
{
    static const char *const reasons[8] = {
        [0] = "reason=\"none\"",     [1] = "reason=\"done\"",    [2] = "reason=\"cancelled\"",
        [3] = "reason=\"rejected\"", [4] = "reason=\"invalid\"", [5] = "reason=\"failed\"",
        [6] = "reason=\"cut\"",      [7] = "reason=\"other\"",
    };

    for (int i = 0; i < 8; i++)
        m->calls[i] = weir_counter("weir_replica_calls_total", reasons[i], "calls ended, by reason");
    m->prompt_tokens = weir_counter("weir_replica_prompt_tokens_total", "", "prompt tokens accepted");
    m->cached_tokens =
        weir_counter("weir_replica_cached_tokens_total", "", "of them, found in the prefix cache");
    m->completion_tokens =
        weir_counter("weir_replica_completion_tokens_total", "", "tokens generated for ended calls");
    m->steps = weir_counter("weir_replica_steps_total", "", "engine steps");
    m->frames = weir_counter("weir_replica_frames_total", "", "frames sent to routers");
    m->frame_bytes = weir_counter("weir_replica_frame_bytes_total", "", "bytes of them");
    m->bad_frames =
        weir_counter("weir_replica_bad_frames_total", "", "frames from routers that broke the protocol");
    m->attachments = weir_gauge("weir_replica_attachments", "", "routers attached");
    m->running = weir_gauge("weir_replica_running_sequences", "", "sequences in the batch");
    m->waiting = weir_gauge("weir_replica_waiting_calls", "", "calls accepted and not yet running");
    m->kv_used = weir_gauge("weir_replica_kv_blocks_used", "", "KV blocks held by running sequences");
    m->kv_total = weir_gauge("weir_replica_kv_blocks", "", "KV blocks in the pool");
    m->step_s = weir_histogram("weir_replica_step_seconds", "", "time of one engine step",
                               weir_latency_bounds_s, weir_n_latency_bounds);
    m->queue_s = weir_histogram("weir_replica_queue_seconds", "", "arrival of a call to its first step",
                                weir_latency_bounds_s, weir_n_latency_bounds);
    m->text_s = weir_histogram("weir_replica_text_seconds", "", "template and tokenizer, per call",
                               weir_latency_bounds_s, weir_n_latency_bounds);
}

static weir_err start_text_workers(struct weir_serve *serve, struct weir_why *why)
{
    serve->text_workers = weir_calloc(serve->opts.n_text_workers, sizeof *serve->text_workers);
    if (!serve->text_workers)
        return weir_fail(why, WEIR_NOMEM, "no memory for the text workers");
    for (uint32_t i = 0; i < serve->opts.n_text_workers; i++) {
        struct text_worker *worker = &serve->text_workers[i];
        weir_err err = weir_queue_init(&worker->queue, 0, /* with_fd= */ false, why);
        if (err != WEIR_OK)
            return err;
        worker->serve = serve;
        serve->n_text_workers = i + 1;
        err = weir_thread_start(&worker->thread, WEIR_ROLE_TEXT, "text", text_main, worker, why);
        if (err != WEIR_OK)
            return err;
    }
    return WEIR_OK;
}

weir_err weir_serve_open(const struct weir_serve_opts *opts, struct weir_serve **ret, struct weir_why *why)
{
    struct weir_engine_load load;
    pthread_condattr_t monotonic;
    struct weir_serve *serve = weir_alloc0(sizeof *serve);

    if (!serve)
        return weir_fail(why, WEIR_NOMEM, "no memory to serve");
    serve->opts = *opts;
    serve->info = weir_engine_info(opts->engine);
    weir_engine_load(opts->engine, &load);
    serve->n_slots = load.n_slots;
    register_metrics(&serve->metrics);
    pthread_mutex_init(&serve->attach_lock, NULL);
    pthread_mutex_init(&serve->send_lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&serve->send_cond, &monotonic);
    pthread_condattr_destroy(&monotonic);
    serve->load = (Weir__Fabric__V1__Load)WEIR__FABRIC__V1__LOAD__INIT;
    serve->rate.window_ns = weir_now_ns();
    weir_arena_init(&serve->step_arena, 0);
    weir_buf_init(&serve->scratch, 0);
    weir_buf_init(&serve->piece, 0);
    weir_err err = weir_queue_init(&serve->step_queue, 0, /* with_fd= */ false, why);
    if (err == WEIR_OK)
        err = weir_grammar_vocab_open(opts->tokenizer, serve->info->eos_ids, serve->info->n_eos_ids,
                                      &serve->vocab, why);
    if (err == WEIR_OK && !(serve->formats = formats_open()))
        err = weir_fail(why, WEIR_NOMEM, "no memory for the formats");
    if (err == WEIR_OK)
        err = start_text_workers(serve, why);
    load_publish(serve);
    if (err == WEIR_OK)
        err = weir_thread_start(&serve->send_thread, WEIR_ROLE_SEND, "send", send_main, serve, why);
    if (err == WEIR_OK)
        err = weir_thread_start(&serve->step_thread, WEIR_ROLE_STEP, "step", step_main, serve, why);
    if (err != WEIR_OK) {
        weir_serve_close(serve);
        return err;
    }
    *ret = serve;
    return WEIR_OK;
}

struct weir_rpc_handler weir_serve_handler(struct weir_serve *serve)
{
    return (struct weir_rpc_handler){ "/weir.fabric.v1.Replica/Attach", attach_open, serve };
}

void weir_serve_drain(struct weir_serve *serve)
{
    static const struct weir_str drain_frame = { "\x38\x01", 2 }; /* ReplicaFrame { drain: true } */

    if (atomic_exchange(&serve->draining, true))
        return;
    pthread_mutex_lock(&serve->attach_lock);
    for (struct attach *att = serve->attaches; att; att = att->next)
        attach_append(att, drain_frame);
    pthread_mutex_unlock(&serve->attach_lock);
    send_wake(serve);
}

unsigned weir_serve_n_calls(const struct weir_serve *serve)
{
    return atomic_load(&serve->n_calls);
}

bool weir_serve_failed(const struct weir_serve *serve)
{
    return atomic_load(&serve->failed);
}

void weir_serve_describe(struct weir_serve *serve, struct weir_buf *out)
{
    Weir__Fabric__V1__Load load;
    struct weir_jw w;

    pthread_mutex_lock(&serve->send_lock);
    load = serve->load;
    pthread_mutex_unlock(&serve->send_lock);
    weir_jw_init(&w, out);
    weir_jw_object(&w);
    weir_jw_key(&w, "replica");
    weir_jw_cstr(&w, serve->opts.replica);
    weir_jw_key(&w, "model");
    weir_jw_cstr(&w, serve->opts.model);
    weir_jw_key(&w, "backend");
    weir_jw_cstr(&w, serve->info->backend);
    weir_jw_key(&w, "draining");
    weir_jw_bool(&w, atomic_load(&serve->draining));
    weir_jw_key(&w, "calls");
    weir_jw_u64(&w, weir_serve_n_calls(serve));
    weir_jw_key(&w, "running");
    weir_jw_u64(&w, load.running);
    weir_jw_key(&w, "waiting");
    weir_jw_u64(&w, load.waiting);
    weir_jw_key(&w, "slots");
    weir_jw_u64(&w, load.slots);
    weir_jw_key(&w, "kv_blocks_used");
    weir_jw_u64(&w, load.kv_blocks_used);
    weir_jw_key(&w, "kv_blocks");
    weir_jw_u64(&w, load.kv_blocks);
    weir_jw_key(&w, "prefill_tokens_s");
    weir_jw_f64(&w, load.prefill_tokens_s);
    weir_jw_key(&w, "decode_tokens_s");
    weir_jw_f64(&w, load.decode_tokens_s);
    weir_jw_key(&w, "predicted_wait_ms");
    weir_jw_f64(&w, load.predicted_wait_ms);
    weir_jw_object_end(&w);
}

/* Calls that are still somewhere on their way when all threads have stopped. */
static void drop_left_over(struct weir_serve *serve)
{
    for (struct weir_qnode *node = weir_queue_take(&serve->step_queue), *next; node; node = next) {
        struct step_msg *msg = (struct step_msg *)((char *)node - offsetof(struct step_msg, node));
        next = node->next;
        if (msg->kind == STEP_NEW)
            call_end_err(msg->call, WEIR_UNAVAILABLE, NULL);
        else if (msg->call->session)
            step_drop(serve, msg->call);
        if (msg->kind == STEP_CANCEL)
            call_unref(msg->call);
    }
}

void weir_serve_close(struct weir_serve *serve)
{
    if (!serve)
        return;
    for (uint32_t i = 0; i < serve->n_text_workers; i++) {
        weir_queue_close(&serve->text_workers[i].queue);
        weir_thread_join(&serve->text_workers[i].thread);
        weir_queue_release(&serve->text_workers[i].queue);
    }
    weir_free(serve->text_workers);
    atomic_store(&serve->stopping, true);
    send_wake(serve);
    weir_thread_join(&serve->step_thread);
    weir_thread_join(&serve->send_thread);
    drop_left_over(serve);
    WEIR_CHECK(atomic_load(&serve->n_calls) == 0);
    weir_queue_release(&serve->step_queue);
    weir_arena_release(&serve->step_arena);
    weir_buf_release(&serve->scratch);
    weir_buf_release(&serve->piece);
    formats_close(serve->formats);
    weir_grammar_vocab_close(serve->vocab);
    pthread_cond_destroy(&serve->send_cond);
    pthread_mutex_destroy(&serve->send_lock);
    pthread_mutex_destroy(&serve->attach_lock);
    weir_free(serve);
}
