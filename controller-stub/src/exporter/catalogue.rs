//! Every figure: its name, what it counts, and the buckets of those that are spread. `docs/operations.md` has
//! the same table, and the code records nothing else; tests hold the three together.

/// One figure.
#[derive(Debug, Clone, Copy)]
pub(super) struct Figure {
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Counter,
    Gauge,
    /// Upper ends of the buckets.
    Histogram(&'static [f64]),
}

/// What the controller does by itself: a floor of milliseconds, and a ceiling above which it is broken.
const QUICK: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// What waits for others: from an answer at once to a day of retries.
const PATIENT: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 60.0, 300.0, 1800.0, 7200.0,
    86400.0,
];

/// What a person waits for at a machine.
const INSTALLATION: &[f64] =
    &[2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 300.0, 600.0, 1800.0];

const WRITES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Figure {
    Figure { name, kind: Kind::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Figure {
    Figure { name, kind: Kind::Gauge, labels, help }
}

const fn histogram(name: &'static str, buckets: &'static [f64], help: &'static str) -> Figure {
    Figure { name, kind: Kind::Histogram(buckets), labels: &[], help }
}

const REQUESTS: Figure = Figure {
    name: "http_request_duration_seconds",
    kind: Kind::Histogram(QUICK),
    labels: &["route", "method"],
    help: "From a request to the beginning of its answer.",
};

pub(super) const FIGURES: &[Figure] = &[
    // The product's own five.
    counter(
        "aio_installations_total",
        &["outcome", "code"],
        "Installations that ended: succeeded, or failed with which code of the catalogue.",
    ),
    histogram(
        "aio_installation_seconds",
        INSTALLATION,
        "From the installer's first report to the worker's welcome.",
    ),
    histogram("aio_gateway_connect_seconds", QUICK, "From a worker's request to its register.ack."),
    counter("aio_events_delivered_total", &[], "Events that NOTI has acknowledged."),
    histogram("aio_event_delivery_seconds", PATIENT, "From a happening's notice to NOTI's 2xx."),
    counter(
        "aio_node_seconds_total",
        &["status"],
        "Seconds that nodes have spent in each status, all nodes together.",
    ),
    // Workers.
    gauge("aio_nodes", &["status"], "Nodes by status."),
    gauge("aio_gateway_sockets", &[], "Workers' connections."),
    gauge("aio_gateway_handshakes", &[], "Workers between their request and their register.ack."),
    counter("aio_gateway_refusals_total", &["reason"], "Connections of workers that were refused."),
    counter(
        "aio_gateway_closes_total",
        &["code"],
        "Connections of workers that the controller closed, by close code.",
    ),
    counter(
        "aio_worker_departures_total",
        &["how"],
        "Workers that left: goodbye, timeout, or update, after which they are expected back.",
    ),
    gauge("aio_leases", &[], "Workers that count as there."),
    gauge("aio_leases_held", &[], "Workers whose lease has ended and whom the brake keeps online."),
    counter("aio_brake_alarms_total", &[], "Times that most of the fleet fell silent at once."),
    counter(
        "aio_token_offers_total",
        &["outcome"],
        "New tokens that were offered to workers: made, taken or rejected.",
    ),
    counter(
        "aio_token_reuse_total",
        &[],
        "Times that a token was shown whose place a newer one had taken: somebody has a copy of it.",
    ),
    gauge("aio_nodes_gpu_health", &["health"], "Connected nodes by the health of the worst of their GPUs."),
    gauge(
        "aio_alarms",
        &["kind", "level"],
        "Alarms that are raised, those that somebody has seen among them.",
    ),
    counter(
        "aio_webhook_attempts_total",
        &["outcome"],
        "Attempts at webhooks of organisations: delivered, postponed, dead, or failed, which was a test.",
    ),
    gauge("aio_webhooks", &["state"], "Webhooks of organisations by whether events are delivered to them."),
    gauge("aio_webhook_events", &["state"], "Events that webhooks are owed: waiting, or dead."),
    counter("aio_otlp_pushes_total", &[], "Pushes of the fleet's figures by OTLP that were taken."),
    counter("aio_otlp_push_failures_total", &[], "Attempts to push them that failed."),
    counter("aio_otlp_points_rejected_total", &[], "Points of such pushes that the receiver rejected."),
    gauge("aio_identity_conflicts", &[], "Nodes whose place two workers take from each other."),
    counter(
        "aio_gateway_messages_total",
        &[],
        "Messages of workers that are a sign of life, most of them heartbeats.",
    ),
    // Updates.
    gauge(
        "aio_nodes_by_version",
        &["version"],
        "Nodes in service by the version that their worker named last: the 20 most frequent, and other.",
    ),
    gauge(
        "aio_rollout_nodes",
        &["state"],
        "Nodes of rollouts that have begun and not been ended, by how they stand.",
    ),
    histogram(
        "aio_update_seconds",
        PATIENT,
        "From the offer of a version to its success, the wait for a window or a permit included.",
    ),
    counter("aio_update_failures_total", &["code"], "Updates that failed, by the code that the node named."),
    // Events on their way.
    gauge("aio_outbox_events", &[], "Events that NOTI has not acknowledged."),
    gauge("aio_outbox_oldest_age_seconds", &[], "The age of the oldest of them."),
    counter("aio_event_attempts_failed_total", &["reason"], "Posts to NOTI that failed."),
    gauge("aio_event_breaker_state", &[], "Delivery: 0 goes on, 1 is tried, 2 pauses."),
    gauge("aio_event_delivery_alarm", &["alarm"], "1 while a person must look at the delivery of events."),
    counter("aio_events_dead_total", &["reason"], "Events that were given up."),
    gauge("aio_dead_letters", &[], "Events that were given up and not replayed."),
    // The built-in NOTI.
    counter(
        "aio_noti_received_total",
        &["outcome"],
        "Events that were posted to the built-in NOTI: accepted, duplicate, unverified, invalid or failed.",
    ),
    counter("aio_noti_pruned_total", &[], "Events that the built-in NOTI kept for long enough and dropped."),
    counter(
        "aio_retention_dropped_total",
        &["what"],
        "Rows of the database that were kept long enough and dropped.",
    ),
    gauge("aio_noti_dashboards", &[], "Dashboards that watch."),
    counter(
        "aio_noti_dashboard_closes_total",
        &["code"],
        "Dashboards that the controller closed, by close code.",
    ),
    gauge(
        "aio_release_index_expires_seconds",
        &[],
        "When the index of releases expires, in seconds since 1970; 0 where there is none.",
    ),
    // The controller itself.
    counter("aio_connections_refused_total", &[], "Connections that found no slot: all were busy."),
    counter("aio_api_refusals_total", &["code"], "Answers that are errors, by the catalogue's code."),
    counter(
        "http_requests_total",
        &["route", "method", "status"],
        "Requests, by the address's template and the kind of answer: 2xx, 4xx and so on.",
    ),
    REQUESTS,
    histogram(
        "aio_store_commit_seconds",
        QUICK,
        "One commit of the database, the flush to the disk included.",
    ),
    histogram("aio_store_commit_writes", WRITES, "Changes that shared one commit."),
    gauge("aio_build_info", &["version"], "1, with the version that runs."),
];

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    /// As `docs/operations.md` writes it.
    fn row(figure: &Figure) -> String {
        let kind = match figure.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        let labels = figure.labels.join(", ");
        format!("| `{}` | {kind} | {labels} | {} |", figure.name, figure.help)
    }

    #[test]
    fn the_operators_page_lists_exactly_these() {
        let page = include_str!("../../../docs/operations.md");
        let listed: Vec<_> =
            page.lines().filter(|line| line.starts_with("| `aio_") || line.starts_with("| `http_")).collect();
        let rows: Vec<_> = FIGURES.iter().map(row).collect();
        assert_eq!(listed, rows, "the rows should be:\n{}", rows.join("\n"));
    }

    /// The names behind the macros in a source file; the macro's argument may stand on the next line.
    fn recorded(text: &str, names: &mut BTreeSet<String>) {
        for macro_name in ["counter!(", "gauge!(", "histogram!("] {
            for call in text.split(macro_name).skip(1) {
                let name = call.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next());
                names.extend(
                    name.filter(|name| name.starts_with("aio_") || name.starts_with("http_"))
                        .map(str::to_owned),
                );
            }
        }
    }

    fn walk(folder: &Path, names: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, names);
            } else {
                recorded(&fs::read_to_string(path).unwrap(), names);
            }
        }
    }

    #[test]
    fn the_code_records_exactly_these() {
        let mut names = BTreeSet::new();
        walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut names);
        let listed: BTreeSet<_> = FIGURES.iter().map(|figure| figure.name.to_owned()).collect();
        assert_eq!(names, listed);
    }

    #[test]
    fn buckets_grow() {
        for figure in FIGURES {
            if let Kind::Histogram(buckets) = figure.kind {
                assert!(buckets.is_sorted_by(|a, b| a < b), "{}", figure.name);
            }
        }
    }
}
