//! Failures that an installer could not tell the controller. It left a file of each in the state folder; they are told over the session, and a file
//! goes once the controller has read everything up to a later heartbeat. Told twice is possible after a crash, never told is not.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aio_host::{files, layout::UNDELIVERED};
use aio_protocol::{ids::NodeId, installation::UndeliveredFailure};
use tracing::{debug, info, warn};

/// What is larger was written by nobody who knows what belongs here.
const MAX_BYTES: u64 = 64 * 1024;

/// Maximum number of failures told behind one heartbeat: the send queue has room for them, so that none is dropped and
/// then acknowledged with the rest.
const MAX_AT_ONCE: usize = 8;

/// What is still to be told.
#[derive(Debug)]
pub(crate) struct Undelivered {
    folder: PathBuf,
    node: NodeId,
    /// Told on this connection, each behind the heartbeat of this number.
    told: Vec<(u64, PathBuf)>,
}

impl Undelivered {
    /// In the daemon's state folder.
    pub(crate) fn in_state_dir(state_dir: &Path, node: NodeId) -> Self {
        Self { folder: state_dir.join(UNDELIVERED), node, told: Vec::new() }
    }

    /// What to tell now that the heartbeat of this number was sent: the oldest that were not told on this connection.
    pub(crate) fn due(&mut self, beat: u64) -> Vec<UndeliveredFailure> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let is_due = |path: &PathBuf| {
            path.extension().is_some_and(|extension| extension == "json")
                && !self.told.iter().any(|(_, told)| told == path)
        };
        let mut paths: Vec<_> = entries.map(|entry| entry.path()).filter(is_due).collect();
        paths.sort();
        let mut due = Vec::new();
        for path in paths {
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
                Ok(failure) if due.len() < MAX_AT_ONCE => {
                    info!(code = failure.error.code, at = %failure.at, "telling the controller of an installation that failed");
                    self.told.push((beat, path));
                    due.push(failure);
                }
                Ok(_) => break,
                Err(reason) => {
                    warn!(path = %path.display(), reason, "a report that was left here cannot be read, and is forgotten");
                    forget(&path);
                }
            }
        }
        due
    }

    /// The controller has read everything up to the heartbeat of this number.
    pub(crate) fn acknowledged(&mut self, beat: u64) {
        self.told.retain(|(behind, path)| {
            let read = *behind < beat;
            if read {
                forget(path);
            }
            !read
        });
    }

    /// There is a new connection: what was not acknowledged on the last one is told again.
    pub(crate) fn reconnected(&mut self) {
        self.told.clear();
    }
}

/// What is in a file; an error of the outer kind where it cannot be read now, of the inner one where it is no report.
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
        undelivered.due(beat).into_iter().map(|failure| failure.error.code).collect()
    }

    #[test]
    fn what_was_left_is_told_once_and_goes_when_it_was_read() {
        let state = tempfile::tempdir().unwrap();
        let mut undelivered = undelivered(state.path());
        leave(&undelivered, "2.json", NODE, "SECOND");
        leave(&undelivered, "1.json", NODE, "FIRST");
        assert_eq!(codes(&mut undelivered, 7), ["FIRST", "SECOND"]);
        assert_eq!(codes(&mut undelivered, 8), [""; 0]);
        let left = |undelivered: &Undelivered| fs::read_dir(&undelivered.folder).unwrap().count();
        undelivered.acknowledged(7);
        assert_eq!(left(&undelivered), 2, "what came behind heartbeat 7 may not have been read with it");
        undelivered.acknowledged(8);
        assert_eq!(left(&undelivered), 0);
    }

    #[test]
    fn however_many_were_left_each_is_told_before_it_goes() {
        let state = tempfile::tempdir().unwrap();
        let mut undelivered = undelivered(state.path());
        for number in 10..50 {
            leave(&undelivered, &format!("{number}.json"), NODE, &number.to_string());
        }
        let mut told = Vec::new();
        for beat in 0..8 {
            undelivered.acknowledged(beat);
            let due = codes(&mut undelivered, beat);
            assert!(due.len() <= MAX_AT_ONCE, "{due:?}");
            told.extend(due);
        }
        assert_eq!(told, (10..50).map(|number| number.to_string()).collect::<Vec<_>>());
    }

    #[test]
    fn a_connection_that_was_lost_leaves_it_to_the_next() {
        let state = tempfile::tempdir().unwrap();
        let mut undelivered = undelivered(state.path());
        leave(&undelivered, "1.json", NODE, "FIRST");
        assert_eq!(codes(&mut undelivered, 7), ["FIRST"]);
        undelivered.reconnected();
        undelivered.acknowledged(8);
        assert_eq!(codes(&mut undelivered, 1), ["FIRST"]);
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
