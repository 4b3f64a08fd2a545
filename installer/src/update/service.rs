//! Root's service: takes up what was cut off, answers requests over its socket, and watches a new
//! version meanwhile. Decides the order of things; each is done elsewhere. A request names an update
//! and a version, never a path, an address or a command.

use std::{path::Path, time::Duration};

use aio_host::layout::UPDATE_UNIT;
use aio_protocol::{
    error_code::ErrorCode,
    ids::NodeId,
    release::{Checksum, ReleaseVersion},
    update::{MAX_ROOT_REQUEST_BYTES, RootAnswer, RootPhase, RootRequest, Verdict},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    time::timeout,
};
use uuid::Uuid;

use super::{
    record::{self, Update},
    rehearsal,
    stage::{self, Wanted},
    switch::{self, Origin, Timings},
    trust::{Seen, Trust},
    watch::{self, Before, now},
};
use crate::{
    controller::online,
    failure::Failure,
    machine::{host::Host, lock::Lock},
    release::prune::prune,
    transaction::{
        checkpoint::Checkpoint,
        journal::Journal,
        undo::run::{undo, undo_before_start},
    },
};

/// A request is one line, and comes at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long root waits for the running worker to say how it is.
const LOOK: Duration = Duration::from_secs(2);

/// Root's service on one machine.
pub(super) struct Service<'a> {
    pub(super) host: &'a Host,
    pub(super) timings: Timings,
    pub(super) checkpoint: &'a dyn Checkpoint,
}

/// A request, and who waits for the answer.
struct Asked {
    request: RootRequest,
    stream: UnixStream,
}

