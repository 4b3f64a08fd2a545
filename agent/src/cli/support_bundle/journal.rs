//! What the service and the kernel have said: how much of it a bundle holds, and how long it waits.
//! What came before the deadline counts, also when the rest does not come.

use std::{collections::VecDeque, time::Duration};

use aio_host::layout::UNIT;
use aio_installer::journalctl;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    time::timeout,
};

use super::part::{Content, Found};
use crate::cli::journal::Entry;

/// Lines of the service's journal.
const LINES: usize = 2000;

/// Lines of the kernel's about its GPU driver.
const DRIVER_LINES: usize = 500;

/// A journal on a disk that is full or slow must not keep the rest back.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the GPU driver's lines hold.
const DRIVER: [&str; 3] = ["NVRM", "Xid", "nvidia"];

/// The last lines of the unit, and of the service manager about it, with the fields that the daemon
/// gave them.
pub(super) async fn of_unit() -> Found {
    let lines = format!("--lines={LINES}");
    read(&["--output=json", "--unit", UNIT, &lines], LINES, |line| Some(Entry::parse(line)?.line())).await
}

/// What the kernel has said of the GPU driver in the last week.
pub(super) async fn of_driver() -> Found {
    let arguments = ["--output=short-iso-precise", "--utc", "--since=-7d", "_TRANSPORT=kernel"];
    let of_driver =
        |line: &str| DRIVER.iter().any(|word| line.contains(word)).then(|| line.trim_end().to_owned());
    read(&arguments, DRIVER_LINES, of_driver).await
}

async fn read(arguments: &[&str], most: usize, shown: impl Fn(&str) -> Option<String>) -> Found {
    let mut child = journalctl(arguments).spawn().map_err(|error| format!("journalctl: {error}"))?;
    let mut output = BufReader::new(child.stdout.take().ok_or("journalctl has no output")?);
    let mut lines = VecDeque::new();
    let reading = async {
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line).await.is_ok_and(|length| length > 0) {
            lines.extend(shown(&String::from_utf8_lossy(&line)));
            if lines.len() > most {
                lines.pop_front();
            }
            line.clear();
        }
    };
    let cut_off = timeout(PATIENCE, reading).await.is_err();
    let patience = PATIENCE.as_secs();
    match (lines.is_empty(), cut_off) {
        (true, true) => Err(format!("the journal gave nothing within {patience} s")),
        (true, false) => Err("the journal holds no such line, or none that this user may read".to_owned()),
        (false, _) => Ok(Content {
            text: lines.into_iter().map(|line| line + "\n").collect(),
            note: cut_off.then(|| format!("the journal gave no more within {patience} s")),
        }),
    }
}
