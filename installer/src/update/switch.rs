//! From one release to another: the installation's own transaction, with the units that belong to
//! the release, one restart of the service, and the proof that it is online. Says how it ended; what
//! follows of that is `watch`'s and `service`'s.

use std::{fs, path::PathBuf, pin::Pin, time::Duration};

use aio_host::layout::{Layout, UNIT};
use aio_protocol::{
    error_code::ErrorCode,
    ids::NodeId,
    update::{RootPhase, Verdict},
};
use reqwest::Client;

use super::record::{self, Update};
use crate::{
    console::Console,
    controller::{
        online::{self, Snapshot},
        report,
    },
    failure::Failure,
    machine::{host::Host, state_folder::StateFolder},
    release::verify::checksum,
    shipped,
    transaction::{
        apply::apply,
        checkpoint::{Checkpoint, Point},
        journal::Journal,
        plan::Plan,
        proof::Proof,
        step::{self, Step},
        undo::run::undo,
        work::Work,
    },
};

/// How long root waits for others. The defaults are the product's; labs shorten the probation.
#[derive(Debug, Clone, Copy)]
pub struct Timings {
    /// From a start of the service to its `READY=1`.
    pub ready: Duration,
    /// From there to an acknowledged heartbeat.
    pub online: Duration,
    /// For so long a new version is watched.
    pub probation: Duration,
    /// Between two looks at a version that is watched.
    pub look: Duration,
    /// Without a request for so long, the service ends; its socket starts it again.
    pub idle: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            ready: Duration::from_secs(10),
            online: Duration::from_secs(20),
            probation: Duration::from_secs(600),
            look: Duration::from_secs(1),
            idle: Duration::from_secs(5),
        }
    }
}

/// Where the new version's program is to be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// Among what was staged.
    Staged,
    /// In its own folder: it has run before.
    Kept,
}

/// The way from what runs to `version`.
fn plan(
    layout: &Layout,
    update: &Update,
    node: &NodeId,
    origin: Origin,
    timings: &Timings,
) -> Result<Plan, Failure> {
    let Update { version, from: present, .. } = update;
    let release = layout.release(version);
    let units = match origin {
        Origin::Staged => layout.staged_release().join(shipped::UNITS),
        Origin::Kept => release.join(shipped::UNITS),
    };
    let units = units_in(&units)?;
    let mut steps: Vec<Step> = Vec::new();
    let mut files = Vec::new();
    for (name, bytes) in &units {
        let installed = layout.units().join(name);
        let there = fs::read(&installed).ok();
        // Of the units of updates, a machine has those that it was installed with.
        let wanted = there.is_some() || name == UNIT;
        if let Some(there) = &there {
            files.push((layout.release(present).join(shipped::UNITS).join(name), there.clone()));
        }
        if origin == Origin::Staged {
            files.push((release.join(shipped::UNITS).join(name), bytes.clone()));
        }
        if wanted && there.as_ref() != Some(bytes) {
            files.push((installed, bytes.clone()));
        }
    }
    if origin == Origin::Staged {
        let (fetched, to) = (layout.staged_release().join(shipped::BINARY), release.join(shipped::BINARY));
        steps.push(step::PlaceRelease { fetched, to }.into());
    }
    if !files.is_empty() {
        let reloads = files.iter().any(|(path, _)| path.parent() == Some(&layout.units()));
        steps.push(step::WriteUnits { files }.into());
        if reloads {
            steps.push(step::ReloadManager.into());
        }
    }
    let previous = Some(present.clone());
    steps.push(step::SwitchRelease { link: layout.current(), version: version.clone(), previous }.into());
    let (running, patience) = (true, Some(timings.ready));
    steps.push(step::StartUnit { running, patience, state: StateFolder::Daemons }.into());
    let proof = Proof { node: node.clone(), patience: timings.online };
    Ok(Plan { steps, proof: Some(proof) })
}

fn units_in(folder: &PathBuf) -> Result<Vec<(String, Vec<u8>)>, Failure> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Failure::io("read", folder, &error)),
    };
    let mut units = Vec::new();
    for entry in entries.flatten() {
        let Some(name) = entry.file_name().to_str().filter(|name| shipped::is_unit(name)).map(str::to_owned)
        else {
            continue;
        };
        let bytes = fs::read(entry.path()).map_err(|error| Failure::io("read", &entry.path(), &error))?;
        units.push((name, bytes));
    }
    units.sort();
    Ok(units)
}

