//! The history of a node as points, each one or more windows. Pure. A time of which nothing is known has no
//! point, and a series of which nothing is known is not in its point.

use std::time::Duration;

use aio_protocol::time::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Slot, WINDOW,
    device::Device,
    packing::{Packed, unpack},
    window::{GPU_UNITS, HOST_UNITS, Unit},
};

/// A part of a node's history.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = MetricsPoint)]
pub(crate) struct Point {
    /// When it begins.
    pub at: Timestamp,
    /// How many messages it is made of.
    pub samples: u32,
    /// Percent of all processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_usage: Option<Range>,
    /// Bytes of main memory that were not available, to 16 MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_used: Option<Range>,
    /// One per GPU that said something.
    pub gpu: Vec<GpuPoint>,
}

/// A GPU's part of a point.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GpuPoint {
    /// As in the inventory.
    pub device_id: String,
    /// Percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub utilization: Option<Range>,
    /// Bytes, to 16 MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_used: Option<Range>,
    /// °C.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<Range>,
    /// Watts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power_draw: Option<Range>,
}

/// The least, the mean and the greatest of what was told.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
#[schema(as = MetricsRange)]
pub(crate) struct Range {
    pub min: f64,
    pub mean: f64,
    pub max: f64,
}

/// A series over several windows.
#[derive(Clone, Copy, Default)]
struct Merged {
    of: Option<Packed>,
    samples: f64,
}

impl Merged {
    fn add(&mut self, of: Option<Packed>, samples: u32) {
        let Some(new) = of else { return };
        let samples = f64::from(samples.max(1));
        let all = self.samples + samples;
        self.of = Some(match self.of {
            None => new,
            Some(known) => Packed {
                min: known.min.min(new.min),
                mean: (known.mean * self.samples + new.mean * samples) / all,
                max: known.max.max(new.max),
            },
        });
        self.samples = all;
    }

    fn range(self, unit: Unit) -> Option<Range> {
        // A tenth has no exact binary form; two digits are more than was measured.
        let read = |value: f64| (value * unit.size() * 100.0).round() / 100.0;
        self.of.map(|it| Range { min: read(it.min), mean: read(it.mean), max: read(it.max) })
    }
}

/// The points of windows that are in order, `step` apart. What cannot be read is left out.
pub(crate) fn points(windows: &[(Slot, Vec<u8>)], step: Duration) -> Vec<Point> {
    let per_point = u32::try_from(step.as_secs() / WINDOW.as_secs()).unwrap_or(1).max(1);
    windows
        .chunk_by(|(a, _), (b, _)| a.0 / per_point == b.0 / per_point)
        .filter_map(|windows| {
            let (first, _) = windows.first()?;
            point(Slot(first.0 / per_point * per_point), windows)
        })
        .collect()
}

fn point(begins: Slot, windows: &[(Slot, Vec<u8>)]) -> Option<Point> {
    let (mut samples, mut host) = (0_u32, [Merged::default(); 2]);
    let mut gpus: Vec<(Device, [Merged; 4])> = Vec::new();
    for window in windows.iter().filter_map(|(_, data)| unpack(data)) {
        samples = samples.saturating_add(window.samples);
        for (merged, of) in host.iter_mut().zip(window.host) {
            merged.add(of, window.samples);
        }
        for (device, series) in window.gpus {
            if !gpus.iter().any(|(known, _)| *known == device) {
                gpus.push((device.clone(), Default::default()));
            }
            let Some((_, merged)) = gpus.iter_mut().find(|(known, _)| *known == device) else { continue };
            for (merged, of) in merged.iter_mut().zip(series) {
                merged.add(of, window.samples);
            }
        }
    }
    let ([cpu, memory], [cpu_unit, memory_unit]) = (host, HOST_UNITS);
    (samples > 0).then(|| Point {
        at: begins.begins(),
        samples,
        cpu_usage: cpu.range(cpu_unit),
        memory_used: memory.range(memory_unit),
        gpu: gpus.into_iter().map(gpu_point).collect(),
    })
}

fn gpu_point((device, [utilization, memory, temperature, power]): (Device, [Merged; 4])) -> GpuPoint {
    let [utilization_unit, memory_unit, temperature_unit, power_unit] = GPU_UNITS;
    GpuPoint {
        device_id: device.to_string(),
        utilization: utilization.range(utilization_unit),
        memory_used: memory.range(memory_unit),
        temperature: temperature.range(temperature_unit),
        power_draw: power.range(power_unit),
    }
}
