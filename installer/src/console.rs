//! What a person sees while an installation runs: a bar for the download on a terminal, plain lines otherwise, on standard error.
//! The result is printed elsewhere, on standard output.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Where progress is shown.
#[derive(Debug, Clone)]
pub enum Console {
    /// Nowhere.
    Silent,
    /// A line per step.
    Lines,
    /// A line per step and a bar for the download.
    Terminal(ProgressBar),
}

impl Console {
    /// What fits this process's standard error.
    pub fn of_this_process() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::Lines;
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let template = "  {bar:30} {bytes}/{total_bytes}  {bytes_per_sec}, {eta} left";
        match ProgressStyle::with_template(template) {
            Ok(style) => Self::Terminal(bar.with_style(style)),
            Err(_) => Self::Lines,
        }
    }

    /// Something worth a line.
    pub(crate) fn say(&self, line: &str) {
        match self {
            Self::Silent => {}
            Self::Lines => eprintln!("{line}"),
            Self::Terminal(bar) => bar.suspend(|| eprintln!("{line}")),
        }
    }

    /// How far the download is.
    pub(crate) fn downloaded(&self, bytes: u64, total: u64) {
        if let Self::Terminal(bar) = self {
            bar.set_length(total);
            bar.set_position(bytes);
            if bytes >= total {
                bar.finish_and_clear();
            }
        }
    }

    /// Takes the bar away, so that nothing is left of it under an error.
    pub(crate) fn clear(&self) {
        if let Self::Terminal(bar) = self {
            bar.finish_and_clear();
        }
    }
}
