//! The errors (Xid) that are not over. One is over when the machine was rebooted, the GPU was
//! reset, the driver itself asks for nothing any more, or when it is old. Pure.

use aio_host::gpu::{GpuReport, Reading};
use aio_protocol::{inventory::Gpu, telemetry::RecoveryAction, time::Timestamp};

use super::{News, Thresholds, called, memory::RememberedXid, xid};

/// The errors that are not over.
#[derive(Debug)]
pub(super) struct Xids {
    boot_id: Option<String>,
    remembered: Vec<RememberedXid>,
    /// The last event that was read.
    read: u64,
}

impl Xids {
    pub(super) fn new(boot_id: Option<String>, remembered: Vec<RememberedXid>) -> Self {
        Self { boot_id, remembered, read: 0 }
    }

    /// The errors of one GPU.
    pub(super) fn of(&self, uuid: &str) -> Vec<&RememberedXid> {
        self.remembered.iter().filter(|remembered| remembered.uuid == uuid).collect()
    }

    pub(super) fn memory(&self) -> (Option<String>, Vec<RememberedXid>) {
        (self.boot_id.clone(), self.remembered.clone())
    }

    /// Forgets what is over and takes what is new. `gpus` are in the order of the report's readings.
    pub(super) fn hear(
        &mut self,
        report: &GpuReport,
        gpus: &[Gpu],
        boot_id: Option<&str>,
        wall: Timestamp,
        thresholds: &Thresholds,
    ) -> Vec<News> {
        if let Some(boot_id) = boot_id
            && self.boot_id.as_deref() != Some(boot_id)
        {
            // Of another boot, or of none that is known: what was heard in this one has been read with it.
            if self.boot_id.is_some() {
                self.remembered.clear();
            }
            self.boot_id = Some(boot_id.to_owned());
        }
        let reading_of = |uuid: &str| {
            let index = gpus.iter().position(|gpu| gpu.uuid.as_deref() == Some(uuid))?;
            report.readings.get(index)
        };
        self.remembered.retain(|remembered| {
            let counts = !thresholds.ignored_xids.contains(&remembered.code);
            let young = wall.since(remembered.at) < thresholds.xid_memory;
            counts
                && young
                && !reading_of(&remembered.uuid).is_some_and(|reading| is_over(remembered, reading))
        });
        let mut news = vec![];
        for event in report.xids.iter().filter(|event| event.sequence > self.read) {
            let meaning = xid::meaning(event.code);
            let ignored = thresholds.ignored_xids.contains(&event.code);
            let of_the_gpu = meaning.is_some_and(|meaning| meaning.health.is_some()) && !ignored;
            let gpu = gpus.iter().find(|gpu| gpu.uuid.is_some() && gpu.uuid == event.uuid);
            news.push(News::Xid {
                gpu: gpu.map(called).or_else(|| event.uuid.clone()).unwrap_or_else(|| "a GPU".to_owned()),
                code: event.code,
                meaning: meaning.map_or("not in NVIDIA's catalogue", |meaning| meaning.words),
                of_the_gpu,
            });
            if let Some(uuid) = event.uuid.clone().filter(|_| of_the_gpu) {
                let energy = reading_of(&uuid).and_then(|reading| reading.energy);
                self.remembered
                    .retain(|remembered| (&remembered.uuid, remembered.code) != (&uuid, event.code));
                self.remembered.push(RememberedXid { uuid, code: event.code, at: event.at, energy });
            }
        }
        self.read = report.xids.last().map_or(self.read, |event| event.sequence.max(self.read));
        news
    }
}

fn is_over(remembered: &RememberedXid, reading: &Reading) -> bool {
    let linked = xid::meaning(remembered.code).is_some_and(|meaning| meaning.linked);
    let reset = matches!((remembered.energy, reading.energy), (Some(then), Some(now)) if now < then);
    reset || (linked && reading.recovery_action == Some(RecoveryAction::Nothing))
}
