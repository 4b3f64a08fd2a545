//! Watches a version that is online, until its probation is over: a crash may come once, a second
//! one, or GPUs that were here before and are gone, is the release's fault.

use std::time::Duration;

use aio_host::layout::UNIT;
use aio_protocol::{error_code::ErrorCode, time::Timestamp};
use tokio::time::sleep;

use crate::{
    controller::online::{self, Snapshot},
    failure::{Failure, of_service},
    machine::host::Host,
};

/// Interval between looks at the service.
const LOOK: Duration = Duration::from_secs(1);

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
pub(super) async fn watch(host: &Host, before: Before, until: Timestamp) -> Result<(), Failure> {
    let at_first = host.systemd.unit(UNIT).await?.restarts;
    loop {
        let unit = host.systemd.unit(UNIT).await?;
        let restarts = unit.restarts.saturating_sub(at_first) + before.strikes;
        if restarts >= RESTARTS || unit.active_state == "failed" {
            let message = format!("{UNIT} was restarted {restarts} times in its probation");
            return Err(of_service(Failure::new(ErrorCode::UpdateFaulty, message), &unit));
        }
        let snapshot = online::present(host, LOOK).await;
        if let Some(lost) = snapshot.as_ref().map(|now| now.lost(before.gpus)).filter(|lost| *lost > 0) {
            let message = format!("{lost} GPUs that were here before the update are gone");
            return Err(Failure::new(ErrorCode::UpdateFaulty, message));
        }
        // What ends while nobody can say how it is has not ended well.
        if snapshot.is_some() && now() >= until {
            return Ok(());
        }
        sleep(LOOK).await;
    }
}

impl Snapshot {
    /// How many of `gpus` the driver does not show any more; none while it has not been asked.
    fn lost(&self, gpus: usize) -> usize {
        if self.gpu_driver.is_some() { gpus.saturating_sub(self.gpus.len()) } else { 0 }
    }
}

pub(super) fn now() -> Timestamp {
    std::time::SystemTime::now().into()
}
