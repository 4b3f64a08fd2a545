//! Watches a version that is online, until its probation is over: a crash may come once, a second
//! one, or GPUs that were here before and are gone, is the release's fault.

use std::time::Duration;

use aio_host::layout::UNIT;
use aio_protocol::{error_code::ErrorCode, inventory::GpuDriverState, time::Timestamp};
use tokio::time::sleep;

use crate::{
    controller::online::{self, Snapshot},
    failure::{Failure, of_service},
    machine::host::Host,
};

/// The worker says at once how it is.
const PATIENCE: Duration = Duration::from_secs(1);

/// GPUs count as gone when they are in so many looks in a row: a driver takes its time.
const GONE: u32 = 10;

/// So many unplanned restarts end a probation.
const RESTARTS: u32 = 2;

/// What is watched for, beside the service's life.
#[derive(Debug, Clone, Copy)]
pub(super) struct Before {
    /// GPUs that the worker had before the update.
    pub(super) gpus: usize,
    /// Restarts that are held against it already: the machine lost its power.
    pub(super) strikes: u32,
}

/// Ends when the probation is over, or with what is wrong.
pub(super) async fn watch(
    host: &Host,
    before: Before,
    until: Timestamp,
    pace: Duration,
) -> Result<(), Failure> {
    let at_first = host.systemd.unit(UNIT).await?.restarts;
    let mut gone = 0;
    loop {
        let unit = host.systemd.unit(UNIT).await?;
        let restarts = unit.restarts.saturating_sub(at_first) + before.strikes;
        if restarts >= RESTARTS || unit.active_state == "failed" {
            let message = format!("{UNIT} was restarted {restarts} times in its probation");
            return Err(of_service(Failure::new(ErrorCode::UpdateFaulty, message), &unit));
        }
        let snapshot = online::present(host, PATIENCE).await;
        let lost = snapshot.as_ref().map_or(0, |now| now.lost(before.gpus));
        gone = if lost > 0 { gone + 1 } else { 0 };
        if gone >= GONE {
            let message = format!("{lost} GPUs that were here before the update are gone");
            return Err(Failure::new(ErrorCode::UpdateFaulty, message));
        }
        // What ends while nobody can say how it is, or while GPUs are missed, has not ended well.
        if snapshot.is_some() && gone == 0 && now() >= until {
            return Ok(());
        }
        sleep(pace).await;
    }
}

impl Snapshot {
    /// How many of `gpus` the driver does not show any more; none while it does not answer, which is
    /// not the release's fault.
    fn lost(&self, gpus: usize) -> usize {
        let answers = self.gpu_driver.as_ref().is_some_and(|driver| driver.state == GpuDriverState::Ok);
        if answers { gpus.saturating_sub(self.gpus.len()) } else { 0 }
    }
}

pub(super) fn now() -> Timestamp {
    std::time::SystemTime::now().into()
}
