//! What a daemon leaves of its GPUs to the one that takes its place at once: a driver may take
//! seconds to answer the first question, and nobody is to hear meanwhile that the GPUs are unknown.
//! Counts for a moment only, and until the driver has answered.

use std::{fs, path::Path, time::Duration};

use aio_host::files::{self, FileError};
use aio_protocol::{
    inventory::{Gpu, GpuDriver},
    telemetry::{GpuDetail, HealthSummary},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use super::Readings;
use crate::health::Judged;

/// The file's name in the inbox.
const FILE: &str = "handover.json";

/// Who takes the place later looks for itself.
const LIFE: Duration = Duration::from_secs(60);

/// The GPUs as they were told last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Handover {
    at: Timestamp,
    driver: GpuDriver,
    gpus: Vec<Gpu>,
    missing: Vec<Gpu>,
    details: Vec<GpuDetail>,
    summary: HealthSummary,
}

impl Handover {
    /// What the readings say at `at`; none before the driver has said anything.
    pub(crate) fn of(readings: &Readings, at: Timestamp) -> Option<Self> {
        let Judged { driver, gpus, missing, details, summary } = readings.gpu.as_deref()?.clone();
        Some(Self { at, driver, gpus, missing, details, summary })
    }

    /// Leaves it in the inbox.
    pub(crate) fn leave(&self, inbox: &Path) -> Result<(), FileError> {
        let text = serde_json::to_vec(self).unwrap_or_default();
        files::replace_file(&inbox.join(FILE), &text, 0o600)
    }

    /// Takes what was left in the inbox, if it still counts at `now`.
    pub(crate) fn take(inbox: &Path, now: Timestamp) -> Option<Judged> {
        let path = inbox.join(FILE);
        let text = fs::read(&path).ok()?;
        // One that stays is too old the next time.
        let _ = fs::remove_file(&path);
        let Self { at, driver, gpus, missing, details, summary } = serde_json::from_slice(&text).ok()?;
        let counts = at <= now && now.since(at) <= LIFE;
        counts.then_some(Judged { driver, gpus, missing, details, summary })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::messages::tests::full;

    #[test]
    fn what_is_left_counts_once_and_for_a_minute() {
        let inbox = tempfile::tempdir().unwrap();
        let (now, readings) = (Timestamp::from_millis(1_800_000_000_000), full(8));
        let left = Handover::of(&readings, now).unwrap();
        let take = |after: u64| Handover::take(inbox.path(), now.plus(Duration::from_secs(after)));
        assert_eq!(take(0), None);
        left.leave(inbox.path()).unwrap();
        assert_eq!(take(60).as_ref(), readings.gpu.as_deref());
        assert_eq!(take(1), None, "it was taken");
        left.leave(inbox.path()).unwrap();
        assert_eq!((take(61), take(0)), (None, None), "it was too old");
        fs::write(inbox.path().join(FILE), "{").unwrap();
        assert_eq!(take(0), None);
        assert_eq!(Handover::of(&Readings::default(), now), None);
    }
}
