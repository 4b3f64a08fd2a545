//! The fleet's figures as OTLP has them, under the names of OpenTelemetry's semantic conventions: for each what
//! `/metrics/fleet` shows under another, of the same function. What is not known has no point. The conventions
//! for hardware are unstable; which version of them is meant, every message says.

use std::sync::Arc;

use aio_protocol::{ids::NodeId, release::build, time::Timestamp};
use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    metrics::v1::{
        AggregationTemporality, Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
        metric::Data, number_data_point,
    },
    resource::v1::Resource,
};

use super::{
    BATCH, Names,
    catalogue::{Family, Of},
    machine::{Gpu, GpuNames, Machine},
    own, shown,
    text::{Series, Told},
};
use crate::{app::App, clock, store::StoreError, telemetry::reading::Reading};

/// The version of the semantic conventions.
pub(crate) const SCHEMA: &str = "https://opentelemetry.io/schemas/1.40.0";

/// Nodes whose points are made before others have their turn: a millisecond or so.
const AT_A_STRETCH: usize = 16;

/// A metric of OTLP, and the family whose values it has.
struct Instrument {
    name: &'static str,
    unit: &'static str,
    kind: Kind,
    family: &'static str,
    /// Which component of the GPU the values are of.
    of: Component,
    /// The attributes that every point has.
    fixed: &'static [(&'static str, &'static str)],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Gauge,
    /// Only ever more, since the machine booted or its driver was loaded. When that was is not said: uptime comes
    /// in whole seconds, so it would move with every reading, and a start that moves is a counter that begins anew.
    Counter,
    /// More or less of what adds up over machines.
    UpDownCounter,
}

/// What a point's attributes name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Component {
    Machine,
    Gpu,
    /// A sensor of a GPU's.
    Sensor(&'static str),
}

const fn instrument(
    name: &'static str,
    unit: &'static str,
    kind: Kind,
    family: &'static str,
    of: Component,
) -> Instrument {
    Instrument { name, unit, kind, family, of, fixed: &[] }
}

impl Instrument {
    const fn with(self, fixed: &'static [(&'static str, &'static str)]) -> Self {
        Self { fixed, ..self }
    }
}

const INSTRUMENTS: &[Instrument] = &[
    instrument("aio.node.connected", "1", Kind::Gauge, "aio_node_connected", Component::Machine),
    instrument("system.cpu.utilization", "1", Kind::Gauge, "aio_node_cpu_usage_ratio", Component::Machine),
    instrument("system.uptime", "s", Kind::Gauge, "aio_node_uptime_seconds", Component::Machine),
    instrument(
        "system.memory.usage",
        "By",
        Kind::UpDownCounter,
        "aio_node_memory_used_bytes",
        Component::Machine,
    )
    .with(&[("system.memory.state", "used")]),
    instrument(
        "system.memory.limit",
        "By",
        Kind::UpDownCounter,
        "aio_node_memory_total_bytes",
        Component::Machine,
    ),
    instrument(
        "system.network.io",
        "By",
        Kind::Counter,
        "aio_node_network_receive_bytes_total",
        Component::Machine,
    )
    .with(&[("network.io.direction", "receive")]),
    instrument(
        "system.network.io",
        "By",
        Kind::Counter,
        "aio_node_network_transmit_bytes_total",
        Component::Machine,
    )
    .with(&[("network.io.direction", "transmit")]),
    instrument("hw.status", "1", Kind::UpDownCounter, "aio_gpu_health", Component::Gpu),
    instrument("hw.errors", "{error}", Kind::Counter, "aio_gpu_ecc_errors_total", Component::Gpu),
    instrument("hw.gpu.utilization", "1", Kind::Gauge, "aio_gpu_utilization_ratio", Component::Gpu)
        .with(&[("hw.gpu.task", "general")]),
    instrument("hw.gpu.memory.usage", "By", Kind::UpDownCounter, "aio_gpu_memory_used_bytes", Component::Gpu),
    instrument(
        "hw.gpu.memory.limit",
        "By",
        Kind::UpDownCounter,
        "aio_gpu_memory_total_bytes",
        Component::Gpu,
    ),
    instrument("hw.power", "W", Kind::Gauge, "aio_gpu_power_watts", Component::Gpu),
    instrument("hw.temperature", "Cel", Kind::Gauge, "aio_gpu_temperature_celsius", Component::Sensor("gpu")),
    instrument(
        "hw.temperature",
        "Cel",
        Kind::Gauge,
        "aio_gpu_memory_temperature_celsius",
        Component::Sensor("memory"),
    ),
];

