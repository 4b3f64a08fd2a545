//! Where log lines go: to the journal with their fields when systemd connected our standard error
//! to it, to standard error as text otherwise; never both. What is worth a line is decided where it
//! happens.

use std::io::IsTerminal;

use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt,
    registry,
    util::SubscriberInitExt,
};

/// Starts logging as `RUST_LOG` says, or at `info`. To be called once.
pub fn start() {
    let filter = std::env::var("RUST_LOG").ok().and_then(|filter| filter.parse::<Targets>().ok());
    let filter = filter.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    let journal = connected_to_journal().then(tracing_journald::layer).and_then(Result::ok);
    let registry = registry().with(filter);
    // Nobody else in this process sets a subscriber, so `try_init` cannot find another.
    let _ = match journal {
        Some(layer) => registry
            .with(layer.with_field_prefix(Some("AIO".to_owned())).with_priority_mappings(PRIORITIES))
            .try_init(),
        None => registry
            .with(fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal()))
            .try_init(),
    };
}

/// INFO is a state that an operator cares about, and still no more than information: `notice` would
/// put it above the rest.
const PRIORITIES: PriorityMappings = PriorityMappings {
    error: Priority::Error,
    warn: Priority::Warning,
    info: Priority::Informational,
    debug: Priority::Debug,
    trace: Priority::Debug,
};

/// Whether standard error is the journal. `JOURNAL_STREAM` names its device and inode, because a
/// child may have another.
fn connected_to_journal() -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else { return false };
    rustix::fs::fstat(std::io::stderr()).is_ok_and(|stat| named == format!("{}:{}", stat.st_dev, stat.st_ino))
}
