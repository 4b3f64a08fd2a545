//! Where log lines go: to the journal with their fields when systemd connected our standard error
//! to it, to standard error as text otherwise; never both. What is worth a line is decided where it
//! happens. A crate of its own, because daemon and controller share nothing else of a machine.

use std::io::IsTerminal;

use tracing_journald::{Priority, PriorityMappings};
pub use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::{Registry, fmt, layer::SubscriberExt, registry, reload, util::SubscriberInitExt};

/// What is logged, for who may change it.
#[derive(Debug, Clone)]
pub struct Filter(reload::Handle<Targets, Registry>);

impl Filter {
    /// From now on this is logged.
    pub fn set(&self, filter: Targets) {
        // It fails only where the subscriber is gone, and then nothing is logged at all.
        let _ = self.0.reload(filter);
    }
}

/// Starts logging what `filter` wants. To be called once.
pub fn start(filter: Targets) -> Filter {
    let (filter, handle) = reload::Layer::new(filter);
    let journal = connected_to_journal().then(tracing_journald::layer).and_then(Result::ok);
    let registry = registry().with(filter);
    // Nobody else in this process sets a subscriber, so `try_init` cannot find another.
    let _ = match journal {
        Some(layer) => registry
            .with(layer.with_field_prefix(Some("AIO".to_owned())).with_priority_mappings(PRIORITIES))
            .try_init(),
        None => registry
            .with(
                fmt::layer()
                    .log_internal_errors(false)
                    .with_writer(std::io::stderr)
                    .with_ansi(std::io::stderr().is_terminal()),
            )
            .try_init(),
    };
    Filter(handle)
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
