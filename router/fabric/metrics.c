/* metrics.c - see metrics_int.h. */
#include "router/fabric/metrics_int.h"

#include <pthread.h>
#include <stdio.h>

static struct fabric_metrics metrics;

static void setup(void)
{
    const char *bytes_help = "bytes of frames between this router and its replicas";

    metrics = (struct fabric_metrics){
        .attachments = weir_gauge("weir_attachments", "", "replicas attached: hello said, stream alive"),
        .frames = weir_counter("weir_fabric_frames_total", "", "frames received from replicas"),
        .bytes_in = weir_counter("weir_fabric_bytes_total", "dir=\"in\"", bytes_help),
        .bytes_out = weir_counter("weir_fabric_bytes_total", "dir=\"out\"", bytes_help),
        .outbox_refused = weir_counter("weir_fabric_outbox_refused_total", "",
                                       "submits refused because an attachment's outbox was at its bound"),
        .inbox_full = weir_counter("weir_fabric_inbox_full_total", "",
                                   "times receiving paused because the loops were behind"),
        .malformed =
            weir_counter("weir_fabric_malformed_total", "",
                         "frames that could not be decoded or broke the protocol; the stream was cut"),
        .unknown_tags = weir_counter("weir_fabric_unknown_tags_total", "",
                                     "entries of frames that named no port of this router"),
        .records_skipped = weir_counter("weir_fabric_records_skipped_total", "",
                                        "replica records of the view that were malformed or past a bound"),
    };
}

const struct fabric_metrics *fabric_metrics(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, setup);
    return &metrics;
}

struct weir_counter *fabric_breaks_of(struct weir_str replica)
{
    char labels[300];
    size_t n = (size_t)snprintf(labels, sizeof labels, "replica=\"");

    for (size_t i = 0; i < replica.len && n < sizeof labels - 2; i++) {
        char c = replica.ptr[i];
        labels[n++] = c == '"' || c == '\\' || (unsigned char)c < ' ' ? '_' : c;
    }
    labels[n++] = '"';
    labels[n] = '\0';
    return weir_counter("weir_attach_breaks_total", labels, "attachments that broke off");
}
