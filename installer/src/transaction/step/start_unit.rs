//! Starts the service, or restarts it so that it reads what is new, and waits until it says that it
//! is ready.

use std::time::Duration;

use aio_host::{
    layout::UNIT,
    systemd::{Systemd, SystemdError},
};

use super::action::Action;
use crate::{
    failure::{Failure, of_service},
    machine::{drop_ins::taken_away, host::Host, state_folder::StateFolder},
    transaction::{
        journal::copies::Copies,
        undo::record::Undo,
        work::{Place, Work},
    },
};

/// Starts or restarts the unit, and waits for its job.
#[derive(Debug)]
pub(crate) struct StartUnit {
    /// Whether the service runs already.
    pub(crate) running: bool,
    /// How long its job may take, which may wait for others; none for as long as usual.
    pub(crate) patience: Option<Duration>,
    /// Where the daemon will keep its state.
    pub(crate) state: StateFolder,
}

impl Action for StartUnit {
    const NAME: &'static str = "start_unit";

    fn summary(&self) -> String {
        format!("{} {UNIT}", if self.running { "restart" } else { "start" })
    }

    fn note(&self) -> Option<String> {
        self.state.note()
    }

    fn way_back(&self, host: &Host, _: &mut Copies) -> Result<Vec<Undo>, Failure> {
        let unit = UNIT.to_owned();
        let mut undo =
            if self.running { vec![Undo::RestartUnit { unit }] } else { vec![Undo::StopUnit { unit }] };
        undo.extend(state_undo(host, &self.state)?);
        Ok(undo)
    }

    async fn apply(&self, work: &Work<'_>, _: Place) -> Result<(), Failure> {
        self.state.make_way()?;
        let systemd = &work.host.systemd;
        let ran = match (self.running, self.patience) {
            (true, Some(patience)) => systemd.restart_within(UNIT, patience).await,
            (true, None) => systemd.restart(UNIT).await,
            (false, Some(patience)) => systemd.start_within(UNIT, patience).await,
            (false, None) => systemd.start(UNIT).await,
        };
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
pub(super) fn state_undo(host: &Host, state: &StateFolder) -> Result<Option<Undo>, Failure> {
    let path = host.layout.state_dir();
    Ok(match state {
        StateFolder::Absent => Some(Undo::RemoveTree { path }),
        StateFolder::Daemons => None,
        StateFolder::Empty => Some(Undo::of_owner(&path)?),
        StateFolder::Foreign { aside, .. } => Some(Undo::MoveBack { path, aside: aside.clone() }),
    })
}

/// What systemd knows of the service's end, beside the job's.
async fn explain(systemd: &Systemd, error: SystemdError) -> Failure {
    let failure = Failure::from(error);
    let mut failure = match systemd.unit(UNIT).await {
        Ok(unit) => of_service(failure, &unit),
        Err(_) => failure,
    };
    for words in systemd.settings(UNIT).await.iter().flat_map(taken_away) {
        failure.message.push_str(&format!("; {words}"));
    }
    failure
}
