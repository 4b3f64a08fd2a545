//! Takes the worker off a machine: everything that the journal's committed installations did is
//! undone, the last step first. A run that is killed is finished by the next: undoing a step asks
//! how the thing was, not how far anything came.

use std::path::PathBuf;

use aio_protocol::{ids::NodeId, release::ReleaseVersion};

use crate::{
    bootstrap,
    controller::undelivered,
    failure::Failure,
    machine::{host::Host, lock::Lock},
    transaction::{
        checkpoint::Checkpoint,
        journal::Journal,
        step,
        undo::{
            record::Undo,
            run::{undo, undo_steps},
        },
    },
    update,
};

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Removal {
    /// The configuration, too.
    pub purge: bool,
    /// Say what would be undone, and change nothing.
    pub dry_run: bool,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Removed {
    /// As whom the machine was installed, and with what; nothing when no installation of ours is on
    /// it.
    pub installed: Option<(NodeId, ReleaseVersion)>,
    /// What was undone, or would be: one line for a person each.
    pub undone: Vec<String>,
    /// The files that stay for a later installation, and go with `purge`.
    pub kept: Vec<PathBuf>,
    /// Whether nothing was changed.
    pub dry_run: bool,
}

/// Removes what installations have put on this machine, and puts back what they replaced.
pub async fn uninstall(
    host: &Host,
    removal: Removal,
    checkpoint: &dyn Checkpoint,
) -> Result<Removed, Failure> {
    let dir = host.layout.journal_dir();
    if removal.dry_run {
        return Ok(foresee(host, &Journal::read(&dir)?, removal));
    }
    let lock = Lock::take_when_free(&dir, &|failure| update::explain(&host.layout, failure)).await?;
    let outcome = locked(host, removal, checkpoint).await;
    // The folder stays while a journal is in it. Failing to remove it is no failure.
    if let Err(failure) = lock.release(&dir) {
        tracing::warn!(message = %failure.message, "could not tidy up");
    }
    outcome
}

async fn locked(host: &Host, removal: Removal, checkpoint: &dyn Checkpoint) -> Result<Removed, Failure> {
    let mut journal = Journal::open(&host.layout.journal_dir())?;
    let removed = foresee(host, &journal, removal);
    if journal.is_cut_off() {
        undo(host, &mut journal, checkpoint).await?;
    }
    // The folder of the releases is empty then.
    update::forget(&host.layout)?;
    let steps: Vec<_> = journal.committed_steps().filter(|(step, _)| !is_kept(step, removal)).collect();
    undo_steps(host, journal.kept_copies(), &steps, checkpoint).await?;
    journal.forget(|step| is_kept(step, removal))?;
    if removal.purge {
        undelivered::forget(&host.layout)?;
        bootstrap::forget(&host.layout)?;
    }
    Ok(removed)
}

fn is_kept(step: &str, removal: Removal) -> bool {
    !removal.purge && step == step::CONFIGURATION
}

fn foresee(host: &Host, journal: &Journal, removal: Removal) -> Removed {
    let undone: Vec<_> = journal
        .committed_steps()
        .chain(journal.open_steps())
        .rev()
        .filter(|(step, _)| !is_kept(step, removal))
        .flat_map(|(_, records)| records)
        .map(ToString::to_string)
        .collect();
    let mut untold = Vec::new();
    if !removal.purge {
        untold = undelivered::list(&host.layout.undelivered());
        untold.extend(bootstrap::list(&host.layout));
    }
    let kept = journal
        .committed_steps()
        .filter(|(step, _)| is_kept(step, removal))
        .flat_map(|(_, records)| records)
        .filter_map(Undo::file)
        .chain(untold)
        .collect();
    let installed = journal.installed().filter(|_| !undone.is_empty());
    Removed { installed, undone, kept, dry_run: removal.dry_run }
}
