//! What a family of figures is, and that `docs/monitoring.md` lists them all.

use super::{
    machine::{Gpu, Machine},
    text::Series,
};
use crate::{
    app::App,
    telemetry::reading::{GpuReading, Reading},
};

/// A family: its series have one name.
pub(super) struct Family {
    pub name: &'static str,
    pub kind: Kind,
    /// Beside those of the node or GPU.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "the page on monitoring lists them, and a test compares")
    )]
    pub labels: &'static [&'static str],
    pub help: &'static str,
    pub of: Of,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
}

/// What a family's series are of, and how they are written.
#[derive(Clone, Copy)]
pub(super) enum Of {
    /// A node, whether anything is heard of it or not.
    Node(fn(&App, &Machine, &mut Series<'_>)),
    /// A node's newest reading, while it holds.
    Reading(fn(&Reading, &mut Series<'_>)),
    /// A GPU of the inventory, while its node's newest reading holds, and what that says of it.
    Gpu(fn(&Gpu, Option<&GpuReading>, &mut Series<'_>)),
}

impl Kind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

pub(super) const fn gauge(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    of: Of,
) -> Family {
    Family { name, kind: Kind::Gauge, labels, help, of }
}

pub(super) const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    of: Of,
) -> Family {
    Family { name, kind: Kind::Counter, labels, help, of }
}

/// A figure, as the format has it.
#[expect(clippy::cast_precision_loss, reason = "no machine has 8 PiB of memory")]
pub(super) fn number(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::{
        super::{dcgm, own},
        *,
    };

    /// As `docs/monitoring.md` writes it.
    fn row(family: &Family) -> String {
        let Family { name, kind, labels, help, .. } = family;
        format!("| `{name}` | {} | {} | {help} |", kind.as_str(), labels.join(", "))
    }

    #[test]
    fn the_page_on_monitoring_lists_exactly_these() {
        let page = include_str!("../../../../docs/monitoring.md");
        let listed: Vec<_> =
            page.lines().filter(|line| line.starts_with("| `aio_") || line.starts_with("| `DCGM_")).collect();
        let rows: Vec<_> = own::FAMILIES.iter().chain(dcgm::FAMILIES).map(row).collect();
        assert_eq!(listed, rows, "the rows should be:\n{}", rows.join("\n"));
    }
}
