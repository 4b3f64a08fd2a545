//! What the daemon's `log` filter wants logged.

use aio_host::tls::STORE_LOG_TARGET;
use aio_installer::Failure;
pub use aio_logging::Filter;
use aio_logging::{LevelFilter, Targets};
use aio_protocol::error_code::ErrorCode;

/// What `filter` wants logged, e.g. `info` or `info,aio_worker::session=debug`.
pub fn parse(filter: &str) -> Result<Targets, Failure> {
    let parsed: Targets = filter.parse().map_err(|error| {
        Failure::new(ErrorCode::ConfigInvalid, format!("the log filter `{filter}` cannot be used: {error}"))
    })?;
    Ok(if filter.contains(STORE_LOG_TARGET) {
        parsed
    } else {
        parsed.with_target(STORE_LOG_TARGET, LevelFilter::ERROR)
    })
}

/// Starts logging what `filter` wants. To be called once.
pub fn start(filter: &str) -> Result<Filter, Failure> {
    parse(filter).map(aio_logging::start)
}
