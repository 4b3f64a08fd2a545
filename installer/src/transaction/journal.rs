//! The installation's journal: one JSON object per line, on disk before the effect that it is
//! about. A line of intent carries the way back; a transaction without `committed` was cut off.
//! What an installation replaced lies beside it as a copy, so no secret is ever in a line. Decides
//! what is durable when; not what a step does, nor how it is undone.
//!
//! Committed transactions stay, merged into one: the earliest word on each thing says how the
//! machine was before aio-worker.

pub(crate) mod copies;

use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use aio_host::files;
use aio_protocol::{
    error_code::ErrorCode,
    ids::NodeId,
    release::{Checksum, ReleaseVersion, build},
};
use serde::{Deserialize, Serialize};

use self::copies::Copies;
use crate::{failure::Failure, release::verify, shipped, transaction::undo::record::Undo};

const FILE: &str = "journal.jsonl";
/// What was replaced may be a secret.
const PRIVATE_FILE: u32 = 0o600;

/// A line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
enum Record {
    /// A transaction begins.
    Began {
        node: NodeId,
        version: ReleaseVersion,
        installer: String,
        /// Of the unit file that it leaves: a file that is neither this nor the present one was
        /// edited by somebody.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unit: Option<Checksum>,
    },
    /// A step is about to take effect; this undoes it, whatever part of it has come about.
    Intent { step: String, undo: Vec<Undo> },
    /// The step has taken effect.
    Done { step: String },
    /// All before holds.
    Committed,
}

/// The journal of one machine.
#[derive(Debug)]
pub(crate) struct Journal {
    dir: PathBuf,
    /// Up to the last `committed`.
    committed: Vec<Record>,
    /// After it.
    open: Vec<Record>,
    copies: Copies,
    file: Option<File>,
}

impl Journal {
    /// Reads the journal in `dir`, and sweeps away what belongs to no transaction. The caller holds
    /// the lock on `dir`.
    pub(crate) fn open(dir: &Path) -> Result<Self, Failure> {
        let journal = Self::read(dir)?;
        journal.sweep_or_warn();
        Ok(journal)
    }

