//! Opens root's socket for updates, now and at every boot, and lets what was cut off be taken up at
//! boot. Planned only where it is not so.

use aio_host::layout::{RECOVER_UNIT, UPDATE_SOCKET_UNIT, UPDATE_UNIT};

use super::action::Action;
use crate::{
    failure::Failure,
    machine::host::Host,
    transaction::{
        journal::copies::Copies,
        undo::record::Undo,
        work::{Place, Work},
    },
};

/// Enables the units of updates, and starts the socket unless that is left to the next boot.
#[derive(Debug)]
pub(crate) struct EnableUpdater {
    pub(crate) starts: bool,
}

impl Action for EnableUpdater {
    const NAME: &'static str = "enable_updater";

    fn summary(&self) -> String {
        format!("open root's socket for updates ({UPDATE_SOCKET_UNIT})")
    }

    fn way_back(&self, host: &Host, _: &mut Copies) -> Result<Vec<Undo>, Failure> {
        let of = |unit: &str| unit.to_owned();
        let mut undo = vec![
            Undo::StopUnit { unit: of(UPDATE_SOCKET_UNIT) },
            Undo::StopUnit { unit: of(UPDATE_UNIT) },
            Undo::DisableUnit { unit: of(UPDATE_SOCKET_UNIT) },
            Undo::DisableUnit { unit: of(RECOVER_UNIT) },
        ];
        let units = host.layout.units();
        undo.extend(Undo::of_dirs(&units.join("sockets.target.wants")));
        undo.extend(Undo::of_dirs(&units.join("multi-user.target.wants")));
        let status = host.layout.update_status();
        undo.extend(status.parent().map(|path| Undo::RemoveTree { path: path.to_owned() }));
        undo.push(Undo::RemoveTree { path: host.layout.update_runtime_dir() });
        Ok(undo)
    }

    async fn apply(&self, work: &Work<'_>, _: Place) -> Result<(), Failure> {
        let systemd = &work.host.systemd;
        systemd.enable(UPDATE_SOCKET_UNIT).await?;
        systemd.enable(RECOVER_UNIT).await?;
        if self.starts {
            systemd.start(UPDATE_SOCKET_UNIT).await?;
        }
        Ok(())
    }
}