impl Service<'_> {
    /// Serves until there is nothing to do.
    pub(super) async fn serve(&self, listener: &UnixListener) -> Result<(), Failure> {
        if let Some((update, strikes)) = self.take_up().await? {
            self.probation(listener, &update, strikes).await?;
        }
        while let Ok(accepted) = timeout(self.timings.idle, listener.accept()).await {
            let (stream, _) = accepted.map_err(internal)?;
            let Some(Asked { request, mut stream }) = asked(stream).await else { continue };
            match request {
                RootRequest::Stage { update_id, version, manifest_sha256, index_serial } => {
                    let staged = self.stage(update_id, &version, &manifest_sha256, index_serial).await;
                    answer(&mut stream, staged.map(|()| RootAnswer::Staged)).await;
                }
                RootRequest::Switch { update_id } => match self.staged(update_id) {
                    Ok(update) => {
                        answer(&mut stream, Ok(RootAnswer::Switching)).await;
                        drop(stream);
                        self.go(listener, &update).await?;
                    }
                    Err(failure) => answer(&mut stream, Err(failure)).await,
                },
                RootRequest::Revert { update_id } => match self.way_back(update_id) {
                    Ok(update) => {
                        answer(&mut stream, Ok(RootAnswer::Switching)).await;
                        self.revert(&update).await?;
                    }
                    Err(failure) => answer(&mut stream, Err(failure)).await,
                },
            }
        }
        Ok(())
    }

    /// Takes up what was cut off, at boot: before the worker, which starts with what is left.
    pub(super) async fn recover(&self) -> Result<(), Failure> {
        let status = record::read(&self.host.layout)?;
        if status.phase == RootPhase::Probation {
            record::change(&self.host.layout, |status| status.strikes += 1)?;
            // It watches when the worker runs; nobody waits for it here.
            return Ok(self.host.systemd.start_later(UPDATE_UNIT).await?);
        }
        self.interrupted(&status, true).await
    }

    /// Takes up what was cut off by the end of this very service. A version that was on probation
    /// goes on with it.
    async fn take_up(&self) -> Result<Option<(Update, u32)>, Failure> {
        let status = record::read(&self.host.layout)?;
        if status.phase == RootPhase::Probation
            && let Some(update) = record::under_way(&status)
        {
            if Journal::read(&self.host.layout.journal_dir())?.is_cut_off() {
                return Ok(Some((update, status.strikes)));
            }
            // It is over: with the last word on it unsaid, or taken back by an installation that has
            // put another release in its place.
            if self.present()? == update.version {
                self.proven(&update)?;
            } else {
                self.cut_off(&update)?;
            }
            return Ok(None);
        }
        self.interrupted(&status, false).await?;
        Ok(None)
    }

    /// Undoes what was under way, unless it was only prepared.
    async fn interrupted(
        &self,
        status: &aio_protocol::update::RootStatus,
        before_start: bool,
    ) -> Result<(), Failure> {
        let layout = &self.host.layout;
        let Some(update) = record::under_way(status) else { return Ok(()) };
        match status.phase {
            RootPhase::Idle | RootPhase::Staged | RootPhase::Probation => Ok(()),
            RootPhase::Staging | RootPhase::Rehearsing => {
                stage::discard(layout)?;
                record::change(layout, |status| *status = status.clone().idle())
            }
            RootPhase::Switching | RootPhase::Proving | RootPhase::Reverting => {
                let _lock = Lock::take(&layout.journal_dir())?;
                let mut journal = Journal::open(&layout.journal_dir())?;
                if journal.is_cut_off() {
                    if before_start {
                        undo_before_start(self.host, &mut journal, self.checkpoint).await?;
                    } else {
                        undo(self.host, &mut journal, self.checkpoint).await?;
                    }
                } else if status.previous.as_ref() == Some(&update.version)
                    && self.present()? == update.version
                {
                    // The way back is committed; the last word on it is missing.
                    return self.reverted(&update);
                }
                // What an operator takes back has its verdict before it is undone.
                if status.phase == RootPhase::Reverting
                    && status.last.as_ref().is_some_and(|it| it.update_id == update.id)
                {
                    return record::change(layout, |status| *status = status.clone().idle());
                }
                self.cut_off(&update)
            }
        }
    }

    fn cut_off(&self, update: &Update) -> Result<(), Failure> {
        let message = format!("{} was cut off before it had proven itself", update.version);
        let why = Failure::new(ErrorCode::UpdateInterrupted, message);
        record::ended(&self.host.layout, update, Verdict::Interrupted, Some(&why), now())
    }

    /// What runs, by the link.
    fn present(&self) -> Result<ReleaseVersion, Failure> {
        let link = self.host.layout.current();
        let target = std::fs::read_link(&link).map_err(|error| Failure::io("read", &link, &error))?;
        let version = target.to_str().and_then(|target| target.parse().ok());
        version.ok_or_else(|| {
            let message = format!("{} does not name a release", link.display());
            Failure::new(ErrorCode::FileFailed, message)
        })
    }

    async fn stage(
        &self,
        id: Uuid,
        version: &ReleaseVersion,
        manifest: &Checksum,
        index_serial: u64,
    ) -> Result<(), Failure> {
        let layout = &self.host.layout;
        let _lock = Lock::take(&layout.journal_dir()).map_err(busy)?;
        let status = record::read(layout)?;
        let update = Update { id, from: self.present()?, version: version.clone() };
        record::at(layout, &update, RootPhase::Staging, None)?;
        let trust = Trust::read(&layout.release_keys(), &layout.trust())?;
        let wanted = Wanted {
            update: id,
            version,
            manifest,
            index_serial,
            present: &update.from,
            previous: status.previous.as_ref(),
            platform: self.host.platform,
            now: now(),
        };
        let staged = async {
            let seen = stage::stage(layout, &trust, &wanted)?;
            seen.write(&layout.trust())?;
            record::change(layout, |status| {
                status.floor = seen.floor().cloned();
                status.index_serial = seen.serial();
                status.phase = RootPhase::Rehearsing;
            })?;
            rehearsal::rehearse(self.host).await
        };
        match staged.await {
            Ok(()) => record::at(layout, &update, RootPhase::Staged, None),
            Err(failure) => {
                tracing::warn!(code = failure.code.as_str(), message = %failure.message, %version, "refused");
                stage::discard(layout)?;
                record::change(layout, |status| *status = status.clone().idle())?;
                Err(failure)
            }
        }
    }

    /// The update that lies ready, if it is this one.
    fn staged(&self, id: Uuid) -> Result<Update, Failure> {
        let status = record::read(&self.host.layout)?;
        match record::under_way(&status) {
            Some(update) if status.phase == RootPhase::Staged && update.id == id => Ok(update),
            _ => Err(Failure::new(
                ErrorCode::UpdateInvalid,
                format!("nothing was prepared for the update {id}"),
            )),
        }
    }

    /// The machine's one installation at a time, if nobody else is at it.
    fn turn(&self) -> Result<(Lock, Journal), Failure> {
        let dir = self.host.layout.journal_dir();
        let lock = Lock::take(&dir).map_err(busy)?;
        let journal = Journal::open(&dir)?;
        if journal.is_cut_off() {
            let message =
                "an installation was cut off on this machine; aio-worker install finishes or undoes it";
            return Err(Failure::new(ErrorCode::UpdateBusy, message));
        }
        Ok((lock, journal))
    }

    /// Switches, and watches until it is over.
    async fn go(&self, listener: &UnixListener, update: &Update) -> Result<(), Failure> {
        let layout = &self.host.layout;
        let (lock, mut journal) = match self.turn() {
            Ok(turn) => turn,
            Err(failure) => return record::ended(layout, update, Verdict::Refused, Some(&failure), now()),
        };
        let before = online::present(self.host, LOOK).await;
        let node = match before.as_ref().map(|snapshot| snapshot.node_id.clone()) {
            Some(node) => node,
            None => installed(&journal)?,
        };
        let gpus = before.map_or(0, |snapshot| snapshot.gpus.len());
        record::at(layout, update, RootPhase::Switching, None)?;
        record::change(layout, |status| (status.gpus, status.strikes) = (gpus, 0))?;
        let (staged, timings) = (Origin::Staged, &self.timings);
        let switched =
            switch::switch(self.host, &mut journal, update, &node, staged, timings, self.checkpoint).await;
        if let Err(why) = switched {
            return self.go_back(&mut journal, update, &node, why).await;
        }
        let until = now().plus(self.timings.probation);
        record::at(layout, update, RootPhase::Probation, Some(until))?;
        drop((journal, lock));
        self.probation(listener, update, 0).await
    }

    /// Watches a version that is online. The transaction stays open meanwhile, so that there is one
    /// way back.
    async fn probation(&self, listener: &UnixListener, update: &Update, strikes: u32) -> Result<(), Failure> {
        let layout = &self.host.layout;
        let _lock = Lock::take(&layout.journal_dir())?;
        let mut journal = Journal::open(&layout.journal_dir())?;
        let node = installed(&journal)?;
        let status = record::read(layout)?;
        let until = status.until.unwrap_or_else(now);
        let watched =
            watch::watch(self.host, Before { gpus: status.gpus, strikes }, until, self.timings.look);
        let mut watched = std::pin::pin!(watched);
        let outcome = loop {
            tokio::select! {
                outcome = &mut watched => break outcome,
                accepted = listener.accept() => {
                    let Some(Asked { request, mut stream }) = asked(accepted.map_err(internal)?.0).await else {
                        continue;
                    };
                    if let RootRequest::Revert { .. } = request {
                        answer(&mut stream, Ok(RootAnswer::Switching)).await;
                        return self.taken_back(&mut journal, update).await;
                    }
                    let message = format!("{} is still watched", update.version);
                    answer(&mut stream, Err(Failure::new(ErrorCode::UpdateBusy, message))).await;
                }
            }
        };
        match outcome {
            Ok(()) => self.commit(&mut journal, update),
            Err(why) => self.go_back(&mut journal, update, &node, why).await,
        }
    }

    /// The new version has proven itself.
    fn commit(&self, journal: &mut Journal, update: &Update) -> Result<(), Failure> {
        let layout = &self.host.layout;
        let trust = Trust::read(&layout.release_keys(), &layout.trust())?;
        Seen::of(&trust).clone().ran(&update.version, now()).write(&layout.trust())?;
        journal.commit()?;
        self.proven(update)?;
        let swept = journal.sweep().err();
        let pruned = prune(layout, &[&update.version, &update.from]).err();
        for failure in [swept, pruned].into_iter().flatten() {
            tracing::warn!(message = %failure.message, "what is not needed any more could not be removed");
        }
        Ok(())
    }

    /// There is no way back into the transaction: the next update begins with this version.
    fn proven(&self, update: &Update) -> Result<(), Failure> {
        let layout = &self.host.layout;
        aio_host::files::replace_link(&layout.updater(), Path::new(&update.version.to_string()))?;
        stage::discard(layout)?;
        record::ended(layout, update, Verdict::Succeeded, None, now())
    }

    /// It was not right: back to what ran before.
    async fn go_back(
        &self,
        journal: &mut Journal,
        update: &Update,
        node: &NodeId,
        why: Failure,
    ) -> Result<(), Failure> {
        let layout = &self.host.layout;
        tracing::warn!(code = why.code.as_str(), message = %why.message, version = %update.version, "going back");
        record::change(layout, |status| status.phase = RootPhase::Reverting)?;
        let (verdict, why) =
            switch::back(self.host, journal, update, node, why, &self.timings, self.checkpoint).await?;
        stage::discard(layout)?;
        record::ended(layout, update, verdict, Some(&why), now())
    }

    /// An operator wants the version before, while the new one is watched.
    async fn taken_back(&self, journal: &mut Journal, update: &Update) -> Result<(), Failure> {
        let layout = &self.host.layout;
        // First the verdict: cut off after this, it is still the operator's word.
        record::taken_back(layout, update, now())?;
        undo(self.host, journal, self.checkpoint).await?;
        record::change(layout, |status| *status = status.clone().idle())
    }

    /// From what runs to what ran before it, if root may go there.
    fn way_back(&self, id: Uuid) -> Result<Update, Failure> {
        let layout = &self.host.layout;
        let status = record::read(layout)?;
        let impossible = |message: String| Failure::new(ErrorCode::RevertImpossible, message);
        let version =
            status.previous.ok_or_else(|| impossible("no version is kept to go back to".to_owned()))?;
        let trust = Trust::read(&layout.release_keys(), &layout.trust())?;
        Seen::of(&trust).may_go_back(&version, now())?;
        if !layout.release(&version).join(crate::shipped::BINARY).is_file() {
            return Err(impossible(format!("{version} is not on this machine any more")));
        }
        Ok(Update { id, from: self.present()?, version })
    }

    /// Goes back to a version that has been left for good.
    async fn revert(&self, update: &Update) -> Result<(), Failure> {
        let layout = &self.host.layout;
        let (_lock, mut journal) = match self.turn() {
            Ok(turn) => turn,
            Err(failure) => return record::ended(layout, update, Verdict::Refused, Some(&failure), now()),
        };
        let node = installed(&journal)?;
        record::at(layout, update, RootPhase::Reverting, None)?;
        let (kept, timings) = (Origin::Kept, &self.timings);
        let switched =
            switch::switch(self.host, &mut journal, update, &node, kept, timings, self.checkpoint).await;
        if let Err(why) = switched {
            return self.go_back(&mut journal, update, &node, why).await;
        }
        journal.commit()?;
        self.reverted(update)
    }

    fn reverted(&self, update: &Update) -> Result<(), Failure> {
        let layout = &self.host.layout;
        aio_host::files::replace_link(&layout.updater(), Path::new(&update.version.to_string()))?;
        record::ended(layout, update, Verdict::Reverted, None, now())
    }
}