    /// Reads the journal in `dir` and changes nothing.
    pub(crate) fn read(dir: &Path) -> Result<Self, Failure> {
        let path = dir.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(Failure::io("read", &path, &error)),
        };
        let mut open = parse(&text).map_err(|(line, reason)| {
            let message = format!("line {line} of {} cannot be understood: {reason}", path.display());
            Failure::new(ErrorCode::JournalUnreadable, message).with("path", path.display().to_string())
        })?;
        let end = open.iter().rposition(|record| *record == Record::Committed).map_or(0, |last| last + 1);
        let committed: Vec<_> = open.drain(..end).collect();
        let copies = Copies::of(dir, &referenced(&committed, &open));
        Ok(Self { dir: dir.to_owned(), committed, open, copies, file: None })
    }

    /// Whether a transaction was begun and neither committed nor undone.
    pub(crate) fn is_cut_off(&self) -> bool {
        !self.open.is_empty()
    }

    /// Begins a transaction that leaves this program's own unit.
    pub(crate) fn begin(&mut self, node: NodeId, version: ReleaseVersion) -> Result<(), Failure> {
        self.begin_with_unit(node, version, verify::checksum(shipped::UNIT_TEXT.as_bytes()))
    }

    /// Begins a transaction that leaves the unit of this checksum.
    pub(crate) fn begin_with_unit(
        &mut self,
        node: NodeId,
        version: ReleaseVersion,
        unit: Checksum,
    ) -> Result<(), Failure> {
        let installer = build::number().to_owned();
        let mut records = self.committed.clone();
        records.push(Record::Began { node, version, installer, unit: Some(unit) });
        // Rewritten whole: behind the last commit may stand a torn line.
        self.rewrite(&records)?;
        self.open = records.split_off(self.committed.len());
        let path = self.dir.join(FILE);
        let file = OpenOptions::new().append(true).open(&path);
        self.file = Some(file.map_err(|error| Failure::io("open", &path, &error))?);
        Ok(())
    }

    /// Says what is about to be done and how it is undone. Durable on return.
    pub(crate) fn intend(&mut self, step: &str, undo: Vec<Undo>) -> Result<(), Failure> {
        self.append(Record::Intent { step: step.to_owned(), undo }, true)
    }

    /// Says that it is done. Losing this line loses nothing: undoing a step asks not how far it
    /// came.
    pub(crate) fn done(&mut self, step: &str) -> Result<(), Failure> {
        self.append(Record::Done { step: step.to_owned() }, false)
    }

    /// Ends the transaction: from now on its effects stay. What is not needed any more is the
    /// caller's to sweep away.
    pub(crate) fn commit(&mut self) -> Result<(), Failure> {
        let records = merge(&self.committed, &self.open);
        self.rewrite(&records)?;
        self.committed = records;
        self.close();
        Ok(())
    }

    /// Forgets the open transaction, which has been undone.
    pub(crate) fn abandon(&mut self) -> Result<(), Failure> {
        if self.committed.is_empty() {
            files::remove_file(&self.dir.join(FILE))?;
        } else {
            self.rewrite(&self.committed)?;
        }
        self.close();
        self.sweep_or_warn();
        Ok(())
    }

    fn close(&mut self) {
        self.open.clear();
        self.file = None;
    }

    /// What cannot be swept away now is swept away by the next run.
    fn sweep_or_warn(&self) {
        if let Err(failure) = self.sweep() {
            tracing::warn!(message = %failure.message, "what an installation replaced could not be removed");
        }
    }

    /// The steps of the open transaction that may have taken effect, in their order.
    pub(crate) fn open_steps(&self) -> impl DoubleEndedIterator<Item = (&str, &[Undo])> {
        steps(&self.open)
    }

    /// The steps of all committed transactions, merged: their way back leads to before the first.
    pub(crate) fn committed_steps(&self) -> impl DoubleEndedIterator<Item = (&str, &[Undo])> {
        steps(&self.committed)
    }

    /// As whom the machine is installed, and with what.
    pub(crate) fn installed(&self) -> Option<(NodeId, ReleaseVersion)> {
        self.committed.iter().chain(&self.open).find_map(|record| match record {
            Record::Began { node, version, .. } => Some((node.clone(), version.clone())),
            _ => None,
        })
    }

    /// The checksum of the unit file that the installation left.
    pub(crate) fn unit(&self) -> Option<&Checksum> {
        self.committed.iter().find_map(|record| match record {
            Record::Began { unit, .. } => unit.as_ref(),
            _ => None,
        })
    }

    /// Whether an installation has made the folder at `path`, and all that is in it.
    pub(crate) fn made(&self, path: &Path) -> bool {
        let undo = self.committed_steps().flat_map(|(_, undo)| undo);
        undo.filter_map(Undo::tree).any(|tree| tree == path)
    }

    /// Forgets the committed steps that have been undone: all but those that are kept.
    pub(crate) fn forget(&mut self, is_kept: impl Fn(&str) -> bool) -> Result<(), Failure> {
        self.committed.retain(|record| match record {
            Record::Intent { step, .. } => is_kept(step),
            _ => true,
        });
        if self.committed_steps().next().is_none() {
            self.committed.clear();
        }
        self.abandon()
    }

    /// What was replaced, for steps that replace more.
    pub(crate) fn copies(&mut self) -> &mut Copies {
        &mut self.copies
    }

    /// The same, to put back.
    pub(crate) fn kept_copies(&self) -> &Copies {
        &self.copies
    }

    fn append(&mut self, record: Record, durable: bool) -> Result<(), Failure> {
        let path = self.dir.join(FILE);
        let Some(file) = &mut self.file else {
            return Err(Failure::new(ErrorCode::Internal, "a journal record outside of a transaction"));
        };
        // In one write, so that a reader sees a whole line or a torn last one.
        let written =
            file.write_all(&line(&record)?).and_then(|()| if durable { file.sync_data() } else { Ok(()) });
        written.map_err(|error| Failure::io("write", &path, &error))?;
        self.open.push(record);
        Ok(())
    }

    fn rewrite(&self, records: &[Record]) -> Result<(), Failure> {
        let mut bytes = Vec::new();
        for record in records {
            bytes.extend(line(record)?);
        }
        Ok(files::replace_file(&self.dir.join(FILE), &bytes, PRIVATE_FILE)?)
    }

    /// Removes copies that no record names, and what a killed rewrite left.
    pub(crate) fn sweep(&self) -> Result<(), Failure> {
        let path = self.dir.join(FILE);
        if !path.exists() {
            // This clears the stage beside it, too.
            files::remove_file(&path)?;
        }
        self.copies.sweep(&referenced(&self.committed, &self.open))
    }
}