/// The states that `hw.status` tells, each 0 or 1, and our word for them.
const STATES: [(&str, &str); 3] = [("ok", "ok"), ("degraded", "degraded"), ("failed", "unhealthy")];

/// A part of the fleet's figures, and of how many nodes they are.
pub(crate) struct Batch {
    pub request: ExportMetricsServiceRequest,
    pub nodes: usize,
}

/// The nodes in service, in parts that are read one at a time.
pub(crate) struct Batches {
    app: Arc<App>,
    ids: Vec<NodeId>,
}

impl Batches {
    pub(crate) async fn new(app: &Arc<App>) -> Result<Self, StoreError> {
        let mut ids = shown(app).await?;
        // A round that is left early leaves out others than the one before.
        let first = fastrand::usize(..=ids.len());
        ids.rotate_left(first);
        Ok(Self { app: app.clone(), ids })
    }

    /// Nodes that are left.
    pub(crate) fn left(&self) -> usize {
        self.ids.len()
    }

    /// The next part, until there is none.
    pub(crate) async fn next(&mut self) -> Result<Option<Batch>, StoreError> {
        let ids = self.ids.split_off(self.ids.len().saturating_sub(BATCH));
        if ids.is_empty() {
            return Ok(None);
        }
        let nodes = self.app.store.fleet_nodes(&ids).await?;
        let mut resource_metrics = Vec::with_capacity(nodes.len());
        for (number, node) in nodes.into_iter().enumerate() {
            if number % AT_A_STRETCH == 0 {
                tokio::task::yield_now().await;
            }
            resource_metrics.extend(of_machine(&self.app, &Machine::of(node, Names::Otlp)));
        }
        let nodes = resource_metrics.len();
        Ok(Some(Batch { request: ExportMetricsServiceRequest { resource_metrics }, nodes }))
    }
}

/// What is known of a node.
fn of_machine(app: &App, machine: &Machine) -> Option<ResourceMetrics> {
    let now = clock::now();
    // A copy: workers that tell something wait for nobody who reads.
    let reading = app.telemetry.newest(&machine.id, now);
    let mut metrics: Vec<Metric> = Vec::new();
    for instrument in INSTRUMENTS {
        let points = points(app, instrument, machine, reading.as_ref(), now);
        add(&mut metrics, instrument, points);
    }
    let named = machine.named.as_deref()?;
    let resource = Resource {
        attributes: vec![
            attribute("service.name", "aio-worker"),
            attribute("host.id", machine.id.as_str()),
            attribute("host.name", if named.hostname.is_empty() { &named.name } else { &named.hostname }),
            attribute("aio.node.name", &named.name),
            attribute("aio.organisation", &named.organisation),
        ],
        ..Resource::default()
    };
    let scope = InstrumentationScope {
        name: "aio-controller-stub".to_owned(),
        version: build::number().to_owned(),
        ..InstrumentationScope::default()
    };
    Some(ResourceMetrics {
        resource: Some(resource),
        scope_metrics: vec![ScopeMetrics { scope: Some(scope), metrics, schema_url: SCHEMA.to_owned() }],
        schema_url: SCHEMA.to_owned(),
    })
}

/// Adds points to the metric of their name.
fn add(metrics: &mut Vec<Metric>, instrument: &Instrument, points: Vec<NumberDataPoint>) {
    if points.is_empty() {
        return;
    }
    let last = metrics.last_mut().filter(|metric| metric.name == instrument.name);
    match last.and_then(|metric| metric.data.as_mut()) {
        Some(Data::Gauge(Gauge { data_points }) | Data::Sum(Sum { data_points, .. })) => {
            data_points.extend(points);
        }
        _ => metrics.push(Metric {
            name: instrument.name.to_owned(),
            unit: instrument.unit.to_owned(),
            description: family(instrument).map(|family| family.help.to_owned()).unwrap_or_default(),
            data: Some(match instrument.kind {
                Kind::Gauge => Data::Gauge(Gauge { data_points: points }),
                kind => Data::Sum(Sum {
                    data_points: points,
                    aggregation_temporality: AggregationTemporality::Cumulative.into(),
                    is_monotonic: kind == Kind::Counter,
                }),
            }),
            ..Metric::default()
        }),
    }
}

