//! Root's word on how an update stands: one file, written before each move and read by whoever goes
//! on after a cut. The daemon and everybody else may read it; only root can write it.

use std::{fs, io};

use aio_host::{files, layout::Layout};
use aio_protocol::{
    error_code::ErrorCode,
    release::ReleaseVersion,
    time::Timestamp,
    update::{LastUpdate, RootPhase, RootStatus, Verdict},
};
use uuid::Uuid;

use crate::failure::Failure;

/// An update on its way: which, from where, and where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Update {
    pub(crate) id: Uuid,
    pub(crate) from: ReleaseVersion,
    pub(crate) version: ReleaseVersion,
}

/// What is written. One that cannot be understood counts as none: it decides nothing that the
/// journal does not know as well.
pub(crate) fn read(layout: &Layout) -> Result<RootStatus, Failure> {
    let path = layout.update_status();
    match fs::read(&path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or_default()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(RootStatus::default()),
        Err(error) => Err(Failure::io("read", &path, &error)),
    }
}

/// The update that `status` is about, unless it is idle.
pub(crate) fn under_way(status: &RootStatus) -> Option<Update> {
    if status.phase == RootPhase::Idle {
        return None;
    }
    let (id, from, version) = (status.update_id?, status.from.clone()?, status.version.clone()?);
    Some(Update { id, from, version })
}

/// Writes `status`, durably.
pub(crate) fn write(layout: &Layout, status: &RootStatus) -> Result<(), Failure> {
    let bytes = serde_json::to_vec(status).map_err(|error| {
        Failure::new(ErrorCode::Internal, format!("the status cannot be written: {error}"))
    })?;
    Ok(files::replace_file(&layout.update_status(), &bytes, 0o644)?)
}

/// Changes what is written.
pub(crate) fn change(layout: &Layout, change: impl FnOnce(&mut RootStatus)) -> Result<(), Failure> {
    let mut status = read(layout)?;
    change(&mut status);
    write(layout, &status)
}

/// Says that root is at `phase` of `update`.
pub(crate) fn at(
    layout: &Layout,
    update: &Update,
    phase: RootPhase,
    until: Option<Timestamp>,
) -> Result<(), Failure> {
    change(layout, |status| {
        status.phase = phase;
        status.update_id = Some(update.id);
        status.from = Some(update.from.clone());
        status.version = Some(update.version.clone());
        status.until = until;
    })
}

/// Says how `update` ended, and that root is idle.
pub(crate) fn ended(
    layout: &Layout,
    update: &Update,
    verdict: Verdict,
    why: Option<&Failure>,
    at: Timestamp,
) -> Result<(), Failure> {
    change(layout, |status| *status = conclude(status, update, verdict, why, at).idle())
}

/// Says that an operator takes `update` back, which is about to happen.
pub(crate) fn taken_back(layout: &Layout, update: &Update, at: Timestamp) -> Result<(), Failure> {
    change(layout, |status| {
        let concluded = conclude(status, update, Verdict::Reverted, None, at);
        *status = RootStatus { phase: RootPhase::Reverting, ..concluded };
    })
}

fn conclude(
    status: &RootStatus,
    update: &Update,
    verdict: Verdict,
    why: Option<&Failure>,
    at: Timestamp,
) -> RootStatus {
    let last = LastUpdate {
        update_id: update.id,
        from: update.from.clone(),
        version: update.version.clone(),
        verdict,
        code: why.map(|failure| failure.code.as_str().to_owned()),
        message: why.map(|failure| failure.message.clone()),
        at,
    };
    let previous = match verdict {
        Verdict::Succeeded => Some(update.from.clone()),
        // There is nothing further back.
        Verdict::Reverted => None,
        _ => status.previous.clone(),
    };
    RootStatus { last: Some(last), previous, ..status.clone() }
}
