//! Failures that an installer could not tell the controller. It left a file of each in the state
//! folder; they are told over the session, and a file goes once the controller has read everything
//! up to a later heartbeat. Told twice is possible after a crash, never told is not.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aio_host::{files, layout::UNDELIVERED};
use aio_protocol::{ids::NodeId, installation::UndeliveredFailure};
use tracing::{debug, info, warn};

/// How many are told behind one heartbeat; the rest is told behind the next, so that the queue of a
/// connection never drops one.
const MAX_AT_ONCE: usize = 8;

/// What is larger was written by nobody who knows what belongs here.
const MAX_BYTES: u64 = 64 * 1024;

/// What is still to be told.
#[derive(Debug)]
pub(crate) struct Undelivered {
    folder: PathBuf,
    node: NodeId,
    /// The connection that was used last.
    connection: u64,
    /// Told on this connection, each behind the heartbeat of this number.
    told: Vec<(u64, PathBuf)>,
}

impl Undelivered {
    /// In the daemon's state folder.
    pub(crate) fn in_state_dir(state_dir: &Path, node: NodeId) -> Self {
        Self { folder: state_dir.join(UNDELIVERED), node, connection: 0, told: Vec::new() }
    }

    /// What to tell now that the controller has read all up to the heartbeat of this number: what
    /// was not told on this connection, oldest first. What was told before that heartbeat is
    /// forgotten. Reads and removes files.
    pub(crate) fn due(&mut self, connection: u64, beat: u64) -> Vec<UndeliveredFailure> {
        if std::mem::replace(&mut self.connection, connection) != connection {
            // What was not acknowledged on the last one is told again.
            self.told.clear();
        }
        self.acknowledged(beat);
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let is_due = |path: &PathBuf| {
            path.extension().is_some_and(|extension| extension == "json")
                && !self.told.iter().any(|(_, told)| told == path)
        };
        let mut paths: Vec<_> = entries.map(|entry| entry.path()).filter(is_due).collect();
        paths.sort();
        let mut due = Vec::new();
        for path in paths {
            if due.len() >= MAX_AT_ONCE {
                break;
            }
            let read = match read(&path) {
                Ok(read) => read,
                // A disk that fails now may give it later.
                Err(error) => {
                    debug!(path = %path.display(), %error, "a report that was left here cannot be read now");
                    continue;
                }
            };
            match read {
                // One of another node is not this session's to tell.
                Ok(failure) if failure.node_id != self.node => {}
                Ok(failure) => {
                    info!(code = failure.error.code, at = %failure.at, "telling the controller of an installation that failed");
                    self.told.push((beat, path));
                    due.push(failure);
                }
                Err(reason) => {
                    warn!(path = %path.display(), reason, "a report that was left here cannot be read, and is forgotten");
                    forget(&path);
                }
            }
        }
        due
    }

    /// The controller has read everything up to the heartbeat of this number.
    fn acknowledged(&mut self, beat: u64) {
        self.told.retain(|(behind, path)| {
            let read = *behind < beat;
            if read {
                forget(path);
            }
            !read
        });
    }
}

/// What is in a file; an error of the outer kind where it cannot be read now, of the inner one
/// where it is no report.
fn read(path: &Path) -> io::Result<Result<UndeliveredFailure, String>> {
    let size = fs::symlink_metadata(path)?.len();
    if size > MAX_BYTES {
        return Ok(Err(format!("it has {size} bytes")));
    }
    let bytes = fs::read(path)?;
    Ok(serde_json::from_slice(&bytes).map_err(|error| error.to_string()))
}

fn forget(path: &Path) {
    if let Err(error) = files::remove_file(path) {
        warn!(%error, reason = %error.source, "a report that was told could not be removed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: &str = "69396100cd71623c7bbfbfee";

    fn undelivered(state: &Path) -> Undelivered {
        fs::create_dir_all(state.join(UNDELIVERED)).unwrap();
        Undelivered::in_state_dir(state, NODE.parse().unwrap())
    }

    fn leave(undelivered: &Undelivered, name: &str, node: &str, code: &str) {
        let failure = serde_json::json!({ "nodeId": node, "at": "2025-12-11T12:00:00.000Z", "step": "start_unit",
            "error": { "code": code, "message": "x", "details": {} } });
        fs::write(undelivered.folder.join(name), failure.to_string()).unwrap();
    }

    fn codes(undelivered: &mut Undelivered, beat: u64) -> Vec<String> {
        undelivered.due(1, beat).into_iter().map(|failure| failure.error.code).collect()
    }

    #[test]
    fn what_was_left_is_told_once_and_goes_when_it_was_read() {
        let state = tempfile::tempdir().unwrap();
        let mut undelivered = undelivered(state.path());
        leave(&undelivered, "2.json", NODE, "SECOND");
        leave(&undelivered, "1.json", NODE, "FIRST");
        assert_eq!(codes(&mut undelivered, 7), ["FIRST", "SECOND"]);
        let left = |undelivered: &Undelivered| fs::read_dir(&undelivered.folder).unwrap().count();
        assert_eq!(
            (codes(&mut undelivered, 7), left(&undelivered)),
            (vec![], 2),
            "7 itself may not have come with it"
        );
        assert_eq!((codes(&mut undelivered, 8), left(&undelivered)), (vec![], 0));
    }

    #[test]
    fn a_connection_that_was_lost_leaves_it_to_the_next() {
        let state = tempfile::tempdir().unwrap();
        let mut undelivered = undelivered(state.path());
        leave(&undelivered, "1.json", NODE, "FIRST");
        assert_eq!(codes(&mut undelivered, 7), ["FIRST"]);
        let again: Vec<_> = undelivered.due(2, 8).into_iter().map(|failure| failure.error.code).collect();
        assert_eq!(again, ["FIRST"]);
    }

    #[test]
    fn however_many_were_left_all_are_told_and_none_goes_untold() {
        let state = tempfile::tempdir().unwrap();
        let mut undelivered = undelivered(state.path());
        for number in 100..150 {
            leave(&undelivered, &format!("{number}.json"), NODE, &format!("F{number}"));
        }
        let told: Vec<_> = (1..20).map(|beat| codes(&mut undelivered, beat)).collect();
        assert!(told.iter().all(|codes| codes.len() <= MAX_AT_ONCE), "{told:?}");
        assert_eq!(told.concat(), (100..150).map(|number| format!("F{number}")).collect::<Vec<_>>());
        assert_eq!(fs::read_dir(&undelivered.folder).unwrap().count(), 0);
    }

    #[test]
    fn what_is_of_another_node_stays_and_what_is_no_report_goes() {
        let state = tempfile::tempdir().unwrap();
        let mut undelivered = undelivered(state.path());
        leave(&undelivered, "1.json", "ffffffffffffffffffffffff", "FOREIGN");
        fs::write(undelivered.folder.join("2.json"), "torn").unwrap();
        fs::write(undelivered.folder.join("3.json"), vec![b' '; 70_000]).unwrap();
        fs::write(undelivered.folder.join("other"), "not ours").unwrap();
        assert_eq!(codes(&mut undelivered, 1), [""; 0]);
        assert_eq!(fs::read_dir(&undelivered.folder).unwrap().count(), 2);
    }
}
