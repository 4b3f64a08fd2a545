//! What `/metrics` shows: the one recorder of the process, and how it writes. What is counted is counted
//! where it happens, with the macros of `metrics`; `catalogue` lists all of it but the figures of every
//! process (`process_*`). The figures are the process's, so that a process with several servers (a test)
//! shows their sum.

mod catalogue;
pub(crate) mod fleet;
mod process;
pub(crate) mod push;
#[cfg(test)]
mod samples;

use std::sync::OnceLock;

use aio_protocol::release::build;
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use catalogue::{FIGURES, Figure, Kind};

static EXPORTER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// The text of `/metrics`, and its upkeep.
#[derive(Clone)]
pub(crate) struct Exporter(Option<PrometheusHandle>);

impl Exporter {
    /// The process's exporter. The first call installs it; what was counted before is lost.
    pub(crate) fn install() -> Self {
        Self(EXPORTER.get_or_init(install).clone())
    }

    /// All figures as Prometheus reads them; none where somebody else records the process's figures.
    pub(crate) fn render(&self) -> String {
        let Some(handle) = &self.0 else { return String::new() };
        process::collect();
        process::as_counter(&handle.render())
    }

    /// Makes buckets of what histograms were given lately; to be called now and then, or it piles up.
    pub(crate) fn tidy_up(&self) {
        if let Some(handle) = &self.0 {
            handle.run_upkeep();
        }
    }
}

fn install() -> Option<PrometheusHandle> {
    let with_buckets = |builder: PrometheusBuilder, figure: &Figure| match figure.kind {
        Kind::Histogram(buckets) => {
            builder.set_buckets_for_metric(Matcher::Full(figure.name.to_owned()), buckets)
        }
        Kind::Counter | Kind::Gauge => Ok(builder),
    };
    let builder = FIGURES.iter().try_fold(PrometheusBuilder::new(), with_buckets).ok()?;
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).ok()?;
    FIGURES.iter().for_each(describe);
    process::describe();
    gauge!("aio_build_info", "version" => build::number()).set(1.0);
    Some(handle)
}

/// What never happened is shown as zero, where there is no label whose values only the happening
/// knows: an alarm that is built on it then has something to look at.
fn describe(figure: &Figure) {
    let Figure { name, labels, help, .. } = *figure;
    match figure.kind {
        Kind::Counter => {
            describe_counter!(name, help);
            if labels.is_empty() {
                counter!(name).increment(0);
            }
        }
        Kind::Gauge => {
            describe_gauge!(name, help);
            if labels.is_empty() {
                gauge!(name).increment(0.0);
            }
        }
        Kind::Histogram(_) => describe_histogram!(name, help),
    }
}