fn installed(journal: &Journal) -> Result<NodeId, Failure> {
    let message = "no installation is in the journal, so nobody knows which node this is";
    let installed = journal.installed().map(|(node, _)| node);
    installed.ok_or_else(|| Failure::new(ErrorCode::UpdateInvalid, message))
}

fn busy(failure: Failure) -> Failure {
    if failure.code == ErrorCode::InstallLocked {
        Failure { code: ErrorCode::UpdateBusy, ..failure }
    } else {
        failure
    }
}

fn internal(error: std::io::Error) -> Failure {
    Failure::new(ErrorCode::Internal, format!("root's socket cannot be read: {error}"))
}

/// Reads a request. Whoever says nothing, or something else, is told so and forgotten.
async fn asked(stream: UnixStream) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    let most = MAX_ROOT_REQUEST_BYTES as u64 + 1;
    let read = timeout(PATIENCE, (&mut reader).take(most).read_line(&mut line)).await;
    let mut stream = reader.into_inner();
    let why = match read {
        Err(_) => "nothing was asked in time".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Ok(Ok(_)) if line.len() > MAX_ROOT_REQUEST_BYTES => {
            format!("a request has at most {MAX_ROOT_REQUEST_BYTES} bytes")
        }
        Ok(Ok(_)) => match serde_json::from_str(&line) {
            Ok(request) => return Some(Asked { request, stream }),
            Err(error) => error.to_string(),
        },
    };
    answer(
        &mut stream,
        Err(Failure::new(ErrorCode::UpdateInvalid, format!("the request is refused: {why}"))),
    )
    .await;
    None
}

/// That nobody reads the answer changes nothing: the record says the same.
async fn answer(stream: &mut UnixStream, said: Result<RootAnswer, Failure>) {
    let said = said.unwrap_or_else(|failure| RootAnswer::Refused {
        code: failure.code.as_str().to_owned(),
        message: failure.message,
    });
    if let Ok(text) = serde_json::to_string(&said) {
        let _ = timeout(PATIENCE, stream.write_all(format!("{text}\n").as_bytes())).await;
    }
}
