//! What a person sees while an installation runs, on standard error: on a terminal a line that
//! follows the download, elsewhere one every few seconds. That nobody reads it is no error. The
//! result is printed elsewhere, on standard output.

use std::{
    cell::Cell,
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

/// Between two lines about one download; one that is over sooner has none.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Between two updates of the line on a terminal.
const UPDATE_INTERVAL: Duration = Duration::from_millis(100);

/// Goes back to the start of a terminal's line, and clears it.
const CLEAR_LINE: &str = "\r\u{1b}[K";

/// Where progress is shown.
#[derive(Debug, Clone)]
pub enum Console {
    /// Nowhere.
    Silent,
    /// A line per step, and one every few seconds of a download.
    Lines(Download),
    /// A line per step, and one that follows the download.
    Terminal(Download),
}

/// When the download that is under way began, and when it was last spoken of.
#[derive(Debug, Clone, Default)]
pub struct Download(Cell<Option<(Instant, Instant)>>);

impl Console {
    /// What fits this process's standard error.
    pub fn of_this_process() -> Self {
        let download = Download::default();
        if io::stderr().is_terminal() { Self::Terminal(download) } else { Self::Lines(download) }
    }

    /// Something worth a line.
    pub(crate) fn say(&self, line: &str) {
        match self {
            Self::Silent => {}
            Self::Lines(_) => say(line),
            Self::Terminal(_) => say(&format!("{CLEAR_LINE}{line}")),
        }
    }

    /// How far the download is.
    pub(crate) fn downloaded(&self, bytes: u64, total: u64) {
        match self {
            Self::Silent => {}
            Self::Lines(download) => {
                if let Some(line) = download.line(bytes, total, Instant::now(), LINE_INTERVAL) {
                    say(&line);
                }
            }
            Self::Terminal(download) => {
                if let Some(line) = download.line(bytes, total, Instant::now(), UPDATE_INTERVAL) {
                    write(&format!("{CLEAR_LINE}{line}"));
                }
            }
        }
    }

    /// Forgets the download, so that nothing is left of it under what is said next.
    pub(crate) fn clear(&self) {
        match self {
            Self::Silent => {}
            Self::Lines(download) => download.0.set(None),
            Self::Terminal(download) => {
                if download.0.take().is_some() {
                    write(CLEAR_LINE);
                }
            }
        }
    }
}

/// Says a line on standard error. Nobody may be there to read it: a terminal that was closed, a pipe
/// without a reader, a full disk.
pub(crate) fn say(line: &str) {
    write(&format!("{line}\n"));
}

fn write(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

impl Download {
    /// What there is to say, when it is time for it.
    fn line(&self, bytes: u64, total: u64, now: Instant, pace: Duration) -> Option<String> {
        let (began, spoken) = self.0.get().unwrap_or((now, now));
        let due = now.duration_since(spoken) >= pace && bytes < total;
        self.0.set(Some((began, if due { now } else { spoken })));
        due.then(|| progress(bytes, total, now.duration_since(began)))
    }
}

/// How far a download is, how fast, and how long it will take at that pace.
fn progress(bytes: u64, total: u64, took: Duration) -> String {
    let megabytes = |bytes: f64| bytes / 1e6;
    let rate = bytes as f64 / took.as_secs_f64().max(0.001);
    let (done, all) = (megabytes(bytes as f64), megabytes(total as f64));
    let percent = bytes.saturating_mul(100) / total.max(1);
    let left = if bytes == 0 {
        "nothing has come yet".to_owned()
    } else {
        format!("{:.1} MB/s, {:.0} s left", megabytes(rate), total.saturating_sub(bytes) as f64 / rate)
    };
    format!("  {done:.1} of {all:.1} MB ({percent} %), {left}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_download_has_a_line_every_few_seconds_and_a_short_one_none() {
        let (download, began) = (Download::default(), Instant::now());
        let at = |tenths: u64| {
            let bytes = tenths * 100_000;
            download.line(bytes, 10_000_000, began + Duration::from_millis(tenths * 100), LINE_INTERVAL)
        };
        let lines: Vec<_> = (0..=100).filter_map(at).collect();
        assert_eq!(lines, ["  5.0 of 10.0 MB (50 %), 1.0 MB/s, 5 s left"]);
    }

    #[test]
    fn a_download_that_has_not_begun_has_no_rate() {
        let line = progress(0, 7_400_000, Duration::from_secs(5));
        assert_eq!(line, "  0.0 of 7.4 MB (0 %), nothing has come yet");
    }
}