fn family(instrument: &Instrument) -> Option<&'static Family> {
    own::FAMILIES.iter().find(|family| family.name == instrument.family)
}

fn points(
    app: &App,
    instrument: &Instrument,
    machine: &Machine,
    reading: Option<&Reading>,
    now: Timestamp,
) -> Vec<NumberDataPoint> {
    let Some(family) = family(instrument) else { return Vec::new() };
    let mut points = Vec::new();
    let mut told: Vec<Told> = Vec::new();
    // A value is of when the worker told it, however often it is pushed.
    let at = reading.map_or(now, |reading| reading.at);
    let mut keep = |told: &mut Vec<Told>, gpu: Option<&Gpu>, at: Timestamp| {
        for Told { labels, value } in told.drain(..) {
            for (more, value) in meaning(instrument, labels, value) {
                points.push(NumberDataPoint {
                    attributes: attributes(instrument, gpu, more),
                    time_unix_nano: nanos(at),
                    value: Some(number_data_point::Value::AsDouble(value)),
                    ..NumberDataPoint::default()
                });
            }
        }
    };
    match (family.of, reading) {
        (Of::Node(show), _) => {
            show(app, machine, &mut Series::told(&mut told));
            keep(&mut told, None, now);
        }
        (Of::Reading(show), Some(reading)) => {
            show(reading, &mut Series::told(&mut told));
            keep(&mut told, None, at);
        }
        (Of::Gpu(show), Some(reading)) => {
            for gpu in &machine.gpus {
                let of_gpu = reading.gpus.iter().find(|told| told.device == gpu.device);
                show(gpu, of_gpu, &mut Series::told(&mut told));
                keep(&mut told, Some(gpu), at);
            }
        }
        (Of::Reading(_) | Of::Gpu(_), None) => {}
    }
    points
}

/// A value's own labels and the value, as the conventions have them.
fn meaning(
    instrument: &Instrument,
    labels: Vec<(String, String)>,
    value: f64,
) -> Vec<(Option<(&'static str, String)>, f64)> {
    let label = |name: &str| labels.iter().find(|(it, _)| it == name).map(|(_, value)| value.clone());
    match instrument.family {
        // Of a GPU whose health is not known, no state is told.
        "aio_gpu_health" => {
            let health = label("health").unwrap_or_default();
            if !STATES.iter().any(|(_, ours)| *ours == health) {
                return Vec::new();
            }
            let state = |(theirs, ours): (&str, &str)| {
                let is = f64::from(u8::from(ours == health));
                (Some(("hw.state", theirs.to_owned())), is)
            };
            STATES.into_iter().map(state).collect()
        }
        "aio_gpu_ecc_errors_total" => vec![(label("kind").map(|kind| ("error.type", kind)), value)],
        _ => vec![(None, value)],
    }
}

fn attributes(
    instrument: &Instrument,
    gpu: Option<&Gpu>,
    more: Option<(&'static str, String)>,
) -> Vec<KeyValue> {
    let mut attributes = Vec::with_capacity(6);
    if let Some(GpuNames { index, uuid, model }) = gpu.and_then(|gpu| gpu.named.as_deref()) {
        let id = uuid.as_ref().unwrap_or(index);
        match instrument.of {
            Component::Sensor(place) => attributes.extend([
                attribute("hw.id", &format!("{id}/{place}")),
                attribute("hw.type", "temperature"),
                attribute("hw.parent", id),
                attribute("hw.sensor_location", place),
            ]),
            Component::Gpu | Component::Machine => attributes.extend([
                attribute("hw.id", id),
                attribute("hw.type", "gpu"),
                attribute("hw.name", index),
                attribute("hw.model", model),
            ]),
        }
    }
    attributes.extend(instrument.fixed.iter().map(|(key, value)| attribute(key, value)));
    attributes.extend(more.map(|(key, value)| attribute(key, &value)));
    attributes
}

fn attribute(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

fn nanos(at: Timestamp) -> u64 {
    u64::try_from(at.as_millis()).unwrap_or(0).saturating_mul(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_the_values_of_a_family_and_the_page_on_monitoring_lists_it() {
        let page = include_str!("../../../../docs/monitoring.md");
        for instrument in INSTRUMENTS {
            assert!(family(instrument).is_some(), "{}", instrument.family);
            let row = format!("| `{}` | {} |", instrument.name, instrument.unit);
            assert!(page.contains(&row), "{row}");
        }
        assert!(page.contains(SCHEMA));
    }
}
