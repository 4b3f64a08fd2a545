//! Five minutes of a node: for each series the least, the mean and the greatest. Pure. Numbers are whole
//! units of `Unit`, so that a window is small in memory and on the disk. A series of which nothing was said
//! has no numbers.

use super::{Slot, device::Device, reading::Reading};

/// The unit of a GPU's or a machine's memory.
const MEMORY_UNIT: u64 = 16 * 1024 * 1024;

/// The largest number of a series: 16 TiB of memory.
pub(super) const MAX: u32 = 1 << 20;

/// No worker tells more in five minutes, and no sum runs over.
const MAX_SAMPLES: u16 = 4_000;

/// GPUs of a node that have series.
const MAX_GPUS: usize = 64;

/// What a series is measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// A tenth of a percent.
    Tenth,
    /// 16 MiB.
    Memory,
    /// Percent, °C or watts.
    Whole,
}

impl Unit {
    /// What one of it is of what people read: percent, bytes, °C or watts.
    pub(super) fn size(self) -> f64 {
        match self {
            Self::Tenth => 0.1,
            #[expect(clippy::cast_precision_loss, reason = "a power of two")]
            Self::Memory => MEMORY_UNIT as f64,
            Self::Whole => 1.0,
        }
    }
}

/// The series of a GPU, in the order in which they are packed.
pub(super) const GPU_UNITS: [Unit; 4] = [Unit::Whole, Unit::Memory, Unit::Whole, Unit::Whole];

/// The series of a machine: processors and memory.
pub(super) const HOST_UNITS: [Unit; 2] = [Unit::Tenth, Unit::Memory];

/// One series in a window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Spread {
    pub min: u32,
    pub max: u32,
    sum: u32,
    count: u16,
}

impl Spread {
    pub(super) fn add(&mut self, value: u32) {
        let value = value.min(MAX);
        if self.count >= MAX_SAMPLES {
            return;
        }
        let first = self.count == 0;
        self.min = if first { value } else { self.min.min(value) };
        self.max = self.max.max(value);
        self.sum = self.sum.saturating_add(value);
        self.count += 1;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How far the mean is from the least to the greatest, in 255ths.
    pub(super) fn lean(&self) -> u8 {
        let range = f64::from(self.max - self.min);
        if self.is_empty() || range == 0.0 {
            return 0;
        }
        let mean = f64::from(self.sum) / f64::from(self.count) - f64::from(self.min);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 255")]
        let lean = (mean / range * 255.0).round().clamp(0.0, 255.0) as u8;
        lean
    }
}

/// A node's window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Window {
    slot: Slot,
    pub samples: u16,
    pub host: [Spread; 2],
    pub gpus: Box<[(Device, [Spread; 4])]>,
}

impl Window {
    pub(super) fn new(slot: Slot) -> Self {
        Self { slot, samples: 0, host: Default::default(), gpus: Box::default() }
    }

    pub(super) fn slot(&self) -> Slot {
        self.slot
    }

    /// Adds what was measured in this window.
    pub(super) fn add(&mut self, reading: &Reading) {
        self.samples = self.samples.saturating_add(1);
        let [cpu, memory] = &mut self.host;
        cpu.add(tenths(reading.host.cpu_usage));
        if reading.memory_used > 0 {
            memory.add(units(reading.memory_used));
        }
        for gpu in &reading.gpus {
            let told = [
                gpu.utilization.map(u32::from),
                gpu.memory_used.map(units),
                gpu.temperature.map(u32::from),
                gpu.power_draw.map(u32::from),
            ];
            if told.iter().all(Option::is_none) {
                continue;
            }
            let Some(series) = self.series_of(&gpu.device) else { continue };
            for (spread, value) in series.iter_mut().zip(told) {
                value.into_iter().for_each(|value| spread.add(value));
            }
        }
    }

    fn series_of(&mut self, device: &Device) -> Option<&mut [Spread; 4]> {
        let known = self.gpus.iter().position(|(it, _)| it == device);
        let index = match known {
            Some(index) => index,
            None if self.gpus.len() >= MAX_GPUS => return None,
            None => {
                let mut gpus = std::mem::take(&mut self.gpus).into_vec();
                gpus.reserve_exact(1);
                gpus.push((device.clone(), Default::default()));
                self.gpus = gpus.into();
                self.gpus.len() - 1
            }
        };
        self.gpus.get_mut(index).map(|(_, series)| series)
    }
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.saturating_add(MEMORY_UNIT / 2) / MEMORY_UNIT).unwrap_or(MAX)
}

fn tenths(percent: f32) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 1000")]
    let tenths = (percent.clamp(0.0, 100.0) * 10.0).round() as u32;
    tenths
}
