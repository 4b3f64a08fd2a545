//! What the controller logs.

use aio_logging::{LevelFilter, Targets};

/// Starts logging as `RUST_LOG` says, or at `info`. To be called once.
pub fn start() {
    let filter = std::env::var("RUST_LOG").ok().and_then(|filter| filter.parse::<Targets>().ok());
    let filter = filter.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    aio_logging::start(filter);
}