/// The copies that a record names.
fn referenced<'a>(committed: &'a [Record], open: &'a [Record]) -> HashSet<&'a str> {
    let undo = committed.iter().chain(open).flat_map(|record| match record {
        Record::Intent { undo, .. } => undo.as_slice(),
        _ => &[],
    });
    undo.filter_map(Undo::copy).collect()
}

fn steps(records: &[Record]) -> impl DoubleEndedIterator<Item = (&str, &[Undo])> {
    records.iter().filter_map(|record| match record {
        Record::Intent { step, undo } => Some((step.as_str(), undo.as_slice())),
        _ => None,
    })
}

fn line(record: &Record) -> Result<Vec<u8>, Failure> {
    let mut bytes = serde_json::to_vec(record).map_err(|error| {
        Failure::new(ErrorCode::Internal, format!("a journal record cannot be written: {error}"))
    })?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// All lines but a torn last one, whose effect has not begun. An error says which line, counted
/// from 1.
fn parse(text: &str) -> Result<Vec<Record>, (usize, String)> {
    text.split_inclusive('\n')
        .enumerate()
        .filter(|(_, line)| line.ends_with('\n'))
        .map(|(index, line)| serde_json::from_str(line).map_err(|error| (index + 1, error.to_string())))
        .collect()
}

/// One transaction that goes back to where `older` goes back to, and undoes what `newer` did
/// beside.
fn merge(older: &[Record], newer: &[Record]) -> Vec<Record> {
    let mut merged: Vec<Record> =
        newer.iter().filter(|r| matches!(r, Record::Began { .. })).cloned().collect();
    let mut known = HashSet::new();
    for record in older.iter().chain(newer) {
        let Record::Intent { step, undo } = record else { continue };
        let undo: Vec<_> =
            undo.iter().filter(|undo| undo.lasts() && known.insert(undo.subject())).cloned().collect();
        if !undo.is_empty() {
            merged.push(Record::Intent { step: step.clone(), undo });
        }
    }
    merged.push(Record::Committed);
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn began(dir: &Path) -> Journal {
        let mut journal = Journal::open(dir).unwrap();
        journal.begin("69396100cd71623c7bbfbfee".parse().unwrap(), "v1.0.0".parse().unwrap()).unwrap();
        journal
    }

    fn remove(path: &str) -> Undo {
        Undo::RemoveFile { path: path.into() }
    }

    fn steps(journal: &Journal) -> Vec<(String, Vec<Undo>)> {
        journal.open_steps().map(|(step, undo)| (step.to_owned(), undo.to_vec())).collect()
    }

    #[test]
    fn a_transaction_that_was_cut_off_is_found_with_its_way_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = began(dir.path());
        journal.intend("write_unit", vec![remove("/unit")]).unwrap();
        journal.done("write_unit").unwrap();
        journal.intend("start_unit", vec![]).unwrap();
        drop(journal);
        let journal = Journal::open(dir.path()).unwrap();
        assert!(journal.is_cut_off());
        assert_eq!(
            steps(&journal),
            [("write_unit".to_owned(), vec![remove("/unit")]), ("start_unit".to_owned(), vec![])]
        );
    }

    #[test]
    fn a_torn_last_line_is_nothing_and_a_torn_line_between_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        began(dir.path()).intend("write_unit", vec![remove("/unit")]).unwrap();
        let whole = fs::read_to_string(&path).unwrap();
        for cut in whole.find('\n').unwrap() + 1..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let journal = Journal::open(dir.path()).unwrap();
            assert!(journal.is_cut_off() && steps(&journal).is_empty(), "cut at {cut}");
        }
        fs::write(&path, format!("{{\"record\":\n{whole}")).unwrap();
        let failure = Journal::open(dir.path()).unwrap_err();
        assert_eq!(failure.code, ErrorCode::JournalUnreadable);
        assert!(failure.message.contains("line 1"), "{}", failure.message);
    }

    #[test]
    fn a_way_back_of_a_newer_installer_is_not_guessed() {
        let dir = tempfile::tempdir().unwrap();
        let newer = "{\"record\":\"intent\",\"step\":\"x\",\"undo\":[{\"undo\":\"unheard_of\"}]}\n";
        fs::write(dir.path().join(FILE), newer).unwrap();
        assert_eq!(Journal::open(dir.path()).unwrap_err().code, ErrorCode::JournalUnreadable);
    }

    #[test]
    fn what_is_undone_leaves_nothing_and_an_older_commit_stays() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = began(dir.path());
        let copy = journal.copies().keep(b"old").unwrap();
        assert_eq!(journal.kept_copies().kept(&copy).unwrap(), b"old");
        journal.abandon().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);

        let mut journal = began(dir.path());
        journal.intend("write_unit", vec![remove("/unit")]).unwrap();
        journal.commit().unwrap();
        journal.sweep().unwrap();
        let committed = fs::read(dir.path().join(FILE)).unwrap();
        let mut journal = began(dir.path());
        journal.intend("write_unit", vec![remove("/other")]).unwrap();
        journal.abandon().unwrap();
        assert_eq!(fs::read(dir.path().join(FILE)).unwrap(), committed);
        assert!(!Journal::open(dir.path()).unwrap().is_cut_off());
    }

    #[test]
    fn a_commit_remembers_how_the_machine_was_before_the_first_installation() {
        let dir = tempfile::tempdir().unwrap();
        let restore =
            |copy: String| Undo::RestoreFile { path: "/unit".into(), copy, mode: 0o644, uid: 0, gid: 0 };
        let mut journal = began(dir.path());
        let foreign = journal.copies().keep(b"by hand").unwrap();
        journal.intend("write_unit", vec![restore(foreign.clone()), Undo::ReloadManager]).unwrap();
        let backup = journal.copies().keep(b"shadow-").unwrap();
        let until_committed = Undo::UntilCommitted { was: Box::new(restore(backup.clone())) };
        journal.intend("create_user", vec![until_committed]).unwrap();
        assert!(Journal::open(dir.path()).unwrap().kept_copies().kept(&backup).is_ok());
        journal.commit().unwrap();
        journal.sweep().unwrap();
        assert!(
            journal.kept_copies().kept(&backup).is_err(),
            "a copy of what is not ours to restore is gone"
        );

        let mut journal = began(dir.path());
        let ours = journal.copies().keep(b"of the first installation").unwrap();
        assert_ne!(ours, foreign);
        journal.intend("write_unit", vec![restore(ours.clone()), Undo::ReloadManager]).unwrap();
        journal.intend("place_release", vec![remove("/v2")]).unwrap();
        journal.commit().unwrap();
        journal.sweep().unwrap();

        let journal = Journal::open(dir.path()).unwrap();
        assert_eq!(journal.kept_copies().kept(&foreign).unwrap(), b"by hand");
        assert!(journal.kept_copies().kept(&ours).is_err(), "a copy that nothing goes back to is gone");
        let undo: Vec<_> = journal
            .committed
            .iter()
            .filter_map(
                |record| if let Record::Intent { undo, .. } = record { Some(undo.clone()) } else { None },
            )
            .collect();
        assert_eq!(undo, [vec![restore(foreign), Undo::ReloadManager], vec![remove("/v2")]]);
    }
}
