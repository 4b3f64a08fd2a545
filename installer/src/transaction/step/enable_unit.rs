//! Makes the service start at boot. Planned only where it does not.

use aio_host::layout::UNIT;

use super::{action::Action, start_unit::state_undo};
use crate::{
    failure::Failure,
    machine::{host::Host, state_folder::StateFolder},
    transaction::{
        journal::copies::Copies,
        undo::record::Undo,
        work::{Place, Work},
    },
};

/// Enables the unit.
#[derive(Debug)]
pub(crate) struct EnableUnit {
    /// Where the daemon will keep its state, if it is left to the next boot to start it.
    pub(crate) starts_later: Option<StateFolder>,
}

/// Where systemd links the unit, after its `WantedBy=`, beside the unit file.
const WANTS: &str = "multi-user.target.wants";

impl Action for EnableUnit {
    const NAME: &'static str = "enable_unit";

    fn summary(&self) -> String {
        format!("start {UNIT} at boot")
    }

    fn note(&self) -> Option<String> {
        self.starts_later.as_ref()?.note()
    }

    fn way_back(&self, host: &Host, _: &mut Copies) -> Result<Vec<Undo>, Failure> {
        let mut undo = Vec::new();
        if let Some(state) = &self.starts_later {
            // The next boot will start it; no other step of this plan does.
            undo.push(Undo::StopUnit { unit: UNIT.to_owned() });
            undo.extend(state_undo(host, state)?);
        }
        undo.push(Undo::DisableUnit { unit: UNIT.to_owned() });
        undo.extend(Undo::of_dirs(&host.layout.unit().with_file_name(WANTS)));
        Ok(undo)
    }

    async fn apply(&self, work: &Work<'_>, _: Place) -> Result<(), Failure> {
        if let Some(state) = &self.starts_later {
            state.make_way()?;
        }
        Ok(work.host.systemd.enable(UNIT).await?)
    }
}
