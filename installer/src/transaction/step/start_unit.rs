//! Starts the service, or restarts it so that it reads what is new, and waits until it says that it is ready.

use aio_host::{
    layout::UNIT,
    systemd::{Systemd, SystemdError},
};

use super::action::Action;
use crate::{
    failure::{Failure, of_service},
    machine::host::Host,
    transaction::{journal::copies::Copies, undo::record::Undo, work::Work},
};

/// Starts or restarts the unit, and waits for its job.
#[derive(Debug)]
pub(crate) struct StartUnit {
    /// Whether the service runs already.
    pub(crate) running: bool,
}

impl Action for StartUnit {
    const NAME: &'static str = "start_unit";

    fn summary(&self) -> String {
        format!("{} {UNIT}", if self.running { "restart" } else { "start" })
    }

    fn way_back(&self, host: &Host, _: &mut Copies) -> Result<Vec<Undo>, Failure> {
        let unit = UNIT.to_owned();
        let mut undo =
            if self.running { vec![Undo::RestartUnit { unit }] } else { vec![Undo::StopUnit { unit }] };
        undo.extend(state_undo(host)?);
        Ok(undo)
    }

    async fn apply(&self, work: &Work<'_>) -> Result<(), Failure> {
        let systemd = &work.host.systemd;
        let ran = if self.running { systemd.restart(UNIT).await } else { systemd.start(UNIT).await };
        match ran {
            Ok(()) => Ok(()),
            Err(error @ (SystemdError::JobFailed { .. } | SystemdError::JobTimeout { .. })) => {
                Err(explain(systemd, error).await)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// How the daemon's state folder was before it first ran.
pub(super) fn state_undo(host: &Host) -> Result<Vec<Undo>, Failure> {
    let state = host.layout.state_dir();
    if state.symlink_metadata().is_err() {
        Ok(vec![Undo::RemoveTree { path: state }])
    } else if host.is_of_daemon(&state) {
        Ok(Vec::new())
    } else {
        // systemd gives all of it to the daemon's user.
        Undo::of_owners(&state)
    }
}

/// What systemd knows of the service's end, beside the job's.
async fn explain(systemd: &Systemd, error: SystemdError) -> Failure {
    let failure = Failure::from(error);
    match systemd.unit(UNIT).await {
        Ok(unit) => of_service(failure, &unit),
        Err(_) => failure,
    }
}
