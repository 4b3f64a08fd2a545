//! What a person sees while an installation runs: a bar for the download on a terminal, plain lines
//! otherwise, on standard error. The result is printed elsewhere, on standard output.

use std::{
    cell::Cell,
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Between two lines about one download; one that is over sooner has none.
const PACE: Duration = Duration::from_secs(5);

/// Where progress is shown.
#[derive(Debug, Clone)]
pub enum Console {
    /// Nowhere.
    Silent,
    /// A line per step, and one every few seconds of a download.
    Lines(Download),
    /// A line per step and a bar for the download.
    Terminal(ProgressBar),
}

/// When the download that is under way began, and when it was last spoken of.
#[derive(Debug, Clone, Default)]
pub struct Download(Cell<Option<(Instant, Instant)>>);

impl Console {
    /// What fits this process's standard error.
    pub fn of_this_process() -> Self {
        let lines = Self::Lines(Download::default());
        if !io::stderr().is_terminal() {
            return lines;
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let template = "  {bar:30} {bytes}/{total_bytes}  {bytes_per_sec}, {eta} left";
        match ProgressStyle::with_template(template) {
            Ok(style) => Self::Terminal(bar.with_style(style)),
            Err(_) => lines,
        }
    }

    /// Something worth a line.
    pub(crate) fn say(&self, line: &str) {
        match self {
            Self::Silent => {}
            Self::Lines(_) => say(line),
            Self::Terminal(bar) => bar.suspend(|| say(line)),
        }
    }

    /// How far the download is.
    pub(crate) fn downloaded(&self, bytes: u64, total: u64) {
        match self {
            Self::Silent => {}
            Self::Lines(download) => {
                if let Some(line) = download.line(bytes, total, Instant::now()) {
                    say(&line);
                }
            }
            Self::Terminal(bar) => {
                bar.set_length(total);
                bar.set_position(bytes);
                if bytes >= total {
                    bar.finish_and_clear();
                }
            }
        }
    }

    /// Takes the bar away, so that nothing is left of it under an error.
    pub(crate) fn clear(&self) {
        match self {
            Self::Silent => {}
            Self::Lines(download) => download.0.set(None),
            Self::Terminal(bar) => bar.finish_and_clear(),
        }
    }
}

/// Says a line on standard error. Nobody may be there to read it: a terminal that was closed, a
/// pipe without a reader, a full disk.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

impl Download {
    /// What there is to say, when it is time for it.
    fn line(&self, bytes: u64, total: u64, now: Instant) -> Option<String> {
        let (began, spoken) = self.0.get().unwrap_or((now, now));
        let due = now.duration_since(spoken) >= PACE && bytes < total;
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
            download.line(bytes, 10_000_000, began + Duration::from_millis(tenths * 100))
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
