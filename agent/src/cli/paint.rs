//! Colour in what people read: by what a word means, and only on a terminal that wants it. Decides
//! no words; an answer for programs has none of this.

use std::{
    io::IsTerminal,
    sync::atomic::{AtomicBool, Ordering},
};

use anstyle::{AnsiColor, Style};

use crate::config::{Environment, environment};

/// Once per process, before the first answer. A test, which decides nothing, sees plain text.
static COLOURED: AtomicBool = AtomicBool::new(false);

/// What a word means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    /// As it should be.
    Good,
    /// It works, and somebody should know.
    Doubtful,
    /// Somebody must act.
    Bad,
    /// Not known, or of no interest now.
    Faint,
    /// The name of what stands beside it.
    Heading,
}

impl Tone {
    fn style(self) -> Style {
        match self {
            Self::Good => AnsiColor::Green.on_default(),
            Self::Doubtful => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default().bold(),
            Self::Faint => Style::new().dimmed(),
            Self::Heading => Style::new().bold(),
        }
    }
}

/// Looks at standard output, and at what the environment says of it.
pub(super) fn decide() {
    COLOURED.store(wanted(std::io::stdout().is_terminal(), &environment), Ordering::Relaxed);
}

/// Colour is for a terminal that knows it, and for nobody who sets `NO_COLOR` (<https://no-color.org>).
fn wanted(terminal: bool, env: Environment<'_>) -> bool {
    let refused = env("NO_COLOR").is_some_and(|value| !value.is_empty());
    let able = env("TERM").is_some_and(|name| !name.is_empty() && name != "dumb");
    terminal && able && !refused
}

/// The text in the colour of its tone, where there is colour. To be padded before, not after.
pub(super) fn paint(tone: Tone, text: &str) -> String {
    if COLOURED.load(Ordering::Relaxed) { in_style(tone.style(), text) } else { text.to_owned() }
}

fn in_style(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// A word of health (`ok`, `degraded`, `unhealthy`, `unknown`, with blanks around it or not) in its
/// colour; any other as it is.
pub(super) fn health(word: &str) -> String {
    of_health(word).map_or_else(|| word.to_owned(), |tone| paint(tone, word))
}

fn of_health(word: &str) -> Option<Tone> {
    match word.trim() {
        "ok" => Some(Tone::Good),
        "degraded" => Some(Tone::Doubtful),
        "unhealthy" => Some(Tone::Bad),
        "unknown" => Some(Tone::Faint),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use aio_protocol::telemetry::Health;

    use super::*;

    #[test]
    fn colour_is_for_terminals_that_know_it_and_for_people_who_want_it() {
        let of = |terminal: bool, term: &str, no_color: &str| {
            let env = |name: &str| match name {
                "TERM" => Some(term.to_owned()),
                "NO_COLOR" => Some(no_color.to_owned()),
                _ => None,
            };
            wanted(terminal, &env)
        };
        assert!(of(true, "xterm-256color", ""));
        assert!(!of(false, "xterm-256color", ""), "no terminal");
        assert!(!of(true, "dumb", ""));
        assert!(!of(true, "", ""));
        assert!(!of(true, "xterm", "1"));
        assert!(!wanted(true, &|_| None), "a terminal without a name");
    }

    #[test]
    fn every_health_has_a_colour_of_its_own() {
        let all = [Health::Ok, Health::Degraded, Health::Unknown, Health::Unhealthy];
        let mut styles: Vec<_> =
            all.iter().map(|health| in_style(of_health(health.as_str()).unwrap().style(), "x")).collect();
        styles.sort();
        styles.dedup();
        assert_eq!(styles.len(), all.len());
        assert_eq!(of_health("-"), None);
    }

    #[test]
    fn nothing_is_coloured_before_it_is_decided_and_every_colour_ends() {
        assert_eq!(paint(Tone::Bad, "FAILED"), "FAILED");
        assert_eq!(in_style(Tone::Good.style(), "ok"), "\u{1b}[32mok\u{1b}[0m");
    }
}