/// Goes to the other version, up to the proof. The transaction stays open: it is the caller's to
/// commit or to undo.
pub(super) async fn switch(
    host: &Host,
    journal: &mut Journal,
    update: &Update,
    node: &NodeId,
    origin: Origin,
    timings: &Timings,
    checkpoint: &dyn Checkpoint,
) -> Result<Snapshot, Failure> {
    let plan = plan(&host.layout, update, node, origin, timings)?;
    let unit = fs::read(host.layout.release(&update.version).join(shipped::UNITS).join(UNIT))
        .or_else(|_| fs::read(host.layout.staged_release().join(shipped::UNITS).join(UNIT)))
        .or_else(|_| fs::read(host.layout.unit()))
        .map_err(|error| Failure::io("read", &host.layout.unit(), &error))?;
    journal.begin_with_unit(node.clone(), update.version.clone(), checksum(&unit))?;
    let (client, console) = (Client::new(), Console::Silent);
    let mut never: crate::request::Interrupt<'_> = Box::pin(std::future::pending());
    let applied = report::beside(None, async |reporter| {
        let work = Work { host, client: &client, console: &console, reporter: &reporter };
        let told = Told { layout: &host.layout, checkpoint };
        apply(&plan, &work, journal, &told, &mut never).await
    });
    let applied = applied.await.map_err(|stopped| stopped.failure)?;
    let Some(snapshot) = applied.worker else {
        return Err(Failure::new(ErrorCode::Internal, "an update was not proven"));
    };
    let expected = update.version.to_string();
    if format!("v{}", snapshot.version) != expected {
        let message = format!("{expected} was started, and what runs says that it is {}", snapshot.version);
        return Err(Failure::new(ErrorCode::UpdateFaulty, message));
    }
    Ok(snapshot)
}

/// Says that the new version runs, once it does, and lets another hear of every moment, too.
struct Told<'a> {
    layout: &'a Layout,
    checkpoint: &'a dyn Checkpoint,
}

impl Checkpoint for Told<'_> {
    fn reached<'a>(&'a self, point: Point<'a>) -> Pin<Box<dyn Future<Output = Result<(), Failure>> + 'a>> {
        Box::pin(async move {
            if point == Point::Applied(step::START_UNIT) {
                record::change(self.layout, |status| status.phase = RootPhase::Proving)?;
            }
            self.checkpoint.reached(point).await
        })
    }
}

/// Goes back to what ran before, and says what to call it. Whether it was the release's fault shows
/// when the version before is online where the new one was not; a machine that could not put the
/// release in place says nothing about it.
pub(super) async fn back(
    host: &Host,
    journal: &mut Journal,
    update: &Update,
    node: &NodeId,
    why: Failure,
    timings: &Timings,
    checkpoint: &dyn Checkpoint,
) -> Result<(Verdict, Failure), Failure> {
    undo(host, journal, checkpoint).await?;
    match fault(why.code) {
        Fault::Release => return Ok((Verdict::Faulty, faulty(update, &why))),
        Fault::Machine => {
            let message = format!("{} could not be put in place: {}", update.version, why.message);
            return Ok((Verdict::Inconclusive, Failure { message, ..why }));
        }
        Fault::ReleaseOrNetwork => {}
    }
    match online::settled(host, node, timings.online).await {
        Ok(_) => Ok((Verdict::Faulty, faulty(update, &why))),
        Err(_) => {
            let message =
                format!("neither {} nor {} was online: {}", update.version, update.from, why.message);
            Ok((Verdict::Inconclusive, Failure::new(ErrorCode::UpdateInconclusive, message)))
        }
    }
}

/// Whose fault it may be that a switch has failed.
enum Fault {
    Release,
    /// The same is seen of a version that is well, where the network is not.
    ReleaseOrNetwork,
    /// Its disk, its systemd, or something that stands in the way.
    Machine,
}

fn fault(code: ErrorCode) -> Fault {
    match code {
        ErrorCode::OnlineTimeout => Fault::ReleaseOrNetwork,
        ErrorCode::ServiceFailed | ErrorCode::UpdateFaulty => Fault::Release,
        // It ran, and was refused.
        code if code.is_final() => Fault::Release,
        _ => Fault::Machine,
    }
}

fn faulty(update: &Update, why: &Failure) -> Failure {
    let message = format!("{} does not work on this node: {}", update.version, why.message);
    let failure = Failure::new(ErrorCode::UpdateFaulty, message);
    if why.code == ErrorCode::UpdateFaulty { failure } else { failure.with("cause", why.code.as_str()) }
}
